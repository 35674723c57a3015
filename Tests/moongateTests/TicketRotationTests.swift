import ClusterTesting
import KubernetesClient
import TLSEngine
import Testing

@testable import moongate

struct TicketRotationTests {
    /// Runs it for so many periods; `look` is called after each change of the keys.
    private func run(_ rotation: TicketRotation, periods: Int, _ look: () -> Void) async throws {
        let clock = ManualClock()
        let task = Task { await rotation.run(clock: clock) }
        for turn in 1...periods {
            try await clock.sleeping.wait { $0.total == turn }
            let before = rotation.current
            clock.advance(by: .seconds(4 * 3_600 - 1))
            #expect(rotation.current == before && clock.sleeping.value.now == 1)
            clock.advance(by: .seconds(1))
            try await clock.sleeping.wait { $0.total == turn + 1 }
            look()
        }
        task.cancel()
        await task.value
    }

    /// A new key seals, and those of the last 12 hours go on opening.
    @Test func keysAreChangedEveryFourHours() async throws {
        let rotation = TicketRotation()
        var before = rotation.current
        #expect(before.count == 1)
        var turn = 0
        try await run(rotation, periods: 6) {
            turn += 1
            let after = rotation.current
            #expect(after.count == min(turn + 1, 4) && Set(after).count == after.count)
            #expect(Array(after.dropFirst()) == Array(before.prefix(3)))
            before = after
        }
        #expect(turn == 6)
    }

    /// Those of a Secret seal as long as it has any; ours still open what they have sealed.
    @Test func keysThatAreSharedComeFirst() async throws {
        let rotation = TicketRotation()
        let own = rotation.current
        let shared = [TicketKey(), TicketKey()]
        rotation.share(shared)
        #expect(rotation.current == shared + own)
        try await run(rotation, periods: 1) {
            #expect(Array(rotation.current.prefix(2)) == shared && rotation.current.count == 4)
        }
        rotation.share(nil)
        #expect(rotation.current.count == 2 && rotation.current.last == own.first)
    }
}
