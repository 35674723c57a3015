// The WebSocket handshake as a proxy must check it (RFC 6455 §4.2.2): a tunnel is opened only when the upstream proves
// that it has understood, or a client could smuggle requests through a connection that the proxy no longer reads.

internal import Model

package enum WebSocketKey {
    /// A key is 16 bytes in base64.
    package static func isValid(_ key: Span<UInt8>) -> Bool {
        guard key.count == 24, key[22] == 0x3d, key[23] == 0x3d else { return false }
        for i in 0..<22 {
            let byte = key[i]
            guard (byte | 0x20) &- 0x61 < 26 || byte &- 0x30 < 10 || byte == 0x2b || byte == 0x2f else { return false }
        }
        return true
    }

    /// Whether `accept` is the answer to `key`.
    package static func matches(_ key: Span<UInt8>, accept: Span<UInt8>) -> Bool {
        let expected = Self.accept(for: key)
        guard accept.count == expected.count else { return false }
        for i in 0..<accept.count where accept[i] != expected[i] { return false }
        return true
    }

    /// `Sec-WebSocket-Accept` for a key.
    package static func accept(for key: Span<UInt8>) -> [UInt8] {
        var input: [UInt8] = []
        input.append(key)
        input.append("258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
        return base64(SHA1.digest(of: input))
    }

    static func base64(_ bytes: [UInt8]) -> [UInt8] {
        let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
        var output: [UInt8] = []
        var i = 0
        while i < bytes.count {
            let left = bytes.count - i
            let word =
                UInt32(bytes[i]) << 16 | (left > 1 ? UInt32(bytes[i + 1]) << 8 : 0)
                | (left > 2 ? UInt32(bytes[i + 2]) : 0)
            output.append(alphabet[Int(word >> 18)])
            output.append(alphabet[Int(word >> 12 & 63)])
            output.append(left > 1 ? alphabet[Int(word >> 6 & 63)] : 0x3d)
            output.append(left > 2 ? alphabet[Int(word & 63)] : 0x3d)
            i += 3
        }
        return output
    }
}

/// FIPS 180-4. Only for the handshake, where it hides nothing: it proves that the other side speaks WebSocket.
enum SHA1 {
    static func digest(of message: [UInt8]) -> [UInt8] {
        var padded = message
        padded.append(0x80)
        while padded.count % 64 != 56 { padded.append(0) }
        let bits = UInt64(message.count) * 8
        for shift in stride(from: UInt64(56), through: 0, by: -8) {
            padded.append(UInt8(truncatingIfNeeded: bits >> shift))
        }
        var h: [UInt32] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0]
        var w = [UInt32](repeating: 0, count: 80)
        for block in stride(from: 0, to: padded.count, by: 64) {
            for t in 0..<16 {
                let i = block + 4 * t
                w[t] =
                    UInt32(padded[i]) << 24 | UInt32(padded[i + 1]) << 16 | UInt32(padded[i + 2]) << 8
                    | UInt32(padded[i + 3])
            }
            for t in 16..<80 { w[t] = rotate(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1) }
            var (a, b, c, d, e) = (h[0], h[1], h[2], h[3], h[4])
            for t in 0..<80 {
                let (f, k): (UInt32, UInt32) =
                    switch t / 20 {
                    case 0: (b & c | ~b & d, 0x5a82_7999)
                    case 1: (b ^ c ^ d, 0x6ed9_eba1)
                    case 2: (b & c | b & d | c & d, 0x8f1b_bcdc)
                    default: (b ^ c ^ d, 0xca62_c1d6)
                    }
                (a, b, c, d, e) = (rotate(a, 5) &+ f &+ e &+ k &+ w[t], a, rotate(b, 30), c, d)
            }
            h[0] &+= a
            h[1] &+= b
            h[2] &+= c
            h[3] &+= d
            h[4] &+= e
        }
        return h.flatMap { word in
            [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: word >> $0) }
        }
    }

    private static func rotate(_ x: UInt32, _ n: UInt32) -> UInt32 { x << n | x >> (32 - n) }
}
