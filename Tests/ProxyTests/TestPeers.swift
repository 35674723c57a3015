// A client and an upstream that are written without the proxy's own codec, so that a mistake there is not made twice.
import Testing

@testable import Proxy

struct TestMessage: Equatable {
    var startLine = ""
    var fields: [(String, String)] = []
    var body: [UInt8] = []
    var trailers: [(String, String)] = []
    var endedByClose = false

    static func == (a: TestMessage, b: TestMessage) -> Bool {
        a.startLine == b.startLine && a.body == b.body
    }

    func value(_ name: String) -> String? { fields.first { $0.0.lowercased() == name }?.1 }
    func values(_ name: String) -> [String] { fields.filter { $0.0.lowercased() == name }.map(\.1) }
    var status: Int { Int(startLine.split(separator: " ").dropFirst().first ?? "") ?? 0 }
}

enum TestParse {
    /// A message from the front of `bytes`, and how long it was; nil if it is not complete. Stops the test on what no
    /// peer may send.
    static func message(
        _ bytes: [UInt8], isResponse: Bool, toHead: Bool = false, atEnd: Bool = false
    ) throws -> (TestMessage, Int)? {
        guard let headEnd = find(bytes, 0) else { return nil }
        var message = TestMessage()
        let lines = String(decoding: bytes[..<headEnd], as: UTF8.self).components("\r\n")
        message.startLine = lines[0]
        for line in lines.dropFirst() where !line.isEmpty { message.fields.append(try field(line)) }
        var at = headEnd + 4
        let lengths = message.values("content-length")
        let codings = message.values("transfer-encoding")
        try #require(lengths.count <= 1 && codings.count <= 1 && (lengths.isEmpty || codings.isEmpty))
        let status = message.status
        if isResponse, toHead || status / 100 == 1 || status == 204 || status == 304 { return (message, at) }
        if let coding = codings.first {
            try #require(coding == "chunked")
            while true {
                guard let lineEnd = findLine(bytes, at) else { return nil }
                let text = String(decoding: bytes[at..<lineEnd], as: UTF8.self)
                let size = try #require(Int(text, radix: 16), "chunk size \(text)")
                at = lineEnd + 2
                if size == 0 {
                    while true {
                        guard let end = findLine(bytes, at) else { return nil }
                        if end == at { return (message, end + 2) }
                        message.trailers.append(try field(String(decoding: bytes[at..<end], as: UTF8.self)))
                        at = end + 2
                    }
                }
                guard bytes.count >= at + size + 2 else { return nil }
                message.body += bytes[at..<at + size]
                try #require(bytes[at + size] == 13 && bytes[at + size + 1] == 10)
                at += size + 2
            }
        }
        if let length = lengths.first {
            let count = try #require(Int(length))
            guard bytes.count >= at + count else { return nil }
            message.body = Array(bytes[at..<at + count])
            return (message, at + count)
        }
        if !isResponse { return (message, at) }
        guard atEnd else { return nil }
        message.body = Array(bytes[at...])
        message.endedByClose = true
        return (message, bytes.count)
    }

    private static func field(_ line: String) throws -> (String, String) {
        let colon = try #require(line.firstIndex(of: ":"), "no field: \(line)")
        return (String(line[..<colon]), String(line[line.index(after: colon)...].drop { $0 == " " }))
    }

    static func find(_ bytes: [UInt8], _ from: Int) -> Int? {
        guard bytes.count >= 4 else { return nil }
        for i in from...(bytes.count - 4)
        where bytes[i] == 13 && bytes[i + 1] == 10 && bytes[i + 2] == 13 && bytes[i + 3] == 10 { return i }
        return nil
    }

    private static func findLine(_ bytes: [UInt8], _ from: Int) -> Int? {
        var i = from
        while i + 1 < bytes.count {
            if bytes[i] == 13, bytes[i + 1] == 10 { return i }
            i += 1
        }
        return nil
    }
}

extension String {
    func components(_ separator: String) -> [String] {
        var result: [String] = []
        var current = ""
        for character in self {
            // CRLF is one Character.
            if String(character) == separator {
                result.append(current)
                current = ""
            } else {
                current.append(character)
            }
        }
        result.append(current)
        return result
    }
}

/// Bytes that can be told from others of the same length.
func pattern(_ count: Int, _ seed: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(count)
    var x = UInt32(truncatingIfNeeded: seed &* 2_654_435_761 | 1)
    for _ in 0..<count {
        x ^= x << 13
        x ^= x >> 17
        x ^= x << 5
        bytes.append(UInt8(truncatingIfNeeded: x))
    }
    return bytes
}

func digest(_ bytes: [UInt8]) -> String {
    var h: UInt64 = 14_695_981_039_346_656_037
    for byte in bytes { h = (h ^ UInt64(byte)) &* 1_099_511_628_211 }
    return "\(bytes.count)-\(String(h, radix: 16))"
}

func chunked(_ body: [UInt8], pieces: Int, trailers: String = "") -> [UInt8] {
    var out: [UInt8] = []
    var at = 0
    while at < body.count {
        let n = min(max(1, pieces), body.count - at)
        out += Array(String(n, radix: 16).utf8) + [13, 10] + body[at..<at + n] + [13, 10]
        at += n
    }
    return out + Array("0\r\n\(trailers)\r\n".utf8)
}

/// An upstream that answers as the path says: `/KIND/COUNT/SEED`.
final class TestUpstream {
    var received: [UInt8] = []
    var requests: [TestMessage] = []
    var answered = 0
    var wantsClose = false
    var hasReset = false
    /// Set for kinds that answer before they have read.
    private var answersEarly = false

    private var head: String?
    /// How many bytes the request that is being read has at least; saves reading it again for every piece.
    private var need = 0

    /// What is to be sent now; `wantsClose` and `hasReset` say what comes after it.
    func take(_ bytes: [UInt8]) throws -> [UInt8] {
        if answersEarly { return [] }
        received += bytes
        var out: [UInt8] = []
        while received.count >= need {
            if head == nil {
                guard let end = TestParse.find(received, 0) else { return out }
                let text = String(decoding: received[..<end], as: UTF8.self)
                head = text
                if text.contains(" /early/") {
                    answersEarly = true
                    wantsClose = true
                    return out + answer(to: text, "early")
                }
                for line in text.components("\r\n") where line.lowercased().hasPrefix("content-length: ") {
                    need = end + 4 + (Int(line.dropFirst(16)) ?? 0)
                }
                continue
            }
            guard let (message, count) = try TestParse.message(received, isResponse: false) else { return out }
            received.removeFirst(count)
            head = nil
            need = 0
            requests.append(message)
            out += answer(to: message.startLine, digest(message.body))
            if wantsClose || hasReset { return out }
        }
        return out
    }

    private func answer(to startLine: String, _ bodyDigest: String) -> [UInt8] {
        answered += 1
        let path = startLine.split(separator: " ")[1].split(separator: "?")[0]
        let parts = path.split(separator: "/")
        let kind = String(parts.first ?? "len")
        let count = parts.count > 1 ? Int(parts[1]) ?? 0 : 0
        let seed = parts.count > 2 ? Int(parts[2]) ?? 0 : 0
        let body = pattern(count, seed)
        let isHead = startLine.hasPrefix("HEAD ")
        let mark = "X-Body: \(bodyDigest)\r\nContent-Type: text/plain\r\n"
        switch kind {
        case "len", "early":
            return Array("HTTP/1.1 200 OK\r\nContent-Length: \(count)\r\n\(mark)\r\n".utf8) + (isHead ? [] : body)
        case "chunked":
            let head = Array("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\(mark)\r\n".utf8)
            return head + (isHead ? [] : chunked(body, pieces: 1 + seed % 3_000, trailers: "X-Sum: \(seed)\r\n"))
        case "close":
            wantsClose = true
            return Array("HTTP/1.1 200 OK\r\n\(mark)\r\n".utf8) + (isHead ? [] : body)
        case "bye":
            wantsClose = true
            return Array("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: \(count)\r\n\(mark)\r\n".utf8)
                + (isHead ? [] : body)
        case "grpc":
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc+proto\r\nTransfer-Encoding: chunked\r\n\r\n"
            return Array(head.utf8)
                + chunked(body, pieces: 1 + seed % 3_000, trailers: "Grpc-Status: 0\r\ngrpc-message: fine\r\n")
        case "grpc-only":
            return Array(
                "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: 5\r\nContent-Length: 0\r\n\r\n".utf8)
        case "nothing":
            return Array("HTTP/1.1 204 No Content\r\n\(mark)\r\n".utf8)
        case "hints":
            return Array(
                "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: \(count)\r\n\(mark)\r\n"
                    .utf8)
                + (isHead ? [] : body)
        case "die":
            wantsClose = true
            return []
        case "reset":
            hasReset = true
            return []
        case "half":
            wantsClose = true
            return Array("HTTP/1.1 200 OK\r\nContent-Length: \(count + 10)\r\n\(mark)\r\n".utf8) + body
        case "garbage":
            return Array("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!".utf8)
        case "extra":
            return Array("HTTP/1.1 200 OK\r\nContent-Length: \(count)\r\n\(mark)\r\n".utf8) + (isHead ? [] : body)
                + Array("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen".utf8)
        default:
            return Array("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".utf8)
        }
    }
}
