"""A connection of HTTP/2 that tells what the proxy said on it."""

import socket
import ssl
import time

import h2.config
import h2.connection
import h2.events

PATIENCE = 20


class Client:
    """`answers` has status and body of the streams that have ended, `goaways` the last streams and codes of GOAWAYs."""

    def __init__(self, address, authority, tls=None):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname=authority, suppress_ragged_eofs=False)
            assert self.socket.selected_alpn_protocol() == "h2"
        self.scheme, self.authority = "https" if tls else "http", authority
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.input = b""
        self.answers, self.heads, self.bodies = {}, {}, {}
        self.goaways, self.resets, self.ended, self.broken = [], [], False, None
        # Called at the first GOAWAY, before anything behind it is read.
        self.told = lambda: None
        self.h2.initiate_connection()
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def ask(self, path):
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, [(":method", "GET"), (":scheme", self.scheme), (":path", path),
                                      (":authority", self.authority)], end_stream=True)
        self.bodies[stream] = b""
        self.flush()
        return stream

    def get(self, path):
        """Status and body; None if the stream is one that the proxy will not have (RFC 9113 §6.8)."""
        stream = self.ask(path)
        self.until(lambda: stream in self.answers or self.ended or self.goaways and stream > self.goaways[-1][0])
        return self.answers.get(stream)

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
            self.socket.close()
            return
        self.input += part
        while len(self.input) >= 9:
            size = 9 + int.from_bytes(self.input[:3], "big")
            if len(self.input) < size:
                break
            frame, self.input = self.input[:size], self.input[size:]
            if frame[3] == 7:
                # The library would hold its peace from here on, though the streams go on (RFC 9113 §6.8).
                self.goaways.append((int.from_bytes(frame[9:13], "big"), int.from_bytes(frame[13:17], "big")))
                if len(self.goaways) == 1:
                    self.told()
                continue
            for event in self.h2.receive_data(frame):
                self.happened(event)
        self.flush()

    def happened(self, event):
        if isinstance(event, h2.events.ResponseReceived):
            self.heads[event.stream_id] = dict(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self.bodies[event.stream_id] += event.data
        elif isinstance(event, h2.events.StreamEnded):
            self.answers[event.stream_id] = (int(self.heads[event.stream_id][":status"]), self.bodies[event.stream_id])
        elif isinstance(event, h2.events.StreamReset):
            self.resets.append((event.stream_id, int(event.error_code)))


def trusting(path, *protocols):
    """What a client verifies a server by."""
    context = ssl.create_default_context(cafile=path)
    context.set_alpn_protocols(protocols)
    return context
