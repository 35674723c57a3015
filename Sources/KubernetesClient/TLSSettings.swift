// Whom we believe to be the API server, and the certificate that we show it. Files are read again as they rotate.

import FoundationEssentials
package import Logging
package import NIOSSL

package actor TLSSettings {
    private let access: ClusterAccess
    private let clock: any ControlClock
    private let log: Logger
    private static let rereadAfter = Duration.seconds(60)

    /// Files that don't fit each other are in the middle of being replaced.
    private static let rereadSoonAfter = Duration.seconds(5)
    /// What lasts longer is no replacing.
    private static let trouble = Duration.seconds(60)

    /// What the files say.
    private struct Files: Equatable {
        var authority: [UInt8]?
        var certificate: [UInt8]?
        var key: [UInt8]?
    }

    private var held: (configuration: TLSConfiguration, files: Files, rereadAt: Duration)?

    /// Since when the files are not as they should be, while the last good ones do.
    private var troubledSince: Duration?
    private var isTold = false

    package init(access: ClusterAccess, clock: any ControlClock, log: Logger) {
        self.access = access
        self.clock = clock
        self.log = log
    }

    /// Nil for a server without TLS. The same value is given out as long as the files say the same, because connections
    /// are pooled by it. Files that are not there for a moment, or don't fit each other yet, leave the last good ones.
    package func current(
        certificate: PEMSource?, key: PEMSource?
    ) throws(AccessError) -> TLSConfiguration? {
        guard access.server.hasPrefix("https://") else { return nil }
        let now = clock.now()
        if let held, now < held.rereadAt, certificate == access.clientCertificate { return held.configuration }
        do throws(AccessError) {
            let files = Files(
                authority: try read(access.certificateAuthority, "the certificate authority"),
                certificate: try read(certificate, "the client certificate"),
                key: certificate == nil ? nil : try read(key, "the client key"))
            if let held, held.files == files {
                self.held?.rereadAt = now + Self.rereadAfter
                isWell()
                return held.configuration
            }
            let configuration = try configuration(files)
            held = (configuration, files, now + Self.rereadAfter)
            isWell()
            return configuration
        } catch {
            guard let held else { throw error }
            self.held?.rereadAt = now + Self.rereadSoonAfter
            isTroubled(error, now)
            return held.configuration
        }
    }

    private func isTroubled(_ error: AccessError, _ now: Duration) {
        let since = troubledSince ?? now
        troubledSince = since
        guard !isTold, now - since > Self.trouble else { return }
        isTold = true
        log.warning(
            "The certificate for the API server can't be renewed; the last good one is in use",
            metadata: ["error": "\(error.problem)", "mend": "\(error.mend)"])
    }

    private func isWell() {
        if isTold { log.notice("The certificate for the API server is renewed") }
        troubledSince = nil
        isTold = false
    }

    private func configuration(_ files: Files) throws(AccessError) -> TLSConfiguration {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.minimumTLSVersion = .tlsv12
        do {
            if access.skipsVerification {
                configuration.certificateVerification = .none
            } else if let authority = files.authority {
                configuration.trustRoots = .certificates(try NIOSSLCertificate.fromPEMBytes(authority))
            }
        } catch {
            throw AccessError("the certificate authority is not PEM", mend: "give the CA's certificates as PEM text")
        }
        guard let chain = files.certificate, let key = files.key else { return configuration }
        do {
            configuration.certificateChain = try NIOSSLCertificate.fromPEMBytes(chain).map { .certificate($0) }
            configuration.privateKey = .privateKey(try NIOSSLPrivateKey(bytes: key, format: .pem))
        } catch {
            throw AccessError(
                "the client certificate or its key is not PEM", mend: "give both as PEM text, the key unencrypted")
        }
        do {
            _ = try NIOSSLContext(configuration: configuration)
        } catch {
            throw AccessError(
                "the client certificate and its key do not fit each other", mend: "give the key of this certificate")
        }
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
