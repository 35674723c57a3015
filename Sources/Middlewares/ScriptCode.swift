// What is found of scripts when they are prepared, in one table from which the documentation prints its page.

package import Model

/// The codes of this room's diagnostics.
package enum ScriptCode: String, CaseIterable, Sendable {
    case unknownBackend = "MG330"
    case shadowUnavailable = "MG331"
    case functionUnavailable = "MG332"
    case failed = "MG333"
    case badSchema = "MG334"
    case badArgument = "MG335"
    case waits = "MG336"
    case noPhase = "MG340"
    case unknownFunction = "MG341"
    case unknownMember = "MG342"

    package var name: String {
        switch self {
        case .unknownBackend: "unknown-script-backend"
        case .shadowUnavailable: "shadow-unavailable"
        case .functionUnavailable: "script-function-unavailable"
        case .failed: "script-failed"
        case .badSchema: "bad-script-schema"
        case .badArgument: "bad-script-argument"
        case .waits: "script-waits"
        case .noPhase: "script-without-phase"
        case .unknownFunction: "unknown-script-function"
        case .unknownMember: "unknown-script-member"
        }
    }

    package var severity: Severity {
        switch self {
        case .unknownBackend, .shadowUnavailable, .failed, .badSchema, .badArgument: .error
        case .functionUnavailable, .waits, .noPhase, .unknownFunction, .unknownMember: .warning
        }
    }

    /// What the finding means, for the documentation.
    package var meaning: String {
        switch self {
        case .unknownBackend:
            "A script names a backend that does not exist or is not granted. Its last good version stays; without one, or where the Service was taken away, it fails where it chooses it."
        case .shadowUnavailable: "A script is to run in shadow, which is not offered yet; it does not run."
        case .functionUnavailable: "A script uses what the API has no function for yet."
        case .failed: "A script fails when it is loaded or set up; its last good version stays."
        case .badSchema: "What a script says of itself cannot be used; its last good version stays."
        case .badArgument: "An argument given to a script is not as its schema asks; its last good version stays."
        case .waits: "A script is not loaded yet: those of its namespace have used their share of the time."
        case .noPhase: "A script has no phase that a request runs through; it does nothing."
        case .unknownFunction: "A script uses a name of `moongate` that there is not; it fails where it calls it."
        case .unknownMember: "A script reads a member of `req`, `res` or `ctx` that there is not; it is nil."
        }
    }

    func diagnostic(_ problem: String, at place: Place, mend: String) -> Diagnostic {
        Diagnostic(severity, rawValue, name, problem: problem, place: place, mend: mend)
    }
}
