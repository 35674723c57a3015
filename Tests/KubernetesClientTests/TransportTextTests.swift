import Testing

@testable import KubernetesClient

@Suite struct TransportTextTests {
    @Test(arguments: [
        (
            "Error: 268435581 error:1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED at /x/handshake.cc:297",
            "CERTIFICATE_VERIFY_FAILED"
        ),
        ("error:100000f7:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER", "WRONG_VERSION_NUMBER"), ("", nil),
        ("no word of theirs", nil),
    ])
    func theWordAlone(text: String, word: String?) {
        #expect(TransportText.word(of: text) == word)
    }

    @Test func whatIsShownOfUs() {
        var access = ClusterAccess(server: "https://a")
        #expect(access.identity == "no credential")
        access.clientCertificate = .file("/c.crt")
        #expect(access.identity == "the client certificate in /c.crt")
        access.clientCertificate = .inline([1])
        #expect(access.identity == "a client certificate")
        access.credential = .token("secret")
        #expect(access.identity == "a token, a client certificate")
    }
}
