// What the process can say of itself: what is served, what is wrong with it, and whether it wants more traffic. Written
// by the control plane, read by the admin server.

import Model
import Routing
import Synchronization

final class ServingState: Sendable {
    private struct State {
        var table: RouteTable?
        var diagnostics: [Diagnostic] = []
        var drains = 0
    }

    private let state = Mutex(State())

    /// Ready: something has been published, and no drain has begun.
    var isReady: Bool { state.withLock { $0.table != nil && $0.drains == 0 } }
    var table: RouteTable? { state.withLock { $0.table } }
    var diagnostics: [Diagnostic] { state.withLock { $0.diagnostics } }

    /// Takes up what is served now (nil: as before) and what was found.
    /// - Returns: the diagnostics that were not there before.
    func update(_ table: RouteTable?, _ diagnostics: [Diagnostic]) -> [Diagnostic] {
        state.withLock { state in
            if let table { state.table = table }
            let known = Set(state.diagnostics)
            state.diagnostics = diagnostics
            return diagnostics.filter { !known.contains($0) }
        }
    }

    /// True the first time.
    func beginDrain() -> Bool {
        state.withLock { state in
            state.drains += 1
            return state.drains == 1
        }
    }
}
