// A network in memory with the manners of a kernel: edges, short reads, short writes, full buffers, resets. A test
// drives it with a seed; the same seed gives the same run.
import Glibc
import Reactor

@testable import Proxy

struct Seeded: RandomNumberGenerator {
    private var numbers: RandomNumbers
    init(_ seed: UInt64) { numbers = RandomNumbers(seed: seed) }
    mutating func next() -> UInt64 { numbers.next() }
}

/// One direction of a connection: what was sent and not yet taken.
private struct Pipe {
    var bytes: [UInt8] = []
    var start = 0
    var capacity = 65_536
    var isEnded = false
    /// What has arrived: a sender's bytes reach the other side in pieces.
    var arrived = 0

    var count: Int { bytes.count - start }
    var readable: Int { arrived }
    var room: Int { max(0, capacity - count) }

    mutating func take(_ n: Int) -> ArraySlice<UInt8> {
        let taken = bytes[start..<start + n]
        start += n
        arrived -= n
        if start > 65_536 {
            bytes.removeFirst(start)
            start = 0
            return taken
        }
        return taken
    }
}

private final class Wire {
    /// To the proxy, and from it.
    var inbound = Pipe()
    var outbound = Pipe()
    var token: Token?
    var isReset = false
    /// The proxy has closed its descriptor.
    var isClosed = false
    var wasAborted = false
    /// A write of the proxy did not fit: an edge is due when there is room.
    var wantsRoom = false
    var isConnecting = false
    var refusal: Int32 = 0
    var writesShut = false
}

/// A socket of datagrams.
final class DatagramWire {
    struct Datagram: Equatable {
        var bytes: [UInt8]
        var peer: NetworkAddress?
        var local: NetworkAddress?
        var isCut = false
    }

    /// Where it is connected to; nil for a port.
    let address: NetworkAddress?
    var token: Token?
    var inbound: [Datagram] = []
    var outbound: [Datagram] = []
    /// What the next call answers, before anything else.
    var faults: [DatagramResult] = []
    var isClosed = false

    init(_ address: NetworkAddress?) { self.address = address }
}

/// What an edge says; collected until the test hands it to the loop.
final class SimulatedNetwork: Transport {
    private var wires: [Int32: Wire] = [:]
    private var nextDescriptor: Int32 = 100
    private(set) var pending: [Event] = []
    /// Descriptors of connections that the proxy has opened, in order.
    private(set) var opened: [(descriptor: Int32, address: NetworkAddress)] = []
    /// Ports nobody listens on.
    var refusing: Set<UInt16> = []
    /// Descriptors for connections to upstreams; nil is any number.
    var mostUpstreams: Int?
    /// Capacity of each new pipe out of the proxy.
    var outboundCapacity = 65_536
    private(set) var closedTwice = 0
    private(set) var usedAfterClose = 0
    var connectsAtOnce = false

    // MARK: Datagrams

    private(set) var datagramWires: [Int32: DatagramWire] = [:]
    /// Those that are connected, in order.
    private(set) var connected: [DatagramWire] = []
    /// What the next connections fail with.
    var connectFaults: [Int32] = []
    var openDatagramSockets: Int { datagramWires.values.count { !$0.isClosed } }

    func makeDatagramPort() -> (descriptor: Int32, wire: DatagramWire) {
        nextDescriptor += 1
        let wire = DatagramWire(nil)
        datagramWires[nextDescriptor] = wire
        return (nextDescriptor, wire)
    }

    func connectDatagrams(to address: NetworkAddress) -> ConnectResult {
        if !connectFaults.isEmpty { return .failed(connectFaults.removeFirst()) }
        nextDescriptor += 1
        let wire = DatagramWire(address)
        datagramWires[nextDescriptor] = wire
        connected.append(wire)
        return .connected(Socket(descriptor: nextDescriptor))
    }

    func watch(_ socket: Socket, _ token: Token) -> Bool {
        datagramWires[socket.descriptor]?.token = token
        return true
    }

    func receive(_ socket: Socket, into batch: DatagramBatch, isAddressed: Bool, most: Int) -> DatagramResult {
        guard let wire = datagramWires[socket.descriptor], !wire.isClosed else {
            usedAfterClose += 1
            return .failed(9)
        }
        batch.removeAll()
        if !wire.faults.isEmpty { return wire.faults.removeFirst() }
        if wire.inbound.isEmpty { return .wouldBlock }
        let taken = wire.inbound.prefix(most)
        wire.inbound.removeFirst(taken.count)
        for datagram in taken {
            batch.append(
                datagram.bytes, from: isAddressed ? datagram.peer : nil, to: isAddressed ? datagram.local : nil,
                isCut: datagram.isCut)
        }
        return .count(taken.count)
    }

    func send(
        _ batch: DatagramBatch, _ range: Range<Int>, _ socket: Socket, to peer: NetworkAddress?,
        from local: NetworkAddress?
    ) -> DatagramResult {
        guard let wire = datagramWires[socket.descriptor], !wire.isClosed else {
            usedAfterClose += 1
            return .failed(9)
        }
        if !wire.faults.isEmpty { return wire.faults.removeFirst() }
        for i in range {
            wire.outbound.append(DatagramWire.Datagram(bytes: batch.datagram(i), peer: peer, local: local))
        }
        return .count(range.count)
    }

    /// Datagrams, or an error, are there to be fetched.
    func edge(_ wire: DatagramWire) {
        guard let token = wire.token, !wire.isClosed else { return }
        pending.append(Event(token: token, readiness: wire.faults.isEmpty ? [.readable] : [.readable, .broken]))
    }

    // MARK: The proxy's side

    func read(_ socket: Socket, into buffer: Buffer) -> ReadResult {
        guard let wire = wires[socket.descriptor], !wire.isClosed else {
            usedAfterClose += 1
            return .failed(9)
        }
        if wire.isReset { return .failed(104) }
        let n = min(buffer.room, wire.inbound.readable)
        if n == 0 {
            return wire.inbound.isEnded && wire.inbound.count == 0 ? .end : .wouldBlock
        }
        buffer.append(Array(wire.inbound.take(n)))
        return .bytes(n)
    }

    func write(_ socket: Socket, _ first: RawSpan, _ second: RawSpan) -> WriteResult {
        guard let wire = wires[socket.descriptor], !wire.isClosed, !wire.writesShut else {
            usedAfterClose += 1
            return .failed(9)
        }
        if wire.isReset { return .failed(32) }
        let total = first.byteCount + second.byteCount
        if total == 0 { return .bytes(0) }
        let n = min(total, wire.outbound.room)
        if n < total { wire.wantsRoom = true }
        if n == 0 { return .wouldBlock }
        let buffer = Buffer(capacity: total)
        buffer.append(first)
        buffer.append(second)
        buffer.truncate(to: n)
        // SAFETY: the pointer is read within the call only.
        unsafe buffer.span.withUnsafeBufferPointer { unsafe wire.outbound.bytes.append(contentsOf: $0) }
        wire.outbound.arrived += n
        return .bytes(n)
    }

    func connect(to address: NetworkAddress) -> ConnectResult {
        if let most = mostUpstreams, opened.count(where: { wires[$0.descriptor]?.isClosed == false }) >= most {
            return .failed(EMFILE)
        }
        let descriptor = make()
        opened.append((descriptor, address))
        let wire = wires[descriptor]
        wire?.outbound.capacity = outboundCapacity
        if refusing.contains(address.port) { wire?.refusal = 111 }
        wire?.isConnecting = true
        return .inProgress(Socket(descriptor: descriptor))
    }

    func pendingError(_ socket: Socket) -> Int32 { wires[socket.descriptor]?.refusal ?? 9 }

    func register(_ socket: Socket, _ token: Token) -> Bool {
        wires[socket.descriptor]?.token = token
        return true
    }

    func localAddress(_ socket: Socket) -> NetworkAddress? { NetworkAddress(v4: 0x0a00_00fe, port: 5432) }

    func rename(_ socket: Socket, _ token: Token) -> Bool {
        guard let wire = wires[socket.descriptor] else { return false }
        wire.token = token
        var readiness: Readiness = [.writable]
        if wire.inbound.readable > 0 || wire.inbound.isEnded { readiness.insert(.readable) }
        if wire.inbound.isEnded, wire.inbound.readable == wire.inbound.count { readiness.insert(.ended) }
        edge(wire, readiness)
        return true
    }

    func shutdownWrites(_ socket: Socket) {
        wires[socket.descriptor]?.writesShut = true
        wires[socket.descriptor]?.outbound.isEnded = true
    }

    func close(_ socket: Socket) {
        if let wire = datagramWires[socket.descriptor] {
            if wire.isClosed { closedTwice += 1 }
            wire.isClosed = true
            return
        }
        guard let wire = wires[socket.descriptor] else { return }
        if wire.isClosed { closedTwice += 1 }
        wire.isClosed = true
        wire.outbound.isEnded = true
        // Closing over bytes that were not read resets (RFC 9293 §3.6.1).
        if wire.inbound.count > 0 { wire.wasAborted = true }
    }

    func abort(_ socket: Socket) {
        close(socket)
        wires[socket.descriptor]?.wasAborted = true
    }

    // MARK: The other side's

    private func make() -> Int32 {
        nextDescriptor += 1
        wires[nextDescriptor] = Wire()
        return nextDescriptor
    }

    /// A client's connection, to be handed to the loop.
    func makeClient() -> Int32 {
        let descriptor = make()
        wires[descriptor]?.outbound.capacity = outboundCapacity
        return descriptor
    }

    /// From now on every buffer is as large as usual.
    func widen() {
        outboundCapacity = 65_536
        for wire in wires.values { wire.outbound.capacity = 65_536 }
    }

    func isConnecting(_ descriptor: Int32) -> Bool { wires[descriptor]?.isConnecting ?? false }

    /// The kernel settles a connect.
    func settle(_ descriptor: Int32) {
        guard let wire = wires[descriptor], wire.isConnecting, !wire.isClosed else { return }
        wire.isConnecting = false
        edge(wire, wire.refusal == 0 ? [.writable] : [.broken, .writable, .readable])
    }

    /// The other side sends: the bytes travel, and arrive when `deliver` says so.
    func send(_ descriptor: Int32, _ bytes: some Sequence<UInt8>) {
        wires[descriptor]?.inbound.bytes.append(contentsOf: bytes)
    }

    func end(_ descriptor: Int32) {
        guard let wire = wires[descriptor], !wire.inbound.isEnded else { return }
        wire.inbound.isEnded = true
        if wire.inbound.readable == wire.inbound.count { edge(wire, [.readable, .ended]) }
    }

    func reset(_ descriptor: Int32) {
        guard let wire = wires[descriptor], !wire.isReset else { return }
        wire.isReset = true
        edge(wire, [.readable, .writable, .ended, .broken])
    }

    /// How much is still to arrive.
    func travelling(_ descriptor: Int32) -> Int {
        guard let wire = wires[descriptor], !wire.isReset, !wire.isClosed else { return 0 }
        return wire.inbound.count - wire.inbound.readable
    }

    /// Up to `n` bytes arrive, with an edge.
    func deliver(_ descriptor: Int32, _ n: Int) {
        guard let wire = wires[descriptor], !wire.isReset else { return }
        let count = min(n, wire.inbound.count - wire.inbound.readable)
        guard count > 0 else { return }
        wire.inbound.arrived += count
        let isAll = wire.inbound.readable == wire.inbound.count
        edge(wire, isAll && wire.inbound.isEnded ? [.readable, .ended] : [.readable])
    }

    /// The other side takes up to `n` bytes of what the proxy has written.
    func take(_ descriptor: Int32, _ n: Int) -> [UInt8] {
        guard let wire = wires[descriptor] else { return [] }
        let taken = Array(wire.outbound.take(min(n, wire.outbound.count)))
        if wire.wantsRoom, wire.outbound.room > 0, !taken.isEmpty {
            wire.wantsRoom = false
            edge(wire, [.writable])
        }
        return taken
    }

    func available(_ descriptor: Int32) -> Int { wires[descriptor]?.outbound.count ?? 0 }
    /// The proxy has ended its writing side, or closed.
    func hasEnded(_ descriptor: Int32) -> Bool {
        guard let wire = wires[descriptor] else { return true }
        return wire.outbound.isEnded && wire.outbound.count == 0
    }
    func isClosed(_ descriptor: Int32) -> Bool { wires[descriptor]?.isClosed ?? true }
    func wasAborted(_ descriptor: Int32) -> Bool { wires[descriptor]?.wasAborted ?? false }
    var openCount: Int { wires.values.count { !$0.isClosed } }

    private func edge(_ wire: Wire, _ readiness: Readiness) {
        guard let token = wire.token, !wire.isClosed else { return }
        pending.append(Event(token: token, readiness: readiness))
    }

    func takePending() -> [Event] {
        let all = pending
        pending = []
        return all
    }
}
