// What a balancer says of a connection before its first byte: the PROXY protocol, versions 1 and 2 (HAProxy's
// proxy-protocol.txt). Whether the balancer may be believed is not decided here.

package import Model

/// A PROXY protocol header: who really connected, and where to.
package struct ProxyHeader: Sendable, Equatable {
    /// The two ends of the connection that the balancer accepted; nil where it says nothing of them (LOCAL, UNKNOWN,
    /// Unix sockets): then the connection's own ends count.
    package var ends: Ends?
    /// The balancer speaks for itself (LOCAL). Without ends and without this it speaks for somebody, and does not say whom.
    package var isLocal = false

    package struct Ends: Sendable, Equatable {
        package var source: SocketAddress
        package var destination: SocketAddress

        package init(source: SocketAddress, destination: SocketAddress) {
            self.source = source
            self.destination = destination
        }
    }

    package init(ends: Ends? = nil, isLocal: Bool = false) {
        self.ends = ends
        self.isLocal = isLocal
    }

    package enum Progress: Sendable, Equatable {
        case needMore
        case complete(ProxyHeader, consumed: Int)
        case failed(ProxyHeaderFault)
    }

    /// Longest line of version 1, its end included (§2.1).
    package static let maxLine = 107
    /// Longest header of version 2 that is taken, of the 65,551 bytes that the format allows: addresses and a dozen
    /// TLVs, a certificate's name among them.
    package static let maxCount = 4096

    private static let signature: [UInt8] = [
        0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a,
    ]
    private static let word = Array("PROXY ".utf8)

    /// Reads the header at the front of what has come so far: all of it each time, for it is short. What cannot become a
    /// header any more is refused at the first byte that shows it.
    package static func parse(_ bytes: Span<UInt8>) -> Progress {
        guard bytes.count > 0 else { return .needMore }
        return bytes[0] == signature[0] ? parseBinary(bytes) : parseLine(bytes)
    }

    /// False as soon as a byte differs.
    private static func begins(_ bytes: Span<UInt8>, with prefix: [UInt8]) -> Bool {
        for i in 0..<min(bytes.count, prefix.count) where bytes[i] != prefix[i] { return false }
        return true
    }

    // MARK: Version 1

    private static func parseLine(_ bytes: Span<UInt8>) -> Progress {
        guard begins(bytes, with: word) else { return .failed(.missing) }
        var end = word.count
        while true {
            if end >= maxLine { return .failed(.tooLong) }
            if end >= bytes.count { return .needMore }
            if bytes[end] == 0x0a { break }
            // A CR ends the line or nothing.
            if bytes[end - 1] == 0x0d { return .failed(.malformed) }
            guard bytes[end] == 0x0d || (0x20...0x7e).contains(bytes[end]) else { return .failed(.malformed) }
            end += 1
        }
        guard bytes[end - 1] == 0x0d else { return .failed(.malformed) }
        var line: [UInt8] = []
        for i in word.count..<(end - 1) { line.append(bytes[i]) }
        let parts = line.split(separator: 0x20, omittingEmptySubsequences: false)
        // Whatever follows UNKNOWN is to be ignored.
        if parts[0].elementsEqual("UNKNOWN".utf8) { return .complete(ProxyHeader(), consumed: end + 1) }
        let isV4 = parts[0].elementsEqual("TCP4".utf8)
        guard isV4 || parts[0].elementsEqual("TCP6".utf8), parts.count == 5,
            let source = address(parts[1], parts[3], isV4: isV4),
            let destination = address(parts[2], parts[4], isV4: isV4)
        else { return .failed(.malformed) }
        return .complete(
            ProxyHeader(ends: Ends(source: source, destination: destination)), consumed: end + 1)
    }

    private static func address(
        _ host: ArraySlice<UInt8>, _ port: ArraySlice<UInt8>, isV4: Bool
    ) -> SocketAddress? {
        let isDotted = !host.contains(0x3a)
        guard isDotted == isV4, let ip = IPAddress(String(decoding: host, as: UTF8.self)), (1...5).contains(port.count),
            port.count == 1 || port.first != 0x30
        else { return nil }
        var number = 0
        for digit in port {
            guard (0x30...0x39).contains(digit) else { return nil }
            number = number * 10 + Int(digit - 0x30)
        }
        guard let port = UInt16(exactly: number) else { return nil }
        return SocketAddress(ip: ip, port: port)
    }

    // MARK: Version 2

    private static func parseBinary(_ bytes: Span<UInt8>) -> Progress {
        guard begins(bytes, with: signature) else { return .failed(.missing) }
        if bytes.count > 12 {
            // Version 2, and one of two commands.
            guard bytes[12] >> 4 == 2, bytes[12] & 15 <= 1 else { return .failed(.malformed) }
        }
        let isLocal = bytes.count > 12 && bytes[12] & 15 == 0
        // Reserved, and invalid to receivers (§2.2). Of LOCAL all that follows is passed over.
        if bytes.count > 13, !isLocal, bytes[13] >> 4 > 3 || bytes[13] & 15 > 2 { return .failed(.malformed) }
        guard bytes.count >= 16 else { return .needMore }
        let length = Int(bytes[14]) << 8 | Int(bytes[15])
        guard 16 + length <= maxCount else { return .failed(.tooLong) }
        // A stream over IPv4 or IPv6; of all else (UNSPEC, Unix sockets, datagrams) nothing is to be learnt.
        let width = isLocal ? 0 : bytes[13] == 0x11 ? 4 : bytes[13] == 0x21 ? 16 : 0
        guard length >= 2 * width + (width > 0 ? 4 : 0) else { return .failed(.malformed) }
        guard bytes.count >= 16 + length else { return .needMore }
        if isLocal { return .complete(ProxyHeader(isLocal: true), consumed: 16 + length) }
        guard width > 0 else {
            // Without a family there are no addresses, and what else stands there is passed over, but for a checksum.
            if bytes[13] >> 4 == 0, extras(bytes, from: 16, to: 16 + length) == .wrongSum {
                return .failed(.malformed)
            }
            return .complete(ProxyHeader(), consumed: 16 + length)
        }
        func address(_ offset: Int, _ portOffset: Int) -> SocketAddress {
            var high: UInt64 = 0
            var low: UInt64 = 0
            for i in 0..<width {
                high = high << 8 | low >> 56
                low = low << 8 | UInt64(bytes[offset + i])
            }
            let port = UInt16(bytes[portOffset]) << 8 | UInt16(bytes[portOffset + 1])
            let ip =
                width == 4 ? IPAddress(v4: UInt32(truncatingIfNeeded: low)) : IPAddress(high: high, low: low)
            return SocketAddress(ip: ip, port: port)
        }
        let ports = 16 + 2 * width
        guard extras(bytes, from: ports + 4, to: 16 + length) == .good else { return .failed(.malformed) }
        return .complete(
            ProxyHeader(
                ends: Ends(source: address(16, ports), destination: address(16 + width, ports + 2))),
            consumed: 16 + length)
    }

    private enum Extras {
        case good
        /// No row of extras, each with its length.
        case malformed
        case wrongSum
    }

    /// Whether what stands behind the addresses is a row of extras (§2.2), and their checksum is right where there is one
    /// (§2.2.4).
    private static func extras(_ bytes: Span<UInt8>, from start: Int, to end: Int) -> Extras {
        var i = start
        var sum = -1
        while i < end {
            guard end - i >= 3 else { return .malformed }
            let count = Int(bytes[i + 1]) << 8 | Int(bytes[i + 2])
            i += 3
            guard end - i >= count else { return .malformed }
            if bytes[i - 3] == 0x03 {
                guard sum < 0, count == 4 else { return .malformed }
                sum = i
            }
            i += count
        }
        guard sum >= 0 else { return .good }
        var said: UInt32 = 0
        for j in sum..<(sum + 4) { said = said << 8 | UInt32(bytes[j]) }
        return said == checksum(bytes, to: end, without: sum) ? .good : .wrongSum
    }

    /// CRC32c (RFC 4960 appendix B) of the header, with zeros where the sum stands.
    static func checksum(_ bytes: Span<UInt8>, to end: Int, without place: Int) -> UInt32 {
        var sum = UInt32.max
        for i in 0..<end {
            sum ^= i >= place && i < place + 4 ? 0 : UInt32(bytes[i])
            for _ in 0..<8 { sum = sum >> 1 ^ (sum & 1 == 1 ? 0x82f6_3b78 : 0) }
        }
        return ~sum
    }

    // MARK: Writing

    /// Appends the header. Where the ends are not known the receiver is told to take what it sees itself (§2.1: UNKNOWN;
    /// §2.2: UNSPEC, or LOCAL, for which version 1 has no word of its own).
    package func write(_ version: ProxyProtocolVersion, to output: inout [UInt8]) {
        guard let ends else {
            switch version {
            case .v1: output.append(contentsOf: "PROXY UNKNOWN\r\n".utf8)
            case .v2: output.append(contentsOf: Self.signature + [isLocal ? 0x20 : 0x21, 0, 0, 0])
            }
            return
        }
        let (source, destination) = (ends.source, ends.destination)
        // Both ends are of one family: IPv4 where both are, else IPv6, in which IPv4 has a place (RFC 4291 §2.5.5.2).
        let isV4 = source.ip.isV4 && destination.ip.isV4
        switch version {
        case .v1:
            func text(_ ip: IPAddress) -> String { ip.isV4 && !isV4 ? "::ffff:\(ip)" : "\(ip)" }
            output.append(
                contentsOf:
                    "PROXY \(isV4 ? "TCP4" : "TCP6") \(text(source.ip)) \(text(destination.ip)) \(source.port) \(destination.port)\r\n"
                    .utf8)
        case .v2:
            output.append(contentsOf: Self.signature)
            output.append(0x21)
            output.append(isV4 ? 0x11 : 0x21)
            output.append(contentsOf: [0, isV4 ? 12 : 36])
            func put(_ value: UInt64, _ count: Int) {
                for i in (0..<count).reversed() { output.append(UInt8(truncatingIfNeeded: value >> UInt64(8 * i))) }
            }
            for ip in [source.ip, destination.ip] {
                if isV4 {
                    put(UInt64(ip.v4), 4)
                } else {
                    put(ip.high, 8)
                    put(ip.low, 8)
                }
            }
            put(UInt64(source.port), 2)
            put(UInt64(destination.port), 2)
        }
    }
}
