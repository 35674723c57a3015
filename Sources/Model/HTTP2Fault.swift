/// Why an HTTP/2 connection was ended by us. `label` is bounded: it stands in metrics.
package enum HTTP2Fault: UInt8, Sendable, Hashable, CaseIterable {
    case none
    /// The peer broke the protocol; GOAWAY has said how.
    case malformed
    /// More frames that bring nothing forward than a connection may have.
    case flood
    /// More streams that end before their response than a connection may have, whoever reset them.
    case resets
    /// A header block far beyond the limit, or in too many pieces.
    case headers
    /// No memory, or a mistake of ours.
    case internalError

    /// kebab-case, stable.
    package var label: String {
        switch self {
        case .none: "-"
        case .malformed: "malformed"
        case .flood: "flood"
        case .resets: "resets"
        case .headers: "headers"
        case .internalError: "internal-error"
        }
    }
}
