// Where pods that use their node's network are reached: the addresses of those nodes.

import KubernetesAPI
import KubernetesClient
import Logging

struct NodeAddresses: Sendable {
    private let client: APIClient
    private let pod: ObjectName
    private let log: Logger
    /// Set by the controllers that make pods; siblings of another revision have other values.
    private static let revisionLabels: Set<String> = [
        "pod-template-hash", "controller-revision-hash", "pod-template-generation",
        "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index",
    ]

    init(client: APIClient, pod: ObjectName, log: Logger) {
        self.client = client
        self.pod = pod
        self.log = log
    }

    /// In order, each once.
    func read() async throws(APIError) -> [LoadBalancerIngress] {
        let own = try await client.get(Pod.self, namespace: pod.namespace, name: pod.name)
        let labels = own.metadata.labels.filter { !Self.revisionLabels.contains($0.key) }
        guard !labels.isEmpty else {
            throw APIError(.invalid, "the pod \(pod) has no labels by which its siblings could be found")
        }
        let selector = labels.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: ",")
        let scope = WatchScope(namespace: pod.namespace, labelSelector: selector)
        var addresses: Set<String> = []
        var continuation: String?
        repeat {
            let page = try await client.page(of: Pod.self, in: scope, limit: 500, continuation: continuation)
            for pod in page.objects where pod.status?.phase == "Running" && pod.metadata.deletionTimestamp == nil {
                addresses.formUnion(try await self.addresses(of: pod))
            }
            continuation = page.continuation
        } while continuation != nil
        return addresses.sorted().map { text in
            let isIP = text.contains(":") || text.utf8.allSatisfy { $0 == UInt8(ascii: ".") || (48...57).contains($0) }
            return StatusSource.address(text, isIP: isIP)
        }
    }

    private func addresses(of pod: Pod) async throws(APIError) -> [String] {
        let hostIP = pod.status?.hostIP.map { [$0] } ?? []
        guard let name = pod.spec?.nodeName, !name.isEmpty else { return hostIP }
        do {
            let node = try await client.get(Node.self, namespace: nil, name: name)
            return node.reachableAddresses.isEmpty ? hostIP : node.reachableAddresses
        } catch {
            switch error.code {
            // A Role in place of a ClusterRole can't read nodes; the pod itself says where it runs.
            case .forbidden, .notFound: return hostIP
            default: throw error
            }
        }
    }
}
