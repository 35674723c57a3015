import Foundation
import IngressTranslation
import KubernetesAPI
import Testing

@testable import Admission

/// What this thread has used of the processor: other tests run beside.
func processorTime() -> Duration {
    var time = timespec()
    unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return .seconds(time.tv_sec) + .nanoseconds(time.tv_nsec)
}

/// An answer, as the API server reads it.
struct Verdict: Decodable, Equatable {
    struct Response: Decodable, Equatable {
        struct Status: Decodable, Equatable {
            var code: Int
            var message: String
        }
        var uid: String
        var allowed: Bool
        var status: Status?
        var warnings: [String]?
    }
    var apiVersion: String
    var kind: String
    var response: Response
}

@Suite struct AdmissionJudgeTests {
    private func world() -> ObjectSet {
        var objects = ObjectSet()
        objects.ingressClasses["moongate"] = IngressClass(
            metadata: ObjectMeta(name: "moongate"),
            spec: IngressClassSpec(controller: "moongate.dev/ingress-controller"))
        var service = Service(metadata: ObjectMeta(name: "web", namespace: "shop"))
        service.spec.ports = [ServicePort(port: 80)]
        objects.services[service.metadata.objectName] = service
        var older = Ingress(metadata: ObjectMeta(name: "older", namespace: "shop"))
        older.metadata.creationTimestamp = Timestamp(seconds: 1)
        older.spec.ingressClassName = "moongate"
        let backend = IngressBackend(
            service: IngressServiceBackend(name: "web", port: ServiceBackendPort(number: 80)))
        older.spec.rules = [
            IngressRule(
                host: "shop.test",
                http: HTTPIngressRuleValue(paths: [HTTPIngressPath(path: "/a", pathType: .prefix, backend: backend)]))
        ]
        objects.ingresses[older.metadata.objectName] = older
        return objects
    }

    private func judge(_ options: TranslationOptions = TranslationOptions()) -> AdmissionJudge {
        let objects = world()
        return AdmissionJudge(options: options) { objects }
    }

    private func ask(
        _ judge: AdmissionJudge, group: String = "networking.k8s.io", kind: String = "Ingress",
        operation: String = "CREATE", _ object: String
    ) throws -> Verdict.Response {
        let review = """
            {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u-1",
            "kind": {"group": "\(group)", "version": "v1", "kind": "\(kind)"}, "operation": "\(operation)",
            "namespace": "shop", "name": "web", "userInfo": {"username": "ada"}, "object": \(object)}}
            """
        let (bytes, isAllowed) = try judge.answer(Array(review.utf8))
        let verdict = try JSONDecoder().decode(Verdict.self, from: Data(bytes))
        #expect(verdict.kind == "AdmissionReview")
        #expect(verdict.response.uid == "u-1")
        #expect(verdict.response.allowed == isAllowed)
        return verdict.response
    }

    private func ingress(
        host: String = "new.test", path: String = "/", service: String = "web", className: String = "moongate",
        annotations: String = "{}"
    ) -> String {
        """
        {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web", "annotations":
        \(annotations)}, "spec": {"ingressClassName": "\(className)", "rules": [{"host": "\(host)", "http": {"paths":
        [{"path": "\(path)", "pathType": "Prefix", "backend": {"service": {"name": "\(service)", "port":
        {"number": 80}}}}]}}]}}
        """
    }

    @Test func `what is right comes in without a word`() throws {
        let answer = try ask(judge(), ingress())
        #expect(answer.allowed)
        #expect(answer.warnings == nil)
    }

    @Test func `what may not be there yet is a warning`() throws {
        let answer = try ask(judge(), ingress(service: "later"))
        #expect(answer.allowed)
        #expect(answer.warnings?.contains { $0.contains("MG130") && $0.contains("later") } == true)
    }

    @Test(arguments: [
        ("*.*.test", "/", "{}", "MG122"), ("new.test", "/a//b", "{}", "MG123"),
        ("shop.test", "/a", "{}", "MG124"),
        ("new.test", "/", #"{"moongate.dev/scripts": "- [1"}"#, "MG150"),
        ("new.test", "/", #"{"moongate.dev/script-inline": "return {"}"#, "does not compile"),
    ])
    func `a fault of its own is refused with problem, place and mend`(
        host: String, path: String, annotations: String, expected: String
    ) throws {
        let answer = try ask(judge(), ingress(host: host, path: path, annotations: annotations))
        #expect(!answer.allowed)
        #expect(answer.status?.code == 422)
        #expect(answer.status?.message.contains(expected) == true, "\(answer.status?.message ?? "")")
    }

    @Test func `a host of another namespace is refused where hosts are exclusive`() throws {
        var options = TranslationOptions()
        options.hostsAreExclusive = true
        let theft = ingress(host: "shop.test", path: "/pay").replacing(
            #""name": "web""#, with: #""name": "web", "namespace": "thief""#, maxReplacements: 1)
        #expect(try ask(judge(options), theft).status?.message.contains("MG126") == true)
        #expect(try ask(judge(), theft).allowed)
    }

    @Test func `another controller's Ingress is none of our business`() throws {
        let answer = try ask(judge(), ingress(host: "*.*.test", className: "other"))
        #expect(answer.allowed)
        #expect(answer.warnings == nil)
    }

    @Test func `an update is judged against all others, and not against its old self`() throws {
        let update = ingress(host: "shop.test", path: "/a").replacing(
            #""name": "web""#, with: #""name": "older""#, maxReplacements: 1)
        #expect(try ask(judge(), operation: "UPDATE", update).allowed)
    }

    @Test func `what is deleted is let go`() throws {
        #expect(try ask(judge(), operation: "DELETE", "null").allowed)
    }

    @Test func `an object that is not as the API has it is refused by name of the field`() throws {
        let answer = try ask(judge(), #"{"metadata": {"name": "web"}, "spec": {"rules": 7}}"#)
        #expect(!answer.allowed)
        #expect(answer.status?.message.contains("spec.rules") == true)
    }

    /// The top level must not run: it loops, allocates, and asks for what is not there.
    @Test(arguments: [
        ("while true do end", true), ("local t = {} for i = 1, 1e9 do t[i] = i end", true),
        ("os.execute('true') return {}", true), ("return {", false), ("\u{1b}LuaQ", false),
    ])
    func `a script is compiled and never run`(source: String, isAllowed: Bool) throws {
        let text = String(decoding: try JSONEncoder().encode(source), as: UTF8.self)
        let map =
            #"{"metadata": {"name": "s", "labels": {"moongate.dev/script": "true"}}, "data": {"main.lua": \#(text)}}"#
        let started = processorTime()
        let answer = try ask(judge(), group: "", kind: "ConfigMap", map)
        #expect(answer.allowed == isAllowed)
        #expect(processorTime() - started < .seconds(1))
        if !isAllowed { #expect(answer.status?.message.contains("data[main.lua]") == true) }
        // Without the label it is any ConfigMap.
        let unlabelled = map.replacing(#""true""#, with: #""no""#)
        #expect(try ask(judge(), group: "", kind: "ConfigMap", unlabelled).allowed)
    }

    @Test(arguments: ["", "{", "[]", "{}", #"{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview"}"#])
    func `what is no question gets no answer`(body: String) {
        #expect(throws: AdmissionProblem.self) { try judge().answer(Array(body.utf8)) }
    }

    /// Bytes changed at random: always an answer or a refusal to give one, never a trap.
    @Test func `damaged questions do no harm`() throws {
        let judge = judge()
        let review = Array(
            """
            {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u-1",
            "kind": {"group": "networking.k8s.io", "version": "v1", "kind": "Ingress"}, "operation": "CREATE",
            "namespace": "shop", "name": "web", "object": \(ingress())}}
            """.utf8)
        var random = SystemRandomNumberGenerator()
        for _ in 0..<2_000 {
            var damaged = review
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                damaged[Int.random(in: damaged.indices, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            _ = try? judge.answer(damaged)
            _ = try? judge.answer(damaged.prefix(Int.random(in: 0...damaged.count, using: &random)))
        }
    }
}
