"""A WebSocket server and a client of the `websockets` library, with the proxy between them.

Usage: websocket.py PROXY HOST ENDPOINTS-FILE [CERTIFICATE]. The server takes a free port and writes it as an EndpointSlice.
With a certificate the client comes over TLS, and trusts that one alone.
"""

import asyncio
import os
import ssl
import sys

from websocket_peers import Server
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus


async def reach(uri, host, port, context):
    """Connects once the proxy has taken the endpoint in: until then it answers 503, or 502 for an
    earlier one that is gone."""
    while True:
        try:
            return await connect(
                uri, host=host, port=port, ssl=context, proxy=None, max_size=2**21, subprotocols=["other", "chat"])
        except InvalidStatus as error:
            if error.response.status_code not in (502, 503):
                raise


async def main():
    address, name, path = sys.argv[1:4]
    host, port = address.rsplit(":", 1)
    context = ssl.create_default_context(cafile=sys.argv[4]) if len(sys.argv) > 4 else None
    scheme = "wss" if context else "ws"
    server = Server(path)
    socket = await reach(f"{scheme}://{name}/chat", host, int(port), context)
    print("opened:", socket.subprotocol, [extension.name for extension in socket.protocol.extensions])
    await socket.send("through the moon gate")
    print("text:", await socket.recv())
    data = os.urandom(1 << 20)
    await socket.send(data)
    assert await socket.recv() == data
    print("binary:", len(data), "bytes")
    await socket.send(["in ", "many ", "frames"])
    print("fragmented, to the server:", await socket.recv())
    await socket.send("parts, please")
    print("fragmented, to the client:", [part async for part in socket.recv_streaming()])
    await (await socket.ping())
    print("ping of the client: answered")
    await socket.send("ping me")
    print("ping of the server:", await socket.recv())
    await socket.close(4002, "enough")
    print("closed by the client:", socket.close_code, server.saw(4002))
    socket = await reach(f"{scheme}://{name}/chat", host, int(port), context)
    await socket.send("close, please")
    try:
        await socket.recv()
    except ConnectionClosed as end:
        print("closed by the server:", end.rcvd.code, end.rcvd.reason)


asyncio.run(asyncio.wait_for(main(), 60))
