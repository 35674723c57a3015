// One line of the access log, written from the exchange straight into a loop's buffer: no String, no allocation once
// the buffer has grown.
//
// `bytes_in` counts the request's head and body as they were read, `bytes_out` the response's body as it was sent. The
// query is not logged: it is where secrets travel. User agent and referer are cut at 1,024 bytes; what was cut
// ends in `…` (`...` in text).
internal import Model

package enum AccessLogFormat: String, Sendable, Hashable, CaseIterable {
    case json
    case text
}

/// Writes lines; keeps the date of the last second.
struct AccessLogLine {
    static let mostFieldBytes = 1024

    let format: AccessLogFormat
    private var second: Int64 = .min
    private var date: [UInt8] = []
    private let userAgent = Array("user-agent".utf8)
    private let referer = Array("referer".utf8)

    init(format: AccessLogFormat) {
        self.format = format
    }

    /// Appends one line with its line feed. `wall` is the time of the end of the exchange, in nanoseconds since 1970.
    mutating func append(_ exchange: Exchange, _ labels: TelemetryLabels, wall: UInt64, to line: inout [UInt8]) {
        switch format {
        case .json: appendJSON(exchange, labels, wall: wall, to: &line)
        case .text: appendText(exchange, labels, wall: wall, to: &line)
        }
    }

    private mutating func appendJSON(
        _ exchange: Exchange, _ labels: TelemetryLabels, wall: UInt64, to line: inout [UInt8]
    ) {
        if exchange.relay >= 0 {
            appendRelayJSON(exchange, labels, wall: wall, to: &line)
            return
        }
        let request = exchange.request
        put("{\"time\":\"", &line)
        time(wall, &line)
        put("\",\"id\":\"", &line)
        json(request, exchange.idRange, &line)
        put("\",\"client\":\"", &line)
        Self.address(exchange.client.address.ip, &line)
        put("\",\"scheme\":\"", &line)
        put(exchange.client.isSecure ? "https" : "http", &line)
        if let channel = exchange.client.channel {
            put("\",\"tls\":\"", &line)
            line.append(contentsOf: channel.version)
            put("\",\"cipher\":\"", &line)
            line.append(contentsOf: channel.cipher)
            if !channel.serverName.isEmpty {
                put("\",\"sni\":\"", &line)
                LogEscape.json(channel.serverName, channel.serverName.indices, into: &line)
            }
            if let certificate = exchange.client.certificate {
                put("\",\"client_subject\":\"", &line)
                LogEscape.json(certificate.subject, certificate.subject.indices, into: &line)
                put("\",\"client_fingerprint\":\"", &line)
                line.append(contentsOf: certificate.fingerprint)
            }
        }
        put("\",\"protocol\":\"", &line)
        put(Self.name(of: request.version), &line)
        put("\",\"method\":\"", &line)
        json(request, request.methodRange, &line)
        put("\",\"host\":\"", &line)
        json(request, request.hostRange, &line)
        put("\",\"path\":\"", &line)
        json(request, Self.path(request), &line)
        put("\",\"status\":", &line)
        Self.decimal(UInt64(exchange.response.status), &line)
        put(",\"bytes_in\":", &line)
        Self.decimal(exchange.bytesIn, &line)
        put(",\"bytes_out\":", &line)
        Self.decimal(exchange.bytesOut, &line)
        if let coding = exchange.coding {
            put(",\"coding\":\"", &line)
            line.append(coding.name)
            put("\"", &line)
        }
        put(",\"duration_ms\":", &line)
        Self.thousandths(Self.span(exchange.started, exchange.finished) / 1000, &line)
        if exchange.upstreamStarted > 0 {
            put(",\"queue_ms\":", &line)
            Self.thousandths(Self.span(exchange.started, exchange.upstreamStarted) / 1000, &line)
            if exchange.upstreamAnswered > 0 {
                put(",\"upstream_ms\":", &line)
                Self.thousandths(Self.span(exchange.upstreamStarted, exchange.upstreamAnswered) / 1000, &line)
            }
        }
        put(",\"origin\":\"", &line)
        put(Self.name(of: exchange.origin), &line)
        if let route = Self.item(labels.routeNames, exchange.route) {
            put("\",\"route\":\"", &line)
            line.append(contentsOf: route.json)
        }
        if let upstream = Self.item(labels.upstreamNames, exchange.upstream) {
            put("\",\"upstream\":\"", &line)
            line.append(contentsOf: upstream.json)
        }
        if let endpoint = exchange.endpoint {
            put("\",\"endpoint\":\"", &line)
            Self.address(endpoint, &line)
        }
        if let channel = exchange.upstreamChannel {
            put("\",\"upstream_tls\":\"", &line)
            line.append(contentsOf: channel.version)
        }
        put("\",\"attempts\":", &line)
        Self.decimal(UInt64(exchange.attempts), &line)
        if exchange.grpcStatus >= 0 {
            put(",\"grpc_status\":", &line)
            Self.decimal(UInt64(exchange.grpcStatus), &line)
        }
        if exchange.reason != .none {
            put(",\"error\":\"", &line)
            put(exchange.reason.label, &line)
            put("\"", &line)
        }
        if exchange.fault != .none {
            put(",\"detail\":\"", &line)
            put(exchange.fault.label, &line)
            put("\"", &line)
        }
        if !exchange.scriptRuns.isEmpty {
            put(",\"scripts\":[", &line)
            for (i, run) in exchange.scriptRuns.enumerated() {
                put(i == 0 ? "{\"name\":\"" : ",{\"name\":\"", &line)
                if let name = Self.item(labels.scriptNames, run.script) { line.append(contentsOf: name.json) }
                if let version = Self.item(labels.scriptVersions, run.script), !version.json.isEmpty {
                    put("\",\"version\":\"", &line)
                    line.append(contentsOf: version.json)
                }
                put("\",\"us\":", &line)
                Self.tenths(UInt64(run.nanoseconds) / 100, &line)
                put(",\"outcome\":\"", &line)
                put(Self.name(of: run.outcome), &line)
                put("\"}", &line)
            }
            put("]", &line)
        }
        if !exchange.tags.isEmpty {
            put(",\"tags\":{", &line)
            for (i, tag) in exchange.tags.enumerated() {
                put(i == 0 ? "\"" : ",\"", &line)
                LogEscape.json(exchange.tagBytes, Self.valid(tag.name.range, exchange.tagBytes), into: &line)
                put("\":\"", &line)
                LogEscape.json(exchange.tagBytes, Self.valid(tag.value.range, exchange.tagBytes), into: &line)
                put("\"", &line)
            }
            put("}", &line)
        }
        if let index = Self.field(userAgent, in: request) {
            put(",\"user_agent\":\"", &line)
            jsonCut(request, request.fields[index].valueRange, &line)
            put("\"", &line)
        }
        if let index = Self.field(referer, in: request) {
            put(",\"referer\":\"", &line)
            jsonCut(request, request.fields[index].valueRange, &line)
            put("\"", &line)
        }
        put("}\n", &line)
    }

    /// `time client "METHOD scheme://host/path PROTOCOL" status key=value … "user agent" "referer"`; what is not there
    /// is `-`. Every line has the same columns.
    private mutating func appendText(
        _ exchange: Exchange, _ labels: TelemetryLabels, wall: UInt64, to line: inout [UInt8]
    ) {
        if exchange.relay >= 0 {
            appendRelayText(exchange, labels, wall: wall, to: &line)
            return
        }
        let request = exchange.request
        time(wall, &line)
        put(" ", &line)
        Self.address(exchange.client.address.ip, &line)
        put(" \"", &line)
        text(request, request.methodRange.range, &line)
        put(exchange.client.isSecure ? " https://" : " http://", &line)
        text(request, request.hostRange.range, &line)
        text(request, Self.path(request).range, &line)
        put(" ", &line)
        put(Self.name(of: request.version), &line)
        put("\" ", &line)
        Self.decimal(UInt64(exchange.response.status), &line)
        put(" in=", &line)
        Self.decimal(exchange.bytesIn, &line)
        put(" out=", &line)
        Self.decimal(exchange.bytesOut, &line)
        put(" ms=", &line)
        Self.thousandths(Self.span(exchange.started, exchange.finished) / 1000, &line)
        put(" queue_ms=", &line)
        optional(exchange.started, exchange.upstreamStarted, &line)
        put(" upstream_ms=", &line)
        optional(exchange.upstreamStarted, exchange.upstreamAnswered, &line)
        put(" origin=", &line)
        put(Self.name(of: exchange.origin), &line)
        put(" route=", &line)
        name(Self.item(labels.routeNames, exchange.route), &line)
        put(" upstream=", &line)
        name(Self.item(labels.upstreamNames, exchange.upstream), &line)
        put(" endpoint=", &line)
        if let endpoint = exchange.endpoint { Self.address(endpoint, &line) } else { put("-", &line) }
        put(" attempts=", &line)
        Self.decimal(UInt64(exchange.attempts), &line)
        put(" error=", &line)
        put(exchange.reason.label, &line)
        if exchange.fault != .none {
            put(":", &line)
            put(exchange.fault.label, &line)
        }
        put(" scripts=", &line)
        if exchange.scriptRuns.isEmpty { put("-", &line) }
        for (i, run) in exchange.scriptRuns.enumerated() {
            if i > 0 { put(",", &line) }
            name(Self.item(labels.scriptNames, run.script), &line)
            if let version = Self.item(labels.scriptVersions, run.script), !version.json.isEmpty {
                put("@", &line)
                line.append(contentsOf: version.text)
            }
            put(":", &line)
            Self.tenths(UInt64(run.nanoseconds) / 100, &line)
            put("us:", &line)
            put(Self.name(of: run.outcome), &line)
        }
        put(" tags=", &line)
        if exchange.tags.isEmpty { put("-", &line) }
        for (i, tag) in exchange.tags.enumerated() {
            if i > 0 { put(",", &line) }
            LogEscape.word(exchange.tagBytes, Self.valid(tag.name.range, exchange.tagBytes), into: &line)
            put(":", &line)
            LogEscape.word(exchange.tagBytes, Self.valid(tag.value.range, exchange.tagBytes), into: &line)
        }
        put(" tls=", &line)
        version(exchange.client.channel, &line)
        put(" upstream_tls=", &line)
        version(exchange.upstreamChannel, &line)
        put(" coding=", &line)
        if let coding = exchange.coding { line.append(coding.name) } else { put("-", &line) }
        put(" grpc_status=", &line)
        if exchange.grpcStatus >= 0 { Self.decimal(UInt64(exchange.grpcStatus), &line) } else { put("-", &line) }
        put(" id=", &line)
        LogEscape.word(request.bytes, Self.valid(exchange.idRange.range, request.bytes), into: &line)
        put(" \"", &line)
        quoted(Self.field(userAgent, in: request), request, &line)
        put("\" \"", &line)
        quoted(Self.field(referer, in: request), request, &line)
        put("\"\n", &line)
    }

    // MARK: Connections that are no HTTP

    private mutating func appendRelayJSON(
        _ exchange: Exchange, _ labels: TelemetryLabels, wall: UInt64, to line: inout [UInt8]
    ) {
        put("{\"time\":\"", &line)
        time(wall, &line)
        put("\",\"client\":\"", &line)
        Self.address(exchange.client.address.ip, &line)
        put("\",\"protocol\":\"", &line)
        put(exchange.isSession ? "UDP" : "TCP", &line)
        put("\",\"port\":", &line)
        Self.decimal(UInt64(exchange.localPort), &line)
        if let service = Self.item(labels.relayNames, exchange.relay) {
            put(",\"service\":\"", &line)
            line.append(contentsOf: service.json)
            put("\"", &line)
        }
        if !exchange.serverName.isEmpty {
            put(",\"sni\":\"", &line)
            LogEscape.json(exchange.serverName, exchange.serverName.indices, into: &line)
            put("\"", &line)
        }
        if exchange.isSession {
            put(",\"datagrams_in\":", &line)
            Self.decimal(exchange.datagramsIn, &line)
            put(",\"datagrams_out\":", &line)
            Self.decimal(exchange.datagramsOut, &line)
        }
        put(",\"bytes_in\":", &line)
        Self.decimal(exchange.bytesIn, &line)
        put(",\"bytes_out\":", &line)
        Self.decimal(exchange.bytesOut, &line)
        put(",\"duration_ms\":", &line)
        Self.thousandths(Self.span(exchange.started, exchange.finished) / 1000, &line)
        if exchange.upstreamStarted > 0 {
            put(",\"queue_ms\":", &line)
            Self.thousandths(Self.span(exchange.started, exchange.upstreamStarted) / 1000, &line)
        }
        if let upstream = Self.item(labels.upstreamNames, exchange.upstream) {
            put(",\"upstream\":\"", &line)
            line.append(contentsOf: upstream.json)
            put("\"", &line)
        }
        if let endpoint = exchange.endpoint {
            put(",\"endpoint\":\"", &line)
            Self.address(endpoint, &line)
            put("\"", &line)
        }
        put(",\"attempts\":", &line)
        Self.decimal(UInt64(exchange.attempts), &line)
        if exchange.reason != .none {
            put(",\"error\":\"", &line)
            put(exchange.reason.label, &line)
            put("\"", &line)
        }
        put("}\n", &line)
    }

    /// `time client "TCP port sni" in=… out=… ms=… queue_ms=… service=… upstream=… endpoint=… attempts=… error=…`
    private mutating func appendRelayText(
        _ exchange: Exchange, _ labels: TelemetryLabels, wall: UInt64, to line: inout [UInt8]
    ) {
        time(wall, &line)
        put(" ", &line)
        Self.address(exchange.client.address.ip, &line)
        put(exchange.isSession ? " \"UDP " : " \"TCP ", &line)
        Self.decimal(UInt64(exchange.localPort), &line)
        put(" ", &line)
        if exchange.serverName.isEmpty { put("-", &line) }
        LogEscape.text(exchange.serverName, exchange.serverName.indices, into: &line)
        put("\"", &line)
        if exchange.isSession {
            put(" datagrams_in=", &line)
            Self.decimal(exchange.datagramsIn, &line)
            put(" datagrams_out=", &line)
            Self.decimal(exchange.datagramsOut, &line)
        }
        put(" in=", &line)
        Self.decimal(exchange.bytesIn, &line)
        put(" out=", &line)
        Self.decimal(exchange.bytesOut, &line)
        put(" ms=", &line)
        Self.thousandths(Self.span(exchange.started, exchange.finished) / 1000, &line)
        put(" queue_ms=", &line)
        optional(exchange.started, exchange.upstreamStarted, &line)
        put(" service=", &line)
        name(Self.item(labels.relayNames, exchange.relay), &line)
        put(" upstream=", &line)
        name(Self.item(labels.upstreamNames, exchange.upstream), &line)
        put(" endpoint=", &line)
        if let endpoint = exchange.endpoint { Self.address(endpoint, &line) } else { put("-", &line) }
        put(" attempts=", &line)
        Self.decimal(UInt64(exchange.attempts), &line)
        put(" error=", &line)
        put(exchange.reason.label, &line)
        put("\n", &line)
    }

    // MARK: Pieces

    /// The canonical path; where the request was refused before it had one, its target up to the query.
    private static func path(_ request: borrowing MessageHead) -> ByteRange {
        if !request.pathRange.isEmpty { return request.pathRange }
        let range = valid(request.targetRange.range, request.bytes)
        let end = request.bytes[range].firstIndex(of: UInt8(ascii: "?")) ?? range.upperBound
        return ByteRange(offset: range.lowerBound, count: end - range.lowerBound)
    }

    /// Literals only: these are not allocated.
    @inline(__always)
    private func put(_ literal: String, _ line: inout [UInt8]) { line.append(contentsOf: literal.utf8) }

    private func version(_ channel: SecureChannel?, _ line: inout [UInt8]) {
        if let channel { line.append(contentsOf: channel.version) } else { put("-", &line) }
    }

    private func json(_ head: borrowing MessageHead, _ range: ByteRange, _ line: inout [UInt8]) {
        LogEscape.json(head.bytes, Self.valid(range.range, head.bytes), into: &line)
    }

    private func jsonCut(_ head: borrowing MessageHead, _ range: Range<Int>, _ line: inout [UInt8]) {
        let range = Self.valid(range, head.bytes)
        LogEscape.json(head.bytes, range.prefix(Self.mostFieldBytes), into: &line)
        if range.count > Self.mostFieldBytes { put("\\u2026", &line) }
    }

    private func text(_ head: borrowing MessageHead, _ range: Range<Int>, _ line: inout [UInt8]) {
        LogEscape.text(head.bytes, Self.valid(range, head.bytes), into: &line)
    }

    private func quoted(_ index: Int?, _ head: borrowing MessageHead, _ line: inout [UInt8]) {
        guard let index else { return put("-", &line) }
        let range = Self.valid(head.fields[index].valueRange, head.bytes)
        LogEscape.text(head.bytes, range.prefix(Self.mostFieldBytes), into: &line)
        if range.count > Self.mostFieldBytes { put("...", &line) }
    }

    private func name(_ name: LogName?, _ line: inout [UInt8]) {
        if let name { line.append(contentsOf: name.text) } else { put("-", &line) }
    }

    private func optional(_ from: UInt64, _ to: UInt64, _ line: inout [UInt8]) {
        if to > 0 { Self.thousandths(Self.span(from, to) / 1000, &line) } else { put("-", &line) }
    }

    /// A range of an arena; an empty one in place of a range that points outside.
    private static func valid(_ range: Range<Int>, _ bytes: [UInt8]) -> Range<Int> {
        range.upperBound <= bytes.count ? range : 0..<0
    }

    private static func span(_ from: UInt64, _ to: UInt64) -> UInt64 { to > from ? to - from : 0 }

    private static func item(_ names: [LogName], _ index: Int32) -> LogName? {
        index >= 0 && Int(index) < names.count ? names[Int(index)] : nil
    }

    private static func field(_ name: [UInt8], in head: borrowing MessageHead) -> Int? {
        for i in head.fields.indices {
            let field = head.fields[i]
            guard field.name == .other, Int(field.nameCount) == name.count, !field.isRemoved else { continue }
            let base = Int(field.nameOffset)
            guard base + name.count <= head.bytes.count else { continue }
            var k = 0
            while k < name.count, MessageHead.lower(head.bytes[base + k]) == name[k] { k += 1 }
            if k == name.count { return i }
        }
        return nil
    }

    private static func name(of version: HTTPVersion) -> String {
        switch version {
        case .http10: "HTTP/1.0"
        case .http11: "HTTP/1.1"
        case .http2: "HTTP/2.0"
        }
    }

    private static func name(of origin: ResponseOrigin) -> String {
        switch origin {
        case .none: "none"
        case .upstream: "upstream"
        case .script: "script"
        case .moongate: "moongate"
        }
    }

    private static func name(of outcome: ScriptRun.Outcome) -> String {
        switch outcome {
        case .next: "next"
        case .responded: "responded"
        case .failed: "failed"
        case .skipped: "skipped"
        }
    }

    // MARK: Numbers

    static func decimal(_ value: UInt64, _ line: inout [UInt8]) {
        if value < 10 { return line.append(48 + UInt8(truncatingIfNeeded: value)) }
        var digits = InlineArray<20, UInt8>(repeating: 0)
        var n = 20
        var rest = value
        while rest > 0 {
            n -= 1
            let (quotient, digit) = rest.quotientAndRemainder(dividingBy: 10)
            digits[n] = 48 + UInt8(truncatingIfNeeded: digit)
            rest = quotient
        }
        while n < 20 {
            line.append(digits[n])
            n += 1
        }
    }

    /// A number of thousandths as `12.345`.
    static func thousandths(_ value: UInt64, _ line: inout [UInt8]) {
        decimal(value / 1000, &line)
        line.append(UInt8(ascii: "."))
        padded(value % 1000, 3, &line)
    }

    private static func tenths(_ value: UInt64, _ line: inout [UInt8]) {
        decimal(value / 10, &line)
        line.append(UInt8(ascii: "."))
        decimal(value % 10, &line)
    }

    private static func padded(_ value: UInt64, _ width: Int, _ line: inout [UInt8]) {
        var divisor: UInt64 = 1
        for _ in 1..<width { divisor *= 10 }
        while divisor > 0 {
            line.append(48 + UInt8(truncatingIfNeeded: value / divisor % 10))
            divisor /= 10
        }
    }

    static func address(_ address: SocketAddress, _ line: inout [UInt8]) {
        if !address.ip.isV4 { line.append(UInt8(ascii: "[")) }
        Self.address(address.ip, &line)
        if !address.ip.isV4 { line.append(UInt8(ascii: "]")) }
        line.append(UInt8(ascii: ":"))
        decimal(UInt64(address.port), &line)
    }

    /// Dotted IPv4, or IPv6 in the canonical form of RFC 5952, as `IPAddress.description` but without a String.
    static func address(_ ip: IPAddress, _ line: inout [UInt8]) {
        if ip.isV4 {
            for i in 0..<4 {
                let shift = UInt32(24 - 8 * i)
                if i > 0 { line.append(UInt8(ascii: ".")) }
                decimal(UInt64(ip.v4 >> shift & 255), &line)
            }
            return
        }
        @inline(__always)
        func group(_ i: Int) -> UInt16 {
            UInt16(truncatingIfNeeded: (i < 4 ? ip.high : ip.low) >> UInt64(48 - 16 * (i & 3)))
        }
        var bestStart = 8
        var bestCount = 1
        var i = 0
        while i < 8 {
            var j = i
            while j < 8, group(j) == 0 { j += 1 }
            if j - i > bestCount {
                bestStart = i
                bestCount = j - i
            }
            i = max(j, i + 1)
        }
        i = 0
        while i < 8 {
            if i == bestStart {
                line.append(UInt8(ascii: ":"))
                line.append(UInt8(ascii: ":"))
                i += bestCount
                continue
            }
            if i > 0, i != bestStart + bestCount { line.append(UInt8(ascii: ":")) }
            var isLeading = true
            for k in 0..<4 {
                let shift = UInt16(12 - 4 * k)
                let digit = UInt8(truncatingIfNeeded: group(i) >> shift & 15)
                if digit == 0, isLeading, shift > 0 { continue }
                isLeading = false
                line.append(digit < 10 ? digit + 48 : digit + 87)
            }
            i += 1
        }
    }

    // MARK: Time

    /// `2026-11-24T17:30:05.123Z` (RFC 3339).
    private mutating func time(_ wall: UInt64, _ line: inout [UInt8]) {
        let seconds = Int64(wall / 1_000_000_000)
        if seconds != second {
            second = seconds
            date.removeAll(keepingCapacity: true)
            Self.date(seconds, &date)
        }
        line.append(contentsOf: date)
        line.append(UInt8(ascii: "."))
        Self.padded(wall / 1_000_000 % 1000, 3, &line)
        line.append(UInt8(ascii: "Z"))
    }

    /// Days since 1970 to a date of the Gregorian calendar: years are counted from March, so that the leap day is last.
    private static func date(_ seconds: Int64, _ line: inout [UInt8]) {
        let days = seconds / 86400
        let ofDay = UInt64(seconds % 86400)
        let shifted = days + 719_468
        let era = shifted / 146_097
        let dayOfEra = shifted % 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let month = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * month + 2) / 5 + 1
        let civilMonth = month < 10 ? month + 3 : month - 9
        let year = yearOfEra + era * 400 + (civilMonth <= 2 ? 1 : 0)
        padded(UInt64(year), 4, &line)
        line.append(UInt8(ascii: "-"))
        padded(UInt64(civilMonth), 2, &line)
        line.append(UInt8(ascii: "-"))
        padded(UInt64(day), 2, &line)
        line.append(UInt8(ascii: "T"))
        padded(ofDay / 3600, 2, &line)
        line.append(UInt8(ascii: ":"))
        padded(ofDay / 60 % 60, 2, &line)
        line.append(UInt8(ascii: ":"))
        padded(ofDay % 60, 2, &line)
    }
}
