// What must hold for whatever a connection begins with, before anything is known of it: run by the fuzz target
// `FuzzOpening`, and by the unit tests over their tables and over what was ever found.

internal import HTTPWire
internal import Model

enum OpeningChecks {
    /// A problem with these bytes as the opening of a connection, or nil.
    static func opening(_ input: [UInt8]) -> String? { proxyHeader(input) ?? clientHello(input) }

    /// However it is cut, there is one answer, and it comes as soon as it can.
    private static func proxyHeader(_ input: [UInt8]) -> String? {
        var settled: ProxyHeader.Progress?
        for count in 0...min(input.count, ProxyHeader.maxCount + 32) {
            let progress = ProxyHeader.parse(input.span.extracting(first: count))
            if let settled {
                guard progress == settled else { return "\(settled), then with \(count) bytes \(progress)" }
                continue
            }
            switch progress {
            case .needMore:
                if count >= ProxyHeader.maxCount { return "\(count) bytes, and no answer" }
            case .complete(let header, let consumed):
                guard consumed == count else { return "complete with \(count) bytes, but \(consumed) consumed" }
                if let problem = rewritten(header) { return problem }
                settled = progress
            case .failed: settled = progress
            }
        }
        return nil
    }

    /// What we would say of the same connection is read as the same.
    private static func rewritten(_ header: ProxyHeader) -> String? {
        guard let ends = header.ends else { return nil }
        for version in ProxyProtocolVersion.allCases {
            var bytes: [UInt8] = []
            header.write(version, to: &bytes)
            guard ProxyHeader.parse(bytes.span) == .complete(header, consumed: bytes.count) else {
                return "written as \(version.rawValue), \(ends) is something else"
            }
        }
        return nil
    }

    private static func clientHello(_ input: [UInt8]) -> String? {
        var settled: ClientHello.Progress?
        var scan = ClientHello.Scan()
        for changeSeals in [false, true] {
            var (whole, cut) = (ClientHello.Size(), ClientHello.Size())
            let isFit = whole.isFit(input.span, changeSeals: changeSeals)
            var stays = true
            for i in 0..<input.count { stays = cut.isFit(input.span.extracting(i..<i + 1), changeSeals: changeSeals) }
            if stays != isFit { return "a length that \(isFit ? "fits" : "does not fit"), and otherwise byte by byte" }
        }
        // Every cut of a short one, some of a long one.
        let step = max(1, input.count / 512)
        for count in stride(from: 0, through: input.count, by: step) {
            let progress = ClientHello.parse(input.span.extracting(first: count))
            if settled == nil {
                let next = scan.next(input.span.extracting(first: count))
                guard next == progress else { return "\(progress), but going on with \(count) bytes \(next)" }
            }
            if let settled {
                guard progress == settled else { return "\(settled), then with \(count) bytes \(progress)" }
                continue
            }
            switch progress {
            case .needMore:
                if count >= ClientHello.maxCount { return "\(count) bytes, and no answer" }
            case .complete(let name):
                if name.count > 255 { return "a name of \(name.count) bytes" }
                settled = progress
            case .other: settled = progress
            }
        }
        return nil
    }
}
