import Model
import Testing

struct AddressTests {
    @Test(arguments: [
        ("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "0.0.0.0"), ("255.255.255.255", "255.255.255.255"), ("::1", "::1"),
        ("::", "::"), ("2001:DB8::1", "2001:db8::1"), ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"),
        ("1:0:0:2:0:0:0:3", "1:0:0:2::3"), ("::ffff:10.0.0.1", "10.0.0.1"), ("fe80::1:0:0:1", "fe80::1:0:0:1"),
        ("1::", "1::"), ("0:1:2:3:4:5:6:7", "0:1:2:3:4:5:6:7"),
    ])
    func `an address is read and written in its canonical form`(text: String, canonical: String) throws {
        let ip = try #require(IPAddress(text))
        #expect(ip.description == canonical)
        #expect(IPAddress(ip.description) == ip)
    }

    @Test(arguments: [
        "", "1", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "1.2.3.4 ", "+1.2.3.4", ":", ":::", "1:2", "1::2::3",
        "1:2:3:4:5:6:7:8:9", "12345::", "g::", "[::1]", "fe80::1%eth0", "1.2.3.4::", "::1.2.3", "1:2:3:4:5:6:7::8",
    ])
    func `what is no address is refused`(text: String) {
        #expect(IPAddress(text) == nil)
    }

    @Test(arguments: [
        ("10.0.0.0/8", "10.255.0.1", true), ("10.0.0.0/8", "11.0.0.0", false), ("0.0.0.0/0", "9.9.9.9", true),
        ("0.0.0.0/0", "2001::1", false), ("::/0", "2001::1", true), ("::/0", "1.2.3.4", true),
        ("2001:db8::/33", "2001:db8:7fff::1", true), ("2001:db8::/33", "2001:db8:8000::1", false),
        ("127.0.0.1", "127.0.0.1", true), ("127.0.0.1", "127.0.0.2", false), ("fd00::/64", "fd00::1:2:3:4", true),
        ("fd00::/65", "fd00::8000:0:0:1", false), ("192.168.7.9/16", "192.168.200.1", true),
    ])
    func `a block contains what its prefix says`(block: String, ip: String, expected: Bool) throws {
        #expect(try #require(AddressBlock(block)).contains(#require(IPAddress(ip))) == expected)
    }

    @Test(arguments: [
        ("127.0.0.1", true), ("127.255.255.255", true), ("0.0.0.0", true), ("0.1.2.3", true), ("::", true),
        ("::1", true), ("::ffff:127.0.0.1", true), ("126.255.255.255", false), ("128.0.0.0", false), ("::2", false),
        ("fe80::1", false), ("10.0.0.1", false),
    ])
    func `some addresses stay on this host`(ip: String, expected: Bool) throws {
        #expect(try #require(IPAddress(ip)).isThisHost == expected)
    }

    @Test(arguments: [
        "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/8/9", "/8", "10/8", "::/129", "10.0.0.0/", "x",
    ])
    func `what is no block is refused`(text: String) {
        #expect(AddressBlock(text) == nil)
    }

    @Test(arguments: [
        ("127.0.0.1:80", "127.0.0.1:80"), ("[::1]:8080", "[::1]:8080"), ("[::ffff:1.2.3.4]:1", "1.2.3.4:1"),
    ])
    func `an address with a port is read`(text: String, canonical: String) {
        #expect(SocketAddress(text)?.description == canonical)
    }

    @Test(arguments: [
        "127.0.0.1", "::1:80", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", ":80", "[::1]", "host:80",
    ])
    func `what has no address or no port is refused`(text: String) {
        #expect(SocketAddress(text) == nil)
    }
}
