// Before anything else of a route: plain HTTP is sent to HTTPS where the host has a certificate.
internal import Model

enum HTTPSRedirect {
    /// Keeps the method and the body (RFC 9110 §15.4.9).
    static let status: UInt16 = 308

    /// Where an ACME server looks for the answer to its challenge (RFC 8555 §8.3): by plain HTTP, at a time when there is
    /// no certificate yet.
    private static let challenge = Array("/.well-known/acme-challenge/".utf8)

    /// Whether the request is not to be served by plain HTTP. One that names no host (HTTP/1.0 demands none) cannot be sent
    /// anywhere, and is refused: served, it would pass by what the redirect stands before.
    static func applies(to exchange: Exchange) -> Bool {
        !exchange.client.isSecure && !isChallenge(exchange.request)
    }

    /// Whether the request is an ACME server's, by its method and its canonical path: a GET, or a HEAD, for one token of
    /// base64url (RFC 8555 §8.1, §8.3). Whatever else lies below that path is no challenge.
    static func isChallenge(_ request: borrowing MessageHead) -> Bool {
        guard request.method == .get || request.method == .head else { return false }
        let range = request.pathRange.range
        guard range.count > challenge.count, !request.hasEncodedSlash else { return false }
        for i in challenge.indices where request.bytes[range.lowerBound + i] != challenge[i] { return false }
        for i in range.lowerBound + challenge.count..<range.upperBound {
            switch request.bytes[i] {
            case 48...57, 65...90, 97...122, UInt8(ascii: "-"), UInt8(ascii: "_"): continue
            default: return false
            }
        }
        return true
    }

    /// Appends the same URL with the other scheme. Path and query are the canonical ones, in which nothing can end a line.
    static func appendLocation(of request: borrowing MessageHead, port: UInt16, to output: inout [UInt8]) {
        output.append(contentsOf: "https://".utf8)
        output.append(contentsOf: request.bytes[request.hostRange.range])
        if port != 443 { output.append(contentsOf: ":\(port)".utf8) }
        output.append(contentsOf: request.bytes[request.pathRange.range])
        if request.hasQuery {
            output.append(UInt8(ascii: "?"))
            output.append(contentsOf: request.bytes[request.queryRange.range])
        }
    }
}
