// The control loop in a cluster (HOUSE.md, "A configuration change walks"): watches fill a store, changes gather until it
// is quiet, the world is translated whole and compared with the last, and what is different is published once. Whatever
// becomes of the API server, what was published last goes on being served.

import IngressTranslation
package import KubernetesAPI
package import KubernetesClient
package import Logging
package import Model

package final class ClusterController: Sendable {
    private let client: APIClient
    private let options: ControllerOptions
    private let clock: any ControlClock
    private let log: Logger
    private let prepare: @Sendable (Snapshot) async -> Void
    private let publish: @Sendable (Publication) async -> [Diagnostic]
    private let store: ClusterStore
    private let election: LeaderElection?
    private let events: EventRecorder
    private let statuses: StatusWriter
    private let secrets: ReferenceWatcher<Secret>
    private let configMaps: ReferenceWatcher<ConfigMap>
    private let publishedServices: ReferenceWatcher<Service>
    /// Addresses of nodes, when these are what is published.
    private let nodeAddresses = Watched([LoadBalancerIngress]())
    /// Our own, as our node says.
    private let zone = Watched<String?>(nil)
    private let mustPublish = Watched(false)
    private let hasResigned = Watched(false)

    /// What the loop says of itself; wait on it, or read it.
    package let state = Watched(ControllerState())

    /// - Parameters:
    ///   - prepare: makes ready what a snapshot needs (its scripts, its routes), which may take long: endpoints that
    ///     change meanwhile are published on the snapshot before. One at a time; nothing goes live by it. A publication
    ///     of everything follows, with the same snapshot but for such endpoints.
    ///   - publish: makes a snapshot be served, and answers with what was wrong with it (scripts that do not compile,
    ///     names that can't be looked up). Called from one task, one at a time; the next change waits for it.
    package init(
        client: APIClient, options: ControllerOptions, clock: any ControlClock = SystemClock(), log: Logger,
        prepare: @escaping @Sendable (Snapshot) async -> Void = { _ in },
        publish: @escaping @Sendable (Publication) async -> [Diagnostic]
    ) {
        self.client = client
        self.options = options
        self.clock = clock
        self.log = log
        self.prepare = prepare
        self.publish = publish
        let store = ClusterStore(clock: clock)
        self.store = store
        let election = options.lease.map { lease in
            LeaderElection(
                client: client, lease: lease, identity: options.identity, terms: options.election, clock: clock,
                log: log)
        }
        self.election = election
        let translation = options.translation
        let state = state
        events = EventRecorder(
            client: client, controller: options.translation.controllerName, instance: options.identity, clock: clock,
            log: log, terms: options.events
        ) { outcome in
            state.update { state in
                switch outcome {
                case .written: state.figures.eventsWritten += 1
                case .dropped: state.figures.eventsDropped += 1
                case .failed: state.figures.eventsFailed += 1
                }
            }
        }
        statuses = StatusWriter(
            client: client, store: store, clock: clock, log: log,
            mayWrite: { election?.isLeading ?? false },
            isNobodys: { ingress, objects in Self.isNobodys(ingress, objects, translation) },
            count: { change in state.update { change(&$0.figures) } },
            tellDisputes: { disputes in
                state.update { $0.disputes = disputes }
                // It is said beside what is served.
                store.noticeMeaning()
            })
        secrets = ReferenceWatcher(client: client, store: store, clock: clock, log: log)
        configMaps = ReferenceWatcher(client: client, store: store, clock: clock, log: log)
        publishedServices = ReferenceWatcher(client: client, store: store, clock: clock, log: log)
    }

    /// Serves until the task is cancelled; then gives the lease back and ends every watch.
    package func run() async {
        await withTaskGroup(of: Void.self) { group in
            follow(in: &group)
            group.addTask { await self.loop() }
            group.addTask { await self.watchOutages() }
            group.addTask { await self.watchTroubles() }
            if let node = options.node { group.addTask { await self.findZone(of: node) } }
            // What happens to a request is told by the replica that it happened to, whoever leads.
            group.addTask { await self.events.run() }
            if let election {
                group.addTask { await self.run(election) }
                group.addTask { await self.statuses.run() }
                group.addTask { await self.lead(election) }
            }
            await group.waitForAll()
        }
        await secrets.stop()
        await configMaps.stop()
        await publishedServices.stop()
    }

    /// Until we resign; the end of its task is what makes the election give the lease back.
    private func run(_ election: LeaderElection) async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await election.run() }
            group.addTask { [hasResigned] in try? await hasResigned.wait { $0 } }
            await group.next()
            group.cancelAll()
        }
    }

    /// Tells something about an object from elsewhere (a script's failure, a breaker that opened). Written whether or not
    /// this replica leads: what happened here, only this replica knows.
    package func tell(_ note: EventNote) async {
        if await !events.tell(note) { state.update { $0.figures.eventsDropped += 1 } }
    }

    /// The same for an object by its name, with its identity filled in.
    package func tell(
        _ kind: EventNote.Kind, about object: ObjectReference, reason: String, action: String, note: String
    ) async {
        guard let note = eventNote(kind, about: object, reason: reason, action: action, note: note) else { return }
        await tell(note)
    }

    private func eventNote(
        _ kind: EventNote.Kind, about object: ObjectReference, reason: String, action: String, note: String
    ) -> EventNote? {
        guard let place = place(of: object) else { return nil }
        return EventNote(
            kind, apiVersion: place.apiVersion, objectKind: object.kind,
            object: ObjectName(namespace: object.namespace, name: object.name), uid: place.uid, reason: reason,
            action: action, note: note)
    }

    /// What the first configuration still waits for, for readiness.
    package var unlisted: [StoreSource] {
        let sources = store.watched.read { $0.sources }
        return sources.filter { !$0.value.isListed && !SourcePlan.canBeMissed($0.key, $0.value) }.map(\.key)
            .sorted { "\($0)" < "\($1)" }
    }

    /// Publishes once more what is already served, because something that no object says is different (the addresses of
    /// an external name).
    package func publishAgain() {
        mustPublish.update { $0 = true }
        store.noticeMeaning()
    }

    /// Gives the leadership up and does not ask for it again: this replica is going.
    package func resign() { hasResigned.update { $0 = true } }

    /// We end at once: what is to be given back is not waited for.
    package func abandon() { election?.abandon() }

    /// What the loop says of itself, in Prometheus' text format.
    package var prometheusText: String {
        let troubles = store.watched.read { state in
            let since = SourcePlan.troubles(state)
            return Dictionary(state.sources.keys.map { ($0.kind, since[$0.kind]) }, uniquingKeysWith: { $1 })
        }
        return state.value.prometheusText(now: clock.now(), troubles: troubles)
    }

    /// All that is known of the cluster, for the admin port. A copy: not for the road that changes take.
    package var objects: ObjectSet { store.watched.read { $0.objects } }

    // MARK: Watches

    private func follow(in group: inout TaskGroup<Void>) {
        follow(IngressClass.self, WatchScope(), &group)
        let scopes =
            options.namespaces.isEmpty
            ? [WatchScope()] : Set(options.namespaces).sorted().map { WatchScope(namespace: $0) }
        for scope in scopes {
            follow(Ingress.self, scope, &group)
            follow(Service.self, scope, &group)
            follow(EndpointSlice.self, scope, &group)
            if options.secrets == .namespaces { follow(Secret.self, scope, &group) }
            if options.configMaps == .namespaces { follow(ConfigMap.self, scope, &group) }
        }
    }

    private func follow<Object: StoredResource>(
        _ type: Object.Type, _ scope: WatchScope, _ group: inout TaskGroup<Void>
    ) {
        let reflector = Reflector<Object>(
            client: client, scope: scope, clock: clock, log: log, pageSize: options.pageSize,
            listener: store.listener(for: Object.self, in: scope))
        group.addTask { await reflector.run() }
    }

    /// The published Service may live in a namespace that is not watched.
    private func followPublishedService() async {
        guard case .service(let name) = options.status, !options.namespaces.isEmpty,
            !options.namespaces.contains(name.namespace)
        else { return }
        await publishedServices.follow([name])
    }

    // MARK: The loop

    /// What the loop remembers from change to change.
    private struct Memory {
        var translation = TranslationMemory()
        var cache = TranslationCache()
        var last: Translation?
        var generation: UInt64 = 0
        var holdOff: HoldOff
        /// When the next translation may begin: translating may not take more than half of the time.
        var restUntil = Duration.zero
        /// What is followed of what is referred to, and what is not, because it is too much.
        var references = ReferenceLimit.Choice()
        /// Until then the first publication waits for what it refers to.
        var firstWaitUntil: Duration?
        /// Of the last translation's snapshot.
        var index = UpstreamIndex()
        var fromPublisher: [Diagnostic] = []
        var fromLoop: [Diagnostic] = []
    }

    /// Finds upstreams without a search.
    private struct UpstreamIndex {
        /// Whether an Ingress leads to it, by upstream.
        var ruled: [Bool] = []
        var ofService: [ObjectName: [Int]] = [:]
        private var upstreams: [Upstream] = []

        init() {}

        /// - Parameter previous: of a snapshot that mostly has the same upstreams.
        init(_ snapshot: Snapshot, previous: UpstreamIndex) {
            upstreams = snapshot.upstreams
            ruled = [Bool](repeating: false, count: upstreams.count)
            func rule(_ upstream: Int?) {
                if let upstream, ruled.indices.contains(upstream) { ruled[upstream] = true }
            }
            for index in snapshot.routes.indices {
                rule(snapshot.routes[index].upstream)
                rule(snapshot.routes[index].secureUpstream)
            }
            for service in snapshot.tcpServices { rule(service.upstream) }
            for service in snapshot.udpServices { rule(service.upstream) }
            let before = previous.upstreams
            var isSame = before.count == upstreams.count
            for i in upstreams.indices where isSame { isSame = before[i].name == upstreams[i].name }
            if isSame {
                ofService = previous.ofService
                return
            }
            for (index, upstream) in upstreams.enumerated() {
                let service = ObjectName(namespace: upstream.namespace, name: upstream.service)
                ofService[service, default: []].append(index)
            }
        }
    }

    private func loop() async {
        var memory = Memory(holdOff: HoldOff(terms: options.holdOff))
        do {
            await followPublishedService()
            try await waitForFirstLists(&memory)
            log.info("The first lists are complete")
            try await translate(&memory)
            while true {
                try await store.watched.wait { !$0.changes.isEmpty }
                let now = clock.now()
                let (count, meaning) = store.watched.read { ($0.changes.count, $0.changes.meaning) }
                let light = store.takeLightChanges()
                await statuses.look(at: light.ingresses)
                if !light.endpoints.isEmpty { await takeShortRoad(light.endpoints, &memory) }
                guard meaning else { continue }
                memory.holdOff.noticed(count: count, at: now)
                let wait = max(memory.holdOff.remaining(at: now) ?? .zero, memory.restUntil - now)
                if wait > .zero {
                    try await store.watched.wait(until: now + wait, by: clock) {
                        $0.changes.count != count || !$0.changes.endpoints.isEmpty
                    }
                } else {
                    try await translate(&memory)
                }
            }
        } catch {
            return
        }
    }

    /// What keeps the first configuration from being made is said while it does.
    private func waitForFirstLists(_ memory: inout Memory) async throws {
        while true {
            let count = store.watched.read { $0.changes.count }
            memory.fromLoop = loopDiagnostics(memory.references)
            showDiagnostics(memory)
            if store.watched.read({ SourcePlan.isSettled($0.sources) }) { return }
            try await store.watched.wait { SourcePlan.isSettled($0.sources) || $0.changes.count != count }
        }
    }

    /// The long road.
    private func translate(_ memory: inout Memory) async throws {
        let began = clock.now()
        memory.holdOff.taken(at: began)
        defer {
            let now = clock.now()
            memory.holdOff.done(at: now)
            memory.restUntil = now + min(now - began, .seconds(2))
        }
        var translation = try await translateOnce(&memory)
        // While an object was fetched, an Ingress may have come that refers to others.
        var rounds = 0
        while try await followReferences(of: translation, &memory) {
            translation = try await translateOnce(&memory)
            rounds += 1
            guard rounds < Self.mostRounds else {
                store.noticeMeaning()
                break
            }
        }
        let isForced = mustPublish.update { forced in
            defer { forced = false }
            return forced
        }
        let isNew = isForced || memory.last?.snapshot != translation.snapshot
        let hasSameStatuses = memory.last?.statuses == translation.statuses
        if isNew {
            let (snapshot, prepare) = (translation.snapshot, prepare)
            let (_, late) = try await whileEndpointsMove(&memory) { await prepare(snapshot) }
            memory.index = UpstreamIndex(translation.snapshot, previous: memory.index)
            if !late.isEmpty { _ = refresh(&translation, late, memory.index) }
        }
        memory.last = translation
        memory.fromLoop = loopDiagnostics(memory.references)
        if isNew {
            memory.generation += 1
            memory.fromPublisher = await publish(
                Publication(snapshot: translation.snapshot, generation: memory.generation, extent: .everything))
        }
        let figures = store.watched.read { $0.objects.count }
        state.update { state in
            state.isServing = true
            state.generation = memory.generation
            state.figures.watchedObjects = figures
            if isNew { state.figures.publications += 1 } else { state.figures.idleTranslations += 1 }
        }
        showDiagnostics(memory)
        if options.status != .none, !hasSameStatuses {
            await statuses.want(translation.statuses.map { ($0.ingress, $0.status.loadBalancer.ingress) })
        }
    }

    private static let mostRounds = 3

    private struct Outcome: Sendable {
        var translation: Translation
        var memory: TranslationMemory
        var cache: TranslationCache
    }

    /// The world anew.
    private func translateOnce(_ memory: inout Memory) async throws -> Translation {
        // Taken along with the rest; the writer of statuses must see them as well.
        await statuses.look(at: store.takeChanges().ingresses)
        let started = clock.now()
        let objects = store.watched.read { $0.objects }
        let translationOptions = translationOptions()
        let (past, held) = (memory.translation, memory.cache)
        let (done, late) = try await whileEndpointsMove(&memory) {
            var (memory, cache) = (past, held)
            let translation = Translator.translate(
                objects, options: translationOptions, memory: &memory, cache: &cache)
            return Outcome(translation: translation, memory: memory, cache: cache)
        }
        memory.translation = done.memory
        memory.cache = done.cache
        var translation = done.translation
        if !late.isEmpty {
            _ = refresh(&translation, late, UpstreamIndex(translation.snapshot, previous: memory.index))
        }
        let took = clock.now() - started
        state.update { state in
            state.figures.translations += 1
            state.figures.lastTranslation = took
        }
        return translation
    }

    /// Does what takes its time. Endpoints that change meanwhile do not wait for it: they go into what is served at once.
    /// - Returns: what came of it, and the Services of these endpoints, whose changes it may not have seen.
    private func whileEndpointsMove<Result: Sendable>(
        _ memory: inout Memory, _ work: @escaping @Sendable () async -> Result
    ) async throws -> (Result, late: Set<ObjectName>) {
        let result = Watched<Result?>(nil)
        let task = Task {
            let made = await work()
            result.update { $0 = made }
        }
        defer { task.cancel() }
        var late: Set<ObjectName> = []
        while true {
            await withTaskGroup(of: Void.self) { group in
                group.addTask { try? await result.wait { $0 != nil } }
                group.addTask { [store] in try? await store.watched.wait { !$0.changes.endpoints.isEmpty } }
                await group.next()
                group.cancelAll()
            }
            try Task.checkCancellation()
            let done = result.value
            let light = store.takeLightChanges()
            await statuses.look(at: light.ingresses)
            late.formUnion(light.endpoints)
            if let done { return (done, late) }
            if !light.endpoints.isEmpty { await takeShortRoad(light.endpoints, &memory) }
        }
    }

    private func translationOptions() -> TranslationOptions {
        var translationOptions = options.translation
        switch options.status {
        case .none: translationOptions.statusAddresses = []
        case .addresses(let addresses): translationOptions.statusAddresses = addresses
        case .service(let name): translationOptions.publishService = name
        case .nodes: translationOptions.statusAddresses = nodeAddresses.value
        }
        translationOptions.namespaces = Set(options.namespaces)
        if translationOptions.zone == nil { translationOptions.zone = zone.value }
        return translationOptions
    }

    /// Follows what our Ingresses refer to. True if an object was waited for that was not there before.
    private func followReferences(of translation: Translation, _ memory: inout Memory) async throws -> Bool {
        var wanted = options.extra
        wanted.formUnion(translation.references)
        if options.secrets == .namespaces { wanted.secrets = [] }
        if options.configMaps == .namespaces { wanted.configMaps = [] }
        if !options.namespaces.isEmpty {
            // A script of another namespace needs a watch there, which the role may well not allow: asked for all the same.
            wanted.secrets = wanted.secrets.filter { name in
                options.namespaces.contains(name.namespace) || options.extra.secrets.contains(name)
            }
        }
        let before = memory.references.followed
        memory.references = options.references.choose(wanted, kept: before, always: options.extra)
        wanted = memory.references.followed
        guard wanted != before else { return false }
        let new = (
            secrets: wanted.secrets.subtracting(before.secrets),
            configMaps: wanted.configMaps.subtracting(before.configMaps)
        )
        await secrets.follow(wanted.secrets)
        await configMaps.follow(wanted.configMaps)
        guard !new.secrets.isEmpty || !new.configMaps.isEmpty else { return true }
        // Bounded: a reference that can't be had must not hold up what everybody else changed.
        let wait: Duration
        if memory.last == nil {
            let now = clock.now()
            let until = memory.firstWaitUntil ?? now + options.firstReferenceWait
            memory.firstWaitUntil = until
            wait = max(.zero, until - now)
        } else {
            wait = options.referenceWait
        }
        _ = try await whileEndpointsMove(&memory) { [self] in
            try? await store.watched.wait(until: clock.now() + wait, by: clock) { state in
                SourcePlan.isAnswered(state.sources, kind: Secret.kind, new.secrets)
                    && SourcePlan.isAnswered(state.sources, kind: ConfigMap.kind, new.configMaps)
            }
        }
        return true
    }

    /// Only endpoints changed: routes and scripts stand, and nothing is waited for.
    private func takeShortRoad(_ services: Set<ObjectName>, _ memory: inout Memory) async {
        guard var translation = memory.last else { return }
        let changed = refresh(&translation, services, memory.index)
        memory.last = translation
        guard !changed.isEmpty else { return }
        memory.generation += 1
        memory.fromPublisher = await publish(
            Publication(snapshot: translation.snapshot, generation: memory.generation, extent: .endpoints(changed)))
        state.update { state in
            state.generation = memory.generation
            state.figures.publications += 1
            state.figures.endpointPublications += 1
        }
        showDiagnostics(memory)
    }

    /// Gives the upstreams of these Services the endpoints that they have now, with what is to be said of them.
    /// - Returns: the upstreams that are others now, in order.
    private func refresh(
        _ translation: inout Translation, _ services: Set<ObjectName>, _ index: UpstreamIndex
    ) -> [Int] {
        var touched: [ObjectName: [Int]] = [:]
        for service in services { touched[service] = index.ofService[service] }
        guard !touched.isEmpty else { return [] }
        let names = Set(touched.keys)
        let objects = store.watched.read { state in Self.part(of: state, services: names) }
        let options = translationOptions()
        var changed: [Int] = []
        for (service, upstreams) in touched.sorted(by: { $0.key < $1.key }) {
            var diagnostics: [Diagnostic] = []
            for number in upstreams {
                let old = translation.snapshot.upstreams[number]
                guard
                    let refreshed = Translator.refreshed(
                        old, isInRule: index.ruled[number], from: objects, options: options)
                else { continue }
                diagnostics += refreshed.diagnostics
                guard refreshed.upstream != old else { continue }
                translation.snapshot.upstreams[number] = refreshed.upstream
                changed.append(number)
            }
            let place = ObjectReference(kind: Service.kind, namespace: service.namespace, name: service.name)
            translation.diagnostics.removeAll { $0.place.object == place && Self.isAboutEndpoints($0) }
            translation.diagnostics += diagnostics.filter(Self.isAboutEndpoints)
        }
        return changed.sorted()
    }

    /// These Services and their slices.
    private static func part(of state: StoreState, services: Set<ObjectName>) -> ObjectSet {
        var part = ObjectSet()
        for service in services {
            part.services[service] = state.objects.services[service]
            for name in state.objects.slicesOfService[service] ?? [] {
                if let slice = state.objects.endpointSlices[name] { part.put(slice) }
            }
        }
        return part
    }

    private static func isAboutEndpoints(_ diagnostic: Diagnostic) -> Bool {
        diagnostic.code == TranslationCode.noEndpoints.rawValue
            || diagnostic.code == TranslationCode.badEndpoint.rawValue
    }

    // MARK: Diagnostics and Events

    private func loopDiagnostics(_ references: ReferenceLimit.Choice) -> [Diagnostic] {
        let (unreadable, sources) = store.watched.read { ($0.unreadable, $0.sources) }
        var diagnostics: [Diagnostic] = []
        for (source, objects) in unreadable.sorted(by: { "\($0.key)" < "\($1.key)" }) {
            for object in objects.values.sorted(by: { $0.name < $1.name }) {
                diagnostics.append(
                    ControllerCode.unreadableObject.diagnostic(
                        object.problem,
                        at: Place(
                            object: ObjectReference(
                                kind: source.kind, namespace: object.name.namespace, name: object.name.name)),
                        mend: "correct it; until then its last good version is in force, if there was one"))
            }
        }
        // One watch for each object that is referred to: there may be thousands.
        let refused = sources.filter { SourcePlan.isRefused($0.value) }
        for (source, state) in refused.sorted(by: { "\($0.key)" < "\($1.key)" }) {
            // A Role can't grant what lives in no namespace: with one, that is as it should be.
            let isExpected = source.kind == IngressClass.kind && !options.namespaces.isEmpty
            diagnostics.append(
                ControllerCode.forbiddenKind.diagnostic(
                    "the API server refuses \(source): \(state.message ?? "")", at: Place(),
                    mend: isExpected
                        ? "nothing, if classes are told apart by --ingress-class alone; else grant it by a ClusterRole"
                        : "allow list and watch in the role of Moongate's service account; "
                            + (SourcePlan.isEssential(source)
                                ? "until then nothing of its scope is served, and without it in any scope we are not ready"
                                : "all else goes on without it"),
                    severity: isExpected ? .note : nil))
        }
        for name in state.value.disputes {
            diagnostics.append(
                ControllerCode.statusDispute.diagnostic(
                    "another writer keeps changing the status of the Ingress \(name)",
                    at: Place(
                        object: ObjectReference(kind: Ingress.kind, namespace: name.namespace, name: name.name),
                        field: "status.loadBalancer"),
                    mend:
                        "let one controller have it: see which other one serves its class; until then it is left alone")
            )
        }
        for (kind, message) in state.read({ $0.staleKinds }).sorted(by: { $0.key < $1.key }) {
            diagnostics.append(
                ControllerCode.staleKind.diagnostic(
                    "the API server does not let \(kind) objects be followed: \(message)", at: Place(),
                    mend:
                        "look at the API server and at what stands before it; until then the last known ones are served"
                ))
        }
        return diagnostics + Self.tooManyReferences(references, store)
    }

    /// One finding for each namespace, on the first of its Ingresses that names such a Secret.
    private static func tooManyReferences(
        _ references: ReferenceLimit.Choice, _ store: ClusterStore
    ) -> [Diagnostic] {
        let refused = references.refused
        guard !refused.isEmpty else { return [] }
        var (counts, places): ([String: Int], [String: Place]) = ([:], [:])
        for (kind, names) in [(Secret.kind, refused.secrets), (ConfigMap.kind, refused.configMaps)] {
            for name in names.sorted() {
                counts[name.namespace, default: 0] += 1
                places[name.namespace] =
                    places[name.namespace]
                    ?? Place(object: ObjectReference(kind: kind, namespace: name.namespace, name: name.name))
            }
        }
        let namespaces = Set(counts.keys)
        let ingresses = store.watched.read { state in
            var first: [String: ObjectName] = [:]
            for (name, ingress) in state.objects.ingresses where namespaces.contains(name.namespace) {
                guard first[name.namespace].map({ name < $0 }) ?? true else { continue }
                let names = ingress.spec.tls.contains { entry in
                    refused.secrets.contains(ObjectName(namespace: name.namespace, name: entry.secretName ?? ""))
                }
                if names { first[name.namespace] = name }
            }
            return first
        }
        for (namespace, name) in ingresses {
            places[namespace] = Place(
                object: ObjectReference(kind: Ingress.kind, namespace: namespace, name: name.name), field: "spec.tls")
        }
        return counts.sorted { $0.key < $1.key }.map { namespace, count in
            let isCrowdedOut = references.crowdedOut.contains(namespace)
            return ControllerCode.tooManyReferences.diagnostic(
                "\(count) of the Secrets and ConfigMaps that the namespace \(namespace) refers to are not read: "
                    + (isCrowdedOut ? "those of all namespaces together are too many" : "there are too many"),
                at: places[namespace] ?? Place(),
                mend: (isCrowdedOut
                    ? "the limit is that of the whole cluster; whoever runs Moongate can let it watch all by "
                    : "refer to fewer of them, or let Moongate watch all by ")
                    + "--watch-all-secrets and --watch-all-config-maps, which takes one watch for all")
        }
    }

    private func showDiagnostics(_ memory: Memory) {
        let all = (memory.last?.diagnostics ?? []) + memory.fromPublisher + memory.fromLoop
        let forbidden = store.watched.read { state in
            state.sources.filter { SourcePlan.isRefused($0.value) }.map(\.key)
        }
        state.update { state in
            if state.diagnostics != all {
                state.diagnostics = all
                state.diagnosticsVersion += 1
            }
            state.forbidden = forbidden.sorted { "\($0)" < "\($1)" }
        }
    }

    /// While this replica leads: an Event for each new warning and error, and again while it lasts.
    private func lead(_ election: LeaderElection) async {
        do {
            while true {
                try await election.waitUntilLeading()
                showLeadership(true, election)
                await statuses.lookAtAll()
                await withTaskGroup(of: Void.self) { group in
                    group.addTask { await self.writeEvents() }
                    if let secret = options.translation.ticketKeys {
                        let keeper = TicketKeeper(secret: secret, client: self.client, clock: self.clock, log: self.log)
                        group.addTask { await keeper.run() }
                    }
                    if case .nodes(let pod) = options.status {
                        group.addTask {
                            await self.followNodes(NodeAddresses(client: self.client, pod: pod, log: self.log))
                        }
                    }
                    group.addTask { try? await election.waitUntilNotLeading() }
                    // The watch on the leadership is the only one that ends by itself.
                    await group.next()
                    group.cancelAll()
                }
                try Task.checkCancellation()
                showLeadership(false, election)
            }
        } catch {
            showLeadership(false, election)
        }
    }

    private func showLeadership(_ leads: Bool, _ election: LeaderElection) {
        let holder = election.holder
        state.update { state in
            state.isLeading = leads
            state.leader = holder
        }
    }

    /// When there was no room for an Event, so long later there may be.
    private static let eventPause = Duration.seconds(10)

    private func writeEvents() async {
        /// With the note that was told, if it is about an object.
        var told: [Diagnostic: EventNote?] = [:]
        /// Those that are not told yet, with the time at which they were first seen.
        var fresh: [Diagnostic: Duration] = [:]
        var toldAllAt = clock.now()
        var roomAt = Duration.zero
        var version: UInt64?
        do {
            while true {
                let known = version
                var due = toldAllAt + options.events.refreshAfter
                if let first = fresh.values.min() { due = min(due, max(roomAt, first + options.events.settleAfter)) }
                try await state.wait(until: due, by: clock) { $0.diagnosticsVersion != known }
                let (now, diagnostics) = state.read { ($0.diagnosticsVersion, $0.diagnostics) }
                version = now
                let current = Set(diagnostics.filter { $0.severity > .note })
                let at = clock.now()
                for (diagnostic, note) in told where !current.contains(diagnostic) {
                    told[diagnostic] = nil
                    if let note { await events.withdraw(note) }
                }
                fresh = fresh.filter { current.contains($0.key) }
                for diagnostic in current where told[diagnostic] == nil && fresh[diagnostic] == nil {
                    fresh[diagnostic] = at
                }
                if at - toldAllAt >= options.events.refreshAfter {
                    toldAllAt = at
                    for case let note? in told.values { await tell(note) }
                }
                guard at >= roomAt else { continue }
                let settled = fresh.filter { at - $0.value >= options.events.settleAfter }
                for (diagnostic, _) in settled.sorted(by: { ($0.value, $0.key.code) < ($1.value, $1.key.code) }) {
                    let note = eventNote(of: diagnostic)
                    if let note, await !events.tell(note) {
                        // It is told when there is room, and the others of its age with it.
                        roomAt = at + Self.eventPause
                        continue
                    }
                    fresh[diagnostic] = nil
                    told.updateValue(note, forKey: diagnostic)
                }
            }
        } catch {
            // Whoever leads now tells what there is to be told.
            for case let note? in told.values { await events.withdraw(note) }
        }
    }

    private func eventNote(of diagnostic: Diagnostic) -> EventNote? {
        guard let object = diagnostic.place.object else { return nil }
        var note = "\(diagnostic.code): \(diagnostic.problem)"
        if let field = diagnostic.place.field { note += " (\(field))" }
        if !diagnostic.mend.isEmpty { note += "; \(diagnostic.mend)" }
        return eventNote(
            .warning, about: object, reason: Self.camelCase(diagnostic.name), action: "Translate", note: note)
    }

    /// `no-endpoints` is `NoEndpoints` as a reason.
    static func camelCase(_ name: String) -> String {
        name.split(separator: "-").map { $0.prefix(1).uppercased() + $0.dropFirst() }.joined()
    }

    private func place(of object: ObjectReference) -> (apiVersion: String, uid: String?)? {
        let name = ObjectName(namespace: object.namespace, name: object.name)
        return store.watched.read { state in
            switch object.kind {
            case Ingress.kind: (Ingress.apiVersion, state.objects.ingresses[name]?.metadata.uid)
            case IngressClass.kind: (IngressClass.apiVersion, state.objects.ingressClasses[name.name]?.metadata.uid)
            case Service.kind: (Service.apiVersion, state.objects.services[name]?.metadata.uid)
            case Secret.kind: (Secret.apiVersion, state.objects.secrets[name]?.metadata.uid)
            case ConfigMap.kind: (ConfigMap.apiVersion, state.objects.configMaps[name]?.metadata.uid)
            case EndpointSlice.kind: (EndpointSlice.apiVersion, state.objects.endpointSlices[name]?.metadata.uid)
            default: nil
            }
        }
    }

    /// Asks our node for our zone, once: a node does not move.
    private func findZone(of node: String) async {
        var backoff = Backoff(first: .seconds(1), limit: .seconds(60))
        while !Task.isCancelled {
            do throws(APIError) {
                let labels = try await client.get(Node.self, namespace: nil, name: node).metadata.labels
                guard let found = labels[Node.zoneLabel], !found.isEmpty else {
                    // A node that is new may be told of its zone a little later, and some never are.
                    do { try await clock.sleep(for: backoff.delay(atLeast: nil, random: clock.random())) } catch {
                        return
                    }
                    continue
                }
                log.info("zone of the node", metadata: ["node": "\(node)", "zone": "\(found)"])
                zone.update { $0 = found }
                store.noticeMeaning()
                return
            } catch {
                if error.code == .forbidden || error.code == .notFound {
                    log.notice(
                        "the zone of the node can't be read, so zone hints are not followed: say it by --zone, or allow to get nodes",
                        metadata: ["node": "\(node)", "error": "\(error)"])
                    return
                }
                let delay = backoff.delay(atLeast: error.retryAfter, random: clock.random())
                do { try await clock.sleep(for: delay) } catch { return }
            }
        }
    }

    // MARK: Status

    private func followNodes(_ nodes: NodeAddresses) async {
        var backoff = Backoff(first: .seconds(1), limit: .seconds(60))
        while !Task.isCancelled {
            var delay = Duration.seconds(30)
            do throws(APIError) {
                let addresses = try await nodes.read()
                backoff.reset()
                if nodeAddresses.value != addresses {
                    nodeAddresses.update { $0 = addresses }
                    store.noticeMeaning()
                }
            } catch {
                log.warning("The addresses of the nodes can't be read", metadata: ["error": "\(error)"])
                delay = backoff.delay(atLeast: error.retryAfter, random: clock.random())
            }
            do { try await clock.sleep(for: delay) } catch { return }
        }
    }

    /// No controller but ours could have a claim to the Ingress: its class is missing, or named but not there.
    private static func isNobodys(_ ingress: Ingress, _ objects: ObjectSet, _ options: TranslationOptions) -> Bool {
        if let name = ingress.spec.ingressClassName {
            return objects.ingressClasses[name].map { $0.spec.controller == options.controllerName } ?? true
        }
        if let name = ingress.metadata.annotations["kubernetes.io/ingress.class"] {
            return name == options.ingressClass
        }
        return !objects.ingressClasses.values.contains { $0.isDefault && $0.spec.controller != options.controllerName }
    }

    // MARK: Outages

    /// One line when the API server has been silent for a while, and one when it is back.
    private func watchOutages() async {
        do {
            while true {
                try await store.watched.wait { SourcePlan.outage($0.sources) != nil }
                let since = store.watched.read { SourcePlan.outage($0.sources) } ?? clock.now()
                // A server that restarts, or a connection that breaks, is no outage yet.
                try await store.watched.wait(until: since + options.outageNotice, by: clock) {
                    SourcePlan.outage($0.sources) == nil
                }
                guard store.watched.read({ SourcePlan.outage($0.sources) }) != nil else { continue }
                let message = store.watched.read { $0.sources.values.lazy.compactMap(\.message).first } ?? ""
                log.error(
                    "The API server does not answer; the last configuration goes on being served",
                    metadata: ["server": "\(client.access.server)", "error": "\(message)"])
                state.update { state in
                    state.outageSince = since
                    state.figures.outages += 1
                }
                try await store.watched.wait { SourcePlan.outage($0.sources) == nil }
                state.update { $0.outageSince = nil }
                log.notice(
                    "The API server answers again; the configuration follows it",
                    metadata: ["outage": "\(clock.now() - since)"])
            }
        } catch {
            return
        }
    }

    /// A kind that is not followed for a while is said, also where all others are.
    private func watchTroubles() async {
        do {
            while true {
                let now = clock.now()
                let (troubles, messages) = store.watched.read { state in
                    let messages = state.troubled.map { ($0.kind, state.sources[$0]?.message ?? "") }
                    return (SourcePlan.troubles(state), Dictionary(messages, uniquingKeysWith: min))
                }
                let stale = troubles.filter { now - $0.value >= options.troubleNotice }
                let said = Dictionary(stale.keys.map { ($0, messages[$0] ?? "") }, uniquingKeysWith: { $1 })
                if said != state.read({ $0.staleKinds }) {
                    state.update { $0.staleKinds = said }
                    // It is said beside what is served.
                    store.noticeMeaning()
                }
                // What is in trouble already may come to be so for another reason; the text follows once in a while.
                let next = troubles.map { max($0.value, stale[$0.key] == nil ? .zero : now) + options.troubleNotice }
                try await store.watched.wait(until: next.min(), by: clock) { SourcePlan.troubles($0) != troubles }
            }
        } catch {
            return
        }
    }
}
