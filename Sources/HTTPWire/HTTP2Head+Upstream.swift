// The far side of the same seam: a request's head becomes the field list of an upstream that speaks HTTP/2, and the
// header block of its response becomes the head that every later step reads.

package import Model

extension HTTP2Head {
    /// Fills `list` with the fields of a request. `head` is the request as `HeadWriter` has written it for HTTP/1.1: so
    /// there is one place that decides what goes to an upstream, and one wall behind which no byte is trusted. What
    /// speaks of an HTTP/1.1 connection is left out (RFC 9113 §8.2.2); `Host` becomes `:authority` (§8.3.1).
    ///
    /// - Parameter scheme: `http` or `https`, as the connection is made.
    /// - Returns: false if it is no such head.
    package static func list(
        request head: Span<UInt8>, scheme: StaticString, into list: inout MessageHead
    ) -> Bool {
        list.removeAll()
        let methodEnd = head.firstIndex(of: 0x20, from: 0, to: head.count)
        guard methodEnd > 0, methodEnd < head.count else { return false }
        let targetEnd = head.firstIndex(of: 0x20, from: methodEnd + 1, to: head.count)
        var start = endOfLine(head, from: methodEnd)
        guard targetEnd > methodEnd + 1, start > targetEnd else { return false }
        append(":method", head.extracting(0..<methodEnd), to: &list)
        let schemeStart = list.bytes.count
        list.bytes.append(":scheme")
        let schemeValue = list.bytes.count
        list.bytes.append(scheme)
        list.fields.append(
            FieldRecord(
                name: .other, nameRange: ByteRange(offset: schemeStart, count: schemeValue - schemeStart),
                valueRange: ByteRange(offset: schemeValue, count: list.bytes.count - schemeValue)))
        append(":path", head.extracting(methodEnd + 1..<targetEnd), to: &list)
        var hasAuthority = false
        while true {
            let end = endOfLine(head, from: start)
            guard end > start else { return false }
            if end == start + 2 { return true }
            let colon = head.firstIndex(of: 0x3a, from: start, to: end)
            guard colon > start, colon < end else { return false }
            let name = head.extracting(start..<colon)
            let value = MessageHead.trimmed(head.extracting(colon + 1..<end - 2))
            start = end
            let known = FieldName(name)
            switch known {
            case .connection, .keepAlive, .proxyConnection, .transferEncoding, .upgrade, .http2Settings: continue
            case .host:
                guard !hasAuthority else { return false }
                hasAuthority = true
                guard !value.isEmpty else { continue }
                append(":authority", value, to: &list)
                // The pseudo-fields stand before all others (RFC 9113 §8.3).
                if let authority = list.fields.popLast() { list.fields.insert(authority, at: 3) }
            default:
                let nameStart = list.bytes.count
                for i in 0..<name.count { list.bytes.append(MessageHead.lower(name[i])) }
                list.fields.append(
                    FieldRecord(
                        name: known, nameRange: ByteRange(offset: nameStart, count: name.count),
                        valueRange: list.store(value)))
            }
        }
    }

    /// The index behind the next CRLF; 0 if there is none.
    private static func endOfLine(_ bytes: Span<UInt8>, from start: Int) -> Int {
        let end = bytes.firstIndex(of: 0x0d, from: start, to: bytes.count)
        return end + 1 < bytes.count && bytes[end + 1] == 0x0a ? end + 2 : 0
    }

    /// Makes a response's head of a header block: `head` holds its fields as lines, `:status` first. False for what may
    /// not pass: a status that is none, another pseudo-field, upper-case names, control bytes, fields of the connection
    /// (RFC 9113 §8.2, §8.3.2), or more than the limits allow.
    package static func complete(response head: inout MessageHead, limits: HeadLimits) -> Bool {
        head.version = .http2
        guard let first = head.fields.first, head.bytes.span.extracting(first.nameRange).equals(":status"),
            first.valueCount == 3
        else { return false }
        var status: UInt16 = 0
        for i in first.valueRange {
            let digit = head.bytes[i] &- 48
            guard digit < 10 else { return false }
            status = status &* 10 &+ UInt16(digit)
        }
        guard status >= 100 else { return false }
        head.status = status
        head.fields.removeFirst()
        guard head.fields.count <= limits.fieldCount else { return false }
        for field in head.fields {
            guard isAcceptable(head, field, limits) else { return false }
            switch field.name {
            case .connection, .keepAlive, .proxyConnection, .transferEncoding, .upgrade, .http2Settings: return false
            default: break
            }
        }
        return true
    }

    /// The same for the trailers of a response. An upstream's names may hold `_`: gRPC's metadata does.
    ///
    /// - Parameter ofCall: they are such metadata (see `Trailers`).
    package static func complete(
        responseTrailers head: inout MessageHead, limits: HeadLimits, ofCall: Bool = false
    ) -> Bool {
        head.version = .http2
        for field in head.fields where !isAcceptable(head, field, limits) { return false }
        return Trailers.check(&head, ofCall: ofCall)
    }

    private static func isAcceptable(
        _ head: borrowing MessageHead, _ field: FieldRecord, _ limits: HeadLimits
    ) -> Bool {
        Int(field.nameCount) + Int(field.valueCount) <= limits.lineBytes
            && isLowercaseToken(head.bytes.span.extracting(field.nameRange))
            && FieldGrammar.isValue(head.bytes.span.extracting(field.valueRange))
    }
}
