// A credential from a command (client.authentication.k8s.io): what is told to it, what it prints, and its bounds.

import Foundation
package import KubernetesAPI

/// What a plugin printed.
package struct ExecCredential: Sendable, Equatable {
    package static let versions = ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"]

    package var token: String?
    package var certificate: [UInt8]?
    package var key: [UInt8]?
    package var expiry: Timestamp?

    private struct Printed: Decodable {
        struct Status: Decodable {
            var token: String?
            var clientCertificateData: String?
            var clientKeyData: String?
            var expirationTimestamp: Timestamp?
        }

        var apiVersion: String?
        var kind: String?
        var status: Status?
    }

    /// Refuses another kind or version than was asked for, and a status without a credential.
    package init(printed: [UInt8], by plugin: ExecPlugin) throws(AccessError) {
        func refuse(_ problem: String) -> AccessError {
            AccessError(
                "the credential plugin \(plugin.command) \(problem)",
                mend: "run it by hand and look at what it prints; it must be an ExecCredential of \(plugin.apiVersion)")
        }
        guard let printed = try? JSONDecoder().decode(Printed.self, from: Data(printed)) else {
            // What it printed may hold the credential: never quote it.
            throw refuse("printed something that is not an ExecCredential")
        }
        guard printed.kind == "ExecCredential", printed.apiVersion == plugin.apiVersion else {
            throw refuse("printed a \(printed.kind ?? "thing without a kind") of \(printed.apiVersion ?? "no version")")
        }
        guard let status = printed.status else { throw refuse("printed no status") }
        token = status.token.flatMap { $0.isEmpty ? nil : $0 }
        certificate = status.clientCertificateData.flatMap { $0.isEmpty ? nil : Array($0.utf8) }
        key = status.clientKeyData.flatMap { $0.isEmpty ? nil : Array($0.utf8) }
        expiry = status.expirationTimestamp
        guard token != nil || certificate != nil else { throw refuse("gave neither a token nor a certificate") }
        guard (certificate == nil) == (key == nil) else { throw refuse("gave a certificate without its key") }
    }

    private struct Told: Encodable {
        struct Spec: Encodable {
            struct Cluster: Encodable {
                var server: String
                var tlsServerName: String?
                var insecureSkipTLSVerify: Bool?
                var certificateAuthorityData: String?

                enum CodingKeys: String, CodingKey {
                    case server
                    case tlsServerName = "tls-server-name"
                    case insecureSkipTLSVerify = "insecure-skip-tls-verify"
                    case certificateAuthorityData = "certificate-authority-data"
                }
            }

            var interactive: Bool
            var cluster: Cluster?
        }

        var apiVersion: String
        var kind = "ExecCredential"
        var spec: Spec
    }

    /// Runs the plugin; it gets a minute and may print a mebibyte.
    package static func run(
        _ plugin: ExecPlugin, for access: ClusterAccess, limit: Duration = .seconds(60)
    ) async throws(AccessError) -> ExecCredential {
        var told = Told(apiVersion: plugin.apiVersion, spec: Told.Spec(interactive: false))
        if plugin.providesClusterInfo {
            let authority = access.certificateAuthority.flatMap { source -> [UInt8]? in
                switch source {
                case .inline(let bytes): bytes
                case .file(let path): (try? Data(contentsOf: URL(filePath: path))).map(Array.init)
                }
            }
            told.spec.cluster = Told.Spec.Cluster(
                server: access.server, tlsServerName: access.serverName,
                insecureSkipTLSVerify: access.skipsVerification ? true : nil,
                certificateAuthorityData: authority.map { Base64($0).text })
        }
        guard let info = try? JSONEncoder().encode(told) else {
            throw AccessError("the cluster's description can't be written as JSON", mend: "report this as a bug")
        }
        var environment = ProcessInfo.processInfo.environment
        environment.merge(plugin.environment) { $1 }
        environment["KUBERNETES_EXEC_INFO"] = String(decoding: info, as: UTF8.self)
        let command = CommandRun(plugin.command, plugin.arguments, environment: environment)
        let result = await command.run(limit: limit)
        switch result {
        case .failure(let error):
            let hint = plugin.installHint.map { " (\($0))" } ?? ""
            throw AccessError(
                "the credential plugin \(plugin.command) \(error.problem)",
                mend: "see that it is installed and on the PATH\(hint), and that it works by hand")
        case .success(let printed): return try ExecCredential(printed: printed, by: plugin)
        }
    }
}
