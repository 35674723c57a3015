// Tables of byte strings: what the front makes of each, and whether the upstream saw the same number of requests.
//
// The property behind both sections is the one that request smuggling breaks: the requests that the upstream counts
// are the requests that the front answered from it, never one more.
import Foundation

extension ScenarioRun {
    private struct Case {
        var title: String
        var statuses: [Int]
        var alone: Bool
        var bytes: [UInt8]
        var line: Int
    }

    private struct Outcome {
        var responses: [ReceivedMessage] = []
        var closed = false
        /// Responses that came from the upstream.
        var forwarded: Int { responses.count { !$0.values(of: "x-upstream").isEmpty } }
    }

    /// Rows `"title" STATUS[|STATUS] [alone] "bytes"`, where lines that begin with a quote go on with the bytes of the
    /// row above. Each row is sent on a fresh connection and after a good request, with a good request behind it
    /// unless it is `alone`. A status from 400 on, but for 404, must end the connection; any other must leave the
    /// next request untouched.
    func runCases(_ section: ScenarioSection) throws(ScenarioFailure) {
        guard let name = section.arguments.first, let upstream = upstreams[name] else {
            throw ScenarioFailure("cases need the upstream that counts", line: section.line)
        }
        let host = section.options["host"] ?? "shop.test"
        let good = Array("GET /good HTTP/1.1\r\nhost: \(host)\r\n\r\n".utf8)
        let sentinel = Array("GET /sentinel HTTP/1.1\r\nhost: \(host)\r\n\r\n".utf8)
        var failures: [String] = []
        let cases = try parseCases(section)
        guard !cases.isEmpty else { throw ScenarioFailure("no cases", line: section.line) }
        for row in cases {
            for afterGood in [false, true] {
                let mark = row.title + (afterGood ? " (after a good request)" : "")
                let before = upstream.record.read { $0.requests.count }
                do {
                    let outcome = try play(
                        row.bytes + (row.alone ? [] : sentinel), after: afterGood ? good : nil, until: row.alone ? 1 : 2
                    )
                    let refused = row.statuses.allSatisfy { Self.isRefusal($0) }
                    let answers = outcome.responses.dropFirst(afterGood ? 1 : 0)
                    let statuses = answers.map { $0.status ?? 0 }
                    if !row.statuses.contains(statuses.first ?? 0) {
                        failures.append("line \(row.line) \(mark): \(row.statuses) expected, got \(statuses)")
                    }
                    if refused && (statuses.count != 1 || !outcome.closed) {
                        failures.append(
                            "line \(row.line) \(mark): a refusal must end the connection: \(statuses), closed \(outcome.closed)"
                        )
                    }
                    if !refused && !row.alone && (statuses.count != 2 || statuses.last != 200) {
                        failures.append("line \(row.line) \(mark): the request behind it was lost: \(statuses)")
                    }
                    let counted = upstream.record.read { $0.requests.count } - before
                    if counted != outcome.forwarded {
                        failures.append(
                            "line \(row.line) \(mark): the upstream counts \(counted) requests, the front \(outcome.forwarded)"
                        )
                    }
                } catch {
                    failures.append("line \(row.line) \(mark): \(error)")
                }
            }
        }
        transcript.add("cases", "\(cases.count) rows, \(failures.count) failures")
        guard failures.isEmpty else {
            throw ScenarioFailure(
                "\(failures.count) failures:\n" + failures.joined(separator: "\n"), line: section.line)
        }
    }

    private func parseCases(_ section: ScenarioSection) throws(ScenarioFailure) -> [Case] {
        var cases: [Case] = []
        for line in section.commands {
            let statement = Statement(try interpolate(line.text))
            guard let first = statement.words.first else { continue }
            do throws(ScenarioFailure) {
                if statement.words.count == 1, first.quoted, !cases.isEmpty {
                    cases[cases.count - 1].bytes += try first.bytes
                    continue
                }
                var words = statement.words.dropFirst()[...]
                let statuses = (words.popFirst()?.text ?? "").split(separator: "|").compactMap { Int($0) }
                let alone = words.first.map { !$0.quoted && $0.text == "alone" } ?? false
                if alone { words = words.dropFirst() }
                guard first.quoted, !statuses.isEmpty else {
                    throw ScenarioFailure("\"title\" STATUS [alone] \"bytes\"")
                }
                var bytes: [UInt8] = []
                if words.first?.text == "repeat", let count = Int(words.dropFirst().first?.text ?? "") {
                    words = words.dropFirst(2)
                    let lead = try words.popFirst()?.bytes ?? []
                    let unit = try words.popFirst()?.bytes ?? []
                    bytes = lead + [[UInt8]](repeating: unit, count: count).flatMap { $0 }
                }
                while let word = words.popFirst() {
                    // `fill N "b"`: as many of these bytes, for heads of an exact size.
                    if !word.quoted, word.text == "fill", let count = Int(words.first?.text ?? "") {
                        words = words.dropFirst()
                        let unit = try words.popFirst()?.bytes ?? []
                        bytes += [[UInt8]](repeating: unit, count: count).flatMap { $0 }
                    } else {
                        bytes += try word.bytes
                    }
                }
                cases.append(Case(title: first.text, statuses: statuses, alone: alone, bytes: bytes, line: line.number))
            } catch {
                throw ScenarioFailure(error.message, line: line.number)
            }
        }
        return cases
    }

    /// Sends, and reads responses until the close, or until `count` of them came.
    private func play(_ bytes: [UInt8], after good: [UInt8]?, until count: Int) throws -> Outcome {
        guard let http else { throw ScenarioFailure("nothing listens") }
        let deadline = Deadline(after: Self.patience)
        var outcome = Outcome()
        var reader = MessageReader(try RawSocket.connect(to: http, by: deadline))
        if let good {
            try reader.socket.write(good, by: deadline)
            guard var response = try reader.head(answering: "GET", by: deadline) else {
                throw ScenarioFailure("the good request was not answered")
            }
            try reader.body(of: &response, by: deadline)
            outcome.responses.append(response)
        }
        do {
            try reader.socket.write(bytes, by: deadline)
            let method = String(decoding: bytes.prefix { $0 != 32 }, as: UTF8.self)
            try Self.collect(
                count, from: &reader, answering: method == "HEAD" ? "HEAD" : "GET", into: &outcome, by: deadline)
        } catch let error as SocketError {
            // A reset is a close whose bytes may be lost: the count of answers tells whether they were.
            guard case .reset = error else { throw error }
            outcome.closed = true
        }
        return outcome
    }

    /// A request that was not understood: what follows it cannot be told from its body. A 404 is an answer.
    private static func isRefusal(_ status: Int) -> Bool { status >= 400 && status != 404 }

    private static func collect(
        _ count: Int, from reader: inout MessageReader, answering first: String, into outcome: inout Outcome,
        by deadline: Deadline
    ) throws {
        var wanted = count
        while wanted > 0 {
            let method = wanted == count ? first : "GET"
            guard var response = try reader.head(answering: method, by: deadline) else {
                outcome.closed = true
                return
            }
            try reader.body(of: &response, by: deadline)
            let status = response.status ?? 0
            if status / 100 == 1 { continue }
            outcome.responses.append(response)
            wanted -= 1
            // Nothing but the close may follow a refusal.
            if isRefusal(status) { wanted = Int.max }
        }
    }

    /// Rows of bytes; at every position each of a list of treacherous bytes is put in the place of the right one. The
    /// answer must be a refusal or one response from the upstream for each request that it saw, and what it saw must say
    /// what the input says by the book.
    func runMutations(_ section: ScenarioSection) throws(ScenarioFailure) {
        guard let name = section.arguments.first, let upstream = upstreams[name], let http else {
            throw ScenarioFailure("mutations need the upstream that counts", line: section.line)
        }
        let bytes: [UInt8] = [0, 9, 10, 11, 13, 32, 0x22, 0x23, 0x2c, 0x2f, 0x30, 0x3a, 0x3b, 0x7f, 0x80, 0xff]
        var inputs: [(String, [UInt8])] = []
        for line in section.commands {
            do {
                let original = try Statement(try interpolate(line.text)).bytes(0)
                for position in original.indices {
                    for byte in bytes where byte != original[position] {
                        var mutated = original
                        mutated[position] = byte
                        inputs.append(("line \(line.number), byte \(position) = \(byte)", mutated))
                    }
                }
            } catch {
                throw ScenarioFailure("\(error)", line: line.number)
            }
        }
        guard !inputs.isEmpty else { throw ScenarioFailure("no rows", line: section.line) }
        // One at a time, so that the upstream's count belongs to the one connection; the host's name stays in play.
        var failures: [String] = []
        var understood = 0
        for (title, input) in inputs {
            let before = upstream.record.read { $0.requests.count }
            do {
                let outcome = try playToEnd(input, at: http)
                let record = upstream.record.read { ($0.requests.count - before, $0.requests.last) }
                let allowed = outcome.responses.allSatisfy {
                    [200, 400, 404, 405, 408, 411, 414, 417, 421, 431, 501, 505].contains($0.status ?? 0)
                }
                if record.0 > 1 || outcome.forwarded > record.0 || outcome.responses.count > 2 || !allowed {
                    let statuses = outcome.responses.map { $0.status ?? 0 }
                    failures.append(
                        "\(title): upstream saw \(record.0), answers \(statuses): \(ByteText.printable(input))")
                } else if record.0 == 1, let got = record.1 {
                    // Of a body that turns out to be none, the head may be there already.
                    let meaning = RequestMeaning(input)
                    if meaning != nil { understood += 1 }
                    let problem =
                        meaning.map { $0.difference(from: got) } ?? (got.body.complete ? "a whole request" : nil)
                    if let problem {
                        failures.append("\(title): upstream saw \(problem): \(ByteText.printable(input))")
                    }
                }
            } catch {
                failures.append("\(title): \(error)")
            }
            if failures.count > 20 { break }
        }
        transcript.add("mutate", "\(inputs.count) inputs, \(understood) with a meaning, \(failures.count) failures")
        guard failures.isEmpty else {
            throw ScenarioFailure("failures:\n" + failures.joined(separator: "\n"), line: section.line)
        }
    }

    /// Sends all, ends the stream, so that the front answers what it has and closes, and reads to the close.
    private func playToEnd(_ input: [UInt8], at address: SocketAddress) throws -> Outcome {
        let deadline = Deadline(after: Self.patience)
        var outcome = Outcome()
        var reader = MessageReader(try RawSocket.connect(to: address, by: deadline))
        do {
            try reader.socket.write(input, by: deadline)
            reader.socket.shutdownWrite()
            try Self.collect(Int.max, from: &reader, answering: "GET", into: &outcome, by: deadline)
        } catch let error as SocketError {
            guard case .reset = error else { throw error }
            outcome.closed = true
        }
        return outcome
    }
}
