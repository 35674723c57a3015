"""What the scenarios of connections that are no HTTP share: a program with a folder of its own, and raw upstreams."""
import itertools
import json
import os
import socket
import subprocess
import tempfile
import threading
import time


class Edge:
    """A program that serves a folder."""

    def __init__(self, *flags):
        self.folder = tempfile.mkdtemp()
        self.flags = flags
        self.program = None

    def write(self, name, text):
        with open(f"{self.folder}/../{os.path.basename(self.folder)}.new", "w") as f:
            f.write(text)
        os.rename(f.name, f"{self.folder}/{name}")

    def service(self, name, *ports, protocol="TCP"):
        """A Service `name` of the namespace shop, with one endpoint a port."""
        text = f"""
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: shop }}
spec: {{ ports: [{{ name: raw, port: 80, protocol: {protocol} }}] }}
"""
        for i, port in enumerate(ports):
            text += f"""---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: {name}-{i}, namespace: shop, labels: {{ kubernetes.io/service-name: {name} }} }}
addressType: IPv4
ports: [{{ name: raw, port: {port}, protocol: {protocol} }}]
endpoints: [{{ addresses: ["127.0.0.1"], conditions: {{ ready: true }} }}]
"""
        self.write(f"{name}.yaml", text)

    def ingress(self, name, host, service, note="a/b: c"):
        """An Ingress `name` that leads all of a host to port 80 of a Service, with annotations as YAML."""
        self.write(f"{name}-ingress.yaml", f"""
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {name}
  namespace: shop
  annotations: {{ {note} }}
spec:
  ingressClassName: moongate
  rules:
  - {{ host: "{host}", http: {{ paths: [{{ path: /, pathType: Prefix,
      backend: {{ service: {{ name: {service}, port: {{ number: 80 }} }} }} }}] }} }}
""")

    def ports(self, name="tcp", /, **entries):
        data = "".join(f'  "{key[1:]}": "{value}"\n' for key, value in entries.items())
        self.write(f"ports-{name}.yaml",
                   f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: {name}, namespace: edge }}\n"
                   + ("data:\n" + data if data else "data: {}\n"))

    def start(self):
        self.program = subprocess.Popen(
            [os.environ["MOONGATE"], "run", "--manifests", self.folder, "--workers", "2", "--http", "127.0.0.1:0",
             "--https", "127.0.0.1:0", "--admin", "127.0.0.1:0", *self.flags],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said = json.loads(self.program.stdout.readline())
        self.lines = []
        self.errors = []
        for stream, lines in ((self.program.stdout, self.lines), (self.program.stderr, self.errors)):
            threading.Thread(target=lambda s=stream, l=lines: l.extend(s), daemon=True).start()
        return self

    def number(self, key):
        return int(self.said[key].rsplit(":", 1)[1])

    def log(self, **wanted):
        """Waits for a line of the access log that has all of it."""
        def find():
            for line in list(self.lines):
                entry = json.loads(line)
                if all(entry.get(key) == value for key, value in wanted.items()):
                    return entry
        return until(find, lambda: f"no line with {wanted} in {self.lines}")

    def error(self, text):
        return until(lambda: any(text in line for line in list(self.errors)), lambda: f"no {text} in {self.errors}")

    def metric(self, name):
        page = subprocess.run(["curl", "-s", f"http://{self.said['admin']}/metrics"], stdout=subprocess.PIPE,
                              text=True).stdout
        return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name))

    def stop(self):
        self.program.terminate()
        return self.program.wait(60)


def until(find, complaint):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = find()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(complaint())


class Upstream:
    """A listener of which each connection is given to `serve`, in a thread of its own."""

    def __init__(self, serve):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.count = 0
        self.serve = serve
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.count += 1
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def echo(connection, greeting=b""):
    """Greets, sends back what it gets, and what it got as a whole when that ends."""
    with connection:
        connection.sendall(greeting)
        count = 0
        while data := connection.recv(65536):
            count += len(data)
            connection.sendall(data)
        connection.sendall(b"[%d bytes]" % count)


def connect(port, source="127.0.0.1"):
    s = socket.create_connection(("127.0.0.1", port), timeout=60, source_address=(source, 0))
    return s


def is_open(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def read(s, count):
    data = b""
    while len(data) < count:
        part = s.recv(count - len(data))
        assert part, f"ended after {data}"
        data += part
    return data


def rest(s):
    data = b""
    while part := s.recv(65536):
        data += part
    return data


# Below the ephemeral ports, so that the kernel gives none of them away before it is bound; each program from elsewhere.
candidates = (20000 + (os.getpid() * 61 + i) % 10000 for i in itertools.count())


def free_ports(count, kind=socket.SOCK_STREAM):
    ports = []
    for port in candidates:
        with socket.socket(socket.AF_INET, kind) as s:
            try:
                s.bind(("0.0.0.0", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
