import IngressTranslation
import KubernetesAPI
import Manifests
import Model
import Testing

/// One tenant's fault stays his: whatever happens to one object, what others serve does not change.
struct IsolationTests {
    private struct Random: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state &+= 0x9e37_79b9_7f4a_7c15
            var z = state
            z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
            z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
            return z ^ (z >> 31)
        }
    }

    private static let names = ["a", "b", "c", "d"]

    private static let documents: [String] = names.flatMap { name in
        [
            ingress(
                name, namespace: "ns-\(name)", host: "\(name).test", path: "/x",
                annotations: [
                    ("moongate.dev/timeout-total", "5s"),
                    ("moongate.dev/scripts", "- script: s\n  args: {k: [1, two, {x: y}]}\n"),
                ]),
            """
            ---
            apiVersion: v1
            kind: ConfigMap
            metadata: {name: s, namespace: ns-\(name)}
            data: {main.lua: "return {} -- \(name)"}

            """,
        ] + [service("web", namespace: "ns-\(name)", address: "10.0.0.1")]
    }

    /// What the Ingress of one namespace serves, written out without indices.
    private func served(_ translation: Translation, _ name: String) -> String {
        let snapshot = translation.snapshot
        var lines: [String] = []
        for host in snapshot.hosts {
            for index in host.routes where snapshot.routes[index].ingress.namespace == "ns-\(name)" {
                let route = snapshot.routes[index]
                lines.append("\(host.pattern) \(TranslationText.text(of: route, in: snapshot))")
                if let upstream = route.upstream { lines.append("\(snapshot.upstreams[upstream].endpoints)") }
                for binding in route.scripts {
                    if let script = binding.script { lines.append(snapshot.scripts[script].main) }
                }
            }
        }
        for upstream in snapshot.upstreams where upstream.namespace == "ns-\(name)" { lines.append("\(upstream)") }
        return lines.joined(separator: "\n")
    }

    private func translate(_ documents: [String]) -> Translation {
        var memory = FolderMemory()
        for (index, document) in documents.enumerated() {
            // A file each, so that a place does not move when another document grows.
            let file = "f\(index).yaml"
            memory.update(file, ManifestParser.parse(document, file: file))
        }
        return Translator.translate(memory.contents().objects)
    }

    /// One document changed at random: bytes flipped, cut out, doubled, or replaced by what breaks formats.
    private func corrupt(_ text: String, _ random: inout Random) -> String {
        var bytes = Array(text.utf8)
        let hostile = [
            "\n", "{", "}", "[", "\"", "'", "#", ":", "- ", "&a ", "*a", "!!", "\t", "\0", "%", "~", "null", "-1",
            "\u{feff}", "é",
        ]
        for _ in 0...Int.random(in: 0..<3, using: &random) {
            guard !bytes.isEmpty else { break }
            let at = Int.random(in: 0..<bytes.count, using: &random)
            switch Int.random(in: 0..<4, using: &random) {
            case 0: bytes[at] = UInt8.random(in: 0x20...0x7e, using: &random)
            case 1: bytes.removeSubrange(at..<min(bytes.count, at + Int.random(in: 1...12, using: &random)))
            case 2: bytes.insert(contentsOf: (hostile.randomElement(using: &random) ?? "x").utf8, at: at)
            default:
                let end = min(bytes.count, at + Int.random(in: 1...40, using: &random))
                bytes.insert(contentsOf: bytes[at..<end], at: at)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    @Test func oneCorruptedObjectHarmsNoOther() {
        let sound = translate(Self.documents)
        let before = Self.names.map { served(sound, $0) }
        #expect(before.allSatisfy { $0.contains("10.0.0.1") && $0.contains("return {}") })
        var random = Random(state: 42)
        var differed = 0
        for round in 0..<300 {
            let victim = round % Self.documents.count
            let owner = Self.names[victim / (Self.documents.count / Self.names.count)]
            var documents = Self.documents
            documents[victim] = corrupt(documents[victim], &random)
            // A corruption that moves the object into another tenant's namespace or host is that tenant's conflict, and
            // other tests judge it; here the object stays its owner's.
            let others = Self.names.filter { $0 != owner }
            if others.contains(where: {
                documents[victim].contains("ns-\($0)") || documents[victim].contains("\($0).test")
            }) {
                continue
            }
            let translation = translate(documents)
            for (name, text) in zip(Self.names, before) where name != owner {
                #expect(served(translation, name) == text, "\(documents[victim])")
            }
            if served(translation, owner) != before[Self.names.firstIndex(of: owner) ?? 0] { differed += 1 }
        }
        // The corruption is no show: it does harm its owner, most of the time.
        #expect(differed > 100)
    }
}
