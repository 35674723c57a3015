import Model
import Testing

@testable import Proxy

@Suite struct ClientConnectionsTests {
    @Test func eachClientHasItsOwn() {
        let clients = ClientConnections(most: 2)
        let one = IPAddress(v4: 0x0a00_0001)
        let other = IPAddress(v4: 0x0a00_0002)
        #expect(clients.enter(one) && clients.enter(one) && !clients.enter(one))
        #expect(clients.enter(other))
        clients.leave(one)
        #expect(clients.enter(one) && !clients.enter(one))
        // Whoever leaves more often than he came frees nothing of others.
        for _ in 0..<3 { clients.leave(one) }
        #expect(clients.enter(one) && clients.enter(one) && !clients.enter(one))
    }

    @Test func anIPv6NetworkOfOneSubscriberIsOneClient() {
        let clients = ClientConnections(most: 1)
        #expect(clients.enter(IPAddress(high: 0x2001_0db8_0000_0001, low: 1)))
        #expect(!clients.enter(IPAddress(high: 0x2001_0db8_0000_0001, low: 2)))
        #expect(clients.enter(IPAddress(high: 0x2001_0db8_0000_0002, low: 1)))
    }

    @Test func aLoopRefusesAndCounts() throws {
        let configuration: (inout ProxyConfiguration) -> Void = { $0.maxConnections = 3 }
        let scene = Scene(clients: ClientConnections(most: 2), configure: configuration)
        let first = scene.connect()
        let second = scene.connect()
        let third = scene.connect()
        #expect(!scene.network.isClosed(first) && !scene.network.isClosed(second) && scene.network.isClosed(third))
        // Its place is another's when it goes.
        scene.network.end(first)
        try scene.settle()
        #expect(!scene.network.isClosed(scene.connect()))
    }
}
