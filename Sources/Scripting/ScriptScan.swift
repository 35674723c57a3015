// A look at the words of a script without running it: what `check` can say about a script that does not load, and about
// functions that this version does not have.

package struct ScriptScan: Sendable, Hashable {
    package struct Use: Sendable, Hashable {
        package var name: String
        package var line: Int
    }

    /// Uses of `moongate.…` that `ScriptLibrary.later` lists, of members that are not there yet, and a `body_filter`.
    package private(set) var unavailable: [Use] = []
    /// The name `access` stands before a `=`, or after `function` and a dot: the script means to guard something.
    package private(set) var mentionsAccess = false

    package init(_ source: String) {
        let words = Self.words(Array(source.utf8))
        for i in words.indices {
            let word = words[i]
            if word.text == "access", Self.text(words, i + 1) == "=" || Self.text(words, i - 1) == "." {
                mentionsAccess = true
            }
            if word.text == "body_filter", Self.text(words, i + 1) == "=" || Self.text(words, i - 1) == "." {
                unavailable.append(Use(name: "body_filter", line: word.line))
            }
            let next = Self.text(words, i + 1)
            let member = Self.text(words, i + 2)
            switch (word.text, next, member) {
            case ("ctx", ":", "span"): unavailable.append(Use(name: "ctx:span", line: word.line))
            case ("upstream", ":", "mirror"):
                unavailable.append(Use(name: "ctx.upstream:mirror", line: word.line))
            // `res` is also what scripts call a response of their own, whose body is a field.
            case ("req", ".", "body"), ("res", ".", "body"):
                if word.text == "req" || Self.text(words, i + 3) == ":" {
                    unavailable.append(Use(name: "\(word.text).body", line: word.line))
                }
            default: break
            }
            guard word.text == "moongate", Self.text(words, i + 1) == "." else { continue }
            let first = Self.text(words, i + 2)
            let full = Self.text(words, i + 3) == "." ? "\(first).\(Self.text(words, i + 4))" : first
            if let name = ScriptLibrary.later.first(where: { $0 == first || $0 == full }) {
                unavailable.append(Use(name: "moongate.\(name)", line: word.line))
            }
        }
    }

    private struct Word {
        var text: String
        var line: Int
    }

    private static func text(_ words: [Word], _ index: Int) -> String {
        words.indices.contains(index) ? words[index].text : ""
    }

    /// Names and single signs; comments and strings are left out (Lua 5.4 manual §3.1).
    private static func words(_ bytes: [UInt8]) -> [Word] {
        var words: [Word] = []
        var line = 1
        var at = 0
        func byte(_ index: Int) -> UInt8 { index < bytes.count ? bytes[index] : 0 }
        /// The level of a long bracket that opens here; nil if none does.
        func longBracket(_ start: Int) -> Int? {
            guard byte(start) == 91 else { return nil }
            var end = start + 1
            while byte(end) == 61 { end += 1 }
            return byte(end) == 91 ? end - start - 1 : nil
        }
        func skipLong(_ level: Int) {
            at += level + 2
            while at < bytes.count {
                if byte(at) == 10 { line += 1 }
                if byte(at) == 93 {
                    var end = at + 1
                    while byte(end) == 61 { end += 1 }
                    if end - at - 1 == level, byte(end) == 93 {
                        at = end + 1
                        return
                    }
                }
                at += 1
            }
        }
        while at < bytes.count {
            let now = bytes[at]
            switch now {
            case 10:
                line += 1
                at += 1
            case 9, 13, 32: at += 1
            case 45 where byte(at + 1) == 45:
                at += 2
                if let level = longBracket(at) {
                    skipLong(level)
                } else {
                    while at < bytes.count, bytes[at] != 10 { at += 1 }
                }
            case 91:
                if let level = longBracket(at) {
                    skipLong(level)
                } else {
                    words.append(Word(text: "[", line: line))
                    at += 1
                }
            case 34, 39:
                at += 1
                while at < bytes.count, bytes[at] != now, bytes[at] != 10 { at += bytes[at] == 92 ? 2 : 1 }
                at += 1
            case 65...90, 95, 97...122:
                let start = at
                while (48...57).contains(byte(at)) || (65...90).contains(byte(at)) || (97...122).contains(byte(at))
                    || byte(at) == 95
                { at += 1 }
                words.append(Word(text: String(decoding: bytes[start..<at], as: UTF8.self), line: line))
            default:
                words.append(Word(text: String(decoding: [now], as: UTF8.self), line: line))
                at += 1
            }
        }
        return words
    }
}
