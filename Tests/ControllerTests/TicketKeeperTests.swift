import ClusterTesting
import KubernetesAPI
import KubernetesClient
import Synchronization
import Testing

@testable import Controller

@Suite(.timeLimit(.minutes(10))) struct TicketKeeperTests {
    private static let name = ObjectName(namespace: "edge", name: "tickets")

    private func keys(_ server: APIServer) throws -> [[UInt8]] {
        let bytes =
            try server.get(Secret.self, namespace: "edge", name: "tickets")?.bytes(TicketKeeper.entry) ?? []
        return stride(from: 0, to: bytes.count, by: 80).map { Array(bytes[$0..<min($0 + 80, bytes.count)]) }
    }

    /// A keeper at work, on time that the test moves.
    private func withKeeper(_ body: (APIServer, ManualClock) async throws -> Void) async throws {
        try await withCluster { server in
            try server.addNamespace("edge")
            let clock = ManualClock()
            let client = APIClient(access: ClusterAccess(server: server.url), clock: clock, log: quiet)
            let keeper = TicketKeeper(secret: Self.name, client: client, clock: clock, log: quiet)
            let task = Task { await keeper.run() }
            do {
                try await body(server, clock)
            } catch {
                Issue.record("\(error)")
            }
            task.cancel()
            await task.value
            await client.shutdown()
        }
    }

    @Test func itMakesKeysAndChangesThem() async throws {
        try await withKeeper { server, clock in
            await clock.run(step: .seconds(1)) { (try? keys(server).count) == 1 }
            var before = try keys(server)
            for count in [2, 3, 4, 4] {
                let known = before
                await clock.run(step: .seconds(60)) { (try? keys(server)).map { $0 != known } ?? false }
                let now = try keys(server)
                #expect(now.count == count && Array(now.dropFirst()) == Array(before.prefix(3)))
                #expect(now.allSatisfy { $0.count == 80 } && Set(now.map { $0.prefix(16) }).count == count)
                before = now
            }
        }
    }

    @Test func itMendsItsOwnAndLeavesOthersAlone() async throws {
        try await withKeeper { server, clock in
            await clock.run(step: .seconds(1)) { (try? keys(server).count) == 1 }
            let first = try keys(server)
            var secret = try #require(try server.get(Secret.self, namespace: "edge", name: "tickets"))
            secret.data[TicketKeeper.entry] = Base64([1, 2, 3])
            try server.apply(secret)
            // Long before its time: nobody could read them.
            await clock.run(step: .seconds(60)) { (try? keys(server)).map { $0.first?.count == 80 } ?? false }
            let mended = try keys(server)
            #expect(mended.count == 1 && mended != first)
            // Without our mark it is somebody else's.
            secret = try #require(try server.get(Secret.self, namespace: "edge", name: "tickets"))
            secret.metadata.annotations = [:]
            secret.data[TicketKeeper.entry] = Base64([1, 2, 3])
            try server.apply(secret)
            let slept = clock.sleeps.count
            await clock.run(step: .seconds(600)) { clock.sleeps.count > slept + 50 }
            #expect(try keys(server) == [[1, 2, 3]])
        }
    }
}
