import CompressionTesting
import Model
import Reactor
import Testing

@testable import Proxy

/// Conversations cut at every point: bytes arrive in pieces of any size, writes fit in part, connections end and break
/// at any moment. What comes out must be the same as without the cuts, or, after a break, nothing that is wrong.
@Suite struct LoopRandomTests {
    struct Plan {
        var isHead = false
        var kind = ""
        var count = 0
        var seed = 0
        var body: [UInt8] = []
        var bytes: [UInt8] = []
        var coding: ContentCoding?

        init(_ random: inout Seeded, kinds: [String], coding: ContentCoding? = nil) {
            kind = kinds.randomElement(using: &random) ?? "len"
            count = [0, 1, 17, 900, 5_000, 30_000, 90_000].randomElement(using: &random) ?? 0
            seed = Int.random(in: 1...5_000, using: &random)
            isHead = Int.random(in: 0..<8, using: &random) == 0
            var head = "\(isHead ? "HEAD" : "PUT") /\(kind)/\(count)/\(seed) HTTP/1.1\r\nHost: shop.test\r\n"
            if let coding, seed % 4 != 0 {
                head += "Accept-Encoding: \(coding.name)\r\n"
                self.coding = coding
            }
            let size = isHead ? 0 : [0, 0, 1, 300, 9_000, 70_000].randomElement(using: &random) ?? 0
            body = pattern(size, seed)
            switch Int.random(in: 0..<3, using: &random) {
            case 0 where !isHead:
                head += "Transfer-Encoding: chunked\r\n\r\n"
                bytes =
                    Array(head.utf8)
                    + chunked(body, pieces: [1 + size / 40, 4_000, 100_000].randomElement(using: &random) ?? 9)
            default:
                if size > 0 || seed % 2 == 0, !isHead { head += "Content-Length: \(size)\r\n" }
                bytes = Array("\(head)\r\n".utf8) + body
            }
        }
    }

    final class Client {
        let descriptor: Int32
        let plans: [Plan]
        var unsent: ArraySlice<UInt8>
        var received: [UInt8] = []
        init(_ descriptor: Int32, _ plans: [Plan]) {
            self.descriptor = descriptor
            self.plans = plans
            unsent = plans.flatMap(\.bytes)[...]
        }

        /// The body as it was before it was compressed, if it was.
        private func decoded(_ message: TestMessage, _ plan: Plan) throws -> [UInt8] {
            guard let coding = plan.coding, message.value("content-length") == nil || plan.count >= 1024 else {
                try #require(message.value("content-encoding") == nil)
                return message.body
            }
            try #require(message.value("content-encoding") == "\(coding.name)")
            try #require(message.value("content-length") == nil && message.value("vary") == "Accept-Encoding")
            let decoder = try #require(ContentDecoder(coding))
            decoder.read(message.body)
            try #require(!decoder.failed)
            return decoder.text
        }

        /// The final responses so far, checked against what was asked.
        func check(_ isWhole: Bool) throws -> Int {
            var bytes = received
            var done = 0
            while done < plans.count,
                let (message, count) = try TestParse.message(bytes, isResponse: true, toHead: plans[done].isHead)
            {
                bytes.removeFirst(count)
                if message.status / 100 == 1 { continue }
                let plan = plans[done]
                if message.status == 200 {
                    if !plan.isHead {
                        let body = try decoded(message, plan)
                        try #require(digest(body) == digest(pattern(plan.count, plan.seed)))
                    }
                    if plan.kind != "early" { try #require(message.value("x-body") == digest(plan.body)) }
                } else if isWhole {
                    try #require(plan.kind == "nothing" && message.status == 204)
                } else {
                    try #require([204, 400, 408, 502, 503, 504].contains(message.status))
                }
                done += 1
            }
            if isWhole, done == plans.count { try #require(bytes.isEmpty) }
            return done
        }
    }

    private func run(seed: UInt64, isRough: Bool, isSecure: Bool = false, coding: ContentCoding? = nil) throws {
        var random = Seeded(seed)
        var policy = RoutePolicy()
        policy.compression = coding.map { CompressionChoice(codings: .these(CodingList([$0]))) }
        let scene = Scene(
            endpoints: Array([8001, 8002, 8003].prefix(Int.random(in: 1...3, using: &random))), policy: policy,
            server: isSecure ? try TestTLS.server() : nil, security: isSecure ? try TestTLS.security() : nil)
        scene.cutsOff = isRough && seed % 2 == 0
        scene.network.outboundCapacity = [1, 700, 9_000, 65_536, 400_000].randomElement(using: &random) ?? 9
        if isRough, seed % 5 == 0 { scene.network.refusing = [8001] }
        var kinds = ["len", "len", "chunked", "close", "bye", "nothing", "hints"]
        if isRough { kinds += ["die", "reset", "half", "garbage", "extra", "early"] }
        let clients = (0..<Int.random(in: 1...4, using: &random)).map { _ in
            Client(
                scene.client(),
                (0..<Int.random(in: 1...5, using: &random)).map { _ in Plan(&random, kinds: kinds, coding: coding) })
        }
        let sizes = scene.network.outboundCapacity == 1 ? [1, 40_000] : [1, 2, 50, 1_500, 16_384, 70_000]
        func size() -> Int { sizes.randomElement(using: &random) ?? 1 }

        func step() throws {
            let client = clients[Int.random(in: 0..<clients.count, using: &random)]
            switch Int.random(in: 0..<10, using: &random) {
            case 0, 1:
                let n = min(size(), client.unsent.count)
                scene.network.send(client.descriptor, client.unsent.prefix(n))
                client.unsent = client.unsent.dropFirst(n)
            case 2, 3:
                scene.network.deliver(client.descriptor, size())
            case 4, 5:
                client.received += scene.network.take(client.descriptor, size())
            case 6, 7:
                if let upstream = scene.openedUpstreams.randomElement(using: &random) {
                    scene.network.settle(upstream)
                    try scene.serve(upstream, size())
                }
            case 8:
                if let upstream = scene.openedUpstreams.randomElement(using: &random) {
                    scene.network.deliver(upstream, size())
                }
            default:
                scene.dispatch()
            }
            if isRough, Int.random(in: 0..<400, using: &random) == 0 {
                let all = scene.openedUpstreams + clients.map(\.descriptor)
                if let victim = all.randomElement(using: &random) {
                    if Bool.random(using: &random) { scene.network.reset(victim) } else { scene.network.end(victim) }
                }
            }
            if isRough, Int.random(in: 0..<300, using: &random) == 0 {
                scene.advance(milliseconds: UInt64.random(in: 1...3_000, using: &random))
            }
        }

        for _ in 0..<1_000 { try step() }
        // Then everything is let through.
        scene.network.widen()
        for _ in 0..<5_000 {
            for client in clients {
                scene.network.send(client.descriptor, client.unsent)
                client.unsent = []
            }
            try scene.settle()
            var moved = false
            for client in clients where scene.network.available(client.descriptor) > 0 {
                client.received += scene.network.take(client.descriptor, .max)
                moved = true
            }
            if !moved { break }
        }
        for client in clients {
            let done = try client.check(!isRough)
            if !isRough { try #require(done == client.plans.count, "\(done) of \(client.plans.count)") }
            scene.network.end(client.descriptor)
        }
        try scene.settle()
        for client in clients { _ = scene.network.take(client.descriptor, .max) }
        // Whatever is left runs into its deadline.
        for _ in 0..<5 {
            scene.advance(milliseconds: 61_000)
            for client in clients { _ = scene.network.take(client.descriptor, .max) }
            try scene.settle()
        }
        scene.checkQuiet()
        #expect(scene.loop.downstreams.count == 0)
        #expect(scene.loop.upstreamConnections.count == 0)
        // No upstream has ever seen a request that nobody sent.
        for request in scene.requests {
            #expect(
                clients.contains {
                    $0.plans.contains { request.startLine.contains(" /\($0.kind)/\($0.count)/\($0.seed) ") }
                })
        }
    }

    @Test(arguments: 1...40)
    func piecesMakeNoDifference(seed: Int) throws {
        try run(seed: UInt64(seed), isRough: false)
    }

    @Test(arguments: 1...20)
    func piecesMakeNoDifferenceOverTLS(seed: Int) throws {
        try run(seed: UInt64(seed), isRough: false, isSecure: true)
    }

    @Test(arguments: 1_000...1_029)
    func breaksDoNoHarmOverTLS(seed: Int) throws {
        try run(seed: UInt64(seed), isRough: true, isSecure: true)
    }

    @Test(arguments: ContentCoding.allCases, 2_000...2_011)
    func compressedBodiesArriveWhole(coding: ContentCoding, seed: Int) throws {
        try run(seed: UInt64(seed), isRough: false, coding: coding)
    }

    @Test(arguments: ContentCoding.allCases, 3_000...3_019)
    func breaksDoNoHarmToEncoders(coding: ContentCoding, seed: Int) throws {
        try run(seed: UInt64(seed), isRough: true, coding: coding)
    }

    @Test(arguments: 1_000...1_059)
    func breaksDoNoHarm(seed: Int) throws {
        try run(seed: UInt64(seed), isRough: true)
    }
}
