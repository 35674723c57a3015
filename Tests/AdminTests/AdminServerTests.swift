import Foundation
import Logging
import Model
import NIOCore
import NIOPosix
import Testing

@testable import Admin

/// Sends bytes and reads until the other side closes.
private func exchange(_ text: String, port: UInt16) async throws -> String {
    let client = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
        .connect(host: "127.0.0.1", port: Int(port)) { channel in
            channel.eventLoop.makeCompletedFuture {
                try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
            }
        }
    return try await client.executeThenClose { inbound, outbound in
        try await outbound.write(ByteBuffer(string: text))
        var all = ByteBuffer()
        for try await part in inbound { all.writeImmutableBuffer(part) }
        return String(buffer: all)
    }
}

private func withServer(
    _ sources: AdminSources,
    address: Model.SocketAddress = Model.SocketAddress(ip: IPAddress(v4: 0x7f00_0001), port: 0),
    _ body: @Sendable @escaping (UInt16) async throws -> Void
) async throws {
    let (ports, continuation) = AsyncStream.makeStream(of: UInt16.self)
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    let server = AdminServer(address: address, sources: sources, logger: logger) { bound in
        continuation.yield(bound.port)
        continuation.finish()
    }
    try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { try await server.run() }
        let port = try #require(await ports.first { _ in true })
        #expect(port != 0)
        try await body(port)
        group.cancelAll()
    }
}

@Suite("Admin server on real sockets", .timeLimit(.minutes(10))) struct AdminServerTests {
    @Test func answersOnThePortThatItReports() async throws {
        try await withServer(sources(unreadiness: "no snapshot yet")) { port in
            let host = "host: 127.0.0.1:\(port)\r\nconnection: close\r\n\r\n"
            let health = try await exchange("GET /healthz HTTP/1.1\r\n\(host)", port: port)
            #expect(health.hasPrefix("HTTP/1.1 200 OK\r\n") && health.hasSuffix("\r\n\r\nok\n"))
            let ready = try await exchange("GET /readyz HTTP/1.1\r\n\(host)", port: port)
            #expect(ready.hasPrefix("HTTP/1.1 503 ") && ready.hasSuffix("no snapshot yet\n"))
            let metrics = try await exchange("GET /metrics HTTP/1.1\r\n\(host)", port: port)
            #expect(metrics.lowercased().contains("content-type: text/plain; version=0.0.4"))
            let head = try await exchange("HEAD /metrics HTTP/1.1\r\n\(host)", port: port)
            #expect(head.hasSuffix("\r\n\r\n") && head.lowercased().contains("content-length: 14"))
            let post = try await exchange("POST /metrics HTTP/1.1\r\ncontent-length: 0\r\n\(host)", port: port)
            #expect(post.hasPrefix("HTTP/1.1 405 ") && post.lowercased().contains("allow: get, head"))
            let explain = try await exchange(
                "GET /explain?request=GET%20https://shop.test/cart%3Fa%3Db&header=x:%20y HTTP/1.1\r\n\(host)",
                port: port)
            #expect(explain.hasSuffix("\r\n\r\nGET https://shop.test/cart?a=b|x: y\n"))
        }
    }

    @Test func aPageOfAnotherNameIsNotServed() async throws {
        try await withServer(sources()) { port in
            let answer = try await exchange(
                "GET /snapshot HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n", port: port)
            #expect(answer.hasPrefix("HTTP/1.1 403 "))
        }
    }

    @Test(arguments: [
        "\r\n\r\n\r\n", "NONSENSE\r\n\r\n", "GET / HTTP/9.9\r\n\r\n",
        "GET /%ff%00%zz HTTP/1.1\r\nconnection: close\r\n\r\n",
        "GET /explain?request=%ff%fe&request HTTP/1.1\r\nconnection: close\r\n\r\n",
        "GET /" + String(repeating: "a", count: 200_000) + " HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
    ])
    func badInputHarmsNobody(text: String) async throws {
        try await withServer(sources()) { port in
            // What comes back is its own affair; that the next one is served is ours.
            let sent = Task { try? await exchange(text, port: port) }
            let next = try await exchange(
                "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", port: port)
            #expect(next.hasPrefix("HTTP/1.1 200 OK\r\n"))
            sent.cancel()
            if let answer = await sent.value, !answer.isEmpty { #expect(!answer.hasPrefix("HTTP/1.1 2")) }
        }
    }

    @Test func anAddressThatIsTakenIsAnError() async throws {
        try await withServer(sources()) { port in
            var logger = Logger(label: "test")
            logger.logLevel = .critical
            let second = AdminServer(
                address: Model.SocketAddress(ip: IPAddress(v4: 0x7f00_0001), port: port), sources: sources(),
                logger: logger)
            await #expect(throws: (any Error).self) { try await second.run() }
        }
    }
}
