// A value that tasks share and wait on.

import Synchronization

/// Holds a value; whoever waits is woken when the value becomes what it waits for. Writers never wait for readers.
package final class Watched<Value: Sendable>: Sendable {
    private struct Waiter {
        var id: UInt64
        var isMet: @Sendable (Value) -> Bool
        var continuation: CheckedContinuation<Bool, Never>
    }

    private struct State {
        var value: Value
        var waiters: [Waiter] = []
        var nextID: UInt64 = 0
        var cancelled: Set<UInt64> = []
    }

    private let state: Mutex<State>

    package init(_ value: Value) { state = Mutex(State(value: value)) }

    package var value: Value { state.withLock { $0.value } }

    package func read<Result: Sendable>(_ body: (Value) -> Result) -> Result { state.withLock { body($0.value) } }

    @discardableResult
    package func update<Result: Sendable>(_ change: (inout Value) -> Result) -> Result {
        let (result, woken) = state.withLock { state in
            let result = change(&state.value)
            guard !state.waiters.isEmpty else { return (result, [] as [CheckedContinuation<Bool, Never>]) }
            var woken: [CheckedContinuation<Bool, Never>] = []
            let value = state.value
            state.waiters.removeAll { waiter in
                guard waiter.isMet(value) else { return false }
                woken.append(waiter.continuation)
                return true
            }
            return (result, woken)
        }
        for continuation in woken { continuation.resume(returning: true) }
        return result
    }

    /// Returns when the value is as asked for; throws only `CancellationError`.
    package func wait(until isMet: @escaping @Sendable (Value) -> Bool) async throws {
        let id = state.withLock { state in
            state.nextID += 1
            return state.nextID
        }
        let reached = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let answer: Bool? = state.withLock { state in
                    if state.cancelled.remove(id) != nil { return false }
                    if isMet(state.value) { return true }
                    state.waiters.append(Waiter(id: id, isMet: isMet, continuation: continuation))
                    return nil
                }
                if let answer { continuation.resume(returning: answer) }
            }
        } onCancel: {
            let continuation = state.withLock { state in
                guard let index = state.waiters.firstIndex(where: { $0.id == id }) else {
                    state.cancelled.insert(id)
                    return nil as CheckedContinuation<Bool, Never>?
                }
                return state.waiters.remove(at: index).continuation
            }
            continuation?.resume(returning: false)
        }
        // Cancelled after it was met: the note that the handler left is not for anybody else.
        state.withLock { state in _ = state.cancelled.remove(id) }
        guard reached else { throw CancellationError() }
    }
}

extension Watched {
    /// As `wait`, but no longer than to `due` by the clock; without one for as long as it takes.
    package func wait(
        until due: Duration?, by clock: any ControlClock, or isMet: @escaping @Sendable (Value) -> Bool
    ) async throws {
        guard let due else { return try await wait(until: isMet) }
        await withTaskGroup(of: Void.self) { group in
            group.addTask { try? await clock.sleep(for: due - clock.now()) }
            group.addTask { try? await self.wait(until: isMet) }
            await group.next()
            group.cancelAll()
        }
        try Task.checkCancellation()
    }
}
