// What the tests of this room share.

import ClusterTesting
import KubernetesAPI
import KubernetesClient
import Logging
import Synchronization

let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// Keeps what is logged.
struct LineHandler: LogHandler {
    let lines: Watched<[String]>
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.debug

    init(lines: Watched<[String]>) { self.lines = lines }

    subscript(metadataKey key: String) -> Logger.MetadataValue? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let line = "\(event.message)"
        lines.update { $0.append(line) }
    }
}

/// A server and a client for one test.
func withServer<Result: Sendable>(
    clock: any ControlClock = ManualClock(jumping: true), credential: Credential = .none,
    _ body: (APIServer, APIClient) async throws -> Result
) async throws -> Result {
    let server = APIServer()
    let url = try await server.start()
    let client = APIClient(access: ClusterAccess(server: url, credential: credential), clock: clock, log: quiet)
    do {
        let result = try await body(server, client)
        await client.shutdown()
        try await server.stop()
        return result
    } catch {
        await client.shutdown()
        try await server.stop()
        throw error
    }
}

/// Runs something beside the test, and ends it with the test.
func beside<Result: Sendable>(
    _ work: @escaping @Sendable () async -> Void, _ body: () async throws -> Result
) async throws -> Result {
    let task = Task { await work() }
    do {
        let result = try await body()
        task.cancel()
        await task.value
        return result
    } catch {
        task.cancel()
        await task.value
        throw error
    }
}

func ingress(_ name: String, namespace: String = "shop", host: String = "shop.test") -> Ingress {
    var ingress = Ingress(metadata: ObjectMeta(name: name, namespace: namespace))
    let backend = IngressBackend(
        service: IngressServiceBackend(name: "web", port: ServiceBackendPort(number: 80)))
    ingress.spec.rules = [
        IngressRule(
            host: host,
            http: HTTPIngressRuleValue(paths: [HTTPIngressPath(path: "/", pathType: .prefix, backend: backend)]))
    ]
    return ingress
}

func configMap(_ name: String, namespace: String = "shop", _ data: [String: String] = ["a": "1"]) -> ConfigMap {
    ConfigMap(metadata: ObjectMeta(name: name, namespace: namespace), data: data)
}

func slice(_ name: String, service: String = "web", namespace: String = "shop", _ addresses: [String]) -> EndpointSlice
{
    var metadata = ObjectMeta(name: name, namespace: namespace)
    metadata.labels[EndpointSlice.serviceLabel] = service
    return EndpointSlice(
        metadata: metadata, endpoints: addresses.map { SliceEndpoint(addresses: [$0]) }, ports: [SlicePort(port: 8080)])
}

extension KubernetesObject {
    /// The same object with a label.
    func labelled(_ key: String, _ value: String) -> Self {
        var copy = self
        copy.metadata.labels[key] = value
        return copy
    }
}
