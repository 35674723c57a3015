import ClusterTesting
import Controller
import IngressTranslation
import KubernetesAPI
import KubernetesClient
import Model
import Testing

@Suite(.timeLimit(.minutes(10))) struct ClusterControllerTests {
    @Test func anIngressIsCreatedChangedAndDeleted() async throws {
        try await withCluster { server in
            try openShop(server)
            try await withReplica(of: server) { replica in
                try await replica.waitForRoutes(["shop.test /"])
                #expect(
                    Replica.endpoints(replica.published.value.last?.snapshot ?? Snapshot(), "shop/web:80") == [
                        "10.1.0.1:8080"
                    ])
                try server.apply(ingress("api", host: "api.test"))
                try await replica.waitForRoutes(["shop.test /", "api.test /"])
                try server.apply(ingress("api", host: "api.test", path: "/v2"))
                try await replica.waitForRoutes(["shop.test /", "api.test /v2"])
                try server.delete(Ingress.self, namespace: "shop", name: "api")
                try await replica.waitForRoutes(["shop.test /"])
                // Generations count on, one a publication.
                let generations = replica.published.value.map(\.generation)
                #expect(generations == Array(1...UInt64(generations.count)))
            }
        }
    }

    @Test func nothingIsPublishedBeforeAllFirstListsAreComplete() async throws {
        try await withCluster { server in
            try openShop(server)
            let clock = ManualClock()
            server.inject(.init(.status(500), verb: "list", resource: "endpointslices", times: 2))
            try await withReplica(of: server, clock: clock) { replica in
                for round in 1...2 {
                    // One sleep after each try, and the one that minds how long that lasts.
                    try await clock.sleeping.wait { $0.total >= round + 1 }
                    #expect(replica.published.value.isEmpty)
                    #expect(!replica.controller.state.value.isServing)
                    clock.advance(by: .seconds(1))
                }
                try await replica.waitForRoutes(["shop.test /"])
                // The first publication is whole.
                #expect(replica.published.value.count == 1)
                try await replica.controller.state.wait { $0.isServing }
            }
        }
    }

    @Test func anEmptyClusterIsServedToo() async throws {
        try await withCluster { server in
            try await withReplica(of: server) { replica in
                try await replica.controller.state.wait { $0.isServing }
                #expect(replica.published.value.map(\.snapshot) == [Snapshot()])
            }
        }
    }

    /// Endpoints of our zone go first, as soon as our node has said which that is.
    @Test func theZoneIsTheNodes() async throws {
        try await withCluster { server in
            try openShop(server)
            var endpoints = ready("10.1.0.1", "10.1.0.2")
            for index in endpoints.indices { endpoints[index].hints = EndpointHints(zones: ["zone-\(index)"]) }
            try server.apply(slice("web-1", endpoints))
            var metadata = ObjectMeta(name: "node-7")
            metadata.labels["topology.kubernetes.io/zone"] = "zone-1"
            try server.apply(Node(metadata: metadata))
            server.inject(.init(.status(500), verb: "get", resource: "nodes", times: 2))
            try await withReplica(of: server, { $0.node = "node-7" }) { replica in
                try await replica.waitForEndpoints("shop/web:80", ["10.1.0.2:8080"])
                // The short road knows it, too.
                endpoints += ready("10.1.0.3")
                endpoints[2].hints = EndpointHints(zones: ["zone-1"])
                try server.apply(slice("web-1", endpoints))
                try await replica.waitForEndpoints("shop/web:80", ["10.1.0.2:8080", "10.1.0.3:8080"])
                #expect(replica.published.value.last?.extent == .endpoints([0]))
            }
            // Who may not look at nodes goes on without.
            server.deny { $0.resource == "nodes" }
            try await withReplica(of: server, { $0.node = "node-7" }) { replica in
                try await replica.waitForEndpoints("shop/web:80", ["10.1.0.1:8080", "10.1.0.2:8080", "10.1.0.3:8080"])
            }
        }
    }

    @Test func endpointsTakeTheShortRoad() async throws {
        try await withCluster { server in
            try openShop(server)
            // The time stands still: no hold-off can end.
            let clock = ManualClock()
            try await withReplica(of: server, clock: clock) { replica in
                try await replica.waitForRoutes(["shop.test /"])
                let translations = replica.controller.state.value.figures.translations
                try server.apply(slice("web-1", ready("10.1.0.1", "10.1.0.2")))
                try await replica.waitForEndpoints("shop/web:80", ["10.1.0.1:8080", "10.1.0.2:8080"])
                try server.apply(slice("web-2", ready("10.1.0.3")))
                try await replica.waitForEndpoints("shop/web:80", ["10.1.0.1:8080", "10.1.0.2:8080", "10.1.0.3:8080"])
                #expect(replica.published.value.last?.extent == .endpoints([0]))
                // And they do not wait for a change that holds off.
                try server.apply(ingress("api", host: "api.test"))
                try server.delete(EndpointSlice.self, namespace: "shop", name: "web-2")
                try await replica.waitForEndpoints("shop/web:80", ["10.1.0.1:8080", "10.1.0.2:8080"])
                #expect(replica.controller.state.value.figures.translations == translations)
                await clock.run(step: .milliseconds(5)) { replica.published.value.last?.snapshot.routes.count == 2 }
            }
        }
    }

    /// While scripts are compiled, the endpoints of what is served move on; and what is published then has them too.
    @Test func endpointsDoNotWaitForAPreparation() async throws {
        try await withCluster { server in
            try openShop(server)
            // Preparations end when the test lets them.
            let (asked, allowed) = (Watched(0), Watched(1))
            try await withReplica(
                of: server,
                prepare: { _ in
                    let number = asked.update { count in
                        count += 1
                        return count
                    }
                    try? await allowed.wait { $0 >= number }
                }
            ) { replica in
                try await replica.waitForRoutes(["shop.test /"])
                try server.apply(ingress("api", host: "api.test"))
                try await asked.wait { $0 == 2 }
                for index in 2...4 {
                    try server.apply(slice("web-1", ready("10.1.0.\(index)")))
                    try await replica.waitForEndpoints("shop/web:80", ["10.1.0.\(index):8080"])
                }
                #expect(replica.published.value.last?.extent == .endpoints([0]))
                #expect(Replica.routes(replica.published.value.last?.snapshot ?? Snapshot()) == ["shop.test /"])
                allowed.update { $0 = .max }
                try await replica.waitForRoutes(["shop.test /", "api.test /"])
                let whole = replica.published.value.filter { $0.extent == .everything }
                #expect(whole.count == 2)
                #expect(whole.last.map { Replica.endpoints($0.snapshot, "shop/web:80") } == ["10.1.0.4:8080"])
            }
        }
    }

    /// Both roads come to the same snapshot, whatever happened to the endpoints.
    @Test func bothRoadsAgree() async throws {
        try await withCluster { server in
            try openShop(server)
            try server.apply(service("api"))
            try server.apply(ingress("api", host: "api.test", service: "api"))
            try await withReplica(of: server) { replica in
                try await replica.waitForRoutes(["shop.test /", "api.test /"])
                var draining = SliceEndpoint(
                    addresses: ["10.1.0.9"],
                    conditions: EndpointConditions(ready: false, serving: true, terminating: true))
                try server.apply(slice("api-1", service: "api", [draining]))
                try await replica.waitForEndpoints("shop/api:80", ["10.1.0.9:8080"])
                draining.addresses = ["10.1.0.8"]
                try server.apply(slice("api-1", service: "api", [draining] + ready("10.1.0.7")))
                try await replica.waitForEndpoints("shop/api:80", ["10.1.0.7:8080"])
                try server.apply(slice("web-1", []))
                try await replica.waitForEndpoints("shop/web:80", [])
                try await replica.waitForDiagnostic("MG132")
                let short = replica.published.value.last?.snapshot
                let shortDiagnostics = Set(replica.controller.state.value.diagnostics)
                try await withReplica(of: server) { fresh in
                    try await fresh.waitForRoutes(["shop.test /", "api.test /"])
                    try await fresh.controller.state.wait { $0.isServing }
                    #expect(fresh.published.value.last?.snapshot == short)
                    #expect(Set(fresh.controller.state.value.diagnostics) == shortDiagnostics)
                }
                try server.apply(slice("web-1", ready("10.1.0.1")))
                try await replica.waitForNoDiagnostic("MG132")
            }
        }
    }

    @Test func changesThatComeTogetherArePublishedOnce() async throws {
        try await withCluster { server in
            try openShop(server)
            let clock = ManualClock()
            try await withReplica(of: server, clock: clock) { replica in
                try await replica.waitForRoutes(["shop.test /"])
                for index in 0..<20 { try server.apply(ingress("more\(index)", host: "h\(index).test")) }
                // All of them are known, and the loop waits for quiet.
                while replica.controller.objects.ingresses.count < 21 { await Task.yield() }
                #expect(replica.published.value.count == 1)
                await clock.run(step: .milliseconds(5)) { replica.published.value.count > 1 }
                #expect(replica.published.value.last?.snapshot.routes.count == 21)
                #expect(replica.published.value.count == 2)
            }
        }
    }

    @Test func oneChangeAfterAQuietTimeDoesNotWait() async throws {
        try await withCluster { server in
            try openShop(server)
            let clock = ManualClock()
            try await withReplica(of: server, clock: clock) { replica in
                try await replica.waitForRoutes(["shop.test /"])
                clock.advance(by: .seconds(1))
                try server.apply(ingress("one", host: "one.test"))
                // The clock stands still.
                try await replica.waitForRoutes(["shop.test /", "one.test /"])
            }
        }
    }

    @Test func aCrowdThatNeverEndsIsPublishedAllTheSame() async throws {
        try await withCluster { server in
            try openShop(server)
            let clock = ManualClock()
            try await withReplica(of: server, clock: clock) { replica in
                try await replica.waitForRoutes(["shop.test /"])
                let began = clock.now()
                var count = 0
                while replica.published.value.count == 1 {
                    count += 1
                    try server.apply(ingress("crowd", host: "h\(count).test"))
                    clock.advance(by: .milliseconds(10))
                    for _ in 0..<50 { await Task.yield() }
                    try #require(count < 10_000)
                }
                // Bounded by the terms (200 ms); the events need some of the steps to arrive.
                #expect(clock.now() - began >= .milliseconds(20))
            }
        }
    }

    @Test func whatChangesNothingIsNotPublished() async throws {
        try await withCluster { server in
            try openShop(server)
            try await withReplica(of: server) { replica in
                try await replica.waitForRoutes(["shop.test /"])
                try server.apply(ingress("foreign", host: "foreign.test", className: "other"))
                try await replica.controller.state.wait { $0.figures.idleTranslations >= 1 }
                #expect(replica.published.value.count == 1)
            }
        }
    }

    @Test func aServerThatIsDownChangesNothing() async throws {
        try await withCluster { server in
            try openShop(server)
            try await withReplica(of: server) { replica in
                try await replica.waitForRoutes(["shop.test /"])
                try await server.goDown()
                try await replica.controller.state.wait { $0.outageSince != nil }
                #expect(replica.controller.state.value.isServing)
                #expect(replica.published.value.count == 1)
                #expect(replica.controller.state.value.prometheusText(now: .zero).contains("moongate_api_server_up 0"))
                // What happens meanwhile is caught up with afterwards.
                try server.apply(ingress("web", host: "new.test"))
                try server.apply(slice("web-1", ready("10.1.0.5")))
                server.compact()
                server.comeBack()
                try await replica.waitForRoutes(["new.test /"])
                try await replica.waitForEndpoints("shop/web:80", ["10.1.0.5:8080"])
                try await replica.controller.state.wait { $0.outageSince == nil }
                #expect(replica.controller.state.value.figures.outages >= 1)
            }
        }
    }

    /// One kind that is not answered for, while all others are.
    @Test func aKindThatIsNotFollowedIsSaid() async throws {
        try await withCluster { server in
            try openShop(server)
            let clock = ManualClock()
            try await withReplica(of: server, clock: clock) { replica in
                try await replica.waitForRoutes(["shop.test /"])
                #expect(
                    replica.controller.prometheusText.contains(
                        "\nmoongate_watch_trouble_seconds{kind=\"EndpointSlice\"} 0.0\n"))
                server.inject(.init(.status(500), resource: "endpointslices", times: .max))
                server.expireWatches()
                await clock.run(step: .milliseconds(100)) {
                    replica.controller.state.value.diagnostics.contains { $0.code == "MG189" }
                }
                #expect(clock.now() - .seconds(1_000) >= .seconds(60))
                let found = replica.controller.state.value.diagnostics.filter { $0.code == "MG189" }
                #expect(found.count == 1)
                #expect(found.first?.problem.contains("EndpointSlice") == true)
                #expect(found.first?.problem.contains("injected fault") == true)
                let text = replica.controller.prometheusText
                #expect(!text.contains("moongate_watch_trouble_seconds{kind=\"EndpointSlice\"} 0.0"))
                #expect(text.contains("moongate_watch_trouble_seconds{kind=\"Ingress\"} 0.0"))
                #expect(replica.controller.state.value.outageSince == nil)
                // Why it is so is kept up.
                server.inject(.init(.reset, resource: "endpointslices", times: .max), first: true)
                await clock.run(step: .milliseconds(100)) {
                    replica.controller.state.value.diagnostics.contains {
                        $0.code == "MG189" && !$0.problem.contains("injected fault")
                    }
                }
                server.clearFaults()
                await clock.run(step: .milliseconds(100)) {
                    !replica.controller.state.value.diagnostics.contains { $0.code == "MG189" }
                }
            }
        }
    }

    @Test func aStormOfExpiredWatchesNeverEmptiesWhatIsServed() async throws {
        try await withCluster { server in
            try openShop(server)
            try await withReplica(of: server) { replica in
                try await replica.waitForRoutes(["shop.test /"])
                server.inject(.init(.expireWatch, verb: "watch", times: 30))
                for index in 0..<30 {
                    server.expireWatches()
                    server.compact()
                    try server.apply(ingress("storm", host: "h\(index).test"))
                    server.cutWatchesAtNextEvent()
                    try server.apply(slice("web-1", ready("10.1.0.\(index + 1)")))
                }
                try await replica.waitForRoutes(["shop.test /", "h29.test /"])
                try await replica.waitForEndpoints("shop/web:80", ["10.1.0.30:8080"])
                #expect(replica.published.value.allSatisfy { Replica.routes($0.snapshot).contains("shop.test /") })
                #expect(
                    replica.published.value.allSatisfy { !Replica.endpoints($0.snapshot, "shop/web:80").isEmpty })
            }
        }
    }

    @Test func aSecretThatComesAfterItsIngress() async throws {
        try await withCluster { server in
            try openShop(server)
            // Only by name: all the Secrets of the cluster are none of our business.
            server.deny { ["secrets", "configmaps"].contains($0.resource) && $0.name == nil }
            try server.apply(ingress("web", tls: "cert"))
            try await withReplica(of: server) { replica in
                try await replica.waitForDiagnostic("MG160")
                var secret = Secret(metadata: ObjectMeta(name: "cert", namespace: "shop"), type: "kubernetes.io/tls")
                secret.data = ["tls.crt": Base64([1]), "tls.key": Base64([2])]
                try server.apply(secret)
                try await replica.waitForNoDiagnostic("MG160")
                // No longer referred to: no longer watched, and no longer held.
                try server.apply(ingress("web"))
                while !replica.controller.objects.secrets.isEmpty { await Task.yield() }
            }
        }
    }

    /// What is served first is whole, as far as it can be had: readiness follows it.
    @Test func theFirstPublicationWaitsForItsSecrets() async throws {
        try await withCluster { server in
            try openShop(server)
            try server.apply(ingress("web", tls: "cert"))
            var secret = Secret(metadata: ObjectMeta(name: "cert", namespace: "shop"), type: "kubernetes.io/tls")
            secret.data = ["tls.crt": Base64([1]), "tls.key": Base64([2])]
            try server.apply(secret)
            server.inject(.init(.status(500), verb: "list", resource: "secrets", times: 5))
            let clock = ManualClock()
            // Steps of this clock cost no time, and those of the server do.
            try await withReplica(of: server, clock: clock, { $0.firstReferenceWait = .seconds(86_400) }) { replica in
                await clock.run(step: .milliseconds(20)) { !replica.published.value.isEmpty }
                #expect(replica.controller.objects.secrets.count == 1)
                #expect(!replica.controller.state.value.diagnostics.contains { $0.code == "MG160" })
            }
        }
    }

    @Test func theFirstPublicationDoesNotWaitForEver() async throws {
        try await withCluster { server in
            try openShop(server)
            try server.apply(ingress("web", tls: "cert"))
            server.inject(.init(.status(500), verb: "list", resource: "secrets", times: .max))
            let clock = ManualClock()
            try await withReplica(of: server, clock: clock) { replica in
                await clock.run(step: .milliseconds(20)) { !replica.published.value.isEmpty }
                #expect(clock.now() - .seconds(1_000) >= .seconds(30))
            }
        }
    }

    /// One Ingress that names more Secrets than there are to be watches.
    @Test func referencesAreLimited() async throws {
        try await withCluster { server in
            try openShop(server)
            var many = ingress("many", host: "many.test")
            many.spec.tls = (0..<9).map { IngressTLS(hosts: ["many.test"], secretName: "s\($0)") }
            try server.apply(many)
            try await withReplica(of: server, { $0.references.perNamespace = 3 }) { replica in
                try await replica.waitForDiagnostic("MG188")
                let found = replica.controller.state.value.diagnostics.filter { $0.code == "MG188" }
                #expect(found.map(\.place.object?.name) == ["many"])
                #expect(found.first?.problem.hasPrefix("6 of the Secrets") == true)
                try await server.watchCount.wait { $0 >= 7 }
                #expect(server.watchCount.value == 7)
                let asked = server.requests.value.filter { $0.resource == "secrets" && $0.verb == "list" }
                #expect(Set(asked.map(\.name)) == ["s0", "s1", "s2"])
                many.spec.tls.removeLast(6)
                try server.apply(many)
                try await replica.waitForNoDiagnostic("MG188")
            }
        }
    }

    /// Who asks for little and gets nothing is not the one who can mend it.
    @Test func whoIsCrowdedOutIsToldWhoseLimitItIs() async throws {
        try await withCluster { server in
            try openShop(server)
            for (namespace, count) in [("a", 3), ("b", 1), ("c", 1)] {
                var some = ingress("tls", namespace: namespace, host: "\(namespace).test")
                some.spec.tls = (0..<count).map { IngressTLS(hosts: ["\(namespace).test"], secretName: "s\($0)") }
                try server.apply(some)
            }
            try await withReplica(
                of: server,
                { options in
                    options.references.perNamespace = 2
                    options.references.total = 2
                }
            ) { replica in
                try await replica.waitForDiagnostic("MG188")
                let found = replica.controller.state.value.diagnostics.filter { $0.code == "MG188" }
                #expect(found.map(\.place.object?.namespace) == ["a", "c"])
                #expect(found.map { $0.mend.hasPrefix("refer to fewer") } == [true, false])
                #expect(found.last?.problem.contains("those of all namespaces together") == true)
            }
        }
    }

    /// An Ingress that comes while the Secret of another is fetched has its own fetched as well.
    @Test func referencesOfWhatComesMeanwhile() async throws {
        try await withCluster { server in
            try openShop(server)
            for name in ["first", "second"] {
                var secret = Secret(metadata: ObjectMeta(name: name, namespace: "shop"), type: "kubernetes.io/tls")
                secret.data = ["tls.crt": Base64([1]), "tls.key": Base64([2])]
                try server.apply(secret)
            }
            let clock = ManualClock()
            try await withReplica(of: server, clock: clock) { replica in
                try await replica.waitForRoutes(["shop.test /"])
                server.inject(.init(.status(500), verb: "list", resource: "secrets", times: 1))
                clock.advance(by: .seconds(1))
                try server.apply(ingress("a", host: "a.test", tls: "first"))
                // Asked for, and not had: the time stands still.
                try await server.requests.wait { $0.contains { $0.verb == "list" && $0.resource == "secrets" } }
                try server.apply(ingress("b", host: "b.test", tls: "second"))
                let name = ObjectName(namespace: "shop", name: "b")
                while replica.controller.objects.ingresses[name] == nil { await Task.yield() }
                await clock.run(step: .milliseconds(50)) {
                    replica.controller.objects.secrets.count == 2
                        && !replica.controller.state.value.diagnostics.contains { $0.code == "MG160" }
                }
            }
        }
    }

    @Test func aScriptIsLiveWhenItsConfigMapChanges() async throws {
        try await withCluster { server in
            try openShop(server)
            func script(_ text: String) -> ConfigMap {
                ConfigMap(metadata: ObjectMeta(name: "canary", namespace: "shop"), data: ["main.lua": text])
            }
            try server.apply(script("return 1"))
            try server.apply(ingress("web", annotations: ["moongate.dev/script": "canary"]))
            let clock = ManualClock()
            try await withReplica(of: server, clock: clock) { replica in
                @Sendable func runs(_ text: String) -> Bool {
                    replica.published.value.last?.snapshot.scripts.map(\.main) == [text]
                }
                try await replica.published.wait { !$0.isEmpty }
                #expect(runs("return 1"))
                try server.apply(script("return 2"))
                await clock.run(step: .milliseconds(5)) { runs("return 2") }
                // Gone: the last good version stays, with a complaint.
                try server.delete(ConfigMap.self, namespace: "shop", name: "canary")
                await clock.run(step: .milliseconds(5)) {
                    replica.controller.state.value.diagnostics.contains { $0.code == "MG151" }
                }
                #expect(runs("return 2"))
                // The script was waited for: there is no moment without it.
                #expect(replica.published.value.allSatisfy { !$0.snapshot.scripts.isEmpty })
            }
        }
    }

    @Test func aKindThatIsForbiddenIsSaidAndMissed() async throws {
        try await withCluster { server in
            try openShop(server)
            server.deny { $0.resource == "ingressclasses" }
            try await withReplica(of: server) { replica in
                try await replica.waitForRoutes(["shop.test /"])
                try await replica.waitForDiagnostic("MG181")
                #expect(replica.controller.state.value.forbidden.map(\.kind) == ["IngressClass"])
                server.deny { _ in false }
                try await replica.waitForNoDiagnostic("MG181")
            }
        }
    }

    @Test func withoutEndpointsNothingIsReady() async throws {
        try await withCluster { server in
            try openShop(server)
            server.deny { $0.resource == "endpointslices" }
            let clock = ManualClock()
            try await withReplica(of: server, clock: clock) { replica in
                try await clock.sleeping.wait { $0.now == 1 }
                #expect(!replica.controller.state.value.isServing)
                server.deny { _ in false }
                clock.advance(by: .seconds(60))
                try await replica.waitForRoutes(["shop.test /"])
            }
        }
    }

    @Test func inItsNamespacesARoleIsEnough() async throws {
        try await withCluster { server in
            try openShop(server)
            try server.apply(service("web", namespace: "blog"))
            try server.apply(ingress("blog", namespace: "blog", host: "blog.test"))
            server.deny { $0.namespace != "shop" }
            try await withReplica(of: server, { $0.namespaces = ["shop"] }) { replica in
                try await replica.waitForRoutes(["shop.test /"])
                #expect(
                    server.requests.value.allSatisfy { $0.namespace == "shop" || $0.resource == "ingressclasses" })
            }
        }
    }

    @Test func twoTenantsClaimOneHost() async throws {
        try await withCluster { server in
            try openShop(server)
            try server.apply(service("web", namespace: "thief"))
            try server.apply(ingress("steal", namespace: "thief", host: "shop.test"))
            try await withReplica(of: server, { $0.translation.hostsAreExclusive = true }) { replica in
                try await replica.waitForDiagnostic("MG126")
                #expect(replica.published.value.last?.snapshot.routes.map(\.ingress.namespace) == ["shop"])
            }
        }
    }

    @Test func anObjectThatCannotBeReadHarmsNobody() async throws {
        try await withCluster { server in
            try openShop(server)
            try server.apply(ingress("odd", host: "odd.test"))
            try await withReplica(of: server) { replica in
                try await replica.waitForRoutes(["shop.test /", "odd.test /"])
                server.force(
                    [
                        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
                        "metadata": ["name": "odd", "namespace": "shop"], "spec": ["rules": 7],
                    ], plural: "ingresses")
                try await replica.waitForDiagnostic("MG180")
                #expect(
                    Replica.routes(replica.published.value.last?.snapshot ?? Snapshot()) == [
                        "odd.test /", "shop.test /",
                    ])
                try server.apply(ingress("odd", host: "mended.test"))
                try await replica.waitForRoutes(["shop.test /", "mended.test /"])
                try await replica.waitForNoDiagnostic("MG180")
            }
        }
    }

    /// Ten pods replaced one by one: at no moment is there none to serve.
    @Test func aRollingUpdate() async throws {
        try await withCluster { server in
            try openShop(server)
            func state(_ old: Int, draining: Bool) -> [SliceEndpoint] {
                (old..<10).map { index in
                    let drains = draining && index == old
                    return SliceEndpoint(
                        addresses: ["10.1.0.\(index)"],
                        conditions: EndpointConditions(ready: !drains, serving: true, terminating: drains))
                } + (0..<old).map { SliceEndpoint(addresses: ["10.2.0.\($0)"]) }
            }
            try server.apply(slice("web-1", state(0, draining: false)))
            try await withReplica(of: server) { replica in
                try await replica.waitForRoutes(["shop.test /"])
                for step in 0..<10 {
                    try server.apply(slice("web-1", state(step, draining: true)))
                    try server.apply(slice("web-1", state(step + 1, draining: false)))
                }
                try await replica.waitForEndpoints("shop/web:80", (0..<10).map { "10.2.0.\($0):8080" })
                #expect(
                    replica.published.value.allSatisfy { Replica.endpoints($0.snapshot, "shop/web:80").count >= 9 })
            }
        }
    }
}
