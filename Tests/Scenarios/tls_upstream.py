"""Upstreams that speak TLS, and a client of the proxy before them.

Usage: tls_upstream.py PROXY FOLDER PART. Keys are made anew, the servers take free ports, and the manifests are written
into FOLDER. What is asked, and what came of it, is printed.
"""

import base64
import hashlib
import http.client
import os
import socket
import ssl
import sys
import threading
import time

from tls_files import Files, endpoints

proxy, folder, part = sys.argv[1:4]
host, port = proxy.rsplit(":", 1)
files = Files(folder)
authority, certificate, read, put, secret = files.authority, files.certificate, files.read, files.put, files.secret
PREFIX = "nginx.ingress.kubernetes.io/"


class Server:
    """Answers what is asked for by path; remembers what it saw of TLS."""

    def __init__(self, name=None, clients=None):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.seen = []
        self.context = None
        if name:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.use(name)
            self.context.set_alpn_protocols(["http/1.1"])
            self.context.sni_callback = self.named
            if clients:
                self.context.verify_mode = ssl.CERT_REQUIRED
                self.context.load_verify_locations(files.path(clients + ".crt"))
        threading.Thread(target=self.accept, daemon=True).start()

    def use(self, name):
        self.context.load_cert_chain(files.path(name + ".crt"), files.path(name + ".key"))

    @staticmethod
    def named(stream, name, _):
        stream.asked = name

    def accept(self):
        while True:
            stream, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(stream,), daemon=True).start()

    def serve(self, stream):
        if not self.context:
            # A handshake that never ends: bytes are taken, and none is answered.
            while stream.recv(65536):
                pass
            return
        try:
            stream = self.context.wrap_socket(stream, server_side=True)
            peer = dict(pair[0] for pair in (stream.getpeercert() or {}).get("subject", ()))
            self.seen.append("sni=%s alpn=%s resumed=%s client=%s" % (
                getattr(stream, "asked", None), stream.selected_alpn_protocol(), stream.session_reused,
                peer.get("commonName")))
            file = stream.makefile("rb")
            while self.answer(stream, file):
                pass
            stream.close()
        except (OSError, ssl.SSLError, ValueError):
            pass

    def answer(self, stream, file):
        line = file.readline()
        if not line:
            return False
        path = line.split()[1].decode()
        fields = {}
        while (field := file.readline().strip()):
            key, value = field.split(b":", 1)
            fields[key.lower()] = value.strip()
        body = file.read(int(fields.get(b"content-length", 0)))
        head = "HTTP/1.1 200 OK\r\n"
        if path.startswith("/big/"):
            body = os.urandom(1) * int(path[5:])
            stream.sendall((head + "X-Sum: %s\r\nContent-Length: %d\r\n\r\n" % (digest(body), len(body))).encode())
            stream.sendall(body)
        elif path in ("/cut", "/whole"):
            stream.sendall((head + "Connection: close\r\n\r\n").encode() + b"x" * 1000)
            if path == "/whole":
                stream.unwrap()
            return False
        elif path == "/half":
            stream.sendall((head + "Content-Length: 1000\r\n\r\n").encode() + b"x" * 10)
            return False
        elif path == "/socket":
            key = fields[b"sec-websocket-key"] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            accept = base64.b64encode(hashlib.sha1(key).digest()).decode()
            stream.sendall(("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                            "Sec-WebSocket-Accept: %s\r\n\r\n" % accept).encode())
            while (data := file.read1(65536)):
                stream.sendall(data)
            return False
        else:
            close = path == "/bye"
            answer = digest(body).encode()
            stream.sendall((head + ("Connection: close\r\n" if close else "") +
                            "Content-Length: %d\r\n\r\n" % len(answer)).encode() + answer)
            if close:
                stream.unwrap()
                return False
        return True


def digest(body):
    return hashlib.sha256(body).hexdigest()[:8]


def service(name, server, speaks=""):
    return """\
apiVersion: v1
kind: Service
metadata: { name: %s, namespace: shop }
spec: { ports: [{ port: 443%s }] }
---
""" % (name, speaks and ", appProtocol: " + speaks) + endpoints(name, server.port)


def ingress(name, backend, **notes):
    notes = {**{"moongate.dev/" + k[2:].replace("_", "-"): v for k, v in notes.items() if k.startswith("m_")},
             **{PREFIX + k.replace("_", "-"): v for k, v in notes.items() if not k.startswith("m_")}}
    annotations = "".join("    %s: '%s'\n" % item for item in notes.items())
    return """\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: %s
  namespace: shop
  annotations:
    none/none: ""
%sspec:
  ingressClassName: moongate
  rules:
    - host: %s.test
      http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: %s, port: { number: 443 } } } }] }
""" % (name, annotations, name, backend)


def connect():
    return http.client.HTTPConnection(host, int(port), timeout=20)


def ask(name, path="/", body=None, on=None):
    """The status of the answer, and its body; the first of a name waits until there is a rule for it."""
    deadline = time.monotonic() + 20
    while True:
        connection = on or connect()
        connection.request("PUT" if body else "GET", path, body, {"Host": name + ".test"})
        answer = connection.getresponse()
        try:
            got = answer.read()
        except http.client.IncompleteRead:
            return "incomplete", b""
        if answer.status != 404 or time.monotonic() > deadline:
            ask.fields = answer.headers
            return answer.status, got
        time.sleep(0.02)


def tell(what, status, server=None):
    print(what, status, server.seen[-1] if server and server.seen else "", flush=True)


authority("ca")
certificate("web", "ca", "DNS:web.shop.svc,IP:127.0.0.1")
ca = read("ca.crt")

if part == "verify":
    authority("other-ca")
    certificate("visitor", "ca", "DNS:visitor")
    web, mutual, silent = Server("web"), Server("web", clients="ca"), Server()
    secret("ca", ca_crt=ca)
    secret("other", ca_crt=read("other-ca.crt"))
    secret("visitor", **files.pair("visitor"))
    put("services", service("web", web), service("spoken", web, "https"), service("mutual", mutual),
        service("silent", silent, "https"))
    https = {"backend_protocol": "HTTPS"}
    verified = {**https, "proxy_ssl_secret": "shop/ca", "proxy_ssl_verify": "on"}
    put("ingresses", ingress("unverified", "web", **https), ingress("spoken", "spoken"),
        ingress("right", "web", **verified, proxy_ssl_server_name="on"),
        ingress("address", "web", **verified, proxy_ssl_name="127.0.0.1", proxy_ssl_server_name="on"),
        ingress("wrong-name", "web", **verified, proxy_ssl_name="else.test"),
        ingress("wrong-ca", "web", **https, proxy_ssl_secret="shop/other", proxy_ssl_verify="on"),
        ingress("visitor", "mutual", **https, proxy_ssl_secret="shop/visitor"),
        ingress("nobody", "mutual", **https), ingress("missing", "web", **https, proxy_ssl_secret="shop/missing"),
        ingress("plain", "web"), ingress("silent", "silent", m_timeout_connect="300ms", m_retries="0"),
        ingress("old", "web", **https, proxy_ssl_protocols="TLSv1.2"))
    for name in ("unverified", "spoken", "right", "address"):
        tell(name, ask(name)[0], web)
    for name in ("wrong-name", "wrong-ca", "missing", "silent", "nobody"):
        tell(name, ask(name)[0])
    tell("visitor", ask("visitor")[0], mutual)
    tell("old", ask("old")[0], web)
    count = len(web.seen)
    tell("plain", ask("plain")[0])
    print("plain text was read as a request:", len(web.seen) != count)
else:
    web = Server("web")
    secret("ca", ca_crt=ca)
    put("services", service("web", web))
    put("ingresses", ingress("web", "web", backend_protocol="HTTPS", proxy_ssl_secret="shop/ca", proxy_ssl_verify="on"))
    ask("web")
    kept = connect()
    for _ in range(3):
        assert ask("web", on=kept)[0] == 200
    count = len(web.seen)
    for _ in range(3):
        assert ask("web", on=kept)[0] == 200
    print("connections made for three more requests:", len(web.seen) - count)
    body = os.urandom(3_000_000)
    status, got = ask("web", "/sum", body, on=kept)
    print("3 MB up:", status, got.decode() == digest(body))
    status, got = ask("web", "/big/5000000", on=kept)
    print("5 MB down:", status, digest(got) == ask.fields["X-Sum"])
    for _ in range(2):
        ask("web", "/bye", on=kept)
    ask("web", on=kept)
    print("after a goodbye:", web.seen[-1])
    for path in ("/whole", "/cut", "/half"):
        print("a body that ends by %s:" % path[1:], ask("web", path)[0])
    stream = socket.create_connection((host, int(port)), timeout=20)
    stream.sendall(b"GET /socket HTTP/1.1\r\nHost: web.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                   b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    got = b""
    while b"\r\n\r\n" not in got:
        got += stream.recv(65536)
    stream.sendall(b"through the moon gate")
    got = got.split(b"\r\n\r\n", 1)[1]
    while len(got) < 21:
        got += stream.recv(65536)
    print("upgraded:", got.decode())
    stream.close()
    # The authority and the certificate are others from now on: idle connections of the old ones are not used again.
    authority("ca2")
    certificate("web2", "ca2", "DNS:web.shop.svc")
    kept = connect()
    ask("web", on=kept)
    web.use("web2")
    count = len(web.seen)
    secret("ca", ca_crt=read("ca2.crt"))
    deadline = time.monotonic() + 20
    failed = 0
    while len(web.seen) == count and time.monotonic() < deadline:
        failed += ask("web", on=kept)[0] != 200
    print("renewed: failed requests on a kept connection:", failed, "new connections:", len(web.seen) > count)
    secret("ca", ca_crt="garbage")
