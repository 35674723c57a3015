import Testing

@testable import Scripting

@Suite struct TextEncodingTests {
    func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

    /// RFC 4648 §10.
    @Test(arguments: [
        ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="),
        ("foobar", "Zm9vYmFy"),
    ])
    func base64(_ plain: String, _ coded: String) {
        #expect(Base64.encode(bytes(plain).span) == bytes(coded))
        #expect(Base64.decode(bytes(coded).span) == bytes(plain))
        let url = bytes(coded).filter { $0 != 61 }
        #expect(Base64.encode(bytes(plain).span, urlSafe: true) == url)
        #expect(Base64.decode(url.span, urlSafe: true) == bytes(plain))
        #expect(Base64.decode(bytes(coded).span, urlSafe: true) == bytes(plain))
    }

    @Test(arguments: ["Zg", "Zg=", "Zh==", "Zm9", "Z", "Zm9v\n", " Zm9v", "Zm9v====", "=", "Zm-v", "Zg==Zg=="])
    func base64Refuses(_ text: String) {
        #expect(Base64.decode(bytes(text).span) == nil)
    }

    @Test(arguments: ["Zg=", "Zh", "Z", "Zm+v", "Zm/v", "Zg ="])
    func base64URLRefuses(_ text: String) {
        #expect(Base64.decode(bytes(text).span, urlSafe: true) == nil)
    }

    @Test func everyByteComesBack() {
        for count in 0..<70 {
            let data = (0..<count).map { UInt8(truncatingIfNeeded: $0 * 37 + count) }
            #expect(Base64.decode(Base64.encode(data.span).span) == data)
            #expect(Base64.decode(Base64.encode(data.span, urlSafe: true).span, urlSafe: true) == data)
            #expect(Hex.decode(Hex.encode(data.span).span) == data)
            #expect(PercentEncoding.decode(PercentEncoding.encode(data.span).span) == data)
        }
    }

    @Test func hex() {
        #expect(Hex.encode([0, 255, 16].span) == bytes("00ff10"))
        #expect(Hex.decode(bytes("00fF10").span) == [0, 255, 16])
        #expect(Hex.decode(bytes("0").span) == nil)
        #expect(Hex.decode(bytes("0g").span) == nil)
    }

    @Test func percent() {
        #expect(PercentEncoding.encode(bytes("a b/ü~").span) == bytes("a%20b%2F%C3%BC~"))
        #expect(PercentEncoding.decode(bytes("a+%2f").span) == bytes("a+/"))
        #expect(PercentEncoding.decode(bytes("%2").span) == nil)
        #expect(PercentEncoding.decode(bytes("%zz").span) == nil)
    }

    @Test func urls() {
        let url = URLParts("https://Shop.example:8443/a/b?x=1&y#top")
        #expect(url?.scheme == "https")
        #expect(url?.host == "shop.example")
        #expect(url?.port == 8443)
        #expect(url?.path == "/a/b")
        #expect(url?.query == "x=1&y")
        #expect(url?.fragment == "top")
        #expect(URLParts("/only/path?q")?.path == "/only/path")
        #expect(URLParts("http://[::1]:80/")?.host == "[::1]")
        for bad in ["http://user@host/", "http://h:99999/", "http:// /", "http:///x", "a b"] {
            #expect(URLParts(bad) == nil, "\(bad)")
        }
    }
}

@Suite struct DigestTests {
    /// FIPS 180-4 and RFC 1321 examples for "abc".
    @Test(arguments: [
        (Digest.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (.sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (.md5, "900150983cd24fb0d6963f7d28e17f72"),
        (
            .sha512,
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
                + "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        ),
    ])
    func knownVectors(_ digest: Digest, _ hex: String) {
        let hash = digest.hash(Array("abc".utf8).span) ?? []
        #expect(String(decoding: Hex.encode(hash.span), as: UTF8.self) == hex)
    }

    @Test func emptyInput() {
        let hash = Digest.sha256.hash([UInt8]().span) ?? []
        #expect(String(decoding: Hex.encode(hash.span), as: UTF8.self).hasPrefix("e3b0c442"))
    }
}

@Suite struct RandomTests {
    @Test func uuids() throws {
        var random = RandomSource(seed: 1)
        let four = String(decoding: UUIDText.v4(&random), as: UTF8.self)
        #expect(four.wholeMatch(of: /[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}/) != nil)
        let seven = String(decoding: UUIDText.v7(&random, milliseconds: 0x017f_22e2_79b0), as: UTF8.self)
        #expect(seven.hasPrefix("017f22e2-79b0-7"))
        #expect(seven.wholeMatch(of: /[0-9a-f-]{14}7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}/) != nil)
        #expect(four != String(decoding: UUIDText.v4(&random), as: UTF8.self))
    }

    @Test func aSeedFixesTheSequence() {
        var a = RandomSource(seed: 7)
        var b = RandomSource(seed: 7)
        #expect(a.bytes(13) == b.bytes(13))
        #expect(a.next() == b.next())
    }

    @Test func theKernelsNumbersDiffer() {
        var random = RandomSource()
        #expect(Set((0..<200).map { _ in random.next() }).count == 200)
        #expect(random.bytes(0).isEmpty)
        #expect((0..<100).allSatisfy { _ in (0..<1).contains(random.unit()) })
    }
}

@Suite struct DateTextTests {
    @Test(
        arguments: [
            ("1970-01-01T00:00:00Z", 0), ("2026-11-24T17:42:31.250Z", 1_795_542_151_250),
            ("1994-11-06T08:49:37Z", 784_111_777_000), ("2000-02-29T23:59:59Z", 951_868_799_000),
            ("1969-12-31T23:59:59Z", -1000),
        ] as [(String, Int64)])
    func roundTrip(_ text: String, _ time: Int64) {
        #expect(DateText.parse(text) == time)
        #expect(DateText.rfc3339(time) == text)
    }

    @Test func offsetsAndDates() {
        #expect(DateText.parse("1996-12-19T16:39:57-08:00") == DateText.parse("1996-12-20T00:39:57Z"))
        #expect(DateText.parse("2026-11-24") == DateText.parse("2026-11-24T00:00:00Z"))
        #expect(DateText.parse("2026-11-24t00:00:00.1239z") == DateText.parse("2026-11-24T00:00:00.123Z"))
    }

    @Test(arguments: [
        "", "2026-02-29", "2026-13-01", "2026-1-01", "2026-01-01T24:00:00Z", "2026-01-01T00:00:00",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00+0100", "2026-01-01T00:00:00Zx", "2026-00-10",
    ])
    func refuses(_ text: String) {
        #expect(DateText.parse(text) == nil)
    }

    @Test func layouts() {
        #expect(
            DateText.format(1_795_542_151_250, layout: "%Y/%m/%d %H:%M:%S.%L %j %% %s")
                == "2026/11/24 17:42:31.250 328 % 1795542151")
        #expect(DateText.format(0, layout: "%Q") == nil)
        #expect(DateText.format(0, layout: "%F %T") == "1970-01-01 00:00:00")
    }
}

@Suite struct EditDistanceTests {
    @Test(arguments: [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("canray", "canary", 1), ("ab", "ba", 1)])
    func distances(_ a: String, _ b: String, _ distance: Int) {
        #expect(EditDistance.between(a, b) == distance)
        #expect(EditDistance.between(b, a) == distance)
    }

    @Test func nearest() {
        let names = ["header", "value", "pattern", "canary"]
        #expect(EditDistance.nearest(to: "canray", among: names) == "canary")
        #expect(EditDistance.nearest(to: "Header", among: names) == "header")
        #expect(EditDistance.nearest(to: "zzz", among: names) == nil)
    }
}
