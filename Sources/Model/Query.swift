// The query of a request target as pairs (the form encoding of the URL standard): read without decoding the whole,
// edited without touching the bytes of the pairs that stay.

package enum Query {
    /// One `name=value`, still encoded, as offsets into the query. A part without `=` has an empty value.
    package struct Pair: Sendable, Hashable {
        package var name: Range<Int>
        package var value: Range<Int>
        /// The whole part between two `&`.
        package var part: Range<Int>
        package var hasEquals: Bool
    }

    /// The next pair from `cursor` on (0 at first); nil at the end. Empty parts (`a&&b`) are passed over.
    @inlinable
    package static func next(in query: Span<UInt8>, _ cursor: inout Int) -> Pair? {
        while cursor < query.count {
            let start = cursor
            var end = start
            var equals = -1
            while end < query.count, query[end] != 0x26 {
                if equals < 0, query[end] == 0x3d { equals = end }
                end += 1
            }
            cursor = end + 1
            if end == start { continue }
            return equals < 0
                ? Pair(name: start..<end, value: end..<end, part: start..<end, hasEquals: false)
                : Pair(name: start..<equals, value: (equals + 1)..<end, part: start..<end, hasEquals: true)
        }
        return nil
    }

    /// Appends the decoded bytes: `+` is a space, `%XX` a byte; a `%` without two hexadecimal digits stays as it is.
    package static func decode(_ text: Span<UInt8>, into output: inout [UInt8]) {
        var i = 0
        while i < text.count { output.append(decodedByte(text, &i)) }
    }

    /// Appends `text` encoded: unreserved bytes as they are, every other as `%XX`.
    package static func encode(_ text: Span<UInt8>, into output: inout [UInt8]) {
        for i in 0..<text.count {
            let byte = text[i]
            if ByteSet.unreserved.contains(byte) {
                output.append(byte)
            } else {
                output.append(0x25)
                output.append(upperHexDigit(byte >> 4))
                output.append(upperHexDigit(byte & 15))
            }
        }
    }

    /// Whether the encoded `text` decodes to `plain`.
    package static func matches(_ text: Span<UInt8>, _ plain: Span<UInt8>) -> Bool {
        var i = 0
        var j = 0
        while i < text.count {
            guard j < plain.count, decodedByte(text, &i) == plain[j] else { return false }
            j += 1
        }
        return j == plain.count
    }

    private static func decodedByte(_ text: Span<UInt8>, _ i: inout Int) -> UInt8 {
        let byte = text[i]
        i += 1
        if byte == 0x2b { return 0x20 }
        guard byte == 0x25, i + 1 < text.count, let high = hexDigit(text[i]), let low = hexDigit(text[i + 1]) else {
            return byte
        }
        i += 2
        return high << 4 | low
    }
}

extension MessageHead {
    /// Appends the decoded value of the first pair of that (decoded) name to `output`; false if there is none.
    package func queryValue(named name: Span<UInt8>, into output: inout [UInt8]) -> Bool {
        let query = bytes.span.extracting(queryRange.range)
        var cursor = 0
        while let pair = Query.next(in: query, &cursor) {
            if Query.matches(query.extracting(pair.name), name) {
                Query.decode(query.extracting(pair.value), into: &output)
                return true
            }
        }
        return false
    }

    /// Sets a name to one value: its first pair takes it and keeps its place, the others go; without one it is appended.
    package mutating func setQuery(_ name: Span<UInt8>, to value: Span<UInt8>) {
        rewriteQuery(name, value, replaces: true)
    }

    package mutating func appendQuery(_ name: Span<UInt8>, _ value: Span<UInt8>) {
        rewriteQuery(name, value, replaces: false)
    }

    /// Removes every pair of that name. A query that becomes empty goes, with its `?`.
    package mutating func removeQuery(named name: Span<UInt8>) {
        rewriteQuery(name, nil, replaces: true)
    }

    /// Replaces the whole query by encoded text (nil: none). Returns why it is no query, nil when it was set.
    package mutating func setRawQuery(_ query: Span<UInt8>?) -> String? {
        guard let query else {
            queryRange = .empty
            hasQuery = false
            return nil
        }
        for i in 0..<query.count where !ByteSet.visible.contains(query[i]) || query[i] == 0x23 {
            return "a query holds \(FieldGrammar.describe(query[i])); encode it (moongate.url.escape)"
        }
        queryRange = store(query)
        hasQuery = true
        return nil
    }

    private mutating func rewriteQuery(_ name: Span<UInt8>, _ value: Span<UInt8>?, replaces: Bool) {
        var result: [UInt8] = []
        let query = bytes[queryRange.range]
        result.reserveCapacity(query.count + name.count + (value?.count ?? 0) + 16)
        var isWritten = false
        func write() {
            guard let value, !isWritten else { return }
            isWritten = true
            if !result.isEmpty { result.append(0x26) }
            Query.encode(name, into: &result)
            result.append(0x3d)
            Query.encode(value, into: &result)
        }
        let span = query.span
        var cursor = 0
        while let pair = Query.next(in: span, &cursor) {
            if replaces, Query.matches(span.extracting(pair.name), name) {
                write()
            } else {
                if !result.isEmpty { result.append(0x26) }
                result.append(span.extracting(pair.part))
            }
        }
        write()
        queryRange = store(result)
        hasQuery = !result.isEmpty
    }
}
