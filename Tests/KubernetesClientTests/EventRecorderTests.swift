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
        try await recording { server, recorder, clock, _ in try await body(server, recorder, clock) }
    }

    /// With how many were written.
    private func recording(
        _ body: (APIServer, EventRecorder, ManualClock, Watched<Int>) async throws -> Void
    ) async throws {
        let clock = ManualClock()
        try await withServer(clock: clock) { server, client in
            try server.apply(configMap("a"))
            let written = Watched(0)
            let recorder = EventRecorder(
                client: client, controller: "moongate.dev/ingress-controller", instance: "pod-1", clock: clock,
                log: quiet
            ) { outcome in
                if case .written = outcome { written.update { $0 += 1 } }
            }
            try await beside({ await recorder.run() }) { try await body(server, recorder, clock, written) }
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

    private func creates(_ server: APIServer) -> Int { server.requests.value.count { $0.verb == "create" } }

    /// One that fails is written later; the others do not wait for it.
    @Test func whatCannotBeWrittenIsWrittenLater() async throws {
        try await record { server, recorder, clock in
            server.inject(.init(.status(500), resource: "events", times: 2))
            await recorder.tell(note("a"))
            try await server.requests.wait { $0.count { $0.verb == "create" } == 1 }
            await recorder.tell(note("b"))
            await clock.run(step: .milliseconds(100)) { ((try? server.all(Event.self)) ?? []).count == 2 }
            #expect(creates(server) == 4)
        }
    }

    /// More than may be written at once: none is lost, and the oldest goes first.
    @Test func whatIsOverTheLimitIsWrittenLater() async throws {
        try await recording { server, recorder, clock, written in
            for index in 0..<150 { await recorder.tell(note("a", name: "web\(index)")) }
            try await written.wait { $0 == 100 }
            #expect(try server.all(Event.self).count == 100)
            await clock.run(step: .milliseconds(100)) { written.value == 150 }
            #expect(clock.now() - .seconds(1_000) >= .seconds(10))
            let names = try server.all(Event.self).compactMap(\.regarding?.name)
            #expect(Set(names).count == 150)
        }
    }

    @Test func whatIsNoLongerSoIsNotWritten() async throws {
        try await record { server, recorder, clock in
            server.inject(.init(.status(500), resource: "events", times: 1))
            await recorder.tell(note("a"))
            try await server.requests.wait { $0.contains { $0.verb == "create" } }
            await recorder.withdraw(note("a"))
            clock.advance(by: .seconds(2))
            await recorder.tell(note("b"))
            await clock.run(step: .seconds(1)) { clock.now() > .seconds(1_030) }
            await clock.run(step: .milliseconds(100)) { ((try? server.all(Event.self)) ?? []).count == 1 }
            #expect(try server.all(Event.self).map(\.note) == ["b"])
        }
    }

    /// When no more may be written, nothing is looked through until something may: not one note, and not the others.
    @Test func whatWaitsForRoomCostsNothing() async throws {
        try await recording { _, recorder, clock, written in
            for index in 0..<500 { await recorder.tell(note("a", name: "web\(index)")) }
            try await written.wait { $0 == 100 }
            // One sleep for each time that it looks: the next write may be in 200 ms.
            try await clock.sleeping.wait { $0.now == 1 }
            let sleeps = clock.sleeps.count
            #expect(clock.sleeps.last == .milliseconds(200))
            for _ in 0..<10 {
                let before = (written.value, clock.sleeping.value.total)
                clock.advance(by: .milliseconds(200))
                try await written.wait { $0 == before.0 + 1 }
                try await clock.sleeping.wait { $0.total == before.1 + 1 }
            }
            #expect(clock.sleeps.count == sleeps + 10)
        }
    }

    /// However much one namespace has to tell, the next write is another's.
    @Test func namespacesTakeTurns() async throws {
        try await recording { server, recorder, clock, written in
            for namespace in ["greedy", "b", "c"] { try server.apply(configMap("a", namespace: namespace)) }
            for index in 0..<100 { await recorder.tell(note("a", name: "web\(index)", namespace: "greedy")) }
            try await written.wait { $0 == 100 }
            for index in 100..<600 { await recorder.tell(note("a", name: "web\(index)", namespace: "greedy")) }
            for name in ["x", "y"] { await recorder.tell(note("a", name: name, namespace: "b")) }
            await recorder.tell(note("a", name: "z", namespace: "c"))
            await clock.run(step: .milliseconds(100)) { written.value >= 106 }
            let events = try server.all(Event.self).compactMap(\.metadata.namespace)
            #expect(events.count(where: { $0 == "b" }) == 2)
            #expect(events.count(where: { $0 == "c" }) == 1)
        }
    }

    /// Whatever else is withdrawn while a note is on its way to a server that will not have it.
    @Test func whatIsWithdrawnWhileItIsWrittenIsNotWrittenAgain() async throws {
        try await recording { server, recorder, clock, written in
            let isDue = Watched(false)
            server.inject(.init(.lateStatus(500, isDue), resource: "events", times: 1))
            await recorder.tell(note("a"))
            try await server.requests.wait { $0.contains { $0.verb == "create" } }
            // Told again meanwhile, so that it waits as well.
            await recorder.tell(note("a"))
            await recorder.withdraw(note("a"))
            await recorder.withdraw(note("other"))
            isDue.update { $0 = true }
            await recorder.tell(note("b"))
            await clock.run(step: .milliseconds(100)) { written.value == 1 }
            let now = clock.now()
            await clock.run(step: .milliseconds(100)) { clock.now() > now + .seconds(30) }
            #expect(try server.all(Event.self).map(\.note) == ["b"])
        }
    }

    @Test func thereIsABound() async throws {
        let clock = ManualClock()
        try await withServer(clock: clock) { _, client in
            let recorder = EventRecorder(
                client: client, controller: "c", instance: "i", clock: clock, log: quiet)
            var taken = 0
            for index in 0..<60 where await recorder.tell(note("\(index)")) { taken += 1 }
            #expect(taken == 50)
            for index in 0..<600 where await recorder.tell(note("a", name: "web\(index)")) { taken += 1 }
            #expect(taken == 500)
            for index in 0..<3_000
            where await recorder.tell(
                note("a", name: "web\(index)", namespace: "n\(index % 4)"))
            {
                taken += 1
            }
            #expect(taken == 2_000)
            // Who comes late, and has little to say.
            for index in 0..<9 where await recorder.tell(note("\(index)", namespace: "late")) { taken += 1 }
            #expect(taken == 2_004)
        }
    }
}
