import KubernetesAPI
import Testing

struct YAMLReaderTests {
    @Test(arguments: [
        ("a", PlacedValue.Content.string("a"), PlacedValue.Content.string("a")),
        ("\"1\"", .string("1"), .string("1")), ("'true'", .string("true"), .string("true")),
        ("12", .integer(12), .integer(12)), ("-3", .integer(-3), .integer(-3)), ("0x1f", .integer(31), .integer(31)),
        ("0o17", .integer(15), .integer(15)), ("017", .integer(15), .integer(17)), ("1.5", .number(1.5), .number(1.5)),
        ("1e3", .number(1_000), .number(1_000)), (".", .string("."), .string(".")),
        ("1.2.3", .string("1.2.3"), .string("1.2.3")), ("1-2", .string("1-2"), .string("1-2")),
        ("+-1", .string("+-1"), .string("+-1")), ("0x-1", .string("0x-1"), .string("0x-1")),
        ("true", .bool(true), .bool(true)), ("on", .bool(true), .string("on")), ("off", .bool(false), .string("off")),
        ("yes", .bool(true), .string("yes")), ("No", .bool(false), .string("No")), ("~", .null, .null),
        ("null", .null, .null), ("5%", .string("5%"), .string("5%")), ("2ms", .string("2ms"), .string("2ms")),
        ("web:80", .string("web:80"), .string("web:80")), ("inf", .string("inf"), .string("inf")),
        ("!!str 5", .string("5"), .string("5")), ("! 5", .string("5"), .string("5")),
        ("2026-01-02T03:04:05Z", .string("2026-01-02T03:04:05Z"), .string("2026-01-02T03:04:05Z")),
    ])
    func readsScalars(text: String, kubernetes: PlacedValue.Content, core: PlacedValue.Content) throws {
        #expect(try YAMLReader.read("v: " + text)?["v"]?.content == kubernetes)
        #expect(try YAMLReader.read("v: " + text, schema: .core)?["v"]?.content == core)
    }

    @Test func placesKeysAndValues() throws {
        let value = try #require(try YAMLReader.read("a:\n  - b: 1\n    c: |\n      x\n", firstLine: 40))
        #expect(value.position(of: FieldPath([.key("a"), .index(0), .key("c")])) == TextPosition(line: 42, column: 5))
        #expect(value["a"]?[0]?["c"]?.string == "x\n")
        #expect(value.position(of: FieldPath([.key("a"), .index(0), .key("none")])).line == 41)
    }

    @Test func mergesMaps() throws {
        let text = "base: &b {x: 1, y: 2}\none: {<<: *b, y: 3}\nmany:\n  <<: [{x: 9}, *b]\n"
        let value = try #require(try YAMLReader.read(text))
        #expect(value["one"]?["x"]?.content == .integer(1))
        #expect(value["one"]?["y"]?.content == .integer(3))
        #expect(value["one"]?.entries?.count == 2)
        #expect(value["many"]?["x"]?.content == .integer(9))
        #expect(value["many"]?["y"]?.content == .integer(2))
    }

    @Test(arguments: [
        "a: [1", "a: b: c", "\ta: 1", "a: 1\na: 2", "a: *none", "a: !!binary aGk=", "a: !foo x", "? [1]\n: 2",
        "a: \"\\x\"",
        "<<: 3", "{a: 1}}", "%", "@a", "a: 1\n b: 2",
    ])
    func refuses(text: String) {
        #expect(throws: FieldFault.self) { try YAMLReader.read(text) }
    }

    @Test func emptyIsNothing() throws {
        #expect(try YAMLReader.read("# only a comment\n") == nil)
        #expect(try YAMLReader.read("") == nil)
    }

    @Test func cutsStreamsAtTheirMarkers() {
        let text =
            "\u{feff}# head\n---\na: 1\n--- # note\n---\nb: |\n  ---\n  text\n...\n%YAML 1.2\n---\nc: 3\r\n---\r\nd: 4\n--- {e: 5}\n"
        let documents = YAMLReader.split(text)
        #expect(documents.map(\.firstLine) == [2, 5, 11, 13, 15])
        #expect(documents.first?.text.contains("a: 1") == true)
        #expect(documents.dropFirst().first?.text.contains("  ---\n  text") == true)
        #expect(documents.last?.text.hasPrefix("    {e: 5}\n") == true)
    }

    @Test func aFaultCostsOneDocumentOnly() throws {
        let documents = YAMLReader.split("a: 1\n---\nb: [1\n---\nc: 3\n")
        #expect(documents.count == 3)
        #expect(try YAMLReader.read(documents[0].text)?["a"]?.content == .integer(1))
        #expect {
            try YAMLReader.read(documents[1].text, firstLine: documents[1].firstLine)
        } throws: { error in
            ((error as? FieldFault)?.position.line ?? 0) >= 3
        }
        #expect(try YAMLReader.read(documents[2].text, firstLine: documents[2].firstLine)?["c"]?.position.line == 5)
    }

    @Test func aliasesOfListsCannotMakeMuchOfLittle() {
        // Four million values were allowed to a text of any length once.
        let list = "[\(Array(repeating: "x", count: 60).joined(separator: ","))]"
        let text = "a: &a \(list)\nb: [\(Array(repeating: "*a", count: 200).joined(separator: ","))]\n"
        #expect(throws: FieldFault.self) { try YAMLReader.read(text) }
        // What people write with aliases stays possible.
        #expect((try? YAMLReader.read("a: &a \(list)\nb: *a\nc: *a\nd: *a\n")) != nil)
    }

    @Test func aliasesCannotExplode() {
        var bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
        for level in 1...9 {
            let alias = "*a\(level - 1)"
            bomb += "a\(level): &a\(level) [\(Array(repeating: alias, count: 9).joined(separator: ","))]\n"
        }
        #expect(throws: FieldFault.self) { try YAMLReader.read(bomb, limits: .annotation) }
        // As a key it would be hashed by the parser itself, before anything can be counted.
        #expect(throws: FieldFault.self) { try YAMLReader.read(bomb + "? *a9\n: 1\n") }
        #expect(throws: FieldFault.self) { try YAMLReader.read(bomb + "[*a9]: 1\n") }
        #expect(throws: FieldFault.self) { try YAMLReader.read(bomb + "*a9 : 1\n") }
        #expect(throws: FieldFault.self) { try YAMLReader.read(bomb + "z: {*a9 : 1}\n") }
    }

    @Test func nestingIsBounded() {
        for depth in [200, 5_000, 200_000] {
            #expect(throws: FieldFault.self) { try YAMLReader.read(String(repeating: "[", count: depth)) }
            #expect(throws: FieldFault.self) {
                try YAMLReader.read(String(repeating: "[", count: depth) + String(repeating: "]", count: depth))
            }
            #expect(throws: FieldFault.self) { try YAMLReader.read(String(repeating: "- ", count: depth) + "a") }
            #expect(throws: FieldFault.self) { try YAMLReader.read(String(repeating: "{a: ", count: depth)) }
        }
    }

    @Test func readsJSONToo() throws {
        #expect(try YAMLReader.read("{\"a\": [1, \"x\", null, true]}")?["a"]?.items?.count == 4)
    }
}
