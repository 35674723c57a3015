import Foundation
import Model
import Testing
import Upstreams

/// Prints nanoseconds per choice. Run by
/// `MOONGATE_BENCHMARK=1 swift test -c release -Xswiftc -enable-testing --filter UpstreamBenchmark`.
@Suite("Benchmark", .enabled(if: ProcessInfo.processInfo.environment["MOONGATE_BENCHMARK"] != nil), .serialized)
struct UpstreamBenchmark {
    @Test(arguments: [Upstream.Balance.roundRobin, .leastRequest]) func chooseAndPark(balance: Upstream.Balance) {
        let clock = ContinuousClock()
        var table = UpstreamTable(seed: 1)
        var closing: [UInt64] = []
        let map = table.apply(
            UpstreamPlan([upstream("a", Array(1...10), balance)], generation: 1), now: 0, closing: &closing)
        var best = Double.infinity
        var connects = 0
        for _ in 0..<15 {
            let time = clock.measure {
                for n in 0..<100_000 {
                    switch table.choose(map[0], now: UInt64(n)) {
                    case .lease(let id, let connection):
                        table.connected(id)
                        _ = table.park(id, connection: connection, served: 1, now: UInt64(n))
                    case .connect(let id):
                        connects += 1
                        table.connected(id)
                        _ = table.park(id, connection: UInt64(connects), served: 1, now: UInt64(n))
                    case .join, .shed: Issue.record("nothing to wait for")
                    }
                }
            }
            best = min(best, Double(time.components.attoseconds) / 1e9 / 100_000)
        }
        #expect(connects == 10)
        print("BENCH choose, connected and park, \(balance.rawValue): \(Int(best)) ns")
    }

    @Test func oneEndpointOfTwentyThousand() {
        let clock = ContinuousClock()
        var upstreams = (0..<10_000).map { upstream("s\($0)", [$0 * 2 + 1, $0 * 2 + 2]) }
        var table = UpstreamTable(seed: 1)
        var closing: [UInt64] = []
        var plan = UpstreamPlan(upstreams, generation: 1)
        let first = clock.measure { _ = table.apply(plan, now: 0, closing: &closing) }
        upstreams[5000].endpoints.removeLast()
        var next = plan
        let planned = clock.measure { next = UpstreamPlan(upstreams, generation: 2, previous: plan) }
        let applied = clock.measure { _ = table.apply(next, now: 0, closing: &closing) }
        plan = next
        print(
            "BENCH 10,000 upstreams: first \(first) on a loop; one endpoint less: plan \(planned), \(applied) on a loop"
        )
    }
}
