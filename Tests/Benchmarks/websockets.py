"""What an idle WebSocket costs: opens many through one Moongate, lets them rest, and tells its memory; prints Markdown.

    websockets.py [--binary PATH] [--count N] [--http2] [--most KIB]

Both ends are bare sockets in processes of their own: the figure is the proxy's alone. With --http2 they are streams, 100
on a connection (RFC 8441). `--most` fails where one costs more than that. A connection takes two descriptors of the
proxy: where the limit is lower, there are fewer of them, and the line says how many.
"""

import argparse
import base64
import hashlib
import json
import multiprocessing
import os
import re
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "Tests", "Scenarios"))
from http2 import block, connect, frame, literal  # noqa: E402

STREAMS = 100
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
# A text frame of a client, masked with zeros (RFC 6455 §5.2).
HELLO = b"\x81\x85\0\0\0\0hello"

MANIFEST = """\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{ name: web, namespace: shop }}
spec:
  ingressClassName: moongate
  rules: [{{ host: shop.test, http: {{ paths: [{{ path: /, pathType: Prefix, backend: {{ service: {{ name: chat, port: {{ number: 80 }} }} }} }}] }} }}]
---
apiVersion: v1
kind: Service
metadata: {{ name: chat, namespace: shop }}
spec: {{ ports: [{{ port: 80 }}] }}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: chat-1, namespace: shop, labels: {{ kubernetes.io/service-name: chat }} }}
addressType: IPv4
ports: [{{ port: {port} }}]
endpoints: [{{ addresses: ["127.0.0.1"] }}]
"""


def raise_limit():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def serve(listener):
    """Opens every WebSocket that is asked for, and sends everything back."""
    raise_limit()
    listener.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    opened = set()
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                try:
                    while True:
                        connection, _ = listener.accept()
                        selector.register(connection, selectors.EVENT_READ)
                except BlockingIOError:
                    continue
            try:
                data = key.fileobj.recv(65536)
                if not data:
                    raise ConnectionError
                if key.fileobj not in opened:
                    asked = re.search(rb"(?i)sec-websocket-key: (\S+)", data).group(1)
                    accept = base64.b64encode(hashlib.sha1(asked + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
                    data = (b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
                            b"sec-websocket-accept: " + accept + b"\r\n\r\n")
                    opened.add(key.fileobj)
                key.fileobj.sendall(data)
            except OSError:
                opened.discard(key.fileobj)
                selector.unregister(key.fileobj)
                key.fileobj.close()


def old_ones(address, count):
    """Connections of HTTP/1.1 with a WebSocket each."""
    host, port = address.rsplit(":", 1)
    sockets = []
    while len(sockets) < count:
        batch = [socket.create_connection((host, int(port)), 20) for _ in range(min(200, count - len(sockets)))]
        for s in batch:
            s.sendall(b"GET /chat HTTP/1.1\r\nhost: shop.test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
                      b"sec-websocket-version: 13\r\nsec-websocket-key: " + KEY + b"\r\n\r\n")
        for s in batch:
            head = b""
            while b"\r\n\r\n" not in head:
                part = s.recv(4096)
                if not part:
                    sys.exit("closed during the handshake")
                head += part
            if not head.startswith(b"HTTP/1.1 101"):
                sys.exit(f"answered {head[:40]}")
        sockets += batch
    return sockets


class Frames:
    """Reads the frames of one connection."""

    def __init__(self, s):
        self.socket, self.input = s, b""

    def next(self):
        while len(self.input) < 9 or len(self.input) < 9 + int.from_bytes(self.input[:3], "big"):
            part = self.socket.recv(65536)
            if not part:
                sys.exit("the connection ended")
            self.input += part
        size = 9 + int.from_bytes(self.input[:3], "big")
        one, self.input = self.input[:size], self.input[size:]
        return one[3], one[4], int.from_bytes(one[5:9], "big"), one[9:]


def new_ones(address, count):
    """Connections of HTTP/2 with a hundred WebSockets each."""
    connections = []
    fields = block(b"CONNECT", (b":protocol", b"websocket"), (b"sec-websocket-version", b"13"))
    while count > 0:
        reader = Frames(connect(address))
        reader.socket.settimeout(20)
        some = min(STREAMS, count)
        count -= some
        reader.socket.sendall(b"".join(frame(1, 4, 2 * i + 1, fields) for i in range(some)))
        answered = 0
        while answered < some:
            kind, flags, _, payload = reader.next()
            if kind == 4 and not flags & 1:
                reader.socket.sendall(frame(4, 1, 0))
            elif kind == 1:
                # :status 200 is one byte (RFC 7541, Appendix A).
                if payload[:1] != b"\x88":
                    sys.exit(f"answered {payload[:20]}")
                answered += 1
            elif kind in (3, 7):
                sys.exit(f"refused with a frame of type {kind}: {payload[:20]}")
        connections.append((reader, some))
    return connections


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default=os.path.join(ROOT, ".build/release/moongate"))
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--http2", action="store_true")
    parser.add_argument("--most", type=float)
    options = parser.parse_args()
    hard = raise_limit()
    # Two descriptors of the proxy for each, or one and a hundredth; some are for itself.
    # Each loop of the proxy takes its share of clients, and the kernel deals them out by chance: some room is left.
    room = (hard - 100) * STREAMS // (STREAMS + 1) if options.http2 else (hard - 100) * 9 // 20
    count = min(options.count, room)
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    server = multiprocessing.Process(target=serve, args=(listener,), daemon=True)
    server.start()
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/web.yaml", "w") as file:
            file.write(MANIFEST.format(port=listener.getsockname()[1]))
        listener.close()
        program = subprocess.Popen(
            [options.binary, "run", "--manifests", folder, "--http", "127.0.0.1:0", "--https", "off", "--admin",
             "127.0.0.1:0", "--access-log", "off", "--workers", "2", "--stream-idle-timeout", "10m"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            measure(options, program, count)
        finally:
            program.terminate()
            program.wait(60)
            # Where this runs, SIGTERM may be ignored; a server that lives would be waited for.
            server.kill()


def measure(options, program, count):
    line = b""
    while b'"listening"' not in line:
        line = program.stdout.readline()
    listening = json.loads(line)

    def metric(name):
        with urllib.request.urlopen(f"http://{listening['admin']}/metrics", timeout=20) as page:
            return int(float(re.search(rf"^{name} (\S+)", page.read().decode(), re.M).group(1)))

    def resident():
        return metric("process_resident_memory_bytes")

    def until_active(number):
        limit = time.monotonic() + 30
        while metric("moongate_tunnels_active") != number:
            if time.monotonic() > limit:
                sys.exit(f"{metric('moongate_tunnels_active')} tunnels are open, and not {number}")
            time.sleep(0.02)

    opening = new_ones if options.http2 else old_ones
    # What the first of them needs is not a matter of their number.
    first = opening(listening["http"], 50)
    until_active(50)
    before = resident()
    begun = time.monotonic()
    held = opening(listening["http"], count - 50)
    took = time.monotonic() - begun
    until_active(count)
    time.sleep(1)
    after = resident()
    # Each of them is alive.
    for one in held + first:
        if options.http2:
            reader, some = one
            reader.socket.sendall(b"".join(frame(0, 0, 2 * i + 1, HELLO) for i in range(some)))
            missing = some * len(HELLO)
            while missing > 0:
                kind, _, _, payload = reader.next()
                missing -= len(payload) if kind == 0 else 0
        else:
            one.sendall(HELLO)
            if one.recv(100) != HELLO:
                sys.exit("one is dead")
    each = (after - before) / (count - 50) / 1024
    kind = f"HTTP/2, {STREAMS} a connection" if options.http2 else "HTTP/1.1"
    print("| idle WebSockets | memory before | with them | each | opened in |\n|---|---|---|---|---|")
    print(f"| {count} over {kind} | {before >> 20} MiB | {after >> 20} MiB | {each:.1f} KiB | {took:.1f} s |")
    for one in held + first:
        (one[0].socket if options.http2 else one).close()
    until_active(0)
    if options.most and each > options.most:
        sys.exit(f"each costs {each:.1f} KiB, and {options.most} are allowed")


if __name__ == "__main__":
    main()
