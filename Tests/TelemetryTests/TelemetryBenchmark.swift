import Foundation
import Model
import Telemetry
import Testing

/// Prints nanoseconds per request. Run by
/// `MOONGATE_BENCHMARK=1 swift test -c release -Xswiftc -enable-testing --filter TelemetryBenchmark`.
@Suite("Benchmark", .enabled(if: ProcessInfo.processInfo.environment["MOONGATE_BENCHMARK"] != nil), .serialized)
struct TelemetryBenchmark {
    private struct NoSink: LogSink {
        func write(_ bytes: [UInt8]) {}
        func reopen() {}
    }

    static func best(_ rounds: Int = 15, _ n: Int = 100_000, _ body: () -> Void) -> Double {
        let clock = ContinuousClock()
        var best = Double.infinity
        for _ in 0..<rounds {
            let time = clock.measure { for _ in 0..<n { body() } }
            best = min(best, Double(time.components.attoseconds) / 1e9 / Double(n))
        }
        return best
    }

    @Test func perRequest() {
        let hub = MetricsHub(version: "1")
        let labels = hub.registry.labels(for: smallSnapshot(), now: 0)
        let loop = hub.makeLoop {}
        let exchange = finishedExchange()
        let counted = Self.best { loop.finished(exchange, labels: labels) }
        let event = Self.best { loop.count(UpstreamEvent.attempt, upstream: 0, labels: labels) }
        for format in AccessLogFormat.allCases {
            let log = AccessLog(format: format, writer: LogWriter(NoSink()))
            let logged = Self.best(5) { log.append(exchange, labels: labels, wall: wall) }
            print("BENCH access log line, \(format.rawValue): \(Int(logged)) ns")
        }
        loop.publish()
        print("BENCH metrics of a finished request with a script: \(Int(counted)) ns; one event: \(Int(event)) ns")
        #expect(
            hub.render(process: nil).contains("moongate_upstream_attempts_total{upstream=\"shop/web:80\"} 1500000\n"))
    }

    @Test func aReportOfManyRoutes() {
        let hub = MetricsHub(version: "1")
        var snapshot = smallSnapshot()
        for n in 0..<50_000 {
            var route = snapshot.routes[0]
            route.path = .prefix("/\(n)")
            snapshot.routes.append(route)
        }
        let clock = ContinuousClock()
        var labels = hub.registry.labels(for: snapshot, now: 0)
        let again = clock.measure { labels = hub.registry.labels(for: snapshot, previous: labels, now: 1) }
        let loop = hub.makeLoop {}
        let exchange = finishedExchange()
        for n in 0..<10_000 {
            exchange.route = Int32(n)
            loop.finished(exchange, labels: labels)
        }
        let publish = clock.measure { loop.publish() }
        var slowest = Duration.zero
        for n in 0..<10_000 {
            exchange.route = Int32(n)
            let time = clock.measure { loop.finished(exchange, labels: labels) }
            slowest = max(slowest, time)
        }
        let render = clock.measure { _ = hub.render(process: nil) }
        print(
            "BENCH 10,000 routes in use: report \(publish) on the loop, then at most \(slowest) for a request; page \(render);",
            "labels of 50,000 unchanged routes \(again)")
    }
}
