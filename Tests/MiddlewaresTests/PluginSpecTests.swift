import Foundation
import Middlewares
import Model
import Testing

/// The specs of the bundled plugins, run as `moongate test plugins/NAME` runs them.
@Suite struct PluginSpecTests {
    static let plugins: URL = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appending(path: "plugins")

    static let names: [String] =
        ((try? FileManager.default.contentsOfDirectory(atPath: plugins.path)) ?? [])
        .filter { FileManager.default.fileExists(atPath: plugins.appending(path: "\($0)/spec.lua").path) }.sorted()

    @Test func theBundledOnesAreThere() {
        #expect(Set(Self.names).isSuperset(of: ["header-canary", "cookie-canary", "ab-split", "rewrite", "redirect"]))
    }

    @Test(arguments: names)
    func spec(_ name: String) throws {
        let folder = Self.plugins.appending(path: name)
        let source = try String(contentsOf: folder.appending(path: "spec.lua"), encoding: .utf8)
        let runner = SpecRunner { file in
            guard let text = try? String(contentsOf: folder.appending(path: file), encoding: .utf8) else { return nil }
            return ScriptSource(name: file, namespace: "test", main: text)
        }
        let result = runner.run(file: "plugins/\(name)/spec.lua", source: source)
        #expect(result.passed, "\(SpecResult.tap([result]))")
    }
}
