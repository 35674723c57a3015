import Model
import Testing

@testable import Upstreams

private let second: UInt64 = 1_000_000_000

func address(_ n: Int) -> SocketAddress {
    SocketAddress(ip: IPAddress(v4: 0x0a00_0000 + UInt32(n)), port: 8080)
}

func upstream(_ name: String, _ endpoints: [Int], _ balance: Upstream.Balance = .roundRobin) -> Upstream {
    Upstream(
        namespace: "shop", service: name, port: "80", endpoints: endpoints.map { Endpoint(address($0)) },
        balance: balance)
}

/// One loop's table with a plan in it, and the names of its endpoints by their addresses.
final class Bench {
    var table: UpstreamTable
    var plan: UpstreamPlan
    var map: UpstreamMap
    var closing: [UInt64] = []

    init(_ upstreams: [Upstream], settings: UpstreamSettings = UpstreamSettings(), seed: UInt64 = 1) {
        table = UpstreamTable(settings: settings, seed: seed)
        plan = UpstreamPlan(upstreams, generation: 1)
        map = table.apply(plan, now: 0, closing: &closing)
    }

    func apply(_ upstreams: [Upstream], names: [String: [IPAddress]] = [:], skips: Bool = false) {
        plan = UpstreamPlan(
            upstreams, generation: plan.generation + (skips ? 2 : 1), names: names, previous: skips ? nil : plan)
        map = table.apply(plan, now: 0, closing: &closing)
    }

    func connect(
        _ index: Int = 0, now: UInt64 = 0, tried: TriedEndpoints = TriedEndpoints(), isFresh: Bool = false
    ) throws -> EndpointID {
        let action = table.choose(map[index], now: now, tried: tried, isFresh: isFresh)
        guard case .connect(let id) = action else { throw Surprise(action: action) }
        return id
    }

    /// Connects, answers and parks; answers with the number of the endpoint.
    func serve(_ index: Int = 0, now: UInt64 = 0, connection: UInt64 = 1) throws -> Int {
        let id: EndpointID
        switch table.choose(map[index], now: now) {
        case .connect(let endpoint), .lease(let endpoint, connection: _): id = endpoint
        case let other: throw Surprise(action: other)
        }
        let number = number(id)
        table.connected(id)
        table.abandon(id)
        return number
    }

    func number(_ id: EndpointID) -> Int { Int((table.address(of: id)?.ip.v4 ?? 0) & 0xffff) }

    /// All endpoints, and those of them that are ejected.
    func endpoints(_ index: Int) -> [Int] {
        let count = table.endpointCount(map[index])
        return [count.all, count.ejected]
    }

    // What answers and changes at once, said again here because `#expect` takes its operands as constants.

    @discardableResult
    func park(_ id: EndpointID, connection: UInt64, served: Int, now: UInt64) -> Bool {
        table.park(id, connection: connection, served: served, now: now)
    }
    @discardableResult
    func connected(_ id: EndpointID) -> Bool { table.connected(id) }
    @discardableResult
    func connectFailed(_ id: EndpointID, now: UInt64) -> Bool { table.connectFailed(id, now: now) }
    func abandon(_ id: EndpointID) { table.abandon(id) }
    func mayRetry(_ id: UpstreamID, now: UInt64) -> Bool { table.mayRetry(id, now: now) }
    func pick(upstream: UpstreamID, now: UInt64, hashKey: UInt64) -> EndpointID? {
        table.pick(upstream: upstream, now: now, hashKey: hashKey)
    }
    func choose(
        _ id: UpstreamID, now: UInt64, tried: TriedEndpoints = TriedEndpoints(), isFresh: Bool = false
    ) -> UpstreamAction {
        table.choose(id, now: now, tried: tried, isFresh: isFresh)
    }

    struct Surprise: Error { var action: UpstreamAction }
}

@Suite("Choosing an endpoint") struct ChoiceTests {
    @Test(arguments: [1, 2, 3, 7]) func roundRobinIsExactlyFair(count: Int) throws {
        let bench = Bench([upstream("a", Array(1...count))])
        var served: [Int: Int] = [:]
        for _ in 0..<(count * 200) { served[try bench.serve(), default: 0] += 1 }
        #expect(served == Dictionary(uniqueKeysWithValues: (1...count).map { ($0, 200) }))
    }

    @Test func roundRobinStaysFairAroundAnEjectedEndpoint() throws {
        let bench = Bench([upstream("a", [1, 2, 3, 4])])
        try eject(2, in: bench)
        var served: [Int: Int] = [:]
        for _ in 0..<300 { served[try bench.serve(now: 1), default: 0] += 1 }
        #expect(served == [1: 100, 3: 100, 4: 100])
    }

    @Test func leastRequestPrefersTheLessBusyAndIsFairWhenAllAreIdle() throws {
        let bench = Bench([upstream("a", Array(1...10), .leastRequest)])
        var served: [Int: Int] = [:]
        for _ in 0..<10_000 { served[try bench.serve(), default: 0] += 1 }
        #expect(served.count == 10)
        // 1000 each; the spread of a fair draw is about 30.
        for (endpoint, count) in served { #expect((850...1150).contains(count), "endpoint \(endpoint): \(count)") }

        // With requests that stay, two choices keep the fullest close to the mean: a lone random choice would not.
        var busy: [Int: Int] = [:]
        for _ in 0..<1000 { busy[bench.number(try bench.connect()), default: 0] += 1 }
        #expect((busy.values.max() ?? 0) <= 104)
        #expect((busy.values.min() ?? 0) >= 96)
    }

    @Test func leastRequestOfTwoTakesTheIdleOne() throws {
        let bench = Bench([upstream("a", [1, 2], .leastRequest)])
        let first = try bench.connect()
        for _ in 0..<20 {
            let other = try bench.connect()
            #expect(other != first)
            bench.abandon(other)
        }
    }

    @Test(arguments: [Upstream.Balance.roundRobin, .leastRequest]) func whatWasTriedIsSkipped(
        balance: Upstream.Balance
    ) throws {
        for seed in 0..<50 {
            let bench = Bench([upstream("a", [1, 2, 3], balance)], seed: UInt64(seed))
            var tried = TriedEndpoints()
            var seen: Set<Int> = []
            for _ in 0..<3 {
                let id = try bench.connect(tried: tried)
                seen.insert(bench.number(id))
                tried.insert(id)
                bench.connectFailed(id, now: 0)
            }
            #expect(seen == [1, 2, 3])
            #expect(bench.choose(bench.map[0], now: 0, tried: tried) == .shed(.allTried))
        }
    }

    @Test func aHashKeyStaysWithItsEndpointAndOnlyItsOwnKeysMove() throws {
        let bench = Bench([upstream("a", Array(1...5))])
        func owners(_ bench: Bench) throws -> [UInt64: Int] {
            var owners: [UInt64: Int] = [:]
            for key in UInt64(1)...2000 {
                let id = try #require(bench.pick(upstream: bench.map[0], now: 0, hashKey: key))
                owners[key] = bench.number(id)
            }
            return owners
        }
        let before = try owners(bench)
        for endpoint in 1...5 { #expect((300...500).contains(before.values.count { $0 == endpoint })) }
        bench.apply([upstream("a", [1, 2, 4, 5])])
        let after = try owners(bench)
        for (key, owner) in before where owner != 3 { #expect(after[key] == owner) }
        #expect(!after.values.contains(3))
        // The same keys go to the same endpoints in another loop, with another seed.
        let other = Bench([upstream("a", [5, 4, 2, 1])], seed: 99)
        #expect(try owners(other) == after)
    }

    @Test func withoutEndpointsItIsShed() {
        let bench = Bench([upstream("a", [])])
        #expect(bench.choose(bench.map[0], now: 0) == .shed(.noEndpoint))
        #expect(bench.choose(bench.map[7], now: 0) == .shed(.noEndpoint))
        #expect(bench.choose(bench.map[-1], now: 0) == .shed(.noEndpoint))
        #expect(bench.choose(.none, now: 0) == .shed(.noEndpoint))
    }
}

/// Lets an endpoint fail until it is ejected, whatever the others are asked meanwhile.
func eject(_ number: Int, in bench: Bench, now: UInt64 = 0) throws {
    for _ in 0..<100 {
        let id = try bench.connect(now: now, isFresh: true)
        if bench.number(id) == number {
            if bench.connectFailed(id, now: now) { return }
        } else {
            bench.abandon(id)
        }
    }
    Issue.record("endpoint \(number) was never ejected")
}

@Suite("Health") struct HealthTests {
    @Test func failuresInARowEjectAndOneSuccessBetweenForgives() throws {
        var settings = UpstreamSettings()
        settings.mostEjectedPercent = 100
        let bench = Bench([upstream("a", [1])], settings: settings)
        #expect(!bench.connectFailed(try bench.connect(), now: 0))
        let good = try bench.connect()
        #expect(!bench.connected(good))
        bench.abandon(good)
        #expect(!bench.connectFailed(try bench.connect(), now: 0))
        #expect(bench.connectFailed(try bench.connect(), now: 0))
        #expect(bench.endpoints(0) == [1, 1])
    }

    @Test func oneProbeBringsItBack() throws {
        let bench = Bench([upstream("a", [1, 2])])
        try eject(2, in: bench)
        // Skipped while its time runs, at most 1.25 s.
        for t in 0..<7 { #expect(try bench.serve(now: UInt64(t) * second / 10) == 1) }
        let probe = try bench.connect(now: 2 * second)
        #expect(bench.number(probe) == 2)
        // One probe at a time.
        for _ in 0..<10 { #expect(try bench.serve(now: 2 * second) == 1) }
        #expect(bench.connected(probe))
        bench.abandon(probe)
        #expect(Set([try bench.serve(now: 2 * second), try bench.serve(now: 2 * second)]) == [1, 2])
    }

    @Test func eachFurtherEjectionLastsTwiceAsLongUpToABound() throws {
        let bench = Bench([upstream("a", [1, 2])])
        try eject(2, in: bench)
        var now: UInt64 = 0
        var waits: [Double] = []
        for _ in 0..<10 {
            let start = now
            // Steps of 50 ms until the probe comes.
            while true {
                now += second / 20
                let id = try bench.connect(now: now, isFresh: true)
                if bench.number(id) == 2 {
                    #expect(bench.connectFailed(id, now: now))
                    break
                }
                bench.abandon(id)
            }
            waits.append(Double(now - start) / Double(second))
        }
        for (n, wait) in waits.enumerated() {
            let nominal = min(Double(1 << n), 60)
            #expect(wait >= nominal * 0.75 && wait <= nominal * 1.25 + 0.05, "ejection \(n): \(wait) s")
        }
        // After it came back, it starts with the shortest again.
        now += 80 * second
        let probe = try bench.connect(now: now, isFresh: true)
        #expect(bench.number(probe) == 2)
        #expect(bench.connected(probe))
        bench.abandon(probe)
        try eject(2, in: bench, now: now)
        #expect(bench.number(try bench.connect(now: now + 5 * second / 4, isFresh: true)) == 2)
    }

    @Test func aProbeWithoutAVerdictMakesRoomForAnother() throws {
        let bench = Bench([upstream("a", [1, 2])])
        try eject(2, in: bench)
        let abandoned = try bench.connect(now: 2 * second)
        bench.abandon(abandoned)
        let silent = try bench.connect(now: 2 * second)
        #expect(bench.number(silent) == 2)
        for t in 3..<31 { #expect(try bench.serve(now: UInt64(t) * second) == 1) }
        #expect(bench.number(try bench.connect(now: 33 * second)) == 2)
    }

    @Test func notMoreThanAShareIsEjected() throws {
        let bench = Bench([upstream("a", [1, 2, 3, 4])])
        for _ in 0..<1000 { bench.connectFailed(try bench.connect(), now: 0) }
        #expect(bench.endpoints(0) == [4, 3])
    }

    @Test func whenAllAreEjectedTheyAreAskedAllTheSame() throws {
        var settings = UpstreamSettings()
        settings.mostEjectedPercent = 100
        let bench = Bench([upstream("a", [1, 2, 3])], settings: settings)
        for number in 1...3 { try eject(number, in: bench) }
        #expect(bench.endpoints(0) == [3, 3])
        var seen: Set<Int> = []
        for _ in 0..<60 {
            let id = try bench.connect()
            seen.insert(bench.number(id))
            bench.abandon(id)
        }
        #expect(seen == [1, 2, 3])
        // One that connects in this need is healthy at once.
        let id = try bench.connect()
        #expect(bench.connected(id))
        #expect(bench.endpoints(0) == [3, 2])
    }

    @Test func ofTwoPlacesOnlyOneDiesAndClientsDoNotNotice() throws {
        // Two hundred requests a second for 90 s; endpoint 2 of 3 is dead from second 10 to second 40. Each request may
        // be tried twice.
        let bench = Bench([upstream("a", [1, 2, 3])])
        var failed = 0
        var retries = 0
        var back = 0
        for millisecond in stride(from: UInt64(0), to: 90_000, by: 5) {
            let now = millisecond * 1_000_000
            let isDead = (10_000..<40_000).contains(millisecond)
            var tried = TriedEndpoints()
            var isServed = false
            for attempt in 0..<2 where !isServed {
                if attempt > 0 {
                    guard bench.mayRetry(bench.map[0], now: now) else { break }
                    retries += 1
                }
                let id = try bench.connect(now: now, tried: tried)
                if isDead, bench.number(id) == 2 {
                    tried.insert(id)
                    bench.connectFailed(id, now: now)
                } else {
                    if bench.number(id) == 2, millisecond >= 40_000, back == 0 { back = Int(millisecond) }
                    bench.connected(id)
                    bench.abandon(id)
                    isServed = true
                }
            }
            if !isServed { failed += 1 }
        }
        #expect(failed == 0)
        // Two to eject it, then a probe after 1, 2, 4, 8 and 16 seconds.
        #expect((4...8).contains(retries), "\(retries)")
        // Back with the next probe after it came up.
        #expect(back > 0, "\(back)")
    }
}

@Suite("Retry budget") struct RetryBudgetTests {
    @Test func aFifthOfTheRequestsAndAFewEachSecond() throws {
        let bench = Bench([upstream("a", [1])])
        var granted = 0
        for n in 0..<10_000 {
            let now = UInt64(n) * 1_000_000
            bench.abandon(try bench.connect(now: now))
            if bench.mayRetry(bench.map[0], now: now) { granted += 1 }
        }
        // 20 % of 10,000, and 3 a second over 10 s and the first three.
        #expect((2000...2035).contains(granted), "\(granted)")
    }

    @Test func withLittleTrafficOnlyTheFreeOnes() {
        let bench = Bench([upstream("a", [1])])
        var granted = 0
        for n in 0..<100_000 where bench.mayRetry(bench.map[0], now: UInt64(n) * 100_000) { granted += 1 }
        // Ten seconds at 3 a second, and the three at the start.
        #expect((31...33).contains(granted), "\(granted)")
    }

    @Test func savedRetriesHaveABound() throws {
        let bench = Bench([upstream("a", [1])])
        for _ in 0..<100_000 { bench.abandon(try bench.connect()) }
        var granted = 0
        while bench.mayRetry(bench.map[0], now: 0) { granted += 1 }
        #expect(granted == 103)
    }

    @Test func aRetryEarnsNothing() throws {
        let bench = Bench([upstream("a", [1, 2])])
        var tried = TriedEndpoints()
        tried.insert(try bench.connect())
        for _ in 0..<3 { #expect(bench.mayRetry(bench.map[0], now: 0)) }
        for _ in 0..<100 { bench.abandon(try bench.connect(tried: tried)) }
        #expect(!bench.mayRetry(bench.map[0], now: 0))
    }
}

@Suite("Idle connections") struct PoolTests {
    @Test func theLastParkedIsTakenFirst() throws {
        let bench = Bench([upstream("a", [1])])
        let ids = [try bench.connect(), try bench.connect(), try bench.connect()]
        for (n, id) in ids.enumerated() {
            #expect(bench.park(id, connection: UInt64(n + 10), served: 1, now: UInt64(n)))
        }
        for expected in [UInt64(12), 11, 10] {
            #expect(bench.choose(bench.map[0], now: 5) == .lease(ids[0], connection: expected))
        }
        #expect(bench.choose(bench.map[0], now: 5) == .connect(ids[0]))
    }

    @Test func aFreshConnectionIsMadeWhenAskedFor() throws {
        let bench = Bench([upstream("a", [1])])
        let id = try bench.connect()
        #expect(bench.park(id, connection: 10, served: 1, now: 0))
        #expect(bench.choose(bench.map[0], now: 0, isFresh: true) == .connect(id))
    }

    @Test func boundsOfNumberAndOfRequests() throws {
        var settings = UpstreamSettings()
        settings.mostIdle = 2
        settings.mostRequestsPerConnection = 100
        let bench = Bench([upstream("a", [1])], settings: settings)
        let ids = try (0..<4).map { _ in try bench.connect() }
        #expect(!bench.park(ids[0], connection: 1, served: 100, now: 0))
        #expect(bench.park(ids[1], connection: 2, served: 99, now: 0))
        #expect(bench.park(ids[2], connection: 3, served: 1, now: 0))
        #expect(!bench.park(ids[3], connection: 4, served: 1, now: 0))
        #expect(bench.table.endpoints[0].connections == 2)
        #expect(bench.table.requestsUnderWay(bench.map[0]) == 0)
    }

    @Test func theSweepClosesWhatIsTooOldAndNothingElse() throws {
        let bench = Bench([upstream("a", [1]), upstream("b", [2])])
        let a = [try bench.connect(0), try bench.connect(0)]
        let b = try bench.connect(1)
        #expect(bench.park(a[0], connection: 1, served: 1, now: 0))
        #expect(bench.park(a[1], connection: 2, served: 1, now: 30 * second))
        #expect(bench.park(b, connection: 3, served: 1, now: 10 * second))
        bench.table.sweep(now: 59 * second, closing: &bench.closing)
        #expect(bench.closing.isEmpty)
        bench.table.sweep(now: 60 * second, closing: &bench.closing)
        #expect(bench.closing == [1])
        // One endpoint at a time, each call going on where the last one stopped.
        for _ in 0..<2 { bench.table.sweep(now: 100 * second, limit: 1, closing: &bench.closing) }
        #expect(Set(bench.closing) == [1, 2, 3])
        #expect(bench.table.endpoints.allSatisfy { $0.connections == 0 && $0.idle.isEmpty })
    }

    @Test func allThatIsIdleCanBeLetGo() throws {
        let bench = Bench([upstream("a", [1]), upstream("b", [2])])
        let busy = try bench.connect(0)
        let idle = [try bench.connect(0), try bench.connect(1)]
        for (n, endpoint) in idle.enumerated() {
            #expect(bench.park(endpoint, connection: UInt64(n + 1), served: 1, now: 0))
        }
        bench.table.releaseIdle(closing: &bench.closing)
        #expect(Set(bench.closing) == [1, 2])
        #expect(bench.table.endpoints.map(\.connections) == [1, 0])
        #expect(bench.park(busy, connection: 3, served: 1, now: 0))
        #expect(bench.choose(bench.map[0], now: 0) == .lease(busy, connection: 3))
    }

    @Test func aConnectionClosedFromTheOtherSideIsForgotten() throws {
        let bench = Bench([upstream("a", [1])])
        let ids = [try bench.connect(), try bench.connect()]
        #expect(bench.park(ids[0], connection: 1, served: 1, now: 0))
        #expect(bench.park(ids[1], connection: 2, served: 1, now: 0))
        bench.table.idleClosed(ids[0], connection: 2)
        bench.table.idleClosed(ids[0], connection: 77)
        #expect(bench.choose(bench.map[0], now: 0) == .lease(ids[0], connection: 1))
        #expect(bench.choose(bench.map[0], now: 0) == .connect(ids[0]))
    }
}

@Suite("A new snapshot") struct MergeTests {
    @Test(arguments: [false, true]) func stateIsCarriedOverByNameAndAddress(skips: Bool) throws {
        let bench = Bench([upstream("a", [1, 2]), upstream("b", [3])])
        try eject(2, in: bench)
        let b = try bench.connect(1)
        #expect(bench.park(b, connection: 33, served: 1, now: 0))
        // `b` moves to the front, `a` loses nothing and gains one.
        bench.apply([upstream("0", [9]), upstream("b", [3]), upstream("a", [2, 1, 4])], skips: skips)
        #expect(bench.closing.isEmpty)
        #expect(bench.endpoints(2) == [3, 1])
        #expect(bench.choose(bench.map[1], now: 0) == .lease(b, connection: 33))
        for _ in 0..<10 { #expect(try bench.serve(2, now: 1) != 2) }
    }

    @Test(arguments: [false, true]) func anEndpointThatLeavesFinishesWhatItCarries(skips: Bool) throws {
        let bench = Bench([upstream("a", [1, 2])])
        var byNumber: [Int: EndpointID] = [:]
        for _ in 0..<4 {
            let id = try bench.connect()
            byNumber[bench.number(id)] = id
            bench.connected(id)
        }
        let leaving = try #require(byNumber[2])
        #expect(bench.park(leaving, connection: 21, served: 1, now: 0))
        bench.apply([upstream("a", [1])], skips: skips)
        #expect(bench.closing == [21])
        #expect(bench.table.address(of: leaving) == address(2))
        for _ in 0..<10 { #expect(try bench.serve() == 1) }
        // Its last request ends: the connection is not kept, and the slot is free.
        #expect(!bench.park(leaving, connection: 22, served: 1, now: 0))
        #expect(bench.table.address(of: leaving) == nil)
        // The slot is another's now; what is stale is ignored.
        bench.apply([upstream("a", [1, 7])], skips: skips)
        bench.abandon(leaving)
        #expect(!bench.connectFailed(leaving, now: 0))
        #expect(!bench.park(leaving, connection: 1, served: 1, now: 0))
        #expect(bench.table.endpoints.count == 2)
        #expect(bench.table.endpoints.allSatisfy { $0.inFlight >= 0 && $0.connections >= 0 })
        #expect(Set([try bench.serve(), try bench.serve()]) == [1, 7])
    }

    @Test func anUpstreamThatIsGoneServesThoseWhoArePinnedToIt() throws {
        let bench = Bench([upstream("a", [1]), upstream("b", [2])])
        let old = bench.map
        let parked = try bench.connect(1)
        #expect(bench.park(parked, connection: 5, served: 1, now: 0))
        bench.apply([upstream("a", [1])])
        let between = bench.map
        bench.apply([upstream("a", [1, 3])])
        // Still there for the old map, with the newest endpoints for what did not go.
        #expect(bench.choose(old[1], now: 0) == .lease(parked, connection: 5))
        #expect(bench.table.endpointCount(old[0]).all == 2)
        bench.table.release(between, closing: &bench.closing)
        #expect(bench.table.endpointCount(old[1]).all == 1)
        bench.table.release(old, closing: &bench.closing)
        #expect(bench.choose(old[1], now: 0) == .shed(.noEndpoint))
        bench.abandon(parked)
        // The newest map is never released.
        bench.table.release(bench.map, closing: &bench.closing)
        #expect(bench.table.endpointCount(bench.map[0]).all == 2)
        // Slots are used again.
        bench.apply([upstream("a", [1, 3]), upstream("c", [4])])
        #expect(bench.table.upstreams.count == 2)
        #expect(try bench.serve(1) == 4)
    }

    @Test func thousandsOfSnapshotsDoNotGrowTheTable() throws {
        let bench = Bench([upstream("a", [1])])
        for n in 0..<3000 {
            let old = bench.map
            let held = try bench.connect(0)
            bench.apply([upstream("u\(n)", [n % 50 + 1, n % 50 + 2])], skips: n % 7 == 0)
            bench.table.release(old, closing: &bench.closing)
            bench.abandon(held)
        }
        #expect(bench.table.upstreams.count <= 3)
        #expect(bench.table.endpoints.count <= 6)
    }

    @Test func namesAreServedByTheirAddresses() throws {
        var named = Upstream(namespace: "shop", service: "ext", port: "80")
        named.endpoints = [Endpoint(host: .name("db.example"), port: 8080), Endpoint(address(1))]
        let bench = Bench([named])
        #expect(bench.table.endpointCount(bench.map[0]).all == 1)
        bench.apply([named], names: ["db.example": [address(1).ip, address(2).ip]])
        #expect(bench.table.endpointCount(bench.map[0]).all == 2)
        #expect(Set([try bench.serve(), try bench.serve()]) == [1, 2])
    }

    @Test func aNameThatResolvesAnewIsAChange() throws {
        var named = Upstream(namespace: "shop", service: "ext", port: "80")
        named.endpoints = [Endpoint(host: .name("db.example"), port: 8080)]
        let bench = Bench([named, upstream("b", [9])])
        bench.apply([named, upstream("b", [9])], names: ["db.example": [address(1).ip]])
        #expect(try bench.serve() == 1)
        bench.apply([named, upstream("b", [9])], names: ["db.example": [address(2).ip, address(2).ip]])
        #expect(bench.plan.isUnchanged == [false, true])
        #expect(bench.endpoints(0) == [1, 0])
        #expect(try bench.serve() == 2)
    }

    @Test func manyEndpointsAndDoubleOnes() throws {
        let bench = Bench([upstream("a", Array(1...40) + Array(1...40))])
        #expect(bench.endpoints(0) == [40, 0])
        bench.apply([upstream("a", Array(1...40) + Array(20...60))])
        #expect(bench.endpoints(0) == [60, 0])
    }

    @Test(arguments: [false, true]) func twoUpstreamsOfOneNameAreTwo(skips: Bool) throws {
        let bench = Bench([upstream("a", [1]), upstream("a", [2])])
        #expect(try bench.serve(0) == 1)
        #expect(try bench.serve(1) == 2)
        let old = bench.map
        bench.apply([upstream("a", [1]), upstream("a", [3])], skips: skips)
        #expect(try bench.serve(0) == 1)
        #expect(try bench.serve(1) == 3)
        bench.table.release(old, closing: &bench.closing)
        #expect(try bench.serve(1) == 3)
    }

    @Test func theSamePlanTwiceChangesNothing() throws {
        let bench = Bench([upstream("a", [1])])
        let again = bench.table.apply(bench.plan, now: 0, closing: &bench.closing)
        #expect(again.generation == bench.map.generation)
        #expect(bench.table.upstreams.count == 1)
    }

    /// Random snapshots, requests and ends: counts never go wrong, and nothing is chosen that is not in force.
    @Test(arguments: 0..<20) func countsHoldOverRandomHistories(seed: UInt64) throws {
        var dice = Dice(state: seed)
        let bench = Bench([upstream("a", [1, 2]), upstream("b", [3], .leastRequest)], seed: seed)
        var held: [EndpointID] = []
        var parked: [UInt64: EndpointID] = [:]
        var maps = [bench.map]
        var nextConnection: UInt64 = 1
        var now: UInt64 = 0
        for _ in 0..<3000 {
            now += UInt64(dice.below(200_000_000))
            switch dice.below(12) {
            case 0:
                let upstreams = (0..<dice.below(4)).map { n in
                    upstream("u\(n)", (0..<dice.below(4)).map { _ in dice.below(6) + 1 })
                }
                bench.apply(upstreams, skips: dice.below(3) == 0)
                maps.append(bench.map)
            case 1 where maps.count > 1:
                let old = maps.remove(at: dice.below(maps.count - 1))
                bench.table.release(old, closing: &bench.closing)
            case 2, 3, 4, 5:
                let map = maps[dice.below(maps.count)]
                switch bench.choose(map[dice.below(4)], now: now) {
                case .connect(let id): held.append(id)
                case .lease(let id, let connection):
                    #expect(parked.removeValue(forKey: connection) == id)
                    held.append(id)
                case .join: Issue.record("none of them is multiplexed")
                case .shed: break
                }
            case 6 where !held.isEmpty, 7 where !held.isEmpty, 8 where !held.isEmpty:
                let id = held.remove(at: dice.below(held.count))
                bench.connected(id)
                nextConnection += 1
                if bench.park(id, connection: nextConnection, served: 1, now: now) { parked[nextConnection] = id }
            case 9 where !held.isEmpty:
                bench.abandon(held.remove(at: dice.below(held.count)))
            case 10 where !held.isEmpty:
                bench.connectFailed(held.remove(at: dice.below(held.count)), now: now)
            default:
                bench.table.sweep(now: now, closing: &bench.closing)
            }
            for connection in bench.closing { #expect(parked.removeValue(forKey: connection) != nil) }
            bench.closing.removeAll()
            let used = bench.table.endpoints.filter { !$0.isFree }
            #expect(used.reduce(0) { $0 + Int($1.inFlight) } == held.count)
            #expect(used.reduce(0) { $0 + Int($1.connections) } == held.count + parked.count)
            #expect(used.reduce(0) { $0 + $1.idle.count } == parked.count)
            #expect(bench.table.upstreams.reduce(0) { $0 + Int($1.inFlight) } == held.count)
        }
    }
}
