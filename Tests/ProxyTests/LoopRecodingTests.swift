import Compression
import CompressionTesting
import HTTP2Testing
import HTTPWire
import Model
import Reactor
import Testing

@testable import Proxy

/// Bodies that are changed on their way: compressed for the client, or bridged between gRPC-Web and gRPC.
@Suite struct LoopRecodingTests {
    private static func policy(_ text: String) -> RoutePolicy {
        var policy = RoutePolicy()
        policy.compression = CompressionChoice(text)
        return policy
    }

    private func get(_ path: String, _ fields: String = "Accept-Encoding: gzip\r\n") -> String {
        "GET \(path) HTTP/1.1\r\nHost: shop.test\r\n\(fields)\r\n"
    }

    @Test func offIsOff() throws {
        let scene = Scene()
        let client = scene.client()
        try scene.send(client, get("/len/5000/1"))
        let response = try #require(try scene.responses(client).first)
        #expect(response.value("content-length") == "5000" && response.body == pattern(5000, 1))
        #expect(response.value("vary") == nil)
        scene.checkQuiet()
    }

    @Test func anIngressTurnsItOnAndOff() throws {
        for (operators, ingress, coding) in [
            ("off", "on", "gzip"), ("on", "off", nil), ("br", "on", nil), ("br", "gzip", "gzip"), ("gzip", nil, "gzip"),
        ] {
            var policy = RoutePolicy()
            policy.compression = ingress.flatMap { CompressionChoice($0) }
            let choice = try #require(CompressionChoice(operators))
            let scene = Scene(policy: policy, configure: { $0.compression.choice = choice })
            let client = scene.client()
            try scene.send(client, get("/len/5000/1"))
            #expect(
                try scene.responses(client).first?.value("content-encoding") == coding, "\(operators) \(ingress ?? "")")
            scene.checkQuiet()
        }
    }

    /// What the upstream has sent is with the client, whatever it has not sent yet.
    @Test(arguments: ContentCoding.allCases)
    func nothingIsHeld(coding: ContentCoding) throws {
        let scene = Scene(policy: Self.policy("\(coding.name)"))
        scene.answersRequests = false
        let client = scene.client()
        try scene.send(client, get("/", "Accept-Encoding: \(coding.name)\r\n"))
        let upstream = try #require(scene.openedUpstreams.first)
        _ = scene.network.take(upstream, .max)
        scene.network.send(
            upstream, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n".utf8)
        try scene.settle()
        var came = scene.network.take(client, .max)
        let decoder = try #require(ContentDecoder(coding))
        var position = try #require(TestParse.find(came, 0)) + 4
        func read() throws {
            came += scene.network.take(client, .max)
            while position < came.count, let end = came[position...].firstIndex(of: 13) {
                let size = try #require(Int(String(decoding: came[position..<end], as: UTF8.self), radix: 16))
                decoder.read(Array(came[(end + 2)..<(end + 2 + size)]))
                position = end + 4 + size
            }
        }
        for n in 1...20 {
            scene.network.send(upstream, "8\r\nevent \(n % 10)\n\r\n".utf8)
            try scene.settle()
            try read()
            #expect(decoder.text.count == 8 * n)
        }
        scene.network.send(upstream, "0\r\n\r\n".utf8)
        try scene.settle()
        try read()
        #expect(!decoder.failed && came.suffix(5).elementsEqual("0\r\n\r\n".utf8))
        scene.checkQuiet()
    }

    @Test(arguments: ContentCoding.allCases)
    func overHTTP2(coding: ContentCoding) throws {
        let scene = Scene(policy: Self.policy("on"))
        let client = HTTP2Client(settings: [])
        let descriptor = scene.client()
        client.get(1, "/chunked/40000/7", [("accept-encoding", "\(coding.name)")])
        for _ in 0..<100 {
            scene.network.send(descriptor, client.takeOutput())
            try scene.settle()
            client.receive(scene.network.take(descriptor, .max))
        }
        #expect(client[1].status == "200" && client[1].isEnded && client[1].reset == nil)
        #expect(client[1].value("content-encoding") == "\(coding.name)" && client[1].value("content-length") == nil)
        let decoder = try #require(ContentDecoder(coding))
        decoder.read(client[1].body)
        #expect(!decoder.failed && decoder.text == pattern(40000, 7))
        scene.checkQuiet()
    }

    /// What trailers say of a body holds for the body as it was.
    @Test(arguments: [true, false])
    func trailersOfACompressedBody(isCompressed: Bool) throws {
        let scene = Scene(policy: Self.policy("on"))
        scene.answersRequests = false
        let client = scene.client()
        try scene.send(
            client, get("/", isCompressed ? "Accept-Encoding: gzip\r\nTE: trailers\r\n" : "TE: trailers\r\n"))
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
        let trailers = "Content-Digest: sha-256=:x:\r\nETag: \"a\"\r\nX-Sum: 1\r\n"
        scene.network.send(
            scene.openedUpstreams[0], Array(head.utf8) + chunked(pattern(3000, 1), pieces: 700, trailers: trailers))
        try scene.settle()
        let response = try #require(try scene.responses(client).first)
        #expect(response.value("content-encoding") == (isCompressed ? "gzip" : nil))
        #expect(
            response.trailers.map { $0.0.lowercased() }
                == (isCompressed ? ["x-sum"] : ["content-digest", "etag", "x-sum"]))
        scene.checkQuiet()
    }

    @Test func trailersOfACompressedBodyOverHTTP2() throws {
        let scene = Scene(policy: Self.policy("on"))
        scene.answersRequests = false
        let client = HTTP2Client(settings: [])
        let descriptor = scene.client()
        client.get(1, "/", [("accept-encoding", "gzip"), ("te", "trailers")])
        scene.network.send(descriptor, client.takeOutput())
        try scene.settle()
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
        scene.network.send(
            scene.openedUpstreams[0],
            Array(head.utf8) + chunked(pattern(3000, 1), pieces: 700, trailers: "Content-Digest: x\r\n"))
        for _ in 0..<10 {
            try scene.settle()
            client.receive(scene.network.take(descriptor, .max))
            scene.network.send(descriptor, client.takeOutput())
        }
        #expect(client[1].isEnded && client[1].reset == nil)
        #expect(client[1].value("content-encoding") == "gzip" && client[1].value("content-digest") == nil)
        scene.checkQuiet()
    }

    @Test(arguments: [("W/\"a\"", "W/\"a\"", "on"), ("\"a\"", "\"a\"", "on"), ("W/\"a\"", "\"a\"", "off")])
    func notModified(asked: String, told: String, compression: String) throws {
        let scene = Scene(policy: Self.policy(compression))
        scene.answersRequests = false
        let client = scene.client()
        try scene.send(client, get("/", "If-None-Match: \(asked)\r\n"))
        scene.network.send(scene.openedUpstreams[0], "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n".utf8)
        try scene.settle()
        let response = try #require(try scene.responses(client).first)
        #expect(response.status == 304 && response.value("etag") == told)
        #expect(response.value("vary") == (compression == "on" ? "Accept-Encoding" : nil))
        scene.checkQuiet()
    }

    /// Where all encoders are in use, a response goes out as it came.
    @Test func encodersAreBounded() throws {
        let scene = Scene(policy: Self.policy("gzip"), configure: { $0.compression.memory = 1 })
        scene.answersRequests = false
        var codings: [Bool] = []
        for n in 0..<2 {
            let client = scene.client()
            try scene.send(client, get("/"))
            scene.network.send(
                scene.openedUpstreams[n],
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5000\r\n\r\nfirst".utf8)
            try scene.settle()
            codings.append(
                String(decoding: scene.network.take(client, .max), as: UTF8.self).contains("Content-Encoding"))
        }
        #expect(codings == [true, false])
        for upstream in scene.openedUpstreams { scene.network.reset(upstream) }
        try scene.settle()
        #expect(scene.loop.encoders.lent == 0)
    }

    /// A body that the upstream breaks off is broken off for the client.
    @Test func aCutIsSeen() throws {
        let scene = Scene(policy: Self.policy("gzip"))
        let client = scene.client()
        try scene.send(client, get("/half/5000/1"))
        let came = scene.network.take(client, .max)
        #expect(!came.isEmpty && !came.suffix(5).elementsEqual("0\r\n\r\n".utf8))
        #expect(scene.network.hasEnded(client))
        scene.checkQuiet()
    }

    /// What the client compressed is the upstream's to read.
    @Test func requestBodiesAreNeverDecoded() throws {
        let scene = Scene(policy: Self.policy("on,always"))
        let client = scene.client()
        let body = pattern(3000, 5)
        scene.network.send(
            client,
            Array(
                "POST /len/1/1 HTTP/1.1\r\nHost: shop.test\r\nContent-Encoding: gzip\r\nContent-Length: 3000\r\n\r\n"
                    .utf8)
                + body)
        try scene.settle()
        #expect(try scene.responses(client).map(\.status) == [200])
        #expect(scene.requests.first?.body == body && scene.requests.first?.value("content-encoding") == "gzip")
        scene.checkQuiet()
    }

    // MARK: gRPC-Web

    private static var bridge: RoutePolicy {
        var policy = RoutePolicy()
        policy.bridgesGRPCWeb = true
        policy.compression = CompressionChoice("on")
        return policy
    }

    private func call(_ path: String, _ type: String, _ body: [UInt8], chunks: Int? = nil) -> [UInt8] {
        let head = "POST \(path) HTTP/1.1\r\nHost: shop.test\r\nAccept-Encoding: gzip\r\nContent-Type: \(type)\r\n"
        if let chunks {
            return Array("\(head)Transfer-Encoding: chunked\r\n\r\n".utf8) + chunked(body, pieces: chunks)
        }
        return Array("\(head)Content-Length: \(body.count)\r\n\r\n".utf8) + body
    }

    private func base64(_ bytes: [UInt8]) -> [UInt8] {
        let letters = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
        var text: [UInt8] = []
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let group = bytes[start..<min(start + 3, bytes.count)]
            let bits = group.reduce(UInt32(0)) { $0 << 8 | UInt32($1) } << UInt32(8 * (3 - group.count))
            for i in 0..<4 { text.append(i <= group.count ? letters[Int(bits >> UInt32(18 - 6 * i) & 63)] : 61) }
        }
        return text
    }

    private func unbase64(_ text: [UInt8]) -> [UInt8] {
        var decoder = Base64Decoder()
        var bytes: [UInt8] = []
        var offset = 0
        let buffer = Buffer(capacity: text.count + 8)
        buffer.write { _ = decoder.read(text.span, at: &offset, to: &$0) }
        for i in 0..<buffer.count { bytes.append(buffer.span[i]) }
        return bytes
    }

    private static let frame: [UInt8] = {
        let lines = Array("grpc-status:0\r\ngrpc-message:fine\r\n".utf8)
        return [0x80, 0, 0, 0, UInt8(lines.count)] + lines
    }()

    @Test(arguments: [nil, 1, 7, 5000])
    func aCallInBytes(chunks: Int?) throws {
        let scene = Scene(policy: Self.bridge)
        let client = scene.client()
        scene.network.send(client, call("/grpc/2000/3", "application/grpc-web+proto", pattern(900, 1), chunks: chunks))
        try scene.settle()
        let response = try #require(try scene.responses(client).first)
        #expect(response.value("content-type") == "application/grpc-web+proto")
        #expect(response.trailers.isEmpty && response.body == pattern(2000, 3) + Self.frame)
        let request = try #require(scene.requests.first)
        #expect(request.value("content-type") == "application/grpc+proto" && request.body == pattern(900, 1))
        #expect(request.value("te") == "trailers")
        scene.checkQuiet()
    }

    @Test(arguments: [nil, 1, 7, 5000])
    func aCallInText(chunks: Int?) throws {
        let scene = Scene(policy: Self.bridge)
        let client = scene.client()
        // Two texts, each padded, one behind the other.
        let body = base64(pattern(100, 1)) + base64(pattern(20_000, 2))
        scene.network.send(client, call("/grpc/2000/3", "application/grpc-web-text", body, chunks: chunks))
        try scene.settle()
        let response = try #require(try scene.responses(client).first)
        #expect(response.value("content-type") == "application/grpc-web-text+proto")
        #expect(unbase64(response.body) == pattern(2000, 3) + Self.frame)
        #expect(scene.requests.first?.body == pattern(100, 1) + pattern(20_000, 2))
        scene.checkQuiet()
    }

    @Test func aStatusWithoutMessagesStandsInTheHead() throws {
        let scene = Scene(policy: Self.bridge)
        let client = scene.client()
        scene.network.send(client, call("/grpc-only/0/0", "application/grpc-web", [0, 0, 0, 0, 0]))
        try scene.settle()
        let response = try #require(try scene.responses(client).first)
        #expect(response.value("content-type") == "application/grpc-web" && response.value("grpc-status") == "5")
        #expect(response.body.isEmpty)
        scene.checkQuiet()
    }

    /// An old client of gRPC-Web reads its trailers in the body as any other does: the upstream is asked for them.
    @Test func aCallOverHTTP10() throws {
        let scene = Scene(policy: Self.bridge)
        let client = scene.client()
        try scene.send(
            client,
            "POST /grpc/20/3 HTTP/1.0\r\nHost: shop.test\r\nContent-Type: application/grpc-web\r\nContent-Length: 1\r\n\r\nx"
        )
        let response = try #require(try scene.responses(client).first)
        #expect(response.body == pattern(20, 3) + Self.frame)
        #expect(scene.requests.first?.value("te") == "trailers")
        scene.checkQuiet()
    }

    /// The same form for what fails before the request would have been sent on.
    @Test(arguments: ["application/grpc-web+proto", "application/grpc-web-text"])
    func everyFailureIsAStatus(type: String) throws {
        var policy = Self.bridge
        policy.maxBodyBytes = 10
        let scene = Scene(policy: policy)
        let client = scene.client()
        scene.network.send(client, call("/grpc/10/1", type, pattern(40, 1)))
        try scene.settle()
        let response = try #require(try scene.responses(client).first)
        #expect(response.status == 200 && response.value("grpc-status") == "8")
        #expect(response.value("content-type")?.hasPrefix(type.prefix(20)) == true)
        #expect(scene.requests.isEmpty)
        scene.network.end(client)
        scene.advance(milliseconds: 61_000)
        scene.checkQuiet()
    }

    @Test(arguments: ["AAAA!AAA", "AAAAA", "AA=A", "="])
    func whatIsNoBase64IsRefused(_ text: String) throws {
        for chunks in [nil, 1] {
            let scene = Scene(policy: Self.bridge)
            let client = scene.client()
            scene.network.send(
                client, call("/grpc/10/1", "application/grpc-web-text", Array(text.utf8), chunks: chunks))
            try scene.settle()
            // Such a client is told in the terms of gRPC: INTERNAL, as for any 400.
            let response = try #require(try scene.responses(client).first)
            #expect(response.status == 200 && response.value("grpc-status") == "13")
            #expect(response.value("content-type") == "application/grpc-web-text")
            #expect(scene.requests.isEmpty)
            scene.network.end(client)
            scene.advance(milliseconds: 61_000)
            scene.checkQuiet()
        }
    }

    @Test func otherRequestsAndPreflightsPass() throws {
        let scene = Scene(policy: Self.bridge)
        let client = scene.client()
        try scene.send(
            client, "OPTIONS /len/3/1 HTTP/1.1\r\nHost: shop.test\r\nAccess-Control-Request-Method: POST\r\n\r\n")
        scene.network.send(client, call("/len/4/1", "text/plain", [1]))
        try scene.settle()
        #expect(try scene.responses(client).map(\.body.count) == [3, 4])
        #expect(scene.requests.map { $0.value("content-type") } == [nil, "text/plain"])
        #expect(scene.requests.allSatisfy { $0.value("te") == nil })
        scene.checkQuiet()
    }
}
