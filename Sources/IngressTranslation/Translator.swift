// Step 3 of a configuration change: objects in, the whole snapshot out, with what was wrong and what to write into the
// status of each Ingress. Pure: the same objects give the same answer, however they came and in whatever order, but for the
// memory, which holds what was last good and is passed in and out.
//
// One faulty Ingress never harms its neighbour: whatever is refused is left out alone, with a diagnostic, and where
// leaving it out would open what was meant to be closed (scripts), its own paths answer 503.

package import KubernetesAPI
package import Model

/// What was last good, for scripts that become unreadable or vanish (SCRIPTING.md §5, rule a).
package struct TranslationMemory: Sendable, Equatable {
    struct SourceKey: Hashable, Sendable {
        var ingress: ObjectName
        var reference: String
    }

    /// The script annotations of an Ingress, by key, as they could last be read.
    var annotations: [ObjectName: [String: String]] = [:]
    var sources: [SourceKey: ScriptSource] = [:]

    package init() {}
}

/// The status that an Ingress of ours should have.
package struct IngressStatusUpdate: Sendable, Equatable {
    package var ingress: ObjectName
    package var status: IngressStatus
}

package struct Translation: Sendable, Equatable {
    package var snapshot = Snapshot()
    package var diagnostics: [Diagnostic] = []
    /// One for each Ingress that is ours, in order of name.
    package var statuses: [IngressStatusUpdate] = []
    /// What our Ingresses refer to, be it there or not.
    package var references = ObjectReferences()
}

package enum Translator {
    /// Translates all objects; `memory` and `cache` are empty the first time and passed on from call to call.
    package static func translate(
        _ objects: ObjectSet, options: TranslationOptions = TranslationOptions(), memory: inout TranslationMemory,
        cache: inout TranslationCache
    ) -> Translation {
        var work = Work(objects, options: options, memory: memory, cache: cache)
        work.run()
        memory = work.newMemory
        cache = work.cache
        return work.result
    }

    /// The same, all of it anew.
    package static func translate(
        _ objects: ObjectSet, options: TranslationOptions = TranslationOptions(), memory: inout TranslationMemory
    ) -> Translation {
        var cache = TranslationCache()
        return translate(objects, options: options, memory: &memory, cache: &cache)
    }

    /// Translates once, without a past.
    package static func translate(
        _ objects: ObjectSet, options: TranslationOptions = TranslationOptions()
    ) -> Translation {
        var memory = TranslationMemory()
        return translate(objects, options: options, memory: &memory)
    }
}

private struct Work {
    /// What is gathered of one host before the snapshot is laid out.
    struct Host {
        let pattern: HostPattern
        var routes: [Int] = []
        /// Where there are more than a few routes: a few are compared sooner than hashed.
        var byPath: [PathPattern: Int] = [:]
        /// The oldest Ingress that names it; the host is its namespace's.
        var owner: ObjectName
        /// The default backend of the oldest Ingress here that has one.
        var fallback: (ingress: Int, backend: Resolved)?
    }

    /// A backend that makes a route; without an index the route answers 503.
    struct Resolved {
        var index: Int?
        /// Another one for requests on TLS connections.
        var secureIndex: Int?
    }

    /// An Ingress that is ours, with what its annotations say.
    struct Accepted {
        var ingress: Ingress
        var name: ObjectName
        var draft: IngressDraft
        var policy = RoutePolicy()
        var balance: Upstream.Balance?
        var backend = BackendSettings()
        var clients = ClientAnnotations()
        var bindings: [(binding: ScriptBinding, paths: [String]?)] = []
        var reference: ObjectReference { draft.reference }
    }

    let objects: ObjectSet
    let options: TranslationOptions
    let memory: TranslationMemory
    let places: Places
    var newMemory = TranslationMemory()
    var result = Translation()
    var services: ServiceResolver
    var scripts: ScriptResolver
    var hosts: [Host] = []
    var placeOfHost: [HostPattern: Int] = [:]
    var routes: [Route] = []
    var cache: TranslationCache
    var accepted: [Accepted] = []
    /// Who decided how a Service port is balanced.
    var balancers: [ServicePortName: (ingress: ObjectName, balance: Upstream.Balance)] = [:]
    /// What hosts ask of their clients' certificates.
    var clientRules: [HostPattern: ClientAuthentication] = [:]

    init(_ objects: ObjectSet, options: TranslationOptions, memory: TranslationMemory, cache: TranslationCache) {
        self.objects = objects
        self.options = options
        self.memory = memory
        self.cache = cache.options == options ? cache : TranslationCache()
        self.cache.options = options
        places = Places(objects: objects)
        services = ServiceResolver(objects, options: options, places: places, drafts: self.cache.services)
        scripts = ScriptResolver(objects, options: options)
    }

    mutating func report(
        _ code: TranslationCode, _ problem: String, at place: Place, mend: String, severity: Severity? = nil
    ) {
        result.diagnostics.append(code.diagnostic(problem, at: place, mend: mend, severity: severity))
    }

    mutating func run() {
        selectIngresses()
        for index in accepted.indices { read(index) }
        // A default backend of an Ingress without rules is the catch-all, and goes before any host-less rule for "/",
        // older or not (as in ingress-nginx).
        for index in accepted.indices where accepted[index].ingress.spec.rules.isEmpty { addCatchAll(index) }
        for index in accepted.indices { addRules(of: index) }
        let fallbacks = hosts.indices.filter { hosts[$0].fallback != nil }
        for host in fallbacks.sorted(by: { hosts[$0].pattern < hosts[$1].pattern }) { addFallback(of: host) }
        addPassthrough()
        for index in accepted.indices { checkBackendTLS(of: index) }
        for index in accepted.indices { addCertificates(of: index) }
        addDefaultCertificate()
        addTicketKeys()
        for index in accepted.indices { addClientRules(of: index) }
        addRedirects()
        checkClientRules()
        addTCPServices()
        addUDPServices()
        checkForeignKeys()
        addDefaultRoute()
        addChoosableUpstreams()
        layOut()
        addStatuses()
        services.dropUnused()
        cache.services = services.drafts
        result.diagnostics += services.diagnostics
        result.diagnostics.sort(by: Self.comesBefore)
    }

    /// By place, so that the list reads like the manifests and does not depend on the order of any dictionary.
    private static func comesBefore(_ left: Diagnostic, _ right: Diagnostic) -> Bool {
        if left.place.file != right.place.file { return (left.place.file ?? "") < (right.place.file ?? "") }
        if left.place.line != right.place.line { return (left.place.line ?? 0) < (right.place.line ?? 0) }
        if left.place.object != right.place.object {
            guard let leftObject = left.place.object else { return true }
            guard let rightObject = right.place.object else { return false }
            return leftObject < rightObject
        }
        return (left.place.field ?? "", left.code, left.problem) < (right.place.field ?? "", right.code, right.problem)
    }

    // MARK: Which Ingresses

    /// Oldest first; then by namespace and name. What has no age (a file) is younger than what has one.
    mutating func selectIngresses() {
        let ourClasses = Set(
            objects.ingressClasses.values.filter { $0.spec.controller == options.controllerName }.map(\.metadata.name))
        let hasOurDefault = objects.ingressClasses.values.contains {
            $0.isDefault && $0.spec.controller == options.controllerName
        }
        // Sorted by their ages and names alone: whole Ingresses are dear to move.
        var ours: [(age: Timestamp?, name: ObjectName)] = []
        ours.reserveCapacity(objects.ingresses.count)
        func look(at ingress: Ingress, _ name: ObjectName) {
            guard options.namespaces.isEmpty || options.namespaces.contains(name.namespace) else { return }
            guard ingress.metadata.deletionTimestamp == nil else { return }
            if isOurs(ingress, name, ourClasses: ourClasses, hasOurDefault: hasOurDefault) {
                ours.append((ingress.metadata.creationTimestamp, name))
            }
        }
        // In the order of the last time, because what is nearly sorted is sorted soon.
        for name in cache.order {
            if let ingress = objects.ingresses[name] { look(at: ingress, name) }
        }
        for (name, ingress) in objects.ingresses where cache.ingresses[name] == nil { look(at: ingress, name) }
        ours.sort { left, right in
            guard left.age == right.age else {
                guard let leftAge = left.age else { return false }
                guard let rightAge = right.age else { return true }
                return leftAge < rightAge
            }
            return left.name < right.name
        }
        var drafts = cache.ingresses
        accepted.reserveCapacity(ours.count)
        for (_, name) in ours {
            guard let ingress = objects.ingresses[name] else { continue }
            let draft: IngressDraft
            if let known = drafts[name], known.stands(ingress) {
                draft = known
            } else {
                draft = IngressDraft(
                    ingress, name, foreignPrefix: options.foreignPrefix, isInFile: !objects.origins.isEmpty)
                drafts[name] = draft
            }
            if !draft.references.isEmpty { result.references.formUnion(draft.references) }
            accepted.append(Accepted(ingress: ingress, name: name, draft: draft))
        }
        cache.order = ours.map(\.name)
        if drafts.count > ours.count {
            let kept = Set(cache.order)
            drafts = drafts.filter { kept.contains($0.key) }
        }
        cache.ingresses = drafts
    }

    private mutating func isOurs(
        _ ingress: Ingress, _ name: ObjectName, ourClasses: Set<String>, hasOurDefault: Bool
    ) -> Bool {
        if let className = ingress.spec.ingressClassName {
            if ourClasses.contains(className) { return true }
            // A folder, or a cluster in which classes may not be listed: then the name alone decides.
            if objects.ingressClasses[className] == nil, className == options.ingressClass { return true }
            let known = objects.ingressClasses[className] != nil
            // Where no class can be seen, it may well be another's.
            let meant =
                known || objects.ingressClasses.isEmpty && objects.origins.isEmpty
                ? nil : Spelling.nearest(to: className, among: [options.ingressClass] + ourClasses.sorted())
            report(
                .otherClass,
                known
                    ? "the class \(quoted(className)) belongs to another controller"
                    : "there is no IngressClass \(quoted(className))",
                at: places.place(Ingress.kind, name, FieldPath([.key("spec"), .key("ingressClassName")])),
                mend: meant.map { untilThen("did you mean \"\($0)\"?", "it is not served") }
                    ?? "nothing, if another controller serves it; else write ingressClassName: \(options.ingressClass)",
                severity: meant == nil ? nil : .warning)
            return false
        }
        let key = "kubernetes.io/ingress.class"
        if let className = ingress.metadata.annotations[key] {
            if className == options.ingressClass { return true }
            let isSeen = objects.ingressClasses[className] != nil || objects.origins.isEmpty
            let meant = isSeen ? nil : Spelling.nearest(to: className, among: [options.ingressClass])
            report(
                .otherClass, "the class \(quoted(className)) is another controller's",
                at: places.place(Ingress.kind, name, annotation: key),
                mend: meant.map { untilThen("did you mean \"\($0)\"?", "it is not served") }
                    ?? "nothing, if another controller serves it; else write \(options.ingressClass)",
                severity: meant == nil ? nil : .warning)
            return false
        }
        if options.watchIngressWithoutClass || hasOurDefault { return true }
        report(
            .noClass, "the Ingress names no class", at: places.place(Ingress.kind, name),
            mend: "write ingressClassName: \(options.ingressClass), or run with --watch-ingress-without-class")
        return false
    }

    // MARK: Annotations

    private mutating func read(_ index: Int) {
        let draft = accepted[index].draft
        if let saying = draft.saying {
            accepted[index].policy = saying.policy
            accepted[index].balance = saying.balance
            accepted[index].backend = saying.backend
            accepted[index].clients = saying.clients
            result.diagnostics += saying.diagnostics
        } else {
            let before = result.diagnostics.count
            readAnnotations(of: index)
            let item = accepted[index]
            if objects.origins.isEmpty, item.backend.secret == nil {
                cache.ingresses[item.name] = IngressDraft(
                    draft,
                    saying: IngressDraft.Saying(
                        policy: item.policy, balance: item.balance, backend: item.backend, clients: item.clients,
                        diagnostics: Array(result.diagnostics[before...])))
            }
        }
        if !draft.scriptTexts.isEmpty { readScripts(of: index) }
    }

    private mutating func readAnnotations(of index: Int) {
        let ingress = accepted[index].ingress
        let name = accepted[index].name
        guard !ingress.metadata.annotations.isEmpty else { return }
        var foreign: [String] = []
        var guards: [String] = []
        for (key, value) in ingress.metadata.annotations {
            if key.hasPrefix(AnnotationTable.prefix) {
                readAnnotation(key, String(key.dropFirst(AnnotationTable.prefix.count)), value, of: index)
            } else if key.hasPrefix(options.foreignPrefix + "/") {
                let short = String(key.dropFirst(options.foreignPrefix.count + 1))
                if AnnotationTable.foreignGuards.contains(short) {
                    guards.append(short)
                } else if !AnnotationTable.foreign.contains(short) {
                    foreign.append(short)
                } else if ingress.metadata.annotations[AnnotationTable.prefix + short] == nil {
                    readAnnotation(key, short, value, of: index)
                }
            } else if let meant = Self.slip(key) {
                report(
                    .unknownAnnotation, "there is no annotation \(quoted(key))",
                    at: places.place(Ingress.kind, name, annotation: key),
                    mend: untilThen("did you mean \"\(meant)\"?", "it has no effect"))
            }
        }
        if !guards.isEmpty {
            report(
                .foreignGuards, "not acted on: \(guards.sorted().map { quoted($0) }.joined(separator: ", "))",
                at: places.place(Ingress.kind, name),
                mend: "guard the paths by a script with an access phase (moongate.dev/scripts), or take them away; "
                    + "until then requests pass that they were to keep out")
        }
        if !foreign.isEmpty {
            report(
                .foreignAnnotations,
                "not acted on: \(foreign.sorted().map { quoted($0) }.joined(separator: ", "))",
                at: places.place(Ingress.kind, name),
                mend: "the page of the annotations lists what is; write a script for what is missing, or take them away"
            )
        }
        readBackend(of: index)
    }

    private mutating func readAnnotation(_ key: String, _ short: String, _ text: String, of index: Int) {
        let name = accepted[index].name
        guard let spec = AnnotationTable.byKey[short], spec.kinds.contains(Ingress.kind) else {
            return reportUnknown(key, short, kind: Ingress.kind, name)
        }
        do throws(ValueProblem) {
            try apply(spec, key, text.trimmed, to: index)
        } catch {
            if case .clients(strict: true, _) = spec.effect {
                accepted[index].clients.isBroken = true
                let secret = AnnotationTable.text(
                    AnnotationTable.authTLSSecret, of: accepted[index].ingress.metadata,
                    foreignPrefix: options.foreignPrefix)
                return report(
                    .badClientAnnotation, "\(short) is \(quoted(text)); \(error.wanted)",
                    at: places.place(Ingress.kind, name, annotation: key),
                    mend: "write for example \"\(error.example)\""
                        + (secret == nil ? "" : "; until then the hosts of this Ingress answer 403"))
            }
            report(
                .badAnnotation, "\(short) is \(quoted(text)); \(error.wanted)",
                at: places.place(Ingress.kind, name, annotation: key),
                mend: "write for example \"\(error.example)\"; until then "
                    + (spec.strictest.map { "\"\($0)\"" } ?? "the default") + " applies")
            if let strictest = spec.strictest { try? apply(spec, key, strictest, to: index) }
        }
    }

    private mutating func apply(
        _ spec: AnnotationSpec, _ key: String, _ value: String, to index: Int
    ) throws(ValueProblem) {
        switch spec.effect {
        case .policy(let apply): try apply(value, &accepted[index].policy)
        case .balance:
            guard let balance = Upstream.Balance(rawValue: value) else {
                throw ValueProblem(wanted: "this is round-robin or least-request", example: "least-request")
            }
            accepted[index].balance = balance
        case .backend(let apply): try apply(value, &accepted[index].backend)
        case .clients(_, let apply):
            accepted[index].clients.key = min(accepted[index].clients.key ?? key, key)
            try apply(value, &accepted[index].clients)
        case .scripts, .grant: break
        }
    }

    /// The annotation of ours that a key under a prefix much like ours is meant for.
    private static func slip(_ key: String) -> String? {
        guard let slash = key.firstIndex(of: "/") else { return nil }
        let own = AnnotationTable.prefix.dropLast()
        let prefix = String(key[..<slash])
        guard prefix.hasPrefix("moongate.") || Spelling.nearest(to: prefix, among: [String(own)]) != nil else {
            return nil
        }
        let short = String(key[key.index(after: slash)...])
        let known = AnnotationTable.all.filter { $0.kinds.contains(Ingress.kind) }.map(\.key)
        return (known.contains(short) ? short : Spelling.nearest(to: short, among: known)).map { "\(own)/\($0)" }
    }

    private mutating func reportUnknown(_ key: String, _ short: String, kind: String, _ name: ObjectName) {
        let known = AnnotationTable.all.filter { $0.kinds.contains(kind) }.map(\.key)
        let elsewhere = AnnotationTable.byKey[short].map { $0.kinds.sorted().joined(separator: " or ") }
        report(
            .unknownAnnotation,
            elsewhere.map { "\(quoted(key)) belongs on a \($0)" } ?? "there is no annotation \(quoted(key))",
            at: places.place(kind, name, annotation: key),
            mend: elsewhere.map { "move it to the \($0)" }
                ?? Spelling.nearest(to: short, among: known).map { "did you mean \"\(AnnotationTable.prefix)\($0)\"?" }
                ?? "the documentation lists what there is; it has no effect")
    }

    /// The same for the other kinds that may carry our annotations.
    private mutating func checkForeignKeys() {
        for (name, service) in objects.services {
            for key in service.metadata.annotations.keys where key.hasPrefix(AnnotationTable.prefix) {
                checkKey(key, kind: Service.kind, name)
            }
        }
        for (name, map) in objects.configMaps {
            for key in map.metadata.annotations.keys where key.hasPrefix(AnnotationTable.prefix) {
                checkKey(key, kind: ConfigMap.kind, name)
            }
        }
    }

    private mutating func checkKey(_ key: String, kind: String, _ name: ObjectName) {
        let short = String(key.dropFirst(AnnotationTable.prefix.count))
        guard AnnotationTable.byKey[short]?.kinds.contains(kind) != true else { return }
        reportUnknown(key, short, kind: kind, name)
    }

    // MARK: Scripts

    private mutating func readScripts(of index: Int) {
        let draft = accepted[index].draft
        let name = accepted[index].name
        let texts = draft.scriptTexts
        let firstLine = { [places] (key: String, text: String) in
            places.firstLine(ofAnnotation: key, text: text, in: name)
        }
        var items: [ScriptItem]
        do throws(ScriptProblem) {
            if let scripts = draft.scripts {
                items = try scripts.get()
            } else {
                items = try ScriptAnnotations.read(texts, namespace: name.namespace, firstLine: firstLine)
            }
            newMemory.annotations[name] = texts
            if items.isEmpty, let key = texts.keys.min() {
                report(
                    .noScripts, "\(key) names no script", at: places.place(Ingress.kind, name, annotation: key),
                    mend:
                        "begin each script with \"- script: NAME\", or delete the annotation; until then no script runs"
                )
            }
        } catch {
            let before = memory.annotations[name].flatMap { texts in
                (try? ScriptAnnotations.read(texts, namespace: name.namespace, firstLine: firstLine))
                    .map { (texts: texts, items: $0) }
            }
            let place = place(of: error.annotation, field: error.field, line: error.line, in: name)
            report(
                .badScripts, error.problem, at: place,
                mend: untilThen(
                    error.mend,
                    before == nil ? "the paths of this Ingress answer 503" : "the scripts stay as they last were"))
            guard let before else {
                // Which of the scripts guarded the paths cannot be told: closed is the only safe reading.
                var binding = ScriptBinding(script: nil, reference: error.annotation, order: 0, onError: .closed)
                binding.place = place
                accepted[index].bindings = [(binding, nil)]
                return
            }
            newMemory.annotations[name] = before.texts
            items = before.items
        }
        // A new name that leads nowhere must not take away what runs (SCRIPTING.md §5, rule a).
        let unknown = items.filter { isUnknown($0, of: name) }
        if !unknown.isEmpty, let texts = memory.annotations[name], texts != newMemory.annotations[name],
            let before = try? ScriptAnnotations.read(texts, namespace: name.namespace, firstLine: firstLine),
            !before.contains(where: { isUnknown($0, of: name) })
        {
            for item in unknown {
                guard case .missing(let problem, let mend) = failure(of: item, for: name) else { continue }
                report(
                    .unknownScript, problem,
                    at: place(of: item.annotation, field: item.field, line: item.line, in: name),
                    mend: untilThen(mend, "the scripts stay as they last were"))
            }
            newMemory.annotations[name] = texts
            items = before
        }
        for item in items { bind(item, to: index) }
    }

    private func failure(of item: ScriptItem, for ingress: ObjectName) -> ScriptResolver.Failure? {
        do throws(ScriptResolver.Failure) {
            _ = try scripts.find(item, for: ingress)
            return nil
        } catch {
            return error
        }
    }

    /// Neither there now nor remembered.
    private func isUnknown(_ item: ScriptItem, of ingress: ObjectName) -> Bool {
        guard case .missing = failure(of: item, for: ingress) else { return false }
        return memory.sources[sourceKey(item, of: ingress)] == nil
    }

    private func sourceKey(_ item: ScriptItem, of ingress: ObjectName) -> TranslationMemory.SourceKey {
        TranslationMemory.SourceKey(ingress: ingress, reference: item.text == "inline" ? item.annotation : item.text)
    }

    private func place(of annotation: String, field: String, line: Int, in ingress: ObjectName) -> Place {
        var place = places.place(Ingress.kind, ingress, annotation: annotation)
        if !field.isEmpty { place.field = "annotation \(annotation) \(field)" }
        if place.file != nil { place.line = line }
        return place
    }

    private mutating func bind(_ item: ScriptItem, to index: Int) {
        let name = accepted[index].name
        let place = place(of: item.annotation, field: item.field, line: item.line, in: name)
        let key = sourceKey(item, of: name)
        var script: Int?
        do throws(ScriptResolver.Failure) {
            let source = try scripts.find(item, for: name)
            newMemory.sources[key] = source
            script = scripts.index(of: source)
        } catch {
            let without =
                item.onError == .open
                ? "requests pass without the script"
                : "the paths of this Ingress answer 503, because the script may guard them"
            switch error {
            case .missing(let problem, let mend):
                let before = memory.sources[key]
                if let before {
                    newMemory.sources[key] = before
                    script = scripts.index(of: before)
                }
                report(
                    .unknownScript, problem, at: place,
                    mend: untilThen(mend, before == nil ? without : "its last good version runs"))
            case .refused(let code, let problem, let mend):
                report(code, problem, at: place, mend: untilThen(mend, without))
            }
        }
        if let shadow = item.shadow {
            report(
                .shadowNotYet, "\(quoted(shadow)) is not run beside the script yet", at: place,
                mend: "nothing; the script itself runs")
        }
        var binding = ScriptBinding(
            script: script, reference: item.text, order: item.order, arguments: item.arguments,
            onError: item.onError, budget: item.budget, percent: item.percent, mode: item.mode)
        binding.place = place
        accepted[index].bindings.append((binding, item.paths))
        if let paths = item.paths { checkPaths(paths, of: index, at: place) }
    }

    private mutating func checkPaths(_ paths: [String], of index: Int, at place: Place) {
        let own = accepted[index].ingress.spec.rules.flatMap { $0.http?.paths ?? [] }.map { $0.path ?? "/" }
        for path in paths where !own.contains(where: { Self.covers(path, $0) }) {
            report(
                .scriptPath, "\(quoted(path)) is no path of this Ingress, nor above one", at: place,
                mend: "name a path of its rules (\(own.prefix(5).joined(separator: ", "))), or add a rule for it")
        }
    }

    /// By elements, as a Prefix rule matches.
    private static func covers(_ path: String, _ rule: String) -> Bool {
        var base = path[...]
        while base.hasSuffix("/") { base.removeLast() }
        return rule == path || rule == base || rule.hasPrefix(base + "/")
    }

    private func bindings(of index: Int, for path: String) -> [ScriptBinding] {
        if accepted[index].bindings.isEmpty { return [] }
        return accepted[index].bindings.filter { entry in
            entry.paths?.contains { Self.covers($0, path) } ?? true
        }.map(\.binding)
    }

    // MARK: Rules

    private mutating func addCatchAll(_ index: Int) {
        let item = accepted[index]
        guard let backend = item.ingress.spec.defaultBackend else {
            return report(
                .noRules, "the Ingress has neither rules nor a default backend",
                at: places.place(Ingress.kind, item.name), mend: "add spec.rules or spec.defaultBackend")
        }
        let path = FieldPath([.key("spec"), .key("defaultBackend")])
        guard let upstream = resolve(backend, of: index, at: path) else { return }
        add(
            path: .prefix("/"), host: place(of: .any, for: item.name), backend: upstream, rule: "defaultBackend",
            of: index, at: path, field: nil)
    }

    private mutating func addRules(of index: Int) {
        let draft = accepted[index].draft
        guard !draft.rules.isEmpty else { return }
        let name = accepted[index].name
        let rulesPath = FieldPath([.key("spec"), .key("rules")])
        /// Resolved once however many hosts the Ingress has, so that a missing Service is said once.
        var fallback: (ingress: Int, backend: Resolved)?
        if let backend = draft.spec.defaultBackend,
            let upstream = resolve(backend, of: index, at: FieldPath([.key("spec"), .key("defaultBackend")]))
        {
            fallback = (index, upstream)
        }
        for rule in draft.rules {
            // Paths to fields are made only where something is wrong there.
            var rulePath: FieldPath { rulesPath + rule.index }
            let pattern: HostPattern
            switch rule.host {
            case .success(let read): pattern = read
            case .failure(let error):
                report(
                    .badHost, "the host \(quoted(draft.spec.rules[rule.index].host ?? "")): \(error.problem)",
                    at: places.place(Ingress.kind, name, rulePath + "host"),
                    mend: error.mend + "; until then the rule is not served")
                continue
            }
            if rule.paths.isEmpty { reportNoPaths(rule.index, of: draft.spec, name, at: rulePath) }
            guard let host = claim(pattern, for: name, at: rulePath) else { continue }
            if let fallback, hosts[host].fallback == nil { hosts[host].fallback = fallback }
            for path in rule.paths {
                var pathPath: FieldPath { rulePath + "http" + "paths" + path.index }
                let pathPattern: PathPattern
                switch path.pattern {
                case .success(let read): pathPattern = read
                case .failure(let error):
                    let text = draft.spec.rules[rule.index].http?.paths[path.index].path ?? ""
                    report(
                        .badPath, "the path \(quoted(text)): \(error.problem)",
                        at: places.place(Ingress.kind, name, pathPath + "path"),
                        mend: error.mend + "; until then the path is not served")
                    continue
                }
                guard let upstream = resolve(path.backend, of: index, at: pathPath + "backend") else { continue }
                add(
                    path: pathPattern, host: host, backend: upstream, rule: path.rule, of: index, at: pathPath,
                    field: "path")
            }
        }
    }

    /// The API server refuses `http` without paths. It takes a rule without `http`, all of whose requests are the default
    /// backend's: nothing is to be said of that one where there is such a backend.
    private mutating func reportNoPaths(_ rule: Int, of spec: IngressSpec, _ name: ObjectName, at path: FieldPath) {
        let http = spec.rules[rule].http
        guard http != nil || spec.defaultBackend == nil else { return }
        let host = spec.rules[rule].host.map { "host \(quoted($0))" } ?? "every host"
        report(
            .noPaths,
            "rules[\(rule)], for \(host), has no paths: "
                + (spec.defaultBackend == nil ? "it routes nothing" : "its requests go to the default backend"),
            at: places.place(Ingress.kind, name, http == nil ? path : path + "http"),
            mend:
                "write http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: NAME, port: { number: "
                + "PORT } } } }] }"
                + (http == nil ? ", or a spec.defaultBackend" : spec.defaultBackend == nil ? "" : ", or take http away")
                + (http == nil ? "" : "; a cluster refuses it as it is (paths: Required value)"))
    }

    private func host(_ pattern: HostPattern) -> Host? { placeOfHost[pattern].map { hosts[$0] } }

    private mutating func place(of pattern: HostPattern, for name: ObjectName) -> Int {
        if let known = placeOfHost[pattern] { return known }
        hosts.append(Host(pattern: pattern, owner: name))
        placeOfHost[pattern] = hosts.count - 1
        return hosts.count - 1
    }

    private func route(of path: PathPattern, at host: Int) -> Int? {
        if hosts[host].byPath.isEmpty { return hosts[host].routes.first { routes[$0].path == path } }
        return hosts[host].byPath[path]
    }

    /// Notes who has the host, and answers with its place; nil if it may not be shared with this Ingress.
    private mutating func claim(
        _ pattern: HostPattern, for name: ObjectName, at rulePath: @autoclosure () -> FieldPath
    ) -> Int? {
        let found = place(of: pattern, for: name)
        let owner = hosts[found].owner
        guard owner.namespace != name.namespace, pattern != .any else { return found }
        let place = places.place(Ingress.kind, name, rulePath() + "host")
        if options.hostsAreExclusive {
            report(
                .hostTaken,
                "the host \(quoted(pattern.description)) belongs to the namespace \(owner.namespace), "
                    + "whose Ingress \(owner) comes first",
                at: place, mend: "take another host; until then the rule is not served")
            return nil
        }
        report(
            .sharedHost,
            "the host \(quoted(pattern.description)) is also served by the Ingress \(owner) "
                + "of another namespace",
            at: place, mend: "make sure that both are meant; where they name the same path, the first one has it")
        return found
    }

    private mutating func add(
        path: PathPattern, host: Int, backend: Resolved, rule: @autoclosure () -> String, of index: Int,
        at fieldPath: @autoclosure () -> FieldPath, field: String?
    ) {
        // Field by field: a whole Ingress is dear to copy.
        let name = accepted[index].name
        let reference = accepted[index].reference
        if let winner = self.route(of: path, at: host) {
            let owner = routes[winner].ingress
            report(
                .pathConflict,
                "\(path) of the host \(quoted(hosts[host].pattern.description)) is already served by "
                    + (owner == reference
                        ? "\(routes[winner].rule) of this Ingress"
                        : "\(owner), which comes first (by age, then by name)"),
                at: places.place(Ingress.kind, name, field.map { fieldPath() + $0 } ?? fieldPath()),
                mend: "delete one of the two; until then this one is not served")
            return
        }
        var route = Route(
            path: path, ingress: reference, rule: rule(), host: hosts[host].pattern, upstream: backend.index,
            policy: accepted[index].policy, scripts: bindings(of: index, for: path.path))
        route.secureUpstream = backend.secureIndex
        route.isUnsecured =
            backend.index == nil && (accepted[index].backend.isBroken || accepted[index].backend.wishes.0 != nil)
        routes.append(route)
        let number = routes.count - 1
        hosts[host].routes.append(number)
        let count = hosts[host].routes.count
        if count > 9 {
            hosts[host].byPath[path] = number
        } else if count == 9 {
            for other in hosts[host].routes { hosts[host].byPath[routes[other].path] = other }
        }
    }

    /// What no rule of a host matches goes to the default backend of the oldest Ingress there that has one.
    private mutating func addFallback(of host: Int) {
        guard let fallback = hosts[host].fallback, route(of: .prefix("/"), at: host) == nil else { return }
        // An Ingress with rules does not take over unknown hosts by its default backend (as in ingress-nginx).
        guard
            hosts[host].pattern != .any
                || accepted[fallback.ingress].ingress.spec.rules.contains(where: { ($0.host ?? "").isEmpty })
        else { return }
        add(
            path: .prefix("/"), host: host, backend: fallback.backend, rule: "defaultBackend",
            of: fallback.ingress, at: FieldPath([.key("spec"), .key("defaultBackend")]), field: nil)
    }

    // MARK: Backends

    /// The upstream of a backend; nil if the backend makes no route at all.
    private mutating func resolve(
        _ backend: IngressBackend, of index: Int, at path: @autoclosure () -> FieldPath
    ) -> Resolved? {
        let ingress = accepted[index].name
        guard let service = backend.service else {
            report(
                .badBackend,
                backend.resource.map { "a backend of kind \(quoted($0.kind)) cannot be served" }
                    ?? "the backend names no Service",
                at: places.place(Ingress.kind, ingress, path()),
                mend: "name a Service and its port; until then the path is not served")
            return nil
        }
        let port: String
        switch (service.port.number, service.port.name) {
        case (let number?, nil) where (1...65_535).contains(number): port = String(number)
        case (nil, let name?) where Self.isPortName(name): port = name
        // The API server refuses both at once; a number that is given is no doubt meant.
        case (let number?, _?) where (1...65_535).contains(number): port = String(number)
        default:
            report(
                .badBackend, "the backend \(quoted(service.name)) names no port, or one that cannot be",
                at: places.place(Ingress.kind, ingress, path() + "service" + "port"),
                mend: "write port: {number: N} or port: {name: NAME}; until then the path answers 503")
            return Resolved(index: nil)
        }
        let name = ServicePortName(
            service: ObjectName(namespace: ingress.namespace, name: service.name), port: port)
        let (wish, secure) = accepted[index].backend.wishes
        switch services.resolve(name, as: wish) {
        case .upstream(let upstream):
            balance(upstream, accepted[index].balance, for: ingress)
            if accepted[index].backend.isBroken { return Resolved(index: nil) }
            var found = Resolved(index: upstream)
            if let secure, case .upstream(let other) = services.resolve(name, as: secure) { found.secureIndex = other }
            if services.upstreams[upstream].proxyHeader != nil, services.upstreams[upstream].protocol.isHTTP2 {
                report(
                    .proxyHeaderHTTP2,
                    "the Service \(quoted("\(name.service)")) is spoken to by HTTP/2, whose connections carry the requests "
                        + "of all clients: a PROXY protocol header can't say whose",
                    at: annotationPlace(AnnotationTable.sendProxyProtocol, of: index),
                    mend:
                        "take the annotation out, for X-Forwarded-For says the same, or have the Service spoken to by "
                        + "HTTP/1.1; until then the path answers 503")
                return Resolved(index: nil)
            }
            for place in [found.index, found.secureIndex] {
                if let place, services.upstreams[place].tls != nil { accepted[index].backend.isUsed = true }
            }
            return found
        case .noService:
            let near = Spelling.nearest(to: service.name, among: namesOfServices(in: ingress.namespace))
            report(
                .noService, "there is no Service \(quoted("\(name.service)"))",
                at: places.place(Ingress.kind, ingress, path() + "service" + "name"),
                mend: untilThen(near.map { "did you mean \"\($0)\"?" } ?? "create it", "the path answers 503"))
        case .noPort(let known):
            report(
                .noPort, "the Service \(quoted("\(name.service)")) has no port \(quoted(port))",
                at: places.place(Ingress.kind, ingress, path() + "service" + "port"),
                mend: (known.isEmpty ? "give the Service ports" : "its ports are \(known.joined(separator: ", "))")
                    + "; until then the path answers 503")
        }
        return Resolved(index: nil)
    }

    private func namesOfServices(in namespace: String) -> [String] {
        // Only for a message, and bounded: a thousand Ingresses without a Service must not make a million comparisons.
        objects.services.count > 2_000
            ? [] : objects.services.keys.filter { $0.namespace == namespace }.map(\.name).sorted()
    }

    /// IANA service names (RFC 6335 §5.1), as Kubernetes checks them.
    private static func isPortName(_ text: String) -> Bool {
        (1...15).contains(text.utf8.count)
            && text.utf8.allSatisfy { (97...122).contains($0) || (48...57).contains($0) || $0 == UInt8(ascii: "-") }
            && text.utf8.contains { (97...122).contains($0) }
    }

    private mutating func balance(_ upstream: Int, _ balance: Upstream.Balance?, for ingress: ObjectName) {
        guard let balance else { return }
        let port = ServiceResolver.port(of: services.upstreams[upstream])
        guard let before = balancers[port] else {
            balancers[port] = (ingress, balance)
            services.setBalance(balance, of: upstream)
            return
        }
        guard before.balance != balance else { return }
        let key = AnnotationTable.prefix + AnnotationTable.loadBalance
        report(
            .balanceConflict,
            "the Service \(quoted(services.upstreams[upstream].service)) is balanced as \(before.balance.rawValue) by the "
                + "Ingress \(before.ingress), which comes first (by age, then by name)",
            at: places.place(Ingress.kind, ingress, annotation: key),
            mend: "ask for the same in both; until then the first one has it")
    }

    private mutating func addDefaultRoute() {
        guard let name = options.defaultBackend else { return }
        let place = Place(
            object: ObjectReference(kind: Service.kind, namespace: name.service.namespace, name: name.service.name),
            field: "--default-backend")
        var upstream: Int?
        switch services.resolve(name) {
        case .upstream(let index): upstream = index
        case .noService:
            report(
                .badDefaultBackend, "there is no Service \(quoted("\(name.service)"))", at: place,
                mend: "create it; until then unknown requests answer 503")
        case .noPort(let known):
            report(
                .badDefaultBackend, "the Service has no port \(quoted(name.port))", at: place,
                mend: "its ports are \(known.joined(separator: ", ")); until then unknown requests answer 503")
        }
        routes.append(
            Route(
                path: .prefix("/"),
                ingress: ObjectReference(
                    kind: Service.kind, namespace: name.service.namespace, name: name.service.name),
                rule: "--default-backend", host: .any, upstream: upstream))
        result.snapshot.defaultRoute = routes.count - 1
    }

    /// A script may send requests to each Service port of its namespace, and to those that others grant to it. They are
    /// spoken to as the Ingress of the script wishes its backends to be.
    private mutating func addChoosableUpstreams() {
        var scripted: Set<String> = []
        var wishes: [String: [ServiceResolver.Wish]] = [:]
        for index in accepted.indices where !accepted[index].bindings.isEmpty {
            let item = accepted[index]
            guard item.bindings.contains(where: { $0.binding.mode != .off }) else { continue }
            scripted.insert(item.name.namespace)
            guard !item.backend.isBroken else { continue }
            let (wish, secure) = item.backend.wishes
            wishes[item.name.namespace, default: []] += [wish, secure].compactMap { $0 }
        }
        guard !scripted.isEmpty else { return }
        var choosable: [(name: ObjectName, service: Service, granted: [String])] = []
        for (name, service) in objects.services {
            let granted = Grant.namespaces(service.metadata)
            if scripted.contains(name.namespace)
                || !granted.isEmpty && scripted.contains(where: { Grant.covers(granted, $0) })
            {
                choosable.append((name, service, granted))
            }
        }
        for (name, service, granted) in choosable.sorted(by: { $0.name < $1.name }) {
            let wished = wishes.filter { $0.key == name.namespace || Grant.covers(granted, $0.key) }
                .sorted { $0.key < $1.key }.flatMap(\.value)
            for port in service.spec.ports where port.protocol == "TCP" {
                for text in [String(port.port), port.name] where !text.isEmpty {
                    let name = ServicePortName(service: name, port: text)
                    _ = services.resolve(name, isInRule: false)
                    for wish in wished { _ = services.resolve(name, as: wish, isInRule: false) }
                }
            }
        }
    }

    // MARK: TLS to backends

    /// What the annotations say of the backends, with the Secret that they name.
    private mutating func readBackend(of index: Int) {
        if accepted[index].backend.choice == .fastCGI {
            accepted[index].backend.isBroken = true
            report(
                .noFastCGI, "\(AnnotationTable.backendProtocol) is \"FCGI\", and FastCGI is not spoken",
                at: annotationPlace(AnnotationTable.backendProtocol, of: index),
                mend: "put a server of HTTP before the backend; until then the paths of this Ingress answer 503")
        }
        let hasOther = !accepted[index].backend.tls.label.isEmpty
        guard accepted[index].backend.secret != nil || hasOther else { return }
        if let text = accepted[index].backend.secret {
            let place = annotationPlace(AnnotationTable.proxySSLSecret, of: index)
            accepted[index].backend.tls.place = place
            if let problem = takeBackendSecret(text, of: index) {
                accepted[index].backend.isBroken = true
                report(
                    .badBackendSecret, problem.what, at: place,
                    mend: "\(problem.mend); until then the paths of this Ingress answer 503")
            }
        } else {
            let keys = [
                AnnotationTable.proxySSLVerify, AnnotationTable.proxySSLName, AnnotationTable.proxySSLServerName,
                AnnotationTable.proxySSLCiphers, AnnotationTable.proxySSLProtocols,
            ]
            let key = keys.first {
                AnnotationTable.text($0, of: accepted[index].ingress.metadata, foreignPrefix: options.foreignPrefix)
                    != nil
            }
            accepted[index].backend.tls.place = annotationPlace(key ?? AnnotationTable.proxySSLVerify, of: index)
        }
    }

    /// Takes over what the Secret of `proxy-ssl-secret` holds; answers why it can't.
    private mutating func takeBackendSecret(_ text: String, of index: Int) -> (what: String, mend: String)? {
        let namespace = accepted[index].name.namespace
        let key = AnnotationTable.proxySSLSecret
        guard let name = BackendProtocol.secretName(text) else {
            return ("\(key) is \(quoted(text)); this is a namespace and a name", "write \"\(namespace)/NAME\"")
        }
        // Whoever may write an Ingress in one namespace must not use the keys of another.
        guard name.namespace == namespace else {
            return (
                "\(key) names a Secret of the namespace \(quoted(name.namespace))",
                "name a Secret of the namespace \(namespace)"
            )
        }
        guard let secret = objects.secrets[name] else {
            return ("there is no Secret \(quoted("\(name)"))", "create it")
        }
        let chain = secret.bytes("tls.crt") ?? []
        let privateKey = secret.bytes("tls.key") ?? []
        let authorities = secret.bytes("ca.crt") ?? []
        guard chain.isEmpty == privateKey.isEmpty else {
            return (
                "the Secret \(quoted("\(name)")) has only one of tls.crt and tls.key",
                "put both there, for a client certificate, or neither"
            )
        }
        guard !chain.isEmpty || !authorities.isEmpty else {
            return (
                "the Secret \(quoted("\(name)")) has neither ca.crt nor tls.crt",
                "put the authority into ca.crt, or a client certificate and its key into tls.crt and tls.key, all PEM"
            )
        }
        accepted[index].backend.tls.secret = ObjectReference(
            kind: Secret.kind, namespace: name.namespace, name: name.name)
        if !chain.isEmpty { accepted[index].backend.tls.pair = TLSKeyPair(chain: chain, key: privateKey) }
        accepted[index].backend.tls.authorities = authorities
        accepted[index].backend.tls.revocations = secret.bytes("ca.crl") ?? []
        return nil
    }

    /// Who sets up TLS and speaks none has most likely forgotten something.
    private mutating func checkBackendTLS(of index: Int) {
        let backend = accepted[index].backend
        guard !backend.isBroken, !backend.tls.label.isEmpty else { return }
        if !backend.isUsed {
            report(
                .idleBackendTLS, "TLS to backends is set up, and no backend of this Ingress speaks TLS",
                at: backend.tls.place,
                mend: "add \(AnnotationTable.backendProtocol): HTTPS, or take the annotation out; it has no effect")
            return
        }
        guard backend.tls.verifies else { return }
        if backend.tls.authorities.isEmpty {
            report(
                .systemAuthorities,
                "backends of \"\(accepted[index].name)\" are verified, and no ca.crt is given: the authorities of the system "
                    + "decide",
                at: annotationPlace(AnnotationTable.proxySSLVerify, of: index),
                mend:
                    "name a Secret with the authority in ca.crt by \(AnnotationTable.proxySSLSecret), if it is your own"
            )
        }
        if let secret = backend.tls.secret {
            checkRevocations(in: ObjectName(namespace: secret.namespace, name: secret.name), at: backend.tls.place)
        }
    }

    /// An entry that is there and empty is none, as in ingress-nginx.
    private mutating func checkRevocations(in name: ObjectName, at place: Place) {
        guard objects.secrets[name]?.bytes("ca.crl")?.isEmpty == true else { return }
        report(
            .emptyRevocations, "ca.crl in the Secret \(quoted("\(name)")) is empty, so that nobody counts as revoked",
            at: place, mend: "put the revocation lists there, PEM, or delete the entry")
    }

    /// Where the annotation stands, under whichever prefix.
    private func annotationPlace(_ short: String, of index: Int) -> Place {
        let isOurs = accepted[index].ingress.metadata.annotations[AnnotationTable.prefix + short] != nil
        let key = isOurs ? AnnotationTable.prefix + short : "\(options.foreignPrefix)/\(short)"
        return places.place(Ingress.kind, accepted[index].name, annotation: key)
    }

    // MARK: Certificates

    private mutating func addCertificates(of index: Int) {
        if accepted[index].ingress.spec.tls.isEmpty { return }
        let item = accepted[index]
        let unlisted = Self.unlisted(of: item.draft)
        var asked = 0
        for (tlsIndex, tls) in item.ingress.spec.tls.enumerated() {
            let path = FieldPath([.key("spec"), .key("tls")]) + tlsIndex
            guard let secret = tls.secretName, !secret.isEmpty else { continue }
            guard secret.utf8.count <= 253,
                secret.utf8.allSatisfy({ (97...122).contains($0) || (48...57).contains($0) || "-.".utf8.contains($0) })
            else {
                report(
                    .badSecretName, "\(quoted(secret)) is no name of a Secret",
                    at: places.place(Ingress.kind, item.name, path + "secretName"),
                    mend: "name a Secret of the namespace \(item.name.namespace); until then the entry is ignored")
                continue
            }
            var names: [String] = []
            for (hostIndex, host) in tls.hosts.enumerated() {
                do throws(FieldProblem) {
                    names.append(try HostSyntax.pattern(host).description)
                } catch {
                    report(
                        .badHost, "the host \(quoted(host)): \(error.problem)",
                        at: places.place(Ingress.kind, item.name, path + "hosts" + hostIndex),
                        mend: error.mend + "; until then no certificate is served for it")
                }
            }
            let name = ObjectName(namespace: item.name.namespace, name: secret)
            let place = places.place(Ingress.kind, item.name, path + "secretName")
            var reference = certificate(
                in: name, for: names, of: item.reference, at: place, instead: "the default certificate serves")
            // All hosts refused is not the same as no hosts named, which means all of the Ingress.
            guard names.isEmpty == tls.hosts.isEmpty else { continue }
            if asked < Self.mostAsked { reference.unlisted = unlisted }
            asked += 1
            result.snapshot.certificates.append(reference)
        }
    }

    /// What a Secret that is named for hosts holds; what it does not is reported.
    private mutating func certificate(
        in name: ObjectName, for hosts: [String], of ingress: ObjectReference, at place: Place, instead: String
    ) -> CertificateReference {
        var reference = CertificateReference(
            hosts: hosts, secret: ObjectReference(kind: Secret.kind, namespace: name.namespace, name: name.name),
            ingress: ingress, pair: keyPair(in: name, at: place, instead: instead), place: place)
        reference.isEmpty = reference.pair == nil && objects.secrets[name] != nil
        return reference
    }

    /// How many entries of an Ingress are asked whether they cover a host that none lists. Each is asked for each such host:
    /// an Ingress with thousands of both would hold up everybody's configuration.
    private static let mostAsked = 32

    /// The hosts of an Ingress's rules that no entry of its `spec.tls` lists; an entry without hosts stands for all.
    private static func unlisted(of draft: IngressDraft) -> [String] {
        var listed: Set<String> = []
        for entry in draft.spec.tls {
            if entry.hosts.isEmpty { return [] }
            for host in entry.hosts {
                if let pattern = try? HostSyntax.pattern(host) { listed.insert(pattern.description) }
            }
        }
        var unlisted: [String] = []
        for rule in draft.rules {
            guard case .success(let pattern) = rule.host, pattern != .any else { continue }
            if listed.insert(pattern.description).inserted { unlisted.append(pattern.description) }
        }
        return unlisted
    }

    /// The certificate in a Secret. Whether it is any good is not judged here: that takes a library.
    private mutating func keyPair(in name: ObjectName, at place: Place, instead: String) -> TLSKeyPair? {
        guard let secret = objects.secrets[name] else {
            report(
                .noSecret, "there is no Secret \(quoted("\(name)"))", at: place,
                mend: "create it; until then \(instead)")
            return nil
        }
        guard let chain = secret.bytes("tls.crt"), let key = secret.bytes("tls.key"), !chain.isEmpty, !key.isEmpty
        else {
            report(
                .emptySecret, "the Secret \(quoted("\(name)")) lacks tls.crt or tls.key", at: place,
                mend: "put the certificate's chain and its key there, both PEM; until then the last good certificate "
                    + "serves, or without one \(instead)")
            return nil
        }
        return TLSKeyPair(chain: chain, key: key)
    }

    /// Which routes send plain HTTP to HTTPS. That a host has a certificate is said of the host, as in ingress-nginx: by
    /// any Ingress with `spec.tls` and a rule for it, or for the wildcard above, whatever became of the Secret.
    private mutating func addRedirects() {
        var secured: Set<HostPattern> = []
        for index in accepted.indices where !accepted[index].ingress.spec.tls.isEmpty {
            let item = accepted[index]
            for rule in item.draft.rules {
                guard case .success(let pattern) = rule.host, pattern != .any, let host = host(pattern),
                    !options.hostsAreExclusive || host.owner.namespace == item.name.namespace
                else { continue }
                guard secured.insert(pattern).inserted, host.owner.namespace != item.name.namespace else { continue }
                // As in ingress-nginx: the oldest with spec.tls decides, whosever the host is.
                report(
                    .foreignTLS,
                    "the host \(quoted(pattern.description)) belongs to the namespace \(host.owner.namespace), whose "
                        + "Ingress \(host.owner) comes first, and no older one there has spec.tls: this one decides about "
                        + "its certificate, and sends its plain HTTP to HTTPS",
                    at: places.place(Ingress.kind, item.name, FieldPath([.key("spec"), .key("tls")])),
                    mend:
                        "take another host, or have spec.tls for it in \(host.owner); --exclusive-hosts keeps hosts to "
                        + "the namespaces that had them first")
            }
        }
        for index in routes.indices {
            let policy = routes[index].policy
            guard !secured.isEmpty else {
                routes[index].policy.redirectsToHTTPS = policy.forceSSLRedirect == true
                continue
            }
            var hasCertificate = secured.contains(routes[index].host)
            if case .exact(let host) = routes[index].host, let dot = host.firstIndex(of: ".") {
                let above = HostPattern.wildcard(String(host[host.index(after: dot)...]))
                // Where hosts are exclusive, so is what a wildcard says of the hosts below.
                let isOwn =
                    !options.hostsAreExclusive
                    || self.host(above)?.owner.namespace == self.host(routes[index].host)?.owner.namespace
                hasCertificate = hasCertificate || isOwn && secured.contains(above)
            }
            routes[index].policy.redirectsToHTTPS =
                policy.forceSSLRedirect == true
                || hasCertificate && policy.sslRedirect ?? options.redirectsToHTTPS
        }
    }

    // MARK: Clients' certificates

    /// What the Ingress asks of its clients goes to each of its hosts that nobody has spoken for.
    private mutating func addClientRules(of index: Int) {
        guard let key = accepted[index].clients.key else { return }
        let name = accepted[index].name
        let rules = accepted[index].ingress.spec.rules
        let place = places.place(Ingress.kind, name, annotation: key)
        guard let rule = clientAuthentication(of: index, at: place) else { return }
        let patterns = Set(rules.isEmpty ? [.any] : rules.compactMap { try? HostSyntax.pattern($0.host) })
        for pattern in patterns.sorted() {
            guard let host = host(pattern) else { continue }
            if host.owner.namespace != name.namespace {
                // Whoever shares a host does not decide for it; nor is what he wanted closed left open.
                for number in host.routes where routes[number].ingress == accepted[index].reference {
                    routes[number].policy.isDenied = true
                }
                report(
                    .foreignClientRules,
                    "the host \(quoted(pattern.description)) belongs to the namespace \(host.owner.namespace), whose "
                        + "Ingress \(host.owner) comes first: it decides about client certificates",
                    at: place,
                    mend: "take another host, or ask for them there; until then the paths of this Ingress answer 403")
            } else if let before = clientRules[pattern] {
                // The first that can be checked counts; without one, nobody gets through.
                if before.verification == nil, rule.verification != nil {
                    clientRules[pattern] = rule
                } else if rule.verification != nil, !Self.asksTheSame(before, rule) {
                    report(
                        .clientRulesConflict,
                        "the host \(quoted(pattern.description)) asks for client certificates as the first "
                            + "\(before.ingress) says",
                        at: place, mend: "ask for the same in both; until then the first one has it")
                }
            } else {
                clientRules[pattern] = rule
            }
        }
    }

    /// As in ingress-nginx, what is asked of clients holds for TLS, and plain HTTP is for redirects to send there. Where
    /// none does, the door beside the locked one is open.
    private mutating func checkClientRules() {
        for (pattern, rule) in clientRules.sorted(by: { $0.key < $1.key })
        where rule.mode == .required && rule.verification != nil && rule.subjectPattern == nil {
            let isOpen = host(pattern)?.routes.contains { number in
                !routes[number].policy.redirectsToHTTPS && !routes[number].policy.isDenied
            }
            guard isOpen == true else { continue }
            report(
                .plainClientRules,
                "the host \(quoted(pattern.description)) asks for client certificates, and serves plain HTTP without",
                at: rule.place,
                mend:
                    "list the host in spec.tls, or set force-ssl-redirect to \"true\": then plain HTTP is redirected; "
                    + "until then whoever comes by it is served")
        }
    }

    private static func asksTheSame(_ left: ClientAuthentication, _ right: ClientAuthentication) -> Bool {
        var right = right
        right.ingress = left.ingress
        right.place = left.place
        right.patternPlace = left.patternPlace
        return left == right
    }

    /// Nil where nothing is asked.
    private mutating func clientAuthentication(of index: Int, at first: Place) -> ClientAuthentication? {
        let asked = accepted[index].clients
        let name = accepted[index].name
        guard let text = asked.secret else {
            report(
                .idleClientRules, "there are annotations auth-tls-… and no auth-tls-secret", at: first,
                mend:
                    "name the Secret with the authorities, or delete them; until then nobody is asked for a certificate"
            )
            return nil
        }
        let place = annotationPlace(AnnotationTable.authTLSSecret, of: index)
        var rule = ClientAuthentication(ingress: accepted[index].reference, place: place)
        rule.mode = asked.mode
        rule.errorPage = asked.errorPage
        rule.passesCertificate = asked.passesCertificate
        rule.subjectPattern = asked.subjectPattern
        rule.patternPlace = annotationPlace(AnnotationTable.authTLSMatchCN, of: index)
        let closed = "until then the hosts of this Ingress answer 403"
        guard let secretName = ClientAnnotations.secret(text, in: name.namespace) else {
            report(
                .badClientSecret,
                "auth-tls-secret is \(quoted(text)); this is \(name.namespace)/NAME, a Secret of the "
                    + "Ingress's own namespace",
                at: place, mend: "write \(name.namespace)/NAME; \(closed)")
            return rule
        }
        rule.secret = ObjectReference(kind: Secret.kind, namespace: secretName.namespace, name: secretName.name)
        guard let secret = objects.secrets[secretName] else {
            report(
                .noClientSecret, "there is no Secret \(quoted("\(secretName)"))", at: place,
                mend: "create it with the authorities in ca.crt; \(closed)")
            return rule
        }
        guard let authorities = secret.bytes("ca.crt"), !authorities.isEmpty else {
            report(
                .noAuthorities, "the Secret \(quoted("\(secretName)")) has no ca.crt", at: place,
                mend: "put the certificates of the authorities there, PEM; \(closed)")
            return rule
        }
        if asked.mode != .off { checkRevocations(in: secretName, at: place) }
        if !asked.isBroken {
            rule.verification = ClientVerification(
                authorities: authorities, revocations: secret.bytes("ca.crl") ?? [],
                depth: asked.depth)
        }
        return rule
    }

    private mutating func addTicketKeys() {
        guard let name = options.ticketKeys else { return }
        let secret = ObjectReference(kind: Secret.kind, namespace: name.namespace, name: name.name)
        result.snapshot.ticketKeys = TicketKeySource(
            secret: secret, keys: objects.secrets[name]?.bytes("ticket.keys"),
            place: Place(object: secret, field: "--ticket-keys-secret"))
    }

    private mutating func addDefaultCertificate() {
        guard let name = options.defaultCertificate else { return }
        let secret = ObjectReference(kind: Secret.kind, namespace: name.namespace, name: name.name)
        let place = Place(object: secret, field: "--default-tls-secret")
        result.snapshot.defaultCertificate = certificate(
            in: name, for: [], of: secret, at: place, instead: "the one made on start serves")
    }

    // MARK: What is no HTTP

    /// The ports of the ConfigMap that the operator names: `external port: namespace/service:port[:PROXY][:PROXY]`, as
    /// users of ingress-nginx write them. The first PROXY is for headers that come, of either version; the second for
    /// those that go, of version 1, as there, and `PROXY-V2` of version 2.
    private mutating func addTCPServices() {
        for entry in entries(of: options.tcpServices, "TCP", flag: "tcp-services-configmap") {
            let parts = entry.parts
            let flags = parts.dropFirst(2).map { $0.uppercased() }
            let accepts = flags.first == "PROXY"
            let sends = flags.count < 2 ? "" : flags[1]
            let versions: [String: ProxyProtocolVersion] = ["PROXY": .v1, "PROXY-V2": .v2]
            guard flags.count <= 2, accepts || flags.first ?? "" == "", sends == "" || versions[sends] != nil,
                let backend = ServicePortName(parts.prefix(2).joined(separator: ":"))
            else {
                report(
                    .badPortService, "\(quoted(entry.text)) names no Service port", at: entry.place,
                    mend:
                        "write namespace/service:port, then :PROXY to take PROXY protocol headers from trusted proxies, "
                        + "then :PROXY or :PROXY-V2 to send them; until then the entry is not served")
                continue
            }
            if accepts, !options.trustsProxies {
                report(
                    .proxyWithoutTrust, "PROXY protocol headers are to be believed, but of nobody", at: entry.place,
                    mend: "give the balancers' addresses by --trusted-proxies; until then no header is taken")
            }
            if let upstream = upstream(services.resolve(backend), backend, entry) {
                result.snapshot.tcpServices.append(
                    TCPService(
                        port: entry.port, upstream: upstream, acceptsProxyProtocol: accepts,
                        sendsProxyProtocol: versions[sends], place: entry.place))
            }
        }
        result.snapshot.tcpServices.sort { $0.port < $1.port }
    }

    /// The same for datagrams: `external port: namespace/service:port`. What ingress-nginx passes over here, PROXY, is told.
    private mutating func addUDPServices() {
        for entry in entries(of: options.udpServices, "UDP", flag: "udp-services-configmap") {
            let flags = entry.parts.dropFirst(2).map { $0.uppercased() }
            guard flags.count <= 2, flags.allSatisfy({ $0.isEmpty || $0 == "PROXY" }),
                let backend = ServicePortName(entry.parts.prefix(2).joined(separator: ":"))
            else {
                report(
                    .badPortService, "\(quoted(entry.text)) names no Service port", at: entry.place,
                    mend: "write namespace/service:port; until then the entry is not served")
                continue
            }
            if flags.contains("PROXY") {
                report(
                    .udpProxyProtocol, "datagrams carry no PROXY protocol headers", at: entry.place,
                    mend: "write \(backend) alone; the entry is served without them")
            }
            if let upstream = upstream(services.resolveDatagrams(backend), backend, entry) {
                result.snapshot.udpServices.append(UDPService(port: entry.port, upstream: upstream, place: entry.place))
            }
        }
        result.snapshot.udpServices.sort { $0.port < $1.port }
    }

    /// An entry of such a ConfigMap whose port is one.
    private struct PortEntry {
        var transport: String
        var port: UInt16
        var text: String
        var parts: [String]
        var place: Place
    }

    private mutating func entries(of name: ObjectName?, _ transport: String, flag: String) -> [PortEntry] {
        guard let name else { return [] }
        guard let map = objects.configMaps[name] else {
            report(
                .noPortServices, "there is no ConfigMap \(quoted("\(name)")) that can be read",
                at: Place(
                    object: ObjectReference(kind: ConfigMap.kind, namespace: name.namespace, name: name.name),
                    field: "--\(flag)"),
                mend: "create it, or mend what is said of its file; until then no \(transport) service is served")
            return []
        }
        var entries: [PortEntry] = []
        for (key, text) in map.data.sorted(by: { $0.key < $1.key }) {
            let place = places.place(ConfigMap.kind, name, FieldPath([.key("data"), .key(key)]))
            guard let port = UInt16(key), port > 0, key == String(port) else {
                report(
                    .badPortService, "\(quoted(key)) is no port", at: place,
                    mend: "write a number from 1 to 65535; until then the entry is not served")
                continue
            }
            let parts = text.trimmed.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
            entries.append(PortEntry(transport: transport, port: port, text: text, parts: parts, place: place))
        }
        return entries
    }

    private mutating func upstream(
        _ resolution: ServiceResolver.Resolution, _ backend: ServicePortName, _ entry: PortEntry
    ) -> Int? {
        switch resolution {
        case .upstream(let upstream): return upstream
        case .noService:
            report(
                .noPortBackend, "there is no Service \(quoted("\(backend.service)"))", at: entry.place,
                mend: "create it; until then the port \(entry.port) is not open")
        case .noPort(let known):
            report(
                .noPortBackend,
                "the Service \(quoted("\(backend.service)")) has no \(entry.transport) port \(quoted(backend.port))",
                at: entry.place,
                mend: (known.isEmpty ? "give the Service ports" : "its ports are \(known.joined(separator: ", "))")
                    + "; until then the port \(entry.port) is not open")
        }
        return nil
    }

    /// Whose path `/` it is decides about the TLS of a host, if the host is its namespace's: what another Ingress says of a
    /// host that it only shares would take it away from the one that has it.
    private mutating func addPassthrough() {
        let asking = accepted.indices.filter { accepted[$0].policy.sslPassthrough == true }
        guard !asking.isEmpty else { return }
        let numbers = Dictionary(accepted.indices.map { (accepted[$0].reference, $0) }) { first, _ in first }
        for index in asking {
            let item = accepted[index]
            let key =
                item.ingress.metadata.annotations[AnnotationTable.prefix + AnnotationTable.sslPassthrough] == nil
                ? options.foreignPrefix + "/" : AnnotationTable.prefix
            let place = places.place(Ingress.kind, item.name, annotation: key + AnnotationTable.sslPassthrough)
            guard options.allowsPassthrough else {
                report(
                    .passthroughOff, "TLS passthrough is not turned on", at: place,
                    mend: "run with --enable-ssl-passthrough; until then TLS of these hosts ends here")
                continue
            }
            for pattern in Set(item.ingress.spec.rules.compactMap({ try? HostSyntax.pattern($0.host) })).sorted() {
                guard pattern != .any, let number = placeOfHost[pattern],
                    let route = route(of: .prefix("/"), at: number) ?? route(of: .exact("/"), at: number),
                    routes[route].ingress == item.reference, let upstream = routes[route].upstream
                else {
                    report(
                        .passthroughPath,
                        "the host \(quoted(pattern.description)) has no path / that leads to a Service of this Ingress",
                        at: place, mend: "add a rule with a host and the path /; until then its TLS ends here")
                    continue
                }
                let host = hosts[number]
                guard host.owner.namespace == item.name.namespace else {
                    report(
                        .passthroughPath,
                        "the host \(quoted(pattern.description)) belongs to the namespace \(host.owner.namespace), "
                            + "whose Ingress \(host.owner) comes first: it decides about its TLS",
                        at: place, mend: "take another host, or ask for it there; until then its TLS ends here")
                    continue
                }
                result.snapshot.passthrough.append(
                    PassthroughHost(pattern: pattern, upstream: upstream, ingress: item.reference))
                speakTLS(to: upstream, at: number, numbers)
            }
        }
        result.snapshot.passthrough.sort { $0.pattern < $1.pattern }
    }

    /// Who comes to such a host by plain HTTP is served as well, and the backend is the same that ends the TLS of the
    /// others: it is spoken to by TLS, as in ingress-nginx, unless its Ingress or its port says what it speaks.
    private mutating func speakTLS(to upstream: Int, at host: Int, _ numbers: [ObjectReference: Int]) {
        let plain = services.upstreams[upstream]
        let name = ServiceResolver.port(of: plain)
        guard plain.protocol == .http, !services.saysProtocol(of: name) else { return }
        for number in hosts[host].routes where routes[number].upstream == upstream {
            guard let index = numbers[routes[number].ingress], accepted[index].backend.choice == nil,
                case .upstream(let secure) = services.resolve(name, as: accepted[index].backend.wish(.https))
            else { continue }
            routes[number].upstream = secure
            if services.upstreams[secure].tls != nil { accepted[index].backend.isUsed = true }
        }
    }

    // MARK: Out

    /// Puts upstreams in order of name and hosts in order of pattern, and the indices right.
    private mutating func layOut() {
        let made = services.upstreams
        let placeOfName = Dictionary(
            made.indices.map { (made[$0].name, $0) }, uniquingKeysWith: { first, _ in first })
        let order = Self.sorted(
            made.indices, asBefore: cache.upstreams.compactMap { placeOfName[$0] }, by: { made[$0].name })
        cache.upstreams = order.map { made[$0].name }
        var position = [Int](repeating: 0, count: made.count)
        for (new, old) in order.enumerated() { position[old] = new }
        for index in routes.indices {
            if let upstream = routes[index].upstream { routes[index].upstream = position[upstream] }
            if let upstream = routes[index].secureUpstream { routes[index].secureUpstream = position[upstream] }
        }
        for index in result.snapshot.tcpServices.indices {
            result.snapshot.tcpServices[index].upstream = position[result.snapshot.tcpServices[index].upstream]
        }
        for index in result.snapshot.udpServices.indices {
            result.snapshot.udpServices[index].upstream = position[result.snapshot.udpServices[index].upstream]
        }
        for index in result.snapshot.passthrough.indices {
            result.snapshot.passthrough[index].upstream = position[result.snapshot.passthrough[index].upstream]
        }
        result.snapshot.upstreams = order.map { made[$0] }
        result.snapshot.routes = routes
        result.snapshot.scripts = scripts.sources
        let hostOrder = Self.sorted(
            hosts.indices, asBefore: cache.hosts.compactMap { placeOfHost[$0] },
            by: { hosts[$0].pattern.description })
        cache.hosts = hostOrder.map { hosts[$0].pattern }
        result.snapshot.hosts = hostOrder.map {
            VirtualHost(
                pattern: hosts[$0].pattern, routes: hosts[$0].routes,
                clientAuthentication: clientRules[hosts[$0].pattern])
        }
    }

    /// Sorts these indices by what they stand for; those that were there before first in the order of that time, because
    /// what is nearly sorted is sorted soon.
    private static func sorted<Key: Comparable>(
        _ indices: Range<Int>, asBefore: some Sequence<Int>, by key: (Int) -> Key
    ) -> [Int] {
        var isThere = [Bool](repeating: false, count: indices.count)
        var keyed: [(key: Key, index: Int)] = []
        keyed.reserveCapacity(indices.count)
        for index in asBefore where !isThere[index] {
            isThere[index] = true
            keyed.append((key(index), index))
        }
        for index in indices where !isThere[index] { keyed.append((key(index), index)) }
        keyed.sort { $0.key < $1.key }
        return keyed.map(\.index)
    }

    private mutating func addStatuses() {
        var addresses = options.statusAddresses
        if addresses.isEmpty, let name = options.publishService {
            addresses = publishedAddresses(of: name)
        }
        let status = IngressStatus(loadBalancer: LoadBalancerStatus(ingress: addresses))
        let before = cache.statuses
        guard
            before.count != accepted.count || before.first.map({ $0.status != status }) ?? false
                || !before.allSatisfy({ cache.ingresses[$0.ingress] != nil })
        else {
            result.statuses = before
            return
        }
        result.statuses = accepted.map(\.name).sorted().map { IngressStatusUpdate(ingress: $0, status: status) }
        cache.statuses = result.statuses
    }

    private mutating func publishedAddresses(of name: ObjectName) -> [LoadBalancerIngress] {
        func addresses(_ texts: [String]) -> [LoadBalancerIngress] { texts.map { LoadBalancerIngress(ip: $0) } }
        var found: [LoadBalancerIngress] = []
        if let service = objects.services[name] {
            let clusterIP = service.spec.clusterIP.flatMap { $0.isEmpty || $0 == "None" ? nil : $0 }
            switch service.spec.type {
            case "LoadBalancer":
                found = service.status.loadBalancer.ingress + addresses(service.spec.externalIPs)
            case "ExternalName":
                found = service.spec.externalName.map { [LoadBalancerIngress(hostname: $0)] } ?? []
            case "NodePort":
                found = addresses(
                    service.spec.externalIPs.isEmpty ? clusterIP.map { [$0] } ?? [] : service.spec.externalIPs)
            default:
                found = addresses(clusterIP.map { [$0] } ?? [])
            }
        }
        if found.isEmpty {
            report(
                .badStatusSource, "the Service \(quoted("\(name)")) does not exist or has no address yet",
                at: Place(
                    object: ObjectReference(kind: Service.kind, namespace: name.namespace, name: name.name),
                    field: "--publish-service"),
                mend: "name the Service through which Moongate is reached; until then no address is published")
        }
        var seen: Set<LoadBalancerIngress> = []
        return found.filter { seen.insert($0).inserted }
    }
}
