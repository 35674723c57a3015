"""Bodies beyond 32 bits, both ways, with a length and chunked: counted at the other end, memory watched from outside.

Usage: huge_bodies.py PROXY ADMIN MANIFESTS
"""

import os
import re
import socket
import sys
import threading
import time
import urllib.request

address, admin, manifests = sys.argv[1:4]
host, port = address.rsplit(":", 1)
SIZES = {False: 5 << 30, True: 1 << 30}  # by whether it is chunked
PIECE = bytes(1 << 20)
CHUNK = b"%x\r\n" % len(PIECE) + PIECE + b"\r\n"


class Reader:
    def __init__(self, connection):
        self.connection, self.held = connection, b""

    def head(self):
        while b"\r\n\r\n" not in self.held:
            part = self.connection.recv(65536)
            if not part:
                raise EOFError("no head")
            self.held += part
        head, self.held = self.held.split(b"\r\n\r\n", 1)
        return head.lower()

    def line(self):
        while b"\r\n" not in self.held:
            self.held += self.connection.recv(65536)
        line, self.held = self.held.split(b"\r\n", 1)
        return line

    def skip(self, count):
        """Reads that many bytes and forgets them."""
        left = count - len(self.held)
        if left <= 0:
            self.held = self.held[count:]
            return
        self.held = b""
        room = memoryview(bytearray(1 << 20))
        while left:
            got = self.connection.recv_into(room[: min(left, len(room))])
            if not got:
                raise EOFError(f"{left} bytes are missing")
            left -= got

    def body(self, head):
        """The size of the body."""
        length = re.search(rb"content-length: (\d+)", head)
        if length:
            self.skip(int(length.group(1)))
            return int(length.group(1))
        total = 0
        while b"transfer-encoding: chunked" in head:
            count = int(self.line(), 16)
            self.skip(count)
            self.line()
            if not count:
                break
            total += count
        return total


def send_body(connection, chunked):
    if chunked:
        for _ in range(SIZES[chunked] // len(PIECE)):
            connection.sendall(CHUNK)
        connection.sendall(b"0\r\n\r\n")
    else:
        for _ in range(SIZES[chunked] // len(PIECE)):
            connection.sendall(PIECE)


def framing(chunked):
    return b"transfer-encoding: chunked" if chunked else b"content-length: %d" % SIZES[chunked]


def serve(listener):
    while True:
        connection, _ = listener.accept()
        reader = Reader(connection)
        try:
            head = reader.head()
            if head.startswith(b"head"):
                connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
            elif head.startswith(b"put"):
                count = b"%d" % reader.body(head)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(count) + count)
            else:
                chunked = b"/chunked" in head
                connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n" + framing(chunked) + b"\r\n\r\n")
                send_body(connection, chunked)
        except (EOFError, OSError) as error:
            print("upstream:", error)
        connection.close()


def resident():
    with urllib.request.urlopen(f"http://{admin}/metrics") as page:
        return int(float(re.search(r"^process_resident_memory_bytes (\S+)", page.read().decode(), re.M).group(1)))


listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=serve, args=(listener,), daemon=True).start()
with open(os.path.join(manifests, "huge.new"), "w") as f:
    f.write(f"""
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{ name: huge, namespace: shop }}
spec:
  ingressClassName: moongate
  rules: [{{ host: huge.test, http: {{ paths: [{{ path: /, pathType: Prefix, backend: {{ service: {{ name: huge, port: {{ number: 80 }} }} }} }}] }} }}]
---
apiVersion: v1
kind: Service
metadata: {{ name: huge, namespace: shop }}
spec: {{ ports: [{{ port: 80 }}] }}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: huge-1, namespace: shop, labels: {{ kubernetes.io/service-name: huge }} }}
addressType: IPv4
ports: [{{ port: {listener.getsockname()[1]} }}]
endpoints: [{{ addresses: ["127.0.0.1"] }}]
""")
os.rename(os.path.join(manifests, "huge.new"), os.path.join(manifests, "huge.yaml"))


def ask(line, chunked, sends):
    connection = socket.create_connection((host, int(port)))
    head = line + b" HTTP/1.1\r\nhost: huge.test\r\nconnection: close\r\n" + (framing(chunked) + b"\r\n" if sends else b"")
    connection.sendall(head + b"\r\n")
    if sends:
        send_body(connection, chunked)
    reader = Reader(connection)
    answer = reader.head()
    return answer, reader, connection


limit = time.monotonic() + 20
while b" 404 " in ask(b"HEAD /probe", False, False)[0] and time.monotonic() < limit:
    time.sleep(0.05)
before = resident()
peak = before
done = threading.Event()


def watch():
    global peak
    while not done.wait(0.2):
        peak = max(peak, resident())


watcher = threading.Thread(target=watch)
watcher.start()
for chunked in (False, True):
    name = "chunked" if chunked else "length"
    answer, reader, connection = ask(f"PUT /{name}".encode(), chunked, True)
    count = int(re.search(rb"content-length: (\d+)", answer).group(1))
    while len(reader.held) < count:
        reader.held += connection.recv(64)
    print(f"sent with {name}:", "all" if int(reader.held) == SIZES[chunked] else reader.held)
    answer, reader, connection = ask(f"GET /{name}".encode(), chunked, False)
    count = reader.body(answer)
    print(f"received with {name}:", "all" if count == SIZES[chunked] else count)
done.set()
watcher.join()
print("memory grew by less than 16 MiB:", peak - before < 16 << 20 or f"no, by {peak - before}")
