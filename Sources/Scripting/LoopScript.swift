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
    private let loop: Int
    private var runs: UInt64 = 0
    /// Failures for want of memory of this machine, and when the first of them was.
    private var memoryFailures = 0
    private var firstMemoryFailure: UInt64 = 0
    /// Before then the machine is not looked at again.
    private var nextLook: UInt64 = 0

    /// So many failures for want of memory, or one that is so old, and the machine is looked at.
    package static let memoryFailuresBorne = 3
    package static let memoryFailureAge: UInt64 = 10_000_000_000
    /// A new machine costs the loop what loading the script costs, a look what collecting all garbage does.
    package static let renewalPause: UInt64 = 10_000_000_000
    package static let lookPause: UInt64 = 1_000_000_000

    package init(_ version: ScriptVersion, _ machine: ScriptVersion.Machine, loop: Int = 0) {
        self.version = version
        self.machine = machine
        self.loop = loop
        vitals = ScriptVitals(script: version.qualifiedName, version: version.id)
        vitals.memory = machine.vm.memoryInUse
    }

    /// Whether the script may run now. A machine whose memory is used up is replaced here.
    @inline(__always)
    package func admits(now: UInt64) -> Bool {
        if memoryFailures > 0 { renewIfWornOut(now) }
        if breaker.state == .closed { return true }
        guard breaker.admits(now: now) else { return false }
        vitals.hasOpenBreaker = false
        return true
    }

    /// A script that fails for want of memory may have asked for too much at once, or keep too much from request to
    /// request; only the second has worn its machine out, and nothing else than a new one helps.
    private func renewIfWornOut(_ now: UInt64) {
        guard
            memoryFailures >= Self.memoryFailuresBorne
                || now >= firstMemoryFailure && now - firstMemoryFailure >= Self.memoryFailureAge, now >= nextLook
        else { return }
        machine.vm.collectGarbage()
        guard machine.vm.memoryInUse > machine.vm.memoryLimit / 2 else {
            memoryFailures = 0
            nextLook = now &+ Self.lookPause
            return
        }
        nextLook = now &+ Self.renewalPause
        guard let fresh = try? version.makeMachine() else { return }
        machine = fresh
        machineNumber &+= 1
        memoryFailures = 0
        vitals.memory = fresh.vm.memoryInUse
        tell(.warn, "the memory of the script was used up by what it keeps: it starts anew", requestID: "")
    }

    /// - Returns: whether the breaker has closed by this.
    @inline(__always)
    package func succeeded() -> Bool {
        runs &+= 1
        if runs & 63 == 0 { vitals.memory = machine.vm.memoryInUse }
        if breaker.state == .closed { return false }
        breaker.succeeded()
        return breaker.state == .closed
    }

    /// - Returns: whether the breaker has opened by this.
    package func failed(_ kind: ScriptFailure.Kind, now: UInt64) -> Bool {
        if kind == .memory {
            if memoryFailures == 0 { firstMemoryFailure = now }
            memoryFailures += 1
        }
        let wasClosed = breaker.state == .closed
        breaker.failed(now: now)
        vitals.hasOpenBreaker = breaker.state == .open
        vitals.memory = machine.vm.memoryInUse
        return wasClosed && breaker.state == .open
    }

    /// A line of ours about the script, in its log. What it tells comes once in seconds, so no bucket holds it back.
    package func tellBreaker(_ message: String, requestID: String) { tell(.warn, message, requestID: requestID) }

    private func tell(_ level: ScriptLogLine.Level, _ message: String, requestID: String) {
        version.surroundings.log.append(
            ScriptLogLine(
                level: level, script: version.qualifiedName, version: version.id, message: message,
                fields: [ScriptLogLine.Field(key: "loop", value: String(loop))], suppressed: 0, requestID: requestID))
    }
}
