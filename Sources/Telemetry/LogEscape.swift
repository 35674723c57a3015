// How bytes of strangers are written into a log line: no byte sequence can end a string, a line, or colour a terminal.

enum LogEscape {
    @inline(__always)
    private static func digit(_ value: UInt8) -> UInt8 { value < 10 ? value + 48 : value + 87 }

    /// The inside of a JSON string (RFC 8259 §7). What is not UTF-8 (RFC 3629) becomes U+FFFD, one for each byte;
    /// control characters, also those of U+0080…U+009F, are escaped.
    static func json(_ bytes: Span<UInt8>, into line: inout [UInt8]) {
        var i = 0
        while i < bytes.count {
            let byte = bytes[i]
            switch byte {
            case 0x22, 0x5c:
                line.append(0x5c)
                line.append(byte)
                i += 1
            case 0x20...0x7e:
                line.append(byte)
                i += 1
            case 0x00...0x1f, 0x7f:
                unicode(byte, into: &line)
                i += 1
            default:
                let count = sequence(bytes, at: i)
                if count == 0 {
                    append("\\ufffd", to: &line)
                    i += 1
                } else if byte == 0xc2, bytes[i + 1] < 0xa0 {
                    unicode(bytes[i + 1], into: &line)
                    i += 2
                } else {
                    for k in 0..<count { line.append(bytes[i + k]) }
                    i += count
                }
            }
        }
    }

    /// The inside of a quoted string of the text format: printable ASCII as it is, all else as `\xHH`.
    static func text(_ bytes: Span<UInt8>, into line: inout [UInt8]) {
        for i in bytes.indices {
            let byte = bytes[i]
            if byte >= 0x20, byte < 0x7f, byte != 0x22, byte != 0x5c {
                line.append(byte)
            } else {
                line.append(0x5c)
                line.append(UInt8(ascii: "x"))
                line.append(digit(byte >> 4))
                line.append(digit(byte & 15))
            }
        }
    }

    /// As `text`, and without a space, for values that stand without quotes.
    static func word(_ bytes: Span<UInt8>, into line: inout [UInt8]) {
        if bytes.isEmpty { line.append(UInt8(ascii: "-")) }
        for i in bytes.indices {
            let byte = bytes[i]
            if byte > 0x20, byte < 0x7f, byte != 0x22, byte != 0x5c, byte != UInt8(ascii: ",") {
                line.append(byte)
            } else {
                line.append(0x5c)
                line.append(UInt8(ascii: "x"))
                line.append(digit(byte >> 4))
                line.append(digit(byte & 15))
            }
        }
    }

    private static func unicode(_ byte: UInt8, into line: inout [UInt8]) {
        append("\\u00", to: &line)
        line.append(digit(byte >> 4))
        line.append(digit(byte & 15))
    }

    /// The length of the UTF-8 sequence at `i` of more than one byte; 0 if there is none (RFC 3629 §4: no overlong
    /// forms, no surrogates, nothing beyond U+10FFFF).
    private static func sequence(_ bytes: Span<UInt8>, at i: Int) -> Int {
        func follows(_ k: Int, _ range: ClosedRange<UInt8> = 0x80...0xbf) -> Bool {
            i + k < bytes.count && range.contains(bytes[i + k])
        }
        switch bytes[i] {
        case 0xc2...0xdf: return follows(1) ? 2 : 0
        case 0xe0: return follows(1, 0xa0...0xbf) && follows(2) ? 3 : 0
        case 0xed: return follows(1, 0x80...0x9f) && follows(2) ? 3 : 0
        case 0xe1...0xef: return follows(1) && follows(2) ? 3 : 0
        case 0xf0: return follows(1, 0x90...0xbf) && follows(2) && follows(3) ? 4 : 0
        case 0xf1...0xf3: return follows(1) && follows(2) && follows(3) ? 4 : 0
        case 0xf4: return follows(1, 0x80...0x8f) && follows(2) && follows(3) ? 4 : 0
        default: return 0
        }
    }

    /// For literals only: these are not allocated.
    @inline(__always)
    static func append(_ literal: String, to line: inout [UInt8]) {
        line.append(contentsOf: literal.utf8)
    }
}
