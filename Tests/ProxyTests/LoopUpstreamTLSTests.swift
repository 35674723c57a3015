import Model
import Reactor
import TLSEngine
import Telemetry
import Testing

@testable import Proxy

/// TLS to upstreams: what is sent when, what counts as a failure, and which connections are used again.
@Suite struct LoopUpstreamTLSTests {
    private static func request(_ path: String) -> String { "GET \(path) HTTP/1.1\r\nHost: shop.test\r\n\r\n" }

    private func metrics(_ scene: Scene) -> String {
        scene.loop.telemetry.metrics.publish()
        return scene.hub.render()
    }

    @Test func aConnectionIsKeptAndTicketsDoNotEndIt() throws {
        let scene = try Scene(server: TestTLS.server(), security: TestTLS.security())
        let client = scene.client()
        for _ in 0..<3 {
            try scene.send(client, Self.request("/len/900/3"))
            #expect(try scene.responses(client).map(\.status) == [200])
        }
        #expect(scene.openedUpstreams.count == 1)
        #expect(scene.peers[scene.openedUpstreams[0]]?.session.serverName == "web.test")
        #expect(scene.peers[scene.openedUpstreams[0]]?.session.applicationProtocol == "http/1.1")
        #expect(metrics(scene).contains("moongate_upstream_tls_handshakes_full_total 1\n"))
        scene.checkQuiet()
    }

    @Test func theNextConnectionResumesTheSessionOfTheLast() throws {
        let scene = try Scene(server: TestTLS.server(), security: TestTLS.security())
        let client = scene.client()
        for _ in 0..<2 {
            try scene.send(client, Self.request("/bye/10/3"))
            #expect(try scene.responses(client).map(\.status) == [200])
        }
        let sessions = scene.openedUpstreams.compactMap { scene.peers[$0]?.session }
        #expect(sessions.map(\.wasResumed) == [false, true])
        #expect(metrics(scene).contains("moongate_upstream_tls_handshakes_resumed_total 1\n"))
        scene.checkQuiet()
    }

    /// What an endpoint has proved by an authority is worth nothing when that has ended.
    @Test func nothingIsResumedPastTheEndOfAnAuthority() throws {
        let security = try TestTLS.security()
        let scene = try Scene(server: TestTLS.server(), security: security)
        let end = security.holds(from: 0)
        #expect(end < .max && security.holds(from: end) == .max)
        for second in [end - 2, end - 1, end, end + 1] {
            scene.now = UInt64(second) * 1_000_000_000
            let client = scene.client()
            try scene.send(client, Self.request("/bye/10/3"))
            #expect(try scene.responses(client).map(\.status) == [200])
        }
        let sessions = scene.openedUpstreams.compactMap { scene.peers[$0]?.session }
        #expect(sessions.map(\.wasResumed) == [false, true, false, true])
        scene.checkQuiet()
    }

    @Test func otherSettingsResumeNothingAndLeaveIdleConnectionsAlone() throws {
        let scene = try Scene(server: TestTLS.server(), security: TestTLS.security())
        let client = scene.client()
        try scene.send(client, Self.request("/len/10/3"))
        #expect(try scene.responses(client).map(\.status) == [200])
        scene.publish([8001], generation: 2, security: try TestTLS.security())
        try scene.send(client, Self.request("/len/10/3"))
        #expect(try scene.responses(client).map(\.status) == [200])
        let sessions = scene.openedUpstreams.compactMap { scene.peers[$0]?.session }
        #expect(sessions.map(\.wasResumed) == [false, false])
        #expect(scene.network.isClosed(scene.openedUpstreams[0]))
        #expect(scene.peers[scene.openedUpstreams[0]]?.hasEnded == true)
        // And back to plain text.
        scene.server = nil
        scene.publish([8001], generation: 3)
        try scene.send(client, Self.request("/len/10/3"))
        #expect(try scene.responses(client).map(\.status) == [200])
        #expect(scene.openedUpstreams.count == 3)
        #expect(scene.loop.resumptions.isEmpty)
        scene.checkQuiet()
    }

    @Test func aCertificateForOthersIsRefusedBeforeTheRequestIsSent() throws {
        let scene = try Scene(
            endpoints: [8001, 8002], server: TestTLS.server(), security: TestTLS.security(name: "a.test"))
        let client = scene.client()
        try scene.send(client, Self.request("/len/10/3"))
        #expect(try scene.responses(client).map(\.status) == [502])
        // Both endpoints were asked: it counts as a connection that failed.
        #expect(scene.openedUpstreams.count == 2)
        #expect(scene.requests.isEmpty)
        let text = metrics(scene)
        #expect(text.contains("moongate_failures_total{reason=\"upstream-tls-name\"} 1\n"))
        #expect(text.contains("moongate_upstream_tls_handshake_failures_total{reason=\"wrong-name\"} 2\n"))
        scene.checkQuiet()
    }

    @Test(arguments: [false, true])
    func aBodyWithoutALengthMustEndWithAGoodbye(isCut: Bool) throws {
        let scene = try Scene(server: TestTLS.server(), security: TestTLS.security())
        scene.cutsOff = isCut
        let client = scene.client()
        try scene.send(client, Self.request("/close/5000/3"))
        let bytes = scene.network.take(client, .max)
        #expect(bytes.suffix(5).elementsEqual("0\r\n\r\n".utf8) == !isCut)
        #expect(metrics(scene).contains("moongate_failures_total{reason=\"upstream-closed\"} \(isCut ? 1 : 0)\n"))
    }

    @Test func aHandshakeHasTheTimeOfAConnect() throws {
        let scene = try Scene(server: TestTLS.server(), security: TestTLS.security()) {
            $0.timeouts.connect = 700
            $0.retry.attempts = 0
        }
        scene.answersRequests = false
        let client = scene.client()
        try scene.send(client, Self.request("/len/10/3"))
        scene.advance(milliseconds: 600)
        #expect(scene.network.available(client) == 0)
        scene.advance(milliseconds: 200)
        #expect(try scene.responses(client).map(\.status) == [504])
        let text = metrics(scene)
        #expect(text.contains("moongate_failures_total{reason=\"upstream-tls-timeout\"} 1\n"))
        #expect(text.contains("moongate_upstream_tls_handshake_failures_total{reason=\"timeout\"} 1\n"))
        scene.checkQuiet()
    }

    @Test func withoutSettingsThatCanBeUsedNothingIsSent() throws {
        let scene = try Scene(server: TestTLS.server())
        let client = scene.client()
        try scene.send(client, Self.request("/len/10/3"))
        #expect(try scene.responses(client).map(\.status) == [503])
        #expect(scene.openedUpstreams.isEmpty)
        #expect(metrics(scene).contains("moongate_failures_total{reason=\"upstream-tls-setup\"} 1\n"))
        scene.checkQuiet()
    }

    @Test func aServerThatDoesNotSpeakHTTP2IsNotSpokenToWhereItIsWanted() throws {
        let scene = try Scene(
            server: TestTLS.server { $0.protocols = [] }, security: TestTLS.security(needsHTTP2: true))
        let client = scene.client()
        try scene.send(client, Self.request("/len/10/3"))
        #expect(try scene.responses(client).map(\.status) == [502])
        #expect(scene.requests.isEmpty)
        #expect(metrics(scene).contains("moongate_upstream_tls_handshake_failures_total{reason=\"alpn\"}"))
        scene.checkQuiet()
    }

    @Test func whoeverGoesDuringTheHandshakeLeavesNothing() throws {
        let scene = try Scene(server: TestTLS.server(), security: TestTLS.security())
        scene.answersRequests = false
        let client = scene.client()
        try scene.send(client, Self.request("/len/10/3"))
        #expect(scene.openedUpstreams.count == 1)
        scene.network.reset(client)
        try scene.settle()
        #expect(scene.loop.upstreamConnections.count == 0)
        scene.checkQuiet()
    }
}
