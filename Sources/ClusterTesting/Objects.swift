// Objects as tests write them.

package import KubernetesAPI

/// An Ingress with one rule of one path.
package func ingress(
    _ name: String, namespace: String = "shop", host: String? = "shop.test", path: String = "/",
    pathType: PathType = .prefix, service: String = "web", className: String? = "moongate", tls: String? = nil,
    annotations: [String: String] = [:]
) -> Ingress {
    var ingress = Ingress(metadata: ObjectMeta(name: name, namespace: namespace))
    ingress.metadata.annotations = annotations
    ingress.spec.ingressClassName = className
    ingress.spec.rules = [
        IngressRule(
            host: host,
            http: HTTPIngressRuleValue(
                paths: [HTTPIngressPath(path: path, pathType: pathType, backend: backend(service))]))
    ]
    if let tls { ingress.spec.tls = [IngressTLS(hosts: [host ?? "shop.test"], secretName: tls)] }
    return ingress
}

/// Port 80 of a Service.
package func backend(_ service: String) -> IngressBackend {
    IngressBackend(service: IngressServiceBackend(name: service, port: ServiceBackendPort(number: 80)))
}

/// The class that is Moongate's unless flags say otherwise.
package func moongateClass() -> IngressClass {
    IngressClass(
        metadata: ObjectMeta(name: "moongate"), spec: IngressClassSpec(controller: "moongate.dev/ingress-controller"))
}

package func ready(_ addresses: String...) -> [SliceEndpoint] { addresses.map { SliceEndpoint(addresses: [$0]) } }

/// On its way out, and still serving.
package func leaving(_ address: String) -> SliceEndpoint {
    SliceEndpoint(
        addresses: [address], conditions: EndpointConditions(ready: false, serving: true, terminating: true))
}
