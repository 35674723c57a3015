import IngressTranslation
import KubernetesAPI
import Manifests
import Model

/// A translation as text, for golden files and for comparing parts of two translations: everything that is served and
/// everything that is said, in one fixed order.
enum TranslationText {
    static func of(_ translation: Translation, diagnostics: [Diagnostic]) -> String {
        let snapshot = translation.snapshot
        var lines: [String] = []
        for host in snapshot.hosts {
            lines.append("host \(host.pattern)" + Self.text(of: host.clientAuthentication))
            for route in host.routes { lines.append("  " + text(of: snapshot.routes[route], in: snapshot)) }
        }
        if let index = snapshot.defaultRoute {
            lines.append("default " + text(of: snapshot.routes[index], in: snapshot))
        }
        for upstream in snapshot.upstreams { lines.append(text(of: upstream)) }
        for script in snapshot.scripts {
            let modules = script.modules.map(\.name).joined(separator: " ")
            lines.append(
                "script \(script.name) of \(script.namespace): \(script.main.debugDescription)"
                    + (modules.isEmpty ? "" : " with \(modules)"))
        }
        for certificate in snapshot.certificates {
            let hosts = certificate.hosts.joined(separator: " ")
            let unlisted = certificate.unlisted.joined(separator: " ")
            lines.append(
                "certificate \(certificate.secret) for \(hosts) of \(certificate.ingress)"
                    + (unlisted.isEmpty ? "" : ", if it covers them for \(unlisted)")
                    + (certificate.isEmpty ? ", empty" : ""))
        }
        for service in snapshot.tcpServices {
            lines.append(
                "tcp \(service.port) -> \(snapshot.upstreams[service.upstream].name)"
                    + (service.acceptsProxyProtocol ? " takes-proxy" : "")
                    + (service.sendsProxyProtocol.map { " sends-proxy-\($0.rawValue)" } ?? "") + " [\(service.place)]")
        }
        for service in snapshot.udpServices {
            lines.append(
                "udp \(service.port) -> \(snapshot.upstreams[service.upstream].name) [\(service.place)]")
        }
        for host in snapshot.passthrough {
            lines.append("passthrough \(host.pattern) -> \(snapshot.upstreams[host.upstream].name) (\(host.ingress))")
        }
        for status in translation.statuses where !status.status.loadBalancer.ingress.isEmpty {
            let addresses = status.status.loadBalancer.ingress.map { $0.ip ?? $0.hostname ?? "?" }
            lines.append("status \(status.ingress): \(addresses.joined(separator: " "))")
        }
        for diagnostic in diagnostics { lines.append("\(diagnostic)") }
        return lines.map { $0 + "\n" }.joined()
    }

    private static func text(of rule: ClientAuthentication?) -> String {
        guard let rule else { return "" }
        var text = " clients=\(rule.mode.rawValue) of \(rule.ingress)"
        if let clients = rule.verification {
            let name = rule.secret.map { "\($0)" } ?? "nobody"
            text +=
                " by \(name) (\(clients.authorities.count)+\(clients.revocations.count) bytes) depth=\(clients.depth)"
        } else {
            text += " closed"
        }
        if let page = rule.errorPage { text += " error-page=\(page)" }
        if rule.passesCertificate { text += " passed" }
        if let pattern = rule.subjectPattern { text += " subject=\(pattern.debugDescription)" }
        return text
    }

    static func text(of route: Route, in snapshot: Snapshot) -> String {
        var upstream = route.upstream.map { snapshot.upstreams[$0].name } ?? "503"
        if let secure = route.secureUpstream { upstream += " or over TLS \(snapshot.upstreams[secure].name)" }
        var text = "\(route.path) -> \(upstream) (\(route.ingress) \(route.rule))"
        let policy = route.policy
        for (name, value) in [
            ("connect", policy.connectTimeout), ("response", policy.responseHeadTimeout),
            ("idle", policy.streamIdleTimeout), ("total", policy.totalTimeout), ("body", policy.maxBodyBytes),
            ("retries", policy.retries),
        ] {
            if let value { text += " \(name)=\(value)" }
        }
        if let compression = policy.compression { text += " compression=\(compression)" }
        if policy.bridgesGRPCWeb { text += " grpc-web" }
        if policy.allowsEncodedSlashes { text += " encoded-slashes" }
        if policy.redirectsToHTTPS { text += " redirect=https" }
        if policy.isDenied { text += " denied" }
        for binding in route.scripts { text += "\n    run " + Self.text(of: binding, in: snapshot) }
        return text
    }

    static func text(of binding: ScriptBinding, in snapshot: Snapshot) -> String {
        var text = "\(binding.order) \(binding.reference)"
        text += binding.script.map { " = \(snapshot.scripts[$0].name)" } ?? " = nothing"
        if binding.arguments != .map([]) { text += " \(Self.text(of: binding.arguments))" }
        if let policy = binding.onError { text += " on-error=\(policy.rawValue)" }
        if let cpu = binding.budget.cpuMicroseconds { text += " cpu=\(cpu)us" }
        if let memory = binding.budget.memoryBytes { text += " memory=\(memory)" }
        if let wall = binding.budget.wallMilliseconds { text += " wall=\(wall)ms" }
        if binding.percent != 100 { text += " percent=\(binding.percent)" }
        if binding.mode != .enforce { text += " mode=\(binding.mode.rawValue)" }
        return text + " [\(binding.place)]"
    }

    private static func text(of upstream: Upstream) -> String {
        var text = "upstream \(upstream.name) \(upstream.balance.rawValue)"
        if upstream.protocol != .http { text += " \(upstream.protocol.rawValue)" }
        if let version = upstream.proxyHeader { text += " sends-proxy-\(version.rawValue)" }
        if let tls = upstream.tls {
            text += " tls=\(tls.name)"
            if tls.pair != nil { text += ",pair" }
            if !tls.authorities.isEmpty { text += ",ca" }
        }
        if !upstream.allowedNamespaces.isEmpty { text += " for \(upstream.allowedNamespaces.joined(separator: " "))" }
        let endpoints = upstream.endpoints.map { endpoint in
            var text: String
            switch endpoint.host {
            case .ip(let ip): text = "\(SocketAddress(ip: ip, port: endpoint.port))"
            case .name(let name): text = "name \(name):\(endpoint.port)"
            }
            if let zone = endpoint.zone { text += " in \(zone)" }
            if endpoint.isTerminating { text += " terminating" }
            return text
        }
        return text + ": " + (endpoints.isEmpty ? "nobody" : endpoints.joined(separator: ", "))
    }

    private static func text(of value: ConfigValue) -> String {
        switch value {
        case .null: "null"
        case .bool(let flag): "\(flag)"
        case .integer(let number): "\(number)"
        case .number(let number): "\(number)"
        case .string(let text): text.debugDescription
        case .list(let items): "[\(items.map { text(of: $0) }.joined(separator: ", "))]"
        case .map(let entries): "{\(entries.map { "\($0.key): \(text(of: $0.value))" }.joined(separator: ", "))}"
        }
    }
}

/// Objects from YAML text, as a folder with one file would give them.
func objects(_ yaml: String, file: String = "web.yaml", scripts: [String: String] = [:]) -> ObjectSet {
    var memory = FolderMemory()
    memory.update(file, ManifestParser.parse(yaml, file: file))
    var objects = memory.contents().objects
    for (path, source) in scripts { objects.scriptFiles[path] = .source(source) }
    return objects
}

/// A Service with one ready endpoint.
func service(_ name: String, namespace: String = "shop", address: String = "10.0.0.1") -> String {
    """
    ---
    apiVersion: v1
    kind: Service
    metadata: {name: \(name), namespace: \(namespace)}
    spec: {ports: [{name: http, port: 80, targetPort: 8080}]}
    ---
    apiVersion: discovery.k8s.io/v1
    kind: EndpointSlice
    metadata: {name: \(name)-1, namespace: \(namespace), labels: {kubernetes.io/service-name: \(name)}}
    addressType: IPv4
    ports: [{name: http, port: 8080}]
    endpoints: [{addresses: [\(address)]}]

    """
}

/// An Ingress with one path.
func ingress(
    _ name: String = "web", namespace: String = "shop", host: String = "shop.test", path: String = "/",
    service: String = "web", annotations: [(String, String)] = [], created: String? = nil
) -> String {
    let notes = annotations.map { key, value in "    \(yamlString(key)): \(yamlString(value))\n" }.joined()
    let time = created.map { "creationTimestamp: \"\($0)\"" } ?? "# no time"
    let backend = "{service: {name: \(yamlString(service)), port: {number: 80}}}"
    return """
        ---
        apiVersion: networking.k8s.io/v1
        kind: Ingress
        metadata:
          name: "\(name)"
          namespace: \(namespace)
          \(time)
          annotations:
            none/none: ""
        \(notes)
        spec:
          ingressClassName: moongate
          rules:
          - host: \(yamlString(host))
            http:
              paths:
              - {path: \(yamlString(path)), pathType: Prefix, backend: \(backend)}

        """
}

/// A double-quoted scalar for any text.
func yamlString(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "\"": result += "\\\""
        case "\\": result += "\\\\"
        case "\n": result += "\\n"
        case "\r": result += "\\r"
        case "\t": result += "\\t"
        default:
            if scalar.value < 0x20 || (0x7f...0x9f).contains(scalar.value) || scalar.value == 0xfeff {
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            } else {
                result.unicodeScalars.append(scalar)
            }
        }
    }
    return result + "\""
}
