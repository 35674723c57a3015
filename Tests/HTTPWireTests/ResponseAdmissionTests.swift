import Model
import Testing

@testable import HTTPWire

@Suite struct ResponseAdmissionTests {
    /// Method, status, field lines; framing and whether the upstream's connection stays; nil: 502.
    static let framings: [(Method, Int, String, BodyFraming?, Bool)] = [
        (.get, 200, "Content-Length: 5\r\n", .length(5), true),
        (.get, 200, "Content-Length: 0\r\n", .length(0), true),
        (.get, 200, "Transfer-Encoding: chunked\r\n", .chunked, true),
        (.get, 200, "", .untilClose, false),
        (.get, 200, "Connection: keep-alive\r\n", .untilClose, false),
        (.get, 200, "Connection: close\r\nContent-Length: 5\r\n", .length(5), false),
        (.get, 200, "Connection: Close, x\r\nTransfer-Encoding: chunked\r\n", .chunked, false),
        (.get, 500, "Content-Length: 5\r\n", .length(5), true),
        (.get, 205, "Content-Length: 0\r\n", .length(0), true),
        (.get, 999, "Content-Length: 5\r\n", .length(5), true),
        // No body, whatever is said.
        (.head, 200, "Content-Length: 5\r\n", BodyFraming.none, true),
        (.head, 200, "Transfer-Encoding: chunked\r\n", BodyFraming.none, true),
        (.head, 200, "", BodyFraming.none, true),
        (.get, 304, "Content-Length: 5\r\n", BodyFraming.none, true),
        (.get, 304, "", BodyFraming.none, true),
        (.get, 204, "", BodyFraming.none, true),
        (.get, 204, "Content-Length: 0\r\n", BodyFraming.none, true),
        (.get, 204, "Content-Length: 5\r\n", BodyFraming.none, false),
        (.get, 204, "Transfer-Encoding: chunked\r\n", BodyFraming.none, false),
        (.get, 100, "", BodyFraming.none, true),
        (.get, 103, "Link: x\r\n", BodyFraming.none, true),
        // Ambiguous.
        (.get, 100, "Content-Length: 5\r\n", nil, false),
        (.get, 103, "Transfer-Encoding: chunked\r\n", nil, false),
        (.get, 200, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", nil, false),
        (.get, 200, "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", nil, false),
        (.head, 200, "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", nil, false),
        (.get, 200, "Content-Length: 5\r\nContent-Length: 5\r\n", nil, false),
        (.get, 200, "Content-Length: 5, 5\r\n", nil, false),
        (.get, 200, "Content-Length: +5\r\n", nil, false),
        (.get, 200, "Content-Length: x\r\n", nil, false),
        (.get, 200, "Content-Length: 9223372036854775808\r\n", nil, false),
        (.get, 200, "Transfer-Encoding: gzip, chunked\r\n", nil, false),
        (.get, 200, "Transfer-Encoding: identity\r\n", nil, false),
        (.get, 200, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", nil, false),
        (.get, 200, "Connection: a b\r\nContent-Length: 5\r\n", nil, false),
        (.get, 101, "Connection: Upgrade\r\nUpgrade: websocket\r\n", nil, false),
    ]

    @Test(arguments: framings)
    func framesAnAnswer(_ row: (Method, Int, String, BodyFraming?, Bool)) {
        let (admission, _) = admitResponse("HTTP/1.1 \(row.1) X\r\n\(row.2)\r\n", method: row.0)
        guard let framing = row.3 else {
            #expect(admission == .refuse(Refusal(502, .malformedResponse)))
            return
        }
        #expect(admission?.facts?.body == framing)
        #expect(admission?.facts?.keepsAlive == row.4)
        #expect(admission?.facts?.isInformational == (row.1 < 200))
    }

    @Test(arguments: [
        ("Content-Length: 5\r\n", false), ("Connection: keep-alive\r\nContent-Length: 5\r\n", true),
        ("Connection: keep-alive, close\r\nContent-Length: 5\r\n", false),
    ])
    func anHTTP10AnswerKeepsTheConnectionOnlyIfItSaysSo(_ lines: String, _ keeps: Bool) {
        #expect(admitResponse("HTTP/1.0 200 OK\r\n\(lines)\r\n").admission?.facts?.keepsAlive == keeps)
    }

    @Test func anHTTP10AnswerHasNoCoding() {
        let (admission, _) = admitResponse("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        #expect(admission == .refuse(Refusal(502, .malformedResponse)))
    }

    @Test func saysWhatABodyWouldHaveBeen() {
        let head = admitResponse("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", method: .head)
        #expect(head.admission?.facts?.declaredLength == 7)
        #expect(admitResponse("HTTP/1.1 304 X\r\nContent-Length: 7\r\n\r\n").admission?.facts?.declaredLength == 7)
        #expect(admitResponse("HTTP/1.1 200 X\r\nContent-Length: 7\r\n\r\n").admission?.facts?.declaredLength == nil)
    }

    static let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    static let key = "dGhlIHNhbXBsZSBub25jZQ=="

    @Test(arguments: [
        ("Connection: Upgrade\r\nUpgrade: websocket\r\n\(accept)", true),
        ("connection: upgrade\r\nupgrade: WebSocket\r\n\(accept)", true),
        ("Connection: Upgrade\r\nUpgrade: websocket\r\n", false),
        ("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOp=\r\n", false),
        ("Connection: Upgrade\r\nUpgrade: websocket\r\n\(accept)\(accept)", false),
        ("Connection: Upgrade\r\nUpgrade: h2c\r\n\(accept)", false),
        ("Upgrade: websocket\r\n\(accept)", false),
        ("Connection: Upgrade\r\n\(accept)", false),
    ])
    func opensATunnelOnlyWithTheRightAnswer(_ lines: String, _ opens: Bool) {
        let (admission, head) = admitResponse(
            "HTTP/1.1 101 Switching Protocols\r\n\(lines)\r\n", upgrade: .webSocket, key: Self.key)
        #expect((admission?.facts?.isUpgrade ?? false) == opens)
        if opens {
            #expect(admission?.facts?.keepsAlive == false)
            #expect(head.text(admission?.facts?.upgradeRange ?? .empty).lowercased() == "websocket")
        } else {
            #expect(admission == .refuse(Refusal(502, .malformedResponse)))
        }
    }

    @Test func another200IsNoTunnel() {
        let (admission, _) = admitResponse(
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\(Self.accept)\r\n",
            upgrade: .webSocket, key: Self.key)
        #expect(admission?.facts?.isUpgrade == false)
        #expect(admission?.facts?.body == .length(3))
    }

    @Test func hopByHopFieldsAreMarked() {
        let (_, head) = admitResponse(
            """
            HTTP/1.1 200 OK\r
            Connection: x-gone, set-cookie\r
            Keep-Alive: timeout=5\r
            Proxy-Authenticate: x\r
            Content-Length: 1\r
            X-Gone: 1\r
            Set-Cookie: a=b\r
            Server: s\r
            \r

            """)
        #expect(head.fields.map { $0.flags.contains(.hopByHop) } == [true, true, true, true, true, false, false])
    }
}
