import Controller
import Foundation
import IngressTranslation
import Manifests
import Model
import Proxy
import TLSEngine
import Testing

/// The pages of the documentation that are printed from tables. `MOONGATE_BLESS=1` prints them anew.
struct GoldenPageTests {
    static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("Sources/moongate/Documentation.docc")

    static let diagnostics: String = {
        var page = """
            # Diagnostics of the configuration

            Each names the problem, its place and how to mend it. The codes are stable; `moongate check` prints them.

            | code | name | severity | means |
            |---|---|---|---|

            """
        for code in ManifestCode.allCases {
            page += "| \(code.rawValue) | \(code.name) | \(code.severity.rawValue) | \(code.meaning) |\n"
        }
        for code in TranslationCode.allCases {
            page += "| \(code.rawValue) | \(code.name) | \(code.severity.rawValue) | \(code.meaning) |\n"
        }
        for code in CertificateCode.allCases {
            page += "| \(code.rawValue) | \(code.name) | \(code.severity.rawValue) | \(code.meaning) |\n"
        }
        for code in ControllerCode.allCases {
            page += "| \(code.rawValue) | \(code.name) | \(code.severity.rawValue) | \(code.meaning) |\n"
        }
        for code in ProxyCode.allCases {
            page += "| \(code.rawValue) | \(code.name) | \(code.severity.rawValue) | \(code.meaning) |\n"
        }
        return page
    }()

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
        let manifest = Set(ManifestCode.allCases.map(\.rawValue))
        #expect(
            Set(TranslationCode.allCases.map(\.rawValue)).isDisjoint(with: CertificateCode.allCases.map(\.rawValue)))
        #expect(manifest.isDisjoint(with: TranslationCode.allCases.map(\.rawValue)))
        #expect(
            manifest.union(TranslationCode.allCases.map(\.rawValue)).isDisjoint(
                with: ControllerCode.allCases.map(\.rawValue)))
    }
}
