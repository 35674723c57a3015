// How many retries an upstream may be asked to bear: a share of its requests, and a few each second so that one with
// little traffic is retried at all. Without a budget, retries multiply the load on what is failing already.

struct RetryBudget: Sendable {
    /// In thousandths of a retry.
    private var earned: Int64 = 0
    private var free: Int64
    private var refilled: UInt64

    init(_ settings: UpstreamSettings, now: UInt64) {
        free = Int64(settings.freeRetriesPerSecond) * 1000
        refilled = now
    }

    /// A request (not a retry) was sent.
    @inline(__always)
    mutating func earn(_ settings: UpstreamSettings) {
        earned = min(
            earned &+ Int64(truncatingIfNeeded: settings.retryPercent) &* 10,
            Int64(truncatingIfNeeded: settings.mostSavedRetries) &* 1000)
    }

    /// Takes one retry out of the budget; false when there is none.
    mutating func spend(_ settings: UpstreamSettings, now: UInt64) -> Bool {
        let most = Int64(settings.freeRetriesPerSecond) * 1000
        let elapsed = now > refilled ? now - refilled : 0
        if elapsed >= 1_000_000_000 {
            free = most
            refilled = now
        } else if most > 0 {
            let gain = Int64(elapsed) * most / 1_000_000_000
            free = min(free + gain, most)
            // Only the time that was counted: what is too little for a thousandth waits for the next call.
            refilled += UInt64(gain * 1_000_000_000 / most)
        }
        if earned >= 1000 {
            earned -= 1000
            return true
        }
        if free >= 1000 {
            free -= 1000
            return true
        }
        return false
    }
}
