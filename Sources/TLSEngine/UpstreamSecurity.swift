// Step 4 of a configuration change, for TLS to upstreams: contexts are made off the loops, shared by all of them, and kept
// as long as their settings stand, so that connections and sessions outlive a change that is none of theirs.

package import Model
internal import Synchronization

/// How connections of one upstream are secured. The same object as long as its settings are the same: a connection that
/// was made by another one is not used again.
package final class UpstreamSecurity: Sendable {
    /// Nil: it can't be made, and there is no last good one.
    private let context: TLSContext?
    /// What the endpoints are called.
    private let name: String
    private let sendsName: Bool
    /// HTTP/2 is asked for, and nothing else will do (RFC 9113 §3.2).
    package let needsHTTP2: Bool

    fileprivate init(context: TLSContext?, _ settings: UpstreamTLS, needsHTTP2: Bool) {
        self.context = context
        name = settings.name
        sendsName = settings.sendsName
        self.needsHTTP2 = needsHTTP2
    }

    /// For tests, and for whoever has a context already.
    package init(_ context: TLSContext, name: String, sendsName: Bool = false, needsHTTP2: Bool = false) {
        self.context = context
        self.name = name
        self.sendsName = sendsName
        self.needsHTTP2 = needsHTTP2
    }

    /// Where nothing can be made.
    package static let unusable = UpstreamSecurity(context: nil, UpstreamTLS(), needsHTTP2: false)

    package var isUsable: Bool { context != nil }

    /// When what an endpoint has proved at `now` (seconds since 1970) must be proved anew, because an authority or a
    /// revocation list has ended; the greatest number for never.
    package func holds(from now: Int64) -> Int64 { context?.trust?.holds(from: now) ?? .max }

    /// What ends of that which it is made with, and what it means for backends.
    fileprivate struct End {
        var what: String
        /// In seconds since 1970.
        var end: Int64
        /// How long before it is warned of, at most; 0: never. Lists are made anew a little before they are due.
        var warning = Int64.max
        var code = CertificateCode.authorityExpired
        var after: String
    }

    fileprivate var ends: [End] {
        var ends: [End] = []
        if let end = context?.trust?.firstEnd {
            ends.append(
                End(what: "an authority in ca.crt", end: end, after: "backends with its certificates are refused"))
        }
        if let end = context?.trust?.nextUpdate {
            ends.append(
                End(
                    what: "a revocation list in ca.crl", end: end, warning: 0,
                    after: "backends of its authority are refused"))
        }
        if let facts = context?.facts {
            // Short-lived ones are renewed late.
            ends.append(
                End(
                    what: "the client certificate in tls.crt", end: facts.notAfter,
                    warning: (facts.notAfter - facts.notBefore) / 5, code: .expired,
                    after: "backends that ask for one refuse it"))
        }
        return ends
    }

    fileprivate var gaps: [TrustStore.Gap] { context?.trust?.gaps ?? [] }

    /// A session for a new connection; nil without memory, or where nothing can be made.
    package func connect(_ resumption: TLSResumption?) -> TLSSession? {
        guard let context else { return nil }
        return TLSSession(connecting: context, to: name, sendsName: sendsName, resumption: resumption)
    }

    /// What is offered by ALPN (RFC 7301).
    package static func offers(_ needsHTTP2: Bool) -> [String] { needsHTTP2 ? ["h2"] : ["http/1.1"] }
}

/// The securities of one configuration, by the names of their upstreams.
package final class UpstreamSecurityTable: Sendable {
    private let byName: [String: UpstreamSecurity]

    package init(_ byName: [String: UpstreamSecurity] = [:]) {
        self.byName = byName
    }

    package subscript(name: String) -> UpstreamSecurity? { byName[name] }
}

/// Makes them, one table a configuration. May be called from any thread.
package final class UpstreamSecurityStore: Sendable {
    /// What was asked for, and what came of it.
    private struct Entry {
        var wanted: Wanted
        var security: UpstreamSecurity
        /// Why it is not what was asked for.
        var problem: String?
    }

    private struct Wanted: Hashable {
        var settings: UpstreamTLS
        var needsHTTP2: Bool

        /// What a context depends on: upstreams that differ in their names alone share one.
        var ofContext: Wanted {
            var result = self
            result.settings.name = ""
            result.settings.isNameGiven = false
            result.settings.sendsName = false
            result.settings.secret = nil
            if !result.settings.verifies {
                result.settings.authorities = []
                result.settings.revocations = []
            }
            return result
        }
    }

    private struct State {
        var entries: [String: Entry] = [:]
        var contexts: [Wanted: TLSContext] = [:]
    }

    private let state = Mutex(State())
    /// How long before its end a certificate is warned of, in seconds.
    private let warning: Int64

    /// - Parameter warning: seconds; 0 warns of nothing.
    package init(warning: Int64 = CertificateStore.standardWarning) {
        self.warning = warning
    }

    /// Makes the table of a snapshot. What can't be made keeps what last could, and is told.
    /// - Parameter now: seconds since 1970.
    /// - Returns: also from when on time alone makes other diagnostics.
    package func prepare(
        _ snapshot: Snapshot, now: Int64
    ) -> (table: UpstreamSecurityTable, diagnostics: [Diagnostic], staleAt: Int64) {
        state.withLock { state in
            var next = State()
            var diagnostics: [Diagnostic] = []
            var said: Set<Diagnostic> = []
            var staleAt = Int64.max
            func say(_ diagnostic: Diagnostic) {
                if said.insert(diagnostic).inserted { diagnostics.append(diagnostic) }
            }
            for upstream in snapshot.upstreams where upstream.protocol.isSecure {
                var wanted = Wanted(
                    settings: upstream.tls ?? UpstreamTLS(), needsHTTP2: upstream.protocol.isHTTP2)
                let place = wanted.settings.place
                wanted.settings.place = Place()
                let before = state.entries[upstream.name]
                let entry: Entry
                if let before, before.wanted == wanted {
                    entry = before
                } else {
                    entry = Self.make(wanted, before: before, state, &next)
                }
                if let context = state.contexts[wanted.ofContext] { next.contexts[wanted.ofContext] = context }
                next.entries[upstream.name] = entry
                if let problem = entry.problem {
                    let secret = wanted.settings.secret.map { " with the Secret \"\($0.namespace)/\($0.name)\"" } ?? ""
                    say(
                        CertificateCode.badBackendTLS.diagnostic(
                            "TLS to backends\(secret) can't be set up: \(problem)", at: place,
                            mend: "correct it; until then "
                                + (entry.security.isUsable
                                    ? "the last good settings are used" : "requests to these backends answer 503")))
                }
                for diagnostic in judge(entry.security, wanted.settings.secret, place, now, &staleAt) {
                    say(diagnostic)
                }
            }
            state = next
            return (UpstreamSecurityTable(next.entries.mapValues(\.security)), diagnostics, staleAt)
        }
    }

    /// What has ended of what is in use, and what is about to.
    private func judge(
        _ security: UpstreamSecurity, _ secret: ObjectReference?, _ place: Place, _ now: Int64, _ staleAt: inout Int64
    ) -> [Diagnostic] {
        guard let secret else { return [] }
        var diagnostics: [Diagnostic] = []
        let name = "of the Secret \"\(secret.namespace)/\(secret.name)\""
        for gap in security.gaps {
            diagnostics.append(
                CertificateCode.authorityGap.diagnostic("\(gap.problem) \(name)", at: place, mend: gap.mend))
        }
        for end in security.ends {
            let problem = "\(end.what) \(name)"
            let day = HTTPDate.day(end.end)
            if end.end < now {
                diagnostics.append(
                    end.code.diagnostic(
                        "\(problem) expired on \(day)", at: place, mend: "replace it; until then \(end.after)"))
                continue
            }
            let warnsAt = end.end - min(warning, end.warning)
            staleAt = min(staleAt, warnsAt > now ? warnsAt : end.end + 1)
            if warnsAt < end.end, warnsAt <= now {
                diagnostics.append(
                    CertificateCode.expiring.diagnostic(
                        "\(problem) expires on \(day)", at: place,
                        mend: "put its successor there in time; from then on \(end.after)"))
            }
        }
        return diagnostics
    }

    private static func make(_ wanted: Wanted, before: Entry?, _ old: State, _ next: inout State) -> Entry {
        let key = wanted.ofContext
        do throws(TLSError) {
            let context: TLSContext
            if let known = next.contexts[key] ?? old.contexts[key] {
                context = known
            } else {
                context = try self.context(wanted)
            }
            next.contexts[key] = context
            return Entry(
                wanted: wanted,
                security: UpstreamSecurity(context: context, wanted.settings, needsHTTP2: wanted.needsHTTP2))
        } catch {
            // The last good one of the same upstream verifies as it did: the settings beside the Secret are in its name.
            let isFit = before?.security.isUsable == true && before?.wanted.needsHTTP2 == wanted.needsHTTP2
            let last = isFit ? before?.security : nil
            return Entry(
                wanted: wanted,
                security: last
                    ?? UpstreamSecurity(context: nil, wanted.settings, needsHTTP2: wanted.needsHTTP2),
                problem: error.description)
        }
    }

    private static func context(_ wanted: Wanted) throws(TLSError) -> TLSContext {
        var options = TLSOptions()
        let settings = wanted.settings
        options.minimumVersion = settings.allowsTLS12 ? .tls12 : .tls13
        options.maximumVersion = settings.allowsTLS13 ? nil : .tls12
        options.choose(ciphers: settings.ciphers)
        options.protocols = UpstreamSecurity.offers(wanted.needsHTTP2)
        if settings.verifies {
            options.verification = .required
            options.verificationDepth = settings.verifyDepth
            options.authorities = settings.authorities
            options.revocations = settings.revocations
            options.usesSystemAuthorities = settings.authorities.isEmpty
        }
        return try TLSContext(connecting: options, pair: settings.pair)
    }
}
