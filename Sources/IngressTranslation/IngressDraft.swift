// What a translation can use again of the one before. Each draft is a matter of one object and the options (a Service port's
// of its slices too), keeps what it was made of, and is used only while that is the same: the answer is the one that would
// be made anew, sooner. Values that are used again share their storage with those of the snapshot before, so that
// comparing the two costs little as well.

internal import KubernetesAPI
internal import Model

/// Empty the first time, and passed on from call to call. Never part of the answer.
package struct TranslationCache: Sendable {
    var options: TranslationOptions?
    /// Of our Ingresses, and their order in the snapshot.
    var ingresses: [ObjectName: IngressDraft] = [:]
    var order: [ObjectName] = []
    var services: [ServicePortName: ServiceDraft] = [:]
    /// In order, as they were the last time: what is nearly sorted is sorted soon.
    var statuses: [IngressStatusUpdate] = []
    var upstreams: [String] = []
    var hosts: [HostPattern] = []

    package init() {}
}

/// An Ingress as far as it can be read by itself.
final class IngressDraft: Sendable {
    struct Rule: Sendable {
        var index: Int
        var host: Result<HostPattern, FieldProblem>
        var paths: [Path]
    }

    struct Path: Sendable {
        var index: Int
        var pattern: Result<PathPattern, FieldProblem>
        var backend: IngressBackend
        /// `rules[0].http.paths[1]`
        var rule: String
    }

    /// What its annotations say but of scripts, where that is all there is to know: no Secret, no place in a file.
    struct Saying: Sendable {
        var policy: RoutePolicy
        var balance: Upstream.Balance?
        var backend: BackendSettings
        var clients: ClientAnnotations
        var diagnostics: [Diagnostic]
    }

    let spec: IngressSpec
    let annotations: [String: String]
    let reference: ObjectReference
    /// What it refers to.
    let references: ObjectReferences
    let rules: [Rule]
    /// The annotations with scripts, by key.
    let scriptTexts: [String: String]
    /// What stands in them; nil where lines of a file are wanted with it.
    let scripts: Result<[ScriptItem], ScriptProblem>?
    let saying: Saying?

    /// - Parameter isInFile: the Ingress has a place in a file.
    init(_ ingress: Ingress, _ name: ObjectName, foreignPrefix: String, isInFile: Bool) {
        spec = ingress.spec
        annotations = ingress.metadata.annotations
        reference = ObjectReference(kind: Ingress.kind, namespace: name.namespace, name: name.name)
        references = ObjectReferences(of: ingress, foreignPrefix: foreignPrefix)
        saying = nil
        let texts = ScriptAnnotations.texts(of: ingress)
        scriptTexts = texts
        scripts =
            texts.isEmpty || isInFile
            ? nil
            : Result { () throws(ScriptProblem) in
                try ScriptAnnotations.read(texts, namespace: name.namespace) { _, _ in 1 }
            }
        rules = ingress.spec.rules.enumerated().map { ruleIndex, rule in
            Rule(
                index: ruleIndex,
                host: Result { () throws(FieldProblem) in try HostSyntax.pattern(rule.host) },
                paths: (rule.http?.paths ?? []).enumerated().map { pathIndex, path in
                    Path(
                        index: pathIndex,
                        pattern: Result { () throws(FieldProblem) in try PathSyntax.pattern(path.path, path.pathType) },
                        backend: path.backend, rule: "rules[\(ruleIndex)].http.paths[\(pathIndex)]")
                })
        }
    }

    init(_ draft: IngressDraft, saying: Saying) {
        spec = draft.spec
        annotations = draft.annotations
        reference = draft.reference
        references = draft.references
        rules = draft.rules
        scriptTexts = draft.scriptTexts
        scripts = draft.scripts
        self.saying = saying
    }

    /// The same would come of this Ingress.
    func stands(_ ingress: Ingress) -> Bool {
        spec == ingress.spec && annotations == ingress.metadata.annotations
    }
}
