import Model
import Testing

@testable import HTTPWire

@Suite struct ProxyHeaderTests {
    static let signature: [UInt8] = [13, 10, 13, 10, 0, 13, 10, 0x51, 0x55, 0x49, 0x54, 10]
    static let four: [UInt8] = [203, 0, 113, 7, 198, 51, 100, 1, 0x15, 0xb3, 0x01, 0xbb]

    static func binary(_ command: UInt8, _ family: UInt8, _ payload: [UInt8], length: Int? = nil) -> [UInt8] {
        let length = length ?? payload.count
        return signature + [command, family, UInt8(length >> 8), UInt8(length & 255)] + payload
    }

    /// The longest address that there is.
    static let ones = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"

    private func parse(_ input: [UInt8]) -> ProxyHeader.Progress { ProxyHeader.parse(input.span) }

    private func ends(_ source: String, _ destination: String) throws -> ProxyHeader {
        ProxyHeader(
            ends: .init(
                source: try #require(SocketAddress(source)), destination: try #require(SocketAddress(destination))))
    }

    @Test(arguments: [
        ("PROXY TCP4 203.0.113.7 198.51.100.1 5555 443\r\n", "203.0.113.7:5555", "198.51.100.1:443"),
        (
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535",
            "255.255.255.255:65535"
        ),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 0 0\r\n", "1.2.3.4:0", "1.2.3.4:0"),
        ("PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", "[2001:db8::1]:1", "[2001:db8::2]:2"),
        (
            "PROXY TCP6 \(ones) \(ones) 65535 65535\r\n", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
            "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"
        ),
    ])
    func lineNamesBothEnds(line: String, source: String, destination: String) throws {
        let input = bytes(line) + bytes("GET / HTTP/1.1\r\n")
        #expect(parse(input) == .complete(try ends(source, destination), consumed: line.utf8.count))
        #expect(OpeningChecks.opening(input) == nil)
    }

    @Test(arguments: [
        "PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", "PROXY UNKNOWN whatever else\r\n",
    ])
    func unknownNamesNobody(line: String) {
        #expect(parse(bytes(line)) == .complete(ProxyHeader(), consumed: line.utf8.count))
        #expect(OpeningChecks.opening(bytes(line)) == nil)
    }

    @Test(arguments: [
        ("GET / HTTP/1.1\r\n", ProxyHeaderFault.missing), ("P0", .missing), ("proxy TCP4", .missing),
        ("\u{16}\u{3}\u{1}", .missing), ("\r\n\r\n\0\r\nQUIX", .missing), ("PROXY\tTCP4", .missing),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", .malformed), ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r ", .malformed),
        ("PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", .malformed), ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", .malformed),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", .malformed), ("PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", .malformed),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", .malformed), ("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", .malformed),
        ("PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n", .malformed), ("PROXY TCP4 ::1 ::1 1 2\r\n", .malformed),
        ("PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", .malformed), ("PROXY TCP6 fe80::1%1 ::1 1 2\r\n", .malformed),
        ("PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", .malformed), ("PROXY \r\n", .malformed), ("PROXY TCP4\0", .malformed),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 \u{7f}", .malformed),
        ("PROXY UNKNOWN " + String(repeating: "x", count: 93), .tooLong),
    ])
    func lineThatIsNone(line: String, fault: ProxyHeaderFault) {
        #expect(parse(bytes(line)) == .failed(fault))
        #expect(OpeningChecks.opening(bytes(line)) == nil)
    }

    @Test func longestLineIsTaken() {
        let line = "PROXY UNKNOWN " + String(repeating: "x", count: 91) + "\r\n"
        #expect(line.utf8.count == ProxyHeader.maxLine)
        #expect(parse(bytes(line)) == .complete(ProxyHeader(), consumed: 107))
        #expect(OpeningChecks.opening(bytes(line)) == nil)
    }

    @Test func binaryNamesBothEnds() throws {
        let v4 = Self.binary(0x21, 0x11, Self.four)
        #expect(
            parse(v4 + [1, 2]) == .complete(try ends("203.0.113.7:5555", "198.51.100.1:443"), consumed: v4.count))
        // TLVs, known or not, are passed over; their checksum is looked at.
        let tlvs = Self.binary(0x21, 0x11, Self.four + [0x03, 0, 4, 128, 29, 218, 196, 0xee, 0, 0, 0x04, 0, 1, 9])
        #expect(parse(tlvs) == .complete(try ends("203.0.113.7:5555", "198.51.100.1:443"), consumed: tlvs.count))
        let loopback = [UInt8](repeating: 0, count: 15) + [1]
        let six = loopback + [0x20, 1, 0x0d, 0xb8] + [UInt8](repeating: 0, count: 11) + [2]
        let v6 = Self.binary(0x21, 0x21, six + [0, 80, 0x20, 0xfb])
        #expect(parse(v6) == .complete(try ends("[::1]:80", "[2001:db8::2]:8443"), consumed: v6.count))
        for input in [v4, tlvs, v6] { #expect(OpeningChecks.opening(input) == nil) }
    }

    @Test(arguments: [
        // No family, whatever it carries; Unix sockets; datagrams.
        binary(0x21, 0x00, []), binary(0x21, 0x00, [9, 9]), binary(0x21, 0x31, [UInt8](repeating: 7, count: 216)),
        binary(0x21, 0x12, four), binary(0x21, 0x01, []), binary(0x21, 0x00, [0x04, 0, 1, 9]),
        binary(0x21, 0x00, [0x03, 0, 4] + sum),
    ])
    func binaryNamesNobody(input: [UInt8]) {
        #expect(parse(input) == .complete(ProxyHeader(), consumed: input.count))
        #expect(OpeningChecks.opening(input) == nil)
    }

    /// CRC32c of a header without a family, and nothing but it.
    static let sum: [UInt8] = {
        let header = binary(0x21, 0x00, [0x03, 0, 4, 0, 0, 0, 0])
        let sum = ProxyHeader.checksum(header.span, to: header.count, without: 19)
        return (0..<4).map { UInt8(truncatingIfNeeded: sum >> UInt32(24 - 8 * $0)) }
    }()

    /// LOCAL, whatever it carries.
    @Test(arguments: [
        binary(0x20, 0x00, []), binary(0x20, 0x11, four), binary(0x20, 0x21, [1, 2, 3]),
        binary(0x20, 0xff, [3, 0, 4, 1]),
    ])
    func balancerSpeaksForItself(input: [UInt8]) {
        #expect(parse(input) == .complete(ProxyHeader(isLocal: true), consumed: input.count))
        #expect(OpeningChecks.opening(input) == nil)
    }

    @Test(arguments: [
        // A version and a command that there are not; less than the addresses take; more than is taken.
        (binary(0x11, 0x11, four), ProxyHeaderFault.malformed), (binary(0x31, 0x11, four), .malformed),
        (binary(0x22, 0x11, four), .malformed), (binary(0x21, 0x11, Array(four.prefix(11))), .malformed),
        (binary(0x21, 0x21, [UInt8](repeating: 1, count: 35)), .malformed), (binary(0x21, 0x11, []), .malformed),
        (binary(0x21, 0x11, four, length: 65_535), .tooLong), (binary(0x21, 0x11, four, length: 4_081), .tooLong),
        (binary(0x20, 0x00, [], length: 4_081), .tooLong),
        // Families and protocols that there are not; no family, and a checksum that is wrong.
        (binary(0x21, 0x41, []), .malformed), (binary(0x21, 0xff, four), .malformed),
        (binary(0x21, 0x13, four), .malformed), (binary(0x21, 0x00, [0x03, 0, 4, 97, 98, 99, 100]), .malformed),
        // TLVs that end behind the header, or in their own beginning; a checksum that is wrong, or none.
        (binary(0x21, 0x11, four + [0x04, 0, 2, 9]), .malformed), (binary(0x21, 0x11, four + [0x04, 0]), .malformed),
        (binary(0x21, 0x11, four + [0x04, 0, 0, 0xee, 255, 255]), .malformed),
        (binary(0x21, 0x11, four + [0x03, 0, 4, 128, 29, 218, 197, 0xee, 0, 0, 0x04, 0, 1, 9]), .malformed),
        (binary(0x21, 0x11, four + [0x03, 0, 3, 1, 2, 3]), .malformed),
    ])
    func binaryThatIsNone(input: [UInt8], fault: ProxyHeaderFault) {
        #expect(parse(input) == .failed(fault))
        #expect(OpeningChecks.opening(input) == nil)
    }

    /// Both ends, the line of version 1, and the bytes of version 2 behind its signature.
    @Test(
        arguments: [
            (
                "203.0.113.7:5555", "192.0.2.1:443", "PROXY TCP4 203.0.113.7 192.0.2.1 5555 443\r\n",
                [0x21, 0x11, 0, 12, 203, 0, 113, 7, 192, 0, 2, 1, 0x15, 0xb3, 1, 0xbb]
            ),
            (
                "[2001:db8::1]:5", "[2001:db8::2]:65535", "PROXY TCP6 2001:db8::1 2001:db8::2 5 65535\r\n",
                [0x21, 0x21, 0, 36] + v6(0x20, 1, 0xd, 0xb8, last: 1) + v6(0x20, 1, 0xd, 0xb8, last: 2) + [
                    0, 5, 255, 255,
                ]
            ),
            // One family for both: IPv4 has a place in IPv6.
            (
                "[2001:db8::1]:5", "192.0.2.1:6", "PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 5 6\r\n",
                [0x21, 0x21, 0, 36] + v6(0x20, 1, 0xd, 0xb8, last: 1) + mapped(192, 0, 2, 1) + [0, 5, 0, 6]
            ),
            (
                "192.0.2.1:0", "[2001:db8::1]:5", "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 0 5\r\n",
                [0x21, 0x21, 0, 36] + mapped(192, 0, 2, 1) + v6(0x20, 1, 0xd, 0xb8, last: 1) + [0, 0, 0, 5]
            ),
        ] as [(String, String, String, [UInt8])])
    func isWritten(source: String, destination: String, line: String, behind: [UInt8]) throws {
        let ends = ProxyHeader.Ends(
            source: try #require(SocketAddress(source)), destination: try #require(SocketAddress(destination)))
        var text: [UInt8] = []
        ProxyHeader(ends: ends).write(.v1, to: &text)
        #expect(String(decoding: text, as: UTF8.self) == line)
        #expect(parse(text) == .complete(ProxyHeader(ends: ends), consumed: text.count))
        var binary: [UInt8] = []
        ProxyHeader(ends: ends).write(.v2, to: &binary)
        #expect(Array(binary.dropFirst(12)) == behind)
        #expect(parse(binary) == .complete(ProxyHeader(ends: ends), consumed: binary.count))
    }

    /// Where the ends are not known, whoever reads it is to take his own.
    @Test(arguments: [
        (ProxyProtocolVersion.v1, false, Array("PROXY UNKNOWN\r\n".utf8)),
        (.v1, true, Array("PROXY UNKNOWN\r\n".utf8)),
        (.v2, false, [13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10, 0x21, 0, 0, 0]),
        (.v2, true, [13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10, 0x20, 0, 0, 0]),
    ])
    func unknownIsWritten(version: ProxyProtocolVersion, isLocal: Bool, bytes: [UInt8]) {
        var output: [UInt8] = [7]
        ProxyHeader(isLocal: isLocal).write(version, to: &output)
        #expect(output == [7] + bytes)
        #expect(parse(bytes) == .complete(ProxyHeader(isLocal: isLocal && version == .v2), consumed: bytes.count))
    }

    private static func v6(_ first: UInt8..., last: UInt8) -> [UInt8] {
        first + [UInt8](repeating: 0, count: 15 - first.count) + [last]
    }

    private static func mapped(_ bytes: UInt8...) -> [UInt8] { [UInt8](repeating: 0, count: 10) + [255, 255] + bytes }

    /// Good headers with bytes changed: one answer, however they are cut, and never one that reads too far.
    @Test func changedAtRandom() {
        var random = Random(seed: 11)
        let seeds =
            [
                bytes("PROXY TCP4 203.0.113.7 198.51.100.1 5555 443\r\nGET"), bytes("PROXY UNKNOWN\r\n"),
                bytes("PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n"), Self.binary(0x21, 0x11, Self.four + [3, 0, 1, 5]),
                Self.binary(0x21, 0x21, [UInt8](repeating: 3, count: 36)), Self.binary(0x20, 0, []),
            ] + ClientHelloTests.seeds
        for round in 0..<6_000 {
            var input = seeds[round % seeds.count]
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                input[Int.random(in: 0..<input.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            #expect(OpeningChecks.opening(input) == nil, "\(input)")
        }
    }
}
