// A watch is a stream of JSON texts, one a line, cut into chunks wherever the network likes.

/// Puts lines together from chunks. A line that was not ended when the stream was cut is never given out: half an event
/// is no event.
package struct WatchLineDecoder: Sendable {
    /// A line went beyond the limit.
    package struct TooLong: Error, Sendable {}

    private var pending: [UInt8] = []
    private let limit: Int

    /// The API server holds objects to about 1.5 MiB; JSON escapes and managed fields may blow one up.
    package init(limit: Int = 16 << 20) { self.limit = limit }

    /// Takes a chunk and gives back the lines that it completes, without their ends; empty lines are left out.
    package mutating func feed(_ chunk: some Collection<UInt8>) throws(TooLong) -> [[UInt8]] {
        var lines: [[UInt8]] = []
        var rest = chunk[...]
        while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
            guard pending.count + rest.distance(from: rest.startIndex, to: end) <= limit else { throw TooLong() }
            pending.append(contentsOf: rest[..<end])
            if pending.last == UInt8(ascii: "\r") { pending.removeLast() }
            if !pending.isEmpty { lines.append(pending) }
            pending.removeAll(keepingCapacity: true)
            rest = rest[rest.index(after: end)...]
        }
        guard pending.count + rest.count <= limit else { throw TooLong() }
        pending.append(contentsOf: rest)
        return lines
    }

    /// Bytes of a line that has not ended yet.
    package var pendingCount: Int { pending.count }
}
