// How addresses are listened on: one socket a loop, IPv4 and IPv6.
internal import Model
internal import Reactor

enum Listeners {
    /// One listener a loop on the same address. A port 0 is filled in by the first.
    ///
    /// `[::]` stands for every address of the machine, IPv4 included; where `0.0.0.0` with the same port is asked for
    /// `beside` it, each takes its own family; and where the machine has no IPv6, `0.0.0.0` stands in for it.
    static func open(
        _ wanted: Model.SocketAddress, _ kind: SocketKind = .stream, count: Int, beside others: [Model.SocketAddress]
    ) throws(SystemError) -> [Listener] {
        let isDualStack = isDualStack(wanted, others)
        do {
            return try open(NetworkAddress(wanted), kind, count, isDualStack)
        } catch {
            guard error.isFamilyMissing, NetworkAddress(wanted).isUnspecified, isDualStack else { throw error }
            return try open(NetworkAddress(v4: 0, port: wanted.port), kind, count, false)
        }
    }

    /// Whether another process takes connections, or datagrams, at this address already, and would have a part of them.
    static func isTaken(
        _ wanted: Model.SocketAddress, _ kind: SocketKind = .stream, beside others: [Model.SocketAddress]
    ) -> Bool {
        wanted.port != 0 && Listener.isTaken(NetworkAddress(wanted), kind, isDualStack: isDualStack(wanted, others))
    }

    private static func isDualStack(_ wanted: Model.SocketAddress, _ others: [Model.SocketAddress]) -> Bool {
        !others.contains { $0.ip == IPAddress(v4: 0) && $0.port == wanted.port && $0.port != 0 }
    }

    private static func open(
        _ wanted: NetworkAddress, _ kind: SocketKind, _ count: Int, _ isDualStack: Bool
    ) throws(SystemError) -> [Listener] {
        var address = wanted
        var made: [Listener] = []
        do {
            for _ in 0..<count {
                let listener = try Listener(address, kind, isDualStack: isDualStack)
                address = listener.address
                made.append(listener)
            }
        } catch {
            for listener in made { listener.close() }
            throw error
        }
        return made
    }
}
