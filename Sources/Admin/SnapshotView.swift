// The served snapshot as JSON for people and tools. Secrets are left out: certificates are named and not shown, the
// source of a script is measured and not shown, and of a script's arguments those whose name speaks of a secret.
internal import Foundation
internal import Model

struct SnapshotView: Encodable {
    let generation: UInt64
    let publishedAt: String
    let hosts: [Host]
    let upstreams: [UpstreamView]
    let scripts: [Script]
    let certificates: [Certificate]
    let defaultRoute: RouteView?
    let tcpServices: [TCPServiceView]?
    let udpServices: [UDPServiceView]?
    let passthrough: [PassthroughView]?

    struct TCPServiceView: Encodable {
        let port: UInt16
        let upstream: String?
        let takesProxyProtocol: Bool
        /// `v1` or `v2`; nil: none.
        let sendsProxyProtocol: String?
    }

    struct UDPServiceView: Encodable {
        let port: UInt16
        let upstream: String?
    }

    struct PassthroughView: Encodable {
        let host: String
        let upstream: String?
        let ingress: String
    }

    struct Host: Encodable {
        let pattern: String
        let routes: [RouteView]
        let clientCertificates: ClientCertificateView?
    }

    struct ClientCertificateView: Encodable {
        let mode: String
        /// Where the authorities are from.
        let secret: String?
        let depth: Int?
        let hasRevocations: Bool?
        let errorPage: String?
        let subjectPattern: String?
        let passedToUpstream: Bool
        let ingress: String
        /// It can't be told who may come: everything on the host answers 403.
        let closed: Bool?
    }

    struct RouteView: Encodable {
        let path: String
        let pathType: String
        let ingress: String
        let rule: String
        let upstream: String?
        /// For requests on TLS connections, where it is another.
        let secureUpstream: String?
        let policy: Policy?
        let scripts: [Binding]?
    }

    struct Policy: Encodable {
        let connectTimeoutMs: Int?
        let responseHeadTimeoutMs: Int?
        let streamIdleTimeoutMs: Int?
        let totalTimeoutMs: Int?
        let maxBodyBytes: Int?
        let retries: Int?
        let compression: String?
        let grpcWeb: Bool?
        let allowsEncodedSlashes: Bool?
        /// Its Ingress asks for client certificates of another namespace's host: 403.
        let denied: Bool?
    }

    struct Binding: Encodable {
        let script: String?
        let reference: String
        let order: Int
        let arguments: Argument
        let onError: String?
        let percent: Double
        let mode: String
    }

    struct UpstreamView: Encodable {
        let name: String
        let balance: String
        let `protocol`: String
        let tls: TLSView?
        let endpoints: [EndpointView]
    }

    struct TLSView: Encodable {
        let secret: String?
        let clientCertificate: Bool
        let verify: Bool
        let name: String
        let sni: Bool
    }

    struct EndpointView: Encodable {
        let address: String
        let zone: String?
        let terminating: Bool?
    }

    struct Script: Encodable {
        let name: String
        let namespace: String
        let bytes: Int
        let modules: [String]
    }

    struct Certificate: Encodable {
        let hosts: [String]
        let secret: String
        let ingress: String
    }

    /// A script's argument without what looks like a secret.
    struct Argument: Encodable {
        let value: ConfigValue

        private struct Key: CodingKey {
            let stringValue: String
            var intValue: Int? { nil }
            init(stringValue: String) { self.stringValue = stringValue }
            init?(intValue: Int) { nil }
        }

        static let hidden = "(left out)"

        static func isSecret(_ key: String) -> Bool {
            let key = key.lowercased()
            return ["secret", "password", "passwd", "token", "credential", "private", "apikey", "api_key", "api-key"]
                .contains { key.contains($0) } || key == "key" || key.hasSuffix("_key") || key.hasSuffix("-key")
        }

        func encode(to encoder: any Encoder) throws {
            switch value {
            case .map(let entries):
                var container = encoder.container(keyedBy: Key.self)
                for entry in entries {
                    let key = Key(stringValue: entry.key)
                    if Self.isSecret(entry.key) {
                        try container.encode(Self.hidden, forKey: key)
                    } else {
                        try container.encode(Argument(value: entry.value), forKey: key)
                    }
                }
            case .list(let items):
                var container = encoder.unkeyedContainer()
                for item in items { try container.encode(Argument(value: item)) }
            case .null:
                var container = encoder.singleValueContainer()
                try container.encodeNil()
            case .bool(let bool):
                var container = encoder.singleValueContainer()
                try container.encode(bool)
            case .integer(let integer):
                var container = encoder.singleValueContainer()
                try container.encode(integer)
            case .number(let number):
                var container = encoder.singleValueContainer()
                // JSON has no word for what is not a number.
                if number.isFinite { try container.encode(number) } else { try container.encodeNil() }
            case .string(let string):
                var container = encoder.singleValueContainer()
                try container.encode(string)
            }
        }
    }

    init(_ served: ServedSnapshot) {
        let snapshot = served.snapshot
        generation = served.generation
        publishedAt = Date(timeIntervalSince1970: served.publishedAt).formatted(.iso8601)
        func item<T>(_ list: [T], _ index: Int?) -> T? {
            index.flatMap { list.indices.contains($0) ? list[$0] : nil }
        }
        func view(_ route: Route) -> RouteView {
            let policy = route.policy
            let pathType =
                switch route.path {
                case .exact: "Exact"
                case .prefix: "Prefix"
                }
            let bindings = route.scripts.map { binding in
                Binding(
                    script: item(snapshot.scripts, binding.script)?.name, reference: binding.reference,
                    order: binding.order, arguments: Argument(value: binding.arguments),
                    onError: binding.onError?.rawValue, percent: binding.percent, mode: binding.mode.rawValue)
            }
            return RouteView(
                path: route.path.path, pathType: pathType, ingress: "\(route.ingress.namespace)/\(route.ingress.name)",
                rule: route.rule, upstream: item(snapshot.upstreams, route.upstream)?.name,
                secureUpstream: item(snapshot.upstreams, route.secureUpstream)?.name,
                policy: policy == RoutePolicy()
                    ? nil
                    : Policy(
                        connectTimeoutMs: policy.connectTimeout, responseHeadTimeoutMs: policy.responseHeadTimeout,
                        streamIdleTimeoutMs: policy.streamIdleTimeout, totalTimeoutMs: policy.totalTimeout,
                        maxBodyBytes: policy.maxBodyBytes, retries: policy.retries,
                        compression: policy.compression?.description, grpcWeb: policy.bridgesGRPCWeb ? true : nil,
                        allowsEncodedSlashes: policy.allowsEncodedSlashes ? true : nil,
                        denied: policy.isDenied ? true : nil),
                scripts: bindings.isEmpty ? nil : bindings)
        }
        hosts = snapshot.hosts.map { host in
            Host(
                pattern: host.pattern.description,
                routes: host.routes.compactMap { item(snapshot.routes, $0).map(view) },
                clientCertificates: host.clientAuthentication.map { rule in
                    ClientCertificateView(
                        mode: rule.mode.rawValue, secret: rule.secret.map { "\($0.namespace)/\($0.name)" },
                        depth: rule.verification?.depth,
                        hasRevocations: rule.verification.map { !$0.revocations.isEmpty },
                        errorPage: rule.errorPage, subjectPattern: rule.subjectPattern,
                        passedToUpstream: rule.passesCertificate,
                        ingress: "\(rule.ingress.namespace)/\(rule.ingress.name)",
                        closed: rule.verification == nil ? true : nil)
                })
        }
        upstreams = snapshot.upstreams.map { upstream in
            UpstreamView(
                name: upstream.name, balance: upstream.balance.rawValue, protocol: upstream.protocol.rawValue,
                tls: upstream.tls.map { tls in
                    TLSView(
                        secret: tls.secret.map { "\($0.namespace)/\($0.name)" }, clientCertificate: tls.pair != nil,
                        verify: tls.verifies, name: tls.name, sni: tls.sendsName)
                },
                endpoints: upstream.endpoints.map { endpoint in
                    let address =
                        switch endpoint.host {
                        case .ip(let ip): SocketAddress(ip: ip, port: endpoint.port).description
                        case .name(let name): "\(name):\(endpoint.port)"
                        }
                    return EndpointView(
                        address: address, zone: endpoint.zone, terminating: endpoint.isTerminating ? true : nil)
                })
        }
        scripts = snapshot.scripts.map { script in
            Script(
                name: script.name, namespace: script.namespace, bytes: script.main.utf8.count,
                modules: script.modules.map(\.name))
        }
        certificates = snapshot.certificates.map { certificate in
            Certificate(
                hosts: certificate.hosts, secret: "\(certificate.secret.namespace)/\(certificate.secret.name)",
                ingress: "\(certificate.ingress.namespace)/\(certificate.ingress.name)")
        }
        let services = snapshot.tcpServices.map { service in
            TCPServiceView(
                port: service.port, upstream: item(snapshot.upstreams, service.upstream)?.name,
                takesProxyProtocol: service.acceptsProxyProtocol,
                sendsProxyProtocol: service.sendsProxyProtocol?.rawValue)
        }
        tcpServices = services.isEmpty ? nil : services
        let datagrams = snapshot.udpServices.map { service in
            UDPServiceView(port: service.port, upstream: item(snapshot.upstreams, service.upstream)?.name)
        }
        udpServices = datagrams.isEmpty ? nil : datagrams
        let unopened = snapshot.passthrough.map { host in
            PassthroughView(
                host: host.pattern.description, upstream: item(snapshot.upstreams, host.upstream)?.name,
                ingress: "\(host.ingress.namespace)/\(host.ingress.name)")
        }
        passthrough = unopened.isEmpty ? nil : unopened
        defaultRoute = item(snapshot.routes, snapshot.defaultRoute).map(view)
    }
}
