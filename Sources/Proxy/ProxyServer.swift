// The data plane as the program sees it: start it, publish snapshots to it, drain it.
package import Middlewares
package import Model
internal import Reactor
package import Routing
internal import Synchronization
package import TLSEngine
package import Telemetry
internal import Upstreams

/// Serves HTTP on its own threads, one event loop each. All methods may be called from any thread.
package final class ProxyServer: Sendable {
    package enum StartError: Error, CustomStringConvertible, Sendable {
        case cannotListen(Model.SocketAddress, String)
        case noResources(String)

        package var description: String {
            switch self {
            case .cannotListen(let address, let why): "cannot listen on \(address): \(why)"
            case .noResources(let why): "cannot start an event loop: \(why)"
            }
        }
    }

    private struct State {
        var threads: [LoopThread] = []
        var publication: Publication
        /// The one before, held until the next: so its end, which takes milliseconds with many routes, is none of a loop's.
        var retired: Publication?
        var drains = 0
        /// The ports of TCP and UDP services that are open.
        var ports: [ServicePort: [[PortListener]]] = [:]
        var nextListener: UInt32 = 0
        var portDiagnostics: [Diagnostic] = []
        /// Why those of the ports that are wanted are not open that are not.
        var closedPorts: [ServicePort: String] = [:]
        /// All that were ever opened here: what listens there when one is opened again may be our own, on its way out.
        var knownPorts: Set<ServicePort> = []
    }

    package let configuration: ProxyConfiguration
    /// Those of `configuration` where another process listens, too: it gets a part of the connections.
    package let sharedAddresses: [Model.SocketAddress]
    /// The addresses really bound, in the order of `configuration.listen`.
    package let addresses: [Model.SocketAddress]
    /// The same for `configuration.listenSecure`.
    package let secureAddresses: [Model.SocketAddress]
    /// Connections of clients that are served at once, over all loops: what was asked for, or what there are
    /// descriptors for.
    package let maxConnections: Int
    /// One a loop; `MiddlewareCompiler` must be made for as many.
    package let loops: Int
    /// What the loops have to say to the operator.
    private let notices: ProxyNotices
    private let workers: [Worker]
    private let metrics: MetricsHub
    private let state: Mutex<State>

    /// Binds the listeners; nothing is accepted before `start`, so that the first snapshot can be published first.
    ///
    /// - Parameters:
    ///   - metrics: where the loops report to.
    ///   - accessLog: how and where the lines of the access log are written; nil writes none.
    package init(
        configuration: ProxyConfiguration, metrics: MetricsHub = MetricsHub(version: ""),
        accessLog: (format: AccessLogFormat, writer: LogWriter)? = nil
    ) throws(StartError) {
        var configuration = configuration
        configuration.loops = configuration.loops > 0 ? configuration.loops : LoopThread.availableCPUs
        // Each connection of a client may want one to an endpoint beside it, and the rest of the process wants some.
        let descriptors = Descriptors.raiseLimit() - configuration.reservedDescriptors
        let sessions = min(configuration.sessions.most, max(16, (descriptors - 64) / 4))
        let possible = max(16, (descriptors - 64 - sessions) / 2)
        maxConnections = min(configuration.maxConnections > 0 ? configuration.maxConnections : .max, possible)
        configuration.maxConnections = max(1, maxConnections / configuration.loops)
        configuration.sessions.most = sessions > 0 ? max(1, sessions / configuration.loops) : 0
        self.configuration = configuration
        loops = configuration.loops
        let publication = Publication(table: RouteTable(Snapshot()), sets: [], configuration: configuration)
        let notices = ProxyNotices()
        self.notices = notices
        let wanted = configuration.listen + configuration.listenSecure
        var addresses: [Model.SocketAddress] = []
        var shared: [Model.SocketAddress] = []
        var listeners: [[Listener]] = Array(repeating: [], count: configuration.loops)
        for (index, address) in wanted.enumerated() {
            // The kernel would let us listen twice, and give each of the two half of the connections.
            if address.port != 0, wanted[..<index].contains(address) {
                for listener in listeners.joined() { listener.close() }
                throw StartError.cannotListen(address, "it is given twice")
            }
            if Listeners.isTaken(address, beside: wanted) { shared.append(address) }
            do {
                let made = try Listeners.open(address, count: configuration.loops, beside: wanted)
                for (loop, listener) in made.enumerated() { listeners[loop].append(listener) }
                addresses.append(made.first.map { Model.SocketAddress($0.address) } ?? address)
            } catch {
                for listener in listeners.joined() { listener.close() }
                throw StartError.cannotListen(address, error.description)
            }
        }
        var workers: [Worker] = []
        let most = configuration.maxConnectionsPerClient
        let clients = most > 0 ? ClientConnections(most: most) : nil
        let mostSessions = configuration.sessions.mostPerClient
        let sessionClients = mostSessions > 0 ? ClientConnections(most: mostSessions) : nil
        do {
            for loop in 0..<configuration.loops {
                let mailbox = try Mailbox<WorkerMessage>()
                let telemetry = LoopTelemetry(
                    metrics: metrics.makeLoop { mailbox.post(.report) },
                    log: accessLog.map { AccessLog(format: $0.format, writer: $0.writer) }, notices: notices)
                workers.append(
                    try Worker(
                        number: loop, configuration: configuration, listeners: listeners[loop], mailbox: mailbox,
                        publication: publication, telemetry: telemetry, clients: clients,
                        sessionClients: sessionClients,
                        metrics: metrics))
            }
        } catch {
            for listener in listeners.joined() { listener.close() }
            throw StartError.noResources(error.description)
        }
        sharedAddresses = shared
        self.addresses = Array(addresses.prefix(configuration.listen.count))
        secureAddresses = Array(addresses.dropFirst(configuration.listen.count))
        self.workers = workers
        self.metrics = metrics
        state = Mutex(State(publication: publication))
    }

    /// Starts the loops.
    package func start() throws(StartError) {
        var threads: [LoopThread] = []
        do {
            for (i, worker) in workers.enumerated() {
                threads.append(
                    try LoopThread(name: "loop-\(i)", cpu: configuration.pinsThreads ? i : nil) { worker.run() })
            }
        } catch {
            for worker in workers { worker.mailbox.post(.stop) }
            for thread in threads { thread.join() }
            throw StartError.noResources(error.description)
        }
        let started = threads
        state.withLock { $0.threads = started }
    }

    /// Everything from here on is served by this table and these scripts; what is in flight finishes on what it began
    /// with. Returns at once; each loop takes it up within its current pass.
    ///
    /// - Parameters:
    ///   - middlewares: one set a loop, as `MiddlewareCompiler.prepare` made them; none where there are no scripts.
    ///   - names: the addresses of endpoints that are given by name.
    ///   - clientRules: what hosts ask of their clients' certificates; nil where none asks.
    ///   - certificates: for the listeners of `listenSecure`; nil takes those of the publication before.
    ///   - securities: TLS to the upstreams that are spoken to over TLS; nil takes those of the publication before.
    package func publish(
        _ table: RouteTable, middlewares: [MiddlewareSet] = [], names: [String: [IPAddress]] = [:],
        certificates: CertificateTable? = nil, clientRules: ClientRules? = nil,
        securities: UpstreamSecurityTable? = nil
    ) {
        state.withLock { state in
            let labels = metrics.registry.labels(
                for: table.snapshot, scripts: middlewares.first?.scripts,
                scriptSeries: middlewares.first?.scriptSeries, previous: state.publication.labels,
                now: Int64(MonotonicClock.milliseconds() / 1_000))
            let next = Publication(
                table: table, sets: middlewares, configuration: configuration, names: names, labels: labels,
                certificates: certificates ?? state.publication.certificates, clientRules: clientRules,
                securities: securities ?? state.publication.securityTable, previous: state.publication)
            state.retired = state.publication
            state.publication = next
            // Under the lock, so that two publications reach every loop in the same order.
            for worker in workers { worker.mailbox.post(.adopt(next)) }
            openPorts(&state)
        }
    }

    // MARK: Ports of TCP and UDP services

    fileprivate struct ServicePort: Hashable {
        let number: UInt16
        let kind: SocketKind

        var name: String { "\(kind == .stream ? "" : "UDP ")port \(number)" }
    }

    /// The ports that are wanted and could not be opened.
    package var portDiagnostics: [Diagnostic] { state.withLock { $0.portDiagnostics } }

    /// Tries once more what could not be opened. True if that changed anything.
    package func retryPorts() -> Bool {
        state.withLock { state in
            guard !state.portDiagnostics.isEmpty else { return false }
            let before = state.portDiagnostics
            openPorts(&state)
            return state.portDiagnostics != before
        }
    }

    /// Opens and closes ports so that those with endpoints are open. Ports that are open already are left alone.
    private func openPorts(_ state: inout State) {
        let publication = state.publication
        let upstreams = publication.plan.upstreams
        let wanted: [(port: ServicePort, upstream: Int, place: Place)] =
            publication.snapshot.tcpServices.map {
                (ServicePort(number: $0.port, kind: .stream), $0.upstream, $0.place)
            }
            + publication.snapshot.udpServices.map {
                (ServicePort(number: $0.port, kind: .datagrams), $0.upstream, $0.place)
            }
        var diagnostics: [Diagnostic] = []
        var closed: [ServicePort: String] = [:]
        var ports: [ServicePort: [[PortListener]]] = [:]
        for (port, upstream, place) in wanted {
            guard upstreams.indices.contains(upstream), !upstreams[upstream].addresses.isEmpty else { continue }
            if let open = state.ports[port] {
                ports[port] = open
                continue
            }
            do throws(PortProblem) {
                let hosts = try hosts(port)
                // Asked before it is opened: then our own would be seen.
                let isShared =
                    state.knownPorts.insert(port).inserted
                    && hosts.contains { Listeners.isTaken($0, port.kind, beside: hosts) }
                ports[port] = try open(port, hosts, &state.nextListener)
                if isShared {
                    notices.note(
                        portShared: ProxyCode.portShared.diagnostic(
                            "another process listens on the \(port.name) too, and gets a part of what comes",
                            at: place, mend: "end it, unless it is the one that this one takes over from"))
                }
            } catch {
                closed[port] = error.why
                diagnostics.append(error.diagnostic(port, at: place))
            }
        }
        state.portDiagnostics = diagnostics
        state.closedPorts = closed
        guard ports.keys != state.ports.keys else { return }
        state.ports = ports
        for (loop, worker) in workers.enumerated() {
            worker.mailbox.post(.listen(ports.values.flatMap { $0[loop] }))
        }
    }

    struct PortProblem: Error {
        let why: String
        let mend: String

        static let ours = PortProblem(
            why: "Moongate itself listens there", mend: "choose another port; until then the service is not served")

        fileprivate func diagnostic(_ port: ServicePort, at place: Place) -> Diagnostic {
            ProxyCode.portNotOpened.diagnostic("the \(port.name) cannot be opened: \(why)", at: place, mend: mend)
        }
    }

    /// Why the port of a TCP or UDP service is wanted and not open; nil where it is open, or not wanted.
    package func whyClosed(_ number: UInt16, isUDP: Bool) -> String? {
        state.withLock { $0.closedPorts[ServicePort(number: number, kind: isUDP ? .datagrams : .stream)] }
    }

    /// What TCP services want of a port that Moongate has for itself, as far as can be said before anything is opened.
    package static func collisions(_ snapshot: Snapshot, _ configuration: ProxyConfiguration) -> [Diagnostic] {
        snapshot.tcpServices.filter { configuration.reserves(tcpPort: $0.port) }.map {
            PortProblem.ours.diagnostic(ServicePort(number: $0.port, kind: .stream), at: $0.place)
        }
    }

    /// Where it is listened: on each address that HTTP is listened for on.
    private func hosts(_ port: ServicePort) throws(PortProblem) -> [Model.SocketAddress] {
        let own = addresses + secureAddresses
        // Asked of the kernel, our own port would be given to us twice, and each of the two get half of the connections.
        guard
            port.kind == .datagrams
                || !own.contains(where: { $0.port == port.number }) && !configuration.reserves(tcpPort: port.number)
        else { throw .ours }
        var hosts: [Model.SocketAddress] = []
        for address in own where !hosts.contains(where: { $0.ip == address.ip }) {
            hosts.append(Model.SocketAddress(ip: address.ip, port: port.number))
        }
        return hosts
    }

    /// One listener a loop for each of `hosts`.
    private func open(
        _ port: ServicePort, _ hosts: [Model.SocketAddress], _ next: inout UInt32
    ) throws(PortProblem) -> [[PortListener]] {
        var made = [[PortListener]](repeating: [], count: loops)
        for host in hosts {
            do {
                for (loop, listener) in try Listeners.open(host, port.kind, count: loops, beside: hosts).enumerated() {
                    made[loop].append(PortListener(id: next, kind: port.kind, listener: listener))
                }
                next += 1
            } catch {
                for listener in made.joined() { listener.listener.close() }
                throw PortProblem(
                    why: error.description,
                    mend: "free the port, or choose another; it is tried again until it opens")
            }
        }
        return made
    }

    /// Leaves in order: for `delay` milliseconds connections are still accepted but not kept, then the listeners
    /// close, and what is in flight has `timeout` milliseconds to finish. A second call ends at once.
    package func drain(delay: UInt64, timeout: UInt64) {
        for worker in workers { worker.mailbox.post(.drain(delay: delay, timeout: timeout)) }
    }

    /// What happened on the path since the last call and is to be told to the operator: of each kind once a minute.
    package func takeNotices() -> [Diagnostic] {
        notices.take(now: Int64(MonotonicClock.milliseconds() / 1_000))
    }

    /// Milliseconds since the slowest loop last came round: more than a few thousand, and it hangs.
    package var silence: UInt64 {
        let now = MonotonicClock.milliseconds()
        return workers.map { $0.silence(now: now) }.max() ?? 0
    }

    /// Ends at once.
    package func stop() {
        for worker in workers { worker.mailbox.post(.stop) }
    }

    /// Waits until every loop has ended. Blocks its thread.
    package func join() {
        let threads = state.withLock { state in
            let threads = state.threads
            state.threads = []
            return threads
        }
        for thread in threads { thread.join() }
    }
}
