import ClusterTesting
import KubernetesAPI
import KubernetesClient
import Testing

@Suite(.timeLimit(.minutes(10))) struct EventRecorderTests {
    private func note(_ text: String, name: String = "web", namespace: String = "shop") -> EventNote {
        EventNote(
            .warning, apiVersion: namespace.isEmpty ? IngressClass.apiVersion : Ingress.apiVersion,
            objectKind: namespace.isEmpty ? "IngressClass" : "Ingress",
            object: ObjectName(namespace: namespace, name: name), uid: "u1", reason: "NoService", action: "Translate",
            note: text)
    }

    private func record(_ body: (APIServer, EventRecorder, ManualClock) async throws -> Void) async throws {
        let clock = ManualClock()
        try await withServer(clock: clock) { server, client in
            try server.apply(configMap("a"))
            let recorder = EventRecorder(
                client: client, controller: "moongate.dev/ingress-controller", instance: "pod-1", clock: clock,
                log: quiet)
            try await beside({ await recorder.run() }) { try await body(server, recorder, clock) }
        }
    }

    @Test func anEventOnTheObject() async throws {
        try await record { server, recorder, _ in
            await recorder.tell(note("there is no Service"))
            await recorder.tell(note("a class", name: "moongate", namespace: ""))
            try await server.requests.wait { $0.filter { $0.verb == "create" }.count == 2 }
            await recorder.tell(note("more"))
            try await server.requests.wait { $0.filter { $0.verb == "create" }.count == 3 }
            let events = try server.all(Event.self)
            let event = try #require(events.first { $0.regarding?.kind == "Ingress" })
            #expect(event.regarding?.name == "web")
            #expect(event.regarding?.uid == "u1")
            #expect(event.type == "Warning")
            #expect(event.note == "there is no Service")
            #expect(event.reportingController == "moongate.dev/ingress-controller")
            #expect(event.metadata.namespace == "shop")
            #expect(event.metadata.name.hasPrefix("web."))
            #expect(events.contains { $0.metadata.namespace == "default" && $0.regarding?.kind == "IngressClass" })
        }
    }

    @Test func whatLastsBecomesASeries() async throws {
        try await record { server, recorder, clock in
            await recorder.tell(note("a"))
            try await server.requests.wait { $0.contains { $0.verb == "create" } }
            for _ in 0..<5 { await recorder.tell(note("a")) }
            // When this one is there, those before it were taken up.
            await recorder.tell(note("mark"))
            try await server.requests.wait { $0.filter { $0.verb == "create" }.count == 2 }
            clock.advance(by: .seconds(1_800))
            await recorder.tell(note("a"))
            try await server.requests.wait { $0.contains { $0.verb == "patch" } }
            await recorder.tell(note("b"))
            try await server.requests.wait { $0.filter { $0.verb == "create" }.count == 3 }
            let event = try #require(try server.all(Event.self).first { $0.note == "a" })
            #expect(event.series?.count == 7)
        }
    }

    @Test func anEventThatExpiredIsMadeAnew() async throws {
        try await record { server, recorder, clock in
            await recorder.tell(note("a"))
            try await server.requests.wait { $0.contains { $0.verb == "create" } }
            await recorder.tell(note("b"))
            try await server.requests.wait { $0.filter { $0.verb == "create" }.count == 2 }
            let first = try #require(try server.all(Event.self).first { $0.note == "a" })
            try server.delete(Event.self, namespace: "shop", name: first.metadata.name)
            clock.advance(by: .seconds(1_800))
            await recorder.tell(note("a"))
            try await server.requests.wait { $0.filter { $0.verb == "create" }.count == 3 }
        }
    }

    @Test func aServerThatTakesNoEventsHoldsNothingUp() async throws {
        try await record { server, recorder, _ in
            server.inject(.init(.status(500), resource: "events", times: 1))
            await recorder.tell(note("a"))
            await recorder.tell(note("a"))
            try await server.requests.wait { $0.filter { $0.verb == "create" }.count == 2 }
        }
    }
}
