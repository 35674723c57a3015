import Controller
import Testing

@Suite struct HoldOffTests {
    private let terms = HoldOff.Terms(quiet: .milliseconds(20), longest: .milliseconds(100))

    /// Something was taken up just now: what comes is a crowd.
    private var busy: HoldOff {
        var holdOff = HoldOff(terms: terms)
        holdOff.taken(at: .zero)
        return holdOff
    }

    @Test func nothingToWaitFor() {
        #expect(HoldOff(terms: terms).remaining(at: .zero) == nil)
        #expect(busy.remaining(at: .zero) == nil)
    }

    @Test func afterAQuietTimeTheFirstDoesNotWait() {
        var holdOff = HoldOff(terms: terms)
        holdOff.noticed(count: 1, at: .zero)
        #expect(holdOff.remaining(at: .zero) == .zero)
        holdOff.taken(at: .zero)
        holdOff.noticed(count: 2, at: .milliseconds(100))
        #expect(holdOff.remaining(at: .milliseconds(100)) == .zero)
        holdOff.taken(at: .milliseconds(100))
        // The second of a crowd does.
        holdOff.noticed(count: 3, at: .milliseconds(101))
        #expect(holdOff.remaining(at: .milliseconds(101)) == .milliseconds(20))
        // It is no crowd any more when its end is late.
        holdOff.noticed(count: 4, at: .milliseconds(250))
        #expect(holdOff.remaining(at: .milliseconds(250)) == .zero)
    }

    @Test func waitsForQuiet() {
        var holdOff = busy
        holdOff.noticed(count: 1, at: .milliseconds(0))
        #expect(holdOff.remaining(at: .milliseconds(0)) == .milliseconds(20))
        #expect(holdOff.remaining(at: .milliseconds(15)) == .milliseconds(5))
        holdOff.noticed(count: 2, at: .milliseconds(15))
        #expect(holdOff.remaining(at: .milliseconds(15)) == .milliseconds(20))
        #expect(holdOff.remaining(at: .milliseconds(40)) == .zero)
    }

    @Test func theSameCountIsNoNews() {
        var holdOff = busy
        holdOff.noticed(count: 1, at: .milliseconds(0))
        holdOff.noticed(count: 1, at: .milliseconds(15))
        #expect(holdOff.remaining(at: .milliseconds(15)) == .milliseconds(5))
    }

    @Test func neverWaitsLongerThanTheBound() {
        var holdOff = busy
        for step in 0..<20 { holdOff.noticed(count: UInt64(step + 1), at: .milliseconds(step * 10)) }
        #expect(holdOff.remaining(at: .milliseconds(100)) == .zero)
    }

    @Test func takenBeginsAnew() {
        var holdOff = busy
        holdOff.noticed(count: 1, at: .milliseconds(0))
        holdOff.taken(at: .milliseconds(450))
        #expect(holdOff.remaining(at: .milliseconds(500)) == nil)
        holdOff.noticed(count: 2, at: .milliseconds(500))
        #expect(holdOff.remaining(at: .milliseconds(500)) == .milliseconds(20))
    }
}
