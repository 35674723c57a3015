import ClusterTesting
import KubernetesAPI
import KubernetesClient
import Testing

@Suite struct ClusterStoreTests {
    private let store = ClusterStore(clock: ManualClock())

    private func versioned<Object: KubernetesObject>(_ object: Object, _ version: String) -> Object {
        var copy = object
        copy.metadata.resourceVersion = version
        return copy
    }

    @Test func aListReplacesItsScopeAndNoOther() {
        let shop = store.listener(for: Ingress.self, in: WatchScope(namespace: "shop"))
        let blog = store.listener(for: Ingress.self, in: WatchScope(namespace: "blog"))
        shop(.listed([ingress("a"), ingress("b")], unreadable: []))
        blog(.listed([ingress("c", namespace: "blog")], unreadable: []))
        shop(.listed([ingress("b")], unreadable: []))
        #expect(store.watched.value.objects.ingresses.keys.map(\.name).sorted() == ["b", "c"])
    }

    @Test func onlyDifferencesMakeWork() {
        let hear = store.listener(for: Ingress.self, in: WatchScope())
        hear(.listed([ingress("a")], unreadable: []))
        #expect(store.takeChanges().meaning)
        hear(.listed([ingress("a")], unreadable: []))
        #expect(store.takeChanges().isEmpty)
        hear(.changed(ingress("a", host: "new.test")))
        #expect(store.takeChanges().meaning)
        hear(.removed(ObjectName(namespace: "shop", name: "a")))
        #expect(store.takeChanges().meaning)
        hear(.removed(ObjectName(namespace: "shop", name: "a")))
        #expect(store.takeChanges().isEmpty)
    }

    /// Else each status that we write would make a translation.
    @Test func aStatusIsNoMeaning() {
        let hear = store.listener(for: Ingress.self, in: WatchScope())
        hear(.listed([versioned(ingress("a"), "1")], unreadable: []))
        _ = store.takeChanges()
        var changed = versioned(ingress("a"), "2")
        changed.status.loadBalancer.ingress = [LoadBalancerIngress(ip: "10.0.0.1")]
        hear(.changed(changed))
        let changes = store.takeChanges()
        #expect(!changes.meaning)
        #expect(changes.ingresses == [ObjectName(namespace: "shop", name: "a")])
    }

    @Test func slicesNameTheirService() {
        let hear = store.listener(for: EndpointSlice.self, in: WatchScope())
        hear(.listed([slice("s1", ["10.0.0.1"])], unreadable: []))
        let web = ObjectName(namespace: "shop", name: "web")
        #expect(store.takeChanges().endpoints == [web])
        hear(.changed(slice("s1", ["10.0.0.1"]).labelled("other", "x")))
        #expect(store.takeLightChanges().endpoints == [web])
        // Moved to another Service: both are concerned.
        hear(.changed(slice("s1", service: "api", ["10.0.0.1"])))
        let changes = store.takeChanges()
        #expect(changes.endpoints == [web, ObjectName(namespace: "shop", name: "api")])
        #expect(!changes.meaning)
        #expect(store.watched.value.objects.slicesOfService[web] == nil)
    }

    @Test func anUnreadableVersionLeavesTheLastGoodOne() {
        let hear = store.listener(for: Ingress.self, in: WatchScope())
        hear(.listed([ingress("a")], unreadable: []))
        let broken = UnreadableObject(
            name: ObjectName(namespace: "shop", name: "a"), resourceVersion: "9", problem: "spec: odd")
        hear(.unreadable(broken))
        #expect(store.takeChanges().meaning)
        #expect(store.watched.value.objects.ingresses.count == 1)
        hear(.listed([], unreadable: [broken]))
        #expect(store.watched.value.objects.ingresses.count == 1)
        #expect(store.watched.value.unreadable.values.first?.count == 1)
        hear(.changed(ingress("a")))
        #expect(store.watched.value.unreadable.values.allSatisfy { $0.isEmpty })
        hear(.listed([], unreadable: []))
        #expect(store.watched.value.objects.ingresses.isEmpty)
    }

    @Test func aDroppedSourceTakesItsObjectsAndIsNotHeardAgain() {
        let scope = WatchScope(namespace: "shop", name: "a")
        let hear = store.listener(for: ConfigMap.self, in: scope)
        hear(.listed([configMap("a")], unreadable: []))
        store.drop(ConfigMap.self, in: scope)
        #expect(store.watched.value.objects.configMaps.isEmpty)
        hear(.changed(configMap("a")))
        #expect(store.watched.value.objects.configMaps.isEmpty)
    }

    @Test func trouble() {
        let hear = store.listener(for: ConfigMap.self, in: WatchScope())
        let source = StoreSource(kind: "ConfigMap", scope: WatchScope())
        hear(.trouble(APIError(.unreachable, "down")))
        hear(.trouble(APIError(.server, "500")))
        #expect(store.watched.value.sources[source]?.trouble == .server)
        #expect(store.watched.value.sources[source]?.troubledSince == .seconds(1_000))
        hear(.healthy)
        #expect(store.watched.value.sources[source]?.trouble == nil)
    }
}
