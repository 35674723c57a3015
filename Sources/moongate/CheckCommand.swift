// `moongate check`: everything that serving would do with a folder, but for the traffic.

import ArgumentParser
import Foundation
import Manifests
import Model
import Proxy
import Routing
import TLSEngine

/// How a command prints what it found.
enum OutputFormat: String, CaseIterable, ExpressibleByArgument, Sendable {
    case text
    case json
}

struct CheckCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check", abstract: "Translate and compile a folder of manifests, and say what is wrong with it.",
        discussion: """
            Ends with 0 when there is no error, with 1 when there is one; --strict counts warnings too.

            \(RunFlags.alsoHere)
            """)

    @Argument(help: ArgumentHelp("A folder of manifests, or one file.", valueName: "dir"))
    var directory: String
    @Option(help: ArgumentHelp("text or json.", valueName: "format"))
    var output = OutputFormat.text
    @Flag(help: "Warnings count as errors.")
    var strict = false
    @OptionGroup(visibility: .hidden)
    var flags: RunFlags

    func run() async throws {
        let settings = try await Settings.resolve(flags)
        var reader = FolderReader(root: directory)
        let contents: FolderContents
        do {
            contents = try reader.load()
        } catch {
            throw ValidationError(error.problem)
        }
        let pipeline = Pipeline(
            options: .init(settings), loops: 0,
            certificates: try CertificateStore(
                TLSOptions(settings), warning: Int64(settings.certificateExpiryWarning / 1_000)))
        var (configuration, diagnostics) = await pipeline.prepare(contents)
        if let snapshot = configuration?.table.snapshot {
            diagnostics += ProxyServer.collisions(snapshot, ProxyConfiguration(settings))
        }
        let routes = configuration?.table.snapshot.routes.count ?? 0
        let report = Report(routes: routes, diagnostics: diagnostics)
        switch output {
        case .text: StandardOutput.line(report.text)
        case .json: StandardOutput.line(try report.json)
        }
        let worst = diagnostics.map(\.severity).max() ?? .note
        if worst == .error || (strict && worst == .warning) { throw ExitCode(1) }
    }

    /// What was found, printable in both ways.
    struct Report: Encodable {
        var routes: Int
        var errors: Int
        var warnings: Int
        var diagnostics: [Diagnostic]

        init(routes: Int, diagnostics: [Diagnostic]) {
            self.routes = routes
            self.diagnostics = diagnostics.sorted { a, b in
                a.severity != b.severity ? a.severity > b.severity : a.place.description < b.place.description
            }
            errors = diagnostics.count { $0.severity == .error }
            warnings = diagnostics.count { $0.severity == .warning }
        }

        var text: String {
            (diagnostics.map(\.description) + [
                "\(routes) \(routes == 1 ? "route" : "routes"), \(errors) \(errors == 1 ? "error" : "errors"), "
                    + "\(warnings) \(warnings == 1 ? "warning" : "warnings")"
            ]).joined(separator: "\n")
        }

        var json: String {
            get throws {
                let encoder = JSONEncoder()
                encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
                return String(decoding: try encoder.encode(self), as: UTF8.self)
            }
        }
    }
}
