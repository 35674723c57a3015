// Writes Events. Telling never waits for the API server; what can't be written is logged and forgotten.

import KubernetesAPI
package import Logging

package actor EventRecorder {
    private let client: APIClient
    private let controller: String
    private let instance: String
    /// Where Events about objects without a namespace go.
    private let fallbackNamespace = "default"
    private let clock: any ControlClock
    private let log: Logger
    private var ledger: EventLedger
    /// Bounded: under pressure the newest are dropped, because the same findings come again.
    private var queue: [EventNote] = []
    private static let queueLimit = 1_000
    private let waiting = Watched(0)

    package init(
        client: APIClient, controller: String, instance: String, clock: any ControlClock, log: Logger,
        terms: EventLedger.Terms = EventLedger.Terms()
    ) {
        self.client = client
        self.controller = controller
        self.instance = instance
        self.clock = clock
        self.log = log
        ledger = EventLedger(terms: terms, now: clock.now())
    }

    package var droppedCount: Int { ledger.dropped }

    package func tell(_ note: EventNote) {
        guard queue.count < Self.queueLimit else { return }
        queue.append(note)
        let count = queue.count
        waiting.update { $0 = count }
    }

    /// Writes what is told until the task is cancelled.
    package func run() async {
        while !Task.isCancelled {
            while !queue.isEmpty {
                let note = queue.removeFirst()
                await write(note)
                if Task.isCancelled { return }
            }
            waiting.update { $0 = 0 }
            do { try await waiting.wait { $0 > 0 } } catch { return }
        }
    }

    private func write(_ note: EventNote) async {
        // Unique among replicas and restarts: the time, and chance.
        let wall = clock.wallTime()
        let suffix =
            String(UInt64(bitPattern: wall.seconds * 1_000_000 + Int64(wall.nanoseconds / 1_000)), radix: 16)
            + String(Int(clock.random() * 65_535), radix: 16)
        let namespace = note.object.namespace.isEmpty ? fallbackNamespace : note.object.namespace
        do throws(APIError) {
            switch ledger.told(note, now: clock.now(), suffix: suffix) {
            case .quiet, .drop: return
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
        } catch {
            ledger.writeFailed(note)
            log.warning(
                "An Event could not be written",
                metadata: [
                    "object": "\(note.objectKind) \(note.object)", "reason": "\(note.reason)", "error": "\(error)",
                ])
        }
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
