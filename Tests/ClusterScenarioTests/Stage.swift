// The real program, against an API server over real HTTP, under load over real sockets.

import ClusterTesting
import Foundation
import KubernetesAPI
import KubernetesClient
import MoongateTesting
import Synchronization
import Testing

/// Blocking work, on a thread of its own.
func blocking<Result: Sendable>(_ body: @escaping @Sendable () -> Result) async -> Result {
    await withCheckedContinuation { continuation in
        Thread.detachNewThread { continuation.resume(returning: body()) }
    }
}

struct StageFailure: Error, CustomStringConvertible {
    var description: String
}

/// A running `moongate run`.
struct Replica: Sendable {
    let process: ChildProcess
    let http: SocketAddress
    let https: SocketAddress?
    let admin: SocketAddress
    let webhook: SocketAddress?

    /// The body of an admin page, with its status before it.
    func page(_ path: String) async -> String {
        let address = admin
        return await blocking {
            (try? Client.ask(address, path, host: "localhost")).map { "\($0.status) \($0.body)" } ?? ""
        }
    }

    /// Asks until the answer is as it should be, or half a minute has passed.
    func wait(for path: String, _ isMet: @escaping @Sendable (String) -> Bool) async throws {
        let address = admin
        let last = await blocking { () -> String? in
            let deadline = Deadline(after: .seconds(30))
            var last = ""
            while !deadline.passed {
                last = (try? Client.ask(address, path, host: "localhost")).map { "\($0.status) \($0.body)" } ?? ""
                if isMet(last) { return nil }
            }
            return last
        }
        if let last { throw StageFailure(description: "\(path) says at last:\n\(last)") }
    }

    func waitUntilReady() async throws { try await wait(for: "/readyz") { $0.hasPrefix("200") } }

    /// What a request is answered.
    func get(_ path: String = "/", host: String = "shop.test") async throws -> Client.Answer {
        let address = http
        return try await blocking { Result { try Client.ask(address, path, host: host) } }.get()
    }

    /// Asks until the answer is this one.
    func waitFor(_ status: Int, _ body: String? = nil, at path: String = "/", host: String = "shop.test") async throws {
        let address = http
        let last = await blocking { () -> Client.Answer? in
            let deadline = Deadline(after: .seconds(30))
            var last = Client.Answer(status: 0, body: "no answer")
            while !deadline.passed {
                last = (try? Client.ask(address, path, host: host)) ?? last
                if last.status == status, body == nil || last.body == body { return nil }
            }
            return last
        }
        if let last { throw StageFailure(description: "\(host)\(path) says at last: \(last)") }
    }

    /// A figure of the metrics page.
    func metric(_ name: String) async -> Double? {
        let page = await page("/metrics")
        return page.split(separator: "\n").last { $0.hasPrefix(name + " ") || $0.hasPrefix(name + "{") }
            .flatMap { $0.split(separator: " ").last }.flatMap { Double($0) }
    }

    func waitForLog(_ text: String) async throws {
        let output = process.output
        let found = await blocking {
            output.wait(by: Deadline(after: .seconds(30))) { $0.errorLines.contains { $0.contains(text) } ? true : nil }
        }
        if found == nil { throw StageFailure(description: "the log never says \"\(text)\"") }
    }

    func waitForExit() async -> ChildProcess.Exit? {
        let output = process.output
        return await blocking { output.wait(by: Deadline(after: .seconds(30))) { $0.exit } }
    }
}

enum Client {
    struct Answer: Sendable, Equatable, CustomStringConvertible {
        var status: Int
        var body: String
        var description: String { "\(status) \(body)" }
    }

    /// One request on a connection of its own.
    static func ask(
        _ address: SocketAddress, _ path: String, host: String, method: String = "GET"
    ) throws -> Answer {
        let deadline = Deadline(after: .seconds(60))
        let socket = try RawSocket.connect(to: address, by: deadline)
        var reader = MessageReader(socket)
        return try ask(&reader, socket, path, host: host, method: method, close: true, by: deadline)
    }

    static func ask(
        _ reader: inout MessageReader, _ socket: RawSocket, _ path: String, host: String, method: String = "GET",
        close: Bool, by deadline: Deadline
    ) throws -> Answer {
        let connection = close ? "Connection: close\r\n" : ""
        try socket.write(Array("\(method) \(path) HTTP/1.1\r\nHost: \(host)\r\n\(connection)\r\n".utf8), by: deadline)
        guard var message = try reader.head(answering: method, by: deadline) else {
            throw StageFailure(description: "the connection ended before a response")
        }
        try reader.body(of: &message, by: deadline)
        return Answer(status: message.status ?? 0, body: String(decoding: message.body.bytes, as: UTF8.self))
    }
}

/// Requests without a pause, on kept connections, until it is stopped.
final class Load: Sendable {
    struct Figures: Sendable {
        var answered = 0
        var failures: [String] = []
        var bodies: [String: Int] = [:]
        var running = 0
    }

    let figures = Board(Figures())
    private let stopped = Mutex(false)

    /// - Parameter expect: what is no failure.
    init(
        on address: SocketAddress, host: String = "shop.test", path: String = "/", connections: Int = 4,
        expect: @escaping @Sendable (Client.Answer) -> Bool = { $0.status == 200 }
    ) {
        figures.change { $0.running = connections }
        for _ in 0..<connections {
            Thread.detachNewThread { [self] in
                run(address, host, path, expect)
                figures.change { $0.running -= 1 }
            }
        }
    }

    private func run(
        _ address: SocketAddress, _ host: String, _ path: String, _ expect: @Sendable (Client.Answer) -> Bool
    ) {
        var connection: (reader: MessageReader, socket: RawSocket)?
        while !stopped.withLock({ $0 }) {
            do {
                let deadline = Deadline(after: .seconds(60))
                if connection == nil {
                    let socket = try RawSocket.connect(to: address, by: deadline)
                    connection = (MessageReader(socket), socket)
                }
                guard var held = connection else { continue }
                let answer = try Client.ask(&held.reader, held.socket, path, host: host, close: false, by: deadline)
                connection = held
                figures.change { figures in
                    figures.answered += 1
                    figures.bodies[answer.body, default: 0] += 1
                    if !expect(answer) { figures.failures.append("\(answer)") }
                }
            } catch {
                connection = nil
                figures.change { $0.failures.append("\(error)") }
            }
        }
    }

    /// Returns when so many more requests were answered.
    func pass(_ count: Int) async throws {
        let figures = figures
        let target = figures.read { $0.answered } + count
        let reached = await blocking {
            figures.wait(by: Deadline(after: .seconds(30))) { $0.answered >= target ? true : nil }
        }
        if reached == nil { throw StageFailure(description: "the load stands still: \(figures.read { $0 })") }
    }

    /// Ends, and tells what became of it.
    func stop() async -> Figures {
        stopped.withLock { $0 = true }
        let figures = figures
        _ = await blocking { figures.wait(by: Deadline(after: .seconds(15))) { $0.running == 0 ? true : nil } }
        return figures.read { $0 }
    }
}

/// Each stage has programs with threads; a real cluster has one stage at a time.
private let turnstile = Turnstile(places: Cluster.isOurs ? 2 : 1)

/// A cluster, and the programs that follow it.
final class Stage: Sendable {
    let cluster: Cluster
    let transcript = Transcript()
    let folder: String
    private let processes = Mutex<[ChildProcess]>([])
    private let pods = Mutex<[TestPod]>([])
    private let endings = Mutex<[@Sendable () async -> Void]>([])

    private init() async throws {
        cluster = try await Cluster()
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("moongate-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    }

    /// The program is built beside the test bundle; MOONGATE_BINARY names another to try.
    static let binary: String = {
        if let named = ProcessInfo.processInfo.environment["MOONGATE_BINARY"] { return named }
        let bundle = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        return URL(fileURLWithPath: bundle).deletingLastPathComponent().appendingPathComponent("moongate").path
    }()

    static func play(_ body: (Stage) async throws -> Void) async throws {
        await turnstile.enter()
        do {
            let stage = try await Stage()
            do {
                try await body(stage)
            } catch {
                Issue.record("\(error)\n--- transcript ---\n\(stage.transcript.text)")
            }
            let processes = stage.processes.withLock { $0 }
            await blocking { for process in processes { process.stop(within: .seconds(20)) } }
            for pod in stage.pods.withLock({ $0 }) { try? await pod.leave() }
            for ending in stage.endings.withLock({ $0 }) { await ending() }
            await stage.cluster.close()
            try? FileManager.default.removeItem(atPath: stage.folder)
        } catch {
            Issue.record("there is no stage: \(error)")
        }
        await turnstile.leave()
    }

    /// The API server for tests; only for scenarios that say `.faults`.
    var server: APIServer {
        get throws {
            guard let server = cluster.server else { throw StageFailure(description: "the scenario is for .faults") }
            return server
        }
    }

    /// Where the sources are.
    static let root = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().path

    /// Asks again and again, for half a minute at most.
    func until(_ what: String, _ isMet: () async throws -> Bool) async throws {
        let deadline = Deadline(after: .seconds(30))
        while !(try await isMet()) {
            if deadline.passed { throw StageFailure(description: "\(what): not after half a minute") }
        }
    }

    /// Done when the scenario is over, however it ends.
    func atEnd(_ ending: @escaping @Sendable () async -> Void) { endings.withLock { $0.append(ending) } }

    /// Ours refuses these requests; a real one has roles of its own.
    func deny(_ denied: @escaping @Sendable (APIServer.Attributes) -> Bool) { cluster.server?.deny(denied) }

    func write(_ name: String, _ text: String) throws -> String {
        let path = folder + "/" + name
        try text.write(toFile: path, atomically: true, encoding: .utf8)
        return path
    }

    /// A kubeconfig for the API server; `user` is what stands below `user:` where it is ours.
    func kubeconfig(user: String = "{}") throws -> String {
        if let file = Cluster.kubeconfig { return file }
        return try write(
            "kubeconfig",
            """
            apiVersion: v1
            kind: Config
            current-context: test
            clusters: [{name: test, cluster: {server: "\(try server.url)"}}]
            users: [{name: test, user: \(user)}]
            contexts: [{name: test, context: {cluster: test, user: test, namespace: edge}}]
            """)
    }

    /// Starts a replica and returns when it listens, which is before it is ready.
    /// - Parameter isPod: it finds its own way to the API server.
    func replica(
        _ name: String = "moongate", _ options: [String] = [], program: [String] = [Stage.binary],
        kubeconfig: String? = nil, isPod: Bool = false, environment: [String: String] = [:]
    ) async throws -> Replica {
        let access = isPod ? [] : ["--kubeconfig", try kubeconfig ?? self.kubeconfig()]
        var variables = ["POD_NAME": name, "POD_NAMESPACE": "edge"]
        variables["PATH"] = ProcessInfo.processInfo.environment["PATH"] ?? ""
        variables.merge(environment) { $1 }
        let process = try ChildProcess(
            name: name,
            arguments: program + ["run"] + access + [
                "--http", "127.0.0.1:0", "--https", "127.0.0.1:0",
                "--admin", "127.0.0.1:0", "--workers", "2", "--access-log", "off", "--drain-timeout", "15s",
            ] + options, environment: variables, transcript: transcript)
        processes.withLock { $0.append(process) }
        let output = process.output
        let line = await blocking {
            output.wait(by: Deadline(after: .seconds(30))) { state -> String? in
                if let line = state.lines.first(where: { $0.contains("\"listening\"") }) { return line }
                return state.exit == nil ? nil : ""
            }
        }
        func address(_ key: String) -> SocketAddress? {
            let parts = (line ?? "").components(separatedBy: "\"\(key)\":\"")
            return parts.count > 1 ? SocketAddress(String(parts[1].prefix { $0 != "\"" })) : nil
        }
        guard let http = address("http"), let admin = address("admin") else {
            throw StageFailure(description: "\(name) does not listen: \(line ?? "no line")")
        }
        return Replica(
            process: process, http: http, https: address("https"), admin: admin, webhook: address("webhook"))
    }

    /// Where pods are: an address of this machine. Loopback will do for ours; a real API server takes no slice with it.
    static let podHost: String =
        Cluster.isOurs
        ? "127.0.0.1" : Host.current().addresses.first { $0.contains(".") && !$0.hasPrefix("127.") } ?? ""

    /// What stands behind a Service.
    func pod(_ name: String, host: String = Stage.podHost, port: Int = 0, work: Int64 = 0) async throws -> TestPod {
        let pod = try await TestPod.start(name, host: host, port: port, work: work)
        pods.withLock { $0.append(pod) }
        return pod
    }

    /// So many pods of one name, as many Services have them: each with an address of its own, all on one port. Where they
    /// must share this machine's address, they have ports of their own.
    func pods(_ name: String, _ count: Int, subnet: Int, work: Int64 = 0) async throws -> [TestPod] {
        var all: [TestPod] = []
        for index in 1...count {
            let host = Cluster.isOurs ? "127.0.\(subnet).\(index)" : Self.podHost
            all.append(try await pod(name, host: host, port: Cluster.isOurs ? all.first?.port ?? 0 : 0, work: work))
        }
        return all
    }

    // MARK: Objects

    /// Class, Service `web` and an Ingress for shop.test, and one pod behind them.
    @discardableResult
    func openShop() async throws -> TestPod {
        try await cluster.apply(moongateClass())
        let pod = try await pod("v1")
        try await cluster.apply(service("web"))
        try await publish("web", ready: [pod])
        try await cluster.apply(ingress("web"))
        return pod
    }

    /// The endpoints of a Service from here on: one slice for each port, as the API demands. What is new comes before what
    /// is old goes.
    func publish(
        _ service: String, namespace: String = "shop", ready: [TestPod], leaving: [TestPod] = []
    ) async throws {
        var endpoints: [Int: [SliceEndpoint]] = [:]
        for pod in ready { endpoints[pod.port, default: []] += ClusterTesting.ready(pod.host) }
        for pod in leaving { endpoints[pod.port, default: []].append(ClusterTesting.leaving(pod.host)) }
        for (port, endpoints) in endpoints.sorted(by: { $0.key < $1.key }) {
            try await cluster.apply(
                slice("\(service)-\(port)", service: service, namespace: namespace, port: port, endpoints))
        }
        for old in try await cluster.all(EndpointSlice.self)
        where old.metadata.namespace == namespace && old.metadata.labels[EndpointSlice.serviceLabel] == service {
            if let port = old.ports.first?.port, endpoints[port] != nil { continue }
            try await cluster.delete(EndpointSlice.self, namespace: namespace, name: old.metadata.name)
        }
    }
}

/// Without a cluster IP: a real API server chooses one.
func service(_ name: String, namespace: String = "shop") -> Service {
    var service = Service(metadata: ObjectMeta(name: name, namespace: namespace))
    service.spec.ports = [ServicePort(port: 80, name: "http", targetPort: .string("http"))]
    return service
}

/// With a named port, as pods declare them: the number is the slice's.
func slice(
    _ name: String, service: String = "web", namespace: String = "shop", port: Int, _ endpoints: [SliceEndpoint]
) -> EndpointSlice {
    var metadata = ObjectMeta(name: name, namespace: namespace)
    metadata.labels[EndpointSlice.serviceLabel] = service
    return EndpointSlice(metadata: metadata, endpoints: endpoints, ports: [SlicePort(name: "http", port: port)])
}
