import Middlewares
import Model
import Scripting
import Testing

@Suite struct MiddlewareCompilerTests {
    static let good =
        "return { config = { n = { type = 'integer', default = 1 } }, route = function(req, ctx) ctx:tag('n', ctx.config.n) end }"

    /// Serves one request on the first loop and gives its tags and verdict.
    func serve(_ world: World, _ preparation: MiddlewareCompiler.Preparation) throws -> World.Outcome {
        try world.serve(try #require(preparation.sets.first))
    }

    struct Broken: Sendable, CustomTestStringConvertible {
        var script: String
        var arguments: ConfigValue = .map([])
        var code: String
        var says: [String]
        var testDescription: String { "\(code) \(says)" }
    }

    static let broken = [
        Broken(script: "return {", code: "MG333", says: ["failed in load", "s0:1"]),
        Broken(script: "local x = nil\nlocal y = x.z\nreturn {}", code: "MG333", says: ["s0:2", "local y = x.z"]),
        Broken(script: "while true do end", code: "MG333", says: ["failed in load"]),
        Broken(script: "return 1", code: "MG333", says: ["failed in load"]),
        Broken(
            script: "local function f() error('not today') end\nreturn { init = function()\n f() end }", code: "MG333",
            says: ["failed in init", "not today", "s0:3"]),
        Broken(
            script: "return { config = { a = { type = 'strnig' } } }", code: "MG334", says: ["did you mean \"string\""]),
        Broken(script: "return { on_error = 'sometimes' }", code: "MG334", says: ["on_error"]),
        Broken(
            script: good, arguments: .map([.init("m", .integer(1))]), code: "MG335",
            says: ["args.m", "did you mean \"n\""]),
        Broken(
            script: good, arguments: .map([.init("n", .string("x"))]), code: "MG335",
            says: ["args.n is \"x\", not an integer"]),
    ]

    @Test(arguments: broken)
    func aBrokenScriptIsToldAndTheLastGoodOneServes(_ broken: Broken) throws {
        var world = World(Self.good)
        let first = world.compiler.prepare(world.snapshot)
        #expect(first.diagnostics.isEmpty)
        #expect(try serve(world, first).tags == ["n=1"])
        world.snapshot.scripts[0].main = broken.script
        world.snapshot.routes[0].scripts[0].arguments = broken.arguments
        for _ in 0..<2 {
            let second = world.compiler.prepare(world.snapshot)
            let found = try #require(second.diagnostics.first)
            #expect(found.code == broken.code)
            #expect(found.place == World.binding(0).place)
            for text in broken.says {
                #expect("\(found.problem) \(found.mend)".contains(text), "\(found)")
            }
            #expect(found.mend.contains("keeps serving"))
            #expect(!found.mend.contains("?;"), "\(found.mend)")
            #expect(try serve(world, second).tags == ["n=1"])
        }
        // Mended: the same version as before, on the same machine.
        world.snapshot.scripts[0].main = Self.good
        world.snapshot.routes[0].scripts[0].arguments = .map([])
        let third = world.compiler.prepare(world.snapshot)
        #expect(third.diagnostics.isEmpty)
        #expect(try serve(world, third).tags == ["n=1"])
        #expect(world.compiler.vitals.map(\.version) == [third.sets[0].scriptVersion(0)])
    }

    @Test func aNewRuleWithoutAGoodVersion() throws {
        let guarding = World("return { access = function() error( end }")
        let first = guarding.compiler.prepare(guarding.snapshot)
        #expect(first.diagnostics.first?.mend.contains("503") == true)
        #expect(try serve(guarding, first).request == .refuse(status: 503, reason: .scriptFailed))
        let open = World("return { access = function() error( end }", onError: .open)
        #expect(try serve(open, open.compiler.prepare(open.snapshot)).request == .next)
        let passing = World("return { route = function() error( end }")
        let second = passing.compiler.prepare(passing.snapshot)
        #expect(second.diagnostics.first?.mend.contains("without the script") == true)
        #expect(try serve(passing, second).request == .next)
        // Loaded, but with bad arguments: its phases are known.
        let known = World("return { config = { a = { type = 'string', required = true } }, route = function() end }")
        #expect(try serve(known, known.compiler.prepare(known.snapshot)).request == .next)
    }

    /// A guard whose name is misspelt must not be none.
    @Test(arguments: [
        ("acess = function() end", "acess", "write access"),
        ("access = function() end, on_eror = 'closed'", "on_eror", "write on_error"),
        ("Config = {}, route = function() end", "Config", "write config"),
        ("helper = function() end, route = function() end", "helper", "leave it out, or make it a local"),
        ("function() end", "[number]", "leave it out, or make it a local"),
    ])
    func anUnknownKeyIsRefused(table: String, key: String, mend: String) throws {
        let world = World("return { \(table) }")
        let first = world.compiler.prepare(world.snapshot)
        #expect(first.diagnostics.map(\.code) == ["MG334"])
        #expect(first.diagnostics.first?.problem.contains("there is no phase or field \"\(key)\"") == true)
        #expect(first.diagnostics.first?.mend.hasPrefix(mend) == true)
        #expect(try serve(world, first).request == .refuse(status: 503, reason: .scriptFailed))
    }

    @Test func aScriptWithoutAPhaseIsTold() throws {
        for table in ["", "init = function() end", "config = {}"] {
            let world = World("return { \(table) }")
            #expect(world.compiler.prepare(world.snapshot).diagnostics.map(\.code) == ["MG340"])
        }
        let all = World(
            "return { name = 'all', version = '1', config = {}, on_error = 'open', init = function() end, "
                + "rewrite = function() end, access = function() end, route = function() end, "
                + "header_filter = function() end, log = function() end }")
        #expect(all.compiler.prepare(all.snapshot).diagnostics.isEmpty)
    }

    @Test func anUnknownScriptGuards() throws {
        var world = World()
        world.route("/", [World.binding(nil, reference: "plugin/jwt-auth")])
        #expect(
            try serve(world, world.compiler.prepare(world.snapshot)).request
                == .refuse(status: 503, reason: .scriptFailed))
        var known = World(Self.good)
        _ = known.compiler.prepare(known.snapshot)
        known.snapshot.scripts = []
        known.snapshot.routes[0].scripts[0].script = nil
        let outcome = try serve(known, known.compiler.prepare(known.snapshot))
        #expect(outcome.tags == ["n=1"])
    }

    @Test func unchangedVersionsKeepTheirMachine() throws {
        var world = World(
            "local n = 0\nlocal t = { n = 0 }\nreturn { route = function(req, ctx) t.n = t.n + 1 ctx:tag('n', t.n) end }"
        )
        #expect(try serve(world, world.compiler.prepare(world.snapshot)).tags == ["n=1"])
        world.snapshot.upstreams.append(Upstream(namespace: "shop", service: "new", port: "80"))
        #expect(try serve(world, world.compiler.prepare(world.snapshot)).tags == ["n=2"])
        world.snapshot.scripts[0].main += " "
        #expect(try serve(world, world.compiler.prepare(world.snapshot)).tags == ["n=1"])
    }

    @Test func aRequestInFlightFinishesOnItsOwnVersion() throws {
        var world = World(
            "return { route = function() end, header_filter = function(req, res, ctx) ctx:tag('v', 1) end }")
        let old = try #require(world.compiler.prepare(world.snapshot).sets.first)
        let exchange = try world.exchange()
        _ = old.runRequestPhases(exchange) { _ in }
        world.snapshot.scripts[0].main =
            "return { route = function() end, header_filter = function(req, res, ctx) ctx:tag('v', 2) end }"
        let new = world.compiler.prepare(world.snapshot)
        #expect(try serve(world, new).tags == ["v=2"])
        exchange.response.status = 200
        _ = old.runResponsePhases(exchange)
        #expect(exchange.tags.first.map { exchange.tagBytes[$0.value.range] } == Array("1".utf8)[...])
        old.runLog(exchange)
    }

    /// A namespace's slow scripts are loaded over several preparations; what others change is taken up at once.
    @Test func slowScriptsTakeTurns() throws {
        let clock = TestClock()
        // Each machine takes 10 ms to load, as the compiler's clock has it.
        var loadTime: UInt64 = 0
        let compiler = MiddlewareCompiler(
            loops: 3, surroundings: ScriptSurroundings(clock: clock.script, randomSeed: 1), loadAllowance: 30_000_000,
            firstLoadAllowance: 1_000_000_000_000,
            loadClock: {
                loadTime += 10_000_000
                return loadTime
            })
        var world = World()
        // At the first preparation everything is loaded.
        let names = ["a", "b", "c", "d", "e"]
        for name in names {
            let index = world.add(script: "return { access = function(req, ctx) ctx:tag('v', 1) end }", name: name)
            world.route("/\(name)", [World.binding(index)])
        }
        world.snapshot.scripts.append(
            ScriptSource(name: "other", namespace: "bank", main: "return { log = function() end }"))
        world.route("/other", [World.binding(5)])
        let first = compiler.prepare(world.snapshot)
        #expect(!first.isUnfinished && first.diagnostics.isEmpty)

        // Three machines each.
        for index in names.indices {
            world.snapshot.scripts[index].main =
                "return { access = function(req, ctx) ctx:tag('v', 2) end } -- \(index)"
        }
        world.snapshot.scripts[5].main = "return { access = function(req, ctx) ctx:tag('v', 'new') end }"
        var turns = 1
        var last = compiler.prepare(world.snapshot)
        #expect(last.isUnfinished)
        #expect(Set(last.diagnostics.map(\.code)) == ["MG336"])
        let waiting = try #require(last.diagnostics.last)
        #expect(waiting.severity == .warning && waiting.problem.contains("namespace shop"), "\(waiting)")
        #expect(waiting.mend.contains("keeps serving"))
        #expect(try world.serve(last.sets[2], "GET http://shop.test/other").tags == ["v=new"])
        #expect(try world.serve(last.sets[0], "GET http://shop.test/e").tags == ["v=1"])
        while last.isUnfinished, turns < 20 {
            last = compiler.prepare(world.snapshot)
            turns += 1
        }
        #expect(turns == 5)
        #expect(last.diagnostics.isEmpty)
        for (index, name) in names.enumerated() {
            #expect(try world.serve(last.sets[index % 3], "GET http://shop.test/\(name)").tags == ["v=2"])
        }
    }

    @Test func loopsHaveMachinesOfTheirOwn() throws {
        var world = World(loops: 3)
        let script = world.add(
            script: "local t = { n = 0 }\nreturn { route = function(req, ctx) t.n = t.n + 1 ctx:tag('n', t.n) end }")
        world.route("/", [World.binding(script)])
        let preparation = world.compiler.prepare(world.snapshot)
        #expect(preparation.sets.count == 3)
        for set in preparation.sets { #expect(try world.serve(set).tags == ["n=1"]) }
        #expect(world.compiler.vitals.count == 3)
    }

    @Test func namespacesShareNothing() throws {
        var world = World()
        let source = "local t = { n = 0 }\nreturn { route = function(req, ctx) t.n = t.n + 1 ctx:tag('n', t.n) end }"
        let a = world.add(script: source, name: "same")
        world.snapshot.scripts.append(ScriptSource(name: "same", namespace: "other", main: source))
        world.route("/", [World.binding(a)])
        world.route("/other", [World.binding(1)])
        let set = try world.prepare()
        #expect(try world.serve(set).tags == ["n=1"])
        #expect(try world.serve(set, "GET http://shop.test/other").tags == ["n=1"])
    }

    @Test(arguments: [([], false), (["else"], false), (["else", "shop"], true), (["*"], true)])
    func anotherNamespacesServiceNeedsAGrant(allowed: [String], isChosen: Bool) throws {
        let script =
            "return { config = { to = { type = 'backend' } }, route = function(req, ctx) ctx.upstream:use(ctx.config.to) end }"
        var world = World(script, arguments: .map([.init("to", .string("bank/vault:80"))]))
        var vault = Upstream(namespace: "bank", service: "vault", port: "80")
        vault.allowedNamespaces = allowed
        world.snapshot.upstreams.append(vault)
        let preparation = world.compiler.prepare(world.snapshot)
        #expect(preparation.diagnostics.map(\.code) == (isChosen ? [] : ["MG330"]))
        let vaultIndex = Int32(world.snapshot.upstreams.count - 1)
        #expect((try serve(world, preparation).exchange.upstream == vaultIndex) == isChosen)
    }

    @Test func backendsAreResolvedAnew() throws {
        let script =
            "return { config = { to = { type = 'backend' } }, route = function(req, ctx) ctx.upstream:use(ctx.config.to) end }"
        var world = World(script, arguments: .map([.init("to", .string("canary:80"))]))
        #expect(try serve(world, world.compiler.prepare(world.snapshot)).exchange.upstream == 1)
        world.snapshot.upstreams.insert(Upstream(namespace: "aaa", service: "first", port: "80"), at: 0)
        #expect(try serve(world, world.compiler.prepare(world.snapshot)).exchange.upstream == 2)
        world.snapshot.upstreams.removeAll { $0.service == "canary" }
        world.snapshot.upstreams.append(Upstream(namespace: "shop", service: "canray", port: "80"))
        let gone = world.compiler.prepare(world.snapshot)
        #expect(gone.diagnostics.map(\.code) == ["MG330"])
        #expect(gone.diagnostics.first?.mend.contains("did you mean \"shop/canray:80\"") == true)
        let outcome = try serve(world, gone)
        #expect(outcome.request == .next && !outcome.exchange.isUpstreamChosen)
    }

    /// An edit that leads nowhere is a bad argument; a Service that is taken away is not.
    @Test func anEditToAnUnknownBackendKeepsTheLastGoodVersion() throws {
        let script =
            "return { config = { to = { type = 'backend' } }, route = function(req, ctx) ctx.upstream:use(ctx.config.to) end }"
        var world = World(script, arguments: .map([.init("to", .string("canary:80"))]))
        #expect(try serve(world, world.compiler.prepare(world.snapshot)).exchange.upstream == 1)
        world.snapshot.routes[0].scripts[0].arguments = .map([.init("to", .string("canari:80"))])
        for _ in 0..<2 {
            let edited = world.compiler.prepare(world.snapshot)
            #expect(edited.diagnostics.map(\.code) == ["MG330"])
            #expect(edited.diagnostics.first?.mend.contains("keeps serving") == true)
            #expect(try serve(world, edited).exchange.upstream == 1)
        }
        // A further mistake falls back to the same version.
        world.snapshot.routes[0].scripts[0].arguments = .map([.init("too", .string("canary:80"))])
        #expect(try serve(world, world.compiler.prepare(world.snapshot)).exchange.upstream == 1)
        // The Service comes after the edit.
        world.snapshot.routes[0].scripts[0].arguments = .map([.init("to", .string("canari:80"))])
        world.snapshot.upstreams.append(Upstream(namespace: "shop", service: "canari", port: "80"))
        let mended = world.compiler.prepare(world.snapshot)
        #expect(mended.diagnostics.isEmpty)
        #expect(try serve(world, mended).exchange.upstream == 3)
    }

    /// What no version has loaded of may be a guard, wherever its phases are made.
    @Test(arguments: [
        "return { ['access'] = function() end, } x", "local M = {} for _, p in ipairs{'access'} do M[p] = f end x",
        "return require('guard')",
    ])
    func aNewGuardThatDoesNotLoadLetsNobodyPass(_ main: String) throws {
        var world = World(main)
        world.snapshot.scripts[0].modules = [.init(name: "guard", source: "return { access = function( end }")]
        #expect(
            try serve(world, world.compiler.prepare(world.snapshot)).request
                == .refuse(status: 503, reason: .scriptFailed))
    }

    @Test(arguments: [
        ("moongate.respnd(200)", "write moongate.respond"), ("moongate.log.inof('x')", "write moongate.log.info"),
        ("moongate.lgo.info('x')", "write moongate.log.info"), ("moongate.zzzzzzzz()", "see the functions"),
        ("moongate.log.info('x') local t = moongate.time local n = moongate.json.null moongate.json{}", nil),
        ("moongate.hash.sha256('x') moongate.uuid.v7() moongate.metrics.counter('x')", nil),
    ])
    func aFunctionThatThereIsNotIsTold(_ body: String, _ mend: String?) throws {
        let world = World("return { log = function() \(body) end }")
        let diagnostics = world.compiler.prepare(world.snapshot).diagnostics
        #expect(diagnostics.map(\.code) == (mend == nil ? [] : ["MG341"]))
        if let mend { #expect(diagnostics.first?.mend.contains(mend) == true, "\(diagnostics)") }
    }

    /// Told before traffic does, and no reason to refuse the script.
    @Test func aMemberThatThereIsNotIsTold() throws {
        var world = World(
            """
            local lib = require('lib')
            return { route = function(request, context)
              if request.hedaers then lib.log("x") end
              context:tag("t", request.headers.accept)
            end }
            """)
        world.snapshot.scripts[0].modules = [
            .init(name: "lib", source: "return { log = function(message, level) return message.text end }")
        ]
        let preparation = world.compiler.prepare(world.snapshot)
        #expect(preparation.diagnostics.map(\.code) == ["MG342", "MG342"])
        #expect(preparation.diagnostics.allSatisfy { $0.severity == .warning })
        #expect(preparation.diagnostics.first?.problem.contains("request.hedaers in line 3") == true)
        #expect(preparation.diagnostics.first?.mend.contains("write request.headers;") == true)
        #expect(preparation.diagnostics.last?.mend.contains("write request.headers:get(\"accept\")") == true)
        #expect(try serve(world, preparation).request == .next)
    }

    @Test func aChosenBackendIsSpokenToAsItsIngressAsks() throws {
        let script =
            "return { config = { to = { type = 'backend' } }, route = function(req, ctx) ctx.upstream:use(ctx.config.to) end }"
        var world = World(script, arguments: .map([.init("to", .string("canary:80"))]))
        let plain = world.snapshot.upstreams[1]
        world.snapshot.upstreams[0] = world.snapshot.upstreams[0].varied(.https, nil)
        world.snapshot.routes[0].upstream = 0
        #expect(try serve(world, world.compiler.prepare(world.snapshot)).exchange.upstream == 1)
        world.snapshot.upstreams.append(plain.varied(.https, nil))
        let last = Int32(world.snapshot.upstreams.count - 1)
        #expect(try serve(world, world.compiler.prepare(world.snapshot)).exchange.upstream == last)
    }

    @Test func modulesOfTheConfigMap() throws {
        var world = World(
            "local lib = require('lib')\nreturn { route = function(req, ctx) ctx:tag('v', lib.value()) end }")
        world.snapshot.scripts[0].modules = [.init(name: "lib", source: "return { value = function() return 42 end }")]
        #expect(try serve(world, world.compiler.prepare(world.snapshot)).tags == ["v=42"])
        world.snapshot.scripts[0].modules = []
        let missing = world.compiler.prepare(world.snapshot)
        #expect(missing.diagnostics.first?.code == "MG333")
        #expect(try serve(world, missing).tags == ["v=42"])
    }

    @Test func modes() throws {
        var world = World()
        let script = world.add(script: "return { access = function() return moongate.respond(403) end }")
        world.route("/", [World.binding(script, mode: .off)])
        let off = world.compiler.prepare(world.snapshot)
        #expect(off.diagnostics.isEmpty)
        #expect(try serve(world, off).request == .next)
        world.snapshot.routes[0].scripts = [World.binding(script, mode: .shadow)]
        let shadow = world.compiler.prepare(world.snapshot)
        #expect(shadow.diagnostics.map(\.code) == ["MG331"])
        #expect(try serve(world, shadow).request == .next)
    }

    @Test func whatIsNotThereYetIsToldAtCheckTime() throws {
        let world = World(
            """
            -- moongate.kv in a comment is nothing
            local text = "moongate.sleep"
            return {
              route = function(req, ctx)
                moongate.http.fetch(nil)
              end,
              body_filter = function() end,
            }
            """)
        let preparation = world.compiler.prepare(world.snapshot)
        #expect(preparation.diagnostics.map(\.code) == ["MG332", "MG332"])
        #expect(preparation.diagnostics.map(\.severity) == [.warning, .warning])
        #expect(preparation.diagnostics.first?.problem.contains("moongate.http.fetch in line 5") == true)
        _ = try serve(world, preparation)
        #expect(world.log.drain().first?.message.contains("moongate.http.fetch is not available") == true)
    }
}
