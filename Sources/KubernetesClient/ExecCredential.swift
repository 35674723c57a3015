// A credential from a command (client.authentication.k8s.io): what is told to it, what it prints, and its bounds.

import Foundation
import Glibc
package import KubernetesAPI
import Synchronization

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

/// One run of a command, on a thread of its own: waiting for a process blocks.
private final class CommandRun: Sendable {
    struct Failure: Error { var problem: String }

    private let command: String
    private let arguments: [String]
    private let environment: [String: String]
    private let isCancelled = Atomic(false)
    private static let outputLimit = 1 << 20
    /// How often what gives no sign is looked after, in milliseconds.
    private static let glance: Int32 = 20

    init(_ command: String, _ arguments: [String], environment: [String: String]) {
        self.command = command
        self.arguments = arguments
        self.environment = environment
    }

    /// A run whose task is cancelled is ended.
    func run(limit: Duration) async -> Result<[UInt8], Failure> {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                Thread.detachNewThread { continuation.resume(returning: self.runBlocking(limit: limit)) }
            }
        } onCancel: {
            isCancelled.store(true, ordering: .relaxed)
        }
    }

    private func runBlocking(limit: Duration) -> Result<[UInt8], Failure> {
        var pipe: [Int32] = [-1, -1]
        guard unsafe Glibc.pipe(&pipe) == 0 else { return .failure(Self.notStarted(errno)) }
        defer { close(pipe[0]) }
        _ = fcntl(pipe[0], F_SETFL, O_NONBLOCK)
        let process: pid_t
        do throws(Failure) {
            defer { close(pipe[1]) }
            process = try start(output: pipe[1])
        } catch {
            return .failure(error)
        }
        let deadline = ContinuousClock.now + limit
        var bytes: [UInt8] = []
        var isOpen = true
        var status: Int32?
        var failure: Failure?
        while failure == nil {
            // What the plugin leaves behind may hold its output open for ever: when it has ended and what it wrote is
            // read, that is all.
            let ended = status != nil
            let isReadable = isOpen && Self.waitForOutput(pipe[0])
            if !isOpen, !ended { usleep(1_000) }
            if isReadable { isOpen = Self.read(pipe[0], into: &bytes) }
            if ended, !isReadable { break }
            if status == nil { status = Self.ended(process) }
            if bytes.count > Self.outputLimit {
                failure = Failure(problem: "printed too much")
            } else if isCancelled.load(ordering: .relaxed) {
                failure = Failure(problem: "was not waited for")
            } else if ContinuousClock.now >= deadline {
                failure = Failure(problem: "did not end within \(limit)")
            }
        }
        if let failure {
            // Whatever it started is of its group.
            kill(-process, SIGKILL)
            while status == nil {
                status = Self.ended(process)
                if status == nil { usleep(1_000) }
            }
            return .failure(failure)
        }
        let end = status ?? 0
        guard end & 0x7f == 0 else { return .failure(Failure(problem: "was ended by signal \(end & 0x7f)")) }
        let code = (end >> 8) & 0xff
        guard code == 0 else { return .failure(Failure(problem: "failed with status \(code)")) }
        return .success(bytes)
    }

    private static func notStarted(_ code: Int32) -> Failure {
        Failure(problem: "can't be started: \(TransportText.reason(code))")
    }

    /// Starts the command in a process group of its own, with nothing of ours but its output.
    private func start(output: Int32) throws(Failure) -> pid_t {
        let isPath = command.contains("/")
        let words = isPath ? [command] + arguments : ["/usr/bin/env", command] + arguments
        var attributes = posix_spawnattr_t()
        unsafe posix_spawnattr_init(&attributes)
        defer { unsafe posix_spawnattr_destroy(&attributes) }
        // We ignore signals that a command expects to be ended by.
        var signals = sigset_t()
        unsafe sigfillset(&signals)
        unsafe posix_spawnattr_setsigdefault(&attributes, &signals)
        unsafe sigemptyset(&signals)
        unsafe posix_spawnattr_setsigmask(&attributes, &signals)
        unsafe posix_spawnattr_setpgroup(&attributes, 0)
        unsafe posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK))
        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        unsafe posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        unsafe posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO)
        let open = ((try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []).compactMap(
            Int32.init)
        for descriptor in open where descriptor > STDERR_FILENO {
            unsafe posix_spawn_file_actions_addclose(&actions, descriptor)
        }
        var argv = unsafe words.map { unsafe strdup($0) } + [nil]
        var envp = unsafe environment.map { unsafe strdup("\($0.key)=\($0.value)") } + [nil]
        defer {
            unsafe (argv + envp).forEach { unsafe free($0) }
        }
        var process: pid_t = 0
        let code = unsafe posix_spawn(&process, words[0], &actions, &attributes, &argv, &envp)
        guard code == 0 else { throw Self.notStarted(code) }
        return process
    }

    /// The status of a process that has ended; nil while it runs.
    private static func ended(_ process: pid_t) -> Int32? {
        var status: Int32 = 0
        switch unsafe waitpid(process, &status, WNOHANG) {
        case process: return status
        case 0: return nil
        default: return errno == EINTR ? nil : 0
        }
    }

    private static func waitForOutput(_ descriptor: Int32) -> Bool {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return unsafe poll(&entry, 1, glance) > 0
    }

    /// False at the end of what is printed.
    private static func read(_ descriptor: Int32, into bytes: inout [UInt8]) -> Bool {
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        let count = unsafe buffer.withUnsafeMutableBytes { unsafe Glibc.read(descriptor, $0.baseAddress, $0.count) }
        if count > 0 { bytes.append(contentsOf: buffer.prefix(count)) }
        return count > 0 || (count < 0 && (errno == EAGAIN || errno == EINTR))
    }
}
