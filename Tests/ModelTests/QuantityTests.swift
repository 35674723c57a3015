import Model
import Testing

struct QuantityTests {
    @Test(arguments: [
        ("150ms", 150), ("5s", 5000), ("2m", 120_000), ("1h", 3_600_000), ("30d", 2_592_000_000), ("0", 0), ("0s", 0),
    ])
    func `a duration is digits and a unit`(text: String, expected: Int) {
        #expect(Quantity.milliseconds(text) == expected)
    }

    @Test(arguments: ["", "5", "s", "-5s", "+5s", "5 s", "1.5s", "5S", "5sec", "999999999999999999d", "٣s"])
    func `what is no duration is refused`(text: String) {
        #expect(Quantity.milliseconds(text) == nil)
    }

    @Test(arguments: [
        ("0", 0), ("65536", 65536), ("64KiB", 65536), ("10MiB", 10_485_760), ("1m", 1_048_576), ("8k", 8192),
        ("2g", 2 << 30),
    ])
    func `a size is digits and perhaps a unit`(text: String, expected: Int) {
        #expect(Quantity.bytes(text) == expected)
    }

    @Test(arguments: ["", "8 MB", "8MB", "-1", "1.5m", "k", "999999999999999999TiB", "0x10"])
    func `what is no size is refused`(text: String) {
        #expect(Quantity.bytes(text) == nil)
    }
}
