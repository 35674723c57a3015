import Model
import Testing

@testable import HTTPWire

@Suite struct RetryRuleTests {
    @Test(
        arguments: [
            // Nothing was sent: always.
            (.connectFailed, .post, 0, true, false, true), (.connectFailed, .get, 0, false, false, true),
            // A pooled connection that was gone.
            (.reusedClosed, .get, 0, false, false, true), (.reusedClosed, .put, 0, true, false, true),
            (.reusedClosed, .put, 10, true, false, false), (.reusedClosed, .put, 10, true, true, true),
            (.reusedClosed, .post, 0, true, false, true), (.reusedClosed, .post, 10, true, false, false),
            (.reusedClosed, .post, 10, true, true, false), (.reusedClosed, .post, 0, false, false, false),
            (.reusedClosed, .patch, 0, false, false, false), (.reusedClosed, .other, 0, false, false, false),
            (.reusedClosed, .delete, 0, false, false, true),
            // A fresh connection that breaks, or an answer that has begun: never.
            (.freshClosed, .get, 0, false, false, false), (.freshClosed, .get, 0, true, true, false),
            (.later, .get, 0, false, false, false), (.later, .get, 0, false, true, false),
        ] as [(RetryRule.Failure, Method, UInt64, Bool, Bool, Bool)])
    func mayRetry(
        _ failure: RetryRule.Failure, _ method: Method, _ sent: UInt64, _ hasBody: Bool, _ isKept: Bool, _ may: Bool
    ) {
        #expect(
            RetryRule.mayRetry(failure, method: method, bodyBytesSent: sent, hasBody: hasBody, isBodyKept: isKept)
                == may)
    }

    /// Whatever else holds, a request that changes something is not sent twice once any of its body went out.
    @Test func neverTwiceForWhatIsNotIdempotent() {
        for failure in RetryRule.Failure.allCases where failure != .connectFailed {
            for method in [Method.post, .patch, .other, .connect] {
                for isKept in [true, false] {
                    #expect(
                        !RetryRule.mayRetry(
                            failure, method: method, bodyBytesSent: 1, hasBody: true, isBodyKept: isKept))
                }
            }
        }
    }
}
