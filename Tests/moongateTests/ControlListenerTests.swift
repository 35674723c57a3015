import Foundation
import Model
import NIOCore
import Testing

@testable import moongate

struct ControlListenerTests {
    @Test func `a port that is taken is told with its setting`() async throws {
        let wanted = try #require(SocketAddress("127.0.0.1:9901"))
        let error = await #expect(throws: SettingsError.self) {
            try await ControlListener.open(wanted, key: "admin") { _ in
                throw IOError(errnoCode: EADDRINUSE, reason: "bind(descriptor:ptr:bytes:)")
            }
        }
        #expect(error?.problem == "cannot listen on 127.0.0.1:9901: Address already in use")
        #expect(error?.description.contains("--admin") == true)
    }

    @Test(arguments: [
        ("[::]:9901", EAFNOSUPPORT, "0.0.0.0:9901"), ("[::1]:9901", EAFNOSUPPORT, nil), ("[::]:9901", EADDRINUSE, nil),
        ("0.0.0.0:9901", EAFNOSUPPORT, nil),
    ])
    func `where there is no IPv6, IPv4 stands in for all addresses`(text: String, code: Int32, bound: String?)
        async throws
    {
        let wanted = try #require(SocketAddress(text))
        let got = try? await ControlListener.open(wanted, key: "admin") { address in
            if address == wanted { throw IOError(errnoCode: code, reason: "socket") }
            return address
        }
        #expect(got?.description == bound)
    }
}
