import Model
import Testing

@testable import Scripting

@Suite struct ScriptSchemaTests {
    func field(_ name: String, _ entries: [(String, LuaValue)]) -> LuaValue.Entry {
        LuaValue.Entry(.string(name), .map(entries))
    }

    func schema(_ fields: LuaValue.Entry...) throws -> ScriptSchema { try ScriptSchema(.map(fields)) }

    /// A field `x` of that type, given that value: what scripts see, or what is wrong.
    func judge(_ type: [(String, LuaValue)], _ value: ConfigValue) throws -> ScriptConfig.Value? {
        try schema(field("x", type)).judge(.map([.init("x", value)]))["x"]
    }

    struct Good: Sendable {
        var type: String
        var value: ConfigValue
        var seen: ScriptConfig.Value

        init(_ type: String, _ value: ConfigValue, _ seen: ScriptConfig.Value) {
            self.type = type
            self.value = value
            self.seen = seen
        }
    }

    static let good = [
        Good("string", .string("a"), .string("a")), Good("integer", .integer(-3), .integer(-3)),
        Good("integer", .number(4), .integer(4)), Good("number", .integer(4), .integer(4)),
        Good("number", .number(0.5), .number(0.5)), Good("boolean", .bool(true), .boolean(true)),
        Good("percent", .integer(5), .number(5)), Good("percent", .string("5%"), .number(5)),
        Good("percent", .string("0.1"), .number(0.1)), Good("percent", .number(99.9), .number(99.9)),
        Good("duration", .string("150ms"), .number(0.15)), Good("duration", .string("5s"), .integer(5)),
        Good("duration", .string("2m"), .integer(120)), Good("duration", .string("1h"), .integer(3600)),
        Good("duration", .string("30d"), .integer(2_592_000)), Good("duration", .integer(0), .integer(0)),
        Good("bytes", .string("64KiB"), .integer(65536)), Good("bytes", .string("10MiB"), .integer(10 << 20)),
        Good("bytes", .string("1m"), .integer(1 << 20)), Good("bytes", .integer(512), .integer(512)),
        Good("range", .string("0-999"), .string("0-999")), Good("regex", .string("^a+$"), .pattern(0)),
        Good("cidr", .string("10.0.0.0/8"), .blocks(0)), Good("cidr", .list([.string("::1")]), .blocks(0)),
        Good("backend", .string("web-canary:80"), .backend(0)), Good("backend", .string("ns/web:http"), .backend(0)),
        Good("list", .list([.string("a"), .string("b")]), .list([.string("a"), .string("b")])),
        Good("map", .map([.init("k", .string("v"))]), .map([.init("k", .string("v"))])),
    ]

    @Test(arguments: good)
    func fits(_ good: Good) throws {
        #expect(try judge([("type", .string(good.type))], good.value) == good.seen)
    }

    static let bad: [(String, ConfigValue)] = [
        ("string", .integer(1)), ("integer", .number(1.5)), ("integer", .string("1")), ("number", .string("1")),
        ("boolean", .string("true")), ("percent", .integer(101)), ("percent", .string("-1")),
        ("percent", .string("5 %")),
        ("percent", .string("%")), ("duration", .string("5")), ("duration", .integer(5)), ("duration", .string("5 s")),
        ("duration", .string("-5s")), ("bytes", .string("8 MB")), ("bytes", .integer(-1)), ("range", .string("9-1")),
        ("range", .string("1-2-3")), ("range", .string("-")), ("regex", .string("(")), ("cidr", .string("10.0.0.0/33")),
        ("backend", .string("web")), ("backend", .string("http://web:80")), ("backend", .string("a/b/c:1")),
        ("backend", .string("web:0")), ("backend", .string("Web:80")), ("list", .string("a")),
        ("list", .list([.integer(1)])),
        ("map", .string("a")), ("map", .map([.init("k", .bool(true))])), ("secret", .string("a")),
        ("jwks", .string("a")),
    ]

    @Test(arguments: bad)
    func doesNotFit(_ type: String, _ value: ConfigValue) throws {
        let error = try #require(throws: Judgement.self) { try judge([("type", .string(type))], value) }
        let first = try #require(error.findings.first)
        #expect(first.path.hasPrefix("args.x"))
        #expect(!first.mend.isEmpty && first.problem.contains("args.x"))
    }

    @Test func bounds() throws {
        let percent: [(String, LuaValue)] = [
            ("type", .string("percent")), ("min", .integer(1)), ("max", .string("50%")),
        ]
        #expect(try judge(percent, .integer(50)) == .number(50))
        #expect(throws: Judgement.self) { try judge(percent, .integer(51)) }
        #expect(throws: Judgement.self) { try judge(percent, .number(0.5)) }
        let duration: [(String, LuaValue)] = [("type", .string("duration")), ("max", .string("1s"))]
        #expect(try judge(duration, .string("1s")) == .integer(1))
        #expect(throws: Judgement.self) { try judge(duration, .string("1001ms")) }
        let text: [(String, LuaValue)] = [("type", .string("string")), ("min", .integer(1))]
        #expect(throws: Judgement.self) { try judge(text, .string("")) }
        let list: [(String, LuaValue)] = [("type", .string("list")), ("max", .integer(1))]
        #expect(throws: Judgement.self) { try judge(list, .list([.string("a"), .string("b")])) }
    }

    @Test func enumerations() throws {
        let texts: [(String, LuaValue)] = [
            ("type", .string("enum")), ("values", .list([.string("lax"), .string("strict")])),
        ]
        #expect(try judge(texts, .string("lax")) == .string("lax"))
        let error = try #require(throws: Judgement.self) { try judge(texts, .string("strct")) }
        #expect(error.findings.first?.mend == "did you mean \"strict\"?")
        let numbers: [(String, LuaValue)] = [
            ("type", .string("enum")), ("values", .list([.integer(301), .integer(308)])),
        ]
        #expect(try judge(numbers, .integer(308)) == .integer(308))
        #expect(throws: Judgement.self) { try judge(numbers, .integer(302)) }
        #expect(throws: Judgement.self) { try judge(numbers, .string("308")) }
    }

    @Test func defaultsRequiredAndUnknown() throws {
        let schema = try schema(
            field("header", [("type", .string("string")), ("default", .string("x-canary"))]),
            field("canary", [("type", .string("backend")), ("required", .bool(true))]),
            field("value", [("type", .string("string"))]))
        let config = try schema.judge(.map([.init("canary", .string("web:80"))]))
        #expect(config["header"] == .string("x-canary"))
        #expect(config["value"] == nil)
        #expect(config.backends.map(\.text) == ["web:80"])
        let error = try #require(throws: Judgement.self) {
            try schema.judge(
                .map([.init("cnary", .string("web:80")), .init("zzz", .null), .init("header", .integer(1))]))
        }
        // Everything at once, unknown names first.
        #expect(error.findings.map(\.path) == ["args.cnary", "args.zzz", "args.header", "args.canary"])
        #expect(error.findings.map(\.mend)[0] == "did you mean \"canary\"?")
        #expect(error.findings.map(\.mend)[1] == "the arguments are header, canary, value")
        #expect(throws: Judgement.self) { try schema.judge(.list([])) }
        #expect(throws: Judgement.self) {
            try schema.judge(.map([.init("canary", .string("a:1")), .init("canary", .string("b:1"))]))
        }
    }

    @Test func recordsInMaps() throws {
        let record = LuaValue.map([
            ("weight", .map([("type", .string("number")), ("min", .integer(0)), ("required", .bool(true))])),
            ("backend", .map([("type", .string("backend"))])),
        ])
        let schema = try schema(
            field("variants", [("type", .string("map")), ("of", record), ("required", .bool(true))]))
        let config = try schema.judge(
            .map([
                .init(
                    "variants",
                    .map([
                        .init("b", .map([.init("weight", .integer(25)), .init("backend", .string("b:80"))])),
                        .init("a", .map([.init("weight", .number(0.5))])),
                    ]))
            ]))
        #expect(
            config["variants"]
                == .map([
                    .init("a", .map([.init("weight", .number(0.5))])),
                    .init("b", .map([.init("backend", .backend(0)), .init("weight", .integer(25))])),
                ]))
        let error = try #require(throws: Judgement.self) {
            try schema.judge(
                .map([
                    .init(
                        "variants", .map([.init("a", .map([.init("wieght", .integer(1))])), .init("b", .integer(1))]))
                ]))
        }
        #expect(error.findings.map(\.path) == ["args.variants.a.wieght", "args.variants.a.weight", "args.variants.b"])
    }

    @Test func listsOfShortForms() throws {
        let list: [(String, LuaValue)] = [("type", .string("list")), ("of", .string("integer"))]
        #expect(try judge(list, .list([.integer(1)])) == .list([.integer(1)]))
        let error = try #require(throws: Judgement.self) { try judge(list, .list([.integer(1), .string("a")])) }
        #expect(error.findings.first?.path == "args.x[1]")
    }

    static let malformed: [(LuaValue, String)] = [
        (.bytes([]), "config is not a table"),
        (.map([("x", .string("string"))]), "config.x is not a table"),
        (.map([("x", .map([("doc", .string("d"))]))]), "config.x has no type"),
        (.map([("x", .map([("type", .string("strin"))]))]), "unknown type"),
        (.map([("x", .map([("type", .string("string")), ("defualt", .string("a"))]))]), "unknown key"),
        (.map([("x", .map([("type", .string("integer")), ("default", .string("a"))]))]), "the default of config.x"),
        (.map([("x", .map([("type", .string("enum"))]))]), "enum without values"),
        (.map([("x", .map([("type", .string("integer")), ("min", .string("a"))]))]), "config.x.min"),
        (
            .map([("x", .map([("type", .string("integer")), ("min", .integer(5)), ("max", .integer(1))]))]),
            "config.x.min is greater than its max"
        ),
        (.map([("x", .map([("type", .string("list")), ("of", .bool(true))]))]), "config.x.of"),
        (.map([("x", .map([("type", .string("integer")), ("required", .integer(1))]))]), "config.x.required"),
        (.map([("x", .map([("type", .string("string")), ("default", .opaque)]))]), "default"),
    ]

    @Test(arguments: malformed)
    func malformedDeclarations(_ table: LuaValue, _ says: String) throws {
        let error = try #require(throws: ScriptFinding.self) { try ScriptSchema(table) }
        #expect(error.problem.contains(says), "\(error)")
        #expect(!error.mend.isEmpty)
    }

    @Test func noSchemaTakesNoArguments() throws {
        let schema = try ScriptSchema(.nil)
        #expect(try schema.judge(.map([])).root == .map([]))
        let error = try #require(throws: Judgement.self) { try schema.judge(.map([.init("a", .integer(1))])) }
        #expect(error.findings.first?.mend == "this script takes no arguments")
    }

    @Test func oneBackendStandsOnce() throws {
        let schema = try schema(field("a", [("type", .string("backend"))]), field("b", [("type", .string("backend"))]))
        let config = try schema.judge(.map([.init("a", .string("w:80")), .init("b", .string("w:80"))]))
        #expect(config.backends.count == 1)
    }
}
