import ClusterTesting
import KubernetesAPI
import KubernetesClient
import Synchronization
import Testing

@Suite(.timeLimit(.minutes(10))) struct CredentialStoreTests {
    @Test func aTokenIsReadAgainAsItRotates() async throws {
        try await inFolder { folder in
            let clock = ManualClock()
            try folder.write("token", "one\n")
            let access = ClusterAccess(server: "https://x", credential: .tokenFile(folder.path("token")))
            let store = CredentialStore(access: access, clock: clock)
            #expect(try await store.current().authorization == "Bearer one")
            try folder.write("token", "two")
            #expect(try await store.current().authorization == "Bearer one")
            clock.advance(by: .seconds(60))
            #expect(try await store.current().authorization == "Bearer two")
            try folder.write("token", "three")
            await store.wasRefused(try await store.current())
            #expect(try await store.current().authorization == "Bearer three")
            // A file that is gone for a moment takes nothing away.
            try folder.remove("token")
            clock.advance(by: .seconds(60))
            #expect(try await store.current().authorization == "Bearer three")
            let three = try await store.current()
            await store.wasRefused(three)
            await #expect(throws: AccessError.self) { try await store.current() }
        }
    }

    @Test func aTokenThatWouldSplitTheHeadIsRefused() async throws {
        try await inFolder { folder in
            try folder.write("token", "a\u{1}b")
            let access = ClusterAccess(server: "https://x", credential: .tokenFile(folder.path("token")))
            await #expect(throws: AccessError.self) {
                try await CredentialStore(access: access, clock: ManualClock()).current()
            }
        }
    }

    @Test func aPluginRunsOnceUntilItsCredentialExpires() async throws {
        let clock = ManualClock()
        let runs = Mutex(0)
        let plugin = ExecPlugin(apiVersion: "client.authentication.k8s.io/v1", command: "x")
        let access = ClusterAccess(server: "https://x", credential: .exec(plugin))
        let store = CredentialStore(access: access, clock: clock) { plugin, _ async throws(AccessError) in
            let run = runs.withLock { count in
                count += 1
                return count
            }
            let expiry = Timestamp(seconds: clock.wallTime().seconds + 60)
            let text =
                #"{"kind":"ExecCredential","apiVersion":"\#(plugin.apiVersion)","status":{"token":"t\#(run)","expirationTimestamp":"\#(expiry)"}}"#
            return try ExecCredential(printed: Array(text.utf8), by: plugin)
        }
        let tokens = try await withThrowingTaskGroup(of: String?.self) { group in
            for _ in 0..<8 { group.addTask { try await store.current().authorization } }
            var tokens: Set<String?> = []
            for try await token in group { tokens.insert(token) }
            return tokens
        }
        #expect(tokens == ["Bearer t1"])
        clock.advance(by: .seconds(49))
        #expect(try await store.current().authorization == "Bearer t1")
        clock.advance(by: .seconds(2))
        #expect(try await store.current().authorization == "Bearer t2")
    }

    /// A store whose plugin prints t1, t2 and so on.
    private func counting(_ clock: ManualClock, _ runs: Watched<Int>) -> CredentialStore {
        let plugin = ExecPlugin(apiVersion: "client.authentication.k8s.io/v1", command: "x")
        let access = ClusterAccess(server: "https://x", credential: .exec(plugin))
        return CredentialStore(access: access, clock: clock) { plugin, _ async throws(AccessError) in
            let run = runs.update { count in
                count += 1
                return count
            }
            let text =
                #"{"kind":"ExecCredential","apiVersion":"\#(plugin.apiVersion)","status":{"token":"t\#(run)"}}"#
            return try ExecCredential(printed: Array(text.utf8), by: plugin)
        }
    }

    @Test func aRefusalConcernsWhatWasRefused() async throws {
        let (clock, runs) = (ManualClock(), Watched(0))
        let store = counting(clock, runs)
        let first = try await store.current()
        clock.advance(by: .seconds(10))
        await store.wasRefused(first)
        let second = try await store.current()
        #expect(second.authorization == "Bearer t2")
        // Others were refused with the first one, too.
        clock.advance(by: .seconds(10))
        for _ in 0..<8 { await store.wasRefused(first) }
        #expect(try await store.current() == second)
        #expect(runs.value == 2)
    }

    @Test func refusalsAreNoStormOfPlugins() async throws {
        let (clock, runs) = (ManualClock(), Watched(0))
        let store = counting(clock, runs)
        for _ in 0..<100 {
            await store.wasRefused(try await store.current())
            clock.advance(by: .milliseconds(100))
        }
        #expect(runs.value == 2)
    }

    /// Whoever is cancelled goes at once; when nobody is left, the plugin is ended.
    @Test func aPluginThatHangsHoldsNobody() async throws {
        let plugin = ExecPlugin(apiVersion: "client.authentication.k8s.io/v1", command: "x")
        let access = ClusterAccess(server: "https://x", credential: .exec(plugin))
        let (runs, ended) = (Watched(0), Watched(0))
        let never = Watched(false)
        let store = CredentialStore(access: access, clock: ManualClock()) { _, _ async throws(AccessError) in
            runs.update { $0 += 1 }
            try? await never.wait { $0 }
            ended.update { $0 += 1 }
            throw AccessError("cancelled", mend: "")
        }
        let tasks = (0..<2).map { _ in Task { try await store.current() } }
        try await runs.wait { $0 >= 1 }
        for task in tasks {
            task.cancel()
            await #expect(throws: AccessError.self) { try await task.value }
        }
        // As many as there were: who comes while the first is ended begins another.
        try await ended.wait { $0 >= 1 && $0 == runs.value }
    }

    @Test func basic() async throws {
        let access = ClusterAccess(server: "https://x", credential: .basic(user: "u", password: "p"))
        #expect(try await CredentialStore(access: access, clock: ManualClock()).current().authorization == "Basic dTpw")
    }
}
