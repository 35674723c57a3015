// What a script costs a request by itself: the canary of `bench.py`, which is its argument, through the real phases, without
// a socket.
//
// Prints a line of JSON for each number of scripts on the route: nanoseconds for a request, one behind the other, and
// between the system calls that a request makes, which leave the processor's caches and its guesses of branches to the kernel.
// The whole proxy beside itself with a script, which `bench.py` measures too, is a difference of two large figures, and
// moves by more than this.
internal import Glibc
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
            let nanoseconds = median { measure(set, exchanges) }
            let sockets = try Sockets()
            let between = median {
                measure(set, exchanges, between: sockets) - measure(nil, exchanges, between: sockets)
            }
            print(#"{"scripts":\#(count),"ns":\#(nanoseconds),"between":\#(Double(Int(between * 10)) / 10)}"#)
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

    static func median(_ measure: () -> Double) -> Double { (0..<7).map { _ in measure() }.sorted()[3] }

    static func measure(_ set: MiddlewareSet, _ exchanges: [Exchange]) -> Double {
        let rounds = 2_000
        let before = ScriptVM.threadCPUNanoseconds
        for _ in 0..<rounds {
            for exchange in exchanges {
                request(set, exchange)
                response(set, exchange)
            }
        }
        let spent = ScriptVM.threadCPUNanoseconds - before
        return Double(spent * 10 / UInt64(rounds * exchanges.count)) / 10
    }

    /// What stands before and behind the system calls alone; without a set what the clock takes.
    static func measure(_ set: MiddlewareSet?, _ exchanges: [Exchange], between sockets: borrowing Sockets) -> Double {
        let rounds = 200
        var spent = Duration.zero
        let clock = ContinuousClock()
        for _ in 0..<rounds {
            for exchange in exchanges {
                sockets.pass(200)
                spent += clock.measure { if let set { request(set, exchange) } }
                sockets.pass(200)
                sockets.pass(1_200)
                spent += clock.measure { if let set { response(set, exchange) } }
                sockets.pass(1_200)
            }
        }
        return spent / .nanoseconds(1) / Double(rounds * exchanges.count)
    }

    static func request(_ set: MiddlewareSet, _ exchange: Exchange) {
        exchange.route = 0
        exchange.upstream = 0
        let verdict = set.runRequestPhases(exchange) { _ in }
        precondition(verdict == .next && exchange.upstream == 0, "the canary fails")
    }

    static func response(_ set: MiddlewareSet, _ exchange: Exchange) {
        exchange.origin = .upstream
        exchange.response.status = 200
        let verdict = set.runResponsePhases(exchange)
        precondition(verdict == .next, "the canary fails")
        set.runLog(exchange)
        exchange.scriptRuns.removeAll(keepingCapacity: true)
    }

    /// A connection of TCP to ourselves.
    struct Sockets: ~Copyable {
        private let near: Int32
        private let far: Int32

        init() throws {
            let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            defer { close(listener) }
            near = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
            var size = socklen_t(MemoryLayout<sockaddr_in>.size)
            let near = near
            // Proof: the kernel reads and writes the one address, whose size it is told.
            far = unsafe withUnsafeMutablePointer(to: &address) { pointer in
                unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                    guard unsafe bind(listener, address, size) == 0, listen(listener, 1) == 0,
                        unsafe getsockname(listener, address, &size) == 0, unsafe connect(near, address, size) == 0
                    else { return -1 }
                    return accept(listener, nil, nil)
                }
            }
            guard far >= 0 else { throw Failure(text: "no connection to ourselves") }
        }

        deinit {
            close(near)
            close(far)
        }

        /// So many bytes to the other end, and out of it.
        func pass(_ count: Int) {
            var bytes = InlineArray<1_200, UInt8>(repeating: 0)
            var span = bytes.mutableSpan
            // Proof: no more is read or written than there is.
            unsafe span.withUnsafeMutableBytes { room in
                precondition(unsafe write(near, room.baseAddress, count) == count, "short write")
                precondition(unsafe read(far, room.baseAddress, count) == count, "short read")
            }
        }
    }
}
