// A script in its own Lua machine: one per namespace, script version and event loop.
//
// Part in the walk of a request: Middlewares calls `run` for each script that has the phase (SCRIPTING.md §2). What the
// script edits is written to the exchange under an undo log, and stays only when the phase returned without an error.

import CLua
package import Model

package enum ScriptPhase: UInt8, Sendable, Hashable, CaseIterable {
    case load = 0
    case initialise
    case rewrite
    case access
    case route
    case headerFilter
    case log

    /// As scripts write it.
    package var name: String {
        switch self {
        case .load: "load"
        case .initialise: "init"
        case .rewrite: "rewrite"
        case .access: "access"
        case .route: "route"
        case .headerFilter: "header_filter"
        case .log: "log"
        }
    }
}

/// Why a script failed. Names lines of the script only: never ours, never an address.
package struct ScriptFailure: Error, Sendable, Hashable, CustomStringConvertible {
    package enum Kind: String, Sendable, Hashable, CaseIterable {
        /// Also a syntax error.
        case runtime
        case cpu
        case memory
        case wall
        /// Refused by a function or setter of the API.
        case api
    }

    package struct Call: Sendable, Hashable {
        package var file: String
        package var line: Int
        /// Empty when unknown.
        package var function: String
    }

    package var kind: Kind
    /// With `file:line: ` in front where a line is to blame.
    package var message: String
    package var file: String
    /// 0 when no line is to blame.
    package var line: Int
    /// The text of that line, without the spaces around it.
    package var sourceLine: String?
    /// The innermost call first.
    package var calls: [Call]

    package init(
        kind: Kind, message: String, file: String = "", line: Int = 0, sourceLine: String? = nil, calls: [Call] = []
    ) {
        self.kind = kind
        self.message = message
        self.file = file
        self.line = line
        self.sourceLine = sourceLine
        self.calls = calls
    }

    package var description: String {
        var text = message
        if let sourceLine { text += "\n    \(sourceLine)" }
        for call in calls {
            text += "\n  at \(call.file):\(call.line)"
            if !call.function.isEmpty { text += " in \(call.function)" }
        }
        return text
    }
}

package enum PhaseOutcome {
    /// The phase returned nothing, or the script does not have it.
    case next
    case responded(ScriptResponse)
    /// A host function waits. `ScriptVM.resume`, `cancel` or `end` goes on.
    case suspended
    case failed(ScriptFailure)
}

/// Budgets (SCRIPTING.md §5). Zero takes the default.
package struct ScriptLimits: Sendable, Hashable {
    package var memoryBytes = 0
    package var cpuNanoseconds: UInt64 = 0
    package var loadNanoseconds: UInt64 = 0
    package var sourceBytes = 0

    package init() {}
}

/// A request as one VM sees it. Its handles die with `ScriptVM.end`.
package struct VMRequest: Sendable, Hashable {
    fileprivate let number: mg_request
}

/// What the functions of a machine pay from: its budgets, without the machine. They outlive it by what its end calls of
/// them, and a weak reference to it would cost each run of a script.
@safe
package final class ScriptPurse {
    private let vm: OpaquePointer
    /// Until the machine ends.
    private var isOpen = true

    fileprivate init(_ vm: OpaquePointer) { unsafe self.vm = vm }

    fileprivate func close() { isOpen = false }

    // Proof for all of them: the machine is there while the purse is open.

    /// Inside of a host function: counts work (about a byte or a step each) against the budget of the run. False once it
    /// is used up: the function returns at once, and the run ends.
    func charge(_ work: Int) -> Bool { isOpen ? unsafe mg_vm_charge(vm, UInt64(work)) : true }

    /// Counts memory that Swift holds for the script, or lets go of, against the machine's limit.
    func account(_ bytes: Int) { if isOpen { unsafe mg_vm_account(vm, Int64(bytes)) } }

    /// What `mg_vm_charge` takes.
    var chargee: UnsafeMutableRawPointer? { isOpen ? unsafe UnsafeMutableRawPointer(vm) : nil }

    fileprivate var facts: mg_vm_facts { isOpen ? unsafe mg_vm_look(vm) : mg_vm_facts() }
    var memoryInUse: Int { facts.memory }
    var memoryLimit: Int { facts.memory_limit }
}

/// Not for sharing: a VM belongs to the loop that made it.
@safe
package final class ScriptVM {
    private let vm: OpaquePointer
    private let link: HostLink
    /// The way of its functions to its budgets.
    package let purse: ScriptPurse
    /// What the functions work on: they hold it without counting, so it must live as long as the machine, whose end
    /// still calls them for the objects that it lets go.
    private let library: AnyObject?
    private var sources: [String: [UInt8]] = [:]
    /// Names of the host's functions, for messages.
    private let functionNames: [String]
    /// The run of the phase at hand; one that waits is moved to `waiting` and another takes its place.
    private var current = BorderRun()
    private var idleRuns: [BorderRun] = []
    private var waiting: [mg_request: BorderRun] = [:]

    /// What callbacks reach through their context pointer; the VM keeps it alive.
    final class HostLink {
        var functions: [@Sendable (inout HostCall) -> HostStatus] = []
        var releases: [UInt32: @Sendable (UInt64) -> Void] = [:]
    }

    /// Nil when memory ran out.
    package init?(
        limits: ScriptLimits = ScriptLimits(), functions: [HostFunction] = [], classes: [HostClass] = [],
        library: AnyObject? = nil
    ) {
        let link = HostLink()
        var raw = mg_limits()
        raw.memory = limits.memoryBytes
        raw.cpu_ns = limits.cpuNanoseconds
        raw.load_cpu_ns = limits.loadNanoseconds
        raw.source = limits.sourceBytes
        var host = BorderCallbacks.host
        // Proof: `link` is kept by this VM, which destroys the C side first.
        guard let vm = unsafe mg_vm_create(&raw, &host, Unmanaged.passUnretained(link).toOpaque()) else { return nil }
        unsafe self.vm = unsafe vm
        purse = unsafe ScriptPurse(vm)
        self.link = link
        self.library = library
        functionNames = functions.map(\.name)
        for hostClass in classes {
            let id = unsafe mg_vm_define_class(vm, hostClass.name, hostClass.released != nil)
            guard id != 0 else { return nil }
            link.releases[id] = hostClass.released
            for method in hostClass.methods {
                link.functions.append(method.body)
                guard
                    unsafe mg_vm_define_method(
                        vm, id, method.name, UInt32(link.functions.count - 1), Self.phases(of: method))
                else { return nil }
            }
        }
        for function in functions {
            link.functions.append(function.body)
            guard
                unsafe mg_vm_define_function(
                    vm, function.name, UInt32(link.functions.count - 1), Self.phases(of: function))
            else { return nil }
        }
    }

    deinit {
        purse.close()
        unsafe mg_vm_destroy(vm)
    }

    private static func phases(of function: HostFunction) -> UInt32 {
        function.phases.rawValue | (function.maySuspend ? MG_MAY_SUSPEND : 0)
    }

    /// The class of handles at a place of `classes` as given to `init`.
    package static func handleClass(at index: Int) -> HandleClass { HandleClass(rawValue: UInt32(index + 1)) }

    // MARK: Life

    /// Another file for `require(name)`, compiled now, run when it is required. One that does not compile fails whoever
    /// requires it; `mustCompile` throws now.
    package func addModule(
        name: String, file: String, source: [UInt8], mustCompile: Bool = false
    ) throws(ScriptFailure) {
        sources[Self.shown(file)] = source
        let good = unsafe source.withUnsafeBytes { bytes in
            unsafe mg_vm_add_module(
                vm, name, file, bytes.baseAddress?.assumingMemoryBound(to: CChar.self), bytes.count, mustCompile)
        }
        if !good { throw failure() }
    }

    /// Compiles the script (text only) without running it.
    package func compile(file: String, source: [UInt8]) throws(ScriptFailure) {
        sources[Self.shown(file)] = source
        let good = unsafe source.withUnsafeBytes { bytes in
            unsafe mg_vm_compile(vm, file, bytes.baseAddress?.assumingMemoryBound(to: CChar.self), bytes.count)
        }
        if !good { throw failure() }
    }

    /// Runs the top level, which returns the table of phases.
    package func load() throws(ScriptFailure) {
        if unsafe !mg_vm_load(vm) { throw failure() }
        phases = unsafe PhaseSet(rawValue: mg_vm_phases(vm))
    }

    /// The phases that the script has; empty before `load`.
    package private(set) var phases: PhaseSet = []

    /// A field of the script's table: `config`, `on_error`.
    package func describe(_ key: String) throws(ScriptFailure) -> LuaValue {
        guard let out = unsafe mg_vm_describe(vm, key) else { throw failure() }
        return unsafe Self.read(out)
    }

    /// The keys of the script's table, sorted; one that is no string is told as `[number]`.
    package func keys() throws(ScriptFailure) -> [String] {
        guard let out = unsafe mg_vm_describe(vm, nil) else { throw failure() }
        guard case .list(let keys) = unsafe Self.read(out) else { return [] }
        return keys.compactMap(\.text).sorted()
    }

    /// Proof: `out` belongs to the machine that has just filled it, and is copied before anything else is asked of it.
    private static func read(_ out: OpaquePointer) -> LuaValue {
        var count = 0
        let values = unsafe mg_out_values(out, &count)
        var reader = unsafe ValueReader(values, count: count)
        return reader.next()
    }

    /// Builds `ctx.config`, frozen.
    package func configure(_ config: LuaValue) throws(ScriptFailure) {
        guard let out = unsafe mg_vm_scratch(vm) else { throw failure() }
        unsafe ValueWriter(out).append(config)
        var count = 0
        let values = unsafe mg_out_values(out, &count)
        if unsafe !mg_vm_configure(vm, values, count) { throw failure() }
    }

    /// Runs `init(conf)` if there is one.
    package func initialise() throws(ScriptFailure) {
        if unsafe !mg_vm_init(vm) { throw failure() }
    }

    // MARK: Requests

    /// Opens a request: `ctx.state` and every handle live until `end`. Nil when too many are open.
    package func begin() -> VMRequest? {
        let number = unsafe mg_request_begin(vm)
        return number == 0 ? nil : VMRequest(number: number)
    }

    /// Every handle of the request becomes stale; a run that waits is closed first, and its edits undone.
    package func end(_ request: VMRequest) {
        unsafe mg_request_end(vm, request.number)
        if !waiting.isEmpty, let run = waiting.removeValue(forKey: request.number) { finish(run, keep: false) }
    }

    /// Runs a phase. `wallDeadline` is on the monotonic clock, in nanoseconds; 0 is none. With `discardsEdits` nothing
    /// stays (shadow mode).
    package func run(
        _ phase: ScriptPhase, _ request: VMRequest, on exchange: Exchange, with scene: ScriptScene,
        shared: ScriptShared? = nil, wallDeadline: UInt64 = 0, discardsEdits: Bool = false
    ) -> PhaseOutcome {
        guard phases.contains(PhaseSet(phase)) else { return .next }
        let run = current
        run.begin(exchange, scene, shared: shared, wallDeadline: wallDeadline, discardsEdits: discardsEdits)
        // Proof: `run` is held by this frame, and by `waiting` while the phase is suspended; so are the three that it
        // borrows: by the caller, then by `hold`.
        let outcome = unsafe mg_run(
            vm, request.number, mg_phase(UInt32(phase.rawValue)), Unmanaged.passUnretained(run).toOpaque(), wallDeadline
        )
        if outcome == MG_NEXT {
            run.end(keep: true)
            return .next
        }
        if outcome == MG_SUSPENDED { current = idleRuns.popLast() ?? BorderRun() }
        return conclude(outcome, request, run)
    }

    /// Gives the function that waits its results, or an error message, and goes on.
    package func resume(_ request: VMRequest, with results: [LuaValue], error: String? = nil) -> PhaseOutcome {
        guard let run = waiting.removeValue(forKey: request.number) else {
            return .failed(ScriptFailure(kind: .runtime, message: "the request does not wait"))
        }
        if let out = unsafe mg_vm_scratch(vm) {
            let writer = unsafe ValueWriter(out)
            if let error {
                writer.append(error)
            } else {
                for result in results { writer.append(result) }
            }
        }
        let outcome = unsafe mg_resume(
            vm, request.number, Unmanaged.passUnretained(run).toOpaque(), error != nil)
        return conclude(outcome, request, run)
    }

    /// Ends a run that waits: its wall budget is used up.
    package func cancel(_ request: VMRequest) -> ScriptFailure? {
        guard let run = waiting.removeValue(forKey: request.number) else { return nil }
        unsafe mg_cancel(vm, request.number, MG_ERROR_WALL)
        let failure = failure()
        finish(run, keep: false)
        return failure
    }

    private func conclude(_ outcome: mg_outcome, _ request: VMRequest, _ run: BorderRun) -> PhaseOutcome {
        switch outcome {
        case MG_NEXT:
            finish(run, keep: true)
            return .next
        case MG_RESPONDED:
            let response = run.takeResponse()
            finish(run, keep: true)
            return .responded(response)
        case MG_SUSPENDED:
            run.hold()
            waiting[request.number] = run
            return .suspended
        default:
            let failure = failure()
            finish(run, keep: false)
            return .failed(failure)
        }
    }

    private func finish(_ run: BorderRun, keep: Bool) {
        run.end(keep: keep)
        if run !== current { idleRuns.append(run) }
    }

    // MARK: Seeing

    private var facts: mg_vm_facts { purse.facts }
    package var memoryInUse: Int { facts.memory }
    package var memoryLimit: Int { facts.memory_limit }
    /// Between runs.
    package func collectGarbage() { unsafe mg_vm_collect(vm) }
    /// How long the thread of the last run was not running, where the run was long enough to ask: wall time less this is
    /// CPU time.
    package var offCPUNanoseconds: UInt64 { facts.off_cpu }
    /// How often the CPU clock was read: a system call each.
    package var cpuClockReads: UInt64 { facts.cpu_reads }

    /// What a name under `moongate` (`log.inof`) may have meant; nil where there is such a name.
    package func unknownFunction(_ path: String) -> UnknownFunction? {
        NilHint.stranger(path, functions: functionNames)
    }

    /// The release of Lua in use, for the log.
    package static var luaRelease: String { unsafe String(cString: mg_lua_release()) }

    /// CPU time of this thread, for the histogram of scripts.
    package static var threadCPUNanoseconds: UInt64 { mg_thread_cpu_ns() }

    /// Tests: the nth allocation from now that asks for more fails, and every later one; 0 switches it off.
    package func failAllocation(_ nth: UInt64) { unsafe mg_vm_fail_allocation(vm, nth) }
    package var allocations: UInt64 { facts.allocations }
    /// Tests: the library's own string and table functions as `stock`. Before `compile`.
    package func defineStock() -> Bool { unsafe mg_vm_define_stock(vm) }

    // MARK: Failures

    /// How Lua shortens a file name in its messages (its limit is 60 bytes).
    private static func shown(_ file: String) -> String {
        file.utf8.count < 60 ? file : "..." + String(decoding: Array(file.utf8).suffix(56), as: UTF8.self)
    }

    private func failure() -> ScriptFailure {
        // Proof: the error lives in the VM until the next call, and is copied here.
        guard let pointer = unsafe mg_vm_error(vm) else { return ScriptFailure(kind: .runtime, message: "unknown") }
        let error = unsafe pointer.pointee
        let kind: ScriptFailure.Kind =
            switch error.kind {
            case MG_ERROR_CPU: .cpu
            case MG_ERROR_MEMORY: .memory
            case MG_ERROR_WALL: .wall
            case MG_ERROR_API: .api
            default: .runtime
            }
        let file = Self.text(of: error.file)
        let calls = Self.frames(of: error)
        let line = sourceLine(file, Int(error.line))
        var message = Self.text(of: error.message)
        if kind == .runtime, let hint = NilHint.of(message, line: line, functions: functionNames) {
            message += "; \(hint)"
        }
        return ScriptFailure(
            kind: kind, message: message, file: file, line: Int(error.line), sourceLine: line, calls: calls)
    }

    private static func text<T>(of tuple: T) -> String {
        unsafe withUnsafeBytes(of: tuple) { bytes in
            unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
    }

    private static func frames(of error: mg_error) -> [ScriptFailure.Call] {
        unsafe withUnsafeBytes(of: error.frames) { bytes in
            let frames = unsafe bytes.bindMemory(to: mg_frame.self)
            return unsafe frames.prefix(Int(error.frame_count)).map { frame in
                ScriptFailure.Call(
                    file: text(of: frame.file), line: Int(frame.line), function: text(of: frame.function))
            }
        }
    }

    private func sourceLine(_ file: String, _ line: Int) -> String? {
        guard line > 0, let source = sources[file] else { return nil }
        var start = 0
        var number = 1
        while number < line {
            guard let end = source[start...].firstIndex(of: 0x0a) else { return nil }
            start = end + 1
            number += 1
        }
        let end = source[start...].firstIndex(of: 0x0a) ?? source.endIndex
        var text = source[start..<end].prefix(200)
        while let first = text.first, first == 0x20 || first == 0x09 { text.removeFirst() }
        while let last = text.last, last == 0x20 || last == 0x09 || last == 0x0d { text.removeLast() }
        return String(decoding: text, as: UTF8.self)
    }
}
