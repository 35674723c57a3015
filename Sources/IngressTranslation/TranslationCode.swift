// The codes of this room's diagnostics, in one table from which the documentation prints its page.

package import Model

package enum TranslationCode: String, CaseIterable, Sendable {
    case otherClass = "MG120"
    case noClass = "MG121"
    case badHost = "MG122"
    case badPath = "MG123"
    case pathConflict = "MG124"
    case sharedHost = "MG125"
    case hostTaken = "MG126"
    case noRules = "MG127"
    case badBackend = "MG128"
    case noPaths = "MG129"
    case noService = "MG130"
    case noPort = "MG131"
    case noEndpoints = "MG132"
    case targetPort = "MG133"
    case badEndpoint = "MG134"
    case badExternalName = "MG135"
    case balanceConflict = "MG136"
    case unknownAnnotation = "MG140"
    case badAnnotation = "MG141"
    case foreignAnnotations = "MG143"
    case foreignGuards = "MG144"
    case badScripts = "MG150"
    case unknownScript = "MG151"
    case scriptNotGranted = "MG152"
    case scriptTooLarge = "MG153"
    case inlineForbidden = "MG154"
    case scriptPath = "MG155"
    case shadowNotYet = "MG156"
    case noScripts = "MG157"
    case noSecret = "MG160"
    case badSecretName = "MG161"
    case emptySecret = "MG162"
    case foreignTLS = "MG167"
    case badStatusSource = "MG170"
    case badDefaultBackend = "MG171"
    case badClientSecret = "MG172"
    case noClientSecret = "MG173"
    case noAuthorities = "MG174"
    case badClientAnnotation = "MG175"
    case clientRulesConflict = "MG176"
    case foreignClientRules = "MG177"
    case idleClientRules = "MG178"
    case plainClientRules = "MG179"
    case noPortServices = "MG200"
    case badPortService = "MG201"
    case noPortBackend = "MG202"
    case proxyWithoutTrust = "MG203"
    case udpProxyProtocol = "MG204"
    case passthroughOff = "MG205"
    case passthroughPath = "MG206"
    case proxyHeaderHTTP2 = "MG207"
    case noFastCGI = "MG183"
    case badBackendSecret = "MG184"
    case systemAuthorities = "MG185"
    case idleBackendTLS = "MG186"
    case unknownHost = "MG190"
    case emptyRevocations = "MG191"

    package var name: String {
        switch self {
        case .otherClass: "other-class"
        case .noClass: "no-class"
        case .badHost: "bad-host"
        case .badPath: "bad-path"
        case .pathConflict: "path-conflict"
        case .sharedHost: "shared-host"
        case .hostTaken: "host-taken"
        case .noRules: "no-rules"
        case .badBackend: "bad-backend"
        case .noPaths: "no-paths"
        case .noService: "no-service"
        case .noPort: "no-port"
        case .noEndpoints: "no-endpoints"
        case .targetPort: "target-port"
        case .badEndpoint: "bad-endpoint"
        case .badExternalName: "bad-external-name"
        case .balanceConflict: "balance-conflict"
        case .unknownAnnotation: "unknown-annotation"
        case .badAnnotation: "bad-annotation"
        case .foreignAnnotations: "foreign-annotations"
        case .foreignGuards: "foreign-guards"
        case .badScripts: "bad-scripts"
        case .unknownScript: "unknown-script"
        case .scriptNotGranted: "script-not-granted"
        case .scriptTooLarge: "script-too-large"
        case .inlineForbidden: "inline-forbidden"
        case .scriptPath: "script-path"
        case .shadowNotYet: "shadow-not-yet"
        case .noScripts: "no-scripts"
        case .noSecret: "no-secret"
        case .badSecretName: "bad-secret-name"
        case .emptySecret: "no-certificate"
        case .foreignTLS: "foreign-tls"
        case .badStatusSource: "bad-status-source"
        case .badDefaultBackend: "bad-default-backend"
        case .badClientSecret: "bad-client-secret"
        case .noClientSecret: "no-client-secret"
        case .noAuthorities: "no-authorities"
        case .badClientAnnotation: "bad-client-annotation"
        case .clientRulesConflict: "client-rules-conflict"
        case .foreignClientRules: "foreign-client-rules"
        case .idleClientRules: "idle-client-rules"
        case .plainClientRules: "plain-client-rules"
        case .noPortServices: "no-tcp-services"
        case .badPortService: "bad-tcp-service"
        case .noPortBackend: "no-tcp-backend"
        case .proxyWithoutTrust: "proxy-without-trust"
        case .udpProxyProtocol: "udp-proxy-protocol"
        case .passthroughOff: "passthrough-off"
        case .passthroughPath: "passthrough-path"
        case .proxyHeaderHTTP2: "proxy-header-http2"
        case .noFastCGI: "no-fastcgi"
        case .badBackendSecret: "bad-backend-secret"
        case .systemAuthorities: "system-authorities"
        case .idleBackendTLS: "idle-backend-tls"
        case .unknownHost: "unknown-host"
        case .emptyRevocations: "empty-revocations"
        }
    }

    package var severity: Severity {
        switch self {
        case .badHost, .badPath, .pathConflict, .hostTaken, .badBackend, .noService, .noPort, .badScripts,
            .unknownScript, .scriptNotGranted, .scriptTooLarge, .inlineForbidden, .badSecretName, .badDefaultBackend,
            .badExternalName, .noFastCGI, .badBackendSecret, .badClientSecret, .noClientSecret, .noAuthorities,
            .badClientAnnotation, .foreignClientRules, .idleClientRules:
            .error
        case .sharedHost, .noRules, .noPaths, .noEndpoints, .targetPort, .badEndpoint, .balanceConflict,
            .unknownAnnotation,
            .badAnnotation, .foreignGuards, .scriptPath, .shadowNotYet, .noScripts, .noSecret, .emptySecret,
            .foreignTLS,
            .badStatusSource, .idleBackendTLS, .clientRulesConflict, .plainClientRules, .unknownHost, .emptyRevocations:
            .warning
        case .noPortServices, .proxyWithoutTrust, .udpProxyProtocol, .passthroughOff, .passthroughPath: .warning
        case .badPortService, .noPortBackend, .proxyHeaderHTTP2: .error
        case .otherClass, .noClass, .foreignAnnotations, .systemAuthorities: .note
        }
    }

    /// What the finding means, for the documentation.
    package var meaning: String {
        switch self {
        case .otherClass: "The Ingress names a class that belongs to another controller, so it is not served."
        case .noClass: "The Ingress names no class, and no default class is ours, so it is not served."
        case .badHost: "A rule's host is no DNS name or wildcard; the rule is not served."
        case .badPath: "A path cannot match any request; it is not served."
        case .pathConflict:
            "An Ingress that comes first (by age, then by name) has the same host and path; it keeps it."
        case .sharedHost: "Ingresses of several namespaces have rules for one host."
        case .hostTaken: "The host belongs to the namespace of an Ingress that comes first, and hosts are not shared."
        case .noRules: "The Ingress has neither rules nor a default backend."
        case .noPaths: "A rule of an Ingress has no paths: it routes nothing of its own."
        case .badBackend: "A backend is no Service with a port."
        case .noService: "A backend's Service does not exist; its path answers 503."
        case .noPort: "A backend's Service has no such port; its path answers 503."
        case .noEndpoints: "A Service has no endpoint that is ready; its paths answer 503."
        case .targetPort: "A backend names a Service's target port instead of its port; it is served all the same."
        case .badEndpoint: "An endpoint's address or port cannot be used."
        case .badExternalName: "An ExternalName cannot be used; its paths answer 503."
        case .balanceConflict:
            "Two Ingresses ask for different load balancing of one Service port; the first one has it."
        case .unknownAnnotation: "An annotation under moongate.dev/ that does not exist."
        case .badAnnotation: "An annotation's value cannot be read; the default applies, or what is strictest."
        case .foreignAnnotations: "Annotations of ingress-nginx that are not acted on."
        case .foreignGuards:
            "Annotations of ingress-nginx that keep requests out, and are not acted on: its paths are open."
        case .badScripts: "The scripts of an Ingress cannot be read; the last good ones stay, or its paths answer 503."
        case .unknownScript: "A script does not exist; its last good version stays."
        case .scriptNotGranted: "A script of another namespace that has not been granted to this one."
        case .scriptTooLarge: "A script's source is larger than 256 KiB."
        case .inlineForbidden: "Scripts in annotations are forbidden by the operator."
        case .scriptPath: "A script is attached to a path that its Ingress does not have."
        case .shadowNotYet: "A second version to be run beside a script is named, but not run yet."
        case .noScripts: "An annotation of scripts is empty: no script runs."
        case .noSecret: "A Secret named by spec.tls does not exist."
        case .badSecretName: "A Secret's name is none; Secrets of other namespaces cannot be named."
        case .emptySecret:
            "A Secret named by spec.tls has no certificate or no key in it; the last good one stays, or the default serves."
        case .foreignTLS:
            "A host of another namespace has spec.tls only here, or here first: this Ingress decides about its certificate."
        case .badStatusSource: "The Service whose address is published does not exist or has no address."
        case .badDefaultBackend: "The operator's default backend does not exist."
        case .badClientSecret:
            "auth-tls-secret is no Secret of the Ingress's own namespace, written namespace/name; its hosts answer 403."
        case .noClientSecret: "The Secret named by auth-tls-secret does not exist; the hosts answer 403."
        case .noAuthorities: "The Secret named by auth-tls-secret has no ca.crt; the hosts answer 403."
        case .badClientAnnotation:
            "An annotation auth-tls-… cannot be read, and must not be left out; the hosts answer 403."
        case .clientRulesConflict:
            "Two Ingresses ask for different client certificates of one host; the first one has it."
        case .foreignClientRules:
            "An Ingress asks for client certificates of a host of another namespace; its own paths answer 403."
        case .idleClientRules: "Annotations auth-tls-… without auth-tls-secret: nobody is asked for a certificate."
        case .plainClientRules:
            "A host lets nobody through without a client certificate, but serves plain HTTP, where nobody can be asked for one."
        case .noPortServices: "The ConfigMap of TCP or UDP services does not exist."
        case .badPortService: "An entry of the ConfigMap of TCP or UDP services cannot be read; it is not served."
        case .noPortBackend: "The Service of a TCP or UDP service, or its port, does not exist; it is not served."
        case .udpProxyProtocol: "A UDP service asks for PROXY protocol headers; it is served without them."
        case .proxyWithoutTrust: "A TCP service is to believe PROXY protocol headers, but no proxy is trusted."
        case .passthroughOff: "An Ingress asks for TLS passthrough, which the operator has not turned on."
        case .passthroughPath:
            "A host with TLS passthrough is of another namespace, or has no path / of the same Ingress; its TLS ends here."
        case .proxyHeaderHTTP2:
            "An Ingress asks for PROXY protocol headers to a backend of HTTP/2, whose connections are shared; its path answers 503."
        case .noFastCGI: "An Ingress asks for FastCGI, which is not spoken; its paths answer 503."
        case .badBackendSecret:
            "A Secret named by proxy-ssl-secret is missing, unfit or of another namespace; its paths answer 503."
        case .systemAuthorities:
            "Backends' certificates are verified without a ca.crt: the authorities of the system decide."
        case .idleBackendTLS: "TLS to backends is set up, and no backend of the Ingress speaks TLS."
        case .emptyRevocations: "The entry ca.crl of a Secret is empty: nobody counts as revoked."
        case .unknownHost: "An external name has no address that may be called; its paths answer 503."
        }
    }

    package func diagnostic(_ problem: String, at place: Place, mend: String, severity: Severity? = nil) -> Diagnostic {
        Diagnostic(severity ?? self.severity, rawValue, name, problem: problem, place: place, mend: mend)
    }
}
