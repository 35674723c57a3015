// The far side of a request's walk: one connection to one endpoint, and whether it may carry another exchange.

/// The life of one upstream connection, or of one stream of a connection that speaks HTTP/2: a stream is a connection
/// that carries one exchange, and goes.
///
/// ```
///              connected              released             leased
///  connecting ───────────▶ leased ───────────────▶ pooled ─────────▶ leased …
///      │ │ established  ▲     │ discarded, ended      │ ended, bytes, timedOut
///      │ └─▶ securing ──┘     │                       │
///      │        │ connected   │                       │
///      └────────┴─────────────┴────────────▶ closed ◀─┘
///        failed, timedOut
///
///         multiplexed              ended, failed, timedOut, discarded
///  leased ───────────▶ multiplexing ────────────────────────────────▶ closed
/// ```
struct UpstreamMachine {
    enum Event: Equatable, Sendable {
        /// The socket is connected, and TLS is to be spoken on it: the handshake begins.
        case established
        /// Requests may go out: the socket is connected, and the handshake done where there is one.
        case connected
        case failed
        case timedOut
        /// The exchange is complete and left nothing behind.
        case released
        case leased
        /// The exchange has no more use for it, and nobody else can have one.
        case discarded
        /// The endpoint has ended or broken the connection.
        case ended
        /// Bytes came that nobody asked for: whatever they are, they are no response to the next request
        /// (RFC 9112 §9.2: response smuggling).
        case bytesArrived
        /// The connection speaks HTTP/2: it carries streams, each with a machine of its own.
        case multiplexed
    }

    enum Action: UInt8, MachineAction {
        /// Tell the exchange that its connection is there.
        case reportConnected
        /// Tell the exchange that this attempt is over.
        case reportFailed
        /// Tell the exchange that the stream ended.
        case reportEnded
        case reportTimeout
        /// The same, of a handshake that did not end in time.
        case reportHandshakeTimeout
        case shakeHands
        case pool
        case unpool
        case read
        case close
        /// The exchanges on its streams have lost their connection.
        case breakStreams
    }

    private enum State: Equatable {
        case connecting
        /// The socket is connected; the TLS handshake is under way.
        case securing
        case leased(reused: Bool)
        case pooled
        case multiplexing
        case closed
    }

    private var state: State
    private(set) var unexpected = 0

    typealias List = Actions<Action>

    init() { state = .connecting }

    /// A stream of a connection that stands already, and has carried others.
    static func joined() -> UpstreamMachine {
        var machine = UpstreamMachine()
        machine.state = .leased(reused: true)
        return machine
    }

    /// No exchange can use it yet.
    var isConnecting: Bool { state == .connecting || state == .securing }
    var isSecuring: Bool { state == .securing }
    var isPooled: Bool { state == .pooled }
    var isClosed: Bool { state == .closed }
    var isMultiplexing: Bool { state == .multiplexing }
    /// It has carried an exchange before: it may die under the next one through nobody's fault.
    var isReused: Bool { state == .leased(reused: true) }

    mutating func handle(_ event: Event) -> List {
        switch state {
        case .connecting:
            switch event {
            case .connected:
                state = .leased(reused: false)
                return List(.reportConnected)
            case .failed, .ended:
                state = .closed
                return List(.close, .reportFailed)
            case .timedOut:
                state = .closed
                return List(.close, .reportTimeout)
            case .discarded:
                state = .closed
                return List(.close)
            case .established:
                state = .securing
                return List(.shakeHands)
            case .released, .leased, .bytesArrived, .multiplexed: return surprised()
            }
        case .securing:
            switch event {
            case .connected:
                state = .leased(reused: false)
                return List(.reportConnected)
            case .failed, .ended:
                state = .closed
                return List(.close, .reportFailed)
            case .timedOut:
                state = .closed
                return List(.close, .reportHandshakeTimeout)
            case .discarded:
                state = .closed
                return List(.close)
            case .established, .released, .leased, .bytesArrived, .multiplexed: return surprised()
            }
        case .leased:
            switch event {
            case .released:
                state = .pooled
                return List(.pool)
            case .discarded:
                state = .closed
                return List(.close)
            case .ended, .failed: return List(.reportEnded)
            case .bytesArrived: return List(.read)
            case .timedOut: return List()
            case .multiplexed:
                state = .multiplexing
                return List()
            case .established, .connected, .leased: return surprised()
            }
        case .pooled:
            switch event {
            case .leased:
                state = .leased(reused: true)
                return List()
            case .ended, .failed, .timedOut, .bytesArrived, .discarded:
                state = .closed
                return List(.unpool, .close)
            case .established, .connected, .released, .multiplexed: return surprised()
            }
        case .multiplexing:
            switch event {
            case .ended, .failed, .timedOut, .discarded:
                state = .closed
                // Closed first: what its exchanges do next must not find it again.
                return List(.close, .breakStreams)
            case .established, .connected, .released, .leased, .bytesArrived, .multiplexed: return surprised()
            }
        case .closed:
            return List()
        }
    }

    private mutating func surprised() -> List {
        unexpected += 1
        return List()
    }
}
