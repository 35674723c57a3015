"""A program that has no descriptor left: it keeps those that it has, loses nobody for good, and is well again afterwards.

Usage: descriptors.py MOONGATE MANIFESTS HOST
"""

import json
import os
import resource
import socket
import subprocess
import sys

moongate, manifests, name = sys.argv[1:4]
FEW = 40

program = subprocess.Popen(
    [moongate, "run", "--manifests", manifests, "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "1",
     "--access-log", "off", "--drain-timeout", "1s"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
line = b""
while b'"listening"' not in line:
    line = program.stdout.readline()
host, port = json.loads(line)["http"].rsplit(":", 1)
request = f"GET / HTTP/1.1\r\nhost: {name}\r\n\r\n".encode()


def ask(connection):
    try:
        connection.sendall(request)
        return connection.recv(4096).split(b" ")[1:2] or [b"closed"]
    except TimeoutError:
        return [b"waits"]
    except OSError:
        return [b"closed"]


try:
    # Taken away while it runs, so that it could not plan for it.
    most = len(os.listdir(f"/proc/{program.pid}/fd")) + FEW
    resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (most, most))
    # More than there are descriptors: the kernel takes them all, the program can not.
    held = [socket.create_connection((host, int(port)), timeout=2) for _ in range(2 * FEW)]
    held[0].settimeout(30)
    first = ask(held[0])[0]
    # The first got its connection before the descriptors ran out; whether one is left for its upstream is chance.
    print("the first is answered:", first in (b"200", b"502", b"503") or first)
    print("the last waits:", ask(held[-1])[0] == b"waits")
    print("still there:", program.poll() is None)
    waiting = held[-1]
    for connection in held[:-1]:
        connection.close()
    # Its request has been sent: it is taken up as soon as there is room.
    waiting.settimeout(20)
    print("the last is served at last:", waiting.recv(4096).split(b" ")[1] == b"200")
    with socket.create_connection((host, int(port)), timeout=20) as fresh:
        print("a new one is served:", ask(fresh)[0] == b"200")
finally:
    program.terminate()
    print("ends well:", program.wait(20) == 0)
