"""WebSockets over a reload and a SIGTERM: websocket_drain.py MOONGATE FOLDER

Over HTTP/1.1 with the `websockets` library, and through streams of HTTP/2. A reload, even one that takes their rule and
their endpoint away, does not touch them; while the program drains they go on, and what is still open when the time for
it is over is ended, not broken.
"""

import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request

from program import Program, until
from websocket_peers import Carrier, Server
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from wsproto.events import CloseConnection, Ping

moongate, folder = sys.argv[1:3]
DRAIN = 1.5

RULES = """\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{ name: web, namespace: shop }}
spec:
  ingressClassName: moongate
  rules: [{{ host: {host}, http: {{ paths: [{{ path: /, pathType: Prefix, backend: {{ service: {{ name: chat, port: {{ number: 80 }} }} }} }}] }} }}]
---
apiVersion: v1
kind: Service
metadata: {{ name: chat, namespace: shop }}
spec: {{ ports: [{{ port: 80 }}] }}
"""


def write(host):
    with open(f"{folder}/web.new", "w") as file:
        file.write(RULES.format(host=host))
    os.rename(f"{folder}/web.new", f"{folder}/web.yaml")


os.makedirs(folder, exist_ok=True)
write("shop.test")
server = Server(f"{folder}/endpoints.yaml")
program = Program(moongate, folder, "--workers", "2", "--drain-timeout", f"{int(DRAIN * 1000)}ms")


def status(name):
    request = urllib.request.Request(f"http://{program.http}/none", headers={"Host": name})
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return error.code


def speak(text):
    """Text, binary, fragments and pings on every tunnel."""
    good = 0
    for ws in old:
        ws.send(text)
        ws.send(text.encode() * 1000)
        ws.send([text, "-", text])
        answers = [ws.recv(), ws.recv(), ws.recv()]
        good += answers == [text, text.encode() * 1000, f"{text}-{text}"] and ws.ping().wait(10)
    for tunnel in new:
        answers = [tunnel.ask(text), tunnel.ask(text.encode() * 1000)]
        tunnel.say(Ping(text.encode()))
        carrier.until(lambda: tunnel.pongs)
        good += answers == [text, text.encode() * 1000] and tunnel.pongs.pop().decode() == text
    return f"{good} of {len(old) + len(new)} go on"


with program:
    # The server answers plain requests with 426.
    until(lambda: status("shop.test") == 426, "the endpoint")
    host, port = program.http.rsplit(":", 1)
    old = [
        connect("ws://shop.test/chat", sock=socket.create_connection((host, int(port))), proxy=None, ping_interval=None,
                subprotocols=["chat"])
        for _ in range(3)
    ]
    carrier = Carrier(program.http, "shop.test")
    new = [carrier.open() for _ in range(3)]
    print("opened:", speak("hello"))
    write("moved.test")
    until(lambda: status("moved.test") == 426, "the reload")
    os.remove(f"{folder}/endpoints.yaml")
    until(lambda: status("moved.test") == 503, "the second reload")
    print("after reloads that took rule and endpoint away:", status("shop.test"), speak("still here"))
    begun = time.monotonic()
    program.process.send_signal(signal.SIGTERM)
    carrier.until(lambda: carrier.goaways)
    until(lambda: not program.is_ready(), "not ready")
    print("while it drains:", speak("to the end"))
    old.pop().close(4003, "I go")
    last = new.pop()
    last.say(CloseConnection(4003, "I go"))
    carrier.until(lambda: last.close and last.ended)
    last.end()
    print("closed by their clients:", last.close[0], server.saw(4003))
    for ws in old:
        try:
            ws.recv(timeout=20)
        except ConnectionClosed as end:
            print("HTTP/1.1:", "ended" if end.rcvd is None and end.sent is None else end, repr(end.__cause__))
    carrier.until(lambda: carrier.ended)
    # NO_ERROR behind the end only says that nothing more is read (RFC 9113 §8.1).
    print("HTTP/2:", [t.ended and not t.reset for t in new], carrier.goaways, carrier.broken)
    print("exit:", program.wait())
    took = time.monotonic() - begun
    print("in the time that it had:", DRAIN - 0.1 <= took <= DRAIN + 3 or took)
    lines = [l for l in program.log if l.get("path") == "/chat"]
    print("log:", sorted((l["protocol"], l["status"], l.get("error", "-")) for l in lines))
