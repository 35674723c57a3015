"""An HTTP/2 server of the `h2` library behind the proxy, and curl before it: h2c_compression.py PROXY ENDPOINTS-FILE

Prints what becomes of its responses on their way, by HTTP version and content coding of the client.
"""

import asyncio
import gzip
import hashlib
import os
import sys

import h2.config
import h2.connection
import h2.events

SLICE = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: a-1, namespace: shop, labels: {{ kubernetes.io/service-name: a }} }}
addressType: IPv4
ports: [{{ port: {port}, protocol: TCP }}]
endpoints: [{{ addresses: ["127.0.0.1"], conditions: {{ ready: true }} }}]
"""
proxy, path = sys.argv[1:3]
TEXT = b"".join(b"line %d of a text that can be made shorter\n" % n for n in range(40_000))
PLAIN = [("content-type", "text/plain"), ("etag", '"v1"'), ("accept-ranges", "bytes")]
# The second half of a stream goes when the client has the first.
goes = asyncio.Event()


def answer(where, method):
    """The status, the fields, the parts of the body and the trailers."""
    length = [("content-length", str(len(TEXT)))]
    return {
        "/": (200, PLAIN + length, [TEXT], []),
        "/unknown-length": (200, PLAIN, [TEXT], []),
        "/head": (200, PLAIN + length, [], []),
        "/none": (204, [("etag", '"v1"')], [], []),
        "/known": (304, PLAIN[:2], [], []),
        "/part": (206, [*PLAIN, ("content-range", "bytes 0-1023/9999"), ("content-length", "1024")], [TEXT[:1024]], []),
        "/coded": (200, [*PLAIN, ("content-encoding", "gzip")], [gzip.compress(TEXT, mtime=0)], []),
        "/never": (200, [*PLAIN, ("cache-control", "no-transform")], [TEXT], []),
        "/trailers": (200, PLAIN, [TEXT], [("x-sum", "7")]),
        "/empty": (200, PLAIN, [], []),
        "/stream": (200, PLAIN[:1], [b"first\n", None, b"second\n"], []),
    }[where]


class Server(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.sending = {}
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.h2.initiate_connection()
        self.flush()

    def flush(self):
        self.transport.write(self.h2.data_to_send())

    def data_received(self, data):
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                fields = dict(event.headers)
                status, head, body, trailers = answer(fields[b":path"].decode(), fields[b":method"])
                ends = not body and not trailers
                self.h2.send_headers(event.stream_id, [(":status", str(status)), *head], end_stream=ends)
                if not ends:
                    self.sending[event.stream_id] = (list(body), trailers)
            elif isinstance(event, h2.events.StreamReset):
                self.sending.pop(event.stream_id, None)
        self.pump()

    def pump(self):
        for stream, (body, trailers) in list(self.sending.items()):
            while body:
                if body[0] is None:
                    if not goes.is_set():
                        asyncio.ensure_future(self.wait())
                        break
                    body.pop(0)
                    continue
                n = min(len(body[0]), self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
                if n <= 0:
                    break
                self.h2.send_data(stream, body[0][:n])
                body[0] = body[0][n:]
                if not body[0]:
                    body.pop(0)
            if not body:
                del self.sending[stream]
                if trailers:
                    self.h2.send_headers(stream, trailers, end_stream=True)
                else:
                    self.h2.end_stream(stream)
        self.flush()

    async def wait(self):
        await goes.wait()
        self.pump()


async def curl(version, coding, where, *more, out=f"{path}.body"):
    process = await asyncio.create_subprocess_exec(
        "curl", "-s", f"--http{version}", "-H", "Host: shop.test", "-H", f"Accept-Encoding: {coding}", "-o", out, *more,
        "-w", "%{response_code} %header{content-encoding}|%header{etag}|%header{vary}|%header{content-length}",
        f"http://{proxy}{where}", stdout=asyncio.subprocess.PIPE,
    )
    head = (await process.communicate())[0].decode()
    body = b""
    if os.path.isfile(out):
        with open(out, "rb") as file:
            body = file.read()
        os.remove(out)
    return head, body, process.returncode


async def stream(version, coding):
    """Whether each part of a body is there before the next is sent."""
    goes.clear()
    process = await asyncio.create_subprocess_exec(
        "curl", "-sN", "--compressed", f"--http{version}", "-H", "Host: shop.test", "-H", f"Accept-Encoding: {coding}",
        f"http://{proxy}/stream", stdout=asyncio.subprocess.PIPE,
    )
    first = await asyncio.wait_for(process.stdout.readline(), 60)
    goes.set()
    rest = await asyncio.wait_for(process.stdout.read(), 60)
    await process.wait()
    return first + rest


async def main():
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    with open(path + ".new", "w") as file:
        file.write(SLICE.format(port=server.sockets[0].getsockname()[1]))
    os.rename(path + ".new", path)
    while not (await curl("1.1", "identity", "/"))[0].startswith("200"):
        await asyncio.sleep(0.02)
    whole = hashlib.sha256(TEXT).digest()
    for version in ("1.1", "2-prior-knowledge"):
        for coding in ("gzip", "br", "zstd"):
            for where in ("/", "/unknown-length", "/trailers"):
                head, body, code = await curl(version, coding, where, "--compressed")
                print(version, coding, where, head, hashlib.sha256(body).digest() == whole, code)
            print(version, coding, "/stream", await stream(version, coding))
        for where, more in (
            ("/head", ["-I"]), ("/none", []), ("/known", ["-H", 'If-None-Match: "v1"']), ("/part", ["-H", "Range: bytes=0-1023"]),
            ("/coded", []), ("/never", []), ("/empty", []),
        ):
            head, body, code = await curl(version, "gzip", where, *more)
            sent = b"".join(answer(where, b"GET")[2])
            print(version, where, head, "" if where == "/head" else body == sent, code)
    together = await asyncio.gather(*(curl("1.1", "gzip", "/", "--compressed", out="/dev/null") for _ in range(20)))
    print("together:", {head.split("|")[0] for head, _, _ in together})


asyncio.run(main())
