// What the tests of the script machine share: an exchange to work on, and a VM around a source text.

import Model

@testable import Scripting

enum Sample {
    /// `GET /cart?size=42&colour=dark+blue&size=7` with a few headers and cookies.
    static func exchange(
        path: String = "/cart", query: String? = "size=42&colour=dark+blue&size=7",
        headers: [(String, String)] = [
            ("Host", "shop.test"), ("X-Canary", "always"), ("Accept", "text/html"), ("accept", "*/*"),
            ("Cookie", "uid=u1; canary=never"), ("cookie", "uid=u2"), ("Authorization", "Bearer abc.def"),
            ("Connection", "keep-alive"),
        ]
    ) -> Exchange {
        let exchange = Exchange()
        func store(_ text: String) -> ByteRange { exchange.request.store(Array(text.utf8)) }
        exchange.request.method = .get
        exchange.request.methodRange = store("GET")
        exchange.request.targetRange = store(path + (query.map { "?" + $0 } ?? ""))
        exchange.request.pathRange = store(path)
        if let query {
            exchange.request.queryRange = store(query)
            exchange.request.hasQuery = true
        }
        exchange.request.authorityRange = store("shop.test")
        exchange.request.hostRange = store("shop.test")
        exchange.idRange = store("req-1")
        for (name, value) in headers {
            exchange.request.append(Array(name.utf8).span, Array(value.utf8).span)
        }
        for i in exchange.request.fields.indices { exchange.request.fields[i].flags = [] }
        exchange.client.address = SocketAddress(ip: IPAddress(v4: 0x7f00_0001), port: 4711)
        exchange.upstream = 0
        exchange.response.status = 200
        exchange.origin = .upstream
        exchange.response.append(Array("Content-Type".utf8).span, Array("text/plain".utf8).span)
        exchange.response.append(Array("Set-Cookie".utf8).span, Array("sid=1; Path=/".utf8).span)
        return exchange
    }

    static let backends = HandleClass(rawValue: 1)
    static let scene = ScriptScene(
        ingressNamespace: "shop", ingressName: "web", rule: "rules[0]", backendClass: backends, backends: [3, -1],
        upstreamNames: ["shop/web:80"])

    static func limits(milliseconds: UInt64 = 50, memory: Int = 0) -> ScriptLimits {
        var limits = ScriptLimits()
        limits.cpuNanoseconds = milliseconds * 1_000_000
        limits.loadNanoseconds = milliseconds * 2_000_000
        limits.memoryBytes = memory
        return limits
    }

    /// A loaded VM with the class of backends and `ctx.config = { canary = <backend 0>, lost = <backend 1>, … }`.
    static func vm(
        _ source: String, limits: ScriptLimits = Sample.limits(), functions: [HostFunction] = [],
        config: [(String, LuaValue)] = [], modules: [(String, String)] = [], stock: Bool = false
    ) throws -> ScriptVM {
        let backend = HostClass(
            name: "backend",
            methods: [
                HostFunction("__tostring") { call in
                    call.push("backend \(call.handle(0)?.id ?? 99)")
                    return .done
                }
            ])
        guard let vm = ScriptVM(limits: limits, functions: functions, classes: [backend]) else {
            throw ScriptFailure(kind: .memory, message: "no VM")
        }
        if stock, !vm.defineStock() { throw ScriptFailure(kind: .memory, message: "no stock") }
        for (name, text) in modules {
            try vm.addModule(name: name, file: "\(name).lua", source: Array(text.utf8))
        }
        try vm.compile(file: "main.lua", source: Array(source.utf8))
        try vm.load()
        try vm.configure(
            .map([("canary", .handle(backends, 0)), ("lost", .handle(backends, 1))] + config))
        try vm.initialise()
        return vm
    }

    /// Runs one phase of a fresh request.
    @discardableResult
    static func run(
        _ phase: ScriptPhase = .route, of vm: ScriptVM, on exchange: Exchange = Sample.exchange(),
        shared: ScriptShared? = nil
    ) -> PhaseOutcome {
        guard let request = vm.begin() else { return .failed(ScriptFailure(kind: .memory, message: "no request")) }
        defer { vm.end(request) }
        return vm.run(phase, request, on: exchange, with: scene, shared: shared)
    }

    /// Runs `body` as the route phase and returns the tag `out` that it set, as a way to get a value out.
    static func value(
        _ body: String, limits: ScriptLimits = Sample.limits(), functions: [HostFunction] = [],
        phase: ScriptPhase = .route
    ) throws -> String {
        let arguments = phase == .headerFilter || phase == .log ? "req, res, ctx" : "req, ctx"
        let source = """
            return { \(phase.name) = function(\(arguments))
              local function out() \(body) end
              ctx:tag("out", tostring(out()))
            end }
            """
        let exchange = exchange()
        switch Self.run(phase, of: try vm(source, limits: limits, functions: functions), on: exchange) {
        case .next: return exchange.tagText("out") ?? "(no tag)"
        case .failed(let failure): throw failure
        case .responded: return "(response)"
        case .suspended: return "(suspended)"
        }
    }

    /// The failure of `body` as a phase; nil when it did not fail.
    static func failure(
        _ body: String, phase: ScriptPhase = .route, limits: ScriptLimits = Sample.limits(),
        functions: [HostFunction] = []
    ) throws -> ScriptFailure? {
        let arguments = phase == .headerFilter || phase == .log ? "req, res, ctx" : "req, ctx"
        let source = "return { \(phase.name) = function(\(arguments))\n\(body)\nend }"
        if case .failed(let failure) = run(phase, of: try vm(source, limits: limits, functions: functions)) {
            return failure
        }
        return nil
    }
}

extension PhaseOutcome {
    var isNext: Bool {
        if case .next = self { return true }
        return false
    }
}

extension Exchange {
    func tagText(_ name: String) -> String? {
        for tag in tags where String(decoding: tagBytes[tag.name.range], as: UTF8.self) == name {
            return String(decoding: tagBytes[tag.value.range], as: UTF8.self)
        }
        return nil
    }

    /// Every live field of the request, as text.
    var requestLines: [String] { request.lines }
    var responseLines: [String] { response.lines }
}

extension MessageHead {
    var lines: [String] {
        fields.filter { !$0.isRemoved }.map { "\(text($0.nameRange)): \(text($0.valueRange))" }
    }
}
