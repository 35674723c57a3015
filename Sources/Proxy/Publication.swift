// Step 5 of a configuration change: what the loops get. Compiled off the loops, swapped whole, pinned by each exchange
// until its last byte.
internal import Middlewares
internal import Model
internal import Routing
internal import TLSEngine
internal import Telemetry
internal import Upstreams

/// One snapshot as the loops use it: flat, immutable, shared by all of them (but for the scripts: one set a loop).
final class Publication: Sendable {
    let generation: UInt64
    let table: RouteTable
    let snapshot: Snapshot
    /// By route.
    let policies: [ResolvedPolicy]
    /// By route: index of the upstream, -1 without.
    private let upstreams: [Int32]
    let defaultPolicy: ResolvedPolicy
    /// The upstreams with their names looked up, compared with the publication before.
    let plan: UpstreamPlan
    let labels: TelemetryLabels
    /// Nil where nothing listens for TLS.
    let certificates: CertificateTable?
    private let sets: [MiddlewareSet]

    init(
        table: RouteTable, sets: [MiddlewareSet], configuration: ProxyConfiguration, names: [String: [IPAddress]] = [:],
        labels: TelemetryLabels = .none, certificates: CertificateTable? = nil, previous: Publication? = nil
    ) {
        self.certificates = certificates
        self.table = table
        snapshot = table.snapshot
        generation = table.generation
        self.sets = sets
        self.labels = labels
        let defaults = ResolvedPolicy(configuration)
        defaultPolicy = defaults
        policies = table.snapshot.routes.map { ResolvedPolicy($0.policy, over: defaults) }
        let count = table.snapshot.upstreams.count
        upstreams = table.snapshot.routes.map { route in
            route.upstream.map { $0 >= 0 && $0 < count ? Int32($0) : -1 } ?? -1
        }
        plan = UpstreamPlan(
            table.snapshot.upstreams, generation: table.generation, names: names, previous: previous?.plan)
    }

    @inline(__always)
    func upstream(of route: Int32) -> Int32 {
        let index = Int(route)
        return index >= 0 && index < upstreams.count ? upstreams[index] : -1
    }

    /// The scripts of one loop; without any where the loop has none of its own.
    func middlewares(_ loop: Int) -> MiddlewareSet {
        sets.indices.contains(loop) ? sets[loop] : MiddlewareSet()
    }
}
