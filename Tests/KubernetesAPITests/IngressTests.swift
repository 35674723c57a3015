import KubernetesAPI
import Testing

struct IngressTests {
    private func decode(_ text: String) throws -> Ingress {
        try #require(try YAMLReader.read(text)).decode(Ingress.self)
    }

    @Test func readsAWholeIngress() throws {
        let ingress = try decode(
            """
            metadata: {name: web, namespace: shop}
            spec:
              ingressClassName: moongate
              defaultBackend: {service: {name: d, port: {name: http}}}
              tls: [{hosts: [a.test], secretName: s}, {}]
              rules:
              - host: a.test
                http:
                  paths:
                  - {path: /a, pathType: Exact, backend: {service: {name: w, port: {number: 80}}}}
                  - {pathType: Prefix, backend: {resource: {apiGroup: x, kind: Bucket, name: b}}}
              - host: b.test
            status: {loadBalancer: {ingress: [{ip: 1.2.3.4}, {hostname: h}]}}
            """)
        #expect(ingress.spec.ingressClassName == "moongate")
        #expect(ingress.spec.defaultBackend?.service?.port.name == "http")
        #expect(ingress.spec.tls.map(\.secretName) == ["s", nil])
        #expect(ingress.spec.rules[0].http?.paths[0].pathType == .exact)
        #expect(ingress.spec.rules[0].http?.paths[0].backend.service?.port.number == 80)
        #expect(ingress.spec.rules[0].http?.paths[1].backend.resource?.kind == "Bucket")
        #expect(ingress.spec.rules[1].http == nil)
        #expect(ingress.status.loadBalancer.ingress == [.init(ip: "1.2.3.4"), .init(hostname: "h")])
    }

    @Test func emptyIsAllowed() throws {
        let ingress = try decode("metadata: {name: a}")
        #expect(ingress.spec.rules.isEmpty && ingress.spec.defaultBackend == nil)
    }

    @Test(arguments: [
        ("spec: {rules: [{http: {paths: [{pathType: Regex, backend: {}}]}}]}", "spec.rules[0].http.paths[0].pathType"),
        ("spec: {rules: {host: a}}", "spec.rules"),
        ("spec: {defaultBackend: {service: {port: {number: 80}}}}", "spec.defaultBackend.service.name"),
        (
            "spec: {defaultBackend: {service: {name: a, port: {number: \"80\"}}}}",
            "spec.defaultBackend.service.port.number"
        ),
        ("metadata: {annotations: {a: true}}", "metadata.annotations.a"),
    ])
    func refusesWrongTypes(text: String, path: String) {
        #expect {
            try decode(text)
        } throws: { error in (error as? FieldFault)?.path.description == path }
    }

    @Test func classesSayWhoseTheyAre() throws {
        let text = """
            metadata: {name: m, annotations: {ingressclass.kubernetes.io/is-default-class: "true"}}
            spec: {controller: moongate.dev/ingress-controller}
            """
        let ingressClass = try #require(try YAMLReader.read(text)).decode(IngressClass.self)
        #expect(ingressClass.isDefault)
        #expect(ingressClass.spec.controller == "moongate.dev/ingress-controller")
    }
}
