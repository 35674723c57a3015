// The way back, for tests alone: what was compressed is read by the libraries' own decoders.
internal import CBrotli
internal import CZlib
internal import CZstd
package import Model

/// Reads a coding as it comes.
@safe package final class ContentDecoder {
    // SAFETY (of every use below): each pointer is made in `init` and freed in `deinit` only; the libraries keep none of
    // what is lent to them for a call, and are told how long it is.
    @safe private enum Engine {
        case gzip(UnsafeMutablePointer<z_stream>)
        case brotli(OpaquePointer)
        case zstd(OpaquePointer)
    }

    private let engine: Engine
    package private(set) var text: [UInt8] = []
    package private(set) var failed = false

    package init?(_ coding: ContentCoding) {
        let engine: Engine?
        switch coding {
        case .gzip: engine = unsafe mg_gunzip_new().map { unsafe .gzip($0) }
        case .brotli: engine = unsafe BrotliDecoderCreateInstance(nil, nil, nil).map { unsafe .brotli($0) }
        case .zstd: engine = unsafe ZSTD_createDCtx().map { unsafe .zstd($0) }
        }
        guard let engine else { return nil }
        self.engine = engine
    }

    deinit {
        switch engine {
        case .gzip(let stream): unsafe mg_gunzip_free(stream)
        case .brotli(let state): unsafe BrotliDecoderDestroyInstance(state)
        case .zstd(let context): unsafe ZSTD_freeDCtx(context)
        }
    }

    package func read(_ bytes: [UInt8]) {
        var offset = 0
        var room = [UInt8](repeating: 0, count: 4096)
        while !failed {
            let (taken, given, hasMore, isBad) = unsafe bytes.withUnsafeBufferPointer { input in
                unsafe room.withUnsafeMutableBufferPointer { output -> (Int, Int, Bool, Bool) in
                    let left = bytes.count - offset
                    // An empty array may have no address.
                    var nothing: UInt8 = 0
                    return unsafe withUnsafePointer(to: &nothing) { none in
                        let source = unsafe input.baseAddress.map { unsafe $0 + offset } ?? none
                        switch engine {
                        case .gzip(let stream):
                            let step = unsafe mg_gunzip_write(stream, source, left, output.baseAddress, output.count)
                            return (step.taken, step.given, step.has_more, step.failed)
                        case .brotli(let state):
                            let step = unsafe mg_unbrotli_write(state, source, left, output.baseAddress, output.count)
                            return (step.taken, step.given, step.has_more, step.failed)
                        case .zstd(let context):
                            let step = unsafe mg_unzstd_write(context, source, left, output.baseAddress, output.count)
                            return (step.taken, step.given, step.has_more, step.failed)
                        }
                    }
                }
            }
            offset += taken
            text += room[..<given]
            failed = isBad
            if offset == bytes.count, !hasMore { return }
            if taken == 0, given == 0 { return }
        }
    }
}
