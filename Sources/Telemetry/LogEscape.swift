// How bytes of strangers are written into a log line: no byte sequence can end a string, a line, or colour a terminal.

enum LogEscape {
    @inline(__always)
    private static func digit(_ value: UInt8) -> UInt8 { value < 10 ? value + 48 : value + 87 }

    /// The inside of a JSON string (RFC 8259 §7). What is not UTF-8 (RFC 3629) becomes U+FFFD, one for each byte;
    /// control characters, also those of U+0080…U+009F, are escaped.
    static func json(_ bytes: [UInt8], _ range: Range<Int>, into line: inout [UInt8]) {
        var i = range.lowerBound
        while i < range.upperBound {
            // Nearly all is printable ASCII: found in one go, copied in one go.
            let start = i
            while i < range.upperBound, bytes[i] >= 0x20, bytes[i] < 0x7f, bytes[i] != 0x22, bytes[i] != 0x5c { i += 1 }
            if i > start { line.append(contentsOf: bytes[start..<i]) }
            if i == range.upperBound { return }
            let byte = bytes[i]
            if byte == 0x22 || byte == 0x5c {
                line.append(0x5c)
                line.append(byte)
                i += 1
            } else if byte <= 0x7f {
                unicode(byte, into: &line)
                i += 1
            } else {
                let count = sequence(bytes, at: i, end: range.upperBound)
                if count == 0 {
                    append("\\ufffd", to: &line)
                    i += 1
                } else if byte == 0xc2, bytes[i + 1] < 0xa0 {
                    unicode(bytes[i + 1], into: &line)
                    i += 2
                } else {
                    line.append(contentsOf: bytes[i..<(i + count)])
                    i += count
                }
            }
        }
    }

    /// The inside of a quoted string of the text format: printable ASCII as it is, all else as `\xHH`.
    static func text(_ bytes: [UInt8], _ range: Range<Int>, into line: inout [UInt8]) {
        var i = range.lowerBound
        while i < range.upperBound {
            let start = i
            while i < range.upperBound, bytes[i] >= 0x20, bytes[i] < 0x7f, bytes[i] != 0x22, bytes[i] != 0x5c { i += 1 }
            if i > start { line.append(contentsOf: bytes[start..<i]) }
            if i == range.upperBound { return }
            escape(bytes[i], into: &line)
            i += 1
        }
    }

    /// As `text`, and without spaces and commas, for values that stand without quotes.
    static func word(_ bytes: [UInt8], _ range: Range<Int>, into line: inout [UInt8]) {
        if range.isEmpty { line.append(UInt8(ascii: "-")) }
        for i in range {
            let byte = bytes[i]
            if byte > 0x20, byte < 0x7f, byte != 0x22, byte != 0x5c, byte != UInt8(ascii: ",") {
                line.append(byte)
            } else {
                escape(byte, into: &line)
            }
        }
    }

    private static func escape(_ byte: UInt8, into line: inout [UInt8]) {
        line.append(0x5c)
        line.append(UInt8(ascii: "x"))
        line.append(digit(byte >> 4))
        line.append(digit(byte & 15))
    }

    private static func unicode(_ byte: UInt8, into line: inout [UInt8]) {
        append("\\u00", to: &line)
        line.append(digit(byte >> 4))
        line.append(digit(byte & 15))
    }

    /// The length of the UTF-8 sequence at `i` of more than one byte; 0 if there is none (RFC 3629 §4: no overlong
    /// forms, no surrogates, nothing beyond U+10FFFF).
    private static func sequence(_ bytes: [UInt8], at i: Int, end: Int) -> Int {
        func follows(_ k: Int, _ range: ClosedRange<UInt8> = 0x80...0xbf) -> Bool {
            i + k < end && range.contains(bytes[i + k])
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
