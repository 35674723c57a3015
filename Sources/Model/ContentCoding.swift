// Content codings (RFC 9110 §8.4.1), and which of them an operator or an Ingress wants for its responses.

/// A coding that responses may be compressed with.
package enum ContentCoding: UInt8, Sendable, Hashable, CaseIterable {
    /// RFC 1952.
    case gzip = 1
    /// RFC 7932.
    case brotli
    /// RFC 8878.
    case zstd

    /// As it stands in `Content-Encoding`, in annotations and in metrics.
    package var name: StaticString {
        switch self {
        case .gzip: "gzip"
        case .brotli: "br"
        case .zstd: "zstd"
        }
    }

    package init?(name: some StringProtocol) {
        switch name {
        case "gzip": self = .gzip
        case "br": self = .brotli
        case "zstd": self = .zstd
        default: return nil
        }
    }

    /// How hard each tries, 1 being fast. Bounded by what an event loop may be held up: beyond, a response of some
    /// hundred KiB would take tens of milliseconds from everybody.
    package var levels: ClosedRange<Int> {
        switch self {
        case .gzip: 1...9
        case .brotli: 0...6
        case .zstd: 1...6
        }
    }
}

/// Codings by preference, each at most once, in one word: a policy is copied for each request.
package struct CodingList: Sendable, Hashable {
    private var bits: UInt32 = 0

    package init() {}

    package init(_ codings: [ContentCoding]) {
        for coding in codings { append(coding) }
    }

    @inline(__always)
    package var isEmpty: Bool { bits == 0 }

    /// The `index`th, 0 being the first; nil beyond the last.
    package subscript(_ index: Int) -> ContentCoding? {
        ContentCoding(rawValue: UInt8(truncatingIfNeeded: bits >> UInt32(8 * (index & 3))))
    }

    /// Appends one that is not there yet; false if it is.
    @discardableResult
    package mutating func append(_ coding: ContentCoding) -> Bool {
        var index = 0
        while let present = self[index] {
            if present == coding { return false }
            index += 1
        }
        bits |= UInt32(coding.rawValue) << UInt32(8 * index)
        return true
    }

    /// What is preferred where nobody says otherwise: for the same time zstd makes the smallest responses and gzip the
    /// largest (the measurements are in the decision note).
    package static var standard: CodingList { CodingList([.zstd, .brotli, .gzip]) }
}

extension CodingList: CustomStringConvertible {
    package var description: String {
        isEmpty ? "off" : (0..<4).compactMap { self[$0].map { "\($0.name)" } }.joined(separator: ",")
    }
}

/// What somebody wants compressed: `off`, `on`, codings by preference, and whether responses to requests with secrets
/// are among it.
package struct CompressionChoice: Sendable, Hashable {
    package enum Codings: Sendable, Hashable {
        /// Those of whoever stands above: the operator's, or all.
        case inherited
        case off
        case these(CodingList)
    }

    package var codings: Codings
    /// Also responses that belong to a secret (`CompressionRule`).
    package var coversSecrets: Bool

    package init(codings: Codings, coversSecrets: Bool = false) {
        self.codings = codings
        self.coversSecrets = coversSecrets
    }

    /// Reads `off`, `on`, `gzip`, `br, gzip`, each but `off` with `always` behind it if secrets are covered too; `always`
    /// alone is `on, always`. Nil for anything else.
    package init?(_ text: some StringProtocol) {
        var list = CodingList()
        var isOn = false
        var isOff = false
        var always = false
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            let word = part.drop { $0 == " " || $0 == "\t" }.prefix { $0 != " " && $0 != "\t" }
            let rest = part.drop { $0 == " " || $0 == "\t" }.dropFirst(word.count)
            guard rest.allSatisfy({ $0 == " " || $0 == "\t" }), !always else { return nil }
            switch word {
            case "off":
                guard !isOff else { return nil }
                isOff = true
            case "on":
                guard !isOn else { return nil }
                isOn = true
            case "always": always = true
            case _:
                guard let coding = ContentCoding(name: word), list.append(coding) else { return nil }
            }
        }
        if isOff {
            guard !isOn, !always, list.isEmpty else { return nil }
            self.init(codings: .off)
        } else if list.isEmpty {
            guard isOn || always else { return nil }
            self.init(codings: .inherited, coversSecrets: always)
        } else {
            guard !isOn else { return nil }
            self.init(codings: .these(list), coversSecrets: always)
        }
    }
}

extension CompressionChoice: CustomStringConvertible {
    /// As it is read.
    package var description: String {
        let codings =
            switch codings {
            case .inherited: "on"
            case .off: "off"
            case .these(let list): list.description
            }
        return coversSecrets ? "\(codings),always" : codings
    }
}

/// How hard each coding tries.
package struct CodingLevels: Sendable, Hashable {
    package var gzip = 1
    package var brotli = 4
    package var zstd = 3

    package init() {}

    package subscript(_ coding: ContentCoding) -> Int {
        get {
            switch coding {
            case .gzip: gzip
            case .brotli: brotli
            case .zstd: zstd
            }
        }
        set {
            switch coding {
            case .gzip: gzip = newValue
            case .brotli: brotli = newValue
            case .zstd: zstd = newValue
            }
        }
    }

    /// Reads `gzip=1,br=4,zstd=3`, any of them; nil for anything else, and for levels that there are not.
    package init?(_ text: some StringProtocol) {
        self.init()
        var seen = CodingList()
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            let sides = String(part.filter { $0 != " " }).split(separator: "=", omittingEmptySubsequences: false)
            guard sides.count == 2, let coding = ContentCoding(name: sides[0]), let level = Int(sides[1]),
                coding.levels.contains(level), seen.append(coding)
            else { return nil }
            self[coding] = level
        }
    }
}
