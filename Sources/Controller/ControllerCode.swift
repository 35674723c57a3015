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

    func diagnostic(_ problem: String, at place: Place, mend: String) -> Diagnostic {
        Diagnostic(severity, rawValue, name, problem: problem, place: place, mend: mend)
    }
}
