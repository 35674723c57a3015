// Who leads, decided by a Lease (coordination.k8s.io/v1). Only the leader writes statuses and Events; every replica
// serves.
//
//                  lease free, expired or ours
//      ┌──────────┐ ─────────────────────────► ┌──────────┐  written   ┌─────────┐
//      │ watching │                            │ claiming │ ─────────► │ leading │ ──┐ renewed
//      └──────────┘ ◄───────────────────────── └──────────┘            └─────────┘ ◄─┘
//            ▲             refused                                           │
//            └───────────────────────────────────────────────────────────────┘
//                     refused, or not renewed within the deadline
//
// Clocks of replicas are never compared: a lease counts as expired when it did not change for its duration, measured by
// our own clock since we first saw it so.

package import KubernetesAPI

package struct ElectionMachine: Sendable {
    package struct Terms: Sendable {
        /// How long others wait after they last saw the lease change.
        package var duration = Duration.seconds(15)
        /// How long a leader that can't renew goes on believing that it leads; shorter than `duration`, so that two never
        /// lead at once.
        package var renewDeadline = Duration.seconds(10)
        package var retryPeriod = Duration.seconds(2)

        package init() {}

        /// The same proportions for another duration.
        package init(duration: Duration) {
            self.duration = duration
            renewDeadline = duration * 2 / 3
            retryPeriod = duration * 2 / 15
        }
    }

    private enum State: Sendable {
        /// Somebody else leads, or nobody does.
        case watching
        /// A write is under way, sent at this moment, that makes us leader.
        case claiming(sentAt: Duration)
        /// Our last successful write was sent at this moment.
        case leading(since: Duration)
    }

    package enum Action: Sendable, Equatable {
        /// Look again after the retry period.
        case wait
        /// There is no lease: make it.
        case create(LeaseSpec)
        /// Write this over the version that was read.
        case write(LeaseSpec)
    }

    private let identity: String
    private let terms: Terms
    private var state = State.watching
    /// The lease as last seen, and when it was first seen so.
    private var observed: (spec: LeaseSpec, at: Duration)?

    package init(identity: String, terms: Terms = Terms()) {
        self.identity = identity
        self.terms = terms
    }

    /// Time is part of the answer: a leader that was cut off stops leading by itself.
    package func isLeading(at now: Duration) -> Bool {
        switch state {
        case .leading(let since): now - since < terms.renewDeadline
        case .watching, .claiming: false
        }
    }

    package var holder: String? { observed?.spec.holderIdentity.flatMap { $0.isEmpty ? nil : $0 } }

    package mutating func leaseRead(_ spec: LeaseSpec?, now: Duration, wall: Timestamp) -> Action {
        guard let spec else {
            observed = nil
            state = .claiming(sentAt: now)
            return .create(claim(over: nil, wall: wall))
        }
        if observed?.spec != spec { observed = (spec, now) }
        let holder = spec.holderIdentity ?? ""
        if holder == identity {
            // Ours. After a restart under the same name it is taken up again as well.
            var renewed = spec
            renewed.renewTime = wall.asMicroTime
            renewed.acquireTime = (renewed.acquireTime ?? wall).asMicroTime
            renewed.leaseDurationSeconds = seconds
            if !isLeading(at: now) { state = .claiming(sentAt: now) }
            return .write(renewed)
        }
        let duration = spec.leaseDurationSeconds.map { Duration.seconds(max(0, $0)) } ?? terms.duration
        let expires = (observed?.at ?? now) + duration
        guard holder.isEmpty || now >= expires else {
            state = .watching
            return .wait
        }
        state = .claiming(sentAt: now)
        return .write(claim(over: spec, wall: wall))
    }

    /// The write that an action asked for was done; `sentAt` is the moment before it was sent.
    package mutating func leaseWritten(_ spec: LeaseSpec, sentAt: Duration) {
        observed = (spec, sentAt)
        state = .leading(since: sentAt)
    }

    /// Somebody else was faster.
    package mutating func leaseConflicted() { state = .watching }

    /// No answer: a leader leads on until its deadline, nobody becomes one.
    package mutating func requestFailed(now: Duration) {
        switch state {
        case .claiming: state = .watching
        case .leading: if !isLeading(at: now) { state = .watching }
        case .watching: break
        }
    }

    /// What to write when we go in an orderly way: the next one need not wait. Nil when we do not lead.
    package mutating func released(wall: Timestamp) -> LeaseSpec? {
        defer { state = .watching }
        guard case .leading = state, var spec = observed?.spec, spec.holderIdentity == identity else { return nil }
        spec.holderIdentity = nil
        spec.leaseDurationSeconds = 1
        spec.renewTime = wall.asMicroTime
        spec.acquireTime = spec.acquireTime?.asMicroTime
        return spec
    }

    private var seconds: Int { Int(terms.duration.components.seconds) }

    private func claim(over old: LeaseSpec?, wall: Timestamp) -> LeaseSpec {
        var spec = LeaseSpec()
        spec.holderIdentity = identity
        spec.leaseDurationSeconds = seconds
        spec.acquireTime = wall.asMicroTime
        spec.renewTime = wall.asMicroTime
        spec.leaseTransitions = old.map { ($0.leaseTransitions ?? 0) + 1 } ?? 0
        return spec
    }
}
