// Step 4 and step 7 of a request's walk: what the middlewares say to Proxy about an exchange.

package import Model

/// What a run of phases decided.
package enum Verdict: Sendable, Equatable {
    /// Go on: the edits, if any, are in the exchange.
    case next
    /// A script made the response: `exchange.response` holds its head, `exchange.ownBody` its body, and the origin is
    /// `.script`. In the request phases nothing goes upstream; in the response phases the upstream's body is dropped.
    case respond
    /// A script failed whose policy is closed, or a rewrite went wrong: answer with our own error page.
    case refuse(status: UInt16, reason: FailureReason)
    /// A script waits for something. The exchange rests until the loop calls `resume`. No function that is there today
    /// suspends, so this is not returned yet; it stands here so that a `switch` over a verdict is complete from the
    /// start.
    case suspended
}
