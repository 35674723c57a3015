// networking.k8s.io/v1: Ingress and IngressClass.

package struct Ingress: KubernetesObject {
    package static let apiVersion = "networking.k8s.io/v1"
    package static let kind = "Ingress"

    package var metadata: ObjectMeta
    package var spec: IngressSpec
    package var status: IngressStatus

    private enum CodingKeys: String, CodingKey { case metadata, spec, status }

    package init(metadata: ObjectMeta, spec: IngressSpec = IngressSpec(), status: IngressStatus = IngressStatus()) {
        self.metadata = metadata
        self.spec = spec
        self.status = status
    }

    package init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        metadata = try fields.value(.metadata, or: ObjectMeta())
        spec = try fields.value(.spec, or: IngressSpec())
        status = try fields.value(.status, or: IngressStatus())
    }
}

package struct IngressSpec: Codable, Sendable, Equatable {
    package var ingressClassName: String?
    package var defaultBackend: IngressBackend?
    package var tls: [IngressTLS] = []
    package var rules: [IngressRule] = []

    package init() {}

    package init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        ingressClassName = try fields.value(.ingressClassName)
        defaultBackend = try fields.value(.defaultBackend)
        tls = try fields.value(.tls, or: [])
        rules = try fields.value(.rules, or: [])
    }
}

package struct IngressTLS: Codable, Sendable, Equatable {
    package var hosts: [String] = []
    package var secretName: String?

    package init(hosts: [String], secretName: String?) {
        self.hosts = hosts
        self.secretName = secretName
    }

    package init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        hosts = try fields.value(.hosts, or: [])
        secretName = try fields.value(.secretName)
    }
}

package struct IngressRule: Codable, Sendable, Equatable {
    package var host: String?
    package var http: HTTPIngressRuleValue?

    package init(host: String?, http: HTTPIngressRuleValue?) {
        self.host = host
        self.http = http
    }
}

package struct HTTPIngressRuleValue: Codable, Sendable, Equatable {
    package var paths: [HTTPIngressPath]

    package init(paths: [HTTPIngressPath]) { self.paths = paths }

    package init(from decoder: any Decoder) throws {
        paths = try decoder.container(keyedBy: CodingKeys.self).value(.paths, or: [])
    }
}

package enum PathType: String, Codable, Sendable, CaseIterable {
    case exact = "Exact"
    case prefix = "Prefix"
    case implementationSpecific = "ImplementationSpecific"

    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let text = try container.decode(String.self)
        guard let known = PathType(rawValue: text) else {
            throw DecodingError.dataCorruptedError(
                in: container, debugDescription: "\"\(text)\" is none of Exact, Prefix, ImplementationSpecific")
        }
        self = known
    }
}

package struct HTTPIngressPath: Codable, Sendable, Equatable {
    /// Missing means `/`.
    package var path: String?
    /// The API requires it; a manifest that leaves it out is read as ImplementationSpecific.
    package var pathType: PathType?
    package var backend: IngressBackend

    package init(path: String?, pathType: PathType?, backend: IngressBackend) {
        self.path = path
        self.pathType = pathType
        self.backend = backend
    }
}

package struct IngressBackend: Codable, Sendable, Equatable {
    package var service: IngressServiceBackend?
    package var resource: TypedLocalObjectReference?

    package init(service: IngressServiceBackend? = nil, resource: TypedLocalObjectReference? = nil) {
        self.service = service
        self.resource = resource
    }
}

package struct IngressServiceBackend: Codable, Sendable, Equatable {
    package var name: String
    package var port: ServiceBackendPort

    package init(name: String, port: ServiceBackendPort) {
        self.name = name
        self.port = port
    }

    package init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        name = try fields.decode(String.self, forKey: .name)
        port = try fields.value(.port, or: ServiceBackendPort())
    }
}

package struct ServiceBackendPort: Codable, Sendable, Equatable {
    package var name: String?
    package var number: Int?

    package init(name: String? = nil, number: Int? = nil) {
        self.name = name
        self.number = number
    }
}

package struct TypedLocalObjectReference: Codable, Sendable, Equatable {
    package var apiGroup: String?
    package var kind: String
    package var name: String
}

package struct IngressStatus: Codable, Sendable, Equatable {
    package var loadBalancer: LoadBalancerStatus

    package init(loadBalancer: LoadBalancerStatus = LoadBalancerStatus()) { self.loadBalancer = loadBalancer }

    package init(from decoder: any Decoder) throws {
        loadBalancer = try decoder.container(keyedBy: CodingKeys.self).value(.loadBalancer, or: LoadBalancerStatus())
    }
}

/// Shared by Ingress and Service, whose types the API keeps apart by name only.
package struct LoadBalancerStatus: Codable, Sendable, Equatable {
    package var ingress: [LoadBalancerIngress]

    package init(ingress: [LoadBalancerIngress] = []) { self.ingress = ingress }

    package init(from decoder: any Decoder) throws {
        ingress = try decoder.container(keyedBy: CodingKeys.self).value(.ingress, or: [])
    }
}

package struct LoadBalancerIngress: Codable, Sendable, Hashable {
    package var ip: String?
    package var hostname: String?

    package init(ip: String? = nil, hostname: String? = nil) {
        self.ip = ip
        self.hostname = hostname
    }
}

package struct IngressClass: KubernetesObject {
    package static let apiVersion = "networking.k8s.io/v1"
    package static let kind = "IngressClass"
    package static let defaultAnnotation = "ingressclass.kubernetes.io/is-default-class"

    package var metadata: ObjectMeta
    package var spec: IngressClassSpec

    private enum CodingKeys: String, CodingKey { case metadata, spec }

    package init(metadata: ObjectMeta, spec: IngressClassSpec) {
        self.metadata = metadata
        self.spec = spec
    }

    package init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        metadata = try fields.value(.metadata, or: ObjectMeta())
        spec = try fields.value(.spec, or: IngressClassSpec(controller: ""))
    }

    package var isDefault: Bool { metadata.annotations[Self.defaultAnnotation] == "true" }
}

package struct IngressClassSpec: Codable, Sendable, Equatable {
    package var controller: String

    package init(controller: String) { self.controller = controller }

    package init(from decoder: any Decoder) throws {
        controller = try decoder.container(keyedBy: CodingKeys.self).value(.controller, or: "")
    }
}
