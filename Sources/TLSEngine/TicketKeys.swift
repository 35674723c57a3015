// What session tickets are sealed with (RFC 5077 §4, RFC 8446 §4.6.1): one set for all certificates and all loops, so
// that a client resumes wherever its connection lands.

internal import CTLS

/// One key: 16 bytes of name, 32 of cipher key, 32 of MAC key. Prints without its bytes.
package struct TicketKey: Sendable, Hashable, CustomStringConvertible {
    package static let size = 80
    package let bytes: [UInt8]

    /// Nil unless there are 80 bytes.
    package init?(_ bytes: [UInt8]) {
        guard bytes.count == Self.size else { return nil }
        self.bytes = bytes
    }

    package init() {
        var random = SystemRandomNumberGenerator()
        bytes = (0..<Self.size).map { _ in UInt8.random(in: 0...255, using: &random) }
    }

    package var description: String { "TicketKey" }
}

/// The keys in use. May be changed while sessions are sealed and opened.
///
/// `@unchecked Sendable`: the keys are behind a lock in the C object, which is counted atomically.
@safe package final class TicketKeys: @unchecked Sendable {
    /// Most keys at a time.
    package static let most = 8
    /// The entry of a Secret that holds keys: one after the other, the newest first.
    package static let entry = "ticket.keys"

    /// The keys in a Secret; nil unless there are 1 to 8 whole ones, each with a name of its own.
    package static func read(_ bytes: [UInt8]) -> [TicketKey]? {
        guard !bytes.isEmpty, bytes.count % TicketKey.size == 0, bytes.count / TicketKey.size <= most else {
            return nil
        }
        let keys = stride(from: 0, to: bytes.count, by: TicketKey.size)
            .compactMap { TicketKey(Array(bytes[$0..<($0 + TicketKey.size)])) }
        return Set(keys.map { $0.bytes.prefix(16) }).count == keys.count ? keys : nil
    }
    // SAFETY: made in `init`, released in `deinit`, never nil in between.
    let raw: OpaquePointer

    /// Without a key no ticket is given. Nil without memory.
    package init?(_ keys: [TicketKey] = []) {
        guard let made = unsafe mg_tls_tickets_new() else { return nil }
        unsafe raw = unsafe made
        set(keys)
    }

    deinit {
        unsafe mg_tls_tickets_release(raw)
    }

    /// New tickets are sealed with the first key; the others still open theirs. What is more than `most` is left out.
    package func set(_ keys: [TicketKey]) {
        let kept = keys.prefix(Self.most)
        let bytes = kept.flatMap(\.bytes)
        // Proof: `bytes` holds `kept.count` keys of 80 bytes each, and is copied.
        _ = unsafe mg_tls_tickets_set(raw, bytes, kept.count)
    }
}
