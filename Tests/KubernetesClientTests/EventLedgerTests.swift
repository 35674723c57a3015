import KubernetesAPI
import Testing

@testable import KubernetesClient

@Suite struct EventLedgerTests {
    private func note(_ text: String, object: String = "web") -> EventNote {
        EventNote(
            .warning, apiVersion: Ingress.apiVersion, objectKind: "Ingress",
            object: ObjectName(namespace: "shop", name: object), uid: "u", reason: "NoService", action: "Translate",
            note: text)
    }

    @Test func theSameIsOneEventThatCounts() {
        var ledger = EventLedger(now: .zero)
        #expect(ledger.told(note("a"), now: .zero, suffix: "1") == .create(name: "web.1"))
        #expect(ledger.told(note("a"), now: .seconds(1), suffix: "2") == .quiet)
        #expect(ledger.told(note("b"), now: .seconds(1), suffix: "3") == .create(name: "web.3"))
        #expect(ledger.told(note("a"), now: .seconds(1_800), suffix: "4") == .extend(name: "web.1", count: 3))
        #expect(ledger.told(note("a"), now: .seconds(1_801), suffix: "5") == .quiet)
    }

    @Test func whatWasForgottenBeginsAnew() {
        var ledger = EventLedger(now: .zero)
        _ = ledger.told(note("a"), now: .zero, suffix: "1")
        #expect(ledger.told(note("a"), now: .seconds(4_000), suffix: "2") == .create(name: "web.2"))
    }

    @Test func aFailedWriteIsTriedAgain() {
        var ledger = EventLedger(now: .zero)
        _ = ledger.told(note("a"), now: .zero, suffix: "1")
        ledger.writeFailed(note("a"))
        #expect(ledger.told(note("a"), now: .zero, suffix: "2") == .create(name: "web.2"))
    }

    @Test func oneObjectCannotFlood() {
        var ledger = EventLedger(now: .zero)
        var written = 0
        for index in 0..<1_000 {
            let decision = ledger.told(note("\(index)"), now: .zero, suffix: "x")
            if decision == .create(name: "web.x") { written += 1 } else { #expect(decision == .later(.seconds(60))) }
        }
        #expect(written == 25)
        // Its neighbour is not harmed.
        #expect(ledger.told(note("a", object: "api"), now: .zero, suffix: "1") == .create(name: "api.1"))
        // One more each period.
        #expect(ledger.told(note("late"), now: .seconds(60), suffix: "2") == .create(name: "web.2"))
        #expect(ledger.told(note("later"), now: .seconds(61), suffix: "3") == .later(.seconds(120)))
    }

    @Test func allTogetherCannotFlood() {
        var ledger = EventLedger(now: .zero)
        var written = 0
        for index in 0..<1_000 {
            let decision = ledger.told(note("a", object: "web\(index)"), now: .zero, suffix: "x")
            if decision != .full(.milliseconds(200)) { written += 1 }
        }
        #expect(written == 100)
        // Who had to wait has lost nothing of what it may write.
        let decision = ledger.told(note("a", object: "web999"), now: .milliseconds(200), suffix: "x")
        #expect(decision == .create(name: "web999.x"))
    }

    @Test func longNotesAreCutBetweenCharacters() {
        let text = String(repeating: "ü", count: 600)
        let cut = EventNote.cut(text, to: 1_024)
        #expect(cut.utf8.count <= 1_024)
        #expect(cut.hasSuffix("ü..."))
        #expect(EventNote.cut("short", to: 1_024) == "short")
    }
}
