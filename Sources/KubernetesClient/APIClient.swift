// The first step of a configuration change in a cluster: requests to the API server, one at a time. What is asked again,
// and when, is decided by the callers; this room's rules are one attempt (a second one only after a refused credential),
// bounded sizes and times, and errors that say what kind they are.

import AsyncHTTPClient
package import FoundationEssentials
package import KubernetesAPI
package import Logging
import NIOCore
import NIOFoundationCompat
import NIOHTTP1
import NIOPosix
import NIOSSL
import Synchronization

/// An answer that is a success.
package struct APIResponse: Sendable {
    package var status: Int
    package var body: Data
}

/// One page of a list, its unreadable items kept apart.
package struct ListPage<Object: APIResource>: Sendable {
    package var resourceVersion: String
    package var continuation: String?
    package var objects: [Object]
    package var unreadable: [UnreadableObject]
}

/// An object that the API server holds and that we can't read; others of its kind are not harmed by it.
package struct UnreadableObject: Error, Sendable, Hashable {
    package var name: ObjectName
    package var resourceVersion: String?
    package var problem: String

    package init(name: ObjectName, resourceVersion: String?, problem: String) {
        self.name = name
        self.resourceVersion = resourceVersion
        self.problem = problem
    }
}

/// What a watch tells.
package enum WatchNews<Object: APIResource>: Sendable, Equatable {
    case changed(Object)
    case removed(ObjectName, resourceVersion: String?)
    case unreadable(UnreadableObject)
    case bookmark(resourceVersion: String)
}

package final class APIClient: Sendable {
    package let access: ClusterAccess
    private let credentials: CredentialStore
    private let tls: TLSSettings
    /// Two, because a watch holds its connection and is silent for long, and a request is neither.
    private let requests: HTTPClient
    private let watches: HTTPClient
    private let log: Logger
    private let limits: Limits
    /// Troubles that were told since the server last did what it was asked.
    private let told = Mutex<Set<String>>([])

    /// Times are those of the network, so they are real ones.
    package struct Limits: Sendable {
        package var request = Duration.seconds(30)
        /// A watch on which nothing came, not even a bookmark (the API server sends one a minute), is taken for dead.
        package var watchSilence = Duration.seconds(150)
        package var listBytes = 256 << 20
        package var connect = Duration.seconds(5)

        package init() {}
    }

    package init(
        access: ClusterAccess, clock: any ControlClock = SystemClock(), log: Logger, limits: Limits = Limits(),
        credentials: CredentialStore? = nil
    ) {
        self.access = access
        self.credentials = credentials ?? CredentialStore(access: access, clock: clock)
        self.log = log
        self.limits = limits
        tls = TLSSettings(access: access, clock: clock, log: log)
        var configuration = HTTPClient.Configuration()
        // A redirect could carry the token to another host.
        configuration.redirectConfiguration = .disallow
        configuration.httpVersion = .http1Only
        configuration.decompression = .disabled
        configuration.connectionPool.retryConnectionEstablishment = false
        configuration.timeout.connect = TimeAmount(limits.connect)
        if let name = access.serverName, let host = Self.host(of: access.server) {
            configuration.dnsOverride[name] = host
        }
        configuration.timeout.read = TimeAmount(limits.request)
        requests = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
        configuration.timeout.read = TimeAmount(limits.watchSilence)
        // Each watch has a connection of its own.
        configuration.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = 65_536
        watches = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
    }

    /// Ends all connections; a client that is not shut down leaks them.
    package func shutdown() async {
        for client in [requests, watches] {
            do { try await client.shutdown() } catch {
                log.debug("HTTP client already shut down", metadata: ["error": "\(error)"])
            }
        }
    }

    /// Whether nobody has told of such a trouble since the server last did what it was asked; from now on somebody has.
    package func isNews(_ error: APIError) -> Bool { told.withLock { $0.insert(error.description).inserted } }

    // MARK: One object

    package func get<Object: APIResource>(
        _ type: Object.Type, namespace: String?, name: String
    ) async throws(APIError) -> Object {
        try decode(await send(APIRequest(.get, Object.path(namespace: namespace, name: name))))
    }

    package func create<Object: APIResource>(_ object: Object) async throws(APIError) -> Object {
        let path = Object.path(namespace: object.metadata.namespace)
        return try decode(await send(APIRequest(.post, path, body: try encode(Sent(object)))))
    }

    /// Writes an object whole; its resourceVersion makes the server refuse when somebody else was faster.
    package func replace<Object: APIResource>(_ object: Object) async throws(APIError) -> Object {
        let path = Object.path(namespace: object.metadata.namespace, name: object.metadata.name)
        return try decode(await send(APIRequest(.put, path, body: try encode(Sent(object)))))
    }

    /// A merge patch (RFC 7386), of the object or of a subresource.
    @discardableResult
    package func patch<Object: APIResource>(
        _ type: Object.Type, namespace: String?, name: String, subresource: String? = nil, with patch: some Encodable,
        contentType: String = "application/merge-patch+json"
    ) async throws(APIError) -> Object {
        let path = Object.path(namespace: namespace, name: name, subresource: subresource)
        return try decode(
            await send(
                APIRequest(.patch, path, body: try encode(patch), contentType: contentType)))
    }

    package func delete<Object: APIResource>(
        _ type: Object.Type, namespace: String?, name: String
    ) async throws(APIError) {
        _ = try await send(APIRequest(.delete, Object.path(namespace: namespace, name: name)))
    }

    // MARK: Lists and watches

    package func page<Object: APIResource>(
        of type: Object.Type, in scope: WatchScope, limit: Int, continuation: String?
    ) async throws(APIError) -> ListPage<Object> {
        var query = scope.selectors
        query.append(APIRequest.Parameter("limit", String(limit)))
        if let continuation { query.append(APIRequest.Parameter("continue", continuation)) }
        let response = try await send(APIRequest(.get, Object.path(namespace: scope.namespace), query: query))
        let list: LenientList<Object>
        do {
            list = try JSONDecoder().decode(LenientList<Object>.self, from: response.body)
        } catch {
            throw APIError(.unreadable, "the list of \(Object.plural) is not readable: \(DecodingText(error))")
        }
        guard let version = list.metadata.resourceVersion, !version.isEmpty else {
            throw APIError(.unreadable, "the list of \(Object.plural) has no resourceVersion")
        }
        var page = ListPage<Object>(
            resourceVersion: version, continuation: list.metadata.continue.flatMap { $0.isEmpty ? nil : $0 },
            objects: [], unreadable: [])
        page.objects.reserveCapacity(list.items.count)
        for item in list.items {
            switch item.value {
            case .success(let object): page.objects.append(object)
            case .failure(let unreadable): page.unreadable.append(unreadable)
            }
        }
        return page
    }

    /// Follows changes after a version (`opened` says that the server took the watch), until the server ends the watch (after `seconds`, at the latest) or it breaks.
    /// An ERROR event is thrown as the error that it tells; events are given out one at a time, whole, in order.
    package func watch<Object: APIResource>(
        _ type: Object.Type, in scope: WatchScope, after version: String, seconds: Int, opened: () -> Void = {},
        news: (WatchNews<Object>) -> Void
    ) async throws(APIError) {
        var query = scope.selectors
        query.append(APIRequest.Parameter("watch", "true"))
        query.append(APIRequest.Parameter("resourceVersion", version))
        query.append(APIRequest.Parameter("allowWatchBookmarks", "true"))
        query.append(APIRequest.Parameter("timeoutSeconds", String(seconds)))
        let request = APIRequest(.get, Object.path(namespace: scope.namespace), query: query)
        let response = try await open(request, on: watches)
        opened()
        var lines = WatchLineDecoder()
        let decoder = JSONDecoder()
        do {
            for try await chunk in response.body {
                for line in try lines.feed(chunk.readableBytesView) {
                    news(try Self.decodeLine(line, decoder))
                }
            }
        } catch let error as APIError {
            throw error
        } catch is WatchLineDecoder.TooLong {
            throw APIError(.unreadable, "an event of the watch of \(Object.plural) is too long")
        } catch {
            throw Self.transportError(error)
        }
        guard lines.pendingCount == 0 else {
            throw APIError(.unreachable, "the watch of \(Object.plural) ended in the middle of an event")
        }
    }

    private static func decodeLine<Object: APIResource>(
        _ line: [UInt8], _ decoder: JSONDecoder
    ) throws(APIError) -> WatchNews<Object> {
        let data = Data(line)
        let event: WatchEvent<Object>
        do {
            event = try decoder.decode(WatchEvent<Object>.self, from: data)
        } catch {
            // The event is whole, so one of its objects is not what we can read: name it, and go on with the others.
            guard let broken = try? decoder.decode(BrokenEvent.self, from: data),
                ["ADDED", "MODIFIED", "DELETED"].contains(broken.type)
            else { throw APIError(.unreadable, "an event of \(Object.plural) is not readable: \(DecodingText(error))") }
            let metadata = broken.object.metadata
            if broken.type == "DELETED" {
                return .removed(metadata.objectName, resourceVersion: metadata.resourceVersion)
            }
            return .unreadable(
                UnreadableObject(
                    name: metadata.objectName, resourceVersion: metadata.resourceVersion,
                    problem: DecodingText(error).description))
        }
        switch event {
        case .added(let object), .modified(let object): return .changed(object)
        case .deleted(let object):
            return .removed(object.metadata.objectName, resourceVersion: object.metadata.resourceVersion)
        case .bookmark(let version): return .bookmark(resourceVersion: version)
        case .error(let status):
            throw APIError(httpStatus: status.isExpired ? 410 : status.code ?? 500, status: status, retryAfter: nil)
        }
    }

    // MARK: HTTP

    package func send(_ request: APIRequest) async throws(APIError) -> APIResponse {
        let response = try await open(request, on: requests)
        let body = try await Self.collect(response, limit: limits.listBytes)
        return APIResponse(status: Int(response.status.code), body: Data(buffer: body))
    }

    /// Up to the head of an answer that is a success.
    private func open(_ request: APIRequest, on client: HTTPClient) async throws(APIError) -> HTTPClientResponse {
        let (response, presented) = try await attempt(request, on: client)
        guard response.status == .unauthorized else { return try await accepted(response) }
        // A token that rotated between our reading and the server's: once more with what is there now.
        _ = try? await Self.collect(response, limit: 64 << 10)
        await credentials.wasRefused(presented)
        return try await accepted(await attempt(request, on: client).response)
    }

    private func accepted(_ response: HTTPClientResponse) async throws(APIError) -> HTTPClientResponse {
        guard !(200...299).contains(response.status.code) else {
            told.withLock { if !$0.isEmpty { $0.removeAll() } }
            return response
        }
        let body = try? await Self.collect(response, limit: 1 << 20)
        let status = body.flatMap { try? JSONDecoder().decode(Status.self, from: Data(buffer: $0)) }
        let wait = response.headers.first(name: "retry-after").flatMap(Int.init).map(APIError.wait)
        throw APIError(httpStatus: Int(response.status.code), status: status, retryAfter: wait)
    }

    private func attempt(
        _ request: APIRequest, on client: HTTPClient
    ) async throws(APIError) -> (response: HTTPClientResponse, presented: PresentedCredential) {
        let presented: PresentedCredential
        var outgoing: HTTPClientRequest
        do {
            presented = try await credentials.current()
            outgoing = HTTPClientRequest(url: base + request.target)
            outgoing.tlsConfiguration = try await tls.current(certificate: presented.certificate, key: presented.key)
        } catch {
            throw APIError(.noCredential, error.problem)
        }
        outgoing.method = HTTPMethod(rawValue: request.method.rawValue)
        outgoing.headers.add(name: "accept", value: "application/json")
        outgoing.headers.add(name: "user-agent", value: "moongate")
        if let authorization = presented.authorization {
            outgoing.headers.add(name: "authorization", value: authorization)
        }
        if let body = request.body {
            outgoing.headers.add(name: "content-type", value: request.contentType)
            outgoing.body = .bytes(body)
        }
        do {
            return (try await client.execute(outgoing, timeout: TimeAmount(limits.request)), presented)
        } catch {
            throw Self.transportError(error)
        }
    }

    /// With `tls-server-name`, that name stands in the address (SNI and verification follow it) and is resolved to the
    /// real host.
    private var base: String {
        guard let name = access.serverName, let host = Self.host(of: access.server) else { return access.server }
        return access.server.replacing(host, with: name, maxReplacements: 1)
    }

    private static func host(of server: String) -> String? { URL(string: server)?.host() }

    private static func collect(_ response: HTTPClientResponse, limit: Int) async throws(APIError) -> ByteBuffer {
        do {
            return try await response.body.collect(upTo: limit)
        } catch {
            throw transportError(error)
        }
    }

    private static func transportError(_ error: any Error) -> APIError {
        switch error {
        case let error as HTTPClientError
        where error == .deadlineExceeded || error == .readTimeout || error == .connectTimeout:
            APIError(.timedOut, error.shortDescription)
        case let error as HTTPClientError: APIError(.unreachable, error.shortDescription)
        case is NIOTooManyBytesError: APIError(.unreadable, "the answer is too long")
        case let error as NIOSSLError: TransportText.error(error)
        case let error as BoringSSLError: TransportText.error(.handshakeFailed(error))
        case is NIOSSLExtraError: TransportText.wrongName
        case let error as IOError: APIError(.unreachable, TransportText.reason(error.errnoCode))
        case let error as NIOConnectionError: TransportText.error(error)
        default: APIError(.unreachable, String(describing: error))
        }
    }

    // MARK: JSON

    private func decode<Object: APIResource>(_ response: APIResponse) throws(APIError) -> Object {
        do {
            return try JSONDecoder().decode(Object.self, from: response.body)
        } catch {
            throw APIError(.unreadable, "a \(Object.kind) in an answer is not readable: \(DecodingText(error))")
        }
    }

    private func encode(_ value: some Encodable) throws(APIError) -> [UInt8] {
        do {
            return Array(try JSONEncoder().encode(value))
        } catch {
            throw APIError(.invalid, "a request can't be written as JSON: \(error)")
        }
    }
}

/// Adds apiVersion and kind, which a sent object must have and most of our types leave out. What the server fills in
/// itself is left as it is: it ignores it.
private struct Sent<Object: APIResource>: Encodable {
    private let object: Object

    private enum CodingKeys: String, CodingKey { case apiVersion, kind }

    init(_ object: Object) { self.object = object }

    func encode(to encoder: any Encoder) throws {
        try object.encode(to: encoder)
        var fields = encoder.container(keyedBy: CodingKeys.self)
        try fields.encode(Object.apiVersion, forKey: .apiVersion)
        try fields.encode(Object.kind, forKey: .kind)
    }
}

/// A list in which one bad item does not hide the others.
private struct LenientList<Object: APIResource>: Decodable {
    struct Item: Decodable {
        var value: Result<Object, UnreadableObject>

        init(from decoder: any Decoder) throws {
            do {
                value = .success(try Object(from: decoder))
            } catch {
                let metadata = try NamedOnly(from: decoder).metadata
                value = .failure(
                    UnreadableObject(
                        name: metadata.objectName, resourceVersion: metadata.resourceVersion,
                        problem: DecodingText(error).description))
            }
        }
    }

    var metadata: ListMeta
    var items: [Item]

    private enum CodingKeys: String, CodingKey { case kind, metadata, items }

    /// An answer of another kind, or of none, says nothing about our objects: least of all that they are gone.
    init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        let kind = try fields.decode(String.self, forKey: .kind)
        guard kind == Object.kind + "List" else {
            throw DecodingError.dataCorruptedError(
                forKey: .kind, in: fields, debugDescription: "is not \(Object.kind)List")
        }
        metadata = try fields.decode(ListMeta.self, forKey: .metadata)
        guard fields.contains(.items) else {
            throw DecodingError.keyNotFound(
                CodingKeys.items, .init(codingPath: fields.codingPath, debugDescription: "is missing"))
        }
        // An empty list of a server in Go may be null.
        items = try fields.decodeIfPresent([Item].self, forKey: .items) ?? []
    }
}

private struct NamedOnly: Decodable { var metadata: ObjectMeta }

private struct BrokenEvent: Decodable {
    var type: String
    var object: NamedOnly
}

/// A decoding error as a person reads it: the field, and what is wrong with it.
struct DecodingText: CustomStringConvertible {
    let description: String

    init(_ error: any Error) {
        guard let error = error as? DecodingError else {
            description = String(describing: error)
            return
        }
        let context =
            switch error {
            case .typeMismatch(_, let context), .valueNotFound(_, let context), .dataCorrupted(let context): context
            case .keyNotFound(let key, let context):
                DecodingError.Context(
                    codingPath: context.codingPath + [key], debugDescription: "is missing")
            @unknown default: DecodingError.Context(codingPath: [], debugDescription: String(describing: error))
            }
        var path = ""
        for key in context.codingPath {
            if let index = key.intValue {
                path += "[\(index)]"
            } else {
                path += path.isEmpty ? key.stringValue : "." + key.stringValue
            }
        }
        description = path.isEmpty ? context.debugDescription : "\(path): \(context.debugDescription)"
    }
}
