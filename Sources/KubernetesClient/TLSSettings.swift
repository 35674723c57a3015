// Whom we believe to be the API server, and the certificate that we show it. Files are read again as they rotate.

import FoundationEssentials
package import NIOSSL

package actor TLSSettings {
    private let access: ClusterAccess
    private let clock: any ControlClock
    private static let rereadAfter = Duration.seconds(60)

    private var held: (configuration: TLSConfiguration, authority: [UInt8]?, certificate: [UInt8]?, readAt: Duration)?

    package init(access: ClusterAccess, clock: any ControlClock) {
        self.access = access
        self.clock = clock
    }

    /// Nil for a server without TLS. The same value is given out as long as the files say the same, because connections
    /// are pooled by it.
    package func current(
        certificate: PEMSource?, key: PEMSource?
    ) throws(AccessError) -> TLSConfiguration? {
        guard access.server.hasPrefix("https://") else { return nil }
        let isFresh = held.map { clock.now() - $0.readAt < Self.rereadAfter } ?? false
        if let held, isFresh, certificate == access.clientCertificate { return held.configuration }
        let authority = try read(access.certificateAuthority, "the certificate authority")
        let chain = try read(certificate, "the client certificate")
        if let held, held.authority == authority, held.certificate == chain {
            self.held?.readAt = clock.now()
            return held.configuration
        }
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.minimumTLSVersion = .tlsv12
        do {
            if access.skipsVerification {
                configuration.certificateVerification = .none
            } else if let authority {
                configuration.trustRoots = .certificates(try NIOSSLCertificate.fromPEMBytes(authority))
            }
        } catch {
            throw AccessError("the certificate authority is not PEM", mend: "give the CA's certificates as PEM text")
        }
        if let chain, let keyBytes = try read(key, "the client key") {
            do {
                configuration.certificateChain = try NIOSSLCertificate.fromPEMBytes(chain).map { .certificate($0) }
                configuration.privateKey = .privateKey(try NIOSSLPrivateKey(bytes: keyBytes, format: .pem))
            } catch {
                throw AccessError(
                    "the client certificate or its key is not PEM", mend: "give both as PEM text, the key unencrypted")
            }
        }
        held = (configuration, authority, chain, clock.now())
        return configuration
    }

    private func read(_ source: PEMSource?, _ what: String) throws(AccessError) -> [UInt8]? {
        switch source {
        case nil: return nil
        case .inline(let bytes): return bytes
        case .file(let path):
            guard let data = try? Data(contentsOf: URL(filePath: path)) else {
                throw AccessError("\(what) can't be read from \(path)", mend: "see that the file is there and readable")
            }
            return Array(data)
        }
    }
}
