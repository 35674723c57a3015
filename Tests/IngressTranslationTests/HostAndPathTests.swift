import KubernetesAPI
import Model
import Testing

@testable import IngressTranslation

struct HostAndPathTests {
    @Test(
        arguments: [
            (nil, HostPattern.any), ("", .any), ("shop.test", .exact("shop.test")), ("Shop.TEST.", .exact("shop.test")),
            ("*.shop.test", .wildcard("shop.test")), ("*.Test", .wildcard("test")), ("localhost", .exact("localhost")),
            ("a_b.test", .exact("a_b.test")), ("xn--bcher-kva.test", .exact("xn--bcher-kva.test")),
            ("1.2", .exact("1.2")),
        ] as [(String?, HostPattern)])
    func readsHosts(text: String?, pattern: HostPattern) throws {
        #expect(try HostSyntax.pattern(text) == pattern)
    }

    @Test(arguments: [
        "*", "*.", "a.*.test", "*a.test", "**.test", "*.*.test", "shop.test:80", "shop.test/", "http://shop.test",
        "a b", "a..b",
        ".a", "-a.test", "a-.test", "1.2.3.4", "::1", "[::1]", "bücher.test", "a\n", "a\0b", "a;b", "{a}", "#", "$host",
        "~^a",
        ".", "a%2eb", String(repeating: "a", count: 64), String(repeating: "a.", count: 127) + "aa",
    ])
    func refusesHosts(text: String) {
        #expect(throws: FieldProblem.self) { try HostSyntax.pattern(text) }
    }

    @Test(
        arguments: [
            (nil, PathType.prefix, PathPattern.prefix("/")), ("", .prefix, .prefix("/")), ("/a", nil, .prefix("/a")),
            ("/a/", .prefix, .prefix("/a/")), ("/a", .exact, .exact("/a")),
            ("/a", .implementationSpecific, .prefix("/a")),
            ("/a%20b", .exact, .exact("/a%20b")), ("/a;b=c", .prefix, .prefix("/a;b=c")),
            ("/.well-known", .prefix, .prefix("/.well-known")),
            ("/a..b", .prefix, .prefix("/a..b")), ("/é", .prefix, .prefix("/%C3%A9")),
            // As requests are matched.
            ("/%41", .exact, .exact("/A")), ("/caf%c3%a9", .prefix, .prefix("/caf%C3%A9")),
            ("/%7euser/%2D", .prefix, .prefix("/~user/-")), ("/%20", .prefix, .prefix("/%20")),
        ] as [(String?, PathType?, PathPattern)])
    func readsPaths(text: String?, type: PathType?, pattern: PathPattern) throws {
        #expect(try PathSyntax.pattern(text, type) == pattern)
    }

    @Test(arguments: [
        "a", "*", "/a b", "/a\n", "/a\0", "/a?b", "/a#b", "/a\\b", "//", "/a//b", "/./a", "/a/..", "/..", "/a/.", "/%",
        "/%2",
        "/%zz", "/%2e%2E/a", "/%c0%af", "/..;a", "/%2f", "/%2F", "/%5c", "/%00", "/\u{7f}",
        "/" + String(repeating: "a", count: 4_096),
    ])
    func refusesPaths(text: String) {
        #expect(throws: FieldProblem.self) { try PathSyntax.pattern(text, .prefix) }
        #expect(throws: FieldProblem.self) { try PathSyntax.pattern(text, .exact) }
    }
}
