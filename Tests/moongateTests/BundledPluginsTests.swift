import Foundation
import IngressTranslation
import Testing

@testable import moongate

/// The plugins stand in the tree as files, for readers and for their specs, and in the program as text, so that one
/// binary is enough. This keeps the two the same; `make bless` writes the second anew.
struct BundledPluginsTests {
    private static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    @Test func `the program carries exactly the plugins of the tree`() throws {
        let folder = Self.root.appending(path: "plugins")
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted()
        var text = """
            // Made from plugins/ by `make bless`; a test keeps the two in step. Do not edit.

            import IngressTranslation

            extension ScriptCatalog {
                /// The plugins that every Moongate knows as `plugin/NAME`.
                static let bundled = ScriptCatalog(plugins: [

            """
        var sources: [String: String] = [:]
        for name in names {
            guard let source = try? String(contentsOf: folder.appending(path: "\(name)/init.lua"), encoding: .utf8) else {
                continue
            }
            sources[name] = source
            let lines = source.split(separator: "\n", omittingEmptySubsequences: false).dropLast()
                .map { $0.allSatisfy(\.isWhitespace) ? "" : "                \($0)" }
            text += "        \"\(name)\": Plugin(\n            main: #\"\"\"\n\(lines.joined(separator: "\n"))\n\n"
                + "                \"\"\"#),\n"
        }
        text += "    ])\n}\n"
        let file = Self.root.appending(path: "Sources/moongate/BundledPlugins.swift")
        if ProcessInfo.processInfo.environment["MOONGATE_BLESS"] == "1" {
            try text.write(to: file, atomically: true, encoding: .utf8)
        }
        #expect(try String(contentsOf: file, encoding: .utf8) == text)
        #expect(ScriptCatalog.bundled.plugins.mapValues(\.main) == sources)
    }
}
