// Where a complaint points: the object, the field and, for objects from a folder, the line.

internal import KubernetesAPI
internal import Model

struct Places {
    let objects: ObjectSet

    func place(_ kind: String, _ name: ObjectName, _ path: FieldPath? = nil) -> Place {
        let origin = objects.origins[ObjectKey(kind: kind, name: name)]
        return Place(
            object: ObjectReference(kind: kind, namespace: name.namespace, name: name.name),
            field: path?.description, file: origin?.file,
            line: origin.map { origin in path.map(origin.line(of:)) ?? origin.line })
    }

    func place(_ kind: String, _ name: ObjectName, annotation key: String) -> Place {
        var place = place(kind, name, Self.path(ofAnnotation: key))
        place.field = "annotation \(key)"
        return place
    }

    /// The line on which the text of an annotation begins. A text of several lines is a block, as good as always, and
    /// begins below its key.
    func firstLine(ofAnnotation key: String, text: String, in ingress: ObjectName) -> Int {
        guard let origin = objects.origins[ObjectKey(kind: Ingress.kind, name: ingress)] else { return 1 }
        return origin.line(of: Self.path(ofAnnotation: key)) + (text.utf8.contains(0x0a) ? 1 : 0)
    }

    private static func path(ofAnnotation key: String) -> FieldPath {
        FieldPath([.key("metadata"), .key("annotations"), .key(key)])
    }
}

/// What is shown of a value in a message: all of it when it is short, one line in any case, and no control character that
/// could forge a second line of a log.
func quoted(_ text: String) -> String {
    var shown = ""
    var count = 0
    for scalar in text.unicodeScalars {
        count += 1
        guard count <= 80 else { return "\"\(shown)…\"" }
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate, .privateUse, .unassigned:
            shown += "\\u{\(String(scalar.value, radix: 16))}"
        default:
            shown.unicodeScalars.append(scalar)
        }
    }
    return "\"\(shown)\""
}
