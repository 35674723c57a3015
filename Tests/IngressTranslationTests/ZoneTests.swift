import IngressTranslation
import KubernetesAPI
import Model
import Testing

/// Topology-aware routing: endpoints that say for which zones they are.
struct ZoneTests {
    private func endpoints(_ hints: [[String]], in zone: String?, terminating: Bool = false) throws -> [String] {
        var objects = ObjectSet()
        var service = Service(metadata: ObjectMeta(name: "web", namespace: "shop"))
        service.spec.ports = [ServicePort(port: 80)]
        objects.services[service.metadata.objectName] = service
        var ingress = Ingress(metadata: ObjectMeta(name: "web", namespace: "shop"))
        ingress.spec.ingressClassName = "moongate"
        ingress.spec.defaultBackend = IngressBackend(
            service: IngressServiceBackend(name: "web", port: ServiceBackendPort(number: 80)))
        objects.ingresses[ingress.metadata.objectName] = ingress
        let items = hints.enumerated().map { index, zones in
            let named = zones.map { #"{"name": "\#($0)"}"# }.joined(separator: ",")
            let conditions = terminating ? #"{"ready": false, "serving": true, "terminating": true}"# : "{}"
            return
                #"{"addresses": ["10.0.0.\#(index + 1)"], "conditions": \#(conditions), "hints": {"forZones": [\#(named)]}}"#
        }
        let text = """
            {"metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": [\(items.joined(separator: ","))]}
            """
        let slice = try JSONReader.read(text).decode(EndpointSlice.self)
        objects.put(slice)
        var options = TranslationOptions()
        options.zone = zone
        let upstream = try #require(Translator.translate(objects, options: options).snapshot.upstreams.first)
        return upstream.endpoints.map { endpoint in
            if case .ip(let ip) = endpoint.host { "\(ip)" } else { "" }
        }
    }

    @Test func `endpoints for our zone go alone`() throws {
        #expect(try endpoints([["a"], ["b"], ["a", "b"]], in: "a") == ["10.0.0.1", "10.0.0.3"])
    }

    @Test func `without a zone of our own all are used`() throws {
        #expect(try endpoints([["a"], ["b"]], in: nil).count == 2)
    }

    @Test func `one endpoint without a hint makes hints void`() throws {
        #expect(try endpoints([["a"], []], in: "a").count == 2)
    }

    @Test func `a zone that no endpoint is meant for is served by all`() throws {
        #expect(try endpoints([["a"], ["b"]], in: "c").count == 2)
    }

    @Test func `the rule holds for those that are on their way out as well`() throws {
        #expect(try endpoints([["a"], ["b"]], in: "b", terminating: true) == ["10.0.0.2"])
    }
}
