// JSON (RFC 8259) into placed values: manifests written as JSON, and arguments of scripts in annotations.

/// A strict reader of one JSON text. Refuses what RFC 8259 does not allow, duplicate keys (which readers understand
/// differently), unpaired surrogates, and what goes beyond the limits.
package struct JSONReader {
    private let bytes: [UInt8]
    private let limits: ReadingLimits
    private var at = 0
    private var line = 1
    private var lineStart = 0
    private var values = 0

    /// Reads a whole text; `firstLine` is the number of its first line within the file that it comes from.
    package static func read(
        _ text: String, limits: ReadingLimits = .manifest, firstLine: Int = 1
    ) throws(FieldFault) -> PlacedValue {
        var reader = JSONReader(bytes: Array(text.utf8), limits: limits, line: firstLine)
        return try reader.readDocument()
    }

    private init(bytes: [UInt8], limits: ReadingLimits, line: Int) {
        self.bytes = bytes
        self.limits = limits
        self.line = line
    }

    private var position: TextPosition { TextPosition(line: line, column: at - lineStart + 1) }

    private func fault(_ problem: String) -> FieldFault { FieldFault(position: position, problem: problem) }

    private mutating func readDocument() throws(FieldFault) -> PlacedValue {
        guard bytes.count <= limits.bytes else { throw fault("the text is longer than \(limits.bytes) bytes") }
        skipSpace()
        let value = try readValue(depth: 0)
        skipSpace()
        guard at == bytes.count else { throw fault("there is more text after the end of the value") }
        return value
    }

    private var next: UInt8? { at < bytes.count ? bytes[at] : nil }

    private mutating func skipSpace() {
        while at < bytes.count {
            switch bytes[at] {
            case 0x20, 0x09, 0x0d: at += 1
            case 0x0a:
                at += 1
                line += 1
                lineStart = at
            default: return
            }
        }
    }

    private mutating func readValue(depth: Int) throws(FieldFault) -> PlacedValue {
        guard depth <= limits.depth else { throw fault("nested deeper than \(limits.depth) levels") }
        values += 1
        guard values <= limits.values else { throw fault("more than \(limits.values) values") }
        let start = position
        guard let byte = next else { throw fault("the text ends where a value is expected") }
        switch byte {
        case UInt8(ascii: "{"):
            return PlacedValue(.map(try readMap(depth: depth)), at: start)
        case UInt8(ascii: "["):
            return PlacedValue(.list(try readList(depth: depth)), at: start)
        case UInt8(ascii: "\""):
            return PlacedValue(.string(try readString()), at: start)
        case UInt8(ascii: "t"):
            try readWord("true")
            return PlacedValue(.bool(true), at: start)
        case UInt8(ascii: "f"):
            try readWord("false")
            return PlacedValue(.bool(false), at: start)
        case UInt8(ascii: "n"):
            try readWord("null")
            return PlacedValue(.null, at: start)
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"):
            return PlacedValue(try readNumber(), at: start)
        default:
            throw fault("a value cannot begin here")
        }
    }

    private mutating func readWord(_ word: String) throws(FieldFault) {
        guard bytes[at...].starts(with: word.utf8) else { throw fault("expected \(word)") }
        at += word.utf8.count
    }

    private mutating func readMap(depth: Int) throws(FieldFault) -> [PlacedValue.Entry] {
        at += 1
        var entries: [PlacedValue.Entry] = []
        var seen: Set<String> = []
        skipSpace()
        if next == UInt8(ascii: "}") {
            at += 1
            return entries
        }
        while true {
            skipSpace()
            let keyPosition = position
            guard next == UInt8(ascii: "\"") else { throw fault("expected a key in quotes") }
            let key = try readString()
            guard seen.insert(key).inserted else {
                throw FieldFault(position: keyPosition, problem: "the key \"\(key)\" is there twice")
            }
            skipSpace()
            guard next == UInt8(ascii: ":") else { throw fault("expected ':' after the key") }
            at += 1
            skipSpace()
            let value = try readValue(depth: depth + 1)
            entries.append(PlacedValue.Entry(key: key, keyPosition: keyPosition, value: value))
            skipSpace()
            switch next {
            case UInt8(ascii: ","): at += 1
            case UInt8(ascii: "}"):
                at += 1
                return entries
            default: throw fault("expected ',' or '}'")
            }
        }
    }

    private mutating func readList(depth: Int) throws(FieldFault) -> [PlacedValue] {
        at += 1
        var items: [PlacedValue] = []
        skipSpace()
        if next == UInt8(ascii: "]") {
            at += 1
            return items
        }
        while true {
            skipSpace()
            items.append(try readValue(depth: depth + 1))
            skipSpace()
            switch next {
            case UInt8(ascii: ","): at += 1
            case UInt8(ascii: "]"):
                at += 1
                return items
            default: throw fault("expected ',' or ']'")
            }
        }
    }

    private mutating func readString() throws(FieldFault) -> String {
        at += 1
        let start = at
        while at < bytes.count, bytes[at] != UInt8(ascii: "\""), bytes[at] != UInt8(ascii: "\\"), bytes[at] >= 0x20 {
            at += 1
        }
        if next == UInt8(ascii: "\"") {
            defer { at += 1 }
            return String(decoding: bytes[start..<at], as: UTF8.self)
        }
        var text = Array(bytes[start..<at])
        while let byte = next {
            switch byte {
            case UInt8(ascii: "\""):
                at += 1
                return String(decoding: text, as: UTF8.self)
            case UInt8(ascii: "\\"):
                try readEscape(into: &text)
            case 0x00..<0x20:
                throw fault("a control character stands unescaped in a string")
            default:
                text.append(byte)
                at += 1
            }
        }
        throw fault("the text ends within a string")
    }

    private mutating func readEscape(into text: inout [UInt8]) throws(FieldFault) {
        at += 1
        guard let byte = next else { throw fault("the text ends within a string") }
        at += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(byte)
        case UInt8(ascii: "b"): text.append(0x08)
        case UInt8(ascii: "f"): text.append(0x0c)
        case UInt8(ascii: "n"): text.append(0x0a)
        case UInt8(ascii: "r"): text.append(0x0d)
        case UInt8(ascii: "t"): text.append(0x09)
        case UInt8(ascii: "u"):
            var code = try readHex()
            if (0xd800..<0xdc00).contains(code) {
                guard next == UInt8(ascii: "\\"), at + 1 < bytes.count, bytes[at + 1] == UInt8(ascii: "u") else {
                    throw fault("half of a surrogate pair")
                }
                at += 2
                let low = try readHex()
                guard (0xdc00..<0xe000).contains(low) else { throw fault("half of a surrogate pair") }
                code = 0x10000 + (code - 0xd800) << 10 + (low - 0xdc00)
            }
            guard let scalar = Unicode.Scalar(code) else { throw fault("half of a surrogate pair") }
            text.append(contentsOf: String(Character(scalar)).utf8)
        default:
            at -= 1
            throw fault("unknown escape in a string")
        }
    }

    private mutating func readHex() throws(FieldFault) -> UInt32 {
        guard at + 4 <= bytes.count else { throw fault("the text ends within a string") }
        var code: UInt32 = 0
        for _ in 0..<4 {
            guard let digit = Self.hexDigit(bytes[at]) else { throw fault("expected four hexadecimal digits") }
            code = code << 4 | UInt32(digit)
            at += 1
        }
        return code
    }

    private static func hexDigit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
        default: nil
        }
    }

    private mutating func readNumber() throws(FieldFault) -> PlacedValue.Content {
        let start = at
        var whole = true
        if next == UInt8(ascii: "-") { at += 1 }
        let firstDigit = at
        skipDigits()
        guard at > firstDigit else { throw fault("expected a digit") }
        guard at == firstDigit + 1 || bytes[firstDigit] != UInt8(ascii: "0") else {
            throw fault("a number cannot begin with 0")
        }
        if next == UInt8(ascii: ".") {
            whole = false
            at += 1
            let digits = at
            skipDigits()
            guard at > digits else { throw fault("expected a digit") }
        }
        if next == UInt8(ascii: "e") || next == UInt8(ascii: "E") {
            whole = false
            at += 1
            if next == UInt8(ascii: "+") || next == UInt8(ascii: "-") { at += 1 }
            let digits = at
            skipDigits()
            guard at > digits else { throw fault("expected a digit") }
        }
        let text = String(decoding: bytes[start..<at], as: UTF8.self)
        if whole, let integer = Int(text) { return .integer(integer) }
        guard let number = Double(text), number.isFinite else { throw fault("the number is out of range") }
        return .number(number)
    }

    private mutating func skipDigits() {
        while let byte = next, byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") { at += 1 }
    }
}
