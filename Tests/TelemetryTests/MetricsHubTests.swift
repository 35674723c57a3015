import Model
import Synchronization
import Testing

@testable import Telemetry

extension MetricsHub {
    /// The value of one sample of the page; nil if it is not there.
    func sample(_ name: String, process: ProcessFigures? = nil) -> String? {
        render(process: process).split(separator: "\n").first { $0.hasPrefix(name + " ") }
            .map { String($0.dropFirst(name.count + 1)) }
    }
}

private let route = #"ingress="shop/web",host="shop.test",path="/cart""#

@Suite("Figures") struct MetricsHubTests {
    @Test func loopsAreAddedUp() {
        let hub = MetricsHub(version: "1.2.3")
        let labels = hub.registry.labels(for: smallSnapshot(), now: 0)
        let loops = [hub.makeLoop {}, hub.makeLoop {}]
        let exchange = finishedExchange()
        for (n, loop) in loops.enumerated() {
            for _ in 0...n { loop.finished(exchange, labels: labels) }
            loop.count(.connectionAccepted, 5)
            loop.adjust(.connections, by: 3)
            loop.adjust(.connections, by: -1)
            loop.count(UpstreamEvent.poolHit, upstream: 0, labels: labels)
            loop.scriptFailed(.cpu, script: 0, labels: labels)
        }
        exchange.reason = .noRoute
        exchange.route = -1
        exchange.request.method = .other
        exchange.response.status = 404
        loops[0].finished(exchange, labels: labels)
        // Nothing is seen before the loops hand it in.
        #expect(hub.sample("moongate_connections_active") == "0")
        for loop in loops { loop.publish() }
        for (name, value) in [
            (#"moongate_build_info{version="1.2.3"}"#, "1"),
            (#"moongate_requests_total{\#(route),method="GET",status="2xx"}"#, "3"),
            (#"moongate_requests_total{ingress="",host="",path="",method="other",status="4xx"}"#, "1"),
            (#"moongate_request_duration_seconds_bucket{\#(route),le="0.0025"}"#, "0"),
            (#"moongate_request_duration_seconds_bucket{\#(route),le="0.005"}"#, "3"),
            (#"moongate_request_duration_seconds_bucket{\#(route),le="+Inf"}"#, "3"),
            (#"moongate_request_duration_seconds_sum{\#(route)}"#, "0.0105"),
            (#"moongate_request_duration_seconds_count{\#(route)}"#, "3"),
            (#"moongate_request_bytes_total{\#(route)}"#, "300"),
            (#"moongate_response_bytes_total{\#(route)}"#, "3702"),
            (#"moongate_upstream_pool_hits_total{upstream="shop/web:80"}"#, "2"),
            (#"moongate_upstream_responses_total{upstream="shop/web:80",status="2xx"}"#, "3"),
            (#"moongate_upstream_duration_seconds_count{upstream="shop/web:80"}"#, "4"),
            (#"moongate_script_runs_total{script="shop/plugin/header-canary",outcome="next"}"#, "4"),
            (#"moongate_script_errors_total{script="shop/plugin/header-canary",class="cpu"}"#, "2"),
            (#"moongate_script_cpu_seconds_bucket{script="shop/plugin/header-canary",le="2.5e-05"}"#, "4"),
            (#"moongate_failures_total{reason="no-route"}"#, "1"),
            (#"moongate_failures_total{reason="no-endpoint"}"#, "0"),
            ("moongate_connections_accepted_total", "10"), ("moongate_connections_active", "4"),
            ("moongate_log_lines_dropped_total", "0"),
        ] {
            #expect(hub.sample(name) == value, "\(name)")
        }
        // Counters go on after a report.
        loops[1].finished(finishedExchange(), labels: labels)
        #expect(hub.sample(#"moongate_requests_total{\#(route),method="GET",status="2xx"}"#) == "3")
        loops[1].publish()
        #expect(hub.sample(#"moongate_requests_total{\#(route),method="GET",status="2xx"}"#) == "4")
    }

    @Test func callsAreCountedByStatus() {
        let hub = MetricsHub(version: "1")
        let labels = hub.registry.labels(for: smallSnapshot(), now: 0)
        let loop = hub.makeLoop {}
        let exchange = finishedExchange()
        loop.finished(exchange, labels: labels)
        for status: Int8 in [0, 0, 14, 16, 17, 127] {
            exchange.grpcStatus = status
            loop.finished(exchange, labels: labels)
        }
        loop.publish()
        for (code, count) in [("0", "2"), ("14", "1"), ("16", "1"), ("1", nil), ("17", nil)] {
            #expect(hub.sample("moongate_grpc_calls_total{\(route),code=\"\(code)\"}") == count)
        }
    }

    /// With the labels of the snapshot before, the same series come out as without, and those of a new one are its own.
    @Test func labelsMadeFromThoseBeforeCountTheSame() {
        let hub = MetricsHub(version: "1")
        var snapshot = smallSnapshot()
        var labels = hub.registry.labels(for: snapshot, now: 0)
        for step in 0..<6 {
            switch step {
            case 0: snapshot.routes.insert(snapshot.routes[0], at: 0)
            case 1: snapshot.routes[0].path = .prefix("/new")
            case 2: snapshot.upstreams.insert(Upstream(namespace: "a", service: "a", port: "80"), at: 0)
            case 3: snapshot.upstreams.append(Upstream(namespace: "zoo", service: "z", port: "80"))
            case 4: snapshot.routes.swapAt(0, 1)
            default: snapshot.upstreams.removeFirst()
            }
            labels = hub.registry.labels(for: snapshot, previous: labels, now: 1)
            let anew = hub.registry.labels(for: snapshot, now: 1)
            #expect(labels.routes == anew.routes && labels.upstreams == anew.upstreams)
            #expect(labels.routeNames.map(\.json) == anew.routeNames.map(\.json))
            #expect(labels.upstreamNames.map(\.text) == anew.upstreamNames.map(\.text))
        }
    }

    @Test func compressionIsCountedByCoding() {
        let hub = MetricsHub(version: "1")
        let labels = hub.registry.labels(for: smallSnapshot(), now: 0)
        let loop = hub.makeLoop {}
        let exchange = finishedExchange()
        for coding in [ContentCoding.zstd, .zstd, .gzip] {
            exchange.coding = coding
            exchange.bytesBeforeCoding = 5000
            loop.finished(exchange, labels: labels)
        }
        loop.publish()
        for (name, coding, value) in [
            ("responses", "zstd", "2"), ("responses", "gzip", "1"), ("responses", "br", "0"),
            ("input_bytes", "zstd", "10000"), ("output_bytes", "zstd", "2468"), ("output_bytes", "gzip", "1234"),
        ] {
            #expect(hub.sample("moongate_compression_\(name)_total{coding=\"\(coding)\"}") == value)
        }
    }

    @Test func everyFamilyHasHelpAndTypeOnceAndEveryLineIsWellFormed() throws {
        let hub = MetricsHub(version: "x\"y\\z")
        let labels = hub.registry.labels(for: smallSnapshot(), now: 0)
        let loop = hub.makeLoop {}
        loop.finished(finishedExchange(), labels: labels)
        loop.publish()
        let page = hub.render()
        #expect(page.hasSuffix("\n"))
        var types: [String: String] = [:]
        var help: Set<String> = []
        let sample = try Regex(
            #"[a-zA-Z_][a-zA-Z0-9_]*(\{[a-z]+="([^"\\]|\\.)*"(,[a-z]+="([^"\\]|\\.)*")*\})? [-+0-9.eInfNa]+"#)
        for line in page.split(separator: "\n") {
            let words = line.split(separator: " ", maxSplits: 3).map(String.init)
            if line.hasPrefix("# HELP ") {
                #expect(help.insert(words[2]).inserted, "\(words[2])")
            } else if line.hasPrefix("# TYPE ") {
                #expect(help.contains(words[2]) && types[words[2]] == nil)
                types[words[2]] = words[3]
            } else {
                #expect(line.wholeMatch(of: sample) != nil, "\(line)")
                let name = line.prefix { $0 != "{" && $0 != " " }
                let family =
                    ["_bucket", "_sum", "_count"].lazy.compactMap { suffix in
                        name.hasSuffix(suffix) ? String(name.dropLast(suffix.count)) : nil
                    }.first { types[$0] == "histogram" } ?? String(name)
                #expect(types[family] != nil, "\(line)")
            }
        }
        #expect(page.contains(#"version="x\"y\\z""#))
        #expect(types["process_resident_memory_bytes"] == "gauge")
    }

    @Test func refreshAsksEveryLoopAndWaitsForAll() async {
        let hub = MetricsHub(version: "1")
        let asked = Mutex(0)
        // Reports come from elsewhere, as from a loop's own thread.
        let box = Mutex<[Int]>([])
        for n in 0..<3 {
            _ = hub.makeLoop {
                asked.withLock { $0 += 1 }
                box.withLock { $0.append(n) }
                Task.detached {
                    var report = LoopReport()
                    report.gauges[0] = 7
                    hub.publish(report, from: n)
                }
            }
        }
        await hub.refresh(within: .seconds(30))
        #expect(asked.withLock { $0 } == 3)
        #expect(box.withLock { $0.sorted() } == [0, 1, 2])
        #expect(hub.sample("moongate_connections_active") == "21")
    }

    @Test func aLoopThatDoesNotAnswerHoldsNobodyUp() async {
        let hub = MetricsHub(version: "1")
        let silent = hub.makeLoop {}
        silent.adjust(.connections, by: 2)
        silent.publish()
        silent.adjust(.connections, by: 40)
        await hub.refresh(within: .milliseconds(1))
        #expect(hub.sample("moongate_connections_active") == "2")
        // When it has ended, it is not waited for, and its last word stands.
        hub.loopEnded(silent)
        await hub.refresh(within: .seconds(3600))
        #expect(hub.sample("moongate_connections_active") == "42")
    }

    @Test func refreshWithoutLoopsReturns() async {
        await MetricsHub(version: "1").refresh(within: .seconds(3600))
    }

    @Test func configuration() {
        let hub = MetricsHub(version: "1")
        hub.configure { figures in
            figures.generation = 12
            figures.reloadsApplied = 3
            figures.reloadsFailed = 1
            figures.isLastReloadGood = false
            figures.lastSuccess = 1_700_000_000.25
            figures.diagnostics = [.error: 2, .warning: 5]
            figures.routes = 9
        }
        for (name, value) in [
            ("moongate_config_generation", "12"), (#"moongate_config_reloads_total{result="applied"}"#, "3"),
            (#"moongate_config_reloads_total{result="failed"}"#, "1"), ("moongate_config_last_reload_successful", "0"),
            ("moongate_config_last_success_timestamp_seconds", "1700000000.25"),
            (#"moongate_diagnostics{severity="error"}"#, "2"), (#"moongate_diagnostics{severity="note"}"#, "0"),
            (#"moongate_config_objects{kind="route"}"#, "9"),
        ] {
            #expect(hub.sample(name) == value, "\(name)")
        }
    }

    @Test func processFigures() throws {
        let stat = "42 (a) b) (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 9 0 1000 123456789 2048 1844"
        let boot = "cpu 1 2 3\nbtime 1700000000\nprocesses 1\n"
        let limits =
            "Limit   Soft Limit  Hard Limit  Units\nMax open files            1024                 4096     files\n"
        let figures = try #require(ProcessFigures.parse(stat: stat, boot: boot, limits: limits, descriptors: 5))
        #expect(figures.cpuSeconds == 4)
        #expect(figures.threads == 9)
        #expect(figures.startTime == 1_700_000_010)
        #expect(figures.virtualBytes == 123_456_789)
        #expect(figures.residentBytes == 2048 * 4096)
        #expect(figures.openDescriptors == 5 && figures.mostDescriptors == 1024)
        #expect(ProcessFigures.parse(stat: "", boot: "", limits: "", descriptors: 0) == nil)
        #expect(ProcessFigures.parse(stat: "1 (x) S 1", boot: "", limits: "", descriptors: 0) == nil)
        let own = try #require(ProcessFigures.read())
        #expect(own.residentBytes > 1 << 20 && own.startTime > 1_600_000_000 && own.openDescriptors > 2)
    }
}

@Suite("Series") struct SeriesRegistryTests {
    @Test func theSameSeriesAcrossSnapshots() {
        let hub = MetricsHub(version: "1")
        let first = hub.registry.labels(for: smallSnapshot(), now: 0)
        var next = smallSnapshot()
        next.routes.insert(
            Route(
                path: .exact("/new"), ingress: ObjectReference(kind: "Ingress", namespace: "a", name: "b"), rule: "r",
                host: .any, upstream: nil), at: 0)
        let second = hub.registry.labels(for: next, previous: first, now: 1)
        let loop = hub.makeLoop {}
        loop.finished(finishedExchange(), labels: first)
        let exchange = finishedExchange()
        exchange.route = 1
        loop.finished(exchange, labels: second)
        loop.publish()
        #expect(hub.sample(#"moongate_requests_total{\#(route),method="GET",status="2xx"}"#) == "2")
    }

    @Test func beyondTheBoundAllAreOther() {
        let hub = MetricsHub(registry: SeriesRegistry(bound: 3), version: "1")
        var snapshot = Snapshot()
        snapshot.upstreams = (0..<10).map { Upstream(namespace: "n", service: "s\($0)", port: "80") }
        let labels = hub.registry.labels(for: snapshot, now: 0)
        let loop = hub.makeLoop {}
        for n in 0..<10 { loop.count(UpstreamEvent.attempt, upstream: Int32(n), labels: labels) }
        loop.count(UpstreamEvent.attempt, upstream: -1, labels: labels)
        loop.publish()
        #expect(hub.sample(#"moongate_upstream_attempts_total{upstream="n/s2:80"}"#) == "1")
        #expect(hub.sample(#"moongate_upstream_attempts_total{upstream="n/s3:80"}"#) == nil)
        #expect(hub.sample(#"moongate_upstream_attempts_total{upstream=""}"#) == "8")
    }

    @Test func whatNobodyServesGivesItsNumberUpAndStartsFromZero() {
        let hub = MetricsHub(registry: SeriesRegistry(bound: 2), version: "1")
        func snapshot(_ names: [String]) -> Snapshot {
            var snapshot = Snapshot()
            snapshot.upstreams = names.map { Upstream(namespace: "n", service: $0, port: "80") }
            return snapshot
        }
        let loop = hub.makeLoop {}
        let old = hub.registry.labels(for: snapshot(["a", "b"]), now: 0)
        for _ in 0..<5 { loop.count(UpstreamEvent.attempt, upstream: 1, labels: old) }
        _ = hub.registry.labels(for: snapshot(["a"]), now: 3000)
        // Not long enough.
        #expect(hub.registry.labels(for: snapshot(["a", "c"]), now: 3500).upstreams[1] == .other)
        _ = hub.registry.labels(for: snapshot(["a"]), now: 3700)
        let new = hub.registry.labels(for: snapshot(["a", "c"]), now: 3800)
        loop.publish()
        #expect(hub.sample(#"moongate_upstream_attempts_total{upstream="n/c:80"}"#) == nil)
        loop.count(UpstreamEvent.attempt, upstream: 1, labels: new)
        loop.publish()
        #expect(hub.sample(#"moongate_upstream_attempts_total{upstream="n/c:80"}"#) == "1")
        #expect(hub.sample(#"moongate_upstream_attempts_total{upstream="n/b:80"}"#) == nil)
    }

    @Test func routesThatStayTheSameKeepTheirNamesAlive() {
        let registry = SeriesRegistry()
        let snapshot = smallSnapshot()
        var labels = registry.labels(for: snapshot, now: 0)
        let first = labels.routes
        for hour in 1..<10 { labels = registry.labels(for: snapshot, previous: labels, now: Int64(hour) * 3599) }
        #expect(labels.routes == first)
        #expect(registry.families.withLock { $0.routes.slots.count } == 1)
    }

    @Test func blocksAreKeptApartOverManyPages() {
        var blocks = CounterBlocks(stride: 3)
        for round in 1...3 {
            for slot in 0..<500 {
                blocks.update(SeriesID(slot: UInt32(slot), life: 0)) { page, base in
                    page[base + round - 1] += UInt64(slot * round)
                }
            }
        }
        let before = blocks
        blocks.update(SeriesID(slot: 499, life: 0)) { page, base in page[base] = 1 }
        var sums: [SeriesID: [UInt64]] = [:]
        before.add(to: &sums)
        #expect(sums.count == 500)
        for slot in 0..<500 {
            let expected = [UInt64(slot), UInt64(slot * 2), UInt64(slot * 3)]
            #expect(sums[SeriesID(slot: UInt32(slot), life: 0)] == expected)
        }
    }

    @Test(arguments: [(0, 0), (500_000, 0), (500_001, 1), (60_000_000_000, 14), (60_000_000_001, 15)])
    func buckets(value: UInt64, index: Int) {
        #expect(Buckets.requests.index(of: value) == index)
    }
}
