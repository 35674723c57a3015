import Glibc
import Model
import Synchronization
import Testing

@testable import TLSEngine

struct CertificateStoreTests {
    private static let now: Int64 = 1_900_000_000

    private func pair(_ name: String) throws -> TLSKeyPair { try .selfSigned(name: name, days: 20_000) }

    /// One Ingress a reference: its rules, what its `spec.tls` lists, and the pair.
    private func snapshot(
        _ items: [(namespace: String, rules: [HostPattern], hosts: [String], pair: TLSKeyPair?)]
    ) -> Snapshot {
        var snapshot = Snapshot()
        for (index, item) in items.enumerated() {
            let ingress = ObjectReference(kind: "Ingress", namespace: item.namespace, name: "i\(index)")
            for rule in item.rules {
                snapshot.routes.append(
                    Route(path: .prefix("/"), ingress: ingress, rule: "", host: rule, upstream: nil))
            }
            snapshot.certificates.append(
                CertificateReference(
                    hosts: item.hosts,
                    secret: ObjectReference(kind: "Secret", namespace: item.namespace, name: "s\(index)"),
                    ingress: ingress, pair: item.pair, place: Place(object: ingress)))
        }
        return snapshot
    }

    @Test(arguments: [
        ("shop.test", "shop/s0"), ("www.shop.test", "shop/s1"), ("a.www.shop.test", "self-signed"), ("", "self-signed"),
        ("else.test", "self-signed"),
    ])
    func `exact goes before the wildcard, and that before the default`(name: String, expected: String) throws {
        let store = try CertificateStore(TLSOptions())
        let (table, diagnostics) = store.prepare(
            snapshot([
                ("shop", [.exact("shop.test")], ["shop.test"], try pair("shop.test")),
                ("shop", [.wildcard("shop.test")], [], try pair("*.shop.test")),
            ]), now: Self.now)
        #expect(diagnostics.isEmpty)
        #expect(table.certificate(for: name).name == expected)
    }

    @Test func `whoever only lists a host takes it from nobody who has a rule for it`() throws {
        let store = try CertificateStore(TLSOptions())
        let table = store.prepare(
            snapshot([
                ("evil", [.exact("evil.test")], ["shop.test", "www.shop.test", "free.test"], try pair("shop.test")),
                ("evil", [], ["free.test", "www.shop.test"], try pair("free.test")),
                ("shop", [.exact("shop.test")], ["shop.test"], try pair("shop.test")),
                ("shop", [.wildcard("shop.test")], ["*.shop.test"], try pair("*.shop.test")),
            ]), now: Self.now
        ).table
        #expect(table.certificate(for: "shop.test").name == "shop/s2")
        #expect(table.certificate(for: "www.shop.test").name == "shop/s3")
        #expect(table.certificate(for: "free.test").name == "evil/s1")
    }

    @Test func `nobody serves a host whose rules belong to another namespace`() throws {
        let store = try CertificateStore(TLSOptions())
        let table = store.prepare(
            snapshot([
                // Without a Secret of its own: the default is what it wants.
                ("shop", [.exact("a.shop.test")], ["else.test"], nil),
                ("evil", [.exact("x.shop.test")], ["a.shop.test"], try pair("a.shop.test")),
                // A wildcard that only its own rule below stands for.
                ("evil", [.exact("x.shop.test")], ["*.shop.test"], try pair("*.shop.test")),
                // An older wildcard, and the exact host of another with a certificate of its own.
                ("evil", [.wildcard("corp.test")], ["www.corp.test"], try pair("www.corp.test")),
                ("shop", [.exact("www.corp.test")], ["www.corp.test"], try pair("www.corp.test")),
                ("shop", [.exact("one.own.test")], ["*.own.test"], try pair("*.own.test")),
            ]), now: Self.now
        ).table
        #expect(table.certificate(for: "a.shop.test").name == "self-signed")
        #expect(table.certificate(for: "b.shop.test").name == "self-signed")
        #expect(table.certificate(for: "www.corp.test").name == "shop/s4")
        #expect(table.certificate(for: "two.own.test").name == "shop/s5")
    }

    @Test func `an unusable certificate leaves the last good one, and without one the default`() throws {
        let store = try CertificateStore(TLSOptions())
        func prepare(_ pair: TLSKeyPair?) -> (served: ServedCertificate, codes: [String]) {
            let (table, diagnostics) = store.prepare(
                snapshot([("shop", [.exact("shop.test")], ["shop.test"], pair)]), now: Self.now)
            return (table.certificate(for: "shop.test"), diagnostics.map(\.code))
        }
        let good = try pair("shop.test")
        let garbage = TLSKeyPair(chain: Array("garbage".utf8), key: Array("garbage".utf8))
        let mixed = try TLSKeyPair(chain: good.chain, key: pair("shop.test").key)
        let short = try TLSKeyPair.selfSigned(name: "shop.test", days: 1)
        let long = TLSKeyPair(chain: Array(repeatElement(good.chain, count: 200).joined()), key: good.key)
        // Nobody is asked for its pass phrase.
        let locked = TLSKeyPair(
            chain: good.chain,
            key: Array(
                """
                -----BEGIN EC PRIVATE KEY-----
                Proc-Type: 4,ENCRYPTED
                DEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF

                AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
                -----END EC PRIVATE KEY-----

                """.utf8))
        #expect(prepare(garbage).served.name == "self-signed")
        let first = prepare(good).served
        #expect(first.name == "shop/s0")
        for (bad, code) in [
            (garbage, "MG163"), (mixed, "MG163"), (long, "MG163"), (locked, "MG163"),
            (short, "MG164"), (try pair("other.test"), "MG165"),
        ] + pairsOnOddCurves.map({ ($0.pair, "MG163") }) {
            let now = prepare(bad)
            #expect(now.served === first)
            #expect(now.codes == [code])
        }
        let renewed = prepare(try pair("shop.test"))
        #expect(renewed.served !== first)
        #expect(renewed.codes.isEmpty)
        // A Secret that is gone is gone: the translation says so.
        #expect(prepare(nil).served.name == "self-signed")
    }

    /// Days that it lasts, the warning in days, and how long before its end, in seconds, what is said of it.
    @Test(
        arguments: [
            (90, 14, 14 * 86_400 + 1, "", 14 * 86_400), (90, 14, 14 * 86_400, "MG166", -1), (90, 14, 0, "MG166", -1),
            (90, 14, -1, "MG164", nil), (90, 0, 0, "", -1), (90, 0, -1, "MG164", nil),
            // A fifth of its time, an hour before its first day included, is less.
            (10, 14, 173_521, "", 173_520), (10, 14, 173_520, "MG166", -1),
        ] as [(Int, Int64, Int64, String, Int64?)])
    func `a certificate is told of before its end and when it is over, and served on`(
        days: Int, warning: Int64, left: Int64, code: String, next: Int64?
    ) throws {
        let store = try CertificateStore(TLSOptions(), warning: warning * 86_400)
        let snapshot = snapshot([
            (
                "shop", [.exact("shop.test"), .exact("www.shop.test")], ["shop.test"],
                try .selfSigned(name: "shop.test", days: days)
            )
        ])
        // Only from its beginning on are its days whole.
        let first = store.prepare(snapshot, now: 0).table
        let (start, end) = (first.staleAt, try #require(first.expiries.first?.notAfter))
        #expect((end - start) / 86_400 == days && first.expiries.map(\.secret.name) == ["s0"])
        let (table, diagnostics) = store.prepare(snapshot, now: end - left)
        #expect(diagnostics.map(\.code) == (code.isEmpty ? [] : [code]))
        #expect(table.staleAt == next.map { end - $0 } ?? .max)
        #expect(table.certificate(for: "shop.test") === first.certificate(for: "shop.test"))
        #expect(table.expiries.map(\.notAfter) == [end])
    }

    @Test(
        arguments: [
            (-14 * 86_400 - 1, "", "", -14 * 86_400), (-14 * 86_400, "expires on", "MG166", 1),
            (1, "expired on", "MG166", nil),
        ]
            as [(Int64, String, String, Int64?)])
    func `an authority of a chain is told of before its end, too`(
        after: Int64, words: String, code: String, next: Int64?
    ) throws {
        let store = try CertificateStore(TLSOptions())
        let leaf = try TLSKeyPair.selfSigned(name: "shop.test", days: 10_000)
        let pair = TLSKeyPair(chain: leaf.chain + Array(intermediateUntil2030.pem.utf8), key: leaf.key)
        let snapshot = snapshot([("shop", [.exact("shop.test")], ["shop.test"], pair)])
        let (table, diagnostics) = store.prepare(snapshot, now: intermediateUntil2030.end + after)
        #expect(diagnostics.map(\.code) == (code.isEmpty ? [] : [code]))
        #expect(
            diagnostics.allSatisfy { $0.problem.contains("an authority in the chain") && $0.problem.contains(words) })
        // What the leaf's own end makes comes long after.
        #expect(
            next == nil
                ? table.staleAt > intermediateUntil2030.end + 1
                : table.staleAt == intermediateUntil2030.end + (next ?? 0))
        #expect(table.certificate(for: "shop.test").name == "shop/s0")
    }

    @Test func `what has expired serves on where there is nothing better`() throws {
        let store = try CertificateStore(TLSOptions())
        let (old, new) = (try TLSKeyPair.selfSigned(name: "shop.test", days: 1), try pair("shop.test"))
        let garbage = TLSKeyPair(chain: Array("garbage".utf8), key: old.key)
        func serving(_ pair: TLSKeyPair, at now: Int64) -> (pair: TLSKeyPair?, codes: [String]) {
            let (table, diagnostics) = store.prepare(
                snapshot([("shop", [.exact("shop.test")], ["shop.test"], pair)]), now: now)
            return (table.certificate(for: "shop.test").pairs.first, diagnostics.map(\.code))
        }
        let end = try #require(
            store.prepare(snapshot([("shop", [.exact("shop.test")], [], old)]), now: 0).table.expiries.first?.notAfter)
        #expect(serving(old, at: end) == (old, ["MG166"]))
        #expect(serving(old, at: end + 1) == (old, ["MG164"]))
        // Better than one that is made up.
        #expect(serving(garbage, at: end + 2) == (old, ["MG163"]))
        #expect(serving(garbage, at: end + 3) == (old, ["MG163"]))
        #expect(serving(new, at: end + 4) == (new, []))
        #expect(serving(old, at: end + 5) == (new, ["MG164"]))
    }

    /// The Secrets of one namespace in the order in which the host's Ingresses name them; `-` has expired, `r` is RSA.
    @Test(arguments: [
        (["e-", "e"], "shop/s1", ["MG164"]), (["e", "e-"], "shop/s0", ["MG164"]), (["e-", "r"], "shop/s1", ["MG164"]),
        (["r-", "e-", "r"], "shop/s2", ["MG164", "MG164"]), (["e-", "r-"], "shop/s0+shop/s1", ["MG164", "MG164"]),
        (["e", "r"], "shop/s0+shop/s1", []), (["e", "e", "r-"], "shop/s0", ["MG164"]),
    ])
    func `what has expired serves beside nothing that is valid`(secrets: [String], name: String, codes: [String]) throws
    {
        let pairs = try secrets.map { kind in
            switch kind {
            case "r": rsaPairs.lasting
            case "r-": rsaPairs.expired
            case "e-": try TLSKeyPair.selfSigned(name: "shop.test", days: 1)
            default: try pair("shop.test")
            }
        }
        let (table, diagnostics) = try CertificateStore(TLSOptions()).prepare(
            snapshot(pairs.map { ("shop", [.exact("shop.test")], ["shop.test"], $0) }), now: Self.now)
        #expect(table.certificate(for: "shop.test").name == name)
        #expect(diagnostics.map(\.code) == codes)
        let end =
            codes.isEmpty
            ? ""
            : secrets.contains { !$0.hasSuffix("-") }
                ? "another certificate of the host serves" : "it serves all the same"
        #expect(diagnostics.allSatisfy { $0.mend.hasSuffix(end) })
    }

    @Test(arguments: [("shop", "shop/s1"), ("other", "shop/s0")])
    func `what has expired goes behind the wildcard above it, if that is the same namespace's`(
        namespace: String, name: String
    ) throws {
        let store = try CertificateStore(TLSOptions())
        let (table, diagnostics) = store.prepare(
            snapshot([
                ("shop", [.exact("a.shop.test")], ["a.shop.test"], try .selfSigned(name: "a.shop.test", days: 1)),
                (namespace, [.wildcard("shop.test")], ["*.shop.test"], try pair("*.shop.test")),
            ]), now: Self.now)
        #expect(table.certificate(for: "a.shop.test").name == name)
        #expect(diagnostics.map(\.code) == ["MG164"])
        #expect(
            diagnostics.first?.mend.hasSuffix(
                namespace == "shop" ? "the certificate of \"*.shop.test\" serves" : "it serves all the same") == true)
    }

    @Test func `a Secret that is emptied, or one that is named instead and is no good, leaves the last good one`()
        throws
    {
        let store = try CertificateStore(TLSOptions())
        let good = try pair("shop.test")
        let garbage = TLSKeyPair(chain: Array("garbage".utf8), key: Array("garbage".utf8))
        let short = try TLSKeyPair.selfSigned(name: "shop.test", days: 1)
        func serving(
            _ secret: String, _ pair: TLSKeyPair?, isEmpty: Bool = false, namespace: String = "shop"
        ) -> (pair: TLSKeyPair?, codes: [String]) {
            var snapshot = snapshot([(namespace, [.exact("shop.test")], ["shop.test"], pair)])
            snapshot.certificates[0].secret.name = secret
            snapshot.certificates[0].isEmpty = isEmpty
            let (table, diagnostics) = store.prepare(snapshot, now: Self.now)
            let served = table.certificate(for: "shop.test")
            return (served.name == "self-signed" ? nil : served.pairs.first, diagnostics.map(\.code))
        }
        #expect(serving("a", nil, isEmpty: true) == (nil, []))
        #expect(serving("a", good) == (good, []))
        // The translation has said that it is empty.
        #expect(serving("a", nil, isEmpty: true) == (good, []))
        #expect(serving("b", garbage) == (good, ["MG163"]))
        #expect(serving("c", nil, isEmpty: true) == (good, []))
        #expect(serving("d", short) == (good, ["MG164"]))
        // Another namespace has nothing of it, nor does who deletes.
        #expect(serving("d", garbage, namespace: "other") == (nil, ["MG163"]))
        #expect(serving("a", good) == (good, []))
        #expect(serving("a", nil) == (nil, []))
        #expect(serving("a", garbage) == (nil, ["MG163"]))
        // Whoever names a good one has that.
        #expect(serving("a", good) == (good, []))
        let new = try self.pair("shop.test")
        #expect(serving("b", new) == (new, []))
        #expect(serving("b", garbage) == (new, ["MG163"]))
    }

    @Test func `hosts that their Ingress does not list have what covers them of its certificates`() throws {
        let store = try CertificateStore(TLSOptions())
        func prepare(_ wide: TLSKeyPair?) throws -> (table: CertificateTable, codes: [String]) {
            var snapshot = snapshot([
                ("shop", [.exact("shop.test"), .exact("a.shop.test"), .exact("else.test")], ["shop.test"], wide),
                // Younger: of another namespace, and of one's own that lists its host.
                ("other", [.exact("a.shop.test")], ["a.shop.test"], try pair("a.shop.test")),
                ("shop", [.exact("b.shop.test")], ["b.shop.test"], try pair("b.shop.test")),
            ])
            snapshot.certificates[0].unlisted = ["a.shop.test", "b.shop.test", "else.test", "c.shop.test"]
            snapshot.routes.append(
                Route(
                    path: .prefix("/b"), ingress: snapshot.certificates[0].ingress, rule: "",
                    host: .exact("b.shop.test"),
                    upstream: nil))
            let (table, diagnostics) = store.prepare(snapshot, now: Self.now)
            return (table, diagnostics.map(\.code))
        }
        let wide = try pair("*.shop.test")
        let (table, codes) = try prepare(wide)
        // It is not for what it is listed for, and that is said; what it happens not to cover is no fault.
        #expect(codes == ["MG165"])
        for (host, name) in [
            ("a.shop.test", "shop/s0"), ("b.shop.test", "shop/s2"), ("else.test", "self-signed"),
            // Nobody has a rule for it.
            ("c.shop.test", "self-signed"), ("shop.test", "self-signed"),
        ] {
            #expect(table.certificate(for: host).name == name, "\(host)")
        }
        // As long as it was good there, garbage does not take it away.
        let kept = try prepare(TLSKeyPair(chain: Array("garbage".utf8), key: []))
        #expect(kept.table.certificate(for: "a.shop.test").pairs == [wide])
        #expect(Set(kept.codes) == ["MG163"])
        // One that is gone leaves the host to who lists it.
        #expect(try prepare(nil).table.certificate(for: "a.shop.test").name == "other/s1")
    }

    @Test func `ten thousand that expire at once are told in a moment`() throws {
        let store = try CertificateStore(TLSOptions())
        let pair = try TLSKeyPair.selfSigned(name: "*.shop.test", days: 1)
        let all = snapshot((0..<10_000).map { ("shop", [.exact("h\($0).shop.test")], ["h\($0).shop.test"], pair) })
        let (table, diagnostics) = store.prepare(all, now: Self.now)
        #expect(diagnostics.count == 10_000 && diagnostics.allSatisfy { $0.code == "MG164" })
        #expect(table.expiries.count == 10_000 && table.staleAt == .max)
    }

    @Test func `contexts are made when they are asked for, and bounded`() throws {
        let cache = ContextCache(most: 4)
        let pair = try pair("shop.test")
        let all = (0..<20).map {
            ServedCertificate(name: "s\($0)", pairs: [pair], options: TLSOptions(), cache: cache)
        }
        #expect(all.allSatisfy { !$0.hasContext })
        for certificate in all {
            #expect(certificate.context() != nil)
            #expect(all.count { $0.hasContext } <= 4)
        }
        #expect(cache.made == 20 && cache.count == 4)
        let last = try #require(all.last)
        #expect(last.context() === last.context())
    }

    @Test func `ticket keys are bounded and never shown`() throws {
        let keys = try #require(TicketKeys())
        keys.set((0..<20).map { _ in TicketKey() })
        #expect("\(TicketKey())" == "TicketKey")
        #expect(TicketKey([1, 2, 3]) == nil)
        #expect(TicketKey() != TicketKey())
    }

    @Test func `a host has a certificate of each kind of key`() throws {
        let store = try CertificateStore(TLSOptions())
        let others = pairsOfOtherKinds.filter { ["RSA", "Ed25519"].contains($0.kind) }.map(\.pair)
        let items = try others + [pair("shop.test")]
        let (table, diagnostics) = store.prepare(
            snapshot(items.map { ("shop", [.exact("shop.test")], ["shop.test"], $0) }), now: Self.now)
        #expect(diagnostics.isEmpty)
        #expect(table.certificate(for: "shop.test").name == "shop/s0+shop/s1+shop/s2")
    }

    @Test func `a chain with a damaged block does not replace a good one`() throws {
        let store = try CertificateStore(TLSOptions())
        let good = try pair("shop.test")
        for (chain, codes) in [
            (good.chain, []), (good.chain + damaged(clientAuthority), ["MG163"]), (good.chain + clientAuthority, []),
        ] as [([UInt8], [String])] {
            let (table, diagnostics) = store.prepare(
                snapshot([("shop", [.exact("shop.test")], [], TLSKeyPair(chain: chain, key: good.key))]), now: Self.now)
            #expect(diagnostics.map(\.code) == codes)
            let serves = table.certificate(for: "shop.test").pairs.first?.chain
            #expect(serves == (codes.isEmpty ? chain : good.chain))
        }
    }

    // MARK: Clients' certificates

    @Test func `hosts that ask for the same share what it was read into, also after it was read anew`() throws {
        let store = try CertificateStore(TLSOptions())
        let pairs = ["a.test": try pair("a.test"), "b.test": try pair("b.test")]
        var contexts: [TLSContext] = []
        for _ in 0..<2 {
            let clients = ClientVerification(authorities: clientAuthority, revocations: emptyRevocations)
            var snapshot = Snapshot()
            snapshot.hosts = ["a.test", "b.test"].map {
                VirtualHost(pattern: .exact($0), routes: [], clientAuthentication: asking(clients))
            }
            snapshot.certificates = snapshot.hosts.map { host in
                CertificateReference(
                    hosts: [host.pattern.description],
                    secret: ObjectReference(kind: "Secret", namespace: "shop", name: host.pattern.description),
                    ingress: ObjectReference(kind: "Ingress", namespace: "shop", name: "web"),
                    pair: pairs[host.pattern.description])
            }
            let table = store.prepare(snapshot, now: Self.now - 10_000_000).table
            contexts += ["a.test", "b.test"].compactMap { table.certificate(for: $0).context() }
        }
        #expect(contexts.count == 4)
        let trust = try #require(contexts.first?.trust)
        #expect(contexts.allSatisfy { $0.trust === trust })
        #expect(contexts[0] !== contexts[1] && contexts[0] === contexts[2])
    }

    @Test func `what differs in one byte is not the same`() {
        let one = ClientVerification(authorities: clientAuthority, revocations: daveRevocations)
        for index in stride(from: 30, to: daveRevocations.count, by: 50) {
            var other = one
            other.revocations[index] ^= 1
            #expect(other != one)
            #expect(Set([one, other]).count == 2)
        }
        #expect(one == ClientVerification(authorities: clientAuthority, revocations: daveRevocations))
        #expect(Set([one, one]).count == 1)
    }

    private func asking(_ clients: ClientVerification?, _ mode: ClientAuthentication.Mode = .required)
        -> ClientAuthentication
    {
        let ingress = ObjectReference(kind: "Ingress", namespace: "shop", name: "web")
        var rule = ClientAuthentication(ingress: ingress, place: Place(object: ingress))
        rule.secret = ObjectReference(kind: "Secret", namespace: "shop", name: "clients")
        rule.mode = mode
        rule.verification = clients
        return rule
    }

    @Test func `each host has the handshake that its own rules ask for, whosever certificate it has`() throws {
        let one = ClientVerification(authorities: try pair("one").chain)
        let two = ClientVerification(authorities: try pair("two").chain, depth: 2)
        let store = try CertificateStore(TLSOptions())
        var snapshot = snapshot([
            ("shop", [.exact("shop.test")], ["shop.test", "listed.test"], try pair("shop.test")),
            ("shop", [.wildcard("shop.test")], ["*.shop.test"], try pair("*.shop.test")),
        ])
        snapshot.hosts = [
            VirtualHost(pattern: .any, routes: [], clientAuthentication: asking(two)),
            VirtualHost(pattern: .wildcard("shop.test"), routes: [], clientAuthentication: asking(one)),
            VirtualHost(pattern: .exact("shop.test"), routes: [], clientAuthentication: asking(two)),
            VirtualHost(pattern: .exact("open.shop.test"), routes: []),
            VirtualHost(pattern: .exact("off.shop.test"), routes: [], clientAuthentication: asking(one, .off)),
            VirtualHost(pattern: .exact("else.test"), routes: []),
        ]
        let (table, diagnostics) = store.prepare(snapshot, now: Self.now)
        #expect(diagnostics.map(\.code) == ["MG165"])
        for (name, certificate, clients) in [
            ("shop.test", "shop/s0", two), ("a.shop.test", "shop/s1", one), ("open.shop.test", "shop/s1", nil),
            ("off.shop.test", "shop/s1", nil), ("else.test", "self-signed", nil), ("", "self-signed", two),
            ("a.else.test", "self-signed", two), ("nobody.test", "self-signed", two),
        ] as [(String, String, ClientVerification?)] {
            let served = table.certificate(for: name)
            #expect(served.name == certificate, "\(name)")
            #expect(served.clients == clients, "\(name)")
            #expect(served.context()?.clients == clients, "\(name)")
        }
        // Nothing changed: nothing is made anew.
        let again = store.prepare(snapshot, now: Self.now).table
        #expect(again.certificate(for: "shop.test") === table.certificate(for: "shop.test"))
        #expect(one.identity.count == 32 && one.identity != two.identity)
    }

    @Test(arguments: [
        ("garbage", "", "MG337"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "", "MG337"), ("good", "garbage", "MG337"),
        ("half", "", "MG337"), ("good", "half", "MG337"),
        ("short", "", "MG338"), ("good", "", ""), ("near", "", "MG166"), ("leaf", "", "MG343"), ("listed", "dave", ""),
        ("pinned", "", ""), ("between", "", "MG343"), ("both ends", "", ""), ("renewed", "old", ""),
        ("both ends", "dave", "MG343"),
        ("listed", "", ""), ("both", "dave", "MG343"), ("both", "", ""), ("leaf and", "", ""), ("leaf and", "dave", ""),
    ])
    func `authorities that can't be used are told, and make no context`(
        authorities: String, revocations: String, code: String
    ) throws {
        let store = try CertificateStore(TLSOptions())
        let pem =
            switch authorities {
            case "good": try pair("good").chain
            case "short", "near": try TLSKeyPair.selfSigned(name: "short", days: 1).chain
            case "half": try pair("good").chain + damaged(clientAuthority)
            case "leaf": dave.chain
            case "pinned": pinned
            case "renewed": renewedAuthorities[0]
            case "between": authorityBetween
            case "both ends": authorityBetween + rootAuthority
            case "leaf and": dave.chain + clientAuthority
            case "listed": clientAuthority
            case "both": try pair("good").chain + clientAuthority
            default: Array(authorities.utf8)
            }
        let lists =
            switch revocations {
            case "half": emptyRevocations + damaged(daveRevocations)
            case "dave": daveRevocations
            case "old": oldRevocations
            default: Array(revocations.utf8)
            }
        let clients = ClientVerification(authorities: pem, revocations: lists)
        var snapshot = Snapshot()
        snapshot.hosts = [
            VirtualHost(pattern: .exact("a.test"), routes: [], clientAuthentication: asking(clients)),
            VirtualHost(pattern: .exact("b.test"), routes: [], clientAuthentication: asking(clients)),
        ]
        let now = authorities == "near" ? Int64(time(nil)) : Self.now
        let (table, diagnostics) = store.prepare(snapshot, now: now)
        #expect(diagnostics.map(\.code) == (code.isEmpty ? [] : [code]))
        #expect(table.unusable == (code == "MG337" ? [clients] : []))
        #expect((table.certificate(for: "a.test").clients == nil) == (code == "MG337"))
    }

    /// What is missing is told where somebody is refused for it.
    @Test(arguments: ClientAuthentication.Mode.allCases)
    func gapsAreToldWhereTheyMatter(mode: ClientAuthentication.Mode) throws {
        for (authorities, lists, problem, isOfTrust) in [
            (dave.chain, [], "there is a certificate and no authority in ca.crt", true),
            (authorityBetween, [], "who has signed the authority \"CN=between\" is not in ca.crt", true),
            (
                authorityBetween + rootAuthority, daveRevocations,
                "there is no revocation list of the authority \"CN=root\" and 1 more in ca.crl", false
            ),
            // It has the name of the other, whose list there is.
            (
                renewedAuthorities[1] + clientAuthority, oldRevocations + daveRevocations,
                "there is no revocation list of the authority \"CN=renewed\" in ca.crl", false
            ),
        ] as [([UInt8], [UInt8], String, Bool)] {
            let store = try CertificateStore(TLSOptions())
            var snapshot = Snapshot()
            let clients = ClientVerification(authorities: authorities, revocations: lists)
            snapshot.hosts = [
                VirtualHost(pattern: .exact("a.test"), routes: [], clientAuthentication: asking(clients, mode))
            ]
            let problems = store.prepare(snapshot, now: Self.now).diagnostics.map(\.problem)
            let isTold = mode != .off && !(mode == .optionalWithoutAuthority && isOfTrust)
            #expect(problems == (isTold ? [problem + " of the Secret \"shop/clients\""] : []))
        }
    }

    @Test(arguments: [(0, false), (79, false), (80, true), (160, true), (161, false), (640, true), (720, false)])
    func `keys of tickets are whole, few, and each another`(count: Int, isGood: Bool) throws {
        let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 / 80 + $0) }
        #expect((TicketKeys.read(bytes) != nil) == isGood)
        if count == 160 { #expect(TicketKeys.read(Array(bytes.prefix(80) + bytes.prefix(80))) == nil) }
        let taken = Mutex<[TicketKey]?>([])
        let store = try CertificateStore(TLSOptions()) { keys in taken.withLock { $0 = keys } }
        var snapshot = Snapshot()
        let secret = ObjectReference(kind: "Secret", namespace: "shop", name: "tickets")
        snapshot.ticketKeys = TicketKeySource(secret: secret, keys: bytes, place: Place(object: secret))
        let diagnostics = store.prepare(snapshot, now: Self.now).diagnostics
        #expect(diagnostics.map(\.code) == (isGood ? [] : ["MG339"]))
        #expect((taken.withLock { $0 }?.count ?? 0) * 80 == (isGood ? count : 0))
    }

    @Test func `keys that can't be read leave the last good ones, and a Secret that is gone does not`() throws {
        let taken = Mutex<[[TicketKey]?]>([])
        let store = try CertificateStore(TLSOptions()) { keys in taken.withLock { $0.append(keys) } }
        let secret = ObjectReference(kind: "Secret", namespace: "shop", name: "tickets")
        let good = TicketKey().bytes
        for keys in [good, [1, 2, 3], good + good, [], nil] {
            var snapshot = Snapshot()
            snapshot.ticketKeys = TicketKeySource(secret: secret, keys: keys, place: Place(object: secret))
            let codes = store.prepare(snapshot, now: Self.now).diagnostics.map(\.code)
            #expect(codes == (keys == good ? [] : ["MG339"]))
        }
        #expect(taken.withLock { $0 } == [[try #require(TicketKey(good))], nil])
    }
}
