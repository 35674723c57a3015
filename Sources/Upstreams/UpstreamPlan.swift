// The upstreams of one snapshot, prepared off the loops: names resolved, double addresses dropped, and compared with
// the plan before, so that a loop which takes it over only touches what has changed.
package import Model

package final class UpstreamPlan: Sendable {
    package let generation: UInt64
    package let upstreams: [PlannedUpstream]

    /// What the plan was made of.
    private let source: [Upstream]
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
        /// A connection carries many requests at a time.
        package var isMultiplexed = false
        /// Some addresses come from names, and may change though the upstream does not.
        var hasNames: Bool
        /// It is the first, or only, of its name.
        var isFirst: Bool
    }

    /// `names` holds the addresses of the endpoints that are given by name (`Endpoint.Host.name`); a name that is not
    /// in it has none. Pass the plan published before as `previous`; without it all is compared on the loop, by name.
    package init(
        _ upstreams: [Upstream], generation: UInt64, names: [String: [IPAddress]] = [:], previous: UpstreamPlan? = nil
    ) {
        self.generation = generation
        previousGeneration = previous?.generation ?? 0
        source = upstreams
        // Mostly the names are those of the plan before, in the same order: then its dictionary serves this one too.
        let isSameNames = previous.map { Self.haveSameNames($0.source, upstreams) } ?? false
        var byName: [String: Int32] = isSameNames ? previous?.indexByName ?? [:] : [:]
        if !isSameNames {
            byName.reserveCapacity(upstreams.count)
            // The first of one name is the one that is found; a second would share its state, which cannot be told
            // apart by name.
            for (i, upstream) in upstreams.enumerated() where byName[upstream.name] == nil {
                byName[upstream.name] = Int32(truncatingIfNeeded: i)
            }
        }
        var planned: [PlannedUpstream] = []
        planned.reserveCapacity(upstreams.count)
        var previousIndex = [Int32](repeating: -1, count: upstreams.count)
        var isUnchanged = [Bool](repeating: false, count: upstreams.count)
        var isKept = [Bool](repeating: false, count: previous?.upstreams.count ?? 0)
        // By index: an upstream taken out of its array is copied, and nearly all are only looked at.
        for i in upstreams.indices {
            let number = Int32(truncatingIfNeeded: i)
            let old: Int32?
            if isSameNames {
                old = previous?.upstreams[i].isFirst == true ? number : nil
            } else {
                old = byName[upstreams[i].name] == number ? previous?.indexByName[upstreams[i].name] : nil
            }
            if let old, let previous {
                previousIndex[i] = old
                isKept[Int(old)] = true
                let (before, o) = (previous.source, Int(old))
                // All that the entry is made of.
                if !previous.upstreams[o].hasNames, before[o].endpoints == upstreams[i].endpoints,
                    before[o].balance == upstreams[i].balance, before[o].protocol == upstreams[i].protocol
                {
                    isUnchanged[i] = true
                    planned.append(previous.upstreams[o])
                    continue
                }
            }
            let upstream = upstreams[i]
            let isFirst = isSameNames ? previous?.upstreams[i].isFirst == true : byName[upstream.name] == number
            let (addresses, hasNames) = Self.addresses(of: upstream, names)
            let entry = PlannedUpstream(
                name: upstream.name, balance: upstream.balance, addresses: addresses,
                isMultiplexed: upstream.protocol.isHTTP2, hasNames: hasNames, isFirst: isFirst)
            if let old, let previous { isUnchanged[i] = previous.upstreams[Int(old)] == entry }
            planned.append(entry)
        }
        self.upstreams = planned
        self.indexByName = byName
        self.previousIndex = previousIndex
        self.isUnchanged = isUnchanged
        removed = isKept.indices.filter { !isKept[$0] }.map { Int32(truncatingIfNeeded: $0) }
    }

    /// By index: an upstream that is taken out of its array is copied, and that is dear with thousands of them.
    private static func haveSameNames(_ left: [Upstream], _ right: [Upstream]) -> Bool {
        guard left.count == right.count else { return false }
        for i in left.indices where left[i].name != right[i].name { return false }
        return true
    }

    /// The place of an upstream by its name.
    package func index(of name: String) -> Int32? { indexByName[name] }

    /// The addresses, each once, and whether some of them come from names.
    private static func addresses(
        of upstream: Upstream, _ names: [String: [IPAddress]]
    ) -> (addresses: [SocketAddress], hasNames: Bool) {
        var result: [SocketAddress] = []
        result.reserveCapacity(upstream.endpoints.count)
        var seen: Set<SocketAddress> = []
        var hasNames = false
        func add(_ ip: IPAddress, _ port: UInt16) {
            let address = SocketAddress(ip: ip, port: port)
            // A few are compared sooner than hashed.
            if result.count < 16 {
                if !result.contains(address) { result.append(address) }
                return
            }
            if seen.isEmpty { seen = Set(result) }
            if seen.insert(address).inserted { result.append(address) }
        }
        for endpoint in upstream.endpoints {
            switch endpoint.host {
            case .ip(let ip):
                add(ip, endpoint.port)
            case .name(let name):
                hasNames = true
                for ip in names[name] ?? [] { add(ip, endpoint.port) }
            }
        }
        return (result, hasNames)
    }
}
