// What a TLS client says first, as far as is needed to know where it wants to go (RFC 8446 §4.1.2, RFC 6066 §3): read
// before anything is agreed, for hosts whose TLS is not ours to end.

internal import Model

package enum ClientHello {
    package enum Progress: Sendable, Equatable {
        case needMore
        /// A whole ClientHello, and the host that it names: lower case; empty without one.
        case complete(serverName: [UInt8])
        /// It is no ClientHello, or a broken or an unreasonably long one: for a TLS engine to judge.
        case other
    }

    /// Longest message that is waited for; the format allows a thousand times as much.
    package static let maxMessage = 16 * 1024
    /// The same with the frames of its records, however it is cut up.
    package static let maxCount = 20 * 1024

    /// Reads what has come so far, from the first byte on. Until the message is whole only the frames of its records are
    /// looked at, so that a client which sends byte by byte costs little.
    package static func parse(_ bytes: Span<UInt8>) -> Progress {
        // The message may be spread over records (RFC 8446 §5.1): the payloads that there are, as offset and count.
        var have = 0
        var wanted: Int?
        var head: [UInt8] = []
        var pieces: [(offset: Int, count: Int)] = []
        var at = 0
        while wanted.map({ have < $0 }) ?? true {
            // Frame by frame: each field is judged as soon as it is there.
            if at < bytes.count, bytes[at] != 22 { return .other }
            if at + 1 < bytes.count, bytes[at + 1] != 3 { return .other }
            guard at + 5 <= bytes.count else { return ended(bytes) }
            let length = Int(bytes[at + 3]) << 8 | Int(bytes[at + 4])
            guard (1...16384).contains(length) else { return .other }
            let count = min(length, bytes.count - at - 5)
            pieces.append((at + 5, count))
            var i = 0
            while head.count < 4, i < count {
                head.append(bytes[at + 5 + i])
                i += 1
            }
            if let type = head.first, type != 1 { return .other }
            if wanted == nil, head.count == 4 {
                let length = Int(head[1]) << 16 | Int(head[2]) << 8 | Int(head[3])
                guard length <= maxMessage else { return .other }
                wanted = 4 + length
            }
            have += count
            if count < length, wanted.map({ have < $0 }) ?? true { return ended(bytes) }
            at += 5 + length
        }
        var message: [UInt8] = []
        message.reserveCapacity(have)
        for piece in pieces { message.append(bytes.extracting(piece.offset..<(piece.offset + piece.count))) }
        return read(message.span.extracting(4..<(wanted ?? 4)))
    }

    private static func ended(_ bytes: Span<UInt8>) -> Progress { bytes.count >= maxCount ? .other : .needMore }

    /// The body of the message.
    private static func read(_ body: Span<UInt8>) -> Progress {
        var at = 0
        /// The range of what follows its own length of `width` bytes; nil where it does not fit.
        func block(_ width: Int, within end: Int) -> Range<Int>? {
            guard at + width <= end else { return nil }
            var length = 0
            for i in 0..<width { length = length << 8 | Int(body[at + i]) }
            at += width
            guard at + length <= end else { return nil }
            defer { at += length }
            return at..<(at + length)
        }
        // legacy_version and random, session id, cipher suites, compression methods.
        at = 34
        guard at <= body.count, block(1, within: body.count) != nil, block(2, within: body.count) != nil,
            block(1, within: body.count) != nil
        else { return .other }
        // A client of TLS 1.2 may send no extensions at all.
        if at == body.count { return .complete(serverName: []) }
        guard let extensions = block(2, within: body.count), extensions.upperBound == body.count else { return .other }
        at = extensions.lowerBound
        while at < extensions.upperBound {
            guard at + 2 <= extensions.upperBound else { return .other }
            let isServerName = body[at] == 0 && body[at + 1] == 0
            at += 2
            guard let value = block(2, within: extensions.upperBound) else { return .other }
            guard isServerName else { continue }
            at = value.lowerBound
            // One list, and in it one name of type host_name.
            guard let list = block(2, within: value.upperBound), list.upperBound == value.upperBound,
                list.count > 3, body[list.lowerBound] == 0
            else { return .other }
            at = list.lowerBound + 1
            guard let name = block(2, within: list.upperBound), !name.isEmpty, name.count <= 255 else { return .other }
            var host: [UInt8] = []
            for i in name { host.append(lower(body[i])) }
            return .complete(serverName: host)
        }
        return .complete(serverName: [])
    }

    private static func lower(_ byte: UInt8) -> UInt8 { byte &- 65 < 26 ? byte | 0x20 : byte }
}
