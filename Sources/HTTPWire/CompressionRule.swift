// Whether a response may be compressed on its way to the client, and what its head says then. A head is judged once, after
// all scripts: what they made of it is what counts.
//
// Compression before encryption lets an attacker who can put words of his own into a page read its secrets from the size
// of what comes back (BREACH, CVE-2013-3587). So a response that belongs to somebody - its request had credentials, or it
// sets a cookie - is left alone unless asked for, whatever the scheme: TLS may end before us without our knowing.

package import Model

/// The media types that are worth it.
package struct MediaTypes: Sendable, Hashable {
    /// Lower case; `type/*`, `*+suffix` and `*` stand for many.
    private var exact: [[UInt8]] = []
    private var types: [[UInt8]] = []
    private var suffixes: [[UInt8]] = []
    private var isAll = false

    package init() {}

    /// Nil where one of them is no media type and no pattern.
    package init?(_ names: [String]) {
        for name in names {
            let text = Array(name.lowercased().utf8)
            if text == [0x2a] {
                isAll = true
            } else if text.count > 2, text[0] == 0x2a, text[1] == 0x2b, text.dropFirst(2).allSatisfy(Self.isToken) {
                suffixes.append(Array(text.dropFirst()))
            } else {
                let sides = text.split(separator: 0x2f, omittingEmptySubsequences: false)
                guard sides.count == 2, !sides[0].isEmpty, sides[0].allSatisfy(Self.isToken) else { return nil }
                if sides[1].elementsEqual([0x2a]) {
                    types.append(Array(text.dropLast()))
                } else {
                    guard !sides[1].isEmpty, sides[1].allSatisfy(Self.isToken) else { return nil }
                    exact.append(text)
                }
            }
        }
    }

    private static func isToken(_ byte: UInt8) -> Bool { byte != 0x2a && ByteSet.token.contains(byte) }

    /// Text, and what is text by another name. Images, sound, archives and fonts of our time are compressed already.
    package static let standardNames: [String] = [
        "text/html", "text/plain", "text/css", "text/csv", "text/xml", "text/javascript", "text/markdown",
        "text/calendar", "text/vcard", "text/yaml", "application/json", "application/javascript",
        "application/x-javascript", "application/xml", "application/yaml", "application/wasm", "application/x-ndjson",
        "application/manifest+json", "application/vnd.ms-fontobject", "image/svg+xml", "image/x-icon",
        "image/vnd.microsoft.icon", "image/bmp", "font/ttf", "font/otf", "*+json", "*+xml",
    ]

    /// Whether the value of a Content-Type is among them, parameters aside. Streams of events are meant only by their own
    /// name: each holds an encoder for as long as it lasts. So are calls of gRPC, which compress what is worth it themselves.
    package func contains(_ value: Span<UInt8>) -> Bool {
        let type = MessageHead.trimmed(value.extracting(0..<value.firstIndex(of: 0x3b, from: 0, to: value.count)))
        for name in exact where name.count == type.count && Self.hasPrefix(type, name) { return true }
        guard type.count > 2, !type.equalsIgnoringCase("text/event-stream"), !Self.isCall(type) else { return false }
        if isAll { return true }
        for name in types where name.count < type.count && Self.hasPrefix(type, name) { return true }
        for name in suffixes where name.count < type.count {
            if Self.hasPrefix(type.extracting((type.count - name.count)..<type.count), name) { return true }
        }
        return false
    }

    /// `application/grpc`, or one of its dialects.
    private static func isCall(_ type: Span<UInt8>) -> Bool {
        guard type.count >= 16, type.extracting(0..<16).equalsIgnoringCase("application/grpc") else { return false }
        return type.count == 16 || type[16] == 0x2b || type[16] == 0x2d
    }

    private static func hasPrefix(_ text: Span<UInt8>, _ lower: [UInt8]) -> Bool {
        for i in lower.indices where MessageHead.lower(text[i]) != lower[i] { return false }
        return true
    }
}

package enum CompressionRule {
    package enum Verdict: Sendable, Hashable {
        /// The response is none that is compressed, for whomever.
        case untouched
        /// It goes out as it is to this client; to another one it might not.
        case varies
        case compress(ContentCoding)
    }

    /// What an operator sets for all.
    package struct Limits: Sendable, Hashable {
        /// Shorter bodies, where their length is known, are not worth it.
        package var minLength: UInt64 = 1024
        package var types = MediaTypes(MediaTypes.standardNames) ?? MediaTypes()

        package init() {}
    }

    /// Judges a response whose head is about to be written.
    ///
    /// - Parameters:
    ///   - body: what follows the head, as the upstream sends it.
    ///   - coversSecrets: also compresses what belongs to somebody.
    ///   - isAuthenticated: the client has shown a certificate: browsers send it of their own accord, as they do cookies.
    package static func judge(
        request: borrowing MessageHead, response: borrowing MessageHead, body: BodyFraming, accepted: AcceptEncoding,
        codings: CodingList, coversSecrets: Bool, isAuthenticated: Bool = false, limits: borrowing Limits
    ) -> Verdict {
        // HTTP/1.0 could not tell the end of such a body from a cut; 204 and 304 have none.
        let isHead = body.isEmpty && request.method == .head && response.status != 204 && response.status != 304
        guard !codings.isEmpty, !body.isEmpty || isHead, request.version != .http10, response.status >= 200,
            response.status != 206
        else { return .untouched }
        let facts = look(response, limits)
        guard facts.isCompressible else { return .untouched }
        let wish = look(request)
        // What a GET without such a wish gets may be compressed: caches must know (RFC 9110 §9.3.2, §12.5.5).
        guard !wish.isUntouchable, !isHead else { return .varies }
        // Who refuses it as it is gets a short one compressed: caches must know.
        if case .length(let length) = body, length < limits.minLength, !accepted.refusesIdentity { return .varies }
        if !coversSecrets, facts.isSecret || wish.isSecret || isAuthenticated { return .varies }
        return accepted.choose(from: codings).map { .compress($0) } ?? .varies
    }

    private struct ResponseFindings {
        var hasType = false
        var isCompressible = true
        var isSecret = false
    }

    private static func look(_ head: borrowing MessageHead, _ limits: borrowing Limits) -> ResponseFindings {
        let bytes = head.bytes.span
        let fields = head.fields.span
        var found = ResponseFindings()
        for i in fields.indices {
            let field = fields[i]
            guard !field.isRemoved else { continue }
            switch field.name {
            case .contentType:
                guard !found.hasType, limits.types.contains(bytes.extracting(field.valueRange)) else {
                    found.isCompressible = false
                    return found
                }
                found.hasType = true
            case .setCookie: found.isSecret = true
            case .other:
                let name = bytes.extracting(field.nameRange)
                let spoils =
                    switch name.count {
                    case 6: name.equalsIgnoringCase("digest")
                    case 11: name.equalsIgnoringCase("content-md5") || name.equalsIgnoringCase("repr-digest")
                    case 13:
                        name.equalsIgnoringCase("cache-control")
                            && forbidsTransforming(bytes.extracting(field.valueRange))
                            || name.equalsIgnoringCase("content-range")
                    case 14: name.equalsIgnoringCase("content-digest")
                    case 16: name.equalsIgnoringCase("content-encoding")
                    default: false
                    }
                if spoils {
                    found.isCompressible = false
                    return found
                }
            default: break
            }
        }
        found.isCompressible = found.hasType
        return found
    }

    private static func look(_ head: borrowing MessageHead) -> (isUntouchable: Bool, isSecret: Bool) {
        let bytes = head.bytes.span
        let fields = head.fields.span
        var isSecret = false
        for i in fields.indices {
            let field = fields[i]
            guard !field.isRemoved else { continue }
            switch field.name {
            case .cookie, .authorization, .proxyAuthorization: isSecret = true
            case .other:
                let name = bytes.extracting(field.nameRange)
                // A part was asked for: if it is not what came, the client may still lay it beside other parts.
                if name.count == 5, name.equalsIgnoringCase("range") { return (true, isSecret) }
                if name.count == 13, name.equalsIgnoringCase("cache-control"),
                    forbidsTransforming(bytes.extracting(field.valueRange))
                {
                    return (true, isSecret)
                }
            default: break
            }
        }
        return (false, isSecret)
    }

    /// RFC 9111 §5.2.1.6 and §5.2.2.6. A quoted argument may hold commas: what is found in one too many is left alone.
    private static func forbidsTransforming(_ value: Span<UInt8>) -> Bool {
        var start = 0
        while start <= value.count {
            let end = value.firstIndex(of: 0x2c, from: start, to: value.count)
            if MessageHead.trimmed(value.extracting(start..<end)).equalsIgnoringCase("no-transform") { return true }
            start = end + 1
        }
        return false
    }

    // MARK: Trailers

    /// Takes out what the trailers of a body that was compressed say of it as it was: digests are of the bytes that are
    /// sent, or of a representation that its coding is part of (RFC 9530 §2 and §3).
    package static func takeOutValidators(of trailers: inout MessageHead) {
        for i in trailers.fields.indices where trailers.fields[i].name == .other && !trailers.fields[i].isRemoved {
            for name: StaticString in ["etag", "digest", "content-digest", "repr-digest", "content-md5"]
            where isName(of: i, name, in: trailers) {
                trailers.remove(at: i)
            }
        }
    }

    // MARK: Not modified

    /// A 304 for a client whose copy was compressed, and its entity tag made weak then, names that copy: by a strong tag it
    /// would not be brought up to date (RFC 9111 §4.3.4).
    package static func weakenNotModified(request: borrowing MessageHead, _ head: inout MessageHead) {
        var index = -1
        for i in head.fields.indices where head.fields[i].name == .other && !head.fields[i].isRemoved {
            if isName(of: i, "etag", in: head) { index = i }
        }
        guard index >= 0 else { return }
        let range = head.fields[index].valueRange
        guard strength(of: head.bytes.span.extracting(range)) == .strong else { return }
        var isWeak = false
        for i in request.fields.indices {
            let field = request.fields[i]
            guard field.nameCount == 13, !field.isRemoved, isName(of: i, "if-none-match", in: request) else { continue }
            let (weak, strong) = forms(
                of: head.bytes.span.extracting(range), in: request.bytes.span.extracting(field.valueRange))
            // It has the other copy as well: which of them is meant can't be known.
            if strong { return }
            if weak { isWeak = true }
        }
        guard isWeak else { return }
        weaken(index, in: &head)
        vary(&head)
    }

    /// In which forms a list of entity tags has this strong one. It begins and ends with the only quotes that it has: each
    /// comparison ends at the next one of the list.
    private static func forms(of tag: Span<UInt8>, in list: Span<UInt8>) -> (weak: Bool, strong: Bool) {
        var found = (weak: false, strong: false)
        var at = 0
        while at + tag.count <= list.count {
            var count = 0
            while count < tag.count, list[at + count] == tag[count] { count += 1 }
            guard count == tag.count else {
                at += 1
                continue
            }
            if at >= 2, list[at - 1] == 0x2f, list[at - 2] == 0x57 { found.weak = true } else { found.strong = true }
            at += count
        }
        return found
    }

    // MARK: The head

    /// Says in the head of a response that its body is in `coding`: what spoke of the body as it was goes.
    package static func announce(_ coding: ContentCoding, in head: inout MessageHead) {
        vary(&head)
        for i in head.fields.indices where head.fields[i].name == .other && !head.fields[i].isRemoved {
            if isName(of: i, "etag", in: head) {
                weaken(i, in: &head)
            } else if isName(of: i, "accept-ranges", in: head) {
                // Ranges would be of another representation than this one.
                head.remove(at: i)
            }
        }
        append("Content-Encoding", coding.name, to: &head)
    }

    /// Says that the response is chosen by Accept-Encoding (RFC 9110 §12.5.5), unless that is said already.
    package static func vary(_ head: inout MessageHead) {
        let name: StaticString = "vary"
        var last = -1
        for i in head.fields.indices {
            let field = head.fields[i]
            guard field.name == .other, field.nameCount == 4, field.flags.isDisjoint(with: [.removed, .hopByHop]),
                head.bytes.span.extracting(field.nameRange).equalsIgnoringCase(name)
            else { continue }
            let value = head.bytes.span.extracting(field.valueRange)
            var start = 0
            while start <= value.count {
                let end = value.firstIndex(of: 0x2c, from: start, to: value.count)
                let member = MessageHead.trimmed(value.extracting(start..<end))
                if member.equals("*") || member.equalsIgnoringCase("accept-encoding") { return }
                start = end + 1
            }
            last = i
        }
        guard last >= 0 else {
            append("Vary", "Accept-Encoding", to: &head)
            return
        }
        let old = head.fields[last].valueRange
        let start = head.bytes.count
        for i in old { head.bytes.append(head.bytes[i]) }
        if !old.isEmpty { head.bytes.append(", ") }
        head.bytes.append("Accept-Encoding")
        head.fields[last].valueOffset = UInt32(truncatingIfNeeded: start)
        head.fields[last].valueCount = UInt32(truncatingIfNeeded: head.bytes.count - start)
        head.fields[last].flags.insert(.ours)
    }

    /// RFC 9110 §8.8.3.3: two representations must not share a strong validator. What is no entity tag goes.
    private static func weaken(_ index: Int, in head: inout MessageHead) {
        let range = head.fields[index].valueRange
        switch strength(of: head.bytes.span.extracting(range)) {
        case .weak: return
        case .none:
            head.remove(at: index)
            return
        case .strong: break
        }
        let start = head.bytes.count
        head.bytes.append("W/")
        for i in range { head.bytes.append(head.bytes[i]) }
        head.fields[index].valueOffset = UInt32(truncatingIfNeeded: start)
        head.fields[index].valueCount = UInt32(truncatingIfNeeded: head.bytes.count - start)
        head.fields[index].flags.insert(.ours)
    }

    private enum Strength {
        case none
        case weak
        case strong
    }

    private static func strength(of tag: Span<UInt8>) -> Strength {
        let isWeak = tag.count >= 2 && tag[0] == 0x57 && tag[1] == 0x2f
        let start = isWeak ? 2 : 0
        // Between its quotes there is none (RFC 9110 §8.8.3).
        guard tag.count >= start + 2, tag[start] == 0x22,
            tag.firstIndex(of: 0x22, from: start + 1, to: tag.count) == tag.count - 1
        else { return .none }
        return isWeak ? .weak : .strong
    }

    private static func isName(of index: Int, _ name: StaticString, in head: borrowing MessageHead) -> Bool {
        head.bytes.span.extracting(head.fields[index].nameRange).equalsIgnoringCase(name)
    }

    private static func append(_ name: StaticString, _ value: StaticString, to head: inout MessageHead) {
        let nameStart = head.bytes.count
        head.bytes.append(name)
        let valueStart = head.bytes.count
        head.bytes.append(value)
        head.fields.append(
            FieldRecord(
                name: .other, nameRange: ByteRange(offset: nameStart, count: valueStart - nameStart),
                valueRange: ByteRange(offset: valueStart, count: head.bytes.count - valueStart), flags: .ours))
    }
}
