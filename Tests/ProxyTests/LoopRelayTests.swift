import HTTPWire
import Model
import Reactor
import Telemetry
import Testing

@testable import Proxy

/// Connections whose bytes are passed as they are, over a simulated network.
@Suite struct LoopRelayTests {
    private static let balancer: UInt32 = 0x0a01_0001

    private func scene(
        _ endpoints: [UInt16] = [8001], configure: (inout ProxyConfiguration) -> Void = { _ in }
    ) throws -> Scene {
        let block = try #require(AddressBlock("10.1.0.0/16"))
        let ingress = ObjectReference(kind: "Ingress", namespace: "shop", name: "db")
        let scene = Scene(
            endpoints: endpoints,
            services: [
                TCPService(port: 5432, upstream: 0),
                TCPService(port: 5433, upstream: 0, acceptsProxyProtocol: true, sendsProxyProtocol: .v1),
                TCPService(port: 5434, upstream: 0, sendsProxyProtocol: .v2),
            ],
            passthrough: [
                PassthroughHost(pattern: .exact("db.shop.test"), upstream: 0, ingress: ingress),
                PassthroughHost(pattern: .wildcard("raw.test"), upstream: 0, ingress: ingress),
            ]
        ) { configuration in
            configuration.trustedProxies = [block]
            configure(&configuration)
        }
        scene.answersRequests = false
        return scene
    }

    /// A host with rules of its own is not its wildcard's (as for routes: the exact one goes first).
    @Test func aWildcardDoesNotTakeWhatIsExact() {
        var snapshot = Snapshot()
        snapshot.hosts = ["own.raw.test", "raw.test"].map { VirtualHost(pattern: .exact($0), routes: []) }
        snapshot.passthrough = [
            PassthroughHost(
                pattern: .wildcard("raw.test"), upstream: 0,
                ingress: ObjectReference(kind: "Ingress", namespace: "shop", name: "db"))
        ]
        let table = RelayTable(snapshot)
        let taken = ["any.raw.test", "own.raw.test", "raw.test", "a.any.raw.test"].map {
            table.target(host: Array($0.utf8)) != nil
        }
        #expect(taken == [true, false, false, false])
    }

    private func text(_ scene: Scene, _ descriptor: Int32) -> String {
        String(decoding: scene.network.take(descriptor, .max), as: UTF8.self)
    }

    private func figures(_ scene: Scene) -> [String] {
        scene.loop.telemetry.metrics.publish()
        return scene.hub.render(process: nil).split(separator: "\n")
            .filter { $0.hasPrefix("moongate_tcp_") && !$0.hasSuffix(" 0") }.map(String.init)
    }

    @Test func bytesPassBothWaysUntilBothSidesHaveEnded() throws {
        let scene = try scene()
        let client = scene.client(kind: .stream, port: 5432)
        try scene.settle()
        let upstream = try #require(scene.openedUpstreams.first)
        // The server speaks first.
        scene.network.send(upstream, "hello".utf8)
        try scene.settle()
        #expect(text(scene, client) == "hello")
        try scene.send(client, "GET / HTTP/1.1\r\n\r\n\0\u{1}")
        #expect(text(scene, upstream) == "GET / HTTP/1.1\r\n\r\n\0\u{1}")
        scene.network.end(client)
        try scene.settle()
        #expect(scene.network.hasEnded(upstream))
        scene.network.send(upstream, "bye".utf8)
        try scene.settle()
        #expect(text(scene, client) == "bye")
        #expect(!scene.network.isClosed(client))
        scene.network.end(upstream)
        try scene.settle()
        #expect(scene.network.isClosed(client) && scene.network.isClosed(upstream))
        #expect(!scene.network.wasAborted(client))
        scene.checkQuiet()
    }

    @Test func whatTheClientSaysFirstWaitsForTheConnection() throws {
        let scene = try scene()
        let client = scene.client(kind: .stream, port: 5432)
        scene.network.send(client, "early".utf8)
        scene.network.end(client)
        try scene.settle()
        let upstream = try #require(scene.openedUpstreams.first)
        #expect(text(scene, upstream) == "early")
        #expect(scene.network.hasEnded(upstream))
    }

    @Test func endpointsThatRefuseAreSkipped() throws {
        let scene = try scene([8001, 8002])
        scene.network.refusing = [8001]
        for _ in 0..<2 {
            let client = scene.client(kind: .stream, port: 5432)
            try scene.send(client, "x")
        }
        #expect(scene.openedUpstreams.filter { text(scene, $0) == "x" }.count == 2)
        // None is left: the connection ends, and is counted.
        scene.network.refusing = [8001, 8002]
        let client = scene.client(kind: .stream, port: 5432)
        try scene.settle()
        #expect(scene.network.isClosed(client))
        #expect(
            figures(scene) == [
                "moongate_tcp_connections_total{service=\"\"} 1", "moongate_tcp_failures_total{service=\"\"} 1",
            ])
    }

    @Test func connectionOfAPoolIsNotTaken() throws {
        let scene = try scene()
        scene.answersRequests = true
        let http = scene.client()
        try scene.send(http, "GET /len/5/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        #expect(try scene.responses(http).map(\.status) == [200])
        scene.answersRequests = false
        _ = scene.client(kind: .stream, port: 5432)
        try scene.settle()
        #expect(scene.openedUpstreams.count == 2)
    }

    @Test func slowReaderHoldsItsWriterBack() throws {
        let scene = try scene()
        scene.network.outboundCapacity = 1_000
        let client = scene.client(kind: .stream, port: 5432)
        try scene.settle()
        let upstream = try #require(scene.openedUpstreams.first)
        scene.network.send(upstream, [UInt8](repeating: 7, count: 100_000))
        try scene.settle()
        // What is held is bounded: the rest waits at the other end.
        #expect(scene.loop.buffers.lent <= 2)
        var count = 0
        while true {
            let n = scene.network.take(client, 1_000).count
            if n == 0 { break }
            count += n
            try scene.settle()
        }
        #expect(count == 100_000)
    }

    @Test func standstillEndsIt() throws {
        let scene = try scene { $0.timeouts.relayIdle = 10_000 }
        let client = scene.client(kind: .stream, port: 5432)
        try scene.send(client, "x")
        scene.advance(milliseconds: 9_000)
        try scene.send(client, "y")
        scene.advance(milliseconds: 9_000)
        #expect(!scene.network.isClosed(client))
        scene.advance(milliseconds: 1_100)
        #expect(scene.network.isClosed(client))
        scene.checkQuiet()
    }

    @Test func headersArePassedOn() throws {
        let scene = try scene()
        let client = scene.client(from: Self.balancer, kind: .stream, port: 5433)
        try scene.send(client, "PROXY TCP4 203.0.113.7 198.51.100.1 5555 443\r\nfirst")
        let upstream = try #require(scene.openedUpstreams.first)
        #expect(text(scene, upstream) == "PROXY TCP4 203.0.113.7 198.51.100.1 5555 443\r\nfirst")
        // A stranger comes without one, and is named all the same.
        let stranger = scene.client(kind: .stream, port: 5433)
        try scene.send(stranger, "second")
        #expect(
            text(scene, scene.openedUpstreams[1])
                == "PROXY TCP4 192.168.0.1 10.0.0.254 \(UInt16(stranger)) 5433\r\nsecond")
    }

    /// Whom a balancer does not name is not made the balancer, and its own checks are not made a client's.
    @Test(arguments: ["PROXY UNKNOWN\r\n", "\r\n\r\n\0\r\nQUIT\n\u{20}\0\0\0", "\r\n\r\n\0\r\nQUIT\n\u{21}\0\0\0"])
    func whatNamesNobodyNamesNobody(header: String) throws {
        let scene = try scene()
        let client = scene.client(from: Self.balancer, kind: .stream, port: 5433)
        try scene.send(client, header + "first")
        let upstream = try #require(scene.openedUpstreams.first)
        #expect(text(scene, upstream) == "PROXY UNKNOWN\r\nfirst")
    }

    @Test func binaryHeaderGoesFirstWhoeverSpeaksFirst() throws {
        let scene = try scene()
        let client = scene.client(kind: .stream, port: 5434)
        try scene.settle()
        let upstream = try #require(scene.openedUpstreams.first)
        let sent = scene.network.take(upstream, .max)
        #expect(sent.count == 28)
        #expect(
            ProxyHeader.parse(sent.span)
                == .complete(
                    ProxyHeader(
                        ends: .init(
                            source: .init(ip: IPAddress(v4: 0xc0a8_0001), port: UInt16(client)),
                            destination: .init(ip: IPAddress(v4: 0x0a00_00fe), port: 5434))), consumed: 28))
        try scene.send(client, "hi")
        #expect(text(scene, upstream) == "hi")
    }

    @Test func portThatLeadsNowhereIsClosed() throws {
        let scene = try scene()
        let client = scene.client(kind: .stream, port: 9)
        try scene.settle()
        #expect(scene.network.isClosed(client))
        #expect(scene.openedUpstreams.isEmpty)
        scene.checkQuiet()
    }

    @Test(arguments: [("db.shop.test", true), ("a.raw.test", true), ("raw.test", false), ("b.a.raw.test", false)])
    func hostIsFoundByItsName(host: String, isPassed: Bool) throws {
        let scene = try scene()
        let client = scene.client(kind: .https, port: 8443)
        let hello = ClientHelloMaker.records(host)
        // Byte by byte; nothing is said to the endpoint before it is clear that it is meant.
        for byte in hello {
            #expect(scene.openedUpstreams.isEmpty)
            scene.network.send(client, [byte])
            try scene.settle()
        }
        #expect(scene.openedUpstreams.count == (isPassed ? 1 : 0))
        if let upstream = scene.openedUpstreams.first {
            #expect(scene.network.take(upstream, .max) == hello)
            scene.network.send(upstream, [22, 3, 3])
            try scene.settle()
            #expect(scene.network.take(client, .max) == [22, 3, 3])
        } else {
            // There is no certificate in this scene.
            #expect(scene.network.isClosed(client))
        }
    }

    /// Its endpoints are told of the client as those of requests are: first of all, before the ClientHello.
    @Test(arguments: ["db.shop.test", "db.shop.test."])
    func hostWithPassthroughIsToldOfTheClient(name: String) throws {
        let ingress = ObjectReference(kind: "Ingress", namespace: "shop", name: "db")
        let scene = Scene(
            passthrough: [PassthroughHost(pattern: .exact("db.shop.test"), upstream: 0, ingress: ingress)],
            proxyHeader: .v1)
        scene.answersRequests = false
        let client = scene.client(kind: .https, port: 8443)
        let hello = ClientHelloMaker.records(name)
        scene.network.send(client, hello)
        try scene.settle()
        let upstream = try #require(scene.openedUpstreams.first)
        #expect(
            scene.network.take(upstream, .max)
                == Array("PROXY TCP4 192.168.0.1 10.0.0.254 \(UInt16(client)) 8443\r\n".utf8) + hello)
    }

    @Test func helloIsNotWaitedForLongerThanAHandshake() throws {
        let scene = try scene()
        let client = scene.client(kind: .https, port: 8443)
        scene.network.send(client, ClientHelloMaker.records("db.shop.test").dropLast())
        try scene.settle()
        scene.advance(milliseconds: 10_200)
        #expect(scene.network.isClosed(client))
        #expect(scene.openedUpstreams.isEmpty)
        scene.checkQuiet()
    }
}

/// A ClientHello as small as can be.
enum ClientHelloMaker {
    static func records(_ host: String) -> [UInt8] {
        func long(_ body: [UInt8]) -> [UInt8] { [UInt8(body.count >> 8), UInt8(body.count & 255)] + body }
        let name = long(long([0] + long(Array(host.utf8))))
        var body: [UInt8] = [3, 3] + [UInt8](repeating: 7, count: 32) + [0]
        body += long([0x13, 1]) + [1, 0] + long([0, 0] + name)
        return [22, 3, 1] + long([1, 0] + long(body))
    }
}
