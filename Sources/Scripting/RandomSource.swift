// Chance for scripts: `moongate.uuid`, `moongate.random`, and the share of requests that a binding sees.

/// The kernel's random numbers, drawn in blocks so that a request pays no system call; or, in tests, a sequence that a
/// seed fixes.
package struct RandomSource: RandomNumberGenerator {
    private var block: [UInt64] = []
    private var at = 0
    private var state: UInt64?

    package init() {}
    package init(seed: UInt64) { state = seed }

    package mutating func next() -> UInt64 {
        if let seed = state {
            // SplitMix64 (Steele, Lea, Flood 2014).
            let next = seed &+ 0x9e37_79b9_7f4a_7c15
            state = next
            var word = (next ^ next >> 30) &* 0xbf58_476d_1ce4_e5b9
            word = (word ^ word >> 27) &* 0x94d0_49bb_1331_11eb
            return word ^ word >> 31
        }
        if at == block.count {
            var system = SystemRandomNumberGenerator()
            if block.isEmpty { block = [UInt64](repeating: 0, count: 64) }
            for i in block.indices { block[i] = system.next() }
            at = 0
        }
        let word = block[at]
        // What was handed out is not kept.
        block[at] = 0
        at += 1
        return word
    }

    /// Within 0 (included) and 1 (excluded).
    package mutating func unit() -> Double { Double(next() >> 11) * 0x1p-53 }

    package mutating func bytes(_ count: Int) -> [UInt8] {
        var output: [UInt8] = []
        output.reserveCapacity(count + 7)
        while output.count < count {
            let word = next()
            for shift: UInt64 in [0, 8, 16, 24, 32, 40, 48, 56] {
                output.append(UInt8(truncatingIfNeeded: word >> shift))
            }
        }
        output.removeLast(output.count - count)
        return output
    }
}

package enum UUIDText {
    /// RFC 9562 §5.4.
    package static func v4(_ random: inout RandomSource) -> [UInt8] {
        let high = random.next() & 0xffff_ffff_ffff_0fff | 0x4000
        let low = random.next() & 0x3fff_ffff_ffff_ffff | 0x8000_0000_0000_0000
        return text(high, low)
    }

    /// RFC 9562 §5.7: milliseconds since 1970 in the first 48 bits, so that ids sort by time.
    package static func v7(_ random: inout RandomSource, milliseconds: UInt64) -> [UInt8] {
        let high = milliseconds << 16 | 0x7000 | random.next() & 0xfff
        let low = random.next() & 0x3fff_ffff_ffff_ffff | 0x8000_0000_0000_0000
        return text(high, low)
    }

    private static func text(_ high: UInt64, _ low: UInt64) -> [UInt8] {
        var output: [UInt8] = []
        output.reserveCapacity(36)
        for i in 0..<32 {
            if i == 8 || i == 12 || i == 16 || i == 20 { output.append(45) }
            let nibble = UInt8(truncatingIfNeeded: (i < 16 ? high : low) >> UInt64(60 - 4 * (i % 16))) & 15
            output.append(nibble < 10 ? 48 + nibble : 87 + nibble)
        }
        return output
    }
}
