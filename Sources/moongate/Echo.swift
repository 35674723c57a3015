// A small upstream: it answers what it received, as JSON. Demos, examples and tests put it behind the proxy to see
// what arrives there. It shares nothing with the data plane, so that it can not repeat the data plane's mistakes.

import ArgumentParser
import Foundation
import HTTPTypes
import Hummingbird
import Logging
import Model

import struct NIOCore.ByteBuffer

struct EchoCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "echo", abstract: "A small upstream that answers what it received, as JSON.")

    @Option(help: ArgumentHelp("Where to listen; port 0 lets the system choose.", valueName: "addr:port"))
    var listen = "127.0.0.1:9001"
    @Option(help: ArgumentHelp("What it calls itself in its answers.", valueName: "name"))
    var name = "echo"

    func run() async throws {
        guard let address = SocketAddress(listen) else {
            throw ValidationError("--listen \"\(listen)\" is not an address and a port, such as 127.0.0.1:9001")
        }
        try await EchoServer(name: name).run(on: address) { port in
            StandardOutput.line(
                #"{"event":"listening","name":\#(StandardOutput.quoted(name)),"echo":"\#(address.ip):\#(port)"}"#)
        }
    }
}

/// The echo upstream as a value, so that `moongate demo` can run two in its own process.
struct EchoServer: Sendable {
    var name: String

    /// What one request is answered with.
    struct Answer: Encodable {
        var upstream: String
        var method: String
        var path: String
        var headers: [[String]]
        var bodyBytes: Int
        /// The body, as far as it is text and not over 64 KiB.
        var body: String?
    }

    /// Serves until the task is cancelled, or, with `endsOnSignal`, until the process is asked to end.
    /// - Parameter onBound: told the port that was really bound.
    func run(
        on address: SocketAddress, endsOnSignal: Bool = true, onBound: @escaping @Sendable (Int) -> Void
    ) async throws {
        var logger = Logger(label: "moongate.echo")
        logger.logLevel = .critical
        let application = Application(
            responder: CallbackResponder { request, _ in try await answer(request) }
                as CallbackResponder<BasicRequestContext>,
            configuration: .init(
                address: .hostname(address.ip.description, port: Int(address.port)), serverName: "moongate-echo"),
            onServerRunning: { channel in onBound(channel.localAddress?.port ?? Int(address.port)) },
            logger: logger)
        if endsOnSignal {
            try await application.runService()
        } else {
            try await application.run()
        }
    }

    private func answer(_ request: Request) async throws -> Response {
        var collected = ByteBuffer()
        var count = 0
        for try await part in request.body {
            count += part.readableBytes
            if collected.readableBytes + part.readableBytes <= 65536 {
                collected.writeImmutableBuffer(part)
            }
        }
        let text =
            count == collected.readableBytes && count > 0
            ? String(validating: collected.readableBytesView, as: UTF8.self) : nil
        var headers = request.headers.map { [$0.name.rawName, $0.value] }
        if let host = request.head.authority { headers.insert(["Host", host], at: 0) }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let body = try encoder.encode(
            Answer(
                upstream: name, method: request.method.rawValue, path: request.uri.string, headers: headers,
                bodyBytes: count, body: text))
        var fields: HTTPFields = [.contentType: "application/json"]
        // What follows an Upgrade is not parsed, although it is refused here: the next request needs another connection.
        if request.headers[.upgrade] != nil { fields[.connection] = "close" }
        return Response(
            status: .ok, headers: fields,
            body: ResponseBody(byteBuffer: ByteBuffer(bytes: body + [UInt8(ascii: "\n")])))
    }
}

/// Lines for programs that start this one: written whole, at once.
enum StandardOutput {
    static func line(_ text: String) {
        FileHandle.standardOutput.write(Data((text + "\n").utf8))
    }

    /// A JSON string.
    static func quoted(_ text: String) -> String {
        let data = try? JSONEncoder().encode(text)
        return data.map { String(decoding: $0, as: UTF8.self) } ?? "\"\""
    }
}
