"""A WebSocket server and a client of the `websockets` library, with the proxy between them.

Usage: websocket.py PROXY HOST ENDPOINTS-FILE [CERTIFICATE]. The server takes a free port and writes it as an EndpointSlice.
With a certificate the client comes over TLS, and trusts that one alone.
"""

import asyncio
import os
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import InvalidStatus

SLICE = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: chat-1, namespace: shop, labels: {{ kubernetes.io/service-name: chat }} }}
addressType: IPv4
ports: [{{ port: {port}, protocol: TCP }}]
endpoints: [{{ addresses: ["127.0.0.1"], conditions: {{ ready: true }} }}]
"""


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def reach(uri, host, port, context):
    """Connects once the proxy has taken the endpoint in: until then it answers 503."""
    while True:
        try:
            return await connect(uri, host=host, port=port, ssl=context, proxy=None, max_size=2**21)
        except InvalidStatus as error:
            if error.response.status_code != 503:
                raise


async def main():
    address, name, path = sys.argv[1:4]
    host, port = address.rsplit(":", 1)
    context = ssl.create_default_context(cafile=sys.argv[4]) if len(sys.argv) > 4 else None
    async with serve(echo, "127.0.0.1", 0, max_size=2**21) as server:
        with open(path + ".new", "w") as file:
            file.write(SLICE.format(port=server.sockets[0].getsockname()[1]))
        os.rename(path + ".new", path)
        scheme = "wss" if context else "ws"
        socket = await reach(f"{scheme}://{name}/chat", host, int(port), context)
        await socket.send("through the moon gate")
        print("text:", await socket.recv())
        data = os.urandom(1 << 20)
        await socket.send(data)
        assert await socket.recv() == data
        print("binary:", len(data), "bytes")
        await (await socket.ping())
        print("ping: answered")
        await socket.close()
        print("close:", socket.close_code)


asyncio.run(asyncio.wait_for(main(), 60))
