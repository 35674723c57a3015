// Where HTTP/2 and HTTP/1.1 meet: the fields of a header block become the head that every later step reads, and the
// head of a response becomes a list of fields again (RFC 9113 §8). Nothing behind this knows the version.

package import Model

package enum HTTP2Head {
    /// Makes a request's head of a header block: `head` holds its fields as lines, pseudo-fields first and each at most
    /// once, as an HTTP/2 session leaves it. The pseudo-fields become method, target and authority, a Host line stands
    /// in for `:authority`, the crumbs of a cookie are joined (§8.2.3).
    ///
    /// Refuses what a request to an HTTP/1.1 upstream may not hold, whatever the session has let through: CR, LF, NUL and
    /// other control bytes, upper-case names, fields of the connection (§8.2.2), a target that is neither a path nor `*`.
    ///
    /// A CONNECT that asks for a WebSocket (RFC 8441) becomes the handshake of HTTP/1.1 (RFC 6455 §4.1): GET, with the
    /// lines that a client of HTTP/1.1 would have sent. So every later step sees one kind of WebSocket.
    ///
    /// - Parameter nonce: 128 bits for the key of such a handshake; asked for only where one is made.
    package static func complete(
        _ head: inout MessageHead, limits: HeadLimits, nonce: () -> (UInt64, UInt64) = { (0, 0) }
    ) -> Refusal? {
        do throws(Refusal) {
            if try readRequest(&head, limits) { makeHandshake(&head, nonce()) }
            return nil
        } catch {
            return error
        }
    }

    /// True for a CONNECT that asks for a WebSocket.
    private static func readRequest(_ head: inout MessageHead, _ limits: HeadLimits) throws(Refusal) -> Bool {
        head.version = .http2
        var pseudo = 0
        var connectProtocol: ByteRange?
        var scheme = ByteRange.empty
        while pseudo < head.fields.count {
            let field = head.fields[pseudo]
            guard let kind = PseudoField(head.bytes.span.extracting(field.nameRange)) else { break }
            let value = ByteRange(offset: Int(field.valueOffset), count: Int(field.valueCount))
            switch kind {
            case .method:
                guard value.count <= 32, FieldGrammar.isToken(head.bytes.span.extracting(value.range)) else {
                    throw .malformed(.http2Field)
                }
                let method = Method(head.bytes.span.extracting(value.range))
                head.methodRange = value
                head.method = method
            case .path:
                guard Int(value.count) <= limits.targetBytes else { throw Refusal(414, .targetTooLong) }
                try checkTarget(head, value.range)
                head.targetRange = value
            case .authority: head.authorityRange = value
            // What the connection is, it is: a scheme changes nothing.
            case .scheme: scheme = value
            case .connectProtocol: connectProtocol = value
            case .other: throw .malformed(.http2Field)
            }
            pseudo += 1
        }
        if let connectProtocol {
            guard head.method == .connect, !head.targetRange.isEmpty else { throw .malformed(.http2Field) }
            // Of no other protocol the proxy knows what its tunnel would carry (RFC 9220 §3).
            guard head.bytes.span.extracting(connectProtocol.range).equalsIgnoringCase("websocket") else {
                throw Refusal(501, .methodNotAllowed)
            }
        }
        head.fields.removeFirst(pseudo)
        if head.fields.count > limits.fieldCount {
            // The crumbs of a cookie are one field, as over HTTP/1.1.
            let crumbs = head.fields.count { $0.name == .cookie }
            guard head.fields.count - max(0, crumbs - 1) <= limits.fieldCount else {
                throw Refusal(431, .tooManyFields)
            }
        }
        var cookie = -1
        var crumbs = 0
        var host = -1
        for i in head.fields.indices {
            let field = head.fields[i]
            guard Int(field.nameCount) + Int(field.valueCount) <= limits.lineBytes else {
                throw Refusal(431, .headTooLarge)
            }
            guard isLowercaseToken(head.bytes.span.extracting(field.nameRange)),
                FieldGrammar.isValue(head.bytes.span.extracting(field.valueRange))
            else {
                throw .malformed(.http2Field)
            }
            if hasUnderscore(head, field) { head.fields[i].flags.insert(.hasUnderscore) }
            switch field.name {
            case .connection, .keepAlive, .proxyConnection, .transferEncoding, .upgrade, .http2Settings:
                throw .malformed(.http2Field)
            case .te:
                guard head.bytes.span.extracting(field.valueRange).equalsIgnoringCase("trailers") else {
                    throw .malformed(.http2Field)
                }
            case .cookie:
                if cookie < 0 { cookie = i }
                crumbs += 1
            case .host: host = i
            default: break
            }
        }
        if crumbs > 1 {
            joinCookies(&head, from: cookie)
            // Joined they are one line, which the upstream has to read.
            let line = head.fields[cookie]
            guard Int(line.nameCount) + Int(line.valueCount) <= limits.lineBytes else {
                throw Refusal(431, .headTooLarge)
            }
        }
        if head.authorityRange.isEmpty { return connectProtocol != nil }
        if host < 0 {
            head.fields.append(
                FieldRecord(name: .host, nameRange: head.store("host".utf8), valueRange: head.authorityRange))
        } else if saysAuthority(head, head.fields[host], scheme) {
            var field = head.fields[host]
            field.valueOffset = head.authorityRange.offset
            field.valueCount = head.authorityRange.count
            head.fields[host] = field
        }
        return connectProtocol != nil
    }

    /// `Host` says what `:authority` does, one of them with the port of the scheme and the other without (RFC 9113 §8.3.1).
    private static func saysAuthority(
        _ head: borrowing MessageHead, _ field: FieldRecord, _ scheme: ByteRange
    ) -> Bool {
        if field.valueCount == head.authorityRange.count { return false }
        let name = head.bytes.span.extracting(scheme.range)
        let port: UInt16? = name.equalsIgnoringCase("https") ? 443 : name.equalsIgnoringCase("http") ? 80 : nil
        let value = ByteRange(offset: Int(field.valueOffset), count: Int(field.valueCount))
        return RequestAdmission.areOne(head.authorityRange, value, schemePort: port, head)
    }

    private static func makeHandshake(_ head: inout MessageHead, _ nonce: (UInt64, UInt64)) {
        head.methodRange = head.store("GET".utf8)
        head.method = .get
        // Over HTTP/2 a key of the client's proves nothing (RFC 8441 §5).
        head.fields.removeAll { $0.name == .secWebSocketKey }
        var bytes: [UInt8] = []
        for word in [nonce.0, nonce.1] {
            for shift in stride(from: UInt64(0), to: 64, by: 8) {
                bytes.append(UInt8(truncatingIfNeeded: word >> shift))
            }
        }
        let lines: [(FieldName, String, [UInt8])] = [
            (.connection, "connection", Array("upgrade".utf8)), (.upgrade, "upgrade", Array("websocket".utf8)),
            (.secWebSocketKey, "sec-websocket-key", WebSocketKey.base64(bytes)),
        ]
        for (name, text, value) in lines {
            let nameRange = head.store(text.utf8)
            head.fields.append(
                FieldRecord(name: name, nameRange: nameRange, valueRange: head.store(value), flags: .ours))
        }
    }

    private enum PseudoField {
        case method
        case path
        case authority
        case scheme
        /// `:protocol` of an extended CONNECT (RFC 8441 §4).
        case connectProtocol
        case other

        init?(_ name: Span<UInt8>) {
            guard !name.isEmpty, name[0] == 0x3a else { return nil }
            if name.equals(":method") {
                self = .method
            } else if name.equals(":path") {
                self = .path
            } else if name.equals(":authority") {
                self = .authority
            } else if name.equals(":scheme") {
                self = .scheme
            } else if name.equals(":protocol") {
                self = .connectProtocol
            } else {
                self = .other
            }
        }
    }

    static func isLowercaseToken(_ name: Span<UInt8>) -> Bool {
        for i in 0..<name.count where !ByteSet.token.contains(name[i]) || name[i] &- 65 < 26 { return false }
        return !name.isEmpty
    }

    private static func hasUnderscore(_ head: borrowing MessageHead, _ field: FieldRecord) -> Bool {
        for i in field.nameRange where head.bytes[i] == 0x5f { return true }
        return false
    }

    private static func checkTarget(_ head: borrowing MessageHead, _ range: Range<Int>) throws(Refusal) {
        let bytes = head.bytes.span
        guard !range.isEmpty, bytes[range.lowerBound] == 0x2f || range.count == 1 && bytes[range.lowerBound] == 0x2a,
            bytes.firstNotVisible(from: range.lowerBound, to: range.upperBound) == range.upperBound
        else { throw .malformed(.target) }
    }

    private static func joinCookies(_ head: inout MessageHead, from first: Int) {
        let start = head.bytes.count
        var index: Int? = first
        while let i = index {
            if i != first {
                head.bytes.append(0x3b)
                head.bytes.append(0x20)
                head.remove(at: i)
            }
            // Its own arena is what is read here: taken byte by byte, for it may move as it grows.
            for j in head.fields[i].valueRange { head.bytes.append(head.bytes[j]) }
            index = head.firstIndex(of: .cookie, from: i + 1)
        }
        // There may be many, and later steps look through all fields.
        head.fields.removeAll { $0.isRemoved }
        head.fields[first].valueOffset = UInt32(truncatingIfNeeded: start)
        head.fields[first].valueCount = UInt32(truncatingIfNeeded: head.bytes.count - start)
    }

    /// Makes the trailers of a request of a header block; false if they may not stand there.
    package static func complete(trailers head: inout MessageHead, limits: HeadLimits) -> Bool {
        head.version = .http2
        guard head.fields.count <= limits.fieldCount else { return false }
        for i in head.fields.indices {
            let field = head.fields[i]
            guard Int(field.nameCount) + Int(field.valueCount) <= limits.lineBytes,
                isLowercaseToken(head.bytes.span.extracting(field.nameRange)),
                FieldGrammar.isValue(head.bytes.span.extracting(field.valueRange))
            else { return false }
            if hasUnderscore(head, field) { head.fields[i].flags.insert(.hasUnderscore) }
        }
        return Trailers.check(&head)
    }

    // MARK: Out

    /// Fills `list` with the fields of a response, `:status` first: names in lower case, without those of the connection.
    ///
    /// - Parameter date: the value of `date`, said where the head has none (RFC 9110 §6.6.1); empty says nothing.
    /// The 101 that opens a WebSocket (`options.upgradeRange`) is a 200 here, and says nothing of the key (RFC 8441 §5).
    ///
    /// - Returns: false if the head holds what may not stand in one.
    package static func list(
        response head: borrowing MessageHead, _ options: HeadWriter.ResponseOptions, date: borrowing [UInt8],
        into list: inout MessageHead
    ) -> Bool {
        list.removeAll()
        // 101 does not exist here (RFC 9113 §8.6).
        let opensTunnel = !options.upgradeRange.isEmpty
        guard (head.status == 101) == opensTunnel else { return false }
        let status = opensTunnel ? 200 : Int(head.status)
        guard status >= 100, status <= 999 else { return false }
        var digits = InlineArray<3, UInt8>(repeating: 48)
        digits[0] &+= UInt8(truncatingIfNeeded: status / 100)
        digits[1] &+= UInt8(truncatingIfNeeded: status / 10 % 10)
        digits[2] &+= UInt8(truncatingIfNeeded: status % 10)
        append(":status", digits.span, to: &list)
        guard let hasDate = appendFields(of: head, to: &list, isHandshake: opensTunnel) else { return false }
        if status >= 200, !date.isEmpty, !hasDate {
            guard FieldGrammar.isValue(date.span) else { return false }
            append("date", date.span, to: &list)
        }
        if status >= 200, status != 204 {
            if let length = options.declaredLength, options.body == .none {
                appendLength(length, to: &list)
            } else if status != 304, case .length(let length) = options.body {
                appendLength(length, to: &list)
            }
        }
        return true
    }

    /// Fills `list` with the fields of a trailer section; false if it holds what may not stand in one.
    package static func list(trailers head: borrowing MessageHead, into list: inout MessageHead) -> Bool {
        list.removeAll()
        return appendFields(of: head, to: &list) != nil
    }

    /// Whether one of them was a date; nil if one may not be sent.
    private static func appendFields(
        of head: borrowing MessageHead, to list: inout MessageHead, isHandshake: Bool = false
    ) -> Bool? {
        let bytes = head.bytes.span
        let fields = head.fields.span
        var hasDate = false
        for i in 0..<fields.count {
            let field = fields[i]
            guard field.flags.isDisjoint(with: [.removed, .hopByHop]), !field.name.isHopByHop,
                field.name != .contentLength, !isHandshake || field.name != .secWebSocketAccept
            else { continue }
            guard field.nameRange.upperBound <= bytes.count, field.valueRange.upperBound <= bytes.count,
                FieldGrammar.isToken(bytes.extracting(field.nameRange)),
                FieldGrammar.isValue(bytes.extracting(field.valueRange))
            else { return nil }
            if field.name == .date { hasDate = true }
            let name = list.bytes.count
            for j in field.nameRange { list.bytes.append(MessageHead.lower(bytes[j])) }
            let value = list.store(MessageHead.trimmed(bytes.extracting(field.valueRange)))
            list.fields.append(
                FieldRecord(
                    name: field.name, nameRange: ByteRange(offset: name, count: field.nameRange.count),
                    valueRange: value))
        }
        return hasDate
    }

    static func append(_ name: StaticString, _ value: Span<UInt8>, to list: inout MessageHead) {
        let start = list.bytes.count
        list.bytes.append(name)
        let nameRange = ByteRange(offset: start, count: list.bytes.count - start)
        list.fields.append(FieldRecord(name: .other, nameRange: nameRange, valueRange: list.store(value)))
    }

    private static func appendLength(_ length: UInt64, to list: inout MessageHead) {
        let start = list.bytes.count
        list.bytes.append("content-length")
        let nameRange = ByteRange(offset: start, count: list.bytes.count - start)
        let valueStart = list.bytes.count
        var scale: UInt64 = 1
        while length / scale >= 10 { scale *= 10 }
        while scale > 0 {
            list.bytes.append(48 + UInt8(truncatingIfNeeded: length / scale % 10))
            scale /= 10
        }
        list.fields.append(
            FieldRecord(
                name: .contentLength, nameRange: nameRange,
                valueRange: ByteRange(offset: valueStart, count: list.bytes.count - valueStart)))
    }
}
