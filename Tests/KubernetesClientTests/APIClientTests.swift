import ClusterTesting
import KubernetesAPI
import KubernetesClient
import Testing

@Suite(.timeLimit(.minutes(10))) struct APIClientTests {
    @Test(arguments: [1, 3, 7, 100]) func pagesAddUpToTheList(limit: Int) async throws {
        try await withServer { server, client in
            for index in 0..<7 { try server.apply(configMap("c\(index)")) }
            var names: [String] = []
            var versions: Set<String> = []
            var continuation: String?
            var pages = 0
            repeat {
                let page = try await client.page(
                    of: ConfigMap.self, in: WatchScope(), limit: limit, continuation: continuation)
                names += page.objects.map(\.metadata.name)
                versions.insert(page.resourceVersion)
                continuation = page.continuation
                pages += 1
                // All pages are of one moment: what comes meanwhile is in none of them.
                try server.apply(configMap("late\(pages)"))
            } while continuation != nil
            #expect(names == (0..<7).map { "c\($0)" })
            #expect(versions.count == 1)
            #expect(pages == (7 + limit - 1) / limit)
        }
    }

    @Test func aForgottenPageIsExpired() async throws {
        try await withServer { server, client in
            for index in 0..<3 { try server.apply(configMap("c\(index)")) }
            let page = try await client.page(of: ConfigMap.self, in: WatchScope(), limit: 1, continuation: nil)
            server.compact()
            do throws(APIError) {
                _ = try await client.page(
                    of: ConfigMap.self, in: WatchScope(), limit: 1, continuation: page.continuation)
                Issue.record("the page was given")
            } catch {
                #expect(error.code == .expired)
            }
        }
    }

    @Test func oneUnreadableItemDoesNotHideTheOthers() async throws {
        try await withServer { server, client in
            try server.apply(ingress("good"))
            server.force(
                [
                    "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
                    "metadata": ["name": "odd", "namespace": "shop"],
                    "spec": ["rules": [["http": ["paths": [["pathType": "Regex", "backend": [:]]]]]]],
                ], plural: "ingresses")
            let page = try await client.page(of: Ingress.self, in: WatchScope(), limit: 10, continuation: nil)
            #expect(page.objects.map(\.metadata.name) == ["good"])
            #expect(page.unreadable.map(\.name.name) == ["odd"])
            #expect(page.unreadable.first?.problem.contains("spec.rules[0].http.paths[0].pathType") == true)
        }
    }

    @Test(arguments: [
        #"{"kind":"PodList","metadata":{"resourceVersion":"5"},"items":[]}"#,
        #"{"metadata":{"resourceVersion":"5"},"items":[]}"#,
        #"{"kind":"IngressList","metadata":{"resourceVersion":"5"}}"#,
    ])
    func anotherListIsNoEmptyOne(body: String) async throws {
        try await withServer { server, client in
            server.inject(.init(.body(body), verb: "list"))
            do throws(APIError) {
                _ = try await client.page(of: Ingress.self, in: WatchScope(), limit: 10, continuation: nil)
                Issue.record("taken")
            } catch {
                #expect(error.code == .unreadable)
            }
            server.inject(
                .init(
                    .body(#"{"kind":"IngressList","metadata":{"resourceVersion":"5"},"items":null}"#), verb: "list"))
            let page = try await client.page(of: Ingress.self, in: WatchScope(), limit: 10, continuation: nil)
            #expect(page.objects.isEmpty)
        }
    }

    @Test(arguments: [86_400, Int.max]) func aWaitWithoutReasonIsNotFollowed(seconds: Int) async throws {
        try await withServer { server, client in
            server.inject(.init(.status(429, retryAfter: seconds)))
            do throws(APIError) {
                _ = try await client.get(ConfigMap.self, namespace: "default", name: "a")
                Issue.record("answered")
            } catch {
                #expect(error.retryAfter == .seconds(60))
            }
        }
    }

    /// A token that rotated between our reading and the server's is read again, once.
    @Test func aRefusedTokenIsReadAgain() async throws {
        try await inFolder { folder in
            try folder.write("token", "old")
            try await withServer(clock: ManualClock(), credential: .tokenFile(folder.path("token"))) { server, client in
                server.accept(tokens: ["old"])
                _ = try await client.create(configMap("a", namespace: "default"))
                server.accept(tokens: ["new"])
                try folder.write("token", "new")
                #expect(try await client.get(ConfigMap.self, namespace: "default", name: "a").data == ["a": "1"])
                #expect(server.unauthorizedCount == 1)
                server.accept(tokens: ["other"])
                do throws(APIError) {
                    _ = try await client.get(ConfigMap.self, namespace: "default", name: "a")
                    Issue.record("taken")
                } catch {
                    #expect(error.code == .unauthorized)
                }
                // Twice, and no more.
                #expect(server.unauthorizedCount == 3)
            }
        }
    }

    @Test func theServersWordIsTold() async throws {
        try await withServer { server, client in
            server.inject(.init(.status(429, retryAfter: 7)))
            do throws(APIError) {
                _ = try await client.get(ConfigMap.self, namespace: "default", name: "a")
                Issue.record("answered")
            } catch {
                #expect(error.code == .tooManyRequests)
                #expect(error.retryAfter == .seconds(7))
                #expect(error.message == "injected fault")
            }
            server.inject(.init(.reset))
            do throws(APIError) {
                _ = try await client.get(ConfigMap.self, namespace: "default", name: "a")
                Issue.record("answered")
            } catch {
                #expect(error.code == .unreachable)
            }
            try await server.goDown()
            do throws(APIError) {
                _ = try await client.get(ConfigMap.self, namespace: "default", name: "a")
                Issue.record("answered")
            } catch {
                #expect(error.code == .unreachable)
            }
        }
    }

    @Test func aMissingTokenIsNoRequest() async throws {
        try await withServer(credential: .tokenFile("/nonexistent/token")) { server, client in
            do throws(APIError) {
                _ = try await client.get(ConfigMap.self, namespace: "default", name: "a")
                Issue.record("answered")
            } catch {
                #expect(error.code == .noCredential)
            }
            #expect(server.requests.value.isEmpty)
        }
    }

    @Test(arguments: [1, 2, 7, 1_000]) func eventsInPieces(size: Int) async throws {
        try await withServer { server, client in
            let start = try server.apply(configMap("a")).metadata.resourceVersion ?? ""
            server.sendEvents(inPiecesOf: size)
            let seen = Watched([String]())
            try await beside({
                try? await client.watch(
                    ConfigMap.self, in: WatchScope(namespace: "shop"), after: start, seconds: 60
                ) { news in
                    if case .changed(let object) = news { seen.update { $0.append(object.data["a"] ?? "") } }
                }
            }) {
                try await server.watchCount.wait { $0 == 1 }
                for index in 0..<5 { try server.apply(configMap("a", ["a": "ü\n\(index)"])) }
                try await seen.wait { $0.count == 5 }
            }
            #expect(seen.value == (0..<5).map { "ü\n\($0)" })
        }
    }
}
