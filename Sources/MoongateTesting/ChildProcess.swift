// A child process whose output lines are events to wait for.
import Foundation
import Glibc

/// Runs a program with its standard output and error read line by line on threads of their own.
package final class ChildProcess: Sendable {
    package struct Output: Sendable {
        package var lines: [String] = []
        package var errorLines: [String] = []
        package var open = 2
        package var exit: Exit?
    }

    package enum Exit: Sendable, Equatable, CustomStringConvertible {
        case code(Int32)
        case signal(Int32)

        package var description: String {
            switch self {
            case .code(let code): "exit \(code)"
            case .signal(let number): "signal \(number)"
            }
        }
    }

    package let identifier: Int32
    package let name: String
    package let output = Board(Output())

    /// Starts `arguments[0]`; the child leads a process group of its own, so that ending it ends what it started.
    package init(
        name: String, arguments: [String], environment: [String: String], directory: String? = nil,
        transcript: Transcript
    ) throws(ScenarioFailure) {
        guard let standard = Self.makePipe(), let errors = Self.makePipe() else {
            throw ScenarioFailure("no pipe for \(name): errno \(errno)")
        }
        var arguments = arguments
        if let directory {
            // posix_spawn has no portable change of folder; the shell does it and is replaced by the program.
            arguments = ["/bin/sh", "-c", "cd \"$0\" && exec \"$@\"", directory] + arguments
        }
        let spawned = Self.spawn(arguments, environment: environment, output: standard.write, errors: errors.write)
        _ = Glibc.close(standard.write)
        _ = Glibc.close(errors.write)
        guard let spawned else {
            _ = Glibc.close(standard.read)
            _ = Glibc.close(errors.read)
            throw ScenarioFailure("cannot start \(arguments.joined(separator: " ")): errno \(errno)")
        }
        self.name = name
        identifier = spawned
        transcript.add(name, "started: \(arguments.joined(separator: " "))")
        readLines(of: standard.read) { [output] line in
            transcript.add("\(name) out", line)
            output.change { $0.lines.append(line) }
        }
        readLines(of: errors.read) { [output] line in
            transcript.add("\(name) err", line)
            output.change { $0.errorLines.append(line) }
        }
        let waiter = Thread { [output, identifier] in
            var status: Int32 = 0
            while unsafe waitpid(identifier, &status, 0) < 0 && errno == EINTR {}
            let low = status & 0x7f
            let exit: Exit = low == 0 ? .code(status >> 8 & 0xff) : .signal(low)
            transcript.add(name, "ended: \(exit)")
            output.change { $0.exit = exit }
        }
        waiter.start()
    }

    private static func makePipe() -> (read: Int32, write: Int32)? {
        DescriptorGate.closedToChildren {
            var ends: [Int32] = [0, 0]
            guard unsafe pipe(&ends) == 0 else { return nil }
            for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
            return (ends[0], ends[1])
        }
    }

    private static func spawn(
        _ arguments: [String], environment: [String: String], output: Int32, errors: Int32
    ) -> pid_t? {
        // The C strings live until the end of this function; posix_spawn copies what it needs before it returns.
        let strings = unsafe arguments.map { unsafe strdup($0) }
        let variables = unsafe environment.map { unsafe strdup("\($0.key)=\($0.value)") }
        defer {
            // Spelt as maps because the formatter joins the words of `for unsafe`.
            _ = unsafe strings.map { unsafe free($0) }
            _ = unsafe variables.map { unsafe free($0) }
        }
        var actions = unsafe posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        unsafe posix_spawn_file_actions_init(&actions)
        unsafe posix_spawnattr_init(&attributes)
        defer {
            unsafe posix_spawn_file_actions_destroy(&actions)
            unsafe posix_spawnattr_destroy(&attributes)
        }
        unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        unsafe posix_spawn_file_actions_adddup2(&actions, output, 1)
        unsafe posix_spawn_file_actions_adddup2(&actions, errors, 2)
        unsafe posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP))
        unsafe posix_spawnattr_setpgroup(&attributes, 0)
        var child: pid_t = 0
        let result = DescriptorGate.closedToChildren {
            unsafe posix_spawnp(
                &child, arguments[0], &actions, &attributes, unsafe strings + [nil], unsafe variables + [nil])
        }
        return result == 0 ? child : nil
    }

    private func readLines(of descriptor: Int32, _ take: @escaping @Sendable (String) -> Void) {
        let reader = Thread { [output] in
            var rest: [UInt8] = []
            var chunk = [UInt8](repeating: 0, count: 16384)
            while true {
                let got = unsafe Glibc.read(descriptor, &chunk, chunk.count)
                if got < 0 && errno == EINTR { continue }
                guard got > 0 else { break }
                rest.append(contentsOf: chunk[..<got])
                var start = rest.startIndex
                while let end = rest[start...].firstIndex(of: 10) {
                    take(String(decoding: rest[start..<end], as: UTF8.self))
                    start = end + 1
                }
                rest.removeSubrange(..<start)
            }
            if !rest.isEmpty { take(String(decoding: rest, as: UTF8.self)) }
            _ = Glibc.close(descriptor)
            output.change { $0.open -= 1 }
        }
        reader.start()
    }

    package func send(signal: Int32) {
        guard output.read({ $0.exit }) == nil else { return }
        _ = Glibc.kill(identifier, signal)
    }

    /// Ends the whole process group, first politely.
    package func stop(within limit: Duration) {
        if output.read({ $0.exit }) == nil {
            _ = Glibc.kill(-identifier, SIGTERM)
            if output.wait(by: Deadline(after: limit), { $0.exit }) == nil {
                _ = Glibc.kill(-identifier, SIGKILL)
                _ = output.wait(by: Deadline(after: .seconds(5)), { $0.exit })
            }
        }
        // What the group's leader left behind.
        _ = Glibc.kill(-identifier, SIGKILL)
    }
}
