// How many files and sockets the process may hold at once (getrlimit(2), RLIMIT_NOFILE).
internal import CLinux
internal import Glibc

package enum Descriptors {
    /// Raises the soft limit to the hard one, as a server does, and answers what holds from then on.
    package static func raiseLimit() -> Int { Int(clamping: moongate_raise_descriptor_limit()) }

    /// Whether a call failed for want of descriptors.
    package static func isTableFull(_ code: Int32) -> Bool { code == EMFILE || code == ENFILE }

    /// Whether a call failed for want of something of ours (descriptors, memory, ports), and through no fault of the
    /// peer's.
    package static func isExhaustion(_ code: Int32) -> Bool {
        switch code {
        case EMFILE, ENFILE, ENOBUFS, ENOMEM, EADDRNOTAVAIL, EAGAIN: true
        default: false
        }
    }
}
