// Watches the manifest folder on a thread of its own and says what it holds, once now and again after each change.
//
// An edit is live well within 200 ms: the kernel reports it at once, and the folder is read as soon as it has been quiet for
// 20 ms. A file that is being written (changed, not yet closed) is waited for, so that half of it is never taken for the
// whole; a writer that never closes is waited for no longer than a second. Where watching is refused, the folder is looked
// at every 100 ms instead; and because no event comes from network file systems, it is looked at every 30 s anyway.

internal import Foundation
internal import Model
internal import Synchronization

package final class FolderSource: Sendable {
    package typealias Handler = @Sendable (FolderContents) -> Void

    /// How long the watcher waits for more.
    package struct Timing: Sendable, Equatable {
        package var quietMilliseconds = 20
        package var boundMilliseconds = 100
        package var writerMilliseconds = 1_000
        package var pollMilliseconds = 100
        package var rescanMilliseconds = 30_000

        package init() {}
    }

    private let root: String
    private let timing: Timing
    private let handler: Handler
    private let inotify: Inotify?
    private let isStopped = Atomic<Bool>(false)
    /// Held by the thread while it runs, so that `stop` can wait for its end.
    private let running = NSCondition()
    private let isRunning = Atomic<Bool>(false)
    private let first: Mutex<FolderReader?>

    /// What the folder held when the source was made.
    package let initial: FolderContents

    /// Reads the folder once; throws if it cannot be read. Changes are reported after `start`.
    ///
    /// `handler` is called on the watcher's thread, one call after the other, only with contents that differ from the
    /// last; what it does holds up the next look, and nothing else.
    package init(
        root: String, limits: FolderLimits = FolderLimits(), timing: Timing = Timing(), handler: @escaping Handler
    ) throws(FolderFault) {
        var reader = FolderReader(root: root, limits: limits)
        initial = try reader.load()
        self.root = root
        self.timing = timing
        self.handler = handler
        inotify = Inotify()
        first = Mutex(reader)
    }

    /// Begins to watch. A second call does nothing.
    package func start() {
        guard let reader = first.withLock({ reader in
            defer { reader = nil }
            return reader
        }) else { return }
        isRunning.store(true, ordering: .sequentiallyConsistent)
        let thread = Thread { [self] in
            run(reader)
            running.lock()
            isRunning.store(false, ordering: .sequentiallyConsistent)
            running.broadcast()
            running.unlock()
        }
        thread.name = "manifests"
        // The parser of YAML recurses as deep as libyaml lets it (1,000 levels).
        thread.stackSize = 8 << 20
        thread.start()
    }

    /// Ends the watch; the handler is not called after this has returned.
    package func stop() {
        isStopped.store(true, ordering: .sequentiallyConsistent)
        inotify?.wake()
        running.lock()
        while isRunning.load(ordering: .sequentiallyConsistent) { running.wait() }
        running.unlock()
    }

    private var shouldStop: Bool { isStopped.load(ordering: .sequentiallyConsistent) }

    private func run(_ reader: FolderReader) {
        var reader = reader
        var last = initial
        var watches = Watches(root: root)
        // Between the first reading and the first watch something may have changed: look once more at once.
        var dirty: Set<String> = []
        var isPolling = false
        while !shouldStop {
            var added = false
            repeat {
                if let contents = try? reader.load(dirty: dirty) {
                    publish(contents, isPolling: isPolling, last: &last)
                }
                dirty = []
                // A directory that is new may have been filled before it was watched.
                added = inotify.map { watches.follow(reader.directories, with: $0) } ?? false
                isPolling = inotify == nil || watches.isRefused
            } while added && !shouldStop
            if let inotify, !isPolling {
                dirty = waitForChange(inotify, watches)
            } else {
                Thread.sleep(forTimeInterval: Double(timing.pollMilliseconds) / 1_000)
            }
        }
    }

    private func publish(_ contents: FolderContents, isPolling: Bool, last: inout FolderContents) {
        var contents = contents
        if isPolling {
            contents.diagnostics.append(
                ManifestCode.polling.diagnostic(
                    "the kernel refuses to watch the folder", at: .init(file: root),
                    mend: "raise fs.inotify.max_user_watches or max_user_instances; changes are found all the same"))
        }
        guard contents != last, !shouldStop else { return }
        last = contents
        handler(contents)
    }

    /// Waits for a change and then for quiet. Answers the files that were written, relative to the folder.
    private func waitForChange(_ inotify: Inotify, _ watches: Watches) -> Set<String> {
        var dirty: Set<String> = []
        var open: Set<String> = []
        var begun: ContinuousClock.Instant?
        let clock = ContinuousClock()
        var wait = timing.rescanMilliseconds
        while !shouldStop {
            let events = inotify.wait(milliseconds: wait)
            guard !shouldStop else { return dirty }
            var matters = false
            for event in events {
                guard let path = watches.path(of: event) else { continue }
                matters = true
                dirty.insert(path)
                if event.isModify { open.insert(path) }
                if event.endsWriting { open.remove(path) }
            }
            let now = clock.now
            if begun == nil, !matters {
                if events.isEmpty { return dirty }
                continue
            }
            let start = begun ?? now
            begun = start
            let bound = open.isEmpty ? timing.boundMilliseconds : timing.writerMilliseconds
            let left = Duration.milliseconds(bound) - (now - start)
            if left <= .zero { return dirty }
            // Quiet, and nobody is in the middle of a file.
            if events.isEmpty, open.isEmpty { return dirty }
            let leftMilliseconds = Int(left.components.seconds) * 1_000 + Int(left.components.attoseconds / 1_000_000_000_000_000)
            wait = max(1, min(open.isEmpty ? timing.quietMilliseconds : leftMilliseconds, leftMilliseconds))
        }
        return dirty
    }
}

/// Which directories are watched, and what an event in one of them means for the folder.
private struct Watches {
    private let root: String
    private var byDirectory: [String: Int32] = [:]
    private var directories: [Int32: String] = [:]
    private var parent: Int32?
    private let rootName: String
    private(set) var isRefused = false

    init(root: String) {
        self.root = root
        rootName = String(root.split(separator: "/").last ?? "")
    }

    /// Watches exactly these directories (and the parent of the folder, in which a link may be swapped). True if one
    /// of them was not watched before.
    mutating func follow(_ wanted: [String], with inotify: Inotify) -> Bool {
        var added = false
        var refused = false
        if parent == nil {
            let above = URL(fileURLWithPath: root).deletingLastPathComponent().path
            parent = inotify.watch(above)
        }
        let previous = byDirectory
        byDirectory = [:]
        directories = [:]
        for directory in wanted {
            guard let watch = inotify.watch(directory) else {
                refused = true
                continue
            }
            if previous[directory] != watch { added = true }
            byDirectory[directory] = watch
            directories[watch] = directory
        }
        for (_, watch) in previous where directories[watch] == nil && watch != parent { inotify.unwatch(watch) }
        isRefused = refused
        return added
    }

    /// The path relative to the folder that an event is about; nil if it does not matter.
    func path(of event: Inotify.Event) -> String? {
        if event.isOverflow { return "" }
        guard !event.isIgnored else { return nil }
        guard let directory = directories[event.watch] else {
            return event.watch == parent && event.name == rootName ? "" : nil
        }
        // Editors' swap files do not matter; `..data`, by which a mounted ConfigMap changes, does.
        if event.name.hasPrefix("."), !event.name.hasPrefix("..") { return nil }
        let base = byDirectoryRoot
        guard directory != base else { return event.name }
        guard directory.hasPrefix(base + "/") else { return event.name }
        return directory.dropFirst(base.count + 1) + "/" + event.name
    }

    /// The shortest directory is the folder itself.
    private var byDirectoryRoot: String { byDirectory.keys.min { $0.utf8.count < $1.utf8.count } ?? "" }
}
