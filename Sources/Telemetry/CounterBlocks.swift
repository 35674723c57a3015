// The memory of one loop's counters: a block of words for each series that the loop has met, in pages.
//
// A report is a copy of the outer arrays: it shares the pages, and each page is copied once when the loop next writes to
// it. So a report costs the loop little at the moment, whatever the number of series, and no lock guards a counter.

struct CounterBlocks: Sendable {
    /// Words of a block.
    let stride: Int
    /// Block of a series' slot, -1 for none yet.
    private var blockOfSlot: [Int32] = []
    /// Which series each block counts.
    private(set) var series: [SeriesID] = []
    private var pages: [[UInt64]] = []

    private static let blocksPerPage = 32

    init(stride: Int) {
        self.stride = stride
    }

    /// Lets `body` count in the block of a series: the page, and where in it the block begins.
    @inline(__always)
    mutating func update(_ id: SeriesID, _ body: (inout [UInt64], Int) -> Void) {
        let block = block(of: id)
        body(&pages[block / Self.blocksPerPage], block % Self.blocksPerPage * stride)
    }

    @inline(__always)
    private mutating func block(of id: SeriesID) -> Int {
        let slot = Int(id.slot)
        if slot < blockOfSlot.count {
            let block = Int(blockOfSlot[slot])
            if block >= 0, series[block].life == id.life { return block }
        }
        return makeBlock(id)
    }

    @inline(never)
    private mutating func makeBlock(_ id: SeriesID) -> Int {
        let slot = Int(id.slot)
        while blockOfSlot.count <= slot { blockOfSlot.append(-1) }
        let known = Int(blockOfSlot[slot])
        if known >= 0 {
            // The number has a new owner, or the last request of the old one ends late: its counts go to the newer.
            if series[known].life < id.life {
                series[known] = id
                let base = known % Self.blocksPerPage * stride
                for i in 0..<stride { pages[known / Self.blocksPerPage][base + i] = 0 }
            }
            return known
        }
        let block = series.count
        if block % Self.blocksPerPage == 0 {
            pages.append([UInt64](repeating: 0, count: stride * Self.blocksPerPage))
        }
        series.append(id)
        blockOfSlot[slot] = Int32(truncatingIfNeeded: block)
        return block
    }

    /// Adds each block to what `sums` holds for its series.
    func add(to sums: inout [SeriesID: [UInt64]]) {
        for (block, id) in series.enumerated() {
            let base = block % Self.blocksPerPage * stride
            let page = pages[block / Self.blocksPerPage]
            var sum = sums.removeValue(forKey: id) ?? [UInt64](repeating: 0, count: stride)
            for i in 0..<stride { sum[i] &+= page[base + i] }
            sums[id] = sum
        }
    }
}

/// Upper bounds of the buckets of a histogram, and where a value falls.
struct Buckets: Sendable {
    /// In nanoseconds, rising; beyond the last is one bucket more.
    let bounds: [UInt64]

    /// A millisecond to ten seconds, three steps a decade: what a request takes.
    static let requests = Buckets(bounds: [
        500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 50_000_000, 100_000_000, 250_000_000,
        500_000_000, 1_000_000_000, 2_500_000_000, 5_000_000_000, 10_000_000_000, 60_000_000_000,
    ])
    /// A microsecond to ten milliseconds: what a script takes.
    static let scripts = Buckets(bounds: [
        1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
        10_000_000,
    ])

    /// Words that a histogram takes: the buckets, the one beyond, and the sum.
    var words: Int { bounds.count + 2 }

    @inline(__always)
    func index(of value: UInt64) -> Int {
        var i = 0
        while i < bounds.count, value > bounds[i] { i &+= 1 }
        return i
    }
}
