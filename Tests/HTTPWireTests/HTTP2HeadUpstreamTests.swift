import Model
import Testing

@testable import HTTPWire

private func text(_ list: MessageHead) -> [String] {
    list.fields.map { "\(list.text($0.nameRange))=\(list.text($0.valueRange))" }
}

private func head(_ fields: [(String, String)]) -> MessageHead {
    var head = MessageHead()
    for (name, value) in fields {
        let bytes = Array(name.utf8)
        head.append(FieldName(bytes.span), name: bytes.span, value: Array(value.utf8).span, flags: [])
    }
    return head
}

struct HTTP2HeadUpstreamTests {
    @Test(
        arguments: [
            (
                "GET /a?b HTTP/1.1\r\nHost: Shop.test:80\r\nX-A:  1 \r\nCookie: a=1; b=2\r\n\r\nbody",
                [":method=GET", ":scheme=http", ":path=/a?b", ":authority=Shop.test:80", "x-a=1", "cookie=a=1; b=2"]
            ),
            (
                "POST * HTTP/1.1\r\nX: y\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nConnection: TE\r\n\r\n",
                [":method=POST", ":scheme=http", ":path=*", ":authority=h", "x=y", "te=trailers"]
            ),
            (
                "GET / HTTP/1.1\r\nHost: \r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\nE:\r\n\r\n",
                [":method=GET", ":scheme=http", ":path=/", "content-length=0", "e="]
            ),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", nil),
            ("GET / HTTP/1.1\r\nHost: a\r\n", nil),
            ("GET / HTTP/1.1\r\nHost a\r\n\r\n", nil),
            ("GET / HTTP/1.1\r\n: a\r\n\r\n", nil),
            ("GET /\r\n\r\n", nil), ("GET", nil), ("", nil), (" / HTTP/1.1\r\n\r\n", nil),
            ("GET  HTTP/1.1\r\n\r\n", nil),
        ] as [(String, [String]?)])
    func requests(head: String, fields: [String]?) {
        var list = MessageHead()
        let bytes = Array(head.utf8)
        let isWhole = HTTP2Head.list(request: bytes.span, scheme: "http", into: &list)
        #expect(isWhole == (fields != nil))
        if let fields { #expect(text(list) == fields) }
    }

    @Test(
        arguments: [
            ([(":status", "200"), ("x", "y"), ("content-length", "3")], 200),
            ([(":status", "103"), ("link", "</a>")], 103),
            ([(":status", "999")], 999),
            ([], nil), ([("x", "y")], nil), ([(":status", "099")], nil), ([(":status", "20")], nil),
            ([(":status", "20a")], nil), ([(":status", "200"), (":status", "200")], nil),
            ([(":status", "200"), (":path", "/")], nil), ([("x", "y"), (":status", "200")], nil),
            ([(":status", "200"), ("X", "y")], nil), ([(":status", "200"), ("x", "a\nb")], nil),
            ([(":status", "200"), ("connection", "close")], nil), ([(":status", "200"), ("upgrade", "h2c")], nil),
            ([(":status", "200"), ("transfer-encoding", "chunked")], nil),
            ([(":status", "200"), ("keep-alive", "1")], nil),
            ([(":status", "200"), ("x", String(repeating: "y", count: 300))], nil),
            ([(":status", "200")] + (0..<6).map { ("x\($0)", "y") }, nil),
        ] as [([(String, String)], Int?)])
    func responses(fields: [(String, String)], status: Int?) {
        var head = head(fields)
        let limits = HeadLimits(fieldCount: 5, lineBytes: 200)
        let isGood = HTTP2Head.complete(response: &head, limits: limits)
        #expect(isGood == (status != nil))
        if let status { #expect(Int(head.status) == status && head.fields.count == fields.count - 1) }
    }

    @Test func trailersOfResponses() {
        var good = head([("grpc-status", "0"), ("my_meta", "1"), ("set-cookie", "a=1")])
        let isGood = HTTP2Head.complete(responseTrailers: &good, limits: HeadLimits())
        #expect(isGood && good.fields.filter { !$0.isRemoved }.count == 2)
        for bad in [("content-length", "1"), ("X", "1"), ("x", "a\rb"), (":status", "200")] {
            var head = head([bad])
            let isGood = HTTP2Head.complete(responseTrailers: &head, limits: HeadLimits())
            #expect(!isGood, "\(bad)")
        }
    }

    /// The metadata of a call is its caller's, whatever it is named.
    @Test func trailersOfCalls() {
        let fields = [
            "grpc-status", "accept", "age", "cookie", "location", "range", "retry-after", "warning", "set-cookie",
            "via",
            "my_meta", "authorization", "content-type", "x-forwarded-x", "ssl-client-x", "x-request-id", "te",
            "trailer",
            "connection",
        ].map { ($0, "1") }
        var ofCall = head(fields)
        var other = head(fields)
        let areGood = (
            HTTP2Head.complete(responseTrailers: &ofCall, limits: HeadLimits(), ofCall: true),
            HTTP2Head.complete(responseTrailers: &other, limits: HeadLimits())
        )
        #expect(areGood == (true, true))
        #expect(ofCall.fields.filter { !$0.isRemoved }.count == fields.count - 3)
        #expect(other.fields.filter { !$0.isRemoved }.map { other.text($0.nameRange) } == ["grpc-status", "my_meta"])
        for framing in ["content-length", "transfer-encoding"] {
            var head = head([(framing, "1")])
            let isGood = HTTP2Head.complete(responseTrailers: &head, limits: HeadLimits(), ofCall: true)
            #expect(!isGood, "\(framing)")
        }
    }
}

struct GRPCTests {
    @Test(arguments: [
        ("application/grpc", true), ("application/grpc+proto", true), ("Application/gRPC;charset=utf-8", true),
        ("application/grpc ; a=b", true), ("application/grpc-web", false), ("application/grpc-web+proto", false),
        ("application/grpcx", false), ("application/json", false), ("", false), ("application/grp", false),
    ])
    func calls(type: String, isCall: Bool) {
        #expect(GRPC.isCall(head([("x", "y"), ("content-type", type)])) == isCall)
        #expect(!GRPC.isCall(head([("x-content-type", type)])))
    }

    @Test(
        arguments: [
            (400, 13), (401, 16), (403, 7), (404, 12), (405, 13), (408, 13), (413, 8), (421, 13), (429, 8), (431, 8),
            (500, 13), (502, 14), (503, 14), (504, 4), (505, 13),
        ] as [(UInt16, UInt8)])
    func statuses(http: UInt16, grpc: UInt8) {
        #expect(GRPCStatus(httpStatus: http).rawValue == grpc)
    }

    /// gRPC over HTTP/2, "Errors".
    @Test(arguments: [
        (UInt32(0), UInt8(13)), (1, 13), (2, 13), (3, 13), (4, 13), (5, 13), (6, 13), (7, 14), (8, 1), (9, 13),
        (10, 13),
        (11, 8), (12, 7), (13, 13), (14, 13), (.max, 13),
    ])
    func resetsBecomeStatuses(code: UInt32, grpc: UInt8) {
        #expect(GRPCStatus(resetCode: code).rawValue == grpc)
    }

    @Test(
        arguments: [
            ("0", 0), ("14", 14), ("16", 16), ("17", nil), ("99", nil), ("", nil), ("-1", nil), ("1a", nil),
            ("001", nil),
        ] as [(String, UInt8?)])
    func whatAResponseSays(value: String, status: UInt8?) {
        #expect(GRPC.status(of: head([("x", "1"), ("Grpc-Status", value)]))?.rawValue == status)
    }

    @Test(arguments: [
        ("Not Found", "Not Found"), ("100% sure", "100%25 sure"), ("a\nb", "a%0Ab"), ("é~", "%C3%A9~"),
        ("\u{7f}", "%7F"),
    ])
    func messages(text: String, encoded: String) {
        var output: [UInt8] = []
        GRPC.percentEncode(Array(text.utf8).span, into: &output)
        #expect(String(decoding: output, as: UTF8.self) == encoded)
        var head = MessageHead()
        GRPC.append(.unavailable, message: Array(text.utf8).span, to: &head)
        #expect(GRPC.status(of: head) == .unavailable && head.text(head.fields[1].valueRange) == encoded)
    }
}
