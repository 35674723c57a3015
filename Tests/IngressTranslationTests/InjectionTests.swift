import Foundation
import KubernetesAPI
import Model
import Testing

@testable import IngressTranslation

/// SECURITY.md, config injection: every annotation and each host and path field is fed what has broken controllers that
/// write text configuration. Either the value is refused, or it stands in the snapshot byte for byte; never does it make a
/// second rule, host or script.
struct InjectionTests {
    static let corpus: [String] = [
        "\n", ";", "{", "}", "#", "\"", "'", "$", "\0", "%0a", "%00", "${x}", "$host", "a\nb", "a;b", "a{b}",
        "}\nserver {",
        "/ { } location /evil {", "x; proxy_pass http://evil/;", "shop.test\n- host: evil.test", "\"; return 200; \"",
        "`id`", "$(id)", "../../etc/passwd", "/etc/passwd", "/var/run/secrets", "alias /etc/;", "root /;",
        "access_by_lua_block{}",
        "- script: plugin/x", "{\"a\":1}", "[1,2]", "&a [*a]", "*a", "!!python/object:os.system", "? {}\n: {}",
        "\u{2028}",
        "\u{202e}evil", "a\u{feff}b", "é", "🌙", "--", "<script>", String(repeating: "a", count: 65_536),
        String(repeating: "[", count: 65_536), "/" + String(repeating: "a/", count: 32_768),
        String(repeating: "\n", count: 65_536),
    ]

    private let base = service("web")

    private func translate(_ ingress: String) throws -> Translation {
        let set = objects(ingress + base)
        #expect(set.ingresses.count == 1, "the manifest itself is sound")
        return Translator.translate(set)
    }

    @Test(arguments: corpus)
    func annotations(value: String) throws {
        for spec in AnnotationTable.all {
            let translation = try translate(
                ingress(annotations: [("moongate.dev/\(spec.key)", value)]))
            let snapshot = translation.snapshot
            let label = "\(spec.key): \(value.prefix(40))"
            #expect(snapshot.hosts.map(\.pattern) == [.exact("shop.test")], "\(label)")
            #expect(snapshot.routes.map(\.path) == [.prefix("/")], "\(label)")
            let route = try #require(snapshot.routes.first)
            let isSaid = translation.diagnostics.contains { $0.place.field?.contains(spec.key) == true }
            switch spec.key {
            case "script-inline":
                #expect(snapshot.scripts.map(\.main) == [value], "\(label)")
            case "scripts", "script", "script-args":
                // Refused and closed, or a list that is empty: never a script that runs.
                #expect(snapshot.scripts.isEmpty, "\(label)")
                #expect(isSaid || route.scripts.isEmpty, "\(label)")
                if isSaid { #expect(route.scripts.allSatisfy { $0.script == nil }, "\(label)") }
            default:
                #expect(isSaid, "\(label)")
                // Nothing of it, or what is strictest.
                var strictest = RoutePolicy()
                if spec.key == "max-body-size" { strictest.maxBodyBytes = 1 << 20 }
                #expect(route.policy == strictest, "\(label)")
                #expect(snapshot.upstreams.allSatisfy { $0.balance == .roundRobin }, "\(label)")
            }
            for diagnostic in translation.diagnostics { checkLines(diagnostic) }
        }
    }

    /// A place names the annotation as it was written.
    private func withoutPlaces(_ snapshot: Snapshot) -> Snapshot {
        var snapshot = snapshot
        for index in snapshot.hosts.indices { snapshot.hosts[index].clientAuthentication?.place = Place() }
        return snapshot
    }

    /// Those of ingress-nginx that are acted on are read by the same code, under their own names.
    @Test(arguments: corpus)
    func foreignAnnotations(value: String) throws {
        let prefix = TranslationOptions().foreignPrefix
        #expect(AnnotationTable.foreign.count > 10)
        for key in AnnotationTable.foreign {
            let translation = try translate(ingress(annotations: [("\(prefix)/\(key)", value)]))
            let snapshot = translation.snapshot
            let label = "\(key): \(value.prefix(40))"
            #expect(snapshot.hosts.map(\.pattern) == [.exact("shop.test")], "\(label)")
            #expect(snapshot.routes.map(\.path) == [.prefix("/")], "\(label)")
            let ours = try translate(ingress(annotations: [("moongate.dev/\(key)", value)]))
            #expect(withoutPlaces(snapshot) == withoutPlaces(ours.snapshot), "\(label)")
            #expect(translation.diagnostics.contains { $0.place.field?.contains(key) == true }, "\(label)")
            #expect(translation.diagnostics.map(\.code) == ours.diagnostics.map(\.code), "\(label)")
            for diagnostic in translation.diagnostics { checkLines(diagnostic) }
        }
    }

    @Test(arguments: corpus)
    func hosts(value: String) throws {
        for host in [value, "shop.test" + value, value + ".test", "*." + value] {
            let translation = try translate(ingress(host: host))
            #expect(translation.snapshot.hosts.count <= 1)
            if let pattern = translation.snapshot.hosts.first?.pattern {
                #expect(pattern.description == host.lowercased(), "\(host.prefix(40))")
            } else {
                #expect(translation.diagnostics.contains { $0.code == "MG122" }, "\(host.prefix(40))")
                #expect(translation.snapshot.routes.isEmpty)
            }
            for diagnostic in translation.diagnostics { checkLines(diagnostic) }
        }
    }

    @Test(arguments: corpus)
    func paths(value: String) throws {
        for path in [value, "/" + value, "/a" + value + "/b"] {
            let translation = try translate(ingress(path: path))
            #expect(translation.snapshot.routes.count <= 1)
            if let route = translation.snapshot.routes.first {
                // As it was written, in the spelling that requests are matched in.
                var spelt: [UInt8] = []
                #expect(
                    try CanonicalPath.normalise(Array(route.path.path.utf8).span, into: &spelt), "\(path.prefix(40))")
                #expect(
                    route.path.path.removingPercentEncoding == path.removingPercentEncoding, "\(path.prefix(40))")
            } else {
                #expect(translation.diagnostics.contains { $0.code == "MG123" }, "\(path.prefix(40))")
            }
            for diagnostic in translation.diagnostics { checkLines(diagnostic) }
        }
    }

    @Test(arguments: corpus)
    func services(value: String) throws {
        let translation = try translate(ingress(service: value))
        #expect(translation.snapshot.routes.map(\.upstream) == [nil])
        #expect(translation.snapshot.upstreams.isEmpty)
        #expect(translation.diagnostics.map(\.code) == ["MG130"])
        for diagnostic in translation.diagnostics { checkLines(diagnostic) }
    }

    /// A message is one line a field, and short, whatever was in the value: it goes into logs and Events.
    private func checkLines(_ diagnostic: Diagnostic) {
        for text in [diagnostic.problem, diagnostic.mend, diagnostic.place.description] {
            #expect(
                text.unicodeScalars.allSatisfy {
                    $0.value >= 0x20 && $0.value != 0x7f && $0 != "\u{2028}" && $0 != "\u{202e}"
                })
            #expect(text.utf8.count < 1_000)
        }
    }
}
