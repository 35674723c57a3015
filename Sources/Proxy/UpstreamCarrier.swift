// What an upstream connection holds when it speaks HTTP/2: the session, and for each exchange that it carries an
// `UpstreamConnection` of its own, so that an exchange has the same thing behind it as over HTTP/1.1. A stream has no
// socket. Its bytes pass through the connection that carries it. (See HTTP2Connection.swift for the near side.)
internal import HTTP2Engine
internal import Model
internal import Reactor

/// Belongs to the connection's `UpstreamConnection`.
final class UpstreamCarrier {
    let session: HTTP2Session
    /// Streams that wait for the connection to stand.
    var waiting: [Token] = []
    /// Streams that there are: those that wait, those that the session knows, and those whose response is all there and
    /// on its way to a slow client.
    var streams = 0
    /// The endpoint takes no more of them.
    var isGoingAway = false
    /// It is to be closed when nothing is on it.
    var isLeaving = false
    /// It takes no more bytes: what it has said before is read, and then it is closed.
    var isBroken = false
    /// When something last came on it, in nanoseconds.
    var heardAt: UInt64 = 0
    /// Something that was read in this turn was compressed.
    var isRecoding = false
    /// It counts as idle.
    var isParked = false
    /// Why its streams break when it does.
    var reason = FailureReason.upstreamClosed
    /// Why the TLS handshake came to nothing, if it did.
    var handshakeFailure = FailureReason.none

    init(session: HTTP2Session) { self.session = session }
}

/// What makes an `UpstreamConnection` a stream.
final class UpstreamStream {
    /// The connection that it is on.
    let carrier: UpstreamConnection
    /// Nil until its request has been made.
    var handle: HTTP2Handle?
    /// The last of the response has come.
    var inputEnded = false
    /// The last of the request has been framed.
    var outputEnded = false
    /// The session has let go of it.
    var isGone = false
    /// The endpoint has reset it, and says why (RFC 9113 §7).
    var resetCode: UInt32?
    /// Informational responses that have come: an endpoint may send a few, and not a flood.
    var hints = 0

    static let mostHints = 32

    init(carrier: UpstreamConnection) { self.carrier = carrier }
}
