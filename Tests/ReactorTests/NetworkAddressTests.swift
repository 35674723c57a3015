import Testing

@testable import Reactor

@Suite struct SocketAddressTests {
    @Test(arguments: [
        ("127.0.0.1:80", "127.0.0.1:80", NetworkAddress.Family.v4), ("0.0.0.0:0", "0.0.0.0:0", .v4),
        ("255.1.2.3:65535", "255.1.2.3:65535", .v4), ("[::1]:443", "[::1]:443", .v6),
        ("[2001:DB8::5]:1", "[2001:db8::5]:1", .v6), ("[::ffff:10.1.2.3]:8080", "10.1.2.3:8080", .v4),
    ])
    func readsAndWrites(input: String, output: String, family: NetworkAddress.Family) {
        let address = NetworkAddress(input)
        #expect(address?.description == output)
        #expect(address?.family == family)
    }

    @Test(arguments: [
        "", "80", "localhost:80", "1.2.3:80", "1.2.3.4", "1.2.3.4:65536", "::1:80", "[::1]", "1.2.3.4:-1",
    ])
    func refusesWhatIsNoAddress(input: String) {
        #expect(NetworkAddress(input) == nil)
    }
}
