import Foundation
import Model
import Routing
import Testing

/// Prints nanoseconds per match. Not a test of time: a busy machine would fail it. Run by
/// `MOONGATE_BENCHMARK=1 swift test -c release -Xswiftc -enable-testing --filter RouteMatchBenchmark`.
@Suite("Benchmark", .enabled(if: ProcessInfo.processInfo.environment["MOONGATE_BENCHMARK"] != nil), .serialized)
struct RouteMatchBenchmark {
    /// Hosts with five paths each: `/`, two of one element, one of two, one Exact of three.
    static func rules(_ hosts: Int, _ paths: Int) -> [(host: String, path: String)] {
        (0..<hosts).flatMap { host in
            (0..<paths).map { n in
                let path =
                    switch n % 5 {
                    case 0: n == 0 ? "/" : "/p\(n)"
                    case 1: "/api\(n)"
                    case 2: "/static\(n)"
                    case 3: "/shop/cart\(n)"
                    default: "=/shop/cart/items\(n)"
                    }
                return (host: host % 20 == 0 ? "*.tenant-\(host).test" : "shop-\(host).example.test", path: path)
            }
        }
    }

    @Test(arguments: [(2, 5), (200, 5), (10_000, 5), (1, 50_000)]) func match(hosts: Int, paths: Int) {
        let rules = Self.rules(hosts, paths)
        let clock = ContinuousClock()
        let snapshot = snapshot(rules)
        var table = RouteTable(snapshot)
        let compile = clock.measure { table = RouteTable(snapshot, generation: 2) }
        // Requests in random order over all hosts, so that the caches do not know what comes next.
        var generator = Seeded(7)
        // The bytes of a request have just been read when it is matched: they lie side by side here, in cache.
        var bytes: [UInt8] = []
        let requests: [(host: Range<Int>, path: Range<Int>)] = (0..<16_384).map { _ in
            let rule = rules[Int.random(in: rules.indices, using: &generator)]
            let path = rule.path.replacing("=", with: "")
            let host = rule.host.replacing("*", with: "a")
            let target = path == "/" ? "/index.html" : path + (rule.path.hasPrefix("=") ? "" : "/item/42")
            let start = bytes.count
            bytes += Array(host.utf8)
            let middle = bytes.count
            bytes += Array(target.utf8)
            return (start..<middle, middle..<bytes.count)
        }
        var best = Double.infinity
        var hot = Double.infinity
        var matched = 0
        for _ in 0..<15 {
            let span = bytes.span
            matched = 0
            let time = clock.measure {
                for request in requests {
                    let match = table.match(host: span.extracting(request.host), path: span.extracting(request.path))
                    if match.route >= 0 { matched += 1 }
                }
            }
            best = min(best, Double(time.components.attoseconds) / 1e9 / Double(requests.count))
            let one = requests[0]
            let again = clock.measure {
                for _ in requests {
                    let match = table.match(host: span.extracting(one.host), path: span.extracting(one.path))
                    if match.route < 0 { matched -= 1 }
                }
            }
            hot = min(hot, Double(again.components.attoseconds) / 1e9 / Double(requests.count))
        }
        #expect(matched == requests.count)
        print(
            """
            BENCH route match: \(hosts) hosts, \(rules.count) rules: \(best.formatted(.number.precision(.fractionLength(0)))) \
            ns random, \(hot.formatted(.number.precision(.fractionLength(0)))) ns one request; compiled in \(compile)
            """)
    }
}
