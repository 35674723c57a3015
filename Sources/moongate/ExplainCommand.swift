// `moongate explain`: what would happen to a request, and why.

import ArgumentParser
import AsyncHTTPClient
import Foundation
import Manifests
import Middlewares
import Model
import NIOCore
import NIOFoundationCompat
import NIOHTTP1
import Proxy

struct ExplainCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain", abstract: "Say what would happen to a request, decision by decision.",
        usage: """
            moongate explain DIR 'GET https://shop.test/cart' [-H 'name: value'] [--cookie k=v]
            moongate explain --admin http://127.0.0.1:9901 'GET https://shop.test/cart' [-H 'name: value']
            moongate explain DIR tcp:5432 | udp:53
            """,
        discussion: """
            With --admin, the URL of the admin listener of an instance that runs, that instance is asked about what it \
            serves; otherwise the folder is read as moongate run would serve it.

            \(RunFlags.alsoHere)
            """)

    @Argument(
        help: ArgumentHelp("A folder of manifests (not with --admin), then the request.", valueName: "dir> <request"))
    var arguments: [String]
    @Option(name: .customShort("H"), help: ArgumentHelp("A header; repeat for several.", valueName: "name: value"))
    var header: [String] = []
    @Option(help: ArgumentHelp("A cookie; repeat for several.", valueName: "name=value"))
    var cookie: [String] = []
    @Option(help: ArgumentHelp("The address that the request comes from.", valueName: "ip"))
    var from = "127.0.0.1"
    @Option(help: ArgumentHelp("text or json.", valueName: "format"))
    var output = OutputFormat.text
    /// `--admin` of these, an address to listen on elsewhere, is here the URL of the instance to ask.
    @OptionGroup(visibility: .hidden)
    var flags: RunFlags

    func run() async throws {
        let (directory, request) = try operands()
        guard let peer = IPAddress(from) else { throw ValidationError("--from \"\(from)\" is not an IP address") }
        let explanation: RequestExplanation
        if let admin = flags.admin {
            explanation = try await ask(admin, request)
        } else {
            let asked = try ExplainedRequest(request, headers: header, cookies: cookie, peer: peer)
            explanation = try await explain(directory, asked)
        }
        switch output {
        case .text: StandardOutput.line(explanation.text)
        case .json: StandardOutput.line(try explanation.json)
        }
    }

    private func operands() throws -> (directory: String, request: String) {
        if flags.admin != nil, arguments.count == 1 { return ("", arguments[0]) }
        guard flags.admin == nil, arguments.count == 2 else {
            throw ValidationError("give a folder and a request, or --admin URL and a request")
        }
        return (arguments[0], arguments[1])
    }

    private func explain(_ directory: String, _ request: ExplainedRequest) async throws -> RequestExplanation {
        let settings = try await Settings.resolve(flags)
        var reader = FolderReader(root: directory)
        let contents: FolderContents
        do {
            contents = try reader.load()
        } catch {
            throw ValidationError(error.problem)
        }
        let pipeline = Pipeline(options: .init(settings), loops: 0, explains: true)
        guard let configuration = await pipeline.prepare(contents).configuration else { return RequestExplanation() }
        return configuration.explain(request, ProxyConfiguration(settings))
    }

    private func ask(_ admin: String, _ request: String) async throws -> RequestExplanation {
        guard var url = URLComponents(string: admin.contains("://") ? admin : "http://\(admin)"), url.host != nil else {
            throw ValidationError("--admin \"\(admin)\" is not a URL, such as http://127.0.0.1:9901")
        }
        url.path = "/explain"
        url.queryItems =
            [URLQueryItem(name: "request", value: request)] + header.map { URLQueryItem(name: "header", value: $0) }
            + cookie.map { URLQueryItem(name: "cookie", value: $0) } + [URLQueryItem(name: "from", value: from)]
        guard let target = url.url else { throw ValidationError("--admin \"\(admin)\" is not a URL") }
        var question = HTTPClientRequest(url: target.absoluteString)
        question.headers.add(name: "accept", value: "application/json")
        let answer: HTTPClientResponse
        let body: ByteBuffer
        do {
            answer = try await HTTPClient.shared.execute(question, timeout: .seconds(10))
            body = try await answer.body.collect(upTo: 4 << 20)
        } catch {
            throw ValidationError("\(admin) cannot be asked: \(error)")
        }
        guard answer.status == .ok else {
            throw ValidationError(
                "\(admin) answered: \(String(decoding: body.readableBytesView.prefix(500), as: UTF8.self))")
        }
        return try JSONDecoder().decode(RequestExplanation.self, from: body)
    }
}

/// A request as it is written on the command line: `GET https://shop.test/cart`.
struct ExplainedRequest {
    /// A port of TCP or UDP services in place of a request.
    var port: (number: UInt16, isUDP: Bool)?
    /// The head as a client would send it.
    let head: [UInt8]
    /// The other end of the connection.
    let peer: IPAddress
    /// It comes over TLS.
    let isSecure: Bool

    init(
        _ text: String, headers: [String], cookies: [String], peer: IPAddress = IPAddress(v4: 0x7f00_0001)
    ) throws {
        self.peer = peer
        // As log and metrics call a service.
        for (prefix, isUDP) in [("tcp:", false), ("udp:", true)] where text.hasPrefix(prefix) {
            guard let number = UInt16(text.dropFirst(4)) else {
                throw ValidationError("\"\(text)\" names no port, such as \(prefix)53")
            }
            port = (number, isUDP)
            head = []
            isSecure = false
            return
        }
        let words = text.split(separator: " ", maxSplits: 1).map(String.init)
        let method = words.count == 2 ? words[0] : "GET"
        guard let whole = words.last,
            let scheme = ["http://", "https://"].first(where: { whole.lowercased().hasPrefix($0) })
        else {
            throw ValidationError(
                "\"\(text)\" is not a request, such as 'GET https://shop.test/cart', nor a port, such as tcp:5432 or udp:53"
            )
        }
        isSecure = scheme == "https://"
        let rest = whole.dropFirst(scheme.count)
        let end = rest.firstIndex { "/?#".contains($0) } ?? rest.endIndex
        var target = String(rest[end...])
        if let fragment = target.firstIndex(of: "#") { target = String(target[..<fragment]) }
        if !target.hasPrefix("/") { target = "/" + target }
        var lines = ["\(method) \(target) HTTP/1.1", "Host: \(rest[..<end])"]
        for header in headers {
            guard header.contains(":") else { throw ValidationError("-H \"\(header)\" is not \"name: value\"") }
            lines.append(header)
        }
        if !cookies.isEmpty { lines.append("Cookie: \(cookies.joined(separator: "; "))") }
        head = Array((lines.joined(separator: "\r\n") + "\r\n\r\n").utf8)
    }
}

extension PreparedConfiguration {
    /// Explains by the set that is there for it, which no loop uses.
    func explain(
        _ request: ExplainedRequest, _ configuration: ProxyConfiguration, whyClosed: String? = nil
    ) -> RequestExplanation {
        let explainer = RequestExplainer(
            table: table, middlewares: explanations ?? MiddlewareSet(), configuration: configuration,
            addresses: addresses, clientRules: clientRules)
        guard let port = request.port else {
            return explainer.explain(head: request.head, peer: request.peer, isSecure: request.isSecure)
        }
        return explainer.explain(port: port.number, isUDP: port.isUDP, whyClosed: whyClosed)
    }
}

extension RequestExplanation {
    var json: String {
        get throws {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            return String(decoding: try encoder.encode(self), as: UTF8.self)
        }
    }

    /// One decision a line, with what it rests on below it.
    var text: String {
        var lines: [String] = []
        for step in steps {
            lines.append(step.part.padding(toLength: 10, withPad: " ", startingAt: 0) + step.decision)
            lines += step.details.map { String(repeating: " ", count: 12) + $0 }
        }
        if !tags.isEmpty {
            lines.append(
                "tags      " + tags.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: " "))
        }
        if let upstream, status == nil {
            lines.append("→         \(upstream)\(target.map { " gets \($0)" } ?? "")")
        } else if let status {
            lines.append("→         \(status)\(reason.map { " (\($0))" } ?? "")")
        }
        return lines.joined(separator: "\n")
    }
}
