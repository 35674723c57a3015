import Model
import Testing

@testable import Routing

/// A snapshot from lines of `host path-pattern`; the nth line is route n. `=/a` is Exact, `/a` is Prefix.
func snapshot(_ rules: [(host: String, path: String)], defaultRoute: Bool = false) -> Snapshot {
    var snapshot = Snapshot()
    var order: [HostPattern] = []
    var routes: [HostPattern: [Int]] = [:]
    for (index, rule) in rules.enumerated() {
        let host: HostPattern =
            rule.host == "*"
            ? .any : rule.host.hasPrefix("*.") ? .wildcard(String(rule.host.dropFirst(2))) : .exact(rule.host)
        let path: PathPattern = rule.path.hasPrefix("=") ? .exact(String(rule.path.dropFirst())) : .prefix(rule.path)
        snapshot.routes.append(
            Route(
                path: path, ingress: ObjectReference(kind: "Ingress", namespace: "shop", name: "web"),
                rule: "rules[\(index)].http.paths[0]", host: host, upstream: nil))
        if routes[host] == nil { order.append(host) }
        routes[host, default: []].append(index)
    }
    snapshot.hosts = order.sorted().map { VirtualHost(pattern: $0, routes: routes[$0] ?? []) }
    if defaultRoute {
        snapshot.defaultRoute = snapshot.routes.count
        snapshot.routes.append(
            Route(
                path: .prefix("/"), ingress: ObjectReference(kind: "Service", namespace: "sys", name: "default"),
                rule: "defaultBackend", host: .any, upstream: nil))
    }
    return snapshot
}

extension RouteTable {
    func match(_ host: String, _ path: String) -> RouteMatch {
        let host = Array(host.utf8)
        let path = Array(path.utf8)
        return match(host: host.span, path: path.span)
    }
}

@Suite("Matching") struct RouteTableTests {
    static let rules: [(host: String, path: String)] = [
        ("shop.test", "/"),  // 0
        ("shop.test", "/cart"),  // 1
        ("shop.test", "/cart/items"),  // 2
        ("shop.test", "=/cart"),  // 3
        ("shop.test", "=/cart/"),  // 4
        ("api.test", "/v1"),  // 5
        ("*.test", "/"),  // 6
        ("*.shop.test", "/img"),  // 7
        ("*", "/any"),  // 8
        ("both.test", "/a"),  // 9
        ("both.test", "/a/"),  // 10
        ("slash.test", "/a/"),  // 11
        ("eight.test", "/1234567"),  // 12: the key fills one word
        ("eight.test", "/12345678/abcdef"),  // 13: two words
        ("root.test", "=/"),  // 14
        ("root.test", "/"),  // 15
        ("empty.test", ""),  // 16: a rule without a path
        ("utf.test", "/süß"),  // 17
        ("twice.test", "/a//b"),  // 18
    ]

    @Test(arguments: [
        ("shop.test", "/", 0), ("shop.test", "/x", 0), ("shop.test", "/cartx", 0),
        ("shop.test", "/cart", 3), ("shop.test", "/cart/", 4), ("shop.test", "/cart/x", 1),
        ("shop.test", "/cart/items", 2), ("shop.test", "/cart/items/", 2), ("shop.test", "/cart/items/7", 2),
        ("shop.test", "/cart/itemsx", 1), ("shop.test", "/CART", 0),
        ("api.test", "/v1", 5), ("api.test", "/v1/x", 5),
        // A known host without such a path does not fall back to `*.test` or to rules without a host.
        ("api.test", "/", -1), ("api.test", "/v2", -1), ("api.test", "/any", -1),
        ("foo.test", "/", 6), ("foo.test", "/any", 6), ("a_b-9.test", "/", 6),
        // The star is one label of letters, digits, - and _.
        ("a.b.test", "/", -1), ("a.b.test", "/any", 8), ("a%2eb.test", "/any", 8), (".test", "/any", 8),
        ("test", "/any", 8), ("a.shop.test", "/img/1", 7), ("a.shop.test", "/", -1), ("a.b.shop.test", "/img", -1),
        ("", "/any/1", 8), ("", "/", -1), ("other.example", "/any", 8), ("other.example", "/anyx", -1),
        ("both.test", "/a", 9), ("both.test", "/a/", 10), ("both.test", "/a/b", 10),
        ("slash.test", "/a", 11), ("slash.test", "/a/", 11), ("slash.test", "/a/b", 11), ("slash.test", "/ab", -1),
        ("eight.test", "/1234567", 12), ("eight.test", "/1234567/", 12), ("eight.test", "/12345678", -1),
        ("eight.test", "/1234567/12345678", 12), ("eight.test", "/12345678/abcdef", 13),
        ("eight.test", "/12345678/abcdefg", -1), ("eight.test", "/12345678/abcdef/g", 13),
        ("root.test", "/", 14), ("root.test", "/x", 15), ("empty.test", "/", 16), ("empty.test", "/x", 16),
        ("utf.test", "/süß/1", 17), ("utf.test", "/süs", -1),
        ("twice.test", "/a//b/c", 18), ("twice.test", "/a/b", -1),
        // Not a path: `OPTIONS *`, and nothing at all.
        ("shop.test", "*", -1), ("shop.test", "", -1), ("shop.test", "cart", -1),
    ])
    func table(host: String, path: String, route: Int) {
        let match = RouteTable(snapshot(Self.rules)).match(host, path)
        #expect(match == RouteMatch(route: Int32(route), kind: route < 0 ? .none : .rule))
        let withDefault = RouteTable(snapshot(Self.rules, defaultRoute: true)).match(host, path)
        #expect(withDefault.route == Int32(route < 0 ? Self.rules.count : route))
        #expect(withDefault.kind == (route < 0 ? .defaultRoute : .rule))
    }

    @Test func anEmptySnapshotMatchesNothing() {
        #expect(RouteTable(Snapshot()).match("shop.test", "/") == RouteMatch(route: -1, kind: .none))
    }

    @Test func ofEqualRulesTheFirstWins() {
        let table = RouteTable(snapshot([("a.test", "/x"), ("a.test", "/x"), ("a.test", "=/x"), ("a.test", "=/x")]))
        #expect(table.match("a.test", "/x").route == 2)
        #expect(table.match("a.test", "/x/y").route == 0)
        #expect(table.shadowed == [1: 0, 3: 2])
    }

    @Test func indicesThatPointNowhereAreLeftOut() {
        var broken = snapshot([("a.test", "/x")])
        broken.hosts[0].routes += [7, -1]
        broken.defaultRoute = 99
        let table = RouteTable(broken)
        #expect(table.match("a.test", "/x").route == 0)
        #expect(table.match("a.test", "/y") == RouteMatch(route: -1, kind: .none))
        #expect(table.explain(host: "a.test", path: "/x").candidates.count == 1)
    }

    @Test func pathsDeeperThanTheMaskAreFound() {
        let deep = (0..<80).map { "/\($0)" }.joined()
        let deeper = deep + "/more/and/more"
        let table = RouteTable(snapshot([("a.test", "/0"), ("a.test", deep), ("a.test", deeper)]))
        #expect(table.match("a.test", deep).route == 1)
        #expect(table.match("a.test", deep + "/x").route == 1)
        #expect(table.match("a.test", deeper + "/x").route == 2)
        #expect(table.match("a.test", "/0" + deep).route == 0)
    }

    /// Whatever changed, and however often: the table is bit by bit the one that would be made anew.
    @Test(arguments: 0..<8) func aTableMadeFromTheOneBeforeIsTheOneMadeAnew(seed: UInt64) {
        var random = Seeded(seed)
        let hosts = ["*", "a.test", "b.test", "*.test", "c.test", "*.a.test", "much-longer-name.d.test"]
        let paths = ["/", "/a", "/a/", "=/a", "=/a/", "/a/b", "/long/er/path", "=/b", "/c"]
        var rules: [(host: String, path: String)] = []
        var table = RouteTable(snapshot([]))
        for step in 0..<300 {
            let rule = (
                host: hosts.randomElement(using: &random) ?? "", path: paths.randomElement(using: &random) ?? ""
            )
            let place = Int.random(in: 0...rules.count, using: &random)
            switch Int.random(in: 0..<3, using: &random) {
            case 0 where place < rules.count: rules.remove(at: place)
            case 1 where place < rules.count: rules[place] = rule
            default: rules.insert(rule, at: place)
            }
            let next = snapshot(rules, defaultRoute: step % 7 == 0)
            let anew = RouteTable(next)
            table = RouteTable(next, previous: table)
            guard table.words == anew.words, table.hosts == anew.hosts, table.shadowed == anew.shadowed else {
                Issue.record("step \(step): \(rules)")
                return
            }
        }
    }

    @Test func aTableMadeFromTheOneBeforeServesTheNewSnapshot() {
        let old = RouteTable(snapshot(Self.rules), generation: 1)
        var endpointsOnly = snapshot(Self.rules)
        endpointsOnly.upstreams = [Upstream(namespace: "shop", service: "web", port: "80")]
        endpointsOnly.routes[0].upstream = 0
        let same = RouteTable(endpointsOnly, generation: 2, previous: old)
        #expect(same.generation == 2 && same.snapshot == endpointsOnly)
        #expect(same.match("shop.test", "/cart/x").route == 1)

        // One path, one host, the default route: each is a change of the rules.
        var rules = Self.rules
        rules[1].path = "/basket"
        #expect(RouteTable(snapshot(rules), previous: old).match("shop.test", "/basket/x").route == 1)
        #expect(RouteTable(snapshot(rules), previous: old).match("shop.test", "/cart/x").route == 0)
        rules[1] = ("other.test", "/cart")
        #expect(RouteTable(snapshot(rules), previous: old).match("other.test", "/cart/x").route == 1)
        let withDefault = RouteTable(snapshot(Self.rules, defaultRoute: true), previous: old)
        #expect(withDefault.match("nowhere.example", "/").kind == .defaultRoute)
        var lessRoutes = snapshot(Self.rules)
        lessRoutes.hosts.removeAll { $0.pattern == .exact("shop.test") }
        #expect(RouteTable(lessRoutes, previous: old).match("shop.test", "/cart").route == 6)
    }

    // MARK: Against a naive matcher

    /// The rules of the file's head comment, said once more in the plainest way.
    static func naive(_ snapshot: Snapshot, _ host: String, _ path: String) -> RouteMatch {
        func label(_ text: Substring) -> Bool {
            !text.isEmpty && text.utf8.allSatisfy { "abcdefghijklmnopqrstuvwxyz0123456789-_".utf8.contains($0) }
        }
        let parts = host.split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
        let chosen =
            snapshot.hosts.first { !host.isEmpty && $0.pattern == .exact(host) }
            ?? snapshot.hosts.first { parts.count == 2 && label(parts[0]) && $0.pattern == .wildcard(String(parts[1])) }
            ?? snapshot.hosts.first { $0.pattern == .any }
        var best: (rank: [Int], route: Int)?
        for route in chosen?.routes ?? [] where path.hasPrefix("/") {
            let rank: [Int]
            switch snapshot.routes[route].path {
            case .exact(let exact):
                guard Array(exact.utf8) == Array(path.utf8) else { continue }
                rank = [1, 0, 0]
            case .prefix(let prefix):
                let bare = prefix.hasSuffix("/") ? String(prefix.dropLast()) : prefix
                guard path == bare || Array(path.utf8).starts(with: Array((bare + "/").utf8)) else { continue }
                // At exactly `/a` the spelling `/a` goes before `/a/`; below it the longer one.
                let isSlashed = prefix.hasSuffix("/")
                rank = [0, bare.utf8.count, path == bare ? (isSlashed ? 0 : 1) : (isSlashed ? 1 : 0)]
            }
            if best.map({ $0.rank.lexicographicallyPrecedes(rank) }) ?? true { best = (rank, route) }
        }
        if let best { return RouteMatch(route: Int32(best.route), kind: .rule) }
        if let route = snapshot.defaultRoute { return RouteMatch(route: Int32(route), kind: .defaultRoute) }
        return RouteMatch(route: -1, kind: .none)
    }

    @Test(arguments: 0..<40) func agreesWithANaiveMatcher(seed: Int) {
        var generator = Seeded(UInt64(seed))
        let elements = ["", "a", "b", "ab", "abcdefg", "abcdefgh", "x-y", "0/", "é"]
        let labels = ["a", "b", "shop", "a-1", "x_y", "%2e"]
        func path(_ most: Int) -> String {
            "/"
                + (0..<Int.random(in: 0...most, using: &generator)).map { _ in
                    elements[Int.random(in: elements.indices, using: &generator)]
                }
                .joined(separator: "/") + (Bool.random(using: &generator) ? "/" : "")
        }
        func host(_ most: Int) -> String {
            (0..<Int.random(in: 1...most, using: &generator)).map { _ in
                labels[Int.random(in: labels.indices, using: &generator)]
            }
            .joined(separator: ".")
        }
        var rules: [(host: String, path: String)] = []
        for _ in 0..<Int.random(in: 0...60, using: &generator) {
            let kind = Int.random(in: 0...9, using: &generator)
            let pattern = kind == 0 ? "*" : kind < 4 ? "*." + host(2) : host(3)
            rules.append((pattern, (Int.random(in: 0...3, using: &generator) == 0 ? "=" : "") + path(4)))
        }
        let snapshot = snapshot(rules, defaultRoute: Bool.random(using: &generator))
        // A hash that is always zero puts every key into one slot: only the comparison of bytes can tell them apart.
        let table = RouteTable(snapshot)
        let colliding = RouteTable(snapshot, generation: 1, hash: ByteHash(start: 0, step: 0, end: 0))
        for _ in 0..<400 {
            let known = rules.randomElement(using: &generator)
            let asked =
                Int.random(in: 0...3, using: &generator) == 0 ? host(3) : known?.host.replacing("*", with: "b") ?? ""
            let below = Bool.random(using: &generator) ? "" : path(2)
            let target =
                Bool.random(using: &generator) ? path(5) : (known?.path.replacing("=", with: "") ?? "/") + below
            let expected = Self.naive(snapshot, asked, target)
            #expect(table.match(asked, target) == expected, "\(asked) \(target) in \(rules)")
            #expect(colliding.match(asked, target) == expected)
            #expect(table.explain(host: asked, path: target).match == expected)
        }
    }
}

/// SplitMix64: the same numbers in every run.
struct Seeded: RandomNumberGenerator {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}
