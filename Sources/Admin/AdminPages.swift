// What each admin address answers, without a socket: a question in, an answer out.
//
// Only GET and HEAD: nothing can be changed here. Bound to a loopback address, it answers only to names of that address,
// so that a web page which gives its own name the address 127.0.0.1 (DNS rebinding) cannot read it in a browser.
internal import Foundation
internal import Model

struct AdminQuestion: Sendable {
    var method: String
    /// Percent-decoded, without the query.
    var path: String
    var query: [(name: String, value: String)]
    var accept: String?
    /// The Host of the request, with its port.
    var host: String?
}

struct AdminReply: Sendable {
    var status: Int
    var contentType: String
    var body: String
    var allow: String?

    static let text = "text/plain; charset=utf-8"
    static let json = "application/json"

    static func text(_ status: Int, _ body: String) -> AdminReply {
        AdminReply(status: status, contentType: text, body: body)
    }
}

struct AdminPages: Sendable {
    static let mostQueryBytes = 16_384

    let sources: AdminSources
    /// Only names of this machine may be asked for.
    let isLoopbackOnly: Bool
    let metricsContentType: String

    func answer(_ question: AdminQuestion) async -> AdminReply {
        if isLoopbackOnly, !Self.isLoopback(question.host) {
            return .text(403, "this address answers only to localhost\n")
        }
        guard Self.pages.contains(question.path) else {
            return .text(404, "no such page; there are \(Self.pages.dropFirst().joined(separator: ", "))\n")
        }
        guard question.method == "GET" || question.method == "HEAD" else {
            return AdminReply(
                status: 405, contentType: AdminReply.text, body: "only GET and HEAD\n", allow: "GET, HEAD")
        }
        switch question.path {
        case "/healthz":
            if let illness = await sources.illness() { return .text(503, illness + "\n") }
            return .text(200, "ok\n")
        case "/readyz":
            if let reason = await sources.unreadiness() { return .text(503, reason + "\n") }
            return .text(200, "ok\n")
        case "/metrics":
            return AdminReply(status: 200, contentType: metricsContentType, body: await sources.metrics())
        case "/snapshot":
            return await snapshot()
        case "/diagnostics":
            return await diagnostics(question)
        case "/explain":
            return await explain(question)
        default:
            return .text(200, Self.index)
        }
    }

    private static let pages = ["/", "/metrics", "/healthz", "/readyz", "/snapshot", "/diagnostics", "/explain"]

    private static let index = """
        Moongate
        /metrics      figures in Prometheus' text format
        /healthz      is the process well
        /readyz       may requests come
        /snapshot     what is served now, as JSON
        /diagnostics  what is wrong in the configuration, as text, or as JSON with Accept: application/json
        /explain      ?request=GET%20https://shop.test/cart&header=name:%20value&cookie=name=value&from=ADDRESS

        """

    private func snapshot() async -> AdminReply {
        guard let served = await sources.served() else { return .text(503, "there is no snapshot yet\n") }
        guard let body = Self.encode(SnapshotView(served)) else { return .text(500, "the snapshot has no JSON\n") }
        return AdminReply(status: 200, contentType: AdminReply.json, body: body)
    }

    private func diagnostics(_ question: AdminQuestion) async -> AdminReply {
        var diagnostics = await sources.diagnostics()
        if let least = question.query.first(where: { $0.name == "severity" })?.value {
            guard let severity = Severity(rawValue: least) else {
                return .text(400, "severity is note, warning or error, not \"\(Self.shown(least))\"\n")
            }
            diagnostics.removeAll { $0.severity < severity }
        }
        if Self.wantsJSON(question.accept) {
            guard let body = Self.encode(diagnostics) else { return .text(500, "the diagnostics have no JSON\n") }
            return AdminReply(status: 200, contentType: AdminReply.json, body: body)
        }
        if diagnostics.isEmpty { return .text(200, "no diagnostics\n") }
        return .text(200, diagnostics.map { $0.description + "\n" }.joined())
    }

    private func explain(_ question: AdminQuestion) async -> AdminReply {
        func all(_ name: String) -> [String] { question.query.filter { $0.name == name }.map(\.value) }
        let known: Set = ["request", "header", "cookie", "from"]
        if let other = question.query.first(where: { !known.contains($0.name) }) {
            return .text(
                400, "unknown parameter \"\(Self.shown(other.name))\"; there are request, header, cookie, from\n")
        }
        let requests = all("request")
        guard let request = requests.first, requests.count == 1, !request.isEmpty else {
            return .text(400, "give one request, as in ?request=GET%20https://shop.test/cart\n")
        }
        var query = ExplainQuery(request: request, headers: all("header"), cookies: all("cookie"))
        if let from = all("from").last { query.from = from }
        let bytes = ([request, query.from] + query.headers + query.cookies).reduce(0) { $0 + $1.utf8.count }
        guard bytes <= Self.mostQueryBytes else { return .text(400, "the request is too long\n") }
        do {
            let answer = try await sources.explain(query)
            return Self.wantsJSON(question.accept)
                ? AdminReply(status: 200, contentType: AdminReply.json, body: answer.json) : .text(200, answer.text)
        } catch {
            return .text(400, error.problem + "\n")
        }
    }

    // MARK: Pieces

    /// JSON when it is named and text is not preferred to it (RFC 9110 §12.5.1); `*/*` and nothing mean text, which is
    /// what a person with curl wants.
    static func wantsJSON(_ accept: String?) -> Bool {
        var json = 0.0
        var text = 0.0
        for item in accept?.split(separator: ",") ?? [] {
            let parts = item.split(separator: ";").map { $0.trimmingCharacters(in: .whitespaces).lowercased() }
            guard let type = parts.first else { continue }
            let quality = parts.dropFirst().first { $0.hasPrefix("q=") }.flatMap { Double($0.dropFirst(2)) } ?? 1
            if type == "application/json" || type == "application/*" { json = max(json, quality) }
            if type == "text/plain" || type == "text/*" { text = max(text, quality) }
        }
        return json > 0 && json >= text
    }

    /// Whether a Host names this machine: `localhost`, `127.…` or `[::1]`, with or without a port.
    static func isLoopback(_ host: String?) -> Bool {
        guard var name = host?.lowercased() else { return true }
        if name.hasPrefix("[") {
            guard let close = name.firstIndex(of: "]") else { return false }
            let inside = name[name.index(after: name.startIndex)..<close]
            return IPAddress(inside) == IPAddress(high: 0, low: 1) && Self.isPort(name[name.index(after: close)...])
        }
        if let colon = name.firstIndex(of: ":") {
            guard Self.isPort(name[colon...]) else { return false }
            name = String(name[..<colon])
        }
        if name.hasSuffix(".") { name.removeLast() }
        if name == "localhost" || name.hasSuffix(".localhost") { return true }
        guard let ip = IPAddress(name), ip.isV4 else { return false }
        return ip.v4 >> 24 == 127
    }

    private static func isPort(_ text: Substring) -> Bool {
        text.isEmpty || text.first == ":" && UInt16(text.dropFirst()) != nil
    }

    /// A stranger's text inside a message: short, on one line.
    private static func shown(_ text: String) -> String {
        String(
            String.UnicodeScalarView(text.unicodeScalars.prefix(60).map { $0.value < 32 || $0.value == 127 ? "?" : $0 })
        )
    }

    private static func encode(_ value: some Encodable) -> String? {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(value) else { return nil }
        return String(decoding: data, as: UTF8.self) + "\n"
    }
}
