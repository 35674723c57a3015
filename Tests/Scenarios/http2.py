"""A client that speaks HTTP/2 frame by frame.

http2.py flood KIND ADDRESS SECONDS ADMIN: sends frames of one kind as fast as the connection takes them, until the proxy ends
it or the time is over, while another connection asks for a page again and again. Prints what became of both, and whether the
proxy's memory grew by more than it may. Each kind comes from an address of its own.

http2.py again KIND ADDRESS TIMES: floods so many connections, one after the other, from one address.

http2.py unread PATH ADDRESS CONNECTIONS ADMIN: asks for the path 128 times on each, reads nothing, and goes.
"""
import socket
import struct
import sys
import threading
import time
import urllib.request

from edge import until

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    def text(s):
        n = len(s)
        if n < 127:
            return bytes([n]) + s
        n, out = n - 127, b"\x7f"
        while n >= 128:
            out, n = out + bytes([n & 127 | 128]), n >> 7
        return out + bytes([n]) + s

    return b"\0" + text(name) + text(value)


def block(method=b"GET", *more):
    fields = [(b":method", method), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"shop.test"), *more]
    return b"".join(literal(*f) for f in fields)


KINDS = ["ping", "settings", "empty-data", "windows", "continuation", "bomb", "rapid-reset", "made-you-reset", "bad-trailers",
         "too-much", "no-base64"]


def connect(address, kind="", settings=b""):
    host, port = address.rsplit(":", 1)
    source = f"127.0.0.{10 + KINDS.index(kind)}" if kind in KINDS else "127.0.0.9"
    s = socket.create_connection((host, int(port)), source_address=(source, 0))
    s.sendall(PREFACE + frame(4, 0, 0, settings))
    return s


def resident(admin):
    """MiB of the proxy's memory."""
    with urllib.request.urlopen(f"http://{admin}/metrics") as page:
        for line in page.read().decode().splitlines():
            if line.startswith("process_resident_memory_bytes "):
                return float(line.split()[1]) / 2**20
    raise SystemExit("no figure of memory")


def flood(kind):
    """Endless pieces of the flood."""
    stream = 1
    if kind in ("empty-data", "windows"):
        yield frame(1, 4, 1, block(b"POST"))
    if kind == "continuation":
        yield frame(1, 1, 1, block())
    if kind == "bomb":
        field = literal(b"bomb", b"A" * 3000)
        first = block() + b"\x40" + field[1:]
    while True:
        if kind == "ping":
            yield frame(6, 0, 0, b"12345678") * 100
        elif kind == "settings":
            yield frame(4, 0, 0) * 100
        elif kind == "empty-data":
            yield frame(0, 0, 1) * 100
        elif kind == "windows":
            yield frame(8, 0, 0, b"\0\0\0\1") * 100
        elif kind == "continuation":
            yield frame(9, 0, 1, literal(b"x", b"y" * 1000))
        elif kind == "bomb":
            yield frame(1, 5, stream, (first if stream == 1 else block()) + b"\xbe" * 8000)
            stream += 2
        elif kind == "rapid-reset":
            yield b"".join(
                frame(1, 5, s, block()) + frame(3, 0, s, b"\0\0\0\x08") for s in range(stream, stream + 200, 2)
            )
            stream += 200
        elif kind == "made-you-reset":
            yield b"".join(
                frame(1, 4, s, block(b"POST")) + frame(8, 0, s, b"\x7f\xff\xff\xff") for s in range(stream, stream + 200, 2)
            )
            stream += 200
        elif kind == "bad-trailers":
            many = b"".join(literal(b"a%d" % i, b"b") for i in range(101))
            yield b"".join(
                frame(1, 4, s, block(b"POST")) + frame(1, 5, s, many) for s in range(stream, stream + 40, 2)
            )
            stream += 40
        elif kind == "too-much":
            yield b"".join(
                frame(1, 4, s, block(b"POST")) + frame(0, 0, s, b"x" * 101) for s in range(stream, stream + 200, 2)
            )
            stream += 200
        elif kind == "no-base64":
            text = (b"content-type", b"application/grpc-web-text")
            yield b"".join(
                frame(1, 4, s, block(b"POST", text)) + frame(0, 0, s, b"!!!!") for s in range(stream, stream + 200, 2)
            )
            stream += 200


def goaway(data):
    """The code of the last GOAWAY in a run of frames; None if there is none."""
    code, at = None, 0
    while at + 9 <= len(data):
        length = int.from_bytes(data[at : at + 3], "big")
        if data[at + 3] == 7:
            code = int.from_bytes(data[at + 13 : at + 17], "big")
        at += 9 + length
    return code


def pour(s, kind, seconds, leaves=False):
    """Floods a connection to its end, or only until GOAWAY; how that was, and the code of GOAWAY."""
    received = []

    def listen():
        try:
            while part := s.recv(65536):
                received.append(part)
        except OSError:
            pass

    reader = threading.Thread(target=listen)
    reader.start()
    deadline = time.monotonic() + seconds
    ended = "the flood went on to the end"
    try:
        for piece in flood(kind):
            if time.monotonic() > deadline:
                break
            s.sendall(piece)
            if leaves and goaway(b"".join(received)) is not None:
                ended = "told to go"
                break
    except OSError:
        ended = "ended by the proxy"
    if ended != "ended by the proxy":
        s.shutdown(socket.SHUT_RDWR)
    reader.join(10)
    s.close()
    code = goaway(b"".join(received))
    return ended + (f", GOAWAY {code}" if code is not None else "")


def flooded(kind, address, seconds, admin):
    stop, asked = threading.Event(), threading.Event()
    served, sizes = [], [resident(admin)]

    def neighbour():
        host, port = address.rsplit(":", 1)
        while not stop.is_set():
            with socket.create_connection((host, int(port))) as s:
                s.sendall(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
                data = b""
                while part := s.recv(65536):
                    data += part
            served.append(data.startswith(b"HTTP/1.1 200"))
            sizes.append(resident(admin))
            asked.set()

    thread = threading.Thread(target=neighbour)
    thread.start()
    ended = pour(connect(address, kind), kind, seconds)
    asked.wait(10)
    stop.set()
    thread.join()
    sizes.append(resident(admin))
    print(f"{kind}: {ended}")
    print("neighbour:", "served" if all(served) else f"{served.count(False)} of {len(served)} failed")
    if max(sizes) - sizes[0] >= 16:
        print(f"memory: grew from {sizes[0]:.1f} to {max(sizes):.1f} MiB")


def unread(path, address, connections, admin):
    before = resident(admin)
    head = b"".join(
        literal(*f) for f in [(b":method", b"GET"), (b":scheme", b"http"), (b":path", path), (b":authority", b"shop.test")])
    streams = b"".join(frame(1, 5, i, head) for i in range(1, 257, 2))
    open_ones = [connect(address, "", struct.pack(">HI", 4, 0)) for _ in range(connections)]
    for s in open_ones:
        s.sendall(streams)
    # Until it grows no more: then all of them wait for their clients.
    sizes = [before]

    def stands():
        sizes.append(resident(admin))
        return len(sizes) > 100 and sizes[-1] >= before + 6 * connections and max(sizes[-100:]) <= sizes[-100]

    until(stands, lambda: f"the proxy's memory goes on growing, or never grew: {before} {sizes[-100:]}")
    held = sizes[-1]
    # 128 KiB of each body, and what streams and connections to the upstream cost.
    print("held for each connection:", "at most 20 MiB" if held - before <= 20 * connections else f"{(held - before) / connections} MiB")
    for s in open_ones:
        s.close()
    until(lambda: resident(admin) <= before + 0.25 * (held - before), lambda: f"not given back: {before} {held} {resident(admin)} MiB")
    print("given back: most of it")


def main():
    kind, address = sys.argv[2], sys.argv[3]
    match sys.argv[1]:
        case "flood":
            flooded(kind, address, float(sys.argv[4]), sys.argv[5])
        case "again":
            codes = {pour(connect(address, kind), kind, 10, leaves=True).split(", ")[-1] for _ in range(int(sys.argv[4]))}
            print(f"{kind}:", *sorted(codes))
        case "unread":
            unread(kind.encode(), address, int(sys.argv[4]), sys.argv[5])


if __name__ == "__main__":
    main()
