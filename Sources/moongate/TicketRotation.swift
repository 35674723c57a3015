// The keys of session tickets: made at random, held in memory only, and changed before anybody could have collected much
// that one key opens (RFC 5077 §5.5). Where a Secret has keys for all replicas (`--ticket-keys-secret`), these are used
// instead, as long as it has; who makes and changes them there is `TicketKeeper`.

import KubernetesClient
import Synchronization
import TLSEngine

/// Makes a new key every few hours; tickets of the keys before still open, for as long as sessions may be resumed.
final class TicketRotation: Sendable {
    /// How long a key seals. Four keys cover the 12 hours in which a session may be resumed.
    static let period = Duration.seconds(4 * 3600)
    static let kept = 4

    /// Nil without memory: then no tickets are given.
    let keys: TicketKeys?

    private struct State {
        var own = [TicketKey()]
        var shared: [TicketKey]?

        /// Tickets that were sealed with our own keys go on being opened by them.
        var all: [TicketKey] { (shared ?? []) + own }
    }

    private let state = Mutex(State())

    init() {
        keys = TicketKeys(state.withLock { $0.all })
    }

    /// The keys in use: the first one seals.
    var current: [TicketKey] { state.withLock { $0.all } }

    /// From here on tickets are sealed with the first of these; nil takes our own again.
    func share(_ shared: [TicketKey]?) {
        change { $0.shared = shared }
    }

    /// Changes our own keys until the task is cancelled.
    func run(clock: any ControlClock = SystemClock()) async {
        while !Task.isCancelled {
            do { try await clock.sleep(for: Self.period) } catch { return }
            change { $0.own = Self.rotated($0.own) }
        }
    }

    private func change(_ edit: (inout State) -> Void) {
        // Set under the lock, so that two changes come in their order.
        state.withLock { state in
            edit(&state)
            keys?.set(state.all)
        }
    }

    /// The newest key first.
    static func rotated(_ keys: [TicketKey]) -> [TicketKey] { [TicketKey()] + keys.prefix(kept - 1) }
}
