import Model
import Testing

@Suite struct CanonicalPathTests {
    /// The canonical form, or why there is none.
    private func canonical(
        _ path: [UInt8], _ options: CanonicalPath.Options = []
    ) -> Result<[UInt8], CanonicalPath.Refusal> {
        var output = bytes("before")
        do throws(CanonicalPath.Refusal) {
            if try CanonicalPath.normalise(path.span, into: &output, allowing: options) {
                #expect(output == bytes("before"))
                return .success(path)
            }
            return .success(Array(output.dropFirst(6)))
        } catch {
            #expect(output == bytes("before"))
            return .failure(error)
        }
    }

    /// Paths that stay as they are, byte for byte.
    @Test(arguments: [
        "/", "/a", "/a/", "/a/b.c", "/a.b/..c", "/...", "/a/...", "/.hidden", "/a..", "/a./b", "/a;b=c", "/a;/b", "/;x",
        "/a%20b", "/caf%C3%A9", "/a%25b", "/%252e%252e%252f", "/a%3Fb", "/a%23b", "/a%3Bb", "/a%2Bb+c",
        "/a:b@c,d=e&f!$'()*",
        "/a\"b<c>d[e]f^g`h{i|j}k", "/%0D%0A", "/%FF%FE", "/%E2%82%AC", "/%F0%9F%98%80", "/%E9", "/..a/b", "/-_~",
        "/proxy/http:/x", "/.%20", "/..%20/", "/%ED%A0%80",
    ])
    func stays(_ path: String) {
        #expect(canonical(bytes(path)) == .success(bytes(path)))
    }

    @Test(arguments: [
        ("//", "/"), ("///a//b///", "/a/b/"), ("/a//b", "/a/b"), ("/%61dmin", "/admin"), ("/%41", "/A"),
        ("/%7e%2D%5f", "/~-_"),
        ("/caf%c3%a9", "/caf%C3%A9"), ("/a%2eb", "/a.b"), ("/%2ehidden", "/.hidden"), ("/%2e%2e%2e", "/..."),
        ("/a%3bb", "/a%3Bb"),
        ("//evil.test/x", "/evil.test/x"), ("/a//;b", "/a/;b"), ("/%30", "/0"),
    ])
    func becomes(_ path: String, _ result: String) {
        #expect(canonical(bytes(path)) == .success(bytes(result)))
    }

    /// The corpus of SECURITY.md: what has opened doors at others.
    static let refused: [(String, CanonicalPath.Refusal)] = [
        ("", .notAbsolute), ("a", .notAbsolute), ("*", .notAbsolute), ("\\a", .notAbsolute),
        ("http://a/", .notAbsolute),
        // Dot segments: CVE-2019-9901, CVE-2025-32431 and its incomplete fix, GHSA-vrch-868g-9jx5.
        ("/.", .dotSegment), ("/..", .dotSegment), ("/./", .dotSegment), ("/../", .dotSegment),
        ("/a/../b", .dotSegment),
        ("/a/./b", .dotSegment), ("/a/..", .dotSegment), ("/a/.", .dotSegment), ("/%2e", .dotSegment),
        ("/%2E%2e", .dotSegment),
        ("/.%2e/", .dotSegment), ("/%2e./x", .dotSegment), ("/public/%2e%2e/admin", .dotSegment), ("//..", .dotSegment),
        ("/a//../b", .dotSegment), ("/..;/admin", .dotSegment), ("/..;x=y/admin", .dotSegment), ("/.;/a", .dotSegment),
        ("/%2e%2e;/a", .dotSegment), ("/..%3b/a", .dotSegment), ("/..%3B", .dotSegment), ("/a/..;", .dotSegment),
        // Encoded separators: CVE-2025-66490, CVE-2021-29492, CVE-2021-32779.
        ("/a%2fb", .encodedSlash), ("/a%2Fb", .encodedSlash), ("/%2f", .encodedSlash), ("/..%2fadmin", .encodedSlash),
        ("/a%5cb", .encodedSlash), ("/a%5Cb", .encodedSlash), ("/%2e%2e%5cadmin", .encodedSlash),
        // Bytes that are not in the grammar.
        ("/a\\b", .forbiddenByte), ("/..\\b", .forbiddenByte), ("/a#b", .forbiddenByte), ("/a?b", .forbiddenByte),
        ("/a b", .forbiddenByte), ("/a\tb", .forbiddenByte), ("/a\r\nb", .forbiddenByte), ("/a\u{0}b", .forbiddenByte),
        ("/a\u{7f}b", .forbiddenByte), ("/caf\u{e9}", .forbiddenByte),
        // Escapes.
        ("/a%", .badEscape), ("/a%2", .badEscape), ("/a%zz", .badEscape), ("/a%2gb", .badEscape),
        ("/%u002f", .badEscape),
        ("/%%32%65", .badEscape), ("/% 2e", .badEscape), ("/%-1", .badEscape), ("/%2", .badEscape),
        ("/a%00b", .encodedNUL), ("/%00", .encodedNUL), ("/admin%00.png", .encodedNUL),
        // Overlong UTF-8.
        ("/%c0%af", .overlongUTF8), ("/%C0%AE%c0%ae/", .overlongUTF8), ("/%c1%9c", .overlongUTF8),
        ("/%c1%1c", .overlongUTF8),
        ("/%c0x", .overlongUTF8), ("/%e0%80%af", .overlongUTF8), ("/%e0%9f%bf", .overlongUTF8),
        ("/%f0%80%80%af", .overlongUTF8),
        ("/%f0%8f%bf%bf", .overlongUTF8), ("/%f8%80%80%80%af", .overlongUTF8), ("/%fc%80%80%80%80%af", .overlongUTF8),
    ]

    @Test(arguments: refused)
    func refuses(_ path: String, _ refusal: CanonicalPath.Refusal) {
        #expect(canonical(bytes(path)) == .failure(refusal))
        #expect(!refusal.message.isEmpty)
    }

    @Test func refusesWhatIsTooLong() {
        let most = bytes("/%61" + String(repeating: "a", count: CanonicalPath.maxCount - 4))
        #expect(canonical(most) != .failure(.tooLong))
        #expect(canonical(most + bytes("a")) == .failure(.tooLong))
    }

    @Test(arguments: [
        ("/a%2fb", "/a%2Fb"), ("/a%5Cb", "/a%5Cb"), ("/a%2f%2fb", "/a%2F%2Fb"),
    ])
    func encodedSlashesStayWhereTheyMay(_ path: String, _ result: String) {
        #expect(canonical(bytes(path), .encodedSlashes) == .success(bytes(result)))
    }

    @Test(arguments: ["/a%2f..%2fb", "/..%2f", "/%2f..", "/a%5c..", "/%2e%2e%2f", "/a%2f.", "/.%5ca"])
    func noDotSegmentBetweenEncodedSlashes(_ path: String) {
        #expect(canonical(bytes(path), .encodedSlashes) == .failure(.dotSegment))
    }

    /// Over paths made of everything that matters: the result is a fixed point, and decoded once it has no dot segment,
    /// no double slash and no byte that splits.
    @Test(arguments: [CanonicalPath.Options(), .encodedSlashes])
    func theResultIsAFixedPoint(_ options: CanonicalPath.Options) {
        let parts = [
            "/", "//", ".", "..", "%2e", "%2E", "%2f", "%5c", "%00", "%c0", "%ae", "%af", "%e0", "%80", ";", "%3b",
            "%25",
            "%2", "%", "a", "%61", "%C3%A9", "%c3%a9", "\\", "#", "?", "~", "%7e", "+", "%20", "x.y",
        ]
        var random = Random(seed: 4711)
        var admitted = 0
        for _ in 0..<60000 {
            var path = "/"
            for _ in 0..<Int.random(in: 0..<7, using: &random) {
                path += parts[Int.random(in: 0..<parts.count, using: &random)]
            }
            guard case .success(let result) = canonical(bytes(path), options) else { continue }
            admitted += 1
            #expect(canonical(result, options) == .success(result), "\(path)")
            #expect(isSafe(decoded(result), isSplitAtBackslash: options == .encodedSlashes), "\(path)")
            // Decoded, it is what was sent, but for merged slashes.
            #expect(merged(decoded(result)) == merged(decoded(bytes(path))), "\(path)")
        }
        #expect(admitted > 5000)
    }

    private func decoded(_ path: [UInt8]) -> [UInt8] {
        var result: [UInt8] = []
        var i = 0
        while i < path.count {
            if path[i] == 0x25, i + 2 < path.count, let high = hexDigit(path[i + 1]), let low = hexDigit(path[i + 2]) {
                result.append(high << 4 | low)
                i += 3
            } else {
                result.append(path[i])
                i += 1
            }
        }
        return result
    }

    private func merged(_ path: [UInt8]) -> [UInt8] {
        var result: [UInt8] = []
        for byte in path where byte != 0x2f || result.last != 0x2f { result.append(byte) }
        return result
    }

    private func isSafe(_ path: [UInt8], isSplitAtBackslash: Bool) -> Bool {
        let separators: Set<UInt8> = isSplitAtBackslash ? [0x2f, 0x5c] : [0x2f]
        for segment in path.split(whereSeparator: { separators.contains($0) }) {
            let name = segment.prefix { $0 != 0x3b }
            if name.elementsEqual([0x2e]) || name.elementsEqual([0x2e, 0x2e]) { return false }
        }
        return !path.contains(0) && (isSplitAtBackslash || !path.contains(0x5c))
    }

    @Test func inAnArenaTheResultLiesWhereItSays() throws {
        var arena = bytes("xx/a/bxx/%61//bxx")
        let same = try CanonicalPath.normalise(2..<6, in: &arena)
        #expect(same == 2..<6)
        let other = try CanonicalPath.normalise(8..<15, in: &arena)
        #expect(text(Array(arena[other])) == "/a/b")
        let before = arena
        #expect(throws: CanonicalPath.Refusal.notAbsolute) { try CanonicalPath.normalise(0..<6, in: &arena) }
        #expect(arena == before)
    }
}
