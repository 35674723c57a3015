/// The versions of the PROXY protocol that an upstream can be told a client's address by.
package enum ProxyProtocolVersion: String, Sendable, Hashable, CaseIterable {
    case v1
    case v2
}
