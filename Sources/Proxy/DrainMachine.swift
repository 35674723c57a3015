// How the process leaves: on SIGTERM nothing that runs is cut, and nobody is sent here who could have gone elsewhere.

/// ```
///            drainRequested          delay over              nothing left, or time-out
///  serving ────────────────▶ leaving ──────────▶ draining ─────────────────────────────▶ over
///                               │ drainRequested again    │ drainRequested again             ▲
///                               └─────────────────────────┴──────────────────────────────────┘
/// ```
struct DrainMachine {
    enum Event: Equatable, Sendable {
        /// `now` and the durations in milliseconds. A second one ends at once.
        case drainRequested(now: UInt64, delay: UInt64, timeout: UInt64)
        case ticked(now: UInt64)
        /// No connection is left.
        case emptied
    }

    enum Action: UInt8, MachineAction {
        /// New connections are still taken: the endpoint lists that send them here lag behind our readiness.
        case answerWithClose
        case stopAccepting
        /// Close what is idle; the rest closes after its response.
        case closeIdle
        /// Close everything, finished or not.
        case closeAll
        case stop
    }

    private enum State: Equatable {
        case serving
        case leaving(until: UInt64, timeout: UInt64)
        case draining(until: UInt64)
        case over
    }

    private var state: State = .serving

    typealias List = Actions<Action>

    var isServing: Bool { state == .serving }
    var isOver: Bool { state == .over }
    /// Whether the listeners are closed.
    var isDraining: Bool {
        switch state {
        case .draining, .over: true
        case .serving, .leaving: false
        }
    }
    /// When the machine wants to be told the time.
    var deadline: UInt64? {
        switch state {
        case .serving, .over: nil
        case .leaving(let until, _): until
        case .draining(let until): until
        }
    }

    mutating func handle(_ event: Event) -> List {
        switch state {
        case .serving:
            switch event {
            case .drainRequested(let now, let delay, let timeout):
                if delay == 0 {
                    state = .draining(until: now + timeout)
                    return List(.answerWithClose, .stopAccepting, .closeIdle)
                }
                state = .leaving(until: now + delay, timeout: timeout)
                return List(.answerWithClose)
            case .ticked, .emptied: return List()
            }
        case .leaving(let until, let timeout):
            switch event {
            case .drainRequested:
                state = .over
                return List(.stopAccepting, .closeAll, .stop)
            case .ticked(let now):
                if now < until { return List() }
                state = .draining(until: now + timeout)
                return List(.stopAccepting, .closeIdle)
            case .emptied: return List()
            }
        case .draining(let until):
            switch event {
            case .drainRequested:
                state = .over
                return List(.closeAll, .stop)
            case .ticked(let now):
                if now < until { return List() }
                state = .over
                return List(.closeAll, .stop)
            case .emptied:
                state = .over
                return List(.stop)
            }
        case .over:
            return List()
        }
    }
}
