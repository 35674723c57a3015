"""A gRPC server of the `grpcio` library, and clients that speak gRPC-Web as browsers do.

Usage: grpc_web.py PROXY ENDPOINTS-FILE. The server is that of grpc_calls.py; the clients are curl's, over HTTP/1.1 and
HTTP/2, in bytes and in base64.
"""

import base64
import os
import struct
import subprocess
import sys
import time
from concurrent import futures

import grpc

from grpc_calls import METHODS, OPTIONS, SLICE


def message(data):
    return b"\0" + struct.pack(">I", len(data)) + data


def frames(data):
    """The messages of a body, and its trailers."""
    messages, trailers = [], None
    while data:
        kind, size = data[0], struct.unpack(">I", data[1:5])[0]
        part, data = data[5 : 5 + size], data[5 + size :]
        assert len(part) == size, "a frame is cut off"
        if kind & 0x80:
            assert trailers is None and not data, "something follows the trailers"
            trailers = dict(line.split(":", 1) for line in part.decode().split("\r\n") if line)
        else:
            messages.append(part)
    return messages, trailers


def decode(text):
    """Base64 that may be padded within."""
    return b"".join(base64.b64decode(text[i : i + 4], validate=True) for i in range(0, len(text), 4))


def ask(proxy, method, data, version, is_text):
    kind = "application/grpc-web-text" if is_text else "application/grpc-web+proto"
    body = message(data)
    curl = subprocess.run(
        ["curl", "-s", f"--http{version}", "-H", "Host: shop.test", "-H", f"Content-Type: {kind}", "-H", "X-Grpc-Web: 1",
         "--data-binary", "@-", "-w", "\n%{response_code} %header{content-type} %header{grpc-status}",
         f"http://{proxy}/moon.Gate/{method}"],
        input=base64.b64encode(body) if is_text else body, capture_output=True, timeout=30)
    answer, _, line = curl.stdout.rpartition(b"\n")
    status, _, rest = line.decode().partition(" ")
    media, _, head_status = rest.partition(" ")
    messages, trailers = frames(decode(answer) if is_text else answer)
    assert status != "200" or media.startswith("application/grpc-web-text") == is_text, media
    return status, messages, head_status or (trailers or {}).get("grpc-status", "none"), trailers or {}


def main():
    server = grpc.server(futures.ThreadPoolExecutor(10), options=OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("moon.Gate", METHODS),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    proxy, path = sys.argv[1:3]
    with open(path + ".new", "w") as file:
        file.write(SLICE.format(port=port))
    os.rename(path + ".new", path)
    # Until the endpoint is taken in, calls end as UNAVAILABLE.
    end = time.monotonic() + 20
    while ask(proxy, "Unary", b"", "1.1", False)[2] == "14" and time.monotonic() < end:
        pass
    for version in ("1.1", "2-prior-knowledge"):
        for is_text in (False, True):
            how = f"{version} {'text' if is_text else 'bytes'}"
            status, messages, code, trailers = ask(proxy, "Unary", b"gate", version, is_text)
            print(how, "unary:", status, *messages, code, trailers.get("peer"))
            status, messages, code, _ = ask(proxy, "ServerStream", b"1000", version, is_text)
            print(how, "stream:", status, len(messages), messages[-1].decode(), code)
            big = os.urandom(300_000)
            status, messages, code, _ = ask(proxy, "Unary", big, version, is_text)
            print(how, "large:", status, messages == [big[::-1]], code)
            print(how, "failure:", *ask(proxy, "Fail", b"x", version, is_text)[::2])
            # The answer may come before the body has gone, and its stream then ends with NO_ERROR (RFC 9113, 8.1), over
            # which curl 7 now and then forgets the answer.
            for _ in range(5):
                status, _, code, _ = ask(proxy, "None", b"x", version, is_text)
                if status != "000":
                    break
            print(how, "no such method:", status, code)
            print(how, "too late:", *ask(proxy, "Sleep", b"20", version, is_text)[::2])
    # Nobody waits for those that still sleep.
    sys.stdout.flush()
    os._exit(0)


main()
