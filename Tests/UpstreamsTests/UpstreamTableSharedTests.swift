import Model
import Testing

@testable import Upstreams

private let second: UInt64 = 1_000_000_000

private func shared(_ name: String, _ endpoints: [Int]) -> Upstream {
    Upstream(
        namespace: "shop", service: name, port: "80", endpoints: endpoints.map { Endpoint(address($0)) },
        protocol: .h2c)
}

extension Bench {
    /// One request: opens the connection where that is asked for, under the number of the endpoint and a count.
    fileprivate func enter(_ index: Int = 0, now: UInt64 = 0, next: inout UInt64) throws -> (EndpointID, UInt64) {
        switch table.choose(map[index], now: now) {
        case .join(let id, let connection): return (id, connection)
        case .connect(let id):
            next += 1
            table.opened(id, connection: next, now: now)
            return (id, next)
        case let other: throw Surprise(action: other)
        }
    }

    fileprivate func left(_ id: EndpointID, _ connection: UInt64, now: UInt64 = 0) -> Bool {
        table.left(id, connection: connection, now: now)
    }
    fileprivate func sharedFailed(_ id: EndpointID, _ connection: UInt64, now: UInt64) -> Bool {
        table.sharedFailed(id, connection: connection, now: now)
    }
    fileprivate func choose(now: UInt64) -> UpstreamAction { table.choose(map[0], now: now) }
}

struct UpstreamTableSharedTests {
    @Test func requestsShareAConnectionUntilItIsFull() throws {
        let bench = Bench([shared("a", [1])])
        var next: UInt64 = 0
        var held: [(EndpointID, UInt64)] = []
        for _ in 0..<300 { held.append(try bench.enter(next: &next)) }
        #expect(next == 3 && held.filter { $0.1 == 1 }.count == 128 && held.filter { $0.1 == 3 }.count == 44)
        // The first one with room is taken, so that the last may run dry.
        #expect(bench.left(held[5].0, 1))
        #expect(try bench.enter(next: &next).1 == 1)
        #expect(bench.table.sharedConnections(held[0].0) == (3, 300))
    }

    @Test func theEndpointsWordIsKeptAndRemembered() throws {
        let bench = Bench([shared("a", [1])])
        var next: UInt64 = 0
        let (id, _) = try bench.enter(next: &next)
        bench.table.limit(id, connection: 1, streams: 2, now: 0)
        #expect(try bench.enter(next: &next).1 == 1)
        #expect(try bench.enter(next: &next).1 == 2)
        #expect(try bench.enter(next: &next).1 == 2, "the new one is thought to take as many")
        #expect(try bench.enter(next: &next).1 == 3)
        bench.table.limit(id, connection: 3, streams: 1_000, now: 0)
        for _ in 0..<127 { #expect(try bench.enter(next: &next).1 == 3) }
        #expect(try bench.enter(next: &next).1 == 4, "not more than ours")
    }

    @Test func anEndpointThatTakesNoneIsPassedOver() throws {
        let bench = Bench([shared("a", [1, 2])])
        var next: UInt64 = 0
        let (full, first) = try bench.enter(next: &next)
        bench.table.limit(full, connection: first, streams: 0, now: 0)
        for now in [0, second / 2, 5 * second] {
            for _ in 0..<10 { #expect(try bench.enter(now: now, next: &next).0 != full) }
        }
        // Where the word of a connection is lost with it, it is remembered for a second.
        #expect(bench.left(full, first))
        bench.table.limit(full, connection: first, streams: 0, now: 5 * second)
        bench.table.sharedClosed(full, connection: first)
        for _ in 0..<10 { #expect(try bench.enter(now: 6 * second - 1, next: &next).0 != full) }
        let later = try (0..<10).map { _ in try bench.enter(now: 6 * second, next: &next) }
        let again = try #require(later.first { $0.0 == full }?.1)
        // It takes some again.
        bench.table.limit(full, connection: again, streams: 0, now: 6 * second)
        bench.table.limit(full, connection: again, streams: 100, now: 6 * second)
        #expect(try (0..<10).contains { _ in try bench.enter(now: 6 * second, next: &next).0 == full })
    }

    @Test func whereNobodyElseHasRoomAFewWait() throws {
        let bench = Bench([shared("a", [1])])
        var next: UInt64 = 0
        let (id, connection) = try bench.enter(next: &next)
        bench.table.limit(id, connection: connection, streams: 0, now: 0)
        for _ in 1..<16 { #expect(try bench.enter(next: &next).1 == connection) }
        #expect(bench.choose(now: 0) == .shed(.full))
        // One that has been given up is waited on by nobody.
        bench.table.retire(id, connection: connection)
        #expect(bench.choose(now: second - 1) == .shed(.full))
        #expect(try bench.enter(now: second, next: &next).1 == 2)
    }

    /// Long calls that a connection carries already are none that wait.
    @Test func whatRunsDoesNotCountAsWaiting() throws {
        let bench = Bench([shared("a", [1])])
        var next: UInt64 = 0
        let (id, connection) = try bench.enter(next: &next)
        for _ in 1..<20 { #expect(try bench.enter(next: &next).1 == connection) }
        bench.table.limit(id, connection: connection, streams: 0, running: 20, now: 0)
        for _ in 0..<16 { #expect(try bench.enter(next: &next).1 == connection) }
        #expect(bench.choose(now: 0) == .shed(.full))
        // One that ran is over: no more wait by that. One that waited gives its place up.
        _ = bench.left(id, connection)
        #expect(bench.choose(now: 0) == .shed(.full))
        _ = bench.table.left(id, connection: connection, waited: true, now: 0)
        #expect(try bench.enter(next: &next).1 == connection)
        #expect(bench.choose(now: 0) == .shed(.full))
        // Taken again, and then no more: those that were waiting run now.
        bench.table.limit(id, connection: connection, streams: 100, now: 0)
        bench.table.limit(id, connection: connection, streams: 0, running: 35, now: 0)
        #expect(try bench.enter(next: &next).1 == connection)
    }

    @Test func connectionsAreBoundedAndThenRequestsAreShed() throws {
        var settings = UpstreamSettings()
        settings.mostShared = 2
        settings.mostStreams = 3
        let bench = Bench([shared("a", [1, 2])], settings: settings)
        var next: UInt64 = 0
        var held: [(EndpointID, UInt64)] = []
        for _ in 0..<12 { held.append(try bench.enter(next: &next)) }
        #expect(next == 4 && Set(held.map { bench.number($0.0) }) == [1, 2])
        #expect(bench.choose(now: 0) == .shed(.full))
        #expect(bench.table.requestsUnderWay(bench.map[0]) == 12)
        _ = bench.left(held[7].0, held[7].1)
        #expect(bench.choose(now: 0) == .join(held[7].0, connection: held[7].1))
    }

    @Test func oneThatGoesTakesNoMore() throws {
        let bench = Bench([shared("a", [1])])
        var next: UInt64 = 0
        let (id, first) = try bench.enter(next: &next)
        _ = try bench.enter(next: &next)
        bench.table.retire(id, connection: first)
        bench.table.limit(id, connection: first, streams: 100, now: 0)
        #expect(try bench.enter(next: &next).1 == 2)
        #expect(!bench.left(id, first), "to be closed when it is empty")
        #expect(!bench.left(id, first))
        bench.table.sharedClosed(id, connection: first)
        bench.table.sharedClosed(id, connection: first)
        #expect(bench.table.sharedConnections(id) == (1, 1))
        #expect(bench.table.endpoints[0].connections == 1)
    }

    @Test func idleOnesAreSwept() throws {
        let bench = Bench([shared("a", [1])])
        var next: UInt64 = 0
        let (id, connection) = try bench.enter(next: &next)
        bench.table.sweep(now: 100 * second, closing: &bench.closing)
        #expect(bench.closing.isEmpty, "it carries something")
        #expect(bench.left(id, connection, now: 100 * second))
        bench.table.sweep(now: 159 * second, closing: &bench.closing)
        #expect(bench.closing.isEmpty)
        bench.table.sweep(now: 160 * second, closing: &bench.closing)
        #expect(bench.closing == [1] && bench.table.endpoints[0].connections == 0)
        #expect(try bench.enter(next: &next).1 == 2)
        bench.table.releaseIdle(closing: &bench.closing)
        #expect(bench.closing == [1])
    }

    @Test func anEndpointThatLeavesKeepsWhatItCarries() throws {
        let bench = Bench([shared("a", [1])])
        var next: UInt64 = 0
        let (id, first) = try bench.enter(next: &next)
        let old = bench.map
        bench.apply([shared("a", [2])])
        bench.table.release(old, closing: &bench.closing)
        #expect(bench.number(try bench.enter(next: &next).0) == 2)
        #expect(bench.closing.isEmpty)
        #expect(!bench.left(id, first))
        bench.table.sharedClosed(id, connection: first)
        #expect(bench.table.address(of: id) == nil, "forgotten")
        let (other, second) = try bench.enter(next: &next)
        _ = bench.left(other, second)
        _ = bench.left(other, second)
        bench.apply([])
        bench.apply([])
        bench.table.release(bench.map, closing: &bench.closing)
    }

    @Test func failuresEjectOnceAConnection() throws {
        let bench = Bench([shared("a", [1, 2])])
        var next: UInt64 = 0
        var ejections = 0
        for round in 0..<3 {
            var held: [(EndpointID, UInt64)] = []
            for _ in 0..<6 { held.append(try bench.enter(now: UInt64(round), next: &next)) }
            for connection in Set(held.filter { bench.number($0.0) == 1 }.map(\.1)) {
                let id = held.first { $0.1 == connection }?.0 ?? held[0].0
                if bench.sharedFailed(id, connection, now: UInt64(round)) { ejections += 1 }
            }
            for (id, connection) in held { _ = bench.left(id, connection) }
        }
        #expect(ejections == 1 && bench.endpoints(0) == [2, 1])
        #expect(bench.table.endpoints.reduce(0) { $0 + Int($1.inFlight) } == 0)
    }

    @Test(arguments: 0..<10) func countsHoldOverRandomHistories(seed: UInt64) throws {
        var dice = Dice(state: seed)
        var settings = UpstreamSettings()
        settings.mostShared = 3
        settings.mostStreams = 4
        let bench = Bench([shared("a", [1, 2])], settings: settings, seed: seed)
        var held: [(EndpointID, UInt64)] = []
        var open: [UInt64: EndpointID] = [:]
        var next: UInt64 = 0
        var now: UInt64 = 0
        for _ in 0..<3_000 {
            now += UInt64(dice.below(300_000_000))
            switch dice.below(12) {
            case 0: bench.apply([shared("a", (0..<dice.below(3)).map { _ in dice.below(4) + 1 })])
            case 1, 2, 3, 4:
                let before = next
                guard let entered = try? bench.enter(now: now, next: &next) else { continue }
                if next > before { open[next] = entered.0 }
                #expect(open[entered.1] == entered.0)
                held.append(entered)
            case 5, 6, 7:
                guard !held.isEmpty else { continue }
                let (id, connection) = held.remove(at: dice.below(held.count))
                let keeps = bench.left(id, connection, now: now)
                if !keeps, !held.contains(where: { $0.1 == connection }), open[connection] != nil {
                    open[connection] = nil
                    bench.table.sharedClosed(id, connection: connection)
                }
            case 8:
                guard let (connection, id) = open.randomElement(using: &dice) else { continue }
                bench.table.retire(id, connection: connection)
            case 9:
                guard let (connection, id) = open.randomElement(using: &dice) else { continue }
                bench.table.limit(id, connection: connection, streams: dice.below(6), now: now)
            case 10:
                guard let (connection, id) = open.randomElement(using: &dice) else { continue }
                open[connection] = nil
                if dice.below(2) == 0 {
                    bench.table.sharedClosed(id, connection: connection)
                } else {
                    _ = bench.sharedFailed(id, connection, now: now)
                }
            default: bench.table.sweep(now: now, closing: &bench.closing)
            }
            for connection in bench.closing {
                #expect(open.removeValue(forKey: connection) != nil)
                #expect(!held.contains { $0.1 == connection })
            }
            bench.closing.removeAll()
            let used = bench.table.endpoints.filter { !$0.isFree }
            #expect(used.reduce(0) { $0 + Int($1.inFlight) } == held.count)
            #expect(used.reduce(0) { $0 + Int($1.connections) } == open.count)
            #expect(used.reduce(0) { $0 + $1.shared.count } == open.count)
        }
    }
}
