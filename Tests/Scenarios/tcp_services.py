"""TCP services by a ConfigMap: opened and closed live, with the pools' health, drained on SIGTERM."""
import signal
import socket
import threading

from edge import Edge, Upstream, connect, echo, free_ports, is_open, read, rest, until

first, second, third, taken, shared = free_ports(5)
a = Upstream(lambda c: echo(c, b"a"))
b = Upstream(lambda c: echo(c, b"b"))
edge = Edge("--tcp-services-configmap", "edge/tcp", "--trusted-proxies", "127.0.0.2", "--proxy-stream-timeout", "3s")
edge.service("a", a.port)
edge.service("empty")
edge.ports(**{f"p{first}": "shop/a:80", f"p{second}": "shop/empty:80", f"p{third}": "shop/a:raw:PROXY:PROXY"})
edge.start()

# The server speaks first; half a close; bytes of any kind.
s = connect(first)
assert read(s, 1) == b"a"
payload = bytes(range(256)) * 4096
writer = threading.Thread(target=lambda: (s.sendall(payload), s.shutdown(socket.SHUT_WR)))
writer.start()
assert rest(s) == payload + b"[%d bytes]" % len(payload)
writer.join()
entry = edge.log(protocol="TCP", port=first, bytes_in=len(payload))
assert entry["service"] == f"tcp:{first}" and entry["upstream"] == "shop/a:80", entry
assert entry["endpoint"] == f"127.0.0.1:{a.port}" and entry["client"] == "127.0.0.1", entry
assert entry["bytes_out"] == len(payload) + 1 + len(f"[{len(payload)} bytes]") and "error" not in entry, entry
assert edge.metric(f'moongate_tcp_received_bytes_total{{service="tcp:{first}"}}') == len(payload)
print("bytes both ways")

# A reader who does not read holds its writer back: what is held is bounded.
s = connect(first)
s.settimeout(2)
sent = 0
try:
    while sent < 200 << 20:
        sent += s.send(b"x" * 65536)
except TimeoutError:
    pass
assert sent < 100 << 20, sent
s.close()
print("back-pressure")

# A service without endpoints has no open port; PROXY headers come from the trusted, and go.
assert not is_open(second)
s = connect(third, "127.0.0.2")
s.sendall(b"PROXY TCP4 203.0.113.7 198.51.100.1 5555 443\r\nhi")
line = b"aPROXY TCP4 203.0.113.7 198.51.100.1 5555 443\r\nhi"
assert read(s, len(line)) == line
s = connect(third)
own = b"aPROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n" % (s.getsockname()[1], third)
assert read(s, len(own)) == own
s.close()
print("PROXY in and out")

# Live: ports come and go; connections of those that stay, and of those that go, stay.
stays, goes = connect(first), connect(third, "127.0.0.1")
assert read(stays, 1) == b"a" and read(goes, 1) == b"a"
edge.service("empty", b.port)
until(lambda: is_open(second), lambda: "the port did not open")
edge.ports(**{f"p{first}": "shop/a:80", f"p{taken}": "shop/a:80"})
until(lambda: not is_open(third) and is_open(taken), lambda: "the ports did not change")
assert not is_open(second)
for s in (stays, goes):
    s.sendall(b"still here")
    data = b""
    while not data.endswith(b"still here"):
        data += read(s, 1)
print("ports come and go")

# A port that another has, and our own, are told; it opens as soon as it is free.
blocker = socket.create_server(("127.0.0.1", second))
http = edge.number("http")
edge.ports(**{f"p{first}": "shop/a:80", f"p{second}": "shop/a:80", f"p{http}": "shop/a:80"})
edge.error(f"the port {second} cannot be opened: bind: Address already in use")
edge.error(f"the port {http} cannot be opened: Moongate itself listens there")
stays.sendall(b"and here")
assert read(stays, 8) == b"and here"
blocker.close()
edge.ports(**{f"p{first}": "shop/a:80", f"p{second}": "shop/a:80"})
until(lambda: is_open(second), lambda: "the port did not open")
# Who shares a port, as another process of ours would, is told: the kernel gives each a part of the connections.
with socket.socket() as other:
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    other.bind(("127.0.0.1", shared))
    other.listen()
    edge.ports(**{f"p{first}": "shop/a:80", f"p{second}": "shop/a:80", f"p{shared}": "shop/a:80"})
    edge.error(f"another process listens on the port {shared} too")
edge.ports(**{f"p{first}": "shop/a:80", f"p{second}": "shop/a:80"})
print("ports that are taken")

# An endpoint that refuses is skipped, and ejected in the end.
edge.service("a", a.port, free_ports(1)[0], b.port)
edge.ports(**{f"p{first}": "shop/a:80"})


def once():
    s = connect(first)
    with s:
        return read(s, 1)


until(lambda: once() == b"b", lambda: "the new endpoints are not served")
seen = {once() for _ in range(30)}
assert seen == {b"a", b"b"}, seen
assert edge.metric('moongate_upstream_ejections_total{upstream="shop/a:80"}') >= 1
print("health")

# What stands still ends; what moves is not cut by the drain.
idle = connect(first)
read(idle, 1)
assert rest(idle) == b""
edge.log(port=first, error="stream-timeout")
s = connect(first)
read(s, 1)
edge.program.send_signal(signal.SIGTERM)
until(lambda: not is_open(first), lambda: "still listening")
s.sendall(b"finish")
s.shutdown(socket.SHUT_WR)
assert rest(s) == b"finish[6 bytes]"
stays.close()
goes.close()
assert edge.program.wait(60) == 0
print("drained")
