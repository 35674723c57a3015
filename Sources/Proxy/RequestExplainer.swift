// `moongate explain`: the decisions of a request's walk, one after the other, made by the code that makes them for
// traffic: the same parser, the same admission, the same table, the same script engine, the same policies. Only the
// sockets are missing.
internal import HTTPWire
package import Middlewares
package import Model
package import Routing

/// What was decided about one request.
package struct RequestExplanation: Sendable, Equatable, Codable {
    package struct Step: Sendable, Equatable, Codable {
        /// Which part of the walk it is: `listener`, `passed` (TLS that is not ended here), `request`, `host`, `path`, `client`, `script`, `backend`, `endpoint`, `answer`,
        /// `response`.
        package var part: String
        package var decision: String
        package var details: [String]

        package init(_ part: String, _ decision: String, details: [String] = []) {
            self.part = part
            self.decision = decision
            self.details = details
        }
    }

    package var steps: [Step] = []
    /// The status of an answer that needs no upstream; nil when the request goes to one.
    package var status: UInt16?
    /// `FailureReason.label` of a refusal; nil where there is none.
    package var reason: String?
    /// `RequestFault.label`: what exactly is malformed; nil where nothing is.
    package var detail: String?
    /// The fields of that answer as the client gets them, `name: value`; without those of its framing, and the date.
    package var fields: [String] = []
    /// The upstream that the request goes to (`namespace/service:port`).
    package var upstream: String?
    /// What the upstream gets in its request line.
    package var target: String?
    package var tags: [String: String] = [:]
    /// The request came on a TLS connection of ours.
    var isSecure = false

    private enum CodingKeys: String, CodingKey { case steps, status, reason, detail, fields, upstream, target, tags }

    package init() {}
}

/// Explains requests by one configuration. Not for traffic: it allocates as it likes. Belongs to one thread at a time.
///
/// Scripts really run, phase by phase, but for `log`: what that does is an effect on the world, not a decision. The set
/// that they run in must have surroundings of its own, or an explanation would count as traffic.
package struct RequestExplainer {
    private let table: RouteTable
    private let middlewares: MiddlewareSet
    private let configuration: ProxyConfiguration
    private let addresses: [String: [IPAddress]]
    private let clientRules: ClientRules?

    /// `middlewares` must be a set that no loop uses.
    package init(
        table: RouteTable, middlewares: MiddlewareSet, configuration: ProxyConfiguration,
        addresses: [String: [IPAddress]] = [:], clientRules: ClientRules? = nil
    ) {
        self.clientRules = clientRules
        self.table = table
        self.middlewares = middlewares
        self.configuration = configuration
        self.addresses = addresses
    }

    /// Explains what would happen to the request whose head is `head` (HTTP/1.1, with its last empty line), sent by
    /// `peer` over TLS (`isSecure`) or without.
    package func explain(head: [UInt8], peer: IPAddress, isSecure: Bool = false) -> RequestExplanation {
        var result = RequestExplanation()
        result.isSecure = isSecure
        result.steps.append(listener(isSecure))
        let exchange = Exchange()
        exchange.client.isSecure = isSecure
        exchange.client.isOverTLS = isSecure
        exchange.client.peer = Model.SocketAddress(ip: peer, port: 0)
        exchange.client.address = exchange.client.peer
        exchange.client.isTrustedProxy = configuration.trustedProxies.contains { $0.contains(peer) }

        let limits = HeadLimits(
            headBytes: configuration.limits.headBytes, fieldCount: configuration.limits.fields,
            lineBytes: configuration.limits.fieldBytes, targetBytes: configuration.limits.targetBytes)
        var parser = HeadParser(.request)
        switch parser.parse(head.span, limits: limits, into: &exchange.request) {
        case .complete: break
        case .needMore: return refused(&result, Refusal(400, .malformedRequest), "the head has no end")
        case .refuse(let refusal): return refused(&result, refusal, "it is no request")
        }
        let facts: RequestFacts
        switch RequestAdmission.judge(&exchange.request, AdmissionRules(), isTrusted: exchange.client.isTrustedProxy) {
        case .refuse(let refusal): return refused(&result, refusal, "it is not admitted")
        case .admit(let admitted): facts = admitted
        }
        if exchange.client.isTrustedProxy {
            let ip = Forwarding.client(of: exchange.request, peer: peer, trusted: configuration.trustedProxies)
            exchange.client.address = Model.SocketAddress(ip: ip, port: 0)
            exchange.client.isSecure = Forwarding.isSecure(of: exchange.request, connection: isSecure, isTrusted: true)
            var rules = ForwardingRules()
            rules.sendsForwarded = configuration.sendsForwarded
            // The port is said in a field of its own, which is added after the scripts.
            ForwardingText(peer: peer, client: ip, isSecure: exchange.client.isSecure, port: 0, rules: rules)
                .extendLists(in: &exchange.request)
        }
        exchange.idRange = Forwarding.requestID(of: &exchange.request, random: (0, 0))
        let request = exchange.request
        result.steps.append(
            .init(
                "request", "admitted: \(request.text(request.methodRange)) \(request.text(request.pathRange))",
                details: [
                    "host \(request.text(request.hostRange))",
                    "client \(exchange.client.address.ip)\(exchange.client.isTrustedProxy ? ", told by a trusted proxy" : "")",
                ]
                    + (exchange.client.isSecure == isSecure
                        ? [] : ["scheme \(exchange.client.isSecure ? "https" : "http"), told by a trusted proxy"])))

        if isSecure, passes(exchange, &result) { return result }
        match(exchange, &result)
        if let clientRules, !authenticate(exchange, clientRules, isSecure, &result) { return result }
        if let refusal = refusesPath(exchange) { return refused(&result, refusal, Self.slashes, closes: false) }
        let routes = table.snapshot.routes
        if routes.indices.contains(Int(exchange.route)), routes[Int(exchange.route)].policy.redirectsToHTTPS,
            HTTPSRedirect.applies(to: exchange)
        {
            if exchange.request.hostRange.isEmpty {
                return refused(
                    &result, Refusal(400, .malformedRequest, .noHost),
                    "plain HTTP is redirected (ssl-redirect), and it names no host", closes: false)
            }
            var location: [UInt8] = []
            HTTPSRedirect.appendLocation(of: exchange.request, port: configuration.redirectPort, to: &location)
            result.status = HTTPSRedirect.status
            result.fields = ["location: \(String(decoding: location, as: UTF8.self))"]
            result.steps.append(
                .init(
                    "answer", "\(HTTPSRedirect.status) to \(String(decoding: location, as: UTF8.self))",
                    details: ["plain HTTP is redirected (ssl-redirect); no script runs"]))
            return result
        }
        decide(exchange, facts, &result)
        readTags(exchange, &result)
        // What the scripts keep of the request is let go of. Without a route, and so without their log phase.
        exchange.route = -1
        middlewares.runLog(exchange)
        return result
    }

    // MARK: What is no HTTP

    /// A connection, or a datagram, to a port of TCP or UDP services.
    /// - Parameter whyClosed: what has kept a running instance from opening it.
    package func explain(port: UInt16, isUDP: Bool, whyClosed: String? = nil) -> RequestExplanation {
        let snapshot = table.snapshot
        let tcp = isUDP ? nil : snapshot.tcpServices.first { $0.port == port }
        let udp = isUDP ? snapshot.udpServices.first { $0.port == port } : nil
        var result = RequestExplanation()
        guard let number = tcp?.upstream ?? udp?.upstream, snapshot.upstreams.indices.contains(number) else {
            let kind = isUDP ? "udp" : "tcp"
            let hasNone = isUDP ? snapshot.udpServices.isEmpty : snapshot.tcpServices.isEmpty
            result.steps.append(
                .init(
                    "answer", "no \(kind.uppercased()) service has the port \(port): it is not open",
                    details: hasNone ? ["there is none; --\(kind)-services-configmap names the ConfigMap of them"] : [])
            )
            return result
        }
        var details = ["of \(tcp?.place ?? udp?.place ?? Place())"]
        if tcp?.acceptsProxyProtocol == true { details.append("trusted proxies begin with a PROXY protocol header") }
        result.steps.append(.init("listener", "\(isUDP ? "udp" : "tcp"):\(port)", details: details))
        let isOurs = !isUDP && configuration.reserves(tcpPort: port)
        if let why = whyClosed ?? (isOurs ? ProxyServer.PortProblem.ours.why : nil) {
            result.steps.append(.init("answer", "the port is not open: \(why)"))
            return result
        }
        if endpoints(of: snapshot.upstreams[number]).isEmpty {
            result.steps.append(
                .init("answer", "the port is not open: \(snapshot.upstreams[number].name) has no endpoint"))
            return result
        }
        pass(to: snapshot.upstreams[number], telling: tcp?.sendsProxyProtocol, &result)
        return result
    }

    /// The TLS of some hosts is not ended here: nothing of what is asked inside is known. True: of this one.
    private func passes(_ exchange: Exchange, _ result: inout RequestExplanation) -> Bool {
        let snapshot = table.snapshot
        let host = exchange.request.text(exchange.request.hostRange)
        let relays = RelayTable(snapshot)
        guard let target = relays.target(host: Array(host.utf8)),
            snapshot.upstreams.indices.contains(Int(target.upstream))
        else { return false }
        let number = Int(target.index) - snapshot.tcpServices.count
        let whose = snapshot.passthrough.indices.contains(number) ? snapshot.passthrough[number] : nil
        result.steps.append(
            .init(
                "passed", "the TLS of \(host) is passed on unopened, by the name in its ClientHello",
                details: (whose.map { ["\($0.pattern), asked for by \($0.ingress) (ssl-passthrough)"] } ?? [])
                    + ["what is asked inside is not seen: no rule, script or field of ours"]))
        pass(to: snapshot.upstreams[Int(target.upstream)], telling: target.sendsProxyHeader, &result)
        return true
    }

    /// The bytes go to one of these as they are.
    private func pass(
        to upstream: Upstream, telling version: ProxyProtocolVersion?, _ result: inout RequestExplanation
    ) {
        let all = endpoints(of: upstream).map(\.description)
        var details = all.prefix(16).map { "endpoint \($0)" }
        if all.count > 16 { details.append("and \(all.count - 16) more") }
        if all.isEmpty { details.append("it has no endpoint: the connection is closed") }
        if let version { details.append("told of the client by the PROXY protocol, \(version.rawValue)") }
        result.steps.append(.init("backend", upstream.name, details: details))
        if !all.isEmpty { result.upstream = upstream.name }
    }

    /// What the host asks of its clients' certificates. What a client would show is not known; the rest holds for one
    /// that gets through. False: nobody does.
    private func authenticate(
        _ exchange: Exchange, _ rules: ClientRules, _ isSecure: Bool, _ result: inout RequestExplanation
    ) -> Bool {
        let bytes = exchange.request.bytes
        let number = rules.rule(
            route: exchange.route, host: bytes.span.extracting(exchange.request.hostRange.range))
        guard number >= 0 else { return true }
        let rule = rules.rules[Int(number)]
        func refuse(_ reason: FailureReason, _ why: String) -> Bool {
            result.status = reason.status
            result.reason = reason.label
            result.steps.append(.init("answer", "\(reason.status): \(why) (\(reason.label))"))
            return false
        }
        if !isSecure, !rule.isDenied, HTTPSRedirect.isChallenge(exchange.request) {
            result.steps.append(
                .init("client", "an ACME challenge over plain HTTP: nobody is refused for it"))
            return true
        }
        let whose = rule.authentication.ingress
        if rule.isBroken {
            return refuse(.clientRulesBroken, "the client certificates that \(whose) asks for can't be checked")
        }
        guard isSecure, rule.asked != nil else {
            if rule.pattern?.isFound(in: []) == false {
                return refuse(.clientForbidden, "the subject that \(whose) asks for needs a client certificate")
            }
            result.steps.append(
                .init("client", isSecure ? "no certificate is asked for" : "without TLS no certificate is asked for"))
            return true
        }
        var details = ["authorities of \(rule.authentication.secret.map { "\($0)" } ?? "?"), asked for by \(whose)"]
        if let pattern = rule.authentication.subjectPattern { details.append("its subject must match \(pattern)") }
        details.append("the rest holds for a client that gets through")
        result.steps.append(
            .init("client", "a certificate is asked for: \(rule.authentication.mode.rawValue)", details: details))
        return true
    }

    /// The first decision is the client's: which listener it speaks to.
    private func listener(_ isSecure: Bool) -> RequestExplanation.Step {
        let addresses = (isSecure ? configuration.listenSecure : configuration.listen).map(\.description)
        let details =
            addresses.isEmpty && isSecure
            ? ["nothing listens for https here: the rest holds for what arrives as https"]
            : addresses.isEmpty ? [] : [addresses.joined(separator: ", ")]
        return .init("listener", isSecure ? "https" : "http", details: details)
    }

    /// Everything after the match: the request phases, the choice, and what is said of the response.
    private func decide(_ exchange: Exchange, _ facts: RequestFacts, _ result: inout RequestExplanation) {
        if exchange.route >= 0, !runScripts(exchange, &result) { return respond(exchange, &result) }
        if let refusal = refusesPath(exchange) {
            _ = refused(&result, refusal, Self.slashes, closes: false)
            return
        }
        choose(exchange, facts, &result)
        if exchange.reason != .none { respond(exchange, &result) } else { suppose(exchange, &result) }
    }

    /// Runs phases, and gives what they said of themselves.
    private func listening(_ run: () -> Verdict) -> (verdict: Verdict, events: [MiddlewareEvent]) {
        var events: [MiddlewareEvent] = []
        middlewares.listener = { events.append($0) }
        let verdict = run()
        middlewares.listener = nil
        return (verdict, events)
    }

    private static let slashes = "its path has %2F or %5C, and the rule has no allow-encoded-slashes"

    private func refusesPath(_ exchange: Exchange) -> Refusal? {
        let routes = table.snapshot.routes
        guard exchange.request.hasEncodedSlash,
            !routes.indices.contains(Int(exchange.route)) || !routes[Int(exchange.route)].policy.allowsEncodedSlashes
        else { return nil }
        return Refusal(400, .malformedRequest, .encodedSlash)
    }

    private func refused(
        _ result: inout RequestExplanation, _ refusal: Refusal, _ why: String, closes: Bool = true
    ) -> RequestExplanation {
        result.status = refusal.status
        result.reason = refusal.reason.label
        result.detail = refusal.fault == .none ? nil : refusal.fault.label
        result.steps.append(
            .init(
                "answer",
                "\(refusal.status): \(why) (\(refusal.reason.label))" + (closes ? "; the connection is closed" : ""),
                details: refusal.fault == .none ? [] : ["\(refusal.fault.message) (\(refusal.fault.label))"]))
        return result
    }

    // MARK: Matching

    private func match(_ exchange: Exchange, _ result: inout RequestExplanation) {
        let explanation = table.explain(
            host: exchange.request.text(exchange.request.hostRange),
            path: exchange.request.text(exchange.request.pathRange))
        exchange.route = explanation.match.route
        exchange.upstream = -1
        let routes = table.snapshot.routes
        if routes.indices.contains(Int(exchange.route)),
            let upstream = routes[Int(exchange.route)].upstream(isSecure: result.isSecure)
        {
            exchange.upstream = Int32(truncatingIfNeeded: upstream)
        }
        let host = explanation.hostSteps.map { step in
            "\(step.kind.rawValue): \(step.pattern.map(\.description) ?? "none")"
        }
        result.steps.append(
            .init("host", host.isEmpty ? "no host to match" : host.last ?? "", details: host.dropLast()))
        result.steps.append(
            .init("path", explanation.conclusion, details: explanation.candidates.map { describe($0, routes) }))
    }

    private func describe(_ candidate: RouteExplanation.Candidate, _ routes: [Route]) -> String {
        guard routes.indices.contains(Int(candidate.route)) else { return "" }
        let route = routes[Int(candidate.route)]
        let name = "\(route.path) (\(route.ingress))"
        switch candidate.verdict {
        case .chosen: return "\(name): chosen"
        case .outranked(let winner): return "\(name): matches too, but \(path(winner, routes)) goes first"
        case .shadowed(let winner):
            return "\(name): says the same as \(path(winner, routes)), which comes first (by age, then by name)"
        case .pathDiffers: return "\(name): does not match"
        }
    }

    private func path(_ route: Int32, _ routes: [Route]) -> String {
        routes.indices.contains(Int(route)) ? routes[Int(route)].path.description : "another"
    }

    // MARK: Scripts

    /// The request phases. False: they ended in an answer, which is in the exchange.
    private func runScripts(_ exchange: Exchange, _ result: inout RequestExplanation) -> Bool {
        var again: [RequestExplanation.Step] = []
        let isSecure = result.isSecure
        let (verdict, events) = listening {
            middlewares.runRequestPhases(exchange) { exchange in
                var inner = RequestExplanation()
                inner.isSecure = isSecure
                match(exchange, &inner)
                again = inner.steps
            }
        }
        for event in events {
            result.steps.append(step("script", event))
            if case .rerouted = event.outcome { result.steps += again }
        }
        switch verdict {
        case .next: return true
        case .respond: return false
        case .refuse(let status, let reason):
            exchange.reason = reason
            exchange.response.status = status
            return false
        case .suspended:
            // As a loop would answer it.
            exchange.reason = .internalError
            exchange.response.status = exchange.reason.status
            return false
        }
    }

    private func step(_ part: String, _ event: MiddlewareEvent) -> RequestExplanation.Step {
        let lines = event.description.split(separator: "\n").map { $0.trimmingPrefix(while: \.isWhitespace) }
        return .init(part, lines.first.map(String.init) ?? "", details: lines.dropFirst().map(String.init))
    }

    private func readTags(_ exchange: Exchange, _ result: inout RequestExplanation) {
        for tag in exchange.tags {
            let bytes = exchange.tagBytes
            result.tags[String(decoding: bytes[tag.name.range], as: UTF8.self)] =
                String(decoding: bytes[tag.value.range], as: UTF8.self)
        }
    }

    // MARK: Choosing

    /// Where the request goes, or in `exchange.reason` why nowhere.
    private func choose(_ exchange: Exchange, _ facts: RequestFacts, _ result: inout RequestExplanation) {
        func answer(_ reason: FailureReason, _ why: String) {
            exchange.reason = reason
            exchange.response.status = reason.status
            result.steps.append(.init("answer", "\(reason.status): \(why) (\(reason.label))"))
        }
        let snapshot = table.snapshot
        guard snapshot.routes.indices.contains(Int(exchange.route)) else {
            return answer(.noRoute, "no rule and no default backend")
        }
        let route = snapshot.routes[Int(exchange.route)]
        guard snapshot.upstreams.indices.contains(Int(exchange.upstream)) else {
            return answer(.noBackend, "the backend of \(route.ingress), \(route.rule), is not known")
        }
        let policy = ResolvedPolicy(route.policy, over: ResolvedPolicy(configuration))
        if policy.maxBodyBytes != 0, case .length(let length) = facts.body, length > policy.maxBodyBytes {
            return answer(.bodyTooLarge, "a body of \(length) bytes, where \(policy.maxBodyBytes) are allowed")
        }
        var upstream = snapshot.upstreams[Int(exchange.upstream)]
        result.steps.append(
            .init(
                "backend", upstream.name,
                details: [exchange.isUpstreamChosen ? "chosen by a script" : "of the rule"] + Self.spoken(upstream)
                    + (upstream.proxyHeader.map {
                        ["told of the client by the PROXY protocol, \($0.rawValue), on a connection of its own"]
                    } ?? [])))
        if endpoints(of: upstream).isEmpty, exchange.isUpstreamChosen, !exchange.isUpstreamStrict,
            let own = route.upstream(isSecure: result.isSecure), snapshot.upstreams.indices.contains(own),
            own != Int(exchange.upstream)
        {
            result.steps.append(
                .init("backend", "\(snapshot.upstreams[own].name): \(upstream.name) has no ready endpoint"))
            exchange.tag(Array("fallback".utf8).span, Array("no_endpoints".utf8).span)
            upstream = snapshot.upstreams[own]
            result.steps[result.steps.endIndex - 1].details = Self.spoken(upstream)
        }
        result.upstream = upstream.name
        let addresses = endpoints(of: upstream)
        if addresses.isEmpty {
            return answer(.noEndpoint, "\(upstream.name) has no ready endpoint")
        }
        let how = exchange.hashKey == 0 ? upstream.balance.rawValue : "the hash key of a script"
        let answerTimeout =
            exchange.responseTimeout == 0 ? policy.responseHeadTimeout : UInt64(exchange.responseTimeout)
        let retries = exchange.retries < 0 ? policy.retries : Int(exchange.retries)
        result.steps.append(
            .init(
                "endpoint", "one of \(addresses.count), by \(how)",
                details: addresses.prefix(20).map(\.description) + [
                    "connect within \(policy.connectTimeout) ms, response head within \(answerTimeout) ms, "
                        + "at most \(retries) safe retries"
                ] + recoding(policy)))
        let request = exchange.request
        result.target =
            request.text(request.pathRange) + (request.hasQuery ? "?" + request.text(request.queryRange) : "")
    }

    /// What is spoken with an upstream, where it is not plain HTTP/1.1.
    private static func spoken(_ upstream: Upstream) -> [String] {
        switch upstream.protocol {
        case .http: return []
        case .h2c: return ["spoken to by HTTP/2"]
        case .https, .h2:
            let what = "spoken to by \(upstream.protocol.isHTTP2 ? "HTTP/2" : "HTTP/1.1") over TLS"
            guard let tls = upstream.tls else { return [what + ", the certificate not verified"] }
            var details = [
                what
                    + (tls.verifies
                        ? ", the certificate verified for \(tls.name)" : ", the certificate not verified")
            ]
            if let secret = tls.secret { details.append("by the Secret \(secret.namespace)/\(secret.name)") }
            if tls.pair != nil { details.append("with a client certificate") }
            if tls.sendsName { details.append("naming \(tls.name) (SNI)") }
            return details
        }
    }

    /// What may be done to the bodies.
    private func recoding(_ policy: ResolvedPolicy) -> [String] {
        var lines: [String] = []
        if policy.bridgesGRPCWeb { lines.append("a request of gRPC-Web is made one of gRPC") }
        if !policy.codings.isEmpty {
            let whose = policy.compressesSecrets ? "" : ", unless cookies or credentials are in play"
            lines.append("the response may be compressed: \(policy.codings)\(whose)")
        }
        return lines
    }

    private func endpoints(of upstream: Upstream) -> [Model.SocketAddress] {
        upstream.endpoints.flatMap { endpoint in
            switch endpoint.host {
            case .ip(let ip): [Model.SocketAddress(ip: ip, port: endpoint.port)]
            case .name(let name): (addresses[name] ?? []).map { Model.SocketAddress(ip: $0, port: endpoint.port) }
            }
        }
    }

    // MARK: The response

    /// An answer that is not the upstream's: it is known, so the response phases run on it as they would.
    private func respond(_ exchange: Exchange, _ result: inout RequestExplanation) {
        if exchange.origin != .script || exchange.reason != .none { makeErrorPage(exchange) }
        let before = result.steps.endIndex
        let (verdict, events) = listening { middlewares.runResponsePhases(exchange) }
        switch verdict {
        case .next, .respond: break
        case .refuse(let status, let reason):
            exchange.response.status = status
            exchange.reason = reason
            makeErrorPage(exchange)
        case .suspended:
            exchange.reason = .internalError
            exchange.response.status = exchange.reason.status
            makeErrorPage(exchange)
        }
        result.steps += events.map { step("response", $0) }
        result.status = exchange.response.status
        result.reason = exchange.reason == .none ? nil : exchange.reason.label
        result.fields = exchange.response.fields.filter { !$0.isRemoved }
            .map { "\(exchange.response.text($0.nameRange)): \(exchange.response.text($0.valueRange))" }
        // What could not be chosen has said why already.
        let isTold = before > 0 && result.steps[before - 1].part == "answer"
        let who = exchange.origin == .script ? "made by a script" : exchange.reason.label
        if !isTold || result.steps.endIndex > before {
            let body = exchange.ownBody.isEmpty ? [] : ["a body of \(exchange.ownBody.count) bytes"]
            result.steps.append(
                .init(
                    "answer",
                    exchange.origin == .script
                        ? "\(exchange.response.status), \(who)" : "\(exchange.response.status) (\(who))",
                    details: exchange.origin == .script ? result.fields + body : result.fields))
        }
    }

    /// The page of a failure, as far as scripts can see it.
    private func makeErrorPage(_ exchange: Exchange) {
        let status = exchange.response.status
        exchange.origin = .moongate
        exchange.response.removeAll()
        exchange.ownBody.removeAll()
        exchange.response.status = status
        var form = ErrorPage.Form.text
        if let index = exchange.request.firstIndex(of: .accept) {
            let bytes = exchange.request.bytes
            form = ErrorPage.form(accept: bytes.span.extracting(exchange.request.fields[index].valueRange))
        }
        ErrorPage.write(status: status, form: form, into: &exchange.ownBody)
        exchange.response.appendStatic("content-type", ErrorPage.contentType(form))
        exchange.response.appendStatic("cache-control", "no-store")
        if status == 503 { exchange.response.appendStatic("retry-after", "1") }
    }

    /// What the upstream will answer is not known. The scripts that will see it are, and what they make of a plain one.
    private func suppose(_ exchange: Exchange, _ result: inout RequestExplanation) {
        exchange.origin = .upstream
        exchange.response.removeAll()
        exchange.response.status = 200
        let (verdict, events) = listening { middlewares.runResponsePhases(exchange) }
        guard !events.isEmpty else { return }
        result.steps.append(
            .init("response", "of the upstream; were it a 200 without fields, the scripts would make of it:"))
        result.steps += events.map { step("response", $0) }
        switch verdict {
        case .next, .suspended: break
        case .respond:
            result.steps.append(.init("response", "a script's own \(exchange.response.status) would take its place"))
        case .refuse(let status, let reason):
            result.steps.append(.init("response", "\(status) would take its place (\(reason.label))"))
        }
    }
}
