import Model
import Synchronization
import Testing

@testable import moongate

struct NameResolverTests {
    /// A name server whose answers the test sets.
    private final class Names: Sendable {
        let answers = Mutex<[String: [IPAddress]]>([:])

        func set(_ name: String, _ texts: [String]) {
            answers.withLock { $0[name] = texts.compactMap { IPAddress($0) } }
        }
        var lookUp: NameResolver.LookUp { { name in self.answers.withLock { $0[name] ?? [] } } }
    }

    private func snapshot(_ name: String) -> Snapshot {
        var snapshot = Snapshot()
        snapshot.upstreams = [
            Upstream(namespace: "shop", service: "out", port: "80", endpoints: [Endpoint(host: .name(name), port: 80)])
        ]
        return snapshot
    }

    @Test func `a name has its addresses, in order`() async {
        let names = Names()
        names.set("api.test", ["10.0.0.2", "10.0.0.1"])
        let resolver = NameResolver(patience: .seconds(60), lookUp: names.lookUp)
        let result = await resolver.resolve(snapshot("api.test"))
        #expect(result.diagnostics.isEmpty)
        #expect(result.addresses == ["api.test": ["10.0.0.1", "10.0.0.2"].compactMap { IPAddress($0) }])
    }

    @Test func `a name without an address is told, and served once it has one`() async {
        let names = Names()
        let resolver = NameResolver(patience: .seconds(60), lookUp: names.lookUp)
        let first = await resolver.resolve(snapshot("api.test"))
        #expect(first.addresses.isEmpty)
        #expect(first.diagnostics.map(\.code) == ["MG190"])
        names.set("api.test", ["10.0.0.1"])
        #expect(await resolver.refresh())
        #expect(await resolver.resolve(snapshot("api.test")).addresses.count == 1)
    }

    @Test func `a name server that fails takes nothing out of service`() async {
        let names = Names()
        names.set("api.test", ["10.0.0.1"])
        let resolver = NameResolver(patience: .seconds(60), lookUp: names.lookUp)
        _ = await resolver.resolve(snapshot("api.test"))
        names.set("api.test", [])
        #expect(await !resolver.refresh())
        #expect(await resolver.resolve(snapshot("api.test")).addresses.count == 1)
    }

    /// A tenant of a cluster may name any host, and its name server may answer anything.
    @Test func `a name that leads to the proxy itself leads nowhere`() async {
        let names = Names()
        names.set("api.test", ["127.0.0.1", "::1", "0.0.0.0", "::", "::ffff:127.9.9.9"])
        let resolver = NameResolver(patience: .seconds(60), allowsThisHost: false, lookUp: names.lookUp)
        let result = await resolver.resolve(snapshot("api.test"))
        #expect(result.addresses.isEmpty)
        #expect(result.diagnostics.first?.problem.contains("the proxy's own host") == true)
        names.set("api.test", ["127.0.0.1", "10.0.0.1"])
        #expect(await resolver.refresh())
        #expect(
            await resolver.resolve(snapshot("api.test")).addresses == ["api.test": [IPAddress(v4: 0x0a00_0001)]])
    }

    @Test func `a name server that is silent holds up no change, and its answer is told when it comes`() async {
        let gate = Mutex(false)
        let (late, told) = AsyncStream.makeStream(of: Void.self)
        let resolver = NameResolver(patience: .milliseconds(1)) { _ in
            while !gate.withLock({ $0 }) {}
            return [IPAddress(v4: 0x0a00_0001)]
        }
        await resolver.setOnLateAnswer { told.yield() }
        #expect(await resolver.resolve(snapshot("slow.test")).addresses.isEmpty)
        gate.withLock { $0 = true }
        for await _ in late { break }
        #expect(await resolver.resolve(snapshot("slow.test")).addresses.count == 1)
    }
}
