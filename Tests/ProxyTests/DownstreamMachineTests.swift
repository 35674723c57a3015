import Testing

@testable import Proxy

@Suite struct DownstreamMachineTests {
    typealias Event = DownstreamMachine.Event
    typealias Action = DownstreamMachine.Action

    struct Conversation: Sendable, CustomTestStringConvertible {
        let title: String
        let lines: [(Event, [Action])]
        init(_ title: String, _ lines: [(Event, [Action])]) {
            self.title = title
            self.lines = lines
        }
        var testDescription: String { title }
    }

    static let conversations: [Conversation] = [
        Conversation(
            "two requests on one connection",
            [
                (.headAdmitted(body: false, persistent: true), []), (.responseEnded(persistent: true), [.awaitRequest]),
                (.headAdmitted(body: false, persistent: true), []), (.responseEnded(persistent: true), [.awaitRequest]),
            ]),
        Conversation(
            "a head in pieces",
            [
                (.bytesArrived, [.awaitHead]), (.bytesArrived, []), (.headAdmitted(body: true, persistent: true), []),
                (.requestEnded, []), (.responseEnded(persistent: true), [.awaitRequest]),
            ]),
        Conversation(
            "a head that never ends",
            [
                (.bytesArrived, [.awaitHead]), (.timedOut, [.answerTimeout]),
                (.responseEnded(persistent: false), [.closeWhenFlushed]), (.flushed, [.linger]), (.timedOut, [.close]),
            ]),
        Conversation("idle for too long", [(.timedOut, [.close])]),
        Conversation(
            "the client wants it closed",
            [
                (.headAdmitted(body: false, persistent: false), []),
                (.responseEnded(persistent: true), [.closeWhenFlushed]), (.flushed, [.close]),
            ]),
        Conversation(
            "the response ends with the connection",
            [
                (.headAdmitted(body: false, persistent: true), []),
                (.responseEnded(persistent: false), [.closeWhenFlushed]), (.flushed, [.close]),
            ]),
        Conversation(
            "a small unread body is dropped, and the connection kept",
            [
                (.headAdmitted(body: true, persistent: true), []), (.responseEnded(persistent: true), [.dropRequest]),
                (.dropped(1_000), []), (.requestEnded, [.awaitRequest]),
            ]),
        Conversation(
            "a large unread body costs the connection",
            [
                (.headAdmitted(body: true, persistent: true), []), (.responseEnded(persistent: true), [.dropRequest]),
                (.dropped(DownstreamMachine.dropLimit), []), (.dropped(1), [.closeWhenFlushed]), (.flushed, [.linger]),
                (.peerEnded, [.close]),
            ]),
        Conversation(
            "no request",
            [
                (.headRefused, []), (.responseEnded(persistent: true), [.closeWhenFlushed]), (.flushed, [.linger]),
                (.dropped(10), []), (.peerEnded, [.close]),
            ]),
        Conversation(
            "a half-closed client still gets its response",
            [
                (.headAdmitted(body: false, persistent: true), []), (.peerEnded, []),
                (.responseEnded(persistent: true), [.closeWhenFlushed]), (.flushed, [.close]),
            ]),
        Conversation(
            "a client that ends in the middle of its body",
            [
                (.headAdmitted(body: true, persistent: true), []), (.peerEnded, [.breakExchange, .close]),
            ]),
        Conversation(
            "a response that broke",
            [
                (.headAdmitted(body: false, persistent: true), []), (.responseBroken, [.abort]),
            ]),
        Conversation(
            "a reset in the middle",
            [
                (.headAdmitted(body: false, persistent: true), []), (.broken, [.breakExchange, .abort]), (.flushed, []),
            ]),
        Conversation("draining while idle", [(.drainBegan, [.close])]),
        Conversation(
            "draining while serving",
            [
                (.headAdmitted(body: false, persistent: true), []), (.drainBegan, []),
                (.responseEnded(persistent: true), [.closeWhenFlushed]), (.flushed, [.close]),
            ]),
        Conversation(
            "a tunnel",
            [
                (.headAdmitted(body: false, persistent: true), []), (.switched, []), (.peerEnded, []),
                (.responseBroken, [.closeWhenFlushed]), (.flushed, [.close]),
            ]),
        Conversation(
            "a client that does not take its last bytes",
            [
                (.headAdmitted(body: false, persistent: false), []),
                (.responseEnded(persistent: true), [.closeWhenFlushed]), (.timedOut, [.abort]),
            ]),
        Conversation(
            "a connection that carries streams, to its end",
            [
                (.bytesArrived, [.awaitHead]), (.multiplexed, []), (.flushed, []), (.drainBegan, [.announceEnd]),
                (.timedOut, [.endSession]), (.sessionEnded, [.breakStreams, .closeWhenFlushed]), (.flushed, [.linger]),
                (.peerEnded, [.close]),
            ]),
        Conversation(
            "a client of many streams that goes", [(.multiplexed, []), (.peerEnded, [.breakStreams, .close])]),
        Conversation(
            "a client of many streams that breaks", [(.multiplexed, []), (.broken, [.breakStreams, .abort])]),
    ]

    @Test(arguments: conversations)
    func converses(_ conversation: Conversation) {
        var machine = DownstreamMachine()
        for (event, expected) in conversation.lines {
            #expect(machine.handle(event).all == expected, "\(event)")
        }
        #expect(machine.unexpected == 0)
    }

    @Test func promisesToStayOnlyWhenItWill() {
        var machine = DownstreamMachine()
        #expect(!machine.mayPersist)
        _ = machine.handle(.headAdmitted(body: true, persistent: true))
        #expect(machine.mayPersist)
        _ = machine.handle(.drainBegan)
        #expect(!machine.mayPersist)
        _ = machine.handle(.responseEnded(persistent: true))
        #expect(machine.isLeaving)
    }

    static let every: [Event] = [
        .bytesArrived, .headAdmitted(body: true, persistent: true), .headAdmitted(body: false, persistent: true),
        .headAdmitted(body: false, persistent: false), .headRefused, .requestEnded, .dropped(200_000),
        .requestUnreadable, .responseEnded(persistent: true), .responseEnded(persistent: false), .responseBroken,
        .switched, .multiplexed, .sessionEnded, .flushed, .peerEnded, .broken, .timedOut, .drainBegan,
    ]

    @Test func anyOrderOfEventsClosesOnceAndForGood() {
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<20_000 {
            var machine = DownstreamMachine()
            var closed = 0
            for _ in 0..<12 {
                guard let event = Self.every.randomElement(using: &generator) else { return }
                let actions = machine.handle(event).all
                if closed > 0 { #expect(actions.isEmpty) }
                for action in actions {
                    switch action {
                    case .close, .abort: closed += 1
                    case .awaitRequest, .awaitHead, .dropRequest, .answerTimeout, .closeWhenFlushed, .linger,
                        .breakExchange, .breakStreams, .announceEnd, .endSession:
                        break
                    }
                }
            }
            #expect(closed <= 1)
            #expect(machine.isClosed == (closed == 1))
        }
    }
}
