// What the admin server shows, handed in by the executable: the room knows neither proxy nor controller.
package import Model

package struct AdminSources: Sendable {
    /// Nil while the process is well; else what is wrong with it: a process that should be started anew.
    package var illness: @Sendable () async -> String?
    /// Nil when requests may come; else why not yet, or not any more (no snapshot, draining).
    package var unreadiness: @Sendable () async -> String?
    /// The page of figures in Prometheus' text format.
    package var metrics: @Sendable () async -> String
    /// What is served; nil before the first snapshot.
    package var served: @Sendable () async -> ServedSnapshot?
    /// The diagnostics in force.
    package var diagnostics: @Sendable () async -> [Diagnostic]
    /// Every decision for one request, without sending it.
    package var explain: @Sendable (ExplainQuery) async throws(AdminProblem) -> ExplainAnswer

    package init(
        illness: @escaping @Sendable () async -> String? = { nil },
        unreadiness: @escaping @Sendable () async -> String?,
        metrics: @escaping @Sendable () async -> String,
        served: @escaping @Sendable () async -> ServedSnapshot?,
        diagnostics: @escaping @Sendable () async -> [Diagnostic],
        explain: @escaping @Sendable (ExplainQuery) async throws(AdminProblem) -> ExplainAnswer
    ) {
        self.illness = illness
        self.unreadiness = unreadiness
        self.metrics = metrics
        self.served = served
        self.diagnostics = diagnostics
        self.explain = explain
    }
}

package struct ServedSnapshot: Sendable {
    package var snapshot: Snapshot
    package var generation: UInt64
    /// Seconds since 1970.
    package var publishedAt: Double

    package init(snapshot: Snapshot, generation: UInt64, publishedAt: Double) {
        self.snapshot = snapshot
        self.generation = generation
        self.publishedAt = publishedAt
    }
}

/// A request to be explained, as it was asked for; what it means is the executable's to parse, as on its command line.
package struct ExplainQuery: Sendable, Equatable {
    /// `GET https://shop.test/cart`
    package var request: String
    /// `name: value`
    package var headers: [String]
    /// `name=value`
    package var cookies: [String]
    /// The address that the request comes from.
    package var from: String

    package init(request: String, headers: [String] = [], cookies: [String] = [], from: String = "127.0.0.1") {
        self.request = request
        self.headers = headers
        self.cookies = cookies
        self.from = from
    }
}

package struct ExplainAnswer: Sendable {
    /// For people.
    package var text: String
    /// The same for programs: a JSON document.
    package var json: String

    package init(text: String, json: String) {
        self.text = text
        self.json = json
    }
}

/// What is wrong with a question to the admin server: answered as 400.
package struct AdminProblem: Error, Sendable {
    package var problem: String

    package init(_ problem: String) {
        self.problem = problem
    }
}
