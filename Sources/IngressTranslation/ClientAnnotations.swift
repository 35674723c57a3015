// What an Ingress asks of its clients' certificates (`auth-tls-*`), and which host gets it. As in ingress-nginx it holds
// for the whole host, whichever Ingress its paths are from; and what can't be checked lets nobody through.

internal import KubernetesAPI
internal import Model

/// The annotations of one Ingress, as they were read.
package struct ClientAnnotations: Sendable, Equatable {
    /// `namespace/name`, as it was written.
    var secret: String?
    var mode = ClientAuthentication.Mode.required
    var depth = 1
    var errorPage: String?
    var passesCertificate = false
    var subjectPattern: String?
    /// One of them can't be read, and leaving it out would let in who was meant to stay out.
    var isBroken = false
    /// The first of them that is there, as it was written.
    var key: String?

    /// A URL, or a path that can be served: canonical, and printable.
    static func errorPage(_ text: String) throws(ValueProblem) -> String {
        let problem = ValueProblem(
            wanted: "this is a URL or a path of the host", example: "https://shop.test/no-certificate")
        guard text.utf8.count <= 2048, text.utf8.allSatisfy({ $0 > 32 && $0 < 127 }) else { throw problem }
        if text.hasPrefix("/") {
            guard !text.contains("?"), !text.contains("#"), !text.hasPrefix("//") else { throw problem }
            return text
        }
        let scheme = ["http://", "https://"].first { text.lowercased().hasPrefix($0) }
        guard let scheme, text.utf8.count > scheme.utf8.count else { throw problem }
        return text
    }

    /// The Secret that an Ingress of `namespace` may refer to; nil unless it is `namespace/name` of that namespace.
    static func secret(_ text: String, in namespace: String) -> ObjectName? {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, parts[0] == namespace, !parts[1].isEmpty, parts[1].utf8.count <= 253,
            parts[1].utf8.allSatisfy({ (97...122).contains($0) || (48...57).contains($0) || "-.".utf8.contains($0) })
        else { return nil }
        return ObjectName(namespace: namespace, name: String(parts[1]))
    }
}
