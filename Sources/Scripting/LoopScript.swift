// A script version on one loop: its VM, its breaker, its vital signs.

import Synchronization

/// What the loop's counters cannot tell of a script, because it is a state and not an event. One writer, the loop; any
/// reader. Runs, errors and times are counted with the requests, by Telemetry.
package final class ScriptVitals: Sendable {
    package let script: String
    package let version: String
    private let memoryBytes = Atomic<Int>(0)
    private let isBreakerOpen = Atomic<Bool>(false)

    init(script: String, version: String) {
        self.script = script
        self.version = version
    }

    /// Bytes of the script's machine, as of one of its last 64 runs.
    package fileprivate(set) var memory: Int {
        get { memoryBytes.load(ordering: .relaxed) }
        set { memoryBytes.store(newValue, ordering: .relaxed) }
    }

    package fileprivate(set) var hasOpenBreaker: Bool {
        get { isBreakerOpen.load(ordering: .relaxed) }
        set { isBreakerOpen.store(newValue, ordering: .relaxed) }
    }

    /// Appends them in the text format of Prometheus, summed over the loops.
    package static func write(_ all: [ScriptVitals], to text: inout String) {
        var sums: [[ScriptMetrics.Label]: (memory: Int, breakers: Int)] = [:]
        for one in all {
            let key = [ScriptMetrics.Label("script", one.script), ScriptMetrics.Label("version", one.version)]
            sums[key, default: (0, 0)].memory += one.memory
            sums[key, default: (0, 0)].breakers += one.hasOpenBreaker ? 1 : 0
        }
        guard !sums.isEmpty else { return }
        let rows = sums.sorted { $0.key.lexicographicallyPrecedes($1.key) }
        func family(_ name: String, _ help: String, _ value: ((memory: Int, breakers: Int)) -> Int) {
            let full = ScriptMetrics.prefix + name
            text += "# HELP \(full) \(help)\n# TYPE \(full) gauge\n"
            for (labels, sum) in rows { text += "\(full)\(ScriptMetrics.braces(labels)) \(value(sum))\n" }
        }
        family("memory_bytes", "Memory of the machines of a script, over all loops.") { $0.memory }
        family("breaker_open", "Loops in which the breaker of the script is open.") { $0.breakers }
    }
}

/// A version's machine on one loop. Made on the control thread, then used by its loop only.
package final class LoopScript {
    package let version: ScriptVersion
    package let vitals: ScriptVitals
    package private(set) var machine: ScriptVersion.Machine
    /// Counts the machines that this loop has had: requests of an older one have died with it.
    package private(set) var machineNumber: UInt32 = 0
    package var breaker = ScriptBreaker()
    private var isWornOut = false
    private var runs: UInt64 = 0

    package init(_ version: ScriptVersion, _ machine: ScriptVersion.Machine) {
        self.version = version
        self.machine = machine
        vitals = ScriptVitals(script: version.name, version: version.id)
        vitals.memory = machine.vm.memoryInUse
    }

    /// Whether the script may run now. A machine whose memory is used up is replaced when its breaker lets a trial
    /// through: at most once in ten seconds, because it costs the loop what loading the script costs.
    package func admits(now: UInt64) -> Bool {
        if breaker.state == .closed { return true }
        guard breaker.admits(now: now) else { return false }
        vitals.hasOpenBreaker = false
        if isWornOut, let fresh = try? version.makeMachine() {
            machine = fresh
            machineNumber &+= 1
            isWornOut = false
        }
        return true
    }

    package func succeeded() {
        if breaker.state != .closed { breaker.succeeded() }
        runs &+= 1
        if runs & 63 == 0 { vitals.memory = machine.vm.memoryInUse }
    }

    package func failed(_ kind: ScriptFailure.Kind, now: UInt64) {
        if kind == .memory { isWornOut = true }
        breaker.failed(now: now)
        vitals.hasOpenBreaker = breaker.state == .open
        vitals.memory = machine.vm.memoryInUse
    }
}
