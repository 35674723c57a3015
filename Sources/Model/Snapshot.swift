// The one value in which control plane and data plane meet: everything that is served at one moment. It is computed
// whole, compared with the last, and published with a generation number; nothing in it is ever changed in place.

/// Everything that is served. Hosts, upstreams and scripts refer to each other by index.
package struct Snapshot: Sendable, Equatable {
    /// One entry a host pattern, sorted by pattern; each pattern stands once.
    package var hosts: [VirtualHost] = []
    /// All routes; `VirtualHost.routes` and `defaultRoute` are indices into it.
    package var routes: [Route] = []
    /// One a Service port in use, sorted by name. Includes each Service port that a script may choose
    /// (every Service port of a namespace that has a script binding, and those granted to it by others).
    package var upstreams: [Upstream] = []
    /// One a distinct script source.
    package var scripts: [ScriptSource] = []
    /// Where a request goes that no rule matches: the operator's default backend; nil answers 404.
    package var defaultRoute: Int?
    /// `spec.tls` of all Ingresses: which certificate serves which host.
    package var certificates: [CertificateReference] = []
    /// For names that none of them serves (`--default-tls-secret`); nil takes one made on start.
    package var defaultCertificate: CertificateReference?
    /// What session tickets are sealed with at all replicas; nil: each has keys of its own.
    package var ticketKeys: TicketKeySource?

    /// Ports whose bytes go to a Service as they are, sorted by port.
    package var tcpServices: [TCPService] = []
    /// Ports whose datagrams go to a Service, sorted by port.
    package var udpServices: [UDPService] = []
    /// Hosts whose TLS is not ours to end, sorted by pattern.
    package var passthrough: [PassthroughHost] = []

    package init() {}
}

/// A port of `--tcp-services-configmap`.
package struct TCPService: Sendable, Equatable {
    package var port: UInt16
    /// Index into `Snapshot.upstreams`. The port is open while it has endpoints.
    package var upstream: Int
    /// Connections of trusted proxies begin with a PROXY protocol header.
    package var acceptsProxyProtocol: Bool
    /// The endpoint is told by one who the client is, in this version.
    package var sendsProxyProtocol: ProxyProtocolVersion?
    /// Where it is written, for diagnostics.
    package var place: Place

    package init(
        port: UInt16, upstream: Int, acceptsProxyProtocol: Bool = false,
        sendsProxyProtocol: ProxyProtocolVersion? = nil, place: Place = Place()
    ) {
        self.port = port
        self.upstream = upstream
        self.acceptsProxyProtocol = acceptsProxyProtocol
        self.sendsProxyProtocol = sendsProxyProtocol
        self.place = place
    }
}

/// A port of `--udp-services-configmap`.
package struct UDPService: Sendable, Equatable {
    package var port: UInt16
    /// Index into `Snapshot.upstreams`. The port is open while it has endpoints.
    package var upstream: Int
    /// Where it is written, for diagnostics.
    package var place: Place

    package init(port: UInt16, upstream: Int, place: Place = Place()) {
        self.port = port
        self.upstream = upstream
        self.place = place
    }
}

/// A host with `ssl-passthrough`.
package struct PassthroughHost: Sendable, Equatable {
    package var pattern: HostPattern
    /// Index into `Snapshot.upstreams`.
    package var upstream: Int
    package var ingress: ObjectReference

    package init(pattern: HostPattern, upstream: Int, ingress: ObjectReference) {
        self.pattern = pattern
        self.upstream = upstream
        self.ingress = ingress
    }
}

/// A host pattern and the routes below it.
package struct VirtualHost: Sendable, Equatable {
    package var pattern: HostPattern
    /// Indices into `Snapshot.routes`, in the order in which the router tries them is its own affair.
    package var routes: [Int]
    /// What is asked of clients' certificates; nil: nothing.
    package var clientAuthentication: ClientAuthentication?

    package init(pattern: HostPattern, routes: [Int], clientAuthentication: ClientAuthentication? = nil) {
        self.pattern = pattern
        self.routes = routes
        self.clientAuthentication = clientAuthentication
    }
}

/// Which hosts a rule speaks of (Kubernetes API: IngressRule.host). Lower case, no port, no trailing dot.
package enum HostPattern: Sendable, Hashable, Comparable, CustomStringConvertible {
    /// A rule without a host: any.
    case any
    case exact(String)
    /// `*.shop.test` is `.wildcard("shop.test")`: exactly one label stands for the star.
    case wildcard(String)

    package var description: String {
        switch self {
        case .any: "*"
        case .exact(let host): host
        case .wildcard(let parent): "*.\(parent)"
        }
    }

    package static func < (a: Self, b: Self) -> Bool { a.description < b.description }
}

/// How a path is matched (Kubernetes API: HTTPIngressPath.pathType).
package enum PathPattern: Sendable, Hashable, CustomStringConvertible {
    /// The whole canonical path, case-sensitive.
    case exact(String)
    /// By elements: `/a` matches `/a` and `/a/b`, not `/ab`. A trailing slash of the pattern is ignored; `/` matches all.
    case prefix(String)

    package var path: String {
        switch self {
        case .exact(let path), .prefix(let path): path
        }
    }

    package var description: String {
        switch self {
        case .exact(let path): "Exact \(path)"
        case .prefix(let path): "Prefix \(path)"
        }
    }
}

/// One path of one rule of one Ingress: where a request goes and what is done to it on the way.
package struct Route: Sendable, Equatable {
    package var path: PathPattern
    /// The Ingress that it comes from, and the place of its rule there (`rules[0].http.paths[1]`, `defaultBackend`).
    package var ingress: ObjectReference
    package var rule: String
    package var host: HostPattern
    /// Index into `Snapshot.upstreams`; nil when the backend is unknown (Service or port missing): answers 503.
    package var upstream: Int?
    /// The same for requests on TLS connections, where the backend is spoken to as the client speaks to us
    /// (`backend-protocol: AUTO_HTTP`); nil: `upstream` serves them too.
    package var secureUpstream: Int?
    /// There is no upstream, and how its Ingress wants its backends to be secured can't be carried over to another one:
    /// scripts choose none either.
    package var isUnsecured = false
    package var policy: RoutePolicy
    /// In the order in which they run.
    package var scripts: [ScriptBinding]

    package init(
        path: PathPattern, ingress: ObjectReference, rule: String, host: HostPattern, upstream: Int?,
        policy: RoutePolicy = RoutePolicy(), scripts: [ScriptBinding] = []
    ) {
        self.path = path
        self.ingress = ingress
        self.rule = rule
        self.host = host
        self.upstream = upstream
        self.policy = policy
        self.scripts = scripts
    }

    /// - Parameter isSecure: for requests on TLS connections.
    package func upstream(isSecure: Bool) -> Int? { isSecure ? secureUpstream ?? upstream : upstream }
}

/// What an Ingress may set for its routes. Nil takes the listener's default. Durations in milliseconds; 0 is no limit.
package struct RoutePolicy: Sendable, Equatable {
    package var connectTimeout: Int?
    package var responseHeadTimeout: Int?
    package var streamIdleTimeout: Int?
    package var totalTimeout: Int?
    /// Largest request body in bytes; 0 is no limit.
    package var maxBodyBytes: Int?
    /// How many times a safe failure is tried again; 0 never.
    package var retries: Int?
    /// Plain HTTP is redirected to HTTPS where the host has a certificate; nil takes the operator's default.
    package var sslRedirect: Bool?
    /// The same whether or not there is a certificate: TLS ends before us.
    package var forceSSLRedirect: Bool?
    /// What the two come to for this route.
    package var redirectsToHTTPS = false
    /// Everything is answered with 403: the Ingress asks for client certificates, and cannot have them.
    package var isDenied = false
    /// What responses are compressed with.
    package var compression: CompressionChoice?
    /// Requests of gRPC-Web are made requests of gRPC.
    package var bridgesGRPCWeb = false
    /// Paths with `%2F` or `%5C` are served, which else are refused: they are data to the router, and must be to the
    /// upstream.
    package var allowsEncodedSlashes = false
    /// The TLS of the host is the endpoints' own.
    package var sslPassthrough: Bool?

    package init() {}
}

/// A Service port, its endpoints, and how they are spoken to.
package struct Upstream: Sendable, Equatable {
    /// `namespace/service:port`, with the port as the Ingress wrote it, and `variant`: the key of pools, health and
    /// metrics.
    package var name: String
    package var namespace: String
    package var service: String
    package var port: String
    package var endpoints: [Endpoint]
    package var balance: Balance
    package var `protocol`: UpstreamProtocol
    /// How TLS is made, where `protocol` is over TLS; nil takes the default, which verifies nothing.
    package var tls: UpstreamTLS?
    /// Each connection begins with a PROXY protocol header that says whom it is for.
    package var proxyHeader: ProxyProtocolVersion?
    /// What an Ingress asks for beside what the Service says of itself, as `+https(verify)`; empty if nothing. One
    /// Service port spoken to in two ways is two upstreams: their connections must never be mixed up.
    package var variant = ""
    /// Which other namespaces' scripts may choose it (`moongate.dev/allow-namespaces` on the Service; `*` is all). A
    /// script may choose an upstream of its own namespace, and these; that an upstream is in the snapshot is no grant.
    package var allowedNamespaces: [String] = []

    /// A connection with a header is one client's, and those of HTTP/2 are everybody's: it has no endpoints.
    package var isUnspeakable: Bool { proxyHeader != nil && `protocol`.isHTTP2 }

    package enum Balance: String, Sendable, Hashable {
        case roundRobin = "round-robin"
        case leastRequest = "least-request"
    }

    /// The upstream with other settings than its Service's own, under a name that tells it apart.
    package func varied(
        _ protocol: UpstreamProtocol, _ tls: UpstreamTLS?, _ proxyHeader: ProxyProtocolVersion? = nil
    ) -> Upstream {
        var result = self
        result.protocol = `protocol`
        result.tls = tls?.label.isEmpty == false ? tls : nil
        result.proxyHeader = proxyHeader
        let label = [result.tls?.label, proxyHeader.map { "send-proxy-\($0.rawValue)" }].compactMap(\.self)
            .joined(separator: ",")
        result.variant =
            `protocol` == self.protocol && label.isEmpty
            ? "" : "+\(`protocol`.rawValue)" + (label.isEmpty ? "" : "(\(label))")
        result.name = "\(namespace)/\(service):\(port)\(result.variant)"
        return result
    }

    /// The upstream of the Service port of that name that is for datagrams: one Service may have both under one number.
    package func forDatagrams() -> Upstream {
        var result = self
        result.variant = Self.datagrams
        result.name += result.variant
        return result
    }

    package var isForDatagrams: Bool { variant == Self.datagrams }
    private static let datagrams = "+udp"

    package init(
        namespace: String, service: String, port: String, endpoints: [Endpoint] = [], balance: Balance = .roundRobin,
        protocol: UpstreamProtocol = .http
    ) {
        self.name = "\(namespace)/\(service):\(port)"
        self.namespace = namespace
        self.service = service
        self.port = port
        self.endpoints = endpoints
        self.balance = balance
        self.protocol = `protocol`
    }
}

/// One address behind a Service (discovery.k8s.io/v1 EndpointSlice). Only those that may be served stand in an
/// `Upstream`: ready ones, or, where none is ready, those that are serving while they terminate.
package struct Endpoint: Sendable, Hashable {
    package enum Host: Sendable, Hashable {
        case ip(IPAddress)
        /// An ExternalName: looked up off the loops, kept fresh by the control plane.
        case name(String)
    }

    package var host: Host
    package var port: UInt16
    package var zone: String?
    package var isTerminating: Bool

    package init(host: Host, port: UInt16, zone: String? = nil, isTerminating: Bool = false) {
        self.host = host
        self.port = port
        self.zone = zone
        self.isTerminating = isTerminating
    }

    package init(_ address: SocketAddress) {
        self.init(host: .ip(address.ip), port: address.port)
    }
}

/// The source of a script, before it is compiled.
package struct ScriptSource: Sendable, Hashable {
    /// How users name it: `plugin/header-canary`, `shop/header-canary:main.lua`, `inline`, `./scripts/ab.lua`.
    package var name: String
    /// Whose it is: scripts of two namespaces never share a VM.
    package var namespace: String
    /// The Ingress that an `inline` script stands in; empty for others.
    package var ingress: String
    /// The chunk that is run.
    package var main: String
    /// What `require("name")` finds: the other keys of the same ConfigMap, without `.lua`, sorted by name.
    package var modules: [Module]

    /// The name among all tenants, for metrics and logs: `shop/plugin/header-canary`, `shop/inline:web`,
    /// `shop/header-canary:main.lua`. Two scripts with the same short name are two.
    package var qualifiedName: String {
        let short = ingress.isEmpty ? String(name.trimmingPrefix("./")) : "\(name):\(ingress)"
        return short.hasPrefix("\(namespace)/") ? short : "\(namespace)/\(short)"
    }

    package struct Module: Sendable, Hashable {
        package var name: String
        package var source: String

        package init(name: String, source: String) {
            self.name = name
            self.source = source
        }
    }

    package init(name: String, namespace: String, ingress: String = "", main: String, modules: [Module] = []) {
        self.name = name
        self.namespace = namespace
        self.ingress = ingress
        self.main = main
        self.modules = modules
    }
}

/// A script attached to the routes of an Ingress (SCRIPTING.md §5).
package struct ScriptBinding: Sendable, Hashable {
    /// Index into `Snapshot.scripts`; nil when the reference resolves to nothing (a diagnostic says so): the last good
    /// version keeps serving, and without one the binding's failure policy applies.
    package var script: Int?
    /// The reference as it was written.
    package var reference: String
    package var order: Int
    package var arguments: ConfigValue
    package var onError: FailurePolicy?
    package var budget: Budget
    /// Share of requests that the script sees, 0…100.
    package var percent: Double
    package var mode: Mode
    /// Where the binding stands, for diagnostics.
    package var place: Place

    package enum FailurePolicy: String, Sendable, Hashable {
        case open
        case closed
    }

    package enum Mode: String, Sendable, Hashable {
        case enforce
        case shadow
        case off
    }

    /// Nil takes the default: 5 ms of CPU, 8 MiB, 1 s of wall time.
    package struct Budget: Sendable, Hashable {
        package var cpuMicroseconds: Int?
        package var memoryBytes: Int?
        package var wallMilliseconds: Int?

        package init(cpuMicroseconds: Int? = nil, memoryBytes: Int? = nil, wallMilliseconds: Int? = nil) {
            self.cpuMicroseconds = cpuMicroseconds
            self.memoryBytes = memoryBytes
            self.wallMilliseconds = wallMilliseconds
        }
    }

    package init(
        script: Int?, reference: String, order: Int, arguments: ConfigValue = .map([]), onError: FailurePolicy? = nil,
        budget: Budget = Budget(), percent: Double = 100, mode: Mode = .enforce, place: Place = Place()
    ) {
        self.script = script
        self.reference = reference
        self.order = order
        self.arguments = arguments
        self.onError = onError
        self.budget = budget
        self.percent = percent
        self.mode = mode
        self.place = place
    }
}

/// A Secret named by `spec.tls`, and the hosts that it is for.
package struct CertificateReference: Sendable, Hashable {
    package var hosts: [String]
    /// Those of the Ingress's rules that no entry of its `spec.tls` lists: it serves them if it covers them.
    package var unlisted: [String] = []
    package var secret: ObjectReference
    package var ingress: ObjectReference
    /// What the Secret holds; nil where it is not there, or has no certificate in it.
    package var pair: TLSKeyPair?
    /// The Secret is there, and has no certificate in it.
    package var isEmpty = false
    /// Where the Secret is named, for diagnostics.
    package var place: Place

    package init(
        hosts: [String], secret: ObjectReference, ingress: ObjectReference, pair: TLSKeyPair? = nil,
        place: Place = Place()
    ) {
        self.hosts = hosts
        self.secret = secret
        self.ingress = ingress
        self.pair = pair
        self.place = place
    }
}
