// The TLS layer of one connection, sans-IO: bytes of the network in, bytes of the network out, plain text between.
// The loop reads and writes the socket; the session never sees it.

internal import CTLS
package import Model

/// What an operation on a session came to.
package enum TLSProgress: UInt8, Sendable, Hashable {
    case done
    /// Nothing more can be done before more bytes of the network have come.
    case needsInput
    /// The peer has said that it sends no more.
    case ended
    /// The session is broken; `failure` says why.
    case failed
}

/// Chooses a context by the name that the client asked for (SNI, lower case; empty if it named none). Nil refuses the
/// handshake with `unrecognized_name`.
package protocol CertificateChooser: AnyObject {
    func context(for name: String) -> TLSContext?
}

/// One TLS connection. Belongs to one loop.
@safe package final class TLSSession {
    // SAFETY (of every use below): made in `init`, freed in `deinit`. Memory is lent to the C session only within one
    // method, and the loan is ended before the method returns, so that it never outlives the span that it came from.
    private let raw: OpaquePointer
    /// Holds the contexts' owner and the chooser while C may call it.
    private let context: TLSContext
    private let chooser: (any CertificateChooser)?

    /// Nil without memory.
    package init?(accepting context: TLSContext, chooser: (any CertificateChooser)? = nil) {
        self.context = context
        self.chooser = chooser
        let choose: mg_tls_choose? =
            chooser == nil
            ? nil
            : { user, name, count in
                // Proof: `user` is the box that `init` made and `deinit` releases; `name` holds `count` bytes.
                guard let user = unsafe user else { return nil }
                let box = unsafe Unmanaged<ChooserBox>.fromOpaque(user).takeUnretainedValue()
                let name = unsafe String(decoding: UnsafeRawBufferPointer(start: name, count: count), as: UTF8.self)
                guard let chosen = box.chooser.context(for: name) else { return nil }
                box.chosen = chosen
                return unsafe chosen.raw
            }
        let box = chooser.map { ChooserBox($0) }
        self.box = box
        let user = unsafe box.map { unsafe Unmanaged.passUnretained($0).toOpaque() }
        guard let made = unsafe mg_tls_session_accept(context.raw, choose, user) else { return nil }
        unsafe raw = unsafe made
    }

    /// To a server that must prove to be `name`, where the context verifies.
    /// - Parameters:
    ///   - sendsName: the server is told the name by SNI; never an address (RFC 6066 §3).
    ///   - resumption: of earlier sessions with the same server, context and name.
    package init?(
        connecting context: TLSContext, to name: String, sendsName: Bool = true, resumption: TLSResumption? = nil
    ) {
        self.context = context
        chooser = nil
        box = nil
        guard let made = unsafe mg_tls_session_connect(context.raw, name, sendsName, resumption?.raw) else {
            return nil
        }
        unsafe raw = unsafe made
    }

    deinit {
        unsafe mg_tls_session_free(raw)
    }

    private let box: ChooserBox?

    private final class ChooserBox {
        let chooser: any CertificateChooser
        /// Keeps the chosen context alive as long as the session.
        var chosen: TLSContext?

        init(_ chooser: any CertificateChooser) {
            self.chooser = chooser
        }
    }

    /// Takes this for the time (seconds since 1970), in the place of the system's: before the handshake.
    package func setTime(_ now: Int64) { unsafe mg_tls_set_time(raw, now) }

    /// Goes on with the handshake. `input` is consumed in part or whole: `unread` says how much is left of it. What is to
    /// be sent is kept inside: see `flush`, also after a failure.
    package func handshake(_ input: borrowing RawSpan, unread: inout Int) -> TLSProgress {
        unsafe feed(input, &unread) { unsafe mg_tls_handshake($0) }
    }

    /// Decrypts into `into`, as much as fits and is there; something may have come whatever is answered. `.done` means
    /// that there was no more room, `.needsInput` that all of `input` is used up. What is to be sent (an alert, an
    /// answer to a change of keys) is kept inside: see `flush`.
    package func read(_ input: borrowing RawSpan, unread: inout Int, into: inout OutputRawSpan) -> TLSProgress {
        unsafe feed(input, &unread) { raw in
            // Proof: the free room of `into` is written for `got` bytes at most, and then counted as initialised.
            unsafe into.withUnsafeMutableBytes { room, count in
                var got = 0
                let free = unsafe UnsafeMutableRawBufferPointer(rebasing: room[count...])
                guard let base = free.baseAddress, unsafe !free.isEmpty else { return MG_TLS_OK }
                let status = unsafe mg_tls_read(raw, base.assumingMemoryBound(to: UInt8.self), free.count, &got)
                count += got
                return status
            }
        }
    }

    /// Encrypts all of `plain`. What does not fit into `output` is kept inside: see `flush`.
    package func write(_ plain: borrowing RawSpan, output: inout OutputRawSpan) -> TLSProgress {
        let count = plain.byteCount
        if count == 0 { return .done }
        return unsafe plain.withUnsafeBytes { bytes in
            let base = bytes.baseAddress
            return unsafe lend(&output) { raw in
                // Proof: `bytes` lives as long as this closure.
                unsafe mg_tls_write(raw, base?.assumingMemoryBound(to: UInt8.self), count)
            }
        }
    }

    /// Says that we send no more (close_notify). Nothing is said of a session that failed, or never began.
    package func close(output: inout OutputRawSpan) -> TLSProgress {
        unsafe lend(&output) { unsafe mg_tls_close($0) }
    }

    /// Takes new keys and asks the peer for its own (RFC 8446 §4.6.3): what a flood of costs us, tests show.
    package func updateKeys(output: inout OutputRawSpan) -> TLSProgress {
        unsafe lend(&output) { unsafe mg_tls_update_keys($0) }
    }

    /// Moves what was kept inside into `output`. True when nothing is left.
    package func flush(output: inout OutputRawSpan) -> Bool {
        _ = unsafe lend(&output) { raw in
            unsafe mg_tls_flush(raw)
            return MG_TLS_OK
        }
        return unsafe mg_tls_pending_output(raw) == 0
    }

    package var hasPendingOutput: Bool { unsafe mg_tls_pending_output(raw) != 0 }

    private func feed(
        _ input: borrowing RawSpan, _ unread: inout Int, _ body: (OpaquePointer) -> mg_tls_status
    ) -> TLSProgress {
        // Proof: the loan ends inside the closure that lends the memory.
        unsafe input.withUnsafeBytes { input in
            unsafe mg_tls_feed(raw, input.baseAddress?.assumingMemoryBound(to: UInt8.self), input.count)
            let status = unsafe body(raw)
            unread = unsafe mg_tls_unread(raw)
            unsafe mg_tls_feed(raw, nil, 0)
            return TLSProgress(status)
        }
    }

    private func lend(_ output: inout OutputRawSpan, _ body: (OpaquePointer) -> mg_tls_status) -> TLSProgress {
        // Proof: the loan ends inside the closure that lends the memory, and what was written of it is counted.
        unsafe output.withUnsafeMutableBytes { room, count in
            let free = unsafe UnsafeMutableRawBufferPointer(rebasing: room[count...])
            unsafe mg_tls_lend_output(raw, free.baseAddress?.assumingMemoryBound(to: UInt8.self), free.count)
            let status = unsafe body(raw)
            count += unsafe mg_tls_take_output(raw)
            return TLSProgress(status)
        }
    }

    // MARK: What was agreed

    package var failure: TLSFailure {
        TLSFailure(rawValue: UInt8(truncatingIfNeeded: unsafe mg_tls_error(raw).rawValue)) ?? .other
    }
    /// What the session goes by: the context that it began with, or what its client's name chose.
    package var chosen: TLSContext { box?.chosen ?? context }
    package var version: TLSVersion? { TLSVersion(rawValue: unsafe mg_tls_version(raw)) }
    package var cipher: String { unsafe String(cString: mg_tls_cipher(raw)) }
    package var wasResumed: Bool { unsafe mg_tls_was_resumed(raw) }
    /// The name that the client asked for; empty if none.
    package var serverName: String { unsafe String(cString: mg_tls_server_name(raw)) }

    /// The protocol of RFC 7301; empty if none was agreed.
    package var applicationProtocol: String {
        var count = 0
        let bytes = unsafe mg_tls_alpn(raw, &count)
        return unsafe String(decoding: UnsafeRawBufferPointer(start: bytes, count: count), as: UTF8.self)
    }

    /// What was agreed, for whoever speaks of it: once a connection.
    package func channel() -> SecureChannel {
        var name = Array(serverName.utf8)
        if name.last == UInt8(ascii: ".") { name.removeLast() }
        return SecureChannel(
            version: Array((version?.description ?? "").utf8), cipher: Array(cipher.utf8),
            serverName: name.map { (65...90).contains($0) ? $0 | 0x20 : $0 },
            applicationProtocol: Array(applicationProtocol.utf8), wasResumed: wasResumed,
            clientCertificate: chosen.clients == nil ? nil : clientCertificate())
    }

    /// The client's certificate, as it was judged in the handshake; nil where it has shown none.
    private func clientCertificate() -> ClientCertificate? {
        var subject = [CChar](repeating: 0, count: 4096)
        var issuer = [CChar](repeating: 0, count: 4096)
        var names = [CChar](repeating: 0, count: 8192)
        var pem = [CChar](repeating: 0, count: 16_384)
        var client = unsafe mg_tls_client()
        // Proof: every array is as long as the size beside it says, and the pointers are used within the closures that
        // lend them.
        let status = unsafe subject.withUnsafeMutableBufferPointer { subject in
            unsafe issuer.withUnsafeMutableBufferPointer { issuer in
                unsafe names.withUnsafeMutableBufferPointer { names in
                    unsafe pem.withUnsafeMutableBufferPointer { pem in
                        unsafe client.subject = subject.baseAddress
                        unsafe client.subject_size = subject.count
                        unsafe client.issuer = issuer.baseAddress
                        unsafe client.issuer_size = issuer.count
                        unsafe client.names = names.baseAddress
                        unsafe client.names_size = names.count
                        unsafe client.pem = pem.baseAddress
                        unsafe client.pem_size = pem.count
                        return unsafe mg_tls_client_certificate(raw, &client)
                    }
                }
            }
        }
        let isTooLarge = status == MG_TLS_CLIENT_TOO_LARGE
        guard status == MG_TLS_CLIENT_TOLD || isTooLarge else { return nil }
        let judgement = unsafe Self.judgement(client)
        // Proof: 64 hexadecimal digits and their end, or an empty text.
        let fingerprint = unsafe withUnsafeBytes(of: client.fingerprint) { digits in
            unsafe digits.prefix { $0 != 0 }.map { $0 }
        }
        return ClientCertificate(
            subject: Array(text(subject).utf8), issuer: Array(text(issuer).utf8),
            names: text(names).split(separator: "\n").map { Array($0.utf8) }, fingerprint: fingerprint,
            pem: isTooLarge ? [] : Array(text(pem).utf8), verdict: isTooLarge ? .bad : judgement.verdict,
            problem: isTooLarge ? Array("certificate too large".utf8) : judgement.problem,
            notAfter: unsafe client.not_after)
    }

    private static func judgement(_ client: mg_tls_client) -> (verdict: ClientCertificate.Verdict, problem: [UInt8]) {
        guard unsafe client.problem != 0 else { return (.good, []) }
        // Proof: a text that OpenSSL holds for ever, with its end.
        let problem = unsafe client.problem_text.map { unsafe Array(String(cString: $0).utf8) } ?? []
        return (unsafe client.is_untrusted ? .untrusted : .bad, problem)
    }

    /// Judges the client's certificate by another context, as a full handshake would: what it was judged by has changed
    /// since. Nil where it has shown none. Of a session that was resumed the chain above it is not known any more.
    /// - Parameter now: seconds since 1970.
    package func judgeAgain(
        _ certificate: ClientCertificate, by context: TLSContext, now: Int64
    ) -> ClientCertificate? {
        // Of one that was too large nothing is known that could be relied on.
        if certificate.pem.isEmpty { return certificate }
        var client = unsafe mg_tls_client()
        // Proof: both are alive during the call, which only reads the context.
        guard unsafe mg_tls_judge_again(raw, context.raw, now, &client) else { return nil }
        let judgement = unsafe Self.judgement(client)
        return certificate.judged(judgement.verdict, judgement.problem)
    }

    package struct Peer: Sendable, Hashable {
        /// RFC 2253.
        package var subject: String
        /// SHA-256 in hex.
        package var fingerprint: String
        package var isVerified: Bool
    }

    package var peer: Peer? {
        var subject = [CChar](repeating: 0, count: 512)
        var fingerprint = [CChar](repeating: 0, count: 65)
        var isVerified = false
        // Proof: the arrays are as long as the callee is told, and 65 for the fingerprint.
        guard unsafe mg_tls_peer_certificate(raw, &subject, subject.count, &fingerprint, &isVerified) else {
            return nil
        }
        return Peer(subject: text(subject), fingerprint: text(fingerprint), isVerified: isVerified)
    }
}

/// What makes the next handshake with one server short. Belongs to one loop.
@safe package final class TLSResumption {
    // SAFETY: made in `init`, released in `deinit`, never nil in between; counted atomically.
    fileprivate let raw: OpaquePointer

    /// Nil without memory.
    package init?() {
        guard let made = unsafe mg_tls_resumption_new() else { return nil }
        unsafe raw = unsafe made
    }

    deinit {
        unsafe mg_tls_resumption_release(raw)
    }

    /// A server has given something to come back with.
    package var isFilled: Bool { unsafe mg_tls_resumption_is_filled(raw) }
}

extension TLSProgress {
    init(_ status: mg_tls_status) {
        switch status {
        case MG_TLS_OK: self = .done
        case MG_TLS_WANT: self = .needsInput
        case MG_TLS_ENDED: self = .ended
        default: self = .failed
        }
    }
}
