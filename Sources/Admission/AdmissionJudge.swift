// Whether an object may come in: translated beside what is there already, its scripts compiled. Nothing of the object is
// run, no file is opened and no connection made; the answer names problem, place and mend.

import FoundationEssentials
package import IngressTranslation
package import KubernetesAPI
internal import Model
internal import Scripting

package struct AdmissionJudge: Sendable {
    private let options: TranslationOptions
    private let world: @Sendable () -> ObjectSet

    /// The label of ConfigMaps that hold scripts.
    package static let scriptLabel = "moongate.dev/script"

    /// - Parameter world: what is known of the cluster now.
    package init(options: TranslationOptions, world: @escaping @Sendable () -> ObjectSet) {
        self.options = options
        self.world = world
    }

    /// Faults of the object itself refuse it. What may only not be there yet (a Service, a Secret, a script) is a
    /// warning: objects may come in any order.
    private static let refusing: Set<String> = {
        let codes: [TranslationCode] = [
            .badHost, .badPath, .pathConflict, .hostTaken, .badBackend, .badScripts, .scriptNotGranted, .scriptTooLarge,
            .inlineForbidden, .badSecretName,
        ]
        return Set(codes.map(\.rawValue))
    }()
    /// Of the cluster rather than of the object.
    private static let silent: Set<String> = [
        TranslationCode.noEndpoints.rawValue, TranslationCode.otherClass.rawValue,
    ]

    /// Answers an AdmissionReview with one.
    package func answer(_ body: some Sequence<UInt8>) throws(AdmissionProblem) -> (bytes: [UInt8], isAllowed: Bool) {
        let question: AdmissionQuestion
        do {
            question = try JSONDecoder().decode(AdmissionQuestion.self, from: Data(body))
        } catch {
            throw AdmissionProblem("the body is no AdmissionReview of \(AdmissionQuestion.apiVersion)")
        }
        let answer =
            switch question.subject {
            case .other: AdmissionAnswer(uid: question.uid, refusals: [], warnings: [])
            case .unreadable(let problem): AdmissionAnswer(uid: question.uid, refusals: [problem], warnings: [])
            case .ingress(let ingress): judge(ingress, question.uid)
            case .configMap(let map): judge(map, question.uid)
            }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(answer) else { throw AdmissionProblem("the answer can't be written") }
        return (Array(data), answer.response.allowed)
    }

    private func judge(_ ingress: Ingress, _ uid: String) -> AdmissionAnswer {
        let objects = surroundings(of: ingress)
        let translation = Translator.translate(objects, options: options)
        let name = ingress.metadata.objectName
        let subject = ObjectReference(kind: Ingress.kind, namespace: name.namespace, name: name.name)
        guard translation.statuses.contains(where: { $0.ingress == name }) else {
            // Another controller's.
            return AdmissionAnswer(uid: uid, refusals: [], warnings: [])
        }
        var refusals: [String] = []
        var warnings: [String] = []
        for diagnostic in translation.diagnostics where diagnostic.place.object == subject {
            if Self.silent.contains(diagnostic.code) { continue }
            if diagnostic.severity == .error, Self.refusing.contains(diagnostic.code) {
                refusals.append(Self.text(diagnostic))
            } else if diagnostic.severity > .note {
                warnings.append(Self.text(diagnostic))
            }
        }
        var compiled: Set<Int> = []
        for route in translation.snapshot.routes where route.ingress == subject {
            for binding in route.scripts {
                guard let script = binding.script, translation.snapshot.scripts.indices.contains(script),
                    compiled.insert(script).inserted
                else { continue }
                let source = translation.snapshot.scripts[script]
                guard let failure = ScriptVersion.check(source) else { continue }
                let text = Self.text(failure, of: source.name, field: binding.place.field)
                // A script in a ConfigMap is refused or mended there.
                if source.name == "inline" { refusals.append(text) } else { warnings.append(text) }
            }
        }
        return AdmissionAnswer(uid: uid, refusals: refusals, warnings: warnings)
    }

    private func judge(_ map: ConfigMap, _ uid: String) -> AdmissionAnswer {
        guard map.metadata.labels[Self.scriptLabel] == "true" else {
            return AdmissionAnswer(uid: uid, refusals: [], warnings: [])
        }
        var refusals: [String] = []
        for (key, text) in map.data.sorted(by: { $0.key < $1.key }) where key.hasSuffix(".lua") {
            let source = ScriptSource(name: key, namespace: map.metadata.namespace, main: text)
            if let failure = ScriptVersion.check(source) {
                refusals.append(Self.text(failure, of: key, field: "data[\(key)]"))
            }
        }
        var objects = ObjectSet()
        objects.configMaps[map.metadata.objectName] = map
        let warnings = Translator.translate(objects, options: options).diagnostics.filter { $0.severity > .note }
        return AdmissionAnswer(uid: uid, refusals: refusals, warnings: warnings.map(Self.text))
    }

    /// What the Ingress can meet: classes, the Ingresses of its hosts, and the objects that it may name.
    private func surroundings(of ingress: Ingress) -> ObjectSet {
        let all = world()
        let name = ingress.metadata.objectName
        var part = ObjectSet()
        part.ingressClasses = all.ingressClasses
        part.configMaps = all.configMaps
        part.secrets = all.secrets
        for (other, service) in all.services where other.namespace == name.namespace { part.services[other] = service }
        let hosts = Set(ingress.spec.rules.map { ($0.host ?? "").lowercased() })
        for (other, known) in all.ingresses where other != name {
            if known.spec.rules.contains(where: { hosts.contains(($0.host ?? "").lowercased()) }) {
                part.ingresses[other] = known
            }
        }
        part.ingresses[name] = ingress
        return part
    }

    private static func text(_ diagnostic: Diagnostic) -> String {
        let place = diagnostic.place.field.map { "\($0): " } ?? ""
        return "\(place)\(diagnostic.problem); \(diagnostic.mend) (\(diagnostic.code))"
    }

    private static func text(_ failure: ScriptFailure, of script: String, field: String?) -> String {
        let line = failure.sourceLine.map { " | \($0)" } ?? ""
        return "\(field ?? script): the script does not compile: \(failure.message)\(line)"
    }
}
