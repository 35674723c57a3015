// The codes of this room's diagnostics, in one table from which the documentation prints its page.

package import Model

package enum ControllerCode: String, CaseIterable, Sendable {
    case unreadableObject = "MG180"
    case forbiddenKind = "MG181"
    case statusDispute = "MG182"
    case tooManyReferences = "MG188"
    case staleKind = "MG189"

    package var name: String {
        switch self {
        case .unreadableObject: "unreadable-object"
        case .forbiddenKind: "forbidden-kind"
        case .statusDispute: "status-dispute"
        case .tooManyReferences: "too-many-references"
        case .staleKind: "stale-kind"
        }
    }

    package var severity: Severity {
        switch self {
        case .unreadableObject, .forbiddenKind, .tooManyReferences: .error
        case .statusDispute, .staleKind: .warning
        }
    }

    /// What the finding means, for the documentation.
    package var meaning: String {
        switch self {
        case .unreadableObject:
            "An object of the API server is not as Moongate reads it; its last good version stays in force."
        case .forbiddenKind:
            "The role does not allow a kind to be listed and watched. Without Ingresses, Services or EndpointSlices nothing can be served and readiness stays off; all else goes on without it."
        case .statusDispute: "Another writer keeps changing the status of an Ingress; it is left alone for an hour."
        case .tooManyReferences:
            "A namespace refers to more Secrets and ConfigMaps than there are watches for (1,000 of one namespace, 4,000 in all); the rest of them is not read."
        case .staleKind:
            "The API server has not answered for a kind for a minute; what was known of it last is served."
        }
    }

    func diagnostic(_ problem: String, at place: Place, mend: String, severity: Severity? = nil) -> Diagnostic {
        Diagnostic(severity ?? self.severity, rawValue, name, problem: problem, place: place, mend: mend)
    }
}
