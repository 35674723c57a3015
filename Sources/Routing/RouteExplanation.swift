// Why a request went where it went: the matcher itself, listened to.
package import Model

/// Hears what the matcher does. The matcher is generic over it, so that traffic pays nothing.
protocol MatchRecorder {
    /// A kind of host pattern was tried; `found` is an index into `Snapshot.hosts`, or -1.
    mutating func tried(_ kind: RouteExplanation.HostStep.Kind, found: Int32)
    /// A prefix of the path is known to the host, and `route` answers there; -1 if no rule does.
    mutating func visited(_ slot: RouteTable.PathSlot, answering route: Int32)
}

struct NoRecorder: MatchRecorder {
    @inline(__always)
    mutating func tried(_ kind: RouteExplanation.HostStep.Kind, found: Int32) {}
    @inline(__always)
    mutating func visited(_ slot: RouteTable.PathSlot, answering route: Int32) {}
}

/// What the router considered for one request, and why each lost or won.
package struct RouteExplanation: Sendable, Equatable {
    package var host: String
    package var path: String
    package var match: RouteMatch
    package var hostSteps: [HostStep]
    /// The rules of the host pattern that was chosen: the winner, then those that matched too, then the others.
    package var candidates: [Candidate]
    /// Rules of that host that did not match and are not listed, because there are too many.
    package var omitted: Int
    /// One sentence.
    package var conclusion: String

    package struct HostStep: Sendable, Equatable {
        package enum Kind: String, Sendable, Hashable {
            case exact
            case wildcard
            case any
        }
        package var kind: Kind
        /// The pattern that was found; nil if there is none of this kind for the host.
        package var pattern: HostPattern?
    }

    package struct Candidate: Sendable, Equatable {
        package enum Verdict: Sendable, Equatable {
            case chosen
            /// It matches, but that route has a longer path, or an Exact one.
            case outranked(by: Int32)
            /// An earlier rule says the same.
            case shadowed(by: Int32)
            case pathDiffers
        }
        /// Index into `Snapshot.routes`.
        package var route: Int32
        package var verdict: Verdict
    }

    /// How many rules that do not match are listed.
    package static let mostListed = 50
}

private struct Recorder: MatchRecorder {
    var hosts: [(kind: RouteExplanation.HostStep.Kind, found: Int32)] = []
    var answers: [Int32] = []

    mutating func tried(_ kind: RouteExplanation.HostStep.Kind, found: Int32) { hosts.append((kind, found)) }

    mutating func visited(_ slot: RouteTable.PathSlot, answering route: Int32) {
        // The rules of this prefix that match as well, those that lose to an Exact one at the same place included.
        for other in [slot.below, route] where other >= 0 && !answers.contains(other) { answers.append(other) }
    }
}

extension RouteTable {
    /// Matches as `match` does, by the same code, and tells what was considered.
    package func explain(host: String, path: String) -> RouteExplanation {
        let hostBytes = Array(host.utf8)
        let pathBytes = Array(path.utf8)
        var recorder = Recorder()
        let match = match(host: hostBytes.span, path: pathBytes.span, recorder: &recorder)

        let steps = recorder.hosts.map { step in
            RouteExplanation.HostStep(
                kind: step.kind, pattern: step.found >= 0 ? snapshot.hosts[Int(step.found)].pattern : nil)
        }
        let chosenHost = recorder.hosts.last.flatMap { $0.found >= 0 ? snapshot.hosts[Int($0.found)] : nil }
        var first: [RouteExplanation.Candidate] = []
        var second: [RouteExplanation.Candidate] = []
        var rest: [RouteExplanation.Candidate] = []
        var omitted = 0
        for index in chosenHost?.routes ?? [] where snapshot.routes.indices.contains(index) {
            let route = Int32(truncatingIfNeeded: index)
            if route == match.route, match.kind == .rule {
                first.append(.init(route: route, verdict: .chosen))
            } else if let winner = shadowed[route], recorder.answers.contains(winner) {
                second.append(.init(route: route, verdict: .shadowed(by: winner)))
            } else if recorder.answers.contains(route), Self.doesMatch(snapshot.routes[index].path, path) {
                second.append(.init(route: route, verdict: .outranked(by: match.route)))
            } else if rest.count < RouteExplanation.mostListed {
                rest.append(.init(route: route, verdict: .pathDiffers))
            } else {
                omitted += 1
            }
        }
        return RouteExplanation(
            host: host, path: path, match: match, hostSteps: steps, candidates: first + second + rest, omitted: omitted,
            conclusion: conclusion(match, host: host, chosen: chosenHost))
    }

    /// Whether a pattern that was met on the way speaks of the whole path: a Prefix at its prefix always does, but
    /// `/a` beside `/a/` answers only `/a`.
    private static func doesMatch(_ pattern: PathPattern, _ path: String) -> Bool {
        switch pattern {
        case .exact(let exact): exact == path
        case .prefix: true
        }
    }

    private func conclusion(_ match: RouteMatch, host: String, chosen: VirtualHost?) -> String {
        switch match.kind {
        case .rule:
            let route = snapshot.routes[Int(match.route)]
            return "\(route.path) of host \(route.host) matches: \(route.ingress), \(route.rule)"
        case .defaultRoute, .none:
            let end = match.kind == .none ? "there is no default backend: 404" : "the default backend answers"
            guard let chosen else { return "no rule speaks of host \"\(host)\"; \(end)" }
            return "host \(chosen.pattern) has no path that matches, and other hosts do not stand in; \(end)"
        }
    }
}

extension RouteExplanation: CustomStringConvertible {
    package var description: String { conclusion }
}
