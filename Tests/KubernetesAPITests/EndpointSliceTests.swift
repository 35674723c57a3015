import KubernetesAPI
import Testing

struct EndpointSliceTests {
    @Test func readsASlice() throws {
        let text = """
            metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
            addressType: IPv6
            endpoints:
            - addresses: ["fd00::1", "fd00::2"]
              conditions: {ready: false, serving: true, terminating: true}
              zone: a
              nodeName: n
              hints: {forZones: [{name: a}]}
            - addresses: []
            ports: [{name: http, port: 8080}, {port: null}]
            """
        let slice = try #require(try YAMLReader.read(text)).decode(EndpointSlice.self)
        #expect(slice.addressType == "IPv6")
        #expect(slice.endpoints[0].conditions.isServing && slice.endpoints[0].conditions.isTerminating)
        #expect(slice.endpoints[0].hints?.forZones.map(\.name) == ["a"])
        #expect(slice.ports.map(\.port) == [8080, nil])
    }

    @Test(arguments: [
        (EndpointConditions(), true, true, false), (EndpointConditions(ready: false), false, false, false),
        (EndpointConditions(ready: false, serving: true, terminating: true), false, true, true),
        (EndpointConditions(ready: true, serving: nil, terminating: nil), true, true, false),
    ])
    func missingConditionsMeanWhatTheAPISays(
        conditions: EndpointConditions, ready: Bool, serving: Bool, terminating: Bool
    ) {
        #expect(conditions.isReady == ready)
        #expect(conditions.isServing == serving)
        #expect(conditions.isTerminating == terminating)
    }
}
