import Foundation
import KubernetesAPI
import Manifests
import Model
import Synchronization
import Testing

/// Collects what a source reports, and waits for it with a bound.
private final class Inbox: Sendable {
    private let contents = Mutex<[FolderContents]>([])
    private let arrived = DispatchSemaphore(value: 0)

    func put(_ new: FolderContents) {
        contents.withLock { $0.append(new) }
        arrived.signal()
    }

    var all: [FolderContents] { contents.withLock { $0 } }

    /// The first report for which `condition` holds, and how long it took.
    func wait(
        seconds: Double = 10, _ condition: (FolderContents) -> Bool
    ) -> (contents: FolderContents, took: Duration)? {
        let clock = ContinuousClock()
        let start = clock.now
        let deadline = DispatchTime.now() + seconds
        var seen = 0
        while true {
            let now = all
            if let hit = now[seen...].first(where: condition) { return (hit, clock.now - start) }
            seen = now.count
            if arrived.wait(timeout: deadline) == .timedOut { return nil }
        }
    }
}

/// One after the other: they measure time.
@Suite(.serialized) struct FolderSourceTests {
    @Test func anEditIsLiveAtOnce() throws {
        let folder = try TemporaryFolder()
        try folder.write(configMap("a", "one"), to: "a.yaml")
        let inbox = Inbox()
        let source = try FolderSource(root: folder.path) { inbox.put($0) }
        #expect(source.initial.value("a") == "one")
        source.start()
        defer { source.stop() }
        // In place, by rename, into a new folder, by removal: as people and editors do it.
        try folder.write(configMap("a", "two"), to: "a.yaml")
        let plain = try #require(inbox.wait { $0.value("a") == "two" })
        try folder.write(configMap("a", "three"), to: "a.yaml", atomically: true)
        let atomic = try #require(inbox.wait { $0.value("a") == "three" })
        try folder.write(configMap("b"), to: "new/deep/b.yaml")
        let deep = try #require(inbox.wait { $0.value("b") == "v" })
        try folder.write(configMap("b", "w"), to: "new/deep/b.yaml")
        let deeper = try #require(inbox.wait { $0.value("b") == "w" })
        try folder.remove("new")
        let removed = try #require(inbox.wait { $0.value("b") == nil && $0.value("a") == "three" })
        // The promise is 200 ms; a machine that is busy with other tests gets more.
        for took in [plain.took, atomic.took, deep.took, deeper.took, removed.took] { #expect(took < .seconds(20)) }
    }

    @Test func aSwapOfLinksIsOneChange() throws {
        let folder = try TemporaryFolder()
        for (version, value) in [("..1", "one"), ("..2", "two")] {
            try folder.write(configMap("a", value), to: "\(version)/a.yaml")
            try folder.write(configMap("b", value), to: "\(version)/b.yaml")
        }
        try folder.link("..data", to: "..1")
        try folder.link("a.yaml", to: "..data/a.yaml")
        try folder.link("b.yaml", to: "..data/b.yaml")
        let inbox = Inbox()
        let source = try FolderSource(root: folder.path) { inbox.put($0) }
        source.start()
        defer { source.stop() }
        try folder.link("..data_tmp", to: "..2")
        try folder.rename("..data_tmp", to: "..data")
        _ = try #require(inbox.wait { $0.value("a") == "two" })
        for contents in inbox.all { #expect(contents.value("a") == contents.value("b")) }
    }

    /// In place, by a swap of a link, by a new file: behind a link to a directory as in the folder itself.
    @Test func anEditBehindALinkIsLiveAtOnce() throws {
        let folder = try TemporaryFolder()
        try folder.write(configMap("a", "one"), to: ".v1/a.yaml")
        try folder.write(configMap("a", "new"), to: ".v2/a.yaml")
        try folder.write(configMap("b", "one"), to: ".files/b.yaml")
        try folder.link(".now", to: ".v1")
        try folder.link("shop", to: ".now/.")
        try folder.link("b.yaml", to: ".files/b.yaml")
        let inbox = Inbox()
        let source = try FolderSource(root: folder.path) { inbox.put($0) }
        #expect(source.initial.value("a") == "one" && source.initial.value("b") == "one")
        source.start()
        defer { source.stop() }
        try folder.write(configMap("b", "two"), to: ".files/b.yaml")
        let file = try #require(inbox.wait { $0.value("b") == "two" })
        try folder.write(configMap("a", "two"), to: ".v1/a.yaml")
        let edit = try #require(inbox.wait { $0.value("a") == "two" })
        // Half of it is not the whole here either.
        let handle = try #require(FileHandle(forWritingAtPath: "\(folder.path)/.v1/a.yaml"))
        try handle.truncate(atOffset: 0)
        try handle.write(contentsOf: Data(configMap("a", "three").utf8))
        try folder.write(configMap("c"), to: "shop/c.yaml")
        try handle.write(contentsOf: Data(("---\n" + configMap("d")).utf8))
        try handle.close()
        let whole = try #require(inbox.wait { $0.value("c") == "v" && $0.value("a") == "three" })
        #expect(whole.contents.value("d") == "v")
        for contents in inbox.all { #expect((contents.value("a") == "three") == (contents.value("d") == "v")) }
        try folder.link(".next", to: ".v2")
        try folder.rename(".next", to: ".now")
        let swap = try #require(inbox.wait { $0.value("a") == "new" })
        for took in [file.took, edit.took, whole.took, swap.took] { #expect(took < .seconds(20)) }
    }

    /// The way to the folder leads through a link, as where git-sync puts what it has fetched.
    @Test func aSwapAboveTheFolderIsLiveAtOnce() throws {
        let above = try TemporaryFolder()
        try above.write(configMap("a", "one"), to: "v1/m/a.yaml")
        try above.write(configMap("a", "two"), to: "v2/m/a.yaml")
        try above.link("current", to: "v1")
        let inbox = Inbox()
        let source = try FolderSource(root: "\(above.path)/current/m") { inbox.put($0) }
        source.start()
        defer { source.stop() }
        try above.link("next", to: "v2")
        try above.rename("next", to: "current")
        #expect(try #require(inbox.wait { $0.value("a") == "two" }).took < .seconds(20))
    }

    @Test func aFolderThatIsMovedAwayIsNotCalledUnwatchable() throws {
        let above = try TemporaryFolder()
        try above.write(configMap("a", "one"), to: "in/m/a.yaml")
        let inbox = Inbox()
        let source = try FolderSource(root: "\(above.path)/in/m") { inbox.put($0) }
        source.start()
        defer { source.stop() }
        try above.rename("in/m", to: "elsewhere")
        let gone = try #require(inbox.wait { !$0.diagnostics.isEmpty })
        #expect(gone.contents.diagnostics.map(\.code) == ["MG112"])
        #expect(gone.contents.value("a") == "one")
        // Together with what it lay in, and back.
        try above.rename("in", to: "other")
        try above.write(configMap("a", "two"), to: "in/m/a.yaml")
        let back = try #require(inbox.wait { $0.value("a") == "two" })
        #expect(back.contents.diagnostics.isEmpty)
        try above.write(configMap("a", "three"), to: "in/m/a.yaml")
        #expect(try #require(inbox.wait { $0.value("a") == "three" }).took < .seconds(20))
        #expect(!inbox.all.flatMap(\.diagnostics).contains { $0.code == "MG113" })
    }

    @Test func aBrokenFileKeepsItsLastGoodState() throws {
        let folder = try TemporaryFolder()
        try folder.write(configMap("a", "one"), to: "a.yaml")
        let inbox = Inbox()
        let source = try FolderSource(root: folder.path) { inbox.put($0) }
        source.start()
        defer { source.stop() }
        try folder.write("apiVersion: [", to: "a.yaml")
        let broken = try #require(inbox.wait { !$0.diagnostics.isEmpty })
        #expect(broken.contents.value("a") == "one")
        #expect(broken.contents.diagnostics.map(\.code) == ["MG101", "MG109"])
        try folder.write(configMap("a", "two"), to: "a.yaml")
        let mended = try #require(inbox.wait { $0.diagnostics.isEmpty })
        #expect(mended.contents.value("a") == "two")
    }

    @Test func aFileIsNotReadWhileItIsBeingWritten() throws {
        let folder = try TemporaryFolder()
        try folder.write(configMap("a", "one") + "---\n" + configMap("b", "one"), to: "a.yaml")
        let inbox = Inbox()
        let source = try FolderSource(root: folder.path) { inbox.put($0) }
        source.start()
        defer { source.stop() }
        let handle = try #require(FileHandle(forWritingAtPath: "\(folder.path)/a.yaml"))
        try handle.truncate(atOffset: 0)
        try handle.write(contentsOf: Data((configMap("a", "two") + "---\n").utf8))
        // Another file closes meanwhile; the half-written one must hold both back, or be whole.
        try folder.write(configMap("c"), to: "c.yaml")
        try handle.write(contentsOf: Data(configMap("b", "two").utf8))
        try handle.close()
        _ = try #require(inbox.wait { $0.value("a") == "two" })
        for contents in inbox.all { #expect(contents.value("a") == contents.value("b")) }
    }

    /// Someone writes slowly, or never closes: what the file last held stays, and the others go on.
    @Test func aFileThatIsWrittenForLongStaysAsItWas() throws {
        let folder = try TemporaryFolder()
        try folder.write(configMap("a", "one") + "---\n" + configMap("b", "one"), to: "a.yaml")
        var timing = FolderSource.Timing()
        timing.writerMilliseconds = 50
        let inbox = Inbox()
        let source = try FolderSource(root: folder.path, timing: timing) { inbox.put($0) }
        source.start()
        defer { source.stop() }
        let handle = try #require(FileHandle(forWritingAtPath: "\(folder.path)/a.yaml"))
        try handle.truncate(atOffset: 0)
        try handle.write(contentsOf: Data((configMap("a", "two") + "---\n").utf8))
        try folder.write(configMap("c"), to: "c.yaml")
        let meanwhile = try #require(inbox.wait { $0.value("c") == "v" }).contents
        #expect(meanwhile.value("a") == "one")
        #expect(meanwhile.value("b") == "one")
        #expect(meanwhile.diagnostics.map(\.code) == ["MG114"])
        try handle.write(contentsOf: Data(configMap("b", "two").utf8))
        try folder.write(configMap("c", "w"), to: "c.yaml")
        #expect(try #require(inbox.wait { $0.value("c") == "w" }).contents.value("a") == "one")
        try handle.close()
        let whole = try #require(inbox.wait { $0.value("a") == "two" }).contents
        #expect(whole.value("b") == "two")
        #expect(whole.diagnostics.isEmpty)
        for contents in inbox.all { #expect(contents.value("a") == contents.value("b")) }
    }

    @Test func aFileThatIsEmptiedKeepsWhatItHeld() throws {
        let folder = try TemporaryFolder()
        try folder.write(configMap("a", "one"), to: "a.yaml")
        var reader = FolderReader(root: folder.path)
        _ = try reader.load()
        try folder.write("", to: "a.yaml")
        let emptied = try reader.load(dirty: ["a.yaml"])
        #expect(emptied.value("a") == "one")
        #expect(emptied.diagnostics.map(\.code).contains("MG115"))
        try folder.write("# nothing any more\n", to: "a.yaml")
        #expect(try reader.load(dirty: ["a.yaml"]).value("a") == nil)
    }

    @Test func scriptsAreWatchedToo() throws {
        let folder = try TemporaryFolder()
        try folder.write("return 1", to: "s/a.lua")
        let inbox = Inbox()
        let source = try FolderSource(root: folder.path) { inbox.put($0) }
        source.start()
        defer { source.stop() }
        try folder.write("return {}", to: "s/a.lua")
        #expect(inbox.wait { $0.objects.scriptFiles["s/a.lua"] == .source("return {}") } != nil)
    }

    @Test func whatDoesNotChangeIsNotReported() throws {
        let folder = try TemporaryFolder()
        try folder.write(configMap("a"), to: "a.yaml")
        let inbox = Inbox()
        let source = try FolderSource(root: folder.path) { inbox.put($0) }
        source.start()
        try folder.write(configMap("a"), to: "a.yaml")
        try folder.write("x", to: "notes.txt")
        try folder.write(configMap("b"), to: "b.yaml")
        #expect(inbox.wait { $0.value("b") == "v" } != nil)
        source.stop()
        #expect(inbox.all.count == 1)
        source.stop()
    }
}
