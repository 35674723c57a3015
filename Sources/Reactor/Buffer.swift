// Bytes at rest: what was read but not yet understood, or written but not yet taken by the kernel.
internal import CLinux

/// A fixed piece of memory with a front and a back; bytes are appended at the back and taken from the front.
///
/// All raw memory of the data plane is in here. Everything outside sees checked spans: a read past the end or an
/// append without room cannot reach other memory. Appending answers what fitted instead of growing, because nothing
/// on the path may grow without bound.
@safe public final class Buffer {
    // SAFETY (of every use below): `base` is `capacity` bytes, allocated in `init` and freed in `deinit` only;
    // 0 ≤ start ≤ end ≤ capacity holds after every method, and every access is within start..<end or end..<capacity.
    @usableFromInline let base: UnsafeMutableRawPointer
    public let capacity: Int
    @usableFromInline var start = 0
    @usableFromInline var end = 0

    public init(capacity: Int) {
        self.capacity = max(capacity, 1)
        unsafe base = UnsafeMutableRawPointer.allocate(byteCount: self.capacity, alignment: 64)
    }

    deinit {
        unsafe moongate_leave(base, capacity)
        unsafe base.deallocate()
    }

    @inlinable public var count: Int { end &- start }
    @inlinable public var isEmpty: Bool { start == end }
    /// How much can be appended without moving what is there.
    @inlinable public var room: Int { capacity &- end }
    /// How much can be appended after `compact()`.
    @inlinable public var roomAfterCompacting: Int { capacity &- count }

    /// What is in the buffer.
    @inlinable public var bytes: RawSpan {
        @_lifetime(borrow self)
        get {
            let span = unsafe RawSpan(_unsafeStart: UnsafeRawPointer(base + start), byteCount: end &- start)
            return unsafe _overrideLifetime(span, borrowing: self)
        }
    }

    /// The same as bytes one by one.
    @inlinable public var span: Span<UInt8> {
        @_lifetime(borrow self)
        get {
            let bytes = unsafe UnsafeBufferPointer(
                start: UnsafePointer((base + start).assumingMemoryBound(to: UInt8.self)), count: end &- start)
            let span = unsafe Span(_unsafeElements: bytes)
            return unsafe _overrideLifetime(span, borrowing: self)
        }
    }

    @inlinable public func removeAll() {
        start = 0
        end = 0
    }

    /// Takes `n` bytes (at most all) from the front.
    @inlinable public func consume(_ n: Int) {
        start &+= min(max(n, 0), end &- start)
        if start == end {
            start = 0
            end = 0
        }
    }

    /// Takes bytes from the back, down to `n`.
    @inlinable public func truncate(to n: Int) {
        if n < count { end = start &+ max(n, 0) }
    }

    /// Moves what is there to the beginning, so that all free room is at the back.
    public func compact() {
        guard start > 0 else { return }
        unsafe base.copyMemory(from: base + start, byteCount: end - start)
        end -= start
        start = 0
    }

    /// Appends what fits and says how much that was.
    @inlinable @discardableResult
    public func append(_ span: borrowing RawSpan) -> Int {
        let n = min(span.byteCount, room)
        guard n > 0 else { return 0 }
        unsafe span.withUnsafeBytes { source in
            unsafe (base + end).copyMemory(from: source.baseAddress.unsafelyUnwrapped, byteCount: n)
        }
        end &+= n
        return n
    }

    @inlinable public func append(_ byte: UInt8) {
        guard room > 0 else { return }
        unsafe base.storeBytes(of: byte, toByteOffset: end, as: UInt8.self)
        end &+= 1
    }

    @inlinable public func append(_ text: StaticString) {
        let n = min(text.utf8CodeUnitCount, room)
        guard n > 0 else { return }
        unsafe (base + end).copyMemory(from: text.utf8Start, byteCount: n)
        end &+= n
    }

    @inlinable public func append(_ bytes: [UInt8]) {
        let n = min(bytes.count, room)
        guard n > 0 else { return }
        unsafe bytes.withUnsafeBytes { source in
            unsafe (base + end).copyMemory(from: source.baseAddress.unsafelyUnwrapped, byteCount: n)
        }
        end &+= n
    }

    /// Lets `body` write into the free room at the back; what it wrote is then in the buffer.
    @inlinable public func write<E: Error>(_ body: (inout OutputRawSpan) throws(E) -> Void) throws(E) {
        let free = unsafe UnsafeMutableRawBufferPointer(start: base + end, count: room)
        var span = unsafe OutputRawSpan(buffer: free, initializedCount: 0)
        do {
            try body(&span)
        } catch {
            _ = unsafe span.finalize(for: free)
            throw error
        }
        end &+= unsafe span.finalize(for: free)
    }
}

/// Lends buffers and takes them back. One per loop, never shared: a connection holds a buffer only while it has
/// something in it, so that an idle connection costs none.
///
/// What comes back is kept for the next: to leave memory to the kernel and to have it again costs more than to use it. What
/// nobody has needed for a while goes (`sweep`).
public final class BufferPool {
    public static let smallCapacity = 16 * 1024
    /// One full read with the framing around it fits.
    public static let largeCapacity = 80 * 1024
    /// And another one, behind what was there.
    public static let doubleCapacity = 160 * 1024
    /// How many go at one time: each takes some microseconds.
    static let mostSwept = 400

    private struct Shelf {
        let capacity: Int
        /// So many stay, whatever happens.
        let kept: Int
        var idle: [Buffer] = []
        /// The fewest that were idle since the last sweep: so many were not needed.
        var unneeded = 0
    }

    /// By capacity.
    private var shelves: [Shelf]
    /// How many buffers are out on loan.
    public private(set) var lent = 0
    /// How many have been allocated.
    public private(set) var made = 0

    public init(spareSmall: Int = 256, spareLarge: Int = 32) {
        shelves = [
            Shelf(capacity: Self.smallCapacity, kept: spareSmall),
            Shelf(capacity: Self.largeCapacity, kept: spareLarge),
            Shelf(capacity: Self.doubleCapacity, kept: 0),
        ]
        for i in shelves.indices { shelves[i].idle.reserveCapacity(shelves[i].kept) }
    }

    /// An empty buffer with room for at least `room` bytes. The buffer given back last comes first: its memory is
    /// the warmest.
    public func lend(room: Int = 0) -> Buffer {
        lent += 1
        for i in shelves.indices where room <= shelves[i].capacity {
            guard let buffer = shelves[i].idle.popLast() else { return make(shelves[i].capacity) }
            shelves[i].unneeded = min(shelves[i].unneeded, shelves[i].idle.count)
            return buffer
        }
        return make(room)
    }

    private func make(_ capacity: Int) -> Buffer {
        made += 1
        return Buffer(capacity: capacity)
    }

    public func giveBack(_ buffer: Buffer) {
        lent -= 1
        buffer.removeAll()
        for i in shelves.indices where buffer.capacity == shelves[i].capacity { shelves[i].idle.append(buffer) }
    }

    /// How many wait to be lent.
    public var idle: Int { shelves.reduce(0) { $0 + $1.idle.count } }

    /// Lets go of half of those that were not needed since the last time, the coldest first. To be called once in a while,
    /// as once a second.
    public func sweep() {
        for i in shelves.indices {
            let surplus = min(shelves[i].unneeded, shelves[i].idle.count - shelves[i].kept)
            if surplus > 0 { shelves[i].idle.removeFirst(min((surplus + 1) / 2, Self.mostSwept)) }
            shelves[i].unneeded = shelves[i].idle.count
        }
    }
}
