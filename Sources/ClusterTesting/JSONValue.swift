// Objects as the fake API server keeps them: as JSON, so that fields which our types do not know survive as in a real one.

package import KubernetesAPI

package enum JSONValue: Sendable, Hashable {
    case null
    case bool(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case list([JSONValue])
    case map([String: JSONValue])

    package init(_ placed: PlacedValue) {
        switch placed.content {
        case .null: self = .null
        case .bool(let value): self = .bool(value)
        case .integer(let value): self = .integer(value)
        case .number(let value): self = .number(value)
        case .string(let value): self = .string(value)
        case .list(let items): self = .list(items.map(JSONValue.init))
        case .map(let entries):
            self = .map(Dictionary(entries.map { ($0.key, JSONValue($0.value)) }, uniquingKeysWith: { $1 }))
        }
    }

    package init(text: String) throws(FieldFault) { self.init(try JSONReader.read(text)) }

    /// A field of a map; nil when this is no map or the field is missing or null.
    package subscript(key: String) -> JSONValue? {
        get {
            guard case .map(let fields) = self, let value = fields[key], value != .null else { return nil }
            return value
        }
        set {
            var fields: [String: JSONValue] = [:]
            if case .map(let held) = self { fields = held }
            fields[key] = newValue
            self = .map(fields)
        }
    }

    package subscript(path path: [String]) -> JSONValue? {
        path.reduce(Optional(self)) { value, key in value?[key] }
    }

    package var string: String? {
        guard case .string(let text) = self else { return nil }
        return text
    }

    package var integer: Int? {
        guard case .integer(let value) = self else { return nil }
        return value
    }

    package var items: [JSONValue] {
        guard case .list(let items) = self else { return [] }
        return items
    }

    package var fields: [String: JSONValue] {
        guard case .map(let fields) = self else { return [:] }
        return fields
    }

    /// RFC 7386.
    package func merged(with patch: JSONValue) -> JSONValue {
        guard case .map(let changes) = patch else { return patch }
        var result = fields
        for (key, change) in changes {
            result[key] = change == .null ? nil : (result[key] ?? .null).merged(with: change)
        }
        return .map(result)
    }

    /// RFC 6902, of which a test, an addition to a map and a replacement are enough here; nil where one can't be done.
    package func patched(by operations: [JSONValue]) -> JSONValue? {
        var result = self
        for operation in operations {
            guard let path = operation["path"]?.string, path.hasPrefix("/"), let op = operation["op"]?.string else {
                return nil
            }
            let keys = path.dropFirst().split(separator: "/", omittingEmptySubsequences: false).map {
                String($0).replacing("~1", with: "/").replacing("~0", with: "~")
            }
            let value = operation["value"] ?? .null
            switch op {
            case "test": guard result.at(keys[...]) == value else { return nil }
            case "add", "replace":
                guard let next = result.setting(keys[...], to: value, mustExist: op == "replace") else { return nil }
                result = next
            default: return nil
            }
        }
        return result
    }

    private func at(_ keys: ArraySlice<String>) -> JSONValue? {
        guard let key = keys.first else { return self }
        switch self {
        case .map(let fields): return fields[key]?.at(keys.dropFirst())
        case .list(let items):
            guard let index = Int(key), items.indices.contains(index) else { return nil }
            return items[index].at(keys.dropFirst())
        case .null, .bool, .integer, .number, .string: return nil
        }
    }

    private func setting(_ keys: ArraySlice<String>, to value: JSONValue, mustExist: Bool) -> JSONValue? {
        guard let key = keys.first else { return value }
        switch self {
        case .map(var fields):
            if keys.count == 1, mustExist, fields[key] == nil { return nil }
            let inner = keys.count == 1 ? JSONValue.null : fields[key]
            guard let next = inner?.setting(keys.dropFirst(), to: value, mustExist: mustExist) else { return nil }
            fields[key] = next
            return .map(fields)
        case .list(var items):
            guard let index = Int(key), items.indices.contains(index),
                let next = items[index].setting(keys.dropFirst(), to: value, mustExist: mustExist)
            else { return nil }
            items[index] = next
            return .list(items)
        case .null, .bool, .integer, .number, .string: return nil
        }
    }

    package var text: String {
        var bytes: [UInt8] = []
        write(to: &bytes)
        return String(decoding: bytes, as: UTF8.self)
    }

    package func write(to bytes: inout [UInt8]) {
        switch self {
        case .null: bytes += "null".utf8
        case .bool(let value): bytes += (value ? "true" : "false").utf8
        case .integer(let value): bytes += String(value).utf8
        case .number(let value): bytes += String(value).utf8
        case .string(let text): Self.write(text, to: &bytes)
        case .list(let items):
            bytes.append(UInt8(ascii: "["))
            for (index, item) in items.enumerated() {
                if index > 0 { bytes.append(UInt8(ascii: ",")) }
                item.write(to: &bytes)
            }
            bytes.append(UInt8(ascii: "]"))
        case .map(let fields):
            bytes.append(UInt8(ascii: "{"))
            for (index, key) in fields.keys.sorted().enumerated() {
                if index > 0 { bytes.append(UInt8(ascii: ",")) }
                Self.write(key, to: &bytes)
                bytes.append(UInt8(ascii: ":"))
                (fields[key] ?? .null).write(to: &bytes)
            }
            bytes.append(UInt8(ascii: "}"))
        }
    }

    private static func write(_ text: String, to bytes: inout [UInt8]) {
        let digits = Array("0123456789abcdef".utf8)
        bytes.append(UInt8(ascii: "\""))
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"):
                bytes.append(UInt8(ascii: "\\"))
                bytes.append(byte)
            case UInt8(ascii: "\n"): bytes += "\\n".utf8
            case 0..<0x20:
                bytes += "\\u00".utf8
                bytes.append(digits[Int(byte >> 4)])
                bytes.append(digits[Int(byte & 15)])
            default: bytes.append(byte)
            }
        }
        bytes.append(UInt8(ascii: "\""))
    }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral,
    ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
    package init(stringLiteral value: String) { self = .string(value) }
    package init(integerLiteral value: Int) { self = .integer(value) }
    package init(booleanLiteral value: Bool) { self = .bool(value) }
    package init(arrayLiteral elements: JSONValue...) { self = .list(elements) }
    package init(dictionaryLiteral elements: (String, JSONValue)...) {
        self = .map(Dictionary(elements, uniquingKeysWith: { $1 }))
    }
}
