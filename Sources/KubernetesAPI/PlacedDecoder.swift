// Placed values into typed objects, through Codable: unknown fields are passed over, as the API's rules of evolution
// demand; a field of the wrong type is refused with its path and its line, as the API server would refuse it.

extension PlacedValue {
    /// Decodes a typed value, or says which field was wrong and where it stands.
    package func decode<Value: Decodable>(_ type: Value.Type) throws(FieldFault) -> Value {
        do {
            return try Value(from: PlacedDecoder(value: self, link: nil))
        } catch let error as DecodingError {
            throw fault(of: error)
        } catch {
            throw FieldFault(position: position, problem: "cannot be read: \(error)")
        }
    }

    private func fault(of error: DecodingError) -> FieldFault {
        var path: FieldPath
        let problem: String
        switch error {
        case .typeMismatch(_, let context), .dataCorrupted(let context):
            path = FieldPath(context.codingPath)
            problem = context.debugDescription
        case .valueNotFound(_, let context):
            path = FieldPath(context.codingPath)
            problem = "a value is required"
        case .keyNotFound(let key, let context):
            path = FieldPath(context.codingPath) + key.stringValue
            problem = "is required"
        @unknown default:
            path = FieldPath()
            problem = "cannot be read"
        }
        return FieldFault(path: path, position: position(of: path), problem: problem)
    }
}

extension FieldPath {
    init(_ codingPath: [any CodingKey]) {
        self.init(codingPath.map { key in key.intValue.map(Element.index) ?? Element.key(key.stringValue) })
    }
}

/// The way back to the root, built only as deep as the decoding goes and read only when something is wrong.
private final class PathLink: Sendable {
    let parent: PathLink?
    let element: FieldPath.Element

    init(_ element: FieldPath.Element, under parent: PathLink?) {
        self.element = element
        self.parent = parent
    }

    static func codingPath(_ link: PathLink?) -> [any CodingKey] {
        var keys: [any CodingKey] = []
        var next = link
        while let link = next {
            keys.append(AnyKey(link.element))
            next = link.parent
        }
        return keys.reversed()
    }
}

private struct AnyKey: CodingKey {
    let stringValue: String
    let intValue: Int?

    init(_ element: FieldPath.Element) {
        switch element {
        case .key(let key):
            stringValue = key
            intValue = nil
        case .index(let index):
            stringValue = String(index)
            intValue = index
        }
    }

    init?(stringValue: String) {
        self.stringValue = stringValue
        intValue = nil
    }

    init?(intValue: Int) {
        stringValue = String(intValue)
        self.intValue = intValue
    }
}

private struct PlacedDecoder: Decoder, SingleValueDecodingContainer {
    let value: PlacedValue
    let link: PathLink?

    var codingPath: [any CodingKey] { PathLink.codingPath(link) }
    var userInfo: [CodingUserInfoKey: Any] { [:] }

    func mismatch(_ type: Any.Type, expected: String) -> DecodingError {
        .typeMismatch(
            type,
            DecodingError.Context(
                codingPath: codingPath, debugDescription: "expected \(expected), found \(value.kindName)"))
    }

    func container<Key: CodingKey>(keyedBy type: Key.Type) throws -> KeyedDecodingContainer<Key> {
        guard case .map(let entries) = value.content else { throw mismatch(type, expected: "a map") }
        return KeyedDecodingContainer(KeyedContainer<Key>(entries: entries, link: link))
    }

    func unkeyedContainer() throws -> any UnkeyedDecodingContainer {
        guard case .list(let items) = value.content else { throw mismatch([Any].self, expected: "a list") }
        return UnkeyedContainer(items: items, link: link)
    }

    func singleValueContainer() throws -> any SingleValueDecodingContainer { self }

    func decodeNil() -> Bool { value.content == .null }

    func decode(_ type: Bool.Type) throws -> Bool {
        guard case .bool(let flag) = value.content else { throw mismatch(type, expected: "a boolean") }
        return flag
    }

    func decode(_ type: String.Type) throws -> String {
        guard case .string(let text) = value.content else { throw mismatch(type, expected: "a string") }
        return text
    }

    func decode(_ type: Double.Type) throws -> Double {
        switch value.content {
        case .number(let number): return number
        case .integer(let integer): return Double(integer)
        default: throw mismatch(type, expected: "a number")
        }
    }

    func decode(_ type: Float.Type) throws -> Float { Float(try decode(Double.self)) }

    func integer<Integer: FixedWidthInteger>(_ type: Integer.Type) throws -> Integer {
        guard case .integer(let wide) = value.content else { throw mismatch(type, expected: "an integer") }
        guard let narrow = Integer(exactly: wide) else {
            throw DecodingError.dataCorrupted(
                DecodingError.Context(
                    codingPath: codingPath,
                    debugDescription: "\(wide) is out of the range \(Integer.min)...\(Integer.max)"))
        }
        return narrow
    }

    func decode(_ type: Int.Type) throws -> Int { try integer(type) }
    func decode(_ type: Int8.Type) throws -> Int8 { try integer(type) }
    func decode(_ type: Int16.Type) throws -> Int16 { try integer(type) }
    func decode(_ type: Int32.Type) throws -> Int32 { try integer(type) }
    func decode(_ type: Int64.Type) throws -> Int64 { try integer(type) }
    func decode(_ type: UInt.Type) throws -> UInt { try integer(type) }
    func decode(_ type: UInt8.Type) throws -> UInt8 { try integer(type) }
    func decode(_ type: UInt16.Type) throws -> UInt16 { try integer(type) }
    func decode(_ type: UInt32.Type) throws -> UInt32 { try integer(type) }
    func decode(_ type: UInt64.Type) throws -> UInt64 { try integer(type) }

    func decode<Value: Decodable>(_ type: Value.Type) throws -> Value {
        // The common leaves skip a round through the generic entry of the standard library.
        if type == String.self, let text = try decode(String.self) as? Value { return text }
        return try Value(from: self)
    }
}

private struct KeyedContainer<Key: CodingKey>: KeyedDecodingContainerProtocol {
    let entries: [PlacedValue.Entry]
    let link: PathLink?
    /// Built for large maps only: a linear search is quicker for the dozen fields of an object, and quadratic for the
    /// thousands of keys that a ConfigMap may have.
    private let index: [String: Int]?

    init(entries: [PlacedValue.Entry], link: PathLink?) {
        self.entries = entries
        self.link = link
        index =
            entries.count <= 16
            ? nil
            : Dictionary(entries.enumerated().map { ($1.key, $0) }, uniquingKeysWith: { first, _ in first })
    }

    var codingPath: [any CodingKey] { PathLink.codingPath(link) }
    var allKeys: [Key] { entries.compactMap { Key(stringValue: $0.key) } }

    private func find(_ key: Key) -> PlacedValue? {
        let name = key.stringValue
        if let index { return index[name].map { entries[$0].value } }
        return entries.first { $0.key == name }?.value
    }

    func contains(_ key: Key) -> Bool { find(key) != nil }

    private func decoder(_ key: Key) throws -> PlacedDecoder {
        guard let value = find(key) else {
            throw DecodingError.keyNotFound(
                key, DecodingError.Context(codingPath: codingPath, debugDescription: "is required"))
        }
        return PlacedDecoder(value: value, link: PathLink(.key(key.stringValue), under: link))
    }

    func decodeNil(forKey key: Key) throws -> Bool { find(key)?.content == .null }
    func decode(_ type: Bool.Type, forKey key: Key) throws -> Bool { try decoder(key).decode(type) }
    func decode(_ type: String.Type, forKey key: Key) throws -> String { try decoder(key).decode(type) }
    func decode(_ type: Double.Type, forKey key: Key) throws -> Double { try decoder(key).decode(type) }
    func decode(_ type: Float.Type, forKey key: Key) throws -> Float { try decoder(key).decode(type) }
    func decode(_ type: Int.Type, forKey key: Key) throws -> Int { try decoder(key).decode(type) }
    func decode(_ type: Int8.Type, forKey key: Key) throws -> Int8 { try decoder(key).decode(type) }
    func decode(_ type: Int16.Type, forKey key: Key) throws -> Int16 { try decoder(key).decode(type) }
    func decode(_ type: Int32.Type, forKey key: Key) throws -> Int32 { try decoder(key).decode(type) }
    func decode(_ type: Int64.Type, forKey key: Key) throws -> Int64 { try decoder(key).decode(type) }
    func decode(_ type: UInt.Type, forKey key: Key) throws -> UInt { try decoder(key).decode(type) }
    func decode(_ type: UInt8.Type, forKey key: Key) throws -> UInt8 { try decoder(key).decode(type) }
    func decode(_ type: UInt16.Type, forKey key: Key) throws -> UInt16 { try decoder(key).decode(type) }
    func decode(_ type: UInt32.Type, forKey key: Key) throws -> UInt32 { try decoder(key).decode(type) }
    func decode(_ type: UInt64.Type, forKey key: Key) throws -> UInt64 { try decoder(key).decode(type) }

    func decode<Value: Decodable>(_ type: Value.Type, forKey key: Key) throws -> Value {
        try decoder(key).decode(type)
    }

    func nestedContainer<Nested: CodingKey>(
        keyedBy type: Nested.Type, forKey key: Key
    ) throws -> KeyedDecodingContainer<Nested> {
        try decoder(key).container(keyedBy: type)
    }

    func nestedUnkeyedContainer(forKey key: Key) throws -> any UnkeyedDecodingContainer {
        try decoder(key).unkeyedContainer()
    }

    func superDecoder() throws -> any Decoder {
        PlacedDecoder(value: PlacedValue(.map(entries)), link: link)
    }

    func superDecoder(forKey key: Key) throws -> any Decoder { try decoder(key) }
}

private struct UnkeyedContainer: UnkeyedDecodingContainer {
    let items: [PlacedValue]
    let link: PathLink?
    var currentIndex = 0

    init(items: [PlacedValue], link: PathLink?) {
        self.items = items
        self.link = link
    }

    var codingPath: [any CodingKey] { PathLink.codingPath(link) }
    var count: Int? { items.count }
    var isAtEnd: Bool { currentIndex >= items.count }

    private func peek() throws -> PlacedDecoder {
        let here = PathLink(.index(currentIndex), under: link)
        guard !isAtEnd else {
            throw DecodingError.valueNotFound(
                PlacedValue.self,
                DecodingError.Context(codingPath: PathLink.codingPath(here), debugDescription: "the list is shorter"))
        }
        return PlacedDecoder(value: items[currentIndex], link: here)
    }

    private mutating func take<Value>(_ read: (PlacedDecoder) throws -> Value) throws -> Value {
        let value = try read(peek())
        currentIndex += 1
        return value
    }

    mutating func decodeNil() throws -> Bool {
        guard try peek().decodeNil() else { return false }
        currentIndex += 1
        return true
    }

    mutating func decode(_ type: Bool.Type) throws -> Bool { try take { try $0.decode(type) } }
    mutating func decode(_ type: String.Type) throws -> String { try take { try $0.decode(type) } }
    mutating func decode(_ type: Double.Type) throws -> Double { try take { try $0.decode(type) } }
    mutating func decode(_ type: Float.Type) throws -> Float { try take { try $0.decode(type) } }
    mutating func decode(_ type: Int.Type) throws -> Int { try take { try $0.decode(type) } }
    mutating func decode(_ type: Int8.Type) throws -> Int8 { try take { try $0.decode(type) } }
    mutating func decode(_ type: Int16.Type) throws -> Int16 { try take { try $0.decode(type) } }
    mutating func decode(_ type: Int32.Type) throws -> Int32 { try take { try $0.decode(type) } }
    mutating func decode(_ type: Int64.Type) throws -> Int64 { try take { try $0.decode(type) } }
    mutating func decode(_ type: UInt.Type) throws -> UInt { try take { try $0.decode(type) } }
    mutating func decode(_ type: UInt8.Type) throws -> UInt8 { try take { try $0.decode(type) } }
    mutating func decode(_ type: UInt16.Type) throws -> UInt16 { try take { try $0.decode(type) } }
    mutating func decode(_ type: UInt32.Type) throws -> UInt32 { try take { try $0.decode(type) } }
    mutating func decode(_ type: UInt64.Type) throws -> UInt64 { try take { try $0.decode(type) } }
    mutating func decode<Value: Decodable>(_ type: Value.Type) throws -> Value { try take { try $0.decode(type) } }

    mutating func nestedContainer<Nested: CodingKey>(
        keyedBy type: Nested.Type
    ) throws -> KeyedDecodingContainer<Nested> {
        try take { try $0.container(keyedBy: type) }
    }

    mutating func nestedUnkeyedContainer() throws -> any UnkeyedDecodingContainer {
        try take { try $0.unkeyedContainer() }
    }

    mutating func superDecoder() throws -> any Decoder { try take { $0 } }
}
