// A kubeconfig file, as kubectl reads it: clusters, users and contexts by name.

import FoundationEssentials
import KubernetesAPI
import Yams

/// What a kubeconfig says. Keys that Moongate has no use for are ignored; names that lead nowhere are refused when a
/// context is chosen.
package struct Kubeconfig: Sendable {
    private var clusters: [String: Cluster] = [:]
    private var users: [String: User] = [:]
    private var contexts: [String: Context] = [:]
    private var currentContext: String?

    private struct File: Decodable {
        struct NamedCluster: Decodable {
            var name: String
            var cluster: Cluster?
        }
        struct NamedUser: Decodable {
            var name: String
            var user: User?
        }
        struct NamedContext: Decodable {
            var name: String
            var context: Context?
        }

        var clusters: [NamedCluster]?
        var users: [NamedUser]?
        var contexts: [NamedContext]?
        var currentContext: String?

        enum CodingKeys: String, CodingKey {
            case clusters, users, contexts
            case currentContext = "current-context"
        }
    }

    private struct Cluster: Decodable, Sendable {
        var server: String?
        var authorityFile: String?
        var authorityData: String?
        var skipsVerification: Bool?
        var serverName: String?
        var proxy: String?

        enum CodingKeys: String, CodingKey {
            case server
            case authorityFile = "certificate-authority"
            case authorityData = "certificate-authority-data"
            case skipsVerification = "insecure-skip-tls-verify"
            case serverName = "tls-server-name"
            case proxy = "proxy-url"
        }
    }

    private struct User: Decodable, Sendable {
        var token: String?
        var tokenFile: String?
        var username: String?
        var password: String?
        var certificateFile: String?
        var certificateData: String?
        var keyFile: String?
        var keyData: String?
        var exec: Exec?
        var authProvider: AuthProvider?

        struct AuthProvider: Decodable, Sendable { var name: String? }

        struct Exec: Decodable, Sendable {
            struct Variable: Decodable, Sendable {
                var name: String
                var value: String
            }

            var apiVersion: String?
            var command: String?
            var args: [String]?
            var env: [Variable]?
            var installHint: String?
            var provideClusterInfo: Bool?
            var interactiveMode: String?
        }

        enum CodingKeys: String, CodingKey {
            case token, tokenFile, username, password, exec
            case certificateFile = "client-certificate"
            case certificateData = "client-certificate-data"
            case keyFile = "client-key"
            case keyData = "client-key-data"
            case authProvider = "auth-provider"
        }
    }

    private struct Context: Decodable, Sendable {
        var cluster: String?
        var user: String?
        var namespace: String?
    }

    /// Reads files as the variable KUBECONFIG lists them: what an earlier file says of a name stands.
    package init(files: [String]) throws(AccessError) {
        guard !files.isEmpty else {
            throw AccessError("no kubeconfig is named", mend: "give --kubeconfig FILE or set KUBECONFIG")
        }
        for path in files {
            let text: String
            do {
                text = try String(contentsOfFile: path, encoding: .utf8)
            } catch {
                throw AccessError(
                    "the kubeconfig \(path) can't be read",
                    mend: "give --kubeconfig a file that exists and is readable")
            }
            let slash = path.lastIndex(of: "/")
            try add(text, name: path, folder: slash.map { String(path[..<$0]) } ?? ".")
        }
    }

    /// Reads one text; relative paths in it start at `folder`.
    package init(text: String, folder: String) throws(AccessError) {
        try add(text, name: "kubeconfig", folder: folder)
    }

    private mutating func add(_ text: String, name: String, folder: String) throws(AccessError) {
        let file: File
        do {
            file = try YAMLDecoder().decode(File.self, from: text)
        } catch {
            // The error may quote the text, and the text may hold a key: say where, not what.
            throw AccessError(
                "the kubeconfig \(name) is not in the form that kubectl writes\(Self.position(of: error))",
                mend: "see if `kubectl --kubeconfig \(name) config view` reads it")
        }
        func place(_ path: String?) -> String? {
            path.map { $0.hasPrefix("/") ? $0 : "\(folder)/\($0)" }
        }
        for entry in file.clusters ?? [] where clusters[entry.name] == nil {
            guard var cluster = entry.cluster else { continue }
            cluster.authorityFile = place(cluster.authorityFile)
            clusters[entry.name] = cluster
        }
        for entry in file.users ?? [] where users[entry.name] == nil {
            var user = entry.user ?? User()
            user.tokenFile = place(user.tokenFile)
            user.certificateFile = place(user.certificateFile)
            user.keyFile = place(user.keyFile)
            if let command = user.exec?.command, command.contains("/") { user.exec?.command = place(command) }
            users[entry.name] = user
        }
        for entry in file.contexts ?? [] where contexts[entry.name] == nil {
            contexts[entry.name] = entry.context ?? Context()
        }
        if currentContext == nil, let current = file.currentContext, !current.isEmpty { currentContext = current }
    }

    private static func position(of error: any Error) -> String {
        switch error {
        case let error as YamlError:
            switch error {
            case .scanner(_, _, let mark, _), .parser(_, _, let mark, _), .composer(_, _, let mark, _):
                " (line \(mark.line))"
            default: ""
            }
        case let error as DecodingError: " (\(Self.path(of: error)))"
        default: ""
        }
    }

    private static func path(of error: DecodingError) -> String {
        let path =
            switch error {
            case .typeMismatch(_, let context), .valueNotFound(_, let context), .keyNotFound(_, let context),
                .dataCorrupted(let context):
                context.codingPath
            @unknown default: [] as [any CodingKey]
            }
        return path.map { key in key.intValue.map { "[\($0)]" } ?? key.stringValue }.joined(separator: ".")
    }

    /// The way that a context describes; nil takes the current one.
    package func access(context chosen: String? = nil) throws(AccessError) -> ClusterAccess {
        guard let name = chosen ?? currentContext else {
            throw AccessError(
                "the kubeconfig has no current context", mend: "give --context NAME: \(Self.list(contexts.keys))")
        }
        guard let context = contexts[name] else {
            throw AccessError(
                "the kubeconfig has no context \"\(name)\"", mend: "give --context NAME: \(Self.list(contexts.keys))")
        }
        guard let clusterName = context.cluster, let cluster = clusters[clusterName] else {
            throw AccessError(
                "the context \"\(name)\" names the cluster \"\(context.cluster ?? "")\", which the kubeconfig does not have",
                mend: "name one of \(Self.list(clusters.keys))")
        }
        guard let server = cluster.server, server.hasPrefix("https://") || server.hasPrefix("http://") else {
            throw AccessError(
                "the cluster \"\(clusterName)\" has no server address", mend: "write server: https://HOST:PORT")
        }
        guard cluster.proxy == nil else {
            throw AccessError(
                "the cluster \"\(clusterName)\" is behind a proxy-url, which is not supported",
                mend: "run Moongate where the API server is reached directly")
        }
        var access = ClusterAccess(server: server, namespace: context.namespace)
        access.serverName = cluster.serverName
        access.skipsVerification = cluster.skipsVerification ?? false
        // Data goes before files in each pair, as in kubectl.
        access.certificateAuthority = try Self.source(
            data: cluster.authorityData, file: cluster.authorityFile, name: "certificate-authority-data")
        if let userName = context.user, !userName.isEmpty {
            guard let user = users[userName] else {
                throw AccessError(
                    "the context \"\(name)\" names the user \"\(userName)\", which the kubeconfig does not have",
                    mend: "name one of \(Self.list(users.keys))")
            }
            access.clientCertificate = try Self.source(
                data: user.certificateData, file: user.certificateFile, name: "client-certificate-data")
            access.clientKey = try Self.source(data: user.keyData, file: user.keyFile, name: "client-key-data")
            guard (access.clientCertificate == nil) == (access.clientKey == nil) else {
                throw AccessError(
                    "the user \"\(userName)\" has a client certificate without its key, or the other way round",
                    mend: "give both client-certificate and client-key, or neither")
            }
            access.credential = try Self.credential(user, named: userName)
        }
        return access
    }

    private static func credential(_ user: User, named name: String) throws(AccessError) -> Credential {
        if let exec = user.exec {
            guard let version = exec.apiVersion, ExecCredential.versions.contains(version) else {
                throw AccessError(
                    "the exec plugin of \"\(name)\" speaks \"\(exec.apiVersion ?? "")\"",
                    mend: "use one that speaks \(ExecCredential.versions.joined(separator: " or "))")
            }
            guard let command = exec.command, !command.isEmpty else {
                throw AccessError("the exec plugin of \"\(name)\" has no command", mend: "write command: NAME")
            }
            guard exec.interactiveMode != "Always" else {
                throw AccessError(
                    "the exec plugin of \"\(name)\" must talk to a person, and a controller has no terminal",
                    mend: "use a user whose plugin has interactiveMode Never or IfAvailable")
            }
            return .exec(
                ExecPlugin(
                    apiVersion: version, command: command, arguments: exec.args ?? [],
                    environment: Dictionary((exec.env ?? []).map { ($0.name, $0.value) }, uniquingKeysWith: { $1 }),
                    providesClusterInfo: exec.provideClusterInfo ?? false, installHint: exec.installHint))
        }
        if let file = user.tokenFile, !file.isEmpty { return .tokenFile(file) }
        if let token = user.token, !token.isEmpty { return .token(token) }
        if let username = user.username, !username.isEmpty {
            return .basic(user: username, password: user.password ?? "")
        }
        if let provider = user.authProvider?.name {
            throw AccessError(
                "the user \"\(name)\" has the auth-provider \(provider), which Kubernetes has removed",
                mend: "use an exec plugin")
        }
        return .none
    }

    private static func source(data: String?, file: String?, name: String) throws(AccessError) -> PEMSource? {
        if let data, !data.isEmpty {
            guard let bytes = Base64(text: data)?.bytes else {
                throw AccessError("\(name) is not base64", mend: "write the PEM text in base64, on one line")
            }
            return .inline(bytes)
        }
        if let file, !file.isEmpty { return .file(file) }
        return nil
    }

    private static func list(_ names: some Sequence<String>) -> String {
        let names = names.sorted()
        return names.isEmpty ? "it has none" : "it has " + names.joined(separator: ", ")
    }
}
