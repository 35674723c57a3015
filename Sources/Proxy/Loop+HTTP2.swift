// The first and the last step of a request's walk over HTTP/2. A connection of it reads and is flushed like any other;
// in between stands the session. What the session says is acted on when it has come back from reading a frame or making
// one, never from within; what exchanges have for their clients waits in their streams until the session asks for it.
internal import HTTP2Engine
internal import HTTPWire
internal import Model
internal import Reactor

extension Loop {
    // MARK: The connection

    enum Opening {
        case http1
        case http2
        /// Too few bytes to tell.
        case unclear
    }

    /// What the first bytes of a connection begin. There is no upgrade from HTTP/1.1: it was dropped from the standard,
    /// and smuggled requests past proxies.
    func opening(_ input: Buffer) -> Opening {
        let bytes = input.span
        let n = min(bytes.count, preface.count)
        for i in 0..<n where bytes[i] != preface[i] { return .http1 }
        return n == preface.count ? .http2 : .unclear
    }

    /// From here on the connection carries streams.
    func beginHTTP2(_ d: Downstream) {
        let limits = configuration.limits
        var bounds = HTTP2Limits(
            streams: limits.streams, headBytes: limits.headBytes,
            // Crumbs of a cookie are one field, however many: each counts 32 bytes of the head, and these bound them.
            fields: max(limits.fields + 6, limits.headBytes / 32))
        bounds.isWary = floods.remembers(d.peer.ip, now: now)
        guard let session = HTTP2Session(bounds) else {
            perform(d, .broken)
            return
        }
        d.http2 = HTTP2Connection(session: session)
        perform(d, .multiplexed)
        telemetry.http2Opened()
    }

    /// Takes everything that is there: how much may come is the windows' business.
    func readFrames(_ d: Downstream, _ c: HTTP2Connection, _ input: Buffer) {
        // The memory of heads belongs to the loop: an idle connection holds none.
        if !c.session.isReadingHead { swap(&c.session.incoming, &spareHead) }
        defer {
            if !c.session.isReadingHead {
                // Shared by all connections: nothing of one client stays in it.
                c.session.incoming.removeAll()
                swap(&c.session.incoming, &spareHead)
            }
        }
        // No endpoint is troubled for what is not wanted any more.
        c.doomed = c.session.doomedStreams(in: input.bytes)
        var offset = 0
        while offset < input.count, d.machine.isMultiplexing {
            c.session.receive(input.bytes, at: &offset, now: now)
            act(d, c, on: input)
        }
        input.removeAll()
    }

    private func stream(_ owner: UInt64) -> (Downstream, HTTP2Stream)? {
        guard let s = downstreams[token: Token(rawValue: owner)], let stream = s.stream else { return nil }
        return (s, stream)
    }

    /// Acts on what the session has recorded. `input` is what it was reading, if it was.
    private func act(_ d: Downstream, _ c: HTTP2Connection, on input: Buffer?) {
        while let event = c.session.nextEvent() {
            switch event {
            case .headReceived(let id, let ends, let isCut):
                if !c.doomed.isEmpty, c.doomed.contains(id) {
                    c.session.passOver(stream: id)
                    continue
                }
                beginStream(d, c, id, ends: ends, isCut: isCut)
            case .trailersReceived(let owner, let isCut):
                guard let (s, stream) = stream(owner) else { continue }
                endInput(s, stream, trailers: &c.session.incoming, isCut: isCut)
            case .dataReceived(let owner, let range):
                guard let (s, _) = stream(owner), let input else { continue }
                queue(&s.input, input.bytes.extracting(range))
                enqueue(s)
            case .ended(let owner):
                guard let (s, stream) = stream(owner) else { continue }
                stream.inputEnded = true
                enqueue(s)
            case .finished(let owner):
                guard let (s, stream) = stream(owner) else { continue }
                stream.isFinished = true
                perform(s, .flushed)
            case .closed(let owner, let code):
                guard let (s, stream) = stream(owner) else { continue }
                stream.isGone = true
                if s.machine.isTunnelling, stream.inputEnded, !stream.hasBody, code == 0 {
                    // Both sides have ended. What came last may still be on its way to the upstream.
                    enqueue(s)
                    continue
                }
                if let f = s.flight, f.exchange.reason == .none { f.exchange.reason = Self.reason(of: code) }
                perform(s, .broken)
            case .pingAnswered:
                if c.farewell == .announced { sayFarewell(c) }
            case .responseReceived, .resetReceived, .settingsReceived, .goAwayReceived:
                // Of the far side.
                break
            }
        }
    }

    /// Why a stream ended before its response did.
    private static func reason(of code: UInt32) -> FailureReason {
        switch HTTP2ErrorCode(rawValue: code) {
        case .protocolError, .flowControlError, .streamClosed, .frameSizeError: .malformedRequest
        default: .clientClosed
        }
    }

    /// Why the streams of a connection ended with it. What we have ended for is no leaving of the client's.
    private static func reason(of fault: HTTP2Fault) -> FailureReason {
        switch fault {
        case .none: .none
        case .malformed, .flood, .resets, .headers: .malformedRequest
        case .internalError: .internalError
        }
    }

    /// Writes what the session has to say, and what the streams have for their clients.
    func flushFrames(_ d: Downstream, _ c: HTTP2Connection) {
        while d.machine.isMultiplexing, !d.flags.contains(.blocked) {
            makeFrames(d, c)
            act(d, c, on: nil)
            if !c.breaking.isEmpty { resetWhatHasGone(c) }
            guard d.machine.isMultiplexing, d.output != nil else { break }
            if !write(d, RawSpan()) {
                perform(d, .broken)
                return
            }
        }
        guard d.machine.isMultiplexing else { return }
        if c.session.isOver {
            perform(d, .sessionEnded)
        } else {
            settleDeadline(d, c)
        }
    }

    /// Fills the connection's output with frames, to a bound.
    ///
    /// - Parameter direct: what has been offered for the stream `owner` and lies nowhere yet, so that it is copied once.
    /// - Returns: how much of it is in frames.
    @discardableResult
    private func makeFrames(
        _ d: Downstream, _ c: HTTP2Connection, owner directOwner: UInt64 = 0, _ direct: RawSpan = RawSpan()
    ) -> Int {
        let session = c.session
        var taken = 0
        while (d.output?.count ?? 0) < Self.mostFramed {
            switch session.nextOutput() {
            case .nothing: return taken
            case .control: queue(&d.output, session.control)
            case .data(let owner, let count):
                if owner == directOwner, count <= direct.byteCount - taken {
                    frame(d, session, direct.extracting(taken..<(taken + count)))
                    taken += count
                    continue
                }
                if count == 0 {
                    frame(d, session, RawSpan())
                    continue
                }
                guard let (s, _) = stream(owner), let body = s.output, body.count >= count else {
                    // The session and the streams agree by construction; a frame without its bytes ends the connection.
                    perform(d, .broken)
                    telemetry.bug()
                    return taken
                }
                frame(d, session, body.bytes.extracting(first: count))
                body.consume(count)
                if body.isEmpty { giveBack(&s.output) }
                wentOut(s)
            }
        }
        return taken
    }

    private func frame(_ d: Downstream, _ session: HTTP2Session, _ body: RawSpan) {
        // Of a large body more frames will follow: room for them all, so that nothing has to be moved.
        if d.output == nil, body.byteCount > BufferPool.smallCapacity / 2 {
            d.output = buffers.lend(room: BufferPool.largeCapacity)
        }
        let output = reserve(&d.output, 9 + body.byteCount)
        for i in 0..<9 { output.append(session.frameHead[i]) }
        output.append(body)
    }

    /// Bytes that are framed before they are written.
    static var mostFramed: Int { 60 * 1024 }

    /// Some of the stream's output has gone: its reader is alive.
    private func wentOut(_ s: Downstream) {
        if let f = s.flight {
            guard s.flags.contains(.blocked), (s.output?.count ?? 0) <= Self.mostHeld / 2 else { return }
            s.flags.remove(.blocked)
            if let u = f.upstream {
                setDeadline(f, .stream, after: f.policy.streamIdleTimeout)
                enqueue(u)
            }
        } else {
            setDeadline(s, after: configuration.timeouts.streamIdle)
        }
    }

    // MARK: The streams' deadlines

    /// A stream's own deadline runs only while what is left of its response waits for its client. Once a second the
    /// connection looks at all of them: an entry in the wheel for each stream would stay there after it has gone.
    func watchStreams(of d: Downstream) {
        guard let c = d.http2, !c.isWatched else { return }
        c.isWatched = true
        _ = wheel.schedule(
            Token(kind: TokenKind.streams, index: d.token.index, generation: d.token.generation), at: now &+ 1_000)
    }

    func lookAtStreams(_ token: Token) {
        guard let d = downstreams[token: token], let c = d.http2 else { return }
        c.isWatched = false
        var goesOn = false
        for row in 0..<c.session.rows {
            guard let owner = c.session.owner(at: row), let (s, _) = stream(owner), s.deadline != never else {
                continue
            }
            if s.deadline <= now {
                s.deadline = never
                perform(s, .timedOut)
            } else {
                goesOn = true
            }
        }
        if goesOn { watchStreams(of: d) }
    }

    /// The connection's own deadline, where no exchange has one.
    private func settleDeadline(_ d: Downstream, _ c: HTTP2Connection) {
        let turn: HTTP2Connection.Turn =
            c.session.isReadingHead ? .head : c.session.streamCount == 0 ? .idle : .exchanges
        // Just begun, and nothing asked: the deadline of the first head still runs.
        if c.turn == .beginning, turn == .idle, c.farewell == .none { return }
        guard turn != c.turn, c.farewell != .announced else { return }
        c.turn = turn
        switch turn {
        case .beginning: break
        case .head: setDeadline(d, after: configuration.timeouts.requestHead)
        case .idle: setDeadline(d, after: configuration.timeouts.idle)
        case .exchanges: d.deadline = never
        }
    }

    /// The connection's deadline is over.
    func connectionTimedOut(_ d: Downstream) {
        guard let c = d.http2 else { return }
        if c.farewell == .announced {
            sayFarewell(c)
            flushFrames(d, c)
            return
        }
        c.session.terminate(c.session.isReadingHead ? .enhanceYourCalm : .noError)
        // What can be said is said, even if the client does not read.
        makeFrames(d, c)
        act(d, c, on: nil)
        guard d.machine.isMultiplexing else { return }
        perform(d, .sessionEnded)
        flush(d)
    }

    /// No stream is left on it: what it still has to say, it can say at once.
    func isSpent(_ d: Downstream) -> Bool {
        guard d.machine.isMultiplexing, let c = d.http2 else { return false }
        return c.session.streamCount == 0
    }

    /// The client made us give up an exchange that had taken an endpoint's time already. It pays for that as for a reset,
    /// whether or not the answer was one.
    func provoked(_ f: Flight) {
        switch f.exchange.reason {
        case .malformedRequest, .headTooLarge, .tooManyFields, .bodyTooLarge: break
        default: return
        }
        // Where the library has reset the stream for it, that was counted.
        guard f.exchange.attempts > 0, let stream = f.downstream?.stream, !stream.isGone, let c = stream.carrier.http2
        else { return }
        c.session.provoked()
        enqueue(stream.carrier)
    }

    /// The process is going: the client is told, and has a second to have heard it (RFC 9113 §6.8).
    func announceEnd(_ d: Downstream) {
        guard let c = d.http2, c.farewell == .none else { return }
        c.farewell = .announced
        c.session.announceEnd()
        setDeadline(d, after: 1_000)
        enqueue(d)
    }

    private func sayFarewell(_ c: HTTP2Connection) {
        c.farewell = .said
        c.turn = .beginning
        c.session.finish()
    }

    /// The connection ends: so do its streams.
    func breakStreams(_ d: Downstream) {
        guard let c = d.http2 else { return }
        telemetry.http2Ended(c.session.fault)
        // Who is remembered is not remembered anew: he may share his address with others, who have little already.
        if c.session.isOverdrawn, !c.session.limits.isWary, !d.isTrusted { floods.note(d.peer.ip, now: now) }
        let owners = c.session.owners
        for owner in owners {
            guard let (s, stream) = stream(owner) else { continue }
            stream.isGone = true
            if let f = s.flight, f.exchange.reason == .none { f.exchange.reason = Self.reason(of: c.session.fault) }
            perform(s, .broken)
        }
        d.http2 = nil
    }

    // MARK: Streams

    private func beginStream(_ d: Downstream, _ c: HTTP2Connection, _ id: Int32, ends: Bool, isCut: Bool) {
        let s =
            spareStreams.popLast()
            ?? Downstream(socket: .none, peer: d.peer, localPort: d.localPort, isTrusted: d.isTrusted)
        s.renew(on: d)
        let row = downstreams.insert(s)
        s.token = Token(kind: TokenKind.downstream, index: row.index, generation: row.generation)
        let handle = c.session.adopt(stream: id, owner: s.token.rawValue)
        if let stream = s.stream {
            stream.renew(carrier: d, handle: handle, inputEnded: ends)
        } else {
            s.stream = HTTP2Stream(carrier: d, handle: handle, inputEnded: ends)
        }
        // Also for the one that is answered before the next flush: what follows it is a new wait.
        if c.farewell != .announced {
            c.turn = .exchanges
            d.deadline = never
        }
        let f = beginFlight(s)
        swap(&c.session.incoming, &f.exchange.request)
        let refusal = HTTP2Head.complete(&f.exchange.request, limits: headLimits) { (random.next(), random.next()) }
        if let refusal = isCut ? Refusal(431, .headTooLarge) : refusal {
            refuseHead(s, f, refusal)
        } else {
            admit(s, f)
        }
    }

    private func endInput(_ s: Downstream, _ stream: HTTP2Stream, trailers: inout MessageHead, isCut: Bool) {
        stream.inputEnded = true
        if let f = s.flight, f.facts.upgrade != .none {
            // A tunnel holds data and nothing else (RFC 9113 §8.5).
            if f.exchange.reason == .none { f.exchange.reason = .malformedRequest }
            cut(s, stream, .protocolError)
            return
        }
        if isCut || !HTTP2Head.complete(trailers: &trailers, limits: headLimits) {
            perform(s, .requestUnreadable)
            if let f = s.flight {
                if f.exchange.reason == .none { f.exchange.fault = .trailers }
                fail(f, .malformedRequest)
            }
            return
        }
        if let f = s.flight { swap(&trailers, &f.requestTrailers) }
        enqueue(s)
    }

    private func cut(_ s: Downstream, _ stream: HTTP2Stream, _ code: HTTP2ErrorCode) {
        if let c = stream.carrier.http2, !stream.isGone {
            c.session.forget(stream.handle)
            c.session.reset(stream: stream.handle.stream, code)
            stream.isGone = true
        }
        perform(s, .broken)
    }

    /// Passes on what has come on a stream, and opens its window by as much.
    func advanceStream(_ s: Downstream, _ stream: HTTP2Stream) {
        while !s.machine.isClosed {
            guard let input = s.input else {
                if stream.inputEnded { endInput(s) }
                break
            }
            if input.isEmpty {
                giveBack(&s.input)
                continue
            }
            let before = input.count
            let goesOn = consume(s, input)
            // Closed meanwhile: what was left has been accounted for.
            guard s.input === input else { break }
            took(stream, before - input.count)
            if !goesOn { break }
        }
        if let u = s.flight?.upstream { flush(u) }
    }

    private func took(_ stream: HTTP2Stream, _ count: Int) {
        guard count > 0, let c = stream.carrier.http2 else { return }
        c.session.consume(stream.handle, count)
        enqueue(stream.carrier)
    }

    /// Everything that came has been passed on, and nothing more will.
    private func endInput(_ s: Downstream) {
        if s.machine.isTunnelling {
            downstreamEnded(s)
            return
        }
        guard !s.body.isComplete else { return }
        guard let f = s.flight else {
            perform(s, .requestEnded)
            return
        }
        let drops = f.machine.dropsRequest
        guard drops || f.machine.passesRequest && f.upstream != nil else { return }
        guard s.body.inputClosed() else {
            perform(s, .requestUnreadable)
            fail(f, .malformedRequest)
            return
        }
        if drops {
            droppedAll(s)
        } else if let u = f.upstream {
            endRequest(s, f, u)
        }
    }

    // MARK: Responses

    /// What a stream holds for its client before its upstream is not read any more.
    static var mostHeld: Int { 64 * 1024 }

    /// False if the head may not be written as it is.
    func submit(
        _ stream: HTTP2Stream, _ head: borrowing MessageHead, _ options: HeadWriter.ResponseOptions, date: [UInt8]
    ) -> Bool {
        guard HTTP2Head.list(response: head, options, date: date, into: &fieldList) else { return false }
        guard let c = stream.carrier.http2 else { return true }
        let opensTunnel = !options.upgradeRange.isEmpty
        let isFinal = head.status >= 200 || opensTunnel
        switch options.body {
        case .none, .length(0): stream.hasBody = opensTunnel
        case .length, .chunked, .untilClose: stream.hasBody = isFinal
        }
        c.session.submit(stream.handle, head: fieldList, isFinal: isFinal, hasBody: stream.hasBody)
        if isFinal { stream.hasBegun = true }
        if announcesClose { announceEnd(stream.carrier) }
        enqueue(stream.carrier)
        return true
    }

    /// A part of the body: it waits until the client's windows let it through.
    func put(_ s: Downstream, _ stream: HTTP2Stream, _ bytes: RawSpan) {
        guard stream.hasBody, let c = stream.carrier.http2 else { return }
        let d = stream.carrier
        guard bytes.byteCount >= Self.leastDirect, s.output == nil, d.machine.isMultiplexing, !stream.isGone,
            !d.flags.contains(.blocked)
        else {
            queue(&s.output, bytes)
            queued(s, stream, bytes.byteCount)
            return
        }
        // What the windows let through at once goes straight into frames.
        c.session.offer(stream.handle, bytes.byteCount)
        let taken = makeFrames(d, c, owner: s.token.rawValue, bytes)
        guard d.machine.isMultiplexing, !s.machine.isClosed else { return }
        queue(&s.output, bytes.extracting(droppingFirst: taken))
        held(s)
        enqueue(d)
    }

    /// Smaller parts are joined, for the frames to be fewer.
    private static var leastDirect: Int { 8 * 1024 }

    /// So many bytes have been put into the stream's output.
    func queued(_ s: Downstream, _ stream: HTTP2Stream, _ count: Int) {
        guard let c = stream.carrier.http2 else { return }
        c.session.offer(stream.handle, count)
        held(s)
        enqueue(stream.carrier)
    }

    /// The response cannot be completed. What has come of it is worth having: where some of that is still to be framed,
    /// the stream is reset behind it. False: there is nothing to wait for.
    func breakWhenSent(_ s: Downstream, _ stream: HTTP2Stream) -> Bool {
        guard stream.hasBegun, !stream.isGone, !stream.isFinished, !s.machine.isClosed,
            let c = stream.carrier.http2, !c.session.isFramed(stream.handle)
        else { return false }
        stream.isBreaking = true
        c.breaking.append(s.token.rawValue)
        perform(s, s.machine.isTunnelling ? .responseBroken : .responseEnded(persistent: false))
        enqueue(stream.carrier)
        return true
    }

    private func resetWhatHasGone(_ c: HTTP2Connection) {
        var i = 0
        while i < c.breaking.count {
            let found = stream(c.breaking[i])
            if let (_, stream) = found, !c.session.isFramed(stream.handle) {
                i += 1
                continue
            }
            c.breaking.remove(at: i)
            if let (s, _) = found { perform(s, .broken) }
        }
    }

    private func held(_ s: Downstream) {
        if let output = s.output, output.count >= Self.mostHeld { s.flags.insert(.blocked) }
    }

    /// The body ends here.
    func endBody(_ stream: HTTP2Stream, trailers: MessageHead?) {
        guard stream.hasBody, let c = stream.carrier.http2 else { return }
        stream.hasBody = false
        var list: MessageHead?
        // Trailers that cannot be written are left out, as over HTTP/1.1.
        if let trailers, !trailers.fields.isEmpty, HTTP2Head.list(trailers: trailers, into: &fieldList),
            !fieldList.fields.isEmpty
        {
            list = fieldList
        }
        c.session.end(stream.handle, trailers: list)
        enqueue(stream.carrier)
    }

    /// The response has gone out before the request had come in: the rest of it is not wanted (RFC 9113 §8.1).
    func stopRequest(_ stream: HTTP2Stream) {
        guard !stream.inputEnded, let c = stream.carrier.http2 else { return }
        c.session.reset(stream: stream.handle.stream, .noError)
        stream.inputEnded = true
        enqueue(stream.carrier)
    }

    /// How a stream is closed.
    enum StreamEnd {
        /// Its last frame has gone out.
        case complete
        /// Its response cannot be completed.
        case broken
        /// Its client does not read.
        case stalled
    }

    /// Gives back what a stream holds, and tells the client if it was cut off.
    func close(_ s: Downstream, _ stream: HTTP2Stream, _ end: StreamEnd) {
        if let c = stream.carrier.http2 {
            if !stream.isGone {
                c.session.forget(stream.handle)
                switch end {
                case .complete:
                    // A tunnel that was refused, or has ended, before its client has.
                    if !stream.inputEnded { c.session.reset(stream: stream.handle.stream, .noError) }
                case .broken where stream.isTunnel: c.session.reset(stream: stream.handle.stream, .cancel)
                case .broken: c.session.reset(stream: stream.handle.stream, .internalError)
                case .stalled: c.session.reset(stream: stream.handle.stream, .cancel)
                }
            }
            enqueue(stream.carrier)
        }
        giveBack(&s.input)
        giveBack(&s.output)
        if let f = s.flight, !f.machine.hasBegun { release(f) }
        if downstreams.remove(index: s.token.index, generation: s.token.generation) != nil { endedStreams.append(s) }
        s.deadline = never
    }

    /// The pass is over, and nobody is at work on these any more.
    func recycleStreams() {
        for s in endedStreams where s.flight == nil && spareStreams.count < Self.mostSpare {
            s.stream?.carrier = nobody
            spareStreams.append(s)
        }
        endedStreams.removeAll(keepingCapacity: endedStreams.capacity <= Self.mostSpare)
    }

    private static var mostSpare: Int { 1024 }
}
