// An HTTP/2 server for tests: like `HTTP2Client`, it says what it is told to, frame by frame. Only bodies given to `body`
// keep to the windows of the other side, as every server has to.

/// Owned by one test.
package final class HTTP2Server {
    /// What is to be sent next.
    package var output: [UInt8] = []
    /// What has come on each stream: `blocks` are the request's head and its trailers.
    package private(set) var streams: [UInt32: TestStream] = [:]
    package private(set) var frames: [TestFrame] = []
    package private(set) var goAways: [(last: UInt32, code: UInt32)] = []
    package private(set) var settings: [UInt16: UInt32] = [:]
    /// The connection preface was what it has to be (RFC 9113 §3.4).
    package private(set) var sawPreface = false
    /// Streams beyond it are not looked at: what the last GOAWAY has said.
    package private(set) var lastStream = UInt32.max
    package var isGoingAway: Bool { lastStream != .max }
    package var isPolite = true
    package var opensWindows = true
    private var input: [UInt8] = []
    private var block: [UInt8] = []
    private let inflater = TestInflater()
    private var window = 65_535
    private var windows: [UInt32: Int] = [:]
    private var bodies: [(stream: UInt32, rest: ArraySlice<UInt8>, trailers: [(String, String)]?)] = []

    package init(settings: [(UInt16, UInt32)] = []) {
        send(TestFrame(TestFrame.settings, HTTP2Client.payload(settings)))
    }

    package func send(_ frame: TestFrame) { output += frame.bytes }

    package func takeOutput() -> [UInt8] {
        defer { output = [] }
        return output
    }

    // MARK: Responses

    package func headers(_ stream: UInt32, _ fields: [(String, String)], ends: Bool) {
        send(TestFrame(TestFrame.headers, flags: ends ? 5 : 4, stream: stream, HTTP2Client.block(fields)))
    }

    /// A body, as the windows let it through; then its trailers, or its end.
    package func body(_ stream: UInt32, _ bytes: [UInt8], trailers: [(String, String)]? = nil) {
        bodies.append((stream, bytes[...], trailers))
        pump()
    }

    package func data(_ stream: UInt32, _ bytes: [UInt8], ends: Bool = false) {
        window -= bytes.count
        windows[stream, default: initialWindow] -= bytes.count
        send(TestFrame(TestFrame.data, flags: ends ? 1 : 0, stream: stream, bytes))
    }

    package func respond(
        _ stream: UInt32, _ status: String = "200", _ fields: [(String, String)] = [], body: [UInt8]? = nil,
        trailers: [(String, String)]? = nil
    ) {
        let hasMore = body != nil || trailers != nil
        headers(stream, [(":status", status)] + fields, ends: !hasMore)
        if hasMore { self.body(stream, body ?? [], trailers: trailers) }
    }

    /// `TestStream.reset` holds the code, whoever has sent it.
    package func reset(_ stream: UInt32, _ code: UInt32) {
        streams[stream, default: TestStream()].reset = code
        send(TestFrame(TestFrame.rstStream, stream: stream, TestFrame.word(code)))
        bodies.removeAll { $0.stream == stream }
    }

    package func goAway(last: UInt32, code: UInt32 = 0) {
        if last < 0x7fff_ffff { lastStream = last }
        send(TestFrame(TestFrame.goAway, TestFrame.word(last) + TestFrame.word(code)))
    }

    package func openWindow(_ stream: UInt32, _ count: UInt32) {
        send(TestFrame(TestFrame.windowUpdate, stream: stream, TestFrame.word(count)))
    }

    private var initialWindow: Int { Int(settings[4] ?? 65_535) }

    private func pump() {
        var i = 0
        while i < bodies.count {
            let (stream, rest, trailers) = bodies[i]
            let n = max(0, min(rest.count, 16_384, window, windows[stream] ?? initialWindow))
            guard n > 0 || rest.isEmpty else {
                i += 1
                continue
            }
            let isLast = n == rest.count
            bodies[i].rest = rest.dropFirst(n)
            data(stream, Array(rest.prefix(n)), ends: isLast && trailers == nil)
            guard isLast else { continue }
            if let trailers { headers(stream, trailers, ends: true) }
            bodies.remove(at: i)
        }
    }

    // MARK: What comes in

    package subscript(_ stream: UInt32) -> TestStream { streams[stream] ?? TestStream() }

    package func receive(_ bytes: some Sequence<UInt8>) {
        input += bytes
        if !sawPreface {
            guard input.count >= HTTP2Client.preface.count else { return }
            sawPreface = input.starts(with: HTTP2Client.preface)
            guard sawPreface else { return }
            input.removeFirst(HTTP2Client.preface.count)
        }
        var start = 0
        while input.count - start >= 9 {
            let length = Int(input[start]) << 16 | Int(input[start + 1]) << 8 | Int(input[start + 2])
            guard input.count - start >= 9 + length else { break }
            let id = Self.word(input[(start + 5)..<(start + 9)]) & 0x7fff_ffff
            let frame = TestFrame(
                input[start + 3], flags: input[start + 4], stream: id,
                Array(input[(start + 9)..<(start + 9 + length)]))
            start += 9 + length
            take(frame)
        }
        input.removeFirst(start)
        pump()
    }

    private static func word(_ bytes: ArraySlice<UInt8>) -> UInt32 {
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
            streams[frame.stream, default: TestStream()].reset = Self.word(frame.payload[...])
            bodies.removeAll { $0.stream == frame.stream }
        case TestFrame.settings:
            let before = initialWindow
            var rest = frame.payload[...]
            while rest.count >= 6 {
                let id = UInt16(rest[rest.startIndex]) << 8 | UInt16(rest[rest.startIndex + 1])
                settings[id] = Self.word(rest.dropFirst(2))
                rest = rest.dropFirst(6)
            }
            for stream in windows.keys { windows[stream, default: 0] += initialWindow - before }
            if isPolite, frame.flags & 1 == 0 { send(TestFrame(TestFrame.settings, flags: 1)) }
        case TestFrame.windowUpdate:
            let count = Int(Self.word(frame.payload[...]))
            if frame.stream == 0 { window += count } else { windows[frame.stream, default: initialWindow] += count }
        case TestFrame.ping:
            if isPolite, frame.flags & 1 == 0 { send(TestFrame(TestFrame.ping, flags: 1, frame.payload)) }
        case TestFrame.goAway:
            goAways.append((Self.word(frame.payload[...]) & 0x7fff_ffff, Self.word(frame.payload.dropFirst(4))))
        default: break
        }
        if frame.type <= TestFrame.headers, frame.flags & 1 != 0 {
            streams[frame.stream, default: TestStream()].isEnded = true
        }
    }
}
