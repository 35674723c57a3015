// Which of the known names is this? Asked once for each field line of each head, so it is answered by comparing words:
// a name of at most 24 bytes is its first eight, its second eight and its last eight bytes, whatever the overlap.

extension FieldName {
    /// The known name that equals `name`, letters compared without case; `.other` if none does.
    @inlinable
    public init(_ name: Span<UInt8>) {
        var found = Self.lookup(name, at: 0, count: name.count)
        // The look-up sets one bit to lower a letter; that makes a `-` of a CR too, which no token holds.
        if found != .other {
            for i in 0..<name.count where name[i] < 0x20 { found = .other }
        }
        self = found
    }

    /// The known name that lies in `bytes` at `offset`. The caller has seen that it is a token.
    @inlinable
    public static func lookup(_ bytes: Span<UInt8>, at offset: Int, count: Int) -> FieldName {
        guard count >= 2, count <= 20 else { return .other }
        let lower: UInt64 = 0x2020_2020_2020_2020
        if count < 8 {
            let mask = ~UInt64(0) &>> UInt64(64 &- 8 &* count)
            var word: UInt64 = 0
            if offset &+ 8 <= bytes.count {
                word = bytes.word(at: offset)
            } else {
                for i in 0..<count { word |= UInt64(bytes[offset &+ i]) &<< UInt64(8 &* i) }
            }
            return lookup(count, first: (word | lower) & mask, middle: 0, last: 0)
        }
        let first = bytes.word(at: offset) | lower
        let middle = count >= 16 ? bytes.word(at: offset &+ 8) | lower : 0
        let last = bytes.word(at: offset &+ count &- 8) | lower
        return lookup(count, first: first, middle: middle, last: last)
    }

    /// The constants are the names of `text`, eight bytes a word, the first in the lowest place; a test compares every
    /// one of them with its text.
    @usableFromInline
    static func lookup(_ count: Int, first: UInt64, middle: UInt64, last: UInt64) -> FieldName {
        switch count {
        case 2:
            if first == 0x0000_0000_0000_6574 { return .te }
        case 3:
            if first == 0x0000_0000_0061_6976 { return .via }
        case 4:
            if first == 0x0000_0000_7473_6f68 { return .host }
            if first == 0x0000_0000_6574_6164 { return .date }
        case 6:
            if first == 0x0000_7470_6563_6361 { return .accept }
            if first == 0x0000_6569_6b6f_6f63 { return .cookie }
            if first == 0x0000_7463_6570_7865 { return .expect }
        case 7:
            if first == 0x0072_656c_6961_7274 { return .trailer }
            if first == 0x0065_6461_7267_7075 { return .upgrade }
        case 9:
            if first == 0x6564_7261_7772_6f66, last == 0x6465_6472_6177_726f { return .forwarded }
            if first == 0x692d_6c61_6572_2d78, last == 0x7069_2d6c_6165_722d { return .xRealIP }
        case 10:
            if first == 0x6974_6365_6e6e_6f63, last == 0x6e6f_6974_6365_6e6e { return .connection }
            if first == 0x696c_612d_7065_656b, last == 0x6576_696c_612d_7065 { return .keepAlive }
            if first == 0x6b6f_6f63_2d74_6573, last == 0x6569_6b6f_6f63_2d74 { return .setCookie }
        case 12:
            if first == 0x2d74_6e65_746e_6f63, last == 0x6570_7974_2d74_6e65 { return .contentType }
            if first == 0x7365_7571_6572_2d78, last == 0x6469_2d74_7365_7571 { return .xRequestID }
        case 13:
            if first == 0x7a69_726f_6874_7561, last == 0x6e6f_6974_617a_6972 { return .authorization }
        case 14:
            if first == 0x2d74_6e65_746e_6f63, last == 0x6874_676e_656c_2d74 { return .contentLength }
            if first == 0x6573_2d32_7074_7468, last == 0x7367_6e69_7474_6573 { return .http2Settings }
        case 15:
            if first == 0x7261_7772_6f66_2d78, last == 0x726f_662d_6465_6472 { return .xForwardedFor }
        case 16:
            if first == 0x6f63_2d79_786f_7270, last == 0x6e6f_6974_6365_6e6e { return .proxyConnection }
            if first == 0x7261_7772_6f66_2d78, last == 0x7473_6f68_2d64_6564 { return .xForwardedHost }
            if first == 0x7261_7772_6f66_2d78, last == 0x7472_6f70_2d64_6564 { return .xForwardedPort }
        case 17:
            if first == 0x7362_6577_2d63_6573, middle == 0x656b_2d74_656b_636f,
                last == 0x7965_6b2d_7465_6b63
            {
                return .secWebSocketKey
            }
            if first == 0x7265_6673_6e61_7274, middle == 0x6e69_646f_636e_652d,
                last == 0x676e_6964_6f63_6e65
            {
                return .transferEncoding
            }
            if first == 0x7261_7772_6f66_2d78, middle == 0x746f_7270_2d64_6564,
                last == 0x6f74_6f72_702d_6465
            {
                return .xForwardedProto
            }
        case 18:
            if first == 0x7561_2d79_786f_7270, middle == 0x6163_6974_6e65_6874,
                last == 0x6574_6163_6974_6e65
            {
                return .proxyAuthenticate
            }
            if first == 0x7261_7772_6f66_2d78, middle == 0x6665_7270_2d64_6564,
                last == 0x7869_6665_7270_2d64
            {
                return .xForwardedPrefix
            }
        case 19:
            if first == 0x7561_2d79_786f_7270, middle == 0x7461_7a69_726f_6874,
                last == 0x6e6f_6974_617a_6972
            {
                return .proxyAuthorization
            }
        case 20:
            if first == 0x7362_6577_2d63_6573, middle == 0x6361_2d74_656b_636f,
                last == 0x7470_6563_6361_2d74
            {
                return .secWebSocketAccept
            }
        default: break
        }
        return .other
    }
}
