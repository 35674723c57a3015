// All objects known at one moment: what a folder holds, or what the stores of the watches hold. The translation reads
// this and nothing else.

/// One object of a kind that matters here.
package enum ClusterObject: Sendable, Equatable {
    case ingress(Ingress)
    case ingressClass(IngressClass)
    case service(Service)
    case endpointSlice(EndpointSlice)
    case secret(Secret)
    case configMap(ConfigMap)

    package var kind: String {
        switch self {
        case .ingress: Ingress.kind
        case .ingressClass: IngressClass.kind
        case .service: Service.kind
        case .endpointSlice: EndpointSlice.kind
        case .secret: Secret.kind
        case .configMap: ConfigMap.kind
        }
    }

    package var metadata: ObjectMeta {
        get {
            switch self {
            case .ingress(let object): object.metadata
            case .ingressClass(let object): object.metadata
            case .service(let object): object.metadata
            case .endpointSlice(let object): object.metadata
            case .secret(let object): object.metadata
            case .configMap(let object): object.metadata
            }
        }
        set {
            switch self {
            case .ingress(var object):
                object.metadata = newValue
                self = .ingress(object)
            case .ingressClass(var object):
                object.metadata = newValue
                self = .ingressClass(object)
            case .service(var object):
                object.metadata = newValue
                self = .service(object)
            case .endpointSlice(var object):
                object.metadata = newValue
                self = .endpointSlice(object)
            case .secret(var object):
                object.metadata = newValue
                self = .secret(object)
            case .configMap(var object):
                object.metadata = newValue
                self = .configMap(object)
            }
        }
    }

    package var key: ObjectKey { ObjectKey(kind: kind, name: metadata.objectName) }

    /// Kinds that live in no namespace.
    package var isClusterScoped: Bool {
        if case .ingressClass = self { return true }
        return false
    }

    /// How a document's `apiVersion` and `kind` are taken.
    package enum Recognition: Sendable, Equatable {
        case known
        /// The kind is ours, in a version that is no longer or not yet served: the one to write instead.
        case otherVersion(expected: String)
        case unknown
    }

    /// The kinds that are read.
    package static let kinds = [
        Ingress.kind, IngressClass.kind, Service.kind, EndpointSlice.kind, Secret.kind, ConfigMap.kind,
    ]

    package static func recognise(apiVersion: String, kind: String) -> Recognition {
        let expected: String
        switch kind {
        case Ingress.kind, IngressClass.kind: expected = Ingress.apiVersion
        case Service.kind, Secret.kind, ConfigMap.kind: expected = Service.apiVersion
        case EndpointSlice.kind: expected = EndpointSlice.apiVersion
        default: return .unknown
        }
        if apiVersion == expected { return .known }
        let groups: Set<String> = ["extensions", "networking.k8s.io", "discovery.k8s.io"]
        let group = apiVersion.split(separator: "/").first.map(String.init) ?? ""
        // A Service of another group (Knative's, say) is another kind of thing altogether.
        return expected == "v1" || !groups.contains(group) ? .unknown : .otherVersion(expected: expected)
    }

    /// Decodes a document whose kind was recognised.
    package static func decode(kind: String, _ value: PlacedValue) throws(FieldFault) -> ClusterObject? {
        switch kind {
        case Ingress.kind: .ingress(try value.decode(Ingress.self))
        case IngressClass.kind: .ingressClass(try value.decode(IngressClass.self))
        case Service.kind: .service(try value.decode(Service.self))
        case EndpointSlice.kind: .endpointSlice(try value.decode(EndpointSlice.self))
        case Secret.kind: .secret(try value.decode(Secret.self))
        case ConfigMap.kind: .configMap(try value.decode(ConfigMap.self))
        default: nil
        }
    }
}

package struct ObjectKey: Sendable, Hashable, Comparable {
    package var kind: String
    package var name: ObjectName

    package init(kind: String, name: ObjectName) {
        self.kind = kind
        self.name = name
    }

    package static func < (left: Self, right: Self) -> Bool { (left.kind, left.name) < (right.kind, right.name) }
}

/// Where an object was written down.
package struct ObjectOrigin: Sendable, Equatable {
    /// Relative to the folder, with `/` between the parts.
    package var file: String
    package var line: Int
    /// The document, so that a field can be found; nil for a Secret, which is not kept twice.
    package var document: PlacedValue?

    package init(file: String, line: Int, document: PlacedValue?) {
        self.file = file
        self.line = line
        self.document = document
    }

    /// The line of a field, or of the nearest of its parents that was written.
    package func line(of path: FieldPath) -> Int { document?.position(of: path).line ?? line }
}

/// A `.lua` file of the folder, or why it cannot be used.
package enum ScriptFile: Sendable, Equatable {
    case source(String)
    case refused(reason: String)
}

package struct ObjectSet: Sendable, Equatable {
    package var ingresses: [ObjectName: Ingress] = [:]
    package var ingressClasses: [String: IngressClass] = [:]
    package var services: [ObjectName: Service] = [:]
    package private(set) var endpointSlices: [ObjectName: EndpointSlice] = [:]
    /// The slices of each Service, so that its endpoints are found without a search.
    package private(set) var slicesOfService: [ObjectName: Set<ObjectName>] = [:]
    package var secrets: [ObjectName: Secret] = [:]
    package var configMaps: [ObjectName: ConfigMap] = [:]
    /// Empty for objects that come from an API server.
    package var origins: [ObjectKey: ObjectOrigin] = [:]
    /// Scripts beside the manifests, by path relative to the folder.
    package var scriptFiles: [String: ScriptFile] = [:]

    package init() {}

    package var count: Int {
        ingresses.count + ingressClasses.count + services.count + endpointSlices.count + secrets.count
            + configMaps.count
    }

    package func contains(_ key: ObjectKey) -> Bool {
        switch key.kind {
        case Ingress.kind: ingresses[key.name] != nil
        case IngressClass.kind: ingressClasses[key.name.name] != nil
        case Service.kind: services[key.name] != nil
        case EndpointSlice.kind: endpointSlices[key.name] != nil
        case Secret.kind: secrets[key.name] != nil
        case ConfigMap.kind: configMaps[key.name] != nil
        default: false
        }
    }

    /// Adds an object, or puts it in the place of the one of the same name.
    package mutating func insert(_ object: ClusterObject, origin: ObjectOrigin? = nil) {
        let name = object.metadata.objectName
        switch object {
        case .ingress(let ingress): ingresses[name] = ingress
        case .ingressClass(let ingressClass): ingressClasses[name.name] = ingressClass
        case .service(let service): services[name] = service
        case .endpointSlice(let slice): put(slice)
        case .secret(let secret): secrets[name] = secret
        case .configMap(let configMap): configMaps[name] = configMap
        }
        origins[object.key] = origin
    }

    /// Puts a slice in, and answers with the one that it replaces.
    @discardableResult
    package mutating func put(_ slice: EndpointSlice) -> EndpointSlice? {
        let name = slice.metadata.objectName
        let old = endpointSlices.updateValue(slice, forKey: name)
        guard old?.service != slice.service else { return old }
        if let service = old?.service { drop(name, of: service) }
        if let service = slice.service { slicesOfService[service, default: []].insert(name) }
        return old
    }

    @discardableResult
    package mutating func removeSlice(_ name: ObjectName) -> EndpointSlice? {
        guard let old = endpointSlices.removeValue(forKey: name) else { return nil }
        if let service = old.service { drop(name, of: service) }
        return old
    }

    private mutating func drop(_ slice: ObjectName, of service: ObjectName) {
        slicesOfService[service]?.remove(slice)
        if slicesOfService[service]?.isEmpty == true { slicesOfService[service] = nil }
    }

    package mutating func remove(_ key: ObjectKey) {
        switch key.kind {
        case Ingress.kind: ingresses[key.name] = nil
        case IngressClass.kind: ingressClasses[key.name.name] = nil
        case Service.kind: services[key.name] = nil
        case EndpointSlice.kind: removeSlice(key.name)
        case Secret.kind: secrets[key.name] = nil
        case ConfigMap.kind: configMaps[key.name] = nil
        default: break
        }
        origins[key] = nil
    }
}
