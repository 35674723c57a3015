// Who we are at this moment: tokens rotate, plugins' credentials expire, certificates are written anew.

import FoundationEssentials
import KubernetesAPI

/// What goes with one request.
package struct PresentedCredential: Sendable, Equatable {
    /// The value of Authorization; nil sends none.
    package var authorization: String?
    package var certificate: PEMSource?
    package var key: PEMSource?
}

/// Reads credentials, keeps them while they are good, and reads them anew after a refusal.
package actor CredentialStore {
    private let access: ClusterAccess
    private let clock: any ControlClock
    private let runPlugin: @Sendable (ExecPlugin, ClusterAccess) async throws(AccessError) -> ExecCredential
    /// The kubelet writes a new token when a fifth of its life is left; a minute is early enough.
    private static let rereadAfter = Duration.seconds(60)

    private var token: (value: String, readAt: Duration)?
    private var printed: ExecCredential?
    private var running: Task<Result<ExecCredential, AccessError>, Never>?

    package init(
        access: ClusterAccess, clock: any ControlClock,
        runPlugin: @escaping @Sendable (ExecPlugin, ClusterAccess) async throws(AccessError) -> ExecCredential = {
            plugin, access async throws(AccessError) in try await ExecCredential.run(plugin, for: access)
        }
    ) {
        self.access = access
        self.clock = clock
        self.runPlugin = runPlugin
    }

    package func current() async throws(AccessError) -> PresentedCredential {
        var presented = PresentedCredential(
            authorization: nil, certificate: access.clientCertificate, key: access.clientKey)
        switch access.credential {
        case .none: break
        case .token(let token): presented.authorization = "Bearer \(token)"
        case .basic(let user, let password):
            presented.authorization = "Basic " + Base64(Array("\(user):\(password)".utf8)).text
        case .tokenFile(let path): presented.authorization = "Bearer " + (try readToken(path))
        case .exec(let plugin):
            let credential = try await printedCredential(plugin)
            if let token = credential.token { presented.authorization = "Bearer \(token)" }
            if let certificate = credential.certificate, let key = credential.key {
                presented.certificate = .inline(certificate)
                presented.key = .inline(key)
            }
        }
        return presented
    }

    /// The server did not take it: what we hold is not used again.
    package func wasRefused() {
        token = nil
        printed = nil
    }

    private func readToken(_ path: String) throws(AccessError) -> String {
        if let token, clock.now() - token.readAt < Self.rereadAfter { return token.value }
        let text = (try? String(contentsOfFile: path, encoding: .utf8)).map { text in
            text.filter { !$0.isWhitespace && !$0.isNewline }
        }
        guard let text, !text.isEmpty, text.utf8.allSatisfy({ (0x21...0x7e).contains($0) }) else {
            // A file that is gone for a moment while it rotates: the old token may still be good.
            if let token { return token.value }
            throw AccessError(
                "\(path) holds no token", mend: "see that the service account's token is mounted and readable")
        }
        token = (text, clock.now())
        return text
    }

    /// One run at a time: requests that come meanwhile wait for its result.
    private func printedCredential(_ plugin: ExecPlugin) async throws(AccessError) -> ExecCredential {
        if let printed, !isSpent(printed) { return printed }
        let task: Task<Result<ExecCredential, AccessError>, Never>
        if let running {
            task = running
        } else {
            let run = runPlugin
            let access = access
            task = Task {
                do throws(AccessError) {
                    return .success(try await run(plugin, access))
                } catch {
                    return .failure(error)
                }
            }
            running = task
        }
        let result = await task.value
        running = nil
        let credential = try result.get()
        printed = credential
        return credential
    }

    private func isSpent(_ credential: ExecCredential) -> Bool {
        guard let expiry = credential.expiry else { return false }
        let now = clock.wallTime()
        return expiry.seconds - 10 <= now.seconds
    }
}
