"""TLS passthrough by SNI beside hosts whose TLS ends here, on one port."""
import os
import socket
import ssl
import subprocess

from edge import Edge, Upstream, connect, echo, read, rest, until

edge = Edge("--enable-ssl-passthrough", "--use-proxy-protocol", "--trusted-proxies", "127.0.0.2",
            "--tls-handshake-timeout", "2s")
pem = edge.folder + ".pem"
subprocess.run(["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout",
                pem + ".key", "-out", pem, "-days", "9", "-subj", "/CN=own", "-addext",
                "subjectAltName=DNS:db.shop.test,DNS:told.shop.test,DNS:a.raw.test"], check=True, stderr=subprocess.DEVNULL)
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain(pem, pem + ".key")


headers = []


def serve(connection):
    try:
        header = b""
        if connection.recv(1, socket.MSG_PEEK) == b"P":
            while not header.endswith(b"\r\n"):
                header += connection.recv(1)
        headers.append(header)
        with server.wrap_socket(connection, server_side=True) as s:
            asked = s.recv(65536)
            if asked.startswith(b"GET "):
                s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecure")
            else:
                s.sendall(asked + b" by the endpoint")
    except (ssl.SSLError, ConnectionError):
        pass


secure = Upstream(serve)
web = Upstream(lambda c: (c.recv(65536), c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nweb"), c.close()))
edge.service("db", secure.port)
edge.service("web", web.port)

passes = 'nginx.ingress.kubernetes.io/ssl-passthrough: "true"'
edge.ingress("db", "db.shop.test", "db", passes)
edge.ingress("raw", "*.raw.test", "db", passes)
edge.service("told", secure.port)
edge.ingress("told", "told.shop.test", "told", passes + ', moongate.dev/send-proxy-protocol: "v1"')
edge.ingress("web", "web.shop.test", "web")
edge.start()
port = edge.number("https")


def explain(request):
    return subprocess.run([os.environ["MOONGATE"], "explain", "--admin", edge.said["admin"], request], check=True,
                          stdout=subprocess.PIPE, text=True).stdout


told = explain("GET https://db.shop.test/")
assert "the TLS of db.shop.test is passed on unopened" in told and f"endpoint 127.0.0.1:{secure.port}" in told, told
assert "passed on" not in explain("GET http://db.shop.test/") + explain("GET https://web.shop.test/")
client = ssl.create_default_context(cafile=pem)


def ask(host, opening=b"", source="127.0.0.1", cut=0):
    """What the endpoint says, over TLS that ends there: its certificate is verified by name."""
    raw = connect(port, source)
    raw.sendall(opening)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = client.wrap_bio(incoming, outgoing, server_hostname=host)

    def drive(step):
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                data = outgoing.read()
                # One byte a segment: the ClientHello comes in pieces.
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for i in range(0, len(data), cut or len(data) or 1):
                    raw.sendall(data[i:i + (cut or len(data))])
                incoming.write(raw.recv(65536))
    drive(session.do_handshake)
    session.write(b"hello")
    answer = drive(lambda: session.read(100))
    raw.close()
    return answer


assert ask("db.shop.test") == b"hello by the endpoint"
assert ask("a.raw.test", cut=7) == b"hello by the endpoint"
entry = edge.log(protocol="TCP", sni="db.shop.test")
assert entry["service"] == "tls:db.shop.test" and entry["upstream"] == "shop/db:80" and entry["port"] == port, entry
edge.log(service="tls:*.raw.test", sni="a.raw.test")
assert set(headers) == {b""}, headers
print("by name")

# The endpoint is told of the client as it is of those of requests.
assert ask("told.shop.test") == b"hello by the endpoint"
assert headers[-1].startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ") and headers[-1].endswith(b" %d\r\n" % port), headers
assert ask("told.shop.test", b"PROXY TCP4 203.0.113.7 198.51.100.1 5555 443\r\n", "127.0.0.2") == b"hello by the endpoint"
assert headers[-1] == b"PROXY TCP4 203.0.113.7 198.51.100.1 5555 443\r\n", headers
assert "by the PROXY protocol, v1" in explain("GET https://told.shop.test/")
print("told of the client")

# Behind a balancer as well.
assert ask("db.shop.test", b"PROXY TCP4 203.0.113.7 198.51.100.1 5555 443\r\n", "127.0.0.2") == b"hello by the endpoint"
edge.log(protocol="TCP", client="203.0.113.7")
print("behind the PROXY protocol")


def curl(url, *more):
    host = url.split("/")[2].split(":")[0]
    return subprocess.run(["curl", "-sk", "--max-time", "60", "--resolve", f"{host}:{port}:127.0.0.1", "-w",
                           "%{response_code}", *more, url], stdout=subprocess.PIPE, text=True).stdout


# Other hosts, and clients that name none, end here.
assert curl(f"https://web.shop.test:{port}/") == "web200"
assert curl(f"https://127.0.0.1:{port}/", "-H", "Host: web.shop.test") == "web200"
# A host with passthrough is not to be had on a connection that ends here, whatever it was made for.
for version in ("--http1.1", "--http2"):
    assert curl(f"https://web.shop.test:{port}/", version, "-H", "Host: db.shop.test").endswith("421")
    assert curl(f"https://127.0.0.1:{port}/", version, "-H", "Host: DB.shop.test:443").endswith("421")
assert subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{response_code}", f"http://127.0.0.1:{port}/"],
                      stdout=subprocess.PIPE, text=True).stdout == "400"
# Over plain HTTP it is served, and its backend speaks TLS all the same.
for host in ("db.shop.test", "told.shop.test", "a.raw.test"):
    assert curl(f"http://127.0.0.1:{edge.number('http')}/", "-H", "Host: " + host) == "secure200"
print("the others end here")

# What is no ClientHello, or half of one, ends as ever.
s = connect(port)
s.sendall(b"\x16\x03\x01")
assert rest(s) == b""
assert edge.metric('moongate_tls_handshake_failures_total{reason="timeout"}') == 1
s = connect(port)
s.sendall(b"\x16\x03\x01\x40\x01" + b"\0" * 30000)
try:
    rest(s)
except ConnectionResetError:
    pass
s.close()
until(lambda: edge.metric("moongate_connections_active") == 0, lambda: "connections are left")
print("broken ones")

# Turned off live, the same name ends here.
edge.ingress("db", "db.shop.test", "web", "a/b: c")
until(lambda: curl(f"https://db.shop.test:{port}/") == "web200", lambda: "still passed through")
assert edge.stop() == 0
os.unlink(pem)
os.unlink(pem + ".key")
print("turned off")
