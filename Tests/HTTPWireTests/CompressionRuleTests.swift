import Model
import Testing

@testable import HTTPWire

@Suite struct CompressionRuleTests {
    private func judge(
        _ response: String, to request: String = "Accept-Encoding: gzip", status: Int = 200,
        version: String = "1.1", method: String = "GET", secrets: Bool = false,
        codings: CodingList = .standard, limits: CompressionRule.Limits = .init()
    ) throws -> (CompressionRule.Verdict, MessageHead) {
        let fields = request.isEmpty ? "" : request.replacing("|", with: "\r\n") + "\r\n"
        let asked = parse(bytes("\(method) / HTTP/\(version)\r\nHost: a\r\n\(fields)\r\n")).head
        let lines = response.isEmpty ? "" : response.replacing("|", with: "\r\n") + "\r\n"
        var head = parse(bytes("HTTP/1.1 \(status) X\r\n\(lines)\r\n"), .response).head
        guard
            case .admit(let facts) = ResponseAdmission.judge(&head, method: asked.method, key: [UInt8]().span)
        else {
            Issue.record("the response is refused")
            return (.untouched, head)
        }
        let verdict = CompressionRule.judge(
            request: asked, response: head, body: facts.body, accepted: AcceptEncoding(asked), codings: codings,
            coversSecrets: secrets, limits: limits)
        return (verdict, head)
    }

    static let html = "Content-Type: text/html"

    @Test(arguments: [
        html, "content-type: Text/HTML; charset=utf-8", "\(html)|Content-Length: 1024", "\(html)|Content-Length: 99999",
        "\(html)|Transfer-Encoding: chunked", "Content-Type: application/problem+json", "\(html)|Vary: *",
        "\(html)|Cache-Control: no-cache, max-age=0", "\(html)|ETag: \"a\"", "Content-Type: image/svg+xml",
        "\(html)|Accept-Ranges: bytes", "\(html)|Cache-Control: x=\"no-transform is a word\"",
    ])
    func compressed(_ response: String) throws {
        #expect(try judge(response).0 == .compress(.gzip))
    }

    @Test(arguments: [
        "", "Content-Length: 5000", "\(html)|Content-Length: 0",
        "Content-Type: image/png", "Content-Type: video/mp4", "Content-Type: text/event-stream",
        "Content-Type: application/grpc", "Content-Type: application/grpc-web+proto", "Content-Type: texthtml",
        "Content-Type:", "\(html)|Content-Type: text/plain",
        "\(html)|Content-Encoding: gzip", "\(html)|Content-Encoding: identity", "\(html)|content-encoding:",
        "\(html)|Cache-Control: no-transform", "\(html)|Cache-Control: max-age=1, No-Transform ,private",
        "\(html)|Cache-Control: private|cache-control: no-transform", "\(html)|Content-Range: bytes 0-9/10",
        "\(html)|Content-MD5: x", "\(html)|Digest: sha-256=x", "\(html)|Content-Digest: sha-256=:x:",
        "\(html)|Repr-Digest: sha-256=:x:",
    ])
    func untouchedByResponse(_ response: String) throws {
        #expect(try judge(response).0 == .untouched)
    }

    @Test(arguments: [
        "Accept-Encoding: gzip|Range: bytes=0-9", "Accept-Encoding: gzip|Cache-Control: no-transform",
    ])
    func asItIsByRequest(_ request: String) throws {
        #expect(try judge(Self.html, to: request).0 == .varies)
        #expect(try judge("Content-Type: image/png", to: request).0 == .untouched)
    }

    /// A cache that asks by HEAD about what it stored of a GET is told the same (RFC 9110 §9.3.2).
    @Test func headIsToldThatTheResponseVaries() throws {
        #expect(try judge("\(Self.html)|Content-Length: 5000", method: "HEAD").0 == .varies)
        #expect(try judge(Self.html, method: "HEAD").0 == .varies)
        #expect(try judge("Content-Type: image/png", method: "HEAD").0 == .untouched)
        #expect(try judge(Self.html, status: 304, method: "HEAD").0 == .untouched)
    }

    @Test func untouchedByStatusMethodAndVersion() throws {
        #expect(try judge(Self.html, status: 204).0 == .untouched)
        #expect(try judge(Self.html, status: 304).0 == .untouched)
        #expect(try judge(Self.html, status: 206).0 == .untouched)
        #expect(try judge(Self.html, version: "1.0").0 == .untouched)
        #expect(try judge(Self.html, codings: CodingList()).0 == .untouched)
        #expect(try judge(Self.html, status: 404).0 == .compress(.gzip))
        #expect(try judge(Self.html, method: "POST").0 == .compress(.gzip))
    }

    @Test(arguments: ["", "Accept-Encoding: identity", "Accept-Encoding: deflate"])
    func otherClientsGetItAsItIsAndCachesAreTold(_ request: String) throws {
        #expect(try judge(Self.html, to: request).0 == .varies)
    }

    /// BREACH: what belongs to somebody is compressed only when asked for.
    @Test(arguments: [
        ("Cookie: a=b", ""), ("Authorization: Basic x", ""), ("Proxy-Authorization: Basic x", ""),
        ("X: y", "|Set-Cookie: a=b"),
    ])
    func secrets(_ request: String, _ response: String) throws {
        let asked = "Accept-Encoding: gzip|\(request)"
        #expect(try judge(Self.html + response, to: asked).0 == .varies)
        #expect(try judge(Self.html + response, to: asked, secrets: true).0 == .compress(.gzip))
    }

    /// Whoever can't read it as it is gets small ones compressed, too.
    @Test func identityRefused() throws {
        #expect(
            try judge("\(Self.html)|Content-Length: 5", to: "Accept-Encoding: gzip, identity;q=0").0 == .compress(.gzip)
        )
        // Others get the same URL as it is, and caches are told.
        for request in ["", "Accept-Encoding: gzip"] {
            #expect(try judge("\(Self.html)|Content-Length: 1023", to: request).0 == .varies)
        }
    }

    @Test func eventStreamsAreMeantByTheirName() throws {
        for (names, expected) in [(["text/*"], false), (["*"], false), (["text/event-stream"], true)] {
            let types = try #require(MediaTypes(names))
            #expect(types.contains(bytes("text/event-stream; charset=utf-8").span) == expected)
        }
    }

    @Test func callsAreMeantByTheirName() throws {
        for type in [
            "application/grpc", "Application/gRPC+proto", "application/grpc-web+json; a=b", "application/grpc+json",
        ] {
            for names in [["*"], ["application/*"], ["*+proto", "*+json"]] {
                #expect(try #require(MediaTypes(names)).contains(bytes(type).span) == false, "\(type)")
            }
        }
        #expect(MediaTypes(["application/grpc"])?.contains(bytes("application/grpc").span) == true)
        #expect(MediaTypes(["*"])?.contains(bytes("application/grpcs").span) == true)
    }

    @Test func patternsOfTypes() throws {
        let types = try #require(MediaTypes(["text/*", "*+xml", "application/JSON"]))
        for (text, expected) in [
            ("text/x", true), ("TEXT/PLAIN;a=b", true), ("text/", false), ("text", false), ("image/svg+xml", true),
            ("+xml", false), ("application/json ; q=1", true), ("application/jsonx", false), ("application/jso", false),
        ] {
            #expect(types.contains(bytes(text).span) == expected, "\(text)")
        }
        #expect(MediaTypes(["*"])?.contains(bytes("image/png").span) == true)
        for bad in ["text", "text/", "/html", "*/html", "te*t/html", "text/h*", "*+", "a b/c", "text/html;q=1", ""] {
            #expect(MediaTypes([bad]) == nil, "\(bad)")
        }
    }

    // MARK: The head

    private func fields(_ head: MessageHead) -> [String] {
        head.fields.filter { !$0.isRemoved }.map { "\(head.text($0.nameRange)): \(head.text($0.valueRange))" }
    }

    @Test(arguments: [
        ("\(html)", ["\(html)", "Vary: Accept-Encoding", "Content-Encoding: gzip"]),
        (
            "\(html)|ETag: \"x\"|Accept-Ranges: bytes|Vary: Origin",
            ["\(html)", "ETag: W/\"x\"", "Vary: Origin, Accept-Encoding", "Content-Encoding: gzip"]
        ),
        ("etag: W/\"x\"|vary: *", ["etag: W/\"x\"", "vary: *", "Content-Encoding: gzip"]),
        (
            "Vary: origin, accept-encoding|Vary: Cookie|ETag: \"\"",
            ["Vary: origin, accept-encoding", "Vary: Cookie", "ETag: W/\"\"", "Content-Encoding: gzip"]
        ),
        (
            "Vary: Origin|Vary: Cookie|ETag: x",
            ["Vary: Origin", "Vary: Cookie, Accept-Encoding", "Content-Encoding: gzip"]
        ),
        ("etag: \"x\"y\"|Vary: *", ["Vary: *", "Content-Encoding: gzip"]),
        ("etag: W/\"x\"y\"|Vary: *", ["Vary: *", "Content-Encoding: gzip"]),
        ("Vary:|ETag: W/\"", ["Vary: Accept-Encoding", "Content-Encoding: gzip"]),
        ("Vary:|ETag: \"", ["Vary: Accept-Encoding", "Content-Encoding: gzip"]),
    ])
    func whatTheHeadSaysThen(_ response: String, _ expected: [String]) {
        var head = parse(
            bytes("HTTP/1.1 200 OK\r\n\(response.replacing("|", with: "\r\n"))\r\n\r\n"), .response
        ).head
        CompressionRule.announce(.gzip, in: &head)
        #expect(fields(head) == expected)
        let before = fields(head)
        CompressionRule.vary(&head)
        #expect(fields(head) == before)
    }

    @Test func whatTrailersSayOfTheBodyGoes() {
        let lines = [
            "ETag: \"x\"", "digest: x", "Content-Digest: x", "REPR-DIGEST: x", "content-md5: x", "x-t: 1", "etags: 1",
        ]
        var head = parse(bytes("HTTP/1.1 200 OK\r\n\(lines.joined(separator: "\r\n"))\r\n\r\n"), .response).head
        CompressionRule.takeOutValidators(of: &head)
        #expect(fields(head) == ["x-t: 1", "etags: 1"])
    }

    /// RFC 9111 §4.3.4: a strong tag would not bring a copy up to date whose tag was made weak.
    @Test(arguments: [
        ("W/\"a\"", "\"a\"", true), ("\"b\", W/\"a\"", "\"a\"", true),
        ("W/\"b\"|If-None-Match: W/\"a\"", "\"a\"", true),
        ("\"a\"", "\"a\"", false), ("W/\"a\", \"a\"", "\"a\"", false), ("*", "\"a\"", false),
        ("W/\"ab\"", "\"a\"", false),
        ("W/\"a\"", "W/\"a\"", false), ("W/\"a\"", "a", false), ("", "\"a\"", false), ("W/\"\"", "\"\"", true),
        // No entity tags: to look for such ones in a long list would take the square of it.
        ("W/\"\"\"", "\"\"\"", false), ("W/\"a\"b\"", "\"a\"b\"", false), ("W/\"", "\"", false),
    ])
    func notModifiedNamesTheCopyOfTheClient(asked: String, etag: String, isWeakened: Bool) {
        let request = parse(
            bytes("GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: \(asked.replacing("|", with: "\r\n"))\r\n\r\n")
        ).head
        var head = parse(bytes("HTTP/1.1 304 X\r\nETag: \(etag)\r\n\r\n"), .response).head
        CompressionRule.weakenNotModified(request: request, &head)
        #expect(fields(head) == (isWeakened ? ["ETag: W/\(etag)", "Vary: Accept-Encoding"] : ["ETag: \(etag)"]))
    }

    @Test func choices() {
        for (text, expected) in [
            ("off", "off"), ("on", "on"), ("always", "on,always"), ("on, always", "on,always"), ("gzip", "gzip"),
            ("br,gzip", "br,gzip"), (" zstd , br , gzip , always ", "zstd,br,gzip,always"),
        ] {
            #expect(CompressionChoice(text)?.description == expected, "\(text)")
        }
        for text in [
            "", ",", "gzip,", "gzip,gzip", "off,on", "off,always", "off,gzip", "on,gzip", "always,gzip", "deflate",
            "true", "GZIP", "gzip br", "on,on",
        ] {
            #expect(CompressionChoice(text) == nil, "\(text)")
        }
        #expect(CodingLevels("gzip=9, br=0")?[.gzip] == 9)
        #expect(CodingLevels("gzip=9, br=0")?[.brotli] == 0)
        #expect(CodingLevels("zstd=6")?[.gzip] == 1)
        for text in ["", "gzip", "gzip=0", "gzip=10", "br=7", "zstd=0", "gzip=1,gzip=2", "gzip=x", "lz4=1"] {
            #expect(CodingLevels(text) == nil, "\(text)")
        }
    }
}
