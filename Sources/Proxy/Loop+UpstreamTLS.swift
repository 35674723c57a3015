// Step 6 of a request's walk, the far side over TLS: the handshake with an endpoint, and what tells a connection that may
// be used again from one that may not. Everything else passes through the seam in SecureLayer.swift.
internal import Model
internal import Reactor
internal import TLSEngine
internal import Telemetry
internal import Upstreams

/// Whose sessions may be resumed with each other: those of one endpoint that are made alike.
struct ResumptionKey: Hashable {
    let security: ObjectIdentifier
    let address: Model.SocketAddress
}

struct Resumable {
    /// Held, so that nobody else can have its identity.
    let security: UpstreamSecurity
    let resumption: TLSResumption
    /// In seconds since 1970: then an authority or a revocation list ends that the first handshake went by.
    let until: Int64
}

extension FailureReason {
    /// Of a handshake with an endpoint that failed.
    init(handshake failure: TLSFailure) {
        switch failure {
        case .wrongName: self = .upstreamTLSName
        case .unknownAuthority, .expired, .badCertificate: self = .upstreamTLSCertificate
        case .timeout: self = .upstreamTLSTimeout
        case .none, .protocolError, .version, .cipher, .noCertificate, .alpn, .notTLS, .cut, .alert, .memory, .other:
            self = .upstreamTLSHandshake
        }
    }
}

extension Loop {
    // MARK: The handshake

    /// The socket is connected: our hello goes out. The time for it is the one for connecting.
    func shakeHands(_ u: UpstreamConnection) {
        guard let tls = u.tls else { return }
        var unread = 0
        guard tls.session.handshake(RawSpan(), unread: &unread) == .needsInput, emit(u, tls) else {
            handshakeFailed(u, tls.session.failure == .none ? .cut : tls.session.failure)
            return
        }
        if u.flags.contains(.readable) { enqueue(u) }
    }

    func handshakeFailed(_ u: UpstreamConnection, _ failure: TLSFailure) {
        telemetry.upstreamHandshakeFailed(failure)
        u.carrier?.handshakeFailure = FailureReason(handshake: failure)
        u.flight?.exchange.reason = FailureReason(handshake: failure)
        perform(u, .failed)
    }

    /// The handshake is done: the request goes out. False if nothing more is to be read.
    private func secured(_ u: UpstreamConnection, _ tls: SecureLayer) -> Bool {
        let channel = tls.session.channel()
        tls.isHandshaking = false
        tls.channel = channel
        tls.applicationProtocol = ApplicationProtocol(channel.applicationProtocol)
        if u.security?.needsHTTP2 == true, tls.applicationProtocol != .http2 {
            handshakeFailed(u, .alpn)
            return false
        }
        telemetry.upstreamHandshakeFinished(wasResumed: channel.wasResumed)
        perform(u, .connected)
        return !u.machine.isClosed
    }

    // MARK: Reading

    /// Reads once from an endpoint; plain bytes are in `scratch`. Ends and failures are told as `didRead` does.
    func receive(_ u: UpstreamConnection, _ tls: SecureLayer) {
        var event = readSecure(u, tls)
        if event == .secured {
            guard secured(u, tls) else { return }
            event = decrypt(u, tls)
        }
        switch event {
        case .received: break
        case .secured: telemetry.bug()
        case .refused:
            // The alert says why (RFC 8446 §6.2).
            _ = emit(u, tls)
            handshakeFailed(u, tls.session.failure)
        case .ended:
            u.flags.insert(.ended)
            ended(u, .whole)
        case .cut:
            u.flags.insert(.ended)
            if u.machine.isSecuring { handshakeFailed(u, .cut) } else { ended(u, .cut) }
        case .broken:
            u.flags.remove(.readable)
            u.flags.insert(.ended)
            let failure = tls.session.failure
            if u.machine.isSecuring {
                handshakeFailed(u, failure == .none ? .cut : failure)
            } else if failure == .none {
                u.carrier?.reason = .upstreamReset
                ended(u, .broken)
            } else {
                // By TLS 1.3 a server that will not have our certificate says so after the handshake.
                telemetry.upstreamHandshakeFailed(failure)
                u.carrier?.reason = FailureReason(handshake: failure)
                ended(u, .broken, because: FailureReason(handshake: failure))
            }
        }
    }

    /// Whether there is more on the connection than its response. A server's session tickets are none of it.
    func hasSurplus(_ u: UpstreamConnection, _ tls: SecureLayer) -> Bool {
        guard scratch.isEmpty else { return true }
        for _ in 0..<4 {
            guard u.flags.contains(.readable) else { return tls.hasEnded }
            guard readSecure(u, tls) == .received, scratch.isEmpty else {
                scratch.removeAll()
                return true
            }
        }
        return true
    }

    // MARK: The end

    /// The connection is about to be closed.
    func endSecurity(_ u: UpstreamConnection, _ tls: SecureLayer) {
        if u.output == nil { sayGoodbye(u, tls) }
        giveBack(&tls.pending)
    }

    // MARK: Sessions

    /// Endpoints whose sessions are remembered; beyond, one of them makes room.
    private static var mostResumptions: Int { 1024 }

    /// What earlier connections to an endpoint have left.
    func resumption(_ security: UpstreamSecurity, _ address: Model.SocketAddress) -> TLSResumption? {
        let key = ResumptionKey(security: ObjectIdentifier(security), address: address)
        if let known = resumptions[key], dateSecond < known.until { return known.resumption }
        guard let made = TLSResumption() else { return nil }
        resumptions[key] = nil
        if resumptions.count >= Self.mostResumptions { resumptions.remove(at: resumptions.startIndex) }
        resumptions[key] = Resumable(security: security, resumption: made, until: security.holds(from: dateSecond))
        return made
    }

    /// What was agreed under settings that are in force no more is worth nothing.
    func forgetResumptions(notIn publication: Publication) {
        guard publication.hasSecurities else {
            resumptions.removeAll()
            return
        }
        var inForce: Set<ObjectIdentifier> = []
        for index in 0..<Int32(clamping: publication.snapshot.upstreams.count) {
            if let security = publication.security(of: index) { inForce.insert(ObjectIdentifier(security)) }
        }
        resumptions = resumptions.filter { inForce.contains($0.key.security) }
    }
}
