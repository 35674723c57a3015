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
    /// By route: index of the upstream, -1 without. First of the routes for requests without TLS, then of the same for
    /// those with it.
    private let upstreams: [Int32]
    let defaultPolicy: ResolvedPolicy
    let relays: RelayTable
    /// Of connections whose bytes are passed as they are.
    let relayPolicy: ResolvedPolicy
    /// The upstreams with their names looked up, compared with the publication before.
    let plan: UpstreamPlan
    let labels: TelemetryLabels
    /// Nil where nothing listens for TLS.
    let certificates: CertificateTable?
    /// Nil where no host asks for client certificates.
    let clientRules: ClientRules?
    let securityTable: UpstreamSecurityTable?
    /// By upstream: how TLS to it is made, where it is spoken over TLS.
    private let securities: [UpstreamSecurity?]
    let hasSecurities: Bool
    /// By upstream: the PROXY protocol header that each connection begins with; empty where there is none anywhere.
    private let proxyHeaders: [ProxyProtocolVersion?]
    /// A response of some route may be compressed.
    let compresses: Bool
    private let sets: [MiddlewareSet]

    init(
        table: RouteTable, sets: [MiddlewareSet], configuration: ProxyConfiguration, names: [String: [IPAddress]] = [:],
        labels: TelemetryLabels = .none, certificates: CertificateTable? = nil, clientRules: ClientRules? = nil,
        securities: UpstreamSecurityTable? = nil, previous: Publication? = nil
    ) {
        self.clientRules = clientRules
        securityTable = securities
        // By index, here and below: what is taken out of its array is copied, and that is dear with thousands of them.
        let upstreamList = table.snapshot.upstreams
        var made: [UpstreamSecurity?] = []
        for i in upstreamList.indices where upstreamList[i].protocol.isSecure {
            if made.isEmpty { made = Array(repeating: nil, count: upstreamList.count) }
            // Without what it takes nothing is sent, and never in plain text instead.
            made[i] = securities?[upstreamList[i].name] ?? .unusable
        }
        self.securities = made
        hasSecurities = !made.isEmpty
        let headers = table.snapshot.upstreams.map(\.proxyHeader)
        proxyHeaders = headers.contains { $0 != nil } ? headers : []
        self.certificates = certificates
        self.table = table
        snapshot = table.snapshot
        generation = table.generation
        self.sets = sets
        self.labels = labels
        let defaults = ResolvedPolicy(configuration)
        defaultPolicy = defaults
        relays = RelayTable(table.snapshot)
        var relayPolicy = defaults
        relayPolicy.streamIdleTimeout = configuration.timeouts.relayIdle
        self.relayPolicy = relayPolicy
        let routes = table.snapshot.routes
        let count = upstreamList.count
        func index(_ upstream: Int?) -> Int32 { upstream.map { $0 >= 0 && $0 < count ? Int32($0) : -1 } ?? -1 }
        var policies: [ResolvedPolicy] = []
        policies.reserveCapacity(routes.count)
        var upstreams = [Int32](repeating: -1, count: 2 * routes.count)
        for i in routes.indices {
            policies.append(ResolvedPolicy(routes[i].policy, over: defaults))
            upstreams[i] = index(routes[i].upstream)
            upstreams[routes.count + i] = index(routes[i].upstream(isSecure: true))
        }
        self.policies = policies
        self.upstreams = upstreams
        compresses = !defaults.codings.isEmpty || policies.contains { !$0.codings.isEmpty }
        plan = UpstreamPlan(
            upstreamList, generation: table.generation, names: names, previous: previous?.plan)
    }

    /// - Parameter isSecure: the request came on a TLS connection of ours.
    @inline(__always)
    func upstream(of route: Int32, isSecure: Bool) -> Int32 {
        guard route >= 0, Int(route) < policies.count else { return -1 }
        return upstreams[isSecure ? Int(route) + policies.count : Int(route)]
    }

    /// How TLS to an upstream is made; nil where it is spoken to without.
    func security(of upstream: Int32) -> UpstreamSecurity? {
        guard hasSecurities, securities.indices.contains(Int(upstream)) else { return nil }
        return securities[Int(upstream)]
    }

    /// What each connection to an upstream begins with.
    @inline(__always)
    func proxyHeader(of upstream: Int32) -> ProxyProtocolVersion? {
        if proxyHeaders.isEmpty { return nil }
        return proxyHeaders.indices.contains(Int(upstream)) ? proxyHeaders[Int(upstream)] : nil
    }

    /// The scripts of one loop; without any where the loop has none of its own.
    func middlewares(_ loop: Int) -> MiddlewareSet {
        sets.indices.contains(loop) ? sets[loop] : MiddlewareSet()
    }
}
