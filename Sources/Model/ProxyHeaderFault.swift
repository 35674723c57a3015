/// Why a connection that was to begin with a PROXY protocol header was closed. Bounded: a label of metrics.
package enum ProxyHeaderFault: UInt8, Sendable, Hashable, CaseIterable {
    /// What came is no header at all.
    case missing
    case malformed
    case tooLong
    /// The header was not complete in time.
    case timeout
    /// The connection ended in the middle of the header.
    case cut

    /// kebab-case, stable.
    package var label: String {
        switch self {
        case .missing: "missing"
        case .malformed: "malformed"
        case .tooLong: "too-long"
        case .timeout: "timeout"
        case .cut: "cut"
        }
    }
}
