// Step 8 of a request's walk: what the proxy says in its own name. Failures and the responses that scripts made leave
// by the same door, through the response phases, with a length and a date.
internal import HTTPWire
internal import Middlewares
internal import Model
internal import Reactor

extension Loop {
    /// Writes a response of our own: what the request phases made, or the page of the failure.
    func answer(_ f: Flight) {
        guard let d = f.downstream, !d.machine.isClosed else { return }
        let exchange = f.exchange
        f.ending = .complete
        // What was to be done with the upstream's response is not done with ours.
        if f.recoding != nil { endRecoding(f) }
        if f.isRedirect, exchange.reason == .none {
            makeRedirect(f)
        } else if exchange.origin != .script || exchange.reason != .none {
            makeErrorPage(f)
        } else {
            addTransportSecurity(f)
        }
        if f.phasesRan, !f.responsePhasesRan {
            f.responsePhasesRan = true
            switch f.pin.middlewares.runResponsePhases(exchange) {
            case .next, .respond: break
            case .refuse(let status, let reason):
                f.refusedStatus = status
                exchange.reason = reason
                makeErrorPage(f)
            case .suspended:
                exchange.reason = .internalError
                makeErrorPage(f)
            }
        }
        if let bridge = f.recoding?.bridge {
            _ = GRPCWeb.fromGRPC(&exchange.response, isText: bridge.isResponseText)
        }
        f.isPersistent = d.machine.mayPersist && !announcesClose
        // The next request for that host would be misdirected as well: another connection is wanted.
        if exchange.reason == .misdirected { f.isPersistent = false }
        // Whoever waits for 100 Continue and gets this instead may send its body, or the next request: only closing
        // tells the two apart (RFC 9110 §10.1.1).
        if f.facts.expectsContinue, !f.continueWasSent { f.isPersistent = false }
        if !writeAnswer(f, d) {
            // A script made what may not be sent.
            exchange.reason = .internalError
            makeErrorPage(f)
            if !writeAnswer(f, d) { f.ending = .broken }
        }
    }

    private func makeRedirect(_ f: Flight) {
        let exchange = f.exchange
        exchange.origin = .moongate
        exchange.response.removeAll()
        exchange.ownBody.removeAll(keepingCapacity: true)
        exchange.response.status = HTTPSRedirect.status
        var location: [UInt8] = []
        HTTPSRedirect.appendLocation(of: exchange.request, port: configuration.redirectPort, to: &location)
        let name = locationName
        exchange.response.append(name.span, location.span)
    }

    /// Tells the client to come by TLS from now on (RFC 6797 §7.1): only over TLS (§7.2), and in the place of what the
    /// upstream says. Scripts of the response have the last word.
    func addTransportSecurity(_ f: Flight) {
        guard f.downstream?.secureLayer != nil, !configuration.transportSecurity.isEmpty else { return }
        let name = transportSecurityName
        let value = configuration.transportSecurity
        f.exchange.response.set(name.span, to: value.span)
    }

    /// Whether the client reads statuses of gRPC: over HTTP/2, or by way of gRPC-Web.
    func isCall(_ f: Flight) -> Bool {
        (f.exchange.request.version == .http2 || f.recoding?.bridge != nil) && GRPC.isCall(f.exchange.request)
    }

    /// What a call ended with, for the log: in the trailers, or in the head of a response that is nothing else.
    func noteCallStatus(_ f: Flight) {
        let exchange = f.exchange
        guard exchange.grpcStatus < 0, GRPC.isCall(exchange.request) else { return }
        if let status = GRPC.status(of: f.responseTrailers) ?? GRPC.status(of: exchange.response) {
            exchange.grpcStatus = Int8(status.rawValue)
        }
    }

    /// The response has begun and cannot be completed. A call that is still there to be told ends with a status; any
    /// other response is broken, so that nobody takes it for whole.
    func breakResponse(_ f: Flight) {
        f.ending = .broken
        let exchange = f.exchange
        guard f.responseFraming == .frames, exchange.request.version == .http2, exchange.reason != .clientClosed,
            // A client of gRPC-Web would take the status for a part of the message that was cut.
            f.recoding?.bridge == nil,
            GRPC.isCall(exchange.request), let d = f.downstream, let stream = d.stream, !stream.isGone
        else { return }
        let status = callStatus(f, exchange.reason.status)
        exchange.grpcStatus = Int8(status.rawValue)
        f.responseTrailers.removeAll()
        appendStatus(status, exchange.reason.status, to: &f.responseTrailers)
        endBody(stream, trailers: f.responseTrailers)
        f.ending = .complete
    }

    private func callStatus(_ f: Flight, _ httpStatus: UInt16) -> GRPCStatus {
        if f.exchange.reason == .upstreamReset, let code = f.resetCode { return GRPCStatus(resetCode: code) }
        return GRPCStatus(httpStatus: httpStatus)
    }

    private func appendStatus(_ status: GRPCStatus, _ httpStatus: UInt16, to head: inout MessageHead) {
        var message: [UInt8] = []
        message.append(ErrorPage.phrase(httpStatus))
        GRPC.append(status, message: message.span, to: &head)
    }

    /// The same failure for a gRPC client: a response that is a head and nothing else (gRPC over HTTP/2,
    /// "Trailers-Only").
    private func makeCallStatus(_ f: Flight, _ httpStatus: UInt16) {
        let exchange = f.exchange
        // HTTP has no status for it, and nginx's 400, or a page that explains it, says nothing to a call.
        let lacksCertificate = exchange.reason == .noClientCertificate || exchange.reason == .badClientCertificate
        let httpStatus = lacksCertificate ? 401 : httpStatus
        let status = callStatus(f, httpStatus)
        exchange.grpcStatus = Int8(status.rawValue)
        exchange.origin = .moongate
        exchange.response.removeAll()
        exchange.ownBody.removeAll(keepingCapacity: true)
        exchange.response.status = 200
        exchange.response.appendStatic("content-type", "application/grpc")
        appendStatus(status, httpStatus, to: &exchange.response)
        addTransportSecurity(f)
    }

    private func makeErrorPage(_ f: Flight) {
        let exchange = f.exchange
        let status = f.refusedStatus != 0 ? f.refusedStatus : exchange.reason.status
        // A failure before the request was to be sent on is told in the same way as one behind that.
        if exchange.route >= 0, f.policy.bridgesGRPCWeb { bridgeRequest(f) }
        // 421 is what tells a client that another connection may do (RFC 9110 §15.5.20): no status of gRPC says so.
        if isCall(f), exchange.reason != .misdirected {
            makeCallStatus(f, status)
            return
        }
        exchange.origin = .moongate
        exchange.response.removeAll()
        exchange.ownBody.removeAll(keepingCapacity: true)
        exchange.response.status = status
        var form = ErrorPage.Form.text
        if let index = exchange.request.firstIndex(of: .accept) {
            let bytes = exchange.request.bytes
            let range = exchange.request.fields[index].valueRange
            if range.upperBound <= bytes.count { form = ErrorPage.form(accept: bytes.span.extracting(range)) }
        }
        ErrorPage.write(
            status: status, form: form,
            detail: exchange.reason == .plainHTTP ? "The plain HTTP request was sent to an HTTPS port.\n" : "",
            into: &exchange.ownBody)
        exchange.response.appendStatic("content-type", ErrorPage.contentType(form))
        exchange.response.appendStatic("cache-control", "no-store")
        if !f.errorPage.isEmpty, status == 302 {
            let name = locationName
            let page = f.errorPage
            exchange.response.append(name.span, page.span)
        }
        if status == 503 { exchange.response.appendStatic("retry-after", "1") }
        addTransportSecurity(f)
        if status == 405 { exchange.response.appendStatic("allow", "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH") }
    }
}

extension MessageHead {
    /// Appends a line of our own making.
    mutating func appendStatic(_ name: StaticString, _ value: StaticString) {
        let nameStart = bytes.count
        bytes.append(name)
        let valueStart = bytes.count
        bytes.append(value)
        record(
            name: ByteRange(offset: nameStart, count: valueStart - nameStart),
            value: ByteRange(offset: valueStart, count: bytes.count - valueStart), flags: .ours)
    }
}
