import KubernetesAPI
import KubernetesClient
import Testing

@Suite struct ElectionMachineTests {
    private let wall = Timestamp(seconds: 1_800_000_000)

    private func spec(_ holder: String?, renewed: Int64 = 1, seconds: Int? = 15, transitions: Int? = 3) -> LeaseSpec {
        var spec = LeaseSpec()
        spec.holderIdentity = holder
        spec.leaseDurationSeconds = seconds
        spec.renewTime = Timestamp(seconds: renewed, nanoseconds: 1_000)
        spec.leaseTransitions = transitions
        return spec
    }

    @Test func noLeaseIsMade() {
        var machine = ElectionMachine(identity: "a")
        guard case .create(let claim) = machine.leaseRead(nil, now: .seconds(1), wall: wall) else {
            Issue.record("not created")
            return
        }
        #expect(claim.holderIdentity == "a")
        #expect(claim.leaseDurationSeconds == 15)
        #expect(claim.leaseTransitions == 0)
        #expect(!machine.isLeading(at: .seconds(1)))
        machine.leaseWritten(claim, sentAt: .seconds(1))
        #expect(machine.isLeading(at: .seconds(1)))
    }

    /// MicroTime without a fraction is refused by the API server.
    @Test func timesAreWrittenWithAFraction() {
        var machine = ElectionMachine(identity: "a")
        guard case .create(let claim) = machine.leaseRead(nil, now: .zero, wall: wall) else { return }
        #expect(claim.renewTime?.description == "2027-01-15T08:00:00.000001Z")
        #expect(claim.acquireTime?.description == "2027-01-15T08:00:00.000001Z")
    }

    @Test func anothersLeaseIsTakenOnlyAfterItStoodStillForItsDuration() {
        var machine = ElectionMachine(identity: "a")
        #expect(machine.leaseRead(spec("b"), now: .seconds(0), wall: wall) == .wait)
        #expect(machine.leaseRead(spec("b"), now: .seconds(14), wall: wall) == .wait)
        // It moved: the wait begins anew, whatever its time stamps say.
        #expect(machine.leaseRead(spec("b", renewed: 2), now: .seconds(14), wall: wall) == .wait)
        #expect(machine.leaseRead(spec("b", renewed: 2), now: .seconds(28), wall: wall) == .wait)
        guard case .write(let claim) = machine.leaseRead(spec("b", renewed: 2), now: .seconds(29), wall: wall) else {
            Issue.record("not claimed")
            return
        }
        #expect(claim.leaseTransitions == 4)
        #expect(machine.holder == "b")
    }

    @Test(arguments: [nil, ""]) func aLeaseThatWasGivenBackIsTakenAtOnce(holder: String?) {
        var machine = ElectionMachine(identity: "a")
        guard case .write(let claim) = machine.leaseRead(spec(holder, seconds: 1), now: .zero, wall: wall) else {
            Issue.record("not claimed")
            return
        }
        #expect(claim.holderIdentity == "a")
        #expect(claim.leaseDurationSeconds == 15)
    }

    @Test func aLeaderThatIsCutOffStopsByItself() {
        var machine = ElectionMachine(identity: "a")
        _ = machine.leaseRead(nil, now: .zero, wall: wall)
        machine.leaseWritten(spec("a"), sentAt: .zero)
        machine.requestFailed(now: .seconds(5))
        #expect(machine.isLeading(at: .milliseconds(9_999)))
        #expect(!machine.isLeading(at: .seconds(10)))
        machine.requestFailed(now: .seconds(10))
        #expect(machine.released(wall: wall) == nil)
    }

    @Test func aConflictLosesTheLease() {
        var machine = ElectionMachine(identity: "a")
        machine.leaseWritten(spec("a"), sentAt: .zero)
        machine.leaseConflicted()
        #expect(!machine.isLeading(at: .zero))
    }

    @Test func renewalKeepsWhoTookItWhen() {
        var machine = ElectionMachine(identity: "a")
        var held = spec("a")
        held.acquireTime = Timestamp(seconds: 7, nanoseconds: 0)
        machine.leaseWritten(held, sentAt: .zero)
        guard case .write(let renewed) = machine.leaseRead(held, now: .seconds(2), wall: wall) else { return }
        #expect(renewed.leaseTransitions == 3)
        #expect(renewed.acquireTime?.seconds == 7)
        // Its moment is that of the sending: an answer that took long makes no longer leadership.
        machine.leaseWritten(renewed, sentAt: .seconds(2))
        #expect(!machine.isLeading(at: .seconds(12)))
    }

    @Test func givingBack() {
        var machine = ElectionMachine(identity: "a")
        #expect(machine.released(wall: wall) == nil)
        machine.leaseWritten(spec("a"), sentAt: .zero)
        let released = machine.released(wall: wall)
        #expect(released?.holderIdentity == nil)
        #expect(released?.leaseDurationSeconds == 1)
        #expect(!machine.isLeading(at: .zero))
    }

    /// Whatever happens to the messages, never do two believe that they lead at one moment.
    @Test func neverTwo() {
        var random = Generator(state: 42)
        for _ in 0..<300 {
            var machines = ["a", "b", "c"].map { ElectionMachine(identity: $0) }
            var lease: LeaseSpec?
            var version = 0
            var now = Duration.zero
            for _ in 0..<200 {
                now += .milliseconds(Int(random.next() % 3_000))
                let index = Int(random.next() % 3)
                let seen = (lease, version)
                if random.next() % 4 == 0 {
                    machines[index].requestFailed(now: now)
                } else {
                    let written: LeaseSpec?
                    switch machines[index].leaseRead(seen.0, now: now, wall: Timestamp(seconds: now.components.seconds))
                    {
                    case .wait: written = nil
                    case .create(let spec), .write(let spec): written = spec
                    }
                    if var written {
                        // The answer may be lost after the write was done.
                        let sentAt = now
                        now += .milliseconds(Int(random.next() % 500))
                        written.renewTime = Timestamp(seconds: Int64(version), nanoseconds: 1_000)
                        version += 1
                        lease = written
                        if random.next() % 5 == 0 {
                            machines[index].requestFailed(now: now)
                        } else {
                            machines[index].leaseWritten(written, sentAt: sentAt)
                        }
                    }
                }
                #expect(machines.filter { $0.isLeading(at: now) }.count <= 1)
            }
        }
    }

    /// Reproducible (Knuth's MMIX constants).
    private struct Generator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state >> 33
        }
    }
}
