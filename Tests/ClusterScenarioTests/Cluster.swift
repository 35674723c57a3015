// Where a scenario is played: an API server for tests, or a real one.

import ClusterTesting
import Foundation
import KubernetesAPI
import KubernetesClient
import Logging
import MoongateTesting
import Synchronization
import Testing

/// The cluster of a stage, from the side of its users. `MOONGATE_KUBECONFIG` names the kubeconfig of a real one; without
/// it, every stage has an API server for tests of its own.
final class Cluster: Sendable {
    /// Nil: a real API server.
    let server: APIServer?
    private let client: APIClient?
    /// What is to be deleted in the end, newest last; a real cluster goes on when the scenario is over.
    private let made = Mutex<[@Sendable (APIClient) async -> Void]>([])

    static let kubeconfig = ProcessInfo.processInfo.environment["MOONGATE_KUBECONFIG"].flatMap { $0.isEmpty ? nil : $0 }
    /// Whether the API server can be made to fail, to forget and to refuse.
    static var isOurs: Bool { kubeconfig == nil }

    /// All that scenarios write in. They are made, and must not be there before: what is in them is deleted.
    private static let namespaces = ["edge", "shop", "thief"]
    private static let label = "moongate.dev/scenarios"

    init() async throws {
        guard let file = Self.kubeconfig else {
            let server = APIServer(allowsLoopbackEndpoints: true)
            try await server.start()
            // Where the programs live: the namespace of their Lease.
            try server.addNamespace("edge")
            self.server = server
            client = nil
            return
        }
        server = nil
        let access = try Kubeconfig(files: [file]).access(context: nil)
        let client = APIClient(access: access, log: Logger(label: "cluster") { _ in SwiftLogNoOpLogHandler() })
        self.client = client
        for name in Self.namespaces {
            do {
                let found = try await client.get(Namespace.self, namespace: nil, name: name)
                guard found.metadata.labels[Self.label] == "true" else {
                    throw StageFailure(
                        description: "the namespace \(name) is there already; scenarios want \(Self.namespaces) for "
                            + "themselves. Label it \(Self.label)=true if all in it may be deleted")
                }
            } catch let error as APIError where error.code == .notFound {
                var metadata = ObjectMeta(name: name)
                metadata.labels[Self.label] = "true"
                _ = try await client.create(Namespace(metadata: metadata))
            }
        }
        try await clean(client)
    }

    /// What earlier scenarios, and the programs in them, have left behind.
    private func clean(_ client: APIClient) async throws {
        func clean<Object: APIResource>(_ type: Object.Type) async throws {
            for namespace in Self.namespaces {
                for object in try await list(type, client, namespace: namespace) {
                    try? await client.delete(type, namespace: namespace, name: object.metadata.name)
                }
            }
        }
        try await clean(Ingress.self)
        try await clean(Service.self)
        try await clean(EndpointSlice.self)
        try await clean(Event.self)
        try await clean(Lease.self)
    }

    func close() async {
        if let client {
            for undo in made.withLock({ $0 }).reversed() { await undo(client) }
            await client.shutdown()
        }
        try? await server?.stop()
    }

    // MARK: Objects

    /// Creates an object, or replaces it.
    @discardableResult
    func apply<Object: APIResource>(_ object: Object) async throws -> Object {
        if let server { return try server.apply(object) }
        guard let client else { throw StageFailure(description: "there is no API server") }
        let (namespace, name) = (object.metadata.namespace, object.metadata.name)
        do {
            let created = try await client.create(object)
            made.withLock { made in
                made.append { try? await $0.delete(Object.self, namespace: namespace, name: name) }
            }
            return created
        } catch {
            guard error.code == .alreadyExists else { throw error }
            while true {
                let old = try await client.get(Object.self, namespace: namespace, name: name)
                var next = object
                next.metadata.resourceVersion = old.metadata.resourceVersion
                do {
                    return try await client.replace(next)
                } catch {
                    guard error.code == .conflict else { throw error }
                }
            }
        }
    }

    func delete<Object: APIResource>(_ type: Object.Type, namespace: String, name: String) async throws {
        if let server { return try server.delete(type, namespace: namespace, name: name) }
        try await client?.delete(type, namespace: namespace, name: name)
    }

    func get<Object: APIResource>(_ type: Object.Type, namespace: String, name: String) async throws -> Object? {
        guard let client else { return try server?.get(type, namespace: namespace, name: name) }
        do {
            return try await client.get(type, namespace: namespace, name: name)
        } catch {
            guard error.code == .notFound else { throw error }
            return nil
        }
    }

    func all<Object: APIResource>(_ type: Object.Type) async throws -> [Object] {
        guard let client else { return try server?.all(type) ?? [] }
        return try await list(type, client)
    }

    private func list<Object: APIResource>(
        _ type: Object.Type, _ client: APIClient, namespace: String? = nil
    ) async throws -> [Object] {
        var objects: [Object] = []
        var continuation: String?
        repeat {
            let page = try await client.page(
                of: type, in: WatchScope(namespace: namespace), limit: 500, continuation: continuation)
            objects += page.objects
            continuation = page.continuation
        } while continuation != nil
        return objects
    }

    /// Returns when the cluster is as asked for.
    func wait(for what: String = "the cluster", until isMet: (Cluster) async throws -> Bool) async throws {
        let deadline = Deadline(after: .seconds(60))
        while true {
            let seen = server?.writes.value
            if try await isMet(self) { return }
            if deadline.passed { throw StageFailure(description: "\(what) is not as it should be after a minute") }
            // Ours says when something was written; a real one is asked again.
            try await server?.writes.wait { $0 != seen }
        }
    }
}

/// A namespace, as far as scenarios care.
private struct Namespace: APIResource {
    static let apiVersion = "v1"
    static let kind = "Namespace"
    static let plural = "namespaces"
    static let isNamespaced = false
    var metadata: ObjectMeta
}

extension Trait where Self == ConditionTrait {
    /// The scenario makes the API server fail, forget or refuse.
    static var faults: Self {
        .enabled(if: Cluster.isOurs, "only the API server for tests can be made to fail, to forget or to refuse")
    }
}
