// The hash of assignments and of `moongate.hash.xxh64`: XXH64 as its specification gives it (Yann Collet, "xxHash fast
// digest algorithm", 0.1.1). Not for secrets: whoever knows the input can find collisions.

import Model

package enum XXH64 {
    private static var prime1: UInt64 { 0x9e37_79b1_85eb_ca87 }
    private static var prime2: UInt64 { 0xc2b2_ae3d_27d4_eb4f }
    private static var prime3: UInt64 { 0x1656_67b1_9e37_79f9 }
    private static var prime4: UInt64 { 0x85eb_ca77_c2b2_ae63 }
    private static var prime5: UInt64 { 0x27d4_eb2f_1656_67c5 }

    package static func hash(_ input: Span<UInt8>, seed: UInt64 = 0) -> UInt64 {
        var at = 0
        var hash: UInt64
        if input.count >= 32 {
            var a = seed &+ prime1 &+ prime2
            var b = seed &+ prime2
            var c = seed
            var d = seed &- prime1
            while input.count - at >= 32 {
                a = round(a, input.word(at: at))
                b = round(b, input.word(at: at + 8))
                c = round(c, input.word(at: at + 16))
                d = round(d, input.word(at: at + 24))
                at += 32
            }
            hash = rotate(a, 1) &+ rotate(b, 7) &+ rotate(c, 12) &+ rotate(d, 18)
            for lane in [a, b, c, d] { hash = (hash ^ round(0, lane)) &* prime1 &+ prime4 }
        } else {
            hash = seed &+ prime5
        }
        hash &+= UInt64(input.count)
        while input.count - at >= 8 {
            hash = rotate(hash ^ round(0, input.word(at: at)), 27) &* prime1 &+ prime4
            at += 8
        }
        if input.count - at >= 4 {
            var word: UInt64 = 0
            for i in 0..<4 { word |= UInt64(input[at + i]) << UInt64(8 * i) }
            hash = rotate(hash ^ word &* prime1, 23) &* prime2 &+ prime3
            at += 4
        }
        while at < input.count {
            hash = rotate(hash ^ UInt64(input[at]) &* prime5, 11) &* prime1
            at += 1
        }
        hash = (hash ^ hash >> 33) &* prime2
        hash = (hash ^ hash >> 29) &* prime3
        return hash ^ hash >> 32
    }

    @inline(__always)
    private static func rotate(_ value: UInt64, _ bits: UInt64) -> UInt64 { value << bits | value >> (64 - bits) }

    @inline(__always)
    private static func round(_ lane: UInt64, _ word: UInt64) -> UInt64 {
        rotate(lane &+ word &* prime2, 31) &* prime1
    }
}
