// Before anything else of a route: plain HTTP is sent to HTTPS where the host has a certificate.
internal import Model

enum HTTPSRedirect {
    /// Keeps the method and the body (RFC 9110 §15.4.9).
    static let status: UInt16 = 308

    /// Where an ACME server looks for the answer to its challenge (RFC 8555 §8.3): by plain HTTP, at a time when there is
    /// no certificate yet.
    private static let challenge = Array("/.well-known/acme-challenge/".utf8)

    /// Whether the request is to be redirected: over plain HTTP, to a host that it names.
    static func applies(to exchange: Exchange) -> Bool {
        if exchange.client.isSecure || exchange.request.hostRange.count == 0 { return false }
        return !isChallenge(exchange.request)
    }

    /// Whether the request is an ACME server's, by its canonical path.
    static func isChallenge(_ request: borrowing MessageHead) -> Bool {
        let range = request.pathRange.range
        // A token has no slash, and one that is encoded may lead elsewhere.
        guard range.count >= challenge.count, !request.hasEncodedSlash else { return false }
        for i in challenge.indices where request.bytes[range.lowerBound + i] != challenge[i] { return false }
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
