// YAML into placed values: manifests, and lists of scripts in annotations. The grammar is libyaml's (through Yams); what
// a plain scalar means, how much is taken in, and where each value stands are decided here.

internal import Yams

/// How plain scalars are read.
package enum YAMLSchema: Sendable {
    /// As `kubectl` reads manifests: YAML 1.1's `yes`, `no`, `on`, `off` are booleans, a leading 0 is octal. A label
    /// `on` without quotes is refused there, so it is refused here.
    case kubernetes
    /// YAML 1.2 core (§10.3): only `true` and `false` are booleans. For our own annotations, where `mode: off` is a word.
    case core
}

/// One document of a stream, still text.
package struct YAMLDocument: Sendable, Hashable {
    package var text: String
    /// The line of the file on which the text begins.
    package var firstLine: Int
}

package enum YAMLReader {
    /// Cuts a stream at its `---` and `...` lines, which no scalar can hold at the beginning of a line (YAML 1.2 §9.1.2),
    /// so that an error in one document costs no other. Documents of blanks and comments only are left out.
    package static func split(_ text: String) -> [YAMLDocument] {
        var documents: [YAMLDocument] = []
        var lines: [Substring.UTF8View] = []
        var firstLine = 1
        var hasContent = false

        func finish() {
            guard hasContent else { return }
            var bytes: [UInt8] = []
            for line in lines {
                bytes.append(contentsOf: line)
                bytes.append(0x0a)
            }
            documents.append(YAMLDocument(text: String(decoding: bytes, as: UTF8.self), firstLine: firstLine))
        }

        var body = text[...].utf8
        if body.starts(with: [0xef, 0xbb, 0xbf]) { body = body.dropFirst(3) }
        var number = 0
        for line in body.split(separator: 0x0a, omittingEmptySubsequences: false) {
            number += 1
            if isMarker(line, "---") {
                finish()
                // What follows the marker on its line belongs to the document; blanks keep the columns right.
                lines = [Substring("   ").utf8]
                firstLine = number
                hasContent = false
                let rest = line.dropFirst(3)
                if holdsContent(rest) {
                    lines = [Substring("   " + String(decoding: rest, as: UTF8.self)).utf8]
                    hasContent = true
                }
            } else if isMarker(line, "...") {
                finish()
                lines = []
                firstLine = number + 1
                hasContent = false
            } else {
                // Directives (`%YAML 1.2`) stand before a document and say nothing that matters here.
                if !hasContent, line.first == UInt8(ascii: "%") {
                    lines.append(Substring("").utf8)
                    continue
                }
                if !hasContent, holdsContent(line) { hasContent = true }
                lines.append(line)
            }
        }
        finish()
        return documents
    }

    private static func isMarker(_ line: Substring.UTF8View, _ marker: String) -> Bool {
        guard line.starts(with: marker.utf8) else { return false }
        guard let after = line.dropFirst(3).first else { return true }
        return after == 0x20 || after == 0x09 || after == 0x0d
    }

    private static func holdsContent(_ line: Substring.UTF8View) -> Bool {
        let first = line.first { $0 != 0x20 && $0 != 0x09 && $0 != 0x0d }
        return first != nil && first != UInt8(ascii: "#")
    }

    /// Reads one document; nil when it is empty.
    package static func read(
        _ text: String, schema: YAMLSchema = .kubernetes, limits: ReadingLimits = .manifest, firstLine: Int = 1
    ) throws(FieldFault) -> PlacedValue? {
        let start = TextPosition(line: firstLine, column: 1)
        var limits = limits
        // Whatever aliases make of it: a text of that length holds no more.
        limits.values = min(limits.values, 1_000 + 10 * text.utf8.count)
        guard text.utf8.count <= limits.bytes else {
            throw FieldFault(position: start, problem: "the text is longer than \(limits.bytes) bytes")
        }
        guard !AliasScan(text).mayExplode else {
            throw FieldFault(position: start, problem: "too many aliases together with keys that are not plain")
        }
        let root: Node?
        do {
            root = try Parser(yaml: text, resolver: .basic, encoding: .utf8).singleRoot()
        } catch let error as YamlError {
            throw fault(of: error, text: text, firstLine: firstLine)
        } catch {
            throw FieldFault(position: start, problem: "cannot be read: \(error)")
        }
        guard let root else { return nil }
        var conversion = Conversion(schema: schema, limits: limits, lineOffset: firstLine - 1)
        return try conversion.convert(root, depth: 0)
    }

    private static func fault(of error: YamlError, text: String, firstLine: Int) -> FieldFault {
        func placed(_ mark: Mark, _ problem: String, _ context: YamlError.Context? = nil) -> FieldFault {
            let around = context.map { "\(problem) \($0.text) that began on line \($0.mark.line + firstLine - 1)" }
            return FieldFault(
                position: TextPosition(line: mark.line + firstLine - 1, column: mark.column), problem: around ?? problem
            )
        }
        switch error {
        case .scanner(let context, let problem, let mark, _), .parser(let context, let problem, let mark, _),
            .composer(let context, let problem, let mark, _):
            return placed(mark, problem, context)
        case .duplicatedKeysInMapping(let duplicates, let context):
            let keys = duplicates.map { "\"\($0)\"" }.joined(separator: ", ")
            return placed(context.mark, "the key \(keys) is there twice")
        case .reader(let problem, let offset, _, _):
            let before = offset.map { text.prefix($0).utf8.count { $0 == 0x0a } } ?? 0
            return FieldFault(position: TextPosition(line: firstLine + before, column: 1), problem: problem)
        case .no, .memory, .writer, .emitter, .representer, .dataCouldNotBeDecoded:
            return FieldFault(
                position: TextPosition(line: firstLine, column: 1),
                problem: "nested too deep, or cannot be read as YAML")
        }
    }
}

/// Looks at the text for the one construct whose cost no limit on values can bound afterwards: the parser hashes every
/// key to find duplicates, and a key that holds an alias of an alias of an alias … is hashed as often as it expands.
/// 32 aliases expand to some 10⁵ values at most; beyond that, and only if there are anchors and keys that are no plain
/// scalars, the document is refused unread. Scalars count too, so it errs on the side of refusing, in documents that
/// nobody writes.
private struct AliasScan {
    var anchors = 0
    var aliases = 0
    var hasComplexKey = false

    var mayExplode: Bool { aliases > 32 && anchors > 0 && hasComplexKey }

    init(_ text: String) {
        var previous: UInt8 = 0x0a
        var iterator = text.utf8.makeIterator()
        var current = iterator.next()
        /// A closing bracket or an alias has ended, and only blanks came since.
        var mayEndKey = false
        var inAlias = false
        while let byte = current {
            let following = iterator.next()
            let startsToken: Bool
            switch previous {
            case 0x20, 0x09, 0x0a, 0x0d, UInt8(ascii: "["), UInt8(ascii: "{"), UInt8(ascii: ","), UInt8(ascii: ":"),
                UInt8(ascii: "-"), UInt8(ascii: "?"):
                startsToken = true
            default: startsToken = false
            }
            let isBlankNext = following.map { $0 == 0x20 || $0 == 0x09 || $0 == 0x0a || $0 == 0x0d } ?? true
            switch byte {
            case UInt8(ascii: "*") where startsToken && !isBlankNext:
                aliases += 1
                inAlias = true
            case UInt8(ascii: "&") where startsToken && !isBlankNext:
                anchors += 1
            case UInt8(ascii: "?") where startsToken && isBlankNext:
                hasComplexKey = true
            case UInt8(ascii: "]"), UInt8(ascii: "}"):
                mayEndKey = true
                inAlias = false
            case UInt8(ascii: ":") where mayEndKey || inAlias:
                hasComplexKey = true
            case 0x20, 0x09:
                if inAlias {
                    inAlias = false
                    mayEndKey = true
                }
            default:
                if !inAlias { mayEndKey = false }
                if byte == 0x0a || byte == 0x0d || byte == UInt8(ascii: ",") { inAlias = false }
            }
            previous = byte
            current = following
        }
    }
}

private struct Conversion {
    let schema: YAMLSchema
    let limits: ReadingLimits
    let lineOffset: Int
    var values = 0

    private func position(_ node: Node) -> TextPosition {
        let mark = node.mark
        return TextPosition(line: (mark?.line ?? 1) + lineOffset, column: mark?.column ?? 1)
    }

    mutating func convert(_ node: Node, depth: Int) throws(FieldFault) -> PlacedValue {
        let place = position(node)
        guard depth <= limits.depth else {
            throw FieldFault(position: place, problem: "nested deeper than \(limits.depth) levels")
        }
        values += 1
        guard values <= limits.values else {
            throw FieldFault(position: place, problem: "more than \(limits.values) values, aliases expanded")
        }
        switch node {
        case .scalar(let scalar):
            return PlacedValue(try resolve(scalar, at: place), at: place)
        case .sequence(let sequence):
            try checkTag(sequence.tag.rawValue, standard: "seq", at: place)
            var items: [PlacedValue] = []
            items.reserveCapacity(sequence.count)
            for item in sequence { items.append(try convert(item, depth: depth + 1)) }
            return PlacedValue(.list(items), at: place)
        case .mapping(let mapping):
            try checkTag(mapping.tag.rawValue, standard: "map", at: place)
            return PlacedValue(.map(try convertPairs(of: mapping, depth: depth)), at: place)
        case .alias:
            throw FieldFault(position: place, problem: "an alias to nothing")
        }
    }

    private mutating func convertPairs(of mapping: Node.Mapping, depth: Int) throws(FieldFault) -> [PlacedValue.Entry] {
        var entries: [PlacedValue.Entry] = []
        entries.reserveCapacity(mapping.count)
        var merged: [PlacedValue.Entry] = []
        for (keyNode, valueNode) in mapping {
            let place = position(keyNode)
            guard case .scalar(let key) = keyNode else {
                throw FieldFault(position: place, problem: "a key must be a plain word, not a list or a map")
            }
            let value = try convert(valueNode, depth: depth + 1)
            if key.string == "<<", key.style == .plain {
                merged += try mergedEntries(value)
            } else {
                entries.append(PlacedValue.Entry(key: key.string, keyPosition: place, value: value))
            }
        }
        guard !merged.isEmpty else { return entries }
        // A key of the map itself goes before a merged one, an earlier merged one before a later.
        var present = Set(entries.map(\.key))
        for entry in merged where present.insert(entry.key).inserted { entries.append(entry) }
        return entries
    }

    private func mergedEntries(_ value: PlacedValue) throws(FieldFault) -> [PlacedValue.Entry] {
        if let entries = value.entries { return entries }
        guard let items = value.items else {
            throw FieldFault(position: value.position, problem: "<< takes a map or a list of maps")
        }
        var all: [PlacedValue.Entry] = []
        for item in items {
            guard let entries = item.entries else {
                throw FieldFault(position: item.position, problem: "<< takes a map or a list of maps")
            }
            all += entries
        }
        return all
    }

    private func checkTag(_ tag: String, standard: String, at place: TextPosition) throws(FieldFault) {
        guard tag.isEmpty || tag == "!" || tag == "tag:yaml.org,2002:\(standard)" else {
            throw FieldFault(position: place, problem: "the tag \(tag) is not understood here")
        }
    }

    private func resolve(_ scalar: Node.Scalar, at place: TextPosition) throws(FieldFault) -> PlacedValue.Content {
        let tag = scalar.tag.rawValue
        switch tag {
        case "" where scalar.style == .plain: return resolvePlain(scalar.string)
        case "", "!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:timestamp": return .string(scalar.string)
        case "tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:bool", "tag:yaml.org,2002:null":
            return resolvePlain(scalar.string)
        default:
            throw FieldFault(position: place, problem: "the tag \(tag) is not understood here")
        }
    }

    private func resolvePlain(_ text: String) -> PlacedValue.Content {
        switch text {
        case "", "~", "null", "Null", "NULL": return .null
        case "true", "True", "TRUE": return .bool(true)
        case "false", "False", "FALSE": return .bool(false)
        case "yes", "Yes", "YES", "on", "On", "ON":
            return schema == .kubernetes ? .bool(true) : .string(text)
        case "no", "No", "NO", "off", "Off", "OFF":
            return schema == .kubernetes ? .bool(false) : .string(text)
        default: break
        }
        guard let first = text.utf8.first, text.utf8.count <= 64 else { return .string(text) }
        switch first {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "+"), UInt8(ascii: "-"), UInt8(ascii: "."):
            return resolveNumber(text) ?? .string(text)
        default: return .string(text)
        }
    }

    private func resolveNumber(_ text: String) -> PlacedValue.Content? {
        var digits = text[...]
        var sign = ""
        if digits.hasPrefix("-") || digits.hasPrefix("+") {
            sign = digits.hasPrefix("-") ? "-" : ""
            digits = digits.dropFirst()
        }
        if digits.hasPrefix("0x") { return integer(sign, digits.dropFirst(2), radix: 16) }
        if digits.hasPrefix("0o") { return integer(sign, digits.dropFirst(2), radix: 8) }
        guard let first = digits.utf8.first, first != UInt8(ascii: "+"), first != UInt8(ascii: "-") else { return nil }
        if digits.utf8.allSatisfy({ (48...57).contains($0) }) {
            if schema == .kubernetes, digits.count > 1, first == 48,
                let octal = integer(sign, digits.dropFirst(), radix: 8)
            {
                return octal
            }
            return integer(sign, digits, radix: 10) ?? Double(text).map { .number($0) }
        }
        // Digits, one point, an exponent: the text forms that Double also takes (inf, nan, hexadecimal) are no numbers here.
        guard digits.utf8.allSatisfy({ (48...57).contains($0) || ".eE+-".utf8.contains($0) }), digits != ".",
            let number = Double(text.hasPrefix("+") ? String(digits) : text), number.isFinite
        else { return nil }
        return .number(number)
    }

    private func integer(_ sign: String, _ digits: Substring, radix: Int) -> PlacedValue.Content? {
        guard let first = digits.utf8.first, first != UInt8(ascii: "+"), first != UInt8(ascii: "-") else { return nil }
        return Int(sign + digits, radix: radix).map { .integer($0) }
    }
}
