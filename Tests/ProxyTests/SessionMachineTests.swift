import Testing

@testable import Proxy

@Suite struct SessionMachineTests {
    typealias Event = SessionMachine.Event
    typealias Action = SessionMachine.Action

    private static let bound: [(Event, [Action])] = [(.clientSent(1), [.choose]), (.endpointChosen, [.forward])]
    private static let answering: [(Event, [Action])] = bound + [(.endpointSent(1), [.reportAnswering, .deliver])]

    /// With any number of answers.
    static let conversations: [[(Event, [Action])]] = [
        answering + [
            (.clientSent(2), [.forward]), (.endpointSent(9), [.deliver]), (.endpointChosen, []),
            (.stoodStill, [.release, .end]), (.clientSent(1), []), (.endpointSent(1), []), (.portClosed, []),
        ],
        // Nobody was ever found: nothing is kept of it.
        [(.clientSent(1), [.choose]), (.endpointMissing, [.drop, .end]), (.stoodStill, [])],
        // Somebody was, and may be again.
        bound + [
            (.endpointFailed, [.reportFailed]), (.endpointSent(1), []), (.endpointFailed, []),
            (.clientSent(1), [.choose]), (.endpointMissing, [.drop]), (.clientSent(0), [.choose]),
            (.endpointChosen, [.forward]), (.endpointSent(1), [.reportAnswering, .deliver]),
        ],
        answering + [(.endpointFailed, [.reportFailed]), (.clientSent(1), [.choose]), (.stoodStill, [.end])],
        // What the endpoint still says is passed on; the next datagram is another's.
        answering + [
            (.endpointLeft, []), (.endpointLeft, []), (.endpointSent(1), [.deliver]),
            (.clientSent(1), [.release, .choose]), (.endpointChosen, [.forward]),
        ],
        bound + [(.endpointLeft, []), (.stoodStill, [.release, .end])],
        bound + [(.endpointLeft, []), (.endpointFailed, [.reportFailed])],
        answering + [(.rerouted, [.release]), (.rerouted, []), (.clientSent(1), [.choose])],
        bound + [(.rerouted, [.release]), (.portClosed, [.end])],
        answering + [(.portClosed, [.release, .end])],
        [(.portClosed, [.end])],
    ]

    @Test(arguments: conversations.indices)
    func converses(_ index: Int) {
        var machine = SessionMachine()
        for (event, expected) in Self.conversations[index] {
            #expect(machine.handle(event).all == expected, "\(event)")
        }
    }

    /// Asked so often, with so many answers wanted to each: after how many is it over?
    @Test(arguments: [(1, 1, 1), (3, 1, 3), (1, 2, 2), (2, 3, 6), (2, 0, nil)] as [(Int, UInt64, Int?)])
    func lastAnswerEndsIt(_ asked: Int, _ wanted: UInt64, _ last: Int?) {
        var machine = SessionMachine(answersWanted: wanted)
        _ = machine.handle(.clientSent(asked))
        _ = machine.handle(.endpointChosen)
        var count = 0
        while !machine.isOver, count < 10 {
            count += 1
            let actions = machine.handle(.endpointSent(1)).all
            #expect(actions.contains(.end) == (count == last))
        }
        #expect(machine.isOver == (last != nil))
    }

    // MARK: Shares

    /// How many sessions a service gets.
    private func fill(_ shares: inout SessionShares, _ port: UInt16) -> Int {
        var count = 0
        while count < 200, shares.enter(port) { count += 1 }
        return count
    }

    @Test func floodOfOneServiceLeavesTheOthersTheirPart() {
        var shares = SessionShares(most: 100)
        shares.setServices(2)
        #expect(shares.reserved == 25)
        var got = [fill(&shares, 53), fill(&shares, 123)]
        #expect(shares.count == 100)
        // What one gives back of its own part is its own; what it gives back of the rest is everybody's.
        for _ in 0..<10 { shares.leave(123) }
        got.append(fill(&shares, 53))
        for _ in 0..<10 { shares.leave(53) }
        got += [fill(&shares, 123), fill(&shares, 53)]
        #expect(got == [75, 25, 0, 20, 0])
        #expect(shares.count == 100)
    }

    @Test func oneServiceAloneHasAll() {
        var shares = SessionShares(most: 7)
        shares.setServices(1)
        var got = [fill(&shares, 53)]
        shares.leave(53)
        got.append(fill(&shares, 53))
        #expect(got == [7, 1])
    }

    /// Never more than there may be, and nothing is lost, whatever comes and goes.
    @Test func countsStayRight() {
        var numbers = RandomNumbers(seed: 3)
        var shares = SessionShares(most: 40)
        var held: [UInt16: Int] = [:]
        for _ in 0..<20_000 {
            let port = UInt16(numbers.next() % 5)
            switch numbers.next() % 20 {
            case 0: shares.setServices(Int(numbers.next() % 6))
            case 1...11: if shares.enter(port) { held[port, default: 0] += 1 }
            default:
                if let count = held[port], count > 0 {
                    held[port] = count - 1
                    shares.leave(port)
                }
            }
            #expect(shares.count == held.values.reduce(0, +))
            #expect(shares.count <= 40)
        }
        for (port, count) in held { for _ in 0..<count { shares.leave(port) } }
        shares.setServices(5)
        let all = (UInt16(0)..<5).reduce(0) { $0 + fill(&shares, $1) }
        #expect(all == 40)
    }
}
