// The keys of session tickets: made at random, held in memory only, and changed before anybody could have collected much
// that one key opens (RFC 5077 §5.5).

import TLSEngine

/// Makes a new key every few hours; tickets of the keys before still open, for as long as sessions may be resumed.
struct TicketRotation: Sendable {
    /// How long a key seals. Four keys cover the 12 hours in which a session may be resumed.
    static let period = Duration.seconds(4 * 3600)
    static let kept = 4

    /// Nil without memory: then no tickets are given.
    let keys = TicketKeys([TicketKey()])

    /// Changes the keys until the task is cancelled.
    func run(clock: some Clock<Duration> = ContinuousClock()) async {
        guard let keys else { return }
        var current = [TicketKey()]
        keys.set(current)
        while !Task.isCancelled {
            do { try await clock.sleep(for: Self.period) } catch { return }
            current = Self.rotated(current)
            keys.set(current)
        }
    }

    /// The newest key first.
    static func rotated(_ keys: [TicketKey]) -> [TicketKey] { [TicketKey()] + keys.prefix(kept - 1) }
}
