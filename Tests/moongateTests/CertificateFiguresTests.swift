import Model
import Testing

@testable import TLSEngine
@testable import moongate

struct CertificateFiguresTests {
    @Test func figuresAreBoundedAndCountsAreWhole() {
        let all = (0..<3_000).map { n in
            CertificateExpiry(
                secret: ObjectReference(kind: "Secret", namespace: "shop", name: "s\(n)"), notAfter: Int64(n),
                warnsAt: Int64(n) - 100)
        }
        let lines = CertificateFigures.text(all, contexts: 3, made: 5, now: 50).split(separator: "\n")
        func count(_ start: String) -> Int { lines.count { $0.hasPrefix(start) } }
        #expect(count("moongate_tls_certificate_expiry_timestamp_seconds{") == 1_000)
        #expect(lines.contains("moongate_tls_certificate_expiry_timestamp_seconds{namespace=\"shop\",secret=\"s7\"} 7"))
        for line in ["{state=\"expired\"} 50", "{state=\"expiring\"} 101", "{state=\"good\"} 2849"] {
            #expect(lines.contains("moongate_tls_certificates\(line)"), "\(line)")
        }
        #expect(lines.contains("moongate_tls_contexts 3") && lines.contains("moongate_tls_contexts_made_total 5"))
        #expect(!CertificateFigures.text([], contexts: 0, made: 0, now: 0).contains("} 1"))
    }
}
