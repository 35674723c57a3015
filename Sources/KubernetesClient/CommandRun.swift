// A command of somebody else's, run with bounds: Foundation's `Process` leaves sockets of ours to what the command starts, and
// has no process groups.

import Foundation
internal import Glibc
import Synchronization

/// One run of a command, on a thread of its own: waiting for a process blocks.
final class CommandRun: Sendable {
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
        var ends: [Int32] = [-1, -1]
        guard unsafe Glibc.pipe(&ends) == 0 else { return .failure(Self.notStarted(errno)) }
        defer { close(ends[0]) }
        _ = fcntl(ends[0], F_SETFL, O_NONBLOCK)
        let deadline = ContinuousClock.now + limit
        let process: pid_t
        do throws(Failure) {
            defer { close(ends[1]) }
            process = try start(output: ends[1], until: deadline)
        } catch {
            return .failure(error)
        }
        var bytes: [UInt8] = []
        var isOpen = true
        var end: End?
        var failure: Failure?
        while failure == nil {
            // What the plugin leaves behind may hold its output open for ever: when it has ended and what it wrote is
            // read, that is all.
            let ended = end != nil
            let isReadable = isOpen && Self.waitForOutput(ends[0])
            if !isOpen, !ended { usleep(1_000) }
            if isReadable { isOpen = Self.read(ends[0], into: &bytes) }
            if ended, !isReadable { break }
            if end == nil { end = Self.ended(process) }
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
            while end == nil {
                end = Self.ended(process)
                if end == nil { usleep(1_000) }
            }
            return .failure(failure)
        }
        switch end {
        case .status(0): return .success(bytes)
        case .status(let code): return .failure(Failure(problem: "failed with status \(code)"))
        case .signal(let number): return .failure(Failure(problem: "was ended by signal \(number)"))
        case .unknown, nil: return .failure(Failure(problem: "has ended, and nobody can say how"))
        }
    }

    /// How a process has ended.
    enum End: Equatable {
        case status(Int32)
        case signal(Int32)
        /// Somebody else has taken note of it: how it went is lost.
        case unknown
    }

    private static func notStarted(_ code: Int32) -> Failure {
        Failure(problem: "can't be started: \(TransportText.reason(code))")
    }

    /// Starts the command in a process group of its own, with nothing of ours but its output.
    private func start(output: Int32, until deadline: ContinuousClock.Instant) throws(Failure) -> pid_t {
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
            for i in unsafe argv.indices { unsafe free(argv[i]) }
            for i in unsafe envp.indices { unsafe free(envp[i]) }
        }
        var process: pid_t = 0
        var code: Int32 = 0
        repeat {
            code = unsafe posix_spawn(&process, words[0], &actions, &attributes, &argv, &envp)
            guard code == ETXTBSY else { break }
            // Somebody writes to the file, or a process that is just starting still has it open: this passes.
            usleep(10_000)
        } while ContinuousClock.now < deadline && !isCancelled.load(ordering: .relaxed)
        guard code == 0 else { throw Self.notStarted(code) }
        return process
    }

    /// Nil while the process runs.
    static func ended(_ process: pid_t) -> End? {
        var status: Int32 = 0
        switch unsafe waitpid(process, &status, WNOHANG) {
        case process: return status & 0x7f == 0 ? .status((status >> 8) & 0xff) : .signal(status & 0x7f)
        case 0: return nil
        default: return errno == EINTR ? nil : .unknown
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
