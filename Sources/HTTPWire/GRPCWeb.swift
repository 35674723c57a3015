// gRPC-Web (the gRPC project's PROTOCOL-WEB.md) to gRPC and back: what a browser can neither send nor read is done for
// it. A browser sees no trailers, so they come as a last frame of the body; over some APIs it sees no bytes either, so
// there is a form in base64.

package import Model

package enum GRPCWeb {
    /// What the media type of a request or a response says.
    package struct Kind: Sendable, Hashable {
        /// The body is base64.
        package var isText: Bool
        /// Where `+proto` and parameters begin in the value.
        package var rest: Int
    }

    /// `application/grpc-web` and `application/grpc-web-text`, with a message format and parameters or without.
    package static func kind(of value: Span<UInt8>) -> Kind? {
        if let rest = rest(of: value, behind: "application/grpc-web-text") { return Kind(isText: true, rest: rest) }
        if let rest = rest(of: value, behind: "application/grpc-web") { return Kind(isText: false, rest: rest) }
        return nil
    }

    private static func rest(of value: Span<UInt8>, behind name: StaticString) -> Int? {
        let n = name.utf8CodeUnitCount
        guard value.count >= n, value.extracting(0..<n).equalsIgnoringCase(name) else { return nil }
        // `+proto`, parameters, or nothing.
        return value.count == n || value[n] == 0x2b || value[n] == 0x3b || value[n] == 0x20 ? n : nil
    }

    /// Whether a request is a call of gRPC-Web, by its media type.
    package static func isCall(_ head: borrowing MessageHead) -> Bool {
        guard let index = head.firstIndex(of: .contentType) else { return false }
        let range = head.fields[index].valueRange
        return range.upperBound <= head.bytes.count && kind(of: head.bytes.span.extracting(range)) != nil
    }

    /// Whether the request is one of gRPC-Web, by its media type: then it becomes one of gRPC, and what is returned says
    /// how its response is to be written.
    package static func toGRPC(_ head: inout MessageHead) -> GRPCWebBridge? {
        guard head.method == .post, let index = head.firstIndex(of: .contentType) else { return nil }
        let range = head.fields[index].valueRange
        guard let kind = kind(of: head.bytes.span.extracting(range)) else { return nil }
        var isText = kind.isText
        if let accept = head.value(of: .accept), let wanted = self.kind(of: head.bytes.span.extracting(accept.range)) {
            isText = wanted.isText
        }
        replace(index, "application/grpc", from: range.lowerBound + kind.rest, in: &head)
        return GRPCWebBridge(isRequestText: kind.isText, isResponseText: isText)
    }

    /// Whether the response is one of gRPC: then it becomes one of gRPC-Web.
    package static func fromGRPC(_ head: inout MessageHead, isText: Bool) -> Bool {
        guard let index = head.firstIndex(of: .contentType) else { return false }
        let range = head.fields[index].valueRange
        guard let rest = rest(of: head.bytes.span.extracting(range), behind: "application/grpc") else { return false }
        replace(
            index, isText ? "application/grpc-web-text" : "application/grpc-web", from: range.lowerBound + rest,
            in: &head)
        return true
    }

    private static func replace(_ index: Int, _ name: StaticString, from rest: Int, in head: inout MessageHead) {
        let end = head.fields[index].valueRange.upperBound
        let start = head.bytes.count
        head.bytes.append(name)
        for i in rest..<end { head.bytes.append(head.bytes[i]) }
        head.fields[index].valueOffset = UInt32(truncatingIfNeeded: start)
        head.fields[index].valueCount = UInt32(truncatingIfNeeded: head.bytes.count - start)
        head.fields[index].flags.insert(.ours)
    }

    /// The last frame of a body: the trailers as lines, behind a byte whose top bit tells them from a message, and their
    /// length. `list` holds names in lower case and values that have been checked.
    package static func trailerFrame(_ list: borrowing MessageHead) -> [UInt8] {
        var frame: [UInt8] = [0x80, 0, 0, 0, 0]
        for field in list.fields where !field.isRemoved {
            frame.append(list.bytes.span.extracting(field.nameRange))
            frame.append(0x3a)
            frame.append(list.bytes.span.extracting(field.valueRange))
            frame.append(0x0d)
            frame.append(0x0a)
        }
        let count = frame.count - 5
        for i in 0..<4 { frame[1 + i] = UInt8(truncatingIfNeeded: count >> (24 - 8 * i)) }
        return frame
    }
}

/// One exchange between a client that speaks gRPC-Web and an upstream that speaks gRPC.
package struct GRPCWebBridge: Sendable {
    package let isRequestText: Bool
    package let isResponseText: Bool
    package var decoder = Base64Decoder()
    package var encoder = Base64Encoder()
}

/// Reads base64 (RFC 4648 §4) that comes in parts. Padding may stand within: gRPC-Web's text is made message by message.
/// So may the ends of lines, between groups of four (RFC 2045 §6.8).
package struct Base64Decoder: Sendable {
    package enum Progress: Sendable, Hashable {
        case done
        case needsRoom
        case malformed
    }

    private var quantum: UInt32 = 0
    private var letters = 0
    private var pads = 0

    package init() {}

    /// No group of four is half read.
    package var isWhole: Bool { letters == 0 && pads == 0 }

    /// Reads `input` from `offset` on, and moves `offset` behind what was read.
    @_lifetime(output: copy output)
    package mutating func read(
        _ input: Span<UInt8>, at offset: inout Int, to output: inout OutputRawSpan
    ) -> Progress {
        while offset < input.count {
            guard output.freeCapacity >= 3 else { return .needsRoom }
            let byte = input[offset]
            offset += 1
            if byte == 0x0d || byte == 0x0a {
                guard isWhole else { return .malformed }
                continue
            }
            if byte == 0x3d {
                guard letters >= 2 else { return .malformed }
                pads += 1
            } else {
                guard pads == 0, let value = Self.value(byte) else { return .malformed }
                quantum = quantum << 6 | UInt32(value)
                letters += 1
            }
            guard letters + pads == 4 else { continue }
            quantum <<= UInt32(6 * pads)
            for i in 0..<(letters - 1) {
                output.append(UInt8(truncatingIfNeeded: quantum >> UInt32(16 - 8 * i)))
            }
            quantum = 0
            letters = 0
            pads = 0
        }
        return .done
    }

    private static func value(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 65...90: byte - 65
        case 97...122: byte - 71
        case 48...57: byte + 4
        case 0x2b: 62
        case 0x2f: 63
        default: nil
        }
    }
}

/// Writes base64 in parts.
package struct Base64Encoder: Sendable {
    private var quantum: UInt32 = 0
    private var count = 0

    package init() {}

    /// Bytes wait for others to make three.
    package var isPending: Bool { count > 0 }

    /// Encodes `input` from `offset` on, and moves `offset` behind what was taken; false if there was no room for all.
    @_lifetime(output: copy output)
    package mutating func write(_ input: Span<UInt8>, at offset: inout Int, to output: inout OutputRawSpan) -> Bool {
        while offset < input.count {
            guard output.freeCapacity >= 4 else { return false }
            quantum = quantum << 8 | UInt32(input[offset])
            offset += 1
            count += 1
            if count == 3 { put(to: &output) }
        }
        return true
    }

    /// Writes what waits, padded; false if there was no room.
    @_lifetime(output: copy output)
    package mutating func flush(to output: inout OutputRawSpan) -> Bool {
        guard count > 0 else { return true }
        guard output.freeCapacity >= 4 else { return false }
        put(to: &output)
        return true
    }

    @_lifetime(output: copy output)
    private mutating func put(to output: inout OutputRawSpan) {
        let bits = quantum << UInt32(8 * (3 - count))
        for i in 0..<4 {
            output.append(i <= count ? Self.letter(UInt8(truncatingIfNeeded: bits >> UInt32(18 - 6 * i) & 63)) : 0x3d)
        }
        quantum = 0
        count = 0
    }

    private static func letter(_ value: UInt8) -> UInt8 {
        switch value {
        case 0..<26: value + 65
        case 26..<52: value + 71
        case 52..<62: value - 4
        case 62: 0x2b
        default: 0x2f
        }
    }
}
