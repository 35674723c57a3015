// A small API server over real HTTP, for tests: lists with pages, watches with bookmarks, versions and conflicts, status
// subresources, selectors, and the refusals of a real one. Faults are injected by the test that wants them.

import Foundation
import KubernetesAPI
package import KubernetesClient
import NIOCore
import NIOHTTP1
import NIOPosix
package import NIOSSL
import Synchronization

package final class APIServer: Sendable {
    /// What goes wrong with requests that match, so many times.
    package struct Fault: Sendable {
        package enum Action: Sendable {
            /// An answer with this code and nothing done.
            case status(Int, retryAfter: Int? = nil)
            /// The same, when the value is true.
            case lateStatus(Int, Watched<Bool>)
            /// A good answer that says something else.
            case body(String)
            /// The connection is closed without an answer.
            case reset
            /// No answer, ever.
            case silence
            /// The watch is taken, and then told that its version is too old.
            case expireWatch
            /// The watch is taken, and cut in the middle of its next event.
            case cutWatch
        }

        package var verb: String?
        package var resource: String?
        package var times: Int
        /// So many matching requests go well first.
        package var skip: Int
        package var action: Action

        package init(_ action: Action, verb: String? = nil, resource: String? = nil, times: Int = 1, skip: Int = 0) {
            self.action = action
            self.verb = verb
            self.resource = resource
            self.times = times
            self.skip = skip
        }
    }

    /// A request as authorisation sees it.
    package struct Attributes: Sendable, Hashable, CustomStringConvertible {
        package var verb: String
        package var group: String
        package var resource: String
        package var subresource: String?
        package var namespace: String?
        package var name: String?

        package var description: String {
            let subresource = subresource.map { "/\($0)" } ?? ""
            return "\(verb) \(resource)\(subresource) \(namespace ?? "*")/\(name ?? "*")"
        }
    }

    private struct Control: Sendable {
        var state = APIServerState()
        var faults: [Fault] = []
        var denied: @Sendable (Attributes) -> Bool = { _ in false }
        /// Nil takes any.
        var tokens: Set<String>?
        var listener: (any Channel)?
        /// Connections are closed as they come. The port stays ours meanwhile: it might be another's on the way back.
        var isDown = false
        var connections: [UInt64: any Channel] = [:]
        var port = 0
        /// Requests that were answered 401.
        var unauthorized = 0
    }

    private let control = Mutex(Control())
    private let tls: TLSConfiguration?
    /// Every request that came in, in order, as authorisation sees it; tests wait on it.
    package let requests = Watched([Attributes]())
    /// How many watches are open now.
    package let watchCount = Watched(0)
    /// Moves with every write, so that tests can wait for what others write.
    package let writes = Watched(0)

    /// - Parameter allowsLoopbackEndpoints: the one thing that is taken although a real server refuses it, so that the
    ///   servers of a test can stand behind a Service.
    package init(tls: TLSConfiguration? = nil, allowsLoopbackEndpoints: Bool = false) {
        self.tls = tls
        control.withLock { control in
            control.state.allowsLoopbackEndpoints = allowsLoopbackEndpoints
            for name in ["default", "kube-system"] { Self.addNamespace(name, &control.state) }
        }
    }

    // MARK: Life

    /// Listens on loopback; port 0 lets the system choose.
    @discardableResult
    package func start(port: Int = 0) async throws -> String {
        let tlsContext = try tls.map { try NIOSSLContext(configuration: $0) }
        let bootstrap = ServerBootstrap(group: .singletonMultiThreadedEventLoopGroup)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.socketOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { [self] channel in
                channel.eventLoop.makeCompletedFuture {
                    let id = control.withLock { control -> UInt64? in
                        guard !control.isDown else { return nil }
                        let id = control.state.freshID()
                        control.connections[id] = channel
                        return id
                    }
                    guard let id else {
                        channel.close(promise: nil)
                        return
                    }
                    if let tlsContext {
                        try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: tlsContext))
                    }
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline()
                    try channel.pipeline.syncOperations.addHandler(
                        APIServerConnection(id: id, handle: { self.handle($0, $1) }, closed: { self.closed($0) }))
                }
            }
        let listener = try await bootstrap.bind(host: "127.0.0.1", port: port).get()
        let bound = listener.localAddress?.port ?? 0
        control.withLock { control in
            control.listener = listener
            control.port = bound
        }
        return url
    }

    package var url: String { "\(tls == nil ? "http" : "https")://127.0.0.1:\(control.withLock { $0.port })" }

    /// Takes no connection, and ends all that there are.
    package func goDown() async throws {
        let connections = control.withLock { control in
            control.isDown = true
            return Array(control.connections.values)
        }
        for connection in connections { connection.close(promise: nil) }
        try await watchCount.wait { $0 == 0 }
    }

    package func comeBack() { control.withLock { $0.isDown = false } }

    package func stop() async throws {
        let listener = control.withLock { control in
            defer { control.listener = nil }
            return control.listener
        }
        try await listener?.close().get()
        try await goDown()
    }

    private func closed(_ connection: UInt64) {
        let count = control.withLock { control in
            control.connections[connection] = nil
            for (id, watcher) in control.state.watchers where watcher.responder.connection == connection {
                control.state.watchers[id] = nil
            }
            return control.state.watchers.count
        }
        watchCount.update { $0 = count }
    }

    // MARK: Faults

    /// - Parameter first: it goes before those that are there.
    package func inject(_ fault: Fault, first: Bool = false) {
        control.withLock { $0.faults.insert(fault, at: first ? 0 : $0.faults.endIndex) }
    }

    /// From here on nothing goes wrong.
    package func clearFaults() { control.withLock { $0.faults = [] } }

    /// What the role does not allow.
    package func deny(_ denied: @escaping @Sendable (Attributes) -> Bool) { control.withLock { $0.denied = denied } }

    /// From here on only these bearer tokens are taken.
    package func accept(tokens: Set<String>?) { control.withLock { $0.tokens = tokens } }

    package var unauthorizedCount: Int { control.withLock { $0.unauthorized } }

    /// Forgets the history up to now, as a real server does after some minutes; lists that are being paged through as well.
    package func compact() {
        control.withLock { control in
            control.state.history = []
            control.state.compactedBefore = control.state.version
            control.state.pages = [:]
        }
    }

    /// Ends every watch in an orderly way, as after `timeoutSeconds`.
    package func endWatches() { forEachWatcher(drop: true) { _, watcher in watcher.responder.send(.streamEnd) } }

    /// Breaks every watch.
    package func breakWatches() { forEachWatcher(drop: true) { _, watcher in watcher.responder.send(.abort) } }

    /// Breaks every watch in the middle of its next event.
    package func cutWatchesAtNextEvent() {
        control.withLock { control in
            for id in control.state.watchers.keys { control.state.watchers[id]?.cutsNextEvent = true }
        }
    }

    /// Tells every watch that its version is too old.
    package func expireWatches() {
        forEachWatcher(drop: true) { state, watcher in
            state.send("ERROR", Refusal.expired().status, to: watcher)
            watcher.responder.send(.streamEnd)
        }
    }

    /// Sends every watch a line, whatever it says.
    package func sendLine(_ line: String) {
        forEachWatcher(drop: false) { _, watcher in watcher.responder.send(.streamBytes(Array("\(line)\n".utf8))) }
    }

    package func sendBookmarks() { forEachWatcher(drop: false) { state, watcher in state.bookmark(watcher) } }

    /// Events go out in pieces of this size; nil sends each whole.
    package func sendEvents(inPiecesOf size: Int?) { control.withLock { $0.state.eventPieces = size } }

    private func forEachWatcher(drop: Bool, _ body: (APIServerState, Watcher) -> Void) {
        let count = control.withLock { control in
            for id in control.state.watchers.keys.sorted() {
                guard let watcher = control.state.watchers[id] else { continue }
                body(control.state, watcher)
                if drop { control.state.watchers[id] = nil }
            }
            return control.state.watchers.count
        }
        watchCount.update { $0 = count }
    }

    // MARK: Objects, from the test's side

    /// Creates an object, or replaces it; makes its namespace if there is none. Refuses what the server refuses.
    @discardableResult
    package func apply<Object: APIResource>(_ object: Object) throws -> Object {
        let json = try Self.json(object)
        let namespace = Object.isNamespaced ? object.metadata.namespace : ""
        let written = try change { state throws(Refusal) in
            guard let kind = Self.kind(Object.plural) else { throw Self.unknown }
            if Object.isNamespaced { Self.addNamespace(namespace, &state) }
            let key = StoredKey(plural: kind.plural, namespace: namespace, name: object.metadata.name)
            guard state.objects[key] != nil else {
                var fresh = json
                fresh["metadata"]?["resourceVersion"] = nil
                let created = try state.create(kind, namespace: namespace, fresh)
                guard kind.hasStatus, let status = json["status"], status != ["loadBalancer": [:]] else {
                    return created
                }
                return try state.patch(
                    kind, namespace: namespace, name: object.metadata.name, ["status": status], status: true)
            }
            var next = json
            next["metadata"]?["resourceVersion"] = state.objects[key]?[path: ["metadata", "resourceVersion"]]
            return try state.replace(kind, namespace: namespace, name: object.metadata.name, next, status: false)
        }
        return try Self.object(written)
    }

    /// Puts a JSON object in as it is, past every check: what an older server may have let in.
    package func force(_ json: JSONValue, plural: String) {
        control.withLock { control in
            let namespace = json[path: ["metadata", "namespace"]]?.string ?? ""
            let name = json[path: ["metadata", "name"]]?.string ?? ""
            if !namespace.isEmpty { Self.addNamespace(namespace, &control.state) }
            control.state.force(json, StoredKey(plural: plural, namespace: namespace, name: name))
        }
        writes.update { $0 += 1 }
    }

    /// Writes the status of an object, as another controller would.
    package func setStatus<Object: APIResource>(
        _ type: Object.Type, namespace: String, name: String, _ status: JSONValue
    ) throws {
        try change { state throws(Refusal) in
            guard let kind = Self.kind(Object.plural) else { throw Self.unknown }
            return try state.patch(kind, namespace: namespace, name: name, ["status": status], status: true)
        }
    }

    package func delete<Object: APIResource>(_ type: Object.Type, namespace: String, name: String) throws {
        try change { state throws(Refusal) in
            guard let kind = Self.kind(Object.plural) else { throw Self.unknown }
            return try state.delete(kind, namespace: namespace, name: name)
        }
    }

    package func get<Object: APIResource>(_ type: Object.Type, namespace: String, name: String) throws -> Object? {
        let json = control.withLock { control in
            control.state.objects[StoredKey(plural: Object.plural, namespace: namespace, name: name)]
        }
        return try json.map(Self.object)
    }

    package func all<Object: APIResource>(_ type: Object.Type) throws -> [Object] {
        let held = control.withLock { control in
            control.state.objects.filter { $0.key.plural == Object.plural }.sorted { $0.key < $1.key }.map(\.value)
        }
        return try held.map(Self.object)
    }

    /// Objects are created in namespaces that exist, and in no others.
    package func addNamespace(_ name: String) throws {
        control.withLock { Self.addNamespace(name, &$0.state) }
        writes.update { $0 += 1 }
    }

    @discardableResult
    private func change(
        _ body: (inout APIServerState) throws(Refusal) -> JSONValue
    ) throws(Refusal) -> JSONValue {
        let result = control.withLock { control -> Result<JSONValue, Refusal> in
            do throws(Refusal) {
                return .success(try body(&control.state))
            } catch {
                return .failure(error)
            }
        }
        writes.update { $0 += 1 }
        return try result.get()
    }

    private static let unknown = Refusal(
        code: 404, reason: "NotFound", message: "the server could not find the requested resource")

    private static func kind(_ plural: String) -> APIServerKind? { APIServerKind.all.first { $0.plural == plural } }

    private static func addNamespace(_ name: String, _ state: inout APIServerState) {
        let key = StoredKey(plural: "namespaces", namespace: "", name: name)
        guard state.objects[key] == nil else { return }
        state.force(
            [
                "kind": "Namespace", "apiVersion": "v1",
                "metadata": ["name": .string(name), "uid": .string("ns-\(name)")],
            ], key)
    }

    private static func json<Object: APIResource>(_ object: Object) throws -> JSONValue {
        var json = try JSONValue(text: String(decoding: JSONEncoder().encode(object), as: UTF8.self))
        json["apiVersion"] = .string(Object.apiVersion)
        json["kind"] = .string(Object.kind)
        if !Object.isNamespaced { json["metadata"]?["namespace"] = nil }
        return json
    }

    private static func object<Object: APIResource>(_ json: JSONValue) throws -> Object {
        try JSONDecoder().decode(Object.self, from: Data(json.text.utf8))
    }

    // MARK: Requests

    private func handle(_ request: ReceivedRequest, _ responder: Responder) {
        do throws(Refusal) {
            try answer(request, responder)
        } catch {
            let headers = error.retryAfter.map { ["retry-after": String($0)] } ?? [:]
            responder.send(.answer(status: error.code, headers: headers, body: Array(error.status.text.utf8)))
        }
    }

    private func answer(_ request: ReceivedRequest, _ responder: Responder) throws(Refusal) {
        if let tokens = control.withLock({ $0.tokens }) {
            let token = request.headers["authorization"].map { $0.replacing("Bearer ", with: "", maxReplacements: 1) }
            guard let token, tokens.contains(token) else {
                control.withLock { $0.unauthorized += 1 }
                throw Refusal(code: 401, reason: "Unauthorized", message: "Unauthorized")
            }
        }
        let target = try APIServerTarget(request)
        let attributes = target.attributes
        requests.update { $0.append(attributes) }
        if control.withLock({ $0.denied(attributes) }) { throw Self.forbidden(attributes) }
        let action = control.withLock { control -> Fault.Action? in
            guard
                let index = control.faults.firstIndex(where: { fault in
                    fault.times > 0 && (fault.verb ?? attributes.verb) == attributes.verb
                        && (fault.resource ?? attributes.resource) == attributes.resource
                })
            else { return nil }
            guard control.faults[index].skip == 0 else {
                control.faults[index].skip -= 1
                return nil
            }
            control.faults[index].times -= 1
            return control.faults[index].action
        }
        switch action {
        case .status(let code, let retryAfter):
            throw Refusal(code: code, reason: "Injected", message: "injected fault", retryAfter: retryAfter)
        case .lateStatus(let code, let isDue):
            let refusal = Refusal(code: code, reason: "Injected", message: "injected fault")
            Task {
                try? await isDue.wait { $0 }
                responder.send(.answer(status: code, headers: [:], body: Array(refusal.status.text.utf8)))
            }
        case .body(let text): responder.send(.answer(status: 200, headers: [:], body: Array(text.utf8)))
        case .reset: responder.close()
        case .silence: break
        case .expireWatch:
            responder.send(.streamHead)
            responder.send(
                .streamBytes(Array("{\"type\":\"ERROR\",\"object\":\(Refusal.expired().status.text)}\n".utf8)))
            responder.send(.streamEnd)
        case .cutWatch: try perform(target, request, responder, cuts: true)
        case nil: try perform(target, request, responder, cuts: false)
        }
    }

    private func perform(
        _ target: APIServerTarget, _ request: ReceivedRequest, _ responder: Responder, cuts: Bool
    ) throws(Refusal) {
        let kind = target.kind
        let namespace = target.namespace ?? ""
        let isStatus = target.subresource == "status"
        let answer: JSONValue
        switch target.attributes.verb {
        case "watch": return try watch(target, request, responder, cuts: cuts)
        case "list":
            let selection = try target.selection(request)
            answer = try change { state throws(Refusal) in
                try state.list(
                    selection, limit: request.query["limit"].flatMap(Int.init), continuation: request.query["continue"])
            }
        case "get":
            answer = try change { state throws(Refusal) in try state.find(kind, namespace, target.name ?? "").1 }
        case "create":
            let body = try Self.body(request, type: "application/json")
            answer = try change { state throws(Refusal) in try state.create(kind, namespace: namespace, body) }
        case "update":
            let body = try Self.body(request, type: "application/json")
            answer = try change { state throws(Refusal) in
                try state.replace(kind, namespace: namespace, name: target.name ?? "", body, status: isStatus)
            }
        case "patch":
            let isJSONPatch = request.headers["content-type"] == "application/json-patch+json"
            let body = try Self.body(
                request, type: isJSONPatch ? "application/json-patch+json" : "application/merge-patch+json")
            answer = try change { state throws(Refusal) in
                guard isJSONPatch else {
                    return try state.patch(kind, namespace: namespace, name: target.name ?? "", body, status: isStatus)
                }
                let old = try state.find(kind, namespace, target.name ?? "").1
                guard let new = old.patched(by: body.items) else {
                    throw Refusal(
                        code: 422, reason: "Invalid",
                        message: "the server rejected our request due to an error in our request")
                }
                return try state.replace(kind, namespace: namespace, name: target.name ?? "", new, status: isStatus)
            }
        case "delete":
            answer = try change { state throws(Refusal) in
                try state.delete(kind, namespace: namespace, name: target.name ?? "")
            }
        default: throw Refusal(code: 405, reason: "MethodNotAllowed", message: "the verb is not supported")
        }
        let status = target.attributes.verb == "create" ? 201 : 200
        responder.send(.answer(status: status, headers: [:], body: Array(answer.text.utf8)))
    }

    private func watch(
        _ target: APIServerTarget, _ request: ReceivedRequest, _ responder: Responder, cuts: Bool
    ) throws(Refusal) {
        let selection = try target.selection(request)
        let (id, count) = control.withLock { control in
            let watcher = Watcher(
                id: control.state.freshID(), selection: selection, responder: responder,
                wantsBookmarks: request.query["allowWatchBookmarks"] == "true", cutsNextEvent: cuts)
            control.state.watch(watcher, after: request.query["resourceVersion"] ?? "")
            return (watcher.id, control.state.watchers.count)
        }
        watchCount.update { $0 = count }
        guard let seconds = request.query["timeoutSeconds"].flatMap(Int64.init) else { return }
        responder.after(.seconds(seconds)) { [weak self] in self?.end(id) }
    }

    private func end(_ id: UInt64) {
        let count = control.withLock { control in
            if let watcher = control.state.watchers.removeValue(forKey: id) {
                control.state.bookmark(watcher)
                watcher.responder.send(.streamEnd)
            }
            return control.state.watchers.count
        }
        watchCount.update { $0 = count }
    }

    private static func body(_ request: ReceivedRequest, type: String) throws(Refusal) -> JSONValue {
        guard request.headers["content-type"] == type else {
            throw Refusal(
                code: 415, reason: "UnsupportedMediaType",
                message: "the body of the request was in an unknown format - accepted media types include: \(type)")
        }
        guard request.body.count <= 3 << 20 else {
            throw Refusal(
                code: 413, reason: "RequestEntityTooLarge", message: "Request entity too large: limit is 3145728")
        }
        do {
            return try JSONValue(text: String(decoding: request.body, as: UTF8.self))
        } catch {
            throw Refusal(code: 400, reason: "BadRequest", message: "the body is not JSON: \(error)")
        }
    }

    private static func forbidden(_ attributes: Attributes) -> Refusal {
        let qualified = attributes.group.isEmpty ? attributes.resource : "\(attributes.resource).\(attributes.group)"
        let place = attributes.namespace.map { "in the namespace \"\($0)\"" } ?? "at the cluster scope"
        return Refusal(
            code: 403, reason: "Forbidden",
            message:
                "\(qualified) is forbidden: User \"system:serviceaccount:moongate:moongate\" cannot \(attributes.verb) "
                + "resource \"\(attributes.resource)\" in API group \"\(attributes.group)\" \(place)")
    }
}

extension APIServerState {
    /// Past every check.
    mutating func force(_ json: JSONValue, _ key: StoredKey) {
        version += 1
        var object = json
        object["metadata"]?["resourceVersion"] = .string(String(version))
        if object[path: ["metadata", "uid"]] == nil { object["metadata"]?["uid"] = .string("uid-\(freshID())") }
        let old = objects.updateValue(object, forKey: key)
        publish(Change(version: version, key: key, old: old, new: object))
    }
}

/// What a request is about.
struct APIServerTarget {
    var kind: APIServerKind
    var namespace: String?
    var name: String?
    var subresource: String?
    var attributes: APIServer.Attributes

    init(_ request: ReceivedRequest) throws(Refusal) {
        let missing = Refusal(
            code: 404, reason: "NotFound", message: "the server could not find the requested resource")
        var parts = request.path.split(separator: "/").map(String.init)[...]
        let apiVersion: String
        switch parts.popFirst() {
        case "api":
            guard let version = parts.popFirst() else { throw missing }
            apiVersion = version
        case "apis":
            guard let group = parts.popFirst(), let version = parts.popFirst() else { throw missing }
            apiVersion = "\(group)/\(version)"
        default: throw missing
        }
        if parts.first == "namespaces", parts.count >= 3 {
            parts.removeFirst()
            namespace = parts.popFirst()
        }
        let plural = parts.popFirst()
        guard let kind = APIServerKind.all.first(where: { $0.plural == plural && $0.apiVersion == apiVersion }) else {
            throw missing
        }
        self.kind = kind
        name = parts.popFirst()
        subresource = parts.popFirst()
        guard parts.isEmpty, kind.isNamespaced || namespace == nil else { throw missing }
        let isWatch = request.query["watch"] == "true" || request.query["watch"] == "1"
        let verb =
            switch request.method {
            case "GET": name != nil ? "get" : isWatch ? "watch" : "list"
            case "POST": "create"
            case "PUT": "update"
            case "PATCH": "patch"
            case "DELETE": "delete"
            default: request.method.lowercased()
            }
        // A field selector on the name counts as the name, so that resourceNames of a role apply.
        var named = name
        if named == nil, let selector = request.query["fieldSelector"], selector.hasPrefix("metadata.name=") {
            named = String(selector.dropFirst("metadata.name=".count))
        }
        attributes = APIServer.Attributes(
            verb: verb, group: kind.group, resource: kind.plural, subresource: subresource, namespace: namespace,
            name: named)
    }

    func selection(_ request: ReceivedRequest) throws(Refusal) -> Selection {
        var selection = Selection(kind: kind, namespace: namespace)
        if let text = request.query["labelSelector"] {
            guard let selector = LabelSelector(text) else {
                throw Refusal(code: 400, reason: "BadRequest", message: "unable to parse requirement: \(text)")
            }
            selection.labels = selector
        }
        if let text = request.query["fieldSelector"] {
            guard let selector = FieldSelector(text) else {
                throw Refusal(code: 400, reason: "BadRequest", message: "field label not supported: \(text)")
            }
            selection.fields = selector
        }
        return selection
    }
}
