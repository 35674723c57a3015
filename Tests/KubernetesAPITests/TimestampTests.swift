import KubernetesAPI
import Testing

struct TimestampTests {
    @Test(arguments: [
        ("1970-01-01T00:00:00Z", 0, 0), ("2000-02-29T12:00:00Z", 951_825_600, 0),
        ("2026-11-24T17:16:00Z", 1_795_540_560, 0),
        ("1969-12-31T23:59:59Z", -1, 0), ("2026-11-24T17:16:00.25Z", 1_795_540_560, 250_000_000),
        ("2026-11-24T18:16:00+01:00", 1_795_540_560, 0),
        ("2026-11-24t12:16:00.123456789-05:00", 1_795_540_560, 123_456_789),
        ("2016-12-31T23:59:60Z", 1_483_228_800, 0),
    ])
    func reads(text: String, seconds: Int64, nanoseconds: Int32) {
        #expect(Timestamp(text) == Timestamp(seconds: seconds, nanoseconds: nanoseconds))
    }

    @Test(arguments: [
        "", "2026", "2026-11-24", "2026-13-01T00:00:00Z", "2026-02-29T00:00:00Z", "1900-02-29T00:00:00Z",
        "2026-11-24T24:00:00Z", "2026-11-24T00:60:00Z", "2026-11-24 00:00:00Z", "2026-11-24T00:00:00",
        "2026-11-24T00:00:00.Z",
        "2026-11-24T00:00:00Zx", "2026-11-24T00:00:00+1:00", "2026-11-24T00:00:00+", "2026-11-31T00:00:00Z",
        "２026-11-24T00:00:00Z",
    ])
    func refuses(text: String) {
        #expect(Timestamp(text) == nil)
    }

    @Test func writesWhatItReads() {
        for day in stride(from: Int64(-30_000), through: 80_000, by: 17) {
            let time = Timestamp(seconds: day * 86_400 + 3_723, nanoseconds: 5_000)
            #expect(Timestamp(time.description) == time)
        }
        #expect(Timestamp(seconds: 0).description == "1970-01-01T00:00:00Z")
        #expect(Timestamp(seconds: 1, nanoseconds: 5_000).description == "1970-01-01T00:00:01.000005Z")
    }

    @Test func ordersByTime() {
        #expect(Timestamp(seconds: 1, nanoseconds: 2) < Timestamp(seconds: 2))
        #expect(Timestamp(seconds: 2) < Timestamp(seconds: 2, nanoseconds: 1))
    }
}
