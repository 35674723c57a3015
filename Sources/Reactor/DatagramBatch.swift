// Datagrams on their way: as many as one call of the kernel gives, each whole and by itself.
internal import CLinux
internal import Glibc

/// What a call about datagrams gave.
package enum DatagramResult: Equatable, Sendable {
    /// How many were received or sent: at least one.
    case count(Int)
    case wouldBlock
    /// Nobody is there (ICMP port unreachable, RFC 1122 §4.1.3.3), no way leads there, or none may be taken. Says it of an earlier datagram,
    /// and nothing was sent by this call.
    case unreachable
    /// The first does not fit into a packet of the way.
    case tooLong
    case failed(Int32)

    init(code: Int32) {
        switch code {
        case EAGAIN, ENOBUFS: self = .wouldBlock
        case ECONNREFUSED, ENOPROTOOPT, EHOSTUNREACH, ENETUNREACH, EHOSTDOWN, EACCES, EPERM: self = .unreachable
        case EMSGSIZE: self = .tooLong
        default: self = .failed(code)
        }
    }
}

/// Memory for one receive, and for sending what was received. One a loop, for it is used between two calls only.
///
/// No datagram is longer than 65,527 bytes (RFC 768, RFC 8200), so that each has its place; of a longer one (RFC 2675) the
/// kernel cuts the end off, which `isCut` tells.
@safe package final class DatagramBatch {
    package static let capacity = Int(MOONGATE_DATAGRAMS)
    private static let slotBytes = 65_536

    // SAFETY (of every use below): `slots` has `capacity` elements and `bytes` as many places of `slotBytes`, allocated in
    // `init` and freed in `deinit` only; 0 ≤ count ≤ capacity, and every index is checked against `count`. What nobody has
    // written to takes no memory.
    private let slots: UnsafeMutablePointer<moongate_datagram>
    private let bytes: UnsafeMutablePointer<UInt8>
    package private(set) var count = 0

    package init() {
        unsafe slots = .allocate(capacity: Self.capacity)
        unsafe slots.initialize(repeating: moongate_datagram(), count: Self.capacity)
        unsafe bytes = .allocate(capacity: Self.capacity * Self.slotBytes)
    }

    deinit {
        unsafe slots.deallocate()
        unsafe bytes.deallocate()
    }

    // MARK: In

    /// Receives up to `most`; they take the place of those that were here.
    /// - Parameter isAddressed: who sent each, and to which address of ours, is asked for.
    package func receive(from socket: Socket, isAddressed: Bool, most: Int = DatagramBatch.capacity) -> DatagramResult {
        count = 0
        while true {
            // SAFETY: the kernel writes at most `most` slots and places, which are no more than there are.
            let n = unsafe moongate_receive_datagrams(
                socket.descriptor, slots, bytes, Self.slotBytes, Int32(min(max(most, 1), Self.capacity)),
                isAddressed ? 1 : 0)
            if n > 0 {
                count = Int(n)
                return .count(count)
            }
            switch -n {
            case 0: return .wouldBlock
            case EINTR: continue
            case let code: return DatagramResult(code: code)
            }
        }
    }

    package func length(_ i: Int) -> Int { i >= 0 && i < count ? unsafe Int(slots[i].count) : 0 }
    package func isCut(_ i: Int) -> Bool { i >= 0 && i < count ? unsafe slots[i].is_cut != 0 : true }
    package func peer(_ i: Int) -> NetworkAddress? {
        i >= 0 && i < count ? unsafe NetworkAddress(storage: slots[i].peer) : nil
    }
    /// Our own address that it came to, without a port; nil where the socket has only one.
    package func local(_ i: Int) -> NetworkAddress? {
        i >= 0 && i < count ? unsafe NetworkAddress(storage: slots[i].local) : nil
    }

    // MARK: Out

    /// Sends some of them in their order, to `peer` and from `local`, or on a connected socket to its other end.
    package func send(
        _ range: Range<Int>, on socket: Socket, to peer: NetworkAddress? = nil, from local: NetworkAddress? = nil
    ) -> DatagramResult {
        guard range.lowerBound >= 0, range.upperBound <= count, !range.isEmpty else { return .wouldBlock }
        while true {
            // SAFETY: the range is within what was received; the kernel reads it and the addresses during the call only.
            let n = unsafe Self.withKernelForm(peer) { to, toLength in
                unsafe Self.withKernelForm(local) { from, _ in
                    unsafe moongate_send_datagrams(
                        socket.descriptor, slots + range.lowerBound, bytes + range.lowerBound * Self.slotBytes,
                        Self.slotBytes, Int32(range.count), to, toLength, from)
                }
            }
            if n > 0 { return .count(Int(n)) }
            switch -n {
            case 0: return .wouldBlock
            case EINTR: continue
            case let code: return DatagramResult(code: code)
            }
        }
    }

    private static func withKernelForm(
        _ address: NetworkAddress?, _ body: (UnsafeRawPointer?, socklen_t) -> Int32
    ) -> Int32 {
        guard let address else { return body(nil, 0) }
        return unsafe address.withKernelForm { unsafe body($0, $1) }
    }

    // MARK: Without a kernel

    package func removeAll() { count = 0 }

    /// Adds one, as if it had been received.
    package func append(
        _ datagram: [UInt8], from peer: NetworkAddress? = nil, to local: NetworkAddress? = nil, isCut: Bool = false
    ) {
        guard count < Self.capacity, datagram.count <= Self.slotBytes else { return }
        var slot = moongate_datagram()
        slot.count = UInt32(datagram.count)
        slot.is_cut = isCut ? 1 : 0
        if let peer { slot.peer = peer.storage }
        if let local { slot.local = local.storage }
        unsafe slots[count] = slot
        for (i, byte) in datagram.enumerated() { unsafe bytes[count * Self.slotBytes + i] = byte }
        count += 1
    }

    package func datagram(_ i: Int) -> [UInt8] {
        (0..<length(i)).map { unsafe bytes[i * Self.slotBytes + $0] }
    }
}
