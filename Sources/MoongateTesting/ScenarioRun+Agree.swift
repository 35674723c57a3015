// What the program explains and what it does, compared over generated requests.
import Foundation

extension ScenarioRun {
    /// A generator whose sequence is a property of the seed: a failure can be played again.
    private struct Dice {
        var state: UInt64

        mutating func roll(_ sides: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return sides > 0 ? Int(state >> 33) % sides : 0
        }

        mutating func pick(_ list: [String]) -> String { list.isEmpty ? "" : list[roll(list.count)] }
    }

    /// One request as it was made up.
    private struct Question {
        var method: String
        var host: String
        var target: String
        var headers: [String]
        var from: String

        var told: String { "\(method) http://\(host)\(target) \(headers) from \(from)" }
    }

    /// `-- agree N [seed=S] --` with lines `host A B`, `path piece piece`, `header "name: value" …`, `query a=b …` and
    /// `from ADDRESS …`: N requests made of these pieces are explained by the admin server, then sent. Both must name
    /// the same upstream and target, or the same status, and the same tags, which the access log has in JSON. Upstreams
    /// must answer with `x-upstream: NAME` and `body: @echo`.
    func runAgreement(_ section: ScenarioSection) throws(ScenarioFailure) {
        guard let count = section.arguments.first.flatMap({ Int($0) }) else {
            throw ScenarioFailure("agree N", line: section.line)
        }
        var words: [String: [String]] = [:]
        for line in section.commands {
            let statement = Statement(line.text)
            words[statement.name, default: []] += statement.words.dropFirst().map(\.text)
        }
        var dice = Dice(state: section.options["seed"].flatMap { UInt64($0) } ?? 1)
        var outcomes: [String: Int] = [:]
        var tags: [String: (tags: [String: String], question: String)] = [:]
        for index in 1...count {
            let method = dice.pick(["GET", "GET", "POST", "DELETE", "PUT"])
            let host = dice.pick(words["host"] ?? ["shop.test"])
            let path = "/" + (0..<dice.roll(5)).map { _ in dice.pick(words["path"] ?? []) }.joined(separator: "/")
            let query = dice.roll(3) == 0 ? "?" + dice.pick(words["query"] ?? ["q=1"]) : ""
            let headers = (0..<dice.roll(3)).map { _ in dice.pick(words["header"] ?? []) }.filter { !$0.isEmpty }
            let from = words["from"].map { dice.pick($0) } ?? "127.0.0.1"
            var question = Question(method: method, host: host, target: path + query, headers: headers, from: from)
            // By this the line of the access log is found.
            let id = "agree-\(index)"
            question.headers.append("x-request-id: \(id)")
            do {
                let (outcome, explained) = try agree(question)
                outcomes[outcome, default: 0] += 1
                tags[id] = (explained, question.told)
            } catch {
                throw ScenarioFailure("request \(index), \(question.told): \(error)", line: section.line)
            }
        }
        transcript.add("agree", "\(outcomes.sorted { $0.key < $1.key })")
        let tagged = try compareTags(tags, line: section.line)
        guard outcomes.count > 2 else {
            throw ScenarioFailure("the requests had too few outcomes to tell: \(outcomes)", line: section.line)
        }
        figures.append("\(count) requests agreed in \(outcomes.count) outcomes, \(tagged) with tags")
    }

    /// - Returns: how many requests had any.
    private func compareTags(
        _ explained: [String: (tags: [String: String], question: String)], line: Int
    ) throws(ScenarioFailure) -> Int {
        var open = explained
        var seen = 0
        var tagged = 0
        let problem = program?.output.wait(by: Deadline(after: Self.patience)) { output -> String? in
            // A request that was refused before it had an id has a line without.
            for text in output.lines.dropFirst(seen) {
                guard let object = JSONText.object(text), let id = object["id"] as? String,
                    let (expected, question) = open.removeValue(forKey: id)
                else { continue }
                let found = object["tags"] as? [String: String] ?? [:]
                if found != expected { return "\(question): explained tags \(expected), logged \(found)" }
                if !found.isEmpty { tagged += 1 }
            }
            seen = output.lines.count
            return open.values.contains { !$0.tags.isEmpty } ? nil : ""
        }
        guard let problem else { throw ScenarioFailure("no log line for \(open.count) requests", line: line) }
        guard problem.isEmpty else { throw ScenarioFailure(problem, line: line) }
        return tagged
    }

    /// Explains and sends one request; answers what became of it.
    private func agree(_ request: Question) throws -> (outcome: String, tags: [String: String]) {
        func escaped(_ text: String) -> String {
            text.utf8.map { byte in
                let character = Unicode.Scalar(byte)
                let plain = character.isASCII && (character.properties.isAlphabetic || (48...57).contains(byte))
                return plain ? String(character) : "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16)
            }.joined()
        }
        var question = "/explain?request=" + escaped("\(request.method) http://\(request.host)\(request.target)")
        question += "&from=" + escaped(request.from)
        for header in request.headers { question += "&header=" + escaped(header) }
        let told = try exchange(
            "GET \(question)  host: localhost  accept: application/json  connection: close", to: admin)
        let text = String(decoding: told.body.bytes, as: UTF8.self)
        guard told.status == 200, let explanation = JSONText.object(text) else {
            throw ScenarioFailure("explain answers \(told.startLine): \(text)")
        }
        let tags = explanation["tags"] as? [String: String] ?? [:]
        let fields = request.headers.map { "  \"\($0)\"" }.joined()
        let happened = try exchange(
            "\(request.method) \(request.target)  host: \(request.host)\(fields)  connection: close", to: http,
            from: request.from)
        let upstream = happened.values(of: "x-upstream").first
        if let expected = explanation["upstream"] as? String, explanation["status"] as? Int == nil {
            let seen = String(decoding: happened.body.bytes, as: UTF8.self).split(separator: " ").dropFirst().first
            guard let upstream, expected == "shop/\(upstream):80" else {
                throw ScenarioFailure("explained: \(expected); happened: \(upstream ?? happened.startLine)\n\(text)")
            }
            if let target = explanation["target"] as? String, seen.map(String.init) != target {
                throw ScenarioFailure("explained target \(target); the upstream saw \(seen ?? "nothing")\n\(text)")
            }
            return (expected, tags)
        }
        let status = explanation["status"] as? Int
        guard upstream == nil, status == happened.status else {
            throw ScenarioFailure(
                "explained status \(status ?? 0); happened: \(happened.startLine) from \(upstream ?? "nobody")\n\(text)"
            )
        }
        // What a response of our own says is known as well.
        for field in explanation["fields"] as? [String] ?? [] where field.lowercased().hasPrefix("location: ") {
            let location = String(field.dropFirst("location: ".count))
            guard happened.values(of: "location") == [location] else {
                throw ScenarioFailure("explained \(field); happened: \(happened.values(of: "location"))\n\(text)")
            }
        }
        return ("status \(status ?? 0)", tags)
    }
}
