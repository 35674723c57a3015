// Step 1 of a request's walk on an HTTPS listener: which certificate, which versions, which protocols. A context is
// made off the loops, shared by all of them, and never changed but for its ticket keys.

internal import CTLS
package import Model

/// What went wrong with a certificate, a key or an option, in words for a diagnostic.
package struct TLSError: Error, Sendable, Hashable, CustomStringConvertible {
    package var description: String

    package init(_ description: String) {
        self.description = description
    }
}

package enum TLSVersion: UInt16, Sendable, Hashable, CaseIterable, CustomStringConvertible {
    case tls12 = 0x0303
    case tls13 = 0x0304

    package var description: String {
        switch self {
        case .tls12: "TLSv1.2"
        case .tls13: "TLSv1.3"
        }
    }
}

/// What is asked of a peer's certificate.
package enum PeerVerification: Sendable, Hashable {
    case none
    case optional
    case required
    /// Asked for and judged, but a handshake without a good one succeeds: see `TLSSession.peer`.
    case recorded
}

/// How a context is to be made.
package struct TLSOptions: Sendable {
    package var minimumVersion = TLSVersion.tls12
    /// Nil: the newest that there is.
    package var maximumVersion: TLSVersion?
    /// OpenSSL's cipher list for TLS 1.2; nil takes forward-secret AEAD ciphers only.
    package var ciphers: String?
    /// Suites of TLS 1.3; nil takes AES-128 first, then AES-256 and ChaCha20.
    package var suites: String?
    /// By preference, such as `["h2", "http/1.1"]` (RFC 7301).
    package var protocols: [String] = []
    package var verification = PeerVerification.none
    /// Longest chain above the leaf; 0 takes OpenSSL's.
    package var verificationDepth = 0
    /// PEM.
    package var authorities: [UInt8] = []
    package var revocations: [UInt8] = []
    package var usesSystemAuthorities = false
    /// Accepting: clients are asked for a certificate, which is judged by this and recorded: see
    /// `TLSSession.clientCertificate`. Goes before the five above.
    package var clients: ClientVerification?
    /// What is made of the authorities and revocation lists above, where it is there already.
    package var trust: TrustStore?
    /// Accepting: what tickets are sealed with; nil gives none.
    package var tickets: TicketKeys?
    /// Accepting: a session is resumed only where this is the same as where it began; at most 32 bytes.
    package var identity: [UInt8] = []

    package init() {}

    /// Takes one list of both kinds, separated by colons; nil takes the defaults. Names such as `TLS_AES_128_GCM_SHA256`
    /// are suites of TLS 1.3 (RFC 8446 §B.4), which name no key exchange; all else is for TLS 1.2.
    package mutating func choose(ciphers list: String?) {
        guard let list else { return (ciphers, suites) = (nil, nil) }
        let names = list.split(separator: ":")
        let (new, old) = (names.filter(Self.isSuite), names.filter { !Self.isSuite($0) })
        suites = new.isEmpty ? nil : new.joined(separator: ":")
        ciphers = old.isEmpty && !new.isEmpty ? nil : old.joined(separator: ":")
    }

    private static func isSuite(_ name: Substring) -> Bool { name.hasPrefix("TLS_") && !name.contains("_WITH_") }

    /// The names in such a list that OpenSSL does not know, and would pass over. What is left out (`!RC4`) need not be there,
    /// and commands (`@SECLEVEL=1`) are no names.
    package static func unknownCiphers(in list: String) -> [String] {
        // ciphers(1): all of these separate.
        list.split { ": ,;".contains($0) }.filter { name in
            if let first = name.first, "!-@".contains(first) { return false }
            // Proof: a text with its end, which outlives the call.
            let text = String(name.first == "+" ? name.dropFirst() : name)
            return unsafe !mg_tls_knows_cipher(text, isSuite(name))
        }.map(String.init)
    }
}

extension ClientVerification {
    /// What tells its sessions from those of others (`TLSOptions.identity`): 32 bytes. A client that was judged by this
    /// resumes nothing where another is in force.
    var identity: [UInt8] {
        var bytes: [UInt8] = []
        // Lengths in front: no two contents run together to the same bytes.
        for part in [authorities, revocations] { bytes += Self.bytes(of: UInt64(part.count)) + part }
        bytes += Self.bytes(of: UInt64(bitPattern: Int64(depth)))
        var digest = [UInt8](repeating: 0, count: 32)
        // Proof: `bytes` is as long as said, and `digest` has the 32 bytes that are written.
        guard unsafe mg_tls_digest(bytes, bytes.count, &digest) else { return [] }
        return digest
    }

    /// Little end first, whatever the machine.
    private static func bytes(of number: UInt64) -> [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
    }

}

extension TLSKeyPair {
    /// A self-signed ECDSA P-256 pair, for listeners that have no certificate yet.
    package static func selfSigned(name: String, days: Int = 365) throws(TLSError) -> TLSKeyPair {
        var chain = [CChar](repeating: 0, count: 4096)
        var key = [CChar](repeating: 0, count: 4096)
        var chainCount = chain.count
        var keyCount = key.count
        // Proof: both arrays are as long as the counts say, and outlive the call.
        guard unsafe mg_tls_self_sign(name, Int32(clamping: days), &chain, &chainCount, &key, &keyCount) else {
            throw TLSError("no certificate could be made for \(name)")
        }
        return TLSKeyPair(
            chain: chain.prefix(chainCount).map { UInt8(bitPattern: $0) },
            key: key.prefix(keyCount).map { UInt8(bitPattern: $0) })
    }
}

/// What kind of key a certificate is for, as OpenSSL numbers them: a context has one of each.
package struct KeyKind: Sendable, Hashable {
    let number: Int32
}

/// What stands in a certificate.
package struct TLSCertificateFacts: Sendable, Hashable {
    /// Seconds since 1970.
    package var notBefore: Int64
    package var notAfter: Int64
    /// When the first of the authorities behind it in the chain ends, but for one that signs itself; `Int64.max` without any.
    package var chainNotAfter = Int64.max
    /// Of its key: two of one kind can't serve the same host.
    package var kind: KeyKind
    /// The DNS names (RFC 5280 §4.2.1.6), in lower case.
    package var names: [String]

    /// Within its time, for whoever looks at `now` (seconds since 1970).
    package func isValid(at now: Int64) -> Bool { notBefore <= now && now <= notAfter }

    /// Whether one of the names covers `host`, a wildcard standing for exactly one label (RFC 6125 §6.4.3).
    /// - Parameter host: in lower case.
    package func covers(_ host: String) -> Bool {
        names.contains { name in
            if name == host { return true }
            guard name.hasPrefix("*."), let dot = host.firstIndex(of: "."), dot != host.startIndex else { return false }
            return host[dot...] == name.dropFirst()
        }
    }
}

/// The rules and certificates of one kind of connection.
///
/// `@unchecked Sendable`: the C context is counted atomically, and OpenSSL lets threads share an `SSL_CTX` that is not
/// being configured (SSL_CTX_new(3)); all configuration happens in `init`.
@safe package final class TLSContext: @unchecked Sendable {
    // SAFETY: made in `init`, released in `deinit`, never nil in between.
    let raw: OpaquePointer
    /// Whose it is, for whoever compares: the Secrets of its certificates.
    package let name: String
    /// What clients' certificates are judged by; nil: nobody is asked for one.
    package let clients: ClientVerification?
    /// What peers' certificates are judged by; nil where nobody's are.
    package let trust: TrustStore?
    /// Connecting: what stands in the client certificate; nil without one.
    package private(set) var facts: TLSCertificateFacts?

    package init(
        accepting pairs: [TLSKeyPair], name: String = "", _ options: TLSOptions = TLSOptions()
    ) throws(TLSError) {
        self.name = name
        clients = options.clients
        var options = options
        if let clients = options.clients {
            options.verification = .recorded
            options.verificationDepth = clients.depth
            options.authorities = clients.authorities
            options.revocations = clients.revocations
            options.usesSystemAuthorities = false
            options.identity = options.trust?.identity ?? clients.identity
            // Without it, its sessions would be everybody's.
            if options.identity.isEmpty { throw TLSError("no digest could be made") }
        }
        let trust = try Self.trust(options)
        self.trust = trust
        unsafe raw = try Self.make(accepts: true, options, trust)
        for pair in pairs { try add(pair) }
    }

    /// For connections to servers; `pair` is the client certificate, if any.
    package init(connecting options: TLSOptions, pair: TLSKeyPair? = nil) throws(TLSError) {
        name = ""
        clients = nil
        let trust = try Self.trust(options)
        self.trust = trust
        unsafe raw = try Self.make(accepts: false, options, trust)
        if let pair { facts = try add(pair) }
    }

    deinit {
        unsafe mg_tls_context_release(raw)
    }

    private static func trust(_ options: TLSOptions) throws(TLSError) -> TrustStore? {
        guard options.verification != .none else { return nil }
        if let trust = options.trust { return trust }
        return try TrustStore(
            authorities: options.authorities, revocations: options.revocations,
            usesSystemAuthorities: options.usesSystemAuthorities)
    }

    private static func make(
        accepts: Bool, _ options: TLSOptions, _ trust: TrustStore?
    ) throws(TLSError) -> OpaquePointer {
        var wire: [UInt8] = []
        for name in options.protocols {
            guard (1...255).contains(name.utf8.count) else { throw TLSError("\"\(name)\" is no protocol name") }
            wire.append(UInt8(name.utf8.count))
            wire += Array(name.utf8)
        }
        var message = [CChar](repeating: 0, count: 256)
        // Proof: the pointers are used within the closures that lend them, for the counts beside them; the context
        // copies what it keeps.
        let made = unsafe wire.withUnsafeBufferPointer { wire in
            unsafe withOptionalCString(options.ciphers) { ciphers in
                unsafe withOptionalCString(options.suites) { suites in
                    var raw = unsafe mg_tls_options()
                    unsafe raw.minimum_version = options.minimumVersion.rawValue
                    unsafe raw.maximum_version = options.maximumVersion?.rawValue ?? 0
                    unsafe raw.ciphers = ciphers
                    unsafe raw.suites = suites
                    unsafe raw.alpn = wire.baseAddress
                    unsafe raw.alpn_count = wire.count
                    unsafe raw.verify = options.verification.raw
                    unsafe raw.verify_depth = Int32(clamping: options.verificationDepth)
                    unsafe raw.trust = trust?.raw
                    unsafe raw.tickets = options.tickets?.raw
                    return unsafe options.identity.withUnsafeBufferPointer { identity in
                        unsafe raw.identity = identity.baseAddress
                        unsafe raw.identity_count = identity.count
                        return unsafe mg_tls_context_new(accepts, &raw, &message, message.count)
                    }
                }
            }
        }
        guard let made = unsafe made else { throw TLSError(text(message)) }
        return unsafe made
    }

    /// Adds a pair, in the place of one of the same kind of key, if it can be used: parsed, strong enough, and its key
    /// its own. Only before the context is shared.
    @discardableResult
    func add(_ pair: TLSKeyPair) throws(TLSError) -> TLSCertificateFacts {
        var message = [CChar](repeating: 0, count: 256)
        // All of them stand in it, in more bytes than here.
        var names = [CChar](repeating: 0, count: min(pair.chain.count, 65_536) + 1)
        var facts = unsafe mg_tls_facts()
        // Proof: every array is as long as the count beside it says, and outlives the call; the context keeps parsed
        // copies.
        let good = unsafe names.withUnsafeMutableBufferPointer { room in
            unsafe facts.names = room.baseAddress
            unsafe facts.names_size = room.count
            return unsafe mg_tls_context_add_certificate(
                raw, pair.chain, pair.chain.count, pair.key, pair.key.count, &facts, &message, message.count)
        }
        if !good { throw TLSError(text(message)) }
        return unsafe TLSCertificateFacts(
            notBefore: facts.not_before, notAfter: facts.not_after, chainNotAfter: facts.chain_not_after,
            kind: KeyKind(number: facts.key_kind),
            names: text(names).lowercased().split(separator: "\n").map(String.init))
    }
}

extension PeerVerification {
    fileprivate var raw: mg_tls_verify {
        switch self {
        case .none: MG_TLS_VERIFY_NONE
        case .optional: MG_TLS_VERIFY_OPTIONAL
        case .required: MG_TLS_VERIFY_REQUIRED
        case .recorded: MG_TLS_VERIFY_RECORD
        }
    }
}

private func withOptionalCString<R>(_ text: String?, _ body: (UnsafePointer<CChar>?) -> R) -> R {
    guard let text else { return body(nil) }
    return unsafe text.withCString { unsafe body($0) }
}

/// The text before the first NUL.
func text(_ characters: [CChar]) -> String {
    String(decoding: characters.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}
