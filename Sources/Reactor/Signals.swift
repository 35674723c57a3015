// Signals as values: waited for on a thread of the process, never handled inside a handler.
internal import CLinux
internal import Glibc

package enum Signal: Equatable, Sendable {
    case terminate
    case interrupt
    case hangup

    private var number: Int32 {
        switch self {
        case .terminate: SIGTERM
        case .interrupt: SIGINT
        case .hangup: SIGHUP
        }
    }

    private static func set(of signals: [Signal]) -> sigset_t {
        var set = sigset_t()
        unsafe sigemptyset(&set)
        for signal in signals { unsafe sigaddset(&set, signal.number) }
        return set
    }

    /// Keeps these signals from their default action, in the calling thread and in all that it starts later. To be
    /// called by the main thread before it starts any other.
    package static func block(_ signals: [Signal]) {
        var set = set(of: signals)
        unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
    }

    /// Waits for the next of these signals (which must be blocked).
    package static func wait(for signals: [Signal]) -> Signal {
        var set = set(of: signals)
        while true {
            var number: Int32 = 0
            if unsafe sigwait(&set, &number) == 0, let signal = signals.first(where: { $0.number == number }) {
                return signal
            }
        }
    }
}
