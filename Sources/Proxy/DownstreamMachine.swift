// The first and the last step of a request's walk: when a connection reads a head, when it may be used
// again, and how it is closed so that the last response is not lost.

/// The life of one downstream connection, or of one stream of an HTTP/2 connection: a stream is a connection that carries
/// one request, and leaves.
///
/// ```
///        bytesArrived           headAdmitted            responseEnded, all read
///  idle ─────────────▶ readingHead ────────▶ exchanging ───────────────────────▶ idle
///                          │ headRefused         │ │ responseEnded, body unread    ▲
///                          │                     │ └─────────▶ dropping ───────────┘ requestEnded
///                          │                     │ switched        │ too much left
///                          ▼                     ▼                 ▼
///                       leaving ◀─────────── tunnelling ──────▶ leaving ──flushed──▶ lingering ──▶ closed
///
///        switched, at once
///  idle ─────────────▶ tunnelling
///
///        multiplexed             sessionEnded
///  idle ─────────────▶ multiplexing ─────────▶ leaving …
/// ```
struct DownstreamMachine {
    enum Event: Equatable, Sendable {
        /// Bytes of a head are there, but not all of it.
        case bytesArrived
        /// A head was taken. `body`: more of this request follows it. `persistent`: the client lets the connection live.
        case headAdmitted(body: Bool, persistent: Bool)
        /// What was read is no request: it is answered, and nothing after it can be trusted to be one.
        case headRefused
        case requestEnded
        /// This many bytes of an unwanted body have been dropped.
        case dropped(Int)
        /// What follows cannot be parsed as the rest of the request any more.
        case requestUnreadable
        /// The response has been written (or lent to the socket's queue). `persistent`: its framing lets the
        /// connection live.
        case responseEnded(persistent: Bool)
        /// The response cannot be completed.
        case responseBroken
        case switched
        /// The connection speaks HTTP/2.
        case multiplexed
        /// The session has nothing more to say, nor to hear.
        case sessionEnded
        /// Nothing is left to be written.
        case flushed
        /// The peer will send no more.
        case peerEnded
        case broken
        case timedOut
        /// The process is going: this connection serves what it has begun, and no more.
        case drainBegan
    }

    enum Action: UInt8, MachineAction {
        /// Wait for the next request: the keep-alive deadline runs.
        case awaitRequest
        /// Wait for the rest of a head: the head deadline runs.
        case awaitHead
        /// Read and drop the rest of a body that nobody wants.
        case dropRequest
        /// Answer 408 to a head that did not come in time.
        case answerTimeout
        /// Close when the output is empty.
        case closeWhenFlushed
        /// End the writing side and drop what still comes, for a short while: closing with unread bytes in the
        /// socket would make the kernel reset the connection, and the client could lose the response (RFC 9112 §9.6).
        case linger
        case close
        /// Close with a reset, so that a response that is not whole cannot be taken for one.
        case abort
        /// The exchange in progress has lost its client.
        case breakExchange
        /// So have all exchanges of an HTTP/2 connection.
        case breakStreams
        /// Tell an HTTP/2 client that the connection will end.
        case announceEnd
        /// Nothing has come on an HTTP/2 connection for too long: end its session.
        case endSession
    }

    private enum Body: Equatable {
        case open
        case ended
    }

    private enum State: Equatable {
        /// Between requests. Nothing of the next one has been read.
        case idle
        /// A part of a head has been read.
        case readingHead
        /// A request is being served.
        case exchanging(Body, persistent: Bool)
        /// The response is out; the rest of the request is read away so that the next one can be found.
        case dropping(left: Int)
        case tunnelling
        /// The connection carries streams, each with a machine of its own.
        case multiplexing
        /// Something is still to be written, then the connection goes. `linger`: the peer may still be sending.
        case leaving(linger: Bool)
        /// Writing has ended; what still comes is dropped.
        case lingering
        case closed
    }

    /// How much of an unwanted body is read to save a connection; beyond, a new connection is cheaper for both.
    static let dropLimit = 256 * 1024

    private var state: State = .idle
    private var peerHasEnded = false
    private var isDraining = false
    private(set) var unexpected = 0

    typealias List = Actions<Action>

    var isIdle: Bool { state == .idle }
    var readsHead: Bool { state == .idle || state == .readingHead }
    var isClosed: Bool { state == .closed }
    var isLingering: Bool { state == .lingering }
    var isLeaving: Bool {
        switch state {
        case .leaving: true
        case .idle, .readingHead, .exchanging, .dropping, .tunnelling, .multiplexing, .lingering, .closed: false
        }
    }
    var isTunnelling: Bool { state == .tunnelling }
    var isMultiplexing: Bool { state == .multiplexing }
    var isDropping: Bool {
        switch state {
        case .dropping: true
        case .idle, .readingHead, .exchanging, .tunnelling, .multiplexing, .leaving, .lingering, .closed: false
        }
    }
    /// Whether a response may promise that the connection stays.
    var mayPersist: Bool {
        switch state {
        case .exchanging(_, let persistent): persistent && !isDraining && !peerHasEnded
        case .idle, .readingHead, .dropping, .tunnelling, .multiplexing, .leaving, .lingering, .closed: false
        }
    }
    var requestHasEnded: Bool {
        switch state {
        case .exchanging(.ended, _): true
        case .idle, .readingHead, .exchanging, .dropping, .tunnelling, .multiplexing, .leaving, .lingering, .closed:
            false
        }
    }

    mutating func handle(_ event: Event) -> List {
        switch event {
        case .peerEnded: peerHasEnded = true
        case .drainBegan: isDraining = true
        case .broken:
            let was = state
            state = .closed
            switch was {
            case .exchanging, .tunnelling: return List(.breakExchange, .abort)
            case .multiplexing: return List(.breakStreams, .abort)
            case .idle, .readingHead, .dropping, .leaving, .lingering: return List(.abort)
            case .closed: return List()
            }
        case .bytesArrived, .headAdmitted, .headRefused, .requestEnded, .dropped, .requestUnreadable, .responseEnded,
            .responseBroken, .switched, .multiplexed, .sessionEnded, .flushed, .timedOut:
            break
        }
        switch state {
        case .idle: return idle(event)
        case .readingHead: return readingHead(event)
        case .exchanging(let body, let persistent): return exchanging(event, body, persistent)
        case .dropping(let left): return dropping(event, left)
        case .tunnelling: return tunnelling(event)
        case .multiplexing: return multiplexing(event)
        case .leaving(let linger): return leaving(event, linger)
        case .lingering: return lingering(event)
        case .closed: return List()
        }
    }

    private mutating func idle(_ event: Event) -> List {
        switch event {
        case .bytesArrived:
            state = .readingHead
            return List(.awaitHead)
        case .headAdmitted(let body, let persistent):
            state = .exchanging(body ? .open : .ended, persistent: persistent)
            return List()
        case .headRefused:
            state = .exchanging(.open, persistent: false)
            return List()
        case .peerEnded, .timedOut, .drainBegan:
            state = .closed
            return List(.close)
        case .multiplexed:
            state = .multiplexing
            return List()
        case .switched:
            // A connection that is no HTTP is a tunnel from the start.
            state = .tunnelling
            return List()
        case .flushed:
            return List()
        case .requestEnded, .dropped, .requestUnreadable, .responseEnded, .responseBroken, .sessionEnded, .broken:
            return surprised()
        }
    }

    private mutating func readingHead(_ event: Event) -> List {
        switch event {
        case .bytesArrived, .flushed, .drainBegan:
            return List()
        case .headAdmitted(let body, let persistent):
            state = .exchanging(body ? .open : .ended, persistent: persistent)
            return List()
        case .headRefused:
            state = .exchanging(.open, persistent: false)
            return List()
        case .timedOut:
            state = .exchanging(.open, persistent: false)
            return List(.answerTimeout)
        case .peerEnded:
            // Half a request is none, and nobody is left to tell.
            state = .closed
            return List(.close)
        case .multiplexed:
            state = .multiplexing
            return List()
        case .requestEnded, .dropped, .requestUnreadable, .responseEnded, .responseBroken, .switched, .sessionEnded,
            .broken:
            return surprised()
        }
    }

    private mutating func exchanging(_ event: Event, _ body: Body, _ persistent: Bool) -> List {
        switch event {
        case .requestEnded:
            state = .exchanging(.ended, persistent: persistent)
            return List()
        case .requestUnreadable:
            state = .exchanging(.open, persistent: false)
            return List()
        case .responseEnded(let framed):
            if persistent, framed, !isDraining, !peerHasEnded {
                if body == .ended {
                    state = .idle
                    return List(.awaitRequest)
                }
                state = .dropping(left: Self.dropLimit)
                return List(.dropRequest)
            }
            state = .leaving(linger: body == .open && !peerHasEnded)
            return List(.closeWhenFlushed)
        case .responseBroken:
            state = .closed
            return List(.abort)
        case .switched:
            state = .tunnelling
            return List()
        case .peerEnded:
            // A client may end its side and still wait for the response (RFC 9112 §9.6), but not in the middle of
            // its request.
            if body == .ended { return List() }
            state = .closed
            return List(.breakExchange, .close)
        case .timedOut, .drainBegan, .flushed:
            // The exchange has its own deadlines.
            return List()
        case .bytesArrived, .headAdmitted, .headRefused, .dropped, .multiplexed, .sessionEnded, .broken:
            return surprised()
        }
    }

    private mutating func dropping(_ event: Event, _ left: Int) -> List {
        switch event {
        case .dropped(let count):
            if count <= left {
                state = .dropping(left: left - count)
                return List()
            }
            state = .leaving(linger: true)
            return List(.closeWhenFlushed)
        case .requestEnded:
            if isDraining || peerHasEnded {
                state = .leaving(linger: false)
                return List(.closeWhenFlushed)
            }
            state = .idle
            return List(.awaitRequest)
        case .requestUnreadable, .timedOut, .drainBegan:
            state = .leaving(linger: true)
            return List(.closeWhenFlushed)
        case .peerEnded:
            state = .leaving(linger: false)
            return List(.closeWhenFlushed)
        case .flushed:
            return List()
        case .bytesArrived, .headAdmitted, .headRefused, .responseEnded, .responseBroken, .switched, .multiplexed,
            .sessionEnded, .broken:
            return surprised()
        }
    }

    private mutating func multiplexing(_ event: Event) -> List {
        switch event {
        case .sessionEnded:
            state = .leaving(linger: !peerHasEnded)
            return List(.breakStreams, .closeWhenFlushed)
        case .peerEnded:
            state = .closed
            return List(.breakStreams, .close)
        case .drainBegan:
            return List(.announceEnd)
        case .timedOut:
            return List(.endSession)
        case .flushed:
            return List()
        case .bytesArrived, .headAdmitted, .headRefused, .requestEnded, .dropped, .requestUnreadable, .responseEnded,
            .responseBroken, .switched, .multiplexed, .broken:
            return surprised()
        }
    }

    private mutating func tunnelling(_ event: Event) -> List {
        switch event {
        case .responseBroken:
            // Both ends of a tunnel have said that they are done, or one broke: what is queued still goes out.
            state = .leaving(linger: false)
            return List(.closeWhenFlushed)
        case .peerEnded, .drainBegan, .flushed, .timedOut:
            // The exchange owns the tunnel's ends.
            return List()
        case .bytesArrived, .headAdmitted, .headRefused, .requestEnded, .dropped, .requestUnreadable, .responseEnded,
            .switched, .multiplexed, .sessionEnded, .broken:
            return surprised()
        }
    }

    private mutating func leaving(_ event: Event, _ linger: Bool) -> List {
        switch event {
        case .flushed:
            if linger, !peerHasEnded {
                state = .lingering
                return List(.linger)
            }
            state = .closed
            return List(.close)
        case .timedOut:
            state = .closed
            return List(.abort)
        case .peerEnded, .drainBegan, .dropped, .requestEnded, .requestUnreadable, .responseEnded, .responseBroken:
            return List()
        case .bytesArrived, .headAdmitted, .headRefused, .switched, .multiplexed, .sessionEnded, .broken:
            return surprised()
        }
    }

    private mutating func lingering(_ event: Event) -> List {
        switch event {
        case .peerEnded, .timedOut, .drainBegan:
            state = .closed
            return List(.close)
        case .dropped, .flushed:
            return List()
        case .bytesArrived, .headAdmitted, .headRefused, .requestEnded, .requestUnreadable, .responseEnded,
            .responseBroken, .switched, .multiplexed, .sessionEnded, .broken:
            return surprised()
        }
    }

    private mutating func surprised() -> List {
        unexpected += 1
        return List()
    }
}
