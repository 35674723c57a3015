"""The two ends of a WebSocket with the proxy between them: a server of the `websockets` library, and a client that
speaks through HTTP/2 (RFC 8441) with the libraries `h2` and `wsproto`."""

import asyncio
import os
import socket
import threading
import time

import h2.config
import h2.connection
import h2.events
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate

PATIENCE = 20

SLICE = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: chat-1, namespace: shop, labels: {{ kubernetes.io/service-name: chat }} }}
addressType: IPv4
ports: [{{ port: {port}, protocol: TCP }}]
endpoints: [{{ addresses: ["127.0.0.1"], conditions: {{ ready: true }} }}]
"""


class Server:
    """Echoes what it is sent, and does what it is asked for. `closed` has the close codes that its clients have sent."""

    def __init__(self, path):
        self.closed = []
        self.loop = asyncio.new_event_loop()
        ready = threading.Event()
        threading.Thread(target=self.run, args=(ready,), daemon=True).start()
        ready.wait(PATIENCE)
        with open(path + ".new", "w") as file:
            file.write(SLICE.format(port=self.port))
        os.rename(path + ".new", path)

    def run(self, ready):
        asyncio.set_event_loop(self.loop)

        async def forever():
            async with serve(self.talk, "127.0.0.1", 0, max_size=2**21, subprotocols=["chat"], ping_interval=None) as server:
                self.port = server.sockets[0].getsockname()[1]
                ready.set()
                await asyncio.Future()

        self.loop.run_until_complete(forever())

    async def talk(self, ws):
        try:
            while True:
                message = await ws.recv()
                if message == "parts, please":
                    await ws.send(["in ", "three ", "parts"])
                elif message == "ping me":
                    await (await ws.ping(b"are you there?"))
                    await ws.send("you are there")
                elif message == "close, please":
                    await ws.close(4001, "as you wish")
                else:
                    await ws.send(message)
        except ConnectionClosed as end:
            if end.rcvd:
                self.closed.append(end.rcvd.code)
        finally:
            self.closed.append(("end", ws.close_code))

    def saw(self, code):
        """Whether a client's close code has come, now or soon."""
        limit = time.monotonic() + PATIENCE
        while code not in self.closed and time.monotonic() < limit:
            time.sleep(0.005)
        return code in self.closed


class Carrier:
    """An HTTP/2 connection whose streams are WebSockets."""

    def __init__(self, address, authority, tls=None):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname=authority)
            assert self.socket.selected_alpn_protocol() == "h2"
        self.scheme, self.authority = "https" if tls else "http", authority
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.input = b""
        self.tunnels, self.goaways, self.ended, self.broken = {}, [], False, None
        self.h2.initiate_connection()
        self.flush()
        self.until(lambda: self.h2.remote_settings.enable_connect_protocol)

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def until(self, condition):
        limit = time.monotonic() + PATIENCE
        while not condition():
            if self.ended or time.monotonic() > limit:
                raise SystemExit(f"never came to be: {condition.__code__.co_names}; {self.goaways} {self.broken}")
            self.pump()

    def pump(self):
        try:
            part = self.socket.recv(65536)
        except OSError as error:
            part, self.broken = b"", error
        if not part:
            self.ended = True
            return
        self.input += part
        while len(self.input) >= 9:
            size = 9 + int.from_bytes(self.input[:3], "big")
            if len(self.input) < size:
                break
            frame, self.input = self.input[:size], self.input[size:]
            if frame[3] == 7:
                # The library would hold its peace from here on, though the streams go on (RFC 9113 §6.8).
                self.goaways.append(int.from_bytes(frame[13:17], "big"))
                continue
            for event in self.h2.receive_data(frame):
                self.happened(event)
        self.flush()

    def happened(self, event):
        tunnel = self.tunnels.get(getattr(event, "stream_id", None))
        if tunnel is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            tunnel.answered(dict(event.headers))
        elif isinstance(event, h2.events.DataReceived):
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            tunnel.received(event.data)
        elif isinstance(event, h2.events.StreamEnded):
            tunnel.ended = True
        elif isinstance(event, h2.events.StreamReset):
            tunnel.reset = int(event.error_code)

    def open(self, path="/chat", compressed=False, *more):
        tunnel = Tunnel(self, self.h2.get_next_available_stream_id(), compressed)
        self.tunnels[tunnel.stream] = tunnel
        fields = [
            (":method", "CONNECT"), (":scheme", self.scheme), (":path", path), (":authority", self.authority),
            (":protocol", "websocket"), ("sec-websocket-version", "13"), ("sec-websocket-protocol", "other, chat"), *more,
        ]
        if tunnel.deflate:
            offer = tunnel.deflate.offer()
            name = PerMessageDeflate.name
            fields.append(("sec-websocket-extensions", f"{name}; {offer}" if isinstance(offer, str) and offer else name))
        self.h2.send_headers(tunnel.stream, fields)
        self.flush()
        self.until(lambda: tunnel.fields)
        return tunnel

    def send(self, stream, data):
        while data:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room == 0:
                self.pump()
                continue
            self.h2.send_data(stream, data[:room])
            data = data[room:]
            self.flush()


class Tunnel:
    def __init__(self, carrier, stream, compressed):
        self.carrier, self.stream = carrier, stream
        self.deflate = PerMessageDeflate() if compressed else None
        self.fields, self.ended, self.reset, self.close = None, False, None, None
        self.messages, self.parts, self.frames, self.pongs = [], [], 0, []

    @property
    def status(self):
        return self.fields[":status"]

    def answered(self, fields):
        self.fields = fields
        agreed = fields.get("sec-websocket-extensions")
        if self.deflate and agreed:
            self.deflate.finalize(agreed)
        self.ws = Connection(ConnectionType.CLIENT, [self.deflate] if self.deflate and agreed else None)

    def received(self, data):
        if not data:
            return
        self.ws.receive_data(data)
        for event in self.ws.events():
            if isinstance(event, Ping):
                self.say(event.response())
            elif isinstance(event, Pong):
                self.pongs.append(bytes(event.payload))
            elif isinstance(event, CloseConnection):
                self.close = (event.code, event.reason)
                if self.ws.state is ConnectionState.REMOTE_CLOSING:
                    self.say(event.response())
            elif isinstance(event, (TextMessage, BytesMessage)):
                self.parts.append(event.data if isinstance(event.data, str) else bytes(event.data))
                self.frames += event.frame_finished
                if event.message_finished:
                    self.messages.append((type(self.parts[0])().join(self.parts), self.frames))
                    self.parts, self.frames = [], 0

    def say(self, event):
        self.carrier.send(self.stream, self.ws.send(event))

    def send(self, message):
        self.say(TextMessage(message) if isinstance(message, str) else BytesMessage(message))

    def receive(self):
        """The next message, and in how many frames it came."""
        self.carrier.until(lambda: self.messages)
        return self.messages.pop(0)

    def ask(self, message):
        self.send(message)
        return self.receive()[0]

    def end(self):
        """Our side ends, as a TCP connection's would."""
        self.carrier.h2.end_stream(self.stream)
        self.carrier.flush()
