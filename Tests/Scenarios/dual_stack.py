"""Several listeners, IPv4 and IPv6 together, and an upstream that has IPv6 only: all of it on a program of its own, in a
network namespace of its own where the machine has no IPv6 loopback."""
import http.server
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading

from edge import free_ports, until

MOONGATE = os.environ["MOONGATE"]


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
            return True
    except OSError:
        return False


if not has_ipv6():
    if len(sys.argv) > 1:
        sys.exit("no IPv6, not even in a network namespace")
    up = "sysctl -qw net.ipv6.conf.all.disable_ipv6=0 && ip link set lo up && exec python3 \"$0\" again"
    os.execvp("unshare", ["unshare", "-rn", "sh", "-c", up, sys.argv[0]])


class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        names = ["Host", "X-Forwarded-For", "X-Real-IP", "X-Forwarded-Host", "X-Forwarded-Port", "Forwarded"]
        body = json.dumps({n: self.headers[n] for n in names}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server6(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6


upstream = Server6(("::1", 0), Echo)
threading.Thread(target=upstream.serve_forever, daemon=True).start()
folder = tempfile.mkdtemp()
with open(folder + "/web.yaml", "w") as f:
    f.write(f"""
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{ name: web, namespace: shop }}
spec: {{ ingressClassName: moongate, defaultBackend: {{ service: {{ name: a, port: {{ number: 80 }} }} }} }}
---
apiVersion: v1
kind: Service
metadata: {{ name: a, namespace: shop }}
spec: {{ ports: [{{ name: http, port: 80 }}] }}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: a-1, namespace: shop, labels: {{ kubernetes.io/service-name: a }} }}
addressType: IPv6
ports: [{{ name: http, port: {upstream.server_port} }}]
endpoints: [{{ addresses: ["::1"], conditions: {{ ready: true }} }}]
""")


def start(*flags):
    program = subprocess.Popen(
        [MOONGATE, "run", "--manifests", folder, "--workers", "2", "--forwarded", "--access-log", "off", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = program.stdout.readline()
    return program, json.loads(line) if line else None


def stop(program):
    program.terminate()
    return program.wait(60)


def port(text):
    return int(text.rsplit(":", 1)[1])


def ask(host, number, name, proto="http"):
    """The echo of a request to that address, with that Host."""
    address = f"[{host}]" if ":" in host else host
    return json.loads(subprocess.run(
        ["curl", "-sk", "--max-time", "60", "-H", f"Host: {name}", f"{proto}://{address}:{number}/"],
        stdout=subprocess.PIPE, check=True).stdout)


def refused(host, number):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as s:
        return s.connect_ex((host, number)) != 0


# Several of each kind, of both families; the admin port too.
program, said = start("--http", "127.0.0.1:0", "--http", "[::1]:0,127.0.0.1:0", "--https", "127.0.0.1:0,[::1]:0",
                      "--admin", "[::1]:0")
assert said["http"] == said["listeners"][0] and len(said["listeners"]) == 3, said
assert said["https"] == said["secureListeners"][0] and len(said["secureListeners"]) == 2, said
assert ask("127.0.0.1", port(said["listeners"][2]), "shop.test")["X-Forwarded-For"] == "127.0.0.1"
six = port(said["listeners"][1])
assert ask("::1", six, f"[::1]:{six}") == {
    "Host": f"[::1]:{six}", "X-Forwarded-For": "::1", "X-Real-IP": "::1", "X-Forwarded-Host": f"[::1]:{six}",
    "X-Forwarded-Port": str(six), "Forwarded": f"for=\"[::1]\";proto=http;host=\"[::1]:{six}\""}
assert ask("::1", port(said["secureListeners"][1]), "shop.test", "https")["X-Forwarded-For"] == "::1"
subprocess.run(["curl", "-sf", "-o", "/dev/null", f"http://{said['admin']}/readyz"], check=True)
assert stop(program) == 0
print("several listeners")

# One address for both families: an IPv4 client is an IPv4 client.
program, said = start("--http", ":0", "--https", "off", "--admin", "127.0.0.1:0")
assert "listeners" not in said and said["http"].startswith("[::]:"), said
assert ask("127.0.0.1", port(said["http"]), "shop.test")["X-Forwarded-For"] == "127.0.0.1"
assert ask("::1", port(said["http"]), "shop.test")["X-Forwarded-For"] == "::1"
stop(program)
print("dual stack")

# Both spelt out, with the same port: each takes its own family.
for order in ("0.0.0.0:{0},[::]:{0}", "[::]:{0},0.0.0.0:{0}"):
    number = free_ports(1)[0]
    program, said = start("--http", order.format(number), "--https", "off", "--admin", "127.0.0.1:0")
    assert sorted(said["listeners"]) == sorted([f"0.0.0.0:{number}", f"[::]:{number}"]), said
    for _ in range(4):
        assert ask("127.0.0.1", number, "shop.test")["X-Forwarded-For"] == "127.0.0.1"
        assert ask("::1", number, "shop.test")["X-Forwarded-For"] == "::1"
    stop(program)
number = free_ports(1)[0]
program, said = start("--http", f"[::1]:{number}", "--https", "off", "--admin", "127.0.0.1:0")
assert port(said["http"]) == number and refused("127.0.0.1", number)
stop(program)
print("each family alone")

number = free_ports(1)[0]
program, said = start("--http", f"127.0.0.1:{number}", "--https", f"127.0.0.1:{number}", "--admin", "127.0.0.1:0")
assert said is None and program.wait(60) != 0
assert f"cannot listen on 127.0.0.1:{number}: it is given twice" in program.stderr.read()
print("the same twice is refused")

# A TCP service has both families too, and leads to an endpoint of IPv6.
number = free_ports(1)[0]
with open(folder + "/ports.yaml", "w") as f:
    f.write(f"""
apiVersion: v1
kind: ConfigMap
metadata: {{ name: tcp, namespace: edge }}
data: {{ "{number}": "shop/a:80" }}
""")
program, said = start("--http", ":0", "--https", "off", "--admin", "127.0.0.1:0", "--tcp-services-configmap", "edge/tcp")
for host in ("::1", "127.0.0.1"):
    until(lambda: not refused(host, number), lambda: f"{host} is not listened on")
    assert ask(host, number, "raw.test")["Host"] == "raw.test"
stop(program)
print("a TCP service by either")
