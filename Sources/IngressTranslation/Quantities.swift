// The units in which people write (SCRIPTING.md §11). Each parser takes the whole text or refuses it, saying what it wants.

/// Why a text is no such value, in words that follow "is": `"8 MB"; a size is digits, …`.
struct ValueProblem: Error, Equatable {
    var wanted: String
    var example: String
}

enum Quantities {
    /// A duration in microseconds: `150ms 5s 2m 1h 30d 500us`, or `0`.
    static func microseconds(_ text: String) throws(ValueProblem) -> Int {
        let problem = ValueProblem(wanted: "a duration is a number and us, ms, s, m, h or d", example: "5s")
        if text == "0" { return 0 }
        let units: [(String, Int)] = [
            ("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000),
            ("d", 86_400_000_000),
        ]
        guard let (number, factor) = split(text, units: units), let value = scaled(number, by: factor) else {
            throw problem
        }
        return value
    }

    static func milliseconds(_ text: String) throws(ValueProblem) -> Int {
        let value = try microseconds(text)
        return value == 0 ? 0 : max(1, value / 1_000)
    }

    /// A size in bytes: `65536 64KiB 10MiB 1m`; k, m and g count in 1024 as nginx does.
    static func bytes(_ text: String) throws(ValueProblem) -> Int {
        let units: [(String, Int)] = [
            ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("k", 1 << 10), ("K", 1 << 10), ("m", 1 << 20),
            ("M", 1 << 20), ("g", 1 << 30), ("G", 1 << 30), ("", 1),
        ]
        guard let (number, factor) = split(text, units: units), let value = scaled(number, by: factor) else {
            throw ValueProblem(wanted: "a size is digits, then KiB, MiB, GiB, k, m or g if any", example: "8m")
        }
        return value
    }

    /// A share in percent: `5`, `0.1` or `5%`.
    static func percent(_ text: String) throws(ValueProblem) -> Double {
        let number = text.hasSuffix("%") ? text.dropLast() : text[...]
        guard isNumber(number), let value = Double(number), (0...100).contains(value) else {
            throw ValueProblem(wanted: "a share is a number from 0 to 100, with % or without", example: "10%")
        }
        return value
    }

    /// As ingress-nginx reads them (Go: strconv.ParseBool).
    static func boolean(_ text: String) throws(ValueProblem) -> Bool {
        switch text {
        case "1", "t", "T", "true", "TRUE", "True": return true
        case "0", "f", "F", "false", "FALSE", "False": return false
        default: throw ValueProblem(wanted: "this is true or false", example: "true")
        }
    }

    static func integer(_ text: String, in range: ClosedRange<Int>) throws(ValueProblem) -> Int {
        guard text.utf8.count <= 18, text.utf8.allSatisfy({ (48...57).contains($0) }), let value = Int(text),
            range.contains(value)
        else {
            throw ValueProblem(
                wanted: "this is a whole number from \(range.lowerBound) to \(range.upperBound)",
                example: "\(min(range.upperBound, range.lowerBound + 2))")
        }
        return value
    }

    private static func split(_ text: String, units: [(String, Int)]) -> (Substring, Int)? {
        let end = text.firstIndex { !$0.isASCII || !($0.isNumber || $0 == ".") } ?? text.endIndex
        let number = text[..<end]
        let unit = text[end...]
        guard isNumber(number), let factor = units.first(where: { $0.0 == unit })?.1 else { return nil }
        return (number, factor)
    }

    /// Digits with at most one point between them.
    private static func isNumber(_ text: Substring) -> Bool {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count <= 2 && text.utf8.count <= 18
            && parts.allSatisfy { !$0.isEmpty && $0.utf8.allSatisfy { (48...57).contains($0) } }
    }

    private static func scaled(_ number: Substring, by factor: Int) -> Int? {
        if let whole = Int(number) {
            let (value, overflow) = whole.multipliedReportingOverflow(by: factor)
            return overflow ? nil : value
        }
        guard let value = Double(number) else { return nil }
        return Int(exactly: (value * Double(factor)).rounded())
    }
}
