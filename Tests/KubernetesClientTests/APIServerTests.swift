// The API server for tests refuses what a real one refuses: else the tests that stand on it would prove too much.

import ClusterTesting
import KubernetesAPI
import KubernetesClient
import Testing

@Suite(.timeLimit(.minutes(10))) struct APIServerTests {
    private func refusal(_ method: APIRequest.Method, _ path: String, _ body: String, _ client: APIClient) async
        -> APIError?
    {
        let type = method == .patch ? "application/merge-patch+json" : "application/json"
        do throws(APIError) {
            _ = try await client.send(APIRequest(method, path, body: Array(body.utf8), contentType: type))
            return nil
        } catch {
            return error
        }
    }

    private static let rule =
        #"{"host":"a.test","http":{"paths":[{"path":"/","pathType":"Prefix","backend":{"service":{"name":"web","port":{"number":80}}}}]}}"#

    @Test(arguments: [
        (#"{"rules":[]}"#, "must be specified"),
        (#"{"rules":[\#(rule.replacing("a.test", with: "A_b"))]}"#, "rules[0].host"),
        (#"{"rules":[\#(rule.replacing("a.test", with: "10.0.0.1"))]}"#, "not an IP address"),
        (#"{"rules":[\#(rule.replacing("a.test", with: "a.*.test"))]}"#, "rules[0].host"),
        (#"{"rules":[\#(rule.replacing("\"/\"", with: "\"a\""))]}"#, "must be an absolute path"),
        (#"{"rules":[\#(rule.replacing("\"/\"", with: "\"/a/../b\""))]}"#, "must not contain '/../'"),
        (#"{"rules":[\#(rule.replacing("\"/\"", with: "\"/a%2fb\""))]}"#, "must not contain '%2f'"),
        (#"{"rules":[\#(rule.replacing("\"/\"", with: "\"/a/..\""))]}"#, "cannot end with '/..'"),
        (#"{"rules":[\#(rule.replacing("\"pathType\":\"Prefix\",", with: ""))]}"#, "pathType must be specified"),
        (#"{"rules":[\#(rule.replacing("Prefix", with: "Regex"))]}"#, "Unsupported value"),
        (#"{"rules":[\#(rule.replacing("\"number\":80", with: ""))]}"#, "port name or number is required"),
        (
            #"{"rules":[\#(rule.replacing("\"number\":80", with: "\"number\":80,\"name\":\"http\""))]}"#,
            "cannot set both"
        ),
        (#"{"rules":[\#(rule.replacing("\"number\":80", with: "\"number\":70000"))]}"#, "port.number"),
        (#"{"rules":[\#(rule.replacing("\"web\"", with: "\"1web\""))]}"#, "service.name"),
        (#"{"rules":[\#(rule)],"tls":[{"hosts":["a..b"]}]}"#, "tls[0].hosts[0]"),
        (#"{"rules":[\#(rule)],"ingressClassName":"A"}"#, "ingressClassName"),
    ])
    func badIngresses(spec: String, problem: String) async throws {
        try await withServer { _, client in
            let body =
                #"{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"name":"web"},"spec":\#(spec)}"#
            let error = await refusal(.post, Ingress.path(namespace: "default"), body, client)
            #expect(error?.code == .invalid)
            #expect(error?.message.contains(problem) == true, "\(String(describing: error))")
        }
    }

    @Test(arguments: [
        (
            "/api/v1/namespaces/default/configmaps", #"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"}}"#,
            APIError.Code.invalid
        ),
        (
            "/api/v1/namespaces/default/configmaps", #"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"A"}}"#,
            .invalid
        ),
        (
            "/api/v1/namespaces/default/configmaps",
            #"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"b"}}"#, .invalid
        ),
        (
            "/api/v1/namespaces/default/configmaps",
            #"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"a/b":"x"}}"#, .invalid
        ),
        (
            "/api/v1/namespaces/gone/configmaps", #"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#,
            .notFound
        ),
        ("/api/v1/namespaces/default/configmaps", "{", .invalid),
        (
            "/api/v1/namespaces/default/secrets",
            #"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"},"data":{"a":"?"}}"#, .invalid
        ),
        (
            "/api/v1/namespaces/default/secrets",
            #"{"apiVersion":"v1","kind":"Secret","type":"kubernetes.io/tls","metadata":{"name":"a"},"data":{"tls.crt":""}}"#,
            .invalid
        ),
        (
            "/api/v1/namespaces/default/services",
            #"{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"},"spec":{"ports":[{"port":1},{"port":2}]}}"#,
            .invalid
        ),
        (
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
            #"{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"name":"a"},"addressType":"IPv4","endpoints":[{"addresses":["::1"]}]}"#,
            .invalid
        ),
        (
            "/apis/coordination.k8s.io/v1/namespaces/default/leases",
            #"{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"a"},"spec":{"renewTime":"2026-01-01T00:00:00Z"}}"#,
            .invalid
        ),
        (
            "/apis/networking.k8s.io/v1/ingressclasses",
            #"{"apiVersion":"networking.k8s.io/v1","kind":"IngressClass","metadata":{"name":"a"},"spec":{"controller":"x"}}"#,
            .invalid
        ),
        (
            "/apis/events.k8s.io/v1/namespaces/default/events",
            #"{"apiVersion":"events.k8s.io/v1","kind":"Event","metadata":{"name":"a"},"eventTime":"2026-01-01T00:00:00.000001Z","reportingController":"a/b","reportingInstance":"c","action":"d","reason":"e","type":"Warning","regarding":{"namespace":"other"}}"#,
            .invalid
        ),
        ("/apis/apps/v1/namespaces/default/deployments", "{}", .notFound),
    ])
    func otherBadObjects(path: String, body: String, code: APIError.Code) async throws {
        try await withServer { _, client in
            #expect(await refusal(.post, path, body, client)?.code == code)
        }
    }

    @Test func writesTwoWaysAndImmutableFields() async throws {
        try await withServer { server, client in
            let made = try await client.create(configMap("a", namespace: "default"))
            #expect(made.metadata.uid != nil)
            var error = await refusal(
                .post, ConfigMap.path(namespace: "default"),
                #"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#, client)
            #expect(error?.code == .alreadyExists)
            var changed = made
            changed.data = ["a": "2"]
            let second = try await client.replace(changed)
            #expect(second.metadata.resourceVersion != made.metadata.resourceVersion)
            #expect(second.metadata.uid == made.metadata.uid)
            do throws(APIError) {
                _ = try await client.replace(changed)
                Issue.record("a stale version was taken")
            } catch {
                #expect(error.code == .conflict)
            }
            // A write that says nothing new makes no version.
            #expect(try await client.replace(second).metadata.resourceVersion == second.metadata.resourceVersion)
            try server.apply(IngressClass(metadata: ObjectMeta(name: "c"), spec: IngressClassSpec(controller: "a/b")))
            error = await refusal(
                .patch, IngressClass.path(namespace: nil, name: "c"), #"{"spec":{"controller":"c/d"}}"#, client)
            #expect(error?.message.contains("immutable") == true)
        }
    }

    @Test func statusIsAThingOfItsOwn() async throws {
        try await withServer { server, client in
            let made = try server.apply(ingress("web"))
            // A status in a write of the object is left out, and the other way round.
            _ = await refusal(
                .patch, Ingress.path(namespace: "shop", name: "web"),
                #"{"status":{"loadBalancer":{"ingress":[{"ip":"10.0.0.1"}]}}}"#, client)
            let untouched = try server.get(Ingress.self, namespace: "shop", name: "web")
            #expect(untouched?.status.loadBalancer.ingress == [])
            let patch = IngressStatusPatch(
                resourceVersion: made.metadata.resourceVersion,
                status: IngressStatus(loadBalancer: LoadBalancerStatus(ingress: [LoadBalancerIngress(ip: "10.0.0.1")])))
            let written = try await client.patch(
                Ingress.self, namespace: "shop", name: "web", subresource: "status", with: patch)
            #expect(written.status.loadBalancer.ingress == [LoadBalancerIngress(ip: "10.0.0.1")])
            #expect(written.spec == made.spec)
            #expect(written.metadata.generation == made.metadata.generation)
            do throws(APIError) {
                try await client.patch(
                    Ingress.self, namespace: "shop", name: "web", subresource: "status", with: patch)
                Issue.record("a stale version was taken")
            } catch {
                #expect(error.code == .conflict)
            }
            let bad = await refusal(
                .patch, Ingress.path(namespace: "shop", name: "web", subresource: "status"),
                #"{"status":{"loadBalancer":{"ingress":[{"ip":"nowhere"}]}}}"#, client)
            #expect(bad?.code == .invalid)
        }
    }

    @Test(arguments: [
        ("tier=front", ["a"]), ("tier==front", ["a"]), ("tier!=front", ["b", "c"]), ("tier", ["a", "b"]),
        ("!tier", ["c"]), ("tier in (front, back)", ["a", "b"]), ("tier notin (front),tier", ["b"]),
        ("", ["a", "b", "c"]),
    ])
    func labelSelectors(selector: String, names: [String]) async throws {
        try await withServer { server, client in
            try server.apply(configMap("a").labelled("tier", "front"))
            try server.apply(configMap("b").labelled("tier", "back"))
            try server.apply(configMap("c"))
            let page = try await client.page(
                of: ConfigMap.self, in: WatchScope(namespace: "shop", labelSelector: selector), limit: 10,
                continuation: nil)
            #expect(page.objects.map(\.metadata.name) == names)
        }
    }

    @Test func aFieldThatCannotBeSelectedIsRefused() async throws {
        try await withServer { _, client in
            let error = await refusal(
                .get, ConfigMap.path(namespace: "default") + "?fieldSelector=data.a%3D1", "", client)
            #expect(error?.code == .invalid)
        }
    }

    /// An object that ceases to match is deleted, as far as the watcher can tell.
    @Test func aWatchBySelectorSeesMatchesComeAndGo() async throws {
        try await withServer { server, client in
            let start = try server.apply(configMap("a")).metadata.resourceVersion ?? ""
            try server.apply(configMap("a").labelled("tier", "front"))
            try server.apply(configMap("a", ["a": "2"]).labelled("tier", "front"))
            try server.apply(configMap("a"))
            let scope = WatchScope(namespace: "shop", labelSelector: "tier=front")
            let seen = Watched([WatchNews<ConfigMap>]())
            try await beside({
                try? await client.watch(ConfigMap.self, in: scope, after: start, seconds: 60) { news in
                    seen.update { $0.append(news) }
                }
            }) {
                try await seen.wait { $0.count == 3 }
            }
            #expect(
                seen.value.map { news in
                    switch news {
                    case .changed(let object): "changed \(object.data["a"] ?? "")"
                    case .removed(let name, _): "removed \(name.name)"
                    case .unreadable, .bookmark: "other"
                    }
                } == ["changed 1", "changed 2", "removed a"])
        }
    }
}
