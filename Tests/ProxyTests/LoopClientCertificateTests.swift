import Model
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
}
