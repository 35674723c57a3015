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
        /// Which part of the walk it is: `request`, `host`, `path`, `script`, `backend`, `endpoint`, `answer`.
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
    /// The upstream that the request goes to (`namespace/service:port`).
    package var upstream: String?
    /// What the upstream gets in its request line.
    package var target: String?
    package var tags: [String: String] = [:]

    package init() {}
}

/// Explains requests by one configuration. Not for traffic: it allocates as it likes. Belongs to one thread at a time.
package struct RequestExplainer {
    private let table: RouteTable
    private let middlewares: MiddlewareSet
    private let configuration: ProxyConfiguration
    private let addresses: [String: [IPAddress]]

    /// `middlewares` must be a set that no loop uses.
    package init(
        table: RouteTable, middlewares: MiddlewareSet, configuration: ProxyConfiguration,
        addresses: [String: [IPAddress]] = [:]
    ) {
        self.table = table
        self.middlewares = middlewares
        self.configuration = configuration
        self.addresses = addresses
    }

    /// Explains what would happen to the request whose head is `head` (HTTP/1.1, with its last empty line), sent by
    /// `peer`.
    package func explain(head: [UInt8], peer: IPAddress) -> RequestExplanation {
        var result = RequestExplanation()
        let exchange = Exchange()
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
        switch RequestAdmission.judge(&exchange.request, AdmissionRules(), isTrusted: exchange.client.isTrustedProxy) {
        case .refuse(let refusal): return refused(&result, refusal, "it is not admitted")
        case .admit: break
        }
        if exchange.client.isTrustedProxy {
            let ip = Forwarding.client(of: exchange.request, peer: peer, trusted: configuration.trustedProxies)
            exchange.client.address = Model.SocketAddress(ip: ip, port: 0)
            exchange.client.isSecure = Forwarding.isSecure(of: exchange.request, connection: false, isTrusted: true)
        }
        exchange.idRange = Forwarding.requestID(of: &exchange.request, random: (0, 0))
        let request = exchange.request
        result.steps.append(
            .init(
                "request", "admitted: \(request.text(request.methodRange)) \(request.text(request.pathRange))",
                details: [
                    "host \(request.text(request.hostRange))",
                    "client \(exchange.client.address.ip)\(exchange.client.isTrustedProxy ? ", told by a trusted proxy" : "")",
                ]))

        match(exchange, &result)
        if exchange.route >= 0, let stopped = runScripts(exchange, &result) { return stopped }
        return choose(exchange, result)
    }

    private func refused(_ result: inout RequestExplanation, _ refusal: Refusal, _ why: String) -> RequestExplanation {
        result.status = refusal.status
        result.reason = refusal.reason.label
        result.steps.append(
            .init("answer", "\(refusal.status): \(why) (\(refusal.reason.label)); the connection is closed"))
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
        if routes.indices.contains(Int(exchange.route)), let upstream = routes[Int(exchange.route)].upstream {
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
        case .shadowed(let winner): return "\(name): says the same as \(path(winner, routes)), which is older"
        case .pathDiffers: return "\(name): does not match"
        }
    }

    private func path(_ route: Int32, _ routes: [Route]) -> String {
        routes.indices.contains(Int(route)) ? routes[Int(route)].path.description : "another"
    }

    // MARK: Scripts

    /// The answer, if the scripts gave one.
    private func runScripts(_ exchange: Exchange, _ result: inout RequestExplanation) -> RequestExplanation? {
        var events: [MiddlewareEvent] = []
        middlewares.listener = { events.append($0) }
        defer { middlewares.listener = nil }
        var again: [RequestExplanation.Step] = []
        let verdict = middlewares.runRequestPhases(exchange) { exchange in
            var inner = RequestExplanation()
            match(exchange, &inner)
            again = inner.steps
        }
        middlewares.runLog(exchange)
        for event in events {
            if event.phase == "log" { continue }
            let lines = event.description.split(separator: "\n").map { $0.trimmingPrefix(while: \.isWhitespace) }
            result.steps.append(
                .init("script", lines.first.map(String.init) ?? "", details: lines.dropFirst().map(String.init)))
            if case .rerouted = event.outcome { result.steps += again }
        }
        for tag in exchange.tags {
            let bytes = exchange.tagBytes
            result.tags[String(decoding: bytes[tag.name.range], as: UTF8.self)] =
                String(decoding: bytes[tag.value.range], as: UTF8.self)
        }
        switch verdict {
        case .next:
            return nil
        case .respond:
            result.status = exchange.response.status
            result.steps.append(.init("answer", "\(exchange.response.status), made by a script"))
            return result
        case .refuse(let status, let reason):
            result.status = status
            result.reason = reason.label
            result.steps.append(.init("answer", "\(status) (\(reason.label))"))
            return result
        case .suspended:
            result.steps.append(.init("answer", "a script waits, which can't be explained offline"))
            return result
        }
    }

    // MARK: Choosing

    private func choose(_ exchange: Exchange, _ before: RequestExplanation) -> RequestExplanation {
        var result = before
        func answer(_ reason: FailureReason, _ why: String) -> RequestExplanation {
            result.status = reason.status
            result.reason = reason.label
            result.steps.append(.init("answer", "\(reason.status): \(why) (\(reason.label))"))
            return result
        }
        let snapshot = table.snapshot
        guard snapshot.routes.indices.contains(Int(exchange.route)) else {
            return answer(.noRoute, "no rule and no default backend")
        }
        let route = snapshot.routes[Int(exchange.route)]
        guard snapshot.upstreams.indices.contains(Int(exchange.upstream)) else {
            return answer(.noBackend, "the backend of \(route.ingress), \(route.rule), is not known")
        }
        var upstream = snapshot.upstreams[Int(exchange.upstream)]
        result.steps.append(
            .init("backend", upstream.name, details: [exchange.isUpstreamChosen ? "chosen by a script" : "of the rule"])
        )
        if endpoints(of: upstream).isEmpty, exchange.isUpstreamChosen, !exchange.isUpstreamStrict,
            let own = route.upstream, snapshot.upstreams.indices.contains(own), own != Int(exchange.upstream)
        {
            result.steps.append(
                .init("backend", "\(snapshot.upstreams[own].name): \(upstream.name) has no ready endpoint"))
            result.tags["fallback"] = "no_endpoints"
            upstream = snapshot.upstreams[own]
        }
        result.upstream = upstream.name
        let addresses = endpoints(of: upstream)
        if addresses.isEmpty {
            return answer(.noEndpoint, "\(upstream.name) has no ready endpoint")
        }
        let policy = ResolvedPolicy(route.policy, over: ResolvedPolicy(configuration))
        result.steps.append(
            .init(
                "endpoint", "one of \(addresses.count), by \(upstream.balance.rawValue)",
                details: addresses.prefix(20).map(\.description) + [
                    "connect within \(policy.connectTimeout) ms, response head within \(policy.responseHeadTimeout) ms, "
                        + "at most \(policy.retries) safe retries"
                ]))
        let request = exchange.request
        result.target =
            request.text(request.pathRange) + (request.hasQuery ? "?" + request.text(request.queryRange) : "")
        return result
    }

    private func endpoints(of upstream: Upstream) -> [Model.SocketAddress] {
        upstream.endpoints.flatMap { endpoint in
            switch endpoint.host {
            case .ip(let ip): [Model.SocketAddress(ip: ip, port: endpoint.port)]
            case .name(let name): (addresses[name] ?? []).map { Model.SocketAddress(ip: $0, port: endpoint.port) }
            }
        }
    }
}
