import HTTPWire
import Model
import Reactor
import Testing

@testable import Proxy

/// PROXY protocol headers that go out: first on each connection, which is then its client's alone.
@Suite struct LoopProxyHeaderTests {
    private func bytes(_ scene: Scene, _ upstream: Int32) -> [UInt8] { scene.network.take(upstream, .max) }

    private func header(_ version: ProxyProtocolVersion, _ source: String, to destination: String) throws -> [UInt8] {
        var output: [UInt8] = []
        let ends = ProxyHeader.Ends(
            source: try #require(SocketAddress(source)), destination: try #require(SocketAddress(destination)))
        ProxyHeader(ends: ends).write(version, to: &output)
        return output
    }

    private static let request = "GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n"
    private static let response = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    @Test(arguments: ProxyProtocolVersion.allCases)
    func eachRequestHasAConnectionOfItsOwn(version: ProxyProtocolVersion) throws {
        let scene = Scene(proxyHeader: version)
        scene.answersRequests = false
        let client = scene.client()
        for round in 0..<3 {
            try scene.send(client, Self.request)
            #expect(scene.openedUpstreams.count == round + 1)
            let upstream = scene.openedUpstreams[round]
            let sent = bytes(scene, upstream)
            let wanted = try header(version, "192.168.0.1:\(client)", to: "10.0.0.254:8080")
            #expect(Array(sent.prefix(wanted.count)) == wanted)
            #expect(String(decoding: sent.dropFirst(wanted.count), as: UTF8.self).hasPrefix("GET /a HTTP/1.1\r\n"))
            scene.network.send(upstream, Self.response.utf8)
            try scene.settle()
            #expect(try scene.responses(client).map(\.status) == [200])
            #expect(scene.network.isClosed(upstream))
        }
        scene.checkQuiet()
    }

    @Test func clientOfATrustedProxyIsNamedWithoutAPort() throws {
        let block = try #require(AddressBlock("192.168.0.0/16"))
        let scene = Scene(proxyHeader: .v1) { $0.trustedProxies = [block] }
        scene.answersRequests = false
        let client = scene.client()
        try scene.send(
            client, "GET /a HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-For: 2001:db8::7\r\n\r\n")
        let sent = String(decoding: bytes(scene, scene.openedUpstreams[0]), as: UTF8.self)
        #expect(sent.hasPrefix("PROXY TCP6 2001:db8::7 ::ffff:10.0.0.254 0 8080\r\nGET /a"))
        #expect(sent.lowercased().contains("x-real-ip: 2001:db8::7\r\n"))
    }

    @Test func endpointThatRefusesIsSkippedAndTheNextIsToldToo() throws {
        let scene = Scene(endpoints: [8001, 8002, 8003], proxyHeader: .v1)
        scene.answersRequests = false
        scene.network.refusing = [8001, 8002]
        let client = scene.client()
        try scene.send(client, Self.request)
        let sent = scene.openedUpstreams.map { String(decoding: bytes(scene, $0), as: UTF8.self) }
        #expect(sent.filter { $0.hasPrefix("PROXY TCP4 192.168.0.1 10.0.0.254 \(client) 8080\r\nGET /a") }.count == 1)
        #expect(sent.filter(\.isEmpty).count == sent.count - 1)
    }

    @Test func itComesBeforeTLS() throws {
        let scene = try Scene(server: TestTLS.server(), security: TestTLS.security(), proxyHeader: .v2)
        scene.answersRequests = false
        let client = scene.client()
        try scene.send(client, Self.request)
        let upstream = scene.openedUpstreams[0]
        let sent = bytes(scene, upstream)
        let wanted = try header(.v2, "192.168.0.1:\(client)", to: "10.0.0.254:8080")
        #expect(Array(sent.prefix(wanted.count)) == wanted)
        // A handshake record follows, and a ClientHello in it.
        #expect(Array(sent.dropFirst(wanted.count).prefix(2)) == [22, 3])
        #expect(sent.dropFirst(wanted.count + 5).first == 1)
    }

    @Test func tunnelGoesThroughBehindIt() throws {
        let scene = Scene(proxyHeader: .v2)
        scene.answersRequests = false
        let client = scene.client()
        try scene.send(
            client, "GET /up HTTP/1.1\r\nHost: shop.test\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n")
        let upstream = scene.openedUpstreams[0]
        _ = bytes(scene, upstream)
        scene.network.send(
            upstream, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n".utf8)
        try scene.settle()
        _ = scene.network.take(client, .max)
        try scene.send(client, "through")
        #expect(String(decoding: bytes(scene, upstream), as: UTF8.self) == "through")
    }
}
