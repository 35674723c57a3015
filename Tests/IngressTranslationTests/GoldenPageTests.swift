import Controller
import Foundation
import IngressTranslation
import Manifests
import Middlewares
import Model
import Proxy
import TLSEngine
import Testing

/// The pages of the documentation that are printed from tables. `MOONGATE_BLESS=1` prints them anew.
struct GoldenPageTests {
    static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("Sources/moongate/Documentation.docc")

    /// The codes of all rooms, each with its row.
    static let codes: [(code: String, row: String)] = {
        func rows<Code: CaseIterable>(
            _: Code.Type, _ facts: (Code) -> (code: String, name: String, severity: Severity, meaning: String)
        ) -> [(code: String, row: String)] {
            Code.allCases.map(facts).map {
                ($0.code, "| \($0.code) | \($0.name) | \($0.severity.rawValue) | \($0.meaning) |\n")
            }
        }
        let all =
            rows(ManifestCode.self) { ($0.rawValue, $0.name, $0.severity, $0.meaning) }
            + rows(TranslationCode.self) { ($0.rawValue, $0.name, $0.severity, $0.meaning) }
            + rows(CertificateCode.self) { ($0.rawValue, $0.name, $0.severity, $0.meaning) }
            + rows(ControllerCode.self) { ($0.rawValue, $0.name, $0.severity, $0.meaning) }
            + rows(ProxyCode.self) { ($0.rawValue, $0.name, $0.severity, $0.meaning) }
            + rows(ScriptCode.self) { ($0.rawValue, $0.name, $0.severity, $0.meaning) }
        return all.sorted { $0.code < $1.code }
    }()

    static let diagnostics =
        """
        # Diagnostics of the configuration

        Each names the problem, its place and how to mend it. The codes are stable; `moongate check` prints them.

        | code | name | severity | means |
        |---|---|---|---|

        """ + codes.map(\.row).joined()

    @Test(arguments: [("Annotations.md", AnnotationTable.documentation), ("Diagnostics.md", diagnostics)])
    func pageIsPrintedFromItsTable(name: String, text: String) throws {
        let file = Self.folder.appendingPathComponent(name)
        if ProcessInfo.processInfo.environment["MOONGATE_BLESS"] == "1" {
            try text.write(to: file, atomically: true, encoding: .utf8)
        } else {
            #expect(try String(contentsOf: file, encoding: .utf8) == text)
        }
    }

    @Test func codesOfTheRoomsAreApart() {
        #expect(Set(Self.codes.map(\.code)).count == Self.codes.count)
    }

    /// Also one that is written where it is found, and in no table.
    @Test func everyCodeIsOnThePage() throws {
        let sources = Self.folder.deletingLastPathComponent().deletingLastPathComponent()
        let files = FileManager.default.enumerator(atPath: sources.path)?.allObjects as? [String] ?? []
        var found: Set<String> = []
        for file in files where file.hasSuffix(".swift") || file.hasSuffix(".lua") {
            let text = try String(contentsOf: sources.appendingPathComponent(file), encoding: .utf8)
            for match in text.matches(of: /"(MG[0-9]{3})"/) { found.insert(String(match.output.1)) }
        }
        #expect(found.count > 50)
        #expect(found.subtracting(Self.codes.map(\.code)).sorted() == [])
    }
}
