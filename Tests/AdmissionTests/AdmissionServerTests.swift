import Admission
import ClusterTesting
import Foundation
import IngressTranslation
import KubernetesAPI
import KubernetesClient
import Logging
import Model
import NIOCore
import NIOPosix
import NIOSSL
import Testing

private let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
private let secretName = ObjectName(namespace: "edge", name: "moongate-webhook")

private func configuration() -> ValidatingWebhookConfiguration {
    let service = ValidatingWebhookConfiguration.Webhook.ClientConfig.Service(
        namespace: "edge", name: "moongate-webhook")
    return ValidatingWebhookConfiguration(
        metadata: ObjectMeta(name: "moongate"),
        webhooks: ["ingresses.moongate.dev", "scripts.moongate.dev"].map {
            .init(name: $0, clientConfig: .init(service: service))
        })
}

/// A cluster with the webhook's configuration, and an identity that is kept in it.
private func withIdentity<Clock: ControlClock>(
    clock: Clock, _ body: (APIServer, WebhookIdentity, APIClient, Clock) async throws -> Void
) async throws {
    let server = APIServer()
    try await server.start()
    try server.addNamespace("edge")
    try server.apply(configuration())
    let client = APIClient(access: ClusterAccess(server: server.url), clock: clock, log: quiet)
    let identity = WebhookIdentity(
        source: .managed(secret: secretName, names: ["localhost"], configuration: "moongate"), clientAuthority: nil,
        client: client, clock: clock, log: quiet)
    let task = Task { await identity.keep() }
    do {
        try await body(server, identity, client, clock)
    } catch {
        Issue.record("\(error)")
    }
    task.cancel()
    await task.value
    await client.shutdown()
    try await server.stop()
}

private func bundles(_ server: APIServer) throws -> [Base64?] {
    try server.get(ValidatingWebhookConfiguration.self, namespace: "", name: "moongate")?.webhooks?.map(
        \.clientConfig.caBundle) ?? []
}

@Suite(.timeLimit(.minutes(10))) struct AdmissionServerTests {
    @Test func `the API server believes what the webhook shows`() async throws {
        // The certificate is checked by the machine's own calendar.
        try await withIdentity(clock: SystemClock()) { server, identity, _, _ in
            try await server.writes.wait { _ in (try? bundles(server))?.allSatisfy { $0 != nil } ?? false }
            let authority = try #require(try bundles(server).first ?? nil)
            #expect(try bundles(server) == [authority, authority])
            while identity.context == nil { await Task.yield() }
            let judge = AdmissionJudge(options: .init()) { ObjectSet() }
            let address = Model.SocketAddress(ip: IPAddress(v4: 0x7f00_0001), port: 0)
            let webhook = AdmissionServer(address: address, judge: judge) { identity.context }
            let running = try await webhook.start()
            let access = ClusterAccess(
                server: "https://localhost:\(running.address.port)", certificateAuthority: .inline(authority.bytes))
            let client = APIClient(access: access, log: quiet)
            func post(_ body: String, _ path: String = "/validate", type: String = "application/json") async -> Result<
                String, APIError
            > {
                do throws(APIError) {
                    let answer = try await client.send(
                        APIRequest(.post, path, body: Array(body.utf8), contentType: type))
                    return .success(String(decoding: answer.body, as: UTF8.self))
                } catch {
                    return .failure(error)
                }
            }
            let question = """
                {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u", "kind":
                {"group": "", "version": "v1", "kind": "ConfigMap"}, "operation": "CREATE", "object": {"metadata":
                {"name": "s", "namespace": "shop", "labels": {"moongate.dev/script": "true"}},
                "data": {"main.lua": "return {"}}}}
                """
            func isAllowed(_ body: String) async -> Bool? {
                switch await post(body) {
                case .success(let answer): return answer.contains(#""allowed":true"#)
                case .failure(let error):
                    Issue.record("\(error)")
                    return nil
                }
            }
            func isRefused(_ answer: Result<String, APIError>) -> Bool {
                if case .failure = answer { true } else { false }
            }
            #expect(await isAllowed(question) == false)
            #expect(await isAllowed(question.replacing("return {", with: "return {}")) == true)
            #expect(isRefused(await post("{}")))
            #expect(isRefused(await post(question, "/other")))
            #expect(isRefused(await post(question, type: "text/plain")))
            // Too long is cut off: an answer where it is read in time, a broken connection where not.
            #expect(isRefused(await post(String(repeating: " ", count: (3 << 20) + 1))))
            #expect(await isAllowed(question) == false)
            #expect(webhook.figures.refused == 2)
            #expect(webhook.figures.malformed == 4)
            await client.shutdown()
            await running.stop()
        }
    }

    @Test(arguments: [
        "", "POST /validate HTTP/1.1\r\nX-Slow: ",
        "POST /validate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
    ])
    func `a question that trickles in is cut off`(begin: String) async throws {
        try await withIdentity(clock: SystemClock()) { _, identity, _, _ in
            while identity.context == nil { await Task.yield() }
            var limits = AdmissionServer.Limits()
            limits.patience = 1
            let judge = AdmissionJudge(options: .init()) { ObjectSet() }
            let webhook = AdmissionServer(
                address: Model.SocketAddress(ip: IPAddress(v4: 0x7f00_0001), port: 0), judge: judge, limits: limits
            ) { identity.context }
            let running = try await webhook.start()
            var tls = TLSConfiguration.makeClientConfiguration()
            tls.certificateVerification = .none
            let context = try NIOSSLContext(configuration: tls)
            let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        // Without a word: nor is there a handshake.
                        guard !begin.isEmpty else { return }
                        try channel.pipeline.syncOperations.addHandler(
                            NIOSSLClientHandler(context: context, serverHostname: nil))
                    }
                }
                .connect(host: "127.0.0.1", port: Int(running.address.port)).get()
            if !begin.isEmpty {
                try await channel.writeAndFlush(ByteBuffer(string: begin))
                channel.eventLoop.scheduleRepeatedTask(initialDelay: .zero, delay: .milliseconds(50)) { task in
                    guard channel.isActive else { return task.cancel() }
                    channel.writeAndFlush(ByteBuffer(string: "x"), promise: nil)
                }
            }
            try await channel.closeFuture.get()
            #expect(webhook.figures.slow == 1)
            #expect(webhook.figures.malformed == 0)
            await running.stop()
        }
    }

    @Test func `the certificate is renewed before it expires, and the old one is believed meanwhile`() async throws {
        try await withIdentity(clock: ManualClock()) { server, identity, client, clock in
            @Sendable func held() throws -> Secret? {
                try server.get(Secret.self, namespace: secretName.namespace, name: secretName.name)
            }
            try await server.writes.wait { _ in (try? bundles(server))?.allSatisfy { $0 != nil } ?? false }
            let first = try #require(try held()?.bytes("tls.crt"))
            while identity.context == nil { await Task.yield() }
            // A second replica takes the same.
            let second = WebhookIdentity(
                source: .managed(secret: secretName, names: ["localhost"], configuration: "moongate"),
                clientAuthority: nil, client: client, clock: clock, log: quiet)
            let task = Task { await second.keep() }
            while second.context == nil { await Task.yield() }
            #expect(try held()?.bytes("tls.crt") == first)
            try await clock.sleeping.wait { $0.now == 2 }
            clock.advance(by: .seconds(250 * 86_400))
            try await server.writes.wait { _ in (try? held()?.bytes("tls.crt")) != first }
            let renewed = try #require(try held())
            let authority = String(decoding: try #require(renewed.bytes("ca.crt")), as: UTF8.self)
            #expect(authority.contains(String(decoding: first, as: UTF8.self)))
            #expect(
                authority.contains(String(decoding: try #require(renewed.bytes("tls.crt")), as: UTF8.self)))
            try await server.writes.wait { _ in
                (try? bundles(server).first)??.text == Base64(Array(authority.utf8)).text
            }
            task.cancel()
            await task.value
        }
    }

    /// Until it is, the API server refuses every Ingress.
    @Test func `an authority that is lost is made known again soon`() async throws {
        try await withIdentity(clock: ManualClock()) { server, identity, _, clock in
            try await server.writes.wait { _ in (try? bundles(server))?.allSatisfy { $0 != nil } ?? false }
            try await clock.sleeping.wait { $0.now == 1 }
            try server.delete(ValidatingWebhookConfiguration.self, namespace: "", name: "moongate")
            try server.apply(configuration())
            #expect(try bundles(server) == [nil, nil])
            clock.advance(by: .seconds(30))
            try await server.writes.wait { _ in (try? bundles(server))?.allSatisfy { $0 != nil } ?? false }
        }
    }

    @Test func `where replicas begin together, one certificate counts`() async throws {
        try await withIdentity(clock: ManualClock()) { server, _, client, clock in
            let others = (0..<4).map { _ in
                WebhookIdentity(
                    source: .managed(secret: secretName, names: ["localhost"], configuration: "moongate"),
                    clientAuthority: nil, client: client, clock: clock, log: quiet)
            }
            let tasks = others.map { identity in Task { await identity.keep() } }
            for other in others { while other.context == nil { await Task.yield() } }
            let secret = try #require(try server.get(Secret.self, namespace: "edge", name: "moongate-webhook"))
            try await server.writes.wait { _ in (try? bundles(server).first)??.bytes == secret.bytes("ca.crt") }
            for task in tasks {
                task.cancel()
                await task.value
            }
        }
    }
}
