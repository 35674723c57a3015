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

    /// So soon after a run, the plugin has nothing else to say: many requests may be refused at once, and again.
    private static let pluginPause = Duration.seconds(5)

    /// A run of the plugin that requests wait for.
    private final class Run {
        let result: Watched<Result<ExecCredential, AccessError>?>
        let task: Task<Void, Never>
        var waiting = 0

        init(_ plugin: @escaping @Sendable () async -> Result<ExecCredential, AccessError>) {
            let result = Watched<Result<ExecCredential, AccessError>?>(nil)
            self.result = result
            task = Task {
                let answer = await plugin()
                result.update { $0 = answer }
            }
        }
    }

    private var token: (value: String, readAt: Duration)?
    private var printed: ExecCredential?
    private var running: Run?
    private var lastRun: (result: Result<ExecCredential, AccessError>, endedAt: Duration)?

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
        case .exec(let plugin): presented = presentation(of: try await printedCredential(plugin))
        }
        return presented
    }

    /// The server did not take it: it is not used again. What was read since is another matter.
    package func wasRefused(_ refused: PresentedCredential) {
        if let token, refused.authorization == "Bearer \(token.value)" { self.token = nil }
        if let printed, presentation(of: printed) == refused { self.printed = nil }
    }

    private func presentation(of credential: ExecCredential) -> PresentedCredential {
        var presented = PresentedCredential(
            authorization: credential.token.map { "Bearer \($0)" }, certificate: access.clientCertificate,
            key: access.clientKey)
        if let certificate = credential.certificate, let key = credential.key {
            presented.certificate = .inline(certificate)
            presented.key = .inline(key)
        }
        return presented
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

    /// One run at a time: requests that come meanwhile wait for its result. It ends when nobody waits any more.
    private func printedCredential(_ plugin: ExecPlugin) async throws(AccessError) -> ExecCredential {
        if let printed, !isSpent(printed) { return printed }
        if running == nil, let lastRun, clock.now() - lastRun.endedAt < Self.pluginPause {
            return try lastRun.result.get()
        }
        let (runPlugin, access) = (runPlugin, access)
        let run =
            running
            ?? Run {
                do throws(AccessError) {
                    return .success(try await runPlugin(plugin, access))
                } catch {
                    return .failure(error)
                }
            }
        running = run
        run.waiting += 1
        try? await run.result.wait { $0 != nil }
        run.waiting -= 1
        guard let result = run.result.value else {
            if run.waiting == 0 {
                run.task.cancel()
                if running === run { running = nil }
            }
            throw AccessError(
                "the credential plugin \(plugin.command) was not waited for", mend: "nothing: the request was given up")
        }
        if running === run {
            running = nil
            lastRun = (result, clock.now())
            printed = try? result.get()
        }
        return try result.get()
    }

    private func isSpent(_ credential: ExecCredential) -> Bool {
        guard let expiry = credential.expiry else { return false }
        let now = clock.wallTime()
        return expiry.seconds - 10 <= now.seconds
    }
}
