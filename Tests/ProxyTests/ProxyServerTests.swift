import Model
import Reactor
import Routing
import Testing

@testable import Proxy

/// The server on real sockets: that its threads, listeners, mailboxes and signals to end do what the loop alone cannot
/// show.
@Suite struct ProxyServerTests {
    /// One request on a connection of its own; what came back until the other side ended.
    private func ask(_ address: Model.SocketAddress, _ text: String) throws -> String {
        let poller = try Poller(capacity: 4)
        let socket: Socket
        switch Socket.connect(to: NetworkAddress(address)) {
        case .connected(let made), .inProgress(let made): socket = made
        case .failed(let code): throw SystemError(code: code, call: "connect")
        }
        defer { socket.close() }
        try poller.register(socket, Token(kind: 1, index: 0, generation: 0))
        let request = Buffer(capacity: text.utf8.count)
        request.append(Array(text.utf8))
        let answer = Buffer(capacity: 65_536)
        for _ in 0..<200 {
            if !request.isEmpty, case .bytes(let n) = socket.write(request.bytes) { request.consume(n) }
            switch socket.read(into: answer) {
            case .bytes: continue
            case .end: return string(answer)
            case .failed(let code): throw SystemError(code: code, call: "read")
            case .wouldBlock: _ = poller.wait(milliseconds: 100)
            }
        }
        Issue.record("no end came: \(string(answer))")
        return string(answer)
    }

    private func string(_ buffer: Buffer) -> String {
        var bytes: [UInt8] = []
        for i in 0..<buffer.count { bytes.append(buffer.span[i]) }
        return String(decoding: bytes, as: UTF8.self)
    }

    private static let loopback = IPAddress(v4: 0x7f00_0001)
    private static let request = "GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n"

    @Test func servesPublishesAndDrains() throws {
        let configuration = ProxyConfiguration(
            listen: [
                Model.SocketAddress(ip: Self.loopback, port: 0), Model.SocketAddress(ip: Self.loopback, port: 0),
            ], loops: 2)
        let server = try ProxyServer(configuration: configuration)
        #expect(server.addresses.count == 2)
        #expect(server.addresses.allSatisfy { $0.port != 0 })
        #expect(server.addresses[0] != server.addresses[1])
        try server.start()

        for address in server.addresses {
            #expect(try ask(address, Self.request).hasPrefix("HTTP/1.1 404 "))
        }
        // A route without an endpoint, then none again: each is in force for whoever comes after it.
        for n in 0..<20 {
            let isKnown = n % 2 == 0
            server.publish(
                RouteTable(isKnown ? Scene.snapshot([]) : Snapshot(), generation: UInt64(n + 1)))
            let wanted = isKnown ? "HTTP/1.1 503 " : "HTTP/1.1 404 "
            var answer = ""
            for _ in 0..<100 {
                answer = try ask(server.addresses[n % 4 / 2], Self.request)
                if answer.hasPrefix(wanted) { break }
            }
            #expect(answer.hasPrefix(wanted))
        }

        server.drain(delay: 0, timeout: 5_000)
        server.join()
        // Nobody listens any more: refused at once, or found out by the first write.
        let late = try? ask(server.addresses[0], Self.request)
        #expect(late == nil || late == "")
    }

    @Test func aSecondDrainEndsAtOnce() throws {
        let server = try ProxyServer(
            configuration: ProxyConfiguration(listen: [Model.SocketAddress(ip: Self.loopback, port: 0)], loops: 1))
        try server.start()
        server.drain(delay: 3_600_000, timeout: 3_600_000)
        #expect(try ask(server.addresses[0], Self.request).contains("Connection: close"))
        server.drain(delay: 3_600_000, timeout: 3_600_000)
        server.join()
    }

    @Test func anAddressThatIsNotOursIsSaid() {
        let foreign = Model.SocketAddress(ip: IPAddress(v4: 0xcb00_7101), port: 1)
        #expect(throws: ProxyServer.StartError.self) {
            try ProxyServer(configuration: ProxyConfiguration(listen: [foreign], loops: 1))
        }
    }
}
