// What the operator decides, and what comes with the binary: everything else is in the objects.

package import KubernetesAPI

package struct TranslationOptions: Sendable, Equatable {
    /// `--ingress-class`: the value of the old annotation, and the name of the class where no IngressClass says more.
    package var ingressClass = "moongate"
    /// `--controller-name`: IngressClasses with this controller are ours.
    package var controllerName = "moongate.dev/ingress-controller"
    package var watchIngressWithoutClass = false
    /// `--watch-namespace`: only these; empty means all.
    package var namespaces: Set<String> = []
    /// `--default-backend`: where a request goes that no rule matches.
    package var defaultBackend: ServicePortName?
    /// `--default-tls-secret`: for names that no Ingress has a certificate for.
    package var defaultCertificate: ObjectName?
    /// `--ticket-keys-secret`: what session tickets are sealed with.
    package var ticketKeys: ObjectName?
    /// `--ssl-redirect`: plain HTTP is redirected where the host has a certificate, unless the Ingress says otherwise.
    package var redirectsToHTTPS = true
    /// `--tcp-services-configmap`: the ports whose bytes go to a Service as they are.
    package var tcpServices: ObjectName?
    /// `--udp-services-configmap`: the ports whose datagrams go to a Service.
    package var udpServices: ObjectName?
    /// `--trusted-proxies` names somebody: only then can a TCP service believe a PROXY protocol header.
    package var trustsProxies = false
    /// `--enable-ssl-passthrough`.
    package var allowsPassthrough = false
    package var allowsInlineScripts = true
    /// Hosts belong to the namespace of the oldest Ingress that names them; rules of others are refused. Off: rules of
    /// all namespaces merge, and the younger ones get a warning.
    package var hostsAreExclusive = false
    /// Backends at loopback addresses may be named by ExternalName. In a cluster they must not: behind 127.0.0.1 there
    /// are the proxy's own ports.
    package var allowsLoopbackNames = true
    /// `--zone`: where this proxy runs, for endpoints that say for which zones they are.
    package var zone: String?
    /// `--annotations-prefix`: of the ingress-nginx annotations.
    package var foreignPrefix = "nginx.ingress.kubernetes.io"
    /// `--publish-status-address`, or the addresses of the nodes.
    package var statusAddresses: [LoadBalancerIngress] = []
    /// `--publish-service`; used when there are no `statusAddresses`.
    package var publishService: ObjectName?
    package var catalog = ScriptCatalog()

    package init() {}
}

/// A port of a Service, by number or by name.
package struct ServicePortName: Sendable, Hashable, CustomStringConvertible {
    package var service: ObjectName
    package var port: String

    package init(service: ObjectName, port: String) {
        self.service = service
        self.port = port
    }

    /// Reads `namespace/service:port`.
    package init?(_ text: String) {
        let slash = text.split(separator: "/", omittingEmptySubsequences: false)
        guard slash.count == 2, !slash[0].isEmpty else { return nil }
        let colon = slash[1].split(separator: ":", omittingEmptySubsequences: false)
        guard colon.count == 2, !colon[0].isEmpty, !colon[1].isEmpty else { return nil }
        self.init(
            service: ObjectName(namespace: String(slash[0]), name: String(colon[0])), port: String(colon[1]))
    }

    package var description: String { "\(service):\(port)" }
}

/// The bundled plugins, by name (`header-canary` for `plugin/header-canary`).
package struct ScriptCatalog: Sendable, Equatable {
    package struct Plugin: Sendable, Equatable {
        package var main: String
        /// By the name under which `require` finds them.
        package var modules: [String: String]

        package init(main: String, modules: [String: String] = [:]) {
            self.main = main
            self.modules = modules
        }
    }

    package var plugins: [String: Plugin]

    package init(plugins: [String: Plugin] = [:]) { self.plugins = plugins }
}
