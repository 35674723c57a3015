// The client's side of a connection: requests go out on streams of ours, and what an endpoint sends is counted as
// strictly as what clients send.
internal import CNGHTTP2
package import Model

extension HTTP2Session {
    /// How many requests the server takes at a time, and we would make. Until its SETTINGS have come: a few.
    package var mostStreams: Int {
        let most = unsafe nghttp2_session_get_remote_settings(session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS)
        return Int(min(most, UInt32(clamping: limits.streams)))
    }

    /// Opens a stream with a request; the first fields of `head` are its pseudo-fields. `hasBody`: data or trailers
    /// follow. Nil when the connection has no streams left: another one is needed.
    ///
    /// More requests than `mostStreams` wait inside until others have ended; `wasSent` tells which.
    package func request(owner: UInt64, head: borrowing MessageHead, hasBody: Bool) -> HTTP2Handle? {
        guard fault == .none else { return nil }
        let row = insert(Slot(stream: .max, owner: owner))
        var id: Int32 = -1
        // SAFETY: as in `submit`.
        unsafe withNames(of: head) { names in
            if hasBody {
                var source = unsafe nghttp2_data_provider(
                    source: nghttp2_data_source(ptr: Self.tag(row)), read_callback: readData)
                id = unsafe nghttp2_submit_request(
                    session, nil, names.baseAddress, names.count, &source, Self.tag(row))
            } else {
                id = unsafe nghttp2_submit_request(session, nil, names.baseAddress, names.count, nil, Self.tag(row))
            }
        }
        guard id > 0 else {
            release(Int(row))
            return nil
        }
        slots[Int(row)].stream = id
        slots[Int(row)].awaitsHead = true
        budget.requested()
        return HTTP2Handle(stream: id, row: row)
    }

    /// Whether the request's head has left: before that nobody can have seen it.
    package func wasSent(_ handle: HTTP2Handle) -> Bool {
        guard let row = row(handle) else { return true }
        return slots[row].wasSent
    }

    /// A 1xx response: another head follows.
    func isInformational(_ head: borrowing MessageHead) -> Bool {
        guard let field = head.fields.first, field.nameRange.count == 7,
            field.valueRange.upperBound <= head.bytes.count,
            !field.valueRange.isEmpty
        else { return false }
        return head.bytes[Int(field.nameOffset)] == 0x3a && head.bytes[Int(field.valueOffset)] == 0x31
    }
}
