// References become sources: each distinct source of a namespace stands once in the snapshot.

internal import KubernetesAPI
internal import Model

struct ScriptResolver {
    /// SCRIPTING.md §5: 256 KiB of source.
    static let longest = 256 << 10

    enum Failure: Error {
        /// It may have been there before: its last good version stays.
        case missing(String, mend: String)
        /// It must not be used, whatever was before.
        case refused(TranslationCode, String, mend: String)
    }

    private let objects: ObjectSet
    private let options: TranslationOptions
    private var index: [ScriptSource: Int] = [:]
    private(set) var sources: [ScriptSource] = []

    init(_ objects: ObjectSet, options: TranslationOptions) {
        self.objects = objects
        self.options = options
    }

    mutating func index(of source: ScriptSource) -> Int {
        if let known = index[source] { return known }
        sources.append(source)
        index[source] = sources.count - 1
        return sources.count - 1
    }

    func find(_ item: ScriptItem, for ingress: ObjectName) throws(Failure) -> ScriptSource {
        let source: ScriptSource
        switch item.reference {
        case .inline(let text):
            guard options.allowsInlineScripts else {
                throw .refused(
                    .inlineForbidden, "scripts in annotations are forbidden here",
                    mend: "put the script into a ConfigMap, or ask the operator for --allow-inline-scripts")
            }
            source = ScriptSource(name: "inline", namespace: ingress.namespace, ingress: ingress.name, main: text)
        case .plugin(let name):
            guard let plugin = options.catalog.plugins[name] else {
                throw .missing(
                    "there is no plugin \(quoted(name))",
                    mend: Spelling.nearest(to: name, among: options.catalog.plugins.keys.sorted())
                        .map { "did you mean \"plugin/\($0)\"?" }
                        ?? "the plugins are \(options.catalog.plugins.keys.sorted().joined(separator: ", "))")
            }
            source = ScriptSource(
                name: "plugin/\(name)", namespace: ingress.namespace, main: plugin.main,
                modules: plugin.modules.sorted { $0.key < $1.key }.map { .init(name: $0.key, source: $0.value) })
        case .configMap(let name, let key):
            source = try find(name, key: key, for: ingress)
        case .file(let path):
            source = try find(path, for: ingress)
        }
        let size = source.modules.reduce(source.main.utf8.count) { $0 + $1.source.utf8.count }
        guard size <= Self.longest else {
            throw .refused(
                .scriptTooLarge, "the script \(quoted(source.name)) has \(size) bytes with what it can require",
                mend: "at most \(Self.longest) are taken")
        }
        return source
    }

    private func find(_ name: ObjectName, key: String, for ingress: ObjectName) throws(Failure) -> ScriptSource {
        let isForeign = name.namespace != ingress.namespace
        // Whether a ConfigMap of another namespace exists is none of this tenant's business either.
        let notGranted = Failure.refused(
            .scriptNotGranted, "the script \(quoted("\(name)")) is not granted to the namespace \(ingress.namespace)",
            mend: "its owner can annotate the ConfigMap with "
                + "\(AnnotationTable.prefix)\(AnnotationTable.allowNamespaces): \(ingress.namespace)")
        guard let map = objects.configMaps[name] else {
            if isForeign { throw notGranted }
            let near = objects.configMaps.keys.filter { $0.namespace == name.namespace }.map(\.name).sorted()
            throw .missing(
                "there is no ConfigMap \(quoted("\(name)"))",
                mend: Spelling.nearest(to: name.name, among: near).map { "did you mean \"\($0)\"?" }
                    ?? "create it with the script under the key \(key)")
        }
        guard !isForeign || Grant.covers(Grant.namespaces(map.metadata), ingress.namespace) else { throw notGranted }
        guard let main = map.data[key] else {
            throw .missing(
                "the ConfigMap \(quoted("\(name)")) has no key \(quoted(key))",
                mend: Spelling.nearest(to: key, among: map.data.keys.sorted()).map { "did you mean \"\($0)\"?" }
                    ?? "put the script under this key")
        }
        let modules = map.data.filter { $0.key != key && $0.key.hasSuffix(".lua") }
            .map { ScriptSource.Module(name: String($0.key.dropLast(4)), source: $0.value) }
            .sorted { $0.name < $1.name }
        return ScriptSource(name: "\(name):\(key)", namespace: ingress.namespace, main: main, modules: modules)
    }

    private func find(_ path: String, for ingress: ObjectName) throws(Failure) -> ScriptSource {
        guard let origin = objects.origins[ObjectKey(kind: Ingress.kind, name: ingress)] else {
            throw .refused(
                .unknownScript, "a script in a file can only be named in a folder of manifests",
                mend: "put the script into a ConfigMap")
        }
        guard let resolved = Self.resolve(path, from: origin.file) else {
            throw .refused(
                .unknownScript, "\(quoted(path)) leads out of the manifest folder",
                mend: "put the script into the folder")
        }
        switch objects.scriptFiles[resolved] {
        case .source(let text):
            return ScriptSource(name: "./\(resolved)", namespace: ingress.namespace, main: text)
        case .refused(let reason):
            throw .missing("the script \(quoted(resolved)) cannot be used: \(reason)", mend: "mend the file")
        case nil:
            throw .missing(
                "there is no file \(quoted(resolved)) in the manifest folder",
                mend: Spelling.nearest(to: resolved, among: objects.scriptFiles.keys.sorted())
                    .map { "did you mean \"\($0)\" (from the folder's root)?" }
                    ?? "the path counts from the folder of the manifest")
        }
    }

    /// The path from the root of the folder; nil if it leads out of it.
    static func resolve(_ path: String, from manifest: String) -> String? {
        var parts = manifest.split(separator: "/").dropLast().map(String.init)
        for part in path.split(separator: "/") {
            switch part {
            case ".": continue
            case "..":
                guard parts.popLast() != nil else { return nil }
            default: parts.append(String(part))
            }
        }
        return parts.joined(separator: "/")
    }
}
