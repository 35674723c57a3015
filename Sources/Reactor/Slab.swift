// Tables of connections: a row is named by index and generation, never by a pointer.

/// Rows that are taken and given back, each with a count of its lives.
///
/// Looking up with a generation of an earlier life answers nil: an event, a deadline or a message that was on its way
/// to a connection that has since been closed finds nobody.
public struct Slab<Element> {
    @usableFromInline struct Row {
        @usableFromInline var element: Element?
        @usableFromInline var generation: UInt32
        @usableFromInline init(element: Element?, generation: UInt32) {
            self.element = element
            self.generation = generation
        }
    }

    @usableFromInline var rows: [Row] = []
    @usableFromInline var free: [UInt32] = []
    @usableFromInline var living = 0
    /// Rows that are taken.
    @inlinable public var count: Int { living }

    @inlinable public init() {}

    @inlinable public mutating func insert(_ element: Element) -> (index: UInt32, generation: UInt32) {
        living += 1
        if let index = free.popLast() {
            rows[Int(index)].element = element
            return (index, rows[Int(index)].generation)
        }
        rows.append(Row(element: element, generation: 1))
        return (UInt32(rows.count - 1), 1)
    }

    @inlinable public subscript(index index: UInt32, generation generation: UInt32) -> Element? {
        guard Int(index) < rows.count, rows[Int(index)].generation == generation else { return nil }
        return rows[Int(index)].element
    }

    @inlinable public subscript(token token: Token) -> Element? {
        self[index: token.index, generation: token.generation]
    }

    /// Ends this life of the row and answers what was in it.
    @discardableResult
    @inlinable public mutating func remove(index: UInt32, generation: UInt32) -> Element? {
        guard Int(index) < rows.count, rows[Int(index)].generation == generation, let element = rows[Int(index)].element
        else { return nil }
        rows[Int(index)].element = nil
        // 24 bits, as in a token; zero is never a living generation.
        let next = (generation &+ 1) & 0xff_ffff
        rows[Int(index)].generation = next == 0 ? 1 : next
        free.append(index)
        living -= 1
        return element
    }

    /// Every living element, in a list of its own: the table may change while it is walked.
    public var elements: [Element] { rows.compactMap(\.element) }
}
