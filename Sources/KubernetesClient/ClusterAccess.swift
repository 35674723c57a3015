// How the API server is reached: where it is, whom it is believed to be, and who we are to it. Read from a pod's service
// account or from a kubeconfig; no I/O beyond those files.

/// PEM text that stands in a file, which may change while we run, or in the configuration itself.
package enum PEMSource: Sendable, Hashable {
    case file(String)
    case inline([UInt8])
}

/// A command that prints a credential (client.authentication.k8s.io).
package struct ExecPlugin: Sendable, Equatable {
    package var apiVersion: String
    package var command: String
    package var arguments: [String]
    package var environment: [String: String]
    package var providesClusterInfo: Bool
    package var installHint: String?

    package init(
        apiVersion: String, command: String, arguments: [String] = [], environment: [String: String] = [:],
        providesClusterInfo: Bool = false, installHint: String? = nil
    ) {
        self.apiVersion = apiVersion
        self.command = command
        self.arguments = arguments
        self.environment = environment
        self.providesClusterInfo = providesClusterInfo
        self.installHint = installHint
    }
}

/// Who we are. A client certificate may stand beside any of them. Printing one shows its kind and no more.
package enum Credential: Sendable, Equatable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    case none
    case token(String)
    /// Read again as it rotates: a service account's token lives for about an hour.
    case tokenFile(String)
    case basic(user: String, password: String)
    case exec(ExecPlugin)

    package var description: String {
        switch self {
        case .none: "no credential"
        case .token: "a token"
        case .tokenFile(let path): "the token in \(path)"
        case .basic(let user, _): "the password of \(user)"
        case .exec(let plugin): "the plugin \(plugin.command)"
        }
    }
    package var debugDescription: String { description }
    package var customMirror: Mirror { Mirror(self, children: ["credential": description]) }
}

package struct ClusterAccess: Sendable, Equatable {
    /// `https://10.0.0.1:443`, without a slash at the end.
    package var server: String
    /// The namespace of the context, or the one that the pod runs in.
    package var namespace: String?
    /// Nil trusts what the system trusts.
    package var certificateAuthority: PEMSource?
    package var clientCertificate: PEMSource?
    package var clientKey: PEMSource?
    package var credential: Credential
    /// The name to check the server's certificate against, if it is not the host of `server`.
    package var serverName: String?
    package var skipsVerification: Bool

    package init(
        server: String, namespace: String? = nil, certificateAuthority: PEMSource? = nil,
        clientCertificate: PEMSource? = nil, clientKey: PEMSource? = nil, credential: Credential = .none,
        serverName: String? = nil, skipsVerification: Bool = false
    ) {
        self.server = server.hasSuffix("/") ? String(server.dropLast()) : server
        self.namespace = namespace
        self.certificateAuthority = certificateAuthority
        self.clientCertificate = clientCertificate
        self.clientKey = clientKey
        self.credential = credential
        self.serverName = serverName
        self.skipsVerification = skipsVerification
    }

    /// All that the API server may know us by, without its secrets.
    package var identity: String {
        guard let clientCertificate else { return credential.description }
        let certificate =
            switch clientCertificate {
            case .file(let path): "the client certificate in \(path)"
            case .inline: "a client certificate"
            }
        return credential == .none ? certificate : "\(credential), \(certificate)"
    }
}

/// Why the API server can't be reached at all: what is wrong, and what to do.
package struct AccessError: Error, Sendable, Equatable, CustomStringConvertible {
    package var problem: String
    package var mend: String

    package init(_ problem: String, mend: String) {
        self.problem = problem
        self.mend = mend
    }

    package var description: String { "\(problem)\n  mend     \(mend)" }
}
