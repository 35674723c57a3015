// Between step 3 and step 4 of a request's walk, for hosts that ask for client certificates: who may pass, and what is
// said of him. The handshake has asked and recorded; whether that was enough is decided here, where there is a request
// to answer and a host that it is for.
internal import HTTPWire
internal import Middlewares
internal import Model
internal import Reactor
internal import TLSEngine

/// What upstreams are told, as ingress-nginx does. Of the client's own copies none gets through.
enum ClientCertificateFields {
    static let verify = Array("ssl-client-verify".utf8)
    static let subject = Array("ssl-client-subject-dn".utf8)
    static let issuer = Array("ssl-client-issuer-dn".utf8)
    static let certificate = Array("ssl-client-cert".utf8)
    static let all = [verify, subject, issuer, certificate]

    /// RFC 3986 §2.1: all but the unreserved characters.
    static func escaped(_ text: [UInt8]) -> [UInt8] {
        let digits = Array("0123456789ABCDEF".utf8)
        var result: [UInt8] = []
        result.reserveCapacity(text.count + text.count / 4)
        for byte in text {
            switch byte {
            case 48...57, 65...90, 97...122, UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "~"):
                result.append(byte)
            default: result += [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
            }
        }
        return result
    }
}

extension Loop {
    /// Judges the request by the rule of its host, if that asks for certificates, and writes down who came. A script may
    /// have led it to another host: then it is judged once more, by that one's rule.
    /// - Returns: why it is refused; `.none` where it is not.
    func authenticate(_ f: Flight, _ rules: ClientRules) -> FailureReason {
        let exchange = f.exchange
        exchange.client.certificate = nil
        let number = Self.rule(of: exchange, rules)
        // Also where nobody is asked: the same backend may be led to by a host that asks. A balancer that has asked may
        // tell what it knows there.
        if number < 0, exchange.client.isTrustedProxy { return .none }
        for name in ClientCertificateFields.all { exchange.request.removeAll(named: name.span) }
        guard number >= 0 else { return .none }
        let tls = f.downstream?.secureLayer
        let rule = rules.rules[Int(number)]
        // A host that is closed to it would never get the certificate that opens it. Nobody gets one by the paths of those
        // who only share it.
        if tls == nil, !exchange.client.isSecure, !rule.isDenied, HTTPSRedirect.isChallenge(exchange.request) {
            return .none
        }
        if rule.isBroken { return .clientRulesBroken }
        if let tls, let asked = rule.asked {
            if !isKnown(tls, by: rules, number, asked, f) { return .misdirected }
        }
        let certificate = rule.asked == nil ? nil : tls?.channel?.clientCertificate
        if tls != nil {
            let reason = Self.judge(certificate, rule.authentication.mode, now: dateSecond)
            tell(f, certificate, rule.authentication, tls)
            if reason != .none { return reason }
        }
        if let pattern = rule.pattern {
            // Once a connection: the rule is known by then, or there is none.
            let isFound: Bool
            if let tls, let certificate {
                isFound = tls.subjectIsFound ?? pattern.isFound(in: certificate.subject)
                tls.subjectIsFound = isFound
            } else {
                isFound = pattern.isFound(in: [])
            }
            if !isFound { return .clientForbidden }
        }
        exchange.client.certificate = certificate
        return .none
    }

    /// Apart, so that nobody holds the head's memory while lines are taken out of it and added.
    private static func rule(of exchange: Exchange, _ rules: ClientRules) -> Int32 {
        let bytes = exchange.request.bytes
        return rules.rule(
            route: exchange.route, host: bytes.span.extracting(exchange.request.hostRange.range))
    }

    private static func judge(
        _ certificate: ClientCertificate?, _ mode: ClientAuthentication.Mode, now: Int64
    ) -> FailureReason {
        guard let certificate else { return mode == .required ? .noClientCertificate : .none }
        // It may have ended since the handshake.
        if certificate.notAfter < now { return .badClientCertificate }
        switch certificate.verdict {
        case .good: return .none
        case .untrusted: return mode == .optionalWithoutAuthority ? .none : .badClientCertificate
        case .bad: return .badClientCertificate
        }
    }

    private func tell(
        _ f: Flight, _ certificate: ClientCertificate?, _ rule: ClientAuthentication, _ tls: SecureLayer?
    ) {
        func set(_ name: [UInt8], _ value: [UInt8]) { f.exchange.request.set(name.span, to: value.span) }
        guard let certificate else { return set(ClientCertificateFields.verify, Array("NONE".utf8)) }
        let hasEnded = certificate.notAfter < dateSecond
        if certificate.verdict == .good, !hasEnded {
            set(ClientCertificateFields.verify, Array("SUCCESS".utf8))
        } else {
            let problem = certificate.problem.isEmpty ? Array("certificate has expired".utf8) : certificate.problem
            set(ClientCertificateFields.verify, Array("FAILED:".utf8) + problem)
        }
        set(ClientCertificateFields.subject, certificate.subject)
        set(ClientCertificateFields.issuer, certificate.issuer)
        guard rule.passesCertificate, !certificate.pem.isEmpty, let tls else { return }
        let text = tls.escapedCertificate ?? ClientCertificateFields.escaped(certificate.pem)
        tls.escapedCertificate = text
        set(ClientCertificateFields.certificate, text)
    }

    // MARK: The connection

    /// Whether the handshake of the connection was for this host, and by this rule: only then is what it recorded worth
    /// anything here (RFC 9110 §7.4). A rule that has changed since is applied to what the client has shown.
    private func isKnown(
        _ tls: SecureLayer, by rules: ClientRules, _ number: Int32, _ asked: ClientVerification, _ f: Flight
    ) -> Bool {
        guard let channel = tls.channel else { return false }
        let isNameless = channel.serverName.isEmpty && rules.rules[Int(number)].isForAnyHost
        let bytes = f.exchange.request.bytes
        guard
            isNameless
                || Self.isSame(channel.serverName, bytes.span.extracting(f.exchange.request.hostRange.range))
        else { return false }
        let isOver = dateSecond >= tls.judgedUntil
        if !isOver, tls.knownRules === rules, tls.knownRule == number { return true }
        if isOver || tls.clients != asked {
            guard judgeAgain(tls, channel, asked, rules.rules[Int(number)].authentication.mode) else {
                // Whatever comes on this connection would be answered so: the client is to make another.
                if let carrier = f.downstream?.stream?.carrier { announceEnd(carrier) }
                return false
            }
        }
        tls.knownRules = rules
        tls.knownRule = number
        tls.subjectIsFound = nil
        return true
    }

    /// The authorities have changed since the handshake, or one of them has ended: what the client has shown is judged by
    /// those of today.
    private func judgeAgain(
        _ tls: SecureLayer, _ channel: SecureChannel, _ asked: ClientVerification, _ mode: ClientAuthentication.Mode
    ) -> Bool {
        // Who was not asked may have had one.
        guard tls.clients != nil else { return false }
        if let certificate = channel.clientCertificate {
            let name = String(decoding: channel.serverName, as: UTF8.self)
            guard let context = certificates?.context(for: name), context.clients == asked,
                let judged = tls.session.judgeAgain(certificate, by: context, now: dateSecond),
                judged.verdict == .good
            else { return false }
            tls.channel = channel.with(judged)
            tls.judgedUntil = context.trust?.holds(from: dateSecond) ?? .max
        } else if mode == .required {
            return false
        } else {
            // Nothing was found that could end.
            tls.judgedUntil = .max
        }
        tls.clients = asked
        return true
    }

    // MARK: The answer

    /// The page that a client without a good certificate gets in place of 400: the request goes on as one for a path of
    /// the host, which its rules lead on, and what it wanted done does not: it is a GET without a body, as `error_page` of
    /// nginx makes it, or a HEAD. False: it is answered. So are those who want a tunnel, to whom a page says nothing, and
    /// calls, which are told in their own terms.
    func turnsToErrorPage(_ f: Flight, _ rules: ClientRules, _ reason: FailureReason) -> Bool {
        guard reason == .noClientCertificate || reason == .badClientCertificate else { return false }
        let exchange = f.exchange
        let number = Self.rule(of: exchange, rules)
        guard number >= 0, let page = rules.rules[Int(number)].authentication.errorPage else { return false }
        let text = Array(page.utf8)
        guard page.hasPrefix("/") else {
            f.errorPage = text
            f.refusedStatus = 302
            return false
        }
        if exchange.route >= 0, f.policy.bridgesGRPCWeb { bridgeRequest(f) }
        guard f.facts.upgrade == .none, !isCall(f) else { return false }
        guard (try? exchange.request.setPath(text.span)) != nil else { return false }
        exchange.request.hasQuery = false
        exchange.request.queryRange = .empty
        if exchange.request.method != .head {
            exchange.request.method = .get
            exchange.request.methodRange = exchange.request.store("GET".utf8)
        }
        Self.takeOutBodyFields(of: &exchange.request)
        if !f.facts.body.isEmpty {
            f.facts.body = .none
            // What is left of it is the connection's business, as after an early answer.
            perform(f, .requestEnded)
        }
        return true
    }

    /// What tells of a body, all of `content-…` (RFC 9110 §8) included.
    private static func takeOutBodyFields(of request: inout MessageHead) {
        let prefix = Array("content-".utf8)
        for i in request.fields.indices where !request.fields[i].isRemoved {
            let field = request.fields[i]
            switch field.name {
            case .contentLength, .contentType, .expect, .trailer, .transferEncoding:
                request.remove(at: i)
            default:
                let name = field.nameRange
                if name.count > prefix.count,
                    prefix.indices.allSatisfy({
                        MessageHead.lower(request.bytes[name.lowerBound + $0]) == prefix[$0]
                    })
                {
                    request.remove(at: i)
                }
            }
        }
    }
}
