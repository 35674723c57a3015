// What a script's `config` table declares, and the judgement of an Ingress's arguments by it (SCRIPTING.md §5). Pure:
// it runs on the control thread, before a version goes live.

package import Model

/// The declaration: one field for each key that `args` may have.
package struct ScriptSchema: Sendable, Hashable {
    package var fields: [Field]

    package init(fields: [Field] = []) { self.fields = fields }

    package struct Field: Sendable, Hashable {
        package var name: String
        package var shape: Shape
        package var isRequired = false
        package var fallback: ConfigValue?
        /// In the unit of the type; for texts, lists and maps the number of bytes or items.
        package var least: Double?
        package var most: Double?
        package var doc: String?
        /// Of an `enum`, or of a `string`: all that may stand there.
        package var values: [ConfigValue] = []

        package init(_ name: String, _ shape: Shape) {
            self.name = name
            self.shape = shape
        }
    }

    package indirect enum Shape: Sendable, Hashable {
        case string
        case number
        case integer
        case boolean
        /// 0…100.
        case percent
        /// Scripts see seconds.
        case duration
        /// Scripts see a number of bytes.
        case bytes
        /// Scripts see an object with `test`, `match` and `gsub`.
        case regex
        /// Scripts see an object with `contains`.
        case cidr
        /// `FIRST-LAST`, both included.
        case range
        case enumeration
        case list(Field)
        case map(Field)
        /// The value of a map or list that has fields of its own.
        case record([Field])
        /// Scripts see an object that stands for a Service port.
        case backend
        case secret
        case jwks

        package var name: String {
            switch self {
            case .string: "string"
            case .number: "number"
            case .integer: "integer"
            case .boolean: "boolean"
            case .percent: "percent"
            case .duration: "duration"
            case .bytes: "bytes"
            case .regex: "regex"
            case .cidr: "cidr"
            case .range: "range"
            case .enumeration: "enum"
            case .list: "list"
            case .map: "map"
            case .record: "record"
            case .backend: "backend"
            case .secret: "secret"
            case .jwks: "jwks"
            }
        }
    }

    static let typeNames = [
        "string", "number", "integer", "boolean", "percent", "duration", "bytes", "regex", "cidr", "range", "enum",
        "list",
        "map", "backend", "secret", "jwks",
    ]
    static let fieldKeys = ["type", "required", "default", "min", "max", "doc", "of", "values"]
}

/// A Service port as a script's arguments name it: `web-canary:80`, or `ns/web-canary:80`.
package struct BackendName: Sendable, Hashable, CustomStringConvertible {
    /// As it was written: what `tostring` shows.
    package var text: String
    /// Nil is the namespace of the Ingress.
    package var namespace: String?
    package var service: String
    package var port: String

    /// A namespace and a service are DNS labels (RFC 1123), a port is a number or a name.
    package init?(_ text: String) {
        self.text = text
        var rest = text[...]
        if let slash = rest.firstIndex(of: "/") {
            let namespace = rest[..<slash]
            guard Self.isLabel(namespace) else { return nil }
            self.namespace = String(namespace)
            rest = rest[rest.index(after: slash)...]
        }
        guard let colon = rest.firstIndex(of: ":") else { return nil }
        let port = rest[rest.index(after: colon)...]
        guard Self.isLabel(rest[..<colon]), Self.isLabel(port) else { return nil }
        if port.allSatisfy(\.isNumber), UInt16(port) == nil || UInt16(port) == 0 { return nil }
        service = String(rest[..<colon])
        self.port = String(port)
    }

    private static func isLabel(_ text: Substring) -> Bool {
        !text.isEmpty && text.utf8.count <= 63 && text.first != "-" && text.last != "-"
            && text.utf8.allSatisfy { (97...122).contains($0) || (48...57).contains($0) || $0 == 45 }
    }

    package var description: String { text }
}

/// Arguments that the schema has judged. Objects stand in lists of their own; the tree holds their places.
package struct ScriptConfig: Sendable, Hashable {
    package indirect enum Value: Sendable, Hashable {
        case boolean(Bool)
        case integer(Int64)
        case number(Double)
        case string(String)
        case pattern(Int)
        case blocks(Int)
        case backend(Int)
        case list([Value])
        /// Sorted by key.
        case map([Entry])
    }

    package struct Entry: Sendable, Hashable {
        package var key: String
        package var value: Value

        package init(_ key: String, _ value: Value) {
            self.key = key
            self.value = value
        }
    }

    package var root: Value = .map([])
    package var patterns: [String] = []
    package var blocks: [[AddressBlock]] = []
    package var backends: [BackendName] = []

    package init() {}

    package subscript(key: String) -> Value? {
        guard case .map(let entries) = root else { return nil }
        return entries.first { $0.key == key }?.value
    }
}

/// Something wrong with a schema or with arguments: what, where inside of them, and what to write instead.
package struct ScriptFinding: Error, Sendable, Hashable {
    package var problem: String
    /// `args.variants.a.weight`; empty for the whole.
    package var path: String
    package var mend: String

    package init(_ problem: String, path: String, mend: String) {
        self.problem = problem
        self.path = path
        self.mend = mend
    }
}

// ------------------------------------------------------------------------------------------------ reading a declaration

extension ScriptSchema {
    /// Reads the `config` table of a script. Its mistakes are the script author's.
    package init(_ table: LuaValue) throws(ScriptFinding) {
        switch table {
        case .nil: self.init()
        case .map(let entries): try self.init(fields: Self.fields(entries, path: "config"))
        default:
            throw ScriptFinding(
                "config is not a table of fields", path: "config",
                mend: "write config = { name = { type = \"string\" } }")
        }
    }

    private static func fields(_ entries: [LuaValue.Entry], path: String) throws(ScriptFinding) -> [Field] {
        var fields: [Field] = []
        for entry in entries {
            guard let name = entry.key.text else {
                throw ScriptFinding(
                    "a field of \(path) has no name", path: path,
                    mend: "write \(path) = { name = { type = \"string\" } }")
            }
            fields.append(try field(name, entry.value, path: "\(path).\(name)"))
        }
        return fields
    }

    private static func field(_ name: String, _ value: LuaValue, path: String) throws(ScriptFinding) -> Field {
        let hint = "write \(path) = { type = \"string\" }"
        guard case .map(let entries) = value else {
            throw ScriptFinding("\(path) is not a table with a type", path: path, mend: hint)
        }
        for entry in entries {
            let key = entry.key.text ?? ""
            guard !fieldKeys.contains(key) else { continue }
            throw ScriptFinding(
                "\(path) has the unknown key \"\(key)\"", path: path,
                mend: didYouMean(key, fieldKeys) ?? "the keys of a field are \(fieldKeys.joined(separator: ", "))")
        }
        guard let type = value["type"]?.text else { throw ScriptFinding("\(path) has no type", path: path, mend: hint) }
        var field = Field(name, .string)
        field.shape = try shape(type, of: value["of"], path: path)
        for (key, target) in [("min", \Field.least), ("max", \Field.most)] {
            guard let bound = value[key] else { continue }
            guard let number = quantity(bound, field.shape) else {
                throw ScriptFinding(
                    "\(path).\(key) is no \(field.shape.name)", path: path,
                    mend: "write a value of the field's own type")
            }
            field[keyPath: target] = number
        }
        if let least = field.least, let most = field.most, least > most {
            throw ScriptFinding(
                "\(path).min is greater than its max: no value fits", path: path, mend: "write the smaller one as min")
        }
        if let doc = value["doc"] { field.doc = doc.text }
        if let required = value["required"] {
            guard case .bool(let flag) = required else {
                throw ScriptFinding("\(path).required is not a boolean", path: path, mend: "write required = true")
            }
            field.isRequired = flag
        }
        if let values = value["values"] {
            guard case .list(let items) = values, !items.isEmpty else {
                throw ScriptFinding("\(path).values is not a list", path: path, mend: "write values = { \"a\", \"b\" }")
            }
            for item in items {
                switch item {
                case .bytes, .integer, .number, .bool: if let value = ConfigValue(item) { field.values.append(value) }
                case .nil, .null, .list, .map, .handle, .opaque:
                    throw ScriptFinding(
                        "\(path).values holds something that is neither text, number nor boolean", path: path,
                        mend: "write values = { \"a\", \"b\" }")
                }
            }
        }
        if case .enumeration = field.shape, field.values.isEmpty {
            throw ScriptFinding("\(path) is an enum without values", path: path, mend: "add values = { \"a\", \"b\" }")
        }
        if let fallback = value["default"] {
            guard let converted = ConfigValue(fallback) else {
                throw ScriptFinding(
                    "\(path).default is a function or an object", path: path, mend: "write a plain value")
            }
            field.fallback = converted
            var config = ScriptConfig()
            do throws(Judgement) {
                _ = try field.judge(converted, path: "\(path).default", into: &config)
            } catch {
                guard let first = error.findings.first else { return field }
                throw ScriptFinding(
                    "the default of \(path) does not fit: \(first.problem)", path: path, mend: first.mend)
            }
        }
        return field
    }

    private static func shape(_ type: String, of inner: LuaValue?, path: String) throws(ScriptFinding) -> Shape {
        switch type {
        case "string": return .string
        case "number": return .number
        case "integer": return .integer
        case "boolean": return .boolean
        case "percent": return .percent
        case "duration": return .duration
        case "bytes": return .bytes
        case "regex": return .regex
        case "cidr": return .cidr
        case "range": return .range
        case "enum": return .enumeration
        case "backend": return .backend
        case "secret": return .secret
        case "jwks": return .jwks
        case "list", "map":
            let element: Field
            switch inner {
            case nil: element = Field("", .string)
            case .bytes: element = Field("", try shape(inner?.text ?? "", of: nil, path: path))
            case .map(let entries)?:
                // A table whose `type` is a text is one field; else each key is a field of a record.
                if case .bytes? = inner?["type"] {
                    element = try field("", .map(entries), path: "\(path).of")
                } else {
                    element = Field("", .record(try fields(entries, path: "\(path).of")))
                }
            default:
                throw ScriptFinding(
                    "\(path).of is neither a type nor a table", path: path, mend: "write of = \"string\"")
            }
            return type == "list" ? .list(element) : .map(element)
        default:
            throw ScriptFinding(
                "\(path) has the unknown type \"\(type)\"", path: path,
                mend: didYouMean(type, typeNames) ?? "the types are \(typeNames.joined(separator: ", "))")
        }
    }

    private static func quantity(_ value: LuaValue, _ shape: Shape) -> Double? {
        if let number = value.double { return number }
        guard let text = value.text else { return nil }
        switch shape {
        case .duration: return Quantity.milliseconds(text).map { Double($0) / 1000 }
        case .bytes: return Quantity.bytes(text).map(Double.init)
        case .percent: return Percent.parse(text)
        default: return nil
        }
    }

    static func didYouMean(_ name: String, _ candidates: [String]) -> String? {
        EditDistance.nearest(to: name, among: candidates).map { "did you mean \"\($0)\"?" }
    }
}

extension ConfigValue {
    /// A default of a schema as if it stood in an Ingress; nil for what has no such form.
    init?(_ value: LuaValue) {
        switch value {
        case .nil, .null: self = .null
        case .bool(let flag): self = .bool(flag)
        case .integer(let number): self = .integer(number)
        case .number(let number): self = .number(number)
        case .bytes(let bytes): self = .string(String(decoding: bytes, as: UTF8.self))
        case .list(let items):
            var list: [ConfigValue] = []
            for item in items {
                guard let converted = ConfigValue(item) else { return nil }
                list.append(converted)
            }
            self = .list(list)
        case .map(let entries):
            var map: [Entry] = []
            for entry in entries {
                guard let key = entry.key.text, let converted = ConfigValue(entry.value) else { return nil }
                map.append(Entry(key, converted))
            }
            self = .map(map)
        case .handle, .opaque: return nil
        }
    }

    /// For messages.
    var kind: String {
        switch self {
        case .null: "null"
        case .bool: "a boolean"
        case .integer, .number: "a number"
        case .string: "a string"
        case .list: "a list"
        case .map: "a map"
        }
    }

    var shown: String {
        switch self {
        case .null: "null"
        case .bool(let flag): String(flag)
        case .integer(let number): String(number)
        case .number(let number): String(number)
        case .string(let text): "\"\(text.count > 60 ? String(text.prefix(57)) + "..." : text)\""
        case .list, .map: kind
        }
    }
}

package enum Percent {
    /// `5`, `5%`, `0.1`, `0.1%`: digits with at most one point, and a percent sign if any.
    package static func parse(_ text: some StringProtocol) -> Double? {
        var digits = text[...]
        if digits.last == "%" { digits = digits.dropLast() }
        guard digits.utf8.allSatisfy({ (48...57).contains($0) || $0 == 46 }), digits.first?.isNumber == true,
            digits.last?.isNumber == true
        else { return nil }
        return Double(digits)
    }
}

// -------------------------------------------------------------------------------------------------- judging arguments

/// Everything that is wrong with the arguments, in the order of the schema.
package struct Judgement: Error, Sendable, Hashable {
    package var findings: [ScriptFinding]
}

extension ScriptSchema {
    /// The typed value tree, with the defaults filled in, or everything that is wrong.
    package func judge(_ arguments: ConfigValue) throws(Judgement) -> ScriptConfig {
        var config = ScriptConfig()
        switch arguments {
        case .map, .null: break
        case .bool, .integer, .number, .string, .list:
            throw Judgement(findings: [
                ScriptFinding("args is \(arguments.kind), not a map", path: "args", mend: "write args: { name: value }")
            ])
        }
        let root = try Self.record(fields, arguments, path: "args", into: &config)
        config.root = root
        return config
    }

    fileprivate static func record(
        _ fields: [Field], _ value: ConfigValue, path: String, into config: inout ScriptConfig
    ) throws(Judgement) -> ScriptConfig.Value {
        var given: [ConfigValue.Entry] = []
        switch value {
        case .map(let entries): given = entries
        case .null: break
        case .bool, .integer, .number, .string, .list:
            let names = fields.map(\.name).joined(separator: ", ")
            throw Judgement(findings: [
                ScriptFinding("\(path) is \(value.kind), not a map", path: path, mend: "write a map with \(names)")
            ])
        }
        var findings: [ScriptFinding] = []
        let names = fields.map(\.name)
        var seen: Set<String> = []
        for entry in given {
            if !seen.insert(entry.key).inserted {
                findings.append(
                    ScriptFinding(
                        "\(path).\(entry.key) stands twice", path: "\(path).\(entry.key)", mend: "keep one of them"))
            }
            guard !names.contains(entry.key) else { continue }
            let list =
                names.isEmpty ? "this script takes no arguments" : "the arguments are \(names.joined(separator: ", "))"
            findings.append(
                ScriptFinding(
                    "\(path).\(entry.key) is unknown to the script", path: "\(path).\(entry.key)",
                    mend: didYouMean(entry.key, names) ?? list))
        }
        var entries: [ScriptConfig.Entry] = []
        for field in fields {
            var value = given.first { $0.key == field.name }?.value
            if value == .null { value = nil }
            guard let value = value ?? field.fallback else {
                if field.isRequired {
                    findings.append(
                        ScriptFinding(
                            "\(path).\(field.name) is required and missing", path: "\(path).\(field.name)",
                            mend: "add \(field.name): \(field.example)"))
                }
                continue
            }
            do throws(Judgement) {
                entries.append(
                    ScriptConfig.Entry(
                        field.name, try field.judge(value, path: "\(path).\(field.name)", into: &config)))
            } catch {
                findings += error.findings
            }
        }
        if !findings.isEmpty { throw Judgement(findings: findings) }
        return .map(entries.sorted { $0.key < $1.key })
    }
}

extension ScriptSchema.Field {
    /// Something that fits, for messages.
    var example: String {
        switch shape {
        case .string: "\"text\""
        case .number: "0.5"
        case .integer: "1"
        case .boolean: "true"
        case .percent: "5"
        case .duration: "150ms"
        case .bytes: "64KiB"
        case .regex: "\"^/v[0-9]+\""
        case .cidr: "10.0.0.0/8"
        case .range: "0-999"
        case .enumeration: values.first?.shown ?? "\"\""
        case .list: "[…]"
        case .map, .record: "{…}"
        case .backend: "service:80"
        case .secret, .jwks: "{ secret: name/key }"
        }
    }

    func judge(_ value: ConfigValue, path: String, into config: inout ScriptConfig) throws(Judgement)
        -> ScriptConfig.Value
    {
        switch shape {
        case .string:
            guard case .string(let text) = value else { throw refuse(value, path, "a string", "put it in quotes") }
            if !values.isEmpty { try check(value, path) }
            try bounds(Double(text.utf8.count), path, "bytes long")
            return .string(text)
        case .enumeration:
            try check(value, path)
            switch value {
            case .string(let text): return .string(text)
            case .integer(let number): return .integer(number)
            case .number(let number): return .number(number)
            case .bool(let flag): return .boolean(flag)
            case .null, .list, .map: throw refuse(value, path, "one of its values", "write \(example)")
            }
        case .boolean:
            guard case .bool(let flag) = value else { throw refuse(value, path, "a boolean", "write true or false") }
            return .boolean(flag)
        case .integer:
            guard let number = Self.integer(value) else { throw refuse(value, path, "an integer", "write \(example)") }
            try bounds(Double(number), path, nil)
            return .integer(number)
        case .number:
            guard let number = Self.number(value) else { throw refuse(value, path, "a number", "write \(example)") }
            try bounds(number, path, nil)
            if case .integer(let whole) = value { return .integer(whole) }
            return .number(number)
        case .percent:
            var number = Self.number(value)
            if case .string(let text) = value { number = Percent.parse(text) }
            guard let number, (0...100).contains(number) else {
                throw refuse(value, path, "a percentage from 0 to 100", "write 5, \"5%\" or 0.1")
            }
            try bounds(number, path, nil)
            return .number(number)
        case .duration:
            var milliseconds: Int?
            if case .string(let text) = value { milliseconds = Quantity.milliseconds(text) }
            if value == .integer(0) { milliseconds = 0 }
            guard let milliseconds else {
                throw refuse(value, path, "a duration", "write digits and a unit: 150ms, 5s, 2m, 1h or 30d")
            }
            try bounds(Double(milliseconds) / 1000, path, "seconds")
            return milliseconds % 1000 == 0
                ? .integer(Int64(milliseconds / 1000)) : .number(Double(milliseconds) / 1000)
        case .bytes:
            var count: Int?
            if case .string(let text) = value { count = Quantity.bytes(text) }
            if case .integer(let number) = value, number >= 0 { count = Int(number) }
            guard let count else {
                throw refuse(value, path, "a size", "write digits and a unit if any: 64KiB, 10MiB, 1m")
            }
            try bounds(Double(count), path, "bytes")
            return .integer(Int64(count))
        case .regex:
            guard case .string(let text) = value else { throw refuse(value, path, "a pattern", "put it in quotes") }
            do throws(Pattern.Problem) {
                _ = try Pattern(Array(text.utf8))
            } catch {
                throw Judgement(findings: [
                    ScriptFinding(
                        "\(path) is no pattern: \(error.message) at offset \(error.offset) of \(value.shown)",
                        path: path,
                        mend: "write a regular expression in PCRE2 syntax")
                ])
            }
            config.patterns.append(text)
            return .pattern(config.patterns.count - 1)
        case .cidr:
            var texts: [ConfigValue] = [value]
            if case .list(let items) = value { texts = items }
            var blocks: [AddressBlock] = []
            for item in texts {
                guard case .string(let text) = item, let block = AddressBlock(text) else {
                    throw refuse(item, path, "a block of addresses", "write 10.0.0.0/8 or 2001:db8::/32")
                }
                blocks.append(block)
            }
            config.blocks.append(blocks)
            return .blocks(config.blocks.count - 1)
        case .range:
            guard case .string(let text) = value, let range = IntegerRange.parse(text) else {
                throw refuse(value, path, "a range", "write FIRST-LAST, both included: 0-999")
            }
            try bounds(Double(range.lowerBound), path, nil)
            try bounds(Double(range.upperBound), path, nil)
            return .string("\(range.lowerBound)-\(range.upperBound)")
        case .list(let element):
            guard case .list(let items) = value else { throw refuse(value, path, "a list", "write [first, second]") }
            try bounds(Double(items.count), path, "items long")
            var list: [ScriptConfig.Value] = []
            var findings: [ScriptFinding] = []
            for (i, item) in items.enumerated() {
                do throws(Judgement) {
                    list.append(try element.judge(item, path: "\(path)[\(i)]", into: &config))
                } catch {
                    findings += error.findings
                }
            }
            if !findings.isEmpty { throw Judgement(findings: findings) }
            return .list(list)
        case .map(let element):
            var given: [ConfigValue.Entry] = []
            if case .map(let entries) = value {
                given = entries
            } else if value != .list([]) {
                throw refuse(value, path, "a map", "write { key: value }")
            }
            try bounds(Double(given.count), path, "entries long")
            var map: [ScriptConfig.Entry] = []
            var findings: [ScriptFinding] = []
            for entry in given {
                do throws(Judgement) {
                    map.append(
                        ScriptConfig.Entry(
                            entry.key, try element.judge(entry.value, path: "\(path).\(entry.key)", into: &config)))
                } catch {
                    findings += error.findings
                }
            }
            if !findings.isEmpty { throw Judgement(findings: findings) }
            return .map(map.sorted { $0.key < $1.key })
        case .record(let fields):
            return try ScriptSchema.record(fields, value, path: path, into: &config)
        case .backend:
            guard case .string(let text) = value, let backend = BackendName(text) else {
                throw refuse(value, path, "a backend", "write SERVICE:PORT, or NAMESPACE/SERVICE:PORT")
            }
            if let known = config.backends.firstIndex(of: backend) { return .backend(known) }
            config.backends.append(backend)
            return .backend(config.backends.count - 1)
        case .secret, .jwks:
            throw Judgement(findings: [
                ScriptFinding(
                    "\(path) is of type \(shape.name), which this version of Moongate does not offer yet", path: path,
                    mend: "use a script that needs no secrets")
            ])
        }
    }

    private func refuse(_ value: ConfigValue, _ path: String, _ expected: String, _ mend: String) -> Judgement {
        Judgement(findings: [ScriptFinding("\(path) is \(value.shown), not \(expected)", path: path, mend: mend)])
    }

    private func check(_ value: ConfigValue, _ path: String) throws(Judgement) {
        guard !values.contains(value) else { return }
        let texts = values.map { if case .string(let text) = $0 { text } else { $0.shown } }
        var near: String?
        if case .string(let text) = value { near = ScriptSchema.didYouMean(text, texts) }
        throw Judgement(findings: [
            ScriptFinding(
                "\(path) is \(value.shown), which is none of its values", path: path,
                mend: near ?? "write one of \(texts.joined(separator: ", "))")
        ])
    }

    private func bounds(_ number: Double, _ path: String, _ unit: String?) throws(Judgement) {
        let unit = unit.map { " \($0)" } ?? ""
        func shown(_ number: Double) -> String { Int64(exactly: number).map(String.init) ?? String(number) }
        if let least, number < least {
            throw Judgement(findings: [
                ScriptFinding(
                    "\(path) is \(shown(number))\(unit), below the least of \(shown(least))", path: path,
                    mend: "write at least \(shown(least))")
            ])
        }
        if let most, number > most {
            throw Judgement(findings: [
                ScriptFinding(
                    "\(path) is \(shown(number))\(unit), above the most of \(shown(most))", path: path,
                    mend: "write at most \(shown(most))")
            ])
        }
    }

    private static func integer(_ value: ConfigValue) -> Int64? {
        switch value {
        case .integer(let number): number
        case .number(let number): Int64(exactly: number)
        case .null, .bool, .string, .list, .map: nil
        }
    }

    private static func number(_ value: ConfigValue) -> Double? {
        switch value {
        case .integer(let number): Double(number)
        case .number(let number): number.isFinite ? number : nil
        case .null, .bool, .string, .list, .map: nil
        }
    }
}

package enum IntegerRange {
    /// `0-999`: two numbers without a sign, the first not above the second.
    package static func parse(_ text: String) -> ClosedRange<Int64>? {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 2, parts.allSatisfy({ $0.utf8.allSatisfy { (48...57).contains($0) } }),
            let first = Int64(parts[0]), let last = Int64(parts[1]), first <= last
        else { return nil }
        return first...last
    }
}
