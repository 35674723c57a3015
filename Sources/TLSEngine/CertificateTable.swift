// Step 1 of a request's walk on an HTTPS listener: which certificate. A table is made off the loops, shared by all of
// them, and swapped whole; a certificate that did not change keeps its context, and with it every open session.

package import Model
internal import Synchronization

/// The certificates of one name (one of each kind of key: RSA, ECDSA, Ed25519), and the context made of them when a
/// client first asks.
package final class ServedCertificate: Sendable {
    /// The Secrets that it comes from: two certificates with the same name are the same.
    package let name: String
    package let pairs: [TLSKeyPair]
    /// What the host asks of its clients' certificates in the handshake; nil: nothing.
    package let clients: ClientVerification?
    private let trust: TrustStore?
    private let options: TLSOptions
    private let cache: ContextCache
    private let state = Mutex(State())

    private struct State {
        var context: TLSContext?
        /// Somebody asked since the cache last looked.
        var wasUsed = false
    }

    /// - Parameter trust: what is made of `clients`, shared by all who ask for the same; nil makes one for each context.
    package init(
        name: String, pairs: [TLSKeyPair], clients: ClientVerification? = nil, trust: TrustStore? = nil,
        options: TLSOptions, cache: ContextCache
    ) {
        self.name = name
        self.pairs = pairs
        self.clients = clients
        self.trust = trust
        self.options = options
        self.cache = cache
    }

    /// The context, made if it is not there. The pairs have been found good before; nil if OpenSSL says otherwise now
    /// (no memory).
    package func context() -> TLSContext? {
        let held = state.withLock { state in
            state.wasUsed = true
            return state.context
        }
        if let held { return held }
        // Outside of the lock: two loops may both make one, and the first is kept.
        var options = options
        options.clients = clients
        options.trust = trust
        guard let made = try? TLSContext(accepting: pairs, name: name, options) else { return nil }
        let (kept, isNew) = state.withLock { state in
            if let other = state.context { return (other, false) }
            state.context = made
            return (made, true)
        }
        if isNew { cache.add(self) }
        return kept
    }

    var hasContext: Bool { state.withLock { $0.context != nil } }

    /// Lets go of the context unless it was used since the last call; sessions hold on to theirs.
    fileprivate func letGo(always: Bool) -> Bool {
        state.withLock { state in
            if state.wasUsed, !always {
                state.wasUsed = false
                return false
            }
            state.context = nil
            return true
        }
    }
}

/// Bounds the contexts that exist at once: with one certificate for each of ten thousand hosts, most are asked for
/// rarely. The second-chance algorithm: whoever was used since the hand last came by stays.
package final class ContextCache: Sendable {
    private struct Ring {
        var entries: [ServedCertificate] = []
        var hand = 0
        var made: UInt64 = 0
    }

    private let most: Int
    private let ring = Mutex(Ring())

    package init(most: Int = 2048) {
        self.most = max(1, most)
    }

    fileprivate func add(_ certificate: ServedCertificate) {
        ring.withLock { ring in
            ring.made += 1
            if ring.entries.count < most {
                ring.entries.append(certificate)
                return
            }
            for step in 0... {
                let index = ring.hand
                ring.hand = (index + 1) % most
                if ring.entries[index].letGo(always: step >= most) {
                    ring.entries[index] = certificate
                    return
                }
            }
        }
    }

    /// Forgets certificates that are served no more.
    package func retain(_ isServed: (ServedCertificate) -> Bool) {
        ring.withLock { ring in
            ring.entries.removeAll { !isServed($0) }
            ring.hand = 0
        }
    }

    package var count: Int { ring.withLock { $0.entries.count } }
    /// Contexts that were made: where it grows without any change of certificates, more names are asked for in turn than
    /// there is room for.
    package var made: UInt64 { ring.withLock { $0.made } }
}

/// When the certificate of a Secret ends.
package struct CertificateExpiry: Sendable, Hashable {
    package var secret: ObjectReference
    /// Seconds since 1970.
    package var notAfter: Int64
    /// From then on its end is near.
    package var warnsAt: Int64
}

/// Which certificate serves which name.
package final class CertificateTable: Sendable {
    private let exact: [String: ServedCertificate]
    /// By the parent: `shop.test` for `*.shop.test`.
    private let wildcards: [String: ServedCertificate]
    /// For clients that name no host, or one that nobody has a certificate for.
    package let standard: ServedCertificate
    /// What was found to be unusable of what hosts ask of their clients.
    package let unusable: Set<ClientVerification>
    /// The ends of those that serve, one a Secret, the soonest first.
    package let expiries: [CertificateExpiry]
    /// From then on (seconds since 1970) another is to be made: time alone changes what serves, or what is to be said of it.
    package let staleAt: Int64

    package init(
        exact: [String: ServedCertificate] = [:], wildcards: [String: ServedCertificate] = [:],
        standard: ServedCertificate, unusable: Set<ClientVerification> = [], expiries: [CertificateExpiry] = [],
        staleAt: Int64 = .max
    ) {
        self.exact = exact
        self.wildcards = wildcards
        self.standard = standard
        self.unusable = unusable
        self.expiries = expiries
        self.staleAt = staleAt
    }

    /// - Parameter name: lower case, without a trailing dot; empty if the client named none.
    package func certificate(for name: String) -> ServedCertificate {
        if exact.isEmpty, wildcards.isEmpty { return standard }
        if let found = exact[name] { return found }
        // One label stands for the star (RFC 6125 §6.4.3).
        guard !wildcards.isEmpty, let dot = name.firstIndex(of: "."), dot != name.startIndex else { return standard }
        return wildcards[String(name[name.index(after: dot)...])] ?? standard
    }

    package var names: [String] { exact.keys.sorted() + wildcards.keys.sorted().map { "*.\($0)" } }
}

/// The table in force on one loop: sessions that wait for their client's first bytes see a change of it.
package final class CertificateSource: CertificateChooser {
    package var table: CertificateTable

    package init(_ table: CertificateTable) {
        self.table = table
    }

    package func context(for name: String) -> TLSContext? {
        table.certificate(for: name).context() ?? table.standard.context()
    }

    /// A session for a connection that was accepted; nil without memory.
    package func accept() -> TLSSession? {
        guard let standard = table.standard.context() else { return nil }
        return TLSSession(accepting: standard, chooser: self)
    }
}
