// What an upstream is told of the client (DESIGN.md §3). A stranger's word about himself is worth nothing: admission
// has taken his lines out, and ours say what the socket says. A trusted proxy's lines stay, and ours are added to them.

package import Model

/// Which fields are sent besides the X-Forwarded ones.
package struct ForwardingRules: Sendable, Hashable {
    /// `Forwarded` (RFC 7239).
    package var sendsForwarded = false
    /// `Via` (RFC 9110 §7.6.3).
    package var sendsVia = false

    package init() {}
}

/// What is said of one connection, formatted once for all of its requests.
package struct ForwardingText: Sendable {
    /// Four lines, one behind the other: X-Forwarded-For, X-Real-IP, X-Forwarded-Proto, X-Forwarded-Port.
    private let lines: [UInt8]
    /// Where each of them ends.
    private let ends: [Int]
    /// The peer's address, as it stands in lists.
    private let peer: [UInt8]
    /// `for=…;proto=…`, without the host.
    private let forwarded: [UInt8]
    private let rules: ForwardingRules
    private let real: [UInt8]
    let maxCount: Int

    /// - Parameters:
    ///   - peer: the other end of the TCP connection.
    ///   - client: who asks, where a trusted proxy has said so: `X-Real-IP`. Default: the peer.
    ///   - port: where the connection was accepted.
    package init(
        peer: IPAddress, client: IPAddress? = nil, isSecure: Bool, port: UInt16, rules: ForwardingRules = .init()
    ) {
        let address = Array(peer.description.utf8)
        let real = client.map { Array($0.description.utf8) } ?? address
        let scheme = isSecure ? "https" : "http"
        var lines: [UInt8] = []
        var ends: [Int] = []
        func add(_ name: String, _ value: [UInt8]) {
            lines += Array("\(name): ".utf8) + value + [0x0d, 0x0a]
            ends.append(lines.count)
        }
        add("X-Forwarded-For", address)
        add("X-Real-IP", real)
        add("X-Forwarded-Proto", Array(scheme.utf8))
        add("X-Forwarded-Port", Array(String(port).utf8))
        self.lines = lines
        self.ends = ends
        self.peer = address
        self.real = real
        self.rules = rules
        // RFC 7239 §6: an IPv6 address stands in brackets and quotes.
        forwarded = Array((peer.isV4 ? "for=\(peer);proto=\(scheme)" : "for=\"[\(peer)]\";proto=\(scheme)").utf8)
        maxCount = lines.count + 2 * address.count + forwarded.count + 160
    }

    /// Writes the lines. Those that a script has set stay as it set them.
    @_lifetime(output: copy output)
    func write(
        for head: borrowing MessageHead, isTrusted: Bool, seen: HeadWriter.Seen, to output: inout OutputRawSpan
    ) -> Bool {
        let bytes = head.bytes.span
        let names: UInt64 =
            1 &<< UInt64(FieldName.xForwardedFor.rawValue) | 1 &<< UInt64(FieldName.xRealIP.rawValue)
            | 1 &<< UInt64(FieldName.xForwardedProto.rawValue) | 1 &<< UInt64(FieldName.xForwardedPort.rawValue)
        if seen.bits & names == 0 {
            output.append(lines.span)
        } else {
            if !seen.contains(.xForwardedFor) { output.append(line(0)) }
            if !seen.contains(.xRealIP) { output.append(line(1)) }
            if !seen.contains(.xForwardedProto) { output.append(line(2)) }
            if !seen.contains(.xForwardedPort) { output.append(line(3)) }
        }
        // What the client asked for, whatever a script has made of it since.
        let asked = head.replacedAuthorityRange.isEmpty ? head.authorityRange : head.replacedAuthorityRange
        let authority = asked.range
        guard authority.upperBound <= bytes.count, FieldGrammar.isValue(bytes.extracting(authority)) else {
            return false
        }
        if !authority.isEmpty, !seen.contains(.xForwardedHost) {
            output.append("X-Forwarded-Host: ")
            output.append(bytes.extracting(authority))
            output.append("\r\n")
        }
        if rules.sendsForwarded, !seen.contains(.forwarded) {
            output.append("Forwarded: ")
            output.append(forwarded.span)
            if !authority.isEmpty {
                output.append(";host=\"")
                output.append(bytes.extracting(authority))
                output.append("\"")
            }
            output.append("\r\n")
        }
        if rules.sendsVia { output.append("Via: 1.1 moongate\r\n") }
        return true
    }

    @_lifetime(borrow self)
    private func line(_ i: Int) -> Span<UInt8> {
        lines.span.extracting((i == 0 ? 0 : ends[i - 1])..<ends[i])
    }

    /// Adds ourselves to the lists that a trusted proxy began, in the head itself, so that scripts see what the
    /// upstream will: one `X-Forwarded-For` line with the peer at its end, one `Forwarded` line where we send it, and
    /// `X-Real-IP` as it was worked out. Call it once, before the first script; for a stranger it is nothing to do.
    package func extendLists(in head: inout MessageHead) {
        extend(.xForwardedFor, with: peer, in: &head)
        if rules.sendsForwarded { extend(.forwarded, with: forwarded, in: &head) }
        var index = head.firstIndex(of: .xRealIP)
        while let i = index {
            head.remove(at: i)
            index = head.firstIndex(of: .xRealIP, from: i + 1)
        }
    }

    private func extend(_ name: FieldName, with element: [UInt8], in head: inout MessageHead) {
        guard let first = head.firstIndex(of: name) else { return }
        var list: [UInt8] = []
        var next: Int? = first
        while let i = next {
            let value = head.fields[i].valueRange
            if !value.isEmpty {
                list += head.bytes[value]
                list.append(", ")
            }
            if i != first { head.remove(at: i) }
            next = head.firstIndex(of: name, from: i + 1)
        }
        list += element
        let range = head.store(list)
        head.fields[first].valueOffset = range.offset
        head.fields[first].valueCount = range.count
        head.fields[first].flags = .ours
    }
}

package enum Forwarding {
    /// Who asks: the peer, or, where that is a trusted proxy, the last address in `X-Forwarded-For` that is not one.
    /// Reading from the right is the point: what stands further left was written by whoever is not trusted.
    package static func client(
        of head: borrowing MessageHead, peer: IPAddress, trusted: borrowing [AddressBlock]
    ) -> IPAddress {
        guard trusted.contains(where: { $0.contains(peer) }) else { return peer }
        var client = peer
        for i in stride(from: head.fields.count - 1, through: 0, by: -1) {
            let field = head.fields[i]
            guard field.name == .xForwardedFor, !field.isRemoved else { continue }
            let value = head.bytes[field.valueRange]
            for element in value.split(separator: 0x2c, omittingEmptySubsequences: true).reversed() {
                guard let address = address(String(decoding: element, as: UTF8.self)) else { return client }
                client = address
                guard trusted.contains(where: { $0.contains(address) }) else { return client }
            }
        }
        return client
    }

    /// An address of a list: alone, or with a port as some proxies write it.
    private static func address(_ text: String) -> IPAddress? {
        let text = text.trimmingPrefix(while: { $0 == " " || $0 == "\t" })
        let end = text.lastIndex { $0 != " " && $0 != "\t" }.map { text.index(after: $0) } ?? text.endIndex
        let trimmed = String(text[..<end])
        return IPAddress(trimmed) ?? SocketAddress(trimmed)?.ip
    }

    /// The scheme as the client sees it: what a trusted proxy says, else the connection's.
    package static func isSecure(of head: borrowing MessageHead, connection: Bool, isTrusted: Bool) -> Bool {
        guard isTrusted, let value = head.value(of: .xForwardedProto) else { return connection }
        let text = head.bytes.span.extracting(value.range)
        if text.equalsIgnoringCase("https") || text.equalsIgnoringCase("wss") { return true }
        if text.equalsIgnoringCase("http") || text.equalsIgnoringCase("ws") { return false }
        return connection
    }

    /// Longest request id that is kept.
    package static let maxIDCount = 128

    /// The id of a request: its `X-Request-ID` when it has one that is valid (a hint from anyone: it gives no right),
    /// else 32 hexadecimal digits of `random`. Any other line of that name is taken out.
    package static func requestID(of head: inout MessageHead, random: (UInt64, UInt64)) -> ByteRange {
        var kept: ByteRange?
        var index = head.firstIndex(of: .xRequestID)
        while let i = index {
            let value = head.fields[i].valueRange
            if kept == nil, isID(head.bytes.span.extracting(value)) {
                kept = ByteRange(offset: value.lowerBound, count: value.count)
            } else {
                head.remove(at: i)
            }
            index = head.firstIndex(of: .xRequestID, from: i + 1)
        }
        if let kept { return kept }
        // Digit by digit onto the arena would ask 32 times whether it may grow.
        var digits = InlineArray<32, UInt8>(repeating: 0)
        var left = random
        var i = 16
        while i > 0 {
            i &-= 1
            digits[i] = lowerHexDigit(UInt8(truncatingIfNeeded: left.0) & 15)
            digits[i &+ 16] = lowerHexDigit(UInt8(truncatingIfNeeded: left.1) & 15)
            left.0 &>>= 4
            left.1 &>>= 4
        }
        return head.store(digits.span)
    }

    private static func isID(_ text: Span<UInt8>) -> Bool {
        guard !text.isEmpty, text.count <= maxIDCount else { return false }
        for i in 0..<text.count {
            let byte = text[i]
            // Letters, digits and the signs of base64, UUIDs and trace ids: nothing that means something to a log.
            guard ByteSet.unreserved.contains(byte) || byte == 0x2b || byte == 0x2f || byte == 0x3d || byte == 0x3a
            else { return false }
        }
        return true
    }
}
