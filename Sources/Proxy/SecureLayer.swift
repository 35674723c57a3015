// The seam of TLS: what stands between a downstream connection's socket and its buffers. Everything behind it reads
// and writes plain bytes, and knows of TLS only that `Downstream.tls` is there.
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

/// The TLS layer of one downstream connection.
final class SecureLayer {
    let session: TLSSession
    /// No byte of a request can have come yet, and none of a response can go.
    var isHandshaking = true
    /// The client has said that it sends no more (close_notify): what ends now ends whole.
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
    /// The last host that was found to be served with the same certificate, for the one that asks again.
    var agreedHost: [UInt8] = []
    var agreedTable: CertificateTable?

    init(_ session: TLSSession) {
        self.session = session
    }
}

extension Loop {
    // MARK: Reading

    /// Reads the socket once and decrypts what came into `scratch`, which is empty. Ends and failures are told to the
    /// machine, as `didRead` does for plain bytes.
    ///
    /// All that was read is decrypted at once, so that nothing waits where no edge would tell of it: half a record rests
    /// in the session, at most 16 KiB, and with what is read here it fits into `scratch`.
    func receive(_ d: Downstream, _ tls: SecureLayer) {
        if tls.hasEnded {
            d.flags.remove(.readable)
            d.flags.insert(.endRead)
            downstreamEnded(d)
            return
        }
        let cipher = cipherIn
        cipher.removeAll()
        if let early = tls.early {
            // At most `ClientHello.maxCount` and one read: it fits.
            cipher.append(early.bytes)
            giveBack(&tls.early)
            decrypt(d, tls, cipher)
            return
        }
        let room = cipher.room
        switch transport.read(d.socket, into: cipher) {
        case .bytes(let n):
            if n < room, !d.flags.contains(.ended) { d.flags.remove(.readable) }
            decrypt(d, tls, cipher)
        case .wouldBlock:
            d.flags.remove(.readable)
        case .end:
            d.flags.remove(.readable)
            d.flags.insert(.endRead)
            cut(d, tls)
        case .failed:
            if tls.isHandshaking { telemetry.handshakeFailed(.cut) }
            perform(d, .broken)
        }
    }

    /// The connection ended without a goodbye: somebody may have cut it (RFC 8446 §6.1). Whether what came is whole is
    /// for the framing of HTTP to say, and a tunnel has none.
    private func cut(_ d: Downstream, _ tls: SecureLayer) {
        if tls.isHandshaking { telemetry.handshakeFailed(.cut) }
        if d.machine.isTunnelling {
            perform(d, .broken)
        } else {
            downstreamEnded(d)
        }
    }

    private func decrypt(_ d: Downstream, _ tls: SecureLayer, _ cipher: Buffer) {
        if tls.isHandshaking {
            switch shake(tls, cipher) {
            case .needsInput:
                emit(d, tls)
                return
            case .done:
                emit(d, tls)
                guard !d.machine.isClosed else { return }
                secured(d, tls)
                // The first request may have come with the end of the handshake.
                guard !d.machine.isClosed else { return }
            case .ended, .failed:
                handshakeFailed(d, tls, cipher)
                return
            }
        }
        var progress = TLSProgress.needsInput
        var unread = 0
        func step(_ input: RawSpan) {
            scratch.write { progress = tls.session.read(input, unread: &unread, into: &$0) }
        }
        step(cipher.bytes)
        if tls.session.hasPendingOutput { emit(d, tls) }
        switch progress {
        case .needsInput: break
        case .ended:
            // Told when what came before it has been taken: `receive` is called again.
            tls.hasEnded = true
            d.flags.insert(.readable)
        case .done, .failed:
            // `done` would mean that `scratch` was too small, which it can't be.
            if progress == .done { telemetry.bug() }
            scratch.removeAll()
            perform(d, .broken)
        }
    }

    /// One step of the handshake; what is left of the input stays in `cipher`.
    private func shake(_ tls: SecureLayer, _ cipher: Buffer) -> TLSProgress {
        var unread = 0
        func step(_ input: RawSpan) -> TLSProgress { tls.session.handshake(input, unread: &unread) }
        let progress = step(cipher.bytes)
        cipher.consume(cipher.count - unread)
        return progress
    }

    /// The handshake is done: from here on plain bytes go both ways, in the protocol that was agreed.
    private func secured(_ d: Downstream, _ tls: SecureLayer) {
        let channel = tls.session.channel()
        tls.isHandshaking = false
        tls.channel = channel
        tls.certificate = tls.session.chosen.name
        tls.applicationProtocol = ApplicationProtocol(channel.applicationProtocol)
        telemetry.handshakeFinished(wasResumed: channel.wasResumed)
        setDeadline(d, after: configuration.timeouts.requestHead)
        // What is spoken has been agreed: it is not for the first bytes to say.
        d.flags.remove(.fresh)
        guard tls.applicationProtocol == .http2 else { return }
        beginHTTP2(d)
        if announcesClose { announceEnd(d) }
    }

    private func handshakeFailed(_ d: Downstream, _ tls: SecureLayer, _ cipher: Buffer) {
        let failure = tls.session.failure
        telemetry.handshakeFailed(failure)
        if failure == .notTLS {
            // Whoever spoke plain HTTP by mistake understands no alert.
            d.tls = nil
            giveBack(&tls.pending)
            giveBack(&tls.early)
            perform(d, .headRefused)
            refuse(beginFlight(d), Refusal(400, .plainHTTP))
            return
        }
        // The alert, which says why (RFC 8446 §6.2).
        emit(d, tls)
        guard !d.machine.isClosed else { return }
        perform(d, .peerEnded)
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

    private static func isSame(_ name: [UInt8], _ host: Span<UInt8>) -> Bool {
        guard name.count == host.count else { return false }
        for i in name.indices where MessageHead.lower(name[i]) != MessageHead.lower(host[i]) { return false }
        return true
    }

    // MARK: Writing

    /// Writes what is queued and then `more`. See `write` of a socket: what can't go is kept, and the connection counts
    /// as blocked. False: broken.
    func writeSecure(_ d: Downstream, _ tls: SecureLayer, _ more: RawSpan) -> Bool {
        if d.flags.contains(.blocked) {
            queue(&d.output, more)
            return true
        }
        if tls.pending != nil, !writePending(d, tls) { return false }
        if tls.isHandshaking {
            queue(&d.output, more)
            return true
        }
        var offset = 0
        while !d.flags.contains(.blocked) {
            var budget = Self.plainAtOnce
            cipherOut.removeAll()
            if let output = d.output {
                let count = min(output.count, budget)
                guard encrypt(tls, output.bytes.extracting(first: count)) else { return false }
                output.consume(count)
                budget -= count
                if output.isEmpty { giveBack(&d.output) }
            }
            if d.output == nil, budget > 0, offset < more.byteCount {
                let count = min(more.byteCount - offset, budget)
                guard encrypt(tls, more.extracting(offset..<(offset + count))) else { return false }
                offset += count
            }
            if cipherOut.isEmpty, !tls.session.hasPendingOutput { return true }
            if !writeCipher(d, tls) { return false }
        }
        queue(&d.output, more.extracting(droppingFirst: offset))
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
    private func writeCipher(_ d: Downstream, _ tls: SecureLayer) -> Bool {
        let cipherOut = self.cipherOut
        while true {
            if !cipherOut.isEmpty {
                switch transport.write(d.socket, cipherOut.bytes, RawSpan()) {
                case .bytes(let n): cipherOut.consume(n)
                case .wouldBlock: break
                case .failed: return false
                }
            }
            if !cipherOut.isEmpty {
                d.flags.insert(.blocked)
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

    private func writePending(_ d: Downstream, _ tls: SecureLayer) -> Bool {
        guard let pending = tls.pending else { return true }
        switch transport.write(d.socket, pending.bytes, RawSpan()) {
        case .bytes(let n):
            pending.consume(n)
            if pending.isEmpty {
                giveBack(&tls.pending)
            } else {
                d.flags.insert(.blocked)
            }
            return true
        case .wouldBlock:
            d.flags.insert(.blocked)
            return true
        case .failed:
            return false
        }
    }

    /// Sends what the session itself has to say: its part of the handshake, an alert.
    private func emit(_ d: Downstream, _ tls: SecureLayer) {
        guard tls.session.hasPendingOutput else { return }
        cipherOut.removeAll()
        take(tls.session)
        if tls.pending != nil {
            keep(tls)
        } else if !writeCipher(d, tls) {
            perform(d, .broken)
        }
    }

    /// Says that we send no more, as far as the kernel takes it: whoever waits for it can tell an end from a cut.
    func sayGoodbye(_ d: Downstream, _ tls: SecureLayer) {
        guard !tls.saidGoodbye, !tls.isHandshaking else { return }
        tls.saidGoodbye = true
        cipherOut.removeAll()
        var progress = TLSProgress.done
        cipherOut.write { progress = tls.session.close(output: &$0) }
        guard progress == .done else { return }
        if tls.pending == nil {
            _ = writeCipher(d, tls)
            // What the kernel did not take is left out: written after the end it would break what is on its way.
            giveBack(&tls.pending)
        }
    }
}
