// Why a request to the API server did not do what was asked.

package import KubernetesAPI

package struct APIError: Error, Sendable, CustomStringConvertible {
    package enum Code: String, Sendable, CaseIterable {
        /// No connection, or it broke before the answer was whole.
        case unreachable
        case timedOut
        /// The credential could not be had at all (an exec plugin failed, a token file is missing).
        case noCredential
        /// 401: the credential was not taken.
        case unauthorized
        /// 403: the credential was taken, the role does not allow this.
        case forbidden
        case notFound
        /// 409 with reason AlreadyExists.
        case alreadyExists
        /// 409: the object changed since it was read.
        case conflict
        /// 410: the version that was asked for is no longer kept.
        case expired
        /// 400, 422 and what else says that the request itself is wrong.
        case invalid
        /// 429.
        case tooManyRequests
        /// 5xx.
        case server
        /// An answer that is not what the API promises.
        case unreadable
    }

    package var code: Code
    package var message: String
    /// What can be done about it, where that is known.
    package var mend: String?
    /// What the server asked us to wait (Retry-After, or `details.retryAfterSeconds`), within reason.
    package let retryAfter: Duration?
    /// One odd answer must not make a kind stand still: what is asked for beyond this is not followed.
    package static let longestRetryAfter = Duration.seconds(60)

    package init(_ code: Code, _ message: String, mend: String? = nil, retryAfter: Duration? = nil) {
        self.code = code
        self.message = message
        self.mend = mend
        self.retryAfter = retryAfter.map { min(max(.zero, $0), Self.longestRetryAfter) }
    }

    /// A number of seconds that a server wrote: any number at all.
    static func wait(seconds: Int) -> Duration {
        .seconds(min(max(0, seconds), Int(longestRetryAfter.components.seconds)))
    }

    /// Bounded, for metrics.
    package var label: String { code.rawValue }
    package var description: String { "\(code.rawValue): \(message)" }

    /// The server is in trouble, rather than the request: worth trying again, and a sign that it is down.
    package var isOutage: Bool {
        switch code {
        case .unreachable, .timedOut, .noCredential, .unauthorized, .tooManyRequests, .server, .unreadable: true
        case .forbidden, .notFound, .alreadyExists, .conflict, .expired, .invalid: false
        }
    }

    /// From an answer that is no success; the code of HTTP decides, the Status object explains.
    package init(httpStatus: Int, status: Status?, retryAfter: Duration?) {
        let code: Code
        switch httpStatus {
        case 401: code = .unauthorized
        case 403: code = .forbidden
        case 404: code = .notFound
        case 408, 504: code = .timedOut
        case 409: code = status?.reason == "AlreadyExists" ? .alreadyExists : .conflict
        case 410: code = .expired
        case 429: code = .tooManyRequests
        case 500...: code = .server
        default: code = .invalid
        }
        let wait = retryAfter ?? status?.details?.retryAfterSeconds.map(Self.wait)
        self.init(
            code, status?.message ?? "HTTP \(httpStatus)",
            mend: code == .unauthorized
                ? "the API server does not take our credential: see that it has not expired, and is for this cluster"
                : nil,
            retryAfter: wait)
    }
}
