// Hashing of hosts and paths for the route table: eight bytes at a time, keyed with a secret of this process.

/// A keyed hash over bytes, in the family of folded multiplications.
///
/// Tenants choose the keys of the table (hosts and paths of their Ingresses) and clients choose what is looked up. The
/// secret is drawn anew by each process, so neither can choose keys that fall into the same slot.
struct ByteHash: Sendable, Equatable {
    let start: UInt64
    let step: UInt64
    let end: UInt64

    /// The state before the first byte. `salt` tells apart the spaces that share one table.
    @inline(__always)
    func begin(salt: UInt64) -> UInt64 { Self.fold(start ^ salt, step) }

    /// Takes in eight bytes.
    @inline(__always)
    func absorb(_ state: UInt64, _ word: UInt64) -> UInt64 { Self.fold(state ^ word, step) }

    /// The hash, given the last zero to seven bytes and the length of all. It leaves the state as it was, so that each
    /// prefix of a path is hashed in the same pass.
    @inline(__always)
    func finish(_ state: UInt64, tail: UInt64, count: Int) -> UInt64 {
        Self.fold(state ^ tail ^ UInt64(truncatingIfNeeded: count) &* 0x9e37_79b9_7f4a_7c15, end)
    }

    func hash(_ bytes: Span<UInt8>, salt: UInt64) -> UInt64 {
        var state = begin(salt: salt)
        var i = 0
        while bytes.count - i >= 8 {
            state = absorb(state, bytes.word(at: i))
            i += 8
        }
        return finish(state, tail: bytes.tail(at: i), count: bytes.count)
    }

    @inline(__always)
    private static func fold(_ a: UInt64, _ b: UInt64) -> UInt64 {
        let product = a.multipliedFullWidth(by: b)
        return product.high ^ product.low
    }
}

extension ByteHash {
    init(using generator: inout some RandomNumberGenerator) {
        start = generator.next()
        step = generator.next() | 1
        end = generator.next() | 1
    }
}

extension Span<UInt8> {
    /// Eight bytes, the first in the lowest place. Taken out as a span of eight, so that one check stands for all.
    @inline(__always)
    func word(at i: Int) -> UInt64 {
        let part = extracting(i..<(i &+ 8))
        return UInt64(part[0]) | UInt64(part[1]) << 8 | UInt64(part[2]) << 16 | UInt64(part[3]) << 24
            | UInt64(part[4]) << 32 | UInt64(part[5]) << 40 | UInt64(part[6]) << 48 | UInt64(part[7]) << 56
    }

    /// The bytes from `i` to the end, fewer than eight, as the low end of a word.
    @inline(__always)
    func tail(at i: Int) -> UInt64 {
        let left = count &- i
        if left <= 0 { return 0 }
        if count >= 8 { return word(at: count &- 8) >> UInt64(truncatingIfNeeded: (8 &- left) &* 8) }
        var result: UInt64 = 0
        var k = i
        while k < count {
            result |= UInt64(self[k]) << UInt64(truncatingIfNeeded: (k &- i) &* 8)
            k &+= 1
        }
        return result
    }

    /// Whether the first `length` bytes are those that `words` holds from `offset` on, filled up with zeros.
    @inline(__always)
    func equals(_ words: [UInt64], from offset: Int, count length: Int) -> Bool {
        var i = 0
        var place = offset
        while length &- i >= 8 {
            if word(at: i) != words[place] { return false }
            i &+= 8
            place &+= 1
        }
        if i == length { return true }
        let rest = count &- i >= 8 ? word(at: i) : tail(at: i)
        return rest & (1 << UInt64(truncatingIfNeeded: (length &- i) &* 8) &- 1) == words[place]
    }
}
