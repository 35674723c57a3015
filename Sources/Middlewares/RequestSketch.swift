// A request in words, for `moongate explain` and `moongate test`: it goes through the same parser and the same admission
// as one that comes from a socket.

import HTTPWire
package import Model

package struct RequestSketch: Sendable, Hashable {
    package struct Field: Sendable, Hashable {
        package var name: String
        package var value: String

        package init(_ name: String, _ value: String) {
            self.name = name
            self.value = value
        }
    }

    package struct Problem: Error, Sendable, Hashable {
        package var message: String
        /// What a client would have been answered.
        package var status: UInt16
    }

    package var method = "GET"
    package var isSecure = false
    package var host = "localhost"
    /// Path and query as a client sends them.
    package var target = "/"
    package var fields: [Field] = []
    package var cookies: [Field] = []
    package var client = IPAddress(v4: 0x7f00_0001)
    package var requestID = "00000000-0000-4000-8000-000000000000"

    package init() {}

    /// Reads `GET https://shop.test/cart?x=1`, or a path alone.
    package init(_ line: String) throws(Problem) {
        let parts = line.split(separator: " ", omittingEmptySubsequences: true)
        guard (1...2).contains(parts.count), let last = parts.last else {
            throw Problem(message: "a request is METHOD URL, for example GET https://shop.test/cart", status: 400)
        }
        if parts.count == 2 { method = String(parts[0]) }
        var rest = last
        if let range = rest.range(of: "://") {
            switch rest[..<range.lowerBound].lowercased() {
            case "http": isSecure = false
            case "https": isSecure = true
            default: throw Problem(message: "the scheme is http or https", status: 400)
            }
            rest = rest[range.upperBound...]
            let end = rest.firstIndex { "/?".contains($0) } ?? rest.endIndex
            host = String(rest[..<end])
            rest = rest[end...]
        }
        target = rest.hasPrefix("/") ? String(rest) : "/" + rest
    }

    /// An exchange as it stands before the match.
    package func makeExchange() throws(Problem) -> Exchange {
        for text in [method, host, target] + (fields + cookies).flatMap({ [$0.name, $0.value] })
        where text.utf8.contains(where: { $0 == 13 || $0 == 10 }) {
            throw Problem(message: "a request cannot hold a line break", status: 400)
        }
        var text = "\(method) \(target) HTTP/1.1\r\n"
        if !fields.contains(where: { $0.name.lowercased() == "host" }) { text += "host: \(host)\r\n" }
        for field in fields { text += "\(field.name): \(field.value)\r\n" }
        if !cookies.isEmpty {
            text += "cookie: " + cookies.map { "\($0.name)=\($0.value)" }.joined(separator: "; ") + "\r\n"
        }
        text += "\r\n"
        let exchange = Exchange()
        let bytes = Array(text.utf8)
        var parser = HeadParser(.request)
        switch parser.parse(bytes.span, limits: HeadLimits(), into: &exchange.request) {
        case .complete: break
        case .needMore: throw Problem(message: "the request is not complete", status: 400)
        case .refuse(let refusal):
            throw Problem(message: "the request is refused: \(refusal.reason.label)", status: refusal.status)
        }
        switch RequestAdmission.judge(&exchange.request, AdmissionRules(), isTrusted: false) {
        case .admit: break
        case .refuse(let refusal):
            throw Problem(message: "the request is refused: \(refusal.reason.label)", status: refusal.status)
        }
        exchange.client.address = SocketAddress(ip: client, port: 49152)
        exchange.client.peer = exchange.client.address
        exchange.client.isSecure = isSecure
        exchange.idRange = exchange.request.store(requestID.utf8)
        return exchange
    }
}

extension Substring {
    /// The first place of a text; Foundation is not wanted for it.
    fileprivate func range(of text: String) -> Range<Index>? {
        var at = startIndex
        while at < endIndex {
            if self[at...].hasPrefix(text) { return at..<index(at, offsetBy: text.count) }
            at = index(after: at)
        }
        return nil
    }
}
