// `moongate run`: the proxy itself. The data plane's loops have threads of their own; everything in this file runs
// beside them and can not hold them up.

import Admin
import ArgumentParser
import Foundation
import Logging
import Manifests
import Model
import Proxy
import Routing
import Scripting
import Synchronization
import Telemetry
import UnixSignals

struct RunCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run", abstract: "Serve Ingresses: from a folder of manifests.")

    @OptionGroup
    var flags: RunFlags

    func run() async throws {
        let settings = try await Settings.resolve(flags)
        guard let directory = settings.manifests else {
            throw SettingsError(
                problem: "there is nothing to serve", key: "manifests",
                mend: "name a folder: --manifests examples/quickstart")
        }
        try await Standalone(settings: settings, directory: directory).run()
    }
}

/// A proxy that serves a folder, from start to drain.
struct Standalone {
    let settings: Settings
    let directory: String
    /// Called once, with the addresses really bound, when the first configuration is served.
    var onListening: @Sendable (_ http: [Model.SocketAddress], _ admin: Model.SocketAddress) -> Void = { http, admin in
        StandardOutput.line(Self.listeningLine(http: http, admin: admin))
    }

    /// One line for programs that start this one.
    static func listeningLine(http: [Model.SocketAddress], admin: Model.SocketAddress) -> String {
        var fields = [#""event":"listening""#]
        if let first = http.first { fields.append(#""http":"\#(first)""#) }
        if http.count > 1 { fields.append(#""listeners":[\#(http.map { "\"\($0)\"" }.joined(separator: ","))]"#) }
        fields.append(#""admin":"\#(admin)""#)
        return "{\(fields.joined(separator: ","))}"
    }

    /// Serves until the process is asked to end.
    func run() async throws {
        let logger = makeLogger(settings)
        let metrics = MetricsHub(version: Moongate.version)
        let writer = LogWriter(StandardOutputSink())
        metrics.watch(writer)
        let server = try ProxyServer(
            configuration: ProxyConfiguration(settings), metrics: metrics,
            accessLog: settings.accessLog.telemetry.map { ($0, writer) })
        logger.info("client connections", metadata: ["most": "\(server.maxConnections)", "loops": "\(server.loops)"])
        let state = ServingState()
        let scripts = ScriptSurroundings()
        let resolver = NameResolver()
        let pipeline = Pipeline(
            options: .init(settings), loops: server.loops, explains: true, scripts: scripts, resolver: resolver,
            takesTurns: true)

        // A signal, and what it stands for beside it: whoever gives the signal, the newest contents are taken.
        let (changes, change) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
        let current = Latest<FolderContents?>(nil)
        let source = try FolderSource(root: directory) {
            current.set($0)
            change.yield()
        }
        current.set(source.initial)
        await resolver.setOnLateAnswer { change.yield() }
        await take(source.initial, pipeline, server, state, metrics, logger)
        if await pipeline.isUnfinished { change.yield() }

        // The admin server first: a probe that comes early is answered "not yet" rather than refused.
        let (bound, isBound) = AsyncStream.makeStream(of: Model.SocketAddress.self)
        let admin = Task {
            defer { isBound.finish() }
            var quiet = Logger(label: "moongate.admin") { StreamLogHandler.standardError(label: $0) }
            // What goes wrong here is thrown, and told below.
            quiet.logLevel = .critical
            try await AdminServer(
                address: settings.admin,
                sources: sources(server, state, metrics, pipeline, scripts), logger: quiet,
                onBound: { isBound.yield($0) }
            ).run()
        }
        var adminAddress: Model.SocketAddress?
        for await address in bound {
            adminAddress = address
            break
        }
        guard let adminAddress else {
            try await admin.value
            return
        }
        // Before anybody is told that we listen: a signal that comes early must drain, not kill.
        let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint)
        try server.start()
        source.start()
        state.start()
        onListening(server.addresses, adminAddress)

        let tasks = [
            Task {
                for await _ in changes {
                    guard let contents = current.value else { continue }
                    await take(contents, pipeline, server, state, metrics, logger)
                    // Scripts that are slow to load take turns with the changes of others.
                    if await pipeline.isUnfinished { change.yield() }
                }
            },
            Task {
                while !Task.isCancelled {
                    try await Task.sleep(for: .seconds(10))
                    if await resolver.refresh() { change.yield() }
                }
            },
            Task {
                while !Task.isCancelled {
                    try await Task.sleep(for: .milliseconds(200))
                    log(scripts.log.drain(), logger)
                }
            },
            Task { await drain(on: signals, server, state, logger) },
        ]
        await joined(server)
        for task in tasks { task.cancel() }
        admin.cancel()
        source.stop()
        log(scripts.log.drain(), logger)
        _ = writer.flush(within: 2)
    }

    /// What the admin server shows.
    private func sources(
        _ server: ProxyServer, _ state: ServingState, _ metrics: MetricsHub, _ pipeline: Pipeline,
        _ scripts: ScriptSurroundings
    ) -> AdminSources {
        let configuration = server.configuration
        return AdminSources(
            illness: {
                // Nothing that a loop does takes so long; whatever hangs it, only a new process helps.
                let silence = server.silence
                return silence > 30_000 ? "an event loop has not come round for \(silence / 1000) s" : nil
            },
            unreadiness: { state.unreadiness },
            metrics: {
                await metrics.refresh()
                var text = metrics.render()
                ScriptVitals.write(await pipeline.scriptVitals, to: &text)
                scripts.metrics.write(to: &text)
                scripts.log.write(to: &text)
                return text
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
                        throw ValidationError("from \"\(query.from)\" is not an IP address")
                    }
                    let request = try ExplainedRequest(
                        query.request, headers: query.headers, cookies: query.cookies, peer: peer)
                    let explanation = await state.explain(served.configuration, request, configuration)
                    return ExplainAnswer(text: explanation.text + "\n", json: try explanation.json)
                } catch {
                    throw AdminProblem("\(error)")
                }
            })
    }

    /// Takes a configuration up: what is new is published, what is wrong is said once.
    private func take(
        _ contents: FolderContents, _ pipeline: Pipeline, _ server: ProxyServer, _ state: ServingState,
        _ metrics: MetricsHub, _ logger: Logger
    ) async {
        let (configuration, diagnostics) = await pipeline.prepare(contents)
        if let configuration {
            server.publish(
                configuration.table, middlewares: configuration.middlewares, names: configuration.addresses)
            logger.info(
                "configuration published",
                metadata: [
                    "generation": "\(configuration.table.generation)",
                    "routes": "\(configuration.table.snapshot.routes.count)",
                    "upstreams": "\(configuration.table.snapshot.upstreams.count)",
                ])
        }
        let fresh = state.update(configuration, diagnostics)
        for diagnostic in fresh { log(diagnostic, logger) }
        let isGood = !diagnostics.contains { $0.severity == .error }
        metrics.configure { figures in
            if isGood { figures.reloadsApplied += 1 } else { figures.reloadsFailed += 1 }
            figures.isLastReloadGood = isGood
            figures.diagnostics = Dictionary(grouping: diagnostics, by: \.severity).mapValues(\.count)
            if isGood { figures.lastSuccess = Date().timeIntervalSince1970 }
            guard let table = configuration?.table else { return }
            figures.generation = table.generation
            figures.hosts = table.snapshot.hosts.count
            figures.routes = table.snapshot.routes.count
            figures.upstreams = table.snapshot.upstreams.count
            figures.endpoints = table.snapshot.upstreams.reduce(0) { $0 + $1.endpoints.count }
        }
    }

    private func log(_ lines: [ScriptLogLine], _ logger: Logger) {
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

    private func log(_ diagnostic: Diagnostic, _ logger: Logger) {
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

    private func drain(
        on signals: UnixSignalsSequence, _ server: ProxyServer, _ state: ServingState, _ logger: Logger
    ) async {
        for await signal in signals {
            if state.isDraining {
                logger.warning("ending at once", metadata: ["signal": "\(signal)"])
                server.stop()
                continue
            }
            // The loops first: whoever sees readiness off is told to close by every response from then on.
            server.drain(delay: UInt64(settings.drainDelay), timeout: UInt64(settings.drainTimeout))
            state.beginDrain()
            logger.notice("draining", metadata: ["signal": "\(signal)", "timeout": "\(settings.drainTimeout) ms"])
        }
    }

    /// Waits for the loops on a thread of its own: `join` blocks.
    private func joined(_ server: ProxyServer) async {
        await withCheckedContinuation { continuation in
            Thread.detachNewThread {
                server.join()
                continuation.resume()
            }
        }
    }
}

/// The last value that was set, for whoever asks.
private final class Latest<Value: Sendable>: Sendable {
    private let held: Mutex<Value>

    init(_ value: Value) { held = Mutex(value) }

    var value: Value { held.withLock { $0 } }
    func set(_ value: Value) { held.withLock { $0 = value } }
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

extension ProxyConfiguration {
    init(_ settings: Settings) {
        self.init(listen: settings.http, loops: settings.workers)
        limits.headBytes = settings.maxHeadBytes
        limits.fields = settings.maxFields
        limits.targetBytes = settings.maxTargetBytes
        limits.fieldBytes = settings.maxFieldBytes
        limits.bodyBytes = UInt64(settings.maxBodyBytes)
        limits.bodyRate = UInt64(settings.minBodyRate)
        timeouts.requestHead = UInt64(settings.requestHeadTimeout)
        timeouts.idle = UInt64(settings.idleTimeout)
        timeouts.connect = UInt64(settings.connectTimeout)
        timeouts.responseHead = UInt64(settings.responseHeadTimeout)
        timeouts.streamIdle = UInt64(settings.streamIdleTimeout)
        timeouts.total = UInt64(settings.totalTimeout)
        trustedProxies = settings.trustedProxies
        sendsForwarded = settings.sendsForwarded
        sendsVia = settings.sendsVia
        maxConnections = settings.maxConnections
        maxConnectionsPerClient = settings.maxConnectionsPerClient
    }
}
