// The program: one binary for the proxy, the offline checks and the demo. This file lists the commands; each has its
// own file, and all of them walk the same rooms.

import ArgumentParser

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
}
