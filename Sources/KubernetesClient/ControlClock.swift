// Time and chance as the control plane sees them: everything here that waits, expires or spreads its retries takes them
// from outside, so that a test decides what the time is and never has to sleep.

import FoundationEssentials
package import KubernetesAPI

/// What the control plane must know of time and chance.
package protocol ControlClock: Sendable {
    /// Time since an arbitrary start; never goes back.
    func now() -> Duration
    /// What the calendar says; for what is written into objects, never for measuring.
    func wallTime() -> Timestamp
    /// Throws only `CancellationError`.
    func sleep(for duration: Duration) async throws
    /// A number in 0..<1, for jitter.
    func random() -> Double
}

/// The machine's own clock.
package struct SystemClock: ControlClock {
    private let start = ContinuousClock.now

    package init() {}

    package func now() -> Duration { start.duration(to: .now) }

    package func wallTime() -> Timestamp {
        let micros = Int64(Date().timeIntervalSince1970 * 1_000_000)
        return Timestamp(seconds: micros / 1_000_000, nanoseconds: Int32(micros % 1_000_000) * 1_000)
    }

    package func sleep(for duration: Duration) async throws { try await Task.sleep(for: duration) }

    package func random() -> Double { Double.random(in: 0..<1) }
}
