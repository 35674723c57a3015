// The codes of this room's diagnostics, in one table from which the documentation prints its page.

package import Model

package enum ControllerCode: String, CaseIterable, Sendable {
    case unreadableObject = "MG180"
    case forbiddenKind = "MG181"
    case statusDispute = "MG182"

    package var name: String {
        switch self {
        case .unreadableObject: "unreadable-object"
        case .forbiddenKind: "forbidden-kind"
        case .statusDispute: "status-dispute"
        }
    }

    package var severity: Severity {
        switch self {
        case .unreadableObject, .forbiddenKind: .error
        case .statusDispute: .warning
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
        }
    }

    func diagnostic(_ problem: String, at place: Place, mend: String, severity: Severity? = nil) -> Diagnostic {
        Diagnostic(severity ?? self.severity, rawValue, name, problem: problem, place: place, mend: mend)
    }
}
