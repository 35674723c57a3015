// Values as they cross the border between Lua and Swift, and the call of a module function.

import CLua

/// A Lua value, copied. Strings are bytes.
package enum LuaValue: Sendable, Hashable {
    case `nil`
    /// `moongate.json.null`.
    case null
    case bool(Bool)
    case integer(Int64)
    case number(Double)
    case bytes([UInt8])
    case list([LuaValue])
    /// Sorted by key when it comes from Lua. An empty table is an empty map.
    case map([Entry])
    /// An object of the host, by its class and the host's identifier.
    case handle(HandleClass, UInt64)
    /// Only from Lua: something that means nothing outside (a function, a coroutine, a request object).
    case opaque

    package struct Entry: Sendable, Hashable {
        package var key: LuaValue
        package var value: LuaValue

        package init(_ key: LuaValue, _ value: LuaValue) {
            self.key = key
            self.value = value
        }
    }

    package static func string(_ text: String) -> LuaValue { .bytes(Array(text.utf8)) }

    package static func map(_ entries: [(String, LuaValue)]) -> LuaValue {
        .map(entries.map { Entry(.string($0.0), $0.1) })
    }

    /// The text of `.bytes`; other kinds have none.
    package var text: String? {
        guard case .bytes(let bytes) = self else { return nil }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The value as a number, if it is one.
    package var double: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .number(let value): value
        default: nil
        }
    }

    /// The value under a string key of a map.
    package subscript(key: String) -> LuaValue? {
        guard case .map(let entries) = self else { return nil }
        return entries.first { $0.key.text == key }?.value
    }
}

/// A class of host objects that Lua can hold; numbers are given by the VM's definition order, from 1.
package struct HandleClass: Sendable, Hashable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }
}

// ------------------------------------------------------------------------------------------------------- reading trees

/// A borrowed run of flat trees (see `mg_value`). Never outlives the call that lends it.
@safe
struct ValueReader {
    private let values: UnsafePointer<mg_value>?
    let count: Int
    private(set) var at = 0

    init(_ values: UnsafePointer<mg_value>?, count: Int) {
        unsafe self.values = unsafe values
        self.count = unsafe values == nil ? 0 : count
    }

    /// Proof: `values` points at `count` values while the callback runs, and a reader lives inside of one.
    private func raw(_ index: Int) -> mg_value? {
        guard let values = unsafe values, index < count else { return nil }
        return unsafe values[index]
    }

    /// Where the tree after the one at `index` begins.
    func end(of index: Int) -> Int {
        guard let value = unsafe raw(index) else { return count }
        var pending = 0
        switch unsafe value.tag {
        case MG_LIST.rawValue: pending = unsafe Int(value.length)
        case MG_MAP.rawValue: pending = unsafe 2 * Int(value.length)
        default: return index + 1
        }
        var next = index + 1
        while pending > 0, next < count {
            next = end(of: next)
            pending -= 1
        }
        return next
    }

    mutating func next() -> LuaValue {
        guard let value = unsafe raw(at) else { return .nil }
        at += 1
        switch unsafe value.tag {
        case MG_NULL.rawValue: return .null
        case MG_BOOL.rawValue: return unsafe .bool(value.as.integer != 0)
        case MG_INT.rawValue: return unsafe .integer(value.as.integer)
        case MG_NUM.rawValue: return unsafe .number(value.as.number)
        case MG_BYTES.rawValue: return unsafe .bytes(Self.copy(value))
        case MG_HANDLE.rawValue: return unsafe .handle(HandleClass(rawValue: value.length), value.as.handle)
        case MG_LIST.rawValue:
            var items: [LuaValue] = []
            for _ in 0..<(unsafe value.length) where at < count { items.append(next()) }
            return .list(items)
        case MG_MAP.rawValue:
            var entries: [LuaValue.Entry] = []
            for _ in 0..<(unsafe value.length) where at < count {
                let key = next()
                entries.append(LuaValue.Entry(key, next()))
            }
            return .map(entries)
        case MG_NIL.rawValue: return .nil
        default: return .opaque
        }
    }

    func value(at index: Int) -> LuaValue {
        var copy = self
        copy.at = index
        return copy.next()
    }

    /// The same, with nothing in the tables inside of it: what is taken for a string, a number or a boolean is not worth
    /// a copy of a tree.
    func shallow(at index: Int) -> LuaValue {
        if map(at: index) != nil { return .map([] as [LuaValue.Entry]) }
        return end(of: index) > index + 1 ? .list([]) : value(at: index)
    }

    /// The pairs of a map, at most `limit` of them, their values shallow; nil for other kinds.
    func entries(at index: Int, limit: Int) -> [LuaValue.Entry]? {
        guard let pairs = self.map(at: index) else { return nil }
        var entries: [LuaValue.Entry] = []
        var at = pairs.first
        for _ in 0..<min(pairs.count, limit) {
            entries.append(LuaValue.Entry(shallow(at: at), shallow(at: at + 1)))
            at = end(of: at + 1)
        }
        return entries
    }

    func bytes(at index: Int) -> [UInt8]? {
        guard let value = unsafe raw(index), unsafe value.tag == MG_BYTES.rawValue else { return nil }
        return unsafe Self.copy(value)
    }

    func withBytes<R>(at index: Int, _ body: (Span<UInt8>) -> R) -> R? {
        guard let value = unsafe raw(index), unsafe value.tag == MG_BYTES.rawValue,
            let start = unsafe value.as.bytes
        else { return nil }
        let buffer = unsafe UnsafeBufferPointer(
            start: UnsafeRawPointer(start).assumingMemoryBound(to: UInt8.self), count: Int(value.length))
        return unsafe body(buffer.span)
    }

    func integer(at index: Int) -> Int64? {
        guard let value = unsafe raw(index) else { return nil }
        switch unsafe value.tag {
        case MG_INT.rawValue: return unsafe value.as.integer
        case MG_NUM.rawValue: return unsafe Int64(exactly: value.as.number)
        default: return nil
        }
    }

    func number(at index: Int) -> Double? {
        guard let value = unsafe raw(index) else { return nil }
        switch unsafe value.tag {
        case MG_INT.rawValue: return unsafe Double(value.as.integer)
        case MG_NUM.rawValue: return unsafe value.as.number
        default: return nil
        }
    }

    func bool(at index: Int) -> Bool? {
        guard let value = unsafe raw(index), unsafe value.tag == MG_BOOL.rawValue else { return nil }
        return unsafe value.as.integer != 0
    }

    func handle(at index: Int) -> (HandleClass, UInt64)? {
        guard let value = unsafe raw(index), unsafe value.tag == MG_HANDLE.rawValue else { return nil }
        return unsafe (HandleClass(rawValue: value.length), value.as.handle)
    }

    func map(at index: Int) -> (count: Int, first: Int)? {
        guard let value = unsafe raw(index), unsafe value.tag == MG_MAP.rawValue else { return nil }
        return unsafe (Int(value.length), index + 1)
    }

    func isNil(at index: Int) -> Bool {
        guard let value = unsafe raw(index) else { return true }
        return unsafe value.tag == MG_NIL.rawValue
    }

    /// Proof: the bytes of a value live as long as the value (see `mg_host`).
    private static func copy(_ value: mg_value) -> [UInt8] {
        guard let start = unsafe value.as.bytes, unsafe value.length > 0 else { return [] }
        return unsafe Array(UnsafeRawBufferPointer(start: UnsafeRawPointer(start), count: Int(value.length)))
    }
}

// ------------------------------------------------------------------------------------------------------- writing trees

/// Appends values to the results of a call. Bytes are copied at once.
@safe
struct ValueWriter {
    private let out: OpaquePointer

    /// Proof: C lends `out` for the duration of the callback, in which the writer lives.
    init(_ out: OpaquePointer) { unsafe self.out = unsafe out }

    /// See `mg_out_work`.
    func charge(_ work: Int) { unsafe mg_out_work(out, UInt64(truncatingIfNeeded: work)) }

    func appendNil() { unsafe mg_out_nil(out) }
    func appendMap(_ pairs: Int) { unsafe mg_out_map(out, UInt32(truncatingIfNeeded: pairs)) }
    func append(_ value: Bool) { unsafe mg_out_bool(out, value) }
    func append(_ value: Int64) { unsafe mg_out_int(out, value) }
    func append(_ value: Double) { unsafe mg_out_num(out, value) }

    func append(_ bytes: Span<UInt8>) {
        unsafe bytes.withUnsafeBufferPointer { unsafe mg_out_bytes(out, $0.baseAddress, $0.count) }
    }

    func append(_ text: String) {
        var text = text
        text.withUTF8 { unsafe mg_out_bytes(out, $0.baseAddress, $0.count) }
    }

    func append(_ text: StaticString) {
        unsafe mg_out_bytes(out, text.utf8Start, text.utf8CodeUnitCount)
    }

    func append(_ value: LuaValue) {
        switch value {
        case .nil, .opaque: appendNil()
        case .null: unsafe mg_out_null(out)
        case .bool(let value): append(value)
        case .integer(let value): append(value)
        case .number(let value): append(value)
        case .bytes(let bytes): append(bytes.span)
        case .handle(let type, let id): unsafe mg_out_handle(out, type.rawValue, id)
        case .list(let items):
            unsafe mg_out_list(out, UInt32(items.count))
            for item in items { append(item) }
        case .map(let entries):
            unsafe mg_out_map(out, UInt32(entries.count))
            for entry in entries {
                append(entry.key)
                append(entry.value)
            }
        }
    }
}

// ------------------------------------------------------------------------------------------------------ host functions

/// Phases as a set.
package struct PhaseSet: OptionSet, Sendable, Hashable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    package init(_ phase: ScriptPhase) { rawValue = 1 << UInt32(phase.rawValue) }
    package static let load = PhaseSet(.load)
    package static let `init` = PhaseSet(.initialise)
    package static let rewrite = PhaseSet(.rewrite)
    package static let access = PhaseSet(.access)
    package static let route = PhaseSet(.route)
    package static let headerFilter = PhaseSet(.headerFilter)
    package static let log = PhaseSet(.log)
    /// rewrite, access, route.
    package static let request: PhaseSet = [.rewrite, .access, .route]
    /// Every phase of a request.
    package static let running: PhaseSet = [.request, .headerFilter, .log]
    /// Also the top level of the script and `init`.
    package static let all: PhaseSet = [.running, .load, .`init`]

    /// As scripts write them.
    package var names: String {
        ScriptPhase.allCases.filter { contains(PhaseSet($0)) }.map(\.name).joined(separator: ", ")
    }
}

/// What a host function says when it returns.
package enum HostStatus {
    /// The results were appended.
    case done
    /// Refused: an error of class `api` at the script's line.
    case failed(String)
    /// The results come later, by `ScriptVM.resume`. Only for functions with `maySuspend`.
    case suspended
    /// There is no room for another object, and nothing was appended: garbage is collected and the function called once
    /// more. If it says so again, the script gets nil and `{code = "budget", message}`.
    case crowded(String)
}

/// A module function (`hash.sha256` is `moongate.hash.sha256`), or a method of a handle, implemented in Swift.
package struct HostFunction: Sendable {
    package var name: String
    package var phases: PhaseSet
    package var maySuspend: Bool
    package var body: @Sendable (inout HostCall) -> HostStatus

    package init(
        _ name: String, phases: PhaseSet = .all, maySuspend: Bool = false,
        body: @escaping @Sendable (inout HostCall) -> HostStatus
    ) {
        self.name = name
        self.phases = phases
        self.maySuspend = maySuspend
        self.body = body
    }
}

/// A class of objects that Lua holds by a handle, with its methods; argument 0 of a method is the handle itself.
package struct HostClass: Sendable {
    package var name: String
    /// A method named `__tostring` gives the text of `tostring(object)`.
    package var methods: [HostFunction]
    /// Called when Lua has let go of a handle; nil for handles that live as long as the VM, which are cheaper.
    package var released: (@Sendable (UInt64) -> Void)?

    package init(name: String, methods: [HostFunction], released: (@Sendable (UInt64) -> Void)? = nil) {
        self.name = name
        self.methods = methods
        self.released = released
    }
}

/// One call of a host function: its arguments, and where its results go. Arguments are numbered from 0; a missing one
/// reads as nil.
package struct HostCall: ~Copyable {
    private let reader: ValueReader
    private let writer: ValueWriter
    /// Where argument 0, 1, 2, 3 begins; later ones are found by walking.
    private var starts: (Int, Int, Int, Int) = (0, 0, 0, 0)
    package let count: Int
    /// The request that is running; nil at the top level and in `init`.
    package let run: BorderRun?

    init(reader: ValueReader, writer: ValueWriter, count: Int, run: BorderRun?) {
        self.reader = reader
        self.writer = writer
        self.count = count
        self.run = run
        if count > 1 { starts.1 = reader.end(of: 0) }
        if count > 2 { starts.2 = reader.end(of: starts.1) }
        if count > 3 { starts.3 = reader.end(of: starts.2) }
    }

    private func start(_ index: Int) -> Int {
        guard index >= 0, index < count else { return Int.max }
        switch index {
        case 0: return 0
        case 1: return starts.1
        case 2: return starts.2
        case 3: return starts.3
        default:
            var at = starts.3
            for _ in 3..<index { at = reader.end(of: at) }
            return at
        }
    }

    /// A copy of an argument.
    package func value(_ index: Int) -> LuaValue { reader.value(at: start(index)) }
    package func isNil(_ index: Int) -> Bool { reader.isNil(at: start(index)) }
    /// The bytes of a string argument; nil for other kinds.
    package func bytes(_ index: Int) -> [UInt8]? { reader.bytes(at: start(index)) }
    /// The same without a copy.
    package func withBytes<R>(_ index: Int, _ body: (Span<UInt8>) -> R) -> R? {
        reader.withBytes(at: start(index), body)
    }
    package func string(_ index: Int) -> String? { value(index).text }
    /// An integer, or a number without a fraction.
    package func integer(_ index: Int) -> Int64? { reader.integer(at: start(index)) }
    package func number(_ index: Int) -> Double? { reader.number(at: start(index)) }
    package func bool(_ index: Int) -> Bool? { reader.bool(at: start(index)) }
    package func handle(_ index: Int) -> (type: HandleClass, id: UInt64)? {
        guard let found = reader.handle(at: start(index)) else { return nil }
        return (found.0, found.1)
    }

    // The same of a table's content, without a copy. A position is a value's place in the flat tree.

    /// How many pairs a map has, and the position of the first key; nil for other kinds. A value stands right behind
    /// its key, and the next key at `position(after:)` of that value.
    package func map(_ index: Int) -> (count: Int, first: Int)? { reader.map(at: start(index)) }
    package func map(at position: Int) -> (count: Int, first: Int)? { reader.map(at: position) }
    package func position(after position: Int) -> Int { reader.end(of: position) }
    /// Up to `limit` pairs of a map; nil for other kinds. Tables among the values come empty.
    package func entries(_ index: Int, limit: Int) -> [LuaValue.Entry]? {
        reader.entries(at: start(index), limit: limit)
    }
    package func value(at position: Int) -> LuaValue { reader.value(at: position) }
    /// Tables come empty.
    package func shallow(at position: Int) -> LuaValue { reader.shallow(at: position) }
    package func number(at position: Int) -> Double? { reader.number(at: position) }
    package func withBytes<R>(at position: Int, _ body: (Span<UInt8>) -> R) -> R? {
        reader.withBytes(at: position, body)
    }

    // Results, in order.
    /// A map of that many pairs: push each key, then its value.
    package mutating func pushMap(_ pairs: Int) { writer.appendMap(pairs) }
    package mutating func push(key: StaticString) { writer.append(key) }
    package mutating func push(_ value: LuaValue) { writer.append(value) }
    package mutating func push(_ bytes: Span<UInt8>) { writer.append(bytes) }
    package mutating func push(_ text: String) { writer.append(text) }
    package mutating func push(_ value: Bool) { writer.append(value) }
    package mutating func push(_ value: Int64) { writer.append(value) }
    package mutating func push(_ value: Double) { writer.append(value) }
    package mutating func pushNil() { writer.appendNil() }

    /// The results `nil, {code = …, message = …}`: a failure that the script is meant to handle.
    package mutating func pushFailure(code: String, message: String? = nil) {
        writer.appendNil()
        var entries = [("code", LuaValue.string(code))]
        if let message { entries.append(("message", .string(message))) }
        writer.append(.map(entries))
    }
}
