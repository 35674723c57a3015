// What the fuzz target of the Lua border starts from, and what it has found.

import Foundation
import Testing

@Suite("Seeds and finds of the fuzz target") struct FailCaseTests {
    @Test func scripts() throws {
        var top = URL(fileURLWithPath: #filePath)
        for _ in 0..<2 { top.deleteLastPathComponent() }
        var count = 0
        for kind in ["Seeds", "FailCases"] {
            let folder = top.appendingPathComponent("Fuzz/\(kind)/FuzzLua")
            for name in ((try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []).sorted() {
                let problem = FuzzChecks.lua(Array(try Data(contentsOf: folder.appendingPathComponent(name))))
                #expect(problem == nil, "\(kind)/\(name)")
                count += 1
            }
        }
        #expect(count > 0)
    }
}
