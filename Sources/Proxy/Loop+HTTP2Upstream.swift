// Steps 5 and 6 of a request's walk over HTTP/2. A connection of it is read and flushed like any other; in between
// stands the session, as on the near side (Loop+HTTP2.swift). A stream holds what its exchange has for the endpoint until
// the session asks for it, and what came from the endpoint until the client takes it: as much as its window, so that a
// slow client holds up nobody who shares the connection.
internal import HTTP2Engine
internal import HTTPWire
internal import Model
internal import Reactor
internal import Telemetry
internal import Upstreams

/// What is kept of a request's body until its response begins: a call that its endpoint has not looked at is sent again.
private let keptForResending = 64 * 1024

extension Loop {
    // MARK: Beginning

    /// The new connection will carry streams; that of `f` is the first. False if there is no memory for it.
    func carry(_ f: Flight, _ u: UpstreamConnection) -> Bool {
        let bounds = HTTP2Limits(
            streams: table.settings.mostStreams, headBytes: responseLimits.headBytes,
            fields: responseLimits.fieldCount + 1)
        guard let session = HTTP2Session(bounds, role: .client) else { return false }
        let carrier = UpstreamCarrier(session: session)
        u.carrier = carrier
        table.opened(u.endpoint, connection: u.token.rawValue, now: nowNanoseconds)
        carrier.waiting.append(attach(f, u, carrier).token)
        return true
    }

    /// Puts the exchange on a connection that is there, or that is being made. False if there is none after all.
    func join(_ f: Flight, _ endpoint: EndpointID, _ handle: UInt64) -> Bool {
        guard let u = upstreamConnections[token: Token(rawValue: handle)], let carrier = u.carrier,
            u.machine.isConnecting || u.machine.isMultiplexing
        else {
            // The table and the connections agree by construction; if they ever do not, go on without it.
            telemetry.bug()
            _ = table.left(endpoint, connection: handle, now: nowNanoseconds)
            table.sharedClosed(endpoint, connection: handle)
            return false
        }
        guard u.security === security(of: f) else {
            // It was made under settings that are in force no more: it finishes what it carries.
            f.exchange.attempts &-= 1
            _ = table.left(endpoint, connection: handle, now: nowNanoseconds)
            retire(u, carrier)
            return false
        }
        telemetry.upstream(.attempt, f.exchange, f.pin)
        if carrier.isParked {
            carrier.isParked = false
            telemetry.upstreamUnparked()
        }
        let s = attach(f, u, carrier)
        if u.machine.isConnecting {
            carrier.waiting.append(s.token)
            setDeadline(f, .connect, after: f.policy.connectTimeout)
        } else {
            telemetry.upstream(.poolHit, f.exchange, f.pin)
            f.exchange.upstreamChannel = u.tls?.channel
            perform(f, .connected)
        }
        return true
    }

    private func attach(_ f: Flight, _ u: UpstreamConnection, _ carrier: UpstreamCarrier) -> UpstreamConnection {
        let s = UpstreamConnection(socket: .none, endpoint: u.endpoint)
        if u.machine.isMultiplexing { s.machine = .joined() }
        let row = upstreamConnections.insert(s)
        s.token = Token(kind: TokenKind.upstream, index: row.index, generation: row.generation)
        s.stream = UpstreamStream(carrier: u)
        s.flight = f
        f.upstream = s
        carrier.streams += 1
        return s
    }

    func carrierConnected(_ u: UpstreamConnection, _ carrier: UpstreamCarrier) {
        _ = u.machine.handle(.multiplexed)
        let waiting = carrier.waiting
        carrier.waiting = []
        for token in waiting {
            guard let s = upstreamConnections[token: token] else { continue }
            perform(s, .connected)
        }
        enqueue(u)
    }

    /// The connection did not come about: every exchange that waits for it tries another endpoint.
    func carrierFailed(_ carrier: UpstreamCarrier, isTimeout: Bool) {
        let waiting = carrier.waiting
        carrier.waiting = []
        for token in waiting {
            guard let s = upstreamConnections[token: token] else { continue }
            s.stream?.isGone = true
            if carrier.handshakeFailure != .none { s.flight?.exchange.reason = carrier.handshakeFailure }
            perform(s, isTimeout ? .timedOut : .failed)
        }
    }

    // MARK: Requests

    /// Sends the head, and what is kept of the body.
    func submitRequest(_ f: Flight, _ u: UpstreamConnection, _ stream: UpstreamStream) {
        f.outgoingPending = false
        f.exchange.upstreamStarted = nowNanoseconds
        guard let carrier = stream.carrier.carrier, let outgoing = f.outgoing,
            f.requestBodyBytes == 0 || f.sentBody != nil,
            HTTP2Head.list(
                request: outgoing.span, scheme: stream.carrier.tls == nil ? "http" : "https", into: &fieldList)
        else {
            fail(f, .internalError)
            return
        }
        let hasBody = !f.facts.body.isEmpty
        guard let handle = carrier.session.request(owner: u.token.rawValue, head: fieldList, hasBody: hasBody) else {
            // The numbers of its streams are used up (RFC 9113 §5.1.1).
            retire(stream.carrier, carrier)
            f.attemptWasSent = false
            unprocessed(f)
            return
        }
        stream.handle = handle
        f.attemptWasSent = true
        f.resetCode = nil
        if let sent = f.sentBody {
            queue(&u.output, sent.bytes)
            offered(u, carrier, handle, sent.count)
        }
        let waits = carrier.streams > carrier.session.mostStreams
        if waits {
            let (connect, response) = (f.policy.connectTimeout, responseTimeout(of: f))
            setDeadline(
                f, .turn, after: connect == 0 || response == 0 ? max(connect, response) : min(connect, response))
        } else {
            // The attempt before this one may have waited.
            f.deadlineKind = .none
        }
        if f.machine.requestHasEnded {
            endRequestBody(f, stream)
            if !waits { setDeadline(f, .responseHead, after: responseTimeout(of: f)) }
        } else {
            if !waits { awaitRequestBody(f, received: 0) }
            if let d = f.downstream { enqueue(d) }
        }
        enqueue(stream.carrier)
    }

    /// Whether nothing of the request has left, for its endpoint takes no more at a time.
    func awaitsTurn(_ f: Flight) -> Bool {
        guard f.deadlineKind == .turn, let stream = f.upstream?.stream, let handle = stream.handle,
            let carrier = stream.carrier.carrier
        else { return false }
        return !carrier.session.wasSent(handle)
    }

    /// The endpoint has had as long as a connection may take. Either the request has gone meanwhile, or another endpoint
    /// is asked.
    func turnTimedOut(_ f: Flight) {
        guard let u = f.upstream, let stream = u.stream, let handle = stream.handle,
            let carrier = stream.carrier.carrier, !carrier.session.wasSent(handle)
        else {
            if f.machine.requestHasEnded {
                // Counted from the time at which it could have gone.
                let (timeout, past) = (responseTimeout(of: f), now &- f.exchange.upstreamStarted / 1_000_000)
                setDeadline(f, .responseHead, after: timeout == 0 ? 0 : timeout > past ? timeout - past : 1)
            } else {
                awaitRequestBody(f, received: 0)
            }
            return
        }
        f.exchange.reason = .overloaded
        // Another connection to the same endpoint may take it; once.
        if f.moves > 0 { f.tried.insert(u.endpoint) }
        if carrier.session.mostStreams == 0 { retire(stream.carrier, carrier) }
        unprocessed(f)
    }

    /// A part of the body: it waits until the endpoint's windows let it through.
    func putRequest(_ f: Flight, _ u: UpstreamConnection, _ stream: UpstreamStream, _ bytes: RawSpan) {
        if f.isReplayable {
            if (f.sentBody?.count ?? 0) + bytes.byteCount <= keptForResending {
                queue(&f.sentBody, bytes)
            } else {
                f.isReplayable = false
                giveBack(&f.sentBody)
            }
        }
        guard !stream.isGone, let carrier = stream.carrier.carrier, let handle = stream.handle else { return }
        queue(&u.output, bytes)
        offered(u, carrier, handle, bytes.byteCount)
        enqueue(stream.carrier)
    }

    private func offered(_ u: UpstreamConnection, _ carrier: UpstreamCarrier, _ handle: HTTP2Handle, _ count: Int) {
        carrier.session.offer(handle, count)
        if let output = u.output, output.count >= Self.mostHeld { u.flags.insert(.blocked) }
    }

    /// The body ends here, with what trailers there are. Those that cannot be written are left out, as over HTTP/1.1.
    func endRequestBody(_ f: Flight, _ stream: UpstreamStream) {
        guard !f.facts.body.isEmpty, !stream.isGone, let carrier = stream.carrier.carrier, let handle = stream.handle
        else { return }
        var trailers: MessageHead?
        if !f.requestTrailers.fields.isEmpty, HTTP2Head.list(trailers: f.requestTrailers, into: &fieldList),
            !fieldList.fields.isEmpty
        {
            trailers = fieldList
        }
        carrier.session.end(handle, trailers: trailers)
        enqueue(stream.carrier)
    }

    // MARK: Reading

    func advanceFramed(_ u: UpstreamConnection) {
        if let stream = u.stream {
            advanceStream(u, stream)
        } else if let carrier = u.carrier {
            advanceCarrier(u, carrier)
        }
    }

    /// Reads also while the endpoint takes nothing: it may do the same, and one of the two has to begin. What may come
    /// is bounded by the windows of the streams and by the budget of frames.
    private func advanceCarrier(_ u: UpstreamConnection, _ carrier: UpstreamCarrier) {
        if u.machine.isConnecting, !u.machine.isSecuring { return }
        let scratch = self.scratch
        var rounds = 0
        carrier.isRecoding = false
        while u.machine.isMultiplexing || u.machine.isSecuring, u.flags.contains(.readable) {
            // Compressing 64 KiB takes about as long as passing on a megabyte.
            if rounds == 4 || carrier.isRecoding {
                enqueue(u)
                break
            }
            rounds += 1
            scratch.removeAll()
            if let tls = u.tls {
                receive(u, tls)
                if u.machine.isMultiplexing, !scratch.isEmpty { readFrames(u, carrier, scratch) }
                if u.machine.isMultiplexing, carrier.isBroken, !u.flags.contains(.readable) { perform(u, .failed) }
                continue
            }
            let room = scratch.room
            switch transport.read(u.socket, into: scratch) {
            case .bytes(let n):
                if n < room, !u.flags.contains(.ended) { u.flags.remove(.readable) }
                readFrames(u, carrier, scratch)
            case .wouldBlock:
                u.flags.remove(.readable)
                if carrier.isBroken { perform(u, .failed) }
            case .end:
                u.flags.remove(.readable)
                perform(u, .ended)
            case .failed:
                u.flags.remove(.readable)
                carrier.reason = .upstreamReset
                perform(u, .failed)
            }
        }
        flushFrames(u, carrier)
    }

    private func readFrames(_ u: UpstreamConnection, _ carrier: UpstreamCarrier, _ input: Buffer) {
        carrier.heardAt = nowNanoseconds
        let session = carrier.session
        // The memory of heads belongs to the loop: an idle connection holds none.
        if !session.isReadingHead { swap(&session.incoming, &spareHead) }
        defer {
            if !session.isReadingHead {
                // Shared by all connections: nothing of one stays in it.
                session.incoming.removeAll()
                swap(&session.incoming, &spareHead)
            }
        }
        var offset = 0
        while offset < input.count, u.machine.isMultiplexing {
            session.receive(input.bytes, at: &offset, now: now)
            act(u, carrier, on: input)
        }
        input.removeAll()
        guard session.fault != .none, u.machine.isMultiplexing else { return }
        // What can be said is said, whether or not the endpoint reads it. Streams that end by it are told now: the
        // session knows them no more when all others are broken.
        retire(u, carrier)
        makeFrames(u, carrier)
        act(u, carrier, on: nil)
        guard u.machine.isMultiplexing else { return }
        _ = write(u, RawSpan())
        carrier.reason = .malformedResponse
        telemetry.upstreamFault()
        perform(u, .failed)
    }

    private func stream(_ owner: UInt64) -> (UpstreamConnection, UpstreamStream, Flight)? {
        guard let u = upstreamConnections[token: Token(rawValue: owner)], let stream = u.stream, let f = u.flight
        else { return nil }
        return (u, stream, f)
    }

    /// Acts on what the session has recorded. `input` is what it was reading, if it was.
    private func act(_ u: UpstreamConnection, _ carrier: UpstreamCarrier, on input: Buffer?) {
        while let event = carrier.session.nextEvent() {
            switch event {
            case .responseReceived(let owner, let ends, let isCut):
                guard let (s, stream, f) = stream(owner), f.machine.awaitsResponseHead else { continue }
                swap(&carrier.session.incoming, &f.exchange.response)
                readResponseHead(s, stream, f, ends: ends, isCut: isCut)
            case .dataReceived(let owner, let range):
                guard let (s, stream, f) = stream(owner), let input else { continue }
                takeData(s, stream, f, input.bytes.extracting(range))
            case .ended(let owner):
                guard let (s, stream, f) = stream(owner) else { continue }
                stream.inputEnded = true
                endResponseIfTaken(s, stream, f)
            case .trailersReceived(let owner, let isCut):
                guard let (s, stream, f) = stream(owner) else { continue }
                swap(&carrier.session.incoming, &f.responseTrailers)
                if isCut
                    || !HTTP2Head.complete(
                        responseTrailers: &f.responseTrailers, limits: responseLimits, ofCall: isCall(f))
                {
                    f.responseTrailers.removeAll()
                    broke(s, f, .malformedResponse)
                    continue
                }
                stream.inputEnded = true
                endResponseIfTaken(s, stream, f)
            case .finished(let owner):
                stream(owner)?.1.outputEnded = true
            case .resetReceived(let owner, let code):
                stream(owner)?.1.resetCode = code
            case .closed(let owner, let code):
                guard let (s, stream, f) = stream(owner) else { continue }
                closed(s, stream, f, carrier, code)
            case .settingsReceived:
                let most = carrier.session.mostStreams
                table.limit(
                    u.endpoint, connection: u.token.rawValue, streams: most, running: most == 0 ? running(carrier) : 0,
                    now: nowNanoseconds)
                if carrier.streams > most { relieve(carrier, most: most, because: .overloaded) }
            case .goAwayReceived:
                carrier.isGoingAway = true
                retire(u, carrier)
                relieve(carrier, most: 0, because: .upstreamClosed)
            case .headReceived, .pingAnswered:
                break
            }
        }
    }

    /// No further exchange is put on the connection.
    private func retire(_ u: UpstreamConnection, _ carrier: UpstreamCarrier) {
        table.retire(u.endpoint, connection: u.token.rawValue)
        carrier.isLeaving = true
        enqueue(u)
    }

    /// The exchange has run out of time. If nothing at all has come on its connection meanwhile, nobody may be there any
    /// more, and the next ones look for another.
    func suspectCarrier(of f: Flight) {
        guard let c = f.upstream?.stream?.carrier, let carrier = c.carrier, c.machine.isMultiplexing,
            carrier.heardAt < f.exchange.upstreamStarted
        else { return }
        retire(c, carrier)
    }

    /// How many requests on the connection have left.
    private func running(_ carrier: UpstreamCarrier) -> Int {
        let session = carrier.session
        // Those whose response is all there, and on its way to a slow client, are none of the session's any more.
        var waiting = 0
        for owner in session.owners {
            if let handle = stream(owner)?.1.handle, !session.wasSent(handle) { waiting += 1 }
        }
        return carrier.streams - waiting
    }

    /// More exchanges are on the connection than it takes, which is `most` at a time: those that still wait for their
    /// turn find another one.
    private func relieve(_ carrier: UpstreamCarrier, most: Int, because reason: FailureReason) {
        let session = carrier.session
        var unsent: [UInt64] = []
        var room = most
        for owner in session.owners {
            guard let handle = stream(owner)?.1.handle else { continue }
            if session.wasSent(handle) { room -= 1 } else { unsent.append(owner) }
        }
        for owner in unsent.dropFirst(max(0, room)) {
            guard let (_, _, f) = stream(owner) else { continue }
            if f.exchange.reason == .none { f.exchange.reason = reason }
            unprocessed(f)
        }
    }

    private func readResponseHead(
        _ u: UpstreamConnection, _ stream: UpstreamStream, _ f: Flight, ends: Bool, isCut: Bool
    ) {
        guard let d = f.downstream else { return }
        let exchange = f.exchange
        if ends { stream.inputEnded = true }
        guard !isCut, HTTP2Head.complete(response: &exchange.response, limits: responseLimits) else {
            fail(f, .malformedResponse)
            return
        }
        let none: [UInt8] = []
        switch ResponseAdmission.judge(&exchange.response, method: exchange.request.method, key: none.span) {
        case .refuse:
            fail(f, .malformedResponse)
        case .admit(var facts):
            if facts.isInformational {
                stream.hints += 1
                if stream.hints > UpstreamStream.mostHints {
                    fail(f, .malformedResponse)
                } else {
                    perform(f, .informationalReceived)
                }
                return
            }
            // The endpoint has answered: it is healthy, also if no new connection was needed to find out.
            if table.connected(u.endpoint) { telemetry.upstream(.recovery, exchange, f.pin) }
            // A head and nothing else is passed on as one, where the client's version can say so.
            if ends, facts.body == .untilClose { facts.body = d.stream == nil ? .length(0) : .none }
            f.responseFacts = facts
            perform(f, .responseHeadReceived)
            guard u.flight === f else { return }
            touch(d)
            if ends { endResponseIfTaken(u, stream, f) }
        }
    }

    /// Passes on what came, or keeps it for a client that takes nothing now.
    private func takeData(_ u: UpstreamConnection, _ stream: UpstreamStream, _ f: Flight, _ bytes: RawSpan) {
        guard f.machine.isStreaming, u.input == nil, let d = f.downstream, !d.flags.contains(.blocked) else {
            queue(&u.input, bytes)
            return
        }
        pass(u, stream, f, d, bytes)
    }

    private func pass(
        _ u: UpstreamConnection, _ stream: UpstreamStream, _ f: Flight, _ d: Downstream, _ bytes: RawSpan
    ) {
        f.deadline = f.policy.streamIdleTimeout == 0 ? never : now &+ f.policy.streamIdleTimeout
        sendResponseBody(f, bytes)
        guard u.flight === f else { return }
        // What an encoder keeps goes out when the connection has been read.
        if let recoding = f.recoding {
            if recoding.changesResponse { stream.carrier.carrier?.isRecoding = true }
            enqueue(u)
        }
        if let handle = stream.handle, let carrier = stream.carrier.carrier {
            carrier.session.consume(handle, bytes.byteCount)
            enqueue(stream.carrier)
        }
        touch(d)
    }

    /// What has been put into its output goes when the pass ends. A stream's is asked for by its own session.
    private func touch(_ d: Downstream) {
        if d.stream == nil, !d.machine.isClosed { enqueue(d) }
    }

    /// Passes on what has been kept.
    private func advanceStream(_ u: UpstreamConnection, _ stream: UpstreamStream) {
        guard let f = u.flight else { return }
        while u.flight === f, f.machine.isStreaming, let input = u.input {
            if input.isEmpty {
                giveBack(&u.input)
                continue
            }
            guard let d = f.downstream, !d.flags.contains(.blocked) else { return }
            pass(u, stream, f, d, input.bytes)
            // The client may have gone by this, and with it the input.
            guard u.input === input else { return }
            input.removeAll()
        }
        guard u.flight === f else { return }
        if f.recoding != nil, !stream.inputEnded, let d = f.downstream {
            flushRecoding(f)
            touch(d)
            guard u.flight === f else { return }
        }
        endResponseIfTaken(u, stream, f)
    }

    private func endResponseIfTaken(_ u: UpstreamConnection, _ stream: UpstreamStream, _ f: Flight) {
        guard stream.inputEnded, u.input == nil, f.machine.isStreaming else { return }
        let d = f.downstream
        perform(f, .responseEnded(reusable: true))
        if let d { touch(d) }
    }

    // MARK: Ends of streams

    /// The session has let go of the stream.
    private func closed(
        _ u: UpstreamConnection, _ stream: UpstreamStream, _ f: Flight, _ carrier: UpstreamCarrier, _ code: UInt32
    ) {
        stream.isGone = true
        f.resetCode = stream.resetCode
        if stream.inputEnded {
            // The response is all there. What is left of the request is not wanted (RFC 9113 §8.1).
            if !stream.outputEnded { undeliverable(f, u) }
            return
        }
        if code == HTTP2ErrorCode.refusedStream.rawValue {
            giveBack(&u.output)
            if f.machine.awaitsResponseHead {
                f.exchange.reason = .upstreamReset
                if stream.resetCode == nil || f.moves == 0 {
                    unprocessed(f)
                } else {
                    // By the endpoint's word nothing has been done (RFC 9113 §8.7); but it may be overloaded.
                    attemptEnded(
                        f, mayRetry: mayRetry(f, connectFailed: true, wasReused: false), needsFresh: false)
                }
                return
            }
        }
        broke(u, f, stream.resetCode == nil ? .malformedResponse : .upstreamReset)
    }

    /// The response cannot come any more, or not whole.
    private func broke(_ u: UpstreamConnection, _ f: Flight, _ reason: FailureReason) {
        if f.exchange.reason == .none { f.exchange.reason = reason }
        if f.machine.awaitsResponseHead {
            attemptEnded(f, mayRetry: false, needsFresh: false)
        } else {
            perform(f, .responseBroken)
        }
    }

    /// Nobody has seen anything of this attempt: that costs neither a retry nor the budget of them. How often is bounded
    /// all the same.
    private func unprocessed(_ f: Flight) {
        if f.exchange.reason == .none { f.exchange.reason = .upstreamClosed }
        f.moves &+= 1
        let isWhole = f.isReplayable || f.requestBodyBytes == 0
        attemptEnded(f, mayRetry: isWhole && f.moves <= 8, needsFresh: false)
    }

    /// The connection has ended: so have its streams.
    func breakStreams(_ u: UpstreamConnection) {
        guard let carrier = u.carrier else { return }
        let session = carrier.session
        for owner in session.owners {
            guard let (s, stream, f) = stream(owner) else { continue }
            stream.isGone = true
            giveBack(&s.output)
            if stream.inputEnded {
                if !stream.outputEnded { undeliverable(f, s) }
            } else if !f.machine.awaitsResponseHead {
                broke(s, f, carrier.reason)
            } else if let handle = stream.handle, !session.wasSent(handle) {
                unprocessed(f)
            } else {
                f.exchange.reason = carrier.reason
                attemptFailed(f, connectFailed: false)
            }
        }
        u.carrier = nil
    }

    /// Gives back what a stream holds, and tells the endpoint if it is cut off.
    func close(_ u: UpstreamConnection, _ stream: UpstreamStream) {
        let c = stream.carrier
        giveBack(&u.input)
        giveBack(&u.output)
        upstreamConnections.remove(index: u.token.index, generation: u.token.generation)
        let waited = stream.handle.map { handle in c.carrier.map { !$0.session.wasSent(handle) } ?? false } ?? true
        let keeps = table.left(u.endpoint, connection: c.token.rawValue, waited: waited, now: nowNanoseconds)
        guard let carrier = c.carrier, !c.machine.isClosed else { return }
        if stream.handle == nil { carrier.waiting.removeAll { $0 == u.token } }
        if !stream.isGone, let handle = stream.handle {
            carrier.session.forget(handle)
            if !stream.inputEnded || !stream.outputEnded { carrier.session.reset(stream: handle.stream, .cancel) }
        }
        carrier.streams -= 1
        if !keeps || isDraining { carrier.isLeaving = true }
        if carrier.streams == 0, !carrier.isLeaving, !carrier.isParked {
            carrier.isParked = true
            telemetry.upstreamParked()
        }
        if c.machine.isMultiplexing { enqueue(c) }
    }

    /// An idle connection is closed: its endpoint is told, as far as it can be.
    func dismiss(_ u: UpstreamConnection, _ carrier: UpstreamCarrier) {
        if u.machine.isMultiplexing, carrier.streams == 0 {
            carrier.session.terminate(.noError)
            makeFrames(u, carrier)
            if u.output != nil { _ = write(u, RawSpan()) }
        }
        perform(u, .timedOut)
    }

    /// Closes the connection itself; its streams come next.
    func close(_ u: UpstreamConnection, _ carrier: UpstreamCarrier, _ event: UpstreamMachine.Event) {
        if carrier.isParked { telemetry.upstreamUnparked() }
        if event == .failed || event == .timedOut, !carrier.waiting.isEmpty {
            let isEjected = table.sharedFailed(u.endpoint, connection: u.token.rawValue, now: nowNanoseconds)
            if isEjected, let token = carrier.waiting.first, let f = upstreamConnections[token: token]?.flight {
                telemetry.upstream(.ejection, f.exchange, f.pin)
            }
        } else {
            table.sharedClosed(u.endpoint, connection: u.token.rawValue)
        }
        if let tls = u.tls { endSecurity(u, tls) }
        giveBack(&u.output)
        upstreamConnections.remove(index: u.token.index, generation: u.token.generation)
        transport.close(u.socket)
        telemetry.upstreamClosed()
    }

    // MARK: Writing

    /// Writes what the session has to say, and what the streams have for the endpoint.
    func flushFrames(_ u: UpstreamConnection, _ carrier: UpstreamCarrier) {
        if carrier.isLeaving, carrier.streams == 0 { carrier.session.terminate(.noError) }
        while u.machine.isMultiplexing, !u.flags.contains(.blocked) {
            makeFrames(u, carrier)
            act(u, carrier, on: nil)
            guard u.machine.isMultiplexing, !u.isFlushed else { break }
            if !write(u, RawSpan()) {
                // It may have answered before it went: that is read first.
                carrier.isBroken = true
                carrier.reason = .upstreamReset
                giveBack(&u.output)
                u.flags.insert(.blocked)
                u.flags.insert(.readable)
                enqueue(u)
                return
            }
        }
        guard u.machine.isMultiplexing else { return }
        if carrier.session.isOver, carrier.session.fault != .none {
            // The library has found it, and GOAWAY says so.
            carrier.reason = .malformedResponse
            telemetry.upstreamFault()
            perform(u, .failed)
        } else if carrier.session.isOver || carrier.isLeaving && carrier.streams == 0 {
            perform(u, .discarded)
        }
    }

    /// Fills the connection's output with frames, to a bound.
    private func makeFrames(_ u: UpstreamConnection, _ carrier: UpstreamCarrier) {
        let session = carrier.session
        while (u.output?.count ?? 0) < Self.mostFramed {
            switch session.nextOutput() {
            case .nothing: return
            case .control: queue(&u.output, session.control)
            case .data(let owner, let count):
                let output = reserve(&u.output, 9 + count)
                for i in 0..<9 { output.append(session.frameHead[i]) }
                guard count > 0 else { continue }
                guard let (s, _, f) = stream(owner), let body = s.output, body.count >= count else {
                    // The session and the streams agree by construction; a frame without its bytes ends the connection.
                    telemetry.bug()
                    perform(u, .failed)
                    return
                }
                output.append(body.bytes.extracting(first: count))
                body.consume(count)
                if body.isEmpty { giveBack(&s.output) }
                if s.flags.contains(.blocked), (s.output?.count ?? 0) <= Self.mostHeld / 2 {
                    s.flags.remove(.blocked)
                    tookRequest(f)
                }
            }
        }
    }
}
