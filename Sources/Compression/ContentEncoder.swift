// One response's body on its way through a content coding: bytes in, bytes out, a flush, an end. The codings are the
// distribution's libraries; they hold what they have taken until they can say it shortly, or until they are told to
// flush. No I/O, and no memory that grows with the body.
internal import CBrotli
internal import CZlib
internal import CZstd
package import Model

/// What a call may do with what it was given.
package enum EncoderOperation: Sendable {
    /// Take it; give what is ready.
    case takeIn
    /// Give everything that was taken, so that the reader has it.
    case flush
    /// The body ends here.
    case end
}

package enum EncoderProgress: Sendable, Hashable {
    /// All input has been taken, and what the operation asks for has been given.
    case done
    /// There is more to give: call again, with room.
    case needsRoom
    /// The stream is lost (no memory); nothing that comes now has a meaning.
    case failed
}

/// An encoder of one coding. Belongs to one thread; used for one body after the other, `reset` between two.
@safe package final class ContentEncoder {
    // SAFETY (of every use below): each pointer is made in `init` or `reset` and freed in `deinit` or `reset` only; the
    // libraries keep no pointer into the memory that is lent to them for a call.
    @safe private enum Engine {
        case gzip(UnsafeMutablePointer<z_stream>)
        case brotli(OpaquePointer)
        case zstd(OpaquePointer)
    }

    package let coding: ContentCoding
    package let level: Int
    /// Something was taken that no flush has given yet.
    package private(set) var hasUnflushed = false
    private var engine: Engine

    /// The windows of brotli and zstd, in bits: 128 KiB. A larger one costs memory for each response under way, and
    /// gains little on what servers make for browsers. gzip's is 32 KiB by its format.
    private static let windowBits = 17

    /// Nil when there is no memory.
    package init?(_ coding: ContentCoding, level: Int) {
        self.coding = coding
        self.level = level
        guard let engine = Self.make(coding, level) else { return nil }
        self.engine = engine
    }

    deinit {
        switch engine {
        case .gzip(let stream): unsafe mg_gzip_free(stream)
        case .brotli(let state): unsafe BrotliEncoderDestroyInstance(state)
        case .zstd(let context): unsafe ZSTD_freeCCtx(context)
        }
    }

    private static func make(_ coding: ContentCoding, _ level: Int) -> Engine? {
        switch coding {
        case .gzip: unsafe mg_gzip_new(Int32(clamping: level)).map { unsafe .gzip($0) }
        case .brotli: unsafe mg_brotli_new(UInt32(clamping: level), UInt32(windowBits)).map { unsafe .brotli($0) }
        case .zstd: unsafe mg_zstd_new(Int32(clamping: level), Int32(windowBits)).map { unsafe .zstd($0) }
        }
    }

    /// What an encoder takes of memory at the most, in bytes; measured, with some room above.
    package static func memory(_ coding: ContentCoding, level: Int) -> Int {
        switch coding {
        case .gzip: 288 << 10
        case .brotli: level <= 1 ? 1536 << 10 : level <= 4 ? 3 << 20 : 6 << 20
        case .zstd: 1536 << 10
        }
    }

    /// Ready for another body, whatever became of the last one. False: it cannot be used again.
    package func reset() -> Bool {
        hasUnflushed = false
        switch engine {
        case .gzip(let stream): return unsafe mg_gzip_reset(stream)
        case .zstd(let context): return unsafe mg_zstd_reset(context)
        case .brotli(let old):
            // The library has no way back to the beginning.
            guard let fresh = Self.make(coding, level) else { return false }
            unsafe BrotliEncoderDestroyInstance(old)
            engine = fresh
            return true
        }
    }

    /// With less room than this nothing is done: zlib's mark of a flush takes five bytes, and into less than six it is
    /// written again at each call.
    package static let leastRoom = 64

    /// Takes `input` from `offset` on, moves `offset` behind what was taken, and writes into the free room of `output`, of
    /// which there are `leastRoom` bytes at the least.
    package func write(
        _ input: borrowing RawSpan, at offset: inout Int, _ operation: EncoderOperation, to output: inout OutputRawSpan
    ) -> EncoderProgress {
        guard output.freeCapacity >= Self.leastRoom else { return .needsRoom }
        if offset < input.byteCount { hasUnflushed = true }
        let step = unsafe input.withUnsafeBytes { bytes in
            // Proof: `output` is held exclusively and written from `count` on for as many bytes as it has room; what was
            // written is then counted. `input` is read from `offset` on, and not beyond its end.
            unsafe output.withUnsafeMutableBytes { room, count in
                let step = unsafe self.step(
                    UnsafeRawBufferPointer(rebasing: bytes[min(offset, bytes.count)...]), operation,
                    UnsafeMutableRawBufferPointer(rebasing: room[count...]))
                count += step.given
                return step
            }
        }
        offset += step.taken
        if step.failed { return .failed }
        if step.hasMore { return .needsRoom }
        if operation != .takeIn { hasUnflushed = false }
        return .done
    }

    private struct Step {
        var taken: Int
        var given: Int
        var hasMore: Bool
        var failed: Bool
    }

    private func step(
        _ input: UnsafeRawBufferPointer, _ operation: EncoderOperation, _ output: UnsafeMutableRawBufferPointer
    ) -> Step {
        // An empty buffer may have no address, which zlib takes for a mistake.
        guard let target = output.baseAddress, unsafe !output.isEmpty else {
            return Step(taken: 0, given: 0, hasMore: true, failed: false)
        }
        let room = unsafe target.assumingMemoryBound(to: UInt8.self)
        let source = unsafe input.baseAddress?.assumingMemoryBound(to: UInt8.self)
        switch engine {
        case .gzip(let stream):
            let how =
                switch operation {
                case .takeIn: Z_NO_FLUSH
                case .flush: Z_SYNC_FLUSH
                case .end: Z_FINISH
                }
            let step = unsafe mg_gzip_write(stream, source, input.count, room, output.count, how)
            return Step(taken: step.taken, given: step.given, hasMore: step.has_more, failed: step.failed)
        case .brotli(let state):
            let how =
                switch operation {
                case .takeIn: BROTLI_OPERATION_PROCESS
                case .flush: BROTLI_OPERATION_FLUSH
                case .end: BROTLI_OPERATION_FINISH
                }
            let step = unsafe mg_brotli_write(state, source, input.count, room, output.count, how)
            return Step(taken: step.taken, given: step.given, hasMore: step.has_more, failed: step.failed)
        case .zstd(let context):
            let how =
                switch operation {
                case .takeIn: ZSTD_e_continue
                case .flush: ZSTD_e_flush
                case .end: ZSTD_e_end
                }
            let step = unsafe mg_zstd_write(context, source, input.count, room, output.count, how)
            return Step(taken: step.taken, given: step.given, hasMore: step.has_more, failed: step.failed)
        }
    }
}
