// What the loop says of itself: for readiness, for the admin port, for metrics.

package import KubernetesAPI
package import KubernetesClient
package import Model

/// What is to be served from here on.
package struct Publication: Sendable {
    /// What is different from the publication before.
    package enum Extent: Sendable, Equatable {
        case everything
        /// Nothing but the endpoints of these upstreams (indices into `snapshot.upstreams`).
        case endpoints([Int])
    }

    package var snapshot: Snapshot
    package var generation: UInt64
    package var extent: Extent
}

package struct ControllerState: Sendable {
    /// Something was published: from here on the replica is ready, whatever becomes of the API server.
    package var isServing = false
    package var generation: UInt64 = 0
    /// Of the last translation, of the publisher, and of the loop itself.
    package var diagnostics: [Diagnostic] = []
    /// Moves when the diagnostics do.
    package var diagnosticsVersion: UInt64 = 0
    /// Since when the API server does not answer, by the clock of the loop; nil while it does.
    package var outageSince: Duration?
    package var isLeading = false
    package var leader: String?
    /// Sources that the role does not allow us.
    package var forbidden: [StoreSource] = []
    /// Kinds that the API server has not answered for in a while, with what it said.
    package var staleKinds: [String: String] = [:]
    /// Ingresses whose status is left to another writer.
    package var disputes: [ObjectName] = []
    package var figures = ControllerFigures()

    package init() {}
}

/// Counted since the start.
package struct ControllerFigures: Sendable, Equatable {
    package var translations: UInt64 = 0
    package var publications: UInt64 = 0
    package var endpointPublications: UInt64 = 0
    /// Translations after which nothing was different.
    package var idleTranslations: UInt64 = 0
    package var lastTranslation = Duration.zero
    package var statusWrites: UInt64 = 0
    package var statusConflicts: UInt64 = 0
    package var outages: UInt64 = 0
    package var watchedObjects = 0
    package var eventsWritten: UInt64 = 0
    package var eventsDropped: UInt64 = 0
    package var eventsFailed: UInt64 = 0

    package init() {}
}

extension ControllerState {
    /// Prometheus text (exposition format 0.0.4), to be appended to what the data plane says.
    /// - Parameter troubles: since when each kind is in trouble; nil while it is well.
    package func prometheusText(now: Duration, troubles: [String: Duration?] = [:]) -> String {
        var text = ""
        func add(_ name: String, _ type: String, _ help: String, _ value: String) {
            text += "# HELP \(name) \(help)\n# TYPE \(name) \(type)\n\(name) \(value)\n"
        }
        func add(_ name: String, _ type: String, _ help: String, by label: String, _ values: [(String, String)]) {
            text += "# HELP \(name) \(help)\n# TYPE \(name) \(type)\n"
            for (key, value) in values { text += "\(name){\(label)=\"\(key)\"} \(value)\n" }
        }
        func seconds(_ duration: Duration) -> String {
            let parts = duration.components
            return String(Double(parts.seconds) + Double(parts.attoseconds) / 1e18)
        }
        let outage = outageSince.map { max(.zero, now - $0) }
        add("moongate_api_server_up", "gauge", "Whether the API server answers.", outage == nil ? "1" : "0")
        add(
            "moongate_api_server_outage_seconds", "gauge", "How long the API server has not answered.",
            seconds(outage ?? .zero))
        add("moongate_api_server_outages_total", "counter", "Times it stopped answering.", String(figures.outages))
        add("moongate_leader", "gauge", "Whether this replica writes statuses and Events.", isLeading ? "1" : "0")
        add("moongate_translations_total", "counter", "Whole translations.", String(figures.translations))
        add(
            "moongate_translations_idle_total", "counter", "Translations that changed nothing.",
            String(figures.idleTranslations))
        add(
            "moongate_translation_seconds", "gauge", "How long the last whole translation took.",
            seconds(figures.lastTranslation))
        add("moongate_publications_total", "counter", "Snapshots published.", String(figures.publications))
        add(
            "moongate_endpoint_publications_total", "counter", "Snapshots published by the short road.",
            String(figures.endpointPublications))
        add("moongate_status_writes_total", "counter", "Statuses of Ingresses written.", String(figures.statusWrites))
        add(
            "moongate_status_conflicts_total", "counter", "Writes of statuses that came too late.",
            String(figures.statusConflicts))
        add(
            "moongate_status_disputes", "gauge", "Ingresses whose status another writer keeps changing.",
            String(disputes.count))
        add(
            "moongate_events_total", "counter", "Events written, given up, and failed to be written for now.",
            by: "result",
            [
                ("written", String(figures.eventsWritten)), ("dropped", String(figures.eventsDropped)),
                ("failed", String(figures.eventsFailed)),
            ])
        add("moongate_watched_objects", "gauge", "Objects known from the API server.", String(figures.watchedObjects))
        if !troubles.isEmpty {
            add(
                "moongate_watch_trouble_seconds", "gauge", "For how long a kind is not followed.", by: "kind",
                troubles.sorted { $0.key < $1.key }.map { kind, since in
                    (kind, seconds(since.map { max(.zero, now - $0) } ?? .zero))
                })
        }
        add("moongate_forbidden_sources", "gauge", "Kinds that the role does not allow.", String(forbidden.count))
        return text
    }
}
