import ClusterTesting
import IngressTranslation
import KubernetesAPI
import KubernetesClient
import Model
import Testing

@testable import Controller

@Suite(.timeLimit(.minutes(10))) struct TicketKeeperTests {
    private static let name = ObjectName(namespace: "moongate", name: "tickets")

    private func keys(_ server: APIServer) throws -> [UInt8] {
        try server.get(Secret.self, namespace: Self.name.namespace, name: Self.name.name)?
            .bytes(TicketKeeper.entry) ?? []
    }

    /// What a replica's loops have been given.
    private static func served(_ replica: Replica) -> [UInt8]? {
        replica.published.value.last?.snapshot.ticketKeys?.keys
    }

    private func lead(_ options: inout ControllerOptions, _ identity: String) {
        options.lease = ObjectName(namespace: "moongate", name: "leader")
        options.identity = identity
        options.translation.ticketKeys = Self.name
        options.extra.secrets.insert(Self.name)
    }

    @Test func `the leader makes a key and changes it, and every replica has it served`() async throws {
        try await withCluster { server in
            let clock = ManualClock()
            try await withReplica(of: server, clock: clock, { lead(&$0, "a") }) { a in
                try await withReplica(of: server, clock: clock, { lead(&$0, "b") }) { b in
                    await clock.run(step: .milliseconds(20)) { (try? keys(server).count) == 80 }
                    let first = try keys(server)
                    await clock.run(step: .milliseconds(20)) { Self.served(a) == first && Self.served(b) == first }
                    // Four hours later another stands before it; after four more the oldest goes.
                    await clock.run(step: .seconds(60)) { (try? keys(server).count) == 160 }
                    let second = try keys(server)
                    #expect(Array(second.suffix(80)) == first)
                    await clock.run(step: .milliseconds(20)) { Self.served(a) == second && Self.served(b) == second }
                    await clock.run(step: .seconds(60)) { (try? keys(server).suffix(80).elementsEqual(first)) == false }
                    let last = try keys(server)
                    #expect(last.count == 320)
                }
            }
        }
    }

    @Test func `a Secret of somebody else is left as it is`() async throws {
        try await withCluster { server in
            var secret = Secret(metadata: ObjectMeta(name: Self.name.name, namespace: Self.name.namespace))
            secret.data[TicketKeeper.entry] = Base64([1, 2, 3])
            try server.apply(secret)
            let clock = ManualClock()
            try await withReplica(of: server, clock: clock, { lead(&$0, "a") }) { replica in
                let start = clock.now()
                await clock.run(step: .seconds(60)) { clock.now() - start > .seconds(6 * 3600) }
                #expect(replica.controller.state.value.isLeading)
                let left = try keys(server)
                #expect(left == [1, 2, 3])
            }
        }
    }
}
