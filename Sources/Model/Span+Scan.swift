// The inner loops of the codec: where does a run of admissible bytes end? Eight bytes at a time in one word. A search asks
// for the lowest byte only, and may borrow from the bytes above it; a count must be exact in each byte.

extension Span where Element == UInt8 {
    /// The first offset in `start..<end` whose byte no field value may hold, else `end`.
    @inlinable
    @inline(__always)
    public func firstControl(from start: Int, to end: Int) -> Int {
        var p = start
        while true {
            while p &+ 8 <= end {
                // A tab is found too, and passed over below: there are few.
                let word = word(at: p)
                let below = (word &- 0x2020_2020_2020_2020) & ~word
                let delete = word ^ 0x7f7f_7f7f_7f7f_7f7f
                let found = (below | (delete &- 0x0101_0101_0101_0101) & ~delete) & 0x8080_8080_8080_8080
                if found != 0 {
                    p &+= found.trailingZeroBitCount &>> 3
                    break
                }
                p &+= 8
            }
            while p < end, self[p] >= 0x20, self[p] != 0x7f { p &+= 1 }
            guard p < end, self[p] == 0x09 else { return p }
            p &+= 1
        }
    }

    /// The first offset in `start..<end` whose byte is not visible ASCII, else `end`.
    @inlinable
    @inline(__always)
    public func firstNotVisible(from start: Int, to end: Int) -> Int {
        var p = start
        while p &+ 8 <= end {
            let word = word(at: p)
            let delete = word ^ 0x7f7f_7f7f_7f7f_7f7f
            let found =
                (word | word &- 0x2121_2121_2121_2121 | (delete &- 0x0101_0101_0101_0101) & ~delete)
                & 0x8080_8080_8080_8080
            if found != 0 { return p &+ found.trailingZeroBitCount &>> 3 }
            p &+= 8
        }
        while p < end, self[p] &- 0x21 < 0x5e { p &+= 1 }
        return p
    }

    /// The first offset in `start..<end` whose byte is no letter and no `-`, else `end`.
    @inlinable
    @inline(__always)
    public func firstNotLetterOrDash(from start: Int, to end: Int) -> Int {
        var p = start
        while p &+ 8 <= end {
            let found = Self.notLetterOrDash(word(at: p))
            if found != 0 { return p &+ found.trailingZeroBitCount &>> 3 }
            p &+= 8
        }
        while p < end, (self[p] | 0x20) &- 0x61 < 26 || self[p] == 0x2d { p &+= 1 }
        return p
    }

    /// How many bytes in `start..<end` no field value may hold.
    @inlinable
    @inline(__always)
    public func countControls(from start: Int, to end: Int) -> Int {
        var p = start
        var total = 0
        while p &+ 8 <= end {
            // Each byte of the sum counts one column; 255 rounds fit.
            let stop = Swift.min(end &- 7, p &+ 8 &* 255)
            var columns: UInt64 = 0
            while p < stop {
                columns &+= Self.controls(word(at: p)) &>> 7
                p &+= 8
            }
            let pairs = (columns & 0x00ff_00ff_00ff_00ff) &+ ((columns &>> 8) & 0x00ff_00ff_00ff_00ff)
            total &+= Int(truncatingIfNeeded: (pairs &* 0x0001_0001_0001_0001) &>> 48)
        }
        while p < end {
            if FieldGrammar.isControl(self[p]) { total &+= 1 }
            p &+= 1
        }
        return total
    }

    /// The top bit of each byte that is below 0x20 and no tab, or DEL. No sum leaves its byte.
    @inlinable
    @inline(__always)
    static func controls(_ word: UInt64) -> UInt64 {
        let low = word & ~0x8080_8080_8080_8080
        let notBelow = low &+ 0x6060_6060_6060_6060
        let isDelete = low &+ 0x0101_0101_0101_0101
        let notTab = (low ^ 0x0909_0909_0909_0909) &+ 0x7f7f_7f7f_7f7f_7f7f
        return (~notBelow & notTab | isDelete) & ~word & 0x8080_8080_8080_8080
    }

    /// The top bit of each byte that is no ASCII letter and no `-`. Sums stay within their bytes: a carry could hide one.
    @inlinable
    @inline(__always)
    static func notLetterOrDash(_ word: UInt64) -> UInt64 {
        let low = word & ~0x8080_8080_8080_8080
        let lower = low | 0x2020_2020_2020_2020
        // From `a` on, and from `{` on.
        let fromA = lower &+ 0x1f1f_1f1f_1f1f_1f1f
        let beyondZ = lower &+ 0x0505_0505_0505_0505
        let dash = low ^ 0x2d2d_2d2d_2d2d_2d2d
        let notDash = dash &+ 0x7f7f_7f7f_7f7f_7f7f
        return ((~fromA | beyondZ) & notDash | word) & 0x8080_8080_8080_8080
    }

    /// The first offset in `start..<end` of that byte, else `end`.
    @inlinable
    @inline(__always)
    public func firstIndex(of byte: UInt8, from start: Int, to end: Int) -> Int {
        var p = start
        let pattern = 0x0101_0101_0101_0101 &* UInt64(byte)
        while p &+ 8 <= end {
            let other = word(at: p) ^ pattern
            let found = (other &- 0x0101_0101_0101_0101) & ~other & 0x8080_8080_8080_8080
            if found != 0 { return p &+ found.trailingZeroBitCount &>> 3 }
            p &+= 8
        }
        while p < end, self[p] != byte { p &+= 1 }
        return p
    }
}
