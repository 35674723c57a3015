// Step 4 of a configuration change, for certificates: made off the loops, judged, and the last good ones kept.

/// Makes the certificate tables of a process, one a configuration.
package final class CertificateStore: Sendable {
    /// What holds for every certificate.
    let options: TLSOptions
    let cache = ContextCache()
    /// For names that nobody has a certificate for: made on start, so that nobody can hold its key.
    let selfSigned: ServedCertificate

    /// The names in the certificate that is made on start.
    package static let selfSignedName = "moongate.invalid"

    package init(_ options: TLSOptions) throws(TLSError) {
        self.options = options
        let pair = try TLSKeyPair.selfSigned(name: Self.selfSignedName)
        selfSigned = ServedCertificate(name: "self-signed", pairs: [pair], options: options, cache: cache)
        // What is wrong with the options is said now, and not to the first client.
        _ = try TLSContext(accepting: [pair], options)
    }

    package func table() -> CertificateTable {
        CertificateTable(standard: selfSigned)
    }
}
