import Foundation
import Model
import Testing

@testable import Proxy

/// The operator's page names every reason that the access log can hold, with the status that clients get.
struct OperationsPageTests {
    private static let page = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("Sources/moongate/Documentation.docc/Operations.md")

    @Test func everyReasonIsInTheTable() throws {
        let text = try String(contentsOf: Self.page, encoding: .utf8)
        let rows = text.split(separator: "\n").filter { $0.hasPrefix("| `") }
            .map { $0.split(separator: "|", omittingEmptySubsequences: false).map(String.init) }
        for reason in FailureReason.allCases where reason != .none {
            let row = rows.first { $0.count > 4 && $0[1].contains("`\(reason.label)`") }
            guard let row else {
                Issue.record("\(reason.label) is in no table")
                continue
            }
            #expect(row[2].contains("\(reason.status)"), "\(reason.label)")
        }
    }
}
