// Manifests to snapshot: whatever the text, it is read in bounded time, nothing traps, the same text gives the same answer,
// every index of the snapshot points somewhere, what is served was written, and no message has a second line.

import Foundation
import FuzzKit
import IngressTranslation
import KubernetesAPI
import Manifests
import Model

/// The sections of the golden files.
func seeds() -> [[UInt8]] {
    let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("Golden")
    let names = ((try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []).sorted()
    var seeds: [[UInt8]] = []
    for name in names {
        guard let text = try? String(contentsOf: folder.appendingPathComponent(name), encoding: .utf8) else { continue }
        var section = ""
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            if line.hasPrefix("-- ") {
                if section.contains("kind:") { seeds.append(Array(section.utf8)) }
                section = ""
            } else {
                section += line + "\n"
            }
        }
    }
    return seeds
}

let dictionary = [
    "\n", "---\n", "...\n", "- ", ": ", "{", "}", "[", "]", "\"", "'", "|\n", ">\n", "&a ", "*a", "<<: *a", "!!str ",
    "!!int ", "? ",
    "#", "\t", "\0", "%", "@", "`", "~", "null", "true", "on", "0x1f", "1e999", "-1", "99999999999999999999",
    "\u{feff}", "é",
    "\u{2028}", "apiVersion: v1", "kind: List", "items:", "metadata:", "annotations:", "moongate.dev/scripts: ",
    "script: ", "args: ",
    "moongate.dev/script-inline: ", "host: \"*.a.test\"", "path: ", "pathType: Exact", "defaultBackend: ", "number: 80",
    "/a/../b", "%2f",
]

func check(_ bytes: [UInt8]) -> String? {
    guard let text = String(validating: bytes, as: UTF8.self) else { return nil }
    var options = TranslationOptions()
    options.watchIngressWithoutClass = true
    options.catalog.plugins["ab-split"] = .init(main: "return {}")
    for file in ["a.yaml", "a.json"] {
        let parsed = ManifestParser.parse(text, file: file)
        guard parsed == ManifestParser.parse(text, file: file) else { return "\(file) is not read the same twice" }
        var folder = FolderMemory()
        folder.update(file, parsed)
        let contents = folder.contents()
        var memory = TranslationMemory()
        let translation = Translator.translate(contents.objects, options: options, memory: &memory)
        guard translation == Translator.translate(contents.objects, options: options, memory: &memory) else {
            return "not translated the same twice"
        }
        if let wrong = problem(of: translation.snapshot, text) { return wrong }
        for diagnostic in parsed.diagnostics + contents.diagnostics + translation.diagnostics {
            for line in [diagnostic.problem, diagnostic.mend, diagnostic.place.description] where line.contains("\n") {
                return "a message of two lines: \(diagnostic)"
            }
        }
    }
    return nil
}

func problem(of snapshot: Snapshot, _ text: String) -> String? {
    for host in snapshot.hosts {
        guard host.routes.allSatisfy(snapshot.routes.indices.contains) else { return "a host's route points nowhere" }
        guard host.routes.allSatisfy({ snapshot.routes[$0].host == host.pattern }) else {
            return "a route under another host"
        }
    }
    guard Set(snapshot.hosts.map(\.pattern)).count == snapshot.hosts.count else { return "a host stands twice" }
    guard snapshot.hosts.flatMap(\.routes).sorted() == Array(snapshot.routes.indices) else {
        return "a route without a host"
    }
    guard Set(snapshot.upstreams.map(\.name)).count == snapshot.upstreams.count else {
        return "an upstream stands twice"
    }
    for route in snapshot.routes {
        if let upstream = route.upstream, !snapshot.upstreams.indices.contains(upstream) {
            return "an upstream points nowhere"
        }
        guard route.path.path.hasPrefix("/"), !route.path.path.utf8.contains(where: { $0 <= 0x20 || $0 == 0x7f }) else {
            return "a path that no request has: \(route.path)"
        }
        for binding in route.scripts {
            if let script = binding.script, !snapshot.scripts.indices.contains(script) {
                return "a script points nowhere"
            }
            guard (0...100).contains(binding.percent) else { return "a share of \(binding.percent)" }
        }
    }
    return nil
}

let fuzzer = Fuzzer(name: "FuzzManifests", seeds: seeds(), dictionary: dictionary)
exit(fuzzer.run(CommandLine.arguments, check: check))
