"""Many connections that send their head a byte at a time: all must be closed by the deadline, others served.

Usage: slowloris.py PROXY CONNECTIONS HOST
"""

import select
import socket
import sys
import time

address, count, name = sys.argv[1], int(sys.argv[2]), sys.argv[3]
host, port = address.rsplit(":", 1)
target = (host, int(port))

slow = [socket.create_connection(target) for _ in range(count)]
for connection in slow:
    connection.sendall(f"GET /slow HTTP/1.1\r\nhost: {name}\r\nx-slow: ".encode())
    connection.setblocking(False)
print("trickling:", len(slow))

open_ones = set(slow)
limit = time.monotonic() + 15
good = bad = 0
while open_ones and time.monotonic() < limit:
    # One byte each, so that no idle timer runs out; then whoever was answered or closed is done.
    for connection in list(open_ones):
        try:
            connection.send(b"a")
        except BlockingIOError:
            pass
        except OSError:
            open_ones.discard(connection)
    readable, _, _ = select.select(list(open_ones), [], [], 0.1)
    for connection in readable:
        try:
            if not connection.recv(4096):
                open_ones.discard(connection)
        except OSError:
            open_ones.discard(connection)
    try:
        with socket.create_connection(target, timeout=5) as other:
            other.sendall(f"GET / HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n".encode())
            good += other.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        bad += 1
print("served meanwhile:", "all" if good and not bad else f"{good} good, {bad} bad")
print("cut off:", count - len(open_ones))
