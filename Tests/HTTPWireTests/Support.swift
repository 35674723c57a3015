// What the tests of this room share: bytes in, heads and bytes out.

import Model

@testable import HTTPWire

func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

/// Parses `input` in one piece.
func parse(
    _ input: [UInt8], _ kind: HeadParser.Kind = .request, limits: HeadLimits = HeadLimits()
) -> (progress: HeadProgress, head: MessageHead) {
    var parser = HeadParser(kind)
    var head = MessageHead()
    let progress = parser.parse(input.span, limits: limits, into: &head)
    return (progress, head)
}

/// Parses `input` in the pieces that `cuts` makes of it, and tells how much of the whole was consumed.
func parse(
    _ input: [UInt8], _ kind: HeadParser.Kind = .request, cutAt cuts: [Int], limits: HeadLimits = HeadLimits()
) -> (progress: HeadProgress, head: MessageHead) {
    var parser = HeadParser(kind)
    var head = MessageHead()
    var start = 0
    for cut in cuts + [input.count] {
        let piece = Array(input[start..<cut])
        switch parser.parse(piece.span, limits: limits, into: &head) {
        case .needMore: start = cut
        case .complete(let consumed): return (.complete(consumed: start + consumed), head)
        case .refuse(let refusal): return (.refuse(refusal), head)
        }
    }
    return (.needMore, head)
}

/// Everything that a head says, as text: two heads that say the same are equal here, wherever their bytes lie.
func summary(_ head: MessageHead) -> String {
    var lines = [
        "\(head.method) \(head.text(head.methodRange)) \(head.text(head.targetRange)) \(head.version)"
            + " \(head.status) \(head.text(head.reasonRange))"
    ]
    for field in head.fields {
        lines.append(
            "\(field.name) \(field.flags.rawValue) \(head.text(field.nameRange)): \(head.text(field.valueRange))")
    }
    return lines.joined(separator: "\n")
}

/// Parses and judges a whole request.
func admit(
    _ text: String, rules: AdmissionRules = AdmissionRules(), isTrusted: Bool = false
) -> (admission: RequestAdmission?, head: MessageHead) { admit(bytes(text), rules: rules, isTrusted: isTrusted) }

func admit(
    _ input: [UInt8], rules: AdmissionRules = AdmissionRules(), isTrusted: Bool = false
) -> (admission: RequestAdmission?, head: MessageHead) {
    var (progress, head) = parse(input)
    switch progress {
    case .needMore: return (nil, head)
    case .refuse(let refusal): return (.refuse(refusal), head)
    case .complete: return (RequestAdmission.judge(&head, rules, isTrusted: isTrusted), head)
    }
}

extension RequestAdmission {
    var facts: RequestFacts? {
        if case .admit(let facts) = self { facts } else { nil }
    }
    var status: UInt16? {
        if case .refuse(let refusal) = self { refusal.status } else { nil }
    }
}

extension ResponseAdmission {
    var facts: ResponseFacts? {
        if case .admit(let facts) = self { facts } else { nil }
    }
}

/// Parses and judges a whole response.
func admitResponse(
    _ text: String, method: Method = .get, upgrade: UpgradeWish = .none, key: String = ""
) -> (admission: ResponseAdmission?, head: MessageHead) {
    var (progress, head) = parse(bytes(text), .response)
    switch progress {
    case .needMore: return (nil, head)
    case .refuse(let refusal): return (.refuse(refusal), head)
    case .complete:
        let key = bytes(key)
        return (ResponseAdmission.judge(&head, method: method, upgrade: upgrade, key: key.span), head)
    }
}

/// Runs `body` over an output of `capacity` bytes and returns what it wrote.
func output(_ capacity: Int = 65536, _ body: (inout OutputRawSpan) -> Void) -> String {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: capacity, alignment: 8)
    defer { unsafe memory.deallocate() }
    var span = unsafe OutputRawSpan(buffer: memory, initializedCount: 0)
    body(&span)
    let count = unsafe span.finalize(for: memory)
    return unsafe String(decoding: UnsafeRawBufferPointer(memory)[0..<count], as: UTF8.self)
}

/// The data of a body, its trailers, how it ended, and how much of the input belongs to it; the input comes in pieces
/// of `step` bytes.
func decode(
    _ input: [UInt8], _ framing: BodyFraming, step: Int = .max, limits: HeadLimits = HeadLimits()
) -> (data: [UInt8], trailers: MessageHead, last: BodyEvent, consumed: Int) {
    var decoder = BodyDecoder(framing)
    var trailers = MessageHead()
    var data: [UInt8] = []
    var start = 0
    repeat {
        let piece = Array(input[start..<min(input.count, step == .max ? input.count : start + step)])
        var offset = 0
        events: while true {
            let event = unsafe decoder.next(piece.span.bytes, at: &offset, limits: limits, trailers: &trailers)
            switch event {
            case .data(let range): data += piece[range]
            case .needMore: break events
            case .end, .failed: return (data, trailers, event, start + offset)
            }
        }
        start += piece.count
    } while start < input.count
    return (data, trailers, .needMore, start)
}

/// A small generator with a seed, so that a failure can be repeated.
struct Random: RandomNumberGenerator {
    var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}

// Spans cannot stand inside an expectation; these take arrays.

extension HeadParser {
    mutating func feed(_ input: [UInt8], _ head: inout MessageHead) -> HeadProgress {
        parse(input.span, limits: HeadLimits(), into: &head)
    }
}

extension BodyDecoder {
    mutating func feed(_ input: [UInt8], at offset: inout Int) -> BodyEvent {
        var trailers = MessageHead()
        return unsafe next(input.span.bytes, at: &offset, limits: HeadLimits(), trailers: &trailers)
    }
}
