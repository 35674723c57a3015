"""An HTTP/2 server of the `h2` library behind the proxy, and load upon it: h2c_upstream.py KIND PROXY ENDPOINTS-FILE [tls]

Prints what became of the requests, and how many connections the server has seen.
"""

import asyncio
import os
import re
import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

from tls_files import Files, endpoints

kind, proxy, path = sys.argv[1:4]
count = {"connections": 0, "full": 0, "served": 0, "refused": 0, "dropped": 0, "most": 0}


class Server(asyncio.Protocol):
    def connection_made(self, transport):
        count["connections"] += 1
        self.transport = transport
        agreed = transport.get_extra_info("ssl_object")
        if agreed:
            assert agreed.selected_alpn_protocol() == "h2"
        self.served = 0
        self.last = None
        self.sending = {}
        self.received = {}
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.h2.initiate_connection()
        if kind == "few":
            self.h2.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 5})
        self.flush()

    def flush(self):
        self.transport.write(self.h2.data_to_send())

    def data_received(self, data):
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.received[event.stream_id] = [dict(event.headers).get(b":path", b""), 0]
                count["most"] = max(count["most"], len(self.received))
            elif isinstance(event, h2.events.DataReceived):
                if event.stream_id in self.received:
                    self.received[event.stream_id][1] += len(event.data)
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                asyncio.get_running_loop().call_later(0.002, self.answer, event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.received.pop(event.stream_id, None)
                self.sending.pop(event.stream_id, None)
            elif isinstance(event, h2.events.WindowUpdated):
                self.pump()
        self.flush()

    def answer(self, stream):
        if self.transport.is_closing() or stream not in self.received:
            return
        if self.last is not None and stream > self.last:
            count["dropped"] += 1
            self.received.pop(stream)
            return
        where, size = self.received.pop(stream)
        if kind == "refuse" and (stream // 2) % 13 == 3:
            count["refused"] += 1
            self.h2.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
            return self.flush()
        self.served += 1
        count["served"] += 1
        body = b"y" * (1 << 20) if where == b"/big" else b"%d\n" % size
        self.h2.send_headers(stream, [(":status", "200"), ("content-length", str(len(body)))])
        self.sending[stream] = body
        self.pump()
        if kind == "goaway" and self.served == 40:
            # What came after these was not looked at.
            self.last = max([stream, *self.sending])
            frame = b"\0\0\x08\x07\0\0\0\0\0" + self.last.to_bytes(4, "big") + b"\0\0\0\0"
            self.transport.write(self.h2.data_to_send() + frame)
        self.flush()

    def pump(self):
        for stream, body in list(self.sending.items()):
            while body:
                n = min(len(body), self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
                if n <= 0:
                    break
                self.h2.send_data(stream, body[:n])
                body = body[n:]
            self.sending[stream] = body
            if not body:
                self.h2.end_stream(stream)
                del self.sending[stream]


class Full(Server):
    """Takes no requests for now, and refuses those that come before it has said so."""

    def connection_made(self, transport):
        super().connection_made(transport)
        count["full"] += 1
        self.h2.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 0})
        self.flush()

    def answer(self, stream):
        count["refused"] += 1
        self.h2.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
        self.flush()


async def listen(tls):
    """The server, its port, and one at the same port of another address that takes no requests, where there is one."""
    loop = asyncio.get_running_loop()
    for _ in range(100):
        server = await loop.create_server(Server, "127.0.0.1", 0, ssl=tls)
        port = server.sockets[0].getsockname()[1]
        if kind != "full":
            return server, port
        try:
            await loop.create_server(Full, "127.0.0.2", port)
            return server, port
        except OSError:
            # The port is free on one address, and not on the other.
            server.close()
    raise OSError("no port is free on both addresses")


async def load(*arguments):
    process = await asyncio.create_subprocess_exec(
        "h2load", f"--connect-to={proxy}", *arguments, stdout=asyncio.subprocess.PIPE
    )
    text = (await process.communicate())[0].decode()
    found = re.search(r"(\d+) succeeded, (\d+) failed", text)
    codes = re.search(r"status codes: (\d+) 2xx", text)
    return f"{found[1]} succeeded, {found[2]} failed, {codes[1]} good"


async def get(where, method="GET", body=b""):
    host, port = proxy.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"{method} {where} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await reader.read()
    writer.close()
    return answer


def security(files):
    """TLS of the server, and the Secret that the proxy verifies it by."""
    files.authority("ca")
    files.certificate("a", "ca", "DNS:a.shop.svc")
    files.secret("ca", ca_crt=files.read("ca.crt"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.path("a.crt"), files.path("a.key"))
    context.set_alpn_protocols(["http/1.1", "h2"])
    return context


async def main():
    files = Files(os.path.dirname(path))
    tls = security(files) if sys.argv[4:] == ["tls"] else None
    server, port = await listen(tls)
    slice = endpoints("a", port)
    if kind == "full":
        slice = slice.replace("endpoints: [", 'endpoints: [{ addresses: ["127.0.0.2"], conditions: { ready: true } }, ')
    files.put("endpoints", slice)
    while not (await get("/")).startswith(b"HTTP/1.1 200"):
        pass
    if kind == "share":
        print("HTTP/1.1 clients:", await load("--h1", "-n", "600", "-c", "60", "http://shop.test/"))
        print("HTTP/2 clients:", await load("-n", "600", "-c", "6", "-m", "10", "http://shop.test/"))
        answer = await get("/", "POST", b"x" * 3_000_000)
        print("a body of 3 MB:", answer.endswith(b"\r\n\r\n3000000\n"))
        print("connections:", count["connections"], "at once:", count["most"] > 20)
    elif kind == "slow":
        # Twenty that ask for much and read nothing; one beside them that reads.
        host, port = proxy.rsplit(":", 1)
        slow = []
        for _ in range(20):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect((host, int(port)))
            s.sendall(b"GET /big HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            slow.append(s)
        for _ in range(10):
            answer = await get("/big")
            assert len(answer) > 1 << 20, len(answer)
        print("beside them: 10 of 1 MiB, connections:", count["connections"])
    else:
        print("requests:", await load("-n", "2000", "-c", "4", "-m", "16", "http://shop.test/"))
        if kind == "goaway":
            print("connections:", "many" if count["connections"] > 20 else count["connections"])
            print("not looked at:", "some" if count["dropped"] > 0 else "none")
        if kind == "refuse":
            print("refused:", "some" if count["refused"] > 0 else "none")
        if kind == "few":
            print("at once:", count["most"])
        if kind == "full":
            print("connections to the one that takes none:", "some" if count["full"] > 0 else "none")
            print("asked of it:", "few" if count["refused"] < 40 else count["refused"])
    server.close()


asyncio.run(asyncio.wait_for(main(), 60))
