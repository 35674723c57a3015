import Foundation
import KubernetesAPI
import KubernetesClient
import Testing

@Suite(.timeLimit(.minutes(10))) struct ExecCredentialTests {
    private static let version = "client.authentication.k8s.io/v1"

    private func plugin(_ command: String, _ arguments: [String] = [], info: Bool = false) -> ExecPlugin {
        ExecPlugin(
            apiVersion: Self.version, command: command, arguments: arguments, environment: ["WHO": "ops"],
            providesClusterInfo: info, installHint: "install it")
    }

    @Test(arguments: [
        (#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"token":"t"}}"#, true),
        (
            #"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"clientCertificateData":"c","clientKeyData":"k","expirationTimestamp":"2026-01-01T00:00:00Z"}}"#,
            true
        ),
        (
            #"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1","status":{"token":"t"}}"#,
            false
        ),
        (#"{"kind":"Secret","apiVersion":"client.authentication.k8s.io/v1","status":{"token":"t"}}"#, false),
        (#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1"}"#, false),
        (#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"token":""}}"#, false),
        (
            #"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"clientCertificateData":"c"}}"#,
            false
        ),
        ("token", false), ("", false),
    ])
    func printed(_ text: String, _ isGood: Bool) {
        let isTaken = (try? ExecCredential(printed: Array(text.utf8), by: plugin("x"))) != nil
        #expect(isTaken == isGood)
    }

    @Test func runsAndIsToldOfTheCluster() async throws {
        try await inFolder { folder in
            try folder.write(
                "plugin",
                """
                #!/bin/sh
                test "$WHO" = ops || exit 3
                case "$KUBERNETES_EXEC_INFO" in
                *'"server":"https:\\/\\/api"'*|*'"server":"https://api"'*) ;;
                *) exit 4 ;;
                esac
                printf '{"kind":"ExecCredential","apiVersion":"\(Self.version)","status":{"token":"%s"}}' "$1"
                """, executable: true)
            let credential = try await ExecCredential.run(
                plugin(folder.path("plugin"), ["t1"], info: true), for: ClusterAccess(server: "https://api"))
            #expect(credential.token == "t1")
        }
    }

    @Test(arguments: [
        ("exit 7", "failed with status 7"), ("exec sleep 100", "did not end"), ("exec yes", "printed too much"),
        ("sleep 100", "did not end"), ("sleep 100 & wait", "did not end"), ("kill -9 $$", "ended by signal 9"),
        ("echo hello", "not an ExecCredential"),
    ])
    func failures(script: String, problem: String) async throws {
        let error = await #expect(throws: AccessError.self) {
            try await ExecCredential.run(
                plugin("/bin/sh", ["-c", script]), for: ClusterAccess(server: "https://api"),
                limit: problem == "did not end" ? .seconds(1) : .seconds(60))
        }
        #expect(error?.problem.contains(problem) == true, "\(String(describing: error))")
    }

    /// A plugin that is just being written, or that a process of ours still has open, is tried for as long as it may take.
    @Test func aBusyPluginIsTriedUntilItsLimit() async throws {
        try await inFolder { folder in
            try folder.write("plugin", "#!/bin/sh\nexit 7", executable: true)
            let writer = try #require(FileHandle(forWritingAtPath: folder.path("plugin")))
            let plugin = plugin(folder.path("plugin"))
            let limit = Duration.milliseconds(500)
            let began = ContinuousClock.now
            let busy = await #expect(throws: AccessError.self) {
                try await ExecCredential.run(plugin, for: ClusterAccess(server: "https://api"), limit: limit)
            }
            #expect(ContinuousClock.now - began >= limit)
            #expect(busy?.problem.contains("Text file busy") == true, "\(String(describing: busy))")
            try writer.close()
            let ran = await #expect(throws: AccessError.self) {
                try await ExecCredential.run(plugin, for: ClusterAccess(server: "https://api"))
            }
            #expect(ran?.problem.contains("status 7") == true, "\(String(describing: ran))")
        }
    }

    /// A plugin that is a script holds its output open by what it has started, too.
    @Test func nothingOfAPluginOutlivesIt() async throws {
        try await inFolder { folder in
            let file = folder.path("child")
            let plugin = plugin("/bin/sh", ["-c", "sleep 400 & echo $! > \(file); wait"])
            let task = Task {
                try await ExecCredential.run(plugin, for: ClusterAccess(server: "https://api"), limit: .seconds(300))
            }
            #expect(await Self.soon { Self.number(in: file) != nil })
            task.cancel()
            await #expect(throws: AccessError.self) { try await task.value }
            let child = try #require(Self.number(in: file))
            // Whoever inherits it may take a moment to take note of its end.
            #expect(await Self.soon { !Self.isRunning(child) })
        }
    }

    /// A line, not a part of it.
    private static func number(in file: String) -> pid_t? {
        guard let text = try? String(contentsOfFile: file, encoding: .utf8), text.hasSuffix("\n") else { return nil }
        return pid_t(text.filter(\.isNumber))
    }

    private static func soon(_ isMet: () -> Bool) async -> Bool {
        let limit = ContinuousClock.now + .seconds(60)
        while !isMet() {
            guard ContinuousClock.now < limit else { return false }
            await Task.yield()
        }
        return true
    }

    private static func isRunning(_ process: pid_t) -> Bool {
        let status = (try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)) ?? ""
        return !status.isEmpty && !status.contains(") Z ")
    }

    /// A helper that goes on beside us is none of our business.
    @Test func whatAPluginLeavesBehindIsNotWaitedFor() async throws {
        try await inFolder { folder in
            let file = folder.path("child")
            defer { if let child = Self.number(in: file) { kill(child, SIGKILL) } }
            let credential = try await ExecCredential.run(
                plugin(
                    "/bin/sh",
                    [
                        "-c",
                        "sleep 600 & echo $! > \(file); echo '{\"kind\":\"ExecCredential\",\"apiVersion\":\"\(Self.version)\",\"status\":{\"token\":\"t\"}}'",
                    ]),
                for: ClusterAccess(server: "https://api"), limit: .seconds(300))
            #expect(credential.token == "t")
        }
    }

    @Test func aCancelledRunEndsAtOnce() async throws {
        try await inFolder { folder in
            let file = folder.path("begun")
            let plugin = plugin("/bin/sh", ["-c", "touch \(file); sleep 400"])
            let task = Task {
                try await ExecCredential.run(plugin, for: ClusterAccess(server: "https://api"), limit: .seconds(300))
            }
            #expect(await Self.soon { FileManager.default.fileExists(atPath: file) })
            let began = ContinuousClock.now
            task.cancel()
            await #expect(throws: AccessError.self) { try await task.value }
            #expect(ContinuousClock.now - began < .seconds(60))
        }
    }

    @Test func aMissingPluginNamesItsHint() async throws {
        let error = await #expect(throws: AccessError.self) {
            try await ExecCredential.run(plugin("no-such-plugin-here"), for: ClusterAccess(server: "https://api"))
        }
        #expect(error?.mend.contains("install it") == true)
    }
}
