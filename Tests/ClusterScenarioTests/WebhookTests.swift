// The admission webhook of the real program, asked as an API server asks: over TLS, by the name of its Service, believed by
// the CA bundle that it has made known.

import Admission
import ClusterTesting
import Foundation
import KubernetesAPI
import KubernetesClient
import Logging
import MoongateTesting
import Testing

private let configurationName = "moongate"

private func configuration() -> ValidatingWebhookConfiguration {
    let service = ValidatingWebhookConfiguration.Webhook.ClientConfig.Service(
        namespace: "edge", name: "moongate-webhook")
    return ValidatingWebhookConfiguration(
        metadata: ObjectMeta(name: configurationName),
        webhooks: ["ingresses.moongate.dev", "scripts.moongate.dev"].map {
            .init(name: $0, clientConfig: .init(service: service))
        })
}

/// An API server's side of the webhook.
private struct Asker {
    let client: APIClient

    /// - Parameter authority: nil trusts what the system trusts.
    init(
        _ replica: Replica, _ stage: Stage, authority: [UInt8]?, skipsVerification: Bool = false
    ) throws {
        guard let address = replica.webhook else { throw StageFailure(description: "there is no webhook") }
        var access = ClusterAccess(
            server: "https://\(address)", certificateAuthority: authority.map { .inline($0) },
            serverName: "moongate-webhook.edge.svc")
        access.skipsVerification = skipsVerification
        let client = APIClient(access: access, log: Logger(label: "asker") { _ in SwiftLogNoOpLogHandler() })
        self.client = client
        stage.atEnd { await client.shutdown() }
    }

    struct Answer: Decodable {
        struct Response: Decodable {
            struct Status: Decodable { var message: String }
            var uid: String
            var allowed: Bool
            var status: Status?
            var warnings: [String]?
        }
        var response: Response
    }

    func ask(_ object: some APIResource & Encodable) async throws -> Answer.Response {
        let kind = type(of: object).kind
        let group = kind == Ingress.kind ? "networking.k8s.io" : ""
        let json = String(decoding: try JSONEncoder().encode(object), as: UTF8.self)
        let body = """
            {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "one", "kind":
            {"group": "\(group)", "version": "v1", "kind": "\(kind)"}, "operation": "CREATE", "object": \(json)}}
            """
        let answer = try await client.send(
            APIRequest(.post, "/validate", body: Array(body.utf8), contentType: "application/json"))
        return try JSONDecoder().decode(Answer.self, from: answer.body).response
    }
}

private func script(_ text: String) -> ConfigMap {
    var metadata = ObjectMeta(name: "script", namespace: "shop")
    metadata.labels["moongate.dev/script"] = "true"
    return ConfigMap(metadata: metadata, data: ["main.lua": text])
}

/// Its top level never ends, and would leave the process.
private let hostile = script("while true do os.execute('touch /tmp/x'); io.open('/etc/passwd') end return {}")

/// A real API server would ask the webhook by a Service that leads nowhere.
@Suite(.timeLimit(.minutes(10)), .faults) struct WebhookTests {
    private func authority(_ stage: Stage) async throws -> [UInt8] {
        try await stage.cluster.wait(for: "the CA bundle") { cluster in
            let found = try await cluster.get(
                ValidatingWebhookConfiguration.self, namespace: "", name: configurationName)
            return found?.webhooks?.allSatisfy { $0.clientConfig.caBundle != nil } ?? false
        }
        let found = try await stage.cluster.get(
            ValidatingWebhookConfiguration.self, namespace: "", name: configurationName)
        return try #require(found?.webhooks?.first?.clientConfig.caBundle?.bytes)
    }

    @Test func `the webhook is believed by the bundle that it makes known, and says what is wrong`() async throws {
        try await Stage.play { stage in
            try await stage.openShop()
            try await stage.cluster.apply(configuration())
            let replica = try await stage.replica("first", ["--webhook", "127.0.0.1:0"])
            try await replica.waitUntilReady()
            try await replica.waitForLog("The webhook shows a new certificate")
            let authority = try await authority(stage)
            let asker = try Asker(replica, stage, authority: authority)

            let good = try await asker.ask(ingress("new", host: "new.test"))
            #expect(good.allowed && good.uid == "one" && good.warnings == nil)
            let late = try await asker.ask(ingress("new", host: "new.test", service: "later"))
            #expect(late.allowed)
            #expect(late.warnings?.contains { $0.contains("MG130") } == true)
            let bad = try await asker.ask(ingress("new", host: "new_host.test/x"))
            #expect(!bad.allowed)
            #expect(bad.status?.message.contains("spec.rules[0].host") == true)
            #expect(try await asker.ask(script("return {}")).allowed)
            let broken = try await asker.ask(script("return {"))
            #expect(!broken.allowed)
            #expect(broken.status?.message.contains("data[main.lua]") == true)
            // Compiled, and never run.
            #expect(try await asker.ask(hostile).allowed)

            // Who does not know the authority does not believe it, and who does not care asks all the same.
            let stranger = try Asker(replica, stage, authority: nil)
            await #expect(throws: APIError.self) { try await stranger.ask(script("return {}")) }
            let careless = try Asker(replica, stage, authority: nil, skipsVerification: true)
            #expect(try await careless.ask(script("return {}")).allowed)

            // Another replica shows the same certificate.
            let second = try await stage.replica("second", ["--webhook", "127.0.0.1:0"])
            try await second.waitUntilReady()
            try await second.waitForLog("The webhook shows a new certificate")
            let other = try Asker(second, stage, authority: authority)
            #expect(try await other.ask(script("return {}")).allowed)

            // Given in files, it is the operator's, and nobody is told of it.
            let secret = try #require(
                try await stage.cluster.get(Secret.self, namespace: "edge", name: "moongate-webhook"))
            func file(_ key: String) throws -> String {
                try stage.write(key, String(decoding: try #require(secret.bytes(key)), as: UTF8.self))
            }
            let third = try await stage.replica(
                "third",
                [
                    "--webhook", "127.0.0.1:0", "--webhook-certificate", try file("tls.crt"), "--webhook-key",
                    try file("tls.key"),
                ])
            try await third.waitUntilReady()
            try await third.waitForLog("The webhook shows a new certificate")
            let given = try Asker(third, stage, authority: authority)
            #expect(try await given.ask(script("return {")).allowed == false)

            try await replica.wait(for: "/metrics") {
                $0.contains("moongate_admission_reviews_total{answer=\"allowed\"} 5\n")
                    && $0.contains("moongate_admission_reviews_total{answer=\"refused\"} 2\n")
            }
        }
    }

    /// The Secret of a certificate that replicas made so many days ago.
    private func keep(_ stage: Stage, madeBefore days: Double) async throws -> WebhookCertificate {
        let made = try WebhookCertificate.make(
            names: ["", ".cluster.local"].map { "moongate-webhook.edge.svc\($0)" },
            now: Date(timeIntervalSinceNow: -days * 86_400))
        let certificate = Base64(Array(made.certificate.utf8))
        try await stage.cluster.apply(
            Secret(
                metadata: ObjectMeta(name: "moongate-webhook", namespace: "edge"), type: "kubernetes.io/tls",
                data: ["tls.crt": certificate, "ca.crt": certificate, "tls.key": Base64(Array(made.key.utf8))]))
        return made
    }

    /// Returns the CA bundle when there are so many certificates in it, and this one is none of them any more, or still is.
    private func bundle(
        _ stage: Stage, of count: Int, _ old: WebhookCertificate, isIn: Bool
    ) async throws -> [UInt8] {
        var found: [UInt8] = []
        try await stage.cluster.wait(for: "another CA bundle") { cluster in
            found =
                try await cluster.get(ValidatingWebhookConfiguration.self, namespace: "", name: configurationName)?
                .webhooks?.first?.clientConfig.caBundle?.bytes ?? []
            let text = String(decoding: found, as: UTF8.self)
            return text.components(separatedBy: "BEGIN CERTIFICATE").count == count + 1
                && text.contains(old.certificate) == isIn
        }
        return found
    }

    @Test func `a webhook whose certificate grows old shows a new one, and every review is answered`() async throws {
        try await Stage.play { stage in
            try await stage.openShop()
            try await stage.cluster.apply(configuration())
            let old = try await keep(stage, madeBefore: 300)
            // One that shows the old certificate on, as replicas do that have not looked again.
            let first = try await stage.replica(
                "first",
                [
                    "--webhook", "127.0.0.1:0", "--webhook-certificate", try stage.write("crt", old.certificate),
                    "--webhook-key", try stage.write("key", old.key),
                ])
            try await first.waitUntilReady()
            try await first.waitForLog("The webhook shows a new certificate")
            let before = try Asker(first, stage, authority: Array(old.certificate.utf8))
            #expect(try await before.ask(script("return {}")).allowed)

            let second = try await stage.replica("second", ["--webhook", "127.0.0.1:0"])
            try await second.waitUntilReady()
            // Both are believed by what the API server knows now; whoever knows the old one alone believes the old one.
            let both = try await bundle(stage, of: 2, old, isIn: true)
            try await second.waitForLog("The webhook shows a new certificate")
            for replica in [first, second] {
                #expect(try await Asker(replica, stage, authority: both).ask(script("return {}")).allowed)
            }
            #expect(try await before.ask(script("return {}")).allowed)
            let late = try Asker(second, stage, authority: Array(old.certificate.utf8))
            await #expect(throws: APIError.self) { try await late.ask(script("return {}")) }

            // One that is over already is believed by nobody.
            let over = try await keep(stage, madeBefore: 400)
            let third = try await stage.replica("third", ["--webhook", "127.0.0.1:0"])
            try await third.waitUntilReady()
            let fresh = try await bundle(stage, of: 1, over, isIn: false)
            try await third.waitForLog("The webhook shows a new certificate")
            #expect(try await Asker(third, stage, authority: fresh).ask(script("return {}")).allowed)
        }
    }

    private static let strace = ["/usr/bin/strace", "/bin/strace"].first {
        FileManager.default.isExecutableFile(atPath: $0)
    }

    /// A sandbox may forbid it. Where evidence is asked for (`MOONGATE_EVIDENCE=1`), that is no excuse.
    private static let canTrace: Bool = {
        if ProcessInfo.processInfo.environment["MOONGATE_EVIDENCE"] == "1" { return true }
        guard let strace else { return false }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: strace)
        process.arguments = ["-D", "-f", "-o", "/dev/null", "true"]
        process.standardError = FileHandle.nullDevice
        guard (try? process.run()) != nil else { return false }
        process.waitUntilExit()
        return process.terminationStatus == 0
    }()

    /// The kernel's own word that a question runs no program, opens no file and calls nobody.
    @Test(.enabled(if: canTrace, "strace is not installed, or the system does not allow tracing"))
    func `questions make the process run, open and call nothing`() async throws {
        let strace = try #require(Self.strace)
        try await Stage.play { stage in
            try await stage.openShop()
            try await stage.cluster.apply(configuration())
            let trace = stage.folder + "/trace"
            // Traced from its start, so that nobody need be allowed to attach. Nothing else is to happen meanwhile.
            let replica = try await stage.replica(
                "moongate", ["--webhook", "127.0.0.1:0", "--no-election"],
                program: [
                    strace, "-D", "-f", "-o", trace, "-e",
                    "trace=execve,execveat,fork,vfork,open,openat,openat2,creat,socket,connect,unlink,unlinkat,rename",
                    Stage.binary,
                ])
            try await replica.waitUntilReady()
            // The authority is made known before what it signed is shown.
            try await replica.waitForLog("The webhook shows a new certificate")
            let asker = try Asker(replica, stage, authority: try await authority(stage))
            // What is read once, the first time, is no matter of the question.
            _ = try await asker.ask(ingress("new", host: "new.test"))
            func calls() throws -> [Substring] {
                try String(contentsOfFile: trace, encoding: .utf8).split(separator: "\n").filter {
                    !$0.contains("+++") && !$0.contains("---") && !$0.contains("resumed")
                }
            }
            let before = try calls()
            // The tracer sees: the program itself was run, and has opened its files.
            #expect(before.contains { $0.contains("execve(") } && before.contains { $0.contains("openat(") })
            for _ in 0..<50 {
                _ = try await asker.ask(hostile)
                _ = try await asker.ask(script("return {"))
                _ = try await asker.ask(
                    ingress("new", host: "new.test", annotations: ["moongate.dev/script": "plugin/cookie-canary"]))
                _ = try await asker.ask(ingress("new", host: "../../etc/passwd", path: "/$(id)"))
            }
            let meanwhile = try calls().dropFirst(before.count)
            #expect(meanwhile.isEmpty, "\(meanwhile.prefix(10))")
        }
    }
}
