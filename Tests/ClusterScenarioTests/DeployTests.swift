// examples/deploy is held to its word: the roles allow all that the program does, and nothing that it never does.

import ClusterTesting
import Foundation
import KubernetesAPI
import KubernetesClient
import MoongateTesting
import Synchronization
import Testing

/// What a manifest's roles allow.
struct Roles: Sendable {
    struct Rule: Sendable, Hashable, CustomStringConvertible {
        var namespace: String?
        var groups: [String]
        var resources: [String]
        var verbs: [String]
        var names: [String]

        var description: String {
            "\(verbs) \(resources) of \(groups) in \(namespace ?? "the cluster")\(names.isEmpty ? "" : " named \(names)")"
        }

        func allows(_ request: APIServer.Attributes) -> Bool {
            let resource = request.resource + (request.subresource.map { "/\($0)" } ?? "")
            return groups.contains(request.group) && resources.contains(resource) && verbs.contains(request.verb)
                && (namespace == nil || namespace == request.namespace)
                && (names.isEmpty || request.name.map(names.contains) ?? false)
        }
    }

    var rules: [Rule] = []

    init(files: [String]) throws {
        for file in files {
            let text = try String(contentsOfFile: DeployTests.folder + "/" + file, encoding: .utf8)
            for document in YAMLReader.split(text) {
                guard let value = try YAMLReader.read(document.text) else { continue }
                let object = JSONValue(value)
                guard ["Role", "ClusterRole"].contains(object["kind"]?.string) else { continue }
                for rule in object["rules"]?.items ?? [] {
                    func texts(_ key: String) -> [String] { (rule[key]?.items ?? []).compactMap(\.string) }
                    rules.append(
                        Rule(
                            namespace: object[path: ["metadata", "namespace"]]?.string, groups: texts("apiGroups"),
                            resources: texts("resources"), verbs: texts("verbs"), names: texts("resourceNames")))
                }
            }
        }
    }

    func allows(_ request: APIServer.Attributes) -> Bool { rules.contains { $0.allows(request) } }
}

@Suite(.timeLimit(.minutes(10)), .faults) struct DeployTests {
    static let folder =
        URL(fileURLWithPath: #filePath).resolvingSymlinksInPath().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().path + "/examples/deploy"

    /// The arguments of the first container of a Deployment or DaemonSet.
    private func arguments(_ file: String) throws -> [String] {
        let text = try String(contentsOfFile: Self.folder + "/" + file, encoding: .utf8)
        let object = JSONValue(try #require(try YAMLReader.read(text)))
        let container = object[path: ["spec", "template", "spec", "containers"]]?.items.first
        return (container?["args"]?.items ?? []).compactMap(\.string)
    }

    /// What a component adds to them.
    private func added(by component: String) throws -> [String] {
        let text = try String(
            contentsOfFile: Self.folder + "/components/\(component)/kustomization.yaml", encoding: .utf8)
        let object = JSONValue(try #require(try YAMLReader.read(text)))
        return try (object["patches"]?.items ?? []).flatMap { patch -> [String] in
            guard let text = patch["patch"]?.string, let steps = try YAMLReader.read(text) else { return [] }
            return JSONValue(steps).items.filter { $0["path"]?.string?.hasSuffix("/args/-") == true }
                .compactMap { $0["value"]?.string }
        }
    }

    /// Applies the ConfigMaps of the component for ports.
    private func applyPorts(_ server: APIServer) throws {
        let text = try String(contentsOfFile: Self.folder + "/components/ports/services.yaml", encoding: .utf8)
        for document in YAMLReader.split(text) {
            let map = JSONValue(try #require(try YAMLReader.read(document.text)))
            let name = try #require(map[path: ["metadata", "name"]]?.string)
            try server.apply(ConfigMap(metadata: ObjectMeta(name: name, namespace: "moongate"), data: [:]))
        }
    }

    /// Plays the manifest: its flags, and a server that allows what its roles allow.
    private func play(
        _ roles: Roles, _ flags: [String], until isMet: @escaping @Sendable (APIServer) -> Bool,
        _ prepare: @escaping (APIServer) throws -> Void = { _ in }
    ) async throws {
        try await Stage.play { stage in
            let server = try stage.server
            try await stage.openShop()
            try server.addNamespace("moongate")
            var front = service("moongate", namespace: "moongate")
            front.spec.type = "LoadBalancer"
            try server.apply(front)
            try server.setStatus(
                Service.self, namespace: "moongate", name: "moongate",
                ["loadBalancer": ["ingress": [["ip": "203.0.113.9"]]]])
            // One of each kind that is followed only by its name, and something to complain about.
            try server.apply(
                ConfigMap(metadata: ObjectMeta(name: "none", namespace: "shop"), data: ["main.lua": "return {}"]))
            var scripted = ingress("scripted", host: "scripted.test", annotations: ["moongate.dev/script": "none"])
            scripted.spec.tls = [IngressTLS(hosts: ["scripted.test"], secretName: "cert")]
            try server.apply(scripted)
            try server.apply(ingress("broken", host: "broken.test", service: "missing"))
            try prepare(server)
            let refused = Mutex<[APIServer.Attributes]>([])
            server.deny { request in
                guard !roles.allows(request) else { return false }
                refused.withLock { $0.append(request) }
                return true
            }
            // Addresses and the drain are the test's own; everything else is the manifest's.
            let own = ["--http", "--admin", "--drain", "run"]
            let replica = try await stage.replica(
                "moongate-0", flags.filter { flag in !own.contains { flag.hasPrefix($0) } },
                environment: ["POD_NAMESPACE": "moongate", "NODE_NAME": "n1"])
            try await replica.waitUntilReady()
            try await server.writes.wait { _ in
                let tickets = try? server.get(Secret.self, namespace: "moongate", name: "moongate-tickets")
                return isMet(server) && tickets != nil
            }
            // A list is followed by its watch, also where nothing comes of it.
            for resource in ["secrets", "configmaps"] {
                try await server.requests.wait { asked in
                    asked.contains { $0.verb == "watch" && $0.resource == resource }
                }
            }
            replica.process.send(signal: SIGTERM)
            #expect(await replica.waitForExit() == .code(0))
            let asked = server.requests.value
            // What a Role can't grant is asked for all the same, and can be missed.
            let missing = refused.withLock { $0 }.filter { request in
                !["ingressclasses", "nodes"].contains(request.resource)
                    || roles.rules.contains { $0.resources.contains(request.resource) }
            }
            #expect(missing.isEmpty, "the roles lack: \(Set(missing).map(\.description).sorted())")
            for rule in roles.rules {
                for verb in rule.verbs {
                    for resource in rule.resources {
                        let one = Roles.Rule(
                            namespace: rule.namespace, groups: rule.groups, resources: [resource], verbs: [verb],
                            names: rule.names)
                        // A series of an Event begins after half an hour.
                        if resource == "events", verb == "patch" { continue }
                        // Only where an entry of the ports is wrong, or comes late.
                        if resource == "events", rule.namespace == "moongate" { continue }
                        // The keys of session tickets change after four hours.
                        if resource == "secrets", verb == "update" { continue }
                        #expect(asked.contains { one.allows($0) }, "never needed: \(one)")
                    }
                }
            }
        }
    }

    @Test func `the roles of the load balancer's overlay are enough, and no more than that`() async throws {
        try await play(
            try Roles(files: ["base/rbac.yaml"]), try arguments("deployment/deployment.yaml"),
            until: { server in
                let shown = try? server.get(Ingress.self, namespace: "shop", name: "web")
                let events = (try? server.all(Event.self)) ?? []
                return shown?.status.loadBalancer.ingress.first?.ip == "203.0.113.9"
                    && events.contains { $0.regarding?.name == "broken" }
            })
    }

    @Test func `the roles of the host network's overlay are enough, and no more than that`() async throws {
        try await play(
            try Roles(files: ["base/rbac.yaml", "overlays/hostnetwork/nodes-role.yaml"]),
            try arguments("overlays/hostnetwork/daemonset.yaml"),
            until: { server in
                let shown = try? server.get(Ingress.self, namespace: "shop", name: "web")
                let events = (try? server.all(Event.self)) ?? []
                return shown?.status.loadBalancer.ingress.first?.ip == "203.0.113.1"
                    && events.contains { $0.regarding?.name == "broken" }
            },
            { server in
                try server.apply(
                    Node(
                        metadata: ObjectMeta(name: "n1"),
                        status: NodeStatus(addresses: [NodeAddress(type: "ExternalIP", address: "203.0.113.1")])))
                var metadata = ObjectMeta(name: "moongate-0", namespace: "moongate")
                metadata.labels = ["app.kubernetes.io/name": "moongate"]
                try server.apply(
                    Pod(
                        metadata: metadata, spec: PodSpec(nodeName: "n1"),
                        status: PodStatus(phase: "Running", hostIP: "10.0.0.1")))
            })
    }

    /// Alone, and with ports of TCP and UDP, whose ConfigMaps stand in no watched namespace.
    @Test(arguments: [false, true])
    func `the Roles of the overlay for one namespace are enough, and no more than that`(hasPorts: Bool) async throws {
        var roles = try Roles(
            files: ["base/rbac.yaml", "overlays/namespaced/roles.yaml"]
                + (hasPorts ? ["components/ports/rbac.yaml"] : []))
        // The overlay takes the ClusterRole away.
        roles.rules.removeAll { $0.namespace == nil }
        let more = hasPorts ? try added(by: "ports") : []
        #expect(more.count == (hasPorts ? 2 : 0))
        try await play(
            roles, try arguments("deployment/deployment.yaml") + ["--watch-namespace=shop"] + more,
            until: { server in
                let shown = try? server.get(Ingress.self, namespace: "shop", name: "web")
                let events = (try? server.all(Event.self)) ?? []
                return shown?.status.loadBalancer.ingress.first?.ip == "203.0.113.9"
                    && events.contains { $0.regarding?.name == "broken" }
            }, { server in if hasPorts { try applyPorts(server) } })
    }
}
