// The last step of a configuration change: the leader writes into each Ingress where it is reached.

import KubernetesAPI
import KubernetesClient
import Logging

actor StatusWriter {
    private let client: APIClient
    private let store: ClusterStore
    private let clock: any ControlClock
    private let log: Logger
    /// True only while this replica leads; asked again before each write.
    private let mayWrite: @Sendable () -> Bool
    private let isNobodys: @Sendable (Ingress, ObjectSet) -> Bool
    private let count: @Sendable ((inout ControllerFigures) -> Void) -> Void
    /// Told whenever others are: the Ingresses whose status another writer keeps changing.
    private let tellDisputes: @Sendable ([ObjectName]) -> Void

    private var ledger = StatusLedger()
    /// Ingresses to be looked at; nil stands for all.
    private var pending: Set<ObjectName>? = []
    /// A write that the API server would not have.
    private struct Refusal {
        var write: StatusWrite
        var isForbidden: Bool
        /// When it is asked again; nil while it is.
        var due: Duration?
        var backoff = Backoff(first: refusedDelay, limit: .seconds(3_600))
    }

    private var refused: [ObjectName: Refusal] = [:]
    /// Namespaces whose last answer was that we may not: one of their Ingresses is tried at a time, when it is due, and when
    /// that works, all others.
    private var closed: Set<String> = []
    private static let refusedDelay = Duration.seconds(60)
    private let wake = Watched(UInt64(0))
    private static let parallel = 8

    init(
        client: APIClient, store: ClusterStore, clock: any ControlClock, log: Logger,
        mayWrite: @escaping @Sendable () -> Bool,
        isNobodys: @escaping @Sendable (Ingress, ObjectSet) -> Bool,
        count: @escaping @Sendable ((inout ControllerFigures) -> Void) -> Void,
        tellDisputes: @escaping @Sendable ([ObjectName]) -> Void
    ) {
        self.client = client
        self.store = store
        self.clock = clock
        self.log = log
        self.mayWrite = mayWrite
        self.isNobodys = isNobodys
        self.count = count
        self.tellDisputes = tellDisputes
    }

    func want(_ statuses: [(ObjectName, [LoadBalancerIngress])]) {
        if ledger.want(statuses) { lookAtAll() }
    }

    func lookAtAll() {
        pending = nil
        wake.update { $0 += 1 }
    }

    func look(at ingresses: Set<ObjectName>) {
        guard !ingresses.isEmpty else { return }
        pending?.formUnion(ingresses)
        wake.update { $0 += 1 }
    }

    /// Writes until the task is cancelled.
    func run() async {
        var seen: UInt64 = 0
        var backoff = Backoff(first: .milliseconds(500), limit: .seconds(30))
        while !Task.isCancelled {
            let known = seen
            do { try await wait(known) } catch { return }
            seen = wake.value
            takeUpAgain()
            let writes = plan()
            guard mayWrite(), !writes.isEmpty else { continue }
            let failed = await write(writes)
            guard !failed.isEmpty else {
                backoff.reset()
                continue
            }
            do { try await clock.sleep(for: backoff.delay(random: clock.random())) } catch { return }
            look(at: failed)
        }
    }

    /// Until there is something to look at.
    private func wait(_ known: UInt64) async throws {
        let due = [refused.values.lazy.compactMap(\.due).min(), ledger.standDownEnds].compactMap(\.self).min()
        try await wake.wait(until: due, by: clock) { $0 != known }
    }

    /// What was refused, or left to another writer, for long enough.
    private func takeUpAgain() {
        let now = clock.now()
        var probed: Set<String> = []
        let due = refused.compactMap { name, refusal in refusal.due.map { (time: $0, name: name) } }
        // The one that has waited the longest is tried, so that all have their turn.
        for (_, name) in due.filter({ $0.time <= now }).sorted(by: { ($0.time, $0.name) < ($1.time, $1.name) }) {
            let isClosed = refused[name]?.isForbidden == true && closed.contains(name.namespace)
            if isClosed, !probed.insert(name.namespace).inserted {
                refused[name]?.due = now + Self.refusedDelay
            } else {
                refused[name]?.due = nil
                pending?.insert(name)
            }
        }
        pending?.formUnion(ledger.standDownsOver(by: now))
    }

    private func plan() -> [StatusWrite] {
        let names = pending
        pending = []
        let now = clock.now()
        var ledger = ledger
        let isNobodys = isNobodys
        let refused = refused
        // Under the store's lock, rather than on a copy of all objects.
        let (writes, settled, next) = store.watched.read { state in
            var writes: [StatusWrite] = []
            var settled: [ObjectName] = []
            for name in names ?? Set(state.objects.ingresses.keys) {
                let write = ledger.look(
                    at: name, state.objects.ingresses[name], isNobodys: { isNobodys($0, state.objects) }, now: now)
                guard let write else {
                    settled.append(name)
                    continue
                }
                if let refusal = refused[name], refusal.write == write, let due = refusal.due, due > now { continue }
                writes.append(write)
            }
            return (writes.sorted { $0.ingress < $1.ingress }, settled, ledger)
        }
        for name in settled { self.refused[name] = nil }
        let disputes = next.disputes
        if disputes != self.ledger.disputes { tellDisputes(disputes) }
        self.ledger = next
        return writes
    }

    /// Answers with those that are to be tried again.
    private func write(_ writes: [StatusWrite]) async -> Set<ObjectName> {
        var failed: Set<ObjectName> = []
        await withTaskGroup(of: (StatusWrite, Result<Ingress, APIError>)?.self) { group in
            var rest = writes[...]
            func startNext() {
                guard let write = rest.popFirst(), mayWrite() else { return }
                let client = client
                group.addTask {
                    let patch = IngressStatusPatch(
                        resourceVersion: write.resourceVersion,
                        status: IngressStatus(loadBalancer: LoadBalancerStatus(ingress: write.addresses)))
                    do throws(APIError) {
                        let written = try await client.patch(
                            Ingress.self, namespace: write.ingress.namespace, name: write.ingress.name,
                            subresource: "status", with: patch)
                        return (write, .success(written))
                    } catch {
                        return (write, .failure(error))
                    }
                }
            }
            for _ in 0..<Self.parallel { startNext() }
            while let answer = await group.next() {
                if let (write, result) = answer { take(write, result, &failed) }
                startNext()
            }
        }
        return failed
    }

    /// Something was written there after all: the others have waited for that.
    private func reopen(_ namespace: String) {
        guard closed.remove(namespace) != nil else { return }
        var waiting: Set<ObjectName> = []
        for (name, refusal) in refused where refusal.isForbidden && name.namespace == namespace {
            refused[name]?.due = nil
            waiting.insert(name)
        }
        look(at: waiting)
    }

    private func take(_ write: StatusWrite, _ result: Result<Ingress, APIError>, _ failed: inout Set<ObjectName>) {
        switch result {
        case .success(let ingress):
            ledger.written(write, uid: ingress.metadata.uid)
            refused[write.ingress] = nil
            reopen(write.ingress.namespace)
            count { $0.statusWrites += 1 }
        case .failure(let error):
            switch error.code {
            case .conflict, .notFound:
                // The watch brings the newer version, and with it the next look.
                count { $0.statusConflicts += 1 }
            case .forbidden, .invalid:
                let isNew = refused[write.ingress] == nil
                var refusal = refused[write.ingress] ?? Refusal(write: write, isForbidden: false)
                refusal.write = write
                refusal.isForbidden = error.code == .forbidden
                refusal.due = clock.now() + refusal.backoff.delay(random: clock.random())
                refused[write.ingress] = refusal
                if refusal.isForbidden { closed.insert(write.ingress.namespace) }
                log.log(
                    level: isNew && client.isNews(error) ? .error : .debug,
                    "The status of an Ingress can't be written",
                    metadata: ["ingress": "\(write.ingress)", "error": "\(error)"])
            case .unreachable, .timedOut, .noCredential, .unauthorized, .alreadyExists, .expired, .tooManyRequests,
                .server, .unreadable:
                failed.insert(write.ingress)
            }
        }
    }
}
