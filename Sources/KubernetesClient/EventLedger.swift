// Which Events (events.k8s.io/v1) are worth writing: the same finding is one Event with a series that counts, and a
// tenant whose objects are full of faults cannot flood the API server.

package import KubernetesAPI

/// Something to tell about an object.
package struct EventNote: Sendable, Hashable {
    package enum Kind: String, Sendable {
        case normal = "Normal"
        case warning = "Warning"
    }

    package var kind: Kind
    package var apiVersion: String
    package var objectKind: String
    package var object: ObjectName
    package var uid: String?
    /// One word in CamelCase, up to 128 characters.
    package var reason: String
    package var action: String
    package var note: String

    package init(
        _ kind: Kind, apiVersion: String, objectKind: String, object: ObjectName, uid: String?, reason: String,
        action: String, note: String
    ) {
        self.kind = kind
        self.apiVersion = apiVersion
        self.objectKind = objectKind
        self.object = object
        self.uid = uid
        self.reason = reason
        self.action = action
        self.note = EventNote.cut(note, to: 1_024)
    }

    /// The API refuses notes of more than 1,024 bytes; a cut never splits a character.
    static func cut(_ text: String, to limit: Int) -> String {
        guard text.utf8.count > limit else { return text }
        var cut = ""
        var count = 3
        for character in text {
            count += String(character).utf8.count
            guard count <= limit else { break }
            cut.append(character)
        }
        return cut + "..."
    }
}

package struct EventLedger: Sendable {
    package struct Terms: Sendable {
        /// A finding that is gone sooner is not told: its mend was on its way, as an Ingress's Service that is applied
        /// behind it.
        package var settleAfter = Duration.seconds(1)
        /// A finding that lasts is counted again after this time, so that its Event does not expire (after an hour, by
        /// default) while the fault stays.
        package var refreshAfter = Duration.seconds(1_800)
        /// An entry that was not told for this long is forgotten; the next telling makes a new Event.
        package var forgetAfter = Duration.seconds(3_600)
        /// Writes about one object: so many at once, and one more each period.
        package var objectBurst = 25
        package var objectPeriod = Duration.seconds(60)
        /// Writes in all.
        package var totalBurst = 100
        package var totalPeriod = Duration.milliseconds(200)

        package init() {}
    }

    package enum Decision: Sendable, Equatable {
        /// Told recently enough; it is counted, and the count goes out with the next write.
        case quiet
        /// Over the limit of its object until then; nothing is counted.
        case later(Duration)
        /// Over the limit of all until then; nothing is counted.
        case full(Duration)
        /// A new Event, under this name.
        case create(name: String)
        /// The Event of this name goes on as a series.
        case extend(name: String, count: Int)
    }

    private struct Bucket: Sendable {
        var tokens: Int
        var filledAt: Duration

        mutating func fill(at now: Duration, burst: Int, period: Duration) {
            let elapsed = now - filledAt
            if elapsed >= period {
                let whole = Int(elapsed / period)
                tokens = min(burst, tokens + whole)
                filledAt += period * whole
            }
        }
    }

    private struct Entry: Sendable {
        var name: String
        var count: Int
        var writtenAt: Duration
        var toldAt: Duration
    }

    private let terms: Terms
    private var entries: [EventNote: Entry] = [:]
    private var objects: [ObjectName: Bucket] = [:]
    private var total: Bucket
    private var sweptAt: Duration

    package init(terms: Terms = Terms(), now: Duration) {
        self.terms = terms
        total = Bucket(tokens: terms.totalBurst, filledAt: now)
        sweptAt = now
    }

    /// - Parameters:
    ///   - times: how often it was told since it was last asked about.
    ///   - suffix: makes a new name unique among replicas and restarts.
    package mutating func told(_ note: EventNote, times: Int = 1, now: Duration, suffix: String) -> Decision {
        sweep(now)
        if var entry = entries[note] {
            guard now - entry.writtenAt >= terms.refreshAfter else {
                entry.count += times
                entry.toldAt = now
                entries[note] = entry
                return .quiet
            }
            if let refusal = take(about: note.object, now) { return refusal }
            entry.count += times
            entry.toldAt = now
            entry.writtenAt = now
            entries[note] = entry
            return .extend(name: entry.name, count: entry.count)
        }
        if let refusal = take(about: note.object, now) { return refusal }
        // A name is a DNS subdomain of at most 253 characters.
        let name = "\(note.object.name.prefix(200)).\(suffix)"
        entries[note] = Entry(name: name, count: times, writtenAt: now, toldAt: now)
        return .create(name: name)
    }

    /// The write did not work: the next telling tries anew.
    package mutating func writeFailed(_ note: EventNote) { entries[note] = nil }

    /// Nil if a write is allowed now, which it then counts as; else when to ask again.
    private mutating func take(about object: ObjectName, _ now: Duration) -> Decision? {
        var bucket = objects[object] ?? Bucket(tokens: terms.objectBurst, filledAt: now)
        bucket.fill(at: now, burst: terms.objectBurst, period: terms.objectPeriod)
        total.fill(at: now, burst: terms.totalBurst, period: terms.totalPeriod)
        defer { objects[object] = bucket }
        guard bucket.tokens > 0 else { return .later(bucket.filledAt + terms.objectPeriod) }
        guard total.tokens > 0 else { return .full(total.filledAt + terms.totalPeriod) }
        bucket.tokens -= 1
        total.tokens -= 1
        return nil
    }

    /// Keeps the tables as large as the present needs.
    private mutating func sweep(_ now: Duration) {
        guard now - sweptAt >= .seconds(60) else { return }
        sweptAt = now
        let terms = terms
        entries = entries.filter { now - $0.value.toldAt < terms.forgetAfter }
        let full = terms.objectPeriod * terms.objectBurst
        objects = objects.filter { now - $0.value.filledAt < full }
    }
}
