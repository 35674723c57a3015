import KubernetesAPI
import Testing

struct PlacedDecoderTests {
    struct Sample: Decodable, Equatable {
        struct Inner: Decodable, Equatable { var n: UInt16 }
        var name: String
        var flag: Bool?
        var share: Double?
        var inner: [Inner]?
        var map: [String: String]?
    }

    @Test func passesOverUnknownFields() throws {
        let value = try #require(try YAMLReader.read("name: a\nnew: {x: [1]}\nflag: true\nshare: 3\nmap: {k: v}"))
        #expect(
            try value.decode(Sample.self)
                == Sample(name: "a", flag: true, share: 3, inner: nil, map: ["k": "v"]))
    }

    @Test func nullIsAsGoodAsMissing() throws {
        let value = try #require(try YAMLReader.read("name: a\nflag: ~\ninner:\n"))
        #expect(try value.decode(Sample.self) == Sample(name: "a"))
    }

    @Test(arguments: [
        ("flag: true", "name", 1, "is required"), ("name: 1", "name", 1, "expected a string, found an integer"),
        ("name: a\nflag: 1", "flag", 2, "expected a boolean, found an integer"),
        ("name: a\ninner: {}", "inner", 2, "expected a list, found a map"),
        ("name: a\ninner:\n  - n: 1\n  - n: 70000", "inner[1].n", 4, "70000 is out of the range 0...65535"),
        ("name: a\ninner:\n  - n: 1.5", "inner[0].n", 3, "expected an integer, found a number"),
        ("name: a\ninner: [~]", "inner[0]", 2, "expected a map, found null"),
        ("name: a\nmap: {k: true}", "map.k", 2, "expected a string, found a boolean"),
        ("name: a\nmap: {a.b/c: 1}", "map[\"a.b/c\"]", 2, "expected a string, found an integer"),
        ("- a", "", 1, "expected a map, found a list"),
    ])
    func namesTheFieldAndItsLine(text: String, path: String, line: Int, problem: String) throws {
        let value = try #require(try YAMLReader.read(text))
        #expect {
            try value.decode(Sample.self)
        } throws: { error in
            guard let fault = error as? FieldFault else { return false }
            return fault.path.description == path && fault.position.line == line && fault.problem == problem
        }
    }

    @Test func findsKeysOfLargeMaps() throws {
        let text = (0..<1_000).map { "k\($0): v\($0)" }.joined(separator: "\n")
        let map = try #require(try YAMLReader.read(text)).decode([String: String].self)
        #expect(map.count == 1_000)
        #expect(map["k999"] == "v999")
    }
}
