// The scripts of an Ingress (SCRIPTING.md §5, §9): three spellings of one list. What is read here is checked for its form
// only; whether the arguments suit the script's own schema is for the script's VM to say.

internal import KubernetesAPI
internal import Model

/// Where a script comes from.
enum ScriptReference: Hashable {
    case configMap(ObjectName, key: String)
    case plugin(String)
    /// As written, `./…`.
    case file(String)
    case inline(String)

    /// Reads `NAME`, `NAME:KEY.lua`, `NS/NAME`, `NS/NAME:KEY.lua`, `plugin/NAME`, `./PATH.lua`.
    init(_ text: String, namespace: String) throws(ValueProblem) {
        let problem = ValueProblem(
            wanted: "a script is NAME, NAME:KEY.lua, NS/NAME, plugin/NAME or ./PATH.lua",
            example: "plugin/header-canary")
        if text.hasPrefix("./") || text.hasPrefix("../") {
            guard text.hasSuffix(".lua"), text.utf8.count <= 1_024,
                text.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7f && $0 != UInt8(ascii: "\\") })
            else { throw problem }
            self = .file(text)
            return
        }
        let slash = text.split(separator: "/", omittingEmptySubsequences: false)
        guard slash.count <= 2, let last = slash.last else { throw problem }
        let colon = last.split(separator: ":", omittingEmptySubsequences: false)
        guard colon.count <= 2, let name = colon.first, Self.isName(name),
            slash.count == 1 || Self.isName(slash[0])
        else { throw problem }
        if slash.count == 2, slash[0] == "plugin" {
            guard colon.count == 1 else { throw problem }
            self = .plugin(String(name))
            return
        }
        let key = colon.count == 2 ? String(colon[1]) : "main.lua"
        guard key.hasSuffix(".lua"), Self.isKey(key) else { throw problem }
        self = .configMap(
            ObjectName(namespace: slash.count == 2 ? String(slash[0]) : namespace, name: String(name)), key: key)
    }

    private static func isName(_ text: Substring) -> Bool {
        !text.isEmpty && text.utf8.count <= 253
            && text.utf8.allSatisfy {
                (97...122).contains($0) || (48...57).contains($0) || $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: ".")
            }
    }

    private static func isKey(_ text: String) -> Bool {
        text.utf8.count <= 253
            && text.utf8.allSatisfy {
                (97...122).contains($0) || (65...90).contains($0) || (48...57).contains($0) || "-._".utf8.contains($0)
            }
    }
}

/// One script of the list, read but not yet found.
struct ScriptItem {
    var reference: ScriptReference
    /// As written; `inline` for a source in an annotation.
    var text: String
    var order: Int
    /// Nil means every path of the Ingress.
    var paths: [String]?
    var arguments: ConfigValue = .map([])
    var onError: ScriptBinding.FailurePolicy?
    var budget = ScriptBinding.Budget()
    var percent: Double = 100
    var mode: ScriptBinding.Mode = .enforce
    var shadow: String?
    /// The annotation, the field in it, and the line.
    var annotation: String
    var field: String
    var line: Int
}

/// A complaint about one of the annotations.
struct ScriptProblem: Error {
    var annotation: String
    var field: String
    var line: Int
    var problem: String
    var mend: String
}

struct ScriptAnnotations {
    private static let keys = ["scripts", "script", "script-args", "script-inline"].map { AnnotationTable.prefix + $0 }
    private static let itemKeys = [
        "script", "args", "order", "paths", "on-error", "budget", "percent", "mode", "shadow",
    ]
    private static let most = 64

    /// The texts of these annotations that an Ingress has.
    static func texts(of ingress: Ingress) -> [String: String] {
        guard !ingress.metadata.annotations.isEmpty else { return [:] }
        var texts: [String: String] = [:]
        for key in keys {
            if let text = ingress.metadata.annotations[key] { texts[key] = text }
        }
        return texts
    }

    /// Reads them all, or complains; `firstLine` answers where an annotation's text begins.
    static func read(
        _ texts: [String: String], namespace: String, firstLine: (String, String) -> Int
    ) throws(ScriptProblem) -> [ScriptItem] {
        var items: [ScriptItem] = []
        let listKey = AnnotationTable.prefix + AnnotationTable.scripts
        if let text = texts[listKey] {
            var reader = ScriptAnnotations(annotation: listKey, namespace: namespace)
            items = try reader.readList(text, firstLine: firstLine(listKey, text))
        }
        let argsKey = AnnotationTable.prefix + AnnotationTable.scriptArgs
        var arguments: ConfigValue?
        if let text = texts[argsKey] {
            let reader = ScriptAnnotations(annotation: argsKey, namespace: namespace)
            arguments = try reader.readArguments(text, firstLine: firstLine(argsKey, text))
        }
        let oneKey = AnnotationTable.prefix + AnnotationTable.script
        if let text = texts[oneKey] {
            let reader = ScriptAnnotations(annotation: oneKey, namespace: namespace)
            let line = firstLine(oneKey, text)
            let name = text.trimmed
            var item = ScriptItem(
                reference: try reader.reference(name, field: "", line: line), text: name,
                order: (items.count + 1) * 10, annotation: oneKey, field: "", line: line)
            item.arguments = arguments ?? .map([])
            items.append(item)
        }
        let inlineKey = AnnotationTable.prefix + AnnotationTable.scriptInline
        if let source = texts[inlineKey] {
            var item = ScriptItem(
                reference: .inline(source), text: "inline", order: (items.count + 1) * 10, annotation: inlineKey,
                field: "", line: firstLine(inlineKey, source))
            // The one script that the arguments can be meant for.
            if texts[oneKey] == nil { item.arguments = arguments ?? .map([]) }
            items.append(item)
        }
        if arguments != nil, texts[oneKey] == nil, texts[inlineKey] == nil {
            throw ScriptProblem(
                annotation: argsKey, field: "", line: firstLine(argsKey, ""),
                problem: "there is no script for these arguments",
                mend: "name one by \(oneKey), or give the arguments in the list as args")
        }
        return items.enumerated()
            .sorted { ($0.element.order, $0.element.text, $0.offset) < ($1.element.order, $1.element.text, $1.offset) }
            .map(\.element)
    }

    private let annotation: String
    private let namespace: String

    private func problem(_ problem: String, field: String, line: Int, mend: String) -> ScriptProblem {
        ScriptProblem(annotation: annotation, field: field, line: line, problem: problem, mend: mend)
    }

    private func parse(_ text: String, firstLine: Int) throws(ScriptProblem) -> PlacedValue? {
        do throws(FieldFault) {
            return try YAMLReader.read(text, schema: .core, limits: .annotation, firstLine: firstLine)
        } catch {
            throw problem(
                "the value is not valid YAML: \(error.problem)", field: "", line: error.position.line,
                mend: "correct it")
        }
    }

    private func reference(_ text: String, field: String, line: Int) throws(ScriptProblem) -> ScriptReference {
        do throws(ValueProblem) {
            return try ScriptReference(text, namespace: namespace)
        } catch {
            throw problem(
                "\(quoted(text)) names no script; \(error.wanted)", field: field, line: line,
                mend: "write for example \"\(error.example)\"")
        }
    }

    private func readArguments(_ text: String, firstLine: Int) throws(ScriptProblem) -> ConfigValue {
        guard let value = try parse(text, firstLine: firstLine), value.entries != nil else {
            throw problem(
                "the arguments are no map", field: "", line: firstLine,
                mend: "write for example {\"header\": \"x-canary\"}")
        }
        return ConfigValue(value)
    }

    private mutating func readList(_ text: String, firstLine: Int) throws(ScriptProblem) -> [ScriptItem] {
        guard let value = try parse(text, firstLine: firstLine) else { return [] }
        guard let list = value.items else {
            throw problem(
                "the value is \(value.kindName), not a list", field: "", line: value.position.line,
                mend: "begin each script with \"- script: NAME\"")
        }
        guard list.count <= Self.most else {
            throw problem(
                "there are \(list.count) scripts", field: "", line: value.position.line,
                mend: "an Ingress may have \(Self.most)")
        }
        var items: [ScriptItem] = []
        for (index, entry) in list.enumerated() {
            items.append(try readItem(entry, index: index))
        }
        return items
    }

    private func readItem(_ value: PlacedValue, index: Int) throws(ScriptProblem) -> ScriptItem {
        let base = "[\(index)]"
        let line = value.position.line
        if let name = value.string {
            // A name alone is as good as a map with nothing else in it.
            return ScriptItem(
                reference: try reference(name, field: base, line: line), text: name, order: (index + 1) * 10,
                annotation: annotation, field: base, line: line)
        }
        guard let entries = value.entries else {
            throw problem(
                "an item is \(value.kindName), not a map", field: base, line: line, mend: "write \"- script: NAME\"")
        }
        for entry in entries where !Self.itemKeys.contains(entry.key) {
            throw problem(
                "there is no \(quoted(entry.key)) here", field: "\(base).\(entry.key)", line: entry.keyPosition.line,
                mend: Spelling.hint(for: entry.key, among: Self.itemKeys))
        }
        guard let script = value["script"], let name = script.string else {
            throw problem(
                "the item names no script", field: "\(base).script", line: line, mend: "write \"script: NAME\"")
        }
        var item = ScriptItem(
            reference: try reference(name, field: "\(base).script", line: script.position.line), text: name,
            order: (index + 1) * 10, annotation: annotation, field: base, line: line)
        for entry in entries {
            let field = "\(base).\(entry.key)"
            let value = entry.value
            switch entry.key {
            case "args":
                guard value.entries != nil || value.content == .null else {
                    throw problem(
                        "the arguments are \(value.kindName), not a map", field: field, line: value.position.line,
                        mend: "write NAME: VALUE pairs")
                }
                if value.content != .null { item.arguments = ConfigValue(value) }
            case "order":
                guard case .integer(let order) = value.content, (-100_000...100_000).contains(order) else {
                    throw expected("a whole number", value, field: field)
                }
                item.order = order
            case "paths": item.paths = try readPaths(value, field: field)
            case "on-error":
                item.onError = try word(value, field: field, ScriptBinding.FailurePolicy.init, ["open", "closed"])
            case "mode":
                item.mode = try word(value, field: field, ScriptBinding.Mode.init, ["enforce", "shadow", "off"])
            case "percent":
                item.percent = try quantity(value, field: field, Quantities.percent)
            case "budget": item.budget = try readBudget(value, field: field)
            case "shadow":
                guard let second = value.string else { throw expected("the name of a script", value, field: field) }
                _ = try reference(second, field: field, line: value.position.line)
                item.shadow = second
            default: break
            }
        }
        return item
    }

    private func expected(_ what: String, _ value: PlacedValue, field: String) -> ScriptProblem {
        problem(
            "expected \(what), found \(value.kindName)", field: field, line: value.position.line, mend: "write \(what)")
    }

    private func readPaths(_ value: PlacedValue, field: String) throws(ScriptProblem) -> [String] {
        guard let list = value.items, !list.isEmpty else { throw expected("a list of paths", value, field: field) }
        var paths: [String] = []
        for item in list {
            guard let path = item.string, path.hasPrefix("/") else {
                throw expected("a path such as /cart", item, field: field)
            }
            paths.append(path)
        }
        return paths
    }

    private func word<Word>(
        _ value: PlacedValue, field: String, _ make: (String) -> Word?, _ words: [String]
    ) throws(ScriptProblem) -> Word {
        guard let text = value.string else { throw expected(words.joined(separator: ", or "), value, field: field) }
        guard let word = make(text) else {
            throw problem(
                "\(quoted(text)) is none of \(words.joined(separator: ", "))", field: field, line: value.position.line,
                mend: Spelling.hint(for: text, among: words))
        }
        return word
    }

    private func quantity<Value>(
        _ value: PlacedValue, field: String, _ read: (String) throws(ValueProblem) -> Value
    ) throws(ScriptProblem) -> Value {
        let text: String
        switch value.content {
        case .string(let written): text = written
        case .integer(let number): text = String(number)
        case .number(let number): text = "\(number)"
        default: throw expected("a number with its unit", value, field: field)
        }
        do throws(ValueProblem) {
            return try read(text)
        } catch {
            throw problem(
                "\(quoted(text)) cannot be read; \(error.wanted)", field: field, line: value.position.line,
                mend: "write for example \"\(error.example)\"")
        }
    }

    /// What a tenant may ask for is bounded: a loop that one script holds is held for all.
    private func readBudget(_ value: PlacedValue, field: String) throws(ScriptProblem) -> ScriptBinding.Budget {
        guard let entries = value.entries else { throw expected("a map of cpu, memory and wall", value, field: field) }
        var budget = ScriptBinding.Budget()
        for entry in entries {
            let inner = "\(field).\(entry.key)"
            func bounded(_ amount: Int, _ range: ClosedRange<Int>, _ text: String) throws(ScriptProblem) -> Int {
                guard range.contains(amount) else {
                    throw problem(
                        "a script's \(entry.key) may be \(text)", field: inner, line: entry.value.position.line,
                        mend: "ask for \(amount < range.lowerBound ? "more" : "less"), or leave it out for the default")
                }
                return amount
            }
            switch entry.key {
            case "cpu":
                let amount = try quantity(entry.value, field: inner, Quantities.microseconds)
                budget.cpuMicroseconds = try bounded(amount, 10...50_000, "10us to 50ms")
            case "memory":
                let amount = try quantity(entry.value, field: inner, Quantities.bytes)
                budget.memoryBytes = try bounded(amount, (256 << 10)...(64 << 20), "256KiB to 64MiB")
            case "wall":
                let amount = try quantity(entry.value, field: inner, Quantities.milliseconds)
                budget.wallMilliseconds = try bounded(amount, 1...60_000, "1ms to 60s")
            default:
                throw problem(
                    "there is no \(quoted(entry.key)) here", field: inner, line: entry.keyPosition.line,
                    mend: Spelling.hint(for: entry.key, among: ["cpu", "memory", "wall"]))
            }
        }
        return budget
    }
}

extension ConfigValue {
    /// The places are left behind: a script's schema names its arguments by path.
    init(_ value: PlacedValue) {
        switch value.content {
        case .null: self = .null
        case .bool(let flag): self = .bool(flag)
        case .integer(let number): self = .integer(Int64(number))
        case .number(let number): self = .number(number)
        case .string(let text): self = .string(text)
        case .list(let items): self = .list(items.map { ConfigValue($0) })
        case .map(let entries): self = .map(entries.map { Entry($0.key, ConfigValue($0.value)) })
        }
    }
}

extension String {
    /// Without blanks and line ends around it: a block in YAML ends with a line end that nobody means.
    var trimmed: String {
        var text = self[...]
        while let first = text.first, first.isWhitespace { text.removeFirst() }
        while let last = text.last, last.isWhitespace { text.removeLast() }
        return String(text)
    }
}
