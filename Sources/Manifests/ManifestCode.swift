// The codes of this room's diagnostics, in one table from which the documentation prints its page.

package import Model

package enum ManifestCode: String, CaseIterable, Sendable {
    case syntax = "MG101"
    case badField = "MG102"
    case unknownKind = "MG103"
    case otherVersion = "MG104"
    case duplicateObject = "MG105"
    case badName = "MG106"
    case unreadableFile = "MG107"
    case linkOutside = "MG108"
    case keptLastGood = "MG109"
    case notAnObject = "MG110"
    case tooMuch = "MG111"
    case folderGone = "MG112"
    case polling = "MG113"
    case beingWritten = "MG114"
    case emptyFile = "MG115"
    case unknownField = "MG116"
    case nothingServed = "MG117"

    package var name: String {
        switch self {
        case .syntax: "bad-syntax"
        case .badField: "bad-field"
        case .unknownKind: "unknown-kind"
        case .otherVersion: "other-version"
        case .duplicateObject: "duplicate-object"
        case .badName: "bad-name"
        case .unreadableFile: "unreadable-file"
        case .linkOutside: "link-outside"
        case .keptLastGood: "kept-last-good"
        case .notAnObject: "not-an-object"
        case .tooMuch: "too-much"
        case .folderGone: "folder-gone"
        case .polling: "polling"
        case .beingWritten: "being-written"
        case .emptyFile: "empty-file"
        case .unknownField: "unknown-field"
        case .nothingServed: "nothing-served"
        }
    }

    package var severity: Severity {
        switch self {
        case .syntax, .badField, .duplicateObject, .badName, .unreadableFile, .tooMuch, .folderGone: .error
        case .otherVersion, .linkOutside, .keptLastGood, .notAnObject, .beingWritten, .emptyFile, .unknownField,
            .nothingServed:
            .warning
        case .unknownKind, .polling: .note
        }
    }

    /// What the finding means, for the documentation.
    package var meaning: String {
        switch self {
        case .syntax: "A document is not valid YAML or JSON."
        case .badField: "A field of an object is missing or has the wrong type, so the object is not taken in."
        case .unknownKind: "An object of a kind that Moongate does not use."
        case .otherVersion: "An object of a kind that Moongate uses, in an API version that it does not read."
        case .duplicateObject: "The same object is written down twice; the first one counts."
        case .badName: "An object has no name, or one that Kubernetes would refuse."
        case .unreadableFile: "A file cannot be read: permissions, size, or not UTF-8."
        case .linkOutside: "A symbolic link leads out of the manifest folder and is not followed."
        case .keptLastGood: "A file became faulty; what it held when it was last good keeps serving."
        case .notAnObject: "A document is no Kubernetes object: it has no apiVersion or no kind."
        case .tooMuch: "The folder holds more than is taken in."
        case .folderGone: "The manifest folder cannot be read; what it held keeps serving."
        case .polling: "Changes are found by looking at the folder from time to time, as it cannot be watched."
        case .beingWritten:
            "A file has been open for writing for a while; its last state keeps serving until it is closed."
        case .emptyFile: "A file has become empty; what it last held keeps serving until it is filled or deleted."
        case .unknownField: "A field that objects of its kind do not have; it has no effect."
        case .nothingServed: "Nothing in the folder makes a route: every request is answered with 404."
        }
    }

    package func diagnostic(
        _ problem: String, at place: Place, mend: String, severity: Severity? = nil
    ) -> Diagnostic {
        Diagnostic(severity ?? self.severity, rawValue, name, problem: problem, place: place, mend: mend)
    }
}
