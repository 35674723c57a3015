// An HTTP/2 client for tests that says exactly what it is told to, right or wrong: frames by hand, and header blocks
// without compression going out. What comes back is read by the book.

/// A frame as it stood on the wire (RFC 9113 §4.1).
package struct TestFrame: Equatable, Sendable {
    package var type: UInt8
    package var flags: UInt8
    package var stream: UInt32
    package var payload: [UInt8]

    package static let data: UInt8 = 0
    package static let headers: UInt8 = 1
    package static let priority: UInt8 = 2
    package static let rstStream: UInt8 = 3
    package static let settings: UInt8 = 4
    package static let ping: UInt8 = 6
    package static let goAway: UInt8 = 7
    package static let windowUpdate: UInt8 = 8
    package static let continuation: UInt8 = 9

    package init(_ type: UInt8, flags: UInt8 = 0, stream: UInt32 = 0, _ payload: [UInt8] = []) {
        self.type = type
        self.flags = flags
        self.stream = stream
        self.payload = payload
    }

    package var bytes: [UInt8] {
        let n = payload.count
        return [UInt8(n >> 16 & 255), UInt8(n >> 8 & 255), UInt8(n & 255), type, flags]
            + Self.word(stream) + payload
    }

    package static func word(_ value: UInt32) -> [UInt8] {
        [UInt8(value >> 24), UInt8(value >> 16 & 255), UInt8(value >> 8 & 255), UInt8(value & 255)]
    }
}

/// What has come on one stream.
package struct TestStream: Sendable {
    /// Every header block: informational responses, the final one, trailers.
    package var blocks: [[(name: String, value: String)]] = []
    package var body: [UInt8] = []
    package var isEnded = false
    /// The code of RST_STREAM.
    package var reset: UInt32?

    package init() {}

    package func value(_ name: String, in block: Int = 0) -> String? {
        guard block < blocks.count else { return nil }
        return blocks[block].first { $0.name == name }?.value
    }
    package var status: String? { value(":status") }
    package var text: String { String(decoding: body, as: UTF8.self) }
}

/// Owned by one test.
package final class HTTP2Client {
    /// What is to be sent next.
    package var output: [UInt8] = []
    package private(set) var streams: [UInt32: TestStream] = [:]
    package private(set) var frames: [TestFrame] = []
    /// Last stream and code of each GOAWAY.
    package private(set) var goAways: [(last: UInt32, code: UInt32)] = []
    package private(set) var settings: [UInt16: UInt32] = [:]
    /// Answers SETTINGS and PING, and opens windows for what has come.
    package var isPolite = true
    package var opensWindows = true
    private var input: [UInt8] = []
    private var block: [UInt8] = []
    private let inflater = TestInflater()

    package static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)

    /// - settings: what the client says in its first frame, by identifier.
    package init(settings: [(UInt16, UInt32)] = []) {
        output = Self.preface
        send(TestFrame(TestFrame.settings, Self.payload(settings)))
    }

    package static func payload(_ settings: [(UInt16, UInt32)]) -> [UInt8] {
        settings.flatMap { [UInt8($0.0 >> 8), UInt8($0.0 & 255)] + TestFrame.word($0.1) }
    }

    package func send(_ frame: TestFrame) { output += frame.bytes }

    package func takeOutput() -> [UInt8] {
        defer { output = [] }
        return output
    }

    // MARK: Requests

    /// A header block of literals without indexing (RFC 7541 §6.2.2), names and values as they are.
    package static func block(_ fields: [(String, String)]) -> [UInt8] {
        fields.flatMap { [0] + string(Array($0.0.utf8)) + string(Array($0.1.utf8)) }
    }

    package static func string(_ bytes: [UInt8]) -> [UInt8] {
        var result: [UInt8] = []
        if bytes.count < 127 {
            result.append(UInt8(bytes.count))
        } else {
            result.append(127)
            var rest = bytes.count - 127
            while rest >= 128 {
                result.append(UInt8(rest & 127 | 128))
                rest >>= 7
            }
            result.append(UInt8(rest))
        }
        return result + bytes
    }

    package static func fields(
        _ method: String, _ path: String, host: String = "shop.test", _ more: [(String, String)] = []
    ) -> [(String, String)] {
        [(":method", method), (":scheme", "http"), (":path", path), (":authority", host)] + more
    }

    /// HEADERS with everything in one frame.
    package func headers(_ stream: UInt32, _ fields: [(String, String)], ends: Bool) {
        send(TestFrame(TestFrame.headers, flags: ends ? 5 : 4, stream: stream, Self.block(fields)))
    }

    package func get(_ stream: UInt32, _ path: String, host: String = "shop.test", _ more: [(String, String)] = []) {
        headers(stream, Self.fields("GET", path, host: host, more), ends: true)
    }

    package func post(_ stream: UInt32, _ path: String, _ more: [(String, String)] = []) {
        headers(stream, Self.fields("POST", path, more), ends: false)
    }

    package func data(_ stream: UInt32, _ bytes: [UInt8], ends: Bool = false) {
        var rest = bytes[...]
        repeat {
            let part = rest.prefix(16_384)
            rest = rest.dropFirst(part.count)
            send(TestFrame(TestFrame.data, flags: ends && rest.isEmpty ? 1 : 0, stream: stream, Array(part)))
        } while !rest.isEmpty
    }

    package func reset(_ stream: UInt32, _ code: UInt32 = 8) {
        send(TestFrame(TestFrame.rstStream, stream: stream, TestFrame.word(code)))
    }

    package func openWindow(_ stream: UInt32, _ count: UInt32) {
        send(TestFrame(TestFrame.windowUpdate, stream: stream, TestFrame.word(count)))
    }

    // MARK: What comes back

    package subscript(_ stream: UInt32) -> TestStream { streams[stream] ?? TestStream() }

    package func receive(_ bytes: some Sequence<UInt8>) {
        input += bytes
        var start = 0
        while input.count - start >= 9 {
            let length = Int(input[start]) << 16 | Int(input[start + 1]) << 8 | Int(input[start + 2])
            guard input.count - start >= 9 + length else { break }
            let id = input[(start + 5)..<(start + 9)].reduce(UInt32(0)) { $0 << 8 | UInt32($1) } & 0x7fff_ffff
            let frame = TestFrame(
                input[start + 3], flags: input[start + 4], stream: id,
                Array(input[(start + 9)..<(start + 9 + length)]))
            start += 9 + length
            take(frame)
        }
        input.removeFirst(start)
    }

    private func word(_ bytes: ArraySlice<UInt8>) -> UInt32 {
        bytes.prefix(4).reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
    }

    private func take(_ frame: TestFrame) {
        frames.append(frame)
        switch frame.type {
        case TestFrame.data:
            streams[frame.stream, default: TestStream()].body += frame.payload
            if opensWindows, !frame.payload.isEmpty {
                openWindow(0, UInt32(frame.payload.count))
                if frame.flags & 1 == 0 { openWindow(frame.stream, UInt32(frame.payload.count)) }
            }
        case TestFrame.headers, TestFrame.continuation:
            block += frame.payload
            if frame.flags & 4 != 0 {
                let fields = inflater.inflate(block)
                block = []
                streams[frame.stream, default: TestStream()].blocks.append(fields)
            }
        case TestFrame.rstStream:
            streams[frame.stream, default: TestStream()].reset = word(frame.payload[...])
        case TestFrame.settings:
            var rest = frame.payload[...]
            while rest.count >= 6 {
                let id = UInt16(rest[rest.startIndex]) << 8 | UInt16(rest[rest.startIndex + 1])
                settings[id] = word(rest.dropFirst(2))
                rest = rest.dropFirst(6)
            }
            if isPolite, frame.flags & 1 == 0 { send(TestFrame(TestFrame.settings, flags: 1)) }
        case TestFrame.ping:
            if isPolite, frame.flags & 1 == 0 { send(TestFrame(TestFrame.ping, flags: 1, frame.payload)) }
        case TestFrame.goAway:
            goAways.append((word(frame.payload[...]) & 0x7fff_ffff, word(frame.payload.dropFirst(4))))
        default: break
        }
        if frame.type <= TestFrame.headers, frame.flags & 1 != 0 {
            streams[frame.stream, default: TestStream()].isEnded = true
        }
    }
}
