"""A small gRPC service, and its client: `pip install grpcio`.

    greeter.py serve ADDRESS NAME             answers as NAME, until it is ended
    greeter.py hello ADDRESS WHO [KEY=VALUE]  one call: a greeting; KEY=VALUE is metadata
    greeter.py count ADDRESS NUMBER           one call with a stream of answers
    greeter.py chat ADDRESS WORD...           a stream each way: a word, its answer, the next word
    greeter.py wait ADDRESS SECONDS           a call that takes its time, with a deadline of half a second

Messages are plain text instead of Protocol Buffers, so that nothing has to be generated.
"""

import json
import signal
import sys
import time
from concurrent import futures

import grpc

SERVICE = "moon.Greeter"


def serve(address, name):
    def hello(request, context):
        return b"hello %s, from %s" % (request, name.encode())

    def count(request, context):
        for number in range(1, int(request) + 1):
            yield b"%d from %s" % (number, name.encode())

    def chat(requests, context):
        for request in requests:
            yield b"%s, says %s" % (request, name.encode())

    def wait(request, context):
        time.sleep(float(request))
        return b"at last"

    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {
        "Hello": grpc.unary_unary_rpc_method_handler(hello),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
        "Wait": grpc.unary_unary_rpc_method_handler(wait),
    }),))
    port = server.add_insecure_port(address)
    server.start()
    print(json.dumps({"event": "listening", "echo": f"127.0.0.1:{port}"}), flush=True)
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    server.stop(1).wait()


def call(method, address, arguments):
    # The authority is what the Ingress calls `host`.
    with grpc.insecure_channel(address, [("grpc.default_authority", "grpc.test")]) as channel:
        path = f"/{SERVICE}/{method.capitalize()}"
        if method == "hello":
            metadata = [tuple(pair.split("=", 1)) for pair in arguments[1:]]
            print(channel.unary_unary(path)(arguments[0].encode(), metadata=metadata).decode())
        elif method == "count":
            for answer in channel.unary_stream(path)(arguments[0].encode()):
                print(answer.decode())
        elif method == "chat":
            for answer in channel.stream_stream(path)(word.encode() for word in arguments):
                print(answer.decode())
        else:
            print(channel.unary_unary(path)(arguments[0].encode(), timeout=0.5).decode())


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM} if sys.argv[1:2] == ["serve"] else set())
    try:
        if sys.argv[1] == "serve":
            serve(*sys.argv[2:4])
        else:
            call(sys.argv[1], sys.argv[2], sys.argv[3:])
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}")
        sys.exit(1)
