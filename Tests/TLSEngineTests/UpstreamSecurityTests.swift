import Model
import TLSEngine
import Testing

struct UpstreamSecurityTests {
    private static let authority = try? TLSKeyPair.selfSigned(name: "ca.test", days: 20_000)
    private static let now: Int64 = 1_900_000_000

    private func upstream(_ service: String, _ protocol: UpstreamProtocol, _ tls: UpstreamTLS? = nil) -> Upstream {
        Upstream(namespace: "shop", service: service, port: "443").varied(`protocol`, tls)
    }

    private func snapshot(_ upstreams: Upstream...) -> Snapshot {
        var snapshot = Snapshot()
        snapshot.upstreams = upstreams
        return snapshot
    }

    private func verifying(_ authorities: [UInt8], line: Int = 1) -> UpstreamTLS {
        var tls = UpstreamTLS()
        tls.secret = ObjectReference(kind: "Secret", namespace: "shop", name: "ca")
        tls.verifies = true
        tls.name = "web.shop.svc"
        tls.authorities = authorities
        tls.place = Place(file: "web.yaml", line: line)
        return tls
    }

    @Test func `what did not change stays the same object`() throws {
        let store = UpstreamSecurityStore()
        let chain = try #require(Self.authority).chain
        let plain = upstream("plain", .http)
        let first = store.prepare(
            snapshot(upstream("a", .https), upstream("b", .https, verifying(chain)), plain), now: Self.now)
        #expect(first.diagnostics.isEmpty)
        let names = ["shop/a:443+https", "shop/b:443+https(secret=shop/ca,verify)"]
        #expect(names.allSatisfy { first.table[$0]?.isUsable == true })
        #expect(first.table["shop/plain:443"] == nil)
        // Where it stands in a file is no setting.
        let second = store.prepare(
            snapshot(upstream("a", .https), upstream("b", .https, verifying(chain, line: 9)), plain), now: Self.now)
        #expect(names.allSatisfy { first.table[$0] === second.table[$0] })
        let third = try store.prepare(
            snapshot(
                upstream("a", .https),
                upstream("b", .https, verifying(TLSKeyPair.selfSigned(name: "x", days: 20_000).chain))),
            now: Self.now)
        #expect(third.table[names[0]] === first.table[names[0]])
        #expect(third.table[names[1]] !== first.table[names[1]])
    }

    @Test func `a broken authority keeps the last good one, and is told until it is mended`() throws {
        let store = UpstreamSecurityStore()
        let chain = try #require(Self.authority).chain
        let name = "shop/b:443+https(secret=shop/ca,verify)"
        let broken = snapshot(upstream("b", .https, verifying(Array("garbage".utf8))))
        let none = store.prepare(broken, now: Self.now)
        #expect(none.table[name]?.isUsable == false)
        #expect(none.diagnostics.map(\.code) == ["MG187"])
        #expect(none.diagnostics.first?.mend.hasSuffix("requests to these backends answer 503") == true)
        let good = store.prepare(snapshot(upstream("b", .https, verifying(chain))), now: Self.now)
        #expect(good.table[name]?.isUsable == true)
        for _ in 0..<2 {
            let kept = store.prepare(broken, now: Self.now)
            #expect(kept.table[name] === good.table[name])
            #expect(kept.diagnostics.first?.mend.hasSuffix("the last good settings are used") == true)
        }
        #expect(store.prepare(snapshot(upstream("b", .https, verifying(chain))), now: Self.now).diagnostics.isEmpty)
    }

    @Test func `what ends is told before and after`() throws {
        let store = UpstreamSecurityStore(warning: 14 * 86_400)
        let end = emptyRevocationsEnd
        var tls = verifying(clientAuthority)
        tls.revocations = emptyRevocations
        let listed = snapshot(upstream("a", .https, tls), upstream("b", .h2, tls))
        for (now, codes, staleAt) in [
            (end - 1, [], end), (end, [], end + 1), (end + 1, ["MG338"], Int64(4_000_000_000)),
        ] as [(Int64, [String], Int64)] {
            let made = store.prepare(listed, now: now)
            #expect(made.diagnostics.map(\.code) == codes, "\(now - end)")
            #expect(now > end ? made.staleAt > staleAt : made.staleAt == staleAt)
        }
        var shown = UpstreamTLS()
        shown.secret = ObjectReference(kind: "Secret", namespace: "shop", name: "pair")
        let pair = try TLSKeyPair.selfSigned(name: "a.test", days: 100)
        shown.pair = pair
        shown.verifies = true
        shown.authorities = pair.chain
        let last = try #require(TLSContext(connecting: TLSOptions(), pair: pair).facts).notAfter
        for (days, codes) in [
            (30, []), (10, ["MG166", "MG166"]), (0, ["MG166", "MG166"]), (-1, ["MG338", "MG164"]),
        ] as [(Int64, [String])] {
            let made = store.prepare(snapshot(upstream("a", .https, shown)), now: last - days * 86_400)
            #expect(made.diagnostics.map(\.code) == codes, "\(days)")
        }
        let early = store.prepare(snapshot(upstream("a", .https, shown)), now: last - 30 * 86_400)
        #expect(early.staleAt == last - 14 * 86_400)
    }

    @Test func `what backends can't be verified by is told`() throws {
        let store = UpstreamSecurityStore()
        let other = try #require(Self.authority).chain
        for (authorities, lists, problem) in [
            (dave.chain, [], "there is a certificate and no authority in ca.crt of the Secret \"shop/ca\""),
            (
                other + clientAuthority, daveRevocations,
                "there is no revocation list of the authority \"CN=ca.test\" in ca.crl of the Secret \"shop/ca\""
            ),
            (
                [], daveRevocations,
                "there are revocation lists in ca.crl, and no ca.crt whose they are of the Secret \"shop/ca\""
            ),
            (other + clientAuthority, [], nil), (clientAuthority, daveRevocations, nil), ([], [], nil),
        ] as [([UInt8], [UInt8], String?)] {
            var tls = verifying(authorities)
            tls.revocations = lists
            let made = store.prepare(snapshot(upstream("a", .https, tls)), now: Self.now).diagnostics
            #expect(made.map(\.problem) == (problem.map { [$0] } ?? []))
            #expect(made.map(\.code) == (problem == nil ? [] : ["MG343"]))
        }
    }

    @Test func `keys of others and ciphers that nobody knows are refused`() throws {
        let store = UpstreamSecurityStore()
        var mixed = UpstreamTLS()
        mixed.secret = ObjectReference(kind: "Secret", namespace: "shop", name: "pair")
        mixed.pair = try TLSKeyPair(
            chain: TLSKeyPair.selfSigned(name: "a.test").chain, key: TLSKeyPair.selfSigned(name: "b.test").key)
        var ciphers = UpstreamTLS()
        ciphers.ciphers = "NO-SUCH-CIPHER"
        let result = store.prepare(snapshot(upstream("a", .https, mixed), upstream("b", .h2, ciphers)), now: Self.now)
        #expect(
            result.diagnostics.map(\.problem) == [
                "TLS to backends with the Secret \"shop/pair\" can't be set up: the key does not belong to the certificate",
                "TLS to backends can't be set up: no cipher of the list can be used: no cipher match",
            ])
    }
}
