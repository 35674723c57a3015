// Bytes as a scenario writes and prints them.

package enum ByteText {
    /// Replaces `\r \n \t \0 \\ \" \xHH`; anything else after a backslash is an error.
    package static func bytes(of text: some StringProtocol) throws(ScenarioFailure) -> [UInt8] {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let first = rest.popFirst() {
            guard first == UInt8(ascii: "\\") else {
                bytes.append(first)
                continue
            }
            switch rest.popFirst() {
            case UInt8(ascii: "r"): bytes.append(13)
            case UInt8(ascii: "n"): bytes.append(10)
            case UInt8(ascii: "t"): bytes.append(9)
            case UInt8(ascii: "0"): bytes.append(0)
            case UInt8(ascii: "\\"): bytes.append(UInt8(ascii: "\\"))
            case UInt8(ascii: "\""): bytes.append(UInt8(ascii: "\""))
            case UInt8(ascii: "x"):
                let digits = String(decoding: rest.prefix(2), as: UTF8.self)
                guard digits.count == 2, let value = UInt8(digits, radix: 16) else {
                    throw ScenarioFailure("\\x needs two hexadecimal digits in \"\(text)\"")
                }
                bytes.append(value)
                rest = rest.dropFirst(2)
            default: throw ScenarioFailure("unknown escape in \"\(text)\"")
            }
        }
        return bytes
    }

    package static func printable(_ bytes: some Collection<UInt8>, limit: Int = 1500) -> String {
        var text = ""
        for byte in bytes.prefix(limit) {
            switch byte {
            case 13: text += "\\r"
            case 10: text += "\\n"
            case 9: text += "\\t"
            case 0: text += "\\0"
            case UInt8(ascii: "\\"): text += "\\\\"
            case 0x20...0x7e: text.unicodeScalars.append(Unicode.Scalar(byte))
            default:
                let digits = String(byte, radix: 16)
                text += "\\x" + (digits.count == 1 ? "0" + digits : digits)
            }
        }
        return bytes.count > limit ? text + "… (\(bytes.count) bytes)" : text
    }

    /// `10`, `64KiB`, `3MiB`.
    package static func size(_ text: some StringProtocol) -> Int? {
        for (suffix, factor) in [("KiB", 1024), ("MiB", 1024 * 1024), ("GiB", 1024 * 1024 * 1024)]
        where text.hasSuffix(suffix) {
            return Int(text.dropLast(3)).map { $0 * factor }
        }
        return Int(text)
    }

    /// `250ms`, `2s`.
    package static func duration(_ text: some StringProtocol) -> Duration? {
        if text.hasSuffix("ms") { return Int(text.dropLast(2)).map { .milliseconds($0) } }
        if text.hasSuffix("s") { return Int(text.dropLast(1)).map { .seconds($0) } }
        return nil
    }

    package static func find(_ needle: [UInt8], in bytes: [UInt8]) -> Bool {
        guard !needle.isEmpty, bytes.count >= needle.count else { return needle.isEmpty }
        var index = 0
        let last = bytes.count - needle.count
        while index <= last {
            if bytes[index] == needle[0] && bytes[index..<index + needle.count].elementsEqual(needle) { return true }
            index += 1
        }
        return false
    }
}

/// A body of any length that says where it is: a shift, a gap or a repetition of it differs from it. Its period is a
/// prime, so that no power-of-two block of it repeats at a block boundary.
package struct BodyPattern: Sendable {
    private static let block: [UInt8] = (0..<65521).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ ($0 >> 8) &* 7) }

    package private(set) var position = 0
    package private(set) var holds = true

    package init() {}

    /// The next bytes of the pattern.
    package mutating func next(_ count: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count)
        while bytes.count < count {
            let offset = position % Self.block.count
            let part = min(count - bytes.count, Self.block.count - offset)
            bytes.append(contentsOf: Self.block[offset..<offset + part])
            position += part
        }
        return bytes
    }

    /// Compares what arrived with what should be at this position.
    package mutating func check(_ bytes: ArraySlice<UInt8>) {
        let expected = next(bytes.count)
        if holds && !equalBytes(expected[...], bytes) { holds = false }
    }
}
