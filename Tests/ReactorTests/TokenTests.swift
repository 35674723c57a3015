import Testing

@testable import Reactor

@Suite struct TokenTests {
    @Test(arguments: [
        (UInt8(0), UInt32(0), UInt32(0)), (1, 7, 3), (255, .max, 0xff_ffff),
    ])
    func carriesItsParts(kind: UInt8, index: UInt32, generation: UInt32) {
        let token = Token(kind: kind, index: index, generation: generation)
        #expect(token.kind == kind)
        #expect(token.index == index)
        #expect(token.generation == generation)
    }

    @Test func cutsTheGenerationWithoutTouchingTheKind() {
        let token = Token(kind: 2, index: 5, generation: 0x0100_0001)
        #expect(token.kind == 2)
        #expect(token.generation == 1)
        #expect(token.index == 5)
    }
}
