// Which clients have flooded a connection of HTTP/2 not long ago. Who comes again at once finds the accounts of a new
// connection all but empty (`HTTP2Limits.isWary`): else each connection would bring him the whole of a first one.
internal import Model

/// Belongs to one loop: what a client may on each is bounded, and there are few.
struct FloodMemory {
    /// In milliseconds.
    static let span: UInt64 = 60_000
    static let most = 4_096

    /// By client: until when it is remembered.
    private var until: [IPAddress: UInt64] = [:]

    var count: Int { until.count }

    /// A connection of this client was ended for a flood at `now` (milliseconds).
    mutating func note(_ ip: IPAddress, now: UInt64) {
        if until.count >= Self.most, until[ip.subscriber] == nil {
            until = until.filter { $0.value > now }
            // So many at once are no matter of addresses.
            if until.count >= Self.most { until = [:] }
        }
        until[ip.subscriber] = now &+ Self.span
    }

    func remembers(_ ip: IPAddress, now: UInt64) -> Bool {
        until.isEmpty ? false : (until[ip.subscriber] ?? 0) > now
    }
}
