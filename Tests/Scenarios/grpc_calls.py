"""A gRPC server and a client of the `grpcio` library, with the proxy between them.

Usage: grpc_calls.py PROXY ENDPOINTS-FILE. The server takes a free port and writes it as an EndpointSlice.
Messages are plain bytes: nothing here depends on how they are coded.
"""

import os
import sys
import threading
import time
from concurrent import futures

import grpc

SLICE = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: calls-1, namespace: shop, labels: {{ kubernetes.io/service-name: calls }} }}
addressType: IPv4
ports: [{{ port: {port}, protocol: TCP }}]
endpoints: [{{ addresses: ["127.0.0.1"], conditions: {{ ready: true }} }}]
"""
cancelled = threading.Event()


def unary(request, context):
    metadata = dict(context.invocation_metadata())
    context.set_trailing_metadata((("seen", metadata.get("x-key", "-")), ("peer", metadata.get("x-forwarded-for", "-"))))
    return request[::-1]


def server_stream(request, context):
    for i in range(int(request)):
        yield b"%d" % i


def client_stream(requests, context):
    return b"%d" % sum(len(r) for r in requests)


def bidi(requests, context):
    for request in requests:
        yield request.upper()


def sleep(request, context):
    context.add_callback(cancelled.set)
    time.sleep(float(request))
    return b"late"


def fail(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not by this moon: \u263d")


METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
    "Sleep": grpc.unary_unary_rpc_method_handler(sleep),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
}
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def status(call, *arguments, **keywords):
    try:
        call(*arguments, **keywords)
        return "OK"
    except grpc.RpcError as error:
        return f"{error.code().name} {error.details()}"


def calls(channel):
    unary = channel.unary_unary("/moon.Gate/Unary")
    answer, call = unary.with_call(b"gate", metadata=(("x-key", "7"),), wait_for_ready=True)
    trailers = dict(call.trailing_metadata())
    print("unary:", answer.decode(), "seen", trailers["seen"], "peer", trailers["peer"])
    print("server stream:", sum(1 for _ in channel.unary_stream("/moon.Gate/ServerStream")(b"1000")))
    print("client stream:", channel.stream_unary("/moon.Gate/ClientStream")(b"x" * i for i in range(100)).decode())
    # One message after the answer to the last: nothing on the way waits for more.
    ready = threading.Semaphore(0)

    def messages():
        for word in (b"one", b"two", b"three"):
            yield word
            ready.acquire()

    said = []
    for answer in channel.stream_stream("/moon.Gate/Bidi")(messages()):
        said.append(answer.decode())
        ready.release()
    print("bidi:", *said)
    big = os.urandom(4 << 20)
    print("4 MiB both ways:", unary(big) == big[::-1])
    with futures.ThreadPoolExecutor(30) as pool:
        print("at once:", sum(a == b"og" for a in pool.map(lambda _: unary(b"go"), range(300))))


def main():
    server = grpc.server(futures.ThreadPoolExecutor(40), options=OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("moon.Gate", METHODS),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    proxy, path = sys.argv[1:3]
    with open(path + ".new", "w") as file:
        file.write(SLICE.format(port=port))
    os.rename(path + ".new", path)

    channel = grpc.insecure_channel(proxy, OPTIONS + [("grpc.default_authority", "shop.test")])
    probe = channel.unary_unary("/moon.Gate/Unary")
    until = time.monotonic() + 20
    while (answer := status(probe, b"")) != "OK" and time.monotonic() < until:
        assert answer.startswith("UNAVAILABLE"), answer
    calls(channel)
    # Statuses: the server's, ours, and what becomes of deadlines and of calls that are called off.
    print("the server's error:", status(channel.unary_unary("/moon.Gate/Fail"), b""))
    print("no such method:", status(channel.unary_unary("/moon.Gate/None"), b"").split(" ")[0])
    late = channel.unary_unary("/moon.Gate/Sleep")
    print("the client's deadline:", status(late, b"5", timeout=1).split(" ")[0], "server told:", cancelled.wait(30))
    cancelled.clear()
    call = late.future(b"0.5")
    call.cancel()
    print("called off:", call.cancelled())
    print("the proxy's deadline:", status(late, b"13"))
    other = grpc.insecure_channel(proxy, [("grpc.default_authority", "nobody.test")])
    print("no such host:", status(other.unary_unary("/moon.Gate/Unary"), b""))
    print("no such path:", status(channel.unary_unary("/nowhere/Unary"), b""))
    print("an HTTP/1.1 upstream:", status(channel.unary_unary("/old/Unary"), b"", timeout=60).split(" ")[0])
    print("one that hangs up:", status(channel.unary_unary("/gone/Unary"), b"", timeout=60))
    server.stop(0).wait()
    print("none there:", status(probe, b""))


if __name__ == "__main__":
    main()
