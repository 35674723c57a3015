import KubernetesAPI
import Manifests
import Model
import Testing

struct FolderContentsTests {
    private func map(_ name: String, _ value: String) -> String {
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: \(name)}\ndata: {k: \(value)}\n"
    }
    private func value(_ contents: FolderContents, _ name: String) -> String? {
        contents.objects.configMaps[ObjectName(namespace: "default", name: name)]?.data["k"]
    }
    private func update(_ memory: inout FolderMemory, _ path: String, _ text: String) {
        memory.update(path, ManifestParser.parse(text, file: path))
    }

    @Test func theFirstOfTwoCounts() throws {
        var memory = FolderMemory()
        update(&memory, "b.yaml", map("a", "second"))
        update(&memory, "a.yaml", map("a", "first") + "---\n" + map("a", "third"))
        let contents = memory.contents()
        #expect(value(contents, "a") == "first")
        #expect(contents.diagnostics.map(\.code) == ["MG105", "MG105"])
        #expect(contents.diagnostics.map(\.place.file) == ["a.yaml", "b.yaml"])
        #expect(contents.diagnostics.allSatisfy { $0.problem.contains("a.yaml:1") })
    }

    @Test func aFaultyFileKeepsWhatItHeld() {
        var memory = FolderMemory()
        update(&memory, "a.yaml", map("a", "one") + "---\n" + map("b", "one") + "---\n" + map("c", "one"))
        update(&memory, "a.yaml", map("a", "two") + "---\nkind: [\n---\n" + map("c", "two"))
        var contents = memory.contents()
        #expect(value(contents, "a") == "two")
        #expect(value(contents, "b") == "one")
        #expect(value(contents, "c") == "two")
        #expect(contents.diagnostics.map(\.code) == ["MG101", "MG109"])
        #expect(contents.diagnostics.last?.problem.contains("ConfigMap default/b") == true)
        // Faulty again and again: still kept.
        update(&memory, "a.yaml", "\"")
        contents = memory.contents()
        #expect(value(contents, "a") == "two" && value(contents, "b") == "one" && value(contents, "c") == "two")
        // In order again: what it does not hold is gone.
        update(&memory, "a.yaml", map("a", "three"))
        contents = memory.contents()
        #expect(value(contents, "a") == "three")
        #expect(value(contents, "b") == nil && value(contents, "c") == nil)
        #expect(contents.diagnostics.isEmpty)
    }

    @Test func whatIsKeptGivesWayToWhatIsThere() {
        var memory = FolderMemory()
        update(&memory, "a.yaml", map("a", "old"))
        update(&memory, "a.yaml", "kind: [")
        update(&memory, "z.yaml", map("a", "new"))
        let contents = memory.contents()
        #expect(value(contents, "a") == "new")
        #expect(contents.diagnostics.map(\.code) == ["MG101"])
    }

    @Test func aDeletedFileTakesItsObjectsAlong() {
        var memory = FolderMemory()
        update(&memory, "a.yaml", map("a", "one"))
        update(&memory, "a.yaml", "kind: [")
        memory.remove("a.yaml")
        #expect(memory.contents() == FolderContents())
    }
}
