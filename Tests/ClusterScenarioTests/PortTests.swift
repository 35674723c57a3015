// Ports of TCP and UDP services in a cluster.

import ClusterTesting
import Foundation
import KubernetesAPI
import MoongateTesting
import Reactor
import Synchronization
import Testing

/// What stands behind a Service of UDP: answers each datagram with its name before it.
final class DatagramPod: Sendable {
    let listener: Listener
    private let isOver = Mutex(false)

    init(_ name: String, host: String) throws {
        guard let address = NetworkAddress(host: host, port: 0) else {
            throw StageFailure(description: "\(host) is no address")
        }
        listener = try Listener(address, .datagrams)
        let listener = listener
        Thread.detachNewThread { [self] in
            guard let poller = Self.poller(listener.socket) else { return }
            let batch = DatagramBatch()
            let answer = DatagramBatch()
            while !isOver.withLock({ $0 }) {
                _ = poller.wait(milliseconds: 100)
                while case .count(let count) = batch.receive(from: listener.socket, isAddressed: true) {
                    for i in 0..<count {
                        answer.removeAll()
                        answer.append(Array("\(name) ".utf8) + batch.datagram(i))
                        _ = answer.send(0..<1, on: listener.socket, to: batch.peer(i))
                    }
                }
            }
            listener.close()
        }
    }

    /// Waits for what comes to a socket.
    static func poller(_ socket: Socket) -> Poller? {
        guard let poller = try? Poller(capacity: 1) else { return nil }
        return (try? poller.watch(socket, Token(kind: 1, index: 0, generation: 0))) == nil ? nil : poller
    }

    var port: Int { Int(listener.address.port) }
    func leave() { isOver.withLock { $0 = true } }
}

/// Asks by UDP, from one port for as long as it lives.
struct DatagramClient: Sendable {
    private let socket: Socket

    init(to port: UInt16) throws {
        guard case .connected(let socket) = Socket.connect(to: NetworkAddress(v4: 0x7f00_0001, port: port), .datagrams)
        else { throw StageFailure(description: "no socket for datagrams") }
        self.socket = socket
    }

    /// Asks until the answer is this one; nil waits until nobody is there.
    func wait(for wanted: String?) async throws {
        let socket = socket
        let last = await blocking { () -> String? in
            let deadline = Deadline(after: .seconds(30))
            let batch = DatagramBatch()
            guard let poller = DatagramPod.poller(socket) else { return "no poller" }
            var last = "nothing"
            while !deadline.passed {
                batch.removeAll()
                batch.append(Array("hi".utf8))
                var result = batch.send(0..<1, on: socket)
                if result == .count(1) {
                    _ = poller.wait(milliseconds: 50)
                    result = batch.receive(from: socket, isAddressed: false)
                }
                if result == .unreachable, wanted == nil { return nil }
                guard case .count(let count) = result, count > 0, batch.count > 0 else { continue }
                last = String(decoding: batch.datagram(batch.count - 1), as: UTF8.self)
                if last == wanted { return nil }
            }
            return last
        }
        if let last { throw StageFailure(description: "\(wanted ?? "silence") is wanted, and heard: \(last)") }
    }

    func close() { socket.close() }
}

@Suite(.timeLimit(.minutes(10))) struct PortTests {
    private func map(_ name: String, _ data: [String: String]) -> ConfigMap {
        ConfigMap(metadata: ObjectMeta(name: name, namespace: "shop"), data: data)
    }

    /// Below the ephemeral ports, so that the kernel gives none of them away before it is bound.
    private static let candidates = Mutex(UInt32(getpid()) &* 61)

    private func freePort(_ kind: SocketKind) throws -> UInt16 {
        while true {
            let number = Self.candidates.withLock { number in
                number = (number + 1) % 10_000
                return UInt16(20_000 + number)
            }
            guard let listener = try? Listener(NetworkAddress(v4: 0x7f00_0001, port: number), kind) else { continue }
            listener.close()
            return number
        }
    }

    private func datagrams(at port: Int) -> EndpointSlice {
        var made = slice("dns-1", service: "dns", port: port, ready(Stage.podHost))
        made.ports = [SlicePort(name: "dns", port: port)]
        made.ports[0].protocol = "UDP"
        return made
    }

    @Test func `ports of TCP and UDP services follow their ConfigMaps and their endpoints`() async throws {
        try await Stage.play { stage in
            try await stage.openShop()
            // By their names, and no others.
            stage.deny { $0.resource == "configmaps" && $0.name == nil }
            let pods = [try DatagramPod("one", host: Stage.podHost), try DatagramPod("two", host: Stage.podHost)]
            stage.atEnd { for pod in pods { pod.leave() } }
            var dns = Service(metadata: ObjectMeta(name: "dns", namespace: "shop"))
            dns.spec.ports = [ServicePort(port: 53, name: "dns", targetPort: .string("dns"))]
            dns.spec.ports[0].protocol = "UDP"
            try await stage.cluster.apply(dns)
            try await stage.cluster.apply(datagrams(at: pods[0].port))
            let (tcp, first, second) = (try freePort(.stream), try freePort(.datagrams), try freePort(.datagrams))
            let replica = try await stage.replica(
                "moongate", ["--tcp-services-configmap", "shop/tcp", "--udp-services-configmap", "shop/udp"])
            try await replica.waitUntilReady()
            #expect(await replica.page("/diagnostics").contains("MG200"))
            let client = try DatagramClient(to: first)
            try await client.wait(for: nil)

            try await stage.cluster.apply(map("udp", ["\(first)": "shop/dns:53"]))
            try await client.wait(for: "one hi")
            try await stage.cluster.apply(map("tcp", ["\(tcp)": "shop/web:80"]))
            let web = Replica(
                process: replica.process, http: SocketAddress(host: replica.http.host, port: tcp), https: nil,
                admin: replica.admin,
                webhook: nil)
            try await web.waitFor(200, "v1")
            try await replica.wait(for: "/diagnostics") { !$0.contains("MG200") }

            // Endpoints alone, which take a shorter way; the client stays who it is.
            try await stage.cluster.apply(datagrams(at: pods[1].port))
            try await client.wait(for: "two hi")
            try await stage.cluster.apply(datagrams(at: pods[0].port))
            try await client.wait(for: "one hi")

            // One port more, then the other alone, then none.
            let other = try DatagramClient(to: second)
            try await stage.cluster.apply(map("udp", ["\(first)": "shop/dns:53", "\(second)": "shop/dns:dns"]))
            try await other.wait(for: "one hi")
            try await client.wait(for: "one hi")
            try await stage.cluster.apply(map("udp", ["\(second)": "shop/dns:dns"]))
            try await client.wait(for: nil)
            try await other.wait(for: "one hi")
            try await stage.cluster.delete(ConfigMap.self, namespace: "shop", name: "udp")
            try await other.wait(for: nil)
            try await replica.wait(for: "/diagnostics") { $0.contains("MG200") }
            try await web.waitFor(200, "v1")
            client.close()
            other.close()
        }
    }
}
