// What an event carries from the kernel back to the loop: which table, which row, which life of that row.

/// Names a thing that the kernel watches, by kind, index and generation, in the 64 bits that an event can carry.
///
/// A slot that was closed and taken again has another generation, so an event that was already waiting for the old
/// life is recognised and dropped. The kind is the caller's: a small number to switch over.
public struct Token: Equatable, Hashable, Sendable {
    public let rawValue: UInt64

    @inlinable public init(rawValue: UInt64) {
        self.rawValue = rawValue
    }

    /// The generation is cut to 24 bits: sixteen million lives of one slot between two polls cannot happen.
    @inlinable public init(kind: UInt8, index: UInt32, generation: UInt32) {
        rawValue = UInt64(kind) << 56 | UInt64(generation & 0xff_ffff) << 32 | UInt64(index)
    }

    @inlinable public var kind: UInt8 { UInt8(truncatingIfNeeded: rawValue >> 56) }
    @inlinable public var generation: UInt32 { UInt32(truncatingIfNeeded: rawValue >> 32) & 0xff_ffff }
    @inlinable public var index: UInt32 { UInt32(truncatingIfNeeded: rawValue) }
}
