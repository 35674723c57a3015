// The client side of a scenario: requests as exact bytes, responses as they come.
import Foundation

/// One connection of a client, with the requests that are still to be answered.
struct ClientConnection {
    var reader: MessageReader
    var awaiting: [String] = []
    /// The response that expectations speak of.
    var response: ReceivedMessage?
    var bodyRead = true
    var pattern = BodyPattern()
    /// Bytes of a `send pattern … until stalled` that the kernel did not take.
    var unsent: [UInt8] = []
    var patternLeft = 0
    var stalled = false

    var socket: RawSocket { reader.socket }
}

extension ScenarioRun {
    static func isRequest(_ text: String) -> Bool {
        let method = text.prefix { $0 != " " }
        return method.count >= 3 && method.allSatisfy { $0.isUppercase || $0 == "-" } && text.contains(" ")
    }

    /// The `: ` that a request follows; conditions may hold others in quotes.
    private static func requestColon(in text: String) -> Range<String.Index>? {
        text.ranges(of: ": ").first { isRequest(text[$0.upperBound...].trimmingSpaces) }
    }

    func perform(_ line: ScenarioLine) throws(ScenarioFailure) {
        do {
            if let prefix = ["times", "tally", "repeat"].first(where: { line.text.hasPrefix($0 + " ") }),
                let colon = Self.requestColon(in: line.text)
            {
                let head = Statement(String(line.text[..<colon.lowerBound]))
                let request = String(line.text[colon.upperBound...]).trimmingSpaces
                try performMany(prefix, head, request)
            } else if Self.isRequest(line.text), let arrow = line.text.range(of: "  => ") {
                try ask(interpolate(String(line.text[..<arrow.lowerBound])), String(line.text[arrow.upperBound...]))
            } else if Self.isRequest(line.text) {
                try sendRequest(interpolate(line.text))
            } else {
                for statement in Statement.list(of: try interpolate(line.text)) { try perform(statement) }
            }
        } catch let failure as ScenarioFailure {
            throw ScenarioFailure(failure.message, line: failure.line ?? line.number)
        } catch {
            throw ScenarioFailure("\(line.text): \(error)", line: line.number)
        }
    }

    private func perform(_ statement: Statement) throws {
        let deadline = Deadline(after: Self.patience)
        switch (statement.name, statement.word(1)) {
        case ("connect", _): try connect(statement)
        case ("use", let name):
            guard clients[name] != nil else { throw ScenarioFailure("no connection is called \(name)") }
            current = name
        case ("send", "bytes"):
            try withClient { client in
                var left = ByteText.size(statement.word(2)) ?? 0
                while left > 0 {
                    let part = client.pattern.next(min(left, 1 << 16))
                    try client.socket.write(part, by: deadline)
                    left -= part.count
                }
            }
        case ("send", "flood"): try flood(ByteText.size(statement.word(2)) ?? 0, by: deadline)
        case ("send", "rest"): try sendRest(by: deadline)
        case ("send", "repeat"):
            let bytes = try statement.bytes(3)
            guard let times = Int(statement.word(2)) else { throw ScenarioFailure("send repeat N \"bytes\"") }
            try withClient {
                try $0.socket.write([[UInt8]](repeating: bytes, count: times).flatMap { $0 }, by: deadline)
            }
        case ("send", "slowly"):
            let bytes = try statement.bytes(2)
            try withClient { client in
                for byte in bytes { try client.socket.write([byte], by: deadline) }
            }
            noteRequests(in: bytes)
        case ("send", _):
            let bytes = try statement.bytes(1)
            transcript.add("client \(current)", "sends \(ByteText.printable(bytes))")
            try withClient { try $0.socket.write(bytes, by: deadline) }
            noteRequests(in: bytes)
        case ("awaiting", let method):
            try withClient { $0.awaiting.append(method) }
        case ("receive", "bytes"):
            let count = ByteText.size(statement.word(2)) ?? 0
            try withClient { client in
                let bytes = try client.reader.exactly(count, by: deadline)
                guard bytes.count == count else { throw ScenarioFailure("only \(bytes.count) bytes came") }
                client.response = client.response ?? ReceivedMessage()
                client.response?.body.add(bytes[...])
            }
        case ("receive", "body"): try withClient { try Self.readBody(&$0, by: deadline) }
        case ("half-close", _): try withClient { $0.socket.shutdownWrite() }
        case ("close", _):
            transcript.add("client \(current)", "closes")
            clients[current] = nil
        case ("reset", _):
            clients[current]?.socket.resetOnClose()
            transcript.add("client \(current)", "resets")
            clients[current] = nil
        case ("signal", let name): signals.raise(name)
        case ("wait", let name):
            guard signals.wait(name, by: deadline) else { throw ScenarioFailure("nobody raised \(name)") }
        case ("kill", let name):
            let numbers = ["TERM": SIGTERM, "INT": SIGINT, "KILL": SIGKILL, "HUP": SIGHUP, "USR1": SIGUSR1]
            guard let number = numbers[name] else { throw ScenarioFailure("no signal is called \(name)") }
            transcript.add("client", "kill \(name)")
            expectedExit = true
            program?.send(signal: number)
        case ("revive", let name):
            guard let upstream = upstreams[name] else { throw ScenarioFailure("no upstream is called \(name)") }
            try upstream.revive()
        case ("load", _): try load(statement)
        case ("let", let name): try capture(name, statement)
        case ("expect", _): try expect(statement)
        default: throw ScenarioFailure("a client cannot \"\(statement.text)\"")
        }
    }

    // MARK: Connections

    private func target(_ name: String) throws(ScenarioFailure) -> SocketAddress {
        let address =
            switch name {
            case "", "http": http
            case "https": https
            case "admin": admin
            default: upstreams[name]?.address ?? echoes[name]?.address ?? SocketAddress(name)
            }
        guard let address else { throw ScenarioFailure("nothing listens under the name \(name)") }
        return address
    }

    /// `connect [NAME] [to TARGET] [from ADDRESS] [narrow]`
    private func connect(_ statement: Statement) throws {
        var words = statement.words.dropFirst().map(\.text)[...]
        var to = ""
        var source: String?
        var narrow = false
        var name = current
        while let word = words.popFirst() {
            switch word {
            case "to": to = words.popFirst() ?? ""
            case "from": source = words.popFirst()
            case "narrow": narrow = true
            default: name = word
            }
        }
        try open(name, to: to, from: source)
        if narrow { clients[name]?.socket.limitReceiveBuffer(to: 1 << 18) }
    }

    private func open(_ name: String, to target: String = "", from source: String? = nil) throws {
        let socket = try RawSocket.connect(to: self.target(target), from: source, by: Deadline(after: Self.patience))
        transcript.add("client \(name)", "connected from \(socket.localAddress)")
        variables["client.port"] = String(socket.localAddress.port)
        current = name
        clients[name] = ClientConnection(
            reader: MessageReader(socket) { [transcript] bytes in
                transcript.add("client \(name)", "got \(ByteText.printable(bytes, limit: 400))")
            })
    }

    func withClient<Result>(_ body: (inout ClientConnection) throws -> Result) throws -> Result {
        if clients[current] == nil { try open(current) }
        guard var client = clients[current] else { throw ScenarioFailure("not connected") }
        defer { clients[current] = client }
        return try body(&client)
    }

    /// `METHOD TARGET [VERSION]  name: value  body: text`
    static func request(_ text: String) throws(ScenarioFailure) -> (method: String, bytes: [UInt8]) {
        let line = try MessageLine(text)
        let words = line.start.split(separator: " ").map(String.init)
        guard words.count == 2 || words.count == 3 else { throw ScenarioFailure("not a request: \(line.start)") }
        let start = words.count == 3 ? line.start : line.start + " HTTP/1.1"
        return (words[0], line.serialised(startLine: start))
    }

    private func sendRequest(_ text: String) throws {
        let (method, bytes) = try Self.request(text)
        transcript.add("client \(current)", "sends \(ByteText.printable(bytes, limit: 600))")
        try withClient { client in
            client.awaiting.append(method)
            try client.socket.write(bytes, by: Deadline(after: Self.patience))
        }
    }

    /// `REQUEST  => STATUS ["body"]`: asks and judges in one line, on the kept connection where there still is one.
    private func ask(_ request: String, _ answer: String) throws {
        if let last = clients[current]?.response,
            last.values(of: "connection").contains(where: { $0.lowercased() == "close" })
        {
            clients[current] = nil
        }
        try sendRequest(request)
        let words = Statement(answer).words
        guard let status = words.first else { throw ScenarioFailure("=> STATUS [\"body\"]") }
        try expect(Statement("expect status \(status.text)"))
        if words.count > 1 { try expect(Statement("expect body \(answer.dropFirst(status.text.count))")) }
    }

    /// Raw bytes that begin with a method are taken for one request; `awaiting METHOD` tells of more.
    private func noteRequests(in bytes: [UInt8]) {
        let text = String(decoding: bytes.prefix(64), as: UTF8.self)
        if Self.isRequest(text) { clients[current]?.awaiting.append(String(text.prefix { $0 != " " })) }
    }

    /// Sends pattern bytes until the peer takes no more for half a second, or all are sent.
    private func flood(_ count: Int, by deadline: Deadline) throws {
        try withClient { client in
            client.patternLeft = count
            client.stalled = false
            while client.patternLeft > 0 || !client.unsent.isEmpty {
                if client.unsent.isEmpty {
                    let size = min(client.patternLeft, 1 << 16)
                    client.unsent = client.pattern.next(size)
                    client.patternLeft -= size
                }
                let sent = try client.socket.writeNow(client.unsent[...])
                client.unsent.removeFirst(sent)
                guard sent == 0 else { continue }
                if !client.socket.wait(for: Int16(POLLOUT), by: Deadline(after: .milliseconds(500))) {
                    client.stalled = true
                    break
                }
            }
            transcript.add("client \(current)", "flooded; stalled: \(client.stalled), left: \(client.patternLeft)")
        }
    }

    private func sendRest(by deadline: Deadline) throws {
        try withClient { client in
            try client.socket.write(client.unsent, by: deadline)
            client.unsent = []
            while client.patternLeft > 0 {
                let part = client.pattern.next(min(client.patternLeft, 1 << 16))
                try client.socket.write(part, by: deadline)
                client.patternLeft -= part.count
            }
        }
    }

    // MARK: Responses

    static func readBody(_ client: inout ClientConnection, by deadline: Deadline) throws {
        guard !client.bodyRead, var response = client.response else { return }
        defer {
            client.response = response
            client.bodyRead = true
        }
        do {
            try client.reader.body(of: &response, by: deadline)
        } catch SocketError.reset {
            // However rude, it is an end: `complete` stays false.
        }
    }

    /// The head of the next response. Reads the body of the one before, if nobody did.
    static func readHead(_ client: inout ClientConnection, by deadline: Deadline) throws {
        try readBody(&client, by: deadline)
        let method = client.awaiting.first ?? "GET"
        guard let response = try client.reader.head(answering: method, by: deadline) else {
            throw ScenarioFailure("the connection ended where a response was expected")
        }
        client.response = response
        client.bodyRead = false
        let status = response.status ?? 0
        if status / 100 != 1 || status == 101, !client.awaiting.isEmpty { client.awaiting.removeFirst() }
    }

    /// One request on a connection of its own.
    func exchange(
        _ request: String, to address: SocketAddress?, from source: String? = nil
    ) throws -> ReceivedMessage {
        let (method, bytes) = try Self.request(request)
        guard let address else { throw ScenarioFailure("nothing listens") }
        let deadline = Deadline(after: Self.patience)
        let socket = try RawSocket.connect(to: address, from: source, by: deadline)
        try socket.write(bytes, by: deadline)
        var client = ClientConnection(reader: MessageReader(socket), awaiting: [method])
        repeat { try Self.readHead(&client, by: deadline) } while (client.response?.status ?? 0) / 100 == 1
        try Self.readBody(&client, by: deadline)
        guard let response = client.response else { throw ScenarioFailure("no response") }
        return response
    }

    /// `times N: REQUEST`, `tally N: REQUEST`, `repeat until CONDITION: REQUEST`.
    private func performMany(_ kind: String, _ head: Statement, _ request: String) throws {
        switch kind {
        case "repeat":
            var limit = Self.patience
            var text = head.text.dropFirst("repeat ".count)
            if head.word(1) == "within" {
                guard let given = ByteText.duration(head.word(2)) else { throw ScenarioFailure("within what?") }
                limit = given
                text = text.dropFirst("within \(head.word(2)) ".count)
            }
            guard text.hasPrefix("until ") else { throw ScenarioFailure("repeat until CONDITION: REQUEST") }
            let condition = Statement("expect " + (try interpolate(String(text.dropFirst("until ".count)))))
            let deadline = Deadline(after: limit)
            var last = "no attempt"
            var attempts = 0
            while !deadline.passed {
                attempts += 1
                do {
                    let response = try exchange(interpolate(request), to: http)
                    guard let problem = try Self.judge(response, condition) else {
                        transcript.add("client", "\(head.text) after \(attempts) attempts: \(request)")
                        if head.word(1) == "within", let edited {
                            let milliseconds = (Deadline.now - edited) / 1_000_000
                            figures.append("\(condition.rest(from: 1)) \(milliseconds) ms after the edit")
                        }
                        return
                    }
                    last = problem
                } catch let error as SocketError {
                    last = "\(error)"
                }
                // Paced by an event that may cut the wait short, not by a fixed sleep.
                _ = program?.output.wait(by: Deadline(after: .milliseconds(10))) { $0.exit }
            }
            throw ScenarioFailure("still not after \(attempts) attempts: \(last)")
        default:
            guard let count = Int(head.word(1)) else { throw ScenarioFailure("\(kind) N: REQUEST") }
            if kind == "tally" { tally = [:] }
            for index in 1...max(1, count) {
                variables["i"] = String(index)
                try sendRequest(interpolate(request))
                try withClient { client in
                    try Self.readHead(&client, by: Deadline(after: Self.patience))
                    try Self.readBody(&client, by: Deadline(after: Self.patience))
                    guard let response = client.response else { return }
                    let body = String(decoding: response.body.bytes, as: UTF8.self)
                    let status = response.status ?? 0
                    if kind == "tally" {
                        tally[status == 200 ? body : String(status), default: 0] += 1
                    } else if status >= 400 {
                        throw ScenarioFailure("request \(index) of \(count) was answered with \(status) \(body)")
                    }
                }
            }
            variables["i"] = nil
            if kind == "tally" { transcript.add("client", "tally \(tally.sorted { $0.key < $1.key })") }
        }
    }

    /// `let NAME from header FIELD "(regex)"`: the first group, or the whole match.
    private func capture(_ name: String, _ statement: Statement) throws {
        guard statement.word(2) == "from", let response = clients[current]?.response else {
            throw ScenarioFailure("let NAME from header FIELD \"(regex)\", after a response")
        }
        let texts =
            statement.word(3) == "header"
            ? response.values(of: statement.word(4)) : [String(decoding: response.body.bytes, as: UTF8.self)]
        let pattern = statement.word(statement.word(3) == "header" ? 5 : 4)
        let regex = try Regex(pattern)
        for text in texts {
            guard let match = text.firstMatch(of: regex) else { continue }
            let group = match.output.count > 1 ? match.output[1].substring : match.output[0].substring
            variables[name] = String(group ?? "")
            return
        }
        throw ScenarioFailure("/\(pattern)/ matches nothing of \(texts)")
    }

    // MARK: Load

    private func load(_ statement: Statement) throws {
        let name = statement.word(1)
        switch statement.word(2) {
        case "start":
            // load NAME start CONNECTIONS "REQUEST"
            guard let count = Int(statement.word(3)), let address = http, loads[name] == nil else {
                throw ScenarioFailure("load NAME start CONNECTIONS \"REQUEST\"")
            }
            let (_, bytes) = try Self.request(statement.word(4))
            loads[name] = LoadLoop(address: address, request: bytes, connections: count)
        case "until":
            // load NAME until N requests
            guard let load = loads[name], let count = Int(statement.word(3)) else {
                throw ScenarioFailure("no load \(name)")
            }
            let start = load.count.read { $0.requests }
            guard
                load.count.wait(by: Deadline(after: Self.patience), { $0.requests >= start + count ? true : nil })
                    != nil
            else { throw ScenarioFailure("load \(name) made no \(count) more requests: \(load.count.read { $0 })") }
        case "stop":
            guard let load = loads[name] else { throw ScenarioFailure("no load \(name)") }
            load.stop()
            transcript.add("load \(name)", "\(load.count.read { $0 })")
        default: throw ScenarioFailure("a load can start, until or stop")
        }
    }
}

/// Requests in a loop on keep-alive connections, while a scenario does something else.
package final class LoadLoop: Sendable {
    package struct Count: Sendable {
        package var requests = 0
        package var errors: [String] = []
        package var statuses: [Int: Int] = [:]
        package var bodies: [String: Int] = [:]
        var stopping = false
        var running = 0
    }

    package let count = Board(Count())

    package init(address: SocketAddress, request: [UInt8], connections: Int) {
        count.change { $0.running = connections }
        for _ in 0..<connections {
            let thread = Thread { [count] in
                Self.loop(count, address, request)
                count.change { $0.running -= 1 }
            }
            thread.start()
        }
    }

    package func stop() {
        count.change { $0.stopping = true }
        _ = count.wait(by: Deadline(after: .seconds(30))) { $0.running == 0 ? true : nil }
    }

    private static func loop(_ count: Board<Count>, _ address: SocketAddress, _ request: [UInt8]) {
        var client: ClientConnection?
        while !count.read({ $0.stopping }) {
            let deadline = Deadline(after: .seconds(15))
            do {
                if client == nil {
                    client = ClientConnection(reader: MessageReader(try RawSocket.connect(to: address, by: deadline)))
                }
                guard var now = client else { return }
                try now.socket.write(request, by: deadline)
                try ScenarioRun.readHead(&now, by: deadline)
                try ScenarioRun.readBody(&now, by: deadline)
                let status = now.response?.status ?? 0
                let body = String(decoding: now.response?.body.bytes ?? [], as: UTF8.self)
                let whole = now.response?.body.complete ?? false
                let closing = now.response?.values(of: "connection").contains { $0.lowercased() == "close" } ?? true
                client = closing ? nil : now
                count.change { count in
                    count.requests += 1
                    count.statuses[status, default: 0] += 1
                    if count.bodies.count < 64 || count.bodies[body] != nil { count.bodies[body, default: 0] += 1 }
                    if status != 200 || !whole { count.errors.append("status \(status), whole body: \(whole)") }
                }
            } catch {
                client = nil
                let stop = count.change { count in
                    count.errors.append("\(error)")
                    return count.errors.count > 100
                }
                if stop { return }
            }
        }
    }
}
