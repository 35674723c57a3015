// The webhook's server: HTTPS on a port and threads of its own, one path, bounded in size, time and number. It is asked
// by the API server and by nobody else; where the operator gives the API server's authority, by nobody else it can be.

internal import Logging
package import Model
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix
package import NIOSSL
internal import Synchronization

package final class AdmissionServer: Sendable {
    package struct Limits: Sendable {
        /// What an API server sends at most.
        package var bodyBytes = 3 << 20
        /// For a handshake, and for a whole request.
        package var patience = 10
        /// For the next request on a connection.
        package var idle = 90
        package var connections = 64

        package init() {}
    }

    fileprivate let judge: AdmissionJudge
    fileprivate let limits: Limits
    private let address: Model.SocketAddress
    private let context: @Sendable () -> NIOSSLContext?
    fileprivate let counters = Mutex(AdmissionFigures())
    private let open = Mutex(0)

    /// - Parameter context: what the next connection is greeted with; without one, it is closed.
    package init(
        address: Model.SocketAddress, judge: AdmissionJudge, limits: Limits = Limits(),
        context: @escaping @Sendable () -> NIOSSLContext?
    ) {
        self.address = address
        self.judge = judge
        self.limits = limits
        self.context = context
    }

    /// Questions answered, refused and not understood, for metrics.
    package var figures: AdmissionFigures { counters.withLock { $0 } }

    /// A listener that runs.
    package struct Running: Sendable {
        package var address: Model.SocketAddress
        fileprivate var channel: any Channel
        fileprivate var group: MultiThreadedEventLoopGroup

        package func stop() async {
            try? await channel.close().get()
            try? await group.shutdownGracefully()
        }
    }

    /// Throws when the address can't be bound.
    /// - Parameter other: an address in place of the one that it was made with.
    package func start(on other: Model.SocketAddress? = nil) async throws -> Running {
        let address = other ?? address
        // Questions are judged on these threads, so this is also how many are judged at a time.
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        do {
            let channel = try await ServerBootstrap(group: group)
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .childChannelOption(.maxMessagesPerRead, value: 1)
                .childChannelInitializer { [self] channel in
                    channel.eventLoop.makeCompletedFuture { try welcome(channel) }
                }
                .bind(host: address.ip.description, port: Int(address.port)).get()
            let port = channel.localAddress?.port.flatMap { UInt16(exactly: $0) } ?? 0
            return Running(
                address: Model.SocketAddress(ip: address.ip, port: port), channel: channel, group: group)
        } catch {
            try? await group.shutdownGracefully()
            throw error
        }
    }

    private func welcome(_ channel: any Channel) throws {
        let isFull = open.withLock { open in
            open += 1
            return open > limits.connections
        }
        channel.closeFuture.whenComplete { [self] _ in open.withLock { $0 -= 1 } }
        guard !isFull, let context = context() else {
            channel.close(promise: nil)
            return
        }
        let pipeline = channel.pipeline.syncOperations
        try pipeline.addHandler(NIOSSLServerHandler(context: context))
        try pipeline.configureHTTPServerPipeline(withErrorHandling: true)
        try pipeline.addHandler(AdmissionConnection(self))
    }
}

package struct AdmissionFigures: Sendable, Equatable {
    package var allowed: UInt64 = 0
    package var refused: UInt64 = 0
    /// Questions that were none, or too long.
    package var malformed: UInt64 = 0
    /// Connections that were cut off for being slow.
    package var slow: UInt64 = 0

    package init() {}

    /// Prometheus text.
    package var text: String {
        var text =
            "# HELP moongate_admission_reviews_total Questions of the API server, by answer.\n"
            + "# TYPE moongate_admission_reviews_total counter\n"
        for (name, value) in [
            ("allowed", allowed), ("refused", refused), ("malformed", malformed), ("slow", slow),
        ] { text += "moongate_admission_reviews_total{answer=\"\(name)\"} \(value)\n" }
        return text
    }
}

private final class AdmissionConnection: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private enum State {
        /// Between requests.
        case idle
        case reading(HTTPRequestHead)
        /// Answered before its end: what still comes is thrown away, and the connection ends.
        case refused
    }

    private let server: AdmissionServer
    private var state = State.idle
    private var body: [UInt8] = []
    private var timer: Scheduled<Void>?

    init(_ server: AdmissionServer) { self.server = server }

    func handlerAdded(context: ChannelHandlerContext) {
        // The handshake and the first request share one patience.
        arm(context, seconds: server.limits.patience, isSlow: true)
    }

    func channelInactive(context: ChannelHandlerContext) {
        timer?.cancel()
        context.fireChannelInactive()
    }

    private func arm(_ context: ChannelHandlerContext, seconds: Int, isSlow: Bool) {
        timer?.cancel()
        let channel = context.channel
        let server = server
        timer = context.eventLoop.scheduleTask(in: .seconds(Int64(seconds))) {
            if isSlow { server.counters.withLock { $0.slow += 1 } }
            channel.close(promise: nil)
        }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch (unwrapInboundIn(data), state) {
        case (_, .refused): return
        case (.head(let head), _):
            arm(context, seconds: server.limits.patience, isSlow: true)
            body = []
            state = .reading(head)
            let path = head.uri.prefix { $0 != "?" }
            if path != "/validate" { return refuse(context, .notFound, "ask /validate") }
            if head.method != .POST { return refuse(context, .methodNotAllowed, "only POST") }
            let type = head.headers.first(name: "content-type")?.prefix { $0 != ";" }.lowercased()
            if type != "application/json" { return refuse(context, .unsupportedMediaType, "send application/json") }
            let length = head.headers.first(name: "content-length").flatMap { Int($0) } ?? 0
            if length > server.limits.bodyBytes { return refuse(context, .payloadTooLarge, "the body is too long") }
            body.reserveCapacity(max(0, length))
        case (.body(let buffer), .reading):
            guard body.count + buffer.readableBytes <= server.limits.bodyBytes else {
                return refuse(context, .payloadTooLarge, "the body is too long")
            }
            body.append(contentsOf: buffer.readableBytesView)
        case (.end, .reading(let head)):
            answer(context, keepAlive: head.isKeepAlive)
        case (.body, .idle), (.end, .idle): return
        }
    }

    private func answer(_ context: ChannelHandlerContext, keepAlive: Bool) {
        let question = body
        body = []
        do throws(AdmissionProblem) {
            let (answer, isAllowed) = try server.judge.answer(question)
            server.counters.withLock { figures in
                if isAllowed { figures.allowed += 1 } else { figures.refused += 1 }
            }
            state = .idle
            write(context, .ok, answer, type: "application/json", closes: !keepAlive)
            if keepAlive { arm(context, seconds: server.limits.idle, isSlow: false) }
        } catch {
            refuse(context, .badRequest, error.problem)
        }
    }

    private func refuse(_ context: ChannelHandlerContext, _ status: HTTPResponseStatus, _ why: String) {
        state = .refused
        body = []
        server.counters.withLock { $0.malformed += 1 }
        write(context, status, Array("\(why)\n".utf8), type: "text/plain", closes: true)
    }

    private func write(
        _ context: ChannelHandlerContext, _ status: HTTPResponseStatus, _ body: [UInt8], type: String, closes: Bool
    ) {
        var head = HTTPResponseHead(version: .http1_1, status: status)
        head.headers.add(name: "content-type", value: type)
        head.headers.add(name: "content-length", value: String(body.count))
        if closes { head.headers.add(name: "connection", value: "close") }
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        context.write(
            wrapOutboundOut(.body(.byteBuffer(context.channel.allocator.buffer(bytes: body)))), promise: nil)
        let written = context.writeAndFlush(wrapOutboundOut(.end(nil)))
        if closes {
            let channel = context.channel
            written.whenComplete { _ in channel.close(promise: nil) }
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
