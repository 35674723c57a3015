// TLS as the other rooms know it: certificates by their bytes, and what was agreed with a client.

/// A certificate chain, leaf first, and its key, both PEM, as a Secret holds them. Prints without them.
package struct TLSKeyPair: Sendable, Hashable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable
{
    package let chain: [UInt8]
    package let key: [UInt8]
    /// Of both: a pair is looked up for each host that it may serve, and is as long as a Secret may be.
    private let digest: Int

    package init(chain: [UInt8], key: [UInt8]) {
        self.chain = chain
        self.key = key
        var hasher = Hasher()
        hasher.combine(chain)
        hasher.combine(key)
        digest = hasher.finalize()
    }

    package static func == (one: TLSKeyPair, other: TLSKeyPair) -> Bool {
        one.digest == other.digest && one.chain == other.chain && one.key == other.key
    }

    package func hash(into hasher: inout Hasher) { hasher.combine(digest) }

    package var description: String { "TLSKeyPair" }
    package var debugDescription: String { description }
    package var customMirror: Mirror { Mirror(self, children: [:]) }
}

/// Why a TLS session broke, or never came to be. Bounded: `label` stands in metrics.
package enum TLSFailure: UInt8, Sendable, Hashable, CaseIterable {
    case none = 0
    case protocolError
    case version
    case cipher
    case noCertificate
    case badCertificate
    case unknownAuthority
    case expired
    case wrongName
    case alpn
    case notTLS
    case cut
    case alert
    case memory
    case other
    /// The handshake did not end in time. Never a session's own word: whoever keeps the time says it.
    case timeout

    /// kebab-case, stable.
    package var label: String {
        switch self {
        case .none: "-"
        case .protocolError: "protocol-error"
        case .version: "version"
        case .cipher: "cipher"
        case .noCertificate: "no-certificate"
        case .badCertificate: "bad-certificate"
        case .unknownAuthority: "unknown-authority"
        case .expired: "expired"
        case .wrongName: "wrong-name"
        case .alpn: "alpn"
        case .notTLS: "not-tls"
        case .cut: "cut"
        case .alert: "alert"
        case .memory: "memory"
        case .other: "other"
        case .timeout: "timeout"
        }
    }
}

/// What was agreed with the client of one TLS connection: the same for all its requests.
package final class SecureChannel: Sendable {
    /// `TLSv1.3`
    package let version: [UInt8]
    /// OpenSSL's name of the cipher suite.
    package let cipher: [UInt8]
    /// What the client asked for by SNI: lower case, without a trailing dot; empty if it named nothing.
    package let serverName: [UInt8]
    /// The protocol of RFC 7301; empty if none was agreed.
    package let applicationProtocol: [UInt8]
    /// The handshake was short, because the client had been here before.
    package let wasResumed: Bool
    /// What the client has shown of itself, if it was asked: for the host that it asked for by SNI, and no other.
    package let clientCertificate: ClientCertificate?

    package init(
        version: [UInt8], cipher: [UInt8], serverName: [UInt8], applicationProtocol: [UInt8], wasResumed: Bool,
        clientCertificate: ClientCertificate? = nil
    ) {
        self.clientCertificate = clientCertificate
        self.version = version
        self.cipher = cipher
        self.serverName = serverName
        self.applicationProtocol = applicationProtocol
        self.wasResumed = wasResumed
    }

    /// The same connection, its client's certificate judged anew.
    package func with(_ certificate: ClientCertificate) -> SecureChannel {
        SecureChannel(
            version: version, cipher: cipher, serverName: serverName, applicationProtocol: applicationProtocol,
            wasResumed: wasResumed, clientCertificate: certificate)
    }
}
