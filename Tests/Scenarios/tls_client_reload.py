# ADDRESS DIR TOOL: one connection with alice's certificate is kept open while the authorities of its host are renewed, and
# then taken away. Prints what each request on it came to, and what a new connection came to.
import os, socket, ssl, subprocess, sys, time

address, folder, tool = sys.argv[1:4]
host, port = address.rsplit(":", 1)
out = os.path.join(folder, "..")


def connect(who="alice"):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(os.path.join(out, who + ".crt"), os.path.join(out, who + ".key"))
    return context.wrap_socket(socket.create_connection((host, int(port)), timeout=20), server_hostname="shop.test")


def ask(stream):
    stream.sendall(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
    got = b""
    while b"\r\n\r\n" not in got:
        part = stream.recv(65536)
        if not part:
            return "cut", True
        got += part
    head, body = got.split(b"\r\n\r\n", 1)
    length = int(next(line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")))
    while len(body) < length:
        body += stream.recv(65536)
    return head.split(b" ")[1].decode(), b"connection: close" in head.lower()


def fresh(who):
    with connect(who) as stream:
        return ask(stream)[0]


def renew(*arguments):
    subprocess.run([tool, "secret", "clients", *arguments], check=True)


def until(status, who="alice"):
    deadline = time.monotonic() + 20
    while fresh(who) != status:
        if time.monotonic() > deadline:
            return "never " + status
    return status


kept = connect()
print("before:", *ask(kept))
# A second authority beside the first: everybody who was known is known.
open(os.path.join(out, "both.crt"), "w").write(
    open(os.path.join(out, "good.crt")).read() + open(os.path.join(out, "evil.crt")).read())
renew("both")
print("a second authority beside it, its own client:", until("200", "mallory"))
print("the kept one:", *ask(kept))
renew("evil")
print("another in its place, new connection:", until("400"))
print("the kept one:", *ask(kept))
renew("good")
print("the first again, new connection:", until("200"))
subprocess.run([tool, "revoke", "good", "alice"], check=True)
kept = connect()
print("another connection:", *ask(kept))
renew("good", "crl")
print("revoked, new connection:", until("400"))
print("the kept one:", *ask(kept))
