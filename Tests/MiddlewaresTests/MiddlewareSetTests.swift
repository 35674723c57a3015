import Middlewares
import Model
import Scripting
import Synchronization
import Testing

/// A clock that a test moves. It begins at the real time, because the machine holds wall budgets against that.
final class TestClock: Sendable {
    private let now = Mutex<UInt64>(ScriptClock.system.monotonic())

    func advance(seconds: Double) { now.withLock { $0 += UInt64(seconds * 1e9) } }

    var script: ScriptClock {
        ScriptClock(
            wall: { Int64(self.now.withLock { $0 } / 1_000_000) }, monotonic: { self.now.withLock { $0 } })
    }
}

/// A world of one host: routes by path prefix, scripts on them.
struct World {
    var snapshot = Snapshot()
    let clock = TestClock()
    var log = ScriptLog()
    var metrics = ScriptMetrics()
    let compiler: MiddlewareCompiler
    static let ingress = ObjectReference(kind: "Ingress", namespace: "shop", name: "web")

    init(loops: Int = 1, seed: UInt64? = 1) {
        compiler = MiddlewareCompiler(
            loops: loops,
            surroundings: ScriptSurroundings(log: log, metrics: metrics, clock: clock.script, randomSeed: seed))
        snapshot.upstreams = [
            Upstream(namespace: "shop", service: "web", port: "80"),
            Upstream(namespace: "shop", service: "canary", port: "80"),
            Upstream(namespace: "other", service: "web", port: "80"),
        ]
        // Granted by its owner: being in the snapshot alone is none.
        snapshot.upstreams[2].allowedNamespaces = ["shop"]
    }

    mutating func add(script main: String, name: String? = nil) -> Int {
        snapshot.scripts.append(
            ScriptSource(name: name ?? "s\(snapshot.scripts.count)", namespace: "shop", main: main))
        return snapshot.scripts.count - 1
    }

    mutating func route(_ path: String, _ bindings: [ScriptBinding]) {
        snapshot.routes.append(
            Route(
                path: .prefix(path), ingress: Self.ingress, rule: "rules[0]", host: .any, upstream: 0, scripts: bindings
            ))
    }

    static func binding(
        _ script: Int?, reference: String? = nil, arguments: ConfigValue = .map([]),
        onError: ScriptBinding.FailurePolicy? = nil, budget: ScriptBinding.Budget = .init(), percent: Double = 100,
        mode: ScriptBinding.Mode = .enforce
    ) -> ScriptBinding {
        ScriptBinding(
            script: script, reference: reference ?? "ref\(script ?? -1)", order: 10, arguments: arguments,
            onError: onError,
            budget: budget, percent: percent, mode: mode, place: Place(object: ingress, field: "annotation scripts"))
    }

    /// One script on `/`.
    init(
        _ script: String, arguments: ConfigValue = .map([]), onError: ScriptBinding.FailurePolicy? = nil,
        budget: ScriptBinding.Budget = .init()
    ) {
        self.init()
        let index = add(script: script)
        route("/", [Self.binding(index, arguments: arguments, onError: onError, budget: budget)])
    }

    func match(_ exchange: Exchange) {
        let path = exchange.request.text(exchange.request.pathRange)
        let found = snapshot.routes.indices.filter { path.hasPrefix(snapshot.routes[$0].path.path) }
            .max { snapshot.routes[$0].path.path.count < snapshot.routes[$1].path.path.count }
        exchange.route = Int32(found ?? -1)
        exchange.upstream = found == nil ? -1 : 0
    }

    func exchange(_ line: String = "GET http://shop.test/", _ fields: [(String, String)] = []) throws -> Exchange {
        var sketch = try RequestSketch(line)
        sketch.fields = fields.map { RequestSketch.Field($0.0, $0.1) }
        let exchange = try sketch.makeExchange()
        match(exchange)
        return exchange
    }

    struct Outcome {
        var request: Verdict
        var response: Verdict
        var exchange: Exchange
        var tags: [String]
    }

    /// A whole request, with an upstream that answers 200.
    func serve(
        _ set: MiddlewareSet, _ line: String = "GET http://shop.test/", _ fields: [(String, String)] = []
    ) throws -> Outcome {
        let exchange = try exchange(line, fields)
        let request = set.runRequestPhases(exchange) { match($0) }
        switch request {
        case .next:
            exchange.origin = .upstream
            exchange.response.status = 200
        case .respond: break
        case .refuse(let status, _):
            exchange.origin = .moongate
            exchange.response.status = status
        case .suspended: Issue.record("nothing suspends")
        }
        let response = set.runResponsePhases(exchange)
        let tags = exchange.tags.map {
            String(decoding: exchange.tagBytes[$0.name.range], as: UTF8.self) + "="
                + String(decoding: exchange.tagBytes[$0.value.range], as: UTF8.self)
        }
        set.runLog(exchange)
        return Outcome(request: request, response: response, exchange: exchange, tags: tags)
    }

    func prepare() throws -> MiddlewareSet {
        let preparation = compiler.prepare(snapshot)
        #expect(preparation.diagnostics.isEmpty, "\(preparation.diagnostics)")
        return try #require(preparation.sets.first)
    }
}

extension Exchange {
    func field(_ name: String, response: Bool = true) -> [String] {
        let head = response ? self.response : request
        return head.fields.filter { !$0.isRemoved && head.text($0.nameRange).lowercased() == name }
            .map { head.text($0.valueRange) }
    }
}

@Suite struct MiddlewareSetTests {
    @Test func withoutScriptsNothingHappens() throws {
        let set = MiddlewareSet()
        let exchange = Exchange()
        #expect(set.runRequestPhases(exchange) { _ in Issue.record("no reroute") } == .next)
        #expect(set.runResponsePhases(exchange) == .next)
        set.runLog(exchange)
        #expect(!set.hasScripts(exchange))
        #expect(exchange.scriptRuns.isEmpty && exchange.scriptState == -1)
    }

    /// Each script notes its phases in `ctx.shared`; the last to run tells.
    @Test func orderOfPhasesAndScripts() throws {
        var world = World()
        let script = """
            local function note(phase) return function(req, a, b)
              local ctx = b or a
              ctx.shared.trail = (ctx.shared.trail or "") .. NAME .. phase .. " "
              ctx:tag("trail", ctx.shared.trail)
            end end
            return { rewrite = note("w"), access = note("a"), route = note("r"), header_filter = note("h"), log = note("l") }
            """
        let names = ["A", "B", "C"]
        let indices = names.map { world.add(script: "local NAME = \"\($0)\"\n" + script, name: $0) }
        world.route("/", indices.map { World.binding($0) })
        let set = try world.prepare()
        let exchange = try world.exchange()
        #expect(set.runRequestPhases(exchange) { _ in Issue.record("no reroute") } == .next)
        #expect(set.runResponsePhases(exchange) == .next)
        let tag = exchange.tags.first.map { String(decoding: exchange.tagBytes[$0.value.range], as: UTF8.self) }
        #expect(tag == "Aw Bw Cw Aa Ba Ca Ar Br Cr Ch Bh Ah ")
        set.runLog(exchange)
        #expect(exchange.scriptRuns.map { set.scriptName($0.script) } == names)
        #expect(exchange.scriptRuns.allSatisfy { $0.outcome == .next })
        #expect(exchange.scriptState == -1)
    }

    @Test func oneReroute() throws {
        var world = World()
        let rewriter = world.add(
            script:
                "return { rewrite = function(req) req.path = '/%63' end, access = function(req, ctx) ctx:tag('old', 1) end }"
        )
        let target = world.add(
            script:
                "return { rewrite = function(req, ctx) ctx:tag('again', 1) end, access = function(req, ctx) ctx:tag('path', req.path) end }"
        )
        world.route("/", [World.binding(rewriter)])
        world.route("/c", [World.binding(target)])
        let set = try world.prepare()
        var events: [MiddlewareEvent] = []
        set.listener = { events.append($0) }
        let outcome = try world.serve(set, "GET http://shop.test/a?x=1")
        #expect(outcome.exchange.route == 1)
        #expect(outcome.tags == ["path=/c"])
        #expect(outcome.exchange.request.text(outcome.exchange.request.queryRange) == "x=1")
        #expect(events.map(\.outcome).contains(.rerouted(from: "/a", to: "/c")))
        #expect(events.first?.edits == ["path: /a → /c"])
    }

    @Test func aRewriteToTheSamePathDoesNotReroute() throws {
        let world = World("return { rewrite = function(req) req.path = req.path .. '' end }")
        let set = try world.prepare()
        let exchange = try world.exchange("GET http://shop.test/a")
        #expect(set.runRequestPhases(exchange) { _ in Issue.record("no reroute") } == .next)
        set.runLog(exchange)
    }

    @Test func aRewriteToNowhereEndsTheRun() throws {
        var world = World()
        let script = world.add(
            script:
                "return { rewrite = function(req) req.path = '/x' end, access = function() return moongate.respond(403) end }"
        )
        world.route("/a", [World.binding(script)])
        let outcome = try world.serve(try world.prepare(), "GET http://shop.test/a")
        #expect(outcome.request == .next)
        #expect(outcome.exchange.route == -1)
    }

    @Test(arguments: ["rewrite", "access", "route"])
    func anEarlyResponseEndsTheRequestPhases(_ phase: String) throws {
        var world = World()
        let first = world.add(
            script:
                "return { \(phase) = function() return moongate.respond(418, { ['x-a'] = 'b' }, 'tea') end, header_filter = function(req, res) res.headers:set('x-origin', res.origin) end }"
        )
        let second = world.add(
            script:
                "return { route = function(req, ctx) ctx:tag('ran', 1) end, log = function(req, res, ctx) ctx:tag('status', res.status) end }"
        )
        world.route("/", [World.binding(first), World.binding(second)])
        let outcome = try world.serve(try world.prepare())
        #expect(outcome.request == .respond)
        #expect(outcome.exchange.response.status == 418)
        #expect(outcome.exchange.ownBody == Array("tea".utf8))
        #expect(outcome.exchange.field("x-a") == ["b"])
        #expect(outcome.exchange.field("x-origin") == ["script"])
        #expect(outcome.tags.isEmpty)
        #expect(outcome.exchange.scriptRuns.first?.outcome == .responded)
    }

    @Test func aFilterCanReplaceTheResponse() throws {
        var world = World()
        let outer = world.add(
            script: "return { header_filter = function(req, res) res.headers:set('x-seen', tostring(res.status)) end }")
        let inner = world.add(
            script:
                "return { header_filter = function(req, res) if res.status == 200 then return moongate.respond(410) end end }"
        )
        world.route("/", [World.binding(outer), World.binding(inner)])
        let outcome = try world.serve(try world.prepare())
        #expect(outcome.response == .respond)
        #expect(outcome.exchange.response.status == 410)
        #expect(outcome.exchange.field("x-seen") == ["410"])
    }

    struct Failing: Sendable {
        var phase: String
        var onError: ScriptBinding.FailurePolicy?
        var own: String = ""
        var refused: Bool
    }

    static let failing = [
        Failing(phase: "rewrite", refused: false), Failing(phase: "access", refused: true),
        Failing(phase: "route", refused: false), Failing(phase: "rewrite", onError: .closed, refused: true),
        Failing(phase: "route", onError: .closed, refused: true),
        Failing(phase: "access", onError: .open, refused: false),
        Failing(phase: "route", own: "closed", refused: true), Failing(phase: "access", own: "open", refused: false),
        Failing(phase: "access", onError: .closed, own: "open", refused: true),
    ]

    @Test(arguments: failing)
    func failurePolicy(_ failing: Failing) throws {
        let own = failing.own.isEmpty ? "" : "on_error = '\(failing.own)',"
        let world = World(
            "return { \(own) \(failing.phase) = function(req, ctx) req.headers:set('x-edit', '1') ctx:tag('t', '1') error('boom') end }",
            onError: failing.onError)
        let outcome = try world.serve(try world.prepare())
        #expect(outcome.request == (failing.refused ? .refuse(status: 503, reason: .scriptFailed) : .next))
        // A failed script leaves no trace.
        #expect(outcome.exchange.field("x-edit", response: false).isEmpty)
        #expect(outcome.tags.isEmpty)
        #expect(outcome.exchange.scriptRuns.map(\.outcome) == [.failed])
        #expect(outcome.exchange.reason == (failing.refused ? .scriptFailed : .none))
        let line = try #require(world.log.drain().first)
        #expect(line.level == .error && line.message.contains("s0:1: boom"))
    }

    @Test func aFailingFilter() throws {
        let script = "return { header_filter = function(req, res) res.headers:set('x', '1') error('boom') end }"
        let open = World(script)
        #expect(try open.serve(try open.prepare()).response == .next)
        #expect(try open.serve(try open.prepare()).exchange.field("x").isEmpty)
        let closed = World(script, onError: .closed)
        #expect(try closed.serve(try closed.prepare()).response == .refuse(status: 503, reason: .scriptFailed))
    }

    @Test func budgetsEndAScript() throws {
        var world = World()
        let script = world.add(script: "return { route = function() while true do end end }")
        world.route("/", [World.binding(script, budget: .init(cpuMicroseconds: 2000))])
        let set = try world.prepare()
        let outcome = try world.serve(set)
        #expect(outcome.request == .next)
        #expect(outcome.exchange.scriptErrors.map(\.errorClass) == [.cpu])
        #expect(outcome.exchange.scriptRuns.map(\.outcome) == [.failed])
    }

    @Test func stateLivesAsLongAsTheRequest() throws {
        let world = World(
            """
            local kept
            return {
              route = function(req, ctx) ctx.state.n = (ctx.state.n or 0) + 1; kept = kept or req end,
              header_filter = function(req, res, ctx) ctx:tag("n", ctx.state.n) ctx:tag("stale", not pcall(function() return kept.path end)) end,
            }
            """)
        let set = try world.prepare()
        #expect(try world.serve(set).tags == ["n=1", "stale=false"])
        #expect(try world.serve(set).tags == ["n=1", "stale=true"])
    }

    @Test func twoBindingsOfOneVersionHaveTwoStates() throws {
        var world = World()
        let script = world.add(
            script:
                "return { access = function(req, ctx) ctx.state.n = (ctx.state.n or 0) + 1; ctx.shared.n = (ctx.shared.n or 0) + 1; ctx:tag('n', ctx.state.n .. '/' .. ctx.shared.n) end }"
        )
        world.route("/", [World.binding(script, reference: "a"), World.binding(script, reference: "b")])
        #expect(try world.serve(try world.prepare()).tags == ["n=1/2"])
    }

    @Test func aShareOfRequests() throws {
        var world = World()
        let script = world.add(
            script:
                "return { access = function(req, ctx) ctx:tag('a', 1) end, header_filter = function(req, res, ctx) ctx:tag('h', 1) end }"
        )
        world.route("/", [World.binding(script, percent: 25)])
        let set = try world.prepare()
        var both = 0
        for _ in 0..<2000 {
            let outcome = try world.serve(set)
            // A request is inside for all of its phases, or for none.
            #expect(outcome.tags.isEmpty || outcome.tags == ["a=1", "h=1"])
            if !outcome.tags.isEmpty { both += 1 }
        }
        #expect(abs(both - 500) < 70)
    }

    @Test func theBreaker() throws {
        let world = World("return { access = function(req) if req.path ~= '/good' then error('x') end end }")
        let set = try world.prepare()
        func runs(_ request: String) throws -> [ScriptRun.Outcome] {
            try world.serve(set, request).exchange.scriptRuns.map(\.outcome)
        }
        let vitals = try #require(world.compiler.vitals.first)
        func gauge() -> String? {
            var text = ""
            ScriptVitals.write(world.compiler.vitals, to: &text)
            let name = "moongate_script_breaker_open{script=\"shop/s0\",version=\"\(vitals.version)\"} "
            return text.split(separator: "\n").first { $0.hasPrefix(name) }.map { String($0.dropFirst(name.count)) }
        }
        for _ in 0..<49 { #expect(try runs("GET http://shop.test/") == [.failed]) }
        func told() -> [String] {
            world.log.drain().filter { $0.message.contains("breaker") }.map {
                "\($0.level) \($0.script) \($0.message) \($0.fields.map { "\($0.key)=\($0.value)" })"
            }
        }
        #expect(told() == [])
        #expect(try runs("GET http://shop.test/") == [.failed])
        #expect(
            told() == [
                "warn shop/s0 the breaker of the script has opened: its access answers 503, and its other phases are left "
                    + "out; in 10 s one request tries it again [\"loop=0\"]"
            ])
        #expect(gauge() == "1")
        // Open: closed policy without a run.
        let shut = try world.serve(set, "GET http://shop.test/good")
        #expect(shut.request == .refuse(status: 503, reason: .scriptFailed))
        #expect(shut.exchange.scriptRuns.map(\.outcome) == [.skipped])
        world.clock.advance(seconds: 10.5)
        for _ in 0..<2 { #expect(try runs("GET http://shop.test/good") == [.next]) }
        #expect(gauge() == "0")
        #expect(told() == ["warn shop/s0 the breaker of the script has closed: it runs again [\"loop=0\"]"])
    }

    @Test func anOpenPolicyIsToldSo() throws {
        let world = World("return { route = function(req) error('x') end }")
        let set = try world.prepare()
        for _ in 0..<50 { _ = try world.serve(set) }
        #expect(world.log.drain().contains { $0.message.contains("has opened: requests pass without it") })
    }

    /// Where memory is what runs out, CPU time must not, however slow the build.
    static let ample = ScriptBinding.Budget(cpuMicroseconds: 1_000_000)

    static let leak = """
        local keep = {}
        return { access = function(req)
          if req.path == "/leak" then keep[#keep + 1] = ("x"):rep(200 << 10) .. #keep end
          if req.path == "/bomb" then local s = ("x"):rep(1e9) end
        end }
        """

    /// What a script keeps from request to request would fail each of them from then on, while the breaker is closed.
    @Test func aWornOutMachineIsReplaced() throws {
        let world = World(Self.leak, budget: Self.ample)
        let set = try world.prepare()
        func failures(_ count: Int) throws -> [ScriptErrorClass] {
            var errors: [ScriptErrorClass] = []
            for _ in 0..<count {
                errors += try world.serve(set, "GET http://shop.test/leak").exchange.scriptErrors.map(\.errorClass)
            }
            return errors
        }
        var filled = 0
        while try failures(1).isEmpty, filled < 100 { filled += 1 }
        #expect(filled > 10 && filled < 100)
        #expect(try failures(2) == [.memory, .memory])
        // Three were borne: the next request has a machine of its own.
        #expect(try failures(filled) == [])
        #expect(world.log.drain().contains { $0.level == .warn && $0.message.contains("it starts anew") })
        // Once in ten seconds, for a new machine takes the loop's time.
        #expect(try failures(20) == Array(repeating: .memory, count: 20))
        world.clock.advance(seconds: 10.5)
        #expect(try failures(filled) == [])
    }

    @Test func oneFailureForWantOfMemoryIsEnoughInTime() throws {
        let world = World(Self.leak, budget: Self.ample)
        let set = try world.prepare()
        while try world.serve(set, "GET http://shop.test/leak").request == .next {}
        world.clock.advance(seconds: 9)
        #expect(try world.serve(set, "GET http://shop.test/").request == .next)
        #expect(!world.log.drain().contains { $0.message.contains("it starts anew") })
        world.clock.advance(seconds: 2)
        #expect(try world.serve(set, "GET http://shop.test/leak").request == .next)
        #expect(world.log.drain().contains { $0.message.contains("it starts anew") })
    }

    /// Asking for too much at once wears nothing out.
    @Test func aBombLeavesTheMachine() throws {
        let world = World(Self.leak, budget: Self.ample)
        let set = try world.prepare()
        for _ in 0..<20 {
            #expect(
                try world.serve(set, "GET http://shop.test/bomb").exchange.scriptErrors.map(\.errorClass) == [.memory])
        }
        world.clock.advance(seconds: 30)
        #expect(try world.serve(set).request == .next)
        #expect(!world.log.drain().contains { $0.message.contains("it starts anew") })
    }

    @Test func namesForTheLogAndForMetrics() throws {
        var world = World()
        for ingress in ["a", "b"] {
            world.snapshot.scripts.append(
                ScriptSource(
                    name: "inline", namespace: "shop", ingress: ingress, main: "return { log = function() end }"))
        }
        world.route("/a", [World.binding(0)])
        world.route("/b", [World.binding(1)])
        let set = try world.prepare()
        #expect(set.scripts.map(\.name) == ["inline", "inline"])
        #expect(set.scriptSeries == ["shop/inline:a", "shop/inline:b"])
        #expect(world.compiler.vitals.count == 2)
    }

    @Test func backendsAreThoseOfTheArguments() throws {
        let script =
            "return { config = { to = { type = 'backend', required = true } }, route = function(req, ctx) ctx.upstream:use(ctx.config.to) ctx:tag('to', tostring(ctx.config.to)) end }"
        for (name, place) in [("canary:80", 1), ("other/web:80", 2)] {
            let world = World(script, arguments: .map([.init("to", .string(name))]))
            let outcome = try world.serve(try world.prepare())
            #expect(outcome.exchange.upstream == Int32(place))
            #expect(outcome.exchange.isUpstreamChosen)
            #expect(outcome.tags == ["to=\(name)"])
        }
    }

    /// Where the rule's own backend is another one for TLS, so is what a script chooses.
    @Test(arguments: [(false, false, 1), (false, true, 1), (true, false, 1), (true, true, 4)])
    func backendsAreSpokenToAsTheClientCame(hasOther: Bool, isOverTLS: Bool, place: Int32) throws {
        var world = World(
            "return { config = { to = { type = 'backend' } }, route = function(req, ctx) ctx.upstream:use(ctx.config.to) end }",
            arguments: .map([.init("to", .string("canary:80"))]))
        world.snapshot.upstreams += world.snapshot.upstreams.prefix(2).map { $0.varied(.https, nil) }
        if hasOther { world.snapshot.routes[0].secureUpstream = 3 }
        let exchange = try world.exchange()
        exchange.client.isSecure = true
        exchange.client.isOverTLS = isOverTLS
        _ = try world.prepare().runRequestPhases(exchange) { _ in }
        #expect(exchange.upstream == place)
    }

    @Test func theListenerHearsEdits() throws {
        let world = World(
            """
            return { config = { to = { type = "backend", default = "canary:80" } },
              route = function(req, ctx)
                req.headers:set("x-a", "1") req.headers:remove("x-b") req.query:set("q", "2")
                ctx.upstream:use(ctx.config.to) ctx:tag("variant", "canary")
              end }
            """)
        let set = try world.prepare()
        var events: [MiddlewareEvent] = []
        set.listener = { events.append($0) }
        _ = try world.serve(set, "GET http://shop.test/", [("X-B", "0")])
        #expect(
            events.first?.edits == [
                "query:  → q=2", "- request X-B: 0", "+ request x-a: 1", "upstream: shop/canary:80",
                "tag variant=canary",
            ])
        #expect(events.first?.phase == "route")
    }
}
