// The sockets of a loop: every call is non-blocking, and every answer a small value to switch over.
internal import CLinux
internal import Glibc

/// What a read gave.
package enum ReadResult: Equatable, Sendable {
    case bytes(Int)
    /// Nothing now; the poller will say when.
    case wouldBlock
    /// The peer will send no more.
    case end
    case failed(Int32)
}

/// What a write took.
package enum WriteResult: Equatable, Sendable {
    case bytes(Int)
    case wouldBlock
    case failed(Int32)
}

package enum ConnectResult: Equatable, Sendable {
    case connected(Socket)
    /// Writable (or failed) will be reported by the poller.
    case inProgress(Socket)
    case failed(Int32)
}

package enum AcceptResult: Equatable, Sendable {
    case accepted(Socket, NetworkAddress)
    case wouldBlock
    /// A connection that died in the queue: go on accepting.
    case again
    /// No descriptors or memory left: stop for a while, for asking again at once would spin.
    case exhausted(Int32)
    case failed(Int32)
}

package enum SocketKind: UInt8, Sendable, Hashable {
    case stream
    case datagrams
}

/// A descriptor. Copyable and without ownership: the table row that holds it closes it, exactly once.
package struct Socket: Equatable, Hashable, Sendable {
    package let descriptor: Int32

    package init(descriptor: Int32) {
        self.descriptor = descriptor
    }

    package static let none = Socket(descriptor: -1)
    package var isNone: Bool { descriptor < 0 }

    // MARK: Making

    static func make(_ family: NetworkAddress.Family, _ kind: SocketKind) -> Int32 {
        let type = kind == .stream ? SOCK_STREAM.rawValue : SOCK_DGRAM.rawValue
        return socket(
            family == .v4 ? AF_INET : AF_INET6, Int32(type | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue), 0)
    }

    /// Begins to connect. Nagle's delay is off: a message is written whole, so waiting never helps. A socket of datagrams is
    /// connected at once: it sends to that address, takes nothing from others, and hears from the kernel when nobody is there.
    package static func connect(to address: NetworkAddress, _ kind: SocketKind = .stream) -> ConnectResult {
        let fd = make(address.family, kind)
        if fd < 0 { return .failed(errno) }
        let made = Socket(descriptor: fd)
        if kind == .stream { made.set(Int32(IPPROTO_TCP), TCP_NODELAY, 1) }
        // SAFETY: the kernel reads the address during the call only.
        let code = unsafe address.withKernelForm { pointer, length in
            unsafe moongate_connect(fd, pointer, length)
        }
        switch code {
        case 0: return .connected(made)
        case EINPROGRESS, EINTR: return .inProgress(made)
        default:
            made.close()
            return .failed(code)
        }
    }

    // MARK: Using

    /// Reads into the free room of a buffer.
    @inline(__always)
    package func read(into buffer: Buffer) -> ReadResult {
        let room = buffer.room
        if room == 0 { return .wouldBlock }
        while true {
            // SAFETY: the kernel writes at most `room` bytes, all of which belong to the buffer; its end moves by
            // what was written.
            let n = unsafe moongate_read(descriptor, buffer.base + buffer.end, room)
            if n > 0 {
                buffer.end += n
                return .bytes(n)
            }
            if n == 0 { return .end }
            switch Int32(truncatingIfNeeded: -n) {
            case EAGAIN: return .wouldBlock
            case EINTR: continue
            case let code: return .failed(code)
            }
        }
    }

    /// Writes up to two parts as one message; says how many bytes of both together were taken.
    @inline(__always)
    package func write(_ first: RawSpan, _ second: RawSpan) -> WriteResult {
        let total = first.byteCount + second.byteCount
        if total == 0 { return .bytes(0) }
        while true {
            // SAFETY: both spans are borrowed for the whole call, and the kernel only reads them.
            let n = unsafe first.withUnsafeBytes { a in
                unsafe second.withUnsafeBytes { b in
                    unsafe moongate_send(descriptor, a.baseAddress, a.count, b.baseAddress, b.count)
                }
            }
            if n >= 0 { return .bytes(n) }
            switch Int32(truncatingIfNeeded: -n) {
            case EAGAIN: return .wouldBlock
            case EINTR: continue
            case let code: return .failed(code)
            }
        }
    }

    @inline(__always)
    package func write(_ bytes: RawSpan) -> WriteResult {
        write(bytes, RawSpan())
    }

    /// Says that nothing more will be written.
    package func shutdownWrites() {
        _ = shutdown(descriptor, Int32(SHUT_WR))
    }

    package func close() {
        if descriptor >= 0 { _ = Glibc.close(descriptor) }
    }

    /// Closes with a reset instead of an orderly end: for a peer that must not take what it got for complete.
    package func abort() {
        var linger = linger(l_onoff: 1, l_linger: 0)
        _ = unsafe setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout<linger>.size))
        close()
    }

    package func setNoDelay() {
        set(Int32(IPPROTO_TCP), TCP_NODELAY, 1)
    }

    /// The error that is waiting on the socket (the outcome of a connect); 0 for none.
    package var pendingError: Int32 {
        var code: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        if unsafe getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &code, &length) != 0 { return errno }
        return code
    }

    package var localAddress: NetworkAddress? {
        var storage = sockaddr_storage()
        // SAFETY: sockaddr_storage has room for every family, and the shim tells the kernel its length.
        return unsafe moongate_local_address(descriptor, &storage) == 0 ? NetworkAddress(storage: storage) : nil
    }

    func set(_ level: Int32, _ option: Int32, _ value: Int32) {
        var value = value
        _ = unsafe setsockopt(descriptor, level, option, &value, socklen_t(MemoryLayout<Int32>.size))
    }
}

/// A listening socket. Each loop has one of its own on the same port (SO_REUSEPORT); the kernel spreads connections, and
/// datagrams by the addresses of both ends: those of one client come to one loop.
package struct Listener: Sendable {
    package let socket: Socket
    /// The address really bound: a port 0 is filled in.
    package let address: NetworkAddress

    /// Whether somebody else takes connections, or datagrams, at this address already: with SO_REUSEPORT the kernel lets a second process
    /// of the same user in, and each gets a part of them.
    package static func isTaken(
        _ address: NetworkAddress, _ kind: SocketKind = .stream, isDualStack: Bool = true
    ) -> Bool {
        let fd = Socket.make(address.family, kind)
        guard fd >= 0 else { return false }
        let probe = Socket(descriptor: fd)
        defer { probe.close() }
        // Of connections that are over, the ends that linger do not count.
        if kind == .stream { probe.set(SOL_SOCKET, SO_REUSEADDR, 1) }
        if address.family == .v6 { probe.set(Int32(IPPROTO_IPV6), IPV6_V6ONLY, isDualStack ? 0 : 1) }
        // SAFETY: the kernel reads the address during the call only.
        return unsafe address.withKernelForm { pointer, length in unsafe moongate_bind(fd, pointer, length) }
            == EADDRINUSE
    }

    /// - Parameter isDualStack: a listener on `[::]` takes IPv4 as well. Said to the kernel either way: what it would do
    ///   by itself is a setting of the machine (`net.ipv6.bindv6only`).
    package init(
        _ address: NetworkAddress, _ kind: SocketKind = .stream, backlog: Int32 = 4096, isDualStack: Bool = true
    ) throws(SystemError) {
        let fd = Socket.make(address.family, kind)
        if fd < 0 { throw .last("socket") }
        let made = Socket(descriptor: fd)
        // On a socket of datagrams SO_REUSEADDR would take the port from whoever has it.
        if kind == .stream { made.set(SOL_SOCKET, SO_REUSEADDR, 1) }
        made.set(SOL_SOCKET, SO_REUSEPORT, 1)
        if address.family == .v6 { made.set(Int32(IPPROTO_IPV6), IPV6_V6ONLY, isDualStack ? 0 : 1) }
        // SAFETY: the kernel reads the address during the call only.
        let code = unsafe address.withKernelForm { pointer, length in unsafe moongate_bind(fd, pointer, length) }
        if code != 0 {
            let error = SystemError(code: code, call: "bind")
            made.close()
            throw error
        }
        if kind == .datagrams {
            // As much as the machine allows (net.core.rmem_max) for what comes while the loop is at something else.
            made.set(SOL_SOCKET, SO_RCVBUF, 4 << 20)
            // An answer has to leave from the address that was asked, which the kernel would choose anew.
            if address.isUnspecified {
                if address.family == .v6 { made.set(Int32(IPPROTO_IPV6), MOONGATE_IPV6_RECVPKTINFO, 1) }
                made.set(Int32(IPPROTO_IP), MOONGATE_IP_PKTINFO, 1)
            }
        } else if listen(fd, backlog) != 0 {
            let error = SystemError.last("listen")
            made.close()
            throw error
        }
        guard let local = made.localAddress else {
            made.close()
            throw SystemError(code: EAFNOSUPPORT, call: "getsockname")
        }
        socket = made
        self.address = local
    }

    /// A socket that listens already.
    package init(socket: Socket, address: NetworkAddress) {
        self.socket = socket
        self.address = address
    }

    package func accept() -> AcceptResult {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        // SAFETY: the kernel fills the storage with at most `length` bytes.
        let fd = unsafe moongate_accept(socket.descriptor, &storage, &length)
        if fd >= 0 {
            let accepted = Socket(descriptor: fd)
            guard let peer = NetworkAddress(storage: storage) else {
                accepted.close()
                return .again
            }
            accepted.setNoDelay()
            return .accepted(accepted, peer)
        }
        switch -fd {
        case EAGAIN: return .wouldBlock
        case EMFILE, ENFILE, ENOBUFS, ENOMEM: return .exhausted(-fd)
        // accept(2): errors of the connection that was about to be accepted are passed on, and the queue goes on.
        case EINTR, ECONNABORTED, EPROTO, EPERM, ENETDOWN, ENOPROTOOPT, EHOSTDOWN, ENONET, EHOSTUNREACH, EOPNOTSUPP,
            ENETUNREACH:
            return .again
        default: return .failed(-fd)
        }
    }

    package func close() {
        socket.close()
    }
}
