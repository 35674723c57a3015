// Which Secrets and ConfigMaps an Ingress refers to: in a cluster, these are watched and no others.

package import KubernetesAPI
internal import Model

package struct ObjectReferences: Sendable, Hashable {
    package var secrets: Set<ObjectName> = []
    package var configMaps: Set<ObjectName> = []

    package init() {}

    package var isEmpty: Bool { secrets.isEmpty && configMaps.isEmpty }

    package mutating func formUnion(_ other: ObjectReferences) {
        secrets.formUnion(other.secrets)
        configMaps.formUnion(other.configMaps)
    }

    /// Those of one Ingress. Annotations that can't be read refer to nothing: what was last good is kept by its source.
    /// - Parameter foreignPrefix: of the ingress-nginx annotations, as in `TranslationOptions`.
    package init(of ingress: Ingress, foreignPrefix: String = TranslationOptions().foreignPrefix) {
        let namespace = ingress.metadata.namespace
        // A Secret of another namespace is never asked for.
        if let text = AnnotationTable.text(
            AnnotationTable.proxySSLSecret, of: ingress.metadata, foreignPrefix: foreignPrefix),
            let name = BackendProtocol.secretName(text), name.namespace == namespace
        {
            secrets.insert(name)
        }
        if let text = AnnotationTable.text(
            AnnotationTable.authTLSSecret, of: ingress.metadata, foreignPrefix: foreignPrefix),
            let name = ClientAnnotations.secret(text.trimmed, in: namespace)
        {
            secrets.insert(name)
        }
        for tls in ingress.spec.tls {
            if let secret = tls.secretName, !secret.isEmpty {
                secrets.insert(ObjectName(namespace: namespace, name: secret))
            }
        }
        let texts = ScriptAnnotations.texts(of: ingress)
        guard !texts.isEmpty else { return }
        let items: [ScriptItem]
        do throws(ScriptProblem) {
            items = try ScriptAnnotations.read(texts, namespace: namespace) { _, _ in 1 }
        } catch {
            return
        }
        for item in items {
            add(item.reference)
            if let shadow = item.shadow, let reference = try? ScriptReference(shadow, namespace: namespace) {
                add(reference)
            }
            addSecrets(in: item.arguments, namespace: namespace)
        }
    }

    private mutating func add(_ reference: ScriptReference) {
        if case .configMap(let name, _) = reference { configMaps.insert(name) }
    }

    /// `{secret: keys/jwks.json}`, at any depth: a Secret of the Ingress's own namespace, and a key in it.
    private mutating func addSecrets(in value: ConfigValue, namespace: String) {
        switch value {
        case .null, .bool, .integer, .number, .string: return
        case .list(let items): for item in items { addSecrets(in: item, namespace: namespace) }
        case .map(let entries):
            for entry in entries {
                if entry.key == "secret", case .string(let text) = entry.value,
                    let name = text.split(separator: "/").first, !name.isEmpty
                {
                    secrets.insert(ObjectName(namespace: namespace, name: String(name)))
                } else {
                    addSecrets(in: entry.value, namespace: namespace)
                }
            }
        }
    }
}
