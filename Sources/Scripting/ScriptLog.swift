// `moongate.log`: lines leave the loop through a bounded queue that another thread drains; what does not fit is counted.

import Synchronization

package struct ScriptLogLine: Sendable, Hashable {
    package enum Level: String, Sendable, Hashable, CaseIterable {
        case debug
        case info
        case warn
        case error
    }

    package struct Field: Sendable, Hashable {
        package var key: String
        package var value: String
    }

    package var level: Level
    package var script: String
    package var version: String
    package var message: String
    package var fields: [Field]
    /// How many lines of this script were cut off since its last one.
    package var suppressed: Int
    /// Empty outside of a request.
    package var requestID: String
}

/// The queue between the loops and whoever writes the log.
package final class ScriptLog: Sendable {
    private struct State {
        var lines: [ScriptLogLine] = []
        var dropped: UInt64 = 0
        var suppressed: UInt64 = 0
    }

    package static let capacity = 4096
    private let state = Mutex(State())

    package init() {}

    package func append(_ line: ScriptLogLine) {
        state.withLock { state in
            if state.lines.count < Self.capacity { state.lines.append(line) } else { state.dropped += 1 }
        }
    }

    func countSuppressed() { state.withLock { $0.suppressed += 1 } }

    /// Takes what has come together; the caller writes it, off the loops.
    package func drain() -> [ScriptLogLine] {
        state.withLock { state in
            let lines = state.lines
            state.lines = []
            return lines
        }
    }

    /// Lines that were lost because nobody drained, and those that the buckets of scripts cut off.
    package var lost: (dropped: UInt64, suppressed: UInt64) { state.withLock { ($0.dropped, $0.suppressed) } }

    /// Appends what was lost in the text format of Prometheus.
    package func write(to text: inout String) {
        let lost = lost
        for (name, help, value) in [
            ("log_lines_dropped_total", "Log lines of scripts that found the queue full.", lost.dropped),
            ("log_lines_suppressed_total", "Log lines of scripts beyond their rate.", lost.suppressed),
        ] {
            let full = ScriptMetrics.prefix + name
            text += "# HELP \(full) \(help)\n# TYPE \(full) counter\n\(full) \(value)\n"
        }
    }
}

/// How much a script may log: `burst` lines at once, then `perSecond`.
package struct TokenBucket: Sendable {
    private let burst: Double
    private let perSecond: Double
    private var tokens: Double
    private var last: UInt64 = 0

    package init(burst: Double, perSecond: Double) {
        self.burst = burst
        self.perSecond = perSecond
        tokens = burst
    }

    /// `now` in nanoseconds of the monotonic clock.
    package mutating func take(now: UInt64) -> Bool {
        if now > last {
            if last != 0 { tokens = min(burst, tokens + Double(now - last) * 1e-9 * perSecond) }
            last = now
        }
        guard tokens >= 1 else { return false }
        tokens -= 1
        return true
    }
}
