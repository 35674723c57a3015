// What goes wrong on the way to the API server, in words that say what to do: the libraries' own name lines of their source.

import NIOCore
import NIOPosix
import NIOSSL
import SystemPackage

enum TransportText {
    static func reason(_ code: CInt) -> String { "\(Errno(rawValue: code))" }

    static func error(_ error: NIOConnectionError) -> APIError {
        guard let first = error.connectionErrors.first else {
            return APIError(
                .unreachable, "\(error.host) has no address", mend: "see that the name is right, and known from here")
        }
        let why = (first.error as? IOError).map { reason($0.errnoCode) } ?? "\(first.error)"
        return APIError(.unreachable, "\(error.host):\(error.port): \(why)")
    }

    static var wrongName: APIError {
        APIError(
            .unreachable, "the API server's certificate is for other names than that of its address",
            mend: "reach it by a name that stands in its certificate, or give that name as tls-server-name")
    }

    static func error(_ error: NIOSSLError) -> APIError {
        guard case .handshakeFailed(let cause) = error else {
            return APIError(.unreachable, "the TLS connection broke off (\(error))")
        }
        let stack: NIOBoringSSLErrorStack =
            switch cause {
            case .sslError(let stack), .unknownError(let stack), .invalidSNIName(let stack),
                .failedToSetALPN(let stack):
                stack
            case .noError, .zeroReturn, .wantRead, .wantWrite, .wantConnect, .wantAccept, .wantX509Lookup,
                .wantCertificateVerify, .syscallError:
                []
            }
        let word = stack.lazy.compactMap { Self.word(of: $0.description) }.first
        switch word {
        case "CERTIFICATE_VERIFY_FAILED":
            return APIError(
                .unreachable, "the API server's certificate is of no authority that is trusted, or is not valid now",
                mend:
                    "give the CA that has signed it: certificate-authority of the kubeconfig, ca.crt of the service account"
            )
        case "WRONG_VERSION_NUMBER":
            return APIError(
                .unreachable, "the API server does not speak TLS at this address", mend: "see that the port is right")
        case let word? where word.contains("ALERT"):
            return APIError(
                .unreachable, "the API server ended the TLS handshake (\(word))",
                mend: "see that the client certificate is one of its client CA, and has not expired")
        case let word?: return APIError(.unreachable, "the TLS handshake failed (\(word))")
        case nil: return APIError(.unreachable, "the TLS handshake was cut off")
        }
    }

    /// `CERTIFICATE_VERIFY_FAILED` of `…:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED at …/handshake.cc:297`.
    static func word(of text: String) -> String? {
        text.split(whereSeparator: { $0 == ":" || $0 == " " }).first { part in
            part.utf8.count > 5 && part.contains("_")
                && part.utf8.allSatisfy { (65...90).contains($0) || (48...57).contains($0) || $0 == UInt8(ascii: "_") }
        }.map(String.init)
    }
}
