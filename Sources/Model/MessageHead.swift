// The head of a request or a response, whatever the HTTP version: one arena of bytes, and 16-byte records into it.
// A head costs no allocation once its arrays have grown: an exchange is pooled by its loop, `removeAll` keeps capacity.

/// A run of bytes in a head's arena.
public struct ByteRange: Sendable, Hashable {
    public var offset: UInt32
    public var count: UInt32

    @inlinable
    public init(offset: Int, count: Int) {
        self.offset = UInt32(truncatingIfNeeded: offset)
        self.count = UInt32(truncatingIfNeeded: count)
    }

    @inlinable public static var empty: ByteRange { ByteRange(offset: 0, count: 0) }
    @inlinable public var isEmpty: Bool { count == 0 }
    @inlinable public var range: Range<Int> { Int(offset)..<Int(offset) + Int(count) }
}

/// The field names that the proxy itself acts on. Everything else is `.other` and compared by bytes.
public enum FieldName: UInt8, Sendable, Hashable, CaseIterable {
    case other = 0
    case accept
    case authorization
    case connection
    case contentLength
    case contentType
    case cookie
    case date
    case expect
    case forwarded
    case host
    case http2Settings
    case keepAlive
    case proxyAuthenticate
    case proxyAuthorization
    case proxyConnection
    case secWebSocketAccept
    case secWebSocketKey
    case setCookie
    case te
    case trailer
    case transferEncoding
    case upgrade
    case via
    case xForwardedFor
    case xForwardedHost
    case xForwardedPort
    case xForwardedPrefix
    case xForwardedProto
    case xRealIP
    case xRequestID
}

/// One field line: where its name and value lie in the arena.
public struct FieldRecord: Sendable, Hashable {
    public var nameOffset: UInt32
    public var valueOffset: UInt32
    public var valueCount: UInt32
    public var nameCount: UInt16
    public var name: FieldName
    public var flags: Flags

    public struct Flags: OptionSet, Sendable, Hashable {
        public let rawValue: UInt8
        @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
        /// In place of a literal, which an unspecialised function of the standard library would make.
        @inlinable public static var none: Flags { Flags(rawValue: 0) }
        /// Taken out; kept in place so that indices stay valid while somebody walks the list.
        @inlinable public static var removed: Flags { Flags(rawValue: 1) }
        /// Set or appended by the proxy or a script: a client's `Connection` can not remove it.
        @inlinable public static var ours: Flags { Flags(rawValue: 2) }
        /// Hop-by-hop (RFC 9110 §7.6.1): never forwarded as it came.
        @inlinable public static var hopByHop: Flags { Flags(rawValue: 4) }
        /// The name holds `_`: a CGI upstream cannot tell it from the same name with `-`.
        @inlinable public static var hasUnderscore: Flags { Flags(rawValue: 8) }
    }

    @inlinable
    public init(name: FieldName, nameRange: ByteRange, valueRange: ByteRange, flags: Flags = .none) {
        nameOffset = nameRange.offset
        nameCount = UInt16(truncatingIfNeeded: nameRange.count)
        valueOffset = valueRange.offset
        valueCount = valueRange.count
        self.name = name
        self.flags = flags
    }

    @inlinable public var nameRange: Range<Int> { Int(nameOffset)..<Int(nameOffset) + Int(nameCount) }
    @inlinable public var valueRange: Range<Int> { Int(valueOffset)..<Int(valueOffset) + Int(valueCount) }
    @inlinable public var isRemoved: Bool { flags.contains(.removed) }
}

public enum HTTPVersion: UInt8, Sendable, Hashable {
    case http10
    case http11
    case http2
}

public enum Method: UInt8, Sendable, Hashable {
    case other = 0
    case get
    case head
    case post
    case put
    case delete
    case connect
    case options
    case trace
    case patch

    /// RFC 9110 §9.2.2: sending it twice means the same as sending it once.
    @inlinable
    public var isIdempotent: Bool {
        switch self {
        case .get, .head, .put, .delete, .options, .trace: true
        case .other, .post, .connect, .patch: false
        }
    }
}

/// The head of a request or of a response.
///
/// All ranges point into `bytes`. The arena only grows while a message is alive: an edit appends the new bytes and
/// changes the record, so a saved copy of `fields` and of the ranges still reads what it read before (this is how a
/// failed script leaves no trace).
public struct MessageHead: Sendable {
    public var bytes: [UInt8] = []
    public var fields: [FieldRecord] = []
    public var version: HTTPVersion = .http11

    // Requests.
    public var method: Method = .other
    public var methodRange: ByteRange = .empty
    /// The request target as it was sent.
    public var targetRange: ByteRange = .empty
    /// The canonical path, without the query: the one path that router, scripts, log and upstream see.
    public var pathRange: ByteRange = .empty
    /// The client's path holds `%2F` or `%5C`, which only a route that says so takes (`RoutePolicy`).
    public var hasEncodedSlash = false
    /// The query without its `?`; `hasQuery` tells an empty one from none.
    public var queryRange: ByteRange = .empty
    public var hasQuery = false
    /// Host as sent (with its port), from the target or from `Host`.
    public var authorityRange: ByteRange = .empty
    /// What the client had sent as `authorityRange`, where a script has set another host since; else empty.
    public var replacedAuthorityRange: ByteRange = .empty
    /// Host in lower case without port and trailing dot: what the router matches.
    public var hostRange: ByteRange = .empty

    // Responses.
    public var status: UInt16 = 0
    public var reasonRange: ByteRange = .empty

    @inlinable public init() {}

    /// Empties the head and keeps its memory.
    @inlinable
    public mutating func removeAll() {
        // A head that was larger than heads are gives its memory back: the pool outlives the peak.
        bytes.removeAll(keepingCapacity: bytes.capacity <= 16 * 1024)
        fields.removeAll(keepingCapacity: fields.capacity <= 256)
        version = .http11
        method = .other
        methodRange = .empty
        targetRange = .empty
        pathRange = .empty
        hasEncodedSlash = false
        queryRange = .empty
        hasQuery = false
        authorityRange = .empty
        replacedAuthorityRange = .empty
        hostRange = .empty
        status = 0
        reasonRange = .empty
    }

    /// Appends bytes to the arena and says where they lie.
    @inlinable
    public mutating func store(_ source: Span<UInt8>) -> ByteRange {
        let offset = bytes.count
        // Proof: the buffer is read only inside the closure, while the span that lends it is alive.
        unsafe source.withUnsafeBufferPointer { unsafe bytes.append(contentsOf: $0) }
        return ByteRange(offset: offset, count: source.count)
    }

    @inlinable
    public mutating func store(_ source: some Collection<UInt8>) -> ByteRange {
        let offset = bytes.count
        bytes.append(contentsOf: source)
        return ByteRange(offset: offset, count: bytes.count - offset)
    }

    /// A copy of a run, for logs, tests and slow paths.
    public func text(_ range: Range<Int>) -> String {
        range.upperBound <= bytes.count ? String(decoding: bytes[range], as: UTF8.self) : ""
    }
    public func text(_ range: ByteRange) -> String { text(range.range) }

    // MARK: Fields

    /// The first live field of that known name, as an index into `fields`; nil if none.
    @inlinable
    public func firstIndex(of name: FieldName, from start: Int = 0) -> Int? {
        var i = start
        while i < fields.count {
            if fields[i].name == name, !fields[i].isRemoved { return i }
            i += 1
        }
        return nil
    }

    /// The first live field whose name equals `name`, letters compared without case (RFC 9110 §5.1).
    @inlinable
    public func firstIndex(named name: Span<UInt8>, from start: Int = 0) -> Int? {
        var i = start
        while i < fields.count {
            let field = fields[i]
            if Int(field.nameCount) == name.count, !field.isRemoved, isName(of: field, name) { return i }
            i += 1
        }
        return nil
    }

    @inlinable
    public func isName(of field: FieldRecord, _ name: Span<UInt8>) -> Bool {
        guard Int(field.nameCount) == name.count else { return false }
        let base = Int(field.nameOffset)
        for i in 0..<name.count where Self.lower(bytes[base + i]) != Self.lower(name[i]) { return false }
        return true
    }

    /// ASCII letters to lower case, every other byte as it is.
    @inlinable
    public static func lower(_ byte: UInt8) -> UInt8 {
        byte &- 65 < 26 ? byte | 0x20 : byte
    }

    /// Appends a field. The caller has checked name and value against the grammar (RFC 9110 §5).
    @inlinable
    public mutating func append(
        _ known: FieldName, name: Span<UInt8>, value: Span<UInt8>, flags: FieldRecord.Flags = .ours
    ) {
        let nameRange = store(name)
        let valueRange = store(value)
        fields.append(FieldRecord(name: known, nameRange: nameRange, valueRange: valueRange, flags: flags))
    }

    @inlinable
    public mutating func remove(at index: Int) {
        fields[index].flags.insert(.removed)
    }
}
