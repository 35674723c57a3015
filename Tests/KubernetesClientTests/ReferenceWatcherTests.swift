import ClusterTesting
import KubernetesAPI
import KubernetesClient
import Testing

@Suite(.timeLimit(.minutes(10))) struct ReferenceWatcherTests {
    private func name(_ name: String) -> ObjectName { ObjectName(namespace: "shop", name: name) }

    @Test func followsExactlyWhatIsReferredTo() async throws {
        let clock = ManualClock(jumping: true)
        try await withServer(clock: clock) { server, client in
            // A role by names: what is not asked for by its name is not given.
            server.deny { $0.resource == "secrets" && $0.name == nil }
            try server.apply(Secret(metadata: ObjectMeta(name: "tls", namespace: "shop"), data: ["a": Base64([1])]))
            try server.apply(Secret(metadata: ObjectMeta(name: "private", namespace: "shop"), data: ["a": Base64([2])]))
            let store = ClusterStore(clock: clock)
            let watcher = ReferenceWatcher<Secret>(client: client, store: store, clock: clock, log: quiet)
            await watcher.follow([name("tls"), name("late")])
            try await server.watchCount.wait { $0 == 2 }
            try await store.watched.wait { $0.sources.values.allSatisfy { $0.isListed } }
            #expect(store.watched.value.objects.secrets.keys.map(\.name) == ["tls"])
            // One that comes after its reference.
            try server.apply(Secret(metadata: ObjectMeta(name: "late", namespace: "shop")))
            try await store.watched.wait { $0.objects.secrets.count == 2 }
            // No longer referred to: neither watched nor held.
            await watcher.follow([name("late")])
            try await server.watchCount.wait { $0 == 1 }
            #expect(store.watched.value.objects.secrets.keys.map(\.name) == ["late"])
            let asked = server.requests.value.filter { $0.name == "late" && $0.verb == "list" }
            #expect(asked.count == 1)
            await watcher.stop()
            try await server.watchCount.wait { $0 == 0 }
        }
    }
}
