// What peers' certificates are judged by, read once off the loops: every context that has the same shares it.

internal import CTLS
package import Model

/// Authorities and revocation lists, and when they end.
///
/// `@unchecked Sendable`: the C object is counted atomically and never changed after `init`; OpenSSL locks an `X509_STORE`
/// where it must (X509_STORE_new(3)).
@safe package final class TrustStore: @unchecked Sendable {
    // SAFETY (of every use below): made in `init`, released in `deinit`, never nil in between.
    let raw: OpaquePointer
    /// When the first of the authorities ends; nil without any of our own. Seconds since 1970.
    package let firstEnd: Int64?
    /// When the first of the revocation lists is to be replaced; nil without any, or where they don't say.
    package let nextUpdate: Int64?

    /// There are lists, and the authorities are those of the system, which are not in any of them.
    private let isUnlisted: Bool

    /// What tells sessions that were judged by it from others (`TLSOptions.identity`); empty where it is not for clients.
    let identity: [UInt8]

    /// Something is missing without which certificates that should be good are not.
    struct Gap {
        var problem: String
        var mend: String
        /// What is not good then counts as of an unknown authority.
        var isOfTrust: Bool
    }

    /// What hosts ask of their clients.
    package convenience init(_ clients: ClientVerification) throws(TLSError) {
        try self.init(
            authorities: clients.authorities, revocations: clients.revocations, identity: clients.identity)
    }

    /// Throws where one of them is damaged: without it somebody could get in who was revoked.
    package init(
        authorities: [UInt8], revocations: [UInt8] = [], usesSystemAuthorities: Bool = false,
        identity: [UInt8] = []
    ) throws(TLSError) {
        var message = [CChar](repeating: 0, count: 256)
        // Proof: the arrays are as long as the counts beside them, and outlive the call, which copies what it keeps.
        guard
            let made = unsafe mg_tls_trust_new(
                authorities, authorities.count, revocations, revocations.count, usesSystemAuthorities, &message,
                message.count)
        else { throw TLSError(text(message)) }
        unsafe raw = unsafe made
        self.identity = identity
        let facts = unsafe mg_tls_trust_facts_of(made)
        firstEnd = authorities.isEmpty ? nil : facts.first_end
        nextUpdate = revocations.isEmpty || facts.next_update == .max ? nil : facts.next_update
        isUnlisted = usesSystemAuthorities && !revocations.isEmpty
    }

    /// What is missing.
    var gaps: [Gap] {
        let facts = unsafe mg_tls_trust_facts_of(raw)
        var gaps: [Gap] = []
        if firstEnd != nil, !facts.has_authority {
            gaps.append(
                Gap(
                    problem: "there is a certificate and no authority in ca.crt",
                    mend: "put the certificate of who has signed it there; until then every certificate is refused",
                    isOfTrust: true))
        }
        if facts.gaps.0 > 0 {
            gaps.append(
                Gap(
                    problem: "who has signed \(names(MG_TLS_GAP_ROOTLESS, facts.gaps.0)) is not in ca.crt",
                    mend:
                        "put it there, up to the one that has signed itself; until then certificates below are refused",
                    isOfTrust: true))
        }
        if facts.gaps.1 > 0 {
            gaps.append(
                Gap(
                    problem: "there is no revocation list of \(names(MG_TLS_GAP_UNLISTED, facts.gaps.1)) in ca.crl",
                    mend: "put one of each authority there; until then certificates of those without are refused",
                    isOfTrust: false))
        }
        if isUnlisted {
            gaps.append(
                Gap(
                    problem: "there are revocation lists in ca.crl, and no ca.crt whose they are",
                    mend:
                        "put the authorities there too; until then certificates without a list of their authority are "
                        + "refused",
                    isOfTrust: false))
        }
        return gaps
    }

    private func names(_ kind: mg_tls_gap_kind, _ count: Int) -> String {
        // Proof: it lives as long as what was made.
        let first = unsafe String(cString: mg_tls_trust_gap(raw, kind))
        return (first.isEmpty ? "an authority" : "the authority \"\(first)\"")
            + (count > 1 ? " and \(count - 1) more" : "")
    }

    deinit {
        unsafe mg_tls_trust_release(raw)
    }

    /// When what was found by it at `now` (seconds since 1970) is to be found anew, because one of the authorities or lists
    /// has ended; the greatest number for never.
    package func holds(from now: Int64) -> Int64 { unsafe mg_tls_trust_next_end(raw, now) }
}
