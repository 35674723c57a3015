// How many connections each client has, over all loops: asked when one is accepted and when it is closed, never by a
// request. A lock is cheap there; and a limit that each loop kept for itself would be another one for every client,
// because the kernel spreads a client's connections by chance.
internal import Model
internal import Synchronization

final class ClientConnections: Sendable {
    private let most: Int
    private let shards: [Shard]

    private final class Shard: Sendable {
        let counts = Mutex<[IPAddress: Int]>([:])
    }

    /// - most: connections of one client at one time; at least 1.
    init(most: Int) {
        self.most = most
        shards = (0..<16).map { _ in Shard() }
    }

    private func shard(_ client: IPAddress) -> Shard {
        let hash = (client.high ^ client.low) &* 0x9e37_79b9_7f4a_7c15
        return shards[Int(truncatingIfNeeded: hash &>> 60)]
    }

    /// Counts one more; false if the client has as many as it may.
    func enter(_ ip: IPAddress) -> Bool {
        let client = ip.subscriber
        return shard(client).counts.withLock { counts in
            let count = counts[client, default: 0]
            if count >= most { return false }
            counts[client] = count + 1
            return true
        }
    }

    func leave(_ ip: IPAddress) {
        let client = ip.subscriber
        shard(client).counts.withLock { counts in
            guard let count = counts[client] else { return }
            counts[client] = count > 1 ? count - 1 : nil
        }
    }
}

extension IPAddress {
    /// One IPv6 subscriber has a whole /64 (RFC 6177 §2): its addresses are one client.
    var subscriber: IPAddress { isV4 ? self : IPAddress(high: high, low: 0) }
}
