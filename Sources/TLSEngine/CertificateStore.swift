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
    case badBackendTLS = "MG187"

    package var name: String {
        switch self {
        case .unusable: "bad-certificate"
        case .expired: "certificate-expired"
        case .wrongName: "certificate-name"
        case .expiring: "certificate-expiring"
        case .badClientRules: "bad-client-rules"
        case .authorityExpired: "authority-expired"
        case .badTicketKeys: "bad-ticket-keys"
        case .badBackendTLS: "bad-backend-tls"
        }
    }

    package var severity: Severity {
        switch self {
        case .unusable, .expired, .wrongName, .badClientRules, .authorityExpired, .badBackendTLS: .error
        case .badTicketKeys, .expiring: .warning
        }
    }

    /// What the finding means, for the documentation.
    package var meaning: String {
        switch self {
        case .unusable: "A certificate or its key cannot be used; the last good one stays, or the default serves."
        case .expired: "A certificate has expired, or is not valid yet."
        case .wrongName: "A certificate is not for the host that it is to serve."
        case .expiring: "A certificate, or an authority of its chain or of clients' certificates, is about to expire."
        case .badClientRules:
            "Authorities, revocation lists or the pattern that clients are judged by cannot be used; the host answers 403."
        case .authorityExpired:
            "An authority for clients' certificates has expired, or its revocation list is out of date."
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
    private let warning: Int64
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
        /// By host and Secret: what last served.
        var lastGood: [Claim: TLSKeyPair] = [:]
        var served: [String: ServedCertificate] = [:]
        /// What was found of what hosts ask of their clients.
        var judgedClients: [ClientVerification: ClientJudgement] = [:]
    }

    private enum ClientJudgement {
        /// When the first of the authorities ends, and when the first of the revocation lists is to be replaced.
        case usable(firstEnd: Int64, nextUpdate: Int64?)
        case unusable(String)
    }

    private struct Claim: Hashable {
        var host: String
        var secret: ObjectReference
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
        var lastGood: [Claim: TLSKeyPair] = [:]
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
            for (host, references) in claims() {
                var pairs: [(secret: ObjectReference, pair: TLSKeyPair)] = []
                var hasKind: Set<Bool> = []
                for reference in references {
                    guard let (pair, facts) = pair(of: reference, for: host), hasKind.insert(facts.isECDSA).inserted
                    else { continue }
                    pairs.append((reference.secret, pair))
                }
                guard !pairs.isEmpty else { continue }
                let certificate = serve(Self.name(of: pairs), pairs.map(\.pair), nil, options, cache)
                if host.hasPrefix("*.") {
                    wildcards[String(host.dropFirst(2))] = certificate
                } else {
                    exact[host] = certificate
                }
            }
            var standard = selfSigned
            if let reference = snapshot.defaultCertificate, let (pair, _) = pair(of: reference, for: nil) {
                standard = serve(Self.name(of: [(reference.secret, pair)]), [pair], nil, options, cache)
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

        private static func name(of pairs: [(secret: ObjectReference, pair: TLSKeyPair)]) -> String {
            pairs.map { "\($0.secret.namespace)/\($0.secret.name)" }.joined(separator: "+")
        }

        private mutating func serve(
            _ name: String, _ contents: [TLSKeyPair], _ clients: ClientVerification?, _ options: TLSOptions,
            _ cache: ContextCache
        ) -> ServedCertificate {
            func make() -> ServedCertificate {
                ServedCertificate(name: name, pairs: contents, clients: clients, options: options, cache: cache)
            }
            var key = name
            if let clients { key += "|" + clients.identity.map { String($0, radix: 16) }.joined(separator: ".") }
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
                guard judge(clients, rule), rule.mode != .off else { continue }
                asked[host.pattern] = clients
            }
            return asked
        }

        /// False if it can't be used; what is wrong is said once of an Ingress.
        private mutating func judge(_ clients: ClientVerification, _ rule: ClientAuthentication) -> Bool {
            let judgement: ClientJudgement
            if let known = judgedClients[clients] ?? state.judgedClients[clients] {
                judgement = known
            } else {
                var options = TLSOptions()
                options.clients = clients
                do throws(TLSError) {
                    _ = try TLSContext(accepting: [], options)
                    let times = clients.times
                    judgement = .usable(firstEnd: times.firstEnd, nextUpdate: times.nextUpdate)
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
                return false
            case .usable(let firstEnd, let nextUpdate):
                if firstEnd < now {
                    say(
                        .authorityExpired,
                        "an authority in ca.crt of the Secret \(secret) expired on \(Self.day(firstEnd))", rule.place,
                        "replace it; until then clients with its certificates are refused")
                } else if warning > 0, hasCome(firstEnd - warning) {
                    say(
                        .expiring, "an authority in ca.crt of the Secret \(secret) expires on \(Self.day(firstEnd))",
                        rule.place,
                        "put its successor beside it; from then on clients with its certificates are refused")
                }
                _ = hasEnded(firstEnd)
                // Lists are made anew a little before they are due: there is nothing to warn of.
                if let nextUpdate, hasEnded(nextUpdate) {
                    say(
                        .authorityExpired,
                        "a revocation list in ca.crl of the Secret \(secret) was to be replaced by "
                            + Self.day(nextUpdate), rule.place,
                        "replace it; until then clients of its authority are refused")
                }
                return true
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
                    "the certificate in the Secret \(Self.quoted(reference)) expires on \(Self.day(facts.notAfter))",
                    reference.place, "renew it; it is served on when it has expired, and clients will refuse it")
            } else if facts.chainNotAfter < facts.notAfter, hasCome(facts.chainNotAfter - warning) {
                _ = hasEnded(facts.chainNotAfter)
                say(
                    .expiring,
                    "an authority in the chain of the Secret \(Self.quoted(reference)) "
                        + "\(facts.chainNotAfter < now ? "expired" : "expires") on \(Self.day(facts.chainNotAfter))",
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
        /// nobody has a rule. All certificates of a host come from one namespace: another's would be served to the
        /// clients that prefer its kind of key.
        private func claims() -> [(host: String, references: [CertificateReference])] {
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
            var ruled: [String: [CertificateReference]] = [:]
            var listed: [String: [CertificateReference]] = [:]
            for reference in snapshot.certificates {
                let own = rules[reference.ingress] ?? []
                for host in reference.hosts.isEmpty ? own.sorted() : reference.hosts {
                    let namespace = reference.ingress.namespace
                    if let deciders = owners[host] ?? Self.parent(host).flatMap({ owners[$0] }) {
                        if deciders.contains(namespace) { ruled[host, default: []].append(reference) }
                    } else if let beneath = below[host] {
                        // A wildcard that is no rule would serve every host below that has no certificate of its own.
                        if beneath == [namespace] { ruled[host, default: []].append(reference) }
                    } else {
                        listed[host, default: []].append(reference)
                    }
                }
            }
            for (host, references) in listed { ruled[host] = references }
            return ruled.map { host, references in
                let owner = references.first?.secret.namespace
                return (host, references.filter { $0.secret.namespace == owner })
            }
            .sorted { $0.host < $1.host }
        }

        /// `*.shop.test` for `www.shop.test`.
        private static func parent(_ host: String) -> String? {
            guard !host.hasPrefix("*."), let dot = host.firstIndex(of: ".") else { return nil }
            return "*" + host[dot...]
        }

        // MARK: Judging

        /// The pair that serves a host for a reference: its own, the last good one, or none.
        private mutating func pair(
            of reference: CertificateReference, for host: String?
        ) -> (TLSKeyPair, TLSCertificateFacts)? {
            // That a Secret is not there, or has no certificate in it, the translation has said.
            guard let pair = reference.pair else { return nil }
            let claim = Claim(host: host ?? "", secret: reference.secret)
            let before = state.lastGood[claim].flatMap { pair -> (TLSKeyPair, TLSCertificateFacts)? in
                guard case .good(let facts) = judge(pair) else { return nil }
                return (pair, facts)
            }
            if let before { lastGood[claim] = before.0 }
            let isFresh = before?.1.isValid(at: now) ?? false
            let instead =
                before == nil
                ? "the default certificate serves"
                : isFresh ? "the last good certificate serves" : "the last good certificate serves, which has expired"
            switch judge(pair) {
            case .bad(let problem):
                say(
                    .unusable, "the Secret \(Self.quoted(reference)): \(problem)", reference.place,
                    "put a chain (leaf first) and its own key into tls.crt and tls.key, both PEM; until then \(instead)"
                )
            case .good(let facts):
                if let host, !facts.covers(host) {
                    let names = facts.names.prefix(5).joined(separator: ", ")
                    say(
                        .wrongName,
                        "the certificate in the Secret \(Self.quoted(reference)) is not for \"\(host)\", but for "
                            + (names.isEmpty ? "no DNS name" : names),
                        reference.place, "name a Secret with a certificate for the host; until then \(instead)")
                } else if facts.isValid(at: now) {
                    lastGood[claim] = pair
                    serves(facts, reference)
                    return (pair, facts)
                } else {
                    _ = hasCome(facts.notBefore)
                    let isOver = facts.notAfter < now
                    say(
                        .expired,
                        "the certificate in the Secret \(Self.quoted(reference)) "
                            + (isOver
                                ? "expired on \(Self.day(facts.notAfter))"
                                : "is not valid before \(Self.day(facts.notBefore))"),
                        reference.place,
                        "renew it; until then "
                            + (isFresh ? "the last good certificate serves" : "it serves all the same"))
                    if !isFresh {
                        serves(facts, reference)
                        return (pair, facts)
                    }
                }
            }
            if let before { serves(before.1, reference) }
            return before
        }

        private mutating func judge(_ pair: TLSKeyPair) -> Judgement {
            if let known = judged[pair] ?? state.judged[pair] {
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

        private static func day(_ seconds: Int64) -> String {
            let date = HTTPDate.civil(fromDays: seconds / 86_400)
            func two(_ n: Int) -> String { n < 10 ? "0\(n)" : "\(n)" }
            return "\(date.year)-\(two(date.month))-\(two(date.day))"
        }
    }
}
