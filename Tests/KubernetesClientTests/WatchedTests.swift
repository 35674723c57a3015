import KubernetesClient
import Testing

@Suite(.timeLimit(.minutes(10))) struct WatchedTests {
    @Test func wakesWhoWaitsForIt() async throws {
        let watched = Watched(0)
        try await watched.wait { $0 == 0 }
        async let three: Void = watched.wait { $0 == 3 }
        async let two: Void = watched.wait { $0 >= 2 }
        for _ in 0..<3 { watched.update { $0 += 1 } }
        _ = try await (three, two)
    }

    @Test func aCancelledWaitEnds() async throws {
        let watched = Watched(0)
        for _ in 0..<100 {
            let task = Task { try await watched.wait { $0 == 1 } }
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
        }
        watched.update { $0 = 1 }
        try await watched.wait { $0 == 1 }
    }

    @Test func manyWritersAndManyWaiters() async throws {
        let watched = Watched(0)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for goal in 1...200 { group.addTask { try await watched.wait { $0 >= goal } } }
            for _ in 0..<200 { group.addTask { watched.update { $0 += 1 } } }
            try await group.waitForAll()
        }
    }
}
