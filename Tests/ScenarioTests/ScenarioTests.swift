// Plays every file of Tests/Scenarios, and of examples/*, against the real binary.
import Foundation
import MoongateTesting
import Testing

/// What is beside the test bundle, and where the sources are.
enum Place {
    static let root = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath().deletingLastPathComponent()
        .deletingLastPathComponent()
        .deletingLastPathComponent().path

    static let environment: ScenarioEnvironment = {
        // The program is built beside the test bundle; MOONGATE_BINARY names another to try.
        let named = ProcessInfo.processInfo.environment["MOONGATE_BINARY"]
        let bundle = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        let beside = URL(fileURLWithPath: bundle).deletingLastPathComponent().appendingPathComponent("moongate").path
        return ScenarioEnvironment(binary: named ?? beside, root: root, path: [root + "/.build/venv/bin"])
    }()

    /// `MOONGATE_SCENARIO` picks the files whose name contains it.
    static let scenarios: [ScenarioFile] = {
        let only = ProcessInfo.processInfo.environment["MOONGATE_SCENARIO"] ?? ""
        var files: [ScenarioFile] = []
        for folder in ["Tests/Scenarios", "examples"] {
            let names = FileManager.default.enumerator(atPath: root + "/" + folder)?.allObjects as? [String] ?? []
            files += names.filter { $0.hasSuffix(".scenario") }.map { ScenarioFile(path: folder + "/" + $0) }
        }
        return files.filter { only.isEmpty || $0.path.contains(only) }.sorted { $0.path < $1.path }
    }()
}

struct ScenarioFile: Sendable, CustomTestStringConvertible {
    var path: String
    var testDescription: String { path }
}

private let turnstile = Turnstile(places: 4)

@Suite("Scenarios")
struct ScenarioTests {
    @Test("plays", arguments: Place.scenarios)
    func plays(_ file: ScenarioFile) async throws {
        await turnstile.enter()
        let result: Result<[String], ScenarioFailure> = await withCheckedContinuation { continuation in
            // A scenario blocks on sockets; it must not hold a thread of the pool that all tests share.
            let thread = Thread {
                do throws(ScenarioFailure) {
                    guard let text = try? String(contentsOfFile: Place.root + "/" + file.path, encoding: .utf8) else {
                        throw ScenarioFailure("cannot read \(file.path)")
                    }
                    let figures = try ScenarioRun.play(Scenario(parsing: text), in: Place.environment)
                    continuation.resume(returning: .success(figures))
                } catch {
                    continuation.resume(returning: .failure(error))
                }
            }
            thread.stackSize = 1 << 22
            thread.start()
        }
        await turnstile.leave()
        switch result {
        case .success(let figures): for figure in figures { print("\(file.path): \(figure)") }
        case .failure(let failure): Issue.record("\(file.path) \(failure)")
        }
    }

    @Test("there is something to play")
    func hasScenarios() {
        #expect(!Place.scenarios.isEmpty)
    }
}
