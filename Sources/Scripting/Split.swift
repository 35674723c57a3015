// Who is in which variant: `moongate.split` (SCRIPTING.md §10). Weighted rendezvous hashing needs no state and no
// order of variants, answers the same on every replica, and moves only about as many units as a change of weights asks.

import Glibc
import Model

/// An experiment's shares.
///
/// The hash of some parts is XXH64 with seed 0 over, for each part in turn, its length as four bytes, little-endian,
/// and then its bytes: no two lists of parts share an encoding. **This is part of the contract with users: a change of
/// it would send every visitor somewhere else.**
///
/// - A unit's score for a variant is `-weight / ln(u)`, where `u = (h >> 11 + 0.5) / 2^53` lies strictly within 0 and 1
///   and `h` is the hash of (experiment, variant, unit). The highest score wins; equal scores go to the variant whose
///   name comes first by bytes. A weight of 0 never wins.
/// - A unit's bucket is the hash of (layer, unit) modulo 1000, where an experiment without a layer is a layer of its
///   own name. Experiments of one layer with slots that do not overlap have no unit in common.
package struct Split: Sendable {
    package struct Variant: Sendable, Hashable {
        package var name: [UInt8]
        package var weight: Double

        package init(name: [UInt8], weight: Double) {
            self.name = name
            self.weight = weight
        }

        package init(_ name: String, _ weight: Double) {
            self.init(name: Array(name.utf8), weight: weight)
        }
    }

    package static let slotCount = 1000

    /// Kept between calls, so that a split allocates nothing.
    private var scratch: [UInt8] = []

    package init() {}

    /// 0…999.
    package mutating func bucket(layer: Span<UInt8>, unit: Span<UInt8>) -> Int {
        scratch.removeAll(keepingCapacity: true)
        append(layer)
        append(unit)
        return Int(XXH64.hash(scratch.span) % UInt64(Self.slotCount))
    }

    /// Nil for a weight that wins nothing.
    package mutating func score(
        experiment: Span<UInt8>, variant: Span<UInt8>, unit: Span<UInt8>, weight: Double
    ) -> Double? {
        guard weight > 0 else { return nil }
        scratch.removeAll(keepingCapacity: true)
        append(experiment)
        append(variant)
        append(unit)
        let hash = XXH64.hash(scratch.span)
        return -weight / log((Double(hash >> 11) + 0.5) * 0x1p-53)
    }

    /// The index of the winner in `variants`; nil when no weight is above 0.
    package mutating func choose(experiment: Span<UInt8>, variants: [Variant], unit: Span<UInt8>) -> Int? {
        var best: (index: Int, score: Double)?
        for i in variants.indices {
            let name = variants[i].name
            let weight = variants[i].weight
            guard let score = score(experiment: experiment, variant: name.span, unit: unit, weight: weight) else {
                continue
            }
            if let other = best {
                if score < other.score { continue }
                if score == other.score, !name.lexicographicallyPrecedes(variants[other.index].name) {
                    continue
                }
            }
            best = (i, score)
        }
        return best?.index
    }

    private mutating func append(_ part: Span<UInt8>) {
        let count = UInt32(truncatingIfNeeded: part.count)
        for shift: UInt32 in [0, 8, 16, 24] { scratch.append(UInt8(truncatingIfNeeded: count >> shift)) }
        scratch.append(part)
    }
}
