// Step 5 and 6 of a request's walk, the far side: connections to endpoints, their pools, and what comes back on them.
internal import HTTPWire
internal import Model
internal import Reactor
internal import TLSEngine
internal import Telemetry
internal import Upstreams

extension Loop {
    // MARK: Connecting

    /// Chooses an endpoint, and leases or opens a connection to it.
    func connect(_ f: Flight) {
        let exchange = f.exchange
        let pin = f.pin
        while true {
            f.target = pin.map[Int(exchange.upstream)]
            if !f.isRelay { f.proxyHeader = pin.publication.proxyHeader(of: exchange.upstream) }
            let isPrivate = f.isRelay || f.proxyHeader != nil
            let action = table.choose(
                f.target, now: nowNanoseconds, tried: f.tried, hashKey: exchange.hashKey,
                isFresh: f.needsFresh || isPrivate, isExclusive: isPrivate)
            switch action {
            case .lease(let endpoint, let handle):
                exchange.attempts &+= 1
                exchange.endpoint = address(endpoint)
                guard let u = upstreamConnections[token: Token(rawValue: handle)], u.machine.isPooled else {
                    // The table and the connections agree by construction; if they ever do not, go on without it.
                    table.abandon(endpoint)
                    f.needsFresh = true
                    continue
                }
                _ = u.machine.handle(.leased)
                u.isCounted = true
                if u.security != nil || pin.publication.hasSecurities || current.publication.hasSecurities {
                    if u.security !== security(of: f) {
                        // It was made under settings that are in force no more.
                        exchange.attempts &-= 1
                        telemetry.upstreamUnparked()
                        perform(u, .discarded)
                        continue
                    }
                    exchange.upstreamChannel = u.tls?.channel
                }
                u.flight = f
                f.upstream = u
                telemetry.upstreamUnparked()
                telemetry.upstream(.attempt, exchange, pin)
                telemetry.upstream(.poolHit, exchange, pin)
                perform(f, .connected)
                return
            case .connect(let endpoint):
                exchange.attempts &+= 1
                exchange.endpoint = address(endpoint)
                telemetry.upstream(.attempt, exchange, f.pin)
                open(f, endpoint)
                return
            case .join(let endpoint, let handle):
                exchange.attempts &+= 1
                exchange.endpoint = address(endpoint)
                guard join(f, endpoint, handle) else { continue }
                return
            case .shed(.full):
                telemetry.upstream(.shedOverloaded, exchange, f.pin)
                if exchange.reason == .none { exchange.reason = .overloaded }
                perform(f, .answerDecided)
                return
            case .shed(.noEndpoint):
                if fallsBack(f) { continue }
                telemetry.upstream(.shedNoEndpoint, exchange, f.pin)
                if exchange.reason == .none { exchange.reason = .noEndpoint }
                perform(f, .answerDecided)
                return
            case .shed(.allTried):
                if exchange.reason == .none { exchange.reason = f.lastFailure }
                perform(f, .answerDecided)
                return
            }
        }
    }

    /// How TLS to the exchange's upstream is made. Endpoints, and whether they are spoken to by HTTP/2, are those of now:
    /// so must this be, also for an exchange that holds on to an earlier publication.
    func security(of f: Flight) -> UpstreamSecurity? {
        let pinned = f.pin.publication
        let upstream = f.exchange.upstream
        guard f.pin !== current, upstream >= 0, Int(upstream) < pinned.snapshot.upstreams.count,
            let place = current.publication.plan.index(of: pinned.snapshot.upstreams[Int(upstream)].name)
        else { return pinned.security(of: upstream) }
        return current.publication.security(of: place)
    }

    func address(_ endpoint: EndpointID) -> Model.SocketAddress? {
        // Lent for changing although nothing is changed: a read of the property would copy the table, with a retain
        // for each of its arrays.
        func look(_ table: inout UpstreamTable) -> Model.SocketAddress? { table.address(of: endpoint) }
        return look(&table)
    }

    /// A backend that a script chose has no endpoint: the rule's own stands in, unless the script forbade it
    /// (SCRIPTING.md §11).
    private func fallsBack(_ f: Flight) -> Bool {
        let exchange = f.exchange
        guard exchange.isUpstreamChosen, !exchange.isUpstreamStrict else { return false }
        let own = f.pin.publication.upstream(of: exchange.route, isSecure: exchange.client.channel != nil)
        guard own >= 0, own != exchange.upstream, f.requestBodyBytes == 0, isHeadFit(f, for: own) else { return false }
        exchange.upstream = own
        exchange.isUpstreamChosen = false
        exchange.tag(Self.fallbackTag.span, Self.noEndpointsTag.span)
        return true
    }

    private static var fallbackTag: [UInt8] { Array("fallback".utf8) }
    private static var noEndpointsTag: [UInt8] { Array("no_endpoints".utf8) }

    private func open(_ f: Flight, _ endpoint: EndpointID) {
        guard let address = address(endpoint) else {
            table.abandon(endpoint)
            attemptFailed(f, connectFailed: true)
            return
        }
        // What a relay carries is the client's own, TLS and all.
        let security = f.isRelay ? nil : security(of: f)
        var tls: SecureLayer?
        if let security {
            guard let session = security.connect(resumption(security, address)) else {
                // The endpoint has done nothing wrong.
                table.abandon(endpoint)
                f.exchange.reason = security.isUsable ? .overloaded : .upstreamTLSSetup
                perform(f, .attemptFailed(retry: false))
                return
            }
            tls = SecureLayer(session)
        }
        var result = transport.connect(to: NetworkAddress(address))
        if case .failed(let code) = result, Descriptors.isExhaustion(code) {
            // Connections that nobody uses hold what this one needs.
            table.releaseIdle(closing: &closing)
            closeSwept()
            result = transport.connect(to: NetworkAddress(address))
        }
        switch result {
        case .connected(let socket), .inProgress(let socket):
            let u = UpstreamConnection(socket: socket, endpoint: endpoint, security: security, tls: tls)
            let row = upstreamConnections.insert(u)
            u.token = Token(kind: TokenKind.upstream, index: row.index, generation: row.generation)
            if f.isRelay || f.proxyHeader != nil || !table.isMultiplexed(f.target) || !carry(f, u) {
                u.flight = f
                f.upstream = u
            }
            telemetry.upstreamOpened()
            telemetry.upstream(.connect, f.exchange, f.pin)
            if !transport.register(socket, u.token) {
                perform(u, .failed)
                return
            }
            setDeadline(f, .connect, after: f.policy.connectTimeout)
        case .failed(let code) where Descriptors.isExhaustion(code):
            // The endpoint has done nothing wrong.
            table.abandon(endpoint)
            f.exchange.reason = .overloaded
            telemetry.upstream(.shedOverloaded, f.exchange, f.pin)
            perform(f, .attemptFailed(retry: false))
        case .failed:
            telemetry.upstream(.connectFailed, f.exchange, f.pin)
            if table.connectFailed(endpoint, now: nowNanoseconds) { telemetry.upstream(.ejection, f.exchange, f.pin) }
            f.tried.insert(endpoint)
            attemptFailed(f, connectFailed: true)
        }
    }

    /// The kernel has an answer to our connect.
    func connectSettled(_ u: UpstreamConnection, _ readiness: Readiness) {
        let code = transport.pendingError(u.socket)
        if code != 0 || readiness.isBroken {
            perform(u, .failed)
        } else if readiness.isWritable {
            if readiness.invitesReading { u.flags.insert(.readable) }
            if readiness.isOver { u.flags.insert(.ended) }
            if let version = u.flight?.proxyHeader, !introduce(u, version) {
                perform(u, .failed)
                return
            }
            perform(u, u.tls == nil ? .connected : .established)
        }
    }

    /// This attempt is over before a byte of a response came. Another one, or an answer?
    func attemptFailed(_ f: Flight, connectFailed: Bool) {
        let wasReused = f.upstream?.machine.isReused ?? false
        if f.exchange.reason == .none { f.exchange.reason = connectFailed ? .connectFailed : .upstreamClosed }
        let mayRetry = mayRetry(f, connectFailed: connectFailed, wasReused: wasReused)
        attemptEnded(f, mayRetry: mayRetry, needsFresh: !connectFailed)
    }

    /// What has gone of the body is kept in the form of the protocol that it went by: with another one it is lost.
    private func isKeptForResending(_ f: Flight) -> Bool {
        isHeadFit(f, for: f.exchange.upstream)
            && (f.requestBodyBytes == 0
                || table.isMultiplexed(f.pin.map[Int(f.exchange.upstream)]) == (f.sentBody != nil))
    }

    /// Names with `_` that were left in for one that speaks HTTP/2 are not shown to others.
    private func isHeadFit(_ f: Flight, for upstream: Int32) -> Bool {
        !f.facts.keptUnderscores || table.isMultiplexed(f.pin.map[Int(upstream)])
    }

    func attemptEnded(_ f: Flight, mayRetry: Bool, needsFresh: Bool) {
        let mayRetry = mayRetry && isKeptForResending(f)
        if let u = f.upstream, u.machine.isClosed || u.machine.isConnecting {
            // A connection that never was is nothing for the exchange to close.
            f.upstream = nil
            u.flight = nil
        }
        f.lastFailure = f.exchange.reason
        if mayRetry {
            f.exchange.reason = .none
            f.needsFresh = needsFresh
            telemetry.upstream(.retry, f.exchange, f.pin)
        }
        perform(f, .attemptFailed(retry: mayRetry))
    }

    /// - Parameter spends: whether it comes out of the upstream's budget.
    func mayRetry(_ f: Flight, connectFailed: Bool, wasReused: Bool, spends: Bool = true) -> Bool {
        let limit = f.exchange.retries >= 0 ? Int(f.exchange.retries) : f.policy.retries
        guard Int(f.exchange.attempts) - Int(f.moves) <= limit else { return false }
        // A dead connection from the pool on which nothing was sent is as good as one that was never made.
        let failure: RetryRule.Failure =
            connectFailed || wasReused && !f.attemptWasSent ? .connectFailed : wasReused ? .reusedClosed : .freshClosed
        guard
            RetryRule.mayRetry(
                failure, method: f.exchange.request.method,
                bodyBytesSent: f.attemptWasSent || !f.isReplayable ? f.requestBodyBytes : 0,
                hasBody: !f.facts.body.isEmpty, isBodyKept: f.isReplayable)
        else { return false }
        if !spends || table.mayRetry(f.target, now: nowNanoseconds) { return true }
        telemetry.upstream(.retryRefused, f.exchange, f.pin)
        return false
    }

    // MARK: The machine

    func perform(_ u: UpstreamConnection, _ event: UpstreamMachine.Event) {
        var actions = u.machine.handle(event)
        while let action = actions.next() {
            switch action {
            case .shakeHands:
                shakeHands(u)
            case .reportConnected:
                if let carrier = u.carrier {
                    carrierConnected(u, carrier)
                    continue
                }
                let isBack = table.connected(u.endpoint)
                if let f = u.flight {
                    if let tls = u.tls ?? u.stream?.carrier.tls { f.exchange.upstreamChannel = tls.channel }
                    if isBack { telemetry.upstream(.recovery, f.exchange, f.pin) }
                    perform(f, .connected)
                }
            case .reportFailed, .reportTimeout, .reportHandshakeTimeout:
                if action == .reportHandshakeTimeout { telemetry.upstreamHandshakeFailed(.timeout) }
                if let carrier = u.carrier {
                    if action == .reportHandshakeTimeout { carrier.handshakeFailure = .upstreamTLSTimeout }
                    carrierFailed(carrier, isTimeout: action == .reportTimeout)
                    continue
                }
                guard let f = u.flight else { continue }
                telemetry.upstream(.connectFailed, f.exchange, f.pin)
                if action == .reportTimeout { f.exchange.reason = .connectTimeout }
                if action == .reportHandshakeTimeout { f.exchange.reason = .upstreamTLSTimeout }
                f.tried.insert(u.endpoint)
                guard u.stream != nil else {
                    attemptFailed(f, connectFailed: true)
                    continue
                }
                // All who waited for one connection look for another; that is one attempt more, however many they are.
                if f.exchange.reason == .none { f.exchange.reason = .connectFailed }
                attemptEnded(
                    f, mayRetry: mayRetry(f, connectFailed: true, wasReused: false, spends: false), needsFresh: false)
            case .reportEnded, .read:
                break
            case .pool:
                giveBack(&u.input)
                u.served += 1
                if isDraining || u.isPrivate || !u.isFlushed || u.flags.contains(.ended) || hasSurplus(u) {
                    u.isForgotten = true
                    perform(u, .discarded)
                    continue
                }
                u.isCounted = false
                if !table.park(
                    u.endpoint, connection: u.token.rawValue, served: u.served, now: nowNanoseconds)
                {
                    u.isForgotten = true
                    perform(u, .discarded)
                } else {
                    telemetry.upstreamParked()
                }
            case .unpool:
                if !u.isForgotten {
                    table.idleClosed(u.endpoint, connection: u.token.rawValue)
                    telemetry.upstreamUnparked()
                }
            case .breakStreams: breakStreams(u)
            case .close:
                if let stream = u.stream {
                    close(u, stream)
                    continue
                }
                if let carrier = u.carrier {
                    close(u, carrier, event)
                    continue
                }
                if u.isCounted {
                    u.isCounted = false
                    if event == .failed || event == .ended || event == .timedOut {
                        if table.connectFailed(u.endpoint, now: nowNanoseconds), let f = u.flight {
                            telemetry.upstream(.ejection, f.exchange, f.pin)
                        }
                    } else {
                        table.abandon(u.endpoint)
                    }
                }
                giveBack(&u.input)
                if let tls = u.tls { endSecurity(u, tls) }
                giveBack(&u.output)
                upstreamConnections.remove(index: u.token.index, generation: u.token.generation)
                transport.close(u.socket)
                telemetry.upstreamClosed()
            }
        }
    }

    /// Whether there is more on the connection than its response, which belongs to nobody (RFC 9112 §9.2). The last
    /// read may have been full, and then nobody has looked yet.
    private func hasSurplus(_ u: UpstreamConnection) -> Bool {
        if let tls = u.tls { return hasSurplus(u, tls) }
        guard u.flags.contains(.readable) else { return false }
        probe.removeAll()
        guard case .wouldBlock = transport.read(u.socket, into: probe) else { return true }
        u.flags.remove(.readable)
        return false
    }

    // MARK: Reading

    private func wantsBytes(_ u: UpstreamConnection) -> Bool {
        if u.machine.isPooled || u.machine.isSecuring { return true }
        guard let f = u.flight, let d = f.downstream else { return false }
        return !d.flags.contains(.blocked)
    }

    func advance(_ u: UpstreamConnection) {
        if u.isFramed {
            advanceFramed(u)
            return
        }
        let scratch = self.scratch
        if u.machine.isConnecting, !u.machine.isSecuring { return }
        var rounds = 0
        while !u.machine.isClosed {
            if let input = u.input {
                if input.isEmpty {
                    giveBack(&u.input)
                } else if u.flight != nil, wantsBytes(u), consume(u, input) {
                    continue
                }
            }
            guard wantsBytes(u), u.flags.contains(.readable) else { break }
            // Compressing 64 KiB takes about as long as passing on a megabyte.
            if rounds == 4 || rounds == 1 && u.flight?.recoding?.changesResponse == true {
                enqueue(u)
                break
            }
            rounds += 1
            if u.input != nil, u.tls == nil {
                let input = reserve(&u.input, 4096)
                let room = input.room
                didRead(u, transport.read(u.socket, into: input), of: room)
            } else {
                scratch.removeAll()
                if let tls = u.tls {
                    receive(u, tls)
                    if u.input != nil {
                        queue(&u.input, scratch.bytes)
                        scratch.removeAll()
                        continue
                    }
                } else {
                    let room = scratch.room
                    didRead(u, transport.read(u.socket, into: scratch), of: room)
                }
                while !scratch.isEmpty, u.flight != nil, consume(u, scratch) {}
                if !scratch.isEmpty {
                    if u.flight == nil {
                        // Nobody asked for this: it is no response to anything that comes later (RFC 9112 §9.2).
                        if !u.machine.isClosed { perform(u, u.machine.isPooled ? .bytesArrived : .discarded) }
                    } else {
                        queue(&u.input, scratch.bytes)
                    }
                    scratch.removeAll()
                }
            }
            if u.flight == nil { break }
        }
        if let f = u.flight, f.recoding != nil, !u.flags.contains(.readable) { flushRecoding(f) }
        if let d = u.flight?.downstream { flush(d) }
    }

    @inline(__always)
    private func didRead(_ u: UpstreamConnection, _ result: ReadResult, of room: Int) {
        switch result {
        case .bytes(let n):
            if n < room, !u.flags.contains(.ended) { u.flags.remove(.readable) }
        case .wouldBlock:
            u.flags.remove(.readable)
        case .end:
            u.flags.remove(.readable)
            u.flags.insert(.ended)
            ended(u, .whole)
        case .failed:
            u.flags.remove(.readable)
            u.flags.insert(.ended)
            ended(u, .broken)
        }
    }

    /// The endpoint will send no more.
    func ended(_ u: UpstreamConnection, _ end: UpstreamEnd, because reason: FailureReason? = nil) {
        guard let f = u.flight else {
            perform(u, .ended)
            return
        }
        let reason = reason ?? (end == .broken ? .upstreamReset : .upstreamClosed)
        _ = u.machine.handle(.ended)
        if f.machine.awaitsResponseHead {
            f.exchange.reason = reason
            if u.parser.hasBegun {
                perform(f, .responseBroken)
            } else {
                attemptFailed(f, connectFailed: false)
            }
        } else if f.machine.isStreaming {
            if end == .whole, u.body.inputClosed() {
                perform(f, .responseEnded(reusable: false))
            } else {
                f.exchange.reason = reason
                perform(f, .responseBroken)
            }
        } else if f.machine.isTunnelling {
            if let d = f.downstream { flush(d) }
            perform(f, end == .whole ? .upstreamEnded : .responseBroken)
        }
    }

    private func consume(_ u: UpstreamConnection, _ input: Buffer) -> Bool {
        guard let f = u.flight, let d = f.downstream else { return false }
        if f.machine.awaitsResponseHead { return readResponseHead(u, f, input) }
        if f.machine.isStreaming { return passResponse(u, f, d, input) }
        if f.machine.isTunnelling {
            if d.flags.contains(.blocked) { return false }
            f.exchange.bytesOut &+= UInt64(input.count)
            setDeadline(f, .stream, after: f.policy.streamIdleTimeout)
            if let stream = d.stream {
                put(d, stream, input.bytes)
                input.removeAll()
                return true
            }
            let written = write(d, input.bytes)
            input.removeAll()
            if !written { perform(d, .broken) }
            return true
        }
        return false
    }

    private func readResponseHead(_ u: UpstreamConnection, _ f: Flight, _ input: Buffer) -> Bool {
        let exchange = f.exchange
        switch u.parser.parse(input.bytes, limits: responseLimits, into: &exchange.response) {
        case .needMore:
            input.removeAll()
            return false
        case .refuse:
            input.removeAll()
            fail(f, .malformedResponse)
            return false
        case .complete(let consumed):
            input.consume(consumed)
        }
        let bytes = exchange.request.bytes
        let admission = ResponseAdmission.judge(
            &exchange.response, method: exchange.request.method, upgrade: f.facts.upgrade,
            key: bytes.span.extracting(f.facts.webSocketKeyRange.range))
        switch admission {
        case .refuse:
            fail(f, .malformedResponse)
            return false
        case .admit(let facts):
            if facts.isInformational {
                perform(f, .informationalReceived)
                return u.flight === f
            }
            f.responseFacts = facts
            if facts.isUpgrade {
                perform(f, .switched)
                return u.flight === f
            }
            // Servers that have seen an Upgrade may read no further request, also when they refuse it.
            u.keepsAlive = facts.keepsAlive && f.facts.upgrade == .none
            u.body = BodyDecoder(facts.body)
            perform(f, .responseHeadReceived)
            guard u.flight === f else { return false }
            if u.body.isComplete { responseEnded(u, f, input) }
            return u.flight === f
        }
    }

    /// Bytes behind a response belong to nobody: their connection is not used again.
    private func responseEnded(_ u: UpstreamConnection, _ f: Flight, _ input: Buffer) {
        perform(f, .responseEnded(reusable: u.keepsAlive && input.isEmpty))
    }

    private func passResponse(_ u: UpstreamConnection, _ f: Flight, _ d: Downstream, _ input: Buffer) -> Bool {
        if d.flags.contains(.blocked) { return false }
        var offset = 0
        switch u.body.next(input.bytes, at: &offset, limits: responseLimits, trailers: &f.responseTrailers) {
        case .needMore:
            input.consume(offset)
            return false
        case .data(let range):
            f.deadline = f.policy.streamIdleTimeout == 0 ? never : now &+ f.policy.streamIdleTimeout
            sendResponseBody(f, input.bytes.extracting(range))
            // The client may have gone by this, and with it the input.
            guard u.flight === f else { return false }
            input.consume(offset)
            if u.body.isComplete { responseEnded(u, f, input) }
            return u.flight === f
        case .end:
            input.consume(offset)
            responseEnded(u, f, input)
            return false
        case .failed:
            input.removeAll()
            f.exchange.reason = .malformedResponse
            perform(f, .responseBroken)
            return false
        }
    }

    // MARK: Writing

    func writable(_ u: UpstreamConnection) {
        u.flags.remove(.blocked)
        if let carrier = u.carrier {
            if u.machine.isSecuring {
                if !u.isFlushed, !write(u, RawSpan()) { handshakeFailed(u, .cut) }
            } else {
                flushFrames(u, carrier)
            }
            return
        }
        guard let f = u.flight else { return }
        if !u.isFlushed {
            if !write(u, RawSpan()) {
                if u.machine.isSecuring {
                    handshakeFailed(u, .cut)
                } else {
                    undeliverable(f, u)
                }
                return
            }
        }
        if u.flags.contains(.blocked) { return }
        if f.upstreamWritesEnd, f.machine.isTunnelling { endWrites(u) }
        tookRequest(f)
    }

    /// The endpoint takes the request's body again.
    func tookRequest(_ f: Flight) {
        if f.deadlineKind == .requestBody {
            // The client had to wait: that time is not its own.
            f.bodyAllowance = max(f.bodyAllowance, now &+ bodyGrace(f))
            awaitRequestBody(f, received: 0)
        }
        if let d = f.downstream { enqueue(d) }
    }

    /// Writes what is queued and then `more`, through TLS where there is any.
    @inline(__always)
    func write(_ u: UpstreamConnection, _ more: RawSpan) -> Bool {
        if let tls = u.tls { return writeSecure(u, tls, more) }
        return write(u.socket, &u.output, &u.flags, more)
    }

    /// Nothing more will be written, and the endpoint is told so.
    func endWrites(_ u: UpstreamConnection) {
        if let tls = u.tls { sayGoodbye(u, tls) }
        transport.shutdownWrites(u.socket)
    }
}

/// How an endpoint's bytes came to their end.
enum UpstreamEnd {
    /// In order: a body that lasts until then is whole.
    case whole
    /// Over TLS without a goodbye: somebody may have cut it (RFC 8446 §6.1).
    case cut
    case broken
}
