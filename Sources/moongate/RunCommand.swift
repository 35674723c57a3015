// `moongate run`: the proxy itself. The data plane's loops have threads of their own; everything in this file runs
// beside them and can not hold them up.

import ArgumentParser
import Foundation
import Logging
import Manifests
import Model
import Proxy
import Routing
import Synchronization
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
                problem: "there is nothing to serve", key: "manifests", mend: "name a folder: --manifests examples/quickstart")
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
        let server = try ProxyServer(configuration: ProxyConfiguration(settings))
        let state = ServingState()
        let resolver = NameResolver()
        let pipeline = Pipeline(options: .init(settings), loops: server.loops, resolver: resolver)

        let (changes, change) = AsyncStream.makeStream(of: FolderContents.self, bufferingPolicy: .bufferingNewest(1))
        let source = try FolderSource(root: directory) { change.yield($0) }
        let current = Latest(source.initial)
        await resolver.setOnLateAnswer { change.yield(current.value) }

        await take(source.initial, pipeline, server, state, logger)
        try server.start()
        source.start()
        onListening(server.addresses, settings.admin)

        let tasks = [
            Task {
                for await contents in changes {
                    current.set(contents)
                    await take(contents, pipeline, server, state, logger)
                }
            },
            Task {
                while !Task.isCancelled {
                    try await Task.sleep(for: .seconds(10))
                    if await resolver.refresh() { change.yield(current.value) }
                }
            },
            Task { await drainOnSignal(server, state, logger) },
        ]
        await joined(server)
        for task in tasks { task.cancel() }
        source.stop()
    }

    /// Takes a configuration up: what is new is published, what is wrong is said once.
    private func take(
        _ contents: FolderContents, _ pipeline: Pipeline, _ server: ProxyServer, _ state: ServingState, _ logger: Logger
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
        for diagnostic in state.update(configuration?.table, diagnostics) { log(diagnostic, logger) }
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

    private func drainOnSignal(_ server: ProxyServer, _ state: ServingState, _ logger: Logger) async {
        for await signal in await UnixSignalsSequence(trapping: .sigterm, .sigint) {
            if state.beginDrain() {
                logger.notice("draining", metadata: ["signal": "\(signal)", "timeout": "\(settings.drainTimeout) ms"])
                server.drain(delay: UInt64(settings.drainDelay), timeout: UInt64(settings.drainTimeout))
            } else {
                logger.warning("ending at once", metadata: ["signal": "\(signal)"])
                server.stop()
            }
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

extension ProxyConfiguration {
    init(_ settings: Settings) {
        self.init(listen: settings.http, loops: settings.workers)
        limits.headBytes = settings.maxHeadBytes
        limits.fields = settings.maxFields
        limits.targetBytes = settings.maxTargetBytes
        limits.bodyBytes = UInt64(settings.maxBodyBytes)
        timeouts.requestHead = UInt64(settings.requestHeadTimeout)
        timeouts.idle = UInt64(settings.idleTimeout)
        timeouts.connect = UInt64(settings.connectTimeout)
        timeouts.responseHead = UInt64(settings.responseHeadTimeout)
        timeouts.streamIdle = UInt64(settings.streamIdleTimeout)
        timeouts.total = UInt64(settings.totalTimeout)
        trustedProxies = settings.trustedProxies
        sendsForwarded = settings.sendsForwarded
    }
}
