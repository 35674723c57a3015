// `moongate.regex` and config values of type `regex`: PCRE2 with limits, compiled to machine code where that is possible.
//
// PCRE2 has no clock, and its match limit bounds no call: "for patterns that are not anchored, the count restarts from
// zero for each position in the subject string" (pcre2api), and what is counted once may run over the whole subject. So:
//   * A call whose limit, subject and number of places to start from come to about a millisecond together, at the worst,
//     runs as it is: paths, short headers.
//   * A search through some KiB runs in windows of places (PCRE2_USE_OFFSET_LIMIT), with a look at the clock between
//     two. Not with \G and verbs such as (*COMMIT), which mean something else when a search is begun anew.
//   * Anything else, and what those gave up, runs in a second form of the pattern with a callout before each item
//     (PCRE2_AUTO_CALLOUT), several times slower, which counts its work against the budget of the run.

import CLua
import CPCRE2
import Model

/// One form of a pattern: PCRE2's code, and its machine code if there is any.
@safe
private final class PatternCode {
    let code: OpaquePointer
    let isAnchored: Bool
    let isUTF: Bool
    let groupCount: Int
    /// A search may be left off and begun anew at the next place.
    let isWindowable: Bool
    /// What it takes of memory; with what PCRE2 keeps for the next match where it interprets.
    let bytes: Int

    init(_ pattern: [UInt8], options: UInt32) throws(Pattern.Problem) {
        var number: Int32 = 0
        var offset = 0
        // Proof: the pattern is lent for the call, which copies what it needs.
        let compiled = unsafe pattern.withUnsafeBufferPointer { text in
            unsafe pcre2_compile_8(
                text.baseAddress, text.count, UInt32(PCRE2_NEVER_BACKSLASH_C) | options, &number, &offset, nil)
        }
        guard let code = unsafe compiled else {
            throw Pattern.Problem(message: Pattern.message(number), offset: offset)
        }
        unsafe self.code = code
        // Without JIT the pattern is interpreted, under the same limits.
        unsafe pcre2_jit_compile_8(code, UInt32(PCRE2_JIT_COMPLETE))
        let facts = unsafe mg_pattern_look(code)
        bytes = facts.size + (facts.machine_code > 0 ? facts.machine_code : Int(Pattern.heapKibibytes) << 10)
        isAnchored = facts.options & PCRE2_ANCHORED != 0
        isUTF = facts.options & UInt32(PCRE2_UTF) != 0
        groupCount = Int(facts.groups)
        isWindowable =
            options & UInt32(PCRE2_USE_OFFSET_LIMIT) != 0
            && !zip(pattern, pattern.dropFirst()).contains { $0 == (92, 71) || $0 == (40, 42) }  // \G, (*
    }

    deinit {
        // Proof: made by `init`, and nobody else has it.
        unsafe pcre2_code_free_8(code)
    }
}

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
        /// The run has used up its CPU budget, and ends whatever is made of this.
        case ended
        /// The result of a replacement grew beyond its bound, or the replacement has too many pieces.
        case tooLarge
        /// The text is not what `(*UTF)` demands, or the replacement is malformed.
        case invalid(String)
    }

    /// What is looked at from one place of the subject before a match gives up.
    package static let matchLimit: UInt32 = 100_000
    package static let depthLimit: UInt32 = 2_000
    package static let heapKibibytes: UInt32 = 128
    package static let patternBytes = 8192
    package static let resultBytes = 1 << 20
    /// Of a replacement: groups, and texts between them.
    private static let maxPieces = 1024
    /// Steps, of about a nanosecond each, that the plain form may take in one call at the worst.
    private static let plainSteps = 1 << 20
    /// With less than this the plain form would give up on what is no bomb.
    private static let plainLimit = 48
    /// The same for one window, and the longest subject that is searched in windows: with more there are too many.
    private static let windowSteps = 1 << 22
    private static let windowLimit = 24
    private static let windowedBytes = 8192

    private let plain: PatternCode
    private var watched: PatternCode?
    private var isWatchable = true
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
        plain = try PatternCode(pattern, options: UInt32(PCRE2_USE_OFFSET_LIMIT))
        guard let data = unsafe pcre2_match_data_create_from_pattern_8(plain.code, nil) else {
            throw Problem(message: "out of memory", offset: 0)
        }
        guard let context = unsafe pcre2_match_context_create_8(nil) else {
            unsafe pcre2_match_data_free_8(data)
            throw Problem(message: "out of memory", offset: 0)
        }
        unsafe pcre2_set_depth_limit_8(context, Self.depthLimit)
        unsafe pcre2_set_heap_limit_8(context, Self.heapKibibytes)
        unsafe self.data = unsafe data
        unsafe self.context = unsafe context
        self.pattern = pattern
        groupCount = plain.groupCount
        names = unsafe Self.names(of: plain.code)
    }

    deinit {
        // Proof: both were made by `init`, and nobody else has them.
        unsafe pcre2_match_context_free_8(context)
        unsafe pcre2_match_data_free_8(data)
    }

    /// What it takes of memory by now: both forms, and what matching writes into.
    package var bytes: Int { plain.bytes + (watched?.bytes ?? 0) + 16 * (groupCount + 1) + pattern.count + 512 }

    /// `purse` is that of the machine whose run pays for it; without one only the limits of PCRE2 hold.
    package func test(_ text: Span<UInt8>, paidBy purse: ScriptPurse? = nil) throws(Failure) -> Bool {
        try run(text, from: 0, options: 0, purse)
    }

    /// Whether it matches at this place, and not behind it.
    package func test(_ text: Span<UInt8>, at start: Int) throws(Failure) -> Bool {
        guard start <= text.count else { return false }
        return try run(text, from: start, options: PCRE2_ANCHORED, nil)
    }

    /// The ranges of the whole match and of each group (nil: the group took no part); nil when nothing matches.
    package func match(
        _ text: Span<UInt8>, from start: Int = 0, paidBy purse: ScriptPurse? = nil
    ) throws(Failure) -> [Range<Int>?]? {
        guard start <= text.count, try run(text, from: start, options: 0, purse) else { return nil }
        return ranges()
    }

    /// Replaces each match. In the replacement `$1`, `$12` or `${12}` is a numbered group, `$name` or `${name}` a named
    /// one, `$0` the match and `$$` a dollar sign; a group that took no part is empty.
    package func replace(
        _ text: Span<UInt8>, with replacement: Span<UInt8>, limit: Int = Int.max, paidBy purse: ScriptPurse? = nil
    ) throws(Failure) -> (text: [UInt8], count: Int) {
        guard purse?.charge(replacement.count) ?? true else { throw .ended }
        let template = try template(replacement)
        var output: [UInt8] = []
        var copied = 0
        var at = 0
        var count = 0
        var options: UInt32 = 0
        var checked: UInt32 = 0
        while count < limit, at <= text.count {
            guard try run(text, from: at, options: options | checked, purse) else {
                // An empty match was just taken here: move on by one byte, or by one character of UTF-8.
                if options == 0 || at == text.count { break }
                at += 1
                while plain.isUTF, at < text.count, text[at] & 0xc0 == 0x80 { at += 1 }
                options = 0
                continue
            }
            // The first call has checked all that is left; once more for each match would take the square of it.
            checked = UInt32(PCRE2_NO_UTF_CHECK)
            let groups = ranges()
            guard let whole = groups.first ?? nil, whole.lowerBound >= copied else { break }
            count += 1
            let before = output.count
            output.append(text.extracting(copied..<whole.lowerBound))
            for piece in template {
                // Before it is appended: a template of groups is a product of two long texts.
                switch piece {
                case .text(let bytes):
                    guard output.count + bytes.count <= Self.resultBytes else { throw .tooLarge }
                    output.append(contentsOf: bytes)
                case .group(let number):
                    guard number < groups.count, let range = groups[number] else { continue }
                    guard output.count + range.count <= Self.resultBytes else { throw .tooLarge }
                    output.append(text.extracting(range))
                }
            }
            guard output.count <= Self.resultBytes else { throw .tooLarge }
            let work = groups.count + 8 * template.count + output.count - before
            guard purse?.charge(work) ?? true else { throw .ended }
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
            if pieces.count > Self.maxPieces { throw .tooLarge }
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

    private func run(
        _ text: Span<UInt8>, from start: Int, options: UInt32, _ purse: ScriptPurse?
    ) throws(Failure) -> Bool {
        let left = text.count - start
        guard let purse else { return try found(match(plain, text, start, options, limit: Self.matchLimit)) }
        // Before it matches, PCRE2 looks for a byte that must be there; and it checks UTF-8.
        guard purse.charge(32 + (plain.isUTF && options & UInt32(PCRE2_NO_UTF_CHECK) == 0 ? left : left / 16)) else {
            throw .ended
        }
        let isSingle = plain.isAnchored || options & PCRE2_ANCHORED != 0
        // Steps from one place: the limit, times a run over what is left.
        let limit = Self.plainSteps / (left + 1) / (isSingle ? 1 : left + 1)
        if limit >= Self.plainLimit {
            let allowed = UInt32(min(limit, Int(Self.matchLimit)))
            let result = match(plain, text, start, options, limit: allowed)
            if result != PCRE2_ERROR_MATCHLIMIT { return try found(result) }
            guard purse.charge(Self.plainSteps) else { throw .ended }
            if allowed == Self.matchLimit { throw .budget }
        }
        var at = start
        if !isSingle, plain.isWindowable, left <= Self.windowedBytes {
            let window = max(1, Self.windowSteps / Self.windowLimit / (left + 1))
            while true {
                let last = min(at + window - 1, text.count)
                let result = match(plain, text, at, options, limit: UInt32(Self.windowLimit), last: last)
                if result == PCRE2_ERROR_MATCHLIMIT { break }
                if result != PCRE2_ERROR_NOMATCH || last == text.count { return try found(result) }
                at = last + 1
                // More than any credit: the clock is read.
                guard purse.charge(Self.windowSteps) else { throw .ended }
            }
        }
        guard let watched = watchedForm(purse) else {
            return try found(match(plain, text, at, options, limit: UInt32(max(limit, Self.plainLimit))))
        }
        return try found(match(watched, text, at, options, limit: Self.matchLimit, paidBy: purse))
    }

    /// Made at the first long subject. Nil when PCRE2 has no room for the callouts, or the script has none for it.
    private func watchedForm(_ purse: ScriptPurse) -> PatternCode? {
        if let watched { return watched }
        guard isWatchable else { return nil }
        guard let made = try? PatternCode(pattern, options: PCRE2_AUTO_CALLOUT) else {
            isWatchable = false
            return nil
        }
        guard purse.memoryInUse + made.bytes <= purse.memoryLimit else { return nil }
        purse.account(made.bytes)
        watched = made
        return made
    }

    private func match(
        _ form: PatternCode, _ text: Span<UInt8>, _ start: Int, _ options: UInt32, limit: UInt32, last: Int = ~0,
        paidBy payer: ScriptPurse? = nil
    ) -> Int32 {
        // Proof: the text is lent for the call, and the caller holds the machine that pays; the match data is read by
        // `ranges` only, as offsets.
        unsafe text.withUnsafeBufferPointer { buffer in
            unsafe mg_match(
                form.code, data, context, buffer.baseAddress, buffer.count, start, last, options, limit,
                payer == nil ? nil : { unsafe mg_vm_charge(OpaquePointer($0), $1) }, payer?.chargee)
        }
    }

    private func found(_ result: Int32) throws(Failure) -> Bool {
        if result >= 0 { return true }
        switch result {
        case PCRE2_ERROR_NOMATCH: return false
        case PCRE2_ERROR_MATCHLIMIT, PCRE2_ERROR_DEPTHLIMIT, PCRE2_ERROR_HEAPLIMIT, PCRE2_ERROR_JIT_STACKLIMIT,
            PCRE2_ERROR_NOMEMORY:
            throw .budget
        case PCRE2_ERROR_CALLOUT: throw .ended
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

    fileprivate static func message(_ number: Int32) -> String {
        var buffer = [UInt8](repeating: 0, count: 256)
        // Proof: the buffer is lent with its length.
        let count = unsafe buffer.withUnsafeMutableBufferPointer {
            unsafe pcre2_get_error_message_8(number, $0.baseAddress, $0.count)
        }
        return count > 0 ? String(decoding: buffer.prefix(Int(count)), as: UTF8.self) : "error \(number)"
    }
}
