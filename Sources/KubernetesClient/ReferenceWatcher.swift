// Secrets and ConfigMaps that Ingresses refer to, each followed by a watch of its own: Moongate never asks for all the
// Secrets of a cluster, and a role may grant it single ones by name.

package import KubernetesAPI
package import Logging

/// Follows a set of single objects that changes.
package actor ReferenceWatcher<Object: StoredResource> {
    private let client: APIClient
    private let store: ClusterStore
    private let clock: any ControlClock
    private let log: Logger
    private var running: [ObjectName: Task<Void, Never>] = [:]

    package init(client: APIClient, store: ClusterStore, clock: any ControlClock, log: Logger) {
        self.client = client
        self.store = store
        self.clock = clock
        self.log = log
    }

    /// From here on these are followed and no others. An object that is followed already is not asked for again.
    package func follow(_ references: Set<ObjectName>) {
        for (name, task) in running where !references.contains(name) {
            task.cancel()
            running[name] = nil
            store.drop(Object.self, in: Self.scope(name))
        }
        for name in references where running[name] == nil {
            let scope = Self.scope(name)
            let reflector = Reflector<Object>(
                client: client, scope: scope, clock: clock, log: log,
                listener: store.listener(for: Object.self, in: scope))
            running[name] = Task { await reflector.run() }
        }
    }

    package func stop() {
        for task in running.values { task.cancel() }
        running = [:]
    }

    package static func scope(_ name: ObjectName) -> WatchScope {
        WatchScope(namespace: name.namespace, name: name.name)
    }
}
