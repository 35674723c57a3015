import ClusterTesting
import Foundation
import KubernetesAPI
import KubernetesClient
import MoongateTesting
import Testing

@Suite(.timeLimit(.minutes(10))) struct ClusterScenarioTests {
    @Test(.faults) func `nothing is served before the first lists are complete`() async throws {
        try await Stage.play { stage in
            try await stage.openShop()
            try stage.server.inject(.init(.status(500), verb: "list", resource: "endpointslices", times: 1_000_000))
            let replica = try await stage.replica()
            try await replica.wait(for: "/readyz") { $0.hasPrefix("503") && $0.contains("EndpointSlice") }
            #expect(await replica.page("/healthz").hasPrefix("200"))
            #expect(await replica.page("/snapshot").hasPrefix("503"))
            try stage.server.clearFaults()
            try await replica.waitUntilReady()
            #expect(try await replica.get() == Client.Answer(status: 200, body: "v1"))
        }
    }

    @Test func `an Ingress is created, changed and deleted under load, and nobody else notices`() async throws {
        try await Stage.play { stage in
            try await stage.openShop()
            let replica = try await stage.replica()
            try await replica.waitUntilReady()
            let load = Load(on: replica.http)
            try await load.pass(50)
            for round in 0..<5 {
                try await stage.cluster.apply(ingress("api", host: "api.test", path: "/v\(round)"))
                try await replica.waitFor(200, "v1", at: "/v\(round)", host: "api.test")
                try await stage.cluster.apply(ingress("api", host: "api.test", path: "/w\(round)"))
                try await replica.waitFor(404, at: "/v\(round)", host: "api.test")
                try await replica.waitFor(200, "v1", at: "/w\(round)", host: "api.test")
                try await stage.cluster.delete(Ingress.self, namespace: "shop", name: "api")
                try await replica.waitFor(404, at: "/w\(round)", host: "api.test")
            }
            let figures = await load.stop()
            #expect(figures.failures.isEmpty, "of \(figures.answered): \(figures.failures.prefix(5))")
        }
    }

    /// Ten pods replaced one by one under load; each leaves at the moment its endpoint is marked, as on SIGTERM.
    @Test func `a rolling update of ten endpoints fails no request`() async throws {
        try await Stage.play { stage in
            try await stage.openShop()
            let old = try await stage.pods("old", 10, subnet: 1, work: 2)
            let new = try await stage.pods("new", 10, subnet: 2, work: 2)
            try await stage.publish("web", ready: old)
            let replica = try await stage.replica()
            try await replica.waitUntilReady()
            let load = Load(on: replica.http, connections: 8)
            try await load.pass(100)
            for (index, pod) in old.enumerated() {
                let rest = Array(old[(index + 1)...] + new[...index])
                try await stage.publish("web", ready: rest, leaving: [pod])
                try await load.pass(20)
                try await pod.leave()
                try await load.pass(20)
                try await stage.publish("web", ready: rest)
                try await load.pass(20)
            }
            let figures = await load.stop()
            #expect(figures.failures.isEmpty, "of \(figures.answered): \(figures.failures.prefix(5))")
            #expect(figures.bodies.keys.sorted() == ["new", "old"])
            try await replica.waitFor(200, "new")
        }
    }

    @Test func `a Service whose endpoints all terminate but serve still serves`() async throws {
        try await Stage.play { stage in
            let pod = try await stage.openShop()
            let replica = try await stage.replica()
            try await replica.waitUntilReady()
            let load = Load(on: replica.http)
            try await stage.publish("web", ready: [], leaving: [pod])
            try await load.pass(200)
            let figures = await load.stop()
            #expect(figures.failures.isEmpty, "\(figures.failures.prefix(5))")
            try await stage.publish("web", ready: [])
            try await replica.waitFor(503)
            // What is wrong is shown a moment after it is served.
            try await replica.wait(for: "/diagnostics") { $0.contains("MG132") }
        }
    }

    @Test(.faults) func `a watch that is cut in the middle of an event, and one whose version is gone, lose nothing`()
        async throws
    {
        try await Stage.play { stage in
            try await stage.openShop()
            let second = try await stage.pod("v2")
            let replica = try await stage.replica()
            try await replica.waitUntilReady()
            let load = Load(on: replica.http)
            try stage.server.cutWatchesAtNextEvent()
            try await stage.publish("web", ready: [second])
            try await replica.waitFor(200, "v2")
            // A storm: versions are forgotten while changes go on.
            for round in 0..<10 {
                try stage.server.expireWatches()
                try stage.server.compact()
                try await stage.cluster.apply(ingress("storm", host: "storm.test", path: "/\(round)"))
                try stage.server.cutWatchesAtNextEvent()
                try await stage.cluster.apply(service("other\(round)"))
            }
            try await replica.waitFor(200, "v2", at: "/9", host: "storm.test")
            let figures = await load.stop()
            #expect(figures.failures.isEmpty, "\(figures.failures.prefix(5))")
        }
    }

    @Test func `a script's ConfigMap that comes after its Ingress is live at once, and its edits too`() async throws {
        try await Stage.play { stage in
            try await stage.openShop()
            // Only by name: what no Ingress refers to is none of our business.
            stage.deny { ["secrets", "configmaps"].contains($0.resource) && $0.name == nil }
            try await stage.cluster.apply(ingress("web", annotations: ["moongate.dev/script": "hello"]))
            let replica = try await stage.replica()
            try await replica.waitUntilReady()
            try await replica.waitFor(503)
            #expect(await replica.page("/diagnostics").contains("MG151"))
            func script(_ body: String) -> ConfigMap {
                ConfigMap(
                    metadata: ObjectMeta(name: "hello", namespace: "shop"),
                    data: [
                        "main.lua":
                            "return { access = function() return moongate.respond(200, {}, '\(body)') end }"
                    ])
            }
            try await stage.cluster.apply(script("one"))
            try await replica.waitFor(200, "one")
            try await stage.cluster.apply(script("two"))
            try await replica.waitFor(200, "two")
            // Broken, then gone: the last good version stays.
            var broken = script("three")
            broken.data["main.lua"] = "return {"
            try await stage.cluster.apply(broken)
            try await replica.wait(for: "/diagnostics") { $0.contains("hello") }
            #expect(try await replica.get().body == "two")
            try await stage.cluster.delete(ConfigMap.self, namespace: "shop", name: "hello")
            try await replica.wait(for: "/diagnostics") { $0.contains("MG151") }
            #expect(try await replica.get().body == "two")
        }
    }

    @Test func `a script that fails is an Event on its Ingress, and so is its breaker`() async throws {
        try await Stage.play { stage in
            try await stage.openShop()
            try await stage.cluster.apply(
                ConfigMap(
                    metadata: ObjectMeta(name: "fails", namespace: "shop"),
                    data: ["main.lua": "return { route = function() error('out of luck') end }"]))
            try await stage.cluster.apply(ingress("web", annotations: ["moongate.dev/script": "fails"]))
            let replica = try await stage.replica()
            try await replica.waitUntilReady()
            let load = Load(on: replica.http)
            for reason in ["ScriptFailed", "ScriptBreakerOpen"] {
                try await stage.cluster.wait(for: "the Event \(reason)") { cluster in
                    try await cluster.all(Event.self).contains {
                        $0.reason == reason && $0.regarding?.name == "web" && $0.note?.contains("fails") == true
                    }
                }
            }
            let figures = await load.stop()
            #expect(figures.failures.isEmpty, "it fails open: \(figures.failures.prefix(5))")
        }
    }

    @Test func `a Secret that comes after its Ingress is noticed`() async throws {
        try await Stage.play { stage in
            try await stage.openShop()
            var web = ingress("web")
            web.spec.tls = [IngressTLS(hosts: ["shop.test"], secretName: "cert")]
            try await stage.cluster.apply(web)
            let replica = try await stage.replica()
            try await replica.waitUntilReady()
            try await replica.wait(for: "/diagnostics") { $0.contains("MG160") }
            var secret = Secret(metadata: ObjectMeta(name: "cert", namespace: "shop"), type: "kubernetes.io/tls")
            secret.data = ["tls.crt": Base64(Array("crt".utf8)), "tls.key": Base64(Array("key".utf8))]
            try await stage.cluster.apply(secret)
            try await replica.wait(for: "/diagnostics") { !$0.contains("MG160") }
            // What it holds is shown nowhere.
            #expect(await !replica.page("/snapshot").contains(Base64(Array("key".utf8)).text))
        }
    }

    @Test(.faults) func `an API server that is down takes nothing out of service`() async throws {
        try await Stage.play { stage in
            try await stage.openShop()
            let second = try await stage.pod("v2")
            let replica = try await stage.replica()
            try await replica.waitUntilReady()
            let load = Load(on: replica.http)
            try await stage.server.goDown()
            try await replica.wait(for: "/metrics") { $0.contains("\nmoongate_api_server_up 0\n") }
            try await replica.waitForLog("The API server does not answer")
            #expect(await replica.page("/readyz").hasPrefix("200"))
            try await load.pass(100)
            // It catches up afterwards.
            try await stage.publish("web", ready: [second])
            try stage.server.compact()
            try stage.server.comeBack()
            try await replica.waitFor(200, "v2")
            try await replica.wait(for: "/metrics") { $0.contains("\nmoongate_api_server_up 1\n") }
            let figures = await load.stop()
            #expect(figures.failures.isEmpty, "\(figures.failures.prefix(5))")
        }
    }

    @Test(.faults) func `a permission that is missing for one kind is said, and the rest works`() async throws {
        try await Stage.play { stage in
            try await stage.openShop()
            stage.deny { $0.resource == "ingressclasses" }
            let replica = try await stage.replica()
            try await replica.waitUntilReady()
            #expect(try await replica.get().body == "v1")
            try await replica.waitForLog("The role does not let us list and watch this kind")
            try await replica.wait(for: "/diagnostics") { $0.contains("MG181") && $0.contains("IngressClass") }
            #expect(await replica.metric("moongate_forbidden_sources") == 1)
        }
    }

    @Test(.faults) func `a Role is enough for watched namespaces`() async throws {
        try await Stage.play { stage in
            try await stage.openShop()
            stage.deny { $0.namespace != "shop" && $0.resource != "leases" && $0.resource != "events" }
            let replica = try await stage.replica("moongate", ["--watch-namespace", "shop"])
            try await replica.waitUntilReady()
            #expect(try await replica.get().body == "v1")
            // As it should be, so not an error.
            #expect(await !replica.page("/diagnostics?severity=warning").contains("MG181"))
        }
    }

    @Test(.faults) func `a token that rotates is read anew`() async throws {
        try await Stage.play { stage in
            try await stage.openShop()
            let token = try stage.write("token", "first")
            try stage.server.accept(tokens: ["first"])
            let replica = try await stage.replica(
                kubeconfig: try stage.kubeconfig(user: "{tokenFile: \"\(token)\"}"))
            try await replica.waitUntilReady()
            _ = try stage.write("token", "second")
            try stage.server.accept(tokens: ["second"])
            try stage.server.breakWatches()
            try await stage.cluster.apply(ingress("late", host: "late.test"))
            try await replica.waitFor(200, "v1", host: "late.test")
        }
    }

    @Test(.faults) func `a credential plugin is asked who we are`() async throws {
        try await Stage.play { stage in
            try await stage.openShop()
            let answer = try stage.write(
                "credential.json",
                #"{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "told"}}"#
            )
            try stage.server.accept(tokens: ["told"])
            let replica = try await stage.replica(
                kubeconfig: try stage.kubeconfig(
                    user: "{exec: {apiVersion: client.authentication.k8s.io/v1, command: cat, args: [\"\(answer)\"], "
                        + "interactiveMode: Never}}"))
            try await replica.waitUntilReady()
            #expect(try await replica.get().body == "v1")
        }
    }

    @Test func `the older of two tenants keeps a host`() async throws {
        try await Stage.play { stage in
            try await stage.openShop()
            try await stage.cluster.apply(service("web", namespace: "thief"))
            try await stage.cluster.apply(ingress("steal", namespace: "thief", path: "/pay"))
            let replica = try await stage.replica("moongate", ["--exclusive-hosts"])
            try await replica.waitUntilReady()
            #expect(try await replica.get("/pay").body == "v1")
            try await replica.wait(for: "/diagnostics") { $0.contains("MG126") && $0.contains("thief") }
            // And the thief hears of it.
            try await stage.cluster.wait(for: "the Event HostTaken") { cluster in
                try await cluster.all(Event.self).contains {
                    $0.reason == "HostTaken" && $0.regarding?.namespace == "thief"
                }
            }
        }
    }

    @Test func `an ExternalName that points at the proxy itself is refused`() async throws {
        try await Stage.play { stage in
            try await stage.openShop()
            var loop = Service(metadata: ObjectMeta(name: "loop", namespace: "shop"))
            loop.spec.type = "ExternalName"
            loop.spec.externalName = "localhost"
            try await stage.cluster.apply(loop)
            try await stage.cluster.apply(ingress("loop", host: "loop.test", service: "loop"))
            let replica = try await stage.replica()
            try await replica.waitUntilReady()
            #expect(try await replica.get(host: "loop.test").status == 503)
            #expect(await replica.page("/diagnostics").contains("MG135"))
        }
    }

    @Test func `the leader writes statuses, and hands over when it goes`() async throws {
        try await Stage.play { stage in
            try await stage.openShop()
            func shows(_ name: String, _ addresses: [String]) async throws {
                try await stage.cluster.wait(for: "the status of \(name)") { cluster in
                    let ingress = try await cluster.get(Ingress.self, namespace: "shop", name: name)
                    return ingress?.status.loadBalancer.ingress.compactMap(\.ip) == addresses
                }
            }
            func holder() async throws -> String? {
                try await stage.cluster.get(Lease.self, namespace: "edge", name: "moongate-leader")?.spec.holderIdentity
            }
            let options = ["--publish-status-address", "203.0.113.1"]
            let first = try await stage.replica("first", options)
            try await first.waitUntilReady()
            try await shows("web", ["203.0.113.1"])
            #expect(try await holder() == "first")
            let second = try await stage.replica("second", options)
            try await second.waitUntilReady()
            #expect(await second.metric("moongate_leader") == 0)
            first.process.send(signal: SIGTERM)
            #expect(await first.waitForExit() == .code(0))
            try await stage.cluster.wait(for: "the Lease") { _ in try await holder() == "second" }
            try await stage.cluster.apply(ingress("late", host: "late.test"))
            try await shows("late", ["203.0.113.1"])
            // No longer ours: what we wrote is taken away.
            try await stage.cluster.apply(ingress("web", className: "other"))
            try await shows("web", [])
        }
    }

    @Test func `a leader that is killed is followed by another`() async throws {
        try await Stage.play { stage in
            try await stage.openShop()
            let options = ["--publish-status-address", "203.0.113.1", "--lease-duration", "2s"]
            let first = try await stage.replica("first", options)
            try await first.waitUntilReady()
            try await stage.cluster.wait(for: "the Lease") { cluster in
                try await cluster.get(Lease.self, namespace: "edge", name: "moongate-leader")?.spec.holderIdentity
                    == "first"
            }
            let second = try await stage.replica("second", options)
            try await second.waitUntilReady()
            first.process.send(signal: SIGKILL)
            _ = await first.waitForExit()
            try await stage.cluster.apply(ingress("late", host: "late.test"))
            try await stage.cluster.wait(for: "the status of late") { cluster in
                let ingress = try await cluster.get(Ingress.self, namespace: "shop", name: "late")
                return ingress?.status.loadBalancer.ingress.first?.ip == "203.0.113.1"
            }
            try await second.wait(for: "/metrics") { $0.contains("\nmoongate_leader 1\n") }
        }
    }

    @Test(.faults) func `a signal before anything is served ends the program`() async throws {
        try await Stage.play { stage in
            try stage.server.inject(.init(.status(500), verb: "list", times: 1_000_000))
            let replica = try await stage.replica()
            replica.process.send(signal: SIGTERM)
            #expect(await replica.waitForExit() == .code(0))
        }
    }

    @Test func `a kubeconfig that leads nowhere is refused with a mend`() async throws {
        try await Stage.play { stage in
            let process = try ChildProcess(
                name: "moongate", arguments: [Stage.binary, "run", "--kubeconfig", stage.folder + "/none"],
                environment: [:], transcript: stage.transcript)
            let output = process.output
            let exit = await blocking {
                output.wait(by: Deadline(after: .seconds(30))) { $0.open == 0 ? $0.exit : nil }
            }
            #expect(exit == .code(1))
            #expect(output.read { $0.errorLines.joined() }.contains("can't be read"))
        }
    }
}
