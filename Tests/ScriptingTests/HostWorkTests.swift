// The hostile corpus, continued: work that a script has done for it, by functions of the host and by single steps of Lua,
// is paid for in time and memory as if the script had done it.

import Model
import Testing

@testable import Scripting

@Suite struct HostWorkTests {
    /// `top` runs before the phases, with `s` a long string; `body` is the route phase.
    private static func machine(
        top: String = "", _ body: String, phase: ScriptPhase = .route, milliseconds: UInt64 = 20
    ) throws -> ScriptVM {
        var limits = Sample.limits(milliseconds: milliseconds)
        limits.loadNanoseconds = 10_000_000_000
        let arguments = phase == .headerFilter ? "req, res, ctx" : "req, ctx"
        return try ScriptVersion.build(
            ScriptSource(
                name: "test", namespace: "t",
                main: """
                    local s = ("x"):rep(500000)
                    \(top)
                    return { access = function() end, \(phase.name) = function(\(arguments))
                    \(body)
                    end }
                    """), .map([]), limits: limits, surroundings: ScriptSurroundings()
        ).machine.vm
    }

    /// A request head of some 60 KiB.
    private static func largeExchange() -> Exchange {
        let cookies = (0..<6).map { _ in ("Cookie", String(repeating: "a=b; ", count: 1600)) }
        return Sample.exchange(
            query: String(repeating: "a=b&", count: 2000), headers: [("Host", "shop.test")] + cookies)
    }

    // MARK: Memory

    private static let many = "local t = {} for i = 1, 400 do t[i] = s end"
    private static let named = "local t = {} for i = 1, 400 do t['k' .. i] = s end"

    @Test(arguments: [
        (many, "moongate.log.info('m', t)"), (named, "moongate.log.info('m', t)"),
        (named, "moongate.metrics.counter('n', t)"), (many, "moongate.ip.cidr(t)"),
        (named, "moongate.split { name = 'n', unit = 'u', variants = t }"),
        (named, "ctx.shared.x = t"), (named, "ctx.upstream:timeout(1, t)"),
        ("local t = {} for i = 1, 400 do t[('k'):rep(5000) .. i] = i end", "moongate.log.info('m', t)"),
    ])
    func tablesHandedOver(_ top: String, _ body: String) throws {
        guard case .failed(let failure) = Sample.run(of: try Self.machine(top: top, body, milliseconds: 2000)) else {
            Issue.record("\(body) was allowed")
            return
        }
        #expect(failure.kind == .api)
        #expect(failure.message.contains("a table is too large to hand over"), "\(failure.message)")
        // It names the line.
        #expect(failure.line == 4)
    }

    @Test func attributesOfCookies() throws {
        let vm = try Self.machine(
            top: Self.named, "res.cookies:set('a', 'b', t)", phase: .headerFilter, milliseconds: 2000)
        guard case .failed(let failure) = Sample.run(.headerFilter, of: vm) else {
            Issue.record("allowed")
            return
        }
        #expect(failure.message.contains("a table is too large to hand over"), "\(failure.message)")
    }

    @Test func whatTheScriptReturns() throws {
        do throws(ScriptVersion.Refusal) {
            var limits = ScriptLimits()
            limits.loadNanoseconds = 10_000_000_000
            _ = try ScriptVersion.build(
                ScriptSource(
                    name: "test", namespace: "t",
                    main: "local s = ('x'):rep(500000) \(Self.named) return { config = t }"),
                .map([]), limits: limits, surroundings: ScriptSurroundings())
            Issue.record("taken")
        } catch {
            guard case .failed(_, let failure) = error.cause else {
                Issue.record("\(error)")
                return
            }
            #expect(failure.message.contains("a table is too large to hand over"), "\(failure.message)")
        }
    }

    /// What is not too large is handed over as before, and shown in part.
    @Test func fieldsOfALogLine() throws {
        let log = ScriptLog()
        let built = try ScriptLibraryTests.machine(
            """
            return { route = function(req, ctx)
              moongate.log.info(("m"):rep(2000), { a = ("x"):rep(300), b = { c = 1 }, d = true, e = 1.5, [1] = "one", f = tostring })
            end }
            """, log: log, cpu: 1_000_000_000)
        #expect(Sample.run(of: built.machine.vm).isNext)
        let line = try #require(log.drain().first)
        #expect(line.message == String(repeating: "m", count: 1024) + "…")
        #expect(
            line.fields.map { "\($0.key)=\($0.value)" } == [
                "1=one", "a=" + String(repeating: "x", count: 256) + "…", "b=(table)", "d=true", "e=1.5",
                "f=(value)",
            ])
    }

    @Test(arguments: ["7", "1.5", "true"])
    func aNumberIsAMessage(_ text: String) throws {
        let log = ScriptLog()
        let built = try ScriptLibraryTests.machine(
            "return { route = function(req, ctx) moongate.log.info(\(text)) end }", log: log, cpu: 1_000_000_000)
        #expect(Sample.run(of: built.machine.vm).isNext)
        #expect(log.drain().map(\.message) == [text])
    }

    // MARK: Time

    /// A walk takes as long as what is walked over, and not as its square: what a client sends is no budget of his.
    @Test(arguments: [
        "for n, v in req.query:pairs() do count = count + 1 end", "count = #req.query:all('a')",
        "for n, v in req.cookies:pairs() do count = count + 1 end", "count = #req.cookies:all('a')",
        "for n, v in req.headers:pairs() do count = count + 1 end", "count = #req.headers:all('a')",
    ])
    func walksAreLinear(_ walk: String) throws {
        let count = 8_000
        let exchange = Sample.exchange(
            query: String(repeating: "a=1&", count: count),
            headers: [("Cookie", String(repeating: "a=1;", count: count))]
                + (walk.contains("headers") ? (0..<count - 1).map { _ in ("a", "1") } + [("a", "1")] : []))
        let vm = try Sample.vm(
            "return { route = function(req, ctx) local count = 0 \(walk) ctx:tag('count', tostring(count)) end }",
            limits: Sample.limits(milliseconds: 150 * SandboxTests.patience))
        let outcome = Sample.run(of: vm, on: exchange)
        #expect(outcome.isNext, "\(outcome)")
        let isAll = walk.contains("headers:pairs")
        #expect(exchange.tagText("count") == "\(isAll ? count + 1 : count)")
    }

    /// A table of 131,072 slots, all of them empty.
    private static let emptied =
        "local t = {} for i = 1, 100000 do t[i << 20] = 1 end for i = 1, 100000 do t[i << 20] = nil end"

    static let works: [(name: String, top: String, body: String)] = [
        ("next", emptied, "while true do next(t) end"),
        ("pairs", emptied, "while true do for k in pairs(t) do end end"),
        ("marshalling", emptied, "while true do moongate.log.info('m', t) end"),
        ("a response", emptied, "while true do moongate.respond(200, t) end"),
        ("redirect", emptied, "while true do moongate.redirect(302, '/', t) end"),
        (
            "split", "local v = {} for i = 1, 20000 do v['v' .. i] = 1 end",
            "while true do moongate.split { name = 'n', unit = s, variants = v } end"
        ),
        ("cookies:get", "", "s = nil while true do req.cookies:get('zz') end"),
        ("cookies:has", "", "s = nil while true do req.cookies:has('zz') end"),
        ("cookies:all", "", "s = nil while true do req.cookies:all('a') end"),
        ("cookies:pairs", "", "s = nil while true do req.cookies:pairs() end"),
        ("query:get", "", "s = nil while true do req.query:get('zz') end"),
        ("query:all", "", "s = nil while true do req.query:all('a') end"),
        ("query:pairs", "", "s = nil while true do req.query:pairs() end"),
        ("query:set", "", "s = nil while true do pcall(req.query.set, req.query, 'zz', '1') end"),
        ("unit", "", "s = nil while true do req:unit { 'cookie:zz', 'query:zz' } end"),
        ("url.parse", "local u = 'http://h/' .. s", "while true do moongate.url.parse(u) end"),
        ("url.decode", "", "while true do moongate.url.decode(s) end"),
        ("ip.parse", "", "while true do moongate.ip.parse(s) end"),
        ("hash", "", "while true do moongate.hash.sha512(s) end"),
        ("hash of short texts", "local u = ('x'):rep(4000)", "s = nil while true do moongate.hash.sha512(u) end"),
        (
            "error with a level", "",
            """
            local function f(n)
              if n > 0 then f(n - 1) return end
              while true do pcall(error, 'x', 20000) end
            end
            s = nil
            f(20000)
            """
        ),
        (
            "shared", "local t = {} for i = 1, 1500 do t['k' .. i] = 1 end",
            "s = nil ctx.shared.x = t while true do local y = ctx.shared.x end"
        ),
    ]

    /// Parts that are no cookies are paid for as well.
    @Test(arguments: [";", "a;", "=1;"]) func emptyCookiesAreNotFree(_ part: String) throws {
        let limit: UInt64 = 20
        let vm = try Sample.vm(
            "return { route = function(req, ctx) while true do req.cookies:pairs() end end }",
            limits: Sample.limits(milliseconds: limit))
        let exchange = Sample.exchange(headers: [("Cookie", String(repeating: part, count: 60_000 / part.utf8.count))])
        let start = ScriptVM.threadCPUNanoseconds
        let outcome = Sample.run(of: vm, on: exchange)
        let used = ScriptVM.threadCPUNanoseconds - start
        #expect(!outcome.isNext)
        #expect(used <= limit * 1_000_000 + SandboxTests.slack * SandboxTests.patience, "\(used / 1000) µs")
    }

    @Test(arguments: works)
    func endsAtTheDeadline(_ script: (name: String, top: String, body: String)) throws {
        let limit: UInt64 = 20
        let vm = try Self.machine(top: script.top, script.body, milliseconds: limit)
        let exchange = Self.largeExchange()
        let shared = ScriptShared()
        let start = ScriptVM.threadCPUNanoseconds
        let outcome = Sample.run(of: vm, on: exchange, shared: shared)
        let used = ScriptVM.threadCPUNanoseconds - start
        guard case .failed(let failure) = outcome else {
            Issue.record("\(script.name) was not ended")
            return
        }
        #expect(failure.kind == .cpu, "\(script.name): \(failure)")
        #expect(used >= limit * 1_000_000 / 2, "\(script.name)")
        #expect(
            used <= limit * 1_000_000 + SandboxTests.slack * SandboxTests.patience,
            "\(script.name): \(used / 1000) µs")
        #expect(Sample.run(.access, of: vm).isNext, "\(script.name): the next request failed")
    }

    /// The hook's first sign starts the time, the second judges; where little is left the first does.
    @Test func theFirstSigns() throws {
        var limits = ScriptLimits()
        limits.loadNanoseconds = 1_000_000_000
        limits.cpuNanoseconds = 1
        let vm = try Sample.vm("return { route = function() for i = 1, 1500 do end end }", limits: limits)
        guard case .failed(let failure) = Sample.run(of: vm) else {
            Issue.record("1,500 instructions were free")
            return
        }
        #expect(failure.kind == .cpu)
    }

    @Test func errorsKeepTheirLevels() throws {
        #expect(try Sample.value("return select(2, pcall(error, 'x', 0))") == "x")
        #expect(try Sample.value("return select(2, pcall(error))") == "nil")
        #expect(try Sample.value("return select(2, pcall(error, {}, 2)) ~= nil") == "true")
        #expect(try Sample.value("\nreturn select(2, pcall(function() error('x') end))") == "main.lua:3: x")
        #expect(try Sample.value("return select(2, pcall(error, 'x', 1 << 40))") == "x")
        #expect(
            try Sample.value("local function f()\nerror('x', 2) end\nreturn select(2, pcall(function() f() end))")
                == "main.lua:4: x")
    }

    // MARK: Heads

    @Test(arguments: [
        ("for i = 1, 100 do req.headers:set('x', ('y'):rep(8000)) end", "larger than 128 KiB"),
        ("for i = 1, 100 do req.headers:append('x' .. i, ('y'):rep(8000)) end", "larger than 128 KiB"),
        ("for i = 1, 300 do req.headers:append('x', 'y') end", "longer than 256 fields"),
        ("for i = 1, 300 do req.headers:set('x' .. i, 'y') end", "longer than 256 fields"),
        ("local t = {} for i = 1, 300 do t[i] = 'y' end req.headers:set('x', t)", "longer than 256 fields"),
        ("for i = 1, 100 do req.query:append('a', ('b'):rep(4000)) end", "larger than 128 KiB"),
        ("for i = 1, 1000 do req.query:set('a', ('b'):rep(4000)) end", "larger than 128 KiB"),
        ("for i = 1, 1000 do req.path = '/' .. ('b'):rep(4000) end", "larger than 128 KiB"),
        ("for i = 1, 20000 do req.host = 'a.test' end", "larger than 128 KiB"),
    ])
    func editsOfARequestAreBounded(_ body: String, _ says: String) throws {
        let vm = try Sample.vm(
            "return { rewrite = function(req, ctx)\n\(body)\nend }", limits: Sample.limits(milliseconds: 2000))
        let exchange = Sample.exchange()
        let lines = exchange.requestLines
        guard case .failed(let failure) = Sample.run(.rewrite, of: vm, on: exchange) else {
            Issue.record("\(exchange.request.bytes.count) bytes, \(exchange.request.fields.count) fields")
            return
        }
        #expect(failure.kind == .api)
        #expect(failure.line == 2)
        #expect(failure.message.contains(says), "\(failure.message)")
        #expect(exchange.requestLines == lines)
        #expect(exchange.request.bytes.count < 1024)
    }

    @Test(arguments: [
        ("for i = 1, 100 do res.headers:set('x', ('y'):rep(8000)) end", "larger than 128 KiB"),
        ("for i = 1, 300 do res.headers:append('x', 'y') end", "longer than 256 fields"),
        ("for i = 1, 100 do res.cookies:set('x' .. i, ('y'):rep(3000)) end", "larger than 128 KiB"),
        ("for i = 1, 300 do res.cookies:set('x' .. i, 'y') end", "longer than 256 fields"),
    ])
    func editsOfAResponseAreBounded(_ body: String, _ says: String) throws {
        let failure = try Sample.failure(body, phase: .headerFilter, limits: Sample.limits(milliseconds: 2000))
        #expect(failure?.kind == .api)
        #expect(failure?.message.contains(says) == true, "\(String(describing: failure))")
    }

    /// A refusal that the script catches leaves what it had made before.
    @Test func refusedEditsThatAreCaught() throws {
        let vm = try Sample.vm(
            """
            return { route = function(req, ctx)
              local good = 0
              for i = 1, 300 do if pcall(req.headers.append, req.headers, "x", "y") then good = good + 1 end end
              ctx:tag("out", good)
            end }
            """)
        let exchange = Sample.exchange()
        let count = exchange.request.fields.count
        #expect(Sample.run(of: vm, on: exchange).isNext)
        #expect(exchange.tagText("out") == String(256 - count))
        #expect(exchange.request.fields.count == 256)
    }

    /// A head that the limits of a listener let in larger than that can still be edited.
    @Test func largeHeadsCanBeEdited() throws {
        let vm = try Sample.vm("return { route = function(req, ctx) req.headers:set('x-user', 'u1') end }")
        let exchange = Sample.exchange(
            headers: (0..<300).map { ("x-\($0)", String(repeating: "y", count: 1000)) })
        #expect(Sample.run(of: vm, on: exchange).isNext)
        #expect(exchange.requestLines.last == "x-user: u1")
    }

    // MARK: What is kept

    @Test func rawGlobalsOfARunEndWithIt() throws {
        let vm = try Sample.vm(
            """
            return { route = function(req, ctx)
              ctx:tag("out", tostring(k))
              rawset(_ENV, "k", "left")
              ctx:tag("now", tostring(k))
            end }
            """)
        for _ in 0..<3 {
            let exchange = Sample.exchange()
            #expect(Sample.run(of: vm, on: exchange).isNext)
            #expect(exchange.tagText("out") == "nil")
            #expect(exchange.tagText("now") == "left")
        }
    }

    /// A replacement that is a product of two long texts; one that has more pieces than any use needs.
    @Test(arguments: [
        (#"gsub(s, ("$0"):rep(200000))"#, "true nil too_large"),
        (#"gsub(s, ("$0"):rep(1000))"#, "true nil too_large"),
        (#"gsub(s, ("$0" .. ("y"):rep(1000)))"#, "true ok"),
    ])
    func aReplacementOfProducts(_ call: String, _ says: String) throws {
        let vm = try Self.machine(
            """
            local good, r, e = pcall(function() return moongate.regex.compile("(?s).*"):\(call) end)
            ctx:tag("out", tostring(good) .. " " .. (good and r and "ok" or good and "nil " .. e.code or r))
            """, milliseconds: 1000)
        let exchange = Sample.exchange()
        let start = ScriptVM.threadCPUNanoseconds
        #expect(Sample.run(of: vm, on: exchange).isNext)
        #expect(exchange.tagText("out") == says)
        #expect(ScriptVM.threadCPUNanoseconds - start < 50_000_000 * SandboxTests.patience)
    }

    /// A chain of keys, which would take the collector the square of its length if they were weak.
    @Test func aChainOfKeys() throws {
        let vm = try Self.machine(
            """
            local mt = {}
            local t = setmetatable({}, mt)
            mt.__mode = "k"
            local first = {}
            local p = first
            for i = 1, 60000 do local k = {} t[p] = k p = k end
            ctx.state.t, ctx.state.first = t, first
            """, milliseconds: 5000)
        let request = try #require(vm.begin())
        let outcome = vm.run(.route, request, on: Sample.exchange(), with: Sample.scene, shared: nil)
        switch outcome {
        case .next: break
        case .failed(let failure): #expect(failure.kind == .memory, "\(failure)")
        case .responded, .suspended: Issue.record("\(outcome)")
        }
        let start = ScriptVM.threadCPUNanoseconds
        vm.collectGarbage()
        #expect(ScriptVM.threadCPUNanoseconds - start < 100_000_000 * SandboxTests.patience)
        vm.end(request)
    }
}
