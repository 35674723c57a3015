import Model
import Testing

@testable import Scripting

/// The modules as a script sees them. Each case is a Lua expression and what it must equal.
@Suite struct ScriptLibraryTests {
    static func machine(
        _ source: String, log: ScriptLog = ScriptLog(), metrics: ScriptMetrics = ScriptMetrics(),
        clock: ScriptClock = clock, cpu: UInt64 = 0
    )
        throws -> (version: ScriptVersion, machine: ScriptVersion.Machine)
    {
        // What the modules answer is asked here, not how fast: a sanitizer is slow.
        var limits = ScriptLimits()
        limits.loadNanoseconds = 10_000_000_000
        limits.cpuNanoseconds = cpu
        do throws(ScriptVersion.Refusal) {
            return try ScriptVersion.build(
                ScriptSource(name: "test", namespace: "t", main: source), .map([]), limits: limits,
                surroundings: ScriptSurroundings(log: log, metrics: metrics, clock: clock, randomSeed: 42))
        } catch {
            Issue.record("\(error)")
            throw error
        }
    }

    static let clock = ScriptClock(wall: { 1_795_542_151_250 }, monotonic: { 5_123_456_789 })

    @Test(arguments: [
        ("moongate.hash.sha256_hex('abc')", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "#moongate.hash.sha256('abc') .. ' ' .. #moongate.hash.sha512('') .. ' ' .. #moongate.hash.sha1('')",
            "32 64 20"
        ),
        ("moongate.hash.md5_hex('abc')", "900150983cd24fb0d6963f7d28e17f72"),
        ("moongate.hash.xxh64_hex('abc')", "44bc2cf5ad770999"),
        ("('%016x'):format(moongate.hash.xxh64('abc'))", "44bc2cf5ad770999"),
        ("moongate.base64.encode('foob')", "Zm9vYg=="), ("moongate.base64.decode('Zm9vYg==')", "foob"),
        ("select(2, moongate.base64.decode('?')).code", "invalid"),
        ("moongate.base64url.encode('\\255\\254')", "__4"),
        ("moongate.base64url.decode('__4') == '\\255\\254'", "true"),
        ("moongate.hex.encode('az')", "617a"), ("moongate.hex.decode('617A')", "az"),
        ("moongate.url.escape('a b/')", "a%20b%2F"), ("moongate.url.decode('a%20b')", "a b"),
        ("tostring(moongate.url.decode('%'))", "nil"),
        ("moongate.url.parse('https://h:8443/p?q#f').port", "8443"), ("moongate.url.parse('https://h/p?q').query", "q"),
        ("select(2, moongate.url.parse('a b')).code", "invalid"),
        ("#moongate.uuid.v4() .. moongate.uuid.v4():sub(15, 15)", "364"),
        ("moongate.uuid.v7():sub(1, 14)", "01a20ea6-f052-"),
        ("moongate.random.int(3, 3)", "3"), ("#moongate.random.bytes(7)", "7"),
        ("moongate.time.now()", "1795542151.25"), ("moongate.time.monotonic()", "5.123"),
        ("moongate.time.format(0)", "1970-01-01T00:00:00Z"),
        ("moongate.time.format(784111777, 'http')", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("moongate.time.format(0.5, '%H:%M:%S.%L')", "00:00:00.500"),
        ("moongate.time.parse('1970-01-02T00:00:00Z')", "86400"),
        ("select(2, moongate.time.parse('x')).code", "invalid"),
        ("moongate.time.parse_http('Sun, 06 Nov 1994 08:49:37 GMT')", "784111777"),
        ("moongate.ip.parse('::FFFF:1.2.3.4').text", "1.2.3.4"), ("moongate.ip.parse('::1').version", "6"),
        ("select(2, moongate.ip.parse('x')).code", "invalid"),
        ("moongate.ip.cidr{'10.0.0.0/8', '::1'}:contains('10.9.9.9')", "true"),
        ("moongate.ip.cidr{'10.0.0.0/8'}:contains('11.0.0.1')", "false"),
        ("tostring(moongate.ip.cidr{'10.0.0.0/8', '::1'})", "10.0.0.0/8,::1/128"),
        ("select(2, moongate.ip.cidr{'x'}).code", "invalid"),
        ("moongate.regex.compile('^a(?<n>[0-9]+)$'):match('a12').n", "12"),
        ("moongate.regex.compile('^a(?<n>[0-9]+)$'):match('a12')[0]", "a12"),
        ("tostring(moongate.regex.compile('b'):match('a'))", "nil"),
        ("tostring(moongate.regex.compile('b'):match(nil))", "nil"),
        ("moongate.regex.compile('b'):test('abc')", "true"), ("moongate.regex.compile('b'):test(nil)", "false"),
        ("table.concat({moongate.regex.compile('(b)'):gsub('abcb', '[$1]')}, ' ')", "a[b]c[b] 2"),
        ("table.concat({moongate.regex.compile('b'):gsub('bbb', 'x', 2)}, ' ')", "xxb 2"),
        ("tostring(moongate.regex.compile('^a+$'))", "^a+$"),
        ("select(2, moongate.regex.compile('(')).code", "syntax"),
        ("select(2, moongate.regex.compile('^(a+)+$'):test(('a'):rep(40) .. '!')).code", "budget"),
        ("select(2, moongate.regex.compile('^' .. ('(?=(.*))'):rep(60)):match(('a'):rep(20000))).code", "too_large"),
        ("moongate.split{name='e', unit='u', variants={a=1}}.variant", "a"),
        ("moongate.split{name='e', unit='u', variants={a=1}, slots='0-0'}.included", "false"),
        ("tostring(moongate.split{name='e', unit='u', variants={a=1}, slots='0-0'}.variant)", "nil"),
        ("moongate.split{name='e', unit='u1', variants={a=1}, layer='pricing'}.bucket", "974"),
        ("moongate.split{name='checkout', unit='u0', variants={a=50, b=25, c=25}}.variant", "a"),
    ])
    func values(_ expression: String, _ expected: String) throws {
        let built = try Self.machine("return { on_error = 'open', version = tostring((\(expression))) }")
        #expect(try built.machine.vm.describe("version").text == expected)
    }

    /// Mistakes of the script are errors at its line, of class `api`.
    @Test(arguments: [
        ("moongate.hash.sha256(nil)", "takes a string"), ("moongate.random.int(2, 1)", "two integers"),
        ("moongate.time.format('x')", "seconds"), ("moongate.time.format(0, '%Q')", "layout"),
        ("moongate.split{name='e', unit='u', varaints={a=1}}", "did you mean \"variants\""),
        ("moongate.split{name='e', unit='u', variants={a=0}}", "weight above 0"),
        ("moongate.split{name='e', unit='u', variants={a=-1}}", "not negative"),
        ("moongate.split{name='e', variants={a=1}}", "needs a unit"),
        ("moongate.split{unit='e', variants={a=1}}", "needs a name"),
        ("moongate.split{name='e', unit='u', variants={a=1}, slots='0-1000'}", "slots"),
        ("moongate.metrics.counter('1x')", "name"), ("moongate.metrics.counter('runs_total')", "Moongate itself"),
        ("moongate.metrics.counter('a'):inc(-1)", "not negative"),
        ("moongate.metrics.counter('a', { le = '1' })", "le"),
        ("moongate.metrics.counter('b'); moongate.metrics.gauge('b')", "is a counter already"),
        ("moongate.kv('x')", "not available"), ("moongate.jwt.verify('x', {})", "not available"),
        ("moongate.sleep(1)", "not available"), ("moongate.hmac.sha256('a', 'b')", "not available"),
        ("moongate.regex.compile('a'):gsub('a', '$9')", "no group"),
    ])
    func mistakes(_ code: String, _ says: String) throws {
        do throws(ScriptVersion.Refusal) {
            _ = try ScriptVersion.build(
                ScriptSource(name: "test", namespace: "t", main: "\n\(code)\nreturn {}"), .map([]),
                limits: ScriptLimits(),
                surroundings: ScriptSurroundings())
            Issue.record("no error")
        } catch {
            guard case .failed(.load, let failure) = error.cause else {
                Issue.record("\(error)")
                return
            }
            #expect(failure.kind == .api)
            #expect(failure.message.contains(says), "\(failure)")
            #expect(failure.line == 2)
        }
    }

    @Test func logIsLimitedAndCounted() throws {
        let log = ScriptLog()
        _ = try Self.machine(
            "for i = 1, 1000 do moongate.log.warn('line ' .. i, { n = i, t = {}, long = ('x'):rep(1000) }) end return {}",
            log: log)
        let lines = log.drain()
        #expect(lines.count == 100)
        #expect(lines.first?.level == .warn && lines.first?.message == "line 1" && lines.first?.script == "t/test")
        #expect(lines.first?.fields.map(\.key) == ["long", "n", "t"])
        #expect(lines.first?.fields.first?.value.utf8.count ?? 0 < 300)
        #expect(log.lost.suppressed == 900)
        #expect(log.drain().isEmpty)
    }

    @Test func theQueueIsBounded() {
        let log = ScriptLog()
        for _ in 0..<ScriptLog.capacity + 5 {
            log.append(
                ScriptLogLine(
                    level: .info, script: "", version: "", message: "", fields: [], suppressed: 0, requestID: ""))
        }
        #expect(log.lost.dropped == 5)
        #expect(log.drain().count == ScriptLog.capacity)
    }

    @Test func aBucketFillsAgain() {
        var bucket = TokenBucket(burst: 2, perSecond: 1)
        let times: [UInt64] = [
            1_000_000_000, 1_000_000_000, 1_000_000_000, 1_500_000_000, 2_100_000_000, 2_100_000_000,
        ]
        let taken = times.map { bucket.take(now: $0) }
        #expect(taken == [true, true, false, false, true, false])
    }

    @Test func metricsAreCapped() throws {
        let metrics = ScriptMetrics()
        let built = try Self.machine(
            """
            for i = 1, 1000 do moongate.metrics.counter("hits_total", { user = "u" .. i }):inc() end
            moongate.metrics.gauge("level"):set(2.5)
            moongate.metrics.gauge("level"):dec()
            local h = moongate.metrics.histogram("took", { kind = "a\\"b" })
            h:observe(0.02) h:observe(3)
            return {}
            """, metrics: metrics)
        var text = ""
        metrics.write(to: &text)
        withExtendedLifetime(built) {}
        let lines = text.split(separator: "\n").map(String.init)
        #expect(lines.filter { $0.hasPrefix("moongate_script_hits_total{") }.count == 65)
        #expect(lines.contains("moongate_script_hits_total{script=\"t/test\",user=\"other\"} 936"))
        #expect(lines.contains("moongate_script_hits_total{script=\"t/test\",user=\"u1\"} 1"))
        #expect(lines.contains("moongate_script_labels_folded_total{script=\"t/test\"} 936"))
        #expect(lines.contains("moongate_script_level{script=\"t/test\"} 1.5"))
        #expect(lines.contains("moongate_script_took_bucket{kind=\"a\\\"b\",script=\"t/test\",le=\"0.025\"} 1"))
        #expect(lines.contains("moongate_script_took_bucket{kind=\"a\\\"b\",script=\"t/test\",le=\"+Inf\"} 2"))
        #expect(lines.contains("moongate_script_took_count{kind=\"a\\\"b\",script=\"t/test\"} 2"))
    }

    @Test func aNameThatAnotherScriptUsesInAnotherWay() throws {
        let metrics = ScriptMetrics()
        func cell(
            _ kind: ScriptMetrics.Kind, _ name: String, of tenant: ScriptMetrics.Tenant
        ) throws -> ScriptMetricCell {
            try metrics.cell(kind, name, [], of: tenant).get().cell
        }
        let (a, b) = (metrics.enter("a"), metrics.enter("b"))
        defer { withExtendedLifetime((a, b)) {} }
        try cell(.counter, "size", of: a).add(2)
        try cell(.gauge, "size", of: b).set(7)
        #expect(throws: ScriptMetrics.Refusal.self) { try cell(.histogram, "size", of: a) }
        var text = ""
        metrics.write(to: &text)
        let lines = text.split(separator: "\n").map(String.init)
        #expect(lines.contains("# TYPE moongate_script_size counter"))
        #expect(lines.contains("moongate_script_size{script=\"a\"} 2"))
        #expect(lines.contains("# TYPE moongate_script_size_gauge gauge"))
        #expect(lines.contains("moongate_script_size_gauge{script=\"b\"} 7"))
    }

    @Test(arguments: [
        "", "1a", "a-b", "a b", "a\"", "ä", String(repeating: "a", count: 129), "runs_total", "cpu_seconds_bucket",
    ])
    func namesOfMetricsThatAreRefused(name: String) {
        #expect(throws: ScriptMetrics.Refusal.self) {
            let metrics = ScriptMetrics()
            return try metrics.cell(.counter, name, [], of: metrics.enter("s")).get()
        }
    }

    /// An edit may make a gauge of a counter: the old version keeps its own until it is gone, and leaves nothing.
    @Test func whatAnEditMakesOfAName() throws {
        let metrics = ScriptMetrics()
        func text() -> [String] {
            var text = ""
            metrics.write(to: &text)
            return text.split(separator: "\n").map(String.init).filter { !$0.hasPrefix("#") }
        }
        func version(_ body: String) throws -> ScriptVersion {
            try Self.machine("\(body) return {}", metrics: metrics).version
        }
        var old: ScriptVersion? = try version(
            "moongate.metrics.counter('size'):inc(3) moongate.metrics.counter('hits'):inc(2)")
        let new = try version("moongate.metrics.gauge('size'):set(7) moongate.metrics.counter('hits'):inc(1)")
        #expect(
            text() == [
                "moongate_script_hits{script=\"t/test\"} 3", "moongate_script_size{script=\"t/test\"} 3",
                "moongate_script_size_gauge{script=\"t/test\"} 7",
            ])
        withExtendedLifetime(old) {}
        old = nil
        #expect(
            text() == ["moongate_script_hits{script=\"t/test\"} 3", "moongate_script_size{script=\"t/test\"} 7"])
        withExtendedLifetime(new) {}
        // A version that was refused leaves nothing either.
        #expect(throws: ScriptVersion.Refusal.self) {
            try ScriptVersion.build(
                ScriptSource(name: "bad", namespace: "t", main: "moongate.metrics.gauge('x'):set(1) error('no')"),
                .map([]), limits: ScriptLimits(), surroundings: ScriptSurroundings(metrics: metrics))
        }
        #expect(!text().contains { $0.contains("t/bad") })
    }

    @Test func namesAmongAllTenants() {
        func name(_ name: String, _ namespace: String, _ ingress: String = "") -> String {
            ScriptSource(name: name, namespace: namespace, ingress: ingress, main: "").qualifiedName
        }
        #expect(name("plugin/cors", "shop") == "shop/plugin/cors")
        #expect(name("inline", "shop", "web") == "shop/inline:web")
        #expect(name("shop/canary:main.lua", "shop") == "shop/canary:main.lua")
        #expect(name("lib/canary:main.lua", "shop") == "shop/lib/canary:main.lua")
        #expect(name("./scripts/ab.lua", "shop") == "shop/scripts/ab.lua")
        // Two Ingresses with the same words in them are two scripts.
        let (a, b) = (
            ScriptSource(name: "inline", namespace: "shop", ingress: "a", main: "return {}"),
            ScriptSource(name: "inline", namespace: "shop", ingress: "b", main: "return {}")
        )
        #expect(
            ScriptVersion.identifier(a, .map([]), ScriptLimits())
                != ScriptVersion.identifier(b, .map([]), ScriptLimits()))
    }

    /// A phase may compile what it likes as long as it does not hold on to it.
    @Test(arguments: [
        "moongate.regex.compile('^/c')", "moongate.regex.compile('^/c' .. n % 3000)",
        "moongate.regex.compile('x' .. n)",
        "moongate.ip.cidr { '10.0.0.0/8' }",
    ])
    func objectsOfRequests(_ expression: String) throws {
        let built = try Self.machine(
            """
            local n = 0
            return { route = function(req, ctx)
              n = n + 1
              local object, err = \(expression)
              if not object then error(n .. ": " .. err.code .. ": " .. err.message) end
            end }
            """)
        let exchange = Sample.exchange()
        for number in 0..<10_000 {
            if case .failed(let failure) = Sample.run(of: built.machine.vm, on: exchange) {
                Issue.record("request \(number): \(failure)")
                return
            }
        }
        #expect(built.machine.vm.memoryInUse < built.machine.vm.memoryLimit)
    }

    /// What PCRE2 holds for a script counts toward its memory.
    @Test func patternsAreMemory() throws {
        let built = try Self.machine(
            """
            local held = {}
            return {
              route = function(req, ctx)
                for i = 1, 4000 do
                  local p, err = moongate.regex.compile("(?:abc|[a-z]{3}x){50}" .. i)
                  if not p then ctx:tag("n", i) ctx:tag("code", err.code) return end
                  held[i] = p
                end
              end,
              access = function() held = {} end,
            }
            """, cpu: 5_000_000_000)
        let vm = built.machine.vm
        let before = vm.memoryInUse
        let exchange = Sample.exchange()
        #expect(Sample.run(of: vm, on: exchange).isNext)
        #expect(exchange.tagText("code") == "budget")
        #expect(vm.memoryInUse - before > vm.memoryLimit / 8)
        #expect(vm.memoryInUse - before < vm.memoryLimit / 2)
        #expect(Sample.run(.access, of: vm, on: exchange).isNext)
        vm.collectGarbage()
        // The last 64 are kept for the next time.
        #expect(vm.memoryInUse - before < vm.memoryLimit / 4)
    }

    @Test func patternsOfTheArgumentsAreMemory() throws {
        let source = "return { config = { p = { type = 'list', of = 'regex' } } }"
        let many = (0..<1500).map { ConfigValue.string("(?:abc|[a-z]{3}x){50}\($0)") }
        do throws(ScriptVersion.Refusal) {
            var limits = ScriptLimits()
            limits.loadNanoseconds = 10_000_000_000
            _ = try ScriptVersion.build(
                ScriptSource(name: "test", namespace: "t", main: source), .map([.init("p", .list(many))]),
                limits: limits, surroundings: ScriptSurroundings())
            Issue.record("taken")
        } catch {
            guard case .failed(_, let failure) = error.cause else {
                Issue.record("\(error)")
                return
            }
            #expect(failure.kind == .memory)
            #expect(failure.message.contains("patterns and blocks of the arguments"))
        }
    }

    @Test func patternsAreLetGo() throws {
        let built = try Self.machine(
            """
            local kept, refused = {}, 0
            for i = 1, 5000 do moongate.regex.compile("a" .. i) end
            for i = 1, 2000 do
              local p, err = moongate.regex.compile("a" .. i)
              if p then kept[#kept + 1] = p else refused = refused + 1 assert(err.code == "budget") end
            end
            return { version = #kept .. " " .. tostring(refused > 0) }
            """)
        let text = try #require(try built.machine.vm.describe("version").text)
        #expect(text.hasSuffix("true"))
        #expect((Int(text.prefix { $0 != " " }) ?? 9999) <= ScriptLibrary.maxObjects)
    }

    @Test func configObjects() throws {
        let source = """
            return {
              config = { p = { type = "regex" }, c = { type = "cidr" }, b = { type = "backend" }, d = { type = "duration" } },
              init = function(conf)
                assert(conf.p:test("a1") and not conf.p:test("b"))
                assert(conf.c:contains("10.1.1.1"))
                assert(tostring(conf.b) == "web:80")
                assert(conf.d == 0.15)
                assert(not pcall(function() conf.d = 1 end))
              end,
            }
            """
        let arguments = ConfigValue.map([
            .init("p", .string("^a")), .init("c", .string("10.0.0.0/8")), .init("b", .string("web:80")),
            .init("d", .string("150ms")),
        ])
        _ = try ScriptVersion.build(
            ScriptSource(name: "test", namespace: "t", main: source), arguments, limits: ScriptLimits(),
            surroundings: ScriptSurroundings())
    }
}

@Suite struct ScriptBreakerTests {
    @Test func opensByRateOnly() {
        var breaker = ScriptBreaker()
        // 49 errors within the window never open it, however long they go on.
        var now: UInt64 = 0
        for _ in 0..<500 {
            now += ScriptBreaker.window / 49 + 1
            breaker.failed(now: now)
            #expect(breaker.state == .closed)
        }
        for _ in 0..<50 { breaker.failed(now: now) }
        #expect(breaker.state == .open)
    }

    @Test func halfOpen() {
        var breaker = ScriptBreaker()
        func admits(_ now: UInt64) -> Bool { breaker.admits(now: now) }
        for _ in 0..<50 { breaker.failed(now: 1) }
        #expect(breaker.state == .open)
        #expect(!admits(ScriptBreaker.pause))
        let later = ScriptBreaker.pause + 2
        #expect(admits(later))
        #expect(breaker.state == .halfOpen)
        // One trial at a time.
        #expect(!admits(later))
        breaker.failed(now: later)
        #expect(breaker.state == .open)
        #expect(!admits(later + 1))
        #expect(admits(later + ScriptBreaker.pause + 1))
        breaker.succeeded()
        #expect(breaker.state == .closed)
        #expect(admits(later))
        breaker.failed(now: later)
        #expect(breaker.state == .closed)
    }
}

@Suite struct ScriptScanTests {
    @Test func words() {
        let scan = ScriptScan(
            """
            --[[ moongate.kv ]] --[==[
            moongate.kv ]==]
            local s = 'moongate.sleep\\' moongate.kv' .. [=[moongate.jwt]=]
            return { ["access"] = 1, access = function() moongate.hmac.verify() moongate . kv('x') end }
            """)
        #expect(
            scan.unavailable == [.init(name: "moongate.hmac.verify", line: 4), .init(name: "moongate.kv", line: 4)])
        #expect(scan.mentionsAccess)
    }

    /// What never loaded may be a guard wherever the word stands, but in a comment that ends and in a longer word.
    @Test(arguments: [
        ("local M = {}\nfunction M.access() end\nreturn M", true), ("function M:access(req)", true),
        ("M[\"access\"] = function() end", true), ("for _, p in ipairs{'access', \"x\\\"y\"} do M[p] = f end", true),
        ("M[ [==[access]==] ] = f", true), ("return { ['access'] = function() end, } x", true),
        ("'it does not end access\n", true), ("[[ it does not end: access", true),
        ("--[[ it does not end: access", true),
        ("-- access\nreturn {}", false), ("--[[ access ]] return {}", false),
        ("return { route = function() accessible() end }", false), ("s = 'access_log'", false),
    ])
    func mayGuard(_ source: String, _ guards: Bool) {
        #expect(ScriptScan(source).mentionsAccess == guards)
        // A module may be where it is made.
        let script = ScriptSource(
            name: "s", namespace: "n", main: "return require('guard')", modules: [.init(name: "guard", source: source)])
        #expect(ScriptScan.mayGuard(script) == guards)
    }

    @Test func functionsOfTheLibrary() {
        let scan = ScriptScan("moongate.respnd(200) local l = moongate.log\nmoongate.log.inof('x') -- moongate.nothing")
        #expect(
            scan.functions == [
                .init(name: "respnd", line: 1), .init(name: "log", line: 1), .init(name: "log.inof", line: 2),
            ])
    }

    @Test func membersOfLater() {
        let scan = ScriptScan(
            """
            ctx:span('x', f) ctx.upstream:mirror(b, 1)
            local up = ctx.upstream; req.body:text()
            local res = moongate.respond(200); res.body = 'x'
            res.body:text()
            ctx.span = 1 mirror()
            """)
        #expect(
            scan.unavailable == [
                .init(name: "ctx:span", line: 1), .init(name: "ctx.upstream:mirror", line: 1),
                .init(name: "req.body", line: 2), .init(name: "res.body", line: 4),
            ])
    }

    /// A member that there is not, and what is meant.
    @Test(arguments: [
        ("return { route = function(req, ctx) local h = req.hedaers end }", "req.hedaers", "req.headers"),
        ("return { route = function(r, c) c.upstrem:use('x') end }", "c.upstrem", "c.upstream"),
        (
            "return { access = function(req, ctx) return req.cookies:gett('a') end }", "req.cookies:gett",
            "req.cookies:get"
        ),
        ("return { log = function(a, b, c) c:tagg('x', b.staus) end }", "c:tagg", "c:tag"),
        (
            "return { route = function(req, ctx) if ctx.ingress.nam == 'x' then end end }", "ctx.ingress.nam",
            "ctx.ingress.name"
        ),
        ("return { route = function(req) local x = 'a' .. req.pth end }", "req.pth", "req.path"),
        (
            "return { route = function(req) return req.headers.host == 'x' end }", "req.headers.host",
            "req.headers:get(\"host\")"
        ),
        (
            "return { header_filter = function(q, res) res.headers.server = 'x' end }", "res.headers.server",
            "res.headers:set(\"server\", …)"
        ),
        ("return { route = function(req) pcall(function() req.zzzzzz() end) end }", "req.zzzzzz", nil),
        ("local M = {}\nfunction M.route(req) local p = req.pth end\nreturn M", "req.pth", "req.path"),
        ("local M = { n = 1 }\nM.route = function(req) local p = req.pth end\nreturn M;", "req.pth", "req.path"),
        ("local M = { route = function(req) local p = req.pth end }\nreturn M", "req.pth", "req.path"),
        ("local function f(req) return req.pth end\nreturn { route = f }", "req.pth", "req.path"),
        ("local route = function(req) return req.pth end\nreturn { route = route, }", "req.pth", "req.path"),
        (
            "return { config = { log = { type = 'string' } }, rewrite = function(req) req.pth = 'x' end }", "req.pth",
            "req.path"
        ),
    ])
    func tellsOfMembersThatThereAreNot(_ source: String, _ name: String, _ nearest: String?) {
        let found = ScriptScan(source).strangers.first
        #expect(found?.name == name)
        #expect(found?.nearest == nearest)
    }

    /// When unsure, it says nothing.
    @Test(arguments: [
        // All that there is.
        """
        return { access = function(req, ctx)
          local a = req.id .. req.method .. req.scheme .. req.host .. req.path .. req.raw_path .. req.http_version
          local b = req.client.tls.cipher or req.client.trusted_proxy or req:bearer() or req:unit{"ip"}
          ctx.state.anything.at = ctx.config.all[1].x ctx.shared.whatever = ctx.shared.other.x
          ctx:tag("a", ctx.ingress.rule) req.query:tostring():sub(1) for k, v in req.headers:pairs() do end
          ctx.upstream:hash_key(req.path:lower().x)
        end, header_filter = function(req, res, ctx)
          local u = res.upstream.address or res.status or res.origin or res.cookies:get("x")
        end }
        """,
        // Comments and strings.
        "return { route = function(req) -- req.hedaers\n --[[ req.x ]] local s = 'req.hedaers' .. [[req.y]] end }",
        // Not the parameter.
        "return { route = function(req) local req = { x = 1 } return req.x end }",
        "return { route = function(req) local a, req <const> = 1, {} return req.x end }",
        "return { route = function(req) for _, req in ipairs{} do f(req.x) end end }",
        "return { route = function(req) for req = 1, 2 do f(req.x) end end }",
        "return { route = function(req) g(function(req) return req.x end) end }",
        "return { route = function(req) local function req() end return req.x end }",
        "return { route = function(req) req = { x = 1 } return req.x end }",
        "return { route = function(req) local a a, req = 1, {} return req.x end }",
        "return { route = function(req) local a req, a = {}, 1 return req.x end }",
        "return { route = function(req) return my.req.x or my:req().x or { req.path } end }",
        "return { route = function(req, req) return req.x end }", "return { route = function(...) return req.x end }",
        "return { route = function(ctx, x) return x.state end, init = function(req) return req.x end }",
        // Not a phase.
        "local t = { log = function(message) print(message.x) end }\nreturn { route = function() t.log{} end }",
        "return { helpers = { log = function(message) return message.x end } }",
        "return wrap { route = function(req) return req.x end }",
        "return { route = wrap(function(req) return req.x end) }",
        "return { log = function(req) return req.x end }, 2",
        "local M = {}\nfunction M.log(m) return m.x end\nfunction M.route() M.log{ x = 1 } end\nreturn M",
        "local M = {}\nfunction M.log(m) return m.x end\nuse(M)\nreturn M",
        "local M = {}\nfunction M:log(m) return m.x end\nreturn M",
        "local M = {}\nM = f(M)\nfunction M.log(m) m.x() end return M",
        "local function f(m) return m.x end\nf{}\nreturn { log = f }",
        "local function f(m) return m.x end\nf = wrap(f)\nreturn { log = f }",
        "if x then return { log = function(m) return m.x end } end", "return { log = function(m) return m.x end",
        "f() return { log = f }", "M.log = function(m) return m.x end return M",
        "end return { log = function(m) return m.x end }", "return function(req) return req.x end",
    ])
    func saysNothingOfOtherMembers(_ source: String) {
        #expect(ScriptScan(source).strangers.isEmpty)
    }

    @Test func saysNotTooMuchOfMembers() {
        let many = (0..<500).map { "req.x\($0)()" }.joined(separator: " ")
        #expect(ScriptScan("return { route = function(req) \(many) end }").strangers.count == 20)
        #expect(ScriptScan("return { route = function(req) f(req.x) f(req.x) end }").strangers.count == 1)
        // A script of the greatest size costs no more than its length.
        let long = "return { route = function(req) f(\(String(repeating: "req,", count: 20_000)) req.x) end }"
        let start = ContinuousClock.now
        _ = ScriptScan(long)
        _ = ScriptScan("return { " + String(repeating: "log=f,", count: 20_000) + " }")
        #expect(ContinuousClock.now - start < .seconds(20))
    }

    @Test(arguments: ["\"", "[[", "--[[", "[==", "'\\", "moongate.", "moongate", ""])
    func unfinished(_ source: String) {
        #expect(ScriptScan(source).unavailable.isEmpty)
    }
}
