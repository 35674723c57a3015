/// Why a datagram of a UDP service went no further. Bounded: a label of metrics.
package enum DatagramDrop: UInt8, Sendable, Hashable, CaseIterable {
    /// A new client, and there are as many sessions as there may be, or as its service may take of what is left.
    case sessionLimit
    /// A new session of a client that has as many as it may.
    case clientLimit
    /// A new client, while the process is going.
    case draining
    case noEndpoint
    /// No descriptor for a session.
    case overloaded
    /// Nobody is there at the endpoint, nor at others that were tried.
    case unreachable
    /// The kernel takes no more for now.
    case blocked
    /// It was cut off by the kernel, or fits into no packet of the way.
    case tooLong
    /// Its sender cannot be answered: port 0, or an address of our own.
    case badSender
    case failed

    /// kebab-case, stable.
    package var label: String {
        switch self {
        case .sessionLimit: "session-limit"
        case .clientLimit: "client-limit"
        case .draining: "draining"
        case .noEndpoint: "no-endpoint"
        case .overloaded: "overloaded"
        case .unreachable: "unreachable"
        case .blocked: "blocked"
        case .tooLong: "too-long"
        case .badSender: "bad-sender"
        case .failed: "failed"
        }
    }
}
