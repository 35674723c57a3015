import Model
import Testing

@testable import TLSEngine

/// Two sessions joined in memory, with the network cut into pieces as small as a test likes.
private final class Pair {
    let client: TLSSession
    let server: TLSSession
    var toServer: [UInt8] = []
    var toClient: [UInt8] = []
    let piece: Int
    let room: Int

    init(_ client: TLSSession?, _ server: TLSSession?, piece: Int = 16384, room: Int = 32768) throws {
        self.client = try #require(client)
        self.server = try #require(server)
        self.piece = piece
        self.room = room
    }

    /// Runs one operation of one side on what has come for it, and moves what it makes to the other.
    private func step(
        _ session: TLSSession, _ incoming: inout [UInt8], _ outgoing: inout [UInt8],
        _ body: (RawSpan, inout Int) -> TLSProgress
    ) -> TLSProgress {
        let lent = Array(incoming.prefix(piece))
        var unread = lent.count
        var progress = TLSProgress.needsInput
        unsafe lent.withUnsafeBytes { bytes in
            let span = unsafe RawSpan(_unsafeBytes: bytes)
            progress = body(span, &unread)
        }
        incoming.removeFirst(lent.count - unread)
        _ = emit(session, &outgoing)
        return progress
    }

    /// Moves what a session has to send into `outgoing`, as much at a time as `room` says.
    private func emit(
        _ session: TLSSession, _ outgoing: inout [UInt8], _ body: (inout OutputRawSpan) -> TLSProgress? = { _ in nil }
    ) -> TLSProgress {
        let storage = UnsafeMutableRawBufferPointer.allocate(byteCount: room, alignment: 16)
        defer { unsafe storage.deallocate() }
        var output = unsafe OutputRawSpan(buffer: storage, initializedCount: 0)
        let progress = body(&output) ?? .done
        var count = unsafe output.finalize(for: storage)
        unsafe outgoing.append(contentsOf: storage.prefix(count))
        while session.hasPendingOutput {
            var more = unsafe OutputRawSpan(buffer: storage, initializedCount: 0)
            _ = session.flush(output: &more)
            count = unsafe more.finalize(for: storage)
            unsafe outgoing.append(contentsOf: storage.prefix(count))
        }
        return progress
    }

    func shake() -> (client: TLSProgress, server: TLSProgress) {
        var a = TLSProgress.needsInput
        var b = TLSProgress.needsInput
        for _ in 0..<20_000 {
            if a == .needsInput {
                a = step(client, &toClient, &toServer) { client.handshake($0, unread: &$1) }
            }
            if b == .needsInput {
                b = step(server, &toServer, &toClient) { server.handshake($0, unread: &$1) }
            }
            if (a != .needsInput && b != .needsInput) || a == .failed || b == .failed { break }
        }
        return (a, b)
    }

    func send(_ text: [UInt8], fromClient: Bool) -> TLSProgress {
        unsafe text.withUnsafeBytes { bytes in
            let span = unsafe RawSpan(_unsafeBytes: bytes)
            return fromClient
                ? emit(client, &toServer) { client.write(span, output: &$0) }
                : emit(server, &toClient) { server.write(span, output: &$0) }
        }
    }

    /// Everything that can be read on one side, and how it ended.
    func receive(atClient: Bool) -> (bytes: [UInt8], progress: TLSProgress) {
        var all: [UInt8] = []
        let room = UnsafeMutableRawBufferPointer.allocate(byteCount: 1000, alignment: 16)
        defer { unsafe room.deallocate() }
        while true {
            var plain = unsafe OutputRawSpan(buffer: room, initializedCount: 0)
            let progress: TLSProgress
            if atClient {
                progress = step(client, &toClient, &toServer) {
                    client.read($0, unread: &$1, into: &plain)
                }
            } else {
                progress = step(server, &toServer, &toClient) {
                    server.read($0, unread: &$1, into: &plain)
                }
            }
            let count = unsafe plain.finalize(for: room)
            unsafe all.append(contentsOf: room.prefix(count))
            let waiting = atClient ? toClient : toServer
            if progress == .done || (progress == .needsInput && !waiting.isEmpty) { continue }
            return (all, progress)
        }
    }

    /// The client takes new keys and asks for the server's.
    func updateKeys() -> TLSProgress { emit(client, &toServer) { client.updateKeys(output: &$0) } }

    func end(byClient: Bool) {
        _ =
            byClient
            ? emit(client, &toServer) { client.close(output: &$0) }
            : emit(server, &toClient) { server.close(output: &$0) }
    }
}

struct TLSSessionTests {
    private static let shop = try? TLSKeyPair.selfSigned(name: "shop.test")
    private static let pay = try? TLSKeyPair.selfSigned(name: "pay.test")

    private func server(_ edit: (inout TLSOptions) -> Void = { _ in }) throws -> TLSContext {
        var options = TLSOptions()
        options.protocols = ["h2", "http/1.1"]
        edit(&options)
        return try TLSContext(accepting: [#require(Self.shop)], options)
    }

    private func client(_ edit: (inout TLSOptions) -> Void = { _ in }, pair: TLSKeyPair? = nil) throws -> TLSContext {
        var options = TLSOptions()
        options.verification = .required
        options.authorities = try #require(Self.shop).chain + #require(Self.pay).chain
        edit(&options)
        return try TLSContext(connecting: options, pair: pair)
    }

    @Test(arguments: [1, 7, 100, 16384], [16, 32768])
    func `bytes go through whatever the network does to them`(piece: Int, room: Int) throws {
        let pair = try Pair(
            TLSSession(connecting: client(), to: "shop.test"), TLSSession(accepting: server()), piece: piece, room: room
        )
        #expect(pair.shake() == (.done, .done))
        #expect(pair.server.version == .tls13)
        #expect(pair.server.serverName == "shop.test")
        let message = (0..<50_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        #expect(pair.send(message, fromClient: true) == .done)
        #expect(pair.receive(atClient: false).bytes == message)
        #expect(pair.send(message, fromClient: false) == .done)
        #expect(pair.receive(atClient: true).bytes == message)
        pair.end(byClient: true)
        #expect(pair.receive(atClient: false).progress == .ended)
    }

    @Test(arguments: [(5, TLSProgress.needsInput), (100, .failed)])
    func `a few new keys are fine, a flood of them ends the session`(count: Int, progress: TLSProgress) throws {
        let pair = try Pair(TLSSession(connecting: client(), to: "shop.test"), TLSSession(accepting: server()))
        #expect(pair.shake() == (.done, .done))
        for _ in 0..<count { #expect(pair.updateKeys() == .done) }
        #expect(pair.send([1, 2, 3], fromClient: true) == .done)
        let received = pair.receive(atClient: false)
        #expect(received.progress == progress)
        #expect(received.bytes == (progress == .failed ? [] : [1, 2, 3]))
        #expect(pair.server.failure == (progress == .failed ? .protocolError : .none))
    }

    @Test(arguments: [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), ([], "")])
    func `the protocol is chosen by our preference`(offered: [String], chosen: String) throws {
        let pair = try Pair(
            TLSSession(connecting: client { $0.protocols = offered }, to: "shop.test"), TLSSession(accepting: server()))
        #expect(pair.shake() == (.done, .done))
        #expect(pair.server.applicationProtocol == chosen)
    }

    @Test func `protocols without one in common end the handshake`() throws {
        let pair = try Pair(
            TLSSession(connecting: client { $0.protocols = ["spdy"] }, to: "shop.test"), TLSSession(accepting: server())
        )
        #expect(pair.shake().server == .failed)
        #expect(pair.server.failure == .alpn)
    }

    private final class Chooser: CertificateChooser {
        var asked: [String] = []
        let contexts: [String: TLSContext]

        init(_ contexts: [String: TLSContext]) {
            self.contexts = contexts
        }

        func context(for name: String) -> TLSContext? {
            asked.append(name)
            return contexts[name]
        }
    }

    @Test func `the name of the client chooses the certificate`() throws {
        let other = try TLSContext(accepting: [#require(Self.pay)])
        let chooser = Chooser(["pay.test": other])
        let pair = try Pair(
            TLSSession(connecting: client(), to: "PAY.test"), TLSSession(accepting: server(), chooser: chooser))
        #expect(pair.shake() == (.done, .done))
        #expect(chooser.asked == ["pay.test"])
    }

    @Test func `a name without a certificate is refused`() throws {
        let pair = try Pair(
            TLSSession(connecting: client(), to: "else.test"), TLSSession(accepting: server(), chooser: Chooser([:])))
        #expect(pair.shake().server == .failed)
    }

    @Test func `a client does not accept another's certificate`() throws {
        let pair = try Pair(TLSSession(connecting: client(), to: "bank.test"), TLSSession(accepting: server()))
        #expect(pair.shake().client == .failed)
        #expect(pair.client.failure == .wrongName)
    }

    @Test func `a client says what is wrong with a server`() throws {
        func failure(
            _ server: TLSContext, to name: String = "shop.test", _ edit: (inout TLSOptions) -> Void = { _ in }
        ) throws -> TLSFailure {
            let pair = try Pair(TLSSession(connecting: client(edit), to: name), TLSSession(accepting: server))
            _ = pair.shake()
            // The server's alert, if it was the one that failed.
            if pair.client.failure == .none { _ = pair.receive(atClient: true) }
            return pair.client.failure
        }
        let pay = try #require(Self.pay)
        #expect(try failure(server()) == .none)
        #expect(try failure(server()) { $0.authorities = pay.chain } == .unknownAuthority)
        #expect(try failure(server(), to: "192.0.2.1") == .wrongName)
        #expect(try failure(server(), to: "2001:db8::1") == .wrongName)
        #expect(try failure(server(), to: "192.0.2.1") { $0.verification = .none } == .none)
        #expect(try failure(server(), to: "bank.test") { $0.verification = .none } == .none)
        #expect(try failure(server { $0.minimumVersion = .tls13 }) { $0.maximumVersion = .tls12 } == .version)
        #expect(try failure(server()) { $0.protocols = ["spdy"] } == .alpn)
        let plain = try Pair(TLSSession(connecting: client(), to: "shop.test"), TLSSession(accepting: server()))
        plain.toClient = Array("HTTP/1.1 400 Bad Request\r\n\r\n".utf8)
        #expect(plain.shake().client == .failed)
        #expect(plain.client.failure == .notTLS)
    }

    @Test(arguments: [true, false])
    func `a server is named only where it is asked for`(sends: Bool) throws {
        let pair = try Pair(
            TLSSession(connecting: client(), to: "shop.test", sendsName: sends), TLSSession(accepting: server()))
        #expect(pair.shake() == (.done, .done))
        #expect(pair.server.serverName == (sends ? "shop.test" : ""))
    }

    @Test(arguments: [TLSVersion.tls12, .tls13])
    func `a session is resumed, and one that failed is not`(version: TLSVersion) throws {
        let tickets = try #require(TicketKeys([TicketKey()]))
        let accepting = try server {
            $0.tickets = tickets
            $0.maximumVersion = version
        }
        let connecting = try client()
        let resumption = try #require(TLSResumption())
        func connect(_ context: TLSContext) throws -> Pair {
            let pair = try Pair(
                TLSSession(connecting: connecting, to: "shop.test", resumption: resumption),
                TLSSession(accepting: context))
            _ = pair.shake()
            _ = pair.send([1], fromClient: false)
            _ = pair.receive(atClient: true)
            // OpenSSL does not resume the session of a connection that ended without a goodbye.
            pair.end(byClient: true)
            return pair
        }
        #expect(try connect(accepting).client.wasResumed == false)
        #expect(resumption.isFilled)
        #expect(try connect(accepting).client.wasResumed == true)
        // A server that knows nothing of it takes the long way, and one that fails takes it away.
        #expect(try connect(server()).client.wasResumed == false)
        let other = try TLSContext(accepting: [.selfSigned(name: "other.test")])
        #expect(try connect(other).client.failure == .unknownAuthority)
        #expect(!resumption.isFilled)
    }

    @Test(arguments: [true, false])
    func `a client certificate is asked for, checked and told`(sends: Bool) throws {
        let authority = try #require(Self.pay)
        let context = try server {
            $0.verification = .required
            $0.authorities = authority.chain
        }
        let pair = try Pair(
            TLSSession(connecting: client(pair: sends ? authority : nil), to: "shop.test"),
            TLSSession(accepting: context))
        let result = pair.shake()
        #expect(result.server == (sends ? .done : .failed))
        #expect(pair.server.peer?.subject == (sends ? "CN=pay.test" : nil))
        #expect(pair.server.peer?.isVerified == (sends ? true : nil))
        #expect(pair.server.failure == (sends ? .none : .noCertificate))
    }

    // MARK: Clients' certificates

    /// A client with a certificate comes to a server of ours, perhaps not for the first time.
    private func visit(
        _ context: TLSContext, _ pair: TLSKeyPair?, _ resumption: TLSResumption? = nil, at now: Int64? = nil,
        version: TLSVersion = .tls13
    ) throws -> (certificate: ClientCertificate?, session: TLSSession, wasResumed: Bool) {
        let connecting = try client({ $0.maximumVersion = version }, pair: pair)
        let made = try Pair(
            TLSSession(connecting: connecting, to: "shop.test", resumption: resumption), TLSSession(accepting: context))
        if let now { made.server.setTime(now) }
        #expect(made.shake() == (.done, .done))
        _ = made.send([1], fromClient: false)
        _ = made.receive(atClient: true)
        made.end(byClient: true)
        return (made.server.channel().clientCertificate, made.server, made.server.wasResumed)
    }

    private func asking(_ clients: ClientVerification, _ tickets: TicketKeys? = nil) throws -> TLSContext {
        try server {
            $0.clients = clients
            $0.tickets = tickets
        }
    }

    @Test func `who was revoked is bad, and of whom nobody knows there need be no list`() throws {
        let context = try asking(
            ClientVerification(authorities: clientAuthority, revocations: emptyRevocations + daveRevocations))
        let revoked = try visit(context, dave).certificate
        #expect(revoked?.verdict == .bad)
        #expect(revoked.map { String(decoding: $0.problem, as: UTF8.self) } == "certificate revoked")
        let stranger = try visit(context, Self.pay).certificate
        #expect(stranger?.verdict == .untrusted)
        // Of an authority that is known there must be one.
        let other = try asking(
            ClientVerification(
                authorities: clientAuthority + #require(Self.pay).chain, revocations: emptyRevocations))
        #expect(try visit(other, Self.pay).certificate?.verdict == .bad)
        #expect(try visit(other, dave, at: emptyRevocationsEnd - 1).certificate?.verdict == .good)
    }

    @Test(arguments: [TLSVersion.tls12, .tls13])
    func `what was found of a client ends with the list that it was found by`(version: TLSVersion) throws {
        let tickets = try #require(TicketKeys([TicketKey()]))
        let clients = ClientVerification(authorities: clientAuthority, revocations: emptyRevocations)
        let context = try asking(clients, tickets)
        #expect(context.trust?.holds(from: emptyRevocationsEnd - 1) == emptyRevocationsEnd)
        #expect((context.trust?.holds(from: emptyRevocationsEnd) ?? 0) > emptyRevocationsEnd)
        let resumption = try #require(TLSResumption())
        var last: (certificate: ClientCertificate?, session: TLSSession, wasResumed: Bool)?
        for (now, wasResumed, verdict) in [
            (emptyRevocationsEnd - 9, false, ClientCertificate.Verdict.good), (emptyRevocationsEnd - 1, true, .good),
            (emptyRevocationsEnd, false, .bad), (emptyRevocationsEnd + 9, true, .bad),
        ] {
            let visit = try visit(context, dave, resumption, at: now, version: version)
            #expect(visit.wasResumed == wasResumed, "\(now)")
            #expect(visit.certificate?.verdict == verdict, "\(now)")
            last = visit
        }
        // Of a connection that is open the certificate is judged as it is now.
        let open = try #require(last)
        let shown = try #require(open.certificate)
        for (now, verdict) in [
            (emptyRevocationsEnd - 1, ClientCertificate.Verdict.good), (emptyRevocationsEnd, .bad),
        ] {
            #expect(open.session.judgeAgain(shown, by: context, now: now)?.verdict == verdict)
        }
    }

    @Test func `an old version is refused where a newer one is asked for`() throws {
        let context = try server { $0.minimumVersion = .tls13 }
        let pair = try Pair(
            TLSSession(connecting: client { $0.maximumVersion = .tls12 }, to: "shop.test"),
            TLSSession(accepting: context))
        #expect(pair.shake().server == .failed)
        #expect(pair.server.failure == .version)
    }

    @Test(arguments: [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}", "SSH-2.0-x\r\n\r\n\r\n\r\n",
        "\u{16}\u{2}\u{0}\u{0}\u{4}abcd",
    ])
    func `what is not TLS is told apart`(text: String) throws {
        let pair = try Pair(TLSSession(connecting: client(), to: "shop.test"), TLSSession(accepting: server()))
        pair.toServer = Array(text.utf8)
        #expect(pair.shake().server == .failed)
        #expect(pair.server.failure == .notTLS)
    }

    @Test func `a broken record ends its own session and leaves the next one alone`() throws {
        let context = try server()
        let broken = try Pair(TLSSession(connecting: client(), to: "shop.test"), TLSSession(accepting: context))
        #expect(broken.shake() == (.done, .done))
        _ = broken.send(Array("hello".utf8), fromClient: true)
        broken.toServer[broken.toServer.count - 1] ^= 1
        #expect(broken.receive(atClient: false).progress == .failed)
        let next = try Pair(TLSSession(connecting: client(), to: "shop.test"), TLSSession(accepting: context))
        #expect(next.shake() == (.done, .done))
        _ = next.send(Array("hello".utf8), fromClient: true)
        #expect(next.receive(atClient: false).bytes == Array("hello".utf8))
    }
}

struct TLSContextTests {
    @Test func `a certificate says what it is for`() throws {
        let facts = try TLSContext(accepting: []).add(.selfSigned(name: "*.shop.test", days: 10))
        #expect(facts.names == ["*.shop.test"])
        #expect(facts.kind == KeyKind(number: 408))
        #expect(facts.notAfter - facts.notBefore == 10 * 86400 + 3600)
        #expect(facts.covers("www.shop.test"))
        #expect(!facts.covers("shop.test"))
        #expect(!facts.covers("a.b.shop.test"))
    }

    @Test func `a damaged block is no end`() throws {
        let authority = try TLSKeyPair.selfSigned(name: "ca.test").chain
        let garbage = Array("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".utf8)
        func problem(_ authorities: [UInt8], _ revocations: [UInt8] = []) -> String? {
            do throws(TLSError) {
                _ = try TrustStore(authorities: authorities, revocations: revocations)
                return nil
            } catch { return error.description }
        }
        for text in [[], authority, Array("\nmore\n".utf8), dave.key] {
            // Twice the same, and what is nothing of its kind, does no harm.
            #expect(problem(authority + text) == nil)
            #expect(problem(authority, emptyRevocations + text) == nil)
        }
        // Nothing is passed over because of its first line.
        for index in 0..<24 {
            var broken = daveRevocations
            broken[index] ^= 0x15
            #expect(problem(authority, emptyRevocations + broken) != nil, "\(index)")
        }
        #expect(problem(authority + [0x20] + clientAuthority) != nil)
        #expect(problem([0xef, 0xbb, 0xbf] + clientAuthority + authority) == nil)
        #expect(problem(authority, emptyRevocations + [0x20] + daveRevocations) != nil)
        for broken in [damaged(clientAuthority), garbage, Array(clientAuthority.dropLast(40))] {
            #expect(
                problem(authority + broken)?.hasPrefix("a certificate authority behind the first can't be read: ")
                    == true)
            #expect(problem(broken + authority)?.hasPrefix("the certificate authority can't be read: ") == true)
            let pair = TLSKeyPair(chain: dave.chain + broken, key: dave.key)
            let error = #expect(throws: TLSError.self) { try TLSContext(accepting: [pair]) }
            #expect(error?.description.hasPrefix("a certificate behind the first can't be read: ") == true)
        }
        for broken in [damaged(daveRevocations), Array(daveRevocations.dropLast(40))] {
            #expect(
                problem(authority, emptyRevocations + broken)?
                    .hasPrefix("a revocation list behind the first can't be read: ") == true)
            #expect(problem(authority, broken)?.hasPrefix("the revocation list can't be read: ") == true)
        }
    }

    @Test func `authorities and lists have a limit`() throws {
        let long = [UInt8](repeating: UInt8(ascii: "\n"), count: 1_048_577)
        let authority = try TLSKeyPair.selfSigned(name: "ca.test").chain
        #expect(throws: TLSError("the revocation lists are too long (1 MiB at most)")) {
            try TrustStore(authorities: authority, revocations: emptyRevocations + long)
        }
        #expect(throws: TLSError("there are too many certificate authorities (256 KiB at most)")) {
            try TrustStore(authorities: authority + long)
        }
    }

    @Test func `a key of another certificate is refused`() throws {
        let a = try TLSKeyPair.selfSigned(name: "a.test")
        let b = try TLSKeyPair.selfSigned(name: "b.test")
        let mixed = TLSKeyPair(chain: a.chain, key: b.key)
        let error = #expect(throws: TLSError.self) { try TLSContext(accepting: [mixed]) }
        #expect(error?.description == "the key does not belong to the certificate")
    }

    @Test func `a key on a curve that no client agrees on is refused by its name`() throws {
        for (curve, pair) in pairsOnOddCurves {
            let error = #expect(throws: TLSError.self) { try TLSContext(accepting: [pair]) }
            #expect(error?.description.hasPrefix("clients do not agree on a key on the curve \(curve) (") == true)
        }
        for (kind, pair) in pairsOfOtherKinds {
            #expect(throws: Never.self, "\(kind)") { try TLSContext(accepting: [pair]) }
        }
    }

    @Test(arguments: ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
    func `what is no certificate is refused`(text: String) throws {
        let pair = try TLSKeyPair(chain: Array(text.utf8), key: TLSKeyPair.selfSigned(name: "a.test").key)
        #expect(throws: TLSError.self) { try TLSContext(accepting: [pair]) }
    }

    @Test(arguments: ["NO-SUCH-CIPHER", "TLS_NO_SUCH_SUITE", ""])
    func `a list of ciphers without one that is known is refused`(list: String) throws {
        var options = TLSOptions()
        options.choose(ciphers: list)
        #expect(throws: TLSError.self) { try TLSContext(accepting: [.selfSigned(name: "a.test")], options) }
    }

    @Test(
        arguments: [
            (nil, nil, nil),
            ("ECDHE-RSA-AES128-GCM-SHA256:@STRENGTH", "ECDHE-RSA-AES128-GCM-SHA256:@STRENGTH", nil),
            ("TLS_AES_256_GCM_SHA384", nil, "TLS_AES_256_GCM_SHA384"),
            (
                "TLS_CHACHA20_POLY1305_SHA256:HIGH:TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:TLS_AES_128_GCM_SHA256",
                "HIGH:TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256"
            ),
        ] as [(String?, String?, String?)])
    func `one list names ciphers of TLS 1.2 and suites of TLS 1.3`(list: String?, ciphers: String?, suites: String?) {
        var options = TLSOptions()
        options.choose(ciphers: list)
        #expect(options.ciphers == ciphers)
        #expect(options.suites == suites)
    }
}
