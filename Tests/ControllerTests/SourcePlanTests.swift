import KubernetesAPI
import KubernetesClient
import Testing

@testable import Controller

@Suite struct SourcePlanTests {
    private func state(listed: Bool = false, trouble: APIError.Code? = nil, since: Int? = nil) -> SourceState {
        var state = SourceState()
        state.isListed = listed
        state.trouble = trouble
        state.troubledSince = since.map { .seconds($0) }
        return state
    }

    private func sources(_ states: [(String, String?, SourceState)]) -> [StoreSource: SourceState] {
        Dictionary(
            uniqueKeysWithValues: states.map { (StoreSource(kind: $0.0, scope: WatchScope(namespace: $0.1)), $0.2) })
    }

    private var essentials: [(String, String?, SourceState)] {
        ["Ingress", "Service", "EndpointSlice"].map { ($0, nil, state(listed: true)) }
    }

    @Test func everyListMustBeThere() {
        #expect(!SourcePlan.isSettled([:]))
        #expect(SourcePlan.isSettled(sources(essentials)))
        #expect(!SourcePlan.isSettled(sources(essentials + [("Secret", nil, state())])))
        #expect(!SourcePlan.isSettled(sources(essentials + [("Secret", nil, state(trouble: .unreachable))])))
    }

    @Test(arguments: [APIError.Code.forbidden, .notFound, .invalid]) func aRefusalCanBeMissed(code: APIError.Code) {
        #expect(SourcePlan.isSettled(sources(essentials + [("IngressClass", nil, state(trouble: code))])))
        // But not of what nothing can be served without.
        #expect(!SourcePlan.isSettled(sources(essentials.dropLast() + [("EndpointSlice", nil, state(trouble: code))])))
        // One namespace that is closed does not hold up the other.
        #expect(SourcePlan.isSettled(sources(essentials + [("EndpointSlice", "a", state(trouble: code))])))
    }

    @Test func anOutageIsOfAllSources() {
        let down = state(listed: true, trouble: .unreachable, since: 5)
        let later = state(listed: true, trouble: .server, since: 8)
        #expect(SourcePlan.outage(sources([("A", nil, down), ("B", nil, state(listed: true))])) == nil)
        #expect(SourcePlan.outage(sources([("A", nil, down), ("B", nil, later)])) == .seconds(8))
        // What is refused is no sign of either.
        #expect(
            SourcePlan.outage(sources([("A", nil, down), ("B", nil, state(trouble: .forbidden, since: 1))]))
                == .seconds(5))
        #expect(SourcePlan.outage(sources([("B", nil, state(trouble: .forbidden, since: 1))])) == nil)
    }
}
