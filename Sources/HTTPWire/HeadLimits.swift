package import Model

/// How much of a head is taken before it is refused.
package struct HeadLimits: Sendable, Hashable {
    /// The whole head with its start line and the empty line: 431.
    package var headBytes: Int
    /// Field lines: 431.
    package var fieldCount: Int
    /// One field line without its CRLF, or a reason phrase: 431.
    package var lineBytes: Int
    /// The request target: 414.
    package var targetBytes: Int

    /// Each limit is held within what a head's records can say (16 bits for a name, 32 for an offset).
    package init(headBytes: Int = 65536, fieldCount: Int = 100, lineBytes: Int = 8192, targetBytes: Int = 8192) {
        self.headBytes = min(max(headBytes, 64), 1 << 24)
        self.fieldCount = min(max(fieldCount, 1), 65535)
        self.lineBytes = min(max(lineBytes, 16), 65535)
        self.targetBytes = min(max(targetBytes, 1), 65535)
    }
}

/// Why a head or a body is not accepted: what the client is told, and what the log says.
package struct Refusal: Error, Sendable, Hashable {
    package var status: UInt16
    package var reason: FailureReason
    /// What exactly is malformed.
    package var fault: RequestFault

    @inlinable
    package init(_ status: UInt16, _ reason: FailureReason, _ fault: RequestFault = .none) {
        self.status = status
        self.reason = reason
        self.fault = fault
    }

    @usableFromInline static var malformed: Refusal { malformed(.none) }
    @usableFromInline static func malformed(_ fault: RequestFault) -> Refusal {
        Refusal(400, .malformedRequest, fault)
    }
    @usableFromInline static var malformedResponse: Refusal { Refusal(502, .malformedResponse) }
}
