// When certificates end, for whoever keeps watch: a figure for each Secret up to a bound, and counts of all.

import Model
import TLSEngine
import Telemetry

enum CertificateFigures {
    /// Secrets with a figure of their own: those that end first, which are the ones to be told of. Ten thousand would be a
    /// megabyte each time that somebody looks.
    static let most = 1_000

    /// In the text format of Prometheus.
    /// - Parameters:
    ///   - expiries: the soonest first.
    ///   - contexts: what is ready for handshakes, and `made` how often such was made.
    ///   - now: seconds since 1970.
    static func text(_ expiries: [CertificateExpiry], contexts: Int, made: UInt64, now: Int64) -> String {
        var text = PrometheusText()
        text.family(
            "moongate_tls_certificates", "gauge",
            "Secrets whose certificates serve, by how near their end is.")
        let over = expiries.count { $0.notAfter < now }
        let soon = expiries.count { $0.notAfter >= now && $0.warnsAt <= now }
        text.sample(expiries.count - over - soon, labels: #"state="good""#)
        text.sample(soon, labels: #"state="expiring""#)
        text.sample(over, labels: #"state="expired""#)
        text.family(
            "moongate_tls_certificate_expiry_timestamp_seconds", "gauge",
            "When the certificate of a Secret ends (seconds since 1970); of many, those that end first.")
        for one in expiries.prefix(most) {
            let (namespace, name) = (
                PrometheusText.escape(one.secret.namespace), PrometheusText.escape(one.secret.name)
            )
            text.sample(one.notAfter, labels: #"namespace="\#(namespace)",secret="\#(name)""#)
        }
        text.family("moongate_tls_contexts", "gauge", "Certificates that are ready for handshakes.")
        text.sample(contexts)
        text.family(
            "moongate_tls_contexts_made_total", "counter", "How often a certificate was made ready for handshakes.")
        text.sample(made)
        return text.text
    }
}
