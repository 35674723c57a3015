import Foundation
import IngressTranslation
import Testing

@testable import moongate

/// Plugins and the quickstart stand in the tree as files, for readers and for their tests, and in the program as text,
/// so that one binary is enough. This keeps the two the same; `make bless` writes the second anew.
struct BundledFilesTests {
    private static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    /// A Swift literal of the text, as it stands in the made file.
    private static func literal(_ text: String, indent: Int) -> String {
        let margin = String(repeating: " ", count: indent)
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false).dropLast()
            .map { $0.isEmpty ? "" : margin + $0 }
        return "#\"\"\"\n\(lines.joined(separator: "\n"))\n\n\(margin)\"\"\"#"
    }

    private static func file(_ path: String) throws -> String {
        try String(contentsOf: root.appending(path: path), encoding: .utf8)
    }

    @Test func `the program carries exactly the files of the tree`() throws {
        let names = try FileManager.default.contentsOfDirectory(atPath: Self.root.appending(path: "plugins").path)
            .sorted()
            .filter { FileManager.default.fileExists(atPath: Self.root.appending(path: "plugins/\($0)/init.lua").path) }
        #expect(names.count >= 5)
        var text = """
            // Made from plugins/ and examples/quickstart by `make bless`; a test keeps them in step. Do not edit.

            import IngressTranslation

            extension ScriptCatalog {
                /// The plugins that every Moongate knows as `plugin/NAME`.
                static let bundled = ScriptCatalog(plugins: [

            """
        for name in names {
            text +=
                "        \"\(name)\": Plugin(\n            main: "
                + Self.literal(try Self.file("plugins/\(name)/init.lua"), indent: 16) + "),\n"
        }
        text +=
            "    ])\n}\n\n/// What `moongate demo` serves where there is no examples/quickstart.\nenum Quickstart {\n"
        for (name, path) in [("ingress", "ingress.yaml"), ("services", "services.yaml")] {
            text +=
                "    static let \(name) = "
                + Self.literal(try Self.file("examples/quickstart/\(path)"), indent: 8) + "\n"
        }
        text += "}\n"
        let file = Self.root.appending(path: "Sources/moongate/BundledFiles.swift")
        if ProcessInfo.processInfo.environment["MOONGATE_BLESS"] == "1" {
            try text.write(to: file, atomically: true, encoding: .utf8)
        }
        #expect(try Self.file("Sources/moongate/BundledFiles.swift") == text)
        for name in names {
            #expect(try ScriptCatalog.bundled.plugins[name]?.main == Self.file("plugins/\(name)/init.lua"))
        }
        #expect(try Quickstart.ingress == Self.file("examples/quickstart/ingress.yaml"))
        #expect(try Quickstart.services == Self.file("examples/quickstart/services.yaml"))
    }
}
