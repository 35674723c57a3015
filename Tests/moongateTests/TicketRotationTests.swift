import Synchronization
import TLSEngine
import Testing

@testable import moongate

/// Sleeps that end at once, so many of them; the next one is cancelled.
private final class CountedClock: Clock {
    let left: Mutex<Int>
    let slept = Mutex<[Duration]>([])

    init(_ count: Int) { left = Mutex(count) }

    var now: ContinuousClock.Instant { ContinuousClock.now }
    var minimumResolution: Duration { .zero }

    func sleep(until deadline: ContinuousClock.Instant, tolerance: Duration?) async throws {
        let isLast = left.withLock { left in
            left -= 1
            return left < 0
        }
        if isLast { throw CancellationError() }
        slept.withLock { $0.append(deadline - now) }
    }
}

struct TicketRotationTests {
    /// A new key seals, and those of the last 12 hours go on opening.
    @Test func keysAreChangedEveryFourHours() async throws {
        let rotation = TicketRotation()
        var before = rotation.current
        #expect(before.count == 1)
        for turn in 1...6 {
            let clock = CountedClock(1)
            await rotation.run(clock: clock)
            let after = rotation.current
            #expect(after.count == min(turn + 1, 4) && Set(after).count == after.count)
            #expect(Array(after.dropFirst()) == Array(before.prefix(3)))
            let slept = clock.slept.withLock { $0 }
            #expect(slept.count == 1 && slept.allSatisfy { $0 > .seconds(4 * 3_600 - 10) && $0 <= .seconds(4 * 3_600) })
            before = after
        }
    }

    /// Those of a Secret seal as long as it has any; ours still open what they have sealed.
    @Test func keysThatAreSharedComeFirst() async {
        let rotation = TicketRotation()
        let own = rotation.current
        let shared = [TicketKey(), TicketKey()]
        rotation.share(shared)
        #expect(rotation.current == shared + own)
        await rotation.run(clock: CountedClock(1))
        #expect(Array(rotation.current.prefix(2)) == shared && rotation.current.count == 4)
        rotation.share(nil)
        #expect(rotation.current.count == 2 && rotation.current.last == own.first)
    }
}
