import Model
import Testing

@Suite struct CookieTests {
    private func pairs(_ head: MessageHead) -> [String] {
        var cursor = CookieCursor()
        var list: [String] = []
        while let cookie = head.nextCookie(&cursor) {
            list.append("\(head.text(cookie.name))|\(head.text(cookie.value))")
        }
        return list
    }

    private func cookie(_ head: MessageHead, _ name: String) -> String? {
        let name = bytes(name)
        return head.cookie(named: name.span).map { head.text($0) }
    }

    private func set(_ head: inout MessageHead, _ name: String, _ value: String?) {
        let name = bytes(name)
        if let value {
            let value = bytes(value)
            head.setRequestCookie(name.span, to: value.span)
        } else {
            head.setRequestCookie(name.span, to: nil)
        }
    }

    @Test(arguments: [
        ("a=b", ["a|b"]), ("a=b; c=d", ["a|b", "c|d"]), ("a=b;c=d", ["a|b", "c|d"]),
        ("  a = b ;\tc=d\t", ["a|b", "c|d"]),
        ("a=b=c; d=\"e; f\"", ["a|b=c", "d|\"e"]), ("a=", ["a|"]), ("=b; c=d", ["c|d"]), ("novalue; a=b", ["a|b"]),
        (";;a=b;;", ["a|b"]), ("", []), (";", []), ("a=1; a=2", ["a|1", "a|2"]), ("A=1; a=2", ["A|1", "a|2"]),
    ])
    func reads(_ value: String, _ expected: [String]) {
        #expect(pairs(head([("X", "y"), ("Cookie", value)])) == expected)
    }

    @Test func readsAllLinesAndTheFirstWins() {
        let request = head([("cookie", "a=1; b=2"), ("X", "y"), ("Cookie", ""), ("Cookie", "c=3; a=4")])
        #expect(pairs(request) == ["a|1", "b|2", "c|3", "a|4"])
        #expect(cookie(request, "a") == "1")
        #expect(cookie(request, "c") == "3")
        #expect(cookie(request, "C") == nil)
    }

    @Test func edits() {
        var request = head([("Cookie", "a=1; b=\"x y\""), ("X", "y"), ("Cookie", "a=2; c=3")])
        set(&request, "a", "9")
        #expect(lines(request) == ["Cookie: a=9; b=\"x y\"; c=3", "X: y"])
        set(&request, "d", "4")
        #expect(cookie(request, "d") == "4")
        set(&request, "b", nil)
        #expect(pairs(request) == ["a|9", "c|3", "d|4"])
        for name in ["a", "c", "d"] { set(&request, name, nil) }
        #expect(lines(request) == ["X: y"])
        set(&request, "new", "1")
        #expect(cookie(request, "new") == "1")
    }

    @Test func buildsALine() {
        var cookie = SetCookie(name: bytes("id"), value: bytes("u1"))
        func line() -> String {
            var output: [UInt8] = []
            cookie.append(to: &output)
            return text(output)
        }
        #expect(line() == "id=u1")
        cookie.path = bytes("/")
        cookie.domain = bytes("shop.test")
        cookie.maxAge = 3600
        cookie.expires = 784_111_777
        cookie.isSecure = true
        cookie.isHTTPOnly = true
        cookie.sameSite = .lax
        cookie.isPartitioned = true
        #expect(cookie.problem == nil)
        #expect(
            line() == "id=u1; Path=/; Domain=shop.test; Max-Age=3600; Expires=Sun, 06 Nov 1994 08:49:37 GMT; Secure; "
                + "HttpOnly; SameSite=Lax; Partitioned")
        cookie = .removal(of: bytes("id"), path: bytes("/"))
        #expect(line() == "id=; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT")
    }

    @Test(arguments: [
        ("", "v"), ("a b", "v"), ("a=b", "v"), ("a", "b;c"), ("a", "b c"), ("a", "b,c"), ("a", "b\"c"), ("a", "b\\c"),
        ("a", "b\r\n"), ("a", "\u{e9}"), ("a", "\""), ("__Secure-a", "v"), ("__Host-a", "v"),
        ("a", String(repeating: "x", count: 4096)),
    ])
    func refuses(_ name: String, _ value: String) {
        #expect(SetCookie(name: bytes(name), value: bytes(value)).problem != nil)
    }

    @Test func refusesAttributesThatBrowsersDrop() {
        func problem(_ change: (inout SetCookie) -> Void) -> String? {
            var cookie = SetCookie(name: bytes("a"), value: bytes("\"quoted\""))
            change(&cookie)
            return cookie.problem
        }
        #expect(problem { _ in } == nil)
        #expect(problem { $0.path = bytes("/a; HttpOnly") } != nil)
        #expect(problem { $0.path = bytes("relative") } != nil)
        #expect(problem { $0.domain = bytes("a\r\nb") } != nil)
        #expect(problem { $0.sameSite = SetCookie.SameSite.none } != nil)
        #expect(problem { $0.isPartitioned = true } != nil)
        #expect(
            problem {
                $0.name = bytes("__Host-a")
                $0.isSecure = true
                $0.path = bytes("/")
            } == nil)
        #expect(
            problem {
                $0.name = bytes("__Host-a")
                $0.isSecure = true
                $0.path = bytes("/x")
            } != nil)
    }
}
