import KubernetesAPI
import Testing

struct CoreTests {
    @Test func readsAService() throws {
        let text = """
            metadata: {name: web}
            spec:
              type: LoadBalancer
              clusterIP: 10.0.0.1
              ports:
              - {name: http, port: 80, targetPort: web, appProtocol: kubernetes.io/h2c}
              - {name: dns, port: 53, targetPort: 5353, protocol: UDP}
            status: {loadBalancer: {ingress: [{ip: 1.2.3.4}]}}
            """
        let service = try #require(try YAMLReader.read(text)).decode(Service.self)
        #expect(service.spec.type == "LoadBalancer")
        #expect(service.spec.ports.map(\.targetPort) == [.string("web"), .int(5353)])
        #expect(service.spec.ports.map(\.protocol) == ["TCP", "UDP"])
        #expect(service.status.loadBalancer.ingress.first?.ip == "1.2.3.4")
    }

    @Test(
        arguments: [
            ("", []), ("Zg==", [0x66]), ("Zm8=", [0x66, 0x6f]), ("Zm9v", [0x66, 0x6f, 0x6f]),
            ("Zm9\nv", [0x66, 0x6f, 0x6f]),
            ("+/+/", [0xfb, 0xff, 0xbf]),
        ] as [(String, [UInt8])])
    func readsBase64(text: String, bytes: [UInt8]) {
        #expect(Base64(text: text)?.bytes == bytes)
    }

    @Test(arguments: ["Z", "Zg", "Zg=", "Zg===", "=", "Zg==Zg==", "Zm9v=", "Z*==", "Z=g=", "===="])
    func refusesBase64(text: String) {
        #expect(Base64(text: text) == nil)
    }

    @Test func base64GoesBothWays() {
        for count in 0...40 {
            let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 37 &+ count) }
            #expect(Base64(text: Base64(bytes).text)?.bytes == bytes)
        }
    }

    @Test func secretsDoNotPrintWhatTheyHold() throws {
        let text = "metadata: {name: s}\ndata: {a: aHVudGVyMg==}\nstringData: {b: hunter3, a: hunter4}"
        let secret = try #require(try YAMLReader.read(text)).decode(Secret.self)
        #expect(secret.bytes("a").map { String(decoding: $0, as: UTF8.self) } == "hunter4")
        #expect(secret.bytes("b").map { String(decoding: $0, as: UTF8.self) } == "hunter3")
        #expect(secret.bytes("c") == nil)
        var dumped = ""
        dump(secret, to: &dumped)
        for shown in ["\(secret)", String(reflecting: secret), dumped] {
            #expect(!shown.contains("hunter") && !shown.contains("aHVu") && !shown.contains("104"))
        }
    }
}
