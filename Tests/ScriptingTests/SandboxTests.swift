// The hostile corpus of SCRIPTING.md §12: whatever a script tries, the run ends within its deadline and 10 ms, and the VM
// serves the next request. Time is the thread's CPU time, so a busy machine changes nothing.

import Foundation
import Model
import Testing

@testable import Scripting

@Suite struct SandboxTests {
    /// Under a sanitizer everything but the deadline itself is several times slower.
    static let slack: UInt64 = 10_000_000

    static let endless: [(name: String, body: String)] = [
        ("loop", "while true do end"),
        ("goto", "::a:: goto a"),
        ("pcall", "while true do pcall(function() while true do end end) end"),
        ("xpcall handler", "while true do xpcall(function() error('x') end, function() while true do end end) end"),
        ("xpcall body", "xpcall(function() while true do end end, function() while true do end end) while true do end"),
        (
            "sort comparator",
            "local t = {} for i = 1, 1000 do t[i] = i end table.sort(t, function() while true do end end)"
        ),
        (
            "sort comparator, pcall",
            """
            local t = {} for i = 1, 1000 do t[i] = i end
            while true do pcall(table.sort, t, function() while true do pcall(function() while true do end end) end end) end
            """
        ),
        ("gsub callback", "(('a'):rep(100)):gsub('a', function() while true do end end)"),
        (
            "gsub callback, pcall",
            "while true do pcall(string.gsub, 'aaa', 'a', function() while true do pcall(error) end end) end"
        ),
        ("__tostring", "tostring(setmetatable({}, {__tostring = function() while true do pcall(error) end end}))"),
        (
            "__eq",
            "local m = {__eq = function() while true do end end} return setmetatable({}, m) == setmetatable({}, m)"
        ),
        ("__concat", "return setmetatable({}, {__concat = function() while true do pcall(error) end end}) .. ''"),
        ("__index", "return setmetatable({}, {__index = function() while true do end end}).x"),
        (
            "__pairs",
            "for k in pairs(setmetatable({}, {__pairs = function() return function() return 1 end end})) do end"
        ),
        (
            "__len in insert",
            "table.insert(setmetatable({}, {__len = function() return 1 << 53 end}), 1, 0)"
        ),
        (
            "__len in concat",
            "table.concat(setmetatable({}, {__len = function() return 1 << 53 end, __index = function() return '' end}))"
        ),
        ("coroutine", "local c = coroutine.wrap(function() while true do end end) while true do pcall(c) end"),
        (
            "nested coroutines",
            """
            local function f(n)
              if n == 0 then while true do end end
              local c = coroutine.wrap(f)
              while true do pcall(c, n - 1) end
            end
            f(50)
            """
        ),
        ("many short coroutines", "while true do coroutine.wrap(function() for i = 1, 150 do end end)() end"),
        (
            "a tree of short coroutines",
            """
            local function f(n)
              if n == 0 then for i = 1, 900 do end return end
              for i = 1, 150 do coroutine.wrap(f)(n - 1) end
            end
            while true do f(4) end
            """
        ),
        (
            "coroutine in a comparator",
            """
            local t = {} for i = 1, 1000 do t[i] = i end
            while true do
              pcall(table.sort, t, function()
                local c = coroutine.wrap(function() while true do end end)
                while true do pcall(c) end
              end)
            end
            """
        ),
        ("yielding iterator", "for x in coroutine.wrap(function() while true do coroutine.yield(1) end end) do end"),
        ("rep", "while true do local s = ('x'):rep(500000) end"),
        ("upper", "local s = ('x'):rep(500000) while true do s:upper() end"),
        ("reverse", "local s = ('x'):rep(500000) while true do s:reverse() end"),
        ("format", "local s = ('x'):rep(100000) while true do ('%s%s'):format(s, s) end"),
        ("concat", "local t = {} for i = 1, 20000 do t[i] = 'xxxxxxxxxx' end while true do table.concat(t) end"),
        ("concatenation", "local s = ('x'):rep(100000) while true do local y = s .. s .. s .. s end"),
        (
            "sort",
            """
            local t = {} for i = 1, 20000 do t[i] = (i * 7919) % 50021 end
            while true do local u = table.move(t, 1, #t, 1, {}) table.sort(u) end
            """
        ),
        (
            "comparison",
            "local a, b = ('\\0'):rep(500000), ('\\0'):rep(499999) .. '\\0' while true do local x = a < b end"
        ),
        (
            "comparison in an outer coroutine",
            """
            local a, b
            local c = coroutine.wrap(function()
              a, b = ('\\0'):rep(500000), ('\\0'):rep(499999) .. '\\0'
              coroutine.yield()
            end)
            c()
            while true do local x = a < b end
            """
        ),
        ("pattern", "(('a'):rep(40000)):find('.-.-.-.-b$')"),
        ("pattern of stars", "(('a'):rep(40000)):match(('a*'):rep(40) .. 'b')"),
        ("pattern with a long set", "(('a'):rep(500000)):find('[' .. ('b'):rep(100000) .. ']')"),
        ("balanced pattern", "while true do (('('):rep(500000)):find('%b()') end"),
        ("gmatch", "while true do for x in (('a'):rep(400000)):gmatch('.-b') do end end"),
        (
            "plain find",
            "local h, n = ('a'):rep(500000) .. 'b', ('a'):rep(250000) .. 'c' while true do h:find(n, 1, true) end"
        ),
        (
            "insert at the front",
            "local t = {} for i = 1, 30000 do t[i] = i end while true do table.insert(t, 1, 0) table.remove(t, 1) end"
        ),
        ("move", "table.move({}, 1, math.maxinteger - 10, 2)"),
        ("unpack", "while true do pcall(table.unpack, {}, 1, 1e6) end"),
        (
            "varargs",
            """
            local t = {} for i = 1, 4000 do t[i] = i end
            local function f(...) return ... end
            while true do f(table.unpack(t)) end
            """
        ),
        ("tonumber", "local s = ('1'):rep(500000) while true do tonumber(s) end"),
        ("arithmetic on strings", "local s = ('1'):rep(500000) while true do pcall(function() return s + 1 end) end"),
        ("utf8", "local s = ('x'):rep(500000) while true do utf8.len(s) end"),
        (
            "json encode",
            "local t = {} for i = 1, 10000 do t[i] = {a = i} end while true do moongate.json.encode(t) end"
        ),
        ("json decode", "local s = '[' .. ('1,'):rep(100000) .. '1]' while true do moongate.json.decode(s) end"),
        ("garbage at the limit", "local t = {} for i = 1, 12000 do t[i] = {i} end while true do local x = {{}} end"),
    ]

    @Test(arguments: endless)
    func endsAtTheDeadline(_ script: (name: String, body: String)) throws {
        let limit: UInt64 = 20
        let vm = try Sample.vm(
            """
            return { rewrite = function(req, ctx) end, route = function(req, ctx)
            \(script.body)
            end }
            """, limits: Sample.limits(milliseconds: limit))
        let start = ScriptVM.threadCPUNanoseconds
        let outcome = Sample.run(of: vm)
        let used = ScriptVM.threadCPUNanoseconds - start
        guard case .failed(let failure) = outcome else {
            Issue.record("\(script.name) was not ended")
            return
        }
        #expect(failure.kind == .cpu, "\(script.name): \(failure)")
        #expect(used >= limit * 1_000_000 / 2, "\(script.name)")
        #expect(used <= limit * 1_000_000 + Self.slack * Self.patience, "\(script.name): \(used / 1000) µs")
        // The machine is as good as new.
        guard case .next = Sample.run(.rewrite, of: vm) else {
            Issue.record("\(script.name): the next request failed")
            return
        }
    }

    /// `moongate.regex` is PCRE2, which has no clock of its own.
    static let patterns: [(name: String, body: String)] = [
        (
            "from each place",
            "local r = c('(?:a?){14}b') r:test(('a'):rep(65536)) while true do r:test(('a'):rep(65536)) end"
        ),
        ("gsub of bombs", "local r = c('(?:a?){14}b|a') while true do r:gsub(('a'):rep(65536), 'x') end"),
        ("gsub of single bytes", "local r = c('a') while true do r:gsub(('a'):rep(65536), 'x') end"),
        ("gsub of nothing", "local r = c('') while true do r:gsub(('a'):rep(65536), '') end"),
        ("gsub of UTF-8", "local r = c('(*UTF)a') while true do r:gsub(('a'):rep(65536), 'x') end"),
        (
            "a long way from each place",
            "local r = c('[^x]*[^y]*z') while true do r:test(('a'):rep(100000)) r:test(('a'):rep(100000) .. 'xyxy') end"
        ),
        ("cubic from each place", "local r, s = c([[\\d+\\d+x]]), ('1'):rep(8000) .. ';x' while true do r:test(s) end"),
        ("one place", "local r = c('^a*?a*+[bc]') while true do r:test(('a'):rep(400000)) end"),
        ("one place, cubic", "local r = c('^a*?a*?a*+[bc]') while true do r:test(('a'):rep(4000)) end"),
        ("a short subject", "local r, s = c('a*?a*?a*+[bc]'), ('a'):rep(120) while true do r:test(s) end"),
        ("interpreted", "local r = c('(*NO_JIT)(?:a?){10}b') while true do r:test(('a'):rep(65536)) end"),
        ("interpreted, one place", "local r = c('(*NO_JIT)^a*?a*+[bc]') while true do r:test(('a'):rep(65536)) end"),
        ("back references", "local r = c('(a+)\\\\1*[bc]') while true do r:test(('a'):rep(65536)) end"),
        ("looking behind", "local r = c('(?<=a{200})b') while true do r:test(('a'):rep(400000)) end"),
        ("recursion", "local r = c('(a(?1)?a|b)c') while true do r:test(('a'):rep(65536)) end"),
        ("compiling", "local i = 0 while true do i = i + 1 c('(?:abc|[a-z]{3}x){200}' .. i) end"),
        ("short calls", "local r = c('^/cart') while true do r:test('/carts') end"),
    ]

    @Test(arguments: patterns)
    func patternsEndAtTheDeadline(_ script: (name: String, body: String)) throws {
        let limit: UInt64 = 20
        var limits = Sample.limits(milliseconds: limit)
        limits.loadNanoseconds = 10_000_000_000
        let built = try ScriptVersion.build(
            ScriptSource(
                name: "test", namespace: "t",
                main: """
                    local c = moongate.regex.compile
                    return { rewrite = function() end, route = function(req, ctx) \(script.body) end }
                    """), .map([]), limits: limits, surroundings: ScriptSurroundings())
        let vm = built.machine.vm
        let start = ScriptVM.threadCPUNanoseconds
        let outcome = Sample.run(of: vm)
        let used = ScriptVM.threadCPUNanoseconds - start
        guard case .failed(let failure) = outcome else {
            Issue.record("\(script.name) was not ended")
            return
        }
        #expect(failure.kind == .cpu, "\(script.name): \(failure)")
        #expect(used >= limit * 1_000_000 / 2, "\(script.name)")
        #expect(used <= limit * 1_000_000 + Self.slack * Self.patience, "\(script.name): \(used / 1000) µs")
        #expect(Sample.run(.rewrite, of: vm).isNext, "\(script.name): the next request failed")
    }

    /// A mode that is written after `setmetatable` has no effect: each collection of a chain of weak keys would take as
    /// long as the square of it.
    @Test func modesThatComeLater() throws {
        let vm = try Sample.vm(
            """
            local kept, names = {}, {}
            local function weaken(mode)
              local mt = {}
              local t = setmetatable({}, mt)
              mt["__" .. "mode"] = mode
              rawset(mt, "__mode", mode)
              for i = 1, 100 do t[{}] = {} t[i] = {} end
              kept[#kept + 1] = t
            end
            return {
              rewrite = function() weaken("k") weaken("v") weaken("kv") end,
              route = function(req, ctx)
                local counts = {}
                for i, t in ipairs(kept) do
                  counts[i] = 0
                  for _ in pairs(t) do counts[i] = counts[i] + 1 end
                end
                ctx:tag("out", table.concat(counts, " "))
              end,
            }
            """)
        let exchange = Sample.exchange()
        #expect(Sample.run(.rewrite, of: vm, on: exchange).isNext)
        vm.collectGarbage()
        vm.collectGarbage()
        #expect(Sample.run(of: vm, on: exchange).isNext)
        #expect(exchange.tagText("out") == "200 200 200")
    }

    /// A loaded machine, or a sanitizer, stretches single steps; the deadline itself is the same.
    #if DEBUG
        private static let usual: UInt64 = 3
    #else
        private static let usual: UInt64 = 1
    #endif
    /// What a debug build costs; a run under a sanitizer says by how much more (`MOONGATE_PATIENCE`).
    static let patience = ProcessInfo.processInfo.environment["MOONGATE_PATIENCE"].flatMap { UInt64($0) } ?? usual

    static let bombs: [(name: String, body: String)] = [
        ("rep", "return ('x'):rep(1e9)"),
        ("rep, caught", "while true do pcall(string.rep, 'x', 1e9) end"),
        ("doubling", "local s = 'x' while true do s = s .. s end"),
        ("doubling, caught", "while true do pcall(function() local s = 'x' while true do s = s .. s end end) end"),
        ("tables", "local t = {} for i = 1, 1e9 do t[i] = {} end"),
        ("tables, caught", "while true do pcall(function() local t = {} for i = 1, 1e9 do t[i] = {} end end) end"),
        ("closures", "local t = {} while true do t[#t + 1] = function() return t end end"),
        ("strings", "local t = {} while true do t[#t + 1] = ('x'):rep(100000) .. #t end"),
        ("concat", "local t = {} for i = 1, 3000 do t[i] = ('x'):rep(1000) end return table.concat(t)"),
        ("gsub", "return (('a'):rep(100000)):gsub('a', ('b'):rep(10000))"),
        ("coroutines", "local t = {} while true do t[#t + 1] = coroutine.create(function() end) end"),
        ("pack", "while true do pcall(string.pack, 'c90000000', '') end"),
        ("in a coroutine", "coroutine.wrap(function() pcall(string.rep, 'x', 1e9) while true do end end)()"),
    ]

    @Test(arguments: bombs)
    func memoryIsBounded(_ script: (name: String, body: String)) throws {
        let vm = try Sample.vm(
            """
            return { rewrite = function(req, ctx) end, route = function(req, ctx)
            \(script.body)
            end }
            """, limits: Sample.limits(milliseconds: 3000, memory: 8 << 20))
        guard case .failed(let failure) = Sample.run(of: vm) else {
            Issue.record("\(script.name) was not ended")
            return
        }
        #expect(failure.kind == .memory, "\(script.name): \(failure)")
        #expect(vm.memoryInUse <= 8 << 20)
        guard case .next = Sample.run(.rewrite, of: vm) else {
            Issue.record("\(script.name): the next request failed")
            return
        }
    }

    @Test(arguments: [
        ("Lua recursion", "local function f() return f() + 1 end f()", [ScriptFailure.Kind.memory, .runtime]),
        (
            "__index recursion",
            "local t = setmetatable({}, {}) getmetatable(t).__index = function(t, k) return t[k + 1] end return t[1]",
            [.runtime]
        ),
        ("JSON of itself", "local t = {} t.t = t moongate.json.encode(t)", [.api]),
        (
            "coroutines in coroutines",
            "local function f() coroutine.wrap(f)() end f()", [.runtime]
        ),
        (
            "closing in closing",
            """
            local function make()
              local c
              c = coroutine.create(function()
                local x <close> = setmetatable({}, {__close = function()
                  local d = make() coroutine.resume(d) assert(coroutine.close(d))
                end})
                coroutine.yield()
              end)
              return c
            end
            local c = make() coroutine.resume(c) assert(coroutine.close(c))
            """, [.runtime]
        ),
    ])
    func recursionEnds(_ name: String, _ body: String, _ kinds: [ScriptFailure.Kind]) throws {
        let failure = try Sample.failure(body, limits: Sample.limits(milliseconds: 2000))
        #expect(failure.map { kinds.contains($0.kind) } == true, "\(name): \(String(describing: failure))")
    }

    /// To-be-closed variables of a killed script get a millisecond of their own, with the hook on.
    @Test(arguments: [
        "local x <close> = setmetatable({}, {__close = function() while true do pcall(error) end end}) while true do end",
        """
        local function f(n)
          local x <close> = setmetatable({}, {__close = function() while true do end end})
          if n > 0 then f(n - 1) end
          while true do end
        end
        f(150)
        """,
        """
        coroutine.wrap(function()
          local x <close> = setmetatable({}, {__close = function() while true do pcall(function() while true do end end) end end})
          while true do end
        end)()
        """,
    ])
    func closingIsBounded(_ body: String) throws {
        let start = ScriptVM.threadCPUNanoseconds
        let failure = try Sample.failure(body, limits: Sample.limits(milliseconds: 10))
        let used = ScriptVM.threadCPUNanoseconds - start
        #expect(failure?.kind == .cpu)
        #expect(used < 10_000_000 + Self.slack * Self.patience + 5_000_000, "\(used / 1000) µs")
    }

    /// Lua calls no hook any more in a coroutine that an error of the hook has ended, and nothing of the script would be
    /// ended in it again.
    @Test(arguments: [
        "table.sort({1, 2, 3}, forever)", "string.gsub('a', 'a', forever)",
        "tostring(setmetatable({}, {__tostring = forever}))",
        "table.concat(setmetatable({}, {__len = function() return 2 end, __index = forever}))",
        "pcall(table.sort, {1, 2, 3}, forever)", "coroutine.wrap(function() table.sort({1, 2, 3}, forever) end)()",
        "table.sort({1, 2, 3}, function() coroutine.wrap(forever)() end)",
    ])
    func endedInsideOfACallItIsEndedAgain(_ call: String) throws {
        for body in [
            call, "local c <close> = setmetatable({}, {__close = forever}) \(call)",
            """
            kept = coroutine.create(function() local c <close> = setmetatable({}, {__close = forever}) \(call) end)
            coroutine.resume(kept)
            """,
        ] {
            let vm = try Sample.vm(
                """
                local kept
                local function forever() while true do end end
                return {
                  rewrite = function() \(body) end,
                  access = function() if kept then coroutine.close(kept) end end,
                  route = function() while true do end end,
                }
                """, limits: Sample.limits(milliseconds: 5))
            for _ in 0..<3 {
                let start = ScriptVM.threadCPUNanoseconds
                let first = Sample.run(.rewrite, of: vm)
                let close = Sample.run(.access, of: vm)
                let second = Sample.run(of: vm)
                let used = ScriptVM.threadCPUNanoseconds - start
                for outcome in [first, second] {
                    guard case .failed(let failure) = outcome else {
                        Issue.record("\(body) was not ended")
                        return
                    }
                    #expect(failure.kind == .cpu, "\(body): \(failure)")
                }
                #expect(close.isNext, "\(body): \(close)")
                #expect(used < 2 * (5_000_000 + Self.slack * Self.patience), "\(body): \(used / 1000) µs")
            }
        }
    }

    /// A to-be-closed variable of a killed script does run.
    @Test func closingRuns() throws {
        let vm = try Sample.vm(
            """
            local closed = 0
            return {
              route = function(req, ctx)
                local x <close> = setmetatable({}, {__close = function() closed = closed + 1 end})
                coroutine.wrap(function()
                  local y <close> = setmetatable({}, {__close = function() closed = closed + 10 end})
                  while true do end
                end)()
              end,
              rewrite = function(req, ctx) ctx:tag("closed", closed) end,
            }
            """, limits: Sample.limits(milliseconds: 5))
        Sample.run(of: vm)
        let exchange = Sample.exchange()
        Sample.run(.rewrite, of: vm, on: exchange)
        #expect(exchange.tagText("closed") == "11")
    }

    @Test(arguments: [
        "load", "loadstring", "loadfile", "dofile", "collectgarbage", "io", "os", "debug", "package", "print", "stock",
    ])
    func isNotThere(_ name: String) throws {
        #expect(try Sample.value("return \(name)") == "nil")
        #expect(try Sample.value("return _G.\(name)") == "nil")
    }

    @Test(arguments: ["string.dump", "math.randomseed", "coroutine.debug", "table.maxn"])
    func fieldIsNotThere(_ name: String) throws {
        #expect(try Sample.value("return \(name)") == "nil")
    }

    @Test func keepsTheStandardLibrary() throws {
        let names = """
            assert error getmetatable ipairs next pairs pcall rawequal rawget rawlen rawset require select setmetatable
            tonumber tostring type xpcall coroutine.close coroutine.create coroutine.isyieldable coroutine.resume
            coroutine.running coroutine.status coroutine.wrap coroutine.yield math.abs math.ceil math.floor math.fmod
            math.max math.min math.random math.sqrt math.tointeger math.type string.byte string.char string.find
            string.format string.gmatch string.gsub string.len string.lower string.match string.pack string.packsize
            string.rep string.reverse string.sub string.unpack string.upper table.concat table.insert table.move
            table.pack table.remove table.sort table.unpack utf8.char utf8.codepoint utf8.codes utf8.len utf8.offset
            moongate.respond moongate.redirect moongate.json.encode moongate.json.decode moongate.json.array
            """.split(whereSeparator: { $0 == " " || $0 == "\n" })
        for name in names {
            #expect(try Sample.value("return type(\(name))") == "function", "\(name)")
        }
    }

    /// Bytecode is never taken, mutated or not.
    @Test func refusesBytecode() throws {
        guard let vm = ScriptVM() else {
            Issue.record("no VM")
            return
        }
        var state: UInt64 = 7
        var head: [UInt8] = [0x1b, 0x4c, 0x75, 0x61, 0x54, 0x00, 0x19, 0x93, 0x0d, 0x0a, 0x1a, 0x0a, 4, 8, 8]
        for _ in 0..<10_000 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            head.append(UInt8(truncatingIfNeeded: state >> 56))
            if head.count > 200 { head.removeLast(150) }
            #expect(throws: ScriptFailure.self) { try vm.compile(file: "main.lua", source: head) }
        }
    }

    @Test func bytecodeMessageNamesTheReason() throws {
        guard let vm = ScriptVM() else {
            Issue.record("no VM")
            return
        }
        do throws(ScriptFailure) {
            try vm.compile(file: "main.lua", source: Array("\u{1b}Lua".utf8))
            Issue.record("compiled")
        } catch {
            #expect(error.message.contains("attempt to load a binary chunk"))
        }
    }

    @Test(arguments: [
        "string.find = nil", "string.x = 1", "moongate.respond = nil", "moongate.json.encode = nil", "_G.x = 1",
        "_G.string = nil", "table.insert(_G, 1)", "rawset(_G, 'x', 1)", "rawset(string, 'find', nil)",
        "rawset(moongate, 'x', 1)", "getmetatable('').__index = {}", "setmetatable(string, {})",
        "setmetatable(_G, {__index = {}})", "ctx.config.canary = 1", "rawset(ctx.config, 'x', 1)",
        "setmetatable(ctx.config, nil)", "table.sort(ctx.config.list)", "table.insert(ctx.config.list, 1)",
        "ctx.config.list[1] = 'x'", "ctx.x = 1", "ctx.state = {}", "req.headers = {}", "req.x = 1",
        "getmetatable(req).__index = nil",
    ])
    func isFrozen(_ body: String) throws {
        let vm = try Sample.vm(
            "return { route = function(req, ctx)\n\(body)\nend }",
            config: [("list", .list([.string("b"), .string("a")]))])
        guard case .failed(let failure) = Sample.run(of: vm) else {
            Issue.record("\(body) was allowed")
            return
        }
        #expect(failure.kind == .api || failure.kind == .runtime)
        #expect(failure.line == 2)
    }

    /// A script that changes everything it can reach changes nothing for another.
    @Test func machinesAreSeparate() throws {
        let vandal = try Sample.vm(
            """
            return { route = function(req, ctx)
              for _, name in ipairs { "string", "table", "math", "moongate", "pairs", "tostring", "type" } do
                _ENV[name] = function() return "gone" end
              end
              pcall(function() getmetatable("").__index = function() end end)
              leaked = "yes"
            end }
            """)
        let honest = try Sample.vm(
            """
            return { route = function(req, ctx)
              ctx:tag("out", ("ok"):upper() .. type(string) .. tostring(leaked) .. type(pairs))
            end }
            """)
        for _ in 0..<3 {
            guard case .next = Sample.run(of: vandal) else {
                Issue.record("the vandal failed")
                return
            }
            let exchange = Sample.exchange()
            Sample.run(of: honest, on: exchange)
            #expect(exchange.tagText("out") == "OKtablenilfunction")
        }
    }

    /// Globals written by a phase end with it; those of the top level stay.
    @Test func globalsOfARunEndWithIt() throws {
        let vm = try Sample.vm(
            """
            kept = "top"
            function helper() return kept end
            return { route = function(req, ctx)
              ctx:tag("seen", tostring(count) .. " " .. helper() .. " " .. tostring(string))
              count = (count or 0) + 1
              kept = "changed"
              string = nil
              ctx:tag("now", tostring(count) .. " " .. helper())
            end }
            """)
        for _ in 0..<3 {
            let exchange = Sample.exchange()
            guard case .next = Sample.run(of: vm, on: exchange) else {
                Issue.record("failed")
                return
            }
            #expect(exchange.tagText("seen") == "nil top table")
            #expect(exchange.tagText("now") == "1 changed")
        }
    }

    @Test(arguments: [
        ("setmetatable({}, {__gc = function() end})", "__gc is not available"),
        ("setmetatable({}, {__mode = 'k'})", "weak tables (__mode) are not available"),
        ("setmetatable({}, {__mode = 'v'})", "weak tables (__mode) are not available"),
        ("('x'):format('%p', {})", ""),
        ("string.format('%p', {})", "invalid conversion '%p'"),
        ("string.format('%10p', {})", "invalid conversion '%p'"),
    ])
    func isRefused(_ body: String, _ message: String) throws {
        let failure = try Sample.failure("local x = " + body)
        if message.isEmpty {
            #expect(failure == nil)
        } else {
            #expect(failure?.message.contains(message) == true, "\(String(describing: failure))")
        }
    }

    @Test func showsNoAddress() throws {
        let text = try Sample.value(
            """
            local parts = {}
            local function add(v) parts[#parts + 1] = tostring(v) parts[#parts + 1] = string.format("%s", v) end
            add({}) add(print) add(function() end) add(tostring) add(coroutine.create(function() end)) add(req) add(req.headers)
            add(ctx) add(ctx.config) add(ctx.config.canary) add(moongate) add(string) add(_G) add(moongate.respond(200))
            add(moongate.json.null) add(ctx.upstream) add(coroutine.running())
            parts[#parts + 1] = select(2, pcall(error, {})) == nil and "" or "table"
            parts[#parts + 1] = select(2, pcall(function() return {} .. "x" end))
            parts[#parts + 1] = select(2, pcall(string.rep, {}))
            return table.concat(parts, " "):sub(1, 250)
            """)
        #expect(!text.contains("0x"), "\(text)")
        #expect(
            text.hasPrefix("table table nil nil function function function function thread thread req req req.headers"))
    }

    /// A script whose compilation is made slow is stopped, too.
    @Test func compilationIsBounded() throws {
        var limits = ScriptLimits()
        limits.loadNanoseconds = 20_000_000
        guard let vm = ScriptVM(limits: limits) else {
            Issue.record("no VM")
            return
        }
        // Each label is compared with every goto that waits.
        var source = "do "
        for i in 0..<9000 { source += "goto l\(i) " }
        for i in 0..<9000 { source += "::l\(i):: " }
        source += "end"
        let start = ScriptVM.threadCPUNanoseconds
        #expect(throws: ScriptFailure.self) { try vm.compile(file: "main.lua", source: Array(source.utf8)) }
        #expect(ScriptVM.threadCPUNanoseconds - start < 20_000_000 + Self.slack * Self.patience)
    }

    @Test func sourceIsBounded() throws {
        guard let vm = ScriptVM() else {
            Issue.record("no VM")
            return
        }
        let source = Array(String(repeating: "--\n", count: 100_000).utf8)
        do throws(ScriptFailure) {
            try vm.compile(file: "main.lua", source: source)
            Issue.record("compiled")
        } catch {
            #expect(error.message == "main.lua: the script has 293 KiB; at most 256 KiB are allowed")
        }
    }

    @Test(arguments: [
        ("while true do end", ScriptFailure.Kind.cpu), ("local s = ('x'):rep(1e9)", .memory), ("error('no')", .runtime),
    ])
    func topLevelIsBounded(_ body: String, _ kind: ScriptFailure.Kind) throws {
        do {
            _ = try Sample.vm(body + " return {}")
            Issue.record("loaded")
        } catch let failure as ScriptFailure {
            #expect(failure.kind == kind)
            #expect(failure.line == 1)
        }
        do {
            _ = try Sample.vm("return { init = function()\n\(body) end }")
            Issue.record("initialised")
        } catch let failure as ScriptFailure {
            #expect(failure.kind == kind)
            #expect(failure.line == 2)
        }
    }

    /// Memory does not grow with the number of requests.
    @Test func memoryIsFlat() throws {
        let vm = try Sample.vm(
            """
            local last
            return { route = function(req, ctx)
              ctx.state.x = { req.headers:get("x-canary"), req.path .. "?" .. tostring(req.query) }
              temporary = {}
              last = ctx.state
              for w in ("a b c"):gmatch("%a") do local t = { w } end
            end }
            """, limits: Sample.limits(milliseconds: 500))
        let exchange = Sample.exchange()
        for _ in 0..<20_000 { Sample.run(of: vm, on: exchange) }
        let before = vm.memoryInUse
        for _ in 0..<20_000 { Sample.run(of: vm, on: exchange) }
        #expect(vm.memoryInUse < before + 2 << 20)
        #expect(vm.memoryInUse < 4 << 20)
    }
}
