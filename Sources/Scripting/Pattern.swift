// `moongate.regex` and config values of type `regex`: PCRE2 with limits, compiled to machine code where that is possible.

import CPCRE2
import Model

/// A compiled pattern. Belongs to one thread: matching writes into its match data.
///
/// Texts are bytes; a pattern that begins with `(*UTF)` takes them as UTF-8 and refuses what is not.
@safe
package final class Pattern {
    package struct Problem: Error, Sendable, Hashable {
        package var message: String
        package var offset: Int
    }

    package enum Failure: Error, Sendable, Hashable {
        /// The match limit, the depth limit, the heap limit or the stack of the compiled pattern was used up.
        case budget
        /// The result of a replacement grew beyond its bound.
        case tooLarge
        /// The text is not what `(*UTF)` demands, or the replacement is malformed.
        case invalid(String)
    }

    /// What is looked at before a match gives up: about a millisecond of work.
    package static let matchLimit: UInt32 = 100_000
    package static let depthLimit: UInt32 = 2_000
    package static let heapKibibytes: UInt32 = 1024
    package static let patternBytes = 8192
    package static let resultBytes = 1 << 20

    private let code: OpaquePointer
    private let data: OpaquePointer
    private let context: OpaquePointer
    package let pattern: [UInt8]
    /// Groups that have a name, and their numbers.
    package let names: [(name: [UInt8], group: Int)]
    package let groupCount: Int

    package init(_ pattern: [UInt8]) throws(Problem) {
        guard pattern.count <= Self.patternBytes else {
            throw Problem(message: "a pattern is at most \(Self.patternBytes) bytes long", offset: Self.patternBytes)
        }
        var number: Int32 = 0
        var offset = 0
        // Proof: the pattern is lent for the call, which copies what it needs.
        let compiled = unsafe pattern.withUnsafeBufferPointer { text in
            unsafe pcre2_compile_8(text.baseAddress, text.count, UInt32(PCRE2_NEVER_BACKSLASH_C), &number, &offset, nil)
        }
        guard let code = unsafe compiled else {
            throw Problem(message: Self.message(number), offset: offset)
        }
        // Without JIT the pattern is interpreted, under the same limits.
        unsafe pcre2_jit_compile_8(code, UInt32(PCRE2_JIT_COMPLETE))
        guard let data = unsafe pcre2_match_data_create_from_pattern_8(code, nil) else {
            unsafe pcre2_code_free_8(code)
            throw Problem(message: "out of memory", offset: 0)
        }
        guard let context = unsafe pcre2_match_context_create_8(nil) else {
            unsafe pcre2_match_data_free_8(data)
            unsafe pcre2_code_free_8(code)
            throw Problem(message: "out of memory", offset: 0)
        }
        unsafe pcre2_set_match_limit_8(context, Self.matchLimit)
        unsafe pcre2_set_depth_limit_8(context, Self.depthLimit)
        unsafe pcre2_set_heap_limit_8(context, Self.heapKibibytes)
        unsafe self.code = unsafe code
        unsafe self.data = unsafe data
        unsafe self.context = unsafe context
        self.pattern = pattern
        var count: UInt32 = 0
        unsafe pcre2_pattern_info_8(code, UInt32(PCRE2_INFO_CAPTURECOUNT), &count)
        groupCount = Int(count)
        names = unsafe Self.names(of: code)
    }

    deinit {
        // Proof: the three were made by `init`, and nobody else has them.
        unsafe pcre2_match_context_free_8(context)
        unsafe pcre2_match_data_free_8(data)
        unsafe pcre2_code_free_8(code)
    }

    package func test(_ text: Span<UInt8>) throws(Failure) -> Bool { try run(text, from: 0, options: 0) }

    /// The ranges of the whole match and of each group (nil: the group took no part); nil when nothing matches.
    package func match(_ text: Span<UInt8>, from start: Int = 0) throws(Failure) -> [Range<Int>?]? {
        guard start <= text.count, try run(text, from: start, options: 0) else { return nil }
        return ranges()
    }

    /// Replaces each match. In the replacement `$1`, `$12` or `${12}` is a numbered group, `$name` or `${name}` a named
    /// one, `$0` the match and `$$` a dollar sign; a group that took no part is empty.
    package func replace(
        _ text: Span<UInt8>, with replacement: Span<UInt8>, limit: Int = Int.max
    ) throws(Failure) -> (text: [UInt8], count: Int) {
        let template = try template(replacement)
        var output: [UInt8] = []
        var copied = 0
        var at = 0
        var count = 0
        var options: UInt32 = 0
        while count < limit, at <= text.count {
            guard try run(text, from: at, options: options) else {
                // An empty match was just taken here: move on by one byte, or by one character of UTF-8.
                if options == 0 || at == text.count { break }
                at += 1
                while isUTF, at < text.count, text[at] & 0xc0 == 0x80 { at += 1 }
                options = 0
                continue
            }
            let groups = ranges()
            guard let whole = groups.first ?? nil, whole.lowerBound >= copied else { break }
            count += 1
            output.append(text.extracting(copied..<whole.lowerBound))
            for piece in template {
                switch piece {
                case .text(let bytes): output.append(contentsOf: bytes)
                case .group(let number):
                    if number < groups.count, let range = groups[number] { output.append(text.extracting(range)) }
                }
            }
            guard output.count <= Self.resultBytes else { throw .tooLarge }
            copied = whole.upperBound
            at = whole.upperBound
            options = whole.isEmpty ? UInt32(PCRE2_NOTEMPTY_ATSTART) | UInt32(PCRE2_ANCHORED) : 0
        }
        output.append(text.extracting(copied..<text.count))
        guard output.count <= Self.resultBytes else { throw .tooLarge }
        return (output, count)
    }

    // MARK: Inside

    private enum Piece {
        case text([UInt8])
        case group(Int)
    }

    private func template(_ replacement: Span<UInt8>) throws(Failure) -> [Piece] {
        var pieces: [Piece] = []
        var text: [UInt8] = []
        var at = 0
        while at < replacement.count {
            guard replacement[at] == 36 else {
                text.append(replacement[at])
                at += 1
                continue
            }
            at += 1
            guard at < replacement.count else { throw .invalid("a replacement ends with a single $; write $$") }
            if replacement[at] == 36 {
                text.append(36)
                at += 1
                continue
            }
            let braced = replacement[at] == 123
            if braced { at += 1 }
            let start = at
            let digits = at < replacement.count && (48...57).contains(replacement[at])
            while at < replacement.count, isNameByte(replacement[at]), !digits || (48...57).contains(replacement[at]) {
                at += 1
            }
            var name: [UInt8] = []
            name.append(replacement.extracting(start..<at))
            let shown = String(decoding: name, as: UTF8.self)
            if braced {
                guard at < replacement.count, replacement[at] == 125 else {
                    throw .invalid("a replacement has ${ without }")
                }
                at += 1
            }
            guard !name.isEmpty else {
                throw .invalid("a replacement has a $ without a group; write $$ for a dollar sign")
            }
            let group = digits ? Int(shown) : names.first { $0.name == name }?.group
            guard let group, group <= groupCount else {
                throw .invalid("the pattern has no group \"\(shown)\"")
            }
            if !text.isEmpty { pieces.append(.text(text)) }
            text = []
            pieces.append(.group(group))
        }
        if !text.isEmpty { pieces.append(.text(text)) }
        return pieces
    }

    private func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case 48...57, 65...90, 95, 97...122: true
        default: false
        }
    }

    private var isUTF: Bool {
        var options: UInt32 = 0
        unsafe pcre2_pattern_info_8(code, UInt32(PCRE2_INFO_ALLOPTIONS), &options)
        return options & UInt32(PCRE2_UTF) != 0
    }

    private func run(_ text: Span<UInt8>, from start: Int, options: UInt32) throws(Failure) -> Bool {
        // Proof: the text is lent for the call; the match data is read by `ranges` only, as offsets.
        let result = unsafe text.withUnsafeBufferPointer { buffer in
            unsafe pcre2_match_8(code, buffer.baseAddress, buffer.count, start, options, data, context)
        }
        if result >= 0 { return true }
        switch result {
        case PCRE2_ERROR_NOMATCH: return false
        case PCRE2_ERROR_MATCHLIMIT, PCRE2_ERROR_DEPTHLIMIT, PCRE2_ERROR_HEAPLIMIT, PCRE2_ERROR_JIT_STACKLIMIT,
            PCRE2_ERROR_NOMEMORY:
            throw .budget
        default: throw .invalid(Self.message(result))
        }
    }

    private func ranges() -> [Range<Int>?] {
        // Proof: the vector has as many pairs as the pattern has groups, and one more (pcre2api, "match data block").
        guard let vector = unsafe pcre2_get_ovector_pointer_8(data) else { return [] }
        var result: [Range<Int>?] = []
        for i in 0...groupCount {
            let (lower, upper) = unsafe (vector[2 * i], vector[2 * i + 1])
            // An unset group holds -1; \K can put the start behind the end.
            result.append(lower <= upper && lower >= 0 ? lower..<upper : nil)
        }
        return result
    }

    private static func names(of code: OpaquePointer) -> [(name: [UInt8], group: Int)] {
        var count: UInt32 = 0
        var size: UInt32 = 0
        var table: UnsafePointer<UInt8>?
        unsafe pcre2_pattern_info_8(code, UInt32(PCRE2_INFO_NAMECOUNT), &count)
        unsafe pcre2_pattern_info_8(code, UInt32(PCRE2_INFO_NAMEENTRYSIZE), &size)
        unsafe pcre2_pattern_info_8(code, UInt32(PCRE2_INFO_NAMETABLE), &table)
        guard let table = unsafe table, count > 0 else { return [] }
        // Proof: `count` entries of `size` bytes; two bytes of group number, then the name, ended by a zero
        // (pcre2api, PCRE2_INFO_NAMETABLE).
        return (0..<Int(count)).map { i in
            let entry = unsafe UnsafeBufferPointer(start: table + i * Int(size), count: Int(size))
            let group = unsafe Int(entry[0]) << 8 | Int(entry[1])
            return (unsafe Array(entry.dropFirst(2).prefix { $0 != 0 }), group)
        }
    }

    private static func message(_ number: Int32) -> String {
        var buffer = [UInt8](repeating: 0, count: 256)
        // Proof: the buffer is lent with its length.
        let count = unsafe buffer.withUnsafeMutableBufferPointer {
            unsafe pcre2_get_error_message_8(number, $0.baseAddress, $0.count)
        }
        return count > 0 ? String(decoding: buffer.prefix(Int(count)), as: UTF8.self) : "error \(number)"
    }
}
