import Foundation
import Model
import Testing

@testable import Telemetry

extension MessageHead {
    mutating func set(_ range: WritableKeyPath<MessageHead, ByteRange>, _ bytes: [UInt8]) {
        self[keyPath: range] = store(bytes)
    }

    mutating func add(_ name: String, _ value: [UInt8]) {
        let nameRange = store(name.utf8)
        let valueRange = store(value)
        fields.append(FieldRecord(name: .other, nameRange: nameRange, valueRange: valueRange))
    }
}

/// A snapshot with one route, one upstream and one script, and its labels.
func smallSnapshot() -> Snapshot {
    var snapshot = Snapshot()
    let ingress = ObjectReference(kind: "Ingress", namespace: "shop", name: "web")
    snapshot.routes = [
        Route(path: .prefix("/cart"), ingress: ingress, rule: "rules[0]", host: .exact("shop.test"), upstream: 0)
    ]
    snapshot.hosts = [VirtualHost(pattern: .exact("shop.test"), routes: [0])]
    snapshot.upstreams = [Upstream(namespace: "shop", service: "web", port: "80")]
    snapshot.scripts = [ScriptSource(name: "plugin/header-canary", namespace: "shop", main: "")]
    return snapshot
}

func finishedExchange() -> Exchange {
    let exchange = Exchange()
    exchange.request.method = .get
    exchange.request.set(\.methodRange, Array("GET".utf8))
    exchange.request.set(\.hostRange, Array("shop.test".utf8))
    exchange.request.set(\.pathRange, Array("/cart/7".utf8))
    exchange.idRange = exchange.request.store("req-1".utf8)
    exchange.client.address = SocketAddress(ip: IPAddress(v4: 0xc000_0209), port: 5555)
    exchange.route = 0
    exchange.upstream = 0
    exchange.endpoint = SocketAddress(ip: IPAddress(v4: 0x0a00_0001), port: 8080)
    exchange.attempts = 2
    exchange.origin = .upstream
    exchange.response.status = 200
    exchange.bytesIn = 100
    exchange.bytesOut = 1234
    exchange.started = 1_000_000_000
    exchange.upstreamStarted = 1_000_250_000
    exchange.upstreamAnswered = 1_002_000_000
    exchange.finished = 1_003_500_000
    exchange.scriptRuns = [ScriptRun(script: 0, outcome: .next, nanoseconds: 12_345)]
    exchange.tag(Array("variant".utf8).span, Array("canary".utf8).span)
    exchange.request.add("User-Agent", Array("curl/8".utf8))
    exchange.request.add("Referer", Array("https://a.test/".utf8))
    return exchange
}

/// 2026-11-24T18:25:46.123Z
let wall: UInt64 = 1_795_544_746_123_456_789

func line(_ exchange: Exchange, _ format: AccessLogFormat, _ labels: TelemetryLabels? = nil) -> String {
    let labels = labels ?? SeriesRegistry().labels(for: smallSnapshot(), now: 0)
    var writer = AccessLogLine(format: format)
    var bytes: [UInt8] = []
    writer.append(exchange, labels, wall: wall, to: &bytes)
    return String(decoding: bytes, as: UTF8.self)
}

@Suite("Access log lines") struct AccessLogLineTests {
    @Test func json() {
        #expect(
            line(finishedExchange(), .json) == #"""
                {"time":"2026-11-24T18:25:46.123Z","id":"req-1","client":"192.0.2.9","scheme":"http",\#
                "protocol":"HTTP/1.1","method":"GET","host":"shop.test","path":"/cart/7","status":200,"bytes_in":100,\#
                "bytes_out":1234,"duration_ms":3.500,"queue_ms":0.250,"upstream_ms":1.750,"origin":"upstream",\#
                "route":"shop/web","upstream":"shop/web:80","endpoint":"10.0.0.1:8080","attempts":2,\#
                "scripts":[{"name":"plugin/header-canary","us":12.3,"outcome":"next"}],"tags":{"variant":"canary"},\#
                "user_agent":"curl/8","referer":"https://a.test/"}

                """#)
    }

    @Test func text() {
        #expect(
            line(finishedExchange(), .text) == #"""
                2026-11-24T18:25:46.123Z 192.0.2.9 "GET http://shop.test/cart/7 HTTP/1.1" 200 in=100 out=1234 \#
                ms=3.500 queue_ms=0.250 upstream_ms=1.750 origin=upstream route=shop/web upstream=shop/web:80 \#
                endpoint=10.0.0.1:8080 attempts=2 error=- scripts=plugin/header-canary:12.3us:next \#
                tags=variant:canary tls=- upstream_tls=- coding=- grpc_status=- id=req-1 "curl/8" "https://a.test/"

                """#)
    }

    @Test func aCompressedResponseNamesItsCoding() {
        let exchange = finishedExchange()
        exchange.coding = .brotli
        #expect(line(exchange, .json).contains(#""bytes_out":1234,"coding":"br","duration_ms""#))
        #expect(line(exchange, .text).contains(" coding=br "))
    }

    @Test func aCallNamesItsStatusAndTheTLSOnBothSides() {
        let exchange = finishedExchange()
        exchange.grpcStatus = 14
        exchange.client.channel = SecureChannel(
            version: Array("TLSv1.3".utf8), cipher: [], serverName: [], applicationProtocol: [], wasResumed: false)
        exchange.upstreamChannel = SecureChannel(
            version: Array("TLSv1.2".utf8), cipher: [], serverName: [], applicationProtocol: [], wasResumed: false)
        #expect(line(exchange, .text).contains(" tls=TLSv1.3 upstream_tls=TLSv1.2 coding=- grpc_status=14 id=req-1 "))
        #expect(line(exchange, .json).contains(#""upstream_tls":"TLSv1.2","attempts":2,"grpc_status":14,"#))
    }

    @Test func aRefusedRequestHasWhatIsKnown() throws {
        let exchange = Exchange()
        exchange.response.status = 400
        exchange.origin = .moongate
        exchange.reason = .malformedRequest
        exchange.client.isSecure = true
        exchange.client.address = SocketAddress(ip: try #require(IPAddress("2001:db8::1")), port: 1)
        #expect(
            line(exchange, .json) == #"""
                {"time":"2026-11-24T18:25:46.123Z","id":"","client":"2001:db8::1","scheme":"https",\#
                "protocol":"HTTP/1.1","method":"","host":"","path":"","status":400,"bytes_in":0,"bytes_out":0,\#
                "duration_ms":0.000,"origin":"moongate","attempts":0,"error":"malformed-request"}

                """#)
        #expect(
            line(exchange, .text) == #"""
                2026-11-24T18:25:46.123Z 2001:db8::1 " https:// HTTP/1.1" 400 in=0 out=0 ms=0.000 queue_ms=- \#
                upstream_ms=- origin=moongate route=- upstream=- endpoint=- attempts=0 error=malformed-request \#
                scripts=- tags=- tls=- upstream_tls=- coding=- grpc_status=- id=- "-" "-"

                """#)
    }

    /// What is no HTTP has a line of its own, and a session of datagrams counts them.
    @Test func connectionsAndSessionsOfServices() {
        var snapshot = smallSnapshot()
        snapshot.tcpServices = [TCPService(port: 5432, upstream: 0)]
        snapshot.udpServices = [UDPService(port: 53, upstream: 0)]
        let labels = SeriesRegistry().labels(for: snapshot, now: 0)
        let exchange = Exchange()
        exchange.relay = 1
        exchange.isSession = true
        exchange.localPort = 53
        exchange.upstream = 0
        exchange.client.address = SocketAddress(ip: IPAddress(v4: 0xc000_0209), port: 5555)
        exchange.endpoint = SocketAddress(ip: IPAddress(v4: 0x0a00_0001), port: 8053)
        exchange.attempts = 1
        exchange.started = 1_000_000
        exchange.upstreamStarted = 1_000_000
        exchange.finished = 3_000_000
        exchange.datagramsIn = 2
        exchange.datagramsOut = 3
        exchange.bytesIn = 40
        exchange.bytesOut = 700
        #expect(
            line(exchange, .json, labels) == #"""
                {"time":"2026-11-24T18:25:46.123Z","client":"192.0.2.9","protocol":"UDP","port":53,\#
                "service":"udp:53","datagrams_in":2,"datagrams_out":3,"bytes_in":40,"bytes_out":700,\#
                "duration_ms":2.000,"queue_ms":0.000,"upstream":"shop/web:80","endpoint":"10.0.0.1:8053","attempts":1}

                """#)
        #expect(
            line(exchange, .text, labels) == #"""
                2026-11-24T18:25:46.123Z 192.0.2.9 "UDP 53 -" datagrams_in=2 datagrams_out=3 in=40 out=700 ms=2.000 \#
                queue_ms=0.000 service=udp:53 upstream=shop/web:80 endpoint=10.0.0.1:8053 attempts=1 error=-

                """#)
        // The next one is none: nothing of it stays.
        exchange.reset()
        exchange.relay = 0
        exchange.localPort = 5432
        #expect(line(exchange, .text, labels).contains(#""TCP 5432 -" in=0 out=0 "#))
    }

    @Test func aRefusedRequestNamesTheRuleThatItBroke() {
        let exchange = Exchange()
        exchange.reason = .malformedRequest
        exchange.fault = .dotSegment
        #expect(line(exchange, .json).contains(#""error":"malformed-request","detail":"dot-segment"}"#))
        #expect(line(exchange, .text).contains(" error=malformed-request:dot-segment scripts=-"))
        exchange.reset()
        #expect(exchange.fault == .none)
    }

    @Test func everyFieldWithHostileBytesStaysOneValidLine() throws {
        // All bytes, and those that break JSON, lines, terminals and UTF-8.
        let all = (0...255).map { UInt8($0) }
        let hostile: [[UInt8]] = [
            all, Array("\"},\"status\":200,{\"".utf8), Array("a\r\nb\u{1b}[31mred\u{7f}\u{0}".utf8),
            [0xc0, 0xaf], [0xe2, 0x82], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xff], [0xf0, 0x9f, 0x98, 0x80],
            Array("\u{85}\u{9b}\u{2028}".utf8), Array("\\u0022\\".utf8), [],
        ]
        for bytes in hostile {
            let exchange = finishedExchange()
            exchange.request.set(\.methodRange, bytes)
            exchange.request.set(\.hostRange, bytes)
            exchange.request.set(\.pathRange, bytes)
            exchange.idRange = exchange.request.store(bytes)
            exchange.tags.removeAll()
            exchange.tag(bytes.span, bytes.span)
            exchange.request.fields.removeAll()
            exchange.request.add("user-agent", bytes)
            exchange.request.add("referer", bytes)
            var snapshot = smallSnapshot()
            snapshot.scripts[0].name = String(decoding: bytes, as: UTF8.self)
            snapshot.routes[0].ingress.name = String(decoding: bytes, as: UTF8.self)
            let labels = SeriesRegistry().labels(for: snapshot, now: 0)

            let json = line(exchange, .json, labels)
            #expect(json.utf8.count { $0 == 10 } == 1 && json.hasSuffix("\n"))
            #expect(json.unicodeScalars.dropLast().allSatisfy { $0.value >= 32 && !(127..<160).contains($0.value) })
            let parsed = try #require(
                try JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any], "\(json)")
            // Foundation decodes a broken sequence differently: what is valid must come back as it was.
            if let valid = String(validating: bytes, as: UTF8.self) {
                if !bytes.isEmpty { #expect(parsed["path"] as? String == valid) }
                #expect(parsed["user_agent"] as? String == valid)
                #expect((parsed["tags"] as? [String: String])?[valid] == valid)
            }
            #expect(parsed["status"] as? Int == 200)

            let text = line(exchange, .text, labels)
            #expect(text.utf8.dropLast().allSatisfy { (0x20..<0x7f).contains($0) } && text.hasSuffix("\n"))
            // Quotes open and close only where the format has them, and no field falls apart at a space.
            #expect(text.utf8.count { $0 == 0x22 } == 6)
            let middle = text.split(separator: "\"", omittingEmptySubsequences: false)[2]
            #expect(
                middle.split(separator: " ").map { $0.split(separator: "=", maxSplits: 1)[0] }.dropFirst() == [
                    "in", "out", "ms", "queue_ms", "upstream_ms", "origin", "route", "upstream", "endpoint", "attempts",
                    "error",
                    "scripts", "tags", "tls", "upstream_tls", "coding", "grpc_status", "id",
                ])
        }
    }

    @Test func longFieldsAreCut() throws {
        let exchange = finishedExchange()
        exchange.request.fields.removeAll()
        exchange.request.add("user-agent", [UInt8](repeating: UInt8(ascii: "x"), count: 60_000))
        let json = line(exchange, .json)
        let parsed = try #require(try JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any])
        #expect(parsed["user_agent"] as? String == String(repeating: "x", count: 1024) + "…")
        #expect(line(exchange, .text).contains("x...\" \"-\"\n"))
    }

    @Test func rangesThatPointNowhereAreEmpty() {
        let exchange = finishedExchange()
        exchange.request.pathRange = ByteRange(offset: 5, count: 1_000_000)
        exchange.idRange = ByteRange(offset: 4_000_000_000, count: 100)
        exchange.route = 99
        exchange.upstream = -1
        exchange.scriptRuns = [ScriptRun(script: 4, outcome: .failed, nanoseconds: 0)]
        #expect(line(exchange, .json).contains(#""path":"","#))
        #expect(line(exchange, .text).contains("scripts=-:0.0us:failed"))
    }

    @Test(arguments: [
        "127.0.0.1", "0.0.0.0", "255.255.255.255", "::", "::1", "1::", "2001:db8::1", "2001:db8:0:0:1:0:0:1",
        "1:2:3:4:5:6:7:8", "1:0:0:2:0:0:0:3", "fe80::abcd:0:1", "1:2:3:4:5:6:7:0", "0:2:3:4:5:6:7:8", "1:0:3:4:5:6:7:8",
    ])
    func addressesAreWrittenAsModelWritesThem(text: String) throws {
        let ip = try #require(IPAddress(text))
        var bytes: [UInt8] = []
        AccessLogLine.address(ip, &bytes)
        #expect(String(decoding: bytes, as: UTF8.self) == ip.description)
        bytes = []
        let address = SocketAddress(ip: ip, port: 443)
        AccessLogLine.address(address, &bytes)
        #expect(String(decoding: bytes, as: UTF8.self) == address.description)
    }

    @Test func datesOverTwoCenturies() {
        var writer = AccessLogLine(format: .text)
        for step in 0..<2000 {
            let seconds = UInt64(step) * 3_456_789
            var bytes: [UInt8] = []
            writer.append(Exchange(), .none, wall: seconds * 1_000_000_000 + 7_000_000, to: &bytes)
            let date = Date(timeIntervalSince1970: Double(seconds)).formatted(.iso8601).dropLast() + ".007Z"
            #expect(String(decoding: bytes, as: UTF8.self).hasPrefix(date))
        }
    }

    @Test func numbers() {
        for value in [0, 9, 10, 99, 100, 12_345, UInt64.max] {
            var bytes: [UInt8] = []
            AccessLogLine.decimal(value, &bytes)
            #expect(String(decoding: bytes, as: UTF8.self) == String(value))
        }
    }
}
