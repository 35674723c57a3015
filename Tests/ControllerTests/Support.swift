// What the tests of this room share: a cluster, a controller in it, and what it published.

import ClusterTesting
import Controller
import IngressTranslation
import KubernetesAPI
import KubernetesClient
import Logging
import Model

let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// A controller at work.
struct Replica: Sendable {
    let controller: ClusterController
    let published: Watched<[Publication]>
    let clock: ManualClock

    /// The routes that are served, as `host path`.
    static func routes(_ snapshot: Snapshot) -> [String] {
        snapshot.routes.map { "\($0.host) \($0.path.path)" }.sorted()
    }

    static func endpoints(_ snapshot: Snapshot, _ upstream: String) -> [String] {
        (snapshot.upstreams.first { $0.name == upstream }?.endpoints ?? []).map { endpoint in
            switch endpoint.host {
            case .ip(let ip): "\(ip):\(endpoint.port)"
            case .name(let name): "\(name):\(endpoint.port)"
            }
        }.sorted()
    }

    func waitForRoutes(_ routes: [String]) async throws {
        try await published.wait { Self.routes($0.last?.snapshot ?? Snapshot()) == routes.sorted() }
    }

    func waitForEndpoints(_ upstream: String, _ endpoints: [String]) async throws {
        try await published.wait { Self.endpoints($0.last?.snapshot ?? Snapshot(), upstream) == endpoints.sorted() }
    }

    func waitForDiagnostic(_ code: String) async throws {
        try await controller.state.wait { state in state.diagnostics.contains { $0.code == code } }
    }

    func waitForNoDiagnostic(_ code: String) async throws {
        try await controller.state.wait { state in state.isServing && !state.diagnostics.contains { $0.code == code } }
    }
}

func withCluster<Result: Sendable>(_ body: (APIServer) async throws -> Result) async throws -> Result {
    let server = APIServer()
    try await server.start()
    do {
        let result = try await body(server)
        try await server.stop()
        return result
    } catch {
        try await server.stop()
        throw error
    }
}

/// Runs a replica beside the test.
func withReplica<Result: Sendable>(
    of server: APIServer, clock: ManualClock = ManualClock(jumping: true),
    _ adjust: (inout ControllerOptions) -> Void = { _ in },
    prepare: @escaping @Sendable (Snapshot) async -> Void = { _ in },
    _ body: (Replica) async throws -> Result
) async throws -> Result {
    var options = ControllerOptions()
    adjust(&options)
    let client = APIClient(access: ClusterAccess(server: server.url), clock: clock, log: quiet)
    let published = Watched([Publication]())
    let controller = ClusterController(
        client: client, options: options, clock: clock, log: quiet, prepare: prepare
    ) { publication in
        published.update { $0.append(publication) }
        return []
    }
    let task = Task { await controller.run() }
    func end() async {
        task.cancel()
        await task.value
        await client.shutdown()
    }
    do {
        let result = try await body(Replica(controller: controller, published: published, clock: clock))
        await end()
        return result
    } catch {
        await end()
        throw error
    }
}

func service(_ name: String, namespace: String = "shop") -> Service {
    var service = Service(metadata: ObjectMeta(name: name, namespace: namespace))
    service.spec.ports = [ServicePort(port: 80, targetPort: .int(8080))]
    service.spec.clusterIP = "10.96.0.1"
    return service
}

func slice(
    _ name: String, service: String = "web", namespace: String = "shop", _ endpoints: [SliceEndpoint]
) -> EndpointSlice {
    var metadata = ObjectMeta(name: name, namespace: namespace)
    metadata.labels[EndpointSlice.serviceLabel] = service
    return EndpointSlice(metadata: metadata, endpoints: endpoints, ports: [SlicePort(port: 8080)])
}

/// A shop with one Service, its endpoint, a class and an Ingress.
func openShop(_ server: APIServer) throws {
    try server.apply(moongateClass())
    try server.apply(service("web"))
    try server.apply(slice("web-1", ready("10.1.0.1")))
    try server.apply(ingress("web"))
}
