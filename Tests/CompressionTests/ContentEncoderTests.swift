import CompressionTesting
import Model
import Testing

@testable import Compression

/// Feeds an encoder into an output of `room` bytes a call, and gives what came of it.
func run(
    _ encoder: ContentEncoder, _ bytes: ArraySlice<UInt8>, _ operation: EncoderOperation, room: Int = 4096
) throws -> [UInt8] {
    let bytes = Array(bytes)
    var made: [UInt8] = []
    var offset = 0
    for _ in 0..<1_000_000 {
        let (piece, outcome) = unsafe withUnsafeTemporaryAllocation(byteCount: room, alignment: 8) {
            buffer -> ([UInt8], EncoderProgress) in
            var output = unsafe OutputRawSpan(buffer: buffer, initializedCount: 0)
            let outcome = unsafe encoder.write(bytes.span.bytes, at: &offset, operation, to: &output)
            let count = unsafe output.finalize(for: buffer)
            return unsafe (Array(buffer[..<count]), outcome)
        }
        made += piece
        switch outcome {
        case .done:
            #expect(offset == bytes.count)
            return made
        case .needsRoom: continue
        case .failed:
            Issue.record("the encoder failed")
            return made
        }
    }
    Issue.record("the encoder never came to an end")
    return made
}

@Suite struct ContentEncoderTests {
    /// Compressible, with surprises.
    static func sample(_ count: Int, seed: UInt64) -> [UInt8] {
        var state = seed
        func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state >> 33
        }
        let words = [
            "the ", "moon ", "gate ", "{\"id\":", ",\"name\":\"", "<div class=\"row\">", "</div>\n", "0123456789",
        ]
        var bytes: [UInt8] = []
        while bytes.count < count {
            if next() % 10 == 0 {
                for _ in 0..<(next() % 40) { bytes.append(UInt8(truncatingIfNeeded: next())) }
            } else {
                bytes += Array(words[Int(next() % UInt64(words.count))].utf8)
            }
        }
        return Array(bytes.prefix(count))
    }

    static let levels: [(ContentCoding, Int)] = ContentCoding.allCases.flatMap { coding in
        coding.levels.map { (coding, $0) }
    }

    @Test(arguments: levels)
    func whatGoesInComesOut(_ coding: ContentCoding, _ level: Int) throws {
        let encoder = try #require(ContentEncoder(coding, level: level))
        for count in [0, 1, 100, 5_000, 300_000] {
            let text = Self.sample(count, seed: UInt64(count))
            let decoder = try #require(ContentDecoder(coding))
            decoder.read(try run(encoder, text[...], .takeIn) + run(encoder, [], .end))
            #expect(!decoder.failed)
            #expect(decoder.text == text)
            #expect(encoder.reset())
        }
    }

    /// Pieces of any size, outputs of any size, flushes anywhere: after each flush the reader has all of it.
    @Test(arguments: ContentCoding.allCases, 0..<20)
    func aFlushLeavesNothingBehind(_ coding: ContentCoding, _ seed: UInt64) throws {
        var random = SplitMix(state: seed &* 7919 &+ 17)
        let encoder = try #require(ContentEncoder(coding, level: 3))
        for _ in 0..<3 {
            let decoder = try #require(ContentDecoder(coding))
            let text = Self.sample(random.below(200_000), seed: random.next())
            let room = ContentEncoder.leastRoom + (random.below(2) == 0 ? random.below(40) : random.below(40_000))
            var at = 0
            while at < text.count {
                let end = min(text.count, at + 1 + random.below([10, 2_000, 70_000][random.below(3)]))
                let flushes = random.below(3) == 0
                decoder.read(try run(encoder, text[at..<end], flushes ? .flush : .takeIn, room: room))
                at = end
                #expect(encoder.hasUnflushed == !flushes)
                if flushes { #expect(decoder.text.count == at) }
            }
            decoder.read(try run(encoder, [], .end, room: room))
            #expect(!decoder.failed)
            #expect(decoder.text == text)
            #expect(encoder.reset())
        }
    }

    /// A body that is broken off leaves an encoder that begins anew.
    @Test(arguments: ContentCoding.allCases)
    func aResetForgetsEverything(_ coding: ContentCoding) throws {
        let encoder = try #require(ContentEncoder(coding, level: 3))
        _ = try run(encoder, Self.sample(50_000, seed: 1)[...], .takeIn)
        #expect(encoder.hasUnflushed)
        #expect(encoder.reset())
        #expect(!encoder.hasUnflushed)
        let text = Self.sample(5_000, seed: 2)
        let decoder = try #require(ContentDecoder(coding))
        decoder.read(try run(encoder, text[...], .takeIn) + run(encoder, [], .end))
        #expect(decoder.text == text)
    }

    /// A flush of nothing is nothing much, however often.
    @Test(arguments: ContentCoding.allCases)
    func emptyFlushesEnd(_ coding: ContentCoding) throws {
        let encoder = try #require(ContentEncoder(coding, level: 3))
        let decoder = try #require(ContentDecoder(coding))
        for _ in 0..<5 { decoder.read(try run(encoder, [], .flush, room: ContentEncoder.leastRoom)) }
        decoder.read(try run(encoder, [65], .flush))
        #expect(decoder.text == [65])
        decoder.read(try run(encoder, [], .end))
        #expect(!decoder.failed)
    }
}

/// Flushes that end exactly where the room does are no reason to begin again.
@Test(arguments: ContentCoding.allCases)
func everyRoomWillDo(coding: ContentCoding) throws {
    for room in ContentEncoder.leastRoom..<(ContentEncoder.leastRoom + 200) {
        let encoder = try #require(ContentEncoder(coding, level: 3))
        let decoder = try #require(ContentDecoder(coding))
        let text = ContentEncoderTests.sample(300, seed: UInt64(room))
        decoder.read(try run(encoder, text[..<150], .flush, room: room))
        #expect(decoder.text.count == 150)
        decoder.read(try run(encoder, text[150...], .end, room: room))
        #expect(decoder.text == text && !decoder.failed)
    }
}

@Test func withoutRoomNothingIsTaken() throws {
    for coding in ContentCoding.allCases {
        let encoder = try #require(ContentEncoder(coding, level: 3))
        var offset = 0
        let progress = unsafe withUnsafeTemporaryAllocation(byteCount: 63, alignment: 8) { buffer in
            var output = unsafe OutputRawSpan(buffer: buffer, initializedCount: 0)
            let progress = unsafe encoder.write(
                [UInt8](repeating: 1, count: 9).span.bytes, at: &offset, .flush, to: &output)
            _ = unsafe output.finalize(for: buffer)
            return progress
        }
        #expect(progress == .needsRoom && offset == 0)
    }
}

struct SplitMix {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(max(1, bound))) }
}
