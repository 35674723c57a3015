import Testing

@testable import Reactor

/// A pair of connected sockets over loopback, and what is needed to wait for them.
struct Pair {
    let poller: Poller
    let listener: Listener
    let client: Socket
    let server: Socket
    let peer: NetworkAddress

    init(_ host: String = "127.0.0.1") throws {
        poller = try Poller(capacity: 8)
        listener = try Listener(try #require(NetworkAddress(host: host, port: 0)))
        try poller.register(listener, Token(kind: 1, index: 0, generation: 0))
        switch Socket.connect(to: listener.address) {
        case .connected(let socket), .inProgress(let socket): client = socket
        case .failed(let code): throw SystemError(code: code, call: "connect")
        }
        var accepted: (Socket, NetworkAddress)?
        for _ in 0..<100 where accepted == nil {
            _ = poller.wait(milliseconds: 1_000)
            if case .accepted(let socket, let address) = listener.accept() { accepted = (socket, address) }
        }
        (server, peer) = try #require(accepted)
        try poller.register(client, Token(kind: 2, index: 0, generation: 0))
        try poller.register(server, Token(kind: 3, index: 0, generation: 0))
    }

    /// Waits until something with this readiness is reported for `kind`.
    func wait(_ kind: UInt8, _ readiness: Readiness) -> Bool {
        for _ in 0..<100 {
            for i in 0..<poller.wait(milliseconds: 1_000) {
                let event = poller[i]
                if event.token.kind == kind, event.readiness.contains(readiness) { return true }
            }
        }
        return false
    }

    func close() {
        client.close()
        server.close()
        listener.close()
    }
}

@Suite struct SocketTests {
    @Test(arguments: ["127.0.0.1", "::1"])
    func connectsAcceptsAndCarriesBytes(host: String) throws {
        let pair = try Pair(host)
        defer { pair.close() }
        #expect(pair.listener.address.port != 0)
        #expect(pair.peer.host == host)
        #expect(pair.client.localAddress == pair.peer)
        #expect(pair.client.pendingError == 0)

        let buffer = Buffer(capacity: 64)
        #expect(pair.server.read(into: buffer) == .wouldBlock)
        #expect(pair.client.write(filled("head ").bytes, filled("body").bytes) == .bytes(9))
        #expect(pair.wait(3, .readable))
        #expect(pair.server.read(into: buffer) == .bytes(9))
        #expect(text(buffer.bytes) == "head body")

        pair.client.shutdownWrites()
        #expect(pair.wait(3, .ended))
        #expect(pair.server.read(into: buffer) == .end)
    }

    @Test func aFullPeerBlocksTheWriterAndFreesItByAnEdge() throws {
        let pair = try Pair()
        defer { pair.close() }
        let chunk = filled(String(repeating: "7", count: 65_536))
        var sent = 0
        while case .bytes(let n) = pair.client.write(chunk.bytes) { sent += n }
        #expect(sent > 0)
        let buffer = Buffer(capacity: 65_536)
        var received = 0
        var freed = false
        while received < sent {
            switch pair.server.read(into: buffer) {
            case .bytes(let n):
                received += n
                buffer.removeAll()
            case .wouldBlock:
                for i in 0..<pair.poller.wait(milliseconds: 1_000) {
                    let event = pair.poller[i]
                    if event.token.kind == 2, event.readiness.contains(.writable) { freed = true }
                }
            case .end, .failed: Issue.record("the connection broke")
            }
        }
        for _ in 0..<10 where !freed { freed = pair.wait(2, .writable) }
        #expect(freed)
        #expect(received == sent)
    }

    @Test func aRefusedConnectSaysSo() throws {
        let listener = try Listener(try #require(NetworkAddress("127.0.0.1:0")))
        let address = listener.address
        listener.close()
        let poller = try Poller(capacity: 8)
        switch Socket.connect(to: address) {
        case .connected: Issue.record("nobody listens there")
        case .failed(let code): #expect(SystemError(code: code, call: "connect").isRefused)
        case .inProgress(let socket):
            try poller.register(socket, Token(kind: 1, index: 0, generation: 0))
            #expect(poller.wait(milliseconds: 30_000) == 1)
            #expect(poller[0].readiness.contains(.broken))
            #expect(SystemError(code: socket.pendingError, call: "connect").isRefused)
            socket.close()
        }
    }

    @Test func writingToAResetPeerFailsWithoutASignal() throws {
        let pair = try Pair()
        defer { pair.listener.close() }
        pair.server.abort()
        #expect(pair.wait(2, .broken))
        var failed = false
        for _ in 0..<3 {
            if case .failed = pair.client.write(filled("x").bytes) { failed = true }
        }
        #expect(failed)
        pair.client.close()
    }

    @Test func twoListenersShareAPort() throws {
        let first = try Listener(try #require(NetworkAddress("127.0.0.1:0")))
        let second = try Listener(first.address)
        #expect(first.address == second.address)
        first.close()
        second.close()
    }

    @Test func anAddressThatIsNotOursIsRefused() throws {
        #expect(throws: SystemError.self) { _ = try Listener(try #require(NetworkAddress("203.0.113.1:0"))) }
    }
}
