import KubernetesAPI
import Manifests
import Model
import Testing

struct ManifestParserTests {
    private func parse(_ text: String, file: String = "a.yaml") -> ParsedFile { ManifestParser.parse(text, file: file) }
    private func codes(_ file: ParsedFile) -> [String] { file.diagnostics.map(\.code) }

    private let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n"

    @Test func readsDocumentsWithTheirLines() throws {
        let parsed = parse("# head\n---\n" + service + "---\n" + service.replacing("web", with: "api"))
        #expect(parsed.objects.map(\.object.key.name.description) == ["default/web", "default/api"])
        #expect(parsed.objects.map(\.origin.line) == [3, 8])
        let path = FieldPath([.key("spec"), .key("ports"), .index(0), .key("port")])
        #expect(parsed.objects.map { $0.origin.line(of: path) } == [6, 11])
        #expect(parsed.diagnostics.isEmpty && !parsed.isBroken)
    }

    @Test func aFaultInTheMiddleCostsOneDocument() throws {
        for broken in ["kind: [", "a: 1\na: 2", "\"", "- x\n  y: {", "{{ .Values.x }}", "a: \u{1}"] {
            let parsed = parse(service + "---\n\(broken)\n---\n" + service.replacing("web", with: "api"))
            #expect(parsed.objects.map(\.object.metadata.name) == ["web", "api"], "\(broken)")
            #expect(parsed.isBroken, "\(broken)")
            #expect(parsed.diagnostics.count == 1, "\(broken)")
            let place = try #require(parsed.diagnostics.first?.place)
            #expect(place.file == "a.yaml")
            #expect((6...8).contains(place.line ?? 0), "\(broken): \(place)")
        }
    }

    @Test func aWrongTypeNamesObjectFieldAndLine() throws {
        let parsed = parse(service.replacing("port: 80", with: "port: http"))
        #expect(parsed.objects.isEmpty)
        let diagnostic = try #require(parsed.diagnostics.first)
        #expect(diagnostic.code == "MG102")
        #expect(diagnostic.place.description == "Service default/web, spec.ports[0].port, a.yaml:4")
    }

    @Test(arguments: [
        ("networking.k8s.io/v1", "ingress", "Ingress"), ("networking.k8s.io/v1", "Ingres", "Ingress"),
        ("v1", "Services", "Service"), ("discovery.k8s.io/v1", "EndpointSlices", "EndpointSlice"),
        ("serving.knative.dev/v1", "Service", nil), ("v1", "Pod", nil), ("apps/v1", "Deployment", nil),
        ("traefik.io/v1alpha1", "IngressRoute", nil), ("bitnami.com/v1alpha1", "SealedSecret", nil),
        ("v1", "Endpoints", nil),
    ])
    func aKindThatIsASlip(apiVersion: String, kind: String, meant: String?) throws {
        let parsed = parse("apiVersion: \(apiVersion)\nkind: \(kind)\nmetadata: {name: web}\n")
        let diagnostic = try #require(parsed.diagnostics.first)
        #expect(diagnostic.code == "MG103")
        #expect(diagnostic.severity == (meant == nil ? .note : .warning))
        #expect(parsed.isBroken == (meant != nil))
        if let meant { #expect(diagnostic.mend.contains("did you mean \"kind: \(meant)\"?")) }
    }

    @Test(arguments: [
        ("spec: {ingressClassNam: moongate}", "spec.ingressClassNam", "ingressClassName"),
        ("specs: {}", "specs", "spec"), ("metadata: {name: web, annotation: {}}", "metadata.annotation", "annotations"),
        ("spec: {rules: [{hots: a.test}]}", "spec.rules[0].hots", "host"),
        (
            "spec: {rules: [{http: {paths: [{path: /, pathType: Prefix, pathtype: Exact}]}}]}",
            "spec.rules[0].http.paths[0].pathtype", "pathType"
        ),
        ("spec: {tls: [{host: a.test}]}", "spec.tls[0].host", "hosts"),
    ])
    func aFieldThatThereIsNot(text: String, path: String, meant: String) throws {
        let metadata = text.hasPrefix("metadata") ? "" : "metadata: {name: web}\n"
        let parsed = parse("apiVersion: networking.k8s.io/v1\nkind: Ingress\n\(metadata)\(text)\n")
        let diagnostic = try #require(parsed.diagnostics.first { $0.code == "MG116" })
        #expect(diagnostic.severity == .warning)
        #expect(diagnostic.problem.contains(path))
        #expect(diagnostic.mend.contains("did you mean \"\(meant)\"?"))
        #expect(diagnostic.place.line == (metadata.isEmpty ? 3 : 4))
    }

    @Test func fieldsThatNobodyReadsAreKnown() {
        let text = """
            apiVersion: v1
            kind: Service
            metadata: {name: web, labels: {a: b}, ownerReferences: [], managedFields: [{x: y}]}
            spec: {ports: [{port: 80, nodePort: 30000}], sessionAffinity: None, anything: true}
            status: {loadBalancer: {}}
            ---
            apiVersion: discovery.k8s.io/v1
            kind: EndpointSlice
            metadata: {name: web}
            addressType: IPv4
            endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}, nodeName: n, hints: {forZones: [{name: z}]}}]
            ports: [{port: 80, appProtocol: http}]
            ---
            {apiVersion: v1, kind: Secret, metadata: {name: s}, data: {any: ""}, type: Opaque, immutable: true}
            """
        #expect(parse(text).diagnostics.isEmpty)
    }

    @Test func listsAreTakenApart() {
        let text = """
            apiVersion: v1
            kind: List
            items:
            - {apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {k: v}}
            - {apiVersion: v1, kind: ConfigMap, metadata: {name: b}, data: {k: 1}}
            - {apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Secret, metadata: {name: c}}]}
            ---
            apiVersion: v1
            kind: ConfigMapList
            items: [{metadata: {name: d}}]
            """
        let parsed = parse(text)
        #expect(parsed.objects.map(\.object.metadata.name) == ["a", "c", "d"])
        #expect(codes(parsed) == ["MG102"])
        #expect(parsed.diagnostics.first?.place.line == 5)
    }

    @Test(arguments: [
        ("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}", "MG103", false),
        ("apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: a}", "MG104", false),
        ("foo: bar", "MG110", true), ("- 1", "MG110", true), ("just text", "MG110", true),
        ("apiVersion: v1\nkind: Service\nspec: {}", "MG106", true),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: Web}", "MG106", true),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: \"a\\nb\"}", "MG106", true),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: a.b}", "MG106", true),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: ../a}", "MG106", true),
    ])
    func saysWhatIsNoObjectOfOurs(text: String, code: String, isBroken: Bool) {
        let parsed = parse(text)
        #expect(parsed.objects.isEmpty)
        #expect(codes(parsed) == [code])
        #expect(parsed.isBroken == isBroken)
    }

    @Test func nothingIsNothing() {
        for text in ["", "\n\n", "# c", "---\n---\n", "null", "~\n---\n# x"] {
            #expect(parse(text) == ParsedFile(), "\(text)")
        }
        #expect(parse(" \n", file: "a.json") == ParsedFile())
    }

    @Test func readsJSON() {
        let text =
            #"{"apiVersion":"v1","kind":"Service","metadata":{"name":"w","namespace":"n","x":"\ud83d\ude00"},"spec":{}}"#
        #expect(parse(text, file: "a.JSON").objects.map(\.object.key.name.description) == ["n/w"])
        let broken = parse("{\"a\":\n1,}", file: "a.json")
        #expect(broken.isBroken && codes(broken) == ["MG101"])
        #expect(broken.diagnostics.first?.place.line == 2)
    }

    @Test func secretsKeepNoSecondCopy() {
        let parsed = parse("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: hunter2}")
        #expect(parsed.objects.count == 1)
        #expect(parsed.objects.first?.origin.document == nil)
    }

    @Test func everyCodeIsItsOwn() {
        #expect(Set(ManifestCode.allCases.map(\.name)).count == ManifestCode.allCases.count)
        for code in ManifestCode.allCases { #expect(!code.meaning.isEmpty) }
    }
}
