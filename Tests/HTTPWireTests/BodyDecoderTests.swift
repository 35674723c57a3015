import Model
import Testing

@testable import HTTPWire

@Suite struct BodyDecoderTests {
    @Test(arguments: [1, 2, 3, 7, Int.max])
    func countsALength(_ step: Int) {
        let result = decode(bytes("hello, next"), .length(5), step: step)
        #expect(result.data == bytes("hello"))
        #expect(result.last == .end)
        #expect(result.consumed == 5)
    }

    @Test func anEmptyBodyEndsAtOnce() {
        #expect(decode(bytes("next"), .none).last == .end)
        #expect(decode(bytes("next"), .length(0)).consumed == 0)
        #expect(BodyDecoder(.length(0)).isComplete)
        #expect(!BodyDecoder(.length(1)).isComplete)
    }

    @Test func aClosedInputEndsSomeBodies() {
        var decoder = BodyDecoder(.untilClose)
        var offset = 0
        #expect(decoder.feed(bytes("abc"), at: &offset) == .data(0..<3))
        #expect(decoder.received == 3)
        let isWhole = decoder.inputClosed()
        #expect(isWhole)
        #expect(decoder.isComplete)
        for framing in [BodyFraming.length(4), .chunked] {
            var cut = BodyDecoder(framing)
            let isWhole = cut.inputClosed()
            #expect(!isWhole)
            #expect(!cut.isComplete)
            #expect(cut.feed(bytes("abc"), at: &offset) == .failed)
        }
    }

    /// What chunked bodies decode to; nil: refused. Each is tried in one piece and in every size of piece.
    static let chunked: [(String, String?)] = [
        ("0\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n", "abc"),
        ("a\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("A\r\n0123456789\r\n00\r\n\r\n", "0123456789"),
        ("0000000000000005\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5;ext=1\r\nhello\r\n0;last\r\n\r\n", "hello"),
        ("5;a=\"b;c\" ;d\r\nhello\r\n0\r\n\r\n", "hello"),
        ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n"),
        ("5\r\nhello\r\n0\r\nA: b\r\n\r\n", "hello"),
        // Sizes.
        ("\r\n", nil),
        ("g\r\n", nil),
        ("0x5\r\nhello\r\n0\r\n\r\n", nil),
        ("-1\r\n", nil),
        ("+5\r\nhello\r\n", nil),
        (" 5\r\nhello\r\n", nil),
        ("5 \r\nhello\r\n", nil),
        ("5 ;x\r\nhello\r\n", nil),
        ("5\t\r\nhello\r\n", nil),
        ("5.\r\nhello\r\n", nil),
        ("5,5\r\nhello\r\n", nil),
        ("00000000000000005\r\nhello\r\n", nil),
        ("ffffffffffffffff\r\n", nil),
        ("8000000000000000\r\n", nil),
        ("10000000000000005\r\nhello\r\n", nil),
        (";x\r\nhello\r\n", nil),
        // Line ends.
        ("5\nhello\r\n0\r\n\r\n", nil),
        ("5\rhello\r\n0\r\n\r\n", nil),
        ("5\r\rhello\r\n", nil),
        ("5\r\nhello0\r\n\r\n", nil),
        ("5\r\nhello\n0\r\n\r\n", nil),
        ("5\r\nhello\r0\r\n\r\n", nil),
        ("5\r\nhelloX\r\n0\r\n\r\n", nil),
        ("4\r\nhello\r\n0\r\n\r\n", nil),
        ("5;a\nhello\r\n0\r\n\r\n", nil),
        ("5;a\rb\r\nhello\r\n0\r\n\r\n", nil),
        ("5;a\u{0}\r\nhello\r\n0\r\n\r\n", nil),
        ("5;\n\r\nhello\r\n0\r\n\r\n", nil),
        ("0\r\n\n", nil),
        ("0\n\r\n", nil),
        ("0\r\n\rX", nil),
        // Trailers.
        ("0\r\n A: b\r\n\r\n", nil),
        ("0\r\nA : b\r\n\r\n", nil),
        ("0\r\nA\r\n\r\n", nil),
        ("0\r\nA: b\n\r\n", nil),
        ("0\r\nContent-Length: 5\r\n\r\n", nil),
        ("0\r\nTransfer-Encoding: chunked\r\n\r\n", nil),
        ("0\r\nHost: evil\r\n\r\n", nil),
        ("0\r\nGET / HTTP/1.1\r\n\r\n", nil),
    ]

    @Test(arguments: chunked)
    func takesTheCodingOff(_ row: (String, String?)) {
        let input = bytes(row.0 + (row.1 == nil ? "" : "GET / HTTP/1.1\r\n\r\n"))
        for step in Array(1...max(input.count, 1)) {
            let result = decode(input, .chunked, step: step)
            if let data = row.1 {
                #expect(result.last == .end)
                #expect(result.data == bytes(data))
                #expect(result.consumed == row.0.utf8.count, "step \(step)")
            } else {
                #expect(result.last == .failed, "step \(step)")
            }
        }
    }

    @Test func everyPrefixOfABodyWantsMore() {
        let input = bytes("5;x=y\r\nhello\r\n3\r\nabc\r\n0\r\nA: b\r\nC: d\r\n\r\n")
        for count in 0..<input.count {
            #expect(decode(Array(input[0..<count]), .chunked).last == .needMore)
        }
        #expect(decode(input, .chunked).last == .end)
    }

    @Test func boundsExtensions() {
        func body(_ n: Int, _ chunks: Int) -> [UInt8] {
            bytes(
                String(repeating: "1;" + String(repeating: "x", count: n) + "\r\na\r\n", count: chunks) + "0\r\n\r\n")
        }
        #expect(decode(body(1024, 1), .chunked).last == .end)
        #expect(decode(body(1025, 1), .chunked).last == .failed)
        #expect(decode(body(1024, 16), .chunked).last == .end)
        #expect(decode(body(1024, 17), .chunked).last == .failed)
        // A header of extensions that never ends is refused before it has.
        #expect(decode(bytes("1;" + String(repeating: "x", count: 5000)), .chunked).last == .failed)
    }

    @Test func boundsTrailers() {
        let limits = HeadLimits(headBytes: 64, fieldCount: 2, lineBytes: 32)
        #expect(decode(bytes("0\r\nA: b\r\nC: d\r\n\r\n"), .chunked, limits: limits).last == .end)
        #expect(decode(bytes("0\r\nA: b\r\nC: d\r\nE: f\r\n\r\n"), .chunked, limits: limits).last == .failed)
        let long = "0\r\nA: " + String(repeating: "x", count: 40) + "\r\n\r\n"
        #expect(decode(bytes(long), .chunked, limits: limits).last == .failed)
    }

    @Test func takesOutWhatMayNotBeATrailer() {
        let forbidden = [
            "Authorization", "Cookie", "Set-Cookie", "Content-Type", "Content-Encoding", "Content-Range", "Connection",
            "Trailer", "TE", "Upgrade", "Expect", "X-Forwarded-For", "X-Forwarded-User", "X-Real-IP", "Forwarded",
            "Cache-Control", "If-Match", "Location", "WWW-Authenticate", "X_Any", "X-Request-ID",
        ]
        let lines = forbidden.map { "\($0): v\r\n" }.joined() + "Grpc-Status: 0\r\nDate: x\r\nServer-Timing: a\r\n"
        let result = decode(bytes("0\r\n\(lines)\r\n"), .chunked)
        #expect(result.last == .end)
        let left = result.trailers.fields.filter { !$0.isRemoved }.map { result.trailers.text($0.nameRange) }
        #expect(left == ["Grpc-Status", "Date", "Server-Timing"])
    }

    /// A million chunks of one byte: a hostile body, but linear.
    @Test func aMillionChunksOfOneByte() {
        let input = Array(repeatElement(bytes("1\r\na\r\n"), count: 1_000_000).joined()) + bytes("0\r\n\r\n")
        var decoder = BodyDecoder(.chunked)
        var trailers = MessageHead()
        var offset = 0
        var count = 0
        let limits = HeadLimits()
        while case .data(let range) = unsafe decoder.next(
            input.span.bytes, at: &offset, limits: limits, trailers: &trailers)
        { count += range.count }
        #expect(count == 1_000_000)
        #expect(decoder.isComplete)
        #expect(offset == input.count)
    }

    /// What the encoder writes, the decoder reads, whatever the pieces.
    @Test func decodesWhatTheEncoderWrites() {
        var random = Random(seed: 7)
        for round in 0..<300 {
            var data: [UInt8] = []
            var wire: [UInt8] = []
            for _ in 0..<Int.random(in: 0..<5, using: &random) {
                let n = Int.random(in: 1..<(round % 10 == 0 ? 70000 : 40), using: &random)
                let piece = (0..<n).map { _ in UInt8.random(in: 0...255, using: &random) }
                data += piece
                wire += bytes(output { ChunkEncoder.writeSize(n, to: &$0) })
                wire += piece + bytes("\r\n")
            }
            var trailers = MessageHead()
            if round % 3 == 0 {
                let name = bytes("Grpc-Status")
                let value = bytes("0")
                trailers.append(name.span, value.span)
            }
            wire += bytes(
                output { out in
                    #expect(ChunkEncoder.writeLast(trailers, to: &out) == .written)
                })
            let result = decode(wire + bytes("tail"), .chunked, step: Int.random(in: 1..<200, using: &random))
            #expect(result.last == .end)
            #expect(result.data == data)
            #expect(result.consumed == wire.count)
            #expect(result.trailers.fields.count == trailers.fields.count)
        }
    }

    @Test(arguments: [
        (1, "1"), (15, "f"), (16, "10"), (255, "ff"), (256, "100"), (65536, "10000"), (Int.max, "7fffffffffffffff"),
    ])
    func writesASize(_ n: Int, _ text: String) {
        #expect(output { ChunkEncoder.writeSize(n, to: &$0) } == text + "\r\n")
    }

    @Test func writesTrailersOnlyIfTheyAreClean() {
        var trailers = MessageHead()
        let name = bytes("X")
        let value = bytes("a\r\nb")
        trailers.append(name.span, value.span)
        var outcome = HeadWriter.Outcome.written
        let text = output { outcome = ChunkEncoder.writeLast(trailers, to: &$0) }
        #expect(outcome == .invalid)
        #expect(text == "")
        #expect(output(4) { outcome = ChunkEncoder.writeLast(MessageHead(), to: &$0) } == "")
        #expect(outcome == .needsRoom(8))
    }
}
