import KubernetesClient
import Testing

@Suite struct WatchLineDecoderTests {
    @Test func everySplitGivesTheSameLines() throws {
        let text = Array("{\"a\":1}\n{\"b\":2}\r\n\n{\"ü\":3}\nhalf".utf8)
        for first in 0...text.count {
            for second in first...text.count {
                var decoder = WatchLineDecoder()
                var lines: [[UInt8]] = []
                for part in [text[..<first], text[first..<second], text[second...]] { lines += try decoder.feed(part) }
                #expect(lines == [Array("{\"a\":1}".utf8), Array("{\"b\":2}".utf8), Array("{\"ü\":3}".utf8)])
                #expect(decoder.pendingCount == 4)
            }
        }
    }

    @Test(arguments: [(9, true), (10, true), (11, false)])
    func aLineMayNotBeLongerThanTheLimit(length: Int, isAllowed: Bool) {
        for hasEnd in [true, false] {
            var decoder = WatchLineDecoder(limit: 10)
            let line = [UInt8](repeating: 120, count: length) + (hasEnd ? [10] : [])
            let isTaken = (try? decoder.feed(line)) != nil
            #expect(isTaken == isAllowed)
        }
    }

    @Test func theLimitHoldsAcrossChunks() {
        var decoder = WatchLineDecoder(limit: 10)
        #expect(throws: WatchLineDecoder.TooLong.self) {
            for _ in 0..<11 { _ = try decoder.feed([120]) }
        }
    }
}
