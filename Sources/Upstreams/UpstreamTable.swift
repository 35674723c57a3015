// Step 5 of the walk of a request: an upstream's endpoint is chosen, and the answer is an action for the proxy: lease
// an idle connection, connect, or shed.
//
// Where a connection carries many requests at a time (HTTP/2), the answer is to join one that has room, or to connect:
// see `UpstreamTable+Shared.swift`.
//
// One table belongs to one loop: it is a value with flat arrays, takes the time as an argument and does no I/O. Counts
// of requests and connections are this loop's own; with requests spread over the loops by the kernel, the loops
// balance alike without talking to each other.
//
// The life of an endpoint, as far as its health goes:
//
//     healthy ── failures in a row ──▶ ejected ── its time is over, a request comes ──▶ probing
//        ▲                                ▲                                               │ │
//        └──────── it connected ──────────┼───────────────────────────────────────────────┘ │
//                                         └── it failed: ejected for twice as long ─────────┘
//
// An ejected endpoint is skipped; a probing one carries one request and is skipped by all others. If there is nobody
// else (all ejected, or those that are not have failed this request), ejected ones are asked all the same: an upstream
// that may be half dead is better than none. Whatever connects is healthy.
package import Model

package struct UpstreamTable: Sendable {
    package let settings: UpstreamSettings
    var upstreams: [UpstreamState] = []
    var endpoints: [EndpointState] = []
    private var freeUpstreams: [UInt32] = []
    private var freeEndpoints: [UInt32] = []
    private var plan: UpstreamPlan?
    private var map = UpstreamMap()
    /// Maps that requests may still hold, oldest first; the last is `map`.
    private var heldGenerations: [UInt64] = []
    /// Upstreams that are in no newer map than those before `generation`.
    private var retired: [(slot: UInt32, generation: UInt64)] = []
    private var dice: Dice
    private var sweepPosition = 0

    package init(settings: UpstreamSettings = UpstreamSettings(), seed: UInt64) {
        self.settings = settings
        dice = Dice(state: seed)
    }

    struct UpstreamState: Sendable {
        var balance: Upstream.Balance = .roundRobin
        var isFree = false
        var isMultiplexed = false
        /// Slots of endpoints that may be chosen.
        var active: [UInt32] = []
        /// Slots of endpoints that are ejected or probing.
        var ejected: [UInt32] = []
        /// When the first of the ejected may be probed.
        var comeback: UInt64 = .max
        var cursor: UInt32 = 0
        var inFlight: Int32 = 0
        /// Endpoints that count it as theirs, the leaving ones included.
        var members: Int32 = 0
        var budget: RetryBudget
    }

    struct EndpointState: Sendable {
        enum Health: Sendable, Equatable {
            case healthy
            case ejected(until: UInt64)
            case probing(since: UInt64)
        }

        var address: SocketAddress
        /// Of the address alone: the same in every loop and every process, for rendezvous hashing.
        var digest: UInt64
        var generation: UInt32
        var upstream: UInt32
        var health: Health = .healthy
        var failures: UInt16 = 0
        /// Ejections since it last was healthy.
        var ejections: UInt16 = 0
        var inFlight: Int32 = 0
        /// Connections that exist or are being made, the idle ones included.
        var connections: Int32 = 0
        /// It has left its upstream: nothing new comes, what runs is finished.
        var isLeaving = false
        var isFree = false
        /// The last parked is taken first; the first is the oldest.
        var idle: [Idle] = []
        /// Connections that carry many requests at a time.
        var shared: [Shared] = []
        /// What the endpoint last said that one of them may carry.
        var mostStreams: Int32 = .max
        /// It has said that it takes no requests, and until then no connection is made to ask again.
        var fullUntil: UInt64 = 0
    }

    struct Idle: Sendable {
        var connection: UInt64
        var since: UInt64
    }

    // MARK: Choosing

    /// Chooses an endpoint of an upstream and says what to do. `.lease` and `.connect` count a request, which exactly
    /// one of `connectFailed`, `park` and `abandon` ends; `.join`, and `.connect` after `opened`, one that `left` ends.
    ///
    /// - tried: the endpoints that this request failed on; they are not chosen again.
    /// - hashKey: `Exchange.hashKey`; requests of one key go to one endpoint while it lives. 0 is none.
    /// - isFresh: no idle connection will do (the last one turned out to be closed).
    /// - isExclusive: nor one that is shared, whatever the upstream speaks.
    package mutating func choose(
        _ upstream: UpstreamID, now: UInt64, tried: TriedEndpoints = TriedEndpoints(), hashKey: UInt64 = 0,
        isFresh: Bool = false, isExclusive: Bool = false
    ) -> UpstreamAction {
        let u = Int(truncatingIfNeeded: upstream.slot)
        guard u < upstreams.count, !upstreams[u].isFree else { return .shed(.noEndpoint) }
        guard let e = pick(u, now: now, tried: tried, hashKey: hashKey) else {
            return .shed(upstreams[u].active.isEmpty && upstreams[u].ejected.isEmpty ? .noEndpoint : .allTried)
        }
        if upstreams[u].isMultiplexed, !isExclusive { return share(u, e, now: now, tried: tried, hashKey: hashKey) }
        upstreams[u].inFlight &+= 1
        if tried.count == 0, !isFresh { upstreams[u].budget.earn(settings) }
        let slot = Int(truncatingIfNeeded: e)
        endpoints[slot].inFlight &+= 1
        let id = EndpointID(slot: e, generation: endpoints[slot].generation)
        if !isFresh, let idle = endpoints[slot].idle.popLast() { return .lease(id, connection: idle.connection) }
        endpoints[slot].connections &+= 1
        return .connect(id)
    }

    /// The endpoint alone, without counting anything: for `explain` and for tests.
    package mutating func pick(
        upstream: UpstreamID, now: UInt64, excluding tried: TriedEndpoints = TriedEndpoints(), hashKey: UInt64 = 0
    ) -> EndpointID? {
        let u = Int(truncatingIfNeeded: upstream.slot)
        guard u < upstreams.count, !upstreams[u].isFree else { return nil }
        guard let e = pick(u, now: now, tried: tried, hashKey: hashKey) else { return nil }
        return EndpointID(slot: e, generation: endpoints[Int(e)].generation)
    }

    mutating func pick(_ u: Int, now: UInt64, tried: TriedEndpoints, hashKey: UInt64) -> UInt32? {
        if upstreams[u].comeback <= now, let probe = takeProbe(u, now: now, tried: tried) { return probe }
        let count = upstreams[u].active.count
        if count == 1, !tried.contains(upstreams[u].active[0]) { return upstreams[u].active[0] }
        if count > 1 {
            let chosen: UInt32?
            if hashKey != 0 {
                chosen = rendezvous(u, tried: tried, hashKey: hashKey)
            } else {
                switch upstreams[u].balance {
                case .roundRobin: chosen = roundRobin(u, tried: tried)
                case .leastRequest: chosen = leastRequest(u, tried: tried)
                }
            }
            if let chosen { return chosen }
        }
        return panic(u, tried: tried)
    }

    private mutating func roundRobin(_ u: Int, tried: TriedEndpoints) -> UInt32? {
        let count = UInt32(truncatingIfNeeded: upstreams[u].active.count)
        var position = upstreams[u].cursor
        for _ in 0..<count {
            if position >= count { position = 0 }
            let endpoint = upstreams[u].active[Int(position)]
            position &+= 1
            if !tried.contains(endpoint) {
                upstreams[u].cursor = position
                return endpoint
            }
        }
        return nil
    }

    /// Two at random, and of these the one with fewer requests under way ("the power of two choices").
    private mutating func leastRequest(_ u: Int, tried: TriedEndpoints) -> UInt32? {
        let count = upstreams[u].active.count
        let first = dice.below(count)
        var second = dice.below(count - 1)
        if second >= first { second += 1 }
        let a = upstreams[u].active[first]
        let b = upstreams[u].active[second]
        if tried.count > 0 {
            switch (tried.contains(a), tried.contains(b)) {
            case (true, true): return firstUntried(upstreams[u].active, from: first, tried)
            case (true, false): return b
            case (false, true): return a
            case (false, false): break
            }
        }
        return endpoints[Int(b)].inFlight < endpoints[Int(a)].inFlight ? b : a
    }

    /// The endpoint with the highest score for this key: when one leaves, only its keys move (rendezvous hashing).
    private func rendezvous(_ u: Int, tried: TriedEndpoints, hashKey: UInt64) -> UInt32? {
        var best: (score: UInt64, slot: UInt32)?
        for slot in upstreams[u].active where !tried.contains(slot) {
            let score = Dice.mix(endpoints[Int(slot)].digest ^ hashKey)
            if best.map({ $0.score < score }) ?? true { best = (score, slot) }
        }
        return best?.slot
    }

    private mutating func panic(_ u: Int, tried: TriedEndpoints) -> UInt32? {
        let count = upstreams[u].ejected.count
        if count == 0 { return nil }
        return firstUntried(upstreams[u].ejected, from: dice.below(count), tried)
    }

    private func firstUntried(_ slots: [UInt32], from start: Int, _ tried: TriedEndpoints) -> UInt32? {
        for i in 0..<slots.count {
            let position = start + i
            let slot = slots[position < slots.count ? position : position - slots.count]
            if !tried.contains(slot) { return slot }
        }
        return nil
    }

    /// An ejected endpoint whose time is over: this request finds out whether it is back.
    private mutating func takeProbe(_ u: Int, now: UInt64, tried: TriedEndpoints) -> UInt32? {
        var probe: UInt32?
        for slot in upstreams[u].ejected where probe == nil && !tried.contains(slot) {
            switch endpoints[Int(slot)].health {
            case .ejected(let until): if until <= now { probe = slot }
            case .probing(let since): if now &- since >= settings.probeTimeout, now > since { probe = slot }
            case .healthy: break
            }
        }
        if let probe { endpoints[Int(probe)].health = .probing(since: now) }
        refreshComeback(u)
        return probe
    }

    private mutating func refreshComeback(_ u: Int) {
        var comeback = UInt64.max
        for slot in upstreams[u].ejected {
            switch endpoints[Int(slot)].health {
            case .ejected(let until): comeback = min(comeback, until)
            case .probing(let since): comeback = min(comeback, since &+ settings.probeTimeout)
            case .healthy: break
            }
        }
        upstreams[u].comeback = comeback
    }

    /// Whether a failed request may be tried once more; takes it out of the upstream's budget.
    package mutating func mayRetry(_ upstream: UpstreamID, now: UInt64) -> Bool {
        let u = Int(truncatingIfNeeded: upstream.slot)
        guard u < upstreams.count, !upstreams[u].isFree else { return false }
        return upstreams[u].budget.spend(settings, now: now)
    }

    // MARK: Looking

    /// Where to connect to; nil for a stale identifier.
    package func address(of endpoint: EndpointID) -> SocketAddress? {
        index(endpoint).map { endpoints[$0].address }
    }

    /// Its upstream does not have it any more: nothing new is to be sent there.
    package func isLeaving(_ endpoint: EndpointID) -> Bool { index(endpoint).map { endpoints[$0].isLeaving } ?? true }

    /// Whether a connection of that upstream carries many requests at a time.
    @inline(__always)
    package func isMultiplexed(_ upstream: UpstreamID) -> Bool {
        let u = Int(truncatingIfNeeded: upstream.slot)
        return u < upstreams.count && upstreams[u].isMultiplexed
    }

    package func requestsUnderWay(_ upstream: UpstreamID) -> Int {
        let u = Int(truncatingIfNeeded: upstream.slot)
        return u < upstreams.count ? Int(upstreams[u].inFlight) : 0
    }

    /// How many endpoints an upstream has, and how many of them are ejected or probing.
    package func endpointCount(_ upstream: UpstreamID) -> (all: Int, ejected: Int) {
        let u = Int(truncatingIfNeeded: upstream.slot)
        guard u < upstreams.count, !upstreams[u].isFree else { return (0, 0) }
        return (upstreams[u].active.count + upstreams[u].ejected.count, upstreams[u].ejected.count)
    }

    @inline(__always)
    func index(_ endpoint: EndpointID) -> Int? {
        let e = Int(truncatingIfNeeded: endpoint.slot)
        guard e < endpoints.count, endpoints[e].generation == endpoint.generation, !endpoints[e].isFree else {
            return nil
        }
        return e
    }

    // MARK: What became of it

    /// The new connection stands, or the endpoint has answered: it is healthy. True when it was not before.
    @discardableResult
    package mutating func connected(_ endpoint: EndpointID) -> Bool {
        guard let e = index(endpoint) else { return false }
        endpoints[e].failures = 0
        if endpoints[e].health == .healthy { return false }
        endpoints[e].health = .healthy
        endpoints[e].ejections = 0
        if !endpoints[e].isLeaving {
            let u = Int(endpoints[e].upstream)
            upstreams[u].ejected.removeAll { $0 == endpoint.slot }
            upstreams[u].active.append(endpoint.slot)
            refreshComeback(u)
        }
        return true
    }

    /// The new connection did not come about: ends the request's hold of the endpoint. True when it is ejected by this.
    @discardableResult
    package mutating func connectFailed(_ endpoint: EndpointID, now: UInt64) -> Bool {
        guard let e = index(endpoint) else { return false }
        upstreams[Int(endpoints[e].upstream)].inFlight &-= 1
        endpoints[e].inFlight &-= 1
        endpoints[e].connections &-= 1
        defer { freeIfDone(e) }
        return noteFailure(e, endpoint, now: now)
    }

    mutating func noteFailure(_ e: Int, _ endpoint: EndpointID, now: UInt64) -> Bool {
        let u = Int(endpoints[e].upstream)
        if endpoints[e].isLeaving { return false }
        if endpoints[e].failures < .max { endpoints[e].failures += 1 }
        switch endpoints[e].health {
        case .healthy:
            let all = upstreams[u].active.count + upstreams[u].ejected.count
            guard Int(endpoints[e].failures) >= settings.failuresToEject,
                (upstreams[u].ejected.count + 1) * 100 <= all * settings.mostEjectedPercent
            else { return false }
            upstreams[u].active.removeAll { $0 == endpoint.slot }
            upstreams[u].ejected.append(endpoint.slot)
        case .probing:
            break
        case .ejected:
            // Asked in panic, or by a connection that was under way when it was ejected: its time stands.
            return false
        }
        endpoints[e].health = .ejected(until: now &+ ejectionTime(endpoints[e].ejections))
        if endpoints[e].ejections < .max { endpoints[e].ejections += 1 }
        refreshComeback(u)
        return true
    }

    /// Doubles with each ejection, and spreads by a quarter to either side, so that the loops do not probe together.
    private mutating func ejectionTime(_ earlier: UInt16) -> UInt64 {
        var time = settings.firstEjection
        var n = earlier
        while n > 0, time < settings.longestEjection {
            time = time &* 2
            n -= 1
        }
        time = min(time, settings.longestEjection)
        let spread = time / 2
        return time - spread / 2 + (spread > 0 ? dice.next() % spread : 0)
    }

    /// The request is over and its connection could serve another. True: it is kept as idle. False: close it.
    /// `served` is how many requests the connection has carried.
    package mutating func park(_ endpoint: EndpointID, connection: UInt64, served: Int, now: UInt64) -> Bool {
        guard let e = index(endpoint) else { return false }
        endRequest(e)
        let isWornOut = settings.mostRequestsPerConnection > 0 && served >= settings.mostRequestsPerConnection
        if endpoints[e].isLeaving || isWornOut || endpoints[e].idle.count >= settings.mostIdle {
            endpoints[e].connections &-= 1
            freeIfDone(e)
            return false
        }
        endpoints[e].idle.append(Idle(connection: connection, since: now))
        return true
    }

    /// The request is over and its connection is, or will be, closed.
    package mutating func abandon(_ endpoint: EndpointID) {
        guard let e = index(endpoint) else { return }
        endRequest(e)
        endpoints[e].connections &-= 1
        freeIfDone(e)
    }

    mutating func endRequest(_ e: Int) {
        endpoints[e].inFlight &-= 1
        upstreams[Int(endpoints[e].upstream)].inFlight &-= 1
        // A probe that ended without a verdict: the next request may find out.
        if case .probing = endpoints[e].health {
            endpoints[e].health = .ejected(until: 0)
            upstreams[Int(endpoints[e].upstream)].comeback = 0
        }
    }

    /// A parked connection was closed from the other side.
    package mutating func idleClosed(_ endpoint: EndpointID, connection: UInt64) {
        guard let e = index(endpoint) else { return }
        guard let position = endpoints[e].idle.lastIndex(where: { $0.connection == connection }) else { return }
        endpoints[e].idle.remove(at: position)
        endpoints[e].connections &-= 1
        freeIfDone(e)
    }

    /// Appends the connections that have been idle too long, of up to `limit` endpoints, going on at the next call
    /// where this one stopped. They count as closed.
    package mutating func sweep(now: UInt64, limit: Int = 1024, closing: inout [UInt64]) {
        let count = min(limit, endpoints.count)
        for _ in 0..<count {
            if sweepPosition >= endpoints.count { sweepPosition = 0 }
            let e = sweepPosition
            sweepPosition += 1
            if !endpoints[e].shared.isEmpty {
                let timeout = settings.idleTimeout
                closeShared(e, &closing) { now > $0.since && now - $0.since >= timeout }
                freeIfDone(e)
            }
            guard let oldest = endpoints[e].idle.first, now > oldest.since else { continue }
            let old = endpoints[e].idle.prefix { now > $0.since && now - $0.since >= settings.idleTimeout }.count
            if old == 0 { continue }
            for idle in endpoints[e].idle.prefix(old) { closing.append(idle.connection) }
            endpoints[e].idle.removeFirst(old)
            endpoints[e].connections &-= Int32(truncatingIfNeeded: old)
            freeIfDone(e)
        }
    }

    /// Appends all idle connections: descriptors are wanted for something better. They count as closed.
    package mutating func releaseIdle(closing: inout [UInt64]) {
        for e in endpoints.indices where !endpoints[e].idle.isEmpty || !endpoints[e].shared.isEmpty {
            closeShared(e, &closing) { _ in true }
            for idle in endpoints[e].idle { closing.append(idle.connection) }
            endpoints[e].connections &-= Int32(truncatingIfNeeded: endpoints[e].idle.count)
            endpoints[e].idle.removeAll()
            freeIfDone(e)
        }
    }

    // MARK: A new snapshot

    /// Takes over a plan. Upstreams and endpoints that were there before (same name, same address) keep their health,
    /// their counts and their connections; endpoints that are gone finish what they carry, and their idle connections
    /// are appended to `closing`. An upstream that is gone stays for the requests that are pinned to an older map, as
    /// it last was, until `release`.
    package mutating func apply(_ next: UpstreamPlan, now: UInt64, closing: inout [UInt64]) -> UpstreamMap {
        if let plan, plan.generation == next.generation { return map }
        var slots: [UInt32] = []
        slots.reserveCapacity(next.upstreams.count)
        var gone: [UInt32] = []
        if let plan, plan.generation == next.previousGeneration {
            for i in next.upstreams.indices {
                let old = Int(next.previousIndex[i])
                if old >= 0 {
                    let slot = map.slots[old]
                    if !next.isUnchanged[i] { update(slot, next.upstreams[i], closing: &closing) }
                    slots.append(slot)
                } else {
                    slots.append(add(next.upstreams[i], now: now))
                }
            }
            gone = next.removed.map { map.slots[Int($0)] }
        } else {
            // A plan was skipped: compare by name.
            var isKept = [Bool](repeating: false, count: map.slots.count)
            for (i, upstream) in next.upstreams.enumerated() {
                if next.indexByName[upstream.name] == Int32(truncatingIfNeeded: i),
                    let old = plan?.indexByName[upstream.name], !isKept[Int(old)]
                {
                    isKept[Int(old)] = true
                    let slot = map.slots[Int(old)]
                    if plan?.upstreams[Int(old)] != upstream { update(slot, upstream, closing: &closing) }
                    slots.append(slot)
                } else {
                    slots.append(add(upstream, now: now))
                }
            }
            gone = isKept.indices.filter { !isKept[$0] }.map { map.slots[$0] }
        }
        for slot in gone { retired.append((slot, next.generation)) }
        plan = next
        map = UpstreamMap(generation: next.generation, slots: slots)
        heldGenerations.append(next.generation)
        return map
    }

    /// No request is pinned to that map any more. Not for the newest one, which stays in force.
    package mutating func release(_ released: UpstreamMap, closing: inout [UInt64]) {
        guard released.generation != map.generation else { return }
        heldGenerations.removeAll { $0 == released.generation }
        let oldest = heldGenerations.first ?? .max
        while let first = retired.first, first.generation <= oldest {
            retired.removeFirst()
            let u = Int(first.slot)
            let members = upstreams[u].active + upstreams[u].ejected
            upstreams[u].active = []
            upstreams[u].ejected = []
            for e in members { leave(Int(e), closing: &closing) }
            // With endpoints that still carry something, `freeIfDone` frees the slot with the last of them.
            if !upstreams[u].isFree {
                upstreams[u].isFree = true
                if upstreams[u].members == 0 { freeUpstreams.append(first.slot) }
            }
        }
    }

    private mutating func add(_ planned: UpstreamPlan.PlannedUpstream, now: UInt64) -> UInt32 {
        let state = UpstreamState(
            balance: planned.balance, isMultiplexed: planned.isMultiplexed,
            cursor: UInt32(truncatingIfNeeded: dice.below(max(planned.addresses.count, 1))),
            budget: RetryBudget(settings, now: now))
        let slot: UInt32
        if let free = freeUpstreams.popLast() {
            slot = free
            upstreams[Int(free)] = state
        } else {
            slot = UInt32(truncatingIfNeeded: upstreams.count)
            upstreams.append(state)
        }
        for address in planned.addresses { upstreams[Int(slot)].active.append(addEndpoint(address, of: slot)) }
        return slot
    }

    private mutating func addEndpoint(_ address: SocketAddress, of upstream: UInt32) -> UInt32 {
        upstreams[Int(upstream)].members += 1
        let digest = Dice.mix(Dice.mix(address.ip.high ^ 0x51ed) ^ address.ip.low ^ UInt64(address.port) << 48)
        if let free = freeEndpoints.popLast() {
            let generation = endpoints[Int(free)].generation &+ 1
            endpoints[Int(free)] = EndpointState(
                address: address, digest: digest, generation: generation, upstream: upstream)
            return free
        }
        endpoints.append(EndpointState(address: address, digest: digest, generation: 0, upstream: upstream))
        return UInt32(truncatingIfNeeded: endpoints.count - 1)
    }

    private mutating func update(
        _ slot: UInt32, _ planned: UpstreamPlan.PlannedUpstream, closing: inout [UInt64]
    ) {
        let u = Int(slot)
        upstreams[u].balance = planned.balance
        upstreams[u].isMultiplexed = planned.isMultiplexed
        var known: [SocketAddress: UInt32] = [:]
        for e in upstreams[u].active + upstreams[u].ejected { known[endpoints[Int(e)].address] = e }
        var active: [UInt32] = []
        var ejected: [UInt32] = []
        for address in planned.addresses {
            guard let e = known.removeValue(forKey: address) else {
                active.append(addEndpoint(address, of: slot))
                continue
            }
            if endpoints[Int(e)].health == .healthy { active.append(e) } else { ejected.append(e) }
        }
        upstreams[u].active = active
        upstreams[u].ejected = ejected
        for e in known.values { leave(Int(e), closing: &closing) }
        refreshComeback(u)
    }

    private mutating func leave(_ e: Int, closing: inout [UInt64]) {
        endpoints[e].isLeaving = true
        endpoints[e].connections &-= Int32(truncatingIfNeeded: endpoints[e].idle.count)
        for idle in endpoints[e].idle { closing.append(idle.connection) }
        endpoints[e].idle = []
        closeShared(e, &closing) { _ in true }
        freeIfDone(e)
    }

    mutating func freeIfDone(_ e: Int) {
        guard endpoints[e].isLeaving, !endpoints[e].isFree, endpoints[e].inFlight <= 0, endpoints[e].connections <= 0
        else { return }
        endpoints[e].isFree = true
        freeEndpoints.append(UInt32(truncatingIfNeeded: e))
        let u = endpoints[e].upstream
        upstreams[Int(u)].members -= 1
        if upstreams[Int(u)].isFree, upstreams[Int(u)].members == 0 { freeUpstreams.append(u) }
    }
}

/// SplitMix64: small, seeded, and good enough to choose among endpoints.
struct Dice: RandomNumberGenerator, Sendable {
    var state: UInt64

    @inline(__always)
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        return Self.mix(state)
    }

    @inline(__always)
    static func mix(_ value: UInt64) -> UInt64 {
        var z = value
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    /// 0..<count, by multiplication; count is at least 1.
    @inline(__always)
    mutating func below(_ count: Int) -> Int {
        Int(truncatingIfNeeded: next().multipliedFullWidth(by: UInt64(truncatingIfNeeded: count)).high)
    }
}
