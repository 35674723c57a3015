// UDP services: datagrams of clients, each to the endpoint of its client's session, and what comes back.
//
// The kernel gives the datagrams of one client always to the same loop (SO_REUSEPORT, by the addresses of both ends), so that
// a session lives on one loop, as connections do. It has a socket of its own, which is connected to its endpoint: nobody
// else's answers come in by it, and the kernel tells when nobody is there. Nothing is kept of a datagram: what can't be sent
// at once is lost and counted, as it may be on any other part of its way. And nothing is sent to a client but what its
// endpoint has sent for it: whoever writes another's address on a datagram gets no more to him than by asking the Service itself.
internal import Model
internal import Reactor
internal import Telemetry
internal import Upstreams

/// A port of UDP services on one loop.
final class DatagramPort {
    let id: UInt32
    let listener: Listener
    let token: Token
    var flags: ConnectionFlags = []

    init(_ port: PortListener) {
        id = port.id
        listener = port.listener
        token = Token(kind: TokenKind.datagramPort, index: port.id, generation: 0)
    }

    var number: UInt16 { listener.address.port }

    /// Whether this sender is one of our own ports: who answered it would answer itself for ever.
    func isOwn(_ peer: NetworkAddress, _ local: NetworkAddress?) -> Bool {
        peer.port == number && (peer.hasSameHost(listener.address) || local.map { peer.hasSameHost($0) } ?? false)
    }
}

/// By what a session is found: the client, and where it has sent its datagrams.
struct SessionKey: Hashable {
    let client: NetworkAddress
    let local: NetworkAddress?
    let port: UInt32
}

final class DatagramSession {
    let key: SessionKey
    let port: DatagramPort
    let started: UInt64
    var machine: SessionMachine
    var token = Token(rawValue: 0)
    var flags: ConnectionFlags = []
    /// Counted among those of its client.
    let isCounted: Bool
    /// Connected to the endpoint; none without one.
    var socket = Socket.none
    var endpoint: EndpointID?
    /// It is known to be there.
    var isVouchedFor = false
    var tried = TriedEndpoints()
    /// The service, as in `Exchange.relay`, and its upstream, as in `Exchange.upstream`.
    var relay: Int32
    var upstream: Int32
    /// The upstream in the loop's own table, when the endpoint was chosen.
    var target: UpstreamID
    /// When the client last sent something, in milliseconds.
    var askedAt: UInt64 = 0
    /// When something last passed, in nanoseconds.
    var movedAt: UInt64
    var deadline = never
    var lookedAt = never

    // MARK: For the log
    var address: Model.SocketAddress?
    var chosenAt: UInt64 = 0
    var attempts: UInt16 = 0
    var reason = FailureReason.none
    var datagramsIn: UInt64 = 0
    var datagramsOut: UInt64 = 0
    var bytesIn: UInt64 = 0
    var bytesOut: UInt64 = 0

    init(
        key: SessionKey, port: DatagramPort, target: RelayTarget, upstream: UpstreamID, answersWanted: UInt64,
        isCounted: Bool, now: UInt64
    ) {
        self.key = key
        self.port = port
        machine = SessionMachine(answersWanted: answersWanted)
        relay = target.index
        self.upstream = target.upstream
        self.target = upstream
        self.isCounted = isCounted
        started = now
        movedAt = now
    }
}

/// What a loop has of UDP services.
final class Datagrams {
    fileprivate(set) var ports: [UInt32: DatagramPort] = [:]
    /// Ports with lower numbers have been here.
    fileprivate var nextPort: UInt32 = 0
    fileprivate(set) var sessions = Slab<DatagramSession>()
    fileprivate var byKey: [SessionKey: DatagramSession] = [:]
    fileprivate var shares: SessionShares
    /// New clients are not served any more.
    var refusesClients = false
    /// Made with the first port.
    fileprivate var batch: DatagramBatch?
    /// What the log is told of a session.
    fileprivate let record = Exchange()
    /// The datagrams at hand have looked for another endpoint so many times.
    fileprivate var moves = 0
    fileprivate var dropReason = DatagramDrop.noEndpoint

    init(most: Int) { shares = SessionShares(most: most) }
}

extension Loop {
    /// Answers taken from one session at a time: few are waiting there, and each that is asked for has its price.
    private var answersAtOnce: Int { 8 }

    // MARK: Ports

    /// These ports, and no others. The sessions of those that go end with them: there is no way back to their clients.
    func listen(_ wanted: [PortListener]) {
        let d = datagrams
        let new = wanted.filter { $0.id >= d.nextPort }
        for port in new { d.nextPort = max(d.nextPort, port.id + 1) }
        guard !d.refusesClients else {
            for port in new { port.listener.close() }
            return
        }
        let kept = Set(wanted.map(\.id))
        for port in d.ports.values where !kept.contains(port.id) { close(port) }
        for made in new {
            let port = DatagramPort(made)
            if d.batch == nil { d.batch = DatagramBatch() }
            d.ports[port.id] = port
            if !transport.watch(made.listener.socket, port.token) {
                // No memory to watch one more: here nobody would ever look.
                close(port)
                telemetry.bug()
            }
        }
    }

    private func close(_ port: DatagramPort) {
        for s in datagrams.sessions.elements where s.port === port { perform(s, .portClosed) }
        datagrams.ports[port.id] = nil
        transport.close(port.listener.socket)
    }

    /// Every session ends, and every port closes.
    func closeDatagrams() {
        for port in Array(datagrams.ports.values) { close(port) }
    }

    // MARK: Events

    func handleDatagrams(_ event: Event) {
        guard event.readiness.invitesReading else { return }
        if event.token.kind == TokenKind.session {
            guard let s = datagrams.sessions[token: event.token] else { return }
            s.flags.insert(.readable)
            advance(s)
        } else if let port = datagrams.ports[event.token.index] {
            port.flags.insert(.readable)
            advance(port)
        }
    }

    /// Takes up what was put off.
    func resumeDatagrams(_ token: Token) {
        if token.kind == TokenKind.session {
            guard let s = datagrams.sessions[token: token] else { return }
            s.flags.remove(.queued)
            advance(s)
        } else if let port = datagrams.ports[token.index] {
            port.flags.remove(.queued)
            advance(port)
        }
    }

    private func putOff(_ flags: inout ConnectionFlags, _ token: Token) {
        if flags.contains(.queued) { return }
        flags.insert(.queued)
        ready.append(token)
    }

    // MARK: From clients

    private func advance(_ port: DatagramPort) {
        guard let batch = datagrams.batch, port.flags.contains(.readable) else { return }
        var failures = 0
        for _ in 0..<4 {
            switch transport.receive(
                port.listener.socket, into: batch, isAddressed: true, most: DatagramBatch.capacity)
            {
            case .count(let n):
                take(batch, n, port)
                // The next one makes an edge of its own.
                if n < DatagramBatch.capacity {
                    port.flags.remove(.readable)
                    return
                }
            case .wouldBlock:
                port.flags.remove(.readable)
                return
            case .unreachable, .tooLong:
                // It was about something that has been sent, and is over with being told.
                continue
            case .failed:
                // What fails for ever is not tried for ever: the next datagram makes an edge.
                failures += 1
                guard failures > 1 else { continue }
                port.flags.remove(.readable)
                return
            }
        }
        // Others have their turn.
        putOff(&port.flags, port.token)
    }

    private func take(_ batch: DatagramBatch, _ n: Int, _ port: DatagramPort) {
        var i = 0
        while i < n {
            guard let peer = batch.peer(i), !batch.isCut(i) else {
                telemetry.datagramsDropped(.tooLong, 1)
                i += 1
                continue
            }
            let local = batch.local(i)
            // What comes from one client in a row goes out in one call.
            var end = i + 1
            while end < n, batch.peer(end) == peer, batch.local(end) == local, !batch.isCut(end) { end += 1 }
            take(batch, i..<end, from: peer, to: local, port)
            i = end
        }
    }

    private func take(
        _ batch: DatagramBatch, _ range: Range<Int>, from peer: NetworkAddress, to local: NetworkAddress?,
        _ port: DatagramPort
    ) {
        let key = SessionKey(client: peer, local: local, port: port.id)
        guard let s = datagrams.byKey[key] ?? begin(key, port, range.count) else { return }
        datagrams.moves = 0
        perform(s, .clientSent(range.count), range)
        // One that has ended at once leaves nothing in the wheel.
        guard !s.machine.isOver else { return }
        s.askedAt = now
        touch(s)
    }

    /// A new client, if there is room for one.
    private func begin(_ key: SessionKey, _ port: DatagramPort, _ count: Int) -> DatagramSession? {
        let d = datagrams
        let ip = Model.SocketAddress(key.client).ip
        guard key.client.port != 0, !d.ports.values.contains(where: { $0.isOwn(key.client, key.local) }) else {
            telemetry.datagramsDropped(.badSender, count)
            return nil
        }
        guard !d.refusesClients, let target = current.publication.relays.sessionTarget(port: port.number) else {
            telemetry.datagramsDropped(d.refusesClients ? .draining : .noEndpoint, count)
            return nil
        }
        guard d.shares.enter(port.number) else {
            telemetry.datagramsDropped(.sessionLimit, count)
            return nil
        }
        var isCounted = false
        if let clients = sessionClients, !isTrusted(ip) {
            guard clients.enter(ip) else {
                d.shares.leave(port.number)
                telemetry.datagramsDropped(.clientLimit, count)
                return nil
            }
            isCounted = true
        }
        let s = DatagramSession(
            key: key, port: port, target: target, upstream: current.map[Int(target.upstream)],
            answersWanted: configuration.sessions.answers, isCounted: isCounted, now: nowNanoseconds)
        let row = d.sessions.insert(s)
        s.token = Token(kind: TokenKind.session, index: row.index, generation: row.generation)
        d.byKey[key] = s
        telemetry.sessionBegan(s.relay, current)
        return s
    }

    private func forward(_ s: DatagramSession, _ range: Range<Int>) {
        guard let batch = datagrams.batch else { return }
        var rest = range
        while !rest.isEmpty {
            switch transport.send(batch, rest, s.socket, to: nil, from: nil) {
            case .count(let n):
                let sent = rest.prefix(n)
                var bytes = 0
                for i in sent { bytes += batch.length(i) }
                s.datagramsIn &+= UInt64(sent.count)
                s.bytesIn &+= UInt64(bytes)
                telemetry.datagramsCame(sent.count, bytes, s.relay, current)
                // The kernel would have told of an earlier one now.
                vouchAfterAWhile(s)
                rest = rest.dropFirst(sent.count)
            case .wouldBlock:
                telemetry.datagramsDropped(.blocked, rest.count)
                return
            case .tooLong:
                telemetry.datagramsDropped(.tooLong, 1)
                rest = rest.dropFirst()
            case .unreachable:
                // Of what was sent before: this here has not gone anywhere yet.
                perform(s, .endpointFailed)
                datagrams.moves += 1
                if datagrams.moves <= configuration.retry.attempts {
                    perform(s, .clientSent(0), rest)
                } else {
                    telemetry.datagramsDropped(.unreachable, rest.count)
                }
                return
            case .failed:
                telemetry.datagramsDropped(.failed, 1)
                rest = rest.dropFirst()
            }
        }
    }

    // MARK: From endpoints

    private func advance(_ s: DatagramSession) {
        guard let batch = datagrams.batch, s.flags.contains(.readable) else { return }
        var failures = 0
        for _ in 0..<4 {
            guard s.machine.isBound else {
                s.flags.remove(.readable)
                return
            }
            switch transport.receive(s.socket, into: batch, isAddressed: false, most: answersAtOnce) {
            case .count(let n):
                touch(s)
                perform(s, .endpointSent(n), 0..<n)
                if n < answersAtOnce {
                    s.flags.remove(.readable)
                    return
                }
            case .wouldBlock:
                s.flags.remove(.readable)
                return
            case .unreachable:
                // What it has said before it went is lost with it.
                perform(s, .endpointFailed)
            case .tooLong:
                continue
            case .failed:
                failures += 1
                guard failures > 1 else { continue }
                s.flags.remove(.readable)
                return
            }
        }
        putOff(&s.flags, s.token)
    }

    private func deliver(_ s: DatagramSession, _ range: Range<Int>) {
        guard let batch = datagrams.batch else { return }
        var rest = range
        while !rest.isEmpty {
            var whole = rest.lowerBound
            while whole < rest.upperBound, !batch.isCut(whole) { whole += 1 }
            guard whole > rest.lowerBound else {
                telemetry.datagramsDropped(.tooLong, 1)
                rest = rest.dropFirst()
                continue
            }
            switch transport.send(
                batch, rest.lowerBound..<whole, s.port.listener.socket, to: s.key.client, from: s.key.local)
            {
            case .count(let n):
                let sent = rest.prefix(n)
                var bytes = 0
                for i in sent { bytes += batch.length(i) }
                s.datagramsOut &+= UInt64(sent.count)
                s.bytesOut &+= UInt64(bytes)
                telemetry.datagramsWent(sent.count, bytes, s.relay, current)
                rest = rest.dropFirst(sent.count)
            case .wouldBlock:
                telemetry.datagramsDropped(.blocked, rest.count)
                return
            case .tooLong:
                telemetry.datagramsDropped(.tooLong, 1)
                rest = rest.dropFirst()
            case .unreachable, .failed:
                telemetry.datagramsDropped(.failed, 1)
                rest = rest.dropFirst()
            }
        }
    }

    // MARK: The machine

    /// - Parameter range: the datagrams in the batch that the event is about.
    private func perform(_ s: DatagramSession, _ event: SessionMachine.Event, _ range: Range<Int> = 0..<0) {
        var actions = s.machine.handle(event)
        while let action = actions.next() {
            switch action {
            case .choose: choose(s, range)
            case .forward: forward(s, range)
            case .drop: telemetry.datagramsDropped(datagrams.dropReason, range.count)
            case .deliver: deliver(s, range)
            case .reportAnswering: vouch(s)
            case .reportFailed:
                guard let endpoint = s.endpoint else { continue }
                s.reason = .connectFailed
                s.tried.insert(endpoint)
                failed(endpoint, s)
                leave(s)
            case .release:
                vouchAfterAWhile(s)
                if let endpoint = s.endpoint { table.abandon(endpoint) }
                leave(s)
            case .end: end(s)
            }
        }
    }

    /// The endpoint is there.
    private func vouch(_ s: DatagramSession) {
        s.isVouchedFor = true
        s.reason = .none
        s.tried.removeAll()
        if let endpoint = s.endpoint, table.connected(endpoint) {
            telemetry.upstream(.recovery, s.upstream, current)
        }
    }

    /// Much that goes by UDP is never answered. An endpoint that has been sent something, and of which the kernel has not
    /// heard within a second that nobody is there, is taken for one that is: else it would never come back.
    private func vouchAfterAWhile(_ s: DatagramSession) {
        if !s.isVouchedFor, s.endpoint != nil, nowNanoseconds &- s.chosenAt >= 1_000_000_000 { vouch(s) }
    }

    private func failed(_ endpoint: EndpointID, _ s: DatagramSession) {
        telemetry.upstream(.connectFailed, s.upstream, current)
        if table.connectFailed(endpoint, now: nowNanoseconds) { telemetry.upstream(.ejection, s.upstream, current) }
    }

    private func leave(_ s: DatagramSession) {
        s.endpoint = nil
        if !s.socket.isNone { transport.close(s.socket) }
        s.socket = .none
    }

    private func choose(_ s: DatagramSession, _ range: Range<Int>) {
        datagrams.dropReason = .noEndpoint
        s.target = current.map[Int(s.upstream)]
        var hasForgotten = false
        for _ in 0...(configuration.retry.attempts + 1) {
            switch table.choose(s.target, now: nowNanoseconds, tried: s.tried, isFresh: true, isExclusive: true) {
            case .connect(let endpoint):
                if open(s, endpoint) {
                    perform(s, .endpointChosen, range)
                    return
                }
                if datagrams.dropReason == .overloaded {
                    perform(s, .endpointMissing, range)
                    return
                }
            case .lease(let endpoint, _), .join(let endpoint, _):
                table.abandon(endpoint)
                telemetry.bug()
            case .shed(.allTried) where !hasForgotten:
                // They had their chance with datagrams before; these are others.
                s.tried.removeAll()
                hasForgotten = true
            case .shed:
                telemetry.upstream(.shedNoEndpoint, s.upstream, current)
                perform(s, .endpointMissing, range)
                return
            }
        }
        perform(s, .endpointMissing, range)
    }

    /// False: it can't be had, and `dropReason` says why.
    private func open(_ s: DatagramSession, _ endpoint: EndpointID) -> Bool {
        guard let address = address(endpoint) else {
            table.abandon(endpoint)
            return false
        }
        var result = transport.connectDatagrams(to: NetworkAddress(address))
        // Ports are the client's side of it, and none is freed by letting go of what others have.
        if case .failed(let code) = result, Descriptors.isTableFull(code) {
            table.releaseIdle(closing: &closing)
            closeSwept()
            result = transport.connectDatagrams(to: NetworkAddress(address))
        }
        switch result {
        case .connected(let socket), .inProgress(let socket):
            s.socket = socket
            s.endpoint = endpoint
            s.address = address
            s.chosenAt = nowNanoseconds
            s.isVouchedFor = false
            s.attempts &+= 1
            guard transport.watch(socket, s.token) else {
                table.abandon(endpoint)
                leave(s)
                datagrams.dropReason = .overloaded
                return false
            }
            telemetry.upstream(.attempt, s.upstream, current)
            telemetry.upstream(.connect, s.upstream, current)
            return true
        case .failed(let code) where Descriptors.isExhaustion(code):
            table.abandon(endpoint)
            telemetry.upstream(.shedOverloaded, s.upstream, current)
            datagrams.dropReason = .overloaded
            return false
        case .failed:
            s.tried.insert(endpoint)
            failed(endpoint, s)
            datagrams.dropReason = .unreachable
            return false
        }
    }

    private func end(_ s: DatagramSession) {
        let d = datagrams
        d.byKey[s.key] = nil
        d.sessions.remove(index: s.token.index, generation: s.token.generation)
        d.shares.leave(s.port.number)
        let peer = Model.SocketAddress(s.key.client)
        if s.isCounted { sessionClients?.leave(peer.ip) }
        telemetry.sessionEnded()
        // Who never had an endpoint was none of any: it is counted, and takes no line for each datagram of a flood.
        guard s.attempts > 0 else { return }
        let record = d.record
        record.reset()
        record.relay = s.relay
        record.upstream = s.upstream
        record.isSession = true
        record.localPort = s.port.number
        record.client.address = peer
        record.endpoint = s.address
        record.attempts = s.attempts
        record.reason = s.reason
        record.started = s.started
        record.upstreamStarted = s.chosenAt
        record.finished = s.movedAt
        record.datagramsIn = s.datagramsIn
        record.datagramsOut = s.datagramsOut
        record.bytesIn = s.bytesIn
        record.bytesOut = s.bytesOut
        telemetry.log(record, current)
    }

    // MARK: Time

    private static var mostUnanswered: UInt64 { 10_000 }

    /// Something passes.
    private func touch(_ s: DatagramSession) {
        s.movedAt = nowNanoseconds
        let idle = isDraining ? configuration.timeouts.sessionQuiet : configuration.timeouts.sessionIdle
        // Whoever has had no answer may have been made up by somebody else, and holds no place for long; and what an
        // endpoint sends by itself does not keep a client that has long been gone.
        s.deadline = min(
            now &+ (s.machine.answered == 0 ? min(idle, Self.mostUnanswered) : idle), s.askedAt &+ idle &* 10)
        if s.deadline < s.lookedAt { s.lookedAt = wheel.schedule(s.token, at: s.deadline) }
    }

    /// The wheel has come to a session.
    func sessionDue(_ token: Token) {
        guard let s = datagrams.sessions[token: token], s.lookedAt <= now else { return }
        s.lookedAt = never
        if s.deadline <= now {
            perform(s, .stoodStill)
        } else {
            s.lookedAt = wheel.schedule(token, at: s.deadline)
        }
    }

    /// The process is going: what has been asked is still answered, and who pauses has ended.
    func drainSessions() {
        for s in datagrams.sessions.elements {
            s.deadline = min(s.deadline, now &+ configuration.timeouts.sessionQuiet)
            if s.deadline < s.lookedAt { s.lookedAt = wheel.schedule(s.token, at: s.deadline) }
        }
    }

    // MARK: Configuration

    /// Sessions of ports that lead nowhere from now on end, while their names are still known.
    func endSessions(without relays: RelayTable) {
        for s in datagrams.sessions.elements where relays.sessionTarget(port: s.port.number) == nil {
            perform(s, .portClosed)
        }
    }

    /// The others go on, with the endpoint that they have if it is still one of their service's.
    func rerouteSessions() {
        let relays = current.publication.relays
        datagrams.shares.setServices(relays.sessionPorts)
        for s in datagrams.sessions.elements {
            guard let target = relays.sessionTarget(port: s.port.number) else { continue }
            s.relay = target.index
            s.upstream = target.upstream
            if current.map[Int(target.upstream)] != s.target {
                s.tried.removeAll()
                perform(s, .rerouted)
            } else if let endpoint = s.endpoint, table.isLeaving(endpoint) {
                perform(s, .endpointLeft)
            }
        }
    }
}
