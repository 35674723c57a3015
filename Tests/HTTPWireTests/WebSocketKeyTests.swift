import Testing

@testable import HTTPWire

@Suite struct WebSocketKeyTests {
    /// RFC 6455 §1.3.
    @Test func answersTheExampleOfTheRFC() {
        let key = bytes("dGhlIHNhbXBsZSBub25jZQ==")
        let accept = bytes("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        func matches(_ answer: [UInt8]) -> Bool { WebSocketKey.matches(key.span, accept: answer.span) }
        let answer = WebSocketKey.accept(for: key.span)
        #expect(answer == accept)
        #expect(matches(accept))
        for i in accept.indices {
            var wrong = accept
            wrong[i] ^= 1
            #expect(!matches(wrong))
        }
        #expect(!matches(Array(accept.dropLast())))
    }

    /// FIPS 180-4 examples, and lengths around the padding's edges against values computed elsewhere.
    @Test(arguments: [
        ("", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
        ("abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        ("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "84983e441c3bd26ebaae4aa1f95129e5e54670f1"),
        (String(repeating: "a", count: 55), "c1c8bbdc22796e28c0e15163d20899b65621d65a"),
        (String(repeating: "a", count: 56), "c2db330f6083854c99d4b5bfb6e8f29f201be699"),
        (String(repeating: "a", count: 64), "0098ba824b5c16427bd7a1122a5a442a25ec644d"),
        (String(repeating: "a", count: 119), "ee971065aaa017e0632a8ca6c77bb3bf8b1dfc56"),
    ])
    func hashes(_ text: String, _ hex: String) {
        let digits = SHA1.digest(of: bytes(text)).flatMap { [lowerHexDigit($0 >> 4), lowerHexDigit($0 & 15)] }
        #expect(String(decoding: digits, as: UTF8.self) == hex)
    }

    @Test(arguments: [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")])
    func encodes(_ text: String, _ base64: String) {
        #expect(WebSocketKey.base64(bytes(text)) == bytes(base64))
    }

    @Test(arguments: [
        ("dGhlIHNhbXBsZSBub25jZQ==", true), ("AAAAAAAAAAAAAAAAAAAAAA==", true), ("", false),
        ("dGhlIHNhbXBsZSBub25jZQ=", false), ("dGhlIHNhbXBsZSBub25jZQ=A", false), ("dGhlIHNhbXBsZSBub25j-Q==", false),
        ("dGhlIHNhbXBsZSBub25jZQ===", false), ("dGhlIHNhbX sZSBub25jZQ==", false),
    ])
    func knowsAKey(_ key: String, _ isValid: Bool) {
        let key = bytes(key)
        let found = WebSocketKey.isValid(key.span)
        #expect(found == isValid)
    }
}
