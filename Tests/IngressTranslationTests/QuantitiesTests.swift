import Model
import Testing

@testable import IngressTranslation

struct QuantitiesTests {
    @Test(arguments: [
        ("0", 0), ("150ms", 150), ("5s", 5_000), ("2m", 120_000), ("1h", 3_600_000), ("30d", 2_592_000_000),
        ("1.5s", 1_500),
        ("500us", 1), ("2500us", 2), ("0s", 0),
    ])
    func readsDurations(text: String, milliseconds: Int) throws {
        #expect(try Quantities.milliseconds(text) == milliseconds)
    }

    @Test(arguments: [
        ("0", 0), ("65536", 65_536), ("64KiB", 65_536), ("10MiB", 10 << 20), ("1m", 1 << 20), ("1M", 1 << 20),
        ("2g", 2 << 30),
        ("1.5k", 1_536),
    ])
    func readsSizes(text: String, bytes: Int) throws {
        #expect(try Quantities.bytes(text) == bytes)
    }

    @Test(arguments: [("5", 5.0), ("5%", 5), ("0.1", 0.1), ("100%", 100), ("0", 0)])
    func readsShares(text: String, percent: Double) throws {
        #expect(try Quantities.percent(text) == percent)
    }

    @Test(arguments: [
        "", " ", "-1s", "+1s", "1", "s", "5 s", "5S", "5sec", "1s2", "1..5s", ".5s", "5.s", "1e3s", "٣s",
        "9999999999999999999s",
        "99999999999999999d", "0x5s", "5s\n", "5s\0", "inf", "nan",
    ])
    func refusesDurations(text: String) {
        #expect(throws: ValueProblem.self) { try Quantities.milliseconds(text) }
    }

    @Test(arguments: ["", "8 MB", "8MB", "-1", "k", "1kb", "9999999999999999999g", "1e3", "0x10", "１"])
    func refusesSizes(text: String) {
        #expect(throws: ValueProblem.self) { try Quantities.bytes(text) }
    }

    @Test(arguments: ["", "%", "101", "-1", "5%%", "nan", "1e1", "5 %"])
    func refusesShares(text: String) {
        #expect(throws: ValueProblem.self) { try Quantities.percent(text) }
    }

    @Test(arguments: ["", "-1", "11", "+3", "3 ", "0x3", "99999999999999999999"])
    func refusesIntegers(text: String) {
        #expect(throws: ValueProblem.self) { try Quantities.integer(text, in: 0...10) }
    }

    @Test(arguments: [
        ("timeout-conect", "timeout-connect"), ("loadbalance", "load-balance"), ("scrpit", "script"),
        ("RETRIES", "retries"),
        ("xyzzy", nil), ("", nil), ("a", nil),
    ])
    func findsWhatWasMeant(word: String, meant: String?) {
        #expect(Spelling.nearest(to: word, among: AnnotationTable.all.map(\.key)) == meant)
    }
}
