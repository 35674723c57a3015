// `moongate run --manifests`: a folder is the whole world.

import Foundation
import Logging
import Manifests
import Model
import Proxy
import Routing
import Synchronization
import UnixSignals

/// A proxy that serves a folder, from start to drain.
struct Standalone {
    let settings: Settings
    let directory: String
    /// Called once, with the addresses really bound, when the first configuration is served.
    var onListening: @Sendable (BoundAddresses) -> Void = { StandardOutput.line(Edge.listeningLine($0)) }

    /// Serves until the process is asked to end.
    func run() async throws {
        let edge = try Edge(settings, options: .init(settings))
        // A signal, and what it stands for beside it: whoever gives the signal, the newest contents are taken.
        let (changes, change) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
        let current = Latest<FolderContents?>(nil)
        let source = try FolderSource(root: directory) {
            current.set($0)
            change.yield()
        }
        current.set(source.initial)
        await edge.resolver.setOnLateAnswer { change.yield() }
        let admin = try await edge.startAdmin()
        edge.warnOfIdleSettings()
        await take(source.initial, edge)
        if await edge.pipeline.isUnfinished { change.yield() }
        // Before anybody is told that we listen: a signal that comes early must drain, not kill.
        let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint, .sighup)
        try edge.start()
        source.start()
        onListening(edge.bound(admin: admin.address))

        let tasks = [
            Task {
                for await _ in changes {
                    guard let contents = current.value else { continue }
                    await take(contents, edge)
                    // Scripts that are slow to load take turns with the changes of others.
                    if await edge.pipeline.isUnfinished { change.yield() }
                }
            },
            Task {
                while !Task.isCancelled {
                    do { try await Task.sleep(for: .seconds(10)) } catch { return }
                    let hasNewNames = await edge.resolver.refresh()
                    if edge.server.retryPorts() || hasNewNames { change.yield() }
                }
            },
            Task { await edge.logScripts() },
            Task { await edge.obey(signals) },
            Task { await edge.tickets.run() },
            Task { await edge.watchTime { change.yield() } },
        ]
        await edge.joined()
        for task in tasks { task.cancel() }
        admin.task.cancel()
        source.stop()
        edge.flush()
    }

    /// Takes a configuration up: what is new is published, what is wrong is said once.
    private func take(_ contents: FolderContents, _ edge: Edge) async {
        let (configuration, diagnostics) = await edge.pipeline.prepare(contents)
        if let configuration {
            edge.publish(configuration)
            edge.logPublication(configuration)
        }
        edge.show(diagnostics + edge.server.portDiagnostics)
        edge.countReload(isGood: !diagnostics.contains { $0.severity == .error })
    }
}

/// The last value that was set, for whoever asks.
private final class Latest<Value: Sendable>: Sendable {
    private let held: Mutex<Value>

    init(_ value: Value) { held = Mutex(value) }

    var value: Value { held.withLock { $0 } }
    func set(_ value: Value) { held.withLock { $0 = value } }
}
