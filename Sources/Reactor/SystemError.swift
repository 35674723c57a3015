// An errno as a value: what a system call refused, without a String until somebody wants to read it.
internal import CLinux
internal import Glibc

package struct SystemError: Error, Equatable, Sendable, CustomStringConvertible {
    package let code: Int32
    package let call: StaticString

    package init(code: Int32, call: StaticString) {
        self.code = code
        self.call = call
    }

    /// Takes the thread's errno: to be called directly after the failed call.
    static func last(_ call: StaticString) -> SystemError {
        SystemError(code: errno, call: call)
    }

    package static func == (a: SystemError, b: SystemError) -> Bool { a.code == b.code }

    package var description: String {
        // SAFETY: strerror answers a terminated string for every code; it is copied at once.
        let text = unsafe strerror(code).map { unsafe String(cString: $0) } ?? "error \(code)"
        return "\(call): \(text)"
    }

    /// The machine does not speak this family of addresses.
    package var isFamilyMissing: Bool { code == EAFNOSUPPORT }
    package var isRefused: Bool { code == ECONNREFUSED }
}
