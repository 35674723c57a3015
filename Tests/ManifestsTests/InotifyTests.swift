import Manifests
import Testing

struct InotifyTests {
    @Test func reportsEntriesByName() throws {
        let folder = try TemporaryFolder()
        let inotify = try #require(Inotify())
        guard case .watching(let watch) = inotify.watch(folder.path) else {
            Issue.record("not watched")
            return
        }
        #expect(inotify.watch(folder.path) == .watching(watch))
        #expect(inotify.wait(milliseconds: 0).isEmpty)
        try folder.write("x", to: "a.yaml")
        let events = inotify.wait(milliseconds: 30_000)
        #expect(events.contains { $0.watch == watch && $0.name == "a.yaml" && $0.endsWriting })
        #expect(inotify.watch("\(folder.path)/a.yaml") == .missing)
        #expect(inotify.watch("/nowhere/at/all") == .missing)
    }

    @Test func tellsOfEntriesAlone() throws {
        let folder = try TemporaryFolder()
        try folder.write("x", to: "a.yaml")
        let inotify = try #require(Inotify())
        #expect(inotify.watch(folder.path, entriesOnly: true) != .refused)
        try folder.write("y", to: "a.yaml")
        #expect(inotify.wait(milliseconds: 0).isEmpty)
        try folder.rename("a.yaml", to: "b.yaml")
        #expect(inotify.wait(milliseconds: 2_000).map(\.name) == ["a.yaml", "b.yaml"])
    }

    @Test func aWaitCanBeEnded() throws {
        let inotify = try #require(Inotify())
        inotify.wake()
        let events = inotify.wait(milliseconds: 10_000)
        #expect(events.count == 1 && events.allSatisfy(\.isIgnored))
    }
}
