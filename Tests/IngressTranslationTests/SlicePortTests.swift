import Model
import Testing

@testable import IngressTranslation

/// Which port of a slice stands for a port of its Service (discovery.k8s.io/v1: by name and protocol), and what becomes of
/// slices that were written by hand without one, as ingress-nginx takes them.
struct SlicePortTests {
    private static let named = "{name: http, port: 80, targetPort: 8080}"
    private static let unnamed = "{port: 80, targetPort: 8080}"
    private static let target = "{name: http, port: 80, targetPort: web}"

    private static func text(_ endpoint: Endpoint) -> String {
        guard case .ip(let ip) = endpoint.host else { return "a name" }
        return "\(ip):\(endpoint.port)"
    }

    @Test(arguments: [
        (named, ["[{name: http, port: 9000}]"], ["10.0.0.0:9000"]),
        // One for another port is none for this, and nothing to tell of.
        (named, ["[{name: http, port: 9000}]", "[{name: metrics, port: 9100}]"], ["10.0.0.0:9000"]),
        (target, ["[{name: http, port: 9000}]", "[{name: old, port: 1}]"], ["10.0.0.0:9000"]),
        (named, ["[{name: http, port: 53, protocol: UDP}, {name: http, port: 9000}]"], ["10.0.0.0:9000"]),
        // All ports.
        (named, ["[{name: http}]"], ["10.0.0.0:8080"]), (unnamed, ["[{}]"], ["10.0.0.0:8080"]),
        // Written by hand.
        (unnamed, ["[{name: http, port: 9000}]"], ["10.0.0.0:9000"]), (named, ["[{port: 9000}]"], ["10.0.0.0:8080"]),
        (named, ["[]"], ["10.0.0.0:8080"]), (unnamed, ["null"], ["10.0.0.0:8080"]),
        // Nothing of this protocol, or nothing that is known.
        (named, ["[{name: http, port: 53, protocol: UDP}]"], []), (target, ["[{name: other, port: 9000}]"], []),
        (named, ["[{name: http, port: 99999}]"], []),
    ])
    func portsOfSlices(_ port: String, _ slices: [String], _ expected: [String]) {
        var text =
            ingress() + """
                ---
                apiVersion: v1
                kind: Service
                metadata: {name: web, namespace: shop}
                spec: {ports: [\(port)]}

                """
        for (index, ports) in slices.enumerated() {
            text += """
                ---
                apiVersion: discovery.k8s.io/v1
                kind: EndpointSlice
                metadata: {name: web-\(index), namespace: shop, labels: {kubernetes.io/service-name: web}}
                addressType: IPv4
                ports: \(ports)
                endpoints: [{addresses: [10.0.0.\(index)]}]

                """
        }
        let translation = Translator.translate(objects(text))
        #expect(translation.snapshot.upstreams.flatMap { $0.endpoints.map { Self.text($0) } } == expected)
        let codes = translation.diagnostics.map(\.name).sorted()
        #expect(codes == (expected.isEmpty ? ["bad-endpoint", "no-endpoints"] : []), "\(translation.diagnostics)")
    }
}
