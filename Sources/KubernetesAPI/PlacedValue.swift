// The first step of a configuration change: what a manifest, an annotation or an API answer says, as plain data that
// still knows where each piece was written, so that every later complaint can name a line.

/// Where something begins in a text; both count from 1, columns in bytes of UTF-8.
package struct TextPosition: Hashable, Sendable, Comparable {
    package var line: Int
    package var column: Int

    package init(line: Int, column: Int) {
        self.line = line
        self.column = column
    }

    package static func < (left: Self, right: Self) -> Bool {
        (left.line, left.column) < (right.line, right.column)
    }
}

/// A JSON-like value that remembers where it was written.
///
/// Two values are equal when they say the same; where they say it does not count, so that moving a document within its
/// file is no change of configuration.
package struct PlacedValue: Sendable, Hashable {
    package enum Content: Sendable, Hashable {
        case null
        case bool(Bool)
        case integer(Int)
        case number(Double)
        case string(String)
        case list([PlacedValue])
        case map([Entry])
    }

    /// One key of a map, in the order of the text. A reader refuses a key that is there twice.
    package struct Entry: Sendable, Hashable {
        package var key: String
        package var keyPosition: TextPosition
        package var value: PlacedValue

        package init(key: String, keyPosition: TextPosition, value: PlacedValue) {
            self.key = key
            self.keyPosition = keyPosition
            self.value = value
        }

        package static func == (left: Self, right: Self) -> Bool {
            left.key == right.key && left.value == right.value
        }

        package func hash(into hasher: inout Hasher) {
            hasher.combine(key)
            hasher.combine(value)
        }
    }

    package var content: Content
    package var position: TextPosition

    package init(_ content: Content, at position: TextPosition = TextPosition(line: 1, column: 1)) {
        self.content = content
        self.position = position
    }

    package static func == (left: Self, right: Self) -> Bool { left.content == right.content }
    package func hash(into hasher: inout Hasher) { hasher.combine(content) }

    /// The word for this value in a message: "a string", "a list".
    package var kindName: String {
        switch content {
        case .null: "null"
        case .bool: "a boolean"
        case .integer: "an integer"
        case .number: "a number"
        case .string: "a string"
        case .list: "a list"
        case .map: "a map"
        }
    }

    /// The value of a key; nil when this is no map or has no such key.
    package subscript(key: String) -> PlacedValue? {
        guard case .map(let entries) = content else { return nil }
        return entries.first { $0.key == key }?.value
    }

    package subscript(index: Int) -> PlacedValue? {
        guard case .list(let items) = content, items.indices.contains(index) else { return nil }
        return items[index]
    }

    package var string: String? {
        guard case .string(let text) = content else { return nil }
        return text
    }

    package var entries: [Entry]? {
        guard case .map(let entries) = content else { return nil }
        return entries
    }

    package var items: [PlacedValue]? {
        guard case .list(let items) = content else { return nil }
        return items
    }

    /// The position of the deepest part of `path` that exists, so that a missing field is placed at its parent.
    package func position(of path: FieldPath) -> TextPosition {
        var value = self
        var position = self.position
        for element in path.elements {
            switch element {
            case .key(let key):
                guard let entry = value.entries?.first(where: { $0.key == key }) else { return position }
                position = entry.keyPosition
                value = entry.value
            case .index(let index):
                guard let item = value[index] else { return position }
                position = item.position
                value = item
            }
        }
        return position
    }
}

/// The way from an object to one of its fields.
package struct FieldPath: Sendable, Hashable, CustomStringConvertible {
    package enum Element: Sendable, Hashable {
        case key(String)
        case index(Int)
    }

    package var elements: [Element]

    package init(_ elements: [Element] = []) { self.elements = elements }

    package static func + (left: Self, key: String) -> Self { Self(left.elements + [.key(key)]) }
    package static func + (left: Self, index: Int) -> Self { Self(left.elements + [.index(index)]) }

    /// As people write it: `spec.rules[0].host`; keys that hold a dot or a bracket stand in brackets and quotes.
    package var description: String {
        var text = ""
        for element in elements {
            switch element {
            case .key(let key) where key.isEmpty || key.utf8.contains(where: { !Self.isPlain($0) }):
                text += "[\"\(key)\"]"
            case .key(let key):
                text += text.isEmpty ? key : "." + key
            case .index(let index):
                text += "[\(index)]"
            }
        }
        return text
    }

    private static func isPlain(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"):
            true
        default: false
        }
    }
}

/// Why a text or a field could not be taken, and where.
package struct FieldFault: Error, Sendable, Hashable, CustomStringConvertible {
    package var path: FieldPath
    package var position: TextPosition
    package var problem: String

    package init(path: FieldPath = FieldPath(), position: TextPosition, problem: String) {
        self.path = path
        self.position = position
        self.problem = problem
    }

    package var description: String {
        path.elements.isEmpty
            ? "\(position.line):\(position.column): \(problem)"
            : "\(position.line):\(position.column): \(path): \(problem)"
    }
}

/// How much of an untrusted text is taken in before it is refused.
package struct ReadingLimits: Sendable, Hashable {
    /// Bytes of one text.
    package var bytes: Int
    /// Maps and lists within each other.
    package var depth: Int
    /// Values in one document, aliases counted as often as they are used.
    package var values: Int

    package init(bytes: Int, depth: Int, values: Int) {
        self.bytes = bytes
        self.depth = depth
        self.values = values
    }

    /// A manifest: the API server takes objects of up to 3 MiB or so; a List may hold thousands of them.
    package static let manifest = ReadingLimits(bytes: 64 << 20, depth: 64, values: 4_000_000)
    /// An annotation: Kubernetes allows 256 KiB for all annotations of an object together.
    package static let annotation = ReadingLimits(bytes: 256 << 10, depth: 32, values: 20_000)
}
