// The units that users write, in annotations, script arguments and settings alike (SCRIPTING.md §11).

package enum Quantity {
    /// Milliseconds from `150ms`, `5s`, `2m`, `1h`, `30d`, or `0`. Nil for anything else and for what overflows.
    package static func milliseconds(_ text: some StringProtocol) -> Int? {
        if text == "0" { return 0 }
        return number(text, units: [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)])
    }

    /// Bytes from `65536`, `64KiB`, `10MiB`, `1GiB`, `8k`, `1m`, `1g` (powers of two, as in nginx and Kubernetes' Ki).
    package static func bytes(_ text: some StringProtocol) -> Int? {
        number(
            text,
            units: [
                ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("k", 1 << 10), ("m", 1 << 20),
                ("g", 1 << 30), ("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("B", 1), ("", 1),
            ])
    }

    private static func number(_ text: some StringProtocol, units: [(suffix: String, factor: Int)]) -> Int? {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        guard !digits.isEmpty, digits.utf8.count <= 18, let value = Int(digits) else { return nil }
        let suffix = text[digits.endIndex...]
        guard let unit = units.first(where: { $0.suffix == suffix }) else { return nil }
        let (result, overflow) = value.multipliedReportingOverflow(by: unit.factor)
        return overflow ? nil : result
    }
}
