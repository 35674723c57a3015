// What the Ingress API promises of every controller: default backends, host rules, path rules, classes, load balancing and
// the status, as behaviour of the real program.

import ClusterTesting
import Foundation
import KubernetesAPI
import KubernetesClient
import MoongateTesting
import Testing

@Suite(.timeLimit(.minutes(10))) struct ConformanceTests {
    /// Services of these names, each with a pod that answers with its name.
    private func open(_ stage: Stage, _ services: [String]) async throws {
        try await stage.cluster.apply(moongateClass())
        for name in services {
            let pod = try await stage.pod(name)
            try await stage.cluster.apply(service(name))
            try await stage.publish(name, ready: [pod])
        }
    }

    private func rule(_ host: String?, _ paths: [(String, PathType, String)]) -> IngressRule {
        IngressRule(
            host: host,
            http: HTTPIngressRuleValue(
                paths: paths.map { HTTPIngressPath(path: $0.0, pathType: $0.1, backend: backend($0.2)) }))
    }

    /// What a request is answered: the name of the Service, or the status.
    private func answer(_ replica: Replica, _ host: String, _ path: String) async throws -> String {
        let answer = try await replica.get(path, host: host)
        return answer.status == 200 ? answer.body : String(answer.status)
    }

    private func expect(
        _ replica: Replica, _ table: [(host: String, path: String, answer: String)],
        _ location: SourceLocation = #_sourceLocation
    ) async throws {
        for line in table {
            #expect(
                try await answer(replica, line.host, line.path) == line.answer, "\(line.host)\(line.path)",
                sourceLocation: location)
        }
    }

    @Test func `an Ingress without rules sends everything to its default backend`() async throws {
        try await Stage.play { stage in
            try await open(stage, ["echo"])
            var whole = ingress("whole")
            whole.spec.rules = []
            whole.spec.defaultBackend = backend("echo")
            try await stage.cluster.apply(whole)
            let replica = try await stage.replica()
            try await replica.waitUntilReady()
            try await expect(
                replica,
                [
                    ("some-host.test", "/", "echo"), ("some-host.test", "/sub", "echo"), ("other.test", "/a/b", "echo"),
                    ("10.0.0.1", "/", "echo"),
                ])
            let address = replica.http
            for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
                let status = try await blocking {
                    Result { try Client.ask(address, "/resource", host: "some-host.test", method: method) }
                }.get().status
                #expect(status == 200, "\(method)")
            }
        }
    }

    @Test func `a rule's host is matched whole, and a star stands for one label`() async throws {
        try await Stage.play { stage in
            try await open(stage, ["exact", "star"])
            var hosts = ingress("hosts")
            hosts.spec.rules = [
                rule("foo.bar.test", [("/", .prefix, "exact")]), rule("*.foo.test", [("/", .prefix, "star")]),
            ]
            try await stage.cluster.apply(hosts)
            let replica = try await stage.replica()
            try await replica.waitUntilReady()
            try await expect(
                replica,
                [
                    ("foo.bar.test", "/", "exact"), ("FOO.bar.test:8080", "/x", "exact"), ("bar.test", "/", "404"),
                    ("x.foo.bar.test", "/", "404"), ("foo.bar.test.evil.test", "/", "404"),
                    ("bar.foo.test", "/", "star"), ("baz.bar.foo.test", "/", "404"), ("foo.test", "/", "404"),
                    (".foo.test", "/", "400"),
                ])
        }
    }

    @Test func `paths are matched exactly, or by elements, the longest first`() async throws {
        try await Stage.play { stage in
            try await open(stage, ["root", "exact", "one", "two"])
            var paths = ingress("paths")
            paths.spec.rules = [
                rule("exact.test", [("/foo", .exact, "exact"), ("/bar/", .exact, "one")]),
                rule(
                    "prefix.test", [("/foo", .prefix, "one"), ("/aaa/bb", .prefix, "two"), ("/end/", .prefix, "root")]),
                rule(
                    "longest.test",
                    [("/", .prefix, "root"), ("/aaa", .prefix, "one"), ("/aaa/bbb", .prefix, "two")]),
                rule("both.test", [("/foo", .prefix, "one"), ("/foo", .exact, "exact")]),
            ]
            try await stage.cluster.apply(paths)
            let replica = try await stage.replica()
            try await replica.waitUntilReady()
            try await expect(
                replica,
                [
                    ("exact.test", "/foo", "exact"), ("exact.test", "/foo?a=1", "exact"),
                    ("exact.test", "/foo/", "404"),
                    ("exact.test", "/FOO", "404"), ("exact.test", "/foobar", "404"), ("exact.test", "/bar/", "one"),
                    ("exact.test", "/bar", "404"),
                    ("prefix.test", "/foo", "one"), ("prefix.test", "/foo/", "one"), ("prefix.test", "/foo/bar", "one"),
                    ("prefix.test", "/foobar", "404"), ("prefix.test", "/FOO", "404"), ("prefix.test", "/", "404"),
                    ("prefix.test", "/aaa/bb", "two"), ("prefix.test", "/aaa/bb/cc", "two"),
                    ("prefix.test", "/aaa/bbb", "404"), ("prefix.test", "/aaa", "404"),
                    ("prefix.test", "/end", "root"), ("prefix.test", "/end/x", "root"),
                    ("longest.test", "/aaa/bbb", "two"), ("longest.test", "/aaa/bbb/c", "two"),
                    ("longest.test", "/aaa/ccc", "one"), ("longest.test", "/ccc", "root"),
                    ("both.test", "/foo", "exact"), ("both.test", "/foo/", "one"),
                ])
        }
    }

    @Test func `another class is not served, and its status not touched`() async throws {
        try await Stage.play { stage in
            try await open(stage, ["web"])
            try await stage.cluster.apply(ingress("ours"))
            try await stage.cluster.apply(ingress("theirs", host: "theirs.test", className: "no-such-class"))
            let replica = try await stage.replica("moongate", ["--publish-status-address", "203.0.113.1"])
            try await replica.waitUntilReady()
            try await stage.cluster.wait(for: "the status") { cluster in
                try await cluster.get(Ingress.self, namespace: "shop", name: "ours")?.status.loadBalancer.ingress.first?
                    .ip == "203.0.113.1"
            }
            try await expect(replica, [("shop.test", "/", "web"), ("theirs.test", "/", "404")])
            let theirs = try await stage.cluster.get(Ingress.self, namespace: "shop", name: "theirs")
            #expect(theirs?.status.loadBalancer.ingress.isEmpty == true)
        }
    }

    @Test func `all endpoints have their share`() async throws {
        try await Stage.play { stage in
            try await stage.cluster.apply(moongateClass())
            let pods = try await stage.pods("web", 10, subnet: 3)
            try await stage.cluster.apply(service("web"))
            try await stage.publish("web", ready: pods)
            try await stage.cluster.apply(ingress("web"))
            let replica = try await stage.replica()
            try await replica.waitUntilReady()
            let load = Load(on: replica.http, connections: 4)
            try await load.pass(1_000)
            let figures = await load.stop()
            #expect(figures.failures.isEmpty, "\(figures.failures.prefix(5))")
            let served = pods.map(\.served)
            let share = figures.answered / 10
            #expect(served.allSatisfy { $0 > share / 2 && $0 < share * 2 }, "\(served) of \(figures.answered)")
        }
    }

    @Test func `headless Services, slices in parts, and Services without selector are all served`() async throws {
        try await Stage.play { stage in
            try await open(stage, ["web"])
            let (left, right) = (try await stage.pod("left"), try await stage.pod("right"))
            var headless = service("headless")
            headless.spec.clusterIP = "None"
            try await stage.cluster.apply(headless)
            // Two ports are two slices.
            try await stage.publish("headless", ready: [left, right])
            try await stage.cluster.apply(ingress("headless", service: "headless"))
            let replica = try await stage.replica()
            try await replica.waitUntilReady()
            let load = Load(on: replica.http, connections: 2)
            try await load.pass(50)
            let figures = await load.stop()
            #expect(figures.failures.isEmpty, "\(figures.failures.prefix(5))")
            #expect(figures.bodies.keys.sorted() == ["left", "right"])
        }
    }
}
