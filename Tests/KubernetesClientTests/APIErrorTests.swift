import FoundationEssentials
import KubernetesAPI
import KubernetesClient
import Testing

@Suite struct APIErrorTests {
    @Test(arguments: [
        (400, nil, APIError.Code.invalid, false), (401, nil, .unauthorized, true),
        (403, "Forbidden", .forbidden, false),
        (404, "NotFound", .notFound, false), (409, "AlreadyExists", .alreadyExists, false),
        (409, "Conflict", .conflict, false), (410, "Expired", .expired, false), (422, "Invalid", .invalid, false),
        (429, "TooManyRequests", .tooManyRequests, true), (500, nil, .server, true), (503, nil, .server, true),
        (504, "Timeout", .timedOut, true),
    ])
    func codes(_ http: Int, _ reason: String?, _ code: APIError.Code, _ isOutage: Bool) {
        var status = Status()
        status.reason = reason
        let error = APIError(httpStatus: http, status: status, retryAfter: nil)
        #expect(error.code == code)
        #expect(error.isOutage == isOutage)
        #expect(error.label == code.rawValue)
    }

    @Test func aHeaderGoesBeforeTheDetails() {
        let error = APIError(httpStatus: 429, status: nil, retryAfter: .seconds(3))
        #expect(error.retryAfter == .seconds(3))
    }

    /// A server may ask for any number.
    @Test(arguments: [
        (Int.min, 0), (-1, 0), (0, 0), (7, 7), (60, 60), (86_400, 60), (Int.max, 60),
    ])
    func waitsAreWithinReason(asked: Int, seconds: Int) throws {
        let text = #"{"details":{"retryAfterSeconds":\#(asked)}}"#
        let status = try JSONDecoder().decode(Status.self, from: Data(text.utf8))
        #expect(APIError(httpStatus: 429, status: status, retryAfter: nil).retryAfter == .seconds(seconds))
        #expect(APIError(.server, "", retryAfter: .seconds(Double(asked))).retryAfter == .seconds(seconds))
    }
}
