// One event loop: everything that happens to a connection, its exchange, its upstream and its scripts happens here, on
// one thread, from the first byte to the log line. No locks, no hops.
//
// The rule that keeps it simple: nothing is read while something else is being read. A handler may write to any
// connection, but it takes up another connection's input only by putting it in the list `ready`, which is worked off
// before the loop waits again.
internal import Compression
internal import HTTPWire
internal import Middlewares
internal import Model
internal import Reactor
internal import Routing
internal import TLSEngine
internal import Telemetry
internal import Upstreams

final class Loop<T: Transport> {
    let transport: T
    let number: Int
    let configuration: ProxyConfiguration
    let buffers = BufferPool()
    /// Everything is read into here first; what is not understood at once is copied into a lent buffer.
    let scratch = Buffer(capacity: 64 * 1024)
    /// What TLS connections read and write: encrypted, on its way from or to a socket. 16 KiB less than `scratch`, for
    /// the session may hold half a record.
    let cipherIn = Buffer(capacity: 48 * 1024)
    let cipherOut = Buffer(capacity: 80 * 1024)
    /// What makes handshakes with endpoints short.
    var resumptions: [ResumptionKey: Resumable] = [:]
    /// The certificates in force; nil where nothing listens for TLS.
    var certificates: CertificateSource?
    /// To find out whether there is anything to read, while `scratch` is in use.
    let probe = Buffer(capacity: 64)
    var wheel: TimerWheel
    var downstreams = Slab<Downstream>()
    var upstreamConnections = Slab<UpstreamConnection>()
    var arrivals = Slab<Arrival>()
    var flights: [Flight] = []
    var spareFlights: [Flight] = []
    var ready: [Token] = []
    var readyCount = 0
    var table: UpstreamTable
    var current: Pin
    var closing: [UInt64] = []
    private var lastSweep: UInt64 = 0
    /// The process is going: idle connections are closed, none is kept.
    var isDraining = false
    /// It will go soon: every response says that its connection ends.
    var announcesClose = false
    /// Milliseconds and nanoseconds of the monotonic clock at the beginning of this pass.
    var now: UInt64
    var nowNanoseconds: UInt64
    let telemetry: LoopTelemetry
    /// Nil where clients may have any number of connections.
    let clients: ClientConnections?
    /// The same of sessions of UDP services.
    let sessionClients: ClientConnections?
    let datagrams: Datagrams
    var random: RandomNumbers
    let headLimits: HeadLimits
    let responseLimits: HeadLimits
    let admissionRules = AdmissionRules()
    let forwardingRules: ForwardingRules
    /// Whose word about their clients is taken where it stands in fields. Who lets everybody send PROXY protocol headers
    /// (`0.0.0.0/0`) does not say that of those named in them: else each client could choose its address by a field.
    let believedProxies: [AddressBlock]
    /// What upstreams are told of a client, by peer: a connection keeps none of it.
    var forwardings: [ForwardingEntry?] = Array(repeating: nil, count: 1024)
    /// What an HTTP/2 client that knows us sends first (RFC 9113 §3.4).
    let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
    /// The fields of the HTTP/2 response that is being made.
    var fieldList = MessageHead()
    /// What the next HTTP/2 head is read into.
    var spareHead = MessageHead()
    var floods = FloodMemory()
    /// Streams that have ended: memory for the next ones.
    var spareStreams: [Downstream] = []
    /// Those that ended in this pass. Whoever is still at work on one has to find it closed, and not as another.
    var endedStreams: [Downstream] = []
    /// The carrier of streams that have none.
    let nobody = Downstream(
        socket: .none, peer: Model.SocketAddress(ip: IPAddress(v4: 0), port: 0), localPort: 0, isTrusted: false)
    /// `Date` (RFC 9110 §6.6.1) of the current second.
    var date: [UInt8] = []
    var dateSecond: Int64 = -1
    /// Of responses that are compressed.
    let encoders: EncoderPool
    /// What an encoder has made of a part of a body, on its way out; made when it is first needed.
    var recoded: Buffer?
    let locationName = Array("location".utf8)
    let transportSecurityName = Array("strict-transport-security".utf8)

    init(
        transport: T, number: Int, configuration: ProxyConfiguration, publication: Publication,
        telemetry: LoopTelemetry, clients: ClientConnections? = nil, sessionClients: ClientConnections? = nil,
        nanoseconds: UInt64, seed: UInt64
    ) {
        self.transport = transport
        self.clients = clients
        self.sessionClients = sessionClients
        datagrams = Datagrams(most: configuration.sessions.most)
        self.number = number
        self.configuration = configuration
        self.telemetry = telemetry
        now = nanoseconds / 1_000_000
        nowNanoseconds = nanoseconds
        wheel = TimerWheel(now: nanoseconds / 1_000_000)
        random = RandomNumbers(seed: seed)
        let limits = configuration.limits
        headLimits = HeadLimits(
            headBytes: limits.headBytes, fieldCount: limits.fields, lineBytes: limits.fieldBytes,
            targetBytes: limits.targetBytes)
        responseLimits = HeadLimits(
            headBytes: limits.responseHeadBytes, fieldCount: max(limits.fields, 256),
            lineBytes: max(limits.fieldBytes, 16 * 1024), targetBytes: limits.targetBytes)
        var rules = ForwardingRules()
        rules.sendsForwarded = configuration.sendsForwarded
        rules.sendsVia = configuration.sendsVia
        forwardingRules = rules
        believedProxies = configuration.trustedProxies.filter { !configuration.usesProxyProtocol || !$0.isEverybody }
        var settings = UpstreamSettings()
        settings.mostIdle = configuration.idleUpstreamConnections
        settings.idleTimeout = configuration.timeouts.upstreamIdle * 1_000_000
        table = UpstreamTable(settings: settings, seed: seed)
        let map = table.apply(publication.plan, now: nanoseconds, closing: &closing)
        current = Pin(publication: publication, middlewares: publication.middlewares(number), map: map)
        certificates = publication.certificates.map { CertificateSource($0) }
        encoders = EncoderPool(levels: configuration.compression.levels, memory: configuration.compression.memory)
        lastSweep = nanoseconds / 1_000_000
    }

    // MARK: Time

    /// Begins a pass: the clocks are read once, by the caller.
    func beginPass(nanoseconds: UInt64, wallSeconds: Int64) {
        nowNanoseconds = nanoseconds
        now = nanoseconds / 1_000_000
        if wallSeconds != dateSecond {
            dateSecond = wallSeconds
            date.removeAll(keepingCapacity: true)
            HTTPDate.append(wallSeconds, to: &date)
        }
    }

    /// Looks at what has come due.
    func tick() {
        for token in wheel.advance(to: now) { due(token) }
        if now &- lastSweep >= 1_000 {
            lastSweep = now
            table.sweep(now: nowNanoseconds, closing: &closing)
            closeSwept()
            buffers.sweep()
        }
        finishPass()
    }

    /// Closes the spare connections that the table has let go.
    func closeSwept() {
        for handle in closing {
            guard let u = upstreamConnections[token: Token(rawValue: handle)] else { continue }
            if let carrier = u.carrier { dismiss(u, carrier) } else { perform(u, .timedOut) }
        }
        closing.removeAll(keepingCapacity: true)
    }

    private func due(_ token: Token) {
        switch token.kind {
        case TokenKind.downstream:
            guard let d = downstreams[token: token] else { return }
            if d.deadline <= now {
                d.lookedAt = never
                if let tls = d.tls, tls.isHandshaking {
                    telemetry.handshakeFailed(.timeout)
                    d.deadline = never
                    perform(d, .timedOut)
                    return
                }
                // A request that came just now wins over the keep-alive time that is over.
                if d.machine.isIdle {
                    d.flags.insert(.readable)
                    advance(d)
                    guard !d.machine.isClosed else { return }
                    if d.deadline > now {
                        if d.deadline != never, d.lookedAt == never {
                            d.lookedAt = wheel.schedule(token, at: d.deadline)
                        }
                        return
                    }
                    guard d.machine.isIdle else {
                        d.deadline = never
                        return
                    }
                }
                d.deadline = never
                perform(d, .timedOut)
            } else if d.lookedAt <= now {
                d.lookedAt = never
                if d.deadline != never { d.lookedAt = wheel.schedule(token, at: d.deadline) }
            }
        case TokenKind.arrival:
            if let a = arrivals[token: token] { timedOut(a) }
        case TokenKind.flight:
            guard Int(token.index) < flights.count else { return }
            let f = flights[Int(token.index)]
            let deadline = min(f.deadline, f.totalDeadline)
            if deadline <= now {
                f.lookedAt = never
                timedOut(f)
            } else if f.lookedAt <= now {
                f.lookedAt = never
                if deadline != never { f.lookedAt = wheel.schedule(token, at: deadline) }
            }
        case TokenKind.streams:
            lookAtStreams(token)
        case TokenKind.session:
            sessionDue(token)
        default:
            break
        }
    }

    /// A length of 0 is no limit.
    @inline(__always)
    func setDeadline(_ d: Downstream, after milliseconds: UInt64) {
        d.deadline = milliseconds == 0 ? never : now &+ milliseconds
        if let stream = d.stream {
            watchStreams(of: stream.carrier)
            return
        }
        if d.deadline < d.lookedAt { d.lookedAt = wheel.schedule(d.token, at: d.deadline) }
    }

    @inline(__always)
    func setDeadline(_ f: Flight, _ kind: DeadlineKind, after milliseconds: UInt64) {
        f.deadlineKind = kind
        f.deadline = milliseconds == 0 ? never : now &+ milliseconds
        scheduleFlight(f)
    }

    /// What a body may take before its rate counts, at most: a route that lets its streams stand still for hours does not
    /// let bodies drip for hours.
    private static var mostBodyGrace: UInt64 { 60_000 }

    func bodyGrace(_ f: Flight) -> UInt64 {
        let idle = f.policy.streamIdleTimeout
        return idle == 0 ? Self.mostBodyGrace : min(idle, Self.mostBodyGrace)
    }

    /// The client's body is waited for: not longer than the stream may be idle, and not longer than its rate allows.
    func awaitRequestBody(_ f: Flight, received: Int) {
        // A client that waits for its turn is not waited for.
        if awaitsTurn(f) { return }
        setDeadline(f, .requestBody, after: f.policy.streamIdleTimeout)
        let rate = configuration.limits.bodyRate
        // Both talk once the response has begun; and who was told to wait for a 100 has not been told to send.
        guard rate > 0, !f.machine.isStreaming, !f.facts.expectsContinue || f.continueWasSent else { return }
        if f.bodyAllowance == 0 { f.bodyAllowance = now &+ bodyGrace(f) }
        f.bodyAllowance &+= UInt64(received) &* 1_000 / rate
        // A call may send a message now and then for as long as it lasts: it has to send them, and at no rate.
        if f.bodyAllowance < f.deadline, !GRPC.isCall(f.exchange.request) {
            f.deadline = f.bodyAllowance
            scheduleFlight(f)
        }
    }

    @inline(__always)
    func scheduleFlight(_ f: Flight) {
        let deadline = min(f.deadline, f.totalDeadline)
        if deadline < f.lookedAt {
            f.lookedAt = wheel.schedule(Token(kind: TokenKind.flight, index: f.index, generation: 0), at: deadline)
        }
    }

    // MARK: Events

    func handle(_ event: Event) {
        let readiness = event.readiness
        switch event.token.kind {
        case TokenKind.downstream:
            guard let d = downstreams[token: event.token] else { return }
            if readiness.isBroken {
                // What the peer sent before it went is worth nothing now: there is nobody to answer.
                perform(d, .broken)
                return
            }
            if readiness.isOver { d.flags.insert(.ended) }
            if readiness.invitesReading { d.flags.insert(.readable) }
            if readiness.isWritable, d.flags.contains(.blocked) { writable(d) }
            if d.flags.contains(.readable) { advance(d) }
        case TokenKind.upstream:
            guard let u = upstreamConnections[token: event.token] else { return }
            if u.machine.isConnecting, !u.machine.isSecuring {
                connectSettled(u, readiness)
                return
            }
            if readiness.isOver { u.flags.insert(.ended) }
            if readiness.invitesReading { u.flags.insert(.readable) }
            if readiness.isWritable, u.flags.contains(.blocked) { writable(u) }
            if u.flags.contains(.readable) { advance(u) }
        case TokenKind.arrival:
            if let a = arrivals[token: event.token] { handle(a, readiness) }
        case TokenKind.datagramPort, TokenKind.session:
            handleDatagrams(event)
        default:
            break
        }
    }

    /// Takes up what handlers have put off, and once more what that has put off. What is left then (a connection with
    /// much to read puts itself off again and again) comes after the poller has had its turn.
    func finishPass() {
        var i = 0
        for _ in 0..<2 {
            let end = ready.count
            while i < end {
                let token = ready[i]
                i += 1
                switch token.kind {
                case TokenKind.downstream:
                    if let d = downstreams[token: token] {
                        d.flags.remove(.queued)
                        advance(d)
                    }
                case TokenKind.upstream:
                    if let u = upstreamConnections[token: token] {
                        u.flags.remove(.queued)
                        advance(u)
                    }
                case TokenKind.datagramPort, TokenKind.session:
                    resumeDatagrams(token)
                default:
                    break
                }
            }
        }
        if i == ready.count {
            ready.removeAll(keepingCapacity: true)
        } else {
            ready.removeFirst(i)
        }
        if !endedStreams.isEmpty { recycleStreams() }
    }

    var hasReady: Bool { !ready.isEmpty }

    @inline(__always)
    func enqueue(_ d: Downstream) {
        if d.flags.contains(.queued) { return }
        d.flags.insert(.queued)
        ready.append(d.token)
    }

    @inline(__always)
    func enqueue(_ u: UpstreamConnection) {
        if u.flags.contains(.queued) { return }
        u.flags.insert(.queued)
        ready.append(u.token)
    }

    // MARK: Configuration

    /// New requests run by the new snapshot; those in flight hold on to theirs.
    func adopt(_ next: Publication) {
        let map = table.apply(next.plan, now: nowNanoseconds, closing: &closing)
        let old = current
        endSessions(without: next.relays)
        current = Pin(publication: next, middlewares: next.middlewares(number), map: map)
        if let table = next.certificates {
            if let certificates { certificates.table = table } else { certificates = CertificateSource(table) }
        }
        if !resumptions.isEmpty { forgetResumptions(notIn: next) }
        // Spare flights let go of the old snapshot too.
        for f in spareFlights { f.pin = current }
        rerouteSessions()
        if old.flights == 0 { table.release(old.map, closing: &closing) }
        closeSwept()
    }

    func unpin(_ pin: Pin) {
        pin.flights -= 1
        if pin.flights == 0, pin !== current {
            table.release(pin.map, closing: &closing)
            closeSwept()
        }
    }

    /// Connections end after what they have begun.
    func drain() {
        isDraining = true
        announcesClose = true
        for d in downstreams.elements {
            // Who is shaking hands has been accepted, and is served once: every response says that it is the last.
            if let tls = d.tls, tls.isHandshaking { continue }
            // A request may have come whose edge has not been told yet: it is served.
            if d.machine.isIdle {
                d.flags.insert(.readable)
                advance(d)
            }
            perform(d, .drainBegan)
        }
        drainSessions()
        finishPass()
    }

    /// Whether a client is still there.
    var hasClients: Bool { downstreams.count > 0 || arrivals.count > 0 || datagrams.sessions.count > 0 }

    /// Everything ends, finished or not: who has no response yet gets one that says so, a tunnel is ended, and what is in the
    /// middle of a response is cut off.
    func closeAll() {
        for a in arrivals.elements { drop(a, abort: true) }
        closeDatagrams()
        for d in downstreams.elements where !d.machine.readsHead {
            if let f = d.flight { fail(f, .draining) }
        }
        finishPass()
        for d in downstreams.elements {
            if isSpent(d) { perform(d, .timedOut) }
            perform(d, d.machine.isLingering ? .timedOut : .broken)
        }
        for u in upstreamConnections.elements { perform(u, .discarded) }
        ready.removeAll()
    }

    // MARK: Writing

    /// Appends to what is to be written, in a buffer that is lent for it.
    func queue(_ output: inout Buffer?, _ bytes: RawSpan) {
        if bytes.byteCount == 0 { return }
        reserve(&output, bytes.byteCount).append(bytes)
    }

    /// The output buffer, with at least that much room at its back.
    @inline(__always)
    func reserve(_ output: inout Buffer?, _ room: Int) -> Buffer {
        if let buffer = output {
            if buffer.room >= room { return buffer }
            return enlarge(&output, buffer, room)
        }
        let fresh = buffers.lend(room: room)
        output = fresh
        return fresh
    }

    @inline(never)
    private func enlarge(_ output: inout Buffer?, _ buffer: Buffer, _ room: Int) -> Buffer {
        if buffer.roomAfterCompacting >= room {
            buffer.compact()
            return buffer
        }
        // Twice as large each time: many small parts must not copy what is there for each of them.
        let bigger = buffers.lend(room: max(buffer.count + room, 2 * buffer.count))
        bigger.append(buffer.bytes)
        buffers.giveBack(buffer)
        output = bigger
        return bigger
    }

    func giveBack(_ buffer: inout Buffer?) {
        if let held = buffer {
            buffers.giveBack(held)
            buffer = nil
        }
    }

    /// Writes what is queued and then `more`, in one call. What the kernel does not take is kept, and the connection
    /// counts as blocked until an edge says otherwise. False: broken.
    @inline(__always)
    func write(_ socket: Socket, _ output: inout Buffer?, _ flags: inout ConnectionFlags, _ more: RawSpan) -> Bool {
        if flags.contains(.blocked) {
            queue(&output, more)
            return true
        }
        let queued: Int
        let result: WriteResult
        if let buffer = output {
            queued = buffer.count
            result = transport.write(socket, buffer.bytes, more)
        } else {
            queued = 0
            result = transport.write(socket, more, RawSpan())
        }
        switch result {
        case .bytes(let n):
            if n == queued + more.byteCount {
                giveBack(&output)
                return true
            }
            if n >= queued {
                giveBack(&output)
                queue(&output, more.extracting(droppingFirst: n - queued))
            } else {
                output?.consume(n)
                queue(&output, more)
            }
            flags.insert(.blocked)
            return true
        case .wouldBlock:
            queue(&output, more)
            flags.insert(.blocked)
            return true
        case .failed:
            return false
        }
    }
}
