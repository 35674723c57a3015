// Where the loop meets the kernel. Everything above this line is the same over real sockets and over the simulated
// network of the tests, which cuts, delays and breaks at every point.
internal import Reactor

/// The calls that a loop makes on sockets. The loop is generic over it and specialised in this module, so that the
/// real one costs no indirection.
protocol Transport {
    func read(_ socket: Socket, into buffer: Buffer) -> ReadResult
    func write(_ socket: Socket, _ first: RawSpan, _ second: RawSpan) -> WriteResult
    func connect(to address: NetworkAddress) -> ConnectResult
    func pendingError(_ socket: Socket) -> Int32
    /// Our own end of a connection.
    func localAddress(_ socket: Socket) -> NetworkAddress?
    /// False when the kernel has no memory to watch one more.
    func register(_ socket: Socket, _ token: Token) -> Bool
    /// A registered socket has another owner from here on. Whatever is ready is told anew.
    func rename(_ socket: Socket, _ token: Token) -> Bool
    /// A socket that sends datagrams to that address alone, and takes them from nobody else.
    func connectDatagrams(to address: NetworkAddress) -> ConnectResult
    /// Watches a socket for datagrams; false when the kernel has no memory to watch one more.
    func watch(_ socket: Socket, _ token: Token) -> Bool
    func receive(_ socket: Socket, into batch: DatagramBatch, isAddressed: Bool, most: Int) -> DatagramResult
    func send(
        _ batch: DatagramBatch, _ range: Range<Int>, _ socket: Socket, to peer: NetworkAddress?,
        from local: NetworkAddress?
    ) -> DatagramResult
    func shutdownWrites(_ socket: Socket)
    func close(_ socket: Socket)
    func abort(_ socket: Socket)
}

struct KernelTransport: Transport {
    let poller: Poller

    @inline(__always)
    func read(_ socket: Socket, into buffer: Buffer) -> ReadResult { socket.read(into: buffer) }
    @inline(__always)
    func write(_ socket: Socket, _ first: RawSpan, _ second: RawSpan) -> WriteResult { socket.write(first, second) }
    func connect(to address: NetworkAddress) -> ConnectResult { Socket.connect(to: address) }
    func pendingError(_ socket: Socket) -> Int32 { socket.pendingError }
    func localAddress(_ socket: Socket) -> NetworkAddress? { socket.localAddress }
    func register(_ socket: Socket, _ token: Token) -> Bool {
        do {
            try poller.register(socket, token)
            return true
        } catch {
            return false
        }
    }
    func rename(_ socket: Socket, _ token: Token) -> Bool {
        do {
            try poller.rename(socket, token)
            return true
        } catch {
            return false
        }
    }
    func connectDatagrams(to address: NetworkAddress) -> ConnectResult { Socket.connect(to: address, .datagrams) }
    func watch(_ socket: Socket, _ token: Token) -> Bool {
        do {
            try poller.watch(socket, token)
            return true
        } catch {
            return false
        }
    }
    func receive(_ socket: Socket, into batch: DatagramBatch, isAddressed: Bool, most: Int) -> DatagramResult {
        batch.receive(from: socket, isAddressed: isAddressed, most: most)
    }
    func send(
        _ batch: DatagramBatch, _ range: Range<Int>, _ socket: Socket, to peer: NetworkAddress?,
        from local: NetworkAddress?
    ) -> DatagramResult {
        batch.send(range, on: socket, to: peer, from: local)
    }
    func shutdownWrites(_ socket: Socket) { socket.shutdownWrites() }
    func close(_ socket: Socket) { socket.close() }
    func abort(_ socket: Socket) { socket.abort() }
}
