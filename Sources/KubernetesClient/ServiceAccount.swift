// A pod's own way to the API server.

import FoundationEssentials

extension ClusterAccess {
    package static let serviceAccountFolder = "/var/run/secrets/kubernetes.io/serviceaccount"

    /// From the environment and the folder that the kubelet gives each pod.
    package static func inCluster(
        environment: [String: String], folder: String = serviceAccountFolder
    ) throws(AccessError) -> ClusterAccess {
        guard let host = environment["KUBERNETES_SERVICE_HOST"], !host.isEmpty,
            let port = environment["KUBERNETES_SERVICE_PORT"], let number = UInt16(port)
        else {
            throw AccessError(
                "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: this is no pod",
                mend: "give --kubeconfig FILE outside a cluster, or --manifests DIR to run without one")
        }
        let token = folder + "/token"
        guard FileManager.default.isReadableFile(atPath: token) else {
            throw AccessError(
                "\(token) can't be read: the pod has no service account token",
                mend: "set serviceAccountName and leave automountServiceAccountToken on")
        }
        let namespace = try? String(contentsOfFile: folder + "/namespace", encoding: .utf8)
        return ClusterAccess(
            server: host.contains(":") ? "https://[\(host)]:\(number)" : "https://\(host):\(number)",
            namespace: namespace.map { $0.filter { !$0.isWhitespace } },
            certificateAuthority: .file(folder + "/ca.crt"),
            credential: .tokenFile(token))
    }
}
