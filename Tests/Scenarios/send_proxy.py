"""PROXY protocol headers to upstreams: byte for byte, before TLS, one client a connection, and from one Moongate to another."""
import socket
import ssl
import struct
import subprocess

from edge import Edge, Upstream, connect, echo, free_ports, read, until

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def line(source, port, destination, at):
    family = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {family} {source} {destination} {port} {at}\r\n".encode()


def binary(source, port, destination, at):
    if ":" in source:
        family, kind = socket.AF_INET6, 0x21
    else:
        family, kind = socket.AF_INET, 0x11
    body = socket.inet_pton(family, source) + socket.inet_pton(family, destination) + struct.pack(">HH", port, at)
    return SIGNATURE + bytes([0x21, kind]) + struct.pack(">H", len(body)) + body


def take(connection):
    """The header at the front of a connection, in whichever version, and nothing behind it."""
    start = read(connection, 16)
    if start.startswith(SIGNATURE):
        return start + read(connection, struct.unpack(">H", start[14:])[0])
    while not start.endswith(b"\r\n"):
        start += read(connection, 1)
    return start


seen = []


def serve(connection, context=None):
    """Answers requests with their heads, as long as the connection lasts; remembers its header."""
    with connection:
        header = take(connection)
        if context:
            connection = context.wrap_socket(connection, server_side=True)
        requests = 0
        seen.append((header, 0, b""))
        number = len(seen) - 1
        data = b""
        while part := connection.recv(65536):
            data += part
            while b"\r\n\r\n" in data:
                head, data = data.split(b"\r\n\r\n", 1)
                requests += 1
                seen[number] = (header, requests, head.lower())
                if b"upgrade: raw" in head.lower():
                    connection.sendall(b"HTTP/1.1 101 OK\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n")
                    while part := connection.recv(65536):
                        connection.sendall(part)
                    return
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


tcp, tcp2, tcp6 = free_ports(3)
edge = Edge("--tcp-services-configmap", "edge/tcp", "--http", "[::1]:0", "--trusted-proxies", "127.0.0.9", "--drain-timeout", "1s")
pem = edge.folder + ".pem"
subprocess.run(["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout",
                pem + ".key", "-out", pem, "-days", "9", "-subj", "/CN=own"], check=True, stderr=subprocess.DEVNULL)
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain(pem, pem + ".key")
web = Upstream(serve)
secure = Upstream(lambda c: serve(c, server))
raw = Upstream(lambda c: echo(c))
edge.service("web", web.port)
edge.service("secure", secure.port)
edge.service("raw", raw.port)
note = 'moongate.dev/send-proxy-protocol: "%s"'
edge.ingress("one", "one.test", "web", note % "v1")
edge.ingress("two", "two.test", "web", note % "v2")
edge.ingress("tls", "tls.test", "secure", note % "v2" + ", moongate.dev/backend-protocol: HTTPS")
edge.ingress("h2", "h2.test", "web", note % "v2" + ", moongate.dev/backend-protocol: GRPC")
edge.ingress("bad", "bad.test", "web", note % "v3")
edge.ports(**{f"p{tcp}": "shop/raw:80::PROXY", f"p{tcp2}": "shop/raw:80::proxy-v2", f"p{tcp6}": "shop/raw:80:PROXY:PROXY-V2"})
edge.start()
http = edge.number("http")
http6 = int(edge.said["listeners"][1].rsplit(":", 1)[1])


def ask(s, host, more=""):
    s.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += read(s, 1)
    lengths = [int(field[15:]) for field in head.lower().split(b"\r\n") if field.startswith(b"content-length:")]
    read(s, lengths[0])
    return int(head.split()[1])


def connect6(port):
    return socket.create_connection(("::1", port), timeout=10)


# HTTP, version 1 and 2, IPv4 and IPv6: the header agrees with what the fields say, and each request has its connection.
for host, make in (("one.test", line), ("two.test", binary)):
    for s, own, port in ((connect(http), "127.0.0.1", http), (connect6(http6), "::1", http6)):
        del seen[:]
        source = s.getsockname()
        assert [ask(s, host) for _ in range(3)] == [200] * 3
        wanted = make(source[0], source[1], own, port)
        assert [(h, n) for h, n, _ in seen] == [(wanted, 1)] * 3, seen
        assert all(b"x-forwarded-for: " + source[0].encode() + b"\r\n" in head + b"\r\n" for _, _, head in seen), seen
        assert all(b"x-forwarded-port: %d" % port in head for _, _, head in seen), seen
        s.close()
# Whom a trusted proxy speaks for has no port that anybody knows.
del seen[:]
assert ask(connect(http, "127.0.0.9"), "two.test", "X-Forwarded-For: 203.0.113.7\r\n") == 200
assert seen[0][0] == binary("203.0.113.7", 0, "127.0.0.1", http), seen
print("HTTP")

# Before TLS, and on a connection that is upgraded.
del seen[:]
s = connect(http)
assert ask(s, "tls.test") == 200 and ask(s, "tls.test") == 200
assert [(h, n) for h, n, _ in seen] == [(binary("127.0.0.1", s.getsockname()[1], "127.0.0.1", http), 1)] * 2, seen
s = connect(http)
s.sendall(b"GET / HTTP/1.1\r\nHost: one.test\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n")
head = b""
while not head.endswith(b"\r\n\r\n"):
    head += read(s, 1)
assert head.startswith(b"HTTP/1.1 101"), head
s.sendall(b"through")
assert read(s, 7) == b"through"
assert seen[-1][0] == line("127.0.0.1", s.getsockname()[1], "127.0.0.1", http), seen
print("TLS and upgrades")

# What can't be is told, and nothing goes out without its header.
del seen[:]
assert ask(connect(http), "h2.test") == 503
edge.error("proxy-header-http2")
edge.error('send-proxy-protocol')
assert not seen
print("HTTP/2 refused")

# TCP services, of either version.
for port, make in ((tcp, line), (tcp2, binary)):
    s = connect(port)
    wanted = make("127.0.0.1", s.getsockname()[1], "127.0.0.1", port)
    s.sendall(b"hi")
    assert read(s, len(wanted) + 2) == wanted + b"hi"
s = connect(tcp6, "127.0.0.9")
s.sendall(line("2001:db8::1", 5, "2001:db8::2", 6) + b"hi")
wanted = binary("2001:db8::1", 5, "2001:db8::2", 6)
assert read(s, len(wanted) + 2) == wanted + b"hi"
print("TCP services")

# One Moongate before another, which takes the headers: by HTTP, by HTTPS, and as a TCP service.
plain = []


def note_head(connection):
    with connection:
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        plain.append(data.lower())
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")


inner = Edge("--use-proxy-protocol", "--trusted-proxies", "127.0.0.1")
inner.service("web", Upstream(note_head).port)
inner.ingress("web", "chain.test", "web")
inner.ingress("web2", "chain2.test", "web")
inner.ingress("web3", "chain3.test", "web")
inner.start()
edge.service("inner", inner.number("http"))
edge.service("innertls", inner.number("https"))
edge.ports(**{f"p{tcp}": "shop/inner:80::PROXY-V2"})
edge.ingress("chain", "chain.test", "inner", note % "v1")
edge.ingress("chain2", "chain2.test", "innertls", note % "v2" + ", moongate.dev/backend-protocol: HTTPS")
until(lambda: ask(connect(http), "chain2.test") == 200, lambda: "the second Ingress is not served")
del plain[:]
assert ask(connect(http, "127.0.0.5"), "chain.test") == 200
assert ask(connect(http, "127.0.0.6"), "chain2.test") == 200
assert ask(connect(tcp, "127.0.0.7"), "chain3.test") == 200
assert len(plain) == 3, plain
for head, source, port in zip(plain, ("127.0.0.5", "127.0.0.6", "127.0.0.7"), (http, http, tcp)):
    assert f"x-real-ip: {source}\r\n".encode() in head, head
    assert f"x-forwarded-port: {port}\r\n".encode() in head, head
assert inner.log(host="chain2.test", client="127.0.0.6", status=200)["scheme"] == "https"
assert inner.metric("moongate_proxy_protocol_failures_total") == 0
inner.stop()
edge.stop()
print("chained")
