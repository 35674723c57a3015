import Testing

@testable import Proxy

@Suite struct ExchangeMachineTests {
    typealias Event = ExchangeMachine.Event
    typealias Action = ExchangeMachine.Action

    struct Conversation: Sendable, CustomTestStringConvertible {
        let title: String
        let lines: [(Event, [Action])]
        init(_ title: String, _ lines: [(Event, [Action])]) {
            self.title = title
            self.lines = lines
        }
        var testDescription: String { title }
    }

    static let opening: [(Event, [Action])] = [
        (.headReceived(body: false), [.decide]), (.forwardDecided, [.connect]), (.connected, [.sendRequestHead]),
    ]
    static let openingWithBody: [(Event, [Action])] = [
        (.headReceived(body: true), [.decide]), (.forwardDecided, [.connect]), (.connected, [.sendRequestHead]),
    ]

    static let conversations: [Conversation] = [
        Conversation(
            "a GET and its response",
            opening + [
                (.responseHeadReceived, [.sendResponseHead]),
                (.responseEnded(reusable: true), [.endResponse, .releaseUpstream, .finish]),
            ]),
        Conversation(
            "an upstream that wants to be closed",
            opening + [
                (.responseHeadReceived, [.sendResponseHead]),
                (.responseEnded(reusable: false), [.endResponse, .closeUpstream, .finish]),
            ]),
        Conversation(
            "100 Continue, then a body, then the response",
            openingWithBody + [
                (.informationalReceived, [.sendInformational]), (.requestEnded, []),
                (.responseHeadReceived, [.sendResponseHead]),
                (.responseEnded(reusable: true), [.endResponse, .releaseUpstream, .finish]),
            ]),
        Conversation(
            "an early response leaves an upstream that nobody may use",
            openingWithBody + [
                (.responseHeadReceived, [.sendResponseHead]),
                (.responseEnded(reusable: true), [.endResponse, .closeUpstream, .finish]),
            ]),
        Conversation(
            "an upstream that stops reading but answers",
            openingWithBody + [
                (.requestUndeliverable, []), (.requestEnded, []), (.responseHeadReceived, [.sendResponseHead]),
                (.responseEnded(reusable: true), [.endResponse, .closeUpstream, .finish]),
            ]),
        Conversation(
            "an answer of our own",
            [
                (.headReceived(body: true), [.decide]), (.answerDecided, [.answer, .finish]),
            ]),
        Conversation("a head that was refused", [(.failed, [.answer, .finish])]),
        Conversation(
            "connecting twice",
            [
                (.headReceived(body: false), [.decide]), (.forwardDecided, [.connect]),
                (.attemptFailed(retry: true), [.connect]), (.connected, [.sendRequestHead]),
            ]),
        Conversation(
            "connecting in vain",
            [
                (.headReceived(body: false), [.decide]), (.forwardDecided, [.connect]),
                (.attemptFailed(retry: false), [.answer, .finish]),
            ]),
        Conversation(
            "a reused connection that died is tried again",
            opening + [
                (.attemptFailed(retry: true), [.closeUpstream, .connect]), (.connected, [.sendRequestHead]),
                (.responseHeadReceived, [.sendResponseHead]),
            ]),
        Conversation(
            "what may not be tried again is answered",
            openingWithBody + [
                (.attemptFailed(retry: false), [.closeUpstream, .answer, .finish])
            ]),
        Conversation("a time-out before the head", opening + [(.failed, [.closeUpstream, .answer, .finish])]),
        Conversation(
            "a time-out in the middle of a response",
            opening + [
                (.responseHeadReceived, [.sendResponseHead]), (.failed, [.closeUpstream, .breakResponse, .finish]),
            ]),
        Conversation(
            "an upstream that breaks in the middle",
            opening + [
                (.responseHeadReceived, [.sendResponseHead]),
                (.responseBroken, [.closeUpstream, .breakResponse, .finish]),
            ]),
        Conversation(
            "a client that goes while we decide",
            [
                (.headReceived(body: false), [.decide]), (.downstreamBroken, [.finish]),
            ]),
        Conversation(
            "a client that goes while we connect",
            [
                (.headReceived(body: false), [.decide]), (.forwardDecided, [.connect]),
                (.downstreamBroken, [.closeUpstream, .finish]),
            ]),
        Conversation("a client that goes while we wait", opening + [(.downstreamBroken, [.closeUpstream, .finish])]),
        Conversation(
            "a client that goes while we stream",
            opening + [
                (.responseHeadReceived, [.sendResponseHead]), (.downstreamBroken, [.closeUpstream, .finish]),
            ]),
        Conversation(
            "a tunnel that the client ends first",
            opening + [
                (.switched, [.sendResponseHead, .startTunnel]), (.downstreamEnded, [.endUpstreamWrites]),
                (.downstreamEnded, []), (.upstreamEnded, [.closeUpstream, .breakResponse, .finish]),
            ]),
        Conversation(
            "a tunnel that the upstream ends first",
            opening + [
                (.switched, [.sendResponseHead, .startTunnel]), (.upstreamEnded, [.endDownstreamWrites]),
                (.downstreamEnded, [.closeUpstream, .breakResponse, .finish]),
            ]),
        Conversation(
            "a response replaced before its head went out",
            opening + [
                (.responseHeadReceived, [.sendResponseHead]), (.answerDecided, [.closeUpstream, .answer, .finish]),
            ]),
        Conversation(
            "a tunnel without a request",
            [
                (.tunnelAsked, [.connect]), (.attemptFailed(retry: true), [.connect]), (.downstreamEnded, []),
                (.connected, [.startTunnel]), (.upstreamEnded, [.endDownstreamWrites]),
                (.downstreamEnded, [.closeUpstream, .breakResponse, .finish]),
            ]),
        Conversation(
            "a tunnel without an endpoint", [(.tunnelAsked, [.connect]), (.answerDecided, [.breakResponse, .finish])]),
        Conversation(
            "a tunnel whose endpoints all fail",
            [(.tunnelAsked, [.connect]), (.attemptFailed(retry: false), [.breakResponse, .finish])]),
        Conversation(
            "a tunnel whose client goes before it is connected",
            [(.tunnelAsked, [.connect]), (.downstreamBroken, [.closeUpstream, .finish])]),
        Conversation(
            "after the end nothing moves",
            opening + [
                (.downstreamBroken, [.closeUpstream, .finish]), (.responseBroken, []), (.failed, []), (.connected, []),
            ]),
    ]

    @Test func whatOneEndpointWouldNotTakeTheNextOneMay() {
        var machine = ExchangeMachine()
        for event: ExchangeMachine.Event in [
            .headReceived(body: true), .forwardDecided, .connected, .requestUndeliverable, .attemptFailed(retry: true),
            .connected,
        ] { _ = machine.handle(event) }
        #expect(machine.passesRequest && !machine.dropsRequest)
    }

    @Test(arguments: conversations)
    func converses(_ conversation: Conversation) {
        var machine = ExchangeMachine()
        for (event, expected) in conversation.lines {
            #expect(machine.handle(event).all == expected, "\(event)")
        }
        #expect(machine.unexpected == 0)
    }

    static let every: [Event] = [
        .tunnelAsked, .headReceived(body: false), .headReceived(body: true), .forwardDecided, .answerDecided,
        .connected,
        .attemptFailed(retry: false), .attemptFailed(retry: true), .requestEnded, .requestUndeliverable, .failed,
        .informationalReceived, .switched, .responseHeadReceived, .responseEnded(reusable: true),
        .responseEnded(reusable: false), .responseBroken, .downstreamBroken, .downstreamEnded, .upstreamEnded,
    ]

    /// Whatever comes in whatever order: it finishes once at most, answers at most once, never writes a head after
    /// an answer, and never holds or closes an upstream after the end.
    @Test func anyOrderOfEventsKeepsTheRules() {
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<20_000 {
            var machine = ExchangeMachine()
            var finished = 0
            var answered = 0
            var heads = 0
            var afterFinish = 0
            for _ in 0..<12 {
                guard let event = Self.every.randomElement(using: &generator) else { return }
                for action in machine.handle(event).all {
                    if finished > 0 { afterFinish += 1 }
                    switch action {
                    case .finish: finished += 1
                    case .answer: answered += 1
                    case .sendResponseHead: heads += 1
                    case .decide, .connect, .sendRequestHead, .sendInformational, .endResponse, .breakResponse,
                        .releaseUpstream, .closeUpstream, .startTunnel, .endUpstreamWrites, .endDownstreamWrites:
                        break
                    }
                }
            }
            #expect(finished <= 1 && answered <= 1 && heads <= 1 && afterFinish == 0)
            #expect(machine.isFinished == (finished == 1))
        }
    }
}
