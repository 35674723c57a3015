import Admission
import ClusterTesting
import Foundation
import IngressTranslation
import KubernetesAPI
import Testing

/// The webhook is asked what anybody who may write an Ingress can make an API server ask. `MOONGATE_FUZZ_REVIEWS` says how
/// many questions (100,000 for `make fuzz`); the same questions come every time.
@Suite struct AdmissionFuzzTests {
    private static let count =
        ProcessInfo.processInfo.environment["MOONGATE_FUZZ_REVIEWS"].flatMap { Int($0) } ?? 3_000

    /// SplitMix64: the same sequence on every machine.
    private struct Chance {
        var state: UInt64

        mutating func next(_ bound: Int) -> Int {
            state &+= 0x9e37_79b9_7f4a_7c15
            var z = state
            z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
            z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
            return Int((z ^ z >> 31) % UInt64(max(1, bound)))
        }
    }

    private static func question(_ kind: String, _ group: String, _ object: String) -> [UInt8] {
        Array(
            """
            {"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u-1","kind":{"group":"\(group)",\
            "version":"v1","kind":"\(kind)"},"operation":"CREATE","namespace":"shop","name":"web","object":\(object)}}
            """.utf8)
    }

    private static let seeds: [[UInt8]] = [
        question(
            "Ingress", "networking.k8s.io",
            #"""
            {"metadata":{"name":"web","namespace":"shop","annotations":{"moongate.dev/script":"plugin/cookie-canary",
            "moongate.dev/script-args":"{\"canary\":\"web-canary:80\",\"percent\":10}","moongate.dev/total-timeout":"5s"}},
            "spec":{"ingressClassName":"moongate","tls":[{"hosts":["shop.test"],"secretName":"cert"}],"rules":[
            {"host":"shop.test","http":{"paths":[{"path":"/","pathType":"Prefix","backend":{"service":{"name":"web",
            "port":{"number":80}}}},{"path":"/a","pathType":"Exact","backend":{"service":{"name":"web","port":{"name":
            "http"}}}}]}},{"host":"*.shop.test"}],"defaultBackend":{"service":{"name":"web","port":{"number":80}}}}}
            """#),
        question(
            "ConfigMap", "",
            #"""
            {"metadata":{"name":"s","namespace":"shop","labels":{"moongate.dev/script":"true"}},"data":{"main.lua":
            "while true do local s = ('x'):rep(1e9) os.exit(1) end\nreturn { access = function(ctx) return nil end }",
            "other.lua":"return {","notes":"text"}}
            """#),
        question("Service", "", #"{"metadata":{"name":"web"}}"#),
    ]

    private static let words: [[UInt8]] = [
        "\n", ";", "{", "}", "#", "\\\"", "'", "$", "\\u0000", "%0a", "${}", "null", "true", "-1", "1e999",
        "99999999999999999999", "[]", "{}", "\"\"", "\\ud800", "../", "//", "*", "*.", "moongate.dev/script",
        "moongate.dev/paths", "plugin/", "return {", "]]--[[", "\u{1b}Lua", "\u{fffd}", "65536", "0",
    ].map { Array($0.utf8) }

    private static func mutated(_ chance: inout Chance) -> [UInt8] {
        var bytes = seeds[chance.next(seeds.count)]
        for _ in 0...chance.next(3) {
            guard !bytes.isEmpty else { break }
            let at = chance.next(bytes.count)
            switch chance.next(7) {
            case 0: bytes[at] ^= 1 << UInt8(chance.next(8))
            case 1: bytes[at] = UInt8(chance.next(256))
            case 2: bytes.removeSubrange(at..<min(bytes.count, at + 1 + chance.next(12)))
            case 3: bytes.insert(contentsOf: words[chance.next(words.count)], at: at)
            case 4:
                // A word in the place of another value.
                let end = bytes[at...].firstIndex { [UInt8(ascii: ","), UInt8(ascii: "}")].contains($0) } ?? at
                bytes.replaceSubrange(at..<end, with: words[chance.next(words.count)])
            case 5:
                let part = Array(bytes[at..<min(bytes.count, at + chance.next(120))])
                bytes.insert(contentsOf: part, at: chance.next(bytes.count))
            default:
                let word = words[chance.next(words.count)]
                bytes.insert(contentsOf: Array(repeating: word, count: 1 + chance.next(400)).joined(), at: at)
            }
        }
        return bytes
    }

    @Test(.timeLimit(.minutes(30))) func `whatever is asked, the answer is one, and soon`() throws {
        var world = ObjectSet()
        world.ingressClasses["moongate"] = moongateClass()
        let other = ingress("other", namespace: "blog")
        world.ingresses[other.metadata.objectName] = other
        let judge = AdmissionJudge(options: .init()) { [world] in world }
        var chance = Chance(state: 3)
        var slowest = Duration.zero
        var answered = 0
        for number in 0..<Self.count {
            let question = Self.mutated(&chance)
            let began = processorTime()
            do throws(AdmissionProblem) {
                let (answer, isAllowed) = try judge.answer(question)
                answered += 1
                let text = String(decoding: answer, as: UTF8.self)
                guard text.hasPrefix(#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"#),
                    text.contains(#""allowed":\#(isAllowed)"#), answer.count < 64 << 10
                else {
                    Issue.record("question \(number) is answered \(text.prefix(500))")
                    return
                }
            } catch {
                // No question: the API server goes by the failure policy.
            }
            slowest = max(slowest, processorTime() - began)
        }
        // Enough of them are understood for the rooms behind to be tried.
        #expect(answered > Self.count / 20)
        // A bound on what one question can cost.
        #expect(slowest < .seconds(2))
    }
}
