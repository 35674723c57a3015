"""What RFC 9113 says of frames, states and messages, case by case on connections of their own.

Usage: http2_conformance.py ADDRESS STREAMS. Behind host shop.test, `/wait` never answers, `/page` answers with 1000
bytes, and everything else with a few; a connection may have STREAMS requests at a time. Prints the cases that end in
another way than the book allows, and how many there were.
"""
import socket
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from hpack import Decoder
from http2 import PREFACE, frame, literal

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 1, 1, 4, 8, 32
ERRORS = [
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
    "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
]
PROBE = b"are you?"
PATIENCE = 5

address, streams = sys.argv[1], int(sys.argv[2])
host, port = address.rsplit(":", 1)


def word(value):
    return struct.pack(">I", value)


def setting(identifier, value):
    return struct.pack(">HI", identifier, value)


def block(*fields):
    return b"".join(literal(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in fields)


def pseudo(method="GET", path="/", authority="shop.test"):
    return [(":method", method), (":scheme", "http"), (":path", path), (":authority", authority)]


GET = block(*pseudo())
WAIT = block(*pseudo(path="/wait"))
POST = block(*pseudo("POST"))
POST_WAIT = block(*pseudo("POST", "/wait"))


def get(stream=1, *more, **where):
    return frame(HEADERS, END_STREAM | END_HEADERS, stream, block(*pseudo(**where), *more))


def post(stream=1, *more, path="/"):
    return frame(HEADERS, END_HEADERS, stream, block(*pseudo("POST", path), *more))


def request(*fields, stream=1):
    return frame(HEADERS, END_STREAM | END_HEADERS, stream, block(*fields))


class Connection:
    def __init__(self, preface=PREFACE + frame(SETTINGS, 0, 0)):
        self.socket = socket.create_connection((host, int(port)), PATIENCE)
        self.decoder = Decoder()
        self.input = b""
        self.statuses, self.bodies, self.ended, self.resets, self.pings = {}, {}, set(), {}, []
        self.settings, self.acknowledged, self.goaway, self.closed, self.frames = None, 0, None, False, 0
        self.fragment = b""
        self.send(preface)

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError:
            pass

    def until(self, condition):
        """Reads frames until the condition holds; false if it never does."""
        limit = time.monotonic() + PATIENCE
        while not condition():
            if self.closed or time.monotonic() > limit:
                return False
            while len(self.input) < 9 or len(self.input) < 9 + int.from_bytes(self.input[:3], "big"):
                try:
                    part = self.socket.recv(65536)
                except TimeoutError:
                    return condition()
                except OSError:
                    part = b""
                if not part:
                    self.closed = True
                    return condition()
                self.input += part
            length = int.from_bytes(self.input[:3], "big")
            kind, flags = self.input[3], self.input[4]
            stream = int.from_bytes(self.input[5:9], "big") & 0x7FFFFFFF
            payload, self.input = self.input[9 : 9 + length], self.input[9 + length :]
            self.take(kind, flags, stream, payload)
        return True

    def take(self, kind, flags, stream, payload):
        self.frames += 1
        if self.frames == 1 and kind != SETTINGS:
            self.goaway = "no SETTINGS first"
        if kind in (HEADERS, CONTINUATION):
            self.fragment += payload
            if flags & END_HEADERS:
                fields = dict(self.decoder.decode(self.fragment))
                self.fragment = b""
                if ":status" in fields:
                    self.statuses[stream] = int(fields[":status"])
        elif kind == DATA:
            self.bodies[stream] = self.bodies.get(stream, b"") + payload
        elif kind == RST_STREAM:
            self.resets.setdefault(stream, ERRORS[int.from_bytes(payload, "big")])
        elif kind == SETTINGS:
            if flags & ACK:
                self.acknowledged += 1
            else:
                self.settings = dict(struct.unpack(">HI", payload[i : i + 6]) for i in range(0, len(payload), 6))
                self.send(frame(SETTINGS, ACK, 0))
        elif kind == PING:
            if flags & ACK:
                self.pings.append(payload)
            else:
                self.send(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            self.goaway = ERRORS[int.from_bytes(payload[4:8], "big")]
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            self.ended.add(stream)

    def serves(self, stream):
        """Whether the connection still takes requests."""
        self.send(get(stream))
        return self.until(lambda: stream in self.ended) and self.statuses.get(stream) == 200

    def outcome(self, stream, probe, last):
        """What became of the stream, or of the connection."""
        if probe:
            self.send(frame(PING, 0, 0, PROBE))

        def settled():
            if self.goaway or stream in self.resets or (stream in self.ended and not probe):
                return True
            return probe and PROBE in self.pings

        self.until(settled)
        if self.goaway:
            return "goaway " + self.goaway
        if stream in self.ended:
            return f"status {self.statuses[stream]}" + ("" if not probe or self.serves(last) else ", and then nothing")
        if stream in self.resets:
            return "reset " + self.resets[stream] + ("" if not last or self.serves(last) else ", and then nothing")
        if probe and PROBE in self.pings:
            return "ignored" if self.serves(last) else "ignored, and then nothing"
        return "closed" if self.closed else "nothing"


CASES = []


def case(section, title, data, *expected, stream=1, last=4001, after=None, preface=PREFACE + frame(SETTINGS, 0, 0)):
    """One case: `data` is sent at once, or all but the first in the order of a list, each when `after` holds."""
    CASES.append((section, title, data, expected, stream, last, after, preface))


def check(section, title):
    """A case that looks for itself: it answers what is wrong, or nothing."""

    def add(function):
        CASES.append((section, title, function, (), 0, 0, None, None))
        return function

    return add


def play(entry):
    section, title, data, expected, stream, last, after, preface = entry
    try:
        if callable(data):
            got, wanted = data(), None
        else:
            c = Connection(preface)
            parts = data if isinstance(data, list) else [data]
            c.send(parts[0])
            for part in parts[1:]:
                c.until(lambda: after(c))
                c.send(part)
            probe = any(e == "ignored" for e in expected)
            got, wanted = c.outcome(stream, probe, last), expected
            c.socket.close()
    except Exception as error:
        got, wanted = repr(error), expected
    if wanted is None and not got or wanted is not None and got in wanted:
        return None
    return f"§{section} {title}: {got}" + (f", and not {' or '.join(wanted)}" if wanted else "")


def goaway(*codes):
    return tuple("goaway " + code for code in codes)


def error(*codes):
    """A stream error, which may be answered as one of the connection (§5.4.1)."""
    return tuple("reset " + code for code in codes) + goaway(*codes)


MALFORMED = ("reset PROTOCOL_ERROR", "status 400")
ended = lambda c: 1 in c.ended  # noqa: E731
knows = lambda c: c.acknowledged > 0  # noqa: E731

# --- §3.4: the preface
case("3.4", "a request behind the preface", get(), "status 200")
case("3.4", "the first frame is no SETTINGS", get(), *goaway("PROTOCOL_ERROR"), preface=PREFACE)
case("3.4", "the first SETTINGS is an ACK", frame(SETTINGS, ACK, 0), *goaway("PROTOCOL_ERROR"), preface=PREFACE)


@check("3.4", "a preface in single bytes")
def _():
    c = Connection(b"")
    c.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for i in PREFACE + frame(SETTINGS, 0, 0) + get():
        c.send(bytes([i]))
    return None if c.until(lambda: 1 in c.ended) and c.statuses[1] == 200 else "not served"


@check("3.4", "a preface that is none")
def _():
    s = socket.create_connection((host, int(port)), PATIENCE)
    s.sendall(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + frame(SETTINGS, 0, 0))
    answer = s.recv(4096)
    return None if answer[:10] in (b"HTTP/1.1 4", b"HTTP/1.1 5", b"") else answer[:40]


@check("3.4", "the server's first frame is SETTINGS, with the limits that are in force")
def _():
    c = Connection()
    c.until(lambda: c.settings is not None)
    return None if c.settings.get(3) == streams and c.settings.get(8) == 1 else c.settings


# --- §4: frames
case("4.1", "an unknown type", frame(0xEE, 0xFF, 1, b"what") + frame(0xEF, 0, 0, b""), "ignored")
case("4.1", "unknown flags", frame(HEADERS, 0xD2 | END_STREAM | END_HEADERS, 1, GET), "status 200")
case("4.1", "unknown flags of PING", frame(PING, 0xFE, 0, b"12345678"), "ignored")
case("4.1", "the reserved bit of the stream", frame(HEADERS, 5, 0x80000001, GET), "status 200")
case("4.2", "a frame of the largest size", post() + frame(DATA, END_STREAM, 1, b"x" * 16384), "status 200")
case("4.2", "DATA beyond it", post() + frame(DATA, END_STREAM, 1, b"x" * 16385), *error("FRAME_SIZE_ERROR"))
case("4.2", "HEADERS beyond it", frame(HEADERS, 5, 1, GET + literal(b"x", b"y" * 16384)), *goaway("FRAME_SIZE_ERROR"))
case("4.2", "SETTINGS beyond it", frame(SETTINGS, 0, 0, setting(99, 0) * 2731), *goaway("FRAME_SIZE_ERROR"))
case("4.2", "an unknown type beyond it", frame(0xEE, 0, 0, b"x" * 16385), *goaway("FRAME_SIZE_ERROR"))
case("4.3", "a block in two frames", frame(HEADERS, 1, 1, GET[:20]) + frame(CONTINUATION, 4, 1, GET[20:]), "status 200")
case("4.3", "an index beyond the table", frame(HEADERS, 5, 1, GET + b"\xff\x80\x01"), *goaway("COMPRESSION_ERROR"))
case("4.3", "index 0", frame(HEADERS, 5, 1, GET + b"\x80"), *goaway("COMPRESSION_ERROR"))
case("4.3", "an endless integer", frame(HEADERS, 5, 1, GET + b"\xff" * 12), *goaway("COMPRESSION_ERROR"))
case("4.3", "a table larger than allowed", frame(HEADERS, 5, 1, b"\x3f\xe1\xff\x03" + GET), *goaway("COMPRESSION_ERROR"))
case("4.3", "a table size behind a field", frame(HEADERS, 5, 1, GET + b"\x20"), *goaway("COMPRESSION_ERROR"))
case("4.3", "a string longer than the block", frame(HEADERS, 5, 1, GET + b"\x00\x05ab"), *goaway("COMPRESSION_ERROR"))
case("4.3", "Huffman padding that is none", frame(HEADERS, 5, 1, GET + b"\x00\x01a\x81\x00"), *goaway("COMPRESSION_ERROR"))
case("4.3", "the end of string in Huffman", frame(HEADERS, 5, 1, GET + b"\x00\x01a\x84\xff\xff\xff\xff"),
     *goaway("COMPRESSION_ERROR"))
case("4.3", "another stream's PRIORITY in a block", frame(HEADERS, 1, 1, GET[:9]) + frame(PRIORITY, 0, 3, word(0) + b"\1"),
     *goaway("PROTOCOL_ERROR"))
case("4.3", "another stream's HEADERS in a block", frame(HEADERS, 1, 1, GET[:9]) + get(3), *goaway("PROTOCOL_ERROR"))
case("4.3", "its own DATA in a block", frame(HEADERS, 0, 1, POST[:9]) + frame(DATA, 1, 1, b"x"), *goaway("PROTOCOL_ERROR"))
case("5.5", "an unknown type in a block", frame(HEADERS, 1, 1, GET[:9]) + frame(0xEE, 0, 1, b""), *goaway("PROTOCOL_ERROR"))
INDEXED = b"\x40" + literal(b"x-kept", b"1")[1:]
case("4.3", "the table is the connection's", frame(HEADERS, 5, 1, GET + INDEXED) + frame(HEADERS, 5, 3, GET + b"\xbe"),
     "status 200", stream=3)
case("4.3", "also of a malformed request", frame(HEADERS, 5, 1, block(("A", "b")) + INDEXED)
     + frame(HEADERS, 5, 3, GET + b"\xbe"), "status 200", stream=3)
case("4.3", "also of a refused one",
     b"".join(frame(HEADERS, 5, s, WAIT) for s in range(1, 2 * streams, 2))
     + frame(HEADERS, 5, 2 * streams + 1, GET + INDEXED) + frame(RST_STREAM, 0, 1, word(8))
     + frame(HEADERS, 5, 2 * streams + 3, GET + b"\xbe"), "status 200", stream=2 * streams + 3)

# --- §5: streams
case("5.1", "idle: DATA", frame(DATA, 0, 1, b"x"), *goaway("PROTOCOL_ERROR"))
case("5.1", "idle: RST_STREAM", frame(RST_STREAM, 0, 1, word(8)), *goaway("PROTOCOL_ERROR"))
case("5.1", "idle: WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 1, word(1)), *goaway("PROTOCOL_ERROR"))
case("5.1", "idle: PRIORITY", frame(PRIORITY, 0, 1, word(0) + b"\1"), "ignored")
half = frame(HEADERS, 5, 1, WAIT)
case("5.1", "half-closed: DATA", half + frame(DATA, 1, 1, b"x"), *error("STREAM_CLOSED"))
case("5.1", "half-closed: HEADERS", half + get(), *error("STREAM_CLOSED"))
case("5.1", "half-closed: WINDOW_UPDATE", half + frame(WINDOW_UPDATE, 0, 1, word(1)), "ignored")
case("5.1", "half-closed: PRIORITY", half + frame(PRIORITY, 0, 1, word(0) + b"\1"), "ignored")
case("5.1", "half-closed: RST_STREAM", half + frame(RST_STREAM, 0, 1, word(8)), "ignored")
gone = post(path="/wait") + frame(RST_STREAM, 0, 1, word(8))
case("5.1", "reset: DATA", gone + frame(DATA, 1, 1, b"x"), *error("STREAM_CLOSED"), "ignored")
case("5.1", "reset: HEADERS", gone + get(), *error("STREAM_CLOSED", "PROTOCOL_ERROR"))
case("5.1", "reset: WINDOW_UPDATE", gone + frame(WINDOW_UPDATE, 0, 1, word(1)), "ignored")
case("5.1", "reset: RST_STREAM", gone + frame(RST_STREAM, 0, 1, word(8)), "ignored")
case("5.1", "closed: DATA", [get(), frame(DATA, 1, 1, b"x")], *error("STREAM_CLOSED"), "ignored", stream=0, after=ended)
case("5.1", "closed: HEADERS", [get(), get()], *error("STREAM_CLOSED", "PROTOCOL_ERROR"), stream=0, after=ended)
case("5.1", "closed: WINDOW_UPDATE", [get(), frame(WINDOW_UPDATE, 0, 1, word(1))], "ignored", stream=0, after=ended)
case("5.1", "closed: RST_STREAM", [get(), frame(RST_STREAM, 0, 1, word(8))], "ignored", stream=0, after=ended)
case("5.1", "closed: PRIORITY", [get(), frame(PRIORITY, 0, 1, word(0) + b"\1")], "ignored", stream=0, after=ended)
case("5.1.1", "an even stream", get(2), *goaway("PROTOCOL_ERROR"))
case("5.1.1", "a stream below the last", get(5) + get(3), *goaway("PROTOCOL_ERROR", "STREAM_CLOSED"), stream=3)
case("5.1.1", "DATA of a stream that was passed over", get(5) + frame(DATA, 1, 3, b"x"), *error("STREAM_CLOSED"), "ignored",
     stream=3)
case("5.1.1", "streams may be left out", get(101), "status 200", stream=101)
case("5.1.1", "the last stream that there is", get(0x7FFFFFFF), "status 200", stream=0x7FFFFFFF)
many = b"".join(frame(HEADERS, 5, s, WAIT) for s in range(1, 2 * streams + 3, 2))
case("5.1.2", "one stream too many", many, "reset REFUSED_STREAM", "goaway PROTOCOL_ERROR", stream=2 * streams + 1, last=0)
case("5.1.2", "one too many, after SETTINGS were acknowledged", [b"", many], *error("REFUSED_STREAM", "PROTOCOL_ERROR"),
     stream=2 * streams + 1, last=0, after=knows)
case("5.3", "PRIORITY on itself", post(path="/wait") + frame(PRIORITY, 0, 1, word(1) + b"\1"), "ignored", *MALFORMED)
case("5.3", "HEADERS with a priority", frame(HEADERS, 37, 1, word(0x80000000) + b"\xff" + GET), "status 200")


@check("5.4.1", "after an error of the connection GOAWAY is the last frame, and the connection ends")
def _():
    c = Connection()
    c.send(frame(PING, 0, 1, b"12345678") + get())
    if not c.until(lambda: c.goaway):
        return "no GOAWAY"
    frames = c.frames
    c.socket.shutdown(socket.SHUT_WR)
    c.until(lambda: c.closed)
    return None if c.closed and c.frames == frames and not c.statuses else f"{c.frames - frames} more frames"


@check("5.4.2", "an error of one stream is not another's")
def _():
    c = Connection()
    c.send(get(1, path="/page") + request(("X", "y"), stream=3) + get(5, path="/page"))
    c.until(lambda: {1, 5} <= c.ended and 3 in c.resets)
    return None if len(c.bodies[1]) == len(c.bodies[5]) == 1000 and not c.goaway else "not served"


# --- §6: frames, one by one
case("6.1", "DATA on stream 0", frame(DATA, 0, 0, b"x"), *goaway("PROTOCOL_ERROR"))
case("6.1", "padding as long as the frame", post() + frame(DATA, 9, 1, b"\x06abcde"), *goaway("PROTOCOL_ERROR"))
case("6.1", "padding longer than the frame", post() + frame(DATA, 9, 1, b"\xffabc"), *goaway("PROTOCOL_ERROR"))
case("6.1", "a padded frame", post(1, ("content-length", "3")) + frame(DATA, 9, 1, b"\x04abc\0\0\0\0"), "status 200")
case("6.1", "nothing but padding", post(1, ("content-length", "0")) + frame(DATA, 9, 1, b"\x04\0\0\0\0"), "status 200")
case("6.1", "padded without a length", post() + frame(DATA, 9, 1, b""), *goaway("FRAME_SIZE_ERROR", "PROTOCOL_ERROR"))
case("6.2", "HEADERS on stream 0", get(0), *goaway("PROTOCOL_ERROR"))
case("6.2", "padding longer than the frame", frame(HEADERS, 13, 1, b"\xff" + GET), *goaway("PROTOCOL_ERROR"))
case("6.2", "padding and a priority", frame(HEADERS, 45, 1, b"\x03" + word(0) + b"\x10" + GET + b"\0\0\0"), "status 200")
case("6.2", "padded without a length", frame(HEADERS, 13, 1, b""), *goaway("FRAME_SIZE_ERROR", "PROTOCOL_ERROR"))
case("6.2", "a priority that is cut", frame(HEADERS, 37, 1, b"\0\0"), *goaway("FRAME_SIZE_ERROR", "PROTOCOL_ERROR"))
case("6.3", "PRIORITY on stream 0", frame(PRIORITY, 0, 0, word(0) + b"\1"), *goaway("PROTOCOL_ERROR"))
case("6.3", "PRIORITY of another size", post(path="/wait") + frame(PRIORITY, 0, 1, b"1234"), *error("FRAME_SIZE_ERROR"))
case("6.4", "RST_STREAM on stream 0", frame(RST_STREAM, 0, 0, word(8)), *goaway("PROTOCOL_ERROR"))
case("6.4", "RST_STREAM of another size", half + frame(RST_STREAM, 0, 1, b"123"), *goaway("FRAME_SIZE_ERROR"))
case("6.4", "a code that nobody knows", half + frame(RST_STREAM, 0, 1, word(0xDEADBEEF)), "ignored")
case("6.5", "SETTINGS on a stream", frame(SETTINGS, 0, 1), *goaway("PROTOCOL_ERROR"))
case("6.5", "an ACK that says something", frame(SETTINGS, ACK, 0, setting(1, 1)), *goaway("FRAME_SIZE_ERROR"))
case("6.5", "a size that is no multiple of six", frame(SETTINGS, 0, 0, b"1234567"), *goaway("FRAME_SIZE_ERROR"))
case("6.5.2", "an unknown setting", frame(SETTINGS, 0, 0, setting(0xABCD, 7)), "ignored")
case("6.5.2", "ENABLE_PUSH of 2", frame(SETTINGS, 0, 0, setting(2, 2)), *goaway("PROTOCOL_ERROR"))
case("6.5.2", "INITIAL_WINDOW_SIZE beyond 2³¹-1", frame(SETTINGS, 0, 0, setting(4, 1 << 31)), *goaway("FLOW_CONTROL_ERROR"))
case("6.5.2", "MAX_FRAME_SIZE below 2¹⁴", frame(SETTINGS, 0, 0, setting(5, 16383)), *goaway("PROTOCOL_ERROR"))
case("6.5.2", "MAX_FRAME_SIZE beyond 2²⁴-1", frame(SETTINGS, 0, 0, setting(5, 1 << 24)), *goaway("PROTOCOL_ERROR"))
case("6.5.2", "ENABLE_CONNECT_PROTOCOL of 2", frame(SETTINGS, 0, 0, setting(8, 2)), *goaway("PROTOCOL_ERROR"))
case("6.5.2", "a table of no size", frame(SETTINGS, 0, 0, setting(1, 0)) + get(), "status 200")


@check("6.5.3", "each SETTINGS is acknowledged")
def _():
    c = Connection()
    c.send(frame(SETTINGS, 0, 0, setting(3, 7)) * 3)
    return None if c.until(lambda: c.acknowledged == 4) else f"{c.acknowledged} acknowledged"


case("6.6", "PUSH_PROMISE of a client", post(path="/wait") + frame(PUSH_PROMISE, 4, 1, word(2) + GET), *goaway("PROTOCOL_ERROR"))
case("6.7", "PING on a stream", frame(PING, 0, 1, b"12345678"), *goaway("PROTOCOL_ERROR"))
case("6.7", "PING of another size", frame(PING, 0, 0, b"1234567"), *goaway("FRAME_SIZE_ERROR"))


@check("6.7", "PING is answered with what it said, its ACK not at all")
def _():
    c = Connection()
    c.send(frame(PING, 0, 0, b"one two ") + frame(PING, ACK, 0, b"an answr") + frame(PING, 0, 0, b"thr four"))
    c.until(lambda: len(c.pings) > 1)
    return None if c.pings == [b"one two ", b"thr four"] else c.pings


case("6.8", "GOAWAY on a stream", frame(GOAWAY, 0, 1, word(0) + word(0)), *goaway("PROTOCOL_ERROR"))
case("6.8", "GOAWAY that is cut", frame(GOAWAY, 0, 0, b"1234"), *goaway("FRAME_SIZE_ERROR"))
case("6.8", "what was asked before a GOAWAY is answered", get() + frame(GOAWAY, 0, 0, word(0) + word(0)), "status 200")
case("6.9", "WINDOW_UPDATE of another size", frame(WINDOW_UPDATE, 0, 0, b"123"), *goaway("FRAME_SIZE_ERROR"))
case("6.9", "of nothing, for the connection", frame(WINDOW_UPDATE, 0, 0, word(0)), *goaway("PROTOCOL_ERROR"))
case("6.9", "of nothing, for a stream", half + frame(WINDOW_UPDATE, 0, 1, word(0)), *error("PROTOCOL_ERROR"))
case("6.9", "the reserved bit", frame(WINDOW_UPDATE, 0, 0, word(0x80000001)), "ignored")
case("6.9.1", "a connection's window beyond 2³¹-1", frame(WINDOW_UPDATE, 0, 0, word(0x7FFFFFFF)), *goaway("FLOW_CONTROL_ERROR"))
case("6.9.1", "a stream's window beyond 2³¹-1", half + frame(WINDOW_UPDATE, 0, 1, word(0x7FFFFFFF)), *error("FLOW_CONTROL_ERROR"))
flood = frame(DATA, 0, 1, b"x" * 16384) * 4
case("6.9.1", "more than our window allows", post(path="/wait") + flood + flood, *error("FLOW_CONTROL_ERROR"))


@check("6.9.2", "windows follow the client's SETTINGS, also below nothing")
def _():
    c = Connection(PREFACE + frame(SETTINGS, 0, 0, setting(4, 100)))
    c.send(get(path="/page"))
    c.until(lambda: len(c.bodies.get(1, b"")) == 100)
    # 100 have gone: the window is now at -50, then at 10.
    c.send(frame(SETTINGS, 0, 0, setting(4, 50)) + frame(WINDOW_UPDATE, 0, 1, word(60)) + frame(PING, 0, 0, PROBE))
    c.until(lambda: PROBE in c.pings and len(c.bodies[1]) >= 110)
    if len(c.bodies[1]) != 110:
        return f"{len(c.bodies[1])} bytes"
    c.send(frame(WINDOW_UPDATE, 0, 1, word(5000)))
    return None if c.until(lambda: 1 in c.ended) and len(c.bodies[1]) == 1000 else f"{len(c.bodies[1])} bytes"


case("6.10", "CONTINUATION of nothing", frame(CONTINUATION, 4, 1, GET), *goaway("PROTOCOL_ERROR"))
case("6.10", "CONTINUATION on stream 0", frame(HEADERS, 1, 1, GET[:9]) + frame(CONTINUATION, 4, 0, GET[9:]), *goaway("PROTOCOL_ERROR"))
case("6.10", "CONTINUATION of another stream", frame(HEADERS, 1, 1, GET[:9]) + frame(CONTINUATION, 4, 3, GET[9:]),
     *goaway("PROTOCOL_ERROR"))
case("6.10", "CONTINUATION behind the end", get() + frame(CONTINUATION, 4, 1, b""), *goaway("PROTOCOL_ERROR"))
case("6.10", "an empty CONTINUATION", frame(HEADERS, 1, 1, GET) + frame(CONTINUATION, 4, 1, b""), "status 200")

# --- §8: messages
trailers = lambda *fields: frame(HEADERS, 5, 1, block(*fields))  # noqa: E731
case("8.1", "trailers", post() + frame(DATA, 0, 1, b"x") + trailers(("x-sum", "1")), "status 200")
case("8.1", "trailers that do not end the stream", post() + frame(HEADERS, 4, 1, block(("x-sum", "1"))), *error("PROTOCOL_ERROR"))
case("8.1", "trailers with a pseudo-field", post() + trailers((":path", "/")), *error("PROTOCOL_ERROR"))
case("8.1", "DATA behind trailers", post(path="/wait") + trailers(("x", "1")) + frame(DATA, 1, 1, b"x"), *error("STREAM_CLOSED"))
case("8.1.1", "fewer bytes than content-length", post(1, ("content-length", "3")) + frame(DATA, 1, 1, b"xy"), *MALFORMED)
case("8.1.1", "more bytes than content-length", post(1, ("content-length", "3")) + frame(DATA, 1, 1, b"wxyz"), *MALFORMED)
case("8.1.1", "content-length without a body", get(1, ("content-length", "3")), *MALFORMED)
case("8.1.1", "two lengths", get(1, ("content-length", "0"), ("content-length", "0")), *MALFORMED)
for name, value in [("X-Upper", "1"), ("x y", "1"), ("x:y", "1"), ("", "1"), ("x\0", "1"), ("x\x7f", "1"), ("é", "1")]:
    case("8.2.1", f"the name {name!r}", get(1, (name, value)), *MALFORMED)
for value in ["a\r\nb: c", "a\nb", "a\rb", "a\0b", " a", "a ", "\ta"]:
    case("8.2.1", f"the value {value!r}", get(1, ("x", value)), *MALFORMED)
for name, value in [("connection", "close"), ("keep-alive", "1"), ("proxy-connection", "close"),
                    ("transfer-encoding", "chunked"), ("upgrade", "websocket"), ("te", "gzip"), ("te", "trailers, deflate")]:
    case("8.2.2", f"{name}: {value}", get(1, (name, value)), *MALFORMED)
case("8.2.2", "te: trailers", get(1, ("te", "trailers")), "status 200")
case("8.2.3", "a cookie in crumbs", get(1, ("cookie", "a=1"), ("cookie", "b=2")), "status 200")
case("8.3", "a pseudo-field behind the others", request(*pseudo()[:3], ("x", "y"), pseudo()[3]), *MALFORMED)
case("8.3", "an unknown pseudo-field", request(*pseudo(), (":what", "x")), *MALFORMED)
case("8.3", "a response's pseudo-field", request(*pseudo(), (":status", "200")), *MALFORMED)
for i, name in enumerate([":method", ":scheme", ":path", ":authority"]):
    case("8.3.1", f"two of {name}", request(*pseudo(), pseudo()[i]), *MALFORMED)
    if name != ":authority":
        case("8.3.1", f"without {name}", request(*pseudo()[:i], *pseudo()[i + 1 :]), *MALFORMED)
case("8.3.1", "an empty path", get(path=""), *MALFORMED)
case("8.3.1", "a path that is none", get(path="shop"), *MALFORMED)
case("8.3.1", "a whole address for a path", get(path="http://shop.test/"), *MALFORMED)
case("8.3.1", "* of anything but OPTIONS", get(path="*"), *MALFORMED)
# It is admitted, and no rule is for it.
case("8.3.1", "* of OPTIONS", get(method="OPTIONS", path="*"), "status 404")
case("8.3.1", "an authority with a user", get(authority="me@shop.test"), *MALFORMED)
case("8.3.1", "an authority with a path", get(authority="shop.test/x"), *MALFORMED)
case("8.3.1", "a host that is another", get(1, ("host", "other.test")), *MALFORMED)
case("8.3.1", "a host that is the same", get(1, ("host", "SHOP.test")), "status 200")
case("8.3.1", "host in place of the authority", request(*pseudo()[:3], ("host", "shop.test")), "status 200")
case("8.3.1", "neither host nor authority", request(*pseudo()[:3]), *MALFORMED)
case("8.3.1", "two hosts", get(1, ("host", "shop.test"), ("host", "shop.test")), *MALFORMED)
tunnel = [(":method", "CONNECT"), (":authority", "shop.test:443")]
case("8.5", "CONNECT", frame(HEADERS, 4, 1, block(*tunnel)), "status 405")
case("8.5", "CONNECT with a path", frame(HEADERS, 4, 1, block(*tunnel, (":path", "/"), (":scheme", "http"))), *MALFORMED)
case("8.5", "CONNECT to nobody", frame(HEADERS, 4, 1, block(tunnel[0])), *MALFORMED)
extended = lambda protocol, *more: frame(  # noqa: E731
    HEADERS, 4, 1, block(*pseudo("CONNECT"), (":protocol", protocol), *more))
case("8441 4", "a protocol that is not spoken", extended("chat"), "status 501")
case("8441 4", "a protocol of a GET", get(1)[:0] + request(*pseudo(), (":protocol", "websocket")), *MALFORMED)
case("8441 4", "without a path", frame(HEADERS, 4, 1, block(*tunnel, (":scheme", "http"), (":protocol", "websocket"))), *MALFORMED)
case("8441 4", "two protocols", extended("websocket", (":protocol", "websocket")), *MALFORMED)
case("8441 5", "an upstream that answers with a page", extended("websocket", ("sec-websocket-version", "13")), "status 502")
case("8441 4", "one that ends with its head", request(*pseudo("CONNECT"), (":protocol", "websocket")), *MALFORMED)

with ThreadPoolExecutor(8) as pool:
    results = list(pool.map(play, CASES))
for problem in filter(None, results):
    print(problem)
print(f"{len(CASES)} cases, {len(CASES) - sum(r is not None for r in results)} as they should be")
