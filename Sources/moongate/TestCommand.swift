// `moongate test`: specs of scripts, run offline in the machine that serves traffic.

import ArgumentParser
import Foundation
import Middlewares
import Model

struct TestCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "test", abstract: "Run the specs of scripts, with the budgets that they have in traffic.",
        discussion: "A spec is spec.lua or NAME_spec.lua; a folder stands for all specs below it.")

    @Argument(help: ArgumentHelp("Specs, or folders of them (default: here).", valueName: "path"))
    var paths: [String] = ["."]
    @Option(help: ArgumentHelp("tap or junit.", valueName: "format"))
    var output = SpecOutput.tap
    @Option(help: ArgumentHelp("Makes chance the same from run to run.", valueName: "n"))
    var seed: UInt64 = 1
    @Option(help: ArgumentHelp("What one spec may compute in all.", valueName: "duration"))
    var cpu = "30s"

    enum SpecOutput: String, CaseIterable, ExpressibleByArgument, Sendable {
        case tap
        case junit
    }

    func run() async throws {
        let files = try paths.flatMap { try Self.specs(at: $0) }
        if files.isEmpty {
            throw ValidationError("there is no spec.lua or *_spec.lua in \(paths.joined(separator: ", "))")
        }
        guard let milliseconds = Quantity.milliseconds(cpu), milliseconds > 0 else {
            throw ValidationError("--cpu \"\(cpu)\" is not a duration: write digits and a unit, such as 2m")
        }
        let limit = Duration.milliseconds(milliseconds)
        let results = files.map { file -> SpecResult in
            guard let source = try? String(contentsOfFile: file, encoding: .utf8) else {
                return SpecResult(file: file, cases: [], failure: "the file can't be read as UTF-8")
            }
            return SpecRunner(seed: seed, cpu: limit) { Self.script($0, beside: file) }.run(file: file, source: source)
        }
        switch output {
        case .tap: StandardOutput.line(String(SpecResult.tap(results).dropLast()))
        case .junit: StandardOutput.line(SpecResult.junit(results))
        }
        if results.contains(where: { !$0.passed }) { throw ExitCode(1) }
    }

    private static func isSpec(_ path: String) -> Bool {
        let name = path.split(separator: "/").last ?? ""
        return name == "spec.lua" || name.hasSuffix("_spec.lua")
    }

    private static func specs(at path: String) throws -> [String] {
        guard let attributes = try? FileManager.default.attributesOfItem(atPath: path) else {
            throw ValidationError("there is no \(path)")
        }
        guard attributes[.type] as? FileAttributeType == .typeDirectory else { return [path] }
        let below = try FileManager.default.subpathsOfDirectory(atPath: path)
        return below.filter { isSpec($0) && !$0.hasPrefix(".") }.sorted().map { path == "." ? $0 : "\(path)/\($0)" }
    }

    /// The script that a spec names, by its path from the spec, with the files beside it as what it may require.
    private static func script(_ name: String, beside spec: String) -> ScriptSource? {
        let folder = URL(filePath: spec).deletingLastPathComponent()
        let file = folder.appending(path: name)
        guard !name.hasPrefix("/"), !name.split(separator: "/").contains(".."),
            let main = try? String(contentsOf: file, encoding: .utf8)
        else { return nil }
        let siblings =
            (try? FileManager.default.contentsOfDirectory(atPath: file.deletingLastPathComponent().path)) ?? []
        let modules = siblings.sorted().compactMap { sibling -> ScriptSource.Module? in
            guard sibling.hasSuffix(".lua"), !isSpec(sibling), sibling != file.lastPathComponent,
                let source = try? String(
                    contentsOf: file.deletingLastPathComponent().appending(path: sibling), encoding: .utf8)
            else { return nil }
            return ScriptSource.Module(name: String(sibling.dropLast(4)), source: source)
        }
        return ScriptSource(name: name, namespace: "test", main: main, modules: modules)
    }
}

extension SpecResult {
    /// JUnit's XML, as CI servers read it: a suite a file.
    static func junit(_ results: [SpecResult]) -> String {
        func escape(_ text: String) -> String {
            var out = ""
            for scalar in text.unicodeScalars {
                switch scalar {
                case "&": out += "&amp;"
                case "<": out += "&lt;"
                case ">": out += "&gt;"
                case "\"": out += "&quot;"
                case "\n", "\t": out.unicodeScalars.append(scalar)
                case _ where scalar.value < 32: out += "?"
                default: out.unicodeScalars.append(scalar)
                }
            }
            return out
        }
        var lines = [#"<?xml version="1.0" encoding="UTF-8"?>"#, "<testsuites>"]
        for result in results {
            let cases = result.cases + (result.failure.map { [Case(name: "(the file)", failure: $0)] } ?? [])
            let failed = cases.count { $0.failure != nil }
            lines.append(#"  <testsuite name="\#(escape(result.file))" tests="\#(cases.count)" failures="\#(failed)">"#)
            for one in cases {
                let head = #"    <testcase classname="\#(escape(result.file))" name="\#(escape(one.name))""#
                if let failure = one.failure {
                    lines.append("\(head)><failure>\(escape(failure))</failure></testcase>")
                } else {
                    lines.append("\(head)/>")
                }
            }
            lines.append("  </testsuite>")
        }
        return (lines + ["</testsuites>"]).joined(separator: "\n")
    }
}
