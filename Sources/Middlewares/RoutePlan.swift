// What is done to the requests of one route: its scripts in order, each with what does not change between requests.

import Model
import Scripting

/// Why and how a request was treated, for `moongate explain`: the same engine, listened to.
package struct MiddlewareEvent: Sendable, Hashable, CustomStringConvertible {
    package enum Outcome: Sendable, Hashable {
        case next
        case responded(status: UInt16)
        /// `refused` says what its failure policy did.
        case failed(String, refused: Bool)
        case skipped(String)
        case rerouted(from: String, to: String)
    }

    package var script: String
    package var version: String
    package var phase: String
    package var outcome: Outcome
    /// `+ header: value`, `- header: value`, `path: /a → /b`, `upstream: x`, `tag variant=canary`.
    package var edits: [String]

    package var description: String {
        var text = script.isEmpty ? phase : script + (version.isEmpty ? "" : " (\(version))") + " \(phase)"
        switch outcome {
        case .next: text += edits.isEmpty ? ": nothing to do" : ""
        case .responded(let status): text += ": responded \(status)"
        case .failed(let message, let refused): text += ": failed, \(refused ? "refused" : "went on"): \(message)"
        case .skipped(let why): text += ": skipped, \(why)"
        case .rerouted(let from, let to): text += ": \(from) became \(to), matched again"
        }
        for edit in edits { text += "\n  \(edit)" }
        return text
    }
}

/// What `ScriptRun.script` stands for.
struct ScriptName {
    /// As users wrote it, for the access log.
    var name: String
    /// Among all tenants, for metrics.
    var series: String
    /// The version in use; empty where several are, or none.
    var version = ""
}

/// One script on one route. A class, so that a step costs one reference when it runs.
final class Step {
    enum Runner {
        case script(LoopScript)
        /// No version is good. `true`: it guards something, so nobody passes its access phase.
        case missing(guards: Bool)
    }

    let runner: Runner
    let scene: ScriptScene
    /// Distinguishes two bindings of one route to the same version, which do not share `ctx.state`.
    let occurrence: Int32
    /// `ScriptRun.script`.
    let nameIndex: Int32
    let phases: PhaseSet
    /// The phases whose failure refuses the request.
    let closedPhases: PhaseSet
    let percent: Double
    let wallNanoseconds: UInt64
    let reference: String

    init(
        runner: Runner, scene: ScriptScene, occurrence: Int32, nameIndex: Int32, phases: PhaseSet,
        closedPhases: PhaseSet, percent: Double, wallNanoseconds: UInt64, reference: String
    ) {
        self.runner = runner
        self.scene = scene
        self.occurrence = occurrence
        self.nameIndex = nameIndex
        self.phases = phases
        self.closedPhases = closedPhases
        self.percent = percent
        self.wallNanoseconds = wallNanoseconds
        self.reference = reference
    }
}

/// The steps of a route.
final class RoutePlan {
    let steps: [Step]
    let phases: PhaseSet

    init(_ steps: [Step]) {
        self.steps = steps
        phases = steps.reduce(into: PhaseSet()) { $0.formUnion($1.phases) }
    }
}

/// What one script keeps of one request. Pooled with its `RequestState`.
final class StepState {
    var script: LoopScript?
    var request: VMRequest?
    var machineNumber: UInt32 = 0
    var occurrence: Int32 = 0
    /// Place in `exchange.scriptRuns`; -1 before the first run.
    var run: Int32 = -1
    var isSampledOut = false
}

/// What the scripts of one request keep between their phases. Pooled.
final class RequestState {
    /// The first `used` of them are in use.
    var entries: [StepState] = []
    var used = 0
    let shared = ScriptShared()
}
