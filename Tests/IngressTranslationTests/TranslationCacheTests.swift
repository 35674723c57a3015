// A translation that uses again what did not change says exactly what one from scratch says.

import IngressTranslation
import KubernetesAPI
import Model
import Testing

struct TranslationCacheTests {
    private struct Random: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state &+= 0x9e37_79b9_7f4a_7c15
            var z = state
            z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
            z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
            return z ^ (z >> 31)
        }
    }

    /// A small world in which nearly everything meets everything else.
    private struct World {
        var random: Random
        var objects = ObjectSet()
        var options = TranslationOptions()

        private mutating func pick<T>(_ items: [T]) -> T { items[Int.random(in: 0..<items.count, using: &random)] }
        private mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }
        private mutating func namespace() -> String { pick(["shop", "shop", "blog"]) }

        mutating func change() {
            switch Int.random(in: 0..<100, using: &random) {
            case 0..<40: putIngress()
            case 40..<50: objects.ingresses[pick(Array(objects.ingresses.keys.sorted()) + [name("i", 12)])] = nil
            case 50..<62: putService()
            case 62..<66: objects.services[name("s", 6)] = nil
            case 66..<80: putSlice()
            case 80..<84: objects.removeSlice(name("e", 8))
            case 84..<88: putSecret()
            case 88..<90: objects.secrets[name("t", 3)] = nil
            case 90..<94: putConfigMap()
            case 94..<95: objects.configMaps[name("c", 2)] = nil
            case 95..<97: putClass()
            default: turnOption()
            }
        }

        private mutating func name(_ letter: String, _ count: Int) -> ObjectName {
            ObjectName(namespace: namespace(), name: "\(letter)\(Int.random(in: 0..<count, using: &random))")
        }

        private mutating func backend() -> IngressBackend {
            if chance(4) { return IngressBackend(resource: nil) }
            let port = pick([
                ServiceBackendPort(number: 80), ServiceBackendPort(name: "web"), ServiceBackendPort(number: 8080),
                ServiceBackendPort(number: 0),
            ])
            return IngressBackend(service: IngressServiceBackend(name: name("s", 6).name, port: port))
        }

        private mutating func putIngress() {
            let name = name("i", 12)
            var ingress =
                objects.ingresses[name] ?? Ingress(metadata: ObjectMeta(name: name.name, namespace: name.namespace))
            if ingress.metadata.creationTimestamp == nil, chance(70) {
                ingress.metadata.creationTimestamp = Timestamp(seconds: Int64.random(in: 1...4, using: &random))
            }
            ingress.metadata.annotations = annotations(name.namespace)
            ingress.metadata.deletionTimestamp = chance(3) ? Timestamp(seconds: 9) : nil
            ingress.spec.ingressClassName = pick(["moongate", "moongate", "moongate", "moongate", "mine", "nginx", nil])
            ingress.spec.defaultBackend = chance(25) ? backend() : nil
            ingress.spec.tls =
                chance(20) ? [IngressTLS(hosts: chance(50) ? [host()] : [], secretName: self.name("t", 3).name)] : []
            ingress.spec.rules = (0..<Int.random(in: 0...3, using: &random)).map { _ in
                let paths = (0..<Int.random(in: 0...(chance(5) ? 14 : 3), using: &random)).map { _ in
                    HTTPIngressPath(
                        path: pick([
                            "/", "/a", "/a/", "/a/b", "/c", "/d", nil, "bad", "/%2f",
                            "/x\(Int.random(in: 0..<20, using: &random))",
                        ]),
                        pathType: pick([.prefix, .exact, nil]), backend: backend())
                }
                return IngressRule(host: host(), http: chance(5) ? nil : HTTPIngressRuleValue(paths: paths))
            }
            objects.ingresses[name] = ingress
        }

        private mutating func host() -> String {
            pick(["a.test", "b.test", "*.test", "www.a.test", "*.a.test", "", "A.test.", "no_*_host", "c.test"])
        }

        private mutating func annotations(_ namespace: String) -> [String: String] {
            let all: [(String, [String])] = [
                ("moongate.dev/load-balance", ["least-request", "round-robin", "odd"]),
                ("moongate.dev/scripts", ["plugin/known", "plugin/odd", "c0:main.lua", "inline"]),
                ("moongate.dev/no-such", ["x"]),
                ("nginx.ingress.kubernetes.io/backend-protocol", ["HTTPS", "AUTO_HTTP", "GRPC", "FCGI", "odd"]),
                ("nginx.ingress.kubernetes.io/proxy-ssl-secret", ["shop/t0", "blog/t1", "odd"]),
                ("nginx.ingress.kubernetes.io/proxy-ssl-verify", ["on", "off"]),
                ("nginx.ingress.kubernetes.io/auth-tls-secret", ["\(namespace)/t1", "other/t1"]),
                ("nginx.ingress.kubernetes.io/proxy-body-size", ["8m", "odd"]),
                ("nginx.ingress.kubernetes.io/ssl-redirect", ["true", "false"]),
                ("nginx.ingress.kubernetes.io/ssl-passthrough", ["true"]),
                ("nginx.ingress.kubernetes.io/server-snippet", ["x"]),
                ("moongate.dev/send-proxy-protocol", ["v1", "v2", "odd"]),
                ("moongate.dev/max-body-size", ["1m", "odd"]),
            ]
            var result: [String: String] = [:]
            for _ in 0..<Int.random(in: 0...2, using: &random) {
                let (key, values) = pick(all)
                result[key] = pick(values)
            }
            return result
        }

        private mutating func putService() {
            let name = name("s", 6)
            var service = Service(metadata: ObjectMeta(name: name.name, namespace: name.namespace))
            if chance(15) {
                service.metadata.annotations["moongate.dev/allow-namespaces"] = pick(["*", "shop", "blog"])
            }
            if chance(10) {
                service.spec.type = "ExternalName"
                service.spec.externalName = pick(["else.test", "127.0.0.1", "odd name"])
            }
            service.spec.ports = [
                ServicePort(
                    port: pick([80, 80, 81]), name: pick(["web", "", "https"]),
                    targetPort: pick([.int(8080), .string("web"), nil]))
            ]
            objects.services[name] = service
        }

        private mutating func putSlice() {
            let name = name("e", 8)
            var slice = EndpointSlice(metadata: ObjectMeta(name: name.name, namespace: name.namespace))
            if !chance(5) { slice.metadata.labels[EndpointSlice.serviceLabel] = self.name("s", 6).name }
            slice.endpoints = (0..<Int.random(in: 0...3, using: &random)).map { _ in
                SliceEndpoint(
                    addresses: [pick(["10.0.0.1", "10.0.0.2", "10.0.0.3", "odd"])],
                    conditions: EndpointConditions(ready: pick([true, true, false, nil])), zone: pick(["z", nil]))
            }
            // Hints count only where every endpoint has one.
            if chance(50) {
                for index in slice.endpoints.indices {
                    slice.endpoints[index].hints = EndpointHints(zones: [pick(["z", "y"])])
                }
            }
            slice.ports = [SlicePort(name: pick(["web", "", "https"]), port: pick([8080, nil]))]
            objects.put(slice)
        }

        private mutating func putSecret() {
            let name = name("t", 3)
            let keys = pick([["tls.crt", "tls.key"], ["tls.crt"], ["ca.crt"], ["tls.crt", "tls.key", "ca.crt"]])
            var secret = Secret(metadata: ObjectMeta(name: name.name, namespace: name.namespace))
            for key in keys { secret.stringData[key] = "\(Int.random(in: 0..<3, using: &random))" }
            objects.secrets[name] = secret
        }

        private mutating func putConfigMap() {
            let name = name("c", 2)
            objects.configMaps[name] = ConfigMap(
                metadata: ObjectMeta(name: name.name, namespace: name.namespace),
                data: [pick(["main.lua", "8080"]): pick(["return {}", "shop/s0:80"])])
        }

        private mutating func putClass() {
            var metadata = ObjectMeta(name: pick(["mine", "moongate"]))
            if chance(30) { metadata.annotations[IngressClass.defaultAnnotation] = "true" }
            let controller = pick(["moongate.dev/ingress-controller", "other"])
            objects.ingressClasses[metadata.name] = IngressClass(
                metadata: metadata, spec: IngressClassSpec(controller: controller))
        }

        private mutating func turnOption() {
            switch Int.random(in: 0..<9, using: &random) {
            case 0: options.hostsAreExclusive.toggle()
            case 1: options.zone = options.zone == nil ? "z" : nil
            case 2: options.statusAddresses = [LoadBalancerIngress(ip: pick(["1.2.3.4", "1.2.3.5"]))]
            case 3: options.allowsPassthrough.toggle()
            case 4: options.tcpServices = ObjectName(namespace: "shop", name: "c0")
            case 5: options.udpServices = pick([ObjectName(namespace: "shop", name: "c1"), nil])
            case 6: options.namespaces = pick([[], ["shop"]])
            case 7: options.ingressClass = pick(["moongate", "moongate", "mine"])
            default: options.defaultBackend = ServicePortName("shop/s0:80")
            }
        }
    }

    @Test(arguments: 0..<12) func saysWhatOneFromScratchSays(seed: Int) {
        var world = World(random: Random(state: UInt64(seed)))
        world.options.catalog.plugins["known"] = .init(main: "return {}")
        var memory = TranslationMemory()
        var cache = TranslationCache()
        for _ in 0..<250 {
            for _ in 0..<Int.random(in: 1...3, using: &world.random) { world.change() }
            var anew = memory
            let expected = Translator.translate(world.objects, options: world.options, memory: &anew)
            let translation = Translator.translate(
                world.objects, options: world.options, memory: &memory, cache: &cache)
            guard translation == expected, memory == anew else {
                #expect(translation.snapshot == expected.snapshot)
                #expect(translation.diagnostics == expected.diagnostics)
                #expect(translation.statuses == expected.statuses)
                #expect(translation.references == expected.references)
                #expect(memory == anew)
                return
            }
        }
    }
}
