// Connections whose bytes are passed as they are: TCP services, and hosts whose TLS is the endpoint's own. An exchange that
// begins where an upgrade ends, so that pools, health, retries, back-pressure and deadlines are those of requests.
internal import HTTPWire
internal import Model
internal import Reactor

/// Where a relay leads.
struct RelayTarget {
    /// Among the TCP services and, behind them, the hosts with passthrough and the UDP services.
    let index: Int32
    /// Index into `Snapshot.upstreams`.
    let upstream: Int32
    var acceptsProxyHeader = false
    var sendsProxyHeader: ProxyProtocolVersion?
}

/// Where relays lead by one publication.
struct RelayTable: Sendable {
    private var ports: [UInt16: Int] = [:]
    private let services: [TCPService]
    private var exact: [[UInt8]: Int] = [:]
    private var wildcard: [[UInt8]: Int] = [:]
    /// Hosts with rules of their own below these wildcards, which do not speak for them.
    private var known: Set<[UInt8]> = []
    private let hosts: [PassthroughHost]
    /// By host: what its endpoints are told of the client first, as on connections of requests.
    private var headers: [ProxyProtocolVersion?] = []
    private var sessions: [UInt16: RelayTarget] = [:]

    init(_ snapshot: Snapshot) {
        services = snapshot.tcpServices
        hosts = snapshot.passthrough
        for (index, service) in services.enumerated() { ports[service.port] = index }
        for (index, service) in snapshot.udpServices.enumerated() {
            sessions[service.port] = RelayTarget(
                index: Int32(truncatingIfNeeded: services.count + hosts.count + index),
                upstream: Int32(truncatingIfNeeded: service.upstream))
        }
        for (index, host) in hosts.enumerated() {
            let number = host.upstream
            headers.append(snapshot.upstreams.indices.contains(number) ? snapshot.upstreams[number].proxyHeader : nil)
            switch host.pattern {
            case .exact(let name): exact[Array(name.utf8)] = index
            case .wildcard(let parent): wildcard[Array(parent.utf8)] = index
            case .any: break
            }
        }
        guard !wildcard.isEmpty else { return }
        for host in snapshot.hosts {
            guard case .exact(let text) = host.pattern else { continue }
            let name = Array(text.utf8)
            if let dot = name.firstIndex(of: 0x2e), wildcard[Array(name[(dot + 1)...])] != nil { known.insert(name) }
        }
    }

    /// Some host's TLS is passed through: ClientHellos are to be read.
    var hasHosts: Bool { !hosts.isEmpty }

    func target(port: UInt16) -> RelayTarget? {
        guard let index = ports[port] else { return nil }
        let service = services[index]
        return RelayTarget(
            index: Int32(truncatingIfNeeded: index), upstream: Int32(truncatingIfNeeded: service.upstream),
            acceptsProxyHeader: service.acceptsProxyProtocol, sendsProxyHeader: service.sendsProxyProtocol)
    }

    /// Of datagrams.
    func sessionTarget(port: UInt16) -> RelayTarget? { sessions[port] }
    /// How many UDP services there are.
    var sessionPorts: Int { sessions.count }

    /// By a host in lower case: the exact name, else the wildcard above it, unless the name has rules of its own.
    func target(host: [UInt8]) -> RelayTarget? {
        guard !hosts.isEmpty, let index = index(host) else { return nil }
        return RelayTarget(
            index: Int32(truncatingIfNeeded: services.count + index),
            upstream: Int32(truncatingIfNeeded: hosts[index].upstream), sendsProxyHeader: headers[index])
    }

    private func index(_ host: [UInt8]) -> Int? {
        if let index = exact[host] { return index }
        guard let dot = host.firstIndex(of: 0x2e), dot > 0, !known.contains(host) else { return nil }
        return wildcard[Array(host[(dot + 1)...])]
    }
}

extension Loop {
    /// The connection is the client's end of a tunnel; the other end is to be found.
    func beginRelay(_ d: Downstream, _ target: RelayTarget, _ newcomer: Newcomer) {
        let f = beginFlight(d)
        f.isRelay = true
        f.proxyHeader = target.sendsProxyHeader
        f.introduction = newcomer.introduction
        f.policy = current.publication.relayPolicy
        f.exchange.relay = target.index
        f.exchange.upstream = target.upstream
        f.exchange.localPort = newcomer.localPort
        f.exchange.serverName = newcomer.serverName
        perform(d, .switched)
        perform(f, .tunnelAsked)
    }

    // MARK: Whom a connection is for

    /// The connection to an endpoint stands: the header is the first on it, before TLS. False: it can't be written.
    func introduce(_ u: UpstreamConnection, _ version: ProxyProtocolVersion) -> Bool {
        guard let f = u.flight, let d = f.downstream else { return false }
        let told: ProxyHeader
        if let introduction = f.introduction {
            // Bytes that are passed as they are: so is what the balancer said of them.
            told = introduction
        } else {
            let client = f.isRelay ? d.peer : f.exchange.client.address
            // Ours, with the port that X-Forwarded-Port says.
            let own = transport.localAddress(d.stream?.carrier.socket ?? d.socket).map { Model.SocketAddress($0).ip }
            told = ProxyHeader(
                ends: own.map {
                    ProxyHeader.Ends(source: client, destination: Model.SocketAddress(ip: $0, port: d.localPort))
                })
        }
        var header: [UInt8] = []
        told.write(version, to: &header)
        u.isPrivate = true
        // Nothing else has been written: the kernel has room for it.
        let buffer = buffers.lend(room: header.count)
        defer { buffers.giveBack(buffer) }
        buffer.append(header)
        return transport.write(u.socket, buffer.bytes, RawSpan()) == .bytes(header.count)
    }
}
