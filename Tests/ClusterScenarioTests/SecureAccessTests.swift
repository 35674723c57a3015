// The real program on its way to an API server that speaks TLS, as every real one does: whom it believes, what it shows of
// itself, and what it says when it is not let in.

import ClusterTesting
import Foundation
import KubernetesAPI
import KubernetesClient
import MoongateTesting
import NIOSSL
import Testing

/// Authorities and certificates, made by openssl in the folder of the stage.
private struct Authorities {
    let folder: String

    init(_ stage: Stage) throws {
        folder = stage.folder
        try run(
            """
            ec="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
            for ca in ca stranger; do
              openssl req -x509 $ec -keyout $ca.key -out $ca.crt -days 30 -subj /CN=$ca
            done
            sign() { # NAME SUBJECT EXTENSION
              openssl req -new $ec -keyout $1.key -out $1.csr -subj "$2"
              printf '%s\\n' "$3" > $1.ext
              openssl x509 -req -in $1.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out $1.crt -extfile $1.ext
            }
            sign server /CN=server subjectAltName=IP:127.0.0.1,DNS:api.test
            sign named /CN=named subjectAltName=DNS:api.test
            sign client /O=edge/CN=moongate extendedKeyUsage=clientAuth
            """)
    }

    private func run(_ script: String) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        process.arguments = ["-ec", script]
        process.currentDirectoryURL = URL(fileURLWithPath: folder)
        process.standardError = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else { throw StageFailure(description: "openssl made no certificates") }
    }

    /// What an API server speaks TLS with; `asks`: it lets in only who shows a certificate of its authority.
    func server(_ name: String = "server", asks: Bool = false) throws -> TLSConfiguration {
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: try NIOSSLCertificate.fromPEMFile("\(folder)/\(name).crt").map { .certificate($0) },
            privateKey: .privateKey(try NIOSSLPrivateKey(file: "\(folder)/\(name).key", format: .pem)))
        if asks {
            configuration.trustRoots = .certificates(try NIOSSLCertificate.fromPEMFile("\(folder)/ca.crt"))
            configuration.certificateVerification = .noHostnameVerification
        }
        return configuration
    }

    func base64(_ name: String) throws -> String {
        try Data(contentsOf: URL(fileURLWithPath: "\(folder)/\(name)")).base64EncodedString()
    }
}

/// An API server with TLS, and the shop in it.
private func secureShop(_ stage: Stage, _ tls: TLSConfiguration) async throws -> APIServer {
    let server = APIServer(tls: tls, allowsLoopbackEndpoints: true)
    try await server.start()
    stage.atEnd { try? await server.stop() }
    for name in ["edge", "shop"] { try server.addNamespace(name) }
    let pod = try await stage.pod("v1")
    try server.apply(moongateClass())
    try server.apply(service("web"))
    try server.apply(slice("web-1", port: pod.port, ready(pod.host)))
    try server.apply(ingress("web"))
    return server
}

private func kubeconfig(_ stage: Stage, _ server: APIServer, cluster: String, user: String) throws -> String {
    try stage.write(
        "kubeconfig-\(UUID().uuidString)",
        """
        apiVersion: v1
        kind: Config
        current-context: test
        clusters: [{name: test, cluster: {server: "\(server.url)", \(cluster)}}]
        users: [{name: test, user: \(user)}]
        contexts: [{name: test, context: {cluster: test, user: test, namespace: edge}}]
        """)
}

@Suite(.timeLimit(.minutes(10)), .faults) struct SecureAccessTests {
    @Test func `a client certificate lets in, from files and in the kubeconfig itself`() async throws {
        try await Stage.play { stage in
            let authorities = try Authorities(stage)
            let server = try await secureShop(stage, try authorities.server(asks: true))
            let files = try kubeconfig(
                stage, server, cluster: "certificate-authority: \(stage.folder)/ca.crt",
                user: "{client-certificate: \(stage.folder)/client.crt, client-key: \(stage.folder)/client.key}")
            let first = try await stage.replica("first", kubeconfig: files)
            try await first.waitUntilReady()
            #expect(try await first.get() == Client.Answer(status: 200, body: "v1"))
            let log = first.process.output.read { $0.errorLines.joined(separator: "\n") }
            #expect(log.contains("the client certificate in \(stage.folder)/client.crt"))
            #expect(!log.contains("no credential"))

            let data = try kubeconfig(
                stage, server, cluster: "certificate-authority-data: \(try authorities.base64("ca.crt"))",
                user:
                    "{client-certificate-data: \(try authorities.base64("client.crt")), client-key-data: \(try authorities.base64("client.key"))}"
            )
            let second = try await stage.replica("second", kubeconfig: data)
            try await second.waitUntilReady()

            // Without one, the server does not talk.
            let bare = try kubeconfig(
                stage, server, cluster: "certificate-authority: \(stage.folder)/ca.crt", user: "{}")
            let third = try await stage.replica("third", kubeconfig: bare)
            try await third.waitForLog("A watch is in trouble")
            #expect(await third.page("/readyz").hasPrefix("503"))
        }
    }

    @Test func `an unknown authority is told once, with what to do, and may be believed all the same`() async throws {
        try await Stage.play { stage in
            let authorities = try Authorities(stage)
            let server = try await secureShop(stage, try authorities.server())
            server.accept(tokens: ["good"])
            let stranger = try kubeconfig(
                stage, server, cluster: "certificate-authority: \(stage.folder)/stranger.crt", user: "{token: good}")
            let first = try await stage.replica("first", ["--log-level", "debug"], kubeconfig: stranger)
            try await first.waitForLog("is of no authority that is trusted")
            // Each kind has tried, and told the experts.
            for kind in ["ingresses", "services", "endpointslices"] {
                let output = first.process.output
                let told = await blocking {
                    output.wait(by: Deadline(after: .seconds(30))) { state in
                        state.errorLines.contains {
                            $0.contains("A watch is in trouble") && $0.contains("resource=\(kind)")
                        } ? true : nil
                    }
                }
                #expect(told == true, "\(kind)")
            }
            let lines = first.process.output.read { $0.errorLines }
            let troubles = lines.filter { $0.contains("A watch is in trouble") && $0.contains(" warning ") }
            #expect(troubles.count == 1, "\(troubles)")
            #expect(troubles.first?.contains("certificate-authority") == true)
            for text in ["NIOSSL", "checkouts", ".cc"] { #expect(!lines.contains { $0.contains(text) }, "\(lines)") }

            let careless = try kubeconfig(
                stage, server, cluster: "insecure-skip-tls-verify: true", user: "{token: good}")
            let second = try await stage.replica("second", kubeconfig: careless)
            try await second.waitUntilReady()
            #expect(try await second.get() == Client.Answer(status: 200, body: "v1"))

            let refused = try kubeconfig(
                stage, server, cluster: "certificate-authority: \(stage.folder)/ca.crt", user: "{token: bad}")
            let third = try await stage.replica("third", kubeconfig: refused)
            try await third.waitForLog("does not take our credential")
        }
    }

    @Test func `a name that the certificate does not have is told, and tls-server-name mends it`() async throws {
        try await Stage.play { stage in
            let authorities = try Authorities(stage)
            let server = try await secureShop(stage, try authorities.server("named"))
            let authority = "certificate-authority: \(stage.folder)/ca.crt"
            let first = try await stage.replica(
                "first", kubeconfig: try kubeconfig(stage, server, cluster: authority, user: "{}"))
            try await first.waitForLog("is for other names than that of its address")
            let second = try await stage.replica(
                "second",
                kubeconfig: try kubeconfig(
                    stage, server, cluster: "\(authority), tls-server-name: api.test", user: "{}"))
            try await second.waitUntilReady()
        }
    }

    /// A mount namespace of our own, in which the kubelet's folder can be made.
    private static let canMount: Bool = {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["unshare", "-r", "-m", "mount", "-t", "tmpfs", "none", "/run"]
        process.standardError = FileHandle.nullDevice
        guard (try? process.run()) != nil else { return false }
        process.waitUntilExit()
        return process.terminationStatus == 0
    }()

    @Test(.enabled(if: canMount, "mounts of one's own are not allowed here"))
    func `a pod is let in by its service account`() async throws {
        try await Stage.play { stage in
            let authorities = try Authorities(stage)
            let server = try await secureShop(stage, try authorities.server())
            server.accept(tokens: ["of-the-account"])
            let address = server.url.dropFirst("https://".count).split(separator: ":")
            _ = try stage.write("token", "of-the-account\n")
            _ = try stage.write("namespace", "edge")
            // /var/run is a link to /run.
            let shell = """
                set -e; mount -t tmpfs none /run
                mkdir -p \(ClusterAccess.serviceAccountFolder)
                cp \(authorities.folder)/token \(authorities.folder)/namespace \(authorities.folder)/ca.crt \
                   \(ClusterAccess.serviceAccountFolder)
                exec "$0" "$@"
                """
            let replica = try await stage.replica(
                program: ["/usr/bin/env", "unshare", "-r", "-m", "/bin/sh", "-c", shell, Stage.binary], isPod: true,
                environment: [
                    "KUBERNETES_SERVICE_HOST": String(address[0]), "KUBERNETES_SERVICE_PORT": String(address[1]),
                ])
            try await replica.waitUntilReady()
            #expect(try await replica.get() == Client.Answer(status: 200, body: "v1"))
            try await replica.waitForLog("the token in \(ClusterAccess.serviceAccountFolder)/token")
        }
    }
}
