// Cookies (RFC 6265): pairs read from `Cookie`, and one `Set-Cookie` line built from its parts. Values are bytes as
// sent: nothing is decoded, and quotes belong to the value.

/// Walks the pairs of all `Cookie` lines of a request in wire order.
package struct CookieCursor: Sendable {
    fileprivate var field = 0
    /// Within the value of `field`; negative before its first pair.
    fileprivate var offset = -1
    /// Bytes that have been looked at, parts that are no cookies included.
    package fileprivate(set) var walked = 0

    package init() {}

    /// The cursor as a number, 0 at the start: whoever walks in steps keeps that.
    package init(position: UInt64) {
        field = Int(position >> 32)
        offset = Int(position & 0xffff_ffff) - 1
    }

    package var position: UInt64 { UInt64(field) << 32 | UInt64(offset + 1) }
}

/// One pair, in the arena of its head.
package struct Cookie: Sendable, Hashable {
    package var name: ByteRange
    package var value: ByteRange

    package init(name: ByteRange, value: ByteRange) {
        self.name = name
        self.value = value
    }
}

extension MessageHead {
    /// The next pair; nil at the end. Parts without `=` and with an empty name are passed over, as browsers do
    /// (RFC 6265 §5.2).
    package func nextCookie(_ cursor: inout CookieCursor) -> Cookie? {
        while let index = firstIndex(of: .cookie, from: cursor.field) {
            let range = fields[index].valueRange
            if index != cursor.field || cursor.offset < 0 {
                cursor.field = index
                cursor.offset = range.lowerBound
            }
            while cursor.offset < range.upperBound {
                let start = cursor.offset
                var end = start
                var equals = -1
                while end < range.upperBound, bytes[end] != 0x3b {
                    if equals < 0, bytes[end] == 0x3d { equals = end }
                    end += 1
                }
                cursor.offset = end + 1
                cursor.walked += end + 1 - start
                guard equals >= 0 else { continue }
                let name = trimmedRange(start..<equals)
                guard !name.isEmpty else { continue }
                return Cookie(name: name, value: trimmedRange((equals + 1)..<end))
            }
            cursor.field = index + 1
            cursor.offset = -1
        }
        return nil
    }

    /// The value of the first cookie of that name. Names are compared with case (RFC 6265 §5.3).
    package func cookie(named name: Span<UInt8>) -> ByteRange? {
        var cursor = CookieCursor()
        while let cookie = nextCookie(&cursor) {
            if isEqual(cookie.name, name) { return cookie.value }
        }
        return nil
    }

    /// Sets a cookie of the request to one value, or removes it (nil). All pairs are written to one `Cookie` line, in
    /// their order; the other values stay byte for byte. Check name and value with `SetCookie.problem` first.
    package mutating func setRequestCookie(_ name: Span<UInt8>, to value: Span<UInt8>?) {
        var pairs: [Cookie] = []
        var cursor = CookieCursor()
        while let cookie = nextCookie(&cursor) { pairs.append(cookie) }
        var line: [UInt8] = []
        var isSet = false
        func add(_ cookie: Span<UInt8>, _ text: Span<UInt8>) {
            if !line.isEmpty { line.append("; ") }
            line.append(cookie)
            line.append(0x3d)
            line.append(text)
        }
        for pair in pairs {
            if isEqual(pair.name, name) {
                if let value, !isSet { add(name, value) }
                isSet = true
            } else {
                add(bytes.span.extracting(pair.name.range), bytes.span.extracting(pair.value.range))
            }
        }
        if let value, !isSet { add(name, value) }
        let known = Array("cookie".utf8)
        if line.isEmpty {
            removeAll(named: known.span)
        } else {
            set(known.span, to: line.span)
        }
    }

    private func trimmedRange(_ range: Range<Int>) -> ByteRange {
        var start = range.lowerBound
        var end = range.upperBound
        while start < end, bytes[start] == 0x20 || bytes[start] == 0x09 { start += 1 }
        while end > start, bytes[end - 1] == 0x20 || bytes[end - 1] == 0x09 { end -= 1 }
        return ByteRange(offset: start, count: end - start)
    }

    /// Whether a run of the arena equals `other` byte for byte.
    @inlinable
    package func isEqual(_ range: ByteRange, _ other: Span<UInt8>) -> Bool {
        guard Int(range.count) == other.count else { return false }
        let base = Int(range.offset)
        for i in 0..<other.count where bytes[base + i] != other[i] { return false }
        return true
    }
}

/// The parts of one `Set-Cookie` line (RFC 6265 §4.1, with SameSite and Partitioned as browsers read them).
package struct SetCookie: Sendable, Hashable {
    package enum SameSite: String, Sendable, Hashable, CaseIterable {
        case strict = "Strict"
        case lax = "Lax"
        case none = "None"
    }

    package var name: [UInt8]
    package var value: [UInt8]
    package var path: [UInt8]?
    package var domain: [UInt8]?
    /// Seconds; zero or less makes the browser forget it.
    package var maxAge: Int?
    /// Seconds since 1970.
    package var expires: Int64?
    package var isSecure = false
    package var isHTTPOnly = false
    package var sameSite: SameSite?
    package var isPartitioned = false

    package init(name: [UInt8], value: [UInt8]) {
        self.name = name
        self.value = value
    }

    /// The line that makes a browser forget the cookie; path and domain must be those that it was set with.
    package static func removal(of name: [UInt8], path: [UInt8]? = nil, domain: [UInt8]? = nil) -> SetCookie {
        var cookie = SetCookie(name: name, value: [])
        cookie.path = path
        cookie.domain = domain
        cookie.maxAge = 0
        cookie.expires = 0
        return cookie
    }

    /// Why a name or value cannot stand in a cookie; nil if it can.
    package static func problem(name: Span<UInt8>, value: Span<UInt8>) -> String? {
        guard FieldGrammar.isToken(name) else {
            return "a cookie name may hold letters, digits and !#$%&'*+-.^_`|~, and is not empty"
        }
        var inner = value
        if inner.count >= 2, inner[0] == 0x22, inner[inner.count - 1] == 0x22 {
            inner = inner.extracting(1..<(inner.count - 1))
        }
        for i in 0..<inner.count where !ByteSet.cookieOctet.contains(inner[i]) {
            return
                "a cookie value holds \(FieldGrammar.describe(inner[i])); encode it (moongate.base64url, moongate.url)"
        }
        return nil
    }

    /// Why the line cannot be built; nil if it can. Browsers drop what breaks the rules about prefixes, `SameSite=None`
    /// and `Partitioned` without a word, so it is said here.
    package var problem: String? {
        if let problem = Self.problem(name: name.span, value: value.span) { return problem }
        if name.count + value.count > 4096 { return "a cookie's name and value are longer than 4096 bytes together" }
        for (part, text) in [("path", path), ("domain", domain)] {
            guard let text else { continue }
            for byte in text where !ByteSet.cookieAttribute.contains(byte) {
                return "a cookie's \(part) holds \(FieldGrammar.describe(byte))"
            }
        }
        if let path, path.first != 0x2f { return "a cookie's path begins with \"/\"" }
        if sameSite == SameSite.none, !isSecure { return "a cookie with same_site \"None\" must be secure" }
        if isPartitioned, !isSecure { return "a partitioned cookie must be secure" }
        if name.starts(with: "__Secure-".utf8), !isSecure { return "a __Secure- cookie must be secure" }
        if name.starts(with: "__Host-".utf8), !isSecure || domain != nil || path != [0x2f] {
            return "a __Host- cookie must be secure, with path \"/\" and without a domain"
        }
        return nil
    }

    /// Appends the value of the `Set-Cookie` line. Ask `problem` first.
    package func append(to output: inout [UInt8]) {
        output += name
        output.append(0x3d)
        output += value
        if let path {
            output.append("; Path=")
            output += path
        }
        if let domain {
            output.append("; Domain=")
            output += domain
        }
        if let maxAge {
            output.append("; Max-Age=")
            output += Array(String(maxAge).utf8)
        }
        if let expires {
            output.append("; Expires=")
            HTTPDate.append(expires, to: &output)
        }
        if isSecure { output.append("; Secure") }
        if isHTTPOnly { output.append("; HttpOnly") }
        if let sameSite {
            output.append("; SameSite=")
            output += Array(sameSite.rawValue.utf8)
        }
        if isPartitioned { output.append("; Partitioned") }
    }
}
