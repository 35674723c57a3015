// How long to wait before the API server is asked again.

/// Waits that double up to a limit. Each is cut by up to half at random, so that replicas which lost the same server at
/// the same moment do not all come back at the same moment.
package struct Backoff: Sendable, Equatable {
    private let first: Duration
    private let limit: Duration
    private var next: Duration

    package init(first: Duration = .milliseconds(250), limit: Duration = .seconds(30)) {
        self.first = first
        self.limit = limit
        next = first
    }

    /// The next wait. What the server asked for (Retry-After) is a floor within reason, with jitter on top instead of
    /// below.
    package mutating func delay(atLeast floor: Duration? = nil, random: Double) -> Duration {
        let own = next * (1 - random / 2)
        next = min(next * 2, limit)
        guard let floor else { return own }
        return max(own, min(floor, APIError.longestRetryAfter) + .milliseconds(250) * random)
    }

    package mutating func reset() { next = first }
}
