// `make bench-scale`: the control loop at the size of DESIGN.md §5, against the API server for tests. What is measured is
// what an operator would: the time until a client gets another answer, and what the program costs meanwhile.

import ClusterTesting
import Dispatch
import Foundation
import KubernetesAPI
import KubernetesClient
import Synchronization

@main
struct ScaleBenchmark {
    static func main() async throws {
        let arguments = CommandLine.arguments
        guard arguments.count >= 2 else {
            print("usage: ScaleBenchmark MOONGATE [INGRESSES] [ROUNDS]")
            exit(2)
        }
        let count = arguments.count > 2 ? Int(arguments[2]) ?? 10_000 : 10_000
        let rounds = arguments.count > 3 ? Int(arguments[3]) ?? 50 : 50
        let bench = try await Bench(program: arguments[1], ingresses: count)
        do {
            try await bench.run(rounds: rounds)
        } catch {
            print("failed: \(error)")
            bench.stop()
            exit(1)
        }
        bench.stop()
    }
}

struct BenchFailure: Error, CustomStringConvertible {
    var description: String
}

/// One Service, two endpoints and one Ingress each, in namespaces of a hundred.
final class Bench: Sendable {
    private let server = APIServer(allowsLoopbackEndpoints: true)
    private let pods: [TestPod]
    private let count: Int
    private let program: Program
    private let started: ContinuousClock.Instant

    init(program path: String, ingresses count: Int) async throws {
        self.count = count
        var pods: [TestPod] = []
        for name in ["a", "b"] { pods.append(try await TestPod.start(name)) }
        self.pods = pods
        try await server.start()
        try server.addNamespace("edge")
        try server.apply(
            IngressClass(
                metadata: ObjectMeta(name: "moongate"),
                spec: IngressClassSpec(controller: "moongate.dev/ingress-controller")))
        for index in 0..<count {
            try server.apply(Self.service(index))
            try server.apply(Self.slice(index, pods[0].port))
            try server.apply(Self.ingress(index, path: "/"))
        }
        // Endpoints of watchers that come later need no history.
        server.compact()
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("bench-\(UUID().uuidString).yaml")
        try """
        current-context: bench
        clusters: [{name: bench, cluster: {server: "\(server.url)"}}]
        users: [{name: bench, user: {}}]
        contexts: [{name: bench, context: {cluster: bench, user: bench, namespace: edge}}]
        """.write(to: file, atomically: true, encoding: .utf8)
        started = .now
        program = try Program(path, kubeconfig: file.path)
    }

    func stop() { program.stop() }

    static func namespace(_ index: Int) -> String { "team-\(index / 100)" }

    static func service(_ index: Int) -> Service {
        var service = Service(metadata: ObjectMeta(name: "app-\(index)", namespace: namespace(index)))
        service.spec.ports = [ServicePort(port: 80, name: "http", targetPort: .string("http"))]
        service.spec.clusterIP = "10.\(96 + index / 65_536).\(index / 256 % 256).\(index % 256)"
        service.spec.selector = ["app": "app-\(index)"]
        return service
    }

    /// Two endpoints; the second is an address that nobody listens on, and is not ready.
    static func slice(_ index: Int, _ port: Int) -> EndpointSlice {
        var metadata = ObjectMeta(name: "app-\(index)-x7k2p", namespace: namespace(index))
        metadata.labels[EndpointSlice.serviceLabel] = "app-\(index)"
        return EndpointSlice(
            metadata: metadata,
            endpoints: [
                SliceEndpoint(addresses: ["127.0.0.1"]),
                SliceEndpoint(addresses: ["127.0.0.2"], conditions: EndpointConditions(ready: false)),
            ], ports: [SlicePort(name: "http", port: port)])
    }

    static func ingress(_ index: Int, path: String) -> Ingress {
        var ingress = Ingress(metadata: ObjectMeta(name: "app-\(index)", namespace: namespace(index)))
        ingress.spec.ingressClassName = "moongate"
        let backend = IngressBackend(
            service: IngressServiceBackend(name: "app-\(index)", port: ServiceBackendPort(number: 80)))
        ingress.spec.rules = [
            IngressRule(
                host: "app-\(index).bench.test",
                http: HTTPIngressRuleValue(paths: [HTTPIngressPath(path: path, pathType: .prefix, backend: backend)]))
        ]
        return ingress
    }

    func run(rounds: Int) async throws {
        let ports = try program.waitForPorts()
        let http = try Connection(port: ports.http)
        let admin = ports.admin
        while try Connection(port: admin).get("/readyz", host: "localhost").status != 200 {}
        let first = ContinuousClock.now - started
        while try http.get("/", host: "app-\(count - 1).bench.test").status != 200 {}
        print("| what | must | measured |\n|---|---|---|")
        print("| first snapshot, \(count) Ingresses and \(2 * count) endpoints | ≤ 3 s | \(Self.text(first)) |")

        print("| one endpoint change live | ≤ 20 ms | \(Self.summary(try changeEndpoints(rounds, http))) |")

        var ingressTimes: [Duration] = []
        for round in 0..<rounds {
            // One change, and not a row of them: after each translation the loop rests for as long as it took.
            _ = await every(.seconds(1), times: 1) { _ in }
            let index = (round * 7_919 + 3) % count
            let began = ContinuousClock.now
            try server.apply(Self.ingress(index, path: "/only-\(round)"))
            while try http.get("/only-\(round)/x", host: "app-\(index).bench.test").status != 200
                || http.get("/", host: "app-\(index).bench.test").status != 404
            {}
            ingressTimes.append(ContinuousClock.now - began)
        }
        print("| one Ingress change live | ≤ 500 ms | \(Self.summary(ingressTimes)) |")
        // Others change all the time: nobody's endpoints may wait for that.
        async let busy = every(.milliseconds(50), times: 100) { step in
            _ = try self.server.apply(Self.ingress(self.count - 1 - step, path: "/busy"))
        }
        let beside = try changeEndpoints(rounds, http)
        _ = await busy
        print("| one endpoint change live, beside 20 Ingress changes a second | | \(Self.summary(beside)) |")
        print("| memory (resident) | | \(try program.residentMiB()) MiB |")
        let changes: [(String, @Sendable (Int) throws -> Void)] = [
            (
                "endpoint",
                { step in _ = try self.server.apply(Self.slice(step % self.count, self.pods[step % 2].port)) }
            ),
            ("Ingress", { step in _ = try self.server.apply(Self.ingress(step % self.count, path: "/s\(step)")) }),
        ]
        for (what, change) in changes {
            let before = try program.cpuSeconds()
            let began = ContinuousClock.now
            let failures = await every(.milliseconds(20), times: 500, change)
            let share = (try program.cpuSeconds() - before) / Self.seconds(ContinuousClock.now - began)
            print(
                "| CPU at 50 \(what) changes a second | | \(Int(share * 100)) % of a core\(failures.map { " (\($0))" } ?? "") |"
            )
        }
    }

    /// How long each of these changes took to be live.
    private func changeEndpoints(_ rounds: Int, _ http: Connection) throws -> [Duration] {
        var times: [Duration] = []
        for round in 0..<rounds {
            let index = (round * 7_919) % count
            let served = try http.get("/", host: "app-\(index).bench.test").body
            guard let pod = pods.first(where: { $0.name != served }) else { continue }
            let began = ContinuousClock.now
            try server.apply(Self.slice(index, pod.port))
            while try http.get("/", host: "app-\(index).bench.test").body != pod.name {}
            times.append(ContinuousClock.now - began)
        }
        return times
    }

    /// Calls at even intervals; answers with the first failure.
    private func every(
        _ interval: DispatchTimeInterval, times: Int, _ body: @escaping @Sendable (Int) throws -> Void
    ) async -> String? {
        await withCheckedContinuation { continuation in
            let timer = DispatchSource.makeTimerSource(queue: DispatchQueue(label: "pace"))
            let state = Mutex((step: 0, failure: String?.none))
            timer.schedule(deadline: .now(), repeating: interval)
            timer.setEventHandler {
                let step = state.withLock { state in
                    defer { state.step += 1 }
                    return state.step
                }
                guard step < times else {
                    timer.cancel()
                    if step == times { continuation.resume(returning: state.withLock { $0.failure }) }
                    return
                }
                do { try body(step) } catch { state.withLock { $0.failure = $0.failure ?? "\(error)" } }
            }
            timer.resume()
        }
    }

    private static func seconds(_ duration: Duration) -> Double {
        let parts = duration.components
        return Double(parts.seconds) + Double(parts.attoseconds) / 1e18
    }

    private static func text(_ duration: Duration) -> String {
        let value = seconds(duration)
        return value >= 1 ? String(format: "%.2f s", value) : String(format: "%.1f ms", value * 1_000)
    }

    private static func summary(_ times: [Duration]) -> String {
        let sorted = times.sorted()
        guard let last = sorted.last else { return "–" }
        return "median \(text(sorted[sorted.count / 2])), worst \(text(last)) of \(sorted.count)"
    }
}

/// The program under test.
final class Program: Sendable {
    private let process: Process
    private let output: FileHandle

    init(_ path: String, kubeconfig: String) throws {
        process = Process()
        process.executableURL = URL(filePath: path)
        process.arguments = [
            "run", "--kubeconfig", kubeconfig, "--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--admin",
            "127.0.0.1:0", "--workers", "1",
            "--access-log", "off", "--no-election", "--log-level", "error",
        ]
        let pipe = Pipe()
        process.standardOutput = pipe
        output = pipe.fileHandleForReading
        try process.run()
    }

    func waitForPorts() throws -> (http: UInt16, admin: UInt16) {
        var text = ""
        while !text.contains("}\n") {
            // What is there, be it a part of a line: reading a number of bytes would wait for all of them.
            let part = output.availableData
            guard !part.isEmpty else {
                throw BenchFailure(description: "the program ended: \(text)")
            }
            text += String(decoding: part, as: UTF8.self)
        }
        func port(_ key: String) -> UInt16 {
            let rest = text.components(separatedBy: "\"\(key)\":\"127.0.0.1:").dropFirst().first ?? ""
            return UInt16(rest.prefix { $0.isNumber }) ?? 0
        }
        return (port("http"), port("admin"))
    }

    private func file(_ name: String) throws -> String {
        try String(contentsOfFile: "/proc/\(process.processIdentifier)/\(name)", encoding: .utf8)
    }

    func residentMiB() throws -> Int {
        let line = try file("status").split(separator: "\n").first { $0.hasPrefix("VmRSS:") } ?? ""
        return (Int(line.filter(\.isNumber)) ?? 0) / 1_024
    }

    /// User and system time so far.
    func cpuSeconds() throws -> Double {
        // The name in parentheses may hold anything; the figures come after it.
        let fields = try file("stat").split(separator: ")").last?.split(separator: " ") ?? []
        guard fields.count > 13, let user = Double(fields[11]), let system = Double(fields[12]) else { return 0 }
        return (user + system) / 100
    }

    func stop() {
        process.terminate()
        process.waitUntilExit()
    }
}

/// A kept HTTP/1.1 connection that blocks.
struct Connection {
    private let handle: BlockingSocket

    init(port: UInt16) throws { handle = try BlockingSocket(port: port) }

    func get(_ path: String, host: String) throws -> (status: Int, body: String) {
        try handle.write("GET \(path) HTTP/1.1\r\nHost: \(host)\r\n\r\n")
        let head = try handle.readHead()
        let status = Int(head.dropFirst(9).prefix(3)) ?? 0
        let length =
            head.lowercased().components(separatedBy: "content-length: ").dropFirst().first.flatMap {
                Int($0.prefix { $0.isNumber })
            } ?? 0
        return (status, try handle.readBody(length))
    }
}
