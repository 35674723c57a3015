// admission.k8s.io/v1: what the API server asks before it takes an object, and what it is told.

import FoundationEssentials
internal import KubernetesAPI

/// A question that can't be answered because it is none.
package struct AdmissionProblem: Error, Sendable, Equatable {
    package var problem: String

    package init(_ problem: String) { self.problem = problem }
}

/// The question, as far as an answer needs it.
struct AdmissionQuestion: Sendable {
    enum Subject: Sendable {
        case ingress(Ingress)
        case configMap(ConfigMap)
        /// Of a kind that is ours, and not as the API has it.
        case unreadable(String)
        /// Deleted, or of a kind that we have no opinion on.
        case other
    }

    static let apiVersion = "admission.k8s.io/v1"

    var uid: String
    var subject: Subject
}

extension AdmissionQuestion: Decodable {
    private enum CodingKeys: String, CodingKey { case apiVersion, kind, request }
    private enum RequestKeys: String, CodingKey { case uid, kind, operation, namespace, name, object }
    private struct Kind: Decodable {
        var group: String?
        var kind: String
    }

    init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        guard try fields.decode(String.self, forKey: .kind) == "AdmissionReview",
            try fields.decode(String.self, forKey: .apiVersion) == Self.apiVersion
        else {
            throw DecodingError.dataCorruptedError(
                forKey: .kind, in: fields, debugDescription: "this is no AdmissionReview of \(Self.apiVersion)")
        }
        let request = try fields.nestedContainer(keyedBy: RequestKeys.self, forKey: .request)
        uid = try request.decode(String.self, forKey: .uid)
        let kind = try request.decode(Kind.self, forKey: .kind)
        let operation = try request.decode(String.self, forKey: .operation)
        guard operation == "CREATE" || operation == "UPDATE" else {
            subject = .other
            return
        }
        do {
            switch (kind.group ?? "", kind.kind) {
            case ("networking.k8s.io", Ingress.kind):
                subject = .ingress(Self.named(try request.decode(Ingress.self, forKey: .object), request))
            case ("", ConfigMap.kind):
                subject = .configMap(Self.named(try request.decode(ConfigMap.self, forKey: .object), request))
            case _: subject = .other
            }
        } catch let error as DecodingError {
            subject = .unreadable(Self.text(of: error))
        }
    }

    /// An object that is only being made may lack its namespace; the request has it.
    private static func named<Object: KubernetesObject>(
        _ object: Object, _ request: KeyedDecodingContainer<RequestKeys>
    ) -> Object {
        var object = object
        if object.metadata.namespace.isEmpty {
            object.metadata.namespace = (try? request.decode(String.self, forKey: .namespace)) ?? ""
        }
        if object.metadata.name.isEmpty {
            object.metadata.name = (try? request.decode(String.self, forKey: .name)) ?? ""
        }
        return object
    }

    private static func text(of error: DecodingError) -> String {
        let context =
            switch error {
            case .typeMismatch(_, let context), .valueNotFound(_, let context), .keyNotFound(_, let context),
                .dataCorrupted(let context):
                context
            @unknown default: DecodingError.Context(codingPath: [], debugDescription: "is not readable")
            }
        let path = context.codingPath.dropFirst(2).map { key in key.intValue.map { "[\($0)]" } ?? key.stringValue }
        return path.isEmpty ? context.debugDescription : "\(path.joined(separator: ".")): \(context.debugDescription)"
    }
}

/// The answer.
struct AdmissionAnswer: Encodable, Sendable, Equatable {
    struct Response: Encodable, Sendable, Equatable {
        struct Status: Encodable, Sendable, Equatable {
            var code: Int
            var reason: String
            var message: String
        }

        var uid: String
        var allowed: Bool
        var status: Status?
        /// Shown by kubectl, whether the object is taken or not.
        var warnings: [String]?
    }

    var apiVersion = AdmissionQuestion.apiVersion
    var kind = "AdmissionReview"
    var response: Response

    private enum CodingKeys: String, CodingKey { case apiVersion, kind, response }

    /// - Parameter refusals: why the object is not taken; with none it is.
    init(uid: String, refusals: [String], warnings: [String]) {
        var response = Response(uid: uid, allowed: refusals.isEmpty)
        if !refusals.isEmpty {
            var message = refusals.prefix(Self.mostRefusals).joined(separator: "\n")
            if refusals.count > Self.mostRefusals { message += "\nand \(refusals.count - Self.mostRefusals) more" }
            response.status = Response.Status(code: 422, reason: "Invalid", message: message)
        }
        if !warnings.isEmpty { response.warnings = warnings.prefix(Self.mostWarnings).map(Self.short) }
        self.response = response
    }

    private static let mostRefusals = 20
    private static let mostWarnings = 12

    /// The API server cuts a warning off after 256 characters, and all of them after 4,096.
    private static func short(_ text: String) -> String {
        text.count <= 256 ? text : "\(text.prefix(253))..."
    }
}
