// What Moongate says when something in its input is wrong. A diagnostic is a value: the same one is printed by
// `moongate check`, shown on the admin port, written as a Kubernetes Event and logged.

/// How much a diagnostic matters.
package enum Severity: String, Sendable, Hashable, Comparable, Codable, CaseIterable {
    /// Nothing is wrong; something the author may want to know.
    case note
    /// Traffic is served, but not all of what was asked for is in force.
    case warning
    /// What the diagnostic speaks of is not in force at all.
    case error

    private var rank: Int {
        switch self {
        case .note: 0
        case .warning: 1
        case .error: 2
        }
    }

    package static func < (a: Severity, b: Severity) -> Bool { a.rank < b.rank }
}

/// Names one Kubernetes object. Cluster-scoped objects have an empty namespace.
package struct ObjectReference: Sendable, Hashable, Comparable, Codable, CustomStringConvertible {
    package var kind: String
    package var namespace: String
    package var name: String

    package init(kind: String, namespace: String, name: String) {
        self.kind = kind
        self.namespace = namespace
        self.name = name
    }

    /// `Ingress shop/web`, or `IngressClass moongate` for an object without a namespace.
    package var description: String { namespace.isEmpty ? "\(kind) \(name)" : "\(kind) \(namespace)/\(name)" }

    package static func < (a: Self, b: Self) -> Bool {
        (a.kind, a.namespace, a.name) < (b.kind, b.namespace, b.name)
    }
}

/// Where a diagnostic points: an object and a field of it, a line of a file, or both.
package struct Place: Sendable, Hashable, Codable, CustomStringConvertible {
    package var object: ObjectReference?
    /// A path inside the object (`spec.rules[0].host`, `annotation proxy-body-size`).
    package var field: String?
    /// A file, relative to the manifest folder.
    package var file: String?
    /// Line in `file`, from 1.
    package var line: Int?

    package init(object: ObjectReference? = nil, field: String? = nil, file: String? = nil, line: Int? = nil) {
        self.object = object
        self.field = field
        self.file = file
        self.line = line
    }

    package var description: String {
        var parts: [String] = []
        if let object { parts.append(object.description) }
        if let field { parts.append(field) }
        if let file { parts.append(line.map { "\(file):\($0)" } ?? file) }
        return parts.isEmpty ? "(no place)" : parts.joined(separator: ", ")
    }
}

/// A finding about input: **problem, place, mend**, with a stable code (`MG142`) and a short name (`bad-size`).
package struct Diagnostic: Sendable, Hashable, Codable, CustomStringConvertible {
    package var severity: Severity
    /// Stable; never reused for another finding.
    package var code: String
    package var name: String
    package var problem: String
    package var place: Place
    /// What to write instead, and what holds until then.
    package var mend: String

    package init(
        _ severity: Severity, _ code: String, _ name: String, problem: String, place: Place, mend: String
    ) {
        self.severity = severity
        self.code = code
        self.name = name
        self.problem = problem
        self.place = place
        self.mend = mend
    }

    /// Four lines, as HOUSE.md shows them.
    package var description: String {
        """
        \(severity.rawValue) \(code) \(name)
          problem  \(problem)
          place    \(place)
          mend     \(mend)
        """
    }
}

/// What to do, and what holds in the meantime.
package func untilThen(_ mend: String, _ state: String) -> String {
    mend.hasSuffix("?") ? "\(mend) Until then \(state)" : "\(mend); until then \(state)"
}
