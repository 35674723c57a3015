// State that several threads of a test write and one waits on.
import Foundation

/// A value behind a lock, with the one thing a lock alone lacks: waiting until it says something.
package final class Board<Value: Sendable>: Sendable {
    private let condition = NSCondition()
    private nonisolated(unsafe) var value: Value

    package init(_ value: Value) {
        unsafe self.value = value
    }

    package func change<Result>(_ body: (inout Value) -> Result) -> Result {
        condition.lock()
        defer {
            condition.broadcast()
            condition.unlock()
        }
        // `value` is touched under the lock only.
        return unsafe body(&value)
    }

    package func read<Result>(_ body: (Value) -> Result) -> Result {
        condition.lock()
        defer { condition.unlock() }
        return unsafe body(value)
    }

    /// The first non-nil answer of `body`, asked again at every change; nil when the deadline passed.
    package func wait<Result>(by deadline: Deadline, _ body: (Value) -> Result?) -> Result? {
        condition.lock()
        defer { condition.unlock() }
        while true {
            if let result = unsafe body(value) { return result }
            let remaining = deadline.remainingMilliseconds
            guard remaining > 0 else { return nil }
            _ = condition.wait(until: Date(timeIntervalSinceNow: Double(remaining) / 1000))
        }
    }
}

/// Everything that happened in a scenario, in order, for the reader of a failure.
package final class Transcript: Sendable {
    private let start = Deadline.now
    private let lines = Board<[String]>([])
    private static let limit = 4000

    package init() {}

    package func add(_ who: String, _ what: String) {
        let milliseconds = (Deadline.now - start) / 1_000_000
        let shown = what.count > 2000 ? what.prefix(2000) + "… (\(what.count) characters)" : what[...]
        lines.change { lines in
            guard lines.count < Self.limit else { return }
            lines.append("\(milliseconds) ms  \(who)  \(shown)")
        }
    }

    package var text: String { lines.read { $0.joined(separator: "\n") } }
}

/// A scenario that did not do as its file says.
package struct ScenarioFailure: Error, CustomStringConvertible {
    package var message: String
    package var line: Int?
    package var transcript: String?

    package init(_ message: String, line: Int? = nil) {
        self.message = message
        self.line = line
    }

    package var description: String {
        var text = message
        if let line { text = "line \(line): " + text }
        if let transcript { text += "\n--- transcript ---\n" + transcript }
        return text
    }
}
