// Step 6 of a request's walk, when an attempt fails: may it be tried again? Only where the first attempt cannot have had
// an effect, or a second one means the same (RFC 9110 §9.2.2, RFC 9112 §9.3.1).

package import Model

package enum RetryRule {
    /// How an attempt failed.
    package enum Failure: UInt8, Sendable, Hashable, CaseIterable {
        /// No connection came about: nothing was sent.
        case connectFailed
        /// A connection from the pool was closed or reset before the first byte of a response: it had been closed
        /// before the request arrived, or the upstream died over it.
        case reusedClosed
        /// The same of a connection that was made for this request.
        case freshClosed
        /// Any byte of a response has arrived, or a deadline has passed.
        case later
    }

    /// - Parameters:
    ///   - bodyBytesSent: how much of the body has left the proxy.
    ///   - hasBody: the request has a body that is not empty.
    ///   - isBodyKept: the part that has been sent is still there to be sent again.
    package static func mayRetry(
        _ failure: Failure, method: Method, bodyBytesSent: UInt64, hasBody: Bool, isBodyKept: Bool = false
    ) -> Bool {
        guard bodyBytesSent == 0 || isBodyKept else { return false }
        switch failure {
        case .connectFailed: return true
        case .reusedClosed:
            // A request that changes something and was sent whole, as a POST without a body is with its head, may have
            // been carried out; without its body it cannot have been.
            return method.isIdempotent || hasBody && bodyBytesSent == 0
        case .freshClosed, .later: return false
        }
    }
}
