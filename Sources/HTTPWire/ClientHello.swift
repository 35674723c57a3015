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

    /// Reads what has come so far, from the first byte on.
    package static func parse(_ bytes: Span<UInt8>) -> Progress {
        var scan = Scan()
        return scan.next(bytes)
    }

    /// How far the frames of the records have been looked at: of a client that sends byte by byte, in records of a byte
    /// each, nothing is looked at twice until the message is whole.
    package struct Scan: Sendable {
        /// Where the record begins that is not whole yet, or has not come.
        private var at = 0
        /// How much of the message was in the records before it.
        private var have = 0
        /// The message's own head (type and length), as far as it is there.
        private var head: UInt32 = 0
        private var headCount = 0
        private var wanted: Int?

        package init() {}

        /// - Parameter bytes: all that has come, from the first byte on: what there was at the last call, and more.
        package mutating func next(_ bytes: Span<UInt8>) -> Progress {
            // The message may be spread over records (RFC 8446 §5.1). Each field is judged as soon as it is there.
            while true {
                if at < bytes.count, bytes[at] != 22 { return .other }
                if at + 1 < bytes.count, bytes[at + 1] != 3 { return .other }
                guard at + 5 <= bytes.count else { return ended(bytes) }
                let length = recordLength(bytes, at)
                guard (1...16384).contains(length) else { return .other }
                let count = min(length, bytes.count - at - 5)
                while headCount < 4, headCount - have < count {
                    head = head << 8 | UInt32(bytes[at + 5 + headCount - have])
                    headCount += 1
                }
                if headCount > 0, head >> UInt32(8 * (headCount - 1)) != 1 { return .other }
                if wanted == nil, headCount == 4 {
                    let length = Int(head & 0xff_ffff)
                    guard length <= maxMessage else { return .other }
                    wanted = 4 + length
                }
                if let wanted, have + count >= wanted {
                    let body = Self.body(bytes, wanted)
                    return read(body.span)
                }
                if count < length { return ended(bytes) }
                have += count
                at += 5 + length
            }
        }

        /// The message without its head, out of its records.
        private static func body(_ bytes: Span<UInt8>, _ wanted: Int) -> [UInt8] {
            var message: [UInt8] = []
            message.reserveCapacity(wanted)
            var at = 0
            while message.count < wanted {
                let length = min(recordLength(bytes, at), wanted - message.count)
                message.append(bytes.extracting((at + 5)..<(at + 5 + length)))
                at += 5 + length
            }
            return Array(message.dropFirst(4))
        }
    }

    /// What ClientHellos say of their own length, however they are cut up: a TLS engine makes room for all of one as soon as
    /// it has read that. A second one comes where the server asked for it (HelloRetryRequest, RFC 8446 §4.1.4).
    package struct Size: Sendable {
        /// How much of a record's frame has come.
        private var frameCount = 0
        private var type: UInt8 = 0
        private var length = 0
        /// So much of the record is still to come.
        private var left = 0
        /// The head of a message (type and length), as far as it is there.
        private var head: UInt32 = 0
        private var headCount = 0
        /// So much of the message behind it is still to come.
        private var messageLeft = 0
        private var verdict: Bool?

        package init() {}

        /// False from when on one is more than is taken (`maxMessage`). What is none fits: it is for the engine to judge.
        /// - Parameters:
        ///   - bytes: what has come since the last call.
        ///   - changeSeals: it is TLS 1.2, where what comes behind a ChangeCipherSpec is encrypted; in TLS 1.3 that record
        ///     means nothing, and what is encrypted says so.
        package mutating func isFit(_ bytes: Span<UInt8>, changeSeals: Bool) -> Bool {
            var at = 0
            while at < bytes.count, verdict == nil {
                if left == 0 {
                    frame(bytes[at], changeSeals)
                    at += 1
                } else if type != 22 || messageLeft > 0 {
                    let count = min(left, bytes.count - at, type == 22 ? messageLeft : .max)
                    if type == 22 { messageLeft -= count }
                    left -= count
                    at += count
                } else {
                    message(bytes[at])
                    left -= 1
                    at += 1
                }
            }
            return verdict ?? true
        }

        private mutating func frame(_ byte: UInt8, _ changeSeals: Bool) {
            switch frameCount {
            case 0:
                // What is no TLS from its first byte on.
                if type == 0, byte != 22 { verdict = true }
                if byte == 20, changeSeals { verdict = true }
                type = byte
            case 3: length = Int(byte) << 8
            case 4: left = length | Int(byte)
            default: break
            }
            frameCount = (frameCount + 1) % 5
        }

        private mutating func message(_ byte: UInt8) {
            head = head << 8 | UInt32(byte)
            headCount += 1
            guard headCount == 4 else { return }
            headCount = 0
            messageLeft = Int(head & 0xff_ffff)
            if head >> 24 == 1, messageLeft > maxMessage { verdict = false }
        }
    }

    private static func recordLength(_ bytes: Span<UInt8>, _ at: Int) -> Int {
        Int(bytes[at + 3]) << 8 | Int(bytes[at + 4])
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
            // The same host, although RFC 6066 §3 has names without it.
            if host.last == 0x2e { host.removeLast() }
            return .complete(serverName: host)
        }
        return .complete(serverName: [])
    }

    private static func lower(_ byte: UInt8) -> UInt8 { byte &- 65 < 26 ? byte | 0x20 : byte }
}
