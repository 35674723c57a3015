import Controller
import Testing

@Suite struct HoldOffTests {
    private let terms = HoldOff.Terms(quiet: .milliseconds(20), longest: .milliseconds(100))

    @Test func nothingToWaitFor() {
        #expect(HoldOff(terms: terms).remaining(at: .zero) == nil)
    }

    @Test func waitsForQuiet() {
        var holdOff = HoldOff(terms: terms)
        holdOff.noticed(count: 1, at: .milliseconds(0))
        #expect(holdOff.remaining(at: .milliseconds(0)) == .milliseconds(20))
        #expect(holdOff.remaining(at: .milliseconds(15)) == .milliseconds(5))
        holdOff.noticed(count: 2, at: .milliseconds(15))
        #expect(holdOff.remaining(at: .milliseconds(15)) == .milliseconds(20))
        #expect(holdOff.remaining(at: .milliseconds(40)) == .zero)
    }

    @Test func theSameCountIsNoNews() {
        var holdOff = HoldOff(terms: terms)
        holdOff.noticed(count: 1, at: .milliseconds(0))
        holdOff.noticed(count: 1, at: .milliseconds(15))
        #expect(holdOff.remaining(at: .milliseconds(15)) == .milliseconds(5))
    }

    @Test func neverWaitsLongerThanTheBound() {
        var holdOff = HoldOff(terms: terms)
        for step in 0..<20 { holdOff.noticed(count: UInt64(step + 1), at: .milliseconds(step * 10)) }
        #expect(holdOff.remaining(at: .milliseconds(100)) == .zero)
    }

    @Test func takenBeginsAnew() {
        var holdOff = HoldOff(terms: terms)
        holdOff.noticed(count: 1, at: .milliseconds(0))
        holdOff.taken()
        #expect(holdOff.remaining(at: .milliseconds(500)) == nil)
        holdOff.noticed(count: 2, at: .milliseconds(500))
        #expect(holdOff.remaining(at: .milliseconds(500)) == .milliseconds(20))
    }
}
