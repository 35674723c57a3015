import Model
import Testing

@testable import HTTPWire

@Suite struct GRPCWebTests {
    private func post(_ fields: String) -> MessageHead {
        parse(bytes("POST /s/m HTTP/1.1\r\nHost: a\r\n\(fields.replacing("|", with: "\r\n"))\r\n\r\n")).head
    }

    private func type(_ head: MessageHead) -> String? { head.value(of: .contentType).map { head.text($0) } }

    @Test(arguments: [
        ("Content-Type: application/grpc-web", "application/grpc", false, false),
        ("Content-Type: application/grpc-web+proto", "application/grpc+proto", false, false),
        ("Content-Type: Application/gRPC-Web+json; x=y", "application/grpc+json; x=y", false, false),
        ("Content-Type: application/grpc-web-text", "application/grpc", true, true),
        ("Content-Type: application/grpc-web-text+proto", "application/grpc+proto", true, true),
        (
            "Content-Type: application/grpc-web+proto|Accept: application/grpc-web-text", "application/grpc+proto",
            false,
            true
        ),
        ("Content-Type: application/grpc-web-text|Accept: application/grpc-web", "application/grpc", true, false),
        ("Content-Type: application/grpc-web-text|Accept: */*", "application/grpc", true, true),
    ])
    func requests(_ fields: String, _ expected: String, _ isRequestText: Bool, _ isResponseText: Bool) throws {
        var head = post(fields)
        let bridge = try #require(GRPCWeb.toGRPC(&head))
        #expect(type(head) == expected)
        #expect(bridge.isRequestText == isRequestText)
        #expect(bridge.isResponseText == isResponseText)
    }

    @Test(arguments: [
        "Content-Type: application/grpc", "Content-Type: application/grpc-websocket", "Content-Type: text/plain",
        "X: y",
        "Content-Type: application/grpc-web-textual", "Content-Type: application/grpc-we",
    ])
    func otherRequestsStay(_ fields: String) {
        var head = post(fields)
        let before = type(head)
        #expect(GRPCWeb.toGRPC(&head) == nil)
        #expect(type(head) == before)
    }

    @Test func preflightsStay() {
        var head = parse(bytes("OPTIONS / HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web\r\n\r\n")).head
        #expect(GRPCWeb.toGRPC(&head) == nil)
    }

    @Test(arguments: [
        ("application/grpc", false, "application/grpc-web"),
        ("application/grpc+proto", true, "application/grpc-web-text+proto"),
        ("application/grpc; a=b", false, "application/grpc-web; a=b"), ("text/html", true, nil),
        ("application/grpc-web", false, nil),
    ])
    func responses(_ value: String, _ isText: Bool, _ expected: String?) {
        var head = parse(bytes("HTTP/1.1 200 OK\r\nContent-Type: \(value)\r\n\r\n"), .response).head
        #expect(GRPCWeb.fromGRPC(&head, isText: isText) == (expected != nil))
        #expect(type(head) == expected ?? value)
    }

    @Test func trailersAsAFrame() {
        let head = parse(bytes("HTTP/1.1 200 OK\r\ngrpc-status: 5\r\ngrpc-message: not%20here\r\n\r\n"), .response).head
        let lines = bytes("grpc-status:5\r\ngrpc-message:not%20here\r\n")
        #expect(GRPCWeb.trailerFrame(head) == [0x80, 0, 0, 0, UInt8(lines.count)] + lines)
    }

    // MARK: Base64

    private func decode(_ text: [UInt8], cuts: [Int], room: Int) -> (
        bytes: [UInt8], progress: Base64Decoder.Progress, whole: Bool
    ) {
        var decoder = Base64Decoder()
        var result: [UInt8] = []
        var start = 0
        for cut in cuts + [text.count] {
            let piece = Array(text[start..<cut])
            start = cut
            var offset = 0
            while true {
                var progress = Base64Decoder.Progress.malformed
                result += output(room) { progress = decoder.read(piece.span, at: &offset, to: &$0) }
                if progress == .malformed { return (result, .malformed, false) }
                if progress == .done { break }
            }
        }
        return (result, .done, decoder.isWhole)
    }

    private func encode(_ bytes: [UInt8], cuts: [Int], room: Int, flushesAtCuts: Bool) -> [UInt8] {
        var encoder = Base64Encoder()
        var result: [UInt8] = []
        var start = 0
        for cut in cuts + [bytes.count] {
            let piece = Array(bytes[start..<cut])
            start = cut
            var offset = 0
            var isDone = false
            while !isDone { result += output(room) { isDone = encoder.write(piece.span, at: &offset, to: &$0) } }
            if flushesAtCuts || cut == bytes.count {
                isDone = false
                while !isDone { result += output(room) { isDone = encoder.flush(to: &$0) } }
            }
        }
        return result
    }

    private func output(_ room: Int, _ body: (inout OutputRawSpan) -> Void) -> [UInt8] {
        unsafe withUnsafeTemporaryAllocation(byteCount: room, alignment: 8) { buffer in
            var span = unsafe OutputRawSpan(buffer: buffer, initializedCount: 0)
            body(&span)
            let count = unsafe span.finalize(for: buffer)
            return unsafe Array(buffer[..<count])
        }
    }

    /// RFC 4648 §10.
    @Test(arguments: [
        ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="),
        ("foobar", "Zm9vYmFy"),
    ])
    func theStandardsOwnExamples(_ text: String, _ encoded: String) {
        #expect(encode(bytes(text), cuts: [], room: 4, flushesAtCuts: false) == bytes(encoded))
        let result = decode(bytes(encoded), cuts: [], room: 3)
        #expect(result.bytes == bytes(text))
        #expect(result.whole)
    }

    /// RFC 2045 §6.8.
    @Test(arguments: [("foobar", "Zm9v\r\nYmFy\r\n"), ("fofo", "Zm8=\nZm8=\n"), ("", "\r\n")])
    func linesMayEndBetweenGroups(_ text: String, _ encoded: String) {
        let result = decode(bytes(encoded), cuts: [], room: 3)
        #expect(result.bytes == bytes(text) && result.whole)
    }

    @Test(arguments: 0..<50)
    func anyPiecesMakeTheSame(_ seed: UInt64) {
        var random = seed &* 0x9e37_79b9_7f4a_7c15 | 1
        func next(_ bound: Int) -> Int {
            random ^= random << 13
            random ^= random >> 7
            random ^= random << 17
            return Int(random % UInt64(max(1, bound)))
        }
        let text = (0..<next(500)).map { _ in UInt8(truncatingIfNeeded: next(256)) }
        let cuts = (0..<next(6)).map { _ in next(text.count + 1) }.sorted()
        let flushes = next(2) == 0
        let encoded = encode(text, cuts: cuts, room: 4 + next(30), flushesAtCuts: flushes)
        let pieces = (0..<next(9)).map { _ in next(encoded.count + 1) }.sorted()
        let result = decode(encoded, cuts: pieces, room: 3 + next(30))
        #expect(result.bytes == text)
        #expect(result.whole)
    }

    @Test(arguments: ["=", "A=", "A===", "AB=C", "AB=", "ABC", "AB\n=", "A\r\nBCD", "A B=", "AB-_", "====", "Zg==="])
    func whatIsNoBase64(_ text: String) {
        let result = decode(bytes(text), cuts: [], room: 64)
        #expect(result.progress == .malformed || !result.whole)
    }
}
