// A certificate of our own for the webhook, where the operator gives none: signed by itself, and so its own authority.

internal import Crypto
package import FoundationEssentials
internal import SwiftASN1
internal import X509

/// A certificate with its key, as PEM text.
package struct WebhookCertificate: Sendable, Equatable {
    package var certificate: String
    package var key: String
    package var expiry: Date
    private var start: Date
    private var names: [String]

    /// Long enough for a cluster that is rarely touched; renewed after two thirds of it.
    private static let life: TimeInterval = 365 * 86_400

    /// Makes a new one.
    package static func make(names: [String], now: Date) throws -> WebhookCertificate {
        let key = P256.Signing.PrivateKey()
        let signer = Certificate.PrivateKey(key)
        let subject = try DistinguishedName { CommonName(names.first ?? "moongate-webhook") }
        // Clocks differ between nodes.
        let start = now.addingTimeInterval(-3_600)
        let expiry = now.addingTimeInterval(life)
        // While one is renewed there are two authorities of one name: only so does every library find the right one
        // (RFC 5280 §4.2.1.1).
        let identifier = SubjectKeyIdentifier(hash: signer.publicKey)
        let certificate = try Certificate(
            version: .v3, serialNumber: Certificate.SerialNumber(), publicKey: signer.publicKey, notValidBefore: start,
            notValidAfter: expiry, issuer: subject, subject: subject, signatureAlgorithm: .ecdsaWithSHA256,
            extensions: Certificate.Extensions {
                Critical(BasicConstraints.isCertificateAuthority(maxPathLength: 0))
                Critical(KeyUsage(digitalSignature: true, keyCertSign: true))
                try ExtendedKeyUsage([.serverAuth])
                SubjectAlternativeNames(names.map { .dnsName($0) })
                identifier
                AuthorityKeyIdentifier(keyIdentifier: identifier.keyIdentifier)
            }, issuerPrivateKey: signer)
        let pem = try certificate.serializeAsPEM().pemString
        guard let made = WebhookCertificate(certificate: pem, key: key.pemRepresentation) else {
            throw AdmissionProblem("the certificate that was made can't be read")
        }
        return made
    }

    /// Reads one; nil for text that is none.
    package init?(certificate pem: String, key: String) {
        guard let certificate = try? Certificate(pemEncoded: pem),
            (try? Certificate.PrivateKey(pemEncoded: key)) != nil
        else { return nil }
        self.certificate = pem
        self.key = key
        start = certificate.notValidBefore
        expiry = certificate.notValidAfter
        names = []
        if let alternatives = try? certificate.extensions.subjectAlternativeNames {
            for case .dnsName(let name) in alternatives { names.append(name) }
        }
    }

    /// Whether it is time for another, or another Service is asked for.
    package func mustBeReplaced(now: Date, names wanted: [String]) -> Bool {
        !Set(wanted).isSubset(of: names) || now.timeIntervalSince(start) > expiry.timeIntervalSince(start) * 2 / 3
    }
}
