// The program: one binary for the proxy, the offline checks and the demo. This file lists the commands; each has its
// own file, and all of them walk the same rooms.

import ArgumentParser
import Foundation
import Scripting

@main
struct Moongate: AsyncParsableCommand {
    static let version = "0.1.0"

    static let configuration = CommandConfiguration(
        commandName: "moongate",
        abstract: "A Kubernetes Ingress controller and edge proxy with middleware in Lua.",
        version: version,
        subcommands: [
            RunCommand.self, CheckCommand.self, ExplainCommand.self, DemoCommand.self, TestCommand.self,
            EchoCommand.self,
        ])

    static func main() async {
        let arguments = Array(CommandLine.arguments.dropFirst())
        do {
            try checkCommand(arguments)
            var command = try parseAsRoot(arguments)
            do {
                if var command = command as? any AsyncParsableCommand {
                    try await command.run()
                } else {
                    try command.run()
                }
            } catch let problem as ValidationError {
                // Thrown while it ran, it would be told with the usage of the whole program.
                end(problem.message, usage: usageString(for: type(of: command)), help: type(of: command))
            }
        } catch let problem as UnknownCommand {
            end(problem.description, usage: usageString(for: Moongate.self), help: nil)
        } catch {
            exit(withError: error)
        }
    }

    /// The parser would call a command that there is not an unexpected argument.
    struct UnknownCommand: Error, CustomStringConvertible {
        var name: String
        var known: [String]

        var description: String {
            let meant = EditDistance.nearest(to: name, among: known).map { " Did you mean \"\($0)\"?" } ?? ""
            return "there is no command \"\(name)\".\(meant) The commands are \(known.joined(separator: ", "))."
        }
    }

    static func checkCommand(_ arguments: [String]) throws(UnknownCommand) {
        let known = configuration.subcommands.map { $0._commandName }
        guard let first = arguments.first, !first.hasPrefix("-"), first != "help", !known.contains(first) else {
            return
        }
        throw UnknownCommand(name: first, known: known)
    }

    private static func end(_ problem: String, usage: String, help: (any ParsableCommand.Type)?) -> Never {
        let name = help.map { "moongate \($0._commandName)" } ?? "moongate"
        let text = "Error: \(problem)\nUsage: \(usage)\n  See '\(name) --help' for more information.\n"
        try? FileHandle.standardError.write(contentsOf: Data(text.utf8))
        Foundation.exit(EX_USAGE)
    }
}
