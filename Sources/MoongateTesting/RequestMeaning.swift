// What a request says by the book, read without any of the proxy's code: what an upstream gets must say the same.

/// A request with its body, as RFC 9112 reads it, or nothing where it is not one.
struct RequestMeaning {
    var method: String
    /// With slashes merged in the path, as the proxy's canonical path has them.
    var target: String
    var host: String
    var body: [UInt8]
    /// Fields that go on to the next server, with lower-case names.
    var fields: [Field]

    /// What the proxy sets, or frames anew.
    private static let ofHops: Set<String> = [
        "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "keep-alive",
        "proxy-connection", "host", "expect", "forwarded", "via", "x-forwarded-for", "x-forwarded-host",
        "x-forwarded-port", "x-forwarded-proto", "x-forwarded-prefix", "x-real-ip", "x-request-id",
    ]

    /// Reads one request; what follows it is no part of it.
    init?(_ input: [UInt8]) {
        let end: [UInt8] = [13, 10, 13, 10]
        guard let start = (0..<max(0, input.count - 3)).first(where: { Array(input[$0..<$0 + 4]) == end }) else {
            return nil
        }
        guard let lines = Self.lines(Array(input[..<(start + 2)])), let first = lines.first else { return nil }
        let words = first.split(separator: 32, omittingEmptySubsequences: false).map {
            String(decoding: $0, as: UTF8.self)
        }
        guard words.count == 3, Self.isToken(words[0]), ["HTTP/1.1", "HTTP/1.0"].contains(words[2]),
            words[1].hasPrefix("/"), words[1].utf8.allSatisfy({ $0 > 32 && $0 < 127 && $0 != UInt8(ascii: "#") })
        else { return nil }
        method = words[0]
        target = Self.merged(words[1])
        guard let all = Self.fields(lines.dropFirst()) else { return nil }
        let hosts = all.filter { $0.name == "host" }
        guard hosts.count == 1, let host = hosts.first?.value else { return nil }
        self.host = host.hasSuffix(":") ? String(host.dropLast()) : host
        let named = Set(
            all.filter { $0.name == "connection" }
                .flatMap { $0.value.lowercased().split(separator: ",").map { $0.filter { $0 != " " && $0 != "\t" } } })
        fields = all.filter { !Self.ofHops.contains($0.name) && !$0.name.contains("_") && !named.contains($0.name) }
        guard let body = Self.body(Array(input[(start + 4)...]), all, version: words[2]) else { return nil }
        self.body = body
    }

    /// What an upstream got that it does not say; nil where both say the same.
    func difference(from got: ReceivedMessage) -> String? {
        let words = got.startLine.split(separator: " ", omittingEmptySubsequences: false).map(String.init)
        guard words.count == 3 else { return "the request line \(got.startLine)" }
        if words[0] != method { return "the method \(words[0]), not \(method)" }
        if words[1] != target { return "the target \(words[1]), not \(target)" }
        if got.values(of: "host") != [host] { return "the host \(got.values(of: "host")), not \(host)" }
        let theirs = got.fields.map { Field(name: $0.name.lowercased(), value: $0.value) }
            .filter { !Self.ofHops.contains($0.name) }
        if theirs != fields { return "the fields \(theirs), not \(fields)" }
        if got.body.complete, got.body.bytes != body { return "the body \(got.body.bytes), not \(body)" }
        return nil
    }

    /// Nil where a line ends with anything but CR LF, or holds a control byte.
    private static func lines(_ head: [UInt8]) -> [[UInt8]]? {
        var lines: [[UInt8]] = []
        var line: [UInt8] = []
        var i = 0
        while i < head.count {
            if head[i] == 13 {
                guard i + 1 < head.count, head[i + 1] == 10 else { return nil }
                lines.append(line)
                line = []
                i += 2
            } else {
                guard head[i] >= 32 && head[i] != 127 || head[i] == 9 else { return nil }
                line.append(head[i])
                i += 1
            }
        }
        return line.isEmpty ? lines : nil
    }

    private static func fields(_ lines: ArraySlice<[UInt8]>) -> [Field]? {
        var fields: [Field] = []
        for line in lines {
            guard let colon = line.firstIndex(of: 58) else { return nil }
            let name = String(decoding: line[..<colon], as: UTF8.self)
            guard isToken(name) else { return nil }
            var value = line[(colon + 1)...]
            while let first = value.first, first == 32 || first == 9 { value.removeFirst() }
            while let last = value.last, last == 32 || last == 9 { value.removeLast() }
            fields.append(Field(name: name.lowercased(), value: String(decoding: value, as: UTF8.self)))
        }
        return fields
    }

    private static func body(_ rest: [UInt8], _ fields: [Field], version: String) -> [UInt8]? {
        let lengths = fields.filter { $0.name == "content-length" }.map(\.value)
        let codings = fields.filter { $0.name == "transfer-encoding" }.map(\.value)
        switch (lengths.count, codings.count) {
        case (0, 0): return []
        case (1, 0):
            guard lengths[0].utf8.allSatisfy({ (48...57).contains($0) }), let count = Int(lengths[0]),
                count <= rest.count
            else { return nil }
            return Array(rest[..<count])
        case (0, 1):
            guard codings[0].lowercased() == "chunked", version == "HTTP/1.1" else { return nil }
            return chunks(rest)
        case _: return nil
        }
    }

    private static func chunks(_ bytes: [UInt8]) -> [UInt8]? {
        var body: [UInt8] = []
        var i = 0
        func line() -> [UInt8]? {
            var line: [UInt8] = []
            while i + 1 < bytes.count {
                if bytes[i] == 13 {
                    guard bytes[i + 1] == 10 else { return nil }
                    i += 2
                    return line
                }
                guard bytes[i] >= 32 && bytes[i] != 127 || bytes[i] == 9 else { return nil }
                line.append(bytes[i])
                i += 1
            }
            return nil
        }
        while true {
            guard let size = line() else { return nil }
            let digits = size.prefix { $0 != UInt8(ascii: ";") }
            guard !digits.isEmpty, digits.count < 8,
                let count = Int(String(decoding: digits, as: UTF8.self), radix: 16), digits.first != UInt8(ascii: "+"),
                digits.first != UInt8(ascii: "-")
            else { return nil }
            if count == 0 {
                while let trailer = line() {
                    if trailer.isEmpty { return body }
                    guard Self.fields([trailer][...]) != nil else { return nil }
                }
                return nil
            }
            guard i + count + 2 <= bytes.count, bytes[i + count] == 13, bytes[i + count + 1] == 10 else { return nil }
            body += bytes[i..<i + count]
            i += count + 2
        }
    }

    private static func merged(_ target: String) -> String {
        var text = ""
        var isPath = true
        for character in target {
            if character == "?" { isPath = false }
            if isPath, character == "/", text.hasSuffix("/") { continue }
            text.append(character)
        }
        return text
    }

    private static func isToken(_ text: String) -> Bool {
        !text.isEmpty
            && text.utf8.allSatisfy {
                (48...57).contains($0) || (65...90).contains($0) || (97...122).contains($0)
                    || "!#$%&'*+-.^_`|~".utf8.contains($0)
            }
    }
}
