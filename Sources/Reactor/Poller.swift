// The loop waits here. The only type that knows epoll; another kernel's poller would stand in its place.
internal import CLinux
internal import Glibc

/// What the kernel said about one token.
public struct Readiness: OptionSet, Sendable {
    public let rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Bytes (or an end, or an error) can be read.
    @inlinable public static var readable: Readiness { Readiness(rawValue: 1) }
    /// Bytes can be written, or a connect has ended.
    @inlinable public static var writable: Readiness { Readiness(rawValue: 2) }
    /// The peer has ended its side: a short read is then not the last word, the end is still to be read.
    @inlinable public static var ended: Readiness { Readiness(rawValue: 4) }
    /// The connection is broken, in both directions.
    @inlinable public static var broken: Readiness { Readiness(rawValue: 8) }

    // Asked by bits: the general operations of option sets are not specialised across modules, and cost an array each.

    /// There is something to be read: bytes, an end or an error.
    @inlinable public var invitesReading: Bool { rawValue & 13 != 0 }
    /// The peer's side is over, well or badly.
    @inlinable public var isOver: Bool { rawValue & 12 != 0 }
    @inlinable public var isReadable: Bool { rawValue & 1 != 0 }
    @inlinable public var isWritable: Bool { rawValue & 2 != 0 }
    @inlinable public var isBroken: Bool { rawValue & 8 != 0 }
}

public struct Event: Sendable {
    public let token: Token
    public let readiness: Readiness

    @inlinable public init(token: Token, readiness: Readiness) {
        self.token = token
        self.readiness = readiness
    }
}

/// Edge-triggered epoll. A socket is registered once, for everything; afterwards no call is spent on it until it is
/// closed. Back-pressure is not reading: the owner remembers that there was an edge and takes it up later.
@safe package final class Poller {
    private let epoll: Int32
    // SAFETY: `capacity` events, allocated here and freed in `deinit`; the kernel fills the first `count` of them.
    private let events: UnsafeMutablePointer<epoll_event>
    private let capacity: Int
    private var count = 0

    package init(capacity: Int = 512) throws(SystemError) {
        let fd = epoll_create1(Int32(EPOLL_CLOEXEC))
        if fd < 0 { throw .last("epoll_create1") }
        epoll = fd
        self.capacity = max(capacity, 1)
        unsafe events = UnsafeMutablePointer<epoll_event>.allocate(capacity: self.capacity)
        unsafe events.initialize(repeating: epoll_event(), count: self.capacity)
    }

    deinit {
        _ = close(epoll)
        unsafe events.deallocate()
    }

    /// Watches for reading, writing and the peer's end, by edges. Closing the descriptor ends it.
    package func register(_ socket: Socket, _ token: Token) throws(SystemError) {
        try add(socket.descriptor, EPOLLIN.rawValue | EPOLLOUT.rawValue | EPOLLRDHUP.rawValue | EPOLLET.rawValue, token)
    }

    /// Gives a socket that is registered another token, once: who owns it has changed. Whatever is ready is told anew.
    package func rename(_ socket: Socket, _ token: Token) throws(SystemError) {
        let interest = EPOLLIN.rawValue | EPOLLOUT.rawValue | EPOLLRDHUP.rawValue | EPOLLET.rawValue
        let code = moongate_epoll_rename(epoll, socket.descriptor, interest, token.rawValue)
        if code < 0 { throw SystemError(code: -code, call: "epoll_ctl") }
    }

    /// Watches a listener: by edges too, so that a listener that may not accept for a while does not spin.
    package func register(_ listener: Listener, _ token: Token) throws(SystemError) {
        try watch(listener.socket, token)
    }

    /// Watches a socket of datagrams for what comes: each datagram that leaves it would be an edge, too.
    package func watch(_ socket: Socket, _ token: Token) throws(SystemError) {
        try add(socket.descriptor, EPOLLIN.rawValue | EPOLLET.rawValue, token)
    }

    package func register(_ bell: Bell, _ token: Token) throws(SystemError) {
        try add(bell.descriptor, EPOLLIN.rawValue | EPOLLET.rawValue, token)
    }

    private func add(_ descriptor: Int32, _ interest: UInt32, _ token: Token) throws(SystemError) {
        let code = moongate_epoll_add(epoll, descriptor, interest, token.rawValue)
        if code < 0 { throw SystemError(code: -code, call: "epoll_ctl") }
    }

    /// Waits up to `milliseconds` (below zero: for ever) and says how many events there are.
    package func wait(milliseconds: Int32) -> Int {
        // SAFETY: the kernel writes at most `capacity` events.
        let n = unsafe moongate_epoll_wait(epoll, events, Int32(truncatingIfNeeded: capacity), milliseconds)
        // An interrupted wait is a wait without events; any other failure here would be a closed or foreign
        // descriptor, which cannot happen while `self` lives.
        count = max(0, Int(n))
        return count
    }

    /// The events of the last wait.
    package subscript(_ index: Int) -> Event {
        guard index >= 0, index < count else { return Event(token: Token(rawValue: .max), readiness: []) }
        let event = unsafe events[index]
        let bits = unsafe event.events
        var readiness: UInt8 = 0
        if bits & EPOLLIN.rawValue != 0 { readiness |= Readiness.readable.rawValue }
        if bits & EPOLLOUT.rawValue != 0 { readiness |= Readiness.writable.rawValue }
        // A hang-up without an error is both sides having ended in order: what the peer sent is still to be read.
        if bits & (EPOLLRDHUP.rawValue | EPOLLHUP.rawValue) != 0 { readiness |= Readiness.ended.rawValue }
        if bits & EPOLLERR.rawValue != 0 { readiness |= Readiness.broken.rawValue }
        return unsafe Event(token: Token(rawValue: event.data.u64), readiness: Readiness(rawValue: readiness))
    }
}
