// An IP address and a port, held inline: no heap, no String, comparable, and ready for the kernel.
internal import CLinux
internal import Glibc

package struct NetworkAddress: Equatable, Hashable, Sendable, CustomStringConvertible {
    package enum Family: UInt8, Sendable { case v4, v6 }

    package let family: Family
    /// The address in network order, the first byte highest. An IPv4 address stands in the low 32 bits of `low`.
    package let high: UInt64
    package let low: UInt64
    package let scope: UInt32
    package var port: UInt16

    package init(v4: UInt32, port: UInt16) {
        family = .v4
        high = 0
        low = UInt64(v4)
        scope = 0
        self.port = port
    }

    /// An IPv4 address that is mapped into IPv6 (RFC 4291 §2.5.5.2) becomes plain IPv4, so that one client has one
    /// spelling whatever the listener's family was.
    package init(v6High high: UInt64, low: UInt64, scope: UInt32 = 0, port: UInt16) {
        if high == 0, low >> 32 == 0xffff {
            self.init(v4: UInt32(truncatingIfNeeded: low), port: port)
        } else {
            self.init(family: .v6, high: high, low: low, scope: scope, port: port)
        }
    }

    private init(family: Family, high: UInt64, low: UInt64, scope: UInt32, port: UInt16) {
        self.family = family
        self.high = high
        self.low = low
        self.scope = scope
        self.port = port
    }

    /// Accepts an IPv4 or IPv6 literal (the latter with or without brackets). Host names are refused: resolving
    /// blocks, and never happens on a loop.
    package init?(host: String, port: UInt16) {
        var text = Substring(host)
        if text.hasPrefix("["), text.hasSuffix("]") { text = text.dropFirst().dropLast() }
        let literal = String(text)
        var four = in_addr()
        if unsafe inet_pton(AF_INET, literal, &four) == 1 {
            self.init(v4: UInt32(bigEndian: four.s_addr), port: port)
            return
        }
        var six = in6_addr()
        if unsafe inet_pton(AF_INET6, literal, &six) == 1 {
            // SAFETY: in6_addr is sixteen plain bytes.
            let (high, low) = unsafe withUnsafeBytes(of: six) {
                unsafe (
                    UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self)),
                    UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
                )
            }
            self.init(v6High: high, low: low, port: port)
            return
        }
        return nil
    }

    /// Accepts `ADDR:PORT` and `[ADDR]:PORT`.
    package init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else {
            return nil
        }
        let host = text[..<colon]
        if host.contains(":"), !host.hasPrefix("[") { return nil }
        self.init(host: String(host), port: port)
    }

    package var host: String {
        switch family {
        case .v4:
            return "\(low >> 24 & 255).\(low >> 16 & 255).\(low >> 8 & 255).\(low & 255)"
        case .v6:
            var six = in6_addr()
            unsafe withUnsafeMutableBytes(of: &six) {
                unsafe $0.storeBytes(of: high.bigEndian, as: UInt64.self)
                unsafe $0.storeBytes(of: low.bigEndian, toByteOffset: 8, as: UInt64.self)
            }
            return unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(INET6_ADDRSTRLEN)) { room in
                // SAFETY: the room has the length that inet_ntop asks for, and the text is copied before it goes.
                guard let base = room.baseAddress,
                    unsafe inet_ntop(AF_INET6, &six, base, socklen_t(INET6_ADDRSTRLEN)) != nil
                else { return "::" }
                return unsafe String(cString: base)
            }
        }
    }

    /// Every address of the machine: `0.0.0.0`, or `::`.
    package var isUnspecified: Bool { high == 0 && low == 0 }

    /// The same, ports aside.
    package func hasSameHost(_ other: NetworkAddress) -> Bool {
        family == other.family && high == other.high && low == other.low
    }

    package var description: String {
        family == .v4 ? "\(host):\(port)" : "[\(host)]:\(port)"
    }

    // MARK: The kernel's form

    /// Calls `body` with the address as the kernel wants it.
    func withKernelForm<R>(_ body: (UnsafeRawPointer, socklen_t) -> R) -> R {
        switch family {
        case .v4:
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = port.bigEndian
            address.sin_addr.s_addr = UInt32(truncatingIfNeeded: low).bigEndian
            // SAFETY: the pointer is used within the call only, and the length says how much there is.
            return unsafe withUnsafePointer(to: address) {
                unsafe body(UnsafeRawPointer($0), socklen_t(MemoryLayout.size(ofValue: address)))
            }
        case .v6:
            var address = sockaddr_in6()
            address.sin6_family = sa_family_t(AF_INET6)
            address.sin6_port = port.bigEndian
            address.sin6_scope_id = scope
            unsafe withUnsafeMutableBytes(of: &address.sin6_addr) {
                unsafe $0.storeBytes(of: high.bigEndian, as: UInt64.self)
                unsafe $0.storeBytes(of: low.bigEndian, toByteOffset: 8, as: UInt64.self)
            }
            // SAFETY: the pointer is used within the call only, and the length says how much there is.
            return unsafe withUnsafePointer(to: address) {
                unsafe body(UnsafeRawPointer($0), socklen_t(MemoryLayout.size(ofValue: address)))
            }
        }
    }

    /// The kernel's form as a value.
    var storage: sockaddr_storage {
        var storage = sockaddr_storage()
        // SAFETY: sockaddr_storage has room for the structure of each family.
        unsafe withKernelForm { pointer, length in
            unsafe withUnsafeMutableBytes(of: &storage) {
                unsafe $0.copyMemory(from: UnsafeRawBufferPointer(start: pointer, count: Int(length)))
            }
        }
        return storage
    }

    /// Reads what accept or getsockname filled in; nil for a family that is not IP.
    init?(storage: borrowing sockaddr_storage) {
        let copy = copy storage
        switch Int32(copy.ss_family) {
        case AF_INET:
            // SAFETY: the family says which structure the kernel wrote, and sockaddr_storage has room for each.
            let four = unsafe withUnsafeBytes(of: copy) { unsafe $0.loadUnaligned(as: sockaddr_in.self) }
            self.init(v4: UInt32(bigEndian: four.sin_addr.s_addr), port: UInt16(bigEndian: four.sin_port))
        case AF_INET6:
            // SAFETY: as above.
            let six = unsafe withUnsafeBytes(of: copy) { unsafe $0.loadUnaligned(as: sockaddr_in6.self) }
            let (high, low) = unsafe withUnsafeBytes(of: six.sin6_addr) {
                unsafe (
                    UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self)),
                    UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
                )
            }
            self.init(v6High: high, low: low, scope: six.sin6_scope_id, port: UInt16(bigEndian: six.sin6_port))
        default:
            return nil
        }
    }
}
