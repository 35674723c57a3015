import Testing

@testable import Reactor

@Suite struct SlabTests {
    @Test func anEarlierLifeFindsNobody() {
        var slab = Slab<String>()
        let first = slab.insert("a")
        #expect(slab[index: first.index, generation: first.generation] == "a")
        #expect(slab.remove(index: first.index, generation: first.generation) == "a")
        let second = slab.insert("b")
        #expect(second.index == first.index)
        #expect(slab[index: first.index, generation: first.generation] == nil)
        #expect(slab.remove(index: first.index, generation: first.generation) == nil)
        #expect(slab[token: Token(kind: 9, index: second.index, generation: second.generation)] == "b")
        #expect(slab.count == 1)
    }

    @Test func anIndexBeyondTheTableIsNobody() {
        let slab = Slab<Int>()
        #expect(slab[index: 4_000_000_000, generation: 1] == nil)
    }

    @Test func generationsStayWithinATokenAndAboveZero() {
        var slab = Slab<Int>()
        var last = slab.insert(0)
        for n in 1...100 {
            slab.remove(index: last.index, generation: last.generation)
            last = slab.insert(n)
            #expect(Token(kind: 0, index: last.index, generation: last.generation).generation == last.generation)
            #expect(last.generation != 0)
        }
        #expect(slab.elements == [100])
    }
}
