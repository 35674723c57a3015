// The end of the walk of a request: its line in the access log. A loop writes lines into its own buffer; full buffers
// go to one writer with a thread of its own. A loop never waits for the disk: when the writer is behind, lines are
// dropped and counted.
internal import Dispatch
internal import Foundation
package import Model
internal import Synchronization

/// Where the lines go.
package protocol LogSink: Sendable {
    /// Writes whole lines. Called on the writer's thread only; may block.
    func write(_ bytes: [UInt8]) throws
    /// Begins again with the same name, after the file was moved away.
    func reopen() throws
}

/// The access log of one loop. Not to be shared between threads.
package final class AccessLog {
    /// A buffer of this size goes to the writer at once; a smaller one at the next `flush`.
    package static let batchBytes = 65_536

    private let writer: LogWriter
    private var line: AccessLogLine
    private var buffer: [UInt8] = []
    private var lines = 0

    package init(format: AccessLogFormat, writer: LogWriter) {
        self.writer = writer
        line = AccessLogLine(format: format)
    }

    /// Adds the line of a finished exchange. `wall` is the time now, in nanoseconds since 1970.
    package func append(_ exchange: Exchange, labels: TelemetryLabels, wall: UInt64) {
        line.append(exchange, labels, wall: wall, to: &buffer)
        lines += 1
        if buffer.count >= Self.batchBytes { flush() }
    }

    /// Hands over what there is: to be called on each tick of the loop, and when it ends.
    package func flush() {
        if lines == 0 { return }
        let batch = buffer
        buffer = writer.submit(batch, lines: lines)
        lines = 0
    }
}

/// Takes batches of lines from all loops and writes them one after the other on a thread of its own.
package final class LogWriter: Sendable {
    /// What may wait to be written.
    package static let defaultBound = 16 << 20

    private struct State: Sendable {
        var waiting = 0
        var dropped: UInt64 = 0
        var failed: UInt64 = 0
        /// Emptied buffers, to be filled again.
        var spare: [[UInt8]] = []
    }

    private let sink: any LogSink
    private let bound: Int
    private let state = Mutex(State())
    private let queue = DispatchQueue(label: "moongate.log")

    package init(_ sink: any LogSink, bound: Int = LogWriter.defaultBound) {
        self.sink = sink
        self.bound = bound
    }

    /// Lines that were dropped, because the writer was behind or because writing failed.
    package var droppedLines: UInt64 { state.withLock { $0.dropped + $0.failed } }

    /// Takes a batch, or drops it; never blocks. Answers with an empty buffer to go on with.
    package func submit(_ batch: [UInt8], lines: Int) -> [UInt8] {
        let (isTaken, spare) = state.withLock { state -> (Bool, [UInt8]) in
            let isTaken = state.waiting == 0 || state.waiting + batch.count <= bound
            if isTaken { state.waiting += batch.count } else { state.dropped += UInt64(lines) }
            return (isTaken, state.spare.popLast() ?? [])
        }
        guard isTaken else { return spare }
        queue.async { [self] in
            var isWritten = true
            do { try sink.write(batch) } catch { isWritten = false }
            state.withLock { state in
                state.waiting -= batch.count
                if !isWritten { state.failed += UInt64(lines) }
            }
            recycle(batch)
        }
        return spare
    }

    private func recycle(_ batch: consuming [UInt8]) {
        var empty = batch
        empty.removeAll(keepingCapacity: true)
        state.withLock { state in
            if state.spare.count < 8 { state.spare.append(empty) }
        }
    }

    /// Waits until all that was submitted is written; false if that takes longer than `seconds`.
    package func flush(within seconds: Double) -> Bool {
        let done = DispatchSemaphore(value: 0)
        queue.async { done.signal() }
        return done.wait(timeout: .now() + seconds) == .success
    }

    /// After the file was moved away (log rotation): what comes next goes to a new one.
    package func reopen() {
        queue.async { [self] in
            do { try sink.reopen() } catch { state.withLock { $0.failed += 1 } }
        }
    }
}

/// Standard output.
package struct StandardOutputSink: LogSink {
    package init() {}

    package func write(_ bytes: [UInt8]) throws {
        try FileHandle.standardOutput.write(contentsOf: Data(bytes))
    }

    package func reopen() {}
}

/// A file that is appended to.
package final class FileSink: LogSink {
    private let path: String
    private let handle: Mutex<FileHandle>

    package init(path: String) throws {
        self.path = path
        handle = Mutex(try Self.open(path))
    }

    private static func open(_ path: String) throws -> FileHandle {
        if !FileManager.default.fileExists(atPath: path) {
            _ = FileManager.default.createFile(
                atPath: path, contents: nil, attributes: [.posixPermissions: NSNumber(value: 0o640)])
        }
        return try FileHandle(forWritingTo: URL(fileURLWithPath: path))
    }

    package func write(_ bytes: [UInt8]) throws {
        try handle.withLock { handle in
            // Also after somebody has cut the file short.
            try handle.seekToEnd()
            try handle.write(contentsOf: Data(bytes))
        }
    }

    package func reopen() throws {
        let path = path
        try handle.withLock { handle in
            try? handle.close()
            handle = try Self.open(path)
        }
    }
}
