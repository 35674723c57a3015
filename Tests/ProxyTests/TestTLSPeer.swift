// An upstream's side of TLS, for the simulated network.
import Model
import Reactor
import TLSEngine
import Testing

@testable import Proxy

enum TestTLS {
    private static let pair = try? TLSKeyPair.selfSigned(name: "web.test")
    private static let tickets = TicketKeys([TicketKey()])

    static func server(_ edit: (inout TLSOptions) -> Void = { _ in }) throws -> TLSContext {
        var options = TLSOptions()
        options.protocols = ["h2", "http/1.1"]
        options.tickets = tickets
        edit(&options)
        return try TLSContext(accepting: [#require(pair)], options)
    }

    /// What clients are served with.
    static func certificates() throws -> CertificateTable {
        CertificateTable(
            standard: ServedCertificate(
                name: "web.test", pairs: [try #require(pair)], options: TLSOptions(), cache: ContextCache()))
    }

    /// What a client says first.
    static func hello(_ host: String) throws -> [UInt8] {
        let session = try #require(TLSSession(connecting: TLSContext(connecting: TLSOptions()), to: host))
        var unread = 0
        let nothing = Buffer(capacity: 1)
        #expect(session.handshake(nothing.bytes, unread: &unread) == .needsInput)
        let room = Buffer(capacity: 65_536)
        room.write { _ = session.flush(output: &$0) }
        return TestTLSPeer.bytes(room)
    }

    static func security(
        name: String = "web.test", needsHTTP2: Bool = false, _ edit: (inout TLSOptions) -> Void = { _ in }
    ) throws -> UpstreamSecurity {
        var options = TLSOptions()
        options.protocols = UpstreamSecurity.offers(needsHTTP2)
        options.verification = .required
        options.authorities = try #require(pair).chain
        edit(&options)
        return UpstreamSecurity(
            try TLSContext(connecting: options), name: name, sendsName: true, needsHTTP2: needsHTTP2)
    }
}

final class TestTLSPeer {
    let session: TLSSession
    private var isShaking = true
    private(set) var hasFailed = false
    private(set) var hasEnded = false

    init?(_ context: TLSContext) {
        guard let session = TLSSession(accepting: context) else { return nil }
        self.session = session
    }

    /// A client; what it says first is in its output.
    init?(connecting context: TLSContext, to host: String) {
        guard let session = TLSSession(connecting: context, to: host) else { return nil }
        self.session = session
        _ = take([])
    }

    fileprivate static func bytes(_ buffer: Buffer) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(buffer.count)
        let span = buffer.span
        for i in 0..<span.count { result.append(span[i]) }
        return result
    }

    /// The plain bytes of what came.
    func take(_ bytes: [UInt8]) -> [UInt8] {
        let input = Buffer(capacity: bytes.count + 1)
        input.append(bytes)
        if isShaking {
            var unread = 0
            let progress = session.handshake(input.bytes, unread: &unread)
            input.consume(input.count - unread)
            switch progress {
            case .done: isShaking = false
            case .needsInput: return []
            case .ended, .failed:
                hasFailed = true
                return []
            }
        }
        var plain: [UInt8] = []
        while true {
            let room = Buffer(capacity: 65_536)
            var unread = 0
            var progress = TLSProgress.needsInput
            room.write { progress = session.read(input.bytes, unread: &unread, into: &$0) }
            input.consume(input.count - unread)
            plain += Self.bytes(room)
            switch progress {
            case .done: continue
            case .needsInput: return plain
            case .ended:
                hasEnded = true
                return plain
            case .failed:
                hasFailed = true
                return plain
            }
        }
    }

    /// What the session itself has to say.
    func output() -> [UInt8] {
        var all: [UInt8] = []
        while session.hasPendingOutput {
            let room = Buffer(capacity: 65_536)
            room.write { _ = session.flush(output: &$0) }
            all += Self.bytes(room)
        }
        return all
    }

    func seal(_ plain: [UInt8]) -> [UInt8] {
        if plain.isEmpty { return [] }
        let input = Buffer(capacity: plain.count)
        input.append(plain)
        let room = Buffer(capacity: plain.count + 4_096)
        room.write { _ = session.write(input.bytes, output: &$0) }
        return Self.bytes(room) + output()
    }

    func goodbye() -> [UInt8] {
        let room = Buffer(capacity: 1_024)
        room.write { _ = session.close(output: &$0) }
        return Self.bytes(room) + output()
    }
}
