// Writes Events. Telling never waits for the API server; what can't be written now is written later, within bounds.

import KubernetesAPI
package import Logging

/// What became of something that was told.
package enum EventOutcome: Sendable {
    case written
    /// There was no room for it, or it could not be written for long.
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
        /// The oldest goes first.
        var number: UInt64
        var times = 1
        var notBefore: Duration
        var failures = 0
    }

    private var pending: [EventNote: Pending] = [:]
    private var number: UInt64 = 0
    /// Withdrawn while it is being written.
    private var withdrawn: EventNote?
    /// After a failure that may be the API server's.
    private var resumeAt = Duration.zero
    private var backoff = Backoff(first: .seconds(1), limit: .seconds(60))
    /// Moves with everything that is told.
    private let waiting = Watched(UInt64(0))

    private static let mostPending = 2_000
    /// About one object, which may be written about once a minute: the others are to have room as well.
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

    /// False if there is no room for it now.
    @discardableResult
    package func tell(_ note: EventNote) -> Bool {
        if pending[note] != nil {
            pending[note]?.times += 1
            return true
        }
        guard pending.count < Self.mostPending,
            pending.keys.count(where: { $0.object == note.object }) < Self.mostPendingOfObject
        else {
            count(.dropped)
            return false
        }
        number += 1
        pending[note] = Pending(number: number, notBefore: clock.now())
        waiting.update { $0 += 1 }
        return true
    }

    /// It is no longer so: if it was not written yet, it is not written.
    package func withdraw(_ note: EventNote) {
        if pending.removeValue(forKey: note) == nil { withdrawn = note }
    }

    /// Writes what is told until the task is cancelled.
    package func run() async {
        while !Task.isCancelled {
            let known = waiting.value
            let now = clock.now()
            if now >= resumeAt, let note = next(now), let taken = pending.removeValue(forKey: note) {
                await write(note, taken)
                continue
            }
            let due = pending.values.map(\.notBefore).min().map { max($0, resumeAt) }
            do { try await waiting.wait(until: due, by: clock) { $0 != known } } catch { return }
        }
    }

    private func next(_ now: Duration) -> EventNote? {
        pending.filter { $0.value.notBefore <= now }.min { $0.value.number < $1.value.number }?.key
    }

    private func write(_ note: EventNote, _ taken: Pending) async {
        withdrawn = nil
        // Unique among replicas and restarts: the time, and chance.
        let wall = clock.wallTime()
        let suffix =
            String(UInt64(bitPattern: wall.seconds * 1_000_000 + Int64(wall.nanoseconds / 1_000)), radix: 16)
            + String(Int(clock.random() * 65_535), radix: 16)
        let namespace = note.object.namespace.isEmpty ? fallbackNamespace : note.object.namespace
        do throws(APIError) {
            switch ledger.told(note, times: taken.times, now: clock.now(), suffix: suffix) {
            case .quiet: return
            case .later(let time): return putBack(note, taken, notBefore: time)
            case .create(let name): _ = try await client.create(event(note, name, namespace, wall))
            case .extend(let name, let count):
                let patch = SeriesPatch(series: EventSeries(count: count, lastObservedTime: wall.asMicroTime))
                do {
                    try await client.patch(Event.self, namespace: namespace, name: name, with: patch)
                } catch {
                    // It expired meanwhile.
                    guard error.code == .notFound else { throw error }
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
        guard withdrawn != note else { return }
        var back = taken
        back.notBefore = notBefore
        // Told again while it was being written.
        back.times += pending[note]?.times ?? 0
        pending[note] = back
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
