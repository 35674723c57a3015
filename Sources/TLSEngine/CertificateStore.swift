// Step 4 of a configuration change, for certificates: judged off the loops, the last good ones kept, and one table made
// of them.

package import Model
internal import Synchronization

/// The codes of this room's diagnostics.
package enum CertificateCode: String, CaseIterable, Sendable {
    case unusable = "MG163"
    case expired = "MG164"
    case wrongName = "MG165"
    case expiring = "MG166"
    case badClientRules = "MG337"
    case authorityExpired = "MG338"
    case badTicketKeys = "MG339"
    case authorityGap = "MG343"
    case badBackendTLS = "MG187"

    package var name: String {
        switch self {
        case .unusable: "bad-certificate"
        case .expired: "certificate-expired"
        case .wrongName: "certificate-name"
        case .expiring: "certificate-expiring"
        case .badClientRules: "bad-client-rules"
        case .authorityExpired: "authority-expired"
        case .authorityGap: "authority-gap"
        case .badTicketKeys: "bad-ticket-keys"
        case .badBackendTLS: "bad-backend-tls"
        }
    }

    package var severity: Severity {
        switch self {
        case .unusable, .expired, .wrongName, .badClientRules, .authorityExpired, .badBackendTLS: .error
        case .badTicketKeys, .authorityGap, .expiring: .warning
        }
    }

    /// What the finding means, for the documentation.
    package var meaning: String {
        switch self {
        case .unusable: "A certificate or its key cannot be used; the last good one stays, or the default serves."
        case .expired: "A certificate has expired, or is not valid yet."
        case .wrongName: "A certificate is not for the host that it is to serve."
        case .expiring: "A certificate, or an authority of its chain or for clients or backends, is about to expire."
        case .badClientRules:
            "Authorities, revocation lists or the pattern that clients are judged by cannot be used; the host answers 403."
        case .authorityExpired:
            "An authority for clients' or backends' certificates has expired, or a revocation list is out of date."
        case .authorityGap:
            "ca.crt has no authority, or not the one above another, or ca.crl no list of one: what it has signed is refused."
        case .badTicketKeys:
            "The keys of session tickets in the Secret cannot be used; the last good ones stay, or each replica has its own."
        case .badBackendTLS:
            "What TLS to backends is to be made with cannot be used; the last good stays, or the paths answer 503."
        }
    }

    package func diagnostic(_ problem: String, at place: Place, mend: String) -> Diagnostic {
        Diagnostic(severity, rawValue, name, problem: problem, place: place, mend: mend)
    }
}

/// Makes the certificate tables of a process, one a configuration. May be called from any thread, one call at a time.
package final class CertificateStore: Sendable {
    /// What holds for every certificate.
    private let options: TLSOptions
    /// How long before its end a certificate is warned of, in seconds.
    package let warning: Int64
    package let cache: ContextCache
    /// Told of the keys that a Secret has for session tickets, at each preparation; nil where there are none. Of some that
    /// can't be read it hears nothing: those of before are the last good ones.
    private let takeTicketKeys: @Sendable ([TicketKey]?) -> Void
    /// For names that nobody has a certificate for: made on start, so that nobody else can hold its key.
    private let selfSigned: ServedCertificate
    private let state: Mutex<State>

    /// The name in the certificate that is made on start (RFC 6761 §6.4: nobody's).
    package static let selfSignedName = "moongate.invalid"

    private struct State {
        /// Where a pair is tried.
        var trial: TLSContext
        /// What was found of each pair: a certificate that did not change is not looked at again.
        var judged: [TLSKeyPair: Judgement] = [:]
        /// What last served a host and was good, at most one of a Secret.
        var lastGood: [Claim: [Kept]] = [:]
        var served: [String: ServedCertificate] = [:]
        /// What was found of what hosts ask of their clients.
        var judgedClients: [ClientVerification: ClientJudgement] = [:]
    }

    private enum ClientJudgement {
        /// As they were first read: whoever asks for the same has the same, down to the memory.
        case usable(ClientVerification, TrustStore)
        case unusable(String)
    }

    /// Of a host by one namespace: what another has had there never comes back for it.
    private struct Claim: Hashable {
        var host: String
        var namespace: String
    }

    private struct Kept {
        var secret: ObjectReference
        var pair: TLSKeyPair
    }

    private enum Judgement {
        case good(TLSCertificateFacts)
        case bad(String)
    }

    /// How long before its end a certificate is warned of, unless something else is asked for: half of the month that is
    /// left when those of 90 days are usually renewed.
    package static let standardWarning: Int64 = 14 * 86_400

    /// - Parameters:
    ///   - warning: seconds; 0 warns of nothing.
    ///   - mostContexts: those that exist at a time, about 20 KiB each.
    package init(
        _ options: TLSOptions, warning: Int64 = CertificateStore.standardWarning, mostContexts: Int = 2048,
        takeTicketKeys: @escaping @Sendable ([TicketKey]?) -> Void = { _ in }
    ) throws(TLSError) {
        self.options = options
        self.warning = warning
        cache = ContextCache(most: mostContexts)
        self.takeTicketKeys = takeTicketKeys
        let pair = try TLSKeyPair.selfSigned(name: Self.selfSignedName)
        // What is wrong with the options is said now, and not to the first client.
        state = Mutex(State(trial: try TLSContext(accepting: [pair], options)))
        selfSigned = ServedCertificate(name: "self-signed", pairs: [pair], options: options, cache: cache)
    }

    /// Judges the certificates of a snapshot and makes the table of them.
    /// - Parameter now: seconds since 1970.
    package func prepare(
        _ snapshot: Snapshot, now: Int64
    ) -> (table: CertificateTable, diagnostics: [Diagnostic]) {
        state.withLock { state in
            var work = Work(snapshot: snapshot, now: now, warning: warning, state: state)
            let table = work.table(options, cache, selfSigned)
            switch work.ticketKeys() {
            case .none: takeTicketKeys(nil)
            case .keys(let keys): takeTicketKeys(keys)
            case .unreadable: break
            }
            state = work.state
            state.judged = work.judged
            state.judgedClients = work.judgedClients
            state.lastGood = work.lastGood
            state.served = work.served
            let kept = Set(work.served.values.map(ObjectIdentifier.init))
            cache.retain { kept.contains(ObjectIdentifier($0)) || $0 === selfSigned }
            return (table, work.diagnostics)
        }
    }

    /// One preparation: what is new is gathered beside what was.
    private struct Work {
        let snapshot: Snapshot
        let now: Int64
        let warning: Int64
        var state: State
        var judged: [TLSKeyPair: Judgement] = [:]
        var lastGood: [Claim: [Kept]] = [:]
        var served: [String: ServedCertificate] = [:]
        var judgedClients: [ClientVerification: ClientJudgement] = [:]
        var diagnostics: [Diagnostic] = []
        private var said: Set<Diagnostic> = []
        /// When the certificates that serve end.
        private var ends: [ObjectReference: CertificateExpiry] = [:]
        /// The first moment from which on time alone makes another answer.
        private var staleAt = Int64.max

        init(snapshot: Snapshot, now: Int64, warning: Int64, state: State) {
            self.snapshot = snapshot
            self.now = now
            self.warning = warning
            self.state = state
        }

        mutating func table(
            _ options: TLSOptions, _ cache: ContextCache, _ selfSigned: ServedCertificate
        ) -> CertificateTable {
            var exact: [String: ServedCertificate] = [:]
            var wildcards: [String: ServedCertificate] = [:]
            /// By wildcard: whose valid certificate it has.
            var above: [String: String] = [:]
            // Wildcards come first: a star sorts before all that names begin with.
            for (host, references) in claims() {
                let parent = Self.parent(host)
                let (chosen, isValid) = choose(
                    from: references, for: host, parent.flatMap { name in above[name].map { (name, $0) } })
                guard !chosen.isEmpty else { continue }
                let certificate = serve(Self.name(of: chosen), chosen.map(\.pair), nil, options, cache)
                if host.hasPrefix("*.") {
                    wildcards[String(host.dropFirst(2))] = certificate
                    if isValid { above[host] = references.first?.secret.namespace }
                } else {
                    exact[host] = certificate
                }
            }
            var standard = selfSigned
            if let reference = snapshot.defaultCertificate {
                let chosen = choose(from: [reference], for: nil, nil).chosen
                if !chosen.isEmpty { standard = serve(Self.name(of: chosen), chosen.map(\.pair), nil, options, cache) }
            }
            let asked = askedClients()
            if !asked.isEmpty { ask(asked, of: &exact, &wildcards, &standard, options, cache) }
            return CertificateTable(
                exact: exact, wildcards: wildcards, standard: standard,
                unusable: Set(
                    judgedClients.compactMap { clients, judgement in
                        if case .unusable = judgement { clients } else { nil }
                    }),
                expiries: ends.values.sorted { ($0.notAfter, $0.secret) < ($1.notAfter, $1.secret) }, staleAt: staleAt)
        }

        private static func name(of chosen: [Candidate]) -> String {
            chosen.map { "\($0.reference.secret.namespace)/\($0.reference.secret.name)" }.joined(separator: "+")
        }

        private mutating func serve(
            _ name: String, _ contents: [TLSKeyPair], _ clients: ClientVerification?, _ options: TLSOptions,
            _ cache: ContextCache
        ) -> ServedCertificate {
            var trust: TrustStore?
            if let clients, case .usable(_, let known)? = judgedClients[clients] { trust = known }
            func make() -> ServedCertificate {
                ServedCertificate(
                    name: name, pairs: contents, clients: clients, trust: trust, options: options, cache: cache)
            }
            var key = name
            if let trust { key += "|" + trust.identity.map { String($0, radix: 16) }.joined(separator: ".") }
            // A host may still be on the pair before, where another is on the new one: two entries of one name.
            for suffix in ["", "#2", "#3", "#4"] {
                if let there = served[key + suffix] {
                    if there.pairs == contents, there.clients == clients { return there }
                    continue
                }
                let certificate: ServedCertificate
                if let before = state.served[key + suffix], before.pairs == contents, before.clients == clients {
                    certificate = before
                } else {
                    certificate = make()
                }
                served[key + suffix] = certificate
                return certificate
            }
            return make()
        }

        // MARK: Clients' certificates

        /// By host: what its clients' certificates are judged by, where that can be done.
        private mutating func askedClients() -> [HostPattern: ClientVerification] {
            var asked: [HostPattern: ClientVerification] = [:]
            for host in snapshot.hosts {
                guard let rule = host.clientAuthentication, let clients = rule.verification else { continue }
                guard let known = judge(clients, rule), rule.mode != .off else { continue }
                asked[host.pattern] = known
            }
            return asked
        }

        /// Nil if it can't be used; what is wrong is said once of an Ingress.
        private mutating func judge(
            _ clients: ClientVerification, _ rule: ClientAuthentication
        ) -> ClientVerification? {
            let judgement: ClientJudgement
            if let known = judgedClients[clients] ?? state.judgedClients[clients] {
                judgement = known
            } else {
                do throws(TLSError) {
                    var options = TLSOptions()
                    let trust = try TrustStore(clients)
                    (options.clients, options.trust) = (clients, trust)
                    _ = try TLSContext(accepting: [], options)
                    judgement = .usable(clients, trust)
                } catch {
                    judgement = .unusable(error.description)
                }
            }
            judgedClients[clients] = judgement
            let secret = rule.secret.map { "\"\($0.namespace)/\($0.name)\"" } ?? ""
            switch judgement {
            case .unusable(let problem):
                say(
                    .badClientRules, "ca.crt or ca.crl in the Secret \(secret): \(problem)", rule.place,
                    "put certificates of authorities into ca.crt, and revocation lists of theirs, if any, into ca.crl, "
                        + "all PEM; until then everything on the host answers 403")
                return nil
            case .usable(let known, let trust):
                for gap in trust.gaps
                where rule.mode != .off && !(gap.isOfTrust && rule.mode == .optionalWithoutAuthority) {
                    say(.authorityGap, "\(gap.problem) of the Secret \(secret)", rule.place, gap.mend)
                }
                let firstEnd = trust.firstEnd ?? .max
                if firstEnd < now {
                    say(
                        .authorityExpired,
                        "an authority in ca.crt of the Secret \(secret) expired on \(HTTPDate.day(firstEnd))",
                        rule.place,
                        "replace it; until then clients with its certificates are refused")
                } else if warning > 0, hasCome(firstEnd - warning) {
                    say(
                        .expiring,
                        "an authority in ca.crt of the Secret \(secret) expires on \(HTTPDate.day(firstEnd))",
                        rule.place,
                        "put its successor beside it; from then on clients with its certificates are refused")
                }
                _ = hasEnded(firstEnd)
                // Lists are made anew a little before they are due: there is nothing to warn of.
                if let nextUpdate = trust.nextUpdate, hasEnded(nextUpdate) {
                    say(
                        .authorityExpired,
                        "a revocation list in ca.crl of the Secret \(secret) was to be replaced by "
                            + HTTPDate.day(nextUpdate), rule.place,
                        "replace it; until then clients of its authority are refused")
                }
                return known
            }
        }

        // MARK: Time

        /// Whether it is past `moment`; if not, all is to be judged again then.
        private mutating func hasCome(_ moment: Int64) -> Bool {
            if moment <= now { return true }
            staleAt = min(staleAt, moment)
            return false
        }

        /// Whether the last good second is over; a list may have none.
        private mutating func hasEnded(_ last: Int64) -> Bool { last < .max && hasCome(last + 1) }

        /// A certificate serves, for this reference. Warns before its end: short-lived ones when a fifth of their time is
        /// left, as they are renewed when a third is.
        private mutating func serves(_ facts: TLSCertificateFacts, _ reference: CertificateReference) {
            if ends[reference.secret].map({ facts.notAfter < $0.notAfter }) ?? true {
                ends[reference.secret] = CertificateExpiry(
                    secret: reference.secret, notAfter: facts.notAfter, warnsAt: warnsAt(facts))
            }
            if hasEnded(facts.notAfter) || warning == 0 { return }
            if hasCome(warnsAt(facts)) {
                say(
                    .expiring,
                    "the certificate in the Secret \(Self.quoted(reference)) expires on \(HTTPDate.day(facts.notAfter))",
                    reference.place, "renew it; it is served on when it has expired, and clients will refuse it")
            } else if facts.chainNotAfter < facts.notAfter, hasCome(facts.chainNotAfter - warning) {
                _ = hasEnded(facts.chainNotAfter)
                say(
                    .expiring,
                    "an authority in the chain of the Secret \(Self.quoted(reference)) "
                        + "\(facts.chainNotAfter < now ? "expired" : "expires") on \(HTTPDate.day(facts.chainNotAfter))",
                    reference.place,
                    "renew the certificate with the chain of today; clients that know no other way to a root that they "
                        + "trust will refuse it")
            }
        }

        private func warnsAt(_ facts: TLSCertificateFacts) -> Int64 {
            facts.notAfter - min(warning, (facts.notAfter - facts.notBefore) / 5)
        }

        /// Gives every host the handshake that its rules ask for, with the certificate that it has.
        private mutating func ask(
            _ asked: [HostPattern: ClientVerification], of exact: inout [String: ServedCertificate],
            _ wildcards: inout [String: ServedCertificate], _ standard: inout ServedCertificate,
            _ options: TLSOptions, _ cache: ContextCache
        ) {
            // By the certificates alone, as they were found before.
            let plain = CertificateTable(exact: exact, wildcards: wildcards, standard: standard)
            let hosts = Set(snapshot.hosts.map(\.pattern))
            var names = Set(exact.keys)
            var parents = Set(wildcards.keys)
            for host in hosts {
                switch host {
                case .exact(let name): names.insert(name)
                case .wildcard(let parent): parents.insert(parent)
                case .any: break
                }
            }
            func clients(_ host: HostPattern, below parent: String?) -> ClientVerification? {
                // As requests are routed: the host that is known, and then no other.
                if hosts.contains(host) { return asked[host] }
                if let parent, hosts.contains(.wildcard(parent)) { return asked[.wildcard(parent)] }
                return asked[.any]
            }
            func variant(_ certificate: ServedCertificate, _ clients: ClientVerification?) -> ServedCertificate {
                guard let clients else { return certificate }
                return serve(certificate.name, certificate.pairs, clients, options, cache)
            }
            for name in names.sorted() {
                let parent = name.firstIndex(of: ".").map { String(name[name.index(after: $0)...]) }
                exact[name] = variant(plain.certificate(for: name), clients(.exact(name), below: parent))
            }
            for parent in parents.sorted() {
                let certificate = wildcards[parent] ?? plain.standard
                wildcards[parent] = variant(certificate, clients(.wildcard(parent), below: nil))
            }
            standard = variant(plain.standard, asked[.any])
        }

        // MARK: Ticket keys

        enum SharedKeys {
            case none
            case keys([TicketKey])
            case unreadable
        }

        /// Those of the Secret.
        mutating func ticketKeys() -> SharedKeys {
            guard let source = snapshot.ticketKeys else { return .none }
            let name = "\"\(source.secret.namespace)/\(source.secret.name)\""
            let mend =
                "put one to \(TicketKeys.most) keys of \(TicketKey.size) random bytes each into the entry "
                + "\(TicketKeys.entry), the newest first; until then "
            guard let bytes = source.keys else {
                say(
                    .badTicketKeys, "there is no Secret \(name) with an entry \(TicketKeys.entry)", source.place,
                    mend + "each replica seals with its own")
                return .none
            }
            guard let keys = TicketKeys.read(bytes) else {
                say(
                    .badTicketKeys,
                    "the entry \(TicketKeys.entry) of the Secret \(name) has \(bytes.count) bytes, or one key twice",
                    source.place, mend + "the last good ones stay, and without any each replica seals with its own")
                return .unreadable
            }
            return .keys(keys)
        }

        /// Said once, however many hosts it is true for.
        private mutating func say(_ code: CertificateCode, _ problem: String, _ place: Place, _ mend: String) {
            let diagnostic = code.diagnostic(problem, at: place, mend: mend)
            if said.insert(diagnostic).inserted { diagnostics.append(diagnostic) }
        }

        // MARK: Who serves a host

        /// For each host the references that may serve it, the oldest first.
        ///
        /// Whoever has a rule for a host decides about its certificate; whoever only lists it in `spec.tls` has it where
        /// nobody has a rule. A host that its own Ingress does not list has what covers it of that one's certificates. All
        /// certificates of a host come from one namespace: another's would be served to the clients that prefer its kind
        /// of key.
        private mutating func claims() -> [(host: String, references: [CertificateReference])] {
            if snapshot.certificates.isEmpty { return [] }
            var rules: [ObjectReference: Set<String>] = [:]
            /// The namespaces with a rule for a host, and for a host below a wildcard.
            var owners: [String: Set<String>] = [:]
            var below: [String: Set<String>] = [:]
            for route in snapshot.routes where route.host != .any {
                let host = route.host.description
                guard rules[route.ingress, default: []].insert(host).inserted else { continue }
                owners[host, default: []].insert(route.ingress.namespace)
                if let parent = Self.parent(host) { below[parent, default: []].insert(route.ingress.namespace) }
            }
            var ruled: [String: [Int]] = [:]
            var listed: [String: [Int]] = [:]
            var covered: [String: [Int]] = [:]
            for (number, reference) in snapshot.certificates.enumerated() {
                let own = rules[reference.ingress] ?? []
                for host in reference.hosts.isEmpty ? own.sorted() : reference.hosts {
                    let namespace = reference.ingress.namespace
                    if let deciders = owners[host] ?? Self.parent(host).flatMap({ owners[$0] }) {
                        if deciders.contains(namespace) { ruled[host, default: []].append(number) }
                    } else if let beneath = below[host] {
                        // A wildcard that is no rule would serve every host below that has no certificate of its own.
                        if beneath == [namespace] { ruled[host, default: []].append(number) }
                    } else {
                        listed[host, default: []].append(number)
                    }
                }
                if reference.unlisted.isEmpty { continue }
                let covers = cover(of: reference)
                for host in reference.unlisted where own.contains(host) && covers(host) {
                    covered[host, default: []].append(number)
                }
            }
            for (host, numbers) in listed { ruled[host] = numbers }
            let all = snapshot.certificates
            return Set(ruled.keys).union(covered.keys).sorted().map { host in
                let (named, covering) = (ruled[host] ?? [], covered[host] ?? [])
                let first = min(named.first ?? .max, covering.first ?? .max)
                let owner = all.indices.contains(first) ? all[first].secret.namespace : nil
                let own = named.filter { all[$0].secret.namespace == owner }
                return (
                    host, (own.isEmpty ? covering.filter { all[$0].secret.namespace == owner } : own).map { all[$0] }
                )
            }
        }

        /// Whether the certificate is for a host that nobody lists, or was when it was last good. It may have as many names
        /// as there are hosts.
        private mutating func cover(of reference: CertificateReference) -> (_ host: String) -> Bool {
            if let pair = reference.pair, case .good(let facts) = judge(pair) {
                let names = Set(facts.names)
                return { host in names.contains(host) || Self.parent(host).map(names.contains) ?? false }
            }
            guard reference.pair != nil || reference.isEmpty else { return { _ in false } }
            let before = state.lastGood
            return { host in
                let claim = Claim(host: host, namespace: reference.secret.namespace)
                return before[claim]?.contains { $0.secret == reference.secret } ?? false
            }
        }

        /// `*.shop.test` for `www.shop.test`.
        private static func parent(_ host: String) -> String? {
            guard !host.hasPrefix("*."), let dot = host.firstIndex(of: ".") else { return nil }
            return "*" + host[dot...]
        }

        // MARK: Judging

        /// What may serve a host.
        private struct Candidate {
            var reference: CertificateReference
            var pair: TLSKeyPair
            var facts: TLSCertificateFacts
            /// It is the last good one, not what its Secret holds now.
            var isKept = false
        }

        /// What is wrong with what a reference's Secret holds.
        private enum Fault {
            case unusable(String)
            case wrongName(TLSCertificateFacts, String)
            case untimely(TLSCertificateFacts)
            /// The translation has said it.
            case empty
        }

        /// What serves a host: of each kind of key the first that is valid. What has ended, or has not begun, only where
        /// nothing is valid, neither of any kind nor of the same namespace for the wildcard above.
        ///
        /// In the place of what can't serve stands what last did, of the same Secret, or of one that is not named any more:
        /// a reference that was led to another Secret is no better than one whose Secret was written anew. Of a Secret that
        /// is not there nothing stays: who deletes it wants it gone.
        /// - Parameter above: the wildcard over the host that has a valid certificate, and whose that is.
        private mutating func choose(
            from references: [CertificateReference], for host: String?, _ above: (host: String, namespace: String)?
        ) -> (chosen: [Candidate], isValid: Bool) {
            guard let namespace = references.first?.secret.namespace else { return ([], false) }
            let claim = Claim(host: host ?? "", namespace: namespace)
            let before = state.lastGood[claim] ?? []
            var valid: [Candidate] = []
            var untimely: [Candidate] = []
            var faults: [(reference: CertificateReference, fault: Fault)] = []
            var kept: [Kept] = []
            func offer(
                _ reference: CertificateReference, _ pair: TLSKeyPair, _ facts: TLSCertificateFacts, _ isKept: Bool
            ) {
                let candidate = Candidate(reference: reference, pair: pair, facts: facts, isKept: isKept)
                if facts.isValid(at: now) { valid.append(candidate) } else { untimely.append(candidate) }
            }
            for reference in references {
                let fault: Fault
                var own: (pair: TLSKeyPair, facts: TLSCertificateFacts)?
                if let pair = reference.pair {
                    switch judge(pair) {
                    case .bad(let problem): fault = .unusable(problem)
                    case .good(let facts):
                        if let host, !facts.covers(host) {
                            fault = .wrongName(facts, host)
                        } else if facts.isValid(at: now) {
                            offer(reference, pair, facts, false)
                            if !kept.contains(where: { $0.secret == reference.secret }) {
                                kept.append(Kept(secret: reference.secret, pair: pair))
                            }
                            continue
                        } else {
                            own = (pair, facts)
                            fault = .untimely(facts)
                        }
                    }
                } else if reference.isEmpty {
                    fault = .empty
                } else {
                    continue
                }
                faults.append((reference, fault))
                if let last = before.first(where: { $0.secret == reference.secret }),
                    case .good(let facts) = judge(last.pair)
                {
                    if !kept.contains(where: { $0.secret == last.secret }) { kept.append(last) }
                    if own == nil || facts.isValid(at: now) { offer(reference, last.pair, facts, true) }
                }
                if let own, !valid.contains(where: { $0.isKept && $0.reference.secret == reference.secret }) {
                    offer(reference, own.pair, own.facts, false)
                }
            }
            if let (reference, _) = faults.first {
                let named = Set(references.map(\.secret))
                for last in before where !named.contains(last.secret) {
                    guard case .good(let facts) = judge(last.pair) else { continue }
                    var former = reference
                    former.secret = last.secret
                    offer(former, last.pair, facts, true)
                }
            }
            let isValid = !valid.isEmpty
            let isBelow = !isValid && above?.namespace == namespace
            var hasKind: Set<KeyKind> = []
            let chosen =
                isBelow ? [] : (isValid ? valid : untimely).filter { hasKind.insert($0.facts.kind).inserted }
            for candidate in isValid ? valid : chosen { serves(candidate.facts, candidate.reference) }
            // Of Secrets that are not named any more only what serves: or they would become ever more.
            for candidate in chosen where candidate.isKept {
                let secret = candidate.reference.secret
                if !kept.contains(where: { $0.secret == secret }) {
                    kept.append(Kept(secret: secret, pair: candidate.pair))
                }
            }
            if !kept.isEmpty { lastGood[claim] = kept }
            for (reference, fault) in faults {
                say(
                    fault, reference,
                    isBelow
                        ? "the certificate of \"\(above?.host ?? "")\" serves"
                        : Self.instead(of: reference, chosen, isValid))
            }
            return (chosen, isValid)
        }

        /// What serves in the place of a reference that is at fault.
        private static func instead(of reference: CertificateReference, _ chosen: [Candidate], _ isValid: Bool)
            -> String
        {
            guard let first = chosen.first else { return "the default certificate serves" }
            let own = chosen.first { $0.reference.secret == reference.secret } ?? first
            if own.isKept {
                return isValid
                    ? "the last good certificate serves" : "the last good certificate serves, which has expired"
            }
            return own.reference.secret == reference.secret
                ? "it serves all the same" : "another certificate of the host serves"
        }

        private mutating func say(_ fault: Fault, _ reference: CertificateReference, _ instead: String) {
            switch fault {
            case .empty: break
            case .unusable(let problem):
                say(
                    .unusable, "the Secret \(Self.quoted(reference)): \(problem)", reference.place,
                    "put a chain (leaf first) and its own key into tls.crt and tls.key, both PEM; until then \(instead)"
                )
            case .wrongName(let facts, let host):
                let names = facts.names.prefix(5).joined(separator: ", ")
                say(
                    .wrongName,
                    "the certificate in the Secret \(Self.quoted(reference)) is not for \"\(host)\", but for "
                        + (names.isEmpty ? "no DNS name" : names),
                    reference.place, "name a Secret with a certificate for the host; until then \(instead)")
            case .untimely(let facts):
                _ = hasCome(facts.notBefore)
                say(
                    .expired,
                    "the certificate in the Secret \(Self.quoted(reference)) "
                        + (facts.notAfter < now
                            ? "expired on \(HTTPDate.day(facts.notAfter))"
                            : "is not valid before \(HTTPDate.day(facts.notBefore))"),
                    reference.place, "renew it; until then \(instead)")
            }
        }

        private mutating func judge(_ pair: TLSKeyPair) -> Judgement {
            if let known = judged[pair] { return known }
            if let known = state.judged[pair] {
                judged[pair] = known
                return known
            }
            let judgement: Judgement
            do throws(TLSError) {
                judgement = .good(try state.trial.add(pair))
            } catch {
                judgement = .bad(error.description)
            }
            judged[pair] = judgement
            return judgement
        }

        private static func quoted(_ reference: CertificateReference) -> String {
            "\"\(reference.secret.namespace)/\(reference.secret.name)\""
        }

    }
}

extension HTTPDate {
    /// For diagnostics: `2026-01-31`.
    static func day(_ seconds: Int64) -> String {
        let date = civil(fromDays: seconds / 86_400)
        func two(_ n: Int) -> String { n < 10 ? "0\(n)" : "\(n)" }
        return "\(date.year)-\(two(date.month))-\(two(date.day))"
    }
}
