import KubernetesAPI
import Testing

struct JSONReaderTests {
    @Test func keepsLinesAndColumns() throws {
        let value = try JSONReader.read("{\n  \"a\": [1, {\"b\": true}],\n  \"c\": null\n}")
        #expect(value["a"]?.position == TextPosition(line: 2, column: 8))
        #expect(value["a"]?[1]?["b"]?.position == TextPosition(line: 2, column: 18))
        #expect(value.entries?.map(\.keyPosition.line) == [2, 3])
        let path = FieldPath([.key("a"), .index(1), .key("b")])
        #expect(value.position(of: path) == TextPosition(line: 2, column: 13))
        #expect(path.description == "a[1].b")
    }

    @Test(arguments: [
        ("0", PlacedValue.Content.integer(0)), ("-12", .integer(-12)), ("9223372036854775807", .integer(.max)),
        ("9223372036854775808", .number(9223372036854775808)), ("1.5", .number(1.5)), ("1e3", .number(1_000)),
        ("true", .bool(true)), ("false", .bool(false)), ("null", .null), ("\"\"", .string("")),
        ("\"a\\n\\u0041\\ud83d\\ude00\\/\"", .string("a\nA😀/")), ("\"é\"", .string("é")), ("[]", .list([])),
        (" {} ", .map([])),
    ])
    func reads(text: String, content: PlacedValue.Content) throws {
        #expect(try JSONReader.read(text).content == content)
    }

    @Test(arguments: [
        "", " ", "{", "[1", "[1,]", "{\"a\":1,}", "{a:1}", "{\"a\" 1}", "{\"a\":1 \"b\":2}", "{\"a\":1,\"a\":2}", "01",
        "1.",
        "-", "+1", ".5", "1e", "1e999", "tru", "nul", "\"", "\"\\x\"", "\"\\u12\"", "\"\\ud800\"", "\"\\ud800\\u0041\"",
        "\"\\udc00\"", "\"\n\"", "1 2", "'a'", "// c\n1", "[1] x",
    ])
    func refuses(text: String) {
        #expect(throws: FieldFault.self) { try JSONReader.read(text) }
    }

    @Test func boundsDepthValuesAndBytes() throws {
        let limits = ReadingLimits(bytes: 100, depth: 3, values: 5)
        #expect(try JSONReader.read("[[[1]]]", limits: limits).items?.count == 1)
        #expect(throws: FieldFault.self) { try JSONReader.read("[[[[1]]]]", limits: limits) }
        #expect(throws: FieldFault.self) { try JSONReader.read("[1,2,3,4,5]", limits: limits) }
        #expect(throws: FieldFault.self) { try JSONReader.read(String(repeating: " ", count: 101), limits: limits) }
        let deep = String(repeating: "[", count: 1_000_000)
        #expect(throws: FieldFault.self) { try JSONReader.read(deep) }
    }

    @Test func saysTheLineOfAFault() {
        #expect {
            try JSONReader.read("{\n\n  \"a\": x\n}", firstLine: 10)
        } throws: { error in
            (error as? FieldFault)?.position == TextPosition(line: 12, column: 8)
        }
    }
}
