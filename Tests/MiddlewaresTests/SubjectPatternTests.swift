import Testing

@testable import Middlewares

struct SubjectPatternTests {
    @Test(arguments: [
        ("CN=alice", "CN=alice", true), ("CN=alice", "O=Shop,CN=alice", true),
        ("CN=alice", "OU=x+CN=alice,O=Shop", true),
        ("CN=alice(,|$)", "CN=alice,O=Shop", true), ("CN=alice(,|$)", "CN=alice2", false),
        ("CN=(alice|bob)(,|$)", "O=Shop,CN=bob", true), ("CN=alice.*O=Shop", "CN=alice,O=Shop", true),
        // What stands in the value of another attribute is its owner's word.
        ("CN=alice", "CN=mallory,O=CN=alice", false), ("CN=alice(,|$)", "O=CN=alice,CN=mallory", false),
        ("CN=alice", "CN=mallory,O=x\\,CN=alice", false), ("CN=alice", "CN=mallory,O=x\\+CN=alice", false),
        ("CN=alice", "O=x\\\\,CN=alice", true), ("CN=alice", "O=x\\\\\\,CN=alice", false),
        ("CN=alice", "DCN=alice", false), ("CN=alice", "O=x\\", false), ("CN=alice|bob", "CN=bob", false),
        ("CN=", "", false), ("CN=alice", "O=x,", false), ("CN=.*|", "", true),
        ("CN=alice", "CN=mallory,CN=alice", true),
    ])
    func aMatchBeginsWhereAnAttributeBegins(pattern: String, subject: String, isFound: Bool) throws {
        #expect(try SubjectPattern(pattern).isFound(in: Array(subject.utf8)) == isFound)
    }

    @Test func whatWouldTakeTooLongIsNotFound() throws {
        let pattern = try SubjectPattern("CN=(a*)*b")
        #expect(!pattern.isFound(in: Array(("CN=" + String(repeating: "a", count: 4000)).utf8)))
        // Nor is it looked for once for each attribute.
        let dear = "CN=" + String(repeating: "a", count: 4000)
        #expect(!pattern.isFound(in: Array((dear + ",CN=b").utf8)))
        let many = String(repeating: "O=x,", count: 64)
        #expect(try SubjectPattern("CN=b").isFound(in: Array((many.dropLast(4) + "CN=b").utf8)))
        #expect(try !SubjectPattern("CN=b").isFound(in: Array((many + "CN=b").utf8)))
    }
}
