import Model
import Reactor
import Telemetry
import Testing

@testable import Proxy

/// The whole data plane over a simulated network: bytes in, bytes out.
@Suite struct LoopTests {
    @Test func aRequestGoesThroughAndComesBack() throws {
        let scene = Scene()
        let client = scene.client()
        try scene.send(client, "GET /len/5/1?q=1 HTTP/1.1\r\nHost: shop.test\r\nX-A: b\r\n\r\n")
        let responses = try scene.responses(client)
        #expect(responses.map(\.status) == [200])
        #expect(responses.first?.body == pattern(5, 1))
        let request = try #require(scene.requests.first)
        #expect(request.startLine == "GET /len/5/1?q=1 HTTP/1.1")
        #expect(request.value("host") == "shop.test")
        #expect(request.value("x-a") == "b")
        #expect(request.value("x-forwarded-for") == "192.168.0.1")
        #expect(request.value("x-real-ip") == "192.168.0.1")
        #expect(request.value("x-forwarded-proto") == "http")
        #expect(request.value("x-forwarded-host") == "shop.test")
        #expect(request.value("x-forwarded-port") == "8080")
        #expect(request.value("x-request-id")?.count == 32)
        scene.checkQuiet()
    }

    @Test func connectionsAreKeptOnBothSides() throws {
        let scene = Scene()
        let client = scene.client()
        for n in 0..<10 {
            try scene.send(client, "GET /len/\(n)/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            #expect(try scene.responses(client).map(\.body.count) == [n])
        }
        #expect(scene.openedUpstreams.count == 1)
        #expect(!scene.network.isClosed(client))
        scene.checkQuiet()
    }

    @Test func pipelinedRequestsAreAnsweredInOrder() throws {
        let scene = Scene()
        let client = scene.client()
        try scene.send(
            client, (1...20).map { "GET /len/\($0)/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n" }.joined())
        #expect(try scene.responses(client).map(\.body.count) == Array(1...20))
        scene.checkQuiet()
    }

    struct Refused: Sendable, CustomTestStringConvertible {
        let request: String
        let status: Int
        init(_ request: String, _ status: Int) {
            self.request = request
            self.status = status
        }
        var testDescription: String { "\(request.prefix(40).debugDescription) \(status)" }
    }

    @Test(arguments: [
        Refused("GET /x HTTP/1.1\r\nHost: other.test\r\n\r\n", 404), Refused("GET / HTTP/1.1\r\n\r\n", 400),
        Refused("GET / HTTP/2.0\r\nHost: shop.test\r\n\r\n", 505), Refused("BAD\r\n\r\n", 400),
        Refused("GET / HTTP/1.1\r\nHost: shop.test\r\nHost: shop.test\r\n\r\n", 400),
        Refused("GET /\(String(repeating: "a", count: 9_000)) HTTP/1.1\r\nHost: shop.test\r\n\r\n", 414),
        Refused("GET / HTTP/1.1\r\nHost: shop.test\r\nX: \(String(repeating: "a", count: 9_000))\r\n\r\n", 431),
        Refused("GET / HTTP/1.1\r\nHost: shop.test\r\n\(String(repeating: "X: y\r\n", count: 120))\r\n", 431),
        Refused("POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        Refused("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        Refused("CONNECT shop.test:80 HTTP/1.1\r\nHost: shop.test\r\n\r\n", 405),
        // Fields that the error page and the log look at stand before what is wrong.
        Refused("GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nbad line\r\n\r\n", 400),
        Refused("GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: x\r\nReferer: y\r\nbad line\r\n\r\n", 400),
        Refused(
            "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: x\r\nAccept: text/html\r\n"
                + "Cookie: \(String(repeating: "a", count: 9_000))\r\n\r\n", 431),
    ])
    func failuresBecomeResponses(_ refused: Refused) throws {
        let (request, status) = (refused.request, refused.status)
        let scene = Scene()
        let client = scene.client()
        try scene.send(client, request)
        let responses = try scene.responses(client)
        #expect(responses.map(\.status) == [status])
        #expect(responses.first?.value("date") != nil)
        #expect(scene.requests.isEmpty)
        if status != 404 { #expect(scene.network.hasEnded(client)) }
    }

    @Test(arguments: [
        ("text/html", "text/html; charset=utf-8"), ("application/json", "application/json"),
        ("*/*", "text/plain; charset=utf-8"),
    ])
    func anErrorPageSpeaksTheClientsLanguage(accept: String, type: String) throws {
        let scene = Scene()
        let client = scene.client()
        try scene.send(client, "GET / HTTP/1.1\r\nHost: no.test\r\nAccept: \(accept)\r\n\r\n")
        #expect(try scene.responses(client).first?.value("content-type") == type)
    }

    @Test(arguments: [0, 1, 4_000, 8_192, 20_000, 200_000])
    func bodiesAreForwardedWithTheirLength(count: Int) throws {
        let scene = Scene()
        let client = scene.client()
        scene.network.send(
            client, Array("POST /len/3/1 HTTP/1.1\r\nHost: shop.test\r\nContent-Length: \(count)\r\n\r\n".utf8))
        scene.network.send(client, pattern(count, 9))
        try scene.settle()
        #expect(try scene.responses(client).first?.value("x-body") == digest(pattern(count, 9)))
        #expect(scene.requests.first?.value("content-length") == "\(count)")
        scene.checkQuiet()
    }

    @Test(arguments: [1, 100, 5_000, 70_000], [1, 7, 4_096, 100_000])
    func chunkedBodiesAreFramedAnew(count: Int, pieces: Int) throws {
        let scene = Scene()
        let client = scene.client()
        scene.network.send(
            client,
            Array("POST /chunked/\(count)/2 HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n".utf8))
        scene.network.send(client, chunked(pattern(count, 9), pieces: pieces, trailers: "X-Check: 1\r\n"))
        try scene.settle()
        let response = try #require(try scene.responses(client).first)
        #expect(digest(response.body) == digest(pattern(count, 2)))
        #expect(response.trailers.first?.1 == "2")
        #expect(response.value("x-body") == digest(pattern(count, 9)))
        #expect(scene.requests.first?.trailers.first?.0 == "X-Check")
        scene.checkQuiet()
    }

    @Test func anOldClientGetsItsBodyUntilTheEnd() throws {
        let scene = Scene()
        let client = scene.client()
        try scene.send(client, "GET /chunked/5000/2 HTTP/1.0\r\nHost: shop.test\r\n\r\n")
        let response = try #require(try scene.responses(client).first)
        #expect(digest(response.body) == digest(pattern(5_000, 2)))
        #expect(response.endedByClose)
        #expect(response.value("transfer-encoding") == nil)
        #expect(response.value("connection") == "close")
        scene.checkQuiet()
    }

    @Test func aBodyUntilTheEndIsChunkedForANewClient() throws {
        let scene = Scene()
        let client = scene.client()
        try scene.send(client, "GET /close/70000/2 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        let response = try #require(try scene.responses(client).first)
        #expect(digest(response.body) == digest(pattern(70_000, 2)))
        #expect(response.value("transfer-encoding") == "chunked")
        #expect(!scene.network.isClosed(client))
        scene.checkQuiet()
    }

    @Test func headAnd204And304HaveNoBody() throws {
        let scene = Scene()
        let client = scene.client()
        try scene.send(client, "HEAD /len/500/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        let head = try #require(try scene.responses(client, toHead: true).first)
        #expect(head.value("content-length") == "500")
        try scene.send(client, "GET /nothing HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        let nothing = try #require(try scene.responses(client).first)
        #expect(nothing.status == 204)
        #expect(nothing.value("content-length") == nil && nothing.value("transfer-encoding") == nil)
        try scene.send(client, "HEAD /chunked/500/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        #expect(try scene.responses(client, toHead: true).count == 1)
        try scene.send(client, "GET /len/2/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        #expect(try scene.responses(client).first?.body.count == 2)
        #expect(scene.openedUpstreams.count == 1)
        scene.checkQuiet()
    }

    @Test func informationalResponsesAreForwardedToNewClientsOnly() throws {
        let scene = Scene()
        let client = scene.client()
        try scene.send(client, "GET /hints/3/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        let responses = try scene.responses(client)
        #expect(responses.map(\.status) == [103, 200])
        #expect(responses.first?.value("link") == "</a>")
        let old = scene.client()
        try scene.send(old, "GET /hints/3/1 HTTP/1.0\r\nHost: shop.test\r\n\r\n")
        #expect(try scene.responses(old).map(\.status) == [200])
        scene.checkQuiet()
    }

    @Test func anEarlyAnswerToASmallBodyKeepsTheConnection() throws {
        let scene = Scene()
        let client = scene.client()
        try scene.send(client, "POST /early/3/1 HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5000\r\n\r\n")
        #expect(try scene.responses(client).map(\.status) == [200])
        scene.network.send(client, pattern(5_000, 1))
        try scene.send(client, "GET /len/4/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        #expect(try scene.responses(client).map(\.body.count) == [4])
        #expect(scene.openedUpstreams.count == 2)
        scene.checkQuiet()
    }

    @Test func anEarlyAnswerToALargeBodyEndsTheConnection() throws {
        let scene = Scene()
        let client = scene.client()
        try scene.send(client, "POST /early/3/1 HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 90000000\r\n\r\n")
        #expect(try scene.responses(client).map(\.status) == [200])
        for _ in 0..<20 {
            scene.network.send(client, pattern(50_000, 1))
            try scene.settle()
        }
        #expect(scene.network.hasEnded(client))
        scene.network.end(client)
        try scene.settle()
        #expect(scene.network.isClosed(client))
        scene.checkQuiet()
    }

    @Test func whoeverWaitsFor100AndIsRefusedIsClosed() throws {
        let scene = Scene()
        let client = scene.client()
        try scene.send(
            client, "POST / HTTP/1.1\r\nHost: no.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        let response = try #require(try scene.responses(client).first)
        #expect(response.status == 404)
        #expect(response.value("connection") == "close")
    }

    @Test func anUpstreamThatAnswersInsteadOf100EndsTheConnection() throws {
        let scene = Scene()
        scene.answersRequests = false
        let client = scene.client()
        try scene.send(
            client, "POST /len/2/1 HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        let upstream = try #require(scene.openedUpstreams.first)
        _ = scene.network.take(upstream, .max)
        scene.network.send(upstream, Array("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n".utf8))
        try scene.settle()
        let response = try #require(try scene.responses(client).first)
        #expect(response.status == 401)
        #expect(response.value("connection") == "close")
    }

    @Test func trailersThatNobodyWantsMayComeInParts() throws {
        for parts in [
            ["0\r\nx: 0123456789", "\r\n\r\nGET /len/1/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n"],
            ["3\r\nabc\r\n0\r\nx: 0123456789\r", "\n\r\nGET /len/1/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n"],
        ] {
            let scene = Scene()
            let client = scene.client()
            try scene.send(client, "POST / HTTP/1.1\r\nHost: no.test\r\nTransfer-Encoding: chunked\r\n\r\n")
            for part in parts { try scene.send(client, part) }
            #expect(try scene.responses(client).map(\.status) == [404, 200])
            #expect(scene.requests.map(\.startLine) == ["GET /len/1/1 HTTP/1.1"])
            scene.checkQuiet()
        }
    }

    @Test func trailersThatLoseTheirReaderMayComeInParts() throws {
        let scene = Scene()
        scene.answersRequests = false
        let client = scene.client()
        try scene.send(
            client, "POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: 0123456789")
        let upstream = try #require(scene.openedUpstreams.first)
        _ = scene.network.take(upstream, .max)
        scene.network.send(upstream, Array("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".utf8))
        try scene.settle()
        scene.answersRequests = true
        try scene.send(client, "\r\n\r\nGET /len/1/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        #expect(try scene.responses(client).map(\.status) == [200, 200])
        #expect(scene.requests.map(\.startLine) == ["GET /len/1/1 HTTP/1.1"])
        scene.checkQuiet()
    }

    @Test func surplusBehindAFullReadIsNobodysResponse() throws {
        let scene = Scene()
        scene.answersRequests = false
        let client = scene.client()
        try scene.send(client, "GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        let first = try #require(scene.openedUpstreams.first)
        _ = scene.network.take(first, .max)
        // The response fills the read to its last byte, and more lies behind it.
        let head = "HTTP/1.1 200 OK\r\nContent-Length: "
        let length = 65_536 - head.utf8.count - 5 - 4
        let stolen = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"
        scene.network.send(first, Array("\(head)\(length)\r\n\r\n".utf8) + pattern(length, 1) + Array(stolen.utf8))
        try scene.settle()
        #expect(try scene.responses(client).map(\.body.count) == [length])
        scene.answersRequests = true
        try scene.send(client, "GET /len/3/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        #expect(try scene.responses(client).map(\.body) == [pattern(3, 1)])
        #expect(scene.openedUpstreams.count == 2)
        scene.checkQuiet()
    }

    @Test func theEndOfAResponseWaitsForASlowReader() throws {
        let scene = Scene { $0.timeouts.idle = 1_000 }
        scene.network.outboundCapacity = 4_096
        let client = scene.client()
        try scene.send(client, "GET /len/100000/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        var got: [UInt8] = []
        while !scene.network.hasEnded(client) {
            // Slower than the keep-alive time allows, but it does read.
            scene.advance(milliseconds: 900)
            let part = scene.network.take(client, 4_096)
            if part.isEmpty { break }
            got += part
            try scene.settle()
        }
        #expect(try TestParse.message(got, isResponse: true)?.0.body == pattern(100_000, 1))
        scene.checkQuiet()
    }

    @Test func manySmallChunksAreJoinedNotCopied() throws {
        let scene = Scene()
        let client = scene.client()
        let body = pattern(100_000, 3)
        scene.network.send(
            client,
            Array("POST /len/1/1 HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n".utf8)
                + chunked(body, pieces: 1))
        try scene.settle()
        #expect(try scene.responses(client).map(\.status) == [200])
        #expect(scene.requests.first?.body == body)
        // One buffer after the other is filled; none is made anew for every chunk.
        #expect(scene.loop.buffers.made < 32)
        scene.checkQuiet()
    }

    @Test func expectGoesToTheUpstreamAnd100ComesBack() throws {
        let scene = Scene()
        scene.answersRequests = false
        let client = scene.client()
        try scene.send(
            client, "POST /len/2/1 HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        let upstream = try #require(scene.openedUpstreams.first)
        let head = String(decoding: scene.network.take(upstream, .max), as: UTF8.self)
        #expect(head.contains("Expect: 100-continue"))
        scene.network.send(upstream, Array("HTTP/1.1 100 Continue\r\n\r\n".utf8))
        try scene.settle()
        #expect(try scene.responses(client).map(\.status) == [100])
        try scene.send(client, "hello")
        #expect(String(decoding: scene.network.take(upstream, .max), as: UTF8.self) == "hello")
        scene.network.send(upstream, Array("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".utf8))
        try scene.settle()
        #expect(try scene.responses(client).map(\.status) == [200])
        #expect(!scene.network.isClosed(client))
        scene.checkQuiet()
    }

    // MARK: Failures of upstreams

    @Test func refusedEndpointsAreSkipped() throws {
        let scene = Scene(endpoints: [8001, 8002])
        scene.network.refusing = [8001]
        for n in 0..<6 {
            let client = scene.client()
            try scene.send(client, "POST /len/\(n)/1 HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2\r\n\r\nhi")
            #expect(try scene.responses(client).map(\.status) == [200])
        }
        scene.checkQuiet()
    }

    @Test func withoutAnEndpointThatConnectsTheAnswerIs502() throws {
        let scene = Scene(endpoints: [8001, 8002])
        scene.network.refusing = [8001, 8002]
        let client = scene.client()
        try scene.send(client, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        #expect(try scene.responses(client).map(\.status) == [502])
        #expect(scene.openedUpstreams.count == 2)
        scene.checkQuiet()
    }

    @Test func wantOfDescriptorsIsNoFaultOfAnEndpoint() throws {
        let scene = Scene(endpoints: [8001, 8002])
        scene.network.mostUpstreams = 1
        let client = scene.client()
        func ask() throws -> [Int] {
            try scene.send(client, "GET /len/1/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            return try scene.responses(client).map(\.status)
        }
        // Each is the other endpoint's turn: the spare connection to the one before makes room.
        for _ in 0..<6 { #expect(try ask() == [200]) }
        scene.network.mostUpstreams = 0
        #expect(try ask() == [503])
        #expect(scene.openedUpstreams.count == 6)
        // Nobody was ejected for it.
        scene.network.mostUpstreams = nil
        for _ in 0..<2 { #expect(try ask() == [200]) }
        #expect(Set(scene.network.opened.suffix(2).map(\.address.port)) == [8001, 8002])
        scene.checkQuiet()
    }

    @Test func withoutAnEndpointTheAnswerIs503() throws {
        let scene = Scene(endpoints: [])
        let client = scene.client()
        try scene.send(client, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        #expect(try scene.responses(client).map(\.status) == [503])
        scene.checkQuiet()
    }

    @Test(arguments: [("/die", 502), ("/reset", 502), ("/garbage", 502)])
    func aFreshConnectionThatFailsIsNotTriedAgain(path: String, status: Int) throws {
        let scene = Scene()
        let client = scene.client()
        try scene.send(client, "GET \(path) HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        #expect(try scene.responses(client).map(\.status) == [status])
        #expect(scene.openedUpstreams.count == 1)
        #expect(scene.requests.count == 1)
        scene.checkQuiet()
    }

    /// The upstream closes a connection of the pool just as the next request goes out on it.
    @Test(arguments: [("GET", 0, 200), ("PUT", 3, 200), ("POST", 0, 502), ("POST", 3, 502), ("DELETE", 0, 200)])
    func aReusedConnectionThatDied(method: String, body: Int, status: Int) throws {
        let scene = Scene()
        let client = scene.client()
        try scene.send(client, "GET /len/1/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        #expect(try scene.responses(client).map(\.status) == [200])
        let first = try #require(scene.openedUpstreams.first)
        // The end is on its way while the request is written: no edge has told of it.
        scene.answersRequests = false
        try scene.send(
            client,
            "\(method) /len/2/1 HTTP/1.1\r\nHost: shop.test\r\nContent-Length: \(body)\r\n\r\n"
                + String(repeating: "b", count: body))
        scene.network.end(first)
        scene.answersRequests = true
        scene.upstreams[first] = nil
        try scene.settle()
        #expect(try scene.responses(client).map(\.status) == [status])
        #expect(scene.openedUpstreams.count == (status == 200 ? 2 : 1))
        scene.checkQuiet()
    }

    @Test func aResponseThatBreaksBreaksTheClientsConnection() throws {
        let scene = Scene()
        let client = scene.client()
        try scene.send(client, "GET /half/100/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        // What has come is passed on; that the rest is missing, the length says.
        #expect(scene.network.available(client) > 0)
        scene.advance(milliseconds: 6_000)
        #expect(scene.network.isClosed(client))
        scene.checkQuiet()
    }

    @Test func bytesBehindAResponseAreNeverAResponse() throws {
        let scene = Scene()
        let client = scene.client()
        try scene.send(client, "GET /extra/3/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        #expect(try scene.responses(client).map(\.body.count) == [3])
        try scene.send(client, "GET /len/4/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        #expect(try scene.responses(client).map(\.body.count) == [4])
        #expect(scene.openedUpstreams.count == 2)
        scene.checkQuiet()
    }

    @Test func bytesOnASpareConnectionCloseIt() throws {
        let scene = Scene()
        let client = scene.client()
        try scene.send(client, "GET /len/3/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        _ = try scene.responses(client)
        let upstream = try #require(scene.openedUpstreams.first)
        scene.network.send(upstream, Array("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".utf8))
        try scene.settle()
        #expect(scene.network.isClosed(upstream))
        scene.checkQuiet()
    }

    // MARK: Time

    @Test func aHeadThatDoesNotComeIsAnswered408() throws {
        let scene = Scene()
        let client = scene.client()
        try scene.send(client, "GET / HTTP/1.1\r\nHost:")
        scene.advance(milliseconds: 9_000)
        #expect(scene.network.available(client) == 0)
        scene.advance(milliseconds: 1_200)
        #expect(try scene.responses(client).map(\.status) == [408])
        #expect(scene.network.hasEnded(client))
        scene.advance(milliseconds: 6_000)
        #expect(scene.network.isClosed(client))
        scene.checkQuiet()
    }

    @Test func silenceIsClosedWithoutAWord() throws {
        let scene = Scene()
        let client = scene.client()
        scene.advance(milliseconds: 11_000)
        #expect(scene.network.isClosed(client))
        #expect(scene.network.available(client) == 0)
        let second = scene.client()
        try scene.send(second, "GET /len/1/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        _ = try scene.responses(second)
        scene.advance(milliseconds: 59_000)
        #expect(!scene.network.isClosed(second))
        scene.advance(milliseconds: 2_000)
        #expect(scene.network.isClosed(second))
        scene.checkQuiet()
    }

    @Test func aConnectThatHangsIs504() throws {
        let scene = Scene(configure: { $0.retry.attempts = 0 })
        let client = scene.client()
        scene.network.send(client, Array("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n".utf8))
        scene.network.deliver(client, .max)
        scene.dispatch()
        scene.advance(milliseconds: 5_200)
        let bytes = String(decoding: scene.network.take(client, .max), as: UTF8.self)
        #expect(bytes.hasPrefix("HTTP/1.1 504 "))
        #expect(scene.loop.upstreamConnections.count == 0)
        scene.checkQuiet()
    }

    @Test func aResponseThatDoesNotComeIs504() throws {
        var policy = RoutePolicy()
        policy.responseHeadTimeout = 2_000
        let scene = Scene(policy: policy)
        scene.answersRequests = false
        let client = scene.client()
        try scene.send(client, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        scene.advance(milliseconds: 2_100)
        #expect(try scene.responses(client).map(\.status) == [504])
        #expect(!scene.network.isClosed(client))
        scene.checkQuiet()
    }

    @Test func aBodyThatStopsIs408() throws {
        let scene = Scene()
        let client = scene.client()
        try scene.send(client, "POST /len/1/1 HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 9\r\n\r\nabc")
        scene.advance(milliseconds: 61_000)
        #expect(try scene.responses(client).map(\.status) == [408])
        scene.advance(milliseconds: 6_000)
        #expect(scene.network.isClosed(client))
        scene.checkQuiet()
    }

    @Test func aBodyThatDripsIs408() throws {
        let scene = Scene()
        let client = scene.client()
        try scene.send(client, "POST /len/1/1 HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 90000\r\n\r\n")
        // A byte each ten seconds never lets the stream idle, and is far below any rate.
        for _ in 0..<5 {
            scene.advance(milliseconds: 10_000)
            try scene.send(client, "x")
            #expect(scene.network.available(client) == 0)
        }
        scene.advance(milliseconds: 11_000)
        #expect(try scene.responses(client).map(\.status) == [408])
        scene.advance(milliseconds: 6_000)
        #expect(scene.network.isClosed(client))
        scene.checkQuiet()
    }

    /// A route that lets its streams stand still for an hour, or for ever, means events, not bodies that drip.
    @Test(arguments: [3_600_000, 0])
    func aRouteDoesNotLetBodiesDrip(idle: Int) throws {
        var policy = RoutePolicy()
        policy.streamIdleTimeout = idle
        let scene = Scene(policy: policy)
        let client = scene.client()
        try scene.send(client, "POST /len/1/1 HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 90000\r\n\r\n")
        for _ in 0..<5 {
            scene.advance(milliseconds: 10_000)
            try scene.send(client, "x")
            #expect(scene.network.available(client) == 0)
        }
        scene.advance(milliseconds: 11_000)
        #expect(try scene.responses(client).map(\.status) == [408])
        scene.advance(milliseconds: 6_000)
        #expect(scene.network.isClosed(client))
        scene.checkQuiet()
    }

    @Test func aResponseThatStopsIsCut() throws {
        let scene = Scene()
        scene.answersRequests = false
        let client = scene.client()
        try scene.send(client, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        let upstream = try #require(scene.openedUpstreams.first)
        scene.network.send(upstream, Array("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc".utf8))
        try scene.settle()
        scene.advance(milliseconds: 61_000)
        scene.advance(milliseconds: 6_000)
        #expect(scene.network.isClosed(client))
        scene.checkQuiet()
    }

    @Test func theTotalTimeIsBounded() throws {
        var policy = RoutePolicy()
        policy.totalTimeout = 3_000
        let scene = Scene(policy: policy)
        scene.answersRequests = false
        let client = scene.client()
        try scene.send(client, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        scene.advance(milliseconds: 3_100)
        #expect(try scene.responses(client).map(\.status) == [504])
        scene.checkQuiet()
    }

    @Test func spareConnectionsGrowOld() throws {
        let scene = Scene()
        let client = scene.client()
        try scene.send(client, "GET /len/1/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        _ = try scene.responses(client)
        let upstream = try #require(scene.openedUpstreams.first)
        scene.advance(milliseconds: 48_000)
        #expect(!scene.network.isClosed(upstream))
        scene.advance(milliseconds: 5_000)
        #expect(scene.network.isClosed(upstream))
    }

    // MARK: Limits

    @Test func aBodyAboveTheLimitIs413() throws {
        var policy = RoutePolicy()
        policy.maxBodyBytes = 10
        let scene = Scene(policy: policy)
        let declared = scene.client()
        try scene.send(declared, "POST /len/1/1 HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 11\r\n\r\n")
        #expect(try scene.responses(declared).map(\.status) == [413])
        #expect(scene.openedUpstreams.isEmpty)
        let streamed = scene.client()
        try scene.send(
            streamed, "POST /len/1/1 HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n")
        try scene.send(streamed, "6\r\nabcdef\r\n0\r\n\r\n")
        #expect(try scene.responses(streamed).map(\.status) == [413])
        #expect(scene.network.hasEnded(streamed))
        #expect(scene.requests.isEmpty)
    }

    @Test func aMalformedChunkIs400AndNothingAfterItIsRead() throws {
        let scene = Scene()
        let client = scene.client()
        try scene.send(
            client,
            "POST /len/1/1 HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n"
                + "3\r\nabcX\r\n0\r\n\r\nGET /len/9/9 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        #expect(try scene.responses(client).map(\.status) == [400])
        #expect(scene.network.hasEnded(client))
        #expect(scene.requests.isEmpty)
    }

    // MARK: Back-pressure

    @Test func aSlowClientSlowsItsUpstream() throws {
        let scene = Scene()
        let client = scene.client()
        scene.answersRequests = false
        try scene.send(client, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        let upstream = try #require(scene.openedUpstreams.first)
        _ = scene.network.take(upstream, .max)
        let body = pattern(3_000_000, 4)
        scene.network.send(upstream, Array("HTTP/1.1 200 OK\r\nContent-Length: \(body.count)\r\n\r\n".utf8) + body)
        try scene.settle()
        // The client has taken nothing: what was read is bounded by the socket's memory and one read.
        #expect(scene.loop.buffers.lent <= 2)
        var taken: [UInt8] = []
        while taken.count < body.count + 20 {
            let piece = scene.network.take(client, 10_000)
            if piece.isEmpty { break }
            taken += piece
            try scene.settle()
        }
        let message = try TestParse.message(taken, isResponse: true)
        #expect(message.map { digest($0.0.body) } == digest(body))
        scene.checkQuiet()
    }

    @Test func aSlowUpstreamSlowsItsClient() throws {
        let scene = Scene()
        let client = scene.client()
        scene.answersRequests = false
        let body = pattern(3_000_000, 4)
        scene.network.send(
            client,
            Array("POST /len/1/1 HTTP/1.1\r\nHost: shop.test\r\nContent-Length: \(body.count)\r\n\r\n".utf8) + body)
        try scene.settle()
        #expect(scene.loop.buffers.lent <= 3)
        let upstream = try #require(scene.openedUpstreams.first)
        for _ in 0..<10_000 where scene.network.available(upstream) > 0 {
            try scene.serve(upstream, 9_000)
            try scene.settle()
        }
        #expect(try scene.responses(client).first?.value("x-body") == digest(body))
        scene.checkQuiet()
    }

    // MARK: Upgrades

    static let key = "dGhlIHNhbXBsZSBub25jZQ=="
    static let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    static let upgrade =
        "GET /chat HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \(key)\r\n\r\n"

    private func openTunnel(_ scene: Scene) throws -> (client: Int32, upstream: Int32) {
        scene.answersRequests = false
        let client = scene.client()
        try scene.send(client, Self.upgrade)
        let upstream = try #require(scene.openedUpstreams.first)
        let head = String(decoding: scene.network.take(upstream, .max), as: UTF8.self)
        #expect(head.contains("Connection: Upgrade\r\n") && head.contains("Upgrade: websocket\r\n"))
        scene.network.send(
            upstream,
            Array(
                ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    + "Sec-WebSocket-Accept: \(Self.accept)\r\n\r\nfrom upstream").utf8))
        try scene.settle()
        let answer = String(decoding: scene.network.take(client, .max), as: UTF8.self)
        #expect(answer.hasPrefix("HTTP/1.1 101 ") && answer.hasSuffix("\r\n\r\nfrom upstream"))
        return (client, upstream)
    }

    /// A ping of either side, or its answer, keeps it open; without, it ends when its time is over.
    @Test func aTunnelOnWhichNothingMovesEnds() throws {
        var policy = RoutePolicy()
        policy.streamIdleTimeout = 5_000
        let scene = Scene(policy: policy)
        let (client, upstream) = try openTunnel(scene)
        for turn in 0..<4 {
            scene.advance(milliseconds: 4_000)
            let (from, to) = turn % 2 == 0 ? (client, upstream) : (upstream, client)
            scene.network.send(from, [0x89, 0])
            try scene.settle()
            #expect(scene.network.take(to, .max) == [0x89, 0])
        }
        scene.advance(milliseconds: 4_900)
        try scene.settle()
        #expect(!scene.network.isClosed(client) && !scene.network.isClosed(upstream))
        scene.advance(milliseconds: 200)
        try scene.settle()
        #expect(scene.network.isClosed(client) && scene.network.isClosed(upstream))
        scene.loop.telemetry.metrics.publish()
        #expect(scene.hub.render(process: nil).contains("moongate_failures_total{reason=\"stream-timeout\"} 1\n"))
        scene.checkQuiet()
    }

    @Test func aWebSocketIsATunnel() throws {
        let scene = Scene()
        let (client, upstream) = try openTunnel(scene)
        let blob = pattern(500_000, 3)
        scene.network.send(client, blob)
        try scene.settle()
        var got: [UInt8] = []
        while scene.network.available(upstream) > 0 {
            got += scene.network.take(upstream, 70_000)
            try scene.settle()
        }
        #expect(digest(got) == digest(blob))
        // One side ends; the other may still speak.
        scene.network.end(client)
        try scene.settle()
        #expect(scene.network.hasEnded(upstream))
        scene.network.send(upstream, Array("last words".utf8))
        try scene.settle()
        #expect(String(decoding: scene.network.take(client, .max), as: UTF8.self) == "last words")
        scene.network.end(upstream)
        try scene.settle()
        #expect(scene.network.isClosed(client) && scene.network.isClosed(upstream))
        scene.checkQuiet()
    }

    @Test(arguments: [
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAA\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ])
    func aTunnelNeedsTheRightAnswer(answer: String) throws {
        let scene = Scene()
        scene.answersRequests = false
        let client = scene.client()
        try scene.send(client, Self.upgrade)
        let upstream = try #require(scene.openedUpstreams.first)
        scene.network.send(upstream, Array(answer.utf8))
        try scene.settle()
        #expect(try scene.responses(client).map(\.status) == [502])
        scene.checkQuiet()
    }

    @Test func anUpgradeAnsweredWith200IsNoTunnel() throws {
        let scene = Scene()
        scene.answersRequests = false
        let client = scene.client()
        try scene.send(client, Self.upgrade)
        let upstream = try #require(scene.openedUpstreams.first)
        _ = scene.network.take(upstream, .max)
        scene.network.send(upstream, Array("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".utf8))
        try scene.settle()
        #expect(try scene.responses(client).map(\.status) == [200])
        try scene.send(client, "GET /smuggled HTTP/1.1\r\nHost: no.test\r\n\r\n")
        #expect(try scene.responses(client).map(\.status) == [404])
        #expect(scene.network.available(upstream) == 0)
        // A server that has seen an Upgrade may read no further request on that connection.
        #expect(scene.network.isClosed(upstream))
        try scene.send(client, "GET /len/2/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        #expect(scene.openedUpstreams.count == 2)
    }

    // MARK: Snapshots and draining

    @Test func whatIsInFlightFinishesOnItsSnapshot() throws {
        let scene = Scene(endpoints: [8001])
        scene.answersRequests = false
        let client = scene.client()
        try scene.send(client, "GET /len/3/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        scene.publish([8002], generation: 2)
        let second = scene.client()
        try scene.send(second, "GET /len/4/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        #expect(scene.network.opened.map(\.address.port) == [8001, 8002])
        scene.answersRequests = true
        try scene.settle()
        #expect(try scene.responses(client).map(\.body.count) == [3])
        #expect(try scene.responses(second).map(\.body.count) == [4])
        // The endpoint that has left is kept no connection to.
        #expect(scene.network.isClosed(scene.openedUpstreams[0]))
        #expect(!scene.network.isClosed(scene.openedUpstreams[1]))
        scene.checkQuiet()
    }

    @Test func manySnapshotsLoseNothing() throws {
        let scene = Scene(endpoints: [8001])
        let client = scene.client()
        for n in 0..<300 {
            scene.network.send(client, Array("GET /len/\(n % 7)/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n".utf8))
            scene.network.deliver(client, .max)
            scene.dispatch()
            scene.publish([8001 + UInt16(n % 3)], generation: UInt64(n + 2))
            try scene.settle()
            #expect(try scene.responses(client).map(\.body.count) == [n % 7])
        }
        scene.checkQuiet()
    }

    @Test func drainingFinishesWhatRuns() throws {
        let scene = Scene()
        scene.answersRequests = false
        let idle = scene.client()
        let busy = scene.client()
        try scene.send(busy, "GET /len/3/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        scene.loop.drain()
        try scene.settle()
        #expect(scene.network.isClosed(idle))
        #expect(!scene.network.isClosed(busy))
        scene.answersRequests = true
        try scene.settle()
        let response = try #require(try scene.responses(busy).first)
        #expect(response.status == 200)
        #expect(response.value("connection") == "close")
        #expect(scene.network.isClosed(busy))
        #expect(scene.loop.upstreamConnections.count == 0)
        scene.checkQuiet()
    }

    @Test func aRequestThatCrossesTheDrainIsServed() throws {
        let scene = Scene()
        let client = scene.client()
        try scene.send(client, "GET /len/1/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        _ = try scene.responses(client)
        scene.network.send(client, Array("GET /len/2/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n".utf8))
        scene.network.deliver(client, .max)
        // The bytes are in the socket; no edge has been handled.
        scene.loop.drain()
        try scene.settle()
        let responses = try scene.responses(client)
        #expect(responses.map(\.body.count) == [2])
        #expect(responses.first?.value("connection") == "close")
        #expect(scene.network.isClosed(client))
        scene.checkQuiet()
    }

    @Test func aHalfClosedClientStillGetsItsResponse() throws {
        let scene = Scene()
        scene.answersRequests = false
        let client = scene.client()
        try scene.send(client, "GET /len/3/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        scene.network.end(client)
        try scene.settle()
        scene.answersRequests = true
        try scene.settle()
        #expect(try scene.responses(client).map(\.body.count) == [3])
        #expect(scene.network.isClosed(client))
        scene.checkQuiet()
    }

    /// What the end of the drain cuts off is not told as the client's doing.
    @Test func whatEndsTheDrainIsOurs() throws {
        let scene = Scene()
        scene.answersRequests = false
        let clients = [scene.client(), scene.client()]
        for client in clients { try scene.send(client, "GET /len/3/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n") }
        // Nobody knows yet what this one wants.
        let half = scene.client()
        try scene.send(half, "GET /len/3/1 HTTP/1.1\r\nHo")
        scene.network.send(
            try #require(scene.openedUpstreams.last), Array("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".utf8))
        try scene.settle()
        scene.loop.drain()
        try scene.settle()
        scene.loop.closeAll()
        scene.loop.telemetry.metrics.publish()
        let figures = scene.hub.render(process: nil)
        #expect(figures.contains("moongate_failures_total{reason=\"draining\"} 2\n"))
        #expect(figures.contains("moongate_failures_total{reason=\"client-closed\"} 0\n"))
        #expect(figures.contains("moongate_requests_active 0\n"))
        #expect(scene.loop.downstreams.count == 0)
        #expect(try scene.responses(clients[0]).map(\.status) == [503])
        #expect(scene.network.take(clients[1], .max).suffix(4) == Array("half".utf8))
        #expect(scene.network.take(half, .max).isEmpty && scene.network.isClosed(half))
        #expect(clients.allSatisfy { scene.network.isClosed($0) && !scene.network.wasAborted($0) })
    }

    @Test func aClientThatGoesTakesItsUpstreamAlong() throws {
        let scene = Scene()
        scene.answersRequests = false
        let client = scene.client()
        try scene.send(client, "GET /len/3/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        let upstream = try #require(scene.openedUpstreams.first)
        scene.network.reset(client)
        try scene.settle()
        #expect(scene.network.isClosed(client) && scene.network.isClosed(upstream))
        scene.checkQuiet()
    }
}
