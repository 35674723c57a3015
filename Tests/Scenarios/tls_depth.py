"""How long chains may be, of clients and of backends: tls_depth.py

Chains of none to three authorities between the certificate and the root, for each depth that is set.
"""
import os
import ssl
import subprocess
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from edge import Edge
from tls_files import Files, endpoints

MOST = 3
edge = Edge("--connect-timeout", "5s")
files = Files(edge.folder)
files.work = tempfile.mkdtemp()


def authority(name, by):
    files.openssl("req", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", name + ".key", "-out",
                  name + ".csr", "-subj", "/CN=" + name)
    with open(files.path("ca.ext"), "w") as file:
        file.write("basicConstraints=critical,CA:TRUE")
    files.openssl("x509", "-req", "-in", name + ".csr", "-CA", by + ".crt", "-CAkey", by + ".key", "-CAcreateserial", "-days",
                  "2", "-out", name + ".crt", "-extfile", "ca.ext")


files.authority("ca0")
chains = []
for between in range(MOST + 1):
    if between:
        authority(f"ca{between}", f"ca{between - 1}")
    files.certificate(f"leaf{between}", f"ca{between}", "DNS:web.shop.svc")
    chains.append(f"leaf{between}.chain")
    with open(files.path(chains[-1]), "w") as file:
        file.write(files.read(f"leaf{between}.crt") + "".join(files.read(f"ca{i}.crt") for i in range(between, 0, -1)))
root = files.read("ca0.crt")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"moon")

    def log_message(self, *_):
        pass


def serve(chain=None, key=None):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if chain:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.path(chain), files.path(key))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def put(name, *documents):
    edge.write(name + ".yaml", "---\n".join(documents))


def secret(name, text):
    put(name, f"apiVersion: v1\nkind: Secret\nmetadata: {{ name: {name}, namespace: shop }}\nstringData:\n  ca.crt: |\n"
        + "".join(f"    {line}\n" for line in text.splitlines()))


secret("roots", root)
put("plain", "apiVersion: v1\nkind: Service\nmetadata: { name: plain, namespace: shop }\nspec: { ports: [{ port: 80 }] }\n",
    endpoints("plain", serve()))
for depth in range(MOST + 1):
    edge.ingress(f"clients{depth}", f"clients{depth}.test", "plain",
                 'moongate.dev/auth-tls-secret: shop/roots, moongate.dev/auth-tls-verify-depth: "%d"' % depth)
for between in range(MOST + 1):
    put(f"web{between}",
        f"apiVersion: v1\nkind: Service\nmetadata: {{ name: web{between}, namespace: shop }}\nspec: {{ ports: [{{ port: 80 }}] }}\n",
        endpoints(f"web{between}", serve(chains[between], f"leaf{between}.key")))
    for depth in range(1, MOST + 1):
        edge.ingress(f"b{between}{depth}", f"b{between}{depth}.test", f"web{between}",
                     "moongate.dev/backend-protocol: HTTPS, moongate.dev/proxy-ssl-secret: shop/roots, "
                     'moongate.dev/proxy-ssl-verify: "on", moongate.dev/proxy-ssl-name: web.shop.svc, '
                     'moongate.dev/proxy-ssl-verify-depth: "%d"' % depth)


def status(host, *more):
    port = edge.number("https") if more else edge.number("http")
    scheme = "https" if more else "http"
    return subprocess.run(["curl", "-sk", "-o", os.devnull, "-w", "%{http_code}", "--resolve", f"{host}:{port}:127.0.0.1", *more,
                           f"{scheme}://{host}:{port}/"], stdout=subprocess.PIPE, text=True).stdout


edge.start()
for depth in range(MOST + 1):
    got = []
    for between in range(MOST + 1):
        shown = ["--cert", files.path(chains[between]), "--key", files.path(f"leaf{between}.key")]
        got.append({status(f"clients{depth}.test", *shown), status(f"clients{depth}.test", *shown, "--tls-max", "1.2")})
    print(f"clients, depth {depth}:", *(" ".join(sorted(each)) for each in got))
for depth in range(1, MOST + 1):
    print(f"backends, depth {depth}:", *(status(f"b{between}{depth}.test") for between in range(MOST + 1)))
edge.stop()
