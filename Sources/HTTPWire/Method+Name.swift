package import Model

extension Method {
    /// The method of that name; names are compared with case (RFC 9110 §9.1).
    package init(_ name: Span<UInt8>) {
        switch name.count {
        case 3: self = name.equals("GET") ? .get : name.equals("PUT") ? .put : .other
        case 4: self = name.equals("HEAD") ? .head : name.equals("POST") ? .post : .other
        case 5: self = name.equals("PATCH") ? .patch : name.equals("TRACE") ? .trace : .other
        case 6: self = name.equals("DELETE") ? .delete : .other
        case 7: self = name.equals("OPTIONS") ? .options : name.equals("CONNECT") ? .connect : .other
        default: self = .other
        }
    }
}
