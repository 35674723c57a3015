// The way back: the head of an upstream's answer is judged like a client's request. An answer that could be read in two
// ways is refused with 502 and its connection closed, so that nothing of it can be taken for the next answer.

package import Model

/// What an admitted response says of its body and of its connection.
package struct ResponseFacts: Sendable, Hashable {
    /// What follows on the upstream's connection.
    package var body: BodyFraming = .none
    /// Content-Length of a response that has no body here, but would have one: to HEAD, or 304 (RFC 9110 §8.6).
    package var declaredLength: UInt64?
    /// The upstream's connection may serve another request after this response.
    package var keepsAlive = true
    /// 1xx but 101: another head follows.
    package var isInformational = false
    /// A 101 that answers our wish: both sides are a tunnel from here on.
    package var isUpgrade = false
    /// The value of `Upgrade` in a 101, and in a 426 that has one.
    package var upgradeRange: ByteRange = .empty

    package init() {}
}

package enum ResponseAdmission: Sendable, Hashable {
    case admit(ResponseFacts)
    case refuse(Refusal)

    /// Judges a head as `HeadParser` left it, and marks its hop-by-hop fields.
    ///
    /// - Parameters:
    ///   - method: of the request that is answered.
    ///   - upgrade: what was asked of the upstream; a 101 without it is refused.
    ///   - key: `Sec-WebSocket-Key` as it was sent, empty without.
    package static func judge(
        _ head: inout MessageHead, method: Method, upgrade: UpgradeWish = .none, key: Span<UInt8>
    ) -> ResponseAdmission {
        do throws(Refusal) {
            return .admit(try admit(&head, method, upgrade, key))
        } catch {
            return .refuse(error)
        }
    }

    private static func admit(
        _ head: inout MessageHead, _ method: Method, _ wish: UpgradeWish, _ key: Span<UInt8>
    ) throws(Refusal) -> ResponseFacts {
        var facts = ResponseFacts()
        var framing = FramingFields()
        var connection = ConnectionOptions()
        var upgrade = -1
        var accept = -1
        for i in head.fields.indices {
            let field = head.fields[i]
            switch field.name {
            case .contentLength:
                guard framing.readLength(head.bytes.span.extracting(field.valueRange)) else { throw .malformedResponse }
                head.fields[i].flags.insert(.hopByHop)
            case .transferEncoding:
                guard framing.readCoding(head.bytes.span.extracting(field.valueRange)) else { throw .malformedResponse }
                head.fields[i].flags.insert(.hopByHop)
            case .connection:
                guard connection.read(head.bytes.span.extracting(field.valueRange)) else { throw .malformedResponse }
                head.fields[i].flags.insert(.hopByHop)
            case .upgrade:
                guard upgrade < 0 else { throw .malformedResponse }
                upgrade = i
                head.fields[i].flags.insert(.hopByHop)
            case .secWebSocketAccept:
                guard accept < 0 else { throw .malformedResponse }
                accept = i
            case .http2Settings, .keepAlive, .proxyAuthenticate, .proxyAuthorization, .proxyConnection, .te:
                head.fields[i].flags.insert(.hopByHop)
            case .other, .accept, .authorization, .contentType, .cookie, .date, .expect, .forwarded, .host,
                .secWebSocketKey, .setCookie, .trailer, .via, .xForwardedFor, .xForwardedHost, .xForwardedPort,
                .xForwardedPrefix, .xForwardedProto, .xRealIP, .xRequestID:
                break
            }
        }
        if connection.nominates { ConnectionOptions.markNominated(in: &head) }

        switch framing.coding {
        case .none: break
        case .chunked:
            guard framing.length == nil, head.version != .http10 else { throw .malformedResponse }
        case .unknown: throw .malformedResponse
        }

        // RFC 9112 §9.3.
        facts.keepsAlive = head.version == .http10 ? connection.keepsAlive && !connection.closes : !connection.closes

        // What a 426 asks for is said to the client as well (RFC 9110 §15.5.22).
        if head.status == 426, upgrade >= 0 {
            facts.upgradeRange = ByteRange(
                offset: Int(head.fields[upgrade].valueOffset), count: Int(head.fields[upgrade].valueCount))
        }

        // RFC 9112 §6.3, in its order.
        switch head.status {
        case 101:
            guard upgrade >= 0, connection.upgrades, head.version == .http11 else { throw .malformedResponse }
            facts.upgradeRange = ByteRange(
                offset: Int(head.fields[upgrade].valueOffset), count: Int(head.fields[upgrade].valueCount))
            let text = head.bytes.span.extracting(facts.upgradeRange.range)
            switch wish {
            case .none: throw .malformedResponse
            case .webSocket:
                guard text.equalsIgnoringCase("websocket"), accept >= 0,
                    WebSocketKey.matches(key, accept: head.bytes.span.extracting(head.fields[accept].valueRange))
                else { throw .malformedResponse }
            case .other: break
            }
            facts.isUpgrade = true
            facts.keepsAlive = false
        case 100..<200:
            // Neither field may stand in one (RFC 9110 §15.2): after it, the sender may be anywhere.
            guard framing.length == nil, framing.coding == .none else { throw .malformedResponse }
            facts.isInformational = true
        case 204:
            // Some servers say a length of nothing; more than nothing would be read as the next response.
            if framing.coding != .none || framing.length ?? 0 > 0 { facts.keepsAlive = false }
        case 304:
            facts.declaredLength = framing.length
        default:
            if method == .head {
                facts.declaredLength = framing.length
            } else if framing.coding == .chunked {
                facts.body = .chunked
            } else if let length = framing.length {
                facts.body = .length(length)
            } else {
                facts.body = .untilClose
                facts.keepsAlive = false
            }
        }
        return facts
    }
}
