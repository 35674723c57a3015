// What a peer may ask of a connection that brings no request forward. Each of the floods that HTTP/2 servers have
// fallen to is made of frames that are cheap to send and not to take: PING and SETTINGS (CVE-2019-9512, -9515),
// PRIORITY, empty DATA (CVE-2019-9518), WINDOW_UPDATE by single bytes (CVE-2019-9511), resets (CVE-2019-9514,
// CVE-2023-44487, CVE-2025-8671), CONTINUATION (CVE-2024-27983). They pay from an account that grows with time, and with
// the bytes that really pass.

/// An account that fills with time up to a bound.
struct TokenBucket: Sendable {
    private let capacity: Int64
    private let perSecond: Int64
    /// In thousandths.
    private var level: Int64
    private var filledAt: UInt64?

    init(capacity: Int, perSecond: Int, first: Int) {
        self.capacity = Int64(capacity) * 1_000
        self.perSecond = Int64(perSecond)
        level = Int64(first) * 1_000
    }

    /// It begins to fill.
    mutating func start(now: UInt64) { if filledAt == nil { filledAt = now } }

    /// Takes one token; false if there is none. `now` in milliseconds.
    mutating func take(now: UInt64) -> Bool {
        if let last = filledAt, now > last {
            let passed = Int64(clamping: min(now - last, 3_600_000))
            level = min(capacity, level + passed * perSecond)
        }
        filledAt = now
        guard level >= 1_000 else { return false }
        level -= 1_000
        return true
    }

    mutating func add(_ tokens: Int) {
        level = min(capacity, level + Int64(clamping: tokens) * 1_000)
    }
}

/// The accounts of one connection.
struct FrameBudget: Sendable {
    /// Frames that bring nothing forward.
    private var noise: TokenBucket
    /// Streams that end before their response: by the client, or by us for the client's mistakes.
    private var resets: TokenBucket
    /// WINDOW_UPDATE and PING frames that small messages of ours have paid for.
    private var answers = 0
    private var continuations = 0

    /// CONTINUATION frames of one header block. A block of 64 KiB needs four of the usual size.
    static let mostContinuations = 8
    /// What answers a small message of ours: a window of its stream, one of the connection, and a PING. gRPC's clients and
    /// servers measure the path by one whenever data comes and none is under way.
    static let framesPerMessage = 3
    /// Single bytes that fill a window of the usual size, and the frames that answer them.
    static let mostAnswers = framesPerMessage * 65_536
    /// Bytes of bodies, either way, that pay for one frame.
    static let bytesPerFrame = 128
    /// What a client's request pays for: its priority, and a window opened for its response.
    static let framesPerRequest = 4
    /// What a request of ours pays for: the heads and the end of its response, two windows, a PING, a reset.
    static let framesPerResponse = 8

    private let role: HTTP2Role

    /// - Parameter isWary: of a peer that has flooded another connection.
    init(_ role: HTTP2Role = .server, isWary: Bool = false) {
        self.role = role
        noise = TokenBucket(capacity: 1_000, perSecond: 100, first: isWary ? 100 : 1_000)
        resets = TokenBucket(capacity: 500, perSecond: 50, first: isWary ? 10 : 500)
    }

    /// Counts a frame that has come; false if it is one too many.
    ///
    /// - Parameter beginsStream: it is the first of its stream, of which either a request comes or a reset.
    mutating func admit(_ frame: FrameHead, beginsStream: Bool, now: UInt64) -> Bool {
        resets.start(now: now)
        switch frame.type {
        case FrameHead.headers:
            continuations = 0
            // A server can send informational heads without end, and heads of streams that are no more.
            return role == .server && beginsStream || noise.take(now: now)
        case FrameHead.continuation:
            continuations += 1
            return continuations <= Self.mostContinuations
        case FrameHead.data:
            // It gets it back when it has been seen not to be empty, or to end something.
            return noise.take(now: now)
        case FrameHead.windowUpdate where answers > 0, FrameHead.ping where answers > 0:
            answers -= 1
            return true
        default:
            return noise.take(now: now)
        }
    }

    /// A request has really begun.
    mutating func began() { noise.add(Self.framesPerRequest) }

    /// A body that somebody waits for has ended: that is worth a frame of its own.
    mutating func ended() { noise.add(1) }

    /// So many bytes of a body came, or went.
    mutating func passed(_ bytes: Int, received: Bool) {
        if bytes > 0 { noise.add(bytes / Self.bytesPerFrame + (received ? 1 : 0)) }
    }

    /// A frame of a body went out that held all there was: a small message, which the peer may answer. One that was cut by
    /// the peer's window pays for nothing, or windows of single bytes would pay for themselves.
    ///
    /// Kept apart from the noise: as many as were sent within one round trip may be answered at once.
    mutating func passedWhole() { answers = min(answers + Self.framesPerMessage, Self.mostAnswers) }

    /// A request of ours goes out.
    mutating func requested() { noise.add(Self.framesPerResponse) }

    /// A stream was reset; false if it is one too many.
    mutating func reset(now: UInt64) -> Bool { resets.take(now: now) }
}
