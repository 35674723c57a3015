// What a loop counts and writes about its connections and exchanges: one place, so that the path says what happened
// and not how it is told.
internal import Model
internal import Reactor
internal import Telemetry

/// Belongs to its loop.
final class LoopTelemetry {
    let metrics: LoopMetrics
    private let log: AccessLog?
    private let notices: ProxyNotices
    private(set) var connections: Int = 0

    init(metrics: LoopMetrics, log: AccessLog?, notices: ProxyNotices = ProxyNotices()) {
        self.metrics = metrics
        self.log = log
        self.notices = notices
    }

    func connectionOpened() {
        connections += 1
        metrics.count(.connectionAccepted)
        metrics.adjust(.connections, by: 1)
    }

    func connectionRefused() { metrics.count(.connectionRefused) }

    func connectionClosed() {
        connections -= 1
        metrics.adjust(.connections, by: -1)
    }

    func handshakeFinished(wasResumed: Bool) { metrics.count(wasResumed ? .handshakeResumed : .handshakeFull) }
    func handshakeFailed(_ failure: TLSFailure) { metrics.handshakeFailed(failure) }
    func proxyHeaderFailed(_ fault: ProxyHeaderFault, _ newcomer: Newcomer) {
        metrics.count(fault)
        notices.note(fault, from: newcomer.peer, port: newcomer.localPort, kind: newcomer.kind)
    }
    func upstreamHandshakeFinished(wasResumed: Bool) {
        metrics.count(wasResumed ? .upstreamHandshakeResumed : .upstreamHandshakeFull)
    }
    func upstreamHandshakeFailed(_ failure: TLSFailure) { metrics.upstreamHandshakeFailed(failure) }
    func http2Opened() { metrics.count(.http2Opened) }
    func http2Ended(_ fault: HTTP2Fault) { if fault != .none { metrics.count(fault) } }

    func upstreamFault() { metrics.count(.upstreamFault) }

    func upstreamOpened() { metrics.adjust(.upstreamConnections, by: 1) }
    func upstreamClosed() { metrics.adjust(.upstreamConnections, by: -1) }
    func upstreamParked() { metrics.adjust(.idleUpstreamConnections, by: 1) }
    func upstreamUnparked() { metrics.adjust(.idleUpstreamConnections, by: -1) }

    @inline(__always)
    func upstream(_ event: UpstreamEvent, _ exchange: Exchange, _ pin: Pin) {
        metrics.count(event, upstream: exchange.upstream, labels: pin.labels)
    }

    func tunnelOpened() {
        metrics.count(.tunnelOpened)
        metrics.adjust(.tunnels, by: 1)
    }

    func tunnelClosed() { metrics.adjust(.tunnels, by: -1) }

    /// A response would have been compressed, and all encoders were in use.
    func compressionSkipped() { metrics.count(.compressionSkipped) }

    /// An impossible state was met: it has been survived, and is told.
    func bug() { metrics.count(.bug) }

    func began() { metrics.adjust(.requests, by: 1) }

    func finished(_ exchange: Exchange, _ pin: Pin) {
        metrics.adjust(.requests, by: -1)
        let labels = pin.labels
        metrics.finished(exchange, labels: labels)
        log?.append(exchange, labels: labels, wall: WallClock.nanoseconds())
    }

    func relayFinished(_ exchange: Exchange, _ pin: Pin) {
        metrics.relayFinished(exchange, labels: pin.labels)
        log?.append(exchange, labels: pin.labels, wall: WallClock.nanoseconds())
    }

    // MARK: Datagrams

    func sessionBegan(_ relay: Int32, _ pin: Pin) {
        metrics.sessionBegan(relay: relay, labels: pin.labels)
        metrics.adjust(.sessions, by: 1)
    }

    func sessionEnded() { metrics.adjust(.sessions, by: -1) }

    func log(_ record: Exchange, _ pin: Pin) { log?.append(record, labels: pin.labels, wall: WallClock.nanoseconds()) }

    @inline(__always)
    func datagramsCame(_ count: Int, _ bytes: Int, _ relay: Int32, _ pin: Pin) {
        metrics.datagramsCame(count, bytes: bytes, relay: relay, labels: pin.labels)
    }

    @inline(__always)
    func datagramsWent(_ count: Int, _ bytes: Int, _ relay: Int32, _ pin: Pin) {
        metrics.datagramsWent(count, bytes: bytes, relay: relay, labels: pin.labels)
    }

    func datagramsDropped(_ reason: DatagramDrop, _ count: Int) { metrics.dropped(reason, count) }

    /// `upstream` as in `Exchange.upstream`.
    func upstream(_ event: UpstreamEvent, _ upstream: Int32, _ pin: Pin) {
        metrics.count(event, upstream: upstream, labels: pin.labels)
    }

    /// Hands over the lines that wait.
    func flush() { log?.flush() }
}
