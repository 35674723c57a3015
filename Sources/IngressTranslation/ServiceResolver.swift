// Backends become upstreams: a Service port, and behind it the endpoints of all its slices (discovery.k8s.io/v1).

internal import KubernetesAPI
internal import Model

struct ServiceResolver {
    enum Resolution: Equatable {
        case upstream(Int)
        case noService
        /// With the ports that the Service does have.
        case noPort(known: [String])
    }

    private let objects: ObjectSet
    private let allowsLoopbackNames: Bool
    private let zone: String?
    private let places: Places
    private var resolved: [ServicePortName: Resolution] = [:]
    /// Of the translation before, and of this one.
    private(set) var drafts: [ServicePortName: ServiceDraft]
    /// The same for datagrams: a Service may have both under one number or name.
    private var datagrams: [ServicePortName: Resolution] = [:]
    /// The Service ports as they speak of themselves.
    private var bases: [Base] = []

    private(set) var upstreams: [Upstream] = []
    private(set) var diagnostics: [Diagnostic] = []
    /// One port of a Service may be asked for by its number and by its name: what is wrong with it is said once.
    private var said: Set<Diagnostic> = []

    init(
        _ objects: ObjectSet, options: TranslationOptions, places: Places,
        drafts: [ServicePortName: ServiceDraft] = [:]
    ) {
        self.objects = objects
        self.places = places
        self.drafts = drafts
        allowsLoopbackNames = options.allowsLoopbackNames
        zone = options.zone
    }

    /// Forgets the drafts that nobody has asked for.
    mutating func dropUnused() {
        if drafts.count > resolved.count { drafts = drafts.filter { resolved[$0.key] != nil } }
    }

    private struct Base {
        var upstream: Upstream
        /// What TLS calls the endpoints where nobody says: the name that the cluster gives the Service, or the external
        /// name.
        var serverName: String
        /// Where it stands in `upstreams` without a variant; nil if nowhere yet.
        var plain: Int?
        /// Where its variants stand, by their names.
        var variants: [String: Int] = [:]
    }

    /// How an Ingress wants a Service port to be spoken to; nil leaves it to the Service.
    typealias Wish = (protocol: UpstreamProtocol?, tls: UpstreamTLS?, proxyHeader: ProxyProtocolVersion?)

    /// Finds or makes the upstream of a Service port. `isInRule` tells a port that an Ingress leads to from one that is
    /// there only because a script might choose it: nobody needs to hear that the latter has no endpoints.
    mutating func resolve(_ name: ServicePortName, as wish: Wish? = nil, isInRule: Bool = true) -> Resolution {
        let resolution: Resolution
        if let known = resolved[name] {
            resolution = known
        } else {
            resolution = make(name, "TCP", isInRule: isInRule)
            resolved[name] = resolution
        }
        guard case .upstream(let base) = resolution else { return resolution }
        return .upstream(place(base, wish))
    }

    /// Finds or makes the upstream of a Service port of UDP.
    mutating func resolveDatagrams(_ name: ServicePortName) -> Resolution {
        let resolution: Resolution
        if let known = datagrams[name] {
            resolution = known
        } else {
            resolution = make(name, "UDP", isInRule: true)
            datagrams[name] = resolution
        }
        guard case .upstream(let base) = resolution else { return resolution }
        return .upstream(place(base, nil))
    }

    /// A Service port is balanced in one way, however it is spoken to.
    mutating func setBalance(_ balance: Upstream.Balance, of upstream: Int) {
        guard case .upstream(let base)? = resolved[Self.port(of: upstreams[upstream])] else { return }
        bases[base].upstream.balance = balance
        if let plain = bases[base].plain { upstreams[plain].balance = balance }
        for index in bases[base].variants.values { upstreams[index].balance = balance }
    }

    /// Whether the port itself says what it speaks, be it plain HTTP; a name is only a hint.
    func saysProtocol(of name: ServicePortName) -> Bool {
        let ports = objects.services[name.service]?.spec.ports.filter { $0.protocol == "TCP" } ?? []
        return Self.find(name, among: ports)?.port.appProtocol?.isEmpty == false
    }

    /// The port that a number or a name means. ingress-nginx takes the target port too, and people rely on it without
    /// knowing.
    fileprivate static func find(
        _ name: ServicePortName, among ports: [ServicePort]
    ) -> (port: ServicePort, isByTarget: Bool)? {
        let number = Int(name.port)
        if let port = ports.first(where: { number == nil ? $0.name == name.port : $0.port == number }) {
            return (port, false)
        }
        return ports.first { $0.targetPort?.description == name.port }.map { ($0, true) }
    }

    static func port(of upstream: Upstream) -> ServicePortName {
        ServicePortName(
            service: ObjectName(namespace: upstream.namespace, name: upstream.service), port: upstream.port)
    }

    /// The place of a Service port among the upstreams, spoken to as is wished.
    private mutating func place(_ base: Int, _ wish: Wish?) -> Int {
        if let wish {
            let own = bases[base].upstream
            let spoken = wish.protocol ?? own.protocol
            var tls = spoken.isSecure ? wish.tls : nil
            if tls?.isNameGiven == false { tls?.name = bases[base].serverName }
            var varied = own.varied(spoken, tls, wish.proxyHeader)
            // A connection is one client's, and those of HTTP/2 are everybody's.
            if varied.isUnspeakable { varied.endpoints = [] }
            if !varied.variant.isEmpty {
                if let known = bases[base].variants[varied.variant] { return known }
                upstreams.append(varied)
                bases[base].variants[varied.variant] = upstreams.count - 1
                return upstreams.count - 1
            }
        }
        if let plain = bases[base].plain { return plain }
        upstreams.append(bases[base].upstream)
        bases[base].plain = upstreams.count - 1
        return upstreams.count - 1
    }

    /// - Returns: `.upstream` with an index into `bases`.
    private mutating func make(_ name: ServicePortName, _ transport: String, isInRule: Bool) -> Resolution {
        guard let service = objects.services[name.service] else { return .noService }
        let slices = slices(of: name.service)
        let draft: ServiceDraft
        // Ports of datagrams are few: these are made anew.
        let isKept = transport == "TCP"
        if isKept, let known = drafts[name], known.stands(service, slices, isInRule: isInRule) {
            draft = known
        } else {
            var work = ServiceWork(
                transport: transport, slices: slices, allowsLoopbackNames: allowsLoopbackNames, zone: zone,
                isInRule: isInRule,
                places: places)
            let outcome = work.outcome(of: service, name)
            draft = ServiceDraft(
                service: service, slices: slices, isInRule: isInRule, outcome: outcome, diagnostics: work.diagnostics)
            // Where objects have places in files, these are said anew.
            if isKept, objects.origins.isEmpty || work.diagnostics.isEmpty { drafts[name] = draft }
        }
        for diagnostic in draft.diagnostics where said.insert(diagnostic).inserted { diagnostics.append(diagnostic) }
        switch draft.outcome {
        case .noPort(let known): return .noPort(known: known)
        case .made(let upstream, let serverName):
            bases.append(Base(upstream: upstream, serverName: serverName))
            return .upstream(bases.count - 1)
        }
    }

    private func slices(of service: ObjectName) -> [EndpointSlice] {
        guard let names = objects.slicesOfService[service] else { return [] }
        if names.count == 1, let name = names.first { return objects.endpointSlices[name].map { [$0] } ?? [] }
        return names.sorted().compactMap { objects.endpointSlices[$0] }
    }
}

/// What a Service port comes to: a matter of its Service and that one's slices alone.
final class ServiceDraft: Sendable {
    enum Outcome: Sendable {
        case noPort(known: [String])
        case made(Upstream, serverName: String)
    }

    private let service: Service
    private let slices: [EndpointSlice]
    private let isInRule: Bool
    let outcome: Outcome
    let diagnostics: [Diagnostic]

    init(service: Service, slices: [EndpointSlice], isInRule: Bool, outcome: Outcome, diagnostics: [Diagnostic]) {
        self.service = service
        self.slices = slices
        self.isInRule = isInRule
        self.outcome = outcome
        self.diagnostics = diagnostics
    }

    /// The same would come of these.
    func stands(_ service: Service, _ slices: [EndpointSlice], isInRule: Bool) -> Bool {
        self.isInRule == isInRule && self.service.spec == service.spec
            && self.service.metadata.annotations == service.metadata.annotations && self.slices.count == slices.count
            && self.slices.indices.allSatisfy {
                self.slices[$0].metadata.name == slices[$0].metadata.name
                    && self.slices[$0].endpoints == slices[$0].endpoints && self.slices[$0].ports == slices[$0].ports
                    && self.slices[$0].addressType == slices[$0].addressType
            }
    }
}

/// Makes a draft.
private struct ServiceWork {
    let transport: String
    let slices: [EndpointSlice]
    let allowsLoopbackNames: Bool
    let zone: String?
    let isInRule: Bool
    let places: Places
    var diagnostics: [Diagnostic] = []

    mutating func outcome(of service: Service, _ name: ServicePortName) -> ServiceDraft.Outcome {
        let ports = service.spec.ports.filter { $0.protocol == transport }
        let found = ServiceResolver.find(name, among: ports)
        let port = found?.port
        if let found, found.isByTarget {
            diagnostics.append(
                TranslationCode.targetPort.diagnostic(
                    "\(quoted(name.port)) is the target port, not a port of the Service", at: place(service),
                    mend: "write port \(found.port.port) in the Ingress"))
        }
        var upstream = Upstream(namespace: name.service.namespace, service: name.service.name, port: name.port)
        upstream.allowedNamespaces = Grant.namespaces(service.metadata)
        if transport == "UDP" {
            upstream = upstream.forDatagrams()
        } else {
            upstream.protocol = BackendProtocol.spoken(by: port)
        }
        var serverName = "\(name.service.name).\(name.service.namespace).svc"
        if service.spec.type == "ExternalName" {
            // The API demands no ports of an ExternalName: a number in the Ingress is enough.
            guard let number = port?.port ?? Int(name.port) else { return .noPort(known: names(service.spec.ports)) }
            upstream.endpoints = externalEndpoints(service, port: number)
            switch upstream.endpoints.first?.host {
            case .ip(let ip)?: serverName = "\(ip)"
            case .name(let name)?: serverName = name.hasSuffix(".") ? String(name.dropLast()) : name
            case nil: break
            }
        } else {
            guard let port else { return .noPort(known: names(service.spec.ports)) }
            upstream.endpoints = sliceEndpoints(service, port)
        }
        return .made(upstream, serverName: serverName)
    }

    private func place(_ service: Service) -> Place { places.place(Service.kind, service.metadata.objectName) }

    /// What could have been meant; of another protocol, with that one's name.
    private func names(_ ports: [ServicePort]) -> [String] {
        ports.map { port in
            let facts = [port.name, port.protocol == transport ? "" : port.protocol].filter { !$0.isEmpty }
            return facts.isEmpty ? String(port.port) : "\(port.port) (\(facts.joined(separator: ", ")))"
        }
    }

    // MARK: Slices

    private mutating func sliceEndpoints(_ service: Service, _ port: ServicePort) -> [Endpoint] {
        var ready = Collector()
        var draining = Collector()
        var problems: [String] = []
        // A slice beside others may be for other ports of the Service alone.
        let isKnown = slices.contains { Self.match($0, port) != nil }
        for slice in slices {
            guard let number = isKnown ? Self.matchedNumber(slice, port) : Self.likelyNumber(slice, port) else {
                if !isKnown { problems.append("slice \(slice.metadata.name) has no port for it") }
                continue
            }
            guard let portNumber = UInt16(exactly: number), portNumber > 0 else {
                problems.append("\(number) of slice \(slice.metadata.name) is no port")
                continue
            }
            for endpoint in slice.endpoints {
                // The addresses of one endpoint are interchangeable by contract: the first stands for all.
                guard let address = endpoint.addresses.first else { continue }
                let conditions = endpoint.conditions
                guard conditions.isReady || conditions.isServing && conditions.isTerminating else { continue }
                guard let host = host(address, type: slice.addressType) else {
                    problems.append("\(quoted(address)) is no \(slice.addressType) address")
                    continue
                }
                let made = Endpoint(
                    host: host, port: portNumber, zone: endpoint.zone, isTerminating: conditions.isTerminating)
                let hints = endpoint.hints?.forZones.map(\.name) ?? []
                if conditions.isReady { ready.add(made, hints) } else { draining.add(made, hints) }
            }
        }
        // Endpoints that are on their way out still serve where there are no others (as kube-proxy does).
        let endpoints = (ready.endpoints.isEmpty ? draining : ready).endpoints(in: zone)
        if isInRule {
            for problem in problems.prefix(3) {
                diagnostics.append(
                    TranslationCode.badEndpoint.diagnostic(
                        "of port \(port.port), \(problem)", at: place(service),
                        mend: "correct the EndpointSlice; the rest of the endpoints serve"))
            }
            if endpoints.isEmpty {
                diagnostics.append(
                    TranslationCode.noEndpoints.diagnostic(
                        "port \(port.port) has no ready endpoint", at: place(service),
                        mend: (port.protocol == "UDP" ? "it is not open until" : "its paths answer 503 until")
                            + " an EndpointSlice with the label "
                            + "\(EndpointSlice.serviceLabel): \(service.metadata.name) has one"))
            }
        }
        return endpoints
    }

    /// The same address in two slices is one endpoint.
    private struct Collector {
        struct Key: Hashable {
            var host: Endpoint.Host
            var port: UInt16
        }
        private(set) var endpoints: [Endpoint] = []
        private var hints: [[String]] = []
        private var seen: Set<Key> = []

        mutating func add(_ endpoint: Endpoint, _ zones: [String]) {
            // A few are compared sooner than hashed.
            if endpoints.count < 8 {
                if endpoints.contains(where: { $0.host == endpoint.host && $0.port == endpoint.port }) { return }
            } else {
                if seen.isEmpty { seen = Set(endpoints.map { Key(host: $0.host, port: $0.port) }) }
                guard seen.insert(Key(host: endpoint.host, port: endpoint.port)).inserted else { return }
            }
            endpoints.append(endpoint)
            hints.append(zones)
        }

        /// Those meant for a zone (topology-aware routing), by kube-proxy's rule: only where every endpoint says for
        /// which zones it is, and one at least is for this one; else all.
        func endpoints(in zone: String?) -> [Endpoint] {
            guard let zone, !hints.contains(where: \.isEmpty) else { return endpoints }
            let near = endpoints.indices.filter { hints[$0].contains(zone) }.map { endpoints[$0] }
            return near.isEmpty ? endpoints : near
        }
    }

    /// Ports of a slice belong to those of the Service by name and protocol.
    private static func match(_ slice: EndpointSlice, _ port: ServicePort) -> SlicePort? {
        slice.ports.first { $0.name == port.name && $0.protocol == port.protocol }
    }

    private static func matchedNumber(_ slice: EndpointSlice, _ port: ServicePort) -> Int? {
        // A slice port without a number stands for all ports.
        match(slice, port).flatMap { $0.port ?? targetNumber(port) }
    }

    /// Where no slice of the Service has the port, as hand-written ones may: what ingress-nginx makes of it.
    private static func likelyNumber(_ slice: EndpointSlice, _ port: ServicePort) -> Int? {
        if slice.ports.isEmpty { return targetNumber(port) }
        let spoken = slice.ports.filter { $0.protocol == port.protocol }
        guard !spoken.isEmpty else { return nil }
        if port.name.isEmpty, spoken.count == 1, let only = spoken[0].port { return only }
        return targetNumber(port, orItself: false)
    }

    private static func targetNumber(_ port: ServicePort, orItself: Bool = true) -> Int? {
        switch port.targetPort {
        case .int(let number): number
        case .string: nil
        case nil: orItself ? port.port : nil
        }
    }

    private func host(_ address: String, type: String) -> Endpoint.Host? {
        if type == "FQDN" { return (try? HostSyntax.name(address[...])).map { .name($0) } }
        guard let ip = IPAddress(address), ip.isV4 == (type != "IPv6") else { return nil }
        return .ip(ip)
    }

    // MARK: ExternalName

    private mutating func externalEndpoints(_ service: Service, port: Int) -> [Endpoint] {
        let text = service.spec.externalName ?? ""
        func refuse(_ problem: String, _ mend: String) {
            guard isInRule else { return }
            var place = place(service)
            place.field = "spec.externalName"
            diagnostics.append(TranslationCode.badExternalName.diagnostic(problem, at: place, mend: mend))
        }
        guard let number = UInt16(exactly: port), number > 0 else {
            refuse("\(port) is no port", "write a port from 1 to 65535; its paths answer 503 until then")
            return []
        }
        if let ip = IPAddress(text) {
            guard allowsLoopbackNames || !ip.isThisHost else {
                refuse(
                    "\(quoted(text)) is the proxy itself", "name a host outside; its paths answer 503 until then")
                return []
            }
            return [Endpoint(host: .ip(ip), port: number)]
        }
        guard let name = try? HostSyntax.name(text[...]) else {
            refuse("\(quoted(text)) is no DNS name", "write a DNS name; its paths answer 503 until then")
            return []
        }
        guard allowsLoopbackNames || !(name == "localhost" || name.hasSuffix(".localhost")) else {
            refuse("\(quoted(text)) is the proxy itself", "name a host outside; its paths answer 503 until then")
            return []
        }
        // A dot at the end says that the name is complete: no search domain is tried.
        return [Endpoint(host: .name(text.hasSuffix(".") ? name + "." : name), port: number)]
    }
}
