import Foundation
import Testing

@testable import KubernetesClient

@Suite struct CommandRunTests {
    /// A process whose end somebody else has taken note of may have failed.
    @Test func anEndThatNobodySawIsNoSuccess() {
        #expect(CommandRun.ended(getpid()) == .unknown)
    }
}
