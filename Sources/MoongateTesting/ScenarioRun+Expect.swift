// What a scenario may expect. A condition that can still become true is waited for; one that cannot fails at once.
import Foundation

extension ScenarioRun {
    /// `expect [within DURATION] SUBJECT …`
    func expect(_ statement: Statement) throws {
        var statement = statement
        var limit = Self.patience
        if statement.word(1) == "within" {
            guard let given = ByteText.duration(statement.word(2)) else { throw ScenarioFailure("within what?") }
            limit = given
            statement.words.removeSubrange(1...2)
        }
        let deadline = Deadline(after: limit)
        switch statement.word(1) {
        case "status":
            try withClient { client in
                try Self.readHead(&client, by: deadline)
                try Self.readBody(&client, by: deadline)
            }
            try judgeCurrent(statement)
        case "interim", "head":
            // Only the head: the body is read by what follows.
            try withClient { try Self.readHead(&$0, by: deadline) }
            statement.words[1].text = "status"
            try judgeCurrent(statement)
        case "header", "no", "body", "trailer", "complete", "incomplete", "reason":
            try withClient { client in
                if statement.word(1) != "header" && statement.word(1) != "no" {
                    try Self.readBody(&client, by: deadline)
                }
            }
            try judgeCurrent(statement)
        case "bytes":
            let expected = try statement.bytes(2)
            let got = try withClient { try $0.reader.exactly(expected.count, by: deadline) }
            guard got == expected else { throw ScenarioFailure("expected those bytes, got \(ByteText.printable(got))") }
        case "close": try expectClose(by: deadline)
        case "open": try expectOpen()
        case "stalled":
            guard clients[current]?.stalled == true else { throw ScenarioFailure("the client was never held back") }
        case "counter": try expectCounter(statement, by: deadline)
        case "upstream": try expectUpstream(statement, by: deadline)
        case "log": try expectLog(statement, by: deadline)
        case "stderr", "stdout": try expectOutput(statement, by: deadline)
        case "diagnostic", "snapshot", "admin": try expectAdmin(statement, by: deadline)
        case "exit": try expectExit(statement, by: deadline)
        case "load": try expectLoad(statement)
        case "tally": try expectTally(statement)
        case "rss": try expectMemory(statement)
        default: throw ScenarioFailure("nothing is known of \"\(statement.text)\"")
        }
    }

    // MARK: The response

    private func judgeCurrent(_ statement: Statement) throws {
        guard let response = clients[current]?.response else { throw ScenarioFailure("there is no response yet") }
        if let problem = try Self.judge(response, statement) { throw ScenarioFailure(problem) }
    }

    /// Nil when `expect …` holds for the response, else what is wrong.
    static func judge(_ response: ReceivedMessage, _ statement: Statement) throws -> String? {
        let subject = statement.word(1)
        switch subject {
        case "status":
            let allowed = statement.word(2).split(separator: "|").compactMap { Int($0) }
            guard let status = response.status, allowed.contains(status) else {
                let body = ByteText.printable(response.body.bytes, limit: 200)
                return "status \(statement.word(2)) was expected, but \(response.startLine) came, body: \(body)"
            }
            return nil
        case "reason":
            let reason = response.startLine.split(separator: " ", maxSplits: 2).dropFirst(2).joined()
            return reason == statement.rest(from: 2) ? nil : "the reason phrase is \"\(reason)\""
        case "complete": return response.body.complete ? nil : "the body was cut off at \(response.body.count) bytes"
        case "incomplete": return response.body.complete ? "the body came to its proper end" : nil
        case "no":
            let values = response.values(of: statement.word(3))
            return values.isEmpty ? nil : "there should be no \(statement.word(3)), but it is \(values)"
        case "header": return compare(response.fields, statement, from: 2)
        case "trailer": return compare(response.trailers, statement, from: 2)
        case "body": return try compare(response.body, statement, from: 2)
        default: return "nothing is known of \"\(statement.text)\""
        }
    }

    /// `NAME: VALUE`, `NAME ~ "regex"`, `NAME` (is there), `NAME count N`.
    static func compare(_ fields: [Field], _ statement: Statement, from index: Int) -> String? {
        var name = statement.word(index)
        let exact = name.hasSuffix(":")
        if exact { name.removeLast() }
        let values = fields.filter { $0.name.lowercased() == name.lowercased() }.map(\.value)
        guard !values.isEmpty else { return "there is no field \(name) in \(fields.map { "\($0.name): \($0.value)" })" }
        if exact {
            let expected = (try? statement.decoded(from: index + 1)) ?? statement.rest(from: index + 1)
            return values.contains(expected) ? nil : "\(name) is \(values), not \"\(expected)\""
        }
        switch statement.word(index + 1) {
        case "": return nil
        case "count": return values.count == Int(statement.word(index + 2)) ? nil : "\(name) came \(values.count) times"
        case "~":
            guard let regex = try? Regex(statement.word(index + 2)) else { return "not a pattern: \(statement.text)" }
            return values.contains { $0.firstMatch(of: regex) != nil } ? nil : "\(name) is \(values)"
        default: return "header NAME: VALUE, header NAME ~ \"regex\" or header NAME"
        }
    }

    /// `"text"`, `contains "text"`, `lacks "text"`, `~ "regex"`, `bytes N`, `pattern N`, `json PATH VALUE`, `empty`.
    static func compare(_ body: ReceivedBody, _ statement: Statement, from index: Int) throws -> String? {
        let shown = ByteText.printable(body.bytes, limit: 400)
        let text = String(decoding: body.bytes, as: UTF8.self)
        switch statement.word(index) {
        case "contains":
            let needle = try statement.bytes(index + 1)
            return ByteText.find(needle, in: body.bytes) ? nil : "the body lacks \(statement.word(index + 1)): \(shown)"
        case "lacks":
            let needle = try statement.bytes(index + 1)
            return ByteText.find(needle, in: body.bytes) ? "the body has \(statement.word(index + 1)): \(shown)" : nil
        case "~":
            let regex = try Regex(statement.word(index + 1))
            return text.firstMatch(of: regex) != nil ? nil : "the body is \(shown)"
        case "empty": return body.count == 0 ? nil : "the body is \(shown)"
        case "bytes":
            return body.count == ByteText.size(statement.word(index + 1)) ? nil : "the body has \(body.count) bytes"
        case "pattern":
            guard body.count == ByteText.size(statement.word(index + 1)) else {
                return "the body has \(body.count) bytes"
            }
            return body.pattern.holds ? nil : "the body's bytes are not those that were sent"
        case "json":
            guard let value = JSONText.value(text) else { return "the body is no JSON: \(shown)" }
            let path = statement.word(index + 1)
            let expected = statement.rest(from: index + 2)
            let found = JSONText.printed(path, in: value)
            return found == expected ? nil : "\(path) is \(found ?? "absent"), not \(expected), in \(shown)"
        default:
            let expected = try statement.bytes(index)
            return body.bytes == expected ? nil : "the body is \(shown)"
        }
    }

    private func expectClose(by deadline: Deadline) throws {
        try withClient { client in
            try Self.readBody(&client, by: deadline)
            do {
                while try client.reader.fill(by: deadline) {}
            } catch SocketError.reset {
                transcript.add("client \(current)", "was reset")
            }
            guard client.reader.pending == 0 else {
                let bytes = client.reader.take(client.reader.pending)
                throw ScenarioFailure("bytes before the close: \(ByteText.printable(bytes, limit: 400))")
            }
        }
        clients[current] = nil
    }

    /// Nothing was sent and the stream has not ended, as of now.
    private func expectOpen() throws {
        try withClient { client in
            if client.socket.wait(for: Int16(POLLIN), by: Deadline(after: .zero)) {
                guard try client.reader.fill(by: Deadline(after: .zero)) else {
                    throw ScenarioFailure("the connection was closed")
                }
            }
        }
    }

    // MARK: The program

    /// Asks until `answer` is nil (it holds) or the deadline passes.
    private func poll(by deadline: Deadline, _ answer: () throws -> String?) throws {
        while true {
            guard let problem = try answer() else { return }
            if deadline.passed { throw ScenarioFailure(problem) }
            // Any line of the program cuts the pause short.
            let lines = program?.output.read { $0.lines.count + $0.errorLines.count } ?? 0
            _ = program?.output.wait(by: Deadline(after: .milliseconds(20))) {
                $0.lines.count + $0.errorLines.count > lines ? true : nil
            }
        }
    }

    /// `==`, `>=`, `<=`, `>`, `<`, `!=`.
    private static func compare(_ value: Double, _ operation: String, _ text: String) throws(ScenarioFailure) -> Bool {
        guard let expected = Double(text) ?? ByteText.size(text).map(Double.init) else {
            throw ScenarioFailure("not a number: \(text)")
        }
        switch operation {
        case "==": return value == expected
        case "!=": return value != expected
        case ">=": return value >= expected
        case "<=": return value <= expected
        case ">": return value > expected
        case "<": return value < expected
        default: throw ScenarioFailure("not a comparison: \(operation)")
        }
    }

    /// `expect counter NAME[{label="value"}] == N`: the sum of the series that carry these labels.
    private func expectCounter(_ statement: Statement, by deadline: Deadline) throws {
        // A selector may have been cut at the spaces and quotes in it; the statement's text has it whole.
        guard let range = statement.text.range(of: "counter ") else { return }
        let words = statement.text[range.upperBound...].split(separator: " ")
        guard words.count >= 3 else { throw ScenarioFailure("expect counter NAME == N") }
        let selector = words.dropLast(2).joined(separator: " ")
        let (operation, number) = (String(words[words.count - 2]), String(words[words.count - 1]))
        try poll(by: deadline) {
            let response = try exchange("GET /metrics  host: localhost  connection: close", to: admin)
            let text = String(decoding: response.body.bytes, as: UTF8.self)
            let value = try MetricsText.sum(of: selector, in: text)
            return try Self.compare(value, operation, number) ? nil : "counter \(selector) is \(value)"
        }
    }

    private func expectUpstream(_ statement: Statement, by deadline: Deadline) throws {
        let parts = statement.word(2).split(separator: ".").map(String.init)
        guard parts.count == 2, let upstream = upstreams[parts[0]] else {
            throw ScenarioFailure("no upstream \(statement.word(2))")
        }
        var problem = ""
        let holds = upstream.record.wait(by: deadline) { record -> Result<Bool, any Error>? in
            do {
                guard let found = try Self.judge(record, parts[1], statement) else { return .success(true) }
                problem = "upstream \(parts[0]): \(found)"
                return nil
            } catch {
                return .failure(error)
            }
        }
        guard let holds else { throw ScenarioFailure(problem) }
        _ = try holds.get()
    }

    private static func judge(
        _ record: ScriptedUpstream.Record, _ subject: String, _ statement: Statement
    ) throws -> String? {
        func number(_ value: Int) throws -> String? {
            try compare(Double(value), statement.word(3), statement.word(4)) ? nil : "\(subject) is \(value)"
        }
        switch subject {
        case "requests": return try number(record.requests.count)
        case "connections": return try number(record.connections)
        case "closed": return try number(record.closed)
        case "received":
            let needle = try statement.bytes(4)
            let found = ByteText.find(needle, in: record.received)
            switch statement.word(3) {
            case "contains":
                return found ? nil : "was not sent \(statement.word(4)), but \(ByteText.printable(record.received))"
            case "lacks": return found ? "was sent \(statement.word(4)): \(ByteText.printable(record.received))" : nil
            default: throw ScenarioFailure("received contains or lacks")
            }
        case "request":
            // expect upstream a.request [N] header …: without a number, the last.
            var statement = statement
            var index = record.requests.count
            if let given = Int(statement.word(3)) {
                index = given
                statement.words.remove(at: 3)
            }
            guard index > 0, record.requests.indices.contains(index - 1) else { return "it had no such request" }
            let request = record.requests[index - 1]
            switch statement.word(3) {
            case "line":
                return request.startLine == statement.rest(from: 4) ? nil : "the request line is \(request.startLine)"
            case "header": return compare(request.fields, statement, from: 4)
            case "no":
                let values = request.values(of: statement.word(5))
                return values.isEmpty ? nil : "it was sent \(statement.word(5)): \(values)"
            case "trailer": return compare(request.trailers, statement, from: 4)
            case "body":
                guard request.body.complete else { return "the body is not complete: \(request.body.count) bytes" }
                return try compare(request.body, statement, from: 4)
            case "incomplete": return request.body.complete ? "the body came to its proper end" : nil
            default: throw ScenarioFailure("nothing is known of \"\(statement.text)\"")
            }
        default: throw ScenarioFailure("an upstream has no \(subject)")
        }
    }

    /// `expect log status=502 error~"connect" upstream.address="${a.address}"`: one line has it all.
    private func expectLog(_ statement: Statement, by deadline: Deadline) throws {
        let text = statement.text.dropFirst("expect ".count)
        guard let start = text.range(of: "log ") else { throw ScenarioFailure("expect log key=value …") }
        let conditions = try Self.conditions(text[start.upperBound...])
        try poll(by: deadline) {
            let lines = program?.output.read { $0.lines + $0.errorLines } ?? []
            var nearest = "no line of the access log"
            for line in lines {
                guard let object = JSONText.object(line), object["status"] != nil else { continue }
                let wrong = conditions.first { !$0.holds(in: object) }
                guard let wrong else { return nil }
                nearest = "\(wrong.key) is \(JSONText.printed(wrong.key, in: object) ?? "absent") in \(line)"
            }
            return "no log line has all of that; the last one: \(nearest)"
        }
    }

    private struct Condition {
        var key: String
        var value: String
        var regex: Bool

        func holds(in object: [String: Any]) -> Bool {
            guard let found = JSONText.printed(key, in: object) else { return value == "absent" && !regex }
            guard regex else { return found == value }
            guard let pattern = try? Regex(value) else { return false }
            return found.firstMatch(of: pattern) != nil
        }
    }

    private static func conditions(_ text: Substring) throws(ScenarioFailure) -> [Condition] {
        var conditions: [Condition] = []
        var rest = text
        while let first = rest.first {
            if first == " " {
                rest = rest.dropFirst()
                continue
            }
            guard let mark = rest.firstIndex(where: { $0 == "=" || $0 == "~" }) else {
                throw ScenarioFailure("expected key=value in \(text)")
            }
            let key = String(rest[..<mark])
            let regex = rest[mark] == "~"
            rest = rest[rest.index(after: mark)...]
            var value = ""
            if rest.first == "\"" {
                rest = rest.dropFirst()
                guard let end = rest.firstIndex(of: "\"") else {
                    throw ScenarioFailure("a quote is not closed in \(text)")
                }
                value = String(rest[..<end])
                rest = rest[rest.index(after: end)...]
            } else {
                value = String(rest.prefix { $0 != " " })
                rest = rest.dropFirst(value.count)
            }
            conditions.append(Condition(key: key, value: value, regex: regex))
        }
        return conditions
    }

    /// `expect stderr contains "text"`, `expect stderr ~ "regex"`, `expect stderr lacks "text"` (as of now).
    private func expectOutput(_ statement: Statement, by deadline: Deadline) throws {
        let needle = statement.rest(from: 3)
        let errors = statement.word(1) == "stderr"
        func lines() -> [String] { program?.output.read { errors ? $0.errorLines : $0.lines } ?? [] }
        if statement.word(2) == "lacks" {
            if let line = lines().first(where: { $0.contains(needle) }) { throw ScenarioFailure("it says: \(line)") }
            return
        }
        let pattern = statement.word(2) == "~" ? try Regex(needle) : nil
        try poll(by: deadline) {
            let found = lines().contains { line in
                if let pattern { line.firstMatch(of: pattern) != nil } else { line.contains(needle) }
            }
            return found ? nil : "\(statement.word(1)) never says \(needle)"
        }
    }

    /// `expect diagnostic "text"`, `expect no-diagnostic …` is `expect admin /diagnostics lacks "text"`;
    /// `expect admin PATH status N` and `expect admin PATH contains "text"`.
    private func expectAdmin(_ statement: Statement, by deadline: Deadline) throws {
        var path = statement.word(2)
        var operation = statement.word(3)
        var needle = statement.rest(from: 4)
        if statement.word(1) != "admin" {
            path = statement.word(1) == "diagnostic" ? "/diagnostics" : "/snapshot"
            operation = "contains"
            needle = statement.rest(from: 2)
        }
        try poll(by: deadline) {
            let response = try exchange("GET \(path)  host: localhost  connection: close", to: admin)
            let text = String(decoding: response.body.bytes, as: UTF8.self)
            switch operation {
            case "status": return response.status == Int(needle) ? nil : "\(path) answers \(response.startLine)"
            case "contains": return text.contains(needle) ? nil : "\(path) does not say \(needle): \(text.prefix(1500))"
            case "lacks": return text.contains(needle) ? "\(path) says \(needle): \(text.prefix(1500))" : nil
            default: throw ScenarioFailure("admin PATH status, contains or lacks")
            }
        }
    }

    /// `expect exit 0`, `expect exit signal 9`.
    private func expectExit(_ statement: Statement, by deadline: Deadline) throws {
        expectedExit = true
        guard let exit = program?.output.wait(by: deadline, { $0.exit }) else { throw ScenarioFailure("it still runs") }
        let expected = statement.rest(from: 2)
        let found =
            switch exit {
            case .code(let code): String(code)
            case .signal(let number): "signal \(number)"
            }
        guard found == expected else { throw ScenarioFailure("it ended with \(exit)") }
    }

    /// `expect load NAME errors == 0`, `expect load NAME requests >= N`, `expect load NAME bodies == N`.
    private func expectLoad(_ statement: Statement) throws {
        guard let load = loads[statement.word(2)] else {
            throw ScenarioFailure("no load is called \(statement.word(2))")
        }
        let count = load.count.read { $0 }
        let value: Int
        switch statement.word(3) {
        case "errors": value = count.errors.count
        case "requests": value = count.requests
        case "bodies": value = count.bodies.count
        default: throw ScenarioFailure("a load has errors, requests and bodies")
        }
        guard try Self.compare(Double(value), statement.word(4), statement.word(5)) else {
            throw ScenarioFailure(
                "load \(statement.word(2)): \(statement.word(3)) is \(value); \(count.errors.prefix(5))")
        }
    }

    /// `expect tally "body" == N`, `expect tally total == N` and `expect tally kinds == N` for the last `tally`.
    private func expectTally(_ statement: Statement) throws {
        let key = statement.word(2)
        let value =
            switch key {
            case "total": tally.values.reduce(0, +)
            case "kinds": tally.count
            default: tally[key] ?? 0
            }
        guard try Self.compare(Double(value), statement.word(3), statement.word(4)) else {
            throw ScenarioFailure("\(key) was counted \(value) times: \(tally)")
        }
    }

    /// `expect rss < 80MiB`: resident memory of the program.
    private func expectMemory(_ statement: Statement) throws {
        guard let program,
            let status = try? String(contentsOfFile: "/proc/\(program.identifier)/status", encoding: .utf8),
            let line = status.split(separator: "\n").first(where: { $0.hasPrefix("VmRSS:") }),
            let kilobytes = line.split(separator: " ").dropFirst().first
                ?? line.split(separator: "\t").dropFirst().first,
            let value = Double(kilobytes.filter(\.isNumber))
        else { throw ScenarioFailure("the program's memory cannot be read") }
        transcript.add("moongate", "resident memory \(Int(value)) KiB")
        guard try Self.compare(value * 1024, statement.word(2), statement.word(3)) else {
            throw ScenarioFailure("resident memory is \(Int(value)) KiB")
        }
    }
}

/// The Prometheus text format, as far as sums of series need it.
package enum MetricsText {
    /// `name{label="value",…}`; a name may be given without its prefix `moongate_` and suffix `_total`.
    package static func sum(of selector: String, in text: String) throws(ScenarioFailure) -> Double {
        let name = String(selector.prefix { $0 != "{" })
        let labels = selector.dropFirst(name.count).dropFirst().dropLast()
            .split(separator: ",").map { $0.trimmingSpaces }.filter { !$0.isEmpty }
        let names: Set = [name, "moongate_" + name, name + "_total", "moongate_" + name + "_total"]
        var sum = 0.0
        for line in text.split(separator: "\n") where !line.hasPrefix("#") {
            let series = line.prefix { $0 != "{" && $0 != " " }
            guard names.contains(String(series)) else { continue }
            guard let space = line.lastIndex(of: " "), let value = Double(line[line.index(after: space)...]) else {
                throw ScenarioFailure("not a sample: \(line)")
            }
            let set = line[..<space].dropFirst(series.count)
            if labels.allSatisfy({ set.contains("{" + $0) || set.contains("," + $0) }) { sum += value }
        }
        return sum
    }
}
