// One connection to the fake API server.

import NIOCore
import NIOHTTP1

/// A request, whole.
package struct ReceivedRequest: Sendable, Equatable {
    package var method: String
    package var path: String
    package var query: [String: String]
    package var headers: [String: String]
    package var body: [UInt8]

    init(head: HTTPRequestHead, body: [UInt8]) {
        method = head.method.rawValue
        let parts = head.uri.split(separator: "?", maxSplits: 1)
        path = parts.first.map { Self.decode($0, plus: false) } ?? "/"
        query = [:]
        for pair in parts.dropFirst().first?.split(separator: "&") ?? [] {
            let sides = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            query[Self.decode(sides[0], plus: true)] = sides.count > 1 ? Self.decode(sides[1], plus: true) : ""
        }
        headers = Dictionary(head.headers.map { ($0.name.lowercased(), $0.value) }, uniquingKeysWith: { $1 })
        self.body = body
    }

    private static func decode(_ text: Substring, plus: Bool) -> String {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "%"), rest.count >= 2,
                let value = UInt8(String(decoding: Array(rest.prefix(2)), as: UTF8.self), radix: 16)
            {
                bytes.append(value)
                rest = rest.dropFirst(2)
            } else {
                bytes.append(plus && byte == UInt8(ascii: "+") ? UInt8(ascii: " ") : byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// What the server writes; a stream of its own, so that it can be handed to a channel from any thread.
enum ServerOutput: Sendable {
    case answer(status: Int, headers: [String: String], body: [UInt8])
    case streamHead
    case streamBytes([UInt8])
    case streamEnd
    /// Close without ending what was begun.
    case abort
}

/// How a request is answered, from any thread, in order.
struct Responder: Sendable {
    let connection: UInt64
    private let channel: any Channel

    init(connection: UInt64, channel: any Channel) {
        self.connection = connection
        self.channel = channel
    }

    /// Always later, never on this stack: a write that fails closes the channel at once, and the server, which may hold its
    /// lock here, is told of it.
    func send(_ output: ServerOutput) { channel.eventLoop.execute { channel.writeAndFlush(output, promise: nil) } }
    func close() { channel.eventLoop.execute { channel.close(promise: nil) } }
    func after(_ delay: TimeAmount, _ work: @escaping @Sendable () -> Void) {
        _ = channel.eventLoop.scheduleTask(in: delay, work)
    }
}

final class APIServerConnection: ChannelDuplexHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundIn = ServerOutput
    typealias OutboundOut = HTTPServerResponsePart

    private let id: UInt64
    private let handle: (ReceivedRequest, Responder) -> Void
    private let closed: (UInt64) -> Void
    private var head: HTTPRequestHead?
    private var body: [UInt8] = []

    init(
        id: UInt64, handle: @escaping (ReceivedRequest, Responder) -> Void, closed: @escaping (UInt64) -> Void
    ) {
        self.id = id
        self.handle = handle
        self.closed = closed
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            self.head = head
            body = []
        case .body(let buffer): body.append(contentsOf: buffer.readableBytesView)
        case .end:
            guard let head else { return }
            self.head = nil
            handle(
                ReceivedRequest(head: head, body: body), Responder(connection: id, channel: context.channel))
            body = []
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        closed(id)
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        func put(_ part: HTTPServerResponsePart) { context.write(wrapOutboundOut(part), promise: nil) }
        switch unwrapOutboundIn(data) {
        case .answer(let status, let headers, let body):
            var head = HTTPResponseHead(version: .http1_1, status: HTTPResponseStatus(statusCode: status))
            head.headers.add(name: "content-type", value: "application/json")
            head.headers.add(name: "content-length", value: String(body.count))
            for (name, value) in headers.sorted(by: { $0.key < $1.key }) { head.headers.add(name: name, value: value) }
            put(.head(head))
            put(.body(.byteBuffer(context.channel.allocator.buffer(bytes: body))))
            put(.end(nil))
        case .streamHead:
            var head = HTTPResponseHead(version: .http1_1, status: .ok)
            head.headers.add(name: "content-type", value: "application/json")
            head.headers.add(name: "transfer-encoding", value: "chunked")
            put(.head(head))
        case .streamBytes(let bytes): put(.body(.byteBuffer(context.channel.allocator.buffer(bytes: bytes))))
        case .streamEnd: put(.end(nil))
        case .abort: context.close(promise: nil)
        }
        promise?.succeed(())
    }
}
