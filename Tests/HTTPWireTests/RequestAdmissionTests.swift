import Model
import Testing

@testable import HTTPWire

@Suite struct RequestAdmissionTests {
    /// The classics of request smuggling: what stands between the request line and the empty line, and what comes of
    /// it. Nil: admitted. (SECURITY.md, HTTP, first three rows.)
    static let smuggling: [(String, UInt16?)] = [
        // Content-Length alone.
        ("Content-Length: 5", nil),
        ("Content-Length: 0", nil),
        ("Content-Length: 005", nil),
        ("content-length:5", nil),
        ("Content-Length: 5 ", nil),
        ("Content-Length: \t5", nil),
        ("Content-Length: 999999999999999999", nil),
        ("Content-Length: 1000000000000000000", 400),
        ("Content-Length: 9223372036854775808", 400),
        ("Content-Length: 18446744073709551616", 400),
        ("Content-Length: 18446744073709551621", 400),
        ("Content-Length: 00000000000000000005", 400),
        ("Content-Length: 5\r\nContent-Length: 5", 400),
        ("Content-Length: 5\r\nContent-Length: 6", 400),
        ("Content-Length: 6\r\nContent-Length: 5", 400),
        ("Content-Length: 5\r\nX: y\r\nCONTENT-LENGTH: 0", 400),
        ("Content-Length: 5, 5", 400),
        ("Content-Length: 5,5", 400),
        ("Content-Length: 5,6", 400),
        ("Content-Length: 5;", 400),
        ("Content-Length: +5", 400),
        ("Content-Length: -5", 400),
        ("Content-Length: 5 5", 400),
        ("Content-Length: 0x5", 400),
        ("Content-Length: 5.0", 400),
        ("Content-Length: 5e0", 400),
        ("Content-Length: five", 400),
        ("Content-Length:", 400),
        ("Content-Length: ", 400),
        ("Content-Length: \"5\"", 400),
        ("Content-Length: 5\u{0}", 400),
        ("Content-Length: 5\u{b}", 400),
        ("Content-Length : 5", 400),
        ("Content-Length\t: 5", 400),
        (" Content-Length: 5", 400),
        ("X: y\r\n Content-Length: 5", 400),
        ("X: y\rContent-Length: 5", 400),
        ("X: y\nContent-Length: 5", 400),
        ("\u{b}Content-Length: 5", 400),
        // Transfer-Encoding alone.
        ("Transfer-Encoding: chunked", nil),
        ("Transfer-Encoding: CHUNKED", nil),
        ("Transfer-Encoding:chunked", nil),
        ("Transfer-Encoding:  chunked \t", nil),
        ("Transfer-Encoding: xchunked", 501),
        ("Transfer-Encoding: chunkedx", 501),
        ("Transfer-Encoding: identity", 501),
        ("Transfer-Encoding: gzip", 501),
        ("Transfer-Encoding: gzip, chunked", 501),
        ("Transfer-Encoding: chunked, identity", 400),
        ("Transfer-Encoding: chunked, chunked", 400),
        ("Transfer-Encoding: chunked, gzip", 400),
        ("Transfer-Encoding: chunked;q=1", 400),
        ("Transfer-Encoding: \"chunked\"", 400),
        ("Transfer-Encoding: 'chunked'", 501),
        ("Transfer-Encoding: chunk ed", 400),
        ("Transfer-Encoding: \u{b}chunked", 400),
        ("Transfer-Encoding: \u{c}chunked", 400),
        ("Transfer-Encoding: \u{0}chunked", 400),
        ("Transfer-Encoding: chunked\u{7f}", 400),
        ("Transfer-Encoding: \u{a0}chunked", 400),
        ("Transfer-Encoding:", 400),
        ("Transfer-Encoding: ,", 400),
        ("Transfer-Encoding:\r\n chunked", 400),
        ("Transfer-Encoding:\n chunked", 400),
        ("Transfer-Encoding : chunked", 400),
        ("Transfer-Encoding\t: chunked", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: x", 400),
        // Both, in both orders.
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", 400),
        ("Content-Length: 0\r\nTransfer-Encoding: chunked", 400),
        ("Content-Length: 5\r\nTransfer-Encoding: xchunked", 400),
        ("Content-Length: 5\r\nTransfer-Encoding: identity", 400),
        ("transfer-encoding: Chunked\r\ncontent-length: 3", 400),
    ]

    @Test(arguments: smuggling, [true, false])
    func framesABodyOneWayOrRefuses(_ row: (String, UInt16?), keepAlive: Bool) {
        let connection = keepAlive ? "keep-alive" : "close"
        let (admission, head) = admit("POST / HTTP/1.1\r\nHost: a\r\nConnection: \(connection)\r\n\(row.0)\r\n\r\n")
        #expect(admission?.status == row.1)
        guard let facts = admission?.facts else { return }
        #expect(facts.keepsAlive == keepAlive)
        // Whatever was admitted leaves with one framing field, ours, and never with both.
        let text = output { out in
            #expect(
                HeadWriter.write(
                    request: head, .init(body: facts.body), forwarding: nil, to: &out) == .written)
        }
        let framing = text.lowercased().split(separator: "\r\n").filter {
            $0.hasPrefix("content-length") || $0.hasPrefix("transfer-encoding")
        }
        #expect(framing.count == 1)
    }

    /// The same name spelled with `_`, as a CGI server would read it, is taken out.
    @Test(arguments: [
        "Transfer_Encoding: chunked", "Content_Length: 5", "X_Forwarded_For: 6.6.6.6", "x_any: y",
    ])
    func takesOutUnderscores(_ line: String) {
        let (admission, head) = admit("GET / HTTP/1.1\r\nHost: a\r\n\(line)\r\n\r\n")
        #expect(admission?.facts?.body == BodyFraming.none)
        #expect(head.fields[1].isRemoved)
        var rules = AdmissionRules()
        rules.dropsUnderscoreNames = false
        #expect(!admit("GET / HTTP/1.1\r\nHost: a\r\n\(line)\r\n\r\n", rules: rules).head.fields[1].isRemoved)
    }

    /// Calls of gRPC keep such names, but for those that would be ours with `-`; and it is to be asked who reads them.
    @Test(
        arguments: [
            ("user_id", "application/grpc", true), ("user_id", "application/grpc+proto", true),
            ("user_id", "application/grpc-web-text", true), ("user_id", "application/json", false),
            ("x_user_id", "application/grpc", true), ("X_Forwarded_For", "application/grpc", false),
            ("x-forwarded_for", "application/grpc", false),
            ("x_forwarded_anything_at_all_is_ours", "application/grpc", false),
            ("x_real_ip", "application/grpc", false), ("x_request_id", "application/grpc", false),
            ("x_scheme", "application/grpc", false), ("ssl_client_verify", "application/grpc", false),
            ("ssl-client_cert", "application/grpc", false), ("content_length", "application/grpc", false),
            ("transfer_encoding", "application/grpc", false), ("keep_alive", "application/grpc", false),
            ("set_cookie", "application/grpc", false), ("_", "application/grpc", true),
        ] as [(String, String, Bool)])
    func callsKeepUnderscores(_ name: String, _ type: String, stays: Bool) {
        for isTrusted in [false, true] {
            let (admission, head) = admit(
                "POST / HTTP/1.1\r\nHost: a\r\n\(name): 1\r\nContent-Type: \(type)\r\n\r\n", isTrusted: isTrusted)
            #expect(head.fields[1].isRemoved == !stays)
            #expect(admission?.facts?.keptUnderscores == stays)
        }
    }

    /// Who takes `_` for `-` gets none of them, and nobody gets one beside a field that it could be taken for.
    @Test func underscoresOfCallsAreSettledByTheUpstream() {
        for areMetadata in [true, false] {
            var head = admit(
                "POST / HTTP/1.1\r\nHost: a\r\nuser_id: 1\r\nx_who: 2\r\nContent-Type: application/grpc\r\n"
                    + "user_id: 3\r\nx-key: 4\r\nX_Key: 5\r\n\r\n"
            ).head
            // A script says who asks, and something of its own.
            head.append(.other, name: Array("X-Who".utf8).span, value: Array("me".utf8).span)
            head.append(.other, name: Array("of_ours".utf8).span, value: Array("6".utf8).span)
            RequestAdmission.settleUnderscores(in: &head, areMetadata: areMetadata)
            let left = head.fields.filter { !$0.isRemoved }.map { head.text($0.nameRange) }
            #expect(
                left == (areMetadata ? ["Host", "user_id", "Content-Type", "user_id"] : ["Host", "Content-Type"])
                    + ["x-key", "X-Who", "of_ours"])
        }
    }

    @Test(arguments: [
        ("Transfer-Encoding: chunked", 400), ("Transfer-Encoding: x", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 1", 400),
    ])
    func refusesTransferEncodingFromHTTP10(_ line: String, _ status: UInt16) {
        #expect(admit("POST / HTTP/1.0\r\nHost: a\r\n\(line)\r\n\r\n").admission?.status == status)
    }

    // MARK: Host and target

    /// Host field, then host and authority as they are understood; nil: 400.
    static let hosts: [(String, String?, String)] = [
        ("shop.test", "shop.test", "shop.test"),
        ("SHOP.Test", "shop.test", "SHOP.Test"),
        ("shop.test.", "shop.test", "shop.test."),
        ("shop.test:8080", "shop.test", "shop.test:8080"),
        ("Shop.Test.:80", "shop.test", "Shop.Test.:80"),
        ("a_b-c.test", "a_b-c.test", "a_b-c.test"),
        ("127.0.0.1:1", "127.0.0.1", "127.0.0.1:1"),
        ("[::1]", "[::1]", "[::1]"),
        ("[2001:DB8::1]:443", "[2001:db8::1]", "[2001:DB8::1]:443"),
        ("[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]"),
        ("", nil, ""), (".", nil, ""), ("..", nil, ""), (".a", nil, ""), ("a..b", nil, ""), ("a..", nil, ""),
        ("a:", "a", "a"), ("A.test:", "a.test", "A.test"), ("[::1]:", "[::1]", "[::1]"), ("a:0", nil, ""),
        ("a:65536", nil, ""), ("a:99999999", nil, ""), ("a:8x", nil, ""),
        ("a:+80", nil, ""), ("a:80:80", nil, ""), (":80", nil, ""), ("a b", nil, ""), ("a,b", nil, ""),
        ("a/b", nil, ""), ("a@b", nil, ""), ("user@a", nil, ""), ("a%2e", nil, ""), ("a?b", nil, ""), ("a#b", nil, ""),
        ("http://a", nil, ""), ("[::1", nil, ""), ("::1", nil, ""), ("[::1]x", nil, ""), ("[fe80::1%25eth0]", nil, ""),
        ("[]", nil, ""), ("[a]", nil, ""), ("caf\u{e9}.test", nil, ""), ("a;b", nil, ""), ("*.a", nil, ""),
        ("a\"b", nil, ""),
    ]

    @Test(arguments: hosts)
    func understandsAHostOneWayOrRefuses(_ row: (String, String?, String)) {
        let (admission, head) = admit("GET / HTTP/1.1\r\nHost: \(row.0)\r\n\r\n")
        guard let host = row.1 else {
            #expect(admission?.status == 400)
            return
        }
        #expect(admission?.facts != nil)
        #expect(head.text(head.hostRange) == host)
        #expect(head.text(head.authorityRange) == row.2)
        // Every spelling of a host is one host, also in an absolute target.
        let absolute = admit("GET http://\(row.0)/ HTTP/1.1\r\nHost: \(row.0.lowercased())\r\n\r\n")
        #expect(absolute.admission?.facts?.targetForm == .absolute)
        #expect(absolute.head.text(absolute.head.hostRange) == host)
    }

    /// What exactly is wrong, for the access log and `moongate explain`.
    @Test(
        arguments: [
            ("GET /../a HTTP/1.1\r\nHost: a\r\n\r\n", .dotSegment),
            ("GET /a%2f%00 HTTP/1.1\r\nHost: a\r\n\r\n", .encodedNUL),
            ("GET /a%2f..%2fb HTTP/1.1\r\nHost: a\r\n\r\n", .dotSegment),
            ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", .encodedNUL),
            ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", .pathEscape),
            ("GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", .pathByte),
            ("GET /%c0%af HTTP/1.1\r\nHost: a\r\n\r\n", .overlongUTF8),
            ("GET /a?b#c HTTP/1.1\r\nHost: a\r\n\r\n", .fragment),
            ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", .target), ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", .target),
            ("GET / HTTP/1.1\r\n\r\n", .noHost), ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", .twoHosts),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", .badHost),
            ("GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", .hostDiffers),
            ("GET http://a/ HTTP/1.1\r\nHost: a:443\r\n\r\n", .hostDiffers),
            ("GET http://a/ HTTP/1.1\r\nHost: a:81\r\n\r\n", .hostDiffers),
            ("GET https://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n", .hostDiffers),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", .contentLength),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \r\n\r\n", .transferEncoding),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", .lengthAndCoding),
            ("GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", .transferEncoding),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: \"x\r\n\r\n", .connection),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", .webSocketHandshake),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", .requestLine), ("GET / HTTQ/1.1\r\nHost: a\r\n\r\n", .requestLine),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", .fieldLine), ("GET / HTTP/1.1\r\n x: a\r\n\r\n", .fieldLine),
            ("GET / HTTP/1.1\r\nHost: a\r x\r\n\r\n", .lineEnd),
        ] as [(String, RequestFault)])
    func namesTheFault(_ text: String, _ fault: RequestFault) {
        guard case .refuse(let refusal) = admit(text).admission else {
            Issue.record("admitted")
            return
        }
        #expect(refusal.fault == fault)
        #expect(refusal.status == 400 && refusal.reason == .malformedRequest)
    }

    @Test func everyFaultHasANameAndAMessage() {
        let faults = RequestFault.allCases.filter { $0 != .none }
        #expect(Set(faults.map(\.label)).count == faults.count)
        #expect(faults.allSatisfy { !$0.message.isEmpty && !$0.message.contains("\n") })
        for path in CanonicalPath.Refusal.allCases { #expect(RequestFault(path).message == path.message) }
    }

    /// RFC 3986 §3.2.3: the colon may stand without a port; the upstream gets the host without it.
    @Test(arguments: ["1.1", "1.0"])
    func anEmptyPortIsNoPort(_ version: String) {
        let (admission, head) = admit("GET http://Shop.test:/ HTTP/\(version)\r\nHost: shop.test:\r\nX: y\r\n\r\n")
        #expect(admission?.facts != nil)
        let host = head.fields.first.map { head.text($0.valueRange) }
        #expect(host == "shop.test")
        #expect(head.text(head.authorityRange) == "shop.test")
        let old = admit("GET http://Shop.test:/ HTTP/1.0\r\n\r\n")
        #expect(old.admission?.facts != nil && old.head.text(old.head.authorityRange) == "Shop.test")
    }

    @Test func aHostOfTheLongestLength() {
        let label = String(repeating: "a", count: 49) + "."
        let host = String(repeating: label, count: 5)
        #expect(admit("GET / HTTP/1.1\r\nHost: \(host)abc\r\n\r\n").admission?.facts != nil)
        #expect(admit("GET / HTTP/1.1\r\nHost: \(host)abcdefgh\r\n\r\n").admission?.status == 400)
    }

    /// Request line and Host lines; status, nil when admitted, with host, path and query.
    static let targets: [(String, String, UInt16?, String)] = [
        ("GET / HTTP/1.1", "Host: a", nil, "a / -"),
        ("GET / HTTP/1.1", "X: y", 400, ""),
        ("GET / HTTP/1.1", "Host: a\r\nHost: a", 400, ""),
        ("GET / HTTP/1.1", "Host: a\r\nhOST: b", 400, ""),
        ("GET / HTTP/1.0", "X: y", nil, " / -"),
        ("GET / HTTP/1.0", "Host: b", nil, "b / -"),
        ("GET /a?b=c?d HTTP/1.1", "Host: a", nil, "a /a b=c?d"),
        ("GET /a? HTTP/1.1", "Host: a", nil, "a /a "),
        ("GET /?/../x HTTP/1.1", "Host: a", nil, "a / /../x"),
        ("GET http://b/x?y HTTP/1.1", "Host: b", nil, "b /x y"),
        ("GET HTTP://B:80/x HTTP/1.1", "Host: b:80", nil, "b /x -"),
        ("GET https://b HTTP/1.1", "Host: b", nil, "b / -"),
        ("GET http://b?q HTTP/1.1", "Host: b", nil, "b / q"),
        ("GET http://b./ HTTP/1.1", "Host: B", nil, "b / -"),
        ("GET http://b/ HTTP/1.0", "X: y", nil, "b / -"),
        ("GET http://b/ HTTP/1.1", "X: y", 400, ""),
        ("GET http://b/ HTTP/1.1", "Host: c", 400, ""),
        ("GET http://b:81/ HTTP/1.1", "Host: b:80", 400, ""),
        ("GET http://b/ HTTP/1.1", "Host: b:80", nil, "b / -"),
        ("GET http://u@b/ HTTP/1.1", "Host: b", 400, ""),
        ("GET http:///x HTTP/1.1", "Host: b", 400, ""),
        ("GET http://b/../x HTTP/1.1", "Host: b", 400, ""),
        ("GET http://b#/x HTTP/1.1", "Host: b", 400, ""),
        ("GET ftp://b/ HTTP/1.1", "Host: b", 400, ""),
        ("GET b HTTP/1.1", "Host: b", 400, ""),
        ("GET b:80 HTTP/1.1", "Host: b", 400, ""),
        ("GET ?x HTTP/1.1", "Host: b", 400, ""),
        ("GET * HTTP/1.1", "Host: b", 400, ""),
        ("OPTIONS * HTTP/1.1", "Host: b", nil, "b * -"),
        ("OPTIONS http://b HTTP/1.1", "Host: b", nil, "b * -"),
        ("OPTIONS http://b/ HTTP/1.1", "Host: b", nil, "b / -"),
        ("OPTIONS ** HTTP/1.1", "Host: b", 400, ""),
        ("GET /#x HTTP/1.1", "Host: b", 400, ""),
        ("GET /?a#x HTTP/1.1", "Host: b", 400, ""),
        ("GET /a\\b HTTP/1.1", "Host: b", 400, ""),
        ("GET //a//b HTTP/1.1", "Host: b", nil, "b /a/b -"),
        ("GET /%61 HTTP/1.1", "Host: b", nil, "b /a -"),
        ("CONNECT b:443 HTTP/1.1", "Host: b", 405, ""),
        ("CONNECT / HTTP/1.1", "Host: b", 405, ""),
        ("TRACE / HTTP/1.1", "Host: b", 405, ""),
        ("get / HTTP/1.1", "Host: b", nil, "b / -"),
        ("PURGE-all / HTTP/1.1", "Host: b", nil, "b / -"),
    ]

    @Test(arguments: targets)
    func takesATargetApart(_ row: (String, String, UInt16?, String)) {
        let (admission, head) = admit("\(row.0)\r\n\(row.1)\r\n\r\n")
        #expect(admission?.status == row.2)
        guard admission?.facts != nil else { return }
        let query = head.hasQuery ? head.text(head.queryRange) : "-"
        #expect("\(head.text(head.hostRange)) \(head.text(head.pathRange)) \(query)" == row.3)
    }

    @Test func traceIsForThoseWhoAllowIt() {
        var rules = AdmissionRules()
        rules.allowsTrace = true
        #expect(admit("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", rules: rules).admission?.facts != nil)
        #expect(
            admit("TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", rules: rules).admission?.status == 400)
    }

    // MARK: Connection

    @Test(arguments: [
        ("1.1", "", true), ("1.1", "Connection: close\r\n", false), ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "connection: Foo, CLOSE\r\n", false), ("1.1", "Connection: keep-alive, close\r\n", false),
        ("1.1", "Connection: x\r\nConnection: close\r\n", false), ("1.1", "Connection: , ,\r\n", true),
        ("1.0", "", false), ("1.0", "Connection: keep-alive\r\n", true), ("1.0", "Connection: Keep-Alive, x\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false), ("1.1", "Proxy-Connection: close\r\n", true),
    ])
    func decidesWhetherTheConnectionStays(_ version: String, _ line: String, _ keeps: Bool) {
        #expect(admit("GET / HTTP/\(version)\r\nHost: a\r\n\(line)\r\n").admission?.facts?.keepsAlive == keeps)
    }

    @Test(arguments: ["Connection: a b", "Connection: \"close\"", "Connection: close;x", "Connection: a=b"])
    func refusesAMalformedConnectionLine(_ line: String) {
        #expect(admit("GET / HTTP/1.1\r\nHost: a\r\n\(line)\r\n\r\n").admission?.status == 400)
    }

    @Test func refusesAConnectionLineThatNamesHundreds() {
        let names = (0..<33).map { "n\($0)" }
        func request(_ n: Int) -> String {
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: \(names.prefix(n).joined(separator: ","))\r\n\r\n"
        }
        #expect(admit(request(32)).admission?.facts != nil)
        #expect(admit(request(33)).admission?.status == 400)
    }

    /// Names that `Connection` may take away, and those that it may not (CVE-2021-32813, CVE-2024-45410).
    @Test func connectionTakesOnlyWhatIsTheClients() {
        let taken = ["x-user-id", "X-Custom", "trailer"]
        let kept = [
            "Host", "Authorization", "Cookie", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
            "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Client-Cert", "X-Real-IP", "X-Request-ID",
            "Forwarded",
            "Via", "Content-Type", "Content-Encoding", "X-Auth-User", "X-Original-URI",
        ]
        let names = taken + kept
        let lines = names.map { $0 == "Host" ? "Host: a" : "\($0): v" }.joined(separator: "\r\n")
        let connection = names.map { $0.lowercased() }.joined(separator: " ,")
        let (admission, head) = admit(
            "GET / HTTP/1.1\r\nConnection: close, \(connection)\r\n\(lines)\r\n\r\n", isTrusted: true)
        #expect(admission?.facts?.keepsAlive == false)
        for field in head.fields.dropFirst() {
            let name = head.text(field.nameRange)
            #expect(field.flags.contains(.hopByHop) == taken.contains(name), "\(name)")
        }
    }

    @Test func hopByHopFieldsAreMarked() {
        let lines = [
            "Connection: TE", "Keep-Alive: 5", "Proxy-Connection: x", "Proxy-Authorization: x", "TE: trailers",
            "Transfer-Encoding: chunked", "Upgrade: h2c", "HTTP2-Settings: x", "Expect: 100-continue",
        ]
        let (admission, head) = admit("POST / HTTP/1.1\r\nHost: a\r\n\(lines.joined(separator: "\r\n"))\r\n\r\n")
        #expect(admission?.facts?.body == .chunked)
        #expect(admission?.facts?.acceptsTrailers == true)
        #expect(admission?.facts?.expectsContinue == true)
        #expect(admission?.facts?.upgrade == UpgradeWish.none)
        #expect(head.fields.map { $0.flags.contains(.hopByHop) } == [false] + lines.map { _ in true })
    }

    @Test(
        arguments: [
            ("1.1", "Expect: 100-continue\r\nContent-Length: 5\r\n", nil, true),
            ("1.1", "Expect: 100-Continue\r\nContent-Length: 5\r\n", nil, true),
            ("1.1", "Expect: 100-continue\r\nContent-Length: 0\r\n", nil, false),
            ("1.1", "Expect: 100-continue\r\n", nil, false),
            ("1.0", "Expect: 100-continue\r\nContent-Length: 5\r\n", nil, false),
            ("1.0", "Expect: 200-ok\r\nContent-Length: 5\r\n", nil, false),
            ("1.1", "Expect: 200-ok\r\nContent-Length: 5\r\n", 417, false),
            ("1.1", "Expect: 100-continue, 100-continue\r\n", 417, false),
            ("1.1", "Expect:\r\n", 417, false),
        ] as [(String, String, UInt16?, Bool)])
    func understandsExpect(_ version: String, _ lines: String, _ status: UInt16?, _ expects: Bool) {
        let admission = admit("POST / HTTP/\(version)\r\nHost: a\r\n\(lines)\r\n").admission
        #expect(admission?.status == status)
        if let facts = admission?.facts { #expect(facts.expectsContinue == expects) }
    }

    static let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

    @Test(
        arguments: [
            ("GET", "Connection: Upgrade\r\nUpgrade: websocket\r\n\(key)", nil, .webSocket),
            ("GET", "Connection: keep-alive, upgrade\r\nUpgrade: WebSocket\r\n\(key)", nil, .webSocket),
            // Without the option in Connection it is no wish.
            ("GET", "Upgrade: websocket\r\n\(key)", nil, .none),
            ("GET", "Connection: upgrade\r\n\(key)", nil, .none),
            // A handshake whose answer could not be checked.
            ("GET", "Connection: Upgrade\r\nUpgrade: websocket\r\n", 400, .none),
            ("GET", "Connection: Upgrade\r\nUpgrade: websocket\r\n\(key)\(key)", 400, .none),
            ("GET", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: short\r\n", 400, .none),
            (
                "GET", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=A\r\n",
                400, .none
            ),
            ("POST", "Connection: Upgrade\r\nUpgrade: websocket\r\n\(key)", 400, .none),
            ("GET", "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\(key)", 400, .none),
            ("GET", "Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\(key)", 400, .none),
            // HTTP/2 in clear, and what else would speak past us.
            (
                "GET",
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
                nil, .none
            ),
            ("GET", "Connection: Upgrade\r\nUpgrade: H2C\r\n", nil, .none),
            ("GET", "Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n", nil, .none),
            ("GET", "Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n", nil, .none),
            ("GET", "Connection: Upgrade\r\nUpgrade: foo, websocket\r\n", nil, .none),
            ("POST", "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n", nil, .other),
            ("POST", "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 1\r\n", nil, .none),
        ] as [(String, String, UInt16?, UpgradeWish)])
    func understandsUpgrade(_ method: String, _ lines: String, _ status: UInt16?, _ wish: UpgradeWish) {
        let (admission, head) = admit("\(method) / HTTP/1.1\r\nHost: a\r\n\(lines)\r\n")
        #expect(admission?.status == status)
        guard let facts = admission?.facts else { return }
        #expect(facts.upgrade == wish)
        if wish == .webSocket {
            #expect(head.text(facts.webSocketKeyRange) == "dGhlIHNhbXBsZSBub25jZQ==")
        }
        if wish == .other { #expect(head.text(facts.upgradeRange) == "SPDY/3.1") }
    }

    @Test func noUpgradeFromHTTP10() {
        let request = "GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\(Self.key)\r\n"
        #expect(admit(request).admission?.facts?.upgrade == UpgradeWish.none)
    }

    // MARK: Trust

    @Test(arguments: [
        "Forwarded: for=6.6.6.6", "X-Forwarded-For: 6.6.6.6", "x-forwarded-host: evil", "X-Forwarded-Port: 1",
        "X-Forwarded-Prefix: /admin", "X-Forwarded-Proto: https", "X-Real-IP: 6.6.6.6",
        // Also where no host asks for certificates.
        "ssl-client-verify: SUCCESS", "SSL-Client-Subject-DN: CN=root", "ssl-client-issuer-dn: CN=ca",
        "ssl-client-cert: x", "Ssl-client-Fingerprint: x",
    ])
    func aStrangersForwardingFieldsAreTakenOut(_ line: String) {
        let request = "GET / HTTP/1.1\r\nHost: a\r\n\(line)\r\n\r\n"
        #expect(admit(request).head.fields[1].isRemoved)
        #expect(!admit(request, isTrusted: true).head.fields[1].isRemoved)
    }

    @Test(arguments: ["ssl_client_verify", "Ssl-Client_Verify", "ssl_client-verify"])
    func underscoresAreNoWayAround(_ name: String) {
        var rules = AdmissionRules()
        for drops in [true, false] {
            rules.dropsUnderscoreNames = drops
            #expect(
                admit("GET / HTTP/1.1\r\nHost: a\r\n\(name): SUCCESS\r\n\r\n", rules: rules).head.fields[1].isRemoved)
        }
    }

    @Test(arguments: [
        "ssl-client-", "ssl-clients-verify", "xsl-client-verify", "ssl-client", "sslxclient-verify", "server-x",
    ])
    func otherNamesStay(_ name: String) {
        #expect(!admit("GET / HTTP/1.1\r\nHost: a\r\n\(name): x\r\n\r\n").head.fields[1].isRemoved)
    }
}
