// Addresses as values of fixed size: they are compared and copied on the request path.

/// An IPv4 or IPv6 address, held as 128 bits; IPv4 as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2), so that one comparison
/// serves both and an IPv4 client is the same client on a dual-stack listener.
package struct IPAddress: Sendable, Hashable, CustomStringConvertible {
    package var high: UInt64
    package var low: UInt64

    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// An IPv4 address in host byte order (127.0.0.1 is 0x7f000001).
    package init(v4: UInt32) {
        self.init(high: 0, low: 0xffff_0000_0000 | UInt64(v4))
    }

    package var isV4: Bool { high == 0 && low >> 32 == 0xffff }
    package var v4: UInt32 { UInt32(truncatingIfNeeded: low) }
    /// Whether a connection to it stays on this host: loopback (RFC 1122 §3.2.1.3, RFC 4291 §2.5.3), or unspecified, which
    /// systems take for loopback.
    package var isThisHost: Bool { isV4 ? v4 >> 24 == 127 || v4 >> 24 == 0 : high == 0 && low <= 1 }

    /// Parses dotted IPv4 (four decimal parts, no leading zeros) or IPv6 text (RFC 4291 §2.2, also with an IPv4 tail).
    /// Refuses zones (`%eth0`), brackets and ports.
    package init?(_ text: some StringProtocol) {
        let bytes = Array(text.utf8)
        if bytes.contains(UInt8(ascii: ":")) {
            guard let groups = Self.parseV6(bytes) else { return nil }
            var words: (UInt64, UInt64) = (0, 0)
            for i in 0..<4 { words.0 = words.0 << 16 | UInt64(groups[i]) }
            for i in 4..<8 { words.1 = words.1 << 16 | UInt64(groups[i]) }
            self.init(high: words.0, low: words.1)
        } else {
            guard let v4 = Self.parseV4(bytes[...]) else { return nil }
            self.init(v4: v4)
        }
    }

    private static func parseV4(_ bytes: ArraySlice<UInt8>) -> UInt32? {
        let parts = bytes.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count == 4 else { return nil }
        var result: UInt32 = 0
        for part in parts {
            guard (1...3).contains(part.count), part.allSatisfy({ (48...57).contains($0) }) else { return nil }
            if part.count > 1, part.first == 48 { return nil }
            let value = part.reduce(0) { $0 * 10 + UInt32($1 - 48) }
            guard value <= 255 else { return nil }
            result = result << 8 | value
        }
        return result
    }

    private static func parseV6(_ bytes: [UInt8]) -> [UInt16]? {
        /// The groups of one side of `::`; nil if malformed.
        func groups(_ side: ArraySlice<UInt8>, mayEndInV4: Bool) -> [UInt16]? {
            if side.isEmpty { return [] }
            var result: [UInt16] = []
            let parts = side.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
            for (i, part) in parts.enumerated() {
                if mayEndInV4, i == parts.count - 1, part.contains(UInt8(ascii: ".")) {
                    guard let v4 = parseV4(part) else { return nil }
                    result += [UInt16(v4 >> 16), UInt16(truncatingIfNeeded: v4)]
                    continue
                }
                guard (1...4).contains(part.count) else { return nil }
                var value: UInt16 = 0
                for byte in part {
                    guard let digit = hexDigit(byte) else { return nil }
                    value = value << 4 | UInt16(digit)
                }
                result.append(value)
            }
            return result
        }
        var gap: Int?
        for i in bytes.indices.dropLast() where bytes[i] == 58 && bytes[i + 1] == 58 {
            if gap != nil { return nil }
            gap = i
        }
        guard let gap else {
            guard let all = groups(bytes[...], mayEndInV4: true), all.count == 8 else { return nil }
            return all
        }
        guard let head = groups(bytes[..<gap], mayEndInV4: false),
            let tail = groups(bytes[(gap + 2)...], mayEndInV4: true),
            head.count + tail.count <= 7
        else { return nil }
        return head + Array(repeating: 0, count: 8 - head.count - tail.count) + tail
    }

    /// Dotted IPv4, or IPv6 in the canonical form of RFC 5952.
    package var description: String {
        if isV4 { return "\(v4 >> 24).\(v4 >> 16 & 255).\(v4 >> 8 & 255).\(v4 & 255)" }
        let groups = (0..<8).map { i in UInt16(truncatingIfNeeded: (i < 4 ? high : low) >> (48 - 16 * UInt64(i % 4))) }
        var best = 0..<0
        var i = 0
        while i < 8 {
            var j = i
            while j < 8, groups[j] == 0 { j += 1 }
            if j - i > best.count, j - i > 1 { best = i..<j }
            i = max(j, i + 1)
        }
        func text(_ range: Range<Int>) -> String {
            groups[range].map { String($0, radix: 16) }.joined(separator: ":")
        }
        return best.isEmpty ? text(0..<8) : "\(text(0..<best.lowerBound))::\(text(best.upperBound..<8))"
    }
}

/// An address and a port.
package struct SocketAddress: Sendable, Hashable, CustomStringConvertible {
    package var ip: IPAddress
    package var port: UInt16

    package init(ip: IPAddress, port: UInt16) {
        self.ip = ip
        self.port = port
    }

    /// Parses `1.2.3.4:80` or `[::1]:80`.
    package init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else {
            return nil
        }
        var host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") {
            host = host.dropFirst().dropLast()
        } else if host.contains(":") {
            return nil
        }
        guard let ip = IPAddress(host) else { return nil }
        self.init(ip: ip, port: port)
    }

    package var description: String { ip.isV4 ? "\(ip):\(port)" : "[\(ip)]:\(port)" }
}

/// A block of addresses in CIDR notation (RFC 4632, RFC 4291 §2.3).
package struct AddressBlock: Sendable, Hashable, CustomStringConvertible {
    package let base: IPAddress
    /// Counted in 128 bits: an IPv4 `/8` is 104.
    package let bits: Int

    /// Parses `10.0.0.0/8`, `2001:db8::/32`, or one address alone. Bits beyond the prefix are ignored.
    package init?(_ text: some StringProtocol) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard let first = parts.first, let ip = IPAddress(first), parts.count <= 2 else { return nil }
        let most = ip.isV4 && !first.contains(":") ? 32 : 128
        var length = most
        if parts.count == 2 {
            guard let n = Int(parts[1]), (0...most).contains(n), !parts[1].hasPrefix("+") else { return nil }
            length = n
        }
        bits = length + 128 - most
        base = Self.mask(ip, bits)
    }

    /// Every address of a family is in it: `0.0.0.0/0`, `::/0`.
    package var isEverybody: Bool { bits == 0 || base.isV4 && bits == 96 }

    package func contains(_ ip: IPAddress) -> Bool { Self.mask(ip, bits) == base }

    private static func mask(_ ip: IPAddress, _ bits: Int) -> IPAddress {
        IPAddress(
            high: bits >= 64 ? ip.high : bits == 0 ? 0 : ip.high & (UInt64.max << (64 - UInt64(bits))),
            low: bits == 128 ? ip.low : bits <= 64 ? 0 : ip.low & (UInt64.max << (128 - UInt64(bits))))
    }

    package var description: String { base.isV4 && bits >= 96 ? "\(base)/\(bits - 96)" : "\(base)/\(bits)" }
}

/// The value of one hexadecimal digit; nil for any other byte.
@inlinable
public func hexDigit(_ byte: UInt8) -> UInt8? {
    switch byte {
    case 48...57: byte - 48
    case 65...70: byte - 55
    case 97...102: byte - 87
    default: nil
    }
}
