import Model
import Reactor
import Routing
import Telemetry
import Testing

@testable import Proxy

/// UDP services over a simulated network.
@Suite struct LoopDatagramTests {
    private final class Stage {
        let scene: Scene
        let port: DatagramWire
        private let descriptor: Int32

        init(
            _ endpoints: [UInt16] = [8001], most: Int = 100, clients: ClientConnections? = nil,
            configure: (inout ProxyConfiguration) -> Void = { _ in }
        ) throws {
            scene = Scene(
                endpoints: endpoints, datagrams: [UDPService(port: 53, upstream: 0)], sessionClients: clients
            ) { configuration in
                configuration.sessions.most = most
                configure(&configuration)
            }
            (descriptor, port) = scene.network.makeDatagramPort()
            scene.loop.listen([listener])
        }

        var listener: PortListener {
            PortListener(
                id: 0, kind: .datagrams,
                listener: Listener(
                    socket: Socket(descriptor: descriptor), address: NetworkAddress(v4: 0, port: 53)))
        }

        static func client(_ n: Int) -> NetworkAddress { NetworkAddress(v4: 0xc0a8_0000 + UInt32(n), port: 4000) }
        static let local = NetworkAddress(v4: 0x0a00_00fe, port: 0)

        func send(_ texts: [(Int, String)]) {
            for (n, text) in texts {
                port.inbound.append(.init(bytes: Array(text.utf8), peer: Self.client(n), local: Self.local))
            }
            scene.network.edge(port)
            scene.dispatch()
        }

        func answer(_ wire: DatagramWire, _ texts: [String]) {
            for text in texts { wire.inbound.append(.init(bytes: Array(text.utf8))) }
            scene.network.edge(wire)
            scene.dispatch()
        }

        /// Nobody is at that endpoint.
        func refuse(_ wire: DatagramWire) {
            wire.faults.append(.unreachable)
            scene.network.edge(wire)
            scene.dispatch()
        }

        func taken(_ wire: DatagramWire) -> [String] {
            defer { wire.outbound = [] }
            return wire.outbound.map { String(decoding: $0.bytes, as: UTF8.self) }
        }

        /// What has gone to clients, and that it left from where they had asked.
        func answers() -> [String] {
            #expect(port.outbound.allSatisfy { $0.local == Self.local })
            defer { port.outbound = [] }
            return port.outbound.map { datagram in
                "\((datagram.peer?.low ?? 0) & 0xffff) \(String(decoding: datagram.bytes, as: UTF8.self))"
            }
        }

        var sessions: [DatagramWire] { scene.network.connected }
        var live: Int { scene.loop.datagrams.sessions.count }

        func publish(_ endpoints: [UInt16], _ generation: UInt64, hasService: Bool = true, upstream: String = "web") {
            var snapshot = Scene.snapshot(endpoints)
            snapshot.upstreams[0].service = upstream
            snapshot.upstreams[0].name = "shop/\(upstream):80"
            if hasService { snapshot.udpServices = [UDPService(port: 53, upstream: 0)] }
            scene.loop.adopt(
                Publication(
                    table: RouteTable(snapshot, generation: generation), sets: [],
                    configuration: scene.loop.configuration, previous: scene.loop.current.publication))
            scene.loop.finishPass()
        }

        func figures() -> [String] {
            scene.loop.telemetry.metrics.publish()
            return scene.hub.render(process: nil).split(separator: "\n")
                .filter { $0.hasPrefix("moongate_udp_") && !$0.hasSuffix(" 0") }
                .map { String($0.dropFirst(13).replacing("{service=\"\"}", with: "").replacing("_total", with: "")) }
        }

        func checkQuiet() {
            #expect(live == 0)
            #expect(scene.network.openDatagramSockets == 1)
            scene.checkQuiet()
        }
    }

    @Test func datagramsPassBothWays() throws {
        let stage = try Stage()
        stage.send([(1, "a"), (1, "b"), (2, "c"), (1, "d")])
        #expect(stage.sessions.count == 2)
        #expect(stage.sessions.allSatisfy { $0.address == NetworkAddress(v4: 0x0a00_0001, port: 8001) })
        #expect(stage.taken(stage.sessions[0]) == ["a", "b", "d"])
        #expect(stage.taken(stage.sessions[1]) == ["c"])
        // Any number of answers, to whom they belong.
        stage.answer(stage.sessions[1], ["x", "", "z"])
        stage.answer(stage.sessions[0], (0..<70).map { "\($0)" })
        while stage.scene.loop.hasReady { stage.scene.loop.finishPass() }
        #expect(stage.answers() == ["2 x", "2 ", "2 z"] + (0..<70).map { "1 \($0)" })
        stage.send([(2, "")])
        #expect(stage.taken(stage.sessions[1]) == [""])
        #expect(
            stage.figures() == [
                "sessions_active 2", "sessions 2", "received_datagrams 5", "sent_datagrams 73", "received_bytes 4",
                "sent_bytes 132",
            ])
        stage.scene.advance(milliseconds: 60_100)
        stage.checkQuiet()
    }

    @Test func manyDatagramsOfOnePass() throws {
        let stage = try Stage(most: 1_000)
        stage.send((0..<300).map { ($0 % 100, "\($0)") })
        while stage.scene.loop.hasReady { stage.scene.loop.finishPass() }
        #expect(stage.sessions.count == 100)
        #expect(stage.sessions.flatMap { stage.taken($0) }.count == 300)
    }

    @Test func sessionLastsAsLongAsSomethingPasses() throws {
        let stage = try Stage { $0.timeouts.sessionIdle = 10_000 }
        stage.send([(1, "a")])
        for _ in 0..<3 {
            stage.scene.advance(milliseconds: 9_000)
            stage.send([(1, "a")])
            stage.scene.advance(milliseconds: 9_000)
            stage.answer(stage.sessions[0], ["b"])
        }
        #expect(stage.sessions.count == 1)
        stage.scene.advance(milliseconds: 10_100)
        stage.checkQuiet()
        stage.send([(1, "a")])
        #expect(stage.sessions.count == 2)
    }

    @Test func whoComesTooLateIsDroppedAndWhoIsThereLives() throws {
        let stage = try Stage(most: 3)
        stage.send([(1, "a"), (2, "a"), (3, "a"), (4, "a"), (5, "a"), (1, "b")])
        #expect(stage.live == 3)
        #expect(stage.taken(stage.sessions[0]) == ["a", "b"])
        #expect(stage.figures().contains("dropped_datagrams{reason=\"session-limit\"} 2"))
        stage.scene.advance(milliseconds: 60_100)
        stage.send([(4, "a")])
        #expect(stage.live == 1)
    }

    @Test func oneClientDoesNotTakeAll() throws {
        let stage = try Stage(clients: ClientConnections(most: 2))
        for port in UInt16(1)...5 {
            stage.port.inbound.append(
                .init(bytes: [1], peer: NetworkAddress(v4: 7, port: port), local: Stage.local))
        }
        stage.send([(1, "a")])
        #expect(stage.live == 3)
        #expect(stage.figures().contains("dropped_datagrams{reason=\"client-limit\"} 3"))
        stage.scene.advance(milliseconds: 60_100)
        stage.checkQuiet()
    }

    @Test func lastAnswerWantedEndsTheSession() throws {
        let stage = try Stage { $0.sessions.answers = 1 }
        stage.send([(1, "a"), (1, "b")])
        stage.answer(stage.sessions[0], ["x"])
        #expect(stage.live == 1)
        stage.answer(stage.sessions[0], ["y"])
        #expect(stage.answers() == ["1 x", "1 y"])
        stage.checkQuiet()
    }

    @Test func endpointsWithNobodyThereAreSkippedAndEjected() throws {
        let stage = try Stage([8001, 8002])
        for n in 1...8 { stage.send([(n, "a")]) }
        let dead = stage.sessions.filter { $0.address?.port == 8001 }
        let alive = stage.sessions.filter { $0.address?.port == 8002 }
        #expect(dead.count == 4 && alive.count == 4)
        for wire in alive { stage.answer(wire, ["x"]) }
        for wire in dead { stage.refuse(wire) }
        #expect(dead.allSatisfy { $0.isClosed })
        // Their clients come again, and are served elsewhere; so is who is new.
        for n in 1...12 { stage.send([(n, "b")]) }
        #expect(stage.sessions.dropFirst(8).allSatisfy { $0.address?.port == 8002 })
        #expect(stage.sessions.count == 16)
        stage.scene.loop.telemetry.metrics.publish()
        let page = stage.scene.hub.render(process: nil)
        #expect(page.contains("moongate_upstream_ejections_total{upstream=\"\"} 1\n"))
        #expect(page.contains("moongate_upstream_connect_failures_total{upstream=\"\"} 4\n"))
        stage.scene.advance(milliseconds: 60_100)
        stage.checkQuiet()
    }

    /// Who is never answered would find an endpoint ejected for ever.
    @Test func endpointThatOnlyListensComesBack() throws {
        let stage = try Stage([8001, 8002])
        for n in 1...4 { stage.send([(n, "a")]) }
        for wire in stage.sessions.filter({ $0.address?.port == 8001 }) { stage.refuse(wire) }
        func recoveries() -> Bool {
            stage.scene.loop.telemetry.metrics.publish()
            return stage.scene.hub.render(process: nil).contains(
                "moongate_upstream_recoveries_total{upstream=\"\"} 1\n")
        }
        // Its time is over: the next client finds out whether it is back.
        stage.scene.advance(milliseconds: 2_000)
        stage.send([(5, "b")])
        let probe = stage.sessions[4]
        #expect(probe.address?.port == 8001)
        stage.scene.advance(milliseconds: 900)
        stage.send([(5, "c")])
        #expect(!recoveries())
        stage.scene.advance(milliseconds: 200)
        stage.send([(5, "d")])
        #expect(recoveries())
        #expect(stage.taken(probe) == ["b", "c", "d"])
        for n in 6...9 { stage.send([(n, "e")]) }
        #expect(stage.sessions.dropFirst(5).filter { $0.address?.port == 8001 }.count == 2)
    }

    /// The kernel tells of an earlier datagram when the next is sent: that one goes to the next endpoint.
    @Test func datagramThatMeetsAnErrorGoesElsewhere() throws {
        let stage = try Stage([8001, 8002, 8003])
        stage.send([(1, "a")])
        stage.sessions[0].faults = [.unreachable]
        stage.send([(1, "b"), (1, "c")])
        #expect(stage.sessions.count == 2)
        #expect(stage.sessions[1].address != stage.sessions[0].address)
        #expect(stage.taken(stage.sessions[1]) == ["b", "c"])
        // Nowhere, and not for ever.
        stage.scene.network.connectFaults = [101, 101, 101, 101, 101, 101, 101, 101]
        stage.sessions[1].faults = [.unreachable]
        stage.send([(1, "d")])
        #expect(stage.figures().contains("dropped_datagrams{reason=\"unreachable\"} 1"))
        #expect(stage.live == 1)
        stage.scene.network.connectFaults = []
        stage.send([(1, "e")])
        #expect(stage.sessions.last.map { stage.taken($0) } == ["e"])
    }

    @Test func withoutDescriptorsNobodyIsToBlame() throws {
        let stage = try Stage()
        stage.scene.network.connectFaults = [24, 24]
        stage.send([(1, "a")])
        #expect(stage.figures() == ["sessions 1", "dropped_datagrams{reason=\"overloaded\"} 1"])
        stage.checkQuiet()
        stage.send([(1, "a")])
        #expect(stage.live == 1)
    }

    @Test func sessionsOutliveReloads() throws {
        let stage = try Stage([8001, 8002])
        stage.send([(1, "a"), (2, "a")])
        let (first, second) = (stage.sessions[0], stage.sessions[1])
        for generation in UInt64(2)...5 { stage.publish([8001, 8002, UInt16(9000 + generation)], generation) }
        stage.send([(1, "b"), (2, "b")])
        #expect(stage.sessions.count == 2)
        // One endpoint goes: what it still says arrives, and its client is served by another from then on.
        let gone = first.address?.port == 8001 ? first : second
        let client = gone === first ? 1 : 2
        stage.publish([8002], 6)
        stage.answer(gone, ["late"])
        #expect(stage.answers() == ["\(client) late"])
        stage.send([(client, "c")])
        #expect(gone.isClosed)
        #expect(stage.sessions.count == 3)
        #expect(stage.sessions[2].address?.port == 8002)
        #expect(stage.taken(stage.sessions[2]) == ["c"])
        #expect(stage.live == 2)
    }

    @Test func portThatLeadsElsewhereTakesItsSessionsAlong() throws {
        let stage = try Stage()
        stage.send([(1, "a")])
        stage.publish([8005], 2, upstream: "other")
        #expect(stage.sessions[0].isClosed)
        stage.send([(1, "b")])
        #expect(stage.sessions[1].address?.port == 8005)
        #expect(stage.live == 1)
        stage.publish([8005], 3, hasService: false)
        #expect(stage.live == 0)
        stage.scene.loop.listen([])
        #expect(stage.scene.network.openDatagramSockets == 0)
        #expect(stage.scene.network.usedAfterClose == 0)
    }

    @Test func serviceWithoutEndpointsKeepsNobody() throws {
        let stage = try Stage()
        stage.send([(1, "a")])
        stage.publish([], 2)
        stage.send([(1, "b"), (2, "b")])
        #expect(stage.live == 1)
        #expect(stage.figures().contains("dropped_datagrams{reason=\"no-endpoint\"} 2"))
        stage.publish([8001], 3)
        stage.send([(1, "c")])
        #expect(stage.taken(stage.sessions[1]) == ["c"])
    }

    @Test func drainServesWhoIsThere() throws {
        let stage = try Stage()
        stage.send([(1, "a"), (2, "a")])
        stage.scene.loop.datagrams.refusesClients = true
        stage.scene.loop.drain()
        #expect(stage.scene.loop.hasClients)
        stage.send([(3, "a")])
        #expect(stage.figures().contains("dropped_datagrams{reason=\"draining\"} 1"))
        for _ in 0..<4 {
            stage.scene.advance(milliseconds: 1_500)
            stage.send([(1, "b")])
        }
        #expect(stage.live == 1)
        stage.scene.advance(milliseconds: 2_100)
        #expect(!stage.scene.loop.hasClients)
        stage.scene.loop.closeAll()
        #expect(stage.scene.network.openDatagramSockets == 0)
    }

    @Test(arguments: [
        (NetworkAddress(v4: 0x0102_0304, port: 0), false), (NetworkAddress(v4: 0x0a00_00fe, port: 53), false),
        (NetworkAddress(v4: 0x0a00_00fe, port: 54), true), (NetworkAddress(v4: 0x0102_0304, port: 53), true),
    ])
    func whoCannotBeAnsweredIsNotServed(_ peer: NetworkAddress, _ isServed: Bool) throws {
        let stage = try Stage()
        stage.port.inbound = [.init(bytes: [1], peer: peer, local: Stage.local)]
        stage.scene.network.edge(stage.port)
        stage.scene.dispatch()
        #expect(stage.live == (isServed ? 1 : 0))
    }

    @Test func whatIsCutIsNotPassedOn() throws {
        let stage = try Stage()
        stage.port.inbound = [
            .init(bytes: [1], peer: Stage.client(1), local: Stage.local),
            .init(bytes: [2], peer: Stage.client(1), local: Stage.local, isCut: true),
            .init(bytes: [3], peer: Stage.client(1), local: Stage.local),
        ]
        stage.scene.network.edge(stage.port)
        stage.scene.dispatch()
        #expect(stage.sessions[0].outbound.map(\.bytes) == [[1], [3]])
        stage.sessions[0].inbound = [.init(bytes: [4], isCut: true), .init(bytes: [5]), .init(bytes: [6], isCut: true)]
        stage.scene.network.edge(stage.sessions[0])
        stage.scene.dispatch()
        #expect(stage.port.outbound.map(\.bytes) == [[5]])
        #expect(stage.figures().contains("dropped_datagrams{reason=\"too-long\"} 3"))
        // What does not fit, or not now, is lost; the next goes through.
        stage.sessions[0].faults = [.tooLong, .wouldBlock]
        stage.send([(1, "a"), (1, "b"), (1, "c")])
        stage.port.faults = [.failed(1)]
        stage.sessions[0].inbound = [.init(bytes: [7]), .init(bytes: [8])]
        stage.sessions[0].faults = []
        stage.scene.network.edge(stage.sessions[0])
        stage.scene.dispatch()
        #expect(stage.port.outbound.map(\.bytes) == [[5], [8]])
        #expect(
            stage.figures().filter { $0.hasPrefix("dropped") } == [
                "dropped_datagrams{reason=\"blocked\"} 2", "dropped_datagrams{reason=\"too-long\"} 4",
                "dropped_datagrams{reason=\"failed\"} 1",
            ])
    }
}
