import HTTP2Testing
import Model
import Reactor
import Testing

@testable import Proxy

/// A scene whose upstreams speak HTTP/2, and the clients of it.
private final class Farm {
    let scene: Scene
    var servers: [Int32: HTTP2Server] = [:]
    var callers: [Caller] = []
    var settings: [(UInt16, UInt32)] = []
    /// What those at one port say in their place.
    var settingsAt: [UInt16: [(UInt16, UInt32)]] = [:]
    /// The size of the pieces in which the upstreams' bytes arrive.
    var piece = Int.max
    private var answered: Set<String> = []
    private var served: Set<String> = []
    /// Called once for each request that is all there.
    var answer: (HTTP2Server, UInt32) -> Void = Farm.byPath

    init(
        endpoints: [UInt16] = [8001], policy: RoutePolicy = RoutePolicy(), settings: [(UInt16, UInt32)] = [],
        configure: (inout ProxyConfiguration) -> Void = { _ in }
    ) {
        scene = Scene(endpoints: endpoints, policy: policy, speaking: .h2c, configure: configure)
        scene.answersRequests = false
        self.settings = settings
    }

    /// `/len/COUNT/SEED`; `/trailers/COUNT/SEED`; `/nothing`.
    static func byPath(_ server: HTTP2Server, _ stream: UInt32) {
        let path = server[stream].value(":path")?.split(separator: "?").first ?? ""
        let parts = path.split(separator: "/")
        let count = parts.count > 1 ? Int(parts[1]) ?? 0 : 0
        let body = pattern(count, parts.count > 2 ? Int(parts[2]) ?? 0 : 0)
        let isHead = server[stream].value(":method") == "HEAD"
        let mark = ("x-body", digest(server[stream].body))
        switch parts.first.map(String.init) ?? "" {
        case "len": server.respond(stream, "200", [("content-length", "\(count)"), mark], body: isHead ? nil : body)
        case "trailers": server.respond(stream, "200", [mark], body: body, trailers: [("x-sum", "\(count)")])
        case "nothing": server.respond(stream, "204", [mark])
        default: server.respond(stream, "200", [mark], body: body)
        }
    }

    /// Answers nothing until told to.
    static func silent(_ server: HTTP2Server, _ stream: UInt32) {}

    func caller(settings: [(UInt16, UInt32)] = []) -> Caller {
        let caller = Caller(scene, settings: settings)
        callers.append(caller)
        return caller
    }

    func server(_ index: Int = 0) throws -> HTTP2Server {
        let descriptors = scene.openedUpstreams
        return try #require(index < descriptors.count ? servers[descriptors[index]] : nil)
    }

    func server(at port: UInt16) -> HTTP2Server? {
        scene.network.opened.first { $0.address.port == port }.flatMap { servers[$0.descriptor] }
    }

    private func send(_ descriptor: Int32, _ bytes: [UInt8], _ piece: Int) throws {
        var rest = bytes[...]
        while !rest.isEmpty {
            let part = rest.prefix(piece)
            rest = rest.dropFirst(part.count)
            scene.network.send(descriptor, part)
            try scene.settle()
        }
    }

    /// Everything that anybody has to say is said.
    func settle() throws {
        for _ in 0..<20_000 {
            try scene.settle()
            var moved = false
            for (i, descriptor) in scene.openedUpstreams.enumerated() {
                let server: HTTP2Server
                if let known = servers[descriptor] {
                    server = known
                } else {
                    server = HTTP2Server(settings: settingsAt[scene.network.opened[i].address.port] ?? settings)
                    servers[descriptor] = server
                }
                let came = scene.network.take(descriptor, .max)
                server.receive(came)
                for (id, stream) in server.streams.sorted(by: { $0.key < $1.key })
                where stream.isEnded && stream.reset == nil && id <= server.lastStream
                    && answered.insert("\(descriptor) \(id)").inserted
                {
                    answer(server, id)
                }
                // Who is not spoken to by HTTP/2 says nothing.
                let made = server.sawPreface ? server.takeOutput() : []
                if !made.isEmpty, !scene.network.isClosed(descriptor) { try send(descriptor, made, piece) }
                moved = moved || !came.isEmpty || !made.isEmpty
            }
            for caller in callers {
                let made = caller.client.takeOutput()
                if !made.isEmpty { try send(caller.descriptor, made, caller.piece) }
                let came = scene.network.take(caller.descriptor, .max)
                caller.client.receive(came)
                moved = moved || !came.isEmpty || !made.isEmpty
            }
            if !moved { return }
        }
        Issue.record("the conversation never came to rest")
    }

    /// Answers what was not answered when it came; true if there was any.
    func serveAll() -> Bool {
        var moved = false
        for (descriptor, server) in servers {
            for (id, stream) in server.streams
            where stream.isEnded && stream.reset == nil && served.insert("\(descriptor) \(id)").inserted {
                Farm.byPath(server, id)
                moved = true
            }
        }
        return moved
    }

    /// The connections to upstreams that are open.
    var open: Int { scene.openedUpstreams.count { !scene.network.isClosed($0) } }

    /// What an HTTP/1.1 client gets for `text`.
    func ask(_ client: Int32, _ text: String, toHead: Bool = false) throws -> [TestMessage] {
        scene.network.send(client, Array(text.utf8))
        try settle()
        var bytes: [UInt8] = []
        while true {
            let came = scene.network.take(client, .max)
            if came.isEmpty { break }
            bytes += came
            try settle()
        }
        var result: [TestMessage] = []
        while !bytes.isEmpty {
            guard
                let (message, count) = try TestParse.message(
                    bytes, isResponse: true, toHead: toHead, atEnd: scene.network.hasEnded(client))
            else {
                Issue.record("half a response: \(String(decoding: bytes, as: UTF8.self).prefix(300))")
                return result
            }
            result.append(message)
            bytes.removeFirst(count)
        }
        return result
    }

    /// Nothing is in flight, and nothing is held.
    func checkQuiet(_ location: SourceLocation = #_sourceLocation) {
        scene.checkQuiet(location)
        for server in servers.values { #expect(server.sawPreface || server.frames.isEmpty, sourceLocation: location) }
    }
}

/// A client of HTTP/2.
private final class Caller {
    let client: HTTP2Client
    let descriptor: Int32
    var piece = Int.max

    init(_ scene: Scene, settings: [(UInt16, UInt32)]) {
        client = HTTP2Client(settings: settings)
        descriptor = scene.client()
    }

    subscript(_ stream: UInt32) -> TestStream { client[stream] }
}

extension TestStream {
    /// The status of the response itself.
    fileprivate var final: String? {
        blocks.compactMap { block in block.first { $0.name == ":status" }?.value }.last { !$0.hasPrefix("1") }
    }
}

private let call = [("content-type", "application/grpc+proto"), ("te", "trailers")]

struct LoopHTTP2UpstreamTests {
    // MARK: Messages

    @Test(arguments: [1, 5, 9, 30, Int.max])
    func anHTTP11ClientIsServed(piece: Int) throws {
        let farm = Farm()
        farm.piece = piece
        let client = farm.scene.client()
        let answers = try farm.ask(
            client,
            "GET /len/10/1?q HTTP/1.1\r\nHost: Shop.test\r\nX-B: c\r\nConnection: x-b, keep-alive\r\nX-C: d\r\n\r\n"
                + "GET /trailers/0/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        #expect(answers.map(\.body) == [pattern(10, 1), []])
        #expect(answers.map(\.status) == [200, 200])
        #expect(answers.first?.values("content-length") == ["10"])
        #expect(answers.last?.trailers.map(\.0) == ["x-sum"])
        let request = try farm.server()[1]
        #expect(request.value(":method") == "GET" && request.value(":path") == "/len/10/1?q")
        #expect(request.value(":authority") == "Shop.test" && request.value(":scheme") == "http")
        #expect(request.value("host") == nil && request.value("connection") == nil && request.value("x-b") == nil)
        #expect(request.value("x-c") == "d" && request.value("x-forwarded-proto") == "http")
        #expect(request.isEnded && farm.open == 1)
        farm.checkQuiet()
    }

    @Test func trailersBehindALengthOfNothingArePassedOn() throws {
        let farm = Farm()
        farm.answer = { server, stream in
            let fields = [("content-length", "0"), ("trailer", "x-sum")]
            server.respond(stream, "200", fields, body: [], trailers: [("x-sum", "7")])
        }
        let caller = farm.caller()
        caller.client.post(1, "/", [("content-length", "0"), ("trailer", "checksum")])
        caller.client.headers(1, [("checksum", "7")], ends: true)
        // One that does not say so has none, and its length.
        caller.client.post(3, "/", [("content-length", "0")])
        caller.client.data(3, [], ends: true)
        try farm.settle()
        for stream: UInt32 in [1, 3] {
            #expect(caller[stream].final == "200" && caller[stream].isEnded && caller[stream].body.isEmpty)
            #expect(caller[stream].value("x-sum", in: 1) == "7")
        }
        let server = try farm.server()
        #expect(server[1].value("checksum", in: 1) == "7" && server[1].isEnded && server[1].body.isEmpty)
        #expect(server[3].value("content-length") == "0" && server[3].isEnded)
        let answers = try farm.ask(farm.scene.client(), "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        #expect(answers.map(\.status) == [200] && answers.first?.body.isEmpty == true)
        #expect(answers.first?.trailers.map(\.0) == ["x-sum"])
        farm.checkQuiet()
    }

    @Test(arguments: [1, 7, 400, Int.max])
    func anHTTP2ClientIsServed(piece: Int) throws {
        let farm = Farm()
        farm.piece = piece
        let caller = farm.caller()
        caller.piece = piece
        caller.client.get(1, "/len/300/1", [("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers")])
        caller.client.post(3, "/trailers/20/2")
        caller.client.data(3, Array("hello".utf8))
        caller.client.headers(3, [("checksum", "7")], ends: true)
        caller.client.post(5, "/trailers/9/2", [("content-length", "5")])
        caller.client.data(5, Array("hello".utf8))
        caller.client.headers(5, [("checksum", "8")], ends: true)
        try farm.settle()
        #expect(caller[1].body == pattern(300, 1) && caller[1].isEnded && caller[1].status == "200")
        #expect(caller[3].body == pattern(20, 2) && caller[3].isEnded)
        #expect(caller[3].value("x-sum", in: 1) == "20" && caller[5].value("x-sum", in: 1) == "9")
        #expect(caller[3].value("x-body") == digest(Array("hello".utf8)))
        let server = try farm.server()
        #expect(server[1].value("cookie") == "a=1; b=2" && server[1].value("te") == "trailers")
        #expect(server[3].value("checksum", in: 1) == "7" && server[5].value("checksum", in: 1) == "8")
        #expect(server[3].value("content-length") == nil && server[5].value("content-length") == "5")
        #expect(server[3].value("transfer-encoding") == nil)
        #expect(farm.open == 1)
        farm.checkQuiet()
    }

    @Test func bodilessResponses() throws {
        let farm = Farm()
        let client = farm.scene.client()
        let head = try farm.ask(client, "HEAD /len/700/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n", toHead: true)
        #expect(head.first?.value("content-length") == "700")
        let nothing = try farm.ask(client, "GET /nothing HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        #expect(nothing.map(\.status) == [204])
        farm.answer = { server, stream in server.respond(stream, "404", [("grpc-status", "5")]) }
        let empty = try farm.ask(client, "GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        #expect(empty.first?.value("content-length") == "0", "an HTTP/1.1 client has to be told that nothing comes")
        let caller = farm.caller()
        caller.client.get(1, "/a")
        try farm.settle()
        #expect(caller[1].isEnded && caller[1].value("content-length") == nil && caller[1].value("grpc-status") == "5")
        let frames = caller.client.frames.filter { $0.stream == 1 }
        #expect(frames.map(\.type) == [TestFrame.headers], "a head and nothing else stays one")
        farm.checkQuiet()
    }

    @Test func interimResponsesAndExpectations() throws {
        let farm = Farm()
        farm.answer = Farm.silent
        let client = farm.scene.client()
        farm.scene.network.send(
            client, Array("PUT / HTTP/1.1\r\nHost: shop.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n".utf8)
        )
        try farm.settle()
        let server = try farm.server()
        #expect(server[1].value("expect") == "100-continue" && !server[1].isEnded)
        server.headers(1, [(":status", "103"), ("link", "</a>")], ends: false)
        server.headers(1, [(":status", "100")], ends: false)
        try farm.settle()
        let interim = String(decoding: farm.scene.network.take(client, .max), as: UTF8.self)
        #expect(interim.hasPrefix("HTTP/1.1 103 ") && interim.contains("link: </a>"))
        #expect(interim.contains("HTTP/1.1 100 Continue"))
        farm.scene.network.send(client, Array("hello".utf8))
        try farm.settle()
        #expect(server[1].isEnded && server[1].text == "hello")
        server.respond(1, "200", body: Array("ok".utf8))
        #expect(try farm.ask(client, "").map(\.body) == [Array("ok".utf8)])
        farm.checkQuiet()
    }

    @Test(arguments: [1_000, 65_536])
    func largeBodiesBothWays(capacity: Int) throws {
        let farm = Farm()
        farm.scene.network.outboundCapacity = capacity
        let caller = farm.caller()
        let body = pattern(400_000, 3)
        for stream: UInt32 in [1, 3, 5] { caller.client.post(stream, "/len/500000/\(stream)") }
        var sent = 0
        while sent < body.count {
            let part = Array(body[sent..<min(body.count, sent + 15_000)])
            sent += part.count
            for stream: UInt32 in [1, 3, 5] { caller.client.data(stream, part, ends: sent == body.count) }
            try farm.settle()
        }
        for stream: UInt32 in [1, 3, 5] {
            #expect(caller[stream].body == pattern(500_000, Int(stream)) && caller[stream].isEnded)
            #expect(caller[stream].value("x-body") == digest(body))
        }
        #expect(farm.open == 1)
        farm.checkQuiet()
    }

    // MARK: The pool

    @Test func manyRequestsShareFewConnections() throws {
        let farm = Farm()
        let callers = (0..<3).map { _ in farm.caller() }
        for caller in callers {
            for i in 0..<100 { caller.client.get(UInt32(2 * i + 1), "/len/\(i * 31)/\(i)") }
        }
        try farm.settle()
        for caller in callers {
            for i in 0..<100 { #expect(caller[UInt32(2 * i + 1)].body == pattern(i * 31, i)) }
        }
        #expect(farm.open <= 3)
        farm.checkQuiet()
    }

    @Test(arguments: [1, 4, 20])
    func whatAnEndpointTakesIsKeptTo(most: UInt32) throws {
        let farm = Farm(settings: [(3, most)])
        farm.answer = Farm.silent
        let caller = farm.caller()
        for i in 0..<40 { caller.client.get(UInt32(2 * i + 1), "/len/\(i)/1") }
        try farm.settle()
        // Of what went out before the endpoint had said so, it refuses the rest.
        for server in farm.servers.values {
            let open = server.streams.filter { $0.value.reset == nil }.keys.sorted()
            for stream in open.dropFirst(Int(most)) { server.reset(stream, 7) }
        }
        try farm.settle()
        while farm.serveAll() { try farm.settle() }
        let statuses = (0..<40).map { caller[UInt32(2 * $0 + 1)].status }
        #expect(statuses.allSatisfy { $0 == "200" })
        #expect(farm.open <= 64)
        farm.checkQuiet()
    }

    @Test func anEndpointThatTakesNoneForNowIsPassedOver() throws {
        let farm = Farm(endpoints: [8001, 8002])
        farm.settingsAt[8001] = [(3, 0)]
        var refused = 0
        farm.answer = { server, stream in
            // Those that were on their way before it had said so it refuses.
            if server === farm.server(at: 8001) {
                refused += 1
                server.reset(stream, 7)
            } else {
                Farm.byPath(server, stream)
            }
        }
        let caller = farm.caller()
        for stream in stride(from: UInt32(1), to: 60, by: 2) {
            caller.client.post(stream, "/len/\(stream)/1")
            caller.client.data(stream, pattern(100, 1), ends: true)
            if stream % 20 == 19 { try farm.settle() }
        }
        for stream in stride(from: UInt32(1), to: 60, by: 2) {
            #expect(caller[stream].body == pattern(Int(stream), 1) && caller[stream].isEnded, "stream \(stream)")
        }
        #expect(refused <= 5)
        farm.checkQuiet()
    }

    @Test(arguments: [false, true])
    func whoGetsNoTurnInTimeGoesToAnotherConnection(takesNone: Bool) throws {
        let farm = Farm { $0.timeouts.connect = 2_000 }
        farm.answer = Farm.silent
        let caller = farm.caller()
        caller.client.get(1, "/len/3/1")
        try farm.settle()
        let server = try farm.server()
        // One that lives drops to none; what it has begun goes on.
        server.send(TestFrame(TestFrame.settings, HTTP2Client.payload([(3, 0)])))
        try farm.settle()
        caller.client.get(3, "/len/4/1")
        caller.client.headers(5, HTTP2Client.fields("POST", "/a.B/C", call), ends: true)
        caller.client.post(7, "/len/4/1")
        caller.client.data(7, pattern(100, 1), ends: true)
        try farm.settle()
        #expect(server.streams.count == 1 && caller[3].status == nil)
        if takesNone {
            farm.settings = [(3, 0)]
            farm.answer = { server, stream in server.reset(stream, 7) }
        } else {
            farm.answer = Farm.byPath
        }
        farm.scene.advance(milliseconds: 2_100)
        try farm.settle()
        #expect(farm.scene.openedUpstreams.count == 2)
        farm.scene.advance(milliseconds: 2_100)
        try farm.settle()
        #expect(caller[3].status == (takesNone ? "503" : "200") && caller[7].status == caller[3].status)
        #expect(caller[5].status == "200" && caller[5].value("grpc-status") == (takesNone ? "14" : nil))
        Farm.byPath(server, 1)
        try farm.settle()
        #expect(caller[1].body == pattern(3, 1))
        farm.checkQuiet()
    }

    @Test func whoGetsItsTurnLateIsServed() throws {
        let farm = Farm {
            $0.timeouts.connect = 2_000
            $0.timeouts.responseHead = 10_000
        }
        farm.settings = [(3, 1)]
        farm.answer = Farm.silent
        let caller = farm.caller()
        caller.client.get(1, "/len/3/1")
        try farm.settle()
        let server = try farm.server()
        server.send(TestFrame(TestFrame.settings, HTTP2Client.payload([(3, 0)])))
        try farm.settle()
        for stream: UInt32 in [3, 5] { caller.client.post(stream, "/len/4/1") }
        caller.client.data(3, pattern(100, 1), ends: true)
        try farm.settle()
        farm.scene.advance(milliseconds: 1_500)
        server.send(TestFrame(TestFrame.settings, HTTP2Client.payload([(3, 100)])))
        try farm.settle()
        #expect(server.streams.count == 3)
        farm.scene.advance(milliseconds: 2_000)
        caller.client.data(5, pattern(100, 1), ends: true)
        try farm.settle()
        for stream: UInt32 in [1, 3] { Farm.byPath(server, stream) }
        try farm.settle()
        #expect(caller[1].body == pattern(3, 1) && caller[3].body == pattern(4, 1))
        farm.scene.advance(milliseconds: 9_000)
        try farm.settle()
        #expect(caller[5].status == nil)
        farm.scene.advance(milliseconds: 2_000)
        try farm.settle()
        #expect(caller[5].status == "504")
        farm.checkQuiet()
    }

    @Test func aRequestThatWasRefusedIsSentAgain() throws {
        let farm = Farm()
        var refused = 0
        farm.answer = { server, stream in
            refused += 1
            if refused <= 2 { server.reset(stream, 7) } else { Farm.byPath(server, stream) }
        }
        let caller = farm.caller()
        caller.client.post(1, "/len/5/1")
        caller.client.data(1, pattern(60_000, 2), ends: true)
        try farm.settle()
        #expect(caller[1].body == pattern(5, 1) && refused == 3)
        #expect(caller[1].value("x-body") == digest(pattern(60_000, 2)), "with its body")
        farm.answer = { server, stream in server.reset(stream, 7) }
        caller.client.get(3, "/")
        try farm.settle()
        #expect(caller[3].status == "502", "not for ever")
        farm.checkQuiet()
    }

    @Test func whatAConnectionThatGoesHasNotTakenGoesElsewhere() throws {
        let farm = Farm()
        farm.answer = Farm.silent
        let caller = farm.caller()
        for i in 0..<10 {
            caller.client.post(UInt32(2 * i + 1), "/len/\(i + 1)/1")
            caller.client.data(UInt32(2 * i + 1), pattern(1_000, i), ends: i % 2 == 0)
        }
        try farm.settle()
        let first = try farm.server()
        #expect(first.streams.count == 10)
        farm.answer = Farm.byPath
        first.goAway(last: 0x7fff_ffff)
        try farm.settle()
        first.goAway(last: 7)
        try farm.settle()
        for i in 0..<10 where i % 2 == 1 { caller.client.data(UInt32(2 * i + 1), [1, 2, 3], ends: true) }
        caller.client.get(101, "/len/3/3")
        try farm.settle()
        // Those up to the seventh are its own still.
        for stream: UInt32 in [1, 3, 5, 7] where first[stream].isEnded && stream % 4 == 1 { Farm.byPath(first, stream) }
        try farm.settle()
        for i in 0..<10 {
            let stream = UInt32(2 * i + 1)
            #expect(caller[stream].body == pattern(i + 1, 1) && caller[stream].isEnded, "stream \(stream)")
            let body = pattern(1_000, i) + (i % 2 == 1 ? [1, 2, 3] : [])
            #expect(caller[stream].value("x-body") == digest(body))
        }
        #expect(caller[101].body == pattern(3, 3))
        #expect(farm.open == 1 && farm.scene.openedUpstreams.count == 2, "the one that went is closed")
        farm.checkQuiet()
    }

    @Test func oneGoAwayAfterTheOtherLosesNothing() throws {
        let farm = Farm()
        var count = 0
        farm.answer = { server, stream in
            count += 1
            Farm.byPath(server, stream)
            if count % 5 == 0, !server.isGoingAway { server.goAway(last: stream) }
        }
        let caller = farm.caller()
        for i in 0..<100 {
            caller.client.post(UInt32(2 * i + 1), "/len/\(i)/1")
            caller.client.data(UInt32(2 * i + 1), pattern(100, i), ends: true)
            if i % 7 == 0 { try farm.settle() }
        }
        try farm.settle()
        for i in 0..<100 {
            #expect(caller[UInt32(2 * i + 1)].body == pattern(i, 1), "request \(i): \(caller[UInt32(2 * i + 1)])")
        }
        farm.checkQuiet()
    }

    @Test func idleConnectionsAreClosed() throws {
        let farm = Farm { $0.timeouts.upstreamIdle = 3_000 }
        let caller = farm.caller()
        caller.client.get(1, "/len/1/1")
        try farm.settle()
        farm.scene.advance(milliseconds: 2_000)
        #expect(farm.open == 1)
        farm.scene.advance(milliseconds: 3_000)
        #expect(farm.open == 0)
        let server = try farm.server()
        server.receive(farm.scene.network.take(farm.scene.openedUpstreams[0], .max))
        #expect(server.goAways.map(\.code) == [0], "and are told why")
        caller.client.get(3, "/len/1/1")
        try farm.settle()
        #expect(caller[3].status == "200" && farm.open == 1)
        farm.checkQuiet()
    }

    @Test func anEndpointThatLeavesFinishesWhatItCarries() throws {
        let farm = Farm()
        farm.answer = Farm.silent
        let caller = farm.caller()
        caller.client.get(1, "/len/9/1")
        try farm.settle()
        farm.scene.publish([8002], generation: 2, speaking: .h2c)
        farm.answer = Farm.byPath
        caller.client.get(3, "/len/8/1")
        try farm.settle()
        #expect(caller[3].body == pattern(8, 1) && caller[1].status == nil && farm.open == 2)
        Farm.byPath(try farm.server(), 1)
        try farm.settle()
        #expect(caller[1].body == pattern(9, 1) && farm.open == 1)
        // The new ones are closed when the process goes.
        farm.scene.loop.drain()
        caller.client.get(5, "/len/8/1")
        try farm.settle()
        farm.scene.loop.closeAll()
        #expect(farm.open == 0)
    }

    @Test func aProtocolThatChangesChangesTheConnections() throws {
        let farm = Farm()
        let caller = farm.caller()
        caller.client.get(1, "/len/9/1")
        try farm.settle()
        #expect(caller[1].status == "200")
        farm.scene.publish([8001], generation: 2, speaking: .http)
        caller.client.get(3, "/len/9/1")
        try farm.settle()
        #expect(farm.scene.openedUpstreams.count == 2)
        let bytes = farm.servers[farm.scene.openedUpstreams[1]]
        #expect(bytes?.sawPreface == false)
        caller.client.reset(3)
        try farm.settle()
        farm.scene.checkQuiet()
    }

    /// What is sent again is said in the protocol of now, whichever the first attempt was made in; but a body that has gone
    /// in the form of the other one is not.
    @Test func aRequestIsSentAgainInAnotherProtocol() throws {
        let farm = Farm()
        farm.answer = Farm.silent
        let caller = farm.caller()
        caller.client.get(1, "/len/9/1")
        caller.client.post(5, "/len/9/1")
        caller.client.data(5, pattern(1_000, 1), ends: true)
        try farm.settle()
        farm.scene.publish([8001], generation: 2, speaking: .http)
        try farm.server().reset(1, 7)
        try farm.server().reset(3, 7)
        try farm.settle()
        let second = try #require(farm.scene.openedUpstreams.dropFirst().first)
        #expect(farm.servers[second]?.sawPreface == false, "HTTP/1.1")
        farm.scene.network.send(second, Array("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".utf8))
        try farm.settle()
        #expect(caller[1].status == "200" && caller[1].body == Array("ok".utf8) && caller[1].isEnded)
        #expect(caller[5].status == "502")
        // And back: an idle connection that closes under its request.
        caller.client.get(7, "/len/9/1")
        try farm.settle()
        farm.scene.publish([8001], generation: 3, speaking: .h2c)
        farm.answer = Farm.byPath
        farm.scene.network.end(second)
        try farm.settle()
        #expect(caller[7].status == "200" && caller[7].body == pattern(9, 1))
        farm.checkQuiet()
    }

    @Test func whoWaitsForAConnectionThatFailsTriesAnother() throws {
        let farm = Farm(endpoints: [8001, 8002])
        farm.scene.network.refusing = [8001]
        let caller = farm.caller()
        for i in 0..<20 { caller.client.get(UInt32(2 * i + 1), "/len/\(i)/1") }
        try farm.settle()
        for i in 0..<20 { #expect(caller[UInt32(2 * i + 1)].body == pattern(i, 1)) }
        farm.scene.network.refusing = [8001, 8002]
        farm.scene.publish([8001], generation: 2, speaking: .h2c)
        caller.client.get(101, "/")
        caller.client.get(103, "/")
        try farm.settle()
        #expect(caller[101].status == "502" && caller[103].status == "502")
        farm.checkQuiet()
    }

    @Test func aConnectionThatNeverStandsRunsOutOfTime() throws {
        let farm = Farm { $0.timeouts.connect = 2_000 }
        let a = farm.scene.client()
        let b = farm.scene.client()
        for client in [a, b] {
            farm.scene.network.send(client, Array("GET /len/3/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n".utf8))
            farm.scene.network.deliver(client, .max)
        }
        farm.scene.dispatch()
        #expect(farm.scene.network.opened.count == 1, "both wait for the same")
        farm.scene.advance(milliseconds: 2_100)
        let text = [a, b].map { String(decoding: farm.scene.network.take($0, .max).prefix(12), as: UTF8.self) }
        #expect(text == ["HTTP/1.1 504", "HTTP/1.1 504"])
        farm.scene.checkQuiet()
    }

    // MARK: Flow

    @Test func slowClientsHoldUpNobodyOnTheirConnection() throws {
        let farm = Farm { $0.timeouts.streamIdle = 50_000 }
        var slow: [Caller] = []
        for _ in 0..<30 {
            let caller = farm.caller(settings: [(4, 0)])
            caller.client.opensWindows = false
            caller.client.get(1, "/len/400000/1")
            slow.append(caller)
        }
        try farm.settle()
        #expect(slow.allSatisfy { $0[1].status == "200" && $0[1].body.isEmpty })
        let quick = farm.caller()
        quick.client.get(1, "/len/2000000/2")
        try farm.settle()
        #expect(quick[1].body == pattern(2_000_000, 2))
        #expect(farm.open == 1)
        // What one of them holds is its two windows' worth.
        let held = farm.scene.loop.upstreamConnections.elements.reduce(0) { $0 + ($1.input?.count ?? 0) }
        #expect(held <= 30 * 65_535)
        for caller in slow {
            caller.client.opensWindows = true
            caller.client.openWindow(0, 1_000_000)
            caller.client.openWindow(1, 1_000_000)
        }
        try farm.settle()
        for caller in slow { #expect(caller[1].body == pattern(400_000, 1) && caller[1].isEnded) }
        farm.checkQuiet()
    }

    @Test func anEndpointThatTakesNothingHoldsItsClientBack() throws {
        let farm = Farm()
        farm.answer = Farm.silent
        let caller = farm.caller()
        caller.client.get(1, "/")
        try farm.settle()
        let server = try farm.server()
        server.opensWindows = false
        caller.client.post(3, "/len/1/1")
        caller.client.data(3, pattern(65_535, 1))
        try farm.settle()
        caller.client.data(3, pattern(65_535, 2))
        try farm.settle()
        // The endpoint's window is one body's worth; what waits behind it is a buffer, and the client's window.
        #expect(server[3].body.count == 65_535)
        let opened = caller.client.frames.filter { $0.type == TestFrame.windowUpdate && $0.stream == 3 }
        let total = opened.reduce(0) { $0 + Int($1.payload.reduce(UInt32(0)) { $0 << 8 | UInt32($1) }) }
        #expect(total <= 131_070)
        server.opensWindows = true
        server.openWindow(0, 10_000_000)
        server.openWindow(3, 10_000_000)
        caller.client.data(3, [9], ends: true)
        try farm.settle()
        #expect(server[3].body == pattern(65_535, 1) + pattern(65_535, 2) + [9])
        Farm.byPath(server, 3)
        Farm.byPath(server, 1)
        try farm.settle()
        #expect(caller[3].isEnded)
        farm.checkQuiet()
    }

    // MARK: Ends

    @Test func aClientThatGoesCancelsItsStreamAlone() throws {
        let farm = Farm()
        farm.answer = Farm.silent
        let caller = farm.caller()
        let gone = farm.scene.client()
        farm.scene.network.send(gone, Array("GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n".utf8))
        try farm.settle()
        caller.client.post(1, "/b")
        caller.client.get(3, "/len/5/1")
        caller.client.get(5, "/c")
        try farm.settle()
        let server = try farm.server()
        // Before the response, in the middle of it, and with an upload that goes on.
        server.headers(7, [(":status", "200")], ends: false)
        server.data(7, pattern(10, 1))
        try farm.settle()
        #expect(caller[5].body == pattern(10, 1))
        farm.scene.network.reset(gone)
        caller.client.reset(1)
        caller.client.reset(5)
        try farm.settle()
        #expect([1, 3, 7].map { server[$0].reset } == [8, 8, 8])
        Farm.byPath(server, 5)
        // What was on its way is dropped, and its part of the window comes back.
        for _ in 0..<4 { server.data(7, pattern(16_000, 1)) }
        try farm.settle()
        #expect(caller[3].body == pattern(5, 1) && farm.open == 1)
        caller.client.get(7, "/len/2000000/1")
        farm.answer = Farm.byPath
        try farm.settle()
        #expect(caller[7].body == pattern(2_000_000, 1), "the connection's window is whole")
        farm.checkQuiet()
    }

    @Test func anEndpointThatResets() throws {
        let farm = Farm()
        farm.answer = Farm.silent
        let caller = farm.caller()
        for stream: UInt32 in [1, 3, 5, 7] { caller.client.get(stream, "/len/3/1") }
        try farm.settle()
        let server = try farm.server()
        server.reset(1, 2)
        server.headers(3, [(":status", "200")], ends: false)
        server.data(3, [1, 2, 3])
        try farm.settle()
        server.reset(3, 2)
        server.headers(5, [(":status", "200"), ("content-length", "10")], ends: false)
        server.data(5, [1, 2, 3], ends: true)
        try farm.settle()
        #expect(caller[1].status == "502" && caller[1].isEnded, "not tried again: it may have been carried out")
        #expect(caller[3].body == [1, 2, 3] && caller[3].reset == 2 && !caller[3].isEnded)
        #expect(caller[5].reset == 2 && !caller[5].isEnded, "too short is no end")
        Farm.byPath(server, 7)
        try farm.settle()
        #expect(caller[7].body == pattern(3, 1) && farm.open == 1)
        farm.checkQuiet()
    }

    @Test func anEarlyAnswerEndsTheUpload() throws {
        let farm = Farm()
        farm.answer = Farm.silent
        let caller = farm.caller()
        caller.client.post(1, "/")
        caller.client.data(1, pattern(50_000, 1))
        try farm.settle()
        let server = try farm.server()
        server.respond(1, "413", body: Array("no".utf8))
        server.reset(1, 0)
        try farm.settle()
        #expect(caller[1].status == "413" && caller[1].text == "no" && caller[1].isEnded)
        caller.client.post(3, "/")
        caller.client.data(3, pattern(50_000, 1))
        try farm.settle()
        server.respond(3, "403", body: [])
        try farm.settle()
        #expect(caller[3].status == "403" && server[3].reset == 8)
        #expect(farm.open == 1)
        farm.checkQuiet()
    }

    @Test func malformedResponsesAreNotPassedOn() throws {
        let farm = Farm()
        let cases: [[(String, String)]] = [
            [(":status", "200"), ("connection", "close")],
            [(":status", "200"), ("transfer-encoding", "chunked")],
            [(":status", "200"), ("X-Upper", "1")],
            [(":status", "2x0")],
            [(":status", "101"), ("upgrade", "websocket")],
            [("x", "y")],
            [(":status", "200"), (":path", "/")],
            [(":status", "200"), ("x", "a\r\nb: c")],
            [(":status", "200"), ("content-length", "1"), ("content-length", "2")],
            [(":status", "200"), ("x", String(repeating: "y", count: 100_000))],
        ]
        let caller = farm.caller()
        for (i, fields) in cases.enumerated() {
            farm.answer = { server, stream in
                var rest = HTTP2Client.block(fields)[...]
                var type = TestFrame.headers
                repeat {
                    let part = rest.prefix(16_384)
                    rest = rest.dropFirst(part.count)
                    server.send(
                        TestFrame(
                            type, flags: (rest.isEmpty ? 4 : 0) | (type == 1 ? 1 : 0), stream: stream, Array(part)))
                    type = TestFrame.continuation
                } while !rest.isEmpty
            }
            let stream = UInt32(2 * i + 1)
            caller.client.get(stream, "/")
            try farm.settle()
            #expect(caller[stream].status == "502" && caller[stream].isEnded, "case \(i)")
        }
        farm.answer = Farm.byPath
        caller.client.get(101, "/len/3/1")
        try farm.settle()
        #expect(caller[101].status == "200")
        farm.checkQuiet()
    }

    /// A server that floods is ended, alone; who waited for it is told.
    @Test(arguments: ["ping", "settings", "hints", "empty-data", "continuation", "bomb", "push", "garbage"])
    func floodsOfAnEndpointEndItsConnection(kind: String) throws {
        let farm = Farm()
        farm.answer = Farm.silent
        let caller = farm.caller()
        caller.client.get(1, "/")
        try farm.settle()
        let server = try farm.server()
        let descriptor = farm.scene.openedUpstreams[0]
        for i in 0..<3_000
        where !farm.scene.network.isClosed(descriptor)
            && (kind == "empty-data" ? caller[1].reset == nil : caller[1].final == nil)
        {
            switch kind {
            case "ping": server.send(TestFrame(TestFrame.ping, Array("12345678".utf8)))
            case "settings": server.send(TestFrame(TestFrame.settings))
            case "hints": server.headers(1, [(":status", "103"), ("link", "</a>")], ends: false)
            case "empty-data":
                if i == 0 { server.headers(1, [(":status", "200")], ends: false) }
                server.send(TestFrame(TestFrame.data, stream: 1))
            case "continuation":
                let block = i == 0 ? HTTP2Client.block([(":status", "200")]) : HTTP2Client.block([("x", "y")])
                server.send(TestFrame(i == 0 ? TestFrame.headers : TestFrame.continuation, flags: 0, stream: 1, block))
            case "bomb":
                let field = HTTP2Client.block([("bomb", String(repeating: "a", count: 3_000))])
                let block = HTTP2Client.block([(":status", "103")]) + [0x40] + field.dropFirst()
                server.send(
                    TestFrame(
                        TestFrame.headers, flags: 4, stream: 1,
                        i == 0 ? block : HTTP2Client.block([(":status", "103")]) + [UInt8](repeating: 0xbe, count: 500))
                )
            case "push":
                server.send(
                    TestFrame(
                        5, flags: 4, stream: 1,
                        TestFrame.word(2) + HTTP2Client.block(HTTP2Client.fields("GET", "/pushed"))))
            default: server.output += Array("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".utf8)
            }
            if i % 50 == 0 { try farm.settle() }
        }
        try farm.settle()
        if kind == "empty-data" {
            #expect(caller[1].final == "200" && caller[1].reset == 2)
        } else {
            #expect(caller[1].final == "502")
        }
        #expect(kind == "hints" || farm.scene.network.isClosed(descriptor))
        farm.answer = Farm.byPath
        caller.client.get(3, "/len/4/1")
        try farm.settle()
        #expect(caller[3].body == pattern(4, 1))
        farm.checkQuiet()
    }

    /// The endpoint goes after every byte of its answer: what the client gets is whole, or told to be broken.
    @Test(arguments: [false, true])
    func aConnectionThatEndsAnywhere(isReset: Bool) throws {
        let whole = HTTP2Server()
        whole.respond(1, "200", [("content-length", "20")], body: pattern(20, 1))
        let bytes = whole.takeOutput()
        for cut in 0...bytes.count {
            let farm = Farm()
            farm.answer = { server, stream in
                if stream == 1, farm.scene.openedUpstreams.count == 1 {
                    server.output = Array(bytes[..<cut].dropFirst(9))
                } else {
                    Farm.byPath(server, stream)
                }
            }
            let caller = farm.caller()
            caller.client.get(1, "/len/20/1")
            try farm.settle()
            let descriptor = farm.scene.openedUpstreams[0]
            if isReset { farm.scene.network.reset(descriptor) } else { farm.scene.network.end(descriptor) }
            try farm.settle()
            let stream = caller[1]
            if stream.status == "200", stream.reset == nil {
                #expect(stream.body == pattern(20, 1) && stream.isEnded, "cut at \(cut)")
            } else {
                #expect(stream.status == "502" || stream.reset == 2, "cut at \(cut): \(stream)")
            }
            #expect(farm.scene.network.isClosed(descriptor))
            caller.client.get(3, "/len/6/1")
            try farm.settle()
            #expect(caller[3].body == pattern(6, 1))
            farm.checkQuiet()
        }
    }

    @Test func anIdempotentRequestOnAConnectionThatDiedIsSentAgain() throws {
        let farm = Farm()
        let caller = farm.caller()
        caller.client.get(1, "/len/1/1")
        try farm.settle()
        farm.answer = Farm.silent
        caller.client.get(3, "/len/2/1")
        caller.client.post(5, "/len/3/1")
        caller.client.data(5, [1], ends: true)
        try farm.settle()
        farm.answer = Farm.byPath
        farm.scene.network.end(farm.scene.openedUpstreams[0])
        try farm.settle()
        #expect(caller[3].body == pattern(2, 1), "a GET")
        #expect(caller[5].status == "502", "but not what may have changed something")
        farm.checkQuiet()
    }

    // MARK: gRPC

    @Test func aCallIsAnsweredInItsOwnTerms() throws {
        let farm = Farm { $0.timeouts.total = 3_000 }
        farm.answer = Farm.silent
        let caller = farm.caller()
        // No such host; an endpoint that resets; one that takes too long, before and in the middle of its answer.
        caller.client.headers(1, HTTP2Client.fields("POST", "/a.B/C", host: "nobody.test", call), ends: true)
        for stream: UInt32 in [3, 5, 7, 9] { caller.client.post(stream, "/a.B/C", call) }
        caller.client.post(11, "/a.B/C", [("content-type", "application/grpc-web+proto")])
        try farm.settle()
        let server = try farm.server()
        server.reset(1, 2)
        server.headers(5, [(":status", "200"), ("content-type", "application/grpc")], ends: false)
        server.data(5, [0, 0, 0])
        server.reset(9, 2)
        try farm.settle()
        farm.scene.advance(milliseconds: 3_100)
        try farm.settle()
        #expect(caller[1].status == "200" && caller[1].value("grpc-status") == "12" && caller[1].isEnded)
        #expect(caller[1].value("content-type") == "application/grpc")
        #expect(caller[1].value("grpc-message") == "Not Found")
        #expect(caller[3].value("grpc-status") == "13" && caller[3].isEnded, "INTERNAL_ERROR")
        #expect(caller[5].value("grpc-status") == "4")
        #expect(caller[7].status == "200" && caller[7].body == [0, 0, 0])
        #expect(caller[7].value("grpc-status", in: 1) == "4" && caller[7].isEnded, "in its trailers")
        #expect(caller[11].status == "502", "another dialect is another's")
        #expect(server[3].reset == 8 && server[5].reset == 8, "and the endpoint is told to stop")
        farm.checkQuiet()
    }

    /// Before the response and in the middle of it.
    @Test(arguments: [
        (UInt32(0), "13"), (1, "13"), (2, "13"), (7, "14"), (8, "1"), (11, "8"), (12, "7"), (13, "13"),
    ])
    func aResetSaysWhy(code: UInt32, status: String) throws {
        let farm = Farm()
        farm.answer = Farm.silent
        let caller = farm.caller()
        for stream: UInt32 in [1, 3] { caller.client.post(stream, "/a.B/C", call) }
        try farm.settle()
        let server = try farm.server()
        server.headers(3, [(":status", "200"), ("content-type", "application/grpc")], ends: false)
        server.data(3, [0, 0, 0])
        try farm.settle()
        server.reset(3, code)
        if code != 7 { server.reset(1, code) }
        try farm.settle()
        if code != 7 { #expect(caller[1].value("grpc-status") == status && caller[1].isEnded) }
        #expect(caller[3].value("grpc-status", in: 1) == status && caller[3].isEnded && caller[3].body == [0, 0, 0])
        caller.client.reset(1)
        try farm.settle()
        farm.checkQuiet()
    }

    /// A mistake of the client's in the middle of a call has a status too.
    @Test func aCallThatSendsTooMuchIsToldSo() throws {
        var policy = RoutePolicy()
        policy.maxBodyBytes = 100
        let farm = Farm(policy: policy)
        farm.answer = Farm.silent
        let caller = farm.caller()
        caller.client.post(1, "/a.B/C", call)
        caller.client.data(1, pattern(50, 1))
        try farm.settle()
        let server = try farm.server()
        server.headers(1, [(":status", "200"), ("content-type", "application/grpc")], ends: false)
        server.data(1, [0, 0, 0])
        try farm.settle()
        caller.client.data(1, pattern(51, 1))
        try farm.settle()
        #expect(caller[1].body == [0, 0, 0] && caller[1].isEnded && caller[1].reset == 0)
        #expect(caller[1].value("grpc-status", in: 1) == "8" && server[1].reset == 8)
        farm.checkQuiet()
    }

    @Test func messagesPassBothWaysWhileACallLasts() throws {
        let farm = Farm { $0.timeouts.streamIdle = 10_000 }
        farm.answer = Farm.silent
        let caller = farm.caller()
        caller.client.post(1, "/chat", call)
        try farm.settle()
        let server = try farm.server()
        #expect(server[1].value("te") == "trailers" && server[1].value("content-type") == "application/grpc+proto")
        server.headers(1, [(":status", "200"), ("content-type", "application/grpc")], ends: false)
        // Few bytes for a long time: no rate is asked of a call.
        for i in 0..<40 {
            caller.client.data(1, [UInt8(i)])
            server.data(1, [UInt8(i), 1])
            farm.scene.advance(milliseconds: 4_000)
            try farm.settle()
            #expect(server[1].body.count == i + 1 && caller[1].body.count == 2 * (i + 1))
        }
        caller.client.data(1, [], ends: true)
        try farm.settle()
        #expect(server[1].isEnded)
        server.headers(1, [("grpc-status", "0"), ("my_meta", "1")], ends: true)
        try farm.settle()
        #expect(caller[1].value("grpc-status", in: 1) == "0" && caller[1].value("my_meta", in: 1) == "1")
        farm.checkQuiet()
    }

    /// Both ways, and whatever the names.
    @Test func theMetadataOfACallPasses() throws {
        let farm = Farm()
        let metadata = [("location", "here"), ("retry-after", "5"), ("user_id", "7"), ("range", "x")]
        farm.answer = { server, stream in
            server.headers(stream, [(":status", "200"), ("content-type", "application/grpc")], ends: false)
            server.headers(stream, metadata + [("grpc-status", "0")], ends: true)
        }
        let caller = farm.caller()
        caller.client.headers(
            1, HTTP2Client.fields("POST", "/a.B/C", call + metadata + [("x_forwarded_for", "6.6.6.6")]), ends: true)
        // What is no call loses them.
        caller.client.headers(3, HTTP2Client.fields("POST", "/", metadata), ends: true)
        try farm.settle()
        let server = try farm.server()
        for (name, value) in metadata {
            #expect(server[1].value(name) == value && caller[1].value(name, in: 1) == value, "\(name)")
            #expect(caller[3].value(name, in: 1) == (name == "user_id" ? "7" : nil), "\(name)")
        }
        #expect(server[1].value("x_forwarded_for") == nil && server[3].value("user_id") == nil)
        farm.checkQuiet()
    }

    /// A server that has no message and says a length of nothing: the status is in its trailers.
    @Test(arguments: ["application/grpc-web", "application/grpc-web-text"])
    func trailersBehindALengthOfNothingReachTheBrowser(type: String) throws {
        var policy = RoutePolicy()
        policy.bridgesGRPCWeb = true
        let farm = Farm(policy: policy)
        farm.answer = { server, stream in
            let fields = [("content-type", "application/grpc"), ("content-length", "0")]
            server.respond(stream, "200", fields, body: [], trailers: [("grpc-status", "5")])
        }
        let answers = try farm.ask(
            farm.scene.client(),
            "POST /a.B/C HTTP/1.1\r\nHost: shop.test\r\nContent-Type: \(type)\r\nContent-Length: 0\r\n\r\n")
        let isText = type.hasSuffix("text")
        let frame = [0x80, 0, 0, 0, 15] + Array("grpc-status:5\r\n".utf8)
        #expect(answers.map(\.status) == [200])
        #expect(isText ? answers[0].body.count == 28 : answers[0].body == frame)
        #expect(answers[0].value("content-length") == nil)
        let caller = farm.caller()
        caller.client.post(1, "/a.B/C", [("content-type", type)])
        caller.client.data(1, [], ends: true)
        try farm.settle()
        #expect(isText ? caller[1].body.count == 28 : caller[1].body == frame)
        #expect(caller[1].isEnded)
        farm.checkQuiet()
    }

    // MARK: All of it

    @Test(arguments: 0..<25)
    func anyPiecesAnyOrder(seed: Int) throws {
        var random = Seeded(UInt64(seed))
        // Windows that hold a body: a server that opens smaller ones byte by byte is a flood, and ended as one.
        let farm = Farm(
            endpoints: seed % 2 == 0 ? [8001] : [8001, 8002],
            settings: [
                (3, UInt32.random(in: 3...60, using: &random)), (4, UInt32.random(in: 4_000...80_000, using: &random)),
            ])
        farm.scene.network.outboundCapacity = Int.random(in: 1_000...20_000, using: &random)
        farm.piece = Int.random(in: 1...3_000, using: &random)
        var events = 0
        let chaos = Int.random(in: 8...20, using: &random)
        farm.answer = { server, stream in
            events += 1
            if events % chaos == 0, !server.isGoingAway { server.goAway(last: stream) }
            Farm.byPath(server, stream)
        }
        let callers = (0..<2).map { _ in farm.caller() }
        for caller in callers { caller.piece = Int.random(in: 1...2_000, using: &random) }
        var expected: [Int: [UInt8]] = [:]
        for i in 0..<40 {
            let caller = callers[i % 2]
            let stream = UInt32(2 * i + 1)
            let count = Int.random(in: 0...40_000, using: &random)
            if Bool.random(using: &random) {
                caller.client.get(stream, "/trailers/\(count)/\(i)")
            } else {
                caller.client.post(stream, "/len/\(count)/\(i)")
                caller.client.data(stream, pattern(Int.random(in: 0...3_000, using: &random), 1), ends: true)
            }
            if Int.random(in: 0..<6, using: &random) == 0 {
                if Bool.random(using: &random) { try farm.settle() }
                if !caller[stream].isEnded { caller.client.reset(stream) }
            } else {
                expected[i] = pattern(count, i)
            }
            if i % 8 == 0 { try farm.settle() }
        }
        try farm.settle()
        for (i, body) in expected {
            let stream = callers[i % 2][UInt32(2 * i + 1)]
            #expect(
                stream.body == body && stream.isEnded, "request \(i): \(stream.status ?? "-") \(stream.reset ?? 99)")
        }
        farm.checkQuiet()
    }
}
