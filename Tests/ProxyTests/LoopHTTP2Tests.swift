import HTTP2Testing
import HTTPWire
import Model
import Reactor
import Telemetry
import Testing

@testable import Proxy

/// A client of HTTP/2 on the simulated network.
private final class Peer {
    let scene: Scene
    let client: HTTP2Client
    let descriptor: Int32
    /// The size of the pieces in which its bytes arrive.
    var piece = Int.max

    init(_ scene: Scene, settings: [(UInt16, UInt32)] = []) {
        self.scene = scene
        client = HTTP2Client(settings: settings)
        descriptor = scene.client()
    }

    func settle() throws {
        for _ in 0..<10_000 {
            var rest = client.takeOutput()[...]
            let sent = !rest.isEmpty
            while !rest.isEmpty {
                let part = rest.prefix(piece)
                rest = rest.dropFirst(part.count)
                scene.network.send(descriptor, part)
                try scene.settle()
            }
            try scene.settle()
            let came = scene.network.take(descriptor, .max)
            client.receive(came)
            if !sent, came.isEmpty, client.output.isEmpty { return }
        }
        Issue.record("the conversation never came to rest")
    }

    subscript(_ stream: UInt32) -> TestStream { client[stream] }
}

struct LoopHTTP2Tests {
    @Test(arguments: [1, 5, 9, 30, Int.max])
    func aRequestAndItsResponse(piece: Int) throws {
        let scene = Scene()
        let peer = Peer(scene)
        peer.piece = piece
        peer.client.get(1, "/len/10/1", [("cookie", "a=1"), ("x-b", "c"), ("cookie", "b=2")])
        try peer.settle()
        #expect(peer[1].status == "200" && peer[1].isEnded && peer[1].reset == nil)
        #expect(peer[1].body == pattern(10, 1))
        #expect(peer[1].value("content-length") == "10" && peer[1].value("date") != nil)
        #expect(peer[1].value("connection") == nil)
        let request = try #require(scene.requests.first)
        #expect(request.startLine == "GET /len/10/1 HTTP/1.1")
        #expect(request.values("cookie") == ["a=1; b=2"] && request.values("host") == ["shop.test"])
        #expect(request.values("x-b") == ["c"] && request.values("x-forwarded-proto") == ["http"])
        scene.checkQuiet()
    }

    @Test func manyStreamsAtOnce() throws {
        let scene = Scene()
        let peer = Peer(scene)
        for i in 0..<100 { peer.client.get(UInt32(2 * i + 1), "/len/\(i * 37)/\(i)") }
        try peer.settle()
        for i in 0..<100 {
            #expect(peer[UInt32(2 * i + 1)].body == pattern(i * 37, i))
            #expect(peer[UInt32(2 * i + 1)].isEnded)
        }
        #expect(scene.requests.count == 100)
        scene.checkQuiet()
    }

    @Test(arguments: [true, false])
    func bodiesBothWays(hasLength: Bool) throws {
        let scene = Scene()
        let peer = Peer(scene)
        let body = pattern(300_000, 3)
        peer.client.post(1, "/len/200000/2", hasLength ? [("content-length", "300000")] : [])
        // What the window allows, then the rest as it opens.
        var sent = 0
        while sent < body.count {
            let part = Array(body[sent..<min(body.count, sent + 30_000)])
            sent += part.count
            peer.client.data(1, part, ends: sent == body.count)
            try peer.settle()
        }
        #expect(peer[1].body == pattern(200_000, 2) && peer[1].isEnded)
        let request = try #require(scene.requests.first)
        #expect(request.body == body)
        #expect(request.values("content-length") == (hasLength ? ["300000"] : []))
        #expect(request.values("transfer-encoding") == (hasLength ? [] : ["chunked"]))
        scene.checkQuiet()
    }

    @Test func trailersGoBothWays() throws {
        let scene = Scene()
        scene.answersRequests = false
        let peer = Peer(scene)
        peer.client.post(1, "/", [("te", "trailers")])
        peer.client.data(1, Array("hi".utf8))
        peer.client.headers(1, [("checksum", "7")], ends: true)
        try peer.settle()
        let upstream = try #require(scene.openedUpstreams.first)
        let sent = String(decoding: scene.network.take(upstream, .max), as: UTF8.self)
        #expect(sent.contains("TE: trailers\r\nConnection: TE\r\n"))
        #expect(sent.hasSuffix("2\r\nhi\r\n0\r\nchecksum: 7\r\n\r\n"))
        scene.network.send(
            upstream,
            Array("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nGrpc-Status: 0\r\n\r\n".utf8))
        try peer.settle()
        #expect(peer[1].text == "abc" && peer[1].isEnded)
        #expect(peer[1].value("grpc-status", in: 1) == "0")
        scene.checkQuiet()
    }

    /// A head that has come in part belongs to its connection, wherever it was cut: not to whoever speaks meanwhile.
    @Test(arguments: [false, true])
    func headsOfTwoClientsNeverMix(isRefused: Bool) throws {
        let fields = HTTP2Client.fields("GET", "/len/10/1")
        let first = HTTP2Client.block(fields + [("x-a", "1")])
        let second = HTTP2Client.block([("cookie", "mine=1"), ("x-b", "2")])
        let begin = TestFrame(1, flags: 1, stream: 1, first).bytes
        let end = TestFrame(9, flags: 4, stream: 1, second).bytes
        for cut in 0...end.count {
            let scene = Scene()
            let a = Peer(scene)
            let b = Peer(scene)
            try a.settle()
            try b.settle()
            scene.network.send(a.descriptor, begin[...])
            scene.network.send(a.descriptor, end[..<cut])
            try scene.settle()
            let bad = isRefused ? [("X-Bad", "3")] : [("x-good", "3")]
            b.client.headers(1, HTTP2Client.fields("GET", "/len/20/2") + bad, ends: true)
            try b.settle()
            scene.network.send(a.descriptor, end[cut...])
            try a.settle()
            #expect(a[1].body == pattern(10, 1) && a[1].isEnded, "cut at \(cut)")
            #expect(isRefused || b[1].body == pattern(20, 2), "cut at \(cut)")
            let request = try #require(scene.requests.first { $0.startLine == "GET /len/10/1 HTTP/1.1" })
            #expect(request.values("cookie") == ["mine=1"] && request.values("x-b") == ["2"], "cut at \(cut)")
            #expect(request.values("x-a") == ["1"] && request.values("x-good").isEmpty)
        }
    }

    /// The window of the connection is for all of its streams: what a refused body had of it comes back.
    @Test func refusedBodiesGiveBackWhatTheyHadOfTheWindow() throws {
        let scene = Scene { $0.limits.bodyBytes = 1_000 }
        let peer = Peer(scene)
        for i in 0..<40 {
            let stream = UInt32(2 * i + 1)
            peer.client.post(stream, "/len/1/1")
            try peer.settle()
            peer.client.data(stream, pattern(60_000, 1), ends: true)
            try peer.settle()
        }
        peer.client.post(101, "/len/5/5")
        peer.client.data(101, pattern(900, 1), ends: true)
        try peer.settle()
        #expect(peer[101].body == pattern(5, 5) && peer[101].isEnded)
        scene.checkQuiet()
    }

    @Test func aReaderThatStopsHoldsItsOwnStreamOnly() throws {
        let scene = Scene { $0.timeouts.streamIdle = 5_000 }
        let peer = Peer(scene, settings: [(4, 100)])
        peer.client.opensWindows = false
        peer.client.openWindow(0, 10_000_000)
        peer.client.get(1, "/len/3000000/1")
        peer.client.get(3, "/len/50000/2")
        try peer.settle()
        #expect(peer[1].body.count == 100 && peer[3].body.count == 100)
        peer.client.openWindow(3, 100_000)
        try peer.settle()
        #expect(peer[3].body == pattern(50_000, 2) && peer[3].isEnded)
        // Of the other no more was taken from its upstream than a stream may hold.
        #expect(scene.loop.buffers.lent <= 4)
        scene.advance(milliseconds: 6_000)
        try peer.settle()
        #expect(peer[1].reset == 2, "cut off, and not taken for whole")
        peer.client.get(5, "/len/3/5")
        try peer.settle()
        #expect(peer[5].body == pattern(3, 5), "the connection goes on")
        scene.checkQuiet()
    }

    @Test func aSmallResponseThatNobodyReadsIsLetGo() throws {
        let scene = Scene { $0.timeouts.streamIdle = 5_000 }
        let peer = Peer(scene, settings: [(4, 0)])
        peer.client.get(1, "/len/3000/1")
        try peer.settle()
        #expect(peer[1].status == "200" && peer[1].body.isEmpty)
        scene.advance(milliseconds: 6_000)
        try peer.settle()
        #expect(peer[1].reset == 8)
        scene.checkQuiet()
    }

    @Test func anUpstreamThatTakesNothingHoldsTheClientBack() throws {
        let scene = Scene()
        scene.answersRequests = false
        scene.network.outboundCapacity = 4_096
        let peer = Peer(scene)
        peer.client.post(1, "/")
        let body = pattern(131_070, 1)
        peer.client.data(1, Array(body.prefix(65_535)))
        try peer.settle()
        peer.client.data(1, Array(body.suffix(65_535)))
        try peer.settle()
        // What waits for the upstream is a buffer's worth; what waits behind that is the client's window.
        let opened = peer.client.frames.filter { $0.type == TestFrame.windowUpdate && $0.stream == 1 }
        #expect(opened.map(\.payload) == [TestFrame.word(65_535)])
        scene.network.widen()
        scene.answersRequests = true
        peer.client.data(1, [], ends: true)
        try peer.settle()
        #expect(peer[1].status == "200" && scene.requests.first?.body == body)
        scene.checkQuiet()
    }

    /// Uploads whose upstreams take nothing leave the connection's window to others.
    @Test func uploadsThatStandStillHoldUpNobodyElse() throws {
        let scene = Scene()
        scene.answersRequests = false
        scene.network.outboundCapacity = 4_096
        let peer = Peer(scene)
        for i in 0..<40 {
            peer.client.post(UInt32(2 * i + 1), "/")
            peer.client.data(UInt32(2 * i + 1), pattern(65_535, i))
            try peer.settle()
        }
        #expect(peer.client.goAways.isEmpty && scene.openedUpstreams.count == 40)
        peer.client.post(101, "/len/5/5")
        peer.client.data(101, pattern(900, 1), ends: true)
        try peer.settle()
        try scene.serve(try #require(scene.openedUpstreams.last), .max)
        try peer.settle()
        #expect(peer[101].body == pattern(5, 5) && peer[101].isEnded)
        scene.network.reset(peer.descriptor)
        try scene.settle()
        scene.checkQuiet()
    }

    // MARK: Ends

    @Test func aResetEndsTheUpstreamsRequestToo() throws {
        let scene = Scene()
        scene.answersRequests = false
        let peer = Peer(scene)
        peer.client.get(1, "/")
        peer.client.post(3, "/")
        try peer.settle()
        peer.client.reset(1)
        peer.client.reset(3)
        try peer.settle()
        #expect(scene.openedUpstreams.allSatisfy(scene.network.isClosed))
        #expect(!scene.network.isClosed(peer.descriptor))
        scene.checkQuiet()
    }

    @Test func anEarlyAnswerStopsTheRequest() throws {
        let scene = Scene()
        let peer = Peer(scene)
        peer.client.headers(1, HTTP2Client.fields("POST", "/", host: "nobody.test"), ends: false)
        try peer.settle()
        #expect(peer[1].status == "404" && peer[1].isEnded)
        #expect(peer[1].reset == 0, "NO_ERROR: the response counts (RFC 9113 §8.1)")
        peer.client.get(3, "/len/1/1")
        try peer.settle()
        #expect(peer[3].status == "200")
        scene.checkQuiet()
    }

    @Test(arguments: [("/cut", 2), ("/die", nil), ("/garbage", nil)] as [(String, UInt32?)])
    func brokenUpstreams(path: String, reset: UInt32?) throws {
        let scene = Scene()
        let peer = Peer(scene)
        if path == "/cut" {
            scene.answersRequests = false
            peer.client.get(1, path)
            try peer.settle()
            let upstream = try #require(scene.openedUpstreams.first)
            _ = scene.network.take(upstream, .max)
            scene.network.send(upstream, Array("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc".utf8))
            try peer.settle()
            scene.network.end(upstream)
        } else {
            peer.client.get(1, path)
        }
        try peer.settle()
        #expect(peer[1].status == (reset == nil ? "502" : "200"))
        #expect(peer[1].reset == reset && peer[1].isEnded == (reset == nil))
        scene.checkQuiet()
    }

    /// What came of a response before its upstream broke it.
    @Test(arguments: [0, 3, 50_000])
    func whatCameOfABrokenResponseIsPassedOn(count: Int) throws {
        let scene = Scene()
        scene.answersRequests = false
        let peer = Peer(scene)
        peer.client.get(1, "/")
        try peer.settle()
        let upstream = try #require(scene.openedUpstreams.first)
        _ = scene.network.take(upstream, .max)
        scene.network.send(
            upstream, Array("HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n".utf8) + pattern(count, 1))
        scene.network.end(upstream)
        try peer.settle()
        #expect(peer[1].status == "200" && peer[1].body == pattern(count, 1))
        #expect(peer[1].reset == 2 && !peer[1].isEnded)
        scene.checkQuiet()
    }

    @Test(arguments: ["opens", "never", "client resets", "client goes"])
    func aBrokenResponseWaitsForItsClient(how: String) throws {
        let scene = Scene { $0.timeouts.streamIdle = 10_000 }
        scene.answersRequests = false
        let peer = Peer(scene, settings: [(4, 1_000)])
        peer.client.opensWindows = false
        peer.client.get(1, "/")
        try peer.settle()
        let upstream = try #require(scene.openedUpstreams.first)
        _ = scene.network.take(upstream, .max)
        scene.network.send(
            upstream, Array("HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n".utf8) + pattern(3_000, 1))
        scene.network.end(upstream)
        try peer.settle()
        #expect(peer[1].body == pattern(1_000, 1) && peer[1].reset == nil && !peer[1].isEnded)
        #expect(scene.network.isClosed(upstream))
        switch how {
        case "opens":
            peer.client.openWindow(1, 1_500)
            try peer.settle()
            scene.advance(milliseconds: 9_000)
            #expect(peer[1].body == pattern(2_500, 1) && peer[1].reset == nil)
            peer.client.openWindow(1, 1_500)
            try peer.settle()
            #expect(peer[1].body == pattern(3_000, 1) && peer[1].reset == 2)
        case "never":
            scene.advance(milliseconds: 12_000)
            try peer.settle()
            #expect(peer[1].body == pattern(1_000, 1) && peer[1].reset == 8)
        case "client resets":
            peer.client.reset(1)
            try peer.settle()
        default:
            scene.network.end(peer.descriptor)
            try scene.settle()
        }
        scene.checkQuiet()
    }

    /// RFC 9113 §8.2.1 and §8.3.1: what would be another request in the text of HTTP/1.1 reaches no endpoint.
    @Test(
        arguments: [":method", ":scheme", ":path", ":authority", "value", "name", "cookie", "content-type"], [0, 1, 2])
    func noControlByteReachesAnEndpoint(field: String, position: Int) throws {
        let scene = Scene()
        for byte in Array(UInt8(0)...32) + [127] {
            let peer = Peer(scene)
            try peer.settle()
            let mark = String(decoding: [byte], as: UTF8.self)
            func spoilt(_ text: String) -> String {
                let at =
                    position == 0 ? text.startIndex : position == 1 ? text.index(after: text.startIndex) : text.endIndex
                return text[..<at] + mark + text[at...]
            }
            var fields = [(":method", "GET"), (":scheme", "http"), (":path", "/len/1/1"), (":authority", "shop.test")]
            switch field {
            case "value": fields.append(("x-value", spoilt("abc")))
            case "name": fields.append((spoilt("x-name"), "abc"))
            case "cookie": fields.append(("cookie", spoilt("a=b")))
            case "content-type": fields.append(("content-type", spoilt("a/b")))
            default: fields = fields.map { $0.0 == field ? ($0.0, spoilt($0.1)) : $0 }
            }
            let before = scene.requests.count
            peer.client.headers(1, fields, ends: true)
            try peer.settle()
            // Within a value blanks are text.
            if byte == 9 || byte == 32, !field.hasPrefix(":"), field != "name", position == 1 {
                #expect(peer[1].status == "200" && scene.requests.count == before + 1, "\(byte)")
            } else {
                #expect(peer[1].reset == 1 && scene.requests.count == before, "\(byte) \(peer[1])")
            }
            scene.network.end(peer.descriptor)
            try scene.settle()
        }
        scene.checkQuiet()
    }

    @Test func limitsAnswerAsOverHTTP1() throws {
        let scene = Scene {
            $0.limits.bodyBytes = 10
            $0.limits.fields = 5
        }
        let peer = Peer(scene)
        peer.client.post(1, "/", [("content-length", "11")])
        peer.client.post(3, "/")
        peer.client.data(3, pattern(11, 1))
        peer.client.get(5, "/", (0..<6).map { ("x\($0)", "y") })
        peer.client.get(7, "/" + String(repeating: "a", count: 9_000))
        peer.client.get(9, "/", [("x", String(repeating: "a", count: 9_000))])
        peer.client.headers(11, [(":method", "CONNECT"), (":authority", "shop.test:80")], ends: false)
        peer.client.get(13, "/", [("host", "other.test")])
        peer.client.get(15, "/a/%2e%2e/%2f")
        try peer.settle()
        let statuses = [1, 3, 5, 7, 9, 11, 13, 15].map { peer[$0].status ?? "none" }
        #expect(statuses == ["413", "413", "431", "414", "431", "405", "400", "400"])
        #expect(scene.requests.isEmpty)
        // Crumbs of a cookie are one line over HTTP/1.1.
        peer.client.get(17, "/len/1/1", (0..<300).map { ("cookie", "c\($0)=1") })
        try peer.settle()
        #expect(peer[17].status == "200" && scene.requests.first?.values("cookie").count == 1)
        scene.checkQuiet()
    }

    @Test func aClientThatGoesTakesItsStreamsWithIt() throws {
        let scene = Scene()
        scene.answersRequests = false
        for end in [true, false] {
            let peer = Peer(scene)
            for stream: UInt32 in [1, 3, 5] { peer.client.post(stream, "/") }
            try peer.settle()
            if end { scene.network.end(peer.descriptor) } else { scene.network.reset(peer.descriptor) }
            try peer.settle()
            #expect(scene.network.isClosed(peer.descriptor))
        }
        #expect(scene.loop.downstreams.count == 0)
        scene.checkQuiet()
    }

    @Test func aConnectionWithNothingToDoIsClosedKindly() throws {
        let scene = Scene { $0.timeouts.idle = 2_000 }
        let peer = Peer(scene)
        peer.client.get(1, "/len/1/1")
        try peer.settle()
        scene.advance(milliseconds: 2_100)
        try peer.settle()
        #expect(peer.client.goAways.map(\.code) == [0] && peer.client.goAways.first?.last == 1)
        scene.network.end(peer.descriptor)
        try peer.settle()
        #expect(scene.network.isClosed(peer.descriptor) && !scene.network.wasAborted(peer.descriptor))
        scene.checkQuiet()
    }

    @Test func aHeadThatDoesNotEndRunsOutOfTime() throws {
        let scene = Scene { $0.timeouts.requestHead = 3_000 }
        let peer = Peer(scene)
        try peer.settle()
        let block = HTTP2Client.block(HTTP2Client.fields("GET", "/"))
        peer.client.send(TestFrame(TestFrame.headers, flags: 1, stream: 1, block))
        try peer.settle()
        scene.advance(milliseconds: 3_100)
        try peer.settle()
        #expect(peer.client.goAways.map(\.code) == [11])
        scene.network.end(peer.descriptor)
        try peer.settle()
        // Slow is no flood: it is not remembered.
        #expect(scene.loop.downstreams.count == 0 && scene.loop.floods.count == 0)
        scene.checkQuiet()
    }

    @Test func aDrainServesWhatHasBegun() throws {
        let scene = Scene()
        scene.answersRequests = false
        let peer = Peer(scene)
        let idle = Peer(scene)
        peer.client.get(1, "/len/5/1")
        try peer.settle()
        try idle.settle()
        scene.loop.drain()
        peer.client.get(3, "/len/6/1")
        scene.answersRequests = true
        try peer.settle()
        try idle.settle()
        #expect(peer[1].body.count == 5 && peer[3].body.count == 6, "also what was on its way")
        #expect(peer.client.goAways.map(\.last) == [0x7fff_ffff, 3])
        #expect(idle.client.goAways.map(\.last) == [0x7fff_ffff, 0])
        for each in [peer, idle] { scene.network.end(each.descriptor) }
        try peer.settle()
        #expect(scene.loop.downstreams.count == 0)
        scene.checkQuiet()
    }

    @Test func aDrainDoesNotWaitForOneThatDoesNotAnswer() throws {
        let scene = Scene()
        let peer = Peer(scene)
        peer.client.isPolite = false
        try peer.settle()
        scene.loop.drain()
        scene.advance(milliseconds: 1_100)
        try peer.settle()
        #expect(peer.client.goAways.count == 2)
        scene.advance(milliseconds: 6_000)
        #expect(scene.network.isClosed(peer.descriptor))
        scene.checkQuiet()
    }

    /// Requests that an endpoint is at work on, and that we are then made to give up, without a reset of either side.
    @Test(arguments: ["trailers", "long trailer", "too much", "base64"])
    func whatIsGivenUpForTheClientCounts(kind: String) throws {
        var policy = RoutePolicy()
        policy.maxBodyBytes = 100
        policy.bridgesGRPCWeb = true
        let scene = Scene(policy: policy)
        scene.answersRequests = false
        let other = Peer(scene)
        let peer = Peer(scene)
        try other.settle()
        var count = 0
        while count < 600, peer.client.goAways.isEmpty {
            let stream = UInt32(2 * count + 1)
            count += 1
            peer.client.post(stream, "/", kind == "base64" ? [("content-type", "application/grpc-web-text")] : [])
            try peer.settle()
            switch kind {
            case "trailers": peer.client.headers(stream, (0..<101).map { ("a\($0)", "b") }, ends: true)
            case "long trailer":
                peer.client.headers(stream, [("a", String(repeating: "b", count: 8_192))], ends: true)
            case "too much": peer.client.data(stream, pattern(101, 1))
            default: peer.client.data(stream, Array("!!!!".utf8))
            }
            try peer.settle()
        }
        #expect(count == 501 && peer.client.goAways.last?.code == 11, "\(count)")
        #expect(peer[1].status == (kind == "too much" ? "413" : kind == "base64" ? "200" : "400"))
        #expect(other.client.goAways.isEmpty)
        scene.checkQuiet()
    }

    @Test func aFloodEndsItsConnectionAlone() throws {
        let scene = Scene()
        let other = Peer(scene)
        let peer = Peer(scene)
        try other.settle()
        for i in 0..<2_000 {
            peer.client.get(UInt32(2 * i + 1), "/len/1/1")
            peer.client.reset(UInt32(2 * i + 1))
        }
        try peer.settle()
        #expect(peer.client.goAways.last?.code == 11)
        other.client.get(1, "/len/2/1")
        try other.settle()
        #expect(other[1].status == "200")
        scene.advance(milliseconds: 6_000)
        #expect(scene.network.isClosed(peer.descriptor))
        scene.checkQuiet()
    }

    /// A new connection brings who has flooded one no new account, for a while; and what is reset as it comes, troubles
    /// nobody behind us.
    @Test func whoFloodsAgainIsStoppedAtOnce() throws {
        let scene = Scene()
        func flood() throws -> (streams: UInt32, connects: Int) {
            let peer = Peer(scene)
            let before = scene.openedUpstreams.count
            for i in 0..<2_000 {
                peer.client.get(UInt32(2 * i + 1), "/len/1/1")
                peer.client.reset(UInt32(2 * i + 1))
            }
            try peer.settle()
            #expect(peer.client.goAways.last?.code == 11)
            scene.network.end(peer.descriptor)
            try scene.settle()
            return ((peer.client.goAways.last?.last ?? 0) / 2 + 1, scene.openedUpstreams.count - before)
        }
        let first = try flood()
        #expect(first.streams > 500 && first.connects == 0)
        for _ in 0..<3 { #expect(try flood().streams < 20) }
        // Who shares his address has what time brings, and may reset what he has asked for.
        let neighbour = Peer(scene)
        neighbour.client.get(1, "/len/2/1")
        try neighbour.settle()
        scene.advance(milliseconds: 3_000)
        for i in 1...100 {
            neighbour.client.get(UInt32(2 * i + 1), "/len/1/1")
            neighbour.client.reset(UInt32(2 * i + 1))
        }
        try neighbour.settle()
        #expect(neighbour.client.goAways.isEmpty)
        scene.network.end(neighbour.descriptor)
        try scene.settle()
        // Others are not asked to pay for it, nor is he for ever.
        let other = Peer(scene)
        other.client.get(1, "/len/2/1")
        try other.settle()
        #expect(other[1].status == "200")
        scene.advance(milliseconds: 58_000)
        #expect(try flood().streams > 500)
        scene.advance(milliseconds: 6_000)
        scene.checkQuiet()
    }

    @Test func floodsAreRememberedForAMinuteAndInBounds() {
        var floods = FloodMemory()
        let subscriber = IPAddress(high: 7, low: 1)
        floods.note(subscriber, now: 5)
        for (ip, now, isKnown) in [
            (subscriber, 60_004, true), (IPAddress(high: 7, low: 2), 60_004, true), (subscriber, 60_005, false),
            (IPAddress(high: 8, low: 1), 6, false), (IPAddress(v4: 7), 6, false),
        ] as [(IPAddress, UInt64, Bool)] {
            #expect(floods.remembers(ip, now: now) == isKnown)
        }
        for i in 0..<10_000 { floods.note(IPAddress(v4: UInt32(i)), now: 10) }
        #expect(floods.remembers(IPAddress(v4: 9_999), now: 11) && floods.count <= FloodMemory.most)
    }

    /// The log does not say that it was the client who went.
    @Test(arguments: [true, false])
    func whatAFloodEndsIsLoggedAsEndedByUs(isFlood: Bool) throws {
        let scene = Scene()
        scene.answersRequests = false
        let peer = Peer(scene)
        peer.client.get(1, "/len/1/1")
        try peer.settle()
        for _ in 0..<(isFlood ? 2_000 : 0) { peer.client.send(TestFrame(TestFrame.settings)) }
        try peer.settle()
        scene.network.end(peer.descriptor)
        try scene.settle()
        #expect((peer.client.goAways.last?.code == 11) == isFlood)
        scene.loop.telemetry.metrics.publish()
        let reason = isFlood ? "malformed-request" : "client-closed"
        #expect(
            scene.hub.render(process: nil).contains("moongate_failures_total{reason=\"\(reason)\"} 1\n"), "\(reason)")
        scene.advance(milliseconds: 6_000)
        scene.checkQuiet()
    }

    @Test func neighboursAreServedWhileOneFloods() throws {
        let scene = Scene()
        let other = Peer(scene)
        let old = scene.client()
        let peer = Peer(scene)
        for round in 0..<40 {
            for i in 0..<10 {
                let stream = UInt32(20 * round + 2 * i + 1)
                peer.client.get(stream, "/len/1/1")
                peer.client.reset(stream)
            }
            scene.network.send(peer.descriptor, peer.client.takeOutput())
            let stream = UInt32(2 * round + 1)
            other.client.get(stream, "/len/\(round)/7")
            try other.settle()
            #expect(other[stream].body == pattern(round, 7) && other[stream].isEnded)
            try scene.send(old, "GET /len/3/\(round) HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            #expect(try scene.responses(old).first?.body == pattern(3, round))
        }
        try peer.settle()
        #expect(peer.client.goAways.isEmpty, "until its budget is spent it is a client like others")
        scene.network.end(peer.descriptor)
        try scene.settle()
        scene.checkQuiet()
    }

    /// What streams leave behind does not grow with their number: no entry of the wheel, no object.
    @Test func streamsThatHaveEndedLeaveNothing() throws {
        let scene = Scene()
        let peer = Peer(scene)
        var stream: UInt32 = 1
        func run(_ count: Int) throws {
            for _ in 0..<count / 50 {
                for _ in 0..<50 {
                    peer.client.get(stream, "/len/1/1")
                    stream += 2
                }
                try peer.settle()
            }
        }
        try run(200)
        let (entries, spare) = (scene.loop.wheel.count, scene.loop.spareStreams.count)
        #expect(spare > 0 && spare <= 128)
        try run(2_000)
        #expect(scene.loop.wheel.count == entries)
        #expect(scene.loop.spareStreams.count == spare && scene.loop.endedStreams.isEmpty)
        // What is spare holds on to no connection.
        #expect(scene.loop.spareStreams.allSatisfy { $0.stream?.carrier === scene.loop.nobody })
        scene.checkQuiet()
    }

    // MARK: WebSocket (RFC 8441)

    private static let handshake = [
        (":method", "CONNECT"), (":scheme", "http"), (":path", "/chat"), (":authority", "shop.test"),
        (":protocol", "websocket"), ("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat"),
    ]

    /// A scene with a WebSocket on stream 1, and its upstream.
    private func tunnel(_ scene: Scene, _ peer: Peer) throws -> Int32 {
        scene.answersRequests = false
        peer.client.headers(1, Self.handshake, ends: false)
        try peer.settle()
        let upstream = try #require(scene.openedUpstreams.last)
        let sent = String(decoding: scene.network.take(upstream, .max), as: UTF8.self)
        #expect(sent.hasPrefix("GET /chat HTTP/1.1\r\nsec-websocket-version: 13\r\nsec-websocket-protocol: chat\r\n"))
        #expect(sent.contains("Connection: Upgrade\r\nUpgrade: websocket\r\n") && !sent.contains("CONNECT"))
        let line = try #require(sent.components("\r\n").first { $0.hasPrefix("sec-websocket-key: ") })
        let accept = WebSocketKey.accept(for: Array(line.dropFirst(19).utf8).span)
        let head =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            + "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: "
        scene.network.send(upstream, Array(head.utf8) + accept + Array("\r\n\r\nhello".utf8))
        try peer.settle()
        #expect(peer[1].status == "200" && peer[1].value("sec-websocket-protocol") == "chat")
        #expect(peer[1].value("sec-websocket-accept") == nil && peer[1].value("upgrade") == nil)
        #expect(peer[1].text == "hello" && !peer[1].isEnded)
        return upstream
    }

    @Test(arguments: [1, 7, Int.max])
    func aWebSocketIsATunnelOfData(piece: Int) throws {
        let scene = Scene()
        let peer = Peer(scene)
        peer.piece = piece
        let upstream = try tunnel(scene, peer)
        peer.client.data(1, Array("to you".utf8))
        peer.client.get(3, "/len/4/1")
        try peer.settle()
        #expect(scene.network.take(upstream, .max) == Array("to you".utf8))
        scene.network.send(upstream, Array("to me".utf8))
        try peer.settle()
        #expect(peer[1].text == "helloto me")
        // The client ends its side, the upstream later its own.
        peer.client.data(1, [], ends: true)
        try peer.settle()
        #expect(scene.network.hasEnded(upstream) && !scene.network.isClosed(upstream))
        scene.network.send(upstream, Array(", bye".utf8))
        scene.network.end(upstream)
        try peer.settle()
        #expect(peer[1].text == "helloto me, bye" && peer[1].isEnded && peer[1].reset == nil)
        #expect(scene.network.isClosed(upstream))
        peer.client.reset(3)
        try peer.settle()
        scene.checkQuiet()
    }

    @Test func theUpstreamMayEndItFirst() throws {
        let scene = Scene()
        let peer = Peer(scene)
        let upstream = try tunnel(scene, peer)
        scene.network.end(upstream)
        try peer.settle()
        #expect(peer[1].isEnded && !scene.network.isClosed(upstream))
        peer.client.data(1, Array("last".utf8), ends: true)
        try peer.settle()
        #expect(scene.network.take(upstream, .max) == Array("last".utf8))
        #expect(scene.network.isClosed(upstream) && peer[1].reset == nil)
        #expect(scene.loop.downstreams.count == 1)
        scene.checkQuiet()
    }

    @Test(arguments: [true, false])
    func aWebSocketThatBreaksIsReset(byClient: Bool) throws {
        let scene = Scene()
        let peer = Peer(scene)
        let upstream = try tunnel(scene, peer)
        if byClient { peer.client.reset(1) } else { scene.network.reset(upstream) }
        try peer.settle()
        #expect(scene.network.isClosed(upstream))
        #expect(peer[1].reset == (byClient ? nil : 8), "CANCEL (RFC 8441 §5)")
        scene.answersRequests = true
        peer.client.get(3, "/len/2/2")
        try peer.settle()
        #expect(peer[3].body == pattern(2, 2))
        scene.checkQuiet()
    }

    @Test func aWebSocketHasWindowsBothWays() throws {
        let scene = Scene { $0.timeouts.streamIdle = 5_000 }
        let peer = Peer(scene, settings: [(4, 100)])
        peer.client.opensWindows = false
        scene.network.outboundCapacity = 4_096
        let upstream = try tunnel(scene, peer)
        let bytes = pattern(300_000, 4)
        scene.network.send(upstream, bytes)
        try peer.settle()
        #expect(peer[1].body.count == 100)
        #expect(scene.loop.buffers.lent <= 3)
        peer.client.openWindow(0, 1_000_000)
        peer.client.openWindow(1, 1_000_000)
        try peer.settle()
        #expect(Array(peer[1].body.dropFirst(5)) == bytes)
        // The other way: what the upstream does not take stays the client's.
        peer.client.data(1, Array(bytes.prefix(65_535)))
        try peer.settle()
        let opened = { peer.client.frames.filter { $0.type == TestFrame.windowUpdate && $0.stream == 1 }.count }
        #expect(scene.network.take(upstream, .max).count == 4_096 && opened() <= 1)
        scene.network.widen()
        try peer.settle()
        var received = 4_096
        while case let part = scene.network.take(upstream, .max), !part.isEmpty {
            received += part.count
            try peer.settle()
        }
        #expect(received == 65_535 && opened() > 0)
        // Nothing moves any more.
        scene.advance(milliseconds: 5_100)
        try peer.settle()
        #expect(peer[1].reset == 8 && scene.network.isClosed(upstream))
        scene.checkQuiet()
    }

    @Test func whatEndsTheDrainEndsItsTunnels() throws {
        let scene = Scene()
        let peer = Peer(scene)
        let upstream = try tunnel(scene, peer)
        scene.loop.drain()
        try peer.settle()
        scene.network.send(upstream, Array(", still here".utf8))
        peer.client.data(1, [1])
        try peer.settle()
        #expect(peer[1].text == "hello, still here" && scene.network.take(upstream, .max) == [1])
        #expect(peer.client.goAways.map(\.code) == [0, 0])
        scene.loop.closeAll()
        try peer.settle()
        #expect(peer[1].isEnded && peer.client.goAways.map(\.code) == [0, 0])
        #expect(scene.network.isClosed(peer.descriptor) && !scene.network.wasAborted(peer.descriptor))
        #expect(scene.network.isClosed(upstream) && !scene.network.wasAborted(upstream))
        #expect(scene.loop.downstreams.count == 0)
        scene.checkQuiet()
    }

    /// Who waits for a response is told, and what has come of others is not lost with the connection.
    @Test func whatEndsTheDrainEndsStreamsKindly() throws {
        let scene = Scene()
        scene.answersRequests = false
        let peer = Peer(scene)
        peer.client.get(1, "/")
        try peer.settle()
        scene.network.send(
            try #require(scene.openedUpstreams.last), Array("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".utf8))
        peer.client.get(3, "/")
        peer.client.post(5, "/pkg.Service/Call", [("content-type", "application/grpc"), ("te", "trailers")])
        try peer.settle()
        scene.loop.drain()
        try peer.settle()
        scene.loop.closeAll()
        try peer.settle()
        #expect(peer[1].status == "200" && peer[1].text == "half" && peer[1].reset != 0)
        #expect(peer[3].status == "503" && peer[3].isEnded)
        #expect(peer[5].status == "200" && peer[5].value("grpc-status") == "14" && peer[5].isEnded)
        #expect(peer.client.goAways.allSatisfy { $0.code == 0 })
        #expect(scene.network.isClosed(peer.descriptor) && !scene.network.wasAborted(peer.descriptor))
        #expect(scene.loop.downstreams.count == 0)
        scene.checkQuiet()
    }

    /// An answer that is no 101 is an answer; what the client has sent meanwhile is dropped.
    @Test func aWebSocketMayBeRefused() throws {
        let scene = Scene()
        let peer = Peer(scene)
        peer.client.headers(1, Self.handshake, ends: false)
        peer.client.data(1, pattern(60_000, 1))
        try peer.settle()
        #expect(peer[1].status == "500" && peer[1].isEnded && peer[1].reset == 0)
        // A 101 that does not answer the key is none.
        scene.answersRequests = false
        peer.client.headers(3, Self.handshake, ends: false)
        try peer.settle()
        let upstream = try #require(scene.openedUpstreams.last)
        _ = scene.network.take(upstream, .max)
        scene.network.send(
            upstream,
            Array(
                ("HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                    + "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n").utf8))
        try peer.settle()
        #expect(peer[3].status == "502" && peer[3].isEnded && scene.network.isClosed(upstream))
        // Nor is a page: to the client a 200 would say that the tunnel is open (RFC 8441 §5).
        peer.client.headers(5, Self.handshake, ends: false)
        try peer.settle()
        let page = try #require(scene.openedUpstreams.last)
        _ = scene.network.take(page, .max)
        scene.network.send(page, Array("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".utf8))
        try peer.settle()
        #expect(peer[5].status == "502" && peer[5].isEnded)
        scene.loop.telemetry.metrics.publish()
        let figures = scene.hub.render(process: nil)
        for reason in ["malformed-response", "no-upgrade"] {
            #expect(figures.contains("moongate_failures_total{reason=\"\(reason)\"} 1\n"), "\(reason)")
        }
        #expect(scene.loop.downstreams.count == 1)
        scene.checkQuiet()
    }

    @Test func aTunnelHoldsNoTrailers() throws {
        let scene = Scene()
        let peer = Peer(scene)
        let upstream = try tunnel(scene, peer)
        peer.client.headers(1, [("x", "y")], ends: true)
        try peer.settle()
        #expect(peer[1].reset == 1 && scene.network.isClosed(upstream))
        scene.checkQuiet()
    }

    @Test(arguments: 0..<20)
    func anyPiecesAnyOrder(seed: Int) throws {
        var random = Seeded(UInt64(seed))
        let scene = Scene()
        scene.network.outboundCapacity = Int.random(in: 1_000...20_000, using: &random)
        let peer = Peer(scene, settings: [(4, UInt32.random(in: 1_000...100_000, using: &random))])
        peer.piece = Int.random(in: 1...2_000, using: &random)
        var expected: [UInt32: [UInt8]] = [:]
        for i in 0..<30 {
            let stream = UInt32(2 * i + 1)
            let count = Int.random(in: 0...60_000, using: &random)
            if Bool.random(using: &random) {
                peer.client.get(stream, "/len/\(count)/\(i)")
            } else {
                peer.client.post(stream, "/len/\(count)/\(i)")
                peer.client.data(stream, pattern(Int.random(in: 0...3_000, using: &random), 1), ends: true)
            }
            switch Int.random(in: 0..<5, using: &random) {
            case 0:
                if Bool.random(using: &random) { try peer.settle() }
                if !peer[stream].isEnded { peer.client.reset(stream) }
            default: expected[stream] = pattern(count, i)
            }
        }
        try peer.settle()
        for (stream, body) in expected {
            #expect(peer[stream].body == body && peer[stream].isEnded, "stream \(stream)")
        }
        scene.checkQuiet()
    }
}
