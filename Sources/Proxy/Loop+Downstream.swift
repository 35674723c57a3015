// Steps 1 and 2 of a request's walk, and its way back: what is read from a downstream HTTP/1.1 connection, and how
// responses are written to it.
internal import HTTPWire
internal import Model
internal import Reactor
internal import TLSEngine

extension Loop {
    // MARK: Beginning and end

    /// A connection of which all is known that can be before its first request. It is counted already.
    /// - Parameters:
    ///   - early: what was read of it in finding out.
    ///   - hasEnded: the peer's end has been seen behind that.
    ///   - isRegistered: the poller knows the socket, under another token.
    ///   - handshakeEnd: by when the handshake must be done whose ClientHello was waited for.
    func begin(
        _ newcomer: Newcomer, early: Buffer?, hasEnded: Bool, isRegistered: Bool, handshakeEnd: UInt64
    ) {
        let d = Downstream(
            socket: newcomer.socket, peer: newcomer.peer, localPort: newcomer.port, isTrusted: newcomer.isTrusted)
        d.flags = newcomer.isSecured ? [.fresh, .secured] : .fresh
        let relay = relayTarget(newcomer)
        let isSecure = newcomer.kind == .https && relay == nil
        if isSecure {
            guard let session = certificates?.accept() else {
                var early = early
                giveBack(&early)
                transport.abort(newcomer.socket)
                if !newcomer.isTrusted { clients?.leave(newcomer.peer.ip) }
                telemetry.connectionRefused()
                telemetry.connectionClosed()
                return
            }
            let tls = SecureLayer(session)
            tls.early = early
            d.tls = tls
        } else {
            d.input = early
        }
        let row = downstreams.insert(d)
        d.token = Token(kind: TokenKind.downstream, index: row.index, generation: row.generation)
        let isWatched =
            isRegistered
            ? transport.rename(newcomer.socket, d.token) : transport.register(newcomer.socket, d.token)
        if !isWatched {
            _ = d.machine.handle(.broken)
            close(d, abort: true)
            return
        }
        // The first head is waited for as long as a head may take: a connection that says nothing is no keep-alive.
        if relay == nil {
            let timeouts = configuration.timeouts
            let limit = isSecure ? timeouts.handshake : timeouts.requestHead
            let left = handshakeEnd == never ? limit : handshakeEnd > now ? handshakeEnd &- now : 1
            setDeadline(d, after: isSecure ? left : limit)
        }
        if isRegistered {
            // What was read already comes with no edge.
            d.flags.insert(.readable)
            if hasEnded { d.flags.insert(.ended) }
            enqueue(d)
        }
        if let relay { beginRelay(d, relay, newcomer) }
    }

    /// Where the connection leads, if what comes is not to be understood here. The port of a service that is gone since
    /// leads nowhere.
    private func relayTarget(_ newcomer: Newcomer) -> RelayTarget? {
        switch newcomer.kind {
        case .http: return nil
        case .https:
            return newcomer.serverName.isEmpty ? nil : current.publication.relays.target(host: newcomer.serverName)
        case .stream:
            return current.publication.relays.target(port: newcomer.localPort) ?? RelayTarget(index: .max, upstream: -1)
        }
    }

    private func close(_ d: Downstream, abort: Bool) {
        if let tls = d.tls {
            if !abort { sayGoodbye(d, tls) }
            giveBack(&tls.pending)
            giveBack(&tls.early)
        }
        giveBack(&d.input)
        giveBack(&d.output)
        // A head that was never completed is no exchange.
        if let f = d.flight, !f.machine.hasBegun { release(f) }
        downstreams.remove(index: d.token.index, generation: d.token.generation)
        if abort { transport.abort(d.socket) } else { transport.close(d.socket) }
        if !d.isTrusted { clients?.leave(d.peer.ip) }
        d.deadline = never
        telemetry.connectionClosed()
    }

    // MARK: The machine

    func perform(_ d: Downstream, _ event: DownstreamMachine.Event) {
        var actions = d.machine.handle(event)
        while let action = actions.next() {
            switch action {
            case .awaitRequest:
                setDeadline(d, after: d.isFlushed ? configuration.timeouts.idle : configuration.timeouts.streamIdle)
                // A pipelined request may be waiting in our own memory: no edge will tell of it.
                if d.input != nil || d.flags.contains(.readable) { enqueue(d) }
            case .awaitHead:
                setDeadline(d, after: configuration.timeouts.requestHead)
            case .dropRequest:
                setDeadline(d, after: configuration.timeouts.linger)
                enqueue(d)
            case .answerTimeout:
                giveBack(&d.input)
                d.parser = HeadParser(.request)
                telemetry.began()
                fail(d.flight ?? beginFlight(d), .headTimeout)
            case .closeWhenFlushed:
                if let stream = d.stream {
                    // Flushed when the session says so.
                    setDeadline(d, after: configuration.timeouts.streamIdle)
                    if stream.isBreaking { continue }
                    endBody(stream, trailers: nil)
                    // A tunnel's side may have ended long before.
                    if stream.isGone || stream.isFinished { perform(d, .flushed) }
                    continue
                }
                setDeadline(
                    d, after: d.isFlushed ? configuration.timeouts.linger : configuration.timeouts.streamIdle)
                if d.isFlushed { perform(d, .flushed) }
            case .linger:
                if let stream = d.stream {
                    stopRequest(stream)
                    perform(d, .peerEnded)
                    continue
                }
                endWrites(d)
                setDeadline(d, after: configuration.timeouts.linger)
                enqueue(d)
            case .close:
                if let stream = d.stream { close(d, stream, .complete) } else { close(d, abort: false) }
            case .abort:
                if let stream = d.stream {
                    close(d, stream, event == .timedOut ? .stalled : .broken)
                } else {
                    close(d, abort: true)
                }
            case .breakStreams: breakStreams(d)
            case .announceEnd: announceEnd(d)
            case .endSession: connectionTimedOut(d)
            case .breakExchange:
                if let f = d.flight {
                    if f.exchange.reason == .none { f.exchange.reason = .clientClosed }
                    perform(f, .downstreamBroken)
                }
            }
        }
    }

    // MARK: Reading

    private func wantsBytes(_ d: Downstream) -> Bool {
        if d.machine.readsHead || d.machine.isMultiplexing { return !d.flags.contains(.blocked) }
        if d.machine.isDropping || d.machine.isLingering { return true }
        guard let f = d.flight else { return false }
        if f.machine.passesRequest || f.machine.isTunnelling {
            guard let u = f.upstream else { return false }
            return !u.flags.contains(.blocked) && (f.machine.isTunnelling || !d.body.isComplete)
        }
        return f.machine.dropsRequest && !d.body.isComplete
    }

    /// Reads and acts until there is nothing to read, or nothing may be read.
    func advance(_ d: Downstream) {
        if let stream = d.stream {
            advanceStream(d, stream)
            return
        }
        let scratch = self.scratch
        var rounds = 0
        while !d.machine.isClosed {
            if let input = d.input {
                if input.isEmpty {
                    giveBack(&d.input)
                } else if consume(d, input) {
                    continue
                }
            }
            guard wantsBytes(d), d.flags.contains(.readable) else { break }
            if rounds == 4 {
                // Others are waiting too.
                enqueue(d)
                break
            }
            rounds += 1
            if d.input != nil, d.tls == nil {
                let input = reserve(&d.input, 4096)
                let room = input.room
                didRead(d, transport.read(d.socket, into: input), of: room)
            } else {
                scratch.removeAll()
                if let tls = d.tls {
                    receive(d, tls)
                    if d.input != nil {
                        queue(&d.input, scratch.bytes)
                        continue
                    }
                } else {
                    let room = scratch.room
                    let result = transport.read(d.socket, into: scratch)
                    didRead(d, result, of: room)
                }
                while !scratch.isEmpty, !d.machine.isClosed, consume(d, scratch) {}
                if !scratch.isEmpty, !d.machine.isClosed {
                    queue(&d.input, scratch.bytes)
                    scratch.removeAll()
                }
            }
        }
        if d.machine.isClosed { return }
        // One flush for all that this pass made.
        if let u = d.flight?.upstream { flush(u) }
        flush(d)
    }

    @inline(__always)
    private func didRead(_ d: Downstream, _ result: ReadResult, of room: Int) {
        switch result {
        case .bytes(let n):
            // A short read means dry, unless an end is waiting behind it.
            if n < room, !d.flags.contains(.ended) { d.flags.remove(.readable) }
        case .wouldBlock:
            d.flags.remove(.readable)
        case .end:
            d.flags.remove(.readable)
            d.flags.insert(.endRead)
            downstreamEnded(d)
        case .failed:
            perform(d, .broken)
        }
    }

    func downstreamEnded(_ d: Downstream) {
        if d.machine.isTunnelling, let f = d.flight {
            perform(d, .peerEnded)
            perform(f, .downstreamEnded)
        } else {
            perform(d, .peerEnded)
        }
    }

    /// Takes what it can from the front of `input`; false if it can take no more for now.
    func consume(_ d: Downstream, _ input: Buffer) -> Bool {
        if d.machine.readsHead {
            if d.flags.contains(.blocked) { return false }
            if d.flags.contains(.fresh) {
                switch opening(input) {
                case .http1: d.flags.remove(.fresh)
                case .http2:
                    d.flags.remove(.fresh)
                    beginHTTP2(d)
                    return !d.machine.isClosed
                case .unclear:
                    perform(d, .bytesArrived)
                    return false
                }
            }
            return readHead(d, input)
        }
        if let c = d.http2, d.machine.isMultiplexing {
            readFrames(d, c, input)
            return true
        }
        if let f = d.flight {
            if f.machine.passesRequest {
                guard let u = f.upstream, !d.body.isComplete else { return false }
                return passRequest(d, f, u, input)
            }
            if f.machine.isTunnelling {
                guard let u = f.upstream, !u.flags.contains(.blocked) else { return false }
                f.exchange.bytesIn &+= UInt64(input.count)
                setDeadline(f, .stream, after: f.policy.streamIdleTimeout)
                // Where it fails, a stream that is closed accounts for what it still holds.
                if write(u, input.bytes) { input.removeAll() } else { perform(f, .responseBroken) }
                return true
            }
            if f.machine.dropsRequest { return dropRequest(d, input) }
            return false
        }
        if d.machine.isDropping { return dropRequest(d, input) }
        // Leaving or lingering: nothing that comes now is a request.
        perform(d, .dropped(input.count))
        input.removeAll()
        return true
    }

    private func dropRequest(_ d: Downstream, _ input: Buffer) -> Bool {
        if d.body.isComplete { return false }
        var offset = 0
        let event: BodyEvent
        if let f = d.flight {
            event = d.body.next(input.bytes, at: &offset, limits: headLimits, trailers: &f.requestTrailers)
        } else {
            let trailers = d.droppedTrailers ?? DroppedTrailers()
            event = d.body.next(input.bytes, at: &offset, limits: headLimits, trailers: &trailers.head)
            d.droppedTrailers = d.body.isReadingTrailers ? trailers : nil
        }
        switch event {
        case .needMore:
            input.consume(offset)
            perform(d, .dropped(offset))
            return false
        case .data(let range):
            if let f = d.flight {
                // It is gone: the request cannot be sent again.
                f.isReplayable = false
                f.requestBodyBytes &+= UInt64(range.count)
            }
            input.consume(offset)
            perform(d, .dropped(offset))
            if d.body.isComplete { droppedAll(d) }
            return true
        case .end:
            input.consume(offset)
            droppedAll(d)
            return true
        case .failed:
            input.removeAll()
            perform(d, .requestUnreadable)
            if let f = d.flight { perform(f, .requestUndeliverable) }
            return true
        }
    }

    func droppedAll(_ d: Downstream) {
        d.droppedTrailers = nil
        perform(d, .requestEnded)
        if let f = d.flight { perform(f, .requestEnded) }
    }

    // MARK: Heads

    private func readHead(_ d: Downstream, _ input: Buffer) -> Bool {
        let f = d.flight ?? beginFlight(d)
        switch d.parser.parse(input.bytes, limits: headLimits, into: &f.exchange.request) {
        case .needMore:
            // The parser keeps what it has seen in the head's own memory.
            input.removeAll()
            if d.parser.hasBegun {
                perform(d, .bytesArrived)
            } else {
                release(f)
            }
            return false
        case .complete(let consumed):
            input.consume(consumed)
            admit(d, f)
            return true
        case .refuse(let refusal):
            input.removeAll()
            perform(d, .headRefused)
            refuse(f, refusal)
            return true
        }
    }

    // MARK: Bodies

    private func passRequest(_ d: Downstream, _ f: Flight, _ u: UpstreamConnection, _ input: Buffer) -> Bool {
        if u.flags.contains(.blocked) { return false }
        var offset = 0
        switch d.body.next(input.bytes, at: &offset, limits: headLimits, trailers: &f.requestTrailers) {
        case .needMore:
            input.consume(offset)
            return false
        case .data(let range):
            f.requestBodyBytes &+= UInt64(range.count)
            if f.policy.maxBodyBytes != 0, f.requestBodyBytes > f.policy.maxBodyBytes {
                // What is left is dropped with the rest, or accounted for when a stream is closed.
                perform(d, .requestUnreadable)
                fail(f, .bodyTooLarge)
                return true
            }
            guard sendRequestBody(f, u, input.bytes.extracting(range)) else {
                if f.exchange.reason == .none { f.exchange.fault = .base64 }
                perform(d, .requestUnreadable)
                fail(f, .malformedRequest)
                return true
            }
            // The exchange may have ended by this, and its input with it.
            guard d.flight === f else { return false }
            input.consume(offset)
            if d.body.isComplete {
                endRequest(d, f, u)
            } else {
                awaitRequestBody(f, received: range.count)
            }
            return true
        case .end:
            input.consume(offset)
            endRequest(d, f, u)
            return true
        case .failed:
            input.removeAll()
            perform(d, .requestUnreadable)
            fail(f, .malformedRequest)
            return true
        }
    }

    // MARK: Writing

    @inline(__always)
    func flush(_ d: Downstream) {
        if let c = d.http2 {
            flushFrames(d, c)
            return
        }
        // A stream's output is asked for by the session of the connection that carries it.
        if d.stream != nil { return }
        guard d.output != nil, !d.flags.contains(.blocked) else { return }
        if !write(d, RawSpan()) {
            perform(d, .broken)
        } else if d.isFlushed {
            flushed(d)
        }
    }

    /// Writes what is queued and then `more`, through TLS where there is any.
    @inline(__always)
    func write(_ d: Downstream, _ more: RawSpan) -> Bool {
        if let tls = d.tls { return writeSecure(d, tls, more) }
        return write(d.socket, &d.output, &d.flags, more)
    }

    /// Nothing more will be written, and the client is told so.
    func endWrites(_ d: Downstream) {
        if let tls = d.tls { sayGoodbye(d, tls) }
        transport.shutdownWrites(d.socket)
    }

    /// The kernel takes bytes again.
    func writable(_ d: Downstream) {
        d.flags.remove(.blocked)
        if !d.isFlushed, !write(d, RawSpan()) {
            perform(d, .broken)
            return
        }
        if d.isFlushed { flushed(d) }
        if d.machine.isClosed { return }
        if d.flight == nil, d.machine.isIdle || d.machine.isLeaving {
            // The end of a response on its way to a slow reader: it has as long as it takes, while it takes.
            let timeouts = configuration.timeouts
            setDeadline(
                d, after: !d.isFlushed ? timeouts.streamIdle : d.machine.isIdle ? timeouts.idle : timeouts.linger)
        }
        if d.flags.contains(.blocked) { return }
        if let f = d.flight, let u = f.upstream {
            setDeadline(f, .stream, after: f.policy.streamIdleTimeout)
            enqueue(u)
        }
        enqueue(d)
    }

    private func flushed(_ d: Downstream) {
        if d.machine.isLeaving {
            perform(d, .flushed)
        } else if let f = d.flight, f.downstreamWritesEnd, f.machine.isTunnelling {
            endWrites(d)
        }
    }
}
