// Numbers for request ids: unique, not secret; nothing relies on their being unguessable.

/// xoroshiro128+, seeded per loop.
struct RandomNumbers {
    private var a: UInt64
    private var b: UInt64

    init(seed: UInt64) {
        // SplitMix64 spreads a poor seed over both words, and never leaves both zero.
        var state = seed
        func next() -> UInt64 {
            state &+= 0x9e37_79b9_7f4a_7c15
            var z = state
            z = (z ^ (z &>> 30)) &* 0xbf58_476d_1ce4_e5b9
            z = (z ^ (z &>> 27)) &* 0x94d0_49bb_1331_11eb
            return z ^ (z &>> 31)
        }
        a = next() | 1
        b = next()
    }

    mutating func next() -> UInt64 {
        let result = a &+ b
        let c = b ^ a
        a = ((a &<< 24) | (a &>> 40)) ^ c ^ (c &<< 16)
        b = (c &<< 37) | (c &>> 27)
        return result
    }
}
