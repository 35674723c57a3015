import Model
import Testing

@testable import Compression

@Suite struct EncoderPoolTests {
    @Test func memoryIsBoundedAndOneIsAlwaysThere() throws {
        let pool = EncoderPool(levels: CodingLevels(), memory: 1 << 20)
        let first = try #require(pool.take(.brotli))
        #expect(pool.held == ContentEncoder.memory(.brotli, level: 4))
        #expect(pool.take(.gzip) == nil)
        pool.giveBack(first)
        #expect(pool.lent == 0)
        let small = try (0..<3).map { _ in try #require(pool.take(.gzip)) }
        #expect(pool.take(.gzip) == nil)
        #expect(pool.held == 3 * ContentEncoder.memory(.gzip, level: 1))
        for encoder in small { pool.giveBack(encoder) }
        #expect(pool.lent == 0)
    }

    @Test func spareOnesAreUsedAgainAndMakeRoomForOthers() throws {
        let pool = EncoderPool(levels: CodingLevels(), memory: 4 << 20)
        let first = try #require(pool.take(.zstd))
        pool.giveBack(first)
        let again = try #require(pool.take(.zstd))
        #expect(first === again)
        pool.giveBack(again)
        let held = pool.held
        let brotli = try #require(pool.take(.brotli))
        #expect(pool.held <= 4 << 20)
        #expect(pool.held != held)
        pool.giveBack(brotli)
    }

    @Test func anIdleLoopKeepsFew() throws {
        let pool = EncoderPool(levels: CodingLevels(), memory: 1 << 30)
        let many = try (0..<100).map { _ in try #require(pool.take(.gzip)) }
        #expect(pool.lent == 100)
        for encoder in many { pool.giveBack(encoder) }
        #expect(pool.held == 6 * ContentEncoder.memory(.gzip, level: 1))
    }
}
