// The image and the manifests, tried without a container engine and without a cluster.

import ClusterTesting
import Foundation
import KubernetesAPI
import KubernetesClient
import MoongateTesting
import Testing

/// Runs a program to its end.
private func run(_ stage: Stage, _ arguments: [String]) async throws -> (exit: ChildProcess.Exit?, lines: [String]) {
    let process = try ChildProcess(
        name: URL(fileURLWithPath: arguments.first ?? "").lastPathComponent, arguments: arguments,
        environment: ["PATH": ProcessInfo.processInfo.environment["PATH"] ?? "", "HOME": stage.folder],
        transcript: stage.transcript)
    let output = process.output
    let exit = await blocking { output.wait(by: Deadline(after: .seconds(60))) { $0.open == 0 ? $0.exit : nil } }
    return (exit, output.read { $0.lines })
}

@Suite(.timeLimit(.minutes(10)), .faults) struct ImageTests {
    @Test func `the program serves from a root file system that is read-only, and not as root`() async throws {
        try await Stage.play { stage in
            try await stage.openShop()
            let rootfs = DeployTests.folder + "/image/rootfs"
            let root = stage.folder + "/root"
            #expect(try await run(stage, [rootfs, "build", root, Stage.binary]).exit == .code(0))
            let kubeconfig = try String(contentsOfFile: try stage.kubeconfig(), encoding: .utf8)
            _ = try stage.write("root/tmp/kubeconfig", kubeconfig)
            let replica = try await stage.replica(program: [rootfs, "run", root], kubeconfig: "/tmp/kubeconfig")
            try await replica.waitUntilReady()
            #expect(try await replica.get().body == "v1")
            func file(_ name: String) throws -> [Substring] {
                try String(contentsOfFile: "/proc/\(replica.process.identifier)/\(name)", encoding: .utf8)
                    .split(separator: "\n")
            }
            // Where the tests are not run as root, the user is our own.
            let user = try file("status").first { $0.hasPrefix("Uid:") }?.split(separator: "\t").dropFirst().first
            #expect(user == (getuid() == 0 ? "65532" : Substring(String(getuid()))))
            let mount = try file("mountinfo").first { $0.split(separator: " ").dropFirst(4).first == "/" }
            #expect(mount?.split(separator: " ").dropFirst(5).first?.split(separator: ",").contains("ro") == true)
        }
    }

    private static let kubectl = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
        .map { "\($0)/kubectl" }.first { FileManager.default.isExecutableFile(atPath: $0) }

    /// What kubectl makes of an overlay; what the API server for tests knows of it is applied there.
    @Test(
        .enabled(if: kubectl != nil, "kubectl is not installed"),
        arguments: ["loadbalancer", "nodeport", "hostnetwork", "namespaced", "webhook"])
    func `kubectl builds the overlay, and its objects fit together`(overlay: String) async throws {
        let kubectl = try #require(Self.kubectl)
        try await Stage.play { stage in
            let (exit, lines) = try await run(
                stage, [kubectl, "kustomize", DeployTests.folder + "/overlays/\(overlay)"])
            try #require(exit == .code(0))
            let server = try stage.server
            var pods: [JSONValue] = []
            var selectors: [JSONValue] = []
            var accounts: Set<String> = []
            var kinds: Set<String> = []
            for document in YAMLReader.split(lines.joined(separator: "\n")) {
                guard let value = try YAMLReader.read(document.text) else { continue }
                let object = JSONValue(value)
                let kind = object["kind"]?.string ?? ""
                kinds.insert(kind)
                let namespace = object[path: ["metadata", "namespace"]]?.string
                func apply<Object: APIResource>(_ type: Object.Type) throws {
                    try server.apply(try JSONDecoder().decode(type, from: Data(object.text.utf8)))
                }
                switch kind {
                case "Deployment", "DaemonSet":
                    pods.append(object[path: ["spec", "template"]] ?? .null)
                    selectors.append(object[path: ["spec", "selector", "matchLabels"]] ?? .null)
                case "Service":
                    try apply(Service.self)
                    selectors.append(object[path: ["spec", "selector"]] ?? .null)
                case "PodDisruptionBudget":
                    selectors.append(object[path: ["spec", "selector", "matchLabels"]] ?? .null)
                case "ServiceAccount": accounts.insert(object[path: ["metadata", "name"]]?.string ?? "")
                case "IngressClass": try apply(IngressClass.self)
                case "ValidatingWebhookConfiguration": try apply(ValidatingWebhookConfiguration.self)
                case _: break
                }
                let clusterScoped = [
                    "Namespace", "ClusterRole", "ClusterRoleBinding", "IngressClass", "ValidatingWebhookConfiguration",
                ]
                #expect((namespace == nil) == clusterScoped.contains(kind), "\(kind) in \(namespace ?? "no namespace")")
            }
            #expect(kinds.isSuperset(of: ["Namespace", "ServiceAccount", "IngressClass"]))
            let pod = try #require(pods.first)
            #expect(pods.count == 1)
            for selector in selectors {
                let labels = pod[path: ["metadata", "labels"]]?.fields ?? [:]
                #expect(selector.fields.allSatisfy { labels[$0.key] == $0.value }, "\(selector.text)")
            }
            #expect(accounts.contains(pod[path: ["spec", "serviceAccountName"]]?.string ?? ""))
            let container = try #require(pod[path: ["spec", "containers"]]?.items.first)
            let security = container["securityContext"]
            #expect(security?["readOnlyRootFilesystem"] == .bool(true))
            #expect(security?["allowPrivilegeEscalation"] == .bool(false))
            #expect(pod[path: ["spec", "securityContext", "runAsNonRoot"]] == .bool(true))
            #expect(pod[path: ["spec", "securityContext", "seccompProfile", "type"]]?.string == "RuntimeDefault")
            let ports = Set((container["ports"]?.items ?? []).compactMap { $0["name"]?.string })
            for probe in ["livenessProbe", "readinessProbe"] {
                let port = container[path: [probe, "httpGet", "port"]]
                #expect(port?.string.map(ports.contains) ?? (port?.integer != nil), "\(probe): \(port?.text ?? "none")")
            }
        }
    }
}
