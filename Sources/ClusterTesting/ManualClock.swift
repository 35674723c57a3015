// Time that moves when a test says so.

package import KubernetesAPI
package import KubernetesClient
import Synchronization

/// A clock for tests. Either each sleep lasts until the test moves the time, or (`jumping`) a sleep moves the time itself
/// and ends at once, for tests that want the result of many retries and not their moments.
package final class ManualClock: ControlClock {
    private struct State {
        var now = Duration.seconds(1_000)
        var wall: Int64 = 1_800_000_000
        var sleepers: [UInt64: (due: Duration, continuation: CheckedContinuation<Bool, Never>)] = [:]
        var cancelled: Set<UInt64> = []
        var nextID: UInt64 = 0
        var jumps: Bool
        var slept: [Duration] = []
    }

    private let state: Mutex<State>
    /// How many sleep now, and how many sleeps there were: what a test waits for before it moves the time.
    package let sleeping = Watched((now: 0, total: 0))

    package init(jumping: Bool = false) { state = Mutex(State(jumps: jumping)) }

    package func now() -> Duration { state.withLock { $0.now } }

    package func wallTime() -> Timestamp {
        state.withLock { state in
            let passed = state.now - .seconds(1_000)
            let parts = passed.components
            return Timestamp(
                seconds: state.wall + parts.seconds, nanoseconds: Int32(parts.attoseconds / 1_000_000_000))
        }
    }

    package func random() -> Double { 0.5 }

    /// What was asked for, in order.
    package var sleeps: [Duration] { state.withLock { $0.slept } }

    package func sleep(for duration: Duration) async throws {
        try Task.checkCancellation()
        let id = state.withLock { state in
            state.nextID += 1
            state.slept.append(duration)
            return state.nextID
        }
        if state.withLock({ state in
            if state.jumps { state.now += max(.zero, duration) }
            return state.jumps
        }) {
            sleeping.update { $0.total += 1 }
            await Task.yield()
            return
        }
        let finished = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let answer: Bool? = state.withLock { state in
                    if state.cancelled.remove(id) != nil { return false }
                    if duration <= .zero { return true }
                    state.sleepers[id] = (state.now + duration, continuation)
                    return nil
                }
                tellSleepers(started: true)
                if let answer { continuation.resume(returning: answer) }
            }
        } onCancel: {
            let continuation = state.withLock { state in
                guard let sleeper = state.sleepers.removeValue(forKey: id) else {
                    state.cancelled.insert(id)
                    return nil as CheckedContinuation<Bool, Never>?
                }
                return sleeper.continuation
            }
            continuation?.resume(returning: false)
        }
        state.withLock { state in _ = state.cancelled.remove(id) }
        tellSleepers(started: false)
        guard finished else { throw CancellationError() }
    }

    private func tellSleepers(started: Bool) {
        let count = state.withLock { $0.sleepers.count }
        sleeping.update { value in
            value.now = count
            if started { value.total += 1 }
        }
    }

    /// Moves the time and wakes whoever is due.
    package func advance(by duration: Duration) {
        let due = state.withLock { state in
            state.now += duration
            let now = state.now
            let due = state.sleepers.filter { $0.value.due <= now }
            for id in due.keys { state.sleepers[id] = nil }
            return due.values.sorted { $0.due < $1.due }.map(\.continuation)
        }
        for continuation in due { continuation.resume(returning: true) }
    }

    /// Moves the time on, again and again, until the condition holds: for tests that do not count the waits.
    package func run(step: Duration, until isMet: @Sendable () -> Bool) async {
        while !isMet() {
            advance(by: step)
            await Task.yield()
        }
    }
}
