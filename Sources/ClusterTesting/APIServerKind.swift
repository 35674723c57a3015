// What the fake API server knows of each kind: where it lives, and what a real one refuses.

import KubernetesAPI

struct APIServerKind: Sendable {
    var apiVersion: String
    var kind: String
    var plural: String
    var isNamespaced = true
    var hasStatus = false
    /// What is wrong with an object, given its old version on an update; each as `field: problem`.
    var faults: @Sendable (_ new: JSONValue, _ old: JSONValue?) -> [String] = { _, _ in [] }
    /// What is wrong with a status.
    var statusFaults: @Sendable (JSONValue) -> [String] = { _ in [] }

    /// The group, as errors and roles write it.
    var group: String {
        let parts = apiVersion.split(separator: "/")
        return parts.count == 2 ? String(parts[0]) : ""
    }

    /// `ingresses.networking.k8s.io`, as errors write it.
    var qualified: String { group.isEmpty ? plural : "\(plural).\(group)" }

    static let all: [APIServerKind] = [
        APIServerKind(
            apiVersion: "networking.k8s.io/v1", kind: "Ingress", plural: "ingresses", hasStatus: true,
            faults: { IngressRules.faults($0, $1) }, statusFaults: { IngressRules.statusFaults($0) }),
        APIServerKind(
            apiVersion: "networking.k8s.io/v1", kind: "IngressClass", plural: "ingressclasses", isNamespaced: false,
            faults: { new, old in
                var faults: [String] = []
                let controller = new[path: ["spec", "controller"]]?.string ?? ""
                if controller.isEmpty || controller.utf8.count > 250 || !controller.contains("/") {
                    faults.append("spec.controller: must be a domain-prefixed path (such as \"acme.io/foo\")")
                }
                if let old, old[path: ["spec", "controller"]] != new[path: ["spec", "controller"]] {
                    faults.append("spec.controller: field is immutable")
                }
                return faults
            }),
        APIServerKind(
            apiVersion: "v1", kind: "Service", plural: "services", hasStatus: true,
            faults: { ServiceRules.faults($0, $1) }, statusFaults: { IngressRules.statusFaults($0) }),
        APIServerKind(
            apiVersion: "discovery.k8s.io/v1", kind: "EndpointSlice", plural: "endpointslices",
            faults: { SliceRules.faults($0, $1) }),
        APIServerKind(
            apiVersion: "v1", kind: "Secret", plural: "secrets",
            faults: { new, old in
                var faults = DataRules.faults(new, old, base64: ["data"])
                if new["type"]?.string == "kubernetes.io/tls" {
                    for key in ["tls.crt", "tls.key"] where new["data"]?[key] == nil {
                        faults.append("data[\(key)]: Required value")
                    }
                }
                if let old, old["type"] != new["type"] { faults.append("type: field is immutable") }
                return faults
            }),
        APIServerKind(
            apiVersion: "v1", kind: "ConfigMap", plural: "configmaps",
            faults: { DataRules.faults($0, $1, base64: ["binaryData"]) }),
        APIServerKind(
            apiVersion: "coordination.k8s.io/v1", kind: "Lease", plural: "leases",
            faults: { new, _ in LeaseRules.faults(new) }),
        APIServerKind(
            apiVersion: "events.k8s.io/v1", kind: "Event", plural: "events", faults: { EventRules.faults($0, $1) }),
        APIServerKind(apiVersion: "v1", kind: "Node", plural: "nodes", isNamespaced: false, hasStatus: true),
        APIServerKind(apiVersion: "v1", kind: "Pod", plural: "pods", hasStatus: true),
        APIServerKind(apiVersion: "v1", kind: "Namespace", plural: "namespaces", isNamespaced: false, hasStatus: true),
        APIServerKind(
            apiVersion: "admissionregistration.k8s.io/v1", kind: "ValidatingWebhookConfiguration",
            plural: "validatingwebhookconfigurations", isNamespaced: false),
    ]
}

/// Grammars that the API shares between kinds.
enum Names {
    static func isLabel(_ text: String) -> Bool {
        let bytes = Array(text.utf8)
        guard let first = bytes.first, let last = bytes.last, bytes.count <= 63 else { return false }
        return isAlphanumeric(first) && isAlphanumeric(last)
            && bytes.allSatisfy { isAlphanumeric($0) || $0 == UInt8(ascii: "-") }
    }

    /// RFC 1035: begins with a letter.
    static func isServiceName(_ text: String) -> Bool {
        isLabel(text) && text.utf8.first.map { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0) } ?? false
    }

    static func isSubdomain(_ text: String) -> Bool {
        text.utf8.count <= 253 && !text.isEmpty
            && text.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { isLabel(String($0)) }
    }

    static func isPortName(_ text: String) -> Bool {
        isLabel(text) && text.utf8.count <= 15 && !text.contains("--")
            && text.utf8.contains { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0) }
    }

    static func isDataKey(_ text: String) -> Bool {
        !text.isEmpty && text.utf8.count <= 253 && text != "." && !text.hasPrefix("..")
            && text.utf8.allSatisfy {
                isAlphanumeric($0) || (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains($0)
                    || "-._".utf8.contains($0)
            }
    }

    static func isIPv4(_ text: String) -> Bool {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4
            && parts.allSatisfy { part in
                UInt8(part) != nil && (part == "0" || !part.hasPrefix("0"))
                    && part.utf8.allSatisfy { $0 >= 48 && $0 <= 57 }
            }
    }

    /// Coarse: groups of hexadecimal digits, at most one gap.
    static func isIPv6(_ text: String) -> Bool {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count >= 3, parts.count <= 9 else { return false }
        let gaps = text.ranges(of: "::").count
        guard gaps <= 1, gaps == 1 || parts.count == 8 else { return false }
        return parts.allSatisfy { $0.isEmpty || UInt16($0, radix: 16) != nil }
    }

    static func isIP(_ text: String) -> Bool { isIPv4(text) || isIPv6(text) }

    static func isAlphanumeric(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
    }

    /// meta/v1 MicroTime wants exactly six digits of fraction.
    static func isMicroTime(_ text: String) -> Bool {
        guard Timestamp(text) != nil, let dot = text.firstIndex(of: ".") else { return false }
        let digits = text[text.index(after: dot)...].prefix { $0.isASCII && $0.isNumber }
        return digits.count == 6
    }
}

private enum IngressRules {
    static func faults(_ new: JSONValue, _ old: JSONValue?) -> [String] {
        var faults: [String] = []
        let spec = new["spec"] ?? .null
        let rules = spec["rules"]?.items ?? []
        if spec["defaultBackend"] == nil, rules.isEmpty {
            faults.append("spec: Invalid value: []: either `defaultBackend` or `rules` must be specified")
        }
        if let backend = spec["defaultBackend"] { faults += backendFaults(backend, "spec.defaultBackend") }
        if let name = spec["ingressClassName"]?.string, !Names.isSubdomain(name) {
            faults.append("spec.ingressClassName: Invalid value: \"\(name)\"")
        }
        if old == nil, spec["ingressClassName"] != nil,
            new[path: ["metadata", "annotations"]]?["kubernetes.io/ingress.class"] != nil
        {
            faults.append(
                "annotations.kubernetes.io/ingress.class: Invalid value: can not be set when the class field is also set"
            )
        }
        for (index, rule) in rules.enumerated() { faults += ruleFaults(rule, "spec.rules[\(index)]") }
        for (index, tls) in (spec["tls"]?.items ?? []).enumerated() {
            for (position, host) in (tls["hosts"]?.items ?? []).enumerated() where !isHost(host.string ?? "") {
                faults.append("spec.tls[\(index)].hosts[\(position)]: Invalid value: \"\(host.string ?? "")\"")
            }
        }
        return faults
    }

    static func statusFaults(_ status: JSONValue) -> [String] {
        var faults: [String] = []
        for (index, address) in (status[path: ["loadBalancer", "ingress"]]?.items ?? []).enumerated() {
            let place = "status.loadBalancer.ingress[\(index)]"
            if let ip = address["ip"]?.string, !Names.isIP(ip) {
                faults.append("\(place).ip: Invalid value: \"\(ip)\": must be a valid IP address")
            }
            if let name = address["hostname"]?.string {
                if !Names.isSubdomain(name) { faults.append("\(place).hostname: Invalid value: \"\(name)\"") }
                if Names.isIP(name) { faults.append("\(place).hostname: Invalid value: must be a DNS name, not an IP") }
            }
        }
        return faults
    }

    private static func isHost(_ host: String) -> Bool {
        host.hasPrefix("*.") ? Names.isSubdomain(String(host.dropFirst(2))) : Names.isSubdomain(host)
    }

    private static func ruleFaults(_ rule: JSONValue, _ place: String) -> [String] {
        var faults: [String] = []
        if let host = rule["host"]?.string, !host.isEmpty {
            if Names.isIP(host) {
                faults.append("\(place).host: Invalid value: \"\(host)\": must be a DNS name, not an IP address")
            } else if !isHost(host) {
                faults.append("\(place).host: Invalid value: \"\(host)\"")
            }
        }
        guard let http = rule["http"] else { return faults }
        let paths = http["paths"]?.items ?? []
        if paths.isEmpty { faults.append("\(place).http.paths: Required value") }
        for (index, path) in paths.enumerated() {
            let place = "\(place).http.paths[\(index)]"
            let text = path["path"]?.string ?? ""
            switch path["pathType"]?.string {
            case nil: faults.append("\(place).pathType: Required value: pathType must be specified")
            case "Exact", "Prefix":
                if !text.hasPrefix("/") {
                    faults.append("\(place).path: Invalid value: \"\(text)\": must be an absolute path")
                }
                for bad in ["//", "/./", "/../", "%2f", "%2F"] where text.contains(bad) {
                    faults.append("\(place).path: Invalid value: \"\(text)\": must not contain '\(bad)'")
                }
                for bad in ["/..", "/."] where text.hasSuffix(bad) {
                    faults.append("\(place).path: Invalid value: \"\(text)\": cannot end with '\(bad)'")
                }
            case "ImplementationSpecific":
                if !text.isEmpty, !text.hasPrefix("/") {
                    faults.append("\(place).path: Invalid value: \"\(text)\": must be an absolute path")
                }
            case .some(let other): faults.append("\(place).pathType: Unsupported value: \"\(other)\"")
            }
            faults += backendFaults(path["backend"] ?? .null, "\(place).backend")
        }
        return faults
    }

    private static func backendFaults(_ backend: JSONValue, _ place: String) -> [String] {
        switch (backend["service"], backend["resource"]) {
        case (nil, nil): return ["\(place): Required value: a service or a resource backend is required"]
        case (.some, .some): return ["\(place): Invalid value: cannot set both resource and service backends"]
        case (nil, .some): return []
        case (.some(let service), nil):
            var faults: [String] = []
            let name = service["name"]?.string ?? ""
            if !Names.isServiceName(name) { faults.append("\(place).service.name: Invalid value: \"\(name)\"") }
            switch (service["port"]?["name"]?.string, service["port"]?["number"]?.integer) {
            case (nil, nil): faults.append("\(place).service.port: Required value: port name or number is required")
            case (.some, .some): faults.append("\(place): Invalid value: cannot set both port name & port number")
            case (.some(let name), nil):
                if !Names.isPortName(name) { faults.append("\(place).service.port.name: Invalid value: \"\(name)\"") }
            case (nil, .some(let number)):
                if !(1...65_535).contains(number) {
                    faults.append("\(place).service.port.number: Invalid value: \(number)")
                }
            }
            return faults
        }
    }
}

private enum ServiceRules {
    static func faults(_ new: JSONValue, _ old: JSONValue?) -> [String] {
        var faults: [String] = []
        let name = new[path: ["metadata", "name"]]?.string ?? ""
        if !Names.isServiceName(name) { faults.append("metadata.name: Invalid value: \"\(name)\"") }
        let spec = new["spec"] ?? .null
        let type = spec["type"]?.string ?? "ClusterIP"
        if !["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"].contains(type) {
            faults.append("spec.type: Unsupported value: \"\(type)\"")
        }
        let ports = spec["ports"]?.items ?? []
        if ports.isEmpty, type != "ExternalName", spec["clusterIP"]?.string != "None" {
            faults.append("spec.ports: Required value")
        }
        if type == "ExternalName", spec["externalName"] == nil { faults.append("spec.externalName: Required value") }
        var names: Set<String> = []
        for (index, port) in ports.enumerated() {
            let place = "spec.ports[\(index)]"
            if !(1...65_535).contains(port["port"]?.integer ?? 0) { faults.append("\(place).port: Invalid value") }
            let name = port["name"]?.string ?? ""
            if name.isEmpty {
                if ports.count > 1 { faults.append("\(place).name: Required value") }
            } else if !Names.isLabel(name) {
                faults.append("\(place).name: Invalid value: \"\(name)\"")
            } else if !names.insert(name).inserted {
                faults.append("\(place).name: Duplicate value: \"\(name)\"")
            }
        }
        if let old, let address = old[path: ["spec", "clusterIP"]]?.string, !address.isEmpty,
            type != "ExternalName", spec["clusterIP"]?.string != address
        {
            faults.append("spec.clusterIPs[0]: Invalid value: may not change once set")
        }
        return faults
    }
}

private enum SliceRules {
    static func faults(_ new: JSONValue, _ old: JSONValue?) -> [String] {
        var faults: [String] = []
        let type = new["addressType"]?.string
        if !["IPv4", "IPv6", "FQDN"].contains(type) { faults.append("addressType: Required value") }
        if let old, old["addressType"] != new["addressType"] { faults.append("addressType: field is immutable") }
        let endpoints = new["endpoints"]?.items ?? []
        if endpoints.count > 1_000 { faults.append("endpoints: Too many: must have at most 1000 items") }
        for (index, endpoint) in endpoints.enumerated() {
            let addresses = endpoint["addresses"]?.items.compactMap(\.string) ?? []
            if addresses.isEmpty { faults.append("endpoints[\(index)].addresses: Required value") }
            for address in addresses {
                let isGood =
                    switch type {
                    case "IPv4": Names.isIPv4(address)
                    case "IPv6": Names.isIPv6(address)
                    default: Names.isSubdomain(address)
                    }
                if !isGood { faults.append("endpoints[\(index)].addresses: Invalid value: \"\(address)\"") }
            }
        }
        var names: Set<String> = []
        for (index, port) in (new["ports"]?.items ?? []).enumerated() {
            if !names.insert(port["name"]?.string ?? "").inserted {
                faults.append("ports[\(index)].name: Duplicate value")
            }
        }
        return faults
    }
}

private enum DataRules {
    static func faults(_ new: JSONValue, _ old: JSONValue?, base64: [String]) -> [String] {
        var faults: [String] = []
        var size = 0
        for field in ["data", "binaryData"] {
            for (key, value) in new[field]?.fields ?? [:] {
                if !Names.isDataKey(key) { faults.append("\(field)[\(key)]: Invalid value") }
                size += value.string?.utf8.count ?? 0
                if base64.contains(field), Base64(text: value.string ?? "") == nil {
                    faults.append("\(field)[\(key)]: illegal base64 data")
                }
            }
        }
        if size > 1 << 20 { faults.append("data: Too long: must have at most 1048576 bytes") }
        if let old, old["immutable"] == .bool(true) {
            for field in ["data", "binaryData"] where old[field] != new[field] {
                faults.append("\(field): Forbidden: field is immutable when `immutable` is set")
            }
        }
        return faults
    }
}

private enum LeaseRules {
    static func faults(_ new: JSONValue) -> [String] {
        var faults: [String] = []
        let spec = new["spec"] ?? .null
        if let seconds = spec["leaseDurationSeconds"]?.integer, seconds <= 0 {
            faults.append("spec.leaseDurationSeconds: Invalid value: must be greater than 0")
        }
        if let count = spec["leaseTransitions"]?.integer, count < 0 {
            faults.append("spec.leaseTransitions: Invalid value: must be greater than or equal to 0")
        }
        if spec["holderIdentity"]?.string?.isEmpty == true {
            faults.append("spec.holderIdentity: Invalid value: must not be empty")
        }
        for field in ["acquireTime", "renewTime"] {
            if let time = spec[field]?.string, !Names.isMicroTime(time) {
                faults.append("spec.\(field): cannot parse \"\(time)\" as MicroTime")
            }
        }
        return faults
    }
}

private enum EventRules {
    static func faults(_ new: JSONValue, _ old: JSONValue?) -> [String] {
        var faults: [String] = []
        func bounded(_ field: String, _ limit: Int) {
            let text = new[field]?.string ?? ""
            if text.isEmpty { faults.append("\(field): Required value") }
            if text.utf8.count > limit {
                faults.append("\(field): Invalid value: can have at most \(limit) characters")
            }
        }
        if let time = new["eventTime"]?.string {
            if !Names.isMicroTime(time) { faults.append("eventTime: cannot parse \"\(time)\" as MicroTime") }
        } else {
            faults.append("eventTime: Required value")
        }
        bounded("reportingController", 128)
        bounded("reportingInstance", 128)
        bounded("action", 128)
        bounded("reason", 128)
        if let note = new["note"]?.string, note.utf8.count > 1_024 {
            faults.append("note: Invalid value: can have at most 1024 bytes")
        }
        if !["Normal", "Warning"].contains(new["type"]?.string) { faults.append("type: Unsupported value") }
        let namespace = new[path: ["metadata", "namespace"]]?.string ?? ""
        let regarding = new[path: ["regarding", "namespace"]]?.string ?? ""
        if regarding.isEmpty ? namespace != "default" && namespace != "kube-system" : regarding != namespace {
            faults.append("regarding.namespace: Invalid value: \"\(regarding)\": does not match event.namespace")
        }
        if let series = new["series"] {
            if (series["count"]?.integer ?? 0) < 2 {
                faults.append("series.count: Invalid value: should be at least 2")
            }
            if !(series["lastObservedTime"]?.string.map(Names.isMicroTime) ?? false) {
                faults.append("series.lastObservedTime: Required value")
            }
        }
        if let old {
            for field in [
                "eventTime", "reportingController", "reportingInstance", "action", "reason", "type", "note",
                "regarding",
            ] where old[field] != new[field] {
                faults.append("\(field): field is immutable")
            }
        }
        return faults
    }
}
