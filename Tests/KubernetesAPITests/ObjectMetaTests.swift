import Foundation
import KubernetesAPI
import Testing

struct ObjectMetaTests {
    @Test func readsWhatMatters() throws {
        let text = """
            name: web
            namespace: shop
            uid: u1
            resourceVersion: "7"
            generation: 3
            creationTimestamp: "2026-01-02T03:04:05Z"
            labels: {a: b}
            annotations: {c: d}
            ownerReferences: [{apiVersion: v1, kind: Pod, name: p, uid: x, controller: true}]
            managedFields: [{manager: kubectl}]
            """
        let meta = try #require(try YAMLReader.read(text)).decode(ObjectMeta.self)
        #expect(meta.objectName == ObjectName(namespace: "shop", name: "web"))
        #expect(meta.objectName.description == "shop/web")
        #expect(meta.generation == 3 && meta.resourceVersion == "7" && meta.uid == "u1")
        #expect(meta.creationTimestamp?.description == "2026-01-02T03:04:05Z")
        #expect(meta.ownerReferences.first?.controller == true)
        let again = try JSONDecoder().decode(ObjectMeta.self, from: JSONEncoder().encode(meta))
        #expect(again == meta)
    }

    @Test func portsAreNumbersOrNames() throws {
        #expect(try PlacedValue(.integer(80)).decode(IntOrString.self) == .int(80))
        #expect(try PlacedValue(.string("http")).decode(IntOrString.self) == .string("http"))
        #expect(throws: FieldFault.self) { try PlacedValue(.bool(true)).decode(IntOrString.self) }
        #expect(
            String(decoding: try JSONEncoder().encode([IntOrString.int(1), .string("a")]), as: UTF8.self) == "[1,\"a\"]"
        )
    }
}
