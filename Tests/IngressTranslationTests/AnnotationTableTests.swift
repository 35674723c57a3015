import IngressTranslation
import Testing

struct AnnotationTableTests {
    @Test func eachKeyStandsOnce() {
        #expect(Set(AnnotationTable.all.map(\.key)).count == AnnotationTable.all.count)
        #expect(AnnotationTable.byKey.count == AnnotationTable.all.count)
    }

    @Test func thePageListsThemAll() {
        let page = AnnotationTable.documentation
        for spec in AnnotationTable.all {
            #expect(page.contains("| `moongate.dev/\(spec.key)` |"))
            #expect(page.contains(spec.doc))
            #expect(spec.doc.hasSuffix(".") && !spec.syntax.isEmpty && !spec.kinds.isEmpty)
        }
        // Five cells a row: a bar in a value would make a sixth.
        for line in page.split(separator: "\n") where line.hasPrefix("| `") {
            #expect(line.replacing("\\|", with: "").count { $0 == "|" } == 6, "\(line)")
        }
    }

    @Test func codesAreTheirOwn() {
        #expect(Set(TranslationCode.allCases.map(\.name)).count == TranslationCode.allCases.count)
        for code in TranslationCode.allCases { #expect(!code.meaning.isEmpty) }
    }
}
