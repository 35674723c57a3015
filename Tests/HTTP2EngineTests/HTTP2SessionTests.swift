import HTTP2Testing
import Model
import Testing

@testable import HTTP2Engine

/// A session and a client, and what a driver would keep of their conversation.
private final class Talk {
    let client: HTTP2Client
    let session: HTTP2Session
    var now: UInt64 = 1_000
    /// Heads by stream, as text.
    var heads: [Int32: String] = [:]
    var handles: [Int32: HTTP2Handle] = [:]
    var bodies: [UInt64: [UInt8]] = [:]
    var trailers: [UInt64: String] = [:]
    var ended: Set<UInt64> = []
    var finished: Set<UInt64> = []
    var closed: [UInt64: UInt32] = [:]
    var cut: Set<Int32> = []
    var pings = 0
    /// Bodies on their way out.
    var outgoing: [UInt64: [UInt8]] = [:]
    var opensWindows = true
    /// The size of the pieces in which bytes come.
    var piece = Int.max

    init(_ limits: HTTP2Limits = HTTP2Limits(), settings: [(UInt16, UInt32)] = []) throws {
        client = HTTP2Client(settings: settings)
        session = try #require(HTTP2Session(limits))
    }

    /// Everything that either side has to say is said.
    func settle() {
        for _ in 0..<10_000 {
            let sent = listen()
            let made = session.output(of: &outgoing)
            act([])
            client.receive(made)
            if sent.isEmpty, made.isEmpty, client.output.isEmpty { return }
        }
        Issue.record("the conversation never came to rest")
    }

    /// What the client has to say is heard; tells what that was.
    @discardableResult
    func listen() -> [UInt8] {
        let sent = client.takeOutput()
        session.take(sent, piece: piece, now: now, act: act)
        act([])
        return sent
    }

    private func act(_ input: [UInt8]) {
        while let event = session.nextEvent() {
            switch event {
            case .headReceived(let stream, let ends, let isCut):
                let owner = UInt64(stream) + 1_000
                heads[stream] = text(session.incoming)
                handles[stream] = session.adopt(stream: stream, owner: owner)
                if ends { ended.insert(owner) }
                if isCut { cut.insert(stream) }
            case .trailersReceived(let owner, _):
                trailers[owner] = text(session.incoming)
                ended.insert(owner)
            case .dataReceived(let owner, let range):
                bodies[owner, default: []] += input[range]
                if opensWindows, let handle = handles[Int32(owner - 1_000)] { session.consume(handle, range.count) }
            case .ended(let owner): ended.insert(owner)
            case .finished(let owner): finished.insert(owner)
            case .closed(let owner, let code): closed[owner] = code
            case .pingAnswered: pings += 1
            case .responseReceived, .resetReceived, .settingsReceived, .goAwayReceived:
                Issue.record("a server hears no such thing")
            }
        }
    }

    private func text(_ head: MessageHead) -> String {
        head.fields.map { head.text($0.nameRange) + "=" + head.text($0.valueRange) }.joined(separator: " ")
    }

    func respond(_ stream: Int32, _ status: String, body: [UInt8]? = nil, trailers: [(String, String)]? = nil) throws {
        let handle = try #require(handles[stream])
        session.submit(
            handle, head: Self.head([(":status", status)]), isFinal: status.first != "1", hasBody: body != nil)
        guard let body else { return }
        outgoing[UInt64(stream) + 1_000] = body
        session.offer(handle, body.count)
        session.end(handle, trailers: trailers.map(Self.head))
    }

    static func head(_ fields: [(String, String)]) -> MessageHead {
        var head = MessageHead()
        for (name, value) in fields { head.append(.other, name: Array(name.utf8).span, value: Array(value.utf8).span) }
        return head
    }
}

struct HTTP2SessionTests {
    @Test(arguments: [1, 2, 7, 9, 10, Int.max])
    func aConversation(piece: Int) throws {
        let talk = try Talk()
        talk.piece = piece
        talk.client.get(1, "/a?b", [("x-id", "7")])
        // The block of the third comes in two frames.
        let block = HTTP2Client.block(HTTP2Client.fields("GET", "/continued"))
        talk.client.send(TestFrame(TestFrame.headers, flags: 1, stream: 5, Array(block.prefix(9))))
        talk.client.send(TestFrame(TestFrame.continuation, flags: 4, stream: 5, Array(block.dropFirst(9))))
        talk.client.post(7, "/form", [("content-length", "5")])
        talk.client.data(7, Array("hello".utf8), ends: true)
        talk.settle()
        #expect(talk.heads[1] == ":method=GET :scheme=http :path=/a?b :authority=shop.test x-id=7")
        #expect(talk.heads[7]?.hasSuffix("content-length=5") == true)
        #expect(talk.heads[5] == ":method=GET :scheme=http :path=/continued :authority=shop.test")
        #expect(talk.ended == [1_001, 1_005, 1_007])
        #expect(talk.bodies[1_007] == Array("hello".utf8))
        #expect(talk.session.streamCount == 3)
        try talk.respond(1, "204")
        try talk.respond(5, "204")
        try talk.respond(7, "200", body: Array("world".utf8), trailers: [("grpc-status", "0")])
        talk.settle()
        #expect(talk.client[1].status == "204" && talk.client[1].isEnded)
        #expect(talk.client[7].text == "world" && talk.client[7].isEnded)
        #expect(talk.client[7].value("grpc-status", in: 1) == "0")
        #expect(talk.finished == [1_001, 1_005, 1_007])
        #expect(talk.closed == [1_001: 0, 1_005: 0, 1_007: 0])
        #expect(talk.session.streamCount == 0 && talk.session.fault == .none)
    }

    @Test func settingsSayTheLimits() throws {
        let talk = try Talk(HTTP2Limits(streams: 17, headBytes: 9_000))
        talk.settle()
        #expect(talk.client.settings == [3: 17, 4: 65_535, 6: 9_000, 8: 1, 9: 1])
    }

    @Test func informationalResponsesAndRequestTrailers() throws {
        let talk = try Talk()
        talk.client.post(1, "/")
        talk.client.data(1, [1])
        talk.client.headers(1, [("checksum", "9")], ends: true)
        talk.settle()
        #expect(talk.trailers[1_001] == "checksum=9" && talk.ended == [1_001])
        try talk.respond(1, "103")
        try talk.respond(1, "200", body: [])
        talk.settle()
        #expect(talk.client[1].blocks.map { $0[0].value } == ["103", "200"])
        #expect(talk.client[1].isEnded && talk.client[1].body.isEmpty)
    }

    @Test func largeBodiesPassThroughSmallWindows() throws {
        let body = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        let talk = try Talk(settings: [(4, 1_000)])
        talk.client.get(1, "/")
        talk.settle()
        try talk.respond(1, "200", body: body)
        talk.settle()
        #expect(talk.client[1].body == body && talk.client[1].isEnded)
        // The way in: no more than the window until something has been taken.
        talk.opensWindows = false
        talk.client.post(3, "/")
        talk.client.data(3, Array(body.prefix(65_535)))
        talk.settle()
        #expect(talk.bodies[1_003]?.count == 65_535)
        #expect(!talk.client.frames.contains { $0.type == TestFrame.windowUpdate && $0.stream == 3 })
        talk.session.consume(try #require(talk.handles[3]), 65_535)
        talk.settle()
        #expect(talk.client.frames.contains { $0.type == TestFrame.windowUpdate && $0.stream == 3 })
        talk.client.data(3, [1], ends: true)
        talk.settle()
        #expect(talk.bodies[1_003]?.count == 65_536 && talk.session.fault == .none)
    }

    @Test func aWindowThatStaysShutHoldsOneStreamOnly() throws {
        let talk = try Talk(settings: [(4, 10)])
        talk.client.opensWindows = false
        talk.client.get(1, "/")
        talk.client.get(3, "/")
        talk.settle()
        try talk.respond(1, "200", body: [UInt8](repeating: 1, count: 1_000))
        try talk.respond(3, "200", body: [UInt8](repeating: 3, count: 1_000))
        talk.settle()
        #expect(talk.client[1].body.count == 10 && talk.client[3].body.count == 10)
        talk.client.openWindow(3, 2_000)
        talk.settle()
        #expect(talk.client[3].body.count == 1_000 && talk.client[3].isEnded)
        #expect(talk.client[1].body.count == 10)
    }

    /// RFC 9113 §6.9: an end takes no room in a window. The reader of one stream, who has shut the connection's, holds up no
    /// other whose body is empty.
    @Test func aShutWindowHoldsUpNoEnd() throws {
        let talk = try Talk()
        talk.client.opensWindows = false
        for stream: UInt32 in [1, 3, 5, 7, 9, 11] { talk.client.get(stream, "/") }
        talk.client.post(13, "/")
        talk.settle()
        // Exactly the window, and the end comes later.
        let first = try #require(talk.handles[1])
        talk.session.submit(first, head: Talk.head([(":status", "200")]), isFinal: true, hasBody: true)
        talk.outgoing[1_001] = [UInt8](repeating: 1, count: 65_535)
        talk.session.offer(first, 65_535)
        talk.settle()
        #expect(talk.client[1].body.count == 65_535 && !talk.client[1].isEnded)
        talk.session.end(first, trailers: nil)
        // Nothing, and trailers behind nothing: at once, and later.
        try talk.respond(3, "200", body: [])
        try talk.respond(5, "200", body: [], trailers: [("grpc-status", "3")])
        for stream: Int32 in [7, 9] {
            let handle = try #require(talk.handles[stream])
            talk.session.submit(handle, head: Talk.head([(":status", "200")]), isFinal: true, hasBody: true)
        }
        try talk.respond(11, "200", body: [1, 2])
        try talk.respond(13, "200", body: [])
        talk.settle()
        talk.session.end(try #require(talk.handles[7]), trailers: nil)
        talk.session.end(try #require(talk.handles[9]), trailers: Talk.head([("grpc-status", "4")]))
        talk.settle()
        for stream: UInt32 in [1, 3, 5, 7, 9] {
            #expect(talk.client[stream].isEnded && talk.client[stream].reset == nil, "\(stream)")
            #expect(talk.closed[UInt64(stream) + 1_000] == 0 && talk.finished.contains(UInt64(stream) + 1_000))
        }
        #expect(talk.client[5].value("grpc-status", in: 1) == "3" && talk.client[9].value("grpc-status", in: 1) == "4")
        #expect(!talk.client[11].isEnded && talk.client[11].body.isEmpty, "which has something to say")
        // One whose client goes on sending is there until that has ended.
        #expect(talk.client[13].isEnded && talk.closed[1_013] == nil && talk.session.streamCount == 2)
        talk.client.data(13, [1])
        talk.client.openWindow(0, 1_000)
        talk.settle()
        #expect(talk.bodies[1_013] == [1] && talk.client[11].body == [1, 2] && talk.client[11].isEnded)
        talk.client.data(13, [2], ends: true)
        talk.settle()
        #expect(talk.bodies[1_013] == [1, 2] && talk.closed[1_013] == 0 && talk.client[13].reset == nil)
        #expect(talk.session.streamCount == 0 && talk.session.fault == .none)
        #expect(talk.client.frames.allSatisfy { $0.type != TestFrame.rstStream })
        // A stream that is over is over.
        talk.client.get(3, "/")
        talk.settle()
        #expect(talk.session.fault == .malformed)
    }

    /// Streams that ended so leave nothing behind: there may be more of them than may be open at a time.
    @Test func endsBesideAShutWindowLeaveNothing() throws {
        let talk = try Talk(HTTP2Limits(streams: 4), settings: [(4, 0)])
        for i in 0..<50 {
            let stream = Int32(2 * i + 1)
            if i % 2 == 0 { talk.client.get(UInt32(stream), "/") } else { talk.client.post(UInt32(stream), "/") }
            talk.settle()
            try talk.respond(stream, "200", body: [], trailers: i % 3 == 0 ? [("x", "y")] : nil)
            talk.settle()
            if i % 2 == 1 { talk.client.headers(UInt32(stream), [("sum", "1")], ends: true) }
            talk.settle()
            #expect(talk.client[UInt32(stream)].isEnded && talk.closed[UInt64(stream) + 1_000] == 0, "\(stream)")
        }
        #expect(talk.session.streamCount == 0 && talk.session.fault == .none)
    }

    /// A client that has ended its side of a stream whose end it has got may begin another in the same packet.
    @Test func whatIsOverCountsNoMoreWhenItsClientHasEnded() throws {
        let talk = try Talk(HTTP2Limits(streams: 2), settings: [(4, 0)])
        talk.client.post(1, "/")
        talk.client.post(3, "/")
        talk.settle()
        try talk.respond(1, "200", body: [])
        try talk.respond(3, "200", body: [1])
        talk.settle()
        #expect(talk.client[1].isEnded && talk.session.streamCount == 2)
        talk.client.data(1, [1], ends: true)
        // Answered before what is said of the streams.
        talk.client.send(TestFrame(6, [UInt8](repeating: 7, count: 8)))
        talk.client.post(5, "/")
        talk.settle()
        #expect(talk.session.fault == .none && talk.heads[5] != nil && talk.closed[1_001] == 0)
        let kinds = talk.client.frames.map(\.type)
        #expect(kinds.count { $0 == 6 } == 1 && !kinds.contains(TestFrame.rstStream), "\(kinds)")
    }

    /// RFC 9113 §5.1.2: one stream too many is refused, also when the bound is known, and those that are open go on.
    @Test func oneStreamTooManyIsRefused() throws {
        let talk = try Talk(HTTP2Limits(streams: 2))
        talk.settle()
        #expect(talk.client.settings[3] == 2)
        for stream: UInt32 in [1, 3] { talk.client.post(stream, "/") }
        talk.settle()
        for stream: UInt32 in [5, 7] { talk.client.get(stream, "/") }
        talk.settle()
        #expect(talk.session.fault == .none && talk.heads.count == 2)
        #expect([5, 7].allSatisfy { talk.client[$0].reset == HTTP2ErrorCode.refusedStream.rawValue })
        try talk.respond(1, "200", body: [1])
        talk.client.data(1, [], ends: true)
        talk.settle()
        talk.client.get(9, "/")
        talk.settle()
        #expect(talk.client[1].body == [1] && talk.heads[9] != nil && talk.session.streamCount == 2)
        // Who goes on is no client that had miscounted.
        for i in 0..<1_200 { talk.client.get(UInt32(2 * i + 11), "/") }
        talk.settle()
        #expect(talk.session.fault != .none)
    }

    /// Nor do ends that wait for nothing more pile up while the library always has something to send.
    @Test func endsThatTheLibraryHasMadeAreForgotten() throws {
        let talk = try Talk(HTTP2Limits(streams: 4))
        talk.settle()
        for i in 0..<200 {
            let stream = Int32(2 * i + 1)
            talk.client.get(UInt32(stream), "/")
            talk.listen()
            let handle = try #require(talk.handles[stream])
            talk.session.submit(handle, head: Talk.head([(":status", "200")]), isFinal: true, hasBody: true)
            talk.session.end(handle, trailers: nil)
            // Its head and its end, and not a look at whether there is more.
            for _ in 0..<2 { _ = talk.session.nextOutput() }
            talk.listen()
            #expect(talk.closed[UInt64(stream) + 1_000] == 0)
        }
        #expect(talk.session.endsDue.count <= 2 * talk.session.rows + 1)
    }

    /// Refused, before its client could know: what belongs to the stream may be in the same packet.
    @Test func aRefusedStreamMayGoOn() throws {
        let talk = try Talk(HTTP2Limits(streams: 2))
        for stream: UInt32 in [1, 3, 5, 7] { talk.client.post(stream, "/") }
        talk.client.data(5, [1])
        talk.client.headers(5, [("sum", "1")], ends: true)
        talk.client.headers(7, [("sum", "1")], ends: true)
        talk.settle()
        #expect(talk.session.fault == .none && talk.heads.count == 2)
        #expect([5, 7].allSatisfy { talk.client[$0].reset == HTTP2ErrorCode.refusedStream.rawValue })
    }

    /// Whichever frame says that we have given up.
    @Test func whatWeAreMadeToGiveUpCountsAsReset() throws {
        let talk = try Talk()
        talk.settle()
        for _ in 0..<500 { talk.session.provoked() }
        #expect(talk.session.fault == .none)
        talk.session.provoked()
        #expect(talk.session.fault == .resets)
        talk.settle()
        #expect(talk.client.goAways.last?.code == 11)
    }

    /// A head that is too large is cheap to send.
    @Test func headsThatAreTooLargeCountAsResets() throws {
        let talk = try Talk(HTTP2Limits(headBytes: 300))
        for i in 0..<600 where talk.session.fault == .none {
            let stream = Int32(2 * i + 1)
            talk.client.get(UInt32(stream), "/", [("x", String(repeating: "y", count: 300))])
            talk.settle()
            #expect(talk.session.fault != .none || talk.cut.contains(stream))
            if talk.session.fault == .none { try talk.respond(stream, "431") }
        }
        #expect(talk.cut.count == 501 && talk.session.fault == .resets)
    }

    @Test func streamsShareTheConnectionInTurns() throws {
        let talk = try Talk(settings: [(4, 1 << 20)])
        talk.client.opensWindows = false
        talk.client.get(1, "/", [("priority", "u=0")])
        talk.client.get(3, "/", [("priority", "u=7")])
        talk.settle()
        try talk.respond(1, "200", body: [UInt8](repeating: 1, count: 200_000))
        try talk.respond(3, "200", body: [UInt8](repeating: 3, count: 200_000))
        talk.settle()
        // The connection's window of 64 KiB was divided.
        let (a, b) = (talk.client[1].body.count, talk.client[3].body.count)
        #expect(a + b == 65_535 && min(a, b) >= 16_384)
    }

    @Test func streamsBeyondTheLimitAreRefused() throws {
        let talk = try Talk(HTTP2Limits(streams: 2))
        // Before it can know the limit, a client is told.
        for stream: UInt32 in [1, 3, 5] { talk.client.post(stream, "/") }
        talk.settle()
        #expect(talk.heads.count == 2 && talk.client[5].reset == HTTP2ErrorCode.refusedStream.rawValue)
        talk.client.reset(1)
        talk.settle()
        #expect(talk.closed[1_001] == 8)
        talk.client.get(7, "/")
        talk.settle()
        #expect(talk.heads[7] != nil && talk.session.fault == .none)
    }

    @Test func aForgottenStreamIsSilent() throws {
        let talk = try Talk()
        talk.client.post(1, "/")
        talk.settle()
        let handle = try #require(talk.handles[1])
        talk.session.forget(handle)
        talk.session.reset(stream: 1, .noError)
        talk.session.offer(handle, 5)
        talk.client.data(1, [1, 2, 3], ends: true)
        talk.settle()
        #expect(talk.client[1].reset == 0 && talk.closed.isEmpty && talk.bodies.isEmpty)
        #expect(talk.session.streamCount == 0)
    }

    @Test func theEndIsAnnouncedBeforeItComes() throws {
        let talk = try Talk()
        talk.client.get(1, "/")
        talk.settle()
        talk.session.announceEnd()
        talk.settle()
        #expect(talk.client.goAways.map(\.last) == [0x7fff_ffff] && talk.pings == 1)
        // What the client had sent meanwhile is served.
        talk.client.get(3, "/")
        talk.settle()
        #expect(talk.heads[3] != nil)
        talk.session.finish()
        talk.settle()
        #expect(talk.client.goAways.map(\.last) == [0x7fff_ffff, 3])
        #expect(!talk.session.isOver)
        try talk.respond(1, "200", body: [1])
        try talk.respond(3, "204")
        talk.settle()
        #expect(talk.client[1].isEnded && talk.client[3].isEnded && talk.session.isOver)
    }

    @Test func aClientThatAnswersHasHeardOfTheEnd() throws {
        let talk = try Talk()
        talk.client.get(1, "/")
        talk.settle()
        talk.session.announceEnd()
        talk.settle()
        let kinds = talk.client.frames.map(\.type)
        let goAway = try #require(kinds.lastIndex(of: TestFrame.goAway))
        #expect(try #require(kinds.lastIndex(of: TestFrame.ping)) > goAway)
    }

    @Test func whatComesBehindTheEndIsNotBegun() throws {
        let talk = try Talk()
        talk.client.get(1, "/")
        talk.settle()
        talk.session.announceEnd()
        talk.settle()
        // It comes between our decision and the frame that tells of it: whatever that says has to be true.
        talk.session.finish()
        talk.client.get(3, "/")
        talk.settle()
        #expect(talk.heads[3] == nil && talk.client.goAways.last?.last == 1)
        try talk.respond(1, "204")
        talk.settle()
        #expect(talk.client[1].isEnded && talk.session.isOver)
    }

    // MARK: What may not be sent

    static let malformed: [(String, [(String, String)])] = [
        ("NUL in a value", [("x", "a\0b")]), ("CR in a value", [("x", "a\rb")]), ("LF in a value", [("x", "a\nb")]),
        ("space around a value", [("x", " a")]), ("upper case", [("X-A", "b")]), ("a name of CR LF", [("x\r\n", "b")]),
        ("connection", [("connection", "x")]), ("transfer-encoding", [("transfer-encoding", "chunked")]),
        ("keep-alive", [("keep-alive", "1")]), ("upgrade", [("upgrade", "h2c")]), ("te", [("te", "gzip")]),
        ("pseudo-field behind others", [("x", "y"), (":path", "/b")]), ("unknown pseudo-field", [(":x", "y")]),
        ("two lengths", [("content-length", "1"), ("content-length", "1")]),
        ("a length that is none", [("content-length", "+1")]), ("a length without a body", [("content-length", "3")]),
    ]

    @Test(arguments: malformed)
    func aMalformedFieldResetsItsStream(what: String, fields: [(String, String)]) throws {
        let talk = try Talk()
        talk.client.get(1, "/", fields)
        talk.client.get(3, "/")
        talk.settle()
        #expect(talk.client[1].reset == HTTP2ErrorCode.protocolError.rawValue, "\(what)")
        #expect(talk.heads[3] != nil, "the connection goes on: \(what)")
    }

    @Test func everyControlByteInEveryPseudoFieldIsRefused() throws {
        for byte in (0...32).map(UInt8.init) + [127] {
            for name in [":method", ":path", ":authority", ":scheme"] {
                let talk = try Talk()
                let fields = HTTP2Client.fields("GET", "/").map { field in
                    field.0 == name ? (name, field.1 + String(decoding: [byte], as: UTF8.self) + "x") : field
                }
                talk.client.headers(1, fields, ends: true)
                talk.settle()
                #expect(talk.heads[1] == nil, "byte \(byte) in \(name)")
                #expect(talk.client[1].reset == 1 || talk.client.goAways.last?.code == 1)
            }
        }
    }

    @Test func aBodyThatIsNotAsLongAsSaidResetsItsStream() throws {
        for (length, body) in [("3", 4), ("5", 4)] {
            let talk = try Talk()
            talk.client.post(1, "/", [("content-length", length)])
            talk.client.data(1, [UInt8](repeating: 0, count: body), ends: true)
            talk.settle()
            #expect(talk.closed[1_001] == HTTP2ErrorCode.protocolError.rawValue)
        }
    }

    @Test func aHeadBeyondTheLimitIsCutAndAHugeOneEndsTheConnection() throws {
        let talk = try Talk(HTTP2Limits(headBytes: 4_096))
        talk.client.get(1, "/", [("x", String(repeating: "a", count: 5_000))])
        talk.client.get(3, "/", (0..<120).map { ("x\($0)", "") })
        talk.client.get(5, "/")
        talk.settle()
        #expect(talk.cut == [1, 3] && talk.heads.count == 3 && talk.session.fault == .none)
        #expect(talk.session.incoming.bytes.count < 8_192)
        talk.client.get(7, "/", [("x", String(repeating: "a", count: 16_200)), ("y", "z")])
        talk.settle()
        #expect(talk.session.fault == .headers)
        #expect(talk.client.goAways.last?.code == HTTP2ErrorCode.enhanceYourCalm.rawValue)
    }

    @Test func aCompressedBombIsNotKept() throws {
        let talk = try Talk()
        // One field of 3 KiB into the table, then two bytes for each time that it is meant.
        var block = HTTP2Client.block(HTTP2Client.fields("GET", "/"))
        block +=
            [0x40] + HTTP2Client.string(Array("bomb".utf8)) + HTTP2Client.string([UInt8](repeating: 65, count: 3_000))
        block += [UInt8](repeating: 0xbe, count: 10_000)
        talk.client.send(TestFrame(TestFrame.headers, flags: 5, stream: 1, block))
        talk.settle()
        #expect(talk.session.fault == .headers && talk.session.incoming.bytes.count <= 65_536)
        #expect(talk.client.goAways.last?.code == HTTP2ErrorCode.enhanceYourCalm.rawValue)
    }

    // MARK: Floods

    enum Flood: String, CaseIterable {
        case ping, settings, priority, unknown, emptyData, padding, tinyWindows, continuation, rapidReset, madeYouReset
        case refusedTrailers, endsOfNothing
    }

    @Test(arguments: Flood.allCases)
    func aFloodEndsTheConnection(flood: Flood) throws {
        let talk = try Talk(HTTP2Limits(streams: 100))
        talk.client.post(1, "/")
        talk.settle()
        try talk.respond(1, "200", body: nil)
        if flood == .refusedTrailers {
            talk.settle()
            talk.session.forget(try #require(talk.handles[1]))
            talk.session.reset(stream: 1, .noError)
        }
        if flood == .endsOfNothing {
            talk.client.data(1, [], ends: true)
            talk.session.end(try #require(talk.handles[1]), trailers: nil)
            talk.settle()
            #expect(talk.closed.count == 1)
        }
        var sent = 0
        var stream: UInt32 = 3
        while talk.session.fault == .none, sent < 20_000 {
            let client = talk.client
            switch flood {
            case .ping: client.send(TestFrame(TestFrame.ping, [UInt8](repeating: 0, count: 8)))
            case .settings: client.send(TestFrame(TestFrame.settings))
            case .priority: client.send(TestFrame(TestFrame.priority, stream: 1, [0, 0, 0, 0, 1]))
            case .unknown: client.send(TestFrame(0xee, stream: 1, [1]))
            case .emptyData: client.data(1, [])
            // On a stream that is over.
            case .endsOfNothing: client.data(1, [], ends: true)
            case .padding: client.send(TestFrame(TestFrame.data, flags: 8, stream: 1, [3, 0, 0, 0]))
            case .tinyWindows: client.openWindow(0, 1)
            case .continuation:
                client.send(
                    sent == 0
                        ? TestFrame(
                            TestFrame.headers, flags: 1, stream: 3, HTTP2Client.block(HTTP2Client.fields("GET", "/")))
                        : TestFrame(TestFrame.continuation, stream: 3))
            case .rapidReset:
                client.get(stream, "/")
                client.reset(stream)
            case .madeYouReset:
                client.post(stream, "/")
                client.openWindow(stream, 0x7fff_ffff)
            case .refusedTrailers:
                // On a stream that we have reset: no request comes of it, so none of this is paid for.
                client.headers(1, [("x", "y")], ends: true)
                for _ in 0..<4 { client.send(TestFrame(TestFrame.ping, [UInt8](repeating: 0, count: 8))) }
            }
            stream += 2
            sent += 1
            talk.settle()
        }
        let expected: HTTP2Fault =
            switch flood {
            case .continuation: .headers
            case .rapidReset, .madeYouReset: .resets
            case .ping, .settings, .priority, .unknown, .emptyData, .padding, .tinyWindows, .refusedTrailers,
                .endsOfNothing:
                .flood
            }
        #expect(talk.session.fault == expected, "after \(sent)")
        #expect(talk.client.goAways.last?.code == HTTP2ErrorCode.enhanceYourCalm.rawValue)
        #expect(talk.session.isOver)
    }

    /// What libraries of gRPC do: two windows and a PING for each message, to measure the path. More than that pays for
    /// nothing.
    @Test(arguments: [1, 4])
    func aClientThatMeasuresThePathIsNoFlood(pings: Int) throws {
        let talk = try Talk()
        talk.client.get(1, "/")
        talk.settle()
        talk.session.submit(
            try #require(talk.handles[1]), head: Talk.head([(":status", "200")]), isFinal: true, hasBody: true)
        var sent = 0
        while talk.session.fault == .none, sent < 5_000 {
            sent += 1
            talk.outgoing[1_001, default: []] += [1, 2, 3]
            talk.session.offer(try #require(talk.handles[1]), 3)
            for _ in 0..<pings { talk.client.send(TestFrame(TestFrame.ping, [UInt8](repeating: 0, count: 8))) }
            talk.settle()
        }
        #expect(talk.session.fault == (pings == 1 ? .none : .flood), "after \(sent)")
        if pings == 1 { #expect(talk.client[1].body.count == 15_000) }
    }

    /// However many bodies lie untaken: the connection's window is not theirs.
    @Test func aBodyThatIsNotTakenHoldsUpItselfAlone() throws {
        let talk = try Talk()
        talk.opensWindows = false
        let streams = (0..<60).map { UInt32(2 * $0 + 1) }
        for stream in streams {
            talk.client.post(stream, "/")
            talk.client.data(stream, [UInt8](repeating: 1, count: 65_535))
            talk.settle()
        }
        #expect(talk.session.fault == .none && talk.bodies.values.allSatisfy { $0.count == 65_535 })
        #expect(!talk.client.frames.contains { $0.type == TestFrame.windowUpdate && $0.stream != 0 })
        talk.session.consume(try #require(talk.handles[7]), 65_535)
        talk.settle()
        let opened = talk.client.frames.filter { $0.type == TestFrame.windowUpdate && $0.stream != 0 }
        #expect(opened.map(\.stream) == [7])
    }

    /// RFC 9113 §5.1.1: a stream that is over, or was passed over, is not begun again; one that we have reset may still
    /// be spoken of by who does not know.
    @Test(arguments: [1, 3, 5, 7])
    func aStreamBeginsOnce(stream: UInt32) throws {
        let talk = try Talk()
        talk.client.get(1, "/")
        talk.client.post(5, "/")
        talk.client.get(7, "/")
        talk.settle()
        try talk.respond(1, "204")
        try talk.respond(5, "204")
        talk.session.forget(try #require(talk.handles[5]))
        talk.session.reset(stream: 5, .noError)
        talk.client.reset(7)
        talk.settle()
        talk.client.get(stream, "/again")
        talk.client.get(9, "/")
        talk.settle()
        #expect(talk.heads[Int32(stream)]?.contains("again") != true)
        #expect(talk.session.fault == (stream == 5 ? .none : .malformed))
        #expect(talk.client.goAways.last?.code == (stream == 5 ? nil : HTTP2ErrorCode.streamClosed.rawValue))
        #expect((talk.heads[9] != nil) == (stream == 5))
    }

    @Test func timePaysForResets() throws {
        let talk = try Talk()
        var stream: UInt32 = 1
        for _ in 0..<20 {
            for _ in 0..<40 {
                talk.client.get(stream, "/")
                talk.client.reset(stream)
                stream += 2
            }
            talk.settle()
            talk.now += 1_000
        }
        #expect(talk.session.fault == .none)
    }

    @Test func brokenFramesEndTheConnectionWithTheirCode() throws {
        let cases: [(HTTP2ErrorCode, TestFrame)] = [
            (.frameSizeError, TestFrame(TestFrame.data, stream: 1, [UInt8](repeating: 0, count: 16_385))),
            (.frameSizeError, TestFrame(TestFrame.ping, [1])),
            (.protocolError, TestFrame(TestFrame.data, stream: 0, [1])),
            (
                .protocolError,
                TestFrame(TestFrame.headers, flags: 5, stream: 2, HTTP2Client.block(HTTP2Client.fields("GET", "/")))
            ),
            (.compressionError, TestFrame(TestFrame.headers, flags: 5, stream: 1, [0xff, 0xff, 0xff, 0xff, 0xff])),
            (.flowControlError, TestFrame(TestFrame.windowUpdate, stream: 0, TestFrame.word(0x7fff_ffff))),
            (.protocolError, TestFrame(TestFrame.continuation, flags: 4, stream: 1, [])),
        ]
        for (code, frame) in cases {
            let talk = try Talk()
            talk.client.send(frame)
            talk.settle()
            #expect(talk.client.goAways.last?.code == code.rawValue, "\(code)")
            #expect(talk.session.isOver && talk.session.fault == .malformed)
        }
    }

    @Test func whatIsNoPrefaceIsRefused() throws {
        let talk = try Talk()
        talk.client.output = Array("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n".utf8)
        talk.settle()
        #expect(talk.session.fault == .malformed && talk.heads.isEmpty)
    }
}
