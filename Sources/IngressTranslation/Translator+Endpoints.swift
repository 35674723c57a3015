// The short road of a configuration change: only endpoints changed, so routes and scripts stand as they are.

package import KubernetesAPI
package import Model

extension Translator {
    /// An upstream with the endpoints that these objects give it (its Service, and that Service's slices, are enough), and
    /// what is to be said of them; nil when the Service or the port is gone, which is no change of endpoints. By the same
    /// code as the long road, so both always agree.
    package static func refreshed(
        _ upstream: Upstream, isInRule: Bool, from objects: ObjectSet, options: TranslationOptions
    ) -> (upstream: Upstream, diagnostics: [Diagnostic])? {
        var services = ServiceResolver(objects, options: options, places: Places(objects: objects))
        let name = ServicePortName(
            service: ObjectName(namespace: upstream.namespace, name: upstream.service), port: upstream.port)
        let resolution =
            upstream.isForDatagrams ? services.resolveDatagrams(name) : services.resolve(name, isInRule: isInRule)
        guard case .upstream(let index) = resolution else { return nil }
        var refreshed = upstream
        refreshed.endpoints = upstream.isUnspeakable ? [] : services.upstreams[index].endpoints
        return (refreshed, services.diagnostics)
    }
}
