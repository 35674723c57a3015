// core/v1: Service, Secret and ConfigMap.

package struct Service: KubernetesObject {
    package static let apiVersion = "v1"
    package static let kind = "Service"

    package var metadata: ObjectMeta
    package var spec: ServiceSpec
    package var status: ServiceStatus

    private enum CodingKeys: String, CodingKey { case metadata, spec, status }

    package init(metadata: ObjectMeta, spec: ServiceSpec = ServiceSpec(), status: ServiceStatus = ServiceStatus()) {
        self.metadata = metadata
        self.spec = spec
        self.status = status
    }

    package init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        metadata = try fields.value(.metadata, or: ObjectMeta())
        spec = try fields.value(.spec, or: ServiceSpec())
        status = try fields.value(.status, or: ServiceStatus())
    }
}

package struct ServiceSpec: Codable, Sendable, Equatable {
    /// `ClusterIP` (also when missing), `NodePort`, `LoadBalancer` or `ExternalName`.
    package var type: String = "ClusterIP"
    /// `None` for a headless Service.
    package var clusterIP: String?
    package var clusterIPs: [String] = []
    package var externalIPs: [String] = []
    package var externalName: String?
    package var ports: [ServicePort] = []
    package var selector: [String: String] = [:]
    package var publishNotReadyAddresses = false
    package var trafficDistribution: String?

    package init() {}

    package init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        type = try fields.value(.type, or: "ClusterIP")
        clusterIP = try fields.value(.clusterIP)
        clusterIPs = try fields.value(.clusterIPs, or: [])
        externalIPs = try fields.value(.externalIPs, or: [])
        externalName = try fields.value(.externalName)
        ports = try fields.value(.ports, or: [])
        selector = try fields.value(.selector, or: [:])
        publishNotReadyAddresses = try fields.value(.publishNotReadyAddresses, or: false)
        trafficDistribution = try fields.value(.trafficDistribution)
    }
}

package struct ServicePort: Codable, Sendable, Equatable {
    /// Missing for the only port of a Service; then a slice's port has no name either.
    package var name: String = ""
    package var `protocol`: String = "TCP"
    package var port: Int
    package var targetPort: IntOrString?
    package var nodePort: Int?
    package var appProtocol: String?

    package init(port: Int, name: String = "", targetPort: IntOrString? = nil, appProtocol: String? = nil) {
        self.port = port
        self.name = name
        self.targetPort = targetPort
        self.appProtocol = appProtocol
    }

    package init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        name = try fields.value(.name, or: "")
        `protocol` = try fields.value(.protocol, or: "TCP")
        port = try fields.decode(Int.self, forKey: .port)
        targetPort = try fields.value(.targetPort)
        nodePort = try fields.value(.nodePort)
        appProtocol = try fields.value(.appProtocol)
    }
}

package struct ServiceStatus: Codable, Sendable, Equatable {
    package var loadBalancer: LoadBalancerStatus

    package init(loadBalancer: LoadBalancerStatus = LoadBalancerStatus()) { self.loadBalancer = loadBalancer }

    package init(from decoder: any Decoder) throws {
        loadBalancer = try decoder.container(keyedBy: CodingKeys.self).value(.loadBalancer, or: LoadBalancerStatus())
    }
}

package struct ConfigMap: KubernetesObject {
    package static let apiVersion = "v1"
    package static let kind = "ConfigMap"

    package var metadata: ObjectMeta
    package var data: [String: String]
    package var binaryData: [String: Base64]

    private enum CodingKeys: String, CodingKey { case metadata, data, binaryData }

    package init(metadata: ObjectMeta, data: [String: String], binaryData: [String: Base64] = [:]) {
        self.metadata = metadata
        self.data = data
        self.binaryData = binaryData
    }

    package init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        metadata = try fields.value(.metadata, or: ObjectMeta())
        data = try fields.value(.data, or: [:])
        binaryData = try fields.value(.binaryData, or: [:])
    }
}

/// Prints without its contents: a Secret in a log line is a leak.
package struct Secret: KubernetesObject, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    package static let apiVersion = "v1"
    package static let kind = "Secret"

    package var metadata: ObjectMeta
    package var type: String
    package var data: [String: Base64]
    /// Written by people, merged into `data` by the API server; a folder of manifests has it as it was written.
    package var stringData: [String: String]

    private enum CodingKeys: String, CodingKey { case metadata, type, data, stringData }

    package init(metadata: ObjectMeta, type: String = "Opaque", data: [String: Base64] = [:]) {
        self.metadata = metadata
        self.type = type
        self.data = data
        stringData = [:]
    }

    package init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        metadata = try fields.value(.metadata, or: ObjectMeta())
        type = try fields.value(.type, or: "Opaque")
        data = try fields.value(.data, or: [:])
        stringData = try fields.value(.stringData, or: [:])
    }

    /// The bytes under a key; `stringData` goes first, as in the API server.
    package func bytes(_ key: String) -> [UInt8]? {
        stringData[key].map { Array($0.utf8) } ?? data[key]?.bytes
    }

    package var description: String {
        "Secret \(metadata.objectName) (\(Set(data.keys).union(stringData.keys).count) keys)"
    }
    package var debugDescription: String { description }
    package var customMirror: Mirror { Mirror(self, children: ["name": "\(metadata.objectName)"]) }
}

/// Bytes that travel as base64 text (RFC 4648 §4).
package struct Base64: Codable, Sendable, Hashable {
    package var bytes: [UInt8]

    package init(_ bytes: [UInt8]) { self.bytes = bytes }

    /// Refuses characters outside the alphabet but line breaks, which people's tools put in, and wrong padding.
    package init?(text: String) {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.utf8.count / 4 * 3)
        var group: UInt32 = 0
        var count = 0
        var padding = 0
        for byte in text.utf8 where byte != 0x0a && byte != 0x0d {
            let digit: UInt32
            switch byte {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"): digit = UInt32(byte - UInt8(ascii: "A"))
            case UInt8(ascii: "a")...UInt8(ascii: "z"): digit = UInt32(byte - UInt8(ascii: "a")) + 26
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = UInt32(byte - UInt8(ascii: "0")) + 52
            case UInt8(ascii: "+"): digit = 62
            case UInt8(ascii: "/"): digit = 63
            case UInt8(ascii: "="):
                padding += 1
                guard count % 4 >= 2 || padding == 2, padding <= 2 else { return nil }
                digit = 0
            default: return nil
            }
            guard padding == 0 || byte == UInt8(ascii: "=") else { return nil }
            group = group << 6 | digit
            count += 1
            if count % 4 == 0 {
                bytes.append(UInt8(truncatingIfNeeded: group >> 16))
                if padding < 2 { bytes.append(UInt8(truncatingIfNeeded: group >> 8)) }
                if padding < 1 { bytes.append(UInt8(truncatingIfNeeded: group)) }
                group = 0
            }
        }
        guard count % 4 == 0 else { return nil }
        self.bytes = bytes
    }

    package var text: String {
        let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
        var text: [UInt8] = []
        text.reserveCapacity((bytes.count + 2) / 3 * 4)
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let count = min(3, bytes.count - start)
            var group: UInt32 = 0
            for index in 0..<3 { group = group << 8 | (index < count ? UInt32(bytes[start + index]) : 0) }
            for index in 0..<4 {
                text.append(index <= count ? alphabet[Int(group >> (18 - 6 * UInt32(index)) & 63)] : UInt8(ascii: "="))
            }
        }
        return String(decoding: text, as: UTF8.self)
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        guard let value = Base64(text: try container.decode(String.self)) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "is not base64")
        }
        self = value
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(text)
    }
}
