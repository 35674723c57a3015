import HTTPWire
import Model
import Telemetry
import Testing

@testable import Proxy

/// The PROXY protocol before HTTP, over a simulated network and a clock that the test turns.
@Suite struct LoopArrivalTests {
    private static let balancer: UInt32 = 0x0a01_0001
    private static let header = "PROXY TCP4 203.0.113.7 198.51.100.1 5555 443\r\n"
    private static let request = "GET /len/5/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n"

    private func scene(clients: ClientConnections? = nil, trusted: String...) throws -> Scene {
        let blocks = (trusted.isEmpty ? ["10.1.0.0/16"] : trusted).compactMap { AddressBlock($0) }
        return Scene(clients: clients) { configuration in
            configuration.trustedProxies = blocks
            configuration.usesProxyProtocol = true
        }
    }

    private func faults(_ scene: Scene) -> [String] {
        scene.loop.telemetry.metrics.publish()
        return scene.hub.render(process: nil).split(separator: "\n")
            .filter { $0.hasPrefix("moongate_proxy_protocol_failures_total") && !$0.hasSuffix(" 0") }.map(String.init)
    }

    @Test func headerSaysWhoAsksAndWhere() throws {
        let scene = try scene()
        let client = scene.client(from: Self.balancer)
        try scene.send(client, Self.header + Self.request)
        try scene.send(client, Self.request)
        #expect(try scene.responses(client).map(\.status) == [200, 200])
        for request in scene.requests {
            #expect(request.value("x-forwarded-for") == "203.0.113.7")
            #expect(request.value("x-real-ip") == "203.0.113.7")
            #expect(request.value("x-forwarded-port") == "443")
            #expect(request.value("x-forwarded-proto") == "https")
        }
        scene.checkQuiet()
    }

    /// At every byte of the header and of the head behind it.
    @Test func headerCutAnywhere() throws {
        let whole = Array((Self.header + Self.request).utf8)
        for cut in 1..<whole.count {
            let scene = try scene()
            let client = scene.client(from: Self.balancer)
            scene.network.send(client, whole[..<cut])
            try scene.settle()
            scene.network.send(client, whole[cut...])
            try scene.settle()
            #expect(try scene.responses(client).map(\.status) == [200], "cut at \(cut)")
            #expect(scene.requests.first?.value("x-forwarded-for") == "203.0.113.7")
            scene.checkQuiet()
        }
    }

    @Test func clientThatEndsItsSideBehindTheHeaderIsServed() throws {
        let scene = try scene()
        let client = scene.client(from: Self.balancer)
        scene.network.send(client, (Self.header + Self.request).utf8)
        scene.network.end(client)
        try scene.settle()
        #expect(try scene.responses(client).map(\.status) == [200])
    }

    /// Of whom a balancer does not name nothing is believed; of itself, what it says.
    @Test(arguments: [
        ("PROXY UNKNOWN\r\n", "10.1.0.1"), ("\r\n\r\n\0\r\nQUIT\n\u{21}\0\0\0", "10.1.0.1"),
        ("\r\n\r\n\0\r\nQUIT\n\u{20}\0\0\0", "198.51.100.9, 10.1.0.1"),
    ])
    func connectionWithoutAnotherEnd(header: String, seen: String) throws {
        let scene = try scene(clients: ClientConnections(most: 1))
        let client = scene.client(from: Self.balancer)
        let fields = "X-Forwarded-For: 198.51.100.9\r\nssl-client-verify: SUCCESS\r\n"
        try scene.send(client, header + Self.request.replacing("\r\n\r\n", with: "\r\n\(fields)\r\n"))
        #expect(try scene.responses(client).map(\.status) == [200])
        #expect(scene.requests.first?.value("x-forwarded-for") == seen)
        #expect((scene.requests.first?.value("ssl-client-verify") == nil) == (seen == "10.1.0.1"))
        #expect(scene.requests.first?.value("x-forwarded-port") == "8080")
        #expect(scene.requests.first?.value("x-forwarded-proto") == "http")
        scene.checkQuiet()
    }

    /// Everybody may send headers: of those who are named in them, nobody's own fields are believed for it.
    @Test(arguments: [
        ("203.0.113.7", ["0.0.0.0/0", "::/0"], "203.0.113.7"), ("2001:db8::7", ["0.0.0.0/0", "::/0"], "2001:db8::7"),
        ("203.0.113.7", ["0.0.0.0/0", "203.0.113.0/24"], "192.0.2.9, 203.0.113.7"),
    ])
    func whoIsNamedIsNoProxyBecauseEverybodyMaySendHeaders(named: String, trusted: [String], seen: String) throws {
        let scene =
            trusted[1] == "::/0" ? try scene(trusted: "0.0.0.0/0", "::/0") : try scene(trusted: trusted[0], trusted[1])
        let client = scene.client(from: Self.balancer)
        let family = named.contains(":") ? "TCP6" : "TCP4"
        let destination = named.contains(":") ? "2001:db8::1" : "198.51.100.1"
        try scene.send(
            client,
            "PROXY \(family) \(named) \(destination) 5555 443\r\n"
                + "GET / HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-For: 192.0.2.9\r\nX-Forwarded-Host: evil.test\r\n\r\n"
        )
        let request = try #require(scene.requests.first)
        #expect(request.value("x-forwarded-for") == seen)
        #expect((request.value("x-forwarded-host") == "evil.test") == seen.contains(","))
    }

    /// Nor are those whom a proxy to be believed names in front of the client.
    @Test func whatIsReadOfAProxysListEndsAtItsClient() throws {
        let scene = try scene(trusted: "0.0.0.0/0", "203.0.113.0/24")
        try scene.send(
            scene.client(from: Self.balancer),
            "PROXY TCP4 203.0.113.7 198.51.100.1 5555 443\r\n"
                + "GET / HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-For: 192.0.2.1, 198.51.100.9\r\n\r\n")
        #expect(scene.requests.first?.value("x-real-ip") == "198.51.100.9")
    }

    @Test func strangersHeaderIsNotBelieved() throws {
        let scene = try scene()
        let client = scene.client()
        try scene.send(client, Self.header + Self.request)
        #expect(try scene.responses(client).map(\.status) == [400])
        #expect(scene.requests.isEmpty)
        let other = scene.client()
        try scene.send(other, Self.request)
        #expect(try scene.responses(other).map(\.status) == [200])
        #expect(scene.requests.first?.value("x-forwarded-for") == "192.168.0.1")
    }

    @Test(arguments: [
        ("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n", "missing"), ("PROXY TCP4 nonsense\r\n", "malformed"),
        ("PROXY UNKNOWN " + String(repeating: "x", count: 100), "too-long"),
    ])
    func connectionWithoutAHeaderIsClosed(opening: String, reason: String) throws {
        let scene = try scene()
        let client = scene.client(from: Self.balancer)
        try scene.send(client, opening)
        #expect(scene.network.isClosed(client))
        #expect(scene.network.available(client) == 0)
        #expect(scene.requests.isEmpty)
        #expect(faults(scene) == ["moongate_proxy_protocol_failures_total{reason=\"\(reason)\"} 1"])
        scene.checkQuiet()
    }

    @Test func headerIsNotWaitedForLongerThanItsTime() throws {
        let scene = try scene()
        let client = scene.client(from: Self.balancer)
        try scene.send(client, "PROXY TCP4 ")
        scene.advance(milliseconds: 4_900)
        #expect(!scene.network.isClosed(client))
        scene.advance(milliseconds: 200)
        #expect(scene.network.isClosed(client))
        #expect(faults(scene) == ["moongate_proxy_protocol_failures_total{reason=\"timeout\"} 1"])
        // Who only looks whether the port is open is no fault; who ends in the middle is one.
        let probe = scene.client(from: Self.balancer)
        scene.network.end(probe)
        try scene.settle()
        #expect(scene.network.isClosed(probe))
        let half = scene.client(from: Self.balancer)
        scene.network.send(half, "PROXY".utf8)
        scene.network.end(half)
        try scene.settle()
        #expect(
            faults(scene) == [
                "moongate_proxy_protocol_failures_total{reason=\"timeout\"} 1",
                "moongate_proxy_protocol_failures_total{reason=\"cut\"} 1",
            ])
        scene.checkQuiet()
    }

    /// The limit counts those that the header names, not the balancer.
    @Test func limitOfConnectionsIsTheClients() throws {
        let scene = try scene(clients: ClientConnections(most: 1))
        let first = scene.client(from: Self.balancer)
        try scene.send(first, Self.header)
        let second = scene.client(from: Self.balancer)
        try scene.send(second, Self.header)
        #expect(!scene.network.isClosed(first))
        #expect(scene.network.isClosed(second))
        let other = scene.client(from: Self.balancer)
        try scene.send(other, "PROXY TCP4 203.0.113.8 198.51.100.1 5555 443\r\n")
        #expect(!scene.network.isClosed(other))
        scene.network.reset(first)
        try scene.settle()
        let third = scene.client(from: Self.balancer)
        try scene.send(third, Self.header)
        #expect(!scene.network.isClosed(third))
    }

    @Test func operatorIsToldOnceInAWhile() {
        let notices = ProxyNotices()
        let peer = Model.SocketAddress(ip: IPAddress(v4: Self.balancer), port: 9)
        notices.note(.malformed, from: peer, port: 443, kind: .https)
        notices.note(.malformed, from: peer, port: 443, kind: .https)
        let first = notices.take(now: 100)
        #expect(first.count == 1)
        #expect(
            first.first?.problem
                == "2 connections of trusted proxies with a malformed PROXY protocol header closed, the last "
                + "from 10.1.0.1:9 to port 443")
        for _ in 0..<1_000 { notices.note(.malformed, from: peer, port: 443, kind: .https) }
        notices.note(.timeout, from: peer, port: 5432, kind: .stream)
        let second = notices.take(now: 101)
        #expect(second.map { $0.problem.hasPrefix("1 connection of trusted proxies whose") } == [true])
        #expect(second.map(\.place.field) == ["--tcp-services-configmap"])
        #expect(second.map { $0.mend.hasSuffix("or take PROXY out of the entry \"5432\"") } == [true])
        #expect(notices.take(now: 160).first?.problem.hasPrefix("1000 ") == true)
        #expect(notices.take(now: 300).isEmpty)
    }
}
