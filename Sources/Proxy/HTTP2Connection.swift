// What a downstream connection holds when it speaks HTTP/2: the session, and for each stream a `Downstream` of its own,
// so that an exchange has the same thing before it as over HTTP/1.1: where its body comes from and its response goes to.
// A stream has no socket. Its bytes pass through the connection that carries it.
internal import HTTP2Engine

/// Belongs to the connection's `Downstream`.
final class HTTP2Connection {
    enum Farewell: UInt8 {
        case none
        /// The client has been told that the end is near; what it sends meanwhile is served.
        case announced
        /// No new streams are taken.
        case said
    }

    /// Whose turn it is, for the connection's own deadline.
    enum Turn: UInt8 {
        /// Just begun: the deadline of the first head still runs.
        case beginning
        /// No stream is open.
        case idle
        /// A header block has begun.
        case head
        /// The exchanges have deadlines of their own.
        case exchanges
    }

    let session: HTTP2Session
    var farewell = Farewell.none
    var turn = Turn.beginning
    /// The wheel will look at the streams' deadlines: one entry for all of them, however many come and go.
    var isWatched = false
    /// Streams that are reset when what they hold has gone.
    var breaking: [UInt64] = []
    /// Streams that are reset in the bytes that are being read, and begin in them.
    var doomed: Set<Int32> = []

    init(session: HTTP2Session) { self.session = session }
}

/// What makes a `Downstream` a stream.
final class HTTP2Stream {
    /// The connection that it came on.
    var carrier: Downstream
    private(set) var handle: HTTP2Handle
    /// The client has sent the last of it.
    var inputEnded: Bool
    /// The response has a body, which ends with a frame of its own.
    var hasBody = false
    /// The session has let go of it.
    var isGone = false
    /// The last frame of our side has gone.
    var isFinished = false
    /// It carries a WebSocket (RFC 8441).
    var isTunnel = false
    /// The head of its response has been submitted.
    var hasBegun = false
    /// It ends with a reset, and with no frame of its own.
    var isBreaking = false

    init(carrier: Downstream, handle: HTTP2Handle, inputEnded: Bool) {
        self.carrier = carrier
        self.handle = handle
        self.inputEnded = inputEnded
    }

    func renew(carrier: Downstream, handle: HTTP2Handle, inputEnded: Bool) {
        self.carrier = carrier
        self.handle = handle
        self.inputEnded = inputEnded
        hasBody = false
        isGone = false
        isFinished = false
        isTunnel = false
        hasBegun = false
        isBreaking = false
    }
}
