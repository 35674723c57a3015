import HTTPWire
import Model
import Testing

/// A block as a session leaves it: each field a line.
private func block(_ fields: [(String, String)]) -> MessageHead {
    var head = MessageHead()
    for (name, value) in fields {
        let nameRange = head.store(name.utf8)
        _ = head.store(": ".utf8)
        let valueRange = head.store(value.utf8)
        _ = head.store("\r\n".utf8)
        head.fields.append(
            FieldRecord(name: FieldName(Array(name.utf8).span), nameRange: nameRange, valueRange: valueRange))
    }
    return head
}

private let plain = [(":method", "GET"), (":scheme", "http"), (":path", "/a?b"), (":authority", "shop.test")]

private let tunnel = [
    (":method", "CONNECT"), (":scheme", "http"), (":path", "/chat?room=1"), (":authority", "shop.test"),
]

struct HTTP2HeadTests {
    /// RFC 8441 §5: what asks for a WebSocket leaves as RFC 6455 §4.1 has it.
    @Test func anExtendedConnectBecomesAHandshake() throws {
        var head = block(
            tunnel + [
                (":protocol", "websocket"), ("sec-websocket-version", "13"), ("sec-websocket-key", "mine"),
                ("sec-websocket-protocol", "chat"), ("sec-websocket-extensions", "permessage-deflate"),
            ])
        #expect(HTTP2Head.complete(&head, limits: HeadLimits(), nonce: { (0x0706_0504_0302_0100, 1) }) == nil)
        var withoutEnd = head
        guard case .refuse = RequestAdmission.judge(&withoutEnd, AdmissionRules(), isTrusted: false, hasBody: false)
        else {
            Issue.record("a tunnel that ends with its head was admitted")
            return
        }
        guard case .admit(let facts) = RequestAdmission.judge(&head, AdmissionRules(), isTrusted: false, hasBody: true)
        else {
            Issue.record("refused")
            return
        }
        #expect(facts.upgrade == .webSocket && facts.body == .none && head.method == .get)
        #expect(head.text(facts.webSocketKeyRange) == "AAECAwQFBgcBAAAAAAAAAA==")
        #expect(
            try written(head, .init(body: facts.body, upgrade: facts.upgrade, upgradeRange: facts.upgradeRange))
                == "GET /chat?room=1 HTTP/1.1\r\nsec-websocket-version: 13\r\nsec-websocket-protocol: chat\r\n"
                + "sec-websocket-extensions: permessage-deflate\r\nhost: shop.test\r\n"
                + "sec-websocket-key: AAECAwQFBgcBAAAAAAAAAA==\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    }

    @Test func theAnswerToItIsA200() {
        var head = MessageHead()
        head.status = 101
        for (name, value) in [
            ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Accept", "x"),
            ("Sec-WebSocket-Protocol", "chat"),
        ] {
            head.append(FieldName(Array(name.utf8).span), name: Array(name.utf8).span, value: Array(value.utf8).span)
        }
        let upgrade = head.fields[1].valueRange
        var list = MessageHead()
        let options = HeadWriter.ResponseOptions(
            body: .none, upgradeRange: ByteRange(offset: upgrade.lowerBound, count: upgrade.count))
        #expect(HTTP2Head.list(response: head, options, date: [], into: &list))
        #expect(
            list.fields.map { list.text($0.nameRange) + "=" + list.text($0.valueRange) }
                == [":status=200", "sec-websocket-protocol=chat"])
        // What a script has made of it is no tunnel any more.
        head.status = 403
        #expect(!HTTP2Head.list(response: head, options, date: [], into: &list))
    }

    private func written(_ head: MessageHead, _ options: HeadWriter.RequestOptions) throws -> String {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 4_096, alignment: 1)
        defer { unsafe buffer.deallocate() }
        var output = unsafe OutputRawSpan(buffer: buffer, initializedCount: 0)
        let outcome = HeadWriter.write(request: head, options, forwarding: nil, to: &output)
        #expect(outcome == .written)
        let count = unsafe output.finalize(for: buffer)
        return unsafe String(decoding: buffer.prefix(count), as: UTF8.self)
    }

    static func crumbs(_ count: Int) -> [(String, String)] { (0..<count).map { ("cookie", "c\($0)=1") } }

    @Test func crumbsAreOneFieldHoweverMany() {
        var head = block(plain + (0..<99).map { ("x\($0)", "y") } + Self.crumbs(1_000))
        #expect(HTTP2Head.complete(&head, limits: HeadLimits()) == nil)
        let line = head.value(of: .cookie).map(head.text) ?? ""
        #expect(line.hasPrefix("c0=1; c1=1; ") && line.hasSuffix("; c999=1"))
        #expect(head.fields.count == 101, "and the host")
        var trailers = block((0...100).map { ("x\($0)", "y") })
        #expect(!HTTP2Head.complete(trailers: &trailers, limits: HeadLimits()))
    }

    @Test func aBlockBecomesARequest() throws {
        var head = block(
            plain + [("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3"), ("te", "trailers")])
        #expect(HTTP2Head.complete(&head, limits: HeadLimits()) == nil)
        #expect(head.version == .http2 && head.method == .get && head.text(head.targetRange) == "/a?b")
        #expect(head.value(of: .cookie).map(head.text) == "a=1; b=2; c=3")
        #expect(head.value(of: .host).map(head.text) == "shop.test")
        guard case .admit(let facts) = RequestAdmission.judge(&head, AdmissionRules(), isTrusted: false) else {
            Issue.record("refused")
            return
        }
        #expect(facts.body == .none && facts.acceptsTrailers)
        #expect(head.text(head.pathRange) == "/a" && head.text(head.hostRange) == "shop.test")
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 4_096, alignment: 1)
        defer { unsafe buffer.deallocate() }
        var output = unsafe OutputRawSpan(buffer: buffer, initializedCount: 0)
        let outcome = HeadWriter.write(
            request: head, .init(body: facts.body, acceptsTrailers: true), forwarding: nil, to: &output)
        #expect(outcome == .written)
        let count = unsafe output.finalize(for: buffer)
        #expect(
            unsafe String(decoding: buffer.prefix(count), as: UTF8.self)
                == "GET /a?b HTTP/1.1\r\ncookie: a=1; b=2; c=3\r\nx: y\r\nhost: shop.test\r\n"
                + "TE: trailers\r\nConnection: TE\r\n\r\n")
    }

    @Test(
        arguments: [
            (false, nil, BodyFraming.none), (true, nil, .chunked), (true, "7", .length(7)), (false, "0", .length(0)),
        ] as [(Bool, String?, BodyFraming)])
    func framesSayWhetherABodyFollows(hasBody: Bool, length: String?, expected: BodyFraming) {
        var head = block(plain + (length.map { [("content-length", $0)] } ?? []))
        #expect(HTTP2Head.complete(&head, limits: HeadLimits()) == nil)
        guard
            case .admit(let facts) = RequestAdmission.judge(
                &head, AdmissionRules(), isTrusted: false, hasBody: hasBody)
        else {
            Issue.record("refused")
            return
        }
        #expect(facts.body == expected)
    }

    static let refused: [(String, [(String, String)], UInt16)] = [
        ("connection", plain + [("connection", "close")], 400), ("keep-alive", plain + [("keep-alive", "1")], 400),
        ("proxy-connection", plain + [("proxy-connection", "x")], 400),
        ("transfer-encoding", plain + [("transfer-encoding", "chunked")], 400),
        ("upgrade", plain + [("upgrade", "websocket")], 400), ("te", plain + [("te", "gzip")], 400),
        ("LF", plain + [("x", "a\nb")], 400), ("CR", plain + [("x", "a\rb")], 400), ("NUL", plain + [("x", "\0")], 400),
        ("upper case", plain + [("X", "a")], 400), ("a space in a name", plain + [("x y", "a")], 400),
        ("an empty name", plain + [("", "a")], 400), ("protocol", plain + [(":protocol", "websocket")], 400),
        ("a space in the path", [(":method", "GET"), (":path", "/a b")], 400),
        ("an absolute path", [(":method", "GET"), (":path", "http://a/")], 400),
        ("an empty path", [(":method", "GET"), (":path", "")], 400),
        ("a method of two", [(":method", "GET /x"), (":path", "/")], 400),
        ("a long path", [(":method", "GET"), (":path", "/" + String(repeating: "a", count: 8_192))], 414),
        ("a long field", plain + [("x", String(repeating: "a", count: 8_192))], 431),
        (
            "crumbs that are too long together",
            plain + Array(repeating: ("cookie", String(repeating: "a", count: 3_000)), count: 3), 431
        ),
        ("a protocol that is not spoken", tunnel + [(":protocol", "connect-udp")], 501),
        ("a protocol without a path", [(":method", "CONNECT"), (":protocol", "websocket")], 400),
        ("many fields", plain + (0...100).map { ("x\($0)", "") }, 431),
        ("many fields, and crumbs", plain + (0..<100).map { ("x\($0)", "") } + crumbs(300), 431),
    ]

    @Test(arguments: refused)
    func whatNoRequestMayHoldIsRefused(what: String, fields: [(String, String)], status: UInt16) {
        var head = block(fields)
        #expect(HTTP2Head.complete(&head, limits: HeadLimits())?.status == status, "\(what)")
    }

    @Test func hostAndAuthorityMustAgree() {
        for (host, isGood) in [
            ("shop.test", true), ("SHOP.test", true), ("other.test", false), ("shop.test:81", false),
        ] {
            var head = block(plain + [("host", host)])
            #expect(HTTP2Head.complete(&head, limits: HeadLimits()) == nil)
            var admitted = false
            if case .admit = RequestAdmission.judge(&head, AdmissionRules(), isTrusted: false) { admitted = true }
            #expect(admitted == isGood, "\(host)")
        }
    }

    /// RFC 9113 §8.3.1, RFC 9110 §4.2.3: the port of the scheme says as much as none, and `:authority` is passed on.
    @Test(arguments: [
        ("http", "shop.test", "shop.test:80", true), ("http", "shop.test:80", "Shop.test", true),
        ("https", "shop.test", "shop.test:443", true), ("https", "shop.test:443", "shop.test", true),
        ("http", "shop.test", "shop.test:443", false), ("https", "shop.test", "shop.test:80", false),
        ("https", "shop.test:443", "shop.test:80", false), ("wss", "shop.test", "shop.test:80", false),
        ("http", "shop.test", "shop.tesu:80", false), ("http", "shop.test", "shop.test:080", true),
        ("http", "shop.test", ":80", false), ("http", "shop.test", "", false),
    ])
    func thePortOfTheSchemeIsNone(scheme: String, authority: String, host: String, isGood: Bool) {
        var head = block([
            (":method", "GET"), (":scheme", scheme), (":path", "/"), (":authority", authority), ("host", host),
        ])
        #expect(HTTP2Head.complete(&head, limits: HeadLimits()) == nil)
        var admitted = false
        if case .admit = RequestAdmission.judge(&head, AdmissionRules(), isTrusted: false) { admitted = true }
        #expect(admitted == isGood)
        if isGood { #expect(head.value(of: .host).map(head.text) == authority) }
    }

    @Test func aResponseBecomesAList() {
        var head = MessageHead()
        head.status = 200
        for (name, value) in [
            ("Content-Type", "text/plain"), ("Connection", "close"), ("Keep-Alive", "timeout=5"), ("Set-Cookie", "a=1"),
            ("Transfer-Encoding", "chunked"), ("Content-Length", "9"), ("Upgrade", "h2c"), ("Set-Cookie", "b=2"),
        ] {
            head.append(FieldName(Array(name.utf8).span), name: Array(name.utf8).span, value: Array(value.utf8).span)
        }
        var list = MessageHead()
        #expect(HTTP2Head.list(response: head, .init(body: .length(12)), date: Array("now".utf8), into: &list))
        #expect(
            list.fields.map { list.text($0.nameRange) + "=" + list.text($0.valueRange) } == [
                ":status=200", "content-type=text/plain", "set-cookie=a=1", "set-cookie=b=2", "date=now",
                "content-length=12",
            ])
        head.append(.other, name: Array("x".utf8).span, value: Array("a\r\nb".utf8).span)
        #expect(!HTTP2Head.list(response: head, .init(body: .none), date: [], into: &list))
        var switching = MessageHead()
        switching.status = 101
        #expect(!HTTP2Head.list(response: switching, .init(body: .none), date: [], into: &list))
    }
}
