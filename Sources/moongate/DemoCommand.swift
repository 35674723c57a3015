// `moongate demo`: the main job with no set-up. Two echo upstreams, the quickstart's manifests and the proxy, in one
// process, with the lines to try.

import ArgumentParser
import Foundation
import Model

struct DemoCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo", abstract: "Serve the quickstart with two upstreams of its own, and print what to try.")

    @Option(
        help: ArgumentHelp(
            "The folder to serve (default: examples/quickstart, or the copy in the program).", valueName: "dir"))
    var manifests: String?
    @Option(help: ArgumentHelp("Where the proxy listens.", valueName: "addr:port"))
    var http = "127.0.0.1:8080"
    @Option(help: ArgumentHelp("Where it listens for HTTPS, or off.", valueName: "addr:port"))
    var https = "127.0.0.1:8443"
    @Option(help: ArgumentHelp("Where the admin server listens.", valueName: "addr:port"))
    var admin = "127.0.0.1:9901"

    /// The ports that the quickstart's EndpointSlices name.
    private static let upstreams: [(name: String, port: UInt16)] = [("v1", 9001), ("v2", 9002)]

    func run() async throws {
        let folder = try folder()
        defer { if folder.isTemporary { try? FileManager.default.removeItem(atPath: folder.path) } }
        let flags = try RunFlags.parse([
            "--http", http, "--https", https, "--admin", admin, "--access-log", "text", "--drain-timeout", "5s",
        ])
        let settings = try await Settings.resolve(flags)

        try await withThrowingTaskGroup(of: Void.self) { group in
            let (bound, signal) = AsyncStream.makeStream(of: Void.self)
            for upstream in Self.upstreams {
                group.addTask {
                    let address = SocketAddress(ip: IPAddress(v4: 0x7f00_0001), port: upstream.port)
                    do {
                        try await EchoServer(name: upstream.name).run(on: address, endsOnSignal: false) { _ in
                            signal.yield()
                        }
                    } catch {
                        signal.finish()
                        throw ValidationError("the upstream \(upstream.name) can't listen on \(address): \(error)")
                    }
                }
            }
            // The proxy starts when both upstreams listen, so that the first line that is tried works.
            var count = 0
            for await _ in bound {
                count += 1
                if count == Self.upstreams.count { break }
            }
            if count == Self.upstreams.count {
                var proxy = Standalone(settings: settings, directory: folder.path)
                proxy.onListening = { bound in
                    StandardOutput.line(Edge.listeningLine(bound))
                    StandardOutput.line(Self.guide(http: bound.http.first?.description ?? "", folder: folder.path))
                }
                try await proxy.run()
            } else {
                try await group.next()
            }
            group.cancelAll()
        }
        StandardOutput.line("The demo has ended.")
    }

    /// The folder of the checkout, so that edits are live; elsewhere a copy of what the program carries.
    private func folder() throws -> (path: String, isTemporary: Bool) {
        if let manifests { return (manifests, false) }
        let checkout = "examples/quickstart"
        if FileManager.default.fileExists(atPath: checkout + "/ingress.yaml") { return (checkout, false) }
        let copy = FileManager.default.temporaryDirectory.appending(
            path: "moongate-demo-\(ProcessInfo.processInfo.processIdentifier)")
        try FileManager.default.createDirectory(at: copy, withIntermediateDirectories: true)
        try Quickstart.ingress.write(to: copy.appending(path: "ingress.yaml"), atomically: true, encoding: .utf8)
        try Quickstart.services.write(to: copy.appending(path: "services.yaml"), atomically: true, encoding: .utf8)
        return (copy.path, true)
    }

    /// The lines to try: each with what it does.
    static let lines: [(command: String, effect: String)] = [
        ("curl -H 'Host: shop.test' http://HTTP/", "a plain request: v1 answers"),
        ("curl -H 'Host: shop.test' -H 'X-Canary: always' http://HTTP/", "header canary: v2 answers"),
        ("curl -H 'Host: shop.test' --cookie canary=always http://HTTP/cart", "cookie canary: v2 answers"),
        (
            "curl -i -H 'Host: shop.test' --cookie uid=bob http://HTTP/checkout",
            "sticky A/B split: bob always gets \"new\", from v2"
        ),
        ("curl -i -H 'Host: shop.test' --cookie uid=ada http://HTTP/checkout", "and ada always \"old\", from v1"),
        ("curl -H 'Host: shop.test' http://HTTP/v2/orders/7", "rewrite: the upstream gets /orders/7?version=2"),
        ("curl -i -H 'Host: shop.test' 'http://HTTP/old?a=1'", "redirect: 308 to /new?a=1"),
        ("curl -i http://HTTP/", "no rule for this host: 404"),
    ]

    private static func guide(http: String, folder: String) -> String {
        let lines = lines.map { line in
            "  # \(line.effect)\n  \(line.command.replacing("HTTP", with: http))"
        }
        return """

            Moongate serves \(folder) on http://\(http). In another terminal, try:

            \(lines.joined(separator: "\n"))

            Edit \(folder)/ingress.yaml, and the next request follows it. Ctrl-C ends the demo. Each request is logged below.

            """
    }
}
