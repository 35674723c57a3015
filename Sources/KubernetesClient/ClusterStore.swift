// What the cluster says, as far as we know it: reflectors write, the control loop reads. A change says what kind of work
// it makes, so that endpoints take the short road and our own writes of a status make none.

package import KubernetesAPI

/// What a difference between two versions of an object matters for.
package enum ChangeWeight: Sendable, Equatable {
    /// Bookkeeping of the API server.
    case none
    /// Its status: of interest to whoever writes statuses.
    case status
    /// Where the endpoints of a Service are.
    case endpoints
    /// What is served.
    case meaning
}

/// A kind that the store holds.
package protocol StoredResource: APIResource {
    /// Puts the object in, and answers with the one that it replaces.
    static func put(_ object: Self, into objects: inout ObjectSet) -> Self?
    static func take(_ name: ObjectName, from objects: inout ObjectSet) -> Self?
    static func names(in objects: ObjectSet) -> [ObjectName]
    /// How much the change from another version of this object matters.
    func weight(ofChangeFrom old: Self) -> ChangeWeight
    /// How much it matters that this object comes or goes.
    static var weightOfPresence: ChangeWeight { get }
}

extension StoredResource {
    package static var weightOfPresence: ChangeWeight { .meaning }
}

extension ObjectMeta {
    /// What an author wrote, without the versions that every write moves.
    fileprivate func saysTheSame(as other: ObjectMeta, annotations compared: Bool = true) -> Bool {
        uid == other.uid && labels == other.labels && (!compared || annotations == other.annotations)
            && creationTimestamp == other.creationTimestamp && deletionTimestamp == other.deletionTimestamp
    }
}

extension Ingress: StoredResource {
    package static func put(_ object: Ingress, into objects: inout ObjectSet) -> Ingress? {
        objects.ingresses.updateValue(object, forKey: object.metadata.objectName)
    }
    package static func take(_ name: ObjectName, from objects: inout ObjectSet) -> Ingress? {
        objects.ingresses.removeValue(forKey: name)
    }
    package static func names(in objects: ObjectSet) -> [ObjectName] { Array(objects.ingresses.keys) }

    package func weight(ofChangeFrom old: Ingress) -> ChangeWeight {
        guard metadata.saysTheSame(as: old.metadata), spec == old.spec else { return .meaning }
        // A new version matters to the writer of statuses even if the status stands: it patches against the version.
        return status == old.status && metadata.resourceVersion == old.metadata.resourceVersion ? .none : .status
    }
}

extension IngressClass: StoredResource {
    package static func put(_ object: IngressClass, into objects: inout ObjectSet) -> IngressClass? {
        objects.ingressClasses.updateValue(object, forKey: object.metadata.name)
    }
    package static func take(_ name: ObjectName, from objects: inout ObjectSet) -> IngressClass? {
        objects.ingressClasses.removeValue(forKey: name.name)
    }
    package static func names(in objects: ObjectSet) -> [ObjectName] {
        objects.ingressClasses.keys.map { ObjectName(namespace: "", name: $0) }
    }

    package func weight(ofChangeFrom old: IngressClass) -> ChangeWeight {
        metadata.saysTheSame(as: old.metadata) && spec == old.spec ? .none : .meaning
    }
}

extension Service: StoredResource {
    package static func put(_ object: Service, into objects: inout ObjectSet) -> Service? {
        objects.services.updateValue(object, forKey: object.metadata.objectName)
    }
    package static func take(_ name: ObjectName, from objects: inout ObjectSet) -> Service? {
        objects.services.removeValue(forKey: name)
    }
    package static func names(in objects: ObjectSet) -> [ObjectName] { Array(objects.services.keys) }

    package func weight(ofChangeFrom old: Service) -> ChangeWeight {
        // Its status is where we are reached, if it is the one that is published.
        metadata.saysTheSame(as: old.metadata) && spec == old.spec && status == old.status ? .none : .meaning
    }
}

extension EndpointSlice: StoredResource {
    package static func put(_ object: EndpointSlice, into objects: inout ObjectSet) -> EndpointSlice? {
        objects.put(object)
    }
    package static func take(_ name: ObjectName, from objects: inout ObjectSet) -> EndpointSlice? {
        objects.removeSlice(name)
    }
    package static func names(in objects: ObjectSet) -> [ObjectName] { Array(objects.endpointSlices.keys) }

    package static var weightOfPresence: ChangeWeight { .endpoints }

    package func weight(ofChangeFrom old: EndpointSlice) -> ChangeWeight {
        // Its annotations are the endpoint controller's notes to itself.
        metadata.saysTheSame(as: old.metadata, annotations: false) && addressType == old.addressType
            && endpoints == old.endpoints && ports == old.ports ? .none : .endpoints
    }
}

extension Secret: StoredResource {
    package static func put(_ object: Secret, into objects: inout ObjectSet) -> Secret? {
        objects.secrets.updateValue(object, forKey: object.metadata.objectName)
    }
    package static func take(_ name: ObjectName, from objects: inout ObjectSet) -> Secret? {
        objects.secrets.removeValue(forKey: name)
    }
    package static func names(in objects: ObjectSet) -> [ObjectName] { Array(objects.secrets.keys) }

    package func weight(ofChangeFrom old: Secret) -> ChangeWeight {
        metadata.saysTheSame(as: old.metadata) && type == old.type && data == old.data ? .none : .meaning
    }
}

extension ConfigMap: StoredResource {
    package static func put(_ object: ConfigMap, into objects: inout ObjectSet) -> ConfigMap? {
        objects.configMaps.updateValue(object, forKey: object.metadata.objectName)
    }
    package static func take(_ name: ObjectName, from objects: inout ObjectSet) -> ConfigMap? {
        objects.configMaps.removeValue(forKey: name)
    }
    package static func names(in objects: ObjectSet) -> [ObjectName] { Array(objects.configMaps.keys) }

    package func weight(ofChangeFrom old: ConfigMap) -> ChangeWeight {
        metadata.saysTheSame(as: old.metadata) && data == old.data && binaryData == old.binaryData ? .none : .meaning
    }
}

/// Work that changes have made since it was last taken.
package struct StoreChanges: Sendable, Equatable {
    /// Counts every change that matters, so that a waiter sees whether more came.
    package var count: UInt64 = 0
    /// What is served may be another.
    package var meaning = false
    /// Services whose endpoints may be others.
    package var endpoints: Set<ObjectName> = []
    /// Ingresses of which anything is another, be it their status or their version.
    package var ingresses: Set<ObjectName> = []

    package init() {}

    package var isEmpty: Bool { !meaning && endpoints.isEmpty && ingresses.isEmpty }
}

/// One kind in one scope: what a reflector follows.
package struct StoreSource: Sendable, Hashable, CustomStringConvertible {
    package var kind: String
    package var scope: WatchScope

    package init(kind: String, scope: WatchScope) {
        self.kind = kind
        self.scope = scope
    }

    package var description: String { "\(kind) in \(scope)" }
}

/// How it stands with one source.
package struct SourceState: Sendable, Equatable {
    /// It was listed completely once.
    package var isListed = false
    /// What it is in trouble with, and since when; nil when the API server answered last.
    package var trouble: APIError.Code?
    package var troubledSince: Duration?
    package var message: String?

    package init() {}
}

package struct StoreState: Sendable {
    package var objects = ObjectSet()
    package var changes = StoreChanges()
    package var sources: [StoreSource: SourceState] = [:]
    /// Those of them that are in trouble: mostly none, and quick to look at.
    package var troubled: Set<StoreSource> = []
    /// Objects that can't be read, with what is wrong; their last good versions stand in `objects`.
    package var unreadable: [StoreSource: [ObjectName: UnreadableObject]] = [:]

    package init() {}
}

package final class ClusterStore: Sendable {
    package let watched = Watched(StoreState())
    private let clock: any ControlClock

    package init(clock: any ControlClock) { self.clock = clock }

    /// What a reflector is to be given; from here on, the source counts as one that must be listed.
    package func listener<Object: StoredResource>(
        for type: Object.Type, in scope: WatchScope
    ) -> @Sendable (ReflectorNews<Object>) -> Void {
        let source = StoreSource(kind: Object.kind, scope: scope)
        watched.update { state in state.sources[source] = SourceState() }
        return { [self] news in hear(news, from: source) }
    }

    /// A source that is no longer followed; its objects go with it.
    package func drop<Object: StoredResource>(_ type: Object.Type, in scope: WatchScope) {
        let source = StoreSource(kind: Object.kind, scope: scope)
        watched.update { state in
            state.sources[source] = nil
            state.troubled.remove(source)
            state.unreadable[source] = nil
            for name in Object.names(in: state.objects).filter(scope.covers) { Self.remove(Object.self, name, &state) }
        }
    }

    /// Takes the work that has gathered.
    package func takeChanges() -> StoreChanges {
        watched.update { state in
            let changes = state.changes
            state.changes = StoreChanges()
            state.changes.count = changes.count
            return changes
        }
    }

    /// Takes only what does not ask for a translation; the rest goes on gathering.
    package func takeLightChanges() -> (endpoints: Set<ObjectName>, ingresses: Set<ObjectName>) {
        watched.update { state in
            defer {
                state.changes.endpoints = []
                state.changes.ingresses = []
            }
            return (state.changes.endpoints, state.changes.ingresses)
        }
    }

    /// Something outside the store is different, and what is served may be so too.
    package func noticeMeaning() {
        watched.update { state in
            state.changes.meaning = true
            state.changes.count += 1
        }
    }

    private func hear<Object: StoredResource>(_ news: ReflectorNews<Object>, from source: StoreSource) {
        let now = clock.now()
        watched.update { state in
            // A reflector that was stopped may still finish its sentence.
            guard state.sources[source] != nil else { return }
            switch news {
            case .listed(let objects, let unreadable):
                Self.replace(objects, unreadable: unreadable, of: source, &state)
                if state.sources[source]?.isListed == false {
                    state.sources[source]?.isListed = true
                    // Readiness may hang on this, even if the list was empty.
                    state.changes.count += 1
                    state.changes.meaning = true
                }
            case .changed(let object):
                state.unreadable[source]?[object.metadata.objectName] = nil
                Self.put(object, &state)
            case .removed(let name):
                state.unreadable[source]?[name] = nil
                Self.remove(Object.self, name, &state)
            case .unreadable(let object):
                state.unreadable[source, default: [:]][object.name] = object
                state.changes.count += 1
                state.changes.meaning = true
            case .healthy:
                state.troubled.remove(source)
                state.sources[source]?.trouble = nil
                state.sources[source]?.troubledSince = nil
                state.sources[source]?.message = nil
            case .trouble(let error):
                state.troubled.insert(source)
                if state.sources[source]?.trouble == nil { state.sources[source]?.troubledSince = now }
                if state.sources[source]?.trouble != error.code, error.code == .forbidden {
                    // What is not allowed is said beside what is served.
                    state.changes.count += 1
                    state.changes.meaning = true
                }
                state.sources[source]?.trouble = error.code
                state.sources[source]?.message = error.message
            }
        }
    }

    /// The new contents stand at once and whole; only what differs makes work.
    private static func replace<Object: StoredResource>(
        _ objects: [Object], unreadable: [UnreadableObject], of source: StoreSource, _ state: inout StoreState
    ) {
        let before = state.unreadable[source] ?? [:]
        let after = Dictionary(unreadable.map { ($0.name, $0) }, uniquingKeysWith: { $1 })
        state.unreadable[source] = after.isEmpty ? nil : after
        if before != after {
            state.changes.count += 1
            state.changes.meaning = true
        }
        var kept = Set(after.keys)
        kept.reserveCapacity(objects.count)
        for object in objects {
            kept.insert(object.metadata.objectName)
            put(object, &state)
        }
        let gone = Object.names(in: state.objects).filter { source.scope.covers($0) && !kept.contains($0) }
        for name in gone { remove(Object.self, name, &state) }
    }

    private static func put<Object: StoredResource>(_ object: Object, _ state: inout StoreState) {
        let old = Object.put(object, into: &state.objects)
        let weight = old.map { object.weight(ofChangeFrom: $0) } ?? Object.weightOfPresence
        note(weight, object.metadata.objectName, old, object, &state.changes)
    }

    private static func remove<Object: StoredResource>(
        _ type: Object.Type, _ name: ObjectName, _ state: inout StoreState
    ) {
        guard let old = Object.take(name, from: &state.objects) else { return }
        note(Object.weightOfPresence, name, old, nil, &state.changes)
    }

    private static func note<Object: StoredResource>(
        _ weight: ChangeWeight, _ name: ObjectName, _ old: Object?, _ new: Object?, _ changes: inout StoreChanges
    ) {
        if weight != .none, Object.self == Ingress.self { changes.ingresses.insert(name) }
        switch weight {
        case .none: return
        case .status: break
        case .meaning: changes.meaning = true
        case .endpoints:
            for slice in [old as? EndpointSlice, new as? EndpointSlice] {
                if let service = slice?.service { changes.endpoints.insert(service) }
            }
        }
        changes.count += 1
    }
}
