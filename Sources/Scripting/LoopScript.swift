// A script version on one loop: its VM, its breaker, its figures.

import Synchronization

/// What a script has done on one loop. One writer, the loop; any reader.
package final class ScriptStatistics: Sendable {
    package let script: String
    package let version: String
    let runs = Atomic<UInt64>(0)
    let responses = Atomic<UInt64>(0)
    let skipped = Atomic<UInt64>(0)
    let errors: InlineArray<5, Atomic<UInt64>> = InlineArray { _ in Atomic(0) }
    /// By `bounds`, and one more for what is above.
    let times: InlineArray<11, Atomic<UInt64>> = InlineArray { _ in Atomic(0) }
    let nanoseconds = Atomic<UInt64>(0)
    let memory = Atomic<UInt64>(0)
    let breaker = Atomic<UInt64>(0)

    /// In nanoseconds: from 1 µs to 10 ms.
    static let bounds: InlineArray<10, UInt64> = [
        1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000, 10_000_000,
    ]

    init(script: String, version: String) {
        self.script = script
        self.version = version
    }

    package var runCount: UInt64 { runs.load(ordering: .relaxed) }
    package var responseCount: UInt64 { responses.load(ordering: .relaxed) }
    package var skippedCount: UInt64 { skipped.load(ordering: .relaxed) }
    package func errorCount(_ kind: ScriptFailure.Kind) -> UInt64 { errors[Self.place(kind)].load(ordering: .relaxed) }

    static func place(_ kind: ScriptFailure.Kind) -> Int {
        switch kind {
        case .runtime: 0
        case .cpu: 1
        case .memory: 2
        case .wall: 3
        case .api: 4
        }
    }

    /// There is one writer, so a load and a store are enough, and cheaper than an atomic addition.
    @inline(__always)
    private func bump(_ counter: borrowing Atomic<UInt64>, by amount: UInt64 = 1) {
        counter.store(counter.load(ordering: .relaxed) &+ amount, ordering: .relaxed)
    }

    func countRun(nanoseconds spent: UInt64) {
        bump(runs)
        bump(nanoseconds, by: spent)
        var i = 0
        while i < 10, spent > Self.bounds[i] { i += 1 }
        bump(times[i])
    }

    func countResponse() { bump(responses) }
    func countSkip() { bump(skipped) }
    func count(_ kind: ScriptFailure.Kind) { bump(errors[Self.place(kind)]) }

    /// Prometheus text of all statistics, summed over the loops.
    package static func write(_ all: [ScriptStatistics], to text: inout String) {
        struct Sum {
            var runs: UInt64 = 0
            var responses: UInt64 = 0
            var skipped: UInt64 = 0
            var errors = [UInt64](repeating: 0, count: 5)
            var times = [UInt64](repeating: 0, count: 11)
            var nanoseconds: UInt64 = 0
            var memory: UInt64 = 0
            var breaker: UInt64 = 0
        }
        var sums: [[ScriptMetrics.Label]: Sum] = [:]
        for one in all {
            let key = [ScriptMetrics.Label("script", one.script), ScriptMetrics.Label("version", one.version)]
            var sum = sums[key, default: Sum()]
            sum.runs += one.runs.load(ordering: .relaxed)
            sum.responses += one.responses.load(ordering: .relaxed)
            sum.skipped += one.skipped.load(ordering: .relaxed)
            for i in 0..<5 { sum.errors[i] += one.errors[i].load(ordering: .relaxed) }
            for i in 0..<11 { sum.times[i] += one.times[i].load(ordering: .relaxed) }
            sum.nanoseconds += one.nanoseconds.load(ordering: .relaxed)
            sum.memory += one.memory.load(ordering: .relaxed)
            sum.breaker += one.breaker.load(ordering: .relaxed)
            sums[key] = sum
        }
        guard !sums.isEmpty else { return }
        let rows = sums.sorted { $0.key.lexicographicallyPrecedes($1.key) }
        let prefix = ScriptMetrics.prefix
        func family(_ name: String, _ kind: String, _ value: (Sum) -> UInt64) {
            text += "# TYPE \(prefix)\(name) \(kind)\n"
            for (labels, sum) in rows { text += "\(prefix)\(name)\(ScriptMetrics.braces(labels)) \(value(sum))\n" }
        }
        family("runs_total", "counter") { $0.runs }
        family("responses_total", "counter") { $0.responses }
        family("skipped_total", "counter") { $0.skipped }
        family("memory_bytes", "gauge") { $0.memory }
        // Loops on which the script's breaker is open.
        family("breaker_open", "gauge") { $0.breaker }
        text += "# TYPE \(prefix)errors_total counter\n"
        for (labels, sum) in rows {
            for kind in ScriptFailure.Kind.allCases {
                let all = [ScriptMetrics.Label("class", kind.rawValue)] + labels
                text += "\(prefix)errors_total\(ScriptMetrics.braces(all)) \(sum.errors[place(kind)])\n"
            }
        }
        text += "# TYPE \(prefix)cpu_seconds histogram\n"
        for (labels, sum) in rows {
            var total: UInt64 = 0
            for i in 0..<10 {
                total += sum.times[i]
                let bound = ScriptMetrics.number(Double(bounds[i]) / 1e9)
                text += "\(prefix)cpu_seconds_bucket\(ScriptMetrics.braces(labels + [.init("le", bound)])) \(total)\n"
            }
            total += sum.times[10]
            text += "\(prefix)cpu_seconds_bucket\(ScriptMetrics.braces(labels + [.init("le", "+Inf")])) \(total)\n"
            let seconds = ScriptMetrics.number(Double(sum.nanoseconds) / 1e9)
            text += "\(prefix)cpu_seconds_sum\(ScriptMetrics.braces(labels)) \(seconds)\n"
            text += "\(prefix)cpu_seconds_count\(ScriptMetrics.braces(labels)) \(total)\n"
        }
    }
}

/// A version's machine on one loop. Made on the control thread, then used by its loop only.
package final class LoopScript {
    package let version: ScriptVersion
    package let statistics: ScriptStatistics
    package private(set) var machine: ScriptVersion.Machine
    /// Counts the machines that this loop has had: requests of an older one have died with it.
    package private(set) var machineNumber: UInt32 = 0
    package var breaker = ScriptBreaker()
    private var isWornOut = false

    package init(_ version: ScriptVersion, _ machine: ScriptVersion.Machine) {
        self.version = version
        self.machine = machine
        statistics = ScriptStatistics(script: version.name, version: version.id)
        statistics.memory.store(UInt64(machine.vm.memoryInUse), ordering: .relaxed)
    }

    /// Whether the script may run now. A machine whose memory is used up is replaced when its breaker lets a trial
    /// through: at most once in ten seconds, because it costs the loop what loading the script costs.
    package func admits(now: UInt64) -> Bool {
        let was = breaker.state
        if was == .closed { return true }
        guard breaker.admits(now: now) else {
            statistics.countSkip()
            return false
        }
        statistics.breaker.store(0, ordering: .relaxed)
        if isWornOut, let fresh = try? version.makeMachine() {
            machine = fresh
            machineNumber &+= 1
            isWornOut = false
        }
        return true
    }

    package func succeeded(nanoseconds: UInt64) {
        statistics.countRun(nanoseconds: nanoseconds)
        if breaker.state != .closed { breaker.succeeded() }
        if statistics.runCount & 63 == 0 {
            statistics.memory.store(UInt64(machine.vm.memoryInUse), ordering: .relaxed)
        }
    }

    package func responded() { statistics.countResponse() }
    package func skipped() { statistics.countSkip() }

    package func failed(_ kind: ScriptFailure.Kind, now: UInt64, nanoseconds: UInt64) {
        statistics.countRun(nanoseconds: nanoseconds)
        statistics.count(kind)
        if kind == .memory { isWornOut = true }
        breaker.failed(now: now)
        statistics.breaker.store(breaker.state == .open ? 1 : 0, ordering: .relaxed)
    }
}
