import Testing

@testable import Proxy

@Suite struct DrainMachineTests {
    typealias Event = DrainMachine.Event
    typealias Action = DrainMachine.Action

    static let conversations: [[(Event, [Action])]] = [
        [
            (.ticked(now: 5), []), (.emptied, []),
            (.drainRequested(now: 1_000, delay: 500, timeout: 9_000), [.answerWithClose]), (.emptied, []),
            (.ticked(now: 1_499), []), (.ticked(now: 1_500), [.stopAccepting, .closeIdle]),
            (.ticked(now: 2_000), []), (.emptied, [.stop]), (.ticked(now: 99_000), []),
        ],
        [
            (.drainRequested(now: 0, delay: 0, timeout: 100), [.answerWithClose, .stopAccepting, .closeIdle]),
            (.ticked(now: 99), []), (.ticked(now: 100), [.closeAll, .stop]),
        ],
        [
            (.drainRequested(now: 0, delay: 10, timeout: 100), [.answerWithClose]),
            (.drainRequested(now: 1, delay: 10, timeout: 100), [.stopAccepting, .closeAll, .stop]),
        ],
        [
            (.drainRequested(now: 0, delay: 0, timeout: 100), [.answerWithClose, .stopAccepting, .closeIdle]),
            (.drainRequested(now: 1, delay: 0, timeout: 100), [.closeAll, .stop]),
        ],
    ]

    @Test(arguments: conversations.indices)
    func converses(_ index: Int) {
        var machine = DrainMachine()
        for (event, expected) in Self.conversations[index] {
            #expect(machine.handle(event).all == expected, "\(event)")
        }
    }
}
