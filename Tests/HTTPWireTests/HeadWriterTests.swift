import Model
import Testing

@testable import HTTPWire

@Suite struct HeadWriterTests {
    private func request(
        _ text: String, trusted: Bool = false, forwarding: ForwardingText? = nil, id: String = "",
        edit: (inout MessageHead) -> Void = { _ in },
        options: (RequestFacts) -> HeadWriter.RequestOptions = {
            .init(body: $0.body)
        }
    ) -> String {
        var (admission, head) = admit(text, isTrusted: trusted)
        guard let facts = admission?.facts else { return "refused" }
        let idRange = head.store(id.utf8)
        edit(&head)
        return output { out in
            #expect(
                HeadWriter.write(
                    request: head, options(facts), forwarding: forwarding, isTrusted: trusted, id: idRange, to: &out)
                    == .written)
        }
    }

    private func set(_ head: inout MessageHead, _ name: String, _ value: String) {
        let name = bytes(name)
        let value = bytes(value)
        head.set(name.span, to: value.span)
    }

    @Test func copiesUntouchedLinesByteForByte() {
        let text = request("GET /a?b HTTP/1.1\r\nHost: A.test\r\nX-Odd:\t v \t\r\nempty:\r\nCookie: a=b;c\r\n\r\n")
        #expect(text == "GET /a?b HTTP/1.1\r\nHost: A.test\r\nX-Odd:\t v \t\r\nempty:\r\nCookie: a=b;c\r\n\r\n")
    }

    @Test func writesTheCanonicalTarget() {
        #expect(request("GET //a/%7eb? HTTP/1.1\r\nHost: a\r\n\r\n").hasPrefix("GET /a/~b? HTTP/1.1\r\n"))
        #expect(request("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n").hasPrefix("GET / HTTP/1.1\r\nHost: a\r\n"))
        #expect(request("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").hasPrefix("OPTIONS * HTTP/1.1\r\n"))
    }

    @Test func leavesOutWhatBelongsToTheConnection() {
        let text = request(
            """
            POST / HTTP/1.1\r
            Connection: keep-alive, x-gone\r
            Host: a\r
            Keep-Alive: 5\r
            A: 1\r
            B: 2\r
            X-Gone: 3\r
            TE: trailers\r
            Content-Length: 007\r
            C: 4\r
            \r

            """)
        #expect(text == "POST / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\nC: 4\r\nContent-Length: 7\r\n\r\n")
    }

    @Test func leavesThemOutEvenWhenNobodyMarkedThem() {
        var (_, head) = parse(
            bytes(
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n")
        )
        head.pathRange = head.targetRange
        let text = output { out in
            #expect(HeadWriter.write(request: head, .init(body: .none), forwarding: nil, to: &out) == .written)
        }
        #expect(text == "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    }

    @Test func writesEditsInTheirPlace() {
        let text = request("GET / HTTP/1.1\r\nA: 1\r\nHost: a\r\nB: 2\r\nB: 3\r\nC: 4\r\n\r\n") { head in
            set(&head, "b", "new")
            set(&head, "D", "5")
            let a = bytes("a")
            head.removeAll(named: a.span)
        }
        #expect(text == "GET / HTTP/1.1\r\nHost: a\r\nB: new\r\nC: 4\r\nD: 5\r\n\r\n")
    }

    @Test func writesAnotherHostAndPath() {
        let text = request("GET /old?q HTTP/1.1\r\nHost: a\r\n\r\n") { head in
            let host = bytes("B.test:81")
            let path = bytes("/new//%41")
            let problem = head.setHost(host.span)
            #expect(problem == nil)
            do { try head.setPath(path.span) } catch { Issue.record("\(error)") }
            #expect(head.text(head.hostRange) == "b.test")
        }
        #expect(text == "GET /new/A?q HTTP/1.1\r\nHost: B.test:81\r\n\r\n")
    }

    @Test func writesAHostWhereTheClientHadNone() {
        #expect(request("GET / HTTP/1.0\r\n\r\n") == "GET / HTTP/1.1\r\nHost: \r\n\r\n")
        #expect(request("GET http://b/ HTTP/1.0\r\n\r\n") == "GET / HTTP/1.1\r\nHost: b\r\n\r\n")
    }

    @Test(arguments: [
        (BodyFraming.none, ""), (.length(0), "Content-Length: 0\r\n"), (.length(10), "Content-Length: 10\r\n"),
        (.length(.max), "Content-Length: 18446744073709551615\r\n"), (.chunked, "Transfer-Encoding: chunked\r\n"),
    ])
    func writesTheFraming(_ body: BodyFraming, _ line: String) {
        let text = request("GET / HTTP/1.1\r\nHost: a\r\n\r\n", options: { _ in .init(body: body) })
        #expect(text == "GET / HTTP/1.1\r\nHost: a\r\n\(line)\r\n")
    }

    @Test func writesWhatTheConnectionNeeds() {
        let webSocket =
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n"
            + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        #expect(
            request(webSocket, options: { .init(body: $0.body, upgrade: $0.upgrade) })
                == "GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Version: 13\r\n"
                + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        let other = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
        #expect(
            request(other, options: { .init(body: $0.body, upgrade: $0.upgrade, upgradeRange: $0.upgradeRange) })
                == "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
        let plain = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
        #expect(
            request(plain, options: { .init(body: $0.body, expectsContinue: true, closes: true) })
                == "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        )
    }

    // MARK: Responses

    private func response(
        _ text: String, method: Method = .get, date: String = "",
        options: (ResponseFacts) -> HeadWriter.ResponseOptions = {
            .init(body: $0.body, declaredLength: $0.declaredLength)
        }
    ) -> String {
        let (admission, head) = admitResponse(text, method: method)
        guard let facts = admission?.facts else { return "refused" }
        return output { out in
            #expect(HeadWriter.write(response: head, options(facts), date: bytes(date), to: &out) == .written)
        }
    }

    @Test func copiesAnAnswer() {
        #expect(
            response(
                "HTTP/1.1 200 Fine\r\nServer: s\r\nConnection: close\r\nContent-Length: 5\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n",
                date: "D")
                == "HTTP/1.1 200 Fine\r\nServer: s\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nDate: D\r\nContent-Length: 5\r\n\r\n"
        )
        #expect(response("HTTP/1.0 404\r\nDate: X\r\n\r\n", date: "D") == "HTTP/1.1 404 Not Found\r\nDate: X\r\n\r\n")
    }

    @Test func saysNoLengthWhereNoneMayBe() {
        #expect(
            response("HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n", date: "D") == "HTTP/1.1 204 No\r\nDate: D\r\n\r\n")
        #expect(response("HTTP/1.1 103 Early\r\nLink: x\r\n\r\n", date: "D") == "HTTP/1.1 103 Early\r\nLink: x\r\n\r\n")
        #expect(
            response("HTTP/1.1 304 N\r\nContent-Length: 9\r\n\r\n") == "HTTP/1.1 304 N\r\nContent-Length: 9\r\n\r\n")
        #expect(
            response("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", method: .head)
                == "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
    }

    @Test func tellsAnHTTP10ClientThatItsConnectionStays() {
        let upstream = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"
        #expect(
            response(upstream, options: { .init(body: $0.body, clientVersion: .http10) })
                .contains("Connection: keep-alive\r\n"))
        #expect(
            response(upstream, options: { .init(body: $0.body, closes: true, clientVersion: .http10) })
                .contains("Connection: close\r\n"))
        #expect(!response(upstream, options: { .init(body: $0.body) }).contains("Connection"))
    }

    @Test func writesA101() {
        let text =
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        let (admission, head) = admitResponse(text, upgrade: .webSocket, key: "dGhlIHNhbXBsZSBub25jZQ==")
        let facts = admission?.facts
        let written = output { out in
            #expect(
                HeadWriter.write(
                    response: head, .init(body: .none, upgradeRange: facts?.upgradeRange ?? .empty), date: [], to: &out)
                    == .written)
        }
        #expect(
            written == "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
                + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    }

    @Test(arguments: [false, true])
    func writesA426(closes: Bool) {
        let (admission, head) = admitResponse(
            "HTTP/1.1 426 X\r\nUpgrade: websocket, a/1\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n")
        let range = admission?.facts?.upgradeRange ?? .empty
        let written = output { out in
            #expect(
                HeadWriter.write(
                    response: head, .init(body: .length(0), closes: closes, upgradeRange: range), date: [], to: &out)
                    == .written)
        }
        #expect(
            written == "HTTP/1.1 426 X\r\nContent-Length: 0\r\nConnection: Upgrade\r\nUpgrade: websocket, a/1\r\n"
                + (closes ? "Connection: close\r\n" : "") + "\r\n")
        #expect(admitResponse("HTTP/1.1 426 X\r\nContent-Length: 0\r\n\r\n").0?.facts?.upgradeRange == .empty)
        let (other, _) = admitResponse("HTTP/1.1 200 X\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n")
        #expect(other?.facts?.upgradeRange == .empty)
    }

    @Test func writesAnAnswerOfOurOwn() {
        var head = MessageHead()
        head.status = 503
        set(&head, "Content-Type", "text/plain")
        let text = output { out in
            #expect(
                HeadWriter.write(response: head, .init(body: .length(3), closes: true), date: [], to: &out) == .written)
        }
        #expect(
            text
                == "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
        )
    }

    // MARK: The wall

    /// Whatever is put into a head, nothing but its own lines comes out: each of these is refused, and nothing written.
    @Test func refusesWhatWouldSplit() {
        let dirty: [UInt8] = [0x00, 0x0a, 0x0d, 0x01, 0x1f, 0x7f]
        func expectInvalid(_ place: String, _ change: (inout MessageHead) -> Void) {
            var (admission, head) = admit("GET /a?b HTTP/1.1\r\nHost: a\r\nX-Y: zzzzzzzzzzzzzzzz\r\nA: b\r\n\r\n")
            #expect(admission?.facts != nil)
            change(&head)
            var outcome = HeadWriter.Outcome.written
            let text = output {
                outcome = HeadWriter.write(request: head, .init(body: .none), forwarding: nil, to: &$0)
            }
            #expect(outcome == .invalid, "\(place)")
            #expect(text == "", "\(place)")
        }
        for byte in dirty {
            // In the bytes of a line that was parsed, as a wild write would.
            for i in 0..<16 {
                expectInvalid("parsed \(i)") { $0.bytes[Int($0.fields[1].valueOffset) + i] = byte }
            }
            expectInvalid("parsed name") { $0.bytes[Int($0.fields[1].nameOffset) + 1] = byte }
            // In what a script sets.
            expectInvalid("value") { head in
                let (name, value) = (bytes("N"), [0x61, byte, 0x62])
                head.set(name.span, to: value.span)
            }
            expectInvalid("name") { head in
                let (name, value) = ([0x61, byte], bytes("v"))
                head.append(name.span, value.span)
            }
            expectInvalid("path") { $0.pathRange = $0.store([0x2f, byte]) }
            expectInvalid("query") { $0.queryRange = $0.store([byte]) }
            expectInvalid("method") { $0.methodRange = $0.store([0x47, byte]) }
            expectInvalid("id") { head in
                head.fields[0].flags.insert(.removed)
                head.authorityRange = head.store([byte])
            }
        }
        for byte: UInt8 in [0x20, 0x80, 0xff] {
            expectInvalid("path") { $0.pathRange = $0.store([0x2f, byte]) }
            expectInvalid("query") { $0.queryRange = $0.store([byte]) }
            expectInvalid("method") { $0.methodRange = $0.store([0x47, byte]) }
        }
        expectInvalid("no path") { $0.pathRange = .empty }
        expectInvalid("empty name") { head in
            let (name, value) = ([UInt8](), bytes("v"))
            head.append(name.span, value.span)
        }
        expectInvalid("beyond the arena") { $0.pathRange = ByteRange(offset: 1 << 20, count: 3) }
        expectInvalid("beyond the arena") { head in
            head.fields.append(
                FieldRecord(
                    name: .other, nameRange: ByteRange(offset: 0, count: 3),
                    valueRange: ByteRange(offset: 1 << 20, count: 3)))
        }
    }

    @Test func refusesWhatWouldSplitAnAnswer() {
        for byte: UInt8 in [0x00, 0x0a, 0x0d, 0x7f] {
            var head = MessageHead()
            head.status = 200
            head.reasonRange = head.store([0x61, byte])
            var outcome = HeadWriter.Outcome.written
            let text = output { outcome = HeadWriter.write(response: head, .init(body: .none), date: [], to: &$0) }
            #expect(outcome == .invalid)
            #expect(text == "")
        }
        var head = MessageHead()
        head.status = 99
        _ = output { out in
            #expect(HeadWriter.write(response: head, .init(body: .none), date: [], to: &out) == .invalid)
        }
    }

    @Test func saysHowMuchRoomItNeeds() {
        let (_, head) = admit("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        var outcome = HeadWriter.Outcome.written
        #expect(
            output(16) { outcome = HeadWriter.write(request: head, .init(body: .none), forwarding: nil, to: &$0) } == ""
        )
        guard case .needsRoom(let room) = outcome else {
            Issue.record("\(outcome)")
            return
        }
        let text = output(room) {
            outcome = HeadWriter.write(request: head, .init(body: .none), forwarding: nil, to: &$0)
        }
        #expect(outcome == .written)
        #expect(text.hasPrefix("GET / "))
    }

    /// Written and parsed again, a request says the same, whatever was in it.
    @Test func whatIsWrittenReadsTheSame() {
        var random = Random(seed: 99)
        let names = ["A", "X-Long-Header-Name-With-Many-Letters", "accept", "Cookie", "x!#$%&'*+.^`|~9", "Date"]
        for _ in 0..<500 {
            var text = "GET /p HTTP/1.1\r\nHost: h.test\r\n"
            for _ in 0..<Int.random(in: 0..<12, using: &random) {
                let name = names[Int.random(in: 0..<names.count, using: &random)]
                let value = String(
                    decoding: (0..<Int.random(in: 0..<40, using: &random)).map { _ in
                        UInt8.random(in: 0x21...0x7e, using: &random)
                    }, as: UTF8.self)
                text += "\(name):\(["", " ", "\t "].randomElement(using: &random) ?? "")\(value)\r\n"
            }
            let input = text + "\r\n"
            let first = admit(input)
            let written = request(input) { head in
                for i in head.fields.indices where Bool.random(using: &random) && head.fields[i].name != .host {
                    let name = Array(head.bytes[head.fields[i].nameRange])
                    let value = Array(head.bytes[head.fields[i].valueRange])
                    head.fields[i].flags.insert(.removed)
                    head.append(name.span, value.span)
                }
            }
            func lines(_ head: MessageHead) -> [String] {
                head.fields.map { "\(head.text($0.nameRange)): \(head.text($0.valueRange))" }.sorted()
            }
            #expect(lines(admit(written).head) == lines(first.head))
        }
    }
}
