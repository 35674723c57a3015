import ClusterTesting
import KubernetesAPI
import KubernetesClient
import Logging
import Testing

@testable import Controller

@Suite(.timeLimit(.minutes(10))) struct StatusWriterTests {
    /// Ingresses of ours, and a writer that leads.
    private func write(
        _ names: [String], to server: APIServer,
        _ body: (ManualClock, Watched<[Logger.Level]>, Watched<ControllerFigures>) async throws -> Void
    ) async throws {
        let clock = ManualClock()
        let levels = Watched([Logger.Level]())
        let log = Logger(label: "test") { _ in LevelHandler(levels: levels) }
        let client = APIClient(access: ClusterAccess(server: server.url), clock: clock, log: quiet)
        let store = ClusterStore(clock: clock)
        let follow = store.listener(for: Ingress.self, in: WatchScope())
        for name in names { try server.apply(ingress(name, host: "\(name).test")) }
        follow(.listed(try server.all(Ingress.self), unreadable: []))
        let figures = Watched(ControllerFigures())
        let writer = StatusWriter(
            client: client, store: store, clock: clock, log: log, mayWrite: { true }, isNobodys: { _, _ in false },
            count: { change in figures.update { change(&$0) } }, tellDisputes: { _ in })
        let task = Task { await writer.run() }
        let address = [LoadBalancerIngress(ip: "203.0.113.1")]
        await writer.want(names.map { (ObjectName(namespace: "shop", name: $0), address) })
        do { try await body(clock, levels, figures) } catch { Issue.record(error) }
        task.cancel()
        await task.value
        await client.shutdown()
    }

    private static func patches(_ server: APIServer) -> Int { server.requests.value.count { $0.verb == "patch" } }

    /// Less and less often, and said once.
    @Test(arguments: [403, 422]) func aRefusalThatLasts(code: Int) async throws {
        try await withCluster { server in
            server.inject(.init(.status(code), verb: "patch", resource: "ingresses", times: 1_000))
            try await write(["web"], to: server) { clock, levels, _ in
                try await server.requests.wait { $0.contains { $0.verb == "patch" } }
                let began = clock.now()
                await clock.run(step: .seconds(1)) { clock.now() - began > .seconds(7_200) }
                try await levels.wait { $0.count >= 2 }
                // A clock that runs ahead of the network leaves out, and never adds.
                #expect((2...8).contains(Self.patches(server)))
                #expect(levels.value.count(where: { $0 == .error }) == 1)
            }
        }
    }

    /// A role that allows none: one asks for all of them, and when it may, the others follow.
    @Test func whereAllAreForbiddenOneAsks() async throws {
        try await withCluster { server in
            server.deny { $0.verb == "patch" }
            let names = (0..<40).map { "web\($0)" }
            try await write(names, to: server) { clock, levels, figures in
                try await levels.wait { $0.count == 40 }
                for round in 1...5 {
                    // It sleeps until the next one is due.
                    let asked = Self.patches(server)
                    #expect(asked >= 39 + round)
                    await clock.run(step: .seconds(1)) { Self.patches(server) > asked }
                    try await levels.wait { $0.count >= 40 + round }
                }
                // A clock that runs ahead of the network adds some, and not five rounds of forty.
                #expect(Self.patches(server) < 120)
                server.deny { _ in false }
                await clock.run(step: .seconds(1)) { figures.value.statusWrites == 40 }
            }
        }
    }
}

/// Keeps how bad each line is.
private struct LevelHandler: LogHandler {
    let levels: Watched<[Logger.Level]>
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.debug

    init(levels: Watched<[Logger.Level]>) { self.levels = levels }

    subscript(metadataKey key: String) -> Logger.MetadataValue? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let level = event.level
        levels.update { $0.append(level) }
    }
}
