import Testing

@testable import Reactor

@Suite struct TimerWheelTests {
    let token = Token(kind: 1, index: 2, generation: 3)

    @Test(arguments: [UInt64(1), 31, 32, 33, 999, 5_000, 30_000])
    func comesUpAtItsTimeOrOneTickAfter(delay: UInt64) {
        var wheel = TimerWheel(now: 1_000)
        let due = wheel.schedule(token, at: 1_000 + delay)
        #expect(due >= 1_000 + delay)
        #expect(due < 1_000 + delay + 2 * TimerWheel.tickMilliseconds)
        #expect(wheel.advance(to: due - 1).isEmpty)
        #expect(wheel.advance(to: due) == [token])
        #expect(wheel.isEmpty)
        #expect(wheel.advance(to: due + 100_000).isEmpty)
    }

    @Test func waitsUntilTheNextEntry() {
        var wheel = TimerWheel(now: 0)
        #expect(wheel.wait(from: 0) == nil)
        let due = wheel.schedule(token, at: 7_777)
        #expect(wheel.wait(from: 0) == due)
        #expect(wheel.wait(from: due - 3) == 3)
        #expect(wheel.wait(from: due + 5) == 0)
    }

    @Test func farAwayComesUpEarlyAndIsScheduledAgain() {
        var wheel = TimerWheel(now: 0)
        let deadline: UInt64 = 1_000_000
        var now: UInt64 = 0
        var rounds = 0
        var due = wheel.schedule(token, at: deadline)
        while due < deadline {
            now = due
            #expect(wheel.advance(to: now) == [token])
            due = wheel.schedule(token, at: deadline)
            rounds += 1
        }
        #expect(wheel.advance(to: due) == [token])
        #expect(rounds > 1 && rounds < 20)
    }

    @Test func aLongSleepBringsEachOnce() {
        var wheel = TimerWheel(now: 0)
        for i in 0..<500 {
            _ = wheel.schedule(Token(kind: 0, index: UInt32(i), generation: 1), at: UInt64(i) * 100)
        }
        let all = wheel.advance(to: 10_000_000)
        #expect(all.count == 500)
        #expect(Set(all).count == 500)
        #expect(wheel.isEmpty)
        let due = wheel.schedule(token, at: 10_000_050)
        #expect(wheel.advance(to: due) == [token])
    }

    @Test func aDeadlineInThePastIsDueAtTheNextTick() {
        var wheel = TimerWheel(now: 5_000)
        let due = wheel.schedule(token, at: 10)
        #expect(due > 5_000 && due <= 5_000 + TimerWheel.tickMilliseconds)
        #expect(wheel.advance(to: due) == [token])
    }

    /// Against a plain list: whatever is scheduled comes up exactly once, not before its time, not a tick late.
    @Test func agreesWithAPlainList() {
        var generator = SystemRandomNumberGenerator()
        var wheel = TimerWheel(now: 0)
        var now: UInt64 = 0
        var expected: [UInt32: UInt64] = [:]
        for index in 0..<UInt32(3_000) {
            let deadline = now + UInt64.random(in: 0...60_000, using: &generator)
            expected[index] = wheel.schedule(Token(kind: 0, index: index, generation: 1), at: deadline)
            now += UInt64.random(in: 0...90, using: &generator)
            for token in wheel.advance(to: now) {
                let due = expected.removeValue(forKey: token.index)
                #expect(due != nil && due! <= now && now - due! <= 90 + TimerWheel.tickMilliseconds)
            }
        }
        for token in wheel.advance(to: now + 70_000) { expected.removeValue(forKey: token.index) }
        #expect(expected.isEmpty)
    }
}
