# ADDRESS DIR MOONGATE: starts a second replica on the same folder and asks both in turn, by sessions of one client.
import base64, json, os, re, subprocess, sys, time

first, folder, moongate = sys.argv[1:4]
out = os.path.join(folder, "..")
process = subprocess.Popen(
    [moongate, "run", "--manifests", folder, "--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--admin", "127.0.0.1:0",
     "--workers", "1", "--access-log", "off", "--ticket-keys-secret", "shop/tickets"],
    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
second = json.loads(process.stdout.readline())["https"]


def ask(address, resume=None, keep=None):
    """New or Reused; the ticket of the answer goes into the file `keep`."""
    command = ["openssl", "s_client", "-connect", address, "-servername", "shop.test", "-ign_eof"]
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


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            return False
    return True


def sealed_by(key, address):
    """Whether a new session is sealed with this key: then its Secret is in force there."""
    ask(address, keep="probe")
    return name("probe") == key[:16].hex()


try:
    one, two = (open(os.path.join(out, key), "rb").read() for key in ["k1", "k2"])
    ask(first, keep="s")
    print("to the other replica:", ask(second, "s"))
    print("back to the first:", ask(first, "s"))
    write(two + one)
    assert until(lambda: sealed_by(two, first)) and until(lambda: sealed_by(two, second))
    again = ask(second, "s", "s3")
    print("a new key before the old one:", again + (", sealed anew" if name("s3") == two[:16].hex() else ""))
    write(two)
    until(lambda: ask(first, "s") == "New")
    print("the old key gone:", ask(first, "s"))
    print("the new one:", ask(first, "s3"))
    write(b"short")
    assert until(lambda: not sealed_by(two, first)) and until(lambda: not sealed_by(two, second))
    ask(first, keep="own")
    print("keys that are none: own tickets %s, the other's %s" % (ask(first, "own"), ask(second, "own")))
finally:
    process.terminate()
    process.wait(20)
