// A scenario file as a value. The guide to the format is Tests/Scenarios/README.md.
import Foundation

package struct ScenarioLine: Sendable {
    package var number: Int
    package var text: String
}

package struct ScenarioSection: Sendable {
    package var kind: String
    /// The words after the kind, without `key=value` pairs.
    package var arguments: [String]
    package var options: [String: String]
    package var line: Int
    /// Everything up to the next section, comments included: some sections are taken verbatim.
    package var lines: [ScenarioLine]

    package var text: String {
        var lines = lines.map(\.text)
        while lines.last?.isEmpty == true { lines.removeLast() }
        return lines.joined(separator: "\n") + "\n"
    }

    /// The lines that say something: no blanks, no comments.
    package var commands: [ScenarioLine] {
        lines.compactMap { line in
            let text = line.text.trimmingSpaces
            return text.isEmpty || text.hasPrefix("#") ? nil : ScenarioLine(number: line.number, text: text)
        }
    }
}

package struct Scenario: Sendable {
    package var title: String
    package var sections: [ScenarioSection]

    static let kinds: Set<String> = [
        "options", "environment", "command", "manifest", "file", "copy", "upstream", "service", "echo", "client",
        "edit",
        "delete", "run", "document", "expect", "cases", "mutate", "agree",
    ]

    /// Accepts a title line, then sections; refuses a section of an unknown kind, so that a misspelt one is not skipped.
    package init(parsing text: String) throws(ScenarioFailure) {
        var title: String?
        var sections: [ScenarioSection] = []
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let number = index + 1
            if let header = Self.header(line) {
                guard let kind = header.first else { throw ScenarioFailure("a section without a kind", line: number) }
                guard Self.kinds.contains(kind) else {
                    throw ScenarioFailure("no section is called \(kind)", line: number)
                }
                var arguments: [String] = []
                var options: [String: String] = [:]
                for word in header.dropFirst() {
                    if let equals = word.firstIndex(of: "="), equals != word.startIndex, word.count > 1 {
                        options[String(word[..<equals])] = String(word[word.index(after: equals)...])
                    } else if word != "=" {
                        arguments.append(word.hasSuffix(",") ? String(word.dropLast()) : word)
                    }
                }
                sections.append(
                    ScenarioSection(kind: kind, arguments: arguments, options: options, line: number, lines: []))
            } else if let last = sections.indices.last {
                sections[last].lines.append(ScenarioLine(number: number, text: String(line)))
            } else if line.hasPrefix("scenario ") {
                title = line.dropFirst(9).trimmingSpaces.trimmingCharacters(in: CharacterSet(charactersIn: "\""))
            } else if !line.trimmingSpaces.isEmpty && !line.hasPrefix("#") {
                throw ScenarioFailure("expected scenario \"a sentence\"", line: number)
            }
        }
        guard let title, !title.isEmpty else { throw ScenarioFailure("the title sentence is missing", line: 1) }
        self.title = title
        self.sections = sections
    }

    private static func header(_ line: Substring) -> [String]? {
        guard line.hasPrefix("-- "), line.hasSuffix(" --"), line.count > 6 else { return nil }
        return line.dropFirst(3).dropLast(3).split(separator: " ").map(String.init)
    }
}

/// One command of a script, cut into words. Quoted words may hold spaces and escapes.
struct Statement {
    struct Word {
        var text: String
        var quoted: Bool

        var bytes: [UInt8] {
            get throws(ScenarioFailure) { quoted ? try ByteText.bytes(of: text) : Array(text.utf8) }
        }
    }

    var words: [Word]
    /// The statement as written.
    var text: String

    var name: String { words.first.map { $0.quoted ? "" : $0.text } ?? "" }

    func word(_ index: Int) -> String { index < words.count ? words[index].text : "" }

    func bytes(_ index: Int) throws(ScenarioFailure) -> [UInt8] {
        guard index < words.count else { throw ScenarioFailure("a word is missing in: \(text)") }
        return try words[index].bytes
    }

    /// The words from `index` on as one text.
    func rest(from index: Int) -> String { words.dropFirst(index).map(\.text).joined(separator: " ") }

    /// The same, with the escapes of quoted words undone.
    func decoded(from index: Int) throws(ScenarioFailure) -> String {
        var parts: [String] = []
        for word in words.dropFirst(index) { parts.append(String(decoding: try word.bytes, as: UTF8.self)) }
        return parts.joined(separator: " ")
    }

    /// Splits at `;` outside quotes.
    static func list(of line: String) -> [Statement] {
        var parts = [""]
        var quoted = false
        var escaped = false
        for character in line {
            if character == ";" && !quoted {
                parts.append("")
                continue
            }
            if character == "\"" && !escaped { quoted.toggle() }
            escaped = character == "\\" && !escaped
            parts[parts.count - 1].append(character)
        }
        return parts.map(\.trimmingSpaces).filter { !$0.isEmpty }.map { Statement($0) }
    }

    init(_ text: String) {
        self.text = text
        words = []
        var current: Word?
        var escaped = false
        for character in text {
            if current?.quoted == true {
                if character == "\"" && !escaped {
                    words.append(current ?? Word(text: "", quoted: true))
                    current = nil
                } else {
                    current?.text.append(character)
                }
                escaped = character == "\\" && !escaped
            } else if character == "\"" && current == nil {
                current = Word(text: "", quoted: true)
            } else if character == " " || character == "\t" {
                if let word = current { words.append(word) }
                current = nil
            } else {
                current = Word(text: (current?.text ?? "") + String(character), quoted: false)
            }
        }
        if let word = current { words.append(word) }
    }
}

/// `START  name: value  name: value  body: text`: parts separated by two or more spaces, so that values may hold one.
struct MessageLine {
    var start: String
    var fields: [(name: String, value: [UInt8])] = []
    var body: [UInt8]?

    init(_ text: String) throws(ScenarioFailure) {
        var parts: [String] = [""]
        var spaces = 0
        for character in text {
            if character == " " {
                spaces += 1
                continue
            }
            if spaces >= 2 { parts.append("") } else if spaces == 1 { parts[parts.count - 1].append(" ") }
            spaces = 0
            parts[parts.count - 1].append(character)
        }
        start = parts[0]
        for part in parts.dropFirst() {
            var part = part
            if part.hasPrefix("\"") && part.hasSuffix("\"") && part.count > 1 {
                part = String(part.dropFirst().dropLast())
            }
            guard let colon = part.firstIndex(of: ":") else {
                throw ScenarioFailure("no colon in the field \"\(part)\"")
            }
            let name = String(part[..<colon])
            let value = try ByteText.bytes(of: String(part[part.index(after: colon)...]).trimmingSpaces)
            if name == "body" {
                if value.starts(with: Array("pattern ".utf8)) {
                    guard let size = ByteText.size(String(decoding: value.dropFirst(8), as: UTF8.self)) else {
                        throw ScenarioFailure("no size in \"\(part)\"")
                    }
                    var pattern = BodyPattern()
                    body = pattern.next(size)
                } else {
                    body = value
                }
            } else {
                fields.append((name, value))
            }
        }
    }

    func has(_ name: String) -> Bool { fields.contains { $0.name.lowercased() == name } }

    /// The message on the wire. `bodiless` leaves the body out but keeps the field that tells its length.
    func serialised(startLine: String, bodiless: Bool = false, always: Bool = false) -> [UInt8] {
        var bytes = Array(startLine.utf8) + [13, 10]
        for field in fields {
            bytes += Array(field.name.utf8) + [58, 32] + field.value + [13, 10]
        }
        let chunked = fields.contains {
            $0.name.lowercased() == "transfer-encoding" && $0.value == Array("chunked".utf8)
        }
        let content = body ?? []
        if !chunked && (body != nil || always) && !has("content-length") {
            bytes += Array("content-length: \(content.count)\r\n".utf8)
        }
        bytes += [13, 10]
        if bodiless { return bytes }
        guard chunked else { return bytes + content }
        if !content.isEmpty { bytes += Array(String(content.count, radix: 16).utf8) + [13, 10] + content + [13, 10] }
        return bytes + Array("0\r\n\r\n".utf8)
    }
}
