import ClusterTesting
import KubernetesAPI
import KubernetesClient
import Testing

/// What a listener heard, and what it would hold.
private struct Heard: Sendable {
    var held: [String: String] = [:]
    var lists = 0
    var troubles: [APIError.Code] = []
    var healthy = 0
    var unreadable: [String] = []
    /// The fewest objects that were held after the first list.
    var fewest = Int.max

    mutating func take(_ news: ReflectorNews<ConfigMap>) {
        switch news {
        case .listed(let objects, let unreadable):
            lists += 1
            held = Dictionary(objects.map { ($0.metadata.name, $0.data["a"] ?? "") }, uniquingKeysWith: { $1 })
            self.unreadable = unreadable.map(\.name.name)
        case .changed(let object): held[object.metadata.name] = object.data["a"] ?? ""
        case .removed(let name): held[name.name] = nil
        case .unreadable(let object): unreadable.append(object.name.name)
        case .healthy: healthy += 1
        case .trouble(let error): troubles.append(error.code)
        }
        if lists > 0 { fewest = min(fewest, held.count) }
    }
}

@Suite(.timeLimit(.minutes(10))) struct ReflectorTests {
    private func follow(
        _ clock: ManualClock = ManualClock(jumping: true), scope: WatchScope = WatchScope(), pageSize: Int = 2,
        _ body: (APIServer, Watched<Heard>, ManualClock) async throws -> Void
    ) async throws {
        try await withServer(clock: clock) { server, client in
            for index in 0..<3 { try server.apply(configMap("c\(index)", ["a": "0"])) }
            let heard = Watched(Heard())
            let reflector = Reflector<ConfigMap>(
                client: client, scope: scope, clock: clock, log: quiet, pageSize: pageSize,
                listener: { news in heard.update { $0.take(news) } })
            try await beside({ await reflector.run() }) {
                try await server.watchCount.wait { $0 == 1 }
                try await body(server, heard, clock)
            }
        }
    }

    @Test func listsThenFollows() async throws {
        try await follow { server, heard, _ in
            #expect(heard.value.held == ["c0": "0", "c1": "0", "c2": "0"])
            try server.apply(configMap("c0", ["a": "1"]))
            try server.apply(configMap("new", ["a": "2"]))
            try server.delete(ConfigMap.self, namespace: "shop", name: "c2")
            try await heard.wait { $0.held == ["c0": "1", "c1": "0", "new": "2"] }
            #expect(heard.value.lists == 1)
            #expect(heard.value.troubles.isEmpty)
            // Two pages, one watch.
            #expect(server.requests.value.map(\.verb) == ["list", "list", "watch"])
        }
    }

    @Test func aWatchThatEndsGoesOnFromItsVersion() async throws {
        let clock = ManualClock()
        try await follow(clock) { server, heard, clock in
            try server.apply(configMap("c0", ["a": "1"]))
            try await heard.wait { $0.held["c0"] == "1" }
            server.endWatches()
            try await server.watchCount.wait { $0 == 1 }
            try server.apply(configMap("c0", ["a": "2"]))
            try await heard.wait { $0.held["c0"] == "2" }
            #expect(heard.value.lists == 1)
            #expect(clock.sleeps.isEmpty)
        }
    }

    /// The history before a bookmark may be forgotten: nothing has to be listed again.
    @Test func aBookmarkMovesTheVersion() async throws {
        try await follow { server, heard, _ in
            for _ in 0..<5 {
                try server.apply(IngressClass(metadata: ObjectMeta(name: "x"), spec: .init(controller: "a/b")))
            }
            try server.delete(IngressClass.self, namespace: "", name: "x")
            server.compact()
            server.sendBookmarks()
            try server.apply(configMap("c0", ["a": "1"]))
            try await heard.wait { $0.held["c0"] == "1" }
            server.breakWatches()
            try await server.watchCount.wait { $0 == 1 }
            try server.apply(configMap("c0", ["a": "2"]))
            try await heard.wait { $0.held["c0"] == "2" }
            #expect(heard.value.lists == 1)
        }
    }

    @Test func halfAnEventIsNoEvent() async throws {
        try await follow { server, heard, _ in
            server.cutWatchesAtNextEvent()
            try server.apply(configMap("c0", ["a": "1"]))
            // It comes again, whole, from the version before it.
            try await heard.wait { $0.held["c0"] == "1" }
            #expect(heard.value.troubles == [.unreachable])
            #expect(heard.value.lists == 1)
            #expect(heard.value.unreadable.isEmpty)
        }
    }

    @Test(arguments: [true, false]) func anExpiredVersionIsListedAgainAndNothingIsEmptied(asEvent: Bool) async throws {
        try await follow { server, heard, _ in
            try server.apply(configMap("c0", ["a": "1"]))
            try await heard.wait { $0.held["c0"] == "1" }
            // Gone while nobody watched, and the history of it forgotten.
            server.inject(.init(.status(503), verb: "watch", times: 1))
            server.breakWatches()
            try server.delete(ConfigMap.self, namespace: "shop", name: "c1")
            if !asEvent { server.inject(.init(.status(410), verb: "watch", times: 1)) }
            server.compact()
            try await heard.wait { $0.lists == 2 }
            #expect(heard.value.held == ["c0": "1", "c2": "0"])
            #expect(heard.value.fewest == 2)
        }
    }

    @Test func aStormOfExpiredVersions() async throws {
        let clock = ManualClock(jumping: true)
        try await follow(clock) { server, heard, clock in
            server.inject(.init(.expireWatch, verb: "watch", times: 10))
            server.expireWatches()
            try await heard.wait { $0.lists == 12 }
            try await server.watchCount.wait { $0 == 1 }
            #expect(heard.value.fewest == 3)
            // It slows down: no loop of lists without a pause.
            let sleeps = clock.sleeps
            #expect(sleeps.count >= 11)
            #expect(sleeps.last ?? .zero > .seconds(10))
        }
    }

    @Test func whatTheServerAskedForIsWaited() async throws {
        let clock = ManualClock(jumping: true)
        try await follow(clock) { server, heard, clock in
            server.inject(.init(.status(429, retryAfter: 17), verb: "watch"))
            server.breakWatches()
            try await heard.wait { $0.troubles.contains(.tooManyRequests) }
            try await server.watchCount.wait { $0 == 1 }
            #expect(clock.sleeps.contains { $0 >= .seconds(17) && $0 < .seconds(18) })
            #expect(heard.value.lists == 1)
        }
    }

    @Test func aServerThatIsDownTakesNothingAway() async throws {
        let clock = ManualClock(jumping: true)
        try await follow(clock) { server, heard, clock in
            try await server.goDown()
            try await heard.wait { $0.troubles.count >= 20 }
            #expect(heard.value.held.count == 3)
            #expect(heard.value.lists == 1)
            // Half a minute between attempts, at the most.
            #expect(clock.sleeps.allSatisfy { $0 <= .seconds(30) })
            try server.apply(configMap("c0", ["a": "1"]))
            let before = heard.value.healthy
            server.comeBack()
            try await heard.wait { $0.held["c0"] == "1" && $0.healthy > before }
            #expect(heard.value.lists == 1)
        }
    }

    @Test func aListThatBreaksOffIsNotHandedOver() async throws {
        let clock = ManualClock(jumping: true)
        try await withServer(clock: clock) { server, client in
            for index in 0..<5 { try server.apply(configMap("c\(index)", ["a": "0"])) }
            let heard = Watched(Heard())
            let reflector = Reflector<ConfigMap>(
                client: client, scope: WatchScope(), clock: clock, log: quiet, pageSize: 2,
                listener: { news in heard.update { $0.take(news) } })
            // The first page comes, the second fails, and again.
            server.inject(.init(.status(500), verb: "list", skip: 1))
            server.inject(.init(.status(500), verb: "list", skip: 1))
            try await beside({ await reflector.run() }) {
                try await heard.wait { $0.lists == 1 }
                #expect(heard.value.held.count == 5)
                #expect(heard.value.troubles == [.server, .server])
                #expect(server.requests.value.filter { $0.verb == "list" }.count == 7)
            }
        }
    }

    @Test func aForbiddenKindIsAskedForNowAndThen() async throws {
        let clock = ManualClock()
        try await withServer(clock: clock) { server, client in
            server.deny { $0.resource == "configmaps" }
            try server.apply(configMap("a"))
            let heard = Watched(Heard())
            let reflector = Reflector<ConfigMap>(
                client: client, scope: WatchScope(), clock: clock, log: quiet,
                listener: { news in heard.update { $0.take(news) } })
            try await beside({ await reflector.run() }) {
                try await heard.wait { $0.troubles == [.forbidden] }
                try await clock.sleeping.wait { $0.now == 1 }
                clock.advance(by: .seconds(29))
                #expect(server.requests.value.count == 1)
                server.deny { _ in false }
                clock.advance(by: .seconds(2))
                try await heard.wait { $0.held == ["a": "1"] }
            }
        }
    }

    @Test func anUnreadableObjectIsNamedAndTheRestGoesOn() async throws {
        try await follow { server, heard, _ in
            server.force(
                [
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": ["name": "c1", "namespace": "shop"],
                    "data": ["a": 7],
                ],
                plural: "configmaps")
            try server.apply(configMap("c2", ["a": "1"]))
            try await heard.wait { $0.held["c2"] == "1" }
            #expect(heard.value.unreadable == ["c1"])
            #expect(heard.value.held["c1"] == "0")
            #expect(heard.value.lists == 1)
        }
    }

    /// What no API server should send: the watch gets past it, and nothing is lost.
    @Test(arguments: [
        #"{"type":"SURPRISE","object":{"metadata":{"name":"c1","namespace":"shop"}}}"#, "{", "[]", "null", "{}", "7",
        #"{"type":"ADDED"}"#, #"{"type":"ADDED","object":null}"#, #"{"type":"ADDED","object":[1]}"#,
        #"{"type":"MODIFIED","object":{"metadata":"x"}}"#, #"{"type":"BOOKMARK","object":{}}"#,
        #"{"type":["ADDED"],"object":{}}"#, #"{"type":"ERROR","object":"no"}"#, "\u{0}\u{ff}",
        "\"" + String(repeating: "x", count: 17 << 20), String(repeating: "[", count: 100_000),
    ])
    func aLineThatIsNoEventIsGotPast(line: String) async throws {
        try await follow { server, heard, _ in
            server.sendLine(line)
            try await heard.wait { $0.lists == 2 }
            try await server.watchCount.wait { $0 == 1 }
            try server.apply(configMap("c0", ["a": "1"]))
            try await heard.wait { $0.held == ["c0": "1", "c1": "0", "c2": "0"] }
            #expect(heard.value.fewest == 3)
        }
    }

    @Test func oneObjectByItsName() async throws {
        try await follow(scope: WatchScope(namespace: "shop", name: "c1")) { server, heard, _ in
            try server.apply(configMap("c0", ["a": "1"]))
            try server.apply(configMap("c1", ["a": "1"]))
            try await heard.wait { $0.held == ["c1": "1"] }
            #expect(server.requests.value.allSatisfy { $0.name == "c1" && $0.namespace == "shop" })
        }
    }
}
