import Model
import Testing

@testable import HTTPWire

@Suite struct AcceptEncodingTests {
    static let preference = CodingList([.zstd, .brotli, .gzip])

    /// The value of Accept-Encoding, and what is sent to whom says that (RFC 9110 §12.5.3).
    static let table: [(String, ContentCoding?)] = [
        ("gzip", .gzip), ("GZIP", .gzip), ("x-gzip", .gzip), ("br", .brotli), ("zstd", .zstd),
        ("gzip, deflate, br, zstd", .zstd), ("gzip, deflate, br", .brotli), ("gzip,br", .brotli),
        ("", nil), ("identity", nil), ("deflate", nil), ("compress, deflate", nil), ("gzipped", nil),
        ("*", .zstd), ("*;q=0", nil), ("gzip;q=0, *", .zstd), ("zstd;q=0,*", .brotli), ("*;q=0, gzip", .gzip),
        ("zstd;q=0, br;q=0, *;q=0.1", .gzip),
        ("gzip;q=1, br;q=0.5", .gzip), ("gzip;q=0.5, br;q=0.5", .brotli), ("br;q=0.001", .brotli),
        ("br;q=0.999, gzip;q=1.0", .gzip), ("br;q=1.000", .brotli), ("br;q=1.", .brotli), ("br;q=0.", nil),
        ("gzip;q=0", nil), ("gzip;q=0.0", nil), ("gzip;q=0.000", nil),
        ("gzip ; q=0.5", .gzip), ("gzip;\tQ=0.5", .gzip), (" \tgzip\t ,, ", .gzip),
        // What is preferred to all of ours.
        ("identity, gzip;q=0.5", nil), ("identity;q=0.5, gzip;q=0.4", nil), ("identity;q=0.5, gzip;q=0.5", .gzip),
        ("identity;q=0, gzip", .gzip), ("identity;q=0", nil), ("*;q=0.5, identity;q=0.6", nil),
        // What is no element names nothing.
        ("gzip;q=1.001", nil), ("gzip;q=2", nil), ("gzip;q=-1", nil), ("gzip;q=.5", nil), ("gzip;q", nil),
        ("gzip;q=0.1234", nil), ("gzip;level=1", nil), ("gzip;q=0.5;x=1", nil), ("gzip q=1", nil),
        ("gzip;q=x, br", .brotli), ("\"gzip\"", nil),
        // Named twice: the first counts.
        ("gzip;q=0, gzip", nil), ("gzip, gzip;q=0", .gzip),
    ]

    @Test(arguments: table)
    func whatTheClientReads(_ value: String, _ expected: ContentCoding?) {
        #expect(AcceptEncoding(bytes(value).span).choose(from: Self.preference) == expected)
    }

    @Test func aClientThatSaysNothingGetsItAsItIs() {
        #expect(AcceptEncoding().choose(from: Self.preference) == nil)
        let head = parse(bytes("GET / HTTP/1.1\r\nHost: a\r\n\r\n")).head
        #expect(AcceptEncoding(head) == AcceptEncoding())
    }

    @Test func linesAreOneList() {
        let head = parse(
            bytes("GET / HTTP/1.1\r\nAccept-Encoding: br;q=0.5\r\nHost: a\r\naccept-encoding: gzip\r\n\r\n")
        )
        .head
        #expect(AcceptEncoding(head).choose(from: Self.preference) == .gzip)
    }

    @Test func ourPreferenceDecidesWhatTheClientLeavesOpen() {
        let all = AcceptEncoding(bytes("gzip, br, zstd").span)
        #expect(all.choose(from: CodingList([.gzip, .zstd])) == .gzip)
        #expect(all.choose(from: CodingList([.brotli])) == .brotli)
        #expect(all.choose(from: CodingList()) == nil)
    }

    @Test(arguments: [
        ("identity;q=0", true), ("*;q=0", true), ("gzip, *;q=0", true), ("*;q=0, identity", false), ("gzip", false),
        ("", false), ("identity;q=0.001", false),
    ])
    func whoRefusesIdentity(_ value: String, _ refuses: Bool) {
        #expect(AcceptEncoding(bytes(value).span).refusesIdentity == refuses)
    }
}
