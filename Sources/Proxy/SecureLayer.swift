// The seam of TLS: what stands between a connection's socket and its buffers, to clients and to upstreams. Everything
// behind it reads and writes plain bytes, and knows of TLS only that the connection's `tls` is there.
internal import HTTPWire
internal import Model
internal import Reactor
internal import TLSEngine

/// What was agreed to be spoken inside of TLS (RFC 7301).
enum ApplicationProtocol: UInt8, Sendable {
    case http11
    case http2

    /// The names that are offered to clients, by preference (RFC 9113 §3.2).
    static let names = ["h2", "http/1.1"]

    /// Without a name HTTP/1.1 is spoken, as by clients that know nothing of RFC 7301.
    init(_ name: [UInt8]) {
        self = name.elementsEqual("h2".utf8) ? .http2 : .http11
    }
}

/// The TLS layer of one connection.
final class SecureLayer {
    let session: TLSSession
    /// No plain byte can have come yet, and none can go.
    var isHandshaking = true
    /// What the peer has said first.
    var opening = Opening.silent
    /// How much of its hellos it announces.
    var hello = ClientHello.Size()
    /// The peer has said that it sends no more (close_notify): what ends now ends whole.
    var hasEnded = false
    /// We have said so.
    var saidGoodbye = false
    /// Encrypted bytes that the kernel did not take.
    var pending: Buffer?
    /// Encrypted bytes that were read before there was a session.
    var early: Buffer?

    // MARK: Known when the handshake is done
    var applicationProtocol = ApplicationProtocol.http11
    var channel: SecureChannel?
    /// Of the certificate that the connection was made with.
    var certificate = ""
    /// What the client's own certificate was judged by; nil where it was not asked for one.
    var clients: ClientVerification?
    /// Until when that holds, in seconds since 1970: then an authority or a revocation list ends.
    var judgedUntil = Int64.max
    /// The rule that was last found to be the one of the handshake, whether the subject was found by its pattern, and the
    /// certificate as upstreams are told it.
    var knownRules: ClientRules?
    var knownRule: Int32 = -1
    var subjectIsFound: Bool?
    var escapedCertificate: [UInt8]?
    /// The last host that was found to be served with the same certificate, for the one that asks again.
    var agreedHost: [UInt8] = []
    var agreedTable: CertificateTable?

    init(_ session: TLSSession) {
        self.session = session
    }

    enum Opening: UInt8 {
        /// Nothing yet: who goes now has only looked whether the port is open.
        case silent
        /// A method by its looks: capital letters, and a blank if there is more. No record of TLS begins so, and OpenSSL
        /// knows but the commonest of them.
        case plainHTTP
        case other

        init(_ bytes: Span<UInt8>) {
            var end = 0
            while end < bytes.count, end < 24, bytes[end] &- 65 < 26 { end += 1 }
            if bytes.isEmpty {
                self = .silent
            } else {
                self = end > 0 && (end == bytes.count || bytes[end] == 0x20) ? .plainHTTP : .other
            }
        }
    }
}

/// What has a socket, and may have TLS on it.
protocol SecurableConnection: AnyObject {
    var socket: Socket { get }
    var flags: ConnectionFlags { get set }
    /// Plain bytes that are still to be encrypted.
    var output: Buffer? { get set }
}

extension Downstream: SecurableConnection {}
extension UpstreamConnection: SecurableConnection {}

/// What one reading of a secured socket came to.
enum SecureEvent: Equatable {
    /// What came is in `scratch`: plain bytes, or none, where it was no whole record or the handshake goes on.
    case received
    /// The handshake is done. What came behind it waits in `cipherIn`: `decrypt` goes on.
    case secured
    /// The handshake failed; the session says why. The alert is still to be sent.
    case refused
    /// The peer has said that it sends no more, and all before it has been taken.
    case ended
    /// The connection ended without a goodbye: somebody may have cut it (RFC 8446 §6.1).
    case cut
    case broken
}

extension Loop {
    // MARK: Reading

    /// Reads the socket once and decrypts what came into `scratch`, which is empty.
    ///
    /// All that was read is decrypted at once, so that nothing waits where no edge would tell of it: half a record rests
    /// in the session, at most 16 KiB, and with what is read here it fits into `scratch`.
    func readSecure<C: SecurableConnection>(_ c: C, _ tls: SecureLayer) -> SecureEvent {
        if tls.hasEnded {
            c.flags.remove(.readable)
            return .ended
        }
        let cipher = cipherIn
        cipher.removeAll()
        if let early = tls.early {
            // One read may bring more than fits here: the rest comes with the next call.
            let count = cipher.append(early.bytes)
            early.consume(count)
            if early.isEmpty { giveBack(&tls.early) }
            return tls.isHandshaking ? shake(c, tls, cipher) : decrypt(c, tls, cipher)
        }
        let room = cipher.room
        switch transport.read(c.socket, into: cipher) {
        case .bytes(let n):
            if n < room, !c.flags.contains(.ended) { c.flags.remove(.readable) }
            return tls.isHandshaking ? shake(c, tls, cipher) : decrypt(c, tls, cipher)
        case .wouldBlock:
            c.flags.remove(.readable)
            return .received
        case .end:
            c.flags.remove(.readable)
            return .cut
        case .failed:
            return .broken
        }
    }

    /// One step of the handshake; what is left of the input stays in `cipherIn`.
    private func shake<C: SecurableConnection>(_ c: C, _ tls: SecureLayer, _ cipher: Buffer) -> SecureEvent {
        if tls.opening == .silent { tls.opening = SecureLayer.Opening(cipher.span) }
        // OpenSSL would make room for all of it before any of it has come.
        if c is Downstream, !tls.hello.isFit(cipher.span, changeSeals: tls.session.version == .tls12) {
            return .refused
        }
        var unread = 0
        func step(_ input: RawSpan) -> TLSProgress { tls.session.handshake(input, unread: &unread) }
        let progress = step(cipher.bytes)
        cipher.consume(cipher.count - unread)
        switch progress {
        case .needsInput: return emit(c, tls) ? .received : .broken
        case .done: return emit(c, tls) ? .secured : .broken
        case .ended, .failed: return .refused
        }
    }

    /// Decrypts what is left in `cipherIn` into `scratch`.
    func decrypt<C: SecurableConnection>(_ c: C, _ tls: SecureLayer) -> SecureEvent { decrypt(c, tls, cipherIn) }

    private func decrypt<C: SecurableConnection>(_ c: C, _ tls: SecureLayer, _ cipher: Buffer) -> SecureEvent {
        var progress = TLSProgress.needsInput
        var unread = 0
        func step(_ input: RawSpan) {
            scratch.write { progress = tls.session.read(input, unread: &unread, into: &$0) }
        }
        step(cipher.bytes)
        if tls.session.hasPendingOutput, !emit(c, tls) { progress = .failed }
        switch progress {
        case .needsInput:
            return .received
        case .ended:
            // Told when what came before it has been taken: the next reading says so.
            tls.hasEnded = true
            c.flags.insert(.readable)
            return .received
        case .done, .failed:
            // `done` would mean that `scratch` was too small, which it can't be.
            if progress == .done { telemetry.bug() }
            scratch.removeAll()
            return .broken
        }
    }

    /// Reads from a client. Ends and failures are told to the machine, as `didRead` does for plain bytes.
    func receive(_ d: Downstream, _ tls: SecureLayer) {
        var event = readSecure(d, tls)
        if event == .secured {
            secured(d, tls)
            // The first request may have come with the end of the handshake.
            guard !d.machine.isClosed else { return }
            event = decrypt(d, tls)
        }
        switch event {
        case .received: break
        case .secured: telemetry.bug()
        case .refused: handshakeFailed(d, tls)
        case .ended:
            d.flags.insert(.endRead)
            downstreamEnded(d)
        case .cut:
            d.flags.insert(.endRead)
            cut(d, tls)
        case .broken:
            if tls.isHandshaking, tls.opening != .silent { telemetry.handshakeFailed(.cut) }
            perform(d, .broken)
        }
    }

    /// Whether what came is whole is for the framing of HTTP to say, and a tunnel has none.
    private func cut(_ d: Downstream, _ tls: SecureLayer) {
        if tls.isHandshaking, tls.opening != .silent { telemetry.handshakeFailed(.cut) }
        if d.machine.isTunnelling {
            perform(d, .broken)
        } else {
            downstreamEnded(d)
        }
    }

    /// The handshake is done: from here on plain bytes go both ways, in the protocol that was agreed.
    private func secured(_ d: Downstream, _ tls: SecureLayer) {
        let channel = tls.session.channel()
        tls.isHandshaking = false
        tls.channel = channel
        tls.certificate = tls.session.chosen.name
        tls.clients = tls.session.chosen.clients
        if tls.clients != nil { tls.judgedUntil = tls.session.chosen.trust?.holds(from: dateSecond) ?? .max }
        tls.applicationProtocol = ApplicationProtocol(channel.applicationProtocol)
        telemetry.handshakeFinished(wasResumed: channel.wasResumed)
        setDeadline(d, after: configuration.timeouts.requestHead)
        // What is spoken has been agreed: it is not for the first bytes to say.
        d.flags.remove(.fresh)
        guard tls.applicationProtocol == .http2 else { return }
        beginHTTP2(d)
        if announcesClose { announceEnd(d) }
    }

    private func handshakeFailed(_ d: Downstream, _ tls: SecureLayer) {
        var failure = tls.session.failure
        if tls.opening == .plainHTTP { failure = .notTLS }
        telemetry.handshakeFailed(failure == .none ? .protocolError : failure)
        if tls.opening == .plainHTTP {
            // Whoever spoke plain HTTP by mistake understands no alert.
            d.tls = nil
            giveBack(&tls.pending)
            giveBack(&tls.early)
            perform(d, .headRefused)
            refuse(beginFlight(d), Refusal(400, .plainHTTP))
            return
        }
        // The alert, which says why (RFC 8446 §6.2).
        perform(d, emit(d, tls) ? .peerEnded : .broken)
    }

    // MARK: Hosts

    /// Whether the request's host is served with the certificate that the connection was made with. Of a client that
    /// names no host in the handshake nothing else can be asked (RFC 9110 §7.4, §15.5.20).
    func agrees(_ tls: SecureLayer, _ host: Span<UInt8>) -> Bool {
        // A host whose TLS is passed through is never served on a connection that ends here: its endpoints have a
        // certificate of their own, and perhaps ask for the client's.
        if current.publication.relays.hasHosts {
            var name: [UInt8] = []
            for i in 0..<host.count { name.append(MessageHead.lower(host[i])) }
            if current.publication.relays.target(host: name) != nil { return false }
        }
        guard let channel = tls.channel, !channel.serverName.isEmpty, let table = certificates?.table else {
            return true
        }
        if Self.isSame(channel.serverName, host) { return true }
        if tls.agreedTable === table, Self.isSame(tls.agreedHost, host) { return true }
        var name: [UInt8] = []
        name.append(host)
        let certificate = table.certificate(for: String(decoding: name.map { MessageHead.lower($0) }, as: UTF8.self))
        // By name: the certificate may have been renewed since.
        guard certificate.name == tls.certificate else { return false }
        tls.agreedHost = name
        tls.agreedTable = table
        return true
    }

    static func isSame(_ name: [UInt8], _ host: Span<UInt8>) -> Bool {
        guard name.count == host.count else { return false }
        for i in name.indices where MessageHead.lower(name[i]) != MessageHead.lower(host[i]) { return false }
        return true
    }

    // MARK: Writing

    /// Writes what is queued, then `first`, then `second`. See `write` of a socket: what can't go is kept, and the
    /// connection counts as blocked. False: broken.
    func writeSecure<C: SecurableConnection>(
        _ c: C, _ tls: SecureLayer, _ first: RawSpan, _ second: RawSpan = RawSpan()
    ) -> Bool {
        if c.flags.contains(.blocked) {
            queue(&c.output, first)
            queue(&c.output, second)
            return true
        }
        if tls.pending != nil, !writePending(c, tls) { return false }
        if tls.isHandshaking {
            queue(&c.output, first)
            queue(&c.output, second)
            return true
        }
        var firstDone = 0
        var secondDone = 0
        while !c.flags.contains(.blocked) {
            var budget = Self.plainAtOnce
            cipherOut.removeAll()
            if let output = c.output {
                let count = min(output.count, budget)
                guard encrypt(tls, output.bytes.extracting(first: count)) else { return false }
                output.consume(count)
                budget -= count
                if output.isEmpty { giveBack(&c.output) }
            }
            if c.output == nil, budget > 0, firstDone < first.byteCount {
                let count = min(first.byteCount - firstDone, budget)
                guard encrypt(tls, first.extracting(firstDone..<(firstDone + count))) else { return false }
                firstDone += count
                budget -= count
            }
            if c.output == nil, budget > 0, firstDone == first.byteCount, secondDone < second.byteCount {
                let count = min(second.byteCount - secondDone, budget)
                guard encrypt(tls, second.extracting(secondDone..<(secondDone + count))) else { return false }
                secondDone += count
            }
            if cipherOut.isEmpty, !tls.session.hasPendingOutput { return true }
            if !writeCipher(c, tls) { return false }
        }
        queue(&c.output, first.extracting(droppingFirst: firstDone))
        queue(&c.output, second.extracting(droppingFirst: secondDone))
        return true
    }

    /// How much is encrypted before it is offered to the kernel: with the records' frames it fits into `cipherOut`, and
    /// a slow reader holds no more of it.
    private static var plainAtOnce: Int { 64 * 1024 }

    private func encrypt(_ tls: SecureLayer, _ plain: RawSpan) -> Bool {
        var progress = TLSProgress.done
        cipherOut.write { progress = tls.session.write(plain, output: &$0) }
        return progress == .done
    }

    /// Writes what is in `cipherOut`, and what the session kept inside; the rest waits in `pending`.
    private func writeCipher<C: SecurableConnection>(_ c: C, _ tls: SecureLayer) -> Bool {
        let cipherOut = self.cipherOut
        while true {
            if !cipherOut.isEmpty {
                switch transport.write(c.socket, cipherOut.bytes, RawSpan()) {
                case .bytes(let n): cipherOut.consume(n)
                case .wouldBlock: break
                case .failed: return false
                }
            }
            if !cipherOut.isEmpty {
                c.flags.insert(.blocked)
                keep(tls)
                return true
            }
            if !tls.session.hasPendingOutput { return true }
            take(tls.session)
        }
    }

    /// Moves what the session kept inside into `cipherOut`, as far as there is room.
    private func take(_ session: TLSSession) {
        var isAll = false
        cipherOut.write { isAll = session.flush(output: &$0) }
        assert(isAll == !session.hasPendingOutput)
    }

    /// Puts what is in `cipherOut`, and all that the session kept inside, into `pending`.
    private func keep(_ tls: SecureLayer) {
        let cipherOut = self.cipherOut
        while true {
            queue(&tls.pending, cipherOut.bytes)
            cipherOut.removeAll()
            if !tls.session.hasPendingOutput { return }
            take(tls.session)
        }
    }

    private func writePending<C: SecurableConnection>(_ c: C, _ tls: SecureLayer) -> Bool {
        guard let pending = tls.pending else { return true }
        switch transport.write(c.socket, pending.bytes, RawSpan()) {
        case .bytes(let n):
            pending.consume(n)
            if pending.isEmpty {
                giveBack(&tls.pending)
            } else {
                c.flags.insert(.blocked)
            }
            return true
        case .wouldBlock:
            c.flags.insert(.blocked)
            return true
        case .failed:
            return false
        }
    }

    /// Sends what the session itself has to say: its part of the handshake, an alert. False: broken.
    func emit<C: SecurableConnection>(_ c: C, _ tls: SecureLayer) -> Bool {
        guard tls.session.hasPendingOutput else { return true }
        cipherOut.removeAll()
        take(tls.session)
        if tls.pending == nil { return writeCipher(c, tls) }
        keep(tls)
        return true
    }

    /// Says that we send no more, as far as the kernel takes it: whoever waits for it can tell an end from a cut.
    func sayGoodbye<C: SecurableConnection>(_ c: C, _ tls: SecureLayer) {
        guard !tls.saidGoodbye, !tls.isHandshaking else { return }
        tls.saidGoodbye = true
        cipherOut.removeAll()
        var progress = TLSProgress.done
        cipherOut.write { progress = tls.session.close(output: &$0) }
        guard progress == .done else { return }
        if tls.pending == nil {
            _ = writeCipher(c, tls)
            // What the kernel did not take is left out: written after the end it would break what is on its way.
            giveBack(&tls.pending)
        }
    }
}
