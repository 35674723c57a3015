"""SIGTERM while clients speak HTTP/2 and HTTP/1.1 over TLS: tls_drain.py MOONGATE FOLDER

Streams that are open finish, whatever a client asks for after the first GOAWAY is answered too, what comes behind the
second one is tried again elsewhere; connections end by close_notify.
"""

import os
import signal
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from h2_client import Client, trusting
from program import Program, until
from tls_files import Files, endpoints

moongate, folder = sys.argv[1:3]
RULES = """\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: web, namespace: shop }
spec:
  ingressClassName: moongate
  tls: [{ hosts: [shop.test], secretName: server }]
  rules: [{ host: shop.test, http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: a, port: { number: 80 } } } }] } }]
---
apiVersion: v1
kind: Service
metadata: { name: a, namespace: shop }
spec: { ports: [{ port: 80 }] }
"""
arrived, finish = threading.Semaphore(0), threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/slow":
            arrived.release()
            finish.wait(20)
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"moon\n")

    def log_message(self, *_):
        pass


os.makedirs(folder)
files = Files(folder)
files.authority("ca")
files.certificate("server", "ca", "DNS:shop.test")
files.secret("server", **files.pair("server"))
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
files.put("web", RULES, endpoints("a", server.server_port))
h2, h1 = trusting(files.path("ca.crt"), "h2"), trusting(files.path("ca.crt"), "http/1.1")
program = Program(moongate, folder, "--workers", "2", "--drain-delay", "1s", "--drain-timeout", "20s")


class Kept:
    """A connection of HTTP/1.1 that is looked at to its end."""

    def __init__(self):
        host, port = program.https.rsplit(":", 1)
        self.stream = h1.wrap_socket(
            socket.create_connection((host, int(port)), 20), server_hostname="shop.test", suppress_ragged_eofs=False)
        self.file = self.stream.makefile("rb")

    def send(self, path):
        self.stream.sendall(f"GET {path} HTTP/1.1\r\nHost: shop.test\r\n\r\n".encode())

    def answer(self):
        status = int(self.file.readline().split()[1])
        fields = dict(line.decode().lower().strip().split(": ", 1) for line in iter(self.file.readline, b"\r\n"))
        return status, self.file.read(int(fields["content-length"])), fields.get("connection")

    def get(self, path):
        self.send(path)
        return self.answer()

    def end(self):
        try:
            return "close_notify" if self.file.read(1) == b"" else "surplus"
        except OSError as error:
            return error
        finally:
            self.file.close()
            self.stream.close()


with program:
    busy, idle, kept, running = Client(program.https, "shop.test", h2), Client(program.https, "shop.test", h2), Kept(), Kept()
    print("before:", busy.get("/"), idle.get("/"), kept.get("/"))
    slow = [busy.ask("/slow") for _ in range(3)]
    running.send("/slow")
    # What crosses the first GOAWAY on its way is not refused.
    late = []
    busy.told = lambda: late.append(busy.ask("/"))
    for _ in range(4):
        arrived.acquire()
    # One that asks without a pause, and begins again elsewhere when it is told to go.
    stop, counted = threading.Event(), {"good": 0, "lost": 0, "connections": 0}

    def ask():
        while not stop.is_set():
            try:
                client = Client(program.https, "shop.test", h2)
            except OSError:
                return  # Nobody listens any more.
            counted["connections"] += 1
            while not client.ended and not client.goaways and not stop.is_set():
                answer = client.get("/")
                if answer:
                    counted["good" if answer[0] == 200 else "lost"] += 1
                elif not client.goaways:
                    counted["lost"] += 1
            client.socket.close()

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: counted["good"] > 20, "a few requests")
    program.process.send_signal(signal.SIGTERM)
    until(lambda: not program.is_ready(), "not ready")
    print("a kept connection:", kept.get("/"), kept.end())
    idle.until(lambda: idle.ended)
    print("an idle connection:", idle.goaways[-1], idle.broken)
    busy.until(lambda: len(busy.goaways) > 1)
    print("told first:", busy.goaways[0], "and then of the last stream:", busy.goaways[1] == (late[0], 0))
    finish.set()
    busy.until(lambda: busy.ended)
    print("one that was on its way:", busy.answers.get(late[0]))
    print("open streams:", [busy.answers.get(s) for s in slow], busy.resets, busy.broken)
    print("an open request of HTTP/1.1:", running.answer(), running.end())
    asking.join(20)
    print("asked all the time: lost", counted["lost"], "of some:", counted["good"] > 20)
    stop.set()
    print("exit:", program.wait())
    print("log:", sorted({(l["protocol"], l["status"], l.get("error", "-")) for l in program.log if "status" in l}))
