// Step 8 of a request's walk: every failure becomes a response here, and nowhere else.
internal import Model

extension FailureReason {
    /// The status that the client gets; 0 where there is nobody left to tell.
    var status: UInt16 {
        switch self {
        case .none: 500
        case .malformedRequest, .plainHTTP, .noClientCertificate, .badClientCertificate: 400
        case .misdirected: 421
        case .clientForbidden, .clientRulesBroken: 403
        case .unsupportedVersion: 505
        case .unsupportedCoding: 501
        case .headTooLarge, .tooManyFields: 431
        case .targetTooLong: 414
        case .bodyTooLarge: 413
        case .headTimeout, .bodyTimeout: 408
        case .clientClosed: 499
        case .expectationFailed: 417
        case .methodNotAllowed: 405
        case .noRoute: 404
        case .noBackend, .noEndpoint, .overloaded, .draining, .scriptFailed: 503
        case .rewriteLoop, .internalError: 500
        case .connectFailed, .upstreamClosed, .upstreamReset, .malformedResponse, .noUpgrade,
            .upstreamTLSHandshake, .upstreamTLSCertificate, .upstreamTLSName:
            502
        case .upstreamTLSSetup: 503
        case .connectTimeout, .upstreamTLSTimeout, .responseTimeout, .streamTimeout, .totalTimeout: 504
        }
    }
}

enum ErrorPage {
    enum Form: Equatable, Sendable {
        case text
        case json
        case html
    }

    /// The standard phrase of a status (RFC 9110 §15 and its registry), for those that the proxy itself sends.
    static func phrase(_ status: UInt16) -> StaticString {
        switch status {
        case 100: "Continue"
        case 101: "Switching Protocols"
        case 200: "OK"
        case 201: "Created"
        case 202: "Accepted"
        case 204: "No Content"
        case 301: "Moved Permanently"
        case 302: "Found"
        case 303: "See Other"
        case 304: "Not Modified"
        case 307: "Temporary Redirect"
        case 308: "Permanent Redirect"
        case 400: "Bad Request"
        case 401: "Unauthorized"
        case 403: "Forbidden"
        case 404: "Not Found"
        case 405: "Method Not Allowed"
        case 408: "Request Timeout"
        case 409: "Conflict"
        case 410: "Gone"
        case 413: "Content Too Large"
        case 414: "URI Too Long"
        case 417: "Expectation Failed"
        case 421: "Misdirected Request"
        case 422: "Unprocessable Content"
        case 425: "Too Early"
        case 429: "Too Many Requests"
        case 431: "Request Header Fields Too Large"
        case 451: "Unavailable For Legal Reasons"
        case 500: "Internal Server Error"
        case 501: "Not Implemented"
        case 502: "Bad Gateway"
        case 503: "Service Unavailable"
        case 504: "Gateway Timeout"
        case 505: "HTTP Version Not Supported"
        default: ""
        }
    }

    /// What of the three forms the client likes best by its `Accept` (RFC 9110 §12.5.1), read as far as is needed: the
    /// first of the media types that is known to us and not refused by `q=0`. Plain text if none.
    static func form(accept: Span<UInt8>) -> Form {
        var i = 0
        while i < accept.count {
            var end = i
            while end < accept.count, accept[end] != UInt8(ascii: ",") { end += 1 }
            var typeEnd = i
            while typeEnd < end, accept[typeEnd] != UInt8(ascii: ";") { typeEnd += 1 }
            let type = MessageHead.trimmed(accept.extracting(i..<typeEnd))
            if !isRefused(accept.extracting(typeEnd..<end)) {
                if type.equalsIgnoringCase("text/html") || type.equalsIgnoringCase("application/xhtml+xml") {
                    return .html
                }
                if type.equalsIgnoringCase("application/json") || type.equalsIgnoringCase("application/problem+json") {
                    return .json
                }
                if type.equalsIgnoringCase("text/plain") { return .text }
            }
            i = end + 1
        }
        return .text
    }

    private static func isRefused(_ parameters: Span<UInt8>) -> Bool {
        var i = 0
        while i + 2 < parameters.count {
            if MessageHead.lower(parameters[i]) == UInt8(ascii: "q"), parameters[i + 1] == UInt8(ascii: "=") {
                guard parameters[i + 2] == UInt8(ascii: "0") else { return false }
                for j in (i + 3)..<max(i + 3, parameters.count)
                where parameters[j] != UInt8(ascii: "0") && parameters[j] != UInt8(ascii: ".") {
                    return parameters[j] == UInt8(ascii: " ")
                }
                return true
            }
            i += 1
        }
        return false
    }

    static func contentType(_ form: Form) -> StaticString {
        switch form {
        case .text: "text/plain; charset=utf-8"
        case .json: "application/json"
        case .html: "text/html; charset=utf-8"
        }
    }

    /// Fills `body`. Says the status and its phrase, and nothing about what is behind us.
    /// - Parameter detail: a sentence for people, in the text form: only where it helps whoever made a slip.
    static func write(status: UInt16, form: Form, detail: StaticString = "", into body: inout [UInt8]) {
        let phrase = phrase(status)
        switch form {
        case .text:
            append(status, to: &body)
            body.append(UInt8(ascii: " "))
            body.append(phrase)
            body.append(UInt8(ascii: "\n"))
            body.append(detail)
        case .json:
            body.append("{\"status\":")
            append(status, to: &body)
            body.append(",\"error\":\"")
            body.append(phrase)
            body.append("\"}\n")
        case .html:
            body.append("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>")
            append(status, to: &body)
            body.append(UInt8(ascii: " "))
            body.append(phrase)
            body.append("</title></head><body><h1>")
            append(status, to: &body)
            body.append(UInt8(ascii: " "))
            body.append(phrase)
            body.append("</h1></body></html>\n")
        }
    }

    private static func append(_ status: UInt16, to body: inout [UInt8]) {
        body.append(UInt8(truncatingIfNeeded: status / 100 % 10) + 48)
        body.append(UInt8(truncatingIfNeeded: status / 10 % 10) + 48)
        body.append(UInt8(truncatingIfNeeded: status % 10) + 48)
    }
}
