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
        var watches = Watches()
        var isRefused = true
        if let inotify {
            // What changes between the reading and the watching would never be told: read once more under watch, and
            // again while there are directories that were not watched when they were read. Nothing is read twice.
            while watches.follow(reader.map, with: inotify) { contents = try reader.load() }
            isRefused = watches.isRefused
        }
        if isRefused { contents.diagnostics.append(Self.pollingDiagnostic(root)) }
        initial = contents
        self.root = root
        self.timing = timing
        self.handler = handler
        self.inotify = inotify
        first = Mutex(State(reader: reader, watches: watches, isPolling: isRefused || reader.isGone))
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
                    // What was filled before it was watched is found by one look more.
                    let isNew = watches.follow(reader.map, with: inotify)
                    isPolling = isNew || watches.isRefused || reader.isGone
                }
                publish(contents, isRefused: inotify == nil || watches.isRefused, last: &last)
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
            publish(contents, isRefused: false, last: &last)
            change = late
            while watches.follow(reader.map, with: inotify), !shouldStop {
                // A directory that is new may have been filled before it was watched.
                if let contents = try? reader.load(held: held) { publish(contents, isRefused: false, last: &last) }
            }
            // A folder that is gone may come back by a change of any folder above it: none of them is watched.
            isPolling = watches.isRefused || reader.isGone
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
                // The end of a writing may be among what was lost.
                if event.isOverflow { (held, open) = ([], []) }
                for path in watches.paths(of: event) {
                    if event.endsWriting { held.remove(path) } else if held.contains(path) { continue }
                    begun = begun ?? ContinuousClock.now
                    dirty.insert(path)
                    if event.isModify { open.insert(path) }
                    if event.endsWriting { open.remove(path) }
                }
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

    private func publish(_ contents: FolderContents, isRefused: Bool, last: inout FolderContents) {
        var contents = contents
        if isRefused { contents.diagnostics.append(Self.pollingDiagnostic(root)) }
        guard contents != last, !shouldStop else { return }
        last = contents
        handler(contents)
    }
}

/// Which directories are watched, and what an event in one of them means for the folder.
private struct Watches {
    private var map = FolderMap()
    private var byDirectory: [String: Int32] = [:]
    private var directories: [Int32: String] = [:]
    /// Those of which everything is told, not only what comes and goes.
    private var listed: Set<String> = []
    /// The kernel refuses to watch one of them.
    private(set) var isRefused = false

    /// Watches exactly what the map tells of. True if one of its directories was not watched before, or not as much.
    mutating func follow(_ map: FolderMap, with inotify: Inotify) -> Bool {
        var added = false
        self.map = map
        let (previous, previouslyListed) = (byDirectory, listed)
        byDirectory = [:]
        listed = []
        directories = [:]
        isRefused = false
        func add(_ directory: String, isListed: Bool) {
            guard byDirectory[directory] == nil else { return }
            let watch: Int32
            switch inotify.watch(directory, entriesOnly: !isListed) {
            case .watching(let number): watch = number
            // What has gone since it was seen is told by the watch of what it lay in.
            case .missing: return
            case .refused:
                // A folder above may be closed to us: what it holds beside ours is not ours to see.
                if isListed { isRefused = true }
                return
            }
            if previous[directory] != watch || isListed && !previouslyListed.contains(directory) { added = true }
            if isListed { listed.insert(directory) }
            byDirectory[directory] = watch
            directories[watch] = directory
        }
        for directory in map.directories.keys { add(directory, isListed: true) }
        for file in map.files.keys { add(FolderReader.split(file).directory, isListed: true) }
        for directory in map.links.keys { add(directory, isListed: false) }
        for (_, watch) in previous where directories[watch] == nil { inotify.unwatch(watch) }
        return added
    }

    /// The paths relative to the folder that an event is about; none if it does not matter.
    func paths(of event: Inotify.Event) -> [String] {
        if event.isOverflow { return [""] }
        guard !event.isIgnored, let directory = directories[event.watch] else { return [] }
        return map.names(of: event.name, in: directory)
    }
}
