// ExternalName Services: a name becomes addresses here, on the control plane's side, before a snapshot is published.
// No loop ever looks a name up.

import Dispatch
import Foundation
import IngressTranslation
import Model

/// Looks names up and remembers the last good answer: a name server that is down takes nothing out of service.
actor NameResolver {
    /// Blocking look-up of one name; empty if there is no answer. Injected by tests.
    typealias LookUp = @Sendable (String) -> [IPAddress]

    private let lookUp: LookUp
    private let queue = DispatchQueue(label: "moongate.names", attributes: .concurrent)
    private var known: [String: [IPAddress]] = [:]
    private var failed: Set<String> = []
    /// Asked for at this moment.
    private var pending: Set<String> = []
    /// How long a configuration change waits for names that nobody has asked for before.
    private let patience: Duration
    /// Whether a name may lead to this host, where the proxy's own ports are: a folder's may, a tenant's may not.
    private let allowsThisHost: Bool
    /// Called when an answer arrives after its change was published without it.
    private var onLateAnswer: @Sendable () -> Void = {}

    init(
        patience: Duration = .milliseconds(100), allowsThisHost: Bool = true,
        lookUp: @escaping LookUp = NameResolver.system
    ) {
        self.patience = patience
        self.allowsThisHost = allowsThisHost
        self.lookUp = lookUp
    }

    func setOnLateAnswer(_ action: @escaping @Sendable () -> Void) {
        onLateAnswer = action
    }

    /// What the system's resolver says (hosts file, DNS).
    static let system: LookUp = { name in
        Host(name: name).addresses.compactMap { IPAddress($0) }
    }

    /// The addresses of every external name of the snapshot, and a diagnostic for each upstream whose name has none.
    /// Names that are known already are not asked for again; `refresh` does that.
    func resolve(_ snapshot: Snapshot) async -> (addresses: [String: [IPAddress]], diagnostics: [Diagnostic]) {
        var users: [String: [Upstream]] = [:]
        for upstream in snapshot.upstreams {
            for case .name(let name) in upstream.endpoints.lazy.map(\.host) {
                users[name, default: []].append(upstream)
            }
        }
        known = known.filter { users[$0.key] != nil }
        failed = failed.filter { users[$0] != nil }
        await waitBriefly(
            for: Set(users.keys.filter { known[$0] == nil && !failed.contains($0) && !pending.contains($0) }))

        let diagnostics = users.keys.sorted().filter { known[$0] == nil }.flatMap { name in
            (users[name] ?? []).map { upstream in
                TranslationCode.unknownHost.diagnostic(
                    "the external name \(name) has no address\(allowsThisHost ? "" : " but the proxy's own host"); "
                        + "requests for \(upstream.name) get 503",
                    at: Place(
                        object: ObjectReference(kind: "Service", namespace: upstream.namespace, name: upstream.service),
                        field: "spec.externalName"),
                    mend: "correct the name or the name server; it is looked up again every 10 seconds")
            }
        }
        return (known, diagnostics)
    }

    /// Asks for every known name again. True if an answer differs, and what is served has to be made anew.
    func refresh() async -> Bool {
        let before = known
        await ask(Set(known.keys).union(failed))
        return known != before
    }

    /// A name server that does not answer must not hold up a change that may have nothing to do with it.
    private func waitBriefly(for names: Set<String>) async {
        if names.isEmpty { return }
        pending.formUnion(names)
        let patience = patience
        let (signals, signal) = AsyncStream.makeStream(of: Bool.self, bufferingPolicy: .bufferingOldest(1))
        let timer = Task {
            try await Task.sleep(for: patience)
            signal.yield(false)
        }
        Task {
            await ask(names)
            timer.cancel()
            pending.subtract(names)
            // Where the change has not gone on yet, it reads the answer when it does: both run on this actor.
            if case .terminated = signal.yield(true) { onLateAnswer() }
        }
        for await _ in signals { break }
        signal.finish()
    }

    private func ask(_ names: some Collection<String>) async {
        let (lookUp, queue, allowsThisHost) = (lookUp, queue, allowsThisHost)
        let answers = await withTaskGroup(of: (String, [IPAddress]).self) { group in
            for name in names {
                group.addTask {
                    await withCheckedContinuation { continuation in
                        queue.async {
                            let addresses = lookUp(name).filter { allowsThisHost || !$0.isThisHost }
                            continuation.resume(
                                returning: (name, addresses.sorted { $0.description < $1.description }))
                        }
                    }
                }
            }
            return await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
        }
        for (name, addresses) in answers {
            if addresses.isEmpty {
                // Keep what we have: a failed look-up is no news about the name.
                failed.insert(name)
            } else {
                failed.remove(name)
                known[name] = addresses
            }
        }
    }
}
