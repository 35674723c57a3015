// One request and its response, as values that every room may read: what routing, scripts, log and metrics share.
// It knows no socket and no HTTP version. A loop pools its exchanges; between two uses `reset` keeps the memory.

/// Who sent the request, as far as the proxy believes it.
package struct Client: Sendable {
    /// The peer of the TCP connection, or what a trusted proxy says of it.
    package var address = SocketAddress(ip: IPAddress(v4: 0), port: 0)
    /// The peer of the TCP connection itself.
    package var peer = SocketAddress(ip: IPAddress(v4: 0), port: 0)
    /// The peer is one of `--trusted-proxies`.
    package var isTrustedProxy = false
    package var isSecure = false
    /// The connection with the peer itself speaks TLS, whatever a trusted proxy says.
    package var isOverTLS = false
    /// What was agreed on our own connection with the peer; nil without TLS.
    package var channel: SecureChannel?
    /// The certificate that the client has shown to the host that it asks; nil where the host wants none.
    package var certificate: ClientCertificate?

    package init() {}
}

/// Where a response came from (SCRIPTING.md §11: `res.origin`).
package enum ResponseOrigin: UInt8, Sendable, Hashable {
    case none
    case upstream
    case script
    case moongate
}

/// Why a request did not end as its client wished. `label` is bounded: it stands in metrics and in the access log.
package enum FailureReason: UInt8, Sendable, Hashable, CaseIterable {
    case none
    // The client's doing.
    case malformedRequest
    /// A request without TLS where TLS is spoken.
    case plainHTTP
    /// The host has another certificate than the one that the connection was made with.
    case misdirected
    /// The host asks for a certificate of the client's, and there is none.
    case noClientCertificate
    case badClientCertificate
    /// The certificate is good, and its subject is none that may come.
    case clientForbidden
    /// What the host asks of its clients cannot be checked: nobody gets through.
    case clientRulesBroken
    case unsupportedVersion
    case unsupportedCoding
    case headTooLarge
    case tooManyFields
    case targetTooLong
    case bodyTooLarge
    case headTimeout
    case bodyTimeout
    case clientClosed
    case expectationFailed
    case methodNotAllowed
    // Ours.
    case noRoute
    case noBackend
    case noEndpoint
    case overloaded
    case draining
    case scriptFailed
    case rewriteLoop
    case internalError
    // The upstream's.
    case connectFailed
    case connectTimeout
    case upstreamTLSHandshake
    /// The endpoint's certificate leads to no authority, or has expired.
    case upstreamTLSCertificate
    /// It is for others.
    case upstreamTLSName
    case upstreamTLSTimeout
    /// What TLS is to be made with can't be used.
    case upstreamTLSSetup
    case upstreamClosed
    case upstreamReset
    case malformedResponse
    /// It has answered a wish for a WebSocket with a page: to the client that would say that the tunnel is open.
    case noUpgrade
    case responseTimeout
    case streamTimeout
    case totalTimeout

    /// kebab-case, stable.
    package var label: String {
        switch self {
        case .none: "-"
        case .malformedRequest: "malformed-request"
        case .plainHTTP: "plain-http"
        case .misdirected: "misdirected"
        case .noClientCertificate: "no-client-certificate"
        case .badClientCertificate: "bad-client-certificate"
        case .clientForbidden: "client-forbidden"
        case .clientRulesBroken: "client-rules-broken"
        case .unsupportedVersion: "unsupported-version"
        case .unsupportedCoding: "unsupported-coding"
        case .headTooLarge: "head-too-large"
        case .tooManyFields: "too-many-fields"
        case .targetTooLong: "target-too-long"
        case .bodyTooLarge: "body-too-large"
        case .headTimeout: "head-timeout"
        case .bodyTimeout: "body-timeout"
        case .clientClosed: "client-closed"
        case .expectationFailed: "expectation-failed"
        case .methodNotAllowed: "method-not-allowed"
        case .noRoute: "no-route"
        case .noBackend: "no-backend"
        case .noEndpoint: "no-endpoint"
        case .overloaded: "overloaded"
        case .draining: "draining"
        case .scriptFailed: "script-failed"
        case .rewriteLoop: "rewrite-loop"
        case .internalError: "internal-error"
        case .connectFailed: "connect-failed"
        case .connectTimeout: "connect-timeout"
        case .upstreamTLSHandshake: "upstream-tls-handshake"
        case .upstreamTLSCertificate: "upstream-tls-certificate"
        case .upstreamTLSName: "upstream-tls-name"
        case .upstreamTLSTimeout: "upstream-tls-timeout"
        case .upstreamTLSSetup: "upstream-tls-setup"
        case .upstreamClosed: "upstream-closed"
        case .upstreamReset: "upstream-reset"
        case .malformedResponse: "malformed-response"
        case .noUpgrade: "no-upgrade"
        case .responseTimeout: "response-timeout"
        case .streamTimeout: "stream-timeout"
        case .totalTimeout: "total-timeout"
        }
    }
}

/// The class of a script's error (SCRIPTING.md §5).
package enum ScriptErrorClass: UInt8, Sendable, CaseIterable {
    case runtime
    case cpu
    case memory
    case wall
    case api

    package var label: String {
        switch self {
        case .runtime: "runtime"
        case .cpu: "cpu"
        case .memory: "memory"
        case .wall: "wall"
        case .api: "api"
        }
    }
}

/// A failure of one script in this request.
package struct ScriptError: Sendable {
    /// As in `ScriptRun.script`.
    package var script: Int32
    package var errorClass: ScriptErrorClass

    package init(script: Int32, errorClass: ScriptErrorClass) {
        self.script = script
        self.errorClass = errorClass
    }
}

/// What one script did in one phase of this request, for the access log.
package struct ScriptRun: Sendable {
    package enum Outcome: UInt8, Sendable, Hashable {
        case next
        case responded
        case failed
        case skipped
    }

    /// Index into the loop's table of script names.
    package var script: Int32
    package var outcome: Outcome
    /// CPU time in nanoseconds over all phases. Of phases too short for the CPU clock to be read it is the time by the
    /// wall clock, which such a phase hardly ever shares with another thread.
    package var nanoseconds: UInt32

    package init(script: Int32, outcome: Outcome, nanoseconds: UInt32) {
        self.script = script
        self.outcome = outcome
        self.nanoseconds = nanoseconds
    }
}

/// One request and its response. Belongs to one loop and is never shared between threads.
package final class Exchange {
    // MARK: What came in
    package var request = MessageHead()
    package var client = Client()
    /// Counted up at each reuse: a handle that a script kept is recognised as stale.
    package var generation: UInt32 = 0
    /// The request id, in `request.bytes` (kept from a valid `X-Request-ID`, else made).
    package var idRange: ByteRange = .empty

    // MARK: What was decided
    /// Index into `Snapshot.routes`, -1 before the match and where none matched.
    package var route: Int32 = -1
    /// Index into `Snapshot.upstreams`: the rule's own, or what a script chose; -1 none.
    package var upstream: Int32 = -1
    /// A script chose `upstream`, and with `strict`: without a ready endpoint there the rule's own does not stand in.
    package var isUpstreamChosen = false
    package var isUpstreamStrict = false
    /// `ctx.upstream:hash_key`; 0 is none.
    package var hashKey: UInt64 = 0
    /// `ctx.upstream:timeout` in milliseconds; 0 takes the route's.
    package var responseTimeout: UInt32 = 0
    /// `ctx.upstream:retries`; negative takes the route's.
    package var retries: Int32 = -1

    /// What carries the bytes of a connection that is no HTTP: an index into the snapshot's TCP services and, behind them,
    /// its hosts with passthrough and its UDP services; -1 for a request.
    package var relay: Int32 = -1
    /// Of a relay: the port that it came to, and the host that its ClientHello names.
    package var localPort: UInt16 = 0
    package var serverName: [UInt8] = []
    /// It is a session of datagrams, and these are how many passed.
    package var isSession = false
    package var datagramsIn: UInt64 = 0
    package var datagramsOut: UInt64 = 0

    // MARK: What came back
    package var response = MessageHead()
    package var origin: ResponseOrigin = .none
    package var reason: FailureReason = .none
    /// What exactly is wrong with the request that `reason` refuses.
    package var fault: RequestFault = .none
    /// The body of a response that a script or the proxy made; empty for the upstream's.
    package var ownBody: [UInt8] = []

    // MARK: For the log
    package var endpoint: SocketAddress?
    /// What was agreed with the endpoint; nil without TLS.
    package var upstreamChannel: SecureChannel?
    package var attempts: UInt16 = 0
    /// The status of a gRPC call; negative where the request is none, or ended without one.
    package var grpcStatus: Int8 = -1
    /// Nanoseconds of the loop's clock; 0 has not happened.
    package var started: UInt64 = 0
    package var upstreamStarted: UInt64 = 0
    package var upstreamAnswered: UInt64 = 0
    package var finished: UInt64 = 0
    package var bytesIn: UInt64 = 0
    package var bytesOut: UInt64 = 0
    /// What we compress the response's body with, and how much of it there was before.
    package var coding: ContentCoding?
    package var bytesBeforeCoding: UInt64 = 0
    /// Tags in the order of their keys' first use: name and value in `tagBytes`.
    package var tags: [Tag] = []
    package var tagBytes: [UInt8] = []
    package var scriptRuns: [ScriptRun] = []
    package var scriptErrors: [ScriptError] = []
    /// What the scripts of this request keep between their phases: a slot of the loop's middlewares; -1 none.
    package var scriptState: Int32 = -1

    package struct Tag: Sendable {
        package var name: ByteRange
        package var value: ByteRange

        package init(name: ByteRange, value: ByteRange) {
            self.name = name
            self.value = value
        }
    }

    package init() {}

    /// Ready for the next request; keeps the memory of every array.
    package func reset() {
        generation &+= 1
        request.removeAll()
        response.removeAll()
        client = Client()
        idRange = .empty
        route = -1
        upstream = -1
        isUpstreamChosen = false
        isUpstreamStrict = false
        hashKey = 0
        responseTimeout = 0
        retries = -1
        if relay >= 0 {
            relay = -1
            localPort = 0
            serverName.removeAll()
            isSession = false
            datagramsIn = 0
            datagramsOut = 0
        }
        origin = .none
        reason = .none
        fault = .none
        if !ownBody.isEmpty { ownBody.removeAll(keepingCapacity: ownBody.capacity <= 65536) }
        endpoint = nil
        upstreamChannel = nil
        attempts = 0
        grpcStatus = -1
        started = 0
        upstreamStarted = 0
        upstreamAnswered = 0
        finished = 0
        bytesIn = 0
        bytesOut = 0
        coding = nil
        bytesBeforeCoding = 0
        if !tags.isEmpty { tags.removeAll(keepingCapacity: true) }
        if !tagBytes.isEmpty { tagBytes.removeAll(keepingCapacity: true) }
        if !scriptErrors.isEmpty { scriptErrors.removeAll(keepingCapacity: true) }
        if !scriptRuns.isEmpty { scriptRuns.removeAll(keepingCapacity: true) }
        scriptState = -1
    }

    /// Sets a tag (`ctx:tag`): the last value of a name wins.
    package func tag(_ name: Span<UInt8>, _ value: Span<UInt8>) {
        let valueRange = Self.store(value, in: &tagBytes)
        for i in tags.indices where tags[i].name.count == UInt32(name.count) {
            let base = Int(tags[i].name.offset)
            if (0..<name.count).allSatisfy({ tagBytes[base + $0] == name[$0] }) {
                tags[i].value = valueRange
                return
            }
        }
        tags.append(Tag(name: Self.store(name, in: &tagBytes), value: valueRange))
    }

    private static func store(_ source: Span<UInt8>, in bytes: inout [UInt8]) -> ByteRange {
        let offset = bytes.count
        bytes.append(source)
        return ByteRange(offset: offset, count: source.count)
    }
}
