// What is to be written into the status of which Ingress. Every replica keeps this ledger, so that a new leader knows
// what was ours; only the leader writes.
//
// Two rules keep it from fighting: a status is taken away only where it still says exactly what we wrote, against the
// version at which it said so; and where another writer has put something else several times, we leave it to him and say
// so.

package import KubernetesAPI

package struct StatusWrite: Sendable, Equatable {
    package var ingress: ObjectName
    package var resourceVersion: String
    package var addresses: [LoadBalancerIngress]

    package init(ingress: ObjectName, resourceVersion: String, addresses: [LoadBalancerIngress]) {
        self.ingress = ingress
        self.resourceVersion = resourceVersion
        self.addresses = addresses
    }
}

package struct StatusLedger: Sendable {
    private struct Claim: Sendable {
        var uid: String?
        var addresses: [LoadBalancerIngress]
        /// The version that our last write was made against; while the Ingress still shows it, the write is on its way.
        var basedOn: String?
        /// Times that somebody else changed what we had written, and the first of them.
        var overrides = 0
        var firstOverride: Duration = .zero
        var standDownUntil: Duration?
    }

    private static let overridesAllowed = 3
    private static let overrideWindow = Duration.seconds(600)
    private static let standDown = Duration.seconds(3_600)

    /// What Ingresses of ours should say.
    private var desired: [ObjectName: [LoadBalancerIngress]] = [:]
    private var claims: [ObjectName: Claim] = [:]
    /// All addresses that we publish anywhere.
    private var published: Set<LoadBalancerIngress> = []

    package init() {}

    /// Ingresses whose status somebody else keeps changing.
    package var disputes: [ObjectName] { claims.filter { $0.value.standDownUntil != nil }.keys.sorted() }

    /// When a status that was left to another writer is to be looked at again.
    package var standDownEnds: Duration? { claims.values.lazy.compactMap(\.standDownUntil).min() }
    package func standDownsOver(by now: Duration) -> [ObjectName] {
        claims.filter { $0.value.standDownUntil.map { $0 <= now } ?? false }.map(\.key)
    }

    /// Takes up which Ingresses are ours and what they should say; true if that is other than before.
    package mutating func want(_ statuses: [(ObjectName, [LoadBalancerIngress])]) -> Bool {
        let wanted = Dictionary(statuses, uniquingKeysWith: { $1 })
        guard wanted != desired else { return false }
        desired = wanted
        published = []
        for addresses in wanted.values { published.formUnion(addresses) }
        return true
    }

    /// The write that one Ingress needs, if any. To be asked for every Ingress that changed, by every replica.
    ///
    /// - Parameter isNobodys: no class or controller but ours has a claim to it.
    package mutating func look(
        at name: ObjectName, _ ingress: Ingress?, isNobodys: (Ingress) -> Bool, now: Duration
    ) -> StatusWrite? {
        guard let ingress, ingress.metadata.deletionTimestamp == nil,
            let version = ingress.metadata.resourceVersion
        else {
            claims[name] = nil
            return nil
        }
        if let claim = claims[name], claim.uid != ingress.metadata.uid { claims[name] = nil }
        var isNewTry = false
        if let until = claims[name]?.standDownUntil, now >= until {
            claims[name]?.standDownUntil = nil
            claims[name]?.overrides = 0
            isNewTry = true
        }
        let current = ingress.status.loadBalancer.ingress
        guard let wanted = desired[name] else { return removal(name, ingress, current, version, isNobodys) }
        var claim = claims[name]
        if current == wanted {
            claim = claim ?? Claim(uid: ingress.metadata.uid, addresses: wanted)
            claim?.addresses = wanted
            claim?.basedOn = nil
            if let firstOverride = claim?.firstOverride, now - firstOverride > Self.overrideWindow {
                claim?.overrides = 0
            }
            claims[name] = claim
            return nil
        }
        // No address to publish: that clears what we wrote, and nothing else.
        if wanted.isEmpty, claim.map({ $0.addresses != current }) ?? true { return nil }
        if var held = claim {
            if held.basedOn == version { return nil }
            if held.standDownUntil != nil { return nil }
            if held.addresses == wanted, !isNewTry {
                // We had written this, and somebody wrote something else since.
                if held.overrides == 0 || now - held.firstOverride > Self.overrideWindow {
                    held.overrides = 0
                    held.firstOverride = now
                }
                held.overrides += 1
                if held.overrides > Self.overridesAllowed { held.standDownUntil = now + Self.standDown }
            }
            claim = held
            claims[name] = held
            if held.standDownUntil != nil { return nil }
        }
        return StatusWrite(ingress: name, resourceVersion: version, addresses: wanted)
    }

    private mutating func removal(
        _ name: ObjectName, _ ingress: Ingress, _ current: [LoadBalancerIngress], _ version: String,
        _ isNobodys: (Ingress) -> Bool
    ) -> StatusWrite? {
        guard !current.isEmpty else {
            claims[name] = nil
            return nil
        }
        if let claim = claims[name] {
            guard claim.addresses == current else {
                // Somebody else has it now.
                claims[name] = nil
                return nil
            }
            if claim.basedOn == version { return nil }
            return StatusWrite(ingress: name, resourceVersion: version, addresses: [])
        }
        // Left behind by a replica that is gone: it shows our addresses, and nobody else's business is touched.
        guard !published.isEmpty, current.allSatisfy(published.contains), isNobodys(ingress) else { return nil }
        return StatusWrite(ingress: name, resourceVersion: version, addresses: [])
    }

    package mutating func written(_ write: StatusWrite, uid: String?) {
        if write.addresses.isEmpty, desired[write.ingress] == nil {
            claims[write.ingress]?.basedOn = write.resourceVersion
            return
        }
        var claim = claims[write.ingress] ?? Claim(uid: uid, addresses: write.addresses)
        claim.addresses = write.addresses
        claim.basedOn = write.resourceVersion
        claims[write.ingress] = claim
    }
}
