import Model
import Testing

@testable import HTTPWire

@Suite struct ForwardingTests {
    static let peer = IPAddress(v4: 0x0a00_0001)

    private func lines(
        _ fields: String, trusted: Bool, rules: ForwardingRules = .init(), client: IPAddress? = nil,
        peer: IPAddress = Self.peer, edit: (inout MessageHead) -> Void = { _ in }
    ) -> [String] {
        var (admission, head) = admit("GET / HTTP/1.1\r\nHost: shop.test:80\r\n\(fields)\r\n", isTrusted: trusted)
        guard admission?.facts != nil else { return ["refused"] }
        let text = ForwardingText(peer: peer, client: client, isSecure: true, port: 8443, rules: rules)
        if trusted { text.extendLists(in: &head) }
        edit(&head)
        let written = output { out in
            #expect(
                HeadWriter.write(
                    request: head, .init(body: .none), forwarding: text, isTrusted: trusted, to: &out) == .written)
        }
        return written.split(separator: "\r\n").dropFirst(2).map(String.init)
    }

    static let spoofed =
        "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n"
        + "X-Forwarded-Prefix: /x\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n"

    @Test(arguments: ["", spoofed, "x_forwarded_for: 6.6.6.6\r\n", "Connection: x-forwarded-for\r\n" + spoofed])
    func aStrangerIsWhoTheSocketSays(_ fields: String) {
        #expect(
            lines(fields, trusted: false) == [
                "X-Forwarded-For: 10.0.0.1", "X-Real-IP: 10.0.0.1", "X-Forwarded-Proto: https",
                "X-Forwarded-Port: 8443",
                "X-Forwarded-Host: shop.test:80",
            ])
    }

    @Test func aTrustedProxyIsBelievedAndAddedTo() {
        let fields =
            "X-Forwarded-For: 1.1.1.1, 2.2.2.2\r\nX-Other: y\r\nX-Forwarded-For: 3.3.3.3\r\n"
            + "X-Forwarded-Proto: http\r\nX-Forwarded-Host: front\r\nX-Real-IP: 9.9.9.9\r\nX-Forwarded-Prefix: /p\r\n"
        #expect(
            lines(fields, trusted: true, client: IPAddress(v4: 0x0303_0303)) == [
                "X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 10.0.0.1", "X-Other: y", "X-Forwarded-Proto: http",
                "X-Forwarded-Host: front", "X-Forwarded-Prefix: /p", "X-Real-IP: 3.3.3.3", "X-Forwarded-Port: 8443",
            ])
        #expect(
            lines("", trusted: true) == [
                "X-Forwarded-For: 10.0.0.1", "X-Real-IP: 10.0.0.1", "X-Forwarded-Proto: https",
                "X-Forwarded-Port: 8443",
                "X-Forwarded-Host: shop.test:80",
            ])
    }

    @Test func whatAScriptSetStays() {
        let result = lines("", trusted: false) { head in
            let (name, value) = (bytes("X-Forwarded-Proto"), bytes("wss"))
            head.set(name.span, to: value.span)
        }
        #expect(
            result == [
                "X-Forwarded-Proto: wss", "X-Forwarded-For: 10.0.0.1", "X-Real-IP: 10.0.0.1", "X-Forwarded-Port: 8443",
                "X-Forwarded-Host: shop.test:80",
            ])
    }

    @Test func theHostThatTheClientAskedForIsToldWhateverAScriptMadeOfIt() {
        var rules = ForwardingRules()
        rules.sendsForwarded = true
        let result = lines("", trusted: false, rules: rules) { head in
            for host in ["internal.test:9000", "other.test"] { #expect(head.setHost(bytes(host).span) == nil) }
        }
        #expect(
            result.suffix(2) == [
                "X-Forwarded-Host: shop.test:80", "Forwarded: for=10.0.0.1;proto=https;host=\"shop.test:80\"",
            ])
    }

    @Test func forwardedAndViaAreForThoseWhoAsk() {
        var rules = ForwardingRules()
        rules.sendsForwarded = true
        rules.sendsVia = true
        #expect(
            lines("", trusted: false, rules: rules).suffix(2) == [
                "Forwarded: for=10.0.0.1;proto=https;host=\"shop.test:80\"", "Via: 1.1 moongate",
            ])
        #expect(
            lines("", trusted: false, rules: rules, peer: IPAddress(high: 0, low: 1)).suffix(2).first
                == "Forwarded: for=\"[::1]\";proto=https;host=\"shop.test:80\"")
        #expect(
            lines("Forwarded: for=1.1.1.1\r\nVia: 1.0 x\r\n", trusted: true, rules: rules).prefix(2) == [
                "Forwarded: for=1.1.1.1, for=10.0.0.1;proto=https", "Via: 1.0 x",
            ])
    }

    @Test(arguments: [
        ("", "10.0.0.1"), ("X-Forwarded-For: 1.1.1.1\r\n", "1.1.1.1"),
        ("X-Forwarded-For: 6.6.6.6, 1.1.1.1, 10.0.0.9\r\n", "1.1.1.1"),
        ("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.1.1.1 ,10.0.0.9\r\n", "1.1.1.1"),
        ("X-Forwarded-For: 10.0.0.8, 10.0.0.9\r\n", "10.0.0.8"),
        ("X-Forwarded-For: 6.6.6.6, junk, 10.0.0.9\r\n", "10.0.0.9"), ("X-Forwarded-For: junk\r\n", "10.0.0.1"),
        ("X-Forwarded-For: 1.1.1.1:4711\r\n", "1.1.1.1"), ("X-Forwarded-For: [2001:db8::1]:4711\r\n", "2001:db8::1"),
        ("X-Forwarded-For: 2001:db8::2\r\n", "2001:db8::2"), ("X-Forwarded-For: , ,\r\n", "10.0.0.1"),
    ])
    func theClientIsTheLastWhoIsNotTrusted(_ fields: String, _ client: String) {
        let (_, head) = admit("GET / HTTP/1.1\r\nHost: a\r\n\(fields)\r\n", isTrusted: true)
        let trusted = [AddressBlock("10.0.0.0/8")].compactMap { $0 }
        #expect(Forwarding.client(of: head, peer: Self.peer, trusted: trusted).description == client)
        let stranger = IPAddress(v4: 0x0900_0001)
        #expect(Forwarding.client(of: head, peer: stranger, trusted: trusted) == stranger)
    }

    @Test(arguments: [
        ("https", true, true), ("http", true, false), ("WSS", true, true), ("junk", true, true),
        ("https", false, false),
    ])
    func theSchemeIsTheConnectionsOrATrustedProxys(_ said: String, _ trusted: Bool, _ secure: Bool) {
        let (_, head) = admit("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: \(said)\r\n\r\n", isTrusted: trusted)
        #expect(Forwarding.isSecure(of: head, connection: said == "junk", isTrusted: trusted) == secure)
    }

    @Test(arguments: [
        ("abc-123", true), ("7f3a:9/x+y=", true), (String(repeating: "a", count: 128), true),
        (String(repeating: "a", count: 129), false), ("", false), ("a b", false), ("a\"b", false), ("a<b>", false),
        ("a,b", false), ("a\u{e9}", false),
    ])
    func keepsAValidRequestID(_ id: String, _ isKept: Bool) {
        var (_, head) = admit("GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: \(id)\r\nx-request-id: second\r\n\r\n")
        let range = Forwarding.requestID(of: &head, random: (0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210))
        // The second line is valid: it stands in where the first is not.
        #expect(head.text(range) == (isKept ? id : "second"))
        let written = output { out in
            #expect(
                HeadWriter.write(request: head, .init(body: .none), forwarding: nil, id: range, to: &out) == .written)
        }
        #expect(written.lowercased().components(separatedBy: "x-request-id").count == 2)
    }

    @Test func makesARequestID() {
        var (_, head) = admit("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        let range = Forwarding.requestID(of: &head, random: (0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210))
        #expect(head.text(range) == "0123456789abcdeffedcba9876543210")
        let written = output { out in
            #expect(
                HeadWriter.write(request: head, .init(body: .none), forwarding: nil, id: range, to: &out) == .written)
        }
        #expect(written.hasSuffix("X-Request-ID: 0123456789abcdeffedcba9876543210\r\n\r\n"))
    }
}

extension String {
    fileprivate func components(separatedBy separator: String) -> [Substring] {
        split(separator: separator, omittingEmptySubsequences: false)
    }
}
