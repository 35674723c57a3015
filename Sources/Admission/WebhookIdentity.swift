// The certificate that the webhook shows, and that the API server believes: given in files, or made by us, kept in a
// Secret that all replicas share, and made known by the CA bundle of the webhook configuration.

internal import Foundation
package import KubernetesAPI
package import KubernetesClient
package import Logging
package import NIOSSL
internal import Synchronization

package final class WebhookIdentity: Sendable {
    package enum Source: Sendable, Equatable {
        /// PEM files, read again as they change; the operator makes their authority known.
        case files(certificate: String, key: String)
        /// - Parameters:
        ///   - names: by which the API server calls the Service.
        ///   - configuration: the ValidatingWebhookConfiguration to patch.
        case managed(secret: ObjectName, names: [String], configuration: String)
    }

    private struct State {
        var context: NIOSSLContext?
        var certificate: [UInt8] = []
        var key: [UInt8] = []
        var authority: [UInt8] = []
    }

    private let source: Source
    /// A file with the authority of clients; nil believes everyone.
    private let clientAuthority: String?
    private let client: APIClient
    private let clock: any ControlClock
    private let log: Logger
    private let state = Mutex(State())

    private static let filesReread = Duration.seconds(60)
    /// Somebody may apply the configuration anew, without our authority, or delete the Secret: until that is mended, no
    /// Ingress can be written.
    private static let managedReread = Duration.seconds(30)

    package init(source: Source, clientAuthority: String?, client: APIClient, clock: any ControlClock, log: Logger) {
        self.source = source
        self.clientAuthority = clientAuthority
        self.client = client
        self.clock = clock
        self.log = log
    }

    /// What the next connection is greeted with; nil before there is a certificate.
    package var context: NIOSSLContext? { state.withLock { $0.context } }

    /// Gets a certificate and keeps it good, until the task is cancelled.
    package func keep() async {
        var backoff = Backoff(first: .seconds(1), limit: .seconds(60))
        while !Task.isCancelled {
            var delay: Duration
            do {
                switch source {
                case .files(let certificate, let key):
                    try take(certificate: try read(certificate), key: try read(key))
                    delay = Self.filesReread
                case .managed(let secret, let names, let configuration):
                    try await manage(secret, names, configuration)
                    delay = Self.managedReread
                }
                backoff.reset()
            } catch {
                log.error("The webhook's certificate is not as it should be", metadata: ["error": "\(error)"])
                delay = backoff.delay(atLeast: (error as? APIError)?.retryAfter, random: clock.random())
            }
            do { try await clock.sleep(for: delay) } catch { return }
        }
    }

    private func read(_ path: String) throws -> [UInt8] {
        guard let data = try? Data(contentsOf: URL(filePath: path)) else {
            throw AdmissionProblem("\(path) can't be read")
        }
        return Array(data)
    }

    /// From here on this is shown, if it is another than before.
    private func take(certificate: [UInt8], key: [UInt8]) throws {
        let authority = try clientAuthority.map(read) ?? []
        let isKnown = state.withLock { state in
            state.context != nil && state.certificate == certificate && state.key == key
                && state.authority == authority
        }
        if isKnown { return }
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: try NIOSSLCertificate.fromPEMBytes(certificate).map { .certificate($0) },
            privateKey: .privateKey(try NIOSSLPrivateKey(bytes: key, format: .pem)))
        configuration.minimumTLSVersion = .tlsv12
        configuration.applicationProtocols = ["http/1.1"]
        if !authority.isEmpty {
            configuration.trustRoots = .certificates(try NIOSSLCertificate.fromPEMBytes(authority))
            // A client's certificate has no host name to check.
            configuration.certificateVerification = .noHostnameVerification
        }
        let context = try NIOSSLContext(configuration: configuration)
        state.withLock { state in
            state.context = context
            state.certificate = certificate
            state.key = key
            state.authority = authority
        }
        log.info("The webhook shows a new certificate")
    }

    // MARK: Our own

    private static let certificateKey = "tls.crt"
    private static let keyKey = "tls.key"
    private static let authorityKey = "ca.crt"

    private func manage(_ name: ObjectName, _ names: [String], _ configuration: String) async throws {
        let held = try await secret(name, names)
        guard let certificate = held.bytes(Self.certificateKey), let key = held.bytes(Self.keyKey) else {
            throw AdmissionProblem("the Secret \(name) has no certificate")
        }
        // The API server is told first: it believes the old one as well.
        try await publish(held.bytes(Self.authorityKey) ?? certificate, in: configuration)
        try take(certificate: certificate, key: key)
    }

    /// The Secret with a good certificate; where several replicas make one, the first that is written counts.
    private func secret(_ name: ObjectName, _ names: [String]) async throws -> Secret {
        let now = Date(timeIntervalSince1970: TimeInterval(clock.wallTime().seconds))
        while true {
            do {
                var secret: Secret
                do throws(APIError) {
                    secret = try await client.get(Secret.self, namespace: name.namespace, name: name.name)
                } catch {
                    guard error.code == .notFound else { throw error }
                    let metadata = ObjectMeta(name: name.name, namespace: name.namespace)
                    secret = Secret(metadata: metadata, type: "kubernetes.io/tls")
                    try fill(&secret, names, now, before: nil)
                    return try await client.create(secret)
                }
                let held = Self.certificate(in: secret)
                if let held, !held.mustBeReplaced(now: now, names: names) { return secret }
                try fill(&secret, names, now, before: held.flatMap { $0.expiry > now ? $0 : nil })
                log.notice("The webhook's certificate is renewed", metadata: ["secret": "\(name)"])
                return try await client.replace(secret)
            } catch let error as APIError where error.code == .conflict || error.code == .alreadyExists {
                // Another replica was faster: what it wrote is as good.
                continue
            }
        }
    }

    private static func certificate(in secret: Secret) -> WebhookCertificate? {
        guard let certificate = secret.bytes(certificateKey), let key = secret.bytes(keyKey) else { return nil }
        return WebhookCertificate(
            certificate: String(decoding: certificate, as: UTF8.self), key: String(decoding: key, as: UTF8.self))
    }

    /// The authorities are the new certificate and the one before: replicas change over one after the other.
    private func fill(_ secret: inout Secret, _ names: [String], _ now: Date, before: WebhookCertificate?) throws {
        let made = try WebhookCertificate.make(names: names, now: now)
        secret.data[Self.certificateKey] = Base64(Array(made.certificate.utf8))
        secret.data[Self.keyKey] = Base64(Array(made.key.utf8))
        let authorities = [made.certificate, before?.certificate].compactMap(\.self)
        secret.data[Self.authorityKey] = Base64(Array(authorities.joined(separator: "\n").utf8))
    }

    /// Only the CA bundles: everything else of the configuration is the operator's.
    private func publish(_ authority: [UInt8], in name: String) async throws {
        let bundle = Base64(authority)
        let configuration = try await client.get(ValidatingWebhookConfiguration.self, namespace: nil, name: name)
        var operations: [JSONPatchOperation] = []
        for (index, webhook) in (configuration.webhooks ?? []).enumerated()
        where webhook.clientConfig.service != nil && webhook.clientConfig.caBundle != bundle {
            // The list may have changed since it was read; then another index is meant, and the test refuses.
            operations.append(
                JSONPatchOperation(op: "test", path: "/webhooks/\(index)/name", value: webhook.name))
            operations.append(
                JSONPatchOperation(op: "add", path: "/webhooks/\(index)/clientConfig/caBundle", value: bundle.text))
        }
        guard !operations.isEmpty else { return }
        try await client.patch(
            ValidatingWebhookConfiguration.self, namespace: nil, name: name, operations: operations)
        log.notice("The webhook's authority is made known", metadata: ["configuration": "\(name)"])
    }
}
