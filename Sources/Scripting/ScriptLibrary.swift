// The modules of Swift under `moongate`, for one VM. Every function returns its results or `nil, {code, message}`; a
// mistake of the script (a wrong type) is an error at its line.

import Model

/// What the functions of one VM work on.
///
/// `@unchecked Sendable`: its VM belongs to one loop at a time, and nothing else calls it.
package final class ScriptLibrary: @unchecked Sendable {
    private let tenant: ScriptMetrics.Tenant
    package let version: String
    /// Of the machine that these functions belong to, which pays for what they do. Set before any of them is called.
    var purse: ScriptPurse?
    package private(set) var config = ScriptConfig()
    package let log: ScriptLog
    package let metrics: ScriptMetrics
    package let clock: ScriptClock
    package var random: RandomSource

    private var split = Split()
    private var scratch: [UInt8] = []
    private var splitName: [UInt8] = []
    private var splitUnit: [UInt8] = []
    private var splitLayer: [UInt8] = []
    private var logBucket = TokenBucket(burst: 100, perSecond: 20)
    private var suppressed = 0
    private var patterns: [UInt64: HeldPattern] = [:]
    /// Patterns that the script has compiled, by their text: the same text is the same object.
    private var patternPlaces: [[UInt8]: UInt64] = [:]
    /// Those that no object of the script stands for any more, the oldest first; kept, for it will ask again.
    private var idlePatterns: [UInt64] = []
    private var blocks: [UInt64: [AddressBlock]] = [:]
    private var blockBytes = 0
    /// Objects that the script makes are numbered from here on, beyond those of its config.
    private var nextHandle: UInt64 = firstHandle
    private static let firstHandle: UInt64 = 1 << 32
    private var cells: [ScriptMetricCell] = []
    private var cellPlaces: [ObjectIdentifier: UInt64] = [:]
    private var cellHandles: [CellKey: UInt64] = [:]

    private struct HeldPattern {
        var pattern: Pattern
        /// Objects of the script that stand for it.
        var uses = 1
    }

    private struct CellKey: Hashable {
        var kind: ScriptMetrics.Kind
        var name: String
        var labels: [ScriptMetrics.Label]
    }

    /// Places in `classes`.
    private enum ClassPlace {
        static let backend = 0
        static let pattern = 1
        static let blocks = 2
        static let counter = 3
        static let gauge = 4
        static let histogram = 5
    }

    static let maxObjects = 1024
    static let maxIdlePatterns = 64
    /// Patterns, or lists of blocks, may take so much of the machine's memory: one in four.
    private static let share = 4
    static let maxCells = 8192
    /// What is longer is no URL.
    private static let maxURL = 65536
    /// No address and no date is as long: of a text that is longer, so much is enough to refuse it.
    private static let maxWord = 256

    package init(
        tenant: ScriptMetrics.Tenant, version: String, log: ScriptLog, metrics: ScriptMetrics,
        clock: ScriptClock = .system, random: RandomSource = RandomSource()
    ) {
        self.tenant = tenant
        self.version = version
        self.log = log
        self.metrics = metrics
        self.clock = clock
        self.random = random
    }

    /// Before anything of the script runs but its top level: the numbers from 0 on stand for the objects of the config.
    package func configure(_ config: ScriptConfig) throws(ScriptFailure) {
        self.config = config
        for (i, text) in config.patterns.enumerated() {
            // The schema has compiled it before.
            guard let pattern = try? Pattern(Array(text.utf8)) else { continue }
            patterns[UInt64(i)] = HeldPattern(pattern: pattern)
            purse?.account(pattern.bytes)
        }
        for (i, list) in config.blocks.enumerated() {
            blocks[UInt64(i)] = list
            blockBytes += Self.bytes(list)
            purse?.account(Self.bytes(list))
        }
        guard let purse, max(patternBytes, blockBytes) > purse.memoryLimit / Self.share else { return }
        throw ScriptFailure(
            kind: .memory,
            message: "the patterns and blocks of the arguments take \(max(patternBytes, blockBytes) >> 10) KiB; "
                + "a quarter of the memory of the script, \((purse.memoryLimit / Self.share) >> 10) KiB, is the most")
    }

    private var patternBytes: Int { patterns.values.reduce(0) { $0 + $1.pattern.bytes } }
    private static func bytes(_ list: [AddressBlock]) -> Int { 64 + MemoryLayout<AddressBlock>.stride * list.count }

    package static var backendClass: HandleClass { ScriptVM.handleClass(at: ClassPlace.backend) }

    /// `ctx.config` with its objects.
    package var configTree: LuaValue { Self.tree(config.root, config) }

    private static func tree(_ value: ScriptConfig.Value, _ config: ScriptConfig) -> LuaValue {
        switch value {
        case .boolean(let flag): .bool(flag)
        case .integer(let number): .integer(number)
        case .number(let number): .number(number)
        case .string(let text): .string(text)
        case .pattern(let place): .handle(ScriptVM.handleClass(at: ClassPlace.pattern), UInt64(place))
        case .blocks(let place): .handle(ScriptVM.handleClass(at: ClassPlace.blocks), UInt64(place))
        case .backend(let place): .handle(backendClass, UInt64(place))
        case .list(let items): .list(items.map { tree($0, config) })
        case .map(let entries): .map(entries.map { LuaValue.Entry(.string($0.key), tree($0.value, config)) })
        }
    }

    // MARK: Classes

    package var classes: [HostClass] {
        let counts = PhaseSet.all
        return [
            HostClass(
                name: "backend",
                methods: [
                    HostFunction("__tostring") { [unowned self] call in
                        guard let place = call.handle(0).flatMap({ Int(exactly: $0.id) }),
                            config.backends.indices.contains(place)
                        else { return .failed("this is no backend") }
                        call.push(config.backends[place].text)
                        return .done
                    }
                ]),
            HostClass(
                name: "regex",
                methods: [
                    HostFunction("test") { [unowned self] in patternTest(&$0) },
                    HostFunction("match") { [unowned self] in patternMatch(&$0) },
                    HostFunction("gsub") { [unowned self] in patternReplace(&$0) },
                    HostFunction("__tostring") { [unowned self] call in
                        guard let pattern = pattern(call) else {
                            return .failed("this is no regex")
                        }
                        let text = pattern.pattern
                        call.push(text.span)
                        return .done
                    },
                ],
                released: { [unowned self] id in
                    releasePattern(id)
                }),
            HostClass(
                name: "cidr",
                methods: [
                    HostFunction("contains") { [unowned self] in blocksContain(&$0) },
                    HostFunction("__tostring") { [unowned self] call in
                        guard let list = call.handle(0).flatMap({ blocks[$0.id] }) else {
                            return .failed("this is no cidr")
                        }
                        call.push(list.map(\.description).joined(separator: ","))
                        return .done
                    },
                ],
                released: { [unowned self] id in
                    guard id >= Self.firstHandle, let list = blocks.removeValue(forKey: id) else { return }
                    blockBytes -= Self.bytes(list)
                    purse?.account(-Self.bytes(list))
                }),
            HostClass(
                name: "counter",
                methods: [
                    HostFunction("inc", phases: counts) { [unowned self] call in
                        let by = call.isNil(1) ? 1 : call.number(1)
                        guard let by, by >= 0, by.isFinite else {
                            return .failed("a counter grows by a number that is not negative")
                        }
                        return cell(&call) { $0.add(by) }
                    }
                ]),
            HostClass(
                name: "gauge",
                methods: [
                    HostFunction("set", phases: counts) { [unowned self] call in
                        guard let value = call.number(1), value.isFinite else {
                            return .failed("a gauge is set to a number")
                        }
                        return cell(&call) { $0.set(value) }
                    },
                    HostFunction("inc", phases: counts) { [unowned self] call in
                        let by = call.isNil(1) ? 1 : call.number(1)
                        guard let by, by.isFinite else { return .failed("a gauge changes by a number") }
                        return cell(&call) { $0.add(by) }
                    },
                    HostFunction("dec", phases: counts) { [unowned self] call in
                        let by = call.isNil(1) ? 1 : call.number(1)
                        guard let by, by.isFinite else { return .failed("a gauge changes by a number") }
                        return cell(&call) { $0.add(-by) }
                    },
                ]),
            HostClass(
                name: "histogram",
                methods: [
                    HostFunction("observe", phases: counts) { [unowned self] call in
                        guard let value = call.number(1), value.isFinite else {
                            return .failed("a histogram observes a number")
                        }
                        return cell(&call) { $0.observe(value) }
                    }
                ]),
        ]
    }

    // MARK: Functions

    package var functions: [HostFunction] {
        var list: [HostFunction] = []
        for digest in Digest.allCases {
            list.append(
                HostFunction("hash.\(digest.rawValue)") { call in
                    guard let hash = call.withBytes(0, digest.hash) else {
                        return .failed("hash.\(digest.rawValue) takes a string")
                    }
                    guard let hash else { return Self.unavailable(digest, &call) }
                    call.push(hash.span)
                    return .done
                })
            list.append(
                HostFunction("hash.\(digest.rawValue)_hex") { call in
                    guard let hash = call.withBytes(0, digest.hash) else {
                        return .failed("hash.\(digest.rawValue)_hex takes a string")
                    }
                    guard let hash else { return Self.unavailable(digest, &call) }
                    let hex = Hex.encode(hash.span)
                    call.push(hex.span)
                    return .done
                })
        }
        list += [
            // An integer: Lua's own 64 bits, so that `% n` works on it.
            HostFunction("hash.xxh64") { call in
                guard let hash = call.withBytes(0, { XXH64.hash($0) }) else {
                    return .failed("hash.xxh64 takes a string")
                }
                call.push(Int64(bitPattern: hash))
                return .done
            },
            HostFunction("hash.xxh64_hex") { call in
                guard let hash = call.withBytes(0, { XXH64.hash($0) }) else {
                    return .failed("hash.xxh64_hex takes a string")
                }
                var bytes: [UInt8] = []
                for i in 0..<8 { bytes.append(UInt8(truncatingIfNeeded: hash >> UInt64(56 - 8 * i))) }
                let hex = Hex.encode(bytes.span)
                call.push(hex.span)
                return .done
            },
            Self.encoder("base64.encode") { Base64.encode($0) },
            Self.decoder("base64.decode") { Base64.decode($0) },
            Self.encoder("base64url.encode") { Base64.encode($0, urlSafe: true) },
            Self.decoder("base64url.decode") { Base64.decode($0, urlSafe: true) },
            Self.encoder("hex.encode") { Hex.encode($0) },
            Self.decoder("hex.decode") { Hex.decode($0) },
            Self.encoder("url.encode") { PercentEncoding.encode($0) },
            Self.encoder("url.escape") { PercentEncoding.encode($0) },
            Self.decoder("url.decode") { PercentEncoding.decode($0) },
            HostFunction("url.parse") { call in
                guard let text = call.withBytes(0, { Self.text($0, Self.maxURL + 1) }) else {
                    return .failed("url.parse takes a string")
                }
                guard text.utf8.count <= Self.maxURL, let url = URLParts(text) else {
                    call.pushFailure(code: "invalid", message: "this is no URL")
                    return .done
                }
                var entries: [(String, LuaValue)] = [("path", .string(url.path))]
                if let scheme = url.scheme { entries.append(("scheme", .string(scheme))) }
                if let host = url.host { entries.append(("host", .string(host))) }
                if let port = url.port { entries.append(("port", .integer(Int64(port)))) }
                if let query = url.query { entries.append(("query", .string(query))) }
                if let fragment = url.fragment { entries.append(("fragment", .string(fragment))) }
                call.push(.map(entries))
                return .done
            },
            HostFunction("uuid.v4") { [unowned self] call in
                let text = UUIDText.v4(&random)
                call.push(text.span)
                return .done
            },
            HostFunction("uuid.v7") { [unowned self] call in
                let text = UUIDText.v7(&random, milliseconds: UInt64(clamping: clock.wall()))
                call.push(text.span)
                return .done
            },
            HostFunction("random.int") { [unowned self] call in
                guard let low = call.integer(0), let high = call.integer(1), low <= high else {
                    return .failed("random.int takes two integers, the first not above the second")
                }
                call.push(Int64.random(in: low...high, using: &random))
                return .done
            },
            HostFunction("random.bytes") { [unowned self] call in
                guard let count = call.integer(0), (0...4096).contains(count) else {
                    return .failed("random.bytes takes a count from 0 to 4096")
                }
                let bytes = random.bytes(Int(count))
                call.push(bytes.span)
                return .done
            },
            HostFunction("time.now") { [unowned self] call in
                call.push(Double(clock.wall()) / 1000)
                return .done
            },
            HostFunction("time.monotonic") { [unowned self] call in
                call.push(Double(clock.monotonic() / 1_000_000) / 1000)
                return .done
            },
            HostFunction("time.format") { call in
                guard let seconds = call.number(0), abs(seconds) < 1e12 else {
                    return .failed("time.format takes seconds since 1970")
                }
                let time = Int64((seconds * 1000).rounded())
                let layout = call.string(1) ?? "rfc3339"
                guard call.isNil(1) || call.string(1) != nil else {
                    return .failed("the layout of time.format is a string")
                }
                let text: String?
                switch layout {
                case "rfc3339": text = DateText.rfc3339(time)
                case "http":
                    var bytes: [UInt8] = []
                    HTTPDate.append(Int64(seconds.rounded(.down)), to: &bytes)
                    text = String(decoding: bytes, as: UTF8.self)
                default: text = DateText.format(time, layout: layout)
                }
                guard let text else {
                    return .failed(
                        "time.format takes \"rfc3339\", \"http\" or a layout of %Y %m %d %H %M %S %L %j %F %T %s, for years 0 to 9999"
                    )
                }
                call.push(text)
                return .done
            },
            HostFunction("time.parse") { call in
                guard let text = call.withBytes(0, { Self.text($0, Self.maxWord) }) else {
                    return .failed("time.parse takes a string")
                }
                guard let time = DateText.parse(text) else {
                    call.pushFailure(code: "invalid", message: "this is no date of RFC 3339")
                    return .done
                }
                if time % 1000 == 0 { call.push(time / 1000) } else { call.push(Double(time) / 1000) }
                return .done
            },
            HostFunction("time.parse_http") { [unowned self] call in
                let now = clock.wall() / 1000
                guard let time = call.withBytes(0, { HTTPDate.parse($0, now: now) }) else {
                    return .failed("time.parse_http takes a string")
                }
                guard let time else {
                    call.pushFailure(code: "invalid", message: "this is no date of HTTP")
                    return .done
                }
                call.push(time)
                return .done
            },
            HostFunction("ip.parse") { call in
                guard let text = call.withBytes(0, { Self.text($0, Self.maxWord) }) else {
                    return .failed("ip.parse takes a string")
                }
                guard let ip = IPAddress(text) else {
                    call.pushFailure(code: "invalid", message: "this is no address")
                    return .done
                }
                call.push(.map([("text", .string(ip.description)), ("version", .integer(ip.isV4 ? 4 : 6))]))
                return .done
            },
            HostFunction("ip.cidr") { [unowned self] in makeBlocks(&$0) },
            HostFunction("regex.compile") { [unowned self] in makePattern(&$0) },
            HostFunction("split") { [unowned self] in split(&$0) },
        ]
        for level in ScriptLogLine.Level.allCases {
            list.append(HostFunction("log.\(level.rawValue)") { [unowned self] in write(level, &$0) })
        }
        for (kind, place) in [
            (ScriptMetrics.Kind.counter, ClassPlace.counter), (.gauge, ClassPlace.gauge),
            (.histogram, ClassPlace.histogram),
        ] {
            list.append(
                HostFunction("metrics.\(kind.rawValue)") { [unowned self] in metric(kind, place, &$0) })
        }
        for name in Self.later {
            list.append(
                HostFunction(name) { _ in .failed("moongate.\(name) is not available in this version of Moongate") })
        }
        return list
    }

    /// What SCRIPTING.md names and this version does not do: a call is an error that says so, and `check` finds it.
    package static let later = [
        "exposure", "kv", "http.fetch", "all", "sleep", "secret", "jwt.verify", "jwt.decode_unverified", "hmac.sha256",
        "hmac.sha512", "hmac.verify",
    ]

    private static func unavailable(_ digest: Digest, _ call: inout HostCall) -> HostStatus {
        call.pushFailure(
            code: "unavailable", message: "the cryptographic policy of this machine forbids \(digest.rawValue)")
        return .done
    }

    private static func encoder(_ name: String, _ encode: @escaping @Sendable (Span<UInt8>) -> [UInt8]) -> HostFunction
    {
        HostFunction(name) { call in
            guard let text = call.withBytes(0, encode) else { return .failed("\(name) takes a string") }
            call.push(text.span)
            return .done
        }
    }

    private static func decoder(_ name: String, _ decode: @escaping @Sendable (Span<UInt8>) -> [UInt8]?) -> HostFunction
    {
        HostFunction(name) { call in
            guard let result = call.withBytes(0, decode) else { return .failed("\(name) takes a string") }
            guard let bytes = result else {
                call.pushFailure(code: "invalid", message: "malformed input")
                return .done
            }
            call.push(bytes.span)
            return .done
        }
    }

    // MARK: regex

    private func makePattern(_ call: inout HostCall) -> HostStatus {
        guard let text = call.bytes(0) else { return .failed("regex.compile takes a string") }
        if let known = patternPlaces[text] {
            if patterns[known]?.uses == 0 { idlePatterns.removeAll { $0 == known } }
            patterns[known]?.uses += 1
            call.push(.handle(ScriptVM.handleClass(at: ClassPlace.pattern), known))
            return .done
        }
        let made: Pattern
        do throws(Pattern.Problem) {
            made = try Pattern(text)
        } catch {
            call.pushFailure(code: "syntax", message: "\(error.message) at offset \(error.offset)")
            return .done
        }
        // Compiling takes time as the code grows, and has no clock.
        guard purse?.charge(made.bytes * 4) ?? true else { return Self.ended }
        while !hasRoom(for: made) {
            guard let oldest = idlePatterns.first else {
                return .crowded(
                    "a script holds at most \(Self.maxObjects) patterns, in a quarter of its memory at most")
            }
            idlePatterns.removeFirst()
            dropPattern(oldest)
        }
        purse?.account(made.bytes)
        patterns[nextHandle] = HeldPattern(pattern: made)
        patternPlaces[text] = nextHandle
        call.push(.handle(ScriptVM.handleClass(at: ClassPlace.pattern), nextHandle))
        nextHandle += 1
        return .done
    }

    private func hasRoom(for pattern: Pattern) -> Bool {
        guard patterns.count < Self.maxObjects else { return false }
        guard let purse else { return true }
        return patternBytes + pattern.bytes <= purse.memoryLimit / Self.share
            && purse.memoryInUse + pattern.bytes <= purse.memoryLimit
    }

    private func releasePattern(_ id: UInt64) {
        guard id >= Self.firstHandle, let uses = patterns[id]?.uses, uses > 0 else { return }
        patterns[id]?.uses = uses - 1
        guard uses == 1 else { return }
        idlePatterns.append(id)
        if idlePatterns.count > Self.maxIdlePatterns { dropPattern(idlePatterns.removeFirst()) }
    }

    private func dropPattern(_ id: UInt64) {
        guard let held = patterns.removeValue(forKey: id) else { return }
        patternPlaces[held.pattern.pattern] = nil
        purse?.account(-held.pattern.bytes)
    }

    private func pattern(_ call: borrowing HostCall) -> Pattern? {
        call.handle(0).flatMap { patterns[$0.id]?.pattern }
    }

    /// The run is over, whatever its function answers.
    private static let ended = HostStatus.failed("the CPU budget is used up")

    private func fail(_ failure: Pattern.Failure, _ call: inout HostCall) -> HostStatus {
        switch failure {
        case .ended: return Self.ended
        case .budget: call.pushFailure(code: "budget", message: "the match took too long")
        case .tooLarge:
            call.pushFailure(code: "too_large", message: "the result is longer than \(Pattern.resultBytes) bytes")
        case .invalid(let message): call.pushFailure(code: "invalid", message: message)
        }
        return .done
    }

    private func patternTest(_ call: inout HostCall) -> HostStatus {
        guard let pattern = pattern(call) else { return .failed("this is no regex") }
        let result = call.withBytes(1) { text -> Result<Bool, Pattern.Failure> in
            do throws(Pattern.Failure) { return .success(try pattern.test(text, paidBy: purse)) } catch {
                return .failure(error)
            }
        }
        switch result {
        case .success(let hit): call.push(hit)
        case .failure(let failure): return fail(failure, &call)
        case nil:
            // What is not there matches nothing: the usual argument is a header that may be missing.
            guard call.isNil(1) else { return .failed("regex:test takes a string") }
            call.push(false)
        }
        return .done
    }

    private func patternMatch(_ call: inout HostCall) -> HostStatus {
        guard let pattern = pattern(call) else { return .failed("this is no regex") }
        var start = 0
        if !call.isNil(2) {
            guard let place = call.integer(2), place >= 1 else {
                return .failed("the start of regex:match is an integer from 1")
            }
            start = Int(clamping: place - 1)
        }
        let result = call.withBytes(1) { text -> Result<LuaValue, Pattern.Failure> in
            do throws(Pattern.Failure) {
                guard let ranges = try pattern.match(text, from: start, paidBy: purse) else { return .success(.nil) }
                // Groups overlap: their sum is no part of the subject, but a product.
                let size = ranges.reduce(0) { $0 + ($1?.count ?? 0) }
                guard size <= Pattern.resultBytes else { throw .tooLarge }
                guard purse?.charge(2 * size) ?? true else { throw .ended }
                var entries: [LuaValue.Entry] = []
                func value(_ range: Range<Int>) -> LuaValue {
                    var bytes: [UInt8] = []
                    bytes.append(text.extracting(range))
                    return .bytes(bytes)
                }
                for (i, range) in ranges.enumerated() {
                    if let range { entries.append(LuaValue.Entry(.integer(Int64(i)), value(range))) }
                }
                for (name, group) in pattern.names where group < ranges.count {
                    if let range = ranges[group] { entries.append(LuaValue.Entry(.bytes(name), value(range))) }
                }
                return .success(.map(entries))
            } catch {
                return .failure(error)
            }
        }
        switch result {
        case .success(let groups): call.push(groups)
        case .failure(let failure): return fail(failure, &call)
        case nil:
            guard call.isNil(1) else { return .failed("regex:match takes a string") }
            call.pushNil()
        }
        return .done
    }

    private func patternReplace(_ call: inout HostCall) -> HostStatus {
        guard let pattern = pattern(call) else { return .failed("this is no regex") }
        guard let template = call.bytes(2) else { return .failed("regex:gsub takes a string and a replacement string") }
        var limit = Int.max
        if !call.isNil(3) {
            guard let count = call.integer(3), count >= 0 else { return .failed("the limit of regex:gsub is a count") }
            limit = Int(clamping: count)
        }
        let result = call.withBytes(1) { text -> Result<(text: [UInt8], count: Int), Pattern.Failure> in
            do throws(Pattern.Failure) {
                return .success(try pattern.replace(text, with: template.span, limit: limit, paidBy: purse))
            } catch {
                return .failure(error)
            }
        }
        switch result {
        case .success(let replaced):
            call.push(replaced.text.span)
            call.push(Int64(replaced.count))
        case .failure(.invalid(let message)): return .failed(message)
        case .failure(let failure): return fail(failure, &call)
        case nil: return .failed("regex:gsub takes a string and a replacement string")
        }
        return .done
    }

    // MARK: ip

    private func makeBlocks(_ call: inout HostCall) -> HostStatus {
        var texts: [LuaValue] = []
        switch call.value(0) {
        case .list(let items): texts = items
        case .bytes(let text): texts = [.bytes(text)]
        default: return .failed("ip.cidr takes a list of blocks")
        }
        guard texts.count <= Self.maxObjects else {
            call.pushFailure(code: "budget", message: "a list holds at most \(Self.maxObjects) blocks")
            return .done
        }
        var list: [AddressBlock] = []
        for item in texts {
            guard let text = item.text, let block = AddressBlock(text) else {
                call.pushFailure(code: "invalid", message: "\(item.text ?? "this") is no block of addresses")
                return .done
            }
            list.append(block)
        }
        let bytes = Self.bytes(list)
        let crowded = HostStatus.crowded(
            "a script holds at most \(Self.maxObjects) lists of blocks, in a quarter of its memory at most")
        guard blocks.count < Self.maxObjects else { return crowded }
        if let purse {
            guard blockBytes + bytes <= purse.memoryLimit / Self.share, purse.memoryInUse + bytes <= purse.memoryLimit
            else {
                return crowded
            }
            guard purse.charge(64 * texts.count) else { return Self.ended }
            purse.account(bytes)
        }
        blockBytes += bytes
        blocks[nextHandle] = list
        call.push(.handle(ScriptVM.handleClass(at: ClassPlace.blocks), nextHandle))
        nextHandle += 1
        return .done
    }

    private func blocksContain(_ call: inout HostCall) -> HostStatus {
        guard let list = call.handle(0).flatMap({ blocks[$0.id] }) else { return .failed("this is no cidr") }
        guard let text = call.withBytes(1, { Self.text($0, Self.maxWord) }) else {
            return .failed("cidr:contains takes an address")
        }
        guard let ip = IPAddress(text) else {
            call.pushFailure(code: "invalid", message: "this is no address")
            return .done
        }
        call.push(list.contains { $0.contains(ip) })
        return .done
    }

    // MARK: split

    /// Positions of the options in the argument tree, and scratch for what must outlive a read of it: a split is on the
    /// path of every request of a canary, and allocates nothing.
    private func split(_ call: inout HostCall) -> HostStatus {
        guard let options = call.map(0) else {
            return .failed("moongate.split takes a table: { name = …, unit = …, variants = { a = 50, b = 50 } }")
        }
        splitName.removeAll(keepingCapacity: true)
        splitUnit.removeAll(keepingCapacity: true)
        splitLayer.removeAll(keepingCapacity: true)
        var slots: ClosedRange<Int64> = 0...Int64(Split.slotCount - 1)
        var variants: (count: Int, first: Int)?
        var hasUnit = false
        var at = options.first
        for _ in 0..<options.count {
            let place = at + 1
            let key = call.withBytes(at: at, Self.splitKey) ?? .unknown
            at = call.position(after: place)
            let isGood: Bool
            switch key {
            case .name: isGood = call.withBytes(at: place) { splitName.append($0) } != nil
            case .layer: isGood = call.withBytes(at: place) { splitLayer.append($0) } != nil
            case .unit:
                hasUnit = true
                if call.withBytes(at: place, { splitUnit.append($0) }) == nil {
                    guard case .integer(let number) = call.value(at: place) else {
                        return .failed("the unit of moongate.split is of the wrong type")
                    }
                    splitUnit.append(contentsOf: String(number).utf8)
                }
                isGood = true
            case .slots:
                guard let text = call.value(at: place).text, let range = IntegerRange.parse(text),
                    range.upperBound < Int64(Split.slotCount)
                else { return .failed("the slots of moongate.split are a range within \"0-999\"") }
                slots = range
                isGood = true
            case .variants:
                variants = call.map(at: place)
                isGood = variants != nil
            case .unknown:
                let name = call.value(at: place - 1).text ?? ""
                let keys = ["name", "unit", "variants", "layer", "slots"]
                let hint = EditDistance.nearest(to: name, among: keys).map { "; did you mean \"\($0)\"?" } ?? ""
                return .failed("moongate.split does not know \"\(name)\"\(hint)")
            }
            if !isGood {
                return .failed("the \(call.value(at: place - 1).text ?? "") of moongate.split is of the wrong type")
            }
        }
        guard !splitName.isEmpty else { return .failed("moongate.split needs a name") }
        guard hasUnit else { return .failed("moongate.split needs a unit") }

        let experiment = splitName
        let person = splitUnit
        // Each variant hashes all of them once more: few short ones are paid for by the call itself.
        let work = experiment.count + person.count + 64
        let payer = work * (variants?.count ?? 0) > 4096 ? purse : nil
        defer {
            if work > 1 << 14 {
                splitName = []
                splitUnit = []
                split = Split()
            }
        }
        // As in `Split.choose`: pairs come sorted by name, so that the first of equal scores is the right one.
        var winner = -1
        var best = 0.0
        at = variants?.first ?? 0
        for _ in 0..<(variants?.count ?? 0) {
            let name = at
            at = call.position(after: name + 1)
            guard payer?.charge(work) ?? true else { return Self.ended }
            guard let weight = call.number(at: name + 1), weight >= 0, weight.isFinite,
                let score = call.withBytes(
                    at: name,
                    { split.score(experiment: experiment.span, variant: $0, unit: person.span, weight: weight) })
            else { return .failed("the variants of moongate.split are names with weights that are not negative") }
            if let score, score > best {
                best = score
                winner = name
            }
        }
        guard winner >= 0 else { return .failed("moongate.split needs a variant with a weight above 0") }
        let layer = splitLayer.isEmpty ? experiment : splitLayer
        let bucket = split.bucket(layer: layer.span, unit: person.span)
        let isIncluded = slots.contains(Int64(bucket))
        scratch.removeAll(keepingCapacity: true)
        _ = call.withBytes(at: winner) { scratch.append($0) }
        let variant = scratch
        call.pushMap(isIncluded ? 5 : 4)
        call.push(key: "bucket")
        call.push(Int64(bucket))
        call.push(key: "included")
        call.push(isIncluded)
        call.push(key: "name")
        call.push(experiment.span)
        call.push(key: "unit")
        call.push(person.span)
        if isIncluded {
            call.push(key: "variant")
            call.push(variant.span)
        }
        return .done
    }

    private enum SplitKey {
        case name
        case unit
        case variants
        case layer
        case slots
        case unknown
    }

    private static func splitKey(_ text: Span<UInt8>) -> SplitKey {
        if text.equals("name") { return .name }
        if text.equals("unit") { return .unit }
        if text.equals("variants") { return .variants }
        if text.equals("layer") { return .layer }
        return text.equals("slots") ? .slots : .unknown
    }

    // MARK: log

    private func write(_ level: ScriptLogLine.Level, _ call: inout HostCall) -> HostStatus {
        let message: String
        // A byte more than is shown, so that the cut is seen.
        if let text = call.withBytes(0, { Self.text($0, 1025) }) {
            message = text
        } else {
            switch call.shallow(at: 0) {
            case .integer, .number, .bool: message = Self.shown(&call, 0, 1025)
            default: return .failed("log.\(level.rawValue) takes a message")
            }
        }
        guard logBucket.take(now: clock.monotonic()) else {
            suppressed += 1
            log.countSuppressed()
            return .done
        }
        var fields: [ScriptLogLine.Field] = []
        if let map = call.map(1) {
            var at = map.first
            for _ in 0..<min(map.count, 16) {
                fields.append(
                    ScriptLogLine.Field(key: Self.shown(&call, at, 64), value: Self.shown(&call, at + 1, 256)))
                at = call.position(after: at + 1)
            }
            if map.count > 16 {
                fields.append(ScriptLogLine.Field(key: "fields_cut_off", value: String(map.count - 16)))
            }
        } else if !call.isNil(1) {
            return .failed("the fields of log.\(level.rawValue) are a table")
        }
        var requestID = ""
        if let exchange = call.run?.exchange { requestID = exchange.request.text(exchange.idRange) }
        log.append(
            ScriptLogLine(
                level: level, script: tenant.script, version: version, message: Self.cut(message, 1024), fields: fields,
                suppressed: suppressed, requestID: requestID))
        suppressed = 0
        return .done
    }

    /// A failure of the script itself, in the same bucket as what it says.
    package func report(_ failure: ScriptFailure, phase: ScriptPhase, requestID: String) {
        guard logBucket.take(now: clock.monotonic()) else {
            suppressed += 1
            log.countSuppressed()
            return
        }
        log.append(
            ScriptLogLine(
                level: .error, script: tenant.script, version: version, message: Self.cut(failure.description, 1024),
                fields: [
                    ScriptLogLine.Field(key: "phase", value: phase.name),
                    ScriptLogLine.Field(key: "class", value: failure.kind.rawValue),
                ], suppressed: suppressed, requestID: requestID))
        suppressed = 0
    }

    /// The beginning of a text, without a copy of the rest.
    private static func text(_ bytes: Span<UInt8>, _ limit: Int) -> String {
        var copy: [UInt8] = []
        copy.append(bytes.extracting(0..<min(bytes.count, limit)))
        return String(decoding: copy, as: UTF8.self)
    }

    /// A value at a position of the arguments, as a log line shows it.
    private static func shown(_ call: inout HostCall, _ position: Int, _ limit: Int) -> String {
        call.withBytes(at: position) { cut(text($0, limit + 1), limit) } ?? shown(call.shallow(at: position), limit)
    }

    private static func shown(_ value: LuaValue, _ limit: Int) -> String {
        switch value {
        case .nil: "nil"
        case .null: "null"
        case .bool(let flag): String(flag)
        case .integer(let number): String(number)
        case .number(let number): String(number)
        case .bytes(let bytes): cut(String(decoding: bytes.prefix(limit + 1), as: UTF8.self), limit)
        case .list: "(list)"
        case .map: "(table)"
        case .handle: "(object)"
        case .opaque: "(value)"
        }
    }

    private static func cut(_ text: String, _ limit: Int) -> String {
        text.utf8.count <= limit ? text : String(decoding: Array(text.utf8.prefix(limit)), as: UTF8.self) + "…"
    }

    // MARK: metrics

    private func metric(_ kind: ScriptMetrics.Kind, _ place: Int, _ call: inout HostCall) -> HostStatus {
        guard let name = call.withBytes(0, { Self.text($0, 129) }) else {
            return .failed("metrics.\(kind.rawValue) takes a name")
        }
        var labels: [ScriptMetrics.Label] = []
        // One more than there may be, which `ScriptMetrics` then refuses.
        if let entries = call.entries(1, limit: 9) {
            for entry in entries {
                guard case .bytes(let key) = entry.key else {
                    return .failed("the labels of a metric are a table of names and values")
                }
                let label = String(decoding: key.prefix(65), as: UTF8.self)
                switch entry.value {
                case .bytes, .integer, .number, .bool:
                    labels.append(ScriptMetrics.Label(label, Self.shown(entry.value, 128)))
                default: return .failed("the label \(label) is neither a string, a number nor a boolean")
                }
            }
        } else if !call.isNil(1) {
            return .failed("the labels of a metric are a table of names and values")
        }
        // Held for the life of the machine, so only what is of bounded size is part of it.
        let key = CellKey(kind: kind, name: name, labels: labels)
        if let known = cellHandles[key] {
            call.push(.handle(ScriptVM.handleClass(at: place), known))
            return .done
        }
        switch metrics.cell(kind, name, labels, of: tenant) {
        case .failure(let refusal): return .failed(refusal.message)
        case .success(let found):
            let handle: UInt64
            if let known = cellPlaces[ObjectIdentifier(found.cell)] {
                handle = known
            } else {
                handle = UInt64(cells.count)
                cells.append(found.cell)
                cellPlaces[ObjectIdentifier(found.cell)] = handle
            }
            // What is folded is looked up, and so counted, each time.
            if !found.folded, cellHandles.count < Self.maxCells { cellHandles[key] = handle }
            call.push(.handle(ScriptVM.handleClass(at: place), handle))
            return .done
        }
    }

    private func cell(_ call: inout HostCall, _ body: (ScriptMetricCell) -> Void) -> HostStatus {
        guard let place = call.handle(0).flatMap({ Int(exactly: $0.id) }), cells.indices.contains(place) else {
            return .failed("this is no metric")
        }
        body(cells[place])
        return .done
    }
}
