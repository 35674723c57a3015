// What a client can read (RFC 9110 §12.5.3), and what that means for a response that could be sent in several codings.

package import Model

/// The weights of one request's Accept-Encoding lines, in thousandths.
package struct AcceptEncoding: Sendable, Hashable {
    /// -1: not named. Indexed by the coding's raw value; 0 is identity.
    private var weights = InlineArray<4, Int16>(repeating: -1)
    private var others: Int16 = -1

    package static func == (a: Self, b: Self) -> Bool {
        a.others == b.others && (0..<4).allSatisfy { a.weights[$0] == b.weights[$0] }
    }
    package func hash(into hasher: inout Hasher) {
        hasher.combine(others)
        for i in 0..<4 { hasher.combine(weights[i]) }
    }

    /// A client that says nothing: it gets the response as it is.
    package init() {}

    package init(_ head: borrowing MessageHead) {
        let name: StaticString = "accept-encoding"
        for i in head.fields.indices {
            let field = head.fields[i]
            guard field.name == .other, Int(field.nameCount) == name.utf8CodeUnitCount, !field.isRemoved,
                head.bytes.span.extracting(field.nameRange).equalsIgnoringCase(name)
            else { continue }
            read(head.bytes.span.extracting(field.valueRange))
        }
    }

    package init(_ value: Span<UInt8>) { read(value) }

    /// Reads one line. An element that is none (a weight that is no number, a second parameter) names nothing.
    private mutating func read(_ value: Span<UInt8>) {
        var start = 0
        while start <= value.count {
            let end = value.firstIndex(of: 0x2c, from: start, to: value.count)
            readElement(MessageHead.trimmed(value.extracting(start..<end)))
            start = end + 1
        }
    }

    private mutating func readElement(_ element: Span<UInt8>) {
        let semicolon = element.firstIndex(of: 0x3b, from: 0, to: element.count)
        let name = MessageHead.trimmed(element.extracting(0..<semicolon))
        var weight: Int16 = 1000
        if semicolon < element.count {
            guard let read = Self.weight(MessageHead.trimmed(element.extracting((semicolon + 1)..<element.count)))
            else { return }
            weight = read
        }
        if name.equals("*") {
            if others < 0 { others = weight }
            return
        }
        let index: Int
        if name.equalsIgnoringCase("identity") {
            index = 0
        } else if name.equalsIgnoringCase("gzip") || name.equalsIgnoringCase("x-gzip") {
            // RFC 9110 §8.4.1.3: the old name is the same coding.
            index = Int(ContentCoding.gzip.rawValue)
        } else if name.equalsIgnoringCase("br") {
            index = Int(ContentCoding.brotli.rawValue)
        } else if name.equalsIgnoringCase("zstd") {
            index = Int(ContentCoding.zstd.rawValue)
        } else {
            return
        }
        // Named twice: the first counts.
        if weights[index] < 0 { weights[index] = weight }
    }

    /// `q=0.5` in thousandths (RFC 9110 §12.4.2).
    private static func weight(_ text: Span<UInt8>) -> Int16? {
        guard text.count >= 3, text.count <= 7, text[0] | 0x20 == 0x71, text[1] == 0x3d else { return nil }
        let whole = text[2] &- 48
        guard whole <= 1 else { return nil }
        var value = Int16(whole) * 1000
        guard text.count > 3 else { return value }
        guard text[3] == 0x2e else { return nil }
        var scale: Int16 = 100
        for i in 4..<text.count {
            let digit = text[i] &- 48
            guard digit < 10 else { return nil }
            value += Int16(digit) * scale
            scale /= 10
        }
        return value <= 1000 ? value : nil
    }

    /// The client does not want the response as it is.
    package var refusesIdentity: Bool { weights[0] == 0 || weights[0] < 0 && others == 0 }

    /// The coding that the client prefers among `codings`, of equal ones the first; nil where it gets the response as it
    /// is: because it reads none of them, or likes that better.
    package func choose(from codings: CodingList) -> ContentCoding? {
        var best: ContentCoding?
        var bestWeight: Int16 = 0
        var index = 0
        while let coding = codings[index] {
            index += 1
            let named = weights[Int(coding.rawValue)]
            let weight = named >= 0 ? named : others
            if weight > bestWeight {
                best = coding
                bestWeight = weight
            }
        }
        return bestWeight >= weights[0] ? best : nil
    }
}
