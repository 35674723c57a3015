// What the fake API server holds: objects, the history of their changes, and who watches.

import KubernetesAPI

/// The kind and the name of an object.
struct StoredKey: Hashable, Comparable, Sendable {
    var plural: String
    var namespace: String
    var name: String

    static func < (left: Self, right: Self) -> Bool {
        (left.plural, left.namespace, left.name) < (right.plural, right.namespace, right.name)
    }
}

/// An answer that says why not.
struct Refusal: Error, Sendable {
    var code: Int
    var reason: String
    var message: String
    var retryAfter: Int?

    var status: JSONValue {
        var details: JSONValue = [:]
        if let retryAfter { details["retryAfterSeconds"] = .integer(retryAfter) }
        return [
            "kind": "Status", "apiVersion": "v1", "metadata": [:], "status": "Failure", "message": .string(message),
            "reason": .string(reason), "code": .integer(code), "details": details,
        ]
    }

    static func expired() -> Refusal {
        Refusal(code: 410, reason: "Expired", message: "The resourceVersion for the provided watch is too old.")
    }
}

/// What a list or a watch is about.
struct Selection: Sendable {
    var kind: APIServerKind
    var namespace: String?
    var labels: LabelSelector?
    var fields: FieldSelector?

    func covers(_ key: StoredKey) -> Bool {
        key.plural == kind.plural && (namespace == nil || namespace == key.namespace)
    }

    func matches(_ object: JSONValue) -> Bool {
        let metadata = object["metadata"] ?? .null
        return (labels?.matches(metadata["labels"]?.fields ?? [:]) ?? true)
            && (fields?.matches(name: metadata["name"]?.string ?? "", namespace: metadata["namespace"]?.string ?? "")
                ?? true)
    }
}

struct Change: Sendable {
    var version: Int
    var key: StoredKey
    var old: JSONValue?
    var new: JSONValue?
}

struct Watcher: Sendable {
    var id: UInt64
    var selection: Selection
    var responder: Responder
    var wantsBookmarks: Bool
    /// Cut the connection in the middle of the next event.
    var cutsNextEvent = false
}

struct APIServerState: Sendable {
    /// Versions begin high, so that nothing takes a small number for one.
    var version = 1_000
    var objects: [StoredKey: JSONValue] = [:]
    var history: [Change] = []
    /// Versions before this are no longer kept.
    var compactedBefore = 0
    var watchers: [UInt64: Watcher] = [:]
    /// Lists that are being paged through, by continue token.
    var pages: [String: (items: [JSONValue], version: Int)] = [:]
    var nextID: UInt64 = 0
    var wallSeconds: Int64 = 1_800_000_000
    /// Events go out in pieces of this size.
    var eventPieces: Int?
    /// Slices may name 127.0.0.1, so that a test's own servers can stand behind them; a real API server refuses that.
    var allowsLoopbackEndpoints = false

    mutating func freshID() -> UInt64 {
        nextID += 1
        return nextID
    }

    // MARK: Writing

    mutating func create(_ kind: APIServerKind, namespace: String, _ sent: JSONValue) throws(Refusal) -> JSONValue {
        var object = sent
        var metadata = object["metadata"] ?? [:]
        if let generate = metadata["generateName"]?.string, metadata["name"] == nil {
            metadata["name"] = .string(generate + String(freshID(), radix: 36))
        }
        let name = metadata["name"]?.string ?? ""
        try check(sent, kind, namespace: namespace, name: name)
        let key = StoredKey(plural: kind.plural, namespace: namespace, name: name)
        guard objects[key] == nil else {
            throw Refusal(code: 409, reason: "AlreadyExists", message: "\(kind.qualified) \"\(name)\" already exists")
        }
        if metadata["resourceVersion"]?.string?.isEmpty == false {
            throw Refusal(
                code: 400, reason: "BadRequest", message: "resourceVersion should not be set on objects to be created")
        }
        if kind.isNamespaced {
            guard objects[StoredKey(plural: "namespaces", namespace: "", name: namespace)] != nil else {
                throw Refusal(code: 404, reason: "NotFound", message: "namespaces \"\(namespace)\" not found")
            }
            metadata["namespace"] = .string(namespace)
        }
        wallSeconds += 1
        metadata["uid"] = .string("uid-\(freshID())")
        metadata["creationTimestamp"] = .string(Timestamp(seconds: wallSeconds).description)
        metadata["generation"] = 1
        object["metadata"] = metadata
        object["apiVersion"] = .string(kind.apiVersion)
        object["kind"] = .string(kind.kind)
        if kind.hasStatus, kind.kind != "Node", kind.kind != "Pod" { object["status"] = ["loadBalancer": [:]] }
        try validate(object, old: nil, kind)
        return commit(object, key)
    }

    /// A PUT of the whole object.
    mutating func replace(
        _ kind: APIServerKind, namespace: String, name: String, _ sent: JSONValue, status: Bool
    ) throws(Refusal) -> JSONValue {
        try check(sent, kind, namespace: namespace, name: name)
        let (key, old) = try find(kind, namespace, name)
        return try update(key, old, to: sent, kind, status: status)
    }

    mutating func patch(
        _ kind: APIServerKind, namespace: String, name: String, _ patch: JSONValue, status: Bool
    ) throws(Refusal) -> JSONValue {
        let (key, old) = try find(kind, namespace, name)
        return try update(key, old, to: old.merged(with: patch), kind, status: status)
    }

    private mutating func update(
        _ key: StoredKey, _ old: JSONValue, to sent: JSONValue, _ kind: APIServerKind, status: Bool
    ) throws(Refusal) -> JSONValue {
        let oldMetadata = old["metadata"] ?? [:]
        if let version = sent[path: ["metadata", "resourceVersion"]]?.string, !version.isEmpty,
            version != oldMetadata["resourceVersion"]?.string
        {
            throw Refusal(
                code: 409, reason: "Conflict",
                message:
                    "Operation cannot be fulfilled on \(kind.qualified) \"\(key.name)\": the object has been modified; "
                    + "please apply your changes to the latest version and try again")
        }
        if kind.kind == "Lease", sent[path: ["metadata", "resourceVersion"]] == nil {
            throw Refusal(
                code: 422, reason: "Invalid",
                message:
                    "leases.coordination.k8s.io \"\(key.name)\" is invalid: metadata.resourceVersion: Invalid value: "
                    + "0x0: must be specified for an update")
        }
        var object = sent
        if status {
            guard kind.hasStatus else {
                throw Refusal(
                    code: 404, reason: "NotFound", message: "the server could not find the requested resource")
            }
            object = old
            object["status"] = sent["status"] ?? [:]
            let faults = kind.statusFaults(object["status"] ?? .null)
            guard faults.isEmpty else { throw invalid(kind, key.name, faults) }
        } else {
            var metadata = object["metadata"] ?? [:]
            for field in ["uid", "creationTimestamp", "namespace", "name", "generation"] {
                metadata[field] = oldMetadata[field]
            }
            object["metadata"] = metadata
            if kind.hasStatus { object["status"] = old["status"] }
            object["apiVersion"] = .string(kind.apiVersion)
            object["kind"] = .string(kind.kind)
            try validate(object, old: old, kind)
            if object["spec"] != old["spec"] {
                object["metadata"]?["generation"] = .integer((oldMetadata["generation"]?.integer ?? 0) + 1)
            }
        }
        // A write that changes nothing makes no new version.
        var compared = object
        compared["metadata"]?["resourceVersion"] = oldMetadata["resourceVersion"]
        if compared == old { return old }
        return commit(object, key)
    }

    mutating func delete(_ kind: APIServerKind, namespace: String, name: String) throws(Refusal) -> JSONValue {
        let (key, old) = try find(kind, namespace, name)
        version += 1
        objects[key] = nil
        var last = old
        last["metadata"]?["resourceVersion"] = .string(String(version))
        publish(Change(version: version, key: key, old: last, new: nil))
        return last
    }

    func find(_ kind: APIServerKind, _ namespace: String, _ name: String) throws(Refusal) -> (StoredKey, JSONValue) {
        let key = StoredKey(plural: kind.plural, namespace: namespace, name: name)
        guard let object = objects[key] else {
            throw Refusal(code: 404, reason: "NotFound", message: "\(kind.qualified) \"\(name)\" not found")
        }
        return (key, object)
    }

    private mutating func commit(_ object: JSONValue, _ key: StoredKey) -> JSONValue {
        version += 1
        var object = object
        object["metadata"]?["resourceVersion"] = .string(String(version))
        let old = objects.updateValue(object, forKey: key)
        publish(Change(version: version, key: key, old: old, new: object))
        return object
    }

    private func check(_ sent: JSONValue, _ kind: APIServerKind, namespace: String, name: String) throws(Refusal) {
        if sent["kind"]?.string != kind.kind || sent["apiVersion"]?.string != kind.apiVersion {
            throw Refusal(
                code: 400, reason: "BadRequest",
                message: "the object provided is unrecognized (must be of type \(kind.kind)): "
                    + "\(sent["apiVersion"]?.string ?? ""), \(sent["kind"]?.string ?? "")")
        }
        if let own = sent[path: ["metadata", "namespace"]]?.string, kind.isNamespaced, own != namespace {
            throw Refusal(
                code: 400, reason: "BadRequest",
                message: "the namespace of the provided object does not match the namespace sent on the request")
        }
        if let own = sent[path: ["metadata", "name"]]?.string, own != name {
            throw Refusal(
                code: 400, reason: "BadRequest", message: "the name of the object does not match the name on the URL")
        }
    }

    private func validate(_ object: JSONValue, old: JSONValue?, _ kind: APIServerKind) throws(Refusal) {
        var faults: [String] = []
        let metadata = object["metadata"] ?? .null
        let name = metadata["name"]?.string ?? ""
        if !Names.isSubdomain(name) { faults.append("metadata.name: Invalid value: \"\(name)\"") }
        let annotations = metadata["annotations"]?.fields ?? [:]
        if annotations.reduce(0, { $0 + $1.key.utf8.count + ($1.value.string?.utf8.count ?? 0) }) > 256 << 10 {
            faults.append("metadata.annotations: Too long: may not be more than 262144 bytes")
        }
        faults += kind.faults(object, old)
        if kind.kind == "EndpointSlice", !allowsLoopbackEndpoints {
            for (index, endpoint) in (object["endpoints"]?.items ?? []).enumerated() {
                for address in endpoint["addresses"]?.items.compactMap(\.string) ?? []
                where address.hasPrefix("127.") || address == "::1" {
                    faults.append(
                        "endpoints[\(index)].addresses: Invalid value: \"\(address)\": "
                            + "may not be in the loopback range (127.0.0.0/8, ::1/128)")
                }
            }
        }
        guard faults.isEmpty else { throw invalid(kind, name, faults) }
    }

    private func invalid(_ kind: APIServerKind, _ name: String, _ faults: [String]) -> Refusal {
        Refusal(
            code: 422, reason: "Invalid",
            message: "\(kind.kind).\(kind.group) \"\(name)\" is invalid: \(faults.joined(separator: ", "))")
    }

    // MARK: Reading

    mutating func list(_ selection: Selection, limit: Int?, continuation: String?) throws(Refusal) -> JSONValue {
        let items: [JSONValue]
        let listVersion: Int
        if let continuation {
            guard let page = pages.removeValue(forKey: continuation) else {
                throw Refusal(
                    code: 410, reason: "Expired",
                    message: "The provided continue parameter is too old to display a consistent list result.")
            }
            (items, listVersion) = page
        } else {
            let keys = objects.keys.filter(selection.covers).sorted()
            items = keys.compactMap { objects[$0] }.filter(selection.matches)
            listVersion = version
        }
        var metadata: JSONValue = ["resourceVersion": .string(String(listVersion))]
        var shown = items[...]
        if let limit, limit > 0, items.count > limit {
            shown = items.prefix(limit)
            let token = "page-\(freshID())"
            pages[token] = (Array(items.dropFirst(limit)), listVersion)
            metadata["continue"] = .string(token)
            metadata["remainingItemCount"] = .integer(items.count - limit)
        }
        return [
            "kind": .string(selection.kind.kind + "List"), "apiVersion": .string(selection.kind.apiVersion),
            "metadata": metadata,
            "items": .list(
                shown.map { item in
                    var item = item
                    item["kind"] = nil
                    item["apiVersion"] = nil
                    return item
                }),
        ]
    }

    /// Begins a watch: what happened since the version goes out first.
    mutating func watch(_ watcher: Watcher, after version: String) {
        watcher.responder.send(.streamHead)
        guard version.isEmpty || version == "0" || (Int(version) ?? 0) >= compactedBefore else {
            send("ERROR", Refusal.expired().status, to: watcher)
            watcher.responder.send(.streamEnd)
            return
        }
        if let start = Int(version), start > 0 {
            for change in history where change.version > start { tell(change, to: watcher) }
        } else {
            for key in objects.keys.filter(watcher.selection.covers).sorted() {
                if let object = objects[key], watcher.selection.matches(object) { send("ADDED", object, to: watcher) }
            }
        }
        watchers[watcher.id] = watcher
    }

    mutating func publish(_ change: Change) {
        history.append(change)
        for id in watchers.keys.sorted() {
            guard let watcher = watchers[id] else { continue }
            if watcher.cutsNextEvent, watcher.selection.covers(change.key) {
                watchers[id] = nil
                let line = Self.line("MODIFIED", change.new ?? change.old ?? .null)
                watcher.responder.send(.streamBytes(Array(line.prefix(line.count / 2))))
                watcher.responder.send(.abort)
            } else {
                tell(change, to: watcher)
            }
        }
    }

    /// An object that begins or ceases to match is added or deleted, as far as this watcher can tell.
    private func tell(_ change: Change, to watcher: Watcher) {
        guard watcher.selection.covers(change.key) else { return }
        let was = change.old.map(watcher.selection.matches) ?? false
        let now = change.new.map(watcher.selection.matches) ?? false
        switch (was, now) {
        case (false, false): return
        case (false, true): send("ADDED", change.new ?? .null, to: watcher)
        case (true, true): send("MODIFIED", change.new ?? .null, to: watcher)
        case (true, false):
            var last = change.new ?? change.old ?? .null
            last["metadata"]?["resourceVersion"] = .string(String(change.version))
            send("DELETED", last, to: watcher)
        }
    }

    func send(_ type: String, _ object: JSONValue, to watcher: Watcher) {
        let line = Self.line(type, object)
        guard let size = eventPieces else { return watcher.responder.send(.streamBytes(line)) }
        for start in stride(from: 0, to: line.count, by: size) {
            watcher.responder.send(.streamBytes(Array(line[start..<min(line.count, start + size)])))
        }
    }

    private static func line(_ type: String, _ object: JSONValue) -> [UInt8] {
        var bytes = Array("{\"type\":\"\(type)\",\"object\":".utf8)
        object.write(to: &bytes)
        bytes += "}\n".utf8
        return bytes
    }

    func bookmark(_ watcher: Watcher) {
        guard watcher.wantsBookmarks else { return }
        send(
            "BOOKMARK",
            [
                "kind": .string(watcher.selection.kind.kind), "apiVersion": .string(watcher.selection.kind.apiVersion),
                "metadata": ["resourceVersion": .string(String(version))], "spec": [:],
            ], to: watcher)
    }
}
