import Manifests
import Testing

struct InotifyTests {
    @Test func reportsEntriesByName() throws {
        let folder = try TemporaryFolder()
        let inotify = try #require(Inotify())
        let watch = try #require(inotify.watch(folder.path))
        #expect(inotify.watch(folder.path) == watch)
        #expect(inotify.wait(milliseconds: 0).isEmpty)
        try folder.write("x", to: "a.yaml")
        let events = inotify.wait(milliseconds: 2_000)
        #expect(events.contains { $0.watch == watch && $0.name == "a.yaml" && $0.endsWriting })
        #expect(inotify.watch("\(folder.path)/a.yaml") == nil)
        #expect(inotify.watch("/nowhere/at/all") == nil)
    }

    @Test func aWaitCanBeEnded() throws {
        let inotify = try #require(Inotify())
        inotify.wake()
        let events = inotify.wait(milliseconds: 10_000)
        #expect(events.count == 1 && events.allSatisfy(\.isIgnored))
    }
}
