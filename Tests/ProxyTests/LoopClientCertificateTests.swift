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
            ("/.well-known/acme-challenges/a", false),
        ] {
            try scene.send(
                client, "GET \(path) HTTP/1.1\r\nHost: shop.test\r\nssl-client-verify: SUCCESS\r\n\r\n")
            // The upstream here knows no such path.
            #expect(try scene.responses(client).map(\.status) == [isLetThrough ? 500 : 403], "\(path)")
        }
        #expect(scene.requests.count == 1)
        #expect(scene.requests.first?.value("ssl-client-verify") == nil)
        scene.checkQuiet()
    }
}
