// Client certificates as the other rooms know them: what a host asks of its clients, and who came.

/// By what a client's certificate is judged in the handshake. Where two hosts have the same, so have their sessions.
/// Prints without the bytes.
package struct ClientVerification: Sendable, Hashable, CustomStringConvertible {
    /// `ca.crt` of the Secret: PEM.
    package var authorities: [UInt8]
    /// `ca.crl` of the Secret: PEM; empty without.
    package var revocations: [UInt8]
    /// Certificates between the client's own and an authority.
    package var depth: Int

    package init(authorities: [UInt8], revocations: [UInt8] = [], depth: Int = 1) {
        self.authorities = authorities
        self.revocations = revocations
        self.depth = depth
    }

    /// By a part of the contents, which may be a MiB, and a hundred hosts may have the same: they are compared in whole.
    package func hash(into hasher: inout Hasher) {
        for part in [authorities, revocations] {
            hasher.combine(part.count)
            // Where the digits of signatures differ, wherever the lists do.
            for index in stride(from: 0, to: part.count, by: max(1, part.count / 64)) { hasher.combine(part[index]) }
            for byte in part.suffix(128) { hasher.combine(byte) }
        }
        hasher.combine(depth)
    }

    package var description: String { "ClientVerification" }
}

/// What a host asks of its clients' certificates (annotations `auth-tls-*`, as in ingress-nginx).
package struct ClientAuthentication: Sendable, Hashable {
    package enum Mode: String, Sendable, Hashable, CaseIterable {
        /// Nobody gets through without a good one.
        case required = "on"
        /// None is fine, a bad one is not.
        case optional
        /// One of an authority that nobody knows is fine, too: the upstream judges it.
        case optionalWithoutAuthority = "optional_no_ca"
        /// Nobody is asked for one.
        case off
    }

    package var mode = Mode.required
    /// Nil: it cannot be told who may come, so that nobody may.
    package var verification: ClientVerification?
    /// Where the authorities are from; nil where the reference itself is none.
    package var secret: ObjectReference?
    /// Where a client without a good certificate is sent, in place of 400: a URL, or a path of the host.
    package var errorPage: String?
    /// The upstream is told the certificate itself.
    package var passesCertificate = false
    /// Searched in the subject; where it does not match: 403.
    package var subjectPattern: String?
    /// Where that is asked for.
    package var patternPlace = Place()
    package var ingress: ObjectReference
    /// Where it is asked for, for diagnostics.
    package var place: Place

    package init(ingress: ObjectReference, place: Place = Place()) {
        self.ingress = ingress
        self.place = place
    }
}

/// The certificate that a client has shown, and what it is worth.
package final class ClientCertificate: Sendable {
    package enum Verdict: UInt8, Sendable, Hashable {
        case good
        /// Nothing is wrong with it but that no authority of ours stands for it.
        case untrusted
        case bad
    }

    /// RFC 2253; printable ASCII, everything else escaped.
    package let subject: [UInt8]
    package let issuer: [UInt8]
    /// Alternative names with their kind before them: `DNS:a.test`, `URI:spiffe://…`, `email:…`, `IP:…`.
    package let names: [[UInt8]]
    /// SHA-256, in hex.
    package let fingerprint: [UInt8]
    package let pem: [UInt8]
    package let verdict: Verdict
    /// What is wrong with it, in OpenSSL's words; empty where nothing is.
    package let problem: [UInt8]
    /// Seconds since 1970.
    package let notAfter: Int64

    package init(
        subject: [UInt8], issuer: [UInt8] = [], names: [[UInt8]] = [], fingerprint: [UInt8] = [], pem: [UInt8] = [],
        verdict: Verdict, problem: [UInt8] = [], notAfter: Int64 = .max
    ) {
        self.subject = subject
        self.issuer = issuer
        self.names = names
        self.fingerprint = fingerprint
        self.pem = pem
        self.verdict = verdict
        self.problem = problem
        self.notAfter = notAfter
    }

    /// The same, judged anew.
    package func judged(_ verdict: Verdict, _ problem: [UInt8]) -> ClientCertificate {
        ClientCertificate(
            subject: subject, issuer: issuer, names: names, fingerprint: fingerprint, pem: pem, verdict: verdict,
            problem: problem, notAfter: notAfter)
    }
}

/// The Secret that session tickets are sealed by (`--ticket-keys-secret`). Prints without the keys.
package struct TicketKeySource: Sendable, Hashable, CustomStringConvertible {
    package var secret: ObjectReference
    /// Nil where the Secret is not there, or has no keys in it.
    package var keys: [UInt8]?
    package var place: Place

    package init(secret: ObjectReference, keys: [UInt8]?, place: Place = Place()) {
        self.secret = secret
        self.keys = keys
        self.place = place
    }

    package var description: String { "\(secret)" }
}
