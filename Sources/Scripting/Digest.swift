// `moongate.hash`: digests by OpenSSL.

import COpenSSL

package enum Digest: String, Sendable, Hashable, CaseIterable {
    case sha256
    case sha512
    case sha1
    case md5

    package var byteCount: Int {
        switch self {
        case .sha256: 32
        case .sha512: 64
        case .sha1: 20
        case .md5: 16
        }
    }

    /// Nil when the library refuses the algorithm (MD5 under a FIPS policy).
    package func hash(_ input: Span<UInt8>) -> [UInt8]? {
        var output = [UInt8](repeating: 0, count: byteCount)
        var count: UInt32 = 0
        // Proof: input and output are lent for the call; the output holds what this algorithm writes (OpenSSL:
        // EVP_Digest(3)); the algorithm objects are static data of the library.
        let good = unsafe input.withUnsafeBytes { from in
            unsafe output.withUnsafeMutableBufferPointer { to in
                let algorithm =
                    switch self {
                    case .sha256: unsafe EVP_sha256()
                    case .sha512: unsafe EVP_sha512()
                    case .sha1: unsafe EVP_sha1()
                    case .md5: unsafe EVP_md5()
                    }
                return unsafe EVP_Digest(from.baseAddress, from.count, to.baseAddress, &count, algorithm, nil)
            }
        }
        return good == 1 && Int(count) == byteCount ? output : nil
    }
}
