// When the first lists count as complete, and what a refused one means.

import KubernetesAPI
import KubernetesClient

enum SourcePlan {
    /// Without these nothing can be served, so a refusal of them is no reason to go on; all others can be missed.
    private static let essential: Set<String> = [Ingress.kind, Service.kind, EndpointSlice.kind]

    /// Every source was listed, or is refused and can be missed. A kind that can't be missed must be listed in one scope
    /// at least: a namespace that is closed to us does not hold up the others.
    static func isSettled(_ sources: [StoreSource: SourceState]) -> Bool {
        guard !sources.isEmpty else { return false }
        var listed: Set<String> = []
        for (source, state) in sources {
            if state.isListed {
                listed.insert(source.kind)
            } else if !isRefused(state) {
                return false
            }
        }
        return essential.isSubset(of: listed)
    }

    /// It is refused, and nothing hangs on it.
    static func canBeMissed(_ source: StoreSource, _ state: SourceState) -> Bool {
        isRefused(state) && !isEssential(source)
    }

    static func isEssential(_ source: StoreSource) -> Bool { essential.contains(source.kind) }

    /// The server has said no, rather than nothing.
    static func isRefused(_ state: SourceState) -> Bool {
        switch state.trouble {
        case .forbidden, .notFound, .invalid: true
        case nil, .unreachable, .timedOut, .noCredential, .unauthorized, .alreadyExists, .conflict, .expired,
            .tooManyRequests, .server, .unreadable:
            false
        }
    }

    /// Single objects that Ingresses refer to: each answered, one way or the other.
    static func isAnswered(_ sources: [StoreSource: SourceState], kind: String, _ names: Set<ObjectName>) -> Bool {
        names.allSatisfy { name in
            let scope = WatchScope(namespace: name.namespace, name: name.name)
            guard let state = sources[StoreSource(kind: kind, scope: scope)] else { return true }
            return state.isListed || isRefused(state)
        }
    }

    /// Since when each kind is in trouble in one of its scopes at least. What is refused is said elsewhere.
    static func troubles(_ state: StoreState) -> [String: Duration] {
        var since: [String: Duration] = [:]
        for source in state.troubled {
            guard let trouble = state.sources[source], !isRefused(trouble), let began = trouble.troubledSince else {
                continue
            }
            since[source.kind] = min(since[source.kind] ?? began, began)
        }
        return since
    }

    /// Since when the API server is in trouble: the moment from which not one source has had an answer. A single watch
    /// that broke is none.
    static func outage(_ sources: [StoreSource: SourceState]) -> Duration? {
        var latest: Duration?
        var any = false
        for state in sources.values where !isRefused(state) {
            any = true
            guard state.trouble != nil, let since = state.troubledSince else { return nil }
            latest = max(latest ?? since, since)
        }
        return any ? latest : nil
    }
}
