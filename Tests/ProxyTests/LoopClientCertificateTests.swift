import Model
import TLSEngine
import Telemetry
import Testing

@testable import Proxy

@Suite struct LoopClientCertificateTests {
    /// An ACME server asks by plain HTTP, when there is no certificate yet: it is let through to a host that is closed.
    @Test(arguments: [true, false])
    func challengesPass(isBroken: Bool) throws {
        var authentication = ClientAuthentication(
            ingress: ObjectReference(kind: "Ingress", namespace: "shop", name: "web"))
        authentication.subjectPattern = "CN=alice"
        if !isBroken { authentication.verification = ClientVerification(authorities: [1]) }
        let scene = Scene(authentication: authentication)
        let client = scene.client()
        for (path, isLetThrough) in [
            ("/len/3/1", false), ("/.well-known/acme-challenge/a", true), ("/.well-known/acme-challenge", false),
            ("/.well-known/acme-challenges/a", false), ("/.well-known/acme-challenge/", false),
            // One token of base64url (RFC 8555 §8.3), and nothing below it.
            ("/.well-known/acme-challenge/a/b", false), ("/.well-known/acme-challenge/a/", false),
            ("/.well-known/acme-challenge/a.b", false), ("/.well-known/acme-challenge/a%20b", false),
            ("/.well-known/acme-challenge/aZ-_9?x", true),
        ] {
            try scene.send(
                client, "GET \(path) HTTP/1.1\r\nHost: shop.test\r\nssl-client-verify: SUCCESS\r\n\r\n")
            // The upstream here knows no such path.
            #expect(try scene.responses(client).map(\.status) == [isLetThrough ? 500 : 403], "\(path)")
        }
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            try scene.send(
                client,
                "\(method) /.well-known/acme-challenge/a HTTP/1.1\r\nHost: shop.test\r\ncontent-length: 0\r\n\r\n")
            #expect(try scene.responses(client).map(\.status) == [403], "\(method)")
        }
        #expect(scene.requests.count == 2)
        #expect(scene.requests.first?.value("ssl-client-verify") == nil)
        scene.checkQuiet()
    }

    /// The paths of an Ingress that may not decide for its host are nobody's way to a certificate.
    @Test func deniedPathsStayDenied() throws {
        var policy = RoutePolicy()
        policy.isDenied = true
        let scene = Scene(policy: policy)
        let client = scene.client()
        try scene.send(client, "GET /.well-known/acme-challenge/a HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        #expect(try scene.responses(client).map(\.status) == [403])
        #expect(scene.requests.isEmpty)
        scene.checkQuiet()
    }

    /// On a connection that is open, too, an authority is believed until it ends, and no longer.
    @Test func whatWasFoundEndsWithTheAuthority() throws {
        let pair = try TLSKeyPair.selfSigned(name: "alice", days: 30)
        let other = try TLSKeyPair.selfSigned(name: "other", days: 10)
        let clients = ClientVerification(authorities: pair.chain + other.chain)
        var authentication = ClientAuthentication(
            ingress: ObjectReference(kind: "Ingress", namespace: "shop", name: "web"))
        authentication.verification = clients
        let table = CertificateTable(
            standard: ServedCertificate(
                name: "shop/web", pairs: [try .selfSigned(name: "shop.test")], clients: clients, options: TLSOptions(),
                cache: ContextCache()))
        let trust = try TrustStore(clients)
        let first = trust.holds(from: 0)
        let last = trust.holds(from: first)
        #expect(first < last && last < .max)
        let scene = Scene(certificates: table, authentication: authentication)
        scene.now = UInt64(first - 5) * 1_000_000_000
        let client = scene.client(kind: .https, port: 8443)
        let peer = try #require(
            TestTLSPeer(connecting: TLSContext(connecting: TLSOptions(), pair: pair), to: "shop.test"))
        for _ in 0..<2 {
            scene.network.send(client, peer.output())
            try scene.settle()
            _ = peer.take(scene.network.take(client, .max))
        }
        // The certificate itself is good for the second that the authority has ended with.
        for (second, status) in [(first - 1, "200"), (first, "200"), (last - 1, "200"), (last, "421")] {
            scene.now = UInt64(second) * 1_000_000_000
            scene.network.send(client, peer.seal(Array("GET /len/3/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n".utf8)))
            try scene.settle()
            let text = String(decoding: peer.take(scene.network.take(client, .max)), as: UTF8.self)
            #expect(text.hasPrefix("HTTP/1.1 \(status) "), "\(second - last)")
        }
        #expect(scene.requests.count == 3)
    }
}
