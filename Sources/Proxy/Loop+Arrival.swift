// Before the first step of a request's walk: a connection of which it is not known yet who it is from, or whose TLS it
// carries. What tells comes first: a PROXY protocol header, a ClientHello. Then it becomes what every other connection
// is from the start, with the bytes that are already read.
internal import HTTPWire
internal import Model
internal import Reactor
internal import TLSEngine

/// What is spoken on a listener.
enum ListenerKind: UInt8, Sendable {
    case http
    case https
    /// Bytes of any kind: a TCP service.
    case stream
}

/// An accepted connection, as far as it is known whose it is.
struct Newcomer {
    let socket: Socket
    /// Who is taken for the other end: the peer of the TCP connection, or whom a trusted balancer says.
    var peer: Model.SocketAddress
    /// Where it was accepted, or where the balancer says that it was.
    var port: UInt16
    /// Of the listener itself.
    let localPort: UInt16
    let kind: ListenerKind
    var isTrusted: Bool
    /// The balancer's port was that of HTTPS: TLS ended there.
    var isSecured = false
    /// As whom the balancer presented it.
    var introduction: ProxyHeader?
    /// What its ClientHello asks for, where that leads to a relay.
    var serverName: [UInt8] = []
}

/// A connection that still has to say something before it is served. Rare: without a PROXY protocol and without hosts
/// whose TLS is passed through there are none.
final class Arrival {
    enum Stage {
        /// A trusted balancer says whom it speaks for.
        case proxyHeader
        /// The client says to which host it wants to speak TLS.
        case clientHello
    }

    var newcomer: Newcomer
    var stage: Stage
    /// Counted among the connections of its client.
    var isCounted = false
    var token = Token(rawValue: 0)
    var input: Buffer?
    var hello = ClientHello.Scan()
    /// The peer's end has been seen: what it sent before is served all the same.
    var hasEnded = false
    var deadline = never

    init(_ newcomer: Newcomer, _ stage: Stage) {
        self.newcomer = newcomer
        self.stage = stage
    }
}

extension Loop {
    // MARK: Beginning

    /// A connection was accepted. The loop owns it from here on.
    func accepted(
        _ socket: Socket, peer: Model.SocketAddress, localPort: UInt16, kind: ListenerKind = .http
    ) {
        if configuration.maxConnections > 0, telemetry.connections >= configuration.maxConnections {
            transport.abort(socket)
            telemetry.connectionRefused()
            return
        }
        let newcomer = Newcomer(
            socket: socket, peer: peer, port: localPort, localPort: localPort, kind: kind, isTrusted: isTrusted(peer.ip)
        )
        if newcomer.isTrusted, expectsProxyHeader(newcomer) {
            // Nobody's yet: it counts for the client that the header names.
            arrive(newcomer, .proxyHeader)
            return
        }
        welcome(newcomer, nil)
    }

    func isTrusted(_ ip: IPAddress) -> Bool { configuration.trustedProxies.contains { $0.contains(ip) } }

    /// Whether a client that a balancer names is itself a proxy to be believed.
    private func isTrustedBehindBalancer(_ ip: IPAddress) -> Bool { believedProxies.contains { $0.contains(ip) } }

    private func expectsProxyHeader(_ newcomer: Newcomer) -> Bool {
        newcomer.kind == .stream
            ? current.publication.relays.target(port: newcomer.localPort)?.acceptsProxyHeader ?? false
            : configuration.usesProxyProtocol
    }

    /// The client is known: may it come in, and is there more to be found out?
    private func welcome(_ newcomer: Newcomer, _ arrival: Arrival?) {
        if !newcomer.isTrusted, let clients, !clients.enter(newcomer.peer.ip) {
            refuse(newcomer, arrival)
            return
        }
        arrival?.isCounted = !newcomer.isTrusted
        guard newcomer.kind == .https, current.publication.relays.hasHosts else {
            settle(newcomer, arrival)
            return
        }
        guard let arrival else {
            arrive(newcomer, .clientHello, isCounted: !newcomer.isTrusted)
            return
        }
        arrival.stage = .clientHello
        limit(arrival, to: configuration.timeouts.handshake)
        understand(arrival)
    }

    /// Nothing more is to be found out.
    private func settle(_ newcomer: Newcomer, _ arrival: Arrival?) {
        let early = arrival?.input
        arrival?.input = nil
        let hasEnded = arrival?.hasEnded ?? false
        var handshakeEnd = never
        if let arrival, arrival.stage == .clientHello { handshakeEnd = arrival.deadline }
        if let arrival {
            arrivals.remove(index: arrival.token.index, generation: arrival.token.generation)
        } else {
            telemetry.connectionOpened()
        }
        begin(
            newcomer, early: early, hasEnded: hasEnded, isRegistered: arrival != nil, handshakeEnd: handshakeEnd)
    }

    private func refuse(_ newcomer: Newcomer, _ arrival: Arrival?) {
        telemetry.connectionRefused()
        if let arrival {
            drop(arrival, abort: true)
        } else {
            transport.abort(newcomer.socket)
        }
    }

    private func arrive(_ newcomer: Newcomer, _ stage: Arrival.Stage, isCounted: Bool = false) {
        let a = Arrival(newcomer, stage)
        a.isCounted = isCounted
        let row = arrivals.insert(a)
        a.token = Token(kind: TokenKind.arrival, index: row.index, generation: row.generation)
        telemetry.connectionOpened()
        guard transport.register(newcomer.socket, a.token) else {
            drop(a, abort: true)
            return
        }
        let timeouts = configuration.timeouts
        limit(a, to: stage == .proxyHeader ? timeouts.proxyHeader : timeouts.handshake)
    }

    /// A length of 0 is no limit.
    private func limit(_ a: Arrival, to milliseconds: UInt64) {
        a.deadline = milliseconds == 0 ? never : now &+ milliseconds
        if milliseconds != 0 { _ = wheel.schedule(a.token, at: a.deadline) }
    }

    /// The connection ends before it was anything.
    func drop(_ a: Arrival, abort: Bool) {
        giveBack(&a.input)
        arrivals.remove(index: a.token.index, generation: a.token.generation)
        if a.isCounted { clients?.leave(a.newcomer.peer.ip) }
        if abort { transport.abort(a.newcomer.socket) } else { transport.close(a.newcomer.socket) }
        telemetry.connectionClosed()
    }

    // MARK: Events

    func handle(_ a: Arrival, _ readiness: Readiness) {
        if readiness.isBroken {
            ended(a)
            return
        }
        guard readiness.invitesReading else { return }
        // As much as it may take, and no more: what comes behind is read by whoever gets the connection.
        while true {
            if let input = a.input, input.count >= ClientHello.maxCount { break }
            let input = reserve(&a.input, 4096)
            let room = input.room
            switch transport.read(a.newcomer.socket, into: input) {
            case .bytes(let n):
                if n < room, !readiness.isOver { break } else { continue }
            case .wouldBlock: break
            case .end: a.hasEnded = true
            case .failed:
                ended(a)
                return
            }
            break
        }
        understand(a)
    }

    func timedOut(_ a: Arrival) {
        guard a.deadline <= now else {
            // An entry of an earlier stage, or the wheel does not reach as far.
            if a.deadline != never { _ = wheel.schedule(a.token, at: a.deadline) }
            return
        }
        switch a.stage {
        case .proxyHeader: headerFailed(a, .timeout)
        case .clientHello:
            telemetry.handshakeFailed(.timeout)
            drop(a, abort: false)
        }
    }

    private func ended(_ a: Arrival) {
        switch a.stage {
        case .proxyHeader:
            // Who says nothing at all has only looked whether the port is open.
            if a.input?.isEmpty ?? true { drop(a, abort: false) } else { headerFailed(a, .cut) }
        case .clientHello:
            if let input = a.input, !input.isEmpty { telemetry.handshakeFailed(.cut) }
            drop(a, abort: false)
        }
    }

    private func headerFailed(_ a: Arrival, _ fault: ProxyHeaderFault) {
        telemetry.proxyHeaderFailed(fault, a.newcomer)
        drop(a, abort: false)
    }

    private func understand(_ a: Arrival) {
        switch a.stage {
        case .proxyHeader:
            guard let input = a.input else { return }
            switch ProxyHeader.parse(input.span) {
            case .needMore:
                if a.hasEnded { ended(a) }
            case .failed(let fault):
                headerFailed(a, fault)
            case .complete(let header, let consumed):
                input.consume(consumed)
                if input.isEmpty { giveBack(&a.input) }
                introduce(a, header)
            }
        case .clientHello:
            if let input = a.input {
                switch a.hello.next(input.span) {
                case .needMore: break
                case .other:
                    settle(a.newcomer, a)
                    return
                case .complete(let name):
                    if current.publication.relays.target(host: name) != nil { a.newcomer.serverName = name }
                    settle(a.newcomer, a)
                    return
                }
            }
            if a.hasEnded { ended(a) }
        }
    }

    /// The balancer has said whom it speaks for; of a connection of its own (LOCAL) it is the client itself. Whom it does not
    /// name is anybody: what comes is not the balancer's word.
    private func introduce(_ a: Arrival, _ header: ProxyHeader) {
        a.newcomer.introduction = header
        if let ends = header.ends {
            a.newcomer.peer = ends.source
            a.newcomer.isTrusted = isTrustedBehindBalancer(ends.source.ip)
            if a.newcomer.kind != .stream {
                a.newcomer.port = ends.destination.port
                a.newcomer.isSecured = ends.destination.port == 443
            }
        } else if !header.isLocal {
            a.newcomer.isTrusted = false
        }
        a.deadline = never
        welcome(a.newcomer, a)
    }
}
