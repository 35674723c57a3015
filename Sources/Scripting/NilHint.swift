// "attempt to call a nil value (field 'spit')" is all that Lua can say of a name that there is not. What was meant can often
// be told.

/// A name of a script's that there is not, and the one that may be meant.
package struct UnknownFunction: Sendable, Hashable {
    package var nearest: String?
}

enum NilHint {
    /// What Lua has and a script has not, and what to use in its stead.
    private static let absent: [String: String] = [
        "print": "use moongate.log.info(message)", "warn": "use moongate.log.warn(message)",
        "os": "there is no os here; moongate.time.now() tells the time",
        "io": "there is no io here: a script reaches no files", "debug": "there is no debug library here",
        "package": "there is no package library here; require(name) finds the script's own modules",
        "load": "text can't be run as code here", "loadstring": "text can't be run as code here",
        "dofile": "use require(name) for the script's own modules",
        "loadfile": "use require(name) for the script's own modules",
        "collectgarbage": "memory is looked after; a script need not collect it",
        "unpack": "use table.unpack", "setfenv": "this is Lua 5.4: there is no setfenv",
        "module": "return a table from the module in place of module(…)",
        "ngx": "this is not OpenResty: a phase gets req and ctx, and moongate holds the functions",
    ]
    private static let globals = [
        "moongate", "string", "table", "math", "utf8", "coroutine", "pcall", "xpcall", "error", "assert", "select",
        "type",
        "tonumber", "tostring", "ipairs", "pairs", "next", "rawequal", "rawlen", "rawget", "rawset", "setmetatable",
        "getmetatable", "require",
    ]
    /// Functions of `moongate` that C makes.
    private static let ofC = ["respond", "redirect", "json", "json.encode", "json.decode", "json.array", "json.null"]

    /// What to add to the message of an error, if anything: nil for every error that is not about a nil name.
    /// - Parameters:
    ///   - line: the line of the script that is to blame.
    ///   - functions: the functions of the host, as `log.info`.
    static func of(_ message: String, line: String?, functions: [String]) -> String? {
        guard let name = name(in: message) else { return nil }
        if name.kind == "global" {
            if let hint = absent[name.text] { return hint }
            return EditDistance.nearest(to: name.text, among: globals).map { "did you mean \($0)?" }
        }
        guard name.kind == "field", let line, let module = module(of: name.text, in: line) else { return nil }
        // The modules are names, too: `moongate.tiem.now()` fails at `tiem`.
        var known: Set<String> = []
        for path in functions + ofC where path.hasPrefix(module) {
            if let next = path.dropFirst(module.count).split(separator: ".").first { known.insert(String(next)) }
        }
        guard !known.contains(name.text) else { return nil }
        return EditDistance.nearest(to: name.text, among: known.sorted()).map {
            "did you mean moongate.\(module)\($0)?"
        }
    }

    /// What a name under `moongate`, as `log.inof`, may have meant; nil where there is such a name.
    static func stranger(_ path: String, functions: [String]) -> UnknownFunction? {
        let known = functions + ofC
        let parts = path.split(separator: ".", maxSplits: 1).map(String.init)
        guard let first = parts.first else { return nil }
        let firsts = Set(known.compactMap { $0.split(separator: ".").first.map(String.init) })
        guard firsts.contains(first) else {
            let nearest = EditDistance.nearest(to: first, among: firsts.sorted())
            return UnknownFunction(nearest: nearest.map { ([$0] + parts.dropFirst()).joined(separator: ".") })
        }
        // Only a table has members that can be known.
        let members = known.filter { $0.hasPrefix(first + ".") }
        guard parts.count > 1, !members.isEmpty, !members.contains(path),
            !members.contains(where: { $0.hasPrefix(path + ".") })
        else { return nil }
        return UnknownFunction(nearest: EditDistance.nearest(to: path, among: members))
    }

    /// `field` and `spit` of "… a nil value (field 'spit')".
    private static func name(in message: String) -> (kind: String, text: String)? {
        for words in ["attempt to call a nil value (", "attempt to index a nil value ("] {
            guard let start = message.firstRange(of: words)?.upperBound else { continue }
            let rest = message[start...].prefix { $0 != ")" }.split(separator: " ", maxSplits: 1)
            guard rest.count == 2, rest[1].first == "'", rest[1].last == "'", rest[1].count > 2 else { return nil }
            return (String(rest[0]), String(rest[1].dropFirst().dropLast()))
        }
        return nil
    }

    /// What stands between `moongate.` and the name in the line: `log.` of `moongate.log.inof`, empty of `moongate.spit`.
    private static func module(of name: String, in line: String) -> String? {
        var rest = line[...]
        while let found = rest.firstRange(of: "moongate.") {
            let path = rest[found.upperBound...].prefix { $0 == "." || $0 == "_" || $0.isLetter || $0.isNumber }
            let parts = path.split(separator: ".").map(String.init)
            if let at = parts.firstIndex(of: name) { return parts[..<at].map { $0 + "." }.joined() }
            rest = rest[found.upperBound...]
        }
        return nil
    }
}
