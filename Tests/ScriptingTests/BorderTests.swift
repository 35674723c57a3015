// The objects of SCRIPTING.md §3 over an exchange: reading, editing, phases, stale handles, and no trace of a failure.

import Model
import Testing

@testable import Scripting

@Suite struct BorderTests {
    @Test(arguments: [
        ("req.id", "req-1"), ("req.method", "GET"), ("req.scheme", "http"), ("req.host", "shop.test"),
        ("req.path", "/cart"), ("req.raw_path", "/cart"), ("req.http_version", "1.1"),
        ("req.nothing", "nil"), ("req.client.ip", "127.0.0.1"), ("req.client.port", "4711"),
        ("req.client.trusted_proxy", "false"), ("req.client.tls", "nil"),
        ("req.headers:get('x-canary')", "always"), ("req.headers:get('X-CANARY')", "always"),
        ("req.headers:get('missing')", "nil"), ("req.headers:get('')", "nil"),
        ("req.headers:get('accept')", "text/html"), ("table.concat(req.headers:all('Accept'), '|')", "text/html|*/*"),
        ("#req.headers:all('missing')", "0"), ("req.headers:has('cookie')", "true"),
        ("req.headers:has('cooki')", "false"),
        ("req.cookies:get('uid')", "u1"), ("table.concat(req.cookies:all('uid'), '|')", "u1|u2"),
        ("req.cookies:get('canary')", "never"), ("req.cookies:get('UID')", "nil"),
        ("req.cookies:has('canary')", "true"),
        ("req.query:get('size')", "42"), ("req.query:get('colour')", "dark blue"),
        ("table.concat(req.query:all('size'), '|')", "42|7"),
        ("req.query:tostring()", "size=42&colour=dark+blue&size=7"),
        ("req.query:get('x')", "nil"), ("req:bearer()", "abc.def"),
        ("req:unit{'cookie:none', 'cookie:uid', 'ip'}", "u1"), ("req:unit{'header:x-canary'}", "always"),
        ("req:unit{'query:size'}", "42"), ("req:unit{'ip'}", "127.0.0.1"), ("req:unit{'cookie:none'}", "nil"),
        ("req:unit{}", "nil"), ("ctx.ingress.namespace", "shop"), ("ctx.ingress.name", "web"),
        ("ctx.ingress.rule", "rules[0]"), ("ctx:deadline()", "nil"), ("tostring(ctx.config.canary)", "backend 0"),
        ("type(ctx.config)", "table"), ("tostring(req)", "req"), ("type(req)", "userdata"), ("req == req", "true"),
        ("getmetatable(req)", "false"), ("ctx.shared.x", "nil"), ("type(ctx.state)", "table"),
        ("rawequal(ctx.state, ctx.state)", "true"),
    ])
    func reads(_ expression: String, _ expected: String) throws {
        #expect(try Sample.value("return \(expression)") == expected, "\(expression)")
    }

    @Test(arguments: [
        ("res.status", "200"), ("res.origin", "upstream"), ("res.headers:get('content-type')", "text/plain"),
        ("res.cookies:get('sid')", "1"), ("res.upstream.backend", "shop/web:80"), ("res.upstream.attempts", "0"),
        ("req.path", "/cart"),
    ])
    func readsTheResponse(_ expression: String, _ expected: String) throws {
        for phase in [ScriptPhase.headerFilter, .log] {
            #expect(try Sample.value("return \(expression)", phase: phase) == expected)
        }
    }

    @Test func pairsWalksWhatWasThereInWireOrder() throws {
        let text = try Sample.value(
            """
            local t = {}
            for name, value in pairs(req.headers) do
              t[#t + 1] = name .. "=" .. value
              if name:lower() == "accept" then req.headers:remove(name) req.headers:append("x-new", value) end
            end
            return table.concat(t, ";")
            """)
        #expect(
            text
                == "Host=shop.test;X-Canary=always;Accept=text/html;accept=*/*;Cookie=uid=u1; canary=never;cookie=uid=u2;"
                + "Authorization=Bearer abc.def;Connection=keep-alive")
        #expect(
            try Sample.value(
                "local t = {} for n, v in req.cookies:pairs() do t[#t + 1] = n .. '=' .. v end return table.concat(t, ';')"
            )
                == "uid=u1;canary=never;uid=u2")
        #expect(
            try Sample.value(
                "local t = {} for n, v in req.query:pairs() do t[#t + 1] = n .. '=' .. v end return table.concat(t, ';')"
            )
                == "size=42;colour=dark blue;size=7")
    }

    @Test func editsTheRequest() throws {
        let vm = try Sample.vm(
            """
            return { rewrite = function(req, ctx)
              req.headers:set("X-Canary", "never")
              req.headers:set("x-list", { "a", "b" })
              req.headers:append("x-list", "c")
              req.headers:remove("Accept")
              req.headers:set("x-number", 7)
              req.headers:set("authorization", {})
              req.query:set("size", "1 2&3")
              req.query:append("added", "yes")
              req.query:remove("colour")
              req.path = "/basket/x%41"
              req.host = "Other.test:8443"
              ctx:tag("path", req.path)
              ctx:tag("host", req.host)
            end }
            """)
        let exchange = Sample.exchange()
        guard case .next = Sample.run(.rewrite, of: vm, on: exchange) else {
            Issue.record("failed")
            return
        }
        #expect(
            exchange.requestLines == [
                "Host: Other.test:8443", "X-Canary: never", "Cookie: uid=u1; canary=never", "cookie: uid=u2",
                "Connection: keep-alive", "x-list: a", "x-list: b", "x-list: c", "x-number: 7",
            ])
        #expect(exchange.request.text(exchange.request.queryRange) == "size=1%202%263&added=yes")
        #expect(exchange.tagText("path") == "/basket/xA")
        #expect(exchange.tagText("host") == "other.test")
    }

    @Test func editsTheResponse() throws {
        let vm = try Sample.vm(
            """
            return { header_filter = function(req, res, ctx)
              res.status = 203
              res.headers:set("content-type", "text/html")
              res.headers:append("vary", "cookie")
              res.cookies:set("mg_id", "u7", {
                path = "/", max_age = "30d", http_only = true, same_site = "lax", secure = true, domain = "shop.test" })
              res.cookies:set("sid", "2")
              res.cookies:remove("old", { path = "/" })
              ctx:tag("sid", res.cookies:get("sid"))
            end }
            """)
        let exchange = Sample.exchange()
        guard case .next = Sample.run(.headerFilter, of: vm, on: exchange) else {
            Issue.record("failed")
            return
        }
        #expect(exchange.response.status == 203)
        #expect(
            exchange.responseLines == [
                "Content-Type: text/html", "vary: cookie",
                "set-cookie: mg_id=u7; Path=/; Domain=shop.test; Max-Age=2592000; Secure; HttpOnly; SameSite=Lax",
                "set-cookie: sid=2",
                "set-cookie: old=; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
            ])
        #expect(exchange.tagText("sid") == "2")
    }

    @Test func decides() throws {
        let vm = try Sample.vm(
            """
            return { route = function(req, ctx)
              ctx.upstream:use(ctx.config.canary, { strict = true })
              ctx.upstream:hash_key("u7")
              ctx.upstream:timeout("1500ms")
              ctx.upstream:retries(2)
              ctx:tag("a", "x") ctx:tag("a", "y") ctx:tag("n", 3) ctx:tag("f", 0.5) ctx:tag("b", true)
            end }
            """)
        let exchange = Sample.exchange()
        Sample.run(of: vm, on: exchange)
        #expect(exchange.upstream == 3)
        #expect(exchange.isUpstreamChosen && exchange.isUpstreamStrict)
        #expect(exchange.hashKey != 0)
        #expect(exchange.responseTimeout == 1500)
        #expect(exchange.retries == 2)
        #expect(["a", "n", "f", "b"].map { exchange.tagText($0) } == ["y", "3", "0.5", "true"])
    }

    /// CR, LF, NUL and bad grammar in every setter are errors of class `api` at the script's line.
    @Test(arguments: [
        (ScriptPhase.route, "req.headers:set('x', 'a\\r\\nb: c')"), (.route, "req.headers:set('x', 'a\\nb')"),
        (.route, "req.headers:set('x', 'a\\0b')"), (.route, "req.headers:append('x', 'a\\rb')"),
        (.route, "req.headers:set('x y', 'a')"), (.route, "req.headers:set('', 'a')"),
        (.route, "req.headers:set('x\\r\\n', 'a')"), (.route, "req.headers:set('x:', 'a')"),
        (.route, "req.headers:remove('x y')"), (.route, "req.headers:set('x', {'a', 'b\\n'})"),
        (.route, "req.headers:set('x', {1, {}})"), (.route, "req.headers:set('x', true)"),
        (.route, "req.headers:set('x')"), (.route, "req.headers:set('content-length', '1')"),
        (.route, "req.headers:set('Transfer-Encoding', 'chunked')"), (.route, "req.headers:set('connection', 'close')"),
        (.route, "req.headers:set('upgrade', 'x')"), (.route, "req.headers:set('te', 'x')"),
        (.route, "req.headers:set('trailer', 'x')"), (.route, "req.headers:set('host', 'x')"),
        (.route, "req.headers:remove('content-length')"), (.route, "req.cookies:set('a', 'b')"),
        (.route, "req.host = 'a b'"), (.route, "req.host = ''"), (.route, "req.host = 'a\\r\\nb'"),
        (.route, "req.host = 7"),
        (.rewrite, "req.path = 'x'"), (.rewrite, "req.path = '/a\\r\\nb'"), (.rewrite, "req.path = '/a?b'"),
        (.rewrite, "req.path = '/../x'"), (.rewrite, "req.path = '/%00'"), (.rewrite, "req.path = nil"),
        (.rewrite, "req.path = {}"), (.rewrite, "req.raw_path = '/x'"), (.rewrite, "req.method = 'POST'"),
        (.headerFilter, "res.headers:set('x', 'a\\r\\nb: c')"),
        (.headerFilter, "res.headers:set('content-length', '0')"),
        (.headerFilter, "res.status = 99"), (.headerFilter, "res.status = 600"), (.headerFilter, "res.status = 'x'"),
        (.headerFilter, "res.status = 204"), (.headerFilter, "res.cookies:set('a b', 'c')"),
        (.headerFilter, "res.cookies:set('a', 'b;c')"), (.headerFilter, "res.cookies:set('a', 'b\\r\\n')"),
        (.headerFilter, "res.cookies:set('a', 'b', {path = '/;x'})"),
        (.headerFilter, "res.cookies:set('a', 'b', {domain = 'x\\n'})"),
        (.headerFilter, "res.cookies:set('a', 'b', {same_site = 'x'})"),
        (.headerFilter, "res.cookies:set('a', 'b', {colour = 'x'})"),
        (.headerFilter, "res.cookies:set('a', 'b', {secure = 1})"),
        (.route, "ctx:tag('', 'x')"), (.route, "ctx:tag('x', {})"), (.route, "ctx:tag('x', ('x'):rep(1000))"),
        (.route, "ctx.upstream:use('web:80')"), (.route, "ctx.upstream:use(ctx.config.lost)"),
        (.route, "ctx.upstream:use(ctx.config.canary, true)"),
        (.route, "ctx.upstream:use(ctx.config.canary, 'strict')"),
        (.route, "ctx.upstream:use(ctx.config.canary, {true})"), (.rewrite, "req.headers:set('x', {id = '7'})"),
        (.rewrite, "req.query:set('q', {id = '7'})"),
        (.rewrite, "return moongate.respond(200, {['x-a'] = {k = 'v'}}, 'hi')"),
        (.route, "ctx.upstream:use(ctx.config.canary, {stict = true})"), (.route, "ctx.upstream:timeout('x')"),
        (.route, "ctx.upstream:retries(-1)"), (.route, "ctx.upstream:hash_key({})"),
        (.route, "ctx.shared.x = ctx.config.canary"),
        (.route, "ctx.shared.x = { f = function() end }"), (.route, "ctx.shared.x = { [req] = 1 }"),
        (.route, "ctx.shared.x = { ('x'):rep(40000), ('x'):rep(40000) }"), (.route, "ctx.shared.x = req"),
        (.route, "moongate.redirect(302, '/', { keep_qurey = true })"), (.route, "moongate.redirect(302, '/', { 1 })"),
        (.route, "ctx.upstream:mirror(ctx.config.canary, 1)"), (.route, "ctx:span('x', function() end)"),
        (.route, "local b = req.body"), (.route, "req.body:text()"), (.headerFilter, "res.body:text()"),
        (.headerFilter, "res.upstream.address = 'x'"),
        (.route, "req:unit{'jwt:sub'}"), (.route, "req:unit{'cookie:'}"), (.route, "req:unit{7}"),
        (.route, "moongate.respond(200, {['x y'] = 'a'})"), (.route, "moongate.respond(200, {x = 'a\\r\\nb'})"),
        (.route, "moongate.respond(200, {x = {'a', 'b\\0'}})"), (.route, "moongate.respond(200, {x = {{}}})"),
        (.route, "moongate.respond(200, {[1] = 'x'})"), (.route, "moongate.respond(99)"),
        (.route, "moongate.respond(1000)"),
        (.route, "moongate.respond(200, {['content-length'] = '1'})"), (.route, "moongate.redirect(200, '/')"),
        (.route, "moongate.redirect(302, '/\\r\\nx: y')"), (.route, "moongate.json(200, print or function() end)"),
        (.route, "moongate.json.encode(0/0)"), (.route, "moongate.json.encode({[true] = 1})"),
        (.route, "req.headers.get('x')"), (.route, "req.headers.get(req, 'x')"),
    ])
    func refuses(_ phase: ScriptPhase, _ body: String) throws {
        let failure = try #require(try Sample.failure(body, phase: phase), "\(body) was allowed")
        #expect(failure.kind == .api, "\(body): \(failure)")
        #expect(failure.line == 2 && failure.sourceLine == body, "\(body): \(failure)")
    }

    /// What a phase may not do says so.
    @Test(arguments: [
        (ScriptPhase.log, "req.headers:set('x', 'y')", "editing req.headers is not available in log"),
        (.log, "res.headers:set('x', 'y')", "editing res.headers is not available in log"),
        (.log, "res.status = 200", "setting res.status is not available in log"),
        (.headerFilter, "req.headers:set('x', 'y')", "editing req.headers is not available in header_filter"),
        (.headerFilter, "req.query:set('x', 'y')", "editing req.query is not available in header_filter"),
        (.headerFilter, "ctx.upstream:use(ctx.config.canary)", "choose the upstream in route"),
        (.access, "ctx.upstream:use(ctx.config.canary)", "choose the upstream in route"),
        (.access, "req.path = '/'", "setting req.path is not available in access"),
        (.route, "req.path = '/'", "setting req.path is not available in route"),
        (.log, "return moongate.respond(200)", "log returned a response"),
        (.route, "return 'x'", "route returned a string; return nothing, or a response made by moongate.respond"),
        (.route, "return {}", "route returned a table"),
        (.route, "return true", "route returned a boolean"),
    ])
    func phaseRules(_ phase: ScriptPhase, _ body: String, _ message: String) throws {
        let failure = try #require(try Sample.failure(body, phase: phase))
        #expect(failure.kind == .api)
        #expect(failure.message.contains(message), "\(failure)")
    }

    @Test(arguments: ["ctx:tag('a', 'b')", "return nil", "return", "local x = res.status", "ctx.state.x = 1"])
    func logMay(_ body: String) throws {
        #expect(try Sample.failure(body, phase: .log) == nil)
    }

    // MARK: No trace

    /// Everything that a script can edit, then an error: the exchange is as it was.
    @Test(arguments: [
        ("error('x')", false), ("while true do end", false), ("local s = ('x'):rep(1e9)", false), ("return 7", false),
        ("return moongate.respond(204, nil, 'body')", false), ("", true),
    ])
    func leavesNoTrace(_ end: String, _ isShadow: Bool) throws {
        for phase in [ScriptPhase.rewrite, .route, .headerFilter] {
            let edits =
                switch phase {
                case .rewrite: "req.path = '/x' req.host = 'x.test' req.headers:set('host-like', 'y')"
                case .route:
                    """
                    req.headers:set('X-Canary', 'z') req.headers:append('n', '1') req.headers:remove('accept')
                    req.query:set('a', 'b') ctx.upstream:use(ctx.config.canary, {strict = true}) ctx.upstream:hash_key('x')
                    ctx.upstream:timeout(1) ctx.upstream:retries(1) ctx.shared.old = 'changed' ctx.shared.new = 'x'
                    """
                default: "res.status = 500 res.headers:set('content-type', 'z') res.cookies:set('a', 'b')"
                }
            let arguments = phase == .headerFilter ? "req, res, ctx" : "req, ctx"
            let vm = try Sample.vm(
                """
                return { \(phase.name) = function(\(arguments)) \(edits) ctx:tag('kept', 'changed') ctx:tag('new', 'x')
                \(end)
                end }
                """, limits: Sample.limits(milliseconds: 5))
            let exchange = Sample.exchange()
            exchange.tag(Array("kept".utf8).span, Array("before".utf8).span)
            let shared = ScriptShared()
            Sample.run(
                of: try Sample.vm("return {route = function(q, c) c.shared.old = 'before' end}"), on: exchange,
                shared: shared)
            let before = Picture(exchange, shared)
            let request = try #require(vm.begin())
            let outcome = vm.run(
                phase, request, on: exchange, with: Sample.scene, shared: shared, discardsEdits: isShadow)
            vm.end(request)
            if isShadow {
                guard case .next = outcome else {
                    Issue.record("\(outcome)")
                    continue
                }
            } else {
                guard case .failed = outcome else {
                    Issue.record("\(phase) \(end) did not fail")
                    continue
                }
            }
            #expect(Picture(exchange, shared) == before, "\(phase) \(end)")
        }
    }

    struct Picture: Equatable {
        var request: [String]
        var response: [String]
        var rest: [String]

        init(_ exchange: Exchange, _ shared: ScriptShared) {
            request = exchange.requestLines
            response = exchange.responseLines
            let head = exchange.request
            rest = [head.pathRange, head.queryRange, head.hostRange, head.authorityRange].map { head.text($0) }
            rest += [
                "\(exchange.response.status)", "\(exchange.upstream)", "\(exchange.isUpstreamChosen)",
                "\(exchange.isUpstreamStrict)", "\(exchange.hashKey)", "\(exchange.responseTimeout)",
                "\(exchange.retries)",
                exchange.tagText("kept") ?? "-", exchange.tagText("new") ?? "-", "\(exchange.tags.count)",
                "\(exchange.request.bytes.count)", "\(exchange.response.bytes.count)", "\(exchange.tagBytes.count)",
                "\(shared.values)",
            ]
        }
    }

    // MARK: State and handles

    @Test func stateIsSharedByThePhasesOfOneRequest() throws {
        let vm = try Sample.vm(
            """
            return {
              route = function(req, ctx) ctx.state.n = (ctx.state.n or 0) + 1 ctx.state.req = req end,
              header_filter = function(req, res, ctx)
                ctx:tag("n", ctx.state.n) ctx:tag("same", ctx.state.req == req) ctx:tag("path", ctx.state.req.path)
              end,
            }
            """)
        for _ in 0..<3 {
            let exchange = Sample.exchange()
            let request = try #require(vm.begin())
            _ = vm.run(.route, request, on: exchange, with: Sample.scene)
            _ = vm.run(.headerFilter, request, on: exchange, with: Sample.scene)
            vm.end(request)
            #expect(["n", "same", "path"].map { exchange.tagText($0) } == ["1", "true", "/cart"])
        }
    }

    @Test func requestsAtOnceHaveTheirOwnState() throws {
        let vm = try Sample.vm(
            """
            return { route = function(req, ctx) ctx.state.n = req.path end,
                     header_filter = function(req, res, ctx) ctx:tag("n", tostring(ctx.state.n)) end }
            """)
        var open: [(VMRequest, Exchange)] = []
        for i in 0..<20 {
            let exchange = Sample.exchange(path: "/\(i)")
            let request = try #require(vm.begin())
            _ = vm.run(.route, request, on: exchange, with: Sample.scene)
            open.append((request, exchange))
        }
        for (request, exchange) in open.reversed() {
            _ = vm.run(.headerFilter, request, on: exchange, with: Sample.scene)
            vm.end(request)
        }
        #expect(open.map { $0.1.tagText("n") } == (0..<20).map { "/\($0)" })
    }

    @Test(arguments: [
        "kept.path", "kept.headers", "kept.headers:get('x')", "kept:bearer()", "keptHeaders:get('x-canary')",
        "keptHeaders:set('x', 'y')", "keptContext:tag('a', 'b')", "keptContext.state", "keptContext.upstream:use(1)",
        "keptUpstream:use(1)", "keptShared.x", "keptPairs.x",
    ])
    func staleHandlesAreErrors(_ expression: String) throws {
        let vm = try Sample.vm(
            """
            local kept, keptHeaders, keptContext, keptUpstream, keptShared, keptPairs
            return {
              rewrite = function(req, ctx)
                kept, keptHeaders, keptContext, keptUpstream, keptShared = req, req.headers, ctx, ctx.upstream, ctx.shared
                keptPairs = ctx.shared
              end,
              route = function(req, ctx)
                local x = \(expression)
              end,
            }
            """)
        Sample.run(.rewrite, of: vm)
        guard case .failed(let failure) = Sample.run(of: vm) else {
            Issue.record("\(expression) worked")
            return
        }
        #expect(failure.kind == .api)
        #expect(failure.message.contains("belongs to a request that has ended"), "\(failure)")
        #expect(failure.line == 8)
    }

    @Test func handlesOfAnotherOpenRequestAreErrors() throws {
        let vm = try Sample.vm(
            """
            local kept
            return { route = function(req, ctx) if kept then return kept.path end kept = req end }
            """)
        let first = try #require(vm.begin())
        let second = try #require(vm.begin())
        _ = vm.run(.route, first, on: Sample.exchange(), with: Sample.scene)
        guard case .failed(let failure) = vm.run(.route, second, on: Sample.exchange(), with: Sample.scene) else {
            Issue.record("read another request")
            return
        }
        #expect(failure.message.contains("is not the running one"))
        vm.end(first)
        vm.end(second)
    }

    @Test func apiOutsideOfARequestIsAnError() throws {
        do {
            _ = try Sample.vm(
                """
                return { init = function(config)
                  local t = moongate.respond(200)
                  assert(tostring(config.canary) == "backend 0")
                  local function later() end
                end }
                """)
        } catch let failure as ScriptFailure {
            Issue.record("\(failure)")
        }
    }

    // MARK: Responses

    @Test func respond() throws {
        let vm = try Sample.vm(
            """
            return { access = function(req, ctx)
              local r = moongate.respond(401, { ["www-authenticate"] = 'Bearer realm="api"', ["X-B"] = { "2", "1" }, a = 7 }, "no")
              r.headers["x-late"] = "yes"
              return r
            end }
            """)
        guard case .responded(let response) = Sample.run(.access, of: vm) else {
            Issue.record("no response")
            return
        }
        #expect(response.status == 401)
        #expect(
            response.fields.map {
                String(decoding: $0.name, as: UTF8.self) + ": " + String(decoding: $0.value, as: UTF8.self)
            }
                == ["X-B: 2", "X-B: 1", "a: 7", "www-authenticate: Bearer realm=\"api\"", "x-late: yes"])
        #expect(response.body == Array("no".utf8))
        let exchange = Sample.exchange()
        response.apply(to: exchange)
        #expect(exchange.response.status == 401 && exchange.origin == .script && exchange.ownBody == Array("no".utf8))
        #expect(exchange.responseLines.count == 5)
    }

    @Test(arguments: [
        ("moongate.redirect(308, '/new')", "/new"),
        ("moongate.redirect(302, '/new', {keep_query = true})", "/new?size=42&colour=dark+blue&size=7"),
        ("moongate.redirect(302, '/new?a=1#top', {keep_query = true})", "/new?a=1&size=42&colour=dark+blue&size=7#top"),
        ("moongate.redirect(301, 'https://x.test/')", "https://x.test/"),
        ("moongate.redirect(302, '/a b/caf\u{e9}%20')", "/a%20b/caf%C3%A9%20"), ("moongate.redirect(302, ' ')", "%20"),
    ])
    func redirect(_ expression: String, _ location: String) throws {
        let vm = try Sample.vm("return { rewrite = function(req, ctx) return \(expression) end }")
        guard case .responded(let response) = Sample.run(.rewrite, of: vm) else {
            Issue.record("no response")
            return
        }
        #expect(response.fields.count == 1)
        #expect(response.fields.first?.value == Array(location.utf8))
    }

    @Test func jsonResponse() throws {
        let vm = try Sample.vm(
            "return { access = function() return moongate.json(200, { b = { 1, 2.5 }, a = 'x' }) end }")
        guard case .responded(let response) = Sample.run(.access, of: vm) else {
            Issue.record("no response")
            return
        }
        #expect(String(decoding: response.body, as: UTF8.self) == #"{"a":"x","b":[1,2.5]}"#)
        #expect(response.fields.map { String(decoding: $0.value, as: UTF8.self) } == ["application/json"])
    }

    @Test func aResponseIsCheckedWhenItIsReturned() throws {
        for body in [
            "local r = moongate.respond(200) r.headers.x = 'a\\nb' return r",
            "local r = moongate.respond(200) r.status = 'x' return r",
            "local r = moongate.respond(200) r.body = {} return r",
            "local r = moongate.respond(200) r.headers = 7 return r",
            "local r = moongate.respond(200) r.headers.x = {{}} return r",
            "local r = moongate.respond(200) r.status = 100 return r",
        ] {
            let failure = try #require(try Sample.failure(body), "\(body)")
            #expect(failure.kind == .api, "\(body): \(failure)")
        }
    }

    // MARK: JSON

    @Test(arguments: [
        ("nil", "null"), ("{}", "{}"), ("moongate.json.array()", "[]"), ("moongate.json.array({})", "[]"),
        ("{1, 2, 3}", "[1,2,3]"),
        ("{a = 1, [2] = 'x'}", #"{"2":"x","a":1}"#), ("1", "1"), ("1.0", "1.0"), ("0.1", "0.1"), ("1e300", "1e+300"),
        ("math.mininteger", "-9223372036854775808"), ("'a\"\\\\\\n\\0\\31'", #""a\"\\\n\u0000\u001f""#),
        ("'é'", "\"é\""),
        ("{moongate.json.null, false}", "[null,false]"), ("ctx.config.list", #"["b",{"c":1}]"#),
        ("{{}, {{}}}", "[{},[{}]]"),
    ])
    func encodes(_ expression: String, _ expected: String) throws {
        let vm = try Sample.vm(
            "return { route = function(req, ctx) ctx:tag('out', moongate.json.encode(\(expression))) end }",
            config: [("list", .list([.string("b"), .map([("c", .integer(1))])]))])
        let exchange = Sample.exchange()
        Sample.run(of: vm, on: exchange)
        #expect(exchange.tagText("out") == expected)
    }

    /// What of a request is data is written as data.
    @Test(arguments: [
        ("ctx.ingress", #"{"name":"web","namespace":"shop","rule":"rules[0]"}"#),
        (
            "{by = {ctx.ingress.name, ctx.ingress}}",
            #"{"by":["web",{"name":"web","namespace":"shop","rule":"rules[0]"}]}"#
        ),
        ("req.client", #"{"ip":"127.0.0.1","port":4711,"trusted_proxy":false}"#),
        (
            "{ctx.ingress, req.client}",
            #"[{"name":"web","namespace":"shop","rule":"rules[0]"},{"ip":"127.0.0.1","port":4711,"trusted_proxy":false}]"#
        ),
    ])
    func encodesTheDataOfARequest(_ expression: String, _ expected: String) throws {
        #expect(try Sample.value("return moongate.json.encode(\(expression))") == expected)
        // The texts are borrowed: nothing may take them away meanwhile.
        let many = try Sample.value(
            """
            local t = {} for i = 1, 2000 do t[i] = \(expression) end
            local text = moongate.json.encode(t)
            return text == "[" .. (moongate.json.encode(t[1]) .. ","):rep(1999) .. moongate.json.encode(t[1]) .. "]"
            """, limits: Sample.limits(milliseconds: 5_000))
        #expect(many == "true")
    }

    @Test(arguments: [
        ("req", "req has no JSON; encode what is needed of it, as {method = req.method"), ("ctx", "encode ctx.ingress"),
        ("{req.headers}", "req.headers has no JSON; make a table of it: local t = {} for name, value in pairs("),
        ("req.cookies", "req.cookies has no JSON"), ("req.query", "req.query has no JSON"),
        ("ctx.upstream", "ctx.upstream has no JSON"), ("ctx.shared", "encode the values that are needed"),
        ("ctx.config.canary", "a backend has no JSON"), ("{a = function() end}", "a function has no JSON"),
        ("coroutine.create(function() end)", "a coroutine has no JSON"),
    ])
    func saysWhatHasNoJSON(_ expression: String, _ message: String) throws {
        for body in ["moongate.json.encode(\(expression))", "return moongate.json(200, \(expression))"] {
            let failure = try #require(try Sample.failure(body))
            #expect(failure.kind == .api && failure.message.contains(message), "\(failure)")
        }
    }

    @Test(arguments: [
        "[]", "{}", "[1,2.5,\"x\",true,false,null,[],{}]", #"{"a":{"b":[1]},"c":"\u0000"}"#, "-0.5",
        "9223372036854775807",
        "\"\"", "[[],[[]]]", "1e+300", "{\"a\":[]}",
    ])
    func decodesWhatItEncodes(_ text: String) throws {
        #expect(try Sample.value("return moongate.json.encode(moongate.json.decode([==[\(text)]==]))") == text)
    }

    @Test(arguments: [
        #"" \u00e9\ud83d\ude00\/\b\f\n\r\t\"\\""#: " é😀/\u{8}\u{c}\n\r\t\"\\", "1E2": "100.0",
        "18446744073709551616": "1.844674407371e+19",
        "  [ 1 , 2 ]  ": "table", "null": "null", "-0": "0", "-1": "-1",
    ])
    func decodes(_ text: String, _ expected: String) throws {
        #expect(
            try Sample.value(
                "return (tostring(moongate.json.decode([==[\(text)]==])):gsub('(%.%d%d%d%d%d%d%d%d%d%d%d%d)%d*', '%1'))"
            ) == expected)
    }

    @Test(arguments: [
        "", " ", "nul", "[1,]", "[1", "[,]", "{", "{1:2}", "{\"a\" 1}", "{\"a\":1,}", "\"", "\"\\x\"", "\"\\u12\"",
        "\"\\ud800\"",
        "\"\\ud800x\"", "\"\\udc00\"", "01", "1.", ".5", "+1", "1e", "--1", "0x1", "nan", "[1]x", "\"\u{1}\"", "tru",
        "'a'", "1e999",
    ])
    func refusesJSON(_ text: String) throws {
        #expect(
            try Sample.value(
                "local v, e = moongate.json.decode([==[\(text)]==]) return tostring(v) .. ' ' .. e.code .. ' ' .. type(e.message)"
            )
                == "nil syntax string", "\(text)")
    }

    @Test func jsonIsBounded() throws {
        #expect(try Sample.value("local _, e = moongate.json.decode(('['):rep(1000)) return e.code") == "too_deep")
        #expect(
            try Sample.value("local v = moongate.json.decode(('['):rep(60) .. (']'):rep(60)) return type(v)") == "table"
        )
        #expect(try Sample.failure("local t = {} for i = 1, 100 do t = {t} end moongate.json.encode(t)")?.kind == .api)
        #expect(
            try Sample.failure(
                "local s = ('x'):rep(200000) moongate.json.encode({s, s, s})", limits: Sample.limits(milliseconds: 500))?
                .kind == .api)
    }

    // MARK: Config

    @Test func configIsAFrozenTree() throws {
        let vm = try Sample.vm(
            """
            return { route = function(req, ctx)
              local c = ctx.config
              local names = {}
              for k in pairs(c.map) do names[#names + 1] = k end
              table.sort(names)
              ctx:tag("out", table.concat({ #c.list, c.list[2], table.concat(c.list, "+"), table.concat(names, ","), c.map.a.weight,
                tostring(next(c.empty)), tostring(next(c.map) ~= nil), rawlen(c.list), tostring(c.none), select("#", table.unpack(c.list)),
                tostring(c.flag), c.number }, " "))
              for i, v in ipairs(c.list) do ctx:tag("i" .. i, v) end
            end }
            """,
            config: [
                ("list", .list([.string("x"), .string("y")])),
                ("map", .map([("a", .map([("weight", .number(0.5))])), ("b", .map([("weight", .integer(2))]))])),
                ("empty", .map([LuaValue.Entry]())), ("flag", .bool(true)), ("number", .number(2.5)),
            ])
        let exchange = Sample.exchange()
        let outcome = Sample.run(of: vm, on: exchange)
        #expect(exchange.tagText("out") == "2 y x+y a,b 0.5 nil true 2 nil 2 true 2.5", "\(outcome)")
        #expect(exchange.tagText("i2") == "y")
    }

    @Test func describesTheScript() throws {
        let vm = try Sample.vm(
            """
            return { on_error = "closed", route = function() end,
              config = { percent = { type = "percent", default = 0, max = 50.5 }, list = { "b", "a" }, check = function() end } }
            """)
        #expect(try vm.describe("on_error") == .string("closed"))
        #expect(try vm.describe("missing") == .nil)
        #expect(
            try vm.describe("config")
                == .map([
                    ("check", .opaque), ("list", .list([.string("b"), .string("a")])),
                    (
                        "percent",
                        .map([("default", .integer(0)), ("max", .number(50.5)), ("type", .string("percent"))])
                    ),
                ]))
        #expect(vm.phases == .route)
    }

    // MARK: Shared

    @Test func aHostThatAFailedPhaseSetLeavesNoTrace() throws {
        let vm = try Sample.vm("return { rewrite = function(req) req.host = 'other.test' error('no') end }")
        let exchange = Sample.exchange()
        guard case .failed = Sample.run(.rewrite, of: vm, on: exchange) else {
            Issue.record("it did not fail")
            return
        }
        #expect(exchange.request.text(exchange.request.authorityRange) == "shop.test")
        #expect(exchange.request.replacedAuthorityRange == .empty)
    }

    @Test func sharedIsForAllScriptsOfTheRequest() throws {
        let writer = try Sample.vm(
            "return { route = function(q, ctx) ctx.shared.user = 'u7' ctx.shared.n = 3 ctx.shared.x = true end }")
        let reader = try Sample.vm(
            "return { route = function(q, ctx) ctx:tag('out', tostring(ctx.shared.user) .. tostring(ctx.shared.n) .. tostring(ctx.shared.x)) ctx.shared.user = nil end }"
        )
        let exchange = Sample.exchange()
        let shared = ScriptShared()
        Sample.run(of: writer, on: exchange, shared: shared)
        Sample.run(of: reader, on: exchange, shared: shared)
        #expect(exchange.tagText("out") == "u73true")
        #expect(shared.values.count == 2)
    }

    /// Trees are copied from machine to machine; a write into a copy would be lost, and is an error.
    @Test func sharedTrees() throws {
        let writer = try Sample.vm(
            "return { route = function(q, ctx) ctx.shared.user = { id = 7, roles = { 'a', 'b' }, ['x-y'] = { n = 1.5 } } end }"
        )
        let reader = try Sample.vm(
            """
            return { route = function(q, ctx)
              local u = ctx.shared.user
              local good, why = pcall(function() u.roles[1] = 'x' end)
              local roles = {}
              for i, r in ipairs(u.roles) do roles[i] = r end
              ctx:tag("out", table.concat({ u.id, #u.roles, table.concat(roles, ","), u["x-y"].n, tostring(good) }, " "))
              ctx:tag("why", why)
            end }
            """)
        let exchange = Sample.exchange()
        let shared = ScriptShared()
        #expect(Sample.run(of: writer, on: exchange, shared: shared).isNext)
        #expect(Sample.run(of: reader, on: exchange, shared: shared).isNext)
        #expect(exchange.tagText("out") == "7 2 a,b 1.5 false")
        #expect(exchange.tagText("why")?.hasSuffix("a table of ctx.shared is read-only") == true)
    }

    /// What SCRIPTING.md names and this version does not have says so.
    @Test(arguments: [
        (
            ScriptPhase.route, "ctx.upstream:mirror(1)",
            "ctx.upstream:mirror is not available in this version of Moongate"
        ),
        (.route, "ctx:span('x')", "ctx:span is not available in this version of Moongate"),
        (.route, "req.body:text()", "req.body is not available in this version of Moongate"),
        (.headerFilter, "res.body:text()", "res.body is not available in this version of Moongate"),
        (.route, "req:unit{'cookie:none', 'jwt:sub'}", "\"jwt:sub\" is not available in this version of Moongate"),
        (.rewrite, "req.method = 'POST'", "req.method cannot be set"),
        (.route, "moongate.redirect(302, '/', { keep_qurey = true })", "option 'keep_qurey'; there is keep_query"),
    ])
    func notYet(_ phase: ScriptPhase, _ body: String, _ says: String) throws {
        let failure = try #require(try Sample.failure(body, phase: phase))
        #expect(failure.kind == .api && failure.message.contains(says), "\(failure)")
    }

    @Test func aSourceOfLaterIsSkippedWhereAnotherServes() throws {
        #expect(try Sample.value("return req:unit{'jwt:sub', 'cookie:uid'}") == "u1")
        #expect(try Sample.value("return req:unit{'cookie:uid', 'jwt:sub'}") == "u1")
    }

    @Test func aResponseWithoutAnUpstream() throws {
        let vm = try Sample.vm(
            "return { log = function(req, res, ctx) ctx:tag('out', tostring(res.upstream.address) .. tostring(next(res.upstream))) end }"
        )
        let exchange = Sample.exchange()
        exchange.origin = .script
        exchange.attempts = 0
        #expect(Sample.run(.log, of: vm, on: exchange).isNext)
        #expect(exchange.tagText("out") == "nilnil")
    }
}
