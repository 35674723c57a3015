// The breaker of a script (SCRIPTING.md §5 c): after 50 errors in 10 seconds its failure policy applies without running
// it; after 10 seconds more one request tries it.

/// ```
///          50 errors in 10 s            10 s have passed
///  closed ──────────────────▶ open ───────────────────────▶ half-open
///     ▲                         ▲                               │ │
///     │                         └───────────────────────────────┘ │
///     └───────────────────────────────────────────────────────────┘
///        the trial succeeded                 the trial failed (above)
/// ```
package struct ScriptBreaker: Sendable {
    package enum State: UInt8, Sendable, Hashable {
        /// Every request runs the script.
        case closed
        /// No request runs it.
        case open
        /// One request runs it; its outcome decides.
        case halfOpen
    }

    package static let errors = 50
    package static let window: UInt64 = 10_000_000_000
    package static let pause: UInt64 = 10_000_000_000

    package private(set) var state: State = .closed
    /// When each of the last errors happened, as a ring.
    private var times: [UInt64] = []
    private var next = 0
    private var until: UInt64 = 0

    package init() {}

    /// Whether a request may run the script now.
    package mutating func admits(now: UInt64) -> Bool {
        switch state {
        case .closed: return true
        case .halfOpen:
            // A trial that never came back is over after another pause.
            if now < until { return false }
            until = now + Self.pause
            return true
        case .open:
            if now < until { return false }
            state = .halfOpen
            until = now + Self.pause
            return true
        }
    }

    package mutating func succeeded() {
        switch state {
        case .closed, .open: break
        case .halfOpen:
            state = .closed
            times.removeAll(keepingCapacity: true)
            next = 0
        }
    }

    package mutating func failed(now: UInt64) {
        switch state {
        case .open: break
        case .halfOpen: open(now)
        case .closed:
            if times.count < Self.errors {
                times.append(now)
            } else {
                times[next] = now
                next = (next + 1) % Self.errors
            }
            // The oldest of the last fifty.
            if times.count == Self.errors, now - times[next] <= Self.window { open(now) }
        }
    }

    private mutating func open(_ now: UInt64) {
        state = .open
        until = now + Self.pause
        times.removeAll(keepingCapacity: true)
        next = 0
    }
}
