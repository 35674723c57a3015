// What a client of a UDP service has in place of a connection: a session, which begins with a datagram and ends when nothing
// has come for a while. Whether its endpoint is there is known by its answers, or by the kernel's word that nobody is.

/// The life of one session.
///
/// ```
///            clientSent,
///            endpointChosen            endpointSent
///  unbound ──────────────────▶ asking ──────────────▶ answering
///     ▲                        │    │                     │
///     │ endpointFailed,        │    │ endpointLeft        │ endpointLeft
///     │ rerouted               │    ▼                     │
///     ├────────────────────────┘  leaving ◀───────────────┘
///     │       clientSent            │
///     └─────────────────────────────┘
///  each ── stoodStill, portClosed, the last answer ──▶ over
/// ```
struct SessionMachine {
    enum Event: Equatable, Sendable {
        /// So many datagrams came from the client; 0 where those that came are tried once more.
        case clientSent(Int)
        case endpointChosen
        /// There is none to be had.
        case endpointMissing
        case endpointSent(Int)
        /// Nobody is there.
        case endpointFailed
        /// The Service does not have it any more.
        case endpointLeft
        /// The port leads to another Service.
        case rerouted
        /// Nothing has passed for as long as a session may stand still.
        case stoodStill
        case portClosed
    }

    enum Action: UInt8, MachineAction {
        case choose
        case forward
        /// What came from the client is lost.
        case drop
        case deliver
        /// The endpoint is healthy.
        case reportAnswering
        /// The endpoint has failed; its socket is closed.
        case reportFailed
        /// The endpoint has no fault; its socket is closed.
        case release
        case end
    }

    private enum State: Equatable {
        /// No endpoint: the next datagram looks for one.
        case unbound
        /// The endpoint has not said anything yet.
        case asking
        case answering
        /// What the endpoint still says is passed on; the next datagram goes to another.
        case leaving
        case over
    }

    private var state = State.unbound
    private var wasBound = false
    /// Answers to one datagram after which nothing more is waited for; 0 is any number.
    private let answersWanted: UInt64
    private(set) var asked: UInt64 = 0
    private(set) var answered: UInt64 = 0

    typealias List = Actions<Action>

    init(answersWanted: UInt64 = 0) { self.answersWanted = answersWanted }

    var isOver: Bool { state == .over }
    var isBound: Bool {
        switch state {
        case .asking, .answering, .leaving: true
        case .unbound, .over: false
        }
    }

    private var isAnswered: Bool {
        answersWanted > 0 && answered >= asked.multipliedReportingOverflow(by: answersWanted).partialValue
    }

    mutating func handle(_ event: Event) -> List {
        switch event {
        case .clientSent(let n): asked &+= UInt64(n)
        case .endpointSent(let n): answered &+= UInt64(n)
        case .endpointChosen, .endpointMissing, .endpointFailed, .endpointLeft, .rerouted, .stoodStill, .portClosed:
            break
        }
        switch state {
        case .unbound:
            switch event {
            case .clientSent: return List(.choose)
            case .endpointChosen:
                state = .asking
                wasBound = true
                return List(.forward)
            case .endpointMissing:
                if wasBound { return List(.drop) }
                state = .over
                return List(.drop, .end)
            case .stoodStill, .portClosed:
                state = .over
                return List(.end)
            case .endpointSent, .endpointFailed, .endpointLeft, .rerouted: return List()
            }
        case .asking:
            switch event {
            case .clientSent: return List(.forward)
            case .endpointSent:
                state = .answering
                return delivered(List(.reportAnswering, .deliver))
            case .endpointLeft:
                state = .leaving
                return List()
            case .endpointFailed, .rerouted, .stoodStill, .portClosed: return letGo(event)
            case .endpointChosen, .endpointMissing: return List()
            }
        case .answering:
            switch event {
            case .clientSent: return List(.forward)
            case .endpointSent: return delivered(List(.deliver))
            case .endpointLeft:
                state = .leaving
                return List()
            case .endpointFailed, .rerouted, .stoodStill, .portClosed: return letGo(event)
            case .endpointChosen, .endpointMissing: return List()
            }
        case .leaving:
            switch event {
            case .clientSent:
                state = .unbound
                return List(.release, .choose)
            case .endpointSent: return delivered(List(.deliver))
            case .endpointFailed, .rerouted, .stoodStill, .portClosed: return letGo(event)
            case .endpointChosen, .endpointMissing, .endpointLeft: return List()
            }
        case .over:
            return List()
        }
    }

    /// The last answer ends the session.
    private mutating func delivered(_ list: List) -> List {
        guard isAnswered else { return list }
        state = .over
        var list = list
        list.append(.release)
        list.append(.end)
        return list
    }

    /// The endpoint is let go of.
    private mutating func letGo(_ event: Event) -> List {
        switch event {
        case .endpointFailed:
            state = .unbound
            return List(.reportFailed)
        case .rerouted:
            state = .unbound
            return List(.release)
        case .stoodStill, .portClosed:
            state = .over
            return List(.release, .end)
        case .clientSent, .endpointChosen, .endpointMissing, .endpointSent, .endpointLeft: return List()
        }
    }
}

/// How many sessions a loop may have, and whose they are. Half of them are kept for the services in equal parts, the other half
/// goes to whoever comes first: what floods one service leaves the others their part.
struct SessionShares {
    let most: Int
    private var held: [UInt16: Int] = [:]
    private var services = 1
    private(set) var count = 0
    /// Of the half that is everybody's.
    private var common = 0

    init(most: Int) { self.most = most }

    /// Kept for each service.
    var reserved: Int { most / 2 / services }

    /// How many services there are now.
    mutating func setServices(_ number: Int) {
        services = max(number, 1)
        common = held.values.reduce(0) { $0 + max(0, $1 - reserved) }
    }

    /// One more session of the service on a port; false if there may be none.
    mutating func enter(_ port: UInt16) -> Bool {
        let own = held[port, default: 0]
        if own >= reserved {
            guard common < most - reserved * services else { return false }
            common += 1
        }
        // While services are added and removed, more may be taken than there is.
        guard count < most else {
            if own >= reserved { common -= 1 }
            return false
        }
        held[port] = own + 1
        count += 1
        return true
    }

    mutating func leave(_ port: UInt16) {
        guard let own = held[port] else { return }
        if own > reserved { common = max(0, common - 1) }
        held[port] = own > 1 ? own - 1 : nil
        count -= 1
    }
}
