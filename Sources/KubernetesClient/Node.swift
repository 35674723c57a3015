// core/v1 Node and Pod, as little of them as the addresses in a status and our own zone need.

package import KubernetesAPI

package struct Node: APIResource {
    package static let apiVersion = "v1"
    package static let kind = "Node"
    package static let plural = "nodes"
    package static let isNamespaced = false

    /// The well-known label that says in which zone a node is.
    package static let zoneLabel = "topology.kubernetes.io/zone"

    package var metadata: ObjectMeta
    package var status: NodeStatus?

    package init(metadata: ObjectMeta, status: NodeStatus? = nil) {
        self.metadata = metadata
        self.status = status
    }

    /// What the world reaches it by: its external addresses, or its internal ones where it has no other.
    package var reachableAddresses: [String] {
        let all = status?.addresses ?? []
        let external = all.filter { $0.type == "ExternalIP" }.map(\.address)
        return external.isEmpty ? all.filter { $0.type == "InternalIP" }.map(\.address) : external
    }
}

package struct NodeStatus: Codable, Sendable, Equatable {
    package var addresses: [NodeAddress]?

    package init(addresses: [NodeAddress]?) { self.addresses = addresses }
}

package struct NodeAddress: Codable, Sendable, Equatable {
    package var type: String
    package var address: String

    package init(type: String, address: String) {
        self.type = type
        self.address = address
    }
}

package struct Pod: APIResource {
    package static let apiVersion = "v1"
    package static let kind = "Pod"
    package static let plural = "pods"

    package var metadata: ObjectMeta
    package var spec: PodSpec?
    package var status: PodStatus?

    package init(metadata: ObjectMeta, spec: PodSpec? = nil, status: PodStatus? = nil) {
        self.metadata = metadata
        self.spec = spec
        self.status = status
    }
}

package struct PodSpec: Codable, Sendable, Equatable {
    package var nodeName: String?
    package init(nodeName: String?) { self.nodeName = nodeName }
}

package struct PodStatus: Codable, Sendable, Equatable {
    package var phase: String?
    package var hostIP: String?

    package init(phase: String?, hostIP: String?) {
        self.phase = phase
        self.hostIP = hostIP
    }
}
