// What the loop against a cluster says and hears: leases, events, watch events, and the API's own answers.

/// coordination.k8s.io/v1 Lease: who leads.
package struct Lease: KubernetesObject {
    package static let apiVersion = "coordination.k8s.io/v1"
    package static let kind = "Lease"

    package var apiVersion = Lease.apiVersion
    package var kind = Lease.kind
    package var metadata: ObjectMeta
    package var spec: LeaseSpec

    private enum CodingKeys: String, CodingKey { case apiVersion, kind, metadata, spec }

    package init(metadata: ObjectMeta, spec: LeaseSpec = LeaseSpec()) {
        self.metadata = metadata
        self.spec = spec
    }

    package init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        metadata = try fields.value(.metadata, or: ObjectMeta())
        spec = try fields.value(.spec, or: LeaseSpec())
    }
}

package struct LeaseSpec: Codable, Sendable, Equatable {
    package var holderIdentity: String?
    package var leaseDurationSeconds: Int?
    package var acquireTime: Timestamp?
    package var renewTime: Timestamp?
    package var leaseTransitions: Int?

    package init() {}
}

/// events.k8s.io/v1 Event: what `kubectl describe` shows below an object.
package struct Event: KubernetesObject {
    package static let apiVersion = "events.k8s.io/v1"
    package static let kind = "Event"

    package var apiVersion = Event.apiVersion
    package var kind = Event.kind
    package var metadata: ObjectMeta
    package var eventTime: Timestamp?
    package var reportingController: String?
    package var reportingInstance: String?
    package var action: String?
    package var reason: String?
    /// `Normal` or `Warning`.
    package var type: String?
    package var note: String?
    package var regarding: EventObjectReference?
    package var series: EventSeries?

    private enum CodingKeys: String, CodingKey {
        case apiVersion, kind, metadata, eventTime, reportingController, reportingInstance, action, reason, type, note
        case regarding, series
    }

    package init(metadata: ObjectMeta) { self.metadata = metadata }

    package init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        metadata = try fields.value(.metadata, or: ObjectMeta())
        eventTime = try fields.value(.eventTime)
        reportingController = try fields.value(.reportingController)
        reportingInstance = try fields.value(.reportingInstance)
        action = try fields.value(.action)
        reason = try fields.value(.reason)
        type = try fields.value(.type)
        note = try fields.value(.note)
        regarding = try fields.value(.regarding)
        series = try fields.value(.series)
    }
}

package struct EventObjectReference: Codable, Sendable, Equatable {
    package var apiVersion: String?
    package var kind: String?
    package var namespace: String?
    package var name: String?
    package var uid: String?
    package var resourceVersion: String?

    package init() {}
}

package struct EventSeries: Codable, Sendable, Equatable {
    package var count: Int
    package var lastObservedTime: Timestamp

    package init(count: Int, lastObservedTime: Timestamp) {
        self.count = count
        self.lastObservedTime = lastObservedTime
    }
}

/// meta/v1 Status: why the API server did not do as asked.
package struct Status: Codable, Sendable, Equatable {
    package var status: String?
    package var code: Int?
    package var reason: String?
    package var message: String?
    package var details: StatusDetails?

    package init() {}

    /// The version that a watch continued from is too old: list again.
    package var isExpired: Bool { code == 410 || reason == "Expired" || reason == "Gone" }
}

package struct StatusDetails: Codable, Sendable, Equatable {
    package var name: String?
    package var kind: String?
    package var retryAfterSeconds: Int?
}

/// One line of a watch.
package enum WatchEvent<Object: KubernetesObject>: Decodable, Sendable, Equatable {
    case added(Object)
    case modified(Object)
    case deleted(Object)
    /// Nothing changed up to this version.
    case bookmark(resourceVersion: String)
    case error(Status)

    private enum CodingKeys: String, CodingKey { case type, object }
    private struct Bookmark: Decodable { var metadata: ListMeta }

    package init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        switch try fields.decode(String.self, forKey: .type) {
        case "ADDED": self = .added(try fields.decode(Object.self, forKey: .object))
        case "MODIFIED": self = .modified(try fields.decode(Object.self, forKey: .object))
        case "DELETED": self = .deleted(try fields.decode(Object.self, forKey: .object))
        case "BOOKMARK":
            let version = try fields.decode(Bookmark.self, forKey: .object).metadata.resourceVersion
            guard let version else {
                throw DecodingError.dataCorruptedError(
                    forKey: .object, in: fields, debugDescription: "a bookmark without a resourceVersion")
            }
            self = .bookmark(resourceVersion: version)
        case "ERROR": self = .error(try fields.decode(Status.self, forKey: .object))
        case let other:
            throw DecodingError.dataCorruptedError(
                forKey: .type, in: fields, debugDescription: "\"\(other)\" is no kind of watch event")
        }
    }
}

/// A merge patch (RFC 7386) of an Ingress's status subresource, with the version that it was computed from, so that
/// two writers cannot undo each other unseen.
package struct IngressStatusPatch: Encodable, Sendable, Equatable {
    package struct Metadata: Encodable, Sendable, Equatable {
        package var resourceVersion: String?
    }

    package var metadata: Metadata
    package var status: IngressStatus

    package init(resourceVersion: String?, status: IngressStatus) {
        metadata = Metadata(resourceVersion: resourceVersion)
        self.status = status
    }
}
