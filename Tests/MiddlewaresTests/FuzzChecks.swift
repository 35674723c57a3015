// The Lua border: whatever a script does, nothing traps, its CPU budget holds, a phase that failed leaves no trace, and
// what a phase leaves behind is a request that may be sent and a response that may be answered. Run over seeds and finds
// by the unit tests, and over mutations of them by the fuzz target, which links to this file.
//
// An input that begins with a NUL is a program for `FuzzProgram`; its second byte says when memory runs out. Any other
// is the text of a script.

import Foundation
import Middlewares
import Model
import Scripting

enum FuzzChecks {
    /// Why a head must not be written to a socket; nil when it may.
    private static func problem(of head: MessageHead) -> String? {
        for field in head.fields where !field.isRemoved {
            let name = head.bytes[field.nameRange]
            let value = head.bytes[field.valueRange]
            guard !name.isEmpty, name.allSatisfy({ $0 > 0x20 && $0 < 0x7f && $0 != UInt8(ascii: ":") }) else {
                return "a field name of \(Array(name))"
            }
            guard !value.contains(where: { $0 == 0 || $0 == 10 || $0 == 13 }) else {
                return "a field value of \(Array(value))"
            }
        }
        return nil
    }

    private static func problem(of exchange: Exchange) -> String? {
        if let wrong = problem(of: exchange.request) ?? problem(of: exchange.response) { return wrong }
        let head = exchange.request
        let path = head.bytes[head.pathRange.range]
        guard path.first == UInt8(ascii: "/"), path.allSatisfy({ $0 > 0x20 && $0 != 0x7f && $0 != UInt8(ascii: "?") })
        else {
            return "a path of \(Array(path))"
        }
        guard head.bytes[head.queryRange.range].allSatisfy({ $0 > 0x20 && $0 != 0x7f && $0 != UInt8(ascii: "#") })
        else {
            return "a query of \(Array(head.bytes[head.queryRange.range]))"
        }
        guard exchange.upstream < 2 else { return "an upstream that the script was not given: \(exchange.upstream)" }
        return nil
    }

    private static func problem(of response: ScriptResponse) -> String? {
        guard (200...599).contains(response.status) else { return "a response of status \(response.status)" }
        let exchange = Exchange()
        response.apply(to: exchange)
        return problem(of: exchange.response)
    }

    private static var limits: ScriptLimits {
        var limits = ScriptLimits()
        limits.cpuNanoseconds = 2_000_000
        limits.loadNanoseconds = 4_000_000
        limits.memoryBytes = 2 << 20
        return limits
    }
    /// What a run may take beyond its budget: the hook's interval, undoing, the error's text. On a busy machine.
    private static let slack: UInt64 = 100_000_000

    private static let scene = ScriptScene(
        ingressNamespace: "shop", ingressName: "web", rule: "rules[0]", backendClass: ScriptLibrary.backendClass,
        backends: [1], upstreamNames: ["shop/web:80", "shop/canary:80"])

    private static func makeExchange() throws -> Exchange {
        var sketch = try RequestSketch("GET https://shop.test/cart/a%20b?size=42&colour=dark+blue&size=7")
        sketch.fields = [.init("X-Canary", "always"), .init("Accept", "text/html"), .init("accept", "*/*")]
        sketch.cookies = [.init("uid", "u1"), .init("canary", "never")]
        let exchange = try sketch.makeExchange()
        exchange.upstream = 0
        return exchange
    }

    /// What is wrong with what the script of these bytes does; nil when nothing is.
    static func lua(_ bytes: [UInt8]) -> String? {
        var source = String(decoding: bytes, as: UTF8.self)
        var famine: UInt64 = 0
        if bytes.first == 0 {
            famine = UInt64(bytes.dropFirst().first ?? 0) * 9
            let program = bytes.dropFirst(2).map { "\\x" + String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }
                .joined()
            source = FuzzProgram.template.replacingOccurrences(of: "@PROGRAM@", with: program)
        }
        let surroundings = ScriptSurroundings(randomSeed: 1)
        let arguments = ConfigValue.map([.init("canary", .string("canary:80"))])
        let limits = limits
        var start = ScriptVM.threadCPUNanoseconds
        guard
            let built = try? ScriptVersion.build(
                ScriptSource(name: "fuzz", namespace: "shop", main: source), arguments, limits: limits,
                surroundings: surroundings)
        else {
            // Compiling, loading, the arguments, `init`.
            let spent = ScriptVM.threadCPUNanoseconds - start
            return spent > 4 * limits.loadNanoseconds + slack ? "loading took \(spent) ns of CPU time" : nil
        }
        let vm = built.machine.vm
        for round in 0..<2 {
            guard let exchange = try? makeExchange(), let request = vm.begin() else { return nil }
            let shared = ScriptShared()
            if famine > 0, round == 0 { vm.failAllocation(famine) }
            defer {
                vm.end(request)
                vm.failAllocation(0)
            }
            for phase in [ScriptPhase.rewrite, .access, .route, .headerFilter, .log] {
                if phase == .headerFilter {
                    exchange.response.status = 200
                    exchange.origin = .upstream
                    exchange.response.append(Array("Set-Cookie".utf8).span, Array("sid=1; Path=/".utf8).span)
                }
                let before = Picture(exchange)
                start = ScriptVM.threadCPUNanoseconds
                let outcome = vm.run(phase, request, on: exchange, with: scene, shared: shared)
                let spent = ScriptVM.threadCPUNanoseconds - start
                guard spent < limits.cpuNanoseconds + slack else { return "\(phase.name) took \(spent) ns of CPU time" }
                switch outcome {
                case .next: break
                case .responded(let response):
                    if let wrong = problem(of: response) { return "\(phase.name) answers with \(wrong)" }
                case .suspended:
                    return "\(phase.name) waits"
                case .failed(let failure):
                    guard Picture(exchange) == before else {
                        return "\(phase.name) failed and left a trace: \(failure)"
                    }
                    guard !failure.message.contains("\0") else { return "a NUL in the message of \(phase.name)" }
                }
                if let wrong = problem(of: exchange) { return "\(phase.name) leaves \(wrong)" }
                if vm.memoryInUse > limits.memoryBytes { return "\(vm.memoryInUse) bytes in use" }
            }
        }
        return nil
    }
}

/// What a phase can change of an exchange.
private struct Picture: Equatable {
    var request: [String]
    var response: [String]
    var line: String
    var tags: [String]
    var choice: [Int64]

    init(_ exchange: Exchange) {
        request = Self.fields(exchange.request)
        response = Self.fields(exchange.response)
        let head = exchange.request
        line =
            "\(head.text(head.methodRange)) \(head.text(head.pathRange)) \(head.hasQuery) \(head.text(head.queryRange))"
        tags = exchange.tags.map { tag in
            "\(exchange.tagBytes[tag.name.range])=\(exchange.tagBytes[tag.value.range])"
        }
        choice = [
            Int64(exchange.upstream), exchange.isUpstreamChosen ? 1 : 0, exchange.isUpstreamStrict ? 1 : 0,
            Int64(bitPattern: exchange.hashKey), Int64(exchange.responseTimeout), Int64(exchange.retries),
            Int64(exchange.response.status),
        ]
    }

    private static func fields(_ head: MessageHead) -> [String] {
        head.fields.filter { !$0.isRemoved }.map { "\(head.text($0.nameRange)): \(head.text($0.valueRange))" }
    }
}
