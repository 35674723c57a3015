import Testing

@testable import Scripting

/// The numbers of SCRIPTING.md §10, which decided the algorithm.
@Suite struct SplitTests {
    typealias Weights = [(String, Double)]

    static let users: [[UInt8]] = (0..<40_000).map { Array("user-\($0)".utf8) }

    func assign(_ weights: Weights, experiment: String = "checkout", users: [[UInt8]] = Self.users) -> [String] {
        var split = Split()
        let variants = weights.map { Split.Variant($0.0, $0.1) }
        let name = Array(experiment.utf8)
        return users.map { user in
            guard let index = split.choose(experiment: name.span, variants: variants, unit: user.span) else {
                return ""
            }
            return weights[index].0
        }
    }

    func moved(_ a: [String], _ b: [String]) -> Double {
        Double(zip(a, b).count { $0.0 != $0.1 }) / Double(a.count) * 100
    }

    /// Envoy's scheme, for comparison: a point on a line that the weights cut into intervals, in order.
    func intervals(_ weights: Weights) -> [String] {
        let total = weights.reduce(0) { $0 + $1.1 }
        return Self.users.map { user in
            var point = Double(XXH64.hash(user.span) >> 11) * 0x1p-53 * total
            for (name, weight) in weights {
                if point < weight { return name }
                point -= weight
            }
            return ""
        }
    }

    struct Change: Sendable, CustomStringConvertible {
        var before: Weights
        var after: Weights
        var byIntervals: Double
        var byRendezvous: Double
        var description: String { "\(before.map(\.1)) → \(after.map(\.1))" }
    }

    static let changes = [
        Change(
            before: [("a", 34), ("b", 33), ("c", 33)], after: [("a", 50), ("b", 25), ("c", 25)], byIntervals: 24.0,
            byRendezvous: 15.9),
        Change(
            before: [("a", 80), ("b", 10), ("c", 10)], after: [("a", 60), ("b", 30), ("c", 10)], byIntervals: 20.0,
            byRendezvous: 22.0),
        Change(
            before: [("a", 80), ("b", 10), ("c", 10)], after: [("a", 60), ("b", 10), ("c", 30)], byIntervals: 30.0,
            byRendezvous: 22.0),
        Change(
            before: [("a", 50), ("b", 25), ("c", 25)], after: [("a", 40), ("b", 20), ("c", 20), ("d", 20)],
            byIntervals: 45.2, byRendezvous: 20.2),
        Change(
            before: [("a", 25), ("b", 25), ("c", 25), ("d", 25)], after: [("b", 25), ("c", 25), ("d", 25)],
            byIntervals: 49.8, byRendezvous: 24.8),
        Change(before: [("s", 90), ("c", 10)], after: [("s", 80), ("c", 20)], byIntervals: 10.0, byRendezvous: 10.1),
    ]

    /// Within three and a half standard deviations of the share that moves, for 40 000 users.
    @Test(arguments: changes)
    func usersMoved(_ change: Change) {
        func tolerance(_ percent: Double) -> Double {
            350 * (percent / 100 * (1 - percent / 100) / 40_000).squareRoot()
        }
        let share = moved(assign(change.before), assign(change.after))
        #expect(abs(share - change.byRendezvous) < tolerance(change.byRendezvous), "rendezvous moved \(share) %")
        let other = moved(intervals(change.before), intervals(change.after))
        #expect(abs(other - change.byIntervals) < tolerance(change.byIntervals), "intervals moved \(other) %")
    }

    @Test func sharesFollowTheWeights() {
        let seen = assign([("a", 50), ("b", 25), ("c", 25)])
        for (name, percent) in [("a", 50.0), ("b", 25), ("c", 25)] {
            let share = Double(seen.count { $0 == name }) / 400
            #expect(abs(share - percent) < 0.9, "\(name) has \(share) %")
        }
    }

    @Test func aRampNeverFlipsBack() {
        let users = Array(Self.users.prefix(10_000))
        var canary: Set<Int> = []
        for percent in [1.0, 5, 10, 20, 50, 80, 100] {
            let sides = assign([("canary", percent), ("stable", 100 - percent)], users: users)
            let now = Set(sides.indices.filter { sides[$0] == "canary" })
            #expect(canary.isSubset(of: now), "somebody left the canary at \(percent) %")
            canary = now
        }
        #expect(canary.count == users.count)
    }

    @Test func saltMakesExperimentsIndependent() {
        let weights: Weights = [("on", 10), ("off", 90)]
        func overlap(_ a: [String], _ b: [String]) -> Double {
            let both = zip(a, b).count { $0.0 == "on" && $0.1 == "on" }
            return Double(both) / Double(a.count { $0 == "on" }) * 100
        }
        let salted = overlap(assign(weights, experiment: "search"), assign(weights, experiment: "checkout"))
        // 10.2 % in the document; three and a half standard deviations for about 4 000 users.
        #expect(abs(salted - 10.2) < 1.7, "two experiments overlap by \(salted) %")
        let unsalted = overlap(assign(weights, experiment: ""), assign(weights, experiment: ""))
        #expect(unsalted == 100)
    }

    @Test func theOrderOfVariantsMeansNothing() {
        let forward = assign([("a", 1), ("b", 2), ("c", 3)])
        let backward = assign([("c", 3), ("b", 2), ("a", 1)])
        #expect(forward == backward)
    }

    @Test func layersShareNobody() {
        var split = Split()
        let layer = Array("pricing".utf8)
        var counts = [0, 0]
        for user in Self.users.prefix(4000) {
            let bucket = split.bucket(layer: layer.span, unit: user.span)
            #expect((0..<1000).contains(bucket))
            counts[bucket < 500 ? 0 : 1] += 1
        }
        #expect(abs(counts[0] - 2000) < 130)
    }

    /// These pin the encoding: another answer here means that every visitor of every user would be assigned anew.
    @Test func theAssignmentIsFixed() {
        let three = assign([("a", 50), ("b", 25), ("c", 25)], users: (0..<16).map { Array("u\($0)".utf8) }).joined()
        #expect(three == "aaaccabaaccbbacb")
        var split = Split()
        let layer = Array("pricing".utf8)
        let unit = Array("u1".utf8)
        #expect(split.bucket(layer: layer.span, unit: unit.span) == 974)
    }

    @Test func weightsOfZeroNeverWin() {
        #expect(Set(assign([("a", 0), ("b", 1)])) == ["b"])
        #expect(Set(assign([("a", 0)])) == [""])
    }
}
