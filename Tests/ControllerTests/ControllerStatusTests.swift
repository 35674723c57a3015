import ClusterTesting
import Controller
import KubernetesAPI
import KubernetesClient
import Model
import Testing

@Suite(.timeLimit(.minutes(10))) struct ControllerStatusTests {
    private static let lease = ObjectName(namespace: "default", name: "moongate")

    private func lead(_ options: inout ControllerOptions, _ identity: String = "a", _ status: StatusSource? = nil) {
        options.lease = Self.lease
        options.identity = identity
        options.status = status ?? .addresses([LoadBalancerIngress(ip: "203.0.113.1")])
    }

    private func status(_ server: APIServer, _ name: String = "web") throws -> [LoadBalancerIngress] {
        try server.get(Ingress.self, namespace: "shop", name: name)?.status.loadBalancer.ingress ?? []
    }

    /// Lets time pass until the condition holds.
    private func pass(_ clock: ManualClock, until isMet: @escaping @Sendable () -> Bool) async {
        await clock.run(step: .milliseconds(20), until: isMet)
    }

    private func shows(_ server: APIServer, _ addresses: [LoadBalancerIngress], _ name: String = "web")
        -> @Sendable () -> Bool
    {
        { (try? server.get(Ingress.self, namespace: "shop", name: name))?.status.loadBalancer.ingress == addresses }
    }

    @Test func theLeaderWritesAndTakesAway() async throws {
        try await withCluster { server in
            try openShop(server)
            try server.apply(
                IngressClass(metadata: ObjectMeta(name: "other"), spec: IngressClassSpec(controller: "other.test/c")))
            try server.apply(ingress("foreign", host: "foreign.test", className: "other"))
            let clock = ManualClock()
            try await withReplica(of: server, clock: clock, { lead(&$0) }) { replica in
                await pass(clock, until: shows(server, [LoadBalancerIngress(ip: "203.0.113.1")]))
                #expect(try status(server, "foreign").isEmpty)
                // Our own write makes no translation.
                await pass(clock) { replica.controller.state.value.figures.statusWrites == 1 }
                let translations = replica.controller.state.value.figures.translations
                try server.apply(ingress("web", className: "other"))
                await pass(clock, until: shows(server, []))
                #expect(replica.controller.state.value.figures.translations == translations + 1)
            }
        }
    }

    @Test func aReplicaThatDoesNotLeadWritesNothing() async throws {
        try await withCluster { server in
            try openShop(server)
            var lease = Lease(metadata: ObjectMeta(name: "moongate", namespace: "default"))
            lease.spec.holderIdentity = "somebody"
            lease.spec.leaseDurationSeconds = 3_600
            try server.apply(lease)
            let clock = ManualClock()
            try await withReplica(of: server, clock: clock, { lead(&$0) }) { replica in
                try await replica.waitForRoutes(["shop.test /"])
                await pass(clock) { clock.now() > .seconds(1_060) }
                #expect(try status(server).isEmpty)
                #expect(!server.requests.value.contains { ["patch", "create", "update"].contains($0.verb) })
                #expect(!replica.controller.state.value.isLeading)
            }
        }
    }

    @Test func theSuccessorGoesOn() async throws {
        try await withCluster { server in
            try openShop(server)
            let clock = ManualClock()
            try await withReplica(of: server, clock: clock, { lead(&$0, "b") }) { second in
                try await withReplica(of: server, clock: clock, { lead(&$0, "a") }) { _ in
                    await pass(clock, until: shows(server, [LoadBalancerIngress(ip: "203.0.113.1")]))
                    // Whichever leads is killed: it can give nothing back.
                    server.deny { $0.resource == "leases" && $0.verb == "update" }
                }
                server.deny { _ in false }
                try server.apply(ingress("late", host: "late.test"))
                await pass(clock, until: shows(server, [LoadBalancerIngress(ip: "203.0.113.1")], "late"))
                #expect(second.controller.state.value.isLeading)
                // It knows what was its predecessor's.
                try server.apply(ingress("web", className: "gone"))
                await pass(clock, until: shows(server, []))
            }
        }
    }

    @Test func anotherControllerIsNotFought() async throws {
        try await withCluster { server in
            try openShop(server)
            let clock = ManualClock()
            try await withReplica(of: server, clock: clock, { lead(&$0) }) { replica in
                var overrides = 0
                while replica.controller.state.value.disputes.isEmpty, overrides < 100 {
                    await pass(clock) {
                        shows(server, [LoadBalancerIngress(ip: "203.0.113.1")])()
                            || !replica.controller.state.value.disputes.isEmpty
                    }
                    try server.setStatus(
                        Ingress.self, namespace: "shop", name: "web",
                        ["loadBalancer": ["ingress": [["ip": "192.0.2.66"]]]])
                    overrides += 1
                }
                #expect(overrides <= 6)
                let now = clock.now()
                await pass(clock) { clock.now() > now + .seconds(30) }
                #expect(try status(server) == [LoadBalancerIngress(ip: "192.0.2.66")])
            }
        }
    }

    @Test func theAddressesOfAService() async throws {
        try await withCluster { server in
            try openShop(server)
            var front = service("front", namespace: "edge")
            front.spec.type = "LoadBalancer"
            try server.apply(front)
            let clock = ManualClock()
            let source = StatusSource.service(ObjectName(namespace: "edge", name: "front"))
            // Also where its namespace is not watched.
            try await withReplica(
                of: server, clock: clock,
                { options in
                    lead(&options, "a", source)
                    options.namespaces = ["shop"]
                }
            ) { replica in
                try await replica.waitForDiagnostic("MG170")
                try server.setStatus(
                    Service.self, namespace: "edge", name: "front",
                    ["loadBalancer": ["ingress": [["hostname": "lb.example.net"]]]])
                await pass(clock, until: shows(server, [LoadBalancerIngress(hostname: "lb.example.net")]))
                try server.setStatus(
                    Service.self, namespace: "edge", name: "front",
                    ["loadBalancer": ["ingress": [["ip": "203.0.113.7"]]]])
                await pass(clock, until: shows(server, [LoadBalancerIngress(ip: "203.0.113.7")]))
            }
        }
    }

    @Test func theAddressesOfTheNodes() async throws {
        try await withCluster { server in
            try openShop(server)
            for index in 1...3 {
                try server.apply(
                    Node(
                        metadata: ObjectMeta(name: "n\(index)"),
                        status: NodeStatus(addresses: [
                            NodeAddress(type: "InternalIP", address: "10.0.0.\(index)"),
                            NodeAddress(type: "ExternalIP", address: "203.0.113.\(index)"),
                        ])))
                var metadata = ObjectMeta(name: "moongate-\(index)", namespace: "edge")
                metadata.labels = ["app": "moongate", "pod-template-hash": "x\(index)"]
                try server.apply(
                    Pod(
                        metadata: metadata, spec: PodSpec(nodeName: "n\(index)"),
                        status: PodStatus(phase: index == 3 ? "Failed" : "Running", hostIP: "10.0.0.\(index)")))
            }
            let clock = ManualClock()
            let source = StatusSource.nodes(pod: ObjectName(namespace: "edge", name: "moongate-1"))
            try await withReplica(of: server, clock: clock, { lead(&$0, "a", source) }) { _ in
                await pass(
                    clock,
                    until: shows(
                        server, [LoadBalancerIngress(ip: "203.0.113.1"), LoadBalancerIngress(ip: "203.0.113.2")]))
                // A Role can't read nodes: what the pods say of themselves must do.
                server.deny { $0.resource == "nodes" }
                await pass(
                    clock,
                    until: shows(server, [LoadBalancerIngress(ip: "10.0.0.1"), LoadBalancerIngress(ip: "10.0.0.2")]))
            }
        }
    }

    @Test func conflictsAndOutagesAreLivedThrough() async throws {
        try await withCluster { server in
            try openShop(server)
            server.inject(.init(.status(409), verb: "patch", resource: "ingresses", times: 1))
            server.inject(.init(.status(500), verb: "patch", resource: "ingresses", times: 3))
            let clock = ManualClock()
            try await withReplica(of: server, clock: clock, { lead(&$0) }) { _ in
                try await server.requests.wait { $0.contains { $0.verb == "patch" } }
                // The version moved, which is what a conflict means.
                try server.apply(ingress("web", path: "/new"))
                await pass(clock, until: shows(server, [LoadBalancerIngress(ip: "203.0.113.1")]))
            }
        }
    }

    @Test func aWarningIsAnEventOfTheLeader() async throws {
        try await withCluster { server in
            try openShop(server)
            try server.apply(ingress("broken", host: "broken.test", service: "missing"))
            let clock = ManualClock()
            try await withReplica(
                of: server, clock: clock,
                { options in
                    lead(&options)
                    // Half an hour is a long time in steps of 20 ms.
                    options.events.refreshAfter = .seconds(30)
                }
            ) { replica in
                await pass(clock) { ((try? server.all(Event.self)) ?? []).count == 1 }
                let event = try #require(try server.all(Event.self).first)
                #expect(event.regarding?.kind == "Ingress")
                #expect(event.regarding?.name == "broken")
                #expect(event.regarding?.uid?.isEmpty == false)
                #expect(event.reason == "NoService")
                #expect(event.note?.hasPrefix("MG130: ") == true)
                // It lasts: a series, and no second Event.
                await pass(clock) { ((try? server.all(Event.self)) ?? []).first?.series != nil }
                #expect(try server.all(Event.self).count == 1)
                // A note is no matter for an Event.
                #expect(!((try server.all(Event.self)).contains { $0.reason == "OtherClass" }))
                await replica.controller.tell(
                    .warning, about: .init(kind: "Ingress", namespace: "shop", name: "web"),
                    reason: "ScriptBreakerOpen",
                    action: "RunScript", note: "50 errors in 10 s")
                await pass(clock) {
                    ((try? server.all(Event.self)) ?? []).contains { $0.reason == "ScriptBreakerOpen" }
                }
            }
        }
    }

    /// A finding whose Event could not be written, or came in a crowd, is told all the same.
    @Test func noFindingIsLost() async throws {
        try await withCluster { server in
            try openShop(server)
            for index in 0..<40 {
                try server.apply(ingress("broken\(index)", host: "b\(index).test", service: "missing"))
            }
            server.inject(.init(.status(500), verb: "create", resource: "events", times: 3))
            let clock = ManualClock()
            try await withReplica(
                of: server, clock: clock,
                { options in
                    lead(&options)
                    options.events.totalBurst = 10
                    // What is told again after a while would hide that it was lost.
                    options.events.refreshAfter = .seconds(1_000_000)
                }
            ) { replica in
                await pass(clock) {
                    Set(((try? server.all(Event.self)) ?? []).compactMap(\.regarding?.name)).count >= 40
                }
                await pass(clock) { replica.controller.state.value.figures.eventsWritten >= 40 }
                #expect(replica.controller.state.value.figures.eventsFailed == 3)
            }
        }
    }

    /// What has no room for now is told again: it is not lost, and is not counted as such.
    @Test func whatWaitsIsNotCountedAsDropped() async throws {
        try await withCluster { server in
            try openShop(server)
            for index in 0..<600 {
                try server.apply(ingress("broken\(index)", host: "b\(index).test", service: "missing"))
            }
            let clock = ManualClock()
            try await withReplica(
                of: server, clock: clock,
                { options in
                    lead(&options)
                    options.events.totalPeriod = .seconds(1_000_000)
                }
            ) { replica in
                await pass(clock) { replica.controller.state.value.figures.eventsWritten >= 100 }
                let now = clock.now()
                await pass(clock) { clock.now() - now > .seconds(30) }
                #expect(replica.controller.state.value.figures.eventsDropped == 0)
                // Nobody tells this one again.
                for index in 0..<2 {
                    await replica.controller.tell(
                        .warning, about: .init(kind: "Ingress", namespace: "shop", name: "web"),
                        reason: "ScriptFailed", action: "RunScript", note: "\(index)")
                }
                #expect(replica.controller.state.value.figures.eventsDropped == 2)
            }
        }
    }

    /// What was told by a leader that leads no more is its successor's to tell.
    @Test func whatWaitsIsNotWrittenWithoutTheLeadership() async throws {
        try await withCluster { server in
            try openShop(server)
            try server.apply(ingress("broken", host: "broken.test", service: "missing"))
            server.inject(.init(.status(500), verb: "create", resource: "events", times: .max))
            let clock = ManualClock()
            try await withReplica(of: server, clock: clock, { lead(&$0) }) { replica in
                await pass(clock) { replica.controller.state.value.figures.eventsFailed >= 1 }
                server.deny { $0.resource == "leases" }
                await pass(clock) { !replica.controller.state.value.isLeading }
                server.clearFaults()
                let now = clock.now()
                await clock.run(step: .seconds(1)) { clock.now() - now > .seconds(900) }
                await replica.controller.tell(
                    .warning, about: .init(kind: "Ingress", namespace: "shop", name: "web"), reason: "ScriptFailed",
                    action: "RunScript", note: "told by whoever sees it")
                await pass(clock) { ((try? server.all(Event.self)) ?? []).contains { $0.reason == "ScriptFailed" } }
                let reasons = try server.all(Event.self).map(\.reason)
                #expect(reasons == ["ScriptFailed"])
            }
        }
    }

    @Test(arguments: [403, 422]) func aRefusedStatusIsTriedAgain(code: Int) async throws {
        try await withCluster { server in
            try openShop(server)
            server.inject(.init(.status(code), verb: "patch", resource: "ingresses", times: 2))
            let clock = ManualClock()
            try await withReplica(of: server, clock: clock, { lead(&$0) }) { _ in
                try await server.requests.wait { $0.contains { $0.verb == "patch" } }
                await pass(clock, until: shows(server, [LoadBalancerIngress(ip: "203.0.113.1")]))
                #expect(clock.now() - .seconds(1_000) >= .seconds(120))
            }
        }
    }

    /// `kubectl apply` of an Ingress and its Service in one file: for a moment the Service is missing.
    @Test func whatIsMendedAtOnceIsNoEvent() async throws {
        try await withCluster { server in
            try openShop(server)
            let clock = ManualClock()
            try await withReplica(
                of: server, clock: clock,
                { options in
                    lead(&options)
                    // Longer than the mend takes in steps of 20 ms, however slow the machine is.
                    options.events.settleAfter = .seconds(86_400)
                    // It leads through all of that.
                    options.election = ElectionMachine.Terms(duration: .seconds(100_000_000))
                }
            ) { replica in
                try server.apply(ingress("early", host: "early.test", service: "late"))
                await pass(clock) {
                    replica.controller.state.read { $0.diagnostics }.contains { $0.name == "no-service" }
                }
                try server.apply(service("late"))
                await pass(clock) {
                    !replica.controller.state.read { $0.diagnostics }.contains { $0.name == "no-service" }
                }
                clock.advance(by: .seconds(90_000))
                // One that stays, and is seen later than the first one would have been told.
                try server.apply(ingress("broken", host: "broken.test", service: "missing"))
                await pass(clock) {
                    replica.controller.state.read { $0.diagnostics }.contains { $0.place.object?.name == "broken" }
                }
                await clock.run(step: .seconds(3_600)) {
                    ((try? server.all(Event.self)) ?? []).contains { $0.regarding?.name == "broken" }
                }
                let early = try server.all(Event.self).filter { $0.regarding?.name == "early" }
                #expect(!early.contains { $0.reason == "NoService" })
            }
        }
    }

    /// What happens to a request is told by the replica that it happened to: that there is no election changes nothing.
    @Test func withoutAnElectionWhatHappensHereIsTold() async throws {
        try await withCluster { server in
            try openShop(server)
            try await withReplica(of: server) { replica in
                try await replica.waitForRoutes(["shop.test /"])
                await replica.controller.tell(
                    .warning, about: ObjectReference(kind: "Ingress", namespace: "shop", name: "web"),
                    reason: "ScriptFailed", action: "RunScript", note: "kaputt")
                try await server.writes.wait { _ in
                    (try? server.all(Event.self).contains { $0.reason == "ScriptFailed" }) == true
                }
            }
        }
    }
}
