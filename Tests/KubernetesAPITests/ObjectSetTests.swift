import KubernetesAPI
import Testing

struct ObjectSetTests {
    @Test(arguments: [
        ("networking.k8s.io/v1", "Ingress", ClusterObject.Recognition.known),
        ("networking.k8s.io/v1beta1", "Ingress", .otherVersion(expected: "networking.k8s.io/v1")),
        ("extensions/v1beta1", "Ingress", .otherVersion(expected: "networking.k8s.io/v1")),
        ("discovery.k8s.io/v1beta1", "EndpointSlice", .otherVersion(expected: "discovery.k8s.io/v1")),
        ("v1", "Service", .known), ("serving.knative.dev/v1", "Service", .unknown), ("v1", "Secret", .known),
        ("config.openshift.io/v1", "Ingress", .unknown), ("apps/v1", "Deployment", .unknown),
    ])
    func recognises(apiVersion: String, kind: String, expected: ClusterObject.Recognition) {
        #expect(ClusterObject.recognise(apiVersion: apiVersion, kind: kind) == expected)
    }

    @Test func insertsReplacesAndRemoves() {
        var set = ObjectSet()
        let name = ObjectName(namespace: "n", name: "a")
        let meta = ObjectMeta(name: "a", namespace: "n")
        let all: [ClusterObject] = [
            .ingress(Ingress(metadata: meta)), .service(Service(metadata: meta)), .secret(Secret(metadata: meta)),
            .configMap(ConfigMap(metadata: meta, data: [:])), .endpointSlice(EndpointSlice(metadata: meta)),
            .ingressClass(IngressClass(metadata: ObjectMeta(name: "a"), spec: IngressClassSpec(controller: "c"))),
        ]
        for object in all { set.insert(object, origin: ObjectOrigin(file: "f", line: 1, document: nil)) }
        #expect(set.count == 6)
        #expect(set.origins.count == 6)
        set.insert(.configMap(ConfigMap(metadata: meta, data: ["k": "v"])))
        #expect(set.count == 6)
        #expect(set.configMaps[name]?.data == ["k": "v"])
        for object in all {
            #expect(set.contains(object.key))
            set.remove(object.key)
            #expect(!set.contains(object.key))
        }
        #expect(set.count == 0 && set.origins.isEmpty)
    }
}
