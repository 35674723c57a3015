"""gRPC with TLS on both sides of the proxy, by the `grpcio` library: grpc_tls.py PROXY FOLDER

The client verifies the proxy's certificate, the proxy the server's, and the server the proxy's.
"""

import os
import socket
import ssl
import sys
import threading
import time
from concurrent import futures

import grpc

from grpc_calls import METHODS, OPTIONS, calls, status
from tls_files import Files, endpoints

proxy, folder = sys.argv[1:3]
files = Files(folder)
INGRESS = """\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: %s
  namespace: shop
  annotations:
    nginx.ingress.kubernetes.io/backend-protocol: GRPCS
    nginx.ingress.kubernetes.io/proxy-ssl-secret: shop/%s
    nginx.ingress.kubernetes.io/proxy-ssl-verify: "on"
    nginx.ingress.kubernetes.io/proxy-ssl-server-name: "on"
    nginx.ingress.kubernetes.io/proxy-ssl-name: %s
spec:
  ingressClassName: moongate
  tls: [{ hosts: [%s.test], secretName: server }]
  rules:
    - host: %s.test
      http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: %s, port: { number: 443 } } } }] }
"""
SERVICE = """\
apiVersion: v1
kind: Service
metadata: { name: %s, namespace: shop }
spec: { ports: [{ port: 443 }] }
"""


def ingress(host, service="calls", secret="inside", name="calls.shop.svc"):
    return INGRESS % (host, secret, name, host, host, service)


def read(name):
    with open(files.path(name), "rb") as file:
        return file.read()


heard = []


def old_server():
    """TLS that knows HTTP/1.1 alone: it agrees on nothing (RFC 7301 §3.2), and hears what comes all the same."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.path("calls.crt"), files.path("calls.key"))
    context.set_alpn_protocols(["http/1.1"])
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            stream, _ = listener.accept()
            try:
                with context.wrap_socket(stream, server_side=True) as stream:
                    heard.append(stream.recv(100))
            except (OSError, ssl.SSLError):
                pass

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


for name in ("outer", "inner", "other"):
    files.authority(name)
files.certificate("server", "outer", "DNS:good.test,DNS:renamed.test,DNS:stranger.test,DNS:old.test")
files.certificate("calls", "inner", "DNS:calls.shop.svc")
files.certificate("moongate", "inner", "DNS:moongate")
files.secret("server", **files.pair("server"))
files.secret("inside", ca_crt=files.read("inner.crt"), **files.pair("moongate"))
files.secret("nobody", ca_crt=files.read("inner.crt"))
files.secret("other", ca_crt=files.read("other.crt"), **files.pair("moongate"))


def peer(request, context):
    """By whom the server was called: the name in the certificate that it has verified."""
    auth = context.auth_context()
    return b"%s %s" % (auth["x509_common_name"][0], auth["transport_security_type"][0])


server = grpc.server(futures.ThreadPoolExecutor(40), options=OPTIONS)
methods = {**METHODS, "Peer": grpc.unary_unary_rpc_method_handler(peer)}
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("moon.Gate", methods),))
port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(
    [(read("calls.key"), read("calls.crt"))], read("inner.crt"), require_client_auth=True))
server.start()
files.put("services", SERVICE % "calls", endpoints("calls", port), SERVICE % "old", endpoints("old", old_server()))
files.put("ingresses", ingress("good"), ingress("renamed", name="else.test"), ingress("stranger", secret="other"),
          ingress("old", "old"), ingress("nobody", secret="nobody"))


def connect(host, authority="outer"):
    return grpc.secure_channel(proxy, grpc.ssl_channel_credentials(read(authority + ".crt")), OPTIONS + [
        ("grpc.ssl_target_name_override", host + ".test"), ("grpc.default_authority", host + ".test")])


channel = connect("good")
probe = channel.unary_unary("/moon.Gate/Unary")
until = time.monotonic() + 20
while (answer := status(probe, b"")) != "OK" and time.monotonic() < until:
    pass
calls(channel)
print("called by:", channel.unary_unary("/moon.Gate/Peer")(b"").decode())
print("the server's error:", status(channel.unary_unary("/moon.Gate/Fail"), b""))
answer = status(connect("good", "other").unary_unary("/moon.Gate/Unary"), b"", timeout=10)
print("a client that trusts another:", answer.split(" ")[0], "CERTIFICATE_VERIFY_FAILED" in answer)
for name in ("renamed", "stranger", "old"):
    print(f"{name}:", status(connect(name).unary_unary("/moon.Gate/Unary"), b"", timeout=10))
print("heard by the old server:", b"".join(heard))
bidi = connect("renamed").stream_stream("/moon.Gate/Bidi")
print("renamed, in both directions:", status(lambda: list(bidi(iter([b"one"]), timeout=10))))
server.stop(0).wait()
print("none there:", status(probe, b"", timeout=10))
