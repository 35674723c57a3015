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
        var drainWasAsked = false
        var isDraining = false
    }

    /// What a request to drain comes to.
    enum DrainStep {
        /// The loops run: tell them.
        case now
        /// They do not run yet: `start` will say so.
        case atStart
        /// It was asked before.
        case already
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

    /// The loops run. True if they are to end again at once.
    func start() -> Bool {
        state.withLock { state in
            state.hasStarted = true
            return state.drainWasAsked
        }
    }

    /// Takes up what is served now.
    func serve(_ configuration: PreparedConfiguration) {
        state.withLock { state in
            state.served = Served(configuration: configuration, publishedAt: Date().timeIntervalSince1970)
        }
    }

    /// Takes up what was found.
    /// - Returns: the diagnostics that were not there before.
    func show(_ diagnostics: [Diagnostic]) -> [Diagnostic] {
        state.withLock { state in
            let known = Set(state.diagnostics)
            state.diagnostics = diagnostics
            return diagnostics.filter { !known.contains($0) }
        }
    }

    /// Somebody asks for the drain; readiness goes off with `showDrain`, or at once where nothing is served yet.
    func beginDrain() -> DrainStep {
        state.withLock { state in
            guard !state.drainWasAsked else { return .already }
            state.drainWasAsked = true
            guard state.hasStarted else {
                state.isDraining = true
                return .atStart
            }
            return .now
        }
    }

    var isDraining: Bool { state.withLock { $0.isDraining } }

    func showDrain() { state.withLock { $0.isDraining = true } }

    /// Explains a request by that configuration, one request at a time: its set of scripts belongs to nobody else.
    func explain(
        _ configuration: PreparedConfiguration, _ request: ExplainedRequest, _ settings: ProxyConfiguration,
        whyClosed: String?
    ) async -> RequestExplanation {
        await explanations.explain(configuration, request, settings, whyClosed)
    }

    private actor Explanations {
        func explain(
            _ configuration: PreparedConfiguration, _ request: ExplainedRequest, _ settings: ProxyConfiguration,
            _ whyClosed: String?
        ) -> RequestExplanation {
            configuration.explain(request, settings, whyClosed: whyClosed)
        }
    }
}
