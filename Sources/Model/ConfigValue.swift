// The arguments that an Ingress gives to a script, before the script's own schema has judged them.

/// A JSON-like value. Maps keep the order in which they were written, so that messages come in that order too.
package enum ConfigValue: Sendable, Hashable {
    case null
    case bool(Bool)
    case integer(Int64)
    case number(Double)
    case string(String)
    case list([ConfigValue])
    case map([Entry])

    package struct Entry: Sendable, Hashable {
        package var key: String
        package var value: ConfigValue

        package init(_ key: String, _ value: ConfigValue) {
            self.key = key
            self.value = value
        }
    }

    /// The value under `key` of a map; nil for other kinds and for a key that is not there.
    package subscript(key: String) -> ConfigValue? {
        guard case .map(let entries) = self else { return nil }
        return entries.first { $0.key == key }?.value
    }
}
