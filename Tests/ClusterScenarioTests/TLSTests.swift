// Certificates and session tickets through the real program in a cluster: Secrets come, change and break, and clients of
// OpenSSL see what is served.

import Admission
import ClusterTesting
import Foundation
import KubernetesAPI
import KubernetesClient
import MoongateTesting
import Testing

extension Stage {
    /// The output of commands of a shell, which may fail.
    func shell(_ commands: String) async throws -> String {
        let folder = folder
        return await blocking {
            let process = Process()
            process.executableURL = URL(fileURLWithPath: "/bin/bash")
            process.arguments = ["-c", commands]
            process.currentDirectoryURL = URL(fileURLWithPath: folder)
            process.environment = ["PATH": ProcessInfo.processInfo.environment["PATH"] ?? "", "DIR": folder + "/made"]
            let pipe = Pipe()
            process.standardOutput = pipe
            process.standardError = FileHandle.nullDevice
            guard (try? process.run()) != nil else { return "" }
            let output = pipe.fileHandleForReading.readDataToEndOfFile()
            process.waitUntilExit()
            return String(decoding: output, as: UTF8.self)
        }
    }

    /// A Secret of the namespace shop with a certificate for these hosts. Days below zero: it has expired.
    func certificate(_ name: String, days: String = "30", _ hosts: String...) async throws -> Secret {
        let script = Stage.root + "/Tests/Scenarios/tls-secret.sh"
        _ = try await shell(
            "mkdir -p made; '\(script)' \(name) ec \(days) \(hosts.map { "'\($0)'" }.joined(separator: " "))")
        func read(_ part: String) throws -> Base64 {
            guard let data = FileManager.default.contents(atPath: "\(folder)/\(name).\(part)") else {
                throw StageFailure(description: "no \(name).\(part) was made")
            }
            return Base64(Array(data))
        }
        return Secret(
            metadata: ObjectMeta(name: name, namespace: "shop"), type: "kubernetes.io/tls",
            data: ["tls.crt": try read("crt"), "tls.key": try read("key")])
    }

    /// What a client of OpenSSL saw of a request for shop.test: `Reused` or `New`, and the subject that it was shown. The
    /// session of the file `resume` is taken up, and the one that was given is kept in `keep`.
    func handshake(
        _ replica: Replica, resume: String? = nil, keep: String? = nil
    ) async throws -> (session: String, subject: String) {
        let address = try #require(replica.https)
        let text = try await shell(
            "printf 'GET / HTTP/1.1\\r\\nHost: shop.test\\r\\nConnection: close\\r\\n\\r\\n' | timeout 20 openssl "
                + "s_client -connect \(address) -servername shop.test -ign_eof "
                + (resume.map { "-sess_in \($0) " } ?? "") + (keep.map { "-sess_out \($0)" } ?? ""))
        func line(_ start: String) -> String {
            text.split(separator: "\n").first { $0.hasPrefix(start) }.map(String.init) ?? ""
        }
        let subject = line("subject=").replacing(" ", with: "").dropFirst("subject=CN=".count)
        return (String((line("Reused,") + line("New,")).prefix { $0 != "," }), String(subject))
    }

    /// Returns when an Event with this reason tells that of the object.
    func waitForEvent(_ reason: String, about kind: String, _ name: String, saying text: String) async throws {
        try await cluster.wait(for: "the Event \(reason)") { cluster in
            try await cluster.all(Event.self).contains {
                $0.reason == reason && $0.regarding?.kind == kind && $0.regarding?.name == name
                    && $0.note?.contains(text) == true
            }
        }
    }
}

/// The keys of a real cluster's Secrets are nobody's to break.
@Suite(.timeLimit(.minutes(10)), .faults) struct TLSTests {
    private static let shared = ["--ticket-keys-secret", "edge/tickets"]

    private func tickets(_ stage: Stage) async throws -> Secret? {
        try await stage.cluster.get(Secret.self, namespace: "edge", name: "tickets")
    }

    @Test func `a session of one replica is resumed at another, also right after its keys were changed`() async throws {
        try await Stage.play { stage in
            try await stage.openShop()
            let first = try await stage.replica("first", Self.shared)
            try await first.waitUntilReady()
            try await stage.cluster.wait(for: "keys") { _ in try await tickets(stage)?.bytes("ticket.keys")?.count == 80
            }
            let second = try await stage.replica("second", Self.shared)
            try await second.waitUntilReady()
            // The Secret has come by the watch as soon as one opens what the other has sealed.
            try await stage.until("shared keys") {
                _ = try await stage.handshake(first, keep: "s")
                return try await stage.handshake(second, resume: "s").session == "Reused"
            }
            // Whoever leads next finds keys that are due.
            var secret = try #require(try await tickets(stage))
            let old = try #require(secret.bytes("ticket.keys"))
            secret.metadata.annotations["moongate.dev/ticket-key-made"] = "2020-01-01T00:00:00Z"
            try await stage.cluster.apply(secret)
            first.process.send(signal: SIGTERM)
            #expect(await first.waitForExit() == .code(0))
            try await stage.cluster.wait(for: "another key") { _ in
                try await tickets(stage)?.bytes("ticket.keys")?.dropFirst(80) == old[...]
            }
            #expect(try await stage.handshake(second, resume: "s", keep: "t").session == "Reused")
            // A replica that begins now opens both.
            let third = try await stage.replica("third", Self.shared)
            try await third.waitUntilReady()
            for session in ["s", "t"] {
                #expect(try await stage.handshake(third, resume: session).session == "Reused", "\(session)")
            }
        }
    }

    @Test func `keys that can't be read leave the last good ones in force, and say so`() async throws {
        try await Stage.play { stage in
            try await stage.openShop()
            // Of an operator, who makes and changes them himself.
            let secret = Secret(
                metadata: ObjectMeta(name: "tickets", namespace: "edge"),
                data: ["ticket.keys": Base64((0..<80).map { UInt8($0) })])
            try await stage.cluster.apply(secret)
            var replicas: [Replica] = []
            for name in ["first", "second"] {
                let replica = try await stage.replica(name, Self.shared)
                try await replica.waitUntilReady()
                replicas.append(replica)
            }
            try await stage.until("shared keys") {
                _ = try await stage.handshake(replicas[0], keep: "s")
                return try await stage.handshake(replicas[1], resume: "s").session == "Reused"
            }
            var broken = secret
            broken.data["ticket.keys"] = Base64([1, 2, 3])
            try await stage.cluster.apply(broken)
            for replica in replicas { try await replica.wait(for: "/diagnostics") { $0.contains("MG339") } }
            try await stage.waitForEvent("BadTicketKeys", about: "Secret", "tickets", saying: "has 3 bytes")
            for session in ["s", "t"] {
                for replica in replicas {
                    #expect(try await stage.handshake(replica, resume: session).session == "Reused")
                }
                _ = try await stage.handshake(replicas[0], keep: "t")
            }
            #expect(try await tickets(stage)?.bytes("ticket.keys") == [1, 2, 3], "it is not ours to mend")
            try await stage.cluster.apply(secret)
            for replica in replicas { try await replica.wait(for: "/diagnostics") { !$0.contains("MG339") } }
        }
    }

    @Test func `what is wrong with a certificate is an Event on its Ingress, and the one before serves on`()
        async throws
    {
        try await Stage.play { stage in
            try await stage.openShop()
            try await stage.cluster.apply(ingress("web", tls: "web"))
            let replica = try await stage.replica()
            try await replica.waitUntilReady()
            try await stage.waitForEvent("NoSecret", about: "Ingress", "web", saying: "shop/web")
            func give(_ made: Secret) async throws {
                var secret = made
                secret.metadata.name = "web"
                try await stage.cluster.apply(secret)
            }
            try await give(try await stage.certificate("good", "shop.test"))
            try await stage.until("the certificate") { try await stage.handshake(replica).subject == "good" }
            var mixed = try await stage.certificate("mixed", "shop.test")
            mixed.data["tls.key"] = try await stage.certificate("else", "shop.test").data["tls.key"]
            for (secret, reason, text) in [
                (mixed, "BadCertificate", "the last good certificate serves"),
                (try await stage.certificate("late", days: "-1", "shop.test"), "CertificateExpired", "on 2021-01-01"),
                (try await stage.certificate("foreign", "else.test"), "CertificateName", "but for else.test"),
            ] {
                try await give(secret)
                try await stage.waitForEvent(reason, about: "Ingress", "web", saying: text)
                #expect(try await stage.handshake(replica).subject == "good", "\(reason)")
            }
            try await give(try await stage.certificate("new", "shop.test"))
            try await stage.until("the renewed one") { try await stage.handshake(replica).subject == "new" }
        }
    }

    @Test func `a certificate that expires while it serves is an Event before and when it has`() async throws {
        try await Stage.play { stage in
            try await stage.openShop()
            try await stage.cluster.apply(try await stage.certificate("short", days: "15s", "shop.test"))
            try await stage.cluster.apply(ingress("web", tls: "short"))
            let replica = try await stage.replica()
            try await replica.waitUntilReady()
            try await stage.waitForEvent("CertificateExpiring", about: "Ingress", "web", saying: "shop/short")
            try await stage.waitForEvent("CertificateExpired", about: "Ingress", "web", saying: "serves all the same")
            #expect(try await stage.handshake(replica).subject == "short")
            try await replica.wait(for: "/metrics") { $0.contains("moongate_tls_certificates{state=\"expired\"} 1\n") }
        }
    }
}
