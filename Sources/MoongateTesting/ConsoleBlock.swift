// Commands with the output that they are said to have: in scenario files and in documents.
import Foundation

/// A command and what it prints.
///
///     $ curl -s http://127.0.0.1:8080/
///     {"name":"v1",*}
///     [exit 1]
///
/// `*` in an expected line stands for anything, a line `...` for any number of lines; a command without expected
/// lines may print what it likes. `[exit N]` tells the exit status, 0 if absent.
struct ConsoleCommand {
    var command: String
    var output: [String] = []
    var exit: Int32 = 0
    var line: Int
}

enum ConsoleBlock {
    static func parse(_ lines: [ScenarioLine]) -> [ConsoleCommand] {
        var commands: [ConsoleCommand] = []
        var hereDocument: String?
        for line in lines {
            if let end = hereDocument, let last = commands.indices.last {
                commands[last].command += "\n" + line.text
                if line.text == end { hereDocument = nil }
            } else if line.text.hasPrefix("$ ") {
                commands.append(ConsoleCommand(command: String(line.text.dropFirst(2)), line: line.number))
                if let start = line.text.range(of: "<<'") {
                    hereDocument = String(line.text[start.upperBound...].prefix { $0 != "'" })
                }
            } else if let last = commands.indices.last {
                if commands[last].command.hasSuffix("\\") && commands[last].output.isEmpty {
                    commands[last].command = String(commands[last].command.dropLast()) + line.text.trimmingSpaces
                } else if line.text.hasPrefix("[exit "), let code = Int32(line.text.dropFirst(6).dropLast()) {
                    commands[last].exit = code
                } else {
                    commands[last].output.append(line.text)
                }
            }
        }
        for index in commands.indices {
            while commands[index].output.last?.trimmingSpaces.isEmpty == true { commands[index].output.removeLast() }
        }
        return commands
    }

    /// The fenced blocks of a document that are marked ```console; only those under these headings, if any are given.
    static func blocks(of document: String, under headings: [String] = []) -> [[ScenarioLine]] {
        var blocks: [[ScenarioLine]] = []
        var inside = false
        var heading = ""
        for (index, line) in document.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            if line.hasPrefix("```") {
                inside = line == "```console" && (headings.isEmpty || headings.contains(heading))
                if inside { blocks.append([]) }
            } else if !inside && line.hasPrefix("## ") {
                heading = String(line.dropFirst(3)).replacing(" ", with: "-")
            } else if inside {
                blocks[blocks.count - 1].append(ScenarioLine(number: index + 1, text: String(line)))
            }
        }
        return blocks
    }

    /// Nil when `lines` are what `expected` describes, else the first difference.
    static func difference(_ lines: [String], _ expected: [String]) -> String? {
        matches(lines[...], expected[...])
            ? nil : "printed:\n\(lines.joined(separator: "\n"))\nexpected:\n\(expected.joined(separator: "\n"))"
    }

    private static func matches(_ lines: ArraySlice<String>, _ expected: ArraySlice<String>) -> Bool {
        guard let first = expected.first else { return lines.allSatisfy { $0.trimmingSpaces.isEmpty } }
        if first == "..." {
            return (lines.startIndex...lines.endIndex).contains { matches(lines[$0...], expected.dropFirst()) }
        }
        guard let line = lines.first, glob(Array(line)[...], Array(first)[...]) else { return false }
        return matches(lines.dropFirst(), expected.dropFirst())
    }

    /// Backtracks only to the last `*`, so the time is bounded by the product of the lengths.
    private static func glob(_ text: ArraySlice<Character>, _ pattern: ArraySlice<Character>) -> Bool {
        var text = text
        var pattern = pattern
        var retry: (text: ArraySlice<Character>, pattern: ArraySlice<Character>)?
        while true {
            if let next = pattern.first, next == "*" {
                pattern = pattern.dropFirst()
                retry = (text, pattern)
            } else if let wanted = pattern.first, let character = text.first, wanted == character {
                pattern = pattern.dropFirst()
                text = text.dropFirst()
            } else if pattern.isEmpty && text.isEmpty {
                return true
            } else if let last = retry, !last.text.isEmpty {
                retry = (last.text.dropFirst(), last.pattern)
                text = last.text.dropFirst()
                pattern = last.pattern
            } else {
                return false
            }
        }
    }
}

extension ScenarioRun {
    /// Runs each command in a shell; `in=PATH` is relative to the root of the source tree.
    func runCommands(_ commands: [ConsoleCommand], directory: String?) throws(ScenarioFailure) {
        let place = directory.map { environment.root + "/" + $0 } ?? folder
        for command in commands {
            if command.command.hasSuffix(" &") {
                try startServer(command, in: place)
                // Whoever reads them from here on finds it.
                if directory == nil { try copyExamples() }
                continue
            }
            let text = substituted(command.command)
            let shell = try ChildProcess(
                name: "shell", arguments: ["/bin/bash", "-c", "set -o pipefail; " + text],
                environment: processEnvironment(), directory: place, transcript: transcript)
            let end = shell.output.wait(by: Deadline(after: .seconds(120))) {
                $0.exit != nil && $0.open == 0 ? $0 : nil
            }
            guard let end else {
                shell.stop(within: .seconds(1))
                throw ScenarioFailure("did not end in time: \(text)", line: command.line)
            }
            guard end.exit == .code(command.exit) else {
                let said = (end.lines + end.errorLines).suffix(30).joined(separator: "\n")
                throw ScenarioFailure(
                    "\(text)\n\(end.exit.map { "\($0)" } ?? "") where \(command.exit) was expected:\n\(said)",
                    line: command.line)
            }
            guard !command.output.isEmpty else { continue }
            let expected = command.output.map { substituted($0) }
            // Carriage returns come from printed HTTP heads.
            let printed = end.lines.map { $0.hasSuffix("\r") ? String($0.dropLast()) : $0 }
            if let difference = ConsoleBlock.difference(printed, expected) {
                throw ScenarioFailure("\(text)\n\(difference)", line: command.line)
            }
        }
    }

    /// A command of a document that goes on in the background: the program, or a server of an example that says as it does
    /// where it listens. Its documented addresses are replaced by free ones from here on.
    private func startServer(_ command: ConsoleCommand, in place: String) throws(ScenarioFailure) {
        var words = command.command.split(separator: " ").dropLast().map(String.init)
        guard let name = words.first, let program = ["moongate": environment.binary, "python3": "/usr/bin/env"][name]
        else {
            throw ScenarioFailure("only moongate and python3 may run in the background", line: command.line)
        }
        let isOurs = name == "moongate"
        // With what stands before: which listener it is.
        let documented = zip([""] + words, words).filter { SocketAddress($0.1) != nil }
        words = words.map { SocketAddress($0) == nil ? $0 : "127.0.0.1:0" }
        let serves = isOurs && words.count > 1 && words[1] == "run"
        if serves { words += ["--admin", "127.0.0.1:0"] }
        if serves, !words.contains("--https") { words += ["--https", "127.0.0.1:0"] }
        let process = try ChildProcess(
            name: words.prefix(2).joined(separator: " "), arguments: [program] + words.dropFirst(isOurs ? 1 : 0),
            environment: processEnvironment(), directory: place, transcript: transcript)
        background.append(process)
        for (flag, text) in documented {
            let key = flag == "--https" ? "https" : serves ? "http" : "echo"
            let address = try listening(process, key: key, line: command.line)
            substitutions.append((from: text, to: address.description))
            if let port = SocketAddress(text)?.port {
                substitutions.append((from: "port: \(port),", to: "port: \(address.port),"))
            }
        }
        if serves {
            let admin = try listening(process, key: "admin", line: command.line)
            substitutions.append((from: "127.0.0.1:9901", to: admin.description))
        }
    }

    /// A document's commands run beside a copy of the examples in which the addresses are the real ones.
    private func copyExamples() throws(ScenarioFailure) {
        let source = environment.root + "/examples"
        let names = FileManager.default.enumerator(atPath: source)?.allObjects as? [String] ?? []
        for name in names where ["yaml", "lua", "sh", "py"].contains((name as NSString).pathExtension) {
            guard let text = try? String(contentsOfFile: source + "/" + name, encoding: .utf8) else { continue }
            try write(substituted(text), to: "../examples/" + name)
        }
    }

    /// `-- document examples/quickstart/README.md --`: runs what the document shows. `127.0.0.1:8080` and
    /// `127.0.0.1:9901` in it become the program's real addresses; commands given in the section as `skip TEXT`
    /// (they start servers, or build) are left out, and a `skip` that matches nothing is an error. `under=A-heading`
    /// takes only what stands under these headings.
    func runDocument(_ section: ScenarioSection) throws(ScenarioFailure) {
        guard let name = section.arguments.first(where: { $0 != "offline" }),
            let text = try? String(contentsOfFile: environment.root + "/" + name, encoding: .utf8)
        else { throw ScenarioFailure("cannot read the document", line: section.line) }
        if let http { substitutions.append((from: "127.0.0.1:8080", to: http.description)) }
        if let admin { substitutions.append((from: "127.0.0.1:9901", to: admin.description)) }
        var skips = Set(section.commands.compactMap { $0.text.hasPrefix("skip ") ? String($0.text.dropFirst(5)) : nil })
        var ran = 0
        if section.options["in"] == nil { try copyExamples() }
        let headings = section.options["under"]?.split(separator: ",").map(String.init) ?? []
        for block in ConsoleBlock.blocks(of: text, under: headings) {
            var commands: [ConsoleCommand] = []
            for command in ConsoleBlock.parse(block) {
                if let skip = skips.first(where: { command.command.hasPrefix($0) }) {
                    skips.remove(skip)
                } else {
                    commands.append(command)
                }
            }
            do {
                try runCommands(commands, directory: section.options["in"])
            } catch {
                throw ScenarioFailure("\(name) line \(error.line ?? 0): \(error.message)", line: section.line)
            }
            ran += commands.count
        }
        guard skips.isEmpty else { throw ScenarioFailure("\(name) has no command \(skips)", line: section.line) }
        guard ran > 0 else { throw ScenarioFailure("\(name) shows no command that could run", line: section.line) }
    }
}
