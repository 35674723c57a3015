import KubernetesClient
import Testing

@Suite struct BackoffTests {
    @Test func doublesUpToTheLimit() {
        var backoff = Backoff(first: .seconds(1), limit: .seconds(5))
        #expect((0..<5).map { _ in backoff.delay(random: 0) } == [1, 2, 4, 5, 5].map { .seconds($0) })
        backoff.reset()
        #expect(backoff.delay(random: 0) == .seconds(1))
    }

    @Test func jitterTakesUpToHalf() {
        var backoff = Backoff(first: .seconds(1), limit: .seconds(1))
        #expect(backoff.delay(random: 1) == .milliseconds(500))
        #expect(backoff.delay(random: 0.5) == .milliseconds(750))
    }

    @Test func whatTheServerAskedForIsAFloor() {
        var backoff = Backoff(first: .seconds(1), limit: .seconds(60))
        #expect(backoff.delay(atLeast: .seconds(7), random: 0) == .seconds(7))
        #expect(backoff.delay(atLeast: .seconds(7), random: 1) > .seconds(7))
        #expect(backoff.delay(atLeast: .seconds(1), random: 0) == .seconds(4))
        #expect(backoff.delay(atLeast: .seconds(86_400), random: 0) == .seconds(60))
    }
}
