// What a script sees of its request, over the exchange. Edits are made in place under an undo log that costs nothing
// until the first edit: when the phase fails, times out or runs in shadow, the exchange is as it was (SCRIPTING.md §1.6).

import CLua
package import Model

/// The surroundings of a script that do not change from request to request.
package final class ScriptScene: Sendable {
    package let ingressNamespace: [UInt8]
    package let ingressName: [UInt8]
    package let rule: [UInt8]
    /// Class of the handles that stand for backends in `ctx.config`.
    package let backendClass: HandleClass?
    /// By the identifier of such a handle: index into `Snapshot.upstreams`, negative where it is unknown.
    package let backends: [Int32]
    /// The same for requests on TLS connections.
    package let secureBackends: [Int32]
    /// Names of `Snapshot.upstreams`, for `res.upstream.backend`.
    package let upstreamNames: [String]

    package init(
        ingressNamespace: String = "", ingressName: String = "", rule: String = "", backendClass: HandleClass? = nil,
        backends: [Int32] = [], secureBackends: [Int32]? = nil, upstreamNames: [String] = []
    ) {
        self.ingressNamespace = Array(ingressNamespace.utf8)
        self.ingressName = Array(ingressName.utf8)
        self.rule = Array(rule.utf8)
        self.backendClass = backendClass
        self.backends = backends
        self.secureBackends = secureBackends?.count == backends.count ? secureBackends ?? backends : backends
        self.upstreamNames = upstreamNames
    }
}

/// `ctx.shared`: what all scripts of one request leave for each other.
package final class ScriptShared {
    package fileprivate(set) var values: [[UInt8]: LuaValue] = [:]
    fileprivate static let maxCount = 64

    package init() {}

    package func removeAll() {
        if !values.isEmpty { values.removeAll(keepingCapacity: true) }
    }
}

/// A response that a script made.
package struct ScriptResponse: Sendable, Hashable {
    package struct Field: Sendable, Hashable {
        package var name: [UInt8]
        package var value: [UInt8]
    }

    package var status: UInt16 = 0
    /// Sorted by name; values of one name in the order of their list. Checked against the grammar; no framing fields.
    package var fields: [Field] = []
    package var body: [UInt8] = []

    package init() {}

    /// Puts it in place of whatever response the exchange has.
    package func apply(to exchange: Exchange) {
        exchange.response.removeAll()
        exchange.response.status = status
        for field in fields {
            exchange.response.append(field.name.span, field.value.span)
        }
        exchange.ownBody.removeAll(keepingCapacity: true)
        exchange.ownBody += body
        exchange.origin = .script
    }
}

/// One run of one phase.
@safe
package final class BorderRun {
    /// Unretained while the phase runs, for it is the hottest path of a script: `ScriptVM.run` and `resume` hold all three
    /// until the run is over or suspended, and `hold` keeps those of a run that waits.
    private var current: Unmanaged<Exchange>?
    private var scene: Unmanaged<ScriptScene>?
    private var shared: Unmanaged<ScriptShared>?
    private var held: (Exchange, ScriptScene, ScriptShared?)?
    private var wallDeadline: UInt64 = 0
    private var discardsEdits = false
    fileprivate(set) var response = ScriptResponse()
    private var undo = Undo()
    /// Of `unit`, where it said why not: no such source, or one that is documented and not there in this version.
    fileprivate(set) var unitRefusal = MG_HOST_ERROR

    init() {}

    /// The request that the script works on; nil when its phase is over.
    package var exchange: Exchange? { unsafe current?.takeUnretainedValue() }

    @inline(__always)
    func begin(
        _ exchange: Exchange, _ scene: ScriptScene, shared: ScriptShared?, wallDeadline: UInt64, discardsEdits: Bool
    ) {
        unsafe current = Unmanaged.passUnretained(exchange)
        unsafe self.scene = Unmanaged.passUnretained(scene)
        unsafe self.shared = shared.map { unsafe Unmanaged.passUnretained($0) }
        self.wallDeadline = wallDeadline
        self.discardsEdits = discardsEdits
    }

    /// The phase waits: what it works on is kept alive.
    func hold() {
        guard let exchange, let scene = unsafe scene else { return }
        held = unsafe (exchange, scene.takeUnretainedValue(), shared?.takeUnretainedValue())
    }

    @inline(__always)
    func end(keep: Bool) {
        if !undo.dirty.isEmpty { settle(keep: keep) }
        unsafe current = nil
        unsafe scene = nil
        unsafe shared = nil
        if held != nil { held = nil }
    }

    private func settle(keep: Bool) {
        if !keep || discardsEdits, let exchange { unsafe undo.restore(exchange, shared?.takeUnretainedValue()) }
        undo.dirty = []
    }

    /// What the phase returned; forgotten here.
    func takeResponse() -> ScriptResponse {
        let made = response
        response = ScriptResponse()
        return made
    }

    /// Lends the exchange without counting a reference.
    @inline(__always)
    func withExchange<R>(else missing: R, _ body: (Exchange) -> R) -> R {
        guard let current = unsafe current else { return missing }
        return unsafe current._withUnsafeGuaranteedRef(body)
    }
}

// -------------------------------------------------------------------------------------------------------------- undo

/// What the exchange was before the first edit of each kind. The arenas of heads only grow, so their lengths are enough.
private struct Undo {
    struct Kinds: OptionSet {
        let rawValue: UInt8
        static let request = Kinds(rawValue: 1)
        static let response = Kinds(rawValue: 2)
        static let decisions = Kinds(rawValue: 4)
        static let tags = Kinds(rawValue: 8)
        static let shared = Kinds(rawValue: 16)
    }

    struct Head {
        var byteCount = 0
        var fields: [FieldRecord] = []
        var path = ByteRange.empty
        var query = ByteRange.empty
        var hasQuery = false
        var authority = ByteRange.empty
        var replacedAuthority = ByteRange.empty
        var host = ByteRange.empty
        var status: UInt16 = 0
        var reason = ByteRange.empty

        mutating func take(_ head: borrowing MessageHead) {
            byteCount = head.bytes.count
            fields.removeAll(keepingCapacity: true)
            fields.append(contentsOf: head.fields)
            path = head.pathRange
            query = head.queryRange
            hasQuery = head.hasQuery
            authority = head.authorityRange
            replacedAuthority = head.replacedAuthorityRange
            host = head.hostRange
            status = head.status
            reason = head.reasonRange
        }

        /// What scripts may make of a head. The arena of a head only grows, so that values which others have replaced
        /// count too; one that was larger when the phase began may grow by a little.
        private static let maxBytes = 128 << 10
        private static let maxFields = 256
        private static let moreBytes = 16 << 10
        private static let moreFields = 16

        /// Why an edit is one too many, nil when it is not. It adds a field at most.
        func refusal(_ head: borrowing MessageHead, adding bytes: Int) -> String? {
            if head.bytes.count + bytes > max(Self.maxBytes, byteCount + Self.moreBytes) {
                return "the edits make this head larger than \(Self.maxBytes >> 10) KiB in all"
            }
            if head.fields.count >= max(Self.maxFields, fields.count + Self.moreFields) {
                return "the edits make this head longer than \(Self.maxFields) fields in all"
            }
            return nil
        }

        func give(_ head: inout MessageHead) {
            if head.bytes.count > byteCount { head.bytes.removeLast(head.bytes.count - byteCount) }
            head.fields.removeAll(keepingCapacity: true)
            head.fields.append(contentsOf: fields)
            head.pathRange = path
            head.queryRange = query
            head.hasQuery = hasQuery
            head.authorityRange = authority
            head.replacedAuthorityRange = replacedAuthority
            head.hostRange = host
            head.status = status
            head.reasonRange = reason
        }
    }

    var dirty: Kinds = []
    var request = Head()
    var response = Head()
    var upstream: Int32 = -1
    var isUpstreamChosen = false
    var isUpstreamStrict = false
    var hashKey: UInt64 = 0
    var responseTimeout: UInt32 = 0
    var retries: Int32 = -1
    var tags: [Exchange.Tag] = []
    var tagByteCount = 0
    var shared: [[UInt8]: LuaValue] = [:]

    mutating func willEditRequest(_ exchange: Exchange) {
        if dirty.contains(.request) { return }
        dirty.insert(.request)
        request.take(exchange.request)
    }

    mutating func willEditResponse(_ exchange: Exchange) {
        if dirty.contains(.response) { return }
        dirty.insert(.response)
        response.take(exchange.response)
    }

    mutating func willDecide(_ exchange: Exchange) {
        if dirty.contains(.decisions) { return }
        dirty.insert(.decisions)
        upstream = exchange.upstream
        isUpstreamChosen = exchange.isUpstreamChosen
        isUpstreamStrict = exchange.isUpstreamStrict
        hashKey = exchange.hashKey
        responseTimeout = exchange.responseTimeout
        retries = exchange.retries
    }

    mutating func willTag(_ exchange: Exchange) {
        if dirty.contains(.tags) { return }
        dirty.insert(.tags)
        tags.removeAll(keepingCapacity: true)
        tags.append(contentsOf: exchange.tags)
        tagByteCount = exchange.tagBytes.count
    }

    mutating func willShare(_ values: ScriptShared) {
        if dirty.contains(.shared) { return }
        dirty.insert(.shared)
        shared = values.values
    }

    mutating func restore(_ exchange: Exchange, _ values: ScriptShared?) {
        if dirty.contains(.request) { request.give(&exchange.request) }
        if dirty.contains(.response) { response.give(&exchange.response) }
        if dirty.contains(.decisions) {
            exchange.upstream = upstream
            exchange.isUpstreamChosen = isUpstreamChosen
            exchange.isUpstreamStrict = isUpstreamStrict
            exchange.hashKey = hashKey
            exchange.responseTimeout = responseTimeout
            exchange.retries = retries
        }
        if dirty.contains(.tags) {
            exchange.tags.removeAll(keepingCapacity: true)
            exchange.tags.append(contentsOf: tags)
            if exchange.tagBytes.count > tagByteCount {
                exchange.tagBytes.removeLast(exchange.tagBytes.count - tagByteCount)
            }
        }
        if dirty.contains(.shared) {
            values?.values = shared
            shared = [:]
        }
        dirty = []
    }
}

// ------------------------------------------------------------------------------------------------------------- fields

extension BorderRun {
    func field(_ field: mg_field, _ out: ValueWriter) -> Bool {
        withExchange(else: false) { self.field(field, of: $0, out) }
    }

    private func field(_ field: mg_field, of exchange: Exchange, _ out: ValueWriter) -> Bool {
        switch field {
        case MG_REQ_ID: exchange.request.give(exchange.idRange, to: out)
        case MG_REQ_METHOD: exchange.request.giveMethod(to: out)
        case MG_REQ_SCHEME: out.append(exchange.client.isSecure ? "https" as StaticString : "http")
        case MG_REQ_HOST: exchange.request.giveHost(to: out)
        case MG_REQ_PATH: exchange.request.givePath(to: out)
        case MG_REQ_RAW_PATH: exchange.request.giveRawPath(to: out)
        case MG_REQ_HTTP_VERSION:
            let text: StaticString =
                switch exchange.request.version {
                case .http10: "1.0"
                case .http11: "1.1"
                case .http2: "2"
                }
            out.append(text)
        case MG_REQ_BEARER: return exchange.request.giveBearer(to: out)
        case MG_QUERY_STRING: exchange.request.giveQueryString(to: out)
        case MG_CLIENT_IP: out.append(exchange.client.address.ip.description)
        case MG_CLIENT_PORT: out.append(Int64(exchange.client.address.port))
        case MG_CLIENT_TRUSTED_PROXY: out.append(exchange.client.isTrustedProxy)
        case MG_RES_STATUS: out.append(Int64(exchange.response.status))
        case MG_RES_ORIGIN:
            let text: StaticString =
                switch exchange.origin {
                case .none: ""
                case .upstream: "upstream"
                case .script: "script"
                case .moongate: "moongate"
                }
            out.append(text)
        case MG_RES_UPSTREAM: return upstreamFacts(exchange, out)
        case MG_INGRESS_NAMESPACE: return append(surroundings?.ingressNamespace, out)
        case MG_INGRESS_NAME: return append(surroundings?.ingressName, out)
        case MG_INGRESS_RULE: return append(surroundings?.rule, out)
        case MG_CTX_DEADLINE:
            guard wallDeadline != 0 else { return false }
            let now = mg_clock_ns()
            out.append(wallDeadline > now ? Double(wallDeadline - now) / 1e9 : 0)
        case MG_CLIENT_TLS: return channelFacts(exchange, out)
        default: return false
        }
        return true
    }

    private var surroundings: ScriptScene? { unsafe scene?.takeUnretainedValue() }
    private var values: ScriptShared? { unsafe shared?.takeUnretainedValue() }

    private func append(_ bytes: [UInt8]?, _ out: ValueWriter) -> Bool {
        guard let bytes, !bytes.isEmpty else { return false }
        out.append(bytes.span)
        return true
    }

    /// Nothing without TLS on the connection itself: what a trusted proxy says of its own is `req.scheme` alone.
    private func channelFacts(_ exchange: Exchange, _ out: ValueWriter) -> Bool {
        guard let channel = exchange.client.channel else { return false }
        func text(_ bytes: [UInt8]) -> LuaValue { .string(String(decoding: bytes, as: UTF8.self)) }
        var entries: [(String, LuaValue)] = [("version", text(channel.version)), ("cipher", text(channel.cipher))]
        if !channel.serverName.isEmpty { entries.append(("sni", text(channel.serverName))) }
        if !channel.applicationProtocol.isEmpty { entries.append(("alpn", text(channel.applicationProtocol))) }
        if let certificate = exchange.client.certificate {
            entries.append(
                (
                    "client_cert",
                    .map([
                        ("subject", text(certificate.subject)), ("sans", .list(certificate.names.map(text))),
                        ("fingerprint", text(certificate.fingerprint)),
                        ("verified", .bool(certificate.verdict == .good)),
                    ])
                ))
        }
        out.append(.map(entries))
        return true
    }

    private func upstreamFacts(_ exchange: Exchange, _ out: ValueWriter) -> Bool {
        guard exchange.origin == .upstream || exchange.attempts > 0 else { return false }
        var entries: [(String, LuaValue)] = [("attempts", .integer(Int64(exchange.attempts)))]
        if let names = surroundings?.upstreamNames, names.indices.contains(Int(exchange.upstream)) {
            entries.append(("backend", .string(names[Int(exchange.upstream)])))
        }
        if let endpoint = exchange.endpoint { entries.append(("address", .string(endpoint.description))) }
        if exchange.upstreamAnswered > exchange.upstreamStarted, exchange.upstreamStarted != 0 {
            entries.append(
                ("duration", .number(Double(exchange.upstreamAnswered - exchange.upstreamStarted) / 1e9)))
        }
        out.append(.map(entries))
        return true
    }

    /// Returns why the value was refused; nil when it was set.
    func setField(_ field: mg_field, _ value: ValueReader) -> String? {
        guard let exchange else { return "no request is running" }
        switch field {
        case MG_REQ_PATH:
            return value.withBytes(at: 0) { path -> String? in
                undo.willEditRequest(exchange)
                if let full = undo.request.refusal(exchange.request, adding: path.count) { return full }
                do throws(CanonicalPath.Refusal) {
                    try exchange.request.setPath(path)
                    return nil
                } catch {
                    return error.message
                }
            } ?? notText(value, "req.path")
        case MG_REQ_HOST:
            return value.withBytes(at: 0) { host -> String? in
                undo.willEditRequest(exchange)
                if let full = undo.request.refusal(exchange.request, adding: 2 * host.count + 4) { return full }
                return exchange.request.setHost(host)
            } ?? notText(value, "req.host")
        case MG_RES_STATUS:
            guard let status = value.integer(at: 0), (200...599).contains(status) else {
                return "res.status is an integer from 200 to 599"
            }
            let old = exchange.response.status
            let new = UInt16(status)
            if new == old { return nil }
            if Self.hasNoBody(old) || Self.hasNoBody(new) {
                return "res.status cannot change from \(old) to \(new): one of them has no body; return a response"
            }
            undo.willEditResponse(exchange)
            exchange.response.status = new
            exchange.response.reasonRange = .empty
            return nil
        default: return "this field cannot be set"
        }
    }

    /// RFC 9110 §6.4.1.
    private static func hasNoBody(_ status: UInt16) -> Bool { status < 200 || status == 204 || status == 304 }

    private func notText(_ value: ValueReader, _ name: String) -> String? {
        value.bytes(at: 0) == nil ? "\(name) is a string" : nil
    }
}

// ---------------------------------------------------------------------------------------------------------- multimaps

extension BorderRun {
    /// The next value of a name. What is walked over is paid for.
    /// - Parameter cursor: 0 before the first; moved behind what is given.
    func mapValue(_ map: mg_map, _ name: Span<UInt8>, _ cursor: inout UInt64, _ out: ValueWriter) -> Bool {
        withExchange(else: false) { Self.mapValue(map, of: $0, name, &cursor, out) }
    }

    @inline(__always)
    private static func mapValue(
        _ map: mg_map, of exchange: Exchange, _ name: Span<UInt8>, _ cursor: inout UInt64, _ out: ValueWriter
    ) -> Bool {
        switch map {
        case MG_REQ_HEADERS: return exchange.request.giveField(name, &cursor, to: out)
        case MG_RES_HEADERS: return exchange.response.giveField(name, &cursor, to: out)
        case MG_REQ_COOKIES: return exchange.request.giveCookie(name, &cursor, to: out)
        case MG_RES_COOKIES: return exchange.response.giveSetCookie(name, &cursor, to: out)
        default: return exchange.request.giveQuery(name, &cursor, to: out)  // MG_QUERY
        }
    }

    /// The next entry in wire order, name and value.
    func mapEntry(_ map: mg_map, _ cursor: inout UInt64, _ out: ValueWriter) -> Bool {
        guard let exchange else { return false }
        switch map {
        case MG_REQ_HEADERS: return exchange.request.giveField(at: &cursor, to: out)
        case MG_RES_HEADERS: return exchange.response.giveField(at: &cursor, to: out)
        case MG_REQ_COOKIES: return exchange.request.giveCookie(at: &cursor, to: out)
        case MG_RES_COOKIES: return exchange.response.giveSetCookie(nil, &cursor, to: out)
        default: return exchange.request.giveQuery(at: &cursor, to: out)  // MG_QUERY
        }
    }

    /// Steps over fields, and bytes of a query, four a step: about, and without a look at them.
    private static func work(_ map: mg_map, of exchange: Exchange) -> Int {
        switch map {
        case MG_REQ_HEADERS, MG_REQ_COOKIES: exchange.request.fields.count
        case MG_RES_HEADERS: exchange.response.fields.count
        case MG_RES_COOKIES: exchange.response.fields.count + exchange.response.bytes.count / 8
        default: Int(exchange.request.queryRange.count) / 4  // MG_QUERY
        }
    }

    /// Returns why the edit was refused; nil when it was made.
    func edit(_ map: mg_map, _ edit: mg_edit, _ name: Span<UInt8>, _ value: Span<UInt8>, _ out: ValueWriter) -> String?
    {
        guard let exchange else { return "no request is running" }
        out.charge(Self.work(map, of: exchange))
        switch map {
        case MG_REQ_HEADERS:
            if let problem = Self.problem(edit, name, value) { return problem }
            if edit == MG_EDIT_REMOVE, exchange.request.firstIndex(named: name) == nil { return nil }
            undo.willEditRequest(exchange)
            if let full = undo.request.refusal(exchange.request, adding: name.count + value.count) { return full }
            Self.change(&exchange.request, edit, name, value)
        case MG_RES_HEADERS:
            if let problem = Self.problem(edit, name, value) { return problem }
            if edit == MG_EDIT_REMOVE, exchange.response.firstIndex(named: name) == nil { return nil }
            undo.willEditResponse(exchange)
            if let full = undo.response.refusal(exchange.response, adding: name.count + value.count) { return full }
            Self.change(&exchange.response, edit, name, value)
        case MG_QUERY:
            if name.count + value.count > 8192 { return "a query parameter is longer than 8192 bytes" }
            undo.willEditRequest(exchange)
            // The whole query is written anew, each byte of the pair as three at most.
            let added = Int(exchange.request.queryRange.count) + 3 * (name.count + value.count) + 2
            if let full = undo.request.refusal(exchange.request, adding: added) { return full }
            switch edit {
            case MG_EDIT_SET: exchange.request.setQuery(name, to: value)
            case MG_EDIT_APPEND: exchange.request.appendQuery(name, value)
            default: exchange.request.removeQuery(named: name)
            }
        default: return "these cookies cannot be edited"
        }
        return nil
    }

    private static func problem(_ edit: mg_edit, _ name: Span<UInt8>, _ value: Span<UInt8>) -> String? {
        if let problem = FieldGrammar.problem(setting: name) { return problem }
        return edit == MG_EDIT_REMOVE ? nil : FieldGrammar.problem(value: value)
    }

    private static func change(_ head: inout MessageHead, _ edit: mg_edit, _ name: Span<UInt8>, _ value: Span<UInt8>) {
        switch edit {
        case MG_EDIT_SET: head.set(name, to: value)
        case MG_EDIT_APPEND: head.append(name, value)
        default: head.removeAll(named: name)
        }
    }
}

// ------------------------------------------------------------------------------------------------- reading a head

// Nothing is changed here. The functions are `mutating` because a head in a class is then lent by its address; otherwise
// it is copied for the call, which counts four references.

extension MessageHead {
    fileprivate mutating func giveMethod(to out: ValueWriter) { give(methodRange, to: out) }
    fileprivate mutating func giveHost(to out: ValueWriter) { give(hostRange, to: out) }
    fileprivate mutating func givePath(to out: ValueWriter) { give(pathRange, to: out) }
    fileprivate mutating func giveQueryString(to out: ValueWriter) { give(queryRange, to: out) }

    fileprivate mutating func giveRawPath(to out: ValueWriter) {
        let target = bytes.span.extracting(targetRange.range)
        var end = 0
        while end < target.count, target[end] != 0x3f { end += 1 }
        out.append(target.extracting(0..<end))
    }

    fileprivate mutating func giveBearer(to out: ValueWriter) -> Bool {
        guard let range = value(of: .authorization) else { return false }
        let value = bytes.span.extracting(range.range)
        // RFC 6750 §2.1; the scheme is compared without case (RFC 9110 §11.1).
        guard value.count > 7, value[6] == 0x20, value.extracting(0..<6).equalsIgnoringCase("bearer") else {
            return false
        }
        let token = MessageHead.trimmed(value.extracting(7..<value.count))
        guard !token.isEmpty else { return false }
        out.append(token)
        return true
    }

    fileprivate mutating func give(_ range: ByteRange, to out: ValueWriter) {
        out.append(bytes.span.extracting(range.range))
    }

    fileprivate mutating func giveField(_ name: Span<UInt8>, _ cursor: inout UInt64, to out: ValueWriter) -> Bool {
        let start = Int(cursor)
        let found = firstIndex(named: name, from: start)
        let end = found.map { $0 + 1 } ?? fields.count
        cursor = UInt64(end)
        out.charge(end - start)
        guard let found else { return false }
        out.append(bytes.span.extracting(fields[found].valueRange))
        return true
    }

    fileprivate mutating func giveField(at cursor: inout UInt64, to out: ValueWriter) -> Bool {
        while cursor < fields.count {
            let field = fields[Int(cursor)]
            cursor += 1
            out.charge(1)
            if field.isRemoved { continue }
            out.append(bytes.span.extracting(field.nameRange))
            out.append(bytes.span.extracting(field.valueRange))
            return true
        }
        return false
    }

    /// In one pass over the `Cookie` lines; the same pairs as `nextCookie` finds.
    fileprivate mutating func giveCookie(_ name: Span<UInt8>, _ cursor: inout UInt64, to out: ValueWriter) -> Bool {
        guard !name.isEmpty else { return false }
        let place = Int(cursor >> 32)
        var index = firstIndex(of: .cookie, from: place)
        while let found = index {
            let line = bytes.span.extracting(fields[found].valueRange)
            let start = found == place ? Int(cursor & 0xffff_ffff) : 0
            var at = start
            while at < line.count {
                while at < line.count, line[at] == 0x20 || line[at] == 0x09 { at += 1 }
                var matched = 0
                while matched < name.count, at < line.count, line[at] == name[matched] {
                    at += 1
                    matched += 1
                }
                if matched == name.count {
                    while at < line.count, line[at] == 0x20 || line[at] == 0x09 { at += 1 }
                    if at < line.count, line[at] == 0x3d {
                        let value = at + 1
                        while at < line.count, line[at] != 0x3b { at += 1 }
                        out.charge((at - start) / 4 + 1)
                        out.append(MessageHead.trimmed(line.extracting(value..<at)))
                        cursor = UInt64(found) << 32 | UInt64(at + 1)
                        return true
                    }
                }
                while at < line.count, line[at] != 0x3b { at += 1 }
                at += 1
            }
            out.charge((line.count - start) / 4 + 1)
            index = firstIndex(of: .cookie, from: found + 1)
        }
        return false
    }

    fileprivate mutating func giveCookie(at cursor: inout UInt64, to out: ValueWriter) -> Bool {
        var walk = CookieCursor(position: cursor)
        let cookie = nextCookie(&walk)
        out.charge(walk.walked / 4 + 1)
        cursor = walk.position
        guard let cookie else { return false }
        give(cookie.name, to: out)
        give(cookie.value, to: out)
        return true
    }

    /// Name and value of the `Set-Cookie` line at an index (RFC 6265 §5.2).
    private func setCookieParts(at index: Int) -> (name: ByteRange, value: ByteRange) {
        let range = fields[index].valueRange
        var end = range.lowerBound
        while end < range.upperBound, bytes[end] != 0x3b { end += 1 }
        var equals = range.lowerBound
        while equals < end, bytes[equals] != 0x3d { equals += 1 }
        let value = equals < end ? equals + 1 : end
        return (
            ByteRange(offset: range.lowerBound, count: equals - range.lowerBound),
            ByteRange(offset: value, count: end - value)
        )
    }

    /// The value of the next line of that name; without a name the next line, name and value.
    fileprivate mutating func giveSetCookie(
        _ name: Span<UInt8>?, _ cursor: inout UInt64, to out: ValueWriter
    ) -> Bool {
        while let found = firstIndex(of: .setCookie, from: Int(cursor)) {
            let parts = setCookieParts(at: found)
            out.charge(found + 1 - Int(cursor) + (parts.name.range.count + parts.value.range.count) / 8)
            cursor = UInt64(found + 1)
            if let name, !isEqual(parts.name, name) { continue }
            if name == nil { give(parts.name, to: out) }
            give(parts.value, to: out)
            return true
        }
        return false
    }

    fileprivate mutating func removeSetCookies(named name: Span<UInt8>) {
        var index = firstIndex(of: .setCookie)
        while let found = index {
            if isEqual(setCookieParts(at: found).name, name) { remove(at: found) }
            index = firstIndex(of: .setCookie, from: found + 1)
        }
    }

    fileprivate mutating func giveQuery(_ name: Span<UInt8>, _ cursor: inout UInt64, to out: ValueWriter) -> Bool {
        let query = bytes.span.extracting(queryRange.range)
        let start = Int(cursor)
        var at = start
        defer {
            cursor = UInt64(at)
            out.charge((at - start) / 4 + 1)
        }
        while let pair = Query.next(in: query, &at) {
            guard Query.matches(query.extracting(pair.name), name) else { continue }
            Self.giveDecoded(query.extracting(pair.value), to: out)
            return true
        }
        return false
    }

    fileprivate mutating func giveQuery(at cursor: inout UInt64, to out: ValueWriter) -> Bool {
        let query = bytes.span.extracting(queryRange.range)
        var at = Int(cursor)
        guard let pair = Query.next(in: query, &at) else { return false }
        out.charge((at - Int(cursor)) / 4 + 1)
        cursor = UInt64(at)
        Self.giveDecoded(query.extracting(pair.name), to: out)
        Self.giveDecoded(query.extracting(pair.value), to: out)
        return true
    }

    private static func giveDecoded(_ text: Span<UInt8>, to out: ValueWriter) {
        var isPlain = true
        for i in 0..<text.count where text[i] == 0x25 || text[i] == 0x2b { isPlain = false }
        if isPlain {
            out.append(text)
            return
        }
        var decoded: [UInt8] = []
        Query.decode(text, into: &decoded)
        out.append(decoded.span)
    }
}

// ------------------------------------------------------------------------------------------------------------ cookies

extension BorderRun {
    /// `res.cookies:set` and `res.cookies:remove`.
    func setCookie(
        _ name: Span<UInt8>, to value: Span<UInt8>, removes: Bool, _ attributes: [LuaValue.Entry]
    ) -> String? {
        guard let exchange else { return "no request is running" }
        let nameBytes = Self.array(name)
        var cookie =
            removes ? SetCookie.removal(of: nameBytes) : SetCookie(name: nameBytes, value: Self.array(value))
        for entry in attributes {
            if let problem = Self.apply(entry, to: &cookie, removes: removes) { return problem }
        }
        if let problem = cookie.problem { return problem }
        var line: [UInt8] = []
        cookie.append(to: &line)
        undo.willEditResponse(exchange)
        if let full = undo.response.refusal(exchange.response, adding: 10 + line.count) { return full }
        // One line a cookie: a line of that name that stands already gives way.
        exchange.response.removeSetCookies(named: name)
        exchange.response.append(Array("set-cookie".utf8).span, line.span)
        return nil
    }

    private static func array(_ span: Span<UInt8>) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(span)
        return bytes
    }

    private static func apply(_ entry: LuaValue.Entry, to cookie: inout SetCookie, removes: Bool) -> String? {
        guard let key = entry.key.text else { return "a cookie attribute has a name" }
        switch (key, entry.value) {
        case ("path", .bytes(let path)): cookie.path = path
        case ("domain", .bytes(let domain)): cookie.domain = domain
        case ("max_age", let value):
            guard let seconds = Self.seconds(value) else {
                return "max_age is a number of seconds or a duration such as \"30d\""
            }
            if !removes { cookie.maxAge = Int(seconds.rounded(.down)) }
        case ("expires", let value):
            guard let time = value.double, time >= 0, time < 253_402_300_800 else {
                return "expires is a time in seconds since 1970"
            }
            if !removes { cookie.expires = Int64(time) }
        case ("secure", .bool(let flag)): cookie.isSecure = flag
        case ("http_only", .bool(let flag)): cookie.isHTTPOnly = flag
        case ("partitioned", .bool(let flag)): cookie.isPartitioned = flag
        case ("same_site", .bytes):
            let text = entry.value.text ?? ""
            guard let site = SetCookie.SameSite.allCases.first(where: { $0.rawValue.lowercased() == text.lowercased() })
            else { return "same_site is \"Lax\", \"Strict\" or \"None\"" }
            cookie.sameSite = site
        case ("path", _), ("domain", _), ("same_site", _): return "the cookie attribute \(key) is a string"
        case ("secure", _), ("http_only", _), ("partitioned", _): return "the cookie attribute \(key) is true or false"
        default:
            return "unknown cookie attribute \"\(key)\"; "
                + "there are path, domain, max_age, expires, secure, http_only, same_site and partitioned"
        }
        return nil
    }

    /// Seconds as a number, or a duration as text.
    static func seconds(_ value: LuaValue) -> Double? {
        if let number = value.double { return number.isFinite && abs(number) < 1e12 ? number : nil }
        guard let text = value.text, let milliseconds = Quantity.milliseconds(text) else { return nil }
        return Double(milliseconds) / 1000
    }
}

// --------------------------------------------------------------------------------------------------------- decisions

extension BorderRun {
    /// One source of `req:unit{…}`.
    func unit(_ source: Span<UInt8>, _ out: ValueWriter) -> String? {
        guard exchange != nil else { return "no request is running" }
        if source.equals("ip") {
            _ = field(MG_CLIENT_IP, out)
            return nil
        }
        var colon = 0
        while colon < source.count, source[colon] != 0x3a { colon += 1 }
        guard colon < source.count, colon + 1 < source.count else { return unknownUnit(source) }
        let kind = source.extracting(0..<colon)
        let name = source.extracting((colon + 1)..<source.count)
        let map: mg_map
        if kind.equals("cookie") {
            map = MG_REQ_COOKIES
        } else if kind.equals("header") {
            map = MG_REQ_HEADERS
        } else if kind.equals("query") {
            map = MG_QUERY
        } else {
            return unknownUnit(source)
        }
        var cursor: UInt64 = 0
        _ = mapValue(map, name, &cursor, out)
        return nil
    }

    private func unknownUnit(_ source: Span<UInt8>) -> String {
        let isLater = source.count > 4 && source.extracting(0..<4).equals("jwt:")
        unitRefusal = isLater ? MG_HOST_UNAVAILABLE : MG_HOST_ERROR
        if isLater {
            return "\"\(String(decoding: Self.array(source), as: UTF8.self))\" is not available in this version of "
                + "Moongate; name another source after it"
        }
        return "\"\(String(decoding: Self.array(source), as: UTF8.self))\" is no source of a unit; "
            + "there are \"cookie:NAME\", \"header:NAME\", \"query:NAME\" and \"ip\""
    }

    func tag(_ key: Span<UInt8>, _ value: ValueReader) -> String? {
        guard let exchange else { return "no request is running" }
        if key.isEmpty || key.count > 64 { return "a tag's name has 1 to 64 bytes" }
        if exchange.tags.count >= 64 { return "a request has at most 64 tags" }
        if let problem = value.withBytes(
            at: 0,
            { text -> String? in
                if text.count > 256 { return "a tag's value is longer than 256 bytes" }
                undo.willTag(exchange)
                exchange.tag(key, text)
                return nil
            })
        {
            return problem
        }
        let text: String
        switch value.value(at: 0) {
        case .bool(let flag): text = flag ? "true" : "false"
        case .integer(let number): text = String(number)
        case .number(let number): text = String(number)
        default: return "a tag's value is a string, a number or a boolean"
        }
        undo.willTag(exchange)
        exchange.tag(key, Array(text.utf8).span)
        return nil
    }

    func upstream(_ operation: mg_upstream_op, _ arguments: ValueReader) -> String? {
        guard let exchange, let scene = surroundings else { return "no request is running" }
        switch operation {
        case MG_UPSTREAM_USE:
            guard let (type, id) = arguments.handle(at: 0), type == scene.backendClass else {
                return "ctx.upstream:use takes a backend of ctx.config; declare it there with type = \"backend\""
            }
            guard let place = Int(exactly: id), scene.backends.indices.contains(place), scene.backends[place] >= 0
            else {
                return "this backend is not known"
            }
            var isStrict = false
            if arguments.count > 1, arguments.value(at: 1) != .nil {
                let problem = "the options of ctx.upstream:use are {strict = true}"
                guard let options = arguments.entries(at: 1, limit: 2) else { return problem }
                for option in options {
                    guard option.key.text == "strict", case .bool(let flag) = option.value else { return problem }
                    isStrict = flag
                }
            }
            undo.willDecide(exchange)
            exchange.upstream = exchange.client.isOverTLS ? scene.secureBackends[place] : scene.backends[place]
            exchange.isUpstreamChosen = true
            exchange.isUpstreamStrict = isStrict
        case MG_UPSTREAM_HASH_KEY:
            let key: UInt64
            switch arguments.value(at: 0) {
            case .bytes(let text): key = Self.hash(text)
            case .integer(let number): key = Self.hash(Array(String(number).utf8))
            default: return "ctx.upstream:hash_key takes a string or an integer"
            }
            undo.willDecide(exchange)
            exchange.hashKey = key == 0 ? 1 : key  // 0 means none
        case MG_UPSTREAM_TIMEOUT:
            guard let seconds = Self.seconds(arguments.value(at: 0)), seconds >= 0.001, seconds <= 86400 else {
                return "ctx.upstream:timeout takes seconds, or a duration such as \"500ms\", up to a day"
            }
            undo.willDecide(exchange)
            exchange.responseTimeout = UInt32(seconds * 1000)
        default:  // MG_UPSTREAM_RETRIES
            guard let count = arguments.integer(at: 0), (0...10).contains(count) else {
                return "ctx.upstream:retries takes an integer from 0 to 10"
            }
            undo.willDecide(exchange)
            exchange.retries = Int32(count)
        }
        return nil
    }

    /// FNV-1a, then mixed: the same on every replica and in every version.
    private static func hash(_ bytes: [UInt8]) -> UInt64 {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01b3 }
        hash ^= hash >> 33
        hash &*= 0xff51_afd7_ed55_8ccd
        hash ^= hash >> 33
        return hash
    }

    func sharedValue(_ key: Span<UInt8>, _ out: ValueWriter) -> Bool {
        guard let shared = values, !shared.values.isEmpty, let value = shared.values[Self.array(key)] else {
            return false
        }
        out.append(value)
        return true
    }

    func setShared(_ key: Span<UInt8>, _ value: LuaValue) -> String? {
        guard let shared = values else { return "ctx.shared is not available" }
        if key.count > 256 { return "a key of ctx.shared is longer than 256 bytes" }
        var size = 0
        if let problem = Self.weigh(value, &size) { return problem }
        undo.willShare(shared)
        let name = Self.array(key)
        if case .nil = value {
            shared.values[name] = nil
        } else {
            if shared.values.count >= ScriptShared.maxCount, shared.values[name] == nil {
                return "ctx.shared holds at most \(ScriptShared.maxCount) values"
            }
            shared.values[name] = value
        }
        return nil
    }

    /// Adds what a value of `ctx.shared` takes; returns why it cannot be one.
    private static func weigh(_ value: LuaValue, _ size: inout Int) -> String? {
        switch value {
        case .nil, .null, .bool, .integer, .number: size += 16
        case .bytes(let text): size += 16 + text.count
        case .list(let items):
            size += 32
            for item in items { if let problem = weigh(item, &size) { return problem } }
        case .map(let entries):
            size += 32
            for entry in entries {
                if let problem = weigh(entry.key, &size) ?? weigh(entry.value, &size) { return problem }
            }
        case .handle: return "an object of one script cannot be given to another by ctx.shared"
        case .opaque: return "a value of ctx.shared is a string, a number, a boolean, or a table of those"
        }
        return size > 65600 ? "a value of ctx.shared is longer than 64 KiB" : nil
    }

    /// The response object that the phase returned.
    func respond(status: Int64, fieldCount: Int, body: Span<UInt8>, field: (Int) -> (name: [UInt8], value: [UInt8]))
        -> String?
    {
        guard (200...599).contains(status) else { return "a response has a status from 200 to 599" }
        var made = ScriptResponse()
        made.status = UInt16(status)
        made.fields.reserveCapacity(fieldCount)
        for i in 0..<fieldCount {
            let (name, value) = field(i)
            if let problem = Self.problem(MG_EDIT_SET, name.span, value.span) { return problem }
            made.fields.append(ScriptResponse.Field(name: name, value: value))
        }
        if Self.hasNoBody(made.status), !body.isEmpty { return "a response with the status \(status) has no body" }
        made.body.append(body)
        response = made
        return nil
    }

    static func fieldProblem(_ name: Span<UInt8>, _ value: Span<UInt8>) -> String? {
        problem(MG_EDIT_SET, name, value)
    }
}
