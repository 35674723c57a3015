// What stands behind an EndpointSlice: a small HTTP server that comes and goes as a pod does.

import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// Answers every request with its name.
package final class TestPod: Sendable {
    private struct State {
        var listener: (any Channel)?
        var connections: [ObjectIdentifier: any Channel] = [:]
        /// Connections with a request that is not answered yet.
        var busy: Set<ObjectIdentifier> = []
        var isLeaving = false
        var served = 0
        var port = 0
    }

    package let name: String
    package let host: String
    private let work: TimeAmount
    private let state = Mutex(State())

    private init(name: String, host: String, work: TimeAmount) {
        self.name = name
        self.host = host
        self.work = work
    }

    /// - Parameter work: how long a request takes, in milliseconds.
    package static func start(
        _ name: String, host: String = "127.0.0.1", port: Int = 0, work: Int64 = 0
    ) async throws -> TestPod {
        let pod = TestPod(name: name, host: host, work: .milliseconds(work))
        let listener = try await ServerBootstrap(group: .singletonMultiThreadedEventLoopGroup)
            .serverChannelOption(.backlog, value: 1_024)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.socketOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    pod.opened(channel)
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline()
                    try channel.pipeline.syncOperations.addHandler(PodConnection(pod))
                }
            }
            .bind(host: host, port: port).get()
        pod.state.withLock { state in
            state.listener = listener
            state.port = listener.localAddress?.port ?? 0
        }
        return pod
    }

    package var port: Int { state.withLock { $0.port } }
    /// Requests answered.
    package var served: Int { state.withLock { $0.served } }

    /// As on SIGTERM: takes no connection more, ends the idle ones at once and the others after their response.
    package func leave() async throws {
        let (listener, idle) = state.withLock { state in
            state.isLeaving = true
            let idle = state.connections.filter { !state.busy.contains($0.key) }.map(\.value)
            defer { state.listener = nil }
            return (state.listener, idle)
        }
        try await listener?.close().get()
        for connection in idle { connection.close(promise: nil) }
    }

    fileprivate func opened(_ channel: any Channel) {
        let isLate = state.withLock { state in
            state.connections[ObjectIdentifier(channel)] = channel
            return state.isLeaving
        }
        if isLate { channel.close(promise: nil) }
    }

    fileprivate func closed(_ channel: any Channel) {
        state.withLock { state in
            state.connections[ObjectIdentifier(channel)] = nil
            state.busy.remove(ObjectIdentifier(channel))
        }
    }

    fileprivate func asked(_ channel: any Channel) {
        state.withLock { state in _ = state.busy.insert(ObjectIdentifier(channel)) }
    }

    /// True if the connection ends with this response.
    fileprivate func answers(_ channel: any Channel) -> Bool {
        state.withLock { state in
            state.busy.remove(ObjectIdentifier(channel))
            state.served += 1
            return state.isLeaving
        }
    }

    fileprivate var workTime: TimeAmount { work }
}

private final class PodConnection: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let pod: TestPod

    init(_ pod: TestPod) { self.pod = pod }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head: pod.asked(context.channel)
        case .body: break
        case .end:
            guard pod.workTime > .zero else { return answer(context) }
            let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
            let handler = NIOLoopBound(self, eventLoop: context.eventLoop)
            context.eventLoop.scheduleTask(in: pod.workTime) { handler.value.answer(bound.value) }
        }
    }

    private func answer(_ context: ChannelHandlerContext) {
        let ends = pod.answers(context.channel)
        let body = context.channel.allocator.buffer(string: pod.name)
        var head = HTTPResponseHead(version: .http1_1, status: .ok)
        head.headers.add(name: "content-length", value: String(body.readableBytes))
        if ends { head.headers.add(name: "connection", value: "close") }
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        context.write(wrapOutboundOut(.body(.byteBuffer(body))), promise: nil)
        let written = context.writeAndFlush(wrapOutboundOut(.end(nil)))
        if ends {
            let channel = context.channel
            written.whenComplete { _ in channel.close(promise: nil) }
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        pod.closed(context.channel)
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
