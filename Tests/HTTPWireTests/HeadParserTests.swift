import Model
import Testing

@testable import HTTPWire

@Suite struct HeadParserTests {
    static let good = """
        POST /cart/items?id=7&x=%20 HTTP/1.1\r
        Host: shop.test:8080\r
        User-Agent: curl/7.88.1\r
        accept:*/*\r
        X_Under: 1\r
        Cookie: \t a=b; c="d" \t\r
        Content-Length: 5\r
        Empty:\r
        X-Latin: caf\u{e9}\r
        \r

        """

    static let goodResponse = """
        HTTP/1.1 404 Not Found\r
        Date: Sun, 06 Nov 1994 08:49:37 GMT\r
        Content-Length: 12\r
        Set-Cookie: a=b\r
        \r

        """

    @Test func readsAWholeRequest() throws {
        let input = bytes(Self.good) + bytes("helloGET / HTTP/1.1\r\n")
        let (progress, head) = parse(input)
        #expect(progress == .complete(consumed: Self.good.utf8.count))
        #expect(head.method == .post)
        #expect(head.text(head.targetRange) == "/cart/items?id=7&x=%20")
        #expect(head.version == .http11)
        #expect(head.bytes == bytes(Self.good))
        #expect(head.fields.count == 8)
        #expect(
            head.fields.map(\.name) == [
                .host, .other, .accept, .other, .cookie, .contentLength, .other, .other,
            ])
        #expect(head.text(head.fields[4].valueRange) == "a=b; c=\"d\"")
        #expect(head.text(head.fields[6].valueRange) == "")
        #expect(
            head.fields.map { $0.flags.contains(.hasUnderscore) } == [
                false, false, false, true, false, false, false, false,
            ])
    }

    @Test func readsAWholeResponse() {
        let (progress, head) = parse(bytes(Self.goodResponse + "rest"), .response)
        #expect(progress == .complete(consumed: Self.goodResponse.utf8.count))
        #expect(head.status == 404)
        #expect(head.text(head.reasonRange) == "Not Found")
        #expect(head.fields.map(\.name) == [.date, .contentLength, .setCookie])
    }

    @Test(arguments: [
        ("HTTP/1.1 200\r\n\r\n", 200, ""), ("HTTP/1.1 200 \r\n\r\n", 200, ""),
        ("HTTP/1.0 599 a\tb\r\n\r\n", 599, "a\tb"),
    ])
    func takesAStatusLineWithoutReason(_ text: String, _ status: UInt16, _ reason: String) {
        let (progress, head) = parse(bytes(text), .response)
        #expect(progress == .complete(consumed: text.utf8.count))
        #expect(head.status == status)
        #expect(head.text(head.reasonRange) == reason)
    }

    @Test(arguments: [
        ("", 0), ("\r\n", 2), ("\r\n\r\n\r\n\r\n", 8),
    ])
    func passesOverEmptyLinesBeforeARequest(_ before: String, _ count: Int) {
        let (progress, head) = parse(bytes(before + "GET / HTTP/1.1\r\n\r\n"))
        #expect(progress == .complete(consumed: count + 18))
        #expect(head.text(head.methodRange) == "GET")
    }

    /// What is refused, and with which status.
    static let refused: [(String, UInt16)] = [
        // Line ends.
        ("GET / HTTP/1.1\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
        ("GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n\rX", 400),
        ("\nGET / HTTP/1.1\r\n\r\n", 400),
        ("\r\r\nGET / HTTP/1.1\r\n\r\n", 400),
        ("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n", 400),
        // Field lines.
        ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n\tfolded\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHo st: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHo\u{0}st: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\u{0}b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\u{1}b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\u{7f}b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\u{b}b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nH\u{e9}: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nA(b): a\r\n\r\n", 400),
        // Request lines.
        ("GET  / HTTP/1.1\r\n\r\n", 400),
        ("GET /  HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1 \r\n\r\n", 400),
        (" GET / HTTP/1.1\r\n\r\n", 400),
        ("GET\t/ HTTP/1.1\r\n\r\n", 400),
        ("GET /\tHTTP/1.1\r\n\r\n", 400),
        ("GET /\r\n\r\n", 400),
        ("GET\r\n\r\n", 400),
        ("G:T / HTTP/1.1\r\n\r\n", 400),
        ("GET /caf\u{e9} HTTP/1.1\r\n\r\n", 400),
        ("GET /\u{0} HTTP/1.1\r\n\r\n", 400),
        ("GET /\u{7f} HTTP/1.1\r\n\r\n", 400),
        ("GET / http/1.1\r\n\r\n", 400),
        ("GET / HTTP/11\r\n\r\n", 400),
        ("GET / HTTP/1.\r\n\r\n", 400),
        ("GET / HTTP/1.10\r\n\r\n", 400),
        ("GET / HTTP/01.1\r\n\r\n", 400),
        ("GET / HTTP /1.1\r\n\r\n", 400),
        ("GET / ICAP/1.0\r\n\r\n", 400),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}", 400),
        // Versions.
        ("GET / HTTP/0.9\r\n\r\n", 505),
        ("GET / HTTP/1.2\r\n\r\n", 505),
        ("GET / HTTP/1.9\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("GET / HTTP/3.0\r\n\r\n", 505),
        // Methods that nobody has.
        (String(repeating: "M", count: 33) + " / HTTP/1.1\r\n\r\n", 501),
    ]

    @Test(arguments: refused)
    func refuses(_ text: String, _ status: UInt16) {
        guard case .refuse(let refusal) = parse(bytes(text)).progress else {
            Issue.record("admitted \(text.debugDescription)")
            return
        }
        #expect(refusal.status == status)
    }

    @Test(arguments: [
        "HTTP/2 200 OK\r\n\r\n", "HTTP/1.2 200 OK\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n", "HTTP/1.1 099 OK\r\n\r\n", "HTTP/1.1 200OK\r\n\r\n", "HTTP/1.1 200 O\u{0}K\r\n\r\n",
        "HTTP/1.1 200 OK\n\r\n", "HTTP/1.1 200 O\rK\r\n\r\n", "\r\nHTTP/1.1 200 OK\r\n\r\n", "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "HTTP/1.1 200 OK\r\n a: b\r\n\r\n", "HTTP/1.1 -20 OK\r\n\r\n",
        "HTTP/1.1 200\rX\r\n",
    ])
    func refusesAResponse(_ text: String) {
        #expect(parse(bytes(text), .response).progress == .refuse(Refusal(502, .malformedResponse)))
    }

    @Test func everyCutGivesTheSameAsTheWhole() {
        var inputs: [([UInt8], HeadParser.Kind)] = [
            (bytes(Self.good + "hello"), .request), (bytes("\r\n\r\n" + Self.good), .request),
            (bytes(Self.goodResponse + "x"), .response), (bytes("HTTP/1.1 200\r\n\r\n"), .response),
            (bytes("\r\n"), .trailers), (bytes("A: b\r\nC: d\r\n\r\nrest"), .trailers),
        ]
        inputs += Self.refused.map { (bytes($0.0), .request) }
        for (input, kind) in inputs {
            let whole = parse(input, kind)
            for cut in 0...input.count {
                let parts = parse(input, kind, cutAt: [cut])
                #expect(parts.progress == whole.progress, "\(String(decoding: input, as: UTF8.self)) at \(cut)")
                if case .complete = whole.progress {
                    #expect(summary(parts.head) == summary(whole.head))
                    #expect(parts.head.bytes == whole.head.bytes)
                }
            }
            let single = parse(input, kind, cutAt: Array(0..<input.count))
            #expect(single.progress == whole.progress)
            if case .complete = whole.progress { #expect(summary(single.head) == summary(whole.head)) }
        }
    }

    @Test func isReadyForTheNextHeadOnTheSameConnection() {
        let first = bytes("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
        let second = bytes("DELETE /2 HTTP/1.0\r\nX: y\r\n\r\n")
        var parser = HeadParser(.request)
        var head = MessageHead()
        #expect(!parser.hasBegun)
        #expect(parser.feed(Array(first[..<5]), &head) == .needMore)
        #expect(parser.hasBegun)
        let rest = Array(first[5...]) + second
        #expect(parser.feed(rest, &head) == .complete(consumed: first.count - 5))
        #expect(head.bytes == first)
        #expect(!parser.hasBegun)
        #expect(parser.feed(second, &head) == .complete(consumed: second.count))
        #expect(head.method == .delete)
        #expect(head.version == .http10)
        #expect(head.fields.count == 1)
        #expect(head.bytes == second)
    }

    @Test func takesWhatTheLimitsAllowAndNoMore() {
        let limits = HeadLimits(headBytes: 512, fieldCount: 3, lineBytes: 64, targetBytes: 32)
        func target(_ n: Int) -> [UInt8] {
            bytes("GET /" + String(repeating: "a", count: n - 1) + " HTTP/1.1\r\n\r\n")
        }
        func line(_ n: Int) -> [UInt8] {
            bytes("GET / HTTP/1.1\r\nA: " + String(repeating: "b", count: n - 3) + "\r\n\r\n")
        }
        func name(_ n: Int) -> [UInt8] {
            bytes("GET / HTTP/1.1\r\n" + String(repeating: "b", count: n - 1) + ":\r\n\r\n")
        }
        func fields(_ n: Int) -> [UInt8] {
            bytes("GET / HTTP/1.1\r\n" + String(repeating: "A: b\r\n", count: n) + "\r\n")
        }
        func check(_ input: [UInt8], _ refusal: Refusal?, limits: HeadLimits) {
            let expected = refusal.map { HeadProgress.refuse($0) } ?? .complete(consumed: input.count)
            #expect(parse(input, limits: limits).progress == expected)
            for cut in 0...input.count {
                #expect(parse(input, cutAt: [cut], limits: limits).progress == expected)
            }
        }
        check(target(32), nil, limits: limits)
        check(target(33), Refusal(414, .targetTooLong), limits: limits)
        check(line(64), nil, limits: limits)
        check(line(65), Refusal(431, .headTooLarge), limits: limits)
        check(name(64), nil, limits: limits)
        check(name(65), Refusal(431, .headTooLarge), limits: limits)
        check(fields(3), nil, limits: limits)
        check(fields(4), Refusal(431, .tooManyFields), limits: limits)
        let whole = HeadLimits(headBytes: 70)
        let exact = bytes("GET / HTTP/1.1\r\nA: " + String(repeating: "b", count: 47) + "\r\n\r\n")
        #expect(exact.count == 70)
        check(exact, nil, limits: whole)
        check(
            bytes("GET / HTTP/1.1\r\nA: " + String(repeating: "b", count: 48) + "\r\n\r\n"),
            Refusal(431, .headTooLarge), limits: whole)
        #expect(parse(exact + bytes("more"), limits: whole).progress == .complete(consumed: 70))
    }

    @Test func theDefaultLimitsAreThoseOfTheDesign() {
        func fields(_ n: Int) -> [UInt8] {
            bytes("GET / HTTP/1.1\r\n" + String(repeating: "A: b\r\n", count: n) + "\r\n")
        }
        #expect(parse(fields(100)).progress == .complete(consumed: fields(100).count))
        #expect(parse(fields(101)).progress == .refuse(Refusal(431, .tooManyFields)))
        let line = String(repeating: "x", count: 8180)
        let head = "GET / HTTP/1.1\r\n" + String(repeating: "A: \(line)\r\n", count: 8) + "\r\n"
        #expect(parse(bytes(head)).progress == .complete(consumed: head.utf8.count))
        let large = "GET / HTTP/1.1\r\n" + String(repeating: "A: \(line)\r\n", count: 9) + "\r\n"
        #expect(parse(bytes(large)).progress == .refuse(Refusal(431, .headTooLarge)))
        #expect(
            parse(bytes("GET / HTTP/1.1\r\nA: " + String(repeating: "x", count: 8190) + "\r\n\r\n")).progress
                == .refuse(Refusal(431, .headTooLarge)))
        #expect(
            parse(bytes("GET /" + String(repeating: "x", count: 8192) + " HTTP/1.1\r\n\r\n")).progress
                == .refuse(Refusal(414, .targetTooLong)))
    }

    /// A head sent byte by byte must not be read from its beginning each time: four times the bytes may not cost much
    /// more than four times the work. Work is counted in what the parser keeps, not in time.
    @Test func aHeadByteByByteIsReadOnce() {
        let line = String(repeating: "x", count: 8000)
        let input = bytes("GET / HTTP/1.1\r\n" + String(repeating: "A: \(line)\r\n", count: 8) + "\r\n")
        var parser = HeadParser(.request)
        var head = MessageHead()
        var progress = HeadProgress.needMore
        for i in input.indices {
            progress = parser.parse(input.span.extracting(i..<i + 1), limits: HeadLimits(), into: &head)
            if i < input.count - 1 { #expect(progress == .needMore) }
        }
        #expect(progress == .complete(consumed: 1))
        #expect(head.bytes == input)
    }

    /// Every byte of a good request replaced by every other byte: the result is refused, or is one request that ends
    /// at the same byte; never two.
    @Test func oneByteChangedNeverMakesASecondRequest() {
        let good = bytes("POST /a?b HTTP/1.1\r\nHost: a.test\r\nX-Y: z\r\nContent-Length: 3\r\n\r\n")
        let body = bytes("xyz")
        let whole = admit(good)
        #expect(whole.admission?.facts?.body == .length(3))
        for position in good.indices {
            for value in UInt8.min...UInt8.max where value != good[position] {
                var input = good
                input[position] = value
                let (progress, head) = parse(input + body)
                switch progress {
                case .needMore:
                    Issue.record("byte \(position) = \(value): wants more than there is")
                case .refuse(let refusal):
                    #expect([400, 501, 505].contains(refusal.status))
                case .complete(let consumed):
                    #expect(consumed == good.count, "byte \(position) = \(value)")
                    var judged = head
                    guard case .admit(let facts) = RequestAdmission.judge(&judged, AdmissionRules(), isTrusted: false)
                    else { continue }
                    // The length stays, unless the byte was in its digits' place; or its name was the byte, and then
                    // there is no body: what follows is for the next request to refuse, and `xyz` is no request.
                    switch facts.body {
                    case .length(let n): #expect(n == 3 || [good.count - 5, good.count - 6].contains(position))
                    case .none: #expect(parse(body + bytes("GET / HTTP/1.1\r\n\r\n")).progress != .needMore)
                    case .chunked, .untilClose: Issue.record("byte \(position) = \(value): another framing")
                    }
                }
            }
        }
    }

    /// Random changes, insertions and cuts against a slow reading of the grammar, line by line.
    @Test func agreesWithASlowReadingOfTheGrammar() {
        var random = Random(seed: 20_240_607)
        let seeds = [bytes(Self.good), bytes("GET / HTTP/1.0\r\nA: b\r\n\r\n"), bytes("OPTIONS * HTTP/1.1\r\n\r\n")]
        let interesting: [UInt8] = [0, 9, 10, 13, 32, 45, 58, 95, 127, 128, 255, 65, 97, 48]
        for round in 0..<20000 {
            var input = seeds[round % seeds.count]
            for _ in 0...Int.random(in: 0..<3, using: &random) {
                let at = Int.random(in: 0..<input.count, using: &random)
                let byte = interesting[Int.random(in: 0..<interesting.count, using: &random)]
                switch Int.random(in: 0..<3, using: &random) {
                case 0: input[at] = byte
                case 1: input.insert(byte, at: at)
                default: input.remove(at: at)
                }
            }
            let slow = slowRead(input)
            let fast = parse(input).progress
            switch (slow, fast) {
            case (.some(let n), .complete(let m)): #expect(n == m, "\(input)")
            case (nil, .refuse), (nil, .needMore): break
            default: Issue.record("slow \(String(describing: slow)), fast \(fast): \(input)")
            }
        }
    }

    /// Where a request head ends, read by splitting; nil where there is none, or none yet.
    private func slowRead(_ input: [UInt8]) -> Int? {
        var rest = input[...]
        var blank = 0
        while rest.starts(with: [13, 10]) {
            blank += 1
            rest = rest.dropFirst(2)
        }
        guard blank <= 4 else { return nil }
        func line() -> ArraySlice<UInt8>? {
            guard let cr = rest.firstIndex(of: 13), cr + 1 < rest.endIndex, rest[cr + 1] == 10 else { return nil }
            defer { rest = rest[(cr + 2)...] }
            return rest[..<cr]
        }
        let token = Set("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ".utf8)
        guard let start = line() else { return nil }
        let parts = start.split(separator: 32, omittingEmptySubsequences: false)
        guard parts.count == 3, !parts[0].isEmpty, parts[0].count <= 32, parts[0].allSatisfy(token.contains),
            !parts[1].isEmpty, parts[1].allSatisfy({ $0 > 32 && $0 < 127 }),
            parts[2].elementsEqual("HTTP/1.1".utf8) || parts[2].elementsEqual("HTTP/1.0".utf8)
        else { return nil }
        while let field = line() {
            if field.isEmpty { return rest.startIndex }
            guard let colon = field.firstIndex(of: 58), colon > field.startIndex,
                field[..<colon].allSatisfy(token.contains),
                field[(colon + 1)...].allSatisfy({ $0 == 9 || $0 >= 32 && $0 != 127 })
            else { return nil }
        }
        return nil
    }
}
