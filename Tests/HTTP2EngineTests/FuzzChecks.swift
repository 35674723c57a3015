// What must hold of a session whatever its peer sends. The fuzz target of Tests/Fuzz runs this check over what the fuzzer
// makes up, and `FailCaseTests` over its seeds and over everything that was ever found.

internal import HTTP2Engine
internal import Model

enum FuzzChecks {
    /// A problem with these bytes, or nil. The first says in which steps they arrive, the second what is done with the
    /// requests; the rest are frames: as they stand (bit 7 of the second), or as records of type, flags, stream, length
    /// and payload, of which frames with right lengths are made.
    static func session(_ input: [UInt8]) -> String? {
        guard input.count >= 2 else { return nil }
        let body = Array(input.dropFirst(2))
        let wire = preface + (input[1] & 128 != 0 ? body : frames(of: body))
        guard let whole = Play(input[1]) else { return "no memory" }
        whole.run(wire, step: wire.count)
        if let problem = whole.problem { return problem }
        for step in [1, Int(input[0]) + 2] {
            guard let parts = Play(input[1]) else { return "no memory" }
            parts.run(wire, step: step)
            if let problem = parts.problem { return "in steps of \(step): \(problem)" }
            guard told(parts) == told(whole), parts.fault == whole.fault else {
                return "in steps of \(step) \(parts.story) \(parts.fault), whole \(whole.story) \(whole.fault)"
            }
        }
        return nil
    }

    /// What a play was told. Whether a reset of ours was out before the connection ended is a matter of when we could write.
    private static func told(_ play: Play) -> [String] {
        play.fault == .none ? play.story : play.story.filter { !$0.contains(" closed ") }
    }

    private static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8) + [0, 0, 0, 4, 0, 0, 0, 0, 0]

    /// Blocks that a record can name: without them hardly any request would ever be whole.
    private static let blocks: [[UInt8]] = [
        block(request("GET")), block(request("POST")), block(request("POST") + [("content-length", "3")]),
        block(request("CONNECT") + [(":protocol", "websocket")]), block([("x-sum", "1")]),
        block(request("GET") + [("X", "y")]), block(request("GET") + [("x", String(repeating: "a", count: 3_000))]),
        // Into the table, and out of it again.
        block(request("GET")) + [0x40] + string("x-kept") + string("1"), block(request("GET")) + [0xbe],
        block((0..<70).map { ("x\($0)", "") }), block([(":method", "CONNECT"), (":authority", "shop.test:1")]),
    ]

    private static func request(_ method: String) -> [(String, String)] {
        [(":method", method), (":scheme", "http"), (":path", "/"), (":authority", "shop.test")]
    }

    private static func block(_ fields: [(String, String)]) -> [UInt8] {
        fields.flatMap { [0] + string($0.0) + string($0.1) }
    }

    /// RFC 7541 §5.2, without Huffman.
    private static func string(_ text: String) -> [UInt8] {
        let bytes = Array(text.utf8)
        guard bytes.count >= 127 else { return [UInt8(bytes.count)] + bytes }
        var length: [UInt8] = [127]
        var rest = bytes.count - 127
        while rest >= 128 {
            length.append(UInt8(rest & 127 | 128))
            rest >>= 7
        }
        return length + [UInt8(rest)] + bytes
    }

    private static func frames(of records: [UInt8]) -> [UInt8] {
        var wire: [UInt8] = []
        var at = 0
        while at + 4 <= records.count {
            let (type, flags, stream, n) = (records[at], records[at + 1], records[at + 2], Int(records[at + 3]))
            at += 4
            var payload: [UInt8]
            if type & 128 != 0, type & 15 <= 1 {
                payload = type & 15 == 1 ? blocks[n % blocks.count] : [UInt8](repeating: 120, count: n * 16)
            } else {
                payload = Array(records[at..<min(at + n, records.count)])
                at += payload.count
            }
            let count = payload.count
            wire += [UInt8(count >> 16), UInt8(count >> 8 & 255), UInt8(count & 255), type & 15, flags]
            wire += [0, 0, 0, stream & 31] + payload
        }
        return wire
    }
}

/// A session, who drives it, and what is seen of both.
private final class Play {
    private static let limits = HTTP2Limits(streams: 6, streamWindow: 4_000, headBytes: 2_048, fields: 60)
    private let session: HTTP2Session
    /// Bit 0: windows are opened; 1: requests are answered, 2: with a body, 3: and trailers; 4: streams are refused at
    /// once; 5: the end is announced with the third request.
    private let manners: UInt8
    private(set) var problem: String?
    /// What was told, without the sizes of the pieces.
    private(set) var story: [String] = []
    var fault: HTTP2Fault { session.fault }

    private struct Stream {
        var handle: HTTP2Handle
        var hasEnded = false
        var isOver = false
        var code: HTTP2ErrorCode?
        var received = 0
        var toSend = 0
    }
    private var streams: [UInt64: Stream] = [:]
    private var lastStream: Int32 = 0
    /// Consumed when the frame that it came in is complete, so that windows open at the same time in any pieces.
    private var due: [(owner: UInt64, count: Int)] = []
    /// Where the input's frames end.
    private var frameLeft = 24
    private var frameHead: [UInt8] = []
    private var lastFrame: UInt8?

    init?(_ manners: UInt8) {
        guard let session = HTTP2Session(Self.limits) else { return nil }
        self.session = session
        self.manners = manners
    }

    private func fail(_ what: String) { if problem == nil { problem = what } }

    func run(_ wire: [UInt8], step: Int) {
        var start = 0
        while start < wire.count, problem == nil {
            let piece = Array(wire[start..<min(start + max(step, 1), wire.count)])
            start += piece.count
            var offset = 0
            while offset < piece.count, problem == nil {
                let before = offset
                unsafe session.receive(piece.span.bytes, at: &offset, now: 1_000)
                guard offset > before, offset <= piece.count else {
                    return fail("receive went from \(before) to \(offset)")
                }
                act(piece)
                for i in before..<offset { follow(piece[i]) }
                if frameLeft == 0 && frameHead.isEmpty { settle() }
                output()
                act([])
                check()
            }
        }
        // How much of what was beyond a window is passed on before the library ends it is a matter of the pieces.
        let isExceeded = session.fault != .none || streams.values.contains { $0.code == .flowControlError }
        // So is how much came of a body that is longer than its content-length.
        for owner in streams.keys.sorted() where !isExceeded && streams[owner]?.code != .protocolError {
            story.append("\(owner) had \(streams[owner]?.received ?? 0)")
        }
        if session.fault != .none, problem == nil {
            if !session.isOver { fail("a session at fault is not over") }
            if lastFrame != 7 { fail("the last frame of a session at fault is of type \(lastFrame ?? 255)") }
        }
    }

    private func follow(_ byte: UInt8) {
        if frameLeft > 0 {
            frameLeft -= 1
            return
        }
        frameHead.append(byte)
        if frameHead.count == 9 {
            frameLeft = Int(frameHead[0]) << 16 | Int(frameHead[1]) << 8 | Int(frameHead[2])
            frameHead = []
        }
    }

    private func settle() {
        for (owner, count) in due {
            if let handle = streams[owner]?.handle { session.consume(handle, count) }
        }
        due = []
    }

    private func act(_ input: [UInt8]) {
        while let event = session.nextEvent() {
            switch event {
            case .headReceived(let id, let ends, let isCut): begin(id, ends: ends, isCut: isCut)
            case .trailersReceived(let owner, let isCut):
                lines()
                end(owner, isCut ? "cut trailers" : "trailers")
            case .dataReceived(let owner, let range):
                guard range.lowerBound >= 0, range.upperBound <= input.count, !range.isEmpty else {
                    return fail("data at \(range) of \(input.count)")
                }
                guard let stream = streams[owner], !stream.hasEnded, !stream.isOver else {
                    return fail("data of \(owner), which is over")
                }
                streams[owner]?.received += range.count
                if manners & 1 != 0 { due.append((owner, range.count)) }
            case .ended(let owner): end(owner, "end")
            case .finished(let owner):
                if streams[owner] == nil { fail("\(owner) finished, and was never begun") }
            case .closed(let owner, let code):
                guard let stream = streams[owner], !stream.isOver else { return fail("\(owner) closed twice") }
                streams[owner]?.isOver = true
                streams[owner]?.code = HTTP2ErrorCode(rawValue: code)
                story.append("\(owner) closed \(code)")
            case .pingAnswered: session.finish()
            case .settingsReceived, .goAwayReceived, .resetReceived: break
            case .responseReceived(let owner, _, _): fail("\(owner) has a response from its client")
            }
        }
    }

    private func end(_ owner: UInt64, _ how: String) {
        guard let stream = streams[owner], !stream.hasEnded, !stream.isOver else { return fail("\(owner) ended twice") }
        streams[owner]?.hasEnded = true
        story.append("\(owner) \(how)")
    }

    private func begin(_ id: Int32, ends: Bool, isCut: Bool) {
        guard id > lastStream, id & 1 == 1 else { return fail("stream \(id) after \(lastStream)") }
        lastStream = id
        lines()
        let head = session.incoming
        story.append("\(id) \(ends) \(isCut) " + head.fields.map { head.text($0.nameRange) }.joined(separator: " "))
        let owner = UInt64(id) + 1_000
        let handle = session.adopt(stream: id, owner: owner)
        streams[owner] = Stream(handle: handle, hasEnded: ends)
        if manners & 32 != 0, streams.count == 3 { session.announceEnd() }
        if manners & 16 != 0 {
            session.forget(handle)
            session.reset(stream: id, .noError)
            streams[owner]?.isOver = true
        } else if manners & 2 != 0 {
            let hasBody = manners & 4 != 0
            session.submit(handle, head: Self.head([(":status", "200")]), isFinal: true, hasBody: hasBody)
            if hasBody {
                streams[owner]?.toSend = 20_000
                session.offer(handle, 20_000)
                session.end(handle, trailers: manners & 8 != 0 ? Self.head([("x-sum", "1")]) : nil)
            }
        }
    }

    private static func head(_ fields: [(String, String)]) -> MessageHead {
        var head = MessageHead()
        for (name, value) in fields { head.append(.other, name: Array(name.utf8).span, value: Array(value.utf8).span) }
        return head
    }

    /// Every field lies in a line of its own, and there are no more of them than may be.
    private func lines() {
        let head = session.incoming
        guard head.fields.count <= Self.limits.fields, head.bytes.count <= 2 * Self.limits.headBytes else {
            return fail("\(head.fields.count) fields in \(head.bytes.count) bytes")
        }
        var end = 0
        for field in head.fields {
            guard field.nameRange.lowerBound == end, field.valueRange.lowerBound == field.nameRange.upperBound + 2,
                field.valueRange.upperBound + 2 <= head.bytes.count
            else { return fail("a field that is no line") }
            end = field.valueRange.upperBound + 2
            guard head.bytes[field.nameRange.upperBound] == 0x3a, head.bytes[end - 2] == 0x0d,
                head.bytes[end - 1] == 0x0a,
                !head.bytes[field.valueRange].contains(where: { $0 == 0x0d || $0 == 0x0a || $0 == 0 }),
                !head.bytes[field.nameRange].dropFirst().contains(where: { $0 <= 0x20 || $0 == 0x3a })
            else { return fail("a line that is two: \(head.text(0..<head.bytes.count))") }
        }
    }

    private func output() {
        let session = session
        var bytes: [UInt8] = []
        for _ in 0..<100_000 {
            switch session.nextOutput() {
            case .nothing: return read(bytes)
            case .control:
                let span = session.control
                for i in 0..<span.byteCount { bytes.append(Span<UInt8>(_bytes: span)[i]) }
            case .data(let owner, let count):
                guard let stream = streams[owner], !stream.isOver, count <= stream.toSend else {
                    return fail("\(count) bytes were asked of \(owner)")
                }
                streams[owner]?.toSend -= count
                for i in 0..<9 { bytes.append(session.frameHead[i]) }
                bytes += [UInt8](repeating: 0, count: count)
            }
        }
        fail("the session has always more to say")
    }

    /// What we say is frames, and none goes to a stream that was never begun.
    private func read(_ bytes: [UInt8]) {
        var at = 0
        while at < bytes.count {
            guard at + 9 <= bytes.count else { return fail("half a frame was written") }
            let length = Int(bytes[at]) << 16 | Int(bytes[at + 1]) << 8 | Int(bytes[at + 2])
            let type = bytes[at + 3]
            guard at + 9 + length <= bytes.count else { return fail("a frame of \(length) was cut") }
            let stream = bytes[(at + 5)..<(at + 9)].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            if type <= 1, streams[stream + 1_000] == nil { return fail("a response to nobody") }
            if session.fault != .none, type <= 1, lastFrame == 7 {
                return fail("a frame of type \(type) behind GOAWAY")
            }
            lastFrame = type
            at += 9 + length
        }
    }

    private func check() {
        let open = streams.values.count { !$0.isOver }
        guard session.streamCount == open else { return fail("\(session.streamCount) streams, and \(open) are open") }
        if open > Self.limits.streams { fail("\(open) streams at once") }
    }
}
