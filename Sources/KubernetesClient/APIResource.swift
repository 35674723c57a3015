// Where each kind lives in the API, and requests as values. No I/O.

package import KubernetesAPI

/// A kind that can be asked for.
package protocol APIResource: KubernetesObject {
    /// Its name in paths.
    static var plural: String { get }
    static var isNamespaced: Bool { get }
}

extension APIResource {
    package static var isNamespaced: Bool { true }

    /// `/apis/networking.k8s.io/v1/namespaces/shop/ingresses/web`. Every part is percent-encoded: a name comes from an
    /// object that somebody else wrote.
    package static func path(namespace: String?, name: String? = nil, subresource: String? = nil) -> String {
        var path = apiVersion.contains("/") ? "/apis/\(apiVersion)" : "/api/\(apiVersion)"
        if isNamespaced, let namespace { path += "/namespaces/" + URLText.encode(namespace) }
        path += "/" + plural
        if let name { path += "/" + URLText.encode(name) }
        if let subresource { path += "/" + subresource }
        return path
    }
}

extension Ingress: APIResource { package static var plural: String { "ingresses" } }
extension IngressClass: APIResource {
    package static var plural: String { "ingressclasses" }
    package static var isNamespaced: Bool { false }
}
extension Service: APIResource { package static var plural: String { "services" } }
extension EndpointSlice: APIResource { package static var plural: String { "endpointslices" } }
extension Secret: APIResource { package static var plural: String { "secrets" } }
extension ConfigMap: APIResource { package static var plural: String { "configmaps" } }
extension Lease: APIResource { package static var plural: String { "leases" } }
extension Event: APIResource { package static var plural: String { "events" } }

/// One request to the API server.
package struct APIRequest: Sendable, Equatable {
    package enum Method: String, Sendable {
        case get = "GET"
        case post = "POST"
        case put = "PUT"
        case patch = "PATCH"
        case delete = "DELETE"
    }

    package struct Parameter: Sendable, Equatable {
        package var name: String
        package var value: String

        package init(_ name: String, _ value: String) {
            self.name = name
            self.value = value
        }
    }

    package var method: Method
    package var path: String
    package var query: [Parameter]
    package var body: [UInt8]?
    package var contentType: String

    package init(
        _ method: Method, _ path: String, query: [Parameter] = [], body: [UInt8]? = nil,
        contentType: String = "application/json"
    ) {
        self.method = method
        self.path = path
        self.query = query
        self.body = body
        self.contentType = contentType
    }

    /// Path and query, as they stand in the request line.
    package var target: String {
        guard !query.isEmpty else { return path }
        return path + "?"
            + query.map { "\(URLText.encode($0.name))=\(URLText.encode($0.value))" }.joined(separator: "&")
    }
}

package enum URLText {
    /// Percent-encodes all but RFC 3986's unreserved characters.
    package static func encode(_ text: String) -> String {
        let digits = Array("0123456789ABCDEF".utf8)
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.utf8.count)
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."),
                UInt8(ascii: "~"):
                bytes.append(byte)
            default:
                bytes.append(UInt8(ascii: "%"))
                bytes.append(digits[Int(byte >> 4)])
                bytes.append(digits[Int(byte & 15)])
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// What is watched: all of a kind, those of one namespace, or a single object.
package struct WatchScope: Sendable, Hashable, CustomStringConvertible {
    /// Nil is every namespace; that needs a ClusterRole.
    package var namespace: String?
    /// One object, by the field selector `metadata.name`, which a Role with `resourceNames` allows.
    package var name: String?
    package var labelSelector: String?

    package init(namespace: String? = nil, name: String? = nil, labelSelector: String? = nil) {
        self.namespace = namespace
        self.name = name
        self.labelSelector = labelSelector
    }

    package var description: String {
        var text = namespace ?? "all namespaces"
        if let name { text += "/\(name)" }
        if let labelSelector { text += " (\(labelSelector))" }
        return text
    }

    package func covers(_ object: ObjectName) -> Bool {
        (namespace == nil || namespace == object.namespace) && (name == nil || name == object.name)
    }

    var selectors: [APIRequest.Parameter] {
        var selectors: [APIRequest.Parameter] = []
        if let name { selectors.append(APIRequest.Parameter("fieldSelector", "metadata.name=\(name)")) }
        if let labelSelector { selectors.append(APIRequest.Parameter("labelSelector", labelSelector)) }
        return selectors
    }
}
