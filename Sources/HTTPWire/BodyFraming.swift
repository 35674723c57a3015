// Where a body ends (RFC 9112 §6). Both admissions decide it, the body decoder follows it, the serialiser says it.

internal import Model

package enum BodyFraming: Sendable, Hashable {
    /// No body, and no field that says so.
    case none
    /// Content-Length; 0 is said too.
    case length(UInt64)
    case chunked
    /// Responses only: everything up to the end of the connection.
    case untilClose

    /// Nothing follows the head.
    @inlinable
    package var isEmpty: Bool { self == .none || self == .length(0) }
}

/// What the framing fields of one head say, line by line.
struct FramingFields {
    enum Coding {
        case none
        case chunked
        /// A list of tokens that we do not understand, with `chunked` last or absent.
        case unknown
    }

    var length: UInt64?
    var coding: Coding = .none

    /// Reads one Content-Length line. Refuses a second line even when it says the same, a list, a sign, white space
    /// and more digits than fit (RFC 9112 §6.3 allows repeated equal values; whoever sends them is up to something).
    mutating func readLength(_ value: Span<UInt8>) -> Bool {
        // 18 digits are below 2⁶³; nobody pads with zeros that far.
        guard length == nil, value.count >= 1, value.count <= 18 else { return false }
        var n: UInt64 = 0
        for i in 0..<value.count {
            let digit = value[i] &- 48
            guard digit < 10 else { return false }
            n = n &* 10 &+ UInt64(digit)
        }
        length = n
        return true
    }

    /// Reads one Transfer-Encoding line. Refuses a second line, what is no list of tokens, and `chunked` anywhere but
    /// at the end (RFC 9112 §6.1).
    mutating func readCoding(_ value: Span<UInt8>) -> Bool {
        guard coding == .none else { return false }
        if value.equalsIgnoringCase("chunked") {
            coding = .chunked
            return true
        }
        coding = .unknown
        var list = TokenList(value)
        var isChunkedSeen = false
        var count = 0
        while let range = list.next() {
            guard !isChunkedSeen else { return false }
            isChunkedSeen = value.extracting(range).equalsIgnoringCase("chunked")
            count += 1
        }
        return !list.isMalformed && count > 0
    }
}

/// Walks a comma-separated list of tokens (RFC 9110 §5.6.1); empty elements are passed over.
struct TokenList: ~Escapable {
    private let value: Span<UInt8>
    private var offset = 0
    /// Something else than a token was met; the walk has ended.
    private(set) var isMalformed = false

    @_lifetime(copy value)
    init(_ value: Span<UInt8>) {
        self.value = value
    }

    mutating func next() -> Range<Int>? {
        while offset < value.count {
            while offset < value.count, value[offset] == 0x20 || value[offset] == 0x09 || value[offset] == 0x2c {
                offset += 1
            }
            let start = offset
            while offset < value.count, ByteSet.token.contains(value[offset]) { offset += 1 }
            let end = offset
            while offset < value.count, value[offset] == 0x20 || value[offset] == 0x09 { offset += 1 }
            if offset < value.count, value[offset] != 0x2c {
                isMalformed = true
                offset = value.count
                return nil
            }
            if end > start { return start..<end }
        }
        return nil
    }
}

/// What the Connection lines of one head say (RFC 9110 §7.6.1).
struct ConnectionOptions {
    var closes = false
    var keepsAlive = false
    var upgrades = false
    /// It names other fields.
    var nominates = false
    var nominated = 0

    /// More names than this are refused: each is looked for among all fields.
    static let maxNominated = 32

    /// Reads one Connection line; false if it is no list of tokens, or too long a one.
    mutating func read(_ value: Span<UInt8>) -> Bool {
        if value.equalsIgnoringCase("keep-alive") {
            keepsAlive = true
            return true
        }
        if value.equalsIgnoringCase("close") {
            closes = true
            return true
        }
        var list = TokenList(value)
        while let range = list.next() {
            let token = value.extracting(range)
            if token.equalsIgnoringCase("close") {
                closes = true
            } else if token.equalsIgnoringCase("keep-alive") {
                keepsAlive = true
            } else if token.equalsIgnoringCase("upgrade") {
                upgrades = true
            } else {
                nominates = true
                nominated += 1
                guard nominated <= Self.maxNominated else { return false }
            }
        }
        return !list.isMalformed
    }

    /// Marks the fields that the Connection lines of `head` name. What tells who asks, what frames or addresses the
    /// message and what we set ourselves is not theirs to take away (CVE-2021-32813, CVE-2024-45410).
    static func markNominated(in head: inout MessageHead) {
        var line = head.firstIndex(of: .connection)
        while let index = line {
            let value = head.fields[index].valueRange
            // Ranges first: the head is lent while they are read, and written only afterwards.
            var names: [Range<Int>] = []
            var list = TokenList(head.bytes.span.extracting(value))
            while let range = list.next() {
                names.append(value.lowerBound + range.lowerBound..<value.lowerBound + range.upperBound)
            }
            for name in names {
                for i in head.fields.indices
                where isNamed(head, head.fields[i], name) && isTakable(head, head.fields[i]) {
                    head.fields[i].flags.insert(.hopByHop)
                }
            }
            line = head.firstIndex(of: .connection, from: index + 1)
        }
    }

    private static func isNamed(_ head: MessageHead, _ field: FieldRecord, _ name: Range<Int>) -> Bool {
        Int(field.nameCount) == name.count && head.isName(of: field, head.bytes.span.extracting(name))
    }

    private static func isTakable(_ head: MessageHead, _ field: FieldRecord) -> Bool {
        guard !field.flags.contains(.ours) else { return false }
        switch field.name {
        case .other:
            let name = head.bytes.span.extracting(field.nameRange)
            for prefix: StaticString in ["x-forwarded-", "x-original-", "x-auth-", "content-", "sec-"] {
                let n = prefix.utf8CodeUnitCount
                if name.count >= n, name.extracting(0..<n).equalsIgnoringCase(prefix) { return false }
            }
            return true
        case .accept, .date, .expect, .trailer: return true
        case .authorization, .connection, .contentLength, .contentType, .cookie, .forwarded, .host, .http2Settings,
            .keepAlive, .proxyAuthenticate, .proxyAuthorization, .proxyConnection, .secWebSocketAccept,
            .secWebSocketKey, .setCookie, .te, .transferEncoding, .upgrade, .via, .xForwardedFor, .xForwardedHost,
            .xForwardedPort, .xForwardedPrefix, .xForwardedProto, .xRealIP, .xRequestID:
            return false
        }
    }
}
