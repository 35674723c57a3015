// The two fields by which a rule catches requests. What cannot match any request, or could be read in two ways, is refused
// (SECURITY.md, config injection): nothing of it reaches the snapshot.

internal import KubernetesAPI
internal import Model

/// Why a field cannot be used, in words that follow its value.
struct FieldProblem: Error, Equatable {
    var problem: String
    var mend: String
}

enum HostSyntax {
    /// A rule's host (Kubernetes API: IngressRule.host): missing or empty for any; a DNS name; or `*.` and a DNS name.
    static func pattern(_ text: String?) throws(FieldProblem) -> HostPattern {
        guard let text, !text.isEmpty else { return .any }
        if text.hasPrefix("*.") { return .wildcard(try name(text.dropFirst(2))) }
        if text.utf8.contains(UInt8(ascii: "*")) {
            throw FieldProblem(
                problem: "a star may only stand for the whole first label", mend: "write \"*.\" and a DNS name")
        }
        let host = try name(text[...])
        if IPAddress(host) != nil {
            throw FieldProblem(
                problem: "an address is no host name (Kubernetes refuses it too)",
                mend: "leave the host out, or name a DNS name")
        }
        return .exact(host)
    }

    /// A DNS name in lower case, without the dot of the root at its end.
    static func name(_ text: Substring) throws(FieldProblem) -> String {
        let mend = "write a DNS name: labels of letters, digits and hyphens between dots, without port or path"
        var bytes = Array(text.utf8)
        if bytes.last == UInt8(ascii: ".") { bytes.removeLast() }
        guard !bytes.isEmpty, bytes.count <= 253 else {
            throw FieldProblem(problem: "it is empty or longer than 253 characters", mend: mend)
        }
        var labelStart = 0
        for index in 0...bytes.count {
            if index == bytes.count || bytes[index] == UInt8(ascii: ".") {
                let label = bytes[labelStart..<index]
                guard (1...63).contains(label.count), label.first != UInt8(ascii: "-"), label.last != UInt8(ascii: "-")
                else {
                    throw FieldProblem(
                        problem: "a label is empty, too long, or begins or ends with a hyphen", mend: mend)
                }
                labelStart = index + 1
                continue
            }
            switch bytes[index] {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"): bytes[index] |= 0x20
            // The underscore is not in a host name by RFC 952, but in the names of real hosts.
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"),
                UInt8(ascii: "_"):
                break
            default:
                throw FieldProblem(problem: "it has a character that no host name has", mend: mend)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

enum PathSyntax {
    /// Longer than any request target that is taken in (SECURITY.md: 8 KiB).
    static let longest = 4_096

    /// A rule's path and type. Missing means `/`; ImplementationSpecific, and a missing type, mean Prefix.
    static func pattern(_ path: String?, _ type: PathType?) throws(FieldProblem) -> PathPattern {
        let text = path.flatMap { $0.isEmpty ? nil : $0 } ?? "/"
        let bytes = Array(text.utf8)
        guard bytes.first == UInt8(ascii: "/") else {
            throw FieldProblem(problem: "it does not begin with \"/\"", mend: "write an absolute path")
        }
        guard bytes.count <= longest else {
            throw FieldProblem(
                problem: "it has \(bytes.count) bytes; no path of a request is that long",
                mend: "write at most \(longest) bytes")
        }
        for byte in bytes {
            switch byte {
            case 0...0x20, 0x7f:
                throw FieldProblem(
                    problem: "it has a blank or a control character", mend: "write the path as it stands in a request")
            case UInt8(ascii: "?"), UInt8(ascii: "#"), UInt8(ascii: "\\"):
                throw FieldProblem(
                    problem: "it has \"\(Character(Unicode.Scalar(byte)))\", which no path has",
                    mend: "leave out the query and the fragment")
            default: continue
            }
        }
        let elements = bytes.dropFirst().split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        for (index, element) in elements.enumerated() {
            // What the proxy's canonical path never contains (SECURITY.md: one canonical path) can match nothing.
            if element.isEmpty, index < elements.count - 1 {
                throw FieldProblem(problem: "it has \"//\", which no canonical path has", mend: "write one slash")
            }
            if element.elementsEqual(".".utf8) || element.elementsEqual("..".utf8) {
                throw FieldProblem(problem: "it has a dot segment, which no canonical path has", mend: "resolve it")
            }
        }
        if let bad = badEscape(bytes) { throw bad }
        let canonical = try canonical(bytes)
        return type == .exact ? .exact(canonical) : .prefix(canonical)
    }

    /// The spelling that requests are matched in (`CanonicalPath`); what is beyond ASCII is written as a client has to
    /// write it.
    private static func canonical(_ bytes: [UInt8]) throws(FieldProblem) -> String {
        var spelt: [UInt8] = []
        spelt.reserveCapacity(bytes.count)
        for byte in bytes {
            if byte < 0x80 {
                spelt.append(byte)
            } else {
                spelt += [UInt8(ascii: "%"), upperHexDigit(byte >> 4), upperHexDigit(byte & 15)]
            }
        }
        var canonical: [UInt8] = []
        do throws(CanonicalPath.Refusal) {
            if try CanonicalPath.normalise(spelt.span, into: &canonical) { canonical = spelt }
        } catch {
            throw FieldProblem(problem: error.message, mend: "write the path as it stands in a request")
        }
        return String(decoding: canonical, as: UTF8.self)
    }

    private static func badEscape(_ bytes: [UInt8]) -> FieldProblem? {
        for index in bytes.indices where bytes[index] == UInt8(ascii: "%") {
            guard index + 2 < bytes.count, let high = hexDigit(bytes[index + 1]), let low = hexDigit(bytes[index + 2])
            else {
                return FieldProblem(
                    problem: "\"%\" is not followed by two hexadecimal digits", mend: "write %25 for \"%\"")
            }
            switch high << 4 | low {
            case 0x00, UInt8(ascii: "/"), UInt8(ascii: "\\"):
                return FieldProblem(
                    problem: "it has an encoded slash, backslash or NUL, which requests may not have",
                    mend: "write the path without it")
            default: continue
            }
        }
        return nil
    }
}
