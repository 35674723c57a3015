import Foundation
import KubernetesAPI
import Testing

struct ControlLoopTests {
    private func event(_ text: String) throws -> WatchEvent<Service> {
        try JSONDecoder().decode(WatchEvent<Service>.self, from: Data(text.utf8))
    }

    @Test func readsWatchEvents() throws {
        let object = #"{"metadata":{"name":"a","namespace":"n","resourceVersion":"5"},"spec":{"ports":[{"port":80}]}}"#
        for (type, isExpected) in [
            ("ADDED", { if case .added = $0 { true } else { false } } as (WatchEvent<Service>) -> Bool),
            ("MODIFIED", { if case .modified = $0 { true } else { false } }),
            ("DELETED", { if case .deleted = $0 { true } else { false } }),
        ] {
            #expect(isExpected(try event("{\"type\":\"\(type)\",\"object\":\(object)}")))
        }
        #expect(
            try event(#"{"type":"BOOKMARK","object":{"kind":"Service","metadata":{"resourceVersion":"9"}}}"#)
                == .bookmark(resourceVersion: "9"))
        guard case .error(let status) = try event(#"{"type":"ERROR","object":{"code":410,"reason":"Expired"}}"#) else {
            Issue.record("no error event")
            return
        }
        #expect(status.isExpired)
        #expect(throws: (any Error).self) { try event(#"{"type":"NEW","object":{}}"#) }
        #expect(throws: (any Error).self) { try event(#"{"type":"BOOKMARK","object":{"metadata":{}}}"#) }
    }

    @Test func listsInPages() throws {
        let text =
            #"{"metadata":{"resourceVersion":"3","continue":"t","remainingItemCount":2},"items":[{"metadata":{"name":"a"}}]}"#
        let list = try JSONDecoder().decode(ObjectList<ConfigMap>.self, from: Data(text.utf8))
        #expect(list.metadata.continue == "t" && list.metadata.remainingItemCount == 2)
        #expect(list.items.map(\.metadata.name) == ["a"])
    }

    @Test func leasesAndEventsGoBothWays() throws {
        var lease = Lease(metadata: ObjectMeta(name: "leader", namespace: "n"))
        lease.spec.holderIdentity = "pod-1"
        lease.spec.renewTime = Timestamp(seconds: 100, nanoseconds: 7_000)
        let text = String(decoding: try JSONEncoder().encode(lease), as: UTF8.self)
        #expect(text.contains("1970-01-01T00:01:40.000007Z"))
        #expect(text.contains("coordination.k8s.io"))
        #expect(try JSONDecoder().decode(Lease.self, from: Data(text.utf8)) == lease)

        var event = Event(metadata: ObjectMeta(name: "e", namespace: "n"))
        event.note = "MG141"
        event.series = EventSeries(count: 2, lastObservedTime: Timestamp(seconds: 5))
        #expect(try JSONDecoder().decode(Event.self, from: JSONEncoder().encode(event)) == event)
    }

    @Test func statusPatchesNameTheirVersion() throws {
        let patch = IngressStatusPatch(
            resourceVersion: "12", status: IngressStatus(loadBalancer: .init(ingress: [.init(ip: "1.2.3.4")])))
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        #expect(
            String(decoding: try encoder.encode(patch), as: UTF8.self)
                == #"{"metadata":{"resourceVersion":"12"},"status":{"loadBalancer":{"ingress":[{"ip":"1.2.3.4"}]}}}"#)
    }
}
