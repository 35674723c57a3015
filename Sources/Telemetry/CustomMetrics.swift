// Metrics that scripts name themselves. A tenant must not be able to grow the memory or the page of figures without end:
// each script has 64 sets of labels per metric and 64 metrics; what is beyond is folded into one set, `other`.

package enum CustomMetricKind: UInt8, Sendable {
    case counter
    case gauge
    case histogram

    var label: String {
        switch self {
        case .counter: "counter"
        case .gauge: "gauge"
        case .histogram: "histogram"
        }
    }
}

struct CustomMetrics: Sendable {
    static let mostMetrics = 64
    static let mostLabelSets = 64
    static let mostLabels = 8
    static let mostValueBytes = 128
    /// In the unit that the script uses; seconds by Prometheus' custom.
    static let bounds: [Double] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10]

    enum Answer {
        case recorded
        case folded
        case refused
    }

    struct Key: Hashable, Sendable {
        var script: String
        var name: String
    }

    struct Series: Sendable {
        /// The value of a counter or gauge, the sum of a histogram.
        var value: Double = 0
        var buckets: [UInt64] = []
    }

    struct Metric: Sendable {
        var kind: CustomMetricKind
        /// By the rendered labels: `{a="b"}`, or the empty string.
        var series: [String: Series] = [:]
    }

    private(set) var metrics: [Key: Metric] = [:]
    private var metricsOfScript: [String: Int] = [:]

    mutating func record(
        _ kind: CustomMetricKind, name: String, labels: [(name: String, value: String)], value: Double, script: String
    ) -> Answer {
        guard Self.isName(name), !Self.isReserved(name), labels.count <= Self.mostLabels, value.isFinite else {
            return .refused
        }
        guard labels.allSatisfy({ Self.isName($0.name) && $0.name != "script" && $0.name != "le" }) else {
            return .refused
        }
        if kind == .counter, value < 0 { return .refused }
        var key = Key(script: script, name: name)
        var isFolded = false
        if metrics[key] == nil {
            if metricsOfScript[script, default: 0] >= Self.mostMetrics {
                key.name = "other_\(kind.label)"
                isFolded = true
            } else {
                metricsOfScript[script, default: 0] += 1
            }
        }
        var metric = metrics.removeValue(forKey: key) ?? Metric(kind: kind)
        defer { metrics[key] = metric }
        guard metric.kind == kind else { return .refused }
        var set = isFolded ? "" : Self.render(labels)
        if metric.series[set] == nil, metric.series.count >= Self.mostLabelSets {
            set = labels.isEmpty ? "" : "other=\"true\""
            isFolded = true
        }
        var series = metric.series.removeValue(forKey: set) ?? Series()
        switch kind {
        case .counter: series.value += value
        case .gauge: series.value = value
        case .histogram:
            series.value += value
            if series.buckets.isEmpty { series.buckets = [UInt64](repeating: 0, count: Self.bounds.count + 1) }
            series.buckets[Self.bounds.firstIndex { value <= $0 } ?? Self.bounds.count] &+= 1
        }
        metric.series[set] = series
        return isFolded ? .folded : .recorded
    }

    /// Adds another loop's figures. Gauges are added too: what scripts set per loop is a share of the whole.
    mutating func merge(_ other: CustomMetrics) {
        for (key, theirs) in other.metrics {
            guard var ours = metrics.removeValue(forKey: key) else {
                metrics[key] = theirs
                continue
            }
            if ours.kind == theirs.kind {
                for (set, series) in theirs.series {
                    var sum = ours.series.removeValue(forKey: set) ?? Series()
                    sum.value += series.value
                    if sum.buckets.isEmpty { sum.buckets = [UInt64](repeating: 0, count: series.buckets.count) }
                    for i in series.buckets.indices where i < sum.buckets.count { sum.buckets[i] &+= series.buckets[i] }
                    ours.series[set] = sum
                }
            }
            metrics[key] = ours
        }
    }

    private static func isName(_ name: String) -> Bool {
        guard let first = name.utf8.first, name.utf8.count <= 64, !(48...57).contains(first) else { return false }
        return name.utf8.allSatisfy { byte in
            (97...122).contains(byte | 0x20) || (48...57).contains(byte) || byte == UInt8(ascii: "_")
        }
    }

    /// Names that stand for Moongate's own figures of scripts: all are exposed as `moongate_script_…`.
    private static let reserved = [
        "runs_total", "errors_total", "breaker_open", "breaker_skips_total", "cpu_seconds", "log_lines_dropped_total",
        "labels_folded_total", "shadow_diff_total", "other_counter", "other_gauge", "other_histogram",
    ]

    private static func isReserved(_ name: String) -> Bool {
        reserved.contains { name == $0 || ["_bucket", "_sum", "_count"].contains(name.replacing($0, with: "")) }
    }

    private static func render(_ labels: [(name: String, value: String)]) -> String {
        labels.sorted { $0.name < $1.name }.map { label in
            "\(label.name)=\"\(PrometheusText.escape(String(label.value.prefix(mostValueBytes))))\""
        }.joined(separator: ",")
    }
}
