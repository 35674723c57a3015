import Testing

@testable import Reactor

func text(_ span: borrowing RawSpan) -> String {
    var bytes: [UInt8] = []
    for i in 0..<span.byteCount { bytes.append(unsafe span.unsafeLoad(fromByteOffset: i, as: UInt8.self)) }
    return String(decoding: bytes, as: UTF8.self)
}

/// A buffer that holds `text` and has no room left.
func filled(_ text: String) -> Buffer {
    let buffer = Buffer(capacity: text.utf8.count)
    buffer.append(Array(text.utf8))
    return buffer
}

@Suite struct BufferTests {
    @Test func appendsAtTheBackAndConsumesAtTheFront() {
        let buffer = Buffer(capacity: 8)
        buffer.append("abcdef")
        #expect(text(buffer.bytes) == "abcdef")
        buffer.consume(4)
        #expect(text(buffer.bytes) == "ef")
        #expect(buffer.room == 2)
        #expect(buffer.roomAfterCompacting == 6)
        buffer.compact()
        #expect(buffer.room == 6)
        #expect(text(buffer.bytes) == "ef")
    }

    @Test func appendsOnlyWhatFits() {
        let buffer = Buffer(capacity: 4)
        #expect(buffer.append(filled("abcdefgh").bytes) == 4)
        buffer.append(UInt8(ascii: "x"))
        buffer.append("yz")
        buffer.append([1, 2, 3])
        #expect(text(buffer.bytes) == "abcd")
        #expect(buffer.room == 0)
    }

    @Test func consumingTooMuchEmpties() {
        let buffer = Buffer(capacity: 4)
        buffer.append("abc")
        buffer.consume(100)
        #expect(buffer.isEmpty)
        #expect(buffer.room == 4)
        buffer.append("ab")
        buffer.consume(-1)
        #expect(buffer.count == 2)
        buffer.truncate(to: 1)
        #expect(text(buffer.bytes) == "a")
    }

    struct Refusal: Error {}

    @Test func writesThroughAnOutputSpan() throws {
        let buffer = Buffer(capacity: 4)
        buffer.append("a")
        buffer.write { out in
            out.append(UInt8(ascii: "b"))
            out.append(UInt8(ascii: "c"))
        }
        #expect(text(buffer.bytes) == "abc")
        #expect(throws: Refusal.self) {
            try buffer.write { (out: inout OutputRawSpan) throws(Refusal) in
                out.append(UInt8(ascii: "d"))
                throw Refusal()
            }
        }
        #expect(text(buffer.bytes) == "abc")
    }
}

@Suite struct BufferPoolTests {
    @Test func lendsTheWarmestFirstAndEmpty() {
        let pool = BufferPool()
        let a = pool.lend()
        let b = pool.lend()
        #expect(pool.lent == 2)
        a.append("left over")
        pool.giveBack(b)
        pool.giveBack(a)
        #expect(pool.lent == 0)
        let again = pool.lend()
        #expect(again === a)
        #expect(again.isEmpty)
    }

    @Test(arguments: [
        (0, BufferPool.smallCapacity), (16_385, BufferPool.largeCapacity), (81_921, BufferPool.doubleCapacity),
        (200_000, 200_000),
    ])
    func lendsByNeed(room: Int, capacity: Int) {
        let pool = BufferPool()
        let buffer = pool.lend(room: room)
        #expect(buffer.capacity == capacity)
        pool.giveBack(buffer)
    }

    /// What was needed once, and is not any more, goes by and by; what is in use stays.
    @Test func letsGoOfWhatNobodyNeeds() {
        let pool = BufferPool(spareSmall: 2, spareLarge: 0)
        for buffer in (0..<1_000).map({ _ in pool.lend() }) { pool.giveBack(buffer) }
        // They were all needed since the last time.
        pool.sweep()
        #expect(pool.idle == 1_000)
        pool.sweep()
        #expect(pool.idle == 1_000 - BufferPool.mostSwept)
        for _ in 0..<20 {
            let busy = (0..<100).map { _ in pool.lend() }
            for buffer in busy { pool.giveBack(buffer) }
            pool.sweep()
        }
        #expect(pool.idle == 100)
        let made = pool.made
        for buffer in (0..<100).map({ _ in pool.lend() }) { pool.giveBack(buffer) }
        #expect(pool.made == made)
        for _ in 0..<20 { pool.sweep() }
        #expect(pool.idle == 2)
    }
}
