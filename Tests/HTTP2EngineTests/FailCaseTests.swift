import Foundation
import Testing

/// Everything that the fuzzer ever found, and the seeds that it starts from (Tests/Fuzz).
@Suite struct FailCaseTests {
    @Test func sessionsThatWereFound() throws {
        let fuzz = URL(filePath: #filePath).resolvingSymlinksInPath().deletingLastPathComponent()
            .deletingLastPathComponent().appending(path: "Fuzz")
        let files = ["FailCases", "Seeds"].flatMap { kind in
            (try? FileManager.default.contentsOfDirectory(
                at: fuzz.appending(path: kind).appending(path: "FuzzHTTP2"), includingPropertiesForKeys: nil)) ?? []
        }
        #expect(!files.isEmpty)
        for file in files.sorted(by: { $0.path < $1.path }) {
            let input = Array(try Data(contentsOf: file))
            // Also with other manners than it was found with.
            for manners in [input.count > 1 ? input[1] : 0, 0, 0b1111, 0b10011, 0b100110] as [UInt8] {
                var other = input
                if other.count > 1 { other[1] = other[1] & 128 | manners & 127 }
                let problem = FuzzChecks.session(other)
                #expect(problem == nil, "\(file.lastPathComponent), manners \(manners)")
            }
        }
    }
}
