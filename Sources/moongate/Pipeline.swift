// How a configuration change walks, from objects to the loops: translate the whole world, compare, look names up,
// prepare scripts, compile the routes, publish once. Every command that needs what would be served (run, check,
// explain) walks through here, so that none of them can see something else than traffic does.

import IngressTranslation
import KubernetesAPI
import Manifests
import Middlewares
import Model
import Routing
import Scripting

/// What one configuration came to: ready to be published, or to be explained.
struct PreparedConfiguration: Sendable {
    var table: RouteTable
    /// One a loop.
    var middlewares: [MiddlewareSet]
    /// The set for explanations, if there are to be any.
    var explanations: MiddlewareSet?
    var addresses: [String: [IPAddress]]
    var diagnostics: [Diagnostic]
}

/// Turns objects into what the loops need. Keeps what was last good, from change to change.
actor Pipeline {
    private let options: TranslationOptions
    private let compiler: MiddlewareCompiler
    /// Makes the scripts for explanations, apart from those for traffic: what they count, log and say of themselves is
    /// nobody's figure. It sees every change, because only so does it know the same last good versions.
    private let explainer: MiddlewareCompiler?
    private let resolver: NameResolver
    private var memory = TranslationMemory()
    private var generation: UInt64 = 0
    private var table: RouteTable?
    private var last: (snapshot: Snapshot, addresses: [String: [IPAddress]])?

    /// - Parameters:
    ///   - loops: how many sets of scripts are wanted for traffic; with 0, scripts are compiled and judged all the same.
    ///   - explains: one more is wanted for explanations.
    ///   - takesTurns: scripts that are slow to load are spread over several preparations; otherwise nobody waits for
    ///     the changes of others.
    init(
        options: TranslationOptions, loops: Int, explains: Bool = false,
        scripts: ScriptSurroundings = ScriptSurroundings(), resolver: NameResolver = NameResolver(),
        takesTurns: Bool = false
    ) {
        self.options = options
        self.resolver = resolver
        func makeCompiler(_ loops: Int, _ scripts: ScriptSurroundings) -> MiddlewareCompiler {
            takesTurns
                ? MiddlewareCompiler(loops: loops, surroundings: scripts)
                : MiddlewareCompiler(
                    loops: loops, surroundings: scripts, loadAllowance: .max, firstLoadAllowance: .max)
        }
        compiler = makeCompiler(loops, scripts)
        explainer = explains ? makeCompiler(1, ScriptSurroundings()) : nil
    }

    /// Prepares these objects.
    /// - Returns: the diagnostics, always; the configuration only if something else is to be served than before.
    func prepare(_ contents: FolderContents) async -> (configuration: PreparedConfiguration?, diagnostics: [Diagnostic])
    {
        let translation = Translator.translate(contents.objects, options: options, memory: &memory)
        let names = await resolver.resolve(translation.snapshot)
        var diagnostics = contents.diagnostics + translation.diagnostics + names.diagnostics
        if !isUnfinished, let last, last.snapshot == translation.snapshot, last.addresses == names.addresses {
            return (nil, diagnostics + scriptDiagnostics)
        }
        let preparation = compiler.prepare(translation.snapshot)
        scriptDiagnostics = preparation.diagnostics
        isUnfinished = preparation.isUnfinished
        diagnostics += scriptDiagnostics
        generation += 1
        last = (translation.snapshot, names.addresses)
        // Where only endpoints changed, the compiled rules are used again.
        let table = RouteTable(translation.snapshot, generation: generation, previous: table)
        self.table = table
        return (
            PreparedConfiguration(
                table: table, middlewares: preparation.sets,
                explanations: explainer?.prepare(translation.snapshot).sets.first, addresses: names.addresses,
                diagnostics: diagnostics),
            diagnostics
        )
    }

    /// Scripts wait for their turn to be loaded: the newest objects are to be prepared once more.
    private(set) var isUnfinished = false

    /// How the scripts in use are, for metrics.
    var scriptVitals: [ScriptVitals] { compiler.vitals }

    /// What the scripts of the snapshot that is served said of themselves.
    private var scriptDiagnostics: [Diagnostic] = []
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
        allowsInlineScripts = settings.allowInlineScripts
        hostsAreExclusive = settings.hostsAreExclusive
        foreignPrefix = settings.annotationsPrefix
        catalog = .bundled
    }
}
