"""Many connections that send their head or their body a byte at a time: all must be closed by the deadline, others served.

Usage: slowloris.py PROXY CONNECTIONS HOST head|body
"""

import resource
import select
import socket
import sys
import time

address, count, name = sys.argv[1], int(sys.argv[2]), sys.argv[3]
opening = {
    "head": f"GET /slow HTTP/1.1\r\nhost: {name}\r\nx-slow: ",
    "body": f"POST /slow HTTP/1.1\r\nhost: {name}\r\ncontent-length: 100000\r\n\r\n",
}[sys.argv[4]]
host, port = address.rsplit(":", 1)
target = (host, int(port))

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
wanted = count + 64
if soft != resource.RLIM_INFINITY and soft < wanted:
    if hard != resource.RLIM_INFINITY and hard < wanted:
        sys.exit(f"{count} connections need {wanted} descriptors, and {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

poll = select.poll()
slow = {}
for _ in range(count):
    connection = socket.create_connection(target)
    connection.sendall(opening.encode())
    connection.setblocking(False)
    slow[connection.fileno()] = connection
    poll.register(connection, select.POLLIN)
print("trickling:", len(slow))

begun = time.monotonic()
limit = begun + 60
good = bad = 0
slowest = 0.0


def drop(number):
    poll.unregister(number)
    slow.pop(number).close()


# One byte each a second, so that no idle timer runs out; in between, whoever was answered or closed is done, and
# somebody else is served.
trickle = begun
while slow and time.monotonic() < limit:
    if time.monotonic() >= trickle:
        trickle += 1
        for number, connection in list(slow.items()):
            try:
                connection.send(b"a")
            except BlockingIOError:
                pass
            except OSError:
                drop(number)
    for number, _ in poll.poll(100):
        try:
            if not slow[number].recv(4096):
                drop(number)
        except OSError:
            drop(number)
    asked = time.monotonic()
    try:
        with socket.create_connection(target, timeout=30) as other:
            other.sendall(f"GET / HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n".encode())
            good += other.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        bad += 1
    slowest = max(slowest, time.monotonic() - asked)
print("served meanwhile:", "all" if good and not bad else f"{good} good, {bad} bad")
print("cut off:", count - len(slow))
print(f"{good} requests beside them, the slowest {slowest * 1000:.0f} ms", file=sys.stderr)
