// How many of the objects that Ingresses refer to are followed: each has a watch of its own, with a connection and its
// descriptor, and a single Ingress can name thousands.

package import IngressTranslation
import KubernetesAPI

package struct ReferenceLimit: Sendable, Equatable {
    /// Secrets and ConfigMaps of one namespace.
    package var perNamespace = 1_000
    /// In all. What namespaces may have is dealt out in turns, so that a few cannot take it all.
    package var total = 4_000

    package init() {}

    private struct Reference: Hashable {
        var name: ObjectName
        var isSecret: Bool

        /// Secrets first: a host without its certificate is unreachable as a whole.
        static func precedes(_ a: Reference, _ b: Reference) -> Bool {
            a.isSecret != b.isSecret ? a.isSecret : a.name < b.name
        }
    }

    private static func list(_ references: ObjectReferences) -> [Reference] {
        references.secrets.map { Reference(name: $0, isSecret: true) }
            + references.configMaps.map { Reference(name: $0, isSecret: false) }
    }

    package struct Choice: Sendable, Equatable {
        package var followed = ObjectReferences()
        package var refused = ObjectReferences()
        /// Namespaces that ask for no more than one may, and for which nothing is left.
        package var crowdedOut: Set<String> = []

        package init() {}
    }

    /// Which are followed, and which are not. The same on every replica, but for what one already follows: that goes
    /// before the rest of its namespace, and no namespace has its second before another has its first.
    ///
    /// - Parameters:
    ///   - kept: what is followed so far.
    ///   - always: what the operator asks for.
    package func choose(
        _ wanted: ObjectReferences, kept: ObjectReferences, always: ObjectReferences
    ) -> Choice {
        var choice = Choice()
        choice.followed = wanted
        guard wanted.secrets.count + wanted.configMaps.count > min(perNamespace, total) else { return choice }
        let (all, kept, always) = (Self.list(wanted), Set(Self.list(kept)), Set(Self.list(always)))
        var room = total - all.count(where: always.contains)
        let candidates = all.filter { !always.contains($0) }.sorted(by: Reference.precedes)
        // The how-manieth of its namespace each is; what is followed already comes first.
        var turns: [String: Int] = [:]
        var dealt: [(reference: Reference, isKept: Bool, turn: Int)] = []
        for isKept in [true, false] {
            for reference in candidates where kept.contains(reference) == isKept {
                let turn = turns[reference.name.namespace, default: 0]
                turns[reference.name.namespace] = turn + 1
                dealt.append((reference, isKept, turn))
            }
        }
        dealt.sort { a, b in
            if a.turn != b.turn { return a.turn < b.turn }
            return a.isKept != b.isKept ? a.isKept : Reference.precedes(a.reference, b.reference)
        }
        for (reference, _, turn) in dealt {
            if turn < perNamespace, room > 0 {
                room -= 1
                continue
            }
            if reference.isSecret {
                choice.refused.secrets.insert(reference.name)
            } else {
                choice.refused.configMaps.insert(reference.name)
            }
            if turns[reference.name.namespace, default: 0] <= perNamespace {
                choice.crowdedOut.insert(reference.name.namespace)
            }
        }
        choice.followed.secrets.subtract(choice.refused.secrets)
        choice.followed.configMaps.subtract(choice.refused.configMaps)
        return choice
    }
}
