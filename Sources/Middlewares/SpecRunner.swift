// `moongate test`: a spec is a Lua file that loads scripts and sends requests through them. Each script runs in a machine
// of its own with the budgets that it has in traffic, and through the same chain.

package import Model
import Scripting

/// What became of one spec file.
package struct SpecResult: Sendable, Hashable {
    package struct Case: Sendable, Hashable {
        package var name: String
        /// Nil: passed.
        package var failure: String?

        package init(name: String, failure: String?) {
            self.name = name
            self.failure = failure
        }
    }

    package var file: String
    package var cases: [Case]
    /// The file itself failed outside of its cases.
    package var failure: String?

    package init(file: String, cases: [Case], failure: String?) {
        self.file = file
        self.cases = cases
        self.failure = failure
    }

    package var passed: Bool { failure == nil && cases.allSatisfy { $0.failure == nil } }

    /// Test Anything Protocol, version 13, of several files.
    package static func tap(_ results: [SpecResult]) -> String {
        var text = "TAP version 13\n"
        var number = 0
        func line(_ name: String, _ failure: String?) {
            number += 1
            // A `#` would begin a directive.
            let shown = name.split(separator: "\n").joined(separator: " ").split(separator: "#").joined(
                separator: "\\#")
            text += "\(failure == nil ? "ok" : "not ok") \(number) - \(shown)\n"
            guard let failure else { return }
            text += "  ---\n  message: |\n"
            for part in failure.split(separator: "\n", omittingEmptySubsequences: false) { text += "    \(part)\n" }
            text += "  ...\n"
        }
        for result in results {
            for one in result.cases { line("\(result.file): \(one.name)", one.failure) }
            if let failure = result.failure { line("\(result.file)", failure) }
        }
        return text + "1..\(number)\n"
    }
}

package struct SpecRunner {
    /// The script that a spec names (`t.load("init.lua")`), with its siblings; nil when there is none.
    package typealias Loader = @Sendable (_ name: String) -> ScriptSource?

    private let loader: Loader
    private let seed: UInt64
    private let cpu: Duration

    /// What a spec may compute in all, its cases included.
    package static let defaultCPU = Duration.seconds(30)

    /// - Parameter cpu: what one spec may compute in all.
    package init(seed: UInt64 = 1, cpu: Duration = SpecRunner.defaultCPU, loader: @escaping Loader) {
        self.loader = loader
        self.seed = seed
        self.cpu = cpu
    }

    /// Runs one spec. `file` is what messages call it.
    package func run(file: String, source: String) -> SpecResult {
        let session = SpecSession(loader: loader, seed: seed)
        var limits = ScriptLimits()
        limits.memoryBytes = 256 << 20
        limits.loadNanoseconds = UInt64(max(1, cpu / .nanoseconds(1)))
        var result = SpecResult(file: file, cases: [], failure: nil)
        guard let vm = ScriptVM(limits: limits, functions: session.functions, library: session) else {
            result.failure = "not enough memory"
            return result
        }
        do throws(ScriptFailure) {
            try vm.addModule(
                name: "moongate.test", file: Self.ours, source: Array(Self.prelude.utf8), mustCompile: true)
            // As it is, so that whatever is wrong with it is told of its own lines.
            try vm.addModule(name: "spec", file: file, source: Array(source.utf8), mustCompile: true)
            let main = "require(\"moongate.test\") require(\"spec\") return {}"
            try vm.compile(file: Self.ours, source: Array(main.utf8))
            try vm.load()
        } catch {
            result.failure = Self.told(error).description
        }
        result.cases = session.cases
        if result.failure == nil, result.cases.isEmpty { result.failure = "the spec has no case" }
        return result
    }

    /// What the lines of `prelude` are called; none of them is ever shown.
    private static let ours = "moongate.test"

    /// The failure as the author of the spec can use it: by the lines of the spec alone (SCRIPTING.md §11).
    private static func told(_ failure: ScriptFailure) -> ScriptFailure {
        var told = failure
        told.calls.removeAll { $0.file == ours }
        if failure.file == ours {
            let text = failure.message.trimmingPrefix("\(ours):\(failure.line): ")
            told.message = told.calls.first.map { "\($0.file):\($0.line): \(text)" } ?? String(text)
            told.sourceLine = nil
        }
        return told
    }

    /// The part of `moongate.test` that calls functions of the spec; the rest is `SpecSession`.
    private static let prelude = #"""
        local spec = moongate.spec
        local test = {}

        -- A handler of errors: one at a line of this file is the fault of whoever called.
        local function blame(problem)
          problem = tostring(problem)
          local text = problem:match("^moongate%.test:%d+: (.*)$")
          if not text then return problem end
          for level = 2, 30 do
            local _, place = pcall(error, "", level)
            if place ~= "" and not place:find("^moongate%.test:") then return place .. text end
          end
          return text
        end

        -- Calls a function of the host; what it refuses is the fault of whoever called us.
        local function ask(call, ...)
          local good, first, second = pcall(call, ...)
          if not good then error((tostring(first):gsub("^moongate%.test:%d+: ", "")), 3) end
          return first, second
        end

        -- Errors of scripts in the case at hand, and those of them that it has looked at.
        local errors, seen = {}, {}

        local function show(value, depth)
          if type(value) == "string" then return ("%q"):format(value) end
          if type(value) ~= "table" then return tostring(value) end
          if depth == 0 then return "{…}" end
          local keys, parts = {}, {}
          for key in pairs(value) do keys[#keys + 1] = key end
          table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
          for _, key in ipairs(keys) do
            parts[#parts + 1] = tostring(key) .. " = " .. show(value[key], depth - 1)
          end
          return "{ " .. table.concat(parts, ", ") .. " }"
        end

        local function same(a, b)
          if a == b then return true end
          if type(a) ~= "table" or type(b) ~= "table" then return false end
          for key, value in pairs(a) do if not same(value, b[key]) then return false end end
          for key in pairs(b) do if a[key] == nil then return false end end
          return true
        end

        local function fail(message, note)
          error(note and (message .. " (" .. tostring(note) .. ")") or message, 3)
        end

        function test.case(name, body)
          errors, seen = {}, {}
          local good, problem = xpcall(body, blame)
          if good then
            for _, list in ipairs(errors) do
              if not seen[list] then
                good, problem = false, "a script failed, and the case does not look at the errors of its result"
                break
              end
            end
          end
          if not good then
            for i, list in ipairs(errors) do
              if i > 5 then
                problem = ("%s\n… and %d more runs with errors"):format(problem, #errors - 5)
                break
              end
              for _, message in ipairs(list) do problem = problem .. "\nscript: " .. message end
            end
          end
          spec.result(tostring(name), good, good and "" or problem)
        end

        function test.eq(value, expected, note)
          if not same(value, expected) then fail("expected " .. show(expected, 4) .. ", got " .. show(value, 4), note) end
        end

        function test.ne(value, other, note)
          if same(value, other) then fail("expected anything but " .. show(other, 4), note) end
        end

        function test.ok(value, note)
          if not value then fail("expected a true value, got " .. show(value, 4), note) end
        end

        function test.matches(text, pattern, note)
          if type(text) ~= "string" or not text:find(pattern) then
            fail("expected something like " .. show(pattern, 1) .. ", got " .. show(text, 2), note)
          end
        end

        function test.fails(body, part)
          local good, problem = pcall(body)
          if good then fail("expected an error, and there was none") end
          if part and not tostring(problem):find(part, 1, true) then
            fail("expected an error with " .. show(part, 1) .. ", got " .. show(tostring(problem), 1))
          end
        end

        function test.under(value, limit, note)
          local most = ask(spec.seconds, limit)
          if not (value <= most) then fail(("expected at most %g s, got %g s"):format(most, value), note) end
        end

        function test.distribution(count, body)
          local seen = {}
          for i = 1, count do
            local key = body(i)
            if key == nil then key = "(nil)" end
            seen[key] = (seen[key] or 0) + 1
          end
          return seen
        end

        function test.ratio(seen, expected, options)
          local p = options and options.p or 0.001
          local counts, shares = {}, {}
          for key, share in pairs(expected) do
            counts[#counts + 1] = seen[key] or 0
            shares[#shares + 1] = share
          end
          for key, count in pairs(seen) do
            if expected[key] == nil then fail(("%d fell to %s, which nobody expected"):format(count, show(key, 1))) end
          end
          local chance = ask(spec.chance, counts, shares)
          if chance < p then
            fail(("%s is not %s: such a sample has a chance of %.2g"):format(show(seen, 2), show(expected, 2), chance))
          end
        end

        local Script = {}
        Script.__index = Script

        function Script:run(request)
          local result = ask(spec.run, self.id, request or {})
          self.last = result.last
          local list = result.errors
          if #list == 0 then return result end
          errors[#errors + 1] = list
          result.errors = nil
          return setmetatable(result, {
            __index = function(_, key)
              if key ~= "errors" then return nil end
              seen[list] = true
              return list
            end,
          })
        end

        function test.load(file, options)
          local id, problem = ask(spec.load, file, options or {})
          if not id then error(problem.message, 2) end
          return setmetatable({ id = id, last = {} }, Script)
        end

        function test.stub_fetch()
          error("moongate.http.fetch is not available in this version of Moongate", 2)
        end

        -- The spec is another file with the same globals.
        moongate = setmetatable({ test = test }, { __index = moongate })
        return moongate
        """#
}

/// The scripts that one spec has loaded, and what its cases said.
///
/// `@unchecked Sendable`: the machine of the spec calls it on the thread that runs the spec, and nobody else does.
private final class SpecSession: @unchecked Sendable {
    private struct Script {
        var set: MiddlewareSet
        var compiler: MiddlewareCompiler
        var snapshot: Snapshot
        var backends: [Int: String]
    }

    private let loader: SpecRunner.Loader
    private let seed: UInt64
    private var scripts: [Script] = []
    private(set) var cases: [SpecResult.Case] = []

    init(loader: @escaping SpecRunner.Loader, seed: UInt64) {
        self.loader = loader
        self.seed = seed
    }

    var functions: [HostFunction] {
        [
            HostFunction("spec.result") { [unowned self] call in
                let failure = call.bool(1) == true ? nil : call.string(2) ?? "failed"
                cases.append(SpecResult.Case(name: call.string(0) ?? "", failure: failure))
                return .done
            },
            HostFunction("spec.seconds") { call in
                if let number = call.number(0) {
                    call.push(number)
                } else if let milliseconds = call.string(0).flatMap({ Quantity.milliseconds($0) }) {
                    call.push(Double(milliseconds) / 1000)
                } else {
                    return .failed("a limit is a number of seconds or a duration such as \"1ms\"")
                }
                return .done
            },
            HostFunction("spec.chance") { call in
                guard case .list(let counts) = call.value(0), case .list(let shares) = call.value(1),
                    let (value, freedom) = ChiSquare.statistic(
                        counts: counts.compactMap(\.double), shares: shares.compactMap(\.double))
                else { return .failed("ratio needs at least two shares above 0, and something that was seen") }
                call.push(ChiSquare.probability(value, freedom: freedom))
                return .done
            },
            HostFunction("spec.load") { [unowned self] in load(&$0) },
            HostFunction("spec.run") { [unowned self] in run(&$0) },
        ]
    }

    // MARK: Loading

    private func load(_ call: inout HostCall) -> HostStatus {
        guard let name = call.string(0) else { return .failed("t.load takes the name of a file") }
        guard let source = loader(name) else {
            call.pushFailure(code: "not_found", message: "there is no file \(name)")
            return .done
        }
        var arguments = ConfigValue.map([])
        var ingress = ObjectReference(kind: "Ingress", namespace: "test", name: "test")
        if case .map(let options) = call.value(1) {
            for option in options {
                switch option.key.text {
                case "config": arguments = Self.config(option.value)
                case "ingress": ingress.name = option.value.text ?? ingress.name
                case "namespace": ingress.namespace = option.value.text ?? ingress.namespace
                default: return .failed("the options of t.load are config, ingress and namespace")
                }
            }
        }
        var snapshot = Snapshot()
        snapshot.scripts = [source]
        snapshot.upstreams = [Upstream(namespace: ingress.namespace, service: "own", port: "80")]
        var texts: Set<String> = []
        Self.strings(arguments, into: &texts)
        // Whatever looks like a Service port is one, so that a spec needs no list of them.
        var backends: [Int: String] = [:]
        for backend in texts.sorted().compactMap({ BackendName($0) }) {
            backends[snapshot.upstreams.count] = backend.text
            snapshot.upstreams.append(
                Upstream(
                    namespace: backend.namespace ?? ingress.namespace, service: backend.service, port: backend.port))
        }
        let binding = ScriptBinding(
            script: 0, reference: name, order: 10, arguments: arguments, place: Place(object: ingress, file: name))
        snapshot.routes = [
            Route(
                path: .prefix("/"), ingress: ingress, rule: "rules[0].http.paths[0]", host: .any, upstream: 0,
                scripts: [binding])
        ]
        var surroundings = ScriptSurroundings()
        surroundings.randomSeed = seed &+ UInt64(scripts.count)
        let compiler = MiddlewareCompiler(loops: 1, surroundings: surroundings)
        let preparation = compiler.prepare(snapshot)
        let problems = preparation.diagnostics.filter { $0.severity == .error }.map { "\($0.problem); \($0.mend)" }
        guard problems.isEmpty, let set = preparation.sets.first else {
            call.pushFailure(code: "refused", message: problems.joined(separator: "\n"))
            return .done
        }
        scripts.append(Script(set: set, compiler: compiler, snapshot: snapshot, backends: backends))
        call.push(Int64(scripts.count))
        return .done
    }

    private static func config(_ value: LuaValue) -> ConfigValue {
        switch value {
        case .nil, .null, .handle, .opaque: .null
        case .bool(let flag): .bool(flag)
        case .integer(let number): .integer(number)
        case .number(let number): .number(number)
        case .bytes(let bytes): .string(String(decoding: bytes, as: UTF8.self))
        case .list(let items): .list(items.map(config))
        case .map(let entries):
            .map(entries.map { ConfigValue.Entry(text($0.key), config($0.value)) })
        }
    }

    private static func text(_ value: LuaValue) -> String {
        switch value {
        case .bytes(let bytes): String(decoding: bytes, as: UTF8.self)
        case .integer(let number): String(number)
        case .number(let number): String(number)
        case .bool(let flag): String(flag)
        case .nil, .null, .list, .map, .handle, .opaque: ""
        }
    }

    private static func strings(_ value: ConfigValue, into texts: inout Set<String>) {
        switch value {
        case .string(let text): texts.insert(text)
        case .list(let items): for item in items { strings(item, into: &texts) }
        case .map(let entries): for entry in entries { strings(entry.value, into: &texts) }
        case .null, .bool, .integer, .number: break
        }
    }

    // MARK: Running

    private func run(_ call: inout HostCall) -> HostStatus {
        guard let number = call.integer(0), scripts.indices.contains(Int(clamping: number - 1)) else {
            return .failed("this script was not loaded")
        }
        let script = scripts[Int(number) - 1]
        var sketch = RequestSketch()
        sketch.host = "shop.test"
        var answer: LuaValue = .nil
        guard case .map(let entries) = call.value(1) else { return .failed("a request is a table") }
        for entry in entries {
            switch (entry.key.text, entry.value) {
            case ("method", .bytes): sketch.method = Self.text(entry.value)
            case ("path", .bytes):
                let query = sketch.target.firstIndex(of: "?").map { String(sketch.target[$0...]) } ?? ""
                sketch.target = Self.text(entry.value) + query
            case ("query", .bytes): sketch.target += "?" + Self.text(entry.value)
            case ("query", .map(let pairs)):
                let parts = pairs.map { pair in
                    let both = [Self.text(pair.key), Self.text(pair.value)].map {
                        let bytes = Array($0.utf8)
                        return String(decoding: PercentEncoding.encode(bytes.span), as: UTF8.self)
                    }
                    return both.joined(separator: "=")
                }
                if !parts.isEmpty { sketch.target += "?" + parts.joined(separator: "&") }
            case ("host", .bytes): sketch.host = Self.text(entry.value)
            case ("scheme", .bytes): sketch.isSecure = Self.text(entry.value) == "https"
            case ("ip", .bytes):
                guard let ip = IPAddress(Self.text(entry.value)) else { return .failed("ip is no address") }
                sketch.client = ip
            case ("headers", .map(let fields)): sketch.fields = Self.fields(fields)
            case ("cookies", .map(let fields)): sketch.cookies = Self.fields(fields)
            case ("response", .map): answer = entry.value
            default:
                return .failed(
                    "the request has no \"\(entry.key.text ?? "")\", or it is of the wrong type; there are method, path, query, "
                        + "host, scheme, ip, headers, cookies and response")
            }
        }
        let exchange: Exchange
        do throws(RequestSketch.Problem) { exchange = try sketch.makeExchange() } catch {
            return .failed(error.message)
        }
        exchange.route = 0
        exchange.upstream = 0
        var failures: [LuaValue] = []
        script.set.listener = { event in
            if case .failed(let message, _) = event.outcome { failures.append(.string(message)) }
        }
        var status: UInt16?
        switch script.set.runRequestPhases(exchange, reroute: { _ in }) {
        case .next: respond(to: exchange, with: answer)
        case .respond: status = exchange.response.status
        case .refuse(let refused, _):
            exchange.origin = .moongate
            exchange.response.removeAll()
            exchange.response.status = refused
            status = refused
        case .suspended: return .failed("the script waits, and nothing would wake it")
        }
        let before = exchange.response.status
        switch script.set.runResponsePhases(exchange) {
        case .next: if exchange.response.status != before { status = exchange.response.status }
        case .respond: status = exchange.response.status
        case .refuse(let refused, _): status = refused
        case .suspended: return .failed("the script waits, and nothing would wake it")
        }
        script.set.runLog(exchange)
        script.set.listener = nil
        call.push(result(exchange, script, status: status, failures: failures))
        return .done
    }

    private static func fields(_ entries: [LuaValue.Entry]) -> [RequestSketch.Field] {
        entries.flatMap { entry in
            if case .list(let values) = entry.value {
                return values.map { RequestSketch.Field(text(entry.key), text($0)) }
            }
            return [RequestSketch.Field(text(entry.key), text(entry.value))]
        }
    }

    /// What the upstream answers: 200, or what the request's `response` says.
    private func respond(to exchange: Exchange, with answer: LuaValue) {
        exchange.origin = .upstream
        exchange.response.status = UInt16(clamping: answer["status"]?.double.map { Int64($0) } ?? 200)
        guard case .map(let entries)? = answer["headers"] else { return }
        for field in Self.fields(entries) {
            let name = Array(field.name.utf8)
            let value = Array(field.value.utf8)
            exchange.response.append(name.span, value.span)
        }
    }

    private func result(_ exchange: Exchange, _ script: Script, status: UInt16?, failures: [LuaValue]) -> LuaValue {
        var entries: [(String, LuaValue)] = [
            ("path", .string(exchange.request.text(exchange.request.pathRange))),
            ("query", .string(exchange.request.text(exchange.request.queryRange))),
            ("host", .string(exchange.request.text(exchange.request.hostRange))),
            ("request_headers", Self.headers(exchange.request)),
            ("headers", Self.headers(exchange.response)),
            ("errors", .list(failures)),
            ("body", .bytes(exchange.ownBody)),
        ]
        var tags: [(String, LuaValue)] = []
        for tag in exchange.tags {
            tags.append(
                (
                    String(decoding: exchange.tagBytes[tag.name.range], as: UTF8.self),
                    .bytes(Array(exchange.tagBytes[tag.value.range]))
                ))
        }
        entries.append(("tags", .map(tags)))
        if let status { entries.append(("status", .integer(Int64(status)))) }
        if exchange.isUpstreamChosen, let name = script.backends[Int(exchange.upstream)] {
            entries.append(("upstream", .string(name)))
        }
        let spent = exchange.scriptRuns.reduce(0) { $0 + Double($1.nanoseconds) / 1e9 }
        entries.append(("last", .map([("cpu", .number(spent))])))
        return .map(entries)
    }

    /// By lower-case name; several lines of one name are joined (RFC 9110 §5.3), but for cookies, where the last counts.
    private static func headers(_ head: MessageHead) -> LuaValue {
        var order: [String] = []
        var values: [String: String] = [:]
        for field in head.fields where !field.isRemoved {
            let name = head.text(field.nameRange).lowercased()
            let value = head.text(field.valueRange)
            if let old = values[name] {
                values[name] = name == "set-cookie" ? value : "\(old), \(value)"
            } else {
                order.append(name)
                values[name] = value
            }
        }
        return .map(order.map { ($0, LuaValue.string(values[$0] ?? "")) })
    }
}
