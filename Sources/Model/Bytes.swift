// Bytes as the codec and the editing helpers read and write them: a set of bytes, a word of eight, a run copied whole.
// The few bulk moves of the pure rooms are here and nowhere else, each with the proof that makes it safe.

/// A set of ASCII bytes, held as two words: a test is two shifts, with no table in memory to load or to initialise.
public struct ByteSet: Sendable, Hashable {
    @usableFromInline let low: UInt64
    @usableFromInline let high: UInt64

    @inlinable
    public init(low: UInt64, high: UInt64) {
        self.low = low
        self.high = high
    }

    @inlinable
    public func contains(_ byte: UInt8) -> Bool {
        let word = byte < 64 ? low : byte < 128 ? high : 0
        return (word &>> UInt64(byte & 63)) & 1 == 1
    }

    /// RFC 9110 §5.6.2: tchar.
    @inlinable public static var token: ByteSet {
        ByteSet(low: 0x03ff_6cfa_0000_0000, high: 0x57ff_ffff_c7ff_fffe)
    }
    /// RFC 3986 §2.3: letters, digits, `-._~`.
    @inlinable public static var unreserved: ByteSet {
        ByteSet(low: 0x03ff_6000_0000_0000, high: 0x47ff_fffe_87ff_fffe)
    }
    /// Letters, digits, `-._`: what a host name may consist of here.
    @inlinable public static var hostName: ByteSet {
        ByteSet(low: 0x03ff_6000_0000_0000, high: 0x07ff_fffe_87ff_fffe)
    }
    /// RFC 5234: VCHAR.
    @inlinable public static var visible: ByteSet {
        ByteSet(low: 0xffff_fffe_0000_0000, high: 0x7fff_ffff_ffff_ffff)
    }
    /// RFC 6265 §4.1.1: cookie-octet.
    @inlinable public static var cookieOctet: ByteSet {
        ByteSet(low: 0xf7ff_effa_0000_0000, high: 0x7fff_ffff_efff_ffff)
    }
    /// RFC 6265 §4.1.1: what a path or domain attribute may hold.
    @inlinable public static var cookieAttribute: ByteSet {
        ByteSet(low: 0xf7ff_ffff_0000_0000, high: 0x7fff_ffff_ffff_ffff)
    }
}

extension Span where Element == UInt8 {
    /// The eight bytes from `offset` on, the first in the lowest place.
    @inlinable
    public func word(at offset: Int) -> UInt64 {
        // Proof: the load is bounds-checked, bytes have no padding, and every bit pattern is a UInt64.
        unsafe bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self).littleEndian
    }

    /// Whether it holds exactly the bytes of `text`.
    @inlinable
    public func equals(_ text: StaticString) -> Bool {
        guard count == text.utf8CodeUnitCount else { return false }
        // Proof: a StaticString's bytes live as long as the program, and `i` stays below their count.
        for i in 0..<count where unsafe self[i] != text.utf8Start[i] { return false }
        return true
    }

    /// Whether it holds the bytes of `text`, ASCII letters compared without case. `text` is in lower case.
    @inlinable
    public func equalsIgnoringCase(_ text: StaticString) -> Bool {
        guard count == text.utf8CodeUnitCount else { return false }
        // Proof: as in `equals`.
        for i in 0..<count {
            let byte = self[i]
            if unsafe (byte &- 65 < 26 ? byte | 0x20 : byte) != text.utf8Start[i] { return false }
        }
        return true
    }
}

extension Array where Element == UInt8 {
    @inlinable
    public mutating func append(_ source: Span<UInt8>) {
        // Proof: the buffer is read only inside the closure, while the span that lends it is alive.
        unsafe source.withUnsafeBufferPointer { unsafe append(contentsOf: $0) }
    }

    @inlinable
    public mutating func append(_ text: StaticString) {
        // Proof: a StaticString's bytes live as long as the program.
        unsafe append(contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }
}

extension OutputRawSpan {
    /// Appends what fits.
    @inlinable
    @_lifetime(self: copy self)
    public mutating func append(_ source: Span<UInt8>) {
        let n = Swift.min(source.count, freeCapacity)
        guard n > 0 else { return }
        // Proof: `n` bytes are readable (n ≤ source.count) and writable (n ≤ freeCapacity); the two cannot overlap,
        // because the output is held exclusively.
        unsafe source.withUnsafeBytes { from in
            unsafe withUnsafeMutableBytes { to, count in
                if let target = to.baseAddress, let start = from.baseAddress {
                    unsafe (target + count).copyMemory(from: start, byteCount: n)
                    count += n
                }
            }
        }
    }

    /// Appends what fits.
    @inlinable
    @_lifetime(self: copy self)
    public mutating func append(_ text: StaticString) {
        let n = Swift.min(text.utf8CodeUnitCount, freeCapacity)
        guard n > 0 else { return }
        // Proof: as above; a StaticString's bytes live as long as the program.
        unsafe withUnsafeMutableBytes { to, count in
            if let target = to.baseAddress {
                unsafe (target + count).copyMemory(from: text.utf8Start, byteCount: n)
                count += n
            }
        }
    }
}
