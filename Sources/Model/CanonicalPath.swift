// The one canonical path: router, scripts, access log and upstream all see its result, so no two of them can take a
// request for different things (CWE-436). Admission calls it for each request, and the script API after each rewrite.

/// The path of a request target, brought to one spelling or refused.
///
/// | in the path | what happens | why |
/// |---|---|---|
/// | does not begin with `/` | refused | every other form is taken apart before |
/// | control bytes, space, DEL, bytes ≥ 0x80, `\`, `#`, `?` | refused | not in the grammar (RFC 3986 §3.3); `\` is `/` to some, `#` ends a path for others |
/// | `%` without two hexadecimal digits (also `%u002f`) | refused | decoders differ |
/// | `%00` | refused | ends a string for C |
/// | `%2F`, `%5C` | refused; kept with `.encodedSlashes` | a separator after decoding (CVE-2025-66490, CVE-2021-29492) |
/// | `.` or `..` as a segment, also as `%2e`, also before `;` (`/..;/`) | refused | whoever removes them reaches another path (CVE-2019-9901, CVE-2025-32431) |
/// | overlong UTF-8 (`%c0%af`, `%e0%80%af`, `%f0%80…`, `%f8…`, `%fc…`) | refused | lax decoders see `/`, `\` or `.` |
/// | `//` and longer | one `/` | many upstreams merge them, and then the route would be another (RFC 3986 is silent) |
/// | `%61`: an encoded unreserved byte | decoded | the same path by RFC 3986 §6.2.2.2, and a script on `/admin` must see `/%61dmin` |
/// | `%c3%a9`: lower-case digits in an escape | upper case | the same path by RFC 3986 §6.2.2.1 |
/// | `;`, `%25`, `%3F`, `%23`, `%3B`, any other escape or visible byte | byte for byte as sent | data |
///
/// The result is a fixed point: normalising it again changes nothing, and none of its segments is `.` or `..` when
/// decoded once.
package enum CanonicalPath {
    /// Why a path was refused.
    package enum Refusal: UInt8, Error, Sendable, Hashable, CaseIterable {
        case notAbsolute
        case forbiddenByte
        case badEscape
        case encodedNUL
        case encodedSlash
        case dotSegment
        case overlongUTF8
        case tooLong

        /// For the author of a script or an operator.
        package var message: String {
            switch self {
            case .notAbsolute: "a path begins with \"/\""
            case .forbiddenByte: "a path may not hold control bytes, spaces, bytes above 0x7e, \"\\\", \"#\" or \"?\""
            case .badEscape: "a path holds \"%\" without two hexadecimal digits after it"
            case .encodedNUL: "a path may not hold %00"
            case .encodedSlash: "a path may not hold %2F or %5C"
            case .dotSegment: "a path may not hold a \".\" or \"..\" segment"
            case .overlongUTF8: "a path holds UTF-8 in an overlong form"
            case .tooLong: "a path is longer than \(CanonicalPath.maxCount) bytes"
            }
        }
    }

    /// What a route may allow on top.
    package struct Options: OptionSet, Sendable, Hashable {
        package let rawValue: UInt8
        @inlinable package init(rawValue: UInt8) { self.rawValue = rawValue }
        /// A literal in place of it is made by an unspecialised function of the standard library, with a list on the heap.
        @inlinable package static var none: Options { Options(rawValue: 0) }
        /// `%2F` and `%5C` stay as they are, as data; a dot segment between them is still refused.
        @inlinable package static var encodedSlashes: Options { Options(rawValue: 1) }
    }

    /// Longest path that is looked at; the head parser's limit is lower.
    package static let maxCount = 65535

    /// The bytes that need no second look: visible ASCII without `%`, `#`, `?`, `\`, `/`, `.` and `;`.
    @usableFromInline static var plain: ByteSet {
        ByteSet(low: 0x77ff_3fd6_0000_0000, high: 0x7fff_ffff_efff_ffff)
    }

    /// Whether `path` holds only what is canonical at sight: plain bytes, single slashes, no dot after a slash. Most
    /// paths do, and need no copy.
    @inlinable
    package static func isPlain(_ path: Span<UInt8>) -> Bool {
        guard path.count > 0, path[0] == 0x2f else { return false }
        var previous: UInt8 = 0
        for i in 0..<path.count {
            let byte = path[i]
            if !plain.contains(byte), byte != 0x2f && byte != 0x2e || previous == 0x2f { return false }
            previous = byte
        }
        return true
    }

    /// Brings the path that lies in `arena` at `range` to its canonical spelling, and says where that lies: in the same
    /// place, or at the arena's end. On refusal the arena is as it was.
    @inlinable
    package static func normalise(
        _ range: Range<Int>, in arena: inout [UInt8], allowing options: Options = .none
    ) throws(Refusal) -> Range<Int> {
        if isPlain(arena.span.extracting(range)) { return range }
        return try rebuild(range, in: &arena, allowing: options)
    }

    /// Brings `path` to its canonical spelling.
    ///
    /// Returns true when it has that spelling already: then `output` is as it was. Otherwise the canonical path has
    /// been appended to `output`. On refusal `output` is as it was.
    package static func normalise(
        _ path: Span<UInt8>, into output: inout [UInt8], allowing options: Options = .none
    ) throws(Refusal) -> Bool {
        if isPlain(path) { return true }
        guard path.count <= maxCount else { throw .tooLong }
        var arena: [UInt8] = []
        arena.append(path)
        let result = try rebuild(0..<path.count, in: &arena, allowing: options)
        if result.lowerBound == 0 { return true }
        output.append(contentsOf: arena[result])
        return false
    }

    @usableFromInline
    static func rebuild(
        _ range: Range<Int>, in arena: inout [UInt8], allowing options: Options
    ) throws(Refusal) -> Range<Int> {
        guard range.count <= maxCount else { throw .tooLong }
        guard !range.isEmpty, arena[range.lowerBound] == 0x2f else { throw .notAbsolute }
        let start = arena.count
        do throws(Refusal) {
            try appendCanonical(range, in: &arena, allowing: options)
        } catch {
            arena.removeLast(arena.count - start)
            throw error
        }
        guard arena.count - start == range.count, arena[start...].elementsEqual(arena[range]) else {
            return start..<arena.count
        }
        arena.removeLast(range.count)
        return range
    }

    private static func appendCanonical(
        _ range: Range<Int>, in arena: inout [UInt8], allowing options: Options
    ) throws(Refusal) {
        let start = arena.count
        /// Where the segment that is being written begins.
        var segment = start
        var i = range.lowerBound
        let end = range.upperBound
        while i < end {
            let byte = arena[i]
            i += 1
            switch byte {
            case 0x2f:
                // A slash after a slash adds nothing.
                if arena.count > start, arena[arena.count - 1] == 0x2f { continue }
                try endSegment(arena, from: segment)
                arena.append(0x2f)
                segment = arena.count
            case 0x25:
                guard i + 1 < end, let high = hexDigit(arena[i]), let low = hexDigit(arena[i + 1]) else {
                    throw .badEscape
                }
                i += 2
                let value = high << 4 | low
                if ByteSet.unreserved.contains(value) {
                    arena.append(value)
                    continue
                }
                switch value {
                case 0x00: throw .encodedNUL
                case 0x2f, 0x5c:
                    guard options.contains(.encodedSlashes) else { throw .encodedSlash }
                    try endSegment(arena, from: segment)
                    appendEscape(value, to: &arena)
                    segment = arena.count
                default:
                    if value >= 0xc0, isOverlong(value, before: arena[i..<end]) { throw .overlongUTF8 }
                    appendEscape(value, to: &arena)
                }
            case 0x23, 0x3f, 0x5c:
                throw .forbiddenByte
            default:
                guard ByteSet.visible.contains(byte) else { throw .forbiddenByte }
                arena.append(byte)
            }
        }
        try endSegment(arena, from: segment)
    }

    private static func appendEscape(_ value: UInt8, to output: inout [UInt8]) {
        output.append(0x25)
        output.append(upperHexDigit(value >> 4))
        output.append(upperHexDigit(value & 15))
    }

    /// A dot segment is one, two dots, alone or before path parameters: some servers cut `;…` off first (`/..;/`).
    private static func endSegment(_ output: [UInt8], from start: Int) throws(Refusal) {
        var end = start
        while end < output.count, output[end] == 0x2e { end += 1 }
        guard end - start == 1 || end - start == 2 else { return }
        if end == output.count || output[end] == 0x3b { throw .dotSegment }
        if end + 2 < output.count, output[end] == 0x25, output[end + 1] == 0x33, output[end + 2] == 0x42 {
            throw .dotSegment
        }
    }

    /// Whether the lead byte `lead`, with the escape that follows it, begins an overlong sequence (RFC 3629 §3).
    private static func isOverlong(_ lead: UInt8, before rest: ArraySlice<UInt8>) -> Bool {
        // These two never begin a valid sequence, and have been read as `/` and `\` with any byte after them.
        if lead == 0xc0 || lead == 0xc1 { return true }
        let i = rest.startIndex
        guard rest.count >= 3, rest[i] == 0x25, let high = hexDigit(rest[i + 1]), let low = hexDigit(rest[i + 2]) else {
            return false
        }
        let next = high << 4 | low
        switch lead {
        case 0xe0: return (0x80...0x9f).contains(next)
        case 0xf0: return (0x80...0x8f).contains(next)
        case 0xf8: return (0x80...0x87).contains(next)
        case 0xfc: return (0x80...0x83).contains(next)
        default: return false
        }
    }
}

/// The digit of a value below 16.
@inlinable
package func upperHexDigit(_ value: UInt8) -> UInt8 { value < 10 ? 48 + value : 55 + value }
