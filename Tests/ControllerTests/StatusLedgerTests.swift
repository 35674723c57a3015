import ClusterTesting
import Controller
import KubernetesAPI
import Testing

@Suite struct StatusLedgerTests {
    private let name = ObjectName(namespace: "shop", name: "web")
    private let ours = [LoadBalancerIngress(ip: "10.0.0.1")]
    private let theirs = [LoadBalancerIngress(ip: "192.0.2.9")]

    private func shown(
        _ addresses: [LoadBalancerIngress], version: String, uid: String = "u"
    ) -> Ingress {
        var shown = ingress("web")
        shown.metadata.resourceVersion = version
        shown.metadata.uid = uid
        shown.status.loadBalancer.ingress = addresses
        return shown
    }

    private func write(_ version: String, _ addresses: [LoadBalancerIngress]) -> StatusWrite {
        StatusWrite(ingress: name, resourceVersion: version, addresses: addresses)
    }

    private func wanting(_ addresses: [LoadBalancerIngress]) -> StatusLedger {
        var ledger = StatusLedger()
        _ = ledger.want([(name, addresses)])
        return ledger
    }

    private func look(
        _ ledger: inout StatusLedger, _ ingress: Ingress?, isNobodys: Bool = false, at now: Int = 0
    ) -> StatusWrite? {
        ledger.look(at: name, ingress, isNobodys: { _ in isNobodys }, now: .seconds(now))
    }

    @Test func writesWhatIsMissingAndNothingElse() {
        var ledger = wanting(ours)
        #expect(look(&ledger, shown([], version: "1")) == write("1", ours))
        ledger.written(write("1", ours), uid: "u")
        // The watch has not shown it yet.
        #expect(look(&ledger, shown([], version: "1")) == nil)
        #expect(look(&ledger, shown(ours, version: "2")) == nil)
        #expect(look(&ledger, shown(ours, version: "3")) == nil)
        #expect(look(&ledger, nil) == nil)
    }

    @Test func anObjectThatIsBeingDeletedIsLeftAlone() {
        var ledger = wanting(ours)
        var ingress = shown([], version: "1")
        ingress.metadata.deletionTimestamp = Timestamp(seconds: 1)
        #expect(look(&ledger, ingress) == nil)
    }

    @Test func noLongerOursIsTakenAway() {
        var ledger = wanting(ours)
        _ = look(&ledger, shown(ours, version: "2"))
        let isNews = ledger.want([])
        #expect(isNews)
        #expect(look(&ledger, shown(ours, version: "3")) == write("3", []))
        ledger.written(write("3", []), uid: "u")
        #expect(look(&ledger, shown(ours, version: "3")) == nil)
        #expect(look(&ledger, shown([], version: "4")) == nil)
    }

    @Test func whatAnotherHasWrittenMeanwhileStays() {
        var ledger = wanting(ours)
        _ = look(&ledger, shown(ours, version: "2"))
        _ = ledger.want([])
        #expect(look(&ledger, shown(theirs, version: "3")) == nil)
        // Not even if it then happens to say what we said.
        #expect(look(&ledger, shown(ours, version: "4")) == nil)
    }

    @Test(arguments: [(true, true), (false, false)]) func leftBehindByAReplicaThatIsGone(
        isNobodys: Bool, isWritten: Bool
    ) {
        var ledger = StatusLedger()
        _ = ledger.want([(ObjectName(namespace: "shop", name: "other"), ours)])
        #expect((look(&ledger, shown(ours, version: "1"), isNobodys: isNobodys) != nil) == isWritten)
        #expect(look(&ledger, shown(theirs, version: "1"), isNobodys: true) == nil)
    }

    @Test func neverFights() throws {
        var ledger = wanting(ours)
        var version = 1
        var writes = 0
        for second in 0..<100 {
            if let write = look(&ledger, shown(theirs, version: "\(version)"), at: second) {
                writes += 1
                ledger.written(write, uid: "u")
                version += 1
                _ = look(&ledger, shown(ours, version: "\(version)"), at: second)
            }
            // The other one writes again.
            version += 1
        }
        #expect(writes == 4)
        #expect(ledger.disputes == [name])
        #expect(ledger.standDownsOver(by: .seconds(3_500)).isEmpty)
        let end = try #require(ledger.standDownEnds)
        #expect(ledger.standDownsOver(by: end) == [name])
        // An hour later it may be over.
        #expect(look(&ledger, shown(theirs, version: "\(version)"), at: 3_700) != nil)
        #expect(ledger.disputes.isEmpty)
        #expect(ledger.standDownEnds == nil)
    }

    @Test func oneOverrideNowAndThenIsNoDispute() {
        var ledger = wanting(ours)
        var version = 1
        for round in 0..<20 {
            guard let write = look(&ledger, shown(theirs, version: "\(version)"), at: round * 1_000) else {
                Issue.record("stood down in round \(round)")
                return
            }
            ledger.written(write, uid: "u")
            version += 1
            _ = look(&ledger, shown(ours, version: "\(version)"), at: round * 1_000)
            version += 1
        }
    }

    @Test func aNewObjectOfTheSameNameHasNoPast() {
        var ledger = wanting(ours)
        _ = look(&ledger, shown(ours, version: "2"))
        _ = ledger.want([])
        #expect(look(&ledger, shown(ours, version: "9", uid: "v")) == nil)
    }

    @Test func noAddressClearsOnlyWhatWasOurs() {
        var ledger = wanting(ours)
        _ = look(&ledger, shown(ours, version: "2"))
        _ = ledger.want([(name, [])])
        #expect(look(&ledger, shown(ours, version: "3")) == write("3", []))
        var fresh = wanting([])
        #expect(look(&fresh, shown(theirs, version: "1")) == nil)
    }

    @Test func theSameWishIsNoNews() {
        var ledger = wanting(ours)
        let isNews = [ledger.want([(name, ours)]), ledger.want([(name, theirs)])]
        #expect(isNews == [false, true])
    }
}
