// What must hold for any bytes at all. The fuzz targets of Tests/Fuzz run these checks over what the fuzzer makes up, and
// `FailCaseTests` runs them over everything that was ever found.

internal import HTTPWire
internal import Model

enum FuzzChecks {
    /// A problem with these bytes as heads, or nil.
    static func head(_ input: [UInt8]) -> String? {
        for kind in [HeadParser.Kind.request, .response, .trailers] {
            if let problem = cuts(input, kind) { return "\(kind): \(problem)" }
        }
        return request(input) ?? response(input)
    }

    /// In pieces the answer is the same as in one.
    private static func cuts(_ input: [UInt8], _ kind: HeadParser.Kind) -> String? {
        let (whole, wholeHead) = parse(input, kind, step: input.count)
        if case .refuse = whole, let problem = outside(wholeHead) { return problem }
        if case .complete(let consumed) = whole, consumed > input.count { return "consumed \(consumed)" }
        for step in [1, Int(input.first ?? 0) + 1] {
            let (parts, partsHead) = parse(input, kind, step: step)
            if case .refuse = parts, let problem = outside(partsHead) { return problem }
            guard parts == whole else { return "whole \(whole), in steps of \(step) \(parts)" }
            if case .complete = whole {
                guard partsHead.bytes == wholeHead.bytes, partsHead.fields == wholeHead.fields,
                    partsHead.targetRange == wholeHead.targetRange, partsHead.method == wholeHead.method
                else { return "another head in steps of \(step)" }
            }
        }
        return nil
    }

    /// A refused head is answered and logged: what it speaks of must be in it.
    private static func outside(_ head: MessageHead) -> String? {
        var ranges = [head.methodRange.range, head.targetRange.range]
        for field in head.fields { ranges += [field.nameRange, field.valueRange] }
        let count = head.bytes.count
        return ranges.contains { $0.upperBound > count } ? "a refused head speaks of bytes that it has not" : nil
    }

    private static func parse(_ input: [UInt8], _ kind: HeadParser.Kind, step: Int) -> (HeadProgress, MessageHead) {
        var parser = HeadParser(kind)
        var head = MessageHead()
        let limits = HeadLimits(headBytes: 2048, fieldCount: 20, lineBytes: 512, targetBytes: 256)
        var start = 0
        repeat {
            let end = min(start + max(step, 1), input.count)
            switch parser.parse(input.span.extracting(start..<end), limits: limits, into: &head) {
            case .needMore: start = end
            case .complete(let consumed): return (.complete(consumed: start + consumed), head)
            case .refuse(let refusal): return (.refuse(refusal), head)
            }
        } while start < input.count
        return (.needMore, head)
    }

    /// What is admitted and written is one request, with one framing, and means what it meant.
    private static func request(_ input: [UInt8]) -> String? {
        var (progress, head) = parse(input, .request, step: input.count)
        guard case .complete = progress,
            case .admit(let facts) = RequestAdmission.judge(&head, AdmissionRules(), isTrusted: false)
        else { return nil }
        let id = Forwarding.requestID(of: &head, random: (1, 2))
        let forwarding = ForwardingText(peer: IPAddress(v4: 0x0a00_0001), isSecure: true, port: 443)
        let options = HeadWriter.RequestOptions(
            body: facts.body, upgrade: facts.upgrade, upgradeRange: facts.upgradeRange,
            expectsContinue: facts.expectsContinue)
        var outcome = HeadWriter.Outcome.written
        let written = output {
            outcome = HeadWriter.write(request: head, options, forwarding: forwarding, id: id, to: &$0)
        }
        guard outcome == .written else { return "an admitted request was not written: \(outcome)" }
        var parser = HeadParser(.request)
        var again = MessageHead()
        guard parser.parse(written.span, limits: HeadLimits(), into: &again) == .complete(consumed: written.count)
        else {
            return "what was written is not one head"
        }
        // An HTTP/1.0 request without a host is written with an empty one, which a strict server refuses.
        if head.hostRange.isEmpty { return nil }
        guard case .admit(let same) = RequestAdmission.judge(&again, AdmissionRules(), isTrusted: true) else {
            return "what was written is not admitted"
        }
        guard same.body == facts.body, same.upgrade == facts.upgrade, same.expectsContinue == facts.expectsContinue
        else {
            return "what was written says \(same), not \(facts)"
        }
        guard again.text(again.pathRange) == head.text(head.pathRange),
            again.text(again.hostRange) == head.text(head.hostRange),
            again.text(again.methodRange) == head.text(head.methodRange), again.hasQuery == head.hasQuery,
            again.text(again.queryRange) == head.text(head.queryRange)
        else { return "what was written is for something else" }
        let framing = again.fields.filter { $0.name == .contentLength || $0.name == .transferEncoding }
        guard framing.count <= 1 else { return "two framing fields" }
        let peers = again.fields.filter { $0.name == .xForwardedFor }
        guard peers.count == 1, again.text(peers[0].valueRange) == "10.0.0.1" else { return "a spoofed address" }
        return nil
    }

    private static func response(_ input: [UInt8]) -> String? {
        for method in [Method.get, .head] {
            var (progress, head) = parse(input, .response, step: input.count)
            let key: [UInt8] = []
            guard case .complete = progress,
                case .admit(let facts) = ResponseAdmission.judge(&head, method: method, key: key.span)
            else { return nil }
            var outcome = HeadWriter.Outcome.written
            let options = HeadWriter.ResponseOptions(body: facts.body, declaredLength: facts.declaredLength)
            let written = output { outcome = HeadWriter.write(response: head, options, date: [], to: &$0) }
            guard outcome == .written else { return "an admitted response was not written: \(outcome)" }
            var parser = HeadParser(.response)
            var again = MessageHead()
            guard parser.parse(written.span, limits: HeadLimits(), into: &again) == .complete(consumed: written.count)
            else { return "what was written is not one head" }
            guard case .admit(let same) = ResponseAdmission.judge(&again, method: method, key: key.span),
                same.body == facts.body, same.declaredLength == facts.declaredLength, again.status == head.status
            else { return "what was written says something else" }
        }
        return nil
    }

    /// A problem with these bytes as a chunked body, or nil. The first byte says in which steps it arrives.
    static func chunks(_ input: [UInt8]) -> String? {
        guard let first = input.first else { return nil }
        let body = Array(input.dropFirst())
        let whole = decode(body, step: body.count)
        for step in [1, Int(first) + 1] {
            let parts = decode(body, step: step)
            guard parts.last == whole.last, parts.last != .failed ? parts.data == whole.data : true else {
                return "whole \(whole.last), in steps of \(step) \(parts.last)"
            }
            if whole.last == .end, parts.consumed != whole.consumed { return "another end in steps of \(step)" }
        }
        guard whole.last == .end else { return nil }
        // Coded again, it is the same data, and ends where it ends.
        var wire = whole.data.isEmpty ? [] : output { ChunkEncoder.writeSize(whole.data.count, to: &$0) }
        wire += whole.data
        if !whole.data.isEmpty { wire += [0x0d, 0x0a] }
        var outcome = HeadWriter.Outcome.written
        wire += output { outcome = ChunkEncoder.writeLast(whole.trailers, to: &$0) }
        guard outcome == .written else { return "admitted trailers were not written" }
        let again = decode(wire + [0x47], step: wire.count + 1)
        guard again.last == .end, again.data == whole.data, again.consumed == wire.count else {
            return "coded again it is another body"
        }
        return nil
    }

    private static func decode(
        _ input: [UInt8], step: Int
    ) -> (data: [UInt8], trailers: MessageHead, last: BodyEvent, consumed: Int) {
        var decoder = ChunkDecoder()
        var trailers = MessageHead()
        var data: [UInt8] = []
        let limits = HeadLimits(headBytes: 512, fieldCount: 5, lineBytes: 128, targetBytes: 128)
        var start = 0
        while start < input.count {
            let piece = Array(input[start..<min(start + max(step, 1), input.count)])
            var offset = 0
            events: while true {
                let event = decoder.next(piece.span, at: &offset, limits: limits, trailers: &trailers)
                switch event {
                case .data(let range):
                    guard range.upperBound <= piece.count, !range.isEmpty else { return (data, trailers, .failed, -1) }
                    data += piece[range]
                case .needMore: break events
                case .end, .failed: return (data, trailers, event, start + offset)
                }
            }
            start += piece.count
        }
        return (data, trailers, .needMore, start)
    }

    private static func output(_ body: (inout OutputRawSpan) -> Void) -> [UInt8] {
        // Proof: the memory is larger than any head of the limits above can be written to, lives until the copy is
        // made, and only its initialised part is read.
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 16384, alignment: 8)
        defer { unsafe memory.deallocate() }
        var span = unsafe OutputRawSpan(buffer: memory, initializedCount: 0)
        body(&span)
        let count = unsafe span.finalize(for: memory)
        return unsafe Array(UnsafeRawBufferPointer(memory)[0..<count])
    }
}
