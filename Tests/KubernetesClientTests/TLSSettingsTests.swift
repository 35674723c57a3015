import Admission
import ClusterTesting
import Foundation
import KubernetesClient
import Logging
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
            let settings = TLSSettings(access: access, clock: clock, log: quiet)
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

    /// A key that never comes shows when its old certificate ends, unless it is said before.
    @Test func whatDoesNotComeIsSaidOnce() async throws {
        try await inFolder { folder in
            let (clock, access, lines) = (ManualClock(), access(folder), Watched([String]()))
            let (old, new) = (try pair(), try pair())
            try folder.write("tls.crt", old.certificate)
            try folder.write("tls.key", old.key)
            let settings = TLSSettings(
                access: access, clock: clock, log: Logger(label: "test") { _ in LineHandler(lines: lines) })
            func pass(_ seconds: Int) async throws {
                for _ in 0..<(seconds / 10) {
                    clock.advance(by: .seconds(10))
                    _ = try await settings.current(certificate: access.clientCertificate, key: access.clientKey)
                }
            }
            try await pass(70)
            try folder.write("tls.crt", new.certificate)
            try await pass(60)
            #expect(lines.value.isEmpty)
            try await pass(300)
            #expect(lines.value.count == 1)
            try folder.write("tls.key", new.key)
            try await pass(70)
            #expect(lines.value.count == 2)
            #expect(lines.value.last?.hasSuffix("is renewed") == true)
            // A moment is nothing to speak of.
            try folder.remove("tls.key")
            try await pass(100)
            try folder.write("tls.key", new.key)
            try await pass(70)
            #expect(lines.value.count == 2)
        }
    }

    @Test func aPairThatDoesNotFitIsSaid() async throws {
        try await inFolder { folder in
            let access = access(folder)
            try folder.write("tls.crt", try pair().certificate)
            try folder.write("tls.key", try pair().key)
            let settings = TLSSettings(access: access, clock: ManualClock(), log: quiet)
            let error = await #expect(throws: AccessError.self) {
                try await settings.current(certificate: access.clientCertificate, key: access.clientKey)
            }
            #expect(error?.problem.contains("do not fit") == true)
        }
    }
}
