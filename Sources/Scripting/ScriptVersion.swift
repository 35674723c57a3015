// Step 4 of a configuration change, for one script: source and arguments become a version, a version becomes a VM on each
// loop. Runs on the control thread; nothing here touches a request.

package import Model

/// What all versions share.
package struct ScriptSurroundings: Sendable {
    package var log: ScriptLog
    package var metrics: ScriptMetrics
    package var clock: ScriptClock
    /// Tests: chance that a seed fixes.
    package var randomSeed: UInt64?

    package init(
        log: ScriptLog = ScriptLog(), metrics: ScriptMetrics = ScriptMetrics(), clock: ScriptClock = .system,
        randomSeed: UInt64? = nil
    ) {
        self.log = log
        self.metrics = metrics
        self.clock = clock
        self.randomSeed = randomSeed
    }
}

/// A script with its arguments, found good: it compiles, its arguments fit, and `init` has run.
package final class ScriptVersion: Sendable {
    /// The first twelve digits of a hash over source, arguments and limits.
    package let id: String
    package let source: ScriptSource
    package let config: ScriptConfig
    package let limits: ScriptLimits
    package let phases: PhaseSet
    /// `on_error` of the script itself.
    package let onError: ScriptBinding.FailurePolicy?
    package let surroundings: ScriptSurroundings
    private let tenant: ScriptMetrics.Tenant

    package var name: String { source.name }
    /// Among all tenants.
    package var qualifiedName: String { source.qualifiedName }

    private init(
        id: String, source: ScriptSource, config: ScriptConfig, limits: ScriptLimits, phases: PhaseSet,
        onError: ScriptBinding.FailurePolicy?, surroundings: ScriptSurroundings, tenant: ScriptMetrics.Tenant
    ) {
        self.id = id
        self.source = source
        self.config = config
        self.limits = limits
        self.phases = phases
        self.onError = onError
        self.surroundings = surroundings
        self.tenant = tenant
    }

    /// Why there is no version.
    package struct Refusal: Error, Sendable, Hashable {
        package enum Cause: Sendable, Hashable {
            /// The script failed in a phase of its loading.
            case failed(ScriptPhase, ScriptFailure)
            /// Its `config` is malformed.
            case schema(ScriptFinding)
            /// The arguments do not fit.
            case arguments([ScriptFinding])
        }

        package var cause: Cause
        /// What is known of its phases: those of the loaded table, or a guess from its words.
        package var mayHaveAccess: Bool
        package var version: String

        package init(cause: Cause, mayHaveAccess: Bool, version: String) {
            self.cause = cause
            self.mayHaveAccess = mayHaveAccess
            self.version = version
        }
    }

    /// Equal for equal sources, arguments and limits.
    package static func identifier(_ source: ScriptSource, _ arguments: ConfigValue, _ limits: ScriptLimits) -> String {
        var bytes: [UInt8] = []
        func add(_ text: String) {
            let count = UInt64(text.utf8.count)
            for i: UInt64 in 0..<8 { bytes.append(UInt8(truncatingIfNeeded: count >> (8 * i))) }
            bytes += Array(text.utf8)
        }
        add(source.namespace)
        add(source.ingress)
        add(source.name)
        add(source.main)
        for module in source.modules {
            add(module.name)
            add(module.source)
        }
        describe(arguments, add)
        add("\(limits.memoryBytes) \(limits.cpuNanoseconds)")
        let hash = Digest.sha256.hash(bytes.span) ?? []
        let short = Array(hash.prefix(6))
        return String(decoding: Hex.encode(short.span), as: UTF8.self)
    }

    private static func describe(_ value: ConfigValue, _ add: (String) -> Void) {
        switch value {
        case .null: add("null")
        case .bool(let flag): add("bool \(flag)")
        case .integer(let number): add("integer \(number)")
        case .number(let number): add("number \(number)")
        case .string(let text):
            add("string")
            add(text)
        case .list(let items):
            add("list \(items.count)")
            for item in items { describe(item, add) }
        case .map(let entries):
            add("map \(entries.count)")
            for entry in entries {
                add(entry.key)
                describe(entry.value, add)
            }
        }
    }

    /// A VM and what its functions work on.
    package struct Machine {
        package let vm: ScriptVM
        package let library: ScriptLibrary
    }

    /// What a script's table may have (SCRIPTING.md §1, §2): with another name a guard that is misspelt would be none.
    /// `body_filter` is not run yet, which `ScriptScan` tells.
    private static let keys: Set<String> = [
        "init", "rewrite", "access", "route", "header_filter", "body_filter", "log", "config", "on_error", "name",
        "version",
    ]

    /// Compiles, loads, judges the arguments, configures and initialises: the version, and its first VM.
    package static func build(
        _ source: ScriptSource, _ arguments: ConfigValue, limits: ScriptLimits, surroundings: ScriptSurroundings
    ) throws(Refusal) -> (version: ScriptVersion, machine: Machine) {
        let id = identifier(source, arguments, limits)
        func refuse(_ cause: Refusal.Cause, _ phases: PhaseSet?) -> Refusal {
            Refusal(
                cause: cause,
                mayHaveAccess: phases.map { $0.contains(.access) } ?? ScriptScan.mayGuard(source),
                version: id)
        }
        let machine: Machine
        let tenant = surroundings.metrics.enter(source.qualifiedName)
        do throws(ScriptFailure) {
            machine = try load(source, id: id, limits: limits, surroundings: surroundings, tenant: tenant)
        } catch {
            throw refuse(.failed(.load, error), nil)
        }
        let phases = machine.vm.phases
        let config: ScriptConfig
        var onError: ScriptBinding.FailurePolicy?
        func describe(_ key: String) throws(Refusal) -> LuaValue {
            do throws(ScriptFailure) { return try machine.vm.describe(key) } catch {
                throw refuse(.failed(.load, error), phases)
            }
        }
        let keys: [String]
        do throws(ScriptFailure) { keys = try machine.vm.keys() } catch {
            throw refuse(.failed(.load, error), phases)
        }
        if let stranger = keys.first(where: { !self.keys.contains($0) }) {
            let mend =
                EditDistance.nearest(to: stranger, among: self.keys).map { "write \($0)" }
                ?? "leave it out, or make it a local; a script's table has the phases \(PhaseSet.all.subtracting(.load).names), "
                + "and config, on_error, name and version"
            let finding = ScriptFinding("there is no phase or field \"\(stranger)\"", path: stranger, mend: mend)
            // What it was meant to be is not known: perhaps a guard.
            throw Refusal(cause: .schema(finding), mayHaveAccess: true, version: id)
        }
        let declared = try describe("config")
        let schema: ScriptSchema
        do throws(ScriptFinding) { schema = try ScriptSchema(declared) } catch { throw refuse(.schema(error), phases) }
        do throws(Judgement) {
            config = try schema.judge(arguments)
        } catch {
            throw refuse(.arguments(error.findings), phases)
        }
        let policy = try describe("on_error")
        if policy != .nil {
            onError = policy.text.flatMap(ScriptBinding.FailurePolicy.init(rawValue:))
            if onError == nil {
                let mend = "write on_error = \"open\" or \"closed\""
                let problem = "on_error is neither \"open\" nor \"closed\""
                throw refuse(.schema(ScriptFinding(problem, path: "on_error", mend: mend)), phases)
            }
        }
        do throws(ScriptFailure) {
            try finish(machine, config)
        } catch {
            throw refuse(.failed(.initialise, error), phases)
        }
        let version = ScriptVersion(
            id: id, source: source, config: config, limits: limits, phases: phases, onError: onError,
            surroundings: surroundings, tenant: tenant)
        return (version, machine)
    }

    /// Compiles, and runs nothing, not even the top level: all that may be done with a stranger's script where no request
    /// is served.
    /// - Returns: what is wrong with it; nil when it compiles.
    package static func check(_ source: ScriptSource, limits: ScriptLimits = ScriptLimits()) -> ScriptFailure? {
        guard let vm = ScriptVM(limits: limits) else {
            return ScriptFailure(kind: .memory, message: "not enough memory for a new machine")
        }
        do throws(ScriptFailure) {
            for module in source.modules {
                try vm.addModule(
                    name: module.name, file: "\(module.name).lua", source: Array(module.source.utf8), mustCompile: true)
            }
            try vm.compile(file: source.name, source: Array(source.main.utf8))
            return nil
        } catch {
            return error
        }
    }

    /// Another VM of this version.
    package func makeMachine() throws(ScriptFailure) -> Machine {
        let machine = try Self.load(source, id: id, limits: limits, surroundings: surroundings, tenant: tenant)
        try Self.finish(machine, config)
        return machine
    }

    private static func load(
        _ source: ScriptSource, id: String, limits: ScriptLimits, surroundings: ScriptSurroundings,
        tenant: ScriptMetrics.Tenant
    ) throws(ScriptFailure) -> Machine {
        let library = ScriptLibrary(
            tenant: tenant, version: id, log: surroundings.log, metrics: surroundings.metrics,
            clock: surroundings.clock,
            random: surroundings.randomSeed.map { RandomSource(seed: $0) } ?? RandomSource())
        guard
            let vm = ScriptVM(
                limits: limits, functions: library.functions, classes: library.classes, library: library)
        else {
            throw ScriptFailure(kind: .memory, message: "not enough memory for a new machine")
        }
        library.purse = vm.purse
        for module in source.modules {
            try vm.addModule(name: module.name, file: "\(module.name).lua", source: Array(module.source.utf8))
        }
        try vm.compile(file: source.name, source: Array(source.main.utf8))
        try vm.load()
        return Machine(vm: vm, library: library)
    }

    private static func finish(_ machine: Machine, _ config: ScriptConfig) throws(ScriptFailure) {
        try machine.library.configure(config)
        try machine.vm.configure(machine.library.configTree)
        try machine.vm.initialise()
    }
}
