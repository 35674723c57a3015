import Model
import Testing

@testable import Routing

@Suite("Explaining a match") struct RouteExplanationTests {
    let table = RouteTable(
        snapshot([
            ("shop.test", "/"), ("shop.test", "/cart"), ("shop.test", "=/cart"), ("shop.test", "/other"),
            ("shop.test", "/cart"), ("*.test", "/"), ("*", "/"),
        ]))

    @Test func theWinnerThenThoseThatMatchedTooThenTheOthers() {
        let told = table.explain(host: "shop.test", path: "/cart")
        #expect(told.match == RouteMatch(route: 2, kind: .rule))
        #expect(told.hostSteps == [.init(kind: .exact, pattern: .exact("shop.test"))])
        #expect(
            told.candidates == [
                .init(route: 2, verdict: .chosen), .init(route: 0, verdict: .outranked(by: 2)),
                .init(route: 1, verdict: .outranked(by: 2)), .init(route: 4, verdict: .shadowed(by: 1)),
                .init(route: 3, verdict: .pathDiffers),
            ])
        #expect(
            told.conclusion
                == "Exact /cart of host shop.test matches: Ingress shop/web, rules[2].http.paths[0]")
    }

    @Test func hostsAreTriedFromTheNarrowestToTheWidest() {
        let wild = table.explain(host: "other.test", path: "/")
        #expect(wild.hostSteps.map(\.pattern) == [nil, .wildcard("test")])
        let any = table.explain(host: "a.b", path: "/")
        #expect(any.hostSteps.map(\.kind) == [.exact, .wildcard, .any])
        #expect(any.hostSteps.map(\.pattern) == [nil, nil, .any])
        #expect(any.match.route == 6)
    }

    @Test func whyNothingMatched() {
        let narrow = RouteTable(snapshot([("shop.test", "/cart"), ("*", "/")]))
        #expect(
            narrow.explain(host: "shop.test", path: "/x").conclusion
                == "host shop.test has no path that matches, and other hosts do not stand in; "
                + "there is no default backend: 404")
        let hostOnly = RouteTable(snapshot([("shop.test", "/cart")], defaultRoute: true))
        #expect(
            hostOnly.explain(host: "x.test", path: "/").conclusion
                == "no rule speaks of host \"x.test\"; the default backend answers")
    }

    @Test func aHostWithManyRulesIsCutShortAndSaysSo() {
        let many = RouteTable(snapshot((0..<200).map { ("a.test", "/p\($0)") }))
        let told = many.explain(host: "a.test", path: "/p150/x")
        #expect(told.candidates.count == 51)
        #expect(told.candidates.first == .init(route: 150, verdict: .chosen))
        #expect(told.omitted == 149)
    }
}
