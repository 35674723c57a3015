// Step 6 of a request's walk: the body streams through. The decoder says which of the received bytes are data; it keeps
// none of them and copies none of them, whatever the size of the body.

package import Model

/// What the next bytes of a body are.
package enum BodyEvent: Sendable, Hashable {
    /// All that was given is used up; more must follow.
    case needMore
    /// The bytes of the input in this range are data.
    case data(Range<Int>)
    /// The body is complete. What follows in the input is no part of this message. Said again at each further call.
    case end
    /// The body cannot be understood: close both sides. Said again at each further call.
    case failed
}

/// Follows one body from its first byte to its last (RFC 9112 §6).
package struct BodyDecoder: Sendable {
    private enum State: Sendable {
        /// So many bytes of data are missing.
        case length(UInt64)
        case chunked(ChunkDecoder)
        case untilClose
        case ended
        case failed
    }

    private var state: State
    /// How much data has been seen.
    package private(set) var received: UInt64 = 0

    package init(_ framing: BodyFraming) {
        switch framing {
        case .none, .length(0): state = .ended
        case .length(let n): state = .length(n)
        case .chunked: state = .chunked(ChunkDecoder())
        case .untilClose: state = .untilClose
        }
    }

    package var isComplete: Bool {
        if case .ended = state { true } else { false }
    }

    /// A part of the trailer section has been read: it is in the head that was given, which must be given again.
    package var isReadingTrailers: Bool {
        if case .chunked(let decoder) = state { decoder.isReadingTrailers } else { false }
    }

    /// What the input holds from `offset` on; moves `offset` behind it. Call it until it answers other than `.data`.
    /// The fields of a trailer section go into `trailers`, checked and without those that may not stand there.
    package mutating func next(
        _ input: RawSpan, at offset: inout Int, limits: HeadLimits, trailers: inout MessageHead
    ) -> BodyEvent {
        switch state {
        case .length(let missing):
            let left = input.byteCount - offset
            guard left > 0 else { return .needMore }
            let n = Int(min(UInt64(left), missing))
            received &+= UInt64(n)
            state = missing == UInt64(n) ? .ended : .length(missing - UInt64(n))
            defer { offset += n }
            return .data(offset..<offset + n)
        case .chunked(var decoder):
            let event = decoder.next(Span<UInt8>(_bytes: input), at: &offset, limits: limits, trailers: &trailers)
            switch event {
            case .data(let range):
                received &+= UInt64(range.count)
                state = .chunked(decoder)
            case .needMore: state = .chunked(decoder)
            case .end: state = .ended
            case .failed: state = .failed
            }
            return event
        case .untilClose:
            let left = input.byteCount - offset
            guard left > 0 else { return .needMore }
            received &+= UInt64(left)
            defer { offset += left }
            return .data(offset..<offset + left)
        case .ended: return .end
        case .failed: return .failed
        }
    }

    /// The sender has closed its side. True when the body was complete, or is by that.
    package mutating func inputClosed() -> Bool {
        switch state {
        case .ended: return true
        case .untilClose:
            state = .ended
            return true
        case .length, .chunked, .failed:
            state = .failed
            return false
        }
    }
}

/// Takes the chunked coding off (RFC 9112 §7.1).
///
/// ```
/// .size ─► .digits ─┬─────────────► .sizeLF ─┬─► .data ─► .dataCR ─► .dataLF ─► .size …
///                   └─► .extension ─┘        └─► .trailers (size 0) ─► end
/// ```
///
/// Refuses a size without digits, with more than sixteen or above 2⁶³, white space around it, a bare LF or CR anywhere,
/// and anything but CRLF after the data. Extensions are passed over and forgotten, within a bound.
package struct ChunkDecoder: Sendable {
    private enum State: UInt8, Sendable {
        case size
        case digits
        case `extension`
        case sizeLF
        case data
        case dataCR
        case dataLF
        case trailers
        case ended
        case failed
    }

    /// One chunk's extension, and all of a body: nobody reads them, and they have carried smuggled requests.
    private static let maxExtension: UInt32 = 1024
    private static let maxExtensions: UInt32 = 16384

    private var state: State = .size
    private var digits: UInt8 = 0
    /// The size while its digits arrive, then what is missing of the data.
    private var left: UInt64 = 0
    private var extensionBytes: UInt32 = 0
    private var allExtensionBytes: UInt32 = 0
    private var trailerParser = HeadParser(.trailers)

    package init() {}

    var isReadingTrailers: Bool { state == .trailers && trailerParser.hasBegun }

    /// As `BodyDecoder.next`.
    package mutating func next(
        _ input: Span<UInt8>, at offset: inout Int, limits: HeadLimits, trailers: inout MessageHead
    ) -> BodyEvent {
        var p = offset
        defer { offset = p }
        while p < input.count {
            switch state {
            case .size:
                guard let digit = hexDigit(input[p]) else { return fail() }
                left = UInt64(digit)
                digits = 1
                p += 1
                state = .digits
            case .digits:
                while p < input.count, let digit = hexDigit(input[p]) {
                    guard digits < 16, left < 1 << 59 else { return fail() }
                    left = left << 4 | UInt64(digit)
                    digits += 1
                    p += 1
                }
                guard p < input.count else { return .needMore }
                if input[p] == 0x0d {
                    state = .sizeLF
                } else if input[p] == 0x3b {
                    extensionBytes = 0
                    state = .extension
                } else {
                    return fail()
                }
                p += 1
            case .extension:
                while p < input.count, !FieldGrammar.isControl(input[p]) {
                    guard extensionBytes < Self.maxExtension, allExtensionBytes < Self.maxExtensions else {
                        return fail()
                    }
                    extensionBytes += 1
                    allExtensionBytes += 1
                    p += 1
                }
                guard p < input.count else { return .needMore }
                guard input[p] == 0x0d else { return fail() }
                p += 1
                state = .sizeLF
            case .sizeLF:
                guard input[p] == 0x0a else { return fail() }
                p += 1
                state = left == 0 ? .trailers : .data
            case .data:
                let n = Int(min(UInt64(input.count - p), left))
                left -= UInt64(n)
                if left == 0 { state = .dataCR }
                defer { p += n }
                return .data(p..<p + n)
            case .dataCR:
                guard input[p] == 0x0d else { return fail() }
                p += 1
                state = .dataLF
            case .dataLF:
                guard input[p] == 0x0a else { return fail() }
                p += 1
                state = .size
            case .trailers:
                switch trailerParser.parse(input.extracting(p..<input.count), limits: limits, into: &trailers) {
                case .needMore:
                    p = input.count
                case .complete(let consumed):
                    p += consumed
                    guard Trailers.check(&trailers) else { return fail() }
                    state = .ended
                    return .end
                case .refuse: return fail()
                }
            case .ended: return .end
            case .failed: return .failed
            }
        }
        switch state {
        case .ended: return .end
        case .failed: return .failed
        case .size, .digits, .extension, .sizeLF, .data, .dataCR, .dataLF, .trailers: return .needMore
        }
    }

    private mutating func fail() -> BodyEvent {
        state = .failed
        return .failed
    }
}

/// Fields after a body (RFC 9110 §6.5).
package enum Trailers {
    /// Takes out what may not stand in a trailer section: what routes, frames, authenticates or changes how the content
    /// is read. A framing field there is an attempt to be read twice: false, and the message is refused.
    ///
    /// - Parameter ofCall: they end a call of gRPC, and are its metadata: whatever their names, they mean something to the
    ///   caller alone, who never takes them for a part of the head. Only what belongs to the connection is taken out.
    package static func check(_ head: inout MessageHead, ofCall: Bool = false) -> Bool {
        for i in head.fields.indices {
            switch head.fields[i].name {
            case .contentLength, .transferEncoding, .host: return false
            case let name where ofCall:
                if name.isHopByHop || name == .trailer { head.remove(at: i) }
            case .accept, .authorization, .connection, .contentType, .cookie, .expect, .forwarded, .http2Settings,
                .keepAlive, .proxyAuthenticate, .proxyAuthorization, .proxyConnection, .secWebSocketAccept,
                .secWebSocketKey, .setCookie, .te, .trailer, .upgrade, .via, .xForwardedFor, .xForwardedHost,
                .xForwardedPort, .xForwardedPrefix, .xForwardedProto, .xRealIP, .xRequestID:
                head.remove(at: i)
            case .date: break
            case .other:
                if head.fields[i].flags.contains(.hasUnderscore) || isForbidden(head, head.fields[i]) {
                    head.remove(at: i)
                }
            }
        }
        return true
    }

    private static func isForbidden(_ head: MessageHead, _ field: FieldRecord) -> Bool {
        let name = head.bytes.span.extracting(field.nameRange)
        for forbidden: StaticString in [
            "age", "cache-control", "content-encoding", "content-location", "content-range", "expires", "if-match",
            "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "location", "max-forwards",
            "pragma", "range", "retry-after", "vary", "warning", "www-authenticate", "x-scheme",
        ] where name.equalsIgnoringCase(forbidden) { return true }
        // What we say of the client, nobody says behind the body (see `ClientRules`).
        for prefix: StaticString in ["x-forwarded-", "ssl-client-"] {
            let n = prefix.utf8CodeUnitCount
            if name.count >= n, name.extracting(0..<n).equalsIgnoringCase(prefix) { return true }
        }
        return false
    }
}
