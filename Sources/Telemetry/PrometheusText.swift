// The text format that Prometheus reads (exposition format 0.0.4): a family at a time, its HELP and TYPE first.

package struct PrometheusText: Sendable {
    package static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    package private(set) var text = ""
    private var name = ""

    package init() {}

    /// Begins a family. Nothing is written for a family of which no sample follows but these two lines.
    package mutating func family(_ name: String, _ type: String, _ help: String) {
        self.name = name
        text += "# HELP \(name) \(Self.escapeHelp(help))\n# TYPE \(name) \(type)\n"
    }

    /// `labels` are rendered and escaped: `a="b",c="d"`.
    package mutating func sample(_ value: some BinaryInteger, labels: String = "", suffix: String = "") {
        line(suffix, labels, String(value))
    }

    package mutating func sample(_ value: Double, labels: String = "", suffix: String = "") {
        line(suffix, labels, Self.number(value))
    }

    private mutating func line(_ suffix: String, _ labels: String, _ value: String) {
        text += name
        text += suffix
        if !labels.isEmpty {
            text += "{"
            text += labels
            text += "}"
        }
        text += " "
        text += value
        text += "\n"
    }

    /// A histogram: counts of the buckets one by one (the last is beyond all bounds), turned into sums here.
    package mutating func histogram(bounds: [Double], counts: some Collection<UInt64>, sum: Double, labels: String) {
        let separator = labels.isEmpty ? "" : ","
        var total: UInt64 = 0
        for (i, count) in counts.enumerated() {
            total &+= count
            let bound = i < bounds.count ? Self.number(bounds[i]) : "+Inf"
            line("_bucket", "\(labels)\(separator)le=\"\(bound)\"", String(total))
        }
        line("_sum", labels, Self.number(sum))
        line("_count", labels, String(total))
    }

    package static func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
        if value == value.rounded(), abs(value) < 1e15 { return String(Int64(value)) }
        return "\(value)"
    }

    /// The inside of a label value: backslash, quote and line feed.
    package static func escape(_ value: String) -> String {
        guard value.utf8.contains(where: { $0 == 0x5c || $0 == 0x22 || $0 == 0x0a }) else { return value }
        var result = ""
        for character in value.unicodeScalars {
            switch character {
            case "\\": result += "\\\\"
            case "\"": result += "\\\""
            case "\n": result += "\\n"
            default: result.unicodeScalars.append(character)
            }
        }
        return result
    }

    private static func escapeHelp(_ help: String) -> String {
        help.split(separator: "\\", omittingEmptySubsequences: false).joined(separator: "\\\\")
            .split(separator: "\n", omittingEmptySubsequences: false).joined(separator: "\\n")
    }
}
