// Turns the short form of a manifest into YAML, and upstreams into Services with EndpointSlices.
import Foundation

/// What stands behind a Service: names of upstreams, or addresses given as they are.
struct ServiceBackend {
    var name: String
    var namespace: String
    var addresses: [SocketAddress]
    /// Namespaces whose scripts may choose it.
    var grant: String?
}

enum ManifestWriter {
    /// A Service on port 80 (named `http`) and one EndpointSlice per endpoint, since each has a port of its own.
    static func yaml(of service: ServiceBackend) -> String {
        let grant = service.grant.map { ", annotations: { moongate.dev/allow-namespaces: \"\($0)\" }" } ?? ""
        var text = """
            apiVersion: v1
            kind: Service
            metadata: { name: \(service.name), namespace: \(service.namespace)\(grant) }
            spec:
              ports: [{ name: http, port: 80, targetPort: http }]

            """
        for (index, address) in service.addresses.enumerated() {
            text += """
                ---
                apiVersion: discovery.k8s.io/v1
                kind: EndpointSlice
                metadata:
                  name: \(service.name)-\(index + 1)
                  namespace: \(service.namespace)
                  labels: { kubernetes.io/service-name: \(service.name) }
                addressType: IPv4
                ports: [{ name: http, port: \(address.port), protocol: TCP }]
                endpoints: [{ addresses: ["\(address.host)"], conditions: { ready: true } }]

                """
        }
        return text
    }

    /// `host shop.test / -> upstream a` and its company:
    ///
    ///     host HOST PATH [exact|prefix|specific] -> upstream NAME[,NAME…]
    ///                             HOST or PATH may hold {1..N}: one rule for each number
    ///     default -> upstream NAME
    ///     annotation KEY: VALUE
    ///     ingress NAME            names the Ingress that the lines below make (first: web)
    ///     namespace NAME          puts it there (first: shop)
    ///
    /// Answers YAML, and the Services to make for lines that name several upstreams.
    static func expand(_ section: ScenarioSection) throws(ScenarioFailure) -> (yaml: String, groups: [[String]]) {
        var ingresses = [Draft()]
        var groups: [[String]] = []
        for line in section.commands {
            let words = Statement(line.text).words.map(\.text)
            switch words.first {
            case "ingress" where words.count == 2:
                if ingresses[ingresses.count - 1].isEmpty { ingresses.removeLast() }
                ingresses.append(Draft(name: words[1]))
            case "namespace" where words.count == 2:
                ingresses[ingresses.count - 1].namespace = words[1]
            case "annotation" where words.count >= 3 && words[1].hasSuffix(":"):
                let value = words.dropFirst(2).joined(separator: " ").replacing("'", with: "''")
                ingresses[ingresses.count - 1].annotations.append("\(words[1]) '\(value)'")
            case "host", "default":
                guard let arrow = words.firstIndex(of: "->"), words.count == arrow + 3, words[arrow + 1] == "upstream"
                else {
                    throw ScenarioFailure("expected -> upstream NAME", line: line.number)
                }
                let names = words[arrow + 2].split(separator: ",").map(String.init)
                if names.count > 1 && !groups.contains(names) { groups.append(names) }
                let service = names.joined(separator: "-")
                if words[0] == "default" {
                    ingresses[ingresses.count - 1].defaultService = service
                } else {
                    guard arrow >= 3 else { throw ScenarioFailure("expected host HOST PATH", line: line.number) }
                    let type = arrow > 3 ? words[3] : "prefix"
                    guard
                        let pathType = ["exact": "Exact", "prefix": "Prefix", "specific": "ImplementationSpecific"][
                            type]
                    else { throw ScenarioFailure("no path type is called \(type)", line: line.number) }
                    for (host, path) in Self.numbered(words[1], words[2]) {
                        ingresses[ingresses.count - 1].rules.append((host, path, pathType, service))
                    }
                }
            default: throw ScenarioFailure("not a manifest line: \(line.text)", line: line.number)
            }
        }
        return (ingresses.map(\.yaml).joined(separator: "---\n"), groups)
    }

    /// `{1..3}` in either text becomes 1, 2 and 3; without it there is the one pair.
    private static func numbered(_ host: String, _ path: String) -> [(String, String)] {
        for text in [host, path] {
            guard let start = text.range(of: "{1.."), let end = text.range(of: "}"), start.upperBound < end.lowerBound,
                let most = Int(text[start.upperBound..<end.lowerBound]), most > 0
            else { continue }
            let mark = text[start.lowerBound..<end.upperBound]
            return (1...most).map { (host.replacing(mark, with: "\($0)"), path.replacing(mark, with: "\($0)")) }
        }
        return [(host, path)]
    }

    private struct Draft {
        var name = "web"
        var namespace = "shop"
        var annotations: [String] = []
        var rules: [(host: String, path: String, type: String, service: String)] = []
        var defaultService: String?

        var isEmpty: Bool { annotations.isEmpty && rules.isEmpty && defaultService == nil }

        var yaml: String {
            var text = """
                apiVersion: networking.k8s.io/v1
                kind: Ingress
                metadata:
                  name: \(name)
                  namespace: \(namespace)

                """
            if !annotations.isEmpty {
                text += "  annotations:\n" + annotations.map { "    \($0)\n" }.joined()
            }
            text += "spec:\n  ingressClassName: moongate\n"
            if let defaultService {
                text += "  defaultBackend: { service: { name: \(defaultService), port: { number: 80 } } }\n"
            }
            if !rules.isEmpty { text += "  rules:\n" }
            for rule in rules {
                let host = rule.host == "*" ? "" : "host: \"\(rule.host)\", "
                text += """
                      - { \(host)http: { paths: [{ path: "\(rule.path)", pathType: \(rule.type),
                          backend: { service: { name: \(rule.service), port: { number: 80 } } } }] } }

                    """
            }
            return text
        }
    }
}
