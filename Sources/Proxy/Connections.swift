// The three things that a loop holds while a request walks: the connection that it came on, the exchange in flight,
// and the connection that it goes out on. Plain memory, pooled; what they do is in their machines and in the loop.
internal import HTTPWire
internal import Middlewares
internal import Model
internal import Reactor
internal import TLSEngine
internal import Telemetry
internal import Upstreams

/// What kind of row a token names.
enum TokenKind {
    static let listener: UInt8 = 1
    static let mailbox: UInt8 = 2
    static let downstream: UInt8 = 3
    static let upstream: UInt8 = 4
    static let flight: UInt8 = 5
    static let arrival: UInt8 = 6
    /// The streams of an HTTP/2 connection, by the connection's row.
    static let streams: UInt8 = 7
    static let tcpListener: UInt8 = 8
    static let datagramPort: UInt8 = 9
    static let session: UInt8 = 10
}

/// What a connection remembers between edges.
struct ConnectionFlags: OptionSet {
    let rawValue: UInt8

    /// There was an edge, and the socket has not been read dry since.
    static let readable = ConnectionFlags(rawValue: 1)
    /// The peer has ended its side: a short read does not mean dry, the end itself is still to be read.
    static let ended = ConnectionFlags(rawValue: 2)
    /// Stands in the list of those to be taken up at the end of the pass.
    static let queued = ConnectionFlags(rawValue: 4)
    /// The kernel takes no more for now.
    static let blocked = ConnectionFlags(rawValue: 8)
    /// The end of the stream has been read.
    static let endRead = ConnectionFlags(rawValue: 16)
    /// Nothing has been understood of it yet, not even which version it speaks.
    static let fresh = ConnectionFlags(rawValue: 32)
    /// TLS ended at the balancer before us.
    static let secured = ConnectionFlags(rawValue: 64)
}

/// "Never" for a deadline.
let never = UInt64.max

/// One downstream connection, or one stream of an HTTP/2 connection: what an exchange has before it. An idle HTTP/1.1
/// connection holds this and nothing else: no buffer, no exchange.
final class Downstream {
    let socket: Socket
    private(set) var peer: Model.SocketAddress
    /// The port that it was accepted on.
    private(set) var localPort: UInt16
    /// The peer is a proxy whose word about its own clients is taken.
    private(set) var isTrusted: Bool
    var flags: ConnectionFlags = []
    var machine = DownstreamMachine()
    var token = Token(rawValue: 0)
    var parser = HeadParser(.request)
    /// How the body of the current request is framed, and how much of it is still to come.
    var body = BodyDecoder(.none)
    /// The trailers of a body that is only dropped, while they come in parts; nil otherwise.
    var droppedTrailers: DroppedTrailers?
    /// Bytes that were read but not yet understood.
    var input: Buffer?
    /// Bytes that are to be written; over TLS, those that are still to be encrypted.
    var output: Buffer?
    var flight: Flight?
    /// Between the socket and the buffers above, on an HTTPS listener.
    var tls: SecureLayer?
    /// This connection speaks HTTP/2: it carries streams, and no exchange of its own.
    var http2: HTTP2Connection?
    /// This is a stream: its bytes come and go through the connection that carries it.
    var stream: HTTP2Stream?
    var deadline = never
    /// When the wheel will next look at this connection.
    var lookedAt = never

    init(socket: Socket, peer: Model.SocketAddress, localPort: UInt16, isTrusted: Bool) {
        self.socket = socket
        self.peer = peer
        self.localPort = localPort
        self.isTrusted = isTrusted
    }

    /// A stream that has ended becomes the next one. Nothing of the first is left in it.
    func renew(on carrier: Downstream) {
        peer = carrier.peer
        localPort = carrier.localPort
        isTrusted = carrier.isTrusted
        flags = carrier.flags.contains(.secured) ? .secured : []
        machine = DownstreamMachine()
        body = BodyDecoder(.none)
        droppedTrailers = nil
        deadline = never
    }

    /// The TLS of the connection, also for a stream that it carries.
    @inline(__always)
    var secureLayer: SecureLayer? { tls ?? stream?.carrier.tls }

    /// Nothing waits to be written.
    @inline(__always)
    var isFlushed: Bool { output == nil && (tls == nil || tls?.pending == nil) }
}

/// What has been read of trailers that nobody wants: kept for the parser alone, which goes on where it stopped.
final class DroppedTrailers {
    var head: MessageHead

    init(_ head: MessageHead = MessageHead()) { self.head = head }
}

/// One connection to an endpoint, or one stream of a connection that speaks HTTP/2: what an exchange has behind it.
final class UpstreamConnection {
    let socket: Socket
    let endpoint: EndpointID
    /// A request of it is counted at its endpoint.
    var isCounted = true
    var flags: ConnectionFlags = []
    var machine = UpstreamMachine()
    var token = Token(rawValue: 0)
    var parser = HeadParser(.response)
    /// How the body of the current response is framed.
    var body = BodyDecoder(.none)
    /// What the head of the current response said of the connection.
    var keepsAlive = false
    var served = 0
    /// It was said whom it is for: it serves nobody else.
    var isPrivate = false
    /// The table has let go of it already.
    var isForgotten = false
    var input: Buffer?
    /// Bytes that are to be written; over TLS, those that are still to be encrypted.
    var output: Buffer?
    var flight: Flight?
    /// It speaks HTTP/2, or will when it stands: it has streams in place of an exchange of its own.
    var carrier: UpstreamCarrier?
    /// This is a stream: its bytes come and go through the connection that carries it.
    var stream: UpstreamStream?

    /// Whether it is a stream, or carries some.
    @inline(__always)
    var isFramed: Bool { stream != nil || carrier != nil }
    /// What TLS on it was made by; nil without.
    let security: UpstreamSecurity?
    /// Between the socket and the buffers above.
    let tls: SecureLayer?

    init(socket: Socket, endpoint: EndpointID, security: UpstreamSecurity? = nil, tls: SecureLayer? = nil) {
        self.socket = socket
        self.endpoint = endpoint
        self.security = security
        self.tls = tls
    }

    /// Nothing waits to be written.
    @inline(__always)
    var isFlushed: Bool { output == nil && (tls == nil || tls?.pending == nil) }
}

/// A publication as one loop holds it: its scripts, its indices into the loop's upstreams, and how many exchanges are
/// still on it.
final class Pin {
    let publication: Publication
    let middlewares: MiddlewareSet
    let map: UpstreamMap
    let labels: TelemetryLabels
    var flights = 0

    init(publication: Publication, middlewares: MiddlewareSet, map: UpstreamMap) {
        self.publication = publication
        self.middlewares = middlewares
        self.map = map
        labels = publication.labels
    }
}

/// How a body leaves: what a framing of its own on each side needs to know.
enum OutgoingFraming: UInt8 {
    case none
    /// As many bytes as the head says.
    case length
    case chunked
    /// HTTP/2's frames say where it ends.
    case frames
    /// Until the connection ends.
    case close
}

enum DeadlineKind: UInt8 {
    case none
    case connect
    /// The request waits on its connection for the endpoint to take it.
    case turn
    /// The client's turn: its body does not come.
    case requestBody
    case responseHead
    case stream
    case total
}

/// How the downstream connection learns that its exchange is over.
enum Ending: UInt8 {
    /// It is gone, or has taken the matter into its own hands.
    case none
    case complete
    case broken
}

/// An exchange with everything that moves while it is in flight. Pooled by its loop.
final class Flight {
    let index: UInt32
    let exchange = Exchange()
    var machine = ExchangeMachine()
    /// Pins the snapshot and its scripts until the last byte.
    var pin: Pin
    var policy: ResolvedPolicy
    var facts = RequestFacts()
    var downstream: Downstream?
    var upstream: UpstreamConnection?
    var ending = Ending.none
    /// The request phases have begun, so that the log phase must follow.
    var phasesRan = false
    var responsePhasesRan = false
    var continueWasSent = false
    var isTunnel = false
    /// It began as one: there is no request.
    var isRelay = false
    /// The endpoint is told first whom the connection is for.
    var proxyHeader: ProxyProtocolVersion?
    /// As whom a balancer presented the client of a relay: said on as it was.
    var introduction: ProxyHeader?
    /// The answer is a redirect to HTTPS.
    var isRedirect = false
    /// Where a client without a good certificate is sent; empty without.
    var errorPage: [UInt8] = []
    /// It was refused for its certificate, by the host that a script has led it to.
    var clientReason = FailureReason.none
    /// The request is answered by the page for clients without a good certificate.
    var isErrorPage = false

    // MARK: The request, on its way
    /// The encoded head, and as much of the body as is kept to be sent again.
    var outgoing: Buffer?
    /// What has gone of the body over HTTP/2, as much of it as is kept to be sent again.
    var sentBody: Buffer?
    /// Attempts that no endpoint has seen anything of.
    var moves: UInt8 = 0
    /// `outgoing` has not been written yet on this attempt.
    var outgoingPending = false
    /// All that was taken from the client is still in `outgoing`, so that it could be sent again.
    var isReplayable = true
    /// Something of this attempt has been handed to the kernel.
    var attemptWasSent = false
    /// `exchange.upstream` in this loop's table.
    var target = UpstreamID.none
    var tried = TriedEndpoints()
    /// The last connection from the pool was dead: the next one is made new.
    var needsFresh = false
    var lastFailure = FailureReason.none
    /// The endpoint has reset its stream, and says why (RFC 9113 §7): of an exchange that ends as `upstreamReset`.
    var resetCode: UInt32?
    var requestFraming = OutgoingFraming.none
    var requestTrailers = MessageHead()
    /// Body bytes that came from the client.
    var requestBodyBytes: UInt64 = 0
    /// A tunnel's side has ended: said to the other once what is queued for it has gone.
    var upstreamWritesEnd = false
    var downstreamWritesEnd = false
    /// Where bodies are changed on their way; nil for nearly all.
    var recoding: Recoding?

    // MARK: The response, on its way
    var responseFacts = ResponseFacts()
    var responseFraming = OutgoingFraming.none
    var responseTrailers = MessageHead()
    /// What a refused head is answered with, where that is not what its reason says; 0 takes the reason's.
    var refusedStatus: UInt16 = 0
    /// The response lets the downstream connection live.
    var isPersistent = true

    // MARK: Time
    var deadline = never
    var deadlineKind = DeadlineKind.none
    var totalDeadline = never
    var lookedAt = never
    /// Until when the client's body may take as a whole: each byte that comes adds to it.
    var bodyAllowance: UInt64 = 0

    init(index: UInt32, pin: Pin, policy: ResolvedPolicy) {
        self.index = index
        self.pin = pin
        self.policy = policy
    }

    /// Ready for the next exchange. The wheel may still hold an entry for this row: `lookedAt` stays.
    func recycle() {
        exchange.reset()
        machine = ExchangeMachine()
        facts = RequestFacts()
        ending = .none
        phasesRan = false
        responsePhasesRan = false
        continueWasSent = false
        isTunnel = false
        if isRelay { introduction = nil }
        isRelay = false
        proxyHeader = nil
        isRedirect = false
        if !errorPage.isEmpty { errorPage = [] }
        clientReason = .none
        isErrorPage = false
        outgoingPending = false
        moves = 0
        isReplayable = true
        attemptWasSent = false
        tried.removeAll()
        needsFresh = false
        lastFailure = .none
        resetCode = nil
        requestFraming = .none
        if !requestTrailers.fields.isEmpty { requestTrailers.removeAll() }
        if !responseTrailers.fields.isEmpty { responseTrailers.removeAll() }
        refusedStatus = 0
        requestBodyBytes = 0
        upstreamWritesEnd = false
        downstreamWritesEnd = false
        responseFacts = ResponseFacts()
        responseFraming = .none
        isPersistent = true
        deadline = never
        deadlineKind = .none
        totalDeadline = never
        bodyAllowance = 0
    }
}

extension NetworkAddress {
    init(_ address: Model.SocketAddress) {
        self =
            address.ip.isV4
            ? NetworkAddress(v4: address.ip.v4, port: address.port)
            : NetworkAddress(v6High: address.ip.high, low: address.ip.low, port: address.port)
    }
}

extension Model.SocketAddress {
    init(_ address: NetworkAddress) {
        switch address.family {
        case .v4: self.init(ip: IPAddress(v4: UInt32(truncatingIfNeeded: address.low)), port: address.port)
        case .v6: self.init(ip: IPAddress(high: address.high, low: address.low), port: address.port)
        }
    }
}

/// What upstreams are told of one client, formatted once.
final class ForwardingEntry {
    let peer: IPAddress
    let client: IPAddress
    let port: UInt16
    let isSecure: Bool
    let text: ForwardingText

    init(peer: IPAddress, client: IPAddress, port: UInt16, isSecure: Bool, rules: ForwardingRules) {
        self.peer = peer
        self.client = client
        self.port = port
        self.isSecure = isSecure
        text = ForwardingText(peer: peer, client: client, isSecure: isSecure, port: port, rules: rules)
    }
}
