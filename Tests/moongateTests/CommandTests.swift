import ArgumentParser
import Testing

@testable import moongate

struct CommandTests {
    @Test(arguments: [("foo", nil), ("chek", "check"), ("ru", "run")])
    func `a command that there is not is told with those that there are`(name: String, meant: String?) {
        let error = #expect(throws: Moongate.UnknownCommand.self) { try Moongate.checkCommand([name, "dir"]) }
        #expect(error?.description.contains("run, check, explain, demo, test, echo") == true)
        #expect(error?.description.contains("Did you mean") == (meant != nil))
        if let meant { #expect(error?.description.contains("Did you mean \"\(meant)\"?") == true) }
    }

    @Test(arguments: [[], ["check", "foo"], ["--version"], ["help", "run"]])
    func `everything else is for the parser`(arguments: [String]) {
        #expect(throws: Never.self) { try Moongate.checkCommand(arguments) }
    }

    @Test(arguments: ["check", "explain"])
    func `the help of commands that only look names the settings that count`(name: String) throws {
        let command: any ParsableCommand.Type = name == "check" ? CheckCommand.self : ExplainCommand.self
        let help = Moongate.helpMessage(for: command)
        for key in ["ingress-class", "default-backend", "watch-ingress-without-class"] {
            #expect(help.contains("--\(key)"))
        }
        if name == "explain" { #expect(help.contains("With --admin")) }
    }

    @Test func `the settings that the help names exist`() {
        let words = RunFlags.alsoHere.split(whereSeparator: { " ,.`".contains($0) }).filter { $0.hasPrefix("--") }
        #expect(words.count > 8)
        for word in words where !["--help", "--config"].contains(word) {
            #expect(RunFlags.keys.contains(String(word.dropFirst(2))), "\(word)")
        }
    }
}
