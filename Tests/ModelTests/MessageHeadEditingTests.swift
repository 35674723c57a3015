import Model
import Testing

@Suite struct MessageHeadEditingTests {
    @Test func setKeepsThePlaceOfTheFirstAndRemovesTheOthers() {
        var head = head([("A", "1"), ("X", "2"), ("B", "3"), ("x", "4")])
        head.set("x", " new\t")
        #expect(lines(head) == ["A: 1", "X: new", "B: 3"])
        #expect(head.fields[1].flags == .ours)
        head.set("C", "5")
        #expect(lines(head) == ["A: 1", "X: new", "B: 3", "C: 5"])
        #expect(head.fields.last?.flags == .ours)
    }

    @Test func appendAndRemove() {
        var head = head([("A", "1")])
        head.add("a", "2")
        head.add("B", "3")
        #expect(lines(head) == ["A: 1", "a: 2", "B: 3"])
        #expect(head.first("A") == "1")
        #expect(head.first("missing") == nil)
        let count = head.drop("a")
        #expect(count == 2)
        #expect(lines(head) == ["B: 3"])
        #expect(head.first("A") == nil)
        let none = head.drop("a")
        #expect(none == 0)
    }

    @Test func whatAClientNominatedComesBackWhenAScriptSetsIt() {
        var head = head([("X-User-ID", "spoofed")])
        head.fields[0].flags.insert(.hopByHop)
        head.set("x-user-id", "real")
        #expect(head.fields[0].flags == .ours)
    }

    /// SCRIPTING.md §1.6: what was saved before an edit reads after it as it read before.
    @Test func anEditLeavesNoTraceInASavedCopy() {
        var head = head([("A", "1"), ("B", "2")])
        let saved = head.fields
        let before = lines(head)
        head.set("A", "other")
        _ = head.drop("B")
        head.add("C", "3")
        head.fields = saved
        #expect(lines(head) == before)
    }

    private func setHost(_ head: inout MessageHead, _ host: String) -> String? {
        let host = bytes(host)
        return head.setHost(host.span)
    }

    @Test func anotherHost() {
        var head = head([("Host", "a")])
        let problem = setHost(&head, "Shop.Test.:8080")
        #expect(problem == nil)
        #expect(lines(head) == ["Host: Shop.Test.:8080"])
        #expect(head.text(head.hostRange) == "shop.test")
        #expect(head.text(head.authorityRange) == "Shop.Test.:8080")
        var without = MessageHead()
        _ = setHost(&without, "b")
        #expect(lines(without) == ["host: b"])
        for wrong in ["", "a b", "a:0", "a/b", "a\r\nX: y"] {
            let problem = setHost(&head, wrong)
            #expect(problem != nil)
            #expect(head.text(head.hostRange) == "shop.test")
        }
    }

    @Test func anotherPath() throws {
        var head = MessageHead()
        let path = bytes("/a//b/%7e")
        try head.setPath(path.span)
        #expect(head.text(head.pathRange) == "/a/b/~")
        let plain = bytes("/plain")
        try head.setPath(plain.span)
        #expect(head.text(head.pathRange) == "/plain")
        for wrong in ["", "x", "/..", "/a?b", "/%2f", "/a b"] {
            let count = head.bytes.count
            let wrong = bytes(wrong)
            do {
                try head.setPath(wrong.span)
                Issue.record("took \(text(wrong))")
            } catch {}
            #expect(head.text(head.pathRange) == "/plain")
            #expect(head.bytes.count == count)
        }
    }
}
