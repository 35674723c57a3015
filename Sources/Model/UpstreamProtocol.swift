// What an upstream speaks, and how TLS to it is made: decided by the translation, carried out by the data plane.

/// The protocol of an upstream's endpoints.
package enum UpstreamProtocol: String, Sendable, Hashable, CaseIterable {
    /// HTTP/1.1.
    case http
    /// HTTP/1.1 over TLS.
    case https
    /// HTTP/2 without TLS, by prior knowledge (RFC 9113 §3.3).
    case h2c
    /// HTTP/2 over TLS, agreed upon by ALPN (RFC 9113 §3.2).
    case h2

    package var isSecure: Bool {
        switch self {
        case .https, .h2: true
        case .http, .h2c: false
        }
    }

    package var isHTTP2: Bool {
        switch self {
        case .h2c, .h2: true
        case .http, .https: false
        }
    }
}

/// What is asked of TLS to an upstream (`proxy-ssl-*`). The value without anything set verifies nothing and names
/// nothing, as users of Ingress expect. Prints without what the Secret holds.
package struct UpstreamTLS: Sendable, Hashable, CustomStringConvertible {
    /// The Secret that the certificates below come from.
    package var secret: ObjectReference?
    /// The client certificate, if the Secret has one.
    package var pair: TLSKeyPair?
    /// Who may have signed the endpoints' certificates, PEM; empty takes the authorities of the system.
    package var authorities: [UInt8] = []
    /// PEM; empty revokes nothing.
    package var revocations: [UInt8] = []
    /// The endpoint's certificate must lead to an authority and be for `name`.
    package var verifies = false
    /// Most certificates between the endpoint's and the authority's (SSL_CTX_set_verify_depth(3)).
    package var verifyDepth = 1
    /// A DNS name in lower case, or an IP address: what the certificate must be for, and what SNI names.
    package var name = ""
    /// `name` was asked for, and is no default.
    package var isNameGiven = false
    /// Names the endpoint by SNI (RFC 6066 §3); an address never is.
    package var sendsName = false
    /// OpenSSL's cipher list for TLS 1.2; nil takes the default of this program.
    package var ciphers: String?
    package var allowsTLS12 = true
    package var allowsTLS13 = true
    /// Where the Secret is named, or else the first of the annotations, for diagnostics.
    package var place = Place()

    package init() {}

    /// What tells these settings from others, without the contents of the Secret: a part of the upstream's name.
    package var label: String {
        var parts: [String] = []
        if let secret { parts.append("secret=\(secret.namespace)/\(secret.name)") }
        if verifies {
            parts.append("verify")
            if verifyDepth != 1 { parts.append("depth=\(verifyDepth)") }
        }
        if isNameGiven { parts.append("name=\(name)") }
        if sendsName { parts.append("sni") }
        if let ciphers { parts.append("ciphers=\(ciphers)") }
        if !allowsTLS13 { parts.append("tls1.2") }
        if !allowsTLS12 { parts.append("tls1.3") }
        return parts.joined(separator: ",")
    }

    package var description: String { "UpstreamTLS(\(label))" }
}
