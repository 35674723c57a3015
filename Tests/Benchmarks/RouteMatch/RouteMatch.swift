// How long a match takes, and whether it depends on how many rules there are.
//
// Prints one line of JSON for each table size: nanoseconds for a match, over hosts and paths in a mixed order, so that
// neither the branch predictor nor the first cache level holds the answer.
import Model
import Routing

@main
enum RouteMatchBenchmark {
    static func main() {
        for hosts in [10, 100, 1_000, 10_000] {
            let table = RouteTable(snapshot(hosts: hosts), generation: 1)
            let requests = self.requests(hosts: hosts)
            var nanoseconds: [Double] = []
            for _ in 0..<7 { nanoseconds.append(measure(table, requests)) }
            nanoseconds.sort()
            print(#"{"hosts":\#(hosts),"paths":\#(hosts * 5),"ns":\#(nanoseconds[3]),"best":\#(nanoseconds[0])}"#)
        }
    }

    static func snapshot(hosts: Int) -> Snapshot {
        var snapshot = Snapshot()
        snapshot.upstreams = [Upstream(namespace: "shop", service: "web", port: "80")]
        for host in 0..<hosts {
            let pattern = HostPattern.exact("tenant-\(host).shop.example")
            var routes: [Int] = []
            for path in ["/", "/api", "/api/v1", "/static", "/account/orders"] {
                routes.append(snapshot.routes.count)
                snapshot.routes.append(
                    Route(
                        path: .prefix(path),
                        ingress: ObjectReference(kind: "Ingress", namespace: "shop", name: "i\(host)"),
                        rule: "rules[0]", host: pattern, upstream: 0))
            }
            snapshot.hosts.append(VirtualHost(pattern: pattern, routes: routes))
        }
        return snapshot
    }

    static func requests(hosts: Int) -> [(host: [UInt8], path: [UInt8])] {
        let paths = ["/", "/api/v1/orders/7", "/static/app.css", "/account/orders", "/api/v2", "/nothing/here"]
        var state: UInt64 = 0x9e37_79b9_7f4a_7c15
        return (0..<4096).map { index in
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            let host = Int(state >> 33) % hosts
            return (Array("tenant-\(host).shop.example".utf8), Array(paths[index % paths.count].utf8))
        }
    }

    static func measure(_ table: RouteTable, _ requests: [(host: [UInt8], path: [UInt8])]) -> Double {
        var sum: Int64 = 0
        let rounds = 50
        let clock = ContinuousClock()
        let elapsed = clock.measure {
            for _ in 0..<rounds {
                for request in requests {
                    sum &+= Int64(table.match(host: request.host.span, path: request.path.span).route)
                }
            }
        }
        // The sum is used, so that no match can be left out.
        precondition(sum > 0)
        let parts = elapsed.components
        let total = Double(parts.seconds) * 1e9 + Double(parts.attoseconds) / 1e9
        return Double(Int(total / Double(rounds * requests.count) * 10)) / 10
    }
}
