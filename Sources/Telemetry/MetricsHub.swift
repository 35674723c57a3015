// Where the figures of all loops come together: asked by the admin server, off the loops.
package import Model
internal import Synchronization

/// What the control plane last did, for the figures.
package struct ConfigurationFigures: Sendable, Equatable {
    /// Of the snapshot that is served.
    package var generation: UInt64 = 0
    package var reloadsApplied: UInt64 = 0
    package var reloadsFailed: UInt64 = 0
    /// The last reload was applied.
    package var isLastReloadGood = true
    /// When the last good one was, in seconds since 1970.
    package var lastSuccess: Double = 0
    /// Of the diagnostics in force.
    package var diagnostics: [Severity: Int] = [:]
    package var hosts = 0
    package var routes = 0
    package var upstreams = 0
    package var endpoints = 0

    package init() {}
}

package final class MetricsHub: Sendable {
    package let registry: SeriesRegistry
    private let version: String

    private struct Loop: Sendable {
        var wake: (@Sendable () -> Void)?
        var report = LoopReport()
    }

    private struct Waiter {
        var missing: Set<Int>
        var continuation: CheckedContinuation<Void, Never>?
    }

    private struct State {
        var loops: [Loop] = []
        var waiters: [UInt64: Waiter] = [:]
        var nextWaiter: UInt64 = 0
        var configuration = ConfigurationFigures()
        var logWriter: LogWriter?
    }

    private let state = Mutex(State())

    package init(registry: SeriesRegistry = SeriesRegistry(), version: String) {
        self.registry = registry
        self.version = version
    }

    /// Counters for one more loop, to be used by that loop only. `wake` asks the loop to call `publish` soon: it is
    /// called from other threads, and should post to the loop's mailbox.
    package func makeLoop(wake: @escaping @Sendable () -> Void) -> LoopMetrics {
        let index = state.withLock { state in
            state.loops.append(Loop(wake: wake))
            return state.loops.count - 1
        }
        return LoopMetrics(hub: self, loop: index)
    }

    /// The loop has ended (its last report stays): nobody waits for it any more.
    package func loopEnded(_ metrics: LoopMetrics) {
        metrics.publish()
        state.withLock { $0.loops[metrics.index].wake = nil }
    }

    package func configure(_ change: (inout ConfigurationFigures) -> Void) {
        state.withLock { change(&$0.configuration) }
    }

    package var configuration: ConfigurationFigures { state.withLock { $0.configuration } }

    /// Whose dropped lines are told.
    package func watch(_ writer: LogWriter) {
        state.withLock { $0.logWriter = writer }
    }

    func publish(_ report: LoopReport, from loop: Int) {
        let done = state.withLock { state -> [CheckedContinuation<Void, Never>] in
            state.loops[loop].report = report
            var done: [CheckedContinuation<Void, Never>] = []
            for (id, var waiter) in state.waiters {
                waiter.missing.remove(loop)
                if waiter.missing.isEmpty, let continuation = waiter.continuation {
                    done.append(continuation)
                    state.waiters[id] = nil
                } else {
                    state.waiters[id] = waiter
                }
            }
            return done
        }
        for continuation in done { continuation.resume() }
    }

    /// Asks all loops for their figures and waits for them, but not longer than `patience`: of a loop that does not
    /// answer, the last report counts.
    package func refresh(within patience: Duration = .milliseconds(500)) async {
        let (id, wakes) = state.withLock { state -> (UInt64, [@Sendable () -> Void]) in
            state.nextWaiter += 1
            let running = state.loops.indices.filter { state.loops[$0].wake != nil }
            state.waiters[state.nextWaiter] = Waiter(missing: Set(running))
            return (state.nextWaiter, running.compactMap { state.loops[$0].wake })
        }
        let timer = Task {
            try? await Task.sleep(for: patience)
            self.release(id)
        }
        for wake in wakes { wake() }
        await withCheckedContinuation { continuation in
            let isDone = state.withLock { state -> Bool in
                guard let waiter = state.waiters[id], !waiter.missing.isEmpty else {
                    state.waiters[id] = nil
                    return true
                }
                state.waiters[id]?.continuation = continuation
                return false
            }
            if isDone { continuation.resume() }
        }
        timer.cancel()
    }

    private func release(_ id: UInt64) {
        state.withLock { $0.waiters.removeValue(forKey: id) }?.continuation?.resume()
    }

    // MARK: The page

    /// The figures as of the last reports, in Prometheus' text format. Call `refresh` before.
    package func render(process: ProcessFigures? = ProcessFigures.read()) -> String {
        let (reports, configuration, dropped) = state.withLock { state in
            (state.loops.map(\.report), state.configuration, state.logWriter?.droppedLines ?? 0)
        }
        var page = PrometheusText()
        page.family("moongate_build_info", "gauge", "Always 1; the version that runs.")
        page.sample(1, labels: "version=\"\(PrometheusText.escape(version))\"")
        render(reports, &page)
        renderRoutes(reports, &page)
        renderUpstreams(reports, &page)
        renderScripts(reports, &page)
        renderRelays(reports, &page)
        renderSessions(reports, &page)
        Self.render(configuration, &page)
        page.family("moongate_log_lines_dropped_total", "counter", "Access log lines that could not be written.")
        page.sample(dropped)
        if let process { Self.render(process, &page) }
        return page.text
    }

    private func render(_ reports: [LoopReport], _ page: inout PrometheusText) {
        for gauge in LoopGauge.allCases {
            page.family("moongate_\(gauge.name)", "gauge", gauge.help)
            page.sample(reports.reduce(0) { $0 &+ $1.gauges[Int(gauge.rawValue)] })
        }
        for event in LoopEvent.allCases {
            page.family("moongate_\(event.name)_total", "counter", event.help)
            page.sample(reports.reduce(0) { $0 &+ $1.events[Int(event.rawValue)] })
        }
        page.family(
            "moongate_failures_total", "counter", "Requests that did not end as their client wished, by reason.")
        for reason in FailureReason.allCases where reason != .none {
            let count = reports.reduce(0) { $0 &+ $1.failures[Int(reason.rawValue)] }
            page.sample(count, labels: "reason=\"\(reason.label)\"")
        }
        page.family("moongate_tls_handshake_failures_total", "counter", "TLS handshakes that failed, by reason.")
        for failure in TLSFailure.allCases where failure != .none {
            let count = reports.reduce(0) { $0 &+ $1.handshakeFailures[Int(failure.rawValue)] }
            page.sample(count, labels: "reason=\"\(failure.label)\"")
        }
        page.family(
            "moongate_proxy_protocol_failures_total", "counter",
            "Connections closed because of their PROXY protocol header, by reason.")
        for fault in ProxyHeaderFault.allCases {
            let count = reports.reduce(0) { $0 &+ $1.proxyHeaderFaults[Int(fault.rawValue)] }
            page.sample(count, labels: "reason=\"\(fault.label)\"")
        }
        page.family(
            "moongate_upstream_tls_handshake_failures_total", "counter",
            "TLS handshakes with endpoints that failed, by reason.")
        for failure in TLSFailure.allCases where failure != .none {
            let count = reports.reduce(0) { $0 &+ $1.upstreamHandshakeFailures[Int(failure.rawValue)] }
            page.sample(count, labels: "reason=\"\(failure.label)\"")
        }
        let codings: [(name: String, help: String, word: Int)] = [
            ("responses", "Responses compressed, by content coding.", CodingLayout.responses),
            ("input_bytes", "Bytes of bodies before they were compressed.", CodingLayout.bytesIn),
            ("output_bytes", "Bytes of bodies after they were compressed.", CodingLayout.bytesOut),
        ]
        for (name, help, word) in codings {
            page.family("moongate_compression_\(name)_total", "counter", help)
            for coding in ContentCoding.allCases {
                let sum = reports.reduce(0) { $0 &+ $1.codings[CodingLayout.base(coding) + word] }
                page.sample(sum, labels: "coding=\"\(coding.name)\"")
            }
        }
        page.family("moongate_http2_faults_total", "counter", "HTTP/2 connections of clients ended by us, by reason.")
        for fault in HTTP2Fault.allCases where fault != .none {
            let count = reports.reduce(0) { $0 &+ $1.http2Faults[Int(fault.rawValue)] }
            page.sample(count, labels: "reason=\"\(fault.label)\"")
        }
    }

    private func renderRoutes(_ reports: [LoopReport], _ page: inout PrometheusText) {
        var sums: [SeriesID: [UInt64]] = [:]
        var calls: [SeriesID: [UInt64]] = [:]
        for report in reports {
            report.routes.add(to: &sums)
            report.calls.add(to: &calls)
        }
        func named(_ sums: [SeriesID: [UInt64]]) -> [Row] {
            registry.families.withLock { families in
                Self.rows(sums, families.routes) { key in
                    """
                    ingress="\(PrometheusText.escape(key.ingress))",host="\(PrometheusText.escape(key.host))",\
                    path="\(PrometheusText.escape(key.path))"
                    """
                } other: {
                    #"ingress="",host="",path="""#
                }
            }
        }
        let rows = named(sums)
        page.family("moongate_requests_total", "counter", "Requests by route, method and class of status.")
        for row in rows {
            for method in MethodClass.allCases {
                for (status, label) in StatusClass.labels.enumerated() {
                    let count = row.words[RouteLayout.requests + method.rawValue * RouteLayout.statuses + status]
                    if count == 0 { continue }
                    page.sample(count, labels: "\(row.labels),method=\"\(method.label)\",status=\"\(label)\"")
                }
            }
        }
        Self.histogram(
            "moongate_request_duration_seconds", "From the head's first byte to the last byte sent.", rows,
            at: RouteLayout.duration, .requests, &page)
        page.family("moongate_request_bytes_total", "counter", "Bytes received from clients, heads included.")
        for row in rows { page.sample(row.words[RouteLayout.bytesIn], labels: row.labels) }
        page.family("moongate_response_bytes_total", "counter", "Bytes sent to clients, heads included.")
        for row in rows { page.sample(row.words[RouteLayout.bytesOut], labels: row.labels) }
        page.family("moongate_grpc_calls_total", "counter", "Calls of gRPC by route and by the number of their status.")
        for row in named(calls) {
            for (code, count) in row.words.enumerated() where count > 0 {
                page.sample(count, labels: "\(row.labels),code=\"\(code)\"")
            }
        }
    }

    private func renderUpstreams(_ reports: [LoopReport], _ page: inout PrometheusText) {
        var sums: [SeriesID: [UInt64]] = [:]
        for report in reports { report.upstreams.add(to: &sums) }
        let rows = registry.families.withLock { families in
            Self.rows(sums, families.upstreams) {
                "upstream=\"\(PrometheusText.escape($0))\""
            } other: {
                "upstream=\"\""
            }
        }
        for event in UpstreamEvent.allCases {
            page.family("moongate_upstream_\(event.name)_total", "counter", event.help)
            for row in rows { page.sample(row.words[UpstreamLayout.events + Int(event.rawValue)], labels: row.labels) }
        }
        page.family("moongate_upstream_responses_total", "counter", "Responses of upstreams by class of status.")
        for row in rows {
            for (status, label) in StatusClass.labels.enumerated() where row.words[UpstreamLayout.answers + status] > 0
            {
                page.sample(row.words[UpstreamLayout.answers + status], labels: "\(row.labels),status=\"\(label)\"")
            }
        }
        Self.histogram(
            "moongate_upstream_duration_seconds", "From the choice of an endpoint to its response's head.",
            rows, at: UpstreamLayout.duration, .requests, &page)
    }

    private func renderRelays(_ reports: [LoopReport], _ page: inout PrometheusText) {
        var sums: [SeriesID: [UInt64]] = [:]
        for report in reports { report.relays.add(to: &sums) }
        let counters = [
            (
                RelayLayout.connections, "connections",
                "Connections to TCP services and hosts with passthrough that ended."
            ),
            (RelayLayout.failures, "failures", "Those of them that did not end in order."),
            (RelayLayout.bytesIn, "received_bytes", "Bytes passed from clients to them."),
            (RelayLayout.bytesOut, "sent_bytes", "Bytes passed from them to clients."),
        ]
        renderServices("tcp", sums, counters, &page)
    }

    private func renderSessions(_ reports: [LoopReport], _ page: inout PrometheusText) {
        var sums: [SeriesID: [UInt64]] = [:]
        for report in reports { report.sessions.add(to: &sums) }
        let counters = [
            (SessionLayout.sessions, "sessions", "Sessions of UDP services that began."),
            (SessionLayout.datagramsIn, "received_datagrams", "Datagrams passed from clients to them."),
            (SessionLayout.datagramsOut, "sent_datagrams", "Datagrams passed from them to clients."),
            (SessionLayout.bytesIn, "received_bytes", "Bytes in datagrams passed from clients to them."),
            (SessionLayout.bytesOut, "sent_bytes", "Bytes in datagrams passed from them to clients."),
        ]
        renderServices("udp", sums, counters, &page)
        page.family("moongate_udp_dropped_datagrams_total", "counter", "Datagrams that went no further, by reason.")
        for reason in DatagramDrop.allCases {
            let count = reports.reduce(0) { $0 &+ $1.datagramDrops[Int(reason.rawValue)] }
            page.sample(count, labels: "reason=\"\(reason.label)\"")
        }
    }

    /// What is counted by the service that a port or a name leads to.
    private func renderServices(
        _ transport: String, _ sums: [SeriesID: [UInt64]], _ counters: [(Int, String, String)],
        _ page: inout PrometheusText
    ) {
        let rows = registry.families.withLock { families in
            Self.rows(sums, families.relays) {
                "service=\"\(PrometheusText.escape($0))\""
            } other: {
                "service=\"\""
            }
        }
        for (word, name, help) in counters {
            page.family("moongate_\(transport)_\(name)_total", "counter", help)
            for row in rows { page.sample(row.words[word], labels: row.labels) }
        }
    }

    private func renderScripts(_ reports: [LoopReport], _ page: inout PrometheusText) {
        var sums: [SeriesID: [UInt64]] = [:]
        for report in reports { report.scripts.add(to: &sums) }
        let rows = registry.families.withLock { families in
            Self.rows(sums, families.scripts) {
                "script=\"\(PrometheusText.escape($0))\""
            } other: {
                "script=\"\""
            }
        }
        page.family("moongate_script_runs_total", "counter", "Requests that a script saw, by what it made of them.")
        for row in rows {
            for (outcome, label) in ["next", "responded", "failed", "skipped"].enumerated() {
                page.sample(row.words[ScriptLayout.outcomes + outcome], labels: "\(row.labels),outcome=\"\(label)\"")
            }
        }
        page.family("moongate_script_errors_total", "counter", "Errors of scripts by class.")
        for row in rows {
            for error in ScriptErrorClass.allCases {
                page.sample(
                    row.words[ScriptLayout.errors + Int(error.rawValue)],
                    labels: "\(row.labels),class=\"\(error.label)\"")
            }
        }
        Self.histogram(
            "moongate_script_cpu_seconds", "CPU time of a script in one request.", rows,
            at: ScriptLayout.cpu, .scripts, &page)
    }

    private static func render(_ figures: ConfigurationFigures, _ page: inout PrometheusText) {
        page.family("moongate_config_generation", "gauge", "Number of the snapshot that is served.")
        page.sample(figures.generation)
        page.family("moongate_config_reloads_total", "counter", "Changes of the configuration, by what became of them.")
        page.sample(figures.reloadsApplied, labels: "result=\"applied\"")
        page.sample(figures.reloadsFailed, labels: "result=\"failed\"")
        page.family("moongate_config_last_reload_successful", "gauge", "1 when the last change was applied.")
        page.sample(figures.isLastReloadGood ? 1 : 0)
        page.family("moongate_config_last_success_timestamp_seconds", "gauge", "When a change was last applied.")
        page.sample(figures.lastSuccess)
        page.family("moongate_diagnostics", "gauge", "Diagnostics in force, by severity.")
        for severity in Severity.allCases {
            page.sample(figures.diagnostics[severity] ?? 0, labels: "severity=\"\(severity.rawValue)\"")
        }
        page.family("moongate_config_objects", "gauge", "What the served snapshot holds, by kind.")
        page.sample(figures.hosts, labels: "kind=\"host\"")
        page.sample(figures.routes, labels: "kind=\"route\"")
        page.sample(figures.upstreams, labels: "kind=\"upstream\"")
        page.sample(figures.endpoints, labels: "kind=\"endpoint\"")
    }

    private static func render(_ process: ProcessFigures, _ page: inout PrometheusText) {
        page.family("process_cpu_seconds_total", "counter", "CPU time of the process, user and system.")
        page.sample(process.cpuSeconds)
        page.family("process_resident_memory_bytes", "gauge", "Memory of the process that is resident.")
        page.sample(process.residentBytes)
        page.family("process_virtual_memory_bytes", "gauge", "Address space of the process.")
        page.sample(process.virtualBytes)
        page.family("process_open_fds", "gauge", "File descriptors that are open.")
        page.sample(process.openDescriptors)
        page.family("process_max_fds", "gauge", "File descriptors that may be open.")
        page.sample(process.mostDescriptors)
        page.family("process_threads", "gauge", "Threads of the process.")
        page.sample(process.threads)
        page.family("process_start_time_seconds", "gauge", "When the process began, in seconds since 1970.")
        page.sample(process.startTime)
    }

    // MARK: Rows

    private struct Row {
        var labels: String
        var words: [UInt64]
    }

    /// The blocks with the names of their series, sorted; blocks whose series has a new owner are left out.
    private static func rows<Key>(
        _ sums: [SeriesID: [UInt64]], _ family: SeriesRegistry.Family<Key>, name: (Key) -> String, other: () -> String
    ) -> [Row] {
        var rows: [Row] = []
        for (id, words) in sums {
            let slot = Int(id.slot)
            if slot == 0 {
                rows.append(Row(labels: other(), words: words))
            } else if slot < family.entries.count, family.entries[slot].life == id.life,
                let key = family.entries[slot].key
            {
                rows.append(Row(labels: name(key), words: words))
            }
        }
        return rows.sorted { $0.labels < $1.labels }
    }

    private static func histogram(
        _ name: String, _ help: String, _ rows: [Row], at offset: Int, _ buckets: Buckets, _ page: inout PrometheusText
    ) {
        page.family(name, "histogram", help)
        let bounds = buckets.bounds.map { Double($0) / 1e9 }
        for row in rows {
            let counts = row.words[offset..<(offset + buckets.words - 1)]
            let sum = Double(row.words[offset + buckets.words - 1]) / 1e9
            page.histogram(bounds: bounds, counts: counts, sum: sum, labels: row.labels)
        }
    }
}
