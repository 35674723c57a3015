import Foundation
import Testing

/// Everything that the fuzzer ever found, and the seeds that it starts from (Tests/Fuzz).
@Suite struct FailCaseTests {
    private static func files(_ folder: String) -> [URL] {
        let fuzz = URL(filePath: #filePath).resolvingSymlinksInPath().deletingLastPathComponent()
            .deletingLastPathComponent().appending(
                path: "Fuzz")
        return ["FailCases", "Seeds"].flatMap { kind in
            (try? FileManager.default.contentsOfDirectory(
                at: fuzz.appending(path: kind).appending(path: folder), includingPropertiesForKeys: nil)) ?? []
        }.sorted { $0.path < $1.path }
    }

    @Test func headsThatWereFound() throws {
        let files = Self.files("FuzzHead")
        #expect(!files.isEmpty)
        for file in files {
            let problem = FuzzChecks.head(Array(try Data(contentsOf: file)))
            #expect(problem == nil, "\(file.lastPathComponent)")
        }
    }

    @Test func openingsThatWereFound() throws {
        let files = Self.files("FuzzOpening")
        #expect(!files.isEmpty)
        for file in files {
            let problem = OpeningChecks.opening(Array(try Data(contentsOf: file)))
            #expect(problem == nil, "\(file.lastPathComponent)")
        }
    }

    @Test func bodiesThatWereFound() throws {
        let files = Self.files("FuzzChunk")
        #expect(!files.isEmpty)
        for file in files {
            let problem = FuzzChecks.chunks(Array(try Data(contentsOf: file)))
            #expect(problem == nil, "\(file.lastPathComponent)")
        }
    }
}
