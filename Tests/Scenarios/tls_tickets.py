# ADDRESS DIR MOONGATE: starts a second replica on the same folder and asks both in turn, by sessions of one client.
import base64, os, re, subprocess, sys

from program import Program, until

first, folder, moongate = sys.argv[1:4]
out = os.path.join(folder, "..")
FLAGS = ["--workers", "1", "--access-log", "off", "--ticket-keys-secret", "shop/tickets"]


def ask(address, resume=None, keep=None, *flags):
    """New or Reused; the ticket of the answer goes into the file `keep`."""
    command = ["openssl", "s_client", "-connect", address, "-servername", "shop.test", "-ign_eof", *flags]
    if resume:
        command += ["-sess_in", os.path.join(out, resume)]
    if keep:
        command += ["-sess_out", os.path.join(out, keep)]
    request = b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n"
    text = subprocess.run(command, input=request, capture_output=True, timeout=20).stdout.decode(errors="replace")
    assert "HTTP/1.1 200" in text, text
    return re.search(r"^(New|Reused),", text, re.M).group(1)


def write(keys):
    text = ("apiVersion: v1\nkind: Secret\nmetadata: { name: tickets, namespace: shop }\ndata: { ticket.keys: %s }\n"
            % base64.b64encode(keys).decode())
    with open(os.path.join(out, "n"), "w") as file:
        file.write(text)
    os.rename(os.path.join(out, "n"), os.path.join(folder, "tickets.yaml"))


def name(session):
    """The name of the key that sealed the ticket."""
    text = subprocess.run(["openssl", "sess_id", "-in", os.path.join(out, session), "-noout", "-text"],
                          capture_output=True, text=True).stdout
    line = next(line for line in text.splitlines() if "0000 -" in line)
    return re.sub("[^0-9a-f]", "", line.split(" - ")[1][:47])


def sealed_by(key, address):
    """Whether a new session is sealed with this key: then its Secret is in force there."""
    ask(address, keep="probe")
    return name("probe") == key[:16].hex()


one, two = (open(os.path.join(out, key), "rb").read() for key in ["k1", "k2"])
with Program(moongate, folder, *FLAGS) as program:
    second = program.https
    for version in ["-tls1_2", "-tls1_3"]:
        ask(first, None, "s", version)
        print(version + ", to the other replica:", ask(second, "s", None, version))
        print(version + ", back to the first:", ask(first, "s", None, version))
    write(two + one)
    until(lambda: sealed_by(two, first) and sealed_by(two, second), "the new key")
    again = ask(second, "s", "s3")
    print("a new key before the old one:", again + (", sealed anew" if name("s3") == two[:16].hex() else ""))
    write(two)
    until(lambda: ask(first, "s") == "New" and ask(second, "s") == "New", "the old key's end")
    print("the old key gone:", ask(first, "s"))
    print("the new one:", ask(first, "s3"))
    write(b"short")
    until(lambda: "MG339" in program.page("/diagnostics"), "the diagnostic")
    print("keys that are none, by the last good ones:", ask(first, "s3"), ask(second, "s3"), sealed_by(two, second))
    os.remove(os.path.join(folder, "tickets.yaml"))
    until(lambda: not sealed_by(two, first) and not sealed_by(two, second), "keys of their own")
    ask(first, keep="own")
    print("without a Secret: own tickets %s, the other's %s" % (ask(first, "own"), ask(second, "own")))
