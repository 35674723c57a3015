internal import Middlewares
// What the hosts of a publication ask of their clients' certificates, as the loops use it: found by the route in one step,
// and by the host only where no rule of it was matched. Made off the loops.
package import Model
internal import TLSEngine

package final class ClientRules: Sendable {
    struct Rule: Sendable {
        let authentication: ClientAuthentication
        let pattern: SubjectPattern?
        /// Nobody can be told from anybody: everything is answered with 403.
        let isBroken: Bool
        /// It closes the paths of an Ingress that may not decide for its host.
        let isDenied: Bool
        /// It is the rule of whatever host nobody else has: clients may come without a name.
        let isForAnyHost: Bool

        /// What the handshake must have been judged by; nil where nobody is asked for a certificate.
        var asked: ClientVerification? { authentication.mode == .off ? nil : authentication.verification }
    }

    let rules: [Rule]
    /// By route: -1 without.
    private let byRoute: [Int32]
    /// By host pattern, all of them: -1 without.
    private let byHost: [String: Int32]
    private let defaultRoute: Int32

    /// The rules of a snapshot and what is wrong with them; nil where no host asks for anything.
    package static func make(
        _ snapshot: Snapshot, unusable: Set<ClientVerification> = []
    ) -> (rules: ClientRules?, diagnostics: [Diagnostic]) {
        let asks = snapshot.hosts.contains { $0.clientAuthentication != nil }
        guard asks || snapshot.routes.contains(where: \.policy.isDenied) else { return (nil, []) }
        var diagnostics: [Diagnostic] = []
        let rules = ClientRules(snapshot, unusable, &diagnostics)
        return (rules, diagnostics)
    }

    private init(_ snapshot: Snapshot, _ unusable: Set<ClientVerification>, _ diagnostics: inout [Diagnostic]) {
        var rules: [Rule] = []
        var byRoute = [Int32](repeating: -1, count: snapshot.routes.count)
        var byHost: [String: Int32] = [:]
        for host in snapshot.hosts {
            var number: Int32 = -1
            if let authentication = host.clientAuthentication {
                number = Int32(truncatingIfNeeded: rules.count)
                rules.append(Self.rule(authentication, host.pattern, unusable, &diagnostics))
            }
            byHost[host.pattern.description] = number
            for route in host.routes where byRoute.indices.contains(route) { byRoute[route] = number }
        }
        // Of an Ingress that may not decide for its host.
        for (index, route) in snapshot.routes.enumerated() where route.policy.isDenied {
            byRoute[index] = Int32(truncatingIfNeeded: rules.count)
            rules.append(
                Rule(
                    authentication: ClientAuthentication(ingress: route.ingress), pattern: nil, isBroken: true,
                    isDenied: true, isForAnyHost: false))
        }
        self.rules = rules
        self.byRoute = byRoute
        self.byHost = byHost
        defaultRoute = Int32(truncatingIfNeeded: snapshot.defaultRoute ?? -1)
    }

    private static func rule(
        _ authentication: ClientAuthentication, _ host: HostPattern, _ unusable: Set<ClientVerification>,
        _ diagnostics: inout [Diagnostic]
    ) -> Rule {
        var pattern: SubjectPattern?
        var isBroken = authentication.verification.map(unusable.contains) ?? true
        if let text = authentication.subjectPattern {
            do throws(SubjectPattern.Problem) {
                pattern = try SubjectPattern(text)
            } catch {
                isBroken = true
                let diagnostic = CertificateCode.badClientRules.diagnostic(
                    "auth-tls-match-cn is \"\(text)\": \(error)", at: authentication.patternPlace,
                    mend: "write CN= and a regular expression; until then everything on the host answers 403")
                if !diagnostics.contains(diagnostic) { diagnostics.append(diagnostic) }
            }
        }
        return Rule(
            authentication: authentication, pattern: pattern, isBroken: isBroken, isDenied: false,
            isForAnyHost: host == .any)
    }

    /// Everything on the route is answered with 403.
    func isClosed(route: Int32) -> Bool {
        guard route >= 0, byRoute.indices.contains(Int(route)), byRoute[Int(route)] >= 0 else { return false }
        return rules[Int(byRoute[Int(route)])].isBroken
    }

    /// The number of the rule that a request is under; -1 without.
    /// - Parameters:
    ///   - route: what was matched, -1 if nothing.
    ///   - host: lower case, without port and trailing dot.
    func rule(route: Int32, host: Span<UInt8>) -> Int32 {
        if route >= 0, route != defaultRoute { return byRoute.indices.contains(Int(route)) ? byRoute[Int(route)] : -1 }
        // Nothing of the host was matched: the host is closed all the same.
        var bytes: [UInt8] = []
        bytes.append(host)
        if let found = byHost[String(decoding: bytes, as: UTF8.self)], !bytes.starts(with: "*".utf8) { return found }
        if let dot = bytes.firstIndex(of: UInt8(ascii: ".")), dot > 0,
            let found = byHost["*" + String(decoding: bytes[dot...], as: UTF8.self)]
        {
            return found
        }
        return byHost["*"] ?? -1
    }
}
