// What every way to run shares, whether the objects come from a folder or from a cluster: the data plane, the admin
// server beside it, the log, the signals and the drain. The loops have threads of their own; everything here runs beside
// them and can not hold them up.

import Admin
import Foundation
import HTTPWire
import IngressTranslation
import Logging
import Model
import Proxy
import Reactor
import Routing
import Scripting
import Synchronization
import TLSEngine
import Telemetry
import UnixSignals

/// Where a process listens.
struct BoundAddresses: Sendable {
    var http: [Model.SocketAddress]
    var https: [Model.SocketAddress]
    var admin: Model.SocketAddress
    var webhook: Model.SocketAddress?
}

/// A proxy without a source of configuration: whoever holds it publishes to it.
struct Edge: Sendable {
    let settings: Settings
    let logger: Logger
    let metrics = MetricsHub(version: Moongate.version)
    let server: ProxyServer
    /// What session tickets are sealed with.
    let tickets = TicketRotation()
    let state = ServingState()
    let scripts = ScriptSurroundings()
    let resolver: NameResolver
    let pipeline: Pipeline
    /// Nil where TLS is not spoken.
    private let certificates: CertificateStore?
    private let writer: LogWriter

    /// Binds the listeners; nothing is accepted before `serve`.
    /// - Parameter reservedDescriptors: how many the control loop may take.
    init(_ settings: Settings, options: TranslationOptions, reservedDescriptors: Int = 0) throws {
        self.settings = settings
        logger = makeLogger(settings)
        let writer = LogWriter(StandardOutputSink())
        self.writer = writer
        metrics.watch(writer)
        certificates = try settings.https.isEmpty ? nil : Self.certificates(settings, tickets)
        server = try Self.makeServer(settings, metrics, writer, reservedDescriptors)
        for address in server.sharedAddresses {
            logger.warning(
                "another process listens here too, and gets a part of the connections",
                metadata: [
                    "address": "\(address)", "mend": "end it, unless it is the one that this one takes over from",
                ])
        }
        if settings.trustedProxies.contains(where: \.isEverybody) {
            logger.warning(
                "everybody is a trusted proxy, and can choose the address that he is known by",
                metadata: [
                    "mend": "give the balancers' own addresses by --trusted-proxies, unless nobody else gets here"
                ])
        }
        logger.info("client connections", metadata: ["most": "\(server.maxConnections)", "loops": "\(server.loops)"])
        resolver = NameResolver(allowsThisHost: options.allowsLoopbackNames)
        pipeline = Pipeline(
            options: options, loops: server.loops, explains: true, scripts: scripts, resolver: resolver,
            certificates: certificates, takesTurns: true)
    }

    private static func makeServer(
        _ settings: Settings, _ metrics: MetricsHub, _ writer: LogWriter, _ reservedDescriptors: Int
    ) throws -> ProxyServer {
        var configuration = ProxyConfiguration(settings)
        configuration.reservedDescriptors = reservedDescriptors
        do throws(ProxyServer.StartError) {
            return try ProxyServer(
                configuration: configuration, metrics: metrics,
                accessLog: settings.accessLog.telemetry.map { ($0, writer) })
        } catch {
            guard case .cannotListen(let address, let why) = error else { throw error }
            throw SettingsError(
                problem: "cannot listen on \(address): \(why)",
                key: settings.https.contains(address) ? "https" : "http",
                mend: "name another address (port 0 takes a free one), or end what listens there")
        }
    }

    private static func certificates(_ settings: Settings, _ tickets: TicketRotation) throws -> CertificateStore {
        var options = TLSOptions(settings)
        options.tickets = tickets.keys
        do {
            return try CertificateStore(
                options, warning: Int64(settings.certificateExpiryWarning / 1_000), mostContexts: settings.tlsContexts
            ) { tickets.share($0) }
        } catch {
            throw SettingsError(
                problem: "\(error)", key: "tls-ciphers",
                mend: "write OpenSSL's names of ciphers, separated by colons, or leave it out")
        }
    }

    /// The addresses really bound.
    func bound(admin: Model.SocketAddress, webhook: Model.SocketAddress? = nil) -> BoundAddresses {
        BoundAddresses(http: server.addresses, https: server.secureAddresses, admin: admin, webhook: webhook)
    }

    /// One line for programs that start this one.
    static func listeningLine(_ bound: BoundAddresses) -> String {
        func quoted(_ addresses: [Model.SocketAddress]) -> String {
            "[\(addresses.map { "\"\($0)\"" }.joined(separator: ","))]"
        }
        var fields = [#""event":"listening""#]
        if let first = bound.http.first { fields.append(#""http":"\#(first)""#) }
        if bound.http.count > 1 { fields.append(#""listeners":\#(quoted(bound.http))"#) }
        if let first = bound.https.first { fields.append(#""https":"\#(first)""#) }
        if bound.https.count > 1 { fields.append(#""secureListeners":\#(quoted(bound.https))"#) }
        fields.append(#""admin":"\#(bound.admin)""#)
        if let webhook = bound.webhook { fields.append(#""webhook":"\#(webhook)""#) }
        return "{\(fields.joined(separator: ","))}"
    }

    // MARK: Admin

    /// An admin server that runs.
    struct RunningAdmin {
        var address: Model.SocketAddress
        var task: Task<Void, any Error>
    }

    /// Starts the admin server; throws when its address can't be bound. It comes first of all: a probe that is early is
    /// answered "not yet" rather than refused.
    /// - Parameters:
    ///   - more: figures beside those of the data plane, in Prometheus' text format.
    ///   - waiting: what the first configuration waits for.
    func startAdmin(
        more: @escaping @Sendable () -> String = { "" }, waiting: @escaping @Sendable () -> String? = { nil }
    ) async throws -> RunningAdmin {
        let sources = sources(more, waiting)
        return try await ControlListener.open(settings.admin, key: "admin") { try await startAdmin(at: $0, sources) }
    }

    private func startAdmin(at address: Model.SocketAddress, _ sources: AdminSources) async throws -> RunningAdmin {
        let (bound, isBound) = AsyncStream.makeStream(of: Model.SocketAddress.self)
        let admin = Task {
            defer { isBound.finish() }
            var quiet = Logger(label: "moongate.admin") { StreamLogHandler.standardError(label: $0) }
            // What goes wrong here is thrown, and told below.
            quiet.logLevel = .critical
            try await AdminServer(
                address: address, sources: sources, logger: quiet, onBound: { isBound.yield($0) }
            ).run()
        }
        for await address in bound { return RunningAdmin(address: address, task: admin) }
        try await admin.value
        throw SettingsError(
            problem: "the admin server ended before it listened", key: "admin", mend: "name another address")
    }

    private func sources(
        _ more: @escaping @Sendable () -> String, _ waiting: @escaping @Sendable () -> String?
    ) -> AdminSources {
        let configuration = server.configuration
        return AdminSources(
            illness: {
                // Nothing that a loop does takes so long; whatever hangs it, only a new process helps.
                let silence = server.silence
                return silence > 30_000 ? "an event loop has not come round for \(silence / 1000) s" : nil
            },
            unreadiness: {
                guard let reason = state.unreadiness else { return nil }
                return state.served == nil && !state.isDraining ? waiting() ?? reason : reason
            },
            metrics: {
                await metrics.refresh()
                var text = metrics.render()
                if let table = state.served?.configuration.certificates, let cache = certificates?.cache {
                    text += CertificateFigures.text(
                        table.expiries, contexts: cache.count, made: cache.made,
                        now: Int64(Date().timeIntervalSince1970))
                }
                ScriptVitals.write(await pipeline.scriptVitals, to: &text)
                scripts.metrics.write(to: &text)
                scripts.log.write(to: &text)
                return text + more()
            },
            served: {
                state.served.map {
                    ServedSnapshot(
                        snapshot: $0.configuration.table.snapshot, generation: $0.configuration.table.generation,
                        publishedAt: $0.publishedAt)
                }
            },
            diagnostics: { state.diagnostics },
            explain: { query async throws(AdminProblem) in
                guard let served = state.served else { throw AdminProblem("nothing is served yet") }
                do {
                    guard let peer = IPAddress(query.from) else {
                        throw AdminProblem("from \"\(query.from)\" is not an IP address")
                    }
                    let request = try ExplainedRequest(
                        query.request, headers: query.headers, cookies: query.cookies, peer: peer)
                    let whyClosed = request.port.flatMap { server.whyClosed($0.number, isUDP: $0.isUDP) }
                    let explanation = await state.explain(
                        served.configuration, request, configuration, whyClosed: whyClosed)
                    return ExplainAnswer(text: explanation.text + "\n", json: try explanation.json)
                } catch {
                    throw AdminProblem("\(error)")
                }
            })
    }

    // MARK: Configuration

    /// Without a cluster, what is said of one is for nobody.
    func warnOfIdleSettings() {
        guard !settings.idleWithoutCluster.isEmpty else { return }
        logger.warning(
            "settings without effect: there is no cluster with --manifests",
            metadata: ["settings": "\(settings.idleWithoutCluster.joined(separator: ", "))"])
    }

    /// Hands what is new to the loops.
    func publish(_ configuration: PreparedConfiguration) {
        server.publish(
            configuration.table, middlewares: configuration.middlewares, names: configuration.addresses,
            certificates: configuration.certificates, clientRules: configuration.clientRules,
            securities: configuration.securities)
        state.serve(configuration)
        let table = configuration.table
        metrics.configure { figures in
            figures.generation = table.generation
            figures.hosts = table.snapshot.hosts.count
            figures.routes = table.snapshot.routes.count
            figures.upstreams = table.snapshot.upstreams.count
            figures.endpoints = 0
            for i in table.snapshot.upstreams.indices {
                figures.endpoints += table.snapshot.upstreams[i].endpoints.count
            }
        }
    }

    func logPublication(_ configuration: PreparedConfiguration, at level: Logger.Level = .info) {
        logger.log(
            level: level, "configuration published",
            metadata: [
                "generation": "\(configuration.table.generation)",
                "routes": "\(configuration.table.snapshot.routes.count)",
                "upstreams": "\(configuration.table.snapshot.upstreams.count)",
            ])
    }

    /// What is wrong from here on; what was not wrong before is logged.
    func show(_ diagnostics: [Diagnostic]) {
        for diagnostic in state.show(diagnostics) { log(diagnostic) }
        metrics.configure { $0.diagnostics = Dictionary(grouping: diagnostics, by: \.severity).mapValues(\.count) }
    }

    /// Counts a change that was taken up, or was not.
    func countReload(isGood: Bool) {
        metrics.configure { figures in
            if isGood { figures.reloadsApplied += 1 } else { figures.reloadsFailed += 1 }
            figures.isLastReloadGood = isGood
            if isGood { figures.lastSuccess = Date().timeIntervalSince1970 }
        }
    }

    private func log(_ diagnostic: Diagnostic) {
        let level: Logger.Level =
            switch diagnostic.severity {
            case .note: .info
            case .warning: .warning
            case .error: .error
            }
        logger.log(
            level: level, "configuration diagnostic",
            metadata: [
                "code": "\(diagnostic.code)", "name": "\(diagnostic.name)", "problem": "\(diagnostic.problem)",
                "place": "\(diagnostic.place)", "mend": "\(diagnostic.mend)",
            ])
    }

    // MARK: Time

    /// Calls where time alone has made another configuration of the same objects, until the task is cancelled: a
    /// certificate expires, or will soon.
    func watchTime(_ prepareAgain: @Sendable () -> Void) async {
        var done: Int64 = 0
        while !Task.isCancelled {
            let now = Int64(Date().timeIntervalSince1970)
            // Thousands that were made within one hour are due within one, and are judged by the dozen.
            let left = await max(pipeline.judgesAgainAt, done + 10) - now
            if left <= 0 {
                prepareAgain()
                done = now
            }
            // Clocks are set, and what is served changes: nobody sleeps on it for long.
            do { try await Task.sleep(for: .seconds(min(max(left, 1), 10))) } catch { return }
        }
    }

    // MARK: Scripts' lines

    /// Writes what scripts have to say until the task is cancelled.
    func logScripts(_ tell: @Sendable ([ScriptLogLine]) async -> Void = { _ in }) async {
        while !Task.isCancelled {
            do { try await Task.sleep(for: .milliseconds(200)) } catch { break }
            let lines = scripts.log.drain()
            log(lines)
            if !lines.isEmpty { await tell(lines) }
            logNotices()
        }
        log(scripts.log.drain())
    }

    /// What happens on the path is counted; of each kind, one case in a while is told.
    private func logNotices() {
        for diagnostic in server.takeNotices() { log(diagnostic) }
    }

    private func log(_ lines: [ScriptLogLine]) {
        for line in lines {
            let level: Logger.Level =
                switch line.level {
                case .debug: .debug
                case .info: .info
                case .warn: .warning
                case .error: .error
                }
            var metadata: Logger.Metadata = ["script": "\(line.script)", "version": "\(line.version)"]
            if !line.requestID.isEmpty { metadata["request_id"] = "\(line.requestID)" }
            if line.suppressed > 0 { metadata["suppressed"] = "\(line.suppressed)" }
            for field in line.fields { metadata["field.\(field.key)"] = "\(field.value)" }
            logger.log(level: level, "script: \(line.message)", metadata: metadata)
        }
    }

    // MARK: Serving

    /// Starts the loops; from here on requests are answered. What a signal asked for before is done at once.
    func start() throws {
        // Reading manifests, keys and scripts touches more of the program than serving does.
        ProcessMemory.settle()
        try server.start()
        if state.start() { drain() }
    }

    /// Drains at the first signal, ends at the second; runs until the task is cancelled.
    /// - Parameter onDrain: called once, when readiness went off.
    func obey(
        _ signals: UnixSignalsSequence, onDrain: @Sendable () -> Void = {}, onStop: @Sendable () -> Void = {}
    ) async {
        for await signal in signals {
            guard signal != .sighup else {
                // To others it says "read the configuration again"; to a shell, that its terminal has gone.
                logger.notice("SIGHUP: there is nothing to read again, changes are taken up as they come")
                continue
            }
            switch state.beginDrain() {
            case .now:
                // The loops first: whoever sees readiness off is told to close by every response from then on.
                drain()
                state.showDrain()
                onDrain()
                logger.notice(
                    "draining", metadata: ["signal": "\(signal)", "timeout": "\(settings.drainTimeout) ms"])
            case .atStart:
                onDrain()
                logger.notice("ending before anything was served", metadata: ["signal": "\(signal)"])
            case .already:
                logger.warning("ending at once", metadata: ["signal": "\(signal)"])
                server.stop()
                onStop()
            }
        }
    }

    private func drain() {
        server.drain(delay: UInt64(settings.drainDelay), timeout: UInt64(settings.drainTimeout))
    }

    /// Waits for the loops on a thread of its own: `join` blocks.
    func joined() async {
        let server = server
        await withCheckedContinuation { continuation in
            Thread.detachNewThread {
                server.join()
                continuation.resume()
            }
        }
    }

    /// The last lines of the logs go out.
    func flush() {
        log(scripts.log.drain())
        _ = writer.flush(within: 2)
    }
}

private func makeLogger(_ settings: Settings) -> Logger {
    var logger = Logger(label: "moongate") { StreamLogHandler.standardError(label: $0) }
    logger.logLevel = Logger.Level(rawValue: settings.logLevel) ?? .info
    return logger
}

extension AccessLogChoice {
    /// Nil: no access log.
    var telemetry: Telemetry.AccessLogFormat? {
        switch self {
        case .json: .json
        case .text: .text
        case .off: nil
        }
    }
}

extension TLSOptions {
    init(_ settings: Settings) {
        self.init()
        protocols = ProxyConfiguration.applicationProtocols
        minimumVersion = settings.tlsMinVersion
        choose(ciphers: settings.tlsCiphers)
    }
}

extension ProxyConfiguration {
    init(_ settings: Settings) {
        self.init(listen: settings.http, loops: settings.workers)
        listenSecure = settings.https
        redirectPort = UInt16(clamping: settings.sslRedirectPort)
        transportSecurity = Array(settings.hsts.utf8)
        compression.choice = settings.compression.choice
        compression.levels = settings.compression.levels
        compression.limits.minLength = UInt64(settings.compression.minLength)
        compression.limits.types = settings.compression.types
        compression.memory = settings.compression.memory
        limits.headBytes = settings.maxHeadBytes
        limits.fields = settings.maxFields
        limits.targetBytes = settings.maxTargetBytes
        limits.fieldBytes = settings.maxFieldBytes
        limits.bodyBytes = UInt64(settings.maxBodyBytes)
        limits.bodyRate = UInt64(settings.minBodyRate)
        limits.streams = settings.http2MaxConcurrentStreams
        timeouts.handshake = UInt64(settings.tlsHandshakeTimeout)
        timeouts.requestHead = UInt64(settings.requestHeadTimeout)
        timeouts.idle = UInt64(settings.idleTimeout)
        timeouts.connect = UInt64(settings.connectTimeout)
        timeouts.responseHead = UInt64(settings.responseHeadTimeout)
        timeouts.streamIdle = UInt64(settings.streamIdleTimeout)
        timeouts.total = UInt64(settings.totalTimeout)
        trustedProxies = settings.trustedProxies
        timeouts.relayIdle = UInt64(settings.proxyStreamTimeout)
        timeouts.sessionIdle = UInt64(settings.udpSessionTimeout)
        if settings.udpServicesConfigMap != nil { sessions.most = settings.maxUDPSessions }
        sessions.mostPerClient = settings.maxUDPSessionsPerClient
        sessions.answers = UInt64(settings.proxyStreamResponses)
        reservedPorts = [settings.admin.port] + (settings.webhook.map { [$0.address.port] } ?? [])
        usesProxyProtocol = settings.useProxyProtocol
        timeouts.proxyHeader = UInt64(settings.proxyProtocolHeaderTimeout)
        sendsForwarded = settings.sendsForwarded
        sendsVia = settings.sendsVia
        maxConnections = settings.maxConnections
        maxConnectionsPerClient = settings.maxConnectionsPerClient
    }
}
