import Middlewares
import Model
import Testing

/// The runner must fail what fails: each spec here holds a mistake that must be told.
@Suite struct SpecRunnerTests {
    static let script = """
        return {
          config = { to = { type = "backend" }, name = { type = "string", default = "x" } },
          route = function(req, ctx)
            if req.path == "/boom" then error("kaputt") end
            if ctx.config.to then ctx.upstream:use(ctx.config.to) end
            ctx:tag("name", ctx.config.name)
          end,
          access = function(req, ctx)
            if req.path == "/loop" then while true do end end
            if req.path == "/no" then return moongate.respond(403, nil, "no") end
          end,
          header_filter = function(req, res, ctx) res.headers:set("x-seen", res.origin) end,
        }
        """

    func run(_ spec: String) -> SpecResult {
        SpecRunner { $0 == "script.lua" ? ScriptSource(name: $0, namespace: "test", main: Self.script) : nil }
            .run(file: "a_spec.lua", source: spec)
    }

    @Test func everythingThatARunShows() {
        let result = run(
            """
            local t = moongate.test
            local s = t.load("script.lua", { config = { to = "b:80" } })
            t.case("next", function()
              local r = s:run { path = "/a", query = { x = "1 2" }, headers = { ["X-A"] = { "1", "2" } } }
              t.eq(r.upstream, "b:80") t.eq(r.status, nil) t.eq(r.tags, { name = "x" }) t.eq(r.query, "x=1%202")
              t.eq(r.request_headers["x-a"], "1, 2") t.eq(r.headers["x-seen"], "upstream")
              t.under(s.last.cpu, "100ms")
            end)
            t.case("responds", function()
              local r = s:run { path = "/no" }
              t.eq(r.status, 403) t.eq(r.body, "no") t.eq(r.headers["x-seen"], "script")
            end)
            t.case("fails open and closed", function()
              local r = s:run { path = "/boom" }
              t.eq(r.status, nil) t.eq(r.upstream, nil) t.matches(r.errors[1], "script.lua:4: kaputt")
              local l = s:run { path = "/loop" }
              t.eq(l.status, 503) t.matches(l.errors[1], "CPU budget of 5 ms")
            end)
            """)
        #expect(result.passed, "\(SpecResult.tap([result]))")
        #expect(result.cases.map(\.name) == ["next", "responds", "fails open and closed"])
    }

    @Test(arguments: [
        ("t.case('x', function() t.eq(1, 2) end)", "expected 2, got 1"),
        ("t.case('x', function()\n  t.eq({ a = 1 }, { a = 2 })\nend)", "a_spec.lua:3"),
        ("t.case('x', function() t.ok(false) end)", "expected a true value"),
        ("t.case('x', function() t.fails(function() end) end)", "there was none"),
        ("t.case('x', function() t.ratio({ a = 900, b = 100 }, { a = 50, b = 50 }) end)", "such a sample"),
        ("t.case('x', function() t.ratio({ a = 50, c = 50 }, { a = 50, b = 50 }) end)", "nobody expected"),
        ("t.case('x', function() t.load('nope.lua') end)", "there is no file nope.lua"),
        ("t.case('x', function() t.load('script.lua', { config = { nmae = 'y' } }) end)", "did you mean \"name\""),
        ("t.case('x', function() t.load('script.lua'):run { pth = '/' } end)", "the request has no \"pth\""),
        ("t.case('x', function() t.load('script.lua'):run { path = '/a%00' } end)", "refused"),
        ("t.case('x', function() t.under(2, '1ms') end)", "expected at most"),
    ])
    func told(_ body: String, _ message: String) throws {
        let result = run("local t = moongate.test\n" + body)
        #expect(!result.passed)
        #expect(result.cases.first?.failure?.contains(message) == true, "\(SpecResult.tap([result]))")
    }

    /// SCRIPTING.md §11: errors name the user's line, never one of ours.
    @Test(arguments: [
        "return (", "local t = moongate.test\nt.nope()", "local t = moongate.test\nt.case('x', 5)",
        "local t = moongate.test\nt.case('x', function() t.under('a', 1) end)",
        "local t = moongate.test\nt.case('x', function() t.under(1, 'long') end)",
        "local t = moongate.test\nt.case('x', function() t.matches('a', {}) end)",
        "local t = moongate.test\nt.case('x', function() t.load('script.lua'):run { pth = '/' } end)",
        "local t = moongate.test\nt.case('x', function() t.load('script.lua'):run(5) end)",
        "local t = moongate.test\nt.case('x', function() t.ratio({}, {}) end)", "moongate.test.load(5)",
        "moongate.test.case('x', function() moongate.test.load('nope.lua') end)", "while true do end",
    ])
    func noLineOfOurs(_ source: String) {
        let result = SpecRunner(cpu: source.hasPrefix("while") ? .milliseconds(200) : .seconds(10)) {
            $0 == "script.lua" ? ScriptSource(name: $0, namespace: "test", main: Self.script) : nil
        }.run(file: "a_spec.lua", source: source)
        let text = SpecResult.tap([result])
        #expect(!result.passed)
        for ours in ["moongate.test:", "require", "return {}", "[C]"] { #expect(!text.contains(ours), "\(text)") }
        if !source.contains("'x', 5") { #expect(text.contains("a_spec.lua:"), "\(text)") }
    }

    @Test func aOneLineSpecKeepsItsLine() {
        #expect(run("return (").failure?.hasPrefix("a_spec.lua:1: unexpected symbol near <eof>") == true)
    }

    @Test func anEndlessSpecEnds() {
        let result = SpecRunner(cpu: .milliseconds(1500)) { _ in nil }.run(
            file: "a_spec.lua", source: "while true do end")
        #expect(result.failure?.contains("a_spec.lua:1: the CPU budget of 1.5 s is used up") == true, "\(result)")
    }

    /// A script that crashed must not pass for one that did nothing.
    @Test func errorsOfScripts() {
        let result = run(
            """
            local t = moongate.test
            local s = t.load("script.lua")
            t.case("unseen", function() t.eq(s:run({ path = "/boom" }).upstream, nil) end)
            t.case("seen", function()
              local r = s:run { path = "/boom" }
              t.eq(#r.errors, 1)
            end)
            t.case("fails with it", function() t.eq(s:run({ path = "/loop" }).status, 200) end)
            t.case("none", function() t.eq(s:run({ path = "/" }).errors, {}) end)
            t.case("many", function() for i = 1, 9 do s:run { path = "/boom" } end end)
            """)
        let failures = result.cases.map(\.failure)
        #expect(failures.map { $0 == nil } == [false, true, false, true, false], "\(SpecResult.tap([result]))")
        #expect(failures.first??.contains("script.lua:4: kaputt") == true)
        #expect(failures.first??.contains("does not look at the errors") == true)
        #expect(failures[2]?.contains("expected 200, got 503") == true)
        #expect(failures[2]?.contains("script.lua:9: the CPU budget") == true)
        #expect(failures[4]?.contains("4 more runs") == true)
    }

    @Test(arguments: [("error('outside')", "outside"), ("local x =", "a_spec.lua:1"), ("", "no case")])
    func theFileItself(_ source: String, _ message: String) {
        let result = run(source)
        #expect(!result.passed)
        #expect(result.failure?.contains(message) == true, "\(SpecResult.tap([result]))")
    }

    @Test func tap() {
        let results = [
            SpecResult(
                file: "a", cases: [.init(name: "one", failure: nil), .init(name: "two # 2", failure: "x\ny")],
                failure: nil),
            SpecResult(file: "b", cases: [], failure: "z"),
        ]
        #expect(
            SpecResult.tap(results) == """
                TAP version 13
                ok 1 - a: one
                not ok 2 - a: two \\# 2
                  ---
                  message: |
                    x
                    y
                  ...
                not ok 3 - b
                  ---
                  message: |
                    z
                  ...
                1..3

                """)
    }

    /// Tables of the chi-square distribution.
    @Test(arguments: [
        (3.841, 1, 0.05), (10.828, 1, 0.001), (5.991, 2, 0.05), (18.307, 10, 0.05), (0.0, 3, 1.0), (9.342, 10, 0.5),
    ])
    func chiSquare(_ value: Double, _ freedom: Int, _ chance: Double) {
        #expect(abs(ChiSquare.probability(value, freedom: freedom) - chance) < chance * 0.002)
    }

    @Test func chiSquareOfCounts() throws {
        let fair = try #require(ChiSquare.statistic(counts: [50, 50], shares: [1, 1]))
        #expect(fair.value == 0 && fair.freedom == 1)
        // SCRIPTING.md §10: for 50/50 and 10 000 units the alarm is at 51.64/48.36.
        let edge = try #require(ChiSquare.statistic(counts: [5164, 4836], shares: [50, 50]))
        #expect(ChiSquare.probability(edge.value, freedom: 1) < 0.00105)
        let inside = try #require(ChiSquare.statistic(counts: [5163, 4837], shares: [50, 50]))
        #expect(ChiSquare.probability(inside.value, freedom: 1) > 0.001)
        #expect(ChiSquare.statistic(counts: [0, 0], shares: [1, 1]) == nil)
        #expect(ChiSquare.statistic(counts: [1, 1], shares: [0, 1])?.value == .infinity)
    }
}
