import ArgumentParser
import Configuration
import Foundation
import HTTPWire
import Model
import Proxy
import Testing

@testable import moongate

struct SettingsTests {
    private func settings(_ values: [String: String]) throws -> Settings {
        let provider = InMemoryProvider(
            values: Dictionary(
                uniqueKeysWithValues: values.map {
                    (AbsoluteConfigKey([$0.key]), ConfigValue(.string($0.value), isSecret: false))
                }))
        return try Settings(SettingsReader(reader: ConfigReader(provider: provider)))
    }

    @Test func `without any setting the documented defaults hold`() throws {
        let settings = try settings([:])
        #expect(settings.http.map(\.description) == ["0.0.0.0:8080"])
        #expect(settings.admin.description == "127.0.0.1:9901")
        #expect(settings.ingressClass == "moongate")
        #expect(settings.controllerName == "moongate.dev/ingress-controller")
        #expect(settings.allowInlineScripts)
        #expect(!settings.watchIngressWithoutClass)
        #expect(settings.drainTimeout == 30_000)
        #expect(settings.maxHeadBytes == 65536)
    }

    @Test(arguments: [
        ("hsts", "off"), ("hsts", "max-age=0"), ("hsts", "Max-Age = 5 ; preload"),
        ("hsts", "includeSubDomains;max-age=\"7\""),
        ("tls-ciphers", "ECDHE-RSA-AES128-GCM-SHA256:TLS_AES_128_CCM_SHA256"),
        ("tls-ciphers", "HIGH:!aNULL:!RC4:-MD5:@STRENGTH"),
        ("tls-ciphers", "ECDHE+AESGCM ECDHE-RSA-AES128-SHA,+AES256"),
        ("tls-ciphers", "DEFAULT"),
    ])
    func `what is right is taken`(key: String, value: String) throws {
        _ = try settings([key: value])
    }

    @Test(arguments: [
        ("http", "8080", "address"), ("http", "host:80", "address"), ("workers", "-1", "whole number"),
        ("workers", "many", "whole number"), ("workers", "0", "whole number from 1"),
        ("drain-timeout", "30", "duration"), ("max-head-size", "8 MB", "size"),
        ("max-head-size", "1", "size"), ("trusted-proxies", "10.0.0.0/8,office", "\"office\""),
        ("access-log", "xml", "format"), ("default-backend", "web:80", "Service port"),
        ("default-backend", "a/b/c:80", "Service port"), ("watch-ingress-without-class", "maybe", "neither"),
        ("compression", "deflate", "compress"), ("compression", "on,off", "compress"),
        ("compression-level", "gzip=10", "levels"), ("compression-level", "5", "levels"),
        ("compression-types", "text", "media type"), ("compression-min-length", "short", "size"),
        ("compression-memory", "much", "size"), ("log-level", "verbose", "level"),
        ("max-connections-per-client", "some", "whole number"), ("udp-services-configmap", "udp", "name an object"),
        ("udp-session-timeout", "0s", "standing still"), ("max-udp-sessions", "0", "whole number"),
        ("proxy-stream-responses", "-1", "whole number"),
        ("connect-timeout", "0s", "no end"),
        ("proxy-protocol-header-timeout", "0s", "no end"), ("tls-handshake-timeout", "0ms", "no end"),
        ("http", "off", "can't be turned off"), ("https", "on", "not an address"),
        ("hsts", "max-age=", "no value of"), ("hsts", "max-age=x", "no value of"), ("hsts", "max-age", "no value of"),
        ("hsts", "includeSubDomains", "no value of"), ("hsts", "max-age=1; max-age=2", "no value of"),
        ("hsts", "x-max-age=1", "no value of"),
        ("tls-ciphers", "ECDHE-RSA-AES128-GCM-SHA256:TYPO", "called TYPO"),
        ("tls-ciphers", "TLS_AES_128_GCM_SHA256:TLS_TYPO:ECDHE+TYPE", "called TLS_TYPO, ECDHE+TYPE"),
        ("tls-contexts", "0", "whole number"), ("certificate-expiry-warning", "soon", "duration"),
    ])
    func `a bad setting is refused with problem, place and mend`(key: String, value: String, problem: String) {
        let error = #expect(throws: SettingsError.self) { try settings([key: value]) }
        #expect(error?.problem.contains(problem) == true)
        #expect(error?.description.contains("--\(key)") == true)
        #expect(error?.mend.isEmpty == false)
    }

    @Test(arguments: [
        ("yaml", "workers: 2\ningres-class: edge\n"), ("json", "{\"workers\": 2,\n\"ingres-class\": \"edge\"}"),
    ])
    func `a setting that there is not is refused with its line and what was meant`(kind: String, text: String)
        async throws
    {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("settings-\(UUID()).\(kind)")
        try Data(text.utf8).write(to: file)
        defer { try? FileManager.default.removeItem(at: file) }
        let flags = try RunFlags.parse(["--config", file.path])
        let error = await #expect(throws: SettingsError.self) { try await Settings.resolve(flags) }
        #expect(error?.problem.contains("line 2") == true)
        #expect(error?.mend.contains("did you mean ingress-class?") == true)
        try Data(text.replacing("ingres-class", with: "ingress-class").utf8).write(to: file)
        #expect(try await Settings.resolve(flags).ingressClass == "edge")
    }

    @Test func `lists are separated by commas, and spaces do not matter`() throws {
        let settings = try settings([
            "http": "127.0.0.1:0, [::1]:0", "trusted-proxies": "10.0.0.0/8 , fd00::/8", "watch-namespace": "a,b",
        ])
        #expect(settings.http.map(\.description) == ["127.0.0.1:0", "[::1]:0"])
        #expect(settings.trustedProxies.map(\.description) == ["10.0.0.0/8", "fd00::/8"])
        #expect(settings.watchNamespaces == ["a", "b"])
    }

    @Test func `what speaks of a cluster is without effect on a folder`() throws {
        let given = ["webhook": ":8444", "publish-service": "edge/moongate", "ingress-class": "edge"]
        #expect(try settings(given).idleWithoutCluster.isEmpty)
        #expect(
            try settings(given.merging(["manifests": "m"]) { $1 }).idleWithoutCluster
                == ["--publish-service", "--webhook"])
        #expect(try settings(["manifests": "m"]).idleWithoutCluster.isEmpty)
    }

    @Test func `what is compressed`() throws {
        #expect(try settings([:]).compression.choice.codings == .off)
        for (text, expected) in [("true", "on"), ("false", "off"), ("zstd, gzip, always", "zstd,gzip,always")] {
            #expect(try settings(["compression": text]).compression.choice.description == expected)
        }
        let settings = try settings([
            "compression-level": "br=5", "compression-min-length": "2KiB", "compression-types": "image/*, text/html",
            "compression-memory": "1MiB",
        ])
        let configuration = ProxyConfiguration(settings)
        #expect(configuration.compression.levels[.brotli] == 5 && configuration.compression.levels[.gzip] == 1)
        #expect(configuration.compression.limits.minLength == 2048)
        #expect(configuration.compression.limits.types == MediaTypes(["image/*", "text/html"]))
        #expect(configuration.compression.memory == 1 << 20)
    }

    @Test func `a flag wins over the environment's names and both have the same key`() async throws {
        let flags = try RunFlags.parse([
            "--ingress-class", "edge", "--no-allow-inline-scripts", "--http", "127.0.0.1:1",
        ])
        let settings = try await Settings.resolve(flags)
        #expect(settings.ingressClass == "edge")
        #expect(!settings.allowInlineScripts)
        #expect(settings.http.map(\.description) == ["127.0.0.1:1"])
    }
}
