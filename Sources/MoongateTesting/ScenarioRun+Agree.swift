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

    /// `-- agree N [seed=S] --` with lines `host A B`, `path piece piece`, `header "name: value" …` and `query a=b …`:
    /// N requests made of these pieces are explained by the admin server, then sent. Upstreams must answer with
    /// `x-upstream: NAME` and `body: @echo`.
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
        for index in 1...count {
            let method = dice.pick(["GET", "GET", "POST", "DELETE", "PUT"])
            let host = dice.pick(words["host"] ?? ["shop.test"])
            let path = "/" + (0..<dice.roll(5)).map { _ in dice.pick(words["path"] ?? []) }.joined(separator: "/")
            let query = dice.roll(3) == 0 ? "?" + dice.pick(words["query"] ?? ["q=1"]) : ""
            let headers = (0..<dice.roll(3)).map { _ in dice.pick(words["header"] ?? []) }.filter { !$0.isEmpty }
            let told = "\(method) http://\(host)\(path)\(query) \(headers)"
            do {
                outcomes[try agree(method, host, path + query, headers), default: 0] += 1
            } catch {
                throw ScenarioFailure("request \(index), \(told): \(error)", line: section.line)
            }
        }
        transcript.add("agree", "\(outcomes.sorted { $0.key < $1.key })")
        guard outcomes.count > 2 else {
            throw ScenarioFailure("the requests had too few outcomes to tell: \(outcomes)", line: section.line)
        }
    }

    /// Explains and sends one request; answers what became of it.
    private func agree(_ method: String, _ host: String, _ target: String, _ headers: [String]) throws -> String {
        func escaped(_ text: String) -> String {
            text.utf8.map { byte in
                let character = Unicode.Scalar(byte)
                let plain = character.isASCII && (character.properties.isAlphabetic || (48...57).contains(byte))
                return plain ? String(character) : "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16)
            }.joined()
        }
        var question = "/explain?request=" + escaped("\(method) http://\(host)\(target)")
        for header in headers { question += "&header=" + escaped(header) }
        let told = try exchange(
            "GET \(question)  host: localhost  accept: application/json  connection: close", to: admin)
        let text = String(decoding: told.body.bytes, as: UTF8.self)
        guard told.status == 200, let explanation = JSONText.object(text) else {
            throw ScenarioFailure("explain answers \(told.startLine): \(text)")
        }
        let fields = headers.map { "  \"\($0)\"" }.joined()
        let happened = try exchange("\(method) \(target)  host: \(host)\(fields)  connection: close", to: http)
        let upstream = happened.values(of: "x-upstream").first
        if let expected = explanation["upstream"] as? String, explanation["status"] as? Int == nil {
            let seen = String(decoding: happened.body.bytes, as: UTF8.self).split(separator: " ").dropFirst().first
            guard let upstream, expected == "shop/\(upstream):80" else {
                throw ScenarioFailure("explained: \(expected); happened: \(upstream ?? happened.startLine)\n\(text)")
            }
            if let target = explanation["target"] as? String, seen.map(String.init) != target {
                throw ScenarioFailure("explained target \(target); the upstream saw \(seen ?? "nothing")\n\(text)")
            }
            return expected
        }
        let status = explanation["status"] as? Int
        guard upstream == nil, status == happened.status else {
            throw ScenarioFailure(
                "explained status \(status ?? 0); happened: \(happened.startLine) from \(upstream ?? "nobody")\n\(text)"
            )
        }
        return "status \(status ?? 0)"
    }
}
