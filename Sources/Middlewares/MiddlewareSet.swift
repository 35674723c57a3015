// Steps 4 and 7 of a request's walk: the scripts of a route, phase by phase, as SCRIPTING.md §2 and §11 order them.
//
// A set is made off the loops, by `MiddlewareCompiler`, one for each loop and snapshot; Proxy pins it together with the
// snapshot and calls it with the route index that it matched. A request that is in flight finishes on the set that it
// started with.

package import Model
import Scripting

/// The scripts of every route of one snapshot, for one loop.
///
/// `@unchecked Sendable`: it is built on the control thread, handed over once, and from then on used by its loop only.
/// The machines in it pass from the set of one snapshot to the next, always on the same loop.
package final class MiddlewareSet: @unchecked Sendable {
    private let plans: [RoutePlan?]
    private let names: [ScriptName]
    private let clock: ScriptClock
    private var random: RandomSource
    private var states: [RequestState] = []
    private var freeStates: [Int32] = []
    /// `moongate explain` and tests listen here; nil on a loop that serves traffic.
    package var listener: ((MiddlewareEvent) -> Void)? {
        didSet { isHeard = listener != nil }
    }
    /// Cheaper to ask than the closure itself.
    private var isHeard = false

    /// No scripts at all.
    package convenience init() {
        self.init(plans: [], names: [], clock: .system, random: RandomSource())
    }

    init(plans: [RoutePlan?], names: [ScriptName], clock: ScriptClock, random: RandomSource) {
        self.plans = plans
        self.names = names
        self.clock = clock
        self.random = random
    }

    /// What `ScriptRun.script` stands for: the scripts of the snapshot in their order, then those that only a last good
    /// version knows.
    package var scripts: [(name: String, version: String)] { names.map { ($0.name, $0.version) } }
    /// Their names among all tenants, for metrics.
    package var scriptSeries: [String] { names.map(\.series) }
    package func scriptName(_ index: Int32) -> String {
        names.indices.contains(Int(index)) ? names[Int(index)].name : ""
    }
    /// The version in use; empty where several are, or none.
    package func scriptVersion(_ index: Int32) -> String {
        names.indices.contains(Int(index)) ? names[Int(index)].version : ""
    }

    private func plan(_ exchange: Exchange) -> RoutePlan? {
        let route = Int(exchange.route)
        return route >= 0 && route < plans.count ? plans[route] : nil
    }

    /// Whether the route that the exchange has matched has any script.
    package func hasScripts(_ exchange: Exchange) -> Bool { plan(exchange) != nil }

    /// The clock that runs are measured by: a loop's own stands still while a script runs.
    package var now: UInt64 { clock.monotonic() }

    // MARK: Request phases

    /// Rewrite, at most one `reroute`, access, route. Call it after the match, with `exchange.route` and
    /// `exchange.upstream` set. `reroute` must match again by the path that now stands in the head and set both; where
    /// nothing matches (`exchange.route` is negative) the run ends with `.next`.
    package func runRequestPhases(_ exchange: Exchange, reroute: (Exchange) -> Void) -> Verdict {
        guard var plan = plan(exchange) else { return .next }
        if plan.phases.contains(.rewrite) {
            let before = exchange.request.pathRange
            let verdict = runForward(plan, .rewrite, exchange)
            if verdict != .next { return verdict }
            if exchange.request.pathRange != before, !isSamePath(exchange, before) {
                reroute(exchange)
                if let listener {
                    listener(
                        MiddlewareEvent(
                            script: "", version: "", phase: "rewrite",
                            outcome: .rerouted(
                                from: exchange.request.text(before),
                                to: exchange.request.text(exchange.request.pathRange)), edits: []))
                }
                guard let next = self.plan(exchange) else { return .next }
                plan = next
            }
        }
        if plan.phases.contains(.access) {
            let verdict = runForward(plan, .access, exchange)
            if verdict != .next { return verdict }
        }
        if plan.phases.contains(.route) {
            let verdict = runForward(plan, .route, exchange)
            if verdict != .next { return verdict }
        }
        return .next
    }

    private func isSamePath(_ exchange: Exchange, _ before: ByteRange) -> Bool {
        let now = exchange.request.pathRange
        guard now.count == before.count else { return false }
        for i in 0..<Int(now.count)
        where exchange.request.bytes[Int(now.offset) + i] != exchange.request.bytes[Int(before.offset) + i] {
            return false
        }
        return true
    }

    private func runForward(_ plan: RoutePlan, _ phase: ScriptPhase, _ exchange: Exchange) -> Verdict {
        for step in plan.steps where step.phases.contains(PhaseSet(phase)) {
            switch run(step, phase, exchange) {
            case .next: continue
            case .respond(let response):
                response.apply(to: exchange)
                return .respond
            case .refuse:
                exchange.reason = .scriptFailed
                return .refuse(status: 503, reason: .scriptFailed)
            }
        }
        return .next
    }

    // MARK: Response phases

    /// Header filters in reverse order, for every response, whatever made it; `exchange.origin` and the response's head
    /// are set. Call it once, before the head is encoded. A response that a filter makes takes the place of the one
    /// before it and passes the filters that are left.
    package func runResponsePhases(_ exchange: Exchange) -> Verdict {
        guard let plan = plan(exchange), plan.phases.contains(.headerFilter) else { return .next }
        var verdict = Verdict.next
        for i in plan.steps.indices.reversed() where plan.steps[i].phases.contains(.headerFilter) {
            switch run(plan.steps[i], .headerFilter, exchange) {
            case .next: continue
            case .respond(let response):
                response.apply(to: exchange)
                verdict = .respond
            case .refuse:
                exchange.reason = .scriptFailed
                return .refuse(status: 503, reason: .scriptFailed)
            }
        }
        return verdict
    }

    // MARK: Log

    /// The log phase; it also lets go of what the scripts keep of this request, so it must be called for every exchange
    /// that went through `runRequestPhases` or `runResponsePhases`, also when the client is gone.
    package func runLog(_ exchange: Exchange) {
        if let plan = plan(exchange), plan.phases.contains(.log) {
            for i in plan.steps.indices.reversed() where plan.steps[i].phases.contains(.log) {
                _ = run(plan.steps[i], .log, exchange)
            }
        }
        release(exchange)
    }

    private func release(_ exchange: Exchange) {
        let index = exchange.scriptState
        guard index >= 0, Int(index) < states.count else { return }
        exchange.scriptState = -1
        let state = states[Int(index)]
        for i in 0..<state.used {
            let entry = state.entries[i]
            if let request = entry.request, let script = entry.script, entry.machineNumber == script.machineNumber {
                script.machine.vm.end(request)
            }
            entry.request = nil
            entry.script = nil
        }
        state.used = 0
        state.shared.removeAll()
        freeStates.append(index)
    }

    // MARK: One step

    private enum StepVerdict {
        case next
        case respond(ScriptResponse)
        case refuse
    }

    private func run(_ step: Step, _ phase: ScriptPhase, _ exchange: Exchange) -> StepVerdict {
        let script: LoopScript
        switch step.runner {
        case .script(let runner): script = runner
        case .missing(let guards):
            let refuses = guards && phase == .access
            if let listener {
                let why = "no good version of the script"
                listener(
                    event(step, phase, refuses ? .failed(why, refused: true) : .skipped(why), []))
            }
            return refuses ? .refuse : .next
        }
        let now = clock.monotonic()
        let state = state(of: exchange)
        let entry = entry(of: step, script, in: state)
        if entry.isSampledOut {
            if let listener { listener(event(step, phase, .skipped("outside of the share of requests"), [])) }
            return .next
        }
        guard script.admits(now: now) else {
            record(.skipped, 0, step, entry, exchange)
            return fail(step, phase, "its breaker is open")
        }
        let vm = script.machine.vm
        if entry.request == nil || entry.machineNumber != script.machineNumber {
            // The request's place in the VM, opened at the first phase that runs.
            entry.request = vm.begin()
            entry.machineNumber = script.machineNumber
        }
        guard let request = entry.request else {
            return failed(
                ScriptFailure(kind: .memory, message: "not enough memory for another request"), step, phase, script,
                now, 0,
                entry, exchange)
        }
        let watch = isHeard ? Picture(exchange) : nil
        let deadline = step.wallNanoseconds == 0 ? 0 : now &+ step.wallNanoseconds
        let outcome = vm.run(
            phase, request, on: exchange, with: step.scene, shared: state.shared, wallDeadline: deadline)
        // The clock on the wall is cheap to read. Where a run was long enough for its CPU clock to be read anyhow, the time
        // that its thread was not running is known, and taken off.
        let passed = clock.monotonic() &- now
        let spent = passed &- min(passed, vm.offCPUNanoseconds)
        switch outcome {
        case .next:
            succeeded(script, exchange)
            record(.next, spent, step, entry, exchange)
            if let watch, let listener {
                listener(event(step, phase, .next, watch.differences(to: exchange, step.scene)))
            }
            return .next
        case .responded(let response):
            succeeded(script, exchange)
            record(.responded, spent, step, entry, exchange)
            if let watch, let listener {
                listener(
                    event(
                        step, phase, .responded(status: response.status), watch.differences(to: exchange, step.scene)))
            }
            return .respond(response)
        case .failed(let failure):
            return failed(failure, step, phase, script, now, spent, entry, exchange)
        case .suspended:
            // No function suspends today; one that did would be cut off here rather than hang.
            let failure = vm.cancel(request) ?? ScriptFailure(kind: .wall, message: "the script waits for nothing")
            return failed(failure, step, phase, script, now, spent, entry, exchange)
        }
    }

    private func failed(
        _ failure: ScriptFailure, _ step: Step, _ phase: ScriptPhase, _ script: LoopScript, _ now: UInt64,
        _ spent: UInt64,
        _ entry: StepState, _ exchange: Exchange
    ) -> StepVerdict {
        let opened = script.failed(failure.kind, now: now)
        exchange.scriptErrors.append(
            ScriptError(script: step.nameIndex, errorClass: ScriptErrorClass(failure.kind)))
        script.machine.library.report(failure, phase: phase, requestID: exchange.request.text(exchange.idRange))
        record(.failed, spent, step, entry, exchange)
        if opened {
            let refusing = step.closedPhases.intersection(step.phases)
            let meanwhile =
                refusing.isEmpty
                ? "requests pass without it"
                : "its \(refusing.names) answers 503, and its other phases are left out"
            script.tellBreaker(
                "the breaker of the script has opened: \(meanwhile); in 10 s one request tries it again",
                requestID: exchange.request.text(exchange.idRange))
        }
        return fail(step, phase, failure.description)
    }

    @inline(__always)
    private func succeeded(_ script: LoopScript, _ exchange: Exchange) {
        if script.succeeded() {
            script.tellBreaker(
                "the breaker of the script has closed: it runs again",
                requestID: exchange.request.text(exchange.idRange))
        }
    }

    /// What the failure policy makes of it.
    private func fail(_ step: Step, _ phase: ScriptPhase, _ why: String) -> StepVerdict {
        let refuses = step.closedPhases.contains(PhaseSet(phase))
        if let listener { listener(event(step, phase, .failed(why, refused: refuses), [])) }
        return refuses ? .refuse : .next
    }

    private func event(
        _ step: Step, _ phase: ScriptPhase, _ outcome: MiddlewareEvent.Outcome, _ edits: [String]
    ) -> MiddlewareEvent {
        var version = ""
        if case .script(let script) = step.runner { version = script.version.id }
        return MiddlewareEvent(
            script: step.reference, version: version, phase: phase.name, outcome: outcome, edits: edits)
    }

    // MARK: State

    private func state(of exchange: Exchange) -> RequestState {
        if exchange.scriptState >= 0, Int(exchange.scriptState) < states.count {
            return states[Int(exchange.scriptState)]
        }
        if let index = freeStates.popLast() {
            exchange.scriptState = index
            return states[Int(index)]
        }
        let state = RequestState()
        exchange.scriptState = Int32(states.count)
        states.append(state)
        return state
    }

    private func entry(of step: Step, _ script: LoopScript, in state: RequestState) -> StepState {
        let used = state.used
        for i in 0..<used {
            let entry = state.entries[i]
            if entry.script === script, entry.occurrence == step.occurrence { return entry }
        }
        if used == state.entries.count { state.entries.append(StepState()) }
        state.used = used + 1
        let entry = state.entries[used]
        entry.script = script
        entry.request = nil
        entry.occurrence = step.occurrence
        entry.run = -1
        entry.isSampledOut = step.percent < 100 && random.unit() * 100 >= step.percent
        return entry
    }

    private func record(
        _ outcome: ScriptRun.Outcome, _ nanoseconds: UInt64, _ step: Step, _ entry: StepState, _ exchange: Exchange
    ) {
        let spent = UInt32(clamping: nanoseconds)
        let index = Int(entry.run)
        guard index >= 0, index < exchange.scriptRuns.count else {
            entry.run = Int32(exchange.scriptRuns.count)
            exchange.scriptRuns.append(ScriptRun(script: step.nameIndex, outcome: outcome, nanoseconds: spent))
            return
        }
        Self.add(outcome, spent, to: &exchange.scriptRuns[index])
    }

    private static func add(_ outcome: ScriptRun.Outcome, _ spent: UInt32, to run: inout ScriptRun) {
        let (sum, overflow) = run.nanoseconds.addingReportingOverflow(spent)
        run.nanoseconds = overflow ? UInt32.max : sum
        switch (run.outcome, outcome) {
        case (.failed, _), (.responded, .next), (.responded, .skipped), (_, .next): break
        case (_, .failed), (_, .responded), (_, .skipped): run.outcome = outcome
        }
    }
}

extension ScriptErrorClass {
    init(_ kind: ScriptFailure.Kind) {
        switch kind {
        case .runtime: self = .runtime
        case .cpu: self = .cpu
        case .memory: self = .memory
        case .wall: self = .wall
        case .api: self = .api
        }
    }
}

/// What an exchange looked like before a script ran, to tell what it changed. For `explain` only: it copies.
private struct Picture {
    let request: [String]
    let response: [String]
    let path: String
    let query: String
    let host: String
    let status: UInt16
    let upstream: Int32
    let isChosen: Bool
    let isStrict: Bool
    let hashKey: UInt64
    let timeout: UInt32
    let retries: Int32
    let tags: [String]

    init(_ exchange: Exchange) {
        request = Self.fields(exchange.request)
        response = Self.fields(exchange.response)
        path = exchange.request.text(exchange.request.pathRange)
        query = exchange.request.text(exchange.request.queryRange)
        host = exchange.request.text(exchange.request.hostRange)
        status = exchange.response.status
        upstream = exchange.upstream
        isChosen = exchange.isUpstreamChosen
        isStrict = exchange.isUpstreamStrict
        hashKey = exchange.hashKey
        timeout = exchange.responseTimeout
        retries = exchange.retries
        tags = exchange.tags.map { tag in
            String(decoding: exchange.tagBytes[tag.name.range], as: UTF8.self) + "="
                + String(decoding: exchange.tagBytes[tag.value.range], as: UTF8.self)
        }
    }

    private static func fields(_ head: MessageHead) -> [String] {
        head.fields.filter { !$0.isRemoved }.map { "\(head.text($0.nameRange)): \(head.text($0.valueRange))" }
    }

    func differences(to exchange: Exchange, _ scene: ScriptScene) -> [String] {
        let now = Picture(exchange)
        var list: [String] = []
        if now.host != host { list.append("host: \(host) → \(now.host)") }
        if now.path != path { list.append("path: \(path) → \(now.path)") }
        if now.query != query { list.append("query: \(query) → \(now.query)") }
        list += Self.changes(request, now.request, "request")
        if now.status != status { list.append("status: \(status) → \(now.status)") }
        list += Self.changes(response, now.response, "response")
        if now.upstream != upstream || now.isChosen != isChosen || now.isStrict != isStrict {
            let place = Int(now.upstream)
            let name = scene.upstreamNames.indices.contains(place) ? scene.upstreamNames[place] : "none"
            list.append("upstream: \(name)\(now.isStrict ? " (strict)" : "")")
        }
        if now.hashKey != hashKey { list.append("hash key set") }
        if now.timeout != timeout { list.append("upstream timeout: \(now.timeout)ms") }
        if now.retries != retries { list.append("upstream retries: \(now.retries)") }
        for tag in now.tags where !tags.contains(tag) { list.append("tag \(tag)") }
        return list
    }

    private static func changes(_ before: [String], _ after: [String], _ side: String) -> [String] {
        var left = after
        var list: [String] = []
        for line in before {
            if let index = left.firstIndex(of: line) {
                left.remove(at: index)
            } else {
                list.append("- \(side) \(line)")
            }
        }
        return list + left.map { "+ \(side) \($0)" }
    }
}
