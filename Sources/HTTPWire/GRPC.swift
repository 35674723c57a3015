// What a gRPC client is told when the proxy itself answers: a status of HTTP means nothing to it but trouble, so ours
// become statuses of gRPC (gRPC over HTTP/2, "Responses"; HTTP to gRPC status code mapping).

package import Model

/// The status of a call (grpc/grpc, doc/statuscodes.md).
package enum GRPCStatus: UInt8, Sendable, Hashable, CaseIterable {
    case ok = 0
    case cancelled = 1
    case unknown = 2
    case invalidArgument = 3
    case deadlineExceeded = 4
    case notFound = 5
    case alreadyExists = 6
    case permissionDenied = 7
    case resourceExhausted = 8
    case failedPrecondition = 9
    case aborted = 10
    case outOfRange = 11
    case unimplemented = 12
    case `internal` = 13
    case unavailable = 14
    case dataLoss = 15
    case unauthenticated = 16

    /// What a response of ours with this status of HTTP says to a gRPC client.
    package init(httpStatus: UInt16) {
        switch httpStatus {
        case 401: self = .unauthenticated
        case 403: self = .permissionDenied
        case 404: self = .unimplemented
        case 413, 429, 431: self = .resourceExhausted
        case 502, 503: self = .unavailable
        case 504: self = .deadlineExceeded
        default: self = .internal
        }
    }

    /// What a call is told when its stream was reset with this code (RFC 9113 §7; gRPC over HTTP/2, "Errors").
    package init(resetCode: UInt32) {
        switch resetCode {
        // REFUSED_STREAM
        case 7: self = .unavailable
        // CANCEL
        case 8: self = .cancelled
        // ENHANCE_YOUR_CALM
        case 11: self = .resourceExhausted
        // INADEQUATE_SECURITY
        case 12: self = .permissionDenied
        default: self = .internal
        }
    }
}

package enum GRPC {
    /// Whether a request is a call: `application/grpc`, `application/grpc+proto`, `application/grpc;…`, but not the
    /// dialect of browsers, `application/grpc-web`, whose statuses travel in the body.
    package static func isCall(_ head: borrowing MessageHead) -> Bool {
        guard let index = head.firstIndex(of: .contentType) else { return false }
        let range = head.fields[index].valueRange
        guard range.upperBound <= head.bytes.count else { return false }
        let value = head.bytes.span.extracting(range)
        let type: StaticString = "application/grpc"
        let n = type.utf8CodeUnitCount
        guard value.count >= n, value.extracting(0..<n).equalsIgnoringCase(type) else { return false }
        return value.count == n || value[n] == 0x2b || value[n] == 0x3b || value[n] == 0x20
    }

    /// The `grpc-status` of a head or of trailers; nil where there is none that can be read.
    package static func status(of head: borrowing MessageHead) -> GRPCStatus? {
        let name: StaticString = "grpc-status"
        for i in head.fields.indices {
            let field = head.fields[i]
            guard field.name == .other, !field.isRemoved, field.nameRange.upperBound <= head.bytes.count,
                head.bytes.span.extracting(field.nameRange).equalsIgnoringCase(name)
            else { continue }
            guard field.valueRange.upperBound <= head.bytes.count, 1...2 ~= field.valueRange.count else { return nil }
            var code: UInt8 = 0
            for j in field.valueRange {
                let digit = head.bytes[j] &- 48
                guard digit < 10 else { return nil }
                code = code * 10 + digit
            }
            return GRPCStatus(rawValue: code)
        }
        return nil
    }

    /// Appends `grpc-status` and `grpc-message`: to the head of a response that has nothing else, or to trailers.
    package static func append(_ status: GRPCStatus, message: Span<UInt8>, to head: inout MessageHead) {
        var digits: [UInt8] = []
        if status.rawValue >= 10 { digits.append(48 + status.rawValue / 10) }
        digits.append(48 + status.rawValue % 10)
        head.append(.other, name: Array("grpc-status".utf8).span, value: digits.span)
        if message.isEmpty { return }
        var encoded: [UInt8] = []
        percentEncode(message, into: &encoded)
        head.append(.other, name: Array("grpc-message".utf8).span, value: encoded.span)
    }

    /// As gRPC wants its messages: all but `%` and what is not printable ASCII stands for itself.
    package static func percentEncode(_ message: Span<UInt8>, into output: inout [UInt8]) {
        let digits = Array("0123456789ABCDEF".utf8)
        for i in 0..<message.count {
            let byte = message[i]
            if byte >= 0x20, byte <= 0x7e, byte != 0x25 {
                output.append(byte)
            } else {
                output.append(0x25)
                output.append(digits[Int(byte >> 4)])
                output.append(digits[Int(byte & 15)])
            }
        }
    }
}
