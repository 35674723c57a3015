// What an operator may set, read from flags, then the environment (`MOONGATE_INGRESS_CLASS`), then a configuration
// file (`ingress-class: moongate`), the first that says something winning. One table: every flag has all three.

import ArgumentParser
import Configuration
import Foundation
import HTTPWire
import KubernetesAPI
import Logging
import Model
import Scripting
import SystemPackage
import TLSEngine

/// A setting that can not be used: what is wrong, where it stands, what to write.
struct SettingsError: Error, CustomStringConvertible {
    var problem: String
    var key: String
    var mend: String

    var description: String {
        "\(problem)\n  place    --\(key), MOONGATE_\(key.uppercased().replacing("-", with: "_")), "
            + "or \(key): in the configuration file\n  mend     \(mend)"
    }
}

/// How the access log is written.
enum AccessLogChoice: String, CaseIterable, ExpressibleByArgument, Sendable {
    case json
    case text
    case off
}

/// The flags of `moongate run`. All optional: what is not given comes from the environment or the file.
struct RunFlags: ParsableArguments {
    @Option(help: ArgumentHelp("Serve the Ingresses in this folder, without a cluster.", valueName: "dir"))
    var manifests: String?
    @Option(help: ArgumentHelp("Reach the cluster by this file, from outside of it.", valueName: "file"))
    var kubeconfig: String?
    @Option(help: ArgumentHelp("The kubeconfig's context (default: its current one).", valueName: "name"))
    var context: String?
    @Option(help: ArgumentHelp("A YAML or JSON file with these settings.", valueName: "file"))
    var config: String?
    @Option(help: ArgumentHelp("HTTP listener (default 0.0.0.0:8080); repeat for several.", valueName: "addr:port"))
    var http: [String] = []
    @Option(
        help: ArgumentHelp(
            "HTTPS listener, or off (default 0.0.0.0:8443); repeat for several.", valueName: "addr:port"))
    var https: [String] = []
    @Option(help: ArgumentHelp("Certificate for hosts without one (default: made on start).", valueName: "ns/name"))
    var defaultTlsSecret: String?
    @Option(
        help: ArgumentHelp(
            "Secret with the keys of session tickets (default: each replica's own).", valueName: "ns/name"))
    var ticketKeysSecret: String?
    @Option(
        help: ArgumentHelp(
            "How long before its end a certificate is warned of (default 14d; 0s: never).", valueName: "duration"))
    var certificateExpiryWarning: String?
    @Option(
        help: ArgumentHelp("Most certificates that are ready for handshakes at a time (default 2048).", valueName: "n"))
    var tlsContexts: String?
    @Option(help: ArgumentHelp("Oldest version of TLS for clients (default 1.2).", valueName: "1.2|1.3"))
    var tlsMinVersion: String?
    @Option(help: ArgumentHelp("Ciphers of TLS 1.2, and suites of TLS 1.3, as OpenSSL names them.", valueName: "list"))
    var tlsCiphers: String?
    @Option(help: ArgumentHelp("Longest TLS handshake (default 10s).", valueName: "duration"))
    var tlsHandshakeTimeout: String?
    @Flag(
        inversion: .prefixedNo, help: "Redirect plain HTTP to HTTPS for hosts with a certificate (default: yes).")
    var sslRedirect: Bool?
    @Option(help: ArgumentHelp("The port of the URLs redirected to (default 443).", valueName: "port"))
    var sslRedirectPort: String?
    @Option(
        help: ArgumentHelp(
            "Strict-Transport-Security over HTTPS, or off (default max-age=31536000; includeSubDomains).",
            valueName: "text"))
    var hsts: String?
    @Option(
        help: ArgumentHelp(
            "Compress responses: off (default), on, or codings by preference; always: also with cookies and credentials.",
            valueName: "off|on|zstd,br,gzip[,always]"))
    var compression: String?
    @Option(help: ArgumentHelp("How hard it tries (default gzip=1,br=4,zstd=3).", valueName: "coding=n,…"))
    var compressionLevel: String?
    @Option(help: ArgumentHelp("Shorter responses are not compressed (default 1KiB).", valueName: "size"))
    var compressionMinLength: String?
    @Option(help: ArgumentHelp("Media types; * is all, type/*, *+suffix (default: text).", valueName: "type,…"))
    var compressionTypes: String?
    @Option(help: ArgumentHelp("Most memory of the encoders of one event loop (default 32MiB).", valueName: "size"))
    var compressionMemory: String?
    @Option(help: ArgumentHelp("Admin listener (default 127.0.0.1:9901).", valueName: "addr:port"))
    var admin: String?
    @Option(help: ArgumentHelp("Event loops (default: one a core).", valueName: "n"))
    var workers: String?
    @Option(help: ArgumentHelp("Serve Ingresses of this class (default moongate).", valueName: "name"))
    var ingressClass: String?
    @Option(help: ArgumentHelp("Our name in IngressClass.spec.controller.", valueName: "name"))
    var controllerName: String?
    @Flag(inversion: .prefixedNo, help: "Serve Ingresses that name no class.")
    var watchIngressWithoutClass: Bool?
    @Option(help: ArgumentHelp("Only this namespace; repeat for several.", valueName: "ns"))
    var watchNamespace: [String] = []
    @Flag(inversion: .prefixedNo, help: "Watch all Secrets of the namespaces, not only those that Ingresses name.")
    var watchAllSecrets: Bool?
    @Flag(inversion: .prefixedNo, help: "Watch all ConfigMaps of the namespaces, not only those that Ingresses name.")
    var watchAllConfigMaps: Bool?
    @Option(help: ArgumentHelp("Write this Service's addresses into statuses.", valueName: "ns/name"))
    var publishService: String?
    @Option(help: ArgumentHelp("Write this address into statuses; repeat for several.", valueName: "ip|name"))
    var publishStatusAddress: [String] = []
    @Flag(inversion: .prefixedNo, help: "Write the addresses of the nodes into statuses (for hostNetwork).")
    var publishNodeAddresses: Bool?
    @Flag(inversion: .prefixedNo, help: "Elect a leader that writes statuses and Events (default: yes).")
    var election: Bool?
    @Option(help: ArgumentHelp("The Lease of the election (default: moongate-leader here).", valueName: "ns/name"))
    var electionLease: String?
    @Option(help: ArgumentHelp("How long a silent leader leads on (default 15s).", valueName: "duration"))
    var leaseDuration: String?
    @Option(help: ArgumentHelp("Validating webhook's listener, HTTPS (default: none).", valueName: "addr:port"))
    var webhook: String?
    @Option(help: ArgumentHelp("Its certificate, PEM (default: our own).", valueName: "file"))
    var webhookCertificate: String?
    @Option(help: ArgumentHelp("The certificate's key, PEM.", valueName: "file"))
    var webhookKey: String?
    @Option(help: ArgumentHelp("Authority of the clients that may ask, PEM (default: any may).", valueName: "file"))
    var webhookClientCa: String?
    @Option(help: ArgumentHelp("The Service before the webhook (default moongate-webhook).", valueName: "name"))
    var webhookService: String?
    @Option(
        help: ArgumentHelp("Where our own certificate is kept (default: moongate-webhook here).", valueName: "ns/name"))
    var webhookSecret: String?
    @Option(
        help: ArgumentHelp("ValidatingWebhookConfiguration that is told our CA (default moongate).", valueName: "name"))
    var webhookConfiguration: String?
    @Option(
        help: ArgumentHelp(
            "Our zone: endpoints that are meant for it go first. Default: that of the node NODE_NAME (environment).",
            valueName: "name"))
    var zone: String?
    @Option(help: ArgumentHelp("Where a request goes that no rule matches.", valueName: "ns/svc:port"))
    var defaultBackend: String?
    @Option(help: ArgumentHelp("Peers whose forwarding headers are believed.", valueName: "cidr,…"))
    var trustedProxies: String?
    @Flag(
        inversion: .prefixedNo,
        help: "Connections of trusted proxies begin with a PROXY protocol header (default: no).")
    var useProxyProtocol: Bool?
    @Option(help: ArgumentHelp("Longest wait for a PROXY protocol header (default 5s).", valueName: "duration"))
    var proxyProtocolHeaderTimeout: String?
    @Option(
        help: ArgumentHelp("ConfigMap of ports that lead to Services as plain TCP.", valueName: "ns/name"))
    var tcpServicesConfigmap: String?
    @Option(help: ArgumentHelp("Longest standstill of such a connection (default 600s).", valueName: "duration"))
    var proxyStreamTimeout: String?
    @Option(help: ArgumentHelp("ConfigMap of ports that lead to Services as UDP.", valueName: "ns/name"))
    var udpServicesConfigmap: String?
    @Option(help: ArgumentHelp("Longest standstill of a UDP client's session (default 60s).", valueName: "duration"))
    var udpSessionTimeout: String?
    @Option(
        help: ArgumentHelp(
            "Answers to each UDP datagram, after which its session ends (default 0: any number).", valueName: "n"))
    var proxyStreamResponses: String?
    @Option(help: ArgumentHelp("Most sessions of UDP clients (default 16384).", valueName: "n"))
    var maxUdpSessions: String?
    @Option(help: ArgumentHelp("Most of them of one client address (default 1024; 0: no limit).", valueName: "n"))
    var maxUdpSessionsPerClient: String?
    @Flag(inversion: .prefixedNo, help: "Let Ingresses pass TLS on unopened, by SNI (default: no).")
    var enableSslPassthrough: Bool?
    @Flag(inversion: .prefixedNo, help: "Run scripts written in an annotation (default: yes).")
    var allowInlineScripts: Bool?
    @Option(help: ArgumentHelp("Prefix of ingress-nginx's annotations.", valueName: "prefix"))
    var annotationsPrefix: String?
    @Option(help: ArgumentHelp("How long running requests may take to finish (default 30s).", valueName: "duration"))
    var drainTimeout: String?
    @Option(help: ArgumentHelp("How long to accept on after readiness went off (default 0s).", valueName: "duration"))
    var drainDelay: String?
    @Option(
        help: ArgumentHelp("trace, debug, info, notice, warning, error or critical (default info).", valueName: "level")
    )
    var logLevel: String?
    @Option(
        help: ArgumentHelp("Format of the access log on standard output (default json).", valueName: "json|text|off"))
    var accessLog: String?
    @Flag(inversion: .prefixedNo, help: "Send Forwarded (RFC 7239) to upstreams as well.")
    var forwarded: Bool?
    @Flag(inversion: .prefixedNo, help: "Send Via (RFC 9110) to upstreams.")
    var via: Bool?
    @Flag(inversion: .prefixedNo, help: "A host belongs to the namespace of the oldest Ingress that names it.")
    var exclusiveHosts: Bool?

    @Option(help: ArgumentHelp("Longest wait for a whole request head (default 10s).", valueName: "duration"))
    var requestHeadTimeout: String?
    @Option(help: ArgumentHelp("Longest idle time of a kept connection (default 60s).", valueName: "duration"))
    var idleTimeout: String?
    @Option(help: ArgumentHelp("Longest connect to an endpoint (default 2s).", valueName: "duration"))
    var connectTimeout: String?
    @Option(help: ArgumentHelp("Longest wait for a response head (default 60s).", valueName: "duration"))
    var responseHeadTimeout: String?
    @Option(help: ArgumentHelp("Longest standstill of a body or a tunnel (default 60s).", valueName: "duration"))
    var streamIdleTimeout: String?
    @Option(help: ArgumentHelp("Longest whole exchange (default 0: no limit).", valueName: "duration"))
    var totalTimeout: String?
    @Option(help: ArgumentHelp("Largest request head (default 64KiB).", valueName: "size"))
    var maxHeadSize: String?
    @Option(help: ArgumentHelp("Most header fields of a request (default 100).", valueName: "n"))
    var maxFields: String?
    @Option(help: ArgumentHelp("Longest request target (default 8KiB).", valueName: "size"))
    var maxUriLength: String?
    @Option(help: ArgumentHelp("Longest header field (default 8KiB).", valueName: "size"))
    var maxFieldSize: String?
    @Option(help: ArgumentHelp("Largest request body (default 0: no limit).", valueName: "size"))
    var maxBodySize: String?
    @Option(help: ArgumentHelp("Least bytes a second of a request body (default 128; 0: none).", valueName: "n"))
    var minBodyRate: String?
    @Option(help: ArgumentHelp("Most requests at a time on an HTTP/2 connection (default 128).", valueName: "n"))
    var http2MaxConcurrentStreams: String?
    @Option(help: ArgumentHelp("Most client connections (default 0: what descriptors allow).", valueName: "n"))
    var maxConnections: String?
    @Option(help: ArgumentHelp("Most connections of one client address (default 0: no limit).", valueName: "n"))
    var maxConnectionsPerClient: String?

    init() {}

    /// For the help of commands that only look: their own options would be lost among all of these.
    static let alsoHere = """
        The settings of moongate run hold here too, as flags, MOONGATE_… variables or by --config FILE. These decide what \
        is served: --ingress-class, --controller-name, --watch-ingress-without-class, --watch-namespace, \
        --default-backend, --default-tls-secret, --exclusive-hosts, --allow-inline-scripts, --annotations-prefix, \
        --trusted-proxies, --tcp-services-configmap, --udp-services-configmap, --enable-ssl-passthrough, --ssl-redirect, --zone. \
        `moongate run --help` says what each does.
        """

    /// What was given on the command line, by key.
    fileprivate var given: [String: Configuration.ConfigValue] {
        table.compactMapValues { $0.map { ConfigValue(.string($0), isSecret: false) } }
    }

    /// Every setting that there is.
    static var keys: [String] { ((try? RunFlags.parse([]))?.table.keys).map { $0.sorted() } ?? [] }

    /// Every setting by its key, with what was given.
    private var table: [String: String?] {
        var values: [String: String?] = [:]
        func text(_ key: String, _ value: String?) { values.updateValue(value, forKey: key) }
        func list(_ key: String, _ value: [String]) {
            text(key, value.isEmpty ? nil : value.joined(separator: ","))
        }
        func flag(_ key: String, _ value: Bool?) { text(key, value.map { $0 ? "true" : "false" }) }
        text("manifests", manifests)
        text("kubeconfig", kubeconfig)
        text("context", context)
        list("http", http)
        list("https", https)
        text("default-tls-secret", defaultTlsSecret)
        text("ticket-keys-secret", ticketKeysSecret)
        text("certificate-expiry-warning", certificateExpiryWarning)
        text("tls-contexts", tlsContexts)
        text("tls-min-version", tlsMinVersion)
        text("tls-ciphers", tlsCiphers)
        text("tls-handshake-timeout", tlsHandshakeTimeout)
        flag("ssl-redirect", sslRedirect)
        text("ssl-redirect-port", sslRedirectPort)
        text("hsts", hsts)
        text("compression", compression)
        text("compression-level", compressionLevel)
        text("compression-min-length", compressionMinLength)
        text("compression-types", compressionTypes)
        text("compression-memory", compressionMemory)
        text("admin", admin)
        text("workers", workers)
        text("ingress-class", ingressClass)
        text("controller-name", controllerName)
        flag("watch-ingress-without-class", watchIngressWithoutClass)
        list("watch-namespace", watchNamespace)
        flag("watch-all-secrets", watchAllSecrets)
        flag("watch-all-config-maps", watchAllConfigMaps)
        text("publish-service", publishService)
        list("publish-status-address", publishStatusAddress)
        flag("publish-node-addresses", publishNodeAddresses)
        flag("election", election)
        text("election-lease", electionLease)
        text("lease-duration", leaseDuration)
        text("webhook", webhook)
        text("webhook-certificate", webhookCertificate)
        text("webhook-key", webhookKey)
        text("webhook-client-ca", webhookClientCa)
        text("webhook-service", webhookService)
        text("webhook-secret", webhookSecret)
        text("webhook-configuration", webhookConfiguration)
        text("zone", zone)
        text("default-backend", defaultBackend)
        text("trusted-proxies", trustedProxies)
        flag("use-proxy-protocol", useProxyProtocol)
        text("proxy-protocol-header-timeout", proxyProtocolHeaderTimeout)
        text("tcp-services-configmap", tcpServicesConfigmap)
        text("proxy-stream-timeout", proxyStreamTimeout)
        text("udp-services-configmap", udpServicesConfigmap)
        text("udp-session-timeout", udpSessionTimeout)
        text("proxy-stream-responses", proxyStreamResponses)
        text("max-udp-sessions", maxUdpSessions)
        text("max-udp-sessions-per-client", maxUdpSessionsPerClient)
        flag("enable-ssl-passthrough", enableSslPassthrough)
        flag("allow-inline-scripts", allowInlineScripts)
        text("annotations-prefix", annotationsPrefix)
        text("drain-timeout", drainTimeout)
        text("drain-delay", drainDelay)
        text("log-level", logLevel)
        text("access-log", accessLog)
        flag("forwarded", forwarded)
        flag("via", via)
        flag("exclusive-hosts", exclusiveHosts)
        text("request-head-timeout", requestHeadTimeout)
        text("idle-timeout", idleTimeout)
        text("connect-timeout", connectTimeout)
        text("response-head-timeout", responseHeadTimeout)
        text("stream-idle-timeout", streamIdleTimeout)
        text("total-timeout", totalTimeout)
        text("max-head-size", maxHeadSize)
        text("max-fields", maxFields)
        text("max-uri-length", maxUriLength)
        text("max-field-size", maxFieldSize)
        text("max-body-size", maxBodySize)
        text("min-body-rate", minBodyRate)
        text("http2-max-concurrent-streams", http2MaxConcurrentStreams)
        text("max-connections", maxConnections)
        text("max-connections-per-client", maxConnectionsPerClient)
        return values
    }
}

/// The settings in force: every value checked, every default filled in. Durations in milliseconds.
struct Settings: Sendable {
    /// Nil: a cluster.
    var manifests: String?
    var kubeconfig: String?
    var context: String?
    var http: [SocketAddress] = []
    var https: [SocketAddress] = []
    /// `namespace/name`
    var defaultTLSSecret: String?
    /// `namespace/name`
    var ticketKeysSecret: String?
    var certificateExpiryWarning: Int
    var tlsContexts: Int
    var tlsMinVersion: TLSVersion
    /// Nil: those of the field's recommendation.
    var tlsCiphers: String?
    var tlsHandshakeTimeout: Int
    var sslRedirect: Bool
    var sslRedirectPort: Int
    /// The field's value; empty sends none.
    var hsts: String
    var compression: CompressionSettings
    var admin: SocketAddress
    /// 0: one a core.
    var workers: Int
    var ingressClass: String
    var controllerName: String
    var watchIngressWithoutClass: Bool
    var watchNamespaces: [String]
    var watchAllSecrets: Bool
    var watchAllConfigMaps: Bool
    /// `namespace/name`
    var publishService: String?
    var publishStatusAddresses: [String]
    var publishNodeAddresses: Bool
    var election: Bool
    /// `namespace/name`
    var electionLease: String?
    var leaseDuration: Int
    /// Nil: none.
    var webhook: WebhookSettings?
    var zone: String?
    /// `namespace/service:port`
    var defaultBackend: String?
    var trustedProxies: [AddressBlock]
    var useProxyProtocol: Bool
    var proxyProtocolHeaderTimeout: Int
    /// `namespace/name`
    var tcpServicesConfigMap: String?
    var proxyStreamTimeout: Int
    var udpServicesConfigMap: String?
    var udpSessionTimeout: Int
    var proxyStreamResponses: Int
    var maxUDPSessions: Int
    var maxUDPSessionsPerClient: Int
    var enableSSLPassthrough: Bool
    var allowInlineScripts: Bool
    var annotationsPrefix: String
    var drainTimeout: Int
    var drainDelay: Int
    var logLevel: String
    var accessLog: AccessLogChoice
    var sendsForwarded: Bool
    var sendsVia: Bool
    var hostsAreExclusive: Bool
    var requestHeadTimeout: Int
    var idleTimeout: Int
    var connectTimeout: Int
    var responseHeadTimeout: Int
    var streamIdleTimeout: Int
    var totalTimeout: Int
    var maxHeadBytes: Int
    var maxFields: Int
    var maxTargetBytes: Int
    var maxFieldBytes: Int
    var maxBodyBytes: Int
    /// Bytes a second.
    var minBodyRate: Int
    var http2MaxConcurrentStreams: Int
    var maxConnections: Int
    var maxConnectionsPerClient: Int
    /// What was given beside `manifests`, and speaks of a cluster.
    var idleWithoutCluster: [String]

    /// Settings that nothing in a folder can follow.
    private static let ofCluster = [
        "kubeconfig", "context", "watch-all-secrets", "watch-all-config-maps", "publish-service",
        "publish-status-address", "publish-node-addresses", "election", "election-lease", "lease-duration", "webhook",
        "webhook-certificate", "webhook-key", "webhook-client-ca", "webhook-service", "webhook-secret",
        "webhook-configuration",
    ]

    /// Reads flags, environment and the file that `--config` or `MOONGATE_CONFIG` names.
    static func resolve(_ flags: RunFlags) async throws -> Settings {
        let given = InMemoryProvider(
            name: "flags",
            values: Dictionary(uniqueKeysWithValues: flags.given.map { (AbsoluteConfigKey([$0.key]), $0.value) }))
        let environment = EnvironmentVariablesProvider().prefixKeys(with: "moongate")
        var providers: [any ConfigProvider] = [given, environment]
        let file = flags.config ?? ConfigReader(provider: environment).string(forKey: "config")
        if let file {
            try checkKeys(ofFile: file)
            do {
                if file.hasSuffix(".json") {
                    providers.append(try await FileProvider<JSONSnapshot>(filePath: FilePath(file)))
                } else {
                    providers.append(try await FileProvider<YAMLSnapshot>(filePath: FilePath(file)))
                }
            } catch {
                throw SettingsError(
                    problem: "the configuration file \(file) can't be read: \(error)", key: "config",
                    mend: "name a YAML or JSON file whose top level is a map of settings")
            }
        }
        return try Settings(SettingsReader(reader: ConfigReader(providers: providers)))
    }

    /// Refuses a configuration file with a setting that there is not: a slip that would silently change nothing. (The
    /// environment is not looked at so: a Service called `moongate` puts names of its own there.)
    private static func checkKeys(ofFile file: String) throws {
        // What can't be read or parsed is told with more words when the file is read for good.
        guard let data = FileManager.default.contents(atPath: file),
            let text = String(validating: data, as: UTF8.self),
            let root = try? file.hasSuffix(".json") ? JSONReader.read(text) : YAMLReader.read(text),
            let entries = root.entries
        else { return }
        let keys = RunFlags.keys
        for entry in entries where !keys.contains(entry.key) {
            let meant = EditDistance.nearest(to: entry.key, among: keys).map { "did you mean \($0)? " } ?? ""
            throw SettingsError(
                problem: "\(file), line \(entry.keyPosition.line): there is no setting \"\(entry.key)\"",
                key: entry.key,
                mend: meant + "`moongate run --help` lists all settings")
        }
    }

    init(_ read: SettingsReader) throws {
        manifests = read.text("manifests")
        kubeconfig = read.text("kubeconfig")
        context = read.text("context")
        if read.list("http").contains("off") {
            throw SettingsError(
                problem: "HTTP can't be turned off", key: "http",
                mend: "write an address that only this machine has, such as 127.0.0.1:8080")
        }
        http = try read.addresses("http", default: "0.0.0.0:8080")
        https = read.text("https") == "off" ? [] : try read.addresses("https", default: "0.0.0.0:8443")
        defaultTLSSecret = try read.objectName("default-tls-secret")
        ticketKeysSecret = try read.objectName("ticket-keys-secret")
        certificateExpiryWarning = try read.duration("certificate-expiry-warning", default: "14d")
        tlsContexts = try read.integer("tls-contexts", default: 2048, in: 1...1_000_000)
        let version = read.text("tls-min-version") ?? "1.2"
        guard let tlsMinVersion = TLSVersion.allCases.first(where: { $0.description == "TLSv\(version)" }) else {
            throw SettingsError(
                problem: "\"\(version)\" is not a version of TLS that is spoken here", key: "tls-min-version",
                mend: "write 1.2 or 1.3")
        }
        self.tlsMinVersion = tlsMinVersion
        tlsCiphers = read.text("tls-ciphers")
        let unknown = tlsCiphers.map { TLSOptions.unknownCiphers(in: $0) } ?? []
        guard unknown.isEmpty else {
            throw SettingsError(
                problem: "OpenSSL has no ciphers called \(unknown.joined(separator: ", "))", key: "tls-ciphers",
                mend: "write names of `openssl ciphers -v ALL`, separated by colons, or leave it out")
        }
        tlsHandshakeTimeout = try read.duration("tls-handshake-timeout", default: "10s", least: 1)
        sslRedirect = try read.flag("ssl-redirect", default: true)
        sslRedirectPort = try read.integer("ssl-redirect-port", default: 443, in: 1...65_535)
        let hsts = read.text("hsts") ?? "max-age=31536000; includeSubDomains"
        guard hsts == "off" || Self.isTransportSecurity(hsts) else {
            throw SettingsError(
                problem: "\"\(hsts)\" is no value of Strict-Transport-Security", key: "hsts",
                mend: "write max-age=SECONDS, then ; includeSubDomains and ; preload if they are meant, or off")
        }
        self.hsts = hsts == "off" ? "" : hsts
        compression = try CompressionSettings(read)
        guard let admin = try read.addresses("admin", default: "127.0.0.1:9901").first else {
            throw SettingsError(problem: "no admin address is given", key: "admin", mend: "write 127.0.0.1:9901")
        }
        self.admin = admin
        // Nothing given: one a core. A 0 that is written down is no number of loops.
        workers = read.text("workers") == nil ? 0 : try read.integer("workers", default: 0, in: 1...1024)
        ingressClass = read.text("ingress-class") ?? "moongate"
        controllerName = read.text("controller-name") ?? "moongate.dev/ingress-controller"
        watchIngressWithoutClass = try read.flag("watch-ingress-without-class", default: false)
        watchNamespaces = try read.list("watch-namespace").map { name in
            guard Self.isName(name) else {
                throw SettingsError(
                    problem: "\"\(name)\" is no name of a namespace", key: "watch-namespace",
                    mend: "write names separated by commas, such as shop,blog")
            }
            return name
        }
        watchAllSecrets = try read.flag("watch-all-secrets", default: false)
        watchAllConfigMaps = try read.flag("watch-all-config-maps", default: false)
        publishService = try read.objectName("publish-service")
        publishStatusAddresses = try read.list("publish-status-address").map { text in
            let isName =
                text.utf8.count <= 253
                && text.split(separator: ".", omittingEmptySubsequences: false)
                    .allSatisfy { Self.isName(String($0)) }
            guard IPAddress(text) != nil || isName else {
                throw SettingsError(
                    problem: "\"\(text)\" is neither an address nor a host name", key: "publish-status-address",
                    mend: "write an IP address or a DNS name, without a port")
            }
            return text
        }
        publishNodeAddresses = try read.flag("publish-node-addresses", default: false)
        let sources = [publishService != nil, !publishStatusAddresses.isEmpty, publishNodeAddresses]
        guard sources.count(where: { $0 }) <= 1 else {
            throw SettingsError(
                problem: "there are several answers to where Ingresses are reached", key: "publish-service",
                mend: "give one of --publish-service, --publish-status-address and --publish-node-addresses")
        }
        election = try read.flag("election", default: true)
        electionLease = try read.objectName("election-lease")
        leaseDuration = try read.duration("lease-duration", default: "15s")
        webhook = try WebhookSettings(read)
        guard leaseDuration >= 1_000, leaseDuration % 1_000 == 0 else {
            throw SettingsError(
                problem: "a lease is counted in whole seconds, and lasts one at least", key: "lease-duration",
                mend: "write 15s, or more where the API server is slow")
        }
        zone = read.text("zone")
        defaultBackend = read.text("default-backend")
        if let backend = defaultBackend {
            let parts = backend.split(separator: "/", omittingEmptySubsequences: false)
            let service = parts.last?.split(separator: ":", omittingEmptySubsequences: false) ?? []
            guard parts.count == 2, service.count == 2, !parts[0].isEmpty, service.allSatisfy({ !$0.isEmpty }) else {
                throw SettingsError(
                    problem: "\"\(backend)\" does not name a Service port", key: "default-backend",
                    mend: "write namespace/service:port, such as kube-system/not-found:80")
            }
        }
        trustedProxies = try read.list("trusted-proxies").map { text in
            guard let block = AddressBlock(text) else {
                throw SettingsError(
                    problem: "\"\(text)\" is not an address block", key: "trusted-proxies",
                    mend: "write CIDR blocks separated by commas, such as 10.0.0.0/8,fd00::/8")
            }
            return block
        }
        useProxyProtocol = try read.flag("use-proxy-protocol", default: false)
        guard !useProxyProtocol || !trustedProxies.isEmpty else {
            throw SettingsError(
                problem: "nobody's PROXY protocol header would be believed: there are no trusted proxies",
                key: "use-proxy-protocol",
                mend: "give the balancers' addresses by --trusted-proxies; 0.0.0.0/0,::/0 takes one of everybody")
        }
        proxyProtocolHeaderTimeout = try read.duration("proxy-protocol-header-timeout", default: "5s", least: 1)
        tcpServicesConfigMap = try read.objectName("tcp-services-configmap")
        proxyStreamTimeout = try read.duration("proxy-stream-timeout", default: "600s")
        udpServicesConfigMap = try read.objectName("udp-services-configmap")
        udpSessionTimeout = try read.duration("udp-session-timeout", default: "60s")
        guard udpSessionTimeout >= 1_000 else {
            throw SettingsError(
                problem: "a session of UDP has no other end than standing still", key: "udp-session-timeout",
                mend: "write a second or more, such as 60s")
        }
        proxyStreamResponses = try read.integer("proxy-stream-responses", default: 0, in: 0...1_000_000)
        maxUDPSessions = try read.integer("max-udp-sessions", default: 16_384, in: 1...10_000_000)
        maxUDPSessionsPerClient = try read.integer("max-udp-sessions-per-client", default: 1_024, in: 0...10_000_000)
        enableSSLPassthrough = try read.flag("enable-ssl-passthrough", default: false)
        allowInlineScripts = try read.flag("allow-inline-scripts", default: true)
        annotationsPrefix = read.text("annotations-prefix") ?? "nginx.ingress.kubernetes.io"
        drainTimeout = try read.duration("drain-timeout", default: "30s")
        drainDelay = try read.duration("drain-delay", default: "0s")
        logLevel = read.text("log-level") ?? "info"
        guard Logger.Level(rawValue: logLevel) != nil else {
            throw SettingsError(
                problem: "\"\(logLevel)\" is not a level of the log", key: "log-level",
                mend: "write \(Logger.Level.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        let format = read.text("access-log") ?? "json"
        guard let accessLog = AccessLogChoice(rawValue: format) else {
            throw SettingsError(
                problem: "\"\(format)\" is not a format of the access log", key: "access-log",
                mend: "write json, text or off")
        }
        self.accessLog = accessLog
        sendsForwarded = try read.flag("forwarded", default: false)
        sendsVia = try read.flag("via", default: false)
        hostsAreExclusive = try read.flag("exclusive-hosts", default: false)
        requestHeadTimeout = try read.duration("request-head-timeout", default: "10s")
        idleTimeout = try read.duration("idle-timeout", default: "60s")
        connectTimeout = try read.duration("connect-timeout", default: "2s", least: 1)
        responseHeadTimeout = try read.duration("response-head-timeout", default: "60s")
        streamIdleTimeout = try read.duration("stream-idle-timeout", default: "60s")
        totalTimeout = try read.duration("total-timeout", default: "0s")
        maxHeadBytes = try read.size("max-head-size", default: "64KiB", in: 256...(1 << 20))
        maxFields = try read.integer("max-fields", default: 100, in: 1...10_000)
        maxTargetBytes = try read.size("max-uri-length", default: "8KiB", in: 16...(1 << 20))
        maxFieldBytes = try read.size("max-field-size", default: "8KiB", in: 64...(1 << 20))
        maxBodyBytes = try read.size("max-body-size", default: "0", in: 0...Int.max)
        minBodyRate = try read.integer("min-body-rate", default: 128, in: 0...(1 << 30))
        http2MaxConcurrentStreams = try read.integer("http2-max-concurrent-streams", default: 128, in: 1...10_000)
        maxConnections = try read.integer("max-connections", default: 0, in: 0...100_000_000)
        maxConnectionsPerClient = try read.integer("max-connections-per-client", default: 0, in: 0...100_000_000)
        idleWithoutCluster =
            manifests == nil ? [] : Self.ofCluster.filter { read.textOrList($0) != nil }.map { "--\($0)" }
    }
}

/// What is done to the bodies of responses.
struct CompressionSettings: Sendable {
    var choice = CompressionChoice(codings: .off)
    var levels = CodingLevels()
    var minLength: Int
    var types: MediaTypes
    var memory: Int

    init(_ read: SettingsReader) throws {
        // A list of a configuration file as well as a text.
        if let text = read.textOrList("compression") {
            // YAML takes on and off for truth values.
            let words = text == "true" ? "on" : text == "false" ? "off" : text
            guard let choice = CompressionChoice(words) else {
                throw SettingsError(
                    problem: "\"\(text)\" does not say what to compress with", key: "compression",
                    mend: "write on, off, or codings by preference, such as zstd,br,gzip, with always behind them if "
                        + "responses with cookies are meant, too")
            }
            self.choice = choice
        }
        if let text = read.textOrList("compression-level") {
            guard let levels = CodingLevels(text) else {
                let ranges = ContentCoding.allCases.map { coding in
                    "\(coding.name) from \(coding.levels.lowerBound) to \(coding.levels.upperBound)"
                }
                throw SettingsError(
                    problem: "\"\(text)\" is no list of levels", key: "compression-level",
                    mend: "write gzip=1,br=4,zstd=3 or some of them: \(ranges.joined(separator: ", "))")
            }
            self.levels = levels
        }
        minLength = try read.size("compression-min-length", default: "1KiB", in: 0...(1 << 30))
        let names = read.list("compression-types")
        guard let types = MediaTypes(names.isEmpty ? MediaTypes.standardNames : names) else {
            throw SettingsError(
                problem: "one of \(names.map { "\"\($0)\"" }.joined(separator: ", ")) is no media type",
                key: "compression-types", mend: "write types such as text/html,application/json,image/*,*+xml, or *")
        }
        self.types = types
        memory = try read.size("compression-memory", default: "32MiB", in: 0...(1 << 40))
    }
}

/// The validating admission webhook.
struct WebhookSettings: Sendable {
    var address: SocketAddress
    /// Nil: a certificate of our own.
    var files: (certificate: String, key: String)?
    var clientAuthority: String?
    var service: String
    /// `namespace/name`
    var secret: String?
    var configuration: String

    /// Nil when no webhook is asked for.
    init?(_ read: SettingsReader) throws {
        guard read.text("webhook") != nil, let address = try read.addresses("webhook", default: "0.0.0.0:8444").first
        else { return nil }
        self.address = address
        switch (read.text("webhook-certificate"), read.text("webhook-key")) {
        case (let certificate?, let key?): files = (certificate, key)
        case (nil, nil): files = nil
        case _:
            throw SettingsError(
                problem: "a certificate without its key, or the other way round", key: "webhook-certificate",
                mend: "give both --webhook-certificate and --webhook-key, or neither")
        }
        clientAuthority = read.text("webhook-client-ca")
        service = read.text("webhook-service") ?? "moongate-webhook"
        secret = try read.objectName("webhook-secret")
        configuration = read.text("webhook-configuration") ?? "moongate"
    }
}

extension Settings {
    /// A value of Strict-Transport-Security (RFC 6797 §6.1): directives, one of them max-age, with its seconds.
    static func isTransportSecurity(_ text: String) -> Bool {
        guard text.utf8.allSatisfy({ (0x20...0x7e).contains($0) }) else { return false }
        let ages = text.split(separator: ";").compactMap { directive -> Substring? in
            let sides = directive.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard sides[0].trimmingCharacters(in: .whitespaces).lowercased() == "max-age" else { return nil }
            return sides.count == 2 ? sides[1] : ""
        }
        guard ages.count == 1 else { return false }
        var digits = ages[0].trimmingCharacters(in: .whitespaces)
        if digits.count > 2, digits.hasPrefix("\""), digits.hasSuffix("\"") {
            digits = String(digits.dropFirst().dropLast())
        }
        return !digits.isEmpty && digits.utf8.allSatisfy { (48...57).contains($0) }
    }

    /// A DNS label, as namespaces and many other objects are named.
    static func isName(_ text: String) -> Bool {
        (1...63).contains(text.utf8.count) && !text.hasPrefix("-") && !text.hasSuffix("-")
            && text.utf8.allSatisfy {
                (97...122).contains($0) || (48...57).contains($0) || $0 == UInt8(ascii: "-")
            }
    }
}

/// Reads one setting at a time and says what is wrong with it.
struct SettingsReader {
    let reader: ConfigReader

    /// The value as text, however the provider holds it: a file may say `workers: 4` or `workers: "4"`.
    func text(_ key: String) -> String? {
        let key = ConfigKey([key])
        if let value = reader.string(forKey: key) { return value.isEmpty ? nil : value }
        if let value = reader.int(forKey: key) { return String(value) }
        if let value = reader.bool(forKey: key) { return value ? "true" : "false" }
        return nil
    }

    /// A comma-separated list, or a list of the file.
    func list(_ key: String) -> [String] {
        if let text = text(key) {
            return text.split(separator: ",").map { $0.trimmingPrefix(while: \.isWhitespace) }
                .map { String($0.reversed().trimmingPrefix(while: \.isWhitespace).reversed()) }
        }
        return reader.stringArray(forKey: ConfigKey([key])) ?? []
    }

    /// A list with commas, as it is written or put together.
    func textOrList(_ key: String) -> String? {
        let items = list(key)
        return items.isEmpty ? nil : items.joined(separator: ",")
    }

    /// `namespace/name`.
    func objectName(_ key: String) throws -> String? {
        guard let text = text(key) else { return nil }
        let parts = text.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        let isName =
            parts.count == 2 && Settings.isName(parts[0]) && parts[1].utf8.count <= 253
            && parts[1].split(separator: ".", omittingEmptySubsequences: false).allSatisfy {
                Settings.isName(String($0))
            }
        guard isName else {
            throw SettingsError(
                problem: "\"\(text)\" does not name an object", key: key, mend: "write namespace/name")
        }
        return text
    }

    func flag(_ key: String, default standard: Bool) throws -> Bool {
        guard let text = text(key) else { return standard }
        switch text.lowercased() {
        case "true", "yes", "on", "1": return true
        case "false", "no", "off", "0": return false
        case _:
            throw SettingsError(problem: "\"\(text)\" is neither true nor false", key: key, mend: "write true or false")
        }
    }

    func integer(_ key: String, default standard: Int, in range: ClosedRange<Int>) throws -> Int {
        guard let text = text(key) else { return standard }
        guard let value = Int(text), range.contains(value) else {
            throw SettingsError(
                problem: "\"\(text)\" is not a whole number from \(range.lowerBound) to \(range.upperBound)", key: key,
                mend: standard < range.lowerBound
                    ? "write one, or leave it out" : "write one, or leave it out for \(standard)")
        }
        return value
    }

    /// Milliseconds from `150ms 5s 2m 1h 30d`.
    /// - Parameter least: 1 where waiting for ever would leave whoever says nothing in his place.
    func duration(_ key: String, default standard: String, least: Int = 0) throws -> Int {
        let text = text(key) ?? standard
        guard let value = Quantity.milliseconds(text), value <= 30 * 86_400_000 else {
            throw SettingsError(
                problem: "\"\(text)\" is not a duration", key: key,
                mend: "write digits and a unit: 150ms, 5s, 2m, 1h or 30d; leave it out for \(standard)")
        }
        guard value >= least else {
            throw SettingsError(
                problem: "with \"\(text)\" there is no end to it", key: key,
                mend: "write a duration of 1ms or more; leave it out for \(standard)")
        }
        return value
    }

    /// Bytes from `65536 64KiB 10MiB 1m`.
    func size(_ key: String, default standard: String, in range: ClosedRange<Int>) throws -> Int {
        let text = text(key) ?? standard
        guard let value = Quantity.bytes(text), range.contains(value) else {
            throw SettingsError(
                problem: "\"\(text)\" is not a size that can be used here", key: key,
                mend: "write digits and a unit: 512KiB, 8MiB, 1GiB, or k, m, g; leave it out for \(standard)")
        }
        return value
    }

    /// Addresses to listen on; port 0 lets the system choose.
    func addresses(_ key: String, default standard: String) throws -> [SocketAddress] {
        var texts = list(key)
        if texts.isEmpty { texts = [standard] }
        return try texts.map { text in
            // `:8080` means every address of the machine, as elsewhere in the field.
            let whole = text.hasPrefix(":") ? "[::]\(text)" : text
            guard let address = SocketAddress(whole.replacing("localhost:", with: "127.0.0.1:")) else {
                throw SettingsError(
                    problem: "\"\(text)\" is not an address and a port", key: key,
                    mend: "write 0.0.0.0:8080, [::]:8080 or 127.0.0.1:0 (0 lets the system choose)")
            }
            return address
        }
    }
}
