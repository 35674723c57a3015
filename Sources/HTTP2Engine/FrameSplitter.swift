// Where one frame ends and the next begins. The library takes any number of frames in one call; it is given one at a
// time, so that what it makes of a frame (at most one head, one run of data) is acted on before the next is read, and
// so that every frame is counted before it costs anything.

/// The head of a frame (RFC 9113 §4.1).
struct FrameHead: Equatable, Sendable {
    var length: Int
    var type: UInt8
    var flags: UInt8
    /// Without the reserved bit.
    var stream: Int32

    static let data: UInt8 = 0
    static let headers: UInt8 = 1
    static let priority: UInt8 = 2
    static let rstStream: UInt8 = 3
    static let settings: UInt8 = 4
    static let ping: UInt8 = 6
    static let goAway: UInt8 = 7
    static let windowUpdate: UInt8 = 8
    static let continuation: UInt8 = 9
    static let endStream: UInt8 = 1
    static let endHeaders: UInt8 = 4
}

/// Follows the frames of one direction of a connection, whatever the pieces they come in.
struct FrameSplitter {
    /// The client's connection preface (RFC 9113 §3.4).
    static let prefaceCount = 24

    /// What is missing of the payload, or of the preface.
    private var left: Int
    private var seen = 0
    private var length = 0
    private var type: UInt8 = 0
    private var flags: UInt8 = 0
    private var stream: UInt32 = 0
    private(set) var isInHeaderBlock = false

    init(expectsPreface: Bool) { left = expectsPreface ? Self.prefaceCount : 0 }

    /// A header block has begun and is not complete. The flag that ends it comes before the payload of its last frame,
    /// which may be a CONTINUATION.
    var isReadingHead: Bool {
        isInHeaderBlock
            || (left > 0 || seen > 4) && (type == FrameHead.headers || type == FrameHead.continuation)
    }

    /// The end of the run of bytes from `start` on that belongs to one frame, and the frame's head if its last byte is
    /// among them.
    mutating func next(_ input: borrowing Span<UInt8>, from start: Int) -> (end: Int, head: FrameHead?) {
        var p = start
        var head: FrameHead?
        if left == 0 {
            while seen < 9, p < input.count {
                switch seen {
                case 0, 1, 2: length = (seen == 0 ? 0 : length) << 8 | Int(input[p])
                case 3: type = input[p]
                case 4:
                    flags = input[p]
                    if type == FrameHead.headers || type == FrameHead.continuation {
                        isInHeaderBlock = flags & FrameHead.endHeaders == 0
                    }
                default: stream = stream << 8 | UInt32(input[p])
                }
                if seen == 8 {
                    head = FrameHead(
                        length: length, type: type, flags: flags,
                        stream: Int32(truncatingIfNeeded: stream & 0x7fff_ffff))
                }
                seen += 1
                p += 1
            }
            guard seen == 9 else { return (p, head) }
            seen = 0
            left = length
        }
        let n = min(left, input.count - p)
        left -= n
        return (p + n, head)
    }
}
