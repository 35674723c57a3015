import Middlewares
import Model
import Routing
import Testing

@testable import Proxy

@Suite struct RequestExplainerTests {
    private static let ingress = ObjectReference(kind: "Ingress", namespace: "shop", name: "web")

    /// One host, one rule, the upstream `web` with an endpoint and `empty` without, and these scripts.
    private func explain(
        _ text: String, scripts: [String], isSecure: Bool = false, peer: IPAddress = IPAddress(v4: 0x0a00_0009),
        policy: RoutePolicy = RoutePolicy(), configure: (inout ProxyConfiguration) -> Void = { _ in }
    ) throws -> RequestExplanation {
        var snapshot = Scene.snapshot([8001], policy)
        snapshot.upstreams.append(Upstream(namespace: "shop", service: "empty", port: "80"))
        for (index, main) in scripts.enumerated() {
            snapshot.scripts.append(ScriptSource(name: "s\(index)", namespace: "shop", main: main))
            snapshot.routes[0].scripts.append(
                ScriptBinding(
                    script: index, reference: "s\(index)", order: index,
                    arguments: main.contains("backend") ? .map([.init("to", .string("empty:80"))]) : .map([])))
        }
        let preparation = MiddlewareCompiler(loops: 1).prepare(snapshot)
        #expect(preparation.diagnostics.isEmpty)
        var configuration = ProxyConfiguration(
            listen: [Model.SocketAddress(ip: IPAddress(v4: 0x7f00_0001), port: 8080)], loops: 1)
        configure(&configuration)
        let set = try #require(preparation.sets.first)
        return RequestExplainer(
            table: RouteTable(snapshot, generation: 1), middlewares: set, configuration: configuration
        ).explain(head: Array((text + "\r\n").utf8), peer: peer, isSecure: isSecure)
    }

    /// What is no HTTP, by a snapshot with one of each.
    private func explainer(_ configuration: ProxyConfiguration = ProxyConfiguration(listen: [], loops: 1))
        -> RequestExplainer
    {
        var snapshot = Scene.snapshot([8001, 8002])
        snapshot.upstreams.append(Upstream(namespace: "shop", service: "empty", port: "80"))
        let place = Place(object: ObjectReference(kind: "ConfigMap", namespace: "edge", name: "ports"), field: "data")
        snapshot.tcpServices = [
            TCPService(port: 5432, upstream: 0, acceptsProxyProtocol: true, sendsProxyProtocol: .v2, place: place),
            TCPService(port: 5433, upstream: 1, place: place),
        ]
        snapshot.udpServices = [UDPService(port: 53, upstream: 0, place: place)]
        snapshot.passthrough = [PassthroughHost(pattern: .wildcard("raw.test"), upstream: 0, ingress: Self.ingress)]
        return RequestExplainer(
            table: RouteTable(snapshot, generation: 1), middlewares: MiddlewareSet(), configuration: configuration)
    }

    @Test func aPortThatIsNotOpenLeadsNowhere() {
        let here = Model.SocketAddress(ip: IPAddress(v4: 0x7f00_0001), port: 5432)
        var configuration = ProxyConfiguration(listen: [here], loops: 1)
        let ours = "the port is not open: Moongate itself listens there"
        #expect(explainer(configuration).explain(port: 5432, isUDP: false).steps.last?.decision == ours)
        configuration = ProxyConfiguration(listen: [], loops: 1)
        configuration.reservedPorts = [5432, 53]
        #expect(explainer(configuration).explain(port: 5432, isUDP: false).steps.last?.decision == ours)
        #expect(explainer(configuration).explain(port: 53, isUDP: true).steps.last?.decision != ours)
        #expect(
            explainer().explain(port: 5432, isUDP: false, whyClosed: "bind: Address already in use").steps.last?
                .decision
                == "the port is not open: bind: Address already in use")
        #expect(explainer().explain(port: 5432, isUDP: false).steps.last?.part != "answer")
        var snapshot = Snapshot()
        snapshot.tcpServices = [TCPService(port: 5432, upstream: 0), TCPService(port: 5433, upstream: 0)]
        snapshot.udpServices = [UDPService(port: 53, upstream: 0)]
        #expect(ProxyServer.collisions(snapshot, configuration).map(\.code) == ["MG208"])
        #expect(ProxyServer.collisions(snapshot, ProxyConfiguration(listen: [], loops: 1)).isEmpty)
    }

    @Test(
        arguments: [
            (
                5432, false,
                ["listener tcp:5432", "backend shop/web:80"],
                [
                    "of ConfigMap edge/ports, data", "trusted proxies begin with a PROXY protocol header",
                    "endpoint 10.0.0.1:8001", "endpoint 10.0.0.1:8002", "told of the client by the PROXY protocol, v2",
                ]
            ),
            (
                5433, false, ["listener tcp:5433", "answer the port is not open: shop/empty:80 has no endpoint"],
                ["of ConfigMap edge/ports, data"]
            ),
            (
                53, true, ["listener udp:53", "backend shop/web:80"],
                ["of ConfigMap edge/ports, data", "endpoint 10.0.0.1:8001", "endpoint 10.0.0.1:8002"]
            ),
            (53, false, ["answer no TCP service has the port 53: it is not open"], []),
        ] as [(UInt16, Bool, [String], [String])])
    func portsAreKnown(port: UInt16, isUDP: Bool, steps: [String], details: [String]) {
        let told = explainer().explain(port: port, isUDP: isUDP)
        #expect(told.steps.map { "\($0.part) \($0.decision)" } == steps)
        #expect(told.steps.flatMap(\.details) == details)
    }

    @Test(arguments: [("a.raw.test", true, true), ("a.raw.test", false, false), ("shop.test", true, false)])
    func hostsWithPassthroughAreKnown(host: String, isSecure: Bool, isPassed: Bool) {
        let told = explainer().explain(
            head: Array("GET / HTTP/1.1\r\nhost: \(host)\r\n\r\n".utf8), peer: IPAddress(v4: 1), isSecure: isSecure)
        let passed = told.steps.first { $0.part == "passed" }
        #expect((passed != nil) == isPassed)
        guard let passed else { return }
        #expect(passed.decision == "the TLS of a.raw.test is passed on unopened, by the name in its ClientHello")
        #expect(passed.details.first == "*.raw.test, asked for by Ingress shop/web (ssl-passthrough)")
        #expect(told.upstream == "shop/web:80")
        #expect(told.steps.last?.details == ["endpoint 10.0.0.1:8001", "endpoint 10.0.0.1:8002"])
    }

    @Test(arguments: [
        ("/.well-known/acme-challenge/x", false, true), ("/.well-known/acme-challenge/x", true, false),
        ("/x", false, false), ("/.well-known/acme-challenge/x/y", false, false),
    ])
    func challengesAreLetThroughToClosedHosts(path: String, isSecure: Bool, isLetThrough: Bool) {
        var snapshot = Scene.snapshot([8001])
        snapshot.hosts[0].clientAuthentication = ClientAuthentication(ingress: Self.ingress)
        let told = RequestExplainer(
            table: RouteTable(snapshot, generation: 1), middlewares: MiddlewareSet(),
            configuration: ProxyConfiguration(listen: [], loops: 1), clientRules: ClientRules.make(snapshot).rules
        ).explain(
            head: Array("GET \(path) HTTP/1.1\r\nhost: shop.test\r\n\r\n".utf8), peer: IPAddress(v4: 1),
            isSecure: isSecure)
        #expect(told.upstream == (isLetThrough ? "shop/web:80" : nil))
        #expect(told.reason == (isLetThrough ? nil : "client-rules-broken"))
    }

    private static let get = "GET / HTTP/1.1\r\nhost: shop.test\r\n"
    private static let scheme = "return { route = function(req, ctx) ctx:tag('scheme', req.scheme) end }"

    @Test(arguments: [(false, "http"), (true, "https")])
    func theFirstStepIsTheListenerAndScriptsSeeTheScheme(isSecure: Bool, scheme: String) throws {
        let told = try explain(Self.get, scripts: [Self.scheme], isSecure: isSecure)
        #expect(told.steps.first?.part == "listener")
        #expect(told.steps.first?.decision == scheme)
        #expect(told.tags == ["scheme": scheme])
        #expect(told.upstream == "shop/web:80")
        #expect(told.status == nil)
    }

    @Test func aTrustedProxyTellsTheSchemeAndScriptsSeeTheListAsTheUpstreamWill() throws {
        let list = "return { route = function(req, ctx) ctx:tag('for', req.headers:get('x-forwarded-for')) end }"
        let told = try explain(
            Self.get + "x-forwarded-proto: https\r\nx-forwarded-for: 203.0.113.7\r\n", scripts: [Self.scheme, list]
        ) { $0.trustedProxies = [AddressBlock("10.0.0.0/8")].compactMap { $0 } }
        #expect(told.steps.first?.decision == "http")
        #expect(told.tags == ["scheme": "https", "for": "203.0.113.7, 10.0.0.9"])
        let request = try #require(told.steps.first { $0.part == "request" })
        #expect(request.details.contains("client 203.0.113.7, told by a trusted proxy"))
        #expect(request.details.contains("scheme https, told by a trusted proxy"))
    }

    @Test func anAnswerOfAScriptIsToldWithItsFieldsAfterTheResponsePhases() throws {
        let told = try explain(
            Self.get,
            scripts: [
                "return { access = function(req, ctx) return moongate.redirect(308, '/new') end }",
                "return { header_filter = function(req, res, ctx) res.headers:set('x-origin', res.origin) end }",
            ])
        #expect(told.status == 308)
        #expect(told.reason == nil)
        #expect(told.upstream == nil)
        #expect(told.fields.map { $0.lowercased() }.contains("location: /new"))
        #expect(told.fields.contains("x-origin: script"))
        let parts = told.steps.map(\.part)
        #expect(parts.suffix(2) == ["response", "answer"])
        #expect(told.steps.last?.details.contains("x-origin: script") == true)
    }

    @Test func theScriptsThatWillSeeTheUpstreamsResponseAreNamedInTheirOrder() throws {
        let filter = "return { header_filter = function(req, res, ctx) res.headers:set('x-seen', 'yes') end }"
        let told = try explain(Self.get, scripts: [filter, Self.scheme, filter])
        let response = told.steps.filter { $0.part == "response" }
        #expect(response.count == 3)
        #expect(response.dropFirst().map { String($0.decision.prefix(2)) } == ["s2", "s0"])
        #expect(response.last?.details.isEmpty == true, "the second sets what is there already")
        #expect(told.status == nil)
        #expect(told.fields.isEmpty)
    }

    @Test func aResponseScriptThatRefusesOrAnswersIsToldAndDecidesNothing() throws {
        let closed = "return { on_error = 'closed', header_filter = function() error('no') end }"
        let told = try explain(Self.get, scripts: [closed])
        #expect(told.steps.last?.decision == "503 would take its place (script-failed)")
        #expect(told.status == nil)
        let answer = "return { header_filter = function() return moongate.respond(418) end }"
        #expect(
            try explain(Self.get, scripts: [answer]).steps.last?.decision
                == "a script's own 418 would take its place")
    }

    @Test func anErrorPagePassesTheResponseScriptsAndMayChangeByThem() throws {
        let strict = """
            return {
              config = { to = { type = "backend", required = true } },
              route = function(req, ctx) ctx.upstream:use(ctx.config.to, { strict = true }) end,
              header_filter = function(req, res, ctx)
                if res.origin == "moongate" then res.status = 502 end
              end,
            }
            """
        let told = try explain(Self.get, scripts: [strict])
        #expect(told.status == 502)
        #expect(told.reason == "no-endpoint")
        #expect(told.upstream == "shop/empty:80")
        let lenient = strict.replacing(", { strict = true }", with: "")
        let fallback = try explain(Self.get, scripts: [lenient])
        #expect(fallback.status == nil)
        #expect(fallback.upstream == "shop/web:80")
        #expect(fallback.tags == ["fallback": "no_endpoints"])
    }

    @Test func theLogPhaseIsNotRun() throws {
        let log = "return { route = function() end, log = function(req, res, ctx) error('it ran') end }"
        let told = try explain(Self.get, scripts: [log])
        #expect(!told.steps.contains { $0.decision.contains("log") || $0.decision.contains("it ran") })
    }

    @Test func whatAScriptSaysOfTheUpstreamIsTold() throws {
        let script = """
            return { route = function(req, ctx)
              ctx.upstream:timeout("300ms")
              ctx.upstream:retries(0)
              ctx.upstream:hash_key("ada")
            end }
            """
        let endpoint = try #require(
            try explain(Self.get, scripts: [script]).steps.first { $0.part == "endpoint" })
        #expect(endpoint.decision.contains("hash key"))
        #expect(endpoint.details.last?.contains("response head within 300 ms, at most 0 safe retries") == true)
    }

    @Test func aDeclaredBodyBeyondTheLimitIsRefused() throws {
        var policy = RoutePolicy()
        policy.maxBodyBytes = 10
        let post = "POST / HTTP/1.1\r\nhost: shop.test\r\ncontent-length: "
        #expect(try explain(post + "10\r\n", scripts: [], policy: policy).status == nil)
        let told = try explain(post + "11\r\n", scripts: [], policy: policy)
        #expect(told.status == 413)
        #expect(told.reason == "body-too-large")
    }

    @Test func whatIsNoRequestIsRefusedBeforeAnything() throws {
        let told = try explain("GET / HTTP/1.1\r\nx: y\r\n", scripts: [Self.scheme])
        #expect(told.status == 400)
        #expect(told.steps.map(\.part) == ["listener", "answer"])
    }
}
