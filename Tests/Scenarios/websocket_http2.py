"""WebSockets through streams of HTTP/2 (RFC 8441): websocket_http2.py PROXY HOST ENDPOINTS-FILE [CA]"""

import os
import sys

from h2_client import trusting
from websocket_peers import Carrier, Server
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

address, name, path = sys.argv[1:4]
server = Server(path)
carrier = Carrier(address, name, trusting(sys.argv[4], "h2") if len(sys.argv) > 4 else None)
# Until the endpoint is known, the answer is 503, or 502 where there was another one.
tunnel = carrier.open()
while tunnel.status in ("502", "503"):
    carrier.until(lambda: tunnel.ended)
    tunnel = carrier.open()
print("opened:", tunnel.status, tunnel.fields["sec-websocket-protocol"], "sec-websocket-accept" in tunnel.fields,
      tunnel.fields.get("x-answered"))
print("text:", tunnel.ask("through the moon gate"))
data = os.urandom(1 << 20)
print("binary:", tunnel.ask(data) == data)
for part in ["in ", "many ", "frames"]:
    tunnel.say(TextMessage(part, message_finished=part == "frames"))
print("fragmented, to the server:", tunnel.receive()[0])
tunnel.send("parts, please")
print("fragmented, to the client:", *tunnel.receive())
tunnel.say(Ping(b"is anybody there?"))
carrier.until(lambda: tunnel.pongs)
print("ping of the client:", tunnel.pongs[0].decode())
print("ping of the server:", tunnel.ask("ping me"))
# A second one on the same connection, compressed by itself.
other = carrier.open(compressed=True)
print("compressed:", other.fields["sec-websocket-extensions"].split(";")[0], other.ask("a" * 100_000) == "a" * 100_000)
print("the first goes on:", tunnel.ask("still here"))
other.send("close, please")
carrier.until(lambda: other.close and other.ended)
print("closed by the server:", *other.close)
tunnel.say(CloseConnection(4002, "enough"))
carrier.until(lambda: tunnel.close and tunnel.ended)
tunnel.end()
print("closed by the client:", tunnel.close[0], server.saw(4002))
# Who goes without a word takes the upstream's connection with it.
gone = carrier.open()
gone.ask("hello")
carrier.h2.reset_stream(gone.stream, 8)
carrier.flush()
print("reset by the client:", server.saw(("end", 1006)))
last = carrier.open()
last.say(BytesMessage(b"x"))
print("the connection goes on:", last.receive()[0] == b"x", carrier.goaways)
