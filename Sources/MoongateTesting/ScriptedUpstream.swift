// An upstream that does exactly what its script says, and remembers what it was sent.
import Foundation

/// Named events that scripts of one scenario set and wait for.
package final class Signals: Sendable {
    private let raised = Board<Set<String>>([])
    package init() {}

    package func raise(_ name: String) { raised.change { _ = $0.insert(name) } }

    package func wait(_ name: String, by deadline: Deadline) -> Bool {
        raised.wait(by: deadline) { $0.contains(name) ? true : nil } ?? false
    }
}

package final class ScriptedUpstream: Sendable {
    package struct Record: Sendable {
        package var connections = 0
        /// Connections whose peer ended them.
        package var closed = 0
        package var requests: [ReceivedMessage] = []
        package var received: [UInt8] = []
        /// What went wrong, from the script's point of view.
        package var faults: [String] = []
        package var violations: [String] = []
        package var open: [ObjectIdentifier: RawSocket] = [:]
        package var stopped = false
        package var running = 0
    }

    package let name: String
    package let address: SocketAddress
    package let record = Board(Record())
    private let listener: RawSocket
    /// Held open so that the backlog stays full.
    private let plugs: [RawSocket]
    private let script: [(connection: Int?, statements: [Statement])]
    private let signals: Signals
    private let transcript: Transcript
    private static let keptBytes = 4 << 20
    private static let keptRequests = 2000

    /// `refuse` as the only line refuses connections; `blackhole` lets them neither succeed nor fail.
    package init(
        name: String, lines: [ScenarioLine], signals: Signals, transcript: Transcript
    ) throws(ScenarioFailure) {
        self.name = name
        self.signals = signals
        self.transcript = transcript
        var blocks: [(connection: Int?, statements: [Statement])] = []
        for line in lines {
            let words = line.text.split(separator: " ")
            if words.count == 2, words[0] == "connection" {
                guard let number = Int(words[1]) ?? (words[1] == "*" ? 0 : nil) else {
                    throw ScenarioFailure("expected connection NUMBER or connection *", line: line.number)
                }
                blocks.append((number == 0 ? nil : number, []))
                continue
            }
            if blocks.isEmpty { blocks.append((nil, [])) }
            let parsed = words.first == "respond" ? [Statement(line.text)] : Statement.list(of: line.text)
            for statement in parsed where !Self.commands.contains(statement.name) {
                throw ScenarioFailure("an upstream cannot \"\(statement.text)\"", line: line.number)
            }
            blocks[blocks.count - 1].statements += parsed
        }
        if blocks.isEmpty {
            blocks = [(nil, Self.standard(name))]
        }
        let only = blocks[0].statements.first?.name
        script = blocks
        do {
            switch only {
            case "refuse":
                listener = try RawSocket.bound()
                plugs = []
            case "blackhole":
                listener = try RawSocket.listener(backlog: 0)
                let address = listener.localAddress
                let first = try RawSocket.connect(to: address, by: Deadline(after: ScenarioRun.patience))
                plugs = [first] + (try (0..<3).map { _ throws(SocketError) in try RawSocket.start(connectTo: address) })
            default:
                listener = try RawSocket.listener()
                plugs = []
            }
        } catch {
            throw ScenarioFailure("upstream \(name): \(error)")
        }
        address = listener.localAddress
        if only != "refuse" && only != "blackhole" { startAccepting() }
    }

    /// One that refused connections accepts them from now on, and answers with its name.
    package func revive() throws {
        guard script.first?.statements.first?.name == "refuse" else {
            throw ScenarioFailure("upstream \(name) is not dead")
        }
        try listener.listen()
        startAccepting()
    }

    private static func standard(_ name: String) -> [Statement] {
        [Statement("receive"), Statement("respond 200  x-upstream: \(name)  body: \(name)")]
    }

    static let commands: Set<String> = [
        "receive", "respond", "send", "close", "reset", "wait", "signal", "refuse", "blackhole", "tunnel",
    ]

    private func startAccepting() {
        let thread = Thread { [self] in
            var number = 0
            while let socket = listener.accept(by: Deadline(after: .seconds(600))) {
                if record.read({ $0.stopped }) { break }
                number += 1
                let written =
                    script.first { $0.connection == number }?.statements
                    ?? script.last { $0.connection == nil }?.statements ?? []
                let statements = written.first?.name == "refuse" ? Self.standard(name) : written
                let index = number
                record.change {
                    $0.connections += 1
                    $0.running += 1
                    $0.open[ObjectIdentifier(socket)] = socket
                }
                let serving = Thread { [self] in
                    serve(socket, number: index, statements: statements)
                    record.change {
                        $0.running -= 1
                        $0.open[ObjectIdentifier(socket)] = nil
                    }
                }
                serving.start()
            }
        }
        thread.start()
    }

    package func stop() {
        let open = record.change { record in
            record.stopped = true
            return Array(record.open.values)
        }
        for socket in open { socket.shutdownBoth() }
        listener.shutdownBoth()
        _ = record.wait(by: Deadline(after: ScenarioRun.patience)) { $0.running == 0 ? true : nil }
    }

    private func log(_ number: Int, _ what: String) { transcript.add("upstream \(name)#\(number)", what) }

    private func serve(_ socket: RawSocket, number: Int, statements: [Statement]) {
        log(number, "accepted")
        var reader = MessageReader(socket) { [record] bytes in
            record.change { record in
                if record.received.count < Self.keptBytes { record.received += bytes }
            }
        }
        var session = Session(number: number)
        do {
            // A script is repeated on its connection until one side ends it, as a server would.
            repeat {
                for statement in statements {
                    guard try perform(statement, on: socket, reader: &reader, session: &session) else {
                        finish(reader)
                        return
                    }
                }
            } while !statements.isEmpty
        } catch let error as SocketError {
            log(number, "\(error)")
            if case .reset = error { record.change { $0.closed += 1 } }
        } catch {
            record.change { $0.faults.append("connection \(number): \(error)") }
        }
        finish(reader)
    }

    private func finish(_ reader: MessageReader) {
        record.change { $0.violations += reader.violations }
    }

    private struct Session {
        var number: Int
        var request: ReceivedMessage?
        var index: Int?
        var pattern = BodyPattern()
    }

    /// False ends the connection.
    private func perform(
        _ statement: Statement, on socket: RawSocket, reader: inout MessageReader, session: inout Session
    ) throws -> Bool {
        let deadline = Deadline(after: .seconds(60))
        switch (statement.name, statement.word(1)) {
        case ("receive", ""), ("receive", "head"):
            guard var message = try reader.head(answering: nil, by: deadline) else {
                log(session.number, "the peer ended the connection")
                record.change { $0.closed += 1 }
                return false
            }
            log(session.number, "received \(ByteText.printable(message.head, limit: 600))")
            let whole = statement.words.count == 1
            // The request counts as soon as its head is here: a body that never ends is a request all the same.
            let counted = message
            session.index = record.change { record in
                guard record.requests.count < Self.keptRequests else {
                    record.requests[Self.keptRequests - 1] = counted
                    return nil
                }
                record.requests.append(counted)
                return record.requests.count - 1
            }
            session.request = message
            guard whole else { return true }
            try reader.body(of: &message, by: deadline)
            return took(message, in: &session)
        case ("receive", "body"):
            guard var message = session.request else { return true }
            try reader.body(of: &message, by: deadline)
            return took(message, in: &session)
        case ("receive", "bytes"):
            let count = ByteText.size(statement.word(2)) ?? 0
            let bytes = try reader.exactly(count, by: deadline)
            log(session.number, "received bytes \(ByteText.printable(bytes, limit: 200))")
            return bytes.count == count
        case ("respond", _):
            let line = try MessageLine(String(statement.text.dropFirst("respond ".count)))
            let status = line.start
            let method = session.request?.method ?? "GET"
            var answer = line
            if line.body == Array("@echo".utf8) { answer.body = session.request?.head }
            let code = Int(status.prefix { $0 != " " }) ?? 200
            let bare = code / 100 == 1 || code == 204 || code == 304
            let bytes = answer.serialised(
                startLine: "HTTP/1.1 \(status.contains(" ") ? status : status + " Told")",
                bodiless: method == "HEAD" || bare,
                always: !bare)
            log(session.number, "responds \(ByteText.printable(bytes, limit: 300))")
            try socket.write(bytes, by: deadline)
        case ("send", "bytes"):
            let count = ByteText.size(statement.word(2)) ?? 0
            var left = count
            while left > 0 {
                let part = session.pattern.next(min(left, 1 << 16))
                try socket.write(part, by: deadline)
                left -= part.count
            }
            log(session.number, "sent \(count) bytes of pattern")
        case ("send", "repeat"):
            guard let times = Int(statement.word(2)) else { throw ScenarioFailure("send repeat N \"bytes\"") }
            let bytes = try statement.bytes(3)
            try socket.write([[UInt8]](repeating: bytes, count: times).flatMap { $0 }, by: deadline)
        case ("send", "slowly"):
            // One write per byte; without Nagle's algorithm each is a segment of its own.
            for byte in try statement.bytes(2) { try socket.write([byte], by: deadline) }
        case ("send", "every"):
            guard let pause = ByteText.duration(statement.word(2)) else {
                throw ScenarioFailure("send every DURATION \"bytes\"")
            }
            let bytes = try statement.bytes(3)
            var isThere = true
            while isThere, !deadline.passed {
                do throws(SocketError) {
                    try socket.write(bytes, by: deadline)
                    isThere = try reader.fill(by: Deadline(after: pause))
                } catch .deadline {
                    // Nothing came and nobody went: the next one.
                } catch {
                    isThere = false
                }
            }
            record.change { $0.closed += 1 }
            return false
        case ("send", _):
            let bytes = try statement.bytes(1)
            log(session.number, "sends \(ByteText.printable(bytes, limit: 300))")
            try socket.write(bytes, by: deadline)
        case ("tunnel", _):
            // Sends back whatever comes, until the peer ends.
            while true {
                if reader.pending > 0 { try socket.write(reader.take(reader.pending), by: deadline) }
                guard try reader.fill(by: deadline) else { break }
            }
            record.change { $0.closed += 1 }
            return false
        case ("wait", "close"):
            while try reader.fill(by: deadline) {}
            log(session.number, "the peer ended the connection")
            record.change { $0.closed += 1 }
            return false
        case ("wait", let name):
            log(session.number, "waits for \(name)")
            guard signals.wait(name, by: deadline) else { throw ScenarioFailure("nobody raised \(name)") }
        case ("signal", let name):
            signals.raise(name)
        case ("close", _):
            log(session.number, "closes")
            return false
        case ("reset", _):
            log(session.number, "resets")
            socket.resetOnClose()
            return false
        default: throw ScenarioFailure("an upstream cannot \"\(statement.text)\"")
        }
        return true
    }

    private func took(_ message: ReceivedMessage, in session: inout Session) -> Bool {
        session.request = message
        if let index = session.index { record.change { $0.requests[index] = message } }
        log(session.number, "body of \(message.body.count) bytes, complete: \(message.body.complete)")
        if !message.body.complete { record.change { $0.closed += 1 } }
        return message.body.complete
    }
}
