// Step 2 of a request's walk, second half: a well-formed head is judged. What could mean one thing to us and another to
// the next server (where its body ends, for whom and for what it is) is refused here and nowhere later.

package import Model

/// What to judge by; the same for all requests of a listener.
package struct AdmissionRules: Sendable, Hashable {
    /// TRACE shows a client's own fields to scripts in its page, and nobody needs it at an edge.
    package var allowsTrace = false
    /// Take out fields with `_` in their names, as nginx does: a CGI upstream reads `X_Forwarded_For` as
    /// `X-Forwarded-For`. The metadata of gRPC has such names: those of calls are left to `settleUnderscores`, but for
    /// the names that the proxy itself gives a meaning.
    package var dropsUnderscoreNames = true

    package init() {}
}

/// Which protocol the client would like to go on with (RFC 9110 §7.8).
package enum UpgradeWish: UInt8, Sendable, Hashable {
    case none
    case webSocket
    case other
}

/// What an admitted request asks of the connection.
package struct RequestFacts: Sendable, Hashable {
    package enum TargetForm: UInt8, Sendable, Hashable {
        case origin
        case absolute
        case asterisk
    }

    package var body: BodyFraming = .none
    /// The client's side of the connection may serve another request after this one.
    package var keepsAlive = true
    /// The body comes after a `100 Continue` of ours or of the upstream's.
    package var expectsContinue = false
    package var upgrade: UpgradeWish = .none
    /// The value of `Upgrade` when `upgrade` is not none.
    package var upgradeRange: ByteRange = .empty
    /// `Sec-WebSocket-Key`, valid, when `upgrade` is `.webSocket`.
    package var webSocketKeyRange: ByteRange = .empty
    /// The client reads trailers (`TE: trailers`).
    package var acceptsTrailers = false
    /// Fields with `_` in their names were left in: `settleUnderscores` is to be asked before they are sent.
    package var keptUnderscores = false
    package var targetForm: TargetForm = .origin

    package init() {}
}

package enum RequestAdmission: Sendable, Hashable {
    case admit(RequestFacts)
    case refuse(Refusal)

    /// Judges a head as `HeadParser` left it, and completes it: canonical path, query, authority, host; hop-by-hop
    /// fields are marked, and what a stranger (`isTrusted` is false) says of himself and his way taken out.
    ///
    /// - Parameter hasBody: what the frames say of HTTP/2, where the head itself does not say whether a body follows.
    package static func judge(
        _ head: inout MessageHead, _ rules: AdmissionRules, isTrusted: Bool, hasBody: Bool = false
    ) -> RequestAdmission {
        do throws(Refusal) {
            return .admit(try admit(&head, rules, isTrusted, hasBody))
        } catch {
            return .refuse(error)
        }
    }

    private static func admit(
        _ head: inout MessageHead, _ rules: AdmissionRules, _ isTrusted: Bool, _ hasBody: Bool
    ) throws(Refusal) -> RequestFacts {
        var facts = RequestFacts()
        var framing = FramingFields()
        var connection = ConnectionOptions()
        var host = -1
        var upgrade = -1
        var key = -1
        var isCall: Bool?

        for i in head.fields.indices {
            let field = head.fields[i]
            switch field.name {
            case .other where field.flags.contains(.hasUnderscore) && rules.dropsUnderscoreNames:
                let mayStay = isCall ?? (GRPC.isCall(head) || GRPCWeb.isCall(head))
                isCall = mayStay
                if mayStay, !readsAsOurs(head.bytes.span.extracting(field.nameRange)) {
                    facts.keptUnderscores = true
                } else {
                    head.remove(at: i)
                }

            case .other:
                if !isTrusted && isHearsay(head.bytes.span.extracting(field.nameRange))
                    || isProxy(head.bytes.span.extracting(field.nameRange))
                {
                    head.remove(at: i)
                }

            case .accept, .authorization, .contentType, .cookie, .date, .secWebSocketAccept, .setCookie,
                .trailer, .via, .xRequestID:
                if field.flags.contains(.hasUnderscore), rules.dropsUnderscoreNames { head.remove(at: i) }

            case .host:
                guard host < 0 else { throw .malformed(.twoHosts) }
                host = i

            case .contentLength:
                guard framing.readLength(head.bytes.span.extracting(field.valueRange)) else {
                    throw .malformed(.contentLength)
                }
                head.fields[i].flags.insert(.hopByHop)

            case .transferEncoding:
                guard framing.readCoding(head.bytes.span.extracting(field.valueRange)) else {
                    throw .malformed(.transferEncoding)
                }
                head.fields[i].flags.insert(.hopByHop)

            case .connection:
                guard connection.read(head.bytes.span.extracting(field.valueRange)) else {
                    throw .malformed(.connection)
                }
                head.fields[i].flags.insert(.hopByHop)

            case .upgrade:
                if upgrade < 0 { upgrade = i }
                head.fields[i].flags.insert(.hopByHop)

            case .secWebSocketKey:
                guard key < 0 else { throw .malformed(.webSocketHandshake) }
                key = i

            case .expect:
                // An HTTP/1.0 client does not wait for an answer (RFC 9110 §10.1.1).
                head.fields[i].flags.insert(.hopByHop)
                if head.version == .http10 { continue }
                guard head.bytes.span.extracting(field.valueRange).equalsIgnoringCase("100-continue") else {
                    throw Refusal(417, .expectationFailed)
                }
                facts.expectsContinue = true

            case .te:
                var list = TokenList(head.bytes.span.extracting(field.valueRange))
                while let range = list.next() {
                    let offset = field.valueRange.lowerBound
                    let token = offset + range.lowerBound..<offset + range.upperBound
                    if head.bytes.span.extracting(token).equalsIgnoringCase("trailers") { facts.acceptsTrailers = true }
                }
                head.fields[i].flags.insert(.hopByHop)

            case .http2Settings, .keepAlive, .proxyAuthenticate, .proxyAuthorization, .proxyConnection:
                head.fields[i].flags.insert(.hopByHop)

            case .forwarded, .xForwardedFor, .xForwardedHost, .xForwardedPort, .xForwardedPrefix, .xForwardedProto,
                .xRealIP:
                if !isTrusted { head.remove(at: i) }
            }
        }
        if connection.nominates { ConnectionOptions.markNominated(in: &head) }

        // What follows the head of a WebSocket over HTTP/2 is no body. The client's own Upgrade has been refused: this one
        // was made of an extended CONNECT (`HTTP2Head`). One that ends with its head can't begin anything.
        var hasBody = hasBody
        if upgrade >= 0, head.version == .http2 {
            guard hasBody else { throw .malformed(.webSocketHandshake) }
            hasBody = false
        }

        // RFC 9112 §6.1–§6.3. Both fields together are the classic of request smuggling, and refused.
        switch framing.coding {
        case .none:
            if let length = framing.length {
                // A stream that has ended before its length is malformed (RFC 9113 §8.1.1).
                guard head.version != .http2 || hasBody || length == 0 else {
                    throw .malformed(.contentLength)
                }
                facts.body = .length(length)
                // A head of nothing that does not end the stream, and says that trailers follow: only without its length can
                // they be passed on.
                if length == 0, hasBody, head.version == .http2, head.firstIndex(of: .trailer) != nil {
                    facts.body = .chunked
                }
            } else if head.version == .http2, hasBody {
                facts.body = .chunked
            }
        case .chunked:
            guard framing.length == nil else { throw .malformed(.lengthAndCoding) }
            guard head.version != .http10 else { throw .malformed(.transferEncoding) }
            facts.body = .chunked
        case .unknown:
            guard framing.length == nil else { throw .malformed(.lengthAndCoding) }
            guard head.version != .http10 else { throw .malformed(.transferEncoding) }
            throw Refusal(501, .unsupportedCoding)
        }
        if facts.body.isEmpty { facts.expectsContinue = false }

        // RFC 9112 §9.3.
        facts.keepsAlive = head.version == .http10 ? connection.keepsAlive && !connection.closes : !connection.closes

        switch head.method {
        case .connect: throw Refusal(405, .methodNotAllowed)
        case .trace:
            guard rules.allowsTrace else { throw Refusal(405, .methodNotAllowed) }
            // RFC 9110 §9.3.8.
            guard facts.body == .none else { throw .malformed(.traceBody) }
        case .other, .get, .head, .post, .put, .delete, .options, .patch: break
        }

        try readTarget(&head, &facts, rules)
        try readHost(&head, facts, host)
        if connection.upgrades, upgrade >= 0, head.version != .http10 {
            try readUpgrade(head, &facts, upgrade, key)
        }
        return facts
    }

    /// What a stranger has no say in.
    private static func isHearsay(_ name: Span<UInt8>) -> Bool {
        guard name.count >= 8 else { return false }
        switch name[0] | 0x20 {
        case 0x73: return tellsOfTheClient(name)
        case 0x78: return tellsOfTheWay(name)
        default: return false
        }
    }

    /// What upstreams are told of a client's certificate (`ssl-client-verify` and its kin): taken out also where no host
    /// asks for certificates, for a backend may go on believing what it was told before.
    private static func tellsOfTheClient(_ name: Span<UInt8>) -> Bool {
        guard name.count > 11, isDash(name[3]), isDash(name[10]) else { return false }
        return name.extracting(0..<3).equalsIgnoringCase("ssl") && name.extracting(4..<10).equalsIgnoringCase("client")
    }

    /// To a CGI program `_` is the same.
    private static func isDash(_ byte: UInt8) -> Bool { byte == 0x2d || byte == 0x5f }

    /// The less usual fields by which an upstream may believe to know where a request comes from, such as
    /// X-Forwarded-Ssl, and X-Scheme of ingress-nginx: as little a stranger's to say as those that have a name here.
    private static func tellsOfTheWay(_ name: Span<UInt8>) -> Bool {
        name.count == 8
            ? name.equalsIgnoringCase("x-scheme")
            : name.count > 12 && name.extracting(0..<12).equalsIgnoringCase("x-forwarded-")
    }

    /// No field of HTTP, and one that CGI programs take for their own setting (`HTTP_PROXY`): it goes from everybody.
    private static func isProxy(_ name: Span<UInt8>) -> Bool {
        name.count == 5 && name[0] | 0x20 == 0x70 && name.equalsIgnoringCase("proxy")
    }

    /// Whether a name with `_` would be one that the proxy gives a meaning, were it spelled with `-`: who tells the two not
    /// apart takes it for what we say.
    private static func readsAsOurs(_ name: Span<UInt8>) -> Bool {
        // The longest of the known ones, and more than the prefixes.
        var letters = InlineArray<20, UInt8>(repeating: 0)
        let count = min(name.count, 20)
        for i in 0..<count { letters[i] = name[i] == 0x5f ? 0x2d : name[i] }
        let spelled = letters.span.extracting(0..<count)
        if name.count <= 20, FieldName(spelled) != .other { return true }
        return isHearsay(spelled)
    }

    /// Behind the scripts, and when it is known who will read the request: takes out the fields with `_` in their names
    /// that were left in for a call.
    ///
    /// - Parameter areMetadata: the upstream speaks HTTP/2, as all servers of gRPC do, to which `_` and `-` are two. Then
    ///   only those are taken out that share their name but for that with another field, as a script may have set it.
    package static func settleUnderscores(in head: inout MessageHead, areMetadata: Bool) {
        for i in head.fields.indices {
            let field = head.fields[i]
            guard field.flags.contains(.hasUnderscore), field.flags.isDisjoint(with: [.removed, .ours]) else {
                continue
            }
            if !areMetadata || hasTwin(head, field) { head.remove(at: i) }
        }
    }

    private static func hasTwin(_ head: borrowing MessageHead, _ field: FieldRecord) -> Bool {
        let bytes = head.bytes.span
        let name = bytes.extracting(field.nameRange)
        for other in head.fields where !other.isRemoved && !other.flags.contains(.hasUnderscore) {
            guard other.nameCount == field.nameCount, other.nameRange.upperBound <= bytes.count else { continue }
            let twin = bytes.extracting(other.nameRange)
            var i = 0
            while i < name.count, folded(name[i]) == folded(twin[i]) { i += 1 }
            if i == name.count { return true }
        }
        return false
    }

    private static func folded(_ byte: UInt8) -> UInt8 { byte == 0x5f ? 0x2d : MessageHead.lower(byte) }

    /// Takes the target apart (RFC 9112 §3.2) and brings the path to its canonical form.
    private static func readTarget(
        _ head: inout MessageHead, _ facts: inout RequestFacts, _ rules: AdmissionRules
    ) throws(Refusal) {
        let target = head.targetRange.range
        var start = target.lowerBound
        let end = target.upperBound
        guard start < end, end <= head.bytes.count else { throw .malformed(.target) }
        if head.bytes[start] == 0x2a {
            guard target.count == 1, head.method == .options else { throw .malformed(.target) }
            facts.targetForm = .asterisk
            head.pathRange = head.targetRange
            return
        }
        if head.bytes[start] != 0x2f {
            let scheme = schemeCount(head.bytes.span.extracting(target))
            guard scheme > 0 else { throw .malformed(.target) }
            start += scheme
            let authority = start
            while start < end, head.bytes[start] != 0x2f, head.bytes[start] != 0x3f, head.bytes[start] != 0x23 {
                start += 1
            }
            head.authorityRange = ByteRange(offset: authority, count: start - authority)
            facts.targetForm = .absolute
        }
        let pathEnd = head.bytes.span.firstIndex(of: 0x3f, from: start, to: end)
        if pathEnd < end {
            // A fragment is never sent (RFC 9112 §3.2); some servers cut it off, others take it for part of the rest.
            guard head.bytes.span.firstIndex(of: 0x23, from: pathEnd, to: end) == end else {
                throw .malformed(.fragment)
            }
            head.queryRange = ByteRange(offset: pathEnd + 1, count: end - pathEnd - 1)
            head.hasQuery = true
        }
        if pathEnd == start {
            // An absolute target without a path: `/`, but for OPTIONS, which then asks about the server
            // (RFC 9112 §3.2.4).
            if head.method == .options, !head.hasQuery {
                facts.targetForm = .asterisk
                head.pathRange = head.store(CollectionOfOne(0x2a))
            } else {
                head.pathRange = head.store(CollectionOfOne(0x2f))
            }
            return
        }
        do throws(CanonicalPath.Refusal) {
            try setPath(&head, start..<pathEnd, allowing: .none)
        } catch {
            guard error == .encodedSlash else { throw .malformed(RequestFault(error)) }
            // The route is asked, which is not known yet.
            do throws(CanonicalPath.Refusal) {
                try setPath(&head, start..<pathEnd, allowing: .encodedSlashes)
            } catch {
                throw .malformed(RequestFault(error))
            }
            head.hasEncodedSlash = true
        }
    }

    private static func setPath(
        _ head: inout MessageHead, _ range: Range<Int>, allowing options: CanonicalPath.Options
    ) throws(CanonicalPath.Refusal) {
        let path = try CanonicalPath.normalise(range, in: &head.bytes, allowing: options)
        head.pathRange = ByteRange(offset: path.lowerBound, count: path.count)
    }

    /// The length of `http://` or `https://` before something; 0 for anything else.
    private static func schemeCount(_ text: Span<UInt8>) -> Int {
        if text.count > 7, text.extracting(0..<7).equalsIgnoringCase("http://") { return 7 }
        if text.count > 8, text.extracting(0..<8).equalsIgnoringCase("https://") { return 8 }
        return 0
    }

    /// RFC 9112 §3.2, RFC 9110 §7.2: one valid Host, and the same as in an absolute target.
    private static func readHost(
        _ head: inout MessageHead, _ facts: RequestFacts, _ index: Int
    ) throws(Refusal) {
        let fromTarget = head.authorityRange
        guard index >= 0 else {
            guard head.version == .http10 else { throw .malformed(.noHost) }
            guard facts.targetForm == .absolute || !fromTarget.isEmpty else { return }
            guard let authority = Authority(head.bytes.span.extracting(fromTarget.range)) else {
                throw .malformed(.badHost)
            }
            head.authorityRange = withoutColon(fromTarget, head.bytes.span)
            head.setHostRange(from: authority)
            return
        }
        let field = head.fields[index]
        let value = ByteRange(offset: Int(field.valueOffset), count: Int(field.valueCount))
        guard let authority = Authority(head.bytes.span.extracting(value.range)) else { throw .malformed(.badHost) }
        if !fromTarget.isEmpty || facts.targetForm == .absolute {
            // The target wins by the book; a client that says two hosts is refused instead (RFC 9112 §3.2.2).
            // Of HTTP/2 both have the same port by now, said or not.
            let isSecure = fromTarget.offset &- head.targetRange.offset == 8
            guard areOne(fromTarget, value, schemePort: facts.targetForm == .absolute ? isSecure ? 443 : 80 : nil, head)
            else { throw .malformed(.hostDiffers) }
        }
        head.authorityRange = withoutColon(value, head.bytes.span)
        head.fields[index].valueCount = head.authorityRange.count
        head.setHostRange(from: authority)
    }

    /// Whether two authorities are the same. No port, and the one of the scheme, are (RFC 9110 §4.2.3).
    static func areOne(_ a: ByteRange, _ b: ByteRange, schemePort: UInt16?, _ head: borrowing MessageHead) -> Bool {
        let bytes = head.bytes.span
        guard a.range.upperBound <= bytes.count, b.range.upperBound <= bytes.count,
            let first = Authority(bytes.extracting(a.range)), let second = Authority(bytes.extracting(b.range)),
            first.port ?? schemePort == second.port ?? schemePort, first.hostCount == second.hostCount
        else { return false }
        for i in 0..<first.hostCount
        where MessageHead.lower(bytes[Int(a.offset) + i]) != MessageHead.lower(bytes[Int(b.offset) + i]) {
            return false
        }
        return true
    }

    /// An authority without the colon that has no port behind it: nobody behind us need know that it is allowed.
    private static func withoutColon(_ authority: ByteRange, _ bytes: Span<UInt8>) -> ByteRange {
        guard !authority.isEmpty, bytes[authority.range.upperBound - 1] == 0x3a else { return authority }
        return ByteRange(offset: authority.range.lowerBound, count: authority.range.count - 1)
    }

    /// RFC 6455 §4.1. A WebSocket handshake that we could not verify later is refused; any other protocol is only told,
    /// and HTTP/2 in clear never is: through it a client could speak past every rule (h2c smuggling).
    private static func readUpgrade(
        _ head: MessageHead, _ facts: inout RequestFacts, _ upgrade: Int, _ key: Int
    ) throws(Refusal) {
        let field = head.fields[upgrade]
        let value = ByteRange(offset: Int(field.valueOffset), count: Int(field.valueCount))
        let text = head.bytes.span.extracting(value.range)
        if text.equalsIgnoringCase("websocket") {
            // A handshake is a GET without a body; anything else has no key to answer to.
            guard head.method == .get, facts.body.isEmpty, key >= 0,
                WebSocketKey.isValid(head.bytes.span.extracting(head.fields[key].valueRange))
            else { throw .malformed(.webSocketHandshake) }
            facts.upgrade = .webSocket
            facts.webSocketKeyRange = ByteRange(
                offset: Int(head.fields[key].valueOffset), count: Int(head.fields[key].valueCount))
            facts.upgradeRange = value
            return
        }
        guard facts.body.isEmpty, FieldGrammar.isValue(text), !text.isEmpty, isUpgradeToken(text),
            !(text.count >= 2 && text.extracting(0..<2).equalsIgnoringCase("h2")),
            !(text.count >= 4 && text.extracting(0..<4).equalsIgnoringCase("http")),
            !(text.count >= 3 && text.extracting(0..<3).equalsIgnoringCase("tls"))
        else { return }
        facts.upgrade = .other
        facts.upgradeRange = value
    }

    /// One protocol: a name, or a name and a version. Of a list nobody could say which one was agreed on.
    private static func isUpgradeToken(_ text: Span<UInt8>) -> Bool {
        for i in 0..<text.count where !ByteSet.token.contains(text[i]) && text[i] != 0x2f { return false }
        return true
    }
}
