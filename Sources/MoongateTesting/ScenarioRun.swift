// Runs one scenario against the real binary: sets the stage, starts the program, plays the sections in order.
import Foundation

/// Where the things under test are.
package struct ScenarioEnvironment: Sendable {
    /// The program.
    package var binary: String
    /// The root of the source tree: examples, plugins and documents are found under it.
    package var root: String
    /// Paths put before PATH in `run` sections.
    package var path: [String]

    package init(binary: String, root: String, path: [String] = []) {
        self.binary = binary
        self.root = root
        self.path = path
    }
}

/// One run of one scenario, on one thread. Upstreams and processes have threads of their own.
package final class ScenarioRun {
    let scenario: Scenario
    let environment: ScenarioEnvironment
    let transcript = Transcript()
    let signals = Signals()
    let folder: String
    /// The manifests that the program watches.
    var manifests: String { folder + "/manifests" }

    var upstreams: [String: ScriptedUpstream] = [:]
    var echoes: [String: (process: ChildProcess, address: SocketAddress)] = [:]
    /// Text replaced in copied manifests and documents: the ports that an example documents, by the real ones.
    var substitutions: [(from: String, to: String)] = []
    var variables: [String: String] = [:]
    /// Servers that a document started.
    var background: [ChildProcess] = []
    var options: [String] = []
    var command: [String]?
    var program: ChildProcess?
    var http: SocketAddress?
    var https: SocketAddress?
    var admin: SocketAddress?
    var clients: [String: ClientConnection] = [:]
    var current = "1"
    var loads: [String: LoadLoop] = [:]
    var tally: [String: Int] = [:]
    var extraEnvironment: [String: String] = [:]
    /// When a file of the folder was last changed while the program ran.
    var edited: UInt64?
    /// What was measured on the way, for whoever reads the output of the tests.
    var figures: [String] = []
    /// How long an expectation waits. Generous: a debug build on a loaded machine is slow, and a pass does not wait.
    static let patience = Duration.seconds(20)

    private init(_ scenario: Scenario, environment: ScenarioEnvironment) throws(ScenarioFailure) {
        self.scenario = scenario
        self.environment = environment
        folder = NSTemporaryDirectory() + "moongate-scenario-" + UUID().uuidString
        do {
            try FileManager.default.createDirectory(atPath: folder + "/manifests", withIntermediateDirectories: true)
        } catch {
            throw ScenarioFailure("cannot make \(folder): \(error)")
        }
    }

    /// Throws a failure with the transcript of everything that happened.
    /// - Returns: what was measured on the way.
    @discardableResult
    package static func play(
        _ scenario: Scenario, in environment: ScenarioEnvironment
    ) throws(ScenarioFailure) -> [String] {
        let run = try ScenarioRun(scenario, environment: environment)
        defer { run.cleanUp() }
        do {
            try run.setStage()
            for section in scenario.sections { try run.act(section) }
            try run.finish()
            return run.figures
        } catch {
            var failure = error
            failure.transcript = run.transcript.text
            throw failure
        }
    }

    private func cleanUp() {
        for load in loads.values { load.stop() }
        clients.removeAll()
        program?.stop(within: .seconds(20))
        for process in background.reversed() { process.stop(within: .seconds(20)) }
        for echo in echoes.values { echo.process.stop(within: .seconds(20)) }
        for upstream in upstreams.values { upstream.stop() }
        if ProcessInfo.processInfo.environment["MOONGATE_KEEP"] == nil {
            try? FileManager.default.removeItem(atPath: folder)
        }
    }

    // MARK: The stage

    private func setStage() throws(ScenarioFailure) {
        for section in scenario.sections {
            switch section.kind {
            case "upstream":
                guard let name = section.arguments.first else {
                    throw ScenarioFailure("an upstream without a name", line: section.line)
                }
                let upstream = try ScriptedUpstream(
                    name: name, lines: section.commands, signals: signals, transcript: transcript)
                upstreams[name] = upstream
                variables["\(name).address"] = upstream.address.description
                variables["\(name).port"] = String(upstream.address.port)
                if let port = section.options["port"] {
                    substitutions.append((from: port, to: String(upstream.address.port)))
                }
            case "echo": try startEcho(section)
            case "options": options += section.commands.flatMap { $0.text.split(separator: " ").map(String.init) }
            case "environment":
                for line in section.commands {
                    let parts = line.text.split(separator: "=", maxSplits: 1).map(String.init)
                    extraEnvironment[parts[0]] = parts.count > 1 ? parts[1] : ""
                }
            case "command": command = section.commands.flatMap { $0.text.split(separator: " ").map(String.init) }
            default: break
            }
        }
        variables["dir"] = manifests
        variables["root"] = environment.root
        var services: [ServiceBackend] = upstreams.values.map { upstream in
            let section = scenario.sections.first { $0.kind == "upstream" && $0.arguments.first == upstream.name }
            return ServiceBackend(
                name: upstream.name, namespace: section?.options["namespace"] ?? "shop", addresses: [upstream.address],
                grant: section?.options["grant"])
        }
        var count = 0
        for section in scenario.sections where ["manifest", "file", "copy", "service"].contains(section.kind) {
            switch section.kind {
            case "manifest":
                count += 1
                let name = section.arguments.first ?? (count == 1 ? "manifest.yaml" : "manifest-\(count).yaml")
                let (text, groups) = try manifestText(section)
                for names in groups where !services.contains(where: { $0.name == names.joined(separator: "-") }) {
                    services.append(try group(names.joined(separator: "-"), of: names, section))
                }
                try write(text, to: name)
            case "file":
                guard let name = section.arguments.first else {
                    throw ScenarioFailure("a file without a name", line: section.line)
                }
                try write(interpolate(section.text), to: name)
            case "copy": try copy(section)
            default:
                guard let name = section.arguments.first else {
                    throw ScenarioFailure("a service without a name", line: section.line)
                }
                services.append(try group(name, of: Array(section.arguments.dropFirst()), section))
            }
        }
        services.sort { $0.name < $1.name }
        if !services.isEmpty {
            try write(services.map { ManifestWriter.yaml(of: $0) }.joined(separator: "---\n"), to: "services.yaml")
        }
    }

    private func group(
        _ name: String, of names: [String], _ section: ScenarioSection
    ) throws(ScenarioFailure) -> ServiceBackend {
        var addresses: [SocketAddress] = []
        for member in names {
            guard let address = upstreams[member]?.address ?? SocketAddress(member) else {
                throw ScenarioFailure("no upstream is called \(member)", line: section.line)
            }
            addresses.append(address)
        }
        return ServiceBackend(name: name, namespace: section.options["namespace"] ?? "shop", addresses: addresses)
    }

    private func manifestText(_ section: ScenarioSection) throws(ScenarioFailure) -> (String, [[String]]) {
        let yaml = section.lines.contains { $0.text.hasPrefix("apiVersion:") || $0.text.hasPrefix("raw:") }
        if yaml { return (try interpolate(section.text), []) }
        let (text, groups) = try ManifestWriter.expand(section)
        return (try interpolate(text), groups)
    }

    /// Writes beside and renames, as an editor or `kubectl cp` would, so that no half file is ever read.
    func write(_ text: String, to name: String) throws(ScenarioFailure) {
        let path = manifests + "/" + name
        do {
            let parent = (path as NSString).deletingLastPathComponent
            try FileManager.default.createDirectory(atPath: parent, withIntermediateDirectories: true)
            try Data(text.utf8).write(to: URL(fileURLWithPath: path), options: .atomic)
        } catch {
            throw ScenarioFailure("cannot write \(path): \(error)")
        }
        if program != nil { edited = Deadline.now }
        transcript.add("folder", "wrote \(name)")
    }

    /// `-- copy examples/quickstart --`: the manifests and scripts under a folder, with the documented ports replaced.
    private func copy(_ section: ScenarioSection) throws(ScenarioFailure) {
        let source = environment.root + "/" + section.arguments.joined(separator: " ")
        guard let names = FileManager.default.enumerator(atPath: source)?.allObjects as? [String], !names.isEmpty else {
            throw ScenarioFailure("nothing to copy in \(source)", line: section.line)
        }
        for name in names.sorted() where ["yaml", "yml", "json", "lua"].contains((name as NSString).pathExtension) {
            guard let text = try? String(contentsOfFile: source + "/" + name, encoding: .utf8) else {
                throw ScenarioFailure("cannot read \(source)/\(name)", line: section.line)
            }
            try write(substituted(text), to: name)
        }
    }

    func substituted(_ text: String) -> String {
        substitutions.reduce(text) { $0.replacing($1.from, with: $1.to) }
    }

    private func startEcho(_ section: ScenarioSection) throws(ScenarioFailure) {
        guard let name = section.arguments.first else {
            throw ScenarioFailure("an echo without a name", line: section.line)
        }
        let process = try ChildProcess(
            name: "echo \(name)", arguments: [environment.binary, "echo", "--listen", "127.0.0.1:0", "--name", name],
            environment: processEnvironment(), transcript: transcript)
        let address = try listening(process, key: "echo", line: section.line)
        echoes[name] = (process, address)
        variables["\(name).address"] = address.description
        variables["\(name).port"] = String(address.port)
        if let port = section.options["port"] { substitutions.append((from: port, to: String(address.port))) }
    }

    /// The address that a program prints in its one line of JSON.
    func listening(
        _ process: ChildProcess, key: String, line: Int? = nil
    ) throws(ScenarioFailure) -> SocketAddress {
        let found = process.output.wait(by: Deadline(after: .seconds(60))) {
            output -> Result<[String: String], ScenarioFailure>? in
            for text in output.lines + output.errorLines where text.contains("\"listening\"") {
                guard let object = JSONText.object(text) else { continue }
                return .success(object.compactMapValues { $0 as? String })
            }
            if let exit = output.exit, output.open == 0 {
                return .failure(ScenarioFailure("\(process.name) ended before it listened: \(exit)", line: line))
            }
            return nil
        }
        guard let found else { throw ScenarioFailure("\(process.name) did not say that it listens", line: line) }
        let values = try found.get()
        if let address = values[key].flatMap({ SocketAddress($0) }) { return address }
        throw ScenarioFailure("\(process.name) names no \(key) address: \(values)", line: line)
    }

    func processEnvironment() -> [String: String] {
        var values = ProcessInfo.processInfo.environment.filter { !$0.key.hasPrefix("MOONGATE_") }
        let own = (environment.binary as NSString).deletingLastPathComponent
        values["PATH"] = (environment.path + [own, values["PATH"] ?? "/usr/bin:/bin"]).joined(separator: ":")
        values["DIR"] = manifests
        values["ROOT"] = environment.root
        values["MOONGATE"] = environment.binary
        values["HTTP"] = http?.description
        values["HTTPS"] = https?.description
        values["HTTPS_PORT"] = https.map { String($0.port) }
        values["ADMIN"] = admin?.description
        for (name, upstream) in upstreams { values["UPSTREAM_" + name.uppercased()] = upstream.address.description }
        values["LC_ALL"] = "C.UTF-8"
        return values.merging(extraEnvironment) { $1 }
    }

    /// Starts the program, if it does not run yet, and waits until it says where it listens.
    func startProgram(line: Int) throws(ScenarioFailure) {
        guard program == nil else { return }
        var arguments = command ?? ["run", "--manifests", manifests]
        arguments = try arguments.map { word throws(ScenarioFailure) in try interpolate(word) }
        if command == nil {
            let defaults = [
                ("--http", "127.0.0.1:0"), ("--https", "127.0.0.1:0"), ("--admin", "127.0.0.1:0"), ("--workers", "2"),
                ("--access-log", "json"),
            ]
            for (flag, value) in defaults where !options.contains(where: { $0 == flag || $0.hasPrefix(flag + "=") }) {
                arguments += [flag, value]
            }
            arguments += try options.map { word throws(ScenarioFailure) in try interpolate(word) }
        }
        let started = try ChildProcess(
            name: "moongate", arguments: [environment.binary] + arguments, environment: processEnvironment(),
            directory: folder, transcript: transcript)
        program = started
        http = try listening(started, key: "http", line: line)
        https = try? listening(started, key: "https", line: line)
        admin = try? listening(started, key: "admin", line: line)
        variables["http"] = http?.description
        variables["http.port"] = http.map { String($0.port) }
        variables["https"] = https?.description
        variables["https.port"] = https.map { String($0.port) }
        variables["admin"] = admin?.description
    }

    /// `${name}`; an unknown name is an error, since a silent empty string hides a mistake.
    func interpolate(_ text: String) throws(ScenarioFailure) -> String {
        var result = ""
        var rest = text[...]
        while let start = rest.range(of: "${") {
            result += rest[..<start.lowerBound]
            guard let end = rest[start.upperBound...].firstIndex(of: "}") else { break }
            let name = String(rest[start.upperBound..<end])
            guard let value = variables[name] else { throw ScenarioFailure("nothing is called ${\(name)}") }
            result += value
            rest = rest[rest.index(after: end)...]
        }
        return result + rest
    }

    // MARK: The play

    private func act(_ section: ScenarioSection) throws(ScenarioFailure) {
        switch section.kind {
        case "client", "expect":
            try startProgram(line: section.line)
            for line in section.commands { try perform(line) }
        case "edit":
            try startProgram(line: section.line)
            guard let name = section.arguments.first else {
                throw ScenarioFailure("an edit without a file", line: section.line)
            }
            let (text, groups) =
                section.arguments.contains("verbatim") || !name.hasSuffix("yaml")
                ? (try interpolate(section.text), []) : try manifestText(section)
            guard groups.isEmpty else { throw ScenarioFailure("an edit cannot make new groups", line: section.line) }
            try write(text, to: name)
        case "delete":
            try startProgram(line: section.line)
            let path = manifests + "/" + section.arguments.joined(separator: " ")
            guard (try? FileManager.default.removeItem(atPath: path)) != nil else {
                throw ScenarioFailure("cannot delete \(path)", line: section.line)
            }
            edited = Deadline.now
        case "run":
            if !section.arguments.contains("offline") { try startProgram(line: section.line) }
            try runCommands(ConsoleBlock.parse(section.lines), directory: section.options["in"])
        case "document":
            if !section.arguments.contains("offline") { try startProgram(line: section.line) }
            try runDocument(section)
        case "cases":
            try startProgram(line: section.line)
            try runCases(section)
        case "agree":
            try startProgram(line: section.line)
            try runAgreement(section)
        case "mutate":
            try startProgram(line: section.line)
            try runMutations(section)
        default: break
        }
    }

    /// What holds for every scenario: upstreams saw only well-formed messages, scripts went as written, and the
    /// program is alive or ended because it was asked to.
    private func finish() throws(ScenarioFailure) {
        for upstream in upstreams.values {
            let record = upstream.record.read { $0 }
            if let fault = record.faults.first { throw ScenarioFailure("upstream \(upstream.name): \(fault)") }
            if let violation = record.violations.first {
                throw ScenarioFailure("upstream \(upstream.name) was sent what must not be sent: \(violation)")
            }
        }
        guard let program else { return }
        if let exit = program.output.read({ $0.exit }), !expectedExit {
            throw ScenarioFailure("moongate ended by itself: \(exit)")
        }
        // States that the program itself holds for impossible are counted, and must not have been met.
        guard admin != nil, !expectedExit, program.output.read({ $0.exit == nil }) else { return }
        do {
            let response = try exchange("GET /metrics  host: localhost  connection: close", to: admin)
            let bugs = try MetricsText.sum(
                of: "moongate_bugs_total", in: String(decoding: response.body.bytes, as: UTF8.self))
            if bugs > 0 { throw ScenarioFailure("moongate_bugs_total is \(Int(bugs))") }
        } catch {
            throw ScenarioFailure("at the end: \(error)")
        }
    }

    var expectedExit = false
}

/// JSON as the tests read it.
enum JSONText {
    static func object(_ text: String) -> [String: Any]? {
        guard text.hasPrefix("{") else { return nil }
        return (try? JSONSerialization.jsonObject(with: Data(text.utf8))) as? [String: Any]
    }

    static func value(_ text: String) -> Any? {
        try? JSONSerialization.jsonObject(with: Data(text.utf8), options: .fragmentsAllowed)
    }

    /// The value at a dotted path, printed: `upstream.address`, `scripts.0.name`.
    static func printed(_ path: String, in object: Any) -> String? {
        var value: Any = object
        // A key that itself has dots is looked up whole first.
        if let object = object as? [String: Any], let direct = object[path] { return print(direct) }
        for key in path.split(separator: ".") {
            if let list = value as? [Any] {
                guard let index = Int(key), list.indices.contains(index) else { return nil }
                value = list[index]
            } else if let object = value as? [String: Any] {
                guard let next = object[String(key)] else { return nil }
                value = next
            } else {
                return nil
            }
        }
        return print(value)
    }

    private static func print(_ value: Any) -> String {
        if let text = value as? String { return text }
        if value is NSNull { return "null" }
        if value is [Any] || value is [String: Any],
            let data = try? JSONSerialization.data(withJSONObject: value, options: .sortedKeys)
        {
            return String(decoding: data, as: UTF8.self)
        }
        if let number = value as? NSNumber, CFBooleanLike.isBoolean(number) {
            return number.boolValue ? "true" : "false"
        }
        return "\(value)"
    }

    private enum CFBooleanLike {
        static func isBoolean(_ number: NSNumber) -> Bool { "\(type(of: number as Any))".contains("Bool") }
    }
}
