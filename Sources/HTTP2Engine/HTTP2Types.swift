// What a session says and is told, in values.

package import Model

/// RFC 9113 §7.
package enum HTTP2ErrorCode: UInt32, Sendable, Hashable, CaseIterable {
    case noError = 0
    case protocolError = 1
    case internalError = 2
    case flowControlError = 3
    case settingsTimeout = 4
    case streamClosed = 5
    case frameSizeError = 6
    case refusedStream = 7
    case cancel = 8
    case compressionError = 9
    case connectError = 10
    case enhanceYourCalm = 11
    case inadequateSecurity = 12
    case http11Required = 13
}

extension HTTP2Fault {
    /// Of those that come of asking for too much.
    var isFlood: Bool {
        switch self {
        case .flood, .resets, .headers: true
        case .none, .malformed, .internalError: false
        }
    }

    /// What GOAWAY says.
    package var code: HTTP2ErrorCode {
        switch self {
        case .none: .noError
        case .malformed: .protocolError
        case .flood, .resets, .headers: .enhanceYourCalm
        case .internalError: .internalError
        }
    }
}

package enum HTTP2Role: UInt8, Sendable {
    case server
    case client
}

/// A stream as its session knows it. Of a stream that is no more, every use is without effect.
package struct HTTP2Handle: Equatable, Sendable {
    package let stream: Int32
    let row: Int32
}

/// Bounds of one session.
package struct HTTP2Limits: Sendable, Hashable {
    /// Streams that may be open at one time.
    package var streams: Int
    /// Bytes of a stream's body that may come before we have taken any (RFC 9113 §6.9.2).
    package var streamWindow: Int
    /// Bytes of bodies, of all streams together, that may be on their way. It is opened as they come, taken or not: what
    /// one stream's reader leaves lying would hold up all others. What may lie is `streams` windows of streams.
    package var connectionWindow: Int
    /// A header block, uncompressed, as SETTINGS_MAX_HEADER_LIST_SIZE counts it: 32 bytes more for each field. What is
    /// larger is not kept, and its stream told so; what is four times as large ends the connection.
    package var headBytes: Int
    /// Fields of a block, with the pseudo-fields: those beyond are not kept.
    package var fields: Int
    /// The peer has flooded another connection: its accounts (`FrameBudget`) begin all but empty.
    package var isWary = false

    package init(
        streams: Int = 128, streamWindow: Int = 65_535, connectionWindow: Int = 1 << 20, headBytes: Int = 65_536,
        fields: Int = 104
    ) {
        self.streams = max(1, streams)
        self.streamWindow = min(max(1, streamWindow), 0x7fff_ffff)
        self.connectionWindow = min(max(65_535, connectionWindow), 0x7fff_ffff)
        self.headBytes = min(max(64, headBytes), 1 << 24)
        self.fields = min(max(1, fields), 65_535)
    }
}

/// What happened, in the order in which it did. `owner` is what `adopt` was given for the stream.
package enum HTTP2Event: Equatable, Sendable {
    /// A request has begun: its head is in `incoming`, and has to be taken before the next byte is given. `ends`:
    /// nothing follows it. `isCut`: it was too large, and is not all there.
    case headReceived(stream: Int32, ends: Bool, isCut: Bool)
    /// The fields behind a body are in `incoming`; the stream's sender has ended.
    case trailersReceived(owner: UInt64, isCut: Bool)
    /// Bytes of a body, as a range of the input that was given.
    case dataReceived(owner: UInt64, Range<Int>)
    /// The stream's sender has ended.
    case ended(owner: UInt64)
    /// The last frame of our side has been made.
    case finished(owner: UInt64)
    /// The stream is no more: both sides have ended, or one has reset it. `code` as in RST_STREAM.
    case closed(owner: UInt64, code: UInt32)
    /// The PING of `ping` was answered: what was sent before it has been seen.
    case pingAnswered

    // Of the client's side.
    /// The head of a response, or an informational one, is in `incoming`, and has to be taken before the next byte is
    /// given. `ends`: nothing follows it. `isCut`: it was too large, and is not all there.
    case responseReceived(owner: UInt64, ends: Bool, isCut: Bool)
    /// The server has reset the stream: `.closed` follows.
    case resetReceived(owner: UInt64, code: UInt32)
    /// What `mostStreams` says may have changed.
    case settingsReceived
    /// The server takes no more requests on this connection. Those that it will not serve are told by `.closed` with
    /// REFUSED_STREAM, and may be sent elsewhere (RFC 9113 §6.8).
    case goAwayReceived(code: UInt32)
}

/// What is to be written next.
package enum HTTP2Output: Equatable, Sendable {
    case nothing
    /// The bytes of `control`.
    case control
    /// The nine bytes of `frameHead`, and behind them so many of the body that was offered for the stream.
    case data(owner: UInt64, count: Int)
}
