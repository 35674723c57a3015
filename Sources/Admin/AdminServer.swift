// The admin server: Hummingbird on threads of its own, which no request ever meets. By default it listens on loopback
// only; what it shows is for operators.
internal import HTTPTypes
internal import Hummingbird
internal import HummingbirdCore
package import Logging
package import Model
internal import NIOCore
internal import NIOPosix
internal import ServiceLifecycle
internal import Telemetry

package struct AdminServer: Service {
    private let address: Model.SocketAddress
    private let sources: AdminSources
    private let logger: Logger
    private let onBound: @Sendable (Model.SocketAddress) async -> Void

    /// 127.0.0.1:9901.
    package static let defaultAddress = Model.SocketAddress(ip: IPAddress(v4: 0x7f00_0001), port: 9901)

    /// Port 0 takes a free one; `onBound` is told which it is, before the first connection is served.
    package init(
        address: Model.SocketAddress = AdminServer.defaultAddress, sources: AdminSources, logger: Logger,
        onBound: @escaping @Sendable (Model.SocketAddress) async -> Void = { _ in }
    ) {
        self.address = address
        self.sources = sources
        self.logger = logger
        self.onBound = onBound
    }

    private static func isLoopback(_ ip: IPAddress) -> Bool {
        ip.isV4 ? ip.v4 >> 24 == 127 : ip == IPAddress(high: 0, low: 1)
    }

    /// Serves until the task is cancelled or its service group shuts down. Throws when the address cannot be bound.
    package func run() async throws {
        let pages = AdminPages(
            sources: sources, isLoopbackOnly: Self.isLoopback(address.ip),
            metricsContentType: PrometheusText.contentType)
        let responder = CallbackResponder<BasicRequestContext> { request, _ in
            await Self.respond(to: request, pages)
        }
        let ip = address.ip
        let onBound = onBound
        // A thread of its own: the figures are read when the machine is busiest.
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let application = Application(
            responder: responder,
            server: .http1(
                configuration: .init(
                    idleTimeout: .seconds(60),
                    httpDecoderConfiguration: .init(
                        maxHeaderFieldSize: 32 * 1024, maxHeaderListSize: 64 * 1024, maxHeaderFieldCount: 100))),
            configuration: ApplicationConfiguration(
                address: .hostname(ip.description, port: Int(address.port)), serverName: nil,
                availableConnectionsDelegate: MaximumAvailableConnections(256)),
            onServerRunning: { channel in
                let port = channel.localAddress?.port.flatMap { UInt16(exactly: $0) } ?? 0
                await onBound(Model.SocketAddress(ip: ip, port: port))
            },
            eventLoopGroupProvider: .shared(group),
            logger: logger)
        do {
            try await application.run()
        } catch {
            try? await group.shutdownGracefully()
            throw error
        }
        try? await group.shutdownGracefully()
    }

    /// `+` means a space in a query that a form or a command-line client made.
    private static func parameters(_ query: String?) -> [(name: String, value: String)] {
        URI("/?" + (query ?? "").replacing("+", with: "%20")).queryParameters.map { (String($0.key), String($0.value)) }
    }

    private static func respond(to request: Request, _ pages: AdminPages) async -> Response {
        let reply = await pages.answer(
            AdminQuestion(
                method: request.method.rawValue, path: request.uri.path,
                query: parameters(request.uri.query),
                accept: request.headers[.accept], host: request.head.authority))
        var headers = HTTPFields()
        headers[.contentType] = reply.contentType
        headers[.cacheControl] = "no-store"
        headers[.xContentTypeOptions] = "nosniff"
        if let allow = reply.allow { headers[.allow] = allow }
        let buffer = ByteBuffer(string: reply.body)
        var response = Response(
            status: HTTPResponse.Status(code: reply.status), headers: headers,
            body: request.method == .head ? ResponseBody() : ResponseBody(byteBuffer: buffer))
        if request.method == .head { response.headers[.contentLength] = String(buffer.readableBytes) }
        return response
    }
}
