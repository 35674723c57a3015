import Model

func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }
func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

/// A head with these fields, as a parser would leave it.
func head(_ fields: [(String, String)]) -> MessageHead {
    var head = MessageHead()
    for (name, value) in fields {
        let name = bytes(name)
        let value = bytes(value)
        head.append(FieldName(name.span), name: name.span, value: value.span, flags: [])
    }
    return head
}

/// The live fields of a head, in their order.
func lines(_ head: MessageHead) -> [String] {
    head.fields.filter { !$0.isRemoved }.map { "\(head.text($0.nameRange)): \(head.text($0.valueRange))" }
}

// Spans cannot stand inside an expectation; these take strings.
extension MessageHead {
    mutating func set(_ name: String, _ value: String) {
        let name = Array(name.utf8)
        let value = Array(value.utf8)
        set(name.span, to: value.span)
    }

    mutating func add(_ name: String, _ value: String) {
        let name = Array(name.utf8)
        let value = Array(value.utf8)
        append(name.span, value.span)
    }

    mutating func drop(_ name: String) -> Int {
        let name = Array(name.utf8)
        return removeAll(named: name.span)
    }

    func first(_ name: String) -> String? {
        let name = Array(name.utf8)
        return value(named: name.span).map { text($0) }
    }
}

/// A small generator with a seed, so that a failure can be repeated.
struct Random: RandomNumberGenerator {
    var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}
