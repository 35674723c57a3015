import Model
import Testing

@Suite struct QueryTests {
    private func request(_ query: String?) -> MessageHead {
        var head = MessageHead()
        if let query {
            head.queryRange = head.store(query.utf8)
            head.hasQuery = true
        }
        return head
    }

    private func raw(_ head: MessageHead) -> String? { head.hasQuery ? head.text(head.queryRange) : nil }

    private func get(_ head: MessageHead, _ name: String) -> String? {
        var output: [UInt8] = []
        let name = bytes(name)
        return head.queryValue(named: name.span, into: &output) ? text(output) : nil
    }

    private func set(_ head: inout MessageHead, _ name: String, _ value: String) {
        let (name, value) = (bytes(name), bytes(value))
        head.setQuery(name.span, to: value.span)
    }

    private func add(_ head: inout MessageHead, _ name: String, _ value: String) {
        let (name, value) = (bytes(name), bytes(value))
        head.appendQuery(name.span, value.span)
    }

    private func drop(_ head: inout MessageHead, _ name: String) {
        let name = bytes(name)
        head.removeQuery(named: name.span)
    }

    @Test func walksThePairs() {
        let query = bytes("a=1&&b&=c&d=e=f&")
        var cursor = 0
        var list: [String] = []
        while let pair = Query.next(in: query.span, &cursor) {
            list.append("\(text(Array(query[pair.name])))|\(text(Array(query[pair.value])))|\(pair.hasEquals)")
        }
        #expect(list == ["a|1|true", "b||false", "|c|true", "d|e=f|true"])
    }

    @Test(
        arguments: [
            ("a=1&b=2", "b", "2"), ("a=1&a=2", "a", "1"), ("a+b=c+d", "a b", "c d"), ("%61=%C3%A9", "a", "\u{e9}"),
            ("a=%2", "a", "%2"),
            ("a=%zz", "a", "%zz"), ("a=%", "a", "%"), ("a", "a", ""), ("a=%26%3D", "a", "&="), ("a=1", "A", nil),
            ("", "a", nil),
            ("ab=1", "a", nil), ("a%00=1", "a\u{0}", "1"),
        ] as [(String, String, String?)])
    func reads(_ query: String, _ name: String, _ value: String?) {
        #expect(get(request(query), name) == value)
    }

    @Test func editsLeaveTheOthersByteForByte() {
        var head = request("a=%zz&b=1&c=+%2b&b=2&d")
        set(&head, "b", "x y&=\u{e9}")
        #expect(raw(head) == "a=%zz&b=x%20y%26%3D%C3%A9&c=+%2b&d")
        #expect(get(head, "b") == "x y&=\u{e9}")
        add(&head, "e", "5")
        #expect(raw(head) == "a=%zz&b=x%20y%26%3D%C3%A9&c=+%2b&d&e=5")
        drop(&head, "a")
        drop(&head, "d")
        drop(&head, "missing")
        #expect(raw(head) == "b=x%20y%26%3D%C3%A9&c=+%2b&e=5")
        for name in ["b", "c", "e"] { drop(&head, name) }
        #expect(raw(head) == nil)
        set(&head, "new", "")
        #expect(raw(head) == "new=")
    }

    @Test func aQueryThatIsEmptyIsNotNone() {
        #expect(raw(request("")) == "")
        #expect(raw(request(nil)) == nil)
    }

    @Test func setsTheWhole() {
        var head = request("a")
        func setRaw(_ text: String?) -> String? {
            guard let text else { return head.setRawQuery(nil) }
            let query = bytes(text)
            return head.setRawQuery(query.span)
        }
        #expect(setRaw("x=y&z") == nil)
        #expect(raw(head) == "x=y&z")
        for wrong in ["a b", "a#b", "a\r\nb", "\u{e9}"] {
            #expect(setRaw(wrong) != nil)
            #expect(raw(head) == "x=y&z")
        }
        #expect(setRaw(nil) == nil)
        #expect(raw(head) == nil)
    }

    /// What is set is read back, whatever its bytes, and the result can stand in a target.
    @Test func whatIsSetIsReadBack() {
        var random = Random(seed: 3)
        for _ in 0..<500 {
            var head = request("keep=1&%6beep2=2")
            let name = (0..<Int.random(in: 1..<6, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random)
            }
            let value = (0..<Int.random(in: 0..<9, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random)
            }
            head.setQuery(name.span, to: value.span)
            var output: [UInt8] = []
            let found = head.queryValue(named: name.span, into: &output)
            #expect(found)
            #expect(output == value)
            #expect(get(head, "keep") == "1")
            #expect(head.bytes[head.queryRange.range].allSatisfy { (0x21...0x7e).contains($0) && $0 != 0x23 })
        }
    }
}
