import Configuration
import Foundation
import Manifests
import Middlewares
import Model
import Proxy
import Scripting
import Testing

@testable import moongate

struct ExplainCommandTests {
    @Test(arguments: [
        ("GET https://shop.test/cart", true, "GET /cart HTTP/1.1\r\nHost: shop.test\r\n\r\n"),
        ("http://shop.test", false, "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n"),
        ("POST HTTPS://shop.test:8443?a=1#top", true, "POST /?a=1 HTTP/1.1\r\nHost: shop.test:8443\r\n\r\n"),
    ])
    func `a request keeps its scheme`(text: String, isSecure: Bool, head: String) throws {
        let request = try ExplainedRequest(text, headers: [], cookies: [])
        #expect(request.isSecure == isSecure)
        #expect(String(decoding: request.head, as: UTF8.self) == head)
    }

    @Test(arguments: [("tcp:5432", 5432, false), ("udp:53", 53, true)] as [(String, UInt16, Bool)])
    func `a port is asked for as the log names it`(text: String, number: UInt16, isUDP: Bool) throws {
        let request = try ExplainedRequest(text, headers: [], cookies: [])
        #expect(request.port?.number == number)
        #expect(request.port?.isUDP == isUDP)
    }

    @Test(arguments: ["", "GET", "GET shop.test/", "GET ftp://shop.test/", "tcp:", "udp:65536", "tcp:db"])
    func `what is no request is refused`(text: String) {
        #expect(throws: (any Error).self) { try ExplainedRequest(text, headers: [], cookies: []) }
    }

    private static let manifest = """
        apiVersion: networking.k8s.io/v1
        kind: Ingress
        metadata:
          name: web
          namespace: shop
          annotations:
            moongate.dev/script-inline: |
              return {
                route = function(req, ctx)
                  moongate.metrics.counter("seen_total"):inc()
                  moongate.log.info("was asked")
                end,
                log = function(req, res, ctx) moongate.metrics.counter("logged_total"):inc() end,
              }
        spec:
          ingressClassName: moongate
          rules:
            - host: shop.test
              http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: a, port: { number: 80 } } } }] }
        """

    @Test func `an explanation runs the scripts, and leaves no trace in what is counted and logged`() async throws {
        let folder = NSTemporaryDirectory() + "moongate-explain-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try Data(Self.manifest.utf8).write(to: URL(fileURLWithPath: folder + "/web.yaml"))
        var reader = FolderReader(root: folder)
        let scripts = ScriptSurroundings()
        let pipeline = Pipeline(
            options: .init(
                try Settings(SettingsReader(reader: ConfigReader(provider: InMemoryProvider(values: [:]))))),
            loops: 2, explains: true, scripts: scripts)
        let prepared = try #require(await pipeline.prepare(try reader.load()).configuration)
        #expect(prepared.middlewares.count == 2)
        #expect(await pipeline.scriptVitals.count == 2, "one a loop, none for explanations")

        let request = try ExplainedRequest("GET http://shop.test/", headers: [], cookies: [])
        let told = prepared.explain(request, ProxyConfiguration(listen: [], loops: 2))
        #expect(told.steps.contains { $0.part == "script" })
        #expect(scripts.log.drain().isEmpty)
        var figures = ""
        scripts.metrics.write(to: &figures)
        #expect(figures.isEmpty)
    }
}
