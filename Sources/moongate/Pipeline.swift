// How a configuration change walks, from objects to the loops: translate the whole world, compare, look names up,
// prepare scripts, compile the routes, publish once. Every command that needs what would be served (run, check,
// explain) walks through here, so that none of them can see something else than traffic does.

import Foundation
import IngressTranslation
import KubernetesAPI
import Manifests
import Middlewares
import Model
import Proxy
import Routing
import Scripting
import TLSEngine

/// What one configuration came to: ready to be published, or to be explained.
struct PreparedConfiguration: Sendable {
    var table: RouteTable
    /// One a loop.
    var middlewares: [MiddlewareSet]
    /// The set for explanations, if there are to be any.
    var explanations: MiddlewareSet?
    var addresses: [String: [IPAddress]]
    /// Nil where nobody asks for them.
    var certificates: CertificateTable?
    /// Nil where no host asks for client certificates.
    var clientRules: ClientRules?
    /// TLS to upstreams.
    var securities: UpstreamSecurityTable?
    var diagnostics: [Diagnostic]
}

/// Turns objects into what the loops need. Keeps what was last good, from change to change.
actor Pipeline {
    private let options: TranslationOptions
    private let workshop: Workshop
    private let resolver: NameResolver
    /// Seconds since 1970.
    private let wallTime: @Sendable () -> Int64
    private var memory = TranslationMemory()
    private var generation: UInt64 = 0
    private var table: RouteTable?
    private var last: (snapshot: Snapshot, addresses: [String: [IPAddress]])?

    /// - Parameters:
    ///   - loops: how many sets of scripts are wanted for traffic; with 0, scripts are compiled and judged all the same.
    ///   - explains: one more is wanted for explanations.
    ///   - certificates: judges them, and makes the tables.
    ///   - takesTurns: scripts that are slow to load are spread over several preparations; otherwise nobody waits for
    ///     the changes of others.
    ///   - wallTime: what certificates are judged by, in seconds since 1970.
    init(
        options: TranslationOptions, loops: Int, explains: Bool = false,
        scripts: ScriptSurroundings = ScriptSurroundings(), resolver: NameResolver = NameResolver(),
        certificates: CertificateStore? = nil, takesTurns: Bool = false,
        wallTime: @escaping @Sendable () -> Int64 = { Int64(Date().timeIntervalSince1970) }
    ) {
        self.options = options
        self.resolver = resolver
        self.wallTime = wallTime
        workshop = Workshop(
            loops: loops, explains: explains, scripts: scripts, certificates: certificates, takesTurns: takesTurns)
    }

    /// Prepares these objects.
    /// - Returns: the diagnostics, always; the configuration only if something else is to be served than before.
    func prepare(_ contents: FolderContents) async -> (configuration: PreparedConfiguration?, diagnostics: [Diagnostic])
    {
        let translation = Translator.translate(contents.objects, options: options, memory: &memory)
        var (configuration, diagnostics) = await prepare(translation.snapshot)
        diagnostics = contents.diagnostics + translation.diagnostics + diagnostics
        let snapshot = translation.snapshot
        if snapshot.routes.isEmpty, snapshot.defaultRoute == nil, snapshot.tcpServices.isEmpty,
            snapshot.udpServices.isEmpty
        {
            let count = contents.objects.ingresses.count
            let isUnread = count == 0 && contents.diagnostics.contains { $0.severity == .error }
            diagnostics.append(
                ManifestCode.nothingServed.diagnostic(
                    isUnread
                        ? "no Ingress of the folder could be read"
                        : count == 0
                            ? "there is no Ingress in the folder"
                            : count == 1
                                ? "the one Ingress of the folder is not served"
                                : "none of the \(count) Ingresses of the folder is served",
                    at: Place(file: "."),
                    mend: count == 0 && !isUnread
                        ? "write one: apiVersion: networking.k8s.io/v1, kind: Ingress, ingressClassName: \(options.ingressClass)"
                        : "see what is said of each; until then every request is answered with 404"))
        }
        configuration?.diagnostics = diagnostics
        return (configuration, diagnostics)
    }

    /// Makes ready what `prepare` will want for this snapshot, or for the same with other endpoints. Nothing is different
    /// afterwards, and endpoints may be published meanwhile.
    func makeReady(_ snapshot: Snapshot) async {
        // Whoever is asked for the first time is waited for here.
        let names = await resolver.resolve(snapshot)
        if !isUnfinished, let last, last.snapshot == snapshot, last.addresses == names.addresses { return }
        ready = await workshop.make(snapshot, previous: table, now: wallTime())
    }

    /// Prepares a snapshot that was translated elsewhere.
    /// - Parameter changed: nothing is different from the snapshot before but the endpoints of these upstreams: its
    ///   scripts and compiled rules stand, and nothing is looked at twice. Nil where anything may be.
    /// - Returns: what is wrong with its scripts and names, always; the configuration as above.
    func prepare(
        _ snapshot: Snapshot, endpointsOf changed: [Int]? = nil
    ) async -> (configuration: PreparedConfiguration?, diagnostics: [Diagnostic]) {
        if let changed, let last, made != nil, !Self.hasNames(changed, last.snapshot, snapshot) {
            let diagnostics = nameDiagnostics + (made?.diagnostics ?? [])
            return (publish(snapshot, last.addresses, diagnostics), diagnostics)
        }
        let names = await resolver.resolve(snapshot)
        nameDiagnostics = names.diagnostics
        if !isUnfinished, let last, last.snapshot == snapshot, last.addresses == names.addresses {
            guard wallTime() >= judgesAgainAt else { return (nil, names.diagnostics + (made?.diagnostics ?? [])) }
            let judged = await workshop.judge(snapshot, now: wallTime())
            made?.certificates = judged.certificates
            made?.securities = judged.securities
            let diagnostics = names.diagnostics + (made?.diagnostics ?? [])
            return (publish(snapshot, names.addresses, diagnostics), diagnostics)
        }
        let next: Workshop.Made =
            if let ready, ready.suits(snapshot) { ready } else {
                await workshop.make(snapshot, previous: table, now: wallTime())
            }
        ready = nil
        made = next
        table = next.table
        let diagnostics = names.diagnostics + next.diagnostics
        return (publish(snapshot, names.addresses, diagnostics), diagnostics)
    }

    private func publish(
        _ snapshot: Snapshot, _ addresses: [String: [IPAddress]], _ diagnostics: [Diagnostic]
    ) -> PreparedConfiguration {
        generation += 1
        last = (snapshot, addresses)
        // Where only endpoints changed, the compiled rules are used again.
        let table = RouteTable(snapshot, generation: generation, previous: table)
        self.table = table
        return PreparedConfiguration(
            table: table, middlewares: made?.sets ?? [], explanations: made?.explanations, addresses: addresses,
            certificates: made?.certificates?.table, clientRules: made?.clientRules, securities: made?.securities.table,
            diagnostics: diagnostics)
    }

    /// Whether one of these upstreams has an endpoint that must be looked up, or had one.
    private static func hasNames(_ changed: [Int], _ old: Snapshot, _ new: Snapshot) -> Bool {
        changed.contains { index in
            [old, new].contains { snapshot in
                guard snapshot.upstreams.indices.contains(index) else { return true }
                return snapshot.upstreams[index].endpoints.contains { endpoint in
                    if case .name = endpoint.host { return true }
                    return false
                }
            }
        }
    }

    /// Scripts wait for their turn to be loaded: the newest objects are to be prepared once more.
    var isUnfinished: Bool { made?.isUnfinished ?? false }

    /// When time alone will have changed what is to be served, or to be said of certificates: then the same objects are to
    /// be prepared once more. Seconds since 1970; the greatest number for never.
    var judgesAgainAt: Int64 { made?.staleAt ?? .max }

    /// How the scripts in use are, for metrics.
    var scriptVitals: [ScriptVitals] { get async { await workshop.vitals } }

    /// Scripts that are not run for now, because they failed too often: on one loop at least.
    var scriptsWithOpenBreaker: Set<String> {
        get async { Set(await workshop.vitals.filter(\.hasOpenBreaker).map(\.script)) }
    }

    /// What was said of the names of the snapshot that is served.
    private var nameDiagnostics: [Diagnostic] = []
    /// Its scripts and rules.
    private var made: Workshop.Made?
    /// Those of the next, if they were made before they were wanted.
    private var ready: Workshop.Made?
}

/// Where what takes long is made: it can be at work while endpoints are published.
private actor Workshop {
    struct Made: Sendable {
        /// One a loop.
        var sets: [MiddlewareSet]
        var explanations: MiddlewareSet?
        /// Beside those of certificates.
        var otherDiagnostics: [Diagnostic]
        var isUnfinished: Bool
        /// Nil where TLS is not spoken.
        var certificates: (table: CertificateTable, diagnostics: [Diagnostic])?
        var clientRules: ClientRules?
        var securities: (table: UpstreamSecurityTable, diagnostics: [Diagnostic], staleAt: Int64)
        var table: RouteTable

        var diagnostics: [Diagnostic] {
            otherDiagnostics + securities.diagnostics + (certificates?.diagnostics ?? [])
        }
        var staleAt: Int64 { min(securities.staleAt, certificates?.table.staleAt ?? .max) }

        /// Whether it was made for this snapshot, endpoints aside.
        func suits(_ snapshot: Snapshot) -> Bool {
            let known = table.snapshot
            return known.routes == snapshot.routes && known.hosts == snapshot.hosts
                && known.defaultRoute == snapshot.defaultRoute && known.scripts == snapshot.scripts
                && known.certificates == snapshot.certificates && known.tcpServices == snapshot.tcpServices
                && known.udpServices == snapshot.udpServices && known.passthrough == snapshot.passthrough
                && known.defaultCertificate == snapshot.defaultCertificate
                && known.ticketKeys == snapshot.ticketKeys
                && known.upstreams.count == snapshot.upstreams.count
                && zip(known.upstreams, snapshot.upstreams).allSatisfy {
                    $0.name == $1.name && $0.allowedNamespaces == $1.allowedNamespaces
                        && $0.protocol == $1.protocol && $0.tls == $1.tls
                }
        }
    }

    private let compiler: MiddlewareCompiler
    /// Makes the scripts for explanations, apart from those for traffic: what they count, log and say of themselves is
    /// nobody's figure. It sees every change, because only so does it know the same last good versions.
    private let explainer: MiddlewareCompiler?
    private let certificates: CertificateStore?
    private let securities: UpstreamSecurityStore

    init(
        loops: Int, explains: Bool, scripts: ScriptSurroundings, certificates: CertificateStore?, takesTurns: Bool
    ) {
        self.certificates = certificates
        securities = UpstreamSecurityStore(warning: certificates?.warning ?? CertificateStore.standardWarning)
        func makeCompiler(_ loops: Int, _ scripts: ScriptSurroundings) -> MiddlewareCompiler {
            takesTurns
                ? MiddlewareCompiler(loops: loops, surroundings: scripts)
                : MiddlewareCompiler(
                    loops: loops, surroundings: scripts, loadAllowance: .max, firstLoadAllowance: .max)
        }
        compiler = makeCompiler(loops, scripts)
        explainer = explains ? makeCompiler(1, ScriptSurroundings()) : nil
    }

    /// - Parameter previous: what is served now: rules that are the same are not compiled again.
    func make(_ snapshot: Snapshot, previous: RouteTable?, now: Int64) -> Made {
        let preparation = compiler.prepare(snapshot)
        let judged = certificates?.prepare(snapshot, now: now)
        let clients = ClientRules.make(snapshot, unusable: judged?.table.unusable ?? [])
        let secured = securities.prepare(snapshot, now: now)
        return Made(
            sets: preparation.sets, explanations: explainer?.prepare(snapshot).sets.first,
            otherDiagnostics: preparation.diagnostics + clients.diagnostics,
            isUnfinished: preparation.isUnfinished, certificates: judged, clientRules: clients.rules,
            securities: secured,
            table: RouteTable(snapshot, previous: previous))
    }

    /// What changes with time alone.
    func judge(
        _ snapshot: Snapshot, now: Int64
    ) -> (
        certificates: (table: CertificateTable, diagnostics: [Diagnostic])?,
        securities: (table: UpstreamSecurityTable, diagnostics: [Diagnostic], staleAt: Int64)
    ) {
        (certificates?.prepare(snapshot, now: now), securities.prepare(snapshot, now: now))
    }

    var vitals: [ScriptVitals] { compiler.vitals }
}

extension TranslationOptions {
    /// What the settings say of translation.
    init(_ settings: Settings) {
        self.init()
        ingressClass = settings.ingressClass
        controllerName = settings.controllerName
        watchIngressWithoutClass = settings.watchIngressWithoutClass
        namespaces = Set(settings.watchNamespaces)
        defaultBackend = settings.defaultBackend.flatMap { ServicePortName($0) }
        redirectsToHTTPS = settings.sslRedirect
        func objectName(_ text: String?) -> ObjectName? {
            let parts = text?.split(separator: "/").map(String.init) ?? []
            return parts.count == 2 ? ObjectName(namespace: parts[0], name: parts[1]) : nil
        }
        defaultCertificate = objectName(settings.defaultTLSSecret)
        ticketKeys = objectName(settings.ticketKeysSecret)
        tcpServices = objectName(settings.tcpServicesConfigMap)
        udpServices = objectName(settings.udpServicesConfigMap)
        trustsProxies = !settings.trustedProxies.isEmpty
        allowsPassthrough = settings.enableSSLPassthrough
        zone = settings.zone
        allowsInlineScripts = settings.allowInlineScripts
        hostsAreExclusive = settings.hostsAreExclusive
        foreignPrefix = settings.annotationsPrefix
        catalog = .bundled
    }
}
