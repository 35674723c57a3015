// `moongate run` against a Kubernetes API server: the control loop publishes, the data plane serves, and neither waits for
// the other. What the API server does to us shows in a log line, a metric and the admin port; what is served stays.

import Admission
import Controller
import Foundation
import IngressTranslation
import KubernetesAPI
import KubernetesClient
import Logging
import Model
import Proxy
import Reactor
import Routing
import Scripting
import UnixSignals

/// A proxy that serves a cluster's Ingresses, from start to drain.
struct InCluster {
    let settings: Settings
    /// Of the process: the kubelet and the downward API speak through it.
    let environment: [String: String]
    /// Called once, when the addresses are bound; readiness tells when something is served on them.
    var onListening: @Sendable (BoundAddresses) -> Void = { StandardOutput.line(Edge.listeningLine($0)) }

    /// Serves until the process is asked to end.
    func run() async throws {
        let access = try access()
        let options = try options(access)
        let edge = try Edge(
            settings, options: options.translation, reservedDescriptors: options.referenceDescriptors)
        let clock = SystemClock()
        let client = APIClient(access: access, clock: clock, log: edge.logger)
        // True: the first configuration stands. False: there will be none.
        let (starts, start) = AsyncStream.makeStream(of: Bool.self, bufferingPolicy: .bufferingOldest(1))
        let (agains, again) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
        let controller = ClusterController(
            client: client, options: options, clock: clock, log: edge.logger,
            prepare: { await edge.pipeline.makeReady($0) },
            publish: { publication in
                let diagnostics = await take(publication, edge)
                start.yield(true)
                // Scripts that are slow to load take turns with the changes of others.
                if await edge.pipeline.isUnfinished { again.yield() }
                return diagnostics
            })
        await edge.resolver.setOnLateAnswer { controller.publishAgain() }
        let webhook = webhook(options, access, controller, client, clock, edge)
        let admin = try await edge.startAdmin(
            more: {
                controller.prometheusText + (webhook?.server.figures.text ?? "")
            },
            waiting: { Self.waiting(for: controller.unlisted) })
        let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint, .sighup)
        edge.logger.notice(
            "following the cluster",
            metadata: [
                "server": "\(access.server)", "credential": "\(access.identity)", "identity": "\(options.identity)",
                "namespaces": "\(options.namespaces.isEmpty ? "all" : options.namespaces.joined(separator: ","))",
            ])
        var asked: AdmissionServer.Running?
        if let webhook, let wanted = settings.webhook {
            asked = try await ControlListener.open(wanted.address, key: "webhook") {
                try await webhook.server.start(on: $0)
            }
        }
        onListening(edge.bound(admin: admin.address, webhook: asked?.address))

        let loop = Task { await controller.run() }
        let tasks: [Task<Void, Never>] = [
            Task { await show(controller, edge) },
            Task { for await _ in agains { controller.publishAgain() } },
            Task {
                while !Task.isCancelled {
                    do { try await Task.sleep(for: .seconds(10)) } catch { return }
                    let hasNewNames = await edge.resolver.refresh()
                    if edge.server.retryPorts() || hasNewNames { controller.publishAgain() }
                }
            },
            Task { await edge.logScripts { lines in await tell(lines, controller, edge) } },
            Task { await watchBreakers(controller, edge) },
            Task { await edge.tickets.run() },
            Task { await edge.watchTime { controller.publishAgain() } },
            Task { if let webhook { await webhook.identity.keep() } },
            Task {
                await edge.obey(
                    signals,
                    onDrain: {
                        // Another replica may write from here on; our own endpoints go on moving while we drain.
                        controller.resign()
                        start.yield(false)
                    },
                    onStop: { controller.abandon() })
            },
        ]
        for await serves in starts {
            if serves {
                try edge.start()
                await edge.joined()
            }
            break
        }
        for task in tasks { task.cancel() }
        await asked?.stop()
        loop.cancel()
        await loop.value
        await client.shutdown()
        admin.task.cancel()
        edge.flush()
    }

    // MARK: Settings

    private func access() throws -> ClusterAccess {
        if let file = settings.kubeconfig {
            return try Kubeconfig(files: [file]).access(context: settings.context)
        }
        let isPod = environment["KUBERNETES_SERVICE_HOST"].map { !$0.isEmpty } ?? false
        if !isPod || settings.context != nil, let list = environment["KUBECONFIG"], !list.isEmpty {
            return try Kubeconfig(files: list.split(separator: ":").map(String.init)).access(context: settings.context)
        }
        return try ClusterAccess.inCluster(environment: environment)
    }

    /// Where we live ourselves.
    private func namespace(_ access: ClusterAccess) -> String {
        environment["POD_NAMESPACE"].flatMap { $0.isEmpty ? nil : $0 } ?? access.namespace ?? "default"
    }

    func options(_ access: ClusterAccess) throws -> ControllerOptions {
        var options = ControllerOptions()
        options.translation = TranslationOptions(settings)
        // Behind 127.0.0.1 there are the proxy's own ports, and the node's with hostNetwork.
        options.translation.allowsLoopbackNames = false
        options.namespaces = settings.watchNamespaces
        if let secret = options.translation.defaultCertificate { options.extra.secrets.insert(secret) }
        if let secret = options.translation.ticketKeys { options.extra.secrets.insert(secret) }
        for map in [options.translation.tcpServices, options.translation.udpServices] {
            if let map { options.extra.configMaps.insert(map) }
        }
        // A quarter of the descriptors at most: the others are for clients.
        options.references.total = min(options.references.total, max(16, Descriptors.raiseLimit() / 4))
        options.references.perNamespace = min(options.references.perNamespace, max(8, options.references.total / 2))
        if settings.watchAllSecrets { options.secrets = .namespaces }
        if settings.watchAllConfigMaps { options.configMaps = .namespaces }
        let here = namespace(access)
        let pod = environment["POD_NAME"].flatMap { $0.isEmpty ? nil : $0 }
        if let service = settings.publishService {
            options.status = .service(Self.objectName(service))
        } else if !settings.publishStatusAddresses.isEmpty {
            options.status = .addresses(
                settings.publishStatusAddresses.map { StatusSource.address($0, isIP: IPAddress($0) != nil) })
        } else if settings.publishNodeAddresses {
            guard let pod else {
                throw SettingsError(
                    problem: "the addresses of the nodes are found by our own pod, whose name is not known",
                    key: "publish-node-addresses",
                    mend: "set POD_NAME and POD_NAMESPACE from metadata.name and metadata.namespace (downward API)")
            }
            options.status = .nodes(pod: ObjectName(namespace: here, name: pod))
        }
        if settings.zone == nil { options.node = environment["NODE_NAME"].flatMap { $0.isEmpty ? nil : $0 } }
        // Unique even where two processes share a host's name.
        let host = ProcessInfo.processInfo.hostName
        options.identity = pod ?? "\(host.isEmpty ? "moongate" : host)_\(UUID().uuidString.prefix(8).lowercased())"
        options.election = ElectionMachine.Terms(duration: .milliseconds(settings.leaseDuration))
        if settings.election {
            options.lease =
                settings.electionLease.map(Self.objectName) ?? ObjectName(namespace: here, name: "moongate-leader")
        }
        return options
    }

    private static func objectName(_ text: String) -> ObjectName {
        let parts = text.split(separator: "/", maxSplits: 1).map(String.init)
        return ObjectName(namespace: parts.first ?? "", name: parts.last ?? "")
    }

    /// The admission webhook, if there is to be one.
    private func webhook(
        _ options: ControllerOptions, _ access: ClusterAccess, _ controller: ClusterController, _ client: APIClient,
        _ clock: any ControlClock, _ edge: Edge
    ) -> (server: AdmissionServer, identity: WebhookIdentity)? {
        guard let wanted = settings.webhook else { return nil }
        let here = namespace(access)
        let source: WebhookIdentity.Source =
            if let files = wanted.files {
                .files(certificate: files.certificate, key: files.key)
            } else {
                .managed(
                    secret: wanted.secret.map(Self.objectName) ?? ObjectName(namespace: here, name: "moongate-webhook"),
                    names: ["", ".cluster.local"].map { "\(wanted.service).\(here).svc\($0)" },
                    configuration: wanted.configuration)
            }
        let identity = WebhookIdentity(
            source: source, clientAuthority: wanted.clientAuthority, client: client, clock: clock, log: edge.logger)
        let judge = AdmissionJudge(options: options.translation) { controller.objects }
        return (AdmissionServer(address: wanted.address, judge: judge) { identity.context }, identity)
    }

    // MARK: Configuration

    /// What the control loop calls for each change, one at a time.
    private func take(_ publication: Publication, _ edge: Edge) async -> [Diagnostic] {
        let changed: [Int]? =
            switch publication.extent {
            case .everything: nil
            case .endpoints(let upstreams): upstreams
            }
        let (configuration, diagnostics) = await edge.pipeline.prepare(publication.snapshot, endpointsOf: changed)
        if let configuration {
            edge.publish(configuration)
            edge.logPublication(configuration, at: changed == nil ? .info : .debug)
        }
        // Faults of tenants are theirs: the change as a whole is in force.
        edge.countReload(isGood: true)
        return diagnostics + edge.server.portDiagnostics
    }

    /// Shows what the control loop says is wrong, as it says it.
    private func show(_ controller: ClusterController, _ edge: Edge) async {
        var shown: UInt64 = 0
        while true {
            let known = shown
            do { try await controller.state.wait { $0.diagnosticsVersion != known } } catch { return }
            let (version, diagnostics) = controller.state.read { ($0.diagnosticsVersion, $0.diagnostics) }
            shown = version
            edge.show(diagnostics)
        }
    }

    /// Why nothing is served yet.
    private static func waiting(for sources: [StoreSource]) -> String? {
        guard let first = sources.first else { return nil }
        let more = sources.count > 1 ? " and \(sources.count - 1) more" : ""
        return "waiting for the first list of \(first)\(more)"
    }

    // MARK: Scripts

    /// A script that fails is an Event on the Ingresses that run it.
    private func tell(_ lines: [ScriptLogLine], _ controller: ClusterController, _ edge: Edge) async {
        // By script, so that a thousand failures are one note.
        var failures: [String: String] = [:]
        for line in lines where line.level == .error {
            guard let kind = line.fields.first(where: { $0.key == "class" })?.value else { continue }
            failures[line.script] =
                failures[line.script] ?? "the script \(line.script) failed (\(kind)): \(line.message)"
        }
        for (script, note) in failures.sorted(by: { $0.key < $1.key }) {
            for ingress in Self.ingresses(of: script, edge) {
                await controller.tell(.warning, about: ingress, reason: "ScriptFailed", action: "RunScript", note: note)
            }
        }
    }

    private func watchBreakers(_ controller: ClusterController, _ edge: Edge) async {
        var open: Set<String> = []
        while !Task.isCancelled {
            do { try await Task.sleep(for: .seconds(1)) } catch { return }
            let now = await edge.pipeline.scriptsWithOpenBreaker
            for script in now.subtracting(open).sorted() {
                edge.logger.error("the breaker of a script is open", metadata: ["script": "\(script)"])
                for ingress in Self.ingresses(of: script, edge) {
                    await controller.tell(
                        .warning, about: ingress, reason: "ScriptBreakerOpen", action: "RunScript",
                        note: "the script \(script) failed 50 times within 10 seconds and is not run for now; "
                            + "its failure policy applies")
                }
            }
            open = now
        }
    }

    /// Bounded: what a hundred Ingresses share is told to the first few.
    private static func ingresses(of script: String, _ edge: Edge) -> [ObjectReference] {
        guard let snapshot = edge.state.served?.configuration.table.snapshot else { return [] }
        var found: [ObjectReference] = []
        for route in snapshot.routes where found.count < 8 && route.ingress != found.last {
            let runs = route.scripts.contains { binding in
                guard let index = binding.script, snapshot.scripts.indices.contains(index) else { return false }
                return snapshot.scripts[index].qualifiedName == script
            }
            if runs, !found.contains(route.ingress) { found.append(route.ingress) }
        }
        return found
    }
}
