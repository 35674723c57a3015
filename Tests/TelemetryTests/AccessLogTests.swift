import Foundation
import Model
import Synchronization
import Testing

@testable import Telemetry

/// Keeps what it is given; can be held up, and can fail.
private final class MemorySink: LogSink {
    struct State: Sendable {
        var bytes: [UInt8] = []
        var fails = false
        var reopened = 0
    }
    let state = Mutex(State())
    let gate = DispatchSemaphore(value: 0)
    let isGated: Bool

    init(isGated: Bool = false) { self.isGated = isGated }

    struct Broken: Error {}

    func write(_ bytes: [UInt8]) throws {
        if isGated { gate.wait() }
        try state.withLock { state in
            if state.fails { throw Broken() }
            state.bytes += bytes
        }
    }

    func reopen() { state.withLock { $0.reopened += 1 } }

    var lines: Int { state.withLock { $0.bytes.count { $0 == 10 } } }
}

@Suite("Access log", .timeLimit(.minutes(10))) struct AccessLogTests {
    let labels = SeriesRegistry().labels(for: smallSnapshot(), now: 0)

    @Test func linesArriveInOrderAfterAFlush() {
        let sink = MemorySink()
        let writer = LogWriter(sink)
        let log = AccessLog(format: .json, writer: writer)
        let exchange = finishedExchange()
        for n in 0..<5000 {
            exchange.bytesOut = UInt64(n)
            log.append(exchange, labels: labels, wall: wall)
        }
        log.flush()
        log.flush()
        #expect(writer.flush(within: 10))
        let text = String(decoding: sink.state.withLock { $0.bytes }, as: UTF8.self)
        let numbers = text.split(separator: "\n").compactMap { line in
            line.split(separator: ",").first { $0.hasPrefix("\"bytes_out\":") }.flatMap { Int($0.dropFirst(12)) }
        }
        #expect(numbers == Array(0..<5000))
        #expect(writer.droppedLines == 0)
    }

    @Test func aFloodIsDroppedAndCountedAndNeverWaits() {
        let sink = MemorySink(isGated: true)
        let writer = LogWriter(sink, bound: 1 << 20)
        let log = AccessLog(format: .json, writer: writer)
        let exchange = finishedExchange()
        // The sink stands still; twenty thousand lines of about 500 bytes are ten times what may wait.
        for _ in 0..<20_000 { log.append(exchange, labels: labels, wall: wall) }
        log.flush()
        let dropped = writer.droppedLines
        #expect(dropped > 10_000)
        #expect(!writer.flush(within: 0.01))
        for _ in 0..<1000 { sink.gate.signal() }
        #expect(writer.flush(within: 10))
        #expect(UInt64(sink.lines) + dropped == 20_000)
        #expect(writer.droppedLines == dropped)
    }

    @Test func whatCannotBeWrittenIsCounted() {
        let sink = MemorySink()
        sink.state.withLock { $0.fails = true }
        let writer = LogWriter(sink)
        let log = AccessLog(format: .text, writer: writer)
        for _ in 0..<7 { log.append(finishedExchange(), labels: labels, wall: wall) }
        log.flush()
        #expect(writer.flush(within: 10))
        #expect(writer.droppedLines == 7)
        sink.state.withLock { $0.fails = false }
        log.append(finishedExchange(), labels: labels, wall: wall)
        log.flush()
        writer.reopen()
        #expect(writer.flush(within: 10))
        #expect(sink.lines == 1 && writer.droppedLines == 7)
        #expect(sink.state.withLock { $0.reopened } == 1)
    }

    @Test func aFileIsAppendedToAndFollowsARotation() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("moongate-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let path = folder.appendingPathComponent("access.log").path
        try Data("before\n".utf8).write(to: URL(fileURLWithPath: path))
        let writer = LogWriter(try FileSink(path: path))
        _ = writer.submit(Array("one\n".utf8), lines: 1)
        #expect(writer.flush(within: 10))
        try FileManager.default.moveItem(atPath: path, toPath: path + ".1")
        _ = writer.submit(Array("two\n".utf8), lines: 1)
        writer.reopen()
        _ = writer.submit(Array("three\n".utf8), lines: 1)
        #expect(writer.flush(within: 10))
        #expect(try String(contentsOfFile: path + ".1", encoding: .utf8) == "before\none\ntwo\n")
        #expect(try String(contentsOfFile: path, encoding: .utf8) == "three\n")
        #expect(throws: (any Error).self) { try FileSink(path: folder.path + "/no/such/folder") }
    }
}
