import Foundation
import KubernetesAPI
import Manifests
import Model
import Testing

/// A folder of its own for each test, gone with it.
final class TemporaryFolder {
    let path: String

    init() throws {
        path = FileManager.default.temporaryDirectory.appendingPathComponent("moongate-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func write(_ text: String, to name: String, atomically: Bool = false) throws {
        let file = "\(path)/\(name)"
        try FileManager.default.createDirectory(
            atPath: URL(fileURLWithPath: file).deletingLastPathComponent().path, withIntermediateDirectories: true)
        try Data(text.utf8).write(to: URL(fileURLWithPath: file), options: atomically ? .atomic : [])
    }

    func link(_ name: String, to target: String) throws {
        try FileManager.default.createSymbolicLink(atPath: "\(path)/\(name)", withDestinationPath: target)
    }

    func remove(_ name: String) throws { try FileManager.default.removeItem(atPath: "\(path)/\(name)") }

    func rename(_ name: String, to other: String) throws {
        // FileManager refuses to replace; the system's rename is what editors and the kubelet use.
        // SAFETY: both paths outlive the call.
        guard unsafe Foundation.rename("\(path)/\(name)", "\(path)/\(other)") == 0 else {
            throw CocoaError(.fileWriteUnknown)
        }
    }
}

func configMap(_ name: String, _ value: String = "v") -> String {
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: \(name)}\ndata: {k: \(value)}\n"
}

extension FolderContents {
    func value(_ name: String) -> String? {
        objects.configMaps[ObjectName(namespace: "default", name: name)]?.data["k"]
    }
}

struct FolderReaderTests {
    @Test func readsTheWholeTree() throws {
        let folder = try TemporaryFolder()
        try folder.write(configMap("a"), to: "a.yaml")
        try folder.write(configMap("b"), to: "x/y/b.YML")
        try folder.write(
            #"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"k":"v"}}"#, to: "x/c.json")
        try folder.write(configMap("d"), to: "d.txt")
        try folder.write(configMap("e"), to: ".hidden.yaml")
        try folder.write(configMap("f"), to: ".git/f.yaml")
        try folder.write("return {}", to: "x/s.lua")
        var reader = FolderReader(root: folder.path)
        let contents = try reader.load()
        #expect(contents.objects.configMaps.keys.map(\.name).sorted() == ["a", "b", "c"])
        #expect(contents.objects.scriptFiles == ["x/s.lua": .source("return {}")])
        #expect(contents.diagnostics.isEmpty)
        #expect(contents.objects.origins.values.map(\.file).sorted() == ["a.yaml", "x/c.json", "x/y/b.YML"])
        #expect(reader.map.directories.values.flatMap { $0 }.sorted() == ["", "x", "x/y"])
    }

    @Test func readsOneFileAlone() throws {
        let folder = try TemporaryFolder()
        try folder.write(configMap("a"), to: "a.yaml")
        try folder.write(configMap("b"), to: "b.yaml")
        var reader = FolderReader(root: "\(folder.path)/a.yaml")
        #expect(try reader.load().objects.configMaps.keys.map(\.name) == ["a"])
    }

    @Test func aFolderThatIsNotThereIsAFault() throws {
        var reader = FolderReader(root: "/nowhere/at/all")
        #expect(throws: FolderFault.self) { try reader.load() }
    }

    @Test func aFolderThatVanishesKeepsServing() throws {
        let folder = try TemporaryFolder()
        try folder.write(configMap("a"), to: "in/a.yaml")
        var reader = FolderReader(root: "\(folder.path)/in")
        _ = try reader.load()
        try folder.remove("in")
        var contents = try reader.load()
        #expect(contents.value("a") == "v")
        #expect(contents.diagnostics.map(\.code) == ["MG112"])
        #expect(contents.diagnostics.first?.problem.contains("was moved, renamed, deleted or") == true)
        try folder.write(configMap("b"), to: "in/b.yaml")
        contents = try reader.load()
        #expect(contents.value("a") == nil && contents.value("b") == "v")
        #expect(contents.diagnostics.isEmpty)
    }

    @Test func readsAgainWhatHasChanged() throws {
        let folder = try TemporaryFolder()
        try folder.write(configMap("a", "one"), to: "a.yaml")
        try folder.write("return 1", to: "s.lua")
        var reader = FolderReader(root: folder.path)
        #expect(try reader.load().value("a") == "one")
        try folder.write(configMap("a", "longer"), to: "a.yaml")
        try folder.write("return {}", to: "s.lua")
        var contents = try reader.load()
        #expect(contents.value("a") == "longer")
        #expect(contents.objects.scriptFiles["s.lua"] == .source("return {}"))
        try folder.remove("a.yaml")
        try folder.remove("s.lua")
        contents = try reader.load()
        #expect(contents == FolderContents())
    }

    @Test func tellsWhatAnEventMeans() throws {
        let folder = try TemporaryFolder()
        try folder.write(configMap("a"), to: "..1/.shop/a.yaml")
        try folder.link(".now", to: "..1")
        try folder.link("shop", to: ".now/.shop")
        try folder.link("again", to: "..1/.shop")
        try folder.link("one.yaml", to: "shop/a.yaml")
        try folder.link("round.yaml", to: "round.yaml")
        try folder.link("out", to: "/")
        var reader = FolderReader(root: folder.path)
        #expect(try reader.load().diagnostics.map(\.code) == ["MG108", "MG105", "MG105"])
        let map = reader.map
        let real = try #require(map.directories.first { $0.value == [""] }).key
        let shop = "\(real)/..1/.shop"
        #expect(map.directories == [real: [""], shop: ["again", "shop"]])
        #expect(map.names(of: "a.yaml", in: shop) == ["one.yaml", "again/a.yaml", "shop/a.yaml"])
        #expect(map.names(of: ".a.yaml.swp", in: shop).isEmpty)
        #expect(map.names(of: ".now", in: real) == [""])
        #expect(map.names(of: "b.yaml", in: real) == ["b.yaml"])
        #expect(map.names(of: "b.yaml", in: "/elsewhere").isEmpty)
        // Whoever swaps the folder itself is seen; nothing else outside of it is.
        #expect(
            Set(map.links.keys).subtracting([real]) == [String(real[..<(real.lastIndex(of: "/") ?? real.endIndex)])])
    }

    @Test func linksOutOfTheFolderAreNotFollowed() throws {
        let outside = try TemporaryFolder()
        try outside.write(configMap("secret"), to: "o.yaml")
        try outside.write("return {}", to: "o.lua")
        try outside.write(configMap("deep"), to: "d/o.yaml")
        let folder = try TemporaryFolder()
        try folder.write(configMap("a"), to: "real/a.yaml")
        try folder.link("in.yaml", to: "real/a.yaml")
        try folder.link("out.yaml", to: "\(outside.path)/o.yaml")
        try folder.link("out.lua", to: "\(outside.path)/o.lua")
        try folder.link("outdir", to: "\(outside.path)/d")
        try folder.link("dangling.yaml", to: "nothing.yaml")
        try folder.link("loop", to: ".")
        try folder.write("x", to: "sibling-marker")
        var reader = FolderReader(root: folder.path)
        let contents = try reader.load()
        #expect(contents.objects.configMaps.keys.map(\.name) == ["a"])
        #expect(contents.objects.scriptFiles.isEmpty)
        #expect(
            contents.diagnostics.filter { $0.code == "MG108" }.map(\.place.file) == ["out.lua", "out.yaml", "outdir"])
        // The same object by its link and by its name is one too many.
        #expect(contents.diagnostics.filter { $0.code == "MG105" }.count == 1)
    }

    @Test func aMountedConfigMapIsReadThroughItsLinks() throws {
        let folder = try TemporaryFolder()
        try folder.write(configMap("a", "one"), to: "..2026_1/a.yaml")
        try folder.link("..data", to: "..2026_1")
        try folder.link("a.yaml", to: "..data/a.yaml")
        var reader = FolderReader(root: folder.path)
        #expect(try reader.load().value("a") == "one")
        try folder.write(configMap("a", "two"), to: "..2026_2/a.yaml")
        try folder.link("..data_tmp", to: "..2026_2")
        try folder.rename("..data_tmp", to: "..data")
        let contents = try reader.load()
        #expect(contents.value("a") == "two")
        #expect(contents.diagnostics.isEmpty)
    }

    @Test func whatCannotBeReadIsSaid() throws {
        let folder = try TemporaryFolder()
        try folder.write(configMap("a"), to: "a.yaml")
        try Data([0xff, 0xfe, 0x41]).write(to: URL(fileURLWithPath: "\(folder.path)/b.yaml"))
        try folder.write(String(repeating: "# long\n", count: 100), to: "c.yaml")
        try Data([0xff]).write(to: URL(fileURLWithPath: "\(folder.path)/s.lua"))
        // SAFETY: the path outlives the call.
        let made = unsafe mkfifo("\(folder.path)/pipe.yaml", 0o600)
        #expect(made == 0)
        var limits = FolderLimits()
        limits.manifestBytes = 200
        var reader = FolderReader(root: folder.path, limits: limits)
        let contents = try reader.load()
        #expect(contents.objects.configMaps.keys.map(\.name) == ["a"])
        #expect(contents.diagnostics.map(\.code) == ["MG107", "MG107"])
        #expect(contents.objects.scriptFiles == ["s.lua": .refused(reason: "the file is not UTF-8")])
    }

    @Test func linksWithinLinksEnd() throws {
        let folder = try TemporaryFolder()
        // Ten folders, each with links to the next: walked link by link they are 10¹⁰ folders.
        for level in 0..<10 { try folder.write(configMap("m\(level)"), to: "d\(level)/m.yaml") }
        for level in 0..<9 {
            for link in 0..<10 {
                try FileManager.default.createSymbolicLink(
                    atPath: "\(folder.path)/d\(level)/l\(link)", withDestinationPath: "../d\(level + 1)")
            }
        }
        var limits = FolderLimits()
        limits.directories = 100
        var reader = FolderReader(root: folder.path, limits: limits)
        let contents = try reader.load()
        #expect(contents.diagnostics.filter { $0.code == "MG111" }.count == 1)
        #expect(contents.objects.configMaps.keys.contains { $0.name == "m0" })
    }

    @Test func boundsFilesAndDepth() throws {
        let folder = try TemporaryFolder()
        for index in 0..<5 { try folder.write(configMap("m\(index)"), to: "m\(index).yaml") }
        try folder.write(configMap("deep"), to: "a/b/c/deep.yaml")
        var limits = FolderLimits()
        limits.files = 3
        limits.directoryDepth = 2
        var reader = FolderReader(root: folder.path, limits: limits)
        let contents = try reader.load()
        #expect(contents.objects.count == 3)
        #expect(contents.diagnostics.map(\.code) == ["MG111", "MG111"])
    }
}
