// What comes compressed is read by the library's own table, and nothing else of it.
internal import CNGHTTP2

/// The table of one direction of a connection (RFC 7541). Owned by one test.
@safe final class TestInflater {
    private var inflater: OpaquePointer?

    init() {
        // SAFETY: made here and freed in `deinit` only.
        _ = unsafe nghttp2_hd_inflate_new(&inflater)
    }

    deinit {
        unsafe nghttp2_hd_inflate_del(inflater)
    }

    func inflate(_ block: [UInt8]) -> [(name: String, value: String)] {
        var result: [(name: String, value: String)] = []
        var rest = block
        while true {
            var pair = unsafe nghttp2_nv()
            var flags: Int32 = 0
            // SAFETY: the library reads `rest` during the call; what it lends in `pair` is copied at once.
            let n = unsafe rest.withUnsafeBufferPointer {
                unsafe nghttp2_hd_inflate_hd2(inflater, &pair, &flags, $0.baseAddress, $0.count, 1)
            }
            guard n >= 0 else { return result + [("!inflate", "\(n)")] }
            rest.removeFirst(n)
            if UInt32(flags) & NGHTTP2_HD_INFLATE_EMIT.rawValue != 0 {
                let name = unsafe UnsafeBufferPointer(start: pair.name, count: pair.namelen)
                let value = unsafe UnsafeBufferPointer(start: pair.value, count: pair.valuelen)
                unsafe result.append((String(decoding: name, as: UTF8.self), String(decoding: value, as: UTF8.self)))
            }
            if UInt32(flags) & NGHTTP2_HD_INFLATE_FINAL.rawValue != 0 {
                unsafe nghttp2_hd_inflate_end_headers(inflater)
                return result
            }
            if n == 0, UInt32(flags) & NGHTTP2_HD_INFLATE_EMIT.rawValue == 0 { return result }
        }
    }
}
