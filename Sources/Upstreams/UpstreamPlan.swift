// The upstreams of one snapshot, prepared off the loops: names resolved, double addresses dropped, and compared with
// the plan before, so that a loop which takes it over only touches what has changed.
package import Model

package final class UpstreamPlan: Sendable {
    package let generation: UInt64
    package let upstreams: [PlannedUpstream]

    /// The plan that the differences below speak of; 0 is none.
    let previousGeneration: UInt64
    /// For each upstream its index in the previous plan; -1 is new.
    let previousIndex: [Int32]
    /// Bit by bit equal to the previous plan's.
    let isUnchanged: [Bool]
    /// Indices of the previous plan whose upstreams are gone.
    let removed: [Int32]
    let indexByName: [String: Int32]

    package struct PlannedUpstream: Sendable, Equatable {
        package var name: String
        package var balance: Upstream.Balance
        package var addresses: [SocketAddress]
    }

    /// `names` holds the addresses of the endpoints that are given by name (`Endpoint.Host.name`); a name that is not
    /// in it has none. Pass the plan published before as `previous`; without it all is compared on the loop, by name.
    package init(
        _ upstreams: [Upstream], generation: UInt64, names: [String: [IPAddress]] = [:], previous: UpstreamPlan? = nil
    ) {
        self.generation = generation
        previousGeneration = previous?.generation ?? 0
        var planned: [PlannedUpstream] = []
        planned.reserveCapacity(upstreams.count)
        var byName: [String: Int32] = [:]
        byName.reserveCapacity(upstreams.count)
        for upstream in upstreams {
            // The first of one name is the one that is found; a second would share its state, which cannot be told
            // apart by name.
            if byName[upstream.name] == nil { byName[upstream.name] = Int32(truncatingIfNeeded: planned.count) }
            planned.append(
                PlannedUpstream(
                    name: upstream.name, balance: upstream.balance, addresses: Self.addresses(of: upstream, names)))
        }
        var previousIndex = [Int32](repeating: -1, count: planned.count)
        var isUnchanged = [Bool](repeating: false, count: planned.count)
        var isKept = [Bool](repeating: false, count: previous?.upstreams.count ?? 0)
        if let previous {
            for (i, upstream) in planned.enumerated() where byName[upstream.name] == Int32(truncatingIfNeeded: i) {
                // Mostly the same names in the same order: the dictionary is asked only where that does not hold.
                let old: Int
                if i < previous.upstreams.count, previous.upstreams[i].name == upstream.name,
                    previous.indexByName[upstream.name] == Int32(truncatingIfNeeded: i)
                {
                    old = i
                } else if let index = previous.indexByName[upstream.name] {
                    old = Int(index)
                } else {
                    continue
                }
                previousIndex[i] = Int32(truncatingIfNeeded: old)
                isUnchanged[i] = previous.upstreams[old] == upstream
                isKept[old] = true
            }
        }
        self.upstreams = planned
        self.indexByName = byName
        self.previousIndex = previousIndex
        self.isUnchanged = isUnchanged
        removed = isKept.indices.filter { !isKept[$0] }.map { Int32(truncatingIfNeeded: $0) }
    }

    private static func addresses(of upstream: Upstream, _ names: [String: [IPAddress]]) -> [SocketAddress] {
        var result: [SocketAddress] = []
        result.reserveCapacity(upstream.endpoints.count)
        var seen: Set<SocketAddress> = []
        for endpoint in upstream.endpoints {
            switch endpoint.host {
            case .ip(let ip):
                let address = SocketAddress(ip: ip, port: endpoint.port)
                if seen.insert(address).inserted { result.append(address) }
            case .name(let name):
                for ip in names[name] ?? [] {
                    let address = SocketAddress(ip: ip, port: endpoint.port)
                    if seen.insert(address).inserted { result.append(address) }
                }
            }
        }
        return result
    }
}
