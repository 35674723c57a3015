// A client's certificate, its authority, and that one's lists of who was revoked. They serve nowhere.
import Model

/// Ends in 2126.
let clientAuthority = pem(
    """
    -----BEGIN CERTIFICATE-----
    MIIBizCCATGgAwIBAgIULmbMmb/hr1QQj+WmxCKF5T+IghwwCgYIKoZIzj0EAwIw
    EjEQMA4GA1UEAwwHY2xpZW50czAgFw0yNjExMjcwMjE4NTJaGA8yMTI2MTEwMzAy
    MTg1MlowEjEQMA4GA1UEAwwHY2xpZW50czBZMBMGByqGSM49AgEGCCqGSM49AwEH
    A0IABH4WWsSa3kVMram442oKehaKv1qNAHuPXg66OBhDgHe5V/tfHSS1rISJ3luO
    XhYFtuhb0TpGZrufGr8SGgzBb1+jYzBhMB0GA1UdDgQWBBSZtqd6Ro9XR0d3uUNI
    J3LeJ39jCjAfBgNVHSMEGDAWgBSZtqd6Ro9XR0d3uUNIJ3LeJ39jCjAPBgNVHRMB
    Af8EBTADAQH/MA4GA1UdDwEB/wQEAwIBBjAKBggqhkjOPQQDAgNIADBFAiEAy/5j
    igRVXekw3IjFiH4H3Un8y/oIaklzYRQoiOBX54kCIGc3KqPeBlNlZDHeEa24he8u
    p3IYzCL5wTUlnpx7bEWg
    -----END CERTIFICATE-----
    """)

/// CN=dave, signed by it.
let dave = TLSKeyPair(
    chain: pem(
        """
        -----BEGIN CERTIFICATE-----
        MIIBCjCBsgICEAAwCgYIKoZIzj0EAwIwEjEQMA4GA1UEAwwHY2xpZW50czAgFw0y
        NjExMjcwMjE4NTJaGA8yMDk5MTIzMTIzNTk1OVowDzENMAsGA1UEAwwEZGF2ZTBZ
        MBMGByqGSM49AgEGCCqGSM49AwEHA0IABGcCWBSbDPNhquXPBBhsYfTZR4IXqXZL
        mkJ9k2Hy+Re/Rkf+kfJfZum49DHwHOkX5GD/09vCvutXCJF3BOk34FgwCgYIKoZI
        zj0EAwIDRwAwRAIgQKhmwoKshk3QGCEo6Emkj3NU6Z6iqIg1LWbArJEWkysCIA3m
        06UqoSfJFrgZM5Zr8M7pO9Bp/JwAcz2i0HWfijvT
        -----END CERTIFICATE-----
        """),
    key: pem(
        """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgi2q5JVcl+tixT1s5
        1iGpRApXVFlrtKLQV/hBdipSbIehRANCAARnAlgUmwzzYarlzwQYbGH02UeCF6l2
        S5pCfZNh8vkXv0ZH/pHyX2bpuPQx8BzpF+Rg/9Pbwr7rVwiRdwTpN+BY
        -----END PRIVATE KEY-----
        """))

/// Of nobody; to be replaced by 2030.
let emptyRevocations = pem(
    """
    -----BEGIN X509 CRL-----
    MIGWMD4wCgYIKoZIzj0EAwIwEjEQMA4GA1UEAwwHY2xpZW50cxcNMjYwMTAxMDAw
    MDAwWhcNMzAwMTAxMDAwMDAwWjAKBggqhkjOPQQDAgNIADBFAiAUMv2m0Hgu7RdH
    VPTB6Xn2e+XRoR/lIhrpsq2sHaAtfQIhALWLCXhrDJH8ldN5lsZxHO244MI66EAq
    iU++if4MVtxa
    -----END X509 CRL-----
    """)
let emptyRevocationsEnd: Int64 = 1_893_456_000

/// Of dave; to be replaced by 2099.
let daveRevocations = pem(
    """
    -----BEGIN X509 CRL-----
    MIGwMFcwCgYIKoZIzj0EAwIwEjEQMA4GA1UEAwwHY2xpZW50cxcNMjYwMTAyMDAw
    MDAwWhgPMjA5OTAxMDEwMDAwMDBaMBUwEwICEAAXDTI2MTEyNzAyMTg1MlowCgYI
    KoZIzj0EAwIDSQAwRgIhAOoXPel6gsoMW3a6NQOEBeNaubBgpsWfGOdtMbkQE97n
    AiEAiRDXAdvwba+qblNdxteAE/kUwlxnHyspQgt4Kc9jvwo=
    -----END X509 CRL-----
    """)

/// A client's, which it has signed itself, and which stands for nobody else. Ends in 2100, like the next two.
let pinned = pem(
    """
    -----BEGIN CERTIFICATE-----
    MIIBZjCCAQugAwIBAgIUdmYla4MDzoiSaohM+87ksjgXmDIwCgYIKoZIzj0EAwIw
    ETEPMA0GA1UEAwwGcGlubmVkMCAXDTI2MTEyNzA5MTIwMloYDzIxMDAxMDMwMDkx
    MjAyWjARMQ8wDQYDVQQDDAZwaW5uZWQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
    AAQi1RztycAxA84JuYOLPH5+xXdA3mc7KqJI80MCil3DpPK5cPdUaD0JGjAr8EGe
    27BLPBusTwwv9bKtWXJ8ymVwoz8wPTAMBgNVHRMBAf8EAjAAMA4GA1UdDwEB/wQE
    AwIHgDAdBgNVHQ4EFgQUyV6gZfVzhT/cQhlN47zv7krvgFswCgYIKoZIzj0EAwID
    SQAwRgIhAOsChF2ypOtQyVwZSJrBYsj8htir2EkTHa2kikk5+4UxAiEApJW8rM16
    EAfEDIm1ZLze2Z7fLm3R5QJGaGAJqEcIIes=
    -----END CERTIFICATE-----
    """)

/// Whom the next one is signed by.
let rootAuthority = pem(
    """
    -----BEGIN CERTIFICATE-----
    MIIBRTCB66ADAgECAhQ4nEviGyn5Hs+2jcsmwkcXjYuOozAKBggqhkjOPQQDAjAP
    MQ0wCwYDVQQDDARyb290MCAXDTI2MTEyNzA5MTIwMloYDzIxMDAxMDMwMDkxMjAy
    WjAPMQ0wCwYDVQQDDARyb290MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEhEfi
    tCd5MQeC+/IJ+hsSkJMG5GtnhLZZkfLz1uALWF0WbF9Jbd+gx9BHKQFeFwDdeO1a
    ZYjVS1aImlNMRjyiC6MjMCEwDwYDVR0TAQH/BAUwAwEB/zAOBgNVHQ8BAf8EBAMC
    AQYwCgYIKoZIzj0EAwIDSQAwRgIhAKvA8fX7Bu45hkEaHVoqqBExtsZRLUC2gM+D
    6U0hg4YrAiEAxmaX/D0N4dym9iP78aoi0EPVDtTJTBRuQMDoCE3b5eI=
    -----END CERTIFICATE-----
    """)

let authorityBetween = pem(
    """
    -----BEGIN CERTIFICATE-----
    MIIBNjCB3KADAgECAgIQATAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARyb290MCAX
    DTI2MTEyNzA5MTIwMloYDzIxMDAxMDMwMDkxMjAyWjASMRAwDgYDVQQDDAdiZXR3
    ZWVuMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE/qL0hRuP09Pl7LYWya64NcXv
    mZejFDnI/tutLd/H/KEpyN5SXnGqzC8ZOOA/tpldjWCgcPslTJfZJku7s9qg9aMj
    MCEwDwYDVR0TAQH/BAUwAwEB/zAOBgNVHQ8BAf8EBAMCAQYwCgYIKoZIzj0EAwID
    SQAwRgIhANuneiJqiEzWxym2inQpkAj4RAVzjuqexcaoEuDHyzojAiEAltOYcf8/
    vXegKpXBOcGrH+KvCH0UxB6/UodwlAqWKgE=
    -----END CERTIFICATE-----
    """)

/// One name with two keys, and the list of the first.
let renewedAuthorities = [
    pem(
        """
        -----BEGIN CERTIFICATE-----
        MIIBWTCCAQCgAwIBAgIUdCMm3h1QuZcZ1iEu4BCf9GMW21YwCgYIKoZIzj0EAwIw
        EjEQMA4GA1UEAwwHcmVuZXdlZDAgFw0yNjExMjcwOTQ1MzdaGA8yMDk5MDYxNzA5
        NDUzN1owEjEQMA4GA1UEAwwHcmVuZXdlZDBZMBMGByqGSM49AgEGCCqGSM49AwEH
        A0IABCa0pyuPUYi6pDk6PVD5w9WMl6UfDb0Hv5ncbtkGDC+VDIM5if5dluIMXnf/
        gfPGblZZ/bqb+YzNbANCfrY+ysmjMjAwMA8GA1UdEwEB/wQFMAMBAf8wHQYDVR0O
        BBYEFKWFXhwNy8TUXsjI5jWcOElBNjkDMAoGCCqGSM49BAMCA0cAMEQCIHudHhcI
        4at63VG7vio2IMOUFn9WigBq3PdXkEAJ+logAiBNbUSwesHAy53gFva5BTbTZcMa
        XBoxWHqGYP9ZTEQwVw==
        -----END CERTIFICATE-----
        """),
    pem(
        """
        -----BEGIN CERTIFICATE-----
        MIIBWjCCAQCgAwIBAgIURkvJHTmRDh8Ouw6fYgRe8pyVILQwCgYIKoZIzj0EAwIw
        EjEQMA4GA1UEAwwHcmVuZXdlZDAgFw0yNjExMjcwOTQ1MzdaGA8yMDk5MDYxNzA5
        NDUzN1owEjEQMA4GA1UEAwwHcmVuZXdlZDBZMBMGByqGSM49AgEGCCqGSM49AwEH
        A0IABEfYBZ/XGjtAw0xKdBgc+SflrAuXuXQG8lBl4NxLYjUJYDwLYvpo7L7Dd87B
        A4qDq7bftOsSHTGRMBH+iZP39v+jMjAwMA8GA1UdEwEB/wQFMAMBAf8wHQYDVR0O
        BBYEFCOm2seakw8sEdKKAF9FuUnQpKxaMAoGCCqGSM49BAMCA0gAMEUCIQD3nTlE
        nQKEw1GEdFxcd90/GcwlJCpD3P8etuIK8Vw8YwIgOqSm8CAIHg0ghqQbAdR1XroP
        t+wxM9MhOQqlPrAjGYg=
        -----END CERTIFICATE-----
        """),
]
let oldRevocations = pem(
    """
    -----BEGIN X509 CRL-----
    MIHMMHQCAQEwCgYIKoZIzj0EAwIwEjEQMA4GA1UEAwwHcmVuZXdlZBcNMjYxMTI3
    MDk0NTM3WhgPMjA5ODAyMDIwOTQ1MzdaoC8wLTAfBgNVHSMEGDAWgBSlhV4cDcvE
    1F7IyOY1nDhJQTY5AzAKBgNVHRQEAwIBATAKBggqhkjOPQQDAgNIADBFAiBH3zmD
    kdOQHYNFpjGgpsr4oBxWu95dLbIAdL3XJXS83gIhAK3uM9R0XYZOQXnOQQQ4e20I
    4K4NKj8ll3m8prnobMFj
    -----END X509 CRL-----
    """)

private func pem(_ text: String) -> [UInt8] { Array((text + "\n").utf8) }

/// The same with one digit that is none in its second line.
func damaged(_ pem: [UInt8]) -> [UInt8] {
    var pem = pem
    guard let start = pem.firstIndex(of: UInt8(ascii: "\n")), start + 20 < pem.count else { return pem }
    pem[start + 20] = UInt8(ascii: "*")
    return pem
}
