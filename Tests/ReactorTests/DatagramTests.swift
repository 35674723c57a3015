import Testing

@testable import Reactor

/// Datagrams over loopback: the sockets of a port, and of a session.
@Suite struct DatagramTests {
    private func receive(_ socket: Socket, isAddressed: Bool) -> DatagramBatch {
        let batch = DatagramBatch()
        for _ in 0..<100_000 {
            if batch.receive(from: socket, isAddressed: isAddressed) != .wouldBlock { break }
        }
        return batch
    }

    private func client(_ address: NetworkAddress) throws -> Socket {
        guard case .connected(let socket) = Socket.connect(to: address, .datagrams) else {
            throw SystemError(code: 0, call: "connect")
        }
        return socket
    }

    @Test(arguments: ["127.0.0.1", "::1"])
    func goThereAndBack(_ host: String) throws {
        let port = try Listener(try #require(NetworkAddress(host: host, port: 0)), .datagrams)
        let client = try client(port.address)
        let out = DatagramBatch()
        let sizes = [0, 1, 1_472, 60_000]
        for size in sizes { out.append([UInt8](repeating: 7, count: size)) }
        #expect(out.send(0..<4, on: client) == .count(4))
        let batch = receive(port.socket, isAddressed: true)
        #expect((0..<batch.count).map { batch.length($0) } == sizes)
        #expect(batch.peer(0) == client.localAddress)
        #expect(!batch.isCut(3))
        #expect(batch.datagram(3) == [UInt8](repeating: 7, count: 60_000))
        #expect(batch.send(1..<3, on: port.socket, to: batch.peer(0)) == .count(2))
        let back = receive(client, isAddressed: false)
        #expect((0..<back.count).map { back.length($0) } == [1, 1_472])
        client.close()
        port.close()
    }

    /// A port on every address answers from the one that was asked, of either family.
    @Test(arguments: [("0.0.0.0", "127.0.0.7"), ("::", "127.0.0.7"), ("::", "::1")])
    func answersFromWhereItWasAsked(_ any: String, _ asked: String) throws {
        let port = try Listener(try #require(NetworkAddress(host: any, port: 0)), .datagrams)
        let target = try #require(NetworkAddress(host: asked, port: port.address.port))
        // Connected: an answer from elsewhere would not get in.
        let client = try client(target)
        let out = DatagramBatch()
        out.append([1])
        #expect(out.send(0..<1, on: client) == .count(1))
        let batch = receive(port.socket, isAddressed: true)
        #expect(batch.local(0)?.hasSameHost(target) == true)
        #expect(batch.send(0..<1, on: port.socket, to: batch.peer(0), from: batch.local(0)) == .count(1))
        #expect(receive(client, isAddressed: false).datagram(0) == [1])
        client.close()
        port.close()
    }

    @Test func nobodyThereIsTold() throws {
        let port = try Listener(NetworkAddress(v4: 0x7f00_0001, port: 0), .datagrams)
        port.close()
        let client = try client(port.address)
        let batch = DatagramBatch()
        batch.append([1])
        #expect(batch.send(0..<1, on: client) == .count(1))
        #expect(batch.send(0..<1, on: client) == .unreachable)
        #expect(batch.send(0..<1, on: client) == .count(1))
        var result = DatagramResult.wouldBlock
        for _ in 0..<100_000 where result == .wouldBlock { result = batch.receive(from: client, isAddressed: false) }
        #expect(result == .unreachable)
        client.close()
    }

    @Test func tooLongIsTold() throws {
        let port = try Listener(NetworkAddress(v4: 0x7f00_0001, port: 0), .datagrams)
        let client = try client(port.address)
        let batch = DatagramBatch()
        batch.append([UInt8](repeating: 0, count: 65_508))
        #expect(batch.send(0..<1, on: client) == .tooLong)
        client.close()
        port.close()
    }

    @Test func portThatIsTakenIsNotShared() throws {
        // Without SO_REUSEPORT, as of another program.
        let taken = Socket.make(.v4, .datagrams)
        let socket = Socket(descriptor: taken)
        defer { socket.close() }
        let bound = try #require(Socket.bindAnywhere(socket))
        #expect(throws: SystemError.self) { try Listener(bound, .datagrams) }
        // Those of our loops do share one.
        let first = try Listener(NetworkAddress(v4: 0x7f00_0001, port: 0), .datagrams)
        let second = try Listener(first.address, .datagrams)
        first.close()
        second.close()
    }
}

extension Socket {
    /// To a free port of loopback, as it comes.
    fileprivate static func bindAnywhere(_ socket: Socket) -> NetworkAddress? {
        // A datagram to nobody makes the kernel choose a port.
        let batch = DatagramBatch()
        batch.append([1])
        _ = batch.send(0..<1, on: socket, to: NetworkAddress(v4: 0x7f00_0001, port: 9))
        return socket.localAddress.map { NetworkAddress(v4: 0x7f00_0001, port: $0.port) }
    }
}
