import ClusterTesting
import KubernetesAPI
import KubernetesClient
import Logging
import Testing

@Suite(.timeLimit(.minutes(10))) struct LeaderElectionTests {
    private static let lease = ObjectName(namespace: "default", name: "moongate")

    private func election(
        _ identity: String, _ client: APIClient, _ clock: ManualClock, releaseLimit: Duration = .seconds(60)
    ) -> LeaderElection {
        LeaderElection(
            client: client, lease: Self.lease, identity: identity, clock: clock, log: quiet, releaseLimit: releaseLimit)
    }

    /// Lets time pass, a little at a time, and lets everybody act on it, until the condition holds.
    private func pass(_ clock: ManualClock, until isMet: @escaping @Sendable () -> Bool) async {
        await clock.run(step: .milliseconds(50), until: isMet)
    }

    @Test func oneOfTwoLeadsAndTheOtherTakesOver() async throws {
        let clock = ManualClock()
        try await withServer(clock: clock) { server, client in
            let a = election("a", client, clock)
            let b = election("b", client, clock)
            let first = Task { await a.run() }
            try await a.waitUntilLeading()
            try await beside({ await b.run() }) {
                await pass(clock) { b.holder == "a" }
                #expect(!b.isLeading)
                // Killed: nothing is given back.
                server.deny { $0.verb == "update" }
                first.cancel()
                await first.value
                server.deny { _ in false }
                await pass(clock) { b.isLeading }
                let lease = try server.get(Lease.self, namespace: "default", name: "moongate")
                #expect(lease?.spec.holderIdentity == "b")
                #expect(!a.isLeading)
            }
        }
    }

    @Test func aLeaseGivenBackIsFree() async throws {
        let clock = ManualClock()
        try await withServer(clock: clock) { server, client in
            let a = election("a", client, clock)
            try await beside({ await a.run() }) { try await a.waitUntilLeading() }
            let lease = try server.get(Lease.self, namespace: "default", name: "moongate")
            #expect(lease?.spec.holderIdentity == nil)
            #expect(lease?.spec.leaseTransitions == 0)
            // Taken at once, without waiting for it to run out.
            let b = election("b", client, clock)
            try await beside({ await b.run() }) {
                try await b.waitUntilLeading()
                #expect(clock.now() == .seconds(1_000))
            }
        }
    }

    @Test func aLeaderThatCannotRenewStops() async throws {
        let clock = ManualClock()
        try await withServer(clock: clock) { server, client in
            let a = election("a", client, clock)
            try await beside({ await a.run() }) {
                try await a.waitUntilLeading()
                server.inject(.init(.status(500), resource: "leases", times: 1_000_000))
                await pass(clock) { !a.isLeading }
                #expect(clock.now() - .seconds(1_000) >= .seconds(10))
            }
        }
    }

    /// Whoever ends does not wait for a server that says nothing.
    @Test(arguments: [false, true]) func aSilentServerHoldsNobody(isAbandoned: Bool) async throws {
        let clock = ManualClock()
        try await withServer(clock: clock) { server, client in
            let a = election("a", client, clock, releaseLimit: .seconds(isAbandoned ? 60 : 2))
            let task = Task { await a.run() }
            try await a.waitUntilLeading()
            server.inject(.init(.silence, resource: "leases", times: .max))
            let began = ContinuousClock.now
            if isAbandoned { a.abandon() }
            task.cancel()
            await task.value
            // The limit of a request is 30 seconds.
            #expect(ContinuousClock.now - began < .seconds(20))
        }
    }

    @Test func aTroubleIsSaidOnce() async throws {
        let clock = ManualClock()
        try await withServer(clock: clock) { server, client in
            let lines = Watched([String]())
            let log = Logger(label: "test") { _ in LineHandler(lines: lines) }
            let a = LeaderElection(client: client, lease: Self.lease, identity: "a", clock: clock, log: log)
            try await beside({ await a.run() }) {
                try await a.waitUntilLeading()
                server.inject(.init(.status(500), resource: "leases", times: 8))
                await pass(clock) { lines.value.contains { $0.contains("again") } }
                #expect(lines.value.count { $0.contains("can't be read or written") } == 1)
            }
        }
    }

    @Test func somebodyElseWasFaster() async throws {
        let clock = ManualClock()
        try await withServer(clock: clock) { server, client in
            let a = election("a", client, clock)
            try await beside({ await a.run() }) {
                try await a.waitUntilLeading()
                // Another writes over it, by force.
                var lease = try #require(try server.get(Lease.self, namespace: "default", name: "moongate"))
                lease.spec.holderIdentity = "b"
                try server.apply(lease)
                await pass(clock) { !a.isLeading && a.holder == "b" }
            }
        }
    }
}
