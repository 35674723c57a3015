// A loop on a simulated network, with upstreams that answer and a clock that the test turns.
import Compression
import HTTPWire
import Middlewares
import Model
import Reactor
import Routing
import TLSEngine
import Telemetry
import Testing

@testable import Proxy

final class Scene {
    let network = SimulatedNetwork()
    let hub = MetricsHub(version: "test")
    let loop: Loop<SimulatedNetwork>
    var now: UInt64 = 1_000_000_000_000
    var upstreams: [Int32: TestUpstream] = [:]
    /// In the order in which they were opened.
    var openedUpstreams: [Int32] = []
    private var seenOpened = 0
    var answersRequests = true
    /// What upstreams speak TLS with; nil where they do not.
    var server: TLSContext?
    var peers: [Int32: TestTLSPeer] = [:]
    /// Upstreams that end do so without a goodbye.
    var cutsOff = false

    init(
        endpoints: [UInt16] = [8001], policy: RoutePolicy = RoutePolicy(), clients: ClientConnections? = nil,
        speaking: UpstreamProtocol = .http, server: TLSContext? = nil, security: UpstreamSecurity? = nil,
        services: [TCPService] = [], passthrough: [PassthroughHost] = [], datagrams: [UDPService] = [],
        sessionClients: ClientConnections? = nil, proxyHeader: ProxyProtocolVersion? = nil,
        certificates: CertificateTable? = nil, authentication: ClientAuthentication? = nil,
        configure: (inout ProxyConfiguration) -> Void = { _ in }
    ) {
        var configuration = ProxyConfiguration(listen: [], loops: 1)
        configure(&configuration)
        self.server = server
        var snapshot = Self.snapshot(endpoints, policy, server != nil && speaking == .http ? .https : speaking)
        snapshot.tcpServices = services
        snapshot.passthrough = passthrough
        snapshot.udpServices = datagrams
        snapshot.upstreams[0].proxyHeader = proxyHeader
        snapshot.hosts[0].clientAuthentication = authentication
        let publication = Publication(
            table: RouteTable(snapshot, generation: 1), sets: [], configuration: configuration,
            certificates: certificates, clientRules: ClientRules.make(snapshot).rules,
            securities: Self.table(security))
        loop = Loop(
            transport: network, number: 0, configuration: configuration, publication: publication,
            telemetry: LoopTelemetry(metrics: hub.makeLoop {}, log: nil), clients: clients,
            sessionClients: sessionClients, nanoseconds: now, seed: 7)
        loop.beginPass(nanoseconds: now, wallSeconds: 784_111_777)
    }

    static func table(_ security: UpstreamSecurity?) -> UpstreamSecurityTable? {
        security.map { UpstreamSecurityTable(["shop/web:80": $0]) }
    }

    static func snapshot(
        _ ports: [UInt16], _ policy: RoutePolicy = RoutePolicy(), _ speaking: UpstreamProtocol = .http
    ) -> Snapshot {
        var snapshot = Snapshot()
        snapshot.upstreams = [
            Upstream(
                namespace: "shop", service: "web", port: "80",
                endpoints: ports.map {
                    Endpoint(Model.SocketAddress(ip: IPAddress(v4: 0x0a00_0001), port: $0))
                }, protocol: speaking)
        ]
        snapshot.routes = [
            Route(
                path: .prefix("/"), ingress: ObjectReference(kind: "Ingress", namespace: "shop", name: "web"),
                rule: "rules[0].http.paths[0]", host: .exact("shop.test"), upstream: 0, policy: policy)
        ]
        snapshot.hosts = [VirtualHost(pattern: .exact("shop.test"), routes: [0])]
        return snapshot
    }

    func publish(
        _ ports: [UInt16], generation: UInt64, speaking: UpstreamProtocol = .http, security: UpstreamSecurity? = nil
    ) {
        let speaking = security != nil && speaking == .http ? .https : speaking
        loop.adopt(
            Publication(
                table: RouteTable(Self.snapshot(ports, RoutePolicy(), speaking), generation: generation), sets: [],
                configuration: loop.configuration, securities: Self.table(security),
                previous: loop.current.publication))
        loop.finishPass()
    }

    func connect(from peer: UInt32 = 0xc0a8_0001, kind: ListenerKind = .http, port: UInt16 = 8080) -> Int32 {
        let client = network.makeClient()
        loop.accepted(
            Socket(descriptor: client),
            peer: Model.SocketAddress(ip: IPAddress(v4: peer), port: UInt16(truncatingIfNeeded: client)),
            localPort: port, kind: kind)
        loop.finishPass()
        return client
    }

    func advance(milliseconds: UInt64) {
        // In steps, as a loop would: the wheel turns at each.
        var left = milliseconds
        while left > 0 {
            let step = min(left, 40)
            left -= step
            now += step * 1_000_000
            loop.beginPass(nanoseconds: now, wallSeconds: Int64(now / 1_000_000_000))
            loop.tick()
            dispatch()
        }
    }

    /// Hands the pending edges to the loop.
    func dispatch() {
        loop.beginPass(nanoseconds: now, wallSeconds: Int64(now / 1_000_000_000))
        for event in network.takePending() { loop.handle(event) }
        loop.finishPass()
        while loop.hasReady { loop.finishPass() }
        while seenOpened < network.opened.count {
            openedUpstreams.append(network.opened[seenOpened].descriptor)
            upstreams[network.opened[seenOpened].descriptor] = TestUpstream()
            seenOpened += 1
        }
    }

    /// Lets everything happen until nothing moves: whole pieces, no cuts.
    func settle() throws {
        for _ in 0..<100_000 {
            dispatch()
            var moved = false
            for descriptor in openedUpstreams where !network.isClosed(descriptor) || network.available(descriptor) > 0 {
                if network.isConnecting(descriptor) {
                    network.settle(descriptor)
                    moved = true
                }
                if network.travelling(descriptor) > 0 {
                    network.deliver(descriptor, .max)
                    moved = true
                }
                if answersRequests, network.available(descriptor) > 0 || network.hasEnded(descriptor) {
                    if try serve(descriptor, .max) { moved = true }
                }
            }
            for descriptor in clients where network.travelling(descriptor) > 0 {
                network.deliver(descriptor, .max)
                moved = true
            }
            if !moved, network.pending.isEmpty { return }
        }
        Issue.record("the scene never came to rest")
    }

    var clients: [Int32] = []

    /// The upstream behind `descriptor` reads up to `n` bytes and answers. True if something moved.
    @discardableResult
    func serve(_ descriptor: Int32, _ n: Int) throws -> Bool {
        guard let upstream = upstreams[descriptor] else { return false }
        var bytes = network.take(descriptor, n)
        if bytes.isEmpty { return false }
        if let server {
            guard let peer = peers[descriptor] ?? TestTLSPeer(server) else { return false }
            peers[descriptor] = peer
            bytes = peer.take(bytes)
            network.send(descriptor, peer.output())
            if peer.hasFailed {
                network.end(descriptor)
                return true
            }
            let answer = bytes.isEmpty ? [] : try upstream.take(bytes)
            network.send(descriptor, peer.seal(answer))
            if upstream.hasReset { network.reset(descriptor) }
            if upstream.wantsClose {
                if !cutsOff { network.send(descriptor, peer.goodbye()) }
                network.end(descriptor)
            }
            return true
        }
        let answer = try upstream.take(bytes)
        network.send(descriptor, answer)
        if upstream.hasReset { network.reset(descriptor) }
        if upstream.wantsClose { network.end(descriptor) }
        return true
    }

    func client(from peer: UInt32 = 0xc0a8_0001, kind: ListenerKind = .http, port: UInt16 = 8080) -> Int32 {
        let client = connect(from: peer, kind: kind, port: port)
        clients.append(client)
        return client
    }

    func send(_ client: Int32, _ text: String) throws {
        network.send(client, Array(text.utf8))
        try settle()
    }

    /// Everything that has come back to the client, as messages.
    func responses(_ client: Int32, toHead: Bool = false) throws -> [TestMessage] {
        var bytes = network.take(client, .max)
        try settle()
        while network.available(client) > 0 {
            bytes += network.take(client, .max)
            try settle()
        }
        var result: [TestMessage] = []
        while !bytes.isEmpty {
            guard
                let (message, count) = try TestParse.message(
                    bytes, isResponse: true, toHead: toHead, atEnd: network.hasEnded(client))
            else {
                Issue.record("half a response: \(String(decoding: bytes, as: UTF8.self).prefix(300))")
                return result
            }
            result.append(message)
            bytes.removeFirst(count)
        }
        return result
    }

    var requests: [TestMessage] { openedUpstreams.flatMap { upstreams[$0]?.requests ?? [] } }

    /// What must be true when nothing is in flight: nothing is held, nothing was used after its end.
    func checkQuiet(_ location: SourceLocation = #_sourceLocation) {
        #expect(loop.buffers.lent == 0, sourceLocation: location)
        #expect(loop.encoders.lent == 0, sourceLocation: location)
        #expect(loop.spareFlights.count == loop.flights.count, sourceLocation: location)
        #expect(network.closedTwice == 0, sourceLocation: location)
        #expect(network.usedAfterClose == 0, sourceLocation: location)
        #expect(loop.current.flights == 0, sourceLocation: location)
        #expect(
            loop.downstreams.count + loop.upstreamConnections.count + loop.arrivals.count == network.openCount,
            sourceLocation: location)
    }
}
