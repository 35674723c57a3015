// Writes Events. Telling never waits for the API server; what can't be written now is written later, within bounds.

import KubernetesAPI
package import Logging

/// What became of something that was told.
package enum EventOutcome: Sendable {
    case written
    /// It could not be written for long.
    case dropped
    /// A write that did not work; it is done again.
    case failed
}

package actor EventRecorder {
    private let client: APIClient
    private let controller: String
    private let instance: String
    /// Where Events about objects without a namespace go.
    private let fallbackNamespace = "default"
    private let clock: any ControlClock
    private let log: Logger
    private var ledger: EventLedger
    private let count: @Sendable (EventOutcome) -> Void

    /// What waits to be written.
    private struct Pending {
        /// The oldest of its namespace goes first.
        var number: UInt64
        var times = 1
        var notBefore: Duration
        var failures = 0
    }

    /// What waits of one namespace. Namespaces take turns: one that has thousands of findings holds nobody up.
    private struct Queue {
        var notes: [EventNote: Pending] = [:]
        /// When it last had its turn, in turns.
        var turn: UInt64
    }

    private var queues: [String: Queue] = [:]
    private var pendingCount = 0
    private var number: UInt64 = 0
    private var turn: UInt64 = 0
    private var writing: EventNote?
    private var writingIsWithdrawn = false
    /// After a failure that may be the API server's.
    private var resumeAt = Duration.zero
    /// When as much was written as may be.
    private var roomAt = Duration.zero
    private var backoff = Backoff(first: .seconds(1), limit: .seconds(60))
    /// Moves with everything that is told.
    private let waiting = Watched(UInt64(0))

    private static let mostPending = 2_000
    /// Of one namespace: the others are to have room as well.
    private static let mostPendingOfNamespace = mostPending / 4
    /// These have room even where others have taken it all.
    private static let fewPendingOfNamespace = 4
    /// About one object, which may be written about once a minute.
    private static let mostPendingOfObject = 50
    /// Nearly half an hour.
    private static let mostFailures = 10

    package init(
        client: APIClient, controller: String, instance: String, clock: any ControlClock, log: Logger,
        terms: EventLedger.Terms = EventLedger.Terms(), count: @escaping @Sendable (EventOutcome) -> Void = { _ in }
    ) {
        self.client = client
        self.controller = controller
        self.instance = instance
        self.clock = clock
        self.log = log
        self.count = count
        ledger = EventLedger(terms: terms, now: clock.now())
    }

    /// False if there is no room for it now: it is lost, unless it is told again.
    @discardableResult
    package func tell(_ note: EventNote) -> Bool {
        let namespace = note.object.namespace
        if queues[namespace]?.notes[note] != nil {
            queues[namespace]?.notes[note]?.times += 1
        } else {
            guard hasRoom(for: note) else { return false }
            number += 1
            // Behind the namespaces that wait already.
            queues[namespace, default: Queue(turn: turn)].notes[note] = Pending(number: number, notBefore: clock.now())
            pendingCount += 1
            waiting.update { $0 += 1 }
        }
        if note == writing { writingIsWithdrawn = false }
        return true
    }

    private func hasRoom(for note: EventNote) -> Bool {
        guard let notes = queues[note.object.namespace]?.notes else { return true }
        guard notes.count < Self.mostPendingOfNamespace,
            pendingCount < Self.mostPending || notes.count < Self.fewPendingOfNamespace
        else { return false }
        return notes.keys.count(where: { $0.object == note.object }) < Self.mostPendingOfObject
    }

    /// It is no longer so: if it was not written yet, it is not written.
    package func withdraw(_ note: EventNote) {
        _ = take(note)
        if note == writing { writingIsWithdrawn = true }
    }

    private func take(_ note: EventNote) -> Pending? {
        let namespace = note.object.namespace
        guard let taken = queues[namespace]?.notes.removeValue(forKey: note) else { return nil }
        pendingCount -= 1
        if queues[namespace]?.notes.isEmpty == true { queues[namespace] = nil }
        return taken
    }

    /// Writes what is told until the task is cancelled.
    package func run() async {
        while !Task.isCancelled {
            let known = waiting.value
            let now = clock.now()
            let opensAt = max(resumeAt, roomAt)
            if now >= opensAt, let note = next(now) {
                await write(note)
                continue
            }
            let due = queues.values.lazy.flatMap(\.notes.values).map(\.notBefore).min().map { max($0, opensAt) }
            do { try await waiting.wait(until: due, by: clock) { $0 != known } } catch { return }
        }
    }

    /// The oldest that is due, of the namespace that has waited for its turn the longest.
    private func next(_ now: Duration) -> EventNote? {
        var best: (note: EventNote, turn: UInt64, number: UInt64)?
        for queue in queues.values where queue.turn <= best?.turn ?? .max {
            for (note, pending) in queue.notes where pending.notBefore <= now {
                if let best, (best.turn, best.number) < (queue.turn, pending.number) { continue }
                best = (note, queue.turn, pending.number)
            }
        }
        return best?.note
    }

    /// The next turn is another namespace's.
    private func passTurn(of note: EventNote) {
        turn += 1
        queues[note.object.namespace]?.turn = turn
    }

    private func write(_ note: EventNote) async {
        // Unique among replicas and restarts: the time, and chance.
        let wall = clock.wallTime()
        let suffix =
            String(UInt64(bitPattern: wall.seconds * 1_000_000 + Int64(wall.nanoseconds / 1_000)), radix: 16)
            + String(Int(clock.random() * 65_535), radix: 16)
        let namespace = note.object.namespace.isEmpty ? fallbackNamespace : note.object.namespace
        guard let waits = queues[note.object.namespace]?.notes[note] else { return }
        let decision = ledger.told(note, times: waits.times, now: clock.now(), suffix: suffix)
        switch decision {
        case .quiet:
            _ = take(note)
            return
        case .later(let time):
            queues[note.object.namespace]?.notes[note]?.notBefore = time
            return
        case .full(let time):
            // Of all: nobody else need be asked about until then.
            roomAt = time
            return
        case .create, .extend: break
        }
        passTurn(of: note)
        guard let taken = take(note) else { return }
        writing = note
        writingIsWithdrawn = false
        defer { writing = nil }
        do throws(APIError) {
            switch decision {
            case .quiet, .later, .full: return
            case .create(let name): _ = try await client.create(event(note, name, namespace, wall))
            case .extend(let name, let count):
                let patch = SeriesPatch(series: EventSeries(count: count, lastObservedTime: wall.asMicroTime))
                do {
                    try await client.patch(Event.self, namespace: namespace, name: name, with: patch)
                } catch {
                    // It expired meanwhile.
                    guard error.code == .notFound else { throw error }
                    guard !writingIsWithdrawn else { return ledger.writeFailed(note) }
                    _ = try await client.create(event(note, name, namespace, wall))
                }
            }
            backoff.reset()
            count(.written)
        } catch {
            ledger.writeFailed(note)
            if Task.isCancelled { return }
            failed(note, taken, error)
        }
    }

    private func failed(_ note: EventNote, _ taken: Pending, _ error: APIError) {
        count(.failed)
        let now = clock.now()
        if error.isOutage { resumeAt = now + backoff.delay(atLeast: error.retryAfter, random: clock.random()) }
        var again = taken
        again.failures += 1
        let isGivenUp = again.failures >= Self.mostFailures
        log.log(
            level: isGivenUp || client.isNews(error) ? .warning : .debug,
            isGivenUp ? "An Event could not be written for long and is given up" : "An Event could not be written yet",
            metadata: [
                "object": "\(note.objectKind) \(note.object)", "reason": "\(note.reason)", "error": "\(error)",
            ])
        if isGivenUp { return count(.dropped) }
        putBack(note, again, notBefore: now + min(.seconds(5) * (1 << (again.failures - 1)), .seconds(300)))
    }

    private func putBack(_ note: EventNote, _ taken: Pending, notBefore: Duration) {
        guard !writingIsWithdrawn else { return }
        var back = taken
        back.notBefore = notBefore
        // Told again while it was being written.
        if let again = take(note) { back.times += again.times }
        queues[note.object.namespace, default: Queue(turn: turn)].notes[note] = back
        pendingCount += 1
    }

    private struct SeriesPatch: Encodable { var series: EventSeries }

    private func event(_ note: EventNote, _ name: String, _ namespace: String, _ wall: Timestamp) -> Event {
        var event = Event(metadata: ObjectMeta(name: name, namespace: namespace))
        event.eventTime = wall.asMicroTime
        event.reportingController = controller
        event.reportingInstance = EventNote.cut(instance, to: 128)
        event.action = note.action
        event.reason = note.reason
        event.type = note.kind.rawValue
        event.note = note.note
        var regarding = EventObjectReference()
        regarding.apiVersion = note.apiVersion
        regarding.kind = note.objectKind
        regarding.namespace = note.object.namespace.isEmpty ? nil : note.object.namespace
        regarding.name = note.object.name
        regarding.uid = note.uid
        event.regarding = regarding
        return event
    }
}
