// What backends speak: what an Ingress asks for, and what a Service port says of itself.
//
// An Ingress goes first (`backend-protocol`), then the port's `appProtocol`, then its name; plain HTTP/1.1 is what remains.
// A name is only a hint, and read only where it says one thing: `https`, `grpc`, `grpcs`, `h2c`, `http2` and `wss`, alone
// or before a hyphen, as service meshes and other controllers read them. Whoever calls a port `https` gets no plain text on
// it. `h2` as a name is left alone (some mean it with TLS, some without), and so is `grpc-web`, which is HTTP/1.1. A port
// number says nothing: 443 is where plain backends behind a balancer listen too.

internal import KubernetesAPI
internal import Model

/// What the annotations of an Ingress say of its backends.
struct BackendSettings: Sendable {
    enum Choice: Sendable, Equatable {
        case speaks(UpstreamProtocol)
        /// HTTP/1.1, over TLS where the client came by TLS.
        case asClient
        case fastCGI
    }

    /// Nil leaves it to each Service.
    var choice: Choice?
    /// The text of `proxy-ssl-secret`.
    var secret: String?
    var tls = UpstreamTLS()
    /// Each connection is to begin with a PROXY protocol header.
    var proxyHeader: ProxyProtocolVersion?
    /// Found out later, by those who know the objects: the paths answer 503.
    var isBroken = false
    /// A backend over TLS was made with them.
    var isUsed = false

    /// How the ports are to be spoken to; the second for requests on TLS connections, where it is another.
    var wishes: (ServiceResolver.Wish?, secure: ServiceResolver.Wish?) {
        switch choice {
        case nil: return (tls.label.isEmpty && proxyHeader == nil ? nil : wish(nil), nil)
        case .speaks(let spoken): return (wish(spoken), nil)
        case .asClient: return ((.http, nil, proxyHeader), wish(.https))
        case .fastCGI: return (nil, nil)
        }
    }

    /// What is wished of backends that speak this; nil leaves it to each Service.
    func wish(_ spoken: UpstreamProtocol?) -> ServiceResolver.Wish {
        (spoken, tls.label.isEmpty ? nil : tls, proxyHeader)
    }
}

enum BackendProtocol {
    /// `backend-protocol`, in any case.
    static func choice(_ text: String) throws(ValueProblem) -> BackendSettings.Choice {
        switch text.uppercased() {
        case "HTTP": return .speaks(.http)
        case "HTTPS": return .speaks(.https)
        case "AUTO_HTTP": return .asClient
        case "GRPC": return .speaks(.h2c)
        case "GRPCS": return .speaks(.h2)
        case "FCGI": return .fastCGI
        default:
            throw ValueProblem(wanted: "this is HTTP, HTTPS, AUTO_HTTP, GRPC or GRPCS", example: "HTTPS")
        }
    }

    /// What a Service port says that it speaks. A protocol that is none of ours says nothing about HTTP, and then
    /// neither does the name.
    static func spoken(by port: ServicePort?) -> UpstreamProtocol {
        guard let port else { return .http }
        if let text = port.appProtocol, !text.isEmpty {
            switch text.lowercased() {
            case "https", "kubernetes.io/wss", "wss": return .https
            case "kubernetes.io/h2c", "h2c", "http2", "grpc": return .h2c
            case "h2", "grpcs": return .h2
            default: return .http
            }
        }
        guard port.name != "grpc-web", !port.name.hasPrefix("grpc-web-") else { return .http }
        switch port.name.prefix(while: { $0 != "-" }) {
        case "https", "wss": return .https
        case "h2c", "http2", "grpc": return .h2c
        case "grpcs": return .h2
        default: return .http
        }
    }

    /// `send-proxy-protocol`.
    static func proxyHeader(_ text: String) throws(ValueProblem) -> ProxyProtocolVersion {
        guard let version = ProxyProtocolVersion(rawValue: text.lowercased()) else {
            throw ValueProblem(wanted: "this is v1 or v2", example: "v2")
        }
        return version
    }

    static func isOn(_ text: String) throws(ValueProblem) -> Bool {
        switch text {
        case "on": return true
        case "off": return false
        default: throw ValueProblem(wanted: "this is on or off", example: "on")
        }
    }

    static func serverName(_ text: String) throws(ValueProblem) -> String {
        if let address = IPAddress(text) { return "\(address)" }
        do throws(FieldProblem) {
            return try HostSyntax.name(text[...])
        } catch {
            throw ValueProblem(wanted: "this is a DNS name or an address", example: "web.shop.svc")
        }
    }

    /// Only what a cipher list is made of (openssl-ciphers(1)); whether OpenSSL knows them is found out later.
    static func ciphers(_ text: String) throws(ValueProblem) -> String {
        guard (1...512).contains(text.utf8.count),
            text.utf8.allSatisfy({
                (65...90).contains($0) || (97...122).contains($0) || (48...57).contains($0)
                    || "+-_!:@=.".utf8.contains($0)
            })
        else {
            throw ValueProblem(
                wanted: "this is a list of OpenSSL's cipher names with colons between them",
                example: "ECDHE+AESGCM:ECDHE+CHACHA20")
        }
        return text
    }

    /// The versions that are left of a list: what is older than TLS 1.2 is never spoken (RFC 8996).
    static func versions(_ text: String) throws(ValueProblem) -> (tls12: Bool, tls13: Bool) {
        let words = text.split(whereSeparator: \.isWhitespace)
        let known: Set<Substring> = ["SSLv2", "SSLv3", "TLSv1", "TLSv1.0", "TLSv1.1", "TLSv1.2", "TLSv1.3"]
        let result = (tls12: words.contains("TLSv1.2"), tls13: words.contains("TLSv1.3"))
        guard words.allSatisfy(known.contains), result.tls12 || result.tls13 else {
            throw ValueProblem(wanted: "this is TLSv1.2, TLSv1.3 or both", example: "TLSv1.2 TLSv1.3")
        }
        return result
    }

    /// `namespace/name`; nil if it is no such thing.
    static func secretName(_ text: String) -> ObjectName? {
        let parts = text.trimmed.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, parts.allSatisfy({ isObjectName($0) }) else { return nil }
        return ObjectName(namespace: String(parts[0]), name: String(parts[1]))
    }

    /// RFC 1123 subdomains, as Kubernetes names objects.
    private static func isObjectName(_ text: Substring) -> Bool {
        (1...253).contains(text.utf8.count)
            && text.utf8.allSatisfy { (97...122).contains($0) || (48...57).contains($0) || "-.".utf8.contains($0) }
    }
}
