import Model
import Testing

@Suite struct HTTPDateTests {
    private func format(_ seconds: Int64) -> String {
        var output: [UInt8] = []
        HTTPDate.append(seconds, to: &output)
        return text(output)
    }

    private func parse(_ date: String, now: Int64 = 1_700_000_000) -> Int64? {
        let date = bytes(date)
        return HTTPDate.parse(date.span, now: now)
    }

    @Test(arguments: [
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"), (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"), (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
        (4_102_444_799, "Thu, 31 Dec 2099 23:59:59 GMT"), (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        (-1, "Wed, 31 Dec 1969 23:59:59 GMT"), (-11_676_096_000, "Sat, 01 Jan 1600 00:00:00 GMT"),
        (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"), (.max, "Fri, 31 Dec 9999 23:59:59 GMT"),
        (.min, "Sat, 01 Jan 0000 00:00:00 GMT"),
    ])
    func formats(_ seconds: Int64, _ expected: String) {
        #expect(format(seconds) == expected)
    }

    @Test(
        arguments: [
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777), ("Sunday, 06-Nov-94 08:49:37 GMT", 784_111_777),
            ("Sun Nov  6 08:49:37 1994", 784_111_777), ("Wednesday, 09-Nov-94 08:49:37 GMT", 784_370_977),
            ("Thu Nov 10 08:49:37 1994", 784_457_377), ("Thu, 01 Jan 1970 00:00:60 GMT", 60),
            // Two digits more than fifty years ahead of 2023 are of the last century.
            ("Friday, 01-Jan-73 00:00:00 GMT", 3_250_454_400), ("Friday, 01-Jan-74 00:00:00 GMT", 126_230_400),
        ] as [(String, Int64)])
    func reads(_ date: String, _ seconds: Int64) {
        #expect(parse(date) == seconds)
    }

    @Test(arguments: [
        "", "Sun", "Sun,", "Sun, 6 Nov 1994 08:49:37 GMT", "Sun, 06 nov 1994 08:49:37 GMT",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT", "Sun, 29 Feb 1900 00:00:00 GMT", "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT", "Sun, 06 Nov 1994 08:49:61 GMT", "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 GMT ", "Sun, 06 Nov 1994 08:49:37", "Sun, 06-Nov-94 08:49:37 GMT",
        "Sunday, 06 Nov 1994 08:49:37 GMT", "Sun Nov 6 08:49:37 1994", "784111777", "Sun, +6 Nov 1994 08:49:37 GMT",
    ])
    func refuses(_ date: String) {
        #expect(parse(date) == nil)
    }

    @Test func readsWhatItFormats() {
        var random = Random(seed: 8)
        for _ in 0..<5000 {
            let seconds = Int64.random(in: -62_167_219_200...253_402_300_799, using: &random)
            let date = format(seconds)
            #expect(date.utf8.count == HTTPDate.count)
            #expect(parse(date) == seconds, "\(date)")
        }
    }
}
