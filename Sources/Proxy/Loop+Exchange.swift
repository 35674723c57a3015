// Steps 3 to 6 of a request's walk, carried out: match, run the request phases, choose an endpoint, send, and bring
// the response back. The order of things is the exchange machine's; this is its hands.
internal import HTTPWire
internal import Middlewares
internal import Model
internal import Reactor
internal import Routing
internal import Upstreams

/// Small bodies that come with their head go out with it, and are kept until the response begins.
private let keptBody = 8 * 1024

extension Loop {
    // MARK: Flights

    func beginFlight(_ d: Downstream) -> Flight {
        let f: Flight
        if let spare = spareFlights.popLast() {
            f = spare
        } else {
            f = Flight(index: UInt32(flights.count), pin: current, policy: current.publication.defaultPolicy)
            flights.append(f)
        }
        f.pin = current
        f.pin.flights += 1
        f.downstream = d
        d.flight = f
        f.exchange.started = nowNanoseconds
        f.exchange.client.peer = d.peer
        f.exchange.client.address = d.peer
        f.exchange.client.isTrustedProxy = d.isTrusted
        if let tls = d.secureLayer {
            f.exchange.client.isSecure = true
            f.exchange.client.isOverTLS = true
            f.exchange.client.channel = tls.channel
        } else if d.flags.contains(.secured) {
            f.exchange.client.isSecure = true
        }
        return f
    }

    /// The exchange is over: log it, and keep its memory for the next one.
    private func finish(_ f: Flight) {
        // A pass is short, but for what scripts do in it.
        f.exchange.finished =
            f.exchange.scriptRuns.isEmpty ? nowNanoseconds : max(nowNanoseconds, f.pin.middlewares.now)
        if f.exchange.response.status < 200, !f.isTunnel, f.exchange.reason != .none {
            // Nobody was there to be answered: the log says why by the status, too.
            f.exchange.response.status = f.exchange.reason.status
        }
        if f.exchange.request.version == .http2 || f.recoding != nil { noteCallStatus(f) }
        if f.exchange.reason != .none { provoked(f) }
        if f.phasesRan { f.pin.middlewares.runLog(f.exchange) }
        if f.isTunnel { telemetry.tunnelClosed() }
        if f.isRelay {
            telemetry.relayFinished(f.exchange, f.pin)
        } else {
            telemetry.finished(f.exchange, f.pin)
        }
        release(f)
    }

    /// Gives back everything that the flight holds, without a word in the log.
    func release(_ f: Flight) {
        if let d = f.downstream {
            d.flight = nil
            f.downstream = nil
        }
        giveBack(&f.outgoing)
        giveBack(&f.sentBody)
        if f.recoding != nil {
            endRecoding(f)
            f.recoding = nil
        }
        f.recycle()
        let pin = f.pin
        f.pin = current
        spareFlights.append(f)
        unpin(pin)
    }

    // MARK: The machine

    func perform(_ f: Flight, _ event: ExchangeMachine.Event) {
        var actions = f.machine.handle(event)
        while let action = actions.next() {
            switch action {
            case .decide: decide(f)
            case .connect: connect(f)
            case .sendRequestHead: sendRequestHead(f)
            case .sendInformational: sendInformational(f)
            case .sendResponseHead: sendResponseHead(f)
            case .answer: answer(f)
            case .endResponse: endResponse(f)
            case .breakResponse: breakResponse(f)
            case .releaseUpstream:
                // A stream has carried what it was made for.
                if let u = detach(f) { perform(u, u.stream == nil ? .released : .discarded) }
            case .closeUpstream:
                if let u = detach(f) { perform(u, .discarded) }
            case .startTunnel: startTunnel(f)
            case .endUpstreamWrites:
                f.upstreamWritesEnd = true
                if let u = f.upstream, u.isFlushed { endWrites(u) }
            case .endDownstreamWrites:
                f.downstreamWritesEnd = true
                if let stream = f.downstream?.stream {
                    endBody(stream, trailers: nil)
                } else if let d = f.downstream, d.isFlushed {
                    endWrites(d)
                }
            case .finish:
                let d = f.downstream
                let ending = f.ending
                let isPersistent = f.isPersistent
                let framing = f.responseFraming
                // Of a client that does not read nothing more is waited for.
                let hasReader = f.exchange.reason != .streamTimeout && f.exchange.reason != .totalTimeout
                let isTunnel = f.isTunnel
                // One that was cut off is reset where that can be told from an end (RFC 8441 §5).
                let isCut =
                    f.isTunnel && d?.stream != nil && event != .downstreamEnded && event != .upstreamEnded
                    && f.exchange.reason != .draining
                if let d, d.body.isReadingTrailers { d.droppedTrailers = DroppedTrailers(f.requestTrailers) }
                finish(f)
                guard let d else { continue }
                switch ending {
                case .complete: perform(d, .responseEnded(persistent: isPersistent))
                case .broken:
                    switch framing {
                    // The framing itself says that something is missing (RFC 9112 §8): what has come is worth having.
                    case .length, .chunked:
                        perform(d, .responseEnded(persistent: false))
                        flush(d)
                    // Only a reset tells a body that ends with its connection from one that was cut off.
                    // So it does of a stream.
                    case .close, .frames, .none:
                        if hasReader, isCut || !isTunnel, let stream = d.stream, breakWhenSent(d, stream) { continue }
                        perform(d, isCut ? .broken : .responseBroken)
                    }
                case .none: break
                }
            }
        }
    }

    /// Takes the upstream connection off the exchange.
    private func detach(_ f: Flight) -> UpstreamConnection? {
        guard let u = f.upstream else { return nil }
        f.upstream = nil
        u.flight = nil
        return u
    }

    // MARK: Admission

    /// The head is complete: is it a request that may be served, and how is its body framed?
    func admit(_ d: Downstream, _ f: Flight) {
        let goesOn = d.stream.map { !$0.inputEnded } ?? false
        switch RequestAdmission.judge(
            &f.exchange.request, admissionRules, isTrusted: d.isTrusted, hasBody: goesOn)
        {
        case .refuse(let refusal):
            refuseHead(d, f, refusal)
        case .admit(let facts):
            f.facts = facts
            // A stream's frames are off already: what comes is data, up to its end.
            // The session has counted it against its length; trailers may follow all the same.
            d.body = BodyDecoder(d.stream != nil && !facts.body.isEmpty ? .untilClose : facts.body)
            let hasBody = !facts.body.isEmpty
            f.exchange.bytesIn = UInt64(f.exchange.request.bytes.count)
            perform(d, .headAdmitted(body: hasBody, persistent: facts.keepsAlive && d.stream == nil))
            telemetry.began()
            if let tls = d.secureLayer {
                let bytes = f.exchange.request.bytes
                if !agrees(tls, bytes.span.extracting(f.exchange.request.hostRange.range)) {
                    fail(f, .misdirected)
                    return
                }
            }
            perform(f, .headReceived(body: hasBody))
        }
    }

    /// The connection cannot be read any further; a stream may have ended with its head.
    func refuseHead(_ d: Downstream, _ f: Flight, _ refusal: Refusal) {
        perform(d, .headRefused)
        if let stream = d.stream, stream.inputEnded { perform(d, .requestEnded) }
        refuse(f, refusal)
    }

    /// Answers a head that is no request.
    func refuse(_ f: Flight, _ refusal: Refusal) {
        f.refusedStatus = refusal.status
        f.exchange.fault = refusal.fault
        telemetry.began()
        fail(f, refusal.reason)
    }

    /// Answers with the failure, or ends the exchange as well as it can be ended.
    func fail(_ f: Flight, _ reason: FailureReason) {
        if f.exchange.reason == .none { f.exchange.reason = reason }
        perform(f, .failed)
    }

    // MARK: Deciding

    private func decide(_ f: Flight) {
        let exchange = f.exchange
        identify(f)
        match(f)
        if let rules = f.pin.publication.clientRules {
            var reason = authenticate(f, rules)
            if reason != .none, turnsToErrorPage(f, rules, reason) {
                match(f)
                f.isErrorPage = true
                exchange.client.certificate = nil
                // It may be a path of somebody who has closed his.
                reason = rules.isClosed(route: exchange.route) ? .clientRulesBroken : .none
            }
            if reason != .none {
                exchange.reason = reason
                perform(f, .answerDecided)
                return
            }
        }
        if !takesPath(f) { return }
        if f.policy.redirectsToHTTPS, HTTPSRedirect.applies(to: exchange) {
            if exchange.request.hostRange.isEmpty {
                exchange.reason = .malformedRequest
                exchange.fault = .noHost
            } else {
                f.isRedirect = true
            }
            perform(f, .answerDecided)
            return
        }
        if !f.pin.middlewares.hasScripts(exchange) {
            route(f)
            return
        }
        if f.pin.publication.compresses { rememberAccepted(f) }
        f.phasesRan = true
        let verdict = f.pin.middlewares.runRequestPhases(exchange) { [self] _ in
            match(f)
            // It may be another host's by now. The page for those who have no certificate leads nowhere else.
            if let rules = f.pin.publication.clientRules {
                f.clientReason = f.isErrorPage ? .noClientCertificate : authenticate(f, rules)
            }
        }
        if f.clientReason != .none {
            exchange.reason = f.clientReason
            perform(f, .answerDecided)
            return
        }
        switch verdict {
        case .next:
            // It may be another route's by now.
            if !takesPath(f) { return }
            route(f)
        case .respond:
            perform(f, .answerDecided)
        case .refuse(let status, let reason):
            f.refusedStatus = status
            exchange.reason = reason
            perform(f, .answerDecided)
        case .suspended:
            // No function suspends today. An exchange that did would rest in `deciding`, with its body unread, until
            // the loop resumes it; without a way to resume, it is answered.
            exchange.reason = .internalError
            perform(f, .answerDecided)
        }
    }

    /// False: the path has encoded slashes, and its route does not take them; the request is answered.
    private func takesPath(_ f: Flight) -> Bool {
        if !f.exchange.request.hasEncodedSlash || f.policy.allowsEncodedSlashes { return true }
        f.exchange.reason = .malformedRequest
        f.exchange.fault = .encodedSlash
        perform(f, .answerDecided)
        return false
    }

    private func match(_ f: Flight) {
        let exchange = f.exchange
        let bytes = exchange.request.bytes
        let found = f.pin.publication.table.match(
            host: bytes.span.extracting(exchange.request.hostRange.range),
            path: bytes.span.extracting(exchange.request.pathRange.range))
        exchange.route = found.route
        if found.route >= 0 {
            exchange.upstream = f.pin.publication.upstream(of: found.route, isSecure: exchange.client.channel != nil)
            f.policy = f.pin.publication.policies[Int(found.route)]
        } else {
            exchange.upstream = -1
            f.policy = f.pin.publication.defaultPolicy
        }
    }

    private func route(_ f: Flight) {
        let exchange = f.exchange
        if exchange.route < 0 {
            exchange.reason = .noRoute
            perform(f, .answerDecided)
            return
        }
        if exchange.upstream < 0 {
            exchange.reason = .noBackend
            perform(f, .answerDecided)
            return
        }
        if f.policy.maxBodyBytes != 0, case .length(let length) = f.facts.body, length > f.policy.maxBodyBytes {
            exchange.reason = .bodyTooLarge
            perform(f, .answerDecided)
            return
        }
        if f.policy.bridgesGRPCWeb { bridgeRequest(f) }
        if f.facts.keptUnderscores {
            RequestAdmission.settleUnderscores(
                in: &exchange.request, areMetadata: table.isMultiplexed(f.pin.map[Int(exchange.upstream)]))
        }
        if f.policy.totalTimeout != 0 {
            f.totalDeadline = exchange.started / 1_000_000 &+ f.policy.totalTimeout
            scheduleFlight(f)
        }
        if !encodeRequest(f) {
            exchange.reason = .internalError
            perform(f, .answerDecided)
            return
        }
        perform(f, .forwardDecided)
    }

    // MARK: Sending

    private func sendRequestHead(_ f: Flight) {
        if let u = f.upstream, let stream = u.stream {
            submitRequest(f, u, stream)
            return
        }
        f.outgoingPending = true
        f.attemptWasSent = false
        f.exchange.upstreamStarted = nowNanoseconds
        if f.machine.requestHasEnded {
            setDeadline(f, .responseHead, after: responseTimeout(of: f))
            if let u = f.upstream { flush(u) }
        } else {
            awaitRequestBody(f, received: 0)
            // The body that is there already goes out together with the head: the downstream's pass flushes both. If
            // the connection came later, by an event of its own, the downstream is taken up again.
            if let d = f.downstream { enqueue(d) }
        }
    }

    @inline(__always)
    func responseTimeout(of f: Flight) -> UInt64 {
        f.exchange.responseTimeout != 0 ? UInt64(f.exchange.responseTimeout) : f.policy.responseHeadTimeout
    }

    /// False: what the client says of its body does not hold for these bytes.
    func sendRequestBody(_ f: Flight, _ u: UpstreamConnection, _ bytes: RawSpan) -> Bool {
        f.exchange.bytesIn &+= UInt64(bytes.byteCount)
        if f.recoding != nil { return decodeRequest(f, u, bytes) }
        passRequestBody(f, u, bytes)
        return true
    }

    func passRequestBody(_ f: Flight, _ u: UpstreamConnection, _ bytes: RawSpan) {
        if let stream = u.stream {
            putRequest(f, u, stream, bytes)
            return
        }
        let isChunked = f.requestFraming == .chunked
        if f.outgoingPending, let outgoing = f.outgoing, bytes.byteCount <= keptBody,
            outgoing.room >= bytes.byteCount + 32
        {
            if isChunked { beginChunk(bytes.byteCount, in: outgoing) }
            outgoing.append(bytes)
            if isChunked { outgoing.append(ChunkEncoder.endOfData) }
            return
        }
        f.isReplayable = false
        if isChunked {
            // The size goes behind the head; where that has no room left, the head goes first.
            if f.outgoingPending, let outgoing = f.outgoing, outgoing.room >= ChunkEncoder.maxSizeLine {
                beginChunk(bytes.byteCount, in: outgoing)
            } else {
                if f.outgoingPending, !writeUpstream(f, u, RawSpan()) {
                    undeliverable(f, u)
                    return
                }
                beginChunk(bytes.byteCount, in: reserve(&u.output, ChunkEncoder.maxSizeLine))
            }
        }
        send(f, u, bytes)
        if isChunked, f.upstream === u { reserve(&u.output, 2).append(ChunkEncoder.endOfData) }
        if let output = u.output, output.count >= Self.mostJoined { flush(u) }
    }

    /// Small parts are joined until there is so much of them; then they go, and back-pressure is felt.
    private static var mostJoined: Int { 64 * 1024 }

    @inline(__always)
    private func beginChunk(_ count: Int, in buffer: Buffer) {
        buffer.write { ChunkEncoder.writeSize(count, to: &$0) }
    }

    /// The last chunk, with what trailers there are. Trailers that cannot be written are left out: they were checked
    /// when they were read, and the body itself is whole.
    private func endChunks(_ trailers: MessageHead, _ output: inout Buffer?) {
        if trailers.fields.isEmpty {
            reserve(&output, 8).append(ChunkEncoder.last)
            return
        }
        var room = trailers.bytes.count + 256
        while true {
            var outcome = HeadWriter.Outcome.invalid
            reserve(&output, room).write { outcome = ChunkEncoder.writeLast(trailers, to: &$0) }
            switch outcome {
            case .written: return
            case .needsRoom(let more) where more > room: room = more
            case .needsRoom, .invalid:
                reserve(&output, 8).append(ChunkEncoder.last)
                return
            }
        }
    }

    private func send(_ f: Flight, _ u: UpstreamConnection, _ bytes: RawSpan) {
        if !f.outgoingPending, u.flags.contains(.blocked) || bytes.byteCount < 4096 {
            queue(&u.output, bytes)
            return
        }
        if !writeUpstream(f, u, bytes) { undeliverable(f, u) }
    }

    /// Writes the head if it has not been written, what is queued, and `more`.
    private func writeUpstream(_ f: Flight, _ u: UpstreamConnection, _ more: RawSpan) -> Bool {
        f.attemptWasSent = true
        guard f.outgoingPending, let outgoing = f.outgoing else {
            return write(u, more)
        }
        f.outgoingPending = false
        if let tls = u.tls { return writeSecure(u, tls, outgoing.bytes, more) }
        // `outgoing` itself stays, for another attempt; what the kernel does not take of it is queued as a copy.
        switch transport.write(u.socket, outgoing.bytes, more) {
        case .bytes(let n):
            let head = outgoing.count
            if n == head + more.byteCount { return true }
            if n < head { queue(&u.output, outgoing.bytes.extracting(droppingFirst: n)) }
            queue(&u.output, more.extracting(droppingFirst: max(0, n - head)))
            u.flags.insert(.blocked)
            return true
        case .wouldBlock:
            queue(&u.output, outgoing.bytes)
            queue(&u.output, more)
            u.flags.insert(.blocked)
            return true
        case .failed:
            return false
        }
    }

    func endRequest(_ d: Downstream, _ f: Flight, _ u: UpstreamConnection) {
        if f.recoding != nil, !isRequestWhole(f) {
            if f.exchange.reason == .none { f.exchange.fault = .base64 }
            perform(d, .requestEnded)
            fail(f, .malformedRequest)
            return
        }
        if let stream = u.stream {
            endRequestBody(f, stream)
        } else if f.requestFraming == .chunked {
            if f.outgoingPending, let outgoing = f.outgoing, outgoing.room >= 8, f.requestTrailers.fields.isEmpty {
                outgoing.append(ChunkEncoder.last)
            } else {
                // The head first: what is queued is written behind it.
                f.isReplayable = false
                if f.outgoingPending, !writeUpstream(f, u, RawSpan()) { undeliverable(f, u) }
                guard f.upstream === u else { return }
                endChunks(f.requestTrailers, &u.output)
            }
        }
        perform(d, .requestEnded)
        perform(f, .requestEnded)
        if awaitsTurn(f) {
            // It runs on.
        } else if f.machine.awaitsResponseHead {
            setDeadline(f, .responseHead, after: responseTimeout(of: f))
        } else if f.machine.isStreaming {
            setDeadline(f, .stream, after: f.policy.streamIdleTimeout)
        }
    }

    func flush(_ u: UpstreamConnection) {
        guard let f = u.flight, !u.machine.isConnecting, u.stream == nil else { return }
        guard f.outgoingPending || (!u.isFlushed && !u.flags.contains(.blocked)) else { return }
        if !writeUpstream(f, u, RawSpan()) { undeliverable(f, u) }
        if f.upstreamWritesEnd, u.isFlushed, f.machine.isTunnelling { endWrites(u) }
    }

    /// The endpoint takes no more. It may have answered before it went: what it sent is read first.
    func undeliverable(_ f: Flight, _ u: UpstreamConnection) {
        f.outgoingPending = false
        u.flags.insert(.readable)
        u.flags.insert(.ended)
        u.flags.remove(.blocked)
        giveBack(&u.output)
        if let tls = u.tls {
            // Something is missing from now on: no goodbye may follow it.
            giveBack(&tls.pending)
            tls.saidGoodbye = true
        }
        perform(f, .requestUndeliverable)
        if f.upstream === u { enqueue(u) }
    }

    // MARK: The response

    private func sendInformational(_ f: Flight) {
        // HTTP/1.0 knows no such thing (RFC 9110 §15.2).
        guard let d = f.downstream, f.exchange.request.version != .http10 else { return }
        if f.exchange.response.status == 100 { f.continueWasSent = true }
        let options = HeadWriter.ResponseOptions(body: .none)
        // One that cannot be written is left out: the client does without it.
        if writeHead(d, &f.exchange.response, options, date: []) { flush(d) }
    }

    /// False if the head may not be written as it is. The head is lent, not copied: nothing in it is changed.
    private func writeHead(
        _ d: Downstream, _ head: inout MessageHead, _ options: HeadWriter.ResponseOptions, date: [UInt8]
    ) -> Bool {
        if let stream = d.stream {
            if opensNoTunnel(d, head, options) { return false }
            return submit(stream, head, options, date: date)
        }
        var room = head.bytes.count + 4 * head.fields.count + 256 + date.count
        while true {
            var outcome = HeadWriter.Outcome.invalid
            reserve(&d.output, room).write { outcome = HeadWriter.write(response: head, options, date: date, to: &$0) }
            switch outcome {
            case .written: return true
            case .needsRoom(let more) where more > room: room = more
            case .needsRoom, .invalid: return false
            }
        }
    }

    /// To a CONNECT a success says that the tunnel is open (RFC 8441 §5): what opens none may not say so.
    private func opensNoTunnel(
        _ d: Downstream, _ head: borrowing MessageHead, _ options: HeadWriter.ResponseOptions
    ) -> Bool {
        d.stream != nil && d.flight?.facts.upgrade == .webSocket && options.upgradeRange.isEmpty
            && head.status / 100 == 2
    }

    private func sendResponseHead(_ f: Flight) {
        guard let d = f.downstream else { return }
        let exchange = f.exchange
        exchange.upstreamAnswered = nowNanoseconds
        // From here on nothing is sent again.
        if !f.outgoingPending { giveBack(&f.outgoing) }
        giveBack(&f.sentBody)
        f.isReplayable = false
        exchange.origin = .upstream
        exchange.reason = .none
        addTransportSecurity(f)
        if f.phasesRan, !f.responsePhasesRan {
            f.responsePhasesRan = true
            switch f.pin.middlewares.runResponsePhases(exchange) {
            case .next: break
            case .respond:
                replaceResponse(f)
                return
            case .refuse(let status, let reason):
                f.refusedStatus = status
                exchange.reason = reason
                replaceResponse(f)
                return
            case .suspended:
                exchange.reason = .internalError
                replaceResponse(f)
                return
            }
        }
        if f.policy.changesBodies { prepareRecoding(f) }
        let isOld = exchange.request.version == .http10
        let framing: BodyFraming
        // How long a body becomes that is changed is known at its end.
        var body = f.recoding?.changesResponse == true ? .untilClose : f.responseFacts.body
        // They pass where they can.
        if onlyTrailersFollow(f), body == .length(0),
            d.stream != nil || !isOld && exchange.response.firstIndex(of: .trailer) != nil
        {
            body = .untilClose
        }
        switch body {
        case .none:
            f.responseFraming = .none
            framing = .none
        case .length(let length):
            f.responseFraming = d.stream == nil ? .length : .frames
            framing = .length(length)
        case .chunked, .untilClose:
            if d.stream != nil {
                f.responseFraming = .frames
                framing = .untilClose
                break
            }
            f.responseFraming = isOld ? .close : .chunked
            framing = isOld ? .untilClose : .chunked
        }
        f.isPersistent = d.machine.mayPersist && !announcesClose && f.responseFraming != .close
        // As in `answer`: the client may send its body after this, or its next request.
        // The page for those without a certificate wants no body; what was asked for may come all the same.
        if f.facts.expectsContinue, !f.continueWasSent, !f.machine.requestHasEnded || f.isErrorPage {
            f.isPersistent = false
        }
        var options = HeadWriter.ResponseOptions(
            body: framing, declaredLength: f.responseFacts.declaredLength, closes: !f.isPersistent,
            clientVersion: exchange.request.version)
        if f.responseFacts.isUpgrade || exchange.response.status == 426 && d.stream == nil && !isOld {
            options.upgradeRange = f.responseFacts.upgradeRange
        }
        if !writeHead(d, &exchange.response, options, date: date) {
            // Admission has passed it: what may not be written is a script's, if one had its hands on it.
            exchange.reason =
                opensNoTunnel(d, exchange.response, options)
                ? .noUpgrade : f.responsePhasesRan ? .internalError : .malformedResponse
            replaceResponse(f)
            return
        }
        setDeadline(f, .stream, after: f.policy.streamIdleTimeout)
    }

    /// Of a length of nothing only trailers can follow, where the upstream's stream goes on.
    func onlyTrailersFollow(_ f: Flight) -> Bool {
        f.responseFacts.body == .length(0) && f.upstream?.stream?.inputEnded == false
    }

    /// The upstream's response is not to be sent: ours is.
    private func replaceResponse(_ f: Flight) {
        perform(f, f.machine.isTunnelling ? .failed : .answerDecided)
    }

    /// The response that `exchange` holds in head and `ownBody`. False if the head may not be written.
    func writeAnswer(_ f: Flight, _ d: Downstream) -> Bool {
        let exchange = f.exchange
        let status = exchange.response.status
        let count = UInt64(exchange.ownBody.count)
        let hasBody = exchange.request.method != .head && status >= 200 && status != 204 && status != 304
        let options = HeadWriter.ResponseOptions(
            body: hasBody ? .length(count) : .none,
            declaredLength: exchange.request.method == .head && count > 0 ? count : nil, closes: !f.isPersistent,
            clientVersion: exchange.request.version)
        guard writeHead(d, &exchange.response, options, date: date) else { return false }
        if hasBody, count > 0 {
            exchange.bytesOut &+= count
            if let stream = d.stream {
                reserve(&d.output, exchange.ownBody.count).append(exchange.ownBody)
                queued(d, stream, exchange.ownBody.count)
                return true
            }
            reserve(&d.output, exchange.ownBody.count).append(exchange.ownBody)
        }
        flush(d)
        return true
    }

    @inline(__always)
    func sendResponseBody(_ f: Flight, _ bytes: RawSpan) {
        if let recoding = f.recoding, recoding.changesResponse {
            recode(f, recoding, bytes)
        } else {
            passResponseBody(f, bytes)
        }
    }

    func passResponseBody(_ f: Flight, _ bytes: RawSpan) {
        guard let d = f.downstream else { return }
        f.exchange.bytesOut &+= UInt64(bytes.byteCount)
        switch f.responseFraming {
        case .none:
            return
        case .length, .close:
            put(d, bytes)
        case .frames:
            if let stream = d.stream { put(d, stream, bytes) }
            return
        case .chunked:
            beginChunk(bytes.byteCount, in: reserve(&d.output, 24))
            put(d, bytes)
            if !d.machine.isClosed { reserve(&d.output, 2).append(ChunkEncoder.endOfData) }
        }
        if let output = d.output, output.count >= Self.mostJoined { flush(d) }
    }

    /// Small parts are joined to what is queued, large ones go straight from where they were read.
    @inline(__always)
    func put(_ d: Downstream, _ bytes: RawSpan) {
        if bytes.byteCount <= keptBody {
            queue(&d.output, bytes)
            return
        }
        if !write(d, bytes) { perform(d, .broken) }
    }

    private func endResponse(_ f: Flight) {
        f.ending = .complete
        guard let d = f.downstream else { return }
        if let recoding = f.recoding, recoding.changesResponse {
            endRecodedResponse(f, recoding, d)
            return
        }
        if let stream = d.stream { endBody(stream, trailers: f.responseTrailers) }
        if f.responseFraming == .chunked { endChunks(f.responseTrailers, &d.output) }
        flush(d)
    }

    private func endRecodedResponse(_ f: Flight, _ recoding: Recoding, _ d: Downstream) {
        guard endRecodedBody(f, recoding) else {
            if f.exchange.reason == .none { f.exchange.reason = .internalError }
            f.ending = .broken
            return
        }
        if recoding.encoder != nil { CompressionRule.takeOutValidators(of: &f.responseTrailers) }
        // Those of gRPC-Web are in the body.
        let trailers = recoding.bridge == nil ? f.responseTrailers : MessageHead()
        if let stream = d.stream { endBody(stream, trailers: trailers) }
        if f.responseFraming == .chunked { endChunks(trailers, &d.output) }
        flush(d)
    }

    private func startTunnel(_ f: Flight) {
        guard let d = f.downstream, let u = f.upstream else { return }
        if f.isRelay {
            f.exchange.upstreamStarted = nowNanoseconds
        } else {
            perform(d, .switched)
        }
        f.isTunnel = true
        d.stream?.isTunnel = true
        telemetry.tunnelOpened()
        f.ending = .none
        setDeadline(f, .stream, after: f.policy.streamIdleTimeout)
        // Its client may have ended its side before there was anybody to be told.
        if d.flags.contains(.endRead) { downstreamEnded(d) }
        enqueue(d)
        enqueue(u)
    }

    // MARK: The request, written

    /// What the upstream is told of this client.
    private func forwarding(_ f: Flight) -> ForwardingEntry {
        let client = f.exchange.client
        let port = f.downstream?.localPort ?? 0
        let hash = client.peer.ip.low ^ client.peer.ip.high ^ client.address.ip.low &* 31 ^ UInt64(port) &<< 17
        let slot = Int(truncatingIfNeeded: (hash &* 0x9e37_79b9_7f4a_7c15) &>> 54)
        if let entry = forwardings[slot], entry.peer == client.peer.ip, entry.client == client.address.ip,
            entry.port == port, entry.isSecure == client.isSecure
        {
            return entry
        }
        let entry = ForwardingEntry(
            peer: client.peer.ip, client: client.address.ip, port: port, isSecure: client.isSecure,
            rules: forwardingRules)
        forwardings[slot] = entry
        return entry
    }

    /// Who asks, and by which id.
    private func identify(_ f: Flight) {
        let exchange = f.exchange
        if exchange.client.isTrustedProxy {
            let ip = Forwarding.client(
                of: exchange.request, peer: exchange.client.peer.ip, trusted: believedProxies)
            if ip != exchange.client.peer.ip { exchange.client.address = Model.SocketAddress(ip: ip, port: 0) }
            exchange.client.isSecure = Forwarding.isSecure(
                of: exchange.request, connection: exchange.client.isSecure, isTrusted: true)
            forwarding(f).text.extendLists(in: &exchange.request)
        }
        exchange.idRange = Forwarding.requestID(of: &exchange.request, random: (random.next(), random.next()))
    }

    /// Encodes the head as it goes to any endpoint; false if it may not be written.
    private func encodeRequest(_ f: Flight) -> Bool {
        let exchange = f.exchange
        let forwarding = forwarding(f)
        let options = HeadWriter.RequestOptions(
            body: f.facts.body, upgrade: f.facts.upgrade, upgradeRange: f.facts.upgradeRange,
            expectsContinue: f.facts.expectsContinue && !f.facts.body.isEmpty,
            // Those of gRPC-Web come in the body, whatever the client's version.
            acceptsTrailers: f.facts.acceptsTrailers
                && (exchange.request.version != .http10 || f.recoding?.bridge != nil))
        switch f.facts.body {
        case .none, .length(0), .untilClose: f.requestFraming = .none
        case .length: f.requestFraming = .length
        case .chunked: f.requestFraming = .chunked
        }
        let isTrusted = exchange.client.isTrustedProxy
        let id = exchange.idRange
        func write(_ head: inout MessageHead, _ buffer: Buffer) -> HeadWriter.Outcome {
            var outcome = HeadWriter.Outcome.invalid
            buffer.write {
                outcome = HeadWriter.write(
                    request: head, options, forwarding: forwarding.text, isTrusted: isTrusted, id: id, to: &$0)
            }
            return outcome
        }
        var room = 0
        while true {
            let buffer = buffers.lend(room: room)
            switch write(&exchange.request, buffer) {
            case .written:
                f.outgoing = buffer
                return true
            case .needsRoom(let more) where more > room:
                buffers.giveBack(buffer)
                room = more
            case .needsRoom, .invalid:
                buffers.giveBack(buffer)
                return false
            }
        }
    }

    // MARK: Time-outs

    func timedOut(_ f: Flight) {
        let isTotal = f.totalDeadline <= now
        let kind = isTotal ? DeadlineKind.total : f.deadlineKind
        f.deadline = never
        f.totalDeadline = never
        switch kind {
        case .none: break
        case .connect:
            // A connection that does not come about fails all who wait for it.
            if let u = f.upstream { perform(u.stream?.carrier ?? u, .timedOut) }
        case .turn: turnTimedOut(f)
        case .requestBody:
            // Whose turn was it? An endpoint that takes nothing holds the client up.
            if let u = f.upstream, u.flags.contains(.blocked) {
                suspectCarrier(of: f)
                fail(f, .streamTimeout)
            } else {
                if let d = f.downstream { perform(d, .requestUnreadable) }
                fail(f, .bodyTimeout)
            }
        case .responseHead:
            suspectCarrier(of: f)
            fail(f, .responseTimeout)
        case .stream: fail(f, .streamTimeout)
        case .total: fail(f, .totalTimeout)
        }
    }
}
