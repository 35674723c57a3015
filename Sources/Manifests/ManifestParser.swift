// The first step of a folder's change: the text of one file becomes typed objects. Each document stands for itself: what
// is wrong with one is said with its line, and the others are taken in.

package import KubernetesAPI
package import Model

/// An object and where it was written.
package struct ManifestObject: Sendable, Equatable {
    package var object: ClusterObject
    package var origin: ObjectOrigin
}

/// What one file holds.
package struct ParsedFile: Sendable, Equatable {
    package var objects: [ManifestObject] = []
    package var diagnostics: [Diagnostic] = []
    /// Something in it could not be taken in, so it may hold less than its author meant.
    package var isBroken = false

    package init() {}
}

package struct ManifestParser {
    private let file: String
    private var result = ParsedFile()

    /// Parses the text of a file; its name tells JSON (`.json`) from YAML. `file` is what diagnostics call it.
    package static func parse(_ text: String, file: String) -> ParsedFile {
        var parser = ManifestParser(file: file)
        if file.lowercased().hasSuffix(".json") {
            parser.readJSON(text)
        } else {
            parser.readYAML(text)
        }
        return parser.result
    }

    private init(file: String) { self.file = file }

    private mutating func readJSON(_ text: String) {
        guard text.utf8.contains(where: { $0 > 0x20 }) else { return }
        do throws(FieldFault) {
            take(try JSONReader.read(text))
        } catch {
            refuseSyntax(error, format: "JSON")
        }
    }

    private mutating func readYAML(_ text: String) {
        for document in YAMLReader.split(text) {
            do throws(FieldFault) {
                if let value = try YAMLReader.read(document.text, firstLine: document.firstLine) { take(value) }
            } catch {
                refuseSyntax(error, format: "YAML")
            }
        }
    }

    private mutating func refuseSyntax(_ fault: FieldFault, format: String) {
        result.isBroken = true
        report(
            .syntax, "the document is not valid \(format): \(fault.problem) (column \(fault.position.column))",
            at: Place(file: file, line: fault.position.line),
            mend: "correct this line; the other documents of the file are not affected")
    }

    private mutating func report(
        _ code: ManifestCode, _ problem: String, at place: Place, mend: String, severity: Severity? = nil
    ) {
        result.diagnostics.append(code.diagnostic(problem, at: place, mend: mend, severity: severity))
    }

    private mutating func take(
        _ value: PlacedValue, listedAs listed: (apiVersion: String, kind: String)? = nil, depth: Int = 0
    ) {
        let place = Place(file: file, line: value.position.line)
        guard value.content != .null else { return }
        guard value.entries != nil else {
            result.isBroken = true
            return report(
                .notAnObject, "the document is \(value.kindName), not a Kubernetes object", at: place,
                mend: "write an object with apiVersion, kind and metadata, or move the file out of the folder")
        }
        guard let apiVersion = value["apiVersion"]?.string ?? listed?.apiVersion,
            let kind = value["kind"]?.string ?? listed?.kind
        else {
            result.isBroken = true
            return report(
                .notAnObject, "the document has no apiVersion or no kind", at: place,
                mend: "write both, or move the file out of the folder if it is no manifest")
        }
        if kind.hasSuffix("List"), let items = value["items"]?.items {
            guard depth < 4 else {
                result.isBroken = true
                return report(.badField, "lists within lists within lists", at: place, mend: "write one flat list")
            }
            let itemKind = String(kind.dropLast(4))
            for item in items {
                take(item, listedAs: itemKind.isEmpty ? nil : (apiVersion, itemKind), depth: depth + 1)
            }
            return
        }
        let name = value["metadata"]?["name"]?.string
        var reference: ObjectReference?
        if let name {
            reference = ObjectReference(
                kind: kind, namespace: value["metadata"]?["namespace"]?.string ?? "default", name: name)
        }
        switch ClusterObject.recognise(apiVersion: apiVersion, kind: kind) {
        case .unknown:
            let kinds = ClusterObject.kinds
            // Of the same group only: a Service of another (Knative's, say) is no slip.
            let meant = kinds.contains(kind) ? nil : Spelling.nearest(to: kind, among: kinds)
            let isSlip = meant.map { ClusterObject.recognise(apiVersion: apiVersion, kind: $0) != .unknown } ?? false
            if isSlip { result.isBroken = true }
            report(
                .unknownKind, "\(apiVersion) \(kind)\(name.map { " \"\($0)\"" } ?? "") is not used", at: place,
                mend: isSlip
                    ? untilThen("did you mean \"kind: \(meant ?? "")\"?", "the object is ignored")
                    : "nothing to do; Moongate reads \(kinds.joined(separator: ", "))",
                severity: isSlip ? .warning : nil)
        case .otherVersion(let expected):
            report(
                .otherVersion, "\(kind) in the version \(apiVersion) is not read",
                at: Place(object: reference, file: file, line: value.position.line),
                mend: "write apiVersion: \(expected); until then the object is ignored")
        case .known:
            decode(value, kind: kind, reference: reference)
        }
    }

    private mutating func decode(_ value: PlacedValue, kind: String, reference: ObjectReference?) {
        // First, because a slip is often why another field is missing.
        for field in KnownFields.of(kind)?.unknown(in: value).prefix(8) ?? [] {
            report(
                .unknownField, "there is no field \"\(field.path)\"",
                at: Place(object: reference, field: field.path.description, file: file, line: field.position.line),
                mend: untilThen(
                    Spelling.nearest(to: field.key, among: field.known).map { "did you mean \"\($0)\"?" }
                        ?? "delete it; there are \(field.known.joined(separator: ", "))", "it has no effect"))
        }
        do throws(FieldFault) {
            guard var object = try ClusterObject.decode(kind: kind, value) else { return }
            if object.isClusterScoped {
                object.metadata.namespace = ""
            } else if object.metadata.namespace.isEmpty {
                object.metadata.namespace = "default"
            }
            if let (field, problem) = Self.nameProblem(object) {
                result.isBroken = true
                let path = FieldPath([.key("metadata"), .key(field)])
                return report(
                    .badName, problem,
                    at: Place(
                        object: reference, field: path.description, file: file, line: value.position(of: path).line),
                    mend: "use lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit; "
                        + "until then the object is ignored")
            }
            var document: PlacedValue? = value
            if case .secret = object { document = nil }
            result.objects.append(
                ManifestObject(
                    object: object, origin: ObjectOrigin(file: file, line: value.position.line, document: document)))
        } catch {
            result.isBroken = true
            let field = error.path.description
            report(
                .badField, "\(field.isEmpty ? "the object" : field): \(error.problem)",
                at: Place(
                    object: reference, field: field.isEmpty ? nil : field, file: file, line: error.position.line),
                mend: Self.mend(for: error.problem))
        }
    }

    private static func mend(for problem: String) -> String {
        if problem.hasPrefix("expected a string, found") {
            return "put the value in quotes; until then the object is ignored"
        }
        return "correct the field; until then the object is ignored"
    }

    /// The field that holds a name which the API server would refuse, and why.
    private static func nameProblem(_ object: ClusterObject) -> (field: String, problem: String)? {
        let meta = object.metadata
        if meta.name.isEmpty { return ("name", "the object has no name") }
        if !isSubdomain(meta.name) { return ("name", "\"\(meta.name)\" is no name that Kubernetes allows") }
        if !meta.namespace.isEmpty, !isLabel(meta.namespace) || meta.namespace.utf8.count > 63 {
            return ("namespace", "\"\(meta.namespace)\" is no namespace that Kubernetes allows")
        }
        return nil
    }

    /// RFC 1123 labels as Kubernetes narrows them: lower case, digits, hyphens inside.
    private static func isLabel(_ text: some StringProtocol) -> Bool {
        let bytes = Array(text.utf8)
        guard let first = bytes.first, let last = bytes.last else { return false }
        func isAlphanumeric(_ byte: UInt8) -> Bool { (97...122).contains(byte) || (48...57).contains(byte) }
        return isAlphanumeric(first) && isAlphanumeric(last)
            && bytes.allSatisfy { isAlphanumeric($0) || $0 == UInt8(ascii: "-") }
    }

    private static func isSubdomain(_ text: String) -> Bool {
        text.utf8.count <= 253
            && text.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { isLabel($0) }
    }
}
