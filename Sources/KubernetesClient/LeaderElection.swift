// Drives the election against the API server.

package import KubernetesAPI
package import Logging

package final class LeaderElection: Sendable {
    private struct State: Sendable {
        var machine: ElectionMachine
        /// What was last told, to tell each change once.
        var leads = false
        var holder: String?
    }

    private let client: APIClient
    private let lease: ObjectName
    private let identity: String
    private let terms: ElectionMachine.Terms
    private let clock: any ControlClock
    private let log: Logger
    private let board: Watched<State>
    private let isAbandoned = Watched(false)
    private let releaseLimit: Duration

    /// - Parameter releaseLimit: whoever ends does not wait longer than this for a server that is silent; by the
    ///   network's time.
    package init(
        client: APIClient, lease: ObjectName, identity: String, terms: ElectionMachine.Terms = ElectionMachine.Terms(),
        clock: any ControlClock, log: Logger, releaseLimit: Duration = .seconds(2)
    ) {
        self.releaseLimit = releaseLimit
        self.client = client
        self.lease = lease
        self.identity = identity
        self.terms = terms
        self.clock = clock
        var log = log
        log[metadataKey: "lease"] = "\(lease)"
        log[metadataKey: "identity"] = "\(identity)"
        self.log = log
        board = Watched(State(machine: ElectionMachine(identity: identity, terms: terms)))
    }

    /// To be asked before each write: it turns false by itself when the lease could not be renewed in time.
    package var isLeading: Bool {
        let now = clock.now()
        return board.read { $0.machine.isLeading(at: now) }
    }

    package var holder: String? { board.read { $0.machine.holder } }

    package func waitUntilLeading() async throws { try await board.wait { $0.leads } }
    package func waitUntilNotLeading() async throws { try await board.wait { !$0.leads } }

    /// The lease is not waited for any more, should it be on its way back.
    package func abandon() { isAbandoned.update { $0 = true } }

    /// Takes part until the task is cancelled; then gives the lease back, if it is ours.
    package func run() async {
        var backoff = Backoff(first: .milliseconds(500), limit: terms.retryPeriod)
        var trouble: APIError.Code?
        while !Task.isCancelled {
            var delay = terms.retryPeriod
            do {
                try await round()
                backoff.reset()
                if trouble != nil { log.info("The lease can be read and written again") }
                trouble = nil
            } catch {
                let now = clock.now()
                switch error.code {
                case .conflict, .alreadyExists:
                    board.update { $0.machine.leaseConflicted() }
                default:
                    board.update { $0.machine.requestFailed(now: now) }
                    if trouble != error.code, !Task.isCancelled {
                        log.warning("The lease can't be read or written", metadata: ["error": "\(error)"])
                    }
                    trouble = error.code
                }
                delay = backoff.delay(atLeast: error.retryAfter, random: clock.random())
            }
            tellChanges()
            // Spread, so that followers do not all claim at once.
            do { try await clock.sleep(for: delay + delay * (clock.random() * 0.1)) } catch { break }
        }
        await release()
    }

    private func round() async throws(APIError) {
        let held: Lease?
        do {
            held = try await client.get(Lease.self, namespace: lease.namespace, name: lease.name)
        } catch {
            guard error.code == .notFound else { throw error }
            held = nil
        }
        let now = clock.now()
        let wall = clock.wallTime()
        let action = board.update { $0.machine.leaseRead(held?.spec, now: now, wall: wall) }
        let written: Lease
        switch action {
        case .wait: return
        case .create(let spec):
            let metadata = ObjectMeta(name: lease.name, namespace: lease.namespace)
            written = try await client.create(Lease(metadata: metadata, spec: spec))
        case .write(let spec):
            guard var lease = held else { return }
            lease.spec = spec
            written = try await client.replace(lease)
        }
        board.update { $0.machine.leaseWritten(written.spec, sentAt: now) }
    }

    private func tellChanges() {
        let now = clock.now()
        let (leads, changed, holder) = board.update { state in
            let leads = state.machine.isLeading(at: now)
            let changed = leads != state.leads
            state.leads = leads
            let holder = state.machine.holder
            let news = holder != state.holder ? holder : nil
            state.holder = holder
            return (leads, changed, news)
        }
        if changed {
            log.notice(leads ? "This replica leads: it writes statuses and Events" : "This replica no longer leads")
        } else if let holder, !leads {
            log.info("Another replica leads", metadata: ["holder": "\(holder)"])
        }
    }

    /// The task is cancelled by now, and the request must still go out.
    private func release() async {
        let wall = clock.wallTime()
        guard let spec = board.update({ $0.machine.released(wall: wall) }) else { return }
        board.update { $0.leads = false }
        let client = client
        let lease = lease
        let identity = identity
        let log = log
        let (isAbandoned, releaseLimit) = (isAbandoned, releaseLimit)
        let work: @Sendable () async -> Void = {
            do throws(APIError) {
                var held = try await client.get(Lease.self, namespace: lease.namespace, name: lease.name)
                var freed = spec
                // Not ours any more, if somebody took it meanwhile.
                guard held.spec.holderIdentity == identity else { return }
                freed.leaseTransitions = held.spec.leaseTransitions
                held.spec = freed
                _ = try await client.replace(held)
                log.info("The lease is given back")
            } catch {
                log.warning("The lease could not be given back; it expires", metadata: ["error": "\(error)"])
            }
        }
        await Task {
            await withTaskGroup(of: Void.self) { group in
                group.addTask(operation: work)
                group.addTask { try? await Task.sleep(for: releaseLimit) }
                group.addTask { try? await isAbandoned.wait { $0 } }
                await group.next()
                group.cancelAll()
            }
        }.value
    }
}
