// Connections that carry many requests at a time. A request joins one that has room: the first that was opened and is
// not full, so that as few stay open as are needed. Where all are full another is opened, up to a bound; where that is
// reached, another endpoint is asked, and then the request is shed: it would wait behind as many as 64 × 128 others.
//
// What a connection may carry is the endpoint's word (SETTINGS_MAX_CONCURRENT_STREAMS), and at most ours. One that
// takes no more (GOAWAY) carries what is on it to the end. An endpoint that takes none for now is passed over as long as
// one of its connections says so; where nobody else has room, a few requests wait for it to take some again.
internal import Model

extension UpstreamTable {
    struct Shared: Sendable {
        var connection: UInt64
        /// Requests that are on it.
        var streams: Int32
        /// How many there may be; 0 when it takes no more.
        var most: Int32
        /// Since when there has been none.
        var since: UInt64
        /// The endpoint takes none on it for now.
        var isFull = false
        /// Those of `streams` that the endpoint had taken before: the others wait.
        var running: Int32 = 0
    }

    /// Requests that wait on a connection of an endpoint that takes none for now.
    private static let mostWaiting: Int32 = 16
    /// How long an endpoint that takes none is thought to take none on another connection either.
    private static let fullFor: UInt64 = 1_000_000_000

    mutating func share(
        _ u: Int, _ first: UInt32, now: UInt64, tried: TriedEndpoints, hashKey: UInt64
    ) -> UpstreamAction {
        var e = first
        var full = tried
        var waiting: (slot: Int, position: Int)?
        // As many as can be remembered.
        for _ in 0..<8 {
            let slot = Int(truncatingIfNeeded: e)
            let id = EndpointID(slot: e, generation: endpoints[slot].generation)
            if let free = endpoints[slot].shared.firstIndex(where: { $0.streams < $0.most && !$0.isFull }) {
                return joined(u, slot, free, tried: tried)
            }
            if let full = endpoints[slot].shared.firstIndex(where: { $0.isFull && $0.most > 0 }) {
                if waiting == nil, isWaitable(slot, full) { waiting = (slot, full) }
            } else if endpoints[slot].fullUntil <= now,
                // Those that take no more may carry long calls to their end: they keep nobody from another.
                endpoints[slot].shared.count(where: { $0.most > 0 }) < settings.mostShared
            {
                countRequest(u, slot, tried: tried)
                endpoints[slot].connections &+= 1
                return .connect(id)
            }
            // A probe that cannot be made is left to the next request.
            if case .probing = endpoints[slot].health {
                endpoints[slot].health = .ejected(until: now)
                upstreams[u].comeback = now
            }
            full.insert(id)
            guard let next = pick(u, now: now, tried: full, hashKey: hashKey) else { break }
            e = next
        }
        if let waiting { return joined(u, waiting.slot, waiting.position, tried: tried) }
        return .shed(.full)
    }

    /// Few wait on the connection.
    private func isWaitable(_ slot: Int, _ position: Int) -> Bool {
        let shared = endpoints[slot].shared[position]
        return shared.streams - shared.running < Self.mostWaiting
    }

    private mutating func countRequest(_ u: Int, _ slot: Int, tried: TriedEndpoints) {
        upstreams[u].inFlight &+= 1
        if tried.count == 0 { upstreams[u].budget.earn(settings) }
        endpoints[slot].inFlight &+= 1
    }

    private mutating func joined(_ u: Int, _ slot: Int, _ position: Int, tried: TriedEndpoints) -> UpstreamAction {
        countRequest(u, slot, tried: tried)
        endpoints[slot].shared[position].streams += 1
        let id = EndpointID(slot: UInt32(truncatingIfNeeded: slot), generation: endpoints[slot].generation)
        return .join(id, connection: endpoints[slot].shared[position].connection)
    }

    /// The connection of a `.connect` is being made, and will carry many requests; that of the `.connect` is the first.
    package mutating func opened(_ endpoint: EndpointID, connection: UInt64, now: UInt64) {
        guard let e = index(endpoint) else { return }
        let most = min(endpoints[e].mostStreams, Int32(clamping: settings.mostStreams))
        endpoints[e].shared.append(Shared(connection: connection, streams: 1, most: most, since: now))
    }

    /// How many requests the connection may carry at a time, by the endpoint's word; more that are on it stay.
    ///
    /// - Parameter running: those on it that the endpoint has taken; needed where it takes no more.
    package mutating func limit(
        _ endpoint: EndpointID, connection: UInt64, streams: Int, running: Int = 0, now: UInt64
    ) {
        guard let e = index(endpoint), let i = position(e, connection), endpoints[e].shared[i].most > 0 else { return }
        endpoints[e].shared[i].isFull = streams <= 0
        endpoints[e].shared[i].running = streams <= 0 ? Int32(clamping: running) : 0
        endpoints[e].fullUntil = streams <= 0 ? now &+ Self.fullFor : 0
        guard streams > 0 else { return }
        let most = Int32(clamping: min(streams, settings.mostStreams))
        endpoints[e].shared[i].most = most
        endpoints[e].mostStreams = most
    }

    /// The connection takes no more requests; what is on it is finished.
    package mutating func retire(_ endpoint: EndpointID, connection: UInt64) {
        guard let e = index(endpoint), let i = position(e, connection) else { return }
        endpoints[e].shared[i].most = 0
    }

    /// A request of a shared connection is over. False: the connection should be closed when nothing is on it.
    ///
    /// - Parameter waited: the endpoint had not taken it.
    package mutating func left(
        _ endpoint: EndpointID, connection: UInt64, waited: Bool = false, now: UInt64
    ) -> Bool {
        guard let e = index(endpoint) else { return false }
        endRequest(e)
        defer { freeIfDone(e) }
        guard let i = position(e, connection) else { return false }
        endpoints[e].shared[i].streams -= 1
        if !waited, endpoints[e].shared[i].running > 0 { endpoints[e].shared[i].running -= 1 }
        endpoints[e].shared[i].since = now
        return !endpoints[e].isLeaving && endpoints[e].shared[i].most > 0
    }

    /// A shared connection is closed; the requests that were on it are ended by `left`.
    package mutating func sharedClosed(_ endpoint: EndpointID, connection: UInt64) {
        guard let e = index(endpoint), let i = position(e, connection) else { return }
        endpoints[e].shared.remove(at: i)
        endpoints[e].connections &-= 1
        freeIfDone(e)
    }

    /// A shared connection did not come about; the requests that wait for it are ended by `left`. True when the endpoint
    /// is ejected by this.
    package mutating func sharedFailed(_ endpoint: EndpointID, connection: UInt64, now: UInt64) -> Bool {
        guard let e = index(endpoint), let i = position(e, connection) else { return false }
        endpoints[e].shared.remove(at: i)
        endpoints[e].connections &-= 1
        defer { freeIfDone(e) }
        return noteFailure(e, endpoint, now: now)
    }

    /// How many connections to an endpoint are shared, and how many requests are on them.
    package func sharedConnections(_ endpoint: EndpointID) -> (connections: Int, streams: Int) {
        guard let e = index(endpoint) else { return (0, 0) }
        return (endpoints[e].shared.count, endpoints[e].shared.reduce(0) { $0 + Int($1.streams) })
    }

    private func position(_ e: Int, _ connection: UInt64) -> Int? {
        endpoints[e].shared.firstIndex { $0.connection == connection }
    }

    /// Appends those that carry nothing, and of which `isDue` says so. They count as closed.
    mutating func closeShared(_ e: Int, _ closing: inout [UInt64], where isDue: (Shared) -> Bool) {
        var i = 0
        while i < endpoints[e].shared.count {
            guard endpoints[e].shared[i].streams == 0, isDue(endpoints[e].shared[i]) else {
                i += 1
                continue
            }
            closing.append(endpoints[e].shared[i].connection)
            endpoints[e].shared.remove(at: i)
            endpoints[e].connections &-= 1
        }
    }
}
