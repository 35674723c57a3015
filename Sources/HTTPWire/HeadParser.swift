// Step 2 of a request's walk, first half: bytes become a head. The grammar of RFC 9112 §2–§5 and RFC 9110 §5, strict:
// only CRLF ends a line, and what the grammar does not produce is refused at the byte where it departs from it.

package import Model

/// What a parser says of the bytes that it was given.
package enum HeadProgress: Sendable, Hashable {
    /// All of them belong to the head and were taken; more must follow.
    case needMore
    /// The head is complete; the first `consumed` of them belong to it.
    case complete(consumed: Int)
    /// The connection cannot be understood any further: answer, then close.
    case refuse(Refusal)
}

/// Reads the head of a request, the head of a response, or the trailer section of a chunked body.
///
/// ```
///            ┌──────────── blank lines (request)
///            ▼          │
///  .start ──────────────┘──► .method ─► .target ─► .requestVersion ──┐
///     │ response: .statusLine ─► .reason ────────────────────────────┤
///     │ trailers                                                     ▼
///     └────────────────────────────────────────────────────► .lineStart ─► complete (an empty line)
///                                                            │      ▲
///                                                            ▼      │
///                                                          .name ─► .value
/// ```
///
/// A head that arrives whole is read in the caller's memory and copied once. One that arrives in pieces is collected
/// in the arena of `head`, and each piece goes on at the byte where the last one ended, so that a head sent byte by
/// byte costs no more than one sent whole, and gets the same answer.
package struct HeadParser: Sendable {
    package enum Kind: UInt8, Sendable, Hashable {
        case request
        case response
        case trailers
    }

    @usableFromInline
    enum Phase: UInt8, Sendable {
        case start
        case method
        case target
        case requestVersion
        case statusLine
        case reason
        case lineStart
        case name
        case value
    }

    package let kind: Kind
    private var phase: Phase = .start
    private var blankLines: UInt8 = 0
    private var hasUnderscore = false
    /// The next byte to look at, in the arena.
    private var position: UInt32 = 0
    /// Where the part that is being read began: method, target, field name.
    private var mark: UInt32 = 0
    private var nameCount: UInt32 = 0
    /// The first byte of the value, behind the white space; 0 while that is being skipped.
    private var valueStart: UInt32 = 0

    /// Empty lines that are passed over before a request (RFC 9112 §2.2).
    private static let maxBlankLines: UInt8 = 4
    /// Longer methods are nobody's: 501 (RFC 9112 §3).
    private static let maxMethodBytes = 32

    package init(_ kind: Kind) {
        self.kind = kind
    }

    /// Some byte of a head has arrived, and the head is not complete.
    package private(set) var hasBegun = false

    /// Reads on. `head` must be the same until the answer is other than `.needMore`; it is emptied at the first byte
    /// of a head, and the parser is ready for the next head after `.complete`. After `.refuse` the head holds what was
    /// understood up to there: every range in it lies within its bytes.
    package mutating func parse(
        _ input: RawSpan, limits: HeadLimits, into head: inout MessageHead
    ) -> HeadProgress {
        parse(Span<UInt8>(_bytes: input), limits: limits, into: &head)
    }

    package mutating func parse(
        _ bytes: Span<UInt8>, limits: HeadLimits, into head: inout MessageHead
    ) -> HeadProgress {
        do throws(Refusal) {
            if !hasBegun {
                head.removeAll()
                let isComplete: Bool
                do throws(Refusal) {
                    isComplete = try scan(bytes, limits, &head)
                } catch {
                    // Whoever answers and logs the refused head finds in it what its ranges speak of.
                    head.bytes.append(bytes.extracting(0..<min(bytes.count, limits.headBytes)))
                    throw error
                }
                guard isComplete else {
                    head.bytes.append(bytes)
                    hasBegun = !bytes.isEmpty
                    return .needMore
                }
                let consumed = Int(position)
                head.bytes.append(bytes.extracting(0..<consumed))
                self = HeadParser(kind)
                return .complete(consumed: consumed)
            }
            return try resume(bytes, limits, &head)
        } catch {
            self = HeadParser(kind)
            return .refuse(kind == .response ? Refusal(502, .malformedResponse) : error)
        }
    }

    private mutating func resume(
        _ bytes: Span<UInt8>, _ limits: HeadLimits, _ head: inout MessageHead
    ) throws(Refusal) -> HeadProgress {
        let old = head.bytes.count
        // No more than the limit is looked at, so no more is kept.
        head.bytes.append(bytes.extracting(0..<min(bytes.count, max(limits.headBytes - old, 0))))
        // The arena is lent out of the head while the scan writes fields into it.
        var arena: [UInt8] = []
        swap(&arena, &head.bytes)
        defer { swap(&arena, &head.bytes) }
        guard try scan(arena.span, limits, &head) else { return .needMore }
        let end = Int(position)
        arena.removeLast(arena.count - end)
        self = HeadParser(kind)
        return .complete(consumed: end - old)
    }

    /// Goes on from `position` over a head that begins at the first byte of `bytes`. True when it is complete: then
    /// `position` is behind its last byte.
    private mutating func scan(
        _ bytes: Span<UInt8>, _ limits: HeadLimits, _ head: inout MessageHead
    ) throws(Refusal) -> Bool {
        /// Bytes that may be looked at; a head that needs more is too large.
        let end = min(bytes.count, limits.headBytes)
        let isCut = bytes.count >= limits.headBytes
        var p = Int(position)
        var phase = self.phase
        var mark = Int(self.mark)
        scanning: while true {
            switch phase {
            case .start:
                switch kind {
                case .request:
                    guard p < end else { break scanning }
                    if bytes[p] == 0x0d {
                        guard p + 1 < end else { break scanning }
                        guard bytes[p + 1] == 0x0a, blankLines < Self.maxBlankLines else { throw .malformed(.lineEnd) }
                        blankLines += 1
                        p += 2
                    } else {
                        mark = p
                        phase = .method
                    }
                case .response: phase = .statusLine
                case .trailers: phase = .lineStart
                }

            case .method:
                let stop = min(end, mark + Self.maxMethodBytes + 1)
                while p < stop, ByteSet.token.contains(bytes[p]) { p += 1 }
                if p < stop {
                    guard bytes[p] == 0x20, p > mark else { throw .malformed(.requestLine) }
                    head.methodRange = ByteRange(offset: mark, count: p - mark)
                    head.method = Method(bytes.extracting(mark..<p))
                    p += 1
                    mark = p
                    phase = .target
                } else if p - mark > Self.maxMethodBytes {
                    throw Refusal(501, .methodNotAllowed)
                } else {
                    break scanning
                }

            case .target:
                let stop = min(end, mark + limits.targetBytes + 1)
                p = bytes.firstNotVisible(from: p, to: stop)
                if p < stop {
                    guard bytes[p] == 0x20, p > mark else { throw .malformed(.requestLine) }
                    head.targetRange = ByteRange(offset: mark, count: p - mark)
                    p += 1
                    mark = p
                    phase = .requestVersion
                } else if p - mark > limits.targetBytes {
                    throw Refusal(414, .targetTooLong)
                } else {
                    break scanning
                }

            case .requestVersion:
                // `HTTP/1.1` CR LF, RFC 9112 §2.3: eight bytes and the end of the line, nothing between.
                var i = p - mark
                while i < 10, p < end {
                    guard Self.isVersionByte(bytes[p], at: i) else { throw .malformed(.requestLine) }
                    p += 1
                    i += 1
                }
                guard i == 10 else { break scanning }
                guard bytes[mark + 5] == 0x31, bytes[mark + 7] <= 0x31 else {
                    throw Refusal(505, .unsupportedVersion)
                }
                head.version = bytes[mark + 7] == 0x31 ? .http11 : .http10
                phase = .lineStart

            case .statusLine:
                // `HTTP/1.1 200`, RFC 9112 §4. The space before an empty reason is required there, and left out by
                // many: both are taken.
                while p < 12, p < end {
                    guard Self.isStatusLineByte(bytes[p], at: p) else { throw .malformed }
                    p += 1
                }
                guard p >= 12, p < end else { break scanning }
                head.version = bytes[7] == 0x31 ? .http11 : .http10
                head.status = UInt16(bytes[9] - 48) * 100 + UInt16(bytes[10] - 48) * 10 + UInt16(bytes[11] - 48)
                if bytes[12] == 0x0d {
                    guard p + 1 < end else { break scanning }
                    guard bytes[13] == 0x0a else { throw .malformed(.lineEnd) }
                    p = 14
                    phase = .lineStart
                } else {
                    guard bytes[12] == 0x20 else { throw .malformed }
                    p = 13
                    mark = 13
                    phase = .reason
                }

            case .reason:
                let stop = min(end, mark + limits.lineBytes + 1)
                p = bytes.firstControl(from: p, to: stop)
                guard p < stop else {
                    if p - mark > limits.lineBytes { throw Refusal(431, .headTooLarge) }
                    break scanning
                }
                guard bytes[p] == 0x0d else { throw .malformed(.fieldLine) }
                guard p + 1 < end else { break scanning }
                guard bytes[p + 1] == 0x0a else { throw .malformed(.lineEnd) }
                head.reasonRange = ByteRange(offset: mark, count: p - mark)
                p += 2
                phase = .lineStart

            case .lineStart:
                guard p < end else { break scanning }
                if bytes[p] == 0x0d {
                    guard p + 1 < end else { break scanning }
                    guard bytes[p + 1] == 0x0a else { throw .malformed(.lineEnd) }
                    position = UInt32(truncatingIfNeeded: p + 2)
                    return true
                }
                // A space or tab here would be a folded line (RFC 9112 §5.2): no token, refused below.
                guard ByteSet.token.contains(bytes[p]) else { throw .malformed(.fieldLine) }
                guard head.fields.count < limits.fieldCount else { throw Refusal(431, .tooManyFields) }
                mark = p
                hasUnderscore = false
                phase = .name

            case .name:
                let stop = min(end, mark + limits.lineBytes + 1)
                while true {
                    p = bytes.firstNotLetterOrDash(from: p, to: stop)
                    guard p < stop, ByteSet.token.contains(bytes[p]) else { break }
                    if bytes[p] == 0x5f { hasUnderscore = true }
                    p += 1
                }
                guard p < stop else {
                    if p - mark > limits.lineBytes { throw Refusal(431, .headTooLarge) }
                    break scanning
                }
                // A space before the colon ends here (RFC 9112 §5.1).
                guard bytes[p] == 0x3a else { throw .malformed(.fieldLine) }
                nameCount = UInt32(truncatingIfNeeded: p - mark)
                valueStart = 0
                p += 1
                phase = .value

            case .value:
                let stop = min(end, mark + limits.lineBytes + 1)
                if valueStart == 0 {
                    while p < stop, bytes[p] == 0x20 || bytes[p] == 0x09 { p += 1 }
                    if p < stop { valueStart = UInt32(truncatingIfNeeded: p) }
                }
                p = bytes.firstControl(from: p, to: stop)
                guard p < stop else {
                    if p - mark > limits.lineBytes { throw Refusal(431, .headTooLarge) }
                    break scanning
                }
                guard bytes[p] == 0x0d else { throw .malformed(.fieldLine) }
                guard p + 1 < end else { break scanning }
                guard bytes[p + 1] == 0x0a else { throw .malformed(.lineEnd) }
                let start = Int(valueStart)
                var valueEnd = p
                while valueEnd > start, bytes[valueEnd - 1] == 0x20 || bytes[valueEnd - 1] == 0x09 { valueEnd -= 1 }
                let count = Int(nameCount)
                head.fields.append(
                    FieldRecord(
                        name: FieldName(bytes.extracting(mark..<mark + count)),
                        nameRange: ByteRange(offset: mark, count: count),
                        valueRange: ByteRange(offset: start, count: valueEnd - start),
                        flags: hasUnderscore ? .hasUnderscore : []))
                p += 2
                phase = .lineStart
            }
        }
        if isCut { throw Refusal(431, .headTooLarge) }
        position = UInt32(truncatingIfNeeded: p)
        self.phase = phase
        self.mark = UInt32(truncatingIfNeeded: mark)
        return false
    }

    private static func isVersionByte(_ byte: UInt8, at i: Int) -> Bool {
        switch i {
        case 0: byte == 0x48
        case 1, 2: byte == 0x54
        case 3: byte == 0x50
        case 4: byte == 0x2f
        case 5, 7: byte &- 48 < 10
        case 6: byte == 0x2e
        case 8: byte == 0x0d
        default: byte == 0x0a
        }
    }

    private static func isStatusLineByte(_ byte: UInt8, at i: Int) -> Bool {
        switch i {
        case 5: byte == 0x31
        case 7: byte == 0x30 || byte == 0x31
        case 0...6: isVersionByte(byte, at: i)
        case 8: byte == 0x20
        case 9: byte &- 49 < 9
        default: byte &- 48 < 10
        }
    }
}
