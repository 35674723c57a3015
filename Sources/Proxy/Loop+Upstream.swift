// Step 5 and 6 of a request's walk, the far side: connections to endpoints, their pools, and what comes back on them.
internal import HTTPWire
internal import Model
internal import Reactor
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
            let action = table.choose(
                f.target, now: nowNanoseconds, tried: f.tried, hashKey: exchange.hashKey,
                isFresh: f.needsFresh || f.isRelay)
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

    private func address(_ endpoint: EndpointID) -> Model.SocketAddress? {
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
        guard own >= 0, own != exchange.upstream else { return false }
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
        var result = transport.connect(to: NetworkAddress(address))
        if case .failed(let code) = result, Descriptors.isExhaustion(code) {
            // Connections that nobody uses hold what this one needs.
            table.releaseIdle(closing: &closing)
            closeSwept()
            result = transport.connect(to: NetworkAddress(address))
        }
        switch result {
        case .connected(let socket), .inProgress(let socket):
            let u = UpstreamConnection(socket: socket, endpoint: endpoint)
            let row = upstreamConnections.insert(u)
            u.token = Token(kind: TokenKind.upstream, index: row.index, generation: row.generation)
            u.flight = f
            f.upstream = u
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
            perform(u, .connected)
        }
    }

    /// This attempt is over before a byte of a response came. Another one, or an answer?
    func attemptFailed(_ f: Flight, connectFailed: Bool) {
        let wasReused = f.upstream?.machine.isReused ?? false
        if f.exchange.reason == .none { f.exchange.reason = connectFailed ? .connectFailed : .upstreamClosed }
        let mayRetry = mayRetry(f, connectFailed: connectFailed, wasReused: wasReused)
        if let u = f.upstream, u.machine.isClosed || u.machine.isConnecting {
            // A connection that never was is nothing for the exchange to close.
            f.upstream = nil
            u.flight = nil
        }
        f.lastFailure = f.exchange.reason
        if mayRetry {
            f.exchange.reason = .none
            f.needsFresh = !connectFailed
            telemetry.upstream(.retry, f.exchange, f.pin)
        }
        perform(f, .attemptFailed(retry: mayRetry))
    }

    private func mayRetry(_ f: Flight, connectFailed: Bool, wasReused: Bool) -> Bool {
        let limit = f.exchange.retries >= 0 ? Int(f.exchange.retries) : f.policy.retries
        guard Int(f.exchange.attempts) <= limit else { return false }
        // A dead connection from the pool on which nothing was sent is as good as one that was never made.
        let failure: RetryRule.Failure =
            connectFailed || wasReused && !f.attemptWasSent ? .connectFailed : wasReused ? .reusedClosed : .freshClosed
        guard
            RetryRule.mayRetry(
                failure, method: f.exchange.request.method,
                bodyBytesSent: f.attemptWasSent || !f.isReplayable ? f.requestBodyBytes : 0,
                hasBody: !f.facts.body.isEmpty, isBodyKept: f.isReplayable)
        else { return false }
        if table.mayRetry(f.target, now: nowNanoseconds) { return true }
        telemetry.upstream(.retryRefused, f.exchange, f.pin)
        return false
    }

    // MARK: The machine

    func perform(_ u: UpstreamConnection, _ event: UpstreamMachine.Event) {
        var actions = u.machine.handle(event)
        while let action = actions.next() {
            switch action {
            case .reportConnected:
                let isBack = table.connected(u.endpoint)
                if let f = u.flight {
                    if isBack { telemetry.upstream(.recovery, f.exchange, f.pin) }
                    perform(f, .connected)
                }
            case .reportFailed, .reportTimeout:
                guard let f = u.flight else { continue }
                telemetry.upstream(.connectFailed, f.exchange, f.pin)
                if action == .reportTimeout { f.exchange.reason = .connectTimeout }
                f.tried.insert(u.endpoint)
                attemptFailed(f, connectFailed: true)
            case .reportEnded, .read:
                break
            case .pool:
                giveBack(&u.input)
                u.served += 1
                if isDraining || u.output != nil || u.flags.contains(.ended) || hasSurplus(u) {
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
            case .close:
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
        guard u.flags.contains(.readable) else { return false }
        probe.removeAll()
        guard case .wouldBlock = transport.read(u.socket, into: probe) else { return true }
        u.flags.remove(.readable)
        return false
    }

    // MARK: Reading

    private func wantsBytes(_ u: UpstreamConnection) -> Bool {
        if u.machine.isPooled { return true }
        guard let f = u.flight, let d = f.downstream else { return false }
        return !d.flags.contains(.blocked)
    }

    func advance(_ u: UpstreamConnection) {
        let scratch = self.scratch
        if u.machine.isConnecting { return }
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
            if rounds == 4 {
                enqueue(u)
                break
            }
            rounds += 1
            if u.input != nil {
                let input = reserve(&u.input, 4096)
                let room = input.room
                didRead(u, transport.read(u.socket, into: input), of: room)
            } else {
                scratch.removeAll()
                let room = scratch.room
                didRead(u, transport.read(u.socket, into: scratch), of: room)
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
            ended(u, broken: false)
        case .failed:
            u.flags.remove(.readable)
            u.flags.insert(.ended)
            ended(u, broken: true)
        }
    }

    /// The endpoint will send no more.
    private func ended(_ u: UpstreamConnection, broken: Bool) {
        guard let f = u.flight else {
            perform(u, .ended)
            return
        }
        _ = u.machine.handle(.ended)
        if f.machine.awaitsResponseHead {
            if u.parser.hasBegun {
                f.exchange.reason = broken ? .upstreamReset : .upstreamClosed
                perform(f, .responseBroken)
            } else {
                f.exchange.reason = broken ? .upstreamReset : .upstreamClosed
                attemptFailed(f, connectFailed: false)
            }
        } else if f.machine.isStreaming {
            if !broken, u.body.inputClosed() {
                perform(f, .responseEnded(reusable: false))
            } else {
                f.exchange.reason = broken ? .upstreamReset : .upstreamClosed
                perform(f, .responseBroken)
            }
        } else if f.machine.isTunnelling {
            if let d = f.downstream { flush(d) }
            perform(f, broken ? .responseBroken : .upstreamEnded)
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
            u.keepsAlive = facts.keepsAlive
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
        guard let f = u.flight else { return }
        if u.output != nil {
            if !write(u.socket, &u.output, &u.flags, RawSpan()) {
                undeliverable(f, u)
                return
            }
        }
        if u.flags.contains(.blocked) { return }
        if f.upstreamWritesEnd, f.machine.isTunnelling { transport.shutdownWrites(u.socket) }
        if f.deadlineKind == .requestBody {
            // The client had to wait: that time is not its own.
            f.bodyAllowance = max(f.bodyAllowance, now &+ f.policy.streamIdleTimeout)
            awaitRequestBody(f, received: 0)
        }
        if let d = f.downstream { enqueue(d) }
    }
}
