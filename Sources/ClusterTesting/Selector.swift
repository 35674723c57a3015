// Label and field selectors, as the API server reads them.

struct LabelSelector: Sendable {
    private enum Requirement: Sendable {
        case equals(String, String)
        case differs(String, String)
        case exists(String)
        case missing(String)
        case isOneOf(String, Set<String>)
        case isNoneOf(String, Set<String>)
    }

    private var requirements: [Requirement] = []

    /// Nil when it can't be parsed.
    init?(_ text: String) {
        for part in Self.split(text) {
            let part = Self.trim(part)
            if part.isEmpty { continue }
            if let open = part.firstIndex(of: "("), part.hasSuffix(")") {
                let words = part[..<open].split(separator: " ")
                let values = Set(part[part.index(after: open)...].dropLast().split(separator: ",").map(Self.trim))
                guard words.count == 2, !values.isEmpty else { return nil }
                switch words[1] {
                case "in": requirements.append(.isOneOf(String(words[0]), values))
                case "notin": requirements.append(.isNoneOf(String(words[0]), values))
                default: return nil
                }
            } else if let range = part.firstRange(of: "!=") {
                requirements.append(
                    .differs(Self.trim(part[..<range.lowerBound]), Self.trim(part[range.upperBound...])))
            } else if let range = part.firstRange(of: "==") ?? part.firstRange(of: "=") {
                requirements.append(.equals(Self.trim(part[..<range.lowerBound]), Self.trim(part[range.upperBound...])))
            } else if part.hasPrefix("!") {
                requirements.append(.missing(Self.trim(part.dropFirst())))
            } else if !part.contains(" ") {
                requirements.append(.exists(part))
            } else {
                return nil
            }
        }
    }

    func matches(_ labels: [String: JSONValue]) -> Bool {
        requirements.allSatisfy { requirement in
            switch requirement {
            case .equals(let key, let value): labels[key]?.string == value
            case .differs(let key, let value): labels[key]?.string != value
            case .exists(let key): labels[key] != nil
            case .missing(let key): labels[key] == nil
            case .isOneOf(let key, let values): labels[key]?.string.map(values.contains) ?? false
            case .isNoneOf(let key, let values): !(labels[key]?.string.map(values.contains) ?? false)
            }
        }
    }

    /// At commas outside parentheses.
    private static func split(_ text: String) -> [Substring] {
        var parts: [Substring] = []
        var start = text.startIndex
        var depth = 0
        for index in text.indices {
            switch text[index] {
            case "(": depth += 1
            case ")": depth -= 1
            case "," where depth == 0:
                parts.append(text[start..<index])
                start = text.index(after: index)
            default: break
            }
        }
        parts.append(text[start...])
        return parts
    }

    private static func trim(_ text: some StringProtocol) -> String {
        String(text.drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
    }
}

/// What every kind can be selected by.
struct FieldSelector: Sendable {
    private var name: String?
    private var namespace: String?

    /// Nil for a field that is not supported.
    init?(_ text: String) {
        for part in text.split(separator: ",") {
            let sides = part.split(separator: "=", omittingEmptySubsequences: true)
            guard sides.count == 2 else { return nil }
            switch sides[0] {
            case "metadata.name": name = String(sides[1])
            case "metadata.namespace": namespace = String(sides[1])
            default: return nil
            }
        }
    }

    func matches(name: String, namespace: String) -> Bool {
        (self.name ?? name) == name && (self.namespace ?? namespace) == namespace
    }
}
