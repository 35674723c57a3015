import Testing

@testable import Proxy

@Suite struct UpstreamMachineTests {
    typealias Event = UpstreamMachine.Event
    typealias Action = UpstreamMachine.Action

    static let conversations: [[(Event, [Action])]] = [
        [
            (.connected, [.reportConnected]), (.bytesArrived, [.read]), (.released, [.pool]), (.leased, []),
            (.released, [.pool]), (.timedOut, [.unpool, .close]), (.leased, []),
        ],
        [
            (.established, [.shakeHands]), (.connected, [.reportConnected]), (.released, [.pool]), (.leased, []),
            (.discarded, [.close]),
        ],
        [(.established, [.shakeHands]), (.failed, [.close, .reportFailed])],
        [(.established, [.shakeHands]), (.ended, [.close, .reportFailed])],
        [(.established, [.shakeHands]), (.timedOut, [.close, .reportHandshakeTimeout])],
        [(.established, [.shakeHands]), (.discarded, [.close])],
        [(.failed, [.close, .reportFailed]), (.ended, [])],
        [(.ended, [.close, .reportFailed])],
        [(.timedOut, [.close, .reportTimeout])],
        [(.discarded, [.close])],
        [(.connected, [.reportConnected]), (.ended, [.reportEnded]), (.discarded, [.close])],
        [(.connected, [.reportConnected]), (.released, [.pool]), (.bytesArrived, [.unpool, .close])],
        [(.connected, [.reportConnected]), (.released, [.pool]), (.ended, [.unpool, .close])],
    ]

    @Test(arguments: conversations.indices)
    func converses(_ index: Int) {
        var machine = UpstreamMachine()
        for (event, expected) in Self.conversations[index] {
            #expect(machine.handle(event).all == expected, "\(event)")
        }
        #expect(machine.unexpected == 0)
    }

    @Test func knowsWhetherItWasUsedBefore() {
        var machine = UpstreamMachine()
        _ = machine.handle(.connected)
        #expect(!machine.isReused)
        _ = machine.handle(.released)
        _ = machine.handle(.leased)
        #expect(machine.isReused)
    }
}
