// What the process can say of itself: what is served, what is wrong with it, and whether it wants more traffic. Written
// by the control plane, read by the admin server.

import Foundation
import Model
import Proxy
import Routing
import Synchronization

final class ServingState: Sendable {
    struct Served: Sendable {
        var configuration: PreparedConfiguration
        /// Seconds since 1970.
        var publishedAt: Double
    }

    private struct State {
        var served: Served?
        var diagnostics: [Diagnostic] = []
        var hasStarted = false
        var isDraining = false
    }

    private let state = Mutex(State())
    private let explanations = Explanations()

    /// Nil when requests may come.
    var unreadiness: String? {
        state.withLock { state in
            if state.isDraining { return "draining" }
            return state.served != nil && state.hasStarted ? nil : "nothing is served yet"
        }
    }
    var served: Served? { state.withLock { $0.served } }
    var diagnostics: [Diagnostic] { state.withLock { $0.diagnostics } }

    /// The loops run.
    func start() { state.withLock { $0.hasStarted = true } }

    /// Takes up what is served now (nil: as before) and what was found.
    /// - Returns: the diagnostics that were not there before.
    func update(_ configuration: PreparedConfiguration?, _ diagnostics: [Diagnostic]) -> [Diagnostic] {
        state.withLock { state in
            if let configuration {
                state.served = Served(configuration: configuration, publishedAt: Date().timeIntervalSince1970)
            }
            let known = Set(state.diagnostics)
            state.diagnostics = diagnostics
            return diagnostics.filter { !known.contains($0) }
        }
    }

    var isDraining: Bool { state.withLock { $0.isDraining } }

    func beginDrain() { state.withLock { $0.isDraining = true } }

    /// Explains a request by that configuration, one request at a time: its set of scripts belongs to nobody else.
    func explain(
        _ configuration: PreparedConfiguration, _ request: ExplainedRequest, _ settings: ProxyConfiguration
    ) async -> RequestExplanation {
        await explanations.explain(configuration, request, settings)
    }

    private actor Explanations {
        func explain(
            _ configuration: PreparedConfiguration, _ request: ExplainedRequest, _ settings: ProxyConfiguration
        ) -> RequestExplanation {
            configuration.explain(request, settings)
        }
    }
}
