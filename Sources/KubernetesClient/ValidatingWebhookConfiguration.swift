// admissionregistration.k8s.io/v1, as little of it as is needed to make our authority known.

package import KubernetesAPI

package struct ValidatingWebhookConfiguration: APIResource {
    package static let apiVersion = "admissionregistration.k8s.io/v1"
    package static let kind = "ValidatingWebhookConfiguration"
    package static let plural = "validatingwebhookconfigurations"
    package static let isNamespaced = false

    package struct Webhook: Codable, Sendable, Equatable {
        package struct ClientConfig: Codable, Sendable, Equatable {
            package struct Service: Codable, Sendable, Equatable {
                package var namespace: String
                package var name: String

                package init(namespace: String, name: String) {
                    self.namespace = namespace
                    self.name = name
                }
            }

            /// Nil for a webhook by URL, whose certificate is somebody else's.
            package var service: Service?
            package var caBundle: Base64?

            package init(service: Service?, caBundle: Base64? = nil) {
                self.service = service
                self.caBundle = caBundle
            }
        }

        package var name: String
        package var clientConfig: ClientConfig

        package init(name: String, clientConfig: ClientConfig) {
            self.name = name
            self.clientConfig = clientConfig
        }
    }

    package var metadata: ObjectMeta
    package var webhooks: [Webhook]?

    package init(metadata: ObjectMeta, webhooks: [Webhook]) {
        self.metadata = metadata
        self.webhooks = webhooks
    }
}

/// One operation of a JSON patch (RFC 6902) on a text.
package struct JSONPatchOperation: Encodable, Sendable, Equatable {
    package var op: String
    package var path: String
    package var value: String

    package init(op: String, path: String, value: String) {
        self.op = op
        self.path = path
        self.value = value
    }
}

extension APIClient {
    /// A JSON patch (RFC 6902): for lists, which a merge patch would replace whole.
    @discardableResult
    package func patch<Object: APIResource>(
        _ type: Object.Type, namespace: String?, name: String, operations: [JSONPatchOperation]
    ) async throws(APIError) -> Object {
        try await patch(
            type, namespace: namespace, name: name, with: operations, contentType: "application/json-patch+json")
    }
}
