// All files of the folder together become one set of objects. Pure: the files have been read already.

package import KubernetesAPI
package import Model

/// What the folder says now.
package struct FolderContents: Sendable, Equatable {
    package var objects = ObjectSet()
    package var diagnostics: [Diagnostic] = []

    package init() {}
}

/// Remembers what each file held when it was last in order, so that a file which becomes faulty goes on serving that.
package struct FolderMemory: Sendable {
    private struct Held {
        var file: ParsedFile
        /// Objects of an earlier state that the faulty file no longer yields.
        var kept: [ManifestObject] = []
    }

    private var files: [String: Held] = [:]

    package init() {}

    /// Takes in the present state of one file.
    package mutating func update(_ path: String, _ parsed: ParsedFile) {
        var held = Held(file: parsed)
        if parsed.isBroken, let before = files[path] {
            let present = Set(parsed.objects.map(\.object.key))
            held.kept = (before.file.objects + before.kept).filter { !present.contains($0.object.key) }
        }
        files[path] = held
    }

    package mutating func remove(_ path: String) { files[path] = nil }

    package var paths: Set<String> { Set(files.keys) }

    /// Puts all files together: in order of path and line the first of two objects of one name counts, and what is only
    /// kept gives way to what is really there.
    package func contents() -> FolderContents {
        var contents = FolderContents()
        var seen: [ObjectKey: ObjectOrigin] = [:]
        let ordered = files.sorted { $0.key < $1.key }
        for (_, held) in ordered {
            contents.diagnostics += held.file.diagnostics
            for item in held.file.objects {
                let key = item.object.key
                if let first = seen[key] {
                    contents.diagnostics.append(Self.duplicate(item, of: first))
                    continue
                }
                seen[key] = item.origin
                contents.objects.insert(item.object, origin: item.origin)
            }
        }
        for (path, held) in ordered {
            let kept = held.kept.filter { seen[$0.object.key] == nil }
            guard !kept.isEmpty else { continue }
            for item in kept {
                seen[item.object.key] = item.origin
                contents.objects.insert(item.object, origin: item.origin)
            }
            let names = kept.map { Self.reference($0.object).description }.sorted()
            let shown =
                names.prefix(5).joined(separator: ", ") + (names.count > 5 ? " and \(names.count - 5) more" : "")
            contents.diagnostics.append(
                ManifestCode.keptLastGood.diagnostic(
                    "the file is faulty; of what it held before, \(shown) is served as it last was",
                    at: Place(file: path), mend: "mend the file, or delete it to withdraw what it held"))
        }
        return contents
    }

    private static func reference(_ object: ClusterObject) -> ObjectReference {
        ObjectReference(kind: object.kind, namespace: object.metadata.namespace, name: object.metadata.name)
    }

    private static func duplicate(_ item: ManifestObject, of first: ObjectOrigin) -> Diagnostic {
        ManifestCode.duplicateObject.diagnostic(
            "the object is written down twice, first in \(first.file):\(first.line)",
            at: Place(object: reference(item.object), file: item.origin.file, line: item.origin.line),
            mend: "delete one of the two; until then the first one counts")
    }
}
