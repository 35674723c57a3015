// A look at the words of a script without running it: what `check` can say about a script that does not load, and about
// functions that this version does not have.

package import Model

package struct ScriptScan: Sendable, Hashable {
    package struct Use: Sendable, Hashable {
        package var name: String
        package var line: Int
    }

    /// Uses of `moongate.…` that `ScriptLibrary.later` lists, of members that are not there yet, and a `body_filter`.
    package private(set) var unavailable: [Use] = []
    /// Names read from `moongate`, as `log.info`: the first two parts.
    package private(set) var functions: [Use] = []
    /// Members of `req`, `res` and `ctx` that there are not, in the phases that can be told without running the script.
    package private(set) var strangers: [UnknownMember] = []
    /// The word `access` stands somewhere, in a string too: the script may mean to guard something. A phase can be filled in
    /// by any name that is computed from there.
    package private(set) var mentionsAccess = false

    package init(_ source: String) {
        let bytes = Array(source.utf8)
        let words = Self.words(bytes, isFoundInStrings: &mentionsAccess)
        strangers = MemberScan.strangers(in: words)
        for i in words.indices {
            let word = words[i]
            if word.text == "access" { mentionsAccess = true }
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
            } else {
                functions.append(Use(name: full, line: word.line))
            }
        }
    }

    /// Whether a script of which no version has loaded may be a guard: any of its files may be where the phase is made.
    package static func mayGuard(_ source: ScriptSource) -> Bool {
        ScriptScan(source.main).mentionsAccess || source.modules.contains { ScriptScan($0.source).mentionsAccess }
    }

    /// Whether the word `access` is among these bytes.
    private static func hasAccess(_ bytes: ArraySlice<UInt8>) -> Bool {
        func isName(_ byte: UInt8) -> Bool {
            (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte) || byte == 95
        }
        return bytes.split { !isName($0) }.contains { $0.elementsEqual("access".utf8) }
    }

    struct Word {
        var text: String
        var line: Int
    }

    private static func text(_ words: [Word], _ index: Int) -> String {
        words.indices.contains(index) ? words[index].text : ""
    }

    /// Names and signs; comments are left out, and a string is `""` (Lua 5.4 manual §3.1). The word `access` is looked for
    /// in strings, and in anything that does not end: where that ends for Lua is not known.
    private static func words(_ bytes: [UInt8], isFoundInStrings: inout Bool) -> [Word] {
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
        /// - Returns: whether it ends.
        func skipLong(_ level: Int) -> Bool {
            at += level + 2
            while at < bytes.count {
                if byte(at) == 10 { line += 1 }
                if byte(at) == 93 {
                    var end = at + 1
                    while byte(end) == 61 { end += 1 }
                    if end - at - 1 == level, byte(end) == 93 {
                        at = end + 1
                        return true
                    }
                }
                at += 1
            }
            return false
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
                    let start = at
                    if !skipLong(level), hasAccess(bytes[start...]) { isFoundInStrings = true }
                } else {
                    while at < bytes.count, bytes[at] != 10 { at += 1 }
                }
            case 91:
                if let level = longBracket(at) {
                    let start = at
                    words.append(Word(text: "\"\"", line: line))
                    _ = skipLong(level)
                    if hasAccess(bytes[start..<min(at, bytes.count)]) { isFoundInStrings = true }
                } else {
                    words.append(Word(text: "[", line: line))
                    at += 1
                }
            case 34, 39:
                at += 1
                let start = at
                words.append(Word(text: "\"\"", line: line))
                while at < bytes.count, bytes[at] != now, bytes[at] != 10 { at += bytes[at] == 92 ? 2 : 1 }
                if hasAccess(bytes[start..<min(at, bytes.count)]) { isFoundInStrings = true }
                // An end of line belongs to what follows.
                if at < bytes.count, bytes[at] != 10 { at += 1 }
            case 65...90, 95, 97...122:
                let start = at
                while (48...57).contains(byte(at)) || (65...90).contains(byte(at)) || (97...122).contains(byte(at))
                    || byte(at) == 95
                { at += 1 }
                words.append(Word(text: String(decoding: bytes[start..<at], as: UTF8.self), line: line))
            case 46 where byte(at + 1) == 46, 58 where byte(at + 1) == 58, 61 where byte(at + 1) == 61:
                // `..`, `...`, `::` and `==` are not what a single sign is.
                let start = at
                while byte(at) == now, at - start < (now == 46 ? 3 : 2) { at += 1 }
                words.append(Word(text: String(decoding: bytes[start..<at], as: UTF8.self), line: line))
            default:
                words.append(Word(text: String(decoding: [now], as: UTF8.self), line: line))
                at += 1
            }
        }
        return words
    }
}
