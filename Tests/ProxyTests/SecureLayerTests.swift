import HTTPWire
import Model
import TLSEngine
import Telemetry
import Testing

@testable import Proxy

/// TLS to clients before there is any, over a simulated network and a clock that the test turns.
@Suite struct SecureLayerTests {
    private static let passthrough = PassthroughHost(
        pattern: .exact("db.shop.test"), upstream: 0,
        ingress: ObjectReference(kind: "Ingress", namespace: "shop", name: "db"))

    private func scene(passes: Bool) throws -> Scene {
        try Scene(passthrough: passes ? [Self.passthrough] : [], certificates: TestTLS.certificates())
    }

    private func failures(_ scene: Scene) -> [String] {
        scene.loop.telemetry.metrics.publish()
        return scene.hub.render(process: nil).split(separator: "\n")
            .filter { $0.hasPrefix("moongate_tls_handshake_failures_total") && !$0.hasSuffix(" 0") }
            .map { String($0.dropFirst("moongate_tls_handshake_failures_total".count)) }
    }

    /// Whoever speaks plain HTTP by mistake is told so, whatever the method, and however it is cut.
    @Test(arguments: ["GET", "DELETE", "PATCH", "PRI", "OPTIONS", "QUERY"], [false, true])
    func plainHTTPIsToldSo(method: String, passes: Bool) throws {
        for cut in [0, 1, 3] {
            let scene = try scene(passes: passes)
            let client = scene.client(kind: .https, port: 8443)
            let request = Array("\(method) / HTTP/1.1\r\nHost: shop.test\r\n\r\n".utf8)
            scene.network.send(client, request[..<cut])
            try scene.settle()
            scene.network.send(client, request[cut...])
            try scene.settle()
            #expect(try scene.responses(client).map(\.status) == [400], "\(method) \(cut)")
            #expect(failures(scene) == ["{reason=\"not-tls\"} 1"])
            scene.checkQuiet()
        }
    }

    @Test(arguments: [
        "SSH-2.0-x\r\n........", "\0\u{1}\u{2}\u{3}\u{4}\u{5}\u{6}\u{7}\u{8}", "EHLO\r\n......", "get / HTTP/1.1\r\n",
    ])
    func whatIsNeitherGetsNoPage(opening: String) throws {
        let scene = try scene(passes: false)
        let client = scene.client(kind: .https, port: 8443)
        try scene.send(client, opening)
        #expect(!String(decoding: scene.network.take(client, .max), as: UTF8.self).contains("HTTP"))
        #expect(failures(scene).count == 1)
    }

    @Test func whatIsNoRecordIsNoTLS() throws {
        let scene = try scene(passes: false)
        let client = scene.client(kind: .https, port: 8443)
        try scene.send(client, "SSH-2.0-OpenSSH_9.9\r\n")
        #expect(scene.network.take(client, .max).isEmpty)
        #expect(failures(scene) == ["{reason=\"not-tls\"} 1"])
        scene.checkQuiet()
    }

    /// A few bytes must not make a connection hold room for a hundred thousand.
    @Test(arguments: [false, true], [9, 1])
    func helloThatAnnouncesTooMuchIsRefused(passes: Bool, piece: Int) throws {
        let scene = try scene(passes: passes)
        let client = scene.client(kind: .https, port: 8443)
        let bytes: [UInt8] = [22, 3, 1, 0, 4, 1, 2, 0, 0]
        for start in stride(from: 0, to: bytes.count, by: piece) {
            #expect(failures(scene) == [])
            scene.network.send(client, bytes[start..<min(start + piece, bytes.count)])
            try scene.settle()
        }
        #expect(failures(scene) == ["{reason=\"protocol-error\"} 1"])
        scene.network.end(client)
        try scene.settle()
        scene.checkQuiet()
    }

    /// Without a key: for TLS 1.3 a server asks for one (HelloRetryRequest), for TLS 1.2 it needs none.
    private static func hello(of version: TLSVersion) -> [UInt8] {
        func counted(_ width: Int, _ bytes: [UInt8]) -> [UInt8] {
            (0..<width).reversed().map { UInt8(truncatingIfNeeded: bytes.count >> (8 * $0)) } + bytes
        }
        var extensions: [[UInt8]] = [
            [0, 10] + counted(2, counted(2, [0, 23, 0, 29])), [0, 13] + counted(2, counted(2, [4, 3, 8, 4])),
        ]
        if version == .tls13 {
            extensions += [[0, 43] + counted(2, counted(1, [3, 4])), [0, 51] + counted(2, counted(2, []))]
        }
        let body: [UInt8] =
            [3, 3] + [UInt8](repeating: 7, count: 32) + counted(1, [UInt8](repeating: 8, count: 32))
            + counted(2, [0x13, 1, 0xc0, 0x2b, 0xc0, 0x2f]) + counted(1, [0]) + counted(2, extensions.flatMap(\.self))
        return [22, 3, 1] + counted(2, [1] + counted(3, body))
    }

    /// Nor may those of a second hello, which is asked for where the first has no key of a group that both know.
    @Test(arguments: [false, true])
    func secondHelloThatAnnouncesTooMuchIsRefused(atOnce: Bool) throws {
        let first = Self.hello(of: .tls13)
        let second: [UInt8] = [20, 3, 3, 0, 1, 1, 22, 3, 3, 0, 4, 1, 2, 0, 0]
        let scene = try scene(passes: false)
        let client = scene.client(kind: .https, port: 8443)
        if atOnce {
            scene.network.send(client, (first + second)[...])
        } else {
            scene.network.send(client, first[...])
            try scene.settle()
            // HelloRetryRequest is a ServerHello.
            #expect(scene.network.take(client, .max)[5] == 2)
            #expect(failures(scene) == [])
            scene.network.send(client, second[...])
        }
        try scene.settle()
        #expect(failures(scene) == ["{reason=\"protocol-error\"} 1"])
        scene.network.end(client)
        try scene.settle()
        scene.checkQuiet()
    }

    /// What is encrypted in TLS 1.2 looks like anything: OpenSSL has read it, and says what it thinks of it.
    @Test func whatIsEncryptedReachesTheEngine() throws {
        let scene = try scene(passes: false)
        let client = scene.client(kind: .https, port: 8443)
        scene.network.send(client, Self.hello(of: .tls12)[...])
        try scene.settle()
        let flight = scene.network.take(client, .max)
        #expect(flight[0] == 22 && flight[5] == 2)
        let rest: [UInt8] = [20, 3, 3, 0, 1, 1, 22, 3, 3, 0, 40, 1, 2, 0, 0] + [UInt8](repeating: 9, count: 36)
        scene.network.send(client, rest[...])
        try scene.settle()
        #expect(scene.network.take(client, .max).first == 21)
        scene.network.end(client)
        try scene.settle()
        scene.checkQuiet()
    }

    /// A health check only looks whether the port is open.
    @Test(arguments: [false, true], [false, true])
    func silenceIsNoFailure(passes: Bool, resets: Bool) throws {
        let scene = try scene(passes: passes)
        func leave(_ bytes: [UInt8]) throws {
            let client = scene.client(kind: .https, port: 8443)
            scene.network.send(client, bytes)
            try scene.settle()
            if resets { scene.network.reset(client) } else { scene.network.end(client) }
            try scene.settle()
        }
        try leave([])
        #expect(failures(scene) == [])
        try leave([22, 3])
        // A reset tears down what is no arrival any more without a word.
        #expect(failures(scene) == (resets && !passes ? [] : ["{reason=\"cut\"} 1"]))
        scene.checkQuiet()
    }

    @Test func balancerThatChecksIsNoFailure() throws {
        let block = try #require(AddressBlock("192.168.0.0/16"))
        let scene = try Scene(certificates: TestTLS.certificates()) {
            $0.trustedProxies = [block]
            $0.usesProxyProtocol = true
        }
        let client = scene.client(kind: .https, port: 8443)
        scene.network.send(client, "\r\n\r\n\0\r\nQUIT\n\u{20}\0\0\0".utf8)
        scene.network.end(client)
        try scene.settle()
        #expect(failures(scene) == [])
        scene.checkQuiet()
    }

    /// The time of a handshake is one, whoever waits for its first message.
    @Test func waitingForTheNameIsPartOfTheHandshake() throws {
        let scene = try scene(passes: true)
        let client = scene.client(kind: .https, port: 8443)
        let hello = try TestTLS.hello("shop.test")
        scene.network.send(client, hello[..<50])
        try scene.settle()
        scene.advance(milliseconds: 9_000)
        scene.network.send(client, hello[50...])
        try scene.settle()
        #expect(scene.network.take(client, .max).first == 22)
        scene.advance(milliseconds: 900)
        #expect(!scene.network.isClosed(client))
        scene.advance(milliseconds: 300)
        #expect(scene.network.isClosed(client))
        #expect(failures(scene) == ["{reason=\"timeout\"} 1"])
        scene.checkQuiet()
    }
}
