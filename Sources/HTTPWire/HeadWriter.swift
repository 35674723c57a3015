// The head goes out again: to the upstream as a request, to the client as a response. Lines that nobody touched are
// copied in runs; what belongs to the connection is left out; what we have to say stands at the end.
//
// This is also the last wall against splitting: every byte that leaves is looked at here once more, whoever wrote it
// (the client, the upstream, a script, we ourselves), and no layer before is relied on.

package import Model

package enum HeadWriter {
    package enum Outcome: Sendable, Hashable {
        case written
        /// Nothing was written; the output must have room for so many bytes.
        case needsRoom(Int)
        /// Nothing was written: the head holds what may not stand in one. Answer 500 or 502.
        case invalid
    }

    /// What is written besides the fields.
    package struct RequestOptions: Sendable {
        package var body: BodyFraming
        package var upgrade: UpgradeWish
        /// The value of `Upgrade`, in the head, where `upgrade` is `.other`.
        package var upgradeRange: ByteRange
        /// Let the upstream answer `100 Continue`.
        package var expectsContinue: Bool
        /// Whoever asks reads trailers, and so do we (RFC 9110 §10.1.4).
        package var acceptsTrailers: Bool
        /// Tell the upstream that the connection ends after this.
        package var closes: Bool

        package init(
            body: BodyFraming, upgrade: UpgradeWish = .none, upgradeRange: ByteRange = .empty,
            expectsContinue: Bool = false, acceptsTrailers: Bool = false, closes: Bool = false
        ) {
            self.body = body
            self.upgrade = upgrade
            self.upgradeRange = upgradeRange
            self.expectsContinue = expectsContinue
            self.acceptsTrailers = acceptsTrailers
            self.closes = closes
        }
    }

    package struct ResponseOptions: Sendable {
        /// What follows on the client's connection.
        package var body: BodyFraming
        /// Said as Content-Length where nothing follows: to HEAD, in a 304.
        package var declaredLength: UInt64?
        /// The client's connection ends after this response.
        package var closes: Bool
        /// What the client speaks: HTTP/1.0 has to be told that its connection stays.
        package var clientVersion: HTTPVersion
        /// The value of `Upgrade` in a 101 or a 426, in the head; empty otherwise.
        package var upgradeRange: ByteRange

        package init(
            body: BodyFraming, declaredLength: UInt64? = nil, closes: Bool = false,
            clientVersion: HTTPVersion = .http11, upgradeRange: ByteRange = .empty
        ) {
            self.body = body
            self.declaredLength = declaredLength
            self.closes = closes
            self.clientVersion = clientVersion
            self.upgradeRange = upgradeRange
        }
    }

    /// Enough for every line that is added here to the fields of a head.
    static func room(for head: borrowing MessageHead, extra: Int) -> Int {
        head.bytes.count + 4 * head.fields.count + extra
    }

    // MARK: Requests

    /// Writes the head of a request to an HTTP/1.1 upstream: method, canonical path and query, the fields, then ours.
    ///
    /// - Parameters:
    ///   - forwarding: what to say of the client; nil says nothing.
    ///   - id: the request id, in the head; said where no `X-Request-ID` line is left. Empty says nothing.
    @_lifetime(output: copy output)
    package static func write(
        request head: borrowing MessageHead, _ options: RequestOptions,
        forwarding: ForwardingText?, isTrusted: Bool = false, id: ByteRange = .empty,
        to output: inout OutputRawSpan
    ) -> Outcome {
        var extra = 256
        if let forwarding {
            extra += forwarding.maxCount + 2 * Int(max(head.authorityRange.count, head.replacedAuthorityRange.count))
        }
        let need = room(for: head, extra: extra)
        guard output.freeCapacity >= need else { return .needsRoom(need) }
        let start = output.byteCount
        guard writeRequest(head, options, forwarding, isTrusted, id, &output) else {
            output.removeLast(output.byteCount - start)
            return .invalid
        }
        return .written
    }

    @_lifetime(output: copy output)
    private static func writeRequest(
        _ head: borrowing MessageHead, _ options: RequestOptions, _ forwarding: ForwardingText?,
        _ isTrusted: Bool, _ id: ByteRange, _ output: inout OutputRawSpan
    ) -> Bool {
        let bytes = head.bytes.span
        let method = head.methodRange.range
        let path = head.pathRange.range
        guard isWithin(method, bytes), isWithin(path, bytes), FieldGrammar.isToken(bytes.extracting(method)),
            !path.isEmpty, bytes.firstNotVisible(from: path.lowerBound, to: path.upperBound) == path.upperBound
        else { return false }
        output.append(bytes.extracting(method))
        output.append(0x20)
        output.append(bytes.extracting(path))
        if head.hasQuery {
            let query = head.queryRange.range
            guard isWithin(query, bytes),
                bytes.firstNotVisible(from: query.lowerBound, to: query.upperBound) == query.upperBound
            else { return false }
            output.append(0x3f)
            output.append(bytes.extracting(query))
        }
        output.append(" HTTP/1.1\r\n")

        let seen = writeFields(head, to: &output)
        guard seen.isValid else { return false }
        if !seen.contains(.host) {
            // Only HTTP/1.0 may leave it out; the upstream must get one (RFC 9112 §3.2).
            let authority = head.authorityRange.range
            guard isWithin(authority, bytes), FieldGrammar.isValue(bytes.extracting(authority)) else { return false }
            output.append("Host: ")
            output.append(bytes.extracting(authority))
            output.append("\r\n")
        }
        if let forwarding {
            guard forwarding.write(for: head, isTrusted: isTrusted, seen: seen, to: &output) else { return false }
        }
        if !id.isEmpty, !seen.contains(.xRequestID) {
            guard isWithin(id.range, bytes), FieldGrammar.isValue(bytes.extracting(id.range)) else { return false }
            output.append("X-Request-ID: ")
            output.append(bytes.extracting(id.range))
            output.append("\r\n")
        }
        writeFraming(options.body, to: &output)
        if options.expectsContinue { output.append("Expect: 100-continue\r\n") }
        switch options.upgrade {
        case .none:
            if options.acceptsTrailers { output.append("TE: trailers\r\n") }
            switch (options.acceptsTrailers, options.closes) {
            case (false, false): break
            case (false, true): output.append("Connection: close\r\n")
            case (true, false): output.append("Connection: TE\r\n")
            case (true, true): output.append("Connection: TE, close\r\n")
            }
        case .webSocket: output.append("Connection: Upgrade\r\nUpgrade: websocket\r\n")
        case .other:
            guard writeUpgrade(bytes, options.upgradeRange, to: &output) else { return false }
        }
        output.append("\r\n")
        return true
    }

    // MARK: Responses

    /// `HTTP/1.1 100 Continue`.
    package static let continueHead: StaticString = "HTTP/1.1 100 Continue\r\n\r\n"

    /// Writes the head of a response to an HTTP/1 client.
    ///
    /// - Parameter date: the value of `Date`, said where the head has none (RFC 9110 §6.6.1); empty says nothing.
    @_lifetime(output: copy output)
    package static func write(
        response head: borrowing MessageHead, _ options: ResponseOptions, date: borrowing [UInt8],
        to output: inout OutputRawSpan
    ) -> Outcome {
        let need = room(for: head, extra: 256 + date.count)
        guard output.freeCapacity >= need else { return .needsRoom(need) }
        let start = output.byteCount
        guard writeResponse(head, options, date, &output) else {
            output.removeLast(output.byteCount - start)
            return .invalid
        }
        return .written
    }

    @_lifetime(output: copy output)
    private static func writeResponse(
        _ head: borrowing MessageHead, _ options: ResponseOptions, _ date: borrowing [UInt8],
        _ output: inout OutputRawSpan
    ) -> Bool {
        let bytes = head.bytes.span
        let status = Int(head.status)
        guard status >= 100, status <= 999 else { return false }
        output.append("HTTP/1.1 ")
        output.append(48 + UInt8(truncatingIfNeeded: status / 100))
        output.append(48 + UInt8(truncatingIfNeeded: status / 10 % 10))
        output.append(48 + UInt8(truncatingIfNeeded: status % 10))
        output.append(0x20)
        let reason = head.reasonRange.range
        if reason.isEmpty {
            output.append(StatusText.of(head.status))
        } else {
            guard isWithin(reason, bytes),
                bytes.firstControl(from: reason.lowerBound, to: reason.upperBound) == reason.upperBound
            else { return false }
            output.append(bytes.extracting(reason))
        }
        output.append("\r\n")
        let seen = writeFields(head, to: &output)
        guard seen.isValid else { return false }
        if status >= 200, !date.isEmpty, !seen.contains(.date) {
            guard FieldGrammar.isValue(date.span) else { return false }
            output.append("Date: ")
            output.append(date.span)
            output.append("\r\n")
        }
        // RFC 9110 §8.6, RFC 9112 §6.1: neither 1xx nor 204 says where a body ends.
        if status >= 200, status != 204 {
            if let length = options.declaredLength, options.body == .none {
                writeFraming(.length(length), to: &output)
            } else if status != 304 {
                writeFraming(options.body, to: &output)
            }
        }
        if !options.upgradeRange.isEmpty {
            guard writeUpgrade(bytes, options.upgradeRange, to: &output) else { return false }
        }
        if status >= 200 {
            if options.closes {
                output.append("Connection: close\r\n")
            } else if options.clientVersion == .http10 {
                output.append("Connection: keep-alive\r\n")
            }
        }
        output.append("\r\n")
        return true
    }

    // MARK: Parts

    /// Which of the names that we might add were written already.
    struct Seen {
        var bits: UInt64 = 0
        var isValid = true

        @inline(__always)
        mutating func insert(_ name: FieldName) { bits |= 1 &<< UInt64(name.rawValue) }
        @inline(__always)
        func contains(_ name: FieldName) -> Bool { bits &>> UInt64(name.rawValue) & 1 == 1 }
    }

    /// Writes every field that may pass. Lines that stand in the arena as they came, one after the other, are copied
    /// whole; a line of ours is put together.
    @_lifetime(output: copy output)
    static func writeFields(_ head: borrowing MessageHead, to output: inout OutputRawSpan) -> Seen {
        let bytes = head.bytes.span
        let fields = head.fields.span
        var seen = Seen()
        // The run that has been recognised and not written yet.
        var runStart = 0
        var runEnd = 0
        var runLines = 0
        for i in 0..<fields.count {
            let field = fields[i]
            guard field.flags.isDisjoint(with: [.removed, .hopByHop]), !field.name.isHopByHop,
                field.name != .contentLength
            else { continue }
            seen.insert(field.name)
            if !field.flags.contains(.ours) {
                let start = Int(field.nameOffset)
                let end = lineEnd(field, bytes)
                if end > 0 {
                    if start == runEnd {
                        runEnd = end
                        runLines += 1
                    } else {
                        guard flush(runStart..<runEnd, runLines, bytes, &output) else { return invalid(seen) }
                        runStart = start
                        runEnd = end
                        runLines = 1
                    }
                    continue
                }
            }
            guard flush(runStart..<runEnd, runLines, bytes, &output) else { return invalid(seen) }
            runStart = 0
            runEnd = 0
            runLines = 0
            guard isWithin(field.nameRange, bytes), isWithin(field.valueRange, bytes),
                FieldGrammar.isToken(bytes.extracting(field.nameRange)),
                bytes.firstControl(from: field.valueRange.lowerBound, to: field.valueRange.upperBound)
                    == field.valueRange.upperBound
            else { return invalid(seen) }
            output.append(bytes.extracting(field.nameRange))
            output.append(": ")
            output.append(bytes.extracting(field.valueRange))
            output.append("\r\n")
        }
        guard flush(runStart..<runEnd, runLines, bytes, &output) else { return invalid(seen) }
        return seen
    }

    private static func invalid(_ seen: Seen) -> Seen {
        var seen = seen
        seen.isValid = false
        return seen
    }

    /// The end of the line that a field record points into, behind its CRLF; 0 when the record does not lie in such a
    /// line (an edited value stands elsewhere).
    @inline(__always)
    private static func lineEnd(_ field: FieldRecord, _ bytes: Span<UInt8>) -> Int {
        let nameEnd = Int(field.nameOffset) + Int(field.nameCount)
        var end = Int(field.valueOffset) + Int(field.valueCount)
        guard nameEnd < Int(field.valueOffset) || field.valueCount == 0 && nameEnd < end, bytes.count > end + 1,
            bytes[nameEnd] == 0x3a
        else { return 0 }
        while bytes[end] == 0x20 || bytes[end] == 0x09 {
            end += 1
            guard bytes.count > end + 1 else { return 0 }
        }
        return bytes[end] == 0x0d && bytes[end + 1] == 0x0a ? end + 2 : 0
    }

    /// Copies a run of lines. Each of its lines was seen to end in CRLF; if it holds no other control byte than these,
    /// it holds no line that is not one of the fields.
    @inline(__always)
    @_lifetime(output: copy output)
    private static func flush(
        _ run: Range<Int>, _ lines: Int, _ bytes: Span<UInt8>, _ output: inout OutputRawSpan
    ) -> Bool {
        guard lines > 0 else { return true }
        guard bytes.countControls(from: run.lowerBound, to: run.upperBound) == 2 * lines else { return false }
        output.append(bytes.extracting(run))
        return true
    }

    @_lifetime(output: copy output)
    private static func writeUpgrade(
        _ bytes: Span<UInt8>, _ range: ByteRange, to output: inout OutputRawSpan
    ) -> Bool {
        guard isWithin(range.range, bytes), !range.isEmpty, FieldGrammar.isValue(bytes.extracting(range.range)) else {
            return false
        }
        output.append("Connection: Upgrade\r\nUpgrade: ")
        output.append(bytes.extracting(range.range))
        output.append("\r\n")
        return true
    }

    @_lifetime(output: copy output)
    private static func writeFraming(_ body: BodyFraming, to output: inout OutputRawSpan) {
        switch body {
        case .none, .untilClose: break
        case .chunked: output.append("Transfer-Encoding: chunked\r\n")
        case .length(let n):
            output.append("Content-Length: ")
            writeDecimal(n, to: &output)
            output.append("\r\n")
        }
    }

    @_lifetime(output: copy output)
    static func writeDecimal(_ n: UInt64, to output: inout OutputRawSpan) {
        var scale: UInt64 = 1
        while n / scale >= 10 { scale *= 10 }
        while scale > 0 {
            output.append(48 + UInt8(truncatingIfNeeded: n / scale % 10))
            scale /= 10
        }
    }

    @inline(__always)
    private static func isWithin(_ range: Range<Int>, _ bytes: Span<UInt8>) -> Bool {
        range.upperBound <= bytes.count
    }
}

/// Reason phrases (RFC 9110 §15), for responses that come without one.
package enum StatusText {
    package static func of(_ status: UInt16) -> StaticString {
        switch status {
        case 100: "Continue"
        case 101: "Switching Protocols"
        case 103: "Early Hints"
        case 200: "OK"
        case 201: "Created"
        case 202: "Accepted"
        case 203: "Non-Authoritative Information"
        case 204: "No Content"
        case 205: "Reset Content"
        case 206: "Partial Content"
        case 300: "Multiple Choices"
        case 301: "Moved Permanently"
        case 302: "Found"
        case 303: "See Other"
        case 304: "Not Modified"
        case 307: "Temporary Redirect"
        case 308: "Permanent Redirect"
        case 400: "Bad Request"
        case 401: "Unauthorized"
        case 402: "Payment Required"
        case 403: "Forbidden"
        case 404: "Not Found"
        case 405: "Method Not Allowed"
        case 406: "Not Acceptable"
        case 407: "Proxy Authentication Required"
        case 408: "Request Timeout"
        case 409: "Conflict"
        case 410: "Gone"
        case 411: "Length Required"
        case 412: "Precondition Failed"
        case 413: "Content Too Large"
        case 414: "URI Too Long"
        case 415: "Unsupported Media Type"
        case 416: "Range Not Satisfiable"
        case 417: "Expectation Failed"
        case 418: "I'm a teapot"
        case 421: "Misdirected Request"
        case 422: "Unprocessable Content"
        case 423: "Locked"
        case 425: "Too Early"
        case 426: "Upgrade Required"
        case 428: "Precondition Required"
        case 429: "Too Many Requests"
        case 431: "Request Header Fields Too Large"
        case 451: "Unavailable For Legal Reasons"
        case 500: "Internal Server Error"
        case 501: "Not Implemented"
        case 502: "Bad Gateway"
        case 503: "Service Unavailable"
        case 504: "Gateway Timeout"
        case 505: "HTTP Version Not Supported"
        default: ""
        }
    }
}
