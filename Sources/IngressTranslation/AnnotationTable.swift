// The one table of our annotations: key, where it may stand, how its value is read, what can go wrong with it, and the line
// of the documentation. The page of the docs is printed from it, and a test holds both together.

internal import KubernetesAPI
internal import Model

/// How much harm a wrong or hostile value could do.
package enum AnnotationRisk: String, Sendable, CaseIterable {
    /// Speed or comfort of the Ingress's own routes.
    case low
    /// Who is let in, or where requests of the Ingress go.
    case medium
    /// Code.
    case high
}

package struct AnnotationSpec: Sendable {
    /// What a value sets.
    enum Effect: Sendable {
        case policy(@Sendable (String, inout RoutePolicy) throws(ValueProblem) -> Void)
        case balance
        /// How the backends are spoken to.
        case backend(@Sendable (String, inout BackendSettings) throws(ValueProblem) -> Void)
        /// What is asked of clients' certificates. A value that can't be read and is `strict` closes the host; of
        /// another the default applies.
        case clients(strict: Bool, @Sendable (String, inout ClientAnnotations) throws(ValueProblem) -> Void)
        /// Read together with its siblings by `ScriptAnnotations`.
        case scripts
        /// Read where the object is used.
        case grant
    }

    /// Without the prefix.
    package var key: String
    package var kinds: Set<String>
    /// How a value is written, for the documentation.
    package var syntax: String
    package var risk: AnnotationRisk
    package var doc: String
    var effect: Effect
    /// What a value that cannot be read is taken for where the default would let through what was to be kept out.
    var strictest: String?
}

package enum AnnotationTable {
    package static let prefix = "moongate.dev/"

    package static let timeoutConnect = "timeout-connect"
    package static let timeoutResponse = "timeout-response"
    package static let timeoutIdle = "timeout-idle"
    package static let timeoutTotal = "timeout-total"
    package static let maxBodySize = "max-body-size"
    package static let retries = "retries"
    package static let loadBalance = "load-balance"
    package static let sslRedirect = "ssl-redirect"
    package static let forceSSLRedirect = "force-ssl-redirect"
    package static let sslPassthrough = "ssl-passthrough"
    package static let backendProtocol = "backend-protocol"
    package static let proxySSLSecret = "proxy-ssl-secret"
    package static let proxySSLVerify = "proxy-ssl-verify"
    package static let proxySSLVerifyDepth = "proxy-ssl-verify-depth"
    package static let proxySSLName = "proxy-ssl-name"
    package static let proxySSLServerName = "proxy-ssl-server-name"
    package static let proxySSLCiphers = "proxy-ssl-ciphers"
    package static let proxySSLProtocols = "proxy-ssl-protocols"
    package static let sendProxyProtocol = "send-proxy-protocol"
    package static let authTLSSecret = "auth-tls-secret"
    package static let authTLSVerifyClient = "auth-tls-verify-client"
    package static let authTLSVerifyDepth = "auth-tls-verify-depth"
    package static let authTLSErrorPage = "auth-tls-error-page"
    package static let authTLSPassCertificate = "auth-tls-pass-certificate-to-upstream"
    package static let authTLSMatchCN = "auth-tls-match-cn"
    package static let compression = "compression"
    package static let grpcWeb = "grpc-web"
    package static let allowEncodedSlashes = "allow-encoded-slashes"
    package static let scripts = "scripts"
    package static let script = "script"
    package static let scriptArgs = "script-args"
    package static let scriptInline = "script-inline"
    package static let allowNamespaces = "allow-namespaces"

    private static let ingress: Set<String> = [Ingress.kind]

    package static let all: [AnnotationSpec] = [
        AnnotationSpec(
            key: timeoutConnect, kinds: ingress, syntax: "duration", risk: .low,
            doc:
                "How long a connection to an endpoint may take to be made, TLS included; then the next endpoint is tried. "
                + "0 is refused.",
            effect: .policy { text, policy throws(ValueProblem) in
                let time = try Quantities.milliseconds(text)
                guard time > 0 else {
                    throw ValueProblem(wanted: "a connection must be made in some time", example: "2s")
                }
                policy.connectTimeout = time
            }),
        AnnotationSpec(
            key: timeoutResponse, kinds: ingress, syntax: "duration", risk: .low,
            doc: "How long the endpoint may take to begin its response after the request was sent; then 504.",
            effect: .policy { text, policy throws(ValueProblem) in
                policy.responseHeadTimeout = try Quantities.milliseconds(text)
            }),
        AnnotationSpec(
            key: timeoutIdle, kinds: ingress, syntax: "duration", risk: .low,
            doc: "How long neither side may send anything while a body flows or a tunnel is open.",
            effect: .policy { text, policy throws(ValueProblem) in
                policy.streamIdleTimeout = try Quantities.milliseconds(text)
            }),
        AnnotationSpec(
            key: timeoutTotal, kinds: ingress, syntax: "duration", risk: .low,
            doc: "How long a request may take from its first byte to the last of the response; 0 is no limit.",
            effect: .policy { text, policy throws(ValueProblem) in
                policy.totalTimeout = try Quantities.milliseconds(text)
            }),
        AnnotationSpec(
            key: maxBodySize, kinds: ingress, syntax: "size", risk: .low,
            doc: "The largest request body; beyond it 413. 0 is no limit.",
            effect: .policy { text, policy throws(ValueProblem) in
                policy.maxBodyBytes = try Quantities.bytes(text)
            }, strictest: "1MiB"),
        AnnotationSpec(
            key: retries, kinds: ingress, syntax: "0-10", risk: .low,
            doc: "How often a request that failed safely (nothing of it was acted on) is tried again; 0 is never.",
            effect: .policy { text, policy throws(ValueProblem) in
                policy.retries = try Quantities.integer(text, in: 0...10)
            }),
        AnnotationSpec(
            key: loadBalance, kinds: ingress, syntax: "round-robin | least-request", risk: .low,
            doc: "How an endpoint is chosen. It holds for the Service port, whichever Ingress leads there.",
            effect: .balance),
        AnnotationSpec(
            key: sslRedirect, kinds: ingress, syntax: "true | false", risk: .low,
            doc: "Redirects plain HTTP to HTTPS (308) where an Ingress with spec.tls has the host. Default: true.",
            effect: .policy { text, policy throws(ValueProblem) in
                policy.sslRedirect = try Quantities.boolean(text)
            }),
        AnnotationSpec(
            key: forceSSLRedirect, kinds: ingress, syntax: "true | false", risk: .low,
            doc: "The same without a certificate: for TLS that ends at a balancer before us.",
            effect: .policy { text, policy throws(ValueProblem) in
                policy.forceSSLRedirect = try Quantities.boolean(text)
            }),
        AnnotationSpec(
            key: sslPassthrough, kinds: ingress, syntax: "true | false", risk: .medium,
            doc: "TLS for the hosts of the Ingress goes to the endpoints of its path / unopened. Needs "
                + "--enable-ssl-passthrough.",
            effect: .policy { text, policy throws(ValueProblem) in
                policy.sslPassthrough = try Quantities.boolean(text)
            }),
        AnnotationSpec(
            key: backendProtocol, kinds: ingress, syntax: "HTTP | HTTPS | AUTO_HTTP | GRPC | GRPCS", risk: .low,
            doc: "What the backends speak, whatever their Services say. AUTO_HTTP: TLS where the client came by TLS.",
            effect: .backend { text, backend throws(ValueProblem) in
                backend.choice = try BackendProtocol.choice(text)
            }),
        AnnotationSpec(
            key: proxySSLSecret, kinds: ingress, syntax: "namespace/name", risk: .medium,
            doc: "A Secret of this namespace: `tls.crt` and `tls.key` (shown to backends), `ca.crt`, `ca.crl`.",
            effect: .backend { text, backend in backend.secret = text }),
        AnnotationSpec(
            key: proxySSLVerify, kinds: ingress, syntax: "on | off", risk: .low,
            doc: "Verifies backends' certificates by `ca.crt`, or by the system's authorities. Default: off.",
            effect: .backend { text, backend throws(ValueProblem) in
                backend.tls.verifies = try BackendProtocol.isOn(text)
            }, strictest: "on"),
        AnnotationSpec(
            key: proxySSLVerifyDepth, kinds: ingress, syntax: "1-10", risk: .low,
            doc: "Most certificates between a backend's and the authority's. Default: 1.",
            effect: .backend { text, backend throws(ValueProblem) in
                backend.tls.verifyDepth = try Quantities.integer(text, in: 1...10)
            }),
        AnnotationSpec(
            key: proxySSLName, kinds: ingress, syntax: "host or address", risk: .high,
            doc: "The name of the backend in TLS. Default: `SERVICE.NAMESPACE.svc`, or the external name.",
            effect: .backend { text, backend throws(ValueProblem) in
                backend.tls.name = try BackendProtocol.serverName(text)
                backend.tls.isNameGiven = true
            }),
        AnnotationSpec(
            key: proxySSLServerName, kinds: ingress, syntax: "on | off", risk: .low,
            doc: "Tells backends that name (SNI). Default: off.",
            effect: .backend { text, backend throws(ValueProblem) in
                backend.tls.sendsName = try BackendProtocol.isOn(text)
            }),
        AnnotationSpec(
            key: proxySSLCiphers, kinds: ingress, syntax: "cipher list", risk: .medium,
            doc: "OpenSSL's list of ciphers for TLS 1.2, and of suites for TLS 1.3, to backends.",
            effect: .backend { text, backend throws(ValueProblem) in
                backend.tls.ciphers = try BackendProtocol.ciphers(text)
            }),
        AnnotationSpec(
            key: proxySSLProtocols, kinds: ingress, syntax: "TLSv1.2 TLSv1.3", risk: .low,
            doc: "The versions of TLS to backends. Default: both.",
            effect: .backend { text, backend throws(ValueProblem) in
                (backend.tls.allowsTLS12, backend.tls.allowsTLS13) = try BackendProtocol.versions(text)
            }),
        AnnotationSpec(
            key: sendProxyProtocol, kinds: ingress, syntax: "v1 | v2", risk: .low,
            doc:
                "Each connection to the backends begins with a PROXY protocol header (before TLS) that says who the client "
                + "is, and carries one request. Not for HTTP/2 backends.",
            effect: .backend { text, backend throws(ValueProblem) in
                backend.proxyHeader = try BackendProtocol.proxyHeader(text)
            }),
        AnnotationSpec(
            key: authTLSSecret, kinds: ingress, syntax: "namespace/name", risk: .medium,
            doc:
                "Asks the clients of its hosts for a certificate, judged by the authorities in ca.crt of this Secret of "
                + "the same namespace, and by the revocation lists in ca.crl if any. Without the Secret its hosts answer "
                + "403. The oldest Ingress of the namespace that has the host decides.",
            effect: .clients(strict: true) { text, clients throws(ValueProblem) in clients.secret = text }),
        AnnotationSpec(
            key: authTLSVerifyClient, kinds: ingress, syntax: "on | off | optional | optional_no_ca", risk: .medium,
            doc: "on: 400 without a good certificate. optional: none is fine. optional_no_ca: so is one of an unknown "
                + "authority. off: nobody is asked. Default: on.",
            effect: .clients(strict: false) { text, clients throws(ValueProblem) in
                guard let mode = ClientAuthentication.Mode(rawValue: text) else {
                    throw ValueProblem(wanted: "this is on, off, optional or optional_no_ca", example: "optional")
                }
                clients.mode = mode
            }),
        AnnotationSpec(
            key: authTLSVerifyDepth, kinds: ingress, syntax: "0-100", risk: .low,
            doc: "Most certificates between the client's own and an authority. Default, and what 0 means: 1.",
            effect: .clients(strict: false) { text, clients throws(ValueProblem) in
                clients.depth = max(1, try Quantities.integer(text, in: 0...100))
            }),
        AnnotationSpec(
            key: authTLSErrorPage, kinds: ingress, syntax: "URL or path", risk: .high,
            doc:
                "Where a client without a good certificate is sent (302) in place of 400; a path of the host is served "
                + "to it instead, as if it had asked for that by GET.",
            effect: .clients(strict: true) { text, clients throws(ValueProblem) in
                clients.errorPage = try ClientAnnotations.errorPage(text)
            }),
        AnnotationSpec(
            key: authTLSPassCertificate, kinds: ingress, syntax: "true | false", risk: .low,
            doc: "Tells the upstream the certificate in ssl-client-cert (PEM, URL-encoded). Default: false.",
            effect: .clients(strict: true) { text, clients throws(ValueProblem) in
                clients.passesCertificate = try Quantities.boolean(text)
            }),
        AnnotationSpec(
            key: authTLSMatchCN, kinds: ingress, syntax: "CN=regex", risk: .high,
            doc:
                "Searched in the certificate's subject (RFC 2253), the CN= included, from where an attribute begins: of "
                + "several names write the choice in parentheses behind CN=. Where it is not found: 403, also over plain "
                + "HTTP, but for ACME challenges.",
            effect: .clients(strict: true) { text, clients throws(ValueProblem) in
                guard text.hasPrefix("CN="), text.utf8.count <= 1024 else {
                    throw ValueProblem(wanted: "this is CN= and a regular expression", example: "CN=(alice|bob)(,|$)")
                }
                clients.subjectPattern = text
            }),
        AnnotationSpec(
            key: compression, kinds: ingress, syntax: "off | on | gzip, br, zstd | … , always", risk: .medium,
            doc: """
                What responses are compressed with, the best liked first; on: what the operator has set, or all three. \
                Where cookies or credentials are in play only with always: an attacker may read secrets from sizes (BREACH).
                """,
            effect: .policy { text, policy throws(ValueProblem) in
                guard let choice = CompressionChoice(text) else {
                    throw ValueProblem(
                        wanted: "this is off, on, or codings (gzip, br, zstd), with always behind them if meant",
                        example: "zstd, br, gzip")
                }
                policy.compression = choice
            }),
        AnnotationSpec(
            key: grpcWeb, kinds: ingress, syntax: "true | false", risk: .low,
            doc:
                "Requests of gRPC-Web (browsers) reach the upstream as gRPC, and its responses are made readable for them.",
            effect: .policy { text, policy throws(ValueProblem) in
                policy.bridgesGRPCWeb = try Quantities.boolean(text)
            }),
        AnnotationSpec(
            key: allowEncodedSlashes, kinds: ingress, syntax: "true | false", risk: .medium,
            doc:
                "Serves paths with %2F or %5C, which else are answered with 400. They are no separators to the rules "
                + "here; make sure that they are none to the backend.",
            effect: .policy { text, policy throws(ValueProblem) in
                policy.allowsEncodedSlashes = try Quantities.boolean(text)
            }),
        AnnotationSpec(
            key: scripts, kinds: ingress, syntax: "YAML list", risk: .medium,
            doc: "The scripts of the Ingress: items of script, args, order, paths, on-error, budget, percent, mode.",
            effect: .scripts),
        AnnotationSpec(
            key: script, kinds: ingress, syntax: "reference", risk: .medium,
            doc: "One script: NAME, NAME:KEY.lua, NS/NAME, plugin/NAME or ./PATH.lua.",
            effect: .scripts),
        AnnotationSpec(
            key: scriptArgs, kinds: ingress, syntax: "JSON map", risk: .medium,
            doc: "The arguments of the one script named by script or written in script-inline.",
            effect: .scripts),
        AnnotationSpec(
            key: scriptInline, kinds: ingress, syntax: "Lua", risk: .high,
            doc: "A script's source itself. An operator can forbid it.",
            effect: .scripts),
        AnnotationSpec(
            key: allowNamespaces, kinds: [ConfigMap.kind, Service.kind],
            syntax: "namespaces, separated by commas, or *",
            risk: .medium,
            doc: "Who else may use this script (ConfigMap) or send requests here from a script (Service).",
            effect: .grant),
    ]

    /// Those of ingress-nginx that are acted on as ours of the same name; ours goes first where both are there.
    static let foreign: Set<String> = [
        sslRedirect, forceSSLRedirect, sslPassthrough, backendProtocol, proxySSLSecret, proxySSLVerify,
        proxySSLVerifyDepth, proxySSLName, proxySSLServerName, proxySSLCiphers, proxySSLProtocols, authTLSSecret,
        authTLSVerifyClient, authTLSVerifyDepth, authTLSErrorPage, authTLSPassCertificate, authTLSMatchCN,
    ]

    /// Those of ingress-nginx that keep requests out and are not acted on: an Ingress that comes over with them is open
    /// where it was not.
    static let foreignGuards: Set<String> = [
        "allowlist-source-range", "auth-secret", "auth-secret-type", "auth-signin", "auth-snippet", "auth-type",
        "auth-url", "configuration-snippet", "denylist-source-range", "enable-global-auth", "enable-modsecurity",
        "enable-owasp-core-rules", "global-rate-limit", "limit-connections", "limit-rpm", "limit-rps",
        "modsecurity-snippet", "satisfy", "server-snippet", "whitelist-source-range",
    ]

    /// The text of an annotation that may stand under either prefix.
    static func text(_ key: String, of metadata: ObjectMeta, foreignPrefix: String) -> String? {
        metadata.annotations[prefix + key]
            ?? (foreign.contains(key) ? metadata.annotations["\(foreignPrefix)/\(key)"] : nil)
    }

    package static let byKey: [String: AnnotationSpec] = Dictionary(
        all.map { ($0.key, $0) }, uniquingKeysWith: { first, _ in first })

    /// The page of the documentation.
    package static var documentation: String {
        var page = """
            # Annotations

            Those under `moongate.dev/`. Durations are written `150ms 5s 2m 1h 30d`, sizes `64KiB 10MiB 1m`.

            | annotation | on | value | risk | does |
            |---|---|---|---|---|

            """
        for spec in all {
            let kinds = spec.kinds.sorted().joined(separator: ", ")
            let syntax = spec.syntax.replacing("|", with: "\\|")
            page += "| `\(prefix)\(spec.key)` | \(kinds) | \(syntax) | \(spec.risk.rawValue) | \(spec.doc) |\n"
        }
        let shared = foreign.sorted().map { "`\($0)`" }
        page += "\nOf ingress-nginx's annotations, these are acted on as those of the same name here:\n"
        page += shared.joined(separator: ", ") + ".\n"
        return page
    }
}

/// Who else an object is granted to.
enum Grant {
    /// The namespaces listed by `moongate.dev/allow-namespaces`; `*` stands for all.
    static func namespaces(_ metadata: ObjectMeta) -> [String] {
        guard let text = metadata.annotations[AnnotationTable.prefix + AnnotationTable.allowNamespaces] else {
            return []
        }
        return text.split { $0 == "," || $0.isWhitespace }.map(String.init)
    }

    static func covers(_ namespaces: [String], _ namespace: String) -> Bool {
        namespaces.contains { $0 == "*" || $0 == namespace }
    }
}
