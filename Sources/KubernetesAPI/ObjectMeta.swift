// What every object of the API carries: names, labels, versions and ages (apimachinery meta/v1).

/// An object of the API: its kind, and what it is called.
package protocol KubernetesObject: Codable, Sendable, Equatable {
    static var apiVersion: String { get }
    static var kind: String { get }
    var metadata: ObjectMeta { get set }
}

/// The name of an object within its kind. Cluster-scoped objects have an empty namespace.
package struct ObjectName: Sendable, Hashable, Comparable, CustomStringConvertible {
    package var namespace: String
    package var name: String

    package init(namespace: String, name: String) {
        self.namespace = namespace
        self.name = name
    }

    package var description: String { namespace.isEmpty ? name : "\(namespace)/\(name)" }

    package static func < (left: Self, right: Self) -> Bool {
        (left.namespace, left.name) < (right.namespace, right.name)
    }
}

package struct ObjectMeta: Codable, Sendable, Equatable {
    package var name = ""
    package var namespace = ""
    package var uid: String?
    package var resourceVersion: String?
    package var generation: Int64?
    package var creationTimestamp: Timestamp?
    package var deletionTimestamp: Timestamp?
    package var labels: [String: String] = [:]
    package var annotations: [String: String] = [:]
    package var ownerReferences: [OwnerReference] = []

    package init(name: String = "", namespace: String = "") {
        self.name = name
        self.namespace = namespace
    }

    package init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        name = try fields.value(.name, or: "")
        namespace = try fields.value(.namespace, or: "")
        uid = try fields.value(.uid)
        resourceVersion = try fields.value(.resourceVersion)
        generation = try fields.value(.generation)
        creationTimestamp = try fields.value(.creationTimestamp)
        deletionTimestamp = try fields.value(.deletionTimestamp)
        labels = try fields.value(.labels, or: [:])
        annotations = try fields.value(.annotations, or: [:])
        ownerReferences = try fields.value(.ownerReferences, or: [])
    }

    package var objectName: ObjectName { ObjectName(namespace: namespace, name: name) }
}

package struct OwnerReference: Codable, Sendable, Equatable {
    package var apiVersion: String
    package var kind: String
    package var name: String
    package var uid: String?
    package var controller: Bool?
}

package struct ListMeta: Codable, Sendable, Equatable {
    package var resourceVersion: String?
    package var `continue`: String?
    package var remainingItemCount: Int64?

    package init(resourceVersion: String? = nil, continue token: String? = nil, remainingItemCount: Int64? = nil) {
        self.resourceVersion = resourceVersion
        self.continue = token
        self.remainingItemCount = remainingItemCount
    }
}

/// One page of a list.
package struct ObjectList<Item: KubernetesObject>: Codable, Sendable, Equatable {
    package var metadata: ListMeta
    package var items: [Item]

    private enum CodingKeys: String, CodingKey { case metadata, items }

    package init(metadata: ListMeta = ListMeta(), items: [Item]) {
        self.metadata = metadata
        self.items = items
    }

    package init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        metadata = try fields.value(.metadata, or: ListMeta())
        items = try fields.value(.items, or: [])
    }
}

extension KeyedDecodingContainer {
    /// A field that may be missing; null is as good as missing, as the API holds it.
    func value<Value: Decodable>(_ key: Key) throws -> Value? {
        try decodeIfPresent(Value.self, forKey: key)
    }

    func value<Value: Decodable>(_ key: Key, or fallback: Value) throws -> Value {
        try decodeIfPresent(Value.self, forKey: key) ?? fallback
    }
}

/// A number or a name: a port of a Service or of a pod.
package enum IntOrString: Codable, Sendable, Hashable, CustomStringConvertible {
    case int(Int)
    case string(String)

    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        do {
            self = .int(try container.decode(Int.self))
        } catch {
            do {
                self = .string(try container.decode(String.self))
            } catch {
                throw DecodingError.dataCorrupted(
                    DecodingError.Context(
                        codingPath: decoder.codingPath, debugDescription: "expected an integer or a string"))
            }
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .int(let number): try container.encode(number)
        case .string(let text): try container.encode(text)
        }
    }

    package var description: String {
        switch self {
        case .int(let number): String(number)
        case .string(let text): text
        }
    }
}
