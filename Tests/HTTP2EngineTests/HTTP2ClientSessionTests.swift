import HTTP2Engine
import HTTP2Testing
import Model
import Testing

/// A client's session and a server, and what a driver would keep of their conversation.
private final class Talk {
    let server: HTTP2Server
    let session: HTTP2Session
    var now: UInt64 = 1_000
    var handles: [UInt64: HTTP2Handle] = [:]
    var heads: [UInt64: [String]] = [:]
    var bodies: [UInt64: [UInt8]] = [:]
    var trailers: [UInt64: String] = [:]
    var ended: Set<UInt64> = []
    var finished: Set<UInt64> = []
    var cut: Set<UInt64> = []
    var closed: [UInt64: UInt32] = [:]
    var resets: [UInt64: UInt32] = [:]
    var goAways: [UInt32] = []
    var outgoing: [UInt64: [UInt8]] = [:]
    var opensWindows = true
    var piece = Int.max

    init(_ limits: HTTP2Limits = HTTP2Limits(), settings: [(UInt16, UInt32)] = []) throws {
        server = HTTP2Server(settings: settings)
        session = try #require(HTTP2Session(limits, role: .client))
    }

    func settle() {
        for _ in 0..<10_000 {
            let made = session.output(of: &outgoing)
            act([])
            server.receive(made)
            let sent = server.takeOutput()
            session.take(sent, piece: piece, now: now, act: act)
            if sent.isEmpty, made.isEmpty { return }
        }
        Issue.record("the conversation never came to rest")
    }

    private func act(_ input: [UInt8]) {
        while let event = session.nextEvent() {
            switch event {
            case .responseReceived(let owner, let ends, let isCut):
                heads[owner, default: []].append(text(session.incoming))
                if ends { ended.insert(owner) }
                if isCut { cut.insert(owner) }
            case .trailersReceived(let owner, _):
                trailers[owner] = text(session.incoming)
                ended.insert(owner)
            case .dataReceived(let owner, let range):
                bodies[owner, default: []] += input[range]
                if opensWindows, let handle = handles[owner] { session.consume(handle, range.count) }
            case .ended(let owner): ended.insert(owner)
            case .finished(let owner): finished.insert(owner)
            case .closed(let owner, let code): closed[owner] = code
            case .resetReceived(let owner, let code): resets[owner] = code
            case .goAwayReceived(let code): goAways.append(code)
            case .settingsReceived, .pingAnswered: break
            case .headReceived: Issue.record("a client hears no requests")
            }
        }
    }

    private func text(_ head: MessageHead) -> String {
        head.fields.map { head.text($0.nameRange) + "=" + head.text($0.valueRange) }.joined(separator: " ")
    }

    @discardableResult
    func ask(
        _ owner: UInt64, _ method: String = "GET", body: [UInt8]? = nil, trailers: [(String, String)]? = nil
    ) throws -> HTTP2Handle {
        var head = MessageHead()
        for (name, value) in HTTP2Client.fields(method, "/\(owner)") {
            head.append(.other, name: Array(name.utf8).span, value: Array(value.utf8).span)
        }
        let handle = try #require(session.request(owner: owner, head: head, hasBody: body != nil || trailers != nil))
        handles[owner] = handle
        if body != nil || trailers != nil {
            outgoing[owner] = body ?? []
            session.offer(handle, body?.count ?? 0)
            var last: MessageHead?
            if let trailers {
                var head = MessageHead()
                for (name, value) in trailers {
                    head.append(.other, name: Array(name.utf8).span, value: Array(value.utf8).span)
                }
                last = head
            }
            session.end(handle, trailers: last)
        }
        return handle
    }
}

struct HTTP2ClientSessionTests {
    /// Uploads of exactly the window, whose end comes later, and of nothing: an end takes no room in it.
    @Test(arguments: [false, true])
    func aShutWindowHoldsUpNoEnd(hasTrailers: Bool) throws {
        let talk = try Talk()
        talk.server.opensWindows = false
        let trailers = hasTrailers ? [("sum", "5")] : nil
        var head = MessageHead()
        for (name, value) in HTTP2Client.fields("POST", "/") {
            head.append(.other, name: Array(name.utf8).span, value: Array(value.utf8).span)
        }
        let handle = try #require(talk.session.request(owner: 11, head: head, hasBody: true))
        talk.handles[11] = handle
        talk.outgoing[11] = [UInt8](repeating: 1, count: 65_535)
        talk.session.offer(handle, 65_535)
        talk.settle()
        #expect(talk.server[1].body.count == 65_535 && !talk.server[1].isEnded)
        talk.session.end(handle, trailers: nil)
        try talk.ask(12, "POST", body: [], trailers: trailers)
        talk.settle()
        #expect(talk.server[1].isEnded && talk.server[3].isEnded && talk.finished == [11, 12])
        #expect(talk.server[3].value("sum", in: 1) == (hasTrailers ? "5" : nil))
        talk.server.respond(1, "200", body: [1])
        talk.server.respond(3, "204")
        talk.settle()
        #expect(talk.bodies[11] == [1] && talk.closed == [11: 0, 12: 0] && talk.session.streamCount == 0)
        #expect(talk.server[1].reset == nil && talk.server[3].reset == nil && talk.session.fault == .none)
        // The connection goes on.
        talk.server.openWindow(0, 10)
        try talk.ask(13, "POST", body: [1, 2, 3], trailers: trailers)
        talk.settle()
        #expect(talk.server[5].body == [1, 2, 3] && talk.server[5].isEnded)
    }

    @Test(arguments: [1, 2, 7, 9, 10, Int.max])
    func aConversation(piece: Int) throws {
        let talk = try Talk()
        talk.piece = piece
        try talk.ask(11)
        try talk.ask(12, "POST", body: Array("hello".utf8), trailers: [("sum", "5")])
        talk.settle()
        #expect(talk.server.sawPreface && talk.server.settings[2] == 0, "nothing may be pushed")
        #expect(talk.server[1].value(":path") == "/11" && talk.server[1].isEnded)
        #expect(talk.server[3].text == "hello" && talk.server[3].value("sum", in: 1) == "5")
        talk.server.headers(1, [(":status", "103"), ("link", "</a>")], ends: false)
        talk.server.respond(1, "200", [("x", "y")], body: Array("world".utf8), trailers: [("grpc-status", "0")])
        talk.server.respond(3, "404")
        talk.settle()
        #expect(talk.heads[11] == [":status=103 link=</a>", ":status=200 x=y"])
        #expect(talk.bodies[11] == Array("world".utf8) && talk.trailers[11] == "grpc-status=0")
        #expect(talk.heads[12] == [":status=404"] && talk.ended == [11, 12] && talk.finished == [11, 12])
        #expect(talk.closed == [11: 0, 12: 0] && talk.session.streamCount == 0 && talk.session.fault == .none)
    }

    @Test func requestsWaitForTheServersWord() throws {
        let talk = try Talk(settings: [(3, 20)])
        #expect(talk.session.mostStreams == 16, "a few, before it has spoken")
        for owner in 0..<40 { try talk.ask(UInt64(owner)) }
        let first = talk.handles.values.filter { talk.session.wasSent($0) }.count
        #expect(first == 0)
        talk.settle()
        #expect(talk.session.mostStreams == 20 && talk.server.streams.count == 20)
        #expect(talk.handles.values.filter { talk.session.wasSent($0) }.count == 20)
        // One that waits can be called off, and nobody hears of it.
        let waiting = try #require(talk.handles[39])
        talk.session.forget(waiting)
        talk.session.reset(stream: waiting.stream, .cancel)
        for i in 0..<20 { talk.server.respond(UInt32(2 * i + 1)) }
        talk.settle()
        #expect(talk.closed.count == 20 && talk.server.streams.count == 39)
        for i in 20..<39 { talk.server.respond(UInt32(2 * i + 1)) }
        talk.settle()
        #expect(talk.closed.count == 39 && talk.closed.values.allSatisfy { $0 == 0 } && talk.session.streamCount == 0)
    }

    @Test func whatIsNotTakenIsRefused() throws {
        let talk = try Talk()
        for owner: UInt64 in 0..<6 { try talk.ask(owner) }
        talk.settle()
        talk.server.goAway(last: 5)
        talk.settle()
        #expect(talk.goAways == [0])
        #expect(talk.closed == [3: 7, 4: 7, 5: 7] && talk.resets.isEmpty)
        // And so is what comes later.
        try talk.ask(9)
        talk.settle()
        #expect(talk.closed[9] == 7 && talk.server.streams.count == 6)
        for stream: UInt32 in [1, 3, 5] { talk.server.respond(stream) }
        talk.settle()
        #expect(talk.closed.count == 7 && talk.session.streamCount == 0 && talk.session.isOver)
    }

    @Test func resets() throws {
        let talk = try Talk()
        try talk.ask(1)
        try talk.ask(2)
        let handle = try talk.ask(3, "POST", body: [1, 2, 3])
        talk.settle()
        talk.server.reset(1, 7)
        talk.server.reset(3, 2)
        talk.settle()
        #expect(talk.resets == [1: 7, 2: 2] && talk.closed == [1: 7, 2: 2])
        talk.session.forget(handle)
        talk.session.reset(stream: handle.stream, .cancel)
        talk.settle()
        #expect(talk.server[5].reset == 8 && talk.closed[3] == nil)
        // What was on its way is passed over, and its part of the window comes back.
        for _ in 0..<10 { talk.server.respond(5, body: [UInt8](repeating: 1, count: 1_000)) }
        try talk.ask(4)
        talk.settle()
        talk.server.respond(7, body: [UInt8](repeating: 2, count: 3_000_000))
        talk.settle()
        #expect(talk.bodies[4]?.count == 3_000_000 && talk.session.fault == .none)
    }

    @Test func aStreamThatIsNotReadHoldsUpItselfAlone() throws {
        let talk = try Talk(HTTP2Limits(streamWindow: 65_535, connectionWindow: 1 << 20))
        talk.opensWindows = false
        for owner: UInt64 in 0..<30 { try talk.ask(owner) }
        talk.settle()
        for i in 0..<30 { talk.server.respond(UInt32(2 * i + 1), body: [UInt8](repeating: 3, count: 100_000)) }
        talk.settle()
        for owner: UInt64 in 0..<30 { #expect(talk.bodies[owner]?.count == 65_535) }
        let handle = try #require(talk.handles[7])
        talk.session.consume(handle, 65_535)
        talk.settle()
        #expect(talk.bodies[7]?.count == 100_000 && talk.ended == [7])
    }

    @Test func uploadsFollowTheServersWindows() throws {
        let talk = try Talk(settings: [(4, 1_000)])
        talk.server.opensWindows = false
        try talk.ask(1, "POST", body: [UInt8](repeating: 1, count: 5_000))
        talk.settle()
        let first = talk.server[1].body.count
        #expect(first >= 1_000 && first <= 5_000)
        talk.server.openWindow(1, 100_000)
        talk.settle()
        #expect(talk.server[1].body.count == 5_000 && talk.server[1].isEnded)
    }

    @Test(arguments: ["ping", "settings", "heads", "data", "continuation", "push", "window"])
    func floodsEndTheSession(kind: String) throws {
        let talk = try Talk()
        try talk.ask(1)
        talk.settle()
        for i in 0..<3_000 {
            switch kind {
            case "ping": talk.server.send(TestFrame(TestFrame.ping, [UInt8](repeating: 0, count: 8)))
            case "settings": talk.server.send(TestFrame(TestFrame.settings))
            case "heads": talk.server.headers(1, [(":status", "103")], ends: false)
            case "data":
                if i == 0 { talk.server.headers(1, [(":status", "200")], ends: false) }
                talk.server.send(TestFrame(TestFrame.data, stream: 1))
            case "continuation":
                let type = i == 0 ? TestFrame.headers : TestFrame.continuation
                talk.server.send(TestFrame(type, stream: 1, HTTP2Client.block([(i == 0 ? ":status" : "x", "200")])))
            case "push":
                talk.server.send(
                    TestFrame(5, flags: 4, stream: 1, TestFrame.word(2) + HTTP2Client.block([(":status", "200")])))
            default: talk.server.openWindow(0, 1)
            }
        }
        talk.settle()
        #expect(talk.session.fault != .none && talk.server.goAways.count == 1)
        #expect(talk.session.request(owner: 2, head: MessageHead(), hasBody: false) == nil)
    }

    /// A call that sends small messages for a long time: the server opens two windows for each.
    @Test func manySmallMessagesAreNoFlood() throws {
        let talk = try Talk()
        try talk.ask(1, "POST", body: [0])
        talk.settle()
        #expect(talk.finished == [1])
        let call = try #require(talk.session.request(owner: 2, head: HTTP2ClientSessionTests.head, hasBody: true))
        for _ in 0..<3_000 {
            talk.outgoing[2, default: []] += [1, 2, 3]
            talk.session.offer(call, 3)
            talk.settle()
        }
        #expect(talk.server[3].body.count == 9_000 && talk.session.fault == .none)
    }

    /// The same of a server that measures the path besides, as libraries of gRPC do.
    @Test func aServerThatMeasuresThePathIsNoFlood() throws {
        let talk = try Talk()
        let call = try #require(talk.session.request(owner: 2, head: HTTP2ClientSessionTests.head, hasBody: true))
        for _ in 0..<3_000 {
            talk.outgoing[2, default: []] += [1, 2, 3]
            talk.session.offer(call, 3)
            talk.server.send(TestFrame(TestFrame.ping, [UInt8](repeating: 0, count: 8)))
            talk.settle()
        }
        #expect(talk.server[1].body.count == 9_000 && talk.session.fault == .none)
    }

    /// But a window of one byte after the other does not pay for itself.
    @Test func windowsOfSingleBytesAreAFlood() throws {
        let talk = try Talk(settings: [(4, 0)])
        talk.settle()
        talk.server.opensWindows = false
        try talk.ask(1, "POST", body: [UInt8](repeating: 1, count: 100_000))
        talk.settle()
        var windows = 0
        while talk.session.fault == .none, windows < 5_000 {
            talk.server.openWindow(1, 1)
            windows += 1
            talk.settle()
        }
        #expect(talk.session.fault == .flood && talk.server[1].body.count < 1_500)
    }

    private static var head: MessageHead {
        var head = MessageHead()
        for (name, value) in HTTP2Client.fields("POST", "/") {
            head.append(.other, name: Array(name.utf8).span, value: Array(value.utf8).span)
        }
        return head
    }

    /// However many requests there are, their answers never look like a flood.
    @Test func manyShortAnswersAreNoFlood() throws {
        let talk = try Talk()
        for round in 0..<3_000 {
            try talk.ask(UInt64(round), "POST", body: [1, 2, 3])
            talk.settle()
            let stream = UInt32(2 * round + 1)
            talk.server.send(TestFrame(TestFrame.ping, [UInt8](repeating: 0, count: 8)))
            talk.server.respond(stream, body: [1], trailers: [("grpc-status", "0")])
            talk.settle()
            #expect(talk.closed[UInt64(round)] == 0)
        }
        #expect(talk.session.fault == .none)
    }
}
