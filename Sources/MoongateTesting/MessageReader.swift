// Reads HTTP/1.1 messages the way a naive peer does, and keeps every byte.
//
// On purpose this is not the project's codec: the other side of a conversation must not share its opinions. It takes
// a bare LF for a line end and prefers chunked to Content-Length, as a victim of request smuggling would; what a
// strict proxy must never send is noted as a violation, which fails every scenario.

package struct Field: Sendable, Equatable {
    package var name: String
    package var value: String
}

package struct ReceivedBody: Sendable {
    /// The first MiB; `count` tells the whole.
    package var bytes: [UInt8] = []
    package var count = 0
    package var pattern = BodyPattern()
    package var complete = false
    package var chunks = 0

    static let kept = 1 << 20

    mutating func add(_ part: ArraySlice<UInt8>) {
        count += part.count
        pattern.check(part)
        if bytes.count < Self.kept { bytes.append(contentsOf: part.prefix(Self.kept - bytes.count)) }
    }
}

package enum Framing: Sendable, Equatable {
    case none
    case length(Int)
    case chunked
    case untilClose
}

package struct ReceivedMessage: Sendable {
    package var startLine = ""
    package var fields: [Field] = []
    package var head: [UInt8] = []
    package var framing = Framing.none
    package var body = ReceivedBody()
    package var trailers: [Field] = []

    package func values(of name: String) -> [String] {
        let name = name.lowercased()
        return fields.filter { $0.name.lowercased() == name }.map(\.value)
    }

    package var status: Int? {
        let parts = startLine.split(separator: " ", maxSplits: 2)
        guard parts.count >= 2, parts[0].hasPrefix("HTTP/") else { return nil }
        return Int(parts[1])
    }

    package var method: String { String(startLine.prefix { $0 != " " }) }
}

/// A buffered reader over one socket. Used by one thread.
package struct MessageReader {
    let socket: RawSocket
    private(set) var buffer: [UInt8] = []
    private(set) var ended = false
    /// What a strict sender never sends.
    package private(set) var violations: [String] = []
    private var note: (([UInt8]) -> Void)?

    package init(_ socket: RawSocket, note: (([UInt8]) -> Void)? = nil) {
        self.socket = socket
        self.note = note
    }

    package var pending: Int { buffer.count }

    /// Reads more; false at the end of the stream.
    package mutating func fill(by deadline: Deadline) throws(SocketError) -> Bool {
        guard !ended else { return false }
        let bytes = try socket.read(by: deadline)
        guard !bytes.isEmpty else {
            ended = true
            return false
        }
        note?(bytes)
        buffer.append(contentsOf: bytes)
        return true
    }

    package mutating func take(_ count: Int) -> [UInt8] {
        let taken = Array(buffer.prefix(count))
        buffer.removeFirst(taken.count)
        return taken
    }

    package mutating func exactly(_ count: Int, by deadline: Deadline) throws(SocketError) -> [UInt8] {
        while buffer.count < count, try fill(by: deadline) {}
        return take(count)
    }

    /// One line without its end, or nil at the end of the stream.
    private mutating func line(by deadline: Deadline) throws(SocketError) -> [UInt8]? {
        var searched = 0
        while true {
            if let end = buffer[searched...].firstIndex(of: 10) {
                var line = Array(buffer[..<end])
                buffer.removeSubrange(...end)
                if line.last == 13 { line.removeLast() } else { violations.append("bare LF after \(shown(line))") }
                return line
            }
            searched = buffer.count
            guard try fill(by: deadline) else { return nil }
        }
    }

    private func shown(_ line: [UInt8]) -> String { "\"\(ByteText.printable(line, limit: 200))\"" }

    /// A head up to its empty line, or nil at the end of the stream. `answering` is the method of the request that
    /// this response answers; nil reads a request.
    package mutating func head(answering method: String?, by deadline: Deadline) throws(SocketError) -> ReceivedMessage?
    {
        var message = ReceivedMessage()
        guard let start = try line(by: deadline) else { return nil }
        message.head = start + [13, 10]
        message.startLine = String(decoding: start, as: UTF8.self)
        while true {
            guard let line = try line(by: deadline) else { return nil }
            message.head += line + [13, 10]
            if line.isEmpty { break }
            message.fields.append(field(line))
        }
        judge(start)
        message.framing = framing(of: message, answering: method)
        return message
    }

    private mutating func field(_ line: [UInt8]) -> Field {
        guard let colon = line.firstIndex(of: UInt8(ascii: ":")), colon > 0 else {
            violations.append("a field line without a name: \(shown(line))")
            return Field(name: String(decoding: line, as: UTF8.self), value: "")
        }
        if line[0] == 32 || line[0] == 9 { violations.append("a folded line: \(shown(line))") }
        if line[colon - 1] == 32 || line[colon - 1] == 9 { violations.append("space before a colon: \(shown(line))") }
        if line[..<colon].contains(where: { $0 <= 32 || $0 >= 127 }) {
            violations.append("a name that is no token: \(shown(line))")
        }
        if line[colon...].contains(where: { $0 == 0 || $0 == 13 || $0 == 10 }) {
            violations.append("a control byte in a value: \(shown(line))")
        }
        let name = String(decoding: line[..<colon], as: UTF8.self)
        let value = String(decoding: line[(colon + 1)...], as: UTF8.self)
        return Field(name: name, value: value.trimmingSpaces)
    }

    private mutating func judge(_ start: [UInt8]) {
        let parts = start.split(separator: 32, omittingEmptySubsequences: false)
        if parts.count < 3 || start.contains(where: { $0 < 32 || $0 == 127 }) {
            violations.append("a malformed start line: \(shown(start))")
        }
    }

    private mutating func framing(of message: ReceivedMessage, answering method: String?) -> Framing {
        let codings = message.values(of: "transfer-encoding")
        let lengths = message.values(of: "content-length")
        if !codings.isEmpty && !lengths.isEmpty { violations.append("both Transfer-Encoding and Content-Length") }
        if lengths.count > 1 || codings.count > 1 { violations.append("a framing field twice") }
        if codings.contains(where: { $0.lowercased() != "chunked" }) {
            violations.append("a transfer coding other than chunked: \(codings)")
        }
        if lengths.contains(where: { !$0.utf8.allSatisfy { (48...57).contains($0) } || $0.isEmpty }) {
            violations.append("a Content-Length that is no number: \(lengths)")
        }
        if let method {
            let status = message.status ?? 0
            if method == "HEAD" || status / 100 == 1 || status == 204 || status == 304 { return .none }
            if method == "CONNECT" && status / 100 == 2 { return .none }
        }
        if codings.contains(where: { $0.lowercased().contains("chunked") }) { return .chunked }
        if let length = lengths.first { return .length(Int(length.prefix { $0.isNumber }) ?? 0) }
        return method == nil ? .none : .untilClose
    }

    /// Reads the body that the head announced; `body.complete` stays false when the stream ended before it did.
    package mutating func body(of message: inout ReceivedMessage, by deadline: Deadline) throws(SocketError) {
        switch message.framing {
        case .none: message.body.complete = true
        case .length(let length): message.body.complete = try part(length, into: &message, by: deadline)
        case .chunked: message.body.complete = try chunks(into: &message, by: deadline)
        case .untilClose:
            repeat {
                message.body.add(buffer[...])
                buffer.removeAll(keepingCapacity: true)
            } while try fill(by: deadline)
            message.body.complete = true
        }
    }

    private mutating func part(
        _ length: Int, into message: inout ReceivedMessage, by deadline: Deadline
    ) throws(SocketError) -> Bool {
        var missing = length
        while missing > 0 {
            let now = min(missing, buffer.count)
            message.body.add(buffer[..<now])
            buffer.removeFirst(now)
            missing -= now
            if missing > 0, try !fill(by: deadline) { return false }
        }
        return true
    }

    private mutating func chunks(into message: inout ReceivedMessage, by deadline: Deadline) throws(SocketError) -> Bool
    {
        while true {
            guard let line = try line(by: deadline) else { return false }
            let digits = String(decoding: line.prefix { $0 != UInt8(ascii: ";") }, as: UTF8.self)
            if line.count != digits.utf8.count { violations.append("a chunk extension was forwarded: \(shown(line))") }
            guard let size = Int(digits, radix: 16), !digits.hasPrefix("+"), !digits.hasPrefix("-") else {
                violations.append("a chunk size that is none: \(shown(line))")
                return false
            }
            if size == 0 { break }
            message.body.chunks += 1
            guard try part(size, into: &message, by: deadline) else { return false }
            guard let end = try self.line(by: deadline) else { return false }
            if !end.isEmpty { violations.append("bytes after a chunk: \(shown(end))") }
        }
        while true {
            guard let line = try line(by: deadline) else { return false }
            if line.isEmpty { return true }
            message.trailers.append(field(line))
        }
    }
}

extension StringProtocol {
    var trimmingSpaces: String {
        var text = self[...]
        while let first = text.first, first == " " || first == "\t" { text = text.dropFirst() }
        while let last = text.last, last == " " || last == "\t" { text = text.dropLast() }
        return String(text)
    }
}
