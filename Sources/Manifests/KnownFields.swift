// The fields that objects have. What the API server's strict validation would refuse is ignored here, as by the API itself,
// but not in silence: `ingressClassNam` would be served by nobody, and nobody would know why.

internal import KubernetesAPI

/// What may stand in a value.
indirect enum KnownFields: Sendable {
    /// Anything: what is in there is nothing to us, or is judged where it is read.
    case any
    case map([String: KnownFields])
    case list(KnownFields)

    /// A field that there is not.
    struct Unknown {
        var path: FieldPath
        var key: String
        var position: TextPosition
        /// What there is at its place.
        var known: [String]
    }

    /// Nil for kinds whose fields are not known here.
    static func of(_ kind: String) -> KnownFields? {
        guard let own = kinds[kind] else { return nil }
        return .map(own.merging(common) { own, _ in own })
    }

    private static let common: [String: KnownFields] = [
        "apiVersion": .any, "kind": .any, "status": .any,
        "metadata": keys([
            "name", "generateName", "namespace", "labels", "annotations", "uid", "resourceVersion", "generation",
            "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "ownerReferences", "finalizers",
            "managedFields", "selfLink",
        ]),
    ]

    private static let backend: KnownFields = .map([
        "resource": .any, "service": .map(["name": .any, "port": keys(["name", "number"])]),
    ])

    private static let kinds: [String: [String: KnownFields]] = [
        Ingress.kind: [
            "spec": .map([
                "ingressClassName": .any, "defaultBackend": backend,
                "rules": .list(
                    .map([
                        "host": .any,
                        "http": .map(["paths": .list(.map(["path": .any, "pathType": .any, "backend": backend]))]),
                    ])),
                "tls": .list(keys(["hosts", "secretName"])),
            ])
        ],
        IngressClass.kind: ["spec": keys(["controller", "parameters"])],
        Service.kind: ["spec": .any],
        EndpointSlice.kind: [
            "addressType": .any,
            "endpoints": .list(
                .map([
                    "addresses": .any, "conditions": keys(["ready", "serving", "terminating"]),
                    "deprecatedTopology": .any, "hints": .any, "hostname": .any, "nodeName": .any, "targetRef": .any,
                    "zone": .any,
                ])),
            "ports": .list(keys(["name", "protocol", "port", "appProtocol"])),
        ],
        Secret.kind: ["data": .any, "stringData": .any, "type": .any, "immutable": .any],
        ConfigMap.kind: ["data": .any, "binaryData": .any, "immutable": .any],
    ]

    private static func keys(_ names: [String]) -> KnownFields {
        .map(Dictionary(uniqueKeysWithValues: names.map { ($0, .any) }))
    }

    /// The fields in `value` that there are not.
    func unknown(in value: PlacedValue, at path: FieldPath = FieldPath()) -> [Unknown] {
        switch self {
        case .any: []
        case .list(let item):
            (value.items ?? []).enumerated().flatMap { item.unknown(in: $1, at: path + $0) }
        case .map(let fields):
            (value.entries ?? []).flatMap { entry -> [Unknown] in
                let place = path + entry.key
                guard let field = fields[entry.key] else {
                    return [
                        Unknown(path: place, key: entry.key, position: entry.keyPosition, known: fields.keys.sorted())
                    ]
                }
                return field.unknown(in: entry.value, at: place)
            }
        }
    }
}
