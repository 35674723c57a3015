// Where a body is changed on its way, behind all scripts: compression for the client, and gRPC-Web. A response that is
// not touched costs one comparison; one that is goes through here part by part, under the same back-pressure as any other.
//
// What the upstream has sent is never held for what it has not sent yet: when it has been read dry, what the encoder keeps
// is flushed. Only while more is there already, or the client does not take more, may the encoder wait.
internal import Compression
internal import HTTPWire
internal import Model
internal import Reactor

/// What an exchange needs besides when bodies are changed.
final class Recoding {
    /// What the client reads, as it said before scripts ran: they may ask something else of the upstream.
    let accepted: AcceptEncoding?
    /// The request had a cookie or credentials when it came: its response belongs to somebody.
    let isSecret: Bool
    var encoder: ContentEncoder?
    var bridge: GRPCWebBridge?
    /// The response's body is being changed.
    var changesResponse = false

    init(accepted: AcceptEncoding? = nil, isSecret: Bool = false) {
        self.accepted = accepted
        self.isSecret = isSecret
    }
}

extension Loop {
    private func changed() -> Buffer {
        if let buffer = recoded { return buffer }
        let buffer = Buffer(capacity: 32 * 1024)
        recoded = buffer
        return buffer
    }

    /// Scripts may change what the client said of itself: what it reads is kept.
    func rememberAccepted(_ f: Flight) {
        let request = f.exchange.request
        let isSecret =
            request.firstIndex(of: .cookie) != nil || request.firstIndex(of: .authorization) != nil
            || request.firstIndex(of: .proxyAuthorization) != nil
        f.recoding = Recoding(accepted: AcceptEncoding(request), isSecret: isSecret)
    }

    /// The exchange is over, or its response is replaced.
    func endRecoding(_ f: Flight) {
        guard let recoding = f.recoding else { return }
        if let encoder = recoding.encoder {
            recoding.encoder = nil
            encoders.giveBack(encoder)
        }
        recoding.changesResponse = false
        f.exchange.coding = nil
    }

    // MARK: The head

    /// Looks at the response's head once more before it is written.
    func prepareRecoding(_ f: Flight) {
        let exchange = f.exchange
        if let recoding = f.recoding, let bridge = recoding.bridge {
            if GRPCWeb.fromGRPC(&exchange.response, isText: bridge.isResponseText),
                !f.responseFacts.body.isEmpty || onlyTrailersFollow(f)
            {
                recoding.changesResponse = true
            }
            return
        }
        guard !f.policy.codings.isEmpty else { return }
        if exchange.response.status == 304 {
            CompressionRule.weakenNotModified(request: exchange.request, &exchange.response)
            // As the 200 has it (RFC 9110 §15.4.5), whose type is not known here: where it was none to compress, it is idle.
            CompressionRule.vary(&exchange.response)
            return
        }
        let verdict = CompressionRule.judge(
            request: exchange.request, response: exchange.response, body: f.responseFacts.body,
            accepted: f.recoding?.accepted ?? AcceptEncoding(exchange.request), codings: f.policy.codings,
            coversSecrets: f.policy.compressesSecrets,
            isAuthenticated: exchange.client.certificate != nil || f.recoding?.isSecret == true,
            limits: configuration.compression.limits)
        switch verdict {
        case .untouched: break
        case .varies: CompressionRule.vary(&exchange.response)
        case .compress(let coding):
            guard let encoder = encoders.take(coding) else {
                telemetry.compressionSkipped()
                CompressionRule.vary(&exchange.response)
                return
            }
            CompressionRule.announce(coding, in: &exchange.response)
            exchange.coding = coding
            let recoding = f.recoding ?? Recoding()
            recoding.encoder = encoder
            recoding.changesResponse = true
            f.recoding = recoding
        }
    }

    // MARK: The response's body

    /// A part of the body has come.
    func recode(_ f: Flight, _ recoding: Recoding, _ bytes: RawSpan) {
        if let encoder = recoding.encoder {
            f.exchange.bytesBeforeCoding &+= UInt64(bytes.byteCount)
            if !encode(f, encoder, bytes, .takeIn) { lost(f) }
        } else if recoding.bridge?.isResponseText == true {
            _ = writeText(f, recoding, bytes, ends: false)
        } else {
            passResponseBody(f, bytes)
        }
    }

    /// The upstream has sent no more for now: what it has sent goes out.
    func flushRecoding(_ f: Flight) {
        guard let recoding = f.recoding, recoding.changesResponse, f.machine.isStreaming, let d = f.downstream,
            !d.flags.contains(.blocked)
        else { return }
        if let encoder = recoding.encoder {
            if encoder.hasUnflushed, !encode(f, encoder, RawSpan(), .flush) { lost(f) }
        } else if recoding.bridge?.encoder.isPending == true {
            _ = writeText(f, recoding, RawSpan(), ends: true)
        }
    }

    /// The body is complete: what is still held goes out, and what ends it. False: it cannot be completed.
    func endRecodedBody(_ f: Flight, _ recoding: Recoding) -> Bool {
        if let encoder = recoding.encoder { return encode(f, encoder, RawSpan(), .end) }
        guard recoding.bridge != nil else { return true }
        // The trailers of gRPC, as the client can read them. A head that held the status had no body, and is not here.
        var frame: [UInt8] = []
        if !f.responseTrailers.fields.isEmpty, HTTP2Head.list(trailers: f.responseTrailers, into: &fieldList) {
            frame = GRPCWeb.trailerFrame(fieldList)
        }
        let last = Buffer(capacity: frame.count)
        last.append(frame)
        if recoding.bridge?.isResponseText == true { return writeText(f, recoding, last.bytes, ends: true) }
        if !last.isEmpty { passResponseBody(f, last.bytes) }
        return f.downstream.map { !$0.machine.isClosed } ?? false
    }

    /// The encoder is out of memory, and the head has gone: all that can be done is to let the client see it.
    private func lost(_ f: Flight) {
        // If it is the client that has gone, that is known already.
        guard f.machine.isStreaming else { return }
        fail(f, .internalError)
    }

    /// False when the stream is lost, or its client has gone.
    private func encode(
        _ f: Flight, _ encoder: ContentEncoder, _ bytes: RawSpan, _ operation: EncoderOperation
    ) -> Bool {
        let output = changed()
        var offset = 0
        while true {
            output.removeAll()
            let before = offset
            var progress = EncoderProgress.failed
            output.write { progress = encoder.write(bytes, at: &offset, operation, to: &$0) }
            let isStuck = offset == before && output.isEmpty
            if !output.isEmpty {
                passResponseBody(f, output.bytes)
                guard f.recoding?.encoder === encoder, let d = f.downstream, !d.machine.isClosed else { return false }
            }
            switch progress {
            case .done: return true
            case .failed: return false
            // A library that takes nothing and gives nothing would be asked for ever.
            case .needsRoom: if isStuck { return false }
            }
        }
    }

    /// Base64 for clients that read text. Each part is padded: such texts may follow each other.
    private func writeText(_ f: Flight, _ recoding: Recoding, _ bytes: RawSpan, ends: Bool) -> Bool {
        let output = changed()
        var offset = 0
        var isDone = false
        while !isDone, var bridge = recoding.bridge {
            output.removeAll()
            output.write { room in
                isDone = bridge.encoder.write(Span<UInt8>(_bytes: bytes), at: &offset, to: &room)
                if isDone, ends { isDone = bridge.encoder.flush(to: &room) }
            }
            recoding.bridge = bridge
            if !output.isEmpty {
                passResponseBody(f, output.bytes)
                guard f.recoding === recoding, let d = f.downstream, !d.machine.isClosed else { return false }
            }
        }
        return true
    }

    // MARK: gRPC-Web

    /// A request of gRPC-Web becomes one of gRPC.
    func bridgeRequest(_ f: Flight) {
        guard f.recoding?.bridge == nil, let bridge = GRPCWeb.toGRPC(&f.exchange.request) else { return }
        let recoding = f.recoding ?? Recoding()
        recoding.bridge = bridge
        f.recoding = recoding
        f.facts.acceptsTrailers = true
        // Base64 is longer than what it says, by how much is known only at its end.
        if bridge.isRequestText, !f.facts.body.isEmpty { f.facts.body = .chunked }
    }

    /// A part of the request's body, to be sent as bytes. False: it is no base64.
    func decodeRequest(_ f: Flight, _ u: UpstreamConnection, _ bytes: RawSpan) -> Bool {
        guard let recoding = f.recoding, recoding.bridge?.isRequestText == true else {
            passRequestBody(f, u, bytes)
            return true
        }
        let output = changed()
        var offset = 0
        while var bridge = recoding.bridge {
            output.removeAll()
            var progress = Base64Decoder.Progress.malformed
            output.write { progress = bridge.decoder.read(Span<UInt8>(_bytes: bytes), at: &offset, to: &$0) }
            recoding.bridge = bridge
            if progress == .malformed { return false }
            if !output.isEmpty { passRequestBody(f, u, output.bytes) }
            guard progress == .needsRoom, f.upstream === u else { break }
        }
        return true
    }

    /// The request's body has ended where a message may end.
    func isRequestWhole(_ f: Flight) -> Bool { f.recoding?.bridge?.decoder.isWhole ?? true }
}
