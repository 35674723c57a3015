// What a header field may look like (RFC 9110 §5), and which fields a script may set. The head parser, the script API
// and the outbound validator each ask on their own: no layer relies on another.

public enum FieldGrammar {
    /// Longest field name that a script may set; the parser has its own limit.
    public static let maxNameCount = 256
    /// Longest value that a script may set.
    public static let maxValueCount = 65535

    /// RFC 9110 §5.6.2: one or more tchar.
    @inlinable
    public static func isToken(_ bytes: Span<UInt8>) -> Bool {
        for i in 0..<bytes.count where !ByteSet.token.contains(bytes[i]) { return false }
        return !bytes.isEmpty
    }

    /// RFC 9110 §5.5: visible bytes, obs-text, space and tab. Refuses every other control byte, so also CR, LF, NUL.
    @inlinable
    public static func isValue(_ bytes: Span<UInt8>) -> Bool {
        for i in 0..<bytes.count where isControl(bytes[i]) { return false }
        return true
    }

    /// A byte that no field value may hold.
    @inlinable
    public static func isControl(_ byte: UInt8) -> Bool { byte < 0x20 && byte != 0x09 || byte == 0x7f }

    /// Why `name` is no field name, as a message to the author of a script; nil if it is one.
    public static func problem(name: Span<UInt8>) -> String? {
        if name.isEmpty { return "a header name is empty" }
        if name.count > maxNameCount { return "a header name is longer than \(maxNameCount) bytes" }
        for i in 0..<name.count where !ByteSet.token.contains(name[i]) {
            return "a header name holds \(describe(name[i])) at byte \(i + 1); "
                + "it may hold letters, digits and !#$%&'*+-.^_`|~"
        }
        return nil
    }

    /// Why `value` is no field value, as a message to the author of a script; nil if it is one.
    public static func problem(value: Span<UInt8>) -> String? {
        if value.count > maxValueCount { return "a header value is longer than \(maxValueCount) bytes" }
        for i in 0..<value.count where isControl(value[i]) {
            return "a header value holds \(describe(value[i])) at byte \(i + 1); it may not hold control bytes"
        }
        return nil
    }

    /// Why a script may not set or remove the field `name` (SCRIPTING.md §11); nil if it may. Checks the grammar too.
    public static func problem(setting name: Span<UInt8>) -> String? {
        if let problem = problem(name: name) { return problem }
        let known = FieldName(name)
        if known == .host { return "\"host\" cannot be set as a header; assign req.host" }
        if known.isFraming { return "\"\(known.text)\" frames the message; it can be read, not set" }
        if known.isHopByHop { return "\"\(known.text)\" belongs to the connection; it can be read, not set" }
        return nil
    }

    /// A byte as a message shows it.
    public static func describe(_ byte: UInt8) -> String {
        switch byte {
        case 0x00: return "NUL"
        case 0x09: return "a tab"
        case 0x0a: return "LF"
        case 0x0d: return "CR"
        case 0x20: return "a space"
        case 0x21...0x7e: return "\"\(Character(Unicode.Scalar(byte)))\""
        default:
            let hex = String(byte, radix: 16)
            return "byte 0x\(hex.count == 1 ? "0" : "")\(hex)"
        }
    }
}

extension FieldName {
    /// The fields that say where a body ends or how the message is taken apart: the proxy writes them itself.
    @inlinable
    public var isFraming: Bool {
        switch self {
        case .contentLength, .transferEncoding, .trailer: true
        default: false
        }
    }

    /// RFC 9110 §7.6.1, with the older names that mean the same: never forwarded as they came.
    @inlinable
    public var isHopByHop: Bool {
        switch self {
        case .connection, .http2Settings, .keepAlive, .proxyAuthenticate, .proxyAuthorization, .proxyConnection, .te,
            .transferEncoding, .upgrade:
            true
        default: false
        }
    }

    /// The fields that tell an upstream who asks, by which way: a stranger's are not believed.
    @inlinable
    public var isForwarding: Bool {
        switch self {
        case .forwarded, .xForwardedFor, .xForwardedHost, .xForwardedPort, .xForwardedPrefix, .xForwardedProto,
            .xRealIP:
            true
        default: false
        }
    }

    /// The name in lower case; empty for `.other`.
    public var text: StaticString {
        switch self {
        case .other: ""
        case .accept: "accept"
        case .authorization: "authorization"
        case .connection: "connection"
        case .contentLength: "content-length"
        case .contentType: "content-type"
        case .cookie: "cookie"
        case .date: "date"
        case .expect: "expect"
        case .forwarded: "forwarded"
        case .host: "host"
        case .http2Settings: "http2-settings"
        case .keepAlive: "keep-alive"
        case .proxyAuthenticate: "proxy-authenticate"
        case .proxyAuthorization: "proxy-authorization"
        case .proxyConnection: "proxy-connection"
        case .secWebSocketAccept: "sec-websocket-accept"
        case .secWebSocketKey: "sec-websocket-key"
        case .setCookie: "set-cookie"
        case .te: "te"
        case .trailer: "trailer"
        case .transferEncoding: "transfer-encoding"
        case .upgrade: "upgrade"
        case .via: "via"
        case .xForwardedFor: "x-forwarded-for"
        case .xForwardedHost: "x-forwarded-host"
        case .xForwardedPort: "x-forwarded-port"
        case .xForwardedPrefix: "x-forwarded-prefix"
        case .xForwardedProto: "x-forwarded-proto"
        case .xRealIP: "x-real-ip"
        case .xRequestID: "x-request-id"
        }
    }

    /// The known name that equals `name`, letters compared without case; `.other` if none does.
    @inlinable
    public init(_ name: Span<UInt8>) {
        let count = name.count
        guard count >= 2, count <= 20 else {
            self = .other
            return
        }
        // The length and the first letter leave at most three candidates (an OR with 0x20 lowers a letter).
        let candidates: (FieldName, FieldName, FieldName)
        switch (count, name[0] | 0x20) {
        case (2, 0x74): candidates = (.te, .other, .other)
        case (3, 0x76): candidates = (.via, .other, .other)
        case (4, 0x68): candidates = (.host, .other, .other)
        case (4, 0x64): candidates = (.date, .other, .other)
        case (6, 0x61): candidates = (.accept, .other, .other)
        case (6, 0x63): candidates = (.cookie, .other, .other)
        case (6, 0x65): candidates = (.expect, .other, .other)
        case (7, 0x74): candidates = (.trailer, .other, .other)
        case (7, 0x75): candidates = (.upgrade, .other, .other)
        case (9, 0x66): candidates = (.forwarded, .other, .other)
        case (9, 0x78): candidates = (.xRealIP, .other, .other)
        case (10, 0x63): candidates = (.connection, .other, .other)
        case (10, 0x6b): candidates = (.keepAlive, .other, .other)
        case (10, 0x73): candidates = (.setCookie, .other, .other)
        case (12, 0x63): candidates = (.contentType, .other, .other)
        case (12, 0x78): candidates = (.xRequestID, .other, .other)
        case (13, 0x61): candidates = (.authorization, .other, .other)
        case (14, 0x63): candidates = (.contentLength, .other, .other)
        case (14, 0x68): candidates = (.http2Settings, .other, .other)
        case (15, 0x78): candidates = (.xForwardedFor, .other, .other)
        case (16, 0x70): candidates = (.proxyConnection, .other, .other)
        case (16, 0x78): candidates = (.xForwardedHost, .xForwardedPort, .other)
        case (17, 0x73): candidates = (.secWebSocketKey, .other, .other)
        case (17, 0x74): candidates = (.transferEncoding, .other, .other)
        case (17, 0x78): candidates = (.xForwardedProto, .other, .other)
        case (18, 0x70): candidates = (.proxyAuthenticate, .other, .other)
        case (18, 0x78): candidates = (.xForwardedPrefix, .other, .other)
        case (19, 0x70): candidates = (.proxyAuthorization, .other, .other)
        case (20, 0x73): candidates = (.secWebSocketAccept, .other, .other)
        default:
            self = .other
            return
        }
        if name.equalsIgnoringCase(candidates.0.text) {
            self = candidates.0
        } else if candidates.1 != .other, name.equalsIgnoringCase(candidates.1.text) {
            self = candidates.1
        } else if candidates.2 != .other, name.equalsIgnoringCase(candidates.2.text) {
            self = candidates.2
        } else {
            self = .other
        }
    }
}
