// A clock that moves only when a test says so.
import Synchronization

/// Monotonic nanoseconds for machines that take the time as a value.
package final class TestClock: Sendable {
    private let nanoseconds: Atomic<UInt64>

    package init(startingAt start: UInt64 = 1_000_000_000) {
        nanoseconds = Atomic(start)
    }

    package var now: UInt64 { nanoseconds.load(ordering: .relaxed) }

    /// Moves forward and tells the new time. A clock never goes back.
    @discardableResult
    package func advance(by duration: Duration) -> UInt64 {
        let parts = duration.components
        let step = UInt64(max(0, parts.seconds)) * 1_000_000_000 + UInt64(max(0, parts.attoseconds) / 1_000_000_000)
        return nanoseconds.add(step, ordering: .relaxed).newValue
    }
}
