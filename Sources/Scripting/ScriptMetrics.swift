// `moongate.metrics`, and what the engine itself counts about scripts. Shared by all loops: a cell is looked up under a
// lock once, and held by its VM from then on.

import Synchronization

/// A counter, a gauge or a histogram with one set of labels.
package final class ScriptMetricCell: Sendable {
    struct Value {
        var sum = 0.0
        var count: UInt64 = 0
        /// By upper bound; not cumulative.
        var buckets: [UInt64] = []
    }

    /// In seconds, Prometheus's own.
    package static let bounds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

    private let value = Mutex(Value())

    package func add(_ amount: Double) { value.withLock { $0.sum += amount } }
    package func set(_ amount: Double) { value.withLock { $0.sum = amount } }

    package func observe(_ amount: Double) {
        let bucket = Self.bounds.firstIndex { amount <= $0 } ?? Self.bounds.count
        value.withLock { value in
            if value.buckets.isEmpty { value.buckets = [UInt64](repeating: 0, count: Self.bounds.count + 1) }
            value.buckets[bucket] += 1
            value.count += 1
            value.sum += amount
        }
    }

    var current: Value { value.withLock { $0 } }
}

package final class ScriptMetrics: Sendable {
    package enum Kind: String, Sendable, Hashable, CaseIterable {
        case counter
        case gauge
        case histogram
    }

    package struct Label: Sendable, Hashable, Comparable {
        package var name: String
        package var value: String

        package init(_ name: String, _ value: String) {
            self.name = name
            self.value = value
        }

        package static func < (a: Self, b: Self) -> Bool { (a.name, a.value) < (b.name, b.value) }
    }

    package struct Refusal: Error, Sendable, Hashable {
        package var message: String
    }

    package static let prefix = "moongate_script_"
    /// A version of a script that is loaded or being loaded. While it lives its metrics do; what no version of its script
    /// names any more is gone with it, so that what an edit makes of a name is not held against what it was.
    package final class Tenant: Sendable {
        /// Among all tenants.
        package let script: String
        let number: UInt64
        private let metrics: ScriptMetrics

        init(_ script: String, _ number: UInt64, _ metrics: ScriptMetrics) {
            self.script = script
            self.number = number
            self.metrics = metrics
        }

        deinit { metrics.leave(script, number) }
    }

    /// Sets of labels of one metric of one script; the rest is folded.
    package static let labelSets = 64
    /// Metrics of one script.
    package static let families = 64

    private struct FamilyKey: Hashable {
        var name: String
        var kind: Kind
    }

    private struct Family {
        var cells: [[Label]: ScriptMetricCell] = [:]
        /// Sets of labels by script.
        var sets: [String: Int] = [:]
    }

    private struct State {
        var families: [FamilyKey: Family] = [:]
        /// The kind that stands under the plain name: the first one. What another script takes for the name later stands
        /// under the name with its kind behind, so that no tenant can spoil another's metric.
        var firstKinds: [String: Kind] = [:]
        /// By script, then by the number of its version, then by name.
        var kinds: [String: [UInt64: [String: Kind]]] = [:]
        var folded: [String: UInt64] = [:]
        var lastNumber: UInt64 = 0
    }

    /// The engine's own names below the prefix, which scripts cannot take.
    private static let reserved: Set<String> = [
        "runs_total", "errors_total", "cpu_seconds", "cpu_seconds_bucket", "cpu_seconds_sum", "cpu_seconds_count",
        "breaker_open", "memory_bytes", "labels_folded_total", "log_lines_suppressed_total", "log_lines_dropped_total",
    ]

    private let state = Mutex(State())

    package init() {}

    /// Each version of a script enters before its metrics are looked up.
    package func enter(_ script: String) -> Tenant {
        let number = state.withLock { state in
            state.lastNumber += 1
            state.kinds[script, default: [:]][state.lastNumber] = [:]
            return state.lastNumber
        }
        return Tenant(script, number, self)
    }

    private func leave(_ script: String, _ number: UInt64) {
        state.withLock { state in
            guard let gone = state.kinds[script]?.removeValue(forKey: number) else { return }
            let others = state.kinds[script] ?? [:]
            if others.isEmpty {
                state.kinds[script] = nil
                state.folded[script] = nil
            }
            for (name, kind) in gone where !others.values.contains(where: { $0[name] == kind }) {
                let place = FamilyKey(name: name, kind: kind)
                let own = Label("script", script)
                if var family = state.families.removeValue(forKey: place) {
                    family.sets[script] = nil
                    family.cells = family.cells.filter { !$0.key.contains(own) }
                    if !family.cells.isEmpty {
                        state.families[place] = family
                        continue
                    }
                }
                // The plain name is free again, or goes to a kind that is still there.
                if state.firstKinds[name] == kind {
                    state.firstKinds[name] = Kind.allCases.first {
                        state.families[FamilyKey(name: name, kind: $0)] != nil
                    }
                }
            }
        }
    }

    /// The cell of a metric, made at its first use. The script becomes a label of its own. Beyond the cap the values of
    /// all labels are `other`, and each such look-up is counted.
    package func cell(
        _ kind: Kind, _ name: String, _ labels: [Label], of tenant: Tenant
    ) -> Result<(cell: ScriptMetricCell, folded: Bool), Refusal> {
        guard Self.isName(name), name.utf8.count <= 128 else {
            return .failure(Refusal(message: "a metric's name is letters, digits and _, and begins with no digit"))
        }
        if Self.reserved.contains(name) {
            return .failure(Refusal(message: "\"\(name)\" is a metric of Moongate itself; take another name"))
        }
        guard labels.count <= 8 else { return .failure(Refusal(message: "a metric has at most 8 labels")) }
        for label in labels {
            guard Self.isName(label.name), !label.name.hasPrefix("__"), label.name != "le", label.name != "script",
                label.name.utf8.count <= 64
            else { return .failure(Refusal(message: "\"\(label.name)\" cannot be the name of a label")) }
            guard label.value.utf8.count <= 128 else {
                return .failure(Refusal(message: "the value of label \(label.name) is longer than 128 bytes"))
            }
        }
        let script = tenant.script
        let own = Label("script", script)
        let key = (labels + [own]).sorted()
        return state.withLock { state in
            if let known = state.kinds[script]?[tenant.number]?[name] {
                guard known == kind else {
                    return .failure(Refusal(message: "\"\(name)\" is a \(known.rawValue) already"))
                }
            } else {
                guard state.kinds[script]?[tenant.number, default: [:]].count ?? 0 < Self.families else {
                    return .failure(Refusal(message: "a script has at most \(Self.families) metrics"))
                }
                state.kinds[script]?[tenant.number]?[name] = kind
                if state.firstKinds[name] == nil { state.firstKinds[name] = kind }
            }
            let place = FamilyKey(name: name, kind: kind)
            let family = state.families[place] ?? Family()
            if let cell = family.cells[key] { return .success((cell, false)) }
            let sets = family.sets[script, default: 0]
            guard sets < Self.labelSets else {
                state.folded[script, default: 0] += 1
                let other = (labels.map { Label($0.name, "other") } + [own]).sorted()
                if let cell = family.cells[other] { return .success((cell, true)) }
                let cell = ScriptMetricCell()
                state.families[place, default: family].cells[other] = cell
                return .success((cell, true))
            }
            let cell = ScriptMetricCell()
            state.families[place, default: family].sets[script] = sets + 1
            state.families[place, default: family].cells[key] = cell
            return .success((cell, false))
        }
    }

    /// Look-ups that were folded, by script.
    package var folded: [String: UInt64] { state.withLock { $0.folded } }

    private static func isName(_ text: String) -> Bool {
        guard let first = text.utf8.first, !(48...57).contains(first) else { return false }
        return text.utf8.allSatisfy {
            (97...122).contains($0) || (65...90).contains($0) || (48...57).contains($0) || $0 == 95
        }
    }

    // MARK: Prometheus text

    /// Appends every metric in the text format of Prometheus, sorted by name.
    package func write(to text: inout String) {
        let (all, firstKinds) = state.withLock { ($0.families, $0.firstKinds) }
        let families = all.map { place, family in
            let suffix = firstKinds[place.name] == place.kind ? "" : "_" + place.kind.rawValue
            return (name: Self.prefix + place.name + suffix, kind: place.kind, cells: family.cells)
        }
        for family in families.sorted(by: { $0.name < $1.name }) {
            let full = family.name
            text += "# HELP \(full) Named by a script.\n# TYPE \(full) \(family.kind.rawValue)\n"
            for (labels, cell) in family.cells.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) }) {
                let value = cell.current
                guard family.kind == .histogram else {
                    text += "\(full)\(Self.braces(labels)) \(Self.number(value.sum))\n"
                    continue
                }
                var total: UInt64 = 0
                for (i, bound) in ScriptMetricCell.bounds.enumerated() {
                    if i < value.buckets.count { total += value.buckets[i] }
                    text += "\(full)_bucket\(Self.braces(labels + [Label("le", Self.number(bound))])) \(total)\n"
                }
                text += "\(full)_bucket\(Self.braces(labels + [Label("le", "+Inf")])) \(value.count)\n"
                text += "\(full)_sum\(Self.braces(labels)) \(Self.number(value.sum))\n"
                text += "\(full)_count\(Self.braces(labels)) \(value.count)\n"
            }
        }
        let folded = folded
        guard !folded.isEmpty else { return }
        let full = Self.prefix + "labels_folded_total"
        text += "# HELP \(full) Look-ups of sets of labels beyond a script's number.\n# TYPE \(full) counter\n"
        for (script, count) in folded.sorted(by: { $0.key < $1.key }) {
            text += "\(full)\(Self.braces([Label("script", script)])) \(count)\n"
        }
    }

    package static func braces(_ labels: [Label]) -> String {
        if labels.isEmpty { return "" }
        let list = labels.map { label in
            var value = ""
            for letter in label.value.unicodeScalars {
                switch letter {
                case "\\": value += "\\\\"
                case "\"": value += "\\\""
                case "\n": value += "\\n"
                default: value.unicodeScalars.append(letter)
                }
            }
            return "\(label.name)=\"\(value)\""
        }
        return "{" + list.joined(separator: ",") + "}"
    }

    package static func number(_ value: Double) -> String {
        if let whole = Int64(exactly: value) { return String(whole) }
        return value.isNaN ? "NaN" : value.isInfinite ? (value > 0 ? "+Inf" : "-Inf") : String(value)
    }
}
