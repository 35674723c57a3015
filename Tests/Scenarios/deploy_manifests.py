"""What examples/deploy renders to is valid for Kubernetes, strictly, and the Helm chart says the same as the overlays.

    deploy_manifests.py EXAMPLES

kubectl and helm are those beside this Python (Tests/Scenarios/kube_tools.py), the schemas those of kubernetes-validate,
which are made from the API server's own OpenAPI documents.
"""

import os
import subprocess
import sys

import kubernetes_validate
import yaml

DEPLOY = os.path.join(sys.argv[1], "deploy")
BIN = os.path.dirname(sys.executable)
VERSIONS = ["1.29", "1.33", "1.37"]
# Each overlay, and the values of the chart that mean the same.
VARIANTS = {
    "loadbalancer": [],
    "nodeport": ["expose=nodeport"],
    "hostnetwork": ["expose=hostnetwork"],
    "namespaced": ["watchNamespaces={shop}"],
    "webhook": ["webhook.enabled=true"],
    "ports": ["tcp.5432=shop/db:5432,udp.53=shop/dns:53"],
}
# The chart says these where the overlays rely on what Moongate does without them.
DEFAULTS = {
    "--ingress-class=moongate", "--controller-name=moongate.dev/ingress-controller",
    "--election-lease=moongate/moongate-leader", "--webhook-configuration=moongate", "--webhook-service=moongate-webhook",
    "--webhook-secret=moongate/moongate-webhook",
}


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=DEPLOY).stdout


def objects(text):
    return [item for item in yaml.safe_load_all(text) if item]


def validate(what, items):
    for item in items:
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(item, version, strict=True)
            except Exception as error:
                print(f"{what}: {item['kind']} {item['metadata']['name']}, Kubernetes {version}: {error}")


def renamed(text):
    """Names of the chart carry its release's."""
    for old, new in ("moongate-moongate", "moongate"), ("moongate-tcp", "tcp-services"), ("moongate-udp", "udp-services"):
        text = text.replace(old, new)
    return text


def workload(items):
    [found] = [item for item in items if item["kind"] in ("Deployment", "DaemonSet")]
    return found


def permissions(items):
    """Who may do what where, whatever the roles are called."""
    found = set()
    for item in items:
        if item["kind"] not in ("Role", "ClusterRole"):
            continue
        place = item["metadata"].get("namespace", "the cluster")
        for rule in item["rules"]:
            # A name of an object without a namespace may have the release's name in front.
            names = tuple(name.replace("moongate-moongate", "moongate") for name in rule.get("resourceNames", []))
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for verb in rule["verbs"]:
                        found.add((place, group, resource, names, verb))
    return found


def meaning(items):
    """What of a set of manifests must not differ."""
    load = workload(items)
    pod = load["spec"]["template"]["spec"]
    [container] = pod["containers"]
    found = {
        "kind": load["kind"],
        "replicas": load["spec"].get("replicas"),
        "update": load["spec"].get("strategy") or load["spec"].get("updateStrategy"),
        "arguments": {renamed(text) for text in container["args"]} - DEFAULTS,
        "permissions": permissions(items),
        "environment": container["env"],
        "annotations": load["spec"]["template"]["metadata"].get("annotations") or {},
    }
    for key in ("hostNetwork", "dnsPolicy", "terminationGracePeriodSeconds", "securityContext", "volumes"):
        found[f"pod {key}"] = pod.get(key)
    for key in ("securityContext", "startupProbe", "livenessProbe", "readinessProbe", "resources", "ports"):
        found[f"container {key}"] = container.get(key)
    for item in items:
        kind = item["kind"]
        if kind == "Service":
            spec = {key: value for key, value in item["spec"].items() if key != "selector"}
            spec["ports"] = [{"protocol": "TCP", **port} for port in spec["ports"]]
            found[f"service of {sorted(port['name'] for port in spec['ports'])}"] = spec
        elif kind == "HorizontalPodAutoscaler":
            found[kind] = item["spec"]
        elif kind == "PodDisruptionBudget":
            found[kind] = item["spec"]["maxUnavailable"]
        elif kind == "IngressClass":
            found[kind] = (item["metadata"]["name"], item["spec"])
        elif kind == "ValidatingWebhookConfiguration":
            found[kind] = [
                {key: hook[key] for key in ("rules", "failurePolicy", "sideEffects", "timeoutSeconds") if key in hook}
                for hook in item["webhooks"]]
    return found


for overlay, values in VARIANTS.items():
    overlaid = objects(run(os.path.join(BIN, "kubectl"), "kustomize", f"overlays/{overlay}"))
    charted = objects(run(
        os.path.join(BIN, "helm"), "template", "moongate", "helm/moongate", "--namespace", "moongate",
        *[part for value in values for part in ("--set", value)]))
    validate(f"overlays/{overlay}", overlaid)
    validate(f"helm {' '.join(values)}", charted)
    # The image's program carries a capability, and is not executed where it may not have it.
    for items in (overlaid, charted):
        [container] = workload(items)["spec"]["template"]["spec"]["containers"]
        if container["securityContext"]["capabilities"] != {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}:
            print(f"{overlay}: the container may not have NET_BIND_SERVICE")
    ours, theirs = meaning(overlaid), meaning(charted)
    # The component is for overlays without a ClusterRole, too, and the chart knows whether it has one.
    ours["permissions"] = {
        right for right in ours["permissions"]
        if right[3] != ("tcp-services", "udp-services") and right[:3] != ("moongate", "events.k8s.io", "events")}
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            a, b = ours.get(key), theirs.get(key)
            if isinstance(a, set) and isinstance(b, set):
                a, b = sorted(a - b), sorted(b - a)
            print(f"{overlay}: {key}: the overlay has {a}, the chart {b}")
    print(f"{overlay}: {len(overlaid)} objects, {len(charted)} of the chart")
print(run(os.path.join(BIN, "helm"), "lint", "--strict", "helm/moongate").strip().splitlines()[-1])
