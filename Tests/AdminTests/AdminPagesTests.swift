import Foundation
import Model
import Testing

@testable import Admin

func sources(
    illness: String? = nil, unreadiness: String? = nil, snapshot: Snapshot? = nil, diagnostics: [Diagnostic] = []
) -> AdminSources {
    AdminSources(
        illness: { illness }, unreadiness: { unreadiness }, metrics: { "moongate_up 1\n" },
        served: { snapshot.map { ServedSnapshot(snapshot: $0, generation: 7, publishedAt: 1_700_000_000) } },
        diagnostics: { diagnostics },
        explain: { query throws(AdminProblem) in
            if query.request.hasPrefix("BAD") { throw AdminProblem("BAD is not a method") }
            let from = query.from == "127.0.0.1" ? [] : [query.from]
            let told = ([query.request] + query.headers + query.cookies + from).joined(separator: "|")
            return ExplainAnswer(text: told + "\n", json: "{\"told\":true}\n")
        })
}

@Suite("Admin pages") struct AdminPagesTests {
    func ask(
        _ path: String, _ sources: AdminSources, method: String = "GET", query: [(String, String)] = [],
        accept: String? = nil, host: String? = "localhost:9901", isLoopbackOnly: Bool = true
    ) async -> AdminReply {
        await AdminPages(sources: sources, isLoopbackOnly: isLoopbackOnly, metricsContentType: "text/figures").answer(
            AdminQuestion(
                method: method, path: path, query: query.map { (name: $0.0, value: $0.1) }, accept: accept, host: host))
    }

    @Test func healthAndReadiness() async {
        #expect(await ask("/healthz", sources()).status == 200)
        #expect(await ask("/healthz", sources(illness: "a loop is stuck")).body == "a loop is stuck\n")
        #expect(await ask("/healthz", sources(illness: "a loop is stuck")).status == 503)
        #expect(await ask("/readyz", sources()).body == "ok\n")
        let draining = await ask("/readyz", sources(unreadiness: "draining"))
        #expect(draining.status == 503 && draining.body == "draining\n")
    }

    @Test func metricsHaveTheirContentType() async {
        let reply = await ask("/metrics", sources())
        #expect(reply.status == 200 && reply.contentType == "text/figures" && reply.body == "moongate_up 1\n")
    }

    @Test(arguments: [
        ("/nothing", "GET", 404), ("/metrics/", "GET", 404), ("", "GET", 404), ("/METRICS", "GET", 404),
        ("/metrics", "POST", 405), ("/snapshot", "DELETE", 405), ("/metrics", "HEAD", 200), ("/", "GET", 200),
        ("/snapshot", "GET", 503),
    ])
    func statuses(path: String, method: String, status: Int) async {
        let reply = await ask(path, sources(), method: method)
        #expect(reply.status == status)
        #expect((reply.allow != nil) == (status == 405))
    }

    @Test(arguments: [
        ("localhost", true), ("localhost:9901", true), ("LOCALHOST.", true), ("x.localhost", true),
        ("127.0.0.1:80", true), ("127.9.9.9", true), ("[::1]:9901", true), ("[::1]", true), ("[0:0:0:0:0:0:0:1]", true),
        ("evil.example", false), ("localhost.evil.example", false), ("127.0.0.1.evil.example", false),
        ("10.0.0.1", false), ("[::2]", false), ("[::1", false), ("localhost:x", false), ("", false),
        ("localhost:1:2", false), ("[::1]x", false),
    ])
    func onLoopbackOnlyNamesOfThisMachine(host: String, isAnswered: Bool) async {
        #expect(await ask("/healthz", sources(), host: host).status == (isAnswered ? 200 : 403))
        #expect(await ask("/healthz", sources(), host: host, isLoopbackOnly: false).status == 200)
    }

    @Test(
        arguments: [
            (nil, false), ("*/*", false), ("application/json", true), ("APPLICATION/JSON; charset=utf-8", true),
            ("text/html,application/json;q=0.9,*/*;q=0.8", true), ("text/plain, application/json;q=0.5", false),
            ("application/json;q=0", false), ("application/*", true), ("text/plain;q=0.1,application/json;q=0.1", true),
            (";;,,", false), ("application/json;q=x", true),
        ] as [(String?, Bool)])
    func whatAcceptMeans(accept: String?, isJSON: Bool) {
        #expect(AdminPages.wantsJSON(accept) == isJSON)
    }

    @Test func diagnosticsAsTextAndJSON() async throws {
        let place = Place(object: ObjectReference(kind: "Ingress", namespace: "shop", name: "web"), field: "x \"y\"\n")
        let warning = Diagnostic(.warning, "MG142", "bad-size", problem: "p", place: place, mend: "m")
        let note = Diagnostic(.note, "MG001", "hint", problem: "q", place: Place(), mend: "n")
        let all = sources(diagnostics: [warning, note])
        #expect(await ask("/diagnostics", all).body == warning.description + "\n" + note.description + "\n")
        #expect(await ask("/diagnostics", sources()).body == "no diagnostics\n")
        let reply = await ask("/diagnostics", all, accept: "application/json")
        #expect(reply.contentType == "application/json")
        #expect(try JSONDecoder().decode([Diagnostic].self, from: Data(reply.body.utf8)) == [warning, note])
        #expect(await ask("/diagnostics", all, query: [("severity", "warning")]).body == warning.description + "\n")
        let bad = await ask("/diagnostics", all, query: [("severity", "a\nb" + String(repeating: "x", count: 999))])
        #expect(bad.status == 400 && bad.body.utf8.count < 200 && !bad.body.dropLast().contains("\n"))
    }

    @Test func explainHandsTheQuestionOn() async {
        let request = ("request", "GET https://shop.test/cart")
        let reply = await ask(
            "/explain", sources(), query: [request, ("header", "a: b"), ("cookie", "c=d"), ("header", "e: f")])
        #expect(reply.status == 200 && reply.body == "GET https://shop.test/cart|a: b|e: f|c=d\n")
        #expect(
            await ask("/explain", sources(), query: [request, ("from", "10.0.0.9")]).body
                == "GET https://shop.test/cart|10.0.0.9\n")
        let json = await ask("/explain", sources(), query: [request], accept: "application/json")
        #expect(json.contentType == "application/json" && json.body == "{\"told\":true}\n")
    }

    @Test(
        arguments: [
            [], [("request", "")], [("request", "GET /"), ("request", "GET /")],
            [("request", "GET /"), ("heder", "x")],
            [("request", "BAD /")], [("request", String(repeating: "x", count: 20_000))],
        ] as [[(String, String)]])
    func explainRefusesWhatItDoesNotUnderstand(query: [(String, String)]) async {
        let reply = await ask("/explain", sources(), query: query)
        #expect(reply.status == 400)
        #expect(!reply.body.isEmpty && reply.body.utf8.count < 300)
    }

    @Test func theSnapshotLeavesSecretsOut() async throws {
        var snapshot = Snapshot()
        snapshot.scripts = [
            ScriptSource(
                name: "shop/x:main.lua", namespace: "shop", main: "return 'TOPSECRET-SOURCE'",
                modules: [.init(name: "m", source: "TOPSECRET-MODULE")])
        ]
        snapshot.upstreams = [
            Upstream(
                namespace: "shop", service: "web", port: "80",
                endpoints: [
                    Endpoint(SocketAddress(ip: IPAddress(v4: 0x0a00_0001), port: 8080)),
                    Endpoint(host: .name("db.example"), port: 1, isTerminating: true),
                ])
        ]
        let ingress = ObjectReference(kind: "Ingress", namespace: "shop", name: "web")
        let arguments = ConfigValue.map([
            .init("percent", .integer(30)), .init("api_key", .string("TOPSECRET-KEY")),
            .init("nested", .list([.map([.init("clientSecret", .map([.init("x", .string("TOPSECRET-NESTED"))]))])])),
            .init("ratio", .number(.nan)), .init("monkey", .string("seen")), .init("none", .null),
            .init("on", .bool(true)),
        ])
        var policy = RoutePolicy()
        policy.retries = 0
        snapshot.routes = [
            Route(
                path: .exact("/a"), ingress: ingress, rule: "rules[0]", host: .exact("shop.test"), upstream: 0,
                policy: policy,
                scripts: [
                    ScriptBinding(script: 0, reference: "x", order: 1, arguments: arguments),
                    ScriptBinding(script: 99, reference: "gone", order: 2),
                ]),
            Route(path: .prefix("/"), ingress: ingress, rule: "defaultBackend", host: .any, upstream: 55),
        ]
        var rule = ClientAuthentication(ingress: ingress)
        rule.mode = .optional
        rule.secret = ObjectReference(kind: "Secret", namespace: "shop", name: "clients")
        rule.verification = ClientVerification(authorities: Array("TOPSECRET-CA".utf8), depth: 3)
        rule.subjectPattern = "CN=alice"
        snapshot.hosts = [
            VirtualHost(pattern: .exact("shop.test"), routes: [0, 77], clientAuthentication: rule),
            VirtualHost(
                pattern: .exact("shut.test"), routes: [], clientAuthentication: ClientAuthentication(ingress: ingress)),
        ]
        snapshot.defaultRoute = 1
        snapshot.certificates = [
            CertificateReference(
                hosts: ["shop.test"], secret: ObjectReference(kind: "Secret", namespace: "shop", name: "tls"),
                ingress: ingress)
        ]
        let body = await ask("/snapshot", sources(snapshot: snapshot)).body
        #expect(!body.contains("TOPSECRET"))
        let json = try #require(try JSONSerialization.jsonObject(with: Data(body.utf8)) as? [String: Any])
        #expect(json["generation"] as? Int == 7)
        #expect(json["publishedAt"] as? String == "2023-11-14T22:13:20Z")
        for expected in [
            #""pattern" : "shop.test""#, #""upstream" : "shop/web:80""#, #""address" : "10.0.0.1:8080""#,
            #""address" : "db.example:1""#, #""terminating" : true"#, #""monkey" : "seen""#, #""percent" : 30"#,
            #""secret" : "shop/tls""#, #""retries" : 0"#, #""reference" : "gone""#, #""rule" : "defaultBackend""#,
            #""mode" : "optional""#, #""secret" : "shop/clients""#, #""depth" : 3"#, #""hasRevocations" : false"#,
            #""subjectPattern" : "CN=alice""#, #""mode" : "on""#, #""closed" : true"#,
            #""api_key" : "(left out)""#, #""clientSecret" : "(left out)""#,
        ] {
            #expect(body.contains(expected), "\(expected) is not in \(body)")
        }
    }
}
