// What an operator sets for the whole data plane; what an Ingress sets for its routes is laid over it (`RoutePolicy`).
package import HTTPWire
package import Model

package struct ProxyConfiguration: Sendable {
    /// Where to listen for plain HTTP. Port 0 takes a free one.
    package var listen: [Model.SocketAddress]
    /// Where to listen for HTTPS; who connects there is served with the certificates of the publication.
    package var listenSecure: [Model.SocketAddress] = []
    /// Ports that no TCP service can have, for another part of the process listens there.
    package var reservedPorts: [UInt16] = []
    /// Whether Moongate listens there itself, as far as ports are known before they are bound (0 takes a free one).
    func reserves(tcpPort port: UInt16) -> Bool {
        (listen + listenSecure).contains { $0.port == port } || reservedPorts.contains(port)
    }

    /// Event loops; each has a thread.
    package var loops: Int
    /// Each loop on a CPU of its own.
    package var pinsThreads = false

    /// The port of the URLs that plain HTTP is redirected to; 443 is left out of them.
    package var redirectPort: UInt16 = 443
    /// `Strict-Transport-Security` (RFC 6797) of every response over TLS; empty sends none.
    package var transportSecurity: [UInt8] = []

    package var limits = Limits()
    package var timeouts = Timeouts()
    package var retry = Retry()
    /// Peers whose `X-Forwarded-*` and `Forwarded` are believed.
    package var trustedProxies: [AddressBlock] = []
    /// Their connections begin with a PROXY protocol header, which says whom they speak for.
    package var usesProxyProtocol = false
    /// Also tells upstreams by `Forwarded` (RFC 7239).
    package var sendsForwarded = false
    package var sendsVia = false
    /// How many spare connections a loop keeps to each endpoint.
    package var idleUpstreamConnections = 256
    /// Connections of clients that are served at once; beyond, new ones are refused by closing. 0 takes as many as
    /// there are descriptors for, two a connection.
    package var maxConnections = 0
    /// Descriptors that are left to the rest of the process, beside a few.
    package var reservedDescriptors = 0
    /// Of them, those of one client (an IPv4 address, an IPv6 /64) that is no trusted proxy; 0 is no limit.
    package var maxConnectionsPerClient = 0

    package var compression = Compression()
    package var sessions = Sessions()

    /// Of UDP services.
    package struct Sessions: Sendable {
        /// At one time, over all loops. 0 leaves no descriptors for them.
        package var most = 0
        /// Of them, those of one client (an IPv4 address, an IPv6 /64) that is no trusted proxy; 0 is no limit.
        package var mostPerClient = 0
        /// Answers to each datagram, after which a session ends; 0 is any number.
        package var answers: UInt64 = 0

        package init() {}
    }

    /// Of responses, on their way to clients.
    package struct Compression: Sendable {
        /// Where an Ingress says nothing.
        package var choice = CompressionChoice(codings: .off)
        package var levels = CodingLevels()
        package var limits = CompressionRule.Limits()
        /// What the encoders of one loop may take together, in bytes; beyond, responses go out as they are.
        package var memory = 32 << 20

        package init() {}
    }

    package struct Limits: Sendable {
        package var headBytes = 64 * 1024
        package var fields = 100
        package var fieldBytes = 8 * 1024
        package var targetBytes = 8 * 1024
        /// 0 is no limit.
        package var bodyBytes: UInt64 = 0
        package var responseHeadBytes = 64 * 1024
        /// Requests that one HTTP/2 connection may have under way.
        package var streams = 128
        /// A request's body must come at this rate on the average, in bytes a second, after a grace of
        /// `Timeouts.streamIdle`: a byte a minute keeps no exchange alive. 0 is no limit.
        package var bodyRate: UInt64 = 128

        package init() {}
    }

    /// Milliseconds; 0 is no limit.
    package struct Timeouts: Sendable {
        /// From the accepted connection to the end of the TLS handshake.
        package var handshake: UInt64 = 10_000
        /// From the accepted connection to the end of its PROXY protocol header.
        package var proxyHeader: UInt64 = 5_000
        package var requestHead: UInt64 = 10_000
        package var idle: UInt64 = 60_000
        package var connect: UInt64 = 5_000
        package var responseHead: UInt64 = 60_000
        package var streamIdle: UInt64 = 60_000
        /// How long neither side of a TCP service may send anything.
        package var relayIdle: UInt64 = 600_000
        /// How long nothing may pass in a session of a UDP service; it can't be without a limit.
        package var sessionIdle: UInt64 = 60_000
        /// The same while the process is going.
        package var sessionQuiet: UInt64 = 2_000
        package var total: UInt64 = 0
        package var upstreamIdle: UInt64 = 50_000
        /// How long a closing connection may still take to read its last response, or to stop sending.
        package var linger: UInt64 = 5_000

        package init() {}
    }

    package struct Retry: Sendable {
        /// Attempts after the first.
        package var attempts = 2

        package init() {}
    }

    /// What is offered to clients inside of TLS, by preference (RFC 7301).
    package static var applicationProtocols: [String] { ApplicationProtocol.names }

    package init(listen: [Model.SocketAddress], loops: Int = 0) {
        self.listen = listen
        self.loops = loops
    }
}

/// A route's policy with the defaults filled in: what a loop reads on the path.
struct ResolvedPolicy: Sendable {
    var connectTimeout: UInt64
    var responseHeadTimeout: UInt64
    var streamIdleTimeout: UInt64
    var totalTimeout: UInt64
    var maxBodyBytes: UInt64
    var retries: Int
    var redirectsToHTTPS = false
    /// What responses are compressed with, by preference; none: they are not.
    var codings = CodingList()
    var compressesSecrets = false
    var bridgesGRPCWeb = false
    var allowsEncodedSlashes = false

    /// Responses are looked at once more, for something may be done to their bodies.
    var changesBodies: Bool { !codings.isEmpty || bridgesGRPCWeb }

    init(_ configuration: ProxyConfiguration) {
        connectTimeout = configuration.timeouts.connect
        responseHeadTimeout = configuration.timeouts.responseHead
        streamIdleTimeout = configuration.timeouts.streamIdle
        totalTimeout = configuration.timeouts.total
        maxBodyBytes = configuration.limits.bodyBytes
        retries = configuration.retry.attempts
        compress(configuration.compression.choice, inheriting: .standard)
    }

    init(_ policy: RoutePolicy, over defaults: ResolvedPolicy) {
        self = defaults
        func milliseconds(_ value: Int?, _ other: UInt64) -> UInt64 { value.map { UInt64(max(0, $0)) } ?? other }
        connectTimeout = milliseconds(policy.connectTimeout, connectTimeout)
        responseHeadTimeout = milliseconds(policy.responseHeadTimeout, responseHeadTimeout)
        streamIdleTimeout = milliseconds(policy.streamIdleTimeout, streamIdleTimeout)
        totalTimeout = milliseconds(policy.totalTimeout, totalTimeout)
        maxBodyBytes = policy.maxBodyBytes.map { UInt64(max(0, $0)) } ?? maxBodyBytes
        retries = policy.retries.map { max(0, $0) } ?? retries
        redirectsToHTTPS = policy.redirectsToHTTPS
        if let choice = policy.compression {
            compress(choice, inheriting: defaults.codings.isEmpty ? .standard : defaults.codings)
        }
        bridgesGRPCWeb = policy.bridgesGRPCWeb
        allowsEncodedSlashes = policy.allowsEncodedSlashes
    }

    private mutating func compress(_ choice: CompressionChoice, inheriting above: CodingList) {
        switch choice.codings {
        case .inherited: codings = above
        case .off: codings = CodingList()
        case .these(let list): codings = list
        }
        compressesSecrets = choice.coversSecrets
    }
}
