// Watches the manifest folder on a thread of its own and says what it holds, once now and again after each change.
//
// An edit is live well within 200 ms: the kernel reports it at once, and the folder is read as soon as it has been quiet for
// 20 ms. A file that is being written (changed, not yet closed) is waited for, so that half of it is never taken for the
// whole; after a second the others go on without it, and it stays as it last was until it is closed. Where watching is
// refused, the folder is looked at every 100 ms instead; and because no event comes from network file systems, it is looked
// at every 30 s anyway.

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
    private let first: Mutex<State?>

    /// What the thread takes over from `init`.
    private struct State: Sendable {
        var reader: FolderReader
        var watches: Watches
        var isPolling: Bool
    }

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
        var contents = try reader.load()
        let inotify = Inotify()
        var watches = Watches(root: root)
        var isPolling = true
        if let inotify {
            // What changes between the reading and the watching would never be told: read once more under watch, and
            // again while there are directories that were not watched when they were read. Nothing is read twice.
            while watches.follow(reader.directories, with: inotify) { contents = try reader.load() }
            isPolling = watches.isRefused
        }
        if isPolling { contents.diagnostics.append(Self.pollingDiagnostic(root)) }
        initial = contents
        self.root = root
        self.timing = timing
        self.handler = handler
        self.inotify = inotify
        first = Mutex(State(reader: reader, watches: watches, isPolling: isPolling))
    }

    /// Begins to watch. A second call does nothing.
    package func start() {
        guard
            let state = first.withLock({ state in
                defer { state = nil }
                return state
            })
        else { return }
        isRunning.store(true, ordering: .sequentiallyConsistent)
        let thread = Thread { [self] in
            run(state)
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

    private func run(_ state: State) {
        var reader = state.reader
        var watches = state.watches
        var isPolling = state.isPolling
        var last = initial
        var change = Change()
        // Files that have been open for so long that nobody waits for them.
        var held: Set<String> = []
        var discarded = 0
        while !shouldStop {
            guard let inotify, !isPolling else {
                Thread.sleep(forTimeInterval: Double(timing.pollMilliseconds) / 1_000)
                guard let contents = try? reader.load() else { continue }
                if let inotify {
                    _ = watches.follow(reader.directories, with: inotify)
                    isPolling = watches.isRefused
                }
                publish(contents, isPolling: isPolling, last: &last)
                continue
            }
            waitForQuiet(inotify, watches, &change, &held)
            guard !shouldStop else { return }
            if change.begun == nil {
                // Nobody has written to them for the whole of a round: they were closed unheard, or are forgotten.
                change.dirty.formUnion(held)
                held = []
            }
            held.formUnion(change.open)
            var look = reader
            guard let contents = try? look.load(dirty: change.dirty, held: held) else {
                change = Change()
                continue
            }
            // A file that somebody began to write while it was being read may have been taken by half: then this look
            // is as if it had not been, its memory of what was last good included.
            var late = Change()
            late.take(inotify.wait(milliseconds: 0), watches, &held)
            if !late.open.isEmpty {
                discarded += 1
                change.add(late)
                if discarded > Self.mostDiscarded { held.formUnion(late.open) }
                continue
            }
            discarded = 0
            reader = look
            publish(contents, isPolling: isPolling, last: &last)
            change = late
            while watches.follow(reader.directories, with: inotify), !shouldStop {
                // A directory that is new may have been filled before it was watched.
                if let contents = try? reader.load(held: held) { publish(contents, isPolling: isPolling, last: &last) }
            }
            isPolling = watches.isRefused
        }
    }

    private static let mostDiscarded = 5

    /// What has been heard of a change so far.
    private struct Change {
        /// Files to be read again, relative to the folder.
        var dirty: Set<String> = []
        /// Files that somebody is in the middle of writing.
        var open: Set<String> = []
        var begun: ContinuousClock.Instant?

        mutating func take(_ events: [Inotify.Event], _ watches: Watches, _ held: inout Set<String>) {
            for event in events {
                guard let path = watches.path(of: event) else { continue }
                // The end of a writing may be among what was lost.
                if event.isOverflow { (held, open) = ([], []) }
                if event.endsWriting { held.remove(path) } else if held.contains(path) { continue }
                begun = begun ?? ContinuousClock.now
                dirty.insert(path)
                if event.isModify { open.insert(path) }
                if event.endsWriting { open.remove(path) }
            }
        }

        mutating func add(_ other: Change) {
            dirty.formUnion(other.dirty)
            open = other.open
            begun = begun ?? other.begun
        }
    }

    /// Waits for a change and then until it is over: quiet, with no file half written, or the bound is reached. Comes back
    /// without a change when it is time to look anyway.
    private func waitForQuiet(
        _ inotify: Inotify, _ watches: Watches, _ change: inout Change, _ held: inout Set<String>
    ) {
        while !shouldStop {
            var wait = timing.rescanMilliseconds
            if let begun = change.begun {
                let bound = change.open.isEmpty ? timing.boundMilliseconds : timing.writerMilliseconds
                let passed = (ContinuousClock.now - begun) / .milliseconds(1)
                guard passed < Double(bound) else { return }
                let left = bound - Int(passed)
                wait = max(1, change.open.isEmpty ? min(timing.quietMilliseconds, left) : left)
            }
            let events = inotify.wait(milliseconds: wait)
            guard !events.isEmpty else { return }
            change.take(events, watches, &held)
        }
    }

    private static func pollingDiagnostic(_ root: String) -> Diagnostic {
        ManifestCode.polling.diagnostic(
            "the kernel refuses to watch the folder", at: Place(file: root),
            mend: "raise fs.inotify.max_user_watches or max_user_instances; changes are found all the same")
    }

    private func publish(_ contents: FolderContents, isPolling: Bool, last: inout FolderContents) {
        var contents = contents
        if isPolling { contents.diagnostics.append(Self.pollingDiagnostic(root)) }
        guard contents != last, !shouldStop else { return }
        last = contents
        handler(contents)
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
