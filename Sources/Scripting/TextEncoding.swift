// `moongate.base64`, `.base64url`, `.hex`, `.url`: codecs that take back exactly what they write, and nothing else.

import Model

package enum Base64 {
    private static let standard = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    private static let url = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".utf8)

    /// RFC 4648 §4, padded; with `urlSafe` §5, unpadded (as JWTs have it, RFC 7515 §2).
    package static func encode(_ input: Span<UInt8>, urlSafe: Bool = false) -> [UInt8] {
        let alphabet = urlSafe ? url : standard
        var output: [UInt8] = []
        output.reserveCapacity((input.count + 2) / 3 * 4)
        var at = 0
        while at < input.count {
            let left = input.count - at
            let word =
                UInt32(input[at]) << 16 | (left > 1 ? UInt32(input[at + 1]) << 8 : 0)
                | (left > 2 ? UInt32(input[at + 2]) : 0)
            output.append(alphabet[Int(word >> 18)])
            output.append(alphabet[Int(word >> 12 & 63)])
            if left > 1 { output.append(alphabet[Int(word >> 6 & 63)]) } else if !urlSafe { output.append(61) }
            if left > 2 { output.append(alphabet[Int(word & 63)]) } else if !urlSafe { output.append(61) }
            at += 3
        }
        return output
    }

    /// Strict (RFC 4648 §3.5): no space, no line break, no bits behind the last byte. Padding is required by the
    /// standard form; the other form takes it whole or not at all.
    package static func decode(_ input: Span<UInt8>, urlSafe: Bool = false) -> [UInt8]? {
        var count = input.count
        var padding = 0
        while count > 0, padding < 2, input[count - 1] == 61 {
            count -= 1
            padding += 1
        }
        if !urlSafe || padding > 0 {
            guard (count + padding) % 4 == 0 else { return nil }
        }
        guard count % 4 != 1 else { return nil }
        var output: [UInt8] = []
        output.reserveCapacity(count / 4 * 3 + 2)
        var word: UInt32 = 0
        var bits = 0
        for i in 0..<count {
            guard let value = value(of: input[i], urlSafe: urlSafe) else { return nil }
            word = word << 6 | value
            bits += 6
            if bits >= 8 {
                bits -= 8
                output.append(UInt8(truncatingIfNeeded: word >> UInt32(bits)))
            }
        }
        guard word & (1 << UInt32(bits) - 1) == 0 else { return nil }
        return output
    }

    private static func value(of byte: UInt8, urlSafe: Bool) -> UInt32? {
        switch byte {
        case 65...90: UInt32(byte - 65)
        case 97...122: UInt32(byte - 71)
        case 48...57: UInt32(byte + 4)
        case 43: urlSafe ? nil : 62
        case 47: urlSafe ? nil : 63
        case 45: urlSafe ? 62 : nil
        case 95: urlSafe ? 63 : nil
        default: nil
        }
    }
}

package enum Hex {
    private static let digits = Array("0123456789abcdef".utf8)

    package static func encode(_ input: Span<UInt8>) -> [UInt8] {
        var output: [UInt8] = []
        output.reserveCapacity(2 * input.count)
        for i in 0..<input.count {
            output.append(digits[Int(input[i] >> 4)])
            output.append(digits[Int(input[i] & 15)])
        }
        return output
    }

    /// An even number of digits of either case.
    package static func decode(_ input: Span<UInt8>) -> [UInt8]? {
        guard input.count % 2 == 0 else { return nil }
        var output: [UInt8] = []
        output.reserveCapacity(input.count / 2)
        var at = 0
        while at < input.count {
            guard let high = hexDigit(input[at]), let low = hexDigit(input[at + 1]) else { return nil }
            output.append(high << 4 | low)
            at += 2
        }
        return output
    }
}

package enum PercentEncoding {
    /// Every byte but the unreserved ones (RFC 3986 §2.3) as `%XX`.
    package static func encode(_ input: Span<UInt8>) -> [UInt8] {
        var output: [UInt8] = []
        output.reserveCapacity(input.count)
        for i in 0..<input.count {
            let byte = input[i]
            switch byte {
            case 65...90, 97...122, 48...57, 45, 46, 95, 126: output.append(byte)
            default:
                output.append(37)
                output.append(upperHexDigit(byte >> 4))
                output.append(upperHexDigit(byte & 15))
            }
        }
        return output
    }

    /// Nil where a `%` is not followed by two digits. A `+` stays a plus.
    package static func decode(_ input: Span<UInt8>) -> [UInt8]? {
        var output: [UInt8] = []
        output.reserveCapacity(input.count)
        var at = 0
        while at < input.count {
            if input[at] == 37 {
                guard at + 2 < input.count, let high = hexDigit(input[at + 1]), let low = hexDigit(input[at + 2])
                else { return nil }
                output.append(high << 4 | low)
                at += 3
            } else {
                output.append(input[at])
                at += 1
            }
        }
        return output
    }
}

/// The parts of an absolute URL or of a path, as `moongate.url.parse` gives them (RFC 3986 §3).
package struct URLParts: Sendable, Hashable {
    package var scheme: String?
    package var host: String?
    package var port: Int?
    package var path = ""
    package var query: String?
    package var fragment: String?

    /// Refuses control characters and spaces, user information, a bad port and an empty host.
    package init?(_ text: String) {
        guard text.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7f }) else { return nil }
        var rest = Substring(text)
        if let hash = rest.firstIndex(of: "#") {
            fragment = String(rest[rest.index(after: hash)...])
            rest = rest[..<hash]
        }
        if let mark = rest.firstIndex(of: "?") {
            query = String(rest[rest.index(after: mark)...])
            rest = rest[..<mark]
        }
        if let colon = rest.firstIndex(of: ":"), rest[..<colon].allSatisfy({ $0 != "/" }) {
            let name = rest[..<colon]
            guard let first = name.first, first.isASCII, first.isLetter,
                name.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || "+-.".contains($0)) })
            else { return nil }
            scheme = name.lowercased()
            rest = rest[rest.index(after: colon)...]
        }
        if rest.hasPrefix("//") {
            rest = rest.dropFirst(2)
            let end = rest.firstIndex(of: "/") ?? rest.endIndex
            guard let authority = Authority(Array(rest[..<end].utf8).span) else { return nil }
            let bytes = Array(rest[..<end].utf8)
            host = String(decoding: bytes[..<authority.hostCount], as: UTF8.self).lowercased()
            let tail = bytes[authority.hostCount...].drop { $0 == 46 }
            if !tail.isEmpty {
                guard tail.first == 58, let number = UInt16(String(decoding: tail.dropFirst(), as: UTF8.self)) else {
                    return nil
                }
                port = Int(number)
            }
            rest = rest[end...]
        }
        path = String(rest)
    }
}
