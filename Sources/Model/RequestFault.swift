// What exactly is wrong with a request that is refused with 400. The client is told no more than that it was; the access
// log and `moongate explain` name the rule, so that whoever runs the client need not guess.

package enum RequestFault: UInt8, Sendable, Hashable, CaseIterable {
    /// Nothing, or nothing more than the reason says.
    case none
    case requestLine
    case lineEnd
    case fieldLine
    case target
    case fragment
    // The path, as `CanonicalPath` refuses it.
    case pathNotAbsolute
    case pathByte
    case pathEscape
    case encodedNUL
    case encodedSlash
    case dotSegment
    case overlongUTF8
    case pathTooLong
    case noHost
    case badHost
    case twoHosts
    case hostDiffers
    case contentLength
    case transferEncoding
    case lengthAndCoding
    case connection
    case webSocketHandshake
    case traceBody
    case http2Field
    case trailers
    case base64

    package init(_ path: CanonicalPath.Refusal) {
        self =
            switch path {
            case .notAbsolute: .pathNotAbsolute
            case .forbiddenByte: .pathByte
            case .badEscape: .pathEscape
            case .encodedNUL: .encodedNUL
            case .encodedSlash: .encodedSlash
            case .dotSegment: .dotSegment
            case .overlongUTF8: .overlongUTF8
            case .tooLong: .pathTooLong
            }
    }

    /// kebab-case, stable: the access log's `detail`.
    package var label: String {
        switch self {
        case .none: "-"
        case .requestLine: "request-line"
        case .lineEnd: "line-end"
        case .fieldLine: "field-line"
        case .target: "target"
        case .fragment: "fragment"
        case .pathNotAbsolute: "path-not-absolute"
        case .pathByte: "path-byte"
        case .pathEscape: "path-escape"
        case .encodedNUL: "encoded-nul"
        case .encodedSlash: "encoded-slash"
        case .dotSegment: "dot-segment"
        case .overlongUTF8: "overlong-utf8"
        case .pathTooLong: "path-too-long"
        case .noHost: "no-host"
        case .badHost: "bad-host"
        case .twoHosts: "two-hosts"
        case .hostDiffers: "host-differs"
        case .contentLength: "content-length"
        case .transferEncoding: "transfer-encoding"
        case .lengthAndCoding: "length-and-coding"
        case .connection: "connection"
        case .webSocketHandshake: "websocket-handshake"
        case .traceBody: "trace-body"
        case .http2Field: "http2-field"
        case .trailers: "trailers"
        case .base64: "base64"
        }
    }

    /// For an operator.
    package var message: String {
        switch self {
        case .none: ""
        case .requestLine: "the request line is not METHOD, a space, the target, a space and HTTP/1.1"
        case .lineEnd: "a line does not end with CR LF"
        case .fieldLine: "a header line is not NAME: VALUE, without spaces before the colon and without folding"
        case .target: "the target is neither a path nor an http or https URL"
        case .fragment: "the target holds a \"#\""
        case .pathNotAbsolute: CanonicalPath.Refusal.notAbsolute.message
        case .pathByte: CanonicalPath.Refusal.forbiddenByte.message
        case .pathEscape: CanonicalPath.Refusal.badEscape.message
        case .encodedNUL: CanonicalPath.Refusal.encodedNUL.message
        case .encodedSlash: CanonicalPath.Refusal.encodedSlash.message
        case .dotSegment: CanonicalPath.Refusal.dotSegment.message
        case .overlongUTF8: CanonicalPath.Refusal.overlongUTF8.message
        case .pathTooLong: CanonicalPath.Refusal.tooLong.message
        case .noHost: "there is no Host field"
        case .badHost: "Host is no host name or address with a port at most"
        case .twoHosts: "there are two Host fields"
        case .hostDiffers: "the target and the Host field name different hosts"
        case .contentLength: "Content-Length is no number, is said twice differently, or is not the body's"
        case .transferEncoding: "Transfer-Encoding is malformed, or stands in an HTTP/1.0 request"
        case .lengthAndCoding: "Content-Length and Transfer-Encoding stand together"
        case .connection: "Connection is no list of names, or too long a one"
        case .webSocketHandshake: "the WebSocket handshake is no GET with a valid Sec-WebSocket-Key"
        case .traceBody: "a TRACE request has a body"
        case .http2Field: "a field is none that HTTP/2 allows in a request (RFC 9113 §8.2, §8.3)"
        case .trailers: "the trailers are too many, too long, or none that HTTP/2 allows in a request"
        case .base64: "the body of a gRPC-Web text call is no base64, or is cut off"
        }
    }
}
