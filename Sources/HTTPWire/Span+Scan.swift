// The inner loops of the codec: where does a run of admissible bytes end? Eight bytes at a time; each test is exact in
// every byte of the word, because a carry from one byte into the next could hide a byte from the search.

internal import Model

/// The top bit of each byte that is below 0x20 and no tab, or DEL. Bytes ≥ 0x80 are obs-text and pass.
@inline(__always)
func controls(_ word: UInt64) -> UInt64 {
    let low = word & ~0x8080_8080_8080_8080
    // Adding 0x60 to seven bits sets the top bit from 0x20 on; no sum leaves its byte.
    let notBelow = low &+ 0x6060_6060_6060_6060
    // Adding 1 to seven bits sets the top bit for 0x7f only.
    let isDelete = low &+ 0x0101_0101_0101_0101
    let tab = low ^ 0x0909_0909_0909_0909
    let notTab = tab &+ 0x7f7f_7f7f_7f7f_7f7f
    return (~notBelow & notTab | isDelete) & ~word & 0x8080_8080_8080_8080
}

/// The top bit of each byte that is not 0x21…0x7e.
@inline(__always)
func notVisible(_ word: UInt64) -> UInt64 {
    let low = word & ~0x8080_8080_8080_8080
    let isVisible = low &+ 0x5f5f_5f5f_5f5f_5f5f
    let isDelete = low &+ 0x0101_0101_0101_0101
    return (~isVisible | isDelete | word) & 0x8080_8080_8080_8080
}

/// The top bit of each byte that is no ASCII letter and no `-`.
@inline(__always)
func notLetterOrDash(_ word: UInt64) -> UInt64 {
    let low = word & ~0x8080_8080_8080_8080
    let lower = low | 0x2020_2020_2020_2020
    // From `a` on, and from `{` on.
    let fromA = lower &+ 0x1f1f_1f1f_1f1f_1f1f
    let beyondZ = lower &+ 0x0505_0505_0505_0505
    let dash = low ^ 0x2d2d_2d2d_2d2d_2d2d
    let notDash = dash &+ 0x7f7f_7f7f_7f7f_7f7f
    return ((~fromA | beyondZ) & notDash | word) & 0x8080_8080_8080_8080
}

extension Span where Element == UInt8 {
    /// The first offset in `start..<end` whose byte no field value may hold, else `end`.
    @inline(__always)
    func firstControl(from start: Int, to end: Int) -> Int {
        var p = start
        while p &+ 8 <= end {
            let found = controls(word(at: p))
            if found != 0 { return p &+ found.trailingZeroBitCount &>> 3 }
            p &+= 8
        }
        while p < end, !FieldGrammar.isControl(self[p]) { p &+= 1 }
        return p
    }

    /// The first offset in `start..<end` whose byte is not visible ASCII, else `end`.
    @inline(__always)
    func firstNotVisible(from start: Int, to end: Int) -> Int {
        var p = start
        while p &+ 8 <= end {
            let found = notVisible(word(at: p))
            if found != 0 { return p &+ found.trailingZeroBitCount &>> 3 }
            p &+= 8
        }
        while p < end, ByteSet.visible.contains(self[p]) { p &+= 1 }
        return p
    }

    /// The first offset in `start..<end` whose byte is no letter and no `-`, else `end`.
    @inline(__always)
    func firstNotLetterOrDash(from start: Int, to end: Int) -> Int {
        var p = start
        while p &+ 8 <= end {
            let found = notLetterOrDash(word(at: p))
            if found != 0 { return p &+ found.trailingZeroBitCount &>> 3 }
            p &+= 8
        }
        while p < end, (self[p] | 0x20) &- 0x61 < 26 || self[p] == 0x2d { p &+= 1 }
        return p
    }

    /// The first offset in `start..<end` of that byte, else `end`.
    @inline(__always)
    func firstIndex(of byte: UInt8, from start: Int, to end: Int) -> Int {
        var p = start
        while p < end, self[p] != byte { p &+= 1 }
        return p
    }

    /// How many bytes in `start..<end` no field value may hold.
    @inline(__always)
    func countControls(from start: Int, to end: Int) -> Int {
        var p = start
        var total = 0
        while p &+ 8 <= end {
            // Each byte of the sum counts one column; 255 rounds fit.
            let stop = Swift.min(end &- 7, p &+ 8 &* 255)
            var columns: UInt64 = 0
            while p < stop {
                columns &+= controls(word(at: p)) &>> 7
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
}
