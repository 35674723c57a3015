import Foundation
import IngressTranslation
import KubernetesAPI
import Manifests
import Model
import Testing

/// Tests/Golden/*.txt: a title, sections of manifests, and what comes of them. `MOONGATE_BLESS=1` rewrites the last part;
/// the difference is then read in review.
struct GoldenTests {
    static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("Golden")

    static let cases: [String] = {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        return names.filter { $0.hasSuffix(".txt") }.sorted()
    }()

    struct Case {
        var head = ""
        var sections: [(name: String, text: String)] = []
        var expected = ""

        /// Sections begin with `-- NAME --`; the last one is `expected`.
        init(_ text: String) {
            var name: String?
            var body = ""
            func close(_ self: inout Case) {
                switch name {
                case nil: self.head = body
                case "expected": self.expected = body
                case let name?: self.sections.append((name, body))
                }
                body = ""
            }
            for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
                if line.hasPrefix("-- "), line.hasSuffix(" --"), line.count > 6 {
                    close(&self)
                    name = String(line.dropFirst(3).dropLast(3))
                } else {
                    body += line + "\n"
                }
            }
            // The text ends with a line end, after which the split sees one empty line more.
            if body.hasSuffix("\n\n") || body == "\n" { body.removeLast() }
            close(&self)
        }

        func text(expecting expected: String) -> String {
            head + sections.map { "-- \($0.name) --\n\($0.text)" }.joined() + "-- expected --\n" + expected
        }
    }

    static func options(_ text: String) -> TranslationOptions {
        var options = TranslationOptions()
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ").map(String.init)
            let value = words.count > 1 ? words[1] : ""
            switch words.first {
            case "ingress-class": options.ingressClass = value
            case "controller-name": options.controllerName = value
            case "watch-ingress-without-class": options.watchIngressWithoutClass = true
            case "watch-namespace": options.namespaces.insert(value)
            case "default-backend": options.defaultBackend = ServicePortName(value)
            case "tcp-services-configmap": options.tcpServices = ServicePortName(value + ":1")?.service
            case "udp-services-configmap": options.udpServices = ServicePortName(value + ":1")?.service
            case "trusted-proxies": options.trustsProxies = true
            case "enable-ssl-passthrough": options.allowsPassthrough = true
            case "forbid-inline-scripts": options.allowsInlineScripts = false
            case "exclusive-hosts": options.hostsAreExclusive = true
            case "forbid-loopback-names": options.allowsLoopbackNames = false
            case "publish-status-address": options.statusAddresses.append(LoadBalancerIngress(ip: value))
            case "publish-service": options.publishService = ServicePortName(value + ":1")?.service
            case "plugin": options.catalog.plugins[value] = .init(main: "return {} -- \(value)")
            default: Issue.record("no option is called \(line)")
            }
        }
        return options
    }

    /// What comes of a case; sections named `2 NAME` are a second state of the folder, translated with the memory of the
    /// first.
    static func actual(_ golden: Case) -> String {
        var options = TranslationOptions()
        var folder = FolderMemory()
        var scripts: [String: ScriptFile] = [:]
        var memory = TranslationMemory()
        var result = ""
        for state in 1...2 {
            var isThere = false
            for section in golden.sections {
                let isSecond = section.name.hasPrefix("2 ")
                guard isSecond == (state == 2) else { continue }
                isThere = true
                let name = isSecond ? String(section.name.dropFirst(2)) : section.name
                if name == "options" {
                    options = self.options(section.text)
                } else if name.hasSuffix(".lua") {
                    scripts[name] = .source(section.text)
                } else {
                    folder.update(name, ManifestParser.parse(section.text, file: name))
                }
            }
            guard isThere else { continue }
            var contents = folder.contents()
            contents.objects.scriptFiles = scripts
            let translation = Translator.translate(contents.objects, options: options, memory: &memory)
            if state == 2 { result += "then\n" }
            result += TranslationText.of(translation, diagnostics: contents.diagnostics + translation.diagnostics)
        }
        return result
    }

    @Test func thereAreCases() {
        #expect(Self.cases.count > 20)
    }

    @Test(arguments: cases)
    func golden(name: String) throws {
        let file = Self.folder.appendingPathComponent(name)
        let golden = Case(try String(contentsOf: file, encoding: .utf8))
        #expect(golden.head.hasPrefix("# "), "a title comes first")
        let actual = Self.actual(golden)
        if ProcessInfo.processInfo.environment["MOONGATE_BLESS"] == "1" {
            try golden.text(expecting: actual).write(to: file, atomically: true, encoding: .utf8)
        } else {
            #expect(actual == golden.expected)
        }
    }
}
