// What a loop counts. Kept in the loop's own memory and read from outside through the room Telemetry.
internal import Model

final class LoopTelemetry {
    var accepted: UInt64 = 0
    var refused: UInt64 = 0
    var open: Int64 = 0
    var upstreamMade: UInt64 = 0
    var upstreamLeased: UInt64 = 0
    var retries: UInt64 = 0
    var requests: UInt64 = 0

    func connectionOpened() {
        accepted &+= 1
        open += 1
    }
    func connectionRefused() { refused &+= 1 }
    func connectionClosed() { open -= 1 }
    func upstreamOpened() { upstreamMade &+= 1 }
    func upstreamReused() { upstreamLeased &+= 1 }
    func retried() { retries &+= 1 }
    func downstreamRead(_ count: Int) {}
    func upstreamRead(_ count: Int) {}
    func finished(_ exchange: Exchange, _ pin: Pin) { requests &+= 1 }
}
