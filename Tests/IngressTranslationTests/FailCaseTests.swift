import Foundation
import IngressTranslation
import KubernetesAPI
import Manifests
import Model
import Testing

/// Inputs that once broke something, or were built to: Tests/Fuzz/FailCases/FuzzManifests.
struct FailCaseTests {
    static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("Fuzz/FailCases/FuzzManifests")

    static let cases = ((try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []).sorted()

    @Test func thereAreCases() { #expect(!Self.cases.isEmpty) }

    @Test(arguments: cases)
    func isReadInBoundedTime(name: String) throws {
        let data = try Data(contentsOf: Self.folder.appendingPathComponent(name))
        let text = String(decoding: data, as: UTF8.self)
        let clock = ContinuousClock()
        let start = clock.now
        for file in ["a.yaml", "a.json"] {
            var folder = FolderMemory()
            folder.update(file, ManifestParser.parse(text, file: file))
            let contents = folder.contents()
            let first = Translator.translate(contents.objects)
            #expect(first == Translator.translate(contents.objects))
            for diagnostic in contents.diagnostics + first.diagnostics { #expect(!diagnostic.problem.contains("\n")) }
        }
        #expect(clock.now - start < .seconds(20))
    }
}
