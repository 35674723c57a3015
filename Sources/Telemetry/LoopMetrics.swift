// What one loop counts. It belongs to that loop: no lock, no atomic, no allocation but for a series met the first time.
//
// Who reads: the admin server asks the hub, the hub posts to every loop's mailbox, and each loop hands in a report (see
// `CounterBlocks` for what that costs). Reading on request, and not by a timer, leaves an idle proxy idle and gives the
// figures of this moment.
package import Model

/// What happened between the proxy and an upstream.
package enum UpstreamEvent: UInt8, Sendable, CaseIterable {
    /// A request, or a retry of one, was given to an endpoint.
    case attempt
    case retry
    /// A retry was due, and the budget had none left.
    case retryRefused
    case connect
    case connectFailed
    /// An idle connection was used again.
    case poolHit
    case ejection
    case recovery
    case shedNoEndpoint
    case shedOverloaded

    var name: String {
        switch self {
        case .attempt: "attempts"
        case .retry: "retries"
        case .retryRefused: "retries_refused"
        case .connect: "connects"
        case .connectFailed: "connect_failures"
        case .poolHit: "pool_hits"
        case .ejection: "ejections"
        case .recovery: "recoveries"
        case .shedNoEndpoint: "no_endpoint"
        case .shedOverloaded: "overloaded"
        }
    }

    var help: String {
        switch self {
        case .attempt: "Requests given to an endpoint, retries included."
        case .retry: "Requests given to a further endpoint after a safe failure."
        case .retryRefused: "Retries that were not made because the retry budget was used up."
        case .connect: "Connections opened."
        case .connectFailed: "Connections that could not be opened."
        case .poolHit: "Requests sent on an idle connection."
        case .ejection: "Endpoints taken out of rotation after connect failures."
        case .recovery: "Ejected endpoints that came back."
        case .shedNoEndpoint: "Requests refused because there was no endpoint."
        case .shedOverloaded: "Requests refused because descriptors or ports for a connection were wanting."
        }
    }
}

package enum LoopEvent: UInt8, Sendable, CaseIterable {
    case connectionAccepted
    case connectionRefused
    case tunnelOpened
    case handshakeFull
    case handshakeResumed
    case upstreamHandshakeFull
    case upstreamHandshakeResumed
    case http2Opened
    case upstreamFault
    case compressionSkipped
    /// Impossible states that were met; each is a bug.
    case bug

    var name: String {
        switch self {
        case .connectionAccepted: "connections_accepted"
        case .connectionRefused: "connections_refused"
        case .tunnelOpened: "tunnels_opened"
        case .handshakeFull: "tls_handshakes_full"
        case .handshakeResumed: "tls_handshakes_resumed"
        case .upstreamHandshakeFull: "upstream_tls_handshakes_full"
        case .upstreamHandshakeResumed: "upstream_tls_handshakes_resumed"
        case .http2Opened: "http2_connections"
        case .upstreamFault: "upstream_http2_faults"
        case .compressionSkipped: "compression_skipped"
        case .bug: "bugs"
        }
    }

    var help: String {
        switch self {
        case .connectionAccepted: "Connections accepted from clients."
        case .connectionRefused: "Connections closed at once because a bound was reached."
        case .tunnelOpened: "Connections turned into tunnels by an upgrade."
        case .handshakeFull: "TLS handshakes with clients that came for the first time."
        case .handshakeResumed: "TLS handshakes that a session ticket made short."
        case .upstreamHandshakeFull: "TLS handshakes with endpoints, from the beginning."
        case .upstreamHandshakeResumed: "TLS handshakes with endpoints that an earlier session made short."
        case .http2Opened: "Connections of clients that speak HTTP/2."
        case .upstreamFault: "HTTP/2 connections closed because the endpoint broke the protocol or flooded them."
        case .compressionSkipped: "Responses sent uncompressed because the encoders had all their memory in use."
        case .bug: "Impossible states met; please report them."
        }
    }
}

package enum LoopGauge: UInt8, Sendable, CaseIterable {
    case connections
    case requests
    case tunnels
    case upstreamConnections
    case idleUpstreamConnections
    case sessions

    var name: String {
        switch self {
        case .connections: "connections_active"
        case .requests: "requests_active"
        case .tunnels: "tunnels_active"
        case .upstreamConnections: "upstream_connections_active"
        case .idleUpstreamConnections: "upstream_connections_idle"
        case .sessions: "udp_sessions_active"
        }
    }

    var help: String {
        switch self {
        case .connections: "Connections with clients that are open."
        case .requests: "Requests under way."
        case .tunnels: "Tunnels that are open."
        case .upstreamConnections: "Connections with upstreams that are open, idle ones included."
        case .idleUpstreamConnections: "Connections with upstreams that wait for a request."
        case .sessions: "Sessions of UDP services: clients that are remembered."
        }
    }
}

/// The class of a method, bounded: what is none of these is `other`.
enum MethodClass: Int, CaseIterable {
    case other, get, head, post, put, patch, delete, options

    @inline(__always)
    init(_ method: Method) {
        switch method {
        case .get: self = .get
        case .head: self = .head
        case .post: self = .post
        case .put: self = .put
        case .patch: self = .patch
        case .delete: self = .delete
        case .options: self = .options
        case .other, .connect, .trace: self = .other
        }
    }

    var label: String {
        switch self {
        case .other: "other"
        case .get: "GET"
        case .head: "HEAD"
        case .post: "POST"
        case .put: "PUT"
        case .patch: "PATCH"
        case .delete: "DELETE"
        case .options: "OPTIONS"
        }
    }
}

/// Status classes: 0 is no answer (the client went before there was one).
enum StatusClass {
    static let labels = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"]
    @inline(__always)
    static func index(_ status: UInt16) -> Int { status >= 100 && status < 600 ? Int(status / 100) : 0 }
}

/// Where the words of a block lie.
enum RouteLayout {
    static let requests = 0
    static let statuses = StatusClass.labels.count
    static let duration = requests + MethodClass.allCases.count * statuses
    static let bytesIn = duration + Buckets.requests.words
    static let bytesOut = bytesIn + 1
    static let stride = bytesOut + 1
}

/// Calls of gRPC by status, 0 to 16 (gRPC, statuscodes.md): apart from the rest, since most routes have none.
enum GRPCLayout {
    static let stride = 17
}

enum UpstreamLayout {
    static let events = 0
    static let answers = events + UpstreamEvent.allCases.count
    static let duration = answers + StatusClass.labels.count
    static let stride = duration + Buckets.requests.words
}

enum ScriptLayout {
    static let outcomes = 0
    static let errors = 4
    static let cpu = errors + ScriptErrorClass.allCases.count
    static let stride = cpu + Buckets.scripts.words
}

/// Where the words of a coding lie, behind each other.
enum CodingLayout {
    static let responses = 0
    static let bytesIn = 1
    static let bytesOut = 2
    static let stride = 3

    static func base(_ coding: ContentCoding) -> Int { (Int(coding.rawValue) - 1) * stride }
}

enum RelayLayout {
    static let connections = 0
    static let failures = 1
    static let bytesIn = 2
    static let bytesOut = 3
    static let stride = 4
}

enum SessionLayout {
    static let sessions = 0
    static let datagramsIn = 1
    static let datagramsOut = 2
    static let bytesIn = 3
    static let bytesOut = 4
    static let stride = 5
}

/// The counters of one loop at one moment.
struct LoopReport: Sendable {
    var routes = CounterBlocks(stride: RouteLayout.stride)
    /// By route.
    var calls = CounterBlocks(stride: GRPCLayout.stride)
    var upstreams = CounterBlocks(stride: UpstreamLayout.stride)
    var scripts = CounterBlocks(stride: ScriptLayout.stride)
    var relays = CounterBlocks(stride: RelayLayout.stride)
    /// By the series of relays, too.
    var sessions = CounterBlocks(stride: SessionLayout.stride)
    var events = [UInt64](repeating: 0, count: LoopEvent.allCases.count)
    var gauges = [Int64](repeating: 0, count: LoopGauge.allCases.count)
    var failures = [UInt64](repeating: 0, count: FailureReason.allCases.count)
    var handshakeFailures = [UInt64](repeating: 0, count: TLSFailure.allCases.count)
    var upstreamHandshakeFailures = [UInt64](repeating: 0, count: TLSFailure.allCases.count)
    var http2Faults = [UInt64](repeating: 0, count: HTTP2Fault.allCases.count)
    var proxyHeaderFaults = [UInt64](repeating: 0, count: ProxyHeaderFault.allCases.count)
    var datagramDrops = [UInt64](repeating: 0, count: DatagramDrop.allCases.count)
    var codings = [UInt64](repeating: 0, count: ContentCoding.allCases.count * CodingLayout.stride)
}

/// The counters of one loop. Not to be shared between threads.
package final class LoopMetrics {
    private var report = LoopReport()
    private let hub: MetricsHub
    let index: Int
    private let requestBuckets = Buckets.requests
    private let scriptBuckets = Buckets.scripts

    init(hub: MetricsHub, loop: Int) {
        self.hub = hub
        index = loop
    }

    /// Hands in a report: the answer to the hub's call, and to be given once more when the loop ends.
    package func publish() {
        hub.publish(report, from: index)
    }

    package func handshakeFailed(_ failure: TLSFailure) {
        report.handshakeFailures[Int(failure.rawValue)] &+= 1
    }

    package func upstreamHandshakeFailed(_ failure: TLSFailure) {
        report.upstreamHandshakeFailures[Int(failure.rawValue)] &+= 1
    }

    /// A request is over, however it ended.
    package func finished(_ exchange: Exchange, labels: TelemetryLabels) {
        let status = StatusClass.index(exchange.response.status)
        let counter =
            RouteLayout.requests + MethodClass(exchange.request.method).rawValue * RouteLayout.statuses + status
        let duration = exchange.finished > exchange.started ? exchange.finished - exchange.started : 0
        let bucket = RouteLayout.duration + requestBuckets.index(of: duration)
        let sum = RouteLayout.duration + requestBuckets.words - 1
        let bytesIn = exchange.bytesIn
        let bytesOut = exchange.bytesOut
        report.routes.update(labels.route(exchange.route)) { page, base in
            page[base &+ counter] &+= 1
            page[base &+ bucket] &+= 1
            page[base &+ sum] &+= duration
            page[base &+ RouteLayout.bytesIn] &+= bytesIn
            page[base &+ RouteLayout.bytesOut] &+= bytesOut
        }
        let code = Int(exchange.grpcStatus)
        if code >= 0, code < GRPCLayout.stride {
            report.calls.update(labels.route(exchange.route)) { page, base in page[base &+ code] &+= 1 }
        }
        if exchange.upstreamAnswered > exchange.upstreamStarted, exchange.upstreamStarted > 0 {
            let waited = exchange.upstreamAnswered - exchange.upstreamStarted
            let bucket = UpstreamLayout.duration + requestBuckets.index(of: waited)
            let sum = UpstreamLayout.duration + requestBuckets.words - 1
            report.upstreams.update(labels.upstream(exchange.upstream)) { page, base in
                page[base &+ UpstreamLayout.answers &+ status] &+= 1
                page[base &+ bucket] &+= 1
                page[base &+ sum] &+= waited
            }
        }
        if let coding = exchange.coding {
            let base = CodingLayout.base(coding)
            report.codings[base + CodingLayout.responses] &+= 1
            report.codings[base + CodingLayout.bytesIn] &+= exchange.bytesBeforeCoding
            report.codings[base + CodingLayout.bytesOut] &+= bytesOut
        }
        if exchange.reason != .none { report.failures[Int(exchange.reason.rawValue)] &+= 1 }
        for error in exchange.scriptErrors {
            scriptFailed(error.errorClass, script: error.script, labels: labels)
        }
        for run in exchange.scriptRuns {
            let outcome = ScriptLayout.outcomes + Int(run.outcome.rawValue)
            let time = UInt64(run.nanoseconds)
            let bucket = ScriptLayout.cpu + scriptBuckets.index(of: time)
            let sum = ScriptLayout.cpu + scriptBuckets.words - 1
            let isRun = run.outcome != .skipped
            report.scripts.update(labels.script(run.script)) { page, base in
                page[base &+ outcome] &+= 1
                if isRun {
                    page[base &+ bucket] &+= 1
                    page[base &+ sum] &+= time
                }
            }
        }
    }

    /// A connection that was no HTTP is over, however it ended.
    package func relayFinished(_ exchange: Exchange, labels: TelemetryLabels) {
        let hasFailed = exchange.reason != .none
        report.relays.update(labels.relay(exchange.relay)) { page, base in
            page[base &+ RelayLayout.connections] &+= 1
            if hasFailed { page[base &+ RelayLayout.failures] &+= 1 }
            page[base &+ RelayLayout.bytesIn] &+= exchange.bytesIn
            page[base &+ RelayLayout.bytesOut] &+= exchange.bytesOut
        }
    }

    /// A client of a UDP service has come. `relay` as in `Exchange.relay`.
    package func sessionBegan(relay: Int32, labels: TelemetryLabels) {
        report.sessions.update(labels.relay(relay)) { page, base in page[base &+ SessionLayout.sessions] &+= 1 }
    }

    /// Datagrams of a client were passed on.
    @inline(__always)
    package func datagramsCame(_ count: Int, bytes: Int, relay: Int32, labels: TelemetryLabels) {
        report.sessions.update(labels.relay(relay)) { page, base in
            page[base &+ SessionLayout.datagramsIn] &+= UInt64(count)
            page[base &+ SessionLayout.bytesIn] &+= UInt64(bytes)
        }
    }

    /// Datagrams were sent to a client.
    @inline(__always)
    package func datagramsWent(_ count: Int, bytes: Int, relay: Int32, labels: TelemetryLabels) {
        report.sessions.update(labels.relay(relay)) { page, base in
            page[base &+ SessionLayout.datagramsOut] &+= UInt64(count)
            page[base &+ SessionLayout.bytesOut] &+= UInt64(bytes)
        }
    }

    package func dropped(_ reason: DatagramDrop, _ count: Int = 1) {
        report.datagramDrops[Int(reason.rawValue)] &+= UInt64(count)
    }

    @inline(__always)
    package func count(_ event: LoopEvent, _ n: UInt64 = 1) {
        report.events[Int(event.rawValue)] &+= n
    }

    /// An HTTP/2 connection is ended for its client's doing.
    package func count(_ fault: HTTP2Fault) {
        report.http2Faults[Int(fault.rawValue)] &+= 1
    }

    /// A connection is closed because its PROXY protocol header is none.
    package func count(_ fault: ProxyHeaderFault) {
        report.proxyHeaderFaults[Int(fault.rawValue)] &+= 1
    }

    @inline(__always)
    package func adjust(_ gauge: LoopGauge, by n: Int64) {
        report.gauges[Int(gauge.rawValue)] &+= n
    }

    /// `upstream` as in `Exchange.upstream`.
    package func count(_ event: UpstreamEvent, upstream: Int32, labels: TelemetryLabels) {
        let word = UpstreamLayout.events + Int(event.rawValue)
        report.upstreams.update(labels.upstream(upstream)) { page, base in page[base &+ word] &+= 1 }
    }

    /// A failure that ended no exchange (a connection refused before its first head).
    package func failed(_ reason: FailureReason) {
        if reason != .none { report.failures[Int(reason.rawValue)] &+= 1 }
    }

    /// A script's error; the run itself is counted by `finished`. `script` as in `ScriptRun.script`.
    package func scriptFailed(_ error: ScriptErrorClass, script: Int32, labels: TelemetryLabels) {
        let word = ScriptLayout.errors + Int(error.rawValue)
        report.scripts.update(labels.script(script)) { page, base in page[base &+ word] &+= 1 }
    }
}
