"""UDP services by a ConfigMap: opened and closed live, sessions with the pools' health, bounded, drained on SIGTERM."""
import os
import signal
import socket
import subprocess
import threading
import time

from edge import Edge, free_ports, until


class Echo:
    """Answers each datagram with its name and the datagram, so many times; remembers who asked."""

    def __init__(self, name, answers=1):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.name, self.answers = name, answers
        self.clients = []
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            data, peer = self.socket.recvfrom(65536)
            if peer not in self.clients:
                self.clients.append(peer)
            for _ in range(self.answers):
                self.socket.sendto(self.name + data, peer)


def client(port, source="127.0.0.1"):
    s = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(60)
    s.bind((source, 0))
    s.connect(("::1" if ":" in source else "127.0.0.1", port))
    return s


def ask(s, data, answers=1, tries=1):
    if tries > 1:
        # What went to nobody is lost, and asked again.
        s.settimeout(2)
    for attempt in range(tries):
        try:
            s.send(data)
            return [s.recv(65536) for _ in range(answers)]
        except (TimeoutError, ConnectionRefusedError):
            if attempt == tries - 1:
                raise
            time.sleep(0.02)


def is_open(port):
    """Where nobody listens, the kernel says so."""
    with client(port) as s:
        s.settimeout(2)
        try:
            s.send(b"?")
            s.recv(100)
            return True
        except ConnectionRefusedError:
            return False
        except TimeoutError:
            return True


first, second, third, dead, shared = free_ports(5, socket.SOCK_DGRAM)
a, b, many = Echo(b"a"), Echo(b"b"), Echo(b"m", answers=3)
edge = Edge("--udp-services-configmap", "edge/udp", "--tcp-services-configmap", "edge/tcp", "--udp-session-timeout", "6s",
            "--http", "[::1]:0", "--drain-timeout", "120s")
edge.service("a", a.port, protocol="UDP")
edge.service("many", many.port, protocol="UDP")
edge.service("empty", protocol="UDP")
edge.ports("udp", **{f"p{first}": "shop/a:80", f"p{second}": "shop/empty:80", f"p{third}": "shop/many:raw"})
edge.ports("tcp", **{f"p{first}": "shop/a:80"})
edge.start()
edge.error('the Service "shop/a" has no TCP port "80"')

# There and back, in one session a client: as short and as long as a datagram may be.
s = client(first)
for data in (b"", b"x", b"y" * 1472, bytes(range(256)) * 250):
    assert ask(s, data) == [b"a" + data], len(data)
assert len(a.clients) == 1
t = client(first)
assert ask(t, b"other") == [b"aother"] and len(a.clients) == 2
v = client(first, "::1")
assert ask(v, b"six") == [b"asix"]
assert edge.metric("moongate_udp_sessions_active") == 3
u = client(third)
assert ask(u, b"z", answers=3) == [b"mz"] * 3
assert edge.metric("moongate_udp_sessions_active") == 4
entry = edge.log(protocol="UDP", port=third)
assert entry["service"] == f"udp:{third}" and entry["upstream"] == "shop/many:raw+udp", entry
assert entry["endpoint"] == f"127.0.0.1:{many.port}" and entry["client"] == "127.0.0.1", entry
assert (entry["datagrams_in"], entry["datagrams_out"], entry["bytes_in"], entry["bytes_out"]) == (1, 3, 1, 6), entry
assert "error" not in entry and entry["duration_ms"] < 10000, entry
assert edge.metric(f'moongate_udp_sent_datagrams_total{{service="udp:{third}"}}') == 3
assert edge.metric(f'moongate_udp_received_bytes_total{{service="udp:{first}"}}') == 1 + 1472 + 64000 + 5 + 3
assert edge.log(protocol="UDP", client="::1", datagrams_in=1, datagrams_out=1)
until(lambda: edge.metric("moongate_udp_sessions_active") == 0, lambda: "sessions do not end")
print("datagrams both ways")

told = subprocess.run([os.environ["MOONGATE"], "explain", "--admin", edge.said["admin"], f"udp:{third}"], check=True,
                      stdout=subprocess.PIPE, text=True).stdout
assert f"endpoint 127.0.0.1:{many.port}" in told and "ConfigMap edge/udp" in told, told

# Live: ports come and go, sessions of those that stay go on.
assert not is_open(second)
s = client(first)
assert ask(s, b"1") == [b"a1"]
before = len(a.clients)
edge.service("empty", b.port, protocol="UDP")
until(lambda: is_open(second), lambda: "the port did not open")
edge.ports("udp", **{f"p{first}": "shop/a:80", f"p{second}": "shop/empty:80"})
until(lambda: not is_open(third), lambda: "the port did not close")
assert ask(s, b"2") == [b"a2"]
assert len(a.clients) == before, "the session was lost"
assert ask(client(second), b"3") == [b"b3"]
print("reloads")

# An endpoint that goes: its clients are served by another, at once.
edge.service("a", b.port, protocol="UDP")
until(lambda: ask(s, b"4", tries=5) == [b"b4"], lambda: "still the old endpoint")
edge.service("a", a.port, protocol="UDP")
until(lambda: ask(s, b"5", tries=5) == [b"a5"], lambda: "still the old endpoint")
# One where nobody is (ICMP port unreachable) is skipped, and ejected in the end.
edge.service("a", dead, b.port, protocol="UDP")
until(lambda: ask(client(first), b"6", tries=5) == [b"b6"], lambda: "still the old endpoint")
for _ in range(12):
    assert ask(client(first), b"7", tries=5) == [b"b7"]
assert edge.metric('moongate_upstream_ejections_total{upstream="shop/a:80+udp"}') >= 1
print("health")

# A port that another program has is told, and opens as soon as it is free.
blocker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
blocker.bind(("127.0.0.1", third))
edge.service("a", a.port, protocol="UDP")
edge.ports("udp", **{f"p{first}": "shop/a:80", f"p{third}": "shop/many:raw"})
edge.error(f"the UDP port {third} cannot be opened: bind: Address already in use")
blocker.close()
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    other.bind(("127.0.0.1", shared))
    edge.ports("udp", **{f"p{first}": "shop/a:80", f"p{third}": "shop/many:raw", f"p{shared}": "shop/a:80"})
    edge.error(f"another process listens on the UDP port {shared} too")
edge.ports("udp", **{f"p{first}": "shop/a:80", f"p{third}": "shop/many:raw", "p0": "shop/a:80"})
edge.error('"0" is no port')
until(lambda: is_open(third), lambda: "the port did not open")
print("ports that are taken")

# Beyond the most there may be, who is new is dropped, and who is there lives; one client has a share.
few = Edge("--udp-services-configmap", "edge/udp", "--udp-session-timeout", "60s", "--max-udp-sessions", "64",
           "--max-udp-sessions-per-client", "40")
few.service("a", a.port, protocol="UDP")
few.service("many", many.port, protocol="UDP")
first_of_few, third_of_few = free_ports(2, socket.SOCK_DGRAM)
few.ports("udp", **{f"p{first_of_few}": "shop/a:80", f"p{third_of_few}": "shop/many:raw"})
few.start()
until(lambda: is_open(first_of_few) and is_open(third_of_few), lambda: "the ports did not open")
old = client(first_of_few)
assert ask(old, b"8") == [b"a8"]
crowd = []
for _ in range(200):
    s = client(first_of_few)
    s.send(b"c")
    crowd.append(s)
assert ask(old, b"9") == [b"a9"]
assert few.metric("moongate_udp_sessions_active") == 40
assert few.metric('moongate_udp_dropped_datagrams_total{reason="client-limit"}') > 0
for i in range(200):
    s = client(first_of_few, f"127.0.1.{i + 1}")
    s.send(b"c")
    crowd.append(s)
assert ask(old, b"10") == [b"a10"]
assert few.metric("moongate_udp_sessions_active") <= 64
assert few.metric('moongate_udp_dropped_datagrams_total{reason="session-limit"}') > 0
# A part is kept for the other service, whatever floods the first.
assert ask(client(third_of_few, "127.0.2.1"), b"z", answers=3) == [b"mz"] * 3
for s in crowd:
    s.close()
few.program.kill()
print("limits")

# Clients that ask on and on, while the configuration changes: nobody loses an answer, or his session.
crowd = [client(first) for _ in range(20)]
a.clients.clear()
for i in range(600):
    if i % 30 == 0:
        edge.ports("udp", **{f"p{first}": "shop/a:80", f"p{third}": "shop/many:raw", f"p{second}": f"shop/none:{i}"})
    assert ask(crowd[i % 20], b"%d" % i) == [b"a%d" % i]
assert len(a.clients) == 20, a.clients
print("reloads under load")

# The drain: who is known is served on, who is new is not; it is over when nobody asks any more.
s = client(first)
assert ask(s, b"11") == [b"a11"]
edge.program.send_signal(signal.SIGTERM)


def is_served():
    with client(first) as n:
        n.settimeout(0.5)
        try:
            return ask(n, b"new") == [b"anew"]
        except TimeoutError:
            return False


until(lambda: not is_served(), lambda: "who is new is served")
assert ask(s, b"12") == [b"a12"]
assert not is_served()
assert ask(s, b"13") == [b"a13"]
assert edge.program.wait(120) == 0
assert edge.log(protocol="UDP", datagrams_in=3, datagrams_out=3, bytes_in=6)
print("drained")
