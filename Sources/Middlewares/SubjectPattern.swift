// The pattern that a client certificate's subject is searched for: an Ingress wrote it, a client's text meets it, and
// neither may take the loop's time. So it is the scripts' own engine, with its limits.
internal import Model
internal import Scripting
internal import Synchronization

/// May be used by any thread. Asked once a connection.
package final class SubjectPattern: Sendable {
    package struct Problem: Error, Sendable, CustomStringConvertible {
        package var description: String
    }

    private let pattern: Mutex<Pattern>

    /// - Parameter text: PCRE2's syntax.
    package init(_ text: String) throws(Problem) {
        do throws(Pattern.Problem) {
            pattern = Mutex(try Pattern(Array(text.utf8)))
        } catch {
            throw Problem(description: "\(error.message), at \(error.offset)")
        }
    }

    /// Whether it is found in the text. What would take too long is not.
    package func isFound(in text: borrowing [UInt8]) -> Bool {
        pattern.withLock { pattern in (try? pattern.test(text.span)) ?? false }
    }
}
