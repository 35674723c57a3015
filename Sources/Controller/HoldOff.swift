// When a change is taken up: at once after a quiet time; else not at once, because changes come in crowds, and not too late,
// because a crowd may never end.

package struct HoldOff: Sendable {
    package struct Terms: Sendable, Equatable {
        /// So long nothing may have come before what has gathered is taken up ...
        package var quiet: Duration
        /// ... but never longer than this after the first of it. A change that comes so long after the last taking up is
        /// no crowd, and does not wait.
        package var longest: Duration

        package init(quiet: Duration = .milliseconds(20), longest: Duration = .milliseconds(200)) {
            self.quiet = quiet
            self.longest = longest
        }
    }

    private let terms: Terms
    private var first: Duration?
    private var last: Duration?
    private var lastTaken: Duration?
    private var seen: UInt64 = 0

    package init(terms: Terms = Terms()) { self.terms = terms }

    /// `count` grows with every change: the same number again is no news.
    package mutating func noticed(count: UInt64, at now: Duration) {
        guard count != seen || first == nil else { return }
        seen = count
        first = first ?? now
        last = now
    }

    /// How long to wait yet; zero when it is time, nil when there is nothing to take up.
    package func remaining(at now: Duration) -> Duration? {
        guard let first, let last else { return nil }
        guard let lastTaken, first - lastTaken < terms.longest else { return .zero }
        return max(.zero, min(last + terms.quiet, first + terms.longest) - now)
    }

    /// What was taken up has been dealt with: what came meanwhile is a crowd.
    package mutating func done(at now: Duration) { lastTaken = now }

    package mutating func taken(at now: Duration) {
        lastTaken = now
        first = nil
        last = nil
    }
}
