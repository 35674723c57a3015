// discovery.k8s.io/v1: EndpointSlice.

package struct EndpointSlice: KubernetesObject {
    package static let apiVersion = "discovery.k8s.io/v1"
    package static let kind = "EndpointSlice"
    /// The Service that a slice belongs to.
    package static let serviceLabel = "kubernetes.io/service-name"

    package var metadata: ObjectMeta
    /// `IPv4`, `IPv6` or `FQDN`.
    package var addressType: String
    package var endpoints: [SliceEndpoint]
    package var ports: [SlicePort]

    private enum CodingKeys: String, CodingKey { case metadata, addressType, endpoints, ports }

    package init(
        metadata: ObjectMeta, addressType: String = "IPv4", endpoints: [SliceEndpoint] = [], ports: [SlicePort] = []
    ) {
        self.metadata = metadata
        self.addressType = addressType
        self.endpoints = endpoints
        self.ports = ports
    }

    package init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        metadata = try fields.value(.metadata, or: ObjectMeta())
        addressType = try fields.value(.addressType, or: "IPv4")
        endpoints = try fields.value(.endpoints, or: [])
        ports = try fields.value(.ports, or: [])
    }

    /// The Service that it belongs to.
    package var service: ObjectName? {
        metadata.labels[Self.serviceLabel].map { ObjectName(namespace: metadata.namespace, name: $0) }
    }
}

package struct SliceEndpoint: Codable, Sendable, Equatable {
    /// The API allows several and says that they are interchangeable; consumers use the first.
    package var addresses: [String]
    package var conditions: EndpointConditions
    package var hostname: String?
    package var nodeName: String?
    package var zone: String?
    package var hints: EndpointHints?

    package init(addresses: [String], conditions: EndpointConditions = EndpointConditions(), zone: String? = nil) {
        self.addresses = addresses
        self.conditions = conditions
        self.zone = zone
    }

    package init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        addresses = try fields.value(.addresses, or: [])
        conditions = try fields.value(.conditions, or: EndpointConditions())
        hostname = try fields.value(.hostname)
        nodeName = try fields.value(.nodeName)
        zone = try fields.value(.zone)
        hints = try fields.value(.hints)
    }
}

/// Each may be missing. The API: a missing `ready` means unknown and is to be taken as true; a missing `serving` follows
/// `ready`; a missing `terminating` is false.
package struct EndpointConditions: Codable, Sendable, Equatable {
    package var ready: Bool?
    package var serving: Bool?
    package var terminating: Bool?

    package init(ready: Bool? = nil, serving: Bool? = nil, terminating: Bool? = nil) {
        self.ready = ready
        self.serving = serving
        self.terminating = terminating
    }

    package var isReady: Bool { ready ?? true }
    package var isServing: Bool { serving ?? isReady }
    package var isTerminating: Bool { terminating ?? false }
}

package struct EndpointHints: Codable, Sendable, Equatable {
    package var forZones: [ForZone]

    package struct ForZone: Codable, Sendable, Equatable {
        package var name: String
    }

    package init(zones: [String]) { forZones = zones.map(ForZone.init) }

    package init(from decoder: any Decoder) throws {
        forZones = try decoder.container(keyedBy: CodingKeys.self).value(.forZones, or: [])
    }
}

package struct SlicePort: Codable, Sendable, Equatable {
    package var name: String
    package var `protocol`: String
    /// Missing means all ports.
    package var port: Int?
    package var appProtocol: String?

    package init(name: String = "", port: Int?, appProtocol: String? = nil) {
        self.name = name
        self.protocol = "TCP"
        self.port = port
        self.appProtocol = appProtocol
    }

    package init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        name = try fields.value(.name, or: "")
        `protocol` = try fields.value(.protocol, or: "TCP")
        port = try fields.value(.port)
        appProtocol = try fields.value(.appProtocol)
    }
}
