// What a script costs a request by itself: the canary of `bench.py`, which is its argument, through the real phases, without
// a socket.
//
// Prints one line of JSON: nanoseconds of CPU for a request, and how many scripts stood on its route. The whole proxy beside
// itself with a script, which `bench.py` measures too, is a difference of two large figures, and moves by more than this.
import Middlewares
import Model
import Scripting

@main
enum ScriptCostBenchmark {
    static func main() throws {
        guard let canary = CommandLine.arguments.dropFirst().first else { throw Failure(text: "ScriptCost SCRIPT") }
        for count in [1, 4] {
            let set = try prepare(canary, times: count)
            var sketch = try RequestSketch("GET http://shop.test/1k")
            sketch.fields = [
                ("x-canary", "maybe"), ("cookie", "session=0123456789abcdef; uid=u42; canary=never; theme=dark"),
                ("user-agent", "bench"), ("accept", "*/*"),
            ].map { RequestSketch.Field($0.0, $0.1) }
            let exchanges = try (0..<64).map { _ in try sketch.makeExchange() }
            var nanoseconds: [Double] = []
            for _ in 0..<7 { nanoseconds.append(measure(set, exchanges)) }
            nanoseconds.sort()
            print(#"{"scripts":\#(count),"ns":\#(nanoseconds[3]),"best":\#(nanoseconds[0])}"#)
        }
    }

    static func prepare(_ canary: String, times scripts: Int) throws -> MiddlewareSet {
        let ingress = ObjectReference(kind: "Ingress", namespace: "shop", name: "web")
        var snapshot = Snapshot()
        snapshot.upstreams = [
            Upstream(namespace: "shop", service: "web", port: "80"),
            Upstream(namespace: "shop", service: "canary", port: "80"),
        ]
        snapshot.scripts = [ScriptSource(name: "canary", namespace: "shop", main: canary)]
        let bindings = (0..<scripts).map { order in
            ScriptBinding(
                script: 0, reference: "./canary.lua", order: order,
                arguments: .map([.init("canary", .string("canary:80"))]), onError: nil, budget: .init(), percent: 100,
                mode: .enforce, place: Place(object: ingress, field: "annotation scripts"))
        }
        snapshot.routes = [
            Route(path: .prefix("/"), ingress: ingress, rule: "rules[0]", host: .any, upstream: 0, scripts: bindings)
        ]
        let preparation = MiddlewareCompiler(loops: 1).prepare(snapshot)
        guard let set = preparation.sets.first, preparation.diagnostics.isEmpty else {
            throw Failure(text: "\(preparation.diagnostics)")
        }
        return set
    }

    struct Failure: Error {
        var text: String
    }

    static func measure(_ set: MiddlewareSet, _ exchanges: [Exchange]) -> Double {
        let rounds = 2_000
        let before = ScriptVM.threadCPUNanoseconds
        for _ in 0..<rounds {
            for exchange in exchanges {
                exchange.route = 0
                exchange.upstream = 0
                let request = set.runRequestPhases(exchange) { _ in }
                exchange.origin = .upstream
                exchange.response.status = 200
                let response = set.runResponsePhases(exchange)
                precondition(request == .next && response == .next && exchange.upstream == 0, "the canary fails")
                set.runLog(exchange)
                exchange.scriptRuns.removeAll(keepingCapacity: true)
            }
        }
        let spent = ScriptVM.threadCPUNanoseconds - before
        return Double(spent * 10 / UInt64(rounds * exchanges.count)) / 10
    }
}
