// Certificates that are unusual. They serve nowhere.
import Model

/// For shop.test, with keys on curves that no client agrees on.
let pairsOnOddCurves: [(curve: String, pair: TLSKeyPair)] = [
    (
        "secp256k1",
        TLSKeyPair(
            pem: """
                -----BEGIN CERTIFICATE-----
                MIIBkTCCATigAwIBAgIUN8dWUMybXD8Kaz93E16dd1AEC4wwCgYIKoZIzj0EAwIw
                FDESMBAGA1UEAwwJc2hvcC50ZXN0MCAXDTI2MTEyNjE5MTIxNloYDzIxMDkwMTE1
                MTkxMjE2WjAUMRIwEAYDVQQDDAlzaG9wLnRlc3QwVjAQBgcqhkjOPQIBBgUrgQQA
                CgNCAATPYjpJGmgdVM3iCGeatrZqdQfQni59BRy0/Bsq22/Hus7LmOwpLsyG7NvI
                QdYAKHIHV7lJJaVB6YPtbFxWrJXSo2kwZzAdBgNVHQ4EFgQULGP90X1Nfsa2MjZw
                yeqp1EZV6EgwHwYDVR0jBBgwFoAULGP90X1Nfsa2MjZwyeqp1EZV6EgwDwYDVR0T
                AQH/BAUwAwEB/zAUBgNVHREEDTALgglzaG9wLnRlc3QwCgYIKoZIzj0EAwIDRwAw
                RAIgAajMDP4uiowRJja5n5Qq1Eq3dw8MLZ7ITPmn/0d8OA0CIGViXOOEyCbQNpyF
                cfR5bI8/qZqfuiQxyr7GhUC8bcqz
                -----END CERTIFICATE-----
                -----BEGIN PRIVATE KEY-----
                MIGEAgEAMBAGByqGSM49AgEGBSuBBAAKBG0wawIBAQQgzZQYlxVDeQUQZfgpCQpB
                fm+FeHWD8P8XsiM4aaYJd7GhRANCAATPYjpJGmgdVM3iCGeatrZqdQfQni59BRy0
                /Bsq22/Hus7LmOwpLsyG7NvIQdYAKHIHV7lJJaVB6YPtbFxWrJXS
                -----END PRIVATE KEY-----
                """)
    ),
    (
        "brainpoolP256r1",
        TLSKeyPair(
            pem: """
                -----BEGIN CERTIFICATE-----
                MIIBlTCCATygAwIBAgIUFo2iRuaPMkaym1tWui2WmTYtgEAwCgYIKoZIzj0EAwIw
                FDESMBAGA1UEAwwJc2hvcC50ZXN0MCAXDTI2MTEyNjE5MTIxNloYDzIxMDkwMTE1
                MTkxMjE2WjAUMRIwEAYDVQQDDAlzaG9wLnRlc3QwWjAUBgcqhkjOPQIBBgkrJAMD
                AggBAQcDQgAEW4mSzYv3gGpM4KNaiC8mpPI/fmh+mtO/IS15T4nN094DQOt5Kpsf
                d8xpG6WMB9/PAKbZUa5+MW/fnIk66PKPhKNpMGcwHQYDVR0OBBYEFAmmbQoyjNig
                scDbfZ+L7lNjLozUMB8GA1UdIwQYMBaAFAmmbQoyjNigscDbfZ+L7lNjLozUMA8G
                A1UdEwEB/wQFMAMBAf8wFAYDVR0RBA0wC4IJc2hvcC50ZXN0MAoGCCqGSM49BAMC
                A0cAMEQCIG9G9lC93OGn7r+WX1q7QkAqdacWWD8FPzpDLVu6fG8SAiAoR9pTMQsI
                cwqVHP4v/uzePQlDyPLWcaGjodA2tuu4bQ==
                -----END CERTIFICATE-----
                -----BEGIN PRIVATE KEY-----
                MIGIAgEAMBQGByqGSM49AgEGCSskAwMCCAEBBwRtMGsCAQEEIIrOSCq0cpgHChpY
                stIKbbrPKyZm1BWg/r+MOubEGyLvoUQDQgAEW4mSzYv3gGpM4KNaiC8mpPI/fmh+
                mtO/IS15T4nN094DQOt5Kpsfd8xpG6WMB9/PAKbZUa5+MW/fnIk66PKPhA==
                -----END PRIVATE KEY-----
                """)
    ),
    (
        "secp224r1",
        TLSKeyPair(
            pem: """
                -----BEGIN CERTIFICATE-----
                MIIBgTCCATCgAwIBAgIULG4MoM2MtsHHqzG7Lqm79IJp3lwwCgYIKoZIzj0EAwIw
                FDESMBAGA1UEAwwJc2hvcC50ZXN0MCAXDTI2MTEyNjE5MTIxNloYDzIxMDkwMTE1
                MTkxMjE2WjAUMRIwEAYDVQQDDAlzaG9wLnRlc3QwTjAQBgcqhkjOPQIBBgUrgQQA
                IQM6AARBO6j4XTkMbW9EFBlzyNNEky0lCJWJ7tMxnYIbywQSVpxaYMUhQV/tYA26
                /OxhDweHM9b/Iy8j66NpMGcwHQYDVR0OBBYEFBBDtWljM6aFX3IC6rPPxhUCWhGM
                MB8GA1UdIwQYMBaAFBBDtWljM6aFX3IC6rPPxhUCWhGMMA8GA1UdEwEB/wQFMAMB
                Af8wFAYDVR0RBA0wC4IJc2hvcC50ZXN0MAoGCCqGSM49BAMCAz8AMDwCHCUjXQYg
                LAY7L9CJ/60KXSTaELsVq+PJNWdHLKUCHD+HyT+Dcn5TsgxeSONI66zECO56/RrD
                LwvkFTI=
                -----END CERTIFICATE-----
                -----BEGIN PRIVATE KEY-----
                MHgCAQAwEAYHKoZIzj0CAQYFK4EEACEEYTBfAgEBBBxUF67h85bRf11Y6lMHeMKG
                VCL5YkqgEabvb/y7oTwDOgAEQTuo+F05DG1vRBQZc8jTRJMtJQiVie7TMZ2CG8sE
                ElacWmDFIUFf7WANuvzsYQ8HhzPW/yMvI+s=
                -----END PRIVATE KEY-----
                """)
    ),
]

/// Of kinds that some clients agree on.
let pairsOfOtherKinds: [(kind: String, pair: TLSKeyPair)] = [
    (
        "P-384",
        TLSKeyPair(
            pem: """
                -----BEGIN CERTIFICATE-----
                MIIB0jCCAVigAwIBAgIUPAY+Lf5a1ToPXJFqDJhwp92TZ/UwCgYIKoZIzj0EAwIw
                FDESMBAGA1UEAwwJc2hvcC50ZXN0MCAXDTI2MTEyNjE5MTIxNloYDzIxMDkwMTE1
                MTkxMjE2WjAUMRIwEAYDVQQDDAlzaG9wLnRlc3QwdjAQBgcqhkjOPQIBBgUrgQQA
                IgNiAAThfXDwdj2+DxLP91lY9vV2x+PHy9tFteXGSEikhWCGhrrlvT8DjsGfpJaE
                AnPZjX+u4x9PKFsEMU9usRsIOwbhEcSfi5mLoZPXEgH/C70R78JnmeyauuEMIHBn
                lDnOHvWjaTBnMB0GA1UdDgQWBBTCguY7vyuJekHJvygYWyJw0DNBVjAfBgNVHSME
                GDAWgBTCguY7vyuJekHJvygYWyJw0DNBVjAPBgNVHRMBAf8EBTADAQH/MBQGA1Ud
                EQQNMAuCCXNob3AudGVzdDAKBggqhkjOPQQDAgNoADBlAjBc2Vq9wkH1cXN9Q35b
                j1L6808c+cH8nwwrWTIGm2Rx0m3NDBW95vN6D30LXa+KuUACMQC6NiqkJTuaUdTo
                8ILhGlbJp4lW1c05t1rqSjTcKfiByWGkb7+iacXJOb6dC9pichI=
                -----END CERTIFICATE-----
                -----BEGIN PRIVATE KEY-----
                MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDAhcFN0RGAklu8A+eL3
                e6eOmqc+gwMh1JJEvul5I66NxE/dqbkxrADZ54xASRs/FvqhZANiAAThfXDwdj2+
                DxLP91lY9vV2x+PHy9tFteXGSEikhWCGhrrlvT8DjsGfpJaEAnPZjX+u4x9PKFsE
                MU9usRsIOwbhEcSfi5mLoZPXEgH/C70R78JnmeyauuEMIHBnlDnOHvU=
                -----END PRIVATE KEY-----
                """)
    ),
    (
        "P-521",
        TLSKeyPair(
            pem: """
                -----BEGIN CERTIFICATE-----
                MIICHDCCAX6gAwIBAgIUCtolE4MJNYrLANlgTBtJR5HzfNQwCgYIKoZIzj0EAwIw
                FDESMBAGA1UEAwwJc2hvcC50ZXN0MCAXDTI2MTEyNjE5MTIxNloYDzIxMDkwMTE1
                MTkxMjE2WjAUMRIwEAYDVQQDDAlzaG9wLnRlc3QwgZswEAYHKoZIzj0CAQYFK4EE
                ACMDgYYABAEVOLkjN3vy8nOxMWajMiKqmqVBfwTr/9y+UcL4GL4ItRMw490ML/OB
                gNGxWr5R//eb8xXg2fBNV59C/zWjsMH65AGeIvNZOuXqctY+7g19FufLx/b9uX3b
                r9FK9h7FVbFWeVoI7FX1v7SsYyWYEKuRKzTNKmEQQx7mnbOOs1eWvydCTKNpMGcw
                HQYDVR0OBBYEFN7WstjPjJ0hhh7geaVaLPxlrwClMB8GA1UdIwQYMBaAFN7WstjP
                jJ0hhh7geaVaLPxlrwClMA8GA1UdEwEB/wQFMAMBAf8wFAYDVR0RBA0wC4IJc2hv
                cC50ZXN0MAoGCCqGSM49BAMCA4GLADCBhwJBbLaaPbaYC66KjeYLT00RHaN/Pmau
                jnZrmFJeWqXJjQkrOCUn5BRUHsWcwVGvZQdDTYNDvLcZkvTKFNu6NkUTcyYCQgGN
                NX1ZMlDU/HuiRXeqJeTm5Oc1ENphPlHixez5VmBjLu9hLY897rxAuKCB3nbi4n+4
                n85CGSJPsl32PHxL1nYPjQ==
                -----END CERTIFICATE-----
                -----BEGIN PRIVATE KEY-----
                MIHuAgEAMBAGByqGSM49AgEGBSuBBAAjBIHWMIHTAgEBBEIBd2tMgJbt+3IsSbzc
                SPAPGF/id3wZPxdOXgJIwYvrfAvXwrsc5qVAfLRSFv1WRCUkcNZZbhT7+qn8+Kre
                PRNEU5+hgYkDgYYABAEVOLkjN3vy8nOxMWajMiKqmqVBfwTr/9y+UcL4GL4ItRMw
                490ML/OBgNGxWr5R//eb8xXg2fBNV59C/zWjsMH65AGeIvNZOuXqctY+7g19FufL
                x/b9uX3br9FK9h7FVbFWeVoI7FX1v7SsYyWYEKuRKzTNKmEQQx7mnbOOs1eWvydC
                TA==
                -----END PRIVATE KEY-----
                """)
    ),
    (
        "Ed25519",
        TLSKeyPair(
            pem: """
                -----BEGIN CERTIFICATE-----
                MIIBVTCCAQegAwIBAgIUPc4mfKzDmEKLovWGsWFEI9wSi1MwBQYDK2VwMBQxEjAQ
                BgNVBAMMCXNob3AudGVzdDAgFw0yNjExMjYxOTEyMTZaGA8yMTA5MDExNTE5MTIx
                NlowFDESMBAGA1UEAwwJc2hvcC50ZXN0MCowBQYDK2VwAyEAdMdutjBb6nYuxfZj
                w3AcbSYenyWgVJHKTVN0gjNMwBqjaTBnMB0GA1UdDgQWBBTbZ0uxTNz/h40GHMpc
                G/MwE5rjkzAfBgNVHSMEGDAWgBTbZ0uxTNz/h40GHMpcG/MwE5rjkzAPBgNVHRMB
                Af8EBTADAQH/MBQGA1UdEQQNMAuCCXNob3AudGVzdDAFBgMrZXADQQCO2gNF7poY
                t0DlkdiXgH21IJDO5kyZDHaVGqcrCQMtMzQIP3h48sAvFzMwoRC+zG5LxxJmIOA2
                ZS/PHHcfyB0M
                -----END CERTIFICATE-----
                -----BEGIN PRIVATE KEY-----
                MC4CAQAwBQYDK2VwBCIEIO2H3PN6aLzTdsXVYcfnbYlk0jCkTFUnKRmMHsDWqVeO
                -----END PRIVATE KEY-----
                """)
    ),
    (
        "RSA",
        TLSKeyPair(
            pem: """
                -----BEGIN CERTIFICATE-----
                MIIDITCCAgmgAwIBAgIUZ99BJy6eKVc+0L9acwZ1DWD5GuMwDQYJKoZIhvcNAQEL
                BQAwFDESMBAGA1UEAwwJc2hvcC50ZXN0MCAXDTI2MTEyNzAyMjE0N1oYDzIxMDkw
                MTE2MDIyMTQ3WjAUMRIwEAYDVQQDDAlzaG9wLnRlc3QwggEiMA0GCSqGSIb3DQEB
                AQUAA4IBDwAwggEKAoIBAQCMXvV6UGPCZJQGoKOBeNJHkWRpM2gUurYViCjf2x44
                /g5woVJOdhlJIPHZ70k0proQ+b4Mw+MzzqUShhY/PDdqW8F7s539YmumZSSBAHha
                TaNxQXwLAWgiwNCRHps8INhRzZzkyp/qPbU3FaIRuCAt7ZjMfsel25qKDv0gd1Fq
                EUSFafvVMFKl052Rks3SUffZ76NexswUXl1ui3kn9dVcRuQB0GuPdSo+mtGlKbsQ
                8Jlx1Ok7yd//z241Zx1nCxEkQt5sclbotHTsCTHlKHi1k4/t6S0Z3yxxt27UIjl4
                BIQIya6W5jgG/p+22LAeC/XAXoS2cIw5klZanmXBsNi7AgMBAAGjaTBnMB0GA1Ud
                DgQWBBRwqhPEPLWuvOJ3mZHKmhn/SyKAPjAfBgNVHSMEGDAWgBRwqhPEPLWuvOJ3
                mZHKmhn/SyKAPjAPBgNVHRMBAf8EBTADAQH/MBQGA1UdEQQNMAuCCXNob3AudGVz
                dDANBgkqhkiG9w0BAQsFAAOCAQEAfsAwlpLrA/sbN38VAbCA+rZQGeZ6ZHl+rXr6
                0UhU7J4IhA9KtaokIoPibpUnb03A/ZDpBYZvK4FU9MDWTFqzWEKv+1/aUFItQ8hH
                1QvQ6sypKrJH6E3Tu03QJ8IpxNkmnbxMoqjmDNHXzhucRBIk690AC8wOVJZlg1Vh
                jGmGDG1aREwaoOtbvoyuOYaVrXsRziD4mmDSDzh9QQOyRXw2uBCtYroKMZSEJ3Hy
                yDuWcoWxpDu5MDwCZNhTOO9FBWqiwIVrv2rOlYlep/hpyFAf01oqqX4XBnktiMtk
                FyK4mcdZNbqY0jPwsA7YwUobV8FHPqP+UOya+CLP/smz9KFK2w==
                -----END CERTIFICATE-----
                -----BEGIN PRIVATE KEY-----
                MIIEvgIBADANBgkqhkiG9w0BAQEFAASCBKgwggSkAgEAAoIBAQCMXvV6UGPCZJQG
                oKOBeNJHkWRpM2gUurYViCjf2x44/g5woVJOdhlJIPHZ70k0proQ+b4Mw+MzzqUS
                hhY/PDdqW8F7s539YmumZSSBAHhaTaNxQXwLAWgiwNCRHps8INhRzZzkyp/qPbU3
                FaIRuCAt7ZjMfsel25qKDv0gd1FqEUSFafvVMFKl052Rks3SUffZ76NexswUXl1u
                i3kn9dVcRuQB0GuPdSo+mtGlKbsQ8Jlx1Ok7yd//z241Zx1nCxEkQt5sclbotHTs
                CTHlKHi1k4/t6S0Z3yxxt27UIjl4BIQIya6W5jgG/p+22LAeC/XAXoS2cIw5klZa
                nmXBsNi7AgMBAAECggEAHthK9sqtcSzqvh4Ub8Hd6y4Os3NBXrS8iDS4TqB2nq1s
                /ODmFimrWr9rhakoG/K7FjnawjFVPrAc49olD1YrEysAdC8++0viPdkh0VsKF0XS
                MXPjTwPLHz/hVNI16FuLTUZyQHAp/a37oRQW3e/o2k7Icb82HcMIzWeHxdeSQ00e
                wKT5ikQwUibjsnAS01KMiIZh/fgszJiJ7Zc6jSBb4MLbw8uL4aWM5mu5Tvk4yPLt
                HrxVfOb8mo4jkB9MbQWpzFQvVPHJ+9JQtmpkOddEYWmDlL3V3eZOWXL24clCWcsn
                8FCOgkj9EjgCIO87QK/4Ne7ABePqLum/GXk+AajTeQKBgQDAV0zBKHFILyCwKXsM
                6gw8j7Mh4uxmADyvoGHRbHKWB7/IOl2A7WMPZVnzjmZRhaE+dqpAuuirfY2DX7Wu
                c+/QkA6OTttQ8nffXekVezAsy9bXRW6qX1CWHMEhFH8feGm07e8UraNTaKuO+cD8
                QcHAC01IbJQ7jmelvW2H3n95RQKBgQC61FRngMEOlO7fYAa8mS2KUHWqfO88qdJi
                3/jWmlffXsod4gTwVf9JnobAfxEQhCay/7ELfy64OS7FFyqkU69Q+BLBwjvwA8bt
                9nRA9VjWRgjt8pluWAAxVHV0FElYaTTGwmOXJA6owtqWa1T1DGzAXbbOmIpq0it0
                PbBwwk8p/wKBgFBDHdBs4/jPUcCxTpvw/vI2tPWrECLwbmKLdsZBjv90dF9Fm8c1
                SGUgUg0Em0XhkYvTUPB6DqWhWvA7fEE0OBq8Qpa36WU6CTO4qI9CPLQ0y45BdxC5
                fZNmpGD9gJ7NTK8nquDiJIml4BFlv1aEyiktji5uwNypbC8JgS91dZRRAoGBAJHf
                ay+NRi9+dawPK/Nhnj8aZ2UAO0MgTVZKDd5xkB6lwiXm7XhBjRwMHKZ8D/TXWef0
                4GVbnjzU2QGl/vNjK8WKjAqg/299Y3s1LLvzVLOo5xvyiX2wVCYwDazekg3nxv9R
                k7TUwGVgDo/XqfPTCa6A/VT9oUWaZ7dQ20yPSoQ9AoGBAI1hgaWe8qfYtTNHejW9
                wYAEvo1b0XIWVdl2ueZzebGfdFk4Vl6WpiSfHpCVkePWhStrMlihD0Z0eZ3vw7hC
                po0xKPXRfVUHTyqgDIpcPIT2Mqa5nt53CLmcNU7iJldhctySvR+LzHnY36b9189T
                B5aUfK12OOUj38u88WoL0aj6
                -----END PRIVATE KEY-----
                """)
    ),
]

extension TLSKeyPair {
    /// The certificate and the key of one text.
    init(pem: String) { self.init(chain: Array(pem.utf8), key: Array(pem.utf8)) }
}

/// An authority that another one has signed, until the first second of 2030.
let intermediateUntil2030 = (
    end: Int64(1_893_456_000),
    pem: """
    -----BEGIN CERTIFICATE-----
    MIIBcjCCARigAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlNb29uIFJv
    b3QwHhcNMjYwMTAxMDAwMDAwWhcNMzAwMTAxMDAwMDAwWjAcMRowGAYDVQQDDBFN
    b29uIEludGVybWVkaWF0ZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJoKahUM
    y6+SP2mTpky9rMQPkpTT4Lo5G3vLNhqwgtvmFEVCjlSyiDh7NdP/reERSxK8+6NG
    PAIHjjgTDm36dzWjUzBRMA8GA1UdEwEB/wQFMAMBAf8wHQYDVR0OBBYEFOeVgQuZ
    apK6+4g+h3fXc0GiLFXVMB8GA1UdIwQYMBaAFHDp74hHl/oEUH+fPYCbi/h9K1CI
    MAoGCCqGSM49BAMCA0gAMEUCIQC6p+poLtStxBs/pHLK/IRy9hREiTGZqjncyzUP
    lcvbIgIgBT+F3mP5FiMZ2gOGugCj8U5DY5wBVZxmytKJ72T35Fo=
    -----END CERTIFICATE-----

    """
)
