// Raw loopback sockets for tests: exact bytes out, exact bytes in, every wait with a deadline.
//
// This file and `ChildProcess.swift` hold all of the unsafe code of the test tools: system calls that take a
// pointer to memory owned by the caller for the length of the call.
import Foundation
import Glibc

/// Why a socket call did not give what was asked.
package enum SocketError: Error, CustomStringConvertible {
    case deadline(String)
    case refused
    case reset
    case system(String, Int32)

    package var description: String {
        switch self {
        case .deadline(let what): "deadline passed while \(what)"
        case .refused: "connection refused"
        case .reset: "connection reset"
        case .system(let call, let code): "\(call) failed: errno \(code)"
        }
    }
}

/// A point in monotonic time by which something must have happened.
package struct Deadline: Sendable {
    package let nanoseconds: UInt64

    package init(after duration: Duration) {
        let parts = duration.components
        let ahead = UInt64(max(0, parts.seconds)) * 1_000_000_000 + UInt64(max(0, parts.attoseconds) / 1_000_000_000)
        nanoseconds = Deadline.now + ahead
    }

    package static var now: UInt64 { DispatchTime.now().uptimeNanoseconds }

    package var remainingMilliseconds: Int32 {
        let now = Deadline.now
        guard nanoseconds > now else { return 0 }
        return Int32(clamping: (nanoseconds - now) / 1_000_000 + 1)
    }

    package var passed: Bool { Deadline.now >= nanoseconds }
}

/// A TCP address on IPv4: all that the tests need, since the rooms own the parsing of others.
package struct SocketAddress: Sendable, Equatable, CustomStringConvertible {
    package var host: String
    package var port: UInt16

    package init(host: String, port: UInt16) {
        self.host = host
        self.port = port
    }

    /// Accepts `1.2.3.4:80`; refuses anything else.
    package init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else {
            return nil
        }
        self.init(host: String(text[..<colon]), port: port)
    }

    package var description: String { "\(host):\(port)" }

    fileprivate var raw: sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        let bytes = host.split(separator: ".").compactMap { UInt32($0) }
        let number = bytes.count == 4 ? bytes.reduce(UInt32(0)) { $0 << 8 | ($1 & 0xff) } : 0x7f00_0001
        address.sin_addr = in_addr(s_addr: number.bigEndian)
        return address
    }

    fileprivate init(raw: sockaddr_in) {
        let number = UInt32(bigEndian: raw.sin_addr.s_addr)
        let parts = [24, 16, 8, 0].map { String(number >> UInt32($0) & 0xff) }
        self.init(host: parts.joined(separator: "."), port: UInt16(bigEndian: raw.sin_port))
    }
}

/// Keeps a child that another thread starts from inheriting a descriptor in the moment before it is marked: an
/// inherited copy would hold a connection open that the test has closed.
enum DescriptorGate {
    private static let lock = NSLock()

    static func closedToChildren<Result>(_ body: () -> Result) -> Result {
        lock.lock()
        defer { lock.unlock() }
        return body()
    }
}

/// One descriptor. `shutdown` may be called from any thread; everything else belongs to the thread that uses it.
package final class RawSocket: Sendable {
    package let descriptor: Int32

    private init(descriptor: Int32) {
        self.descriptor = descriptor
    }

    deinit {
        _ = Glibc.close(descriptor)
    }

    private static func make() throws(SocketError) -> RawSocket {
        let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        let descriptor = Glibc.socket(AF_INET, type, 0)
        guard descriptor >= 0 else { throw .system("socket", errno) }
        let made = RawSocket(descriptor: descriptor)
        made.setOption(Int32(IPPROTO_TCP), TCP_NODELAY, 1)
        return made
    }

    private func setOption(_ level: Int32, _ name: Int32, _ value: Int32) {
        var value = value
        // The pointer is to a local and read during the call only.
        _ = unsafe setsockopt(descriptor, level, name, &value, socklen_t(MemoryLayout<Int32>.size))
    }

    private func bind(_ address: SocketAddress) throws(SocketError) {
        setOption(SOL_SOCKET, SO_REUSEADDR, 1)
        var raw = address.raw
        // sockaddr_in is what the kernel reads for AF_INET; the size given is its own.
        let result = unsafe withUnsafePointer(to: &raw) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
                unsafe Glibc.bind(descriptor, generic, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard result == 0 else { throw .system("bind", errno) }
    }

    package var localAddress: SocketAddress {
        var raw = sockaddr_in()
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        // As in `bind`; the kernel writes at most `size` bytes.
        _ = unsafe withUnsafeMutablePointer(to: &raw) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
                unsafe getsockname(descriptor, generic, &size)
            }
        }
        return SocketAddress(raw: raw)
    }

    /// Bound to a free port of loopback. With no backlog the kernel answers a connect with a reset.
    package static func bound(host: String = "127.0.0.1") throws(SocketError) -> RawSocket {
        let made = try make()
        try made.bind(SocketAddress(host: host, port: 0))
        return made
    }

    package static func listener(host: String = "127.0.0.1", backlog: Int32 = 1024) throws(SocketError) -> RawSocket {
        let made = try bound(host: host)
        try made.listen(backlog: backlog)
        return made
    }

    package func listen(backlog: Int32 = 1024) throws(SocketError) {
        guard Glibc.listen(descriptor, backlog) == 0 else { throw .system("listen", errno) }
    }

    /// The next connection, or nil when the listener was shut down or the deadline passed.
    package func accept(by deadline: Deadline) -> RawSocket? {
        while wait(for: Int16(POLLIN), by: deadline) {
            let taken = DescriptorGate.closedToChildren {
                let taken = Glibc.accept(descriptor, nil, nil)
                guard taken >= 0 else { return taken }
                _ = fcntl(taken, F_SETFD, FD_CLOEXEC)
                _ = fcntl(taken, F_SETFL, O_NONBLOCK)
                return taken
            }
            if taken >= 0 {
                let connection = RawSocket(descriptor: taken)
                connection.setOption(Int32(IPPROTO_TCP), TCP_NODELAY, 1)
                return connection
            }
            guard errno == EAGAIN || errno == EINTR || errno == ECONNABORTED else { return nil }
        }
        return nil
    }

    package static func connect(
        to address: SocketAddress, from source: String? = nil, by deadline: Deadline
    ) throws(SocketError) -> RawSocket {
        let made = try start(connectTo: address, from: source)
        guard made.wait(for: Int16(POLLOUT), by: deadline) else { throw .deadline("connecting to \(address)") }
        var code: Int32 = 0
        var size = socklen_t(MemoryLayout<Int32>.size)
        _ = unsafe getsockopt(made.descriptor, SOL_SOCKET, SO_ERROR, &code, &size)
        switch code {
        case 0: return made
        case ECONNREFUSED: throw .refused
        case ECONNRESET: throw .reset
        default: throw .system("connect", code)
        }
    }

    /// Begins a connect and does not wait for it.
    package static func start(connectTo address: SocketAddress, from source: String? = nil) throws(SocketError)
        -> RawSocket
    {
        let made = try make()
        if let source { try made.bind(SocketAddress(host: source, port: 0)) }
        var raw = address.raw
        let result = unsafe withUnsafePointer(to: &raw) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
                unsafe Glibc.connect(made.descriptor, generic, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        if result != 0 {
            switch errno {
            case EINPROGRESS: break
            case ECONNREFUSED: throw .refused
            default: throw .system("connect", errno)
            }
        }
        return made
    }

    /// True when the socket became ready (or failed, which the next call will tell) before the deadline.
    package func wait(for events: Int16, by deadline: Deadline) -> Bool {
        while true {
            var entry = pollfd(fd: descriptor, events: events, revents: 0)
            let count = unsafe poll(&entry, 1, deadline.remainingMilliseconds)
            if count > 0 { return true }
            if count == 0 || errno != EINTR { return false }
        }
    }

    /// At least one byte, or an empty array at the end of the stream.
    package func read(upTo limit: Int = 65536, by deadline: Deadline) throws(SocketError) -> [UInt8] {
        while true {
            if let bytes = try readNow(upTo: limit) { return bytes }
            guard wait(for: Int16(POLLIN), by: deadline) else { throw .deadline("reading") }
        }
    }

    /// What is there without waiting: nil for nothing yet, empty for the end of the stream.
    package func readNow(upTo limit: Int = 65536) throws(SocketError) -> [UInt8]? {
        var code: Int32 = 0
        // The array tells its own capacity, and the count read is what becomes initialised.
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: limit) { buffer, count in
            let got = unsafe Glibc.read(descriptor, buffer.baseAddress, limit)
            code = got < 0 ? errno : 0
            count = max(0, got)
        }
        switch code {
        case 0: return bytes
        case EAGAIN, EINTR: return nil
        case ECONNRESET: throw .reset
        case ECONNREFUSED: throw .refused
        default: throw .system("read", code)
        }
    }

    /// Writes what the kernel takes now; zero when it takes nothing.
    package func writeNow(_ bytes: ArraySlice<UInt8>) throws(SocketError) -> Int {
        guard !bytes.isEmpty else { return 0 }
        // MSG_NOSIGNAL: a closed peer is an error to report, not a signal to the whole test process.
        let sent = unsafe bytes.withUnsafeBytes { buffer in
            unsafe Glibc.send(descriptor, buffer.baseAddress, buffer.count, Int32(MSG_NOSIGNAL))
        }
        if sent >= 0 { return sent }
        switch errno {
        case EAGAIN, EINTR: return 0
        case EPIPE, ECONNRESET: throw .reset
        default: throw .system("send", errno)
        }
    }

    package func write(_ bytes: [UInt8], by deadline: Deadline) throws(SocketError) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let sent = try writeNow(rest)
            rest = rest.dropFirst(sent)
            guard sent == 0 else { continue }
            guard wait(for: Int16(POLLOUT), by: deadline) else { throw .deadline("writing") }
        }
    }

    package func shutdownWrite() {
        _ = Glibc.shutdown(descriptor, Int32(SHUT_WR))
    }

    package func shutdownBoth() {
        _ = Glibc.shutdown(descriptor, Int32(SHUT_RDWR))
    }

    /// Makes the close that follows (when the last reference goes) a reset.
    package func resetOnClose() {
        var value = linger(l_onoff: 1, l_linger: 0)
        _ = unsafe setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &value, socklen_t(MemoryLayout<linger>.size))
    }

    /// A small kernel buffer, so that back-pressure shows after little data.
    package func limitReceiveBuffer(to bytes: Int32) {
        setOption(SOL_SOCKET, SO_RCVBUF, bytes)
    }
}

/// Compares without a call per byte, which counts in a debug build and a body of many MiB.
package func equalBytes(_ one: ArraySlice<UInt8>, _ other: ArraySlice<UInt8>) -> Bool {
    guard one.count == other.count else { return false }
    // Both buffers are alive during the call and have the same length.
    return unsafe one.withUnsafeBytes { first in
        unsafe other.withUnsafeBytes { second in
            guard let one = first.baseAddress, let other = second.baseAddress else { return true }
            return unsafe memcmp(one, other, first.count) == 0
        }
    }
}
