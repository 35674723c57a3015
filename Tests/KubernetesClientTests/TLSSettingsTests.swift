import Admission
import ClusterTesting
import Foundation
import KubernetesClient
import NIOSSL
import Testing

@Suite struct TLSSettingsTests {
    private func pair() throws -> WebhookCertificate {
        try WebhookCertificate.make(names: ["client"], now: Date(timeIntervalSince1970: 1_800_000_000))
    }

    private func access(_ folder: TestFolder) -> ClusterAccess {
        ClusterAccess(
            server: "https://x", clientCertificate: .file(folder.path("tls.crt")),
            clientKey: .file(folder.path("tls.key")))
    }

    private func key(_ pair: WebhookCertificate) throws -> NIOSSLPrivateKeySource {
        .privateKey(try NIOSSLPrivateKey(bytes: Array(pair.key.utf8), format: .pem))
    }

    /// Certificate and key are two files, and one of them is written first.
    @Test func aRenewedPairIsTakenWhenItIsWhole() async throws {
        try await inFolder { folder in
            let (clock, access) = (ManualClock(), access(folder))
            let (old, new) = (try pair(), try pair())
            let (oldKey, newKey) = (try key(old), try key(new))
            try folder.write("tls.crt", old.certificate)
            try folder.write("tls.key", old.key)
            let settings = TLSSettings(access: access, clock: clock)
            func current() async throws -> NIOSSLPrivateKeySource? {
                clock.advance(by: .seconds(61))
                return try await settings.current(certificate: access.clientCertificate, key: access.clientKey)?
                    .privateKey
            }
            #expect(try await current() == oldKey)
            try folder.write("tls.crt", new.certificate)
            #expect(try await current() == oldKey)
            try folder.remove("tls.key")
            #expect(try await current() == oldKey)
            try folder.write("tls.key", new.key)
            #expect(try await current() == newKey)
        }
    }

    @Test func aPairThatDoesNotFitIsSaid() async throws {
        try await inFolder { folder in
            let access = access(folder)
            try folder.write("tls.crt", try pair().certificate)
            try folder.write("tls.key", try pair().key)
            let settings = TLSSettings(access: access, clock: ManualClock())
            let error = await #expect(throws: AccessError.self) {
                try await settings.current(certificate: access.clientCertificate, key: access.clientKey)
            }
            #expect(error?.problem.contains("do not fit") == true)
        }
    }
}
