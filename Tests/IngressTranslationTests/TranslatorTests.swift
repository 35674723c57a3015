import IngressTranslation
import KubernetesAPI
import Model
import Testing

struct TranslatorTests {
    @Test func theOrderOfObjectsDoesNotMatter() {
        var parts = (0..<20).map { index in
            ingress("i\(index)", host: "h\(index % 5).test", path: "/\(index % 7)", service: "s\(index % 3)")
        }
        parts += (0..<3).map { service("s\($0)", address: "10.0.0.\($0 + 1)") }
        let first = Translator.translate(objects(parts.joined()))
        #expect(first.snapshot.hosts.count == 5)
        for shift in 1..<5 {
            let turned = parts[shift...] + parts[..<shift]
            let again = Translator.translate(objects(turned.reversed().joined()))
            // Lines differ, and nothing else.
            #expect(again.snapshot == first.snapshot)
            #expect(again.statuses == first.statuses)
            #expect(again.diagnostics.map(\.problem).sorted() == first.diagnostics.map(\.problem).sorted())
        }
    }

    @Test func ageDecides() {
        let old = ingress("z", service: "old", created: "2026-01-01T00:00:00Z")
        let new = ingress("a", service: "new", created: "2026-01-02T00:00:00Z")
        let none = ingress("0", service: "none")
        for text in [old + new + none, none + new + old] {
            let translation = Translator.translate(objects(text + service("old") + service("new") + service("none")))
            let snapshot = translation.snapshot
            #expect(snapshot.hosts.count == 1 && snapshot.routes.count == 1)
            #expect(snapshot.routes.first?.ingress.name == "z")
            let losers = translation.diagnostics.filter { $0.code == "MG124" }
            #expect(losers.compactMap(\.place.object?.name).sorted() == ["0", "a"])
        }
    }

    @Test func statusesAreOfOursOnly() {
        let text =
            ingress("a") + ingress("b").replacing("ingressClassName: moongate", with: "ingressClassName: nginx")
            + service("web")
        var options = TranslationOptions()
        options.statusAddresses = [.init(ip: "1.2.3.4")]
        let translation = Translator.translate(objects(text), options: options)
        #expect(translation.statuses.map(\.ingress.name) == ["a"])
        #expect(translation.statuses.first?.status.loadBalancer.ingress == [.init(ip: "1.2.3.4")])
    }

    @Test func tenThousandIngressesAreQuick() {
        // Not a benchmark (that is release mode's): a quadratic step would make minutes of this.
        var set = ObjectSet()
        for index in 0..<4_000 {
            let meta = ObjectMeta(name: "i\(index)", namespace: "n\(index % 100)")
            var spec = IngressSpec()
            spec.ingressClassName = "moongate"
            let backend = IngressBackend(
                service: IngressServiceBackend(name: "s\(index / 100)", port: ServiceBackendPort(number: 80)))
            spec.rules = [
                IngressRule(
                    host: "h\(index).test",
                    http: HTTPIngressRuleValue(paths: [
                        HTTPIngressPath(path: "/", pathType: .prefix, backend: backend),
                        HTTPIngressPath(path: "/a", pathType: .exact, backend: backend),
                    ]))
            ]
            set.insert(.ingress(Ingress(metadata: meta, spec: spec)))
            var service = ServiceSpec()
            service.ports = [ServicePort(port: 80, targetPort: .int(8080))]
            let serviceMeta = ObjectMeta(name: "s\(index / 100)", namespace: "n\(index % 100)")
            set.insert(.service(Service(metadata: serviceMeta, spec: service)))
            var sliceMeta = serviceMeta
            sliceMeta.labels[EndpointSlice.serviceLabel] = serviceMeta.name
            let endpoints = (0..<2).map { SliceEndpoint(addresses: ["10.\(index / 256).\(index % 256).\($0)"]) }
            set.insert(
                .endpointSlice(
                    EndpointSlice(metadata: sliceMeta, endpoints: endpoints, ports: [SlicePort(port: 8080)])))
        }
        let clock = ContinuousClock()
        let start = clock.now
        let translation = Translator.translate(set)
        #expect(clock.now - start < .seconds(30))
        #expect(translation.snapshot.hosts.count == 4_000)
        #expect(translation.snapshot.routes.count == 8_000)
        #expect(translation.snapshot.upstreams.count == 4_000)
        #expect(translation.diagnostics.isEmpty)
    }
}
