// Host and port as a client names them (RFC 9110 §4.2, §7.2). The router matches the host alone: in lower case, without
// port and trailing dot, so that all spellings of a host get one decision.

public struct Authority: Sendable, Hashable {
    /// The host is the first `hostCount` bytes (an IPv6 address with its brackets), without a trailing dot.
    public var hostCount: Int
    public var port: UInt16?
    /// The host holds no upper-case letter.
    public var isLowercase: Bool

    /// Longest host (RFC 1035 §2.3.4), and a dot.
    public static let maxHostCount = 254

    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`. A colon without a port behind it says as much as none
    /// (RFC 3986 §3.2.3).
    ///
    /// Refuses what DNS names and addresses never hold: user information, escapes, empty labels, spaces, a port that is
    /// zero or above 65535.
    @inlinable
    public init?(_ bytes: Span<UInt8>) {
        let count = bytes.count
        guard count > 0 else { return nil }
        var i = 0
        var hasUpper = false
        if bytes[0] == 0x5b {
            i = 1
            var colons = 0
            while i < count, bytes[i] != 0x5d {
                let byte = bytes[i]
                if byte == 0x3a {
                    colons += 1
                } else if byte != 0x2e, hexDigit(byte) == nil {
                    return nil
                }
                if byte &- 65 < 26 { hasUpper = true }
                i += 1
            }
            guard i < count, i <= 46, colons >= 2 else { return nil }
            i += 1
            hostCount = i
        } else {
            var previous: UInt8 = 0x2e
            while i < count {
                let byte = bytes[i]
                if byte == 0x3a { break }
                guard ByteSet.hostName.contains(byte), byte != 0x2e || previous != 0x2e else { return nil }
                if byte &- 65 < 26 { hasUpper = true }
                previous = byte
                i += 1
            }
            guard i > 0, i <= Self.maxHostCount else { return nil }
            hostCount = previous == 0x2e ? i - 1 : i
            guard hostCount > 0 else { return nil }
        }
        isLowercase = !hasUpper
        port = nil
        guard i < count else { return }
        guard bytes[i] == 0x3a, count - i <= 6 else { return nil }
        guard i + 1 < count else { return }
        var value = 0
        for j in (i + 1)..<count {
            let digit = bytes[j] &- 48
            guard digit < 10 else { return nil }
            value = value * 10 + Int(digit)
        }
        guard value > 0, value <= 65535 else { return nil }
        port = UInt16(truncatingIfNeeded: value)
    }
}
