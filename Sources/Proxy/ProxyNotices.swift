// What happens on the path and concerns the operator: counted where it happens, and told by whoever writes the log, not
// more often than once in a while, because clients decide how often it happens.
package import Model
internal import Synchronization

/// The codes of this room's diagnostics, in one table from which the documentation prints its page.
package enum ProxyCode: String, CaseIterable, Sendable {
    case portNotOpened = "MG208"
    case badProxyHeader = "MG209"
    case portShared = "MG210"

    package var name: String {
        switch self {
        case .portNotOpened: "port-not-opened"
        case .badProxyHeader: "bad-proxy-header"
        case .portShared: "port-shared"
        }
    }

    package var severity: Severity {
        switch self {
        case .portNotOpened: .error
        case .badProxyHeader, .portShared: .warning
        }
    }

    /// What the finding means, for the documentation.
    package var meaning: String {
        switch self {
        case .portNotOpened: "The port of a TCP or UDP service cannot be listened on; the service is not served."
        case .portShared:
            "Another process listens on the port of a TCP or UDP service too, and gets a part of what comes."
        case .badProxyHeader:
            "A trusted proxy's connection does not begin with a PROXY protocol header as it should, and is closed."
        }
    }

    func diagnostic(_ problem: String, at place: Place, mend: String) -> Diagnostic {
        Diagnostic(severity, rawValue, name, problem: problem, place: place, mend: mend)
    }
}

/// Shared by the loops, which write, and the log's writer, which takes.
package final class ProxyNotices: Sendable {
    /// Seconds between two words about the same.
    package static let pause: Int64 = 60

    private struct Entry: Sendable {
        var count = 0
        var peer = SocketAddress(ip: IPAddress(v4: 0), port: 0)
        /// Where the last was accepted.
        var port: UInt16 = 0
        var kind = ListenerKind.http
        var told: Int64?
    }

    private let entries = Mutex([Entry](repeating: Entry(), count: ProxyHeaderFault.allCases.count))

    private let ports = Mutex<[Diagnostic]>([])

    package init() {}

    /// Told once: nobody sees when the other process has ended.
    func note(portShared diagnostic: Diagnostic) { ports.withLock { $0.append(diagnostic) } }

    func note(_ fault: ProxyHeaderFault, from peer: SocketAddress, port: UInt16, kind: ListenerKind) {
        entries.withLock { entries in
            let before = entries[Int(fault.rawValue)]
            entries[Int(fault.rawValue)] = Entry(
                count: before.count + 1, peer: peer, port: port, kind: kind, told: before.told)
        }
    }

    /// What is to be told now. `now` in seconds of any clock that does not run back.
    package func take(now: Int64) -> [Diagnostic] {
        let shared = ports.withLock { ports in
            defer { ports = [] }
            return ports
        }
        return shared
            + entries.withLock { entries in
                ProxyHeaderFault.allCases.compactMap { fault in
                    let entry = entries[Int(fault.rawValue)]
                    guard entry.count > 0, entry.told.map({ now - $0 >= Self.pause }) ?? true else { return nil }
                    entries[Int(fault.rawValue)] = Entry(told: now)
                    return Self.diagnostic(fault, entry)
                }
            }
    }

    private static func diagnostic(_ fault: ProxyHeaderFault, _ entry: Entry) -> Diagnostic {
        let what =
            switch fault {
            case .missing: "without a PROXY protocol header"
            case .malformed: "with a malformed PROXY protocol header"
            case .tooLong: "with a PROXY protocol header that is too long"
            case .timeout: "whose PROXY protocol header did not come in time"
            case .cut: "that ended in the middle of their PROXY protocol header"
            }
        let isService = entry.kind == .stream
        return ProxyCode.badProxyHeader.diagnostic(
            "\(entry.count) \(entry.count == 1 ? "connection" : "connections") of trusted proxies \(what) closed, the last from "
                + "\(entry.peer) to port \(entry.port)",
            at: Place(field: isService ? "--tcp-services-configmap" : "--use-proxy-protocol"),
            mend: "turn the PROXY protocol on at the balancer, or "
                + (isService
                    ? "take PROXY out of the entry \"\(entry.port)\"" : "take the address out of --trusted-proxies"))
    }
}
