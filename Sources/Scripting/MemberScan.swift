// Members of a request's objects that there are not (`req.hedaers`), told from the words of a script: at run time such a
// member is nil, which says nothing until a request comes by.
//
// This is no parser of Lua. It looks only into functions that are a phase beyond doubt: in the table that the script
// returns, or in a local one that it does. A parameter that is declared or set anew anywhere in the function is left alone.
// Where anything is in doubt, nothing is said.

internal import CLua

/// A member that there is not, and the one that may be meant.
package struct UnknownMember: Sendable, Hashable {
    /// As the script writes it: `req.hedaers`.
    package var name: String
    package var line: Int
    /// What to write: `req.headers`.
    package var nearest: String?
}

/// What the objects of a request have: the table by which Lua reads them.
private struct ObjectMembers {
    struct Member {
        var isMethod: Bool
        /// The object that it is; nil for a value.
        var child: Int?
    }

    static let all: [ObjectMembers] = (0..<mg_object_count()).map { ObjectMembers(number: $0) }
    static func named(_ name: String) -> Int? { all.firstIndex { $0.name == name } }

    let name: String
    private(set) var members: [String: Member] = [:]

    private init(number: UInt32) {
        // SAFETY: the names are constants of C; the two results outlive each call.
        name = unsafe mg_object_name(number).map { unsafe String(cString: $0) } ?? ""
        var (kind, child) = (MG_IS_FIELD, UInt32(0))
        var nth: UInt32 = 0
        while let text = unsafe mg_object_member(number, nth, &kind, &child) {
            members[unsafe String(cString: text)] = Member(
                isMethod: kind == MG_IS_METHOD, child: child == 0 ? nil : Int(child))
            nth += 1
        }
    }

    /// Headers, cookies, query: people write `req.headers.host` for `req.headers:get("host")`.
    var isMap: Bool { members["get"] != nil }
}

struct MemberScan {
    private typealias Words = [ScriptScan.Word]

    private static let request = ["req", "ctx"]
    private static let response = ["req", "res", "ctx"]
    /// What the phases are given.
    private static let phases = [
        "rewrite": request, "access": request, "route": request, "header_filter": response, "log": response,
    ]

    private let words: Words
    /// The end of each block and bracket, by its beginning.
    private let ends: [Int: Int]
    /// How many blocks and brackets each word stands in.
    private let levels: [Int]
    private var found: [UnknownMember] = []
    /// Each phase is looked into once: what it costs is bounded, however often a script writes its name.
    private var seen: Set<String> = []
    /// More would bury the rest.
    private static let most = 20

    static func strangers(in words: [ScriptScan.Word]) -> [UnknownMember] {
        guard var scan = MemberScan(words) else { return [] }
        scan.look()
        return scan.found
    }

    /// Nil where the blocks do not fit together.
    private init?(_ words: Words) {
        let closers = [
            "function": "end", "if": "end", "do": "end", "repeat": "until", "(": ")", "{": "}", "[": "]",
        ]
        let closing = Set(closers.values)
        var open: [(at: Int, closer: String)] = []
        var ends: [Int: Int] = [:]
        var levels: [Int] = []
        for at in words.indices {
            let text = words[at].text
            if closing.contains(text) {
                guard let last = open.popLast(), last.closer == text else { return nil }
                ends[last.at] = at
            }
            levels.append(open.count)
            if let closer = closers[text] { open.append((at, closer)) }
        }
        guard open.isEmpty else { return nil }
        self.words = words
        self.ends = ends
        self.levels = levels
    }

    private func text(_ at: Int) -> String { words.indices.contains(at) ? words[at].text : "" }

    private func isName(_ at: Int) -> Bool {
        guard let first = text(at).utf8.first else { return false }
        return (65...90).contains(first) || first == 95 || (97...122).contains(first)
    }

    private mutating func look() {
        guard let at = words.indices.last(where: { words[$0].text == "return" && levels[$0] == 0 }) else { return }
        if text(at + 1) == "{", let end = ends[at + 1], isEnd(end + 1) {
            lookAtTable(at + 1, name: nil)
        } else if isName(at + 1), isEnd(at + 2) {
            lookAtLocal(text(at + 1))
        }
    }

    private func isEnd(_ at: Int) -> Bool { at == words.count || text(at) == ";" && at + 1 == words.count }

    /// `local M = {…}`, what is written into it as `M.route = function` or `function M.route`, and `return M`.
    private mutating func lookAtLocal(_ name: String) {
        let set = words.indices.filter { isPlain(name, $0) && text($0 + 1) == "=" }
        guard set.count == 1, let place = set.first, text(place - 1) == "local", levels[place] == 0,
            text(place + 2) == "{"
        else { return }
        // Handed on, it may be called with anything.
        let uses = words.indices.filter { isPlain(name, $0) && $0 != place && text($0 - 1) != "return" }
        guard uses.allSatisfy({ text($0 + 1) == "." }) else { return }
        lookAtTable(place + 2, name: name)
        for at in words.indices where isPlain(name, at) && text(at + 1) == "." {
            if text(at - 1) == "function", text(at + 3) == "(", levels[at - 1] == 0, begins(text(at + 2)) {
                look(into: at - 1, list: at + 3, as: text(at + 2), of: name)
            } else if text(at + 3) == "=", text(at + 4) == "function", levels[at] == 0, begins(text(at + 2)) {
                look(into: at + 4, list: at + 5, as: text(at + 2), of: name)
            }
        }
    }

    /// The name as a variable, not as a member of something else.
    private func isPlain(_ name: String, _ at: Int) -> Bool {
        words[at].text == name && text(at - 1) != "." && text(at - 1) != ":"
    }

    /// It is a phase, and the first of its name.
    private mutating func begins(_ phase: String) -> Bool {
        Self.phases[phase] != nil && seen.insert(phase).inserted
    }

    private mutating func lookAtTable(_ brace: Int, name: String?) {
        guard let end = ends[brace] else { return }
        var at = brace + 1
        while at < end {
            if ["{", ",", ";"].contains(text(at - 1)), text(at + 1) == "=", begins(text(at)) {
                if text(at + 2) == "function" {
                    look(into: at + 2, list: at + 3, as: text(at), of: name)
                } else if isName(at + 2), [",", ";", "}"].contains(text(at + 3)) {
                    lookAtFunction(text(at + 2), as: text(at))
                }
            }
            at = (ends[at] ?? at) + 1
        }
    }

    /// `local function route(…)` and `{ route = route }`: where the function is named nowhere else.
    private mutating func lookAtFunction(_ name: String, as phase: String) {
        let uses = words.indices.filter { at in
            let isKey = text(at + 1) == "=" && ["{", ",", ";"].contains(text(at - 1))
            return isPlain(name, at) && !isKey
        }
        guard uses.count == 2, let place = uses.first, place > 0, levels[place - 1] == 0 else { return }
        if text(place - 1) == "function", text(place - 2) == "local" {
            look(into: place - 1, list: place + 1, as: phase, of: nil)
        } else if text(place - 1) == "local", text(place + 1) == "=", text(place + 2) == "function" {
            look(into: place + 2, list: place + 3, as: phase, of: nil)
        }
    }

    /// - Parameters:
    ///   - function: where the function begins, and its list of parameters.
    ///   - table: the variable that holds the table of phases, if one does: it may be called from there, with anything.
    private mutating func look(into function: Int, list: Int, as phase: String, of table: String?) {
        guard let kinds = Self.phases[phase], text(list) == "(", let close = ends[list], let end = ends[function] else {
            return
        }
        if let table {
            let uses = words.indices.filter { isPlain(table, $0) && text($0 + 1) == "." && text($0 + 2) == phase }
            // Its own definition is one of them where it does not stand in the constructor.
            guard uses.allSatisfy({ $0 == function + 1 || $0 + 4 == function }) else { return }
        }
        var objects: [String: Int] = [:]
        let parameters = (list + 1..<close).filter { isName($0) }.map { text($0) }
        for (parameter, kind) in zip(parameters, kinds) {
            objects[parameter] = objects[parameter] == nil ? ObjectMembers.named(kind) : nil
        }
        let body = close + 1..<end
        for name in changed(in: body) { objects[name] = nil }
        for at in body where text(at - 1) != "." && text(at - 1) != ":" {
            if let object = objects[text(at)] { follow(at, object) }
        }
    }

    /// Names that are declared or set in there, in nested functions too.
    private func changed(in body: Range<Int>) -> Set<String> {
        var names: Set<String> = []
        for at in body {
            switch text(at) {
            case "local", "for":
                var next = text(at + 1) == "function" ? at + 2 : at + 1
                while isName(next) {
                    names.insert(text(next))
                    next += text(next + 1) == "<" ? 4 : 1
                    guard text(next) == "," else { break }
                    next += 1
                }
            case "function":
                if isName(at + 1) { names.insert(text(at + 1)) }
                guard let list = (at + 1..<body.upperBound).first(where: { text($0) == "(" }), let end = ends[list]
                else {
                    continue
                }
                names.formUnion((list..<end).filter { isName($0) }.map { text($0) })
            default:
                guard isName(at), text(at - 1) != ".", text(at - 1) != ":" else { continue }
                // `a = …`, and `a, b = …`; what goes on for long is taken for one of them.
                var next = at + 1
                while text(next) == ",", isName(next + 1), next < at + 32 { next += 2 }
                if text(next) == "=" || next >= at + 32 { names.insert(text(at)) }
            }
        }
        return names
    }

    /// From member to member, as far as it is known what they are.
    private mutating func follow(_ start: Int, _ object: Int) {
        var at = start
        var object = ObjectMembers.all[object]
        var path = text(start)
        while [".", ":"].contains(text(at + 1)), isName(at + 2) {
            let sign = text(at + 1)
            let name = text(at + 2)
            // `ctx.shared` takes any name.
            guard !object.members.isEmpty else { return }
            guard let member = object.members[name] else {
                let nearest = nearest(
                    to: name, of: object, path, isCall: sign == ":" || text(at + 3) == "(", isSet: text(at + 3) == "=")
                let member = UnknownMember(name: path + sign + name, line: words[at + 2].line, nearest: nearest)
                if found.count < Self.most, !found.contains(member) { found.append(member) }
                return
            }
            guard let child = member.child, sign == "." else { return }
            object = ObjectMembers.all[child]
            path += sign + name
            at += 2
        }
    }

    private func nearest(
        to name: String, of object: ObjectMembers, _ path: String, isCall: Bool, isSet: Bool
    ) -> String? {
        if object.isMap, !isCall { return isSet ? "\(path):set(\"\(name)\", …)" : "\(path):get(\"\(name)\")" }
        guard let near = EditDistance.nearest(to: name, among: object.members.keys.sorted()) else { return nil }
        return path + (object.members[near]?.isMethod == true ? ":" : ".") + near
    }
}
