// Step 4 of a configuration change: scripts are compiled, their arguments judged and their VMs built here, on the
// control thread. What fails keeps its last good version and returns a diagnostic.

package import Model
package import Scripting

/// Makes the middlewares of each snapshot. Belongs to the control thread.
package final class MiddlewareCompiler {
    package struct Preparation: Sendable {
        /// One for each loop.
        package var sets: [MiddlewareSet]
        package var diagnostics: [Diagnostic]
        /// Some scripts wait for their turn to be loaded: prepare the same snapshot, or a newer one, again.
        package var isUnfinished = false
    }

    /// A version in use, and its machine on each loop.
    private struct Live {
        var version: ScriptVersion
        var loops: [LoopScript]
    }

    /// A binding from one snapshot to the next: the nth with this reference on its Ingress.
    private struct BindingKey: Hashable {
        var ingress: ObjectReference
        var reference: String
        var occurrence: Int
    }

    /// CPU time that the scripts of one namespace may take to load in one preparation, in nanoseconds. What is beyond is
    /// loaded in the next one, so that no tenant's scripts hold up the changes of others for longer.
    package static let loadAllowance: UInt64 = 500_000_000
    /// At the first preparation, when nothing is served yet.
    package static let firstLoadAllowance: UInt64 = 5_000_000_000

    private let loops: Int
    private let surroundings: ScriptSurroundings
    private let allowances: (first: UInt64, later: UInt64)
    private let loadClock: () -> UInt64
    private var isFirst = true
    /// In this preparation, by namespace.
    private var loadTimes: [String: UInt64] = [:]
    /// Versions whose machines are not complete yet, by their identifier.
    private var unfinished: [String: Live] = [:]
    /// By the identifier of the version.
    private var live: [String: Live] = [:]
    private var refused: [String: ScriptVersion.Refusal] = [:]
    private var lastGood: [BindingKey: Live] = [:]

    /// - Parameter loadClock: What loading scripts is measured by, in nanoseconds from any start: CPU time of this thread,
    ///   for nothing in here waits.
    package init(
        loops: Int, surroundings: ScriptSurroundings = ScriptSurroundings(),
        loadAllowance: UInt64 = MiddlewareCompiler.loadAllowance,
        firstLoadAllowance: UInt64 = MiddlewareCompiler.firstLoadAllowance,
        loadClock: @escaping () -> UInt64 = { ScriptVM.threadCPUNanoseconds }
    ) {
        self.loops = loops
        self.surroundings = surroundings
        allowances = (firstLoadAllowance, loadAllowance)
        self.loadClock = loadClock
    }

    /// How the scripts in use are, for metrics: one for each script version and loop.
    package var vitals: [ScriptVitals] { live.values.flatMap { $0.loops.map(\.vitals) } }

    package func prepare(_ snapshot: Snapshot) -> Preparation {
        var diagnostics: [Diagnostic] = []
        var names = snapshot.scripts.map { ScriptName(name: $0.name, series: $0.qualifiedName) }
        var nameOfVersion: [String: Int] = [:]
        var resolved: [BindingKey: Resolved] = [:]
        var isUnfinished = false
        var stillLive: [String: Live] = [:]
        var stillRefused: [String: ScriptVersion.Refusal] = [:]
        var stillGood: [BindingKey: Live] = [:]
        var stillUnfinished: [String: Live] = [:]
        loadTimes = [:]
        let keys = Self.keys(snapshot)
        // Where nothing runs, nothing is looked for.
        let resolver = BackendResolver(snapshot.routes.allSatisfy(\.scripts.isEmpty) ? Snapshot() : snapshot)

        for (route, bindings) in zip(snapshot.routes, keys) {
            for (binding, key) in zip(route.scripts, bindings) where resolved[key] == nil {
                if binding.mode == .off {
                    resolved[key] = .off
                    continue
                }
                var live: Live?
                var mayHaveAccess = true
                if binding.mode == .shadow {
                    diagnostics.append(Self.shadowUnavailable(binding))
                    resolved[key] = .off
                    continue
                } else if let index = binding.script, snapshot.scripts.indices.contains(index) {
                    switch build(snapshot.scripts[index], binding) {
                    case .live(let built):
                        live = built
                        if let old = lastGood[key], old.version.id != built.version.id,
                            resolver.knowsAll(old.version.config.backends, for: route),
                            let stranger = built.version.config.backends.first(where: {
                                resolver.place(of: $0, for: route) == nil
                            })
                        {
                            // An edit that leads nowhere takes nothing away from what works.
                            diagnostics.append(
                                resolver.unknown(
                                    stranger, for: route, binding, until: "version \(old.version.id) keeps serving"))
                            stillLive[built.version.id] = built
                            live = old
                        }
                    case .waits(let part):
                        stillUnfinished[part.version.id] = part
                        mayHaveAccess = part.version.phases.contains(.access)
                        diagnostics.append(
                            Self.waiting(
                                part.version.id, binding, snapshot.scripts[index], lastGood[key]?.version.id,
                                mayHaveAccess))
                    case .waitsWhole(let id):
                        mayHaveAccess = ScriptScan.mayGuard(snapshot.scripts[index])
                        isUnfinished = true
                        diagnostics.append(
                            Self.waiting(
                                id, binding, snapshot.scripts[index], lastGood[key]?.version.id, mayHaveAccess))
                    case .refused(let refusal):
                        stillRefused[refusal.version] = refusal
                        mayHaveAccess = refusal.mayHaveAccess
                        let old = lastGood[key]?.version.id
                        diagnostics += Self.diagnostics(refusal, binding, snapshot.scripts[index], lastGood: old)
                    }
                }
                if let live {
                    diagnostics += Self.notes(live, binding)
                } else {
                    live = lastGood[key]
                }
                guard let live else {
                    resolved[key] = .missing(mayHaveAccess: mayHaveAccess)
                    continue
                }
                stillLive[live.version.id] = live
                stillGood[key] = live
                let nameIndex: Int
                if let known = nameOfVersion[live.version.id] {
                    nameIndex = known
                } else {
                    // The source's own place, unless another version of it is there already.
                    let own = binding.script ?? -1
                    let isFree =
                        names.indices.contains(own) && names[own].series == live.version.qualifiedName
                        && names[own].version.isEmpty
                    nameIndex = isFree ? own : names.count
                    if !isFree {
                        names.append(ScriptName(name: live.version.name, series: live.version.qualifiedName))
                    }
                    names[nameIndex].version = live.version.id
                    nameOfVersion[live.version.id] = nameIndex
                }
                resolved[key] = .good(live, nameIndex: Int32(nameIndex))
            }
        }

        let routes = zip(snapshot.routes, keys)
        for (route, bindings) in routes {
            for (binding, key) in zip(route.scripts, bindings) {
                guard case .good(let live, _)? = resolved[key] else { continue }
                for backend in live.version.config.backends where resolver.place(of: backend, for: route) == nil {
                    let finding = resolver.unknown(backend, for: route, binding)
                    if !diagnostics.contains(finding) { diagnostics.append(finding) }
                }
            }
        }

        let sets = (0..<loops).map { loop in
            MiddlewareSet(
                plans: routes.map { route, bindings in
                    plan(route, bindings, resolved, resolver, loop: loop)
                }, names: names, clock: surroundings.clock,
                random: surroundings.randomSeed.map { RandomSource(seed: $0 &+ UInt64(loop)) } ?? RandomSource())
        }
        live = stillLive
        refused = stillRefused
        lastGood = stillGood
        unfinished = stillUnfinished
        isFirst = false
        return Preparation(
            sets: sets, diagnostics: diagnostics, isUnfinished: isUnfinished || !stillUnfinished.isEmpty)
    }

    private enum Resolved {
        case good(Live, nameIndex: Int32)
        case missing(mayHaveAccess: Bool)
        case off
    }

    /// For each route the key of each of its bindings.
    private static func keys(_ snapshot: Snapshot) -> [[BindingKey]] {
        var seen: [ObjectReference: [ScriptBinding: BindingKey]] = [:]
        var counts: [ObjectReference: [String: Int]] = [:]
        return snapshot.routes.map { route in
            route.scripts.map { binding in
                if let key = seen[route.ingress]?[binding] { return key }
                let occurrence = counts[route.ingress]?[binding.reference] ?? 0
                counts[route.ingress, default: [:]][binding.reference] = occurrence + 1
                let key = BindingKey(ingress: route.ingress, reference: binding.reference, occurrence: occurrence)
                seen[route.ingress, default: [:]][binding] = key
                return key
            }
        }
    }

    private static func limits(_ binding: ScriptBinding) -> ScriptLimits {
        var limits = ScriptLimits()
        if let memory = binding.budget.memoryBytes { limits.memoryBytes = max(memory, 1) }
        if let cpu = binding.budget.cpuMicroseconds { limits.cpuNanoseconds = UInt64(clamping: max(cpu, 1)) * 1000 }
        return limits
    }

    private enum Built {
        case live(Live)
        case refused(ScriptVersion.Refusal)
        /// Good, and some of its machines are made.
        case waits(Live)
        /// Not begun. Its identifier.
        case waitsWhole(String)
    }

    /// The version of a binding: one that lives already, or a new one with a machine for each loop.
    private func build(_ source: ScriptSource, _ binding: ScriptBinding) -> Built {
        let limits = Self.limits(binding)
        let id = ScriptVersion.identifier(source, binding.arguments, limits)
        if let known = live[id] ?? lastGood.values.first(where: { $0.version.id == id }) { return .live(known) }
        if let known = refused[id] { return .refused(known) }
        var part: Live
        if let begun = unfinished[id] {
            part = begun
        } else {
            guard mayLoad(source.namespace) else { return .waitsWhole(id) }
            do throws(ScriptVersion.Refusal) {
                let (version, machine) = try loading(source.namespace) { () throws(ScriptVersion.Refusal) in
                    try ScriptVersion.build(source, binding.arguments, limits: limits, surroundings: surroundings)
                }
                part = Live(version: version, loops: [LoopScript(version, machine, loop: 0)])
            } catch {
                refused[id] = error
                return .refused(error)
            }
        }
        while part.loops.count < loops {
            guard mayLoad(source.namespace) else {
                unfinished[id] = part
                return .waits(part)
            }
            do throws(ScriptFailure) {
                let version = part.version
                let machine = try loading(source.namespace) { () throws(ScriptFailure) in try version.makeMachine() }
                part.loops.append(LoopScript(version, machine, loop: part.loops.count))
            } catch {
                let refusal = ScriptVersion.Refusal(
                    cause: .failed(.initialise, error), mayHaveAccess: part.version.phases.contains(.access),
                    version: id)
                unfinished[id] = nil
                refused[id] = refusal
                return .refused(refusal)
            }
        }
        unfinished[id] = nil
        live[id] = part
        return .live(part)
    }

    private func mayLoad(_ namespace: String) -> Bool {
        loadTimes[namespace, default: 0] < (isFirst ? allowances.first : allowances.later)
    }

    /// Notes what loading takes.
    private func loading<R, E: Error>(_ namespace: String, _ body: () throws(E) -> R) throws(E) -> R {
        let start = loadClock()
        defer { loadTimes[namespace, default: 0] += loadClock() &- start }
        return try body()
    }

    private func plan(
        _ route: Route, _ keys: [BindingKey], _ resolved: [BindingKey: Resolved], _ resolver: BackendResolver, loop: Int
    ) -> RoutePlan? {
        var steps: [Step] = []
        var occurrences: [String: Int32] = [:]
        for (binding, key) in zip(route.scripts, keys) {
            switch resolved[key] {
            case nil, .off?: continue
            case .missing(let mayHaveAccess)?:
                // Without any version nobody knows what it would have let pass.
                let guards = mayHaveAccess && binding.onError != .open
                steps.append(
                    Step(
                        runner: .missing(guards: guards), scene: ScriptScene(), occurrence: 0, nameIndex: -1,
                        phases: .access, closedPhases: [], percent: 100, wallNanoseconds: 0,
                        reference: binding.reference))
            case .good(let live, let nameIndex)?:
                let version = live.version
                let occurrence = occurrences[version.id, default: 0]
                occurrences[version.id] = occurrence + 1
                let scene = ScriptScene(
                    ingressNamespace: route.ingress.namespace, ingressName: route.ingress.name, rule: route.rule,
                    backendClass: ScriptLibrary.backendClass,
                    backends: version.config.backends.map { resolver.place(of: $0, for: route).map(Int32.init) ?? -1 },
                    secureBackends: route.secureUpstream == nil
                        ? nil
                        : version.config.backends.map {
                            resolver.place(of: $0, for: route, isSecure: true).map(Int32.init) ?? -1
                        },
                    upstreamNames: resolver.names)
                let closed: PhaseSet
                switch binding.onError ?? version.onError {
                case .open?: closed = []
                case .closed?: closed = [.request, .headerFilter]
                case nil: closed = .access
                }
                steps.append(
                    Step(
                        runner: .script(live.loops[loop]), scene: scene, occurrence: occurrence, nameIndex: nameIndex,
                        phases: version.phases, closedPhases: closed, percent: binding.percent,
                        wallNanoseconds: UInt64(clamping: binding.budget.wallMilliseconds ?? 1000) &* 1_000_000,
                        reference: binding.reference))
            }
        }
        return steps.isEmpty ? nil : RoutePlan(steps)
    }
}

/// Backends of arguments against the upstreams of one snapshot.
private struct BackendResolver {
    let names: [String]
    private let upstreams: [Upstream]
    private let places: [String: Int]

    init(_ snapshot: Snapshot) {
        upstreams = snapshot.upstreams
        names = snapshot.upstreams.map(\.name)
        places = Dictionary(names.enumerated().map { ($1, $0) }, uniquingKeysWith: { first, _ in first })
    }

    private func name(_ backend: BackendName, for route: Route) -> String {
        "\(backend.namespace ?? route.ingress.namespace)/\(backend.service):\(backend.port)"
    }

    /// Only what is of the Ingress's own namespace or was granted to it (SCRIPTING.md §11): that another tenant's
    /// Service stands in the snapshot is no grant.
    /// - Parameter isSecure: for requests on TLS connections.
    func place(of backend: BackendName, for route: Route, isSecure: Bool = false) -> Int? {
        if route.isUnsecured { return nil }
        let name = name(backend, for: route)
        // Spoken to as the Ingress wishes its own backends to be.
        let own =
            route.upstream(isSecure: isSecure).flatMap { upstreams.indices.contains($0) ? upstreams[$0].variant : nil }
            ?? ""
        guard let place = (own.isEmpty ? nil : places[name + own]) ?? places[name] else { return nil }
        let upstream = upstreams[place]
        let namespace = route.ingress.namespace
        let isGranted =
            upstream.namespace == namespace
            || upstream.allowedNamespaces.contains { $0 == "*" || $0 == namespace }
        return isGranted ? place : nil
    }

    func knowsAll(_ backends: [BackendName], for route: Route) -> Bool {
        backends.allSatisfy { place(of: $0, for: route) != nil }
    }

    /// - Parameter until: what happens until it is mended.
    func unknown(
        _ backend: BackendName, for route: Route, _ binding: ScriptBinding,
        until: String = "the script fails where it chooses it"
    ) -> Diagnostic {
        let name = name(backend, for: route)
        // What another namespace has is not this tenant's to know: only its own names are suggested, and a Service
        // that is not granted reads like one that is not there.
        let own = upstreams.filter { $0.namespace == route.ingress.namespace && $0.variant.isEmpty }.map(\.name)
        let near = EditDistance.nearest(to: name, among: own).map { "did you mean \"\($0)\"? Else " } ?? ""
        return ScriptCode.unknownBackend.diagnostic(
            "script \(binding.reference) names the backend \"\(backend)\", and there is no Service port \(name) that it may use",
            at: binding.place,
            mend: near
                + "name a Service of this namespace as NAME:PORT, or have the other's owner annotate it with "
                + "moongate.dev/allow-namespaces; until then \(until)")
    }
}

// ---------------------------------------------------------------------------------------------------------- diagnostics

extension MiddlewareCompiler {
    private static func shadowUnavailable(_ binding: ScriptBinding) -> Diagnostic {
        ScriptCode.shadowUnavailable.diagnostic(
            "script \(binding.reference) has mode: shadow, which this version of Moongate does not offer yet",
            at: binding.place, mend: "write mode: enforce or mode: off; until then the script does not run")
    }

    private static func notes(_ live: Live, _ binding: ScriptBinding) -> [Diagnostic] {
        let version = live.version
        let scans = ([version.source.main] + version.source.modules.map(\.source)).map { ScriptScan($0) }
        let uses = scans.flatMap(\.unavailable)
        var notes: [Diagnostic] = []
        if let vm = live.loops.first?.machine.vm {
            for use in scans.flatMap(\.functions) {
                guard let unknown = vm.unknownFunction(use.name) else { continue }
                notes.append(
                    ScriptCode.unknownFunction.diagnostic(
                        "script \(binding.reference) uses moongate.\(use.name) in line \(use.line), which there is not",
                        at: binding.place,
                        mend: (unknown.nearest.map { "write moongate.\($0)" }
                            ?? "see the functions in the scripts' page")
                            + "; until then it is an error of the script where it is called"))
            }
        }
        // A module may hand out functions of any shape, by whatever name.
        for member in scans.first?.strangers ?? [] {
            notes.append(
                ScriptCode.unknownMember.diagnostic(
                    "script \(binding.reference) uses \(member.name) in line \(member.line), which there is not",
                    at: binding.place,
                    mend: (member.nearest.map { "write \($0)" } ?? "see the objects in the scripts' page")
                        + "; until then it is nil where it is read"))
        }
        if version.phases.isDisjoint(with: .running), !uses.contains(where: { $0.name == "body_filter" }) {
            notes.append(
                ScriptCode.noPhase.diagnostic(
                    "script \(binding.reference) has no phase that a request runs through", at: binding.place,
                    mend: "return a table with \(PhaseSet.running.names), or take the script away"))
        }
        return notes
            + uses.map { use in
                ScriptCode.functionUnavailable.diagnostic(
                    "script \(binding.reference) uses \(use.name) in line \(use.line), which this version of Moongate "
                        + "does not offer yet",
                    at: binding.place,
                    mend: use.name == "body_filter"
                        ? "leave it out; until then bodies pass as they are"
                        : "leave it out; until then a call of it is an error of the script")
            }
    }

    private static func waiting(
        _ id: String, _ binding: ScriptBinding, _ source: ScriptSource, _ lastGood: String?, _ mayHaveAccess: Bool
    ) -> Diagnostic {
        ScriptCode.waits.diagnostic(
            "script \(binding.reference) (version \(id)) is not loaded yet: the scripts of the namespace "
                + "\(source.namespace) have used their share of the time for loading in this change",
            at: binding.place,
            mend: untilThen(
                "wait a moment; if it stays, do less at the top level of the scripts and in init",
                meanwhile(lastGood, mayHaveAccess, binding)))
    }

    private static func meanwhile(_ lastGood: String?, _ mayHaveAccess: Bool, _ binding: ScriptBinding) -> String {
        if let lastGood { return "version \(lastGood) keeps serving" }
        if mayHaveAccess, binding.onError != .open {
            return "its paths answer 503, because the script guards them"
        }
        return "requests pass without the script"
    }

    /// Why a version was refused, on the Ingress that asked for it.
    private static func diagnostics(
        _ refusal: ScriptVersion.Refusal, _ binding: ScriptBinding, _ source: ScriptSource, lastGood: String?
    ) -> [Diagnostic] {
        let meanwhile = meanwhile(lastGood, refusal.mayHaveAccess, binding)
        func subject() -> String { "script \(binding.reference) (version \(refusal.version))" }
        switch refusal.cause {
        case .failed(let phase, let failure):
            var problem = "\(subject()) failed in \(phase.name): \(failure.message)"
            if let line = failure.sourceLine { problem += " | \(line)" }
            for call in failure.calls.dropFirst() {
                problem += " < \(call.file):\(call.line)"
                if !call.function.isEmpty { problem += " in \(call.function)" }
            }
            return [
                ScriptCode.failed.diagnostic(
                    problem, at: binding.place,
                    mend: untilThen("mend the script", meanwhile))
            ]
        case .schema(let finding):
            return [
                ScriptCode.badSchema.diagnostic(
                    "\(subject()): \(finding.problem)",
                    at: binding.place,
                    mend: untilThen(finding.mend, meanwhile))
            ]
        case .arguments(let findings):
            return findings.map { finding in
                ScriptCode.badArgument.diagnostic(
                    "\(subject()): \(finding.problem)",
                    at: binding.place, mend: untilThen(finding.mend, meanwhile))
            }
        }
    }
}
