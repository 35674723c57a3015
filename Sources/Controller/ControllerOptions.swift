// What the operator decides about the loop against a cluster.

package import IngressTranslation
package import KubernetesAPI
package import KubernetesClient

/// Where Ingresses are said to be reached.
package enum StatusSource: Sendable, Hashable {
    /// Nothing is written into any status.
    case none
    /// `--publish-status-address`.
    case addresses([LoadBalancerIngress])
    /// `--publish-service`.
    case service(ObjectName)
    /// The nodes that pods like this one run on (hostNetwork).
    case nodes(pod: ObjectName)

    /// An IP address or a host name, as the operator wrote it.
    package static func address(_ text: String, isIP: Bool) -> LoadBalancerIngress {
        isIP ? LoadBalancerIngress(ip: text) : LoadBalancerIngress(hostname: text)
    }
}

/// How much of a kind is watched.
package enum WatchBreadth: Sendable, Hashable {
    /// Single objects, as Ingresses refer to them.
    case referenced
    /// All of the watched namespaces: fewer watches, wider permissions.
    case namespaces
}

package struct ControllerOptions: Sendable {
    package var translation = TranslationOptions()
    /// `--watch-namespace`; empty is the whole cluster, and IngressClasses.
    package var namespaces: [String] = []
    package var secrets = WatchBreadth.referenced
    package var configMaps = WatchBreadth.referenced
    /// Watched besides those that Ingresses refer to (`--default-tls-secret`).
    package var extra = ObjectReferences()
    package var status = StatusSource.none
    /// The node that we run on, which knows our zone; nil where it is not known, or the operator has said the zone.
    package var node: String?
    /// The Lease by which replicas agree who writes; nil writes nothing.
    package var lease: ObjectName?
    package var election = ElectionMachine.Terms()
    /// Unique to this replica: the pod's name.
    package var identity = "moongate"
    package var holdOff = HoldOff.Terms()
    package var events = EventLedger.Terms()
    package var pageSize = 500
    /// How long a new reference may hold a change back while its object is fetched.
    package var referenceWait = Duration.seconds(1)
    /// The same before anything is served: what a replica serves first should be all that it can have.
    package var firstReferenceWait = Duration.seconds(30)
    package var references = ReferenceLimit()
    /// Descriptors that watches on single objects may take.
    package var referenceDescriptors: Int {
        secrets == .namespaces && configMaps == .namespaces ? 0 : references.total
    }
    /// How long the API server may be silent before a log line says so.
    package var outageNotice = Duration.seconds(5)
    /// How long a kind may be in trouble before a diagnostic says so.
    package var troubleNotice = Duration.seconds(60)

    package init() {}
}
