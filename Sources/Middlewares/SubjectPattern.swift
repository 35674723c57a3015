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

    /// Whether it is found in the text, a name as RFC 2253 writes it, and there where an attribute begins: what its owner
    /// wrote into the value of another, `O=CN=alice`, is none. What would take too long is not found, nor what stands behind
    /// more attributes than subjects have.
    package func isFound(in text: borrowing [UInt8]) -> Bool {
        pattern.withLock { pattern in
            var start = 0
            for _ in 0..<Self.mostAttributes {
                guard let isHere = try? pattern.test(text.span, at: start) else { return false }
                if isHere { return true }
                guard let next = Self.attribute(after: start, in: text.span) else { return false }
                start = next
            }
            return false
        }
    }

    private static let mostAttributes = 64

    /// Where the next attribute begins: behind a comma, or a plus sign, that no backslash makes a part of a value (§2.4).
    private static func attribute(after start: Int, in text: Span<UInt8>) -> Int? {
        var i = start
        while i < text.count {
            switch text[i] {
            case UInt8(ascii: "\\"): i += 2
            case UInt8(ascii: ","), UInt8(ascii: "+"): return i + 1
            default: i += 1
            }
        }
        return nil
    }
}
